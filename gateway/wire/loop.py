"""The gateway's sockets and timers in one epoll descriptor, which Twisted's reactor reads like any other socket.

Twisted needs 25 thousand instructions for an event of a socket: it sets up a log context for each. Here an event needs
6 thousand. The reactor stays whatever twistd chose, and nothing private of it is used.
"""

from __future__ import annotations

import heapq
import select
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHostnameResolver, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from .fault import place

MOST: Final = 64
"""Events that are taken from the kernel at a time. The others are not lost: they come with the next ones."""

STAY: Final = 0.005
"""Seconds for which the loop looks for more events. Then the reactor gets its turn: for signals, threads and the
sockets that are not ours."""

ROUNDS: Final = 64
"""How often it looks within that, at most."""

MOST_CANCELLED: Final = 1000
"""Cancelled calls that are kept even if they are the greater part."""

LINGER: Final = 0.001
"""Seconds that the loop waits for the next event. A backend in the same network answers within that. Through the
reactor, each answer would cost 20 us of CPU more."""

MOST_MISSES: Final = 32
"""Each time that nothing came within LINGER, so many turns go by without it: twice as many as the time before, and at
most these."""

_log = Logger()

_IN, _OUT = 0x001, 0x004
_LOST: Final = 0x008 | 0x010
"""EPOLLIN, EPOLLOUT, EPOLLERR and EPOLLHUP. `select` has no names for them where there is no epoll."""

_HANG_UP: Final = Failure(ConnectionLost())  # type: ignore[no-untyped-call]


