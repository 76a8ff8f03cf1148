"""What a master gives to the template of its workers: everything that workers of one configuration have in common."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import IO

from ... import __version__
from ...config.values import Configuration
from ...records import dataclass
from ...wire.spread import Spread
from ..plan import Opening
from ..ports import Change, Port, described, descriptors_of, received
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


@dataclass(frozen=True, slots=True)
class Orders:
    """Descriptors are those of the template, which inherits them."""

    configuration: Configuration
    ports: Sequence[Sequence[tuple[str, int]]]
    """For each opening of the configuration: see `described`."""
    sockets: Sequence[int]
    """All of theirs."""
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


def start(orders: Orders) -> Started:
    """Start a template, a program of its own: a fork of a process with a reactor would share its epoll descriptor.

    Raises OSError.
    """
    file = os.memfd_create("orders", 0)
    try:
        os.write(file, pickle.dumps((__version__, orders)))
        os.lseek(file, 0, os.SEEK_SET)
        passed = [file, orders.ledger, orders.master, *orders.sockets, *([] if orders.log is None else [orders.log])]
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


def orders_from(file: int) -> Orders:
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

    def __init__(self) -> None:
        self._kept: Mapping[int, int] = {}
        self._opened: Sequence[list[Spread]] = ()

    def expect(
        self, kept: Mapping[int, int], ports: Iterable[Iterable[tuple[str, int]]], sockets: Iterable[int]
    ) -> None:
        """The next change is this one.  `ports` and `sockets`: those that are new."""
        rest = iter(sockets)
        self._kept, self._opened = kept, [received(port, rest) for port in ports]

    def give_up(self) -> None:
        """The change that was expected does not come: nobody else would close its sockets."""
        for spreads in self._opened:
            for one in spreads:
                one.close()
        self._opened = ()

    def __call__(self, old: Sequence[tuple[Port, Opening]], new: Sequence[Opening]) -> Change:
        opened, self._opened = iter(self._opened), ()
        ports = [
            old[self._kept[position]][0] if position in self._kept else Port(opening.address, next(opened))
            for position, opening in enumerate(new)
        ]
        return Change(tuple(ports), self._kept, tuple(port for port, _ in old if port not in ports))


# --- another configuration for those that are there ------------------------------------------------


def packed(configuration: Configuration, change: Change) -> tuple[Message, list[int]]:
    """A message with its descriptors, the first of which is to be closed then: it holds the configuration."""
    file = os.memfd_create("configuration", os.MFD_CLOEXEC)
    os.write(file, pickle.dumps(configuration))
    opened = list(change.opened.values())
    message = {"use": [described(port) for port in opened], "kept": sorted(change.kept.items())}
    return message, [file, *descriptors_of(opened)]


def unpacked(message: Message, passed: Sequence[int], given: Given) -> Configuration:
    """What `packed` put in; `given` expects its sockets."""
    file, *sockets = passed
    try:
        # All workers share one offset, and read at the same time: a read must not move it.
        octets = os.pread(file, os.fstat(file).st_size, 0)
    finally:
        os.close(file)
    # From the master, over a socket pair that nobody else has.
    configuration = pickle.loads(octets)
    assert isinstance(configuration, Configuration)
    given.expect(dict(message["kept"]), message["use"], sockets)
    return configuration


def name_process(name: str) -> None:
    """What `ps -o comm` and `top` show; 15 octets at most (prctl(2), PR_SET_NAME)."""
    with suppress(OSError), open("/proc/self/comm", "w") as file:
        file.write(name[:15])
