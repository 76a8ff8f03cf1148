"""The last 24 hours in steps of five minutes, for the charts of the status page."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ..records import dataclass
from .metrics import Snapshot

STEP = 300.0
"""Seconds of one step."""
STEPS = 288
"""A day of them."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: gauges at its end, and by how much counters grew in it."""

    sessions: float
    """Open ones."""
    ended: float
    plaintext: float
    """Of those that ended: without TLS."""
    failed_logins: float
    attacks: float


class History:
    """`seconds` is a clock that never goes back.  `look` is to be called with each snapshot that is made; the first one
    after a step is over ends it."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.steps: deque[Step] = deque(maxlen=STEPS)
        """The oldest first."""
        self._seconds = seconds
        self._ends = seconds() + STEP
        self._before: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)

    @property
    def is_due(self) -> bool:
        return self._seconds() >= self._ends

    def look(self, snapshot: Snapshot) -> None:
        if not self.is_due:
            return
        # After a time in which nobody looked, one step stands for all of it.
        self._ends += STEP * ((self._seconds() - self._ends) // STEP + 1)
        now = (
            snapshot.total("sessions_total"),
            snapshot.total("sessions_total", tls="none"),
            snapshot.total("logins_total", result="failed"),
            snapshot.total("attacks_total"),
        )
        # A worker that died without a last word takes its counts along: that is no negative growth.
        grown = [max(0.0, new - old) for new, old in zip(now, self._before, strict=True)]
        self._before = now
        self.steps.append(Step(snapshot.total("sessions"), *grown))
