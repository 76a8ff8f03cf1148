"""From samples to medians, spreads and ratios; knows nothing of how they were taken."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from .workloads import Sample, Target, Workload


@dataclass(frozen=True)
class Figure:
    """What one peer needs for one workload."""

    peer: str
    median: float
    least: float
    greatest: float
    rounds: int
    of_nginx: float | None = None
    of_best: float | None = None
    failure: str = ""


@dataclass(frozen=True)
class Verdict:
    text: str
    value: float | None
    """None where there was nothing to compare with."""
    least: float
    greatest: float
    rounds: int
    met: bool
    scale: float = 1.0
    """What to multiply them with for the unit in the text."""


def of(samples: Sequence[Sample], workload: Workload, peer: str, measure: str) -> dict[int, float]:
    """By round."""
    return {
        sample.round: sample.measures[measure]
        for sample in samples
        if sample.workload == workload.name and sample.peer == peer and measure in sample.measures
    }


def ratios(ours: dict[int, float], theirs: dict[int, float]) -> list[float]:
    """Within each round: what else the machine does comes and goes with the rounds."""
    return [ours[number] / theirs[number] for number in ours if theirs.get(number)]


def ratio(ours: dict[int, float], theirs: dict[int, float]) -> float | None:
    """The median of the ratios, not the ratio of the medians."""
    found = ratios(ours, theirs)
    return statistics.median(found) if found else None


def figures(samples: Sequence[Sample], workload: Workload, rivals: Sequence[str], peers: Sequence[str]) -> list[Figure]:
    """One for each peer that took part, in the order of `peers`; `rivals` are those among whom one is the best."""
    values = {peer: of(samples, workload, peer, workload.main) for peer in peers}
    medians = {peer: statistics.median(found.values()) for peer, found in values.items() if found}
    best = min((peer for peer in rivals if peer in medians), key=lambda peer: medians[peer], default="")
    made = []
    for peer in peers:
        failure = next((s.failure for s in samples if (s.workload, s.peer) == (workload.name, peer) and s.failure), "")
        found = values[peer]
        if found:
            of_nginx = ratio(found, values.get("nginx", {}))
            of_best = ratio(found, values.get(best, {}))
            low, high = min(found.values()), max(found.values())
            made.append(Figure(peer, medians[peer], low, high, len(found), of_nginx, of_best, failure))
        elif failure:
            made.append(Figure(peer, 0.0, 0.0, 0.0, 0, failure=failure))
    return made


def judge(samples: Sequence[Sample], workload: Workload, target: Target, peer: str = "gateway") -> Verdict:
    measure = target.measure or workload.main
    ours = of(samples, workload, peer, measure)
    held = min(of(samples, workload, peer, "units").values(), default=workload.sessions)
    few = f", but with {held:,.0f} sessions only" if held < workload.sessions else ""
    if few:
        ours = {}
    if target.against:
        text = f"{workload.name}: {measure} at most {target.most:g} of {target.against}"
        found, scale = ratios(ours, of(samples, workload, target.against, measure)), 1.0
    else:
        units = {workload.main: (workload.unit, workload.scale)}
        units |= {name: (unit, scale) for name, unit, scale in workload.extra}
        unit, scale = units[measure]
        text = f"{workload.name}: at most {target.most * scale:g} {unit}"
        found = list(ours.values())
    if not found:
        return Verdict(text + few, None, 0.0, 0.0, 0, False, scale)
    value = statistics.median(found)
    return Verdict(text, value, min(found), max(found), len(found), value <= target.most, scale)
