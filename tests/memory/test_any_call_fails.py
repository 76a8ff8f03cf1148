"""Whatever call goes wrong, and whenever, ends one session: each operation of a whole session fails once."""

from __future__ import annotations

import errno
import gc
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from gateway.sessions.session import Session
from tests.memory.meeting import End, Meeting
from tests.memory.stepping import SteppedReactor, unix_pair
from tests.memory.tls_peer import Authority

TLS = b"TLS begins here"
"""A step of the client's that is no octets."""
LEAVES = b"both sides close"

Steps = Sequence[tuple[str, bytes]]
"""Who says what."""

TALKS: Mapping[str, Steps] = {
    "smtp": (
        *(("backend", b"220 hi\r\n"), ("client", b"EHLO me\r\n"), ("backend", b"250-old\r\n250 SIZE\r\n")),
        *(("client", b"STARTTLS\r\n"), ("client", TLS), ("client", b"EHLO me\r\n")),
        *(("backend", b"250-old\r\n250 AUTH PLAIN\r\n"), ("client", b"AUTH PLAIN AGEAYg==\r\n")),
        ("backend", b"235 in\r\n"),
        *(("client", b"MAIL FROM:<a@x>\r\n"), ("backend", b"250 ok\r\n"), ("client", b"RCPT TO:<b@x>\r\n")),
        *(("backend", b"250 ok\r\n"), ("client", b"DATA\r\n"), ("backend", b"354 go\r\n")),
        *(("client", b"Subject: x\r\n\r\nhi\r\n"), ("client", b".\r\n"), ("backend", b"250 queued\r\n")),
        *(("client", b"QUIT\r\n"), ("backend", b"221 bye\r\n"), ("both", LEAVES)),
    ),
    "imap": (
        *(("backend", b"* OK hi\r\n"), ("client", b"a STARTTLS\r\n"), ("client", TLS), ("client", b"b CAPABILITY\r\n")),
        *(("backend", b"* CAPABILITY IMAP4rev1\r\nb OK done\r\n"), ("client", b"c LOGIN {3}\r\n")),
        *(("backend", b"+ go\r\n"), ("client", b"joe secret\r\n"), ("backend", b"c OK in\r\n")),
        *(("client", b"d NOOP\r\n"), ("backend", b"d OK\r\n")),
        *(("client", b"e LOGOUT\r\n"), ("backend", b"* BYE bye\r\ne OK bye\r\n"), ("both", LEAVES)),
    ),
    "pop3": (
        *(("backend", b"+OK hi\r\n"), ("client", b"STLS\r\n"), ("client", TLS), ("client", b"USER joe\r\n")),
        *(("backend", b"+OK\r\n"), ("client", b"PASS secret\r\n"), ("backend", b"+OK in\r\n"), ("client", b"STAT\r\n")),
        *(("backend", b"+OK 0 0\r\n"), ("client", b"QUIT\r\n"), ("backend", b"+OK bye\r\n"), ("both", LEAVES)),
    ),
}  # fmt: skip
LAST_WORDS = {"smtp": b"221 bye\r\n", "imap": b"e OK bye\r\n", "pop3": b"+OK bye\r\n"}

PROVEN = {"smtp": 9, "imap": 9, "pop3": 7}
"""Steps until the client is logged in."""
NOOPS: Mapping[str, Steps] = {
    "smtp": (("client", b"NOOP\r\n"), ("backend", b"250 ok\r\n")),
    "imap": (("client", b"z NOOP\r\n"), ("backend", b"z OK done\r\n")),
    "pop3": (("client", b"NOOP\r\n"), ("backend", b"+OK done\r\n")),
}

LINGER = 3.0
"""Seconds for the other end to close in turn (`[timeouts] linger`)."""

Fault = Callable[[], Exception]


def timed_out() -> OSError:
    return OSError(errno.ETIMEDOUT, "timed out")


SOCKET = ("recv", "send", "shutdown")
HALF = ("start", "feed", "outgoing", "encrypt", "close_notify")
LAST_CALL = "Session.leg_closed"
"""Fails at its end: were it not made at all, nobody would ever know."""
OWNER = ("leg_secured", "leg_tls_failed", "leg_ended", "leg_pressed", "leg_closed", "_received")


