"""The leg itself: it tells the owner what happens, and does what the owner and the reactor ask."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

from ...protocol.vocabulary import Secured
from ..reactor import Reactor
from ..tls.half import TLSError, TLSHalf
from .descriptor import Descriptor
from .ending import EndState
from .interfaces import End, Owner
from .reading import ReadState
from .writing import WriteState, name

MOST_ANSWERS: Final = 16 * 1024
"""Unsent octets that TLS may have written by itself. More is a flood: 600 requests for a KeyUpdate, sent by somebody
who does not read the answers. The owner could not stop this memory from growing."""

READ_SIZE: Final = 16 * 1024
"""Octets per read until the owner sets another number. It suits a negotiation; a transfer wants more."""

_CUT_SHORT: Final = "connection closed during the handshake"

# Looking up a member of an Enum costs more than looking up a global name.
_READABLE, _DROPPING, _WRITABLE = ReadState.OPEN, ReadState.DROPPING, WriteState.OPEN


def prepare(sock: socket.socket) -> None:
    """Set the options that a leg needs. Sockets that a listening socket accepts inherit them."""
    sock.setblocking(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        # The leg itself puts together what belongs together. Keep-alive finds peers that vanished.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def nobody(data: bytes) -> None:
    """Drops the plaintext of a leg that is closed, or has no owner for it yet."""


class Leg(Descriptor):
    """A connected socket that the reactor reads and writes directly, without a transport in between.

    The owner is only called from the reactor, never from inside `write`, `start_tls`, `pause`, `resume`, `half_close`,
    `close` or `abort`. The exception is `leg_pressed`: `write` may call it. If the owner or `deliver` raises an
    exception, this leg ends, and no other.
    """

    __slots__ = ("_owner", "deliver", "half", "read_size", "received", "secured", "sent")

    def __init__(self, reactor: Reactor, sock: socket.socket, owner: Owner, linger: float = 3.0) -> None:
        """`sock` is connected and does not block; from here on it belongs to the leg. `linger` is in seconds."""
        super().__init__(reactor, sock, linger)
        self.deliver: Callable[[bytes], object] = nobody
        """Is called with the plaintext of each read. The owner may replace it at any time, also by another leg's
        `write`."""
        self.received = 0
        """Plaintext octets delivered."""
        self.sent = 0
        """Plaintext octets accepted for sending."""
        self.read_size = READ_SIZE
        """Octets per read. It limits the work of one turn."""
        self.secured: Secured | None = None
        """What the TLS handshake agreed on."""
        self._owner = owner
        self.half: TLSHalf | None = None
        """TLS, once it has begun."""

    # --- what the owner does ---------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """More than HIGH_WATER octets were unsent, and there are not yet less than LOW_WATER again."""
        return self._writing.full

    def start(self) -> None:
        """Begin to read."""
        if self._reading.resume():
            self._heed()

    def write(self, data: bytes) -> None:
        """Send what the socket takes now, and the rest later. A closed leg ignores it."""
        writing = self._writing
        if writing.state is not _WRITABLE or not data:
            return
        self.sent += len(data)
        half = self.half
        if half is not None:
            if self.secured is None:
                writing.wait(data)
                self._look()
                return
            try:
                data = half.encrypt(data)
            except TLSError as error:
                self._cannot_write("TLS: " + error.reason)
                return
        if writing.send(data):
            self._look()

    def start_tls(self, half: TLSHalf, early: bytes = b"", blanks: bytes = b"") -> None:
        """Everything after this call is TLS. What was written before is sent in the clear.

        `early` is ciphertext that was read together with the last plaintext. `blanks` are dropped before the first one.
        """
        assert self.half is None, "TLS inside TLS"
        if self._ending.state is not EndState.OPEN:
            return
        self.half = half
        self._reading.early, self._reading.blanks = early, blanks
        if not early:
            try:
                half.start()
            except TLSError as error:
                self._later(self._fail_tls, error.reason)
                return
            self._send(half.outgoing())
        self._heed()
        if early or self._reading.over:
            self._later(self._begin)

    def pause(self) -> None:
        """Deliver nothing and read nothing. A handshake goes on."""
        if self._reading.pause():
            self._heed()

    def resume(self) -> None:
        """Read again. What was read while the leg was paused is delivered first."""
        reading = self._reading
        if not reading.resume():
            return
        if reading.state is ReadState.RELEASING:
            self._later(self._release)
        elif self._writing.state is WriteState.BROKEN:
            self._later(self._drain)
        self._heed()

    def half_close(self) -> None:
        """Write nothing more: the end follows what is unsent. Reading goes on."""
        if self._writing.half_close(self._shaking):
            self._finish()

    def close(self) -> None:
        """Send what is unsent, end in an orderly way, wait for the other end's FIN, and be gone.

        Nothing is delivered any more. The leg is cut off if the other end does not close within `linger` seconds, or
        takes nothing of what is unsent for FLUSH_PATIENCE seconds.
        """
        if self._ending.state is not EndState.OPEN:
            return
        self._ending.begin()
        self.deliver = nobody
        self._reading.drop()
        state = self._writing.state
        try:
            if state is WriteState.BROKEN:
                self._die()
            elif state is _WRITABLE or state is WriteState.LAST_WORDS:
                self._finish()
            else:
                self._part()
            # What still comes is read and dropped. Closing a socket with unread octets sends RST, which may destroy our
            # last words on their way; and some clients read only after they could write.
            self._linger()
            self._heed()
        except Exception:
            # A bug in here must not leave the leg open for ever.
            self.abort()
            raise

    def _finish(self) -> None:
        """Say the end: close_notify, then FIN."""
        if self._writing.finish(b"" if self.half is None else self.half.close_notify()):
            self._look()

    def _pressed(self, full: bool) -> None:
        self._owner.leg_pressed(self, full)

    def _closed(self) -> None:
        self.deliver = nobody
        self.half = None
        try:
            self._owner.leg_closed(self)
        finally:
            # The owner and the leg refer to each other. Cut, they need no garbage collector.
            del self._owner

    # --- input -----------------------------------------------------------------------------------

    @property
    def _shaking(self) -> bool:
        """A TLS handshake is under way."""
        return self.half is not None and self.secured is None

    def _heed(self) -> None:
        """Let the reactor read the socket exactly while that is wanted."""
        wanted = self._reading.wanted(self.half is not None and self.secured is None)
        if wanted is not self._reads:
            self._reads = wanted
            (self._reactor.addReader if wanted else self._reactor.removeReader)(self)

    def _read(self) -> None:
        try:
            octets = self._socket.recv(self.read_size)
        except (BlockingIOError, InterruptedError):
            if self._writing.state is WriteState.BROKEN:
                self._reset(self.cause)
            return
        except OSError as error:
            self._reset(name(error))
            return
        if not octets:
            self._meet_fin()
        elif self.half is not None:
            if self._reading.state is not _DROPPING:
                self._decrypt(octets)
        elif self._reading.state is _READABLE:
            self.received += len(octets)
            self.deliver(octets)

    def _decrypt(self, ciphertext: bytes) -> None:
        half, reading, writing, shaking = self.half, self._reading, self._writing, self.secured is None
        assert half is not None
        if shaking and (reading.early or reading.blanks):
            ciphertext = reading.begin(ciphertext)
        failure = None
        try:
            plaintext = half.feed(ciphertext)
        except TLSError as error:
            failure, plaintext = error.reason, error.plaintext
        if spoken := half.outgoing():
            self._send(spoken)
            if not shaking:
                writing.answers += len(spoken)
        if shaking and half.secured is not None:
            self._secure(half, half.secured)
        if plaintext:
            if reading.state is _READABLE:
                self.received += len(plaintext)
                self.deliver(plaintext)
            else:
                reading.hold(plaintext)
                self._heed()
        if failure is not None:
            self._fail_tls(failure)
        elif writing.answers > MOST_ANSWERS:
            self._reset("TLS: flood of messages")
        elif half.ended:
            self._end(End.ORDERLY)

    def _secure(self, half: TLSHalf, facts: Secured) -> None:
        """The handshake is complete."""
        self.secured = facts
        writing = self._writing
        if writing.waiting:
            waiting, writing.waiting = writing.waiting, b""
            self._send(half.encrypt(waiting))
        if writing.state is WriteState.LAST_WORDS:
            self._finish()
        self._heed()
        self._owner.leg_secured(self, facts)

    def _begin(self) -> None:
        """Begin the handshake with octets that were read before."""
        if self._reading.early:
            self._decrypt(b"")
        if self._shaking and self._reading.over:
            self._fail_tls(_CUT_SHORT)

    def _release(self) -> None:
        """Deliver what was read while the leg was paused, and then the end of the input, if it has come."""
        if self._reading.state is not ReadState.RELEASING:
            return
        plaintext, behind = self._reading.release()
        self.received += len(plaintext)
        self.deliver(plaintext)
        if behind is not None:
            self._end(behind)
        if self._writing.state is WriteState.BROKEN:
            self._later(self._drain)
        self._heed()

    def _meet_fin(self) -> None:
        reading = self._reading
        closing = reading.state is ReadState.DROPPING
        if self._writing.state is WriteState.BROKEN and not closing:
            self._reset(self.cause)
            return
        reading.finish()
        self._heed()
        if closing:
            self._part()
        elif self._shaking:
            self._fail_tls(_CUT_SHORT)
        else:
            self._owner.leg_ended(self, End.ORDERLY if self.half is None else End.TRUNCATED)

    def _end(self, end: End) -> None:
        if self._reading.end(end):
            self._heed()
            self._owner.leg_ended(self, end)

    def _fail_tls(self, reason: str) -> None:
        """TLS cannot go on. The other end gets the alert."""
        if self._ending.state is not EndState.OPEN:
            return
        shaking, told = self._shaking, self._reading.over
        self.cause = reason if shaking else "TLS: " + reason
        if self.half is not None:
            self._send(self.half.outgoing())
        self.close()
        if shaking:
            self._owner.leg_tls_failed(self, reason)
        elif not told:
            self._owner.leg_ended(self, End.RESET)

    def _reset(self, cause: str) -> None:
        """The connection is lost."""
        if self._ending.state is EndState.GONE:
            return
        shaking, told = self._shaking, self._reading.over
        self.cause = cause
        self._die()
        if told:
            return
        if shaking:
            self._owner.leg_tls_failed(self, f"connection lost during the handshake ({cause})")
        else:
            self._owner.leg_ended(self, End.RESET)

    def _drain(self) -> None:
        """The socket refuses to send. Read what is left on it: the other end may have said why. Then it is a reset."""
        reading = self._reading
        if reading.over:
            self._die()
        elif reading.wanted(self._shaking):
            self._read()
            if not reading.over:
                self._later(self._drain)
