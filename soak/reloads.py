"""`make reloads`, or `python -m soak.reloads`: a hundred reloads in a row under load, every second file broken.

Honest clients begin a new session whenever one is over; others are logged in all the time and say NOOP after each
reload.  A good file differs from the one before: a service comes or goes, limits, timeouts and a backend change, now
and then the certificate.  Exit status 1: somebody was refused or lost, a reload did not do what it should, or memory
or descriptors are left.
"""

from __future__ import annotations

import os
import random
import signal
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from gateway.app.control.messages import Answer, Request
from gateway.cli.steer.command import ask
from soak import front
from soak.__main__ import Sample, Soak, backends
from soak.clients import World
from soak.family import Family
from tests.process import running
from tests.process.running import Gateway, Identity, Service
from tests.process.wire import Client

BROKEN = (
    ("[limits]", "[limits]\nsessions = none"),
    ("[limits]", "[nonsense]\n[limits]"),
    ("[service:imap]", "[service:imap]\ncertificate = missing.pem"),
    ("[service:imap]", "[service:busy]\nprotocol = imap\nimplicit = {busy}\nbackend = 127.0.0.1:1\n[service:imap]"),
    ("[service:imap]", "[service:imap"),
)
"""What is wrong with every second file."""
EXTRA = "\n[service:extra]\nprotocol = imap\nimplicit = 127.0.0.1:0\nbackend = {backend}\n"
LIVES = 6
"""Clients that are logged in all the time."""
RENEWAL = 10
"""Reloads from one certificate to the next."""
SLACK = 1.15
"""How much more memory at the end than after the first fifth of the reloads is still flat."""


@dataclass
class House:
    gateway: Gateway
    directory: Path
    authority: trustme.CA
    trusting: ssl.SSLContext
    backend: str
    certificate: Path

    @property
    def file(self) -> Path:
        return self.directory / "gateway.ini"

    def ask(self, command: str) -> Answer:
        return ask(f"{self.directory}/control", Request(command))

    @property
    def pid(self) -> int:
        """The main process of the program that serves now."""
        return int(self.ask("status").result["gateway"]["pid"])

    def renew(self) -> None:
        fresh = self.authority.issue_cert(*Identity.names)
        other = self.certificate.with_suffix(".new")
        fresh.private_key_and_cert_chain_pem.write_to_path(str(other))
        other.replace(self.certificate)


@dataclass
class Report:
    good: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    """What was not as it should be."""
    longest: float = 0.0
    """Seconds that a reload took at most."""
    samples: list[Sample] = field(default_factory=list)


@contextmanager
def serving(directory: Path, workers: int = 1) -> Iterator[House]:
    """Whichever program serves at the end, it has to end well."""
    authority = trustme.CA()
    certificate, trusted = directory / "certificate.pem", directory / "authority.pem"
    authority.issue_cert(*Identity.names).private_key_and_cert_chain_pem.write_to_path(str(certificate))
    authority.cert_pem.write_to_path(str(trusted))
    identity = Identity(certificate, trusted)
    own = directory / "backend.pem"
    own.write_bytes(certificate.read_bytes())
    with backends(own) as (smtp, imap, pop3, imaps):
        sections = {
            "gateway": {"control": f"{directory}/control", "workers": str(workers)},
            "backend:tls": {"address": f"localhost:{imaps}", "tls": "implicit", "ca": str(trusted)},
        }
        services = [
            Service("smtp", f"127.0.0.1:{smtp}", "smtp", options={"policy": "required"}),
            Service("mx", f"127.0.0.1:{smtp}", "smtp", ("starttls",), {"policy": "auth-only"}),
            Service("imap", f"127.0.0.1:{imap}", "imap"),
            Service("pop3", f"127.0.0.1:{pop3}", "pop3"),
            Service("imap-tls", "tls", "imap", ("implicit",)),
        ]
        gateway = running.launch(directory, identity, services, sections, summed=True)
        house = House(
            gateway,
            directory,
            authority,
            ssl.create_default_context(cafile=str(trusted)),
            f"127.0.0.1:{imap}",
            certificate,
        )
        try:
            if workers > 1:
                gateway.log.wait("worker", count=workers, state="serving")
            yield house
            os.kill(house.pid, signal.SIGTERM)
            gateway.end(60.0)
        finally:
            gateway.kill()
            for pid in Family(house.file).pids:
                os.kill(pid, signal.SIGKILL)


