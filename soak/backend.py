"""Three servers in one process that check what they get; `python -m soak.backend CERTIFICATE` prints their ports.

They answer with digests, so that a client knows what arrived.  A user or sender whose name begins with `fault-`
makes them fail as it says: `fault-reset`, `fault-close`, `fault-stall`, `fault-garbage`.
"""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

STALL = 3.0
"""Seconds for which a stalling backend says nothing, before it goes."""
PATTERN = b"".join(b"%06d: the quick brown fox jumps over the lazy dog, 0123456789\r\n" % n for n in range(1000))
EHLO = b"250-soak\r\n250-PIPELINING\r\n250-AUTH PLAIN\r\n250-8BITMIME\r\n250-CHUNKING\r\n250 SIZE 0\r\n"
_RESET = struct.pack("ii", 1, 0)


def mail(octets: int) -> bytes:
    """A mail of this size; it never ends with half a line end, which the gateway would mend."""
    whole = (PATTERN * (octets // len(PATTERN) + 1))[:octets]
    return whole[:-1] + b"." if whole.endswith(b"\r") else whole


class Gone(Exception):
    """The connection is over."""


class Peer:
    """One connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._unread = b""

    def say(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def until(self, end: bytes) -> bytes:
        start = 0
        while (at := self._unread.find(end, start)) < 0:
            start = max(0, len(self._unread) - len(end))
            self._more()
        octets, self._unread = self._unread[: at + len(end)], self._unread[at + len(end) :]
        return octets

    def line(self) -> bytes:
        return self.until(b"\n").rstrip(b"\r\n")

    def take(self, octets: int) -> bytes:
        while len(self._unread) < octets:
            self._more()
        taken, self._unread = self._unread[:octets], self._unread[octets:]
        return taken

    def rest(self) -> bytes:
        """What has come and was not read yet."""
        octets, self._unread = self._unread, b""
        return octets

    def fail(self, name: bytes) -> None:
        """As the name says; not at all for most."""
        match re.search(rb"fault-(\w+)", name):
            case None:
                return
            case found if found[1] == b"reset":
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            case found if found[1] == b"stall":
                time.sleep(STALL)
            case found if found[1] == b"garbage":
                self.say(b"SSH-2.0-what\r\n" * 5)
        raise Gone

    def _more(self) -> None:
        octets = self.socket.recv(1 << 16)
        if not octets:
            raise Gone
        self._unread += octets


def digest(octets: bytes) -> bytes:
    return hashlib.sha256(octets).hexdigest().encode()


def without_trace(message: bytes) -> bytes:
    """Without the first Received field, which the gateway adds."""
    assert message.startswith(b"Received: "), message[:100]
    return re.sub(rb"\AReceived: [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*", b"", message)


def smtp(peer: Peer) -> None:
    peer.say(b"220 soak ESMTP\r\n")
    chunks = b""
    while True:
        line = peer.line()
        verb, _, rest = line.partition(b" ")
        match verb.upper():
            case b"EHLO":
                peer.say(EHLO)
            case b"AUTH":
                peer.say(b"235 2.7.0 ok\r\n")
            case b"MAIL":
                peer.fail(rest)
                chunks = b""
                peer.say(b"250 2.1.0 ok\r\n")
            case b"RCPT" if b"nobody@" in rest:
                peer.say(b"550 5.1.1 nobody\r\n")
            case b"DATA":
                peer.say(b"354 go\r\n")
                data = peer.until(b"\r\n.\r\n")[:-3]
                peer.say(b"250 2.0.0 %s\r\n" % digest(without_trace(data)))
            case b"BDAT":
                size, _, last = rest.partition(b" ")
                chunks += peer.take(int(size))
                peer.say(b"250 2.0.0 %s\r\n" % (digest(without_trace(chunks)) if last else b"more"))
                chunks = b"" if last else chunks
            case b"QUIT":
                peer.say(b"221 2.0.0 bye\r\n")
                return
            case b"RCPT" | b"RSET" | b"NOOP":
                peer.say(b"250 2.0.0 ok\r\n")
            case _:
                peer.say(b"500 5.5.2 what\r\n")


def imap(peer: Peer) -> None:
    peer.say(b"* OK [CAPABILITY IMAP4rev1 LITERAL+ AUTH=PLAIN IDLE] soak\r\n")
    while True:
        line = peer.line()
        while found := re.search(rb"\{(\d+)(\+?)\}\Z", line):
            if not found[2]:
                peer.say(b"+ go\r\n")
            literal = peer.take(int(found[1]))
            line = line[: found.start()] + digest(literal) + peer.line()
        tag, verb, *rest = line.split(b" ")
        match verb.upper():
            case b"LOGIN":
                peer.say(b"%s OK in\r\n" % tag)
            case b"SELECT":
                peer.fail(rest[0])
                peer.say(b"* 1 EXISTS\r\n%s OK [READ-WRITE] done\r\n" % tag)
            case b"FETCH":
                size = int(rest[0])
                peer.say(b"* 1 FETCH (BODY[] {%d}\r\n" % size)
                peer.say(mail(size) + b")\r\n%s OK done\r\n" % tag)
            case b"APPEND":
                peer.say(b"%s OK %s\r\n" % (tag, rest[-1]))
            case b"IDLE":
                peer.say(b"+ idling\r\n* 2 EXISTS\r\n")
                peer.line()
                peer.say(b"%s OK idled\r\n" % tag)
            case b"CAPABILITY":
                peer.say(b"* CAPABILITY IMAP4rev1 LITERAL+ AUTH=PLAIN IDLE\r\n%s OK done\r\n" % tag)
            case b"LOGOUT":
                peer.say(b"* BYE bye\r\n%s OK bye\r\n" % tag)
                return
            case b"NOOP":
                peer.say(b"%s OK done\r\n" % tag)
            case _:
                peer.say(b"%s BAD what\r\n" % tag)


def pop3(peer: Peer) -> None:
    peer.say(b"+OK soak\r\n")
    while True:
        verb, _, rest = peer.line().partition(b" ")
        match verb.upper():
            case b"CAPA":
                peer.say(b"+OK\r\nUSER\r\nTOP\r\nUIDL\r\n.\r\n")
            case b"PASS" | b"USER" | b"STAT" | b"NOOP" | b"DELE":
                peer.fail(rest if verb == b"DELE" else b"")
                peer.say(b"+OK\r\n")
            case b"RETR":
                peer.say(b"+OK\r\n" + mail(int(rest)) + b"\r\n.\r\n")
            case b"QUIT":
                peer.say(b"+OK bye\r\n")
                return
            case _:
                peer.say(b"-ERR what\r\n")


Script = Callable[[Peer], None]


def serve(script: Script, context: ssl.SSLContext | None = None) -> int:
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)

    def accept() -> None:
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=play, args=(sock,), daemon=True).start()

    def play(sock: socket.socket) -> None:
        with suppress(Gone, OSError), sock:
            sock.settimeout(120)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                sock = context.wrap_socket(sock, server_side=True)
            with sock:
                script(Peer(sock))
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(4096):
                    pass

    threading.Thread(target=accept, daemon=True).start()
    port: int = listener.getsockname()[1]
    return port


def main() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])
    ports = [serve(smtp), serve(imap), serve(pop3), serve(imap, context)]
    print(*ports, flush=True)
    sys.stdin.read()  # until whoever started it is gone


if __name__ == "__main__":
    main()
