"""Errands to a backend over real sockets, stepped by hand; and the watch that sends them again and again."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from twisted.internet.address import IPv4Address, IPv6Address

from gateway.cli import live
from gateway.cli.live import GRACE, LIMIT, inspected
from gateway.cli.names import Names
from gateway.cli.report import Problem, Relay, Report
from gateway.config import Configuration, parse
from gateway.config.values import Address, Backend, TCPAddress, Timeouts, UnixAddress
from gateway.dialects import DIALECTS
from gateway.dialects.openrelay import CURE, Probe, Verdict
from gateway.dialects.survey import Survey
from gateway.guard.relaywatch import SHORTEST, RelayWatch, is_watched
from gateway.protocol.framing import Lines
from gateway.protocol.vocabulary import (
    Abort,
    Await,
    Close,
    Dial,
    Lost,
    Note,
    Patience,
    Script,
    Send,
    Side,
    Trouble,
    Violation,
)
from gateway.sessions.agreed import terms_of_errands
from gateway.sessions.errand import Errand
from gateway.sessions.performer import ConnectTLS
from gateway.telemetry.events import Events
from gateway.wire.dialer import Dialer
from gateway.wire.tls.connector import TLSConnector
from tests.memory.stepping import SteppedReactor
from tests.memory.tls_peer import Authority, Peer

SMTP = DIALECTS["smtp"]
BACKEND = Side.BACKEND
PATIENCE = {Patience.REPLY: 30.0}


class Server:
    """A backend that answers by verb, in the test's own thread, whenever it is pumped."""

    def __init__(self, greeting: bytes = b"220 legacy ESMTP\r\n", path: Path | None = None) -> None:
        if path is None:
            self._listening = socket.create_server(("127.0.0.1", 0))
        else:
            self._listening = socket.socket(socket.AF_UNIX)
            self._listening.bind(str(path))
            self._listening.listen()
        self._listening.setblocking(False)
        self.address: Address = UnixAddress(str(path)) if path else TCPAddress(*self._listening.getsockname())
        self.greeting = greeting
        self.answers = {b"RCPT": b"554 5.7.1 Relay access denied\r\n", b"QUIT": b"221 bye\r\n"}
        self.tls: Authority | None = None
        self.heard: list[bytes] = []
        """Lines, of all connections."""
        self.visits = 0
        self.lost = 0
        """Connections that the gateway ended."""
        self._open: dict[socket.socket, Peer | None] = {}

    def pump(self) -> None:
        # Whoever was given up while he connected is gone before he is greeted.
        with suppress(BlockingIOError, ConnectionError):
            sock, _ = self._listening.accept()
            sock.setblocking(False)
            self.visits += 1
            peer = Peer(self.tls.server(), server=True) if self.tls else None
            self._open[sock] = peer
            if peer is None:
                sock.send(self.greeting)
        for sock, peer in list(self._open.items()):
            try:
                octets = sock.recv(4096)
            except BlockingIOError:
                continue
            except OSError:
                octets = b""
            if not octets:
                self.lost += 1
                self._close(sock)
            elif peer is None:
                self._answer(sock, octets, sock.send)
            else:
                self._feed(sock, peer, octets)

    def _feed(self, sock: socket.socket, peer: Peer, ciphertext: bytes) -> None:
        shaken = peer.shaken
        try:
            sock.send(peer.feed(ciphertext))
        except OSError:  # an SSLError is one
            self._close(sock)
            return
        if peer.shaken and not shaken:
            sock.send(peer.say(self.greeting))
        octets, peer.heard = peer.heard, b""
        self._answer(sock, octets, lambda plaintext: sock.send(peer.say(plaintext)))

    def _answer(self, sock: socket.socket, octets: bytes, say: Callable[[bytes], object]) -> None:
        for line in octets.splitlines():
            self.heard.append(line)
            verb = line[:4].upper()
            say(self.answers.get(verb, b"250 ok\r\n"))
            if verb == b"QUIT":
                self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        del self._open[sock]
        sock.close()

    def close(self) -> None:
        for sock in list(self._open):
            self._close(sock)
        self._listening.close()

    def hears(self) -> list[bytes]:
        self.pump()
        return self.heard


