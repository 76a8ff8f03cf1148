"""Which backends the gateway believes over TLS, and what it says about the others."""

from __future__ import annotations

import ipaddress
import ssl
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL, crypto

from gateway.protocol.vocabulary import Secured
from gateway.wire.leg import End, Leg
from gateway.wire.tls.context import CertificateError, client_context, connecting
from gateway.wire.tls.half import TLSError, TLSHalf
from gateway.wire.tls.verify import PeerCertificate, TLSClientOptions, judge, peer_certificate
from tests.memory.stepping import SteppedReactor, tcp_pair
from tests.memory.tls_peer import Peer

NAME = "legacy.example.org"
NOW = datetime.now(timezone.utc)
DAY = timedelta(days=1)
EXPIRED = (NOW - 9 * DAY, NOW - 2 * DAY)
TO_COME = (NOW + 2 * DAY, NOW + 9 * DAY)

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def hosts(*names: str | x509.GeneralName) -> list[x509.GeneralName]:
    return [x509.DNSName(name) if isinstance(name, str) else name for name in names]


def address(text: str) -> x509.IPAddress:
    return x509.IPAddress(ipaddress.ip_address(text))


@dataclass(frozen=True)
class Issued:
    certificate: x509.Certificate
    key: Key

    @property
    def pin(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def issue(
    names: Sequence[x509.GeneralName] | None = None,
    issuer: Issued | None = None,
    *,
    common_name: str = NAME,
    valid: tuple[datetime, datetime] = (NOW - DAY, NOW + DAY),
    usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.SERVER_AUTH,
    key: Key | None = None,
    ca: bool = False,
) -> Issued:
    """A certificate, self-signed without an issuer."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid[0])
        .not_valid_after(valid[1])
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
    )
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if usage is not None and not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return Issued(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def with_sha1(issued: Issued, issuer: rsa.RSAPrivateKey) -> Issued:
    """The same certificate signed anew with SHA-1, which cryptography does only for what is no certificate."""
    algorithm, old = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")
    content = issued.certificate.tbs_certificate_bytes.replace(algorithm, old)
    whole = issued.certificate.public_bytes(Encoding.DER).replace(algorithm, old)
    signature = issuer.sign(content, padding.PKCS1v15(), hashes.SHA1())
    return Issued(x509.load_der_x509_certificate(whole[: -len(signature)] + signature), issued.key)


class Backends:
    """Whom the gateway trusts, and servers with certificates of all kinds."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = issue(ca=True, common_name="Trusted CA")
        self.strange_ca = issue(ca=True, common_name="Strange CA")
        self.anchors = self.file("ca.pem", self.ca.pem())

    def file(self, name: str, content: bytes) -> Path:
        path = self.directory / name
        path.write_bytes(content)
        return path

    def wanted(self, name: str = NAME, verify: str = "yes") -> TLSClientOptions:
        return TLSClientOptions(name, verify, self.anchors)

    def server(
        self,
        issued: Issued,
        *chain: Issued,
        version: ssl.TLSVersion | None = None,
        ciphers: str = "DEFAULT:@SECLEVEL=0",
    ) -> ssl.SSLContext:
        """The standard library's TLS with this certificate; `version` is the highest."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Before the certificate: a weak one is refused otherwise.
        context.set_ciphers(ciphers)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            if version is not None:
                context.maximum_version = version
        key = issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        content = key + issued.pem() + b"".join(one.pem() for one in chain)
        context.load_cert_chain(self.file("server.pem", content))
        return context


@pytest.fixture
def backends(tmp_path: Path) -> Backends:
    return Backends(tmp_path)


@dataclass
class Outcome:
    """What came of a handshake: `refusal` is the reason that the session would log, None if there is none."""

    refusal: str | None
    half: TLSHalf
    connection: SSL.Connection
    alert: str | None
    """What the backend was told."""
    sni: str | None


def meet(server: ssl.SSLContext, wanted: TLSClientOptions, context: SSL.Context | None = None) -> Outcome:
    """A handshake of the gateway with this backend, to its end."""
    connection = connecting(context or client_context(wanted), wanted)
    half = TLSHalf(connection)
    heard: list[str | None] = []
    server.sni_callback = lambda _tls, name, _context: heard.append(name)
    peer = Peer(server, server=True)
    refusal: str | None = None
    alert: str | None = None
    half.start()
    for _ in range(5):
        try:
            wire = peer.feed(half.outgoing())
        except ssl.SSLError as error:
            alert = error.reason
            wire = peer.last_words()
        if refusal is not None or not wire:
            break
        try:
            half.feed(wire)
        except TLSError as error:
            refusal = error.reason
    assert (half.secured is None) == (refusal is not None)
    return Outcome(refusal, half, connection, alert, heard[0] if heard else None)


# --- the matrix ------------------------------------------------------------

Make = Callable[[Backends], tuple[Issued, ...]]


def by_ca(
    *names: str | x509.GeneralName, usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.SERVER_AUTH
) -> Make:
    return lambda backends: (issue(hosts(*names), backends.ca, usage=usage),)


def valid(period: tuple[datetime, datetime]) -> Make:
    return lambda backends: (issue(hosts(NAME), backends.ca, valid=period),)


def named_only_by_common_name(backends: Backends) -> tuple[Issued, ...]:
    return (issue(None, backends.ca),)


def signed_by_itself(backends: Backends) -> tuple[Issued, ...]:
    return (issue(hosts(NAME)),)


def of_a_strange_ca(backends: Backends) -> tuple[Issued, ...]:
    return (issue(hosts(NAME), backends.strange_ca),)


def of_a_strange_ca_that_it_sends(backends: Backends) -> tuple[Issued, ...]:
    return (issue(hosts(NAME), backends.strange_ca), backends.strange_ca)


def of_an_intermediate(backends: Backends) -> tuple[Issued, ...]:
    intermediate = issue(None, backends.ca, ca=True, common_name="Intermediate")
    return (issue(hosts(NAME), intermediate), intermediate)


def of_an_intermediate_that_it_keeps_to_itself(backends: Backends) -> tuple[Issued, ...]:
    return of_an_intermediate(backends)[:1]


def of_an_expired_intermediate(backends: Backends) -> tuple[Issued, ...]:
    intermediate = issue(None, backends.ca, ca=True, common_name="Intermediate", valid=EXPIRED)
    return (issue(hosts(NAME), intermediate), intermediate)


def of_one_that_is_no_ca(backends: Backends) -> tuple[Issued, ...]:
    neighbour = issue(hosts("neighbour.example.org"), backends.ca, common_name="neighbour")
    return (issue(hosts(NAME), neighbour), neighbour)


def with_a_forged_signature(backends: Backends) -> tuple[Issued, ...]:
    forger = replace(backends.ca, key=issue().key)
    return (issue(hosts(NAME), forger),)


MATRIX: list[tuple[str, Make, str, str | None]] = [
    ("good", by_ca(NAME), NAME, None),
    ("one of several names", by_ca("a.example", NAME), NAME, None),
    ("the name in capitals", by_ca("LEGACY.example.ORG"), NAME, None),
    ("asked for in capitals", by_ca(NAME), "Legacy.Example.ORG", None),
    ("asked for with a trailing dot", by_ca(NAME), NAME + ".", None),
    ("asked for by its Unicode name", by_ca("xn--bcher-kva.example"), "bücher.example", None),
    ("no extended key usage", by_ca(NAME, usage=None), NAME, None),
    ("with its intermediate", of_an_intermediate, NAME, None),
    ("a URI with a port beside the name", by_ca(NAME, x509.UniformResourceIdentifier("ldap://x:389/")), NAME, None),
    ("wrong name", by_ca("other.example"), NAME, f"certificate is for other.example, not {NAME}"),
    ("a longer name", by_ca("x." + NAME), NAME, f"certificate is for x.{NAME}, not {NAME}"),
    (
        "many wrong names",
        by_ca("a.example", "b.example", "c.example", "d.example", "e.example"),
        NAME,
        f"certificate is for a.example, b.example, c.example and 2 more, not {NAME}",
    ),
    ("no subjectAltName", named_only_by_common_name, NAME, "certificate has no subjectAltName"),
    ("names of no host", by_ca(x509.RFC822Name("a@b.example")), NAME, f"certificate is for no host, not {NAME}"),
    ("expired", valid(EXPIRED), NAME, f"certificate expired on {EXPIRED[1].date()}"),
    ("not yet valid", valid(TO_COME), NAME, f"certificate is not valid before {TO_COME[0].date()}"),
    ("self-signed", signed_by_itself, NAME, "self-signed certificate, sha256:*"),
    (
        "unknown CA",
        of_a_strange_ca,
        NAME,
        "unknown CA, or the backend does not send its certificate: CN=Strange CA",
    ),
    ("unknown CA, sent", of_a_strange_ca_that_it_sends, NAME, "unknown CA: CN=Strange CA"),
    (
        "without its intermediate",
        of_an_intermediate_that_it_keeps_to_itself,
        NAME,
        "unknown CA, or the backend does not send its certificate: CN=Intermediate",
    ),
    (
        "expired intermediate",
        of_an_expired_intermediate,
        NAME,
        f"an issuer's certificate expired on {EXPIRED[1].date()}",
    ),
    ("issued by no CA", of_one_that_is_no_ca, NAME, "issued by one that is no CA: CN=neighbour"),
    (
        "forged signature",
        with_a_forged_signature,
        NAME,
        "certificate is not signed by whom it names: CN=Trusted CA",
    ),
    (
        "for clients only",
        by_ca(NAME, usage=ExtendedKeyUsageOID.CLIENT_AUTH),
        NAME,
        "not a server certificate (its key usage says so)",
    ),
    ("right address", by_ca(address("10.0.0.5")), "10.0.0.5", None),
    ("right IPv6 address, otherwise spelt", by_ca(address("2001:db8::5")), "2001:DB8:0::5", None),
    ("wrong address", by_ca(address("10.0.0.6")), "10.0.0.5", "certificate is for 10.0.0.6, not 10.0.0.5"),
    ("an address as a host name", by_ca("10.0.0.5"), "10.0.0.5", "certificate is for 10.0.0.5, not 10.0.0.5"),
    ("an address as host name and address", by_ca("10.0.0.5", address("10.0.0.5")), "10.0.0.5", None),
    ("a wildcard for an address", by_ca("*.0.0.5"), "10.0.0.5", "certificate is for *.0.0.5, not 10.0.0.5"),
    ("wildcard", by_ca("*.example.org"), NAME, None),
    (
        "wildcard for two labels",
        by_ca("*.example.org"),
        "a.b.example.org",
        "certificate is for *.example.org, not a.b.example.org",
    ),
    ("wildcard for none", by_ca("*.example.org"), "example.org", "certificate is for *.example.org, not example.org"),
    ("wildcard for a whole domain", by_ca("*.org"), "example.org", "certificate is for *.org, not example.org"),
    ("wildcard for all", by_ca("*"), "localhost", "certificate is for *, not localhost"),
    ("wildcard in the middle", by_ca("legacy.*.org"), NAME, f"certificate is for legacy.*.org, not {NAME}"),
    ("wildcard in a label", by_ca("leg*.example.org"), NAME, f"certificate is for leg*.example.org, not {NAME}"),
    ("two wildcards", by_ca("*.*.org"), NAME, f"certificate is for *.*.org, not {NAME}"),
    (
        "wildcard for an A-label",
        by_ca("*.example.org"),
        "xn--bcher-kva.example.org",
        "certificate is for *.example.org, not xn--bcher-kva.example.org",
    ),
    (
        "a name with NUL",
        by_ca(f"{NAME}\0.evil.example"),
        NAME,
        f"certificate is for {NAME}\\x00.evil.example, not {NAME}",
    ),
    ("a name with escapes", by_ca("\x1b[2Jevil\r\n"), NAME, f"certificate is for \\x1b[2Jevil\\r\\n, not {NAME}"),
    ("a name without end", by_ca("a" * 5000), NAME, f"certificate is for {'a' * 100}..., not {NAME}"),
]


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(("make", "name", "refusal"), [row[1:] for row in MATRIX], ids=[row[0] for row in MATRIX])
def test_only_the_right_certificates_pass(
    backends: Backends, make: Make, name: str, refusal: str | None, newest: ssl.TLSVersion
) -> None:
    leaf, *chain = make(backends)
    outcome = meet(backends.server(leaf, *chain, version=newest), backends.wanted(name))
    if refusal is not None and refusal.endswith("*"):
        refusal = refusal[:-1] + leaf.pin
    assert outcome.refusal == refusal
    # A backend that was refused heard an alert and nothing else.
    assert (outcome.alert is not None) == (refusal is not None)


@pytest.mark.parametrize("make", [row[1] for row in MATRIX], ids=[row[0] for row in MATRIX])
def test_without_verification_anybody_passes(backends: Backends, make: Make) -> None:
    leaf, *chain = make(backends)
    assert meet(backends.server(leaf, *chain), backends.wanted(verify="no")).refusal is None


@pytest.mark.parametrize("make", [row[1] for row in MATRIX], ids=[row[0] for row in MATRIX])
def test_a_pinned_certificate_passes_whatever_is_wrong_with_it(backends: Backends, make: Make) -> None:
    leaf, *chain = make(backends)
    server = backends.server(leaf, *chain)
    assert meet(server, backends.wanted(verify=f"sha256:{leaf.pin}")).refusal is None
    colons = ":".join(leaf.pin.upper()[at : at + 2] for at in range(0, 64, 2))
    assert meet(server, backends.wanted(verify=f"sha256:{colons}")).refusal is None


@pytest.mark.parametrize("make", [by_ca(NAME), signed_by_itself, of_an_intermediate, valid(EXPIRED)])
def test_no_other_certificate_passes_a_pin(backends: Backends, make: Make) -> None:
    leaf, *chain = make(backends)
    server = backends.server(leaf, *chain)
    for pinned in (issue(hosts(NAME), backends.ca), backends.ca, *chain):
        outcome = meet(server, backends.wanted(verify=f"sha256:{pinned.pin}"))
        assert outcome.refusal == f"pin does not match: sha256:{leaf.pin}"


def test_whatever_is_in_the_file_of_authorities_is_an_anchor(backends: Backends) -> None:
    leaf, intermediate = of_an_intermediate(backends)
    for sent, anchor in (
        ((issue(hosts(NAME)),), None),
        (by_ca(NAME)(backends), None),
        ((leaf,), leaf),
        ((leaf,), intermediate),
        ((leaf, intermediate), intermediate),
    ):
        wanted = TLSClientOptions(NAME, ca=backends.file("anchor.pem", (anchor or sent[0]).pem()))
        server = backends.server(*sent)
        assert meet(server, wanted).refusal is None
        wrong = meet(server, replace(wanted, name="other.example"))
        assert wrong.refusal == f"certificate is for {NAME}, not other.example"
    expired = issue(hosts(NAME), valid=EXPIRED)
    wanted = TLSClientOptions(NAME, ca=backends.file("anchor.pem", expired.pem()))
    assert meet(backends.server(expired), wanted).refusal == f"certificate expired on {EXPIRED[1].date()}"


def test_the_systems_authorities_do_not_know_a_private_one(backends: Backends) -> None:
    outcome = meet(backends.server(*by_ca(NAME)(backends)), TLSClientOptions(NAME))
    assert outcome.refusal is not None
    assert outcome.refusal.startswith("unknown CA")


def test_a_given_authority_is_trusted_alone(backends: Backends, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's, whatever they are, count no more."""
    monkeypatch.setenv("SSL_CERT_FILE", str(backends.anchors))
    server = backends.server(*by_ca(NAME)(backends))
    assert meet(server, TLSClientOptions(NAME)).refusal is None
    wanted = TLSClientOptions(NAME, ca=backends.file("strange.pem", backends.strange_ca.pem()))
    assert meet(server, wanted).refusal is not None


def test_one_context_serves_the_names_of_all_addresses_of_a_backend(backends: Backends) -> None:
    wanted = backends.wanted()
    context = client_context(wanted)
    server = backends.server(*by_ca("b.example.org")(backends))
    assert meet(server, wanted, context).refusal is not None
    assert meet(server, replace(wanted, name="b.example.org"), context).refusal is None
    assert meet(server, wanted, context).refusal is not None


# --- failing closed ------------------------------------------------------------------------------


def test_a_fault_in_the_check_refuses(backends: Backends) -> None:
    class Faulty:
        def objection(self, *_: object) -> str | None:
            raise ZeroDivisionError

    connection = connecting(client_context(backends.wanted()), backends.wanted())
    connection.set_app_data(Faulty())
    outcome = handshake(connection, backends.server(*by_ca(NAME)(backends)))
    assert outcome == "certificate cannot be checked (ZeroDivisionError)"


def test_a_connection_that_nobody_gave_a_check_is_refused(backends: Backends) -> None:
    for verify in ("yes", "no", "sha256:" + "0" * 64):
        connection = SSL.Connection(client_context(backends.wanted(verify=verify)), None)
        connection.set_connect_state()
        outcome = handshake(connection, backends.server(*by_ca(NAME)(backends)))
        assert outcome == "certificate cannot be checked (AttributeError)"


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"\x30\x03\x82\x01\xff", id="a host that is not ASCII"),
        pytest.param(b"\x30\x07\xa5\x05\xa1\x03\x0c\x01A", id="an ediPartyName"),
    ],
)
def test_a_subject_alt_name_beyond_reading_is_a_refusal_and_no_crash(backends: Backends, octets: bytes) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    kind = x509.oid.ExtensionOID.SUBJECT_ALTERNATIVE_NAME
    builder = (
        x509.CertificateBuilder()
        .subject_name(backends.strange_ca.certificate.subject)
        .issuer_name(backends.ca.certificate.subject)
        .public_key(key.public_key())
        .serial_number(77)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.UnrecognizedExtension(kind, octets), critical=False)
    )
    broken = Issued(builder.sign(backends.ca.key, hashes.SHA256()), key)
    refusal = meet(backends.server(broken), backends.wanted()).refusal
    assert refusal is not None
    assert refusal.startswith("certificate cannot be checked (")
    assert meet(backends.server(broken), backends.wanted(verify="no")).refusal is None
    pinned = meet(backends.server(broken), backends.wanted(verify=f"sha256:{broken.pin}"))
    assert pinned.refusal is None
    facts = peer_certificate(pinned.connection)
    assert facts is not None
    assert facts.names == ()
    assert facts.sha256 == broken.pin


