"""Which worker's socket gets a connection: by the client's address, by the kernel's choice, or from a shared one."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from gateway.config.values import Address, TCPAddress, UnixAddress
from gateway.wire import spread as module
from gateway.wire.listener import BindError, bind
from gateway.wire.spread import Spread, spread

CLIENTS = [f"127.0.{net}.{host}" for net in range(3) for host in range(1, 21)]


@pytest.fixture
def open_until_the_end() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listening(stack: ExitStack, address: Address, workers: int, by_client: bool = True) -> Spread:
    ((sock, text),) = bind(address)
    made = spread(sock, text, workers, by_client=by_client)
    stack.callback(made.close)
    return made


def connect(stack: ExitStack, made: Spread, source: str) -> None:
    target = made.sockets[0].getsockname()
    client = stack.enter_context(closing(socket.socket(made.sockets[0].family)))
    client.bind((source, 0))
    client.connect(target)


def takers(sockets: Sequence[socket.socket]) -> list[int]:
    """The numbers of the sockets that have a connection, which is taken and closed."""
    found = []
    for number, sock in enumerate(sockets):
        while True:
            try:
                sock.accept()[0].close()
            except BlockingIOError:
                break
            found.append(number)
    return found


def chosen(address: str, workers: int) -> int:
    """What the program computes, for an IPv4 address."""
    (number,) = struct.unpack("!I", socket.inet_aton(address))
    return int((number * 2654435761 & 0xFFFFFFFF) >> 16) % workers


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_a_client_always_meets_the_same_worker(open_until_the_end: ExitStack, workers: int) -> None:
    made = listening(open_until_the_end, TCPAddress("127.0.0.1", 0), workers)
    assert len(made.sockets) == workers
    met = set()
    for client in CLIENTS * 2:
        connect(open_until_the_end, made, client)
        taken = takers(made.sockets)
        assert taken == [chosen(client, workers)]
        met.update(taken)
    assert met == set(range(workers))


def test_an_ipv6_client_always_meets_the_same_worker(open_until_the_end: ExitStack) -> None:
    made = listening(open_until_the_end, TCPAddress("::1", 0), 3)
    met = set()
    for _ in range(20):
        connect(open_until_the_end, made, "::1")
        met.update(takers(made.sockets))
    assert len(met) == 1


def test_how_connections_are_spread_can_change(open_until_the_end: ExitStack) -> None:
    made = listening(open_until_the_end, TCPAddress("127.0.0.1", 0), 2)
    for by_client, workers in ((False, 2), (False, 2), (True, 1), (True, 1), (False, 2)):
        made.steer(by_client=by_client)
        for _ in range(64):
            connect(open_until_the_end, made, "127.0.0.1")
        assert len(set(takers(made.sockets))) == workers
    # One socket that all workers share has nothing to steer.
    listening(open_until_the_end, TCPAddress("127.0.0.1", 0), 1).steer(by_client=True)


def test_connections_of_one_address_meet_all_workers_where_that_is_wanted(open_until_the_end: ExitStack) -> None:
    made = listening(open_until_the_end, TCPAddress("127.0.0.1", 0), 2, by_client=False)
    for _ in range(64):
        connect(open_until_the_end, made, "127.0.0.1")
    taken = takers(made.sockets)
    assert len(taken) == 64
    assert set(taken) == {0, 1}  # all at one: once in 2**63


def test_a_unix_socket_is_shared(open_until_the_end: ExitStack, tmp_path: Path) -> None:
    made = listening(open_until_the_end, UnixAddress(str(tmp_path / "s")), 4)
    assert len(made.sockets) == 1
    assert {made.of(worker, 4) for worker in range(4)} == {made.sockets}


def test_one_worker_needs_no_group(open_until_the_end: ExitStack) -> None:
    made = listening(open_until_the_end, TCPAddress("127.0.0.1", 0), 1)
    assert not made.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def test_where_the_kernel_has_no_such_groups_the_socket_is_shared(
    open_until_the_end: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "freebsd14")
    assert len(listening(open_until_the_end, TCPAddress("127.0.0.1", 0), 4).sockets) == 1


def test_a_second_gateway_cannot_take_the_address_of_a_group(open_until_the_end: ExitStack) -> None:
    made = listening(open_until_the_end, TCPAddress("127.0.0.1", 0), 2)
    port = made.sockets[0].getsockname()[1]
    with pytest.raises(BindError, match="another server listens there"):
        bind(TCPAddress("127.0.0.1", port))


def test_ipv4_and_ipv6_of_one_port_stay_apart(open_until_the_end: ExitStack) -> None:
    for sock, text in bind(TCPAddress(None, 0)):
        made = spread(sock, text, 2, by_client=True)
        open_until_the_end.callback(made.close)
        if sock.family == socket.AF_INET6:
            assert all(one.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) for one in made.sockets)


@pytest.mark.parametrize(("sockets", "workers"), [(1, 3), (3, 3), (2, 5), (5, 2), (4, 1)])
def test_each_socket_has_a_worker_and_each_worker_a_socket(
    open_until_the_end: ExitStack, sockets: int, workers: int
) -> None:
    group = tuple(open_until_the_end.enter_context(closing(socket.socket())) for _ in range(sockets))
    made = Spread("x", group)
    theirs = [made.of(worker, workers) for worker in range(workers)]
    assert all(theirs)
    assert {sock for own in theirs for sock in own} == set(group)


def test_what_cannot_be_made_leaves_nothing_open(
    open_until_the_end: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[socket.socket] = []
    another = module._another

    def failing(first: socket.socket) -> socket.socket:
        if made:
            raise OSError(24, "Too many open files")
        made.append(another(first))
        return made[0]

    monkeypatch.setattr(module, "_another", failing)
    ((sock, text),) = bind(TCPAddress("127.0.0.1", 0))
    open_until_the_end.callback(sock.close)
    with pytest.raises(OSError, match="Too many"):
        spread(sock, text, 3, by_client=True)
    assert made[0].fileno() == -1
    assert sock.fileno() != -1