Another = Callable[..., Server]


@pytest.fixture
def another() -> Iterator[Another]:
    """Makes servers, and closes them in the end."""
    servers: list[Server] = []

    def make(*arguments: object, **more: object) -> Server:
        servers.append(Server(*arguments, **more))  # type: ignore[arg-type]
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def server(another: Another) -> Server:
    return another()


class Sent:
    """An errand under way, and the calls of `done`."""

    def __init__(
        self,
        reactor: SteppedReactor,
        script: Script,
        *addresses: Address,
        connect_tls: ConnectTLS | None = None,
        limit: float = 100.0,
    ) -> None:
        self.reactor = reactor
        self.done: list[Errand] = []
        dialer = Dialer(reactor, addresses, 10.0)
        self.errand = Errand(
            reactor, script, dialer, connect_tls, Timeouts(), {**SMTP.patience, **PATIENCE}, limit, self.done.append
        )
        self.errand.start()
        assert not self.done, "never from inside `start`"

    def ended(self, *servers: Server) -> Trouble:
        def over() -> bool:
            for server in servers:
                server.pump()
            return bool(self.done)

        self.reactor.step_until(over)
        self.reactor.settle()
        assert self.done == [self.errand]
        assert not self.reactor.pending(), "an errand leaves nothing behind"
        assert not self.reactor.readers
        assert not self.reactor.writers
        return self.errand.trouble


def survey(backend: Backend | None = None) -> Survey:
    assert SMTP.question is not None
    return Survey(SMTP, terms_of_errands("gw.example.test", backend or Backend("b", ()), "test"), SMTP.question)


def conversation(*words: bytes) -> Script:
    yield Dial()
    for word in words:
        yield Await((BACKEND,), Patience.REPLY, Lines(512))
        yield Send(BACKEND, word)
    yield Note("said", (("words", len(words)),))
    yield Close("through", "all said")


# --- errands -----------------------------------------------------------------------------------------


def test_an_errand_tells_how_it_ended_when_the_connection_is_gone(reactor: SteppedReactor, server: Server) -> None:
    sent = Sent(reactor, conversation(b"EHLO x\r\n", b"QUIT\r\n"), server.address)
    trouble = sent.ended(server)
    assert (trouble.key, trouble.detail) == ("through", "all said")
    assert server.heard == [b"EHLO x", b"QUIT"]
    assert [note.event for note in sent.errand.notes] == ["said"]
    assert sent.errand.place == str(server.address)
    assert sent.errand.ends is not None
    assert isinstance(server.address, TCPAddress)
    assert sent.errand.ends.destination == ("127.0.0.1", server.address.port)
    assert sent.errand.ends.source[0] == "127.0.0.1"


def test_a_UNIX_socket_has_no_ends(reactor: SteppedReactor, another: Another, tmp_path: Path) -> None:
    server = another(path=tmp_path / "socket")
    sent = Sent(reactor, conversation(b"QUIT\r\n"), server.address)
    assert sent.ended(server).key == "through"
    assert sent.errand.ends is None


def test_a_real_survey_is_an_errand(reactor: SteppedReactor, server: Server) -> None:
    server.answers[b"EHLO"] = b"250-legacy\r\n250-STARTTLS\r\n250 SIZE\r\n"
    found = survey()
    assert Sent(reactor, found.script(), server.address).ended(server).key == "quit"
    assert found.offered == [b"STARTTLS", b"SIZE"]
    assert found.shown == [b"SIZE"]


def test_a_backend_that_is_not_there_is_the_end_of_an_errand(reactor: SteppedReactor, server: Server) -> None:
    server.close()
    trouble = Sent(reactor, survey().script(), server.address).ended()
    assert trouble.key == "backend-connect-failed"
    assert "ECONNREFUSED" in trouble.detail


def test_the_next_address_is_tried(reactor: SteppedReactor, server: Server, another: Another) -> None:
    wrong = another(greeting=b"SSH-2.0-x\r\n")
    found = survey()
    assert Sent(reactor, found.script(), wrong.address, server.address).ended(wrong, server).key == "quit"
    assert found.greeting == server.greeting


