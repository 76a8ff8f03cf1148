"""The gateway up to its start: what it is made of, and how it begins to serve."""

from __future__ import annotations

import gc
from abc import abstractmethod
from collections.abc import Collection
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from ..config.errors import StartError
from ..config.values import Configuration
from ..guard.limits import Ledger
from ..guard.memory import MemoryTrimmer
from ..guard.relaywatch import RelayWatch
from ..records import dataclass
from ..sessions.agreed import channels_each
from ..telemetry.meter import Meter
from ..telemetry.report.watch import Watch
from ..telemetry.summary import Summary, SummedEvents, Teller
from ..wire.loop import in_one
from ..wire.tls.renewal import INTERVAL, Renewal
from .acting import Acting
from .administration import Administration
from .assembly import Assembler, Assembly, Door, Drained, Reachable
from .control.answers import merged
from .control.messages import Answer, Request
from .crowd import Crowd, killed_by
from .desk import Desk, words
from .ending import Ending
from .every import Every
from .handover import Inheritance
from .knowledge import Knowledge
from .observing import Observer
from .ports import Binder, Ports
from .reloading import Reloader, Transition
from .remembering import Remembering
from .source import Source
from .steering import Steering
from .telling import tell_listening, tell_unused

TICK = 10.0
"""Seconds between two looks whether a minute is over whose floods are to be told."""
FORGET = 60.0
"""Seconds after which what is known of clients that did nothing is given up."""


@dataclass(frozen=True, slots=True)
class Shares:
    """What a worker has in common with the others of its gateway."""

    sessions: Teller
    """Where sessions tell their events."""
    ports: Ports
    """Where its sockets come from."""


class Serving(Service):
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
        """`source`: the file, for those who want it read again.  `shares`: of a worker, which is one of several.
        `desk`: where it is steered from.  `inheritance`: what another program has left, whose successor this one is."""
        self._configuration = configuration
        self._log_events = events
        self._given_reactor = reactor
        self._own_loop: Any = None
        # No clock before twistd's -r has chosen one.
        self.meter = Meter()
        self._summary = Summary(events, lambda: float(self.reactor.seconds()), self.meter.hear)
        self._summary.optional = configuration.log_connects
        self._shares = shares
        self._desk = desk or Desk(events)
        self._summed: Teller = SummedEvents(events, self._summary) if shares is None else shares.sessions
        self._events = self._summed if shares is None else events
        """Where everything else is told: it is counted as well."""
        self._renewal = Renewal(self._events.emit, hostname=configuration.hostname)
        self._administration = Administration(self._events, inheritance)
        self.reloader = Reloader(self, source, self._desk, self._administration, self._events)
        self._watch = Watch()
        self._inheritance = inheritance
        ports = Binder(handed=inheritance) if shares is None else shares.ports
        self._assembler = Assembler(lambda: self._loop, self._events, self._summed, self._renewal, self._watch, ports)
        self._seat = (0, 1)
        self._patience = 0.0
        """Seconds for which sessions go on at a stop before they have to end."""
        self._ledger: Ledger | None = None
        self._assembly: Assembly | None = None
        self._steering = Steering(self)
        self._acting = Acting(
            self._events,
            self._summary.failures,
            lambda: self._configuration,
            lambda: None,
            self._ask_all,
            lambda: self.reactor,
        )
        self.knowledge = Knowledge(lambda: self.reachable, self.drained, self._acting)
        self._duties: list[Every] = []

    # --- what the gateway adds -----------------------------------------------------------------------

    @abstractmethod
    def prepare(self, configuration: Configuration) -> Transition:
        """Raises StartError; then nothing has changed."""

    @abstractmethod
    def look_at_certificates(self) -> None:
        """Serve renewed certificates from now on."""

    @abstractmethod
    def _finish(self, _: None = None) -> None:
        """The last session is gone."""

    # --- start ---------------------------------------------------------------------------------------

    @property
    def reactor(self) -> Any:
        if self._given_reactor is None:
            from twisted.internet import reactor  # not before twistd's -r has chosen it

            self._given_reactor = reactor
        return self._given_reactor

    @property
    def _loop(self) -> Any:
        """The reactor for sessions, listeners and dialling."""
        if self._own_loop is None:
            self._own_loop = in_one(self.reactor)
        return self._own_loop

    @property
    def assembly(self) -> Assembly:
        """What runs."""
        assert self._assembly is not None, "nothing was bound yet"
        return self._assembly

    @property
    def configuration(self) -> Configuration:
        """The one in use."""
        return self._configuration

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
    def drained(self) -> Drained:
        return self._assembler.drained

    def ask(self, request: Request) -> Deferred[Answer]:
        """What somebody wants to know or to have done; of a worker it is a part of the answer."""
        answer = self._steering.ask(request)
        return answer if self._shares is not None else answer.addCallback(lambda found: merged(request, [found]))

    def _asked(self, request: Request) -> Answer | Deferred[Answer]:
        """The same, of a gateway that is one process."""
        return self._acting.ask(request) if self._acting.answers(request) else self._ask_all(request)

    def _ask_all(self, request: Request) -> Answer | Deferred[Answer]:
        """Programs before this one, too."""
        return self._desk.with_elders(request, self.ask(request))

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

    def abandon(self) -> None:
        """The start has failed, or is not wanted any more: leave no control socket behind."""
        self._administration.stop()
        self._desk.close()

    def _prepare_admin(self, configuration: Configuration) -> None:
        # For several workers the master listens.
        if self._shares is None:
            self._administration.prepare(configuration)

    def _inherit(self) -> None:
        if self._inheritance is not None:
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
        self._administration.serve(self.reactor, self.observer, self._asked, lambda: self._configuration)
        if self._shares is None:
            self._desk.serve(
                self.reactor, self._asked, self._words, lambda: [door.port for door, _, _ in self.assembly.doors]
            )

        # What is there now stays; no collection need look through it again.
        gc.collect()
        gc.freeze()

    def _trimmer(self) -> MemoryTrimmer:
        return MemoryTrimmer(
            lambda: len(self.crowd.sessions),
            lambda: (*self._summary.lasting, *self.meter.counts.lasting),
            lambda: (*self.crowd.tables, *getattr(self._loop, "tables", ())),
        )

    def _open(self, door: Door) -> None:
        door.open(self._loop, self.crowd.accept, self._summed.emit, self._seat)
        for address in door.addresses:
            tell_listening(door.opening, address, self._events)

    def _words(self) -> str:
        return words(len(self.crowd.sessions), self.left, self.reloader.was_refused)

    def _keep(self, assembly: Assembly) -> None:
        self._assembly, self._configuration = assembly, assembly.configuration
        self._renewal.hostname = assembly.configuration.hostname
        self._renewal.keep(assembly.servers.values())

    def _tell_unreadable(self) -> None:
        for line in self._renewal.still_readable():
            self._events.emit("certificate", state="unreadable", detail=line)

    def _watches(self, assembly: Assembly) -> list[RelayWatch]:
        """Those that ask backends here: the master asks for all workers."""
        return assembly.watches if self._shares is None else []

    @property
    def left(self) -> float | None:
        """Seconds until the last sessions are cut off; None unless the gateway stops."""
        return self._ending.left

    @property
    def reachable(self) -> Collection[Reachable]:
        """The backends, each with what is known of it."""
        return self.assembly.backends.values()

    def tell_of_certificates(self) -> None:
        """After privileges were dropped."""
        self._tell_unreadable()
        self._renewal.tell_together()

    def _gone(self) -> None:
        """Nobody is inside any more."""
        self._ending.gone()
