"""Too many at once: whoever is one too many hears so, everybody else is served, and the log stays short."""

from __future__ import annotations

import itertools
import resource
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.process.legacy import SERVERS
from tests.process.recording import Backend
from tests.process.running import DEADLINE, Gateway, Identity, Service, running
from tests.process.wire import Caller, Client, Ending
from tests.process.words import LINES, WORDS

PROTOCOLS = tuple(WORDS)
BUSY = {
    "smtp": b"421 4.7.0 gw.example.test Too many connections\r\n",
    "imap": b"* BYE [UNAVAILABLE] Too many connections\r\n",
    "pop3": b"-ERR [SYS/TEMP] Too many connections\r\n",
}
HONEST = "127.8.0.1"
FLOODING = "127.8.0.2"

Limits = Mapping[str, str]
_crowd = itertools.count()


def somebody() -> str:
    """An address that nobody else has."""
    number = next(_crowd)
    return f"127.9.{number >> 8}.{number & 255}"


@pytest.fixture(scope="module", autouse=True)
def _many_descriptors() -> Iterator[None]:
    """Clients and backends of these tests are all in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def serving(
    directory: Path, identity: Identity, limits: Limits, descriptors: int | None = None, **timeouts: str
) -> Iterator[tuple[Gateway, dict[str, Backend]]]:
    backends = {protocol: Backend(SERVERS[protocol](None)) for protocol in LINES}
    services = [Service(protocol, backend.address) for protocol, backend in backends.items()]
    options = {"limits": limits, "timeouts": {"linger": "500 ms", **timeouts}}
    try:
        with running(directory, identity, services, options, descriptors=descriptors, summed=True) as gateway:
            yield gateway, backends
    finally:
        for backend in backends.values():
            backend.close()


def enter(gateway: Gateway, trusting: ssl.SSLContext, protocol: str, source: str = HONEST) -> Client:
    """Greeted, inside TLS."""
    words = LINES[protocol]
    client = Caller(source, gateway.address(protocol))
    client.hear(words.greeting_)
    client.say(words.starttls)
    assert client.line() == words.go_ahead
    client.shake_hands(trusting)
    return client


def visit(gateway: Gateway, trusting: ssl.SSLContext, protocol: str, source: str = HONEST) -> float:
    """A whole session; how many seconds it took."""
    words = WORDS[protocol]
    began = time.monotonic()
    with enter(gateway, trusting, protocol, source) as client:
        client.say(words.hello)
        client.hear(words.hello_)
        client.say(words.login)
        client.hear(words.login_)
        client.say(words.quit)
        client.hear(words.quit_)
        assert client.rest() == b""
    return time.monotonic() - began


# --- connections ---------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_K2_L4_a_flood_is_answered_politely_and_others_are_served(
    tmp_path: Path, identity: Identity, trusting: ssl.SSLContext, protocol: str
) -> None:
    with serving(tmp_path, identity, {"sessions_per_client": "5", "connects_per_minute": "30"}) as (gateway, _):
        since = gateway.log.mark()
        with ExitStack() as stack:
            inside = [stack.enter_context(Caller(FLOODING, gateway.address(protocol))) for _ in range(5)]
            for client in inside:
                client.hear(WORDS[protocol].greeting_)
            for number in range(600):
                with Caller(FLOODING, gateway.address(protocol)) as client:
                    assert client.rest() == BUSY[protocol]
                    assert client.ending is Ending.FIN
                if number % 100 == 0:
                    visit(gateway, trusting, protocol)
            with Caller(FLOODING, gateway.address(protocol, "implicit")) as client:
                assert client.rest() == b""
            # Who is inside stays there.
            inside[0].say(WORDS[protocol].starttls)
            assert inside[0].line() == WORDS[protocol].go_ahead
        gateway.log.wait("session", since, client=FLOODING)
        # A minute's worth; and who comes and goes is limited, too.
        for _ in range(600):
            with Caller(FLOODING, gateway.address(protocol)):
                pass
        visit(gateway, trusting, protocol)
        told = gateway.log.mark() - since
        limits = {event["limit"] for event in gateway.log.events("refused", since)}
    print(f"{protocol}: {told} lines, limits {limits}")
    assert 0 < told < 100
    assert limits == {"sessions-per-client", "connects-per-minute"}
    (summary,) = gateway.log.events("suppressed", since)
    assert int(summary["count"]) > 500
    assert summary["worst"] == FLOODING


def test_K2_all_together_are_too_many(tmp_path: Path, identity: Identity, trusting: ssl.SSLContext) -> None:
    with serving(tmp_path, identity, {"sessions": "9"}) as (gateway, _), ExitStack() as stack:
        inside = [
            stack.enter_context(enter(gateway, trusting, protocol, somebody()))
            for protocol in PROTOCOLS
            for _ in range(3)
        ]
        for protocol in PROTOCOLS:
            with Caller(somebody(), gateway.address(protocol)) as client:
                assert client.rest() == BUSY[protocol]
        inside.pop().reset()
        gateway.log.wait("session")
        visit(gateway, trusting, "imap", somebody())
        gateway.log.wait("refused", count=len(PROTOCOLS))
        assert {event["limit"] for event in gateway.log.events("refused")} == {"sessions"}


# --- descriptors ---------------------------------------------------------------------------------

DESCRIPTORS = 200
CONNECTS = 1000


def test_K8_with_200_descriptors_1000_connects_are_served_or_refused(
    tmp_path: Path, identity: Identity, trusting: ssl.SSLContext
) -> None:
    with serving(tmp_path, identity, {}, descriptors=DESCRIPTORS) as (gateway, _):
        lowered = gateway.log.wait("limit-lowered")
        sessions = int(lowered["value"])
        assert (lowered["limit"], sessions) == ("sessions", 68)
        since = gateway.log.mark()
        with ExitStack() as stack:
            crowd = [stack.enter_context(Caller(somebody(), gateway.address("smtp"))) for _ in range(CONNECTS)]
            first = [client.line() for client in crowd]
            served = [client for client, line in zip(crowd, first, strict=True) if line.startswith(b"220 ")]
            assert len(served) == sessions
            assert set(first) - {BUSY["smtp"]} == {b"220 legacy.example.test ESMTP\r\n"}
            for client in served:
                client.say(b"EHLO me.example.test\r\n")
                client.hear(WORDS["smtp"].hello_)
        gateway.log.wait("session", since)
        until = time.monotonic() + DEADLINE
        while True:
            with Caller(somebody(), gateway.address("smtp")) as client:
                if client.line().startswith(b"220 "):
                    break
            assert time.monotonic() < until, "it did not recover"
        for protocol in PROTOCOLS:
            visit(gateway, trusting, protocol)
        told = gateway.log.mark() - since
        print(f"{len(served)} of {CONNECTS} were served with {DESCRIPTORS} descriptors, {told} lines")
        assert told < 200
        assert gateway.log.events("descriptors-exhausted") == []


# --- guessing ------------------------------------------------------------------------------------

FAILING = {
    "smtp": ({b"AUTH": b"535 5.7.8 Bad credentials\r\n"}, b"535 5.7.8 Bad credentials\r\n"),
    "imap": ({b"LOGIN": b"TAG NO [AUTHENTICATIONFAILED] no\r\n"}, b"l NO [AUTHENTICATIONFAILED] no\r\n"),
    "pop3": ({b"PASS": b"-ERR [AUTH] no\r\n"}, b"-ERR [AUTH] no\r\n"),
    "lmtp": ({b"AUTH": b"535 5.7.8 Bad credentials\r\n"}, b"535 5.7.8 Bad credentials\r\n"),
    "managesieve": ({b"AUTHENTICATE": b'NO "no"\r\n'}, b'NO "no"\r\n'),
    "nntp": ({b"AUTHINFO": b"481 no\r\n"}, b"481 no\r\n"),
    "acap": ({b"AUTHENTICATE": b'TAG NO "no"\r\n'}, b'l NO "no"\r\n'),
}
TEMPORARY = {
    "smtp": b"454 4.7.0 Temporary authentication failure\r\n",
    "imap": b"l NO [UNAVAILABLE] Temporary authentication failure\r\n",
    "pop3": b"-ERR [SYS/TEMP] Temporary authentication failure\r\n",
    "lmtp": b"454 4.7.0 Temporary authentication failure\r\n",
    "managesieve": b'NO (TRYLATER) "Temporary authentication failure"\r\n',
    "nntp": b"403 Temporary authentication failure\r\n",
    "acap": b'l NO (TRYLATER) "Temporary authentication failure"\r\n',
}


@pytest.mark.parametrize("protocol", FAILING)
def test_E12_failed_logins_are_counted_over_sessions(
    tmp_path: Path, identity: Identity, trusting: ssl.SSLContext, protocol: str
) -> None:
    answers, failure = FAILING[protocol]
    words = LINES[protocol]

    def guess(source: str) -> bytes:
        with enter(gateway, trusting, protocol, source) as client:
            client.say(words.hello)
            client.hear(words.hello_)
            client.say(words.login)
            return client.line()

    with serving(tmp_path, identity, {"auth_failures_per_minute": "4"}) as (gateway, backends):
        backends[protocol].play(SERVERS[protocol](answers))
        heard = [guess(FLOODING) for _ in range(7)]
        assert heard == [failure] * 4 + [TEMPORARY[protocol]] * 3
        connections = [backends[protocol].connection() for _ in heard]
        asked = [words.login in connection.heard for connection in connections]
        assert asked == [True] * 4 + [False] * 3
        assert guess(HONEST) == failure
        gateway.log.wait("refused", count=3)
        told = [(event["limit"], event["client"]) for event in gateway.log.events("refused")]
        assert told == [("auth-failures-per-minute", FLOODING)] * 3
        gateway.log.wait("auth", count=5)
        assert len(gateway.log.events("auth")) == 5


# --- who does next to nothing --------------------------------------------------------------------
