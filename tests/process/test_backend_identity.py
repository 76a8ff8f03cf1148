"""Real servers learn who the client is, in every way that there is and however they are reached."""

from __future__ import annotations

import itertools
import re
import socket
import ssl
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import pytest

from gateway.protocol.proxyprotocol import SIGNATURE
from tests.process import servers
from tests.process.conftest import directory_for_servers
from tests.process.legacy import imap, smtp
from tests.process.programs import missing
from tests.process.recording import Backend, Connection, Script
from tests.process.running import DEADLINE, Gateway, Identity, Service, running
from tests.process.secured import presenting, secured
from tests.process.servers import GATEWAY, SECURITY, Dovecot, Postfix
from tests.process.wire import Caller, Client, source, visit
from tests.process.words import WORDS

TOLD = {
    "smtp": ("xclient", "proxy-v1", "proxy-v2"),
    "imap": ("id", "proxy-v1", "proxy-v2"),
    "pop3": ("xclient", "proxy-v1", "proxy-v2"),
}
MODES = ("starttls", "implicit")
ALL = [
    (protocol, identity, security)
    for protocol, identities in TOLD.items()
    for identity, security in itertools.product(identities, SECURITY)
]


# Apart from conftest.py's `dovecot` and `postfix`, which trust nobody.


@pytest.fixture(scope="module")
def trusting_dovecot(identity: Identity) -> Iterator[Dovecot]:
    with directory_for_servers() as directory, servers.dovecot(directory, certificate=identity.certificate) as dovecot:
        yield dovecot


@pytest.fixture(scope="module")
def trusting_postfix(identity: Identity) -> Iterator[Postfix]:
    with directory_for_servers() as directory, servers.postfix(directory, certificate=identity.certificate) as postfix:
        yield postfix


