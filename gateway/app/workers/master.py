"""The master of several workers: it binds, watches over them, and tells; it serves nobody itself.

It has the one log with its budgets, asks backends whether they relay, and knows of each backend what any worker found
out.  A worker that dies, or gives no sign of life for SILENCE seconds, is replaced.  Its sockets are the master's: what
waited in their queues is served by the next one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from ...config.errors import ConfigurationError, StartError
from ...config.values import Backend, Configuration
from ...guard.relaywatch import RelayWatch
from ...guard.shared import SharedLedger
from ...sessions.deadline import Deadline
from ...telemetry.events import FORMATS, Events
from ...telemetry.meter import Meter
from ...telemetry.report.watch import Watch
from ...telemetry.summary import Summary, SummedEvents
from ...wire.tls.renewal import Renewal
from ..administration import Administration
from ..assembly import Assembler, Assembly, Reachable
from ..control.messages import Answer, Request
from ..control.place import ControlError
from ..crowd import lowered, raise_descriptor_limit
from ..desk import Desk, words
from ..every import Every
from ..handover import Bequest, Inheritance
from ..knowledge import knowledge, learn, verdicts
from ..plan import Opening, Reload, changes, named, openings
from ..ports import Binder, Change, Port
from ..remembering import Remembering
from ..service import TICK, tell_listening, tell_reload, tell_unused
from ..source import Source
from ..steering import about, outlined
from .asking import Asking
from .fleet import Fleet
from .messages import Message
from .nursery import Nursery
from .orders import Orders, described, packed
from .relay import pass_on
from .seats import Seats

QUIET: Final = 5.0
"""Seconds that workers may take to accept nobody any more."""
AFTER_DRAIN: Final = 3.0
"""Seconds that workers may take to end after the time for their sessions is over; then they are killed."""
PROGRESS: Final = 10.0
"""Seconds between two lines that tell how many sessions are left."""
OVER: Final = "the time of [gateway] drain is over: they are cut off"
HURRIED: Final = "asked a second time: they are cut off"
GOING_ON: Final = "a second SIGTERM or SIGINT ends them now"
AGAIN_SHORTEST, AGAIN_LONGEST = 1.0, 60.0
"""Seconds until a template that broke down is started again, doubled each time."""


class Master(Service):
    """`privilegedStartService` and `startService` raise StartError with the one line that an operator needs.

    The Deferred of `stopService` fires when the last worker is gone.
    """

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
        self._source = source
        self._runner = runner
        self._log = log
        self._wanted = wanted
        self._desk = desk
        self.meter = Meter()
        self._summary = Summary(events, lambda: float(self._reactor.seconds()), self.meter.hear)
        self._summary.optional = configuration.log_connects
        self._summed = self._events = SummedEvents(events, self._summary)
        self._assembler = Assembler(lambda: self._reactor, self._events, self._summed, Renewal(self._events.emit))
        self._handed = inheritance is not None
        self._inheritance = inheritance or Inheritance()
        self._administration = Administration(self._events, self._inheritance.take)
        self._loud: set[int] = set()
        """Workers that still accept, at a hand-over."""
        self._quiet: Callable[[], None] = _nothing
        """Called when there is none."""
        self._binder = Binder(configuration.workers, self._inheritance.take)
        self._patience = 0.0
        """Seconds for which sessions go on at a stop before they have to end."""
        self._assembly: Assembly | None = None
        """Of the backends only: services are the workers'."""
        self._ports: list[tuple[Port, Opening]] = []
        self.last_reload: Reload | None = None
        self._ledger: SharedLedger | None = None
        self._nursery = Nursery(self._heard_template, self._hear_words)
        self._breakdowns = 0
        self._duties: list[Every] = []
        self._stopped: Deferred[None] | None = None
        self._hurried = False
        self._stopping = False
        self._deadline: Any = None

    @property
    def assembly(self) -> Assembly:
        assert self._assembly is not None, "nothing was bound yet"
        return self._assembly

    @property
    def _reactor(self) -> Any:
        from twisted.internet import reactor  # not before twistd's -r has chosen it

        return reactor

    # --- start ---------------------------------------------------------------------------------------

    def privilegedStartService(self) -> None:
        if self._ledger is not None:
            return
        configuration = self._configuration
        self._assembly = _assembly(configuration, self._assembler.backends(configuration))
        wanted = openings(configuration)
        self._administration.prepare(configuration)
        try:
            self._ports = list(zip(self._binder((), wanted).ports, wanted, strict=True))
            self._ledger = self._inheritance.ledger or SharedLedger.create(configuration.limits.sessions)
            self._inheritance.close()
            for message in self._inheritance.knowledge:
                learn(self._reachable(), message)
            self._nursery.launch(self._orders, self._wanted)
            # After the template has begun: it has no part in this socket.
            self._desk.open(configuration.control, later=self._handed)
        except BaseException:
            self._close()
            raise

    def _orders(self, theirs: int) -> Orders:
        assert self._ledger is not None
        runner = self._runner
        return Orders(
            self._configuration,
            described([port for port, _ in self._ports]),
            self.workers,
            self._ledger.descriptor,
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
        lowered(limits, descriptors, self.workers, self._events)
        super().startService()
        self._nursery.attend(reactor, self._template_lost)
        self._seats = Seats(reactor, self.workers, self._ledger, self._events, self)
        self._asking = Asking(reactor, self._seats.serving, self._seats.say)
        self._duties = [Every(reactor, TICK, self._summary.tick)]
        self._fleet = Fleet(
            reactor,
            self.meter,
            self._seats,
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
        self._seats.fill()
        self._administration.use(reactor, self._fleet)
        for port, opening in self._ports:
            for address in port.addresses:
                tell_listening(opening, address, self._events)
        self._desk.serve(reactor, self.ask, self._words)

    def _words(self) -> str:
        left = max(0.0, self._until - self._reactor.seconds()) if self._stopping else None
        return words(self.sessions, left, self.last_reload is not None and not self.last_reload.good)

    # --- what is asked -------------------------------------------------------------------------------

    def ask(self, request: Request) -> Answer | Deferred[Answer]:
        """What somebody wants to know or to have done."""
        drained = self._assembler.drained
        match request.command:
            case "reload":
                outcome = self.reload()
                return Answer(outlined(outcome) or {}, outcome.problems)
            case "status":
                return self._asking.ask(request).addCallback(self._whole)
            case "drain" | "undrain" as command:
                try:
                    what, names = named(request.about, self._configuration)
                except ValueError as wrong:
                    return Answer({}, (str(wrong),))
                # Workers to come have to know it, too.
                drained.mark(what, names, command == "drain")
        return self._asking.ask(request)

    def _whole(self, answer: Answer) -> Answer:
        """What no worker knows."""
        whole = {"gateway": about(self._configuration, self._source.path), "reload": outlined(self.last_reload)}
        return Answer({**answer.result, **whole} if answer.result else {}, answer.problems)

    # --- the template --------------------------------------------------------------------------------

    def fork(self, number: int, column: int, descriptor: int) -> bool:
        """Ask for a worker.  False where there is no template now."""
        return self._nursery.say({"fork": number, "column": column}, [descriptor])

    def kill(self, pid: int) -> None:
        if not self._nursery.say({"kill": pid}):
            # Its parent is gone; a number is not given to another process that soon.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _heard_template(self, message: Message) -> None:
        match message:
            case {"event": _}:
                pass_on(message, self._events, self._summed)
            case {"closed": _} if self._stopping:
                self._stop_workers()
            case {"closed": _}:
                self._seats.say_all({"hand over": True})
            case {"forked": int(number), "pid": int(pid)}:
                self._seats.forked(number, pid)
            case {"died": int(pid), "code": int(code)}:
                self._seats.died(pid, code)

    def _hear_words(self, words: str) -> None:
        self._events.emit("log", level="error", message=words)

    def _template_lost(self) -> None:
        if self._stopping:
            self._stop_workers()
            return
        delay = min(AGAIN_LONGEST, AGAIN_SHORTEST * 2.0**self._breakdowns)
        self._breakdowns += 1
        self._events.emit(
            "worker",
            state="no-template",
            detail=f"the process that workers are forked from is gone; the next one is started in {delay:.0f} s, and "
            "workers that are there go on",
        )
        self._reactor.callLater(delay, self._launch_again)

    def _launch_again(self) -> None:
        if self._stopping:
            return
        try:
            self._nursery.launch(self._orders, lambda: None)
        except StartError as wrong:
            self._events.emit("worker", state="no-template", detail=str(wrong))
            self._template_lost()
            return
        self._nursery.attend(self._reactor, self._template_lost)
        self._seats.fill()

    # --- what workers say ----------------------------------------------------------------------------

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
            case {"observed": _}:
                self._fleet.told(worker, message)
            case {"dropped": int(count)}:
                self._events.emit("worker", state="lines-lost", worker=worker, count=count)
            case {"health": _}:
                learn(self._reachable(), message)
                self._seats.say_all(message, but=worker)

    def knowledge(self) -> list[Message]:
        """What a new worker has to know before it serves."""
        drained = self._assembler.drained
        known: list[Message] = [{"drained": list(drained.addresses), "closed": list(drained.services)}]
        return [*known, *knowledge(self._reachable())]

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

    # --- reload --------------------------------------------------------------------------------------

    def reload(self) -> Reload:
        """Read the file again and use it: all of it, or nothing where anything in it cannot be used."""
        self._desk.reloading()
        self._nursery.ask({"look": True}, ())
        self._seats.say_all({"look": True})
        outcome = self.last_reload = self._reload()
        tell_reload(outcome, self._events)
        if self.running:
            self._desk.reloaded()
        return outcome

    def _reload(self) -> Reload:
        now, file = datetime.now(timezone.utc), self._source.path
        if not self.running:
            return Reload(now, file, ("the gateway is about to stop",))
        before = self.assembly
        try:
            configuration = self._source.again(_files(before.configuration))
            self._administration.prepare(configuration)
            backends = self._assembler.backends(configuration, before)
            change = self._binder(self._ports, openings(configuration))
        except ConfigurationError as wrong:
            return Reload(now, file, tuple(wrong.problems))
        except StartError as wrong:
            self._administration.give_up()
            return Reload(now, file, (f"{file}: {wrong}",))
        try:
            self._desk.move(configuration.control)
        except ControlError as wrong:
            self._administration.give_up()
            for port in change.opened.values():
                port.close()
            return Reload(now, file, (f"{file}: [gateway] control: {wrong}",))
        message, descriptors = packed(configuration, change)
        try:
            if fault := self._nursery.ask(message, descriptors):
                self._administration.give_up()
                for port in change.opened.values():
                    port.close()
                return Reload(now, file, (f"{file}: {fault}",))
            self._seats.hand_all(message, descriptors)
        finally:
            os.close(descriptors[0])
        self._use(_assembly(configuration, backends), before, change)
        restart = ("[gateway] workers changes with the next start",) * (configuration.workers != self.workers)
        return Reload(
            now,
            file,
            changes=changes(before.configuration, configuration),
            opened=tuple(address for port in change.opened.values() for address in port.addresses),
            closed=tuple(address for port in change.closed for address in port.addresses),
            warnings=restart,
        )

    def _use(self, assembly: Assembly, before: Assembly, change: Change) -> None:
        configuration = assembly.configuration
        wanted = openings(configuration)
        self._assembly, self._configuration = assembly, configuration
        self._assembler.drained.keep(configuration)
        self._ports = list(zip(change.ports, wanted, strict=True))
        for port in change.closed:
            port.close()
        for position, port in change.opened.items():
            for address in port.addresses:
                tell_listening(wanted[position], address, self._events)
        self._log_events.form = FORMATS[configuration.log]
        self._summary.optional = configuration.log_connects
        self._remembering.use(configuration.report)
        self._administration.use(self._reactor, self._fleet)
        watches = self._watch(assembly)
        for watch in before.watches:
            if watch not in watches:
                watch.stop()
        for watch in watches:
            if watch not in before.watches:
                watch.start()
        for message in self.knowledge():
            self._seats.say_all(message)
        tell_unused(configuration, self._events)

    # --- another program takes over ------------------------------------------------------------------

    @property
    def is_serving(self) -> bool:
        return bool(self.running) and self._seats.all_serve

    def bequest(self) -> Bequest:
        assert self._ledger is not None
        ports = [*(port for port, _ in self._ports), *self._administration.ports]
        return Bequest(ports, self._ledger, self.knowledge())

    def hand_over(self, then: Callable[[], None]) -> None:
        """The successor serves.  When this gateway stops, its sessions go on for a long time."""
        self._patience = self._configuration.old_sessions
        self._loud = self._seats.hold()
        self._desk.close()
        self._administration.stop()

        def once() -> None:
            waiting.cancel()
            self._quiet = _nothing
            then()

        self._quiet = once
        waiting = Deadline(self._reactor, once)
        waiting.set(self._reactor.seconds() + QUIET)
        self._close_ports()
        if not self._nursery.say({"close": True}):
            self._seats.say_all({"hand over": True})

    def took_over(self) -> None:
        """The predecessor has let go of the control socket."""
        self._desk.open_late(self._configuration.control)

    def inherited(self) -> None:
        """The predecessor has ended."""
        if self._inheritance.ledger is not None:
            self._inheritance.ledger.end(self._inheritance.before)

    # --- stop ----------------------------------------------------------------------------------------

    @property
    def sessions(self) -> int:
        return 0 if self._ledger is None else self._ledger.total

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        self._stopping = True
        for watch in self.assembly.watches:
            watch.stop()
        self._close_ports()
        stopped = self._stopped = Deferred()
        drain = self._patience + self._configuration.drain
        self._until = self._reactor.seconds() + drain
        self._desk.stopping()
        if not self.sessions:
            self._tell_stop(None)
        elif not self._hurried:
            until = datetime.now(timezone.utc) + timedelta(seconds=drain)
            self._tell_stop(GOING_ON, until.isoformat(timespec="seconds"))
        self._duties.append(Every(self._reactor, PROGRESS, self._tell_progress))
        self._deadline = self._reactor.callLater(drain, self._tell_over)
        # A client that hears the goodbye of a worker finds nobody who listens.
        if not self._nursery.say({"close": True}):
            self._stop_workers()
        return stopped

    def _stop_workers(self) -> None:
        self._seats.stop()
        if self._hurried:
            self._hurry_now()

    def hurry(self) -> None:
        """Cut off whoever is still there: now if the gateway stops already, and else when it does."""
        self._hurried = True
        if self._stopped is not None:
            self._hurry_now()

    def _hurry_now(self) -> None:
        self._tell_stop(HURRIED)
        self._seats.say_all({"hurry": True})
        self._deadline.cancel()
        self._deadline = self._reactor.callLater(AFTER_DRAIN, self._kill_all)

    def _tell_progress(self) -> None:
        left = self._until - self._reactor.seconds()
        if 0 < left <= self._configuration.drain and not self._hurried:
            self._tell_stop(GOING_ON, left=round(left))

    def _tell_stop(self, detail: str | None, until: str | None = None, left: int | None = None) -> None:
        self._events.emit("stopping", sessions=self.sessions, until=until, left=left, detail=detail)

    def _tell_over(self) -> None:
        # The workers cut their sessions off by themselves.
        self._tell_stop(OVER)
        self._deadline = self._reactor.callLater(AFTER_DRAIN, self._kill_all)

    def _kill_all(self) -> None:
        for pid in self._seats.pids():
            self.kill(pid)

    def empty(self) -> None:
        """No worker is there any more."""
        if self._stopped is None:
            return
        if self._deadline.active():
            self._deadline.cancel()
        for duty in self._duties:
            duty.stop()
        self._duties.clear()
        self._nursery.end()
        self._summary.flush()
        self._remembering.stop()
        self._asking.stop()
        self._desk.close()
        self._administration.stop()
        stopped, self._stopped = self._stopped, None
        stopped.callback(None)

    def _close_ports(self) -> None:
        for port, _ in self._ports:
            port.close()
        self._ports.clear()

    def _close(self) -> None:
        """It has not started."""
        self._administration.stop()
        self._close_ports()
        self._desk.close()
        self._nursery.end()


def _assembly(configuration: Configuration, backends: Mapping[Backend, Reachable]) -> Assembly:
    return Assembly(configuration, backends, {}, ())


def _nothing() -> None:
    pass


def _files(configuration: Configuration) -> set[Path]:
    """Files whose content is in use."""
    found: set[Path | None] = set()
    for service in configuration.services:
        found |= {service.tls.client_ca, service.backend.ca}
        found |= {file for pair in service.tls.pairs for file in (pair.certificate, pair.key)}
    return {file for file in found if file is not None}
