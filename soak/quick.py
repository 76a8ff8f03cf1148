"""Servers that hold thousands of connections in one loop; `python -m soak.quick` prints their ports.

Whoever measures the gateway in front of them measures the gateway.  Any login will do; what a message or a literal
says is read and forgotten.
"""

from __future__ import annotations

import re
import resource
import selectors
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

_LITERAL = re.compile(rb"\{(\d+)(\+?)\}\Z")
_END_OF_DATA = b"\r\n.\r\n"


@dataclass
class Peer:
    """One connection, and where it is."""

    socket: socket.socket
    protocol: str
    unread: bytes = b""
    literal: int = 0
    """Octets of one that are still to come."""
    begun: bytes = b""
    """A command whose literals are coming."""
    data: bool = False
    """A message is coming."""

    def hear(self, octets: bytes) -> tuple[bytes, bool]:
        """What to say, and whether that was all."""
        said = b""
        self.unread += octets
        while True:
            if self.literal:
                swallowed = min(self.literal, len(self.unread))
                self.literal -= swallowed
                self.unread = self.unread[swallowed:]
            if self.data:
                end = self.unread.find(_END_OF_DATA)
                if end < 0:
                    self.unread = self.unread[-4:]
                    return said, False
                self.unread = self.unread[end + len(_END_OF_DATA) :]
                self.data = False
                said += b"250 2.0.0 taken\r\n"
            line, feed, rest = self.unread.partition(b"\r\n")
            if not feed:
                return said, False
            self.unread = rest
            reply, over = ANSWERS[self.protocol](self, line)
            said += reply
            if over:
                return said, True


def smtp(peer: Peer, line: bytes) -> tuple[bytes, bool]:
    match line.split(b" ")[0].upper():
        case b"EHLO":
            return b"250-quick\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n", False
        case b"AUTH":
            return b"235 2.7.0 ok\r\n", False
        case b"DATA":
            # The end of an empty message begins with the end of this line.
            peer.data, peer.unread = True, b"\r\n" + peer.unread
            return b"354 go\r\n", False
        case b"QUIT":
            return b"221 2.0.0 bye\r\n", True
    return b"250 2.0.0 ok\r\n", False


def imap(peer: Peer, line: bytes) -> tuple[bytes, bool]:
    if literal := _LITERAL.search(line):
        peer.begun = peer.begun or line
        peer.literal = int(literal[1])
        return b"" if literal[2] else b"+ go\r\n", False
    command, peer.begun = peer.begun or line, b""
    tag, _, rest = command.partition(b" ")
    match rest.split(b" ")[0].upper():
        case b"CAPABILITY":
            return b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n%s OK done\r\n" % tag, False
        case b"LOGOUT":
            return b"* BYE bye\r\n%s OK bye\r\n" % tag, True
    return b"%s OK done\r\n" % tag, False


def pop3(peer: Peer, line: bytes) -> tuple[bytes, bool]:
    match line.split(b" ")[0].upper():
        case b"CAPA":
            return b"+OK\r\nUSER\r\n.\r\n", False
        case b"QUIT":
            return b"+OK bye\r\n", True
    return b"+OK\r\n", False


ANSWERS: Mapping[str, Callable[[Peer, bytes], tuple[bytes, bool]]] = {"smtp": smtp, "imap": imap, "pop3": pop3}
GREETINGS: Mapping[str, bytes] = {
    "smtp": b"220 quick ESMTP\r\n",
    "imap": b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] quick\r\n",
    "pop3": b"+OK quick\r\n",
}


class Loop:
    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def listen(self, protocol: str) -> int:
        listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, protocol)
        port: int = listener.getsockname()[1]
        return port

    def run(self) -> None:
        """Until whoever started it closes its standard input."""
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                match key.data:
                    case Peer() as peer:
                        self._serve(peer)
                    case str() as protocol:
                        assert isinstance(key.fileobj, socket.socket)
                        self._accept(key.fileobj, protocol)
                    case _:
                        return

    def _accept(self, listener: socket.socket, protocol: str) -> None:
        with suppress(BlockingIOError):
            while True:
                sock, _ = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._selector.register(sock, selectors.EVENT_READ, Peer(sock, protocol))
                with suppress(OSError):
                    sock.send(GREETINGS[protocol])

    def _serve(self, peer: Peer) -> None:
        try:
            octets = peer.socket.recv(65536)
            said, over = peer.hear(octets) if octets else (b"", True)
            if said:
                peer.socket.send(said)
        except BlockingIOError:
            return
        except OSError:
            over = True
        if over:
            self._selector.unregister(peer.socket)
            peer.socket.close()


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    loop = Loop()
    print(*[loop.listen(protocol) for protocol in ANSWERS], flush=True)
    loop.run()


if __name__ == "__main__":
    main()
