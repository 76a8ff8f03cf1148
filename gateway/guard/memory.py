"""Memory that nobody needs goes back to the system."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from typing import Any

CROWD = 500
"""Sessions that must have gone since the last time: fewer leave too little behind to look for."""
AGAIN = 8
"""Calls after which it is done once more: what remembers a client for a minute lies among what was freed."""


def _trim() -> Any:
    # glibc's own; elsewhere nothing of the kind is known.
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


class MemoryTrimmer:
    """What a crowd of sessions needed, and is gone when they are.

    malloc keeps free pages for ever that lie between used ones: a process that once had 5,000 sessions would have
    their 150 MB until it ends (malloc_trim(3)).
    """

    def __init__(self, sessions: Callable[[], int]) -> None:
        self._sessions = sessions
        self._trim = _trim()
        self._most = 0
        self._left = 0
        """Calls until it is to be done again."""

    def trim(self) -> None:
        """To be called every ten seconds; takes a few milliseconds after a crowd, and nothing otherwise."""
        now = self._sessions()
        if self._most - now >= CROWD:
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
        gc.collect()  # which also empties Python's own lists of free objects
        if sys.version_info < (3, 12):
            # Names that C code looked up as text stand in there by the thousand, each in a page of Python's own.
            sys._clear_type_cache()
        if self._trim is not None:
            self._trim(0)
