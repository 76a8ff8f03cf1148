"""What an administrator reads of one session: its dialogue with the client, and its events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ..protocol.watching import Watched
from ..telemetry.summary import Teller
from .context import SessionContext

Add = Callable[[str, str, str, str, str], None]
"""Client, session, service, `C`, `S` or `-`, text."""

_HIDDEN = frozenset({"session", "service", "client", "user", "key"})
"""Fields that are known, or somebody's name."""


class Recorder:
    """In the place of a session's events: it tells them, too.  It belongs to one session."""

    def __init__(self, events: Teller, add: Add) -> None:
        self._events = events
        self._add = add
        self._whose = ("", "", "")

    def bound(self, /, **fields: object) -> Recorder:
        """A load balancer may tell later who the client is."""
        self._events = self._events.bound(**fields)
        self._whose = str(fields["client"]), str(fields["session"]), str(fields["service"])
        return self

    def emit(self, event: str, /, **fields: object) -> None:
        told = (f"{name}={_text(value)}" for name, value in fields.items() if name not in _HIDDEN and value is not None)
        self._add(*self._whose, "-", " ".join([event, *told]))
        self._events.emit(event, **fields)

    def say(self, who: str, line: bytes) -> None:
        self._add(*self._whose, who, _text(line))


def recorded(context: SessionContext, add: Add) -> SessionContext:
    """The same for one session that is recorded."""
    recorder = Recorder(context.events, add)
    negotiate = partial(Watched, tell=recorder.say, shown=context.dialect.shown)
    return replace(context, events=recorder, negotiate=negotiate)


def _text(value: object) -> str:
    return value.decode("ascii", "backslashreplace") if isinstance(value, bytes) else str(value)
