"""One gateway for all attacks, in front of a strict and a lenient backend of each protocol."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import pytest

from tests.process.legacy import MINDS, TASTES, Visit, playing
from tests.process.recording import Backend, Script
from tests.process.running import Event, Gateway, Identity, Service, running, wait_until
from tests.process.wire import Client
from tests.process.words import WORDS, Words


@dataclass
class Attack:
    """A gateway, the taste of the backends behind it, and the clients of one test."""

    gateway: Gateway
    backends: dict[str, Backend]
    trusting: ssl.SSLContext
    taste: str
    visits: dict[str, list[Visit]]
    since: int = 0
    clients: list[Client] = field(default_factory=list)

    def connect(self, protocol: str, mode: str = "starttls", policy: str = "required", greeted: bool = True) -> Client:
        client = Client(self.gateway.address(self.service(protocol, policy), mode))
        self.clients.append(client)
        if greeted:
            if mode == "implicit":
                client.shake_hands(self.trusting)
            client.hear(self.words(protocol).greeting_)
        return client

    def secure(self, protocol: str, mode: str = "starttls", policy: str = "required", hello: bool = True) -> Client:
        """Inside TLS, and past the first command there."""
        client, words = self.connect(protocol, mode, policy), self.words(protocol)
        if mode == "starttls":
            client.say(words.starttls)
            assert client.line() == words.go_ahead
            client.shake_hands(self.trusting)
        if hello:
            client.say(words.hello)
            client.hear(rb"^250 [^\n]*\n" if protocol == "smtp" else words.hello_)
        return client

    def enter(self, protocol: str, mode: str = "starttls") -> Client:
        """Logged in."""
        client = self.secure(protocol, mode)
        client.say(self.words(protocol).login)
        client.hear(self.words(protocol).login_)
        return client

    def service(self, protocol: str, policy: str = "required") -> str:
        return f"{protocol}-{policy}-{self.taste}"

    def words(self, protocol: str) -> Words:
        return WORDS[protocol]

    def visit(self, protocol: str, policy: str = "required") -> Visit:
        """The latest one to this backend."""
        visits = self.visits[self.service(protocol, policy)]
        wait_until(lambda: bool(visits))
        return visits[-1]

    def answered(self, client: Client, protocol: str) -> None:
        """It still lives and is in step: one question, one answer."""
        client.say(self.words(protocol).step)
        client.hear(rb"\A" + self.words(protocol).step_)

    def play(self, protocol: str, script: Script, policy: str = "required") -> None:
        """Another backend for the rest of the test."""
        self.backends[self.service(protocol, policy)].play(script)

    def wait(self, event: str, **fields: str) -> Event:
        return self.gateway.log.wait(event, self.since, 1, **fields)

    def leave(self) -> None:
        for client in self.clients:
            client.socket.close()
        if self.clients:
            self.gateway.log.wait("session", self.since, count=len(self.clients))
        for visits in self.visits.values():
            for visit in visits:
                visit.ended()


@pytest.fixture(scope="session")
def _attacked(
    tmp_path_factory: pytest.TempPathFactory, identity: Identity, trusting: ssl.SSLContext
) -> Iterator[Attack]:
    names = [f"{name}-{policy}-{taste}" for name in WORDS for policy in ("required", "optional") for taste in TASTES]
    backends = {name: Backend() for name in names}
    services = [
        Service(name, backend.address, name.split("-")[0], options={"policy": name.split("-")[1]})
        for name, backend in backends.items()
    ]
    options = {"timeouts": {"handshake": "2 s", "greeting": "2 s", "linger": "300 ms"}}
    with running(tmp_path_factory.mktemp("attacked"), identity, services, options) as gateway:
        yield Attack(gateway, backends, trusting, "", {name: [] for name in names})
    for backend in backends.values():
        backend.close()


@pytest.fixture(params=TASTES)
def attack(_attacked: Attack, request: pytest.FixtureRequest) -> Iterator[Attack]:
    """As if the gateway were fresh, once with each taste behind it."""
    for name, backend in _attacked.backends.items():
        _attacked.visits[name].clear()
        protocol, _, taste = name.split("-")
        backend.play(playing(partial(MINDS[protocol], taste), _attacked.visits[name]))
    made = replace(_attacked, taste=request.param, since=_attacked.gateway.log.mark(), clients=[])
    yield made
    made.leave()
