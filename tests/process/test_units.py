"""What a real process does alike for the protocols that are not made of commands in lines: LDAP, PostgreSQL, XMPP,
MySQL and HTTP.

As `words.py` and `legacy.py` have it for the others: what is said is a row, and a scripted server plays it.
"""

from __future__ import annotations

import re
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from tests.process import programs
from tests.process.conftest import Front
from tests.process.recording import Backend, Connection, Script
from tests.process.running import DEADLINE, Gateway, Identity, Service, running
from tests.process.wire import Caller, Client, source
from tests.process.words import LINES
from tests.pure.contract.answers import http, irc, ldap, mysql, postgresql, xmpp, xmpp_server
from tests.pure.contract.form import Exchange, Shared

OK = b"\0\0\0\2\0\0\0"
DRAIN = 2
NOTHING = Exchange(b"", b"")


@dataclass(frozen=True)
class Row:
    """What client, gateway and server say."""

    unavailable: bytes
    busy: bytes
    stopped: bytes
    """What a client before TLS hears at a stop, ..."""
    stopped_inside: bytes
    """... and one inside TLS that has said nothing there."""
    starttls: Exchange
    login: tuple[Exchange, ...]
    """What a client inside TLS says up to its login's success, each with the server's answer."""
    rejected: bytes
    """The server's other answer to the last of it, ..."""
    limited: bytes
    """... and the gateway's to a client that had too many of these."""
    greeting: Exchange = NOTHING
    """Of a server that speaks first: what it says, and what a client on an implicit port gets."""
    repeats: bool = False
    """What is said for TLS is the login, too."""
    judges: bool = True
    """The server judges a login."""


def row(answers: Shared, *login: Exchange, **changes: Any) -> Row:
    """What the contract knows of this protocol."""
    return Row(
        **{
            "unavailable": answers.unavailable,
            "busy": answers.busy,
            "stopped": answers.stop_words,
            "stopped_inside": answers.stop_words,
            "starttls": answers.starttls,
            "login": login,
            "rejected": answers.rejected,
            "limited": answers.limited,
            **changes,
        }
    )


_LDAP, _POSTGRESQL, _XMPP, _SERVER, _HTTP = (module.ANSWERS for module in (ldap, postgresql, xmpp, xmpp_server, http))
ROWS: Mapping[str, Row] = {
    "ldap": row(
        _LDAP,
        Exchange(ldap.simple(2, b"cn=joe", b"secret"), ldap.result(2, 0x61, 0)),
        unavailable=ldap.OWED + ldap.DOWN,
        rejected=ldap.result(2, 0x61, 49),
    ),
    "postgresql": row(
        _POSTGRESQL,
        Exchange(postgresql.LOGIN, postgresql.PASSWORD),
        Exchange(_POSTGRESQL.credentials, _POSTGRESQL.accepted),
    ),
    "xmpp": row(_XMPP, Exchange(xmpp.HEADER, xmpp.GREETING), Exchange(xmpp.AUTH, xmpp.SUCCESS), rejected=xmpp.DENIED),
    "xmpp-server": row(
        _SERVER, Exchange(_SERVER.login, _SERVER.greeting), Exchange(_SERVER.credentials, _SERVER.accepted)
    ),
    "mysql": Row(
        unavailable=mysql.ANSWERS.unavailable,
        busy=mysql.ANSWERS.busy,
        stopped=b"",
        stopped_inside=b"",
        starttls=Exchange(mysql.SSL_REQUEST, b""),
        login=(Exchange(mysql.login(1, ssl=False), mysql.packet(2, OK)),),
        rejected=mysql.DENIED,
        limited=mysql.error(2, 1226, b"42000", b"too many failed logins, try again later"),
        greeting=Exchange(mysql.greeting(), mysql.greeting()),
    ),
    "http": row(_HTTP, Exchange(http.REQUEST, http.OK), repeats=True, judges=False),
}
JUDGED = [protocol for protocol, row in ROWS.items() if row.judges]
HOST = {"gateway": {"hostname": "gw.example.org", "drain": f"{DRAIN} s"}}


def server(row: Row) -> Backend:
    """Lets everybody in, and then says all that it hears."""

    def serve(connection: Connection) -> None:
        connection.say(row.greeting.said)
        for said, answer in row.login:
            if connection.take(len(said)) != said:
                return
            connection.say(answer)
        while octets := connection.receive():
            connection.say(octets)

    return Backend(serve)


def refusing(row: Row) -> Backend:
    """The last answer is that the password is wrong."""
    *others, (said, _) = row.login
    return server(replace(row, login=(*others, Exchange(said, row.rejected))))


