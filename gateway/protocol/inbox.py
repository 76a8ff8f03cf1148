"""What a side has said and nobody has acted on yet; it has exactly one owner, the driver.

Lines end with LF; one CR before it belongs to the terminator.  A client's line that holds another
CR or a NUL is reported as unclean and only its ends are handed out: a backend that splits there
would see two commands where we saw one.
"""

from __future__ import annotations

import re

from ..records import dataclass
from .vocabulary import CLIENT, Line, Side, TooLong, Unclean, Violation

FLOOD = 65536
"""Octets beyond a line's limit after which we no longer read on to its end: 64 KiB is more than any
honest client's mistake (the longest legal line anywhere is a SASL response of that size)."""

HEAD = 64
"""Octets that are shown of what is left where it is."""

BEGIN = 1024
END = 64
"""Octets of an overlong or unclean line that are kept, of its beginning and of its end."""

CR = 0x0D
LF = 0x0A
NUL = 0x00
"""Numbers: to look for an octet that is given as bytes costs 1,800 instructions more, since Python 3.11 first makes an
exception of it (bytes_methods.c)."""


@dataclass(frozen=True, slots=True)
class Longer:
    """Lines that begin like this may be longer than the others."""

    begins: re.Pattern[bytes]
    limit: int


class Inbox:
    """Octets of one side, read as lines, counted octets or whole chunks."""

    __slots__ = ("_begin", "_dropped", "_end", "_limit", "_scanned", "octets", "side")

    def __init__(self, side: Side) -> None:
        self.side = side
        self.octets = bytearray()
        """What is there; others may look."""
        self._scanned = 0  # no LF before this index: one-octet segments cost linear, not quadratic, time
        self._dropped = 0  # octets of an overlong line that are gone already
        self._limit = 0  # ... the limit that it exceeds
        self._begin = self._end = b""  # ... and what is kept of it

    def feed(self, octets: bytes) -> None:
        self.octets += octets

    def line(self, limit: int, longer: Longer | None = None) -> Line | Unclean | TooLong | None:
        """The next line, or None until it is complete.  Raises Violation for an endless one."""
        octets = self.octets
        end = octets.find(b"\n", self._scanned)
        if end < 0 or end > limit or self._dropped:
            # Most lines are complete and short.
            if self._dropped:
                limit = self._limit
            elif longer is not None and len(octets) > limit and longer.begins.match(octets):
                limit = longer.limit
            if end < 0:
                self._look_at_begin(limit)
                return None
            if self._dropped or end - (octets[end - 1] == CR) > limit:
                return self._too_long(limit, end)
        text = bytes(octets[: end - 1 if end and octets[end - 1] == CR else end])
        del octets[: end + 1]
        self._scanned = 0
        if self.side is CLIENT and (CR in text or NUL in text):
            return Unclean(self.side, text[:BEGIN], text[-END:])
        return Line(self.side, text)

    def _look_at_begin(self, limit: int) -> None:
        """Of a line whose end has not come: drop it if it is too long.  Raises Violation if it is endless."""
        octets = self.octets
        self._bound(limit, len(octets))
        # One octet of grace: it may be the CR.
        if self._dropped or len(octets) > limit + 1:
            self._keep_ends(limit, len(octets))
            self._dropped += len(octets)
            octets.clear()
        self._scanned = len(octets)

    def _bound(self, limit: int, more: int) -> None:
        if self._dropped + more > limit + FLOOD:
            raise Violation(self.side, f"{self.side.value}-line-too-long", "no end of line in sight")

    def _too_long(self, limit: int, end: int) -> TooLong:
        """The line whose LF is at `end`; what is still there of it goes, too.  Raises Violation if it is endless."""
        self._bound(limit, end)
        self._keep_ends(limit, end)
        heard = TooLong(self.side, self._begin, self._end.removesuffix(b"\r")[-END:])
        del self.octets[: end + 1]
        self._begin = self._end = b""
        self._scanned = self._dropped = 0
        return heard

    def _keep_ends(self, limit: int, end: int) -> None:
        """Keep what may be needed of the octets before `end`, which go now."""
        if not self._dropped:
            self._limit = limit
            self._begin = bytes(self.octets[: min(BEGIN, limit)])
        # One octet more: it may be the CR.
        self._end = (self._end + self.octets[max(0, end - END - 1) : end])[-END - 1 :]

    def take(self, octets: int) -> bytes | None:
        """Exactly so many octets, or None until they are there."""
        if len(self.octets) < octets:
            return None
        taken = bytes(self.octets[:octets])
        del self.octets[:octets]
        self._scanned = 0
        return taken

    def skip(self, blanks: bytes) -> None:
        """Drop these octets where they come first."""
        del self.octets[: len(self.octets) - len(self.octets.lstrip(blanks))]
        self._scanned = 0

    def peek(self) -> bytes:
        """The first octets, up to HEAD, left where they are."""
        return bytes(self.octets[:HEAD])

    def drain(self) -> bytes:
        """Everything, raw; the inbox is empty afterwards."""
        drained = bytes(self.octets)
        self.octets.clear()
        self._begin = self._end = b""
        self._scanned = self._dropped = 0
        return drained
