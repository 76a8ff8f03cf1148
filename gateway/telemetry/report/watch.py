"""Who always used TLS: if such a client comes without, somebody on the way may have taken STARTTLS out.

In 2008 a mobile operator did that to its customers' mail.  Pure: told of the end of each session, and asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Final

from .facts import CLEAR, SECURED, Fact, Networks

ALWAYS: Final = 3
"""Sessions inside TLS after which a network without any other counts as one that always uses TLS."""
MOST: Final = 20_000
"""Networks, of each service, that are remembered; the oldest go first."""


@dataclass(slots=True)
class _Habit:
    first: int
    last: int
    count: int
    clear: bool


class Watch:
    """Knows nothing, and has nothing against anybody, until `use` is called with networks."""

    def __init__(self) -> None:
        self._networks: Networks | None = None
        self._habits: dict[tuple[str, str], _Habit] = {}

    def use(self, networks: Networks | None) -> None:
        """Count clients by these networks from now on, and forget what is known; None: not at all."""
        self._networks = networks
        self._habits.clear()

    def load(self, facts: Iterable[Fact]) -> None:
        """What was known before, or what others have found out.  Sessions may be counted twice; dates are right."""
        for fact in facts:
            key = fact.service, fact.network
            if fact.kind == SECURED:
                habit = self._habit(key, fact.first)
                habit.first, habit.last = min(habit.first, fact.first), max(habit.last, fact.last)
                habit.count += fact.count
            elif fact.kind == CLEAR:
                self._habit(key, fact.first).clear = True

    def over(self, service: str, client: str, now: int, *, secured: bool) -> None:
        """A session that did something is over."""
        if not (network := self._network(client)):
            return
        habit = self._habit((service, network), now)
        if secured:
            habit.last = max(habit.last, now)
            habit.count += 1
        else:
            habit.clear = True

    def always(self, service: str, client: str) -> Mapping[str, object] | None:
        """The dates, as fields of the event, if this client's network always used TLS here; else None."""
        habit = self._habits.get((service, self._network(client)))
        if habit is None or habit.clear or habit.count < ALWAYS:
            return None
        return {"first_tls": _date(habit.first), "last_tls": _date(habit.last)}

    def _network(self, client: str) -> str:
        return "" if self._networks is None else self._networks(client)

    def _habit(self, key: tuple[str, str], now: int) -> _Habit:
        if key not in self._habits:
            if len(self._habits) >= MOST:
                del self._habits[next(iter(self._habits))]
            self._habits[key] = _Habit(now, now, 0, clear=False)
        return self._habits[key]


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
