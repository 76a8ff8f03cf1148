"""Who is shown which certificate, and who may speak which TLS."""

from __future__ import annotations

import gc
import secrets
import sys
import tracemalloc
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL

from gateway.config.values import TLS
from gateway.protocol.vocabulary import ClientCertificate
from gateway.wire.tls.certificates import CertificateError, load
from gateway.wire.tls.half import TLSError
from gateway.wire.tls.renewal import Renewal
from gateway.wire.tls.server import find, grouped
from tests.memory.issuing import (
    DAY,
    NOW,
    RSA,
    Client,
    Office,
    by_hand,
    client_context,
    dns,
    serial,
    serving,
    shown,
    silent,
    talk,
    visit,
)  # fmt: skip

TLS12, TLS13 = SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION
ONLY_RSA = b"RSA-PSS+SHA256:RSA+SHA256"
ONLY_ECDSA = b"ECDSA+SHA256:ECDSA+SHA384"


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Office:
    return Office(tmp_path_factory.mktemp("office"))


# --- selection -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "which"),
    [
        ("mail.example.test", 0),
        ("imap.example.org", 1),
        ("IMAP.Example.ORG", 1),
        ("imap.example.org.", 1),
        ("other.example.org", 2),
        ("*.example.org", 2),
        ("deep.other.example.org", 0),
        ("example.org", 0),
        ("named.example.com", 0),
        ("elsewhere.example.com", 3),
        ("nobody.example.net", 0),
        ("192.0.2.1", 0),
        (None, 0),
        ("a", 0),
        (".", 0),
        (".example.org", 0),
        ("x" * 63 + ".example.org", 2),
        ("xn--bcher-kva.example.org", 2),
        ("<script>.example.org", 2),
        ("x." * 127, 0),
    ],
)
def test_the_certificate_is_the_one_for_the_name(office: Office, name: str | None, which: int) -> None:
    pairs = (
        # An exact name of the first one beats another's wildcard.
        office.pair("mail.example.test", "named.example.com", file="first"),
        office.pair("imap.example.org", "192.0.2.1", file="exact"),
        office.pair("*.example.org", "*.Example.NET.invalid", file="wild"),
        office.pair("*.example.com", file="com"),
    )
    assert shown(serving(*pairs), name) == serial(pairs[which])


def test_names_in_octets_beyond_ascii_are_unknown_names(office: Office) -> None:
    pairs = office.pair("mail.example.test", file="plain"), office.pair("b.example.test", file="b")
    server, client = serving(*pairs), Client(client_context(), None)
    client.connection.set_tlsext_host_name(b"\xc3\xbc.\xff\x01.example.test")
    assert talk(server.accept(""), client) == ""
    assert client.certificate.serial_number == serial(pairs[0])


@pytest.mark.parametrize(("sni", "which"), [(None, 1), ("mail.example.test", 0), ("b.example.test", 1)])
def test_a_name_that_was_asked_for_before_tls_counts_where_there_is_no_sni(
    office: Office, sni: str | None, which: int
) -> None:
    pairs = office.pair("mail.example.test", file="plain"), office.pair("b.example.test", file="b")
    server, client = serving(*pairs), Client(client_context(), sni)
    assert talk(server.accept("", b"B.example.test"), client) == ""
    assert client.certificate.serial_number == serial(pairs[which])


def test_what_cannot_be_a_name_ends_the_handshake_or_gets_the_first_certificate(office: Office) -> None:
    pairs = office.pair("mail.example.test", file="plain"), office.pair("b.example.test", file="b")
    server = serving(*pairs)
    begin = Client(client_context(), "b.example.test").feed(b"")
    for name in (b"b.ex\0mple.test", b"\0" * 14, b"\r\n" * 7):
        half = server.accept("")
        hello = begin.replace(b"b.example.test", name)
        with suppress(TLSError):
            half.feed(hello)
        assert half.outgoing()