def test_what_a_script_does_not_catch_is_its_result(reactor: SteppedReactor, server: Server) -> None:
    def careless() -> Script:
        yield Dial()
        yield Await((BACKEND,), Patience.REPLY, Lines(512))
        raise Violation(BACKEND, "backend-protocol-error", "no such thing")

    trouble = Sent(reactor, careless(), server.address).ended(server)
    assert (trouble.key, trouble.detail) == ("backend-protocol-error", "no such thing")


def test_a_backend_that_leaves_is_its_result_too(reactor: SteppedReactor, server: Server) -> None:
    def insatiable() -> Script:
        yield Dial()
        yield Send(BACKEND, b"QUIT\r\n")
        while True:
            yield Await((BACKEND,), Patience.REPLY, Lines(512))

    assert isinstance(Sent(reactor, insatiable(), server.address).ended(server), Lost)


def test_a_bug_in_a_script_ends_it_and_nothing_else(reactor: SteppedReactor, server: Server) -> None:
    def broken() -> Script:
        yield Dial()
        raise ZeroDivisionError

    trouble = Sent(reactor, broken(), server.address).ended(server)
    assert (trouble.key, trouble.detail) == ("internal-error", "ZeroDivisionError")


def test_a_script_that_is_through_without_a_word_is_an_end(reactor: SteppedReactor, server: Server) -> None:
    def short() -> Script:
        yield Dial()
        yield Abort(BACKEND)

    assert Sent(reactor, short(), server.address).ended(server).key == "internal-error"


def test_a_script_that_has_nowhere_to_go_is_an_end(reactor: SteppedReactor, server: Server) -> None:
    def stay() -> Script:
        yield Close("stayed")

    assert Sent(reactor, stay(), server.address).ended().key == "stayed"


def test_a_backend_that_never_greets_is_given_up(reactor: SteppedReactor, another: Another) -> None:
    silent = another(greeting=b"")
    sent = Sent(reactor, survey().script(), silent.address)
    reactor.settle()
    silent.pump()
    assert silent.visits == 1
    reactor.settle()
    reactor.advance(29.9)
    assert not sent.done
    reactor.advance(0.1)
    trouble = sent.ended(silent)
    assert trouble.key == "backend-greeting-timeout"


def test_a_limit_is_the_limit_of_it_all(reactor: SteppedReactor, server: Server) -> None:
    del server.answers[b"QUIT"]
    server.answers[b"EHLO"] = b""
    sent = Sent(reactor, survey().script(), server.address, limit=12.0)
    reactor.step_until(server.hears)
    reactor.settle()
    reactor.advance(11.9)
    assert not sent.done
    reactor.advance(0.1)
    assert sent.ended(server).key == "backend-timeout"


def test_a_cancelled_errand_is_gone_without_a_word(reactor: SteppedReactor, server: Server) -> None:
    sent = Sent(reactor, survey().script(), server.address)
    reactor.step_until(server.hears)
    sent.errand.cancel()
    reactor.settle()
    assert (sent.done, reactor.pending(), reactor.readers) == ([], [], {})


def test_an_errand_that_is_cancelled_while_it_dials_is_gone(reactor: SteppedReactor, server: Server) -> None:
    sent = Sent(reactor, survey().script(), server.address)
    sent.errand.cancel()
    reactor.settle()
    assert (sent.done, reactor.pending(), reactor.writers) == ([], [], {})


