"""How the gateway comes up under twistd: its log first, and a start that fails ends in one clear line.

And what it does about signals while it runs.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from signal import Signals as Number
from types import TracebackType
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.runtime import seconds as time_of_day

from ..config.errors import StartError
from ..telemetry.events import Events, Format
from ..telemetry.log import Observer, Output, tell_twisted
from . import rights
from .elders import Elders
from .handover import Predecessor
from .program import Program
from .signals import Signals
from .upgrade import Outcome, Upgrade

_log = Logger(namespace="gateway")


class Startup(MultiService):
    """What twistd starts; the services in it raise StartError when they start and cannot, and need no more to do.

    `twistd` are the options that stand before our own on the command line; they may be another runner's.  `signals`
    may have been made earlier, so that none is missed.
    """

    def __init__(
        self,
        twistd: MutableMapping[str, Any],
        form: Format,
        signals: Signals | None = None,
        predecessor: Predecessor | None = None,
        pidfile: str | None = None,
    ) -> None:
        """`predecessor`: the program that this one is to take the place of; `pidfile`: and whose pidfile it gets."""
        super().__init__()
        self._twistd = twistd
        self._signals = signals or Signals()
        self._output: Output | None = None
        """The log, where it is ours."""
        self._sink: Callable[[str], None] = tell_twisted
        self._foreground: _Foreground | None = None
        self._predecessor = predecessor
        self._pidfile = pidfile
        self._upgrade: Upgrade | None = None
        self.events = Events(lambda line: self._sink(line), form)

    def setServiceParent(self, parent: object) -> None:
        """The moment at which twistd has its application and no log yet: an observer of the application takes
        precedence over `--logfile`, which is honoured here, and would over `--syslog`."""
        # `twist` has an application too, but none of these options, and logs by itself.
        if isinstance(parent, Componentized) and "nodaemon" in self._twistd:
            sys.excepthook = _tell_plainly
            self._signals.starting()
            if not (self._twistd["logger"] or self._twistd["syslog"]):
                self._output = self._open_log()
                self._sink = self._output.write
                self._output.missed = self._tell_missed
                parent.setComponent(ILogObserver, Observer(self.events))
            if not self._twistd["nodaemon"]:
                self._foreground = _Foreground(self._signals)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        _steady_the_clock()
        self._hand_over()
        with self._one_line():
            super().privilegedStartService()
            self._signals.check()

    def startService(self) -> None:
        from twisted.internet import reactor  # not before `twistd -r` has chosen it

        _steady_the_clock()
        self._tell_losses()
        with self._one_line():
            self._signals.check()
            super().startService()
        # Only then are twistd's signal handlers in place.
        reactor.callWhenRunning(self._signals.serve, reactor, self._answer, self._hurry)
        self._prepare_upgrade(reactor)
        if self._foreground is not None:
            reactor.callWhenRunning(self._foreground.release)

    def stopService(self) -> Any:
        self._signals.stopping()
        elders = None if self._upgrade is None else self._upgrade.stop()
        return gatherResults([super().stopService(), elders or succeed(None)])

    # --- upgrades ------------------------------------------------------------------------------------

    def _prepare_upgrade(self, reactor: Any) -> None:
        for program in self._programs():
            self._upgrade = Upgrade(reactor, self._twistd, self.events, program)
            if self._predecessor is not None:
                reactor.callWhenRunning(self._upgrade.succeed, self._predecessor, self._pidfile)

    def upgrade(self) -> Deferred[Outcome]:
        """Start a successor, which takes over.  Raises StartError where none is started."""
        from twisted.internet import reactor  # it runs

        if self._upgrade is None:
            raise StartError("there is nothing that another program could take over")
        return self._upgrade.begin(reactor.stop)

    def elders(self) -> Elders | None:
        """Programs before this one; None where there can be none."""
        return None if self._upgrade is None else self._upgrade.elders

    # --- what a service of several processes asks for ------------------------------------------------

    def log_descriptor(self) -> int | None:
        """None where the log is somebody else's."""
        return None if self._output is None else self._output.descriptor

    def check(self) -> None:
        """Raises StartError if the start is not wanted any more."""
        self._signals.check()

    # --- the log file and the pidfile ----------------------------------------------------------------

    def _open_log(self) -> Output:
        path = self._twistd["logfile"]
        if self._twistd["nodaemon"] and path in (None, "", "-"):
            return Output.to_stdout()
        if path == "-":
            raise SystemExit(_line("a daemon has no standard output to log to; name a file with --logfile"))
        path = str(path or "twistd.log")
        try:
            return Output.to_file(path)
        except OSError as wrong:
            cure = "name a log file that can be written with --logfile"
            raise SystemExit(_line(f"{path}: {wrong.strerror}; {cure}")) from None

    def _hand_over(self) -> None:
        """While we are root: what the user that we become has to open and to remove is his."""
        uid = self._twistd.get("uid")
        if uid is None or os.geteuid() != 0:
            return
        if self._output is not None:
            with suppress(OSError):
                self._output.give_to(uid)
        if self._twistd["pidfile"]:
            rights.give_pidfile(self._twistd["pidfile"], uid)

    def _tell_missed(self, count: int, why: str) -> None:
        self.events.emit("log-lines-lost", count=count, detail=why)

    def _tell_losses(self) -> None:
        log = None if self._output is None else self._output.path
        for loss in rights.losses(log, self._twistd.get("pidfile")):
            self.events.emit("rights-missing", file=loss.file, detail=loss.detail, cure=loss.cure)

    # --- signals ---------------------------------------------------------------------------------

    def _answer(self, number: Number) -> None:
        match number:
            case Number.SIGHUP:
                log = self._reopen()
                used = [program.reload().good for program in self._programs()]
                configuration = "used" if all(used) else "refused"
                self.events.emit(
                    "signal", signal=number.name, configuration=configuration, certificates="read", log=log
                )
            case Number.SIGUSR1:
                self.events.emit("signal", signal=number.name, log=self._reopen())
            case _:
                why = None
                try:
                    self.upgrade()
                except StartError as wrong:
                    why = str(wrong)
                self.events.emit("signal", signal=number.name, detail=why)

    def _reopen(self) -> str:
        if self._output is None or self._output.path is None:
            return "none"
        if wrong := self._output.reopen():
            user = rights.user_name(os.geteuid())
            _log.error(
                "the log file cannot be opened again, and goes on where it was: {why}; let {user} write there, or let "
                "logrotate create it (create 0640 {user} adm)",
                why=wrong,
                user=user,
            )
            return "kept"
        return "reopened"

    def _hurry(self) -> None:
        for program in self._programs():
            program.hurry()
        if self._upgrade is not None:
            self._upgrade.hurry()

    def _programs(self) -> Iterator[Program]:
        """The gateway, wherever among the services it is."""
        waiting: list[object] = [self]
        while waiting:
            service = waiting.pop()
            if isinstance(service, Program):
                yield service
            waiting += getattr(service, "services", ())

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except StartError as wrong:
            for program in self._programs():
                program.abandon()
            # twistd removes its pidfile for an Exception only, and hands it on: to the interpreter, which exits with 1.
            if self._foreground is not None:
                _log.critical("{text}", text=str(wrong))
                self._foreground.tell(_line(wrong))
            raise


