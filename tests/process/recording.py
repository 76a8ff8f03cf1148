"""A backend that plays what a test tells it and remembers every octet that it heard."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable
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
        self.unread = b""
        self._heard_more = threading.Condition()

    def say(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def line(self) -> bytes:
        """The next line, without its end; nothing at the end of the connection."""
        while b"\n" not in self.unread:
            more = self.receive()
            if not more:
                return b""
            self.unread += more
        line, _, self.unread = self.unread.partition(b"\n")
        return line.removesuffix(b"\r")

    def until(self, end: bytes) -> bytes:
        """Octets up to and with `end`; fewer if the connection ends."""
        while end not in self.unread:
            more = self.receive()
            if not more:
                break
            self.unread += more
        head, found, self.unread = self.unread.partition(end)
        return head + found

    def take(self, octets: int) -> bytes:
        """So many; fewer if the connection ends."""
        while len(self.unread) < octets:
            more = self.receive()
            if not more:
                break
            self.unread += more
        taken, self.unread = self.unread[:octets], self.unread[octets:]
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
        self._players: list[threading.Thread] = []
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

    def join(self) -> None:
        """Behind `close`, for scripts that end: all sockets are closed then."""
        for player in self._players:
            player.join(DEADLINE)

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
            player = threading.Thread(target=self._play, args=(self.script, connection), daemon=True)
            self._players = [other for other in self._players if other.is_alive()]
            self._players.append(player)
            player.start()

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
