"""Recognises other formats than PEM, and gives the command that converts them.

A test runs each command and loads the result.  The command is at the end of the message and never overwrites its input.
"""

from __future__ import annotations

import re
import shlex
import warnings
from base64 import b64decode
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key

from .chain import in_order

_LABEL: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_BASE64: Final = re.compile(rb"\s*MII[A-Za-z0-9+/=\s]{100,}\Z")
"""The beginning of DER with more than 256 octets, in base64."""
_PKCS12: Final = re.compile(rb"\x30(?:[\x00-\x7f]|\x81.|\x82..|\x83...|\x80)\x02\x01\x03", re.DOTALL)
"""PFX is a SEQUENCE that begins with the INTEGER 3 (RFC 7292 4)."""
_OLD_CIPHERS: Final = re.compile(rb"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01[\x01\x02\x05\x06]")
"""pkcs-12PbeIds with RC4 or RC2 (RFC 7292 appendix C), as Windows and Java wrote them for twenty years.  OpenSSL 3
reads them with -legacy only."""
_SSH: Final = re.compile(rb"\s*(?:ssh-(?:rsa|ed25519|dss)|ecdsa-sha2-nistp\d+) AAAA")
_ED25519: Final = b"ssh-ed25519"

_REQUEST: Final = (
    "a request for a certificate (CSR); no command can make a certificate of it: send it to a CA, and name the file "
    "that the CA sends back"
)
_PUBLIC: Final = (
    "a public key; neither a certificate nor a private key can be made of it: name the file with the private key, or "
    "that with the certificate"
)
_REVOKED: Final = "a list of revoked certificates (CRL); name the file with the server's certificate"
_SSH_PUBLIC: Final = "an SSH public key, which TLS does not use; name the file with the certificate or key for TLS"

_BINARY: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\xfe\xed\xfe\xed", "a Java keystore (JKS); convert it: {keystore}"),
    (b"\xce\xce\xce\xce", "a Java keystore (JCEKS); convert it: {keystore}"),
    (b"\x1e\xf1\xb5\xb0", "a private key in Microsoft's form (PVK); convert it: {pvk} -in {old} -out {new}"),
    (b"PuTTY-User-Key-File", "an SSH key of PuTTY; name the key that the certificate was issued for"),
    (b"PK\x03\x04", "a ZIP archive; unpack it, and name the PEM file that was in it"),
    (b"\x1f\x8b", "compressed by gzip; unpack it: (umask 077; gunzip < {old} > {new})"),
    (b"\xff\xfe", "text in UTF-16; convert it: (umask 077; iconv -f UTF-16 -t UTF-8 {old} > {new})"),
    (b"\xfe\xff", "text in UTF-16; convert it: (umask 077; iconv -f UTF-16 -t UTF-8 {old} > {new})"),
    (b"<", "a page of HTML or XML, perhaps an error that a download saved; fetch the file again"),
)  # fmt: skip
"""First octets of a file -> its format."""

_KEYSTORE: Final = (
    "keytool -importkeystore -srckeystore {old} -destkeystore {between} -deststoretype PKCS12 && {pkcs12}"
)


def what_is(path: Path, octets: bytes) -> str:
    """The format of the file, and the cure.  Empty if unknown."""
    if not octets.strip():
        return "it is empty; the program that writes it has not finished, or has failed"
    old, new = shlex.quote(str(path)), shlex.quote(str(_beside(path)))
    for begin, words in _BINARY:
        if octets.startswith(begin):
            return "it is " + words.format(old=old, new=new, keystore=_keystore(path), pvk="openssl rsa -inform PVK")
    if _SSH.match(octets):
        return f"it is {_SSH_PUBLIC}"
    if labels := _LABEL.findall(octets):
        return _by_label(path, octets, labels)
    if b"-----BEGIN" in octets:
        return ""
    if _PKCS12.match(octets):
        return f"it is PKCS#12 (.pfx, .p12); convert it: {_pkcs12(path, octets)}"
    if found := _parsed(octets):
        return f"it is {found}{_in_der(path, octets, found)}"
    if _BASE64.match(octets):
        with suppress(ValueError):
            if (found := _parsed(b64decode(octets))) in _DER_CURE:
                one_line = "" if b"\n" in octets.strip() else "-A "
                cure = f"openssl base64 -d {one_line}-in {old} | {_DER_CURE[found].format(source='', new=new)}"
                return f"it is {found} in base64, without the lines BEGIN and END; convert it: {cure}"
    return ""


