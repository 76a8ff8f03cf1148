"""Bulk octets on their way through a negotiation.  A dialect may bring other filters (`vocabulary.Filter`)."""

from __future__ import annotations


class Counted:
    """So many octets, whatever they are (RFC 3030 chunks, RFC 9051 literals)."""

    def __init__(self, octets: int) -> None:
        self._left = octets

    def feed(self, chunk: bytes) -> tuple[bytes, bytes | None]:
        if len(chunk) < self._left:
            self._left -= len(chunk)
            return chunk, None
        passed, rest = chunk[: self._left], chunk[self._left :]
        self._left = 0
        return passed, rest
