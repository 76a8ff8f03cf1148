"""HTTP for administrators, without a socket: what slow clients can hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from gateway.telemetry.admin.acting import Action, Result
from gateway.telemetry.admin.site import READERS, SLOWEST, Admin, AdminSite
from gateway.telemetry.observation import Observation, Standing

LOST: Any = Failure(ConnectionLost())  # type: ignore[no-untyped-call]


class House:
    """A gateway with one session, which nobody can steer."""

    def observe(self, sessions: bool) -> Deferred[Observation]:
        return succeed(Observation(sessions=('{"id": "1"}',)))

    def standing(self) -> Standing:
        return Standing("gw")

    def report(self, days: int, form: str) -> Deferred[bytes]:
        raise NotImplementedError

    def act(self, action: Action, who: str) -> Deferred[tuple[Result, Sequence[str]]]:
        raise NotImplementedError


def test_few_lists_of_sessions_are_read_at_the_same_time() -> None:
    """No reactor turns, so nobody gets on."""
    clock, house = Clock(), House()
    site = AdminSite(Admin(clock, house, house, "", {"localhost"}), clock)
    channels: list[Any] = []

    def ask() -> bytes:
        channel: Any = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        transport: Any = StringTransport()  # type: ignore[no-untyped-call]
        channels.append(channel)
        channel.makeConnection(transport)
        channel.dataReceived(b"GET /sessions.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return bytes(transport.value())

    for _ in range(READERS):
        ask()
    assert ask().startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    for channel in channels:
        channel.connectionLost(LOST)
    assert not ask().startswith(b"HTTP/1.1 503")
    channels[-1].connectionLost(LOST)


def test_an_octet_now_and_then_buys_no_time() -> None:
    clock, house = Clock(), House()
    site = AdminSite(Admin(clock, house, house, "", {"localhost"}), clock)
    channel: Any = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
    transport: Any = StringTransport()  # type: ignore[no-untyped-call]
    channel.makeConnection(transport)
    octets = iter(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 100)
    while clock.seconds() < SLOWEST:
        assert not transport.disconnecting
        channel.dataReceived(bytes([next(octets)]))
        clock.advance(1)
    assert transport.disconnecting
    channel.connectionLost(LOST)
    assert clock.getDelayedCalls() == []


def test_each_request_of_a_connection_has_its_own_time() -> None:
    clock, house = Clock(), House()
    site = AdminSite(Admin(clock, house, house, "", {"localhost"}), clock)
    channel: Any = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
    transport: Any = StringTransport()  # type: ignore[no-untyped-call]
    channel.makeConnection(transport)
    for _ in range(3):
        clock.advance(SLOWEST - 1)
        transport.clear()
        channel.dataReceived(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert transport.value().startswith(b"HTTP/1.1 200 ")
    channel.connectionLost(LOST)
