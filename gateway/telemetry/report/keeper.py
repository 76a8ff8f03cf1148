"""Hears every event, and writes what it means into the store, in batches and off the reactor's turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ..kinds import Fields
from .facts import Key, Pending, Times
from .store import Store, StoreError

FLUSH: Final = 60.0
"""Seconds between two batches."""


class Keeper:
    """`tick` is to be called every FLUSH seconds, `finish` at the end.

    `keep`: seconds after which a fact that was not true again is forgotten.  `now` is the time of day, for the report
    outlives the process.  `complain` gets what is wrong with the file, once for each time that it goes wrong.
    """

    def __init__(
        self,
        reactor: Any,
        store: Store,
        pending: Pending,
        keep: float,
        now: Callable[[], float],
        complain: Callable[[str], object],
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._pending = pending
        self._keep = keep
        self._now = now
        self._complain = complain
        self._writing: Mapping[Key, Times] | None = None
        self._complained = False

    def hear(self, event: str, service: str, client: str, fields: Fields) -> None:
        """One of HEARD."""
        self._pending.hear(event, service, client, fields, int(self._now()))

    def tick(self) -> None:
        """Write what is pending, in a thread."""
        if self._writing is None and len(self._pending):
            self._writing = self._pending.take()
            self._reactor.callInThread(self._write, self._writing)

    def finish(self) -> None:
        """Write what is pending, now."""
        facts = self._pending.take()
        if facts:
            self._written(facts, self._attempt(facts))

    def _write(self, facts: Mapping[Key, Times]) -> None:
        wrong = self._attempt(facts)
        self._reactor.callFromThread(self._written, facts, wrong)

    def _attempt(self, facts: Mapping[Key, Times]) -> str:
        """Why it did not succeed; nothing if it did."""
        try:
            self._store.add(facts, int(self._now() - self._keep))
        except StoreError as wrong:
            return str(wrong)
        return ""

    def _written(self, facts: Mapping[Key, Times], wrong: str) -> None:
        self._writing = None
        if wrong:
            self._pending.put_back(facts)
            if not self._complained:
                self._complain(wrong)
        self._complained = bool(wrong)


HEARD: Final = frozenset({"session", "auth", "tls-failed", "downgrade"})
