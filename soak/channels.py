"""`make channels`, or `python -m soak.channels`: ten thousand FTP sessions, each of which opens a data port.

Some use it for a small file, up or down; some ask twice, some never connect to it, some connect and are gone.  The
gateway may use as many ports as sessions are there at once need, so that a port that it kept would soon be missed.
Exit status 1: something else came than should, or the gateway kept descriptors or memory.
"""

from __future__ import annotations

import ftplib
import io
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from soak import front
from soak.backend import Peer, serve
from soak.clients import PATIENCE, World
from soak.cuts import Crew
from soak.family import Family
from tests.ports import free_port
from tests.process import running
from tests.process.running import CANARY, Gateway, Identity, Service

LARGEST = 5.0
"""100,000 octets, as a power of ten, has a file at most."""
PORTS = 64
"""For passive mode.  A session has one at a time, and a session that is gone has none."""
SLACK = 4_000_000
"""Octets by which the gateway's memory goes up and down.  7,500 sessions that stayed would need ten times as much."""


def ftp(peer: Peer) -> None:
    """A server whose file N has N octets; it answers STOR with how many came."""
    peer.say(b"220 soak\r\n")
    listener: socket.socket | None = None
    try:
        while True:
            verb, _, argument = peer.line().upper().partition(b" ")
            match verb:
                case b"USER":
                    peer.say(b"331 go on\r\n")
                case b"PASS":
                    peer.say(b"230 in\r\n")
                case b"PASV":
                    if listener is not None:
                        listener.close()
                    listener = socket.create_server(("127.0.0.1", 0))
                    listener.settimeout(PATIENCE)
                    peer.say(
                        b"227 Entering Passive Mode (127,0,0,1,%d,%d)\r\n" % divmod(listener.getsockname()[1], 256)
                    )
                case b"RETR" | b"STOR" if listener is not None:
                    data, _ = listener.accept()
                    with data:
                        peer.say(b"150 here\r\n")
                        if verb == b"RETR":
                            data.sendall(bytes(int(argument)))
                            came = 0
                        else:
                            came = sum(iter(lambda: len(data.recv(1 << 16)), 0))  # noqa: B023
                    peer.say(b"226 %d\r\n" % came)
                case b"QUIT":
                    peer.say(b"221 bye\r\n")
                    return
                case _:
                    peer.say(b"200 fine\r\n")
    finally:
        if listener is not None:
            listener.close()


def download(client: ftplib.FTP, octets: int) -> None:
    came = io.BytesIO()
    client.retrbinary(f"RETR {octets}", came.write)
    assert len(came.getvalue()) == octets, f"{len(came.getvalue())} of {octets} octets"


def upload(client: ftplib.FTP, octets: int) -> None:
    reply = client.storbinary("STOR x", io.BytesIO(bytes(octets)))
    assert reply == f"226 {octets}", f"{reply} instead of 226 {octets}"


def unused(client: ftplib.FTP, _: int) -> None:
    client.makepasv()


def twice(client: ftplib.FTP, octets: int) -> None:
    client.makepasv()
    download(client, octets)


def lost(client: ftplib.FTP, _: int) -> None:
    """Connected, and gone without a word."""
    socket.create_connection(client.makepasv()).close()


ACTS: tuple[Callable[[ftplib.FTP, int], None], ...] = (download, upload, unused, twice, lost)


def session(world: World) -> None:
    dice = world.random
    with ftplib.FTP_TLS(context=world.trusting) as client:
        client.connect(*world.gateway.address("ftp"), timeout=PATIENCE)
        client.login("grete", CANARY)
        client.prot_p()
        dice.choice(ACTS)(client, int(10 ** dice.uniform(0, LARGEST)))
        if dice.random() < 0.5:
            client.quit()


@contextmanager
def serving(directory: Path) -> Iterator[tuple[Gateway, ssl.SSLContext]]:
    identity = Identity.issue(directory)
    first = free_port()
    options = {"passive_ports": f"{first}-{first + PORTS - 1}"}
    service = Service("ftp", f"127.0.0.1:{serve(ftp)}", modes=("starttls",), options=options)
    with running.running(directory, identity, [service]) as gateway:
        yield gateway, ssl.create_default_context(cafile=str(identity.authority))


@dataclass(frozen=True)
class Kept:
    """What the gateway has, when nobody is there."""

    descriptors: int
    memory: int
    """Octets (Pss)."""

    @classmethod
    def of(cls, gateway: Gateway, sessions: int, most: int = 1 << 20) -> Kept:
        """After so many sessions.  A session is told when it is over; its sockets may take a moment more, in which the
        gateway has more than `most` descriptors."""
        gateway.log.wait("session", count=sessions)
        family = Family(gateway.file)
        until = time.monotonic() + PATIENCE
        while family.descriptors > most and time.monotonic() < until:
            time.sleep(0.1)
        return cls(family.descriptors, family.memory)

    def __str__(self) -> str:
        return f"{self.descriptors} descriptors, {self.memory / 2**20:.1f} MiB"


@dataclass(frozen=True)
class Course:
    """So many sessions, and what the gateway had before, after a quarter of them, and at the end."""

    sessions: int
    before: Kept
    warm: Kept
    after: Kept
    failures: Sequence[str]

    @classmethod
    def run(cls, gateway: Gateway, trusting: ssl.SSLContext, sessions: int, at_once: int = 8, seed: int = 1) -> Course:
        crew = Crew(gateway, trusting, 1, seed, session)
        crew.work(at_once)  # what the first one needs stays
        before = Kept.of(gateway, crew.begun)
        crew.sessions = sessions // 4
        crew.work(at_once)
        warm = Kept.of(gateway, crew.begun, before.descriptors)
        crew.sessions = sessions
        crew.work(at_once)
        after = Kept.of(gateway, crew.begun, before.descriptors)
        return cls(crew.begun, before, warm, after, crew.failures)

    @property
    def wrong(self) -> list[str]:
        """What is not as it should be."""
        wrong = list(self.failures)
        if self.after.descriptors > self.before.descriptors:
            wrong.append(f"{self.after.descriptors - self.before.descriptors} descriptors are left")
        if self.after.memory - self.warm.memory > SLACK:
            wrong.append(f"{self.after.memory - self.warm.memory} octets of memory more than when warm")
        return wrong


def main() -> None:
    options = front.options("soak.channels", __doc__, sessions=10_000, at_once=8, seed=1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="channels-") as name, serving(Path(name)) as (gateway, trusting):
        course = Course.run(gateway, trusting, options.sessions, options.at_once, options.seed)
    print(f"{course.sessions} sessions in {time.monotonic() - began:.0f} s", *course.wrong, sep="\n")
    print(f"before  {course.before}\nwarm    {course.warm}\nend     {course.after}")
    print("NOT WELL" if course.wrong else "all is well")
    sys.exit(bool(course.wrong))


if __name__ == "__main__":
    main()
