"""Whoever does not read stops whoever writes to him, and the gateway in between stays as small as it was."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.conftest import Front
from tests.process.legacy import SERVERS
from tests.process.recording import Backend, Connection
from tests.process.running import DEADLINE, Identity, Service, running
from tests.process.wire import Client
from tests.process.words import WORDS

PATIENCE = 1.0
"""Seconds without room for one octet after which everything on the way is full."""
MUCH = 300_000_000
"""What a sender would like to send."""
WARM = 24_000_000
"""What goes through beforehand, each way, so that every buffer has had its greatest size once."""
GROWTH = 2_000_000
"""Octets of resident memory that a stalled session may cost, at most."""
ON_THE_WAY = 60_000_000
"""More than the kernel's buffers of four sockets can hold (tcp_wmem and tcp_rmem are a few megabytes each): who
got rid of more than this was not stopped."""
BLOCK = os.urandom(256 * 1024)

each_mode = pytest.mark.parametrize("mode", ["starttls", "implicit"])
each_splice = pytest.mark.parametrize("protocol", ["imap", "pop3"])


class Flood:
    """A backend that after the login pours out what it has, and notes when it is stopped."""

    def __init__(self, octets: int, login: bytes) -> None:
        self._left = octets
        self._login = login
        self.sent = 0
        self.digest = hashlib.sha256()
        self.stalled = threading.Semaphore(0)
        """Released whenever nothing could be sent for PATIENCE seconds, and at the end."""

    def __call__(self, connection: Connection) -> None:
        connection.say(self._login)
        connection.socket.settimeout(PATIENCE)
        try:
            while self._left:
                piece = BLOCK[: self._left]
                try:
                    count = connection.socket.send(piece)
                except TimeoutError:
                    self.stalled.release()
                    continue
                self.digest.update(piece[:count])
                self.sent += count
                self._left -= count
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the test is over
        self.stalled.release()


class Sponge:
    """A backend that after some command reads all there is, or nothing until it is allowed to."""

    def __init__(self, reply: bytes, last_words: bytes = b"", thirsty: bool = True) -> None:
        self._reply = reply
        self._last_words = last_words
        self.digest = hashlib.sha256()
        self.allowed = threading.Event()
        if thirsty:
            self.allowed.set()

    def __call__(self, connection: Connection) -> None:
        connection.keep = False
        connection.say(self._reply)
        self.allowed.wait(4 * DEADLINE)
        tail = b""
        while octets := connection.receive():
            self.digest.update(octets)
            tail = (tail + octets)[-5:]
            if self._last_words and tail == b"\r\n.\r\n":
                connection.say(self._last_words)


LOGIN = {"imap": (b"LOGIN", b"l OK LOGIN by the backend\r\n"), "pop3": (b"PASS", b"+OK PASS by the backend\r\n")}


@pytest.fixture(scope="module")
def backends() -> Iterator[dict[str, Backend]]:
    backends = {protocol: Backend() for protocol in WORDS}
    yield backends
    for backend in backends.values():
        backend.close()


@pytest.fixture
def front(
    tmp_path: Path, identity: Identity, backends: dict[str, Backend], trusting: ssl.SSLContext
) -> Iterator[Front]:
    """Of one test alone: its memory is that test's."""
    services = [
        Service(protocol, backend.address, options={"received": "no"} if protocol == "smtp" else {})
        for protocol, backend in backends.items()
    ]
    with running(tmp_path, identity, services, options={"timeouts": {"linger": "500 ms"}}) as gateway:
        yield Front(gateway, backends, trusting)


def enter(front: Front, protocol: str, mode: str, **more: int) -> Client:
    """A session inside TLS, logged in where that leads to the splice, else with a message begun."""
    words = WORDS[protocol]
    client = Client(front.gateway.address(protocol, mode), **more)
    if mode == "implicit":
        client.shake_hands(front.trusting)
    client.hear(words.greeting_)
    if mode == "starttls":
        client.say(words.starttls)
        client.line()
        client.shake_hands(front.trusting)
    client.say(words.hello)
    client.hear(words.hello_)
    if protocol == "smtp":
        client.say(b"MAIL FROM:<a@example.test>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n")
        client.hear(rb"^354 [^\n]*\n")
    else:
        client.say(words.login)
        client.hear(words.login_)
    return client


def warm_up(front: Front, protocol: str, mode: str) -> None:
    """A few sessions like the one under test, except that everybody reads."""
    since = front.gateway.log.mark()
    for number in range(3):
        if protocol == "smtp":
            front.backends[protocol].play(SERVERS["smtp"]({b"DATA": Sponge(b"354 Go ahead\r\n", b"250 Ok\r\n")}))
            with enter(front, protocol, mode) as client:
                pour(client, WARM)
                client.say(b"\r\n.\r\n")
                client.hear(rb"^250 Ok\r\n")
        else:
            verb, reply = LOGIN[protocol]
            front.backends[protocol].play(SERVERS[protocol]({verb: Flood(WARM, reply)}))
            with enter(front, protocol, mode) as client:
                client.rest()
            front.backends[protocol].play(SERVERS[protocol]({verb: Sponge(reply)}))
            with enter(front, protocol, mode) as client:
                pour(client, WARM)
        front.gateway.log.wait("session", since, count=(number + 1) * (1 if protocol == "smtp" else 2))


