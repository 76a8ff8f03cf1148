"""How the octets of a side become units: lines, or units that say their own length.

A dialect may bring another one: whatever has the method `unit` of `vocabulary.Framing`, such as an XML parser.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..records import dataclass
from .inbox import Inbox, Longer
from .vocabulary import BACKEND, CLIENT, Heard, Opaque, Side, TooLarge, Unit, Violation

BEGIN: Final = 8
"""Octets that are shown of what a client says at the wrong place, since a password may follow: a type and a length, or
a word."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines that end with LF or CRLF.  A client's line with another CR or a NUL in it is Unclean."""

    limit: int
    """Longest line in octets, without its terminator; a longer one is TooLong."""
    longer: Longer | None = None
    """Lines of the client that may be longer."""
    layered: bool = False
    """A leading NUL of the client is a SASL security layer (Opaque), not a bad line."""
    commands: bool = False
    """What the client says are commands, of which the dialect tells what may be shown; else none of it is."""
    replies: int = 0
    """Longest line of the backend, where that is another one."""

    def unit(self, inbox: Inbox) -> Heard | None:
        if inbox.side is BACKEND:
            return inbox.line(self.replies or self.limit)
        if self.layered and inbox.octets.startswith(b"\0"):
            return Opaque(inbox.side)
        return inbox.line(self.limit, self.longer)


@dataclass(frozen=True, slots=True)
class Units:
    """Units that say their own length at their beginning (BER, PostgreSQL messages)."""

    measure: Callable[[bytes], int | None]
    """The first octets, 64 at most -> the length of the whole unit; None where more octets are needed.  Raises
    ValueError for what cannot begin a unit."""
    limit: int
    """Longest unit in octets that is handed out; a longer one is TooLarge, and stays in the inbox."""

    def unit(self, inbox: Inbox) -> Unit | TooLarge | None:
        head = inbox.peek()
        length = self.length(inbox.side, head)
        if length is None:
            return None
        if length > self.limit:
            return TooLarge(inbox.side, head, length)
        octets = inbox.take(length)
        return None if octets is None else Unit(inbox.side, octets)

    def length(self, side: Side, head: bytes) -> int | None:
        """Of the unit that begins so; None where that cannot be told yet.  Raises Violation."""
        try:
            length = self.measure(head)
        except ValueError as error:
            # What a client says may be a password.
            shown = head[:BEGIN] if side is CLIENT else head
            raise Violation(side, f"{side.value}-protocol-error", f"{error}: {shown!r}") from None
        # Whoever says 0 would be asked again for ever.
        assert length is None or length > 0, "a unit has at least one octet"
        return length
