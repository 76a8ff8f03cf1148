"""Writes what was heard into the store, in batches and off the reactor's turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from .facts import Heard, Pending, Times, facts
from .store import Store, StoreError

FLUSH: Final = 60.0
"""Seconds between two batches."""


class Keeper:
    """`tick` is to be called every FLUSH seconds, `finish` at the end.

    `keep`: seconds after which a fact that was not true again is forgotten.  `now` is the time of day.
    `complain` gets what is wrong with the file, once for each time that it goes wrong.
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
        self._writing: Mapping[Heard, Times] | None = None
        self._complained = False

    def tick(self) -> None:
        """Write what is pending, in a thread."""
        if self._writing is None and len(self._pending):
            self._writing = self._pending.take()
            self._reactor.callInThread(self._write, self._writing)

    def finish(self) -> None:
        """Write what is pending, now."""
        heard = self._pending.take()
        if heard:
            self._written(heard, self._attempt(heard))

    def _write(self, heard: Mapping[Heard, Times]) -> None:
        wrong = self._attempt(heard)
        self._reactor.callFromThread(self._written, heard, wrong)

    def _attempt(self, heard: Mapping[Heard, Times]) -> str:
        """Why it did not succeed; nothing if it did."""
        try:
            self._store.add(facts(heard), int(self._now() - self._keep))
        except StoreError as wrong:
            return str(wrong)
        return ""

    def _written(self, heard: Mapping[Heard, Times], wrong: str) -> None:
        self._writing = None
        if wrong:
            self._pending.put_back(heard)
            if not self._complained:
                self._complain(wrong)
        self._complained = bool(wrong)
