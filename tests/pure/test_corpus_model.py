"""The models behind the corpus tests, tried on small recordings of what real servers and clients do.

`test_corpus_servers.py` and `test_corpus_clients.py` need files that are given on the command line.  These
recordings are made up, one for each kind of thing that such files hold.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import pytest

from gateway.dialects.base import Policy
from gateway.dialects.mail.imap import greeting as imap_greeting
from gateway.dialects.mail.message import Newlines
from gateway.dialects.mail.pop3 import commands, exchange, words
from gateway.dialects.mail.smtp import commands as smtp_commands
from gateway.dialects.mail.smtp import replies
from gateway.dialects.users import Claim
from gateway.protocol.vocabulary import Request
from tests.pure import test_corpus_clients as clients
from tests.pure import test_corpus_servers as servers
from tests.pure.honest import POP3Server
from tests.pure.playbook import WHOLE

Recording = Mapping[str, Any]


# --- servers -------------------------------------------------------------------------------------


def said(send: str, *reply: str, **more: object) -> Recording:
    return {"send": send, "reply": reply, **more}


def smtp(*more: Recording, **changes: object) -> Recording:
    usual = {"greeting": ["220 old"], "hello": "EHLO c.example.test", "reply": ["250-old", "250 AUTH PLAIN"]}
    return {"protocol": "smtp", **usual, "more": more, **changes}


def imap(*more: Recording, **changes: object) -> Recording:
    listed = ["* CAPABILITY IMAP4rev1 AUTH=PLAIN", "a001 OK done"]
    usual = {"greeting": ["* OK ready"], "hello": "CAPABILITY", "reply": listed}
    return {"protocol": "imap", **usual, "more": more, **changes}


def pop(*more: Recording, **changes: object) -> Recording:
    usual = {"greeting": ["+OK ready"], "hello": "CAPA", "reply": ["+OK", "USER", "SASL PLAIN EXTERNAL", "."]}
    return {"protocol": "pop3", **usual, "more": more, **changes}


IN = said("a002 LOGIN user secret", "a002 OK in")
TYPE1, TYPE3 = "TlRMTVNTUAABAAAA", "TlRMTVNTUAADAAAA"

SERVERS: dict[str, Recording] = {
    "an untagged NO behind the success of a login": imap(
        said("a002 LOGIN user secret", "a002 OK in", "* NO [ALERT] quota"), said("a003 NOOP", "a003 OK")
    ),
    "an untagged NO before it": imap(said("a002 LOGIN user secret", "* NO [ALERT] quota", "a002 OK in")),
    "an untagged NO behind a refusal": imap(said("a002 LOGIN user wrong", "a002 NO bad", "* NO go away")),
    "an untagged NO and nothing else": imap(
        said("a002 LOGIN user wrong", "* NO try later"), said("a003 NOOP", "a003 OK")
    ),
    "an untagged NO and nothing else behind the login": imap(IN, said("a003 SELECT INBOX", "* NO quota")),
    "an untagged NO by itself": imap(said("<idle>", "* NO [ALERT] quota"), IN, said("<idle>", "* NO [ALERT] quota")),
    "an IMAP server that has waited long enough": imap(said("<idle for 30 minutes>", "* BYE Autologout")),
    "IMAP words in mixed case": imap(
        said("a002 LOGIN user wrong", "a002 No bad"), said("a003 login user secret", "a003 Ok in")
    ),
    "an IMAP greeting in mixed case": imap(greeting=["* Ok ready"]),
    "an IMAP refusal in mixed case": imap(greeting=["* Bye busy"]),
    "-Err": pop(said("USER nobody", "-Err no"), said("USER user", "+OK"), said("PASS wrong", "-err no")),
    "+Ok": pop(said("USER user", "+Ok"), said("PASS secret", "+ok in"), said("STAT", "+Ok 0 0")),
    "-Err for a greeting": pop(greeting=["-Err busy"]),
    "+Ok for a greeting": pop(greeting=["+Ok ready"]),
    "-Err to CAPA": pop(reply=["-Err what"]),
    "+Ok to CAPA": pop(reply=["+Ok", "USER", "SASL PLAIN", "."]),
    "+Ok to AUTH": pop(said("AUTH", "+Ok", "PLAIN", "EXTERNAL", ".")),
    "Exchange's go-ahead": pop(
        said("AUTH NTLM", "+OK"), said(TYPE1, "+ TlRMTVNTUAACAAAA"), said(TYPE3, "+OK in"), said("STAT", "+OK 0 0")
    ),
    "Exchange's go-ahead, and a refusal": pop(said("AUTH NTLM", "+OK"), said(TYPE1, "-ERR no"), said("NOOP", "+OK")),
    "a challenge that is taken back": pop(said("AUTH PLAIN", "+ "), said("*", "-ERR cancelled"), said("NOOP", "+OK")),
    "an initial response": pop(said("AUTH PLAIN AHVzZXIAc2VjcmV0", "+OK in"), said("STAT", "+OK 0 0")),
    "no reply to a first command of POP3": pop(said("USER user", "+OK"), reply=[]),
    "no reply to USER": pop(said("USER user"), said("PASS secret", "+OK in")),
    "no reply to PASS": pop(said("USER user", "+OK"), said("PASS wrong"), said("NOOP", "+OK")),
    "no reply to QUIT of POP3": pop(said("QUIT")),
    "a list of POP3 that breaks off": pop(said("USER user", "+OK"), reply=["+OK", "STLS", "USER", "SASL EXTERNAL"]),
    "a list of mechanisms that breaks off": pop(said("AUTH", "+OK", "PLAIN", "EXTERNAL")),
    "a reply behind the login that is missing": pop(said("PASS secret", "+OK in"), said("RETR 1"), said("NOOP", "+OK")),
    "no reply to a first command of IMAP": imap(IN, reply=[]),
    "no reply to LOGIN": imap(said("a002 LOGIN user wrong"), said("a003 NOOP", "a003 OK done")),
    "no reply to LOGOUT": imap(said("a002 LOGOUT")),
    "half a reply to LOGOUT": imap(said("a002 LOGOUT", "* BYE see you")),
    "half a reply to NOOP": imap(said("a002 NOOP", "* 1 EXISTS"), said("a003 NOOP", "a003 OK")),
    "no reply to EHLO": smtp(said("MAIL FROM:<a@b.example>", "250 ok"), reply=[]),
    "no reply to MAIL": smtp(said("MAIL FROM:<a@b.example>"), said("RSET", "250 ok")),
    "half a reply to HELP": smtp(said("HELP", "214-what", "214-is there"), said("RSET", "250 ok")),
    "no reply to QUIT of SMTP": smtp(said("QUIT")),
    "no reply to AUTH": smtp(said("AUTH PLAIN AHVzZXIAc2VjcmV0"), said("NOOP", "250 ok")),
    "no reply to a response": smtp(said("AUTH PLAIN", "334 "), said("AHVzZXIAc2VjcmV0"), said("NOOP", "250 ok")),
    "an SMTP server that has waited long enough": smtp(said("<idle>", "421 timeout"), said("NOOP", "250 ok")),
    "an SMTP server that says what nobody asked": smtp(said("<idle>", "250 still here"), said("NOOP", "250 ok")),
    "... and has refused its client": smtp(said("<idle>", "421 gone"), greeting=["554 no"], hello="", reply=[]),
    "... and says that, too": smtp(said("<idle>", "250 still here"), greeting=["554 no"], hello="", reply=[]),
    "a POP3 server that has waited long enough": pop(said("<no command: timed out>", "-ERR autologout")),
    "... in a dialogue": pop(said("AUTH PLAIN", "+ "), said("<timeout>", "-ERR too slow"), said("NOOP", "+OK")),
    "a POP3 server that says +OK by itself": pop(said("<waits>", "+OK still here"), said("NOOP", "+OK")),
    "silence without a word": smtp(said("<idle>"), said("<connection dropped>"), said("NOOP", "250 ok")),
    "events that nobody can play": imap(said("<literal of 1 GB>", "* BAD no"), said("<TLS handshake>"), IN),
    "a message": smtp(
        said("MAIL FROM:<a@b.example>", "250 ok"), said("RCPT TO:<b@b.example>", "250 ok"),
        said("DATA", "354 go on"), said("<message>", "250-2.0.0 id=1", "250 2.0.0 queued"), said("NOOP", "250 ok"),
    ),
    "a message that is refused": smtp(
        said("DATA", "354 go on"), said("<end of data>", "554 no"), said("NOOP", "250 ok")
    ),
    "a second EHLO that is refused": smtp(
        said("EHLO c.example.test", "503 Already identified"), said("NOOP", "250 ok")
    ),
    "a second HELO that is refused": smtp(
        said("HELO c.example.test", "250 old"), said("HELO c.example.test", "503 again"), said("NOOP", "250 ok"),
        reply=["502 what"],
    ),
}  # fmt: skip


def performance(recording: Recording, phase: str = servers.AFTER_STARTTLS) -> servers.Performance:
    return servers.Performance(recording, Policy.REQUIRED, phase, WHOLE, Newlines.NORMALIZE)


@pytest.mark.parametrize("name", SERVERS)
def test_T24_the_model_of_a_session_knows_what_real_servers_do(name: str) -> None:
    servers.test_what_an_old_server_says_is_relayed_with_the_right_edits(SERVERS[name])


def test_T24_an_exchange_without_reply_is_played_once_and_then_left_out() -> None:
    recording = SERVERS["no reply to MAIL"]
    first = performance(recording)
    assert first.play(set()) == 0
    assert first.rig.transcript[-2:] == [
        "  Abort(side=<Side.BACKEND: 'backend'>)",
        "  Close(reason='backend-lost', detail='')",
    ]
    second = performance(recording)
    assert second.play({0}) is None
    assert not any("MAIL" in line for line in second.rig.transcript)
    assert "C> b'RSET\\r\\n'" in second.rig.transcript


@pytest.mark.parametrize("name", SERVERS)
def test_T24_no_event_is_said(name: str) -> None:
    played = performance(SERVERS[name])
    played.play(set())
    assert not any(line.startswith("C> b'<") for line in played.rig.transcript)


def test_T24_what_a_silent_client_hears_is_played() -> None:
    played = performance(SERVERS["an SMTP server that has waited long enough"])
    assert played.play(set()) == 0
    assert "b> b'421 timeout\\r\\n'" in played.rig.transcript


def test_T24_the_verdict_of_the_recording_is_played() -> None:
    played = performance(SERVERS["a message that is refused"])
    assert played.play(set()) is None
    assert "b> b'554 no\\r\\n'" in played.rig.transcript


def test_T24_exchanges_go_ahead_is_played_to_the_end() -> None:
    played = performance(SERVERS["Exchange's go-ahead"])
    assert played.play(set()) is None
    assert played.rig.spliced
    assert f"C> b'{TYPE3}\\r\\n'" in played.rig.transcript


def hasty(self: commands.POP3, line: bytes, claim: Claim) -> Generator[Request, Any, bool]:
    """+OK is a success, whoever has said nothing."""
    status, reply = yield from self._ask(line)
    return (yield from self._verdict(status, reply, claim.mechanism))


@pytest.mark.parametrize(
    ("name", "owner", "attribute", "wrong"),
    [
        ("-Err", words.Status, "of", staticmethod(lambda line: words.Status(line.split()[0].decode()))),
        ("no reply to PASS", exchange.Exchange, "lost_words", b"-ERR lost\r\n"),
        ("a list of POP3 that breaks off", commands, "edit_capabilities", lambda lines, stage: lines),
        ("Exchange's go-ahead", commands.POP3, "_exchange", hasty),
        ("no reply to LOGIN", imap_greeting, "LOST", b"lost"),
        ("an untagged NO by itself", imap_greeting, "edit_line", lambda line, stage: line.upper()),
        ("no reply to MAIL", smtp_commands.SMTP, "goodbye", lambda self, trouble: b""),
        ("an SMTP server that says what nobody asked", smtp_commands.SMTP, "goodbye", lambda self, trouble: b"250\r\n"),
        ("a message that is refused", replies.Reply, "octets", b"250 ok\r\n"),
    ],
)  # fmt: skip
def test_T24_a_gateway_that_gets_it_wrong_is_found_out(
    monkeypatch: pytest.MonkeyPatch, name: str, owner: object, attribute: str, wrong: object
) -> None:
    """A model that took everything for right would be none."""
    monkeypatch.setattr(owner, attribute, wrong)
    with pytest.raises((AssertionError, ValueError)):
        servers.test_what_an_old_server_says_is_relayed_with_the_right_edits(SERVERS[name])


# --- clients -------------------------------------------------------------------------------------


def send(octets: str) -> clients.Step:
    return {"send": octets}


def waits(*wanted: str) -> list[clients.Step]:
    return [{"expect": each} for each in wanted]


TLS: clients.Step = {"tls": True}
GOES: clients.Step = {"close": "abrupt", "tcp": "fin"}


def client(protocol: str, *steps: clients.Step | Sequence[clients.Step], scenario: str = "required") -> Recording:
    flat: list[clients.Step] = []
    for step in steps:
        flat += [step] if isinstance(step, Mapping) else list(step)
    return {
        "client": "x",
        "version": "1",
        "protocol": protocol,
        "mode": "implicit",
        "scenario": scenario,
        "steps": flat,
    }


def enters(protocol: str, *steps: clients.Step | Sequence[clients.Step], scenario: str = "implicit") -> Recording:
    """On an implicit port."""
    hello = {"smtp": "^220", "imap": r"^\* OK", "pop3": r"^\+O[Kk]"}[protocol]
    return client(protocol, TLS, waits(hello), *steps, scenario=scenario)


OK = waits(r"^\+OK")
LEAVES = [send(r"QUIT\r\n"), *OK, GOES]
MAIL = [
    send(r"EHLO c\r\n"), *waits("^250 "), send(r"MAIL FROM:<a@b.example>\r\n"), *waits("^250 "),
    send(r"RCPT TO:<b@b.example>\r\n"), *waits("^250 "),
]  # fmt: skip
MESSAGE = [send(r"Subject: x\r\n\r\n"), send("<b>"), send(r"bold\r\n.\r\n"), *waits("^250 ")]

CLIENTS: dict[str, Recording] = {
    "an untagged NO behind the login": enters(
        "imap", send(r"a LOGIN user secret\r\n"), waits(r"^\* NO", "^a OK", r"^\* NO"),
        send(r"b NOOP\r\n"), waits("^b OK"), GOES, scenario="alert",
    ),
    "a server with mixed case": enters(
        "pop3", send(r"USER user\r\n"), waits(r"^\+Ok"), send(r"PASS wrong\r\n"), waits("^-Err"),
        send(r"USER user\r\n"), waits(r"^\+Ok"), send(r"PASS secret\r\n"), waits(r"^\+Ok"), GOES, scenario="mixedcase",
    ),
    "a name and a password in one segment": enters("pop3", send(r"USER user\r\nPASS secret\r\n"), OK, OK, GOES),
    "... that are refused": enters(
        "pop3", send(r"USER user\r\nPASS wrong\r\n"), OK, waits("^-ERR"), GOES, scenario="authfail"
    ),
    "... with one reply missing": enters("pop3", send(r"USER user\r\n"), send(r"PASS secret\r\n"), OK, LEAVES),
    "... with both missing": enters("pop3", send(r"USER user\r\n"), send(r"PASS secret\r\n"), GOES),
    "a command before the login whose reply is missing": enters(
        "imap", send(r"a NOOP\r\n"), send(r"b LOGIN user secret\r\n"), waits("^b OK"), GOES
    ),
    "a login whose reply is missing": enters("imap", send(r"a LOGIN user secret\r\n"), GOES),
    "a list of mechanisms": enters("pop3", send(r"AUTH\r\n"), waits(r"^\.$"), LEAVES),
    "APOP": enters("pop3", send(r"APOP user 0123\r\n"), OK, LEAVES),
    "APOP that is refused": enters(
        "pop3", send(r"APOP user 0123\r\n"), waits("^-ERR"), LEAVES, scenario="authfail"
    ),
    "a client that is silent": enters(
        "imap", send("<idle for 29 minutes>"), waits(r"^\* OK Still here"), send(r"a LOGIN user secret\r\n"),
        waits("^a OK"), send("<waits>"), GOES,
    ),
    "a message": enters("smtp", MAIL, send(r"DATA\r\n"), waits("^354"), MESSAGE, GOES),
    "a message without its go-ahead": enters("smtp", MAIL, send(r"DATA\r\n"), MESSAGE, GOES),
    "an authentication without its reply": enters(
        "smtp", send(r"EHLO c\r\n"), waits("^250 "), send(r"AUTH PLAIN AHUAcA==\r\n"), GOES
    ),
    "... before another command": enters(
        "smtp", send(r"EHLO c\r\n"), waits("^250 "), send(r"AUTH PLAIN AHUAcA==\r\n"), send(r"NOOP\r\n"),
        waits("^250 "), GOES,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLIENTS)
def test_T24_the_model_of_an_honest_server_knows_what_real_clients_do(name: str) -> None:
    recording = CLIENTS[name]
    clients.test_a_real_client_gets_where_an_honest_server_would_have_got_it(recording, [recording])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("an untagged NO behind the login", True),
        ("a name and a password in one segment", True),
        ("... that are refused", False),
        ("... with one reply missing", True),
        ("... with both missing", None),
        ("a command before the login whose reply is missing", True),
        ("a login whose reply is missing", None),
        ("a list of mechanisms", False),
        ("APOP that is refused", False),
    ],
)
def test_T24_what_a_recording_tells_of_a_login(name: str, told: bool | None) -> None:
    assert clients.was_told_of_its_login(CLIENTS[name]["steps"]) is told


@pytest.mark.parametrize(
    ("name", "told"),
    [("an authentication without its reply", None), ("... before another command", None), ("a message", False)],
)
def test_T24_what_a_recording_tells_of_an_authentication(name: str, told: bool | None) -> None:
    assert clients.was_told_of_its_authentication(CLIENTS[name]["steps"]) is told


def test_T24_events_are_left_out_with_what_the_client_waited_for_and_nothing_else_is() -> None:
    kept = clients.without_events(CLIENTS["a client that is silent"]["steps"])
    assert [step.get("send") or step.get("expect") for step in kept] == [
        None, r"^\* OK", r"a LOGIN user secret\r\n", "^a OK", None,
    ]  # fmt: skip
    message = CLIENTS["a message"]["steps"]
    assert clients.without_events(message) == message


def test_T24_a_success_that_is_made_up_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client waits for a refusal; the server lets it in."""
    monkeypatch.setattr(POP3Server, "refuses_logins", False)
    for name in ("... that are refused", "APOP that is refused"):
        with pytest.raises(AssertionError):
            clients.test_a_real_client_gets_where_an_honest_server_would_have_got_it(CLIENTS[name], [])