def damage(path: Path, octets: bytes) -> str:
    """How the PEM file was damaged, and the command that repairs it.  Empty if unknown."""
    old, new = shlex.quote(str(path)), shlex.quote(str(_beside(path)))
    if b"\\n" in octets and octets.count(b"\n") < 3:
        return f"its line ends are written as \\n; convert it: (umask 077; printf '%b' \"$(cat {old})\" > {new})"
    if re.search(rb"\n[ \t\r]*\n[A-Za-z0-9+/]{40,}=*[ \t\r]*\n[ \t\r]*\n", octets):
        return f"there is an empty line behind each line; remove them: (umask 077; grep '[^[:space:]]' {old} > {new})"
    return ""


def rearranged(path: Path, numbers: Sequence[int], keyed: bool) -> str:
    """The command that writes these certificates of a PEM file in this order, and its key, if there is one."""
    old, new = shlex.quote(str(path)), shlex.quote(str(_beside(path)))
    picking = f"for n in {' '.join(map(str, numbers))}; do {_pick(old)}; done"
    return f"(umask 077; ({picking}; openssl pkey -in {old}) > {new})" if keyed else f"({picking}) > {new}"


def key_alone(path: Path, number: int) -> str:
    """The command that writes one private key of several, and the certificates, if there are some."""
    old, new = shlex.quote(str(path)), shlex.quote(str(_beside(path)))
    begin, end = "/-----BEGIN .*PRIVATE KEY-----/", "/-----END .*PRIVATE KEY-----/"
    return f"(umask 077; awk '{begin}{{i++;k=1}} !k||i=={number}; {end}{{k=0}}' {old} > {new})"


def without_passphrase(path: Path) -> str:
    return f"openssl pkey -in {shlex.quote(str(path))} -out {shlex.quote(str(_beside(path)))}"


def ssh_key(path: Path, octets: bytes) -> str:
    """The cure for a private key in OpenSSH's format."""
    inside = b""
    with suppress(ValueError):
        inside = b64decode(b"".join(octets.split(b"-----")[2].split()))
    if _ED25519 in inside:
        return "ssh-keygen cannot convert Ed25519; name the key that the certificate was issued for"
    old, new = shlex.quote(str(path)), shlex.quote(str(_beside(path)))
    return f"convert it: install -m 600 {old} {new} && ssh-keygen -p -m PKCS8 -N '' -f {new}"


# --- by what is in it --------------------------------------------------------------------------------

_DER_CURE: Final = {
    "a certificate": "openssl x509 -inform DER {source}-out {new}",
    "a private key": "openssl pkey -inform DER {source}-out {new}",
}


def _by_label(path: Path, octets: bytes, labels: list[bytes]) -> str:
    old, new = shlex.quote(str(path)), shlex.quote(str(_beside(path)))
    for label in labels:
        match label:
            case b"PKCS7" | b"PKCS #7 SIGNED DATA":
                return f"it holds PKCS#7; convert it: {_pkcs7(path, octets, 'PEM')}"
            case b"TRUSTED CERTIFICATE":
                return f"it holds a certificate in OpenSSL's own form; convert it: openssl x509 -in {old} -out {new}"
            case b"CERTIFICATE REQUEST" | b"NEW CERTIFICATE REQUEST":
                return f"it holds {_REQUEST}"
            case b"X509 CRL":
                return f"it holds {_REVOKED}"
            case b"PUBLIC KEY" | b"RSA PUBLIC KEY":
                return f"it holds {_PUBLIC}"
            case b"SSH2 PUBLIC KEY":
                return f"it holds {_SSH_PUBLIC}"
            case b"OPENSSH PRIVATE KEY":
                return "it holds a private key of SSH; name the file with the certificate"
            case _ if label.endswith(b"PRIVATE KEY"):
                return "it holds a private key; name the file with the certificate"
            case b"CERTIFICATE" | b"X509 CERTIFICATE":
                return "it holds a certificate; name the file with the private key"
    return f"it holds {' and '.join(dict.fromkeys(label.decode('ascii') for label in labels))}"


