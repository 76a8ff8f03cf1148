"""Certificates and files as people really have them; rows T13 to T15; T16 is test_certificate_files.py."""

from __future__ import annotations

import datetime
import shlex
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from gateway.cli.__main__ import main
from gateway.cli.certificates import complaints, served
from gateway.config import Places
from gateway.config import load as load_configuration
from gateway.config.values import TLS, Pair
from gateway.dialects import DIALECTS
from gateway.wire.tls.certificates import CertificateError, inspect, load
from gateway.wire.tls.remarks import about_all, covers
from gateway.wire.tls.renewal import Renewal
from tests.memory.issuing import by_hand, dns, serving

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
HOST = "mail.example.test"

Key = Any


def p256() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def must_staple() -> x509.TLSFeature:
    return x509.TLSFeature([x509.TLSFeatureType.status_request])


def usage(**wanted: bool) -> x509.KeyUsage:
    nothing = dict.fromkeys(("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
                             "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
                            False)  # fmt: skip
    return x509.KeyUsage(**{**nothing, **wanted})


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
        begins: float = -100,
        issuer: x509.Name | None = None,
        extensions: tuple[x509.ExtensionType, ...] = (),
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder(issuer or self.name, name, key.public_key(), x509.random_serial_number(),
                                          NOW + begins * DAY, NOW + days * DAY)  # fmt: skip
        known = (
            x509.BasicConstraints(ca, path_length if ca else None),
            usage(digital_signature=True, key_cert_sign=ca and signs),
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
            x509.AuthorityKeyIdentifier.from_issuer_public_key((known_by or self.key).public_key()),
        )
        given = {type(extension) for extension in extensions}
        for extension in [one for one in known if type(one) not in given] + list(extensions):
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key, None if isinstance(self.key, ed25519.Ed25519PrivateKey) else hashes.SHA256())

    def leaf(
        self, *extensions: x509.ExtensionType, key: Key | None = None, **wrong: Any
    ) -> tuple[x509.Certificate, Key]:
        key = key or p256()
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "leaf")])
        return self.sign(name, key, extensions=extensions or (dns(HOST),), **wrong), key


def written(directory: Path, key: Key, *chain: x509.Certificate) -> Pair:
    pair = Pair(directory / "mail.pem", directory / "mail.key")
    assert pair.key is not None
    pair.certificate.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in chain))
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    pair.key.chmod(0o600)
    return pair


def issued(
    directory: Path, by: Issuer, *extensions: x509.ExtensionType, behind: tuple[Issuer, ...] = (), **wrong: Any
) -> Pair:
    """What `by` issues, and the certificates that stand behind it in the file."""
    leaf, key = by.leaf(*extensions, **wrong)
    return written(directory, key, leaf, *(one.certificate for one in behind))


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
    pair = sha1(tmp_path)
    (text,) = errors(pair)
    assert "signed with a broken hash (SHA1); get it signed with SHA-256" in text
    assert "remove" not in text
    assert not inspect([pair], profile="legacy")[0].errors, "it is served to old clients"


def test_T13_a_signature_of_the_past_by_somebody_else_is_none(tmp_path: Path) -> None:
    pair = sha1(tmp_path)
    openssl(tmp_path, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "x.key", "-out", "x.pem",
            "-subj", "/CN=Old CA", "-days", "9")  # fmt: skip
    pair.certificate.write_bytes((tmp_path / "leaf.pem").read_bytes() + (tmp_path / "x.pem").read_bytes())
    assert any("its signature was not made with this key" in text for text in errors(pair))


def test_T13_another_issuer(tmp_path: Path) -> None:
    (text,) = errors(issued(tmp_path, Issuer("Root"), behind=(Issuer("Other"),)))
    assert "did not issue certificate 1 (CN=leaf): its issuer is CN=Root; put the right issuer there" in text


def test_T13_an_issuer_that_has_a_new_key(tmp_path: Path) -> None:
    (text,) = errors(issued(tmp_path, Issuer("Root"), behind=(Issuer("Root"),)))
    assert "its issuer has this name, but another key (authorityKeyIdentifier)" in text


