"""Who is let in, and that everybody who was is counted out again, whatever happens: the gateway at its door."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from gateway.app.ending import CUT
from gateway.app.service import Gateway
from gateway.config.values import TLS, Configuration, Control, Timeouts
from gateway.config.values import Limits as Values
from gateway.dialects.base import Policy, Terms
from gateway.guard.bans import MOST
from gateway.guard.limits import Limits, OwnLedger
from gateway.protocol.vocabulary import Await, Line, Script, Send, Side, Trouble
from gateway.sessions.session import Session
from gateway.telemetry.events import FORMATS, Events
from tests.memory.meeting import End, Meeting
from tests.memory.stepping import SteppedReactor, tcp_pair
from tests.memory.tls_peer import Authority
from tests.pure.contract.party import ANSWERS


class Door:
    """A gateway that nobody started but for this, and one context."""

    def __init__(self, meeting: Meeting, values: Values) -> None:
        self.reactor = meeting.reactor
        self.meeting = meeting
        self.lines: list[str] = []
        self.sink: Callable[[str], None] = self.lines.append
        self.ends: list[End] = []
        events = Events(lambda line: self.sink(line), FORMATS["json"])
        configuration = Configuration(
            "gw.example.org", 1.0, "json", TLS(()), (), values, Timeouts(), control=Control(None)
        )
        self.gateway = Gateway(configuration, events, self.reactor)
        self.gateway.startService()
        self.context = replace(meeting.context, events=self.gateway._summed)

    @property
    def limits(self) -> Limits:
        return self.gateway.crowd.limits

    @property
    def ledger(self) -> OwnLedger:
        assert isinstance(self.limits.ledger, OwnLedger)
        return self.limits.ledger

    @property
    def sessions(self) -> list[Session]:
        return list(self.gateway.crowd.sessions)

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in map(json.loads, self.lines) if event["event"] == name]

    def come(self, client: str = "192.0.2.1") -> End:
        far, near = tcp_pair()
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ends.append(End(far))
        self.meeting.clients.append(self.ends[-1])
        # An address that loopback does not have.
        sock = _From(near, client)
        try:
            self.gateway.crowd.accept(self.context, sock, (client, 40000))
        except Exception:
            sock.close()  # as the listener does
            raise
        return self.ends[-1]

    def hears(self, end: End, octets: bytes) -> None:
        self.meeting.hears(end, octets)

    def is_left(self, end: End) -> None:
        self.meeting.until(lambda: end.gone)

    def empty(self) -> None:
        """Until nobody is inside, however long that takes."""
        for _ in range(40):
            self.reactor.settle()
            if not self.sessions:
                break
            self.reactor.clock.advance(10.0)
        assert self.sessions == []
        assert self.limits.open == 0
        assert self.ledger.clients == 0

    def leave(self) -> None:
        for end in self.ends:
            end.sock.close()
        for _ in range(2):  # some may be dialled only now
            for end in self.meeting.dialer.backends:
                end.sock.close()
            self.empty()
        self.gateway.stopService()


class _From(socket.socket):
    """A socket that says whom it is of."""

    def __init__(self, sock: socket.socket, client: str) -> None:
        super().__init__(fileno=sock.detach())
        self._said = (client, 40000)

    def getpeername(self) -> Any:
        return self._said


Opening = Callable[..., Door]


@pytest.fixture
def opened(reactor: SteppedReactor, authority: Authority) -> Iterator[Opening]:
    doors: list[Door] = []

    def opened(protocol: str = "pop3", values: Values | None = None, **options: Any) -> Door:
        meeting = Meeting(reactor, authority, protocol, **options)
        meeting.dialer.addresses = 10_000
        meeting.dialer.greet = lambda end: end.say(ANSWERS[protocol].greeting)
        doors.append(Door(meeting, values or Values()))
        return doors[-1]

    yield opened
    for door in doors:
        door.leave()
    assert reactor.pending() == []


# --- who is turned away ----------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ANSWERS)
def test_K2_who_is_one_too_many_hears_so_and_others_are_served(opened: Opening, protocol: str) -> None:
    door = opened(protocol, Values(sessions_per_client=2), policy=Policy.AUTH_ONLY)
    inside = [door.come(), door.come("::ffff:192.0.2.1")]
    refused = door.come()
    door.hears(refused, ANSWERS[protocol].busy)
    door.is_left(refused)
    assert refused.ended
    assert not refused.reset
    (told,) = door.events("refused")
    assert (told["limit"], told["client"], told["service"]) == ("sessions-per-client", "192.0.2.1", "test")
    others = [*inside, door.come("192.0.2.2")]
    door.meeting.until(lambda: all(end.heard for end in others))
    assert all(end.heard.startswith(ANSWERS[protocol].greeting[:4]) for end in others)
    inside[0].break_off()
    door.meeting.until(lambda: len(door.sessions) == 2)
    door.meeting.until(lambda: door.come().heard == b"" and len(door.sessions) == 3)


def test_K2_early_words_do_not_destroy_ours(opened: Opening) -> None:
    door = opened(values=Values(connects_per_minute=1))
    door.come()
    far, near = tcp_pair()
    end = End(far)
    door.ends.append(end)
    end.say(b"EHLO me\r\nMAIL FROM:<a>\r\n")
    door.gateway.crowd.accept(door.context, near, ("192.0.2.1", 40000))
    end.pump()
    assert (end.heard, end.ended, end.reset) == (ANSWERS["pop3"].busy, True, False)
    assert door.events("refused")[0]["limit"] == "connects-per-minute"


def test_K2_where_TLS_comes_first_nothing_is_said_in_the_clear(opened: Opening) -> None:
    door = opened(values=Values(sessions=1), implicit=True)
    door.come()
    refused = door.come("192.0.2.2")
    door.is_left(refused)
    assert refused.raw == b""
    assert door.events("refused")[0]["limit"] == "sessions"


def test_K2_who_is_gone_before_it_is_turned_away(opened: Opening) -> None:
    door = opened(values=Values(connects_per_minute=1))
    door.come()
    far, near = tcp_pair()
    End(far).break_off()
    door.gateway.crowd.accept(door.context, near, ("192.0.2.1", 40000))
    assert near.fileno() == -1
    assert len(door.sessions) == 1


def test_L4_a_flood_at_the_limit_is_told_some_times_and_then_counted(opened: Opening) -> None:
    door = opened(values=Values(connects_per_minute=1))
    door.come()
    for _ in range(500):
        door.come().sock.close()
    assert 0 < len(door.events("refused")) < 20
    assert door.events("suppressed") == []
    for _ in range(7):
        door.reactor.advance(10.0)
    (told,) = door.events("suppressed")
    assert told["count"] + len(door.events("refused")) == 500
    assert (told["worst"], told["clients"]) == ("192.0.2.1", 1)
    assert not any(event["session"] for event in door.events("refused") if "session" in event)


def test_what_was_not_told_is_told_at_the_end(opened: Opening) -> None:
    door = opened(values=Values(connects_per_minute=1))
    for _ in range(100):
        door.come().sock.close()
    door.empty()
    assert door.events("suppressed") == []
    door.gateway.stopService()
    assert len(door.events("suppressed")) == 1


def test_L4_what_is_known_of_clients_is_given_up(opened: Opening) -> None:
    door = opened()
    for number in range(50):
        door.come(f"198.51.100.{number}").break_off()
    door.meeting.until(lambda: not door.sessions)
    assert len(door.ledger.connects._clients) == 50
    for _ in range(15):
        door.reactor.advance(10.0)
    assert len(door.ledger.connects._clients) == 0


# --- load balancers --------------------------------------------------------------------------------

HEADER = b"PROXY TCP4 203.0.113.%d 198.51.100.1 51000 25\r\n"


def test_H6_K2_clients_of_a_balancer_have_limits_of_their_own(opened: Opening) -> None:
    door = opened(values=Values(sessions_per_client=1), accept_proxy=["192.0.2.0/24"])
    ends = []
    for number in (7, 8):
        ends.append(door.come())
        ends[-1].say(HEADER % number)
        door.hears(ends[-1], ANSWERS["pop3"].greeting)
    third = door.come()
    third.say(HEADER % 7)
    door.hears(third, ANSWERS["pop3"].busy)
    door.is_left(third)
    assert door.ledger._open == {"203.0.113.7": 1, "203.0.113.8": 1}
    (told,) = door.events("refused")
    assert (told["limit"], told["client"]) == ("sessions-per-client", "203.0.113.7")
    third.sock.close()
    door.meeting.until(lambda: door.events("session"))
    assert door.events("session")[0]["reason"] == "refused"
    # Who is refused has left as the balancer, whom nobody counts.
    assert (door.limits.open, door.ledger.clients) == (2, 2)
    ends[0].break_off()
    door.meeting.until(lambda: len(door.sessions) == 1)
    fourth = door.come()
    fourth.say(HEADER % 7)
    door.hears(fourth, ANSWERS["pop3"].greeting)


def test_H6_K2_the_limit_of_all_holds_before_the_header(opened: Opening) -> None:
    door = opened(values=Values(sessions=1), accept_proxy=["192.0.2.0/24"])
    door.come()
    refused = door.come()
    door.hears(refused, ANSWERS["pop3"].busy)
    assert door.events("refused")[0]["limit"] == "sessions"


# --- who is banned ---------------------------------------------------------------------------------

HOUR = 3600.0


def ban(door: Door, *networks: str) -> None:
    for one in networks:
        door.gateway._acting.bans.add(ip_network(one), time.time() + HOUR)


@pytest.mark.parametrize("protocol", ANSWERS)
def test_who_is_banned_is_turned_away_before_the_greeting_and_others_are_served(opened: Opening, protocol: str) -> None:
    door = opened(protocol)
    ban(door, "192.0.2.0/25")
    refused = [door.come(), door.come("::ffff:192.0.2.2")]
    door.meeting.until(lambda: all(end.gone for end in refused))
    assert {end.heard for end in refused} == {ANSWERS[protocol].busy}
    told = door.events("refused")
    assert [(one["limit"], one["client"]) for one in told] == [("banned", "192.0.2.1"), ("banned", "192.0.2.2")]
    assert (door.sessions, door.meeting.dialer.backends, door.events("session")) == ([], [], [])
    served = door.come("192.0.2.128")
    door.meeting.until(lambda: served.heard != b"")
    assert served.heard.startswith(ANSWERS[protocol].greeting[:4])


def test_who_is_banned_hears_nothing_where_TLS_comes_first(opened: Opening) -> None:
    door = opened(implicit=True)
    ban(door, "192.0.2.1")
    refused = door.come()
    door.is_left(refused)
    assert (refused.raw, door.sessions) == (b"", [])


def test_a_banned_client_of_a_balancer_is_known_by_its_header(opened: Opening) -> None:
    door = opened(accept_proxy=["192.0.2.0/24"])
    # The balancer is in the banned network, too; that is nothing to its clients.
    ban(door, "203.0.113.7", "192.0.2.0/23")
    banned, other = door.come(), door.come()
    banned.say(HEADER % 7)
    other.say(HEADER % 8)
    door.hears(banned, ANSWERS["pop3"].busy)
    door.is_left(banned)
    door.hears(other, ANSWERS["pop3"].greeting)
    (told,) = door.events("refused")
    assert (told["limit"], told["client"]) == ("banned", "203.0.113.7")


def calls(act: Callable[[], object]) -> int:
    """Functions that are called, of Python and of C."""
    found = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal found
        found += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        act()
    finally:
        sys.setprofile(None)
    return found


def test_a_refusal_costs_the_same_with_one_ban_and_with_all_there_can_be(opened: Opening) -> None:
    door = opened()

    def refused() -> int:
        far, near = tcp_pair()
        door.ends.append(End(far))
        return calls(lambda: door.gateway.crowd.accept(door.context, near, ("192.0.2.1", 40000)))

    ban(door, "192.0.2.1")
    for _ in range(30):
        refused()  # until the budget of lines is spent
    one = refused()
    ban(door, *(f"198.18.{number >> 8}.{number & 255}" for number in range(MOST - 1)))
    # Measured: 140 us of CPU, with the kernel's.  A session costs thousands of calls.
    assert refused() <= one <= 200


# --- failed logins ---------------------------------------------------------------------------------


def test_E12_failed_logins_are_counted_over_sessions(opened: Opening) -> None:
    door = opened(values=Values(auth_failures_per_minute=3), policy=Policy.OPTIONAL)
    later = b"-ERR [SYS/TEMP] Temporary authentication failure\r\n"

    def try_it(client: str) -> bytes:
        end = door.come(client)
        door.hears(end, ANSWERS["pop3"].greeting)
        backend = door.meeting.dialer.backends[-1]
        end.say(b"APOP joe 0123\r\n")
        door.meeting.until(lambda: end.heard or backend.heard)
        if backend.heard:
            backend.say(b"-ERR [AUTH] no\r\n")
            door.meeting.until(lambda: end.heard)
        heard = end.heard
        end.break_off()
        return heard

    assert [try_it("192.0.2.1") for _ in range(5)] == [b"-ERR [AUTH] no\r\n"] * 3 + [later] * 2
    assert try_it("192.0.2.2") == b"-ERR [AUTH] no\r\n"
    assert [event["limit"] for event in door.events("refused")] == ["auth-failures-per-minute"] * 2
    assert [event["result"] for event in door.events("auth")] == ["failed"] * 4
    door.reactor.clock.advance(71.0)
    assert try_it("192.0.2.1") == b"-ERR [AUTH] no\r\n"


def test_who_logged_in_or_has_a_mail_under_way_is_told_as_proven(opened: Opening) -> None:
    door = opened(policy=Policy.OPTIONAL)
    end = door.come()
    door.hears(end, ANSWERS["pop3"].greeting)
    end.say(b"APOP joe 0123\r\n")
    door.meeting.hears(door.meeting.backend, b"APOP joe 0123\r\n")
    door.meeting.backend.say(b"+OK in\r\n")
    door.hears(end, b"+OK in\r\n")
    end.break_off()
    door.meeting.until(lambda: not door.sessions)
    door.come().break_off()
    door.meeting.until(lambda: not door.sessions)
    assert [event.get("proven") for event in door.events("session")] == [True, None]


# --- everybody leaves ------------------------------------------------------------------------------


def scripted(door: Door, script: Callable[[Terms], Script]) -> None:
    door.context = replace(door.context, dialect=replace(door.context.dialect, script=script))


def test_K12_a_bug_before_the_first_word(opened: Opening) -> None:
    door = opened()

    def buggy(terms: Terms) -> Script:
        yield Send(Side.CLIENT, b"hi\r\n")
        raise ZeroDivisionError

    scripted(door, buggy)
    with pytest.raises(ZeroDivisionError):
        door.come()
    door.meeting.until(lambda: not door.sessions)
    assert door.limits.open == 0


def test_K12_a_bug_before_there_is_a_session(opened: Opening) -> None:
    door = opened()

    def impossible(terms: Terms) -> Script:
        raise ZeroDivisionError

    scripted(door, impossible)
    with pytest.raises(ZeroDivisionError):
        door.come()
    assert (door.sessions, door.limits.open) == ([], 0)


class Complaints:
    """What Twisted was told of."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[str] = []

        def critical(form: str, **fields: object) -> None:
            self.told.append(form.format(**fields))

        monkeypatch.setattr("gateway.wire.leg.Leg._log", type("Deaf", (), {"critical": staticmethod(critical)}))


