"""TLS towards backends that cheat at it, stall in it, or have learnt it twenty years ago."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.memory.test_backend_tls import NAME, Backends, Issued, hosts, issue, with_sha1
from tests.process import programs
from tests.process.legacy import CAPABILITY, SERVERS, imap, pop3, smtp
from tests.process.recording import Backend, Connection, Script, greet
from tests.process.running import DEADLINE, Gateway, Identity, Service, running, speaking
from tests.process.secured import ASKED, GO_AHEAD, VERBS, over_tls, presenting, section, secured
from tests.process.wire import Client
from tests.process.words import WORDS

PROTOCOLS = tuple(WORDS)
WAYS = ("starttls", "implicit")

# --- B: no octet from before TLS counts, and without TLS there is nothing --------------------


class Cheat(NamedTuple):
    row: str
    protocol: str
    way: str
    script: Script
    event: str
    heard: bytes
    """All that the backend hears in the clear."""
    handshake: bool = False
    """A ClientHello comes behind it."""


def answered(protocol: str, octets: bytes, later: bytes = b"") -> Script:
    """In place of a go-ahead, and when anything comes then; nothing of that is taken for TLS."""

    def answer(connection: Connection) -> None:
        connection.say(octets)
        if later and connection.receive():
            connection.say(later)
        connection.read_on()

    return SERVERS[protocol]({VERBS[protocol]: answer})


def hasty(connection: Connection) -> None:
    """Answers what it was not asked yet."""
    connection.say(b"* OK hi\r\nsgw1 OK done\r\n")
    connection.line()
    connection.say(b"sgw1 OK really\r\n")
    connection.read_on()


INJECTIONS = {
    "smtp": [b"250-x\r\n250 AUTH LOGIN PLAIN\r\n", b"250-AUTH PLAIN\r\n250-X", b"421 go away\r\n", b"\r\n", b"\0"],
    "imap": [b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nsgw2 OK done\r\n", b"* CAPAB", b"* BYE\r\n", b"\r\n", b"\0"],
    "pop3": [b"+OK\r\nUSER\r\nSASL PLAIN\r\n.\r\n", b"+O", b"-ERR go away\r\n", b"\r\n", b"\0"],
}
TLS_FAILED, NO_REPLY = "backend-tls-failed", "backend-bad-greeting"
REFUSALS = {
    "smtp": {
        **dict.fromkeys((b"454 4.7.0 TLS not available", b"502 no", b"250 ok", b"354 go on", b"221 bye"), TLS_FAILED),
        **dict.fromkeys((b"220-a\r\n220 b",), TLS_FAILED),
        **dict.fromkeys((b"2200 go", b"go"), NO_REPLY),
    },
    "imap": {
        **dict.fromkeys((b"sgw1 NO not now", b"sgw1 BAD what", b"sgw1 OKAY go"), TLS_FAILED),
        **dict.fromkeys((b"X OK go", b"+ go"), NO_REPLY),
    },
    "pop3": dict.fromkeys((b"-ERR not now", b"+OKgo", b"+ OK"), TLS_FAILED),
}
"""What is answered in place of a go-ahead, and as what it is logged."""


def cheats(context: ssl.SSLContext) -> Iterator[Cheat]:
    for protocol in PROTOCOLS:
        asked, go_ahead = ASKED[protocol], GO_AHEAD[protocol]
        for octets in INJECTIONS[protocol]:
            script = answered(protocol, go_ahead + octets)
            yield Cheat("G15-B1-B2-B13", protocol, "starttls", script, "backend-starttls-injection", asked)
        script = answered(protocol, go_ahead, INJECTIONS[protocol][0])
        yield Cheat("B1-late", protocol, "starttls", script, TLS_FAILED, asked, handshake=True)
        for reply, event in REFUSALS[protocol].items():
            yield Cheat("G16-B5", protocol, "starttls", answered(protocol, reply + b"\r\n"), event, asked)
        yield Cheat("B14", protocol, "implicit", SERVERS[protocol](None), TLS_FAILED, b"", handshake=True)
    ehlo = b"EHLO gw.example.test\r\n"
    without = smtp({b"EHLO": b"250-legacy.example.test\r\n250 AUTH PLAIN\r\n"})
    yield Cheat("G16-B4", "smtp", "starttls", without, TLS_FAILED, ehlo)
    yield Cheat("B6", "smtp", "starttls", smtp({b"EHLO": b"502 5.5.1 What?\r\n"}), TLS_FAILED, ehlo)
    greeting = b"* OK [CAPABILITY %s] hi\r\n" % CAPABILITY.replace(b"STARTTLS ", b"")
    yield Cheat("G16-B4", "imap", "starttls", greet(greeting), TLS_FAILED, b"")
    preauth = greet(b"* PREAUTH [CAPABILITY IMAP4rev1 STARTTLS] hi\r\n")
    yield Cheat("B7", "imap", "starttls", preauth, "backend-preauth", b"")
    yield Cheat("B7", "imap", "implicit", over_tls(context, preauth), "backend-preauth", b"")
    yield Cheat("B8", "imap", "starttls", hasty, TLS_FAILED, ASKED["imap"], handshake=True)


class Trial(NamedTuple):
    """A gateway, and a service of it for each backend."""

    gateway: Gateway
    backends: Mapping[str, Backend]


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory, identity: Identity) -> Iterator[Trial]:
    backends: dict[str, Backend] = {}
    services: list[Service] = []
    options: dict[str, dict[str, str]] = {}
    ca = str(identity.authority)
    with ExitStack() as stack:
        for number, cheat in enumerate(cheats(presenting(identity.certificate))):
            name = f"cheat-{number}"
            backend = backends[name] = Backend(cheat.script)
            stack.callback(backend.close)
            options[f"backend:{name}"] = section(cheat.protocol, backend.address, tls=cheat.way, ca=ca)
            services.append(Service(name, name, cheat.protocol))
        directory = tmp_path_factory.mktemp("trial")
        yield Trial(stack.enter_context(running(directory, identity, services, options)), backends)


NAMELESS = list(enumerate(cheats(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))))


@pytest.mark.parametrize(
    ("name", "cheat"),
    [(f"cheat-{number}", cheat) for number, cheat in NAMELESS],
    ids=[f"{cheat.row}-{cheat.protocol}-{cheat.way}-{number}" for number, cheat in NAMELESS],
)
def test_without_honest_TLS_the_client_hears_no_more_than_that(
    trial: Trial, trusting: ssl.SSLContext, name: str, cheat: Cheat
) -> None:
    since, words = trial.gateway.log.mark(), WORDS[cheat.protocol]
    with Client(trial.gateway.address(name, "implicit")) as client:
        client.shake_hands(trusting)
        client.say(words.hello + words.login)
        assert client.rest() == words.unavailable
    ended = trial.gateway.log.wait("session", since, service=name)
    assert ended["reason"] == cheat.event
    assert trial.gateway.log.wait(cheat.event, since, service=name)["detail"]
    connection = trial.backends[name].connection()
    connection.wait_until_ended()
    clear, record, _ = connection.heard.partition(b"\x16\x03\x01")
    assert (clear, bool(record)) == (cheat.heard, cheat.handshake)
    assert trial.backends[name].connections.empty()


# --- B18: who stalls ----------------------------------------------------------------------


def half_a_server_hello(connection: Connection) -> None:
    connection.receive()
    connection.say(b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03")
    connection.read_on()


def stalls(protocol: str) -> Iterator[tuple[str, str, Script, str]]:
    """Way, name, script, event."""

    def silent(connection: Connection) -> None:
        connection.read_on()

    def trickling(connection: Connection) -> None:
        """An octet whenever one can be sent, and never a line: a deadline is no idle timer."""
        connection.say(b"2")
        connection.read_on()

    yield "starttls", "silent", silent, "backend-greeting-timeout"
    yield "starttls", "half-a-greeting", trickling, "backend-greeting-timeout"
    yield "starttls", "no-server-hello", answered(protocol, GO_AHEAD[protocol]), TLS_FAILED
    yield "implicit", "no-server-hello", silent, TLS_FAILED
    yield "implicit", "half-a-server-hello", half_a_server_hello, TLS_FAILED


def test_B18_backends_that_stall_are_given_up(identity: Identity, trusting: ssl.SSLContext, tmp_path: Path) -> None:
    services: list[Service] = []
    options: dict[str, dict[str, str]] = {"timeouts": {"handshake": "1 s", "greeting": "1 s"}}
    expected: dict[str, str] = {}
    with ExitStack() as stack:
        context = presenting(identity.certificate)
        for protocol in PROTOCOLS:
            quiet = over_tls(context, lambda connection: connection.read_on())
            cases = [*stalls(protocol), ("implicit", "silent-inside", quiet, "backend-greeting-timeout")]
            for way, called, script, event in cases:
                name = f"{protocol}-{way}-{called}"
                backend = Backend(script)
                stack.callback(backend.close)
                options[f"backend:{name}"] = section(protocol, backend.address, tls=way, ca=str(identity.authority))
                services.append(Service(name, name, protocol))
                expected[name] = event
        gateway = stack.enter_context(running(tmp_path, identity, services, options))
        clients = {name: stack.enter_context(Client(gateway.address(name, "implicit"))) for name in expected}
        for client in clients.values():
            client.shake_hands(trusting)
        for name, client in clients.items():
            assert client.rest() == WORDS[name.partition("-")[0]].unavailable
            assert gateway.log.wait("session", service=name)["reason"] == expected[name]


# --- what is honest ------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_B3_I16_what_a_backend_can_do_is_asked_again_inside_TLS(
    identity: Identity, trusting: ssl.SSLContext, tmp_path: Path, way: str
) -> None:
    context = presenting(identity.certificate)
    inside = {
        "smtp": smtp({b"EHLO": b"250-legacy.example.test\r\n250-STARTTLS\r\n250 DSN\r\n"}),
        "imap": imap({b"CAPABILITY": b"* CAPABILITY IMAP4rev1 NAMESPACE\r\nTAG OK done\r\n"}),
        "pop3": pop3({b"CAPA": b"+OK\r\nRESP-CODES\r\n.\r\n"}),
    }
    lists = {
        "smtp": b"250-legacy.example.test\r\n250 DSN\r\n",
        "imap": b"* CAPABILITY IMAP4rev1 NAMESPACE\r\nc OK done\r\n",
        "pop3": b"+OK\r\nRESP-CODES\r\n.\r\n",
    }
    with ExitStack() as stack:
        options: dict[str, dict[str, str]] = {}
        for protocol, script in inside.items():
            backend = Backend(secured(protocol, way, context, script))
            stack.callback(backend.close)
            options[f"backend:{protocol}"] = section(protocol, backend.address, tls=way, ca=str(identity.authority))
        services = [Service(f"{protocol}-front", protocol, protocol) for protocol in inside]
        gateway = stack.enter_context(running(tmp_path, identity, services, options))
        for protocol, words in WORDS.items():
            client = stack.enter_context(Client(gateway.address(f"{protocol}-front", "implicit")))
            client.shake_hands(trusting)
            greeting = client.line()
            if protocol == "imap" and way == "starttls":
                assert greeting == b"* OK [CAPABILITY IMAP4rev1 NAMESPACE] legacy ready\r\n"
            client.say(words.hello)
            assert client.hear(words.hello_) == lists[protocol]


def test_B22_no_connection_serves_two_clients(identity: Identity, trusting: ssl.SSLContext, tmp_path: Path) -> None:
    with ExitStack() as stack:
        backend = Backend(secured("imap", "starttls", presenting(identity.certificate)))
        stack.callback(backend.close)
        options = {"backend:b": section("imap", backend.address, tls="starttls", ca=str(identity.authority))}
        gateway = stack.enter_context(running(tmp_path, identity, [Service("imap", "b")], options))
        for number in (b"1", b"2"):
            with Client(gateway.address("imap", "implicit")) as client:
                client.shake_hands(trusting)
                client.hear(WORDS["imap"].greeting_)
                client.say(b"q%s LOGOUT\r\n" % number)
                client.rest()
            heard = backend.connection()
            heard.wait_until_ended()
            assert heard.heard.count(b"LOGOUT") == 1
            assert b"q%s LOGOUT" % number in heard.heard


# --- the museum ------------------------------------------------------------------------------------------


def old_certificate(backends: Backends) -> Issued:
    """RSA with 1024 bits, signed with SHA-1, by an issuer who is no better."""
    key = rsa.generate_private_key(65537, 1024)
    ca = issue(None, ca=True, common_name="Museum CA", key=key)
    backends.file("museum.pem", ca.pem())
    small = rsa.generate_private_key(65537, 1024)
    return with_sha1(issue(hosts(NAME), ca, key=small), key)


PROFILES = ("intermediate", "legacy")


def test_TLS_1_0_and_all_that_went_with_it_is_for_the_legacy_profile_alone(
    identity: Identity, trusting: ssl.SSLContext, tmp_path: Path
) -> None:
    museum = Backends(tmp_path)
    context = museum.server(old_certificate(museum), version=ssl.TLSVersion.TLSv1)
    options: dict[str, dict[str, str]] = {}
    services: list[Service] = []
    versions: SimpleQueue[str | None] = SimpleQueue()
    with ExitStack() as stack:
        for protocol, way, profile in product(PROTOCOLS, WAYS, PROFILES):

            def script(connection: Connection, protocol: str = protocol) -> None:
                assert isinstance(connection.socket, ssl.SSLSocket)
                versions.put(connection.socket.version())
                SERVERS[protocol](None)(connection)

            backend = Backend(secured(protocol, way, context, script))
            stack.callback(backend.close)
            name = f"{protocol}-{way}-{profile}"
            options[f"backend:{name}"] = section(
                protocol, backend.address, tls=way, name=NAME, ca=str(tmp_path / "museum.pem"), profile=profile
            )
            services.append(Service(name, name, protocol))
        gateway = stack.enter_context(running(tmp_path, identity, services, options))
        for service in services:
            words, since = WORDS[service.protocol], gateway.log.mark()
            with Client(gateway.address(service.name, "implicit")) as client:
                client.shake_hands(trusting)
                if service.name.endswith("legacy"):
                    client.hear(words.greeting_)
                    client.say(words.login)
                    client.hear(words.login_)
                    assert versions.get(timeout=DEADLINE) == "TLSv1"
                else:
                    assert client.rest() == words.unavailable
                    assert "alert" in gateway.log.wait(TLS_FAILED, since, service=service.name)["detail"]
        assert versions.empty()


def test_an_openssl_from_the_museum_is_reached(identity: Identity, trusting: ssl.SSLContext, tmp_path: Path) -> None:
    openssl = programs.need("openssl", debian="openssl")
    museum = Backends(tmp_path)
    old = old_certificate(museum)
    key = old.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = museum.file("old.pem", key + old.pem())
    command = [openssl, "s_server", "-accept", "127.0.0.1:0", "-cert", str(file), "-tls1", "-crlf"]
    with speaking([*command, "-cipher", "AES128-SHA:@SECLEVEL=0"], stdin=subprocess.PIPE) as (process, said):
        assert process.stdin is not None
        address = said.hear(r"^ACCEPT (\S+)")[1]
        options = {
            "backend:b": section(
                "imap", address, tls="implicit", name=NAME, ca=str(tmp_path / "museum.pem"), profile="legacy"
            )
        }
        with running(tmp_path, identity, [Service("imap", "b")], options) as gateway:
            with Client(gateway.address("imap", "implicit")) as client:
                client.shake_hands(trusting)
                # Whoever greets before there is a handshake would do it in the clear.
                said.hear("^CIPHER is AES128-SHA")
                process.stdin.write("* OK an old server\n")
                process.stdin.flush()
                assert client.line() == b"* OK an old server\r\n"
                client.say(b"a LOGIN grete secret\r\n")
                said.hear("^a LOGIN grete secret")
                process.stdin.write("a OK come in\n")
                process.stdin.flush()
                assert client.line() == b"a OK come in\r\n"
            assert gateway.log.wait("session")["phase"] == "relaying"
