"""What the owner does with a leg, besides writing."""

from __future__ import annotations

import socket
from abc import abstractmethod
from collections.abc import Callable

from ...protocol.vocabulary import Secured
from ..reactor import Reactor
from ..tls.half import TLSError, TLSHalf
from .descriptor import Descriptor
from .ending import EndState
from .reading import ReadState
from .writing import WriteState


def nobody(data: bytes) -> None:
    """Drops the plaintext of a leg that is closed, or has no owner for it yet."""


class Steered(Descriptor):
    """A descriptor that can be paused and closed, and may have TLS."""

    __slots__ = ("deliver", "half", "secured")

    def __init__(self, reactor: Reactor, sock: socket.socket, linger: float) -> None:
        super().__init__(reactor, sock, linger)
        self.deliver: Callable[[bytes], object] = nobody
        """Is called with the plaintext of each read. The owner may replace it at any time, also by another leg's
        `write`."""
        self.half: TLSHalf | None = None
        """TLS, once it has begun."""
        self.secured: Secured | None = None
        """What the TLS handshake agreed on."""

    @abstractmethod
    def _begin(self) -> None:
        """Begin the handshake with octets that were read before."""

    @abstractmethod
    def _fail_tls(self, reason: str) -> None:
        """TLS cannot go on."""

    @abstractmethod
    def _release(self) -> None:
        """Deliver what was read while the leg was paused."""

    @property
    def full(self) -> bool:
        """More than HIGH_WATER octets were unsent, and there are not yet less than LOW_WATER again."""
        return self._writing.full

    def start(self) -> None:
        """Begin to read."""
        self.resume()

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
            elif state is WriteState.OPEN or state is WriteState.LAST_WORDS:
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
