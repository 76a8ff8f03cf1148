"""Files with certificates and keys, as administrators have them: PEM is used; of all else it is said what it is."""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    pkcs7,
)

# The words by which PEM blocks of a private key end, PKCS#8, RSA or EC alike (RFC 7468 10, 11).
_KEY_MARK: Final = b"PRIVATE KEY-----"
_KEY_BEGINS: Final = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")
CERTIFICATE_MARK: Final = b"-----BEGIN CERTIFICATE-----"
_LABEL: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_PKCS12: Final = re.compile(rb"\x30(?:[\x00-\x7f]|\x81.|\x82..|\x83...|\x80)\x02\x01\x03", re.DOTALL)
"""PFX is a SEQUENCE that begins with the INTEGER 3 (RFC 7292 4)."""


class CertificateError(ValueError):
    """A certificate or key cannot be used; the text is one line that names the file and the cure."""


def read(path: Path) -> bytes:
    """Raises CertificateError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CertificateError(f"{path}: no such file; write the name of the PEM file in full") from None
    except IsADirectoryError:
        raise CertificateError(f"{path}: this is a directory; name the PEM file in it") from None
    except PermissionError:
        raise CertificateError(
            f"{path}: the gateway may not read this file; let its group read it (chgrp, chmod g+r), its directory too"
        ) from None
    except (OSError, ValueError) as error:
        raise CertificateError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def certificates(
    path: Path, wanted: str = "it must be a PEM file that begins with the server's certificate"
) -> tuple[x509.Certificate, ...]:
    """All of them.  Raises CertificateError, with `wanted` where nothing better can be said."""
    octets = read(path)
    if CERTIFICATE_MARK not in octets:
        raise CertificateError(f"{path}: no certificate in this file; {what_is(path, octets) or wanted}")
    try:
        return tuple(x509.load_pem_x509_certificates(octets))
    except ValueError:
        raise CertificateError(
            f"{path}: a certificate in this file is damaged; fetch the file again from its issuer"
        ) from None


def private_keys(path: Path, wanted: str, *, shared: bool = False) -> list[Any]:
    """All of them, one at least.  Raises CertificateError, with `wanted` where nothing better can be said.

    `shared`: the certificate is in the same file.
    """
    octets = read(path)
    if not _KEY_BEGINS.search(octets):
        other = "" if shared else what_is(path, octets)
        raise CertificateError(f"{path}: no private key in this file; {other or wanted}")
    # Before the key's PEM block there may be certificates, or EC PARAMETERS.
    begins = [match.start() for match in _KEY_BEGINS.finditer(octets)]
    return [_private(path, octets[begin:end]) for begin, end in zip(begins, [*begins[1:], None], strict=True)]


def _private(path: Path, octets: bytes) -> Any:
    # cryptography tells apart what OpenSSL would lump together as "bad decrypt" or "no start line".
    if octets.startswith(b"-----BEGIN OPENSSH"):
        raise CertificateError(
            f"{path}: the private key has OpenSSH's own form; convert it in place: ssh-keygen -p -m PKCS8 -f {path}"
        )
    damaged = CertificateError(f"{path}: the private key in this file is damaged or of an unknown kind")
    try:
        # The whole validation of an RSA key with 4096 bits takes 0.3 s, in which nobody would be served.
        private = load_pem_private_key(octets, None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise CertificateError(
            f"{path}: the private key is protected by a passphrase; remove it: openssl pkey -in {path} -out NEW"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise damaged from None
    if isinstance(private, rsa.RSAPrivateKey) and not _signs(private):
        raise damaged
    return private


def _signs(private: rsa.RSAPrivateKey) -> bool:
    """Whether the key can do the one thing that it is there for."""
    try:
        signature = private.sign(b"", padding.PKCS1v15(), hashes.SHA256())
        private.public_key().verify(signature, b"", padding.PKCS1v15(), hashes.SHA256())
    except (ValueError, InvalidSignature):
        return False
    return True


def is_open(path: Path) -> bool:
    """Whether every user of this machine may read it."""
    try:
        return bool(os.stat(path).st_mode & stat.S_IROTH)
    except (OSError, ValueError):
        return False


# --- what else a file may be ---------------------------------------------------------------------

_PEM: Final = {
    b"CERTIFICATE REQUEST": "it holds a certificate signing request, which goes to the CA; the certificate is what "
    "the CA sends back",
    b"PKCS7": "it holds PKCS#7; convert it: openssl pkcs7 -print_certs -in {path} -out {path}.pem",
    b"TRUSTED CERTIFICATE": "it holds an OpenSSL trusted certificate; convert it: openssl x509 -in {path} "
    "-out {path}.pem",
    b"PUBLIC KEY": "it holds a public key only; a public key cannot be used here",
    b"PRIVATE KEY": "it holds a private key; are `certificate` and `key` exchanged?",
    b"CERTIFICATE": "it holds a certificate; are `certificate` and `key` exchanged?",
}
"""What the label of a PEM block ends with -> what to say; the first that fits."""

_DER: Final[tuple[tuple[Callable[[bytes], object], str], ...]] = (
    (
        x509.load_der_x509_certificate,
        "it is a certificate in DER form; convert it: openssl x509 -inform DER -in {path} -out {path}.pem",
    ),
    (
        lambda octets: load_der_private_key(octets, None, unsafe_skip_rsa_key_validation=True),
        "it is a private key in DER form; convert it: openssl pkey -inform DER -in {path} -out {path}.pem",
    ),
    (x509.load_der_x509_csr, _PEM[b"CERTIFICATE REQUEST"].replace("it holds", "it is")),
    (load_der_public_key, _PEM[b"PUBLIC KEY"].replace("it holds", "it is").replace(" only", "")),
    (
        pkcs7.load_der_pkcs7_certificates,
        "it is PKCS#7 in DER form; convert it: openssl pkcs7 -inform DER -print_certs -in {path} -out {path}.pem",
    ),
)
"""Who can read it -> what it is."""


def what_is(path: Path, octets: bytes) -> str:
    """What a file holds in place of what was wanted, and the command that converts it; nothing if nobody knows."""
    if not octets.strip():
        return "it is empty; whatever writes it has not finished, or failed"
    if octets.startswith(_UTF16):
        return f"it is text in UTF-16; convert it: iconv -f UTF-16 -t UTF-8 {path} > {path}.pem"
    for label in _LABEL.findall(octets):
        for ending, words in _PEM.items():
            if label.endswith(ending):
                return words.format(path=path)
    if _PKCS12.match(octets):
        return (
            f"it is PKCS#12 (.pfx, .p12); convert it: openssl pkcs12 -in {path} -nodes -out {path}.pem "
            "(and add -legacy if openssl calls it unsupported)"
        )
    for understands, words in _DER:
        with suppress(ValueError, UnsupportedAlgorithm):
            with suppress(TypeError), warnings.catch_warnings():  # who wants a passphrase is asked by openssl
                warnings.simplefilter("ignore")  # it is not quite DER
                understands(octets)
            return words.format(path=path)
    return ""
