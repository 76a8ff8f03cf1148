"""What the master of several workers starts, watches over, and hears."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from ...config.values import Backend, Configuration
from ...guard.memory import MemoryTrimmer
from ...guard.relaywatch import RelayWatch
from ...guard.shared import SharedLedger
from ...sessions.agreed import channels_each
from ...telemetry.events import Events
from ...telemetry.meter import Meter
from ...telemetry.report.watch import Watch
from ...telemetry.summary import Summary, SummedEvents
from ...wire.tls.renewal import Renewal
from ..acting import Acting
from ..administration import Administration
from ..assembly import Assembler, Assembly, Reachable
from ..control.messages import Answer, Request
from ..crowd import killed_by, lowered, raise_descriptor_limit
from ..desk import Desk, words
from ..every import Every
from ..handover import Inheritance
from ..knowledge import Knowledge, learn, verdicts
from ..plan import Opening, openings
from ..ports import Binder, Port
from ..reloading import Reloader, Transition
from ..remembering import Remembering
from ..serving import TICK
from ..source import Source
from ..telling import tell_listening, tell_unused
from .asking import Asking, Replies
from .fleet import Fleet
from .forwarding import pass_on
from .messages import Message
from .nursery import Nursery
from .orders import Orders, described
from .seats import Seats


class Supervision(Service):
    """The master up to its stop: the template, its workers, and what they say."""

    def __init__(
        self,
        configuration: Configuration,
        events: Events,
        source: Source,
        runner: Mapping[str, Any],
        log: Callable[[], int | None],
        wanted: Callable[[], None],
        desk: Desk,
        inheritance: Inheritance | None = None,
    ) -> None:
        """`runner`: twistd's options.  `log`: the descriptor of the log file, if there is one.  `wanted` raises
        StartError where the start is not wanted any more.  `desk`: where it is steered from."""
        self._configuration = configuration
        self.workers = configuration.workers
        self._log_events = events
        self._runner = runner
        self._log = log
        self._wanted = wanted
        self._desk = desk
        self.meter = Meter()
        self._summary = Summary(events, lambda: float(self._reactor.seconds()), self.meter.hear)
        self._summary.optional = configuration.log_connects
        self._summed = self._events = SummedEvents(events, self._summary)
        self._assembler = Assembler(lambda: self._reactor, self._events, self._summed, Renewal(self._events.emit))
        self._inheritance = inheritance or Inheritance()
        self._administration = Administration(self._events, self._inheritance)
        self._loud: set[int] = set()
        """Workers that still accept, at a hand-over."""
        self._elsewhere: Sequence[str] | None = None
        """Where the successor serves, if it says so."""
        self._quiet: Callable[[], None] = nothing
        """Called when there is none."""
        self._binder = Binder(configuration.workers, self._inheritance)
        self._patience = 0.0
        """Seconds for which sessions go on at a stop before they have to end."""
        self._assembly: Assembly | None = None
        """Of the backends only: services are the workers'."""
        self._ports: list[tuple[Port, Opening]] = []
        self.reloader = Reloader(self, source, desk, self._administration, self._events)
        self._refused_certificates: Sequence[str] = ()
        self._ledger: SharedLedger | None = None
        self._nursery = Nursery(self._events, self._heard_template, self._hear_words)
        self._duties: list[Every] = []
        self._stopped: Deferred[None] | None = None
        self._hurried = False
        self._stopping = False
        failures = self._summary.failures
        self._acting = Acting(
            self._events, failures, lambda: self._configuration, self._tell_bans, self.ask, lambda: self._reactor
        )
        self._knowledge = Knowledge(self._reachable, self._assembler.drained, self._acting)
        self._deadline: Any = None
        self._until = 0.0
        """When a stop has to be over, by the reactor's clock."""

    # --- what the master adds ------------------------------------------------------------------------

    @abstractmethod
    def ask(self, request: Request) -> Answer | Deferred[Answer]:
        """What somebody wants to know or to have done."""

    @abstractmethod
    def prepare(self, configuration: Configuration) -> Transition:
        """Raises StartError; then nothing has changed."""

    @abstractmethod
    def look_at_certificates(self) -> None:
        """Serve renewed certificates from now on."""

    @abstractmethod
    def _stop_workers(self) -> None:
        """The template has closed its sockets."""

    @abstractmethod
    def empty(self) -> None:
        """No worker is there any more."""

    # --- what a reload asks for ----------------------------------------------------------------------

    @property
    def configuration(self) -> Configuration:
        """The one in use."""
        return self._configuration

    @property
    def files(self) -> Collection[Path]:
        """Files whose content is in use."""
        found: set[Path | None] = set()
        for service in self._configuration.services:
            found |= {service.tls.client_ca, service.backend.ca}
            found |= {file for pair in service.tls.pairs for file in (pair.certificate, pair.key)}
        return {file for file in found if file is not None}

    @property
    def refused_certificates(self) -> Collection[str]:
        """Certificate files whose present content is not used, and why, as the template has found."""
        return self._refused_certificates

    # --- start ---------------------------------------------------------------------------------------

    @property
    def assembly(self) -> Assembly:
        assert self._assembly is not None, "nothing was bound yet"
        return self._assembly

    @property
    def _reactor(self) -> Any:
        from twisted.internet import reactor  # not before twistd's -r has chosen it

        return reactor

    def privilegedStartService(self) -> None:
        if self._ledger is not None:
            return
        configuration = self._configuration
        self._assembly = assembly_of(configuration, self._assembler.backends(configuration))
        wanted = openings(configuration)
        self._administration.prepare(configuration)
        try:
            self._ports = list(zip(self._binder((), wanted).ports, wanted, strict=True))
            make = self._inheritance.ledger or partial(SharedLedger.create, configuration.limits.sessions)
            self._ledger = make(killed_by(self._events))
            self._inheritance.close()
            self._acting.begin()
            self._knowledge.learn(self._inheritance.knowledge)
            self._nursery.launch(self._orders, self._wanted)
            # After the template has begun: it has no part in this socket.
            self._desk.open(configuration.control)
        except BaseException:
            self.abandon()
            raise

    def _orders(self, theirs: int) -> Orders:
        assert self._ledger is not None
        runner = self._runner
        return Orders(
            self._configuration,
            described([port for port, _ in self._ports]),
            self.workers,
            self._ledger.descriptor,
            self._ledger.generation,
            theirs,
            self._log(),
            self._configuration.log,
            runner.get("reactor"),
            runner.get("uid"),
            runner.get("gid"),
            bool(runner.get("euid")),
        )

    def startService(self) -> None:
        self.privilegedStartService()  # `twist` does not call it
        assert self._ledger is not None
        reactor, limits = self._reactor, self._configuration.limits
        descriptors = raise_descriptor_limit()
        lowered(limits, descriptors, self.workers, self._events, channels_each(self._configuration))
        super().startService()
        self._seats = Seats(reactor, self.workers, self._ledger, self._events, self)
        self._asking = Asking(reactor, self._seats.serving, self._seats.say)
        ledger = self._ledger
        trimmer = MemoryTrimmer(
            lambda: ledger.total_of(ledger.generation), lambda: (*self._summary.lasting, *self.meter.counts.lasting)
        )
        self._duties = [
            Every(reactor, TICK, self._summary.tick),
            Every(reactor, TICK, trimmer.trim),
            Every(reactor, TICK, self._acting.look),
        ]
        self._fleet = Fleet(
            self._asking,
            self.meter,
            lambda: self._configuration.hostname,
            lambda: [(address, opening) for port, opening in self._ports for address in port.addresses],
            lambda: self._stopping,
            lambda: self._summary.recent,
        )
        self._remembering = Remembering(reactor, self._summary, self._events, Watch())
        self._remembering.use(self._configuration.report)
        tell_unused(self._configuration, self._events)
        for watch in self._watch(self.assembly):
            watch.start()
        self._nursery.attend(reactor, self._template_lost, self._wants_template, self._seats.fill)
        self._seats.fill()
        self._administration.serve(reactor, self._fleet, self.ask, lambda: self._configuration)
        for port, opening in self._ports:
            for address in port.addresses:
                tell_listening(opening, address, self._events)
        self._desk.serve(reactor, self.ask, self._words, lambda: [port for port, _ in self._ports])

    def _words(self) -> str:
        return words(self.sessions, self.left, self.reloader.was_refused)

    @property
    def left(self) -> float | None:
        """Seconds until the last sessions are cut off; None unless the gateway stops."""
        return max(0.0, self._until - self._reactor.seconds()) if self._stopping else None

    def fork(self, number: int, column: int, descriptor: int) -> bool:
        """Ask for a worker.  False where there is no template now."""
        return self._nursery.say({"fork": number, "column": column}, [descriptor])

    def kill(self, pid: int) -> None:
        self._nursery.kill(pid)

    def _heard_template(self, message: Message) -> None:
        match message:
            case {"event": _}:
                pass_on(message, self._events, self._summed)
            case {"closed": _} if self._stopping:
                self._stop_workers()
            case {"closed": _}:
                self._hand_over_workers()
            case {"forked": int(number), "pid": int(pid)}:
                self._seats.forked(number, pid)
            case {"died": int(pid), "code": int(code)}:
                self._seats.died(pid, code)

    def _hand_over_workers(self) -> None:
        self._seats.say_all({"hand over": True, "elsewhere": self._elsewhere})

    def _hear_words(self, words: str) -> None:
        self._events.emit("log", level="error", message=words)

    def _template_lost(self) -> None:
        self._nursery.orphans = set(self._seats.pids())
        self._seats.childless()
        if self._stopping:
            self._stop_workers()
        elif self._seats.held:
            self._hand_over_workers()

    def _wants_template(self) -> bool:
        return not (self._stopping or self._seats.held)

    def told(self, worker: int, message: Message) -> None:
        match message:
            case {"event": _}:
                pass_on(message, self._events, self._summed)
            case {"answer": _}:
                self._asking.heard(worker, message)
            case {"quiet": _}:
                self._loud.discard(worker)
                if not self._loud:
                    self._quiet()
            case {"dropped": int(count)}:
                self._events.emit("worker", state="lines-lost", worker=worker, count=count)
            case {"health": _}:
                learn(self._reachable(), message)
                self._seats.say_all(message, but=worker)

    def lost(self, worker: int) -> None:
        """It has ended: nobody waits for its answers."""
        self._asking.gone(worker)

    def knowledge(self) -> list[Message]:
        """What a new worker has to know before it serves."""
        return self._knowledge.told()

    def _tell_bans(self) -> Deferred[Replies]:
        """Fires when all workers know."""
        self._seats.say_all(self._acting.knowledge)
        return self._asking.ask({"heard": True})

    def _reachable(self) -> Collection[Reachable]:
        return self.assembly.backends.values()

    def _watch(self, assembly: Assembly) -> list[RelayWatch]:
        """Their verdicts go to all workers."""
        for backend in assembly.backends.values():
            if backend.watch is not None:
                backend.watch.changed = partial(self._tell_verdicts, backend.values.name, backend.watch)
        return assembly.watches

    def _tell_verdicts(self, name: str, watch: RelayWatch) -> None:
        self._seats.say_all(verdicts(name, watch))

    @property
    def sessions(self) -> int:
        return 0 if self._ledger is None else self._ledger.total

    def _close_ports(self) -> None:
        for port, _ in self._ports:
            port.close()
        self._ports.clear()

    def abandon(self) -> None:
        """It has not started."""
        self._administration.stop()
        self._close_ports()
        self._desk.close()
        self._nursery.end()


def assembly_of(configuration: Configuration, backends: Mapping[Backend, Reachable]) -> Assembly:
    return Assembly(configuration, backends, {}, ())


def nothing() -> None:
    pass
