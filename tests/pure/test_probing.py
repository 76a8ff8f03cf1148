"""What `probe` says to servers from outside, and what it makes of their replies."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from gateway.dialects import DIALECTS
from gateway.dialects.bounds import REPLY_LINE, REPLY_LINES, REPLY_OCTETS
from gateway.dialects.talk import is_bare
from gateway.protocol.inbox import FLOOD
from gateway.protocol.vocabulary import Close, Trouble, Violation
from tests.pure.probes import play, talk

GREETINGS = {
    "smtp": b"220 mx.example.org ESMTP\r\n",
    "lmtp": b"220 mx.example.org LMTP\r\n",
    "nntp": b"200 news.example.org ready\r\n",
    "imap": b"* OK ready\r\n",
    "pop3": b"+OK ready\r\n",
    "managesieve": b'"SIEVE" "fileinto"\r\n"SASL" {0}\r\n\r\n"STARTTLS"\r\nOK "ready"\r\n',
    "acap": b"* ACAP (IMPLEMENTATION {3}\r\nold) (SASL) (STARTTLS)\r\n",
}
_MAIL = {
    b"AUTH": b"538 5.7.11 Encryption required\r\n",
    b"STARTTLS": b"220 2.0.0 Go ahead\r\n",
    b"NOOP": b"250 2.0.0 OK\r\n",
    b"QUIT": b"221 2.0.0 Bye\r\n",
}
ANSWERS: Mapping[str, Mapping[bytes, bytes]] = {
    "smtp": {b"EHLO": b"250-mx.example.org\r\n250-SIZE 1000\r\n250 STARTTLS\r\n", **_MAIL},
    "lmtp": {b"LHLO": b"250-mx.example.org\r\n250-PIPELINING\r\n250 STARTTLS\r\n", **_MAIL},
    "nntp": {
        b"CAPABILITIES": b"101 list\r\nVERSION 2\r\nSTARTTLS\r\n.\r\n",
        b"AUTHINFO": b"483 TLS first\r\n",
        b"STARTTLS": b"382 go\r\n",
        b"DATE": b"111 20261127120000\r\n",
        b"QUIT": b"205 bye\r\n",
    },
    "imap": {
        b"sgw7": b"* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\nsgw7 OK done\r\n",
        b"sgw4": b"sgw4 NO [PRIVACYREQUIRED] TLS first\r\n",
        b"sgw2": b"sgw2 OK go\r\n",
        b"sgw3": b"sgw3 OK NOOP done\r\n",
        b"sgw8": b"* BYE\r\nsgw8 OK bye\r\n",
    },
    "pop3": {
        b"CAPA": b"+OK list\r\nSTLS\r\nUIDL\r\n.\r\n",
        b"AUTH": b"-ERR TLS first\r\n",
        b"USER": b"-ERR TLS first\r\n",
        b"STLS": b"+OK go\r\n",
        b"NOOP": b"-ERR not now\r\n",
        b"QUIT": b"+OK bye\r\n",
    },
    "managesieve": {
        b"CAPABILITY": b'"SIEVE" "fileinto"\r\n"STARTTLS"\r\nOK\r\n',
        b"AUTHENTICATE": b'NO (ENCRYPT-NEEDED) "TLS first"\r\n',
        b"STARTTLS": b'OK "go"\r\n',
        b"NOOP": b'OK "done"\r\n',
        b"LOGOUT": b"OK {3}\r\nbye\r\n",
    },
    "acap": {
        b"c1": b'c1 OK "Done"\r\n',
        b"c2": b'* BYE "bye"\r\nc2 OK "Done"\r\n',
        b"c3": b'c3 OK "go"\r\n',
        b"c4": b'c4 OK "Done"\r\n',
        b"c5": b'c5 NO (ENCRYPT-NEEDED) "TLS first"\r\n',
    },
}
"""By the first word of a command."""
STARTTLS = {
    "smtp": b"STARTTLS",
    "lmtp": b"STARTTLS",
    "nntp": b"STARTTLS",
    "imap": b"sgw2",
    "pop3": b"STLS",
    "managesieve": b"STARTTLS",
    "acap": b"c3",
}
REISSUED = {
    "managesieve": b'"SIEVE" "fileinto"\r\nOK\r\n',
    "acap": b'* ACAP (IMPLEMENTATION "old") (SASL "PLAIN")\r\n',
}
"""What the server says first inside TLS after STARTTLS."""


class Server:
    """A server in memory, which hangs up behind its farewell."""

    def __init__(self, protocol: str, answers: Mapping[bytes, bytes] | None = None, greeting: bytes | None = None):
        self.greeting = GREETINGS[protocol] if greeting is None else greeting
        self.answers = {**ANSWERS[protocol], **(answers or {})}
        self.executes = False
        """What comes behind STARTTLS in the clear is answered inside TLS (CVE-2011-0411)."""
        self.tls_fails = ""
        self.heard: list[bytes] = []
        self.pending: list[bytes] = []
        self.starttls = STARTTLS[protocol]
        self.reissued = REISSUED.get(protocol, b"")
        self.hangs_up = True

    def hear(self, data: bytes) -> bytes:
        commands = data.split(b"\r\n")[:-1]
        self.heard += commands
        said = b""
        while commands:
            command = commands.pop(0)
            verb = command.split(b" ")[0]
            said += self.answers.get(command) or self.answers.get(verb, b"")
            if verb == self.starttls:
                self.pending, commands = commands, []
        return said

    def secured(self) -> bytes:
        late, self.pending = (self.pending if self.executes else []), []
        reissued = self.reissued if any(each.startswith(self.starttls) for each in self.heard) else b""
        return reissued + b"".join(self.answers[command.split(b" ")[0]] for command in late)


@pytest.mark.parametrize("protocol", GREETINGS)
def test_every_protocol_can_be_probed(protocol: str) -> None:
    dialect = DIALECTS[protocol]
    assert dialect.probing is not None
    assert dialect.question is not None
    assert dialect.probing.port not in dialect.probing.implicit
    assert b"\r\n" not in dialect.probing.starttls + dialect.probing.injected


SAID = {
    "smtp": [b"EHLO probe.example.net", b"AUTH PLAIN", b"AUTH LOGIN", b"QUIT"],
    "lmtp": [b"LHLO probe.example.net", b"AUTH PLAIN", b"AUTH LOGIN", b"QUIT"],
    "nntp": [b"CAPABILITIES", b"AUTHINFO SASL PLAIN", b"AUTHINFO USER starttls-gateway-probe", b"QUIT"],
    "imap": [b"sgw7 CAPABILITY", b"sgw4 AUTHENTICATE PLAIN", b"sgw8 LOGOUT"],
    "pop3": [b"CAPA", b"AUTH PLAIN", b"USER starttls-gateway-probe", b"QUIT"],
    "managesieve": [b"CAPABILITY", b'AUTHENTICATE "PLAIN"', b"LOGOUT"],
    "acap": [b"c1 NOOP", b'c5 AUTHENTICATE "PLAIN"', b"c2 LOGOUT"],
}


@pytest.mark.parametrize("protocol", GREETINGS)
def test_logins_are_tried_in_the_clear_and_no_secret_is_said(protocol: str) -> None:
    server, one = Server(protocol), talk(protocol)
    assert play(one.in_the_clear(), server) == Close("quit")
    assert server.heard == SAID[protocol]
    assert one.greeted
    assert not any(attempt.taken(reply) for attempt, reply in one.tried)
    assert b"STARTTLS" in one.answer or b"STLS" in one.answer


TAKEN = {
    "smtp": ({b"AUTH": b"334 \r\n", b"*": b"501 5.7.0 cancelled\r\n"}, [b"AUTH PLAIN", b"*", b"AUTH LOGIN", b"*"]),
    "lmtp": ({b"AUTH": b"334 \r\n", b"*": b"501 5.7.0 cancelled\r\n"}, [b"AUTH PLAIN", b"*", b"AUTH LOGIN", b"*"]),
    "nntp": (
        {
            b"AUTHINFO SASL PLAIN": b"383 =\r\n",
            b"AUTHINFO USER starttls-gateway-probe": b"381 go on\r\n",
            b"*": b"481 cancelled\r\n",
        },
        [b"AUTHINFO SASL PLAIN", b"*", b"AUTHINFO USER starttls-gateway-probe"],
    ),
    "imap": ({b"sgw4": b"+ \r\n", b"*": b"sgw4 BAD cancelled\r\n"}, [b"sgw4 AUTHENTICATE PLAIN", b"*"]),
    "pop3": (
        {b"AUTH": b"+ \r\n", b"*": b"-ERR cancelled\r\n", b"USER": b"+OK\r\n"},
        [b"AUTH PLAIN", b"*", b"USER starttls-gateway-probe"],
    ),
    "managesieve": (
        {b"AUTHENTICATE": b'""\r\n', b'"*"': b'NO "cancelled"\r\n'},
        [b'AUTHENTICATE "PLAIN"', b'"*"'],
    ),
    "acap": ({b"c5": b'+ ""\r\n', b"*": b'c5 BAD "cancelled"\r\n'}, [b'c5 AUTHENTICATE "PLAIN"', b"*"]),
}


@pytest.mark.parametrize("protocol", GREETINGS)
def test_a_login_that_is_taken_is_cancelled(protocol: str) -> None:
    answers, said = TAKEN[protocol]
    server, one = Server(protocol, answers), talk(protocol)
    play(one.in_the_clear(), server)
    assert server.heard[1:-1] == said
    assert all(attempt.taken(reply) for attempt, reply in one.tried)


@pytest.mark.parametrize("inject", [False, True])
@pytest.mark.parametrize("protocol", GREETINGS)
def test_an_honest_server_says_nothing_more_than_it_is_asked(protocol: str, inject: bool) -> None:
    server, one = Server(protocol), talk(protocol)
    play(one.secured(implicit=False, inject=inject), server)
    assert one.go_ahead == ANSWERS[protocol][STARTTLS[protocol]]
    assert (one.failure, one.behind, one.surplus) == ("", "", b"")
    listing = REISSUED[protocol] if protocol == "acap" else ANSWERS[protocol][SAID[protocol][0].split(b" ")[0]]
    assert one.inside == listing
    probing = DIALECTS[protocol].probing
    assert probing is not None
    assert server.heard.count(probing.injected) == inject + 2 * (probing.injected == server.heard[0])


@pytest.mark.parametrize("protocol", GREETINGS)
def test_a_command_behind_starttls_that_is_run_inside_tls_is_noticed(protocol: str) -> None:
    server, one = Server(protocol), talk(protocol)
    server.executes = True
    play(one.secured(implicit=False, inject=True), server)
    assert one.surplus


@pytest.mark.parametrize("protocol", GREETINGS)
def test_octets_behind_the_go_ahead_are_noticed_and_end_the_talk(protocol: str) -> None:
    verb = STARTTLS[protocol]
    server, one = Server(protocol, {verb: ANSWERS[protocol][verb] + b"* injected\r\n"}), talk(protocol)
    assert play(one.secured(implicit=False), server).reason == "backend-starttls-injection"
    assert "* injected" in one.behind
    assert one.failure == one.behind


@pytest.mark.parametrize("protocol", GREETINGS)
def test_tls_comes_first_on_an_implicit_port(protocol: str) -> None:
    server, one = Server(protocol), talk(protocol)
    play(one.secured(implicit=True), server)
    assert one.go_ahead is None
    assert one.greeted
    assert server.heard == [SAID[protocol][0], SAID[protocol][-1]]


REFUSED = {
    "smtp": {b"STARTTLS": b"454 4.7.0 TLS not available\r\n"},
    "lmtp": {b"STARTTLS": b"454 4.7.0 TLS not available\r\n"},
    "nntp": {b"STARTTLS": b"580 no\r\n"},
    "imap": {b"sgw2": b"sgw2 BAD unknown\r\n"},
    "pop3": {b"STLS": b"-ERR unknown\r\n"},
    "managesieve": {b"STARTTLS": b'NO "unknown"\r\n'},
    "acap": {b"c3": b'c3 BAD "unknown"\r\n'},
}


@pytest.mark.parametrize("protocol", GREETINGS)
def test_a_server_that_refuses_starttls_is_left(protocol: str) -> None:
    server, one = Server(protocol, REFUSED[protocol]), talk(protocol)
    assert play(one.secured(implicit=False), server) == Close("refused")
    assert one.failure == "the server refuses it"
    assert server.heard[-1] == SAID[protocol][-1]


def test_a_failed_handshake_is_told() -> None:
    for implicit in (False, True):
        server, one = Server("smtp"), talk("smtp")
        server.tls_fails = "alert: protocol_version"
        assert play(one.secured(implicit=implicit), server).reason == "backend-tls-failed"
        assert one.failure == "alert: protocol_version"


def test_a_server_that_does_not_hang_up_has_answered_all() -> None:
    server, one = Server("imap"), talk("imap")
    server.hangs_up = False
    assert play(one.secured(implicit=False), server) == Close("quit")
    assert one.surplus == b""


@pytest.mark.parametrize(
    ("protocol", "greeting"),
    [
        ("smtp", b"554 no\r\n"),
        ("imap", b"* PREAUTH hello\r\n"),
        ("imap", b"* BYE\r\n"),
        ("pop3", b"-ERR busy\r\n"),
        ("managesieve", b'BYE "busy"\r\n'),
        ("acap", b'* BYE "busy"\r\n'),
    ],
)
def test_a_greeting_that_does_not_welcome_ends_the_talk(protocol: str, greeting: bytes) -> None:
    server, one = Server(protocol, greeting=greeting), talk(protocol)
    with pytest.raises(Violation, match="backend-refused"):
        play(one.in_the_clear(), server)
    assert not one.greeted
    assert server.heard == []


def test_no_greeting_is_no_welcome() -> None:
    assert not talk("smtp").greeted


def test_a_greeting_may_have_many_lines() -> None:
    server, one = Server("smtp", greeting=b"220-one\r\n220-two\r\n220 three\r\n"), talk("smtp")
    play(one.in_the_clear(), server)
    assert one.greeting == server.greeting


@pytest.mark.parametrize(
    "answer",
    [b"250-x\r\n" * (REPLY_LINES + 1), b"250-" + b"x" * (REPLY_LINE + 1) + b"\r\n", b"x" * (REPLY_LINE + FLOOD)],
)
def test_a_reply_without_an_end_ends_the_talk(answer: bytes) -> None:
    with pytest.raises(Trouble, match=r"backend-(protocol-error|line-too-long|lost)"):
        play(talk("smtp").in_the_clear(), Server("smtp", {b"EHLO": answer}))


def test_a_reply_is_not_kept_without_a_bound() -> None:
    answer = (b"250-" + b"x" * 8000 + b"\r\n") * (REPLY_OCTETS // 8000 + 1)
    with pytest.raises(Violation, match=f"a reply of more than {REPLY_OCTETS} octets"):
        play(talk("smtp").in_the_clear(), Server("smtp", {b"EHLO": answer}))


def test_a_broken_reply_to_starttls_ends_the_talk() -> None:
    with pytest.raises(Violation, match="backend-line-too-long"):
        play(talk("smtp").secured(implicit=False), Server("smtp", {b"STARTTLS": b"x" * (REPLY_LINE + 1) + b"\r\n"}))


def test_a_long_line_that_should_not_come_is_noticed() -> None:
    long = b"250 " + b"x" * (REPLY_LINE + 1) + b"\r\n"
    server, one = Server("smtp", {b"QUIT": b"221 bye\r\n" + long}), talk("smtp")
    play(one.secured(implicit=False), server)
    assert one.surplus == b"(a long line)"


def test_a_masked_extension_is_recognised() -> None:
    smtp, imap = DIALECTS["smtp"].probing, DIALECTS["imap"].probing
    assert smtp is not None
    assert imap is not None
    assert smtp.masked([b"SIZE", b"XXXXXXXA"])
    assert not smtp.masked([b"SIZE", b"XCLIENT NAME", b"XXX"])
    assert not imap.masked([b"XXXXXXXA"])


def test_ways_to_log_in_that_show_the_password() -> None:
    bare = ["USER", "AUTH PLAIN", "LOGIN", "AUTHENTICATE LOGIN"]
    assert list(filter(is_bare, [*bare, "APOP", "CRAM-MD5"])) == bare
