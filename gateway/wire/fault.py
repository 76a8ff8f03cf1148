"""How a bug of ours is told."""

from __future__ import annotations

import traceback


def place(error: BaseException) -> str:
    """Where it happened. Its text is not told: it may be part of somebody's mail."""
    trace = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in reversed(trace))
