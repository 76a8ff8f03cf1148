"""What the master of several workers starts, watches over, and hears."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from ...config.values import Backend, Configuration
from ...guard.memory import MemoryTrimmer
from ...guard.relaywatch import RelayWatch
from ...guard.shared import SharedLedger
from ...sessions.agreed import channels_each
from ...telemetry.events import Events
from ..assembly import Assembly, Reachable
from ..crowd import killed_by, lowered, raise_descriptor_limit
from ..desk import Desk
from ..every import Every
from ..handover import Inheritance
from ..knowledge import verdicts
from ..plan import Opening, openings
from ..ports import Binder, Port, described, descriptors_of
from ..program import TICK, Program
from ..remembering import Remembering
from ..source import Source
from ..telling import tell_listening, tell_unused
from .asking import Asking, Replies
from .fleet import Fleet
from .forwarding import pass_on
from .messages import Message
from .nursery import Nursery
from .orders import Orders
from .seats import Seats


class Supervision(Program):
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
        StartError where the start is not wanted any more.  All others: as `Program` has them."""
        self._binder = Binder(configuration.workers, inheritance)
        super().__init__(configuration, events, source, desk, self._binder, inheritance)
        self.workers = configuration.workers
        self._runner = runner
        self._log = log
        self._wanted = wanted
        self._loud: set[int] = set()
        """Workers that still accept, at a hand-over."""
        self._elsewhere: Sequence[str] | None = None
        """Where the successor serves, if it says so."""
        self._quiet: Callable[[], None] = nothing
        """Called when there is none."""
        self._bound: list[tuple[Port, Opening]] = []
        self._refused_certificates: Sequence[str] = ()
        self._ledger: SharedLedger | None = None
        self._nursery = Nursery(self._events, self._heard_template, self._hear_words)
        self._stopped: Deferred[None] | None = None
        self._hurried = False
        self._stopping = False
        self._deadline: Any = None
        self._until = 0.0
        """When a stop has to be over, by the reactor's clock."""

    # --- what the master adds ------------------------------------------------------------------------

    @abstractmethod
    def _stop_workers(self) -> None:
        """The template has closed its sockets."""

    @abstractmethod
    def empty(self) -> None:
        """No worker is there any more."""

    # --- what there is -------------------------------------------------------------------------------

    @property
    def is_serving(self) -> bool:
        return bool(self.running) and self._seats.all_serve

    @property
    def sessions(self) -> int:
        return 0 if self._ledger is None else self._ledger.total

    @property
    def left(self) -> float | None:
        return max(0.0, self._until - self.reactor.seconds()) if self._stopping else None

    @property
    def ports(self) -> list[Port]:
        return [port for port, _ in self._bound]

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

    def _share(self) -> SharedLedger:
        assert self._ledger is not None
        return self._ledger

    # --- start ---------------------------------------------------------------------------------------

    def privilegedStartService(self) -> None:
        if self._ledger is not None:
            return
        configuration = self._configuration
        self._assembly = assembly_of(configuration, self._assembler.backends(configuration))
        wanted = openings(configuration)
        self._administration.prepare(configuration)
        try:
            self._bound = list(zip(self._binder((), wanted).ports, wanted, strict=True))
            make = self._inheritance.ledger or partial(SharedLedger.create, configuration.limits.sessions)
            self._ledger = make(killed_by(self._events))
            self._inheritance.close()
            self._acting.begin()
            self.knowledge.learn(self._inheritance.knowledge)
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
            [described(port) for port in self.ports],
            descriptors_of(self.ports),
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
        reactor, limits = self.reactor, self._configuration.limits
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
            lambda: [(address, opening) for port, opening in self._bound for address in port.addresses],
            lambda: self._stopping,
            lambda: self._summary.recent,
        )
        self._remembering = Remembering(reactor, self._summary, self._events, self._watch)
        self._remembering.use(self._configuration.report)
        tell_unused(self._configuration, self._events)
        for watch in self._watches(self.assembly):
            watch.start()
        self._nursery.attend(reactor, self._template_lost, self._wants_template, self._seats.fill)
        self._seats.fill()
        self._administration.serve(reactor, self._fleet, self.ask, lambda: self._configuration)
        for port, opening in self._bound:
            for address in port.addresses:
                tell_listening(opening, address, self._events)
        self._desk.serve(reactor, self.ask, self._words, lambda: self.ports)

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
                self.knowledge.learn([message])
                self._seats.say_all(message, but=worker)

    def lost(self, worker: int) -> None:
        """It has ended: nobody waits for its answers."""
        self._asking.gone(worker)

    def known(self) -> list[Message]:
        """What a new worker has to know before it serves."""
        return self.knowledge.told()

    def _tell_bans(self) -> Deferred[Replies]:
        """Fires when all workers know."""
        self._seats.say_all(self._acting.knowledge)
        return self._asking.ask({"heard": True})

    def _watches(self, assembly: Assembly) -> list[RelayWatch]:
        """Their verdicts go to all workers."""
        for backend in assembly.backends.values():
            if backend.watch is not None:
                backend.watch.changed = partial(self._tell_verdicts, backend.values.name, backend.watch)
        return assembly.watches

    def _tell_verdicts(self, name: str, watch: RelayWatch) -> None:
        self._seats.say_all(verdicts(name, watch))

    def _close_ports(self) -> None:
        for port, _ in self._bound:
            port.close()
        self._bound.clear()

    def abandon(self) -> None:
        super().abandon()
        self._close_ports()
        self._nursery.end()


def assembly_of(configuration: Configuration, backends: Mapping[Backend, Reachable]) -> Assembly:
    return Assembly(configuration, backends, {}, ())


def nothing() -> None:
    pass
