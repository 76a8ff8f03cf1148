"""The leg itself: it tells the owner what happens, and does what the owner and the reactor ask."""

from __future__ import annotations

import socket
from typing import Final

from ...protocol.vocabulary import Secured
from ..reactor import Reactor
from ..tls.half import MOST, TLSError, TLSHalf, arrived, opened, sealed
from ..tls.private import octets_of
from .ending import EndState
from .interfaces import End, Owner
from .reading import ReadState
from .steered import Steered, nobody
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


class Leg(Steered):
    """A connected socket that the reactor reads and writes directly, without a transport in between.

    The owner is only called from the reactor, never from inside `write`, `start_tls`, `pause`, `resume`, `half_close`,
    `close` or `abort`. The exception is `leg_pressed`: `write` may call it. If the owner or `deliver` raises an
    exception, this leg ends, and no other.
    """

    __slots__ = ("_other", "_owner", "read_size", "received", "sent")

    def __init__(self, reactor: Reactor, sock: socket.socket, owner: Owner, linger: float = 3.0) -> None:
        """`sock` is connected and does not block; from here on it belongs to the leg. `linger` is in seconds."""
        super().__init__(reactor, sock, linger)
        self.received = 0
        """Plaintext octets delivered."""
        self.sent = 0
        """Plaintext octets accepted for sending."""
        self.read_size = READ_SIZE
        """Octets per read, up to MOST. It limits the work of one turn."""
        self._owner = owner
        self._other: Leg | None = None
        """The leg that gets all that is read."""

    # --- what the owner does ---------------------------------------------------------------------

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

    def copy_to(self, other: Leg) -> None:
        """From now on, write to that leg what is read. The owner does not replace `deliver` any more."""
        self.deliver = other.write
        self.read_size = MOST
        self._other = other

    def _pressed(self, full: bool) -> None:
        self._owner.leg_pressed(self, full)

    def _closed(self) -> None:
        self.deliver = nobody
        self.half = self._other = None
        try:
            self._owner.leg_closed(self)
        finally:
            # The owner and the leg refer to each other. Cut, they need no garbage collector.
            del self._owner

    # --- input -----------------------------------------------------------------------------------

    def doRead(self) -> None:
        # Nothing is done more often, so `_guarded` is written out.
        writing, other = self._writing, self._other
        try:
            if other is not None and self._copy(other):
                return
        except Exception as error:
            self._fault(error)
            return
        # A leg that was paused earlier in the same turn may still be told that it can read.
        if self._reads:
            writing.corked = True
            try:
                self._read()
            except Exception as error:
                self._fault(error)
            writing.corked = False
            if writing.octets and not writing.blocked:
                self._send_corked()

    def _copy(self, other: Leg) -> bool:
        """Read once, and write it to the other leg, as `_read` and the other leg's `write` do. No octet becomes an
        object of Python: a round trip needs a sixth fewer instructions. False if nothing was read: a leg is paused,
        closed or in its handshake.
        """
        opening, sealing = self.half, other.half
        if (
            self._reading.state is not _READABLE
            or other._writing.state is not _WRITABLE
            or (opening is not None and self.secured is None)
            or (sealing is not None and other.secured is None)
        ):
            return False
        try:
            size = self._socket.recv_into(arrived.view)
        except OSError as error:
            self._guarded(self._cannot_read, error)
            return True
        if not size:
            self._guarded(self._meet_fin)
            return True
        space = arrived
        if opening is not None:
            space = opened
            try:
                size = opening.open(arrived.memory, size)
            except TLSError as error:
                self._guarded(self._opened, opening, error.plaintext, error.reason)
                return True
            if opening.ended or opening.speaks:
                self._guarded(self._opened, opening, octets_of(opened.memory, size))
                return True
            if not size:
                return True  # part of a record
        self.received += size
        other.sent += size
        if sealing is not None:
            try:
                size = sealing.seal(space.memory, size)
            except TLSError as error:
                other._cannot_write("TLS: " + error.reason)
                return True
            space = sealed
        if other._writing.send(space.view[:size]):
            other._look()
        return True

    def _read(self) -> None:
        try:
            size = self._socket.recv_into(arrived.view, self.read_size)
        except OSError as error:
            self._cannot_read(error)
            return
        half, reading = self.half, self._reading
        if not size:
            self._meet_fin()
        elif half is None:
            if reading.state is _READABLE:
                self.received += size
                self.deliver(octets_of(arrived.memory, size))
        elif reading.state is _DROPPING:
            return
        elif reading.early or reading.blanks:
            self._decrypt(half, reading.begin(octets_of(arrived.memory, size)))
        else:
            try:
                size = half.open(arrived.memory, size)
            except TLSError as error:
                self._opened(half, error.plaintext, error.reason)
            else:
                self._opened(half, octets_of(opened.memory, size) if size else b"")

    def _cannot_read(self, error: OSError) -> None:
        if not isinstance(error, BlockingIOError | InterruptedError):
            self._reset(name(error))
        elif self._writing.state is WriteState.BROKEN:
            self._reset(self.cause)

    def _decrypt(self, half: TLSHalf, ciphertext: bytes) -> None:
        failure = None
        try:
            plaintext = half.feed(ciphertext)
        except TLSError as error:
            failure, plaintext = error.reason, error.plaintext
        self._opened(half, plaintext, failure)

    def _opened(self, half: TLSHalf, plaintext: bytes, failure: str | None = None) -> None:
        """This was in what the other end sent. `failure`: TLS cannot go on, for this reason."""
        reading, writing, shaking = self._reading, self._writing, self.secured is None
        if (half.speaks or failure is not None) and (spoken := half.outgoing()):
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
        reading = self._reading
        if reading.early and self.half is not None:
            self._decrypt(self.half, reading.begin(b""))
        if self._shaking and reading.over:
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
