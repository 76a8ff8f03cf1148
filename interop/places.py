"""Where other people's programs are: in a small Debian, in a Python environment, among Node's modules, or just here.

Debian's mail servers exclude each other, and nobody wants forty packages on a machine for a test.  So each server has
a folder with a Debian in it (a house), and the clients share one.  A command in a house gets its own process numbers
and its own mounts: it ends with everything that it started, and leaves no mount behind.  It shares the network.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "interop"
"""All that is installed.  `make clean` removes it."""
SUITE = "bookworm"
PATIENCE = 60.0
"""Seconds that a client may take."""
_INSTALLING = 1200.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {"PATH": _PATH, "LC_ALL": "C.UTF-8", "TERM": "xterm", "DEBIAN_FRONTEND": "noninteractive"}

# $1: the house; $2: a folder of this machine that the command sees at the same place, or nothing; then the command.
# The shell stays, as root: a process that changes its user no longer hears that its parent is gone.
_ENTER = """
house=$1; shared=$2; shift 2
mount -t proc proc "$house/proc"
# Some programs look up the machine's own name, whatever this machine calls itself.
echo old.example.test >/proc/sys/kernel/hostname
echo '127.0.0.1 localhost old.example.test' >"$house/etc/hosts"
mount --rbind /dev "$house/dev"
mount -t tmpfs tmpfs "$house/tmp"
mount -t tmpfs tmpfs "$house/run"
if [ -n "$shared" ]; then
  mkdir -p "$house$shared"
  mount --bind "$shared" "$house$shared"
