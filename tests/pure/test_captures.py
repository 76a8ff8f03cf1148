"""What an administrator may read of a dialogue: what is masked, and that it is bounded."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from gateway.dialects import DIALECTS
from gateway.dialects.masking import Verbs
from gateway.guard.captures import LEASE, LONGEST, MOST, OCTETS, Captures
from gateway.protocol.framing import Lines, Units
from gateway.protocol.vocabulary import Await, Close, Forward, Pass, Patience, Script, Send, Side, Trouble
from gateway.protocol.watching import Watched
from tests.pure.test_bans import Clock

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND

# --- which part of a command -----------------------------------------------------------------------


@pytest.mark.parametrize(("protocol", "command", "shown"), [
    ("smtp", b"EHLO printer", b"EHLO printer"),
    ("smtp", b"mail FROM:<a@example.org> SIZE=5", b"mail FROM:<a@example.org> SIZE=5"),
    ("smtp", b"AUTH PLAIN AGdyZXRlAGdlaGVpbQ==", b"AUTH PLAIN "),
    ("smtp", b"AUTH LOGIN", b"AUTH LOGIN"),
    ("smtp", b"AUTH =geheim= x", b"AUTH "),
    ("smtp", b"AUTH R2VoZWlt", b"AUTH "),
    ("smtp", b"AUTH R2VoZWlt x", b"AUTH "),
    ("smtp", b"PASS geheim", b""),
    ("smtp", b"R2VoZWlt", b""),
    ("smtp", b"", b""),
    ("lmtp", b"LHLO printer", b"LHLO printer"),
    ("imap", b"a CAPABILITY", b"a CAPABILITY"),
    ("imap", b"a LOGIN grete geheim", b"a LOGIN "),
    ("imap", b"a AUTHENTICATE PLAIN AGdy", b"a AUTHENTICATE PLAIN "),
    ("imap", b"geheim", b""),
    ("imap", b"a geheim", b""),
    ("pop3", b"CAPA", b"CAPA"),
    ("pop3", b"USER grete", b"USER "),
    ("pop3", b"PASS ge heim", b"PASS "),
    ("pop3", b"APOP grete 0123", b"APOP "),
    ("pop3", b"AUTH PLAIN AGdy", b"AUTH PLAIN "),
    ("managesieve", b'AUTHENTICATE "PLAIN" "AGdy"', b'AUTHENTICATE "PLAIN" '),
    ("managesieve", b'AUTHENTICATE "R2VoZWlt"', b"AUTHENTICATE "),
    ("managesieve", b'PUTSCRIPT "x" {5}', b""),
    ("imap", b"a AUTHENTICATE R2VoZWlt", b"a AUTHENTICATE "),
    ("pop3", b"AUTH R2VoZWlt", b"AUTH "),
    ("acap", b'a AUTHENTICATE "PLAIN" "AGdy"', b'a AUTHENTICATE "PLAIN" '),
    ("acap", b'a AUTHENTICATE "R2VoZWlt"', b"a AUTHENTICATE "),
    ("acap", b'"geheim"', b""),
    ("nntp", b"GROUP local.test", b"GROUP local.test"),
    ("nntp", b"authinfo pass geheim", b"authinfo pass "),
    ("nntp", b"AUTHINFO USER grete", b"AUTHINFO USER "),
    ("nntp", b"AUTHINFO SASL PLAIN AGdy", b"AUTHINFO "),
    ("nntp", b"AUTHINFO geheim", b"AUTHINFO "),
    ("nntp", b"R2VoZWlt", b""),
    ("irc", b"CAP LS 302", b"CAP LS 302"),
    ("irc", b"PASS :geheim", b"PASS "),
    ("irc", b"OPER grete geheim", b"OPER "),
    ("irc", b"WEBIRC geheim", b"WEBIRC "),
    ("irc", b"AUTHENTICATE PLAIN", b"AUTHENTICATE PLAIN"),
    ("irc", b"AUTHENTICATE R2VoZWlt", b"AUTHENTICATE "),
    ("irc", b"NICKSERV IDENTIFY geheim", b""),
    ("irc", b"@a=b PASS geheim", b""),
])  # fmt: skip
def test_no_more_is_shown_than_the_tables_name(protocol: str, command: bytes, shown: bytes) -> None:
    verbs = DIALECTS[protocol].shown
    assert verbs is not None
    assert verbs(command) == (shown, command[len(shown) :])


# --- of a dialogue ---------------------------------------------------------------------------------

COMMANDS = Lines(100, commands=True)
RESPONSES = Lines(100)
LENGTHS = Units(lambda head: head[0] if head else None, 50)


class Body:
    """Five octets."""

    def __init__(self) -> None:
        self.left = 5

    def feed(self, chunk: bytes) -> tuple[bytes, bytes | None]:
        taken, rest = chunk[: self.left], chunk[self.left :]
        self.left -= len(taken)
        return taken, None if self.left else rest


def watched(script: Script, text: bool = True) -> tuple[Watched, list[tuple[str, bytes]]]:
    told: list[tuple[str, bytes]] = []
    shown = Verbs({b"HELO"}, {b"AUTH"}) if text else None
    made = Watched(script, None, lambda who, line: told.append((who, line)), shown)
    made.start()
    return made, told


def hearing(framing: Any, patience: Patience = Patience.COMMAND) -> Script:
    try:
        while True:
            yield Await((CLIENT,), patience, framing)
            yield Send(CLIENT, b"250 a geheim of Geheimrat\r\n334 R2VoZWlt\r\n+ next\r\n+OK done\r\n")
            yield Send(BACKEND, b"to the backend\r\n")
    except Trouble:
        yield Close("over")


SAID = [("S", b"250 a <6 octets> of Geheimrat"), ("S", b"334 <8 octets>"), ("S", b"+ <4 octets>"), ("S", b"+OK done")]
HEARD = [("S", b"250 a geheim of Geheimrat"), *SAID[1:]]


@pytest.mark.parametrize(("framing", "patience", "line", "told"), [
    (COMMANDS, Patience.COMMAND, b"HELO x", [("C", b"HELO x"), *HEARD]),
    (COMMANDS, Patience.COMMAND, b"AUTH PLAIN geheim xy", [("C", b"AUTH PLAIN <9 octets>"), *SAID]),
    (COMMANDS, Patience.DATA, b"HELO geheim", [("C", b"<11 octets>"), *SAID]),
    (RESPONSES, Patience.COMMAND, b"HELO geheim", [("C", b"<11 octets>"), *SAID]),
    (COMMANDS, Patience.COMMAND, b"x" * 200, [("C", b"<a line that is too long>"), *HEARD]),
    (COMMANDS, Patience.COMMAND, b"x\0y", [("C", b"<a bad line>"), *HEARD]),
])  # fmt: skip
def test_secrets_are_masked_in_both_directions(
    framing: Lines, patience: Patience, line: bytes, told: list[tuple[str, bytes]]
) -> None:
    negotiation, found = watched(hearing(framing, patience))
    negotiation.receive(CLIENT, line + b"\r\n")
    assert found == told


@pytest.mark.parametrize(("said", "told"), [
    (b"383 R2VoZWlt", b"383 <8 octets>"),
    (b":irc.example.org AUTHENTICATE R2VoZWlt", b":irc.example.org AUTHENTICATE <8 octets>"),
    (b"AUTHENTICATE R2VoZWlt", b"AUTHENTICATE <8 octets>"),
    (b'"' + b"R2VoZWlt" * 4 + b'"', b'"<33 octets>'),
    (b'"STARTTLS"', b'"STARTTLS"'),
    (b'"SASL" "PLAIN SCRAM-SHA-1"', b'"SASL" "PLAIN SCRAM-SHA-1"'),
])  # fmt: skip
def test_challenges_are_masked(said: bytes, told: bytes) -> None:
    def script() -> Script:
        yield Send(CLIENT, said + b"\r\n")
        yield Close("over")

    assert watched(script())[1] == [("S", told)]


def test_nothing_is_text_where_the_dialect_shows_nothing() -> None:
    negotiation, found = watched(hearing(RESPONSES), text=False)
    negotiation.receive(CLIENT, b"geheim\r\n")
    negotiation.ended(CLIENT, orderly=True)
    assert found == [("C", b"<6 octets>"), ("S", b"<59 octets>")]


def test_units_are_numbers_of_octets() -> None:
    negotiation, found = watched(hearing(LENGTHS), text=False)
    negotiation.receive(CLIENT, b"\x05gehe\x09ge")
    negotiation.ended(CLIENT, orderly=False)
    assert found == [("C", b"<5 octets>"), ("S", b"<59 octets>")]


def test_content_is_a_number_of_octets_in_both_directions() -> None:
    def script() -> Script:
        yield Send(CLIENT, b"354 go ahead\r\n")
        yield Pass(CLIENT, Body())
        yield Pass(BACKEND, Body())
        yield Send(CLIENT, b"250 ok\r\n")

    negotiation, found = watched(script())
    negotiation.receive(CLIENT, b"gehe")
    negotiation.receive(CLIENT, b"im")
    negotiation.receive(BACKEND, b"geheim")
    # The rest goes on raw, in both directions.
    assert found == [
        ("S", b"354 go ahead"), ("C", b"<5 octets>"), ("S", b"<5 octets>"), ("S", b"250 ok"),
        ("C", b"<1 octets>"), ("S", b"<1 octets>"),
    ]  # fmt: skip


def test_units_that_go_through_are_content() -> None:
    def script() -> Script:
        yield Forward(LENGTHS, lambda side, head: head[:1] == b"\x01")
        yield Send(CLIENT, b"over\r\n")

    negotiation, found = watched(script())
    negotiation.receive(CLIENT, b"\x06gehei")
    negotiation.receive(BACKEND, b"\x06geheim"[:6])
    negotiation.receive(BACKEND, b"\x01")
    assert found[-1] == ("S", b"over")
    assert ("C", b"<6 octets>") in found
    assert ("S", b"<6 octets>") in found
    assert not [text for _, text in found if b"gehei" in text]


def test_a_unit_of_the_client_that_is_wanted_is_content() -> None:
    def script() -> Script:
        yield Forward(LENGTHS, lambda side, head: side is CLIENT)
        yield Send(CLIENT, b"over\r\n")

    negotiation, found = watched(script())
    negotiation.receive(CLIENT, b"\x06geheim"[:6])
    assert found == [("C", b"<6 octets>"), ("S", b"over")]


# --- who reads -------------------------------------------------------------------------------------

NETWORK = ip_network("192.0.2.0/24")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def captures(clock: Clock) -> Captures:
    return Captures(clock, lambda: 5.0)


def test_lines_of_a_client_are_for_those_who_read_them(captures: Captures) -> None:
    assert not captures
    assert not captures.wants("192.0.2.1")
    captures.add("192.0.2.1", "ab", "imap", "C", "nobody reads this")
    assert captures.read(NETWORK) == ([], 0)
    assert captures
    assert [captures.wants(client) for client in ("192.0.2.1", "192.0.3.1", "::1", "")] == [True, False, False, False]
    for client in ("192.0.2.1", "192.0.3.1", ""):
        captures.add(client, "ab", "imap", "C", f"of {client}")
    assert captures.read(NETWORK) == ([(5.0, "ab", "imap", "C", "of 192.0.2.1")], 0)
    assert captures.read(NETWORK) == ([], 0)


def test_nobody_records_for_anyone_who_does_not_ask_again(captures: Captures, clock: Clock) -> None:
    captures.read(NETWORK)
    clock.now += LEASE - 1
    captures.add("192.0.2.1", "ab", "imap", "C", "x")
    assert len(captures.read(NETWORK)[0]) == 1
    clock.now += LEASE
    assert not captures.wants("192.0.2.1")
    assert not captures


def test_what_waits_to_be_read_is_bounded(captures: Captures) -> None:
    captures.read(NETWORK)
    for _ in range(1000):
        captures.add("192.0.2.1", "ab", "imap", "C", "x" * 5000)
    rows, lost = captures.read(NETWORK)
    assert len(rows) + lost == 1000
    assert sum(len(text) for *_, text in rows) <= OCTETS
    assert {len(text) for *_, text in rows} == {LONGEST}
    assert captures.read(NETWORK) == ([], 0)


def test_so_many_can_read_at_a_time(captures: Captures) -> None:
    for number in range(MOST):
        captures.read(ip_network(f"192.0.2.{number}"))
    with pytest.raises(ValueError, match="4 captures are under way"):
        captures.read(NETWORK)