def test_T13_a_signature_that_does_not_fit(tmp_path: Path) -> None:
    new = Issuer("Root")
    (text,) = errors(issued(tmp_path, Issuer("Root"), known_by=new.key, behind=(new,)))
    assert "its signature was not made with this key" in text


def test_T13_an_issuer_that_has_expired(tmp_path: Path) -> None:
    root = Issuer("Root")
    middle = Issuer("Middle", by=root, days=-1)
    (text,) = errors(issued(tmp_path, middle, behind=(middle,)))
    assert "certificate 2 of the chain (CN=Middle) expired on" in text
    assert "fetch the chain again from the issuer" in text


def test_T13_an_issuer_of_tomorrow(tmp_path: Path) -> None:
    middle = Issuer("Middle", by=Issuer("Root"), begins=1)
    (text,) = errors(issued(tmp_path, middle, behind=(middle,)))
    assert "certificate 2 of the chain (CN=Middle) is not valid before" in text
    assert "check the clock of this machine" in text


def authority_by_sha1(directory: Path, by: Issuer | None) -> Issuer:
    """A CA whose certificate is signed with SHA-1, which cryptography does not do; by itself, if by nobody."""
    issuer = Issuer("Middle", rsa.generate_private_key(65537, 2048))
    parent = by or issuer
    for name, key in (("own.key", issuer.key), ("by.key", parent.key)):
        (directory / name).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (directory / "by.pem").write_bytes(parent.certificate.public_bytes(Encoding.PEM))
    (directory / "ca.cnf").write_text("basicConstraints = CA:TRUE\n")
    openssl(directory, "req", "-new", "-key", "own.key", "-subj", "/CN=Middle", "-out", "csr.pem")
    whose = ("-CA", "by.pem", "-CAkey", "by.key", "-CAcreateserial") if by else ("-signkey", "own.key")
    openssl(directory, "x509", "-req", "-in", "csr.pem", *whose, "-sha1", "-days", "9", "-extfile", "ca.cnf",
            "-out", "own.pem")  # fmt: skip
    issuer.certificate = x509.load_pem_x509_certificate((directory / "own.pem").read_bytes())
    assert isinstance(issuer.certificate.signature_hash_algorithm, hashes.SHA1)
    return issuer


def test_T13_an_issuer_that_is_signed_with_SHA1(tmp_path: Path) -> None:
    middle = authority_by_sha1(tmp_path, Issuer("Root", rsa.generate_private_key(65537, 2048)))
    pair = issued(tmp_path, middle, behind=(middle,))
    (text,) = errors(pair)
    assert "certificate 2 of the chain is signed with a broken hash (SHA1)" in text
    assert not inspect([pair], profile="legacy")[0].errors


def test_T13_a_root_that_signs_itself_with_SHA1_is_trusted_for_itself(tmp_path: Path) -> None:
    root = authority_by_sha1(tmp_path, None)
    assert not errors(issued(tmp_path, root, behind=(root,)))


def test_T13_an_issuer_whose_key_is_too_small(tmp_path: Path) -> None:
    middle = Issuer("Middle", rsa.generate_private_key(65537, 1024), by=Issuer("Root"))
    pair = issued(tmp_path, middle, behind=(middle,))
    (text,) = errors(pair)
    assert "certificate 2 of the chain (CN=Middle) has a key that is too small (RSA 1024)" in text
    assert "get a certificate from another issuer" in text
    assert not inspect([pair], profile="legacy")[0].errors


def test_T13_a_root_whose_key_is_too_small_need_not_be_there(tmp_path: Path) -> None:
    root = Issuer("Root", rsa.generate_private_key(65537, 1024))
    (text,) = errors(issued(tmp_path, root, behind=(root,)))
    assert "(RSA 1024), so clients refuse the chain; remove it: clients have it already" in text


