"""Events on their way from a worker to the master, who keeps the one log and its budgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText
from zope.interface import implementer

from ...telemetry.summary import Teller
from .messages import Message

LONGEST_MESSAGE = 16384
"""Octets of Twisted's own messages, tracebacks included."""


class Way:
    """Where messages go now; another way later, also for relays that were bound before."""

    __slots__ = ("tell",)

    def __init__(self, tell: Callable[[Message], None]) -> None:
        self.tell = tell


class EventsToMaster:
    """Like the events that it is told.  `budgeted`: whether clients can cause them as often as they like."""

    __slots__ = ("_budgeted", "_constant", "way")

    def __init__(self, way: Way, budgeted: bool = False, constant: Mapping[str, object] = MappingProxyType({})) -> None:
        self.way = way
        self._budgeted = budgeted
        self._constant = constant

    def emit(self, event: str, /, **fields: object) -> None:
        given = {name: value for name, value in {**self._constant, **fields}.items() if value is not None}
        self.way.tell({"event": event, "fields": given, "budgeted": self._budgeted})

    def bound(self, /, **fields: object) -> EventsToMaster:
        return EventsToMaster(self.way, self._budgeted, {**self._constant, **fields})


def pass_on(message: Message, events: Teller, sessions: Teller) -> None:
    """In the master: tell an event that came from another process."""
    fields: dict[str, Any] = message["fields"]
    (sessions if message["budgeted"] else events).emit(message["event"], **fields)


@implementer(ILogObserver)
class Told:
    """What Twisted has to say in a worker becomes an event of the master's."""

    def __init__(self, relay: EventsToMaster) -> None:
        self._relay = relay

    def __call__(self, event: LogEvent) -> None:
        message = eventAsText(event, includeTimestamp=False, includeSystem=False)
        if message:
            level = event.get("log_level", LogLevel.info).name
            text = message.rstrip("\n")[-LONGEST_MESSAGE:]
            self._relay.emit("log", level=level, message=text)