def good_file(first: str, number: int, house: House) -> str:
    """Each differs from the one before."""
    text = first.replace(
        "[limits]", f"[timeouts]\ngreeting = {20 + number % 7} s\n[limits]\nbad_commands = {10 + number}"
    )
    text = text.replace("[backend:tls]", f"[backend:tls]\nverify = {'yes' if number % 3 else 'no'}")
    if "verify = no" in text:
        text = "\n".join(line for line in text.split("\n") if not line.startswith("ca = "))
    return text + EXTRA.format(backend=house.backend) if number % 2 else text


def say_noop(number: int, client: Client) -> None:
    client.say(b"n%d NOOP\r\n" % number)
    client.hear(rb"^n%d OK[^\n]*\n" % number)


def reload_often(house: House, rounds: int, at_once: int, seed: int = 1, pause: float = 0.0) -> tuple[Report, Soak]:
    """`pause`: seconds of load between two reloads."""
    report, first = Report(), house.file.read_text()
    soak = Soak(house.gateway, house.trusting, seed, faults=0.0)
    world = World(house.gateway, house.trusting, house.trusting, random.Random(seed))
    with ExitStack() as stack:
        living = [stack.enter_context(world.enter("imap")) for _ in range(LIVES)]
        soak.begin(at_once)
        for number in range(rounds):
            if number % RENEWAL == RENEWAL - 1:
                house.renew()
            text = good_file(first, number // 2, house)
            broken = number % 2 == 1
            if broken:
                old, new = BROKEN[number // 2 % len(BROKEN)]
                text = text.replace(old, new.replace("{busy}", house.backend), 1)
            house.file.write_text(text)
            began = time.monotonic()
            answer = house.ask("reload")
            report.longest = max(report.longest, time.monotonic() - began)
            if answer.good is broken:
                report.wrong.append(f"reload {number}: {answer}")
            report.good += answer.good
            report.refused += not answer.good
            for client in living:
                say_noop(number, client)
            time.sleep(pause)
            report.samples.append(soak.sample())
        house.file.write_text(first)
        if not house.ask("reload").good:
            report.wrong.append("the first file is not good any more")
        for number, client in enumerate(living):
            say_noop(number, client)
        soak.finish()
    report.wrong += soak.failures
    return report, soak


def main() -> None:
    options = front.options("soak.reloads", __doc__, rounds=100, at_once=24, seed=1, workers=1)
    with tempfile.TemporaryDirectory(prefix="reloads-") as name, serving(Path(name), options.workers) as house:
        warm = Soak(house.gateway, house.trusting, options.seed, faults=0.0)
        warm.begin(options.at_once)
        time.sleep(10)
        warm.finish()
        time.sleep(5)  # for what lingers
        before = warm.sample()
        report, soak = reload_often(house, options.rounds, options.at_once, options.seed, pause=1.0)
        time.sleep(15)
        after = soak.sample()
    fifth = report.samples[len(report.samples) // 5].memory
    last = report.samples[-1].memory
    sessions, lost = sum(soak.done.values()), sum(soak.failed.values())
    print(
        f"{report.good} reloads used, {report.refused} refused; the longest took {report.longest * 1000:.0f} ms\n"
        f"{sessions} sessions meanwhile, {lost} lost, and {LIVES} that lived through all of it\n"
        f"before  {before}\n{report.samples[len(report.samples) // 5]}\n{report.samples[-1]}\nafter   {after}\n"
        f"memory: {last / fifth:.2f} times what it was after a fifth of the reloads",
        *report.wrong,
        sep="\n",
    )
    well = not report.wrong and not lost and last <= fifth * SLACK and after.descriptors <= before.descriptors
    print("all is well" if well else "NOT WELL")
    sys.exit(not well)


if __name__ == "__main__":
    main()