def test_T13_an_issuer_with_a_key_of_another_kind(tmp_path: Path) -> None:
    new = Issuer("Root", ed25519.Ed25519PrivateKey.generate())
    (text,) = errors(issued(tmp_path, Issuer("Root"), behind=(new,)))
    assert "its issuer has this name, but another key" in text


def renewed_by(pair: Pair, text: str) -> Pair:
    """What the command at the end of the message makes of the pair."""
    command = text.rpartition(": ")[2]
    subprocess.run(command, shell=True, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    made = pair.certificate.with_suffix(".new.pem")
    assert pair.key or not stat.S_IMODE(made.stat().st_mode) & 0o077, "a key is for its owner alone"
    return Pair(made, pair.key)


def three(directory: Path) -> tuple[list[x509.Certificate], Key]:
    """Leaf, issuer, its issuer."""
    top = Issuer("Top", by=Issuer("Root"))
    middle = Issuer("Middle", by=top)
    leaf, key = middle.leaf()
    return [leaf, middle.certificate, top.certificate], key


def test_a_wrong_key_of_a_self_signed_certificate_is_no_wrong_chain(tmp_path: Path) -> None:
    own = Issuer("mail.example.test")
    _, key = own.leaf()
    with pytest.raises(CertificateError) as wrong:
        load(written(tmp_path, key, own.certificate))
    assert "which is self-signed; name the key that was made with it" in str(wrong.value)
    assert "fullchain" not in str(wrong.value)


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ((0, 2, 1), "out of order: certificate 2 (CN=Top) did not issue certificate 1 (CN=leaf)"),
        ((2, 1, 0), "does not belong to the first certificate in"),
        ((1, 0, 2), "but to certificate 2; the server's own certificate must come first, its issuers behind it"),
        ((0, 0, 1, 2), "certificate 2 is the same as certificate 1; remove one of them"),
        ((0, 1, 2, 1), "certificate 4 is the same as certificate 2; remove one of them"),
        ((0, 0, 2, 1), "certificate 2 is the same as certificate 1"),
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_T13_T16_the_command_puts_a_chain_in_order(
    tmp_path: Path, order: tuple[int, ...], words: str, together: bool
) -> None:
    chain, key = three(tmp_path)
    pair = written(tmp_path, key, *(chain[place] for place in order))
    if together:
        assert pair.key is not None
        pair.certificate.write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
        pair = Pair(pair.certificate)
    (text,) = errors(pair)
    assert words in text
    assert list(load(renewed_by(pair, text)).chain) == chain


def test_T13_the_command_removes_what_does_not_belong(tmp_path: Path) -> None:
    chain, key = three(tmp_path)
    pair = written(tmp_path, key, *chain, Issuer("Other").certificate)
    (text,) = errors(pair)
    assert "certificate 4 (CN=Other) does not belong to the chain" in text
    assert "its issuer is CN=Root" in text
    assert list(load(renewed_by(pair, text)).chain) == chain


def test_T13_nothing_belongs_behind_a_root(tmp_path: Path) -> None:
    root = Issuer("Root")
    leaf, key = root.leaf()
    pair = written(tmp_path, key, leaf, root.certificate, Issuer("Other").certificate)
    (text,) = errors(pair)
    assert "certificate 2 (CN=Root) is self-signed, so no certificate may follow it; remove it" in text
    assert list(load(renewed_by(pair, text)).chain) == [leaf, root.certificate]


def test_T13_a_file_of_issuers_alone(tmp_path: Path) -> None:
    """certbot's chain.pem in place of its fullchain.pem."""
    chain, key = three(tmp_path)
    (text,) = errors(written(tmp_path, key, *chain[1:]))
    assert "which is that of a CA (CN=Middle)" in text
    assert "certbot: fullchain.pem, not chain.pem" in text


def test_T13_certbots_leaf_alone(tmp_path: Path) -> None:
    chain, key = three(tmp_path)
    pair = written(tmp_path, key, chain[0])
    alone = pair.certificate.rename(tmp_path / "cert.pem")
    (tmp_path / "fullchain.pem").touch()
    (report,) = inspect([Pair(alone, pair.key)])
    assert report.warnings[-1].endswith(f"name {tmp_path}/fullchain.pem, which holds the chain")


def test_T13_the_place_of_the_right_issuer_is_told(tmp_path: Path) -> None:
    place = x509.AccessDescription(
        AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier("http://ca.example.test/r3.der")
    )
    old, new = Issuer("Root"), Issuer("Root")
    (text,) = errors(issued(tmp_path, old, dns(HOST), x509.AuthorityInformationAccess([place]), behind=(new,)))
    assert "put the right issuer there (it is at http://ca.example.test/r3.der)" in text


def test_T13_a_root_in_the_chain_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Issuer("Root")
    leaf, key = root.leaf()
    pair = written(tmp_path, key, leaf, root.certificate)
    (tmp_path / "ca.pem").write_bytes(root.certificate.public_bytes(Encoding.PEM))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    (text,) = warnings(pair)
    assert "the chain holds its root (CN=Root)" in text
    better = renewed_by(pair, text)
    assert not warnings(better)
    assert list(load(better).chain) == [leaf]


@pytest.mark.parametrize(
    "identifier",
    [
        x509.AuthorityKeyIdentifier(b"somebody else", None, None),
        x509.AuthorityKeyIdentifier(None, [x509.DirectoryName(x509.Name([]))], 77),
    ],
)
def test_T13_a_signature_that_fits_and_an_identifier_that_does_not(
    tmp_path: Path, identifier: x509.AuthorityKeyIdentifier
) -> None:
    root = Issuer("Root")
    (text,) = warnings(issued(tmp_path, root, dns(HOST), identifier, behind=(root,)))
    assert "certificate 1 has an authorityKeyIdentifier of another issuer than certificate 2 (CN=Root)" in text
    assert "remove" not in text


@pytest.mark.parametrize("spelling", ["root", "ROOT", " Root"])
def test_T13_a_name_in_another_spelling(tmp_path: Path, spelling: str) -> None:
    root = Issuer("Root")
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, spelling)])
    (text,) = warnings(issued(tmp_path, root, issuer=name, behind=(root,)))
    assert "spells the name of its issuer differently than certificate 2 (CN=Root)" in text


