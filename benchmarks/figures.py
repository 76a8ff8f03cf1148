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
    met: bool


def of(samples: Sequence[Sample], workload: Workload, peer: str, measure: str) -> dict[int, float]:
    """By round."""
    return {
        sample.round: sample.measures[measure]
        for sample in samples
        if sample.workload == workload.name and sample.peer == peer and measure in sample.measures
    }


def ratio(ours: dict[int, float], theirs: dict[int, float]) -> float | None:
    """The median of the ratios within each round: what else the machine does comes and goes with the rounds."""
    ratios = [ours[number] / theirs[number] for number in ours if theirs.get(number)]
    return statistics.median(ratios) if ratios else None


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
    if any(held < workload.sessions for held in of(samples, workload, peer, "units").values()):
        ours = {}
    if target.against:
        text = f"{workload.name}: {measure} at most {target.most:g} of {target.against}"
        value = ratio(ours, of(samples, workload, target.against, measure))
    else:
        text = f"{workload.name}: {measure} at most {target.most:g}"
        value = statistics.median(ours.values()) if ours else None
    return Verdict(text, value, value is not None and value <= target.most)
