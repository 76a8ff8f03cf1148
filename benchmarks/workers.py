"""What a second worker is worth: full sessions per second of one and of two, each held to a part of a core.

python -m benchmarks.workers [--quota PERCENT] [--rounds N] [--seconds N]; needs root and control groups of version 1
with `cpu`.

Client and backend need the rest of the machine: two cores are enough for a quarter each.  The master of several workers
is not held to anything; what it uses is shown.

A quota stops a process for most of the time, and some virtual machines make the memory of a stopped process slow.  So
a walk over memory is held to the same quota first.  Where it needs several times the CPU, the rates say more about the
machine than about the gateway.  The CPU of a session without a quota is measured too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from . import client, peers, processes
from .peers import IMAP_STARTTLS, Running, Stage

GROUPS = Path("/sys/fs/cgroup/cpu")
PERIOD = 100_000
"""Microseconds in which each has its quota."""
SHARES = 50_000
AT_ONCE = 192
WARMUP = 200


@dataclass
class Sample:
    rate: float
    """Sessions per second."""
    cpu: dict[str, float]
    """Seconds of CPU per session, by process."""
    quota: list[float]
    """What those that serve used of what they were allowed; where it is far from all, something else was the limit.
    Empty without a quota."""
    private: dict[str, int]
    """Octets that a process shares with no other, by process; after the sessions are over."""
    grown: Mapping[str, tuple[int, int]]
    """The same of those that serve: idle, and after sessions one at a time.  What comes on top with many sessions at
    once is theirs."""


def names(pid: int) -> dict[str, int]:
    """The processes of a gateway by name."""
    return {Path(f"/proc/{one}/comm").read_text().strip(): one for one in processes.tree(pid)}


def serving(pid: int) -> Mapping[str, int]:
    return servers(names(pid))


def servers(family: Mapping[str, int]) -> Mapping[str, int]:
    """Those that serve: the workers, or the only process."""
    return {name: one for name, one in family.items() if name.startswith("gateway-worker")} or family


def private(pid: int) -> int:
    return unshared(Path(f"/proc/{pid}/smaps_rollup").read_text())


def unshared(rollup: str) -> int:
    """Octets, from the text of smaps_rollup."""
    fields = dict(line.split(":", 1) for line in rollup.splitlines()[1:])
    return sum(int(fields[name].split()[0]) * 1024 for name in ("Private_Clean", "Private_Dirty"))


def seconds(pid: int) -> float:
    return spent(Path(f"/proc/{pid}/stat").read_text())


def spent(stat: str) -> float:
    """Seconds of CPU, from the text of /proc/PID/stat."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / processes.TICKS


