"""A client that always used TLS is held to it, where the service says so."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from gateway.dialects import DIALECTS
from gateway.dialects.base import Policy
from tests.pure.contract.answers.http import REQUIRED
from tests.pure.playbook import DIAL, Playbook, close, note, terms, to_client

DATES = {"first_tls": "2023-11-14T22:13:20Z", "last_tls": "2023-11-15T22:13:20Z"}
DOWNGRADE = note("downgrade", action="refused", **DATES)
TALK = {
    "acap": (
        b'* ACAP (IMPLEMENTATION "x") (STARTTLS)\r\n',
        b'a AUTHENTICATE "PLAIN"\r\n',
        b'a NO (ENCRYPT-NEEDED) "Must issue a STARTTLS command first"\r\n',
    ),
    "smtp": (
        b"220 old ESMTP\r\n",
        b"MAIL FROM:<a@example.com>\r\n",
        b"530 5.7.0 Must issue a STARTTLS command first\r\n",
    ),
    "imap": (
        b"* OK ready\r\n",
        b"b LOGIN joe secret\r\n",
        b"b NO [PRIVACYREQUIRED] Must issue a STARTTLS command first\r\n",
    ),
    "managesieve": (
        b'"SASL" ""\r\n"STARTTLS"\r\nOK\r\n',
        b'AUTHENTICATE "PLAIN" "AGEAYg=="\r\n',
        b'NO (ENCRYPT-NEEDED) "Must issue a STARTTLS command first"\r\n',
    ),
    "lmtp": (
        b"220 old LMTP\r\n",
        b"MAIL FROM:<a@example.com>\r\n",
        b"530 5.7.0 Must issue a STARTTLS command first\r\n",
    ),
    "ftp": (b"220 ready\r\n", b"USER joe\r\n", b"530 Must issue AUTH TLS first\r\n"),
    "nntp": (b"200 ready\r\n", b"AUTHINFO USER joe\r\n", b"483 Encryption required, use STARTTLS\r\n"),
    "pop3": (b"+OK ready\r\n", b"USER joe\r\n", b"-ERR [SYS/PERM] Must issue a STLS command first\r\n"),
}


FIRST_WORDS = {
    "postgresql": (
        b"\0\0\0\x12\0\3\0\0user\0joe\0\0",
        b"E\0\0\0(SFATAL\0VFATAL\0C28000\0MTLS required\0\0",
    ),
    **dict.fromkeys(("http", "ipp"), (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", REQUIRED)),
    "irc": (
        b"NICK joe\r\n",
        b"ERROR :Closing Link: gw.example.org (TLS required: use STARTTLS, or a port with TLS)\r\n",
    ),
}
"""Of a client that speaks first, and the refusal."""


def always(client: str) -> Mapping[str, object] | None:
    return DATES if client == "192.0.2.1" else None


@pytest.mark.parametrize("protocol", TALK)
@pytest.mark.parametrize("client", ["192.0.2.1", "192.0.2.2"])
@pytest.mark.parametrize("policy", [Policy.OPTIONAL, Policy.REQUIRED])
def test_who_always_used_tls_is_refused_without_and_told_once(protocol: str, client: str, policy: Policy) -> None:
    greeting, command, refusal = TALK[protocol]
    agreed = terms(client=client, policy=policy, insists=True)
    play = Playbook(DIALECTS[protocol], agreed, always=always(client))
    play.start(DIAL).dialled().returns(greeting)
    if client == "192.0.2.2" and policy is Policy.OPTIONAL:
        play.passes(command)
        play.run()
        return
    held = client == "192.0.2.1" and policy is Policy.OPTIONAL
    play.client(command, *([DOWNGRADE] if held else []), to_client(refusal))
    play.client(command, to_client(refusal))
    play.run()
    assert [one.event for one in play.notes].count("downgrade") == held


@pytest.mark.parametrize("protocol", FIRST_WORDS)
def test_a_client_that_speaks_first_is_held_to_it_too(protocol: str) -> None:
    login, refusal = FIRST_WORDS[protocol]
    told = to_client(refusal)
    for client in ("192.0.2.1", "192.0.2.2"):
        agreed = terms(client=client, policy=Policy.OPTIONAL, insists=True)
        play = Playbook(DIALECTS[protocol], agreed, always=always(client)).start()
        if client == "192.0.2.1":
            play.client(login, DOWNGRADE, told, close("tls-required")).run()
        else:
            play.client(login, DIAL).run()


def test_a_client_of_ldap_is_held_to_it_too() -> None:
    bind = bytes.fromhex("3014 020101 600f 020103 0403") + b"joe" + bytes.fromhex("8005") + b"hello"
    refused = to_client(bytes.fromhex("3018 020101 6113 0a010d 0400 040c") + b"TLS required")
    for client in ("192.0.2.1", "192.0.2.2"):
        agreed = terms(client=client, policy=Policy.OPTIONAL, insists=True)
        play = Playbook(DIALECTS["ldap"], agreed, always=always(client)).start()
        if client == "192.0.2.1":
            play.client(bind, DOWNGRADE, refused).client(bind, refused).run()
            assert [one.event for one in play.notes].count("downgrade") == 1
        else:
            play.client(bind, DIAL).run()


def test_every_protocol_has_its_test() -> None:
    free = {name for name, dialect in DIALECTS.items() if dialect.offers != {Policy.REQUIRED}}
    assert {*TALK, *FIRST_WORDS, "ldap", "mysql"} == free  # mysql's is in test_mysql.py
