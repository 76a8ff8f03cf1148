"""Attacks D of docs/conformance.md: SMTP's frames, in front of backends that end messages where they like."""

from __future__ import annotations

import pytest

from tests.process.attacks.conftest import Attack
from tests.process.legacy import smtp
from tests.process.recording import Connection
from tests.process.wire import Client

ENVELOPE = b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\n"
EVIL = b"MAIL FROM:<smuggled@x>\r\nRCPT TO:<v@y>\r\nDATA\r\nsmuggled\r\n"
ENDS_THAT_ARE_NONE = [
    *(b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\n", b"\n.\r", b"\r\n.\r", b"\r.\r\n", b"\r\n.\r\r\n"),
    *(b"\r\r\n.\r\r\n", b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n..\r\n", b"\n\n.\n\n", b"\r\n. \r\n", b"\r\n\t.\r\n"),
]


def in_data(attack: Attack) -> Client:
    client = attack.secure("smtp")
    client.say(ENVELOPE + b"DATA\r\n")
    client.hear(rb"^250 [^\n]*\n250 [^\n]*\n354 [^\n]*\n")
    return client


def one_message(attack: Attack) -> bytes:
    """The only one that its backend saw, without our trace field."""
    visit = attack.visit("smtp")
    assert len(visit.messages) == 1, visit.messages
    assert visit.heard.count(b"\r\n.\r\n") == 1
    assert [line for line in visit.commands if b"smuggled" in line] == []
    lines = visit.messages[0].splitlines(keepends=True)
    assert lines[0].startswith(b"Received: ")
    first = next(at for at, line in enumerate(lines) if at and not line.startswith(b"\t"))
    return b"".join(lines[first:])


@pytest.mark.parametrize("segments", ["one", "single octets"])
@pytest.mark.parametrize("end", ENDS_THAT_ARE_NONE, ids=repr)
def test_D1_what_ends_a_message_only_for_some_ends_it_for_nobody(attack: Attack, end: bytes, segments: str) -> None:
    client = in_data(attack)
    body = b"Subject: x\r\n\r\nhello" + end + EVIL + b".\r\n"
    if segments == "one":
        client.say(body)
    else:
        client.say_in_the_clear(b"".join(client.encrypted(bytes([octet])) for octet in body))
    client.hear(rb"\A250 [^\n]*\n")
    attack.answered(client, "smtp")
    assert b"smuggled" in one_message(attack)


def test_D1_an_empty_message_ends_at_its_first_line(attack: Attack) -> None:
    client = in_data(attack)
    client.say(b".\r\n")
    client.hear(rb"\A250 [^\n]*\n")
    attack.answered(client, "smtp")


@pytest.mark.parametrize(
    "line",
    [
        *(b"NOOP\rXCLIENT ADDR=10.0.0.1 LOGIN=root\r\n", b"NOOP\0\r\n", b"NOOP\r\r\n"),
        *(b"MAIL FROM:<a@b>\rRCPT TO:<c@d>\r\n", b"EHLO a\rMAIL FROM:<evil@x>\r\n"),
    ],
    ids=repr,
)
def test_D2_a_line_that_somebody_splits_is_refused_whole(attack: Attack, line: bytes) -> None:
    client = attack.secure("smtp")
    before = attack.visit("smtp").heard
    client.say(line)
    client.hear(rb"\A500 [^\n]*\n")
    attack.answered(client, "smtp")
    assert attack.visit("smtp").heard == before + b"RSET\r\n"


def test_D2_a_line_that_ends_with_lf_ends_there_for_us_too(attack: Attack) -> None:
    client = attack.secure("smtp")
    client.say(b"NOOP\nXCLIENT ADDR=10.0.0.1 LOGIN=root\r\n")
    client.hear(rb"\A250 [^\n]*\n502 [^\n]*\n")
    assert b"XCLIENT" not in attack.visit("smtp").heard


def test_D2_control_characters_are_no_verb(attack: Attack) -> None:
    client = attack.secure("smtp")
    client.say(b"NO\x08OP\r\n\x1b]0;evil\x07\r\n")
    client.hear(rb"\A500 [^\n]*\n500 [^\n]*\n")
    assert b"\x1b" not in attack.visit("smtp").heard


@pytest.mark.parametrize("octets", [513, 2049, 65_537])
def test_D3_long_commands_are_refused_and_the_next_is_heard(attack: Attack, octets: int) -> None:
    client = attack.secure("smtp")
    client.say(b"NOOP " + b"x" * octets + b"\r\n")
    client.hear(rb"\A500 [^\n]*\n")
    attack.answered(client, "smtp")
    assert b"xxx" not in attack.visit("smtp").heard


def test_D3_a_command_without_end_ends_the_session(attack: Attack) -> None:
    client = attack.secure("smtp")
    for _ in range(20):
        client.say(b"x" * 65_536)
    client.rest()
    attack.wait("client-line-too-long")
    assert b"xxx" not in attack.visit("smtp").heard


@pytest.mark.parametrize("octets", [998, 1001, 16_384, 100_000, 1_000_000])
def test_D3_D4_lines_of_a_message_pass_whatever_their_length(attack: Attack, octets: int) -> None:
    client = in_data(attack)
    body = b"x" * octets + b"\r\n" + b"." * 3 + b"\r\n" + b"y" * (octets - 1) + b".\r\n..\r\n"
    client.say(body + b".\r\n")
    client.hear(rb"\A250 [^\n]*\n")
    assert one_message(attack) == body + b".\r\n"


def test_D5_octets_above_127_pass(attack: Attack) -> None:
    client = attack.secure("smtp", hello=False)
    name = "grüße.example".encode("latin-1")
    client.say(b"EHLO " + name + b"\r\n")
    client.hear(rb"^250 [^\n]*\n")
    address = "grüße@x".encode()
    client.say(b"MAIL FROM:<" + address + b"> SMTPUTF8\r\nRCPT TO:<b@x>\r\nDATA\r\n")
    client.hear(rb"^354 [^\n]*\n")
    body = b"x: " + bytes(set(range(1, 256)) - {10, 13}) + b"\r\n"
    client.say(body + b".\r\n")
    client.hear(rb"\A250 [^\n]*\n")
    assert one_message(attack) == body + b".\r\n"
    assert b"MAIL FROM:<" + address + b"> SMTPUTF8" in attack.visit("smtp").commands
    assert b"EHLO " + name in attack.visit("smtp").commands


def test_D6_what_may_be_pipelined_is_answered_in_order(attack: Attack) -> None:
    client = in_data(attack)
    client.say(b"first\r\n.\r\n" + ENVELOPE + b"DATA\r\n")
    client.hear(rb"\A250 [^\n]*\n250 [^\n]*\n250 [^\n]*\n354 [^\n]*\n")
    client.say(b"second\r\n.\r\nRSET\r\nNOOP\r\nQUIT\r\n")
    client.hear(rb"\A250 [^\n]*\n250 [^\n]*\n250 [^\n]*\n221 [^\n]*\n")
    messages = attack.visit("smtp").messages
    assert [message.splitlines()[-2] for message in messages] == [b"first", b"second"]


def test_D7_a_message_sent_before_it_is_allowed_reaches_no_backend_that_refuses_it(attack: Attack) -> None:
    heard: list[Connection] = []

    def refuse(connection: Connection) -> None:
        heard.append(connection)
        connection.say(b"554 no\r\n")
        while connection.line():
            connection.say(b"250 obeyed\r\n")

    attack.play("smtp", smtp({b"DATA": refuse}))
    client = attack.secure("smtp")
    client.say(ENVELOPE + b"DATA\r\nXCLIENT LOGIN=root\r\nsecret words\r\n.\r\n")
    client.hear(rb"^554 [^\n]*\n")
    # What the client calls its message is commands now, each looked at; none was on its way before the refusal.
    client.hear(rb"\A502 [^\n]*\n")
    assert b"XCLIENT" not in heard[0].heard


@pytest.mark.parametrize("how", ["fin", "reset", "close_notify"])
@pytest.mark.parametrize("last", [b"", b"\r", b"\r\n", b"\r\n.", b"\r\n.\r"], ids=repr)
def test_D8_a_message_that_breaks_off_has_no_end(attack: Attack, last: bytes, how: str) -> None:
    client = in_data(attack)
    client.say(b"half a message" + last)
    visit = attack.visit("smtp")
    visit.connection.wait_for(b"half a message")
    match how:
        case "fin":
            client.finish()
        case "reset":
            client.reset()
        case _:
            client.close_notify()
            client.finish()
    visit.ended()
    assert visit.messages == []
    assert not visit.heard.endswith(b".\r\n")
    assert b"QUIT" not in visit.heard


def test_D9_no_250_of_ours_when_the_backend_dies_behind_the_dot(attack: Attack) -> None:
    def die(connection: Connection) -> None:
        connection.say(b"354 go\r\n")
        connection.until(b"\r\n.\r\n")

    attack.play("smtp", smtp({b"DATA": die}))
    client = attack.secure("smtp")
    client.say(ENVELOPE + b"DATA\r\n")
    client.hear(rb"^354 [^\n]*\n")
    client.say(b"x\r\n.\r\n")
    assert client.rest().startswith(b"421 ")


@pytest.mark.parametrize("lines", [1, 2, 50, 900])
def test_D10_a_reply_is_one_whatever_its_length(attack: Attack, lines: int) -> None:
    reply = b"".join(b"214-%d\r\n" % number for number in range(lines - 1)) + b"214 end\r\n"
    attack.play("smtp", smtp({b"HELP": reply}))
    client = attack.secure("smtp")
    client.say(b"HELP\r\nNOOP\r\n")
    heard = client.hear(rb"^250 [^\n]*\n")
    assert heard == reply + b"250 2.0.0 Ok, backend's\r\n"


@pytest.mark.parametrize(
    "arguments",
    [b"18446744073709551616", b"-1", b"0x10", b"1 LAST x", b"", b"5,5", b"+5", b"1e3", b"99999999999"],
    ids=repr,
)
def test_D11_a_chunk_whose_end_nobody_can_tell_ends_the_session(attack: Attack, arguments: bytes) -> None:
    client = attack.secure("smtp")
    client.say(ENVELOPE + b"BDAT " + arguments + b"\r\nXCLIENT LOGIN=root\r\n")
    client.hear(rb"\A250 [^\n]*\n250 [^\n]*\n(50[0-9]|552|421) [^\n]*\n")
    client.rest()
    assert b"BDAT" not in attack.visit("smtp").heard
    assert b"XCLIENT" not in attack.visit("smtp").heard


def test_D11_D13_chunks_are_counted_and_nothing_inside_is_looked_at(attack: Attack) -> None:
    client = attack.secure("smtp")
    chunks = [b"hello", b"", b"\r\n.\r\nMAIL FROM:<smuggled@x>\r\n", b"\n.\n\r.\r\0", b"x"]
    client.say(ENVELOPE)
    client.hear(rb"\A250 [^\n]*\n250 [^\n]*\n")
    for chunk in chunks:
        client.say(b"BDAT %d%s\r\n" % (len(chunk), b" LAST" if chunk == b"x" else b"") + chunk)
        client.hear(rb"\A250 [^\n]*\n")
    attack.answered(client, "smtp")
    heard = attack.visit("smtp").heard
    assert all(chunk in heard for chunk in chunks)
    assert [line for line in attack.visit("smtp").commands if b"smuggled" in line] == []


def test_D11_a_great_many_chunks_of_one_octet(attack: Attack) -> None:
    client = attack.secure("smtp")
    client.say(ENVELOPE)
    client.hear(rb"\A(250 [^\n]*\n){2}")
    for _ in range(100):
        client.say(b"BDAT 1\r\nx" * 100)
        client.hear(rb"\A(250 [^\n]*\n){100}")
    client.say(b"BDAT 0 LAST\r\n")
    client.hear(rb"\A250 [^\n]*\n")
    attack.answered(client, "smtp")
    # The first one also holds our trace field.
    assert attack.visit("smtp").heard.count(b"BDAT 1\r\nx") == 9_999


def test_D12_a_chunk_where_none_is_offered_is_swallowed(attack: Attack) -> None:
    attack.play("smtp", smtp({b"EHLO": b"250-b\r\n250 SIZE\r\n"}))
    client = attack.secure("smtp")
    backend = attack.backends[attack.service("smtp")].connection()
    chunk = b"MAIL FROM:<smuggled@x>\r\nRCPT TO:<v@y>\r\nRSET\r\n"
    client.say(ENVELOPE + b"BDAT %d\r\n" % len(chunk) + chunk)
    client.hear(rb"\A250 [^\n]*\n250 [^\n]*\n50[23] [^\n]*\n")
    assert b"smuggled" not in backend.heard
    assert b"BDAT" not in backend.heard


@pytest.mark.parametrize(
    "command",
    [
        *(
            b"MAIL FROM:<a@b> SIZE=99999999999999999999\r\n",
            b"MAIL FROM:<a@b> SIZE=-1\r\n",
            b"MAIL FROM:<a@b> AUTH=<>\r\n",
        ),
        b"MAIL FROM:<a@b> " + b"X=y " * 90 + b"\r\n",
    ],
    ids=len,
)
def test_D15_parameters_are_the_backends(attack: Attack, command: bytes) -> None:
    client = attack.secure("smtp")
    client.say(command)
    client.hear(rb"\A250 [^\n]*\n")
    assert command.rstrip() + b"\r\n" in attack.visit("smtp").heard


def test_D15_a_thousand_recipients(attack: Attack) -> None:
    client = attack.secure("smtp")
    client.say(b"MAIL FROM:<a@x>\r\n" + b"RCPT TO:<b@x>\r\n" * 1000)
    client.hear(rb"\A(250 [^\n]*\n){1001}")
    attack.answered(client, "smtp")


@pytest.mark.parametrize("command", [b"BURL imap://victim@imap.internal/INBOX;uid=1:internal LAST\r\n"])
def test_D16_burl_where_it_is_not_offered_is_the_backends_to_refuse(attack: Attack, command: bytes) -> None:
    attack.play("smtp", smtp())
    client = attack.secure("smtp")
    client.say(ENVELOPE + command)
    client.hear(rb"\A250 [^\n]*\n250 [^\n]*\n5[^\n]*\n")


@pytest.mark.parametrize("verb", [b"TURN", b"ATRN x", b"XCLIENT A=b", b"xforward A=b", b"XSHADOW", b"X-LINK2STATE"])
def test_D17_verbs_that_are_refused_here(attack: Attack, verb: bytes) -> None:
    client = attack.secure("smtp")
    client.say(verb + b"\r\n")
    client.hear(rb"\A502 [^\n]*\n")
    assert verb.upper() not in attack.visit("smtp").heard.upper()


def test_D17_unknown_verbs_are_the_backends_and_counted(attack: Attack) -> None:
    attack.play("smtp", smtp())
    client = attack.secure("smtp")
    client.say(b"WIZ\r\n" * 40)
    heard = client.rest()
    assert 1 <= heard.count(b"502 5.5.2") <= 20
    attack.wait("too-many-bad-commands")
