"""One connection: the octets of a socket, in the clear or under TLS, for the session that owns it."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
import termios
import traceback
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from gateway.negotiation.vocabulary import Secured
from gateway.tls.half import TLSError, TLSHalf

HIGH_WATER: Final = 64 * 1024
"""Unsent octets above which the owner should stop what fills this leg: the bound on a session's memory is
this and one read of the other leg."""

LOW_WATER: Final = 16 * 1024
"""Unsent octets below which it may go on: enough to keep the socket busy until it does."""

MOST_ANSWERS: Final = 16 * 1024
"""Unsent octets that TLS says by itself in answer to the other end: 600 KeyUpdates that nobody fetched are a
flood, and memory that no owner can stop from growing."""

FLUSH_PATIENCE: Final = 30.0
"""Seconds without progress after which a closing leg gives up what is still unsent."""

READ_SIZE: Final = 16 * 1024
"""Octets per read until the owner says otherwise: what a negotiation needs, not what a transfer likes."""

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER, on, zero seconds: closing sends RST."""


class End(Enum):
    """How input came to its end."""

    ORDERLY = "orderly"
    """FIN in the clear, close_notify under TLS."""
    TRUNCATED = "truncated"
    """FIN under TLS without close_notify: anybody on the path may have cut it."""
    RESET = "reset"
    """The connection failed; what was sent may not have arrived.  The leg closes itself."""


class Owner(Protocol):
    """Who is told what happens on a leg: the session."""

    def leg_secured(self, leg: Leg, facts: Secured) -> None:
        """The handshake is done; plaintext of TLS comes after this call and never before."""

    def leg_tls_failed(self, leg: Leg, reason: str) -> None:
        """The handshake will never be done.  The alert is under way; the leg closes itself."""

    def leg_ended(self, leg: Leg, end: End) -> None:
        """No more input will come.  After ORDERLY and TRUNCATED the leg can still write."""

    def leg_pressed(self, leg: Leg, full: bool) -> None:
        """More is unsent than HIGH_WATER; or, later, less than LOW_WATER again."""

    def leg_closed(self, leg: Leg) -> None:
        """The descriptor is gone; the last call."""


class Delayed(Protocol):
    """What `callLater` returns, as far as a leg needs it."""

    def cancel(self) -> None: ...


class Reactor(Protocol):
    """What a leg needs of a reactor: IReactorFDSet and IReactorTime."""

    def addReader(self, reader: Any, /) -> object: ...
    def removeReader(self, reader: Any, /) -> object: ...
    def addWriter(self, writer: Any, /) -> object: ...
    def removeWriter(self, writer: Any, /) -> object: ...
    def callLater(self, delay: float, callable: Callable[..., Any], /, *args: Any) -> Delayed: ...


