"""The legacy POP3 server: USER and PASS, no TLS."""

from __future__ import annotations

from io import BytesIO

from twisted.mail import pop3
from zope.interface import implementer

from .mailbox import Folder


@implementer(pop3.IMailbox)
class Maildrop(pop3.Mailbox):
    """The folder at login: message numbers do not change during a session (RFC 1939 3)."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._messages = dict(enumerate(folder.messages))
        self._deleted: set[int] = set()

    def listMessages(self, i: int | None = None) -> int | list[int]:  # type: ignore[override]
        sizes = {n: 0 if n in self._deleted else len(one.octets) for n, one in self._messages.items()}
        return list(sizes.values()) if i is None else sizes[self._known(i)]

    def _known(self, i: int) -> int:
        if i not in self._messages:
            raise ValueError(b"no such message")  # twisted.mail joins the arguments as bytes
        return i

    def getMessage(self, i: int) -> BytesIO:  # type: ignore[override]
        octets = self._messages[self._known(i)].octets
        return BytesIO((b"\r\n" + octets).replace(b"\r\n.", b"\r\n..")[2:])

    def getUidl(self, i: int) -> bytes:
        return b"%d.%d" % (self._folder.validity, self._messages[self._known(i)].uid)

    def deleteMessage(self, i: int) -> None:
        self._deleted.add(self._known(i))

    def undeleteMessages(self) -> None:
        self._deleted.clear()

    def sync(self) -> None:
        self._folder.discard({self._messages[i] for i in self._deleted})


class POP3Server(pop3.POP3):
    magic = b"legacy.demo POP3, plaintext only"  # no <...>, so that clients do not use APOP

    def listCapabilities(self) -> list[bytes]:
        return [b"TOP", b"USER", b"UIDL"]

    def transformChunk(self, chunk: bytes) -> bytes:
        return chunk  # with dot-stuffing: twisted.mail misses a dot at the beginning of a chunk