def test_one_refusal_says_nothing_about_the_next_connection(backends: Backends) -> None:
    context = client_context(backends.wanted())
    bad, good = backends.server(*by_ca("other.example")(backends)), backends.server(*by_ca(NAME)(backends))
    for _ in range(3):
        assert meet(bad, backends.wanted(), context).refusal is not None
        assert meet(good, backends.wanted(), context).refusal is None


def handshake(connection: SSL.Connection, server: ssl.SSLContext) -> str | None:
    """The reason why it failed."""
    half, peer = TLSHalf(connection), Peer(server, server=True)
    half.start()
    try:
        for _ in range(5):
            half.feed(peer.feed(half.outgoing()))
    except TLSError as error:
        return error.reason
    return None


def test_unusual_complaints_have_openssls_words(backends: Backends) -> None:
    connection = connecting(client_context(backends.wanted()), backends.wanted())
    certificate = crypto.X509.from_cryptography(backends.ca.certificate)
    for error, words in (
        (23, "certificate refused: cert revoked"),
        (9999, "certificate refused: X509 error 9999"),
        (66, "certificate has a key that is too small"),
        (47, "certificate has a name that its issuer may not certify"),
        (0, "certificate refused: X509 error 0"),
    ):
        with pytest.raises(SSL.Error) as caught:
            judge(connection, certificate, error, 0, 0)
        assert caught.value.args[0][0][2] == words


