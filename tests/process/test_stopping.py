"""How it ends: at a stop sessions finish within the drain time, and without descriptors it waits for better times."""

from __future__ import annotations

import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest

from gateway.app.control.messages import Request
from gateway.cli.steer.command import ask
from tests.process.conftest import directory_for_servers
from tests.process.legacy import SERVERS
from tests.process.recording import Backend, Connection
from tests.process.running import DEADLINE, Event, Gateway, Identity, Service, launch, running, wait_until
from tests.process.wire import Client, Ending
from tests.process.words import GREETING, LINES, WORDS

PROTOCOLS = tuple(LINES)
DRAIN = 2.0


@pytest.fixture
def backends() -> Iterator[dict[str, Backend]]:
    backends = {protocol: Backend(SERVERS[protocol](None)) for protocol in PROTOCOLS}
    yield backends
    for backend in backends.values():
        backend.close()


@pytest.fixture
def gateway(tmp_path: Path, identity: Identity, backends: dict[str, Backend]) -> Iterator[Gateway]:
    services = [Service(protocol, backend.address) for protocol, backend in backends.items()]
    options = {"gateway": {"drain": f"{DRAIN:.0f} s"}, "timeouts": {"linger": "500 ms"}}
    with running(tmp_path, identity, services, options=options) as gateway:
        yield gateway


def secure(gateway: Gateway, trusting: ssl.SSLContext, protocol: str) -> Client:
    words = LINES[protocol]
    client = Client(gateway.address(protocol, "implicit"))
    client.shake_hands(trusting)
    client.hear(words.greeting_)
    client.say(words.hello)
    client.hear(words.hello_)
    return client


def enter(gateway: Gateway, trusting: ssl.SSLContext, protocol: str) -> Client:
    client = secure(gateway, trusting, protocol)
    client.say(LINES[protocol].login)
    client.hear(LINES[protocol].login_)
    return client


def moment(event: Event) -> datetime:
    return datetime.fromisoformat(event["time"].replace("Z", "+00:00"))


def check_closed(gateway: Gateway) -> None:
    """Nobody can come in any more."""
    for protocol in PROTOCOLS:
        for mode in ("starttls", "implicit"):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(gateway.address(protocol, mode), timeout=DEADLINE)


def test_a_gateway_without_sessions_stops_at_once(gateway: Gateway, trusting: ssl.SSLContext) -> None:
    secure(gateway, trusting, "imap").reset()
    gateway.log.wait("session")
    gateway.terminate()
    gateway.end(deadline=DRAIN)
    check_closed(gateway)


def test_a_signal_at_the_very_end_is_no_death_by_a_signal(tmp_path: Path, identity: Identity) -> None:
    """As tests and supervisors send it that do not know that the gateway stops already."""
    gateway = launch(tmp_path, identity, [Service("imap", "127.0.0.1:9")])
    with Client(gateway.address("imap")) as client:
        client.rest()  # it has begun to serve
    while gateway.process.poll() is None:
        gateway.process.send_signal(TERM)
        threading.Event().wait(0.001)
    try:
        gateway.end()
    finally:
        gateway.kill()


def test_sessions_at_a_boundary_get_the_goodbye_of_their_protocol(
    gateway: Gateway, backends: dict[str, Backend], trusting: ssl.SSLContext
) -> None:
    began = time.monotonic()
    with ExitStack() as stack:
        clients = []
        for protocol, words in LINES.items():
            clear = stack.enter_context(Client(gateway.address(protocol)))
            clear.hear(words.greeting_)
            clients += [(protocol, clear), (protocol, stack.enter_context(secure(gateway, trusting, protocol)))]
        gateway.terminate()
        for protocol, client in clients:
            assert client.rest() == LINES[protocol].shutdown
        check_closed(gateway)
    gateway.end(deadline=DRAIN)
    assert time.monotonic() - began < DRAIN + 1
    assert [event["reason"] for event in gateway.log.events("session")] == ["shutdown"] * len(clients)
    for protocol in PROTOCOLS:
        # Without a greeting nobody was dialled in the clear.
        for _ in range(2 if protocol in GREETING else 1):
            backend = backends[protocol].connection()
            assert backend.wait_until_ended() == "fin"
            assert backend.heard.endswith(LINES[protocol].polite)


