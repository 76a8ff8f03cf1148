"""An upgrade (SIGUSR2, or `starttls-gateway upgrade`): start a successor, and leave when it serves.

And the other side: be one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, MutableMapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config.errors import StartError
from ..guard.shared import following
from ..records import dataclass
from ..telemetry.summary import Teller
from .crowd import killed_by
from .elders import Elders
from .every import Every
from .handover import Predecessor, Successor, write_pidfile

if TYPE_CHECKING:
    from .program import Program

LOOK = 0.05
"""Seconds between two looks whether everything serves."""

_log = Logger(namespace="gateway")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an upgrade."""

    pid: int
    """The new program's process."""
    version: str = ""
    problem: str = ""
    """Why the old program goes on; empty where the new one serves."""


class Upgrade:
    def __init__(self, reactor: Any, twistd: MutableMapping[str, Any], events: Teller, service: Program) -> None:
        self._reactor = reactor
        self._twistd = twistd
        self._events = events
        self._service = service
        self._successor: Successor | None = None
        self._handed_over = False
        self.elders = Elders(reactor, events)

    # --- the old program -----------------------------------------------------------------------------

    def begin(self, stop: Callable[[], None]) -> Deferred[Outcome]:
        """Start a successor; `stop` is called when it serves.  Raises StartError where none is started."""
        if self._handed_over:
            raise StartError("another program has taken over already")
        if self.elders.follows:
            # The program before this one has told somebody that it is done, and lets go in this moment.
            return self.elders.alone().addCallback(lambda _: self.begin(stop)).addErrback(self._refused)
        if self._successor is not None:
            raise StartError("an upgrade is under way")
        if not self._service.is_serving:
            raise StartError("the gateway is about to start or to stop")
        outcome: Deferred[Outcome] = Deferred()
        bequest = replace(self._service.bequest(), elders=self.elders.conversations)

        def served(version: str, elsewhere: Collection[str] | None) -> None:
            assert self._successor is not None
            pid = self._successor.pid
            self._handed_over = True
            self._twistd["pidfile"] = None  # it is the successor's
            self.elders.hand_over()
            # Whoever asked at the control socket has to hear of it before the socket is the successor's.
            outcome.callback(Outcome(pid, version))
            self._service.hand_over(lambda: left(pid), elsewhere)

        def left(pid: int) -> None:
            self._events.emit("upgrade", state="done", pid=pid)
            # The successor is told to go on before this one ends.
            self._reactor.callLater(0, stop)

        def failed(why: str) -> None:
            assert self._successor is not None
            pid, self._successor = self._successor.pid, None
            bequest.ledger.end(following(bequest.ledger.generation))
            self._events.emit("upgrade", state="failed", pid=pid, detail=why)
            outcome.callback(Outcome(pid, problem=why))

        def broke(why: str) -> None:
            self._events.emit("upgrade", state="lost", detail=f"{why}; nobody is served any more, start the gateway")

        try:
            self._successor = Successor(
                self._reactor, bequest, served, failed, broke, self._told_to_stop, self._service.ask
            )
        except OSError as wrong:
            raise StartError(f"no program can be started: {wrong.strerror}") from None
        self._events.emit("upgrade", state="started", pid=self._successor.pid)
        return outcome

    def _refused(self, failure: Failure) -> Outcome:
        """Whoever asked by a signal has gone on: the log says it."""
        failure.trap(StartError)  # type: ignore[no-untyped-call]
        why = failure.getErrorMessage()
        self._events.emit("upgrade", state="failed", detail=why)
        return Outcome(0, problem=why)

    def _told_to_stop(self, now: bool) -> None:
        if now:
            self._service.hurry()
        else:
            self._service.lose_patience()

    # --- the new program -----------------------------------------------------------------------------

    def hurry(self) -> None:
        """Programs before this one end now."""
        self.elders.hurry()

    def stop(self) -> Deferred[None] | None:
        """This program stops, and so do those before it.  Fires when they have; None where none is left."""
        return self.elders.stop()

    def succeed(self, predecessor: Predecessor, pidfile: str | None) -> None:
        """Take over as soon as all of the service serves."""

        def look() -> None:
            if self._service.is_serving:
                looking.stop()
                self._take_over(predecessor, pidfile)

        looking = Every(self._reactor, LOOK, look)

    def _take_over(self, predecessor: Predecessor, pidfile: str | None) -> None:
        inheritance = predecessor.inheritance

        def alone() -> None:
            predecessor.let_go()
            for generation, conversation, stay in inheritance.elders:
                self.elders.add(generation, conversation, stay)
            if self._service.running:
                self._service.took_over()
            if pidfile is None:
                return
            if wrong := write_pidfile(pidfile):
                _log.warn("the pidfile {file} holds the old process, {why}", file=pidfile, why=wrong)
            self._twistd["pidfile"] = pidfile

        if inheritance.ledger is not None:
            self.elders.ledger = inheritance.ledger(killed_by(self._events))
        self.elders.add(inheritance.before, predecessor.conversation, inheritance.stay)
        self.elders.follow(inheritance.before, self._service.listens, alone)
