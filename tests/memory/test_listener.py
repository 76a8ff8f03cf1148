"""Listening sockets: what they accept, what they survive, and what they say when they cannot be had."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from gateway.config.values import Address, SystemdAddress, TCPAddress, UnixAddress
from gateway.wire import listener as module
from gateway.wire.listener import ACCEPTS, PAUSE, BindError, Listener, bind
from tests.memory.stepping import SteppedReactor, is_prepared

ANY = TCPAddress("127.0.0.1", 0)


class Refusing:
    """A listening socket whose `accept` fails as often as it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.failures: list[int] = []
        self.asked = 0

    def accept(self) -> tuple[socket.socket, Any]:
        self.asked += 1
        if self.failures:
            number = self.failures.pop(0)
            raise OSError(number, os.strerror(number))
        return self._sock.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class Door:
    """A listener, who came in through it, and what it complained of."""

    def __init__(self, reactor: SteppedReactor) -> None:
        ((sock, _text),) = bind(ANY)
        self.reactor = reactor
        self.address = sock.getsockname()
        self.socket = Refusing(sock)
        self.guests: list[socket.socket] = []
        self.complaints: list[str] = []
        self.clients: list[socket.socket] = []
        self.listener = Listener(reactor, self.socket, self.accepted, self.complaints.append)  # type: ignore[arg-type]
        self.listener.start()

    def accepted(self, sock: socket.socket, address: Any) -> None:
        assert is_prepared(sock)
        assert address[0] == "127.0.0.1"
        self.guests.append(sock)

    def knock(self, times: int = 1) -> None:
        for _ in range(times):
            self.clients.append(socket.create_connection(self.address))

    def close(self) -> None:
        self.listener.stop()
        self.listener.stop()
        for sock in self.guests + self.clients:
            sock.close()
        assert self.reactor.readers == {}
        assert self.reactor.pending() == []


@pytest.fixture
def door(reactor: SteppedReactor) -> Iterator[Door]:
    door = Door(reactor)
    yield door
    door.close()


def test_a_listener_is_what_a_reactor_reads(door: Door) -> None:
    assert verifyObject(IReadDescriptor, door.listener)


def test_who_knocks_comes_in(door: Door, reactor: SteppedReactor) -> None:
    door.knock(3)
    reactor.step_until(lambda: len(door.guests) == 3)
    assert door.complaints == []


def test_a_turn_accepts_no_more_than_its_share(door: Door, reactor: SteppedReactor) -> None:
    door.knock(ACCEPTS + 5)
    reactor.step()
    assert len(door.guests) == ACCEPTS
    reactor.step_until(lambda: len(door.guests) == ACCEPTS + 5)


def test_a_stopped_listener_is_gone(door: Door) -> None:
    door.listener.stop()
    with pytest.raises(ConnectionRefusedError):
        door.knock()


def test_stopping_in_the_middle_of_a_burst_ends_it(door: Door) -> None:
    def once(sock: socket.socket, address: Any) -> None:
        door.guests.append(sock)
        door.listener.stop()

    door.listener._accepted = once
    door.knock(3)
    door.listener.doRead()
    assert len(door.guests) == 1


def test_connections_that_died_in_the_queue_are_passed_over(door: Door, reactor: SteppedReactor) -> None:
    door.socket.failures = [errno.ECONNABORTED, errno.EPROTO, errno.EINTR]
    door.knock()
    reactor.step_until(lambda: door.guests)
    assert door.complaints == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_without_descriptors_clients_are_closed_instead_of_left_waiting(
    door: Door, reactor: SteppedReactor, number: int
) -> None:
    door.knock(4)
    door.socket.failures = [number]
    reactor.settle()
    assert door.guests == []
    for client in door.clients:
        assert client.recv(1) == b""
    assert len(door.complaints) == 1
    assert errno.errorcode[number] in door.complaints[0]
    assert "LimitNOFILE" in door.complaints[0]


def test_the_reserve_is_there_again_for_the_next_time(door: Door, reactor: SteppedReactor) -> None:
    for _ in range(3):
        door.knock()
        door.socket.failures = [errno.EMFILE]
        reactor.settle()
        assert door.clients[-1].recv(1) == b""
        reactor.advance(PAUSE)
    assert len(door.complaints) == 1, "one time of need"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOBUFS, errno.ENOMEM])
def test_need_does_not_make_the_reactor_run_hot(door: Door, reactor: SteppedReactor, number: int) -> None:
    door.knock()
    door.socket.failures = [number] * 1000
    for _ in range(100):
        reactor.step()
    assert door.socket.asked <= 2
    assert reactor.readers == {}


