"""The gateway up to its start: what it is made of, and how it begins to serve."""

from __future__ import annotations

import gc
from collections.abc import Collection
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from ..config.errors import StartError
from ..config.values import Configuration
from ..guard.limits import Ledger
from ..guard.memory import MemoryTrimmer
from ..guard.relaywatch import RelayWatch
from ..guard.shared import SharedLedger
from ..records import dataclass
from ..sessions.agreed import channels_each
from ..telemetry.summary import Teller
from ..wire.loop import in_one
from ..wire.tls.renewal import INTERVAL, Renewal
from .assembly import Assembly, Door
from .control.answers import merged
from .control.messages import Answer, Request
from .crowd import Crowd, killed_by
from .desk import Desk
from .ending import Ending
from .every import Every
from .handover import Inheritance
from .observing import Observer
from .ports import Binder, Port, Ports
from .program import TICK, Program
from .remembering import Remembering
from .source import Source
from .steering import Steering
from .telling import tell_listening, tell_unused

FORGET = 60.0
"""Seconds after which what is known of clients that did nothing is given up."""


@dataclass(frozen=True, slots=True)
class Shares:
    """What a worker has in common with the others of its gateway."""

    sessions: Teller
    """Where sessions tell their events."""
    ports: Ports
    """Where its sockets come from."""


class Serving(Program):
    """What runs, and how it was put together."""

    def __init__(
        self,
        configuration: Configuration,
        events: Teller,
        reactor: Any = None,
        source: Source | None = None,
        shares: Shares | None = None,
        desk: Desk | None = None,
        inheritance: Inheritance | None = None,
    ) -> None:
        """`shares`: of a worker, which is one of several.  All others: as `Program` has them."""
        self._shares = shares
        self._own_loop: Any = None
        ports = Binder(handed=inheritance) if shares is None else shares.ports
        sessions = None if shares is None else shares.sessions
        desk = desk or Desk(events)
        super().__init__(configuration, events, source, desk, ports, inheritance, sessions, reactor)
        self._seat = (0, 1)
        self._ledger: Ledger | None = None
        self._steering = Steering(self)

    # --- start ---------------------------------------------------------------------------------------

    @property
    def _loop(self) -> Any:
        """The reactor for sessions, listeners and dialling."""
        if self._own_loop is None:
            self._own_loop = in_one(self.reactor)
        return self._own_loop

    @property
    def files(self) -> Collection[Path]:
        """Files whose content is in use."""
        return self._renewal.files | self.assembly.files

    @property
    def refused_certificates(self) -> Collection[str]:
        """Certificate files whose present content is not used, and why."""
        return self._renewal.refused

    @property
    def renewal(self) -> Renewal:
        """The certificates."""
        return self._renewal

    @property
    def is_serving(self) -> bool:
        return bool(self.running)

    @property
    def sessions(self) -> int:
        return len(self.crowd.sessions)

    @property
    def ports(self) -> list[Port]:
        return [door.port for door, _, _ in self.assembly.doors]

    def part(self, request: Request) -> Deferred[Answer]:
        """Of the answer to a request that is also about the sessions of other workers."""
        return self._steering.ask(request)

    def _answer(self, request: Request) -> Deferred[Answer]:
        return self.part(request).addCallback(lambda found: merged(request, [found]))

    def _tell_bans(self) -> None:
        """There is no other process."""

    def _share(self) -> SharedLedger:
        return self.crowd.share()

    def privilegedStartService(self) -> None:
        if self._assembly is None:
            self._prepare_admin(self._configuration)
            try:
                self._assembly = self._assembler.assemble(self._configuration)
            except StartError:
                self._administration.give_up()
                raise
            if self._shares is None:
                self._desk.open(self._configuration.control)
                self._acting.begin()
            self._inherit()

    def _prepare_admin(self, configuration: Configuration) -> None:
        # For several workers the master listens.
        if self._shares is None:
            self._administration.prepare(configuration)

    def _inherit(self) -> None:
        self._inheritance.close()
        self.knowledge.learn(self._inheritance.knowledge)
        if self._inheritance.ledger is not None:
            ledger = self._inheritance.ledger(killed_by(self._summed))
            self._ledger = ledger.of(ledger.claim())

    def startService(self) -> None:
        self.privilegedStartService()  # `twist` does not call it
        limits = self._configuration.limits
        _, workers = self._seat
        self.crowd = Crowd(
            self._loop,
            self._summed,
            self._events,
            limits,
            self._gone,
            self._ledger,
            workers,
            self.drained.services,
            channels_each(self._configuration),
        )
        self.crowd.limits.banned = self._acting.bans.keeps_out
        self._ending = Ending(self.reactor, self.crowd, self._events)
        self.crowd.probes = self._configuration.probes
        self.observer = Observer(
            self.reactor,
            self.meter,
            self.crowd,
            self._renewal,
            lambda: self.assembly,
            lambda: not self.running,
            lambda: self._summary.recent,
        )
        super().startService()
        self._duties = [
            Every(self.reactor, TICK, self._summary.tick),
            *([] if self._shares is not None else [Every(self.reactor, TICK, self._acting.look)]),
            Every(self.reactor, TICK, self._trimmer().trim),
            Every(self.reactor, FORGET, self.crowd.limits.forget),
            Every(self.reactor, INTERVAL, self._renewal.look),
        ]
        # For several workers the master keeps the report.
        keeps = self._shares is None
        self._remembering = Remembering(self.reactor, self._summary, self._events, self._watch, keeps=keeps)
        self._remembering.begin(self._configuration.report)
        self.tell_of_certificates()
        tell_unused(self._configuration, self._events)
        for watch in self._watches(self.assembly):
            watch.start()
        # All of them: a worker may start after a reload that opened none.
        for door, _, _ in self.assembly.doors:
            self._open(door)
        self._administration.serve(self.reactor, self.observer, self.ask, lambda: self._configuration)
        if self._shares is None:
            self._desk.serve(self.reactor, self.ask, self._words, lambda: self.ports)

        # What is there now stays; no collection need look through it again.
        gc.collect()
        gc.freeze()

    def _trimmer(self) -> MemoryTrimmer:
        return MemoryTrimmer(
            lambda: self.sessions,
            lambda: (*self._summary.lasting, *self.meter.counts.lasting),
            lambda: (*self.crowd.tables, *getattr(self._loop, "tables", ())),
        )

    def _open(self, door: Door) -> None:
        door.open(self._loop, self.crowd.accept, self._summed.emit, self._seat)
        for address in door.addresses:
            tell_listening(door.opening, address, self._events)

    def _keep(self, assembly: Assembly) -> None:
        self._assembly, self._configuration = assembly, assembly.configuration
        self._renewal.hostname = assembly.configuration.hostname
        self._renewal.keep(assembly.servers.values())

    def _tell_unreadable(self) -> None:
        for line in self._renewal.still_readable():
            self._events.emit("certificate", state="unreadable", detail=line)

    def _watches(self, assembly: Assembly) -> list[RelayWatch]:
        """Of several workers none asks: the master does."""
        return assembly.watches if self._shares is None else []

    @property
    def left(self) -> float | None:
        """Seconds until the last sessions are cut off; None unless the gateway stops."""
        return self._ending.left

    def tell_of_certificates(self) -> None:
        """After privileges were dropped."""
        self._tell_unreadable()
        self._renewal.tell_together()

    def _gone(self) -> None:
        """Nobody is inside any more."""
        self._ending.gone()
