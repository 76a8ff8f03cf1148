"""The report's keeper, as the configuration wants it."""

from __future__ import annotations

import time
from typing import Any

from ..config.values import Report
from ..telemetry.catalogue import event
from ..telemetry.report.facts import Networks, Pending
from ..telemetry.report.keeper import FLUSH, Keeper
from ..telemetry.report.store import Store
from ..telemetry.summary import Summary, Teller, forgotten
from .every import Every


class Remembering:
    """Hears what the summary hears, and keeps of it what `use` says; nothing before that."""

    def __init__(self, reactor: Any, summary: Summary, events: Teller) -> None:
        self._reactor = reactor
        self._summary = summary
        self._events = events
        self._report = Report()
        self._keeper: Keeper | None = None
        self._duty: Every | None = None

    def use(self, report: Report) -> None:
        """From now on; what was heard before is written."""
        if report == self._report:
            return
        self.stop()
        self._report = report
        if report.file is None:
            return
        pending = Pending(Networks(*report.networks))
        self._keeper = Keeper(self._reactor, Store(report.file), pending, report.keep, time.time, self._complain)
        self._summary.remember = self._keeper.hear
        self._duty = Every(self._reactor, FLUSH, self._keeper.tick)

    def stop(self) -> None:
        """Write what was heard."""
        self._summary.remember = forgotten
        if self._duty is not None:
            self._duty.stop()
        if self._keeper is not None:
            self._keeper.finish()
        self._duty = self._keeper = None

    def _complain(self, wrong: str) -> None:
        self._events.emit("report-unwritable", detail=wrong, cure=event("report-unwritable").cure)
