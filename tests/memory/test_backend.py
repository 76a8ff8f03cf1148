"""Dialling a backend: every address in order, within the time, and never from inside the call."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IReadWriteDescriptor
from zope.interface.verify import verifyClass

from gateway.config.values import Address, SystemdAddress, TCPAddress, UnixAddress
from gateway.wire.dialer import Attempt, Dialer, PendingConnect
from tests.memory.stepping import SteppedReactor, is_prepared


class Caller:
    """Dials, and writes down the answers; no answer may come from inside the call."""

    def __init__(self, reactor: SteppedReactor) -> None:
        self.reactor = reactor
        self.sockets: list[socket.socket] = []
        self.complaints: list[str] = []
        self.calling = False

    def dial(self, *addresses: Address, timeout: float = 10.0) -> Attempt:
        self.calling = True
        attempt = Dialer(self.reactor, addresses, timeout).dial(self.done, self.failed)
        self.calling = False
        return attempt

    def done(self, sock: socket.socket) -> None:
        assert not self.calling
        assert not sock.getblocking()
        self.sockets.append(sock)

    def failed(self, text: str) -> None:
        assert not self.calling
        self.complaints.append(text)

    def succeed(self) -> socket.socket:
        self.reactor.step_until(lambda: self.sockets)
        assert self.complaints == []
        return self.sockets[0]

    def fail(self) -> str:
        self.reactor.step_until(lambda: self.complaints)
        assert self.sockets == []
        assert "\n" not in self.complaints[0]
        return self.complaints[0]


@pytest.fixture
def caller(reactor: SteppedReactor) -> Iterator[Caller]:
    caller = Caller(reactor)
    yield caller
    reactor.settle()
    assert reactor.writers == {}
    assert reactor.pending() == []
    assert len(caller.sockets) + len(caller.complaints) <= 1
    for sock in caller.sockets:
        sock.close()


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def at(server: socket.socket) -> TCPAddress:
    return TCPAddress("127.0.0.1", server.getsockname()[1])


@pytest.fixture
def closed() -> TCPAddress:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return at(server)


class Names:
    """A resolver that knows a few names, and answers when it is told to, or at once."""

    def __init__(self, known: dict[str, list[Any]], at_once: bool = True) -> None:
        self.known = known
        self.at_once = at_once
        self.waiting: list[Callable[[], None]] = []

    def resolveHostName(self, receiver: Any, name: str, port: int = 0, *more: Any) -> Any:
        def answer() -> None:
            receiver.resolutionBegan(self)
            for kind, host in self.known.get(name, []):
                receiver.addressResolved(kind("TCP", host, port))
            receiver.resolutionComplete()

        if self.at_once:
            answer()
        else:
            self.waiting.append(answer)
        return self


class Deaf:
    """Sockets whose connect(2) never ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.connected: list[Any] = []
        deaf = self

        class DeafSocket(socket.socket):
            def connect_ex(self, where: Any) -> int:
                deaf.connected.append(where)
                # Bound but not connected: what poll says of it is a hang-up, so the reactor is not asked.
                return errno.EINPROGRESS

        monkeypatch.setattr(socket, "socket", DeafSocket)
        monkeypatch.setattr(SteppedReactor, "addWriter", lambda reactor, writer: None)


def test_a_knock_is_what_a_reactor_writes() -> None:
    assert verifyClass(IReadWriteDescriptor, PendingConnect)


def test_tcp_is_dialled(caller: Caller, server: socket.socket) -> None:
    caller.dial(at(server))
    sock = caller.succeed()
    assert sock.getpeername() == server.getsockname()
    assert is_prepared(sock)


