"""An upgrade without an outage: a new program takes over the sockets, and the old one lets its sessions finish.

The old one starts the new one with its own command line, and a socket pair between them.  The new one is given the
listening sockets, the counts of the limits, and what is known of backends.  As soon as it serves, it says so: then the
old one accepts nobody any more, and ends when its sessions have.  If the new one does not come up, nothing has changed.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from .. import __version__
from ..guard.shared import SharedLedger
from ..wire.spread import Spread
from .ports import Port
from .workers.channel import Channel
from .workers.messages import Message, Unintelligible, Wire

VARIABLE: Final = "STARTTLS_GATEWAY_HANDOVER"
"""Of the new program's environment: the descriptors of the conversation and of the old one's standard error."""
PATIENCE: Final = 60.0
"""Seconds that the new program may take until it serves."""
GO: Final = 10.0
"""Seconds that the old program may take to answer."""
_DIRECTORY: Final = os.getcwd()
"""Where the command line was typed: its relative names begin there."""
_OLD_NEWS: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
"""Sockets of systemd are among those that are handed over."""


@dataclass(frozen=True, slots=True)
class Bequest:
    """What the old program leaves to the new one."""

    ports: Sequence[Port]
    ledger: SharedLedger
    """The limits' counts."""
    knowledge: Sequence[Message]
    """Of backends."""

    def packed(self) -> tuple[Message, list[int]]:
        numbers = [self.ledger.descriptor]
        numbers += [sock.fileno() for port in self.ports for spread in port.spreads for sock in spread.sockets]
        ports = [
            [str(one.address), [[spread.text, len(spread.sockets)] for spread in one.spreads]] for one in self.ports
        ]
        message = {"ports": ports, "generation": self.ledger.generation, "knowledge": list(self.knowledge)}
        return {"version": __version__, **message}, numbers


@dataclass(slots=True)
class Inheritance:
    """The same, in the new program."""

    sockets: dict[str, list[list[Spread]]] = field(default_factory=dict)
    """By the address as the configuration has it; port 0 may stand there several times."""
    ledger: SharedLedger | None = None
    """None where the old program's is of another version: then counts begin anew."""
    knowledge: Sequence[Message] = ()
    before: int = 0
    """The generation of the old program in the ledger."""

    def take(self, address: object) -> list[Spread] | None:
        """The sockets of this address, for whoever listens there now."""
        waiting = self.sockets.get(str(address))
        return waiting.pop(0) if waiting else None

    def close(self) -> None:
        """What nobody took."""
        for waiting in self.sockets.values():
            for spreads in waiting:
                for spread in spreads:
                    spread.close()
        self.sockets.clear()


# --- the new program ---------------------------------------------------------------------------------


class Predecessor:
    """The program that this one is to take the place of."""

    def __init__(self, conversation: int, error: int) -> None:
        self._wire = Wire(socket.socket(fileno=conversation))
        self._error = error
        for number in (conversation, error):
            os.set_inheritable(number, False)

    @classmethod
    def found(cls, environment: MutableMapping[str, str]) -> Predecessor | None:
        """Once: what this program starts is nobody's successor."""
        given = environment.pop(VARIABLE, "")
        if not given:
            return None
        conversation, error = map(int, given.split(":"))
        return cls(conversation, error)

    def inherit(self) -> Inheritance:
        """Raises SystemExit where the old program says nothing."""
        heard = self._hear()
        if heard is None:
            raise SystemExit("starttls-gateway: the program that started this one as its successor is gone")
        message, descriptors = heard
        rest = iter(descriptors)
        found = Inheritance(knowledge=message["knowledge"], before=message["generation"])
        with suppress(ValueError):
            found.ledger = SharedLedger(next(rest), generation=found.before % 255 + 1)
        for address, spreads in message["ports"]:
            found.sockets.setdefault(address, []).append([
                Spread(text, tuple(_adopted(next(rest)) for _ in range(count))) for text, count in spreads
            ])  # fmt: skip
        return found

    def take_over(self, reactor: Any, gone: Callable[[], None]) -> None:
        """This program serves.  Returns when the old one leaves, or is gone; `gone` is called when it has ended."""
        with suppress(OSError):
            self._wire.say({"ready": os.getpid()})
            self._hear()
        os.dup2(self._error, 2)
        os.close(self._error)
        Channel(reactor, self._wire.socket, _ignore, gone)

    def _hear(self) -> tuple[Message, list[int]] | None:
        self._wire.socket.settimeout(GO)
        with suppress(OSError, Unintelligible):
            while (heard := self._wire.hear()) is not None:
                for message, descriptors in heard:
                    if message:
                        return message, descriptors
        return None


