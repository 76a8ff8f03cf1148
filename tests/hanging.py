"""For a ledger of a test in which no process hangs."""

from __future__ import annotations


def nobody_hangs(pid: int) -> None:
    raise AssertionError(f"process {pid} was killed")