_PARSERS: Final[tuple[tuple[Callable[[bytes], object], str], ...]] = (
    (x509.load_der_x509_certificate, "a certificate"),
    (lambda octets: load_der_private_key(octets, None, unsafe_skip_rsa_key_validation=True), "a private key"),
    (x509.load_der_x509_csr, _REQUEST),
    (x509.load_der_x509_crl, _REVOKED),
    (load_der_public_key, _PUBLIC),
    (lambda octets: _certificates_of_pkcs7(octets, "DER"), "PKCS#7"),
)
"""Parser for DER -> name of the format."""


def _certificates_of_pkcs7(octets: bytes, form: str) -> list[x509.Certificate]:
    # It imports the package for mail, 1 MB of memory for a file that nobody should have.
    from cryptography.hazmat.primitives.serialization import pkcs7

    return (pkcs7.load_pem_pkcs7_certificates if form == "PEM" else pkcs7.load_der_pkcs7_certificates)(octets)


def _parsed(octets: bytes) -> str:
    """The format of this DER."""
    for understands, what in _PARSERS:
        with suppress(ValueError, UnsupportedAlgorithm):
            with suppress(TypeError), warnings.catch_warnings():  # openssl asks for the passphrase, if there is one
                warnings.simplefilter("ignore")  # about what is not quite DER
                understands(octets)
            return what
    return ""


def _in_der(path: Path, octets: bytes, what: str) -> str:
    old, new = shlex.quote(str(path)), shlex.quote(str(_beside(path)))
    if what in _DER_CURE:
        return f" in DER form; convert it: {_DER_CURE[what].format(source=f'-in {old} ', new=new)}"
    return f" in DER form; convert it: {_pkcs7(path, octets, 'DER')}" if what == "PKCS#7" else ""


# --- commands ----------------------------------------------------------------------------------------


def _beside(path: Path) -> Path:
    """Output file of a command: `mail.pfx.pem` for `mail.pfx`, `mail.new.pem` for `mail.pem`."""
    return path.with_suffix(".new.pem") if path.suffix == ".pem" else path.with_name(f"{path.name}.pem")


def _pick(file: str) -> str:
    """Prints certificate number $n of a PEM file, or of standard input."""
    begin, end = "/-----BEGIN CERTIFICATE-----/", "/-----END CERTIFICATE-----/"
    return f"awk -v n=$n '{begin}{{i++;c=1}} c&&i==n; {end}{{c=0}}' {file}".rstrip()


def _pkcs12(path: Path, octets: bytes) -> str:
    """The server's certificate and key first, then the others: a PFX may have them in any order."""
    old, new = shlex.quote(str(path)), shlex.quote(str(_beside(path)))
    reading = f"openssl pkcs12 {'-legacy ' if _OLD_CIPHERS.search(octets) else ''}-in {old}"
    return f"(umask 077; ({reading} -nodes -clcerts; {reading} -nokeys -cacerts) > {new})"


def _keystore(path: Path) -> str:
    between = path.with_name(f"{path.name}.p12")
    return _KEYSTORE.format(old=shlex.quote(str(path)), between=shlex.quote(str(between)), pkcs12=_pkcs12(between, b""))


def _pkcs7(path: Path, octets: bytes, form: str) -> str:
    """PKCS#7 contains a set without an order."""
    old, new = shlex.quote(str(path)), shlex.quote(str(_beside(path)))
    reading = f"openssl pkcs7 -inform {form} -print_certs -in {old}"
    with suppress(ValueError, UnsupportedAlgorithm), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = _certificates_of_pkcs7(octets, form)
        numbers = in_order(found)
        if numbers and numbers != list(range(1, len(found) + 1)):
            return f"(for n in {' '.join(map(str, numbers))}; do {reading} | {_pick('')}; done) > {new}"
    return f"{reading} -out {new}"
