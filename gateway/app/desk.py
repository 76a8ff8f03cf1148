"""Where the gateway is steered from and watched: its control socket, and systemd."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed

from ..config.errors import StartError
from ..config.values import Control
from ..telemetry.summary import Teller
from ..telemetry.words import counted
from .control.answers import OF_SESSIONS, joined
from .control.messages import Answer, Request
from .control.place import ControlError, ControlSocket
from .control.server import Ask, Server
from .elders import Elders
from .every import Every
from .handover import Inheritance
from .notify import Notifier
from .ports import Port
from .store import kept, names, stored
from .upgrade import Outcome

STATUS = 10.0
"""Seconds between two looks whether systemd's status text has changed."""
DRAINING = 1.0
"""The same while the gateway stops: the text tells how many seconds are left."""


def nothing_to_upgrade() -> Deferred[Outcome]:
    raise StartError("there is nothing that another program could take over")


def no_elders() -> None:
    """There is no program before this one."""


class Desk:
    """Nothing happens before it is opened."""

    def __init__(
        self,
        events: Teller,
        user: int | None = None,
        upgrade: Callable[[], Deferred[Outcome]] = nothing_to_upgrade,
        inheritance: Inheritance | None = None,
        elders: Callable[[], Elders | None] = no_elders,
    ) -> None:
        """`user`: whom the process becomes before it serves.  `upgrade`: starts a successor.  `inheritance`: of the
        program that this one takes the place of, whose the control socket is until then.  `elders`: programs
        before this one, if there can be any."""
        self._events = events
        self._user = user
        self._upgrade = upgrade
        self._elders = elders
        self._inheritance = inheritance
        self._notifier = Notifier()
        self._notifier.kept = stored() if inheritance is None else names(inheritance.sockets)
        self._ports: Callable[[], Iterable[Port]] = tuple
        self._control: ControlSocket | None = None
        self._prepared: ControlSocket | None = None
        """The one that a reload may use."""
        self._former: Control | None = None
        """The rights of the socket before they were changed for a reload."""
        self._server: Server | None = None
        self._duties: list[Every] = []
        self._reactor: Any = None
        self._ask: Ask | None = None
        self._status: Callable[[], str] = str

    def open(self, values: Control) -> None:
        """With all rights.  Raises StartError."""
        self._notifier.open()
        if self._inheritance is not None:
            return  # `take_over` does it
        try:
            self._control = self._opened(values, self._user)
        except ControlError as wrong:
            raise StartError(f"[gateway] control: {wrong}") from None

    def take_over(self, values: Control) -> None:
        """The other program accepts nobody any more, here neither.  systemd learns which process the service is now."""
        assert self._inheritance is not None
        if self._inheritance.control is not None:
            self._control = ControlSocket.inherited(*self._inheritance.control)
            self._serve()
        try:
            self.prepare(values)
        except StartError as wrong:
            self._events.emit("control-unavailable", detail=str(wrong))
        else:
            self.use()
        self.reloaded()

    def _opened(self, values: Control, owner: int | None = None) -> ControlSocket | None:
        """Raises ControlError if the file names a socket that cannot be had."""
        if values.path is None:
            return None
        try:
            return ControlSocket(values, owner)
        except ControlError as wrong:
            if values.named:
                raise
            self._events.emit("control-unavailable", detail=str(wrong))
            return None

    def serve(self, reactor: Any, ask: Ask, status: Callable[[], str], ports: Callable[[], Iterable[Port]]) -> None:
        """The gateway serves from the next turn of the reactor on.  `ask` answers requests; `status` is a few words;
        `ports` are those that clients connect to."""
        self._reactor, self._ask, self._status, self._ports = reactor, ask, status, ports
        self._serve()
        self._duties = [Every(reactor, STATUS, self._tell)]
        if (seconds := self._notifier.watchdog) is not None:
            self._duties.append(Every(reactor, seconds, self._notifier.beat))
        if self._inheritance is None:
            reactor.callLater(0, self.reloaded)

    def _serve(self) -> None:
        self._server = None
        if self._control is not None and self._ask is not None:
            self._server = Server(self._reactor, self._control, self._answer, self._events)

    def _answer(self, request: Request) -> Any:
        """The Answer, or a Deferred of it."""
        assert self._ask is not None
        match request.command:
            case "upgrade":
                try:
                    return self._upgrade().addCallback(_told)
                except StartError as wrong:
                    return Answer({}, (str(wrong),))
            case "status":
                return maybeDeferred(self._ask, request).addCallback(self._with_old_programs)
        return self._ask(request)

    def _with_old_programs(self, answer: Answer) -> Answer:
        """To `status`."""
        if not answer.result:
            return answer
        elders = self._elders()
        return Answer({**answer.result, "old_programs": [] if elders is None else elders.rows()}, answer.problems)

    def with_elders(self, request: Request, own: Answer | Deferred[Answer]) -> Answer | Deferred[Answer]:
        """What this program answers, and what those before it answer for the sessions that they still have."""
        elders = self._elders() if request.command in OF_SESSIONS else None
        others = None if elders is None else elders.ask(request)
        if others is None:
            return own
        waited = own if isinstance(own, Deferred) else succeed(own)
        return others.addCallback(lambda found: waited.addCallback(lambda mine: joined(request, mine, found)))

    def _tell(self) -> None:
        self._notifier.status(self._status())

    # --- reload ------------------------------------------------------------------------------

    def reloading(self) -> None:
        self._notifier.reloading()

    def reloaded(self) -> None:
        self._notifier.keep(kept(self._ports()))
        self._notifier.ready(self._status())

    def prepare(self, values: Control) -> None:
        """Open the control socket where a new file wants it.  Raises StartError; then it is as it was.

        `use` and `give_up` end what this begins.
        """
        self._prepared, self._former = self._control, None
        if self._reactor is None:
            return  # it was never opened
        control = self._control
        try:
            if control is None or control.path != values.path:
                self._prepared = self._opened(values)
            elif control.values != values:
                former = control.values
                control.adjust(values)
                self._former = former
        except ControlError as wrong:
            raise StartError(f"[gateway] control: {wrong}") from None

    def use(self) -> None:
        """What was prepared."""
        if self._prepared is self._control:
            return
        server, self._control = self._server, self._prepared
        self._serve()
        if server is not None:
            # It may be about to answer the request that this is about.
            self._reactor.callLater(0, server.stop)

    def give_up(self) -> None:
        """What was prepared is not used."""
        if self._prepared is not self._control and self._prepared is not None:
            self._prepared.close()
        self._prepared = self._control
        if self._control is not None and self._former is not None:
            former, self._former = self._former, None
            # It had these rights a moment ago.
            with suppress(ControlError):
                self._control.adjust(former)

    # --- stop --------------------------------------------------------------------------------

    def stopping(self) -> None:
        """The gateway has begun to stop.  The control socket answers to the end."""
        self._notifier.stopping(self._status())
        if self._reactor is not None:
            self._duties.append(Every(self._reactor, DRAINING, self._tell))

    def hand_over(self) -> tuple[str, socket.socket] | None:
        """The control socket with its path, for a successor."""
        return None if self._control is None else (self._control.path, self._control.socket)

    def close(self, handed_over: bool = False) -> None:
        """`handed_over`: another program accepts at the control socket, and speaks with systemd."""
        for duty in self._duties:
            duty.stop()
        self._duties.clear()
        if self._server is not None:
            self._server.stop(remove=not handed_over)
        elif self._control is not None:
            self._control.close(remove=not handed_over)
        self._server = self._control = None
        self._notifier.close()


def _told(outcome: Outcome) -> Answer:
    if outcome.problem:
        return Answer({}, (f"the old program goes on: {outcome.problem}",))
    return Answer({"pid": outcome.pid, "version": outcome.version, "before": os.getpid()})


def words(sessions: int, left: float | None, refused: bool) -> str:
    """`left`: seconds until the last sessions are cut off, while the gateway stops.  `refused`: the last reload was."""
    if left is not None:
        return f"draining: {counted(sessions, 'session')}, {left:.0f} s left"
    return f"serving {counted(sessions, 'session')}{'; the last reload was refused' if refused else ''}"
