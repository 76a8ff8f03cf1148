"""A connection that may be a load balancer's look whether somebody listens: it says nothing and is closed."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

PEEKED = 1024
"""Octets that are looked at."""


@implementer(IReadDescriptor)
class Held:
    """Watches a socket without reading what the client says.

    Exactly one is called, from the reactor: `begin` with the socket, when the client says something or `seconds` have
    passed; `gone`, when it has closed before that.  After `drop` none is.
    """

    def __init__(
        self,
        reactor: Any,
        sock: socket.socket,
        seconds: float,
        begin: Callable[[socket.socket], None],
        gone: Callable[[], None],
        ignored: Callable[[bytes], int],
    ) -> None:
        """`ignored`: how many of the client's first octets say nothing; they are taken off, and waiting goes on."""
        self._reactor = reactor
        self._socket = sock
        self._begin = begin
        self._gone = gone
        self._ignored = ignored
        self._left = False
        self._timer = reactor.callLater(seconds, self._due)
        reactor.addReader(self)

    def drop(self) -> None:
        """The gateway stops."""
        if self._leave():
            self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "held"

    def doRead(self) -> None:
        try:
            octets = self._socket.recv(PEEKED, socket.MSG_PEEK)
            if ignored := self._ignored(octets):
                self._socket.recv(ignored)
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            octets = b""
        if octets:
            self._leave()
            # In the next turn: this one is not through with the descriptor.
            self._reactor.callLater(0, self._begin, self._socket)
        else:
            self._end()

    def connectionLost(self, reason: Failure) -> None:
        """How the reactor tells a reset: it has forgotten us."""
        self._end()

    def _due(self) -> None:
        if self._leave():
            self._begin(self._socket)

    def _end(self) -> None:
        if self._leave():
            # In the next turn, as above.
            self._reactor.callLater(0, self._socket.close)
            self._gone()

    def _leave(self) -> bool:
        """False where it has been left before."""
        if self._left:
            return False
        self._left = True
        self._reactor.removeReader(self)
        if self._timer.active():
            self._timer.cancel()
        return True
