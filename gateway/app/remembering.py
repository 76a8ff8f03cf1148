"""The report's keeper and the downgrade watch, as the configuration wants them."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import Any

from ..config.values import Report
from ..telemetry.catalogue import event
from ..telemetry.report.facts import CLEAR, HEARD, SECURED, Networks, Pending
from ..telemetry.report.keeper import FLUSH, Keeper
from ..telemetry.report.store import Store, StoreError
from ..telemetry.report.watch import Habits, Watch, habits
from ..telemetry.summary import Summary, Teller
from .every import Every

PART = 500
"""Networks that are taken in at once."""


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

    def begin(self, report: Report) -> None:
        """`use` it, and know what was known before when this returns: at the start nobody waits."""
        self._change(report)
        if report.file is not None:
            self._watch.load(self._known(Store(report.file), time.time() - report.keep))

    def use(self, report: Report) -> None:
        """From now on; what was heard before is written."""
        if report == self._report:
            return
        self._change(report)
        if report.file is not None:
            self._reactor.callInThread(self._recall, Store(report.file), report, time.time() - report.keep)

    def _change(self, report: Report) -> None:
        self.stop()
        self._report = report
        if report.file is None:
            self._watch.use(None)
            return
        networks, store = Networks(*report.networks), Store(report.file)
        self._watch.use(networks)
        if not self._keeps:
            self._duty = Every(self._reactor, FLUSH, partial(self._recall_again, store, report))
            return
        pending = Pending(networks)
        self._keeper = Keeper(self._reactor, store, pending, report.keep, time.time, self._complain)
        self._summary.remember = dict.fromkeys(HEARD, pending.hear)
        self._duty = Every(self._reactor, FLUSH, self._keeper.tick)

    def stop(self) -> None:
        """Write what was heard."""
        self._summary.remember = {}
        if self._duty is not None:
            self._duty.stop()
        if self._keeper is not None:
            self._keeper.finish()
        self._duty = self._keeper = None

    def _recall_again(self, store: Store, report: Report) -> None:
        """What other processes have found out meanwhile."""
        self._reactor.callInThread(self._recall, store, report, time.time() - 3 * FLUSH)

    def _recall(self, store: Store, report: Report, since: float) -> None:
        """In a thread."""
        self._reactor.callFromThread(self._recalled, report, self._known(store, since))

    def _known(self, store: Store, since: float) -> Habits:
        """Nothing where the file cannot be read; writing it will tell why."""
        with suppress(StoreError):
            return habits(store.facts(int(since), (SECURED, CLEAR)))
        return []

    def _recalled(self, report: Report, known: Habits) -> None:
        """A part at a time: no session waits for it."""
        if report == self._report:
            self._watch.load(known[:PART])
            if rest := known[PART:]:
                self._reactor.callLater(0, self._recalled, report, rest)

    def _complain(self, wrong: str) -> None:
        self._events.emit("report-unwritable", detail=wrong, cure=event("report-unwritable").cure)
