"""How it ends: at a stop sessions finish within the drain time, and without descriptors it waits for better times."""

from __future__ import annotations

import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path

import pytest

from gateway.app.control.messages import Request
from gateway.cli.steer.command import ask
from tests.process.conftest import Front, Opening, directory_for_servers
from tests.process.legacy import SERVERS
from tests.process.recording import Backend, Connection
from tests.process.running import DEADLINE, Event, Gateway, Identity, Service, launch, running, wait_until
from tests.process.wire import Client, Ending
from tests.process.words import GREETING, LINES, WORDS

PROTOCOLS = tuple(LINES)
DRAIN = 2.0


@pytest.fixture
def front(opened: Opening) -> Iterator[Front]:
    with opened(*PROTOCOLS, gateway={"drain": f"{DRAIN:.0f} s"}, timeouts={"linger": "500 ms"}) as front:
        yield front


def moment(event: Event) -> datetime:
    return datetime.fromisoformat(event["time"].replace("Z", "+00:00"))


def check_closed(gateway: Gateway) -> None:
    """Nobody can come in any more."""
    for protocol in PROTOCOLS:
        for mode in ("starttls", "implicit"):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(gateway.address(protocol, mode), timeout=DEADLINE)


def test_a_gateway_without_sessions_stops_at_once(front: Front) -> None:
    front.secure("imap", "implicit").reset()
    front.gateway.log.wait("session")
    front.gateway.terminate()
    front.gateway.end(deadline=DRAIN)
    check_closed(front.gateway)


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


def test_sessions_at_a_boundary_get_the_goodbye_of_their_protocol(front: Front) -> None:
    began = time.monotonic()
    with ExitStack() as stack:
        clients = []
        for protocol, words in LINES.items():
            clear = stack.enter_context(Client(front.gateway.address(protocol)))
            clear.hear(words.greeting_)
            clients += [(protocol, clear), (protocol, stack.enter_context(front.secure(protocol, "implicit")))]
        front.gateway.terminate()
        for protocol, client in clients:
            assert client.rest() == LINES[protocol].shutdown
        check_closed(front.gateway)
    front.gateway.end(deadline=DRAIN)
    assert time.monotonic() - began < DRAIN + 1
    assert [event["reason"] for event in front.gateway.log.events("session")] == ["shutdown"] * len(clients)
    for protocol in PROTOCOLS:
        # Without a greeting nobody was dialled in the clear.
        for _ in range(2 if protocol in GREETING else 1):
            backend = front.backends[protocol].connection()
            assert backend.wait_until_ended() == "fin"
            assert backend.heard.endswith(LINES[protocol].polite)


@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_T20_a_session_in_the_splice_goes_on_until_the_drain_time_is_over(front: Front, protocol: str) -> None:
    question, answer = {"imap": (b"n NOOP\r\n", b"n OK NOOP by the backend\r\n"),
                        "pop3": (b"NOOP\r\n", b"+OK NOOP by the backend\r\n")}[protocol]  # fmt: skip
    with front.enter(protocol, "implicit") as client, front.secure("imap", "implicit") as idle:
        began = time.monotonic()
        front.gateway.terminate()
        assert idle.rest() == WORDS["imap"].shutdown  # so the stop has been heard
        check_closed(front.gateway)
        for _ in range(100):
            client.say(question)
            assert client.line() == answer
        assert client.rest() == b""
        lasted = time.monotonic() - began
    assert DRAIN - 0.2 < lasted < DRAIN + 2
    front.gateway.end(deadline=DRAIN)
    assert front.gateway.log.wait("session", service=protocol, phase="relaying")["reason"] == "shutdown"
    asked, over = front.gateway.log.events("stopping")
    # The idle one is there when the stop is told, and says goodbye at once.
    assert (asked["sessions"], over["sessions"]) == ("2", "1")
    seconds = (datetime.fromisoformat(asked["until"]) - moment(asked)).total_seconds()
    assert DRAIN - 1 <= seconds <= DRAIN
    assert abs((moment(over) - moment(asked)).total_seconds() - DRAIN) < 1
    assert "until" not in over
    front.backends[protocol].connection().wait_until_ended()


