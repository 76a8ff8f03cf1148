"""Replies with a code of three digits, of one line or several: SMTP's (RFC 5321 4.2) and FTP's (RFC 959 4.2)."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from ..protocol.vocabulary import Request


class Reply:
    """A whole reply of the backend, its lines without terminators."""

    __slots__ = ("code", "lines")

    def __init__(self, lines: tuple[bytes, ...]) -> None:
        self.lines = lines
        self.code = lines[0][:3]

    @property
    def positive(self) -> bool:
        return self.code[:1] == b"2"

    @property
    def refuses(self) -> bool:
        """4yz or 5yz."""
        return self.code[:1] in (b"4", b"5")

    @property
    def octets(self) -> bytes:
        return b"\r\n".join(self.lines) + b"\r\n"


Replying = Generator[Request, Any, Reply]
