"""A reactor that is stepped by hand: real sockets, a clock that stands still until it is told to move."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from gateway.wire.leg import prepare
from gateway.wire.loop import Loop

HANG_UP = select.POLLHUP | select.POLLERR | select.POLLNVAL


class Turns(Clock):
    """A clock whose `turn` leaves what it schedules for the next one."""

    def turn(self) -> None:
        due = [call for call in self.calls if call.getTime() <= self.seconds()]
        for call in due:
            self.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)


class SteppedReactor:
    """What legs, listeners, dialers and sessions need of a reactor.

    One `step` is one turn: what is due, then what is readable and writable, in the way of Twisted's epoll
    reactor (a hang-up without anything to read is `connectionLost`).  It never waits in `step`.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self._readers: dict[int, Any] = {}
        self._writers: dict[int, Any] = {}
        self.nameResolver: Any = None

    @property
    def readers(self) -> dict[int, Any]:
        return self._readers

    @property
    def writers(self) -> dict[int, Any]:
        return self._writers

    # --- what the code under test sees -----------------------------------------------------------

    def addReader(self, reader: Any) -> None:
        self.readers[self._number(reader)] = reader

    def removeReader(self, reader: Any) -> None:
        self._forget(self.readers, reader)

    def addWriter(self, writer: Any) -> None:
        self.writers[self._number(writer)] = writer

    def removeWriter(self, writer: Any) -> None:
        self._forget(self.writers, writer)

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.clock.callLater(delay, callable, *args, **kwargs)

    def seconds(self) -> float:
        return float(self.clock.seconds())

    # --- what a test does ------------------------------------------------------------------------

    def step(self, wait: float = 0.0) -> bool:
        """One turn; true if anything happened in it.  `wait` seconds at most for a socket to be ready."""
        due = [call for call in self.clock.getDelayedCalls() if call.getTime() <= self.clock.seconds()]
        self.clock.advance(0)
        poll = select.poll()
        for number in self.readers.keys() | self.writers.keys():
            wanted = select.POLLIN if number in self.readers else 0
            poll.register(number, wanted | (select.POLLOUT if number in self.writers else 0))
        ready = poll.poll(0 if due else wait * 1000)
        for number, event in ready:
            self._dispatch(number, event)
        return bool(due or ready)

    def step_until(self, predicate: Callable[[], object], turns: int = 1000) -> None:
        """Turns until the predicate holds; AssertionError if it does not come true."""
        idle = 0
        for _ in range(turns):
            if predicate():
                return
            # Loopback is at times late by a softirq: waiting for the kernel is not sleeping.
            idle = 0 if self.step(0.005) else idle + 1
            if idle > 20:
                break
        assert predicate(), f"did not come true; {self!r}"

    def settle(self, turns: int = 1000) -> None:
        """Turns until nothing happens any more."""
        idle = 0
        for _ in range(turns):
            idle = 0 if self.step(0.001) else idle + 1
            if idle > 2:
                return
        raise AssertionError(f"does not come to rest; {self!r}")

    def advance(self, seconds: float) -> None:
        """Let the clock run, in one jump, and then come to rest."""
        self.clock.advance(seconds)
        self.settle()

    def pending(self) -> list[float]:
        """Seconds until each scheduled call."""
        return sorted(call.getTime() - self.seconds() for call in self.clock.getDelayedCalls())

    def __repr__(self) -> str:
        return f"<readers {sorted(self.readers)}, writers {sorted(self.writers)}, calls in {self.pending()}>"

    def _dispatch(self, number: int, event: int) -> None:
        selectable = self.readers.get(number) or self.writers.get(number)
        if selectable is None:
            return
        why: Any = None
        reading = False
        if event & HANG_UP and not event & select.POLLIN:
            reading = number in self.readers
            why = ConnectionDone() if reading else ConnectionLost()
        else:
            if event & select.POLLIN:
                why = selectable.doRead()
                reading = True
            if not why and event & select.POLLOUT:
                why = selectable.doWrite()
                reading = False
            if not why and selectable.fileno() != number:
                raise AssertionError(f"{selectable!r} closed its descriptor inside a turn")
        if why:
            self.removeReader(selectable)
            self.removeWriter(selectable)
            selectable.connectionLost(Failure(why))  # type: ignore[no-untyped-call]

    @staticmethod
    def _number(selectable: Any) -> int:
        number = selectable.fileno()
        assert number >= 0, "a closed descriptor was given to the reactor"
        return int(number)

    @staticmethod
    def _forget(those: dict[int, Any], selectable: Any) -> None:
        for number, one in list(those.items()):
            if one is selectable:
                del those[number]


class LoopedReactor(SteppedReactor):
    """The gateway's own loop in a stepped reactor, as it is in Twisted's.  A step is one round of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self._outer = SteppedReactor()
        self._outer.clock = self.clock
        self.loop = Loop(self._outer)
        self.loop._without = 1 << 60  # it never lingers

    def addReader(self, reader: Any) -> None:
        self._number(reader)
        self.loop.addReader(reader)

    def removeReader(self, reader: Any) -> None:
        self.loop.removeReader(reader)

    def addWriter(self, writer: Any) -> None:
        self._number(writer)
        self.loop.addWriter(writer)

    def removeWriter(self, writer: Any) -> None:
        self.loop.removeWriter(writer)

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.loop.callLater(delay, partial(callable, *args, **kwargs))

    @property
    def readers(self) -> dict[int, Any]:
        return self._watched(select.POLLIN)

    @property
    def writers(self) -> dict[int, Any]:
        return self._watched(select.POLLOUT)

    def _watched(self, event: int) -> dict[int, Any]:
        return {number: one for number, one in self.loop._members.items() if self.loop._masks[number] & event}

    def step(self, wait: float = 0.0) -> bool:
        return self._outer.step(wait)

    def pending(self) -> list[float]:
        calls = [call for _, _, call in self.loop._calls if call.active()]
        return sorted(max(0.0, call.getTime() - self.seconds()) for call in calls)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection over loopback, both non-blocking; a port of the kernel's choice."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # Small buffers of a fixed size: a full socket is a matter of kilobytes, on every machine.
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            listening.setsockopt(socket.SOL_SOCKET, option, 32 * 1024)
        near = socket.socket()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        near.connect(listening.getsockname())
        far, _ = listening.accept()
    prepare(near)
    far.setblocking(False)
    return near, far


def is_prepared(sock: socket.socket) -> bool:
    """As a leg wants its socket: it does not block, does not delay, and keeps alive."""
    prompt = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    return bool(not sock.getblocking() and prompt and sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))


def unix_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a UNIX connection, both non-blocking."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    return near, far
