"""The writing side of a leg: the octets for the wire, and the end of what is said."""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import suppress
from enum import Enum
from typing import Final

HIGH_WATER: Final = 64 * 1024
"""Above this many unsent octets the owner should stop what fills this leg. A session holds at most this and one read
of the other leg."""

LOW_WATER: Final = 16 * 1024
"""Below this many unsent octets the owner may go on. It keeps the socket busy until new octets come."""


class WriteState(Enum):
    """What may still be sent."""

    OPEN = "open"
    """Everything."""
    LAST_WORDS = "last-words"
    """The owner half-closed the leg during a TLS handshake. What waits for TLS is sent first, then the end."""
    FINISHING = "finishing"
    """Nothing new. FIN follows the last unsent octet."""
    FINISHED = "finished"
    """Nothing. FIN was sent."""
    BROKEN = "broken"
    """Nothing. The socket refused to send; `cause` says why."""
    GONE = "gone"
    """Nothing. The leg is gone."""


# Looking up a member of an Enum costs more than looking up a global name.
_OPEN, _LAST_WORDS, _FINISHING = WriteState.OPEN, WriteState.LAST_WORDS, WriteState.FINISHING
_FINISHED, _BROKEN, _GONE = WriteState.FINISHED, WriteState.BROKEN, WriteState.GONE
_MUTE: Final = (_FINISHED, _BROKEN, _GONE)
_FIN_ON_CLOSE: Final = struct.pack("ii", 0, 0)
"""SO_LINGER, off: the default."""


def name(error: OSError) -> str:
    """For the log: `ECONNRESET`."""
    return errno.errorcode.get(error.errno or 0, error.__class__.__name__)


class Writing:
    """Sends, and keeps what the socket does not take.

    ```
    OPEN -> LAST_WORDS -> FINISHING -> FINISHED
    OPEN -> FINISHING               not during a handshake
    any but GONE -> BROKEN          the socket refuses
    any -> GONE                     the leg is gone
    ```

    The methods that return a bool say: the leg must look at `state`, `blocked` and `crossed`, something changed there.
    """

    __slots__ = (
        "_socket",
        "_unsent",
        "answers",
        "blocked",
        "cause",
        "corked",
        "full",
        "octets",
        "resets",
        "state",
        "waiting",
    )

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.state = _OPEN
        self.cause = ""
        """Why the socket refuses to send."""
        self.waiting = b""
        """Plaintext that waits for the end of the handshake."""
        self._unsent: list[bytes | memoryview] = []
        """Octets for the wire, in order."""
        self.octets = 0
        """How many these are."""
        self.answers = 0
        """How many of these TLS wrote by itself, at most."""
        self.corked = False
        """A turn of the reactor is under way on this leg. What is written in it is sent in one piece at its end."""
        self.blocked = False
        """The socket is full."""
        self.resets = False
        """Until FIN is sent, closing the socket sends RST."""
        self.full = False
        """More than HIGH_WATER octets were unsent, and there are not yet less than LOW_WATER again."""

    def wait(self, plaintext: bytes) -> None:
        """Keep this until TLS can encrypt it."""
        self.waiting += plaintext

    def send(self, wire: bytes | memoryview) -> bool:
        """Send what the socket takes now, and keep the rest. A memoryview is copied then: others will write there."""
        state = self.state
        if not wire or (state is not _OPEN and state in _MUTE):
            return False
        if self._unsent or self.corked:
            self._unsent.append(bytes(wire))
            self.octets += len(wire)
            return self.blocked
        try:
            count = self._socket.send(wire)
        except (BlockingIOError, InterruptedError):
            count = 0
        except OSError as error:
            return self.fail(name(error))
        if count == len(wire):
            return False
        self._keep(bytes(wire), count)
        return True

    def flush(self) -> bool:
        """Send what is kept, as far as the socket takes it."""
        unsent = self._unsent
        if not unsent:
            return False
        wire = unsent[0] if len(unsent) == 1 else b"".join(unsent)
        try:
            count = self._socket.send(wire)
        except (BlockingIOError, InterruptedError):
            count = 0
        except OSError as error:
            return self.fail(name(error))
        if count < len(wire):
            self._keep(wire, count)
            return True
        unsent.clear()
        self.octets = self.answers = 0
        if self.state is _FINISHING:
            self.blocked = False
            return self._shut()
        if self.blocked or self.full:
            self.blocked = False
            return True
        return False

    def half_close(self, shaking: bool) -> bool:
        """The owner says nothing more. True if the end can be said now, with `finish`."""
        if self.state is not _OPEN:
            return False
        if shaking:
            self.state = _LAST_WORDS
        return not shaking

    def finish(self, close_notify: bytes) -> bool:
        """Say the end: close_notify (nothing in the clear), then FIN."""
        self.state = _FINISHING
        self.waiting = b""
        looks = bool(close_notify) and self.send(close_notify)
        if self._unsent or self.state is not _FINISHING:
            return looks
        return self._shut()

    def fail(self, cause: str) -> bool:
        """Nothing can be sent any more."""
        if self.state in (_BROKEN, _GONE):
            return False
        self.state = _BROKEN
        self.cause = cause
        self._forget()
        return True

    def end(self) -> None:
        """The leg is gone."""
        self.state = _GONE
        self._forget()

    def crossed(self) -> bool:
        """Whether the number of unsent octets has crossed a mark. `full` then says which one."""
        unsent = self.octets + len(self.waiting)
        full = unsent >= LOW_WATER if self.full else unsent > HIGH_WATER
        changed = full is not self.full
        self.full = full
        return changed

    def _keep(self, wire: bytes | memoryview, count: int) -> None:
        """The socket took `count` of these octets and is full."""
        self._unsent = [memoryview(wire)[count:]]
        self.octets = len(wire) - count
        self.blocked = True

    def _shut(self) -> bool:
        self.state = _FINISHED
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.fail(name(error))
        if self.resets:
            self.resets = False
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _FIN_ON_CLOSE)
        return True

    def _forget(self) -> None:
        self._unsent.clear()
        self.waiting = b""
        self.octets = 0
        self.blocked = False
