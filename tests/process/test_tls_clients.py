"""What clients of all kinds agree on with the gateway: versions, groups, protocols, names, their certificates."""

from __future__ import annotations

import itertools
import os
import re
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from OpenSSL import SSL

from gateway.protocol.proxyprotocol import SIGNATURE
from tests.memory.issuing import ECDSA, RSA, Office, client_context
from tests.process.legacy import SERVERS
from tests.process.recording import Backend, Connection
from tests.process.running import DEADLINE, Event, Gateway, Identity, Service, running
from tests.process.wire import RESET_ON_CLOSE
from tests.process.words import WORDS, Words

NAME, OTHER = "mail.example.test", "pop.example.test"
KINDS = [(protocol, mode) for protocol in WORDS for mode in ("starttls", "implicit")]
MODES = ("starttls", "implicit")
KNOWN, STRANGER = "127.0.0.2", "127.0.0.3"
"""Addresses of old clients; `legacy_clients` lists the first."""

FLOOD = 2_000
"""Names in a flood; docs/tls.md tells of 100,000."""
ADDRESSES = 250
"""Where a flood comes from: no more than so many in a minute are taken from one of them."""


class Peer:
    """A client that leaves all of TLS to OpenSSL."""

    def __init__(self, address: tuple[str, int], source: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(address, DEADLINE, (source, 0))
        # pyOpenSSL knows no deadline of Python's.
        self.socket.settimeout(None)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(DEADLINE), 0))
        self.source = source
        self.tls: SSL.Connection | None = None

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def line(self) -> bytes:
        read = self.socket.recv if self.tls is None else self.tls.recv
        octets = b""
        while not octets.endswith(b"\n"):
            more = read(1)
            assert more, octets
            octets += more
        return octets

    def shake_hands(self, context: SSL.Context, name: str | None = NAME) -> None:
        self.tls = SSL.Connection(context, self.socket)
        self.tls.set_connect_state()
        if name is not None:
            self.tls.set_tlsext_host_name(name.encode("ascii"))
        self.tls.do_handshake()

    def leave(self, words: Words, greeted: bool) -> None:
        assert self.tls is not None
        if not greeted:
            self.line()
        self.tls.sendall(words.quit)
        heard = b""
        while not re.search(words.quit_, heard, re.MULTILINE):
            heard += self.line()

    def be_greeted(self, context: SSL.Context) -> None:
        """In TLS 1.3 a client is done with the handshake before its certificate was looked at."""
        self.shake_hands(context)
        self.line()

    @property
    def shown(self) -> x509.Certificate:
        assert self.tls is not None
        found = self.tls.get_peer_certificate(as_cryptography=True)
        assert found is not None
        return found


@dataclass
class Landscape:
    gateway: Gateway
    backends: Mapping[str, Backend]
    people: Office
    """Who issues the certificates that count."""
    directory: Path

    def arrive(self, service: str, mode: str, source: str = "127.0.0.1") -> Peer:
        """To where the ClientHello is expected."""
        peer = Peer(self.gateway.address(service, mode), source)
        if mode == "starttls":
            words = WORDS[service.partition("-")[0]]
            peer.line()
            peer.socket.sendall(words.starttls)
            assert peer.line() == words.go_ahead
        return peer

    def visit(self, service: str, mode: str, context: SSL.Context, source: str = "127.0.0.1") -> Event:
        """The event of a session whose handshake succeeds, and that ends politely."""
        since = self.gateway.log.mark()
        with self.arrive(service, mode, source) as peer:
            peer.shake_hands(context)
            peer.leave(WORDS[service.partition("-")[0]], greeted=mode == "starttls")
        return self.gateway.log.wait("session", since, service=service, client=source)

    def refused(self, service: str, mode: str, context: SSL.Context, source: str = "127.0.0.1") -> str:
        """What the client is told by a handshake that fails."""
        with self.arrive(service, mode, source) as peer, pytest.raises(SSL.Error) as raised:
            peer.be_greeted(context)
        return str(raised.value.args[0][0][2])

    def person(self, authority: trustme.CA, name: str) -> SSL.Context:
        """A client with a certificate."""
        issued = authority.issue_cert("someone@example.test", common_name=name)
        file = self.directory / "someone.pem"
        issued.private_key_and_cert_chain_pem.write_to_path(str(file))
        context = client_context()
        context.use_certificate_chain_file(str(file))
        context.use_privatekey_file(str(file))
        return context