def test_it_goes_on_after_the_need_and_says_so_once(door: Door, reactor: SteppedReactor) -> None:
    door.knock()
    door.socket.failures = [errno.EMFILE]
    reactor.settle()
    reactor.advance(PAUSE)
    door.knock(2)
    reactor.step_until(lambda: len(door.guests) == 2)
    assert door.complaints[1:] == ["accepting again; 1 connections were closed"]


def test_without_a_reserve_clients_wait(door: Door, reactor: SteppedReactor, monkeypatch: pytest.MonkeyPatch) -> None:
    assert door.listener._reserve is not None
    os.close(door.listener._reserve)
    door.listener._reserve = None
    door.knock()
    door.socket.failures = [errno.EMFILE]
    reactor.settle()
    assert door.guests == []
    reactor.advance(PAUSE)
    reactor.step_until(lambda: door.guests)
    assert door.listener._reserve is not None


def test_real_exhaustion_is_survived(door: Door, reactor: SteppedReactor) -> None:
    import resource

    door.knock(3)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # No number above those in use is left.
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    filler = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    try:
        while True:
            try:
                filler.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        door.listener.doRead()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in filler:
            os.close(number)
    assert door.guests == []
    assert len(door.complaints) == 1
    for client in door.clients:
        assert client.recv(1) == b""
    reactor.advance(PAUSE)
    door.knock()
    reactor.step_until(lambda: door.guests)


def test_a_bug_in_what_is_told_costs_one_connection(door: Door, reactor: SteppedReactor) -> None:
    def stumble(sock: socket.socket, address: Any) -> None:
        door.listener._accepted = door.accepted
        raise RuntimeError

    door.listener._accepted = stumble
    door.knock(2)
    reactor.step_until(lambda: door.guests)
    assert door.clients[0].recv(1) == b""


def test_a_socket_shut_down_from_outside_is_told(door: Door) -> None:
    door.reactor.removeReader(door.listener)
    door.listener.connectionLost(Failure(ConnectionLost()))  # type: ignore[no-untyped-call]
    assert "shut down" in door.complaints[0]


def test_complaints_go_to_the_log_if_nobody_wants_them() -> None:
    module.complain("nothing to complain of")


# --- binding -------------------------------------------------------------------------------------


@pytest.fixture
def opened() -> Iterator[Callable[[Address], list[tuple[socket.socket, str]]]]:
    everything: list[socket.socket] = []

    def open_(address: Address) -> list[tuple[socket.socket, str]]:
        bound = bind(address)
        everything.extend(sock for sock, _ in bound)
        return bound

    yield open_
    for sock in everything:
        sock.close()


Open = Callable[[Address], list[tuple[socket.socket, str]]]


def test_an_address_gives_a_socket_that_listens(opened: Open) -> None:
    ((sock, text),) = opened(ANY)
    assert text == f"127.0.0.1:{sock.getsockname()[1]}"
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    assert not sock.getblocking()