def test_an_errand_speaks_TLS_where_it_is_agreed_on(
    reactor: SteppedReactor, server: Server, authority: Authority, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    authority.ca.cert_pem.write_to_path(str(ca))
    server.tls = authority
    backend = Backend("b", (), tls="implicit", certificate_name="mail.example.test", ca=ca)
    found = survey(backend)
    sent = Sent(reactor, found.script(), server.address, connect_tls=TLSConnector(backend))
    assert sent.ended(server).key == "quit"
    assert found.greeting == server.greeting
    assert sent.errand.secured is not None
    assert sent.errand.secured.version == "TLSv1.3"


def test_a_backend_that_is_somebody_else_is_not_talked_to(
    reactor: SteppedReactor, server: Server, authority: Authority, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    authority.ca.cert_pem.write_to_path(str(ca))
    server.tls = authority
    # Without a name in the file it is the host of the address that must be certified.
    backend = Backend("b", (), tls="implicit", ca=ca)
    found = survey(backend)
    sent = Sent(reactor, found.script(), server.address, connect_tls=TLSConnector(backend))
    trouble = sent.ended(server)
    assert (trouble.key, trouble.detail) == (
        "backend-tls-failed",
        "certificate is for mail.example.test, not 127.0.0.1",
    )
    assert not found.greeted
    assert server.heard == []
    assert sent.errand.secured is None


@pytest.mark.parametrize(("host", "name"), [
    ("::ffff:10.0.0.5", "10.0.0.5"), ("2001:DB8:0::1", "2001:db8::1"), ("fe80::1%eth0", "fe80::1"),
    ("Mail.example.test", "Mail.example.test"),
])  # fmt: skip
def test_the_certificate_of_an_address_is_for_its_one_form(host: str, name: str) -> None:
    assert TLSConnector(Backend("b", (), tls="implicit"))._named(host).name == name


# --- the watch ---------------------------------------------------------------------------------------


class Watching:
    """A watch over some servers, and the lines that it told."""

    def __init__(self, reactor: SteppedReactor, *servers: Server) -> None:
        self.reactor = reactor
        self.servers = servers
        self.lines: list[str] = []
        self.jitter = 1.0
        backend = Backend("legacy", tuple(server.address for server in servers))
        events = Events(self.lines.append, clock=lambda: 0.0)
        self.watch = RelayWatch(
            reactor, backend, SMTP, "gw.example.test", Timeouts(), None, events, jitter=lambda: self.jitter
        )

    def pump(self) -> None:
        for server in self.servers:
            server.pump()

    def rest(self) -> list[float]:
        """Until every probe is over; then the seconds until the next ones."""

        def resting() -> bool:
            self.pump()
            pending = self.reactor.pending()
            busy = self.reactor.readers or self.reactor.writers
            return not busy and len(pending) == len(self.servers) and min(pending) >= SHORTEST

        self.reactor.step_until(resting)
        return [round(seconds, 3) for seconds in self.reactor.pending()]

    def later(self, seconds: float) -> list[float]:
        self.reactor.clock.advance(seconds)
        return self.rest()

    def told(self) -> list[str]:
        """The events since the last time."""
        lines, self.lines[:] = list(self.lines), []
        return [line.partition("event=")[2].partition(" ")[0] for line in lines]


def watched(reactor: SteppedReactor, *servers: Server) -> Watching:
    """A watch that has begun."""
    watching = Watching(reactor, *servers)
    watching.watch.start()
    return watching


OPEN = b"250 2.1.5 Ok\r\n"
CLOSED = b"554 5.7.1 Relay access denied\r\n"
LATER = b"450 4.7.1 Greylisted\r\n"


def test_nobody_is_served_before_the_verdict(reactor: SteppedReactor, server: Server) -> None:
    watching = Watching(reactor, server)
    assert watching.watch.reason
    watching.watch.start()
    assert watching.watch.reason == "relay-unknown"
    assert watching.rest() == [3600.0]
    assert watching.watch.reason == ""
    assert watching.told() == ["relay-closed"]
    assert watching.later(3600.0) == [3600.0]
    assert watching.told() == [], "only a change is told"
    assert not [line for line in server.heard if line.upper().startswith((b"DATA", b"BDAT"))]


def test_S30_an_open_relay_is_not_served_until_it_is_mended(reactor: SteppedReactor, server: Server) -> None:
    server.answers[b"RCPT"] = OPEN
    watching = watched(reactor, server)
    assert watching.rest() == [60.0]
    assert watching.watch.reason == "open-relay"
    assert f'cure="{CURE}"' in watching.lines[0]
    assert f"backend=legacy address={server.address}" in watching.lines[0]
    assert 'text="250 2.1.5 Ok"' in watching.lines[0]
    assert watching.told() == ["open-relay"]
    assert watching.later(60.0) == [60.0]
    assert watching.told() == [], "only a change is told"
    server.answers[b"RCPT"] = LATER
    assert watching.later(60.0) == [60.0]
    assert watching.watch.reason, "who does not say is not mended"
    assert watching.told() == []
    server.answers[b"RCPT"] = CLOSED
    assert watching.later(60.0) == [3600.0]
    assert not watching.watch.reason
    assert watching.told() == ["relay-closed"]
    server.answers[b"RCPT"] = OPEN
    assert watching.later(3600.0) == [60.0]
    assert watching.watch.reason
    assert watching.told() == ["open-relay"]


def test_who_does_not_decide_is_served_and_asked_again(reactor: SteppedReactor, server: Server) -> None:
    server.answers[b"RCPT"] = LATER
    watching = watched(reactor, server)
    assert watching.rest() == [60.0]
    assert not watching.watch.reason
    assert watching.told() == ["relay-undecided"]
    assert watching.later(60.0) == [60.0]
    assert watching.told() == []
    server.answers[b"RCPT"] = CLOSED
    assert watching.later(60.0) == [3600.0]
    server.answers[b"RCPT"] = LATER
    assert watching.later(3600.0) == [60.0]
    assert not watching.watch.reason
    assert watching.told() == ["relay-closed", "relay-undecided"]
    server.answers[b"RCPT"] = OPEN
    watching.later(60.0)
    assert watching.watch.reason


def test_T17_who_wants_TLS_first_is_undecided_and_the_cure_is_told(reactor: SteppedReactor, server: Server) -> None:
    server.greeting = b"220 legacy ESMTP Postfix\r\n"
    for verb in (b"MAIL", b"RCPT", b"RSET"):
        server.answers[verb] = b"530 5.7.0 Must issue a STARTTLS command first\r\n"
    watching = watched(reactor, server)
    assert watching.rest() == [60.0]
    assert not watching.watch.reason
    (line,) = watching.lines
    assert 'text="530 5.7.0 Must issue a STARTTLS command first"' in line
    assert "smtpd_tls_security_level = may" in line
    assert watching.told() == ["relay-undecided"]
    for verb in (b"MAIL", b"RSET"):
        server.answers[verb] = b"250 ok\r\n"
    server.answers[b"RCPT"] = CLOSED
    assert watching.later(60.0) == [3600.0]
    assert watching.told() == ["relay-closed"]


def test_T17_through_a_UNIX_socket_the_gateway_has_no_address_to_name(
    reactor: SteppedReactor, another: Another, tmp_path: Path
) -> None:
    server = another(path=tmp_path / "socket")
    server.answers[b"MAIL"] = b"538 no\r\n"
    watching = watched(reactor, server)
    watching.rest()
    assert "without TLS for the gateway's address" in watching.lines[0]


def test_a_server_that_is_not_there_is_tried_again_more_and_more_seldom(
    reactor: SteppedReactor, another: Another
) -> None:
    server = another()
    server.close()
    watching = Watching(reactor, server)
    watching.servers = (another(),)  # nobody is asked
    watching.watch.start()
    waits = watching.rest()
    for _ in range(5):
        waits += watching.later(waits[-1])
    assert waits == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    assert watching.watch.reason
    assert watching.told() == ["backend-connect-failed"]
    watching.jitter = 1.25
    assert watching.later(60.0) == [75.0]


def test_a_verdict_outlasts_an_outage(reactor: SteppedReactor, server: Server) -> None:
    watching = watched(reactor, server)
    assert watching.rest() == [3600.0]
    assert watching.told() == ["relay-closed"]
    server.greeting = b"SSH-2.0-x\r\n"
    assert watching.later(3600.0) == [5.0]
    assert not watching.watch.reason
    assert watching.told() == ["backend-bad-greeting"]
    server.greeting = b"220 back\r\n"
    assert watching.later(5.0) == [3600.0]
    server.greeting = b"SSH-2.0-x\r\n"
    assert watching.later(3600.0) == [5.0], "it begins anew"
    assert watching.told() == ["backend-bad-greeting"]


def test_each_address_may_be_another_server(reactor: SteppedReactor, server: Server, another: Another) -> None:
    other = another()
    other.answers[b"RCPT"] = OPEN
    watching = watched(reactor, server, other)
    assert watching.rest() == [60.0, 3600.0]
    assert watching.watch.reason
    assert sorted(watching.told()) == ["open-relay", "relay-closed"]
    other.answers[b"RCPT"] = CLOSED
    watching.later(60.0)
    assert not watching.watch.reason


def test_one_address_that_is_not_there_does_not_close_the_service(
    reactor: SteppedReactor, server: Server, another: Another
) -> None:
    other = another()
    other.greeting = b"SSH-2.0-x\r\n"
    watching = watched(reactor, server, other)
    assert watching.rest() == [5.0, 3600.0]
    assert not watching.watch.reason


@pytest.mark.parametrize("under_way", [True, False])
def test_a_watch_that_is_stopped_leaves_nothing_behind(
    reactor: SteppedReactor, server: Server, under_way: bool
) -> None:
    watching = watched(reactor, server)
    if under_way:
        reactor.step_until(server.hears)
    else:
        watching.rest()
    watching.watch.stop()
    reactor.settle()
    assert (reactor.pending(), reactor.readers, reactor.writers) == ([], {}, {})


@pytest.mark.parametrize(("protocol", "identity", "allow_relay", "watched"), [
    ("smtp", "none", False, True), ("smtp", "none", True, False), ("smtp", "xclient", False, False),
    ("smtp", "proxy-v2", False, False), ("imap", "none", False, False), ("pop3", "none", False, False),
])  # fmt: skip
def test_only_what_may_relay_for_strangers_is_watched(
    protocol: str, identity: str, allow_relay: bool, watched: bool
) -> None:
    backend = Backend("b", (), identity=identity, allow_relay=allow_relay)
    assert is_watched(DIALECTS[protocol], backend) is watched


def test_a_probe_is_an_errand_too(reactor: SteppedReactor, server: Server) -> None:
    probe = Probe(SMTP, terms_of_errands("gw.example.test", Backend("b", ()), "test"))
    Sent(reactor, probe.script(), server.address).ended(server)
    assert probe.verdict is Verdict.CLOSED
    assert server.heard == [
        b"EHLO gw.example.test",
        b"MAIL FROM:<>",
        b"RCPT TO:<relay-probe@example.com>",
        b"RCPT TO:<relay-probe@[192.0.2.1]>",
        b"RSET",
        b"QUIT",
    ]


# --- all backends at once ------------------------------------------------------------------------------


def a_file(**servers: Server) -> Configuration:
    """An SMTP service in front of each of them; a backend may take its time to greet."""
    text = "[gateway]\nhostname = gw.example.test\n[tls]\ncertificate = unused.pem\n[timeouts]\ngreeting = 5 min\n"
    for port, (name, server) in enumerate(servers.items(), 2500):
        text += f"[service:{name}]\nprotocol = smtp\nstarttls = {port}\nbackend = {server.address}\n"
    return parse(text, "gateway.ini", DIALECTS)


def test_an_inspection_is_over_when_the_slowest_backend_has_had_its_time(
    reactor: SteppedReactor, server: Server, another: Another
) -> None:
    silent = another(greeting=b"")
    found: list[list[Report]] = []
    inspected(reactor, a_file(quick=server, silent=silent), {}).addCallback(found.append)
    reactor.step_until(lambda: server.hears().count(b"QUIT") == 2)
    silent.pump()
    reactor.settle()
    reactor.advance(LIMIT - 0.1)
    assert not found
    reactor.advance(0.1)
    silent.pump()
    reactor.step_until(lambda: found)
    assert [report.services for report in found[0]] == [("quick",), ("silent",)], "in the order of the file"
    quick, slow = found[0]
    assert quick.good
    assert quick.relay == Relay("closed", "554 5.7.1 Relay access denied", allowed=False)
    assert [problem.problem for problem in slow.problems] == ["backend-greeting-timeout"]


def test_an_inspection_asks_all_backends_at_the_same_time(reactor: SteppedReactor, another: Another) -> None:
    silent = [another(greeting=b"") for _ in range(5)]
    file = a_file(**{f"silent{number}": server for number, server in enumerate(silent)})
    inspected(reactor, file, {}).addCallback(lambda reports: None)
    reactor.settle()
    for server in silent:
        server.pump()
    assert [server.visits for server in silent] == [1] * 5


# --- T18: it ends, whatever happens --------------------------------------------------------------------


class Looked:
    """An inspection of some servers, and what is reported in the end."""

    def __init__(self, reactor: SteppedReactor, configuration: Configuration, *servers: Server) -> None:
        self._reactor = reactor
        self._servers = servers
        self._found: list[list[Report]] = []
        inspected(reactor, configuration, {}).addCallback(self._found.append)
        assert not (servers and self._found), "never from inside `inspected`"

    @property
    def over(self) -> bool:
        for server in self._servers:
            server.pump()
        return bool(self._found)

    def problems(self) -> list[list[Problem]]:
        """Of each report."""
        self._reactor.step_until(lambda: self.over)
        self._reactor.settle()
        (reports,) = self._found
        assert not self._reactor.pending(), "nothing is left behind"
        assert not self._reactor.readers
        return [list(report.problems) for report in reports]


def broken(*_: object) -> NoReturn:
    raise ZeroDivisionError("oh \x1b")


@pytest.mark.parametrize("where", ["Survey.access", "Probe.verdict", "Probe.__init__", "_names", "_lines"])
def test_T18_an_exception_is_a_finding_about_that_backend_and_no_other(
    reactor: SteppedReactor, server: Server, another: Another, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    other = another()
    other.close()
    name, _, attribute = where.partition(".")
    owner = {"Survey": Survey, "Probe": Probe}.get(name, live)
    monkeypatch.setattr(owner, attribute or name, property(broken) if attribute[:1].isalpha() else broken)
    first, second = Looked(reactor, a_file(first=server, second=other), server).problems()
    assert [problem.problem for problem in first] == ["internal-error"]
    assert first[0].detail == r"ZeroDivisionError: oh \x1b"
    assert "report it" in first[0].cure
    if name == "Probe":
        assert [problem.problem for problem in second] == ["backend-connect-failed"]


def test_T18_an_exception_at_the_start_is_a_finding(
    reactor: SteppedReactor, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "Errand", broken)
    found: list[list[Report]] = []
    inspected(reactor, a_file(only=server), {}).addCallback(found.append)
    assert [problem.problem for report in found[0] for problem in report.problems] == ["internal-error"]
    assert not reactor.pending()


def test_T18_a_bug_in_the_dialogue_is_a_finding(
    reactor: SteppedReactor, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.dialects.mail.smtp.commands.SMTP._ehlo", broken)
    ((problem,),) = Looked(reactor, a_file(only=server), server).problems()
    assert (problem.problem, problem.detail) == ("internal-error", "ZeroDivisionError")
    assert "report it" in problem.cure


def test_T18_an_errand_that_never_tells_is_given_up(
    reactor: SteppedReactor, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Errand, "start", lambda errand: None)
    looked = Looked(reactor, a_file(only=server), server)
    reactor.settle()
    reactor.advance(LIMIT + GRACE - 0.1)
    assert not looked.over
    reactor.advance(0.1)
    ((problem,),) = looked.problems()
    assert (problem.problem, problem.detail) == ("check-timeout", "not finished after 70 seconds")


def test_T18_what_comes_after_the_end_changes_nothing(
    reactor: SteppedReactor, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An errand tells that it is over although it was given up."""
    monkeypatch.setattr(Errand, "start", lambda errand: None)
    monkeypatch.setattr(Errand, "cancel", lambda errand: errand._done(errand))
    looked = Looked(reactor, a_file(only=server), server)
    reactor.advance(LIMIT + GRACE)
    assert [problem.problem for problem in looked.problems()[0]] == ["check-timeout"]


@pytest.mark.parametrize("answers", [
    {b"EHLO": b""}, {b"MAIL": b""}, {b"RSET": b""}, {b"RCPT": b""},
])  # fmt: skip
def test_T18_a_backend_that_stops_answering_ends_in_time(
    reactor: SteppedReactor, server: Server, answers: dict[bytes, bytes]
) -> None:
    server.answers.update(answers)
    looked = Looked(reactor, a_file(only=server), server)

    def waiting() -> bool:
        server.pump()
        return server.heard[-1:] != [] and server.heard[-1][:4] in answers

    reactor.step_until(waiting)
    reactor.settle()
    reactor.advance(LIMIT)
    for _ in range(4):  # the connection is closed, and the next errand has no time left
        reactor.settle()
        server.pump()
        reactor.settle()
        reactor.advance(GRACE / 4)
    assert looked.over
    # A client can send: only whether it relays is not known.
    expected = [] if b"RCPT" in answers else ["backend-timeout"]
    assert [problem.problem for problem in looked.problems()[0]] == expected


def test_T18_a_protocol_without_a_question_is_a_finding(
    reactor: SteppedReactor, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "DIALECTS", {"smtp": replace(SMTP, question=None, relays=False)})
    found: list[list[Report]] = []
    inspected(reactor, a_file(only=server), {}).addCallback(found.append)

    def over() -> bool:
        server.pump()
        return bool(found)

    reactor.step_until(over)
    (report,) = found[0]
    assert [problem.problem for problem in report.problems] == ["not-asked"]
    assert report.greeting == ("220 legacy ESMTP",)
    assert report.login is not None
    assert report.login.possible is None
    assert server.heard == [b"QUIT"]


def test_T18_a_protocol_without_a_question_whose_backend_is_not_there_is_just_that(
    reactor: SteppedReactor, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "DIALECTS", {"smtp": replace(SMTP, question=None)})
    server.close()
    ((problem,),) = Looked(reactor, a_file(only=server)).problems()
    assert problem.problem == "backend-connect-failed"


def test_T18_without_backends_it_is_over_at_once(reactor: SteppedReactor, server: Server) -> None:
    assert Looked(reactor, replace(a_file(only=server), services=())).problems() == []


class Resolver:
    """Finds nothing, or does not answer."""

    def __init__(self, answers: bool) -> None:
        self._answers = answers

    def resolveHostName(self, receiver: Any, *_: object, **__: object) -> None:
        if self._answers:
            receiver.resolutionComplete()


@pytest.mark.parametrize("answers", [True, False])
def test_T18_a_name_that_does_not_resolve_is_a_finding(reactor: SteppedReactor, answers: bool) -> None:
    reactor.nameResolver = Resolver(answers)
    file = parse(
        "[gateway]\nhostname = gw.example.test\n[tls]\ncertificate = unused.pem\n"
        "[service:a]\nprotocol = imap\nstarttls = 2143\nbackend = nosuch.example.test:143\n",
        "gateway.ini",
        DIALECTS,
    )
    looked = Looked(reactor, file)
    reactor.settle()
    if not answers:
        reactor.advance(file.timeouts.connect)
    ((problem,),) = looked.problems()
    assert problem.problem == "backend-connect-failed"
    assert "nosuch.example.test" in problem.detail
    assert "getent hosts" in problem.cure


def test_T18_the_resolver_answers_in_a_thread_that_nobody_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()

    class Reactor:
        def callFromThread(self, *call: Any) -> None:
            assert threading.current_thread().daemon
            calls.put(call)

    class Receiver:
        found: list[object]

        def resolutionBegan(self, resolution: Any) -> None:
            self.name = resolution.name
            resolution.cancel()
            self.found = []

        def addressResolved(self, address: object) -> None:
            self.found.append(address)

        def resolutionComplete(self) -> None:
            self.found.append("complete")

    def resolve(host: str) -> list[object]:
        receiver: Any = Receiver()
        Names(Reactor()).resolveHostName(receiver, host, 143)
        tell, addresses = calls.get(timeout=10)
        tell(addresses)
        assert receiver.name == host
        return receiver.found  # type: ignore[no-any-return]

    assert resolve("127.0.0.1") == [IPv4Address("TCP", "127.0.0.1", 143), "complete"]
    assert resolve("::1") == [IPv6Address("TCP", "::1", 143), "complete"]
    assert resolve("x" * 64 + ".example") == ["complete"], "no name at all"
    unix = (socket.AF_UNIX, socket.SOCK_STREAM, 0, "", "x")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [unix])
    assert resolve("strange.example") == ["complete"]