def behind_a_header(connection: Connection) -> None:
    """The usual IMAP server, behind a PROXY header."""
    header = b""
    while len(header) < 16 or len(header) < 16 + int.from_bytes(header[14:16], "big"):
        more = connection.receive()
        if not more:
            return
        header += more
    SERVERS["imap"](None)(connection)


@pytest.fixture(scope="module")
def land(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Landscape]:
    directory = tmp_path_factory.mktemp("clients")
    (directory / "people").mkdir()
    office, people = Office(directory), Office(directory / "people")
    pairs = [office.pair(NAME), office.pair(NAME, file="rsa", kind=RSA), office.pair(OTHER, file="other", kind=ECDSA)]
    asks = {"client_ca": str(people.authority())}
    backends = {protocol: Backend(SERVERS[protocol](None)) for protocol in WORDS}
    backends["told"] = Backend(behind_a_header)
    old = {"profile": "legacy", "legacy_clients": KNOWN}
    services = [
        *(Service(protocol, backends[protocol].address) for protocol in WORDS),
        *(Service(f"{protocol}-old", backends[protocol].address, protocol, options=old) for protocol in WORDS),
        Service("imap-request", "told", "imap", options={"client_certificate": "request", **asks}),
        Service("imap-require", "told", "imap", options={"client_certificate": "require", **asks}),
        Service("imap-modern", backends["imap"].address, "imap", options={"profile": "modern"}),
        Service("imap-flood", "lazy", "imap"),
    ]
    sections = {
        "tls": {
            "certificate": " ".join(str(pair.certificate) for pair in pairs),
            "key": " ".join(str(pair.key) for pair in pairs),
        },
        "backend:told": {"address": backends["told"].address, "identity": "proxy-v2"},
        "backend:lazy": {"address": backends["imap"].address, "connect": "lazy"},
    }
    identity = Identity(pairs[0].certificate, office.authority())
    with running(directory, identity, services, options=sections) as gateway:
        yield Landscape(gateway, backends, people, directory)
    for backend in backends.values():
        backend.close()


# --- groups and versions -------------------------------------------------------------------------


@pytest.mark.parametrize(("protocol", "mode"), KINDS)
def test_a_post_quantum_group_is_agreed_on_with_those_who_know_it(land: Landscape, protocol: str, mode: str) -> None:
    ended = land.visit(protocol, mode, client_context())
    assert (ended["tls"], ended["group"]) == ("TLSv1.3", "X25519MLKEM768")
    # Others get what they have.
    ended = land.visit(protocol, mode, client_context(groups=b"X25519:P-256"))
    assert (ended["tls"], ended["group"]) == ("TLSv1.3", "x25519")


def past(version: int) -> SSL.Context:
    """A client that knows nothing newer."""
    return client_context(version, version, b"ALL:@SECLEVEL=0")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("protocol", WORDS)
@pytest.mark.parametrize("version", [SSL.TLS1_VERSION, SSL.TLS1_1_VERSION], ids=["1.0", "1.1"])
def test_old_clients_are_admitted_from_known_addresses_alone(
    land: Landscape, version: int, protocol: str, mode: str
) -> None:
    service = f"{protocol}-old"
    ended = land.visit(service, mode, past(version), KNOWN)
    assert ended["tls"] == {SSL.TLS1_VERSION: "TLSv1", SSL.TLS1_1_VERSION: "TLSv1.1"}[version]
    assert land.refused(service, mode, past(version), STRANGER) == "tlsv1 alert protocol version"
    # Nor does it matter to other services who comes.
    assert land.refused(protocol, mode, past(version), KNOWN) == "tlsv1 alert protocol version"
    # The known ones may do better, strangers must, and on the same port.
    for source in (KNOWN, STRANGER):
        assert land.visit(service, mode, client_context(), source)["tls"] == "TLSv1.3"