def test_T13_an_algorithm_that_nobody_knows(tmp_path: Path) -> None:
    pair = issued(tmp_path, Issuer("Root"))
    known, unknown = bytes.fromhex("2a8648ce3d040302"), bytes.fromhex("2a8648ce3d04037f")
    (leaf,) = load(pair).chain
    octets = leaf.public_bytes(Encoding.DER).replace(known, unknown)
    pair.certificate.write_bytes(x509.load_der_x509_certificate(octets).public_bytes(Encoding.PEM))
    (text,) = warnings(pair)
    assert "certificate 1 is signed with an algorithm that is unknown here (1.2.840.10045.4.3.127)" in text


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
    monkeypatch.setattr("gateway.wire.tls.certificates._CURVES", {"brainpoolP256r1": "brainpool"})
    key = ec.generate_private_key(ec.BrainpoolP256R1())
    (text,) = errors(by_hand(tmp_path / "one.pem", key, dns(HOST)))
    assert "TLS 1.2: no shared cipher" in text


def test_T14_an_RSA_PSS_key_is_told_as_such(tmp_path: Path) -> None:
    openssl(tmp_path, "req", "-x509", "-newkey", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048", "-nodes", "-keyout",
            "mail.key", "-out", "mail.pem", "-subj", "/CN=x", "-days", "9")  # fmt: skip
    (text,) = errors(Pair(tmp_path / "mail.pem", tmp_path / "mail.key"))
    assert "for an RSA-PSS key, which cannot be served; use an ordinary RSA key" in text


def test_T14_a_certificate_that_may_not_sign_is_told_as_such(tmp_path: Path) -> None:
    (text,) = errors(issued(tmp_path, Issuer("Root"), dns(HOST), usage(key_encipherment=True)))
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


