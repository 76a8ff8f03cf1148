"""Certificates and files as people really have them; rows T13 to T16."""

from __future__ import annotations

import datetime
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.config.values import TLS, Pair
from gateway.tls.certificates import CertificateError, covers, inspect, load
from gateway.tls.renewal import Renewal
from tests.memory.issuing import by_hand, dns, serving

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
HOST = "mail.example.test"

Key = Any


def p256() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


class Issuer:
    """Someone who issues certificates, wrong ones too."""

    def __init__(self, name: str, key: Key | None = None, by: Issuer | None = None, **wrong: Any) -> None:
        self.key = key or p256()
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.by = by or self
        self.certificate = self.by.sign(self.name, self.key, **{"ca": True, **wrong})

    def sign(
        self,
        name: x509.Name,
        key: Key,
        *,
        ca: bool = False,
        path_length: int | None = None,
        signs: bool = True,
        known_by: Key | None = None,
        days: float = 90,
        extensions: tuple[x509.ExtensionType, ...] = (),
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder(self.name, name, key.public_key(), x509.random_serial_number(),
                                          NOW - 100 * DAY, NOW + days * DAY)  # fmt: skip
        usage = dict.fromkeys(("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
                               "key_agreement", "crl_sign", "encipher_only", "decipher_only"), False)  # fmt: skip
        known: tuple[x509.ExtensionType, ...] = (
            x509.BasicConstraints(ca, path_length if ca else None),
            x509.KeyUsage(**{**usage, "digital_signature": True}, key_cert_sign=ca and signs),
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
            x509.AuthorityKeyIdentifier.from_issuer_public_key((known_by or self.key).public_key()),
            *extensions,
        )
        for extension in known:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def leaf(self, *extensions: x509.ExtensionType, **wrong: Any) -> tuple[x509.Certificate, Key]:
        key = p256()
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "leaf")])
        return self.sign(name, key, extensions=(dns(HOST), *extensions), **wrong), key


def written(directory: Path, key: Key, *chain: x509.Certificate) -> Pair:
    pair = Pair(directory / "mail.pem", directory / "mail.key")
    assert pair.key is not None
    pair.certificate.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in chain))
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    pair.key.chmod(0o600)
    return pair


def errors(pair: Pair, profile: str = "intermediate") -> tuple[str, ...]:
    """One judgement: what `check` calls an error, the start and a renewal refuse."""
    (report,) = inspect([pair], profile=profile)
    refused = []
    try:
        serving(pair, profile=profile)
    except CertificateError as error:
        refused.append(str(error))
    assert set(refused) <= set(report.errors)
    assert bool(refused) == bool(report.errors)
    return report.errors


def warnings(pair: Pair) -> tuple[str, ...]:
    (report,) = inspect([pair])
    assert not report.errors, "a warning is no error"
    assert load(pair)
    return tuple(text for text in report.warnings if "no CA that this machine knows" not in text)


def openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True, stdin=subprocess.DEVNULL)


# --- T13: why a chain is refused --------------------------------------------------------------------


def sha1(directory: Path) -> Pair:
    """An old CA's: the leaf is signed with SHA-1 by the certificate that follows it."""
    openssl(directory, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
            "-subj", "/CN=Old CA", "-days", "9")  # fmt: skip
    openssl(directory, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "mail.key", "-out", "csr.pem",
            "-subj", "/CN=leaf", "-addext", f"subjectAltName=DNS:{HOST}")  # fmt: skip
    openssl(directory, "x509", "-req", "-in", "csr.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-sha1", "-days", "9", "-out", "leaf.pem")  # fmt: skip
    pair = Pair(directory / "mail.pem", directory / "mail.key")
    pair.certificate.write_bytes((directory / "leaf.pem").read_bytes() + (directory / "ca.pem").read_bytes())
    return pair


def test_T13_a_leaf_signed_with_SHA1_is_refused_for_that_and_nothing_else(tmp_path: Path) -> None:
    (text,) = errors(sha1(tmp_path))
    assert "signed with a broken hash (SHA1); get it signed with SHA-256" in text
    assert "remove" not in text


def test_T13_it_is_served_to_old_clients(tmp_path: Path) -> None:
    assert not inspect([sha1(tmp_path)], profile="legacy")[0].errors


