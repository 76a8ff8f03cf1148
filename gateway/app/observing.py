"""What can be seen of this process: for the admin listener, and for everybody who asks who is connected."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Set
from typing import Any

from twisted.internet.defer import Deferred

from .. import __version__
from ..sessions.deadline import Deadline
from ..sessions.session import Session
from ..telemetry.meter import Meter
from ..telemetry.metrics import Snapshot
from ..telemetry.observation import CertificateView, Listening, Observation, Recent, Standing, as_json
from ..wire.tls.context import OPENSSL
from ..wire.tls.renewal import Renewal
from .assembly import Assembly
from .crowd import Crowd
from .plan import Opening
from .turns import in_turns

BEAT = 0.5
"""Seconds between two measurements of how late the event loop is."""
LAG = 15.0
"""Seconds for which the longest lag is remembered."""
SLICE = 400
"""Sessions that are looked at in one turn of the event loop: a millisecond."""
VIEWS = 100
"""Those that are also written as JSON: a few milliseconds."""


def listened(opening: Opening, address: str) -> Listening:
    """What is offered at this address."""
    service, mode = opening.service, "implicit" if opening.implicit else "starttls"
    return Listening(service.name, service.protocol, mode, opening.policy, address, service.backend.name)


class Lag:
    """How late the event loop was at most in the last LAG seconds.  Keeps two halves, so that none is forgotten at
    once."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._deadline = Deadline(reactor, self._beat)
        self._halves = [0.0, 0.0]
        self._turns = reactor.seconds() + LAG / 2
        self._due = 0.0
        self._wait()

    @property
    def seconds(self) -> float:
        return max(self._halves)

    def stop(self) -> None:
        self._deadline.cancel()

    def _wait(self) -> None:
        self._due = self._reactor.seconds() + BEAT
        self._deadline.set(self._due)

    def _beat(self) -> None:
        now = self._reactor.seconds()
        if now >= self._turns:
            self._halves = [0.0, self._halves[0]]
            self._turns = now + LAG / 2
        self._halves[0] = max(self._halves[0], now - self._due)
        self._wait()


class _Walk:
    """A look at all sessions, so many at a time."""

    def __init__(self, sessions: list[Session], worker: int, *, views: bool) -> None:
        """`views`: make one of each."""
        self._left = sessions
        self._worker = worker
        self._views = views
        self.views: list[str] = []
        self._seen: dict[Session, tuple[str, int, int]] = {}
        """Phase, octets from the client, octets to it."""
        self.channels: dict[str, int] = {}
        """By service."""

    def step(self, inside: Set[Session]) -> bool:
        """Look at some more, if they are still inside.  False where nobody was left."""
        number = VIEWS if self._views else SLICE
        some = [session for session in self._left[-number:] if session in inside]
        del self._left[-number:]
        for session in some:
            self._seen[session] = (session.phase(), *session.octets)
            if number_of := session.channels:
                self.channels[session.service] = self.channels.get(session.service, 0) + number_of
        if self._views and some:
            self.views.append(as_json([session.view(self._worker) for session in some]))
        return bool(self._left)

    def add_to(self, metrics: Snapshot, inside: Set[Session], services: Set[str]) -> None:
        """What those hold who are inside now; what others had is among the counters by now."""
        phases: dict[tuple[str, str], int] = {(service, "plaintext"): 0 for service in services}
        octets = dict.fromkeys(services, (0, 0))
        for session, (phase, received, sent) in self._seen.items():
            if session in inside:
                service = session.service
                place = service, phase
                phases[place] = phases.get(place, 0) + 1
                before = octets.get(service, (0, 0))
                octets[service] = before[0] + received, before[1] + sent
        for place, number in phases.items():
            metrics.set("sessions", place, number)
        series = metrics.values.setdefault("octets_total", {})
        for service, pair in octets.items():
            for direction, number in zip(("received", "sent"), pair, strict=True):
                if number:
                    known = series.get((service, direction), 0)
                    assert isinstance(known, int | float)
                    series[service, direction] = known + number


class Observer:
    """Looks at the process that it is in.  Nothing of it costs a session anything until somebody looks, but for the
    work of every few seconds."""

    def __init__(
        self,
        reactor: Any,
        meter: Meter,
        crowd: Crowd,
        renewal: Renewal,
        assembly: Callable[[], Assembly],
        stopping: Callable[[], bool],
        recent: Callable[[], tuple[Recent, ...]],
    ) -> None:
        self._reactor = reactor
        self._meter = meter
        self._crowd = crowd
        self._renewal = renewal
        self._assembly = assembly
        self._stopping = stopping
        self._recent = recent
        self._began = time.time()
        self.worker = 0
        self._lag = Lag(reactor)

    def stop(self) -> None:
        self._lag.stop()

    # --- what the admin listener asks ------------------------------------------------------------

    def observe(self, sessions: bool) -> Deferred[Observation]:
        walk = _Walk(list(self._crowd.sessions), self.worker, views=sessions)
        walked = in_turns(self._reactor, lambda: walk.step(self._crowd.sessions))
        return walked.addCallback(lambda _: Observation(self._metrics(walk), self._recent(), tuple(walk.views)))

    def standing(self) -> Standing:
        assembly = self._assembly()
        listening = [listened(opening, address) for door, opening, _ in assembly.doors for address in door.addresses]
        return Standing(assembly.configuration.hostname, __version__, tuple(listening), self.certificates())

    # --- metrics ---------------------------------------------------------------------------------

    def _metrics(self, walk: _Walk) -> Snapshot:
        """The counters of this process, and its gauges as they are now."""
        seen = self._meter.counts.snapshot()
        contexts = [one for _, _, one in self._assembly().doors]
        services = {one.service for one in contexts}
        for one in contexts:
            if one.channels is not None:
                seen.set("data_connections", (one.service,), walk.channels.get(one.service, 0))
        walk.add_to(seen, self._crowd.sessions, services)
        self._add_backends(seen)
        for served in self._renewal.served:
            seen.set(
                "certificate_expiry_timestamp_seconds", (str(served.pair.certificate),), served.not_after.timestamp()
            )
        seen.set("sessions_limit", (), self._crowd.limits.values.sessions)
        seen.set("stopping", (), float(self._stopping()))
        seen.set("workers", (), 1)
        seen.set("event_loop_lag_seconds", (), round(self._lag.seconds, 4))
        seen.set("start_time_seconds", (), round(self._began, 3))
        seen.set("build_info", (__version__, platform.python_version(), OPENSSL), 1)
        return seen

    def _add_backends(self, seen: Snapshot) -> None:
        assembly = self._assembly()
        for backend in assembly.backends.values():
            for address, up in backend.up():
                seen.set("backend_up", (backend.values.name, address), float(up))
        for _, opening, context in assembly.doors:
            backend = assembly.backends[opening.service.backend]
            ready = not self._stopping() and not backend.refusal() and any(up for _, up in backend.up())
            seen.set("ready", (context.service,), float(ready))

    def certificates(self) -> tuple[CertificateView, ...]:
        return tuple(
            CertificateView(
                str(one.pair.certificate), one.names, one.key, one.not_after.isoformat(), self._renewal.days(one)
            )
            for one in self._renewal.served
        )
