"""The reading side of a leg: whether the socket is read, and where the plaintext goes."""

from __future__ import annotations

from enum import Enum

from .interfaces import End


class ReadState(Enum):
    """What happens with octets that the other end sends."""

    PAUSED = "paused"
    """They stay in the socket, but a TLS handshake goes on. Every leg begins here."""
    OPEN = "open"
    """They are read and delivered."""
    HOLDING = "holding"
    """The handshake of a paused leg brought plaintext. It is held here, and the socket is not read."""
    RELEASING = "releasing"
    """The leg was resumed. The held plaintext is delivered in the next turn of the reactor."""
    ENDED = "ended"
    """The owner knows that the input is over. FIN has not been read yet."""
    DROPPING = "dropping"
    """The leg is closing: they are read and dropped, until FIN."""
    FINISHED = "finished"
    """FIN was read, or the leg is gone. The socket is not read any more."""


# Looking up a member of an Enum costs more than looking up a global name.
_PAUSED, _OPEN, _HOLDING, _RELEASING = ReadState.PAUSED, ReadState.OPEN, ReadState.HOLDING, ReadState.RELEASING
_ENDED, _DROPPING, _FINISHED = ReadState.ENDED, ReadState.DROPPING, ReadState.FINISHED


class Reading:
    """Decides; the leg reads the socket and delivers.

    ```
    PAUSED <-> OPEN             pause, resume
    PAUSED -> HOLDING           hold: plaintext came with the end of a handshake
    HOLDING <-> RELEASING       resume, pause
    RELEASING -> OPEN           release
    PAUSED, OPEN -> ENDED       end
    any but FINISHED -> DROPPING   drop: the leg closes
    any -> FINISHED             finish: FIN was read, or the leg is gone
    ```
    """

    __slots__ = ("_behind", "_held", "blanks", "early", "state")

    def __init__(self) -> None:
        self.state = _PAUSED
        self.early = b""
        """Ciphertext that was read before TLS began on this leg."""
        self.blanks = b""
        """Octets that are dropped before the first ciphertext."""
        self._held = b""
        self._behind: End | None = None
        """The end of the input that came behind the held plaintext."""

    def wanted(self, shaking: bool) -> bool:
        """Whether the socket is to be read. `shaking`: a TLS handshake is under way."""
        state = self.state
        return state is _OPEN or state is _DROPPING or (shaking and state is _PAUSED)

    @property
    def over(self) -> bool:
        """Whether the owner expects no more input."""
        return self.state in (_ENDED, _DROPPING, _FINISHED)

    def begin(self, ciphertext: bytes) -> bytes:
        """The first ciphertext, with what came early, and without the blanks before it."""
        ciphertext, self.early = (self.early + ciphertext).lstrip(self.blanks), b""
        if ciphertext:
            self.blanks = b""
        return ciphertext

    def pause(self) -> bool:
        """False if that changes nothing: the leg is paused already, or the input is over."""
        if self.state is _OPEN:
            self.state = _PAUSED
        elif self.state is _RELEASING:
            self.state = _HOLDING
        else:
            return False
        return True

    def resume(self) -> bool:
        """False if that changes nothing: the leg is not paused, or the input is over."""
        if self.state is _PAUSED:
            self.state = _OPEN
        elif self.state is _HOLDING:
            self.state = _RELEASING
        else:
            return False
        return True

    def hold(self, plaintext: bytes) -> None:
        """Keep plaintext that cannot be delivered now. It is dropped if the input is over."""
        if self.over:
            return
        if self.state is _PAUSED:
            self.state = _HOLDING
        self._held += plaintext

    def release(self) -> tuple[bytes, End | None]:
        """RELEASING becomes OPEN. Returns what is to be delivered, and the end of the input behind it."""
        self.state = _OPEN
        held, self._held = self._held, b""
        behind, self._behind = self._behind, None
        return held, behind

    def end(self, end: End) -> bool:
        """The input is over. True if the owner is to be told now; held plaintext must be delivered first."""
        if self.state in (_HOLDING, _RELEASING):
            self._behind = end
            return False
        if self.over:
            return False
        self.state = _ENDED
        return True

    def drop(self) -> None:
        """The leg closes: nothing is delivered any more."""
        self._held = self.early = b""
        if self.state is not _FINISHED:
            self.state = _DROPPING

    def finish(self) -> None:
        """FIN was read, or the leg is gone."""
        self._held = self.early = b""
        self.state = _FINISHED