def made_by_openssl(directory: Path, *key: str) -> Pair:
    """A certificate for a key of a kind that cryptography does not make."""
    openssl(directory, "genpkey", *key, "-out", "one.key")
    openssl(directory, "req", "-x509", "-new", "-key", "one.key", "-out", "one.pem", "-days", "9", "-subj", "/CN=one",
            "-addext", f"subjectAltName=DNS:{HOST}")  # fmt: skip
    return Pair(directory / "one.pem", directory / "one.key")


def test_T14_a_DSA_key(tmp_path: Path) -> None:
    openssl(tmp_path, "genpkey", "-genparam", "-algorithm", "DSA", "-pkeyopt", "dsa_paramgen_bits:2048", "-out", "dsa")
    (text,) = errors(made_by_openssl(tmp_path, "-paramfile", "dsa"))
    assert "clients cannot be served with it (TLS 1.2: no shared cipher, TLS 1.3: " in text
    assert "use an RSA key of 2048 bits or more, or an ECDSA key on P-256" in text


def test_T14_a_key_that_cannot_sign(tmp_path: Path) -> None:
    (text,) = errors(issued(tmp_path, Issuer("Root"), key=x25519.X25519PrivateKey.generate()))
    assert "OpenSSL refuses it" in text or "clients cannot be served with it" in text


@pytest.mark.parametrize(
    ("bits", "profile", "words"),
    [
        (1024, "intermediate", "the key is too small; use RSA with 2048 bits or more"),
        (512, "intermediate", "the key is too small; use RSA with 2048 bits or more"),
        (512, "legacy", "TLS 1.3: no suitable signature algorithm"),
    ],
)
def test_T14_small_keys(tmp_path: Path, bits: int, profile: str, words: str) -> None:
    # 512 bits are too few for cryptography.
    pair = made_by_openssl(tmp_path, "-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{bits}")
    (report,) = inspect([pair], profile=profile)
    assert words in report.errors[0]
    with pytest.raises(CertificateError):
        serving(pair, profile=profile)


def test_T14_check_and_start_say_the_same_of_a_small_key(tmp_path: Path) -> None:
    """`legacy` has clients of today, too, and they have nothing else here."""
    small = by_hand(tmp_path / "small.pem", rsa.generate_private_key(65537, 1024), dns(HOST))
    strong = by_hand(tmp_path / "strong.pem", p256(), dns(HOST))
    for names, good in (("small.pem", False), ("small.pem strong.pem", True)):
        (tmp_path / "gw.ini").write_text(
            f"[gateway]\nhostname = {HOST}\n[tls]\ncertificate = {names}\nprofile = legacy\n"
            "legacy_clients = 192.0.2.0/24\n[service:smtp]\nstarttls = 25\nbackend = 192.0.2.1:25\n"
        )
        configuration = load_configuration(tmp_path / "gw.ini", DIALECTS)
        assert (not list(complaints(configuration, served(configuration), Places({})))) is good
    with pytest.raises(CertificateError, match="too small"):
        serving(small, profile="legacy")
    assert serving(small, strong, profile="legacy")


