"""Which addresses of a backend have failed.  They are tried last for a while."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import field
from typing import Any

from ..records import dataclass
from ..telemetry.kinds import Blame

SHORTEST = 2.0
"""Seconds that an address is tried last after its first failure.  Doubled with each further failure."""
LONGEST = 60.0
"""The maximum of these seconds."""
REST = 1.0
"""Seconds without any attempt after all addresses have failed, to protect the backend."""
SUSPECTS = 3
"""If an address fails for so many different clients in a row, it counts as a failure of the address.  With fewer, the
backend may have banned these clients."""


@dataclass(slots=True)
class _Record:
    lasts: float = SHORTEST / 2
    """Seconds of the last failure."""
    suspects: set[str] = field(default_factory=set)
    """Clients for which it failed; up to SUSPECTS."""
    failed_at: float = float("-inf")
    last_until: float = float("-inf")


class Health:
    """Keys are addresses as text.  `seconds` is a clock.  `jitter` prevents attempts of many gateways at once."""

    def __init__(
        self, seconds: Callable[[], float], jitter: Callable[[], float] = lambda: random.uniform(0.75, 1.25)
    ) -> None:
        self._seconds = seconds
        self._jitter = jitter
        self._records: dict[str, _Record] = {}
        self.changed: Callable[[str], None] = _nothing
        """Called with the key of whatever `failed` or `greeted` changed."""

    def addresses(self) -> tuple[str, ...]:
        """Of all addresses that failed and have not served since."""
        return tuple(self._records)

    def record(self, key: str) -> list[Any] | None:
        """What is known of an address, for another process with the same clock; None where all is well."""
        found = self._records.get(key)
        return None if found is None else [found.lasts, sorted(found.suspects), found.failed_at, found.last_until]

    def learn(self, key: str, record: list[Any] | None) -> None:
        """What another process knows of it.  Nothing is called changed by that."""
        if record is None:
            self._records.pop(key, None)
            return
        lasts, suspects, failed_at, last_until = record
        mine = self._records.setdefault(key, _Record())
        if last_until > mine.last_until:
            mine.lasts, mine.last_until = lasts, last_until
        mine.failed_at = max(mine.failed_at, failed_at)
        mine.suspects.update(suspects)

    def failed(self, key: str, blame: Blame = Blame.ADDRESS, client: str = "") -> None:
        """It was not reached, or did not serve `client`."""
        record = self._records.setdefault(key, _Record())
        self._count(record, blame, client)
        self.changed(key)

    def _count(self, record: _Record, blame: Blame, client: str) -> None:
        if blame is Blame.CLIENT:
            if len(record.suspects) < SUSPECTS:
                record.suspects.add(client)
            if len(record.suspects) < SUSPECTS:
                return
        self._put_last(record)
        # Other failures cause no pause: a few banned clients must not keep all others from the only address.
        if blame is Blame.ADDRESS:
            record.failed_at = self._seconds()

    def _put_last(self, record: _Record) -> None:
        now = self._seconds()
        if now >= record.last_until:  # one outage counts once, not for each client
            record.lasts = min(LONGEST, 2 * record.lasts)
            record.last_until = now + record.lasts * self._jitter()

    def greeted(self, key: str) -> None:
        """It sent a greeting of its protocol, possibly a refusal."""
        if self._records.pop(key, None) is not None:
            self.changed(key)

    def is_down(self, key: str) -> bool:
        record = self._records.get(key)
        return record is not None and self._seconds() < record.last_until

    def rests(self, keys: Iterable[str]) -> bool:
        """Whether all of these have failed within the last REST seconds."""
        now = self._seconds()
        return all(key in self._records and now < self._records[key].failed_at + REST for key in keys)


def _nothing(key: str) -> None:
    pass
