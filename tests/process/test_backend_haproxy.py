"""HAProxy in front of the gateway: sessions and their logs go by the client's address, from listed balancers only."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from gateway.protocol.proxyprotocol import SIGNATURE
from tests.process import programs, servers
from tests.process.conftest import directory_for_servers
from tests.process.legacy import SERVERS
from tests.process.recording import Backend
from tests.process.running import DEADLINE, LIFE, Gateway, Identity, Service, running
from tests.process.secured import section
from tests.process.servers import Postfix
from tests.process.wire import Caller, Client, source, visit
from tests.process.words import WORDS

BALANCER = "127.3.0.1"
"""Where HAProxy comes from."""
PROTOCOLS = tuple(WORDS)
MODES = ("starttls", "implicit")
SAID = {"v1": "send-proxy", "v2": "send-proxy-v2", "v2-ssl": "send-proxy-v2-ssl-cn"}
SAID["v2-all"] = "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority,cert-cn,ssl-cipher"


_HAPROXY = """
defaults
  mode tcp
  timeout connect 20s
  timeout client 60s
  timeout server 60s
"""
_LISTEN = """
listen {name}
  bind fd@{descriptor}
  source {source}
  server gateway {address} {how}
"""


@dataclass(frozen=True)
class Balanced:
    """A way through the load balancer."""

    name: str
    address: tuple[str, int]
    """Where it leads."""
    how: str
    """HAProxy's options for that server: `send-proxy` or `send-proxy-v2`."""


@contextmanager
def haproxy(directory: Path, source: str, ways: Sequence[Balanced]) -> Iterator[Mapping[str, tuple[str, int]]]:
    """HAProxy, which comes from the address `source`; where it listens, by the way's name."""
    program = programs.need("haproxy", debian="haproxy")
    with ExitStack() as stack:
        # Its sockets are ours: they listen already, at ports that nobody else can have.
        sockets = {way.name: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for way in ways}
        text = _HAPROXY
        for way in ways:
            host, port = way.address
            descriptor = sockets[way.name].fileno()
            text += _LISTEN.format(
                name=way.name, descriptor=descriptor, source=source, address=f"{host}:{port}", how=way.how
            )
        file = directory / "haproxy.cfg"
        file.write_text(text)
        process = subprocess.Popen(
            ["timeout", str(LIFE), program, "-db", "-f", str(file)],
            pass_fds=[sock.fileno() for sock in sockets.values()],
            stdin=subprocess.DEVNULL,
        )
        try:
            yield {name: sock.getsockname() for name, sock in sockets.items()}
        finally:
            running = process.poll() is None
            process.terminate()
            process.wait(DEADLINE)
            assert running, f"HAProxy ended by itself, with status {process.returncode}"


@dataclass(frozen=True)
class Site:
    gateway: Gateway
    doors: Mapping[str, tuple[str, int]]
    """HAProxy's, by protocol, mode and what it says."""
    backends: Mapping[str, Backend]
    postfix: Postfix
    trusting: ssl.SSLContext

    def enter(self, client: Client, protocol: str, mode: str) -> None:
        """Logged in."""
        words = WORDS[protocol]
        if mode == "starttls":
            client.hear(words.greeting_)
            client.say(words.starttls)
            assert client.line() == words.go_ahead
        client.shake_hands(self.trusting)
        if mode == "implicit":
            client.hear(words.greeting_)
        client.say(words.hello)
        client.hear(words.hello_)
        client.say(words.login)
        client.hear(words.login_)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, identity: Identity, trusting: ssl.SSLContext) -> Iterator[Site]:
    listed = {"accept_proxy": f"{BALANCER} 2001:db8::/32"}
    with ExitStack() as stack:
        home = stack.enter_context(directory_for_servers())
        postfix = stack.enter_context(servers.postfix(home, certificate=identity.certificate))
        backends = {protocol: Backend(SERVERS[protocol](None)) for protocol in PROTOCOLS}
        for backend in backends.values():
            stack.callback(backend.close)
        options = {f"backend:{name}": section(name, backend.address) for name, backend in backends.items()}
        options["backend:postfix"] = {"address": postfix.doors.address("proxy-v2", "starttls"), "identity": "proxy-v2"}
        options["backend:postfix"] |= {"tls": "starttls", "ca": str(identity.authority)}
        services = [Service(protocol, protocol, options=listed) for protocol in PROTOCOLS]
        services.append(Service("through", "postfix", "smtp", options=listed))
        gateway = stack.enter_context(running(tmp_path_factory.mktemp("gateway"), identity, services, options))
        ways = [
            Balanced(f"{service.name}-{mode}-{said}", gateway.address(service.name, mode), how)
            for service, mode, (said, how) in product(services, MODES, SAID.items())
        ]
        doors = stack.enter_context(haproxy(tmp_path_factory.mktemp("haproxy"), BALANCER, ways))
        yield Site(gateway, doors, backends, postfix, trusting)


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_session_is_that_of_the_real_client(site: Site, protocol: str, mode: str, said: str) -> None:
    since, client = site.gateway.log.mark(), source()
    with Caller(client, site.doors[f"{protocol}-{mode}-{said}"]) as caller:
        site.enter(caller, protocol, mode)
        caller.say(WORDS[protocol].quit)
        caller.hear(WORDS[protocol].quit_)
        caller.rest()
    assert site.gateway.log.wait("session", since, client=client)["service"] == protocol
    assert site.gateway.log.wait("auth", since, client=client)["result"] == "ok"
    assert BALANCER not in "".join(str(event) for event in site.gateway.log.events("session", since))


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("mode", MODES)
def test_a_real_server_behind_both_is_told_the_real_client(site: Site, mode: str, said: str) -> None:
    client = source()
    with Caller(client, site.doors[f"through-{mode}-{said}"]) as caller:
        if mode == "starttls":
            caller.hear(rb"^220 gw\.example\.test ESMTP\r\n")
            caller.say(WORDS["smtp"].starttls)
            assert caller.line() == WORDS["smtp"].go_ahead
            caller.shake_hands(site.trusting)
            caller.unheard = b"220 gw.example.test ESMTP\r\n"
        else:
            caller.shake_hands(site.trusting)
        visit(caller, "smtp", f"{client}@example.test")
    site.postfix.log.hear(rf": client=unknown\[{client}\]")
    message = site.postfix.mailbox.take(f"{client}@example.test")
    # In the gateway's own trace field, too.
    assert message.count(b"[%s]" % client.encode("ascii")) == 2
    assert BALANCER.encode("ascii") not in message


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_H5_who_is_no_balancer_is_served_without_a_header(site: Site, protocol: str, mode: str) -> None:
    since, client = site.gateway.log.mark(), source()
    with Caller(client, site.gateway.address(protocol, mode)) as caller:
        site.enter(caller, protocol, mode)
    site.gateway.log.wait("session", since, client=client)


