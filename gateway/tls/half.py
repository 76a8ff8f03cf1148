"""The TLS half of a leg: ciphertext in, plaintext out, and what must be said; no socket, no clock."""

from __future__ import annotations

import re
from typing import Final

from OpenSSL import SSL

from gateway.negotiation.vocabulary import Secured

from .clients import presented, refusal

RECORD: Final = 16384
"""Most plaintext octets that a TLS record carries (RFC 8446 5.1)."""

LONGEST_BODY: Final = RECORD + 256
"""Most octets behind a record's header (RFC 8446 5.2); TLS 1.2 would allow 2048, which OpenSSL refuses too."""

HEADER: Final = 5
"""A record's type, version and length (RFC 8446 5.1)."""

SLICE: Final = 16384
"""Ciphertext octets handed to OpenSSL at once: a memory BIO never gives back what it once held, and there
may be ten thousand of them."""

PIECE: Final = 2 * RECORD
"""Plaintext octets encrypted at once, for the same reason; half as many calls as with one record."""

PIECE_ENCRYPTED: Final = PIECE + 1024
"""Room for the records that one piece becomes: 22 octets each in TLS 1.3, 29 in TLS 1.2, and a KeyUpdate."""

UNCOUNTED: Final = 1 << 30
"""As many records as OpenSSL will find: while nothing says how many there are."""

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

    `connection` was made without a socket and knows already whether it accepts or connects.
    """

    __slots__ = ("_body", "_connection", "_failed", "_head", "_talkative", "ended", "secured")

    def __init__(self, connection: SSL.Connection) -> None:
        self.secured: Secured | None = None
        """What was agreed on, once the handshake is done."""
        self.ended = False
        """The other end said close_notify: nothing after it is input."""
        self._connection = connection
        self._failed = False
        self._talkative = False
        """OpenSSL may have something to say by itself."""
        self._head = b""
        """The beginning of a record's header that the network cut."""
        self._body = 0
        """Octets missing of the record that has begun."""

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
        if not self._talkative:
            return b""
        self._talkative = False
        said: list[bytes] = []
        try:
            while True:
                said.append(self._connection.bio_read(SLICE))
        except SSL.WantReadError:
            return b"".join(said)

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
        self._talkative = True
        return self.outgoing()

    def _take(self, octets: bytes | memoryview, plaintext: list[bytes]) -> None:
        if self.ended or self._failed or not octets:
            return
        self._connection.bio_write(octets)
        records = self._records(octets)
        if self.secured is None:
            if not self._shake():
                return
            # Records behind the handshake's last one may have come with it.
            records = UNCOUNTED
        read = self._connection.recv
        try:
            # Exactly as often as there is something: a WantReadError costs more than a short line does.
            for _ in range(records):
                plaintext.append(read(RECORD))
        except SSL.WantReadError:
            # A record was not application data but a ticket, a warning, a renegotiation: there may be an answer.
            self._talkative = True
        except SSL.ZeroReturnError:
            self.ended = True
            self._talkative = True

    def _shake(self) -> bool:
        self._talkative = True
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

    def _records(self, octets: bytes | memoryview) -> int:
        """How many records these octets complete (RFC 8446 5.1); UNCOUNTED if they are no records at all."""
        if self._head:
            octets = self._head + bytes(octets)
            self._head = b""
        position, end = self._body, len(octets)
        count = 1 if 0 < position <= end else 0
        while position + HEADER <= end:
            kind = octets[position]
            body = octets[position + 3] << 8 | octets[position + 4]
            if not 20 <= kind <= 23 or body > LONGEST_BODY:
                # Let OpenSSL say what is wrong, and now: not after octets that may never come.
                return UNCOUNTED
            position += HEADER + body
            if position <= end:
                count += 1
        if position < end:
            self._head = bytes(octets[position:])
            self._body = 0
        else:
            self._body = position - end
        return count

    def _encrypt(self, plaintext: bytes | memoryview) -> bytes:
        if not plaintext:
            return b""
        self._connection.sendall(plaintext)
        ciphertext = self._connection.bio_read(PIECE_ENCRYPTED)
        if len(ciphertext) < PIECE_ENCRYPTED:
            self._talkative = False
            return ciphertext
        self._talkative = True
        return ciphertext + self.outgoing()

    def _broken(self, error: SSL.Error, plaintext: list[bytes]) -> TLSError:
        self._failed = True
        self._talkative = True
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