def test_T13_a_signature_of_the_past_by_somebody_else_is_none(tmp_path: Path) -> None:
    pair = sha1(tmp_path)
    openssl(tmp_path, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "x.key", "-out", "x.pem",
            "-subj", "/CN=Old CA", "-days", "9")  # fmt: skip
    pair.certificate.write_bytes((tmp_path / "leaf.pem").read_bytes() + (tmp_path / "x.pem").read_bytes())
    assert any("its signature was not made with this key" in text for text in errors(pair))


def test_T13_another_issuer(tmp_path: Path) -> None:
    root, other = Issuer("Root"), Issuer("Other")
    leaf, key = root.leaf()
    (text,) = errors(written(tmp_path, key, leaf, other.certificate))
    assert "did not issue certificate 1 (CN=leaf): its issuer is CN=Root; remove it" in text


def test_T13_an_issuer_that_has_a_new_key(tmp_path: Path) -> None:
    old, new = Issuer("Root"), Issuer("Root")
    leaf, key = old.leaf()
    (text,) = errors(written(tmp_path, key, leaf, new.certificate))
    assert "its issuer has this name, but another key (authorityKeyIdentifier)" in text


def test_T13_a_signature_that_does_not_fit(tmp_path: Path) -> None:
    old, new = Issuer("Root"), Issuer("Root")
    leaf, key = old.leaf(known_by=new.key)
    (text,) = errors(written(tmp_path, key, leaf, new.certificate))
    assert "its signature was not made with this key" in text


def test_T13_an_issuer_that_has_expired(tmp_path: Path) -> None:
    root = Issuer("Root")
    middle = Issuer("Middle", by=root, days=-1)
    leaf, key = middle.leaf()
    (text,) = errors(written(tmp_path, key, leaf, middle.certificate))
    assert "certificate 2 of the chain (CN=Middle) expired on" in text
    assert "fetch the chain again from the issuer" in text


# --- T14: what cannot be served -------------------------------------------------------------------------


@pytest.mark.parametrize("curve", [ec.BrainpoolP256R1(), ec.SECP256K1(), ec.SECP224R1()], ids=lambda curve: curve.name)
@pytest.mark.parametrize("profile", ["intermediate", "modern", "legacy"])
def test_T14_a_key_that_no_client_knows_is_refused(tmp_path: Path, curve: ec.EllipticCurve, profile: str) -> None:
    (text,) = errors(by_hand(tmp_path / "one.pem", ec.generate_private_key(curve), dns(HOST)), profile)
    assert f"they know no keys of this kind, ECDSA {curve.name}" in text
    assert "or an ECDSA key on P-256" in text


@pytest.mark.parametrize(
    "make",
    [
        p256,
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: ec.generate_private_key(ec.SECP521R1()),
        lambda: rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate,
    ],
)
def test_T14_all_keys_that_clients_know_are_served(tmp_path: Path, make: Callable[[], Key]) -> None:
    assert not errors(by_hand(tmp_path / "one.pem", make(), dns(HOST)))


def test_T14_a_handshake_that_fails_is_told_with_openssls_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.tls.certificates._CURVES", {"brainpoolP256r1": "brainpool"})
    key = ec.generate_private_key(ec.BrainpoolP256R1())
    (text,) = errors(by_hand(tmp_path / "one.pem", key, dns(HOST)))
    assert "TLS 1.2: no shared cipher" in text


def test_T14_an_RSA_PSS_key_is_told_as_such(tmp_path: Path) -> None:
    openssl(tmp_path, "req", "-x509", "-newkey", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048", "-nodes", "-keyout",
            "mail.key", "-out", "mail.pem", "-subj", "/CN=x", "-days", "9")  # fmt: skip
    (text,) = errors(Pair(tmp_path / "mail.pem", tmp_path / "mail.key"))
    assert "for an RSA-PSS key, which cannot be served; use an ordinary RSA key" in text


def test_T13_an_issuer_with_a_small_key(tmp_path: Path) -> None:
    middle = Issuer("Middle", by=Issuer("Root"), key=rsa.generate_private_key(65537, 1024))
    leaf, key = middle.leaf()
    (text,) = errors(written(tmp_path, key, leaf, middle.certificate))
    assert "a CA certificate of the chain has a key that is too small; ask the issuer for a newer chain" in text