def ipv6() -> bool:
    """Whether this machine has ::1."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Landscape:
    gateway: Gateway
    dovecot: Dovecot
    postfix: Postfix
    trusting: ssl.SSLContext

    def arrive(self, client: Client, protocol: str, mode: str) -> None:
        """To where TLS is active; the greeting is still to be heard."""
        if mode == "starttls":
            words = WORDS[protocol]
            greeting = client.line()
            client.say(words.starttls)
            assert client.line() == words.go_ahead
            client.shake_hands(self.trusting)
            # What was said in the clear counts no more; for those who want to be greeted here, it is said again.
            client.unheard = greeting
        else:
            client.shake_hands(self.trusting)


@pytest.fixture(scope="module")
def land(
    tmp_path_factory: pytest.TempPathFactory,
    identity: Identity,
    trusting: ssl.SSLContext,
    trusting_dovecot: Dovecot,
    trusting_postfix: Postfix,
) -> Iterator[Landscape]:
    services: list[Service] = []
    options: dict[str, dict[str, str]] = {}
    doors = {"smtp": trusting_postfix.doors, **trusting_dovecot.doors}
    for protocol, told, security in [*ALL, *((protocol, "none", "none") for protocol in TOLD)]:
        name = f"{protocol}-{told}-{security}"
        options[f"backend:{name}"] = {"address": doors[protocol].address(told, security), "identity": told}
        if security != "none":
            options[f"backend:{name}"] |= {"tls": security, "ca": str(identity.authority), "name": "mail.example.test"}
        services.append(Service(name, name, protocol=protocol))
    if ipv6():
        # Behind the others, whose "listening" events are counted.
        services += [
            Service(f"{service.name}-six", service.name, service.protocol, modes=(), options={"implicit": "[::1]:0"})
            for service in services
        ]
    options["backend:smtp-none-none"]["allow_relay"] = "yes"
    with running(tmp_path_factory.mktemp("gateway"), identity, services, options=options) as gateway:
        yield Landscape(gateway, trusting_dovecot, trusting_postfix, trusting)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("protocol", "told", "security"), ALL)
def test_the_log_of_a_real_server_shows_the_clients_address(
    land: Landscape, protocol: str, told: str, security: str, mode: str
) -> None:
    since = land.gateway.log.mark()
    client, address = source(), land.gateway.address(f"{protocol}-{told}-{security}", mode)
    with Caller(client, address) as caller:
        land.arrive(caller, protocol, mode)
        visit(caller, protocol, f"{client}@example.test")
    ended = land.gateway.log.wait("session", since, client=client)
    assert ended["tls"] == "TLSv1.3"
    if protocol == "smtp":
        land.postfix.log.hear(rf": client=unknown\[{client}\]")
        message = land.postfix.mailbox.take(f"{client}@example.test")
        # The uppermost trace field is Postfix's own.
        came, _, _ = message.partition(b"by legacy.example.test")
        assert b"(unknown [%s])" % client.encode("ascii") in came
        assert (b"(using TLSv1.3 with cipher" in came) is (security != "none")
    else:
        land.dovecot.log.hear(rf"{protocol}-login: Info: Login: user=<grete>, .*rip={client}, lip=127\.0\.0\.1, ")


@pytest.mark.parametrize(("protocol", "told", "security"), ALL)
def test_an_address_of_IPv6_is_shown_too(land: Landscape, protocol: str, told: str, security: str) -> None:
    if not ipv6():
        missing("this test needs ::1")
    service = f"{protocol}-{told}-{security}-six"
    host, _, port = land.gateway.log.wait("listening", service=service)["address"].rpartition(":")
    assert host == "[::1]"
    said, since = (land.postfix.log if protocol == "smtp" else land.dovecot.log), land.gateway.log.mark()
    before = said.mark()
    with Caller("::1", ("::1", int(port))) as caller:
        land.arrive(caller, protocol, "implicit")
        visit(caller, protocol)
    assert land.gateway.log.wait("session", since, service=service)["client"] == "::1"
    said.hear(r": client=unknown\[::1\]" if protocol == "smtp" else r"Login: user=<grete>, .*rip=::1, lip=", before)


# --- H: what the gateway may, its clients may not --------------------------------------------

FORGED = "198.51.100.66"
FORGERIES = {
    "smtp": [f"XCLIENT ADDR={FORGED} LOGIN=root", f"xclient ADDR={FORGED}", f"XFORWARD NAME=x ADDR={FORGED}"],
    "imap": [
        f'i ID ("x-originating-ip" "{FORGED}" "x-session-id" "forged" "name" "honest")',
        f'i ID ("X-Originating-IP" "{FORGED}" "x-proxy-ttl" "99")',
        f'i ID ("x-originating-ip" {{13+}}\r\n{FORGED} "x-forward-mail" "root")',
    ],
    "pop3": [f"XCLIENT ADDR={FORGED} LOGIN=root", f"xclient ADDR={FORGED}", f"XOIP {FORGED}"],
}


@pytest.mark.parametrize(("protocol", "forgery"), [(name, one) for name, them in FORGERIES.items() for one in them])
@pytest.mark.parametrize("told", ["none", "trusted"])
def test_H1_H3_H4_no_client_speaks_with_the_gateways_authority(
    land: Landscape, protocol: str, forgery: str, told: str
) -> None:
    identity = TOLD[protocol][0] if told == "trusted" else "none"
    client, address = source(), land.gateway.address(f"{protocol}-{identity}-none", "implicit")
    seen = GATEWAY if told == "none" else client
    said = land.postfix.log if protocol == "smtp" else land.dovecot.log
    before = said.mark()
    with Caller(client, address) as caller:
        land.arrive(caller, protocol, "implicit")
        greeting = caller.line()
        caller.say(forgery.encode("ascii") + b"\r\n")
        caller.hear(rb"^(502 5\.5\.1|i OK|-ERR) [^\n]*\n")
        caller.unheard = greeting + caller.unheard
        visit(caller, protocol)
    said.hear(rf": client=\w+\[{seen}\]" if protocol == "smtp" else rf"Login: user=<grete>, .*rip={seen}, ", before)
    assert FORGED not in said.text


@pytest.mark.parametrize("told", ["none", *TOLD["smtp"]])
def test_H8_who_tells_the_clients_address_opens_no_relay(land: Landscape, told: str) -> None:
    with Caller(source(), land.gateway.address(f"smtp-{told}-none", "implicit")) as caller:
        land.arrive(caller, "smtp", "implicit")
        caller.hear(rb"^220 [^\n]*\n")
        for command in (b"EHLO client.example.test", b"MAIL FROM:<hans@example.org>"):
            caller.say(command + b"\r\n")
            caller.hear(rb"^250 [^\n]*\n")
        caller.say(b"RCPT TO:<stranger@example.com>\r\n")
        # Who does not tell has every client pass for the gateway, which this Postfix lets relay.
        expected = b"250 2.1.5 Ok\r\n" if told == "none" else rb"554 5\.7\.1 [^\n]*Relay access denied\r\n"
        assert re.fullmatch(expected, caller.line())


@pytest.mark.parametrize(
    "header", [f"PROXY TCP4 {FORGED} 127.0.0.1 1 25\r\n".encode("ascii"), SIGNATURE + b"\x20\0\0\0"]
)
@pytest.mark.parametrize("protocol", TOLD)
def test_H5_where_no_PROXY_header_is_expected_it_is_refused(land: Landscape, protocol: str, header: bytes) -> None:
    since, client = land.gateway.log.mark(), source()
    with Caller(client, land.gateway.address(f"{protocol}-{TOLD[protocol][0]}-none", "starttls")) as caller:
        caller.line()
        caller.say(header)
        caller.finish()
        assert re.match(rb"(\* )?(421|5\d\d|BYE|BAD|-ERR) ", caller.rest())
    assert land.gateway.log.wait("session", since, client=client)
    assert not [event for event in land.gateway.log.events("session", since) if event["client"] == FORGED]


def test_G24_PROXY_version_2_has_the_backend_wait_for_the_clients_TLS(land: Landscape) -> None:
    for event in land.gateway.log.events("listening"):
        lazy = "-proxy-v2-" in event["service"] and event["mode"] == "starttls"
        assert event["connect"] == ("lazy" if lazy else "eager")


# --- servers that do not trust the gateway ---------------------------------------------------------------


def unavailable(gateway: Gateway, trusting: ssl.SSLContext, service: str, protocol: str) -> Mapping[str, str]:
    """The client is told no more than that; the event that says why."""
    since = gateway.log.mark()
    with Client(gateway.address(service, "implicit")) as client:
        client.shake_hands(trusting)
        client.say(WORDS[protocol].login)
        assert client.rest() == WORDS[protocol].unavailable
    return gateway.log.wait(gateway.log.wait("session", since, service=service)["reason"], since)


@pytest.mark.parametrize("protocol", ["smtp", "pop3"])
def test_XCLIENT_that_a_real_server_does_not_take_fails_closed(
    dovecot: Dovecot,
    postfix: Postfix,
    identity: Identity,
    trusting: ssl.SSLContext,
    tmp_path: Path,
    protocol: str,
) -> None:
    options = {"backend:b": {"address": {"smtp": postfix.smtp, "pop3": dovecot.pop3}[protocol], "identity": "xclient"}}
    with running(tmp_path, identity, [Service(protocol, "b")], options) as gateway:
        refused = unavailable(gateway, trusting, protocol, protocol)
        assert refused["event"] == "backend-identity-refused"
        assert "does not offer XCLIENT" in refused["detail"]


# --- what is on the wire -------------------------------------------------------------------------------

Heard = SimpleQueue[bytes]


def peek_header(connection: Connection, heard: Heard, ending: Script) -> None:
    """Read a PROXY header, which must have come in one piece and before anything else."""
    first = connection.socket.recv(4096, socket.MSG_PEEK)
    ends = 16 + int.from_bytes(first[14:16], "big") if first.startswith(SIGNATURE) else first.index(b"\r\n") + 2
    heard.put(connection.socket.recv(ends))
    ending(connection)


@pytest.mark.parametrize("security", ["none", "implicit"])
@pytest.mark.parametrize("told", ["proxy-v1", "proxy-v2"])
@pytest.mark.parametrize("mode", MODES)
def test_G22_G23_H7_the_PROXY_header_is_one_write_before_everything_and_tells_of_TLS(
    identity: Identity, trusting: ssl.SSLContext, tmp_path: Path, told: str, security: str, mode: str
) -> None:
    heard: Heard = SimpleQueue()
    ending = secured("imap", security, presenting(identity.certificate))
    with (
        closing(Backend(lambda connection: peek_header(connection, heard, ending))) as backend,
        ExitStack() as stack,
    ):
        options = {"backend:b": {"address": backend.address, "identity": told, "tls": security}}
        if security != "none":
            options["backend:b"] |= {"ca": str(identity.authority)}
        gateway = stack.enter_context(running(tmp_path, identity, [Service("imap", "b")], options))
        client, address = source(), gateway.address("imap", mode)
        with Caller(client, address) as caller:
            port = caller.socket.getsockname()[1]
            if mode == "starttls":
                caller.hear(rb"^\* OK [^\n]*\n")
                caller.say(b"s STARTTLS\r\n")
                caller.line()
            caller.shake_hands(trusting)
            if mode == "implicit":
                caller.hear(rb"^\* OK [^\n]*\n")
            caller.say(b"l LOGIN grete x\r\n")
            caller.hear(rb"^l OK [^\n]*\n")
        ended = gateway.log.wait("session", client=client)
        if told == "proxy-v1":
            expected = b"PROXY TCP4 %s 127.0.0.1 %d %d\r\n" % (client.encode("ascii"), port, address[1])
        else:
            expected = header_v2(client, port, address, ended)
        assert heard.get(timeout=DEADLINE) == expected
        assert heard.empty()


def header_v2(client: str, port: int, address: tuple[str, int], ended: Mapping[str, str]) -> bytes:
    """Byte by byte."""

    def tlv(kind: int, value: bytes) -> bytes:
        return struct.pack(">BH", kind, len(value)) + value

    facts = tlv(0x21, ended["tls"].encode("ascii")) + tlv(0x23, ended["cipher"].encode("ascii"))
    rest = socket.inet_aton(client) + socket.inet_aton(address[0]) + struct.pack(">HH", port, address[1])
    rest += tlv(0x02, b"mail.example.test") + tlv(0x05, ended["session"].encode("ascii"))
    rest += tlv(0x20, b"\x01\0\0\0\x01" + facts)
    return SIGNATURE + b"\x21\x11" + struct.pack(">H", len(rest)) + rest


def test_H10_a_client_that_the_backend_bans_does_not_take_it_down_for_others(
    identity: Identity, trusting: ssl.SSLContext, tmp_path: Path
) -> None:
    banned = source().encode("ascii")

    def banning(connection: Connection) -> None:
        if banned not in connection.line():
            imap()(connection)

    with closing(Backend(banning)) as backend, ExitStack() as stack:
        options = {"backend:b": {"address": backend.address, "identity": "proxy-v1"}}
        gateway = stack.enter_context(running(tmp_path, identity, [Service("imap", "b")], options))
        for turn in range(1, 12):
            for _ in range(turn):
                with Caller(banned.decode("ascii"), gateway.address("imap")) as caller:
                    assert caller.rest() == WORDS["imap"].unavailable
            with Caller(source(), gateway.address("imap")) as caller:
                caller.hear(WORDS["imap"].greeting_)


def test_T03_a_client_that_the_backend_refuses_hears_why_and_keeps_nobody_out(
    identity: Identity, trusting: ssl.SSLContext, tmp_path: Path
) -> None:
    listed = source().encode("ascii")
    blocked = b"521 5.7.1 Service unavailable; client [%s] blocked using dnsbl.example\r\n" % listed

    def postscreen(connection: Connection) -> None:
        if listed in connection.line():
            connection.say(b"220-old.example ESMTP\r\n")
            connection.say(blocked)
        else:
            smtp()(connection)

    with closing(Backend(postscreen)) as backend, ExitStack() as stack:
        options = {"backend:b": {"address": backend.address, "identity": "proxy-v1"}}
        gateway = stack.enter_context(running(tmp_path, identity, [Service("smtp", "b")], options))
        for turn in range(1, 6):
            for _ in range(turn):
                with Caller(listed.decode("ascii"), gateway.address("smtp")) as caller:
                    assert caller.rest() == blocked
            with Caller(source(), gateway.address("smtp")) as caller:
                caller.hear(WORDS["smtp"].greeting_)
        assert not gateway.log.events("backend-connect-failed")
