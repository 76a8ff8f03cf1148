"""One FTP session through the gateway, both ends of which a test plays: the client, and the server behind."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.process.recording import Backend, Connection
from tests.process.running import CANARY, DEADLINE, Gateway
from tests.process.wire import Client


class Stage:
    """The server: its connections do nothing by themselves."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self.backend = Backend(lambda connection: (self._over.wait(), None)[1])

    def close(self) -> None:
        self._over.set()
        self.backend.close()
        self.backend.join()


@contextmanager
def stage() -> Iterator[Stage]:
    found = Stage()
    try:
        yield found
    finally:
        found.close()


class Talk:
    """One session that is logged in, with its control connection inside TLS if that is wanted."""

    def __init__(
        self,
        gateway: Gateway,
        stage: Stage,
        trusting: ssl.SSLContext,
        service: str = "ftp",
        *,
        secure: bool = True,
        client: Client | None = None,
    ) -> None:
        """`client`: whoever is connected already."""
        self.gateway = gateway
        self.trusting = trusting
        self.ends = ExitStack()
        """Whatever is opened in it is closed with it."""
        self.client = client or Client(gateway.address(service))
        self.ends.callback(self.client.socket.close)
        self.server: Connection = stage.backend.connection()
        self.server.say(b"220 ready\r\n")
        assert self.client.line() == b"220 ready\r\n"
        if secure:
            self.client.say(b"AUTH TLS\r\n")
            assert self.client.line() == b"234 Proceed with negotiation\r\n"
            self.client.shake_hands(trusting)
        self.ask(b"USER grete", b"331 password")
        self.ask(b"PASS " + CANARY.encode("ascii"), b"230 in")
        if secure:
            self.own(b"PROT P", b"200 Protection set to P")

    def close(self) -> None:
        self.ends.close()

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, said: bytes, answer: bytes) -> None:
        """A command that goes through, and its answer."""
        self.client.say(said + b"\r\n")
        assert self.server.line() == said
        self.reply(answer)

    def reply(self, answer: bytes) -> None:
        self.server.say(answer + b"\r\n")
        assert self.client.line() == answer + b"\r\n"

    def own(self, said: bytes, answer: bytes) -> None:
        """A command that the gateway answers."""
        self.client.say(said + b"\r\n")
        assert self.client.line() == answer + b"\r\n"

    def passive(self, announced: bytes = b"227 ok (10,9,8,7,%d,%d)") -> Passive:
        """PASV: the server listens, and the client is told a port."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.ends.callback(listening.close)
        listening.settimeout(DEADLINE)
        port = listening.getsockname()[1]
        self.client.say(b"PASV\r\n")
        assert self.server.line() == b"PASV"
        self.server.say(announced % divmod(port, 256) + b"\r\n")
        told = re.fullmatch(rb"227 [^(]*\(127,0,0,1,(\d+),(\d+)\)\r\n", self.client.line())
        assert told, "no port was told"
        return Passive(self, listening, ("127.0.0.1", int(told[1]) * 256 + int(told[2])))

    def begin(self, command: bytes) -> None:
        """A transfer, up to the server's go-ahead."""
        self.ask(command, b"150 go")


class Passive:
    """A data connection in passive mode."""

    def __init__(self, talk: Talk, listening: socket.socket, address: tuple[str, int]) -> None:
        self._talk = talk
        self.listening = listening
        self.address = address
        """Where the client is listened for."""

    def connect(self, *, secure: bool = True) -> tuple[Client, socket.socket]:
        """The client's end and the server's."""
        client = Client(self.address)
        self._talk.ends.callback(client.socket.close)
        server = self.accepted()
        if secure:
            client.shake_hands(self._talk.trusting)
        return client, server

    def accepted(self) -> socket.socket:
        """The server's end, when somebody has connected."""
        server, _ = self.listening.accept()
        self._talk.ends.callback(server.close)
        server.settimeout(DEADLINE)
        return server

    def nobody(self) -> None:
        """Nobody has connected to the server."""
        self.listening.settimeout(0)
        with pytest.raises(BlockingIOError):
            self.listening.accept()
        self.listening.settimeout(DEADLINE)

    def refused(self) -> None:
        """The gateway does not listen there any more.  Somebody else may: the port is free."""
        assert self.address[1] not in self._talk.gateway.ports


def received(sock: socket.socket) -> tuple[bytes, str]:
    """All that comes, and how it ends."""
    heard = b""
    while True:
        try:
            octets = sock.recv(65536)
        except ConnectionResetError:
            return heard, "reset"
        if not octets:
            return heard, "fin"
        heard += octets
