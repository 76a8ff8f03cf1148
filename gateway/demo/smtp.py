"""The legacy SMTP server: no TLS, optional AUTH.  All mails go to one folder."""

from __future__ import annotations

from email.utils import formatdate

from twisted.internet.defer import Deferred, succeed
from twisted.mail import smtp
from twisted.mail.imap4 import LOGINCredentials, PLAINCredentials
from twisted.mail.interfaces import IMessageDelivery, IMessageSMTP
from zope.interface import implementer

from .mailbox import Folder


@implementer(IMessageSMTP)
class Letter:
    """One message that is being received."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._octets = bytearray()

    def lineReceived(self, line: bytes) -> None:
        self._octets += line + b"\r\n"

    def eomReceived(self) -> Deferred[int]:
        return succeed(self._folder.deliver(bytes(self._octets)).uid)

    def connectionLost(self) -> None:
        self._octets.clear()


@implementer(IMessageDelivery)
class Delivery:
    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def receivedHeader(self, helo: tuple[bytes | None, object], origin: object, recipients: object) -> bytes:
        return b"Received: from %b by legacy.demo; %b" % (helo[0] or b"unknown", formatdate(localtime=True).encode())

    def validateFrom(self, helo: object, origin: object) -> object:
        return origin

    def validateTo(self, user: object) -> object:
        return lambda: Letter(self._folder)


class SMTPServer(smtp.ESMTP):
    noisy = False
    MAX_LENGTH = 1024 * 1024  # for a line: the time of twisted.mail grows with its square
    SIZE = b"104857600"  # 100 MiB for a message, because it is in memory

    def __init__(self, delivery: Delivery) -> None:
        super().__init__({b"LOGIN": LOGINCredentials, b"PLAIN": PLAINCredentials})
        self.host = b"legacy.demo"
        self.delivery = delivery

    def greeting(self) -> bytes:
        return b"legacy.demo ESMTP, plaintext only"

    def extensions(self) -> dict[bytes, list[bytes] | None]:
        return {**super().extensions(), b"8BITMIME": None, b"SIZE": [self.SIZE]}

    def lineLengthExceeded(self, line: bytes) -> None:
        self.sendCode(500, b"Line too long")
        assert self.transport is not None
        self.transport.loseConnection()  # otherwise twisted.mail reads the rest of the message as commands

    def do_DATA(self, rest: bytes) -> None:
        self._to = self._to[:1]  # one copy is enough: all share the folder
        super().do_DATA(rest)


class LMTPServer(SMTPServer):
    """RFC 2033: LHLO, and a reply for each recipient."""

    _verdicts = 0

    def greeting(self) -> bytes:
        return b"legacy.demo LMTP, plaintext only"

    def do_LHLO(self, rest: bytes) -> None:
        super().do_EHLO(rest)

    def do_EHLO(self, rest: bytes) -> None:
        self.sendCode(500, b"This is LMTP, send LHLO")

    do_HELO = do_EHLO

    def do_DATA(self, rest: bytes) -> None:
        self._verdicts = len(self._to)
        super().do_DATA(rest)

    def _messageHandled(self, results: object) -> None:
        for _ in range(self._verdicts):
            super()._messageHandled(results)
