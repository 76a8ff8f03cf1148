"""The assembled gateway: what a configuration says, listening, serving and stopping."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from ..config.errors import ConfigurationError, StartError
from ..config.values import Configuration, SystemdAddress
from ..guard.limits import Ledger
from ..guard.memory import MemoryTrimmer
from ..guard.relaywatch import RelayWatch
from ..telemetry.events import FORMATS, Events
from ..telemetry.meter import Meter
from ..telemetry.report.watch import Watch
from ..telemetry.summary import Summary, SummedEvents, Teller
from ..wire.listener import inherited
from ..wire.tls.renewal import INTERVAL, Renewal
from .administration import Administration
from .assembly import Assembler, Assembly, Door, Drained, Reachable
from .control.answers import merged
from .control.messages import Answer, Request
from .control.place import ControlError
from .crowd import Crowd
from .desk import Desk, words
from .ending import Ending
from .every import Every
from .handover import Bequest, Inheritance
from .knowledge import knowledge, learn
from .observing import Observer
from .plan import Opening, Reload, changes, openings
from .ports import Binder, Ports, nothing_handed
from .remembering import Remembering
from .source import Source
from .steering import Steering

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


class Gateway(Service):
    """Binds its ports and reads its keys while still privileged, serves afterwards.

    `privilegedStartService` and `startService` raise StartError with the one line that an operator
    needs.  The Deferred of `stopService` fires when the last session has ended, `drain` seconds
    after the stop at the latest.
    """

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
        self._source = source
        self.last_reload: Reload | None = None
        # No clock before twistd's -r has chosen one.
        self.meter = Meter()
        self._summary = Summary(events, lambda: float(self._reactor.seconds()), self.meter.hear)
        self._summary.optional = configuration.log_connects
        self._shares = shares
        self._desk = desk or Desk(events)
        self._summed: Teller = SummedEvents(events, self._summary) if shares is None else shares.sessions
        self._events = self._summed if shares is None else events
        """Where everything else is told: it is counted as well."""
        self._renewal = Renewal(self._events.emit, hostname=configuration.hostname)
        take = nothing_handed if inheritance is None else inheritance.take
        self._administration = Administration(self._events, take)
        self._watch = Watch()
        self._inheritance = inheritance
        ports = Binder(take=take) if shares is None else shares.ports
        self._assembler = Assembler(
            lambda: self._reactor, self._events, self._summed, self._renewal, self._watch, ports
        )
        self._seat = (0, 1)
        self._patience = 0.0
        """Seconds for which sessions go on at a stop before they have to end."""
        self._ledger: Ledger | None = None
        self._assembly: Assembly | None = None
        self._steering = Steering(self)
        self._duties: list[Every] = []

    @property
    def _reactor(self) -> Any:
        if self._given_reactor is None:
            from twisted.internet import reactor  # not before twistd's -r has chosen it

            self._given_reactor = reactor
        return self._given_reactor

    @property
    def assembly(self) -> Assembly:
        """What runs."""
        assert self._assembly is not None, "nothing was bound yet"
        return self._assembly

    @property
    def file(self) -> str | None:
        """The configuration file's path."""
        return None if self._source is None else self._source.path

    @property
    def renewal(self) -> Renewal:
        """The certificates."""
        return self._renewal

    @property
    def drained(self) -> Drained:
        return self._assembler.drained

    @property
    def left(self) -> float | None:
        """Seconds until the last sessions are cut off; None unless the gateway stops."""
        return self._ending.left

    def ask(self, request: Request) -> Answer:
        """What somebody wants to know or to have done; of a worker it is a part of the answer."""
        answer = self._steering.ask(request)
        return answer if self._shares is not None else merged(request, [answer])

    # --- start -------------------------------------------------------------------------------

    def privilegedStartService(self) -> None:
        if self._assembly is None:
            self._prepare_admin(self._configuration)
            self._assembly = self._assemble(self._configuration, None)
            if self._shares is None:
                self._desk.open(self._configuration.control, later=self._inheritance is not None)
            self._inherit()

    def _prepare_admin(self, configuration: Configuration) -> None:
        # For several workers the master listens.
        if self._shares is None:
            self._administration.prepare(configuration)

    def _assemble(self, configuration: Configuration, before: Assembly | None) -> Assembly:
        try:
            return self._assembler.assemble(configuration, before)
        except StartError:
            self._administration.give_up()
            raise

    def _inherit(self) -> None:
        if self._inheritance is not None:
            self._inheritance.close()
            for message in self._inheritance.knowledge:
                learn(self.reachable, message)
            if (ledger := self._inheritance.ledger) is not None:
                self._ledger = ledger.of(ledger.claim())

    def startService(self) -> None:
        self.privilegedStartService()  # `twist` does not call it
        limits = self._configuration.limits
        _, workers = self._seat
        self.crowd = Crowd(
            self._reactor,
            self._summed,
            self._events,
            limits,
            self._gone,
            self._ledger,
            workers,
            self.drained.services,
        )
        self._ending = Ending(self._reactor, self.crowd, self._events)
        self.crowd.probes = self._configuration.probes
        self.observer = Observer(
            self._reactor,
            self.meter,
            self.crowd,
            self._renewal,
            lambda: self.assembly,
            lambda: not self.running,
            lambda: self._summary.recent,
        )
        super().startService()
        self._duties = [
            Every(self._reactor, TICK, self._summary.tick),
            Every(self._reactor, TICK, MemoryTrimmer(lambda: len(self.crowd.sessions)).trim),
            Every(self._reactor, FORGET, self.crowd.limits.forget),
            Every(self._reactor, INTERVAL, self._renewal.look),
        ]
        # For several workers the master keeps the report.
        keeps = self._shares is None
        self._remembering = Remembering(self._reactor, self._summary, self._events, self._watch, keeps=keeps)
        self._remembering.begin(self._configuration.report)
        self.tell_of_certificates()
        tell_unused(self._configuration, self._events)
        for watch in self._watches(self.assembly):
            watch.start()
        # All of them: a worker may start after a reload that opened none.
        for door, _, _ in self.assembly.doors:
            self._open(door)
        self._administration.use(self._reactor, self.observer)
        if self._shares is None:
            self._desk.serve(self._reactor, self.ask, self._words)

        # What is there now stays; no collection need look through it again.
        gc.collect()
        gc.freeze()

    def _open(self, door: Door) -> None:
        door.open(self._reactor, self.crowd.accept, self._summed.emit, self._seat)
        for address in door.addresses:
            tell_listening(door.opening, address, self._events)

    def _words(self) -> str:
        refused = self.last_reload is not None and not self.last_reload.good
        return words(len(self.crowd.sessions), self.left, refused)

    # --- reload ------------------------------------------------------------------------------

    def reload(self) -> Reload:
        """Read the file again and use it: all of it, or nothing where anything in it cannot be used.

        Certificates that have changed are served in either case, and so is what was served of those that are bad now.
        """
        self._desk.reloading()
        self.look_at_certificates()
        outcome = self.last_reload = self._reload()
        tell_reload(outcome, self._events)
        if self.running:
            self._desk.reloaded()
        return outcome

    def _reload(self) -> Reload:
        now = datetime.now(timezone.utc)
        if self._source is None or self._assembly is None:
            return Reload(now, problems=("there is no configuration file to be read",))
        file = self._source.path
        if not self.running:
            return Reload(now, file, ("the gateway is about to stop",))
        before, loaded = self._assembly, self._renewal.files | self._assembly.files
        try:
            configuration = self._source.again(loaded)
            self._prepare_admin(configuration)
            assembly = self._assemble(configuration, before)
        except ConfigurationError as wrong:
            return Reload(now, file, tuple(wrong.problems))
        except StartError as wrong:
            return Reload(now, file, (f"{file}: {wrong}",))
        try:
            self._desk.move(configuration.control)
        except ControlError as wrong:
            assembly.give_up()
            self._administration.give_up()
            self._renewal.keep(before.servers.values())
            return Reload(now, file, (f"{file}: [gateway] control: {wrong}",))
        self._use(assembly, before)
        return Reload(
            now,
            file,
            changes=changes(before.configuration, configuration),
            opened=tuple(address for door in assembly.opened for address in door.addresses),
            closed=tuple(address for door in assembly.closed for address in door.addresses),
            warnings=tuple(self._renewal.refused),
        )

    def _use(self, assembly: Assembly, before: Assembly) -> None:
        """Nothing in here can fail for a reason that lies in the file."""
        configuration = assembly.configuration
        if isinstance(self._log_events, Events):
            self._log_events.form = FORMATS[configuration.log]
        self._summary.optional = configuration.log_connects
        self._remembering.use(configuration.report)
        for door in assembly.closed:
            door.retire()
        assembly.use()
        for door in assembly.opened:
            self._open(door)
        watches, earlier = self._watches(assembly), self._watches(before)
        for watch in earlier:
            if watch not in watches:
                watch.stop()
        for watch in watches:
            if watch not in earlier:
                watch.start()
        self.crowd.limit(configuration.limits)
        self.crowd.probes = configuration.probes
        self._administration.use(self._reactor, self.observer)
        self.drained.keep(configuration)
        self._keep(assembly)
        self._renewal.tell_together()
        tell_unused(configuration, self._events)

    def _keep(self, assembly: Assembly) -> None:
        self._assembly, self._configuration = assembly, assembly.configuration
        self._renewal.hostname = assembly.configuration.hostname
        self._renewal.keep(assembly.servers.values())

    def _tell_unreadable(self) -> None:
        for line in self._renewal.still_readable():
            self._events.emit("certificate", state="unreadable", detail=line)

    # --- one of several workers --------------------------------------------------------------

    def settle(self, worker: int, workers: int, ledger: Ledger) -> None:
        """Before the start: which worker this is, of how many, and where limits are counted for all of them."""
        self._seat = (worker, workers)
        self._ledger = ledger

    def use(self, configuration: Configuration) -> None:
        """Another configuration, which the master has read.  Raises StartError; then nothing has changed."""
        before = self.assembly
        assembly = self._assembler.assemble(configuration, before)
        if self.running:
            self._use(assembly, before)
        else:
            self._keep(assembly)
            assembly.use()
            for door in assembly.closed:
                door.port.close()

    def look_at_certificates(self) -> None:
        """Now, and tell what is refused."""
        self._tell_unreadable()
        # What is refused is told when it is found a second time, for a pair is two files.  Now both are there.
        self._renewal.look()
        self._renewal.look()

    def look(self) -> None:
        """Whether certificates have changed."""
        self._renewal.look()

    def tell_of_certificates(self) -> None:
        """After privileges were dropped."""
        self._tell_unreadable()
        self._renewal.tell_together()

    def close_doors(self) -> None:
        """Nobody can connect here any more.  Sessions go on."""
        for door, _, _ in self.assembly.doors:
            door.close()

    def _watches(self, assembly: Assembly) -> list[RelayWatch]:
        """Those that ask backends here: the master asks for all workers."""
        return assembly.watches if self._shares is None else []

    # --- another program takes over ----------------------------------------------------------

    @property
    def reachable(self) -> Collection[Reachable]:
        """The backends, each with what is known of it."""
        return self.assembly.backends.values()

    @property
    def is_serving(self) -> bool:
        return bool(self.running)

    def bequest(self) -> Bequest:
        ports = [*(door.port for door, _, _ in self.assembly.doors), *self._administration.ports]
        return Bequest(ports, self.crowd.share(), knowledge(self.reachable))

    def hand_over(self, then: Callable[[], None]) -> None:
        """The successor serves.  When this gateway stops, its sessions go on for a long time."""
        self._patience = self._configuration.old_sessions
        self.close_doors()
        self._administration.stop()
        if self._shares is None:
            self._desk.close()
        then()

    def took_over(self) -> None:
        """The predecessor has let go of the control socket."""
        self._desk.open_late(self._configuration.control)

    def inherited(self) -> None:
        """The predecessor has ended."""
        if self._inheritance is not None and self._inheritance.ledger is not None:
            self._inheritance.ledger.end(self._inheritance.before)

    # --- stop --------------------------------------------------------------------------------

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        self.close_doors()
        for watch in self._watches(self.assembly):
            watch.stop()
        self.crowd.drop_held()
        stopped = self._ending.begin(self._configuration.drain, self._patience)
        if self._shares is None:
            self._desk.stopping()
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
        self._remembering.stop()
        self.observer.stop()
        self._administration.stop()
        self._desk.close()


def tell_listening(opening: Opening, address: str, events: Teller) -> None:
    """`address`: with the real port, where port 0 was asked for."""
    backend = opening.service.backend
    events.emit(
        "listening",
        service=opening.service.name,
        protocol=opening.service.protocol,
        mode="implicit" if opening.implicit else "starttls",
        policy=opening.policy,
        connect="lazy" if backend.lazy and not opening.implicit else "eager",
        address=address,
    )


def tell_unused(configuration: Configuration, events: Teller) -> None:
    """Connections to a socket that systemd passed and nobody accepts from would wait for ever."""
    used = {one.address.name for one in openings(configuration) if isinstance(one.address, SystemdAddress)}
    for name, place in inherited():
        if name not in used:
            events.emit(
                "unused-socket",
                name=name,
                address=place,
                cure=f"write systemd:{name} in the starttls or implicit of a service, or disable its .socket unit",
            )


def tell_reload(outcome: Reload, events: Teller) -> None:
    events.emit(
        "reload",
        result="ok" if outcome.good else "refused",
        problems=len(outcome.problems) or None,
        detail=" | ".join(outcome.problems or outcome.changes) or None,
        opened=" ".join(outcome.opened) or None,
        closed=" ".join(outcome.closed) or None,
    )
