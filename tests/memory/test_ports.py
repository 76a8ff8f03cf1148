"""New addresses beside those of the program before, or of the file before: no client is lost that waits."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from gateway.app.ports import Handed, Port, bind_beside
from gateway.config.values import SystemdAddress, TCPAddress
from gateway.wire.listener import BindError, bind
from gateway.wire.spread import Spread, spread


def listening(stack: ExitStack, workers: int) -> Spread:
    ((sock, text),) = bind(TCPAddress("127.0.0.1", 0))
    made = spread(sock, text, workers, by_client=True)
    stack.callback(made.close)
    return made


def port_of(one: Spread) -> int:
    return int(one.sockets[0].getsockname()[1])


@pytest.mark.parametrize("workers", [1, 3])
def test_who_waits_at_an_address_is_served_where_it_is_written_in_another_way(workers: int) -> None:
    with ExitStack() as stack:
        old = listening(stack, workers)
        client = stack.enter_context(socket.create_connection(("127.0.0.1", port_of(old))))
        handed = Handed({old.text: [[old]]})
        there, bound = bind_beside(TCPAddress("localhost", port_of(old)), handed.rivals(TCPAddress(None, port_of(old))))
        for sock, text in bound:  # ::1, where the machine has it
            assert text.startswith("[")
            sock.close()
        (new,) = there
        stack.callback(new.close)
        handed.close()
        heard = []
        for sock in new.sockets:
            sock.settimeout(0)
            try:
                heard.append(stack.enter_context(sock.accept()[0]).getpeername())
            except BlockingIOError:
                continue
        assert heard == [client.getsockname()]


def test_a_socket_of_systemd_is_nobodys_rival() -> None:
    """It stays systemd's: the next start would find it in the way."""
    with ExitStack() as stack:
        old = listening(stack, 1)
        wanted = TCPAddress("127.0.0.1", port_of(old))
        assert Port(wanted, [old]).is_rival(wanted)
        assert not Port(SystemdAddress("mail"), [old]).is_rival(wanted)
        assert not Port(wanted, [old]).is_rival(TCPAddress("127.0.0.1", 0))
        assert Handed({"systemd:mail": [[old]]}).rivals(wanted) == []
        with pytest.raises(BindError, match="EADDRINUSE"):
            bind_beside(wanted, [])
