"""One of the processes that serve: forked from the template, told by the master, and gone when either has no more use.

When the master is gone it accepts nobody any more, lets its sessions finish for as long as `[gateway] drain` says,
and ends.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import globalLogBeginner

from ...config.errors import StartError
from ...telemetry.events import FORMATS, Events
from ...telemetry.log import Output
from ...telemetry.summary import Summary, SummedEvents
from ..assembly import Reachable
from ..control.messages import Request
from ..control.place import credentials
from ..crowd import killed_by
from ..every import Every
from ..turns import with_each
from . import fleet, steered
from .asking import reply
from .channel import Channel
from .forwarding import EventsToMaster, Told, pass_on
from .messages import Message
from .orders import name_process, unpacked
from .vigil import BEAT

if TYPE_CHECKING:
    from .template import Template


class Worker:
    def __init__(self, reactor: Any, template: Template, number: int, sock: socket.socket) -> None:
        self._reactor = reactor
        self._template = template
        self._gateway = template.gateway
        self._orders = template.orders
        self._master = credentials(sock)[0]
        self._channel = Channel(reactor, sock, self._heard, self._orphaned)
        self._number = number
        self._has_served = False
        self._stopping = False
        self._left = False
        self._way = template.sessions.way
        self._way.tell = self._channel.tell
        self.told = EventsToMaster(self._way, constant={"worker": number})
        """What is this worker's alone to tell."""
        # The master and the template tell what is true of the gateway as a whole.
        template.own.way.tell = _silence
        self._given = template.given
        self._attend_to_health()
        self._beats = Every(reactor, BEAT, self._beat)
        self.code = 0

    def _beat(self) -> None:
        self._channel.say({"beat": len(self._gateway.crowd.sessions) if self._gateway.running else 0})

    def _heard(self, message: Message, descriptors: list[int]) -> None:
        match message:
            case {"serve": _}:
                self._serve()
            case {"health": _} | {"verdicts": _} | {"bans": _} | {"drained": _}:
                self._gateway.knowledge.learn([message])
            case {"hand over": _}:
                self._gateway.hand_over(lambda: self._channel.say({"quiet": os.getpid()}), message["elsewhere"])
            case {"ask": int(number), "command": str(command), "about": str(about)}:
                asked = self._gateway.part(Request(command, about)).addCallback(steered.parts)
                asked.addCallback(partial(self._reply, number))
            case {"ask": int(number), "observe": bool(sessions)}:
                if self._gateway.running or self._stopping:
                    fleet.parts(self._gateway.observer, sessions).addCallback(partial(self._reply, number))
            case {"ask": int(number), "heard": _}:
                self._reply(number, [{}])
            case {"look": _}:
                self._gateway.look_at_certificates()
            case {"use": _}:
                self._use(message, descriptors)
            case {"stop": _}:
                self._stop()
            case {"lose patience": _}:
                self._gateway.lose_patience()
            case {"hurry": _}:
                self._gateway.hurry()

    def _reply(self, number: int, parts: list[Message]) -> None:
        with_each(self._reactor, reply(number, parts), 1, self._channel.say)

    def _serve(self) -> None:
        try:
            self._gateway.startService()
            self._gateway.observer.worker = self._number
        except StartError as wrong:
            self.told.emit("log", level="critical", message=str(wrong))
            self.code = 1
            self._reactor.callLater(0, self._leave)
        else:
            self._has_served = True
            self._channel.say({"serving": os.getpid()})

    def _use(self, message: Message, descriptors: list[int]) -> None:
        try:
            self._gateway.use(unpacked(message, descriptors, self._given))
        except StartError as wrong:
            # The template could.  The next worker has what this one has not.
            self.told.emit("log", level="error", message=f"a worker could not use the new configuration: {wrong}")
            self.code = 1
            self._stop()
        else:
            self._attend_to_health()

    def _attend_to_health(self) -> None:
        for backend in self._gateway.reachable:
            backend.dialer.health.changed = partial(self._health_changed, backend)

    def _health_changed(self, backend: Reachable, address: str) -> None:
        record = backend.dialer.health.record(address)
        self._channel.say({"health": backend.values.name, "address": address, "record": record})

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        ended: Deferred[None] | None = self._gateway.stopService() if self._gateway.running else None
        if ended is None:
            self._reactor.callLater(0, self._leave)
        else:
            ended.addBoth(self._leave)

    def _leave(self, _: object = None) -> None:
        if self._left:
            return
        self._left = True
        self._beats.stop()
        if self._stopping:
            self._channel.finish({"left": os.getpid()})
        self._way.tell = _silence
        self._reactor.callLater(0, self._reactor.stop)

    def _orphaned(self) -> None:
        """The master is gone.  Its log may still be there."""
        events = _last_events(self._orders.log, self._orders.form)
        sessions = SummedEvents(events, Summary(events, time.monotonic))

        def tell(message: Message) -> None:
            pass_on(message, events, sessions)

        self._way.tell = tell
        if self._template.killed == self._master:
            # It was this worker that killed it, and told nobody but the master.
            killed_by(self._template.sessions)(self._master)
        self.told.emit("worker", state="orphaned", pid=os.getpid(), detail="the master is gone; it drains and ends")
        self._stop()
        if self._has_served:
            # After an upgrade, too: nobody is there who could end it before `old_sessions` is over.
            self._gateway.lose_patience()


def main(template: Template, number: int, column: int, sock: socket.socket) -> int:
    """Serve to the end; the exit code.  In a new process, which shares with the template only what it needs."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for descriptor in template.pipe:
        os.close(descriptor)
    template.wire.close()
    name_process(f"gateway-worker{number}")
    if template.orders.reactor:
        from twisted.application.reactors import installReactor

        installReactor(template.orders.reactor)
    from twisted.internet import reactor

    # Deadlines by a clock that nobody sets, which is the same one in all workers.
    reactor.seconds = time.monotonic  # type: ignore[method-assign]
    template.gateway.settle(number, template.orders.workers, template.ledger.of(column))
    worker = Worker(reactor, template, number, sock)
    globalLogBeginner.beginLoggingTo([Told(worker.told)], discardBuffer=True, redirectStandardIO=False)
    reactor.run(installSignalHandlers=False)  # type: ignore[call-arg]
    return worker.code


def _silence(message: Message) -> None:
    pass


def _last_events(log: int | None, form: str) -> Events:
    if log is None:
        return Events(_silence_line, FORMATS[form])
    return Events(Output(log).write, FORMATS[form])


def _silence_line(line: str) -> None:
    pass