@pytest.mark.parametrize("side", list(Side))
def test_K12_a_bug_in_the_middle(opened: Opening, monkeypatch: pytest.MonkeyPatch, side: Side) -> None:
    door = opened()
    complaints = Complaints(monkeypatch)
    plain = door.context.dialect.script

    def buggy(terms: Terms) -> Script:
        script = plain(terms)
        answer: Any = None
        while True:
            request = script.send(answer)
            answer = yield request
            if isinstance(request, Await) and isinstance(answer, Line) and answer.side is side:
                raise ZeroDivisionError

    scripted(door, buggy)
    end = door.come()
    end.say(b"CAPA\r\n")
    door.meeting.until(lambda: complaints.told)
    with suppress(Trouble):  # the reactor would log what the deadline brings
        door.empty()
    door.empty()


def test_a_log_that_cannot_be_written_keeps_nobody_inside(opened: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    door = opened()
    complaints = Complaints(monkeypatch)
    end = door.come()
    door.hears(end, ANSWERS["pop3"].greeting)

    def full(line: str) -> None:
        raise OSError("No space left on device")

    door.sink = full
    end.break_off()
    door.meeting.until(lambda: not door.sessions)
    assert door.limits.open == 0
    assert complaints.told
    door.sink = door.lines.append


def test_everybody_leaves_when_the_gateway_stops(opened: Opening) -> None:
    door = opened()
    ends = [door.come(f"192.0.2.{number}") for number in range(5)]
    for end in ends:
        door.hears(end, ANSWERS["pop3"].greeting)
    door.gateway.stopService()
    for end in ends:
        end.sock.close()
    door.empty()
    assert {event["reason"] for event in door.events("session")} == {"shutdown"}


def test_K12_a_bug_in_one_goodbye_keeps_nobody_from_another(opened: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    door = opened()
    complained: list[str] = []
    critical = staticmethod(lambda form, **fields: complained.append(form.format(**fields)))
    monkeypatch.setattr("gateway.app.crowd._log", type("Deaf", (), {"critical": critical}))
    ends = [door.come(f"192.0.2.{number}") for number in range(3)]
    for end in ends:
        door.hears(end, ANSWERS["pop3"].greeting)
    monkeypatch.setattr(door.sessions[1], "_negotiation", None)
    assert door.gateway.stopService() is not None
    assert complained == ["a bug at the end of one session: AttributeError"]
    monkeypatch.undo()
    for end in ends:
        end.sock.close()
    door.empty()


def test_T20_whoever_is_asked_to_hurry_first_stops_at_once(opened: Opening) -> None:
    """The second signal may be acted on before the first one has reached the services."""
    door = opened()
    door.hears(door.come(), ANSWERS["pop3"].greeting)
    door.gateway.hurry()
    stopped = door.gateway.stopService()
    assert stopped is not None
    over: list[object] = []
    stopped.addCallback(over.append)
    door.reactor.settle()
    assert over == [None]
    assert [event["reason"] for event in door.events("session")] == ["shutdown"]
    assert [event["sessions"] for event in door.events("stopping")] == [1]


def test_T20_a_bug_in_a_session_does_not_keep_the_gateway_from_its_end(
    opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = opened()
    door.hears(door.come(), ANSWERS["pop3"].greeting)
    monkeypatch.setattr("gateway.app.crowd._log", type("Deaf", (), {"critical": staticmethod(lambda *_, **__: None)}))
    with monkeypatch.context() as broken:
        broken.setattr(door.sessions[0], "_negotiation", None)
        broken.setattr(type(door.sessions[0]), "abort", lambda *_: 1 / 0)
        stopped = door.gateway.stopService()
        assert stopped is not None
        over: list[object] = []
        stopped.addCallback(over.append)
        door.gateway.hurry()
        door.reactor.settle()
        assert over == []
        door.reactor.clock.advance(CUT)
        assert over == [None]


def test_fewer_sessions_than_wanted_are_told(opened: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.app.crowd.raise_descriptor_limit", lambda: 200)
    door = opened()
    (told,) = door.events("limit-lowered")
    assert (told["limit"], told["wanted"], told["value"]) == ("sessions", 10000, 68)
    assert door.limits.values.sessions == 68
    assert opened(values=Values(sessions=68)).events("limit-lowered") == []


def test_T23_what_nobody_misses_is_not_told(opened: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.app.crowd.raise_descriptor_limit", lambda: 20_000)
    door = opened()
    assert door.events("limit-lowered") == []
    assert door.limits.values.sessions == 9968


# --- how slow a message may be ---------------------------------------------------------------------


def mailing(door: Door) -> End:
    end = door.come()
    door.hears(end, ANSWERS["smtp"].greeting)
    backend = door.meeting.backend
    for command, reply in (
        (b"HELO me\r\n", b"250 hi\r\n"),
        (b"MAIL FROM:<a@example.org>\r\n", b"250 ok\r\n"),
        (b"RCPT TO:<b@example.org>\r\n", b"250 ok\r\n"),
        (b"DATA\r\n", b"354 go\r\n"),
    ):
        end.say(command)
        door.hears(backend, command)
        backend.say(reply)
        door.hears(end, reply)
    return end


@pytest.mark.parametrize("octets", [0, 1, 900])
def test_K1_a_message_that_trickles_is_given_up(opened: Opening, octets: int) -> None:
    door = opened("smtp", policy=Policy.OPTIONAL)
    end = mailing(door)
    backend = door.meeting.backend
    began = door.reactor.seconds()
    while not end.gone and door.reactor.seconds() < began + 2000:
        end.say(b"x" * octets)
        door.meeting.advance(10.0)
    seconds = door.reactor.seconds() - began
    # 60 seconds, and one for each hundred octets; it is looked at every ten.
    assert 60.0 <= seconds <= 60.0 / (1 - octets / 1000) + 11.0
    assert end.heard == b"421 4.4.2 gw.example.org Timeout exceeded\r\n"
    assert backend.gone
    assert b"\r\n.\r\n" not in backend.heard
    assert door.events("client-timeout")[0]["detail"] == "waiting for: data"
    end.sock.close()


def test_the_time_for_a_message_is_configured(opened: Opening) -> None:
    door = opened("smtp", policy=Policy.OPTIONAL, timeouts=Timeouts(message=20.0, message_rate=1000))
    end = mailing(door)
    began = door.reactor.seconds()
    while not end.gone and door.reactor.seconds() < began + 200:
        end.say(b"x" * 500)
        door.meeting.advance(1.0)
    # s seconds bring 500 * s octets, which allow 20 + s / 2 seconds: over at s = 40.
    assert 39.0 <= door.reactor.seconds() - began <= 43.0
    assert door.events("client-timeout")[0]["detail"] == "waiting for: data"
    end.sock.close()


def test_K1_a_slow_message_goes_through(opened: Opening) -> None:
    door = opened("smtp", policy=Policy.OPTIONAL)
    end = mailing(door)
    for _ in range(120):
        end.say(b"x" * 998 + b"\r\n")
        door.meeting.advance(10.0)
    end.say(b".\r\n")
    door.meeting.until(lambda: door.meeting.backend.heard.endswith(b"\r\n.\r\n"))
    door.meeting.backend.say(b"250 queued\r\n")
    door.hears(end, b"250 queued\r\n")


def test_K1_each_message_has_its_own_time(opened: Opening) -> None:
    door = opened("smtp", policy=Policy.OPTIONAL)
    end = mailing(door)
    door.meeting.advance(50.0)
    end.say(b"hi\r\n.\r\n")
    door.hears(door.meeting.backend, b"hi\r\n.\r\n")
    door.meeting.backend.say(b"250 queued\r\n")
    door.hears(end, b"250 queued\r\n")
    door.meeting.advance(300.0)
    end.say(b"MAIL FROM:<a@example.org>\r\n")
    door.hears(door.meeting.backend, b"MAIL FROM:<a@example.org>\r\n")
    assert not end.gone
