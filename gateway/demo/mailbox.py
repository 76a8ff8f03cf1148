"""A folder of messages in memory, which the three servers share."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from email.utils import formatdate

from ..records import dataclass


@dataclass(eq=False, slots=True)
class Message:
    uid: int
    octets: bytes
    """The whole message.  All lines end in CRLF."""
    arrived: str
    """An RFC 5322 date-time, IMAP's INTERNALDATE."""
    flags: set[str]


class Folder:
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.watchers: list[Callable[[Message], None]] = []
        """Called for each new message."""
        self.next_uid = 1
        self.validity = int(time.time())
        """IMAP's UIDVALIDITY (RFC 3501 2.3.1.1), different in each run of the demo."""

    def deliver(self, octets: bytes, flags: Iterable[str] = (), arrived: str | None = None) -> Message:
        message = Message(self.next_uid, octets, arrived or formatdate(localtime=True), set(flags))
        self.next_uid += 1
        self.messages.append(message)
        for tell in tuple(self.watchers):
            tell(message)
        return message

    def discard(self, messages: Collection[Message]) -> None:
        self.messages = [message for message in self.messages if message not in messages]
