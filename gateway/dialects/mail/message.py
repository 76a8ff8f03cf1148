"""The data of an SMTP message on its way: up to CRLF.CRLF, and with line ends that every server reads alike.

Whole chunks go on; nothing is split into lines unless a line in it is broken.
"""

from __future__ import annotations

from enum import Enum

from ...protocol.inbox import CR, LF, NUL

END = b".\r\n"
"""End of data, at the start of a line (RFC 5321 4.1.1.4)."""

_HELD = (b"", b".", b"\r", b".\r")
"""Beginnings of a line that may yet become the end of data: not forwarded before more is known."""


class Newlines(Enum):
    """What becomes of line ends in message data that are not CRLF."""

    NORMALIZE = "normalize"
    REJECT = "reject"
    PASS = "pass"


class Message:
    """The data of one SMTP message, up to and including CRLF.CRLF, the only end of data there is.

    With NORMALIZE nothing leaves that any server takes for an end of data: LF alone becomes CRLF, CR
    alone and NUL become a blank (as Postfix does it), and a lone dot between line ends of which one
    was not CRLF is doubled.  With REJECT the first such octet sets `offended`, and neither its chunk
    nor anything behind it is forwarded.

    `header` is put before the first octet (RFC 5321 4.4: a trace field is prepended).
    """

    def __init__(self, newlines: Newlines, header: bytes = b"") -> None:
        self._newlines = newlines
        self._header = header
        self._held = b""
        self._line_start = True  # the next octet, held ones included, begins a line
        self._genuine = True  # ... behind CRLF (the end of the DATA command's line counts as one)
        self.offended = False

    def feed(self, chunk: bytes) -> tuple[bytes, bytes | None]:
        octets = self._held + chunk if self._held else chunk
        if self._line_start and self._genuine and octets.startswith(END):
            end = 0
        else:
            end = octets.find(b"\r\n" + END) + 2
            if end == 1:
                return self._emit(self._all_but_an_open_line(octets)), None
        self._held = b""
        body = self._clean(octets[:end])
        return self._emit(body + END), octets[end + len(END) :]

    def _all_but_an_open_line(self, octets: bytes) -> bytes:
        """Clean what can go on; hold back what may still become the end of data."""
        newline = octets.rfind(b"\n")
        tail = octets[newline + 1 :]
        if (newline >= 0 or self._line_start) and tail in _HELD:
            body = octets[: newline + 1]
            self._held = tail
            if newline < 0:
                return b""
            cleaned = self._clean(body)
            self._line_start = True
            self._genuine = body.endswith(b"\r\n")
            return cleaned
        body = octets[:-1] if tail.endswith(b"\r") else octets
        self._held = octets[len(body) :]
        cleaned = self._clean(body)
        self._line_start = False
        return cleaned

    def _clean(self, body: bytes) -> bytes:
        if self._newlines is Newlines.PASS:
            return body
        lone_dot = self._line_start and not self._genuine and body.startswith(END)
        if not lone_dot:
            rest = body.replace(b"\r\n", b"")
            if not (CR in rest or LF in rest or NUL in rest):
                return body
        if self._newlines is Newlines.REJECT:
            self.offended = True
            return b""
        lines = body.split(b"\r\n")
        for index, line in enumerate(lines):
            begun = index > 0 or self._line_start
            parts = line.replace(b"\r", b" ").replace(b"\0", b" ").split(b"\n")
            behind_a_bare_one = index == 0 and self._line_start and not self._genuine
            if len(parts) > 1 or behind_a_bare_one:
                parts = [b".." if part == b"." and (number > 0 or begun) else part for number, part in enumerate(parts)]
            lines[index] = b"\r\n".join(parts)
        return b"\r\n".join(lines)

    def _emit(self, octets: bytes) -> bytes:
        if self.offended:
            return b""
        if not self._header or not octets:
            return octets
        header, self._header = self._header, b""
        # A first line that begins with white space would continue our header (Postfix smtpd.c does the same).
        if octets[:1] in (b" ", b"\t") or (octets[:1] == b"." and octets[1:2] in (b" ", b"\t")):
            header += b"\r\n"
        return header + octets