def test_T14_each_certificate_is_proven_once_for_all_services_and_renewals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handshake takes milliseconds, in which nobody else is served."""
    proven: list[int] = []

    def prove(_context: object, minimum: int) -> dict[str, str]:
        proven.append(minimum)
        return {}

    monkeypatch.setattr("gateway.wire.tls.certificates.failures", prove)
    clock = [NOW]
    renewal = Renewal(lambda *_, **__: None, lambda: clock[0])
    pairs = tuple(by_hand(tmp_path / f"{number}.pem", p256(), dns(f"{number}.example.test")) for number in range(5))
    for _service in range(6):
        renewal.serve(TLS(pairs, "intermediate", (), "none", None), ())
    assert len(proven) == 5
    renewal.serve(TLS(pairs, "modern", (), "none", None), ())
    assert len(proven) == 10
    by_hand(tmp_path / "0.pem", p256(), dns("0.example.test"))
    renewal.look()
    assert len(proven) == 12  # of the new one alone, for each of the two profiles
    clock[0] += DAY
    renewal.look()
    assert len(proven) == 12


# --- T15: what clients refuse --------------------------------------------------------------------------


def test_T15_must_staple(tmp_path: Path) -> None:
    (text,) = warnings(issued(tmp_path, Issuer("Root"), dns(HOST), must_staple()))
    assert "demands OCSP stapling" in text
    assert "without --must-staple" in text


@pytest.mark.parametrize(
    ("usages", "good"),
    [
        ([ExtendedKeyUsageOID.CLIENT_AUTH], False),
        ([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH], True),
        ([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], False),  # OpenSSL does not take it either
    ],
)
def test_T15_a_certificate_that_is_not_for_servers(
    tmp_path: Path, usages: list[x509.ObjectIdentifier], good: bool
) -> None:
    found = warnings(issued(tmp_path, Issuer("Root"), dns(HOST), x509.ExtendedKeyUsage(usages)))
    assert len(found) == (not good)
    words = ("its extendedKeyUsage lacks serverAuth", "not a server certificate (its key usage says so)")
    assert good or any(each in found[0] for each in words)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ca": False}, "it is not a CA (basicConstraints)"),
        ({"signs": False}, "its keyUsage lacks keyCertSign"),
    ],
)
def test_T15_an_intermediate_that_may_not_issue(tmp_path: Path, wrong: dict[str, Any], words: str) -> None:
    middle = Issuer("Middle", by=Issuer("Root"), **wrong)
    (text,) = warnings(issued(tmp_path, middle, behind=(middle,)))
    assert f"certificate 2 of the chain (CN=Middle) may not issue certificates for servers: {words}" in text


@pytest.mark.parametrize("names", [[HOST], [f"{HOST}:993", HOST], [f"{HOST}.", HOST]])
def test_T15_what_has_no_words_of_its_own_is_told_in_the_librarys(tmp_path: Path, names: list[str]) -> None:
    """Of the first name that is one."""
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")
    middle = Issuer("Middle", by=Issuer("Root"))
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "leaf")])
    key = p256()
    leaf = (
        x509.CertificateBuilder(middle.name, name, key.public_key(), 7, NOW - DAY, NOW + DAY)
        .add_extension(dns(*names), critical=False)
        .add_extension(strange, critical=True)
        .sign(middle.key, hashes.SHA256())
    )
    (text,) = warnings(written(tmp_path, key, leaf, middle.certificate))
    words = "unhandled critical extension; ask its issuer"
    assert f"clients will refuse the certificate for {HOST}: {words}" in text


def test_T15_names_that_the_issuer_may_not_vouch_for(tmp_path: Path) -> None:
    only = x509.NameConstraints([x509.DNSName("other.example")], None)
    middle = Issuer("Middle", by=Issuer("Root"), extensions=(only,))
    # Whom a client trusts by itself is not held to its own constraints.
    (text,) = warnings(issued(tmp_path, middle, behind=(middle, middle.by)))
    assert "certificate has a name that its issuer may not certify" in text


def test_T15_a_good_chain_is_refused_by_nobody(tmp_path: Path) -> None:
    middle = Issuer("Middle", by=Issuer("Root"))
    assert not warnings(issued(tmp_path, middle, behind=(middle,)))


def test_T15_a_path_that_is_too_long(tmp_path: Path) -> None:
    top = Issuer("Top", by=Issuer("Root"), path_length=0)
    middle = Issuer("Middle", by=top)
    (text,) = warnings(issued(tmp_path, middle, behind=(middle, top)))
    assert "it allows 0 CA certificates below it (path length), and there are 1" in text


@pytest.fixture
def entered() -> Iterator[Path]:
    """A directory that every user may enter; pytest's own is closed to them."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize(
    ("mode", "words", "letters"), [(0o644, "read", "r"), (0o622, "write", "w"), (0o666, "read and write", "rw")]
)
def test_T15_a_key_that_others_can_read(entered: Path, mode: int, words: str, letters: str) -> None:
    pair = issued(entered, Issuer("Root"))
    assert pair.key is not None
    pair.key.chmod(mode)
    (text,) = warnings(pair)
    assert text == (
        f"{pair.key}: every user of this machine can {words} the private key; remove the permission: "
        f"chmod o-{letters} {pair.key}"
    )
    subprocess.run(shlex.split(text.rpartition(": ")[2]), check=True)
    assert not warnings(pair)


