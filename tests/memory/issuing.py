"""Certificates of every kind, as files in a directory."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL

from gateway.config.values import TLS, Network, Pair
from gateway.wire.tls.half import TLSError, TLSHalf
from gateway.wire.tls.renewal import Renewal
from gateway.wire.tls.server import ServerTLS

NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
DAY = datetime.timedelta(days=1)
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
_Hashing = (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)
RSA, ECDSA = trustme.KeyType.RSA, trustme.KeyType.ECDSA


class Office:
    """A CA, and the directory that what it issues is put into."""

    def __init__(self, directory: Path, ca: trustme.CA | None = None) -> None:
        self.ca = ca or trustme.CA()
        self.directory = directory

    def pair(
        self,
        *names: str,
        file: str = "mail",
        kind: trustme.KeyType = ECDSA,
        begins: datetime.datetime | None = None,
        ends: datetime.datetime | None = None,
    ) -> Pair:
        """A certificate with its chain, and its key; what stood in the files is written over."""
        issued = self.ca.issue_cert(
            *names, key_type=kind, not_before=begins or NOW - DAY, not_after=ends or NOW + 90 * DAY
        )
        pair = Pair(self.directory / f"{file}.pem", self.directory / f"{file}.key")
        assert pair.key is not None
        pair.key.write_bytes(issued.private_key_pem.bytes())
        pair.key.chmod(0o600)
        pair.certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        return pair

    def authority(self, file: str = "ca.pem") -> Path:
        path = self.directory / file
        self.ca.cert_pem.write_to_path(str(path))
        return path


def by_hand(path: Path, key: Key, *extensions: x509.ExtensionType, name: str = "hand") -> Pair:
    """A self-signed certificate with its key in one file."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + 90 * DAY)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    certificate = builder.sign(key, hashes.SHA256() if isinstance(key, _Hashing) else None)
    path.write_bytes(
        certificate.public_bytes(Encoding.PEM) + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    path.chmod(0o600)
    return Pair(path)


def dns(*names: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.DNSName(name) for name in names])


def silent(event: str, **fields: object) -> None:
    """Events that nobody wants."""


def serving(
    *pairs: Pair,
    alpn: tuple[bytes, ...] = (b"imap",),
    profile: str = "intermediate",
    legacy_clients: tuple[Network, ...] = (),
    client_certificate: str = "none",
    client_ca: Path | None = None,
) -> ServerTLS:
    values = TLS(pairs, profile, legacy_clients, client_certificate, client_ca)
    return Renewal(silent).serve(values, alpn)


class Client:
    """A client over memory, in OpenSSL's own words; one context may make several, which then resume."""

    def __init__(self, context: SSL.Context, name: str | None = "mail.example.test") -> None:
        self.connection = SSL.Connection(context, None)
        self.connection.set_connect_state()
        if name is not None:
            self.connection.set_tlsext_host_name(name.encode())
        self.failure = ""
        self.shaken = False

    def feed(self, octets: bytes) -> bytes:
        if octets:
            self.connection.bio_write(octets)
        try:
            self.connection.do_handshake()
            self.shaken = True
            self.connection.recv(1)
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            self.failure = self.failure or str(error.args[0][0][2])
        try:
            return self.connection.bio_read(65536)
        except SSL.WantReadError:
            return b""

    @property
    def resumed(self) -> bool:
        return bool(SSL._lib.SSL_session_reused(self.connection._ssl))  # type: ignore[attr-defined]

    @property
    def certificate(self) -> x509.Certificate:
        found = self.connection.get_peer_certificate(as_cryptography=True)
        assert found is not None
        return found


def client_context(
    minimum: int | None = None,
    maximum: int | None = None,
    ciphers: bytes | None = None,
    alpn: Sequence[bytes] = (),
    sigalgs: bytes | None = None,
    groups: bytes | None = None,
) -> SSL.Context:
    """Trusts anybody: who is shown is what tests ask."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if ciphers is not None:
        context.set_cipher_list(ciphers)
    if minimum is not None:
        context.set_min_proto_version(minimum)
    if maximum is not None:
        context.set_max_proto_version(maximum)
    if alpn:
        context.set_alpn_protos(list(alpn))
    library = SSL._lib  # type: ignore[attr-defined]
    if sigalgs is not None:
        assert library.SSL_CTX_set1_sigalgs_list(context._context, sigalgs) == 1
    if groups is not None:
        assert library.SSL_CTX_set1_curves_list(context._context, groups) == 1
    return context


def talk(half: TLSHalf, client: Client, between: Callable[[], object] = lambda: None) -> str:
    """Carry octets to and fro until both are silent; why the half gave up, if it did.

    `between` is called after the half's first flight.
    """
    wire = client.feed(b"")
    reason, first = "", True
    for _ in range(10):
        try:
            half.feed(wire)
        except TLSError as error:
            reason = reason or error.reason
        back = half.outgoing()
        if first:
            between()
            first = False
        wire = client.feed(back)
        if not wire and not back:
            break
    return reason


def visit(
    server: ServerTLS, context: SSL.Context, name: str | None = "mail.example.test", at: str = "192.0.2.1"
) -> Client:
    """A handshake that succeeds."""
    half, client = server.accept(at), Client(context, name)
    assert not talk(half, client), client.failure
    assert half.secured is not None
    return client


def serial(pair: Pair) -> int:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes()).serial_number


def shown(server: ServerTLS, name: str | None = "mail.example.test", context: SSL.Context | None = None) -> int:
    """The serial number of the certificate that a client gets."""
    return visit(server, context or client_context(), name).certificate.serial_number
