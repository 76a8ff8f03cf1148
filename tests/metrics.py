"""docs/metrics.md holds the table of gateway/telemetry/metrics.py.

python -m tests.metrics         # says whether it does
python -m tests.metrics --write # writes it
"""

from __future__ import annotations

import sys
from pathlib import Path

from gateway.telemetry.metrics import METRICS, PREFIX, Merge, Metric

DOCUMENT = Path(__file__).parents[1] / "docs" / "metrics.md"
BEGIN = "<!-- The table is written by `python -m tests.metrics --write`. -->\n"
END = "<!-- End of the table. -->\n"
MERGED = {Merge.SUM: "added", Merge.GREATEST: "the greatest", Merge.LEAST: "the least"}


def row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    cells = (f"`{PREFIX}{metric.name}`", metric.kind.value, labels, MERGED[metric.merge], metric.meaning)
    return f"| {' | '.join(cells)} |\n"


def table() -> str:
    head = "| metric | type | labels | of several workers | meaning |\n|---|---|---|---|---|\n"
    return head + "".join(map(row, METRICS.values()))


def filled(document: str) -> str:
    """The document with the table as it should be."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> None:
    if "--write" in sys.argv[1:]:
        DOCUMENT.write_text(filled(DOCUMENT.read_text()))
    sys.exit(None if DOCUMENT.read_text() == filled(DOCUMENT.read_text()) else f"{DOCUMENT}: not the table of the code")


if __name__ == "__main__":
    main()