def test_modern_is_for_modern_clients(land: Landscape) -> None:
    assert land.visit("imap-modern", "implicit", client_context())["tls"] == "TLSv1.3"
    older = client_context(maximum=SSL.TLS1_2_VERSION)
    assert land.refused("imap-modern", "implicit", older) == "tlsv1 alert protocol version"


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kinds", "names", "key"),
    [
        (NAME, None, NAME, "EC"),
        (NAME, b"RSA+SHA256:RSA-PSS+SHA256", NAME, "RSA"),
        (OTHER, None, OTHER, "EC"),
        (OTHER.upper(), None, OTHER, "EC"),
        ("unknown.example.test", None, NAME, "EC"),
        ("x" * 60 + ".test", None, NAME, "EC"),
        ("xn--mller-kva.example", None, NAME, "EC"),
        (None, None, NAME, "EC"),
    ],
)
@pytest.mark.parametrize(("protocol", "mode"), KINDS)
def test_C5_the_certificate_is_the_one_for_name_and_client(
    land: Landscape, protocol: str, mode: str, name: str | None, kinds: bytes | None, names: str, key: str
) -> None:
    with land.arrive(protocol, mode) as peer:
        peer.shake_hands(client_context(sigalgs=kinds), name)
        found = peer.shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert found.get_values_for_type(x509.DNSName) == [names]
        assert type(peer.shown.public_key()).__name__ == f"{key}PublicKey"


def client_hello(name: str) -> bytes:
    connection = SSL.Connection(client_context(), None)
    connection.set_connect_state()
    connection.set_tlsext_host_name(name.encode("ascii"))
    with suppress(SSL.WantReadError):
        connection.do_handshake()
    return connection.bio_read(65536)


