"""Which addresses of a backend have failed.  They are tried last for a while."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

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

    def failed(self, key: str, blame: Blame = Blame.ADDRESS, client: str = "") -> None:
        """It was not reached, or did not serve `client`."""
        record = self._records.setdefault(key, _Record())
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
        self._records.pop(key, None)

    def is_down(self, key: str) -> bool:
        record = self._records.get(key)
        return record is not None and self._seconds() < record.last_until

    def rests(self, keys: Iterable[str]) -> bool:
        """Whether all of these have failed within the last REST seconds."""
        now = self._seconds()
        return all(key in self._records and now < self._records[key].failed_at + REST for key in keys)
