"""The report's keeper and the downgrade watch, as the configuration wants them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ..config.values import Report
from ..telemetry.catalogue import event
from ..telemetry.report.facts import CLEAR, SECURED, Fact, Networks, Pending
from ..telemetry.report.keeper import FLUSH, Keeper
from ..telemetry.report.store import Store, StoreError
from ..telemetry.report.watch import Watch
from ..telemetry.summary import Summary, Teller, forgotten
from .every import Every


class Remembering:
    """Hears what the summary hears, and keeps of it what `use` says; nothing before that."""

    def __init__(self, reactor: Any, summary: Summary, events: Teller, watch: Watch, *, keeps: bool = True) -> None:
        """`keeps`: whether what is heard here is written; else another process does that."""
        self._keeps = keeps
        self._reactor = reactor
        self._summary = summary
        self._events = events
        self._watch = watch
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
            self._watch.use(None)
            return
        networks, store = Networks(*report.networks), Store(report.file)
        self._watch.use(networks)
        self._reactor.callInThread(self._recall, store, report)
        if not self._keeps:
            return
        self._keeper = Keeper(self._reactor, store, Pending(networks), report.keep, time.time, self._complain)
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

    def _recall(self, store: Store, report: Report) -> None:
        """In a thread.  Nothing is known where the file cannot be read; writing it will tell why."""
        with suppress(StoreError):
            facts = store.facts(int(time.time() - report.keep), (SECURED, CLEAR))
            self._reactor.callFromThread(self._recalled, report, facts)

    def _recalled(self, report: Report, facts: Sequence[Fact]) -> None:
        if report == self._report:
            self._watch.load(facts)

    def _complain(self, wrong: str) -> None:
        self._events.emit("report-unwritable", detail=wrong, cure=event("report-unwritable").cure)
