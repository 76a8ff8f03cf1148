"""`make upgrades`, or `python -m soak.upgrades --workers 2`: twenty upgrades in a row under load.

Honest clients begin a new session whenever one is over.  Others are logged in since before the first upgrade, and say
NOOP after each.  Exit status 1: somebody was refused or lost, a new program did not come up, or memory or descriptors
are left.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from soak import front
from soak.__main__ import Sample, Soak
from soak.clients import World
from soak.family import Family
from soak.reloads import LIVES, House, say_noop, serving
from tests.process.running import DEADLINE

SLACK = 1.15
"""How much more memory the last program may have than the first had."""


@dataclass
class Report:
    done: int = 0
    wrong: list[str] = field(default_factory=list)
    longest: float = 0.0
    """Seconds that an upgrade took at most, as the command takes them."""
    samples: list[Sample] = field(default_factory=list)
    programs: list[int] = field(default_factory=list)
    """How many processes there were after each upgrade."""


def upgrade_often(house: House, rounds: int, at_once: int, seed: int = 1, pause: float = 0.0) -> tuple[Report, Soak]:
    """`pause`: seconds of load between two upgrades."""
    report, family = Report(), Family(house.file)
    soak = Soak(house.gateway, house.trusting, seed, faults=0.0)
    world = World(house.gateway, house.trusting, house.trusting, random.Random(seed))
    with ExitStack() as stack:
        living = [stack.enter_context(world.enter("imap")) for _ in range(LIVES)]
        soak.begin(at_once)
        for number in range(rounds):
            began = time.monotonic()
            answer = house.ask("upgrade")
            report.longest = max(report.longest, time.monotonic() - began)
            report.done += answer.good
            if not answer.good:
                report.wrong.append(f"upgrade {number}: {answer}")
            for client in living:
                say_noop(number, client)
            time.sleep(pause)
            report.samples.append(soak.sample())
            report.programs.append(len(family.pids))
        soak.finish()
    report.wrong += soak.failures
    return report, soak


def settle(house: House) -> None:
    """Until only the program that serves now is left."""
    until = time.monotonic() + DEADLINE
    while len(Family(house.file).programs) > 1 and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(12)  # what lingers, and memory that goes back every ten seconds


def main() -> None:
    options = front.options("soak.upgrades", __doc__, rounds=20, at_once=12, seed=1, workers=1)
    with tempfile.TemporaryDirectory(prefix="upgrades-") as name, serving(Path(name), options.workers) as house:
        warm = Soak(house.gateway, house.trusting, options.seed, faults=0.0)
        warm.begin(options.at_once)
        time.sleep(10)
        warm.finish()
        # A program that took over has a few descriptors more than one that was started: those of the shared limits.
        house.ask("upgrade")
        settle(house)
        before = warm.sample()
        report, soak = upgrade_often(house, options.rounds, options.at_once, options.seed, pause=1.0)
        settle(house)
        after = soak.sample()
    sessions, lost = sum(soak.done.values()), sum(soak.failed.values())
    print(
        f"{report.done} of {options.rounds} upgrades; the longest took {report.longest:.1f} s\n"
        f"{sessions} sessions meanwhile, {lost} lost, and {LIVES} that lived through all of it\n"
        f"processes after each upgrade: {' '.join(map(str, report.programs))}\n"
        f"before  {before}\nafter   {after}\nmemory: {after.memory / before.memory:.2f} times",
        *report.wrong,
        sep="\n",
    )
    flat = after.memory <= before.memory * SLACK and after.descriptors <= before.descriptors
    well = not report.wrong and not lost and report.done == options.rounds and flat
    print("all is well" if well else "NOT WELL")
    sys.exit(not well)


if __name__ == "__main__":
    main()
