"""A booted Debian: systemd-nspawn on a copy of the base, with a network of its own that has loopback only."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.packages.roots import Debian, child_of
from tests.process.programs import need

NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd", "--cgroup")
PATIENCE = 120.0
"""Seconds for what a system does: boot, start a service, stop it; long for a busy machine."""


class Machine(Debian):
    def __init__(self, directory: Path, process: subprocess.Popen[bytes]) -> None:
        super().__init__(directory)
        self.process = process

    @property
    def leader(self) -> int:
        """Its systemd."""
        return child_of(self.process.pid)

    @property
    def entering(self) -> list[str]:
        return ["nsenter", f"--target={self.leader}", *NAMESPACES]

    def show(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def wait(self, unit: str, name: str, value: str) -> None:
        """Until the property has the value; systemctl has no command that waits for it."""
        end = time.monotonic() + PATIENCE
        while (found := self.show(unit, name)) != value:
            assert time.monotonic() < end, f"{unit}: {name} is {found}, not {value}\n{self.journal(unit)}"

    def journal(self, unit: str) -> str:
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")


@contextmanager
def booted(directory: Path) -> Iterator[Machine]:
    """The root boots; at the end it is powered off."""
    nspawn = need("systemd-nspawn", debian="systemd-container")
    command = [nspawn, f"--directory={directory}", "--boot", "--register=no", "--keep-unit", "--private-network"]
    with (
        (directory.parent / "console").open("wb") as console,
        subprocess.Popen(
            [*command, f"--machine=gateway-{directory.parent.name[-8:]}"],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
        ) as process,
    ):
        machine = Machine(directory, process)
        try:
            _wait_for_boot(machine)
            yield machine
        finally:
            _power_off(machine)


def _wait_for_boot(machine: Machine) -> None:
    end = time.monotonic() + PATIENCE
    said = ""
    while time.monotonic() < end and machine.process.poll() is None:
        try:
            command = [*machine.entering, "systemctl", "is-system-running", "--wait"]
        except (ValueError, FileNotFoundError):
            continue  # it has no child yet
        said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False).stdout.strip()
        if said in ("running", "degraded"):
            return
    console = (machine.directory.parent / "console").read_text(errors="replace")
    raise AssertionError(f"it did not boot ({said or 'nothing said'}):\n{console}")


def _power_off(machine: Machine) -> None:
    if machine.process.poll() is not None:
        return
    try:
        command = [*machine.entering, "systemctl", "poweroff", "--no-block"]
        subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
        machine.process.wait(PATIENCE)
    except (subprocess.TimeoutExpired, ValueError, FileNotFoundError):
        machine.process.kill()
