"""Attacks F of docs/conformance.md: IMAP's syntax."""

from __future__ import annotations

import pytest

from gateway.protocol.driver import PLAINTEXT_INBOX, SECURE_INBOX
from tests.process.attacks.conftest import Attack


def test_F1_each_literal_that_waits_gets_one_plus(attack: Attack) -> None:
    client = attack.secure("imap")
    client.say(b"a LOGIN {4}\r\n")
    assert client.line().startswith(b"+ ")
    client.say(b"user {2}\r\n")
    assert client.line().startswith(b"+ ")
    client.say(b"pw\r\n")
    assert client.line().startswith(b"a OK")
    assert attack.visit("imap").heard.endswith(b"a LOGIN {4}\r\nuser {2}\r\npw\r\n")


def test_F2_the_content_of_a_literal_is_never_a_command(attack: Attack) -> None:
    client = attack.secure("imap")
    client.say(b"a LOGIN {16+}\r\nb DELETE INBOX\r\n {2+}\r\npw\r\nc NOOP\r\n")
    client.hear(rb"^(c OK|a OK)[^\n]*\n")
    assert [line for line in attack.visit("imap").commands if line.startswith(b"b DELETE")] == []


@pytest.mark.parametrize("octets", [4097, 65_537])
def test_F3_large_literals_in_the_clear_are_swallowed_or_the_end(attack: Attack, octets: int) -> None:
    client = attack.connect("imap")
    literal = (b"\r\nb DELETE INBOX\r\n" * 4096)[:octets]
    client.say(b"a LOGIN {%d+}\r\n" % octets + literal + b"\r\nc NOOP\r\n")
    if octets > 65_536:
        assert client.rest().startswith(b"* BYE")
    else:
        client.hear(rb"\Aa NO \[PRIVACYREQUIRED\][^\n]*\nc OK[^\n]*\n")
    assert b"DELETE" not in attack.visit("imap").heard


@pytest.mark.parametrize(
    "size",
    [
        *(b"{4294967296}", b"{9223372036854775808}", b"{18446744073709551617}", b"{4294967297+}", b"{-1}", b"{}"),
        *(b"{1e3}", b"{5}x", b"{5+", b"{+5}", b"{ 5}", b"{5 }", b"{0x5}", b"{5++}"),
    ],
)
@pytest.mark.parametrize("mode", ["clear", "tls"])
def test_F4_sizes_that_are_none_are_refused(attack: Attack, size: bytes, mode: str) -> None:
    client = attack.connect("imap") if mode == "clear" else attack.secure("imap")
    client.say(b"a LOGIN " + size + b"\r\nx\r\n")
    heard = client.hear(rb"\A(a (BAD|NO|OK)|\* B)[^\n]*\n")
    assert not heard.startswith(b"+")
    if len(size) > 9:
        assert client.rest() is not None
        attack.wait("client-line-too-long")


def test_F5_many_literals_count_together(attack: Attack) -> None:
    client = attack.connect("imap")
    client.say(b"a LOGIN " + b"{1+}\r\nx " * 100_000)
    assert b"* BYE" in client.rest()
    attack.wait("client-line-too-long")


@pytest.mark.parametrize(("verb", "most"), [(b"NOOP", PLAINTEXT_INBOX), (b"ID", SECURE_INBOX + PLAINTEXT_INBOX)])
def test_F6_parentheses_without_end_are_bounded(attack: Attack, verb: bytes, most: int) -> None:
    """What a session may cost is its inbox: a line that is not complete, and no more of an endless one."""
    clients = [attack.connect("imap") for _ in range(400)]
    before = attack.gateway.resident
    for octets in (8000, 60_000):
        for client in clients:
            client.say((b"a %s " % verb) * (octets == 8000) + b"(" * octets)
        with attack.connect("imap") as another:
            another.say(b"a LOGOUT\r\n")
            another.rest()
        grown = attack.gateway.resident - before
        print(f"{octets} octets: {grown / len(clients):.0f} each")
        assert grown < len(clients) * most
    for client in clients[:20]:
        client.say(b"(" * most)
        assert client.line() == b"* BYE Command too long\r\n"


@pytest.mark.parametrize(
    "tag", [b"", b"+", b"*", b"%n%s", b'a"b', b"a{b", b"\xc3\xa4", b"alert(1)", b"a(b", b"x" * 1001]
)
def test_F7_tags_that_are_none_are_not_repeated(attack: Attack, tag: bytes) -> None:
    client = attack.connect("imap")
    client.say(tag + b" NOOP\r\n")
    assert client.line() == b"* BAD Invalid tag\r\n"


