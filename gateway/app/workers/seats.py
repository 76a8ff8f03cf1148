"""The places of the workers: who has each, and when the next one may take it."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final, Protocol

from ...guard.shared import SharedLedger
from ...records import dataclass
from ...telemetry.summary import Teller
from .channel import Channel
from .messages import Message
from .vigil import SILENCE, Vigil

STEADY: Final = 60.0
"""Seconds that a worker or the template has to live.  After that its death says nothing of the next one."""
TELLING: Final = 1.0
"""Seconds that it may take to learn how a worker ended."""
FIRST, LONGEST = 0.5, 30.0
"""Seconds until a worker is started after the second death in a row; doubled each time; and at most.  After the first
one there is no delay."""


class Owner(Protocol):
    """What the seats need of the master."""

    def fork(self, number: int, column: int, descriptor: int) -> bool: ...
    def kill(self, pid: int) -> None: ...
    def told(self, worker: int, message: Message) -> None: ...
    def lost(self, worker: int) -> None: ...
    def known(self) -> list[Message]: ...
    def empty(self) -> None: ...


@dataclass(slots=True)
class Seat:
    number: int
    vigil: Vigil
    """Over its worker."""
    column: int = -1
    """Where the worker's sessions are counted."""
    channel: Channel | None = None
    """None where nobody has the seat."""
    pid: int = 0
    """0 until the worker has said it."""
    since: float = 0.0
    serving: bool = False
    left: bool = False
    """It said that it ends."""
    why: str = ""
    """Why it was killed."""
    deaths: int = 0
    """In a row, each soon after the start."""

    def take(self, channel: Channel, column: int, now: float) -> None:
        self.channel, self.column, self.pid, self.why = channel, column, 0, ""
        self.vigil.give()
        self.since = now
        self.serving = self.left = False

    def empty(self) -> None:
        self.channel = None
        self.vigil.stop()

    def delay(self, now: float) -> float:
        """The worker died.  Seconds until the next one may be started."""
        self.deaths = self.deaths + 1 if now - self.since < STEADY else 1
        return 0.0 if self.deaths == 1 else min(LONGEST, FIRST * 2.0 ** (self.deaths - 2))


@dataclass(frozen=True, slots=True)
class _End:
    """A worker's end, still to be told."""

    worker: int
    sessions: int
    delay: float | None
    """Seconds until the next one is started; None where none is."""
    why: str | None


