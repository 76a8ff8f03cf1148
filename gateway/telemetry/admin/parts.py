"""What pages are made of.  Every text is escaped; there is no style and no script, so that the policy may be strict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from ..observation import Standing
from ..words import printable


def document(title: str, standing: Standing, state: str, sections: Mapping[str, str], *, script: bool = False) -> str:
    """A whole page.  `state` and the sections, by their names, are HTML.  `script`: the page renews itself."""
    whole_title = f"{title} {text(standing.hostname)}"
    parts = "".join(f'<section id="{name}">{part}</section>' for name, part in sections.items())
    renewal = '<script src="/page.js" defer></script>' if script else ""
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{whole_title}</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<link rel="icon" href="/icon.svg"><link rel="stylesheet" href="/style.css">{renewal}</head><body>'
        f"<header><h1>{whole_title}</h1>"
        f'<p id="updated">{state}</p></header>'
        f"<main>{parts}</main>"
        f"<footer><p>starttls-gateway {text(standing.version)}. "
        '<a href="/">Status</a>, <a href="/report">report</a>; the same figures for programs: '
        '<a href="/metrics">metrics</a>, <a href="/sessions.json">open sessions</a>.</p></footer></body></html>\n'
    )


def text(value: str) -> str:
    """Anybody's words."""
    return escape(printable(value))


def whole(value: object) -> str:
    return f"{int(value):,}".replace(",", "\u202f") if isinstance(value, int | float) else ""


def state_of(good: bool, words: str, otherwise: str) -> str:
    """Told in words and by a sign, not by a colour alone."""
    return f'<span class="good">\u2713 {words}</span>' if good else f'<span class="bad">\u2717 {otherwise}</span>'


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """Cells are HTML.  The last `numbers` columns hold numbers."""
    first = len(head) - numbers
    body = "".join(
        "<tr>" + "".join(_cell(cell, place >= first) for place, cell in enumerate(row)) + "</tr>" for row in rows
    )
    if not body:
        return f'<p class="none">{caption}: none.</p>'
    heads = "".join(f'<th scope="col"{_numeric(place >= first)}>{one}</th>' for place, one in enumerate(head))
    wide = ' class="columns"' if len(head) > 4 else ""
    return (
        f'<div class="wide" role="region" aria-label="{caption}" tabindex="0"><table{wide}><caption>{caption}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(cell: str, numeric: bool) -> str:
    return f"<td{_numeric(numeric)}>{cell}</td>"


def _numeric(numeric: bool) -> str:
    return ' class="number"' if numeric else ""
