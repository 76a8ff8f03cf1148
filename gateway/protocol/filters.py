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


class Kept(Counted):
    """The same, and the first of them are remembered."""

    def __init__(self, octets: int, most: int) -> None:
        super().__init__(octets)
        self._most = most
        self.begin = b""

    def feed(self, chunk: bytes) -> tuple[bytes, bytes | None]:
        passed, rest = super().feed(chunk)
        self.begin += passed[: self._most - len(self.begin)]
        return passed, rest
