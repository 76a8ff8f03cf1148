"""The report as a page, in the style of the status page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from ..observation import Standing
from ..report.advice import DAY, Line, advice, lines
from ..report.facts import Fact, Setup
from ..words import counted, day
from .parts import document, table, text, whole

PERIODS: Final = (7, 30, 90, 365)
ROWS: Final = 500
"""Networks, and users, that are shown; the files have all."""
_HEAD: Final = (
    "service", "whom", "last seen", "lowest TLS", "weakest cipher suite", "in the clear", "refused us", "sessions",
)  # fmt: skip


def report_page(standing: Standing, facts: Sequence[Fact], now: int, days: int, setup: Setup) -> str:
    """The whole document."""
    found = lines(facts, now - days * DAY)
    begun = min((fact.first for fact in facts), default=now)
    periods = ", ".join(
        f"{one} days" if one == days else f'<a href="/report?since={one}d">{one} days</a>' for one in PERIODS
    )
    files = " and ".join(f'<a href="/report.{form}?since={days}d">{form.upper()}</a>' for form in ("csv", "json"))
    sentences = "".join(f"<li>{text(sentence)}</li>" for sentence in advice(facts, now, days, setup))
    users = [line for line in found if line.user]
    sections = {
        "period": f"<h2>Period</h2><p>The last {counted(days, 'day')} of those since {day(begun)}. Others: {periods}. "
        f"All of it for programs: {files}.</p>",
        "advice": f"<h2>Advice</h2><ul>{sentences}</ul>",
        "networks": "<h2>Networks</h2>"
        + _lines("Networks, those that need most first", [line for line in found if line.network]),
        **({"users": "<h2>Users</h2>" + _lines("Users, those that need most first", users)} if users else {}),
    }
    state = "Which clients still need what: networks without TLS, and with old TLS."
    return document("Report of the STARTTLS gateway on", standing, state, sections)


def _lines(caption: str, found: Sequence[Line]) -> str:
    """Those that need most come first."""
    worst = sorted(found, key=lambda line: (not line.clear, line.lowest or "z", not line.refusals))
    more = f"<p>{whole(len(found) - ROWS)} more are in the files.</p>" if len(found) > ROWS else ""
    return table(caption, _HEAD, _cells(worst[:ROWS]), numbers=1) + more


def _cells(found: Iterable[Line]) -> Iterable[tuple[str, ...]]:
    for line in found:
        clear = f"{whole(line.clear)}, last {day(line.last_clear)}" if line.clear else ""
        yield (
            text(line.service),
            text(line.network or line.user),
            day(line.last),
            text(line.lowest),
            text(line.weakest),
            clear,
            text(", ".join(line.refusals)),
            whole(line.sessions),
        )