class Saboteur:
    """Counts the operations of one session, and has the `nth` of them fail."""

    def __init__(self, nth: int = 0, error: Fault = ZeroDivisionError) -> None:
        self.nth = nth
        self.error = error
        self.calls: list[str] = []

    def counting(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            self.calls.append(name)
            fails = len(self.calls) == self.nth
            if fails and name != LAST_CALL:
                raise self.error()
            result = act(*args)
            if fails:
                raise self.error()
            return result

        return counted

    @property
    def struck(self) -> str:
        return self.calls[self.nth - 1] if 0 < self.nth <= len(self.calls) else ""


class Sabotaged:
    """A socket or a TLS half, some of whose methods are counted."""

    def __init__(self, real: Any, saboteur: Saboteur, names: Sequence[str]) -> None:
        self._real = real
        for name in names:
            setattr(self, name, saboteur.counting(f"{type(real).__name__}.{name}", getattr(real, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class Watched(Session):
    """A session with a dictionary, in which its methods can be counted."""


@dataclass
class Visit:
    """A session, and what its two sides did."""

    session: Session
    client: End
    backends: Sequence[End]
    """Another one is dialled if the first goes before it has greeted."""


@dataclass
class Place:
    """One context, and a reactor that survives what is raised into it."""

    meeting: Meeting
    raised: list[Exception] = field(default_factory=list)
    opened: list[socket.socket] = field(default_factory=list)

    def step(self) -> bool:
        try:
            return self.meeting.reactor.step()
        except Exception as error:
            self.raised.append(error)  # the reactor logs it, and goes on
            return True

    def rest(self) -> None:
        """Until nothing happens.  On UNIX sockets nothing is under way."""
        idle = 0
        while idle < 2:
            self.meeting.pump()
            idle = 0 if self.step() else idle + 1

    def come(self, saboteur: Saboteur) -> Visit:
        meeting = self.meeting
        meeting.dialer.pair = lambda: self._sabotaged_pair(saboteur)

        def accept(address: str, name: bytes) -> Any:
            return Sabotaged(meeting._accept_tls(address, name), saboteur, HALF)

        near, far = self._sabotaged_pair(saboteur)
        context = replace(meeting.context, accept_tls=accept)
        session = Watched(meeting.reactor, context, near, "", meeting.closed.append)
        meeting.sessions.append(session)
        for name in OWNER:
            setattr(session, name, saboteur.counting(f"Session.{name}", getattr(session, name)))
        session._client.deliver = saboteur.counting("Session._received", session._client.deliver)
        client = End(far)
        meeting.clients.append(client)
        dialled = len(meeting.dialer.backends)
        meeting.dialer.addresses = dialled + 1
        try:
            session.start()
        except Exception as error:
            self.raised.append(error)
            session.abort()  # as the service does
        self.rest()
        return Visit(session, client, meeting.dialer.backends[dialled:])

    def play(self, visit: Visit, steps: Steps) -> None:
        for who, octets in steps:
            ends = {"client": [visit.client], "backend": visit.backends, "both": [visit.client, *visit.backends]}[who]
            for end in ends:
                if end.gone and octets is not LEAVES:
                    continue
                with suppress(OSError, ssl.SSLError, AssertionError):
                    if octets is LEAVES:
                        end.finish()
                    elif octets is TLS:
                        end.heard = b""  # what was said in the clear
                        end.start_tls(self.meeting.authority.client())
                    else:
                        end.say(octets)
            self.rest()

    def see_out(self, visit: Visit) -> float:
        """Everybody goes; how many seconds passed until the session was over."""
        for end in (visit.client, *visit.backends):
            end.sock.close()
        self.rest()
        waited = 0.0
        while visit.session not in self.meeting.closed and waited < 200.0:
            waited += 1.0
            try:
                self.meeting.reactor.clock.advance(1.0)
            except Exception as error:
                self.raised.append(error)
            self.rest()
        return waited

    def leave(self) -> None:
        """What a session was kept from closing must not warn in the next test."""
        for sock in self.opened:
            sock.close()

    def _sabotaged_pair(self, saboteur: Saboteur) -> tuple[Any, socket.socket]:
        near, far = unix_pair()
        self.opened += [near, far]
        return Sabotaged(near, saboteur, SOCKET), far


@dataclass
class Trial:
    """A session in which one call failed, and how that went."""

    call: str
    waited: float
    """Seconds until it was over."""
    closed: int
    """How often it said so."""
    left: str
    """What the reactor still has of it."""
    bystander: bytes
    """What another session's client heard afterwards."""


@pytest.fixture
def place(reactor: SteppedReactor, authority: Authority, protocol: str) -> Iterator[Place]:
    place = Place(Meeting(reactor, authority, protocol))
    yield place
    place.leave()


def trials(place: Place, protocol: str, error: Fault) -> Iterator[Trial]:
    """One for each call of a whole session, with a bystander who is logged in."""
    reactor, talk = place.meeting.reactor, TALKS[protocol]
    bystander = place.come(Saboteur())
    place.play(bystander, talk[: PROVEN[protocol]])
    usual = (set(reactor.readers), len(reactor.pending()))
    whole = Saboteur()
    visit = place.come(whole)
    place.play(visit, talk)
    assert visit.client.heard.endswith(LAST_WORDS[protocol])
    place.see_out(visit)
    for nth in range(1, len(whole.calls) + 1):
        saboteur = Saboteur(nth, error)
        visit = place.come(saboteur)
        place.play(visit, talk)
        waited = place.see_out(visit)
        same = (set(reactor.readers), len(reactor.pending())) == usual and not reactor.writers
        bystander.client.heard = b""
        place.play(bystander, NOOPS[protocol])
        yield Trial(
            f"call {nth}, {saboteur.struck}",
            waited,
            place.meeting.closed.count(visit.session),
            "" if same else repr(reactor),
            bystander.client.heard,
        )
    after = place.come(Saboteur())
    place.play(after, talk)
    assert after.client.heard.endswith(LAST_WORDS[protocol])
    place.see_out(after)


each_error = pytest.mark.parametrize("error", [ZeroDivisionError, timed_out], ids=["a bug", "an errno"])
each_protocol = pytest.mark.parametrize("protocol", TALKS)


@each_error
@each_protocol
def test_K12_whatever_call_fails_others_and_later_ones_are_served(place: Place, protocol: str, error: Fault) -> None:
    for trial in trials(place, protocol, error):
        assert trial.bystander == NOOPS[protocol][1][1], trial


@each_error
@each_protocol
def test_K12_whatever_call_fails_its_session_is_over_at_once_and_leaves_nothing(
    place: Place, protocol: str, error: Fault
) -> None:
    wrong = [
        trial for trial in trials(place, protocol, error) if trial.closed != 1 or trial.waited > LINGER or trial.left
    ]
    assert not wrong, "\n".join(map(str, wrong))


def ours() -> Counter[str]:
    """How many objects of the gateway's classes there are, of each."""
    return Counter(type(one).__name__ for one in gc.get_objects() if str(type(one).__module__).startswith("gateway."))


def whole(place: Place, protocol: str) -> None:
    """A session that nobody counts the calls of, from its first word to when it is over."""
    meeting = place.meeting
    meeting.dialer.backends.clear()
    client = meeting.enter()
    place.rest()
    visit = Visit(meeting.sessions[-1], client, meeting.dialer.backends[:])
    place.play(visit, TALKS[protocol])
    assert client.heard.endswith(LAST_WORDS[protocol])
    place.see_out(visit)
    for known in (meeting.closed, meeting.sessions, meeting.dialer.calls):
        known.clear()


@each_protocol
def test_a_session_that_is_over_waits_for_no_garbage_collector(place: Place, protocol: str) -> None:
    whole(place, protocol)  # what is made once is there
    gc.collect()
    before = ours()
    gc.disable()
    try:
        whole(place, protocol)
        assert ours() - before == Counter()
    finally:
        gc.enable()
