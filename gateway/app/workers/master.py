"""The master of several workers: it binds, watches over them, and tells; it serves nobody itself.

It has the one log with its budgets, asks backends whether they relay, and knows of each backend what any worker found
out.  A worker that dies, or gives no sign of life for SILENCE seconds, is replaced.  Its sockets are the master's: what
waited in their queues is served by the next one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred, succeed

from ...config.errors import StartError
from ...config.values import Configuration
from ...sessions.deadline import Deadline
from ..assembly import Assembly
from ..control.messages import Answer, Request
from ..ending import GOING_ON, HURRIED, OVER, PROGRESS, moment
from ..every import Every
from ..plan import named, openings
from ..ports import Change
from ..reloading import Transition
from ..telling import tell_listening, tell_unused
from .orders import packed
from .steered import answered, question
from .supervision import Supervision, assembly_of, nothing

QUIET: Final = 5.0
"""Seconds that workers may take to accept nobody any more."""
AFTER_DRAIN: Final = 3.0
"""Seconds that workers may take to end after the time for their sessions is over; then they are killed."""


class Master(Supervision):
    """The Deferred of `stopService` fires when the last worker is gone."""

    # --- what is asked -------------------------------------------------------------------------------

    def _answer(self, request: Request) -> Deferred[Answer]:
        if request.command in ("drain", "undrain"):
            try:
                what, names = named(request.about, self._configuration)
            except ValueError as wrong:
                return succeed(Answer({}, (str(wrong),)))
            # Workers to come have to know it, too.
            self.drained.mark(what, names, request.command == "drain")
        ends = self._stopping or self._seats.held
        return self._asking.ask(question(request), wait=not ends).addCallback(partial(answered, request, ends=ends))

    # --- reload --------------------------------------------------------------------------------------

    def look_at_certificates(self) -> None:
        # Without a template, which is told, workers look by themselves, within seconds.
        with suppress(StartError):
            self._refused_certificates = self._nursery.ask({"look": True}, ())
        self._seats.say_all({"look": True})

    def prepare(self, configuration: Configuration) -> Transition:
        """Raises StartError; then nothing has changed.

        The template uses the new configuration at once, and decides by that whether workers can.
        """
        before = self.assembly
        backends = self._assembler.backends(configuration, before)
        change = self._binder(self._bound, openings(configuration))
        message, descriptors = packed(configuration, change)
        try:
            self._refused_certificates = self._nursery.ask(message, descriptors)
        except StartError:
            os.close(descriptors[0])
            for port in change.opened.values():
                port.close()
            raise

        def use() -> None:
            self._seats.hand_all(message, descriptors)
            os.close(descriptors[0])
            self._use(assembly_of(configuration, backends), before, change)

        return Transition(
            [address for port in change.opened.values() for address in port.addresses],
            [address for port in change.closed for address in port.addresses],
            use,
        )

    def _use(self, assembly: Assembly, before: Assembly, change: Change) -> None:
        configuration = assembly.configuration
        wanted = openings(configuration)
        self._assembly, self._configuration = assembly, configuration
        self._bound = list(zip(change.ports, wanted, strict=True))
        for port in change.closed:
            port.close()
        for port, opening in self._bound:
            port.steer(opening)
        for position, port in change.opened.items():
            for address in port.addresses:
                tell_listening(wanted[position], address, self._events)
        self._follow(assembly, before)
        for message in self.known():
            self._seats.say_all(message)
        tell_unused(configuration, self._events)

    # --- another program takes over ------------------------------------------------------------------

    def hand_over(self, then: Callable[[], None], elsewhere: Collection[str] | None) -> None:
        self._patience = self._configuration.old_sessions
        self._elsewhere = None if elsewhere is None else list(elsewhere)
        self._loud = self._seats.hold()
        self._desk.close(handed_over=True)
        self._acting.end()
        self._administration.stop()

        def once() -> None:
            waiting.cancel()
            self._quiet = nothing
            if self._loud:
                # The template hangs: it did not say that it has closed its sockets.
                self._hand_over_workers()
            then()

        self._quiet = once
        waiting = Deadline(self.reactor, once)
        waiting.set(self.reactor.seconds() + QUIET)
        self._close_ports()
        if not self._nursery.say({"close": True}):
            self._hand_over_workers()

    def took_over(self) -> None:
        for port, opening in self._bound:
            port.steer(opening)
        super().took_over()

    def lose_patience(self) -> None:
        if self._stopped is None or self._hurried:
            return
        self._seats.say_all({"lose patience": True})
        drain = self._configuration.drain
        self._until = self.reactor.seconds() + drain
        self._tell_stop(GOING_ON, moment(drain))
        if self._deadline.active():
            self._deadline.reset(drain)

    # --- stop ----------------------------------------------------------------------------------------

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        self._stopping = True
        for watch in self.assembly.watches:
            watch.stop()
        self._close_ports()
        stopped = self._stopped = Deferred()
        drain = self._patience + self._configuration.drain
        self._until = self.reactor.seconds() + drain
        self._desk.stopping()
        if not self.sessions:
            self._tell_stop(None)
        elif not self._hurried:
            self._tell_stop(GOING_ON, moment(drain))
        self._duties.append(Every(self.reactor, PROGRESS, self._tell_progress))
        self._deadline = self.reactor.callLater(drain, self._tell_over)
        # A client that hears the goodbye of a worker finds nobody who listens.
        if self._nursery.say({"close": True}):
            self._duties.append(Every(self.reactor, QUIET, self._stop_workers))  # the template may hang
        else:
            self._stop_workers()
        return stopped

    def _stop_workers(self) -> None:
        if self._seats.stopping:
            return
        self._seats.stop()
        if self._hurried:
            self._hurry_now()

    def hurry(self) -> None:
        self._hurried = True
        if self._stopped is not None:
            self._hurry_now()

    def _hurry_now(self) -> None:
        self._until = self.reactor.seconds()
        self._tell_stop(HURRIED)
        self._seats.say_all({"hurry": True})
        self._deadline.cancel()
        self._deadline = self.reactor.callLater(AFTER_DRAIN, self._kill_all)

    def _tell_progress(self) -> None:
        left = self._until - self.reactor.seconds()
        if 0 < left <= self._configuration.drain and not self._hurried:
            self._tell_stop(GOING_ON, left=round(left))

    def _tell_stop(self, detail: str | None, until: str | None = None, left: int | None = None) -> None:
        self._events.emit("stopping", sessions=self.sessions, until=until, left=left, detail=detail)

    def _tell_over(self) -> None:
        # The workers cut their sessions off by themselves.
        self._tell_stop(OVER)
        self._deadline = self.reactor.callLater(AFTER_DRAIN, self._kill_all)

    def _kill_all(self) -> None:
        for pid in self._seats.pids():
            self.kill(pid)
        self._deadline = self.reactor.callLater(AFTER_DRAIN, self._kill_without_template)

    def _kill_without_template(self) -> None:
        """It hangs: it kills nobody."""
        self._nursery.end()
        for pid in self._seats.pids():
            self.kill(pid)

    def empty(self) -> None:
        """No worker is there any more."""
        if self._stopped is None:
            return
        if self._deadline.active():
            self._deadline.cancel()
        self._nursery.end()
        self._asking.stop()
        self._end()
        stopped, self._stopped = self._stopped, None
        stopped.callback(None)
