"""SIGUSR2: start a successor, and leave when it serves.  And the other side: to be one."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, Protocol, runtime_checkable

from twisted.logger import Logger

from ..telemetry.summary import Teller
from .every import Every
from .handover import Bequest, Predecessor, Successor, write_pidfile

LOOK = 0.05
"""Seconds between two looks whether everything serves."""

_log = Logger(namespace="gateway")


@runtime_checkable
class Heritable(Protocol):
    """A service that another program can take over."""

    @property
    def is_serving(self) -> bool:
        """Whether all of it has started."""

    def bequest(self) -> Bequest: ...

    def hand_over(self, then: Callable[[], None]) -> None:
        """Accept nobody any more, and call `then`.  When it stops, sessions go on for `[gateway] old_sessions`."""

    def took_over(self) -> None:
        """The predecessor accepts nobody any more."""

    def inherited(self) -> None:
        """The predecessor has ended: what it counted counts no more."""


class Upgrade:
    def __init__(self, reactor: Any, twistd: MutableMapping[str, Any], events: Teller, service: Heritable) -> None:
        self._reactor = reactor
        self._twistd = twistd
        self._events = events
        self._service = service
        self._successor: Successor | None = None

    # --- the old program -----------------------------------------------------------------------------

    def begin(self, stop: Callable[[], None]) -> str:
        """Start a successor; `stop` is called when it serves.  Why none is started, or nothing."""
        if self._successor is not None:
            return "an upgrade is under way"
        if not self._service.is_serving:
            return "the gateway is about to start or to stop"

        def served(pid: int) -> None:
            self._twistd["pidfile"] = None  # it is the successor's
            self._service.hand_over(lambda: left(pid))

        def left(pid: int) -> None:
            self._events.emit("upgrade", state="done", pid=pid)
            # The successor is told to go on before this one ends.
            self._reactor.callLater(0, stop)

        def failed(why: str) -> None:
            self._successor = None
            self._events.emit("upgrade", state="failed", detail=why)

        try:
            self._successor = Successor(self._reactor, self._service.bequest(), served, failed)
        except OSError as wrong:
            return f"no program can be started: {wrong.strerror}"
        self._events.emit("upgrade", state="started", pid=self._successor.pid)
        return ""

    # --- the new program -----------------------------------------------------------------------------

    def succeed(self, predecessor: Predecessor, pidfile: str | None) -> None:
        """Take over as soon as all of the service serves."""

        def look() -> None:
            if self._service.is_serving:
                looking.stop()
                self._take_over(predecessor, pidfile)

        looking = Every(self._reactor, LOOK, look)

    def _take_over(self, predecessor: Predecessor, pidfile: str | None) -> None:
        predecessor.take_over(self._reactor, self._service.inherited)
        self._service.took_over()
        if pidfile is None:
            return
        if wrong := write_pidfile(pidfile):
            _log.warn("the pidfile {file} holds the old process, {why}", file=pidfile, why=wrong)
        self._twistd["pidfile"] = pidfile
