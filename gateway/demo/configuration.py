"""The certificate and the configuration of the demo."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..config.values import TLS, Backend, Configuration, Control, Limits, Pair, Service, TCPAddress, Timeouts
from ..dialects import DIALECTS
from ..dialects.base import Free

HOST = "127.0.0.1"


def self_signed(directory: Path) -> TLS:
    """Write a self-signed certificate for localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address(HOST))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = directory / "localhost.pem", directory / "localhost.key"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return TLS((Pair(certificate_file, key_file),))


def defaults(protocol: str) -> tuple[tuple[str, str], ...]:
    """The options that only this protocol has, as they are without a file."""
    options = DIALECTS[protocol].options
    return tuple((name, kind.default if isinstance(kind, Free) else kind[0]) for name, kind in options.items())


def configuration(tls: TLS, backends: Mapping[str, int], ports: Mapping[str, int]) -> Configuration:
    """`backends`: the legacy servers' ports by protocol. `ports`: as in `gateway.demo.PORTS`."""

    def at(port: str) -> tuple[TCPAddress]:
        return (TCPAddress(HOST, ports[port]),)

    behind = {
        # The demo's SMTP server sends nothing on.
        protocol: Backend(f"legacy-{protocol}", (TCPAddress(HOST, port),), allow_relay=protocol == "smtp")
        for protocol, port in backends.items()
    }
    services = (
        Service("smtp", "smtp", at("smtp"), (), ("auth-only",), behind["smtp"], tls),
        Service("submission", "smtp", at("submission"), at("submissions"), ("required",), behind["smtp"], tls),
        Service("imap", "imap", at("imap"), at("imaps"), ("required",), behind["imap"], tls),
        Service("pop3", "pop3", at("pop3"), at("pop3s"), ("required",), behind["pop3"], tls),
        Service("lmtp", "lmtp", at("lmtp"), (), ("required",), behind["lmtp"], tls),
        Service("sieve", "managesieve", at("sieve"), (), ("required",), behind["managesieve"], tls),
        Service("nntp", "nntp", at("nntp"), at("nntps"), ("required",), behind["nntp"], tls),
        Service("irc", "irc", at("irc"), at("ircs"), ("required",), behind["irc"], tls),
        Service("ftp", "ftp", at("ftp"), at("ftps"), ("required",), behind["ftp"], tls, options=defaults("ftp")),
        Service("postgresql", "postgresql", at("postgresql"), (), ("required",), behind["postgresql"], tls),
        Service("http", "http", at("http"), at("https"), ("required",), behind["http"], tls),
    )
    return Configuration(
        hostname="localhost",
        drain=2.0,  # short, for the demo
        log="text",
        tls=tls,
        services=services,
        limits=Limits(),
        timeouts=Timeouts(),
        control=Control(path=None),
    )
