"""`make soak MINUTES=30`, or `python -m soak --minutes 30 --at-once 24`.

One gateway, three backends in a process of their own, and clients that begin a new session whenever one is over, four
honest ones for each that does harm.  The report tells how many sessions there were, which failed although nothing was
done to them, and what the gateway used at the beginning and at the end.  Exit status 1: something was lost, or not
given back.
"""

from __future__ import annotations

import random
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from soak import front
from soak.clients import FAULTS, HANDSHAKE, HONEST, World
from soak.family import Family
from soak.front import end
from tests.ports import free_port
from tests.process import running
from tests.process.running import Gateway, Identity, Service

ROOT = Path(__file__).parents[1]
WARM = 300.0
"""Seconds after which memory should stay where it is; a shorter soak takes the first third."""
SLACK = 1.25
"""How much more memory at the end than when it was warm is still flat."""


@dataclass(frozen=True)
class Sample:
    """The gateway's processes at one moment."""

    seconds: float
    sessions: int
    memory: int
    """Octets (Pss)."""
    descriptors: int
    cpu: float

    def __str__(self) -> str:
        return (
            f"{self.seconds:7.0f} s  {self.sessions:7} sessions  {self.memory / 2**20:6.1f} MiB  "
            f"{self.descriptors:5} descriptors  {self.cpu:7.1f} s CPU"
        )


class Soak:
    """All clients, and what became of their sessions."""

    def __init__(self, gateway: Gateway, trusting: ssl.SSLContext, seed: int, faults: float = 0.2) -> None:
        """`faults`: the share of sessions that do harm."""
        self._gateway = gateway
        self._family = Family(gateway.file)
        self._trusting = trusting
        self._seed = seed
        self._faults = faults
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._clients: list[threading.Thread] = []
        self.begun = time.monotonic()
        self.done: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.failures: list[str] = []
        self.samples: list[Sample] = []

    def sample(self) -> Sample:
        with self._lock:
            sessions = sum(self.done.values()) + sum(self.failed.values())
        sample = Sample(
            time.monotonic() - self.begun,
            sessions,
            self._family.memory,
            self._family.descriptors,
            self._family.cpu,
        )
        self.samples.append(sample)
        return sample

    def begin(self, at_once: int) -> None:
        self._clients = [threading.Thread(target=self._visit, args=(number,), daemon=True) for number in range(at_once)]
        for client in self._clients:
            client.start()

    def finish(self) -> None:
        """When every client is through with its session."""
        self._over.set()
        for client in self._clients:
            client.join(120)

    def run(self, seconds: float, at_once: int) -> None:
        self.begin(at_once)
        every = min(10.0, seconds / 20)
        until = time.monotonic() + seconds
        told = 0.0
        while (left := until - time.monotonic()) > 0 and self._family.pids:
            time.sleep(min(every, left))
            sample = self.sample()
            if sample.seconds - told >= min(60.0, seconds / 5):
                told = sample.seconds
                print(sample, f"{sum(self.failed.values())} lost", file=sys.stderr, flush=True)
        self.finish()

    def _visit(self, number: int) -> None:
        dice = random.Random(f"{self._seed} {number}")
        distrusting = ssl.create_default_context()
        world = World(self._gateway, self._trusting, distrusting, dice)
        while not self._over.is_set():
            scenarios = FAULTS if dice.random() < self._faults else HONEST
            name = dice.choice(list(scenarios))
            try:
                scenarios[name](world)
            except Exception:
                # After the end of the gateway nothing more is learnt.
                if not self._family.pids:
                    return
                with self._lock:
                    self.failed[name] += 1
                    if len(self.failures) < 20:
                        at = f"{time.monotonic() - self.begun:.0f} s"
                        self.failures.append(f"{name} at {at}\n{traceback.format_exc(limit=-4)}")
            else:
                with self._lock:
                    self.done[name] += 1


