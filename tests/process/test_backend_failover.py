"""The first of two backends is killed, comes back, hangs: what becomes of sessions, old and new, under load."""

from __future__ import annotations

import re
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import NamedTuple

import pytest

from tests.process.echoing import Echo, answer
from tests.process.running import DEADLINE, Gateway, Identity, Service, running
from tests.process.secured import section
from tests.process.wire import Caller, source
from tests.process.words import WORDS

PROTOCOLS = tuple(WORDS)
CONNECT = 5.0
"""Seconds that dialling may take, all addresses together."""
GREETING = 2.0
ROUNDS = 5
"""Commands of a session."""
ENOUGH = 30
"""Sessions that must go well before the next thing happens."""

_NAME = re.compile(rb"(first|second)\b")
_LOST = re.compile(
    rb"(421 4\.4\.2 gw\.example\.test|(\w+ NO|\* BYE) \[UNAVAILABLE\]|-ERR \[SYS/TEMP\])"
    rb" Connection to mail server lost\r\n"
)
"""What a client hears whose backend is gone, in all protocols."""


class Wrong(Exception):
    """Something that no client may see."""


class Unavailable(Wrong):
    """Nobody was there; right only where nobody is."""


class Gone(Exception):
    """The session ended as it may when its backend does."""


class Told(NamedTuple):
    """What came of one session."""

    backend: str
    complete: bool
    waited: float
    """Seconds until it was greeted."""


class Visit:
    """One session, each word of which is checked."""

    def __init__(self, gateway: Gateway, protocol: str, trusting: ssl.SSLContext) -> None:
        began = time.monotonic()
        self._protocol = protocol
        self._caller = Caller(source(), gateway.address(protocol, "implicit"))
        try:
            self._caller.shake_hands(trusting)
            greeting = self._line()
            if greeting == WORDS[protocol].unavailable:
                raise Unavailable
            named = _NAME.search(greeting)
            if named is None:
                raise Wrong(f"greeted with {greeting!r}")
        except BaseException:
            self._caller.socket.close()
            raise
        self.waited = time.monotonic() - began
        self.backend = named[0].decode("ascii")
        self._number = count()

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self._caller.socket.close()

    def enter(self) -> None:
        match self._protocol:
            case "smtp":
                self._exchange("EHLO client.example.test")
            case "imap":
                self._exchange("l LOGIN grete password")
            case "pop3":
                self._exchange("USER grete")
                self._exchange("PASS password")

    def ask(self) -> None:
        """Something that nobody asked before."""
        token = f"NOOP {self._caller.socket.getsockname()[0]}-{next(self._number)}"
        self._exchange(f"t{next(self._number)} {token}" if self._protocol == "imap" else token)

    def leave(self) -> None:
        try:
            self._exchange("q LOGOUT" if self._protocol == "imap" else "QUIT")
        except Wrong as other:
            # RFC 5321 4.1.1.10: whoever asks to leave is let go, with or without a backend.
            if "221 2.0.0 gw.example.test closing connection" not in str(other):
                raise
            raise Gone from None

    def _exchange(self, command: str) -> None:
        try:
            self._caller.say(f"{command}\r\n".encode("ascii"))
        except (OSError, ssl.SSLError):
            raise Gone from None
        for wanted in answer(self._protocol, self.backend, command).split("\r\n"):
            heard = self._line()
            if _LOST.fullmatch(heard):
                raise Gone
            if heard != f"{wanted}\r\n".encode("ascii"):
                raise Wrong(f"{command} to {self.backend} was answered {heard!r}")

    def _line(self) -> bytes:
        """The next one, or Gone."""
        caller = self._caller
        while b"\n" not in caller.unheard:
            try:
                more = caller.receive()
            except TimeoutError:
                raise Wrong("no answer") from None
            except (OSError, ssl.SSLError):
                raise Gone from None
            if not more:
                if caller.unheard:
                    raise Wrong(f"ends with {caller.unheard!r}")
                raise Gone
            caller.unheard += more
        line, _, caller.unheard = caller.unheard.partition(b"\n")
        return line + b"\n"


