"""What `check` tells of the gateway's own certificates, to whoever runs the gateway."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.cli.__main__ import main
from gateway.cli.certificates import complaints, served, told
from gateway.config import Configuration, Places, load
from gateway.dialects import DIALECTS
from tests.memory.tls_peer import Authority

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def configured(directory: Path, tls: str, smtp: str = "", imap: str = "") -> Configuration:
    path = directory / "gw.ini"
    path.write_text(
        f"[gateway]\nhostname = gw.example.test\n[tls]\n{tls}\n"
        f"[service:smtp]\nstarttls = 25\nbackend = 192.0.2.1:25\n{smtp}\n"
        f"[service:imap]\nstarttls = 143\nbackend = 192.0.2.1:143\n{imap}\n"
    )
    return load(path, DIALECTS)


def issue(
    path: Path,
    *names: str,
    ca: trustme.CA | None = None,
    days: float = 9.5,
    kind: trustme.KeyType = trustme.KeyType.ECDSA,
) -> x509.Certificate:
    """A certificate and its key, in one file; it ends so many days after NOW."""
    start, end = NOW - timedelta(days=30), NOW + timedelta(days=days)
    issued = (ca or trustme.CA()).issue_cert(*names, not_before=start, not_after=end, key_type=kind)
    issued.private_key_and_cert_chain_pem.write_to_path(str(path))
    path.chmod(0o600)
    return x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())


def record(certificate: x509.Certificate) -> str:
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"3 1 1 {hashlib.sha256(key).hexdigest()}"


def wrong(configuration: Configuration) -> list[str]:
    return [one.text for one in complaints(configuration, served(configuration, NOW), Places({}), NOW)]


def test_every_certificate_in_use_is_shown_once(directory: Path) -> None:
    ecdsa = issue(directory / "ecdsa.pem", "mail.example.test", "*.example.test", "192.0.2.9")
    rsa = issue(directory / "rsa.pem", "mail.example.test", days=1.5, kind=trustme.KeyType.RSA)
    own = issue(directory / "own.pem", "imap.example.test", days=0.5)
    found = served(configured(directory, "certificate = ecdsa.pem rsa.pem", imap="certificate = own.pem"), NOW)
    lines = list(told(found))
    warnings = [line for line in lines if line.startswith("warning")]
    assert len(warnings) == 3
    assert all("is no CA that this machine knows" in line for line in warnings)
    assert [line for line in lines if line not in warnings] == [
        "",
        f"to clients   {directory}/ecdsa.pem of [tls], for smtp",
        "names        mail.example.test, *.example.test, 192.0.2.9",
        "key          ECDSA P-256",
        "valid        until 2026-01-10, 9 days left",
        f"TLSA         {record(ecdsa)}",
        "",
        f"to clients   {directory}/rsa.pem of [tls], for smtp",
        "names        mail.example.test",
        "key          RSA 2048",
        "valid        until 2026-01-02, 1 day left",
        f"TLSA         {record(rsa)}",
        "",
        f"to clients   {directory}/own.pem of [service:imap], for imap",
        "names        imap.example.test",
        "key          ECDSA P-256",
        "valid        until 2026-01-01, 0 days left",
        f"TLSA         {record(own)}",
    ]


def test_a_certificate_that_services_share_names_them(directory: Path) -> None:
    issue(directory / "c.pem", "mail.example.test")
    (one,) = served(configured(directory, "certificate = c.pem", imap="profile = modern"), NOW)
    assert (one.section, one.services) == ("tls", ("smtp", "imap"))


def test_what_is_wrong_stands_at_the_option_that_names_the_file(directory: Path, authority: Authority) -> None:
    issue(directory / "old.pem", "mail.example.test", days=-1)
    issue(directory / "other.key", "mail.example.test")
    (directory / "empty.pem").touch()
    text = f"certificate = old.pem {authority.certificate}\nkey = old.pem other.key"
    problems = wrong(configured(directory, text, imap="certificate = empty.pem"))
    assert [problem.split(directory.name)[0] for problem in problems] == [
        f"[tls] certificate: {directory.parent}/",
        f"[tls] key: {directory.parent}/",
        f"[service:imap] certificate: {directory.parent}/",
    ]
    assert "expired on 2025-12-31; renew it" in problems[0]
    assert "does not belong to the first certificate" in problems[1]
    assert "it is empty" in problems[2]


@pytest.mark.parametrize("asked", ["request", "require"])
def test_the_issuers_of_clients_are_looked_at_once(directory: Path, asked: str) -> None:
    issue(directory / "c.pem", "mail.example.test")
    (directory / "bad.pem").write_text("nothing of the kind\n")
    (directory / "worse.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    ca = f"client_certificate = {asked}\nclient_ca = "
    shared = configured(directory, f"certificate = c.pem\n{ca}bad.pem")
    assert [problem.split(": ")[0] for problem in wrong(shared)] == ["[tls] client_ca"]
    own = configured(directory, f"certificate = c.pem\n{ca}bad.pem", smtp="client_ca = worse.pem")
    assert [problem.split(": ")[0] for problem in wrong(own)] == ["[service:smtp] client_ca", "[tls] client_ca"]


def test_a_certificate_that_only_the_old_are_shown_may_be_weak(directory: Path, old_rsa: None) -> None:
    legacy = "profile = legacy\nlegacy_clients = 10.0.0.0/8"
    issue(directory / "strong.pem", "old.example.test")
    assert wrong(configured(directory, "certificate = small.pem strong.pem", legacy, legacy)) == []
    (problem,) = wrong(configured(directory, "certificate = small.pem", legacy, legacy))
    assert "the key is too small" in problem, "all others could not be served"
    (problem,) = wrong(configured(directory, "certificate = small.pem", legacy))
    assert problem.startswith("[tls] certificate: ")
    assert "the key is too small" in problem


@pytest.fixture
def old_rsa(directory: Path) -> None:
    """small.pem: RSA with 1024 bits, self-signed."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import NoEncryption, PrivateFormat

    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "old")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, NOW - timedelta(1), NOW + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("old.example.test")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (directory / "small.pem").write_bytes(secret + certificate.public_bytes(Encoding.PEM))


def test_check_shows_it_all(directory: Path, authority: Authority, capsys: pytest.CaptureFixture[str]) -> None:
    configured(directory, f"certificate = {authority.both}")
    assert main(["check", str(directory / "gw.ini")]) == 0
    text = capsys.readouterr().out
    assert f"\n\nto clients   {authority.both} of [tls], for smtp, imap\nnames        mail.example.test\n" in text
    assert "\nTLSA         3 1 1 " in text


def test_check_lists_what_is_wrong_and_nothing_else(
    directory: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "bad.pem").write_text("nothing of the kind\n")
    configured(directory, f"certificate = {authority.both}", imap="certificate = bad.pem")
    assert main(["check", str(directory / "gw.ini")]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{directory}/gw.ini, line 12: [service:imap] certificate: {directory}/bad.pem: ")
