"""The report as text, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any, Final

from ..words import counted, printable
from .advice import DAY, Line, advice, lines
from .facts import Fact, Setup

WIDTH: Final = 100
"""Columns of the text."""
COLUMNS: Final = (
    "service", "network", "user", "first", "last", "sessions", "clear", "last_clear", "clear_logins", "clear_data",
    "last_tls", "lowest", "weakest", "classical", "nameless", "refusals", "downgrades", "tls_required",
)  # fmt: skip
"""Of the CSV; docs/report.md tells what they mean."""


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
    yield f"the last {counted(days, 'day')}; facts are kept since {_day(begun)}"
    if found:
        yield ""
        yield from _table(found)
    yield ""
    for sentence in sentences:
        yield from _wrapped(sentence)


def _json(facts: Sequence[Fact], found: Sequence[Line], sentences: Sequence[str], now: int, days: int) -> str:
    def times(line: Line) -> dict[str, Any]:
        values = asdict(line)
        for name in ("first", "last", "last_clear", "last_tls"):
            values[name] = _moment(values[name])
        return values

    begun = min((fact.first for fact in facts), default=0)
    whole = {
        "now": _moment(now),
        "days": days,
        "since": _moment(begun),
        "networks": [times(line) for line in found if line.network],
        "users": [times(line) for line in found if line.user],
        "advice": list(sentences),
    }
    return json.dumps(whole, indent=2)


def _csv(found: Sequence[Line]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in found:
        values = asdict(line)
        for name in ("first", "last", "last_clear", "last_tls"):
            values[name] = _moment(values[name]) or ""
        for name in ("classical", "refusals"):
            values[name] = " ".join(values[name])
        writer.writerow([_cell(values[name]) for name in COLUMNS])
    return out.getvalue().rstrip("\n")


def _cell(value: object) -> object:
    """Text that no spreadsheet takes for a formula, and no terminal for a command; users choose their names."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _table(found: Sequence[Line]) -> Iterable[str]:
    whom = "network or user" if any(line.user for line in found) else "network"
    rows = [("service", whom, "last seen", "sessions", "in the clear", "lowest TLS", "weakest cipher suite")]
    for line in found:
        clear = f"{line.clear}, last {_day(line.last_clear)}" if line.clear else "-"
        rows.append((
            line.service, line.network or printable(line.user), _day(line.last), str(line.sessions), clear,
            line.lowest or "-", line.weakest or "-",
        ))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _wrapped(sentence: str) -> Iterable[str]:
    return textwrap.wrap(sentence, WIDTH, initial_indent="* ", subsequent_indent="  ", break_on_hyphens=False)


def _moment(seconds: int) -> str | None:
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _day(seconds: int) -> str:
    return (_moment(seconds) or "-")[:10]
