"""A flood of equal events is told by its beginning and its size.

Whatever one client, or anybody who can connect, can cause as often as it likes has a budget of lines a minute.  What
is beyond it is counted, and told in one `suppressed` line when the minute is over.  What costs a success (a login, a
mail) or is the gateway's own is always told.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from ..guard.limits import Client, client_key
from .catalogue import EVENTS, UNKNOWN
from .failures import Failure, Failures
from .kinds import Budget, Fields, Severity, saying
from .observation import RECENT, Recent

MINUTE = 60.0
"""Seconds that a budget is for, beginning with the first event after the last minute was over."""
TOTAL = 40
"""Lines of all kinds that share it.  The first of each kind in a minute is told in any case: nobody can hide one
attack behind another."""
FAILING = 65536
"""Clients with an event of which it is known that it was told.  Beyond it, failed logins of others are all told."""
OFFENDERS = 1024
"""Clients for which it is counted how many of their events were not told."""


Kind = tuple[str, str, str]
"""Event, service, and the reason or limit; all of them words of ours or of the configuration, and so not many."""

_INFO: Final = Severity.INFO
"""Looking up a member of an Enum costs more than looking up a global name."""


class Teller(Protocol):
    """What can be told an event; `Events` is one.

    The slash: without it Python compares the name of each field with `self` and `event`."""

    def emit(self, event: str, /, **fields: object) -> None: ...

    def bound(self, /, **fields: object) -> Teller: ...


_TELLING = ("detail", "text", "limit", "state", "file", "address", "cure")
"""Fields of which the first that has a value says most."""
LONGEST = 200
"""Characters of such a value that are remembered."""

Hear = Callable[[str, str, Fields], None]
"""Event, service, fields."""


def _unheard(event: str, service: str, fields: Fields) -> None:
    pass


Remember = Callable[[str, str, str, Fields], None]
"""Event, service, client, fields."""


class Summary:
    """What was told and what was not in this minute, for all events of the gateway.

    `seconds` is a clock that never goes back.  `tick` is to be called every few seconds, or the last flood is told of
    only with the next event; `flush` at the end.
    """

    def __init__(
        self, events: Teller, seconds: Callable[[], float], hear: Hear = _unheard, now: Callable[[], float] = time.time
    ) -> None:
        """`hear` gets every event, told or not."""
        self.optional = False
        """Tell also the events that are optional (`[gateway] log_connects`)."""
        self.failures = Failures(now)
        self.remember: Mapping[str, Remember] = {}
        """By event: what gets it with its client, told or not."""
        self._events = events
        self._seconds = seconds
        self._hear = hear
        self._now = now
        self._recent: deque[Recent] = deque(maxlen=RECENT)
        self._began = float("-inf")
        self._total = 0
        self._told: dict[Kind, int] = {}
        self._clients: dict[tuple[Kind, Client], int] = {}
        self._suppressed: dict[Kind, int] = {}
        self._offenders: dict[Client, int] = {}

    def lets(self, event: str, service: str, client: str, fields: Fields) -> bool:
        """Whether to tell an event; it is counted either way.  `client` is an address, or nothing."""
        self._hear(event, service, fields)
        if event in self.remember:
            self.remember[event](event, service, client, fields)
        self.failures.hear(event, service, client, fields)
        if self._suppressed:
            self.tick()
        found = EVENTS.get(event, UNKNOWN)
        if found.optional and not self.optional:
            return False
        budget = found.allows(fields)
        if budget is None:
            if found.severity is not _INFO:
                self._remember(found.severity, event, service, client, fields)
            return True
        self.tick()
        kind = (event, service, str(fields.get("reason") or fields.get("limit") or ""))
        key = client_key(client)
        if self._is_within(budget, kind, key):
            self._tell(budget, kind, key)
            if found.severity is not _INFO:
                self._remember(found.severity, event, service, client, fields)
            return True
        self._suppress(kind, key)
        return False

    def tick(self) -> None:
        """A minute may be over."""
        now = self._seconds()
        if now - self._began >= MINUTE:
            self.flush()
            self._began = now

    def flush(self) -> None:
        """Say what was not told, and begin anew."""
        if self._suppressed:
            kinds = sorted(self._suppressed.items(), key=lambda item: (-item[1], item[0]))
            worst = max(self._offenders, key=self._offenders.__getitem__, default=None)
            count = sum(self._suppressed.values())
            self._hear("suppressed", "", {"count": count})
            self._events.emit(
                "suppressed",
                count=count,
                seconds=round(self._seconds() - self._began, 3),
                clients=len(self._offenders),
                worst=worst,
                worst_count=None if worst is None else self._offenders[worst],
                detail=", ".join(f"{' '.join(filter(None, kind))}: {count}" for kind, count in kinds),
            )
        self._total = 0
        self._told.clear()
        self._clients.clear()
        self._suppressed.clear()
        self._offenders.clear()

    def _is_within(self, budget: Budget, kind: Kind, client: Client) -> bool:
        of_kind = self._told.get(kind, 0)
        of_client = self._clients.get((kind, client), 0)
        if of_kind == 0 or (budget.first and client and of_client == 0):
            return True
        if of_kind >= budget.per_kind or of_client >= budget.per_client:
            return False
        return not budget.shared or self._total < TOTAL

    def _tell(self, budget: Budget, kind: Kind, client: Client) -> None:
        self._told[kind] = self._told.get(kind, 0) + 1
        self._total += budget.shared
        # Who comes by a UNIX socket may be anybody.
        if client and ((kind, client) in self._clients or len(self._clients) < FAILING):
            self._clients[kind, client] = self._clients.get((kind, client), 0) + 1

    def _remember(self, severity: Severity, event: str, service: str, client: str, fields: Fields) -> None:
        text = saying(fields, _TELLING, LONGEST)
        self._recent.appendleft(Recent(self._now(), event, severity.word, service, client, text))

    @property
    def lasting(self) -> tuple[deque[Recent], dict[str, list[Failure]], dict[str, str]]:
        """What outlives sessions and is not given up after a minute."""
        return self._recent, *self.failures.lasting

    @property
    def recent(self) -> tuple[Recent, ...]:
        """The last events that were told and are more than information; the latest first."""
        return tuple(self._recent)

    def _suppress(self, kind: Kind, client: Client) -> None:
        self._suppressed[kind] = self._suppressed.get(kind, 0) + 1
        if client and (client in self._offenders or len(self._offenders) < OFFENDERS):
            self._offenders[client] = self._offenders.get(client, 0) + 1


class SummedEvents:
    """Like the events that it is made of, within the budgets of a summary."""

    __slots__ = ("_client", "_events", "_service", "_summary")

    def __init__(self, events: Teller, summary: Summary, service: str = "", client: str = "") -> None:
        self._events = events
        self._summary = summary
        self._service = service
        self._client = client

    def emit(self, event: str, /, **fields: object) -> None:
        service, client = fields.get("service"), fields.get("client")
        service = str(service) if service else self._service
        client = str(client) if client else self._client
        if self._summary.lets(event, service, client, fields):
            self._events.emit(event, **fields)

    def bound(self, /, **fields: object) -> SummedEvents:
        """The same, with these fields first in every event."""
        service = str(fields.get("service") or self._service)
        client = str(fields.get("client") or self._client)
        return SummedEvents(self._events.bound(**fields), self._summary, service, client)
