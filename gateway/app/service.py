"""The assembled gateway: what a configuration says, listening, serving and stopping."""

from __future__ import annotations

import gc
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from ..config.values import Configuration, SystemdAddress
from ..guard.memory import Room
from ..telemetry.events import Events
from ..telemetry.meter import Meter
from ..telemetry.summary import Summary, SummedEvents
from ..wire.listener import inherited
from ..wire.tls.renewal import INTERVAL, Renewal
from .assembly import Assembler, Assembly, Door, addresses
from .crowd import Crowd
from .ending import Ending
from .every import Every

TICK = 10.0
"""Seconds between two looks whether a minute is over whose floods are to be told."""
FORGET = 60.0
"""Seconds after which what is known of clients that did nothing is given up."""


class Gateway(Service):
    """Binds its ports and reads its keys while still privileged, serves afterwards.

    `privilegedStartService` and `startService` raise StartError with the one line that an operator
    needs.  The Deferred of `stopService` fires when the last session has ended, `drain` seconds
    after the stop at the latest.
    """

    def __init__(self, configuration: Configuration, events: Events, reactor: Any = None) -> None:
        self._configuration = configuration
        self._events = events
        self._given_reactor = reactor
        self._renewal = Renewal(events.emit, hostname=configuration.hostname)
        # No clock before twistd's -r has chosen one.
        self.meter = Meter()
        self._summary = Summary(events, lambda: float(self._reactor.seconds()), self.meter.hear)
        self._summary.optional = configuration.log_connects
        self._summed = SummedEvents(events, self._summary)
        self._assembler = Assembler(lambda: self._reactor, events, self._summed, self._renewal)
        self._assembly: Assembly | None = None
        self._duties: list[Every] = []

    @property
    def _reactor(self) -> Any:
        if self._given_reactor is None:
            from twisted.internet import reactor  # not before twistd's -r has chosen it

            self._given_reactor = reactor
        return self._given_reactor

    # --- start -------------------------------------------------------------------------------

    def privilegedStartService(self) -> None:
        if self._assembly is None:
            self._assembly = self._assembler.assemble(self._configuration)

    def startService(self) -> None:
        self.privilegedStartService()  # `twist` does not call it
        assert self._assembly is not None
        self.crowd = Crowd(self._reactor, self._summed, self._configuration.limits, self._gone)
        self._ending = Ending(self._reactor, self.crowd, self._events)
        super().startService()
        self._duties = [
            Every(self._reactor, TICK, self._summary.tick),
            Every(self._reactor, TICK, Room(lambda: len(self.crowd.sessions)).tidy),
            Every(self._reactor, FORGET, self.crowd.limits.forget),
            Every(self._reactor, INTERVAL, self._renewal.look),
        ]
        self._tell_unreadable()
        self._tell_unused()
        self._renewal.tell_together()
        for watch in self._assembly.watches:
            watch.start()
        for door in self._assembly.opened:
            self._open(door)

        # What is there now stays; no collection need look through it again.
        gc.collect()
        gc.freeze()

    def _open(self, door: Door) -> None:
        door.open(self._reactor, self.crowd.accept, self._summed.emit)
        terms = door.entrance.terms
        for address in door.addresses:
            self._events.emit(
                "listening",
                service=door.entrance.service,
                protocol=door.entrance.dialect.name,
                mode="implicit" if terms.implicit else "starttls",
                policy=None if terms.implicit else terms.policy.value,
                connect="lazy" if terms.lazy and not terms.implicit else "eager",
                address=address,
            )

    def _tell_unused(self) -> None:
        """Connections to a socket that systemd passed and nobody accepts from would wait for ever."""
        assert self._assembly is not None
        used = {address.name for address in addresses(self._assembly) if isinstance(address, SystemdAddress)}
        for name, place in inherited():
            if name not in used:
                self._events.emit(
                    "unused-socket",
                    name=name,
                    address=place,
                    cure=f"write systemd:{name} in the starttls or implicit of a service, or disable its .socket unit",
                )

    def reread(self) -> None:
        """SIGHUP: look at all certificates now, and tell what is refused."""
        self._tell_unreadable()
        # What is refused is told when it is found a second time, for a pair is two files.  Now both are there.
        self._renewal.look()
        self._renewal.look()

    def _tell_unreadable(self) -> None:
        for line in self._renewal.still_readable():
            self._events.emit("certificate", state="unreadable", detail=line)

    # --- stop --------------------------------------------------------------------------------

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        assert self._assembly is not None
        for door, _, _ in self._assembly.doors:
            door.close()
        for watch in self._assembly.watches:
            watch.stop()
        stopped = self._ending.begin(self._configuration.drain)
        if stopped is None:
            self._finish()
            return None
        return stopped.addCallback(self._finish)

    def hurry(self) -> None:
        """Cut off whoever is still there, now if it stops already, and else when it does."""
        self._ending.hurry()

    def _gone(self) -> None:
        """Nobody is inside any more."""
        self._ending.gone()

    def _finish(self, _: None = None) -> None:
        for duty in self._duties:
            duty.stop()
        self._duties.clear()
        self._summary.flush()