@pytest.mark.parametrize("version", [TLS12, TLS13])
@pytest.mark.parametrize("order", [0, 1])
def test_rsa_and_ecdsa_of_one_name_serve_clients_of_either_kind(office: Office, version: int, order: int) -> None:
    both = (office.pair("mail.example.test", file="ec"), office.pair("mail.example.test", file="rsa", kind=RSA))
    other = office.pair("other.example.test", file="other")
    for pairs, name in (
        ((both[order], both[1 - order]), None),
        ((both[order], both[1 - order]), "mail.example.test"),
        ((other, both[order], both[1 - order]), "mail.example.test"),
    ):
        server = serving(*pairs)
        assert shown(server, name, client_context(maximum=version, sigalgs=ONLY_ECDSA)) == serial(both[0])
        assert shown(server, name, client_context(maximum=version, sigalgs=ONLY_RSA)) == serial(both[1])
        # What is quicker for everybody.
        assert shown(server, name, client_context(maximum=version)) == serial(both[0])


def test_each_of_two_certificates_keeps_a_chain_of_its_own(directory: Path) -> None:
    root = trustme.CA()
    one, two = Office(directory, root.create_child_ca()), Office(directory, root.create_child_ca())
    server = serving(one.pair("mail.example.test", file="ec"), two.pair("mail.example.test", file="rsa", kind=RSA))
    for sigalgs in (ONLY_ECDSA, ONLY_RSA):
        client = visit(server, client_context(sigalgs=sigalgs))
        chain = client.connection.get_peer_cert_chain(as_cryptography=True)
        assert chain is not None
        assert len(chain) == 2
        chain[0].verify_directly_issued_by(chain[1])


def test_a_partner_serves_the_names_that_it_has(office: Office) -> None:
    ec = office.pair("a.example.test", "b.example.test", file="ec")
    rsa_a = office.pair("a.example.test", file="a", kind=RSA)
    rsa_b = office.pair("b.example.test", "c.example.test", file="b", kind=RSA)
    server, old = serving(ec, rsa_a, rsa_b), client_context(sigalgs=ONLY_RSA)
    assert shown(server, "a.example.test", old) == serial(rsa_a)
    assert shown(server, "b.example.test", old) == serial(rsa_b)
    assert shown(server, "b.example.test") == serial(ec)
    assert shown(server, "c.example.test") == serial(rsa_b)


def test_a_certificate_without_names_is_served_where_no_name_fits(directory: Path, office: Office) -> None:
    nameless = by_hand(directory / "nameless.pem", rsa.generate_private_key(65537, 2048))
    named = office.pair("mail.example.test")
    assert shown(serving(nameless, named), "nobody.example.test") == 1
    assert shown(serving(nameless, named)) == serial(named)


def test_an_exception_while_choosing_kills_the_handshake(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    server = serving(office.pair("mail.example.test", file="a"), office.pair("b.example.test", file="b"))
    monkeypatch.setattr("gateway.wire.tls.server.find", fail)
    monkeypatch.setattr(sys, "excepthook", lambda *_: None)
    half, client = server.accept(""), Client(client_context())
    assert talk(half, client)
    assert half.secured is None
    assert not client.shaken
    assert client.failure


def test_a_hundred_thousand_names_leave_nothing_behind(office: Office) -> None:
    pairs = office.pair("mail.example.test", "*.example.test", file="a"), office.pair("*.example.org", file="b")
    server = serving(*pairs)
    others = {b"mail.example.test": None, b"*.example.org": client_context()}
    context = client_context()

    def strangers(handshakes: int, lookups: int) -> None:
        for _ in range(handshakes):
            server.accept("").feed(Client(context, f"{secrets.token_hex(8)}.example.org").feed(b""))
        for _ in range(lookups):
            find(others, secrets.token_bytes(40) + b".example.org")

    strangers(50, 100)
    gc.collect()
    tracemalloc.start()
    try:
        strangers(50, 100)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        strangers(500, 99_500)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 50_000
    finally:
        tracemalloc.stop()


def test_groups_are_shared_by_the_names_that_have_the_same_certificates(office: Office) -> None:
    one = load(office.pair("a.example.test", "b.example.test", file="one"))
    two = load(office.pair("c.example.test", "d.example.test", file="two"))
    default, by_name = grouped([one, two])
    assert default is by_name[b"a.example.test"] is by_name[b"b.example.test"]
    assert by_name[b"c.example.test"] is by_name[b"d.example.test"]


# --- contexts that outlive their snapshot --------------------------------------------------------


@pytest.mark.parametrize("retry", [False, True])
def test_a_handshake_that_is_half_done_survives_a_swap(directory: Path, retry: bool) -> None:
    """With a HelloRetryRequest OpenSSL calls the SNI callback of contexts that nobody else has any more."""
    office = Office(directory)
    renewal = Renewal(silent)
    office.pair("first.example.test", file="first")
    old = office.pair("mail.example.test", file="mail")
    values = TLS((office.pair("first.example.test", file="first"), old))
    server = renewal.serve(values, (b"imap",))
    before = serial(old)
    half = server.accept("")
    context = client_context(minimum=TLS13, groups=b"P-521:P-256" if retry else b"X25519")

    def swap() -> None:
        office.pair("first.example.test", file="first")
        office.pair("mail.example.test", file="mail")
        renewal.look()
        gc.collect()
        for _ in range(20):
            serving(old)  # what would take the place of freed callbacks

    client = Client(context)
    assert talk(half, client, swap) == ""
    assert client.shaken
    assert client.certificate.serial_number == before
    assert shown(server) == serial(old) != before


# --- profiles ------------------------------------------------------------------------------------

OLD = b"DEFAULT:@SECLEVEL=0"
LOCAL = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))