def wanted(octets: bytes) -> re.Pattern[bytes]:
    """Exactly this; an XMPP stream of the gateway has an id of its own."""
    return re.compile(re.escape(octets).replace(rb"gw1\-0001", rb"[0-9a-f]+"), re.DOTALL)


def hear(client: Client, octets: bytes) -> None:
    pattern = wanted(octets)
    assert pattern.fullmatch(client.hear(pattern.pattern))


def inside(gateway: Gateway, trusting: ssl.SSLContext, protocol: str, mode: str, client: Client) -> None:
    """TLS, and the greeting if there is one."""
    row = ROWS[protocol]
    if mode == "starttls":
        if row.greeting.said:
            hear(client, mysql.greeting(ssl=True))
        client.say(row.starttls.said)
        if row.starttls.answered:
            hear(client, row.starttls.answered)
        client.shake_hands(trusting)
    else:
        client.shake_hands(trusting)
        if row.greeting.said:
            hear(client, row.greeting.answered)


def log_in(client: Client, protocol: str, mode: str) -> None:
    """MySQL counts SSLRequest, too."""
    for said, answer in ROWS[protocol].login:
        if protocol == "mysql" and mode == "starttls":
            client.say(mysql.login(2))
            hear(client, mysql.packet(3, OK))
        else:
            if not (ROWS[protocol].repeats and mode == "starttls"):
                client.say(said)
            hear(client, answer)


@pytest.fixture
def backends() -> Iterator[dict[str, Backend]]:
    found = {protocol: server(row) for protocol, row in ROWS.items()}
    yield found
    for backend in found.values():
        backend.close()


def test_G05_G06_whatever_comes_behind_a_request_for_tls_ends_the_session(
    tmp_path: Path, identity: Identity, backends: dict[str, Backend]
) -> None:
    """IRC is asked here, too: its two sides do not take turns, as those of `words.py` do."""
    behind = {protocol: (row.starttls, row.login[0].said) for protocol, row in ROWS.items()}
    behind["irc"] = irc.ANSWERS.starttls, b"NI"
    services = [Service(each, backends["mysql" if each == "mysql" else "http"].address) for each in behind]
    with running(tmp_path, identity, services, HOST) as gateway:
        for protocol, (starttls, more) in behind.items():
            since = gateway.log.mark()
            with Client(gateway.address(protocol)) as client:
                if protocol == "mysql":
                    hear(client, mysql.greeting(ssl=True))
                client.say(starttls.said + more)
                assert wanted(starttls.answered).fullmatch(client.rest())
            assert gateway.log.wait("session", since, service=protocol)["reason"] == "starttls-injection"
    assert backends["http"].connections.empty()  # only MySQL's server speaks first


@pytest.mark.parametrize("workers", ["1", "2"])
def test_clients_log_in_and_a_stop_says_goodbye(
    tmp_path: Path, identity: Identity, trusting: ssl.SSLContext, backends: dict[str, Backend], workers: str
) -> None:
    """Before TLS, inside it, and in a splice, which goes on until the drain time is over."""
    services = [Service(protocol, backend.address) for protocol, backend in backends.items()]
    options = {"gateway": {**HOST["gateway"], "workers": workers}}
    with running(tmp_path, identity, services, options) as gateway, ExitStack() as stack:

        def enter(protocol: str, mode: str) -> Client:
            return stack.enter_context(Client(gateway.address(protocol, mode)))

        waiting, spliced = [], []
        for protocol, row in ROWS.items():
            clear, secure = enter(protocol, "starttls"), enter(protocol, "implicit")
            if row.greeting.said:
                hear(clear, mysql.greeting(ssl=True))
            inside(gateway, trusting, protocol, "implicit", secure)
            waiting += [(clear, row.stopped), (secure, row.stopped_inside)]
            for mode in ("starttls", "implicit"):
                client = enter(protocol, mode)
                inside(gateway, trusting, protocol, mode, client)
                log_in(client, protocol, mode)
                spliced.append(client)
        gateway.log.wait("auth", count=2 * len(JUDGED), result="ok")
        gateway.terminate()
        for client, words in waiting:
            assert client.rest() == words
        for client in spliced:
            client.say(b"still here")
            assert client.hear(b"still here") == b"still here"
        for client in spliced:
            assert client.rest() == b""
        gateway.end(deadline=DRAIN + 5)
        reasons = [event["reason"] for event in gateway.log.events("session")]
        assert reasons == ["shutdown"] * (len(waiting) + len(spliced))


