"""The TLS half of a leg. Ciphertext goes in; plaintext and ciphertext come out. It knows no socket and no clock."""

from __future__ import annotations

import re
from typing import Any, Final

from OpenSSL import SSL

from ...protocol.vocabulary import Secured
from .clients import presented, refusal
from .private import (
    WANT_READ,
    ZERO_RETURN,
    Space,
    bio_data,
    bio_read,
    bio_write,
    handles,
    memory_of,
    nowhere,
    octets_of,
    raise_error,
    renew,
    ssl_error,
    ssl_read,
    ssl_resumed,
    ssl_shake,
    ssl_write,
)

RECORD: Final = 16384
"""The largest number of plaintext octets in a TLS record (RFC 8446 5.1)."""

MOST: Final = 64 * 1024
"""Octets that a leg reads at once, and that are decrypted at once. Fewer would cost a system call each."""

SLICE: Final = 16384
"""Ciphertext octets given to OpenSSL at once. So a memory BIO does not grow beyond this by a third."""

PIECE: Final = 2 * RECORD
"""Plaintext octets encrypted at once, for the same reason. It takes half as many calls as one record at a time."""

SMALL: Final = 2048
"""Octets at once for which a memory BIO does not grow much. A command is smaller."""

MOST_HELD: Final = 8192
"""Octets that wait with `holds_tickets`. Two tickets have 500 octets, or a few thousand with the certificate of
the client."""

ROOM: Final = MOST + 4 * RECORD
"""Octets that OpenSSL may write at a time. MOST octets of ciphertext are decrypted to at most MOST, and the rest of a
record that began earlier; OpenSSL asks for room for one more record. Encryption adds up to 16 KB if the client asks for
records of 512 octets (RFC 6066 4)."""

arrived: Final = Space(MOST)
"""Where a leg puts what it has read, if nobody keeps it. All of these are empty between two turns of a leg."""

opened: Final = Space(ROOM)
"""Where OpenSSL puts plaintext."""

sealed: Final = Space(ROOM)
"""Where OpenSSL puts ciphertext."""

_ALERT: Final = re.compile(r"(?:ssl/tls|tls|sslv3|tlsv1|tlsv13) alert (.+)")


class TLSError(Exception):
    """TLS cannot go on. `TLSHalf.outgoing` returns the alert for the other end.

    `reason` is a short text for the log: OpenSSL's words, or `alert: NAME` if the other end refused.
    `plaintext` is what the same octets held before the error.
    """

    def __init__(self, reason: str, plaintext: bytes = b"") -> None:
        super().__init__(reason)
        self.reason = reason
        self.plaintext = plaintext