def test_modern_is_tls_1_3_and_nothing_else(office: Office) -> None:
    server = serving(office.pair("mail.example.test"), profile="modern")
    assert visit(server, client_context()).connection.get_protocol_version_name() == "TLSv1.3"
    client = Client(client_context(maximum=TLS12))
    assert "unsupported protocol" in talk(server.accept(""), client)
    assert "protocol version" in client.failure


@pytest.mark.parametrize("version", [SSL.TLS1_VERSION, SSL.TLS1_1_VERSION])
@pytest.mark.parametrize("client", ["10.1.2.3", "2001:db8::1"])
@pytest.mark.parametrize("key", ["ec", "rsa"])
def test_old_clients_are_served_where_they_are_known_and_nowhere_else(
    office: Office, version: int, client: str, key: str
) -> None:
    pair = office.pair("mail.example.test", kind=RSA) if key == "rsa" else office.pair("mail.example.test")
    server = serving(pair, profile="legacy", legacy_clients=LOCAL)
    old = client_context(minimum=version, maximum=version, ciphers=OLD)
    assert visit(server, old, at=client).connection.get_protocol_version() == version
    for address in ("192.0.2.1", "2001:db9::1", "11.0.0.1", ""):
        stranger = Client(old)
        half = server.accept(address)
        assert "unsupported protocol" in talk(half, stranger)
        assert "protocol version" in stranger.failure  # alert 70
        assert half.secured is None


def test_known_clients_that_can_do_better_do(office: Office) -> None:
    server = serving(office.pair("mail.example.test"), profile="legacy", legacy_clients=LOCAL)
    found = visit(server, client_context(), at="10.0.0.1").connection
    assert found.get_protocol_version_name() == "TLSv1.3"
    found = visit(server, client_context(maximum=TLS12, ciphers=OLD), at="10.0.0.1").connection
    assert "GCM" in (found.get_cipher_name() or "")


@pytest.mark.parametrize(
    ("suite", "known", "anybody"), [(b"ECDHE-RSA-AES128-SHA", True, False), (b"AES128-SHA", True, False),
     (b"ECDHE-RSA-AES128-GCM-SHA256", True, True), (b"AES128-GCM-SHA256", True, False)],
)  # fmt: skip
def test_suites_of_the_past_are_for_known_clients(office: Office, suite: bytes, known: bool, anybody: bool) -> None:
    server = serving(office.pair("mail.example.test", kind=RSA), profile="legacy", legacy_clients=LOCAL)
    context = client_context(maximum=TLS12, ciphers=suite)
    assert (talk(server.accept("10.0.0.1"), Client(context)) == "") is known
    assert (talk(server.accept("192.0.2.1"), Client(context)) == "") is anybody


