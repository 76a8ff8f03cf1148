"""Processes that hang are found by their silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ...sessions.deadline import Deadline

BEAT: Final = 2.0
"""Seconds between two signs of life."""
SILENCE: Final = 10.0
"""Seconds without a sign of life after which a process hangs: it is killed and replaced."""
LOOK: Final = 1.0
"""Seconds between two looks at the time that another process has left."""


class Vigil:
    """Calls `late` when another process has had its time, and had said nothing.

    This process may be held up itself, in a reload or with the whole machine.  Then that time does not count: what the
    other one said meanwhile was not read yet, or it could say nothing.

    It begins when it is given its time.
    """

    __slots__ = ("_deadline", "_late", "_left", "_looked", "_reactor", "_seconds")

    def __init__(self, reactor: Any, late: Callable[[], None]) -> None:
        self._reactor = reactor
        self._late = late
        self._deadline = Deadline(reactor, self._look)
        self._seconds = self._left = SILENCE

    def give(self, seconds: float = SILENCE) -> None:
        """So many seconds from now on."""
        self._seconds = self._left = seconds
        self._wait()

    def heard(self) -> None:
        """A sign of life: all of its time again, less one look at most."""
        self._left = self._seconds

    def stop(self) -> None:
        self._deadline.cancel()

    def _wait(self) -> None:
        self._looked = self._reactor.seconds()
        self._deadline.set(self._looked + min(LOOK, self._left))

    def _look(self) -> None:
        passed = self._reactor.seconds() - self._looked
        if passed < 2 * LOOK:
            self._left -= passed
        if self._left > 0:
            self._wait()
        else:
            self._late()