def test_T14_a_certificate_that_may_not_sign_is_told_as_such(tmp_path: Path) -> None:
    root = Issuer("Root")
    key = p256()
    usage = dict.fromkeys(("digital_signature", "content_commitment", "data_encipherment", "key_agreement",
                           "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False)  # fmt: skip
    leaf = (
        x509.CertificateBuilder(root.name, root.name, key.public_key(), 7, NOW - DAY, NOW + DAY)
        .add_extension(dns(HOST), critical=False)
        .add_extension(x509.KeyUsage(key_encipherment=True, **usage), critical=True)
        .sign(root.key, hashes.SHA256())
    )
    (text,) = errors(written(tmp_path, key, leaf))
    assert "its keyUsage lacks digitalSignature; have it issued with digitalSignature" in text


def test_T14_a_renewal_that_cannot_be_served_keeps_the_old_one(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    renewal = Renewal(lambda event, **fields: told.append(fields))
    pair = by_hand(tmp_path / "one.pem", p256(), dns(HOST))
    renewal.serve(TLS((pair,), "intermediate", (), "none", None), ())
    by_hand(tmp_path / "one.pem", ec.generate_private_key(ec.BrainpoolP256R1()), dns(HOST))
    renewal.look()
    pair.certificate.touch()
    renewal.look()
    assert [line["state"] for line in told] == ["loaded", "refused"]
    assert "they know no keys of this kind" in told[1]["detail"]


# --- T15: what clients refuse --------------------------------------------------------------------------


def test_T15_must_staple(tmp_path: Path) -> None:
    leaf, key = Issuer("Root").leaf(x509.TLSFeature([x509.TLSFeatureType.status_request]))
    (text,) = warnings(written(tmp_path, key, leaf))
    assert "demands OCSP stapling" in text
    assert "without --must-staple" in text


@pytest.mark.parametrize(
    ("usages", "good"),
    [
        ([ExtendedKeyUsageOID.CLIENT_AUTH], False),
        ([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH], True),
        # RFC 5280 lets it pass, OpenSSL does not.
        ([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], False),
    ],
)
def test_T15_a_certificate_that_is_not_for_servers(
    tmp_path: Path, usages: list[x509.ObjectIdentifier], good: bool
) -> None:
    leaf, key = Issuer("Root").leaf(x509.ExtendedKeyUsage(usages))
    found = warnings(written(tmp_path, key, leaf))
    assert len(found) == (not good)
    words = ("its extendedKeyUsage lacks serverAuth", "unsuitable certificate purpose")
    assert good or any(each in found[0] for each in words)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ca": False}, "it is no CA (basicConstraints)"),
        ({"signs": False}, "its keyUsage lacks keyCertSign"),
    ],
)
def test_T15_an_intermediate_that_may_not_issue(tmp_path: Path, wrong: dict[str, Any], words: str) -> None:
    middle = Issuer("Middle", by=Issuer("Root"), **wrong)
    leaf, key = middle.leaf()
    (text,) = warnings(written(tmp_path, key, leaf, middle.certificate))
    assert f"certificate 2 of the chain (CN=Middle) may not issue certificates: {words}" in text


def test_T15_what_has_no_words_of_its_own_is_told_in_the_librarys(tmp_path: Path) -> None:
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")
    middle = Issuer("Middle", by=Issuer("Root"))
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "leaf")])
    key = p256()
    leaf = (
        x509.CertificateBuilder(middle.name, name, key.public_key(), 7, NOW - DAY, NOW + DAY)
        .add_extension(dns(HOST), critical=False)
        .add_extension(strange, critical=True)
        .sign(middle.key, hashes.SHA256())
    )
    (text,) = warnings(written(tmp_path, key, leaf, middle.certificate))
    assert f"clients will refuse the certificate for {HOST}: unhandled critical extension; ask its issuer" in text


def test_T15_names_that_the_issuer_may_not_vouch_for(tmp_path: Path) -> None:
    only = x509.NameConstraints([x509.DNSName("other.example")], None)
    middle = Issuer("Middle", by=Issuer("Root"), extensions=(only,))
    leaf, key = middle.leaf()
    # Whom a client trusts by itself is not held to its own constraints.
    (text,) = warnings(written(tmp_path, key, leaf, middle.certificate, middle.by.certificate))
    assert "permitted subtree violation" in text