class Call:
    """A call that is to come. Has what we use of IDelayedCall."""

    __slots__ = ("_act", "_args", "_due", "_loop")

    def __init__(self, loop: Loop, due: float, act: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._loop = loop
        self._due = due
        self._act: Callable[..., object] | None = act
        self._args = args

    def getTime(self) -> float:
        """When it is due, by the loop's clock."""
        return self._due

    def active(self) -> bool:
        return self._act is not None

    def cancel(self) -> None:
        if self._act is not None:
            self._act, self._args = None, ()
            self._loop.forget()

    def perform(self) -> None:
        """It is due, and was not cancelled. A bug in it ends nothing else."""
        act, args = self._act, self._args
        assert act is not None
        self._act, self._args = None, ()
        try:
            act(*args)
        except Exception as error:
            tell(error)


def tell(error: Exception) -> None:
    """A bug."""
    _log.critical("a bug in the event loop: {kind} in {where}", kind=type(error).__name__, where=place(error))


@implementer(IReadDescriptor)
class Loop:
    """Has what legs, listeners and dialling need of a reactor.

    `callLater(0, ...)` comes after the events that were found together with the present one.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.seconds: Callable[[], float] = reactor.seconds
        """The reactor's clock itself: it is read fifty times in a session."""
        self._epoll: Any = None
        """Made when it is first needed: after twistd's forks, which would share it."""
        self._number = -1
        self._members: dict[int, Any] = {}
        self._masks: dict[int, int] = {}
        """Which events of each descriptor are wanted."""
        self._calls: list[tuple[float, int, Call]] = []
        """A heap. The number keeps the order of calls that are due at the same time. A cancelled call stays in it until
        it would be due, or until such calls are the greater part."""
        self._made = 0
        self._cancelled = 0
        self._alarm: Any = None
        """The reactor's call for the first of ours."""
        self._alarm_due = 0.0
        self._turning = False
        self._misses = 1
        self._without = 0
        """So many turns go by without LINGER."""

    @property
    def nameResolver(self) -> IHostnameResolver:
        resolver: IHostnameResolver = self._reactor.nameResolver
        return resolver

    @property
    def tables(self) -> tuple[dict[int, Any], dict[int, int]]:
        """What has grown with the number of sockets, and does not shrink by itself."""
        return self._members, self._masks

    # --- sockets ---------------------------------------------------------------------------------

    def addReader(self, reader: Any) -> None:
        self._add(reader, _IN)

    def addWriter(self, writer: Any) -> None:
        self._add(writer, _OUT)

    def removeReader(self, reader: Any) -> None:
        self._remove(reader, _IN)

    def removeWriter(self, writer: Any) -> None:
        self._remove(writer, _OUT)

    def _add(self, member: Any, wanted: int) -> None:
        if self._epoll is None:
            self._open()
        number = member.fileno()
        mask = self._masks.get(number, 0)
        if mask:
            self._epoll.modify(number, mask | wanted)
        else:
            self._epoll.register(number, wanted)
            self._members[number] = member
        self._masks[number] = mask | wanted

    def _remove(self, member: Any, unwanted: int) -> None:
        number = member.fileno()
        mask = self._masks.get(number, 0)
        if not mask & unwanted or self._members[number] is not member:
            return
        mask &= ~unwanted
        if mask:
            self._epoll.modify(number, mask)
            self._masks[number] = mask
        else:
            self._epoll.unregister(number)
            del self._members[number], self._masks[number]

    def _open(self) -> None:
        self._epoll = select.epoll()
        self._number = self._epoll.fileno()
        self._reactor.addReader(self)

    # --- timers ----------------------------------------------------------------------------------

    def callLater(self, delay: float, act: Callable[..., object], /, *args: Any) -> Call:
        """`delay` in seconds."""
        due = self.seconds() + delay if delay > 0 else 0.0
        call = Call(self, due, act, args)
        self._made += 1
        heapq.heappush(self._calls, (due, self._made, call))
        if not self._turning:
            self._set_alarm()
        return call

    def forget(self) -> None:
        """One of the calls was cancelled."""
        self._cancelled += 1
        if self._cancelled > max(MOST_CANCELLED, len(self._calls) // 2):
            self._calls = [entry for entry in self._calls if entry[2].active()]
            heapq.heapify(self._calls)
            self._cancelled = 0
        if not self._turning:
            self._set_alarm()

    def _perform(self) -> None:
        """What is due now. What these calls ask for in turn comes the next time."""
        now, last = self.seconds(), self._made
        while self._calls and self._calls[0][0] <= now and self._calls[0][1] <= last:
            call = heapq.heappop(self._calls)[2]
            if call.active():
                call.perform()
            else:
                self._cancelled -= 1

    def _set_alarm(self) -> None:
        """The reactor wakes us when the first of our calls is due. It may wake us earlier."""
        calls = self._calls
        while calls and not calls[0][2].active():
            heapq.heappop(calls)
            self._cancelled -= 1
        due = calls[0][0] if calls else None
        if self._alarm is not None:
            if due is not None and self._alarm_due <= due:
                return
            self._alarm.cancel()
            self._alarm = None
        if due is not None:
            self._alarm_due = due
            self._alarm = self._reactor.callLater(max(0.0, due - self.seconds()), self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._turning = True
        try:
            self._perform()
        finally:
            self._turning = False
            self._set_alarm()

    # --- what the reactor does -------------------------------------------------------------------

    def fileno(self) -> int:
        return self._number

    def logPrefix(self) -> str:
        return "gateway"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has ended."""

    def doRead(self) -> None:
        """Handle events of our sockets, and those that follow soon."""
        seconds = self.seconds
        until = seconds() + STAY
        wait = 0.0
        self._turning = True
        try:
            for _ in range(ROUNDS):
                ready = self._epoll.poll(wait, MOST)
                if wait and ready:
                    self._misses = 1
                elif wait:
                    self._miss()
                for number, event in ready:
                    member = self._members.get(number)
                    if member is None:
                        continue  # an earlier event of these has removed it
                    try:
                        if event == _IN:
                            member.doRead()
                        else:
                            self._tell(number, member, event)
                    except Exception as error:
                        tell(error)
                        self._lose(number, member)
                now = seconds()
                wait = LINGER
                if self._calls and self._calls[0][0] <= now:
                    self._perform()
                    if self._calls and self._calls[0][0] <= now:
                        wait = 0.0  # what these calls asked for with callLater(0, ...) is due
                if not ready or now >= until:
                    break
                if wait and self._without:
                    self._without -= 1
                    break
        finally:
            self._turning = False
            self._set_alarm()

    def _miss(self) -> None:
        """Waiting for the next event was not worth a system call and two switches of the process."""
        self._without = self._misses
        self._misses = min(2 * self._misses, MOST_MISSES)

    def _tell(self, number: int, member: Any, event: int) -> None:
        """As Twisted's reactor does it: a hang-up with nothing to read is the end."""
        if event & _IN:
            member.doRead()
        elif event & _LOST:
            self._lose(number, member)
            return
        if event & _OUT and self._masks.get(number, 0) & _OUT:
            member.doWrite()

    def _lose(self, number: int, member: Any) -> None:
        if self._members.get(number) is member:
            self._epoll.unregister(number)
            del self._members[number], self._masks[number]
        member.connectionLost(_HANG_UP)


def in_one(reactor: Any) -> Any:
    """A loop in this reactor; the reactor itself where the system has no epoll."""
    return Loop(reactor) if hasattr(select, "epoll") else reactor
