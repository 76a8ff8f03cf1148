"""Debian roots that packages are installed in, each in namespaces of its own: nothing of the machine is touched."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests.process.programs import need

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "build" / "packages"
SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
INCLUDED = "systemd,systemd-sysv,dbus,python3"
CLONE_NEWNET = 0x40000000

Result = TypeVar("Result")


def base() -> Path:
    """A minimal Debian with systemd and Python, made once (a minute, 290 MB)."""
    directory = CACHE / SUITE
    if not directory.exists():
        debootstrap = need("debootstrap", debian="debootstrap")
        half = CACHE / f"{SUITE}.half"
        shutil.rmtree(half, ignore_errors=True)
        half.parent.mkdir(parents=True, exist_ok=True)
        run([debootstrap, "--variant=minbase", f"--include={INCLUDED}", SUITE, str(half), MIRROR], patience=1200)
        half.rename(directory)
    return directory


def run(command: Sequence[str], *, patience: float = 300, right: Sequence[int] = (0,), **more: object) -> str:
    """Standard output and error; an exit status that is not `right` fails the test."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=patience,
        check=False,
        **more,  # type: ignore[call-overload]
    )
    assert done.returncode in right, f"{shlex.join(command)}: exit status {done.returncode}\n{done.stdout}"
    return str(done.stdout)


ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


class Debian(ABC):
    """A root that runs, and whose files are in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    @abstractmethod
    def entering(self) -> list[str]:
        """The beginning of a command that is to run inside."""

    def run(self, *command: str, right: Sequence[int] = (0,)) -> str:
        return run([*self.entering, *command], right=right, env=ENVIRONMENT)

    def path(self, name: str) -> Path:
        """From outside."""
        return self.directory / name.lstrip("/")


class Root(Debian):
    """A copy of the base that runs as `leader` in namespaces: mounts, network (loopback only) and processes."""

    def __init__(self, directory: Path, leader: int) -> None:
        super().__init__(directory)
        self.leader = leader

    @property
    def entering(self) -> list[str]:
        return ["nsenter", f"--target={self.leader}", "--mount", "--net", "--pid", "chroot", str(self.directory)]

    def spawn(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.entering, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )


def in_network_of(pid: int, act: Callable[[], Result]) -> Result:
    """Done in the network of that process; sockets that are made there stay there."""
    found: list[Result] = []
    failed: list[BaseException] = []

    def enter() -> None:
        try:
            with open(f"/proc/{pid}/ns/net") as namespace:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns into the network of {pid}")
            found.append(act())
        except BaseException as error:
            failed.append(error)

    # A thread of its own: this one stays where it is.
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


@contextmanager
def running_root(directory: Path, source: Path | None = None) -> Iterator[Root]:
    copy(source or base(), directory)
    proc = shlex.quote(str(directory / "proc"))
    script = f"ip link set lo up && mount -t proc proc {proc} && echo ready && exec sleep infinity"
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield Root(directory, child_of(process.pid))
        finally:
            process.send_signal(signal.SIGKILL)


def copy(source: Path, directory: Path) -> None:
    run(["cp", "-a", "--reflink=auto", str(source), str(directory)])


def child_of(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def ready_to_build() -> None:
    """Whoever builds and installs packages is root."""
    if os.geteuid() != 0:
        raise AssertionError("these tests make namespaces and roots: run `make packages` as root")
