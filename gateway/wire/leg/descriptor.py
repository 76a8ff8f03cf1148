"""A socket in the hands of the reactor: its turns, what it sends, and how it leaves."""

from __future__ import annotations

import errno
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..fault import place
from ..reactor import Reactor
from .ending import Ending, EndState, unacknowledged
from .reading import Reading, ReadState
from .writing import WriteState, Writing

_LAST_DATA: Final = struct.Struct("=44xI4xI")
"""tcpi_last_data_sent and tcpi_last_data_recv of struct tcp_info (linux/tcp.h): milliseconds."""

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER, on, zero seconds: closing the socket sends RST."""

# Looking up a member of an Enum costs more than looking up a global name.
_OPEN, _GONE, _CLOSED = EndState.OPEN, EndState.GONE, WriteState.GONE


def ends(sock: Any) -> tuple[tuple[str, int], tuple[str, int]] | None:
    """The connection's own address and port, and the other end's; None for a UNIX socket, or after a reset."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        return sock.getsockname()[:2], sock.getpeername()[:2]
    except OSError:
        return None  # the leg will learn of it


def reset_on_close(sock: socket.socket) -> None:
    """Closing it sends RST."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


@implementer(IReadWriteDescriptor)
class Descriptor(ABC):
    """Composed of three state machines. It performs what `Writing` and `Ending` decide; a leg adds the input."""

    __slots__ = ("_ending", "_reactor", "_reading", "_reads", "_socket", "_writes", "_writing", "cause")

    _log = Logger()

    def __init__(self, reactor: Reactor, sock: socket.socket, linger: float) -> None:
        self.cause = ""
        """Why the connection failed, for the log: the name of an errno, or OpenSSL's words."""
        self._reactor = reactor
        self._socket = sock
        self._reading = Reading()
        self._writing = Writing(sock)
        self._ending = Ending(linger)
        self._reads = False
        """The reactor reads the socket."""
        self._writes = False
        """The reactor tells when the socket can be written."""

    @property
    def idle(self) -> float | None:
        """Seconds since the last data in either direction, as the kernel knows; None for a UNIX socket."""
        try:
            told = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA.size)
        except OSError:
            return None
        sent, received = _LAST_DATA.unpack(told)
        milliseconds: int = min(sent, received)
        return milliseconds / 1000

    @property
    def ends(self) -> tuple[tuple[str, int], tuple[str, int]] | None:
        """Its own address and port, and the other end's; None for a UNIX socket, or after a reset."""
        return ends(self._socket)

    # --- what a leg adds -------------------------------------------------------------------------

    @abstractmethod
    def _drain(self) -> None:
        """The socket refuses to send. Read what is left on it."""

    @abstractmethod
    def _reset(self, cause: str) -> None:
        """The connection is lost."""

    @abstractmethod
    def _pressed(self, full: bool) -> None:
        """The number of unsent octets has crossed a mark."""

    @abstractmethod
    def _closed(self) -> None:
        """The descriptor is closed. This is the last call."""

    # --- what the reactor does -------------------------------------------------------------------

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "leg"

    @abstractmethod
    def doRead(self) -> None:
        """The socket can be read."""

    def doWrite(self) -> None:
        self._guarded(self._flush)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor saw a hang-up that `doRead` could not see (the leg is paused), and has forgotten the leg."""
        if self._ending.state is _GONE:
            return
        self._reads = self._writes = self._writing.blocked = False
        cause = errno.errorcode.get(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "connection lost")
        if self._writing.state is WriteState.BROKEN:
            self._later(self._reset, cause)
        else:
            self._cannot_write(cause)

    def _later(self, act: Callable[..., None], *args: Any) -> None:
        self._reactor.callLater(0, self._guarded, act, *args)

    def _guarded(self, act: Callable[..., None], *args: Any) -> None:
        """One turn of the reactor: what is written in it is sent in one piece, and a bug in it ends only this leg."""
        writing = self._writing
        if writing.state is _CLOSED:
            return
        writing.corked = True
        try:
            act(*args)
        except Exception as error:
            self._fault(error)
        writing.corked = False
        if writing.octets and not writing.blocked:
            self._send_corked()

    def _send_corked(self) -> None:
        try:
            self._flush()
        except Exception as error:
            self._fault(error)

    def _fault(self, error: Exception) -> None:
        """A bug."""
        kind = type(error).__name__
        self._log.critical("a bug ended one connection: {kind} in {where}", kind=kind, where=place(error))
        try:
            self._reset("internal error")
        except Exception as another:
            self._log.critical("and another one: {kind}", kind=type(another).__name__)

    # --- output ----------------------------------------------------------------------------------

    def _send(self, wire: bytes) -> None:
        if self._writing.send(wire):
            self._look()

    def _flush(self) -> None:
        if self._writing.flush():
            self._look()

    def _cannot_write(self, cause: str) -> None:
        if self._writing.fail(cause):
            self._look()

    def _look(self) -> None:
        """Something changed on the writing side."""
        writing = self._writing
        if writing.blocked is not self._writes:
            self._writes = writing.blocked
            (self._reactor.addWriter if self._writes else self._reactor.removeWriter)(self)
        if writing.state is WriteState.BROKEN:
            self.cause = writing.cause
            self._later(self._drain)
        elif self._ending.state is not _OPEN:
            self._part()
        elif writing.crossed():
            self._pressed(writing.full)

    # --- the end ---------------------------------------------------------------------------------

    def reset_unless_ended(self) -> None:
        """If this process is killed before it has said the end, the other end gets RST.  The kernel's FIN would make a
        part of a file look like all of it."""
        reset_on_close(self._socket)
        self._writing.resets = True

    def abort(self) -> None:
        """Be gone at once: RST is sent, and what is unsent is dropped."""
        self._die(reset=True)

    def _linger(self) -> None:
        """The end is said, or follows what is unsent. Wait for the other end, if the leg is not gone."""
        ending = self._ending
        if ending.state is not _GONE:
            ending.wait(self._left())
            ending.timer = self._reactor.callLater(ending.linger, self._tick)

    def _left(self) -> int:
        """Octets that the other end has not taken."""
        return self._writing.octets + unacknowledged(self._socket)

    def _tick(self) -> None:
        ending = self._ending
        if ending.tick(self._left()):
            self.abort()
        else:
            ending.timer = self._reactor.callLater(ending.linger, self._tick)

    def _part(self) -> None:
        """A closing leg is gone once both ends have sent FIN."""
        if self._writing.state is WriteState.FINISHED and self._reading.state is ReadState.FINISHED:
            self._die()

    def _die(self, reset: bool = False) -> None:
        """Leave the reactor now, and close the descriptor in the next turn.

        A reactor in the middle of a turn would search all its descriptors for one whose number is gone
        (epollreactor._remove).
        """
        if self._ending.state is _GONE:
            return
        self._ending.finish()
        self._reading.finish()
        self._writing.end()
        if self._reads:
            self._reads = False
            self._reactor.removeReader(self)
        if self._writes:
            self._writes = False
            self._reactor.removeWriter(self)
        if reset:
            reset_on_close(self._socket)
        self._reactor.callLater(0, self._dispose)

    def _dispose(self) -> None:
        self._socket.close()
        try:
            self._closed()
        except Exception as error:
            self._log.critical("a bug at the end of one connection: {kind}", kind=type(error).__name__)
