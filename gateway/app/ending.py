"""The end of the gateway: sessions may finish for a while, and are cut off after it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from twisted.internet.defer import Deferred

from ..sessions.deadline import Deadline
from ..sessions.session import Session
from ..telemetry.summary import Teller
from .crowd import Crowd
from .every import Every

CUT = 1.0
"""Seconds that sessions which are cut off may take to be gone."""
PROGRESS = 10.0
"""Seconds between two lines that tell how many sessions are left."""
HURRIED = "asked a second time: they are cut off"
OVER = "the time of [gateway] drain is over: they are cut off"
GOING_ON = "a second SIGTERM or SIGINT ends them now"


class Ending:
    """How the gateway stops.  The Deferred of `begin` fires when the last session has ended."""

    def __init__(self, reactor: Any, crowd: Crowd, events: Teller) -> None:
        self._reactor = reactor
        self._crowd = crowd
        self._events = events
        self._hurried = False
        self._stopped: Deferred[None] | None = None
        self._until: float | None = None
        """When the sessions are cut off, by the reactor's clock."""
        self._deadline = Deadline(reactor, self._expired)
        self._progress: Every | None = None
        self._patient = False
        """Sessions go on as if nothing had happened."""

    @property
    def left(self) -> float | None:
        """Seconds that the sessions still have; None where nothing ends."""
        return None if self._until is None else max(0.0, self._until - self._reactor.seconds())

    def begin(self, drain: float, patience: float = 0.0) -> Deferred[None] | None:
        """Say goodbye to all sessions; `drain`: seconds that they may take.  None where nobody is there.

        `patience`: seconds for which they go on before that as if nothing had happened.
        """
        self._until = self._reactor.seconds() + patience + drain
        if not self._crowd.sessions:
            self._events.emit("stopping", sessions=0)
            return None
        stopped = self._stopped = Deferred()
        if self._hurried:
            self._cut(HURRIED)
            return stopped
        self._tell(GOING_ON, moment(patience + drain))
        if patience:
            self._patient = True
            self._deadline.set(self._until - drain)
        else:
            self._say_goodbye(self._until)
        return stopped

    def lose_patience(self, drain: float) -> None:
        """Sessions have `drain` seconds to end from now on."""
        if self._patient:
            self._patient = False
            self._until = self._reactor.seconds() + drain
            self._tell(GOING_ON, moment(drain))
            self._say_goodbye(self._until)

    def _say_goodbye(self, until: float) -> None:
        self._deadline.set(until)
        self._progress = Every(self._reactor, PROGRESS, lambda: self._tell(GOING_ON, left=round(self.left or 0.0)))
        self._crowd.tell_all(Session.stop)

    def hurry(self) -> None:
        """Cut off all sessions: now if the gateway is stopping, otherwise when it stops."""
        self._hurried = True
        if self._stopped is not None:
            self._cut(HURRIED)

    def gone(self) -> None:
        """Nobody is inside any more."""
        if self._stopped is not None:
            self._deadline.cancel()
            self._stop_telling()
            stopped, self._stopped = self._stopped, None
            stopped.callback(None)

    def _expired(self) -> None:
        if self._patient and self._until is not None:
            self._patient = False
            self._say_goodbye(self._until)
        elif self._until is not None and self._progress is not None:
            self._cut(OVER)
        else:
            self.gone()

    def _cut(self, why: str) -> None:
        self._tell(why)
        self._patient = False
        self._until = self._reactor.seconds()
        self._stop_telling()
        # They are gone in the next turn.  After a bug in one of them this is the end nevertheless.
        self._deadline.set(self._reactor.seconds() + CUT)
        self._crowd.tell_all(lambda session: session.abort("shutdown"))

    def _stop_telling(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _tell(self, detail: str, until: str | None = None, left: int | None = None) -> None:
        self._events.emit("stopping", sessions=len(self._crowd.sessions), until=until, left=left, detail=detail)


def moment(seconds: float) -> str:
    """In so many seconds, as the log tells it."""
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).isoformat(timespec="seconds")