@dataclass
class Load:
    """Clients who come and go until they are told to stop."""

    gateway: Gateway
    trusting: ssl.SSLContext
    told: list[Told] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    stopping: bool = False

    def __post_init__(self) -> None:
        self._grown = threading.Condition()
        self._threads: list[threading.Thread] = []

    def start(self, clients: int) -> None:
        for protocol in PROTOCOLS:
            for _ in range(clients):
                self._run(partial(self._come_and_go, protocol))

    def hold(self, protocol: str) -> Visit:
        """A session that talks until the load is stopped."""
        visit = Visit(self.gateway, protocol, self.trusting)
        visit.enter()
        self._run(partial(self._stay, visit))
        return visit

    def wait(self, since: int, backend: str, number: int = ENOUGH) -> int:
        """Until so many sessions that this backend served have gone well; returns what `since` is now."""

        def enough() -> bool:
            served = [told for told in self.told[since:] if told.complete and told.backend == backend]
            return len(served) >= number or bool(self.wrong)

        with self._grown:
            assert self._grown.wait_for(enough, 2 * DEADLINE), f"{backend} served nobody: {self.told[since:][-20:]}"
            assert not self.wrong, self.wrong
            return len(self.told)

    def stop(self) -> None:
        self.stopping = True
        for thread in self._threads:
            thread.join(DEADLINE)
        assert not self.wrong, self.wrong

    def _run(self, what: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                what()
            except BaseException as error:
                self._tell(f"{type(error).__name__}: {error}")

        thread = threading.Thread(target=guarded, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _tell(self, what: Told | str) -> None:
        with self._grown:
            if isinstance(what, str):
                self.wrong.append(what)
            else:
                self.told.append(what)
            self._grown.notify_all()

    def _come_and_go(self, protocol: str) -> None:
        while not self.stopping:
            with Visit(self.gateway, protocol, self.trusting) as visit:
                complete = True
                try:
                    visit.enter()
                    for _ in range(ROUNDS):
                        visit.ask()
                    visit.leave()
                except Gone:
                    complete = False
            self._tell(Told(visit.backend, complete, visit.waited))

    def _stay(self, visit: Visit) -> None:
        with visit:
            while not self.stopping:
                visit.ask()
            visit.leave()


@dataclass(frozen=True)
class Pair:
    gateway: Gateway
    first: Echo
    second: Echo
    load: Load


@pytest.fixture
def pair(tmp_path_factory: pytest.TempPathFactory, identity: Identity, trusting: ssl.SSLContext) -> Iterator[Pair]:
    with ExitStack() as stack:
        first, second = stack.enter_context(Echo("first")), stack.enter_context(Echo("second"))
        options = {"timeouts": {"connect": f"{CONNECT:.0f} s", "greeting": f"{GREETING:.0f} s"}}
        for protocol in PROTOCOLS:
            addresses = f"{first.address(protocol)} {second.address(protocol)}"
            options[f"backend:{protocol}-pair"] = section(protocol, addresses)
        services = [Service(protocol, f"{protocol}-pair") for protocol in PROTOCOLS]
        gateway = stack.enter_context(running(tmp_path_factory.mktemp("pair"), identity, services, options))
        load = Load(gateway, trusting)
        stack.callback(load.stop)
        yield Pair(gateway, first, second, load)


def test_no_answer_is_wrong_while_the_first_backend_is_killed_and_comes_back(pair: Pair) -> None:
    load = pair.load
    load.start(clients=3)
    healthy = load.wait(0, "first")
    assert {told.backend for told in load.told[:healthy]} == {"first"}
    pair.first.kill()
    killed = load.wait(healthy, "second")
    held = [load.hold(protocol) for protocol in PROTOCOLS for _ in range(3)]
    assert {visit.backend for visit in held} == {"second"}
    pair.first.start()
    back = load.wait(killed, "first")
    pair.first.kill()
    load.wait(back, "second")
    # Who was on the second one never noticed: before they leave, all are heard once more.
    load.stop()
    lost = [told for told in load.told if not told.complete]
    assert {told.backend for told in lost} <= {"first"}
    assert max(told.waited for told in load.told) < CONNECT
    assert {event["reason"] for event in pair.gateway.log.events("session")} <= {
        "quit", "client-closed", "client-lost", "backend-closed", "backend-lost",
    }  # fmt: skip


def test_a_first_backend_that_hangs_costs_its_greeting_time_once_and_then_nothing(pair: Pair) -> None:
    load = pair.load
    pair.first.signal(signal.SIGSTOP)
    for protocol in PROTOCOLS:
        with Visit(pair.gateway, protocol, load.trusting) as visit:
            assert (visit.backend, visit.waited > GREETING) == ("second", True)
            visit.enter()
        # It comes last now.
        with Visit(pair.gateway, protocol, load.trusting) as visit:
            assert (visit.backend, visit.waited < GREETING) == ("second", True)
    pair.first.signal(signal.SIGCONT)
    load.start(clients=1)
    load.wait(0, "first")


def test_when_both_are_dead_clients_are_told_so_and_served_as_soon_as_one_is_back(pair: Pair) -> None:
    load = pair.load
    pair.first.kill()
    pair.second.kill()
    for protocol in PROTOCOLS:
        # Later ones are not even dialled for: a crowd must not hammer at backends that start.
        for _ in range(3):
            with Caller(source(), pair.gateway.address(protocol, "implicit")) as caller:
                caller.shake_hands(load.trusting)
                assert caller.rest() == WORDS[protocol].unavailable
    pair.second.start()
    for protocol in PROTOCOLS:
        assert served_at_last(pair, protocol) == "second"


def served_at_last(pair: Pair, protocol: str) -> str:
    """Come until somebody serves, without ever giving the gateway a rest; by whom it was."""
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        try:
            with Visit(pair.gateway, protocol, pair.load.trusting) as visit:
                visit.enter()
                visit.leave()
                return visit.backend
        except Unavailable:
            continue
    raise AssertionError("nobody served")
