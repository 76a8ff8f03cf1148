"""docs/metrics.md holds the table of gateway/telemetry/metrics.py.

python -m tests.metrics         # says whether it does
python -m tests.metrics --write # writes it
"""

from __future__ import annotations

from gateway.telemetry.metrics import METRICS, PREFIX, Merge, Metric
from tests.generated import DOCS, between, main

DOCUMENT = DOCS / "metrics.md"
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


filled = between(BEGIN, END, table)


if __name__ == "__main__":
    main(DOCUMENT, filled)
