"""What the process tests share: a certificate, real servers, and a gateway in front of recording backends."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.process import servers
from tests.process.recording import Backend
from tests.process.running import Gateway, Identity, Service, running
from tests.process.servers import Dovecot, Postfix

NAMES = ("smtp", "imap", "pop3")


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
    with directory_for_servers() as directory, servers.postfix(directory, dovecot.sasl) as postfix:
        yield postfix


@dataclass(frozen=True)
class Front:
    """A gateway, and behind each of its services a backend that tests script."""

    gateway: Gateway
    backends: dict[str, Backend]


@pytest.fixture(scope="session")
def fronts(tmp_path_factory: pytest.TempPathFactory, identity: Identity) -> Iterator[dict[str, Front]]:
    """By policy; one process serves all of them, with deadlines that a test can wait for."""
    policies = ("required", "optional")
    backends = {f"{name}-{policy}": Backend() for name in NAMES for policy in policies}
    services = [
        Service(name, backend.address, protocol=name.partition("-")[0], options={"policy": name.partition("-")[2]})
        for name, backend in backends.items()
    ]
    options = {"timeouts": {"handshake": "2 s", "greeting": "2 s", "linger": "1 s"}}
    with running(tmp_path_factory.mktemp("front"), identity, services, options=options) as gateway:
        yield {name: Front(gateway, backends) for name in policies}
    for backend in backends.values():
        backend.close()