@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_T20_a_session_in_the_splice_goes_on_until_the_drain_time_is_over(
    gateway: Gateway, backends: dict[str, Backend], trusting: ssl.SSLContext, protocol: str
) -> None:
    question, answer = {"imap": (b"n NOOP\r\n", b"n OK NOOP by the backend\r\n"),
                        "pop3": (b"NOOP\r\n", b"+OK NOOP by the backend\r\n")}[protocol]  # fmt: skip
    with enter(gateway, trusting, protocol) as client, secure(gateway, trusting, "imap") as idle:
        began = time.monotonic()
        gateway.terminate()
        assert idle.rest() == WORDS["imap"].shutdown  # so the stop has been heard
        check_closed(gateway)
        for _ in range(100):
            client.say(question)
            assert client.line() == answer
        assert client.rest() == b""
        lasted = time.monotonic() - began
    assert DRAIN - 0.2 < lasted < DRAIN + 2
    gateway.end(deadline=DRAIN)
    assert gateway.log.wait("session", service=protocol, phase="relaying")["reason"] == "shutdown"
    asked, over = gateway.log.events("stopping")
    # The idle one is there when the stop is told, and says goodbye at once.
    assert (asked["sessions"], over["sessions"]) == ("2", "1")
    seconds = (datetime.fromisoformat(asked["until"]) - moment(asked)).total_seconds()
    assert DRAIN - 1 <= seconds <= DRAIN
    assert abs((moment(over) - moment(asked)).total_seconds() - DRAIN) < 1
    assert "until" not in over
    backends[protocol].connection().wait_until_ended()


def test_a_session_in_the_splice_that_ends_by_itself_lets_the_gateway_go(
    gateway: Gateway, trusting: ssl.SSLContext
) -> None:
    with enter(gateway, trusting, "pop3") as client, secure(gateway, trusting, "imap") as idle:
        began = time.monotonic()
        gateway.terminate()
        assert idle.rest() == WORDS["imap"].shutdown
        client.say(b"QUIT\r\n")
        assert client.rest() == b"+OK bye\r\n"
        assert client.ending is Ending.CLOSE_NOTIFY
    gateway.end(deadline=DRAIN)
    assert time.monotonic() - began < DRAIN - 0.2


def test_a_message_under_way_is_taken_before_the_goodbye(
    gateway: Gateway, backends: dict[str, Backend], trusting: ssl.SSLContext
) -> None:
    with secure(gateway, trusting, "smtp") as client, secure(gateway, trusting, "imap") as idle:
        client.say(b"MAIL FROM:<a@example.test>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n")
        client.hear(rb"^354 [^\n]*\n")
        client.say(b"Subject: half\r\n\r\n")
        gateway.terminate()
        assert idle.rest() == WORDS["imap"].shutdown
        client.say(b"the other one\r\n.\r\n")
        assert client.rest() == b"250 2.0.0 Ok: queued\r\n" + WORDS["smtp"].shutdown
    gateway.end(deadline=DRAIN)
    ended = gateway.log.wait("session", service="smtp")
    assert (ended["reason"], ended["messages"]) == ("shutdown", "1")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_mail_is_acknowledged_however_late_the_backend_takes_it(
    tmp_path: Path, identity: Identity, trusting: ssl.SSLContext, workers: int
) -> None:
    """Between the end of the data and the reply, while the drain lasts: a cut would make the client send it again."""
    taken = threading.Event()

    def data(connection: Connection) -> None:
        connection.say(b"354 Go ahead\r\n")
        connection.until(b"\r\n.\r\n")
        taken.wait(DEADLINE)
        connection.say(b"250 2.0.0 Ok: queued\r\n")
        connection.line()  # QUIT

    backend = Backend(SERVERS["smtp"]({b"DATA": data}))
    with directory_for_servers() as directory:
        options = {"gateway": {"drain": "1 h", "control": f"{directory}/control", "workers": str(workers)}}
        gateway = launch(tmp_path, identity, [Service("smtp", backend.address)], options=options)
        try:
            with secure(gateway, trusting, "smtp") as client:
                client.say(b"MAIL FROM:<a@example.test>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n")
                client.hear(rb"^354 [^\n]*\n")
                client.say(b"Subject: slow\r\n\r\n")
                gateway.terminate()
                gateway.log.wait("stopping", sessions="1")
                client.say(b"the end\r\n.\r\n")
                backend.connection().wait_for(b"the end\r\n.\r\n")
                # The control socket answers to the end.
                draining = ask(f"{directory}/control", Request("status")).result["draining"]
                assert draining["sessions"] == 1
                assert 3500 < draining["left"] <= 3600
                taken.set()
                assert client.rest() == b"250 2.0.0 Ok: queued\r\n" + WORDS["smtp"].shutdown
            assert gateway.process.wait(DEADLINE) == 0
            ended = gateway.log.wait("session")
            assert (ended["reason"], ended["messages"]) == ("shutdown", "1")
            gateway.inspect()
        finally:
            taken.set()
            gateway.kill()
            backend.close()


