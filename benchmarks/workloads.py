"""What is measured: each workload drives one running peer and returns what it cost."""

from __future__ import annotations

import multiprocessing
import os
import signal
import ssl
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from . import client, processes
from .client import Broken, Conversation, Outcome, Talk
from .peers import IMAP_IMPLICIT, IMAP_STARTTLS, SMTP_STARTTLS, Running

Measures = dict[str, float]
"""Seconds, octets or pure numbers, by name; `cpu` and `wall` are per unit of the workload."""

WARM = 10
"""Conversations before the first that counts: modules loaded, caches filled."""


@dataclass(frozen=True)
class Conditions:
    """What one may choose on the command line."""

    tls: ssl.SSLContext
    seconds: float
    """How long sessions follow one another."""
    octets: int
    """Of a transfer."""
    at_once: int
    held: int
    """Sessions that the descriptors are enough for."""

    def slice(self, count: int) -> Conditions:
        """One of so many turns in which a peer does the work of a round."""
        return replace(self, seconds=self.seconds / count, octets=self.octets // count)


@dataclass(frozen=True)
class Target:
    """`measure` is at most `most` times what `against` has; with nobody to compare with, at most `most` itself."""

    most: float
    against: str = ""
    measure: str = ""
    """The workload's main one if it is not named."""


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    service: str
    unit: str
    main: str
    """The measure that is compared."""
    scale: float
    """What to multiply it with for `unit`."""
    run: Callable[[Running, Conditions], Measures]
    fresh: bool = False
    """Wants a process that has done nothing yet."""
    most_rounds: int = 1000
    sessions: int = 0
    """With fewer of them its targets are open."""
    targets: tuple[Target, ...] = ()
    extra: tuple[tuple[str, str, float], ...] = ()
    """Further measures worth a column: name, unit, scale."""


def _converse(running: Running, conditions: Conditions, begin: client.Begin, seconds: float) -> tuple[Outcome, float]:
    """Sessions for so long, and the CPU that they cost, what follows the last one included."""
    running.settle()
    before = running.cpu()
    until = time.perf_counter() + seconds
    outcome = client.converse(begin, conditions.at_once, lambda _: time.perf_counter() < until)
    running.settle()
    return outcome, running.cpu() - before


def _warm(conditions: Conditions, begin: client.Begin) -> Outcome:
    return client.converse(begin, min(WARM, conditions.at_once), lambda begun: begun < WARM)


def _per(running: Running, units: float, cpu: float, wall: float) -> Measures:
    return {"units": units, "cpu": cpu / units, "wall": wall / units, "pss": running.memory()["Pss"]}


def _imap(starttls: bool, resumed: bool) -> Callable[[Running, Conditions], Measures]:
    def run(running: Running, conditions: Conditions) -> Measures:
        port = running.ports[IMAP_STARTTLS if starttls else IMAP_IMPLICIT]
        ticket: ssl.SSLSession | None = None

        def begin() -> tuple[Conversation, Talk]:
            one = Conversation(port, conditions.tls, ticket)
            return one, client.imap(one, starttls)

        warm = _warm(conditions, begin)
        if resumed:
            ticket = warm.session
        outcome, cpu = _converse(running, conditions, begin, conditions.seconds)
        if resumed and outcome.resumed < outcome.finished:
            raise Broken(f"resumes {outcome.resumed} of {outcome.finished} sessions")
        return _per(running, outcome.finished, cpu, outcome.seconds)

    return run


def _smtp(octets: int, times: int) -> Callable[[Running, Conditions], Measures]:
    mail = client.message(octets)

    def run(running: Running, conditions: Conditions) -> Measures:
        port = running.ports[SMTP_STARTTLS]

        def begin() -> tuple[Conversation, Talk]:
            one = Conversation(port, conditions.tls)
            return one, client.smtp(one, mail, times)

        _warm(conditions, begin)
        outcome, cpu = _converse(running, conditions, begin, conditions.seconds)
        return _per(running, outcome.finished * times, cpu, outcome.seconds)

    return run


def _transfer(move: Callable[[ssl.SSLSocket, int], None]) -> Callable[[Running, Conditions], Measures]:
    def run(running: Running, conditions: Conditions) -> Measures:
        with client.logged_in(running.ports[IMAP_IMPLICIT], conditions.tls) as sock:
            move(sock, conditions.octets // 50)
            running.settle()
            before, began = running.cpu(), time.perf_counter()
            move(sock, conditions.octets)
            wall = time.perf_counter() - began
            cpu = running.cpu() - before
        return _per(running, conditions.octets / 1e9, cpu, wall)

    return run


def _round_trip(running: Running, conditions: Conditions) -> Measures:
    with client.logged_in(running.ports[IMAP_IMPLICIT], conditions.tls) as sock:
        list(client.round_trips(sock, time.perf_counter() + min(0.2, conditions.seconds / 4)))
        running.settle()
        before, began = running.cpu(), time.perf_counter()
        trips = sorted(client.round_trips(sock, began + conditions.seconds))
        wall = time.perf_counter() - began
        cpu = running.cpu() - before
    return {
        **_per(running, len(trips), cpu, wall),
        "median": statistics.median(trips),
        "p99": trips[int(len(trips) * 0.99)],
    }


# --- an honest client beside others --------------------------------------------------------------------

_FORK: Any = multiprocessing.get_context("fork")
HANDSHAKES = 500
"""A second."""
_TICK = 0.02
"""Seconds between two groups of handshakes."""
_PART = 10_000_000
"""Octets of one download of the fast client."""

Load = Callable[[Running, Conditions], AbstractContextManager[Callable[[], float]]]
"""Others whom the peer serves meanwhile; what it yields tells how much of theirs is done."""


@contextmanager
def _meanwhile(work: Callable[[Any], None]) -> Iterator[Callable[[], float]]:
    """Another process does this, and counts what it has done.  In our process it would take our time."""
    done = _FORK.Value("d", 0.0)

    def run() -> None:
        processes.die_with_us()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        work(done)

    process = _FORK.Process(target=run)
    process.start()

    def count() -> float:
        if not process.is_alive():
            raise Broken("the others have ended")
        return float(done.value)

    try:
        yield count
    finally:
        process.terminate()
        process.join()


def _transferring(running: Running, conditions: Conditions) -> AbstractContextManager[Callable[[], float]]:
    """A client that downloads as fast as it can; counts MB."""

    def work(done: Any) -> None:
        with client.logged_in(running.ports[IMAP_IMPLICIT], conditions.tls) as sock:
            while True:
                client.download(sock, _PART)
                done.value += _PART / 1e6

    return _meanwhile(work)


def _shaking(running: Running, conditions: Conditions) -> AbstractContextManager[Callable[[], float]]:
    """Clients that do a handshake and leave; counts them."""

    def begin() -> tuple[Conversation, Talk]:
        one = Conversation(running.ports[IMAP_IMPLICIT], conditions.tls)
        return one, client.shake(one)

    def work(done: Any) -> None:
        group = int(HANDSHAKES * _TICK)
        due = time.monotonic()
        while True:
            # A peer that cannot keep up may refuse some.
            with suppress(Broken):
                done.value += client.converse(begin, group, lambda begun: begun < group).finished
            due = max(due + _TICK, time.monotonic() - 1.0)
            time.sleep(max(0.0, due - time.monotonic()))

    return _meanwhile(work)


def _crowd(wanted: int) -> Load:
    @contextmanager
    def held(running: Running, conditions: Conditions) -> Iterator[Callable[[], float]]:
        sessions = min(wanted, conditions.held)
        opened: list[Conversation] = []

        def login() -> tuple[Conversation, Talk]:
            one = Conversation(running.ports[IMAP_IMPLICIT], conditions.tls)
            return one, client.imap_login(one, starttls=False)

        try:
            client.converse(login, conditions.at_once, lambda begun: begun < sessions, keep=opened)
            running.settle()
            yield lambda: 0.0
        finally:
            for one in opened:
                one.close()

    return held


def _beside(load: Load) -> Callable[[Running, Conditions], Measures]:
    def run(running: Running, conditions: Conditions) -> Measures:
        port, clock = running.ports[IMAP_IMPLICIT], time.perf_counter
        with client.logged_in(port, conditions.tls) as sock, load(running, conditions) as done:
            list(client.round_trips(sock, clock() + min(0.3, conditions.seconds / 2)))
            began, before = clock(), done()
            trips = sorted(client.round_trips(sock, began + conditions.seconds))
            wall, rate = clock() - began, done() - before
        return {
            "units": len(trips),
            "median": statistics.median(trips),
            "p99": trips[int(len(trips) * 0.99)],
            "rate": rate / wall,
            "pss": running.memory()["Pss"],
        }

    return run


def _alone(workload: Workload) -> Workload:
    """The same, one session after another."""

    def run(running: Running, conditions: Conditions) -> Measures:
        return workload.run(running, replace(conditions, at_once=1))

    title, targets = f"{workload.title}, one after another", _TARGETS_ALONE.get(workload.name, ())
    return replace(workload, name=f"{workload.name}-alone", title=title, run=run, targets=targets)


_TARGETS_ALONE = {"imap-full": (Target(1.4, "nginx"),), "imap-resumed": (Target(1.6, "nginx"),)}


# --- memory ------------------------------------------------------------------------------------------


def _idle(wanted: int, rest: float = 0.0) -> Callable[[Running, Conditions], Measures]:
    def run(running: Running, conditions: Conditions) -> Measures:
        sessions = min(wanted, conditions.held)
        port = running.ports[IMAP_IMPLICIT]
        opened: list[Conversation] = []

        def login() -> tuple[Conversation, Talk]:
            one = Conversation(port, conditions.tls)
            return one, client.imap_login(one, starttls=False)

        def begin() -> tuple[Conversation, Talk]:
            one = Conversation(port, conditions.tls)
            return one, client.imap(one, starttls=False)

        _warm(conditions, begin)
        alone, alone_cpu = _converse(running, conditions, begin, conditions.seconds)
        before = running.memory()["Pss"]
        try:
            client.converse(login, conditions.at_once, lambda begun: begun < sessions, keep=opened)
            # Deadlines of the beginning pass, or are moved, once for each session.
            time.sleep(rest)
            running.settle()
            held = running.memory()["Pss"]
            cpu, began = running.cpu(), time.perf_counter()
            time.sleep(max(3.0, conditions.seconds))
            idle = (running.cpu() - cpu) / (time.perf_counter() - began)
            among, among_cpu = _converse(running, conditions, begin, conditions.seconds)
        finally:
            for one in opened:
                one.close()
        return {
            "units": sessions,
            "memory": (held - before) / sessions,
            "idle": idle,
            "cpu": among_cpu / among.finished,
            "wall": among.seconds / among.finished,
            "slower": (among_cpu / among.finished) / (alone_cpu / alone.finished),
            "pss": held,
        }

    return run


def _start(running: Running, conditions: Conditions) -> Measures:
    used = running.memory()
    return {"units": 1, "start": running.seconds, "cpu": running.cpu(), "rss": used["Rss"], "pss": used["Pss"]}


_MS, _US, _KB, _MB = 1e3, 1e6, 1e-3, 1e-6

_IDLE_EXTRA = (
    ("units", "sessions", 1.0),
    ("idle", "% CPU when idle", 100.0),
    ("slower", "x CPU of a new session", 1.0),
)

_SESSIONS = (
    Workload(
        "imap-full", "IMAP, STARTTLS, full handshake", IMAP_STARTTLS, "ms/session", "cpu", _MS, _imap(True, False),
        targets=(Target(1.25, "nginx"), Target(1.0, "stunnel"), Target(1.0, "dovecot")),
    ),
    Workload(
        "imap-resumed", "IMAP, STARTTLS, resumed", IMAP_STARTTLS, "ms/session", "cpu", _MS, _imap(True, True),
        targets=(Target(1.8, "nginx"),),
    ),
    Workload(
        "imap-implicit", "IMAP, implicit TLS, full handshake", IMAP_IMPLICIT, "ms/session", "cpu", _MS,
        _imap(False, False),
        targets=(Target(1.0, "haproxy"),),
    ),
    Workload("smtp-4k", "SMTP, a mail of 4 KB", SMTP_STARTTLS, "ms/session", "cpu", _MS, _smtp(4096, 1)),
    Workload("smtp-1m", "SMTP, a mail of 1 MB", SMTP_STARTTLS, "ms/session", "cpu", _MS, _smtp(1_000_000, 1)),
    Workload(
        "smtp-many", "SMTP, ten mails of 4 KB in a session", SMTP_STARTTLS, "ms/mail", "cpu", _MS, _smtp(4096, 10),
        targets=(Target(2.0, "stunnel"),),
    ),
)  # fmt: skip

_LATENCY = (("p99", "us, 99th percentile", _US), ("rate", "MB or handshakes a second of the others", 1.0))

WORKLOADS = (
    *_SESSIONS,
    *map(_alone, _SESSIONS),
    Workload(
        "download", "Download", IMAP_IMPLICIT, "s/GB", "cpu", 1.0, _transfer(client.download),
        targets=(Target(0.85, "nginx"),),
    ),
    Workload(
        "upload", "Upload", IMAP_IMPLICIT, "s/GB", "cpu", 1.0, _transfer(client.upload),
        targets=(Target(1.2, "nginx"),),
    ),
    Workload(
        "round-trip", "Round trip of a short line", IMAP_IMPLICIT, "us", "cpu", _US, _round_trip,
        targets=(Target(1.6, "nginx"),),
        extra=(("median", "us, median", _US), ("p99", "us, 99th percentile", _US)),
    ),
    Workload(
        "beside-transfer", "Round trip beside a fast download", IMAP_IMPLICIT, "us", "median", _US,
        _beside(_transferring),
        extra=_LATENCY,
    ),
    Workload(
        "beside-handshakes", "Round trip beside 500 handshakes a second", IMAP_IMPLICIT, "us", "median", _US,
        _beside(_shaking),
        extra=_LATENCY,
    ),
    Workload(
        "idle-5000", "Round trip beside 5,000 idle sessions", IMAP_IMPLICIT, "us", "median", _US,
        _beside(_crowd(5000)),
        fresh=True,
        extra=_LATENCY[:1],
    ),
    Workload(
        "idle-1000", "Memory of 1,000 idle sessions", IMAP_IMPLICIT, "KB/session", "memory", _KB, _idle(1000),
        fresh=True,
        sessions=1000,
        targets=(Target(1.0, "nginx"),),
        extra=_IDLE_EXTRA,
    ),
    Workload(
        "idle-10000", "Memory of 10,000 idle sessions", IMAP_IMPLICIT, "KB/session", "memory", _KB,
        _idle(10000, rest=30.0),
        fresh=True,
        # Half a minute for each of them, and memory hardly varies.
        most_rounds=1,
        sessions=10000,
        targets=(Target(1.0, "nginx"), Target(0.01, measure="idle"), Target(1.1, measure="slower")),
        extra=_IDLE_EXTRA,
    ),
    Workload(
        "start", "Start to listening", IMAP_IMPLICIT, "s", "start", 1.0, _start,
        fresh=True,
        targets=(Target(0.6, measure="start"), Target(45e6, measure="rss")),
        extra=(("rss", "MB resident", _MB),),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """One workload on one peer in one round."""

    workload: str
    peer: str
    round: int
    measures: Measures
    others: float = 0.0
    """Processors that were kept busy by processes that had nothing to do with it."""
    failure: str = ""


def together(slices: Sequence[Sample]) -> Sample:
    """What the slices of a round make; if one of them failed, the round did."""
    first = slices[0]
    others = statistics.mean(one.others for one in slices)
    if failure := next((one.failure for one in slices if one.failure), ""):
        return replace(first, measures={}, others=others, failure=failure)
    measures = {name: statistics.median(one.measures[name] for one in slices) for name in first.measures}
    for name in {"units", "user", "kernel"} & measures.keys():
        measures[name] = sum(one.measures[name] for one in slices)
    for name in {"cpu", "wall"} & measures.keys():
        # These are per unit: a slice with more units weighs more.
        whole = sum(one.measures[name] * one.measures["units"] for one in slices)
        measures[name] = whole / measures["units"]
    return replace(first, measures=measures, others=others)


def measure(workload: Workload, running: Running, conditions: Conditions, number: int, backend: int) -> Sample:
    """`backend` is the process behind all peers."""

    def ours() -> float:
        return processes.own_cpu() + processes.cpu(backend) + running.cpu()

    name = running.peer.name
    began, machine, own = time.perf_counter(), processes.machine_cpu(), ours()
    user, kernel = processes.spent(running.process.pid)
    try:
        measures = workload.run(running, conditions)
    except (Broken, OSError, ssl.SSLError, ZeroDivisionError) as error:
        failure = running.obituary() or str(error) or type(error).__name__
        return Sample(workload.name, name, number, {}, failure=failure)
    elapsed = time.perf_counter() - began
    now = processes.spent(running.process.pid)
    measures |= {"user": now[0] - user, "kernel": now[1] - kernel}
    others = ((processes.machine_cpu() - machine) - (ours() - own)) / elapsed
    return Sample(workload.name, name, number, measures, others=max(0.0, min(others, float(os.cpu_count() or 1))))
