"""A line that is too long, but has an end, is answered, and the session goes on: in every protocol (row T09)."""

from __future__ import annotations

import pytest

from gateway.dialects import DIALECTS
from gateway.dialects.base import Policy
from gateway.protocol.inbox import FLOOD
from tests.pure.playbook import DIAL, WHOLE, Playbook, close, note, terms, tls, to_backend, to_client

GREETINGS = {"smtp": b"220 x ESMTP\r\n", "imap": b"* OK x\r\n", "pop3": b"+OK x\r\n"}
STARTTLS = {
    "smtp": (b"STARTTLS\r\n", b"220 2.0.0 Ready to start TLS\r\n"),
    "imap": (b"s STARTTLS\r\n", b"s OK Begin TLS negotiation now\r\n"),
    "pop3": (b"STLS\r\n", b"+OK Begin TLS negotiation now\r\n"),
}
COMMANDS = {"smtp": b"NOOP ", "imap": b"a1 NOOP ", "pop3": b"NOOP "}
TOO_LONG = {
    "smtp": b"500 5.5.2 Line too long\r\n",
    "imap": b"a1 BAD Command too long\r\n",
    "pop3": b"-ERR Command too long\r\n",
}
LAST_WORDS = {
    "smtp": b"421 4.7.0 gw.example.org Too many errors\r\n",
    "imap": b"* BYE Too many invalid commands\r\n",
    "pop3": b"-ERR Too many invalid commands\r\n",
}
LEAVING = {
    "smtp": (b"QUIT\r\n", b"221 bye\r\n"),
    "imap": (b"z LOGOUT\r\n", b"z OK bye\r\n"),
    "pop3": (b"QUIT\r\n", b"+OK bye\r\n"),
}
FAREWELL = {"smtp": b"QUIT\r\n", "imap": b"sgw9 LOGOUT\r\n", "pop3": b"QUIT\r\n"}


def greeted(protocol: str, inside: bool, **agreed: object) -> Playbook:
    greeting = GREETINGS[protocol]
    book = Playbook(DIALECTS[protocol], terms(policy=Policy.REQUIRED, **agreed))
    book.start(DIAL).dialled().backend(greeting, to_client(greeting))
    said, told = STARTTLS[protocol]
    return book.client(said, tls(told)).secured() if inside else book


@pytest.mark.parametrize("octets", [8200, 12_289, 31_800, FLOOD])
@pytest.mark.parametrize("inside", [False, True], ids=["clear", "tls"])
@pytest.mark.parametrize("protocol", DIALECTS)
def test_T09_a_line_too_long_is_refused_and_the_next_one_heard(protocol: str, inside: bool, octets: int) -> None:
    said, told = LEAVING[protocol]
    book = greeted(protocol, inside)
    for end in (b"\r\n", b"\n"):
        line = COMMANDS[protocol] + b"x" * octets + end
        book.client(line, note("client-line-too-long"), to_client(TOO_LONG[protocol]))
    book.client(said, to_backend(said)).backend(told, to_client(told), close("quit")).run(cuts=(WHOLE, 1000))


@pytest.mark.parametrize("inside", [False, True], ids=["clear", "tls"])
@pytest.mark.parametrize("protocol", DIALECTS)
def test_T09_each_of_them_is_a_bad_command(protocol: str, inside: bool) -> None:
    line = COMMANDS[protocol] + b"x" * 9000 + b"\r\n"
    book = greeted(protocol, inside, bad_commands=3).client(line * 2, to_client(TOO_LONG[protocol] * 2))
    words = LAST_WORDS[protocol] if protocol == "smtp" else TOO_LONG[protocol] + LAST_WORDS[protocol]
    end = (to_backend(FAREWELL[protocol]), close("too-many-bad-commands"))
    book.client(line, to_client(words), *end).run(cuts=(WHOLE, 1000))