def test_handshakes_and_dials_under_way_are_given_up(
    gateway: Gateway, backends: dict[str, Backend], trusting: ssl.SSLContext
) -> None:
    held = Backend(lambda connection: connection.read_on())
    try:
        backends["imap"].play(held.script)  # accepts and never greets
        with ExitStack() as stack:
            shaking = stack.enter_context(Client(gateway.address("smtp", "implicit")))
            waiting = stack.enter_context(Client(gateway.address("imap")))
            backends["imap"].connection()
            clear = stack.enter_context(Client(gateway.address("pop3")))
            clear.hear(WORDS["pop3"].greeting_)
            began = time.monotonic()
            gateway.terminate()
            assert clear.rest() == b""
            assert shaking.rest() == b""
            assert waiting.rest() in (b"", WORDS["imap"].shutdown, WORDS["imap"].unavailable)
            assert time.monotonic() - began < DRAIN + 1
        gateway.end(deadline=DRAIN + 1)
    finally:
        held.close()


LONG = {"gateway": {"drain": "1 h"}}
TERM, INT = signal.SIGTERM, signal.SIGINT


@pytest.mark.parametrize(("first", "second"), [(TERM, TERM), (INT, INT), (TERM, INT), (INT, TERM)])
def test_T20_a_second_signal_to_stop_ends_it_now(
    tmp_path: Path,
    identity: Identity,
    backends: dict[str, Backend],
    trusting: ssl.SSLContext,
    first: signal.Signals,
    second: signal.Signals,
) -> None:
    services = [Service(protocol, backend.address) for protocol, backend in backends.items()]
    with running(tmp_path, identity, services, options=LONG) as gateway:
        with ExitStack() as stack:
            clients = [stack.enter_context(enter(gateway, trusting, protocol)) for protocol in ("imap", "pop3")]
            mailing = stack.enter_context(secure(gateway, trusting, "smtp"))
            mailing.say(b"MAIL FROM:<a@example.test>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n")
            mailing.hear(rb"^354 [^\n]*\n")
            gateway.process.send_signal(first)
            asked = gateway.log.wait("stopping")
            assert asked["sessions"] == "3"
            assert (datetime.fromisoformat(asked["until"]) - moment(asked)).total_seconds() > 3590
            gateway.process.send_signal(second)
            for client in (*clients, mailing):
                assert client.rest() == b""
        assert gateway.process.wait(DEADLINE) == 0
        assert gateway.log.wait("stopping", count=2)["sessions"] == "3"
        assert [event["reason"] for event in gateway.log.events("session")] == ["shutdown"] * 3


def test_T20_two_signals_at_once(
    tmp_path: Path, identity: Identity, backends: dict[str, Backend], trusting: ssl.SSLContext
) -> None:
    """The second one comes before the first one is acted on, as it would from a process group."""
    with running(tmp_path, identity, [Service("imap", backends["imap"].address)], options=LONG) as gateway:
        with enter(gateway, trusting, "imap") as client:
            gateway.process.send_signal(signal.SIGSTOP)
            gateway.process.send_signal(signal.SIGINT)
            gateway.process.send_signal(signal.SIGTERM)
            gateway.process.send_signal(signal.SIGCONT)
            assert client.rest() == b""
        assert gateway.process.wait(DEADLINE) == 0
        assert gateway.log.wait("session")["reason"] == "shutdown"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_T19_no_other_signal_ends_a_session_or_the_gateway(
    tmp_path: Path, identity: Identity, backends: dict[str, Backend], trusting: ssl.SSLContext, number: signal.Signals
) -> None:
    with running(tmp_path, identity, [Service("imap", backends["imap"].address)], options=LONG) as gateway:
        with enter(gateway, trusting, "imap") as client, secure(gateway, trusting, "imap") as idle:
            gateway.process.send_signal(number)
            gateway.log.wait("signal", signal=number.name)
            gateway.terminate()
            assert idle.rest() == WORDS["imap"].shutdown
            gateway.process.send_signal(number)
            gateway.log.wait("signal", signal=number.name, count=2)
            client.say(b"n NOOP\r\n")
            assert client.line() == b"n OK NOOP by the backend\r\n"
        gateway.end()


