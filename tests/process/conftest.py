"""What the process tests share: a certificate, real servers, and a gateway in front of recording backends."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.process import servers
from tests.process.legacy import SERVERS
from tests.process.recording import Backend, Script
from tests.process.running import Gateway, Identity, Service, running
from tests.process.servers import Dovecot, Postfix
from tests.process.wire import Client
from tests.process.words import LINES


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return Identity.issue(tmp_path_factory.mktemp("identity"))


@pytest.fixture(scope="session")
def trusting(identity: Identity) -> ssl.SSLContext:
    """What a careful client uses."""
    return ssl.create_default_context(cafile=str(identity.authority))


@contextmanager
def directory_for_servers() -> Iterator[Path]:
    """pytest's own directories are for their owner alone; servers run as somebody else."""
    with TemporaryDirectory(prefix="gateway-tests-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o711)
        yield directory


@pytest.fixture(scope="session")
def dovecot() -> Iterator[Dovecot]:
    with directory_for_servers() as directory, servers.dovecot(directory) as dovecot:
        yield dovecot


@pytest.fixture(scope="session")
def postfix(dovecot: Dovecot) -> Iterator[Postfix]:
    with directory_for_servers() as directory, servers.postfix(directory, sasl=dovecot.sasl) as postfix:
        yield postfix


@dataclass
class Front:
    """A gateway, behind each of its services a backend that tests script, and the clients of one test."""

    gateway: Gateway
    backends: Mapping[str, Backend]
    trusting: ssl.SSLContext
    since: int = 0
    clients: list[Client] = field(default_factory=list)

    def connect(self, service: str, mode: str = "starttls", *, greeted: bool = True) -> Client:
        """In the clear, or inside TLS on an implicit port, and past the greeting unless that is not `greeted`."""
        client = Client(self.gateway.address(service, mode))
        self.clients.append(client)
        if greeted:
            if mode == "implicit":
                client.shake_hands(self.trusting)
            client.hear(LINES[service.partition("-")[0]].greeting_)
        return client

    def secure(self, service: str, mode: str = "starttls") -> Client:
        """Inside TLS, and past the first command there."""
        words = LINES[service.partition("-")[0]]
        client = self.connect(service, mode)
        if mode == "starttls":
            client.say(words.starttls)
            assert client.line() == words.go_ahead
            client.shake_hands(self.trusting)
        client.say(words.hello)
        client.hear(words.hello_)
        return client

    def enter(self, service: str, mode: str = "starttls") -> Client:
        """Logged in."""
        client = self.secure(service, mode)
        words = LINES[service.partition("-")[0]]
        client.say(words.login)
        client.hear(words.login_)
        return client

    def wait(self, event: str, **fields: str) -> Mapping[str, str]:
        """Something that happened in this test."""
        return self.gateway.log.wait(event, self.since, 1, **fields)

    def leave(self) -> None:
        """Close what is open, and see every session end."""
        for client in self.clients:
            client.socket.close()
        if self.clients:
            self.gateway.log.wait("session", self.since, count=len(self.clients))


Serve = Callable[[Script], Backend]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Script -> a backend that plays it until the test ends."""
    with ExitStack() as stack:

        def serve(script: Script) -> Backend:
            backend = Backend(script)
            stack.callback(backend.close)
            return backend

        yield serve


@pytest.fixture
def backend(serve: Serve) -> Backend:
    """An IMAP server, for those who need no more than that."""
    return serve(SERVERS["imap"](None))


@dataclass
class Opening:
    """Opens gateways for a test, one after the other in the same directory."""

    directory: Path
    identity: Identity
    trusting: ssl.SSLContext

    @contextmanager
    def __call__(
        self, *protocols: str, options: Mapping[str, str] | None = None, **sections: Mapping[str, str]
    ) -> Iterator[Front]:
        """In front of a backend for each protocol, which ends with it.  `options`: of each service."""
        with ExitStack() as stack:
            backends = {protocol: Backend(SERVERS[protocol](None)) for protocol in protocols}
            for backend in backends.values():
                stack.callback(backend.close)
            services = [
                Service(protocol, backend.address, options=options or {}) for protocol, backend in backends.items()
            ]
            gateway = stack.enter_context(running(self.directory, self.identity, services, options=sections))
            yield Front(gateway, backends, self.trusting)


@pytest.fixture
def opened(tmp_path: Path, identity: Identity, trusting: ssl.SSLContext) -> Opening:
    return Opening(tmp_path, identity, trusting)


@pytest.fixture(scope="session")
def _front(tmp_path_factory: pytest.TempPathFactory, identity: Identity, trusting: ssl.SSLContext) -> Iterator[Front]:
    """One process for all protocols and policies, with deadlines that a test can wait for."""
    backends = {f"{name}-{policy}": Backend() for name in LINES for policy in ("required", "optional")}
    services = [
        Service(name, backend.address, protocol=name.partition("-")[0], options={"policy": name.partition("-")[2]})
        for name, backend in backends.items()
    ]
    options = {"timeouts": {"handshake": "2 s", "greeting": "2 s", "linger": "500 ms"}}
    with running(tmp_path_factory.mktemp("front"), identity, services, options=options) as gateway:
        yield Front(gateway, backends, trusting)
    for backend in backends.values():
        backend.close()


@pytest.fixture
def front(_front: Front) -> Iterator[Front]:
    """As if it were fresh: backends speak their protocols, and no session of another test is left."""
    for name, backend in _front.backends.items():
        backend.play(SERVERS[name.partition("-")[0]](None))
    front = replace(_front, since=_front.gateway.log.mark(), clients=[])
    yield front
    front.leave()
