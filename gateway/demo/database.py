"""The legacy PostgreSQL server: one user, and one answer to every query, without TLS."""

from __future__ import annotations

from twisted.internet.protocol import Protocol

from .lines import PASSWORDS

ANSWER = b"This server has never heard of TLS."


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (4 + len(body)).to_bytes(4, "big") + body


def error(code: bytes, text: bytes) -> bytes:
    return message(b"E", b"SERROR\0VERROR\0C%s\0M%s\0\0" % (code, text))


class DatabaseServer(Protocol):
    """Protocol 3.0, as far as psql needs it for simple queries."""

    def __init__(self) -> None:
        self._unread = b""
        self._user: bytes | None = None
        self._known = False

    def dataReceived(self, data: bytes) -> None:
        self._unread += data
        while (head := 0 if self._user is None else 1) + 4 <= len(self._unread):
            end = head + int.from_bytes(self._unread[head : head + 4], "big")
            if len(self._unread) < end or end < head + 4:
                return
            kind, body, self._unread = self._unread[:head], self._unread[head + 4 : end], self._unread[end:]
            if kind:
                self._told(kind, body)
            else:
                self._begun(body)

    def say(self, octets: bytes) -> None:
        assert self.transport is not None
        self.transport.write(octets)

    def leave(self, octets: bytes = b"") -> None:
        self.say(octets)
        assert self.transport is not None
        self.transport.loseConnection()

    def _begun(self, body: bytes) -> None:
        match int.from_bytes(body[:4], "big"):
            case 80877103 | 80877104:  # TLS, or GSSAPI encryption
                self.say(b"N")
            case 0x30000:
                words = body[4:].split(b"\0")
                self._user = dict(zip(words[::2], words[1::2], strict=False)).get(b"user", b"")
                self.say(message(b"R", (3).to_bytes(4, "big")))  # a password in the clear
            case _:
                self.leave()

    def _told(self, kind: bytes, body: bytes) -> None:
        ready = message(b"Z", b"I")
        if kind == b"X":
            self.leave()
        elif not self._known:
            assert self._user is not None
            self._known = kind == b"p" and PASSWORDS.get(self._user) == body[:-1]
            if self._known:
                version = message(b"S", b"server_version\0008.4 legacy.demo\0")
                self.say(message(b"R", bytes(4)) + version + message(b"S", b"client_encoding\0UTF8\0") + ready)
            else:
                self.leave(error(b"28P01", b"password authentication failed"))
        elif kind == b"Q":
            column = b"\0\1told\0" + bytes(6) + (25).to_bytes(4, "big") + b"\xff\xff" + b"\xff" * 4 + bytes(2)
            row = b"\0\1" + len(ANSWER).to_bytes(4, "big") + ANSWER
            self.say(message(b"T", column) + message(b"D", row) + message(b"C", b"SELECT 1\0") + ready)
        elif kind == b"S":
            self.say(ready)
        else:
            self.say(error(b"0A000", b"this server knows simple queries only"))
