"""Tests SMTP backends again and again for open relay, from the gateway's address."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ..config.values import Address, Backend, Timeouts
from ..dialects.base import Dialect
from ..dialects.openrelay import Probe, Verdict
from ..sessions.agreed import terms_of_errands
from ..sessions.deadline import Deadline
from ..sessions.errand import Errand
from ..sessions.performer import ConnectTLS
from ..telemetry.summary import Teller
from ..wire.dialer import Dialer

AGAIN = {Verdict.OPEN: 60.0, Verdict.UNDECIDED: 60.0, Verdict.CLOSED: 3600.0}
"""Seconds until the next test."""
EVENTS = {
    Verdict.OPEN: "open-relay",
    Verdict.UNDECIDED: "relay-undecided",
    Verdict.CLOSED: "relay-closed",
}
"""Events for a new verdict."""
SHORTEST, LONGEST = 5.0, 60.0
"""Seconds until the next attempt to reach a backend, doubled each time.  Clients wait for the first test."""

Jitter = Callable[[], float]


def _some_jitter() -> float:
    return random.uniform(0.75, 1.25)


def is_watched(dialect: Dialect, backend: Backend) -> bool:
    """Whether the backend must be tested: it relays, does not get the client's address, and `allow_relay` is off."""
    return dialect.relays and backend.identity == "none" and not backend.allow_relay


class RelayWatch:
    """For one backend and all its services.  Tests each address, because each may be another server."""

    def __init__(
        self,
        reactor: Any,
        backend: Backend,
        dialect: Dialect,
        hostname: str,
        timeouts: Timeouts,
        connect_tls: ConnectTLS | None,
        events: Teller,
        jitter: Jitter = _some_jitter,
        known: Mapping[Address, Verdict | None] = MappingProxyType({}),
    ) -> None:
        """`known`: what an earlier watch found out; it holds until the address has been asked again."""
        assert is_watched(dialect, backend)
        self._addresses = {
            address: _AddressWatch(reactor, address, backend, dialect, hostname, timeouts, connect_tls, events, jitter)
            for address in backend.addresses
        }
        for address, watch in self._addresses.items():
            watch.verdict = known.get(address)
            watch.changed = self._changed
        self.changed: Callable[[], None] = _nothing
        """Called after a verdict has changed."""

    def start(self) -> None:
        for watch in self._addresses.values():
            watch.ask()

    def stop(self) -> None:
        for watch in self._addresses.values():
            watch.leave()

    def learn(self, verdicts: Mapping[str, str | None]) -> None:
        """What another process found out, by address as text.  It asks for all, and this watch is not started."""
        for address, watch in self._addresses.items():
            verdict = verdicts.get(str(address))
            watch.verdict = None if verdict is None else Verdict(verdict)

    def _changed(self) -> None:
        self.changed()

    def permits(self, address: Address) -> bool:
        """Whether this address was tested and is not an open relay."""
        return self.verdicts[address] not in (None, Verdict.OPEN)

    @property
    def verdicts(self) -> dict[Address, Verdict | None]:
        """By address; None for one that has not answered yet."""
        return {address: watch.verdict for address, watch in self._addresses.items()}

    @property
    def reason(self) -> str:
        """Why clients are refused, for the `session` event.  Empty if they are not."""
        verdicts = self.verdicts.values()
        if Verdict.OPEN in verdicts:
            return "open-relay"
        return "" if any(verdicts) else "relay-unknown"


class _AddressWatch:
    """Tests one address again and again."""

    def __init__(
        self,
        reactor: Any,
        address: Address,
        backend: Backend,
        dialect: Dialect,
        hostname: str,
        timeouts: Timeouts,
        connect_tls: ConnectTLS | None,
        events: Teller,
        jitter: Jitter,
    ) -> None:
        self.verdict: Verdict | None = None
        """The last verdict.  OPEN stays until CLOSED.  A failed connection does not change it."""
        self.changed: Callable[[], None] = _nothing
        self._reactor = reactor
        self._dialect = dialect
        self._terms = terms_of_errands(hostname, backend, "relay-probe")
        self._dialer = Dialer(reactor, (address,), timeouts.connect)
        self._connect_tls = connect_tls
        self._timeouts = timeouts
        self._events = events.bound(backend=backend.name, address=str(address))
        self._jitter = jitter
        self._unreached = 0
        self._errand: Errand | None = None
        self._next = Deadline(reactor, self.ask)

    def ask(self) -> None:
        probe = Probe(self._dialect, self._terms)

        def answered(errand: Errand) -> None:
            self._errand = None
            self._judge(probe, errand)

        # A test may take as long as a client before login.
        limit = self._timeouts.preauth
        self._errand = Errand(
            self._reactor,
            probe.script(),
            self._dialer,
            self._connect_tls,
            self._timeouts,
            self._dialect.patience,
            limit,
            answered,
        )
        self._errand.start()

    def leave(self) -> None:
        if self._errand is not None:
            self._errand.cancel()
            self._errand = None
        self._next.cancel()

    def _judge(self, probe: Probe, errand: Errand) -> None:
        found = probe.verdict
        if found is None:
            self._miss(errand)
            return
        self._unreached = 0
        # OPEN does not change to UNDECIDED.
        if found is not self.verdict and (self.verdict, found) != (Verdict.OPEN, Verdict.UNDECIDED):
            self.verdict = found
            self.changed()
            cure = probe.cure(errand.ends.source[0]) if errand.ends else probe.cure()
            self._events.emit(EVENTS[found], text=probe.text or errand.trouble.detail or None, cure=cure or None)
        self._again(AGAIN[found])

    def _miss(self, errand: Errand) -> None:
        """Not reached.  One event until it is reached again."""
        if not self._unreached:
            self._events.emit(errand.trouble.key, phase="probe", detail=errand.trouble.detail)
        delay = min(LONGEST, SHORTEST * 2 ** min(self._unreached, 10))
        self._unreached += 1
        self._again(delay)

    def _again(self, seconds: float) -> None:
        self._next.set(self._reactor.seconds() + seconds * self._jitter())


def _nothing() -> None:
    pass
