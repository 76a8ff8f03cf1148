"""What is said of certificates before they are served."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import AuthorityInformationAccessOID

from gateway.config.values import Pair
from gateway.wire.tls.certificates import CertificateError, inspect, load, load_authorities
from tests.memory.issuing import DAY, NOW, RSA, Office, by_hand, dns, serving, shown


@pytest.fixture
def office(directory: Path) -> Office:
    return Office(directory)


def blocks(pair: Pair) -> list[bytes]:
    return [one.public_bytes(Encoding.PEM) for one in x509.load_pem_x509_certificates(pair.certificate.read_bytes())]


def complaints(pair: Pair) -> tuple[str, ...]:
    """The errors that a report lists; loading raises the first of them."""
    (report,) = inspect([pair], NOW)
    assert report.errors
    with pytest.raises(CertificateError) as caught:
        load(pair, NOW)
    assert str(caught.value) == report.errors[0]
    assert not any("\n" in line for line in report.errors + report.warnings)
    assert all(str(pair.certificate) in line for line in report.errors)
    return report.errors


def test_the_facts_of_a_certificate(office: Office) -> None:
    pair = office.pair("mail.example.test", "*.example.test", "192.0.2.1", "2001:db8::1", ends=NOW + 60 * DAY)
    (report,) = inspect([pair], NOW)
    assert report.pair == pair
    assert report.names == ("mail.example.test", "*.example.test", "192.0.2.1", "2001:db8::1")
    assert report.not_after == NOW + 60 * DAY
    assert report.days == 60
    assert report.key == "ECDSA P-256"
    assert report.errors == ()
    key = x509.load_pem_x509_certificate(pair.certificate.read_bytes()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert report.tlsa == "3 1 1 " + hashlib.sha256(spki).hexdigest()


def test_a_renewal_with_the_same_key_keeps_its_tlsa_record(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    one, two = by_hand(directory / "one.pem", key, name="one"), by_hand(directory / "two.pem", key, name="two")
    first, second = inspect([one, two], NOW)
    assert first.tlsa == second.tlsa


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (rsa.generate_private_key(65537, 2048), "RSA 2048"),
        (rsa.generate_private_key(65537, 3072), "RSA 3072"),
        (ec.generate_private_key(ec.SECP384R1()), "ECDSA P-384"),
        (ec.generate_private_key(ec.SECP256K1()), "ECDSA secp256k1"),
    ],
)
def test_the_kind_of_key_is_told(
    directory: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, text: str
) -> None:
    (report,) = inspect([by_hand(directory / "one.pem", key)], NOW)
    assert report.key == text


@pytest.mark.parametrize(
    ("key", "text"), [(ed25519.Ed25519PrivateKey.generate(), "Ed25519"), (ed448.Ed448PrivateKey.generate(), "Ed448")]
)
def test_edwards_curves_have_names_of_their_own(
    directory: Path, key: ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey, text: str
) -> None:
    pair = by_hand(directory / "one.pem", key, dns("mail.example.test"))
    (report,) = inspect([pair], NOW)
    assert report.key == text
    assert shown(serving(pair)) == 1


def test_days_are_counted_down_and_below_nothing(office: Office) -> None:
    pair = office.pair("mail.example.test", begins=NOW - 9 * DAY, ends=NOW + 2 * DAY)
    assert [inspect([pair], NOW + n * DAY)[0].days for n in range(4)] == [2, 1, 0, -1]


# --- dates ---------------------------------------------------------------------------------------


def test_an_expired_certificate_is_not_served(office: Office) -> None:
    (text,) = complaints(office.pair("mail.example.test", begins=NOW - 9 * DAY, ends=NOW - DAY))
    assert f"expired on {(NOW - DAY).date().isoformat()}; renew it" in text


def test_a_certificate_of_the_future_is_not_served(office: Office) -> None:
    (text,) = complaints(office.pair("mail.example.test", begins=NOW + DAY, ends=NOW + 9 * DAY))
    assert "is not valid before" in text
    assert "clock" in text


# --- chains --------------------------------------------------------------------------------------


@pytest.fixture
def deep(directory: Path) -> Pair:
    """Leaf, issuer, its issuer."""
    pair = Office(directory, trustme.CA().create_child_ca().create_child_ca()).pair("mail.example.test")
    assert len(blocks(pair)) == 3
    return pair


def test_a_chain_in_order_is_served(deep: Pair) -> None:
    assert len(load(deep, NOW).chain) == 3
    assert not inspect([deep], NOW)[0].errors


def test_a_chain_may_end_with_its_root(office: Office) -> None:
    pair = office.pair("mail.example.test")
    pair.certificate.write_bytes(b"".join(blocks(pair)) + office.ca.cert_pem.bytes())
    assert not inspect([pair], NOW)[0].errors


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ((0, 2, 1), "out of order: certificate 2"),
    ],
)
def test_a_chain_out_of_order_is_not_served(deep: Pair, order: tuple[int, ...], words: str) -> None:
    chain = blocks(deep)
    deep.certificate.write_bytes(b"".join(chain[place] for place in order))
    (text,) = complaints(deep)
    assert words in text
    assert "each must be followed by its issuer" in text


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ((0, 0, 1, 2), "certificate 2 is the same as certificate 1"),
        ((0, 1, 1, 2), "certificate 3 is the same as certificate 2"),
    ],
)
def test_T16_a_certificate_that_is_there_twice(deep: Pair, order: tuple[int, ...], words: str) -> None:
    chain = blocks(deep)
    deep.certificate.write_bytes(b"".join(chain[place] for place in order))
    (text,) = complaints(deep)
    assert words in text
    assert "remove one of them" in text


def test_a_missing_link_and_a_foreign_certificate_are_told_by_number(deep: Pair) -> None:
    chain = blocks(deep)
    deep.certificate.write_bytes(chain[0] + chain[2])
    (text,) = complaints(deep)
    assert "certificate 2" in text
    assert "does not belong to the chain" in text
    deep.certificate.write_bytes(b"".join(chain) + trustme.CA().cert_pem.bytes())
    (text,) = complaints(deep)
    assert "certificate 4" in text


def test_an_issuer_of_the_same_name_but_another_key_is_foreign(directory: Path) -> None:
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    one, two = by_hand(directory / "one.pem", key), by_hand(directory / "two.pem", other)
    one.certificate.write_bytes(one.certificate.read_bytes() + blocks(two)[0])
    assert "does not belong" in complaints(one)[0]


def test_an_issuer_that_has_expired_is_told(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    root = trustme.CA()
    authority = root.cert_pem.bytes()
    pair = Office(office.directory, root).pair("mail.example.test", ends=NOW + 365_000 * DAY)
    pair.certificate.write_bytes(blocks(pair)[0] + authority)
    ends = x509.load_pem_x509_certificate(authority).not_valid_after_utc
    (report,) = inspect([pair], ends + DAY)
    assert any("certificate 2 of the chain" in line and "expired" in line for line in report.errors)


# --- remarks -------------------------------------------------------------------------------------


def remarks(pair: Pair) -> tuple[str, ...]:
    (report,) = inspect([pair], NOW)
    assert not report.errors
    load(pair, NOW)
    return report.warnings


def test_a_chain_to_nobody_is_a_warning(office: Office) -> None:
    pair = office.pair("mail.example.test")
    (text,) = remarks(pair)
    assert "the chain ends at" in text
    assert "no CA that this machine knows" in text
    assert "append the issuer's certificate in PEM form" in text
    pair.certificate.write_bytes(b"".join(blocks(pair)) + office.ca.cert_pem.bytes())
    (text,) = remarks(pair)
    assert "which is no CA that this machine knows" in text


def test_a_chain_to_a_ca_of_this_machines_is_none(
    office: Office, monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(office.authority()))
    assert remarks(office.pair("mail.example.test")) == ()
    deep = Office(directory, office.ca.create_child_ca()).pair("mail.example.test")
    assert remarks(deep) == ()
    deep.certificate.write_bytes(blocks(deep)[0])
    assert "whose issuer" in remarks(deep)[0]


def test_a_missing_issuer_is_asked_for_where_it_is_published(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    place = x509.AccessDescription(
        AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier("http://ca.example.test/r3.der")
    )
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "leaf")])
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "R3\r\nevil")])
    from cryptography.hazmat.primitives import hashes

    pair = by_hand(directory / "one.pem", key)
    leaf = (
        x509.CertificateBuilder(issuer, name, key.public_key(), 1, NOW - DAY, NOW + DAY)
        .add_extension(x509.AuthorityInformationAccess([place]), critical=False)
        .add_extension(dns("mail.example.test"), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = pair.certificate.read_bytes().partition(b"-----BEGIN PRIVATE")
    pair.certificate.write_bytes(leaf.public_bytes(Encoding.PEM) + secret[1] + secret[2])
    (text,) = remarks(pair)
    assert "from http://ca.example.test/r3.der" in text
    assert "evil" in text


def test_a_self_signed_certificate_is_a_warning(directory: Path) -> None:
    (text,) = remarks(by_hand(directory / "one.pem", ec.generate_private_key(ec.SECP256R1()), dns("a.example.test")))
    assert "self-signed" in text


def test_a_certificate_for_no_host_is_a_warning(directory: Path) -> None:
    pair = by_hand(directory / "one.pem", ec.generate_private_key(ec.SECP256R1()), name="mail.example.test")
    assert any("for no host" in line for line in remarks(pair))


# --- files ---------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_a_report_too(directory: Path) -> None:
    (report,) = inspect([Pair(directory / "gone.pem")], NOW)
    assert report.names == ()
    assert (report.days, report.key, report.tlsa, report.not_after) == (None, None, None, None)
    assert "no such file" in report.errors[0]


def test_an_empty_file_is_called_empty(office: Office) -> None:
    pair = office.pair("mail.example.test")
    pair.certificate.write_bytes(b"\n")
    assert "it is empty" in complaints(pair)[0]


def test_a_weak_key_is_an_error_but_for_old_clients(directory: Path) -> None:
    pair = by_hand(directory / "one.pem", rsa.generate_private_key(65537, 1024), dns("mail.example.test"))
    (report,) = inspect([pair], NOW)
    assert "2048" in report.errors[0]
    assert report.key == "RSA 1024"
    assert not inspect([pair], NOW, "legacy")[0].errors


def test_a_damaged_rsa_key_is_called_damaged(directory: Path) -> None:
    """With the right modulus: it would belong to the certificate, and sign nonsense."""
    key = rsa.generate_private_key(65537, 2048)
    pair = by_hand(directory / "one.pem", key, dns("mail.example.test"))
    numbers = key.private_numbers()
    wrong = rsa.RSAPrivateNumbers(
        numbers.p, numbers.q, numbers.d ^ 4, numbers.dmp1 ^ 4, numbers.dmq1, numbers.iqmp, numbers.public_numbers
    ).private_key(unsafe_skip_rsa_key_validation=True)
    (directory / "wrong.key").write_bytes(
        wrong.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    with pytest.raises(CertificateError, match="damaged"):
        load(Pair(pair.certificate, directory / "wrong.key"), NOW)


def test_issuers_of_clients_are_a_file_of_certificates(office: Office, directory: Path) -> None:
    assert len(load_authorities(office.authority()).certificates) == 1
    (directory / "empty.pem").write_bytes(b"")
    (directory / "cut.pem").write_bytes(office.ca.cert_pem.bytes()[:300])
    for name, words in (("empty.pem", "no certificate"), ("cut.pem", "damaged"), ("gone.pem", "no such file")):
        with pytest.raises(CertificateError, match=words):
            load_authorities(directory / name)


@pytest.mark.parametrize("kind", [RSA, trustme.KeyType.ECDSA])
def test_the_chain_reaches_openssl_without_a_file_in_memory_too(
    office: Office, kind: trustme.KeyType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    pair = office.pair("mail.example.test", kind=kind)
    assert shown(serving(pair))


def test_without_descriptors_it_is_told(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_name: str) -> int:
        raise OSError(24, "Too many open files")

    pair = office.pair("mail.example.test")
    monkeypatch.setattr(os, "memfd_create", fail)
    with pytest.raises(CertificateError, match="Too many open files"):
        serving(pair)