def test_who_comes_too_often_hears_so(tmp_path: Path, identity: Identity, backends: dict[str, Backend]) -> None:
    services = [Service(protocol, backend.address) for protocol, backend in backends.items()]
    with running(tmp_path, identity, services, {**HOST, "limits": {"sessions_per_client": "1"}}) as gateway:
        for protocol, row in ROWS.items():
            whence = source()
            with Caller(whence, gateway.address(protocol)), Caller(whence, gateway.address(protocol)) as second:
                assert second.rest() == row.busy
            gateway.log.wait("refused", limit="sessions-per-client", service=protocol)


def _closing(row: Row) -> Script:
    """Before its greeting, or without an answer."""

    def serve(connection: Connection) -> None:
        if not row.greeting.said:
            connection.receive()

    return serve


FAULTS: Mapping[str, Callable[[Row], Script]] = {
    "closes": _closing,
    "resets": lambda row: lambda connection: connection.reset(),
    "garbage": lambda row: lambda connection: connection.say(b"SSH-2.0-OpenSSH_9.2\r\n" * 40),
}


def test_a_server_that_cannot_be_used_is_told_of(tmp_path: Path, identity: Identity, trusting: ssl.SSLContext) -> None:
    """The client hears it in its own protocol, and the log has the reason."""
    with ExitStack() as stack:
        services = []
        for protocol, row in ROWS.items():
            services.append(Service(f"{protocol}-nobody", f"127.0.0.1:{free_port()}", protocol))
            for fault, script in FAULTS.items():
                backend = Backend(script(row))
                stack.callback(backend.close)
                services.append(Service(f"{protocol}-{fault}", backend.address, protocol))
        gateway = stack.enter_context(running(tmp_path, identity, services, HOST))
        for service in services:
            row = ROWS[service.protocol or service.name]
            with Client(gateway.address(service.name, "implicit")) as client:
                client.shake_hands(trusting)
                if not row.greeting.said:
                    client.say(row.login[0].said)
                assert client.rest() == row.unavailable, service.name
            event = "backend-bad-greeting" if service.name.endswith("garbage") else "backend-connect-failed"
            assert gateway.log.wait("session", service=service.name)["reason"] == event


@pytest.mark.parametrize("protocol", JUDGED)
def test_failed_logins_are_counted_over_sessions(
    tmp_path: Path, identity: Identity, trusting: ssl.SSLContext, protocol: str
) -> None:
    row = ROWS[protocol]
    backend = refusing(row)
    options = {**HOST, "limits": {"auth_failures_per_minute": "2"}}
    with running(tmp_path, identity, [Service(protocol, backend.address)], options) as gateway:

        def guess(whence: str) -> bytes:
            with Caller(whence, gateway.address(protocol, "implicit")) as client:
                inside(gateway, trusting, protocol, "implicit", client)
                for number, (said, answer) in enumerate(row.login):
                    client.say(said)
                    last = number == len(row.login) - 1
                    if not last:
                        found = client.hear(b"|".join(map(re.escape, (answer, row.limited))))
                        if found.endswith(row.limited):
                            return found
                return client.hear(b"|".join(map(re.escape, (row.rejected, row.limited))))

        guesser, honest = source(), source()
        heard = [guess(guesser) for _ in range(4)]
        assert heard == [row.rejected] * 2 + [row.limited] * 2
        assert guess(honest) == row.rejected
        gateway.log.wait("refused", count=2, limit="auth-failures-per-minute", client=guesser)
    backend.close()


_TRUSTING = {
    "openssl": ("s_client -verify_return_error -verify_hostname localhost -CAfile {} -connect localhost:{}",
                "Verify return code: 0 (ok)"),
    "gnutls-cli": ("--x509cafile {} -p {} localhost", "The certificate is trusted"),
}  # fmt: skip


@pytest.mark.parametrize("program", _TRUSTING)
def test_common_programs_trust_every_implicit_port(
    tmp_path: Path, identity: Identity, front: Front, backends: dict[str, Backend], program: str
) -> None:
    """Of the protocols of lines, too."""
    path = programs.need(program, debian="openssl gnutls-bin")
    words, trusted = _TRUSTING[program]
    services = [Service(protocol, backend.address) for protocol, backend in backends.items()]
    with running(tmp_path, identity, services) as gateway:
        ports = {protocol: gateway.address(protocol, "implicit")[1] for protocol in ROWS}
        ports |= {protocol: front.gateway.address(f"{protocol}-required", "implicit")[1] for protocol in LINES}
        for protocol, port in ports.items():
            command = [path, *words.format(identity.authority, port).split()]
            done = subprocess.run(command, input=b"", capture_output=True, timeout=DEADLINE)
            assert trusted in done.stdout.decode(errors="replace"), (protocol, done.stdout, done.stderr)
