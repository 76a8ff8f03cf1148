"""The certificate matrix: whom the gateway hands its clients to, and what becomes of them where it does not."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.memory.test_backend_tls import EXPIRED, NAME, TO_COME, Backends, Issued, address, hosts, issue
from tests.process.recording import Backend
from tests.process.running import CANARY, Gateway, Identity, Service, running
from tests.process.secured import ASKED, section, secured
from tests.process.wire import Client
from tests.process.words import WORDS

IP = address("127.0.0.1")
WAYS = ("starttls", "implicit")


@dataclass(frozen=True)
class Kind:
    """A backend's certificate, how its section speaks of it, and why it is refused; nothing if it is right."""

    make: Callable[[Backends], tuple[Issued, ...]]
    reason: str = ""
    options: Mapping[str, str] = field(default_factory=lambda: {"name": NAME})


def by_ca(*names: object, **options: object) -> Callable[[Backends], tuple[Issued, ...]]:
    return lambda backends: (issue(hosts(*names), backends.ca, **options),)  # type: ignore[arg-type]


def self_signed(_: Backends) -> tuple[Issued, ...]:
    return (issue(hosts(NAME)),)


def by_an_intermediate(backends: Backends, *, sent: bool) -> tuple[Issued, ...]:
    between = issue(None, backends.ca, ca=True, common_name="Between")
    return (issue(hosts(NAME), between), between)[: 2 if sent else 1]


PINNED = {"verify": "sha256:PIN"}
KINDS = {
    "good": Kind(by_ca(NAME)),
    "wildcard": Kind(by_ca("*.example.org")),
    "good-by-an-intermediate": Kind(lambda backends: by_an_intermediate(backends, sent=True)),
    "ip-name": Kind(by_ca(IP), options={}),
    "ip-name-given": Kind(by_ca(IP, "other.example.org"), options={"name": "127.0.0.1"}),
    "pinned": Kind(by_ca(NAME), options=PINNED),
    "pinned-self-signed": Kind(self_signed, options=PINNED),
    "pinned-expired": Kind(by_ca(valid=EXPIRED), options=PINNED),
    "not-verified": Kind(self_signed, options={"verify": "no"}),
    "wrong-name": Kind(by_ca("other.example.org"), f"certificate is for other.example.org, not {NAME}"),
    "wrong-ip-name": Kind(by_ca(address("127.0.0.2")), "certificate is for 127.0.0.2, not 127.0.0.1", {}),
    "name-for-an-ip": Kind(by_ca(NAME, "127.0.0.1"), f"certificate is for {NAME}, 127.0.0.1, not 127.0.0.1", {}),
    "no-subject-alt-name": Kind(lambda backends: (issue(None, backends.ca),), "certificate has no subjectAltName"),
    "expired": Kind(by_ca(NAME, valid=EXPIRED), f"certificate expired on {EXPIRED[1]:%Y-%m-%d}"),
    "not-yet-valid": Kind(by_ca(NAME, valid=TO_COME), f"certificate is not valid before {TO_COME[0]:%Y-%m-%d}"),
    "self-signed": Kind(self_signed, "self-signed certificate, sha256:"),
    "unknown-ca": Kind(lambda backends: (issue(hosts(NAME), backends.strange_ca),), "unknown CA"),
    "no-intermediate": Kind(lambda backends: by_an_intermediate(backends, sent=False), "unknown CA"),
    "wrong-key-usage": Kind(by_ca(NAME, usage=ExtendedKeyUsageOID.CLIENT_AUTH), "not a server certificate"),
    "small-key": Kind(
        lambda backends: (issue(hosts(NAME), backends.ca, key=rsa.generate_private_key(65537, 1024)),), "too small"
    ),
    "wrong-pin": Kind(by_ca(NAME), "pin does not match: sha256:", {"verify": "sha256:" + "0" * 64}),
    "system-cas": Kind(by_ca(NAME), "unknown CA", {"name": NAME, "ca": ""}),
}
PROTOCOLS = tuple(WORDS)


@dataclass(frozen=True)
class Matrix:
    gateway: Gateway
    backends: Mapping[str, Backend]


def _trust(kind: Kind, leaf: Issued, anchors: Path) -> dict[str, str]:
    options = {"ca": str(anchors), **kind.options} if kind.options.get("verify", "yes") == "yes" else dict(kind.options)
    return {name: value.replace("PIN", leaf.pin) for name, value in options.items() if value}


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory, identity: Identity) -> Iterator[Matrix]:
    directory = tmp_path_factory.mktemp("matrix")
    makers = Backends(directory)
    backends: dict[str, Backend] = {}
    services: list[Service] = []
    options: dict[str, dict[str, str]] = {"timeouts": {"handshake": "10 s"}}
    with ExitStack() as stack:
        for called, kind in KINDS.items():
            chain = kind.make(makers)
            context = makers.server(*chain)
            for protocol, way in product(PROTOCOLS, WAYS):
                name = f"{called}-{protocol}-{way}"
                backends[name] = Backend(secured(protocol, way, context))
                stack.callback(backends[name].close)
                trust = _trust(kind, chain[0], makers.anchors)
                options[f"backend:{name}"] = section(protocol, backends[name].address, tls=way, **trust)
                services.append(Service(name, name, protocol=protocol))
        gateway = stack.enter_context(running(directory, identity, services, options))
        yield Matrix(gateway, backends)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("called", KINDS)
def test_G16_B16_B17_only_the_right_certificates_pass(
    matrix: Matrix, trusting: ssl.SSLContext, called: str, protocol: str, way: str
) -> None:
    reason, name, words = KINDS[called].reason, f"{called}-{protocol}-{way}", WORDS[protocol]
    since = matrix.gateway.log.mark()
    with Client(matrix.gateway.address(name, "implicit")) as client:
        client.shake_hands(trusting)
        # A client that does not wait to be greeted: even so nothing of this may get there.
        client.say(words.hello + words.login)
        if not reason:
            client.hear(words.greeting_)
            client.hear(words.hello_)
            client.hear(words.login_)
            client.say(words.quit)
            client.hear(words.quit_)
        else:
            assert client.rest() == words.unavailable
    ended = matrix.gateway.log.wait("session", since, service=name)
    connection = matrix.backends[name].connection()
    connection.wait_until_ended()
    if reason:
        assert ended["reason"] == "backend-tls-failed"
        assert reason in matrix.gateway.log.wait("backend-tls-failed", since, service=name)["detail"]
        assert connection.heard == (ASKED[protocol] if way == "starttls" else b"")
        # B21: nobody comes back without TLS.
        assert matrix.backends[name].connections.empty()
    else:
        assert words.login in connection.heard
        assert not matrix.gateway.log.events("backend-tls-failed", since)
    assert CANARY not in matrix.gateway.log.text


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_G16_in_the_clear_the_client_hears_no_more_either(matrix: Matrix, protocol: str) -> None:
    with Client(matrix.gateway.address(f"expired-{protocol}-implicit", "starttls")) as client:
        assert client.rest() == WORDS[protocol].unavailable