@contextmanager
def backends(certificate: Path) -> Iterator[Sequence[int]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "soak.backend", str(certificate)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        yield [int(port) for port in process.stdout.readline().split()]
    finally:
        end(process)


def report(soak: Soak, before: Sample, after: Sample, seconds: float) -> bool:
    """Prints it; whether all is well."""
    warm = next(sample for sample in soak.samples if sample.seconds >= min(WARM, seconds / 3))
    busy = soak.samples[1:-1]
    last = busy[-1]
    tenth = max(1, len(busy) // 10)
    peak = max(sample.memory for sample in busy)

    def cost(some: Sequence[Sample]) -> float:
        sessions = some[-1].sessions - some[0].sessions
        return (some[-1].cpu - some[0].cpu) / sessions * 1000 if sessions else float("nan")

    print(f"\n{'scenario':<34}{'sessions':>10}{'not as expected':>18}")
    for name in (*HONEST, *FAULTS):
        print(f"{name:<34}{soak.done[name] + soak.failed[name]:>10}{soak.failed[name]:>18}")
    lost = sum(soak.failed[name] for name in HONEST)
    odd = sum(soak.failed[name] for name in FAULTS)
    total = sum(soak.done.values()) + lost + odd
    print(
        f"\n{total} sessions in {seconds:.0f} s; honest ones lost: {lost}; faults that ended unexpectedly: {odd}\n"
        f"before  {before}\nwarm    {warm}\nend     {last}\nafter   {after}\n"
        f"CPU per session: {cost(busy[: tenth + 1]):.2f} ms at first, {cost(busy[-tenth - 1 :]):.2f} ms at last\n"
        f"memory: {peak / 2**20:.1f} MiB at most; {last.memory / warm.memory:.2f} times what it was when warm\n"
        f"descriptors: {before.descriptors} before, {after.descriptors} after"
    )
    for failure in soak.failures:
        print(f"\n{failure}")
    flat = last.memory <= warm.memory * SLACK
    given_back = after.descriptors <= before.descriptors
    for well, words in ((not lost, "sessions were lost"), (flat, "memory grew"), (given_back, "descriptors are left")):
        if not well:
            print(f"NOT WELL: {words}")
    return not lost and not odd and flat and given_back


def main() -> None:
    options = front.options("soak", __doc__, minutes=30.0, at_once=24, seed=1)
    seconds = options.minutes * 60
    running.LIFE = int(seconds) + 600
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        directory = Path(name)
        identity = Identity.issue(directory)
        # The backend's own certificate is the gateway's: the right one for who trusts its authority.
        (directory / "other").mkdir()
        stranger = Identity.issue(directory / "other")
        trusting = ssl.create_default_context(cafile=str(identity.authority))
        with backends(identity.certificate) as (smtp, imap, pop3, imaps):
            # `allow_relay` spares an SMTP backend the question whether it relays: these take everything.
            sections = {
                "timeouts": {"handshake": f"{HANDSHAKE:g} s"},
                "backend:tls": {"address": f"localhost:{imaps}", "tls": "implicit", "ca": str(identity.authority)},
                "backend:wrong": {"address": f"localhost:{imaps}", "tls": "implicit", "ca": str(stranger.authority)},
            }
            services = [
                Service("smtp", f"127.0.0.1:{smtp}", "smtp", options={"policy": "required"}),
                Service("mx", f"127.0.0.1:{smtp}", "smtp", ("starttls",), {"policy": "auth-only"}),
                Service("imap", f"127.0.0.1:{imap}", "imap"),
                Service("pop3", f"127.0.0.1:{pop3}", "pop3"),
                Service("imap-tls", "tls", "imap", ("implicit",)),
                Service("wrong", "wrong", "imap", ("implicit",)),
                Service("dead", f"127.0.0.1:{free_port()}", "pop3", ("implicit",)),
            ]
            with running.running(directory, identity, services, sections) as gateway:
                soak = Soak(gateway, trusting, options.seed)
                time.sleep(2)  # for what it opens once
                before = soak.sample()
                soak.run(seconds, options.at_once)
                time.sleep(10)  # for what lingers
                after = soak.sample()
                well = report(soak, before, after, seconds)
    print("all is well" if well else "NOT WELL")
    sys.exit(not well)


if __name__ == "__main__":
    main()
