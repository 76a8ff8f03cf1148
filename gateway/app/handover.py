"""An upgrade without an outage: a new program takes over the sockets, and the old one lets its sessions finish.

The old one starts the new one with its own command line, and a socket pair between them.  The new one is given the
listening sockets, the counts of the limits, and what is known of backends.  As soon as it serves, it says so: then the
old one accepts nobody any more, and ends when its sessions have.  If the new one does not come up, nothing has changed.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, MutableMapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from twisted.internet.defer import maybeDeferred

from .. import __version__
from ..config.values import Configuration
from ..guard.shared import Killed, SharedLedger, check_layout, following
from ..records import dataclass
from .control.answers import OF_SESSIONS
from .control.messages import Answer, Request
from .ports import Handed, Port, adopted, described, descriptors_of, received
from .turns import with_each
from .workers.asking import reply
from .workers.channel import Channel
from .workers.messages import Message, Unintelligible, Wire, readable
from .workers.steered import parts
from .workers.vigil import Vigil

VARIABLE: Final = "STARTTLS_GATEWAY_HANDOVER"
"""Of the new program's environment: the descriptors of the conversation and of the old one's standard error."""
PATIENCE: Final = 60.0
"""Seconds that the new program may take until it serves."""
LAST: Final = 1.0
"""Seconds that a program which was killed may take to be gone."""
FIRST: Final = 10.0
"""Seconds that the old program may take to hand over."""
Stay = tuple[float, float]
"""How long an old program may stay: seconds until its last session is cut off, and until then when it is to stop."""
UNSAID: Final[Stay] = 7 * 86400.0, 3600.0
"""Of a version that does not say it: longer than most configurations have it. One that is in order is not killed."""
_DIRECTORY: Final = os.getcwd()
"""Where the command line was typed: its relative names begin there."""
_OLD_NEWS: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
"""Sockets of systemd are among those that are handed over."""


def stay_of(configuration: Configuration) -> Stay:
    return configuration.old_sessions + configuration.drain, configuration.drain


@dataclass(frozen=True, slots=True)
class Bequest:
    """What the old program leaves to the new one."""

    ports: Sequence[Port]
    ledger: SharedLedger
    """The limits' counts."""
    knowledge: Sequence[Message]
    """Of backends."""
    control: tuple[str, socket.socket] | None
    """The control socket, with its path."""
    stay: Stay
    """Of the old program."""
    elders: Sequence[tuple[int, socket.socket, Stay]] = ()
    """Programs before the old one that still have sessions: the generation of each, and the conversation with it."""

    def packed(self) -> tuple[Message, list[int]]:
        numbers = [self.ledger.descriptor]
        numbers += descriptors_of(self.ports)
        if self.control is not None:
            numbers.append(self.control[1].fileno())
        numbers += [sock.fileno() for _, sock, _ in self.elders]
        ports = [(str(one.address), described(one)) for one in self.ports]
        message = {"ports": ports, "generation": self.ledger.generation, "knowledge": list(self.knowledge)}
        control = None if self.control is None else self.control[0]
        elders = [generation for generation, _, _ in self.elders]
        stays = [self.stay, *(stay for _, _, stay in self.elders)]
        return {"version": __version__, "control": control, "elders": elders, "stays": stays, **message}, numbers


@dataclass(slots=True)
class Inheritance(Handed):
    """The same, in the new program."""

    ledger: Callable[[Killed], SharedLedger] | None = None
    """Opens it.  None where the old program's is of another version: then counts begin anew."""
    knowledge: Sequence[Message] = ()
    before: int = 0
    """The generation of the old program in the ledger."""
    control: tuple[str, socket.socket] | None = None
    """The control socket, with its path."""
    stay: Stay = UNSAID
    """Of the old program."""
    elders: Sequence[tuple[int, socket.socket, Stay]] = ()
    """Programs before the old one that still have sessions: the generation of each, and the conversation with it."""


# --- the new program ---------------------------------------------------------------------------------


class Predecessor:
    """The program that this one is to take the place of."""

    def __init__(self, conversation: int, error: int) -> None:
        self._wire = Wire(socket.socket(fileno=conversation))
        self._error = error
        self.inheritance = Inheritance()
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
        """Once.  Raises SystemExit where the old program says nothing."""
        heard = self._hear()
        if heard is None:
            raise SystemExit("starttls-gateway: the program that started this one as its successor is gone")
        message, passed = heard
        rest = iter(passed)
        found = Inheritance(knowledge=message["knowledge"], before=message["generation"])
        ledger = next(rest)
        with suppress(ValueError):
            check_layout(ledger)
            found.ledger = partial(SharedLedger, ledger, generation=following(found.before))
        elders: list[int] = list(message.get("elders", ()))
        if found.ledger is None:
            # Their numbers are those of a ledger that cannot be read here. Numbers of ours begin at 1 again.
            found.before, *elders = range(-1, -2 - len(elders), -1)
        for address, spreads in message["ports"]:
            found.sockets.setdefault(address, []).append(received(spreads, rest))
        if (path := message.get("control")) is not None:
            found.control = path, adopted(next(rest))
        found.stay, *stays = message.get("stays") or [UNSAID] * (1 + len(elders))
        found.elders = [(generation, adopted(next(rest)), stay) for generation, stay in zip(elders, stays, strict=True)]
        self.inheritance = found
        return found

    @property
    def conversation(self) -> socket.socket:
        return self._wire.socket

    def let_go(self) -> None:
        """It waits for this program no more: last words are for everybody now."""
        os.dup2(self._error, 2)
        os.close(self._error)

    def _hear(self) -> tuple[Message, list[int]] | None:
        self._wire.socket.settimeout(FIRST)
        with suppress(OSError, Unintelligible):
            while (heard := self._wire.hear()) is not None:
                for message, descriptors in heard:
                    if message:
                        return message, descriptors
        return None


