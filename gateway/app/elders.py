"""Programs that this one has taken over from, and that still have sessions.

They accept nobody any more, and end with their last session.  When this program stops, they have to end, too: each of
their sessions has `[gateway] drain` then, as the sessions here have.  Until then they answer `who` and `kick`.  The
next program takes over the conversations.  One that has not ended GRACE seconds after its time hangs: it is killed.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred

from .. import __version__
from ..guard.shared import SharedLedger
from ..records import dataclass
from ..sessions.deadline import Deadline
from ..telemetry.summary import Teller
from .control.answers import Row
from .control.messages import Answer, Request
from .control.place import credentials
from .handover import Stay
from .workers.asking import Asking, Replies
from .workers.channel import Channel
from .workers.messages import Message
from .workers.steered import answers, question
from .workers.vigil import Vigil

GRACE: Final = 10.0
"""Seconds that they may take to end when the time of their sessions is over: they may have workers to wait for."""
GO: Final = 10.0
"""Seconds that the program before this one may take to accept nobody any more."""


@dataclass(slots=True)
class _Elder:
    generation: int
    conversation: socket.socket
    channel: Channel
    pid: int
    handle: int | None
    """Of the process (pidfd_open(2)); None where it is gone."""
    until: float
    """When its last session is cut off, by the reactor's clock."""
    drain: float
    """Seconds that its sessions have from when it is asked to stop."""
    deadline: Deadline
    vigil: Vigil | None = None
    """Its time is over, and it has GRACE to end."""

    def close(self) -> None:
        self.channel.close()
        self.deadline.cancel()
        if self.vigil is not None:
            self.vigil.stop()
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None

    def kill(self) -> None:
        if self.handle is not None:
            with suppress(OSError):
                signal.pidfd_send_signal(self.handle, signal.SIGKILL)


class Elders:
    def __init__(self, reactor: Any, events: Teller) -> None:
        self._reactor = reactor
        self._events = events
        self.ledger: SharedLedger | None = None
        """Where they count their sessions, if that can be read here."""
        self._there: dict[int, _Elder] = {}
        self._stopped: Deferred[None] | None = None
        self._hurried = False
        """This program ends now."""
        self._asking = Asking(reactor, lambda: list(self._there), self._say)
        self._going: Callable[[], None] | None = None
        self._alone: list[Deferred[None]] = []

    def _say(self, generation: int, message: Message) -> None:
        self._there[generation].channel.say(message)

    def follow(self, generation: int, listens: Collection[str], then: Callable[[], None]) -> None:
        """Tell the program before this one that this one serves, and where.  `then` is called when that one accepts
        nobody any more, is gone, or has said nothing for GO seconds.  Sessions here are served meanwhile."""
        patience = Deadline(self._reactor, lambda: went())

        def went() -> None:
            patience.cancel()
            self._going = None
            then()
            alone, self._alone = self._alone, []
            for waiting in alone:
                waiting.callback(None)

        self._going = went
        patience.set(self._reactor.seconds() + GO)
        ready = {"ready": os.getpid(), "version": __version__, "listens": list(listens)}
        self._say(generation, ready)

    @property
    def follows(self) -> bool:
        """Whether the program before this one may still accept."""
        return self._going is not None

    def alone(self) -> Deferred[None]:
        """Fires when it does not."""
        waiting: Deferred[None] = Deferred()
        self._alone.append(waiting)
        return waiting

    def add(self, generation: int, conversation: socket.socket, stay: Stay) -> None:
        heard, lost = partial(self._heard, generation), partial(self._lost, generation)
        channel = Channel(self._reactor, conversation, heard, lost)
        left, drain = stay
        pid = credentials(conversation)[0]
        until = self._reactor.seconds() + left
        deadline = Deadline(self._reactor, partial(self._over, generation))
        self._there[generation] = _Elder(
            generation, conversation, channel, pid, _handle(conversation, pid), until, drain, deadline
        )
        deadline.set(until)
        if self._stopped is not None:
            self._end(self._there[generation], {"stop": self._hurried}, 0.0 if self._hurried else drain)

    def _stay(self, elder: _Elder) -> float:
        return max(0.0, elder.until - float(self._reactor.seconds()))

    def _ledger_of(self, generation: int) -> SharedLedger | None:
        """Where it counts its sessions, if that can be read here."""
        return self.ledger if generation > 0 else None

    @property
    def conversations(self) -> list[tuple[int, socket.socket, Stay]]:
        """For the next program."""
        return [(one.generation, one.conversation, (self._stay(one), one.drain)) for one in self._there.values()]

    def rows(self) -> list[Row]:
        """As `status` tells them."""
        return [
            {
                "pid": one.pid,
                "sessions": None
                if (ledger := self._ledger_of(one.generation)) is None
                else ledger.total_of(one.generation),
                "left": round(self._stay(one), 3),
            }
            for one in self._there.values()
        ]

    def ask(self, request: Request) -> Deferred[list[Answer]] | None:
        """What each of them answers; None where none is there."""
        if not self._there:
            return None
        pids = {generation: one.pid for generation, one in self._there.items()}

        def told(replies: Replies) -> list[Answer]:
            missing = tuple(f"the old program, process {pids[one]}, does not answer" for one in replies.missing)
            return [*answers(replies), Answer({}, missing)]

        return self._asking.ask(question(request)).addCallback(told)

    def _heard(self, generation: int, message: Message, descriptors: list[int]) -> None:
        if "answer" in message:
            self._asking.heard(generation, message)
        elif "go" in message and self._going is not None:
            self._going()

    def hand_over(self) -> None:
        """The next program has them."""
        for one in self._there.values():
            one.close()
        self._there.clear()

    def stop(self) -> Deferred[None] | None:
        """This program stops.  Fires when all of them have ended; None where none is there."""
        if not self._there:
            return None
        for one in self._there.values():
            self._end(one, {"stop": False}, one.drain)
        self._stopped = Deferred()
        return self._stopped

    def hurry(self) -> None:
        """Their sessions are cut off."""
        self._hurried = True
        for one in self._there.values():
            self._end(one, {"stop": True}, 0.0)

    def _end(self, elder: _Elder, message: Message, seconds: float) -> None:
        elder.channel.say(message)
        elder.until = min(elder.until, self._reactor.seconds() + seconds)
        elder.deadline.set(elder.until)

    def _over(self, generation: int) -> None:
        elder = self._there[generation]
        if elder.vigil is None:
            elder.vigil = Vigil(self._reactor, partial(self._hangs, generation))
            elder.vigil.give(GRACE)

    def _hangs(self, generation: int) -> None:
        elder = self._there[generation]
        elder.kill()
        detail = f"the old program did not end within {GRACE:.0f} s after its time, and was killed"
        self._events.emit("upgrade", state="killed", pid=elder.pid, detail=detail)
        self._lost(generation)

    def _lost(self, generation: int) -> None:
        self._there.pop(generation).close()
        self._asking.gone(generation)
        if (ledger := self._ledger_of(generation)) is not None:
            # What it counted counts no more.
            ledger.end(generation)
        if self._going is not None:
            self._going()
        if not self._there and self._stopped is not None:
            stopped, self._stopped = self._stopped, None
            stopped.callback(None)


def _handle(conversation: socket.socket, pid: int) -> int | None:
    """Of the process at the other end, which is that number's as long as its end is open."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return None
    with suppress(OSError):
        if conversation.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
            return handle
        os.close(handle)
        return None
    return handle
