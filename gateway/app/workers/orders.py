"""What a master gives to the template of its workers: everything that workers of one configuration have in common."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

from ... import __version__
from ...config.values import Configuration
from ...records import dataclass
from ...wire.spread import Spread
from ..plan import Opening
from ..ports import Change, Port
from .messages import Message

_PROGRAM = """
import sys
sys.path[:] = sys.argv[2:]
from gateway.app.workers.template import main
main(int(sys.argv[1]))
"""
"""The modules come from where the master's came from, and not from the current directory, which may be anybody's."""


_ALLOCATOR = "PYTHONMALLOC"
"""The only one of Python's variables that a template has: the others can make it load modules from elsewhere."""

Described = tuple[tuple[tuple[str, tuple[int, ...]], ...], ...]
"""For each opening of a configuration: the addresses as text, each with the descriptors of its sockets."""


@dataclass(frozen=True, slots=True)
class Orders:
    """Descriptors are those of the template, which inherits them."""

    configuration: Configuration
    sockets: Described
    workers: int
    ledger: int
    """Of the limits."""
    generation: int
    """Of this gateway in the ledger."""
    master: int
    """The conversation with it."""
    log: int | None
    """Where lines go that come when the master is gone."""
    form: str
    """Of these lines: `text` or `json`."""
    reactor: str | None
    """What twistd's -r chose."""
    uid: int | None = None
    gid: int | None = None
    euid: bool = False
    """Whether uid and gid are to be the effective ones only."""


@dataclass(frozen=True, slots=True)
class Started:
    process: subprocess.Popen[bytes]
    words: IO[bytes]
    """What it and its workers write to standard error: the last words of one that breaks down."""


def described(ports: Sequence[Port]) -> Described:
    return tuple(
        tuple((spread.text, tuple(sock.fileno() for sock in spread.sockets)) for spread in port.spreads)
        for port in ports
    )


def start(orders: Orders) -> Started:
    """Start a template, a program of its own: a fork of a process with a reactor would share its epoll descriptor.

    Raises OSError.
    """
    file = os.memfd_create("orders", 0)
    try:
        os.write(file, pickle.dumps((__version__, orders)))
        os.lseek(file, 0, os.SEEK_SET)
        sockets = [number for opening in orders.sockets for _, numbers in opening for number in numbers]
        passed = [file, orders.ledger, orders.master, *sockets, *([] if orders.log is None else [orders.log])]
        process = subprocess.Popen(
            # As with -I, but for Python's allocator: see docs/installing.md.
            [sys.executable, "-s", "-c", _PROGRAM, str(file), *sys.path],
            env={
                name: value for name, value in os.environ.items() if name == _ALLOCATOR or not name.startswith("PYTHON")
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=passed,
            start_new_session=True,
        )
    finally:
        os.close(file)
    assert process.stderr is not None
    return Started(process, process.stderr)


def received(file: int) -> Orders:
    """In the template.  Raises SystemExit where its code is of another version than the master's."""
    with os.fdopen(file, "rb") as given:
        version, orders = pickle.load(given)
    if version != __version__:
        raise SystemExit(
            f"starttls-gateway {__version__} was installed while {version} runs: no worker can be started before the "
            "gateway is restarted"
        )
    assert isinstance(orders, Orders)
    for number in (orders.ledger, orders.master, orders.log):
        if number is not None:
            os.set_inheritable(number, False)
    return orders


class Given:
    """The ports of a process that binds none: the master has decided what is kept, and passed what is new."""

    def __init__(self, sockets: Described) -> None:
        self._kept: Mapping[int, int] = {}
        self._sockets = sockets

    def expect(self, kept: Mapping[int, int], sockets: Described) -> None:
        """The next change is this one."""
        self._kept, self._sockets = kept, sockets

    def give_up(self) -> None:
        """The change that was expected does not come: nobody else would close its sockets."""
        for port in self._sockets:
            for _, numbers in port:
                for number in numbers:
                    os.close(number)
        self._sockets = ()

    def __call__(self, old: Sequence[tuple[Port, Opening]], new: Sequence[Opening]) -> Change:
        sockets, self._sockets = iter(self._sockets), ()
        ports = [
            old[self._kept[position]][0] if position in self._kept else Port(opening.address, _adopted(next(sockets)))
            for position, opening in enumerate(new)
        ]
        return Change(tuple(ports), self._kept, tuple(port for port, _ in old if port not in ports))


def _adopted(described: tuple[tuple[str, tuple[int, ...]], ...]) -> list[Spread]:
    spreads = []
    for text, numbers in described:
        group = tuple(socket.socket(fileno=number) for number in numbers)
        for sock in group:
            sock.setblocking(False)
            sock.set_inheritable(False)
        spreads.append(Spread(text, group))
    return spreads


# --- another configuration for those that are there ------------------------------------------------


def packed(configuration: Configuration, change: Change) -> tuple[Message, list[int]]:
    """A message with its descriptors, the first of which is to be closed then: it holds the configuration."""
    file = os.memfd_create("configuration", os.MFD_CLOEXEC)
    os.write(file, pickle.dumps(configuration))
    opened = list(change.opened.values())
    numbers = [number for port in described(opened) for _, group in port for number in group]
    counts = [[[spread.text, len(spread.sockets)] for spread in port.spreads] for port in opened]
    return {"use": counts, "kept": sorted(change.kept.items())}, [file, *numbers]


def unpacked(message: Message, descriptors: Sequence[int], given: Given) -> Configuration:
    """What `packed` put in; `given` expects its sockets."""
    file, *numbers = descriptors
    try:
        # All workers share one offset, and read at the same time: a read must not move it.
        octets = os.pread(file, os.fstat(file).st_size, 0)
    finally:
        os.close(file)
    # From the master, over a socket pair that nobody else has.
    configuration = pickle.loads(octets)
    assert isinstance(configuration, Configuration)
    rest = iter(numbers)
    sockets = tuple(
        tuple((text, tuple(next(rest) for _ in range(count))) for text, count in port) for port in message["use"]
    )
    given.expect(dict(message["kept"]), sockets)
    return configuration


def name_process(name: str) -> None:
    """What `ps -o comm` and `top` show; 15 octets at most (prctl(2), PR_SET_NAME)."""
    with suppress(OSError), open("/proc/self/comm", "w") as file:
        file.write(name[:15])
