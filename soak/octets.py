"""`make octets`, or `python -m soak.octets`: what a megabyte in single octets costs the gateway, and what half of it.

Each octet is a write of its own, and under TLS a record of its own; all of it is where the gateway inspects what it
passes on.  Exit status 1: twice as much costs more than RATIO times as much.
"""

from __future__ import annotations

import socket
import ssl
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from gateway.config.values import Timeouts
from soak import front
from soak.front import serving
from tests.process.running import Gateway
from tests.process.words import WORDS

RATIO = 2.5
LITERAL = 60_000
"""Octets of one literal: before the login a command may have little more."""
LINE = 70_000
"""Octets of one line: with a little more the session is over."""
LINES = 8
"""Of one session: two more bad commands and it is over."""
PATIENCE = 60.0
_LINE = b"x" * 70 + b"\r\n"


class Talker:
    """One connection, on which a write is a write."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Talker:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def secure(self, trusting: ssl.SSLContext) -> None:
        self._socket = trusting.wrap_socket(self._socket, server_hostname="localhost")

    def ask(self, octets: bytes, begins: bytes) -> None:
        """Say this; the last line of the answer begins like that."""
        self._socket.sendall(octets)
        heard = b""
        while not heard.endswith(b"\n") or not heard.splitlines()[-1].startswith(begins):
            more = self._socket.recv(65536)
            assert more, f"the end instead of {begins!r} behind {heard[-200:]!r}"
            heard += more

    def trickle(self, octets: bytes) -> None:
        send = self._socket.send
        for octet in octets:
            send(b"%c" % octet)


def message(gateway: Gateway, trusting: ssl.SSLContext, octets: int) -> None:
    """The data of a mail."""
    with Talker(gateway.address("smtp", "implicit")) as talker:
        talker.secure(trusting)
        talker.ask(b"", b"220 ")
        talker.ask(WORDS["smtp"].hello, b"250 ")
        talker.ask(b"MAIL FROM:<a@x>\r\n", b"250 ")
        talker.ask(b"RCPT TO:<b@x>\r\n", b"250 ")
        talker.ask(b"DATA\r\n", b"354 ")
        talker.trickle((_LINE * (octets // len(_LINE) + 1))[:octets])
        talker.ask(b"\r\n.\r\n", b"250 ")


def lines(gateway: Gateway, trusting: ssl.SSLContext, octets: int) -> None:
    """Almost without end, in the clear."""
    while octets:
        with Talker(gateway.address("smtp", "starttls")) as talker:
            talker.ask(b"", b"220 ")
            for _ in range(LINES):
                size = min(LINE, octets)
                octets -= size
                if size:
                    talker.trickle(b"x" * size)
                    talker.ask(b"\r\n", b"500 ")


def literals(gateway: Gateway, trusting: ssl.SSLContext, octets: int) -> None:
    """Of commands before the login."""
    with Talker(gateway.address("imap", "implicit")) as talker:
        talker.secure(trusting)
        talker.ask(b"", b"* OK")
        for start in range(0, octets, LITERAL):
            size = min(LITERAL, octets - start)
            talker.ask(b"x NONSENSE {%d}\r\n" % size, b"+ ")
            talker.trickle(b"y" * size)
            talker.ask(b"\r\n", b"x OK")


KINDS: Mapping[str, Callable[[Gateway, ssl.SSLContext, int], None]] = {
    "a message": message,
    "long lines": lines,
    "literals": literals,
}


def costs(gateway: Gateway, trusting: ssl.SSLContext, kind: str, octets: int, rounds: int) -> tuple[float, float]:
    """Seconds of the gateway's CPU for half as many and for as many: the best of interleaved rounds."""

    def feed(count: int) -> float:
        before = gateway.cpu
        KINDS[kind](gateway, trusting, count)
        return gateway.cpu - before

    both = [(feed(octets // 2), feed(octets)) for _ in range(rounds)]
    return min(half for half, _ in both), min(whole for _, whole in both)


def main() -> None:
    options = front.options("soak.octets", __doc__, octets=2**20, rounds=3)
    well = True
    with tempfile.TemporaryDirectory(prefix="octets-") as name, serving(Path(name), Timeouts()) as (gateway, trusting):
        print(f"{'CPU seconds for':<16}{options.octets // 2:>9}{options.octets:>9} octets")
        for kind in KINDS:
            half, whole = costs(gateway, trusting, kind, options.octets, options.rounds)
            well = well and whole <= RATIO * half
            print(f"{kind:<16}{half:>9.2f}{whole:>9.2f}{whole / half:>9.2f} times", flush=True)
    print("all is well" if well else f"NOT WELL: more than {RATIO} times")
    sys.exit(not well)


if __name__ == "__main__":
    main()
