"""Networks of our own, on this machine: each is a namespace that a process holds, and is gone with it."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.process import programs
from tests.process.running import LIFE

_CLONE_NEWNET = 0x40000000
"""setns(2)."""
_libc = ctypes.CDLL(None, use_errno=True)


class Network:
    """A namespace, in which nothing but loopback is there at first."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What this thread opens or starts in the block is there."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
        try:
            _enter(there)
            try:
                yield
            finally:
                _enter(home)
        finally:
            os.close(there)
            os.close(home)

    def run(self, *command: str, said: str = "") -> None:
        with self.inside():
            subprocess.run(command, input=said, text=True, check=True)

    def connect(self, name: str, addresses: list[str], other: Network, other_name: str, others: list[str]) -> None:
        """A cable between two of them, with addresses (with their lengths of prefix) at both ends."""
        self.run("ip", "link", "add", name, "type", "veth", "peer", "name", other_name, "netns", str(other.pid))
        for network, link, its in ((self, name, addresses), (other, other_name, others)):
            for address in its:
                # Nobody else can have an IPv6 address here; it need not ask.
                network.run("ip", "address", "add", address, "dev", link, *(["nodad"] if ":" in address else []))
            network.run("ip", "link", "set", link, "up")


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def network() -> Iterator[Network]:
    """Needs root."""
    if os.geteuid():
        programs.missing("this test makes networks: run it as root")
    command = ["unshare", "--net", "sh", "-ec", 'ip link set lo up; echo; exec sleep "$0"', str(LIFE)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), "there is no namespace for networks"
        try:
            yield Network(process.pid)
        finally:
            process.kill()
