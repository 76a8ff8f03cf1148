"""The end of a conversation between processes in a process that has a reactor."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from .messages import CHUNK, MOST_DESCRIPTORS, Incoming, Message, Unintelligible, line, readable, send_all

WAITING: Final = 1 << 20
"""Octets that may wait for a reader that is busy.  Beyond it events are dropped: the log costs no session."""

HANDING: Final = 5.0
"""Seconds that the other end may take to make room for what is said at once."""

Heard = Callable[[Message, list[int]], None]


@implementer(IReadWriteDescriptor)
class Channel:
    """`heard` gets each message with its descriptors, and must not close the channel.  `lost` is called once, unless
    the channel was closed here."""

    def __init__(self, reactor: Any, sock: socket.socket, heard: Heard, lost: Callable[[], None]) -> None:
        self._reactor = reactor
        self._socket = sock
        self._heard = heard
        self._lost: Callable[[], None] | None = lost
        self._incoming = Incoming()
        self._waiting = bytearray()
        self.dropped = 0
        """Events that had no room."""
        sock.setblocking(False)
        reactor.addReader(self)

    def say(self, message: Message) -> None:
        """Nothing is lost as long as the other end is there."""
        if self._lost is None:
            return
        octets = line(message)
        if not self._waiting:
            try:
                octets = octets[self._socket.send(octets) :]
            except BlockingIOError:
                pass
            except OSError:
                return  # the end is read
            if not octets:
                return
            self._reactor.addWriter(self)
        self._waiting += octets

    def tell(self, message: Message) -> None:
        """What may be dropped where the other end does not keep up."""
        if len(self._waiting) > WAITING:
            self.dropped += 1
            return
        if self.dropped:
            dropped, self.dropped = self.dropped, 0
            self.say({"dropped": dropped})
        self.say(message)

    def hand(self, message: Message, descriptors: Sequence[int]) -> bool:
        """Say it at once, with descriptors, which may be closed then.  False where the other end is gone or hangs."""
        if self._lost is None:
            return False
        self._socket.settimeout(HANDING)
        try:
            if self._waiting:
                self._socket.sendall(self._waiting)
                self._waiting.clear()
            send_all(self._socket, message, descriptors)
        except OSError:
            return False
        finally:
            self._socket.setblocking(False)
        return True

    def wait(self, heard: Callable[[Message], bool], seconds: float) -> bool:
        """Hear messages without descriptors, and nothing else, until `heard` is content.  False where it never is."""
        until = time.monotonic() + seconds
        while self._lost is not None and (left := until - time.monotonic()) > 0:
            if not readable(left, self._socket):
                break
            try:
                octets = self._socket.recv(CHUNK)
                found = self._incoming.take(octets)
            except (OSError, Unintelligible):
                break
            # All of them: nobody else would hear the rest.
            if sum(heard(message) for message, _ in found):
                return True
            if not octets:
                break
        return False

    def finish(self, message: Message) -> None:
        """Say it as the last, and close."""
        self.hand(message, ())
        self.close()

    def close(self) -> None:
        if self._lost is not None:
            self._lost = None
            self._reactor.removeReader(self)
            self._reactor.removeWriter(self)
            self._incoming.close()
            self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "channel"

    def connectionLost(self, reason: Failure) -> None:
        lost = self._lost
        if lost is not None:
            self.close()
            # Otherwise it is this process that ends: then reactors take it away from all descriptors.
            if reason.check(ConnectionDone):
                lost()

    def doRead(self) -> Exception | None:  # type: ignore[override]
        try:
            octets, descriptors, _flags, _address = socket.recv_fds(self._socket, CHUNK, MOST_DESCRIPTORS)
            heard = self._incoming.take(octets, descriptors)
        except BlockingIOError:
            return None
        except (OSError, Unintelligible):
            return ConnectionDone()
        for message, handed in heard:
            self._heard(message, handed)
        return None if octets else ConnectionDone()

    def doWrite(self) -> None:
        try:
            del self._waiting[: self._socket.send(self._waiting)]
        except BlockingIOError:
            return
        except OSError:
            self._waiting.clear()  # the end is read
        if not self._waiting:
            self._reactor.removeWriter(self)