@contextmanager
def held(pids: Mapping[str, int], percent: int) -> Iterator[None]:
    """Each of them to so many percent of a core."""
    made = []
    try:
        for name, pid in pids.items():
            group = GROUPS / f"gateway-bench-{os.getpid()}-{name}"
            group.mkdir()
            made.append(group)
            (group / "cpu.cfs_period_us").write_text(str(PERIOD))
            # Other work on this machine shall not be what holds it.
            (group / "cpu.shares").write_text(str(SHARES))
            (group / "cpu.cfs_quota_us").write_text(str(PERIOD * percent // 100))
            (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for group in made:
            for moved in (group / "cgroup.procs").read_text().split():
                with suppress(OSError):
                    (GROUPS / "cgroup.procs").write_text(moved)
            with suppress(OSError):
                group.rmdir()


@contextmanager
def preferred(pids: Collection[int]) -> Iterator[None]:
    """Client and backend are not what is measured, and must not be what limits it."""
    group = GROUPS / f"gateway-bench-{os.getpid()}-others"
    group.mkdir()
    try:
        (group / "cpu.shares").write_text(str(SHARES))
        for pid in pids:
            (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for pid in pids:
            with suppress(OSError):
                (GROUPS / "cgroup.procs").write_text(str(pid))
        with suppress(OSError):
            group.rmdir()


def gateway(workers: int) -> peers.Peer:
    alone = peers.gateway()

    def command(config: Path, settings: Mapping[str, object]) -> Sequence[str]:
        config.write_text(config.read_text().replace("[gateway]\n", f"[gateway]\nworkers = {workers}\n"))
        return alone.command(config, settings)

    return replace(alone, name=f"workers-{workers}", command=command)


def wait_for_workers(running: Running, workers: int) -> None:
    until = time.monotonic() + 20
    while workers > 1 and sum(name.startswith("gateway-worker") for name in names(running.process.pid)) < workers:
        if time.monotonic() > until:
            raise SystemExit(f"there are not {workers} workers: {running.obituary()}")
        time.sleep(0.05)
    running.settle()


def page(percent: int, duration: float) -> float:
    """Microseconds of CPU that a page of memory costs a process held so; 100 holds nothing."""
    command = [sys.executable, "-m", "benchmarks.machine", "--pages", str(duration)]
    with ExitStack() as stack:
        pipe = subprocess.PIPE
        walk = stack.enter_context(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=peers.ROOT))
        if percent < 100:
            stack.enter_context(held({"walk": walk.pid}, percent))
        return float(walk.communicate("\n")[0])


def measure(stage: Stage, workers: int, duration: float, percent: int) -> Sample:
    """`percent` of a core for each that serves; 100 holds nothing."""
    tls = client.context(stage.certificate)
    with peers.running(gateway(workers), stage) as running:
        wait_for_workers(running, workers)
        port = running.ports[IMAP_STARTTLS]

        def begin() -> tuple[client.Conversation, client.Talk]:
            one = client.Conversation(port, tls)
            return one, client.imap(one, starttls=True)

        family = names(running.process.pid)
        idle = {name: private(pid) for name, pid in serving(running.process.pid).items()}
        client.converse(begin, 1, lambda begun: begun < WARMUP)
        grown = {name: (octets, private(family[name])) for name, octets in idle.items()}
        client.converse(begin, AT_ONCE, lambda begun: begun < WARMUP)
        hold = held(serving(running.process.pid), percent) if percent < 100 else nullcontext()
        with preferred((os.getpid(), stage.backend_pid)), hold:
            before = {name: seconds(pid) for name, pid in family.items()}
            end = time.perf_counter() + duration
            outcome = client.converse(begin, AT_ONCE, lambda begun: time.perf_counter() < end)
            used = {name: (seconds(pid) - before[name]) / outcome.finished for name, pid in family.items()}
        allowed = percent / 100 * outcome.seconds / outcome.finished
        quota = [used[name] / allowed for name in serving(running.process.pid)] if percent < 100 else []
        running.settle()
        memory = {name: private(pid) for name, pid in family.items()}
        return Sample(outcome.finished / outcome.seconds, used, quota, memory, grown)


def show(number: int, workers: int, sample: Sample) -> None:
    how = "each held" if sample.quota else "not held"
    cpu = ", ".join(f"{name} {1000 * used:.2f} ms" for name, used in sample.cpu.items())
    print(f"round {number}: {workers} serving, {how}: {sample.rate:.1f} sessions/s; CPU a session: {cpu}")
    if sample.quota:
        print(f"         of its quota each used {', '.join(f'{one:.0%}' for one in sample.quota)}")
    memory = ", ".join(f"{name} {octets / 1e6:.1f} MB" for name, octets in sample.private.items())
    print(f"         private memory afterwards: {memory}")
    for name, (idle, alone) in sample.grown.items():
        print(f"         {name}: {idle / 1e6:.1f} MB idle, {alone / 1e6:.1f} MB after sessions one at a time")
    sys.stdout.flush()


def told(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f} (of {', '.join(f'{one:.2f}' for one in ratios)})"


def verdict(rates: Mapping[int, Sequence[float]], costs: Mapping[int, Sequence[float]]) -> tuple[str, str]:
    """What two workers are worth.  `rates`: sessions per second; `costs`: seconds of CPU; by workers, one a round."""
    cheaper = [2 * one / two for one, two in zip(costs[1], costs[2], strict=True)]
    faster = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    return (
        f"two against one, by CPU without a quota, the master's counted: {told(cheaper)}",
        f"two against one, each held: {told(faster)}",
    )


def main(given: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--quota", type=int, default=25, metavar="PERCENT", help="of a core, for each that serves (25)")
    options = parser.parse_args(given)
    descriptors = processes.raise_descriptor_limit(20000)
    free, stopped = page(100, 2), page(options.quota, 4)
    print(f"a page of memory again: {free:.2f} us not held, {stopped:.2f} us held: {stopped / free:.1f} times")
    rates: dict[int, list[float]] = {1: [], 2: []}
    costs: dict[int, list[float]] = {1: [], 2: []}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="gateway-bench-", ignore_cleanup_errors=True)))
        stage = stack.enter_context(peers.stage(directory, descriptors))
        for number in range(1, options.rounds + 1):
            for workers in (1, 2):
                sample = measure(stage, workers, options.seconds, 100)
                costs[workers].append(sum(sample.cpu.values()))
                show(number, workers, sample)
                sample = measure(stage, workers, options.seconds, options.quota)
                rates[workers].append(sample.rate)
                show(number, workers, sample)
    print("\n".join(verdict(rates, costs)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
