"""The gateway as twistd runs it: one process that serves by itself, or the master of several.

What both do alike is here: how they are steered, reloaded, handed over to another program, and ended.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from .. import __version__
from ..config.values import Configuration
from ..guard.relaywatch import RelayWatch
from ..guard.shared import SharedLedger
from ..telemetry.events import FORMATS, Events
from ..telemetry.meter import Meter
from ..telemetry.report.watch import Watch
from ..telemetry.summary import Summary, SummedEvents, Teller
from ..wire.tls.renewal import Renewal
from .acting import Acting
from .administration import Administration
from .assembly import Assembler, Assembly, Drained, Reachable
from .control.messages import Answer, Request, Result
from .desk import Desk, words
from .every import Every
from .handover import Bequest, Inheritance, stay_of
from .knowledge import Knowledge
from .plan import Reload
from .ports import Port, Ports
from .reloading import Reloader, Transition
from .remembering import Remembering
from .rights import user_name
from .source import Source

TICK = 10.0
"""Seconds between two looks whether a minute is over whose floods are to be told."""


class Program(Service):
    """`privilegedStartService` and `startService` raise StartError with the one line that an operator needs.

    The Deferred of `stopService` fires when nobody is inside any more.
    """

    _remembering: Remembering
    """From the start on."""

    def __init__(
        self,
        configuration: Configuration,
        events: Teller,
        source: Source | None,
        desk: Desk,
        ports: Ports,
        inheritance: Inheritance | None = None,
        sessions: Teller | None = None,
        reactor: Any = None,
    ) -> None:
        """`source`: the file, for those who want it read again.  `desk`: where it is steered from.  `ports`: where
        sockets come from.  `inheritance`: what another program has left, whose successor this one is.  `sessions`: of a
        worker, where its sessions tell their events: another process counts them."""
        self._configuration = configuration
        self._log_events = events
        self._given_reactor = reactor
        # No clock before twistd's -r has chosen one.
        self.meter = Meter()
        self._summary = Summary(events, lambda: float(self.reactor.seconds()), self.meter.hear)
        self._summary.optional = configuration.log_connects
        counted = SummedEvents(events, self._summary)
        self._summed: Teller = counted if sessions is None else sessions
        self._events: Teller = counted if sessions is None else events
        """Where everything else is told: it is counted as well."""
        self._renewal = Renewal(self._events.emit, hostname=configuration.hostname)
        self._watch = Watch()
        self._assembler = Assembler(lambda: self._loop, self._events, self._summed, self._renewal, self._watch, ports)
        self._assembly: Assembly | None = None
        self._desk = desk
        self._inheritance = inheritance or Inheritance()
        self._administration = Administration(self._events, self._inheritance)
        self.reloader = Reloader(self, source, desk, self._administration, self._events)
        self._acting = Acting(
            self._events,
            self._summary.failures,
            lambda: self._configuration,
            self._tell_bans,
            self.ask,
            lambda: self.reactor,
        )
        self.knowledge = Knowledge(lambda: self.reachable, self.drained, self._acting)
        self._duties: list[Every] = []
        self._patience = 0.0
        """Seconds for which sessions go on at a stop before they have to end."""

    # --- what differs ----------------------------------------------------------------------------------

    @property
    def _loop(self) -> Any:
        """The reactor for dialling, and for sessions where there are any."""
        return self.reactor

    @property
    @abstractmethod
    def is_serving(self) -> bool:
        """Whether all of it has started."""

    @property
    @abstractmethod
    def sessions(self) -> int:
        """How many are open."""

    @property
    @abstractmethod
    def left(self) -> float | None:
        """Seconds until the last sessions are cut off; None unless the gateway stops."""

    @property
    @abstractmethod
    def ports(self) -> list[Port]:
        """Those that clients connect to."""

    @property
    @abstractmethod
    def files(self) -> Collection[Path]:
        """Files whose content is in use: they need not be readable any more."""

    @property
    @abstractmethod
    def refused_certificates(self) -> Collection[str]:
        """Certificate files whose present content is not used, and why."""

    @abstractmethod
    def look_at_certificates(self) -> None:
        """Serve renewed certificates from now on."""

    @abstractmethod
    def prepare(self, configuration: Configuration) -> Transition:
        """The last part of a reload to be prepared.  Raises StartError with one line; then nothing has changed."""

    @abstractmethod
    def _answer(self, request: Request) -> Deferred[Answer]:
        """What is to be known of the sessions here, or done about them."""

    @abstractmethod
    def _tell_bans(self) -> Deferred[Any] | None:
        """To the other processes of the gateway.  Fires when all of them know."""

    @abstractmethod
    def _share(self) -> SharedLedger:
        """The counts of the limits, where other processes can count, too."""

    @abstractmethod
    def _watches(self, assembly: Assembly) -> list[RelayWatch]:
        """Those that ask backends from this process."""

    @abstractmethod
    def hand_over(self, then: Callable[[], None], elsewhere: Collection[str] | None) -> None:
        """Accept nobody any more, and call `then`.  When it stops, sessions go on for `[gateway] old_sessions`.

        `elsewhere`: where the successor serves, if it says so.  Whoever waits at other addresses is let in first."""

    @abstractmethod
    def lose_patience(self) -> None:
        """The successor stops, too: sessions have `[gateway] drain` to end, and no longer `old_sessions`."""

    @abstractmethod
    def hurry(self) -> None:
        """Cut off all sessions: now if the gateway is stopping, otherwise when it stops."""

    # --- what there is -----------------------------------------------------------------------------------

    @property
    def reactor(self) -> Any:
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
    def configuration(self) -> Configuration:
        """The one in use."""
        return self._configuration

    @property
    def drained(self) -> Drained:
        return self._assembler.drained

    @property
    def reachable(self) -> Collection[Reachable]:
        """The backends, each with what is known of it."""
        return self.assembly.backends.values()

    @property
    def listens(self) -> Collection[str]:
        """Addresses, as text, where clients are served."""
        return [address for port in self.ports for address in port.addresses]

    # --- what is asked -------------------------------------------------------------------------------------

    def ask(self, request: Request) -> Answer | Deferred[Answer]:
        """What somebody wants to know or to have done.  Programs before this one answer for their sessions, too."""
        if self._acting.answers(request):
            return self._acting.ask(request)
        match request.command:
            case "reload":
                outcome = self.reload()
                return Answer(_outlined(outcome), outcome.problems)
            case "status":
                return self._answer(request).addCallback(self._whole)
        return self._desk.with_elders(request, self._answer(request))

    def _whole(self, answer: Answer) -> Answer:
        """Of `status`, what holds for the gateway as a whole."""
        if not answer.result:
            return answer
        left, last = self.left, self.reloader.last
        whole = {
            "gateway": {
                "version": __version__,
                "hostname": self._configuration.hostname,
                "file": self.reloader.file,
                "user": user_name(os.geteuid()),
                "pid": os.getpid(),
            },
            "draining": None if left is None else {"sessions": answer.result["sessions"], "left": round(left, 3)},
            "reload": None if last is None else _outlined(last),
        }
        return Answer({**whole, **answer.result}, answer.problems)

    def _words(self) -> str:
        return words(self.sessions, self.left, self.reloader.was_refused)

    # --- reload ----------------------------------------------------------------------------------------------

    def reload(self) -> Reload:
        """SIGHUP: read the file again and use all of it, or nothing of it."""
        return self.reloader.reload()

    def _follow(self, assembly: Assembly, before: Assembly) -> None:
        """Use what another configuration says of all that listens to nobody."""
        configuration = assembly.configuration
        if isinstance(self._log_events, Events):
            self._log_events.form = FORMATS[configuration.log]
        self._summary.optional = configuration.log_connects
        self._remembering.use(configuration.report)
        self.drained.keep(configuration)
        watches, earlier = self._watches(assembly), self._watches(before)
        for watch in earlier:
            if watch not in watches:
                watch.stop()
        for watch in watches:
            if watch not in earlier:
                watch.start()

    # --- another program takes over --------------------------------------------------------------------------

    def bequest(self) -> Bequest:
        ports = [*self.ports, *self._administration.ports]
        stay = stay_of(self._configuration)
        return Bequest(ports, self._share(), self.knowledge.told(), self._desk.hand_over(), stay)

    def took_over(self) -> None:
        """The predecessor accepts nobody any more."""
        self._desk.take_over(self._configuration.control)

    # --- the end -----------------------------------------------------------------------------------------------

    def abandon(self) -> None:
        """The start has failed, or is not wanted any more: leave nothing behind, no file and no process."""
        self._administration.stop()
        self._desk.close()

    def _end(self) -> None:
        """The last session is gone."""
        for duty in self._duties:
            duty.stop()
        self._duties.clear()
        self._summary.flush()
        self._remembering.stop()
        self._administration.stop()
        self._desk.close()
        self._acting.end()


def _outlined(reload: Reload) -> Result:
    """A reload as an answer has it."""
    return {
        "time": reload.when.isoformat(timespec="seconds"),
        "file": reload.file,
        "good": reload.good,
        "problems": list(reload.problems),
        "changes": list(reload.changes),
        "opened": list(reload.opened),
        "closed": list(reload.closed),
        "warnings": list(reload.warnings),
    }
