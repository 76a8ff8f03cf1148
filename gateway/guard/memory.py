"""Returns unused memory to the operating system."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from typing import Any

CROWD = 50
"""Trim when so many sessions have ended, and half of the most.  Fewer leave too little unused memory: 3 MB.  A trim
takes longer the more sessions are left, since the garbage collector looks through them."""
AGAIN = 8
"""Calls after which to trim again: the counts of the clients expire a minute later."""


def _trim() -> Any:
    # Only glibc has it.
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


class MemoryTrimmer:
    """Trims the memory after many sessions have ended.

    malloc keeps free pages between used pages.  Without malloc_trim(3) a process would keep 150 MB of 5,000 sessions
    until it ends.
    """

    def __init__(self, sessions: Callable[[], int]) -> None:
        self._sessions = sessions
        self._trim = _trim()
        self._most = 0
        self._left = 0
        """Calls until the second trim."""

    def trim(self) -> None:
        """Call this every 10 seconds.  A trim takes a few milliseconds."""
        now = self._sessions()
        if self._most - now >= max(CROWD, self._most / 2):
            self._most = now
            self._left = AGAIN
            self._give_back()
            return
        self._most = max(self._most, now)
        if self._left:
            self._left -= 1
            if not self._left:
                self._give_back()

    def _give_back(self) -> None:
        gc.collect()  # also empties Python's lists of free objects
        if sys.version_info < (3, 12):
            # It has thousands of names that C code looked up, each in another page.
            sys._clear_type_cache()
        if self._trim is not None:
            self._trim(0)
