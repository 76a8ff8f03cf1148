"""Files that hold something else than a PEM certificate or key; row T16.

Each command that a message gives is run as a person would, at a terminal, and what it wrote is loaded.
"""

from __future__ import annotations

import os
import random
import re
import select
import shlex
import stat
import subprocess
from base64 import encodebytes
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.config.values import Pair
from gateway.wire.tls.certificates import CertificateError, inspect, load, load_authorities
from gateway.wire.tls.context import client_context
from gateway.wire.tls.formats import what_is
from gateway.wire.tls.verify import TLSClientOptions
from tests.memory.test_certificate_trials import Issuer, errors, p256, written
from tests.process.programs import need

SECRET = "a secret"
_ASKS = re.compile(rb"(?i)pass ?(?:word|phrase)[^\n]*:\s*\Z")


def typed(command: str, directory: Path) -> None:
    """Run it at a terminal, where whoever asks for a password is told SECRET."""
    master, slave = os.openpty()
    try:
        process = subprocess.Popen(
            [need("setsid", debian="util-linux"), "--ctty", "--wait", "sh", "-c", command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=directory,
        )
        os.close(slave)
        heard, asked = b"", b""
        while chunk := _heard(master):
            heard += chunk
            asked += chunk
            if _ASKS.search(asked):
                os.write(master, f"{SECRET}\n".encode())
                asked = b""
        assert process.wait() == 0, heard
    finally:
        os.close(master)


def _heard(master: int) -> bytes:
    assert select.select([master], [], [], 60)[0], "it says nothing, and does not end"
    try:
        return os.read(master, 4096)
    except OSError:  # EIO: the other end is closed
        return b""


def obeyed(text: str, directory: Path) -> Path:
    """The file that the command at the end of the message makes."""
    before = set(directory.iterdir())
    kept = {path: path.read_bytes() for path in before}
    command = re.split(r"(?:convert it|unpack it|remove it|remove them|remove the others): ", text, maxsplit=1)[1]
    typed(command, directory)
    (made,) = (path for path in set(directory.iterdir()) - before if path.suffix == ".pem")
    assert {path: path.read_bytes() for path in before} == kept, "nothing is written over"
    if b"PRIVATE KEY" in made.read_bytes():
        assert not stat.S_IMODE(made.stat().st_mode) & 0o077, "a key is for its owner alone"
    return made


@pytest.fixture
def plain(tmp_path: Path) -> Pair:
    """A pair that is good, to be spoilt; its chain has three.  The directory's name must be quoted for a shell."""
    directory = tmp_path / "it's here"
    directory.mkdir()
    middle = Issuer("Middle", by=Issuer("Top", by=Issuer("Root")))
    leaf, key = middle.leaf(key=rsa.generate_private_key(65537, 2048))
    return written(directory, key, leaf, middle.certificate, middle.by.certificate)


def shuffled(plain: Pair) -> None:
    """Its chain in an order in which no server may send it: as `order.pem`."""
    leaf, *issuers = x509.load_pem_x509_certificates(plain.certificate.read_bytes())
    octets = b"".join(one.public_bytes(Encoding.PEM) for one in (*reversed(issuers), leaf))
    plain.certificate.with_name("order.pem").write_bytes(octets)


CERTIFICATES: dict[str, tuple[str, str, int]] = {
    # what it is: the command that makes it, what is said of it, certificates that are there afterwards
    "DER": ("openssl x509 -in mail.pem -outform DER -out FILE", "it is a certificate in DER form", 1),
    "base64 of DER": (
        "sh -c 'openssl x509 -in mail.pem -outform DER | openssl base64 -out FILE'",
        "it is a certificate in base64, without the lines BEGIN and END",
        1,
    ),
    "base64 of DER in one line": (
        "sh -c 'openssl x509 -in mail.pem -outform DER | openssl base64 -A -out FILE'",
        "it is a certificate in base64, without the lines BEGIN and END",
        1,
    ),
    "PKCS#7": ("openssl crl2pkcs7 -nocrl -certfile mail.pem -out FILE", "it holds PKCS#7", 3),
    "PKCS#7 in another order": ("openssl crl2pkcs7 -nocrl -certfile order.pem -out FILE", "it holds PKCS#7", 3),
    "PKCS#7 in DER form": (
        "openssl crl2pkcs7 -nocrl -certfile mail.pem -outform DER -out FILE",
        "it is PKCS#7 in DER form",
        3,
    ),
    "PKCS#7 in DER form and another order": (
        "openssl crl2pkcs7 -nocrl -certfile order.pem -outform DER -out FILE",
        "it is PKCS#7 in DER form",
        3,
    ),
    "PKCS#12": (
        f"openssl pkcs12 -export -in mail.pem -inkey mail.key -passout 'pass:{SECRET}' -out FILE",
        "it is PKCS#12 (.pfx, .p12)",
        3,
    ),
    "PKCS#12 whose own certificate comes last": (
        f"openssl pkcs12 -export -in order.pem -inkey mail.key -passout 'pass:{SECRET}' -out FILE",
        "it is PKCS#12 (.pfx, .p12)",
        3,
    ),
    "PKCS#12 as Windows wrote it": (
        f"openssl pkcs12 -export -legacy -in mail.pem -inkey mail.key -passout 'pass:{SECRET}' -out FILE",
        "it is PKCS#12 (.pfx, .p12)",
        3,
    ),
    "OpenSSL's own": ("openssl x509 -in mail.pem -trustout -out FILE", "a certificate in OpenSSL's own form", 1),
    "UTF-16": ("iconv -f UTF-8 -t UTF-16 mail.pem -o FILE", "it is text in UTF-16", 3),
    "gzip": ("sh -c 'gzip < mail.pem > FILE'", "it is compressed by gzip", 3),
    "escaped line ends": (
        """sh -c 'awk "{printf \\"%s\\\\\\\\n\\", \\$0}" mail.pem > FILE'""",
        r"its line ends are written as \n",
        3,
    ),
    "double-spaced": ("sh -c 'sed G mail.pem > FILE'", "there is an empty line behind each line", 3),
}


def made(command: str, plain: Pair, name: str) -> Path:
    directory = plain.certificate.parent
    spoilt = directory / name
    subprocess.run(
        [part.replace("FILE", name) for part in shlex.split(command)],
        cwd=directory, check=True, capture_output=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return spoilt


@pytest.mark.parametrize("kind", CERTIFICATES)
def test_T16_what_is_there_is_said_and_the_command_converts_it(plain: Pair, kind: str) -> None:
    command, words, number = CERTIFICATES[kind]
    shuffled(plain)
    spoilt = made(command, plain, "spoilt")
    (text,) = errors(Pair(spoilt, plain.key))
    assert text.startswith(f"{spoilt}: ")
    assert words in text
    right = obeyed(text, spoilt.parent)
    found = x509.load_pem_x509_certificates(right.read_bytes())
    whole = x509.load_pem_x509_certificates(plain.certificate.read_bytes())
    if kind == "PKCS#12 whose own certificate comes last":
        # The others have no order of their own there.
        (text,) = errors(Pair(right, plain.key))
        assert "the chain is out of order" in text
        typed(text.rpartition(": ")[2], right.parent)
        right = right.with_suffix(".new.pem")
        found = x509.load_pem_x509_certificates(right.read_bytes())
    assert found == whole[:number]
    assert load(Pair(right, plain.key))
    if "PKCS#12" in kind:
        assert load(Pair(right)), "it holds the key, too"


def test_T16_the_name_of_the_new_file_is_never_that_of_the_old(plain: Pair) -> None:
    for name in ("mail.pfx", "a.pem"):
        spoilt = made("openssl x509 -in mail.pem -outform DER -out FILE", plain, name)
        (text,) = errors(Pair(spoilt, plain.key))
        assert load(Pair(obeyed(text, spoilt.parent), plain.key))


KEYS: dict[str, tuple[str, str]] = {
    "DER": ("openssl pkey -in mail.key -outform DER -out FILE", "it is a private key in DER form"),
    "base64 of DER": (
        "sh -c 'openssl pkey -in mail.key -outform DER | openssl base64 -out FILE'",
        "it is a private key in base64, without the lines BEGIN and END",
    ),
    "DER, RSA's own": (
        "openssl rsa -in mail.key -traditional -outform DER -out FILE",
        "it is a private key in DER form",
    ),
    "DER with a passphrase": (
        f"openssl pkcs8 -topk8 -in mail.key -passout 'pass:{SECRET}' -outform DER -out FILE",
        "it is a private key in DER form",
    ),
    "a passphrase": (
        f"openssl pkey -in mail.key -aes256 -passout 'pass:{SECRET}' -out FILE",
        "the private key is protected by a passphrase",
    ),
    "a passphrase, RSA's own": (
        f"openssl rsa -in mail.key -traditional -aes256 -passout 'pass:{SECRET}' -out FILE",
        "the private key is protected by a passphrase",
    ),
    "PKCS#12": (
        f"openssl pkcs12 -export -in mail.pem -inkey mail.key -passout 'pass:{SECRET}' -out FILE",
        "it is PKCS#12 (.pfx, .p12)",
    ),
    "Microsoft's": ("openssl rsa -in mail.key -outform PVK -pvk-none -out FILE", "a private key in Microsoft's form"),
    "SSH's": ("sh -c 'install -m 600 mail.key FILE && ssh-keygen -p -q -N \"\" -f FILE'", "has SSH's own form"),
    "SSH's with a passphrase": (
        f"sh -c 'install -m 600 mail.key FILE && ssh-keygen -p -q -N \"{SECRET}\" -f FILE'",
        "has SSH's own form",
    ),
    "double-spaced": ("sh -c 'umask 077; sed G mail.key > FILE'", "there is an empty line behind each line"),
}


@pytest.mark.parametrize("kind", KEYS)
def test_T16_the_command_converts_a_key(plain: Pair, kind: str) -> None:
    command, words = KEYS[kind]
    if "ssh-keygen" in command:
        need("ssh-keygen", debian="openssh-client")
    spoilt = made(command, plain, "spoilt.key")
    (text,) = errors(Pair(plain.certificate, spoilt))
    assert text.startswith(f"{spoilt}: ")
    assert words in text
    assert load(Pair(plain.certificate, obeyed(text, spoilt.parent)))


@pytest.mark.parametrize("store", ["JKS", "JCEKS"])
def test_T16_a_Java_keystore(plain: Pair, store: str) -> None:
    need("keytool", debian="default-jre-headless")
    directory = plain.certificate.parent
    made(f"openssl pkcs12 -export -in mail.pem -inkey mail.key -passout 'pass:{SECRET}' -out FILE", plain, "x.p12")
    command = (
        f"keytool -importkeystore -noprompt -srckeystore x.p12 -srcstorepass '{SECRET}' -destkeystore mail.jks "
        f"-deststoretype {store} -deststorepass '{SECRET}'"
    )
    subprocess.run(shlex.split(command), cwd=directory, check=True, capture_output=True)
    (directory / "x.p12").unlink()
    spoilt = directory / "mail.jks"
    for pair in (Pair(spoilt), Pair(plain.certificate, spoilt)):
        (text,) = errors(pair) if pair.key else (what_is(spoilt, spoilt.read_bytes()),)
        assert f"it is a Java keystore ({store})" in text
    right = obeyed(text, directory)
    assert len(load(Pair(right)).chain) == 3


# --- what no command can convert -----------------------------------------------------------------------


def ssh_key(directory: Path, kind: str) -> Path:
    path = directory / "id"
    program = need("ssh-keygen", debian="openssh-client")
    subprocess.run([program, "-q", "-t", kind, "-N", "", "-f", str(path)], check=True, capture_output=True)
    return path


def test_T16_an_SSH_key_of_Ed25519_cannot_be_converted(plain: Pair) -> None:
    (text,) = errors(Pair(plain.certificate, ssh_key(plain.certificate.parent, "ed25519")))
    assert text.endswith("ssh-keygen cannot convert Ed25519; name the key that the certificate was issued for")


def test_T16_public_keys_of_SSH(plain: Pair) -> None:
    public = ssh_key(plain.certificate.parent, "rsa").with_suffix(".pub")
    for pair in (Pair(public, plain.key), Pair(plain.certificate, public)):
        (text,) = errors(pair)
        assert "it is an SSH public key, which TLS does not use" in text
    pair = Pair(public.with_suffix(""), plain.key)
    assert "it holds a private key of SSH; name the file with the certificate" in errors(pair)[0]


@pytest.mark.parametrize("form", ["PEM", "DER"])
def test_T16_a_request_is_no_certificate(plain: Pair, form: str) -> None:
    command = f"openssl req -new -key mail.key -subj /CN=x -outform {form} -out FILE"
    (text,) = errors(Pair(made(command, plain, "csr"), plain.key))
    assert "a request for a certificate (CSR); no command can make a certificate of it: send it to a CA" in text


@pytest.mark.parametrize("form", ["PEM", "DER"])
@pytest.mark.parametrize("which", ["certificate", "key"])
def test_T16_a_public_key_can_be_neither(plain: Pair, form: str, which: str) -> None:
    public = made(f"openssl pkey -in mail.key -pubout -outform {form} -out FILE", plain, "public")
    (text,) = errors(Pair(public, plain.key) if which == "certificate" else Pair(plain.certificate, public))
    assert "a public key; neither a certificate nor a private key can be made of it" in text


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_T16_a_list_of_revoked_certificates(plain: Pair, encoding: Encoding) -> None:
    import datetime

    from cryptography.hazmat.primitives import hashes

    now = datetime.datetime.now(datetime.timezone.utc)
    issuer = Issuer("Root")
    revoked = x509.CertificateRevocationListBuilder(issuer.name, now, now).sign(issuer.key, hashes.SHA256())
    path = plain.certificate.with_name("ca.crl")
    path.write_bytes(revoked.public_bytes(encoding))
    (text,) = errors(Pair(path, plain.key))
    assert "a list of revoked certificates (CRL)" in text


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (b"PuTTY-User-Key-File-3: ssh-rsa\r\n", "an SSH key of PuTTY"),
        (b"PK\x03\x04\x14\x00", "a ZIP archive; unpack it"),
        (b"<!DOCTYPE html><title>404</title>", "a page of HTML or XML"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n", "it holds PGP PUBLIC KEY BLOCK"),
        (b"-----BEGIN DH PARAMETERS-----\n", "it holds DH PARAMETERS"),
        (b"", "it is empty"),
    ],
)
def test_T16_other_files_are_named(plain: Pair, octets: bytes, words: str) -> None:
    path = plain.certificate.with_name("x")
    path.write_bytes(octets)
    for pair in (Pair(path, plain.key), Pair(plain.certificate, path)):
        assert words in errors(pair)[0]


@pytest.mark.parametrize("octets", [b"\x30\x80hello", b"remember the milk", b"MII" + b"A" * 400, b"-----BEGIN"])
def test_T16_what_nobody_knows_is_only_called_no_certificate(plain: Pair, octets: bytes) -> None:
    path = plain.certificate.with_name("x")
    path.write_bytes(octets)
    (text,) = errors(Pair(path, plain.key))
    assert text.endswith("no certificate in this file; it must be a PEM file that begins with the server's certificate")


# --- two of them ---------------------------------------------------------------------------------------


def test_T16_certificate_and_key_exchanged(plain: Pair) -> None:
    assert plain.key is not None
    (text,) = errors(Pair(plain.key, plain.certificate))
    assert text.startswith(f"{plain.key}: this is the private key, and {plain.certificate} is the certificate; ")
    assert text.endswith("exchange the two in the configuration")
    other = plain.key.with_name("other.pem")
    other.write_bytes(plain.certificate.read_bytes())
    (text,) = errors(Pair(plain.certificate, other))
    assert "no private key in this file; it holds a certificate; name the file with the private key" in text
    (text,) = errors(Pair(plain.key, plain.key.with_name("mail.key")))
    assert "no certificate in this file; it holds a private key; name the file with the certificate" in text


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("together", [True, False])
def test_T16_two_keys_in_one_file(plain: Pair, first: bool, together: bool) -> None:
    assert plain.key is not None
    right = plain.key.read_bytes()
    wrong = p256().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    octets = right + wrong if first else wrong + right
    pair = plain
    if together:
        pair = Pair(plain.certificate)
        octets += plain.certificate.read_bytes()
    (pair.key or pair.certificate).write_bytes(octets)
    (text,) = errors(pair)
    assert f"there are 2 private keys in this file; number {1 if first else 2} belongs to the certificate" in text
    better = obeyed(text, plain.key.parent)
    assert load(Pair(better) if together else Pair(plain.certificate, better))
    assert better.read_bytes().count(b"BEGIN") == (4 if together else 1)


def test_T16_the_same_key_twice_does_no_harm(plain: Pair) -> None:
    assert plain.key is not None
    plain.key.write_bytes(plain.key.read_bytes() * 2)
    assert not errors(plain)


# --- what does no harm -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda octets: octets.replace(b"\n", b"\r\n"),
        lambda octets: b"\xef\xbb\xbf" + octets,
        lambda octets: b"Bag Attributes\n    friendlyName: Stra\xdfe\n" + octets,
        lambda octets: octets.replace(b"-----\n-----", b"----------"),  # cat of files without an end of line
        lambda octets: octets.rstrip(),
        lambda octets: octets.replace(b"\n", b"  \n"),
        lambda octets: octets.replace(b"BEGIN CERT", b"BEGIN X509 CERT").replace(b"END CERT", b"END X509 CERT"),
    ],
    ids=["CRLF", "BOM", "text before", "no line end between", "no line end", "blanks", "the old label"],
)
def test_T16_PEM_as_editors_leave_it_is_served(plain: Pair, change: Callable[[bytes], bytes]) -> None:
    assert plain.key is not None
    for path in (plain.certificate, plain.key):
        path.write_bytes(change(path.read_bytes()))
    assert not errors(plain)
    assert len(load(plain).chain) == 3


