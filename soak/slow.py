"""`make slow CLIENTS=5000`, or `python -m soak.slow --clients 5000`: what idle slow clients cost everybody else.

A gateway with the default limits and timeouts, and the environment that the unit for systemd sets. In front of it are
clients that say one octet every 9 seconds, each from an address of its own, spread over all protocols, in the clear,
in the handshake and inside TLS. An honest client measures its STARTTLS sessions, first alone and then among them. A
crowd takes as long as the longest deadline, three minutes; there are two, for what the first one left behind may be
kept for the next. Exit status 1: a bound was missed.

Gateway, slow clients, backend and honest client are a process each.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.config.values import Timeouts
from soak import front
from soak.clients import GREETINGS, HELLO, LOGIN, WELCOME, Visitor, leave
from soak.crowd import PROTOCOLS, Plan, Stage, arguments
from soak.front import end, serving
from tests.process import running
from tests.process.running import DEADLINE, ROOT, Gateway
from tests.process.words import WORDS

LATENCY = 2.0
"""How much longer an honest session may take among them."""
MEMORY = 1.1
"""How much more memory there may be when they are gone."""
SETTLED = 110.0
"""Seconds until memory is what it will be: limits remember a client for a minute, pages go back every ten seconds."""
LATE = 3.0
"""Seconds after its deadline by which a client must be gone: one machine plays all the parts, and a thousand have the
same deadline."""

_sources = itertools.cycle([f"127.200.{i}.{j}" for i in range(250) for j in range(1, 250)])


@dataclass(frozen=True)
class Found:
    """What became of one crowd."""

    alone: Sequence[float]
    """Seconds of each honest session."""
    among: Sequence[float]
    before: int
    """Octets of resident memory."""
    full: int
    after: int
    coming: float
    """Seconds until all were there."""
    descriptors: int
    """When all were there."""
    lasted: Mapping[str, tuple[float, float]]
    """Stage -> seconds that the first and the last one of it stayed."""
    late: Mapping[str, float]
    """Stage -> seconds that the last one was late."""
    left: int
    """Who was never sent away."""
    goodbyes: Mapping[str, Sequence[str]]
    """Protocol -> all that those heard who stayed in the clear, behind their greeting."""
    lines: int
    """In the log, from when they came."""
    seconds: float
    """From when they came until the last one was gone."""

    @property
    def latency(self) -> float:
        return statistics.median(self.among) / statistics.median(self.alone)

    @property
    def memory(self) -> float:
        return self.after / self.before

    def missed(self) -> list[str]:
        """The bounds that it is beyond."""
        bounds = {
            f"an honest session takes {self.latency:.2f} times as long": self.latency > LATENCY,
            f"memory is {self.memory:.2f} times what it was": self.memory > MEMORY,
            f"{self.left} were not sent away": self.left > 0,
            f"the last one was {max(self.late.values()):.1f} s late": max(self.late.values()) > LATE,
        }
        return [words for words, missed in bounds.items() if missed]

    def __str__(self) -> str:
        def times(those: Sequence[float]) -> str:
            tenth = statistics.quantiles(those, n=20)[-1] if len(those) > 1 else those[0]
            return (
                f"median {statistics.median(those) * 1000:6.2f} ms, 95 % {tenth * 1000:6.2f} ms, {len(those)} sessions"
            )

        stayed = "\n".join(
            f"{stage:<16}{first:7.1f} to {last:6.1f} s" for stage, (first, last) in self.lasted.items()
        )  # fmt: skip
        return (
            f"honest, alone   {times(self.alone)}\nhonest, among   {times(self.among)}, {self.latency:.2f} times\n"
            f"memory          {self.before / 2**20:.1f} MiB before, {self.full / 2**20:.1f} MiB with all of them, "
            f"{self.after / 2**20:.1f} MiB after, {self.memory:.3f} times\n"
            f"descriptors     {self.descriptors} with all of them, who took {self.coming:.1f} s to come\n"
            f"log             {60 * self.lines / self.seconds:.0f} lines a minute\n"
            f"how long they stayed:\n{stayed}\nnever sent away {self.left}"
        )


def visit(gateway: Gateway, trusting: ssl.SSLContext, protocol: str) -> float:
    """A whole STARTTLS session from an address of its own; how many seconds it took."""
    words = WORDS[protocol]
    began = time.perf_counter()
    client = Visitor(gateway.address(protocol), next(_sources))
    with client:
        client.hear(GREETINGS[protocol])
        client.say(words.starttls)
        assert client.line() == words.go_ahead
        client.shake_hands(trusting)
        client.say(words.hello)
        client.hear(HELLO[protocol])
        client.say(LOGIN[protocol])
        client.hear(WELCOME[protocol])
        leave(client, protocol)
    return time.perf_counter() - began


def visits(gateway: Gateway, trusting: ssl.SSLContext, count: int) -> list[float]:
    return [visit(gateway, trusting, protocol) for protocol, _ in zip(itertools.cycle(PROTOCOLS), range(count))]


def crowd_out(
    gateway: Gateway,
    trusting: ssl.SSLContext,
    clients: int,
    every: float,
    sessions: int,
    timeouts: Timeouts,
    settling: float = SETTLED,
    clear: bool = False,
) -> Found:
    """Let them come, all of them to stay in the clear or to each stage, look at what they do, and wait until they are
    gone."""
    deadlines = {Stage.CLEAR: min(timeouts.plaintext, timeouts.preauth)}
    if not clear:
        deadlines |= {
            Stage.SECURE: timeouts.preauth,
            Stage.GO_AHEAD: timeouts.handshake,
            Stage.HANDSHAKE: timeouts.handshake,
        }
    visits(gateway, trusting, 2 * sessions)  # until it is warm
    alone = visits(gateway, trusting, sessions)
    before = gateway.resident
    ports = {
        protocol: {mode: gateway.address(protocol, mode)[1] for mode in ("starttls", "implicit")}
        for protocol in PROTOCOLS
    }
    since, began = gateway.log.mark(), time.monotonic()
    plan = Plan(ports, clients, every, max(deadlines.values()) + 4 * LATE, clear=clear)
    crowd = subprocess.Popen(arguments(plan), stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert crowd.stdout is not None
        said = crowd.stdout.readline()
        assert said == b"there\n", f"the crowd said {said!r}"
        coming = time.monotonic() - began
        descriptors = len(os.listdir(f"/proc/{gateway.process.pid}/fd"))
        among = visits(gateway, trusting, sessions)
        full = gateway.resident
        assert time.monotonic() - began < min(deadlines.values()) + coming, "some were gone before all was measured"
        report = json.loads(crowd.stdout.readline())
        crowd.wait(DEADLINE)
    finally:
        end(crowd)
    took = time.monotonic() - began
    visits(gateway, trusting, sessions // 10 + 1)
    settled = time.monotonic() + settling
    while (after := gateway.resident) > MEMORY * before and time.monotonic() < settled:
        time.sleep(1.0)
    lasted = {stage: (first, last) for stage, (first, last) in report["lasted"].items()}
    return Found(
        alone=alone,
        among=among,
        before=before,
        full=full,
        after=after,
        coming=coming,
        descriptors=descriptors,
        lasted=lasted,
        late={
            stage.value: lasted[stage.value][1] - seconds
            for stage, seconds in deadlines.items()
            if stage.value in lasted
        },
        left=report["left"],
        goodbyes=report["goodbyes"],
        lines=gateway.log.mark() - since,
        seconds=took,
    )


def main() -> None:
    options = front.options("soak.slow", __doc__, clients=5000, every=9.0, sessions=300, crowds=2)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    running.LIFE = 600 * options.crowds
    well = True
    with tempfile.TemporaryDirectory(prefix="slow-") as name, serving(Path(name), Timeouts()) as (gateway, trusting):
        for number in range(1, options.crowds + 1):
            found = crowd_out(gateway, trusting, options.clients, options.every, options.sessions, Timeouts())
            missed = found.missed()
            well = well and not missed
            print(f"crowd {number}: {options.clients} clients, an octet every {options.every:g} s\n{found}")
            print("\n".join(f"NOT WELL: {words}" for words in missed) or "all is well", end="\n\n", flush=True)
    sys.exit(not well)


if __name__ == "__main__":
    main()