@pytest.mark.parametrize("header", [b"PROXY TCP4 198.51.100.66 127.0.0.1 1 25\r\n", SIGNATURE + b"\x20\0\0\0"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_H5_nobody_elses_header_is_believed(site: Site, protocol: str, header: bytes) -> None:
    since, client = site.gateway.log.mark(), source()
    with Caller(client, site.gateway.address(protocol, "implicit")) as caller:
        caller.say(header)
        assert not caller.rest().startswith((b"220", b"+OK", b"* OK"))
    assert site.gateway.log.wait("session", since, client=client)["reason"] == "tls-failed"


@pytest.mark.parametrize(
    ("said", "finish"),
    [
        (b"EHLO x\r\n", False),
        (b"\x16\x03\x01\x02\x00\x01", False),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1", True),
        (SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11), False),
        (SIGNATURE + b"\x21\x11\xff\xff", False),
        (SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12), False),
    ],
)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_H5_H6_a_balancer_without_a_good_header_is_not_served(
    site: Site, protocol: str, mode: str, said: bytes, finish: bool
) -> None:
    since = site.gateway.log.mark()
    with Caller(BALANCER, site.gateway.address(protocol, mode)) as caller:
        caller.say(said)
        if finish:
            caller.finish()
        assert caller.rest() == b""
    reason = site.gateway.log.wait("session", since, client=BALANCER)["reason"]
    assert reason == ("client-lost" if finish else "client-bad-proxy-header")


def test_H6_a_balancer_that_says_nothing_is_left_after_five_seconds(site: Site) -> None:
    since = site.gateway.log.mark()
    with ExitStack() as stack:
        callers = {
            (protocol, mode): stack.enter_context(Caller(BALANCER, site.gateway.address(protocol, mode)))
            for protocol, mode in product(PROTOCOLS, MODES)
        }
        for caller in callers.values():
            caller.say(b"PROXY ")
        for (protocol, mode), caller in callers.items():
            said = caller.rest()
            assert not re.match(WORDS[protocol].greeting_, said)
            assert mode == "starttls" or not said
    for number in range(len(callers)):
        ended = site.gateway.log.wait("session", since, number + 1, client=BALANCER, reason="client-timeout")
        assert 4.5 < float(ended["seconds"]) < 10


@pytest.mark.parametrize("header", [SIGNATURE + b"\x20\0\0\0", b"PROXY UNKNOWN\r\n"])
@pytest.mark.parametrize("mode", MODES)
def test_H6_a_health_check_is_the_balancers_own(site: Site, mode: str, header: bytes) -> None:
    since = site.gateway.log.mark()
    with Caller(BALANCER, site.gateway.address("imap", mode)) as caller:
        # Where the ClientHello follows, it follows in the same segment.
        caller.socket.send(header, socket.MSG_MORE if mode == "implicit" else 0)
        if mode == "implicit":
            caller.shake_hands(site.trusting)
        caller.hear(WORDS["imap"].greeting_)
        caller.say(WORDS["imap"].quit)
        caller.hear(WORDS["imap"].quit_)
    site.gateway.log.wait("session", since, client=BALANCER)


def test_H6_two_headers_are_one_too_many(site: Site) -> None:
    since = site.gateway.log.mark()
    header = b"PROXY TCP4 198.51.100.66 127.0.0.1 1 25\r\n"
    with Caller(BALANCER, site.gateway.address("smtp", "starttls")) as caller:
        caller.say(header + header)
        caller.hear(WORDS["smtp"].greeting_)
        assert caller.line().startswith(b"421 ")
    assert site.gateway.log.wait("session", since, client="198.51.100.66")
