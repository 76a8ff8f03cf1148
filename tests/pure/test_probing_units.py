"""What `probe` says to servers that do not speak in lines and do not greet, and what it makes of their replies."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import pytest

from gateway.dialects.chat import xmpp
from gateway.dialects.database import postgresql
from gateway.dialects.directory import messages
from gateway.protocol.vocabulary import Close, Trouble
from tests.pure import test_probing_http as web
from tests.pure import test_probing_streams as streams
from tests.pure.contract.answers import ldap as spoken
from tests.pure.contract.answers.postgresql import PASSWORD, SASL, SSL, asks, fatal, startup
from tests.pure.contract.answers.postgresql import message as packet
from tests.pure.contract.answers.xmpp import FAILURE
from tests.pure.probes import Server, play, talk

HELLO = startup(b"starttls-gateway-check", b"postgres")
INJECTED = startup(b"starttls-gateway-probe", b"postgres")
BIND = spoken.simple(2, b"cn=starttls-gateway-probe", b"none")
ENTRY = spoken.entry(1, b"", supportedSASLMechanisms=[b"PLAIN"], supportedExtension=[spoken.STARTTLS_NAME])
DONE = spoken.result(1, 0x65, 0)
SEARCH = spoken.ROOT.replace(b"\2\1\1", b"\2\1\3", 1)
"""The one that is injected."""

SERVERS = {
    "ldap": lambda: Server(
        {spoken.ROOT: ENTRY + DONE, BIND: spoken.result(2, 0x61, 13), spoken.STARTTLS: spoken.GO,
         SEARCH: spoken.result(3, 0x65, 0), spoken.UNBIND: b""}, spoken.STARTTLS),
    "postgresql": lambda: Server({HELLO: SASL, INJECTED: SASL, SSL: b"S"}, SSL),
}  # fmt: skip
STARTTLS: dict[str, Callable[[], Server]] = {**SERVERS, "xmpp": streams.server, "http": web.server}
"""All that have a go-ahead; what else is special about the last two is tested in files of their own."""
every_protocol = pytest.mark.parametrize("protocol", SERVERS)
ASKS = {"ldap": (spoken.ROOT, ENTRY + DONE), "postgresql": (HELLO, SASL)}


def server(protocol: str, answers: Mapping[bytes, bytes] | None = None) -> Server:
    made = SERVERS[protocol]()
    made.answers = {**made.answers, **(answers or {})}
    return made


@every_protocol
def test_logins_are_tried_in_the_clear(protocol: str) -> None:
    there, one = server(protocol), talk(protocol)
    assert play(one.in_the_clear(), there) == Close("quit")
    assert there.heard == {"ldap": [spoken.ROOT, BIND, spoken.UNBIND], "postgresql": [HELLO]}[protocol]
    assert one.greeted
    assert one.first == one.answer == ASKS[protocol][1]
    assert not any(attempt.taken(reply) for attempt, reply in one.tried)


@every_protocol
@pytest.mark.parametrize("inject", [False, True])
@pytest.mark.parametrize("hangs_up", [False, True])
def test_an_honest_server_says_nothing_more_than_it_is_asked(protocol: str, inject: bool, hangs_up: bool) -> None:
    there, one = server(protocol), talk(protocol)
    there.hangs_up = hangs_up
    assert play(one.secured(implicit=False, inject=inject), there) == Close("quit")
    assert (one.failure, one.behind, one.surplus) == ("", "", b"")
    assert one.inside == ASKS[protocol][1]
    assert there.heard[:2] == [there.starttls, ASKS[protocol][0]]


@every_protocol
def test_a_command_behind_starttls_that_is_run_inside_tls_is_noticed(protocol: str) -> None:
    there, one = server(protocol), talk(protocol)
    there.executes = True
    play(one.secured(implicit=False, inject=True), there)
    assert one.surplus


@pytest.mark.parametrize("protocol", STARTTLS)
def test_octets_behind_the_go_ahead_are_noticed(protocol: str) -> None:
    there, one = STARTTLS[protocol](), talk(protocol)
    there.answers = {**there.answers, there.starttls: there.answers[there.starttls] + b"x"}
    assert play(one.secured(implicit=False), there).reason == "backend-starttls-injection"
    assert one.behind == one.failure


@every_protocol
def test_tls_comes_first_on_an_implicit_port(protocol: str) -> None:
    there, one = server(protocol), talk(protocol)
    assert not one.greeted
    play(one.secured(implicit=True), there)
    assert one.greeted
    assert there.heard[0] == ASKS[protocol][0]
    there, one = server(protocol), talk(protocol)
    there.tls_fails = "wrong version number"
    assert play(one.secured(implicit=True), there).reason == "backend-tls-failed"


@pytest.mark.parametrize(("protocol", "answer"), [
    ("ldap", spoken.result(1, 0x78, 2, b"unsupported extended operation")), ("ldap", spoken.result(1, 0x61, 0)),
    ("ldap", spoken.message(1, 0x78)), ("postgresql", b"N"), ("postgresql", b"E"), ("xmpp", FAILURE), ("http", web.OK),
    ("http", b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.0\r\n\r\n"),
])  # fmt: skip
def test_a_server_that_refuses_starttls_is_left(protocol: str, answer: bytes) -> None:
    there, one = STARTTLS[protocol](), talk(protocol)
    there.answers = {**there.answers, there.starttls: answer}
    assert play(one.secured(implicit=False), there) == Close("refused")
    assert one.failure == "the server refuses it"


@pytest.mark.parametrize("answer", [b"220 mx.example.org\r\n", b"\x30\x83\x0f\0\0\2\1\1\x64\x83\1\0\0"])
def test_a_server_of_another_protocol_ends_the_talk(answer: bytes) -> None:
    for protocol in SERVERS:
        with pytest.raises(Trouble, match=r"backend-(protocol-error|line-too-long)"):
            play(talk(protocol).in_the_clear(), server(protocol, {ASKS[protocol][0]: answer}))


def test_a_bind_that_is_judged_is_taken() -> None:
    for code, taken in ((0, True), (49, True), (13, False), (8, False), (7, False), (53, False)):
        assert messages.is_judged(spoken.result(2, 0x61, code)) is taken
    assert not messages.is_judged(spoken.notice(52, b"x"))
    assert not messages.is_judged(b"\x30")
    assert not messages.is_judged(spoken.message(2, 0x61))


def test_a_reply_has_one_last_message() -> None:
    assert not messages.is_complete(spoken.ROOT, ENTRY)
    assert messages.is_complete(spoken.ROOT, ENTRY + DONE)
    assert messages.is_complete(spoken.ROOT, b"\x30\0")
    assert not postgresql.is_complete(HELLO, packet(b"N", b"SNOTICE\0\0"))
    assert postgresql.is_complete(HELLO, packet(b"N", b"SNOTICE\0\0") + PASSWORD)
    assert postgresql.is_complete(HELLO, fatal(b"28000", b"no pg_hba.conf entry"))
    assert postgresql.is_complete(SSL, b"N")
    assert not messages.is_complete(spoken.ROOT, b"\x30\x84\0\0\0\x0d\2\x84\0\0\0\1\1\x64\x84\0\0\0\0")


def test_no_reply_takes_long_to_look_at() -> None:
    """A reply has 256 KiB, and is looked at after each of its messages."""
    size, before = 256 * 1024, time.process_time()
    for complete, unit in ((messages.is_complete, ENTRY), (postgresql.is_complete, packet(b"N", bytes(20)))):
        for end in range(1, 10):
            assert not complete(b"", unit * (size // len(unit) - end))
    question = xmpp.DIALECT.question
    assert question is not None
    assert question.listed(b"<stream:stream ><![CDATA[" + b"<?xml" * (size // 5)) is None
    assert time.process_time() - before < 1


def test_answers_are_readable() -> None:
    assert postgresql.readable(b"S") == b"S"
    assert postgresql.readable(asks(10, b"SCRAM-SHA-256\0\0")) == b"Authentication: SCRAM-SHA-256"
