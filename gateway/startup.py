"""How the gateway comes up under twistd: its log first, and a start that fails ends in one clear line."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from twisted.application.service import MultiService
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.runtime import seconds as time_of_day

from .errors import StartError
from .telemetry.events import Events, Format
from .telemetry.log import Observer, Output, tell_twisted

_log = Logger(namespace="gateway")


class Startup(MultiService):
    """What twistd starts; the services in it raise StartError when they start and cannot, and need no more to do.

    `twistd` are the options that stand before our own on the command line; they may be another runner's.
    """

    def __init__(self, twistd: Mapping[str, object], form: Format) -> None:
        super().__init__()
        self._twistd = twistd
        self._form = form
        self._sink: Callable[[str], None] = tell_twisted
        self._foreground: _Foreground | None = None
        self.events = Events(lambda line: self._sink(line), form)

    def setServiceParent(self, parent: object) -> None:
        """The moment at which twistd has its application and no log yet: an observer of the application takes
        precedence over `--logfile`, which is honoured here, and would over `--syslog`."""
        # `twist` has an application too, but none of these options, and logs by itself.
        if isinstance(parent, Componentized) and "nodaemon" in self._twistd:
            if not (self._twistd["logger"] or self._twistd["syslog"]):
                output = self._output()
                self._sink = output.write
                parent.setComponent(ILogObserver, Observer(output, self._form))
            if not self._twistd["nodaemon"]:
                self._foreground = _Foreground()
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        _steady_the_clock()
        with self._one_line():
            super().privilegedStartService()

    def startService(self) -> None:
        _steady_the_clock()
        with self._one_line():
            super().startService()
        if self._foreground is not None:
            from twisted.internet import reactor  # not before `twistd -r` has chosen it

            # Only then are twistd's signal handlers in place; a SIGTERM before that would leave the pidfile behind.
            reactor.callWhenRunning(self._foreground.release)

    def _output(self) -> Output:
        path = self._twistd["logfile"]
        if self._twistd["nodaemon"] and path in (None, "", "-"):
            return Output.to_stdout()
        if path == "-":
            raise SystemExit(_line("a daemon has no standard output to log to; name a file with --logfile"))
        path = str(path or "twistd.log")
        try:
            output = Output.to_file(path)
        except OSError as wrong:
            cure = "name a log file that can be written with --logfile"
            raise SystemExit(_line(f"{path}: {wrong.strerror}; {cure}")) from None
        signal.signal(signal.SIGUSR1, lambda *_: output.reopen())
        return output

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except StartError as wrong:
            # twistd removes its pidfile for an Exception only, and hands it on: to the interpreter, which exits with 1.
            sys.excepthook = _tell_plainly
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

    twistd would show 100 octets of our text in Python's notation, and advise to read a log.  So the fork waits
    for our own words first; it takes silence, until the daemon has let go of the pipe, for a good start.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._read, self._write = os.pipe()
        os.register_at_fork(after_in_parent=self._wait)

    def _wait(self) -> None:
        # Daemonizing forks twice, and the child does not wait.
        if os.getpid() != self._pid:
            return
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