# --- the old program ---------------------------------------------------------------------------------


class Successor:
    """The program that is to take our place."""

    def __init__(
        self,
        reactor: Any,
        bequest: Bequest,
        served: Callable[[str, Collection[str] | None], None],
        failed: Callable[[str], None],
        broke: Callable[[str], None],
        stop: Callable[[bool], None],
        ask: Callable[[Request], Any],
    ) -> None:
        """One of these is called: `served` as soon as it serves, with its version and where it serves, if it says so;
        `failed` with the reason where it never will.  `broke` is called with the reason where it breaks down after it
        has served, and `stop` when it stops itself: with True if at once.  `ask` gives the Answer to a question about
        our sessions, or a Deferred of it.  Raises OSError."""
        self._reactor = reactor
        self._served = served
        self._failed = failed
        self._broke = broke
        self._stop = stop
        self._ask = ask
        self._serves = False
        self._ends = False
        """It has said that it stops."""
        ours, theirs = socket.socketpair()
        self._words = os.memfd_create("stderr", os.MFD_CLOEXEC)
        try:
            with theirs:
                self.pid, self._handle = _start(theirs.fileno(), self._words)
        except OSError:
            ours.close()
            os.close(self._words)
            raise
        # It stays open until this process has ended: so the successor learns of the end.
        self._channel = Channel(reactor, ours, self._heard, self._lost)
        self._late = False
        self._vigil = Vigil(reactor, self._hangs)
        self._vigil.give(PATIENCE)
        self._channel.hand(*bequest.packed())

    def _heard(self, message: Message, descriptors: list[int]) -> None:
        match message:
            case {"ready": _} if not self._serves:
                self._vigil.stop()
                self._serves = True
                self._served(str(message.get("version", "")), message.get("listens"))
                self._channel.say({"go": True})
                # What it says is its own business from now on.
                os.close(self._words)
            case {"stop": bool(now)}:
                self._ends = True
                self._stop(now)
            case {"ask": int(number), "command": str(command), "about": str(about)} if command in OF_SESSIONS:
                maybeDeferred(self._ask, Request(command, about)).addCallback(self._reply, number)

    def _reply(self, answer: Answer, number: int) -> None:
        with_each(self._reactor, reply(number, parts(answer)), 1, self._channel.say)

    def _lost(self) -> None:
        """Its end of the conversation is closed: it has ended, or is about to."""
        self._vigil.stop()
        if not self._serves:
            self._kill()
            readable(LAST, self._handle)
            words = self._last_words()
            why = f"the new program did not serve within {PATIENCE:.0f} s" if self._late else words
            self._failed(why or f"the new program, process {self.pid}, ended before it served")
        elif not self._ends:
            self._broke(f"the new program, process {self.pid}, broke down")
        os.close(self._handle)

    def _hangs(self) -> None:
        self._late = True
        self._kill()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def _last_words(self) -> str:
        size = os.fstat(self._words).st_size
        words = os.pread(self._words, 4096, max(0, size - 4096)).decode("utf-8", "backslashreplace")
        os.close(self._words)
        said = [line for line in words.splitlines() if line.strip()]
        return said[-1].removeprefix("starttls-gateway: ") if said else ""


_ORPHAN: Final = """
import os, sys
pid = os.fork()
if pid:
    os.write(int(sys.argv[1]), str(pid).encode())
    os._exit(0)
os.close(int(sys.argv[1]))
os.setsid()
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Starts a program and ends.  So the program becomes a child of systemd.  systemd does not watch over a main process
that is not its child, and does not wait for its end at a stop."""


def _start(conversation: int, words: int) -> tuple[int, int]:
    """The new program's process, and a descriptor of it (pidfd_open(2)).  Raises OSError."""
    environment = {name: value for name, value in os.environ.items() if name not in _OLD_NEWS}
    if environment.get("WATCHDOG_PID") == str(os.getpid()):
        # systemd's watchdog waits for the new program then.
        del environment["WATCHDOG_PID"]
    error = os.dup(2)
    told, tell = os.pipe()
    try:
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", _ORPHAN, str(tell), sys.executable, *sys.orig_argv[1:]],
            stdin=subprocess.DEVNULL,
            stderr=words,
            cwd=_DIRECTORY,
            env={**environment, VARIABLE: f"{conversation}:{error}"},
            pass_fds=(conversation, error, tell),
            check=False,
        )
        os.set_blocking(told, False)
        try:
            pid = int(os.read(told, 32))
        except (BlockingIOError, ValueError):
            raise OSError(errno.ENOEXEC, f"{sys.executable} does not run") from None
        return pid, os.pidfd_open(pid)
    finally:
        for number in (error, told, tell):
            os.close(number)


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
