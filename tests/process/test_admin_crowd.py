"""The admin listener of a gateway with 5,000 sessions: answers come in time, and no session waits for them."""

from __future__ import annotations

import http.client
import json
import resource
import selectors
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.app.control.messages import Request
from gateway.cli.steer.command import ask
from tests.process.running import DEADLINE, Gateway, Identity, Service, running

SESSIONS = 5000
ANSWER = 0.2
"""Seconds of CPU that an answer may take."""
TURN = 0.02
"""Seconds of CPU for which an answer may keep sessions waiting at a time."""
TURNS = """
import os, select, time
_epoll = select.epoll
class Told:
    began = time.thread_time()
    def __init__(self, *arguments):
        self.epoll = _epoll(*arguments)
    def __getattr__(self, name):
        return getattr(self.epoll, name)
    def poll(self, *arguments):
        if (spent := time.thread_time() - Told.began) > 0.001:
            with open("turns", "a") as file:
                print(spent, file=file)
        found = self.epoll.poll(*arguments)
        Told.began = time.thread_time()
        return found
select.epoll = Told
"""
"""Whoever looks for events has served those that it found before: tells turns of more than a millisecond."""
MEMORY = 64 * 1024 * 1024
"""Octets that readers who do not read may cost."""


def _serve(listening: socket.socket, over: threading.Event) -> None:
    """Each line is answered."""
    with selectors.DefaultSelector() as selector:
        selector.register(listening, selectors.EVENT_READ)
        while not over.is_set():
            for key, _ in selector.select(0.1):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is listening:
                    client, _ = listening.accept()
                    selector.register(client, selectors.EVENT_READ)
                    client.sendall(b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready\r\n")
                elif octets := sock.recv(4096):
                    sock.sendall(b"".join(line.split()[0] + b" OK done\r\n" for line in octets.splitlines()))
                else:
                    selector.unregister(sock)
                    sock.close()
        for key in list(selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()


@contextmanager
def backend() -> Iterator[str]:
    """A server for thousands: one thread for all."""
    over = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0), backlog=1000)
    thread = threading.Thread(target=_serve, args=(listening, over))
    thread.start()
    host, port = listening.getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        over.set()
        thread.join(DEADLINE)


@dataclass
class Crowd:
    gateway: Gateway
    place: tuple[str, int]
    directory: Path

    def longest(self, act: Callable[[], object]) -> float:
        """Seconds of CPU of the longest turn of the reactor, of those of more than a millisecond."""
        turns = self.directory / "turns"
        turns.write_text("")
        act()
        return max(map(float, turns.read_text().split()), default=0.0)

    def ask(self, path: str) -> bytes:
        connection = http.client.HTTPConnection(*self.place, timeout=DEADLINE)
        connection.request("GET", path)
        body = connection.getresponse().read()
        connection.close()
        return body

    def cost(self, act: Callable[[], object]) -> float:
        """Seconds of CPU of the gateway."""
        before = self.gateway.cpu
        act()
        return self.gateway.cpu - before


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory, identity: Identity) -> Iterator[Crowd]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    directory = tmp_path_factory.mktemp("crowd")
    options = {
        "admin": {"listen": "127.0.0.1:0"},
        "gateway": {"workers": "1", "control": str(directory / "control")},
        "timeouts": {"preauth": "10 min", "plaintext": "10 min"},
    }
    with ExitStack() as stack:
        service = Service("imap", stack.enter_context(backend()), options={"policy": "optional"})
        gateway = stack.enter_context(running(directory, identity, [service], options=options, code=TURNS))
        for _ in range(SESSIONS):
            client = stack.enter_context(socket.create_connection(gateway.address("imap"), timeout=DEADLINE))
            assert client.recv(200).startswith(b"* OK")
        host, _, port = gateway.log.wait("admin-listening")["address"].rpartition(":")
        yield Crowd(gateway, (host, int(port)), directory)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_answers_about_5000_sessions_take_little_time(crowd: Crowd) -> None:
    listed = json.loads(crowd.ask("/sessions.json"))
    assert len({one["id"] for one in listed}) == SESSIONS
    assert f'sessions{{phase="plaintext",service="imap"}} {SESSIONS}.0' in crowd.ask("/metrics").decode()
    for path in ("/", "/sessions.json"):
        costs = []
        for _ in range(3):
            _wait_for_a_new_answer()
            costs.append(crowd.cost(lambda path=path: crowd.ask(path)))  # type: ignore[misc]
        assert statistics.median(costs) < ANSWER, path


@pytest.mark.parametrize("path", ["/", "/metrics", "/sessions.json", "/report", "who", "ban"])
def test_no_answer_about_5000_sessions_keeps_a_session_waiting(crowd: Crowd, path: str) -> None:
    """The best of three: what else the machine does makes a turn longer, and never shorter."""
    control = str(crowd.directory / "control")
    acts: dict[str, Callable[[], object]] = {
        "who": lambda: ask(control, Request("who")),
        "ban": lambda: ask(control, Request("ban", "192.0.2.1")),
    }
    longest = []
    for _ in range(3):
        _wait_for_a_new_answer()
        longest.append(crowd.longest(acts.get(path, lambda: crowd.ask(path))))
    assert min(longest) < TURN


def _wait_for_a_new_answer() -> None:
    """Answers are kept for a second."""
    threading.Event().wait(1.1)


def test_a_thousand_requests_a_second_leave_sessions_their_latency(crowd: Crowd) -> None:
    """In turns, so that what else the machine does counts for both."""
    quiet, busy = [], []
    with socket.create_connection(crowd.gateway.address("imap"), timeout=DEADLINE) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.recv(200)
        for _ in range(4):
            quiet += _pings(client, 500)
            with _asking(crowd.place, 1000):
                busy += _pings(client, 500)
    assert statistics.median(busy) < statistics.median(quiet) + 0.02, "20 ms"


def _pings(client: socket.socket, number: int) -> list[float]:
    took = []
    for _ in range(number):
        begin = time.perf_counter()
        client.sendall(b"a NOOP\r\n")
        client.recv(200)
        took.append(time.perf_counter() - begin)
    return took


@contextmanager
def _asking(place: tuple[str, int], rate: int) -> Iterator[None]:
    """So many requests a second, over one connection."""
    over = threading.Event()

    def ask() -> None:
        connection = http.client.HTTPConnection(*place, timeout=DEADLINE)
        begin, asked = time.perf_counter(), 0
        while not over.is_set():
            connection.request("GET", "/" if asked % 2 else "/metrics")
            connection.getresponse().read()
            asked += 1
            over.wait(max(0.0, begin + asked / rate - time.perf_counter()))
        connection.close()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(DEADLINE)


def test_readers_who_do_not_read_cost_little_memory(crowd: Crowd) -> None:
    before = crowd.gateway.resident
    with ExitStack() as stack:
        for number in range(24):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(DEADLINE)
            sock.connect(crowd.place)
            sock.sendall(b"GET /sessions.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert sock.recv(13) == b"HTTP/1.1 200 "
            if number % 12 == 11:
                _wait_for_a_new_answer()
        assert crowd.gateway.resident - before < MEMORY
        assert crowd.ask("/healthz") == b"ok\n"
