"""One deadline for one session, moved with every step and paid for only when it fires."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Deadline:
    """Calls `expired` when the time that was set last has come.

    Setting a later time costs no timer: the old one fires, sees that it is early, and waits again.
    """

    __slots__ = ("_call", "_due", "_expired", "_reactor")

    def __init__(self, reactor: Any, expired: Callable[[], None]) -> None:
        self._reactor = reactor
        self._expired = expired
        self._due = 0.0
        self._call: Any = None

    def set(self, seconds: float) -> None:
        self._due = self._reactor.seconds() + seconds
        if self._call is None:
            self._call = self._reactor.callLater(seconds, self._fire)
        elif self._call.getTime() > self._due:
            self._call.reset(seconds)

    def cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _fire(self) -> None:
        self._call = None
        early = self._due - self._reactor.seconds()
        if early > 0:
            self._call = self._reactor.callLater(early, self._fire)
        else:
            self._expired()
