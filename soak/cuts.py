"""`make cuts`, or `python -m soak.cuts`: ten thousand sessions whose octets are cut at random on both legs.

What a client says after its login comes back from an echoing backend, octet by octet the same; what it mails arrives
with the same digest.  Exit status 1: something else came.
"""

from __future__ import annotations

import random
import ssl
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from soak import front
from soak.backend import Peer, digest, serve, smtp
from soak.clients import World, leave
from tests.process import running
from tests.process.running import Gateway, Identity, Service

LARGEST = 4.47
"""30,000 octets, as a power of ten, are what a client says before it reads: fewer than the sockets on the way hold."""
PIECES = 200
"""Into as many a session is cut at most."""


def cuts(octets: bytes, dice: random.Random) -> Iterator[bytes]:
    """The same in pieces, most of them small."""
    left = PIECES
    while octets:
        left -= 1
        size = int(10 ** dice.uniform(0, 4)) if left else len(octets)
        yield octets[:size]
        octets = octets[size:]


def imap(peer: Peer) -> None:
    peer.say(b"* OK [CAPABILITY IMAP4rev1] echo\r\n")
    while True:
        tag, verb, *_ = peer.line().split(b" ")
        if verb == b"CAPABILITY":
            peer.say(b"* CAPABILITY IMAP4rev1\r\n")
        peer.say(tag + b" OK done\r\n")
        if verb == b"LOGIN":
            echo(peer)


def pop3(peer: Peer) -> None:
    peer.say(b"+OK echo\r\n")
    while True:
        line = peer.line()
        peer.say(b"+OK\r\nUSER\r\n.\r\n" if line == b"CAPA" else b"+OK\r\n")
        if line.startswith(b"PASS"):
            echo(peer)


def echo(peer: Peer) -> None:
    dice = random.Random()
    while True:
        for piece in cuts(peer.take(1) + peer.rest(), dice):
            peer.say(piece)


def session(world: World) -> None:
    """One of them; raises if anything else comes back."""
    protocol, dice = world.protocol(), world.random
    octets = dice.randbytes(int(10 ** dice.uniform(0, LARGEST)))
    client = world.enter(protocol)
    with client:
        if protocol == "smtp":
            # Dots are doubled where a line begins, as clients do.
            lines = octets.translate(None, b"\r\0").replace(b"\n", b"\r\n..")
            octets = b"Subject: cut\r\n\r\n.." + lines
            client.say(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n")
            client.hear(rb"^250 [^\n]*\n250 [^\n]*\n354 [^\n]*\n")
            for piece in cuts(octets + b"\r\n.\r\n", dice):
                client.say(piece)
            assert client.line() == b"250 2.0.0 %s\r\n" % digest(octets + b"\r\n")
            leave(client, protocol)
            return
        for piece in cuts(octets, dice):
            client.say(piece)
        heard = client.unheard
        while len(heard) < len(octets):
            more = client.receive()
            assert more, f"the end after {len(heard)} of {len(octets)} octets"
            heard += more
        assert heard == octets, "other octets came"
        client.finish()
        client.unheard = b""
        assert client.rest() == b""


@dataclass
class Crew:
    """Clients that have so many sessions among them."""

    gateway: Gateway
    trusting: ssl.SSLContext
    sessions: int
    seed: int
    session: Callable[[World], None] = session
    """Raises if something is wrong."""
    begun: int = 0
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def work(self, at_once: int) -> None:
        threads = [threading.Thread(target=self._visit, daemon=True) for _ in range(at_once)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _visit(self) -> None:
        while True:
            with self.lock:
                number = self.begun
                if number >= self.sessions or self.failures:
                    return
                self.begun += 1
            dice = random.Random(f"{self.seed} {number}")
            try:
                self.session(World(self.gateway, self.trusting, self.trusting, dice))
            except Exception:
                with self.lock:
                    self.failures.append(f"session {number} of seed {self.seed}\n{traceback.format_exc(limit=-4)}")


@contextmanager
def serving(directory: Path) -> Iterator[tuple[Gateway, ssl.SSLContext]]:
    identity = Identity.issue(directory)
    scripts = {"smtp": smtp, "imap": imap, "pop3": pop3}
    services = [Service(protocol, f"127.0.0.1:{serve(script)}") for protocol, script in scripts.items()]
    with running.running(directory, identity, services, summed=True) as gateway:
        yield gateway, ssl.create_default_context(cafile=str(identity.authority))


def main() -> None:
    options = front.options("soak.cuts", __doc__, sessions=10_000, at_once=8, seed=1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cuts-") as name, serving(Path(name)) as (gateway, trusting):
        crew = Crew(gateway, trusting, options.sessions, options.seed)
        crew.work(options.at_once)
    print(f"{crew.begun} sessions in {time.monotonic() - began:.0f} s", *crew.failures, sep="\n")
    print("NOT WELL" if crew.failures else "all is well")
    sys.exit(bool(crew.failures))


if __name__ == "__main__":
    main()
