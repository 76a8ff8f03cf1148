"""A backend that plays what a test tells it and remembers every octet that it heard."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

from tests.process.running import DEADLINE
from tests.process.wire import RESET_ON_CLOSE


class Connection:
    """One connection as the backend sees it."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.heard = b""
        """All that the gateway said, until `keep` is false."""
        self.keep = True
        self.octets = 0
        self.ending = ""
        """How it stopped talking: `fin` or `reset`."""
        self.ended = threading.Event()
        self.resetting = False
        self._unread = b""
        self._heard_more = threading.Condition()

    def say(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def line(self) -> bytes:
        """The next line, without its end; nothing at the end of the connection."""
        while b"\n" not in self._unread:
            more = self.receive()
            if not more:
                return b""
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return line.removesuffix(b"\r")

    def until(self, end: bytes) -> bytes:
        """Octets up to and with `end`; fewer if the connection ends."""
        while end not in self._unread:
            more = self.receive()
            if not more:
                break
            self._unread += more
        head, found, self._unread = self._unread.partition(end)
        return head + found

    def take(self, octets: int) -> bytes:
        """So many; fewer if the connection ends."""
        while len(self._unread) < octets:
            more = self.receive()
            if not more:
                break
            self._unread += more
        taken, self._unread = self._unread[:octets], self._unread[octets:]
        return taken

    def receive(self) -> bytes:
        try:
            octets = self.socket.recv(256 * 1024)
        except (ConnectionResetError, BrokenPipeError):
            self._end("reset")
            return b""
        if not octets:
            self._end("fin")
        with self._heard_more:
            self.octets += len(octets)
            if self.keep:
                self.heard += octets
            self._heard_more.notify_all()
        return octets

    def read_on(self) -> None:
        """To the end, whatever comes."""
        while self.receive():
            pass

    def reset(self) -> None:
        """Have its own thread close it, and RST be sent then; a close from here would wait for that thread's recv."""
        self.resetting = True
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.socket.shutdown(socket.SHUT_RD)

    def _end(self, how: str) -> None:
        self.ending = self.ending or how
        self.ended.set()

    # --- for the test ------------------------------------------------------------------------

    def wait_for(self, octets: bytes, deadline: float = DEADLINE) -> None:
        with self._heard_more:
            assert self._heard_more.wait_for(lambda: octets in self.heard, deadline), self.heard

    def wait_until_ended(self, deadline: float = DEADLINE) -> str:
        assert self.ended.wait(deadline), f"the connection to the backend is still open; it heard {self.heard!r}"
        return self.ending


Script = Callable[[Connection], None]


class Backend:
    """Listens on loopback; plays `script`, which a test may change, on every connection."""

    def __init__(self, script: Script | None = None) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.script = script or silent
        self.connections: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._open: set[Connection] = set()
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def address(self) -> str:
        host, port = self._socket.getsockname()
        return f"{host}:{port}"

    def connection(self, deadline: float = DEADLINE) -> Connection:
        """The next one that the gateway made."""
        try:
            return self.connections.get(timeout=deadline)
        except queue.Empty:
            raise AssertionError("the gateway did not connect to the backend") from None

    def play(self, script: Script) -> None:
        """From now on; connections that earlier tests left are forgotten."""
        with suppress(queue.Empty):
            while True:
                self.connections.get_nowait()
        self.script = script

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
        self._accepting.join(DEADLINE)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            sock.settimeout(60)
            connection = Connection(sock)
            self._open.add(connection)
            self.connections.put(connection)
            threading.Thread(target=self._play, args=(self.script, connection), daemon=True).start()

    def _play(self, script: Script, connection: Connection) -> None:
        try:
            script(connection)
            if not connection.resetting:
                # Who has played his part says no more, but listens to the end.
                connection.socket.shutdown(socket.SHUT_WR)
                connection.read_on()
        except ConnectionError:
            connection._end("reset")
        except OSError:
            pass
        finally:
            connection._end("fin")
            connection.socket.close()
            self._open.discard(connection)


def silent(connection: Connection) -> None:
    """Accepts and never says a word."""
    connection.read_on()


def greet(octets: bytes) -> Script:
    """Says this and no more."""

    def script(connection: Connection) -> None:
        connection.say(octets)
        connection.read_on()

    return script


# --- three small servers that know no more than tests need ------------------------------------

EHLO = (
    b"250-legacy.example.test\r\n250-PIPELINING\r\n250-SIZE 0\r\n250-STARTTLS\r\n250-AUTH PLAIN LOGIN EXTERNAL\r\n"
    b"250-XCLIENT NAME ADDR\r\n250-8BITMIME\r\n250 CHUNKING\r\n"
)
CAPABILITY = b"IMAP4rev1 SASL-IR LITERAL+ ID IDLE STARTTLS AUTH=PLAIN AUTH=EXTERNAL"
CAPA = b"+OK\r\nTOP\r\nUIDL\r\nSTLS\r\nUSER\r\nSASL PLAIN EXTERNAL\r\n.\r\n"

Answers = Mapping[bytes, bytes | Script]


def _lines(connection: Connection, answer: Callable[[bytes], bytes]) -> None:
    while line := connection.line():
        reply = answer(line)
        if reply:
            connection.say(reply)


def smtp(answers: Answers | None = None) -> Script:
    """Commands by verb; `answers` are other ones, a script instead of octets takes the connection over."""
    known: dict[bytes, bytes | Script] = {
        b"EHLO": EHLO,
        b"HELO": b"250 legacy.example.test\r\n",
        b"MAIL": b"250 2.1.0 Ok\r\n",
        b"RCPT": b"250 2.1.5 Ok\r\n",
        b"RSET": b"250 2.0.0 Ok\r\n",
        b"NOOP": b"250 2.0.0 Ok, backend's\r\n",
        b"AUTH": b"235 2.7.0 Ok\r\n",
        **(answers or {}),
    }

    def script(connection: Connection) -> None:
        connection.say(b"220 legacy.example.test ESMTP\r\n")
        while line := connection.line():
            verb = line.split(b" ")[0].upper()
            match known.get(verb):
                case bytes(octets):
                    connection.say(octets)
                case None if verb == b"DATA":
                    connection.say(b"354 Go ahead\r\n")
                    if connection.until(b"\r\n.\r\n").endswith(b"\r\n.\r\n"):
                        connection.say(b"250 2.0.0 Ok: queued\r\n")
                case None if verb == b"QUIT":
                    connection.say(b"221 2.0.0 Bye\r\n")
                    return
                case None:
                    connection.say(b"502 5.5.2 Command not recognized\r\n")
                case another:
                    another(connection)
                    return

    return script


def imap(answers: Answers | None = None) -> Script:
    known = dict(answers or {})

    def script(connection: Connection) -> None:
        connection.say(b"* OK [CAPABILITY %s] legacy ready\r\n" % CAPABILITY)
        while line := connection.line():
            tag, _, rest = line.partition(b" ")
            verb = rest.split(b" ")[0].upper()
            match known.get(verb):
                case bytes(octets):
                    connection.say(octets.replace(b"TAG", tag))
                case None if verb == b"CAPABILITY":
                    connection.say(b"* CAPABILITY %s\r\n%s OK done\r\n" % (CAPABILITY, tag))
                case None if verb == b"LOGOUT":
                    connection.say(b"* BYE legacy\r\n%s OK bye\r\n" % tag)
                    return
                case None if verb in {b"LOGIN", b"NOOP", b"SELECT", b"STARTTLS", b"AUTHENTICATE"}:
                    connection.say(b"%s OK %s by the backend\r\n" % (tag, verb))
                case None:
                    connection.say(b"%s BAD unknown\r\n" % tag)
                case another:
                    another(connection)
                    return

    return script


def pop3(answers: Answers | None = None) -> Script:
    known: dict[bytes, bytes | Script] = {b"CAPA": CAPA, **(answers or {})}

    def script(connection: Connection) -> None:
        connection.say(b"+OK legacy ready <1896.697170952@legacy.example.test>\r\n")
        while line := connection.line():
            verb = line.split(b" ")[0].upper()
            match known.get(verb):
                case bytes(octets):
                    connection.say(octets)
                case None if verb == b"QUIT":
                    connection.say(b"+OK bye\r\n")
                    return
                case None if verb in {b"USER", b"PASS", b"NOOP", b"DELE", b"STAT", b"STLS", b"AUTH"}:
                    connection.say(b"+OK %s by the backend\r\n" % verb)
                case None:
                    connection.say(b"-ERR unknown\r\n")
                case another:
                    another(connection)
                    return

    return script


SERVERS: Mapping[str, Callable[[Answers | None], Script]] = {"smtp": smtp, "imap": imap, "pop3": pop3}
