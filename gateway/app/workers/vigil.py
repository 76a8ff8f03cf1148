"""Processes that hang are found by their silence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, Protocol, TypeVar

from ..every import Every

BEAT: Final = 2.0
"""Seconds between two signs of life."""
SILENCE: Final = 10.0
"""Seconds without a sign of life after which a process hangs: it is killed and replaced."""
LOOK: Final = 1.0
"""Seconds between two looks for such processes."""


class Audible(Protocol):
    heard: float
    """When it last gave a sign of life, by the reactor's clock."""


T = TypeVar("T", bound=Audible)


class Vigil(Generic[T]):
    """Calls `hangs` with each that was silent for SILENCE seconds, at every look: it is the caller's to end that."""

    def __init__(self, reactor: Any, watched: Callable[[], Iterable[T]], hangs: Callable[[T], None]) -> None:
        self._reactor = reactor
        self._watched = watched
        self._hangs = hangs
        self._looked = float(reactor.seconds())
        self._duty = Every(reactor, LOOK, self._look)

    def stop(self) -> None:
        self._duty.stop()

    def _look(self) -> None:
        now = float(self._reactor.seconds())
        # A process that was held up itself, in a reload or as a whole, has not read yet what came meanwhile.
        deaf = now - self._looked - LOOK
        self._looked = now
        for one in list(self._watched()):
            if deaf > LOOK:
                one.heard = min(now, one.heard + deaf)
            if now - one.heard >= SILENCE:
                self._hangs(one)
