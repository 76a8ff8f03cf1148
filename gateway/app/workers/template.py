"""The process that workers are forked from: it has the code, the keys and the TLS contexts, and never a reactor.

Session tickets are good at every worker that was forked from the same contexts.  It looks after certificates as the
workers do, so that one that is forked later has the new ones.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any

from twisted.python.util import switchUID

from ...config.errors import StartError
from ...guard.shared import SharedLedger
from ...wire.tls.renewal import INTERVAL
from ..crowd import killed_by
from ..rights import group_of
from ..service import Gateway
from ..serving import Shares
from . import worker
from .forwarding import EventsToMaster, Way
from .messages import Message, Unintelligible, Wire, readable
from .orders import Given, Orders, name_process, orders_from, unpacked
from .vigil import BEAT

DEAF = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)
"""Signals to a group of processes, or to a whole unit of systemd, are the master's to answer: it tells the others."""

MODULES = (
    "twisted.internet.abstract", "twisted.internet.address", "twisted.internet.asyncioreactor",
    "twisted.internet.defer", "twisted.internet.endpoints", "twisted.internet.epollreactor",
    "twisted.internet.posixbase", "twisted.internet.process", "twisted.internet.tcp", "twisted.internet.threads",
    "twisted.internet.udp", "twisted.internet.unix", "twisted.python.threadpool", "twisted._threads",
)  # fmt: skip
"""What a reactor is made of.  Imported once here, it costs a worker nothing."""


class Late:
    """The reactor, imported when something is first wanted of it; the clock can be had without.

    In the template nothing is wanted of it.  A worker installs one, and everything that the template made finds it.
    """

    seconds = staticmethod(time.monotonic)

    def __getattr__(self, name: str) -> Any:
        from twisted.internet import reactor

        value = getattr(reactor, name)
        setattr(self, name, value)
        return value


class Template:
    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.wire = Wire(socket.socket(fileno=orders.master))
        self.own = EventsToMaster(Way(self.wire.say))
        """What is told of the gateway as a whole."""
        self.sessions = EventsToMaster(Way(self.wire.say), budgeted=True)
        self.ledger = SharedLedger(orders.ledger, self._tell_killed, generation=orders.generation)
        self.killed: int | None = None
        """The process that was killed last because it held up all the others."""
        self.given = Given()
        self.given.expect({}, orders.ports, orders.sockets)
        shares = Shares(self.sessions, self.given)
        self.gateway = Gateway(orders.configuration, self.own, Late(), shares=shares)
        self._workers: dict[int, int] = {}
        """Numbers of the workers that live, by process."""

    def _tell_killed(self, pid: int) -> None:
        self.killed = pid
        killed_by(self.sessions)(pid)

    def run(self) -> None:
        try:
            self.gateway.privilegedStartService()
        except StartError as wrong:
            self.wire.say({"failed": str(wrong)})
            return
        for name in MODULES:
            importlib.import_module(name)
        assert "twisted.internet.reactor" not in sys.modules
        uid, gid = self.orders.uid, self.orders.gid
        if uid is not None or gid is not None:
            # As twistd does for the master.
            switchUID(uid, group_of(uid) if gid is None and uid is not None else gid, self.orders.euid)
        gc.collect()
        gc.freeze()
        self.gateway.tell_of_certificates()
        self.wire.say({"ready": os.getpid()})
        self._serve()

    def _serve(self) -> None:
        woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, _nothing)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self.pipe = woken, wake
        beat_at = time.monotonic()
        look_at = beat_at + INTERVAL
        while True:
            now = time.monotonic()
            if now >= beat_at:
                beat_at = now + BEAT
                self.wire.say({"beat": len(self._workers)})
            if now >= look_at:
                look_at = now + INTERVAL
                self.gateway.look()
            ready = readable(min(look_at, beat_at) - time.monotonic(), self.wire.socket, woken)
            if woken in ready:
                os.read(woken, 4096)
                self._reap()
            if self.wire.socket.fileno() in ready:
                heard = self.wire.hear()
                if heard is None:
                    return
                for message, descriptors in heard:
                    self._obey(message, descriptors)

    def _obey(self, message: Message, descriptors: list[int]) -> None:
        match message:
            case {"fork": int(number), "column": int(column)}:
                self._fork(number, column, descriptors[0])
            case {"kill": int(pid)}:
                # Its own child, which nobody else has waited for: the number is surely still this worker's.
                if pid in self._workers:
                    os.kill(pid, signal.SIGKILL)
            case {"close": _}:
                self.gateway.close_doors()
                self.wire.say({"closed": True})
            case {"look": _}:
                self.gateway.look_at_certificates()
                self.wire.say({"used": self.gateway.refused_certificates})
            case {"use": _}:
                self._use(message, descriptors)

    def _use(self, message: Message, descriptors: list[int]) -> None:
        try:
            self.gateway.use(unpacked(message, descriptors, self.given))
        except StartError as wrong:
            self.given.give_up()
            self.wire.say({"refused": str(wrong)})
        else:
            gc.collect()
            gc.freeze()
            self.wire.say({"used": self.gateway.refused_certificates})

    def _fork(self, number: int, column: int, descriptor: int) -> None:
        pid = os.fork()
        if not pid:
            code = 1
            try:
                code = worker.main(self, number, column, socket.socket(fileno=descriptor))
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(descriptor)
        self._workers[pid] = number
        self.wire.say({"forked": number, "pid": pid})

    def _reap(self) -> None:
        for pid in list(self._workers):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._workers[pid]
                self.wire.say({"died": pid, "code": os.waitstatus_to_exitcode(status)})


def main(file: int) -> None:
    for number in DEAF:
        signal.signal(number, signal.SIG_IGN)
    name_process("gateway-template")
    # Without the master there is nothing to do.
    with suppress(BrokenPipeError, ConnectionResetError, Unintelligible):
        Template(orders_from(file)).run()


def _nothing(*_: object) -> None:
    """A handler that does nothing, so that the signal is written to the pipe."""