fi
chroot "$house" "$@"
exit 0
"""


class Missing(Exception):
    """Something is not there; the text says what, and what to do."""


@dataclass(frozen=True)
class Ended:
    """What became of a command."""

    status: int
    said: str
    """Its standard output and error, as they came."""
    output: bytes
    """Its standard output alone."""
    broken_off: bool = False
    """It had to be ended."""


class Place(Protocol):
    """Where programs of packages are."""

    @property
    def origin(self) -> str:
        """Who packs them, for the table."""

    def install(self, packages: Sequence[str]) -> None:
        """Bring these packages here, unless they are here."""

    def version(self, package: str) -> str: ...

    def command(self, argv: Sequence[str], shared: Path | None = None) -> list[str]:
        """How this command is started from outside; `shared` is a folder that it sees at the same place."""


@dataclass(frozen=True)
class Here:
    """This machine, as it is."""

    origin: str = "here"

    def install(self, packages: Sequence[str]) -> None:
        missing = [package for package in packages if not _installed(package)]
        if missing:
            run(Here(), ["apt-get", "update", "-qq"], patience=_INSTALLING)
            _run(["apt-get", "install", "-qq", "--no-install-recommends", *missing])

    def version(self, package: str) -> str:
        return _installed(package)

    def command(self, argv: Sequence[str], shared: Path | None = None) -> list[str]:
        return list(argv)


@dataclass(frozen=True)
class House:
    """A Debian in a folder of this name."""

    name: str
    origin: str = "Debian"

    @property
    def path(self) -> Path:
        return BUILD / "houses" / self.name

    def install(self, packages: Sequence[str]) -> None:
        note = self.path / "var" / "lib" / "interop-packages"
        wanted = "\n".join((SUITE, *sorted(packages))) + "\n"
        if note.exists() and note.read_text() == wanted:
            return
        base = _base()
        _tell(f"Debian {SUITE}, {self.name}: {' '.join(sorted(packages))}")
        shutil.rmtree(self.path, ignore_errors=True)
        _run(["cp", "--archive", "--reflink=auto", str(base), str(self.path)])
        # It asks for names where this machine does.
        shutil.copy("/etc/resolv.conf", self.path / "etc" / "resolv.conf")
        for arguments in (("update", "-qq"), ("install", "-qq", "--no-install-recommends", *packages), ("clean",)):
            _run(self.command(["apt-get", *arguments]))
        note.write_text(wanted)

    def version(self, package: str) -> str:
        return _output(["chroot", str(self.path), "dpkg-query", "--show", "--showformat=${Version}", package])

    def command(self, argv: Sequence[str], shared: Path | None = None) -> list[str]:
        enter = ("sh", "-ec", _ENTER, "enter", str(self.path), str(shared or ""))
        # Whatever ends this process, even SIGKILL, ends the house.
        dying = ("setpriv", "--pdeathsig", "KILL")
        return [*dying, "unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", *enter, *argv]


@dataclass(frozen=True)
class Environment:
    """A Python environment; its commands begin with `python`."""

    name: str
    origin: str = "PyPI"

    @property
    def python(self) -> str:
        return str(BUILD / self.name / "bin" / "python")

    def install(self, packages: Sequence[str]) -> None:
        note = BUILD / self.name / "packages"
        wanted = "\n".join(sorted(packages)) + "\n"
        if note.exists() and note.read_text() == wanted:
            return
        _tell(f"Python: {' '.join(sorted(packages))}")
        _run([sys.executable, "-m", "venv", "--clear", str(BUILD / self.name)])
        _run([self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])
        note.write_text(wanted)

    def version(self, package: str) -> str:
        return _output([self.python, "-c", f"import importlib.metadata as m; print(m.version({package!r}))"])

    def command(self, argv: Sequence[str], shared: Path | None = None) -> list[str]:
        return [self.python, *argv[1:]]


@dataclass(frozen=True)
class Modules:
    """Modules of Node's, which itself is this machine's."""

    name: str
    origin: str = "npm"

    @property
    def path(self) -> Path:
        return BUILD / self.name

    def install(self, packages: Sequence[str]) -> None:
        note = self.path / "packages"
        wanted = "\n".join(sorted(packages)) + "\n"
        if note.exists() and note.read_text() == wanted:
            return
        if shutil.which("npm") is None:
            Here().install(["nodejs", "npm"])
        _tell(f"Node: {' '.join(sorted(packages))}")
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        # Install scripts would fetch what is not in the packages.
        options = ("--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(self.path))
        _run(["npm", "install", *options, *packages])
        note.write_text(wanted)

    def version(self, package: str) -> str:
        told = json.loads((self.path / "node_modules" / package / "package.json").read_text())
        return f"{told['version']} on Node {_output(['node', '--version']).removeprefix('v')}"

    def command(self, argv: Sequence[str], shared: Path | None = None) -> list[str]:
        return ["env", f"NODE_PATH={self.path / 'node_modules'}", *argv]


def need_root() -> None:
    if os.geteuid():
        raise Missing(
            "this needs root: it installs debootstrap, makes small Debians under build/interop, and mounts in them.\n"
            "What to do: run it as root on a machine that may be thrown away, or say  sudo make interop"
        )
    for program, package in (("unshare", "util-linux"), ("mount", "mount"), ("apt-get", "apt")):
        if shutil.which(program) is None:
            raise Missing(f"this needs {program} (Debian package {package}); it runs on Debian and its relatives")
    tried = run(Here(), ["unshare", "--mount", "--uts", "--pid", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
    if tried.status:
        raise Missing(
            f"this machine does not let root mount in a namespace of its own: {tried.said.strip()}\n"
            "What to do: in a container, give it CAP_SYS_ADMIN, or run it on the machine itself"
        )


def run(
    place: Place,
    argv: Sequence[str],
    *,
    shared: Path | None = None,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    patience: float = PATIENCE,
) -> Ended:
    """Run it to its end, or end it, and all that it started, after `patience` seconds."""
    process = subprocess.Popen(
        place.command(argv, shared),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=shared,
        env={**_ENVIRONMENT, **(environment or {})},
        start_new_session=True,
    )
    broken_off = False
    try:
        output, errors = process.communicate(stdin, patience)
        said = output + errors
    except subprocess.TimeoutExpired:
        _end_group(process)
        output, errors = process.communicate()
        broken_off = True
        said = output + errors + f"\nit did not end in {patience:.0f} s".encode()
    finally:
        _end_group(process)
    return Ended(process.returncode, said.decode(errors="replace"), output, broken_off)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """What it started and left behind is in its group; in a house, all processes end with the first one."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _base() -> Path:
    """A Debian with nothing in it; the houses are made from it."""
    base = BUILD / "houses" / "base"
    if (base / "complete").exists():
        return base
    Here().install(["debootstrap"])
    _tell(f"a small Debian ({SUITE})")
    shutil.rmtree(base, ignore_errors=True)
    base.parent.mkdir(parents=True, exist_ok=True)
    _run(["debootstrap", "--variant=minbase", SUITE, str(base)])
    # What is installed in it must not start by itself.
    no = base / "usr" / "sbin" / "policy-rc.d"
    no.write_text("#!/bin/sh\nexit 101\n")
    no.chmod(0o755)
    (base / "etc" / "mailname").write_text("old.example.test\n")
    (base / "complete").touch()
    return base


def _installed(package: str) -> str:
    """Its version on this machine, or nothing."""
    asked = ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}", package]
    status, _, version = run(Here(), asked).output.decode().partition(" ")
    return version if status == "installed" else ""


def _tell(what: str) -> None:
    print(f"installing {what}", file=sys.stderr, flush=True)


def _run(argv: Sequence[str]) -> None:
    """One step of an installation."""
    # What this machine needs to reach its packages (proxies, authorities) stands in its environment.
    done = run(Here(), argv, patience=_INSTALLING, environment=os.environ)
    if done.status:
        raise Missing(f"this failed with status {done.status}: {' '.join(argv)}\n{done.said[-3000:]}")


def _output(argv: Sequence[str]) -> str:
    done = run(Here(), argv)
    if done.status:
        raise Missing(f"this failed with status {done.status}: {' '.join(argv)}\n{done.said}")
    return done.output.decode().strip()