class Seats:
    def __init__(self, reactor: Any, count: int, ledger: SharedLedger, events: Teller, owner: Owner) -> None:
        self._reactor = reactor
        self._ledger = ledger
        self._events = events
        self._owner = owner
        self._seats = [Seat(number, Vigil(reactor, partial(self._hangs, number))) for number in range(count)]
        self.stopping = False
        self.held = False
        """Nobody who dies is replaced any more."""
        self._codes: dict[int, int] = {}
        """How processes ended whose conversation has not ended yet."""
        self._ends: dict[int, _End] = {}
        """Of processes whose conversation has ended, and of which it is not known yet how they did."""

    def fill(self) -> None:
        """A worker for each seat that has none."""
        for seat in self._seats:
            self._fill(seat)

    def pids(self) -> list[int]:
        return [seat.pid for seat in self._taken() if seat.pid]

    def serving(self) -> list[int]:
        """Numbers of the workers that serve."""
        return [seat.number for seat in self._taken() if seat.serving]

    def say(self, number: int, message: Message) -> None:
        """To one worker, if it is there."""
        channel = self._seats[number].channel
        if channel is not None:
            channel.say(message)

    def say_all(self, message: Message, but: int | None = None) -> None:
        for seat in self._taken():
            if seat.number != but and seat.channel is not None:
                seat.channel.say(message)

    def hand_all(self, message: Message, descriptors: Sequence[int]) -> None:
        """Who does not take it is of no more use."""
        for seat in list(self._taken()):
            if seat.channel is not None and not seat.channel.hand(message, descriptors):
                seat.why = "it could not be told of the new configuration"
                self._owner.kill(seat.pid)

    @property
    def all_serve(self) -> bool:
        return all(seat.serving for seat in self._seats)

    def hold(self) -> set[int]:
        """Begin that.  The numbers of those who are there."""
        self.held = True
        return {seat.number for seat in self._taken()}

    def stop(self) -> None:
        self.stopping = True
        self.say_all({"stop": True})
        self._look_whether_empty()

    def forked(self, number: int, pid: int) -> None:
        """The template has started the worker that it was asked for."""
        self._seats[number].pid = pid

    def childless(self) -> None:
        """The template is gone.  Workers that it was asked for and has not started will not come."""
        for seat in self._taken():
            if seat.pid and seat.why:
                # The template was told to kill it, and may not have heard it.
                self._owner.kill(seat.pid)
            if seat.channel is not None and not seat.pid:
                seat.channel.close()
                seat.empty()
                self._ledger.release(seat.column)
                self._owner.lost(seat.number)
        if self.stopping:
            self._look_whether_empty()

    def died(self, pid: int, code: int) -> None:
        """The template has found that one of its children is gone."""
        if pid in self._ends:
            self._tell(pid, code)
        elif pid in self.pids():
            self._codes[pid] = code

    def _taken(self) -> Iterator[Seat]:
        return (seat for seat in self._seats if seat.channel is not None)

    def _fill(self, seat: Seat) -> None:
        if self.stopping or self.held or seat.channel is not None:
            return
        column = self._ledger.claim()
        ours, theirs = socket.socketpair()
        with theirs:
            forked = self._owner.fork(seat.number, column, theirs.fileno())
        if not forked:
            ours.close()
            self._ledger.release(column)
            return  # it is filled when there is a template again
        channel = Channel(self._reactor, ours, partial(self._heard, seat), partial(self._lost, seat))
        seat.take(channel, column, self._reactor.seconds())
        for message in self._owner.known():
            channel.say(message)
        channel.say({"serve": True})

    def _heard(self, seat: Seat, message: Message, descriptors: list[int]) -> None:
        seat.vigil.heard()
        match message:
            case {"serving": _}:
                seat.serving = True
                self._events.emit("worker", state="serving", worker=seat.number, pid=seat.pid)
            case {"left": _}:
                seat.left = True
            case {"beat": _}:
                pass
            case _:
                self._owner.told(seat.number, message)

    def _lost(self, seat: Seat) -> None:
        """The conversation with it is over: it has ended, or is of no more use."""
        lost = self._ledger.release(seat.column)
        if not seat.left:
            self._owner.kill(seat.pid)
        delay = None if self.stopping else seat.delay(self._reactor.seconds())
        seat.empty()
        self._owner.lost(seat.number)
        # How it ended is told by the template, now or in a moment.
        self._ends[seat.pid] = _End(seat.number, lost, delay, seat.why or None)
        if seat.pid in self._codes:
            self._tell(seat.pid, self._codes.pop(seat.pid))
        else:
            self._reactor.callLater(TELLING, self._tell, seat.pid, None)
        if delay is None:
            self._look_whether_empty()
        else:
            self._reactor.callLater(delay, self._fill, seat)

    def _tell(self, pid: int, code: int | None) -> None:
        end = self._ends.pop(pid, None)
        if end is None or (end.delay is None and code == 0):
            return
        how = None if code is None else f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        self._events.emit(
            "worker",
            state="died",
            worker=end.worker,
            pid=pid,
            how=how,
            sessions=end.sessions,
            again=end.delay,
            detail=end.why,
        )

    def _look_whether_empty(self) -> None:
        if self.stopping and not any(self._taken()):
            self._owner.empty()

    def _hangs(self, number: int) -> None:
        seat = self._seats[number]
        if not seat.why:
            seat.why = f"it gave no sign of life for {SILENCE:.0f} s, and was killed"
        self._owner.kill(seat.pid)
        seat.vigil.give()  # its process may not be known yet, or whoever has to kill it hangs
