"""What others who look for weak TLS find on all six kinds of port."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.process import programs
from tests.process.legacy import SERVERS
from tests.process.recording import Backend
from tests.process.running import Gateway, Identity, Service, running
from tests.process.words import WORDS

NAME = "mail.example.test"
DAY = timedelta(days=1)
KINDS = [(protocol, mode) for protocol in WORDS for mode in ("starttls", "implicit")]
WEAK = {"MEDIUM", "HIGH", "CRITICAL"}
"""Severities of testssl.sh that are weaknesses; WARN is about testssl.sh itself."""
QUICK = {"HEADER_MAXSLEEP": "2", "USLEEP_SND": "0.01", "USLEEP_REC": "0.02"}
"""Seconds that testssl.sh waits where it does not know whether more comes.  Over loopback it came before."""

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Authority:
    """Issues what a public CA would today: trustme's certificates live for centuries, and scanners mind."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Scanned CA")])
        self.certificate = self._signed(
            self._name,
            self._key,
            300,
            (x509.BasicConstraints(ca=True, path_length=None), True),
            (_usage(certificates=True), True),
        )

    def issue(self, path: Path, key: Key) -> None:
        """A certificate for NAME with its key, in one file."""
        certificate = self._signed(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)]),
            key,
            89,
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_usage(certificates=False), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
            (x509.SubjectAlternativeName([x509.DNSName(NAME)]), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False),
            (x509.CRLDistributionPoints([_published("http://crl.example.test/ca.crl")]), False),
        )
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(certificate.public_bytes(Encoding.PEM) + secret)

    def _signed(
        self, subject: x509.Name, key: Key, days: int, *extensions: tuple[x509.ExtensionType, bool]
    ) -> x509.Certificate:
        now = datetime.now(timezone.utc)
        builder = x509.CertificateBuilder(
            self._name, subject, key.public_key(), x509.random_serial_number(), now - DAY, now + days * DAY
        ).add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self._key, hashes.SHA256())


def _usage(certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _published(where: str) -> x509.DistributionPoint:
    return x509.DistributionPoint([x509.UniformResourceIdentifier(where)], None, None, None)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scanned") / "authority.pem"


@pytest.fixture(scope="module")
def scanned(authority: Path) -> Iterator[Gateway]:
    """With certificates of both kinds, which each bring suites of their own."""
    issuer, directory = Authority(), authority.parent
    authority.write_bytes(issuer.certificate.public_bytes(Encoding.PEM))
    issuer.issue(directory / "ecdsa.pem", ec.generate_private_key(ec.SECP256R1()))
    issuer.issue(directory / "rsa.pem", rsa.generate_private_key(65537, 2048))
    backends = {protocol: Backend(SERVERS[protocol](None)) for protocol in WORDS}
    services = [Service(protocol, backend.address) for protocol, backend in backends.items()]
    options = {
        "tls": {"certificate": f"{directory}/ecdsa.pem {directory}/rsa.pem"},
        # A scanner is one client, and in a hurry.
        "limits": {"connects_per_minute": "100000", "sessions_per_client": "1000"},
    }
    with running(directory, Identity(directory / "ecdsa.pem", authority), services, options=options) as gateway:
        yield gateway
    for backend in backends.values():
        backend.close()


@pytest.mark.parametrize(("protocol", "mode"), KINDS)
def test_sslyze_finds_what_mozilla_recommends(scanned: Gateway, authority: Path, protocol: str, mode: str) -> None:
    host, port = scanned.address(protocol, mode)
    done = subprocess.run(
        [
            programs.need("sslyze"),
            "--mozilla_config=intermediate",
            f"--certinfo_ca_file={authority}",
            f"--sni={NAME}",
            *([f"--starttls={protocol}"] if mode == "starttls" else []),
            f"{host}:{port}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert f"{host}:{port}: OK - Compliant." in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


def test_testssl_finds_no_weakness(scanned: Gateway, tmp_path: Path, authority: Path) -> None:
    """On the port of most clients; docs/tls.md tells what a whole run found on each kind of port."""
    host, port = scanned.address("imap", "implicit")
    report = tmp_path / "report.json"
    done = subprocess.run(
        [
            *(programs.need("testssl", debian="testssl.sh"), "--quiet", "--color=0", "--warnings=batch"),
            *("--nodns=none", "--protocols", "--server-preference", "--server-defaults", "--vulnerable"),
            *(f"--add-ca={authority}", f"--jsonfile={report}", f"--ip={host}", f"{NAME}:{port}"),
        ],
        env={**os.environ, **QUICK},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )
    found = json.loads(report.read_text())
    looked = {entry["id"] for entry in found}
    assert {"TLS1_3", "cipher_order", "cert_trust <cert#1>", "ROBOT", "LUCKY13"} <= looked, done.stdout
    assert [entry for entry in found if entry["severity"] in WEAK] == []
    # A check that was given up has found nothing.
    assert [entry for entry in found if "timed out" in entry["finding"]] == []
