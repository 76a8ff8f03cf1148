"""The master's side of the template: started while the master is privileged, and again when it dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Any, Final

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from ...config.errors import StartError
from ...telemetry.summary import Teller
from .channel import Channel
from .messages import Message, Unintelligible, Wire, readable
from .orders import Orders, start
from .seats import STEADY
from .vigil import SILENCE, Vigil

AGAIN_SHORTEST, AGAIN_LONGEST = 1.0, 60.0
"""Seconds until a template that broke down is started again, doubled each time that it did so soon; and at most."""
PATIENCE: Final = 0.2
"""Seconds between two looks whether the start is still wanted."""
ANSWER: Final = 8.0
"""Seconds that it may take to load another configuration.  Meanwhile the master hears nobody: it must be shorter than
the silence for which a worker is killed."""
_GONE: Final = "the process that workers are forked from is gone; try again when it is back"
LAST: Final = 1.0
"""Seconds that it may take to end: by itself, and when it was killed.  No signal ends a wait for a dead disk."""
CUT: Final = 16384
"""Octets of a line of last words."""

Told = Callable[[Message], None]


class Nursery:
    """One template.  `told` gets what it tells of events while it loads, and everything later."""

    def __init__(self, events: Teller, told: Told, words: Callable[[str], None]) -> None:
        """`words` gets each line that the template or a worker writes to standard error."""
        self._events = events
        self._told = told
        self._words = words
        self._orders: Callable[[int], Orders] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._wire: Wire | None = None
        self._channel: Channel | None = None
        self._ear: _Ear | None = None
        self._vigil: Vigil | None = None
        self._reactor: Any = None
        self._lost: Callable[[], None] = _nothing
        self._is_wanted: Callable[[], bool] = bool
        self._back: Callable[[], None] = _nothing
        self._launched = 0.0
        self._breakdowns = 0
        """In a row, each soon after the start."""
        self.orphans: set[int] = set()
        """Workers that are no children of the present template."""

    def launch(self, orders: Callable[[int], Orders], wanted: Callable[[], None]) -> None:
        """Start it, and wait until it has loaded everything.  Raises StartError.

        `orders` makes them with the descriptor of the template's end of the conversation; `wanted` is called every now
        and then, and may raise.
        """
        self._orders = orders
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                started = start(orders(theirs.fileno()))
        except OSError as wrong:
            ours.close()
            raise StartError(f"no process for the workers can be started: {wrong.strerror}") from None
        self._process, self._ear = started.process, _Ear(started.words, self._words)
        self._wire = Wire(ours)
        try:
            self._wait_until_ready(self._wire, wanted)
        except BaseException:
            self.end()
            raise

    def _wait_until_ready(self, wire: Wire, wanted: Callable[[], None]) -> None:
        while True:
            wanted()
            if not readable(PATIENCE, wire.socket):
                continue
            heard: list[tuple[Message, list[int]]] | None = None
            with suppress(OSError, Unintelligible):
                heard = wire.hear()
            if heard is None:
                assert self._ear is not None
                self._ear.listen()
                raise StartError("the process for the workers broke down; what it said is in the log")
            for message, _ in heard:
                match message:
                    case {"ready": _}:
                        return
                    case {"failed": str(why)}:
                        raise StartError(why)
                    case _:
                        self._told(message)

    def attend(
        self, reactor: Any, lost: Callable[[], None], wanted: Callable[[], bool], back: Callable[[], None]
    ) -> None:
        """From now on what it says is heard by the reactor.  One that hangs is killed.

        When it is gone, `lost` is called; then another one is started in a while, if `wanted` says so then, and `back`
        is called when it is there.
        """
        self._reactor, self._lost, self._is_wanted, self._back = reactor, lost, wanted, back
        self._attend()

    def _attend(self) -> None:
        assert self._wire is not None and self._ear is not None
        reactor = self._reactor
        self._launched = reactor.seconds()
        self._channel = Channel(reactor, self._wire.socket, self._hear, lambda: self._give_up("is gone"))
        self._vigil = Vigil(reactor, lambda: self._hangs(f"gave no sign of life for {SILENCE:.0f} s"))
        self._vigil.give()
        self._ear.attend(reactor)

    def _hear(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        if self._vigil is not None:
            self._vigil.heard()
        self._told(message)

    def _hear_last(self, message: Message) -> bool:
        self._hear(message)
        return False

    def _hangs(self, why: str) -> None:
        assert self._process is not None
        self._process.kill()
        if self._channel is not None:
            # To the end: it may have started a worker just before.
            self._channel.wait(self._hear_last, LAST)
        self._give_up(f"{why}, and was killed")

    def _give_up(self, why: str) -> None:
        self.end()
        self._lost()
        if not self._is_wanted():
            return
        if self._reactor.seconds() - self._launched >= STEADY:
            self._breakdowns = 0
        delay = min(AGAIN_LONGEST, AGAIN_SHORTEST * 2.0**self._breakdowns)
        self._breakdowns += 1
        self._events.emit(
            "worker",
            state="no-template",
            detail=f"the process that workers are forked from {why}; the next one is started in {delay:.0f} s, and "
            "workers that are there go on",
        )
        self._reactor.callLater(delay, self._launch_again)

    def _launch_again(self) -> None:
        if not self._is_wanted():
            return
        assert self._orders is not None
        until = time.monotonic() + ANSWER

        def wanted() -> None:
            """Nobody is served meanwhile, if this is the only process that can fork."""
            if time.monotonic() >= until:
                raise StartError(f"it was not ready within {ANSWER:.0f} s")

        try:
            self.launch(self._orders, wanted)
        except StartError as wrong:
            self._launched = self._reactor.seconds()
            self._give_up(f"could not be started ({wrong})")
        else:
            self._attend()
            self._back()

    def say(self, message: Message, descriptors: Sequence[int] = ()) -> bool:
        """Whether it could be said."""
        return self._channel is not None and self._channel.hand(message, descriptors)

    def kill(self, pid: int) -> None:
        """A worker. Nothing where it was never started: for kill(2), 0 is a whole group of processes."""
        if not pid:
            return
        if pid in self.orphans or not self.say({"kill": pid}):
            # Its parent is gone; a number is not given to another process that soon.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def ask(self, message: Message, descriptors: Sequence[int]) -> Sequence[str]:
        """Say it, and wait until it is done.  Everything else waits as long.  Returns a line for each certificate file
        whose present content is not used.

        Raises StartError with the reason where it cannot be done.
        """
        if not self.say(message, descriptors):
            raise StartError(_GONE)
        answers: list[Message] = []

        def heard(told: Message) -> bool:
            match told:
                case {"used": _} | {"refused": _}:
                    answers.append(told)
                case _:
                    self._hear(told)
            return bool(answers)

        assert self._channel is not None
        until = time.monotonic() + ANSWER
        if not self._channel.wait(heard, ANSWER):
            if time.monotonic() < until:
                raise StartError(_GONE)
            # It may still do it, when nobody expects it any more.  The next one begins with what is in use.
            why = f"gave no answer for {ANSWER:.0f} s"
            self._hangs(why)
            raise StartError(f"the process that workers are forked from {why}; try again when the next one is there")
        match answers[0]:
            case {"refused": str(why)}:
                raise StartError(why)
            case {"used": list(warnings)}:
                return warnings
        raise AssertionError(answers)

    def end(self) -> None:
        """It ends as soon as it finds that its conversation is over."""
        if self._vigil is not None:
            self._vigil.stop()
            self._vigil = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        elif self._wire is not None:
            self._wire.close()
        self._wire = None
        if self._ear is not None:
            self._ear.close()
            self._ear = None
        if self._process is not None:
            process, self._process = self._process, None
            with suppress(subprocess.TimeoutExpired):
                process.wait(LAST)
                return
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(LAST)


def _nothing() -> None:
    pass


@implementer(IReadDescriptor)
class _Ear:
    """Reads last words, a line each."""

    def __init__(self, file: IO[bytes], words: Callable[[str], None]) -> None:
        self._file = file
        self._words = words
        self._reactor: Any = None
        self._begun = b""
        os.set_blocking(file.fileno(), False)

    def attend(self, reactor: Any) -> None:
        self._reactor = reactor
        reactor.addReader(self)

    def listen(self) -> None:
        """Until it has nothing more to say for the moment."""
        with suppress(BlockingIOError):
            while octets := os.read(self._file.fileno(), 4096):
                *lines, self._begun = (self._begun + octets).split(b"\n")
                for line in lines:
                    self._words(line[:CUT].decode("utf-8", "backslashreplace"))
                self._begun = self._begun[:CUT]
            self.close()

    def close(self) -> None:
        if not self._file.closed:
            if self._reactor is not None:
                self._reactor.removeReader(self)
            self._file.close()

    def fileno(self) -> int:
        return self._file.fileno()

    def logPrefix(self) -> str:
        return "workers"

    def connectionLost(self, reason: Failure) -> None:
        self.close()

    def doRead(self) -> None:
        self.listen()
