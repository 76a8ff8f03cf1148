"""What an administrator does about clients, for the whole gateway: the process that answers at the control socket knows
all bans, and hears the events of all processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed

from ..config.values import Configuration
from ..guard.bans import Bans, written
from ..telemetry.explaining import explained
from ..telemetry.failures import Failures
from ..telemetry.summary import Teller
from .banning import Banning, meant, moment
from .control.messages import Answer, Request

SHOWN = 50
"""Failures in one answer."""


class Acting:
    def __init__(
        self,
        events: Teller,
        failures: Failures,
        configuration: Callable[[], Configuration],
        changed: Callable[[], Any],
        ask: Callable[[Request], Any],
        reactor: Callable[[], Any],
    ) -> None:
        """`changed`, `ask` and `reactor`: as `Banning` has them."""
        self.bans = Bans()
        self._failures = failures
        self.banning = Banning(self.bans, events, configuration, changed, ask, reactor)
        self._commands: dict[str, Callable[[Request], Deferred[Answer]]] = {
            "ban": self.banning.ban,
            "unban": self.banning.unban,
            "bans": self.banning.shown,
            "why": self._why,
        }

    def answers(self, request: Request) -> bool:
        return request.command in self._commands

    def ask(self, request: Request) -> Deferred[Answer]:
        return self._commands[request.command](request)

    def begin(self) -> None:
        """Before anybody is served."""
        self.banning.recall()

    def end(self) -> None:
        """Nobody asks any more."""
        self.banning.settle()

    def look(self) -> None:
        """Call it every few seconds."""
        self.banning.look()

    # --- why -------------------------------------------------------------------------------------

    def _why(self, request: Request) -> Deferred[Answer]:
        try:
            whom = meant(request.about)
        except ValueError as wrong:
            return succeed(Answer({}, (str(wrong),)))
        rows = []
        for one in self._failures.of(whom)[:SHOWN]:
            words, cure = explained(one)
            rows.append({
                "client": one.client, "service": one.service, "event": one.event, "words": words, "cause": one.cause,
                "cure": cure, "first": moment(one.first), "last": moment(one.last), "count": one.count,
            })  # fmt: skip
        return succeed(Answer({
            "network": written(whom),
            "bans": self.banning.rows(whom),
            "failures": rows,
            "remembered": len(self._failures),
        }))  # fmt: skip
