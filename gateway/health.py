"""Which of a backend's addresses failed of late: they come last until it is time to try them again."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

SHORTEST = 2.0
"""Seconds that an address comes last after its first failure; doubled with each one that follows."""
LONGEST = 60.0
"""Seconds at most: a backend that is back should not wait longer for its clients."""
REST = 1.0
"""Seconds without any attempt where all addresses have just failed: a crowd of clients must not hammer."""
SUSPICIONS = 3
"""Connections closed without a greeting in a row, until that counts as a failure: one may be a client
whom the backend has banned, which says nothing about the backend."""


@dataclass(slots=True)
class _Record:
    lasts: float = SHORTEST / 2
    """Seconds that the last failure counted."""
    suspicions: int = 0
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

    def failed(self, key: str) -> None:
        """Not reached, or reached and no mail server: refused, silent, garbage, untrustworthy."""
        record = self._records.setdefault(key, _Record())
        self._put_last(record)
        record.failed_at = self._seconds()

    def suspected(self, key: str) -> None:
        """Reached, and closed without a greeting."""
        record = self._records.setdefault(key, _Record())
        record.suspicions += 1
        if record.suspicions >= SUSPICIONS:
            # No rest: if it is a ban after all, one client must not keep all others from the only address.
            self._put_last(record)

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
