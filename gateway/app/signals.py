"""What signals do: SIGHUP and SIGUSR1 ask for something, SIGTERM and SIGINT stop the gateway, and no other ends it."""

from __future__ import annotations

import atexit
import signal
from collections.abc import Callable
from signal import Signals as Number
from types import FrameType
from typing import Any

from twisted.logger import Logger

from ..config.errors import StartError

ASKING = (Number.SIGHUP, Number.SIGUSR1, Number.SIGUSR2)
"""They would end a process that does not handle them.  They never end the gateway."""
STOPPING = (Number.SIGTERM, Number.SIGINT)

_log = Logger()

Handler = Callable[[int, FrameType | None], None]


class Signals:
    """Handles ASKING from the moment it is made, and answers when the reactor runs."""

    def __init__(self) -> None:
        self._came: list[Number] = []
        """Signals of ASKING that have no answer yet."""
        self._wake: Callable[[], None] = _nothing
        self._answer: Callable[[Number], None] = _nothing
        self._stop_early: Number | None = None
        self._stopping = False
        for number in ASKING:
            signal.signal(number, self._ask)
        # The interpreter gives up its handlers before the process is gone, and with them our deafness.
        atexit.register(_ignore)

    def starting(self) -> None:
        """From now on SIGTERM and SIGINT are remembered, and end the start where `check` is called.

        Nothing is raised where they come: it would be lost inside of a destructor or an observer of the log.  They are
        left alone where somebody else handles them: a debugger, or a shell that keeps Ctrl-C from its background jobs.
        """
        for number in STOPPING:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(number, self._remember)

    def check(self) -> None:
        """Raises StartError if the start is not wanted any more."""
        if self._stop_early is not None:
            raise StartError(f"stopped by {self._stop_early.name} before it had started")

    def let_go(self) -> None:
        """In a process that only waits for another one: SIGTERM and SIGINT end it."""
        for number in STOPPING:
            if signal.getsignal(number) == self._remember:
                signal.signal(number, signal.SIG_DFL)

    def serve(self, reactor: Any, answer: Callable[[Number], None], hurry: Callable[[], None]) -> None:
        """The reactor runs.  `answer` is called for a signal of ASKING; once for all of a kind that come together.
        `hurry` is called for a signal of STOPPING that comes while the gateway stops."""
        self._answer = answer
        # Twisted's own handlers do the same: callFromThread only writes to a pipe.
        self._wake = lambda: reactor.callFromThread(self._answer_all)

        def stop(number: Number) -> None:
            # As Twisted's own handlers say it.  These would let the process die of the signal after an orderly stop.
            _log.info("Received {name}, shutting down.", name=number.name)
            reactor.stop()

        handler = self._handler(
            lambda number: reactor.callFromThread(lambda: stop(number)),
            lambda: reactor.callFromThread(hurry),
        )
        for number, theirs in ((Number.SIGTERM, reactor.sigTerm), (Number.SIGINT, reactor.sigInt)):
            if signal.getsignal(number) in (theirs, self._remember):
                signal.signal(number, handler)
        self._answer_all()
        if self._stop_early is not None and not self._stopping:
            handler(self._stop_early, None)

    def stopping(self) -> None:
        """The gateway has begun to stop, for whatever reason."""
        self._stopping = True

    def _ask(self, number: int, frame: FrameType | None) -> None:
        # Once, however many come before there is time to answer.
        if number not in self._came:
            self._came.append(Number(number))
            self._wake()

    def _answer_all(self) -> None:
        # A signal may come at any moment in here: it is in the old list or in the new one.
        came, self._came = self._came, []
        for number in came:
            self._answer(number)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._stop_early = Number(number)

    def _handler(self, stop: Callable[[Number], None], hurry: Callable[[], None]) -> Handler:
        def handle(number: int, frame: FrameType | None) -> None:
            if self._stopping:
                hurry()
            else:
                self._stopping = True
                stop(Number(number))

        return handle


def _ignore() -> None:
    """The process is about to be gone: a second SIGTERM must not turn an orderly end into a death by a signal."""
    for number in (*ASKING, *STOPPING):
        signal.signal(number, signal.SIG_IGN)


def _nothing(*_: object) -> None:
    pass
