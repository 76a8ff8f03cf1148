"""Makes the report, in a process of its own: the order comes at standard input, the report goes to standard output."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Final

from ..observation import Standing
from ..report.facts import Setup
from ..report.store import Store, StoreError
from ..report.telling import told
from .reportpage import report_page

NICE: Final = 10
"""How much the process stands back behind others."""


class NoReport(Exception):
    """There is none; the text says why, and what to do."""


def main() -> None:
    """In the other process."""
    os.nice(NICE)
    order = json.load(sys.stdin)
    setup = Setup(order["legacy_clients"], order["policies"], order["unprotected"])
    now, days, form = order["now"], order["days"], order["form"]
    try:
        facts = Store(Path(order["file"])).facts()
    except StoreError as wrong:
        sys.exit(str(wrong))
    if form == "html":
        text = report_page(Standing(order["hostname"], order["version"]), facts, now, days, setup)
    else:
        text = "\n".join(told(facts, now, days, setup, form)) + "\n"
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
