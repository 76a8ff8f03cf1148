"""The instructions of a session, of a mail and of a round trip: not more than five percent above the recorded ones."""

from __future__ import annotations

import sys

from benchmarks import count, peers
from tests.process.programs import missing, need

PYTHON = peers.ROOT / ".venv-count" / "bin" / "python"
"""Debian's Python, which `make test` provides with what the gateway needs."""


def test_no_unit_needs_more_instructions_than_before() -> None:
    need("valgrind", debian="valgrind")
    python = need(str(PYTHON), debian="python3-venv; make .venv-count/installed")
    before = count.recorded()
    if not before.is_comparable(python):
        missing(f"this test needs {before.python} as /usr/bin/python3: run it on Debian 12")
    counted = count.count(peers.ROOT, python)
    sys.stdout.write(count.table(counted, before.units))
    assert count.grown(counted, before.units) == []