def test_unix_is_dialled(caller: Caller, directory: Path) -> None:
    path = str(directory / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        caller.dial(UnixAddress(path))
        assert caller.succeed().getpeername() == path


def test_a_refusal_names_address_and_errno(caller: Caller, closed: TCPAddress) -> None:
    caller.dial(closed)
    assert caller.fail() == f"127.0.0.1:{closed.port}: Connection refused (ECONNREFUSED)"


def test_a_unix_refusal_too(caller: Caller, directory: Path) -> None:
    caller.dial(UnixAddress(str(directory / "gone")), UnixAddress("/" + "x" * 200))
    first, second = caller.fail().split("; ")
    assert first == f"unix:{directory / 'gone'}: No such file or directory (ENOENT)"
    assert "too long" in second


def test_a_full_unix_queue_is_a_failure_and_not_a_wait(caller: Caller, directory: Path) -> None:
    path = str(directory / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(path)
        server.listen(0)
        first.connect(path)
        caller.dial(UnixAddress(path))
        assert "EAGAIN" in caller.fail()


def test_the_next_address_is_tried(caller: Caller, server: socket.socket, closed: TCPAddress, directory: Path) -> None:
    caller.dial(closed, UnixAddress(str(directory / "gone")), SystemdAddress("smtp"), at(server))
    assert caller.succeed().getpeername() == server.getsockname()


def test_every_address_has_its_part_in_the_complaint(caller: Caller, closed: TCPAddress) -> None:
    caller.dial(closed, SystemdAddress("smtp"), closed)
    assert [part.split(": ")[0] for part in caller.fail().split("; ")] == [str(closed), "systemd:smtp", str(closed)]


def test_no_descriptors_are_a_failure_and_not_an_exception(
    caller: Caller, server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*family: Any) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket, "socket", none)
    caller.dial(at(server))
    assert caller.fail() == f"{at(server)}: Too many open files (EMFILE)"


@pytest.mark.parametrize("at_once", [True, False])
def test_a_name_is_resolved_and_its_addresses_tried_in_order(
    caller: Caller, server: socket.socket, reactor: SteppedReactor, at_once: bool
) -> None:
    names = Names({"mail.test": [(IPv6Address, "::1"), (IPv4Address, "127.0.0.1")]}, at_once)
    reactor.nameResolver = names
    caller.dial(TCPAddress("mail.test", at(server).port))
    for answer in names.waiting:
        answer()
    assert caller.succeed().getpeername() == server.getsockname()


def test_the_complaint_about_a_name_tells_its_address(
    caller: Caller, closed: TCPAddress, reactor: SteppedReactor
) -> None:
    reactor.nameResolver = Names({"mail.test": [(IPv4Address, "127.0.0.1")]})
    caller.dial(TCPAddress("mail.test", closed.port))
    assert caller.fail() == f"mail.test ({closed}): Connection refused (ECONNREFUSED)"


def test_a_name_that_means_nothing_is_told(caller: Caller, reactor: SteppedReactor) -> None:
    reactor.nameResolver = Names({})
    caller.dial(TCPAddress("mail.test", 25))
    assert caller.fail() == "mail.test:25: the name does not resolve"


def test_a_resolver_that_never_answers_costs_its_share_of_the_time(
    caller: Caller, server: socket.socket, reactor: SteppedReactor
) -> None:
    names = Names({"mail.test": [(IPv4Address, "127.0.0.1")]}, at_once=False)
    reactor.nameResolver = names
    caller.dial(TCPAddress("mail.test", 25), at(server))
    reactor.settle()
    assert reactor.pending() == [5.0]
    reactor.clock.advance(5)
    caller.succeed()
    names.waiting[0]()
    reactor.settle()


def test_silence_ends_with_the_time(caller: Caller, reactor: SteppedReactor, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = Deaf(monkeypatch)
    caller.dial(TCPAddress("192.0.2.1", 25), TCPAddress("2001:db8::1", 25))
    assert len(deaf.connected) == 1
    reactor.clock.advance(5)
    assert len(deaf.connected) == 2
    reactor.clock.advance(4.9)
    assert caller.complaints == []
    reactor.clock.advance(0.2)
    assert caller.fail() == (
        "192.0.2.1:25: no answer in time (ETIMEDOUT); [2001:db8::1]:25: no answer in time (ETIMEDOUT)"
    )


def test_a_cancelled_dialling_says_nothing(caller: Caller, server: socket.socket, reactor: SteppedReactor) -> None:
    attempt = caller.dial(at(server))
    attempt.cancel()
    attempt.cancel()
    reactor.settle()
    assert (caller.sockets, caller.complaints) == ([], [])


def test_a_cancelled_failure_says_nothing(caller: Caller, directory: Path, reactor: SteppedReactor) -> None:
    caller.dial(UnixAddress(str(directory / "gone"))).cancel()
    reactor.settle()
    assert caller.complaints == []


def test_a_cancelled_resolution_says_nothing(caller: Caller, reactor: SteppedReactor) -> None:
    reactor.nameResolver = Names({"mail.test": [(IPv4Address, "127.0.0.1")]})
    caller.dial(TCPAddress("mail.test", 25)).cancel()
    reactor.settle()
    assert (caller.sockets, caller.complaints) == ([], [])


def test_cancelling_after_the_answer_changes_nothing(caller: Caller, server: socket.socket) -> None:
    attempt = caller.dial(at(server))
    sock = caller.succeed()
    attempt.cancel()
    assert sock.fileno() >= 0


def test_an_event_of_another_socket_is_not_taken_for_an_answer(reactor: SteppedReactor, server: socket.socket) -> None:
    answers: list[int] = []
    with socket.socket() as sock:
        knock = PendingConnect(reactor, sock, lambda sock, number: answers.append(number))
        knock.doWrite()
        assert answers == []
        assert reactor.writers
        knock.give_up()
        knock.give_up()
        reactor.step()


def test_a_bug_in_what_is_told_closes_the_connection(reactor: SteppedReactor, server: socket.socket) -> None:
    got: list[socket.socket] = []

    def stumble(sock: socket.socket) -> None:
        got.append(sock)
        raise RuntimeError

    Dialer(reactor, [at(server)], 10).dial(stumble, lambda text: None)
    reactor.step_until(lambda: got and got[0].fileno() == -1)
