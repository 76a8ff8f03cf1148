"""What the gateway's TLS offers, and what it says about certificates that cannot be used."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from gateway.wire.tls.context import CertificateError, accepting
from gateway.wire.tls.half import TLSHalf
from tests.memory.test_tls_half import pair, shake
from tests.memory.tls_peer import Authority, Peer, server_context


def complaint(certificate: Path, key: Path | None) -> str:
    with pytest.raises(CertificateError) as caught:
        server_context(certificate, key)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_key_may_be_in_the_certificates_file(authority: Authority) -> None:
    half, peer = TLSHalf(accepting(server_context(authority.both, None))), Peer(authority.client())
    shake(half, peer)


def test_key_exchange_is_post_quantum_where_the_client_can(authority: Authority) -> None:
    from OpenSSL import SSL

    connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    connection.set_connect_state()
    half = TLSHalf(accepting(server_context(authority.certificate, authority.key)))
    peer = TLSHalf(connection)
    peer.start()
    half.feed(peer.outgoing())
    peer.feed(half.outgoing())
    half.feed(peer.outgoing())
    assert half.secured is not None
    assert half.secured.group == "X25519MLKEM768"


def test_a_group_outside_the_list_is_not_used(authority: Authority) -> None:
    context = authority.client()
    context.set_ecdh_curve("secp521r1")
    half, peer = TLSHalf(accepting(server_context(authority.certificate, authority.key))), Peer(context)
    with pytest.raises(Exception, match=r"no suitable key share|no shared groups|no suitable groups"):
        half.feed(peer.hello())


def test_a_session_is_resumed_by_ticket(authority: Authority) -> None:
    gateway = server_context(authority.certificate, authority.key)
    context = authority.client()
    first = Peer(context)
    shake(TLSHalf(accepting(gateway)), first)
    again = Peer(context)
    again.tls.session = first.tls.session
    shake(TLSHalf(accepting(gateway)), again)
    assert again.tls.session_reused


def test_a_ticket_of_one_context_is_worthless_in_another(authority: Authority) -> None:
    context = authority.client()
    _half, first = pair(authority, context)
    again = Peer(context)
    again.tls.session = first.tls.session
    shake(TLSHalf(accepting(server_context(authority.certificate, authority.key))), again)
    assert not again.tls.session_reused


def test_a_client_that_offers_alpn_is_served_without(authority: Authority) -> None:
    context = authority.client()
    context.set_alpn_protocols(["smtp"])
    _half, peer = pair(authority, context)
    assert peer.tls.selected_alpn_protocol() is None


def test_compression_is_off(authority: Authority) -> None:
    context = authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    _half, peer = pair(authority, context)
    assert peer.tls.compression() is None


# --- certificates ----------------------------------------------------------------------------------


def test_a_missing_file_is_named(authority: Authority, directory: Path) -> None:
    gone = directory / "gone.pem"
    assert complaint(gone, None).startswith(f"{gone}: no such file")
    assert complaint(authority.certificate, gone).startswith(f"{gone}: no such file")


def test_a_directory_is_not_a_file(directory: Path) -> None:
    assert "directory" in complaint(directory, None)


def test_an_unreadable_file_says_how_to_make_it_readable(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert "chgrp" in complaint(authority.certificate, authority.key)


def test_a_file_that_is_not_pem_says_what_it_should_be(authority: Authority, directory: Path) -> None:
    text = directory / "notes.txt"
    text.write_text("remember the milk")
    assert "no certificate in this file" in complaint(text, authority.key)
    assert "no private key in this file" in complaint(authority.certificate, text)


def test_der_is_recognised(authority: Authority, directory: Path) -> None:
    der = directory / "certificate.der"
    pem = x509.load_pem_x509_certificates(authority.certificate.read_bytes())[0]
    der.write_bytes(pem.public_bytes(Encoding.DER))
    assert "openssl x509 -inform DER" in complaint(der, authority.key)


def test_a_damaged_certificate_or_key_is_called_damaged(authority: Authority, directory: Path) -> None:
    for good in (authority.certificate, authority.key):
        lines = good.read_text().splitlines()
        lines[2] = "AAAA" + lines[2][4:]
        (directory / good.name).write_text("\n".join(lines) + "\n")
    assert "damaged" in complaint(directory / "certificate.pem", authority.key)
    assert "damaged" in complaint(authority.certificate, directory / "key.pem")


def test_a_missing_key_is_asked_for(authority: Authority) -> None:
    assert "give the file that holds it as `key`" in complaint(authority.certificate, None)


def test_a_foreign_key_names_both_files(authority: Authority, directory: Path) -> None:
    other = Authority(trustme.CA(), directory)
    text = complaint(authority.certificate, other.key)
    assert str(authority.certificate) in text
    assert str(other.key) in text
    assert "does not belong" in text


def test_a_chain_in_the_wrong_order_is_a_key_that_does_not_belong(authority: Authority, directory: Path) -> None:
    swapped = directory / "swapped.pem"
    swapped.write_bytes(authority.ca.cert_pem.bytes() + authority.certificate.read_bytes())
    assert "must come first" in complaint(swapped, authority.key)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_a_key_with_a_passphrase_says_how_to_remove_it(
    authority: Authority, directory: Path, form: PrivateFormat
) -> None:
    key = load_pem_private_key(authority.key.read_bytes(), None)
    locked = directory / "locked.pem"
    locked.write_bytes(key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret")))
    assert "passphrase" in complaint(authority.certificate, locked)


def test_a_key_that_is_too_small_says_what_is_large_enough(directory: Path) -> None:
    import datetime

    from cryptography.hazmat.primitives import hashes

    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "small")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    both = directory / "small.pem"
    both.write_bytes(
        certificate.public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    assert "2048" in complaint(both, None)


def test_an_ec_key_behind_its_parameters_is_found(authority: Authority, directory: Path) -> None:
    key = load_pem_private_key(authority.key.read_bytes(), None)
    traditional = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    both = directory / "old.pem"
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    both.write_bytes(authority.certificate.read_bytes() + parameters + traditional)
    server_context(both, None)