def pour(client: Client, octets: int, block: bytes = BLOCK) -> int:
    """Send so many octets, or until nothing goes out for PATIENCE seconds; returns how many went out."""
    client.socket.settimeout(PATIENCE)
    sent = 0
    try:
        while sent < octets:
            client.say(block)
            assert not client.cut, f"cut behind {sent} octets"
            sent += len(block)
    except TimeoutError:
        pass
    finally:
        client.socket.settimeout(client.patience)
    return sent


def check(what: str, before: int, after: int, sent: int) -> None:
    print(f"{what}: {before:,} octets resident, grew by {after - before:,}, while {sent:,} octets were sent")
    assert sent < ON_THE_WAY, "nobody was stopped"
    assert after - before < GROWTH


@each_mode
@each_splice
def test_a_client_that_never_reads_stops_its_backend(front: Front, protocol: str, mode: str) -> None:
    warm_up(front, protocol, mode)
    verb, reply = LOGIN[protocol]
    flood = Flood(MUCH, reply)
    front.backends[protocol].play(SERVERS[protocol]({verb: flood}))
    before = front.gateway.resident
    with enter(front, protocol, mode) as client:
        assert flood.stalled.acquire(timeout=60)
        check(f"{protocol} {mode} download", before, front.gateway.resident, flood.sent)
        client.reset()


@each_mode
@pytest.mark.parametrize("protocol", list(WORDS))
def test_a_backend_that_never_reads_stops_its_client(front: Front, protocol: str, mode: str) -> None:
    warm_up(front, protocol, mode)
    verb, reply = LOGIN.get(protocol, (b"DATA", b"354 Go ahead\r\n"))
    sponge = Sponge(reply, thirsty=False)
    front.backends[protocol].play(SERVERS[protocol]({verb: sponge}))
    before = front.gateway.resident
    with enter(front, protocol, mode) as client:
        sent = pour(client, MUCH)
        check(f"{protocol} {mode} upload", before, front.gateway.resident, sent)
        client.reset()
        sponge.allowed.set()


def test_a_client_that_asks_and_never_reads_the_answers_is_not_heard_any_more(front: Front) -> None:
    answer = b"".join(b"214-%s\r\n" % (b"x" * 8000) for _ in range(20)) + b"214 end\r\n"
    front.backends["smtp"].play(SERVERS["smtp"]({b"HELP": answer}))
    with Client(front.gateway.address("smtp", "implicit")) as client:
        client.shake_hands(front.trusting)
        client.say(WORDS["smtp"].hello + b"HELP\r\n" * 10)
        for _ in range(10):
            client.hear(rb"^214 end\r\n")
        before = front.gateway.resident
        sent = pour(client, MUCH, b"HELP\r\n" * 40_000)
        check("answers", before, front.gateway.resident, sent)
        client.reset()


@pytest.mark.parametrize(("protocol", "mode"), [("imap", "implicit"), ("pop3", "starttls")])
def test_G19_100_megabytes_reach_a_slow_reader_whole_and_in_order(front: Front, protocol: str, mode: str) -> None:
    warm_up(front, protocol, mode)
    verb, reply = LOGIN[protocol]
    flood = Flood(100_000_000, reply)
    front.backends[protocol].play(SERVERS[protocol]({verb: flood}))
    before = front.gateway.resident
    greatest = before
    digest, received = hashlib.sha256(), 0
    with enter(front, protocol, mode, receive_buffer=128 * 1024) as client:
        digest.update(client.unheard)
        received += len(client.unheard)
        for round_ in range(1, 4):
            # Slow means: the sender was stopped, and only then is something read.
            assert flood.stalled.acquire(timeout=60)
            greatest = max(greatest, front.gateway.resident)
            while received < round_ * 20_000_000:
                octets = client.receive()
                digest.update(octets)
                received += len(octets)
        while octets := client.receive():
            digest.update(octets)
            received += len(octets)
            if received % 64 == 0:
                greatest = max(greatest, front.gateway.resident)
    assert received == 100_000_000
    assert digest.digest() == flood.digest.digest()
    check(f"{protocol} {mode} slow reader", before, max(greatest, front.gateway.resident), 0)


def test_100_megabytes_reach_a_slow_backend_whole_and_in_order(front: Front) -> None:
    warm_up(front, "smtp", "implicit")
    sponge = Sponge(b"354 Go ahead\r\n", b"250 Ok\r\n", thirsty=False)
    front.backends["smtp"].play(SERVERS["smtp"]({b"DATA": sponge}))
    before = front.gateway.resident
    line = b"x" * 998 + b"\r\n"
    digest = hashlib.sha256()
    stopped = threading.Event()

    def open_the_mouth() -> None:
        stopped.wait(DEADLINE)
        sponge.allowed.set()

    mouth = threading.Thread(target=open_the_mouth, daemon=True)
    mouth.start()
    with enter(front, "smtp", "implicit") as client:
        block = line * 256
        client.socket.settimeout(PATIENCE)
        left = 400
        pending = memoryview(b"")
        while left or pending:
            if not pending:
                digest.update(block)
                pending = memoryview(client.encrypted(block))
                left -= 1
            try:
                pending = pending[client.socket.send(pending) :]
            except TimeoutError:
                assert front.gateway.resident - before < GROWTH
                stopped.set()
        client.socket.settimeout(client.patience)
        client.say(b".\r\n")
        digest.update(b".\r\n")
        client.hear(rb"^250 Ok\r\n")
    assert stopped.is_set(), "the client was never stopped"
    assert digest.digest() == sponge.digest.digest()
    check("smtp slow backend", before, front.gateway.resident, 0)
