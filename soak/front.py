"""A gateway with the default limits, in front of the benchmark's backend, which is fast enough to measure it alone."""

from __future__ import annotations

import argparse
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from gateway.config.values import Limits, Timeouts
from soak.crowd import PROTOCOLS
from tests.process import running
from tests.process.running import ROOT, Gateway, Identity, Service

MEANINGS = {
    "at_once": "clients at a time",
    "every": "seconds from one octet of a client to the next",
    "crowds": "one after the other",
}
"""Of options of the command line."""

_UNIT = ROOT / "config/systemd/starttls-gateway.service"


def environment() -> dict[str, str]:
    """Of Python, as the unit for systemd has it."""
    lines = [line.removeprefix("Environment=") for line in _UNIT.read_text().splitlines()]
    return dict(line.split("=", 1) for line in lines if line.startswith("PYTHON"))


@contextmanager
def serving(directory: Path, timeouts: Timeouts) -> Iterator[tuple[Gateway, ssl.SSLContext]]:
    """It has to end well."""
    identity = Identity.issue(directory)
    backend = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.backend"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    limits = {name: str(value) for name, value in asdict(Limits()).items()}
    options = {
        "limits": limits,
        "timeouts": {"handshake": f"{timeouts.handshake} s", "preauth": f"{timeouts.preauth} s"},
    }
    try:
        assert backend.stdout is not None
        ports = json.loads(backend.stdout.readline())
        services = [
            Service(protocol, f"127.0.0.1:{ports[protocol]}", options={"policy": "required"}) for protocol in PROTOCOLS
        ]
        with running.running(directory, identity, services, options, summed=True, environment=environment()) as gateway:
            yield gateway, ssl.create_default_context(cafile=str(identity.authority))
    finally:
        end(backend)


def options(name: str, does: str, **defaults: float) -> argparse.Namespace:
    """Of the command line of `python -m NAME`: each has a default, whose type it is of."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {name}", description=does, formatter_class=argparse.RawTextHelpFormatter
    )
    for word, value in defaults.items():
        parser.add_argument(f"--{word.replace('_', '-')}", type=type(value), default=value, help=MEANINGS.get(word))
    return parser.parse_args()


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