def test_T15_a_key_that_others_cannot_reach_is_their_business_no_more(entered: Path) -> None:
    """As systemd and certbot have it: the directory is closed, whatever the file's own rights are."""
    (entered / "closed").mkdir(mode=0o750)
    pair = issued(entered / "closed", Issuer("Root"))
    assert pair.key is not None
    pair.key.chmod(0o644)
    assert not warnings(pair)
    link = entered / "link"
    link.symlink_to(pair.key)
    assert not warnings(Pair(pair.certificate, link))
    (entered / "closed").chmod(0o751)
    assert len(warnings(Pair(pair.certificate, link))) == 1
    pair.key.chmod(0o640)  # a group is the cure of docs/tls.md
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
    other = by_hand(tmp_path / "two.pem", p256(), dns("imap.other.example"), must_staple())
    for one in (pair, other):
        renewal.serve(TLS((one,), "intermediate", (), "none", None), ())
    renewal.tell_together()
    assert [line["state"] for line in told] == ["loaded", "loaded", "warning"]
    assert told[0]["warning"] == "the certificate is self-signed; each client must be told to trust it"
    assert told[1]["warning"].startswith("the certificate demands OCSP stapling")
    assert " | the certificate is self-signed; " in told[1]["warning"]
    assert told[2]["certificate"] == str(pair.certificate)
    assert "is not for mail.example.org, the `hostname` of [gateway], and no other is;" in told[2]["warning"]
    told.clear()
    # What is still so is not told again, what is so again is.
    by_hand(tmp_path / "two.pem", p256(), dns("pop.other.example"))
    renewal.look()
    assert [line["state"] for line in told] == ["renewed"]
    by_hand(tmp_path / "two.pem", p256(), dns("mail.example.org"))
    renewal.look()
    assert [line["state"] for line in told] == ["renewed", "renewed"]
    by_hand(tmp_path / "two.pem", p256(), dns("pop.other.example"))
    renewal.look()
    assert [line["state"] for line in told] == ["renewed", "renewed", "renewed", "warning"]


def test_T15_a_name_that_another_service_has_is_no_warning(tmp_path: Path) -> None:
    """At the start services are loaded one by one; what is said is about all of them."""
    told: list[dict[str, Any]] = []
    renewal = Renewal(lambda event, **fields: told.append(fields), hostname=HOST)
    for name in ("imap.example.test", HOST):
        pair = by_hand(tmp_path / f"{name}.pem", p256(), dns(name))
        renewal.serve(TLS((pair,), "intermediate", (), "none", None), ())
    renewal.tell_together()
    assert [line["state"] for line in told] == ["loaded", "loaded"]
    assert not any(HOST in line["warning"] for line in told)


