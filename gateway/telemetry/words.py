"""Words for people: anybody's, made harmless, numbers of things, moments, and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timezone


def printable(text: str) -> str:
    """Anybody's words, for a terminal or a page: what cannot be printed is shown as a question mark, so that it cannot
    turn text around."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in text)


def counted(number: int, noun: str) -> str:
    """`1 session`, `2 sessions`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def moment(seconds: float) -> str:
    """Seconds since 1970 as `2026-11-28T10:46:51Z`."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def day(seconds: float) -> str:
    return moment(seconds)[:10]


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
