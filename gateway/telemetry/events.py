"""One event, one line: whatever a client says, it can forge neither a line nor a field."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import lru_cache
from itertools import accumulate
from typing import Any

from ..records import dataclass
from .kinds import Fields

LIMIT = 1024
"""Octets of a field's value as it stands in the line: long enough for every honest one (attacks: log flooding)."""

_CUT = "..."
# What needs no quotes: printable ASCII but for the blank and the three signs that mean something in logfmt.
_BARE = re.compile(r"[!#-<>-\[\]-~]+")
_BARE_LINE = re.compile(r"[ !#-\[\]-~]*")
"""The same, and what separates them."""


@dataclass(frozen=True, slots=True)
class Format:
    """How fields become a line."""

    field: Callable[[str, object, int], str]
    """Name, value, longest value in octets."""
    separator: str
    begin: str = ""
    end: str = ""

    def fields(self, fields: Fields, limit: int) -> str:
        """Those that have a value, each behind a separator."""
        field, separator = self.field, self.separator
        return "".join([separator + field(name, value, limit) for name, value in fields.items() if value is not None])

    def line(self, moment: str, event: str, rest: str) -> str:
        head = f"{self.field('time', moment, LIMIT)}{self.separator}{self.field('event', event, LIMIT)}"
        return f"{self.begin}{head}{rest}{self.end}"


class _Logfmt(Format):
    """Almost every line has only values that need no quotes. To test them together takes half of the time."""

    def fields(self, fields: Fields, limit: int) -> str:
        told = [
            f" {name}={value if type(value) is str else _as_text(value)}"
            for name, value in fields.items()
            if value is not None
        ]
        line = "".join(told)
        return line if len(line) <= limit and self._is_bare(line, len(told)) else super().fields(fields, limit)

    @staticmethod
    def _is_bare(line: str, fields: int) -> bool:
        """Whether the values in ` name=value name=value` need no quotes."""
        return (
            line.count(" ") == line.count("=") == fields
            and "= " not in line
            and not line.endswith("=")
            and _BARE_LINE.fullmatch(line) is not None
        )

    def line(self, moment: str, event: str, rest: str) -> str:
        return f"time={moment} {_named(event)}{rest}"


def _text(value: Any) -> str:
    match value:
        case bytes() | bytearray() | memoryview():
            # Octets of the wire have no charset that one could rely on.
            return bytes(value).decode("ascii", "backslashreplace")
    return str(value)


_TEXTS: Mapping[type, Callable[[Any], str]] = {
    str: str,
    bool: {False: "no", True: "yes"}.__getitem__,
    float: "{:.3f}".format,
    int: str,
}


def _as_text(value: object) -> str:
    return _TEXTS.get(type(value), _text)(value)


def _fitted(text: str, escape: Callable[[str], str], limit: int) -> str:
    """The escaped text, cut between two characters where it is longer than `limit` octets."""
    escaped = escape(text[: limit + 1])
    if len(escaped.encode()) <= limit:
        return escaped
    pieces = [escape(character) for character in text[:limit]]
    ends = accumulate(len(piece.encode()) for piece in pieces)
    return "".join(piece for piece, end in zip(pieces, ends, strict=True) if end <= limit - len(_CUT)) + _CUT


def _escaped_character(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    # Not printable are, says Unicode: controls, line and paragraph separators, bidirectional and other invisible
    # format characters, unassigned ones, and halves of surrogate pairs.
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escaped(text: str) -> str:
    return "".join(map(_escaped_character, text))


def _json_escaped(text: str) -> str:
    # The JSON grammar lets DEL through; terminals do not.
    return json.dumps(text)[1:-1].replace("\x7f", "\\u007f")


def _logfmt_field(name: str, value: object, limit: int) -> str:
    text = _as_text(value)
    if len(text) <= limit and _BARE.fullmatch(text):
        return f"{name}={text}"
    return f'{name}="{_fitted(text, _escaped, limit)}"'


@lru_cache(maxsize=256)
def _named(event: str) -> str:
    return _logfmt_field("event", event, LIMIT)


def _json_field(name: str, value: object, limit: int) -> str:
    match value:
        case bool():
            return f'"{name}":{"true" if value else "false"}'
        case int():
            return f'"{name}":{value}'
        # NaN and the infinities are no numbers in JSON; they go the way of text.
        case float() if value - value == 0:
            return f'"{name}":{round(value, 3)}'
    return f'"{name}":"{_fitted(_as_text(value), _json_escaped, limit)}"'


FORMATS = {
    "text": _Logfmt(_logfmt_field, " "),
    "json": Format(_json_field, ",", "{", "}"),
}
"""By the words of `[gateway] log`."""


class _Output:
    """What all events that came of one have in common."""

    __slots__ = ("clock", "form", "sink")

    def __init__(self, sink: Callable[[str], None], form: Format, clock: Callable[[], float]) -> None:
        self.sink = sink
        self.form = form
        self.clock = clock


class Events:
    """Where events are told: `emit("session", reason="quit")` hands one line to the sink.

    Field names are ours and go into the line as they are; values are anybody's.
    """

    __slots__ = ("_begin", "_constant", "_form", "_limit", "_output")

    def __init__(
        self,
        sink: Callable[[str], None],
        form: Format = FORMATS["text"],
        clock: Callable[[], float] = time.time,
        limit: int = LIMIT,
    ) -> None:
        self._output = _Output(sink, form, clock)
        self._constant: Fields = {}
        self._limit = limit
        self._begin = ""
        """The fields of `_constant`, written in `_form`: once, and not for each event of a session."""
        self._form: Format | None = None

    @property
    def form(self) -> Format:
        """How lines are written; another one holds from now on, also for what was bound before."""
        return self._output.form

    @form.setter
    def form(self, form: Format) -> None:
        self._output.form = form

    def emit(self, event: str, /, **fields: object) -> None:
        output = self._output
        form = output.form
        if self._constant.keys().isdisjoint(fields.keys()):
            if self._form is not form:
                self._form, self._begin = form, form.fields(self._constant, self._limit)
            rest = self._begin + form.fields(fields, self._limit)
        else:
            rest = form.fields({**self._constant, **fields}, self._limit)
        output.sink(form.line(_moment(output.clock()), event, rest))

    def bound(self, /, **fields: object) -> Events:
        """The same, with these fields first in every event."""
        return self._like({**self._constant, **fields}, self._limit)

    def limited(self, limit: int) -> Events:
        """The same, with so many octets for a value."""
        return self._like(self._constant, limit)

    def _like(self, constant: Fields, limit: int) -> Events:
        events = Events.__new__(Events)
        events._output, events._constant, events._limit = self._output, constant, limit
        events._begin, events._form = "", None
        return events


def _moment(seconds: float) -> str:
    whole, part = divmod(int(seconds * 1000), 1000)
    return f"{_second(whole)}.{part:03d}Z"


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    # The same for a hundred lines where it matters.
    return datetime.fromtimestamp(seconds, timezone.utc).replace(tzinfo=None).isoformat()