def test_T19_at_SIGHUP_certificates_are_read_again_and_judged_at_once(
    tmp_path: Path, backends: dict[str, Backend]
) -> None:
    mine = Identity.issue(tmp_path)
    with running(tmp_path, mine, [Service("imap", backends["imap"].address)]) as gateway:
        other = tmp_path / "other"
        other.mkdir()
        fresh = Identity.issue(other)
        fresh.certificate.replace(mine.certificate)
        gateway.process.send_signal(signal.SIGHUP)
        told = gateway.log.wait("signal", signal="SIGHUP")
        assert (told["certificates"], told["log"]) == ("read", "none")
        # Before the answer, and so without the watch, which looks every five seconds.
        assert [event["state"] for event in gateway.log.events("certificate")] == ["loaded", "warning", "renewed"]
        secure(gateway, ssl.create_default_context(cafile=str(fresh.authority)), "imap").reset()
        mine.certificate.write_text("nothing of the kind\n")
        gateway.process.send_signal(signal.SIGHUP)
        gateway.log.wait("signal", signal="SIGHUP", count=2)
        states = [event["state"] for event in gateway.log.events("certificate")]
        assert states == ["loaded", "warning", "renewed", "refused"]
        # The old one is still served.
        secure(gateway, ssl.create_default_context(cafile=str(fresh.authority)), "imap").reset()


def test_it_stops_by_the_interrupt_key_too(
    tmp_path: Path, identity: Identity, backends: dict[str, Backend], trusting: ssl.SSLContext
) -> None:
    with running(tmp_path, identity, [Service("imap", backends["imap"].address)]) as gateway:
        secure(gateway, trusting, "imap").reset()  # so it runs, and has seen to its signals
        gateway.process.send_signal(signal.SIGINT)
        assert gateway.process.wait(DEADLINE) == 0


# --- descriptors ----------------------------------------------------------------------------------

DESCRIPTORS = 64
BUSY = b"421 4.7.0 gw.example.test Too many connections\r\n"
CROWD = 150


def test_without_descriptors_clients_are_turned_away_and_later_ones_served(
    tmp_path: Path, identity: Identity, backends: dict[str, Backend], trusting: ssl.SSLContext
) -> None:
    services = [Service(protocol, backends[protocol].address) for protocol in WORDS]
    options = {"timeouts": {"linger": "500 ms"}}
    with running(tmp_path, identity, services, options=options, descriptors=DESCRIPTORS) as gateway:
        with ExitStack() as stack:
            crowd = [stack.enter_context(Client(gateway.address("smtp"))) for _ in range(CROWD)]
            served = 0
            for client in crowd:
                # Each is greeted, or told that there is no room.
                first = client.line()
                served += first.startswith(b"220 ")
                assert first.startswith(b"220 ") or first == BUSY, first
            # Two for each, and as many for everything else.
            assert served == DESCRIPTORS // 4 == int(gateway.log.wait("limit-lowered")["value"])
            # Those who are inside can still use it.
            greeted = [client for client in crowd if client.ending is None and client.socket.fileno() >= 0]
            assert greeted
        check_recovery(gateway, trusting)
        assert gateway.log.events("descriptors-exhausted") == []
        gateway.log.wait("refused", count=CROWD - served)


def check_recovery(gateway: Gateway, trusting: ssl.SSLContext) -> None:
    """The gateway is as good as before, as soon as it has seen that everybody went."""
    until = time.monotonic() + DEADLINE
    while True:
        with Client(gateway.address("smtp")) as client:
            try:
                if client.line().startswith(b"220 "):
                    break
            except (AssertionError, ConnectionError):
                pass
        assert time.monotonic() < until, "it did not recover"
    for protocol in WORDS:
        with enter(gateway, trusting, protocol) as client:
            client.say(WORDS[protocol].quit)
            client.hear(WORDS[protocol].quit_)
            assert client.rest() == b""


def test_many_clients_are_served_at_once(
    gateway: Gateway, backends: dict[str, Backend], trusting: ssl.SSLContext
) -> None:
    since = gateway.log.mark()
    with ExitStack() as stack:
        clients = [
            (protocol, stack.enter_context(enter(gateway, trusting, protocol))) for _ in range(50) for protocol in WORDS
        ]
        for protocol, client in reversed(clients):
            client.say(WORDS[protocol].quit)
        for protocol, client in clients:
            client.hear(WORDS[protocol].quit_)
            assert client.rest() == b""
    gateway.log.wait("session", since, count=len(clients))
    assert {event["reason"] for event in gateway.log.events("session", since)} <= {
        "quit",
        "backend-closed",
        "client-closed",
    }


def test_a_connection_of_a_backend_is_given_back_with_its_session(
    gateway: Gateway, backends: dict[str, Backend], trusting: ssl.SSLContext
) -> None:
    def visit(count: int) -> None:
        since = gateway.log.mark()
        for _ in range(count):
            for protocol in PROTOCOLS:
                with enter(gateway, trusting, protocol) as client:
                    client.reset()
        gateway.log.wait("session", since, count=3 * count)

    visit(2)
    before = gateway.descriptors
    visit(30)
    wait_until(lambda: gateway.descriptors <= before)
