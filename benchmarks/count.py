"""Instructions of the gateway per unit of work, by library: `python -m benchmarks.count`, or `make count`.

Valgrind's tool callgrind counts them. Unlike time, they hardly depend on what else the machine does. One session runs
at a time. The kernel's instructions are not counted.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from . import client, peers, processes
from .client import Conversation, Talk
from .peers import IMAP_STARTTLS, SMTP_STARTTLS, Peer, Running, Unavailable

RECORDED = Path(__file__).with_name("count.json")
"""The figures in the repository: unit -> library -> thousands of instructions."""
GROWTH = 1.05
"""A unit may need so much of its recorded figure."""
SLOWER = 50
"""How many times slower a program is under callgrind."""
PATIENCE = 120.0
"""Seconds that callgrind has for one command, and the gateway for its start under it."""

_PATIENT = f"""
try:
    from gateway.wire import loop
except ImportError:  # an earlier gateway
    pass
else:
    loop.LINGER *= {SLOWER}
    loop.STAY *= {SLOWER}
    from gateway.telemetry.report import keeper
    keeper.FLUSH *= {SLOWER}
"""
"""The event loop waits for client and backend in milliseconds, and uses up few of them; under callgrind these pass
faster than its work is done. So does the minute after which the report is written."""

Counts = Mapping[str, float]
"""Library -> thousands of instructions per unit."""
Work = Callable[[int], None]
"""Does so many units."""


@dataclass(frozen=True)
class Unit:
    name: str
    title: str
    prepare: Callable[[Running, ssl.SSLContext, ExitStack], Work]
    warm: int = 5
    """Units that are done before the first that counts."""
    units: int = 20


# --- what is done ---------------------------------------------------------------------------------------


def _sessions(begin: Callable[[], tuple[Conversation, Talk]], resumed: bool = False) -> Work:
    def work(units: int) -> None:
        outcome = client.converse(begin, 1, lambda begun: begun < units)
        assert outcome.resumed == units * resumed, "the wrong kind of handshake"

    return work


def _full(running: Running, tls: ssl.SSLContext, stack: ExitStack) -> Work:
    def begin() -> tuple[Conversation, Talk]:
        one = Conversation(running.ports[IMAP_STARTTLS], tls)
        return one, client.imap(one, starttls=True)

    return _sessions(begin)


def _resumed(running: Running, tls: ssl.SSLContext, stack: ExitStack) -> Work:
    def begin(ticket: ssl.SSLSession | None = None) -> tuple[Conversation, Talk]:
        one = Conversation(running.ports[IMAP_STARTTLS], tls, ticket)
        return one, client.imap(one, starttls=True)

    ticket = client.converse(begin, 1, lambda begun: begun < 1).session
    return _sessions(lambda: begin(ticket), resumed=True)


def _round_trip(running: Running, tls: ssl.SSLContext, stack: ExitStack) -> Work:
    sock = stack.enter_context(client.logged_in(running.ports[peers.IMAP_IMPLICIT], tls))

    def work(units: int) -> None:
        for _ in range(units):
            client.round_trip(sock)

    return work


def _smtp(running: Running, tls: ssl.SSLContext, stack: ExitStack) -> Work:
    mail = client.message(4096)

    def begin() -> tuple[Conversation, Talk]:
        one = Conversation(running.ports[SMTP_STARTTLS], tls)
        return one, client.smtp(one, mail, 1)

    return _sessions(begin)


UNITS = (
    Unit("imap-full", "IMAP session, STARTTLS, full handshake", _full),
    Unit("imap-resumed", "IMAP session, STARTTLS, resumed", _resumed),
    Unit("smtp-4k", "SMTP session, STARTTLS, one mail of 4 KB", _smtp),
    Unit("round-trip", "round trip of a short line", _round_trip, warm=100, units=400),
)

# --- how it is counted ----------------------------------------------------------------------------------

LIBRARIES = ("python", "openssl", "cffi", "libc", "other")
_FILES = (
    # The wheel of `cryptography` has OpenSSL inside.
    ("openssl", re.compile(r"/(_rust\.abi3|libssl|libcrypto)[^/]*$")),
    ("cffi", re.compile(r"/(_cffi_backend|libffi)[^/]*$")),
    ("libc", re.compile(r"/(libc|libm|ld-linux[^/]*)[.-][^/]*$")),
    ("python", re.compile(r"/(lib)?python3[^/]*$|\.cpython-[^/]*$")),
)
_NAMED = re.compile(r"c?ob=\((\d+)\) (.*)")


def library(path: str) -> str:
    """The one of LIBRARIES in which an object file counts."""
    return next((name for name, pattern in _FILES if pattern.search(path)), "other")


def parsed(text: str, units: int) -> Counts:
    """What a file of callgrind's says. A call's cost is the called function's, not counted twice."""
    libraries: dict[str, str] = {}
    counts = dict.fromkeys(LIBRARIES, 0)
    current, is_call = "other", False
    for line in text.splitlines():
        if named := _NAMED.fullmatch(line):
            libraries[named[1]] = library(named[2])
        if line.startswith("ob=("):
            current = libraries[line[4 : line.index(")")]]
        elif line.startswith("calls="):
            is_call = True
        elif line[:1] in "0123456789+-*" and line:
            if not is_call:
                counts[current] += int(line.split()[1])
            is_call = False
    return {name: round(count / units / 1000, 1) for name, count in counts.items()}


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise Unavailable(f"{name} is not installed: apt-get install --no-install-recommends valgrind")
    return path