def test_T15_a_good_chain_is_refused_by_nobody(tmp_path: Path) -> None:
    middle = Issuer("Middle", by=Issuer("Root"))
    leaf, key = middle.leaf()
    assert not warnings(written(tmp_path, key, leaf, middle.certificate))


def test_T15_a_path_that_is_too_long(tmp_path: Path) -> None:
    top = Issuer("Top", by=Issuer("Root"), path_length=0)
    middle = Issuer("Middle", by=top)
    leaf, key = middle.leaf()
    (text,) = warnings(written(tmp_path, key, leaf, middle.certificate, top.certificate))
    assert "it allows 0 CA certificates below it (path length), and there are 1" in text


def test_T15_a_key_that_others_can_read(tmp_path: Path) -> None:
    leaf, key = Issuer("Root").leaf()
    pair = written(tmp_path, key, leaf)
    assert pair.key is not None
    pair.key.chmod(0o644)
    (text,) = warnings(pair)
    assert text.endswith(f"take that right away: chmod o-r {pair.key}")
    subprocess.run(shlex.split(text.rpartition(": ")[2]), check=True)
    assert not warnings(pair)


@pytest.mark.parametrize(
    ("names", "hostname", "covered"),
    [
        (["www.other.example"], "mail.example.org", False),
        (["MAIL.example.org."], "mail.EXAMPLE.org", True),
        (["*.example.org"], "mail.example.org", True),
        (["*.example.org"], "a.mail.example.org", False),
        (["*.org"], "localhost", True),
        (["*.org"], "mail", False),
        ([], "mail.example.org", True),
    ],
)
def test_T15_which_names_cover_the_gateways(names: list[str], hostname: str, covered: bool) -> None:
    assert covers(names, hostname) is covered