@pytest.mark.parametrize("tag", [b"x\0y", b"x" * 100_000], ids=["NUL", "long"])
def test_F7_tags_that_are_not_even_text(attack: Attack, tag: bytes) -> None:
    client = attack.connect("imap")
    client.say(tag + b" NOOP\r\n")
    heard = client.hear(rb"\A\* B(AD|YE)[^\n]*\n")
    assert b"x" not in heard.replace(b"BAD Invalid tag", b"")


@pytest.mark.parametrize(
    "arguments", [b'"u\\"x" "p\\\\"', b"NIL NIL", b'"a\\x" b', b'"\xc3\xa4" b', b"a  b", b'"" ""'], ids=repr
)
def test_F8_quoting_reaches_the_backend_as_it_is(attack: Attack, arguments: bytes) -> None:
    client = attack.secure("imap")
    client.say(b"a LOGIN " + arguments + b"\r\n")
    client.hear(rb"\Aa [^\n]*\n")
    assert attack.visit("imap").heard.endswith(b"a LOGIN " + arguments + b"\r\n")


def test_F8_a_quote_without_end_is_refused_or_passed_on_as_it_is(attack: Attack) -> None:
    client = attack.secure("imap")
    client.say(b'a LOGIN "u" "p {5+}\r\nhello"\r\n')
    client.hear(rb"\A(a|\*) BAD[^\n]*\n")
    assert b"hello" not in attack.visit("imap").heard


@pytest.mark.parametrize("octet", [b"\r", b"\0"], ids=repr)
def test_F8_no_line_end_in_quotes(attack: Attack, octet: bytes) -> None:
    client = attack.secure("imap")
    client.say(b'a LOGIN "u' + octet + b'b DELETE INBOX" p\r\n')
    client.hear(rb"\A\* BAD[^\n]*\n")
    assert b"DELETE" not in attack.visit("imap").heard


def test_F9_what_follows_a_login_keeps_its_order(attack: Attack) -> None:
    client = attack.secure("imap")
    client.say(b"a LOGIN u p\r\nb SELECT INBOX\r\nc NOOP\r\n")
    client.hear(rb"\Aa OK[^\n]*\nb OK[^\n]*\nc OK[^\n]*\n")
    client = attack.secure("imap")
    client.say(b'a LOGIN u wrong\r\nb STARTTLS\r\nc ID ("x-originating-ip" "1.2.3.4")\r\nd NOOP\r\n')
    client.hear(rb"\Aa NO[^\n]*\nb BAD[^\n]*\nc OK[^\n]*\nd OK[^\n]*\n")
    assert b"1.2.3.4" not in attack.visit("imap").heard


def test_F10_commands_without_a_login_are_refused_and_counted(attack: Attack) -> None:
    client = attack.connect("imap")
    client.say(b"a SELECT INBOX\r\n" * 40)
    heard = client.rest()
    assert 1 <= heard.count(b"a NO [PRIVACYREQUIRED]") <= 10
    assert b"* BYE" in heard
    assert attack.visit("imap").commands in ([], [b"sgw9 LOGOUT"])


def test_F11_idle_ends_octet_by_octet(attack: Attack) -> None:
    client = attack.enter("imap")
    client.say(b"i IDLE\r\n")
    client.hear(rb"\A\+ [^\n]*\n")
    for octet in b"DONE\r\n":
        client.say(bytes([octet]))
    client.hear(rb"\Ai OK[^\n]*\n")


@pytest.mark.parametrize(
    "octets", [b"c COMPRESS DEFLATE\r\n" + bytes(range(256)), b"e ENABLE UTF8=ACCEPT\r\n\xc3\xa4 \r\n"]
)
def test_F12_F14_behind_the_login_everything_passes(attack: Attack, octets: bytes) -> None:
    client = attack.enter("imap")
    client.say(octets)
    attack.visit("imap").connection.wait_for(octets)


def test_F13_a_literal_behind_the_login_is_a_stream(attack: Attack) -> None:
    client = attack.enter("imap")
    before = attack.gateway.resident
    client.say(b"a APPEND INBOX {5000000000+}\r\n")
    for _ in range(20):
        client.say(b"x" * 1_000_000)
    visit = attack.visit("imap")
    visit.connection.wait_for(b"x" * 1000)
    assert attack.gateway.resident - before < 8_000_000
