"""Socket units of systemd and the names of their sockets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..records import dataclass

DIRECTORIES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
"""Directories of units (systemd.unit(5)).  The first match counts."""
OURS = "starttls-gateway"
"""Part of the command line of a unit that runs the gateway."""


@dataclass(frozen=True, slots=True)
class SocketUnit:
    """A unit that passes sockets to a service."""

    unit: str
    name: str
    """FileDescriptorName=, default: the unit's name (systemd.socket(5))."""
    ours: bool
    """Its service runs the gateway."""


def passed() -> list[str] | None:
    """The names of sockets that systemd has passed to this process; None without socket activation."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    return os.environ.get("LISTEN_FDNAMES", "").split(":")


def socket_units(directories: Sequence[str] = DIRECTORIES) -> list[SocketUnit] | None:
    """All socket units by name; None on a machine without systemd."""
    there = [Path(directory) for directory in directories if os.path.isdir(directory)]
    if not there:
        return None
    # A template is not a unit.  Its enabled instances are links in *.wants directories.
    found = {
        path.name for directory in there for form in ("*.socket", "*.wants/*@*.socket") for path in directory.glob(form)
    }
    names = sorted(name for name in found if not name.endswith("@.socket"))
    return [
        SocketUnit(
            name,
            (_values(there, name, "FileDescriptorName") or [name])[-1].replace("%i", _instance(name)),
            any(OURS in command for command in _values(there, _service(there, name), "ExecStart")),
        )
        for name in names
    ]


def _template(unit: str) -> str:
    """The template of an instance: gw@.socket for gw@25.socket (systemd.unit(5))."""
    stem, _, kind = unit.rpartition(".")
    return f"{stem.partition('@')[0]}@.{kind}"


def _instance(unit: str) -> str:
    return unit.rpartition(".")[0].partition("@")[2]


def _service(directories: Sequence[Path], socket: str) -> str:
    stem = socket.removesuffix(".socket")
    return (_values(directories, socket, "Service") or [f"{stem}.service"])[-1]


def _values(directories: Sequence[Path], unit: str, key: str) -> list[str]:
    """All values of the key in the unit and its drop-ins.  An empty value removes earlier ones."""
    found: list[str] = []
    for path in _files(directories, unit):
        try:
            text = path.read_text("utf-8", "replace")
        except OSError:
            continue  # no permission, or a masked unit (a dangling link)
        for line in text.replace("\\\n", " ").splitlines():
            name, sign, value = line.partition("=")
            if sign and name.strip() == key:
                found = [*found, value.strip()] if value.strip() else []
    return found


def _files(directories: Sequence[Path], unit: str) -> Iterator[Path]:
    names = [unit, _template(unit)] if _instance(unit) else [unit]
    yield from [path for name in names for directory in directories if (path := directory / name).exists()][:1]
    dropped: dict[str, Path] = {}
    for name in reversed(names):
        for directory in reversed(directories):
            dropped |= {path.name: path for path in (directory / f"{name}.d").glob("*.conf")}
    yield from (dropped[name] for name in sorted(dropped))
