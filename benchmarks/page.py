"""docs/benchmarks.md from the result of a run: `python -m benchmarks.page build/bench/bench.json`.

Without a result only the instructions are renewed, from what the repository has recorded of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import count, files
from .peers import ROOT
from .report import number

PAGE = ROOT / "docs" / "benchmarks.md"
_HEAD = """# Benchmarks

`make bench` measures the gateway beside other programs that do the same work. The
[benchmarks' page](../benchmarks/README.md) tells what is measured, and how. This page is written by
`python -m benchmarks.page` from the result of one run.

Each figure is the median of {rounds} rounds. In parentheses: the ratio to nginx in the same round. Smaller is better.
A round trip beside others is the time that one client waits. All other figures are CPU or memory of the program.
"""
_BUSY = """
**Other processes kept {others} processors busy meanwhile.** Times of such a run say little. Ratios say more.
"""
_COUNTED = """
## Instructions

`make count` counts the instructions of the gateway. They hardly depend on the machine. Thousands per unit, with
{python}, OpenSSL {openssl}:
"""


_FILES = """
`make files` counts a file of {megabytes} MB by FTP, with the TLS handshake of its data connection, and as many octets
by IMAP after the login. A test allows FTP {most:.2f} times the instructions of IMAP. Thousands per megabyte:
"""
_BEGIN, _END = "\n## Instructions\n", "\n## The programs and the machine\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def _cell(figure: Mapping[str, Any], scale: float) -> str:
    if not figure["rounds"]:
        return "failed"
    share = "" if figure["of_nginx"] is None else f" ({figure['of_nginx']:.2f})"
    return number(figure["median"] * scale) + share


def _measured(found: Mapping[str, Any]) -> str:
    peers = list(found["versions"])
    rows = []
    for result in found["results"].values():
        cells = {figure["peer"]: _cell(figure, result["scale"]) for figure in result["figures"]}
        rows.append([f"{result['title']}, {result['unit']}", *(cells.get(peer, "-") for peer in peers)])
    return _table(["", *peers], rows)


def _late(found: Mapping[str, Any]) -> str:
    """The 99th percentiles of round trips."""
    rows = []
    for name, result in found["results"].items():
        slow: dict[str, list[float]] = {}
        for sample in found["samples"]:
            if sample["workload"] == name and "p99" in sample["measures"]:
                slow.setdefault(sample["peer"], []).append(sample["measures"]["p99"])
        if slow:
            middle = {peer: sorted(values)[len(values) // 2] * 1e6 for peer, values in slow.items()}
            rows.append(
                [result["title"], *(number(middle[peer]) if peer in middle else "-" for peer in found["versions"])]
            )
    head = ["99th percentile, us", *found["versions"]]
    return "\n## The slowest of a hundred round trips\n\n" + _table(head, rows) if rows else ""


def _instructions(recorded: count.Recorded) -> str:
    head = ["", "all", *count.LIBRARIES[:-1]]

    def table(units: Sequence[count.Unit]) -> str:
        rows = []
        for unit in units:
            counts = recorded.units[unit.name]
            numbers = [sum(counts.values()), *(counts[library] for library in count.LIBRARIES[:-1])]
            rows.append([unit.title, *(f"{one:,.0f}" for one in numbers)])
        return "\n" + _table(head, rows)

    ratios = ", ".join(f"{way} {ratio:.3f}" for way, ratio in files.ratios(recorded.units).items())
    return (
        _COUNTED.format(python=recorded.python, openssl=recorded.openssl)
        + table(count.UNITS)
        + _FILES.format(megabytes=files.AT_ONCE, most=files.MOST)
        + table(files.UNITS)
        + f"\nFTP to IMAP: {ratios}.\n"
    )


def text(found: Mapping[str, Any], recorded: count.Recorded) -> str:
    """`found`: what bench.json holds."""
    busy = sorted(sample["others"] for sample in found["samples"] if sample["measures"])
    others = busy[len(busy) // 2] if busy else 0.0
    programs = [f"* {peer}: {version}" for peer, version in found["versions"].items()]
    machine = [f"* {name}: {value}" for name, value in (*found["machine"].items(), *found["options"].items())]
    return (
        _HEAD.format(rounds=found["options"]["rounds"])
        + (_BUSY.format(others=f"{others:.1f}") if others > 0.1 else "")
        + "\n"
        + _measured(found)
        + _late(found)
        + _instructions(recorded)
        + _END
        + "\n"
        + "\n".join([*programs, *machine])
        + "\n"
    )


def main(given: Sequence[str]) -> int:
    if given:
        told = text(json.loads(Path(given[0]).read_text()), count.recorded())
    else:
        before, _, rest = PAGE.read_text("utf-8").partition(_BEGIN)
        told = before + _instructions(count.recorded()) + _END + rest.partition(_END)[2]
    PAGE.write_text(told, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