# --- what is damaged --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_T16_a_damaged_certificate_ends_in_a_report_and_nothing_else(plain: Pair, seed: int) -> None:
    """cryptography and OpenSSL raise all kinds of things, some of them late."""
    dice = random.Random(seed)
    whole = x509.load_pem_x509_certificates(plain.certificate.read_bytes())
    refused = 0
    for _ in range(100):
        chain = [bytearray(one.public_bytes(Encoding.DER)) for one in whole]
        spoilt = dice.choice(chain)
        for _ in range(dice.choice([1, 1, 2, 4])):
            spoilt[dice.randrange(len(spoilt))] = dice.choice([0, 0x0C, 0x13, 0x30, 255, dice.randrange(256)])
        plain.certificate.write_bytes(b"".join(map(as_pem, chain)))
        (report,) = inspect([plain])
        assert not any("\n" in line for line in report.errors + report.warnings)
        refused += bool(report.errors)
    assert 50 < refused < 100


def as_pem(octets: bytearray) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + encodebytes(octets) + b"-----END CERTIFICATE-----\n"


# --- the files of CAs ------------------------------------------------------------------------------------


def test_T16_files_of_CAs_are_named_too(plain: Pair) -> None:
    """`client_ca`, and `ca` of a backend."""
    spoilt = made("openssl x509 -in mail.pem -outform DER -out FILE", plain, "ca.cer")
    with pytest.raises(CertificateError, match="it is a certificate in DER form; convert it: openssl x509") as caught:
        load_authorities(spoilt)
    with pytest.raises(CertificateError, match="it is a certificate in DER form; convert it: openssl x509"):
        client_context(TLSClientOptions("mail.example.test", ca=spoilt))
    better = obeyed(str(caught.value), spoilt.parent)
    assert len(load_authorities(better).certificates) == 1
    assert client_context(TLSClientOptions("mail.example.test", ca=better))