def test_a_name_is_resolved(opened: Open) -> None:
    bound = opened(TCPAddress("localhost", 0))
    assert {text.rpartition(":")[0] for _, text in bound} <= {"127.0.0.1", "[::1]"}


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_a_bare_port_is_all_of_ipv4_and_ipv6_on_one_number(opened: Open) -> None:
    bound = opened(TCPAddress(None, 0))
    port = bound[0][0].getsockname()[1]
    assert [text for _, text in bound] == [f"0.0.0.0:{port}", f"[::]:{port}"][: 2 if has_ipv6() else 1]
    for sock, _ in bound[1:]:
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def make(family: int = -1, *more: Any, **named: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return real(family, *more, **named)

    monkeypatch.setattr(socket, "socket", make)


def test_a_machine_without_ipv6_is_fine_for_a_bare_port(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ipv6(monkeypatch)
    assert len(opened(TCPAddress(None, 0))) == 1
    port = opened(ANY)[0][0].getsockname()[1]
    with pytest.raises(BindError, match="EADDRINUSE"):
        bind(TCPAddress(None, port))


def test_a_machine_without_ipv6_is_not_fine_for_an_ipv6_address(monkeypatch: pytest.MonkeyPatch) -> None:
    without_ipv6(monkeypatch)
    with pytest.raises(BindError, match=r"^\[::1\]:0: .*EAFNOSUPPORT"):
        bind(TCPAddress("::1", 0))


def test_a_port_that_the_other_family_has_already_is_not_taken(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module._bind_tcp
    tries: list[int] = []

    def busy(host: str, port: int, shared: bool = False) -> socket.socket:
        if host == "::":
            tries.append(port)
            if len(tries) < 3:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            return real("127.0.0.1", 0)
        return real(host, port)

    monkeypatch.setattr(module, "_bind_tcp", busy)
    assert len(opened(TCPAddress(None, 0))) == 2
    assert len(tries) == 3


def test_no_port_for_both_families_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = module._bind_tcp

    def busy(host: str, port: int, shared: bool = False) -> socket.socket:
        if host == "::":
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        return real(host, port)

    monkeypatch.setattr(module, "_bind_tcp", busy)
    with pytest.raises(BindError, match="no port is free"):
        bind(TCPAddress(None, 0))


def test_a_busy_port_says_who_and_how_to_find_out(opened: Open) -> None:
    ((_sock, text),) = opened(ANY)
    with pytest.raises(BindError) as caught:
        bind(TCPAddress("127.0.0.1", int(text.rpartition(":")[2])))
    assert str(caught.value).startswith(f"{text}: Address already in use (EADDRINUSE): another server listens there")


def test_a_foreign_address_says_that_it_is_not_ours() -> None:
    with pytest.raises(BindError, match="no interface of this machine"):
        bind(TCPAddress("192.0.2.1", 0))


def test_a_port_of_root_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(host: str, port: int, shared: bool = False) -> socket.socket:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(module, "_bind_tcp", refuse)
    with pytest.raises(BindError, match="below 1024"):
        bind(TCPAddress(None, 25))


def test_a_name_that_means_nothing_is_told() -> None:
    with pytest.raises(BindError, match="does not resolve"):
        bind(TCPAddress("no such name", 25))


def test_a_unix_socket_is_made(opened: Open, directory: Path) -> None:
    path = directory / "s"
    ((_sock, text),) = opened(UnixAddress(str(path)))
    assert text == f"unix:{path}"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_the_socket_file_of_a_dead_process_is_replaced(opened: Open, directory: Path) -> None:
    path = str(directory / "s")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    opened(UnixAddress(path))


def test_the_socket_file_of_a_living_process_is_not(opened: Open, directory: Path) -> None:
    path = str(directory / "s")
    opened(UnixAddress(path))
    with pytest.raises(BindError, match="another server listens"):
        bind(UnixAddress(path))


def test_the_socket_file_of_a_process_too_busy_to_answer_is_not(directory: Path) -> None:
    path = str(directory / "s")
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(path)
        busy.listen(0)
        first.connect(path)
        with pytest.raises(BindError, match="another server listens"):
            bind(UnixAddress(path))


def test_another_file_is_left_alone(directory: Path) -> None:
    path = directory / "s"
    path.write_text("precious")
    with pytest.raises(BindError, match="not a socket"):
        bind(UnixAddress(str(path)))
    assert path.read_text() == "precious"


def test_a_missing_directory_and_a_long_path_are_told(directory: Path) -> None:
    with pytest.raises(BindError, match="create it"):
        bind(UnixAddress(str(directory / "no" / "s")))
    with pytest.raises(BindError, match="path too long"):
        bind(UnixAddress("/" + "x" * 200))


# --- socket activation -----------------------------------------------------------------------------


def test_sockets_of_systemd_are_found_by_name(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = opened(ANY)[0], opened(ANY)[0]
    monkeypatch.setattr(
        module, "INHERITED", [("smtp", first[0].fileno()), ("imap", second[0].fileno()), ("smtp", second[0].fileno())]
    )
    adopted = opened(SystemdAddress("smtp"))
    assert [text for _, text in adopted] == [first[1], second[1]]
    assert not os.get_inheritable(adopted[0][0].fileno())


def test_a_unix_socket_of_systemd_is_named_by_its_path(
    opened: Open, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((sock, text),) = opened(UnixAddress(str(directory / "s")))
    monkeypatch.setattr(module, "INHERITED", [("smtp", sock.fileno())])
    assert opened(SystemdAddress("smtp"))[0][1] == text


def test_a_name_that_systemd_did_not_pass_is_told_with_those_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BindError, match=r"it passed: none.*FileDescriptorName=smtp"):
        bind(SystemdAddress("smtp"))


def test_a_socket_that_does_not_listen_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        monkeypatch.setattr(module, "INHERITED", [("smtp", datagrams.fileno())])
        with pytest.raises(BindError, match="Accept=no"):
            bind(SystemdAddress("smtp"))


def test_the_environment_of_systemd_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "2")
    monkeypatch.setenv("LISTEN_FDNAMES", "smtp:smtp")
    assert module._inherited() == [("smtp", 3), ("smtp", 4)]


def test_an_environment_that_twisted_took_already_is_asked_of_twisted(monkeypatch: pytest.MonkeyPatch) -> None:
    from twisted.internet import endpoints
    from twisted.python.systemd import ListenFDs

    monkeypatch.setenv("LISTEN_FDNAMES", "smtp:imap")
    monkeypatch.setattr(endpoints._SystemdParser, "_sddaemon", ListenFDs([3, 4], ("smtp", "imap")))
    assert module._inherited() == [("smtp", 3), ("imap", 4)]