def test_T15_check_says_it_with_exit_status_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_hand(tmp_path / "one.pem", p256(), dns("www.other.example"), must_staple())
    (tmp_path / "gw.ini").write_text(
        "[gateway]\nhostname = mail.example.org\n[tls]\ncertificate = one.pem\n"
        "[service:smtp]\nstarttls = 127.0.0.1:0\nbackend = 127.0.0.1:25\n"
    )
    assert main(["check", str(tmp_path / "gw.ini")]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning ")]
    assert len(lines) == 3
    assert "demands OCSP stapling" in lines[0]
    assert "self-signed" in lines[1]
    assert "is not for mail.example.org, the `hostname` of [gateway]; clients that" in lines[2]


def test_T15_a_key_that_may_not_sign(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    (text,) = warnings(issued(tmp_path, Issuer("Root"), dns(HOST), usage(key_encipherment=True), key=key))
    assert "keyUsage lacks digitalSignature" in text
    assert text.endswith("have it issued with digitalSignature")


def test_T15_an_intermediate_for_other_purposes(tmp_path: Path) -> None:
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
    middle = Issuer("Middle", by=Issuer("Root"), extensions=(usages,))
    (text,) = warnings(issued(tmp_path, middle, behind=(middle,)))
    assert "(CN=Middle) may not issue certificates for servers: its extendedKeyUsage lacks serverAuth" in text


@pytest.mark.parametrize(
    "constraints",
    [
        x509.NameConstraints([x509.DNSName("example.org")], None),
        x509.NameConstraints(None, [x509.DNSName("example.test")]),
    ],
)
def test_T15_a_name_that_the_issuer_may_not_certify(tmp_path: Path, constraints: x509.NameConstraints) -> None:
    middle = Issuer("Middle", by=Issuer("Root"), extensions=(constraints,))
    (text,) = warnings(issued(tmp_path, middle, behind=(middle,)))
    assert "a name that its issuer may not certify" in text


@pytest.mark.parametrize(("days", "good"), [(725, True), (726, False)])
def test_T15_a_certificate_that_is_valid_for_too_long(tmp_path: Path, days: int, good: bool) -> None:
    found = warnings(issued(tmp_path, Issuer("Root"), days=days))
    assert len(found) == (not good)
    assert good or "valid for more than 825 days" in found[0]


def test_T15_a_curve_that_is_spelled_out(tmp_path: Path) -> None:
    pair = made_by_openssl(tmp_path, "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256",
                           "-pkeyopt", "ec_param_enc:explicit")  # fmt: skip
    text, _self_signed = warnings(pair)
    assert "spells out the parameters of its curve instead of naming it" in text


@pytest.mark.parametrize("name", ["", ".example.test", "a\0b.example.test", "a\nb", "x" * 300, "*", "a b", "-"])
def test_T15_what_is_no_name_does_no_harm(tmp_path: Path, name: str) -> None:
    assert all(text.isprintable() for text in warnings(issued(tmp_path, Issuer("Root"), dns(name, HOST))))


def test_T15_a_fault_over_a_warning_keeps_nobody_from_being_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.wire.tls.remarks.has_explicit_curve", lambda _leaf: 1 / 0)
    (text,) = warnings(issued(tmp_path, Issuer("Root")))
    assert text.endswith("the certificate cannot be looked at closer (ZeroDivisionError)")


def test_T15_an_address_as_a_DNS_name(tmp_path: Path) -> None:
    (text,) = warnings(issued(tmp_path, Issuer("Root"), dns(HOST, "192.0.2.1")))
    assert "192.0.2.1 is a DNS name in the certificate" in text


@pytest.mark.parametrize("make", [ed25519.Ed25519PrivateKey.generate, ed448.Ed448PrivateKey.generate])
@pytest.mark.parametrize(
    ("names", "partner", "good"),
    [
        ((HOST,), (), False),
        ((HOST,), (HOST,), True),
        (("*.example.test",), ("*.example.test",), True),
        ((HOST, "b.example.test"), (HOST,), False),
    ],
)
def test_T15_a_key_that_many_clients_do_not_know_needs_a_partner(
    tmp_path: Path, make: Callable[[], Key], names: tuple[str, ...], partner: tuple[str, ...], good: bool
) -> None:
    pairs = [by_hand(tmp_path / "ed.pem", make(), dns(*names))]
    if partner:
        pairs.append(by_hand(tmp_path / "ec.pem", p256(), dns(*partner)))
    found = list(about_all(inspect(pairs), HOST))
    assert len(found) == (not good)
    assert good or "many mail clients know no Ed" in found[0][1]
