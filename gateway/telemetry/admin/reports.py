"""Reports that were made of late: one is made at a time, however many ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.internet.interfaces import IReactorTime

KEPT: Final = 10.0
"""Seconds for which a report stays good."""
MOST: Final = 8
"""Of different periods and forms."""

Wanted = tuple[int, str]
"""Days, and form."""


class Reports:
    def __init__(self, reactor: IReactorTime, make: Callable[[int, str], Deferred[bytes]]) -> None:
        self._reactor = reactor
        self._make = make
        self._turn = DeferredLock()
        self._made: dict[Wanted, tuple[float, bytes]] = {}

    def get(self, days: int, form: str) -> Deferred[bytes]:
        """Made within the last seconds; fails as making it does."""
        return self._turn.run(self._get, days, form)

    def _get(self, days: int, form: str) -> Deferred[bytes]:
        when, report = self._made.get((days, form), (-KEPT, b""))
        if report and self._reactor.seconds() - when < KEPT:
            return succeed(report)

        def made(report: bytes) -> bytes:
            while len(self._made) >= MOST:
                del self._made[next(iter(self._made))]
            self._made[days, form] = self._reactor.seconds(), report
            return report

        return self._make(days, form).addCallback(made)
