"""The TLS half of a leg. Ciphertext goes in; plaintext and ciphertext come out. It knows no socket and no clock."""

from __future__ import annotations

import re
from typing import Final

from OpenSSL import SSL

from ...protocol.vocabulary import Secured
from .clients import presented, refusal
from .private import (
    WANT_READ,
    ZERO_RETURN,
    bio_data,
    bio_read,
    bio_write,
    handles,
    memory,
    memory_of,
    nowhere,
    octets_of,
    raise_error,
    ssl_error,
    ssl_read,
    ssl_resumed,
    ssl_shake,
    ssl_write,
)

RECORD: Final = 16384
"""The largest number of plaintext octets in a TLS record (RFC 8446 5.1)."""

SLICE: Final = 16384
"""Ciphertext octets given to OpenSSL at once. A memory BIO never shrinks, and there may be ten thousand of them."""

PIECE: Final = 2 * RECORD
"""Plaintext octets encrypted at once, for the same reason. It takes half as many calls as one record at a time."""

ROOM: Final = 4 * RECORD
"""Octets that OpenSSL may write at a time. One encrypted piece fits in, and so does the plaintext of one slice: the
rest of a record that began earlier, and one more record."""

_room = memory(ROOM)
"""Where OpenSSL writes for every half. It is empty between two calls."""

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

    __slots__ = ("_connection", "_failed", "_from_ssl", "_into_ssl", "_ssl", "ended", "holds_tickets", "secured")

    def __init__(self, connection: SSL.Connection) -> None:
        self.secured: Secured | None = None
        """What the handshake agreed on, once it is complete."""
        self.ended = False
        """The other end sent close_notify. Nothing after it is input."""
        self.holds_tickets = False
        """What TLS 1.3 says by itself behind the handshake goes out with what is encrypted next.  A client that only
        sends may close while these octets are unread, and its kernel then drops what it has not sent yet."""
        self._connection = connection
        self._ssl, self._into_ssl, self._from_ssl = handles(connection)
        self._failed = False

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

    def feed(self, ciphertext: bytes | memoryview) -> bytes:
        """The plaintext in these octets of the other end, in one piece. Raises TLSError.

        Look at `outgoing`, `secured` and `ended` after each call.
        """
        if self.ended or self._failed or not ciphertext:
            return b""
        size = len(ciphertext)
        if size > SLICE:
            return self._feed_slices(memoryview(ciphertext))
        if bio_write(self._into_ssl, memory_of(ciphertext), size) <= 0:
            raise MemoryError
        if self.secured is None and not self._shake():
            return b""
        ssl = self._ssl
        filled = 0
        while (count := ssl_read(ssl, _room + filled, RECORD)) > 0:
            filled += count
            if not bio_data(self._into_ssl, nowhere):
                # No octet is left, and `ssl_read` takes a whole record: another call would say WANT_READ.
                whole: bytes = octets_of(_room, filled)[:]
                return whole
            if filled > ROOM - RECORD:
                raise AssertionError("more plaintext than ciphertext")
        plaintext: bytes = octets_of(_room, filled)[:] if filled else b""
        why = ssl_error(ssl, count)
        if why == ZERO_RETURN:
            self.ended = True
        elif why != WANT_READ:
            raise self._failure(count, plaintext)
        return plaintext

    def _feed_slices(self, ciphertext: memoryview) -> bytes:
        plaintext: list[bytes] = []
        try:
            for start in range(0, len(ciphertext), SLICE):
                plaintext.append(self.feed(ciphertext[start : start + SLICE]))
        except TLSError as error:
            error.plaintext = b"".join([*plaintext, error.plaintext])
            raise
        return b"".join(plaintext)

    def outgoing(self) -> bytes:
        """What OpenSSL has to say by itself: handshake, tickets, alerts.

        The answer to a KeyUpdate is not among it; `encrypt` returns that.
        """
        if self.holds_tickets and not self._failed and self.secured is not None and self.secured.version == "TLSv1.3":
            return b""
        return self._spoken() if bio_data(self._from_ssl, nowhere) else b""

    def _spoken(self) -> bytes:
        said = b""
        while (count := bio_read(self._from_ssl, _room, ROOM)) > 0:
            said += octets_of(_room, count)[:]
            if count < ROOM:
                break
        return said

    def encrypt(self, plaintext: bytes | memoryview) -> bytes:
        """The ciphertext to send for this. Call it only after the handshake and before `close_notify`.

        What OpenSSL has to say by itself goes before it, also the answer to a KeyUpdate (RFC 8446 4.6.3).
        """
        size = len(plaintext)
        if size > PIECE:
            view = memoryview(plaintext)
            return b"".join([self.encrypt(view[at : at + PIECE]) for at in range(0, size, PIECE)])
        if not size:
            return b""
        count = ssl_write(self._ssl, memory_of(plaintext), size)
        if count != size:
            raise self._failure(count)
        count = bio_read(self._from_ssl, _room, ROOM)
        wire: bytes = octets_of(_room, count)[:]
        return wire if count < ROOM else wire + self._spoken()

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
