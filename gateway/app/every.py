"""Periodic work: the one way in which the gateway does something every so many seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..sessions.deadline import Deadline


class Every:
    """Calls `act` every so many seconds; the first call comes after the first period.

    What `act` raises goes to the reactor, which logs it; the work goes on.  (Twisted's LoopingCall installs the default
    reactor, whichever it is given.)
    """

    def __init__(self, reactor: Any, seconds: float, act: Callable[[], object]) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._act = act
        self._deadline = Deadline(reactor, self._expired)
        self._wait()

    def stop(self) -> None:
        self._deadline.cancel()

    def _wait(self) -> None:
        self._deadline.set(self._reactor.seconds() + self._seconds)

    def _expired(self) -> None:
        self._wait()
        self._act()
