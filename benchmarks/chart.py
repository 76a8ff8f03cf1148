"""The result as a picture: one panel for each workload, one bar for each peer, SVG without any library."""

from __future__ import annotations

from xml.sax.saxutils import escape

from . import figures
from .report import Run, number, warning
from .workloads import Workload

WIDTH, COLUMNS = 1080, 2
BAR, GAP = 18, 8
LABEL, VALUE, MARGIN = 80, 110, 16
_COLOURS = {"gateway": "#1668b8", "before": "#8fb8dd", "twisted": "#c9c9c9"}
_OTHERS = "#8a8f98"


def _text(x: float, y: float, words: str, anchor: str = "start", weight: str = "normal", colour: str = "#222") -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'


def _panel(run: Run, workload: Workload, left: float, top: float, width: float) -> tuple[str, float]:
    """The panel and its height."""
    bars = [one for one in figures.figures(run.samples, workload, run.rivals, run.peers) if one.rounds]
    parts = [_text(left, top + 14, workload.title, weight="bold")]
    parts.append(_text(left + width, top + 14, workload.unit, anchor="end", colour="#666"))
    room = width - LABEL - VALUE
    longest = max((one.greatest for one in bars), default=1.0) or 1.0
    y = top + 28
    for one in bars:
        begin = left + LABEL
        length = room * one.median / longest
        middle = y + BAR / 2
        parts.append(
            _text(begin - 8, middle + 4, one.peer, anchor="end", weight="bold" if one.peer == "gateway" else "normal")
        )
        colour = _COLOURS.get(one.peer, _OTHERS)
        parts.append(f'<rect x="{begin}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2" fill="{colour}"/>')
        low, high = (begin + room * value / longest for value in (one.least, one.greatest))
        parts.append(f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="#222" stroke-width="1.5"/>')
        share = "" if one.of_nginx is None else f"  ({one.of_nginx:.2f})"
        parts.append(_text(begin + room + 8, middle + 4, number(one.median * workload.scale) + share))
        y += BAR + GAP
    return "\n".join(parts), y - top + MARGIN


def svg(run: Run) -> str:
    """Bars are medians, lines the range from the least to the greatest, in parentheses the ratio to nginx."""
    rounds = len({sample.round for sample in run.samples})
    width = (WIDTH - MARGIN * (COLUMNS + 1)) / COLUMNS
    measured = {sample.workload for sample in run.samples if sample.measures}
    shown = [workload for workload in run.workloads if workload.name in measured]
    parts: list[str] = []
    y = 52.0
    for first in range(0, len(shown), COLUMNS):
        tallest = 0.0
        for column, workload in enumerate(shown[first : first + COLUMNS]):
            drawn, height = _panel(run, workload, MARGIN + column * (width + MARGIN), y, width)
            parts.append(drawn)
            tallest = max(tallest, height)
        y += tallest
    if noise := warning(run):
        # A picture travels without the text.
        parts.append(_text(MARGIN, y + 4, noise, weight="bold", colour="#b00020"))
        y += 2 * MARGIN
    title = _text(MARGIN, 28, "Cost per unit of work; smaller is better", weight="bold")
    note = _text(
        WIDTH - MARGIN,
        28,
        f"bar: median, line: range of the rounds ({rounds}), in parentheses: ratio to nginx",
        anchor="end",
        colour="#666",
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0f}" width="{WIDTH}" height="{y:.0f}"'
            ' font-family="sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{y:.0f}" fill="white"/>',
            title,
            note,
            *parts,
            "</svg>\n",
        ]
    )
