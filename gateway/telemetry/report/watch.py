"""Who always used TLS: if such a client comes without, somebody on the way may have taken STARTTLS out.

In 2008 a mobile operator did that to its customers' mail.  Pure: told of the end of each session, and asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from ...records import dataclass
from ..words import moment
from .facts import CLEAR, SECURED, Fact, Networks, of_user

ALWAYS: Final = 3
"""Sessions inside TLS after which a network without any other counts as one that always uses TLS."""
MOST: Final = 20_000
"""Networks and users, of each service, that are remembered; the oldest go first."""


@dataclass(slots=True)
class Habit:
    """What is known of a network, or of a user, at a service.  Times are seconds since 1970."""

    first: int
    """The first session inside TLS."""
    last: int
    """The last one."""
    count: int = 0
    """How many of them."""
    clear: bool = False
    """There was one without TLS."""


Habits = list[tuple[tuple[str, str], Habit]]
"""By service and whom it is about: a network, or `user:NAME`."""


def habits(facts: Iterable[Fact]) -> Habits:
    """What a report says of the networks that it knows."""
    found: dict[tuple[str, str], Habit] = {}
    for fact in facts:
        if fact.kind in (SECURED, CLEAR):
            habit = found.setdefault((fact.service, fact.network), Habit(fact.first, fact.last))
            if fact.kind == CLEAR:
                habit.clear = True
            else:
                habit.first, habit.last = min(habit.first, fact.first), max(habit.last, fact.last)
                habit.count += fact.count
    return list(found.items())


class Watch:
    """Knows nothing, and has nothing against anybody, until `use` is called with networks."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._networks: Networks | None = None
        self._habits: dict[tuple[str, str], Habit] = {}

    def use(self, networks: Networks | None) -> None:
        """Count clients by these networks from now on, and forget what is known; None: not at all."""
        self._networks = networks
        self._habits.clear()

    def load(self, known: Habits) -> None:
        """What was known before, or what other processes have found out; it may be told again and again."""
        if self._networks is None:
            return
        for key, habit in known:
            mine = self._habits.get(key) or self._new(key, habit.first)
            mine.first, mine.last = min(mine.first, habit.first), max(mine.last, habit.last)
            mine.count = max(mine.count, habit.count)
            mine.clear = mine.clear or habit.clear

    def over(self, service: str, client: str, *, secured: bool, user: str | None = None) -> Mapping[str, object] | None:
        """A session that did something is over.  `user`: who logged in, if that is known.  What `always` says of it if
        it was without TLS."""
        networks = self._networks
        if networks is None:
            return None
        now, dates = int(self._now()), None if secured else self.always(service, client, user)
        for who in (networks(client), of_user(user)) if user else (networks(client),):
            habit = self._habits.get((service, who))
            if habit is None:
                if not who:
                    continue
                habit = self._new((service, who), now)
            if secured:
                if now > habit.last:
                    habit.last = now
                habit.count += 1
            else:
                habit.clear = True
        return dates

    def always(self, service: str, client: str, user: str | None = None) -> Mapping[str, object] | None:
        """The dates, as fields of the event, if this client's network always used TLS here, or this user did; else
        None."""
        if self._networks is None:
            return None
        dates = self._dates(service, self._networks(client))
        if dates is None and user:
            dates = self._dates(service, of_user(user))
            return None if dates is None else {**dates, "user": user}
        return dates

    def _dates(self, service: str, who: str) -> Mapping[str, object] | None:
        habit = self._habits.get((service, who))
        if habit is None or habit.clear or habit.count < ALWAYS:
            return None
        return {"first_tls": moment(habit.first), "last_tls": moment(habit.last)}

    def _new(self, key: tuple[str, str], now: int) -> Habit:
        if len(self._habits) >= MOST:
            del self._habits[next(iter(self._habits))]
        habit = self._habits[key] = Habit(now, now)
        return habit