def test_a_key_of_the_past_is_served_to_known_clients_beside_a_better_one(office: Office, directory: Path) -> None:
    weak = by_hand(directory / "weak.pem", rsa.generate_private_key(65537, 1024), dns("mail.example.test"))
    strong = office.pair("mail.example.test")
    server = serving(weak, strong, profile="legacy", legacy_clients=LOCAL)
    old = client_context(maximum=SSL.TLS1_VERSION, minimum=SSL.TLS1_VERSION, ciphers=b"AES128-SHA:@SECLEVEL=0")
    assert visit(server, old, at="10.0.0.1").certificate.serial_number == 1
    assert shown(server) == serial(strong)
    with pytest.raises(CertificateError, match="2048"):
        serving(weak, strong)
    with pytest.raises(CertificateError, match="2048"):
        serving(weak, profile="legacy", legacy_clients=LOCAL)


def test_renegotiation_is_refused(office: Office) -> None:
    half, client = serving(office.pair("mail.example.test")).accept(""), Client(client_context(maximum=TLS12))
    talk(half, client)
    assert client.connection.renegotiate()
    assert half.feed(client.feed(b"")) == b""
    client.connection.bio_write(half.outgoing())
    with pytest.raises(SSL.Error, match="no renegotiation"):
        client.connection.do_handshake()


# --- tickets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a_session_is_resumed_at_its_own_service_and_at_no_other(office: Office, version: int) -> None:
    renewal = Renewal(silent)
    values = TLS((office.pair("mail.example.test"), office.pair("b.example.test", file="b")))
    imap, pop3 = renewal.serve(values, (b"imap",)), renewal.serve(values, (b"pop3",))
    for name in ("mail.example.test", "b.example.test"):
        context = client_context(maximum=version)
        first = visit(imap, context, name)
        session = first.connection.get_session()
        assert session is not None
        for server, expected in ((imap, True), (pop3, False)):
            again = Client(context, name)
            again.connection.set_session(session)
            assert talk(server.accept(""), again) == ""
            assert again.shaken
            assert again.resumed is expected


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a_known_clients_session_is_nobody_elses(office: Office, version: int) -> None:
    server = serving(office.pair("mail.example.test"), profile="legacy", legacy_clients=LOCAL)
    context = client_context(maximum=version)
    first = visit(server, context, at="10.0.0.1")
    session = first.connection.get_session()
    assert session is not None
    again = Client(context)
    again.connection.set_session(session)
    assert talk(server.accept("192.0.2.1"), again) == ""
    assert not again.resumed


# --- ALPN ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [TLS12, TLS13])
@pytest.mark.parametrize("names", [("mail.example.test",), ("mail.example.test", "b.example.test")])
@pytest.mark.parametrize(
    ("ours", "offered", "agreed"),
    [
        ((b"imap",), [], None),
        ((b"imap",), [b"imap"], "imap"),
        ((b"imap",), [b"http/1.1", b"imap"], "imap"),
        ((b"smtp", b"esmtp"), [b"esmtp"], "esmtp"),
        ((b"smtp", b"esmtp"), [b"esmtp", b"smtp"], "smtp"),
        ((b"imap",), [b"pop3"], None),
        ((b"imap",), [b"IMAP"], None),
        ((b"imap",), [b"\x0a\x0a", b"\xff"], None),
        ((b"imap",), [b"x" * 255], None),
        ((b"imap",), [bytes([65 + n % 26]) * (1 + n) for n in range(100)], None),
        ((b"imap",), [b"http/1.1"], "refused"),
        ((b"imap",), [b"h2"], "refused"),
        ((b"imap",), [b"h3", b"pop3"], "refused"),
        ((b"imap",), [b"ftp", b"http/0.9"], "refused"),
        ((), [b"imap"], None),
        ((), [b"h2", b"http/1.1"], "refused"),
    ],
)
def test_the_protocol_is_agreed_on(
    office: Office, version: int, names: tuple[str, ...], ours: tuple[bytes, ...], offered: list[bytes],
    agreed: str | None,
) -> None:  # fmt: skip
    server = serving(*(office.pair(name, file=f"alpn-{name}") for name in names), alpn=ours)
    half, client = server.accept(""), Client(client_context(maximum=version, alpn=offered), names[-1])
    reason = talk(half, client)
    if agreed == "refused":
        assert reason.startswith("no application protocol in common: ")
        assert "no application protocol" in client.failure  # alert 120
        assert half.secured is None
        # The next one is not told what befell this one.
        half, client = server.accept(""), Client(client_context(maximum=version), names[-1])
        assert talk(half, client) == ""
    else:
        assert reason == ""
        assert half.secured is not None
        assert half.secured.alpn == agreed
        assert client.connection.get_alpn_proto_negotiated().decode() == (agreed or "")