def _steady_the_clock() -> None:
    """Deadlines by a clock that nobody sets: Twisted's own is the time of day.

    Only where nothing was scheduled by that one, and the reactor has no better one of its own.
    """
    from twisted.internet import reactor  # not before `twistd -r` has chosen it

    if reactor.seconds is time_of_day and not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic  # type: ignore[method-assign]


class _Foreground:
    """The process that somebody typed `twistd` into, once it has daemonized: it still has a terminal.

    twistd would show 100 octets of our text in Python's notation, and advise to read a log.  So this process first
    reads the daemon's own text from a pipe.  If the daemon closes the pipe without a word, the start was good.
    """

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._pid = os.getpid()
        self._read, self._write = os.pipe()
        os.register_at_fork(after_in_parent=self._wait)

    def _wait(self) -> None:
        # Daemonizing forks twice, and the child does not wait.
        if os.getpid() != self._pid:
            return
        self._signals.let_go()
        os.close(self._write)
        heard = b""
        while octets := os.read(self._read, 4096):
            heard += octets
        if heard:
            os.write(2, heard)
            os._exit(1)

    def tell(self, line: str) -> None:
        """The pipe stays open: the foreground has to outlive the daemon, which still tidies up."""
        os.write(self._write, f"{line}\n".encode())

    def release(self) -> None:
        os.close(self._read)
        os.close(self._write)


def _line(what: object) -> str:
    return f"starttls-gateway: {'; '.join(str(what).splitlines())}"


def _tell_plainly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, StartError):
        # sys.stderr is Twisted's by now and would be logged.
        os.write(2, f"{_line(error)}\n".encode())
    else:
        sys.__excepthook__(kind, error, trace)