def prepare(sock: socket.socket) -> None:
    """Ready to become a leg when it is connected; of a listening socket what it accepts inherits the options."""
    sock.setblocking(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        # What belongs together we send at once; and who is gone without a word shall be missed one day.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def nobody(data: bytes) -> None:
    """Where plaintext goes that nobody wants."""


@implementer(IReadWriteDescriptor)
class Leg:
    """A connected socket, read and written by the reactor without a transport in between.

    The owner is called from the reactor only: never from inside `write`, `start_tls`, `pause`, `resume`,
    `half_close`, `close` or `abort`; `leg_pressed` is the exception, `write` may call it.  An exception that
    the owner or `deliver` lets escape ends this leg and no other.
    """

    __slots__ = (
        "_answers",
        "_broken",
        "_closing",
        "_corked",
        "_early",
        "_ended",
        "_eof",
        "_fin_due",
        "_fin_sent",
        "_gone",
        "_half",
        "_held",
        "_held_end",
        "_left",
        "_linger",
        "_owner",
        "_paused",
        "_reactor",
        "_reading",
        "_socket",
        "_stalled",
        "_started",
        "_timer",
        "_unsent",
        "_unsent_octets",
        "_waiting",
        "_waiting_octets",
        "_writable",
        "_writing",
        "cause",
        "deliver",
        "full",
        "read_size",
        "received",
        "secured",
        "sent",
    )

    _log = Logger()

    def __init__(self, reactor: Reactor, sock: socket.socket, owner: Owner, linger: float = 3.0) -> None:
        """`sock` is connected and does not block; the leg owns it from here on.  `linger` is in seconds."""
        self.deliver: Callable[[bytes], object] = nobody
        """Gets the plaintext, one call per read.  The owner rebinds it at will, to another leg's `write` too."""
        self.received = 0
        """Plaintext octets delivered."""
        self.sent = 0
        """Plaintext octets accepted for sending."""
        self.read_size = READ_SIZE
        """Octets per read, and the bound on the work of one turn."""
        self.secured: Secured | None = None
        self.cause = ""
        """Why the connection failed, for the log: an errno's name or what TLS complained of."""

        self._reactor = reactor
        self._socket = sock
        self._owner = owner
        self._linger = max(linger, 0.1)

        self._half: TLSHalf | None = None
        self._early = b""
        """Ciphertext that was read before TLS began here."""
        self._waiting: list[bytes] = []
        """Plaintext that waits for the end of the handshake."""
        self._waiting_octets = 0
        self._held: list[bytes] = []
        """Plaintext that was read while the leg was paused: only a handshake makes it read then."""
        self._held_end = False

        self._unsent: list[bytes | memoryview] = []
        """Octets for the wire, in order."""
        self._unsent_octets = 0
        self._answers = 0
        """Of these, at most what TLS said by itself."""
        self._corked = False
        """A turn of the reactor is under way on this leg: what is written in it goes out in one send at its end."""
        self.full = False
        """More is unsent than HIGH_WATER, and not yet less than LOW_WATER again."""

        self._started = False
        self._paused = False
        self._reading = False
        self._writing = False

        self._eof = False
        """The socket has nothing more to read."""
        self._ended = False
        """The owner has nothing more to expect."""
        self._writable = True
        """The owner may still write."""
        self._broken = False
        """The socket refuses to send."""
        self._fin_due = False
        self._fin_sent = False
        self._closing = False
        self._gone = False
        self._timer: Delayed | None = None
        self._left = 0
        self._stalled = 0.0

    # --- what the owner does ---------------------------------------------------------------------

    def start(self) -> None:
        """Begin to read."""
        self._started = True
        self._heed()

    def write(self, data: bytes) -> None:
        """Send now what the socket takes, the rest when it can; does nothing once the leg is closed."""
        if not self._writable or not data:
            return
        self.sent += len(data)
        half = self._half
        if half is None:
            self._send(data)
        elif self.secured is not None:
            try:
                ciphertext = half.encrypt(data)
            except TLSError as error:
                self._cannot_write("TLS: " + error.reason)
            else:
                self._send(ciphertext)
        else:
            self._waiting.append(data)
            self._waiting_octets += len(data)
            self._gauge()

    def start_tls(self, half: TLSHalf, early: bytes = b"") -> None:
        """Everything from here on is TLS; what was written before goes out in the clear before it.

        `early` is ciphertext that was read together with the last plaintext.
        """
        assert self._half is None, "TLS inside TLS"
        if self._gone or self._closing:
            return
        self._half = half
        self._early = early
        if not early:
            try:
                half.start()
            except TLSError as error:
                self._later(self._fail_tls, error.reason)
                return
            self._send(half.outgoing())
        self._heed()
        if early or self._ended:
            self._later(self._begin)

    def pause(self) -> None:
        """Deliver nothing and read nothing; but a handshake goes on."""
        self._paused = True
        self._heed()

    def resume(self) -> None:
        """Read again, and deliver first what was read while the leg was paused."""
        if not self._paused:
            return
        self._paused = False
        if self._held:
            self._later(self._release)
        elif self._broken:
            self._later(self._drain)
        self._heed()

    def half_close(self) -> None:
        """Say that nothing more will be written, after what was; reading goes on."""
        if not self._writable:
            return
        self._writable = False
        if self._shaking:
            # What waits for TLS must go first.
            self._fin_due = True
        else:
            self._finish()

    def close(self) -> None:
        """Send what is queued, end in an orderly way, wait for the other end's FIN, and be gone.

        Nothing is delivered any more.  Who does not close in turn is cut off after `linger` seconds, who
        does not take what is queued after FLUSH_PATIENCE.
        """
        if self._gone or self._closing:
            return
        self._closing = True
        try:
            self._part()
        except Exception:
            # What goes wrong here must not leave it open for ever.
            self.abort()
            raise

    def _part(self) -> None:
        self.deliver = nobody
        self._early = b""
        self._held.clear()
        self._waiting.clear()
        self._waiting_octets = 0
        if self._broken:
            self._die()
            return
        if self._fin_sent:
            if self._eof:
                self._die()
                return
        elif self._writable or (self._fin_due and self._shaking):
            self._writable = False
            self._finish()
            if self._gone:
                return
        self._left = self._unsent_octets + self._unacknowledged()
        self._timer = self._reactor.callLater(self._linger, self._tick)
        # What still comes is read and dropped: closing a socket with unread octets sends RST, which may
        # destroy our last words on their way; and who cannot write to us may not come to read either.
        self._started = True
        self._heed()

    def abort(self) -> None:
        """Be gone at once: RST, queued octets are dropped."""
        self._die(reset=True)

    # --- what the reactor does -------------------------------------------------------------------

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "leg"

    def doRead(self) -> None:
        # A leg that was paused earlier in the same turn may still be told of its octets.
        if self._reading:
            self._guarded(self._read)

    def doWrite(self) -> None:
        self._guarded(self._flush)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor saw a hang-up that `doRead` could not see (a paused leg) and has forgotten us."""
        if self._gone:
            return
        self._reading = self._writing = False
        cause = errno.errorcode.get(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "connection lost")
        if self._broken:
            self._later(self._reset, cause)
        else:
            self._cannot_write(cause)

    def _later(self, act: Callable[..., None], *args: Any) -> None:
        self._reactor.callLater(0, self._guarded, act, *args)

    def _guarded(self, act: Callable[..., None], *args: Any) -> None:
        """One turn: it says in one send what it has to say, and what goes wrong in it ends this leg alone."""
        if self._gone:
            return
        self._corked = True
        try:
            act(*args)
        except Exception as error:
            self._fault(error)
        self._corked = False
        if self._unsent and not self._writing:
            try:
                self._flush()
            except Exception as error:
                self._fault(error)

    def _fault(self, error: Exception) -> None:
        """A bug of ours: log where it is, but not what it says, which may be somebody's mail."""
        trace = traceback.extract_tb(error.__traceback__)
        where = " < ".join(f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in reversed(trace))
        self._log.critical("a bug ended one connection: {kind} in {where}", kind=type(error).__name__, where=where)
        try:
            self._reset("internal error")
        except Exception as another:
            self._log.critical("and another one: {kind}", kind=type(another).__name__)

    # --- input -----------------------------------------------------------------------------------

    @property
    def _shaking(self) -> bool:
        return self._half is not None and self.secured is None

    def _heed(self) -> None:
        """Be with the reactor's readers exactly while there is a reason to read."""
        wanted = (
            self._started
            and not self._gone
            and not self._eof
            and (self._closing or (not self._ended and not self._held and (not self._paused or self._shaking)))
        )
        if wanted is not self._reading:
            self._reading = wanted
            if wanted:
                self._reactor.addReader(self)
            else:
                self._reactor.removeReader(self)

    def _read(self) -> None:
        try:
            octets = self._socket.recv(self.read_size)
        except (BlockingIOError, InterruptedError):
            if self._broken:
                self._reset(self.cause)
            return
        except OSError as error:
            self._reset(_name(error))
            return
        if not octets:
            self._meet_fin()
        elif self._closing:
            return
        elif self._half is None:
            self.received += len(octets)
            self.deliver(octets)
        else:
            self._take(octets)

    def _take(self, ciphertext: bytes) -> None:
        half = self._half
        assert half is not None
        if self._early:
            ciphertext, self._early = self._early + ciphertext, b""
        failure = None
        try:
            plaintext = half.feed(ciphertext)
        except TLSError as error:
            failure, plaintext = error.reason, error.plaintext
        if spoken := half.outgoing():
            self._send(spoken)
            if self.secured is not None:
                self._answers += len(spoken)
        if self.secured is None and half.secured is not None:
            self._secure(half)
        if plaintext:
            self._hand_over(plaintext)
        if failure is not None:
            self._fail_tls(failure)
        elif self._answers > MOST_ANSWERS:
            self._reset("TLS: flood of messages")
        elif half.ended:
            self._end(End.ORDERLY)

    def _secure(self, half: TLSHalf) -> None:
        self.secured = facts = half.secured
        assert facts is not None
        if self._waiting:
            waiting = b"".join(self._waiting)
            self._waiting.clear()
            self._waiting_octets = 0
            self._send(half.encrypt(waiting))
        if self._fin_due:
            self._finish()
        self._heed()
        self._owner.leg_secured(self, facts)

    def _hand_over(self, plaintext: bytes) -> None:
        if self._closing or self._gone:
            return
        if self._paused:
            self._held.append(plaintext)
            self._heed()
        else:
            self.received += len(plaintext)
            self.deliver(plaintext)

    def _release(self) -> None:
        """Deliver what was read while the leg was paused, and the end behind it."""
        if self._paused or self._closing:
            return
        plaintext = b"".join(self._held)
        self._held.clear()
        if plaintext:
            self.received += len(plaintext)
            self.deliver(plaintext)
        if self._held_end and not self._ended:
            self._end(End.ORDERLY)
        if self._broken:
            self._later(self._drain)
        self._heed()

    def _begin(self) -> None:
        """The first octets of a handshake that were read before it began."""
        if self._early and not self._closing:
            self._take(b"")
        if self._ended and self._shaking:
            self._fail_tls("connection closed during the handshake")

    def _meet_fin(self) -> None:
        self._eof = True
        self._heed()
        if self._closing:
            if self._fin_sent:
                self._die()
        elif self._broken:
            self._reset(self.cause)
        elif self._shaking:
            self._fail_tls("connection closed during the handshake")
        else:
            self._end(End.ORDERLY if self._half is None else End.TRUNCATED)

    def _end(self, end: End) -> None:
        if self._ended or self._closing or self._gone:
            return
        if self._held:
            self._held_end = True
            return
        self._ended = True
        self._heed()
        self._owner.leg_ended(self, end)

    def _fail_tls(self, reason: str) -> None:
        """TLS gave up; the other end gets the alert if it can still be told."""
        if self._gone or self._closing:
            return
        shaking, ended = self._shaking, self._ended
        self._ended = True
        self.cause = reason if shaking else "TLS: " + reason
        if self._half is not None:
            self._send(self._half.outgoing())
        self.close()
        if shaking:
            self._owner.leg_tls_failed(self, reason)
        elif not ended:
            self._owner.leg_ended(self, End.RESET)

    def _reset(self, cause: str) -> None:
        """The connection is lost."""
        if self._gone:
            return
        told, shaking = self._ended or self._closing, self._shaking
        self._ended = True
        self.cause = cause
        self._die()
        if told:
            return
        if shaking:
            self._owner.leg_tls_failed(self, f"connection lost during the handshake ({cause})")
        else:
            self._owner.leg_ended(self, End.RESET)

    # --- output ----------------------------------------------------------------------------------

    def _send(self, wire: bytes) -> None:
        if not wire or self._broken or self._fin_sent or self._gone:
            return
        if self._unsent or self._corked:
            self._unsent.append(wire)
            self._unsent_octets += len(wire)
            if self._writing:
                self._gauge()
            return
        try:
            count = self._socket.send(wire)
        except (BlockingIOError, InterruptedError):
            count = 0
        except OSError as error:
            self._cannot_write(_name(error))
            return
        if count < len(wire):
            self._keep(wire, count)
            self._gauge()

    def _flush(self) -> None:
        if not self._unsent:
            return
        wire = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
        try:
            count = self._socket.send(wire)
        except (BlockingIOError, InterruptedError):
            count = 0
        except OSError as error:
            self._cannot_write(_name(error))
            return
        if count < len(wire):
            self._keep(wire, count)
        else:
            self._unsent.clear()
            self._unsent_octets = self._answers = 0
            self._stop_writing()
            if self._fin_due and (self._closing or not self._shaking):
                self._shut()
        self._gauge()

    def _keep(self, wire: bytes | memoryview, count: int) -> None:
        """The socket took `count` octets of this and is full."""
        self._unsent = [memoryview(wire)[count:]]
        self._unsent_octets = len(wire) - count
        if not self._writing:
            self._writing = True
            self._reactor.addWriter(self)

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._reactor.removeWriter(self)

    def _gauge(self) -> None:
        """Tell the owner when the unsent octets, all of them, cross the marks."""
        if self._closing or self._gone:
            return
        unsent = self._unsent_octets + self._waiting_octets
        if self.full:
            if unsent < LOW_WATER:
                self.full = False
                self._owner.leg_pressed(self, False)
        elif unsent > HIGH_WATER:
            self.full = True
            self._owner.leg_pressed(self, True)

    def _cannot_write(self, cause: str) -> None:
        """The socket refuses.  What the other end said before may still be there, and is worth reading."""
        if self._broken or self._gone:
            return
        self._broken = True
        self._writable = False
        self.cause = cause
        self._unsent.clear()
        self._unsent_octets = 0
        self._stop_writing()
        self._later(self._drain)

    def _drain(self) -> None:
        """Read what is left on a socket that refuses to send; its end, or nothing to read, is a reset."""
        if self._closing or self._ended:
            self._die()
        elif not self._held and (not self._paused or self._shaking):
            self._read()
            if not self._ended:
                self._later(self._drain)

    # --- the end ---------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Queue the end of what we say: close_notify, then FIN."""
        self._fin_due = True
        if self._half is not None:
            self._send(self._half.close_notify())
        if not self._unsent and not self._broken:
            self._shut()

    def _shut(self) -> None:
        self._fin_due = False
        self._fin_sent = True
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._cannot_write(_name(error))
            return
        if self._closing and self._eof:
            self._die()

    def _unacknowledged(self) -> int:
        """Octets that the kernel holds for the other end; to be gone before them would destroy them."""
        try:
            (octets,) = struct.unpack("i", fcntl.ioctl(self._socket, termios.TIOCOUTQ, b"\0\0\0\0"))
        except OSError:
            return 0
        # A few are always under way for one round trip.
        return int(octets) if octets > LOW_WATER else 0

    def _tick(self) -> None:
        """A closing leg waits: while octets go out, then `linger` seconds for the other end's FIN."""
        self._timer = None
        left = self._unsent_octets + self._unacknowledged()
        if left:
            self._stalled = 0.0 if left < self._left else self._stalled + self._linger
            if self._stalled >= FLUSH_PATIENCE:
                self.abort()
                return
        elif not self._left:
            self.abort()
            return
        self._left = left
        self._timer = self._reactor.callLater(self._linger, self._tick)

    def _die(self, reset: bool = False) -> None:
        """Leave the reactor now and close the descriptor in the next turn.

        Not in this one: a reactor in the middle of a turn searches all its descriptors for one whose
        number is gone (epollreactor._remove).
        """
        if self._gone:
            return
        self._gone = self._ended = True
        self._writable = False
        self.deliver = nobody
        if self._reading:
            self._reading = False
            self._reactor.removeReader(self)
        self._stop_writing()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._unsent.clear()
        self._waiting.clear()
        self._held.clear()
        if reset:
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._reactor.callLater(0, self._dispose)

    def _dispose(self) -> None:
        self._socket.close()
        self._half = None
        try:
            self._owner.leg_closed(self)
        except Exception as error:
            self._log.critical("a bug at the end of one connection: {kind}", kind=type(error).__name__)
        # Nothing that is over shall wait for the garbage collector, which looks through all that is not over.
        del self._owner


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, error.__class__.__name__)
