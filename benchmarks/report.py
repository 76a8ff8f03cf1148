"""The result for people, as text, and for programs, as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from . import figures
from .workloads import Sample, Workload


@dataclass(frozen=True)
class Run:
    """Everything there is to tell."""

    machine: Mapping[str, object]
    options: Mapping[str, object]
    versions: Mapping[str, str]
    absent: Mapping[str, str]
    """Peers that did not take part, and why."""
    rivals: Sequence[str]
    """Those that somebody might use instead of the gateway."""
    workloads: Sequence[Workload]
    samples: Sequence[Sample]

    @property
    def peers(self) -> list[str]:
        return list(self.versions)


def number(value: float) -> str:
    """Three digits that count."""
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 100 or value == 0:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def warning(run: Run) -> str:
    """What must be known before any of it is believed; mostly nothing."""
    busy = [sample.others for sample in run.samples if sample.measures]
    if not busy or statistics.median(busy) <= 0.1:
        return ""
    return f"OTHER PROCESSES KEPT {statistics.median(busy):.1f} PROCESSORS BUSY MEANWHILE: these figures are noise."


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _rows(run: Run, workload: Workload) -> list[list[str]]:
    heads = [workload.unit, "least - greatest", "of nginx", "of best", "wall", *(unit for _, unit, _ in workload.extra)]
    rows = [[workload.title, *heads, "% kernel", "PSS, MB", "others"]]
    for figure in figures.figures(run.samples, workload, run.rivals, run.peers):
        if not figure.rounds:
            rows.append([figure.peer, f"failed: {figure.failure}"])
            continue
        mine = [s for s in run.samples if (s.workload, s.peer) == (workload.name, figure.peer) and s.measures]

        def median(measure: str, scale: float, mine: Sequence[Sample] = mine) -> str:
            found = [sample.measures[measure] for sample in mine if measure in sample.measures]
            return number(statistics.median(found) * scale) if found else "-"

        spread = f"{number(figure.least * workload.scale)} - {number(figure.greatest * workload.scale)}"
        rows.append(
            [
                figure.peer + ("*" if figure.failure else ""),
                number(figure.median * workload.scale),
                spread,
                _ratio(figure.of_nginx),
                _ratio(figure.of_best),
                median("wall", workload.scale) if workload.main == "cpu" else "-",
                *(median(measure, scale) for measure, _, scale in workload.extra),
                _in_kernel(mine),
                median("pss", 1e-6),
                f"{statistics.median(sample.others for sample in mine):.1f}",
            ]
        )
        if figure.failure:
            mine = [s for s in run.samples if (s.workload, s.peer) == (workload.name, figure.peer)]
            broken = sum(bool(sample.failure) for sample in mine)
            rows.append([f"  * failed in {broken} of {len(mine)} rounds: {figure.failure}"])
    return rows


def _in_kernel(samples: Sequence[Sample]) -> str:
    """Percent."""
    user, kernel = (sum(sample.measures.get(name, 0.0) for sample in samples) for name in ("user", "kernel"))
    return f"{100 * kernel / (user + kernel):.0f}" if user + kernel else "-"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    whole = [row for row in rows if len(row) == len(rows[0])]
    widths = [max(len(row[column]) for row in whole) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        if len(row) == len(widths):
            cells = [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
            lines.append("  ".join(cells).rstrip())
        else:
            lines.append("  ".join([row[0].ljust(widths[0]), *row[1:]]).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return lines


def _summary(run: Run) -> list[str]:
    """Everything in one table: medians, and behind them how much of nginx that is."""
    rows = [["", *run.peers]]
    for workload in run.workloads:
        made = {figure.peer: figure for figure in figures.figures(run.samples, workload, run.rivals, run.peers)}
        cells = []
        for peer in run.peers:
            figure = made.get(peer)
            if figure is None:
                cells.append("")
            elif not figure.rounds:
                cells.append("failed")
            else:
                share = "" if figure.of_nginx is None else f" ({figure.of_nginx:.2f})"
                cells.append(number(figure.median * workload.scale) + share)
        if any(cells):
            rows.append([f"{workload.name}, {workload.unit}", *cells])
    return _table(rows)


def text(run: Run) -> str:
    lines = ["CPU of each peer's own processes per unit of work (memory, time where it says so): medians,"]
    lines += ["in parentheses the ratio to nginx in the same round; smaller is better", ""]
    lines += _summary(run)
    for workload in run.workloads:
        rows = _rows(run, workload)
        if len(rows) > 1:
            lines += ["", *_table(rows)]
    if "gateway" in run.peers and (verdicts := _verdicts(run)):
        lines += ["", "Targets", *verdicts]
    lines += ["", *(f"{peer}: {version}" for peer, version in run.versions.items())]
    lines += [f"{peer} did not take part: {why}" for peer, why in run.absent.items()]
    lines += [f"{name}: {value}" for name, value in (*run.machine.items(), *run.options.items())]
    if noise := warning(run):
        lines += ["", noise]
    return "\n".join(lines) + "\n"


def _verdicts(run: Run) -> list[str]:
    lines = []
    for workload in run.workloads:
        for target in workload.targets:
            verdict = figures.judge(run.samples, workload, target)
            if verdict.value is None:
                lines.append(f"  open    {verdict.text}: not measured")
                continue
            middle, low, high = (f"{x * verdict.scale:.3g}" for x in (verdict.value, verdict.least, verdict.greatest))
            many = f" ({low} - {high} in {verdict.rounds} rounds)" if verdict.rounds > 1 else " (one round)"
            lines.append(f"  {'met' if verdict.met else 'MISSED':<7} {verdict.text}: {middle}{many}")
    return lines


def as_json(run: Run) -> str:
    results = {
        workload.name: {
            "title": workload.title,
            "unit": workload.unit,
            "measure": workload.main,
            "scale": workload.scale,
            "figures": [asdict(figure) for figure in figures.figures(run.samples, workload, run.rivals, run.peers)],
            "targets": [
                asdict(figures.judge(run.samples, workload, target)) for target in workload.targets
            ] if "gateway" in run.peers else [],
        }
        for workload in run.workloads
    }  # fmt: skip
    head = {"machine": run.machine, "options": run.options, "versions": run.versions, "absent": run.absent}
    return json.dumps({**head, "results": results, "samples": [asdict(s) for s in run.samples]}, indent=1) + "\n"