def test_names_that_nobody_has_leave_nothing_behind(land: Landscape) -> None:
    address = land.gateway.address("imap-flood", "implicit")
    # As long as DNS allows, so that whoever keeps them shows.
    label = b"x" * 60
    hello = client_hello(".".join([label.decode("ascii")] * 4))
    assert hello.count(label) == 4
    sources = itertools.cycle(f"127.9.0.{number}" for number in range(1, 1 + ADDRESSES))

    def flood(names: int) -> int:
        for _ in range(names):
            with Peer(address, next(sources)) as peer:
                # Nothing signs a ClientHello before the handshake's end, which this one will not see.
                peer.socket.sendall(hello.replace(label, os.urandom(30).hex().encode("ascii")))
                assert peer.socket.recv(1) == b"\x16"
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        # Who comes last is served when the others are over.
        land.visit("imap-flood", "implicit", client_context())
        return land.gateway.resident

    before = flood(FLOOD // 4)
    growth = flood(FLOOD) - before
    assert growth < 300_000, f"{growth} octets more after {FLOOD} names"


# --- protocols -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("protocol", "mode"), KINDS)
def test_C1_C2_the_application_protocol_is_agreed_on(land: Landscape, protocol: str, mode: str) -> None:
    ours = protocol.encode("ascii")
    assert land.visit(protocol, mode, client_context(alpn=[b"h2", ours]))["alpn"] == protocol
    many = [b"x%d" % number for number in range(100)]
    assert land.visit(protocol, mode, client_context(alpn=[*many, ours]))["alpn"] == protocol
    # Who asks for nothing gets nothing; who asks for what nobody knows is no browser.
    assert "alpn" not in land.visit(protocol, mode, client_context())
    assert "alpn" not in land.visit(protocol, mode, client_context(alpn=[b"managesieve"]))


@pytest.mark.parametrize(("protocol", "mode"), KINDS)
def test_C1_C2_browsers_are_turned_away(land: Landscape, protocol: str, mode: str) -> None:
    browser = client_context(alpn=[b"h2", b"http/1.1"])
    assert land.refused(protocol, mode, browser) == "tlsv1 alert no application protocol"


# --- certificates of clients ---------------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    """What a PROXY header of version 2 tells of TLS."""

    client: int
    verify: int
    facts: Mapping[int, bytes]

    @classmethod
    def parse(cls, octets: bytes) -> Header:
        assert octets.startswith(SIGNATURE + b"\x21\x11")
        length = int.from_bytes(octets[14:16], "big")
        told = _fields(octets[16 + 12 : 16 + length])
        tls = told[0x20]
        return cls(tls[0], int.from_bytes(tls[1:5], "big"), _fields(tls[5:]))


def _fields(octets: bytes) -> dict[int, bytes]:
    found = {}
    while octets:
        kind, length = struct.unpack(">BH", octets[:3])
        found[kind], octets = octets[3 : 3 + length], octets[3 + length :]
    return found


def told(land: Landscape, service: str, mode: str, context: SSL.Context) -> tuple[Event, Header]:
    """What the log and the backend learn of a session."""
    since, backend = land.gateway.log.mark(), land.backends["told"]
    backend.play(behind_a_header)
    words = WORDS["imap"]
    with land.arrive(service, mode) as peer:
        peer.shake_hands(context)
        assert peer.tls is not None
        # On an implicit port it is greeted now, on the other it was; in both cases it answers when it is asked.
        peer.tls.sendall(words.hello)
        while not peer.line().startswith(b"c OK"):
            pass
    ended = land.gateway.log.wait("session", since, service=service)
    return ended, Header.parse(backend.connection().heard)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("service", ["imap-request", "imap-require"])
def test_log_and_backend_learn_whom_a_verified_certificate_names(land: Landscape, service: str, mode: str) -> None:
    ended, header = told(land, service, mode, land.person(land.people.ca, "Grete Müller"))
    assert ended["certificate"] == "Grete Müller"
    assert (header.client, header.verify) == (0x07, 0)
    assert header.facts[0x22] == "Grete Müller".encode()


@pytest.mark.parametrize("mode", MODES)
def test_where_one_is_requested_none_will_do(land: Landscape, mode: str) -> None:
    ended, header = told(land, "imap-request", mode, client_context())
    assert "certificate" not in ended
    assert (header.client, header.verify) == (0x01, 1)
    assert 0x22 not in header.facts


@pytest.mark.parametrize("mode", MODES)
def test_where_one_is_requested_a_strangers_names_nobody(land: Landscape, mode: str) -> None:
    ended, header = told(land, "imap-request", mode, land.person(trustme.CA(), "root"))
    assert "certificate" not in ended
    assert header.client == 0x07
    assert header.verify != 0
    assert 0x22 not in header.facts


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("newest", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["1.2", "1.3"])
def test_where_one_is_required_nobody_comes_without(land: Landscape, newest: int, mode: str) -> None:
    told = land.refused("imap-require", mode, client_context(maximum=newest))
    # Of TLS 1.2 there is no alert that says more.
    assert told in {"tlsv13 alert certificate required", "tls alert handshake failure"}
    context = land.person(trustme.CA(), "root")
    context.set_max_proto_version(newest)
    assert land.refused("imap-require", mode, context) == "tlsv1 alert unknown ca"


# --- what the log says ---------------------------------------------------------------------------


def test_the_log_tells_why_a_handshake_failed(land: Landscape, tmp_path: Path) -> None:
    """A gateway of its own: of very many failures the log would tell only how many they were."""
    options = {"profile": "legacy", "legacy_clients": KNOWN, "client_certificate": "require"}
    options["client_ca"] = str(land.people.authority())
    service = Service("imap", land.backends["imap"].address, options=options)
    refused = {
        "unsupported protocol": past(SSL.TLS1_VERSION),
        "no application protocol in common: h2, http/1.1": client_context(alpn=[b"h2", b"http/1.1"]),
        "peer did not return a certificate": client_context(),
        "client certificate: unknown CA (root)": land.person(trustme.CA(), "root"),
    }
    identity = Identity.issue(tmp_path)
    with running(tmp_path, identity, [service]) as gateway:
        alone = replace(land, gateway=gateway)
        for reason, context in refused.items():
            since = gateway.log.mark()
            alone.refused("imap", "implicit", context)
            assert gateway.log.wait("tls-failed", since)["detail"] == reason
