"""HTTP for administrators, without a socket: what slow clients can hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
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


class Visit:
    """A connection to the admin listener of such a house."""

    def __init__(self, site: AdminSite) -> None:
        channel: Any = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        self.channel = channel
        self.transport: Any = StringTransport()  # type: ignore[no-untyped-call]
        self.channel.makeConnection(self.transport)

    def ask(self, path: str) -> bytes:
        self.transport.clear()
        self.channel.dataReceived(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())
        return bytes(self.transport.value())

    def leave(self) -> None:
        self.channel.connectionLost(LOST)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def site(clock: Clock) -> AdminSite:
    house = House()
    return AdminSite(Admin(clock, house, house, "", {"localhost"}), clock)


def test_few_lists_of_sessions_are_read_at_the_same_time(site: AdminSite) -> None:
    """No reactor turns, so nobody gets on."""
    visits = [Visit(site) for _ in range(READERS + 1)]
    answers = [visit.ask("/sessions.json") for visit in visits]
    assert answers[-1].startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    for visit in visits:
        visit.leave()
    last = Visit(site)
    assert not last.ask("/sessions.json").startswith(b"HTTP/1.1 503")
    last.leave()


def test_an_octet_now_and_then_buys_no_time(site: AdminSite, clock: Clock) -> None:
    visit = Visit(site)
    octets = iter(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 100)
    while clock.seconds() < SLOWEST:
        assert not visit.transport.disconnecting
        visit.channel.dataReceived(bytes([next(octets)]))
        clock.advance(1)
    assert visit.transport.disconnecting
    visit.leave()
    assert clock.getDelayedCalls() == []


def test_each_request_of_a_connection_has_its_own_time(site: AdminSite, clock: Clock) -> None:
    visit = Visit(site)
    for _ in range(3):
        clock.advance(SLOWEST - 1)
        assert visit.ask("/healthz").startswith(b"HTTP/1.1 200 ")
    visit.leave()
