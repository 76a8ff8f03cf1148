"""The client that all of them are measured with: many sessions at once in one thread, or one in a hurry.

A conversation is a generator that yields what its socket is to be ready for.  Every client has an
address of its own in 127.0.0.0/8, as on the Internet, so that limits per client do not count.
"""

from __future__ import annotations

import base64
import itertools
import select
import socket
import ssl
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

Talk = Generator[int, None, None]

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
DEADLINE = 20.0
"""Seconds that a conversation may take."""
_BIND_ADDRESS_NO_PORT = 24
_ADDRESSES = itertools.cycle([f"127.{1 + i // 64}.{i % 64}.{j}" for i in range(256) for j in range(1, 255)])
_LOGIN = b"user", b"password"
_PLAIN = base64.b64encode(b"\0" + b"\0".join(_LOGIN))


class Broken(Exception):
    """The other end did not say what it should."""


def context(certificate: Path) -> ssl.SSLContext:
    """TLS 1.3 at its defaults; trusts the one certificate there is."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.load_verify_locations(str(certificate))
    return made


class Conversation:
    """One connection, from connect to close."""

    def __init__(self, port: int, tls: ssl.SSLContext, resume: ssl.SSLSession | None = None) -> None:
        self._tls = tls
        self._resume = resume
        self._heard = b""
        self.secured: ssl.SSLSocket | None = None
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
            self.sock.bind((next(_ADDRESSES), 0))
            self.sock.connect_ex(("127.0.0.1", port))
        except BaseException:
            self.sock.close()
            raise

    def close(self) -> None:
        (self.secured or self.sock).close()

    def handshake(self) -> Talk:
        secured = self._tls.wrap_socket(
            self.sock, server_hostname="localhost", do_handshake_on_connect=False, session=self._resume
        )
        self.secured = self.sock = secured
        while True:
            try:
                secured.do_handshake()
                return
            except ssl.SSLWantReadError:
                yield READ
            except ssl.SSLWantWriteError:
                yield WRITE

    def say(self, octets: bytes) -> Talk:
        rest = memoryview(octets)
        while rest:
            try:
                rest = rest[self.sock.send(rest) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                yield WRITE
            except ssl.SSLWantReadError:
                yield READ

    def hear(self, wanted: bytes) -> Talk:
        """A whole reply, whose last line begins like this."""
        while True:
            heard = self._heard
            if heard.endswith(b"\r\n"):
                last = heard[heard.rfind(b"\r\n", 0, -2) + 1 :].lstrip(b"\n")
                if last.startswith(wanted):
                    self._heard = b""
                    return
                if not last.startswith(b"* ") and last[3:4] != b"-":
                    raise Broken(f"{last[:80]!r} instead of {wanted!r}")
            try:
                octets = self.sock.recv(65536)
            except (BlockingIOError, ssl.SSLWantReadError):
                yield READ
                continue
            if not octets:
                raise Broken(f"closed instead of {wanted!r}")
            self._heard += octets

    def ask(self, command: bytes, wanted: bytes) -> Talk:
        yield from self.say(command)
        yield from self.hear(wanted)

    def hear_end(self) -> Talk:
        while True:
            try:
                if not self.sock.recv(65536):
                    return
            except (BlockingIOError, ssl.SSLWantReadError):
                yield READ
            except OSError:
                return  # some reset; the conversation was complete


# --- what is said -----------------------------------------------------------------------------------


def shake(one: Conversation) -> Talk:
    """A TLS handshake and nothing more."""
    yield WRITE
    yield from one.handshake()


def imap_login(one: Conversation, starttls: bool) -> Talk:
    """Up to a session that is logged in."""
    yield WRITE
    if starttls:
        yield from one.hear(b"* OK")
        yield from one.ask(b"a STARTTLS\r\n", b"a OK")
        yield from one.handshake()
    else:
        yield from one.handshake()
        yield from one.hear(b"* OK")
    yield from one.ask(b"b LOGIN %s %s\r\n" % _LOGIN, b"b OK")


def imap(one: Conversation, starttls: bool) -> Talk:
    """Login, one command, logout."""
    yield from imap_login(one, starttls)
    yield from one.ask(b"c NOOP\r\n", b"c OK")
    yield from one.ask(b"d LOGOUT\r\n", b"d OK")
    yield from one.hear_end()


def smtp(one: Conversation, message: bytes, times: int) -> Talk:
    """A submission of that many messages."""
    yield WRITE
    yield from one.hear(b"220 ")
    yield from one.ask(b"EHLO client.example.test\r\n", b"250 ")
    yield from one.ask(b"STARTTLS\r\n", b"220 ")
    yield from one.handshake()
    yield from one.ask(b"EHLO client.example.test\r\n", b"250 ")
    yield from one.ask(b"AUTH PLAIN %s\r\n" % _PLAIN, b"235 ")
    for _ in range(times):
        yield from one.ask(b"MAIL FROM:<a@example.test>\r\n", b"250 ")
        yield from one.ask(b"RCPT TO:<b@example.test>\r\n", b"250 ")
        yield from one.ask(b"DATA\r\n", b"354 ")
        yield from one.ask(message, b"250 ")
    yield from one.ask(b"QUIT\r\n", b"221 ")
    yield from one.hear_end()


def message(octets: int) -> bytes:
    """A mail of this size, with the dot that ends it."""
    head = b"From: <a@example.test>\r\nTo: <b@example.test>\r\nSubject: a mail\r\n\r\n"
    line = b"The quick brown fox jumps over the lazy dog, and does it over and over.\r\n"
    body = head + line * (octets // len(line) + 1)
    return body[: octets - 2].rstrip(b"\r\n") + b"\r\n.\r\n"


# --- many at once ---------------------------------------------------------------------------------------

Begin = Callable[[], tuple[Conversation, Talk]]


@dataclass
class Outcome:
    finished: int = 0
    resumed: int = 0
    seconds: float = 0.0
    """Wall time from the first connect to the last end."""
    session: ssl.SSLSession | None = None
    """To be resumed."""


def converse(
    begin: Begin, at_once: int, go_on: Callable[[int], bool], keep: list[Conversation] | None = None
) -> Outcome:
    """As many conversations, `at_once` at a time, as `go_on`, which gets how many were begun, wants.

    With `keep` they are left open and put there.
    """
    poll = select.epoll()
    under_way: dict[int, tuple[Conversation, Talk, int]] = {}
    outcome = Outcome()
    begun = 0
    started = time.perf_counter()
    heard_of = started
    try:
        while True:
            while len(under_way) < at_once and go_on(begun):
                conversation, talk = begin()
                begun += 1
                number = conversation.sock.fileno()
                under_way[number] = (conversation, talk, WRITE)
                poll.register(number, WRITE)
                next(talk)
            if not under_way:
                break
            ready = poll.poll(1.0)
            now = time.perf_counter()
            if ready:
                heard_of = now
            elif now - heard_of > DEADLINE:
                raise Broken(f"nothing heard for {DEADLINE:.0f} s with {outcome.finished} of {begun} done")
            for number, _ in ready:
                conversation, talk, mask = under_way[number]
                try:
                    wanted = next(talk)
                except StopIteration:
                    del under_way[number]
                    poll.unregister(number)
                    _note(outcome, conversation)
                    if keep is None:
                        conversation.close()
                    else:
                        keep.append(conversation)
                    continue
                if wanted != mask:
                    under_way[number] = (conversation, talk, wanted)
                    poll.modify(number, wanted)
    except OSError as error:
        raise Broken(f"{type(error).__name__}: {error}") from None
    finally:
        poll.close()
        for conversation, _, _ in under_way.values():
            conversation.close()
    outcome.seconds = time.perf_counter() - started
    return outcome


def _note(outcome: Outcome, conversation: Conversation) -> None:
    outcome.finished += 1
    secured = conversation.secured
    assert secured is not None
    outcome.resumed += bool(secured.session_reused)
    outcome.session = outcome.session or secured.session


# --- one in a hurry -----------------------------------------------------------------------------------


def logged_in(port: int, tls: ssl.SSLContext) -> ssl.SSLSocket:
    """A blocking socket."""
    opened: list[Conversation] = []

    def begin() -> tuple[Conversation, Talk]:
        one = Conversation(port, tls)
        return one, imap_login(one, starttls=False)

    converse(begin, 1, lambda begun: begun < 1, keep=opened)
    secured = opened[0].secured
    assert secured is not None
    secured.settimeout(DEADLINE)
    return secured


def cipher(port: int, tls: ssl.SSLContext) -> str:
    """What this server agrees on with us."""
    with logged_in(port, tls) as sock:
        return (sock.cipher() or ("no cipher",))[0]


def download(sock: ssl.SSLSocket, octets: int) -> None:
    sock.sendall(b"e FETCH %d BODY[]\r\n" % octets)
    buffer = bytearray(65536)
    count, tail = 0, b""
    # The literal, its announcement before it, and the tagged line behind it.
    while count < octets or not tail.endswith(b"e OK done\r\n"):
        got = sock.recv_into(buffer)
        if not got:
            raise Broken(f"closed after {count} octets")
        count += got
        tail = (tail + buffer[max(0, got - 32) : got])[-32:]


def upload(sock: ssl.SSLSocket, octets: int) -> None:
    sock.sendall(b"f APPEND INBOX {%d}\r\n" % octets)
    _answer(sock, b"+ go on\r\n")
    piece = memoryview(bytes(65536))
    left = octets
    while left:
        left -= sock.send(piece[:left])
    sock.sendall(b"\r\n")
    _answer(sock, b"f OK done\r\n")


def round_trips(sock: ssl.SSLSocket, until: float) -> Iterator[float]:
    """Seconds that each short line took, there and back."""
    clock = time.perf_counter
    now = clock()
    while now < until:
        round_trip(sock)
        after = clock()
        yield after - now
        now = after


def round_trip(sock: ssl.SSLSocket) -> None:
    """A short line, and its short reply."""
    sock.sendall(b"g NOOP\r\n")
    _answer(sock, b"g OK done\r\n")


def _answer(sock: ssl.SSLSocket, wanted: bytes) -> None:
    heard = sock.recv(4096)
    while heard != wanted:
        # Some send a line in two records.
        if not wanted.startswith(heard):
            raise Broken(f"{heard[:80]!r} instead of {wanted!r}")
        more = sock.recv(4096)
        if not more:
            raise Broken(f"closed instead of {wanted!r}")
        heard += more