def test_a_session_in_the_splice_that_ends_by_itself_lets_the_gateway_go(front: Front) -> None:
    with front.enter("pop3", "implicit") as client, front.secure("imap", "implicit") as idle:
        began = time.monotonic()
        front.gateway.terminate()
        assert idle.rest() == WORDS["imap"].shutdown
        client.say(b"QUIT\r\n")
        assert client.rest() == b"+OK bye\r\n"
        assert client.ending is Ending.CLOSE_NOTIFY
    front.gateway.end(deadline=DRAIN)
    assert time.monotonic() - began < DRAIN - 0.2


def test_a_message_under_way_is_taken_before_the_goodbye(front: Front) -> None:
    with front.secure("smtp", "implicit") as client, front.secure("imap", "implicit") as idle:
        client.say(b"MAIL FROM:<a@example.test>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n")
        client.hear(rb"^354 [^\n]*\n")
        client.say(b"Subject: half\r\n\r\n")
        front.gateway.terminate()
        assert idle.rest() == WORDS["imap"].shutdown
        client.say(b"the other one\r\n.\r\n")
        assert client.rest() == b"250 2.0.0 Ok: queued\r\n" + WORDS["smtp"].shutdown
    front.gateway.end(deadline=DRAIN)
    ended = front.gateway.log.wait("session", service="smtp")
    assert (ended["reason"], ended["messages"]) == ("shutdown", "1")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_mail_is_acknowledged_however_late_the_backend_takes_it(opened: Opening, workers: int) -> None:
    """Between the end of the data and the reply, while the drain lasts: a cut would make the client send it again."""
    taken = threading.Event()

    def data(connection: Connection) -> None:
        connection.say(b"354 Go ahead\r\n")
        connection.until(b"\r\n.\r\n")
        taken.wait(DEADLINE)
        connection.say(b"250 2.0.0 Ok: queued\r\n")
        connection.line()  # QUIT

    with ExitStack() as stack:
        directory = stack.enter_context(directory_for_servers())
        control = {"drain": "1 h", "control": f"{directory}/control", "workers": str(workers)}
        front = stack.enter_context(opened("smtp", gateway=control))
        stack.callback(taken.set)
        gateway, backend = front.gateway, front.backends["smtp"]
        backend.play(SERVERS["smtp"]({b"DATA": data}))
        with front.secure("smtp", "implicit") as client:
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


def test_handshakes_and_dials_under_way_are_given_up(front: Front) -> None:
    held = Backend(lambda connection: connection.read_on())
    try:
        front.backends["imap"].play(held.script)  # accepts and never greets
        with ExitStack() as stack:
            shaking = stack.enter_context(Client(front.gateway.address("smtp", "implicit")))
            waiting = stack.enter_context(Client(front.gateway.address("imap")))
            front.backends["imap"].connection()
            clear = stack.enter_context(Client(front.gateway.address("pop3")))
            clear.hear(WORDS["pop3"].greeting_)
            began = time.monotonic()
            front.gateway.terminate()
            assert clear.rest() == b""
            assert shaking.rest() == b""
            assert waiting.rest() in (b"", WORDS["imap"].shutdown, WORDS["imap"].unavailable)
            assert time.monotonic() - began < DRAIN + 1
        front.gateway.end(deadline=DRAIN + 1)
    finally:
        held.close()


LONG = {"drain": "1 h"}
TERM, INT = signal.SIGTERM, signal.SIGINT


@pytest.mark.parametrize(("first", "second"), [(TERM, TERM), (INT, INT), (TERM, INT), (INT, TERM)])
def test_T20_a_second_signal_to_stop_ends_it_now(
    opened: Opening, first: signal.Signals, second: signal.Signals
) -> None:
    with opened(*PROTOCOLS, gateway=LONG) as front:
        gateway = front.gateway
        with ExitStack() as stack:
            clients = [stack.enter_context(front.enter(protocol, "implicit")) for protocol in ("imap", "pop3")]
            mailing = stack.enter_context(front.secure("smtp", "implicit"))
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