def test_a_refusal_shows_little_of_what_was_offered(office: Office) -> None:
    server = serving(office.pair("mail.example.test"))
    client = Client(client_context(alpn=[b"h2", b"\r\n" + b"x" * 200, b"\xff", b"more"]))
    assert talk(server.accept(""), client) == ("no application protocol in common: h2, \\r\\n" + "x" * 30 + ", \\xff")


# --- clients' certificates -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Office:
    """Who issues certificates to clients."""
    return Office(tmp_path_factory.mktemp("people"))


def with_certificate(
    context: SSL.Context, issuer: Office, name: str = "alice@example.test", expired: bool = False
) -> None:
    issued = issuer.ca.issue_cert(
        name, common_name="alice", not_before=NOW - 9 * DAY, not_after=NOW + (-DAY if expired else DAY)
    )
    issued.private_key_and_cert_chain_pem.write_to_path(str(issuer.directory / "client.pem"))
    context.use_certificate_chain_file(str(issuer.directory / "client.pem"))
    context.use_privatekey_file(str(issuer.directory / "client.pem"))


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("version", [TLS12, TLS13])
@pytest.mark.parametrize("wanted", ["none", "request", "require"])
@pytest.mark.parametrize("shows", ["nothing", "valid", "foreign", "expired", "valid through an intermediate"])
def test_clients_certificates(
    office: Office, people: Office, directory: Path, wanted: str, shows: str, version: int, second: bool
) -> None:
    """`second`: the name leads to the second context."""
    context = client_context(maximum=version)
    match shows:
        case "valid" | "expired":
            with_certificate(context, people, expired=shows == "expired")
        case "foreign":
            with_certificate(context, Office(directory))
        case "valid through an intermediate":
            with_certificate(context, Office(directory, people.ca.create_child_ca()))
    pairs = office.pair("mail.example.test", file="m1"), office.pair("b.example.test", file="m2")
    server = serving(*pairs, client_certificate=wanted, client_ca=people.authority() if wanted != "none" else None)
    name = "b.example.test" if second else "mail.example.test"
    session, kept = None, []  # OpenSSL forgets the session of a connection that is gone without goodbye
    for _ in range(2):
        half, client = server.accept(""), Client(context, name)
        if session is not None:
            client.connection.set_session(session)
        reason = talk(half, client)
        valid = shows.startswith("valid")
        if wanted == "require" and not valid:
            assert half.secured is None
            assert (
                reason
                == {
                    "nothing": "peer did not return a certificate",
                    "foreign": "client certificate: unknown CA (alice)",
                    "expired": "client certificate: expired (alice)",
                }[shows]
            )
            assert client.failure
            continue
        assert reason == ""
        assert half.secured is not None
        shown_to_us = wanted != "none" and shows != "nothing"
        assert half.secured.certificate == (ClientCertificate(valid, "alice") if shown_to_us else None)
        # Who shows a certificate shows it each time.
        assert client.resumed is (session is not None and wanted == "none")
        session = client.connection.get_session()
        kept.append(client)


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_clients_are_told_whose_certificates_count(office: Office, people: Office, version: int) -> None:
    server = serving(office.pair("mail.example.test"), client_certificate="request", client_ca=people.authority())
    client = visit(server, client_context(maximum=version))
    (name,) = client.connection.get_client_ca_list(as_cryptography=True)
    assert "trustme" in name.rfc4514_string()


def test_a_refused_client_leaves_nothing_to_the_next_one(office: Office, people: Office, directory: Path) -> None:
    pairs = office.pair("mail.example.test", file="m1"), office.pair("b.example.test", file="m2")
    server = serving(*pairs, client_certificate="require", client_ca=people.authority())
    foreign, good = client_context(), client_context()
    with_certificate(foreign, Office(directory))
    with_certificate(good, people)
    for name in ("b.example.test", "mail.example.test"):
        assert talk(server.accept(""), Client(foreign, name))
        for other in ("b.example.test", "mail.example.test"):
            assert talk(server.accept(""), Client(good, other)) == ""
