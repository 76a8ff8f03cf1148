"""Three machines: a client, the gateway, and an old server with Debian's own settings.  Each has a network of its own;
what the server writes stays in its memory.  Needs root."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.process.programs import missing
from tests.process.running import DEADLINE, ROOT

CLIENT, OUTSIDE, GATEWAY, SERVER = "192.0.2.7", "192.0.2.1", "10.0.0.2", "10.0.0.5"
"""The addresses of the guides: the client, the gateway towards clients and towards the server, the server."""

# What a machine sees is $3, this machine itself or another Debian, and what it changes lies over it.
_BEGIN = """
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/system"
mount -t overlay overlay -o "lowerdir=$3,upperdir=$1/upper,workdir=$1/work" "$1/system"
mount -t proc proc "$1/system/proc"
mount --rbind /dev "$1/system/dev"
mount -t tmpfs tmpfs "$1/system/run"
mkdir -p "$1/system$2"
mount --rbind "$2" "$1/system$2"
ip link set lo up
# Nobody answers there, and says so at once.
echo nameserver 127.0.0.1 >"$1/system/etc/resolv.conf"
echo ready
exec chroot "$1/system" sleep infinity
"""


@dataclass(frozen=True)
class Machine:
    leader: int

    def command(self, *words: str) -> list[str]:
        """How a command is started there."""
        return ["nsenter", f"--target={self.leader}", "--mount", "--net", "--pid", "--root", "--wd", *words]

    def run(self, script: str, patience: float = DEADLINE) -> str:
        """What the shell script says; it must succeed."""
        done = self.attempt(script, patience)
        assert done.returncode == 0, f"{script}: exit status {done.returncode}\n{done.stdout}"
        return done.stdout

    def attempt(self, script: str, patience: float = DEADLINE) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            # Inside, as it ends all that the script has started.
            self.command("timeout", "--kill-after=5", str(patience), "sh", "-ec", script),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=2 * patience,
        )

    def end(self) -> None:
        """With all that runs on it."""
        os.kill(self.leader, signal.SIGKILL)

    def path(self, name: str) -> Path:
        """A file of the machine, from outside."""
        return Path(f"/proc/{self.leader}/root{name}")


@dataclass(frozen=True)
class Village:
    client: Machine
    gateway: Machine
    server: Machine


@contextmanager
def village(directory: Path, names: Mapping[str, str], old: Path = Path("/")) -> Iterator[Village]:
    """`names` are what the client knows: host name -> address.  It reaches the server by way of the gateway's machine,
    as long as no firewall forbids it.  The server's machine has the files below `old`."""
    if os.geteuid() != 0:
        missing("this test makes networks of its own: run it as root")
    with ExitStack() as stack:
        client, gateway, server = (
            stack.enter_context(_machine(directory / name, files))
            for name, files in (("client", Path("/")), ("gateway", Path("/")), ("server", old))
        )
        for inner, outer, name in ((server, gateway, "inside"), (client, gateway, "outside")):
            _ip("link", "add", name, "netns", str(outer.leader), "type", "veth",
                "peer", "name", "eth0", "netns", str(inner.leader))  # fmt: skip
        gateway.run(
            f"ip address add {GATEWAY}/24 dev inside; ip link set inside up;"
            f"ip address add {OUTSIDE}/24 dev outside; ip link set outside up; echo 1 >/proc/sys/net/ipv4/ip_forward"
        )
        for machine, own, router in ((client, CLIENT, OUTSIDE), (server, SERVER, GATEWAY)):
            machine.run(f"ip address add {own}/24 dev eth0; ip link set eth0 up; ip route add default via {router}")
        with client.path("/etc/hosts").open("a") as hosts:
            hosts.writelines(f"{address} {name}\n" for name, address in names.items())
        yield Village(client, gateway, server)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=DEADLINE)


@contextmanager
def _machine(directory: Path, files: Path) -> Iterator[Machine]:
    directory.mkdir()
    words = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-ec", _BEGIN, "sh"]
    with subprocess.Popen(
        [*words, str(directory), str(ROOT), str(files)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            yield Machine(int(child))
        finally:
            process.kill()