def under_callgrind(peer: Peer, directory: Path) -> Peer:
    """The same peer under callgrind, which counts nothing until it is told to. Its files go to `directory`."""
    callgrind = [
        *(_program("valgrind"), "--tool=callgrind", "--instr-atstart=no", "--quiet"),
        *(f"--callgrind-out-file={directory}/callgrind", f"--vgdb-prefix={directory}/vgdb"),
    ]
    # Without PYTHONHASHSEED each run has other collisions in its dictionaries.
    environment = {**peer.environment, "PYTHONHASHSEED": "0"}

    def run(config: Path, settings: Mapping[str, object]) -> list[str]:
        python, option, program, *arguments = peer.command(config, settings)
        assert option == "-c"
        return [*callgrind, python, option, _PATIENT + program, *arguments]

    return replace(peer, command=run, environment=environment)


class Counter:
    """Steers one gateway under callgrind."""

    def __init__(self, running: Running, directory: Path) -> None:
        self._running = running
        self._directory = directory
        self._dumps = 0

    def count(self, unit: Unit, tls: ssl.SSLContext) -> Counts:
        with ExitStack() as stack:
            work = unit.prepare(self._running, tls, stack)
            work(unit.warm)
            self._tell("zero")
            work(unit.units)
            self._tell("dump")
        self._dumps += 1
        return parsed((self._directory / f"callgrind.{self._dumps}").read_text(), unit.units)

    def begin(self) -> None:
        self._tell("instrumentation on")

    def _tell(self, command: str) -> None:
        self._running.settle()
        vgdb = [_program("vgdb"), f"--pid={self._running.process.pid}", f"--vgdb-prefix={self._directory}/vgdb"]
        done = subprocess.run([*vgdb, command], capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode:
            raise Unavailable(f"callgrind does not obey: {done.stderr.strip() or self._running.obituary()}")


def count(gateway: Peer, units: Sequence[Unit] = UNITS) -> dict[str, Counts]:
    """Raises Unavailable."""
    with TemporaryDirectory(prefix="gateway-count-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        peer = under_callgrind(gateway, directory)
        with ExitStack() as stack:
            stage = stack.enter_context(peers.stage(directory, processes.raise_descriptor_limit(1024)))
            stage.compiled.add(peer.name)  # memory is not counted here
            running = stack.enter_context(peers.running(peer, stage, PATIENCE))
            tls = client.context(stage.certificate)
            counter = Counter(running, directory)
            counter.begin()
            return {unit.name: counter.count(unit, tls) for unit in units}


# --- what is said ---------------------------------------------------------------------------------------


def grown(counted: Mapping[str, Counts], recorded: Mapping[str, Counts]) -> list[str]:
    """Which units need more than they may, in words."""
    totals = [(name, sum(counts.values()), sum(recorded[name].values())) for name, counts in counted.items()]
    return [
        f"{name}: {now:,.0f} thousand instructions instead of {before:,.0f}"
        for name, now, before in totals
        if now > before * GROWTH
    ]


def table(
    counted: Mapping[str, Counts], recorded: Mapping[str, Counts] | None = None, units: Sequence[Unit] = UNITS
) -> str:
    """Thousands of instructions per unit; below each row, the recorded ones if there are any."""
    lines = [f"{'thousands of instructions':<42}{'all':>9}" + "".join(f"{name:>9}" for name in LIBRARIES)]
    sources = [("{}", counted)] + ([] if recorded is None else [("  in the repository", recorded)])
    for unit in units:
        if unit.name not in counted:
            continue
        for title, source in sources:
            counts = source.get(unit.name, dict.fromkeys(LIBRARIES, 0.0))
            numbers = [sum(counts.values()), *(counts[name] for name in LIBRARIES)]
            lines.append(f"{title.format(unit.title):<42}" + "".join(f"{number:>9,.1f}" for number in numbers))
    return "\n".join(lines)


@dataclass(frozen=True)
class Recorded:
    """What the repository has."""

    python: str
    openssl: str
    units: Mapping[str, Counts]

    def is_comparable(self, python: str) -> bool:
        """Whether this is the same build of Python. Raises Unavailable."""
        return peers.about(python)["python"] == self.python


def recorded() -> Recorded:
    return Recorded(**json.loads(RECORDED.read_text()))


def record(counted: Mapping[str, Counts], python: str) -> None:
    """In the repository, beside what is there of other units."""
    about = peers.about(python)
    units = {**recorded().units, **counted}
    told = {"python": about["python"], "openssl": about["openssl"], "units": units}
    RECORDED.write_text(json.dumps(told, indent=4) + "\n")


def main(given: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.count", description=__doc__)
    names = [unit.name for unit in UNITS]
    parser.add_argument("--only", nargs="+", metavar="UNIT", choices=names, default=names, help=f"of {names}")
    parser.add_argument("--python", type=peers.program, default=sys.executable, metavar="PATH", help="runs the gateway")
    parser.add_argument("--root", type=Path, default=peers.ROOT, metavar="DIR", help="another checkout of the gateway")
    parser.add_argument("--report", action="store_true", help="with [report] file")
    parser.add_argument("--write", action="store_true", help="record the figures in the repository")
    options = parser.parse_args(given)
    units = [unit for unit in UNITS if unit.name in options.only]
    gateway = peers.gateway(options.root.resolve(), python=options.python)
    gateway = replace(gateway, more=peers.REPORT if options.report else "")
    try:
        version = gateway.version()
        counted = count(gateway, units)
    except Unavailable as why:
        print(f"count: {why}", file=sys.stderr)
        return 2
    before = recorded()
    print(version)
    print(table(counted, before.units))
    if options.write:
        record(counted, options.python)
        return 0
    if not before.is_comparable(options.python):
        print(f"The figures in the repository are of {before.python}, OpenSSL {before.openssl}.")
        return 0
    worse = grown(counted, before.units)
    for line in worse:
        print(f"MORE  {line}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
