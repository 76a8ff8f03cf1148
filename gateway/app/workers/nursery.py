"""The master's side of the template: started while the master is privileged, and again when it dies."""

from __future__ import annotations

import os
import select
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
from .channel import Channel
from .messages import Message, Unintelligible, Wire
from .orders import Orders, start

PATIENCE: Final = 0.2
"""Seconds between two looks whether the start is still wanted."""
ANSWER: Final = 8.0
"""Seconds that it may take to load another configuration.  Meanwhile the master hears nobody: it must be shorter than
the silence for which a worker is killed."""
_GONE: Final = "the process that workers are forked from is gone; try again when it is back"
CUT: Final = 16384
"""Octets of a line of last words."""

Told = Callable[[Message], None]


class Hung(StartError):
    """The template does not answer.  It was killed."""


class Nursery:
    """One template.  `told` gets what it tells of events while it loads, and everything later."""

    def __init__(self, told: Told, words: Callable[[str], None]) -> None:
        """`words` gets each line that the template or a worker writes to standard error."""
        self._told = told
        self._words = words
        self._process: subprocess.Popen[bytes] | None = None
        self._wire: Wire | None = None
        self._channel: Channel | None = None
        self._ear: _Ear | None = None
        self.orphans: set[int] = set()
        """Workers that are no children of the present template."""

    def launch(self, orders: Callable[[int], Orders], wanted: Callable[[], None]) -> None:
        """Start it, and wait until it has loaded everything.  Raises StartError.

        `orders` makes them with the descriptor of the template's end of the conversation; `wanted` is called every now
        and then, and may raise.
        """
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
            if not select.select([wire.socket], [], [], PATIENCE)[0]:
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

    def attend(self, reactor: Any, lost: Callable[[], None]) -> None:
        """From now on what it says is heard by the reactor.  `lost` is called when it is gone."""
        assert self._wire is not None and self._ear is not None

        def heard(message: Message, descriptors: list[int]) -> None:
            self._told(message)

        def gone() -> None:
            self.end()
            lost()

        self._channel = Channel(reactor, self._wire.socket, heard, gone)
        self._ear.attend(reactor)

    def say(self, message: Message, descriptors: Sequence[int] = ()) -> bool:
        """Whether it could be said."""
        return self._channel is not None and self._channel.hand(message, descriptors)

    def kill(self, pid: int) -> None:
        """A worker."""
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
                    self._told(told)
            return bool(answers)

        assert self._channel is not None and self._process is not None
        until = time.monotonic() + ANSWER
        if not self._channel.wait(heard, ANSWER):
            if time.monotonic() < until:
                raise StartError(_GONE)
            # It may still do it, when nobody expects it any more.  The next one begins with what is in use.
            self._process.kill()
            raise Hung(f"the process that workers are forked from gave no answer for {ANSWER:.0f} s, and was killed")
        match answers[0]:
            case {"refused": str(why)}:
                raise StartError(why)
            case {"used": list(warnings)}:
                return warnings
        raise AssertionError(answers)

    def end(self) -> None:
        """It ends as soon as it finds that its conversation is over."""
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
                process.wait(1.0)
                return
            process.kill()
            process.wait()


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
