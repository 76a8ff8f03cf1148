"""A client that is cut before it looks: what the tests' own client makes of it."""

from __future__ import annotations

import gc
import os
import select
import socket
import ssl
from typing import Any

import pytest

from tests.process.running import DEADLINE
from tests.process.wire import RESET_ON_CLOSE, Client, Ending


def cut(server: socket.socket, client: socket.socket) -> None:
    """The server says a word and resets the connection; back when the RST has come."""
    near, _ = server.accept()
    with near:
        near.sendall(b"busy\r\n")
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    hangup = select.poll()
    hangup.register(client, select.POLLHUP)
    assert hangup.poll(DEADLINE * 1000)


@pytest.mark.parametrize("moment", ["in connect", "before it speaks", "before it ends", "before it listens"])
def test_whoever_is_cut_hears_what_came_before_and_a_reset(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        if moment == "in connect":
            connect = socket.socket.connect

            def late(self: socket.socket, address: Any) -> None:
                connect(self, address)
                cut(server, self)
                # As the kernel tells it to a connect that waited.
                error = self.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                raise OSError(error, os.strerror(error))

            monkeypatch.setattr(socket.socket, "connect", late)
        with Client(server.getsockname()) as client:
            if moment != "in connect":
                cut(server, client.socket)
            if moment == "before it speaks":
                client.say(b"hello\r\n")
                client.say(b"hello?\r\n")
            if moment == "before it ends":
                client.finish()
            assert client.rest() == b"busy\r\n"
            assert client.ending is Ending.RESET


def test_a_handshake_that_is_cut_fails_as_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, Client(server.getsockname()) as client:
        cut(server, client.socket)
        with pytest.raises(ssl.SSLError):
            client.shake_hands(ssl.create_default_context())


def test_whoever_is_refused_is_told_and_leaves_no_socket_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = server.getsockname()
    with pytest.raises(ConnectionRefusedError):
        Client(nobody)
    gc.collect()  # an open socket would warn here