class Listener:
    """An owner of a leg that writes down what the session is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def leg_secured(self, leg: Leg, facts: Secured) -> None:
        self.said.append("secured")

    def leg_tls_failed(self, leg: Leg, reason: str) -> None:
        self.said.append(reason)

    def leg_ended(self, leg: Leg, end: End) -> None:
        self.said.append(end.value)

    def leg_pressed(self, leg: Leg, full: bool) -> None:
        raise AssertionError("a handshake fills nothing")

    def leg_closed(self, leg: Leg) -> None:
        self.said.append("closed")


def test_the_session_is_told_why_and_the_backend_hears_no_plaintext(
    backends: Backends, reactor: SteppedReactor
) -> None:
    near, far = tcp_pair()
    owner = Listener()
    leg = Leg(reactor, near, owner)
    peer = Peer(backends.server(*by_ca("other.example")(backends)), server=True)
    leg.start()
    leg.start_tls(TLSHalf(connecting(client_context(backends.wanted()), backends.wanted())))
    leg.write(b"AUTH PLAIN AGRlbW8AZGVtbw==\r\n")

    def told() -> bool:
        with suppress(BlockingIOError), suppress(ssl.SSLError):
            far.sendall(peer.feed(far.recv(65536)))
        return bool(owner.said)

    reactor.step_until(told)
    assert owner.said == [f"certificate is for other.example, not {NAME}"]
    with suppress(BlockingIOError), suppress(ssl.SSLError):
        peer.feed(far.recv(65536))
    assert peer.heard == b""
    far.close()
    reactor.step_until(lambda: owner.said[-1] == "closed")


# --- the name that is said -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sni", "said"),
    [
        (NAME, None, NAME),
        (NAME + ".", None, NAME),
        ("LEGACY.example.org", None, NAME),
        ("bücher.example", None, "xn--bcher-kva.example"),
        ("10.0.0.5", None, None),
        ("2001:db8::5", None, None),
        ("10.0.0.5", "other.example", "other.example"),
        (NAME, "other.example.", "other.example"),
        (NAME, "", None),
        ("", None, None),
        (NAME, "10.0.0.5", None),
    ],
)
def test_the_client_hello_names_the_backend(backends: Backends, name: str, sni: str | None, said: str | None) -> None:
    outcome = meet(backends.server(*by_ca(NAME)(backends)), TLSClientOptions(name, "no", sni=sni))
    assert outcome.refusal is None
    assert outcome.sni == said


# --- what a report tells -------------------------------------------------------------------------


def test_a_report_names_the_certificate(backends: Backends) -> None:
    (leaf,) = by_ca(NAME, address("10.0.0.5"), "*.org")(backends)
    outcome = meet(backends.server(leaf), backends.wanted())
    assert peer_certificate(outcome.connection) == PeerCertificate(
        names=(NAME, "10.0.0.5", "*.org"), not_after=leaf.certificate.not_valid_after_utc, sha256=leaf.pin
    )


def test_before_the_handshake_there_is_nothing_to_report(backends: Backends) -> None:
    assert peer_certificate(connecting(client_context(backends.wanted()), backends.wanted())) is None


# --- profiles ---------------------------------------------------------------------


def small_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 1024)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_for_the_legacy_profile_alone(backends: Backends, version: ssl.TLSVersion) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        server = backends.server(*by_ca(NAME)(backends), version=version)
    assert meet(server, backends.wanted()).refusal == "alert: protocol_version"
    old = meet(server, replace(backends.wanted(), profile="legacy"))
    assert old.refusal is None
    assert old.half.secured is not None
    assert old.half.secured.version == ("TLSv1" if version is ssl.TLSVersion.TLSv1 else "TLSv1.1")
    # The profile lowers what TLS can do, not who is believed.
    wrong = meet(server, replace(backends.wanted("other.example"), profile="legacy"))
    assert wrong.refusal == f"certificate is for {NAME}, not other.example"


def test_a_small_key_is_for_the_legacy_profile_alone(backends: Backends) -> None:
    leaf = issue(hosts(NAME), backends.ca, key=small_key())
    server = backends.server(leaf)
    assert meet(server, backends.wanted()).refusal == "certificate has a key that is too small"
    assert meet(server, replace(backends.wanted(), profile="legacy")).refusal is None


def test_an_issuer_with_a_small_key_is_for_the_legacy_profile_alone(backends: Backends) -> None:
    small = issue(ca=True, common_name="Small CA", key=small_key())
    server = backends.server(issue(hosts(NAME), small))
    wanted = TLSClientOptions(NAME, ca=backends.file("small.pem", small.pem()))
    assert meet(server, wanted).refusal == "an issuer's certificate has a key that is too small"
    assert meet(server, replace(wanted, profile="legacy")).refusal is None


def test_a_broken_hash_is_for_the_legacy_profile_alone(backends: Backends) -> None:
    key = rsa.generate_private_key(65537, 2048)
    ca = issue(ca=True, common_name="Old CA", key=key)
    leaf = with_sha1(issue(hosts(NAME), ca), key)
    server = backends.server(leaf)
    wanted = TLSClientOptions(NAME, ca=backends.file("old.pem", ca.pem()))
    assert meet(server, wanted).refusal == "certificate is signed with a broken hash (sha1WithRSAEncryption)"
    assert meet(server, replace(wanted, profile="legacy")).refusal is None


def test_a_pin_takes_a_small_key_and_a_broken_hash(backends: Backends) -> None:
    key = small_key()
    leaf = with_sha1(issue(hosts(NAME), key=key), key)
    assert meet(backends.server(leaf), backends.wanted(verify=f"sha256:{leaf.pin}")).refusal is None


@pytest.mark.parametrize("verify", ["yes", "no", "sha256:" + "0" * 64])
@pytest.mark.parametrize("profile", ["intermediate", "legacy"])
def test_a_server_without_a_certificate_is_nobody(backends: Backends, verify: str, profile: str) -> None:
    """Suites without a certificate would have nothing to verify."""
    server = backends.server(*by_ca(NAME)(backends), version=ssl.TLSVersion.TLSv1_2, ciphers="aNULL:@SECLEVEL=0")
    wanted = replace(backends.wanted(verify=verify), profile=profile)
    refusal = meet(server, wanted).refusal
    assert refusal is not None
    assert "handshake" in refusal


def test_an_old_backend_gets_a_client_hello_of_one_segment(backends: Backends) -> None:
    for profile, large in (("intermediate", True), ("legacy", False)):
        wanted = replace(backends.wanted(), profile=profile)
        half = TLSHalf(connecting(client_context(wanted), wanted))
        half.start()
        assert (len(half.outgoing()) > 1200) is large


def test_a_backend_without_rfc_5746_is_for_the_legacy_profile_alone(backends: Backends) -> None:
    """As a man in the middle would, we cut renegotiation_info out of its ServerHello: who accepts that goes on."""
    server = backends.server(*by_ca(NAME)(backends), version=ssl.TLSVersion.TLSv1_2)
    reasons = []
    for profile in ("intermediate", "legacy"):
        wanted = replace(backends.wanted(), profile=profile)
        half, peer = TLSHalf(connecting(client_context(wanted), wanted)), Peer(server, server=True)
        half.start()
        hello = peer.feed(half.outgoing())
        try:
            half.feed(without_renegotiation_info(hello))
            peer.feed(half.outgoing())
        except (TLSError, ssl.SSLError) as error:
            reasons.append(error.reason)
    # Where the client goes on it is the server that notices, by the hash of the handshake.
    assert reasons[0] == "unsafe legacy renegotiation disabled"
    assert reasons[1] != reasons[0]
    assert "DECRYPT" in reasons[1] or "DIGEST" in reasons[1]


def without_renegotiation_info(flight: bytes) -> bytes:
    """The flight of a TLS 1.2 server whose first record holds the ServerHello alone."""
    record = int.from_bytes(flight[3:5], "big")
    hello, rest = flight[9 : 5 + record], flight[5 + record :]
    at = 34 + 1 + hello[34] + 3
    extensions = hello[at + 2 :].replace(b"\xff\x01\x00\x01\x00", b"", 1)
    assert len(extensions) == len(hello) - at - 2 - 5
    body = hello[:at] + len(extensions).to_bytes(2, "big") + extensions
    message = b"\x02" + len(body).to_bytes(3, "big") + body
    return flight[:3] + len(message).to_bytes(2, "big") + message + rest


# --- what the operator wrote ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        (TLSClientOptions(NAME, "maybe"), "verify: 'maybe' is none of yes, no, sha256:HEX"),
        (TLSClientOptions(NAME, "sha256:"), "verify: sha256: wants 64 hexadecimal digits"),
        (TLSClientOptions(NAME, "sha256:" + "0" * 62), "verify: sha256: wants 64 hexadecimal digits"),
        (TLSClientOptions(NAME, "sha256:" + "0" * 66), "verify: sha256: wants 64 hexadecimal digits"),
        (TLSClientOptions(NAME, "sha256:" + "g" * 64), "verify: sha256: wants 64 hexadecimal digits"),
        (TLSClientOptions(NAME, "sha256:" + "00 " * 32), "verify: sha256: wants 64 hexadecimal digits"),
        (TLSClientOptions(""), "name: '' is neither a host name nor an IP address"),
        (TLSClientOptions("two words"), "name: 'two words' is neither a host name nor an IP address"),
        (TLSClientOptions("*.example.org"), "name: '*.example.org' is neither"),
        (TLSClientOptions("a." * 128), "name: 'a.a."),
        (TLSClientOptions("a" * 70 + "ü.example"), "name: '"),
        (TLSClientOptions(NAME, "no", sni="two words"), "name: 'two words' is neither"),
        (TLSClientOptions(NAME, profile="modern"), "profile: 'modern' is none of intermediate, legacy"),
    ],
)
def test_what_means_nothing_is_refused_at_the_start(wanted: TLSClientOptions, complaint: str) -> None:
    with pytest.raises(CertificateError) as caught:
        client_context(wanted)
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)


def test_a_file_of_authorities_that_cannot_be_used_is_named(backends: Backends) -> None:
    pem = backends.ca.pem()
    for content, complaint in (
        (None, "no such file"),
        (b"", "no certificate in this file"),
        (backends.ca.certificate.public_bytes(Encoding.DER), "no certificate in this file"),
        (pem[:200] + b"\n-----END CERTIFICATE-----\n", "damaged"),
        (pem + pem[:200] + b"\n-----END CERTIFICATE-----\n", "damaged"),
    ):
        path = backends.directory / "broken.pem"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(CertificateError) as caught:
            client_context(TLSClientOptions(NAME, ca=path))
        assert str(caught.value).startswith(f"{path}: ")
        assert complaint in str(caught.value)
        assert "\n" not in str(caught.value)


def test_files_of_several_authorities_are_read_whole(backends: Backends) -> None:
    both = backends.file("both.pem", backends.strange_ca.pem() + backends.ca.pem())
    for make in (by_ca(NAME), of_a_strange_ca):
        assert meet(backends.server(*make(backends)), TLSClientOptions(NAME, ca=both)).refusal is None