def test_T15_the_log_has_the_warnings_at_the_start_and_after_a_renewal(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    renewal = Renewal(lambda event, **fields: told.append(fields), hostname="mail.example.org")
    pair = by_hand(tmp_path / "one.pem", p256(), dns("www.other.example"))
    renewal.serve(TLS((pair,), "intermediate", (), "none", None), ())
    by_hand(tmp_path / "one.pem", p256(), dns("mail.example.org"))
    renewal.look()
    assert [line["state"] for line in told] == ["loaded", "renewed"]
    assert "the certificate is not for mail.example.org" in told[0]["warning"]
    assert "self-signed" in told[0]["warning"]
    assert "the certificate is not for" not in told[1]["warning"]


# --- T16: files that hold something else -------------------------------------------------------------------


@pytest.fixture
def plain(tmp_path: Path) -> Pair:
    """A pair that is good, to be spoilt; its certificate's chain has two."""
    middle = Issuer("Middle", by=Issuer("Root"))
    leaf, key = middle.leaf()
    return written(tmp_path, key, leaf, middle.certificate)


SPOILT: dict[str, tuple[str, str, str]] = {
    "DER": ("certificate", "openssl x509 -in mail.pem -outform DER -out FILE", "it is a certificate in DER form"),
    "PKCS#7": (
        "certificate",
        "openssl crl2pkcs7 -nocrl -certfile mail.pem -out FILE",
        "it holds PKCS#7",
    ),
    "PKCS#7 in DER form": (
        "certificate",
        "openssl crl2pkcs7 -nocrl -certfile mail.pem -outform DER -out FILE",
        "it is PKCS#7 in DER form",
    ),
    "PKCS#12": (
        "certificate",
        "openssl pkcs12 -export -in mail.pem -inkey mail.key -passout pass: -out FILE",
        "it is PKCS#12",
    ),
    "trusted": ("certificate", "openssl x509 -in mail.pem -trustout -out FILE", "it holds an OpenSSL trusted"),
    "UTF-16": ("certificate", "iconv -f UTF-8 -t UTF-16 mail.pem -o FILE", "it is text in UTF-16"),
    "key in DER form": ("key", "openssl pkey -in mail.key -outform DER -out FILE", "it is a private key in DER form"),
    "key of PKCS#12": (
        "key",
        "openssl pkcs12 -export -in mail.pem -inkey mail.key -passout pass: -out FILE",
        "it is PKCS#12",
    ),
    "key with a passphrase": (
        "key",
        "openssl pkey -in mail.key -aes256 -passout pass:secret -out FILE",
        "protected by a passphrase",
    ),
    "key in DER form with a passphrase": (
        "key",
        "openssl pkcs8 -topk8 -in mail.key -passout pass:secret -outform DER -out FILE",
        "it is a private key in DER form",
    ),
    "OpenSSH's key": ("key", "ssh-keygen -p -q -N '' -f FILE", "OpenSSH's own form"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_T16_what_is_there_is_said_and_the_command_converts_it(plain: Pair, kind: str) -> None:
    which, command, words = SPOILT[kind]
    directory = plain.certificate.parent
    spoilt = directory / "spoilt"
    if command.startswith("ssh-keygen"):
        spoilt.write_bytes((directory / "mail.key").read_bytes())
        spoilt.chmod(0o600)
    subprocess.run(shlex.split(command.replace("FILE", str(spoilt))), cwd=directory, check=True, capture_output=True)
    pair = Pair(spoilt, plain.key) if which == "certificate" else Pair(plain.certificate, spoilt)
    (text,) = errors(pair)
    assert text.startswith(f"{spoilt}: ")
    assert words in text
    cure = text.rpartition("it in place: " if "in place" in text else "it: ")[2].partition(" (")[0]
    made = spoilt if "in place" in text else directory / "NEW" if "NEW" in cure else Path(f"{spoilt}.pem")
    answers = {"openssl pkcs12": " -passin pass:", "openssl pkey": " -passin pass:secret", "ssh-keygen": " -q -N ''"}
    for program, answer in answers.items():  # what a person is asked for
        cure += answer if cure.startswith(program) else ""
    subprocess.run(cure, shell=True, cwd=directory, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    assert load(Pair(made, plain.key) if which == "certificate" else Pair(plain.certificate, made))


def test_T16_a_request_is_no_certificate(plain: Pair) -> None:
    directory = plain.certificate.parent
    for form in ("PEM", "DER"):
        openssl(directory, "req", "-new", "-key", "mail.key", "-subj", "/CN=x", "-outform", form, "-out", form)
        (text,) = errors(Pair(directory / form, plain.key))
        assert "a certificate signing request, which goes to the CA" in text


@pytest.mark.parametrize("form", ["PEM", "DER"])
@pytest.mark.parametrize("which", ["certificate", "key"])
def test_T16_a_public_key_can_be_neither(plain: Pair, form: str, which: str) -> None:
    directory = plain.certificate.parent
    public = directory / "public"
    openssl(directory, "pkey", "-in", "mail.key", "-pubout", "-outform", form, "-out", str(public))
    (text,) = errors(Pair(public, plain.key) if which == "certificate" else Pair(plain.certificate, public))
    assert "a public key cannot be used here" in text


def test_T16_certificate_and_key_exchanged(plain: Pair) -> None:
    assert plain.key is not None
    (text,) = errors(Pair(plain.key, plain.certificate))
    assert "no certificate in this file; it holds a private key; are `certificate` and `key` exchanged?" in text
    (text,) = errors(Pair(plain.certificate, plain.certificate.with_name("mail.pem")))
    assert "give the file that holds it as `key`" in text
    other = plain.key.with_name("other.pem")
    other.write_bytes(plain.certificate.read_bytes())
    (text,) = errors(Pair(plain.certificate, other))
    assert "no private key in this file; it holds a certificate; are `certificate` and `key` exchanged?" in text


@pytest.mark.parametrize(("first", "number"), [(True, 1), (False, 2)])
def test_T16_two_keys_in_one_file(plain: Pair, first: bool, number: int) -> None:
    assert plain.key is not None
    right = plain.key.read_bytes()
    wrong = p256().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    plain.key.write_bytes(right + wrong if first else wrong + right)
    (text,) = errors(plain)
    assert f"there are 2 private keys in this file; number {number} belongs to the certificate" in text


def test_T16_what_nobody_knows_is_only_called_no_certificate(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x30\x80hello")
    (text,) = errors(Pair(tmp_path / "x"))
    assert text.endswith("no certificate in this file; it must be a PEM file that begins with the server's certificate")


def test_T16_windows_line_ends_and_text_before_do_no_harm(plain: Pair) -> None:
    octets = plain.certificate.read_bytes().replace(b"\n", b"\r\n")
    plain.certificate.write_bytes(b"\xef\xbb\xbfsubject=CN = leaf\r\n" + octets)
    assert not errors(plain)