class TLSHalf:
    """One end of a TLS connection in memory.

    `connection` was made without a socket, and it has been told whether it accepts or connects. Its context does not
    have SSL_MODE_ENABLE_PARTIAL_WRITE, so it encrypts all or nothing.
    """

    __slots__ = (
        "_connection",
        "_failed",
        "_from_ssl",
        "_grown",
        "_into_ssl",
        "_ssl",
        "ended",
        "holds_tickets",
        "secured",
        "speaks",
    )

    def __init__(self, connection: SSL.Connection) -> None:
        self.secured: Secured | None = None
        """What the handshake agreed on, once it is complete."""
        self.ended = False
        """The other end sent close_notify. Nothing after it is input."""
        self.speaks = False
        """OpenSSL has something to say by itself: see `outgoing`."""
        self.holds_tickets = False
        """What TLS 1.3 says by itself behind the handshake goes out with what is encrypted next.  A client that only
        sends may close while these octets are unread, and its kernel then drops what it has not sent yet."""
        self._connection = connection
        self._ssl, self._into_ssl, self._from_ssl = handles(connection)
        self._failed = False
        self._grown = True
        """The memory BIOs have grown: a handshake makes them."""

    def start(self) -> None:
        """Make the ClientHello. An accepting end has nothing to say yet, and starting it changes nothing."""
        self._shake()

    @property
    def session(self) -> SSL.Session | None:
        """By which another half with the same server may go on with this TLS session (RFC 8446 2.2)."""
        return self._connection.get_session()

    def resume(self, session: SSL.Session) -> None:
        """Before `start`: offer the server to go on with that TLS session."""
        self._connection.set_session(session)

    def feed(self, ciphertext: bytes) -> bytes:
        """The plaintext in these octets of the other end, in one piece. Raises TLSError.

        Look at `outgoing`, `secured` and `ended` after each call.
        """
        size = len(ciphertext)
        if size <= MOST:
            whole: bytes = octets_of(opened.memory, self.open(memory_of(ciphertext), size))
            return whole
        plaintext: list[bytes] = []
        try:
            for at in range(0, size, MOST):
                plaintext.append(self.feed(ciphertext[at : at + MOST]))
        except TLSError as error:
            error.plaintext = b"".join([*plaintext, error.plaintext])
            raise
        return b"".join(plaintext)

    def open(self, ciphertext: Any, size: int) -> int:
        """Decrypt up to MOST octets of C memory. Returns the number of plaintext octets in `opened`. Raises TLSError.

        Look at `outgoing`, `secured` and `ended` after each call.
        """
        if self.ended or self._failed or not size:
            return 0
        into, ssl, target = self._into_ssl, self._ssl, opened.memory
        filled = 0
        left = size
        while left and not self.ended:
            piece = left if left < SLICE else SLICE
            if bio_write(into, ciphertext if left == size else ciphertext + (size - left), piece) <= 0:
                raise MemoryError
            left -= piece
            if self.secured is None and not self._shake():
                continue
            while (count := ssl_read(ssl, target + filled if filled else target, RECORD)) > 0:
                filled += count
                if not bio_data(into, nowhere):
                    # No octet is left, and `ssl_read` takes a whole record: another call would say WANT_READ.
                    break
                if filled > ROOM - RECORD:
                    raise AssertionError("more plaintext than ciphertext")
            else:
                why = ssl_error(ssl, count)
                if why == ZERO_RETURN:
                    self.ended = True
                elif why != WANT_READ:
                    raise self._failure(count, octets_of(opened.memory, filled))
        waiting = bio_data(self._from_ssl, nowhere)
        self.speaks = waiting > 0 and not self._holds(waiting)
        if size > SMALL:
            self._grown = True
        elif self._grown and not waiting:
            self._shrink()
        return filled

    def _shrink(self) -> None:
        """A memory BIO keeps the memory of its largest content for ever: 65 KB after a transfer, and 4 KB after a
        handshake. There may be ten thousand of them."""
        if not self.ended and self.secured is not None:
            self._into_ssl, self._from_ssl = renew(self._connection)
            self._grown = False

    def _holds(self, waiting: int) -> bool:
        """Whether so many octets wait for the next ones of ours. More than a few tickets are said at once: answers to a
        flood of KeyUpdates must not gather where nobody counts them."""
        return (
            self.holds_tickets
            and waiting <= MOST_HELD
            and not self._failed
            and self.secured is not None
            and self.secured.version == "TLSv1.3"
        )

    def outgoing(self) -> bytes:
        """What OpenSSL has to say by itself: handshake, tickets, alerts.

        The answer to a KeyUpdate is not among it; `encrypt` returns that.
        """
        waiting = bio_data(self._from_ssl, nowhere)
        return self._spoken() if waiting and not self._holds(waiting) else b""

    def _spoken(self) -> bytes:
        said = b""
        while (count := bio_read(self._from_ssl, sealed.memory, ROOM)) > 0:
            said += octets_of(sealed.memory, count)
            if count < ROOM:
                break
        return said

    def encrypt(self, plaintext: bytes) -> bytes:
        """The ciphertext to send for this. Call it only after the handshake and before `close_notify`.

        What OpenSSL has to say by itself goes before it, also the answer to a KeyUpdate (RFC 8446 4.6.3).
        """
        size = len(plaintext)
        if size > MOST:
            return b"".join([self.encrypt(plaintext[at : at + MOST]) for at in range(0, size, MOST)])
        return octets_of(sealed.memory, self.seal(memory_of(plaintext), size)) if size else b""

    def seal(self, plaintext: Any, size: int) -> int:
        """Encrypt octets of C memory, as `encrypt` does: one, or as many as `open` returns. Raises TLSError.

        Returns the number of octets in `sealed`.
        """
        source, ssl, target = self._from_ssl, self._ssl, sealed.memory
        if size > SMALL:
            self._grown = True
        room: int = ROOM
        while True:
            piece = size if size < PIECE else PIECE
            if (count := ssl_write(ssl, plaintext, piece)) != piece:
                raise self._failure(count)
            count = bio_read(source, target, room)
            if not 0 < count < room:
                raise AssertionError("OpenSSL has written nothing, or more than there is room for")
            room -= count
            size -= piece
            if not size:
                return ROOM - room
            plaintext, target = plaintext + piece, target + count

    def close_notify(self) -> bytes:
        """The ciphertext of an orderly end (RFC 8446 6.1). Nothing can be encrypted after it.

        It is empty if there is nothing to end: before the handshake is complete, and after a failure.
        """
        if self.secured is None or self._failed:
            return b""
        try:
            self._connection.shutdown()
        except SSL.Error:
            # OpenSSL has given up this half. There is nobody to say goodbye to.
            self._failed = True
        return self._spoken()

    def _shake(self) -> bool:
        """Go on with the handshake. True if it is complete."""
        connection = self._connection
        result = ssl_shake(self._ssl)
        if result <= 0 and ssl_error(self._ssl, result) == WANT_READ:
            return False
        try:
            raise_error(connection, result)
        except SSL.Error as error:
            raise self._broken(error) from None
        name = connection.get_servername()
        self.secured = Secured(
            version=connection.get_protocol_version_name(),
            cipher=connection.get_cipher_name() or "unknown",
            bits=connection.get_cipher_bits() or 0,
            group=connection.get_group_name(),
            sni=None if name is None else name.decode("ascii", "backslashreplace"),
            alpn=connection.get_alpn_proto_negotiated().decode("ascii", "backslashreplace") or None,
            certificate=presented(connection),
            resumed=bool(ssl_resumed(self._ssl)),
        )
        return True

    def _failure(self, result: int, plaintext: bytes = b"") -> TLSError:
        """What went wrong, by the result of `ssl_read` or `ssl_write`."""
        try:
            raise_error(self._connection, result)
        except SSL.Error as error:
            return self._broken(error, plaintext)
        raise AssertionError("OpenSSL failed without an error; does its context have SSL_MODE_ENABLE_PARTIAL_WRITE?")

    def _broken(self, error: SSL.Error, plaintext: bytes = b"") -> TLSError:
        self._failed = True
        return TLSError(refusal(self._connection) or _reason(error), plaintext)


def _reason(error: SSL.Error) -> str:
    """OpenSSL's first complaint, shortened to what an administrator can search for."""
    if isinstance(error, SSL.ZeroReturnError | SSL.SysCallError):
        return "ended by the other side"
    complaints = error.args[0] if error.args and isinstance(error.args[0], list) else []
    for _library, _function, text in complaints:
        if text:
            if alert := _ALERT.fullmatch(text):
                return "alert: " + alert[1].replace(" ", "_")
            return str(text)
    return "TLS failure"
