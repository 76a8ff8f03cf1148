"""The plaintext server behind all of them: IMAP, SMTP, POP3, FTP and nginx's question who may log in, in one loop.

Any login will do.  Message N of any mailbox has N octets; what is appended or mailed is read and forgotten.
It is a process of its own and is not measured.  On standard output it tells its ports, as JSON.
"""

from __future__ import annotations

import json
import re
import select
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

PIECE = 256 * 1024
_FILLER = memoryview((b"x" * 70 + b"\r\n") * (PIECE // 72))
_SINK = bytearray(PIECE)
_LITERAL = re.compile(rb"\{(\d+)(\+?)\}\Z")
_END_OF_DATA = b"\r\n.\r\n"


class Connection:
    """One of them; a subclass is a protocol."""

    greeting = b""

    def __init__(self, sock: socket.socket, poll: select.epoll) -> None:
        self.sock = sock
        self._poll = poll
        self._inbox = b""
        self._unsent = b""
        self._filler = 0
        """Octets of a message still to be sent before `_unsent`."""
        self._leaving = False
        if self.greeting:
            sock.send(self.greeting)

    def readable(self) -> bool:
        """Take what has come; False at the end."""
        octets = self.sock.recv(PIECE)
        if not octets:
            return False
        self.hear(octets)
        return not self._leaving or bool(self._filler or self._unsent)

    def hear(self, octets: bytes) -> None:
        self._inbox += octets
        while True:
            line, feed, rest = self._inbox.partition(b"\r\n")
            if not feed:
                return
            self._inbox = rest
            self.line(line)

    def line(self, line: bytes) -> None:
        raise NotImplementedError

    def say(self, octets: bytes, filler: int = 0, tail: bytes = b"", leave: bool = False) -> None:
        """Replies are short and clients wait for them: a socket has room for one."""
        self._leaving = leave
        self.sock.send(octets)
        if filler:
            self._filler, self._unsent = filler, tail
            self.writable()

    def writable(self) -> bool:
        try:
            while self._filler:
                self._filler -= self.sock.send(_FILLER[: self._filler])
            while self._unsent:
                self._unsent = self._unsent[self.sock.send(self._unsent) :]
        except BlockingIOError:
            self._poll.modify(self.sock, select.EPOLLIN | select.EPOLLOUT)
            return True
        self._poll.modify(self.sock, select.EPOLLIN)
        return not self._leaving


class IMAP(Connection):
    greeting = b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] old\r\n"

    def __init__(self, sock: socket.socket, poll: select.epoll) -> None:
        super().__init__(sock, poll)
        self._swallow = 0
        self._begun = b""
        """A command whose literals are still coming, without what they say."""

    def readable(self) -> bool:
        if self._swallow <= PIECE:
            return super().readable()
        count = self.sock.recv_into(_SINK)
        self._swallow -= count
        return count > 0

    def hear(self, octets: bytes) -> None:
        if self._swallow:
            swallowed = min(self._swallow, len(octets))
            self._swallow -= swallowed
            octets = octets[swallowed:]
        if octets:
            super().hear(octets)

    def line(self, line: bytes) -> None:
        if literal := _LITERAL.search(line):
            # nginx sends the user's name and password so, and APPEND its message.
            self._begun = self._begun or line
            self._swallow = int(literal[1])
            if not literal[2]:
                self.sock.send(b"+ go on\r\n")
            held, self._inbox = self._inbox, b""
            self.hear(held)
            return
        command, self._begun = self._begun or line, b""
        tag, _, rest = command.partition(b" ")
        words = rest.upper().split(b" ")
        match words[0]:
            case b"CAPABILITY":
                self.say(b"* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN\r\n" + tag + b" OK done\r\n")
            case b"FETCH":
                octets = int(words[1])
                head = b"* %d FETCH (BODY[] {%d}\r\n" % (octets, octets)
                self.say(head, octets, b")\r\n" + tag + b" OK done\r\n")
            case b"LOGOUT":
                self.say(b"* BYE bye\r\n" + tag + b" OK done\r\n", leave=True)
            case b"LOGIN" | b"AUTHENTICATE":
                self.say(tag + b" OK [CAPABILITY IMAP4rev1] logged in\r\n")
            case _:
                self.say(tag + b" OK done\r\n")


class SMTP(Connection):
    greeting = b"220 old ESMTP\r\n"

    def __init__(self, sock: socket.socket, poll: select.epoll) -> None:
        super().__init__(sock, poll)
        self._data = False
        self._tail = b""

    def hear(self, octets: bytes) -> None:
        if not self._data:
            super().hear(octets)
            return
        self._tail = (self._tail + octets[-5:])[-5:]
        if self._tail == _END_OF_DATA:
            self._data = False
            self.say(b"250 2.0.0 queued\r\n")

    def line(self, line: bytes) -> None:
        match line[:4].upper():
            case b"EHLO":
                self.say(b"250-old\r\n250-PIPELINING\r\n250-SIZE 100000000\r\n250-8BITMIME\r\n250 AUTH PLAIN\r\n")
            case b"AUTH":
                self.say(b"235 2.7.0 welcome\r\n")
            case b"DATA":
                self._data, self._tail = True, b"\r\n"
                self.say(b"354 go on\r\n")
            case b"QUIT":
                self.say(b"221 2.0.0 bye\r\n", leave=True)
            case _:
                self.say(b"250 2.0.0 fine\r\n")


class POP3(Connection):
    greeting = b"+OK old\r\n"

    def line(self, line: bytes) -> None:
        match line[:4].upper():
            case b"CAPA":
                self.say(b"+OK\r\nUSER\r\n.\r\n")
            case b"QUIT":
                self.say(b"+OK bye\r\n", leave=True)
            case _:
                self.say(b"+OK\r\n")


class FTP(Connection):
    """File N has N octets.  Whoever logs in is asked nothing further.  A thread serves each data connection."""

    greeting = b"220 old\r\n"
    _data: socket.socket | None = None

    def line(self, line: bytes) -> None:
        verb, _, argument = line.upper().partition(b" ")
        match verb:
            case b"USER":
                self.say(b"331 go on\r\n")
            case b"PASS":
                self.say(b"230 logged in\r\n")
            case b"EPSV":
                self._data = socket.create_server(("127.0.0.1", 0))
                self.say(b"229 Entering Extended Passive Mode (|||%d|)\r\n" % self._data.getsockname()[1])
            case b"RETR" | b"STOR" if self._data is not None:
                arguments = (self._data, int(argument) if verb == b"RETR" else 0)
                threading.Thread(target=self._transfer, args=arguments, daemon=True).start()
            case b"QUIT":
                self.say(b"221 bye\r\n", leave=True)
            case _:
                self.say(b"200 fine\r\n")

    def _transfer(self, listener: socket.socket, octets: int) -> None:
        with listener:
            data, _ = listener.accept()
        with data:
            self.sock.send(b"150 here it comes\r\n")
            if octets:
                while octets:
                    octets -= data.send(_FILLER[:octets])
            else:
                while data.recv_into(_SINK):
                    pass
        self.sock.send(b"226 done\r\n")


class Permission(Connection):
    """nginx asks by HTTP where a user's server is."""

    ports: dict[bytes, int]

    def hear(self, octets: bytes) -> None:
        self._inbox += octets
        if b"\r\n\r\n" in self._inbox:
            port = self.ports[b"smtp" if b"Auth-Protocol: smtp" in self._inbox else b"imap"]
            self.say(
                b"HTTP/1.0 200 OK\r\nAuth-Status: OK\r\nAuth-Server: 127.0.0.1\r\nAuth-Port: %d\r\n\r\n" % port,
                leave=True,
            )

    def line(self, line: bytes) -> None:
        raise AssertionError("HTTP is read as a whole")


Protocol = Callable[[socket.socket, select.epoll], Connection]


def serve(listeners: Mapping[int, tuple[socket.socket, Protocol]]) -> None:
    """Until somebody ends the process."""
    poll = select.epoll()
    for number in listeners:
        poll.register(number, select.EPOLLIN)
    connections: dict[int, Connection] = {}
    while True:
        for number, events in poll.poll():
            if number in listeners:
                listener, protocol = listeners[number]
                with suppress(BlockingIOError):
                    while True:
                        sock, _ = listener.accept()
                        sock.setblocking(False)
                        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        try:
                            connections[sock.fileno()] = protocol(sock, poll)
                        except OSError:
                            sock.close()
                            continue
                        poll.register(sock, select.EPOLLIN)
                continue
            connection = connections[number]
            try:
                stays = not events & select.EPOLLOUT or connection.writable()
                if stays and events & ~select.EPOLLOUT:
                    stays = connection.readable()
            except BlockingIOError:
                stays = True
            except OSError:
                stays = False
            if not stays:
                del connections[number]
                connection.sock.close()


def main() -> None:
    listeners: dict[int, tuple[socket.socket, Protocol]] = {}
    ports: dict[str, int] = {}
    protocols: dict[str, Protocol] = {"imap": IMAP, "smtp": SMTP, "pop3": POP3, "ftp": FTP, "permission": Permission}
    for name, protocol in protocols.items():
        listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        listener.setblocking(False)
        listeners[listener.fileno()] = (listener, protocol)
        ports[name] = listener.getsockname()[1]
    Permission.ports = {name.encode(): port for name, port in ports.items()}
    print(json.dumps(ports), flush=True)
    serve(listeners)


if __name__ == "__main__":
    main()
