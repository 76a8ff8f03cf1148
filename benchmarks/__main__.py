"""The benchmark's command: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import os
import platform
import re
import signal
import ssl
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from . import chart, client, figures, peers, processes, report
from .machine import WALK
from .peers import Peer, Running, Stage, Unavailable
from .workloads import WORKLOADS, Conditions, Sample, Workload, measure, together

DESCRIPTORS = 65536
"""More than 10,000 sessions need, with two of them each."""
CHECK_LIMITS = {"imap-implicit": 2.0, "round-trip": 1.0, "download": 1.2, "upload": 1.5}
"""How much of a bare Twisted port forward's CPU the gateway may need: half again of what it did when this was written.
The forward looks at nothing, so a session with all its beginnings costs the gateway more, and all else less."""


def _whole(text: str) -> int:
    """1e9 is easier to read than 1000000000."""
    return int(float(text))


def _arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the gateway beside its peers.")
    names = [workload.name for workload in WORKLOADS]
    known = [peer.name for peer in peers.everybody()]
    parser.add_argument("--only", nargs="+", metavar="WORKLOAD", choices=names, help=f"of {', '.join(names)}")
    parser.add_argument("--peers", nargs="+", metavar="PEER", choices=known, help=f"of {', '.join(known)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long sessions follow one another (2)")
    parser.add_argument("--octets", type=_whole, default=10**9, help="of a transfer (1e9)")
    parser.add_argument("--slices", type=int, default=4, help="into which seconds and octets of a round are cut (4)")
    parser.add_argument("--at-once", type=int, default=16, help="sessions under way at a time (16)")
    parser.add_argument("--walk", type=float, default=WALK, help="seconds of the walk over memory at the start (3)")
    parser.add_argument("--workers", type=int, default=1, help="processes of the gateway that serve (1)")
    parser.add_argument(
        "--python",
        type=peers.program,
        default=sys.executable,
        metavar="PATH",
        help="runs the gateway and Twisted (this one)",
    )
    parser.add_argument("--before", type=Path, metavar="DIR", help="another checkout of the gateway, measured too")
    parser.add_argument("--out", type=Path, default=peers.ROOT / "build" / "bench", help="directory of the results")
    parser.add_argument("--limit", type=int, default=3600, help="seconds after which it all ends (3600)")
    parser.add_argument(
        "--check",
        action="store_true",
        help="only whether the gateway is not too far behind bare Twisted; exit status 0 or 1",
    )
    return parser.parse_args(given)


class TimeUp(BaseException):
    """`--limit` is over; what was measured until then is told all the same."""


def _time_up(number: int, frame: FrameType | None) -> None:
    raise TimeUp


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(f"benchmarks: ended by {signal.Signals(number).name}")


def _machine(python: str, walk: float) -> dict[str, object]:
    load = os.getloadavg()[0]
    try:
        speeds = peers.speeds(python, walk)
    except Unavailable:
        speeds = {}  # it cannot run the gateway either, which is told then
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "processor": model[1] if model else platform.machine(),
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "client": f"Python {platform.python_version()}, {ssl.OPENSSL_VERSION}",
        "load": load,
        **speeds,
    }


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _chosen(options: argparse.Namespace) -> list[Peer]:
    wanted = ("gateway", "twisted") if options.check else options.peers
    chosen = [peer for peer in peers.everybody(options.python) if not wanted or peer.name in wanted]
    if options.before is not None and not options.check:
        before = peers.gateway(options.before.resolve(), "before", options.python)
        chosen.insert(1, replace(before, yardstick=True))
    return chosen


class Benchmark:
    """All rounds, and what they brought."""

    def __init__(self, stage: Stage, conditions: Conditions, slices: int) -> None:
        self._stage = stage
        self._conditions = conditions
        self._slices = slices
        self._running: dict[str, Running] = {}
        self.versions: dict[str, str] = {}
        self.absent: dict[str, str] = {}
        self.samples: list[Sample] = []

    def invite(self, chosen: Sequence[Peer], stack: ExitStack) -> None:
        """Start all that are there."""
        for peer in chosen:
            try:
                version = peer.version()
                running = stack.enter_context(peers.running(peer, self._stage))
                cipher = self._cipher(running)
            except Unavailable as why:
                self.absent[peer.name] = str(why)
                _say(f"{peer.name} does not take part: {why}")
            else:
                self._running[peer.name] = running
                self.versions[peer.name] = f"{version}, {cipher}"

    def _cipher(self, running: Running) -> str:
        try:
            return client.cipher(running.ports[peers.IMAP_IMPLICIT], self._conditions.tls)
        except client.Broken as error:
            raise Unavailable(running.obituary() or str(error)) from None

    def round(self, number: int, workloads: Sequence[Workload]) -> None:
        """Everybody does everything, a slice at a time; another one begins each time."""
        for workload in workloads:
            order = [name for name, running in self._running.items() if workload.service in running.peer.services]
            if not order or number >= workload.most_rounds:
                continue
            slices: dict[str, list[Sample]] = {name: [] for name in order}
            for turn in range(1 if workload.fresh else self._slices):
                first = (number + turn) % len(order)
                for name in order[first:] + order[:first]:
                    slices[name].append(self._measure(workload, self._running[name].peer, number))
            for name, measured in slices.items():
                sample = together(measured)
                self.samples.append(sample)
                _say(f"round {number + 1}  {workload.name:<14} {name:<8} {_brief(workload, sample)}")

    def _measure(self, workload: Workload, peer: Peer, number: int) -> Sample:
        backend = self._stage.backend_pid
        if not workload.fresh:
            conditions = self._conditions.slice(self._slices)
            return measure(workload, self._running[peer.name], conditions, number, backend)
        try:
            with peers.running(peer, self._stage) as fresh:
                return measure(workload, fresh, self._conditions, number, backend)
        except Unavailable as why:
            return Sample(workload.name, peer.name, number, {}, failure=str(why))


def _brief(workload: Workload, sample: Sample) -> str:
    if not sample.measures:
        return f"failed: {sample.failure}"
    return f"{report.number(sample.measures[workload.main] * workload.scale)} {workload.unit}"


def _check(run: report.Run) -> int:
    """0 if the gateway is not far behind bare Twisted."""
    failed = 0
    for workload in run.workloads:
        ours, theirs = (figures.of(run.samples, workload, peer, "cpu") for peer in ("gateway", "twisted"))
        ratio = figures.ratio(ours, theirs)
        limit = CHECK_LIMITS[workload.name]
        good = ratio is not None and ratio <= limit
        failed += not good
        found = "nothing measured" if ratio is None else f"{ratio:.2f} of a bare Twisted port forward"
        print(f"{'good' if good else 'BAD '}  {workload.name}: {found}, at most {limit}")
    return 1 if failed else 0


def main(given: Sequence[str]) -> int:
    options = _arguments(given)
    workloads = [workload for workload in WORKLOADS if not options.only or workload.name in options.only]
    chosen = _chosen(options)
    if options.check:
        workloads = [workload for workload in WORKLOADS if workload.name in CHECK_LIMITS]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    signal.signal(signal.SIGALRM, _time_up)
    signal.alarm(options.limit)
    descriptors = processes.raise_descriptor_limit(DESCRIPTORS)
    machine = _machine(options.python, options.walk)
    shortened: dict[str, object] = {}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="gateway-bench-", ignore_cleanup_errors=True)))
        stage = stack.enter_context(peers.stage(directory, descriptors, options.workers))
        tls = client.context(stage.certificate)
        # What the descriptors leave for sessions that are held, beside those that come and go.
        held = stage.sessions - 2 * options.at_once - 20
        conditions = Conditions(tls, options.seconds, options.octets, options.at_once, held)
        benchmark = Benchmark(stage, conditions, options.slices)
        turn = 0
        try:
            benchmark.invite(chosen, stack)
            for turn in range(options.rounds):
                benchmark.round(turn, workloads)
            signal.alarm(0)
        except TimeUp:
            shortened = {"ended": f"by the limit of {options.limit} s, in round {turn + 1}"}
            _say("time is up")
    rivals = [peer.name for peer in chosen if not peer.yardstick and peer.name != "gateway"]
    shown = {
        name: getattr(options, name) for name in ("rounds", "slices", "seconds", "octets", "at_once", "workers")
    } | shortened
    run = report.Run(machine, shown, benchmark.versions, benchmark.absent, rivals, workloads, benchmark.samples)
    if options.check:
        return _check(run)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, content in (("txt", report.text(run)), ("json", report.as_json(run)), ("svg", chart.svg(run))):
        (options.out / f"bench.{name}").write_text(content)
    print(report.text(run), end="")
    _say(f"{options.out}/bench.txt, bench.json, bench.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
