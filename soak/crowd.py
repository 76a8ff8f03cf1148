"""Clients that say an octet now and then, thousands of them in one process, each with an address of its own.

`python -m soak.crowd`, with a `Plan` as JSON in its first argument, says `there` when all have come in and, when the
gateway has sent the last one away, how long each lasted.  soak/slow.py starts it.
"""

from __future__ import annotations

import heapq
import json
import random
import resource
import selectors
import socket
import ssl
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

PROTOCOLS = ("smtp", "imap", "pop3")
STARTTLS = {"smtp": b"STARTTLS\r\n", "imap": b"s STARTTLS\r\n", "pop3": b"STLS\r\n"}
PATIENCE = 60.0
"""Seconds for the gateway to answer somebody who is coming in."""


class Stage(Enum):
    """Where a client stops being quick."""

    SECURE = "inside TLS"
    CLEAR = "in the clear"
    GO_AHEAD = "behind STARTTLS"
    HANDSHAKE = "implicit TLS"


SHARES: Mapping[Stage, int] = {Stage.SECURE: 4, Stage.CLEAR: 4, Stage.GO_AHEAD: 1, Stage.HANDSHAKE: 1}
"""Of ten.  They come in this order: those who are given least time come last, so that there is a while in which all are
there."""


@dataclass(frozen=True)
class Plan:
    ports: Mapping[str, Mapping[str, int]]
    """Protocol -> mode -> port."""
    clients: int
    every: float
    """Seconds from one octet to the next."""
    until: float
    """Seconds after which nobody waits any longer for those who are still there."""
    seed: int = 1
    clear: bool = False
    """All of them stay in the clear."""

    def stage(self, number: int) -> Stage:
        if self.clear:
            return Stage.CLEAR
        tenth = number * 10 // self.clients
        for stage, share in SHARES.items():
            tenth -= share
            if tenth < 0:
                return stage
        raise AssertionError(number)


@dataclass
class Slow:
    """One of them; `left` is what it still has to say, in the clear or of TLS, an octet or a record at a time."""

    number: int
    socket: socket.socket
    stage: Stage
    since: float
    """When its deadline began to run."""
    hello: bytes = b""
    tls: ssl.SSLObject | None = None
    outgoing: ssl.MemoryBIO = field(default_factory=ssl.MemoryBIO)
    said: int = 0
    heard: bytes = b""
    """Behind the greeting, or behind the go-ahead."""

    def say(self) -> None:
        """One octet more."""
        if self.tls is not None:
            self.tls.write(b"E")
            octets = self.outgoing.read()
        else:
            octets = self.hello[self.said : self.said + 1] or b"E"
        self.said += 1
        self.socket.send(octets)


class Crowd:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._dice = random.Random(plan.seed)
        self._selector = selectors.DefaultSelector()
        self._context = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self.lasted: dict[Stage, list[float]] = {stage: [] for stage in Stage}
        self.goodbyes: dict[str, set[str]] = {protocol: set() for protocol in PROTOCOLS}
        """What those heard who stayed in the clear."""
        self._there: dict[int, Slow] = {}

    def come(self) -> None:
        for number in range(self._plan.clients):
            slow = self._come(number)
            slow.socket.setblocking(False)
            self._there[number] = slow
            self._selector.register(slow.socket, selectors.EVENT_READ, slow)

    def stay(self) -> None:
        """Until all have been sent away.  Octets are spread over the time between two of them."""
        due = [(time.monotonic() + self._dice.uniform(0, self._plan.every), number) for number in self._there]
        heapq.heapify(due)
        until = time.monotonic() + self._plan.until
        while self._there and time.monotonic() < until:
            patience = due[0][0] - time.monotonic() if due else 1.0
            for key, _ in self._selector.select(max(0.0, min(patience, 1.0))):
                self._listen(key.data)
            while due and due[0][0] <= time.monotonic():
                moment, number = heapq.heappop(due)
                slow = self._there.get(number)
                if slow is None:
                    continue
                try:
                    slow.say()
                except BlockingIOError:
                    pass  # nobody reads what one says who is being sent away
                except OSError:
                    self._leave(slow)
                    continue
                heapq.heappush(due, (moment + self._plan.every, number))

    def report(self) -> dict[str, Any]:
        return {
            "left": len(self._there),
            "lasted": {stage.value: [min(times), max(times)] for stage, times in self.lasted.items() if times},
            "goodbyes": {protocol: sorted(heard) for protocol, heard in self.goodbyes.items()},
        }

    def _come(self, number: int) -> Slow:
        protocol, stage = _protocol(number), self._plan.stage(number)
        mode = "implicit" if stage is Stage.HANDSHAKE else "starttls"
        sock = socket.create_connection(
            ("127.0.0.1", self._plan.ports[protocol][mode]),
            PATIENCE,
            (f"127.{100 + (number >> 14)}.{number >> 7 & 127}.{1 + (number & 127)}", 0),
        )
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        slow = Slow(number, sock, stage, time.monotonic())
        incoming = ssl.MemoryBIO()
        if stage is not Stage.HANDSHAKE:
            _line(sock)
        if stage in (Stage.GO_AHEAD, Stage.SECURE):
            sock.sendall(STARTTLS[protocol])
            _line(sock)
        if stage is Stage.GO_AHEAD:
            slow.since = time.monotonic()
        if stage is not Stage.CLEAR:
            tls = self._context.wrap_bio(incoming, slow.outgoing)
            shaken, slow.hello = _step(tls, slow.outgoing)
            while stage is Stage.SECURE:
                sock.sendall(slow.hello)
                if shaken:
                    slow.tls = tls
                    break
                octets = sock.recv(65536)
                assert octets, "the gateway ended a handshake"
                incoming.write(octets)
                shaken, slow.hello = _step(tls, slow.outgoing)
        return slow

    def _listen(self, slow: Slow) -> None:
        try:
            octets = slow.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        slow.heard += octets
        if not octets:
            self._leave(slow)

    def _leave(self, slow: Slow) -> None:
        if slow.stage is Stage.CLEAR:
            self.goodbyes[_protocol(slow.number)].add(slow.heard.decode("latin-1"))
        self.lasted[slow.stage].append(time.monotonic() - slow.since)
        del self._there[slow.number]
        self._selector.unregister(slow.socket)
        slow.socket.close()


def _protocol(number: int) -> str:
    return PROTOCOLS[number % len(PROTOCOLS)]


def _line(sock: socket.socket) -> None:
    """What the gateway says while it waits for its client is one line."""
    heard = b""
    while not heard.endswith(b"\n"):
        octets = sock.recv(4096)
        assert octets, f"the gateway closed after {heard!r}"
        heard += octets


def _step(tls: ssl.SSLObject, outgoing: ssl.MemoryBIO) -> tuple[bool, bytes]:
    """Whether the handshake is done, and what there is to say."""
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return False, outgoing.read()
    return True, outgoing.read()


def arguments(plan: Plan) -> list[str]:
    return [sys.executable, "-m", "soak.crowd", json.dumps(asdict(plan))]


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = Crowd(Plan(**json.loads(sys.argv[1])))
    crowd.come()
    print("there", flush=True)
    crowd.stay()
    print(json.dumps(crowd.report()), flush=True)


if __name__ == "__main__":
    main()
