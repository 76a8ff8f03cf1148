"""A client that says exactly these octets and hears exactly those, in the clear and under TLS."""

from __future__ import annotations

import errno
import itertools
import re
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from types import TracebackType

from tests.process.running import CANARY, DEADLINE

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
CUT = (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)
"""What connect, send and shutdown say behind an RST."""


class Ending(Enum):
    """How the other side stopped talking."""

    FIN = "fin"
    CLOSE_NOTIFY = "close_notify"
    RESET = "reset"


class Client:
    """One connection.  Whatever takes longer than `patience` seconds raises TimeoutError.

    The other side may cut it at any time, also before `connect` has returned.  Whoever speaks is not told of that:
    what came before the cut can still be heard, and then comes the end, a RESET.
    """

    source = ""
    """The address that it comes from, if that matters."""

    def __init__(self, address: tuple[str, int], patience: float = DEADLINE, receive_buffer: int = 0) -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        self.patience = patience
        self.ending: Ending | None = None
        self.cut = False
        """Something failed because of RST; `recv` reports only an error that nothing else has reported."""
        try:
            if self.source:
                self.socket.bind((self.source, 0))
            if receive_buffer:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.socket.settimeout(patience)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._unless_cut():
                self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        self.unheard = b""
        """Octets that have come and were not asked for yet."""
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.socket.close()

    # --- speaking ----------------------------------------------------------------------------

    def say(self, octets: bytes) -> None:
        if self._tls is None:
            self._send(octets)
        else:
            self._tls.write(octets)
            self._flush()

    def say_in_the_clear(self, octets: bytes) -> None:
        """Underneath TLS, if there is any."""
        self._send(octets)

    def encrypted(self, octets: bytes) -> bytes:
        """What would go out for this; it has to go out before anything else does."""
        assert self._tls is not None
        self._tls.write(octets)
        return self._outgoing.read()

    def shake_hands(self, context: ssl.SSLContext, name: str = "mail.example.test", after: bytes = b"") -> None:
        """TLS from here on; `after` are octets in the clear that go into the write of the ClientHello."""
        assert self._tls is None
        assert after or not self.unheard, f"plaintext before TLS: {self.unheard!r}"
        self._tls = tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        prefix = after
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                if octets := prefix + self._outgoing.read():
                    self._send(octets)
                if prefix:
                    # The answer to them comes in the clear, and nothing else does.
                    prefix = b""
                    self.unheard += self._clear_line()
                if not self._feed():
                    raise ssl.SSLEOFError(f"the other side ended the handshake: {self.ending}") from None
            except ssl.SSLError:
                self._flush()
                raise
        self._flush()

    @property
    def tls(self) -> ssl.SSLObject:
        assert self._tls is not None
        return self._tls

    def finish(self) -> None:
        """No more octets: a bare FIN, even under TLS."""
        with self._unless_cut():
            self.socket.shutdown(socket.SHUT_WR)

    def close_notify(self) -> None:
        with suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self._flush()

    def reset(self) -> None:
        """Gone at once, with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.socket.close()

    # --- hearing -----------------------------------------------------------------------------

    def hear(self, pattern: bytes) -> bytes:
        """Everything up to the end of the first match; fails if the other side ends before it."""
        expression = re.compile(pattern, re.DOTALL | re.MULTILINE)
        until = time.monotonic() + self.patience
        while (match := expression.search(self.unheard)) is None:
            assert time.monotonic() < until, f"no {pattern!r} in {self.unheard[-2000:]!r}"
            try:
                more = self.receive()
            except TimeoutError:
                raise AssertionError(f"no {pattern!r} in {self.unheard[-2000:]!r}") from None
            assert more, f"no {pattern!r} before the end ({self.ending}) of {self.unheard[-2000:]!r}"
            self.unheard += more
        heard, self.unheard = self.unheard[: match.end()], self.unheard[match.end() :]
        return heard

    def line(self) -> bytes:
        return self.hear(rb"\n")

    def rest(self) -> bytes:
        """Everything up to the end, which sets `ending`; then there is nobody any more to talk to."""
        heard = [self.unheard]
        while more := self.receive():
            heard.append(more)
        self.unheard = b""
        self.socket.close()
        return b"".join(heard)

    def receive(self) -> bytes:
        """Some octets; none at the end."""
        if self._tls is None:
            return self._receive_raw()
        while True:
            try:
                if octets := self._tls.read(256 * 1024):
                    return octets
                self.ending = self.ending or Ending.CLOSE_NOTIFY
                return b""
            except ssl.SSLZeroReturnError:
                self.ending = Ending.CLOSE_NOTIFY
                return b""
            except ssl.SSLWantReadError:
                self._flush()
                if not self._feed():
                    return b""

    def _feed(self) -> bool:
        octets = self._receive_raw()
        self._incoming.write(octets)
        return bool(octets)

    def _receive_raw(self) -> bytes:
        if self.ending is not None:
            return b""
        try:
            octets = self.socket.recv(256 * 1024)
        except (ConnectionResetError, BrokenPipeError):
            self.ending = Ending.RESET
            return b""
        if not octets:
            self.ending = Ending.RESET if self.cut else Ending.FIN
        return octets

    def _clear_line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            octet = self.socket.recv(1)
            assert octet, f"the end came after {line!r}"
            line += octet
        return line

    def _flush(self) -> None:
        if octets := self._outgoing.read():
            self._send(octets)

    def _send(self, octets: bytes) -> None:
        with self._unless_cut():
            self.socket.sendall(octets)

    @contextmanager
    def _unless_cut(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in CUT:
                raise
            self.cut = True


# --- clients of real servers ----------------------------------------------------------------------------


class Caller(Client):
    """A client that comes from an address of its own, one of 127.0.0.0/8."""

    def __init__(self, source: str, address: tuple[str, int]) -> None:
        self.source = source
        super().__init__(address)


_sources = itertools.count(1)


def source() -> str:
    """An address that no other client of these tests has: what a log says of it is about this one."""
    number = next(_sources)
    return f"127.7.{number >> 8}.{number & 255}"


_MAIL = b"Subject: through the gateway\r\n\r\n.. is what a dot looks like\r\n"


def visit(client: Client, protocol: str, recipient: str = "grete@example.test") -> None:
    """Be greeted, do what one does there (read mail as `grete`, or send one), and leave."""
    match protocol:
        case "smtp":
            client.hear(rb"^220 (legacy|gw)\.example\.test ESMTP[^\n]*\n")
            client.say(b"EHLO client.example.test\r\n")
            capabilities = client.hear(rb"^250 [^\n]*\n")
            assert b"XCLIENT" not in capabilities, capabilities
            for command in (b"MAIL FROM:<hans@example.org>", b"RCPT TO:<%s>" % recipient.encode("ascii")):
                client.say(command + b"\r\n")
                client.hear(rb"^250 [^\n]*\n")
            client.say(b"DATA\r\n")
            client.hear(rb"^354 [^\n]*\n")
            client.say(_MAIL + b".\r\n")
            client.hear(rb"^250 [^\n]*\n")
            client.say(b"QUIT\r\n")
        case "imap":
            client.hear(rb"^\* OK [^\n]*\n")
            client.say(b"a LOGIN grete %s\r\n" % CANARY.encode("ascii"))
            client.hear(rb"^a OK [^\n]*\n")
            client.say(b"b LOGOUT\r\n")
        case "pop3":
            assert b"XCLIENT" not in client.hear(rb"^\+OK[^\n]*\n")
            for command in (b"USER grete", b"PASS %s" % CANARY.encode("ascii"), b"QUIT"):
                client.say(command + b"\r\n")
                client.hear(rb"^\+OK[^\n]*\n")
    client.rest()