def _adopted(number: int) -> socket.socket:
    sock = socket.socket(fileno=number)
    sock.setblocking(False)
    sock.set_inheritable(False)
    return sock


# --- the old program ---------------------------------------------------------------------------------


class Successor:
    """The program that is to take our place; `served` is called when it serves, `failed` when it will not."""

    def __init__(
        self, reactor: Any, bequest: Bequest, served: Callable[[int], None], failed: Callable[[str], None]
    ) -> None:
        self._served = served
        self._failed = failed
        ours, theirs = socket.socketpair()
        self._words = os.memfd_create("stderr", os.MFD_CLOEXEC)
        try:
            with theirs:
                self._process = _start(theirs.fileno(), self._words)
        except OSError:
            ours.close()
            os.close(self._words)
            raise
        self.pid = self._process.pid
        # It stays open until this process has ended: so the successor learns of the end.
        self._channel = Channel(reactor, ours, self._heard, self._lost)
        self._patience = reactor.callLater(PATIENCE, self._give_up)
        self._channel.hand(*bequest.packed())

    def _heard(self, message: Message, descriptors: list[int]) -> None:
        match message:
            case {"ready": int(pid)}:
                self._patience.cancel()
                self._served(pid)
                self._channel.say({"go": True})
                # Who it was is its own business from now on.
                os.close(self._words)
                self._failed = _nothing

    def _lost(self) -> None:
        if self._failed is _nothing:
            return
        if self._patience.active():
            self._patience.cancel()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        size = os.fstat(self._words).st_size
        words = os.pread(self._words, 4096, max(0, size - 4096)).decode("utf-8", "backslashreplace")
        os.close(self._words)
        said = [line for line in words.splitlines() if line.strip()]
        why = said[-1].removeprefix("starttls-gateway: ") if said else f"exit status {self._process.returncode}"
        self._failed(why)

    def _give_up(self) -> None:
        self._process.kill()


def _start(conversation: int, words: int) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name not in _OLD_NEWS}
    error = os.dup(2)
    try:
        return subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            stdin=subprocess.DEVNULL,
            stderr=words,
            cwd=_DIRECTORY,
            env={**environment, VARIABLE: f"{conversation}:{error}"},
            pass_fds=(conversation, error),
            start_new_session=True,
        )
    finally:
        os.close(error)


def _nothing(why: str) -> None:
    pass


def _ignore(message: Message, descriptors: list[int]) -> None:
    pass


# --- twistd ------------------------------------------------------------------------------------------


def succeed(twistd: MutableMapping[str, Any]) -> str | None:
    """Make twistd's options those of a successor; the pidfile that it is to take over, if there is one.

    It is no daemon's parent, has no rights to give up that the old one still had, and its pidfile holds the old one's
    number until it has taken over.
    """
    pidfile = twistd.get("pidfile")
    if not twistd["nodaemon"] and not twistd["logfile"]:
        twistd["logfile"] = "twistd.log"
    twistd["nodaemon"], twistd["pidfile"] = True, None
    if os.geteuid() != 0:
        twistd["uid"] = twistd["gid"] = None
    return os.path.abspath(str(pidfile)) if pidfile else None


def write_pidfile(path: str) -> str:
    """Why it cannot be written, or nothing."""
    fresh = f"{path}.{os.getpid()}"
    try:
        with open(fresh, "w") as file:
            file.write(str(os.getpid()))
        os.rename(fresh, path)
    except OSError:
        try:
            # A directory that is not ours, and a file that is.
            with open(path, "w") as file:
                file.write(str(os.getpid()))
        except OSError as wrong:
            return str(wrong.strerror)
    return ""