def test_T20_two_signals_at_once(opened: Opening) -> None:
    """The second one comes before the first one is acted on, as it would from a process group."""
    with opened("imap", gateway=LONG) as front:
        gateway = front.gateway
        with front.enter("imap", "implicit") as client:
            gateway.process.send_signal(signal.SIGSTOP)
            gateway.process.send_signal(signal.SIGINT)
            gateway.process.send_signal(signal.SIGTERM)
            gateway.process.send_signal(signal.SIGCONT)
            assert client.rest() == b""
        assert gateway.process.wait(DEADLINE) == 0
        assert gateway.log.wait("session")["reason"] == "shutdown"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_T19_no_other_signal_ends_a_session_or_the_gateway(opened: Opening, number: signal.Signals) -> None:
    with opened("imap", gateway=LONG) as front:
        gateway = front.gateway
        with front.enter("imap", "implicit") as client, front.secure("imap", "implicit") as idle:
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
    tmp_path: Path,
) -> None:
    mine = Identity.issue(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    fresh = Identity.issue(other)
    opened = Opening(tmp_path, mine, ssl.create_default_context(cafile=str(fresh.authority)))
    with opened("imap") as front:
        gateway = front.gateway
        fresh.certificate.replace(mine.certificate)
        gateway.process.send_signal(signal.SIGHUP)
        told = gateway.log.wait("signal", signal="SIGHUP")
        assert (told["certificates"], told["log"]) == ("read", "none")
        # Before the answer, and so without the watch, which looks every five seconds.
        assert [event["state"] for event in gateway.log.events("certificate")] == ["loaded", "warning", "renewed"]
        front.secure("imap", "implicit").reset()
        mine.certificate.write_text("nothing of the kind\n")
        gateway.process.send_signal(signal.SIGHUP)
        gateway.log.wait("signal", signal="SIGHUP", count=2)
        states = [event["state"] for event in gateway.log.events("certificate")]
        assert states == ["loaded", "warning", "renewed", "refused"]
        # The old one is still served.
        front.secure("imap", "implicit").reset()


def test_it_stops_by_the_interrupt_key_too(opened: Opening) -> None:
    with opened("imap") as front:
        gateway = front.gateway
        front.secure("imap", "implicit").reset()  # so it runs, and has seen to its signals
        gateway.process.send_signal(signal.SIGINT)
        assert gateway.process.wait(DEADLINE) == 0


# --- descriptors ----------------------------------------------------------------------------------

DESCRIPTORS = 64
BUSY = b"421 4.7.0 gw.example.test Too many connections\r\n"
CROWD = 150


def test_without_descriptors_clients_are_turned_away_and_later_ones_served(
    tmp_path: Path, identity: Identity, trusting: ssl.SSLContext
) -> None:
    with ExitStack() as servers:
        backends = {name: servers.enter_context(closing(Backend(SERVERS[name](None)))) for name in WORDS}
        services = [Service(protocol, backend.address) for protocol, backend in backends.items()]
        options = {"timeouts": {"linger": "500 ms"}}
        gateway = servers.enter_context(running(tmp_path, identity, services, options, descriptors=DESCRIPTORS))
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
        check_recovery(Front(gateway, backends, trusting))
        assert gateway.log.events("descriptors-exhausted") == []
        gateway.log.wait("refused", count=CROWD - served)


def check_recovery(front: Front) -> None:
    """The gateway is as good as before, as soon as it has seen that everybody went."""
    until = time.monotonic() + DEADLINE
    while True:
        with Client(front.gateway.address("smtp")) as client:
            try:
                if client.line().startswith(b"220 "):
                    break
            except (AssertionError, ConnectionError):
                pass
        assert time.monotonic() < until, "it did not recover"
    for protocol in WORDS:
        with front.enter(protocol, "implicit") as client:
            client.say(WORDS[protocol].quit)
            client.hear(WORDS[protocol].quit_)
            assert client.rest() == b""


def test_many_clients_are_served_at_once(front: Front) -> None:
    since = front.gateway.log.mark()
    with ExitStack() as stack:
        clients = [
            (protocol, stack.enter_context(front.enter(protocol, "implicit"))) for _ in range(50) for protocol in WORDS
        ]
        for protocol, client in reversed(clients):
            client.say(WORDS[protocol].quit)
        for protocol, client in clients:
            client.hear(WORDS[protocol].quit_)
            assert client.rest() == b""
    front.gateway.log.wait("session", since, count=len(clients))
    assert {event["reason"] for event in front.gateway.log.events("session", since)} <= {
        "quit",
        "backend-closed",
        "client-closed",
    }


def test_a_connection_of_a_backend_is_given_back_with_its_session(front: Front) -> None:
    def visit(count: int) -> None:
        since = front.gateway.log.mark()
        for _ in range(count):
            for protocol in PROTOCOLS:
                with front.enter(protocol, "implicit") as client:
                    client.reset()
        front.gateway.log.wait("session", since, count=3 * count)

    visit(2)
    before = front.gateway.descriptors
    visit(30)
    wait_until(lambda: front.gateway.descriptors <= before)
