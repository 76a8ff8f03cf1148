"""The end of a leg: how long it waits for the other end after it was closed."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from enum import Enum
from typing import Final

from ..reactor import Delayed
from .writing import LOW_WATER

FLUSH_PATIENCE: Final = 30.0
"""Seconds without progress after which a closing leg gives up what is still unsent."""


class EndState(Enum):
    """How far a leg is from its end."""

    OPEN = "open"
    """It was not closed yet."""
    CLOSING = "closing"
    """Its end is being said. Nothing is told to the owner any more."""
    FLUSHING = "flushing"
    """It waits for the other end to take what was sent."""
    LINGERING = "lingering"
    """It waits for the other end to close in turn."""
    GONE = "gone"
    """It left the reactor."""


_OPEN, _CLOSING, _FLUSHING = EndState.OPEN, EndState.CLOSING, EndState.FLUSHING
_LINGERING, _GONE = EndState.LINGERING, EndState.GONE


class Ending:
    """Counts; the leg sets the timer, and calls `tick` every `linger` seconds.

    ```
    OPEN -> CLOSING -> FLUSHING <-> LINGERING
    any -> GONE
    ```
    """

    __slots__ = ("_left", "_stalled", "linger", "state", "timer")

    def __init__(self, linger: float) -> None:
        """`linger`: seconds that the other end has to close in turn."""
        self.state = _OPEN
        self.linger = max(linger, 0.1)
        self.timer: Delayed | None = None
        self._left = 0
        """Octets that were still under way at the last look."""
        self._stalled = 0.0
        """Seconds since the last of them was taken."""

    def begin(self) -> None:
        self.state = _CLOSING

    def wait(self, left: int) -> None:
        """The end is said. `left`: octets that the other end has not taken."""
        self.state = _FLUSHING if left else _LINGERING
        self._left = left

    def tick(self, left: int) -> bool:
        """`linger` seconds have passed. True if the leg has waited long enough."""
        self.timer = None
        if left:
            self._stalled = 0.0 if left < self._left else self._stalled + self.linger
            self._left = left
            self.state = _FLUSHING
            return self._stalled >= FLUSH_PATIENCE
        if self.state is _LINGERING:
            return True
        self._left = 0
        self.state = _LINGERING
        return False

    def finish(self) -> None:
        """The leg leaves the reactor."""
        self.state = _GONE
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def unacknowledged(sock: socket.socket) -> int:
    """Octets that the kernel still holds for the other end. A reset would destroy them."""
    try:
        (octets,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0\0\0\0"))
    except OSError:
        return 0
    # A few octets are always under way for one round trip.
    return int(octets) if octets > LOW_WATER else 0
