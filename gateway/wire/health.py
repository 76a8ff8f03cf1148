"""Which of a backend's addresses failed of late: they come last until it is time to try them again."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ..telemetry.kinds import Blame

SHORTEST = 2.0
"""Seconds that an address comes last after its first failure; doubled with each one that follows."""
LONGEST = 60.0
"""Seconds at most: a backend that is back should not wait longer for its clients."""
REST = 1.0
"""Seconds without any attempt where all addresses have just failed: a crowd of clients must not hammer."""
SUSPECTS = 3
"""Different clients in a row for whom an address failed, until that counts against the address.  One client proves
nothing: the backend may have banned it."""


@dataclass(slots=True)
class _Record:
    lasts: float = SHORTEST / 2
    """Seconds that the last failure counted."""
    suspects: set[str] = field(default_factory=set)
    """Clients for whom it failed; SUSPECTS at most."""
    failed_at: float = float("-inf")
    last_until: float = float("-inf")


class Health:
    """Keys are the addresses as text.  `seconds` is a clock; `jitter` keeps gateways out of step."""

    def __init__(
        self, seconds: Callable[[], float], jitter: Callable[[], float] = lambda: random.uniform(0.75, 1.25)
    ) -> None:
        self._seconds = seconds
        self._jitter = jitter
        self._records: dict[str, _Record] = {}

    def failed(self, key: str, blame: Blame = Blame.ADDRESS, client: str = "") -> None:
        """It was not reached, or did not serve `client`."""
        record = self._records.setdefault(key, _Record())
        if blame is Blame.CLIENT:
            if len(record.suspects) < SUSPECTS:
                record.suspects.add(client)
            if len(record.suspects) < SUSPECTS:
                return
        self._put_last(record)
        # Only the address itself can earn a rest: a few banned clients must not keep all others from the only one.
        if blame is Blame.ADDRESS:
            record.failed_at = self._seconds()

    def _put_last(self, record: _Record) -> None:
        now = self._seconds()
        if now >= record.last_until:  # one outage is one failure, however many clients run into it
            record.lasts = min(LONGEST, 2 * record.lasts)
            record.last_until = now + record.lasts * self._jitter()

    def greeted(self, key: str) -> None:
        """It spoke as a mail server does, be it to refuse."""
        self._records.pop(key, None)

    def is_down(self, key: str) -> bool:
        record = self._records.get(key)
        return record is not None and self._seconds() < record.last_until

    def rests(self, keys: Iterable[str]) -> bool:
        """Whether every one of these has failed a moment ago."""
        now = self._seconds()
        return all(key in self._records and now < self._records[key].failed_at + REST for key in keys)
