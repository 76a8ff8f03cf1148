"""The report as text, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import Any, Final

from ..words import columns, counted, day, moment, printable
from .advice import DAY, Line, advice, lines
from .facts import Fact, Setup

WIDTH: Final = 100
"""Columns of the text."""
TIMES: Final = ("first", "last", "last_clear", "last_tls")
"""The fields of a line that are times."""


def told(facts: Sequence[Fact], now: int, days: int, setup: Setup | None, form: str) -> Iterable[str]:
    """As `text`, `json` or `csv`."""
    found = lines(facts, now - days * DAY)
    if form == "csv":
        yield _csv(found)
        return
    sentences = advice(facts, now, days, setup)
    if form == "json":
        yield _json(facts, found, sentences, now, days)
        return
    begun = min((fact.first for fact in facts), default=now)
    yield f"the last {counted(days, 'day')}; facts are kept since {day(begun)}"
    if found:
        yield ""
        yield from _table(found)
    yield ""
    for sentence in sentences:
        yield from _wrapped(sentence)


def _json(facts: Sequence[Fact], found: Sequence[Line], sentences: Sequence[str], now: int, days: int) -> str:
    begun = min((fact.first for fact in facts), default=0)
    whole = {
        "now": moment(now),
        "days": days,
        "since": _moment(begun),
        "networks": [_values(line) for line in found if line.network],
        "users": [_values(line) for line in found if line.user],
        "advice": list(sentences),
    }
    return json.dumps(whole, indent=2)


def _values(line: Line) -> dict[str, Any]:
    """The fields of a line, with readable times; docs/report.md tells what they mean."""
    values = asdict(line)
    return values | {name: _moment(values[name]) for name in TIMES}


def _csv(found: Sequence[Line]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(field.name for field in fields(Line))
    writer.writerows(map(_cell, _values(line).values()) for line in found)
    return out.getvalue().rstrip("\n")


def _cell(value: object) -> object:
    """Text that no spreadsheet takes for a formula, and no terminal for a command; users choose their names."""
    if isinstance(value, tuple):
        value = " ".join(value)
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _table(found: Sequence[Line]) -> Iterable[str]:
    whom = "network or user" if any(line.user for line in found) else "network"
    rows = [("service", whom, "last seen", "sessions", "in the clear", "lowest TLS", "weakest cipher suite")]
    for line in found:
        clear = f"{line.clear}, last {day(line.last_clear)}" if line.clear else "-"
        rows.append((
            line.service, line.network or printable(line.user), day(line.last), str(line.sessions), clear,
            line.lowest or "-", line.weakest or "-",
        ))  # fmt: skip
    return columns(rows)


def _wrapped(sentence: str) -> Iterable[str]:
    return textwrap.wrap(sentence, WIDTH, initial_indent="* ", subsequent_indent="  ", break_on_hyphens=False)


def _moment(seconds: int) -> str | None:
    return moment(seconds) if seconds else None
