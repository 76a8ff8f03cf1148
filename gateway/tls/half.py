"""The TLS half of a leg: ciphertext in, plaintext out, and what must be said; no socket, no clock."""

from __future__ import annotations

import re
from typing import Any, Final

from OpenSSL import SSL
from OpenSSL._util import ffi as _ffi
from OpenSSL._util import lib as _lib

from gateway.negotiation.vocabulary import Secured

from .clients import presented, refusal

RECORD: Final = 16384
"""Most plaintext octets that a TLS record carries (RFC 8446 5.1)."""

SLICE: Final = 16384
"""Ciphertext octets handed to OpenSSL at once: a memory BIO never gives back what it once held, and there
may be ten thousand of them."""

PIECE: Final = 2 * RECORD
"""Plaintext octets encrypted at once, for the same reason; half as many calls as with one record."""

ROOM: Final = 4 * RECORD
"""Octets that OpenSSL may write at a time: what one piece becomes; or one slice, the record that began before it, and
room for another."""

# pyOpenSSL's methods around these cost as much again: a buffer for each call, an exception for each end.  Without them
# a short round trip takes 15 % less CPU, and so does a transfer.  The names are private, and have not changed in ten
# years.
_read, _write, _fetch, _put = _lib.SSL_read, _lib.SSL_write, _lib.BIO_read, _lib.BIO_write
_why, _MORE, _END = _lib.SSL_get_error, _lib.SSL_ERROR_WANT_READ, _lib.SSL_ERROR_ZERO_RETURN
_octets, _from = _ffi.buffer, _ffi.from_buffer
_room: Any = _ffi.new("char[]", ROOM)
"""Where OpenSSL writes, for everybody: nothing is in it when a call is over."""

_ALERT: Final = re.compile(r"(?:ssl/tls|tls|sslv3|tlsv1|tlsv13) alert (.+)")


class TLSError(Exception):
    """TLS cannot go on; `outgoing` holds the alert for the other end.

    `reason` is a short text for the log, in OpenSSL's words or `alert: NAME` where the other end refused.
    `plaintext` is what the same octets held before they went wrong.
    """

    def __init__(self, reason: str, plaintext: bytes = b"") -> None:
        super().__init__(reason)
        self.reason = reason
        self.plaintext = plaintext


class TLSHalf:
    """One end of a TLS connection in memory.

    `connection` was made without a socket and knows already whether it accepts or connects; it writes all or nothing
    (no SSL_MODE_ENABLE_PARTIAL_WRITE).
    """

    __slots__ = ("_connection", "_failed", "_from_ssl", "_into_ssl", "_ssl", "ended", "secured")

    def __init__(self, connection: SSL.Connection) -> None:
        self.secured: Secured | None = None
        """What was agreed on, once the handshake is done."""
        self.ended = False
        """The other end said close_notify: nothing after it is input."""
        self._connection: Any = connection
        self._ssl = self._connection._ssl
        self._into_ssl = self._connection._into_ssl
        self._from_ssl = self._connection._from_ssl
        self._failed = False

    def start(self) -> None:
        """Say the ClientHello; an accepting end has nothing to say yet, and starting it changes nothing."""
        try:
            self._shake()
        except SSL.Error as error:
            raise self._broken(error, []) from None

    def feed(self, ciphertext: bytes) -> bytes:
        """The plaintext in these octets of the other end, in one piece; raises TLSError.

        Look at `outgoing`, `secured` and `ended` after every call.
        """
        plaintext: list[bytes] = []
        try:
            if len(ciphertext) <= SLICE:
                self._take(ciphertext, plaintext)
            else:
                view = memoryview(ciphertext)
                for start in range(0, len(view), SLICE):
                    self._take(view[start : start + SLICE], plaintext)
        except SSL.Error as error:
            raise self._broken(error, plaintext) from None
        return plaintext[0] if len(plaintext) == 1 else b"".join(plaintext)

    def outgoing(self) -> bytes:
        """What OpenSSL wants to say by itself: handshake, tickets, alerts; it answers a KeyUpdate in `encrypt`."""
        said = b""
        while (count := _fetch(self._from_ssl, _room, ROOM)) > 0:
            said += _octets(_room, count)[:]
            if count < ROOM:
                break
        return said

    def encrypt(self, plaintext: bytes) -> bytes:
        """The ciphertext to send for this; only after the handshake and before `close_notify`.

        What OpenSSL had to say by itself goes before it, a KeyUpdate that was asked for too (RFC 8446 4.6.3).
        """
        try:
            if len(plaintext) <= PIECE:
                return self._encrypt(plaintext)
            view = memoryview(plaintext)
            return b"".join([self._encrypt(view[at : at + PIECE]) for at in range(0, len(view), PIECE)])
        except SSL.Error as error:
            raise self._broken(error, []) from None

    def close_notify(self) -> bytes:
        """The ciphertext of an orderly end (RFC 8446 6.1); nothing can be encrypted behind it.

        Empty where there is nothing to end: before the handshake is done, after a failure.
        """
        if self.secured is None or self._failed:
            return b""
        try:
            self._connection.shutdown()
        except SSL.Error:
            # A half that OpenSSL has given up has nobody to say goodbye to.
            self._failed = True
        return self.outgoing()

    def _take(self, octets: bytes | memoryview, plaintext: list[bytes]) -> None:
        if self.ended or self._failed or not octets:
            return
        if _put(self._into_ssl, _from(octets), len(octets)) <= 0:
            raise MemoryError
        if self.secured is None and not self._shake():
            return
        ssl = self._ssl
        filled = 0
        while (count := _read(ssl, _room + filled, RECORD)) > 0:
            filled += count
            if filled > ROOM - RECORD:
                raise AssertionError("more plaintext than ciphertext")
        if filled:
            plaintext.append(_octets(_room, filled)[:])
        why = _why(ssl, count)
        if why == _END:
            self.ended = True
        elif why != _MORE:
            self._connection._raise_ssl_error(ssl, count)

    def _shake(self) -> bool:
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        connection = self._connection
        name = connection.get_servername()
        self.secured = Secured(
            version=connection.get_protocol_version_name(),
            cipher=connection.get_cipher_name() or "unknown",
            bits=connection.get_cipher_bits() or 0,
            group=connection.get_group_name(),
            sni=None if name is None else name.decode("ascii", "backslashreplace"),
            alpn=connection.get_alpn_proto_negotiated().decode("ascii", "backslashreplace") or None,
            certificate=presented(connection),
        )
        return True

    def _encrypt(self, plaintext: bytes | memoryview) -> bytes:
        if not plaintext:
            return b""
        count = _write(self._ssl, _from(plaintext), len(plaintext))
        if count != len(plaintext):
            self._connection._raise_ssl_error(self._ssl, count)
            raise AssertionError("a context with SSL_MODE_ENABLE_PARTIAL_WRITE")
        return self.outgoing()

    def _broken(self, error: SSL.Error, plaintext: list[bytes]) -> TLSError:
        self._failed = True
        return TLSError(refusal(self._connection) or _reason(error), b"".join(plaintext))


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
