"""IMAP, rows T of docs/conformance.md: what real servers and clients say that our own tests had not thought of."""

from __future__ import annotations

import re
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.base import BackendTLS, Identity, Policy
from gateway.dialects.mail.imap import DIALECT
from gateway.dialects.mail.imap.exchange import UNPAID
from gateway.dialects.mail.imap.syntax import COMMAND_LINE, Malformed, edit_id, id_lines, literal_of, outside_quotes
from gateway.protocol.proxyprotocol import Origin
from gateway.protocol.vocabulary import Expired, Patience, Side
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    FAILED_LOGINS,
    PROVEN,
    REJECTED,
    SPLICE,
    WHOLE,
    Playbook,
    aborts,
    close,
    note,
    terms,
    tls,
    to_backend,
    to_client,
)
from tests.pure.test_imap import LOGOUT, LOST, TOO_MANY, UNAVAILABLE, inside, plain

POLICIES = tuple(Policy)
DOVECOT = b"* BAD Error in IMAP command received by server.\r\n"
"""What Dovecot says to a command whose tag it cannot read."""
ENCODED = b"AGpvZQBzZWNyZXQ="
BROKEN = aborts("backend-protocol-error")


def broken(book: Playbook, line: bytes, tag: bytes = b"a", *, lost: bool = True) -> Playbook:
    """The backend's line ends the session; with `lost` the client's command is answered first."""
    tagged = tag + b" NO [UNAVAILABLE] Service temporarily unavailable\r\n" if lost else b""
    return book.backend(line, to_client(tagged + UNAVAILABLE), *BROKEN)


def still_there(book: Playbook, tag: bytes = b"z") -> Playbook:
    """One question, one answer, and the end."""
    book.asks(tag + b" NOOP\r\n", tag + b" OK done\r\n")
    book.passes(tag + b" LOGOUT\r\n")
    said = b"* BYE\r\n" + tag + b" OK bye\r\n"
    return book.returns(said, close("quit"))


# --- T07: an untagged BAD ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        b"A] NOOP\r\n",
        b"A] CAPABILITY\r\n",
        b"A] FOO bar\r\n",
        b'A] ID ("name" "x")\r\n',
        b"A] LOGIN joe secret\r\n",
        b"A] LOGIN joe\r\n",
        b"A] AUTHENTICATE PLAIN\r\n",
        b"A] AUTHENTICATE PLAIN %s\r\n" % ENCODED,
        b"A] LOGIN {3}\r\n",
        b"A] FOO {3}\r\n",
        b"A] LOGOUT\r\n",
    ],
    ids=repr,
)
@pytest.mark.parametrize("answer", [DOVECOT, b"* bad\r\n", b"* BAD\r\n", b"* BAD [CLIENTBUG] what\r\n"], ids=repr)
def test_T07_the_session_goes_on_behind_an_untagged_BAD(command: bytes, answer: bytes) -> None:
    book = inside().asks(command, answer)
    still_there(book).run()


@pytest.mark.parametrize("policy", [Policy.AUTH_ONLY, Policy.OPTIONAL])
def test_T07_the_same_in_the_clear(policy: Policy) -> None:
    still_there(plain(policy).asks(b"A] NOOP\r\n", DOVECOT)).run()
    plain(Policy.REQUIRED).asks(b"A] LOGOUT\r\n", DOVECOT).client(
        b"b NOOP\r\n", to_client(b"b OK NOOP completed\r\n")
    ).run()


def test_T07_what_was_pipelined_behind_it_is_answered() -> None:
    book = inside().client(b"A] NOOP\r\nb NOOP\r\nc NOOP\r\n", to_backend(b"A] NOOP\r\n"))
    book.returns(DOVECOT, to_backend(b"b NOOP\r\n"))
    book.returns(b"b OK\r\n", to_backend(b"c NOOP\r\n"))
    book.returns(b"c OK\r\n").run()


def test_T07_a_literal_that_was_sent_along_is_no_command() -> None:
    sneaky = b'b ID ("x-originating-ip" "1.2.3.4")\r\n'
    for verb in (b"LOGIN", b"FOO"):
        book = inside().client(
            b"A] %s {%d+}\r\n" % (verb, len(sneaky)) + sneaky + b" {2+}\r\nxy\r\nz NOOP\r\n",
            to_backend(b"A] %s {%d}\r\n" % (verb, len(sneaky))),
        )
        book.returns(DOVECOT, to_backend(b"z NOOP\r\n")).run()


def test_T07_nor_is_it_asked_for_when_it_is_gone() -> None:
    book = inside().client(b"A] LOGIN {3+}\r\njoe {6+}\r\nsecret\r\n", to_backend(b"A] LOGIN {3}\r\n"))
    book.returns(DOVECOT)
    broken(book, b"+ go\r\n", b"A]").run()


def test_T07_behind_a_mere_warning_a_literal_is_still_asked_for() -> None:
    book = inside().asks(b"a LOGIN {3}\r\n", b"* BAD [ALERT] exposed\r\n+ go\r\n")
    book.asks(b"joe pw\r\n", b"a OK in\r\n", SPLICE).run()


def test_T07_a_warning_is_not_the_end_of_what_is_owed() -> None:
    """LOGOUT would be taken for the literal; and the client waits for a reply."""
    tagged = b"a NO [UNAVAILABLE] Connection to mail server lost\r\n"
    for leaves in (Side.CLIENT, Side.BACKEND):
        book = inside().asks(b"a AUTHENTICATE PLAIN\r\n", b"* BAD [ALERT] exposed\r\n+ go\r\n")
        book.passes(ENCODED + b"\r\n")
        if leaves is Side.CLIENT:
            book.ended(leaves, False, ABORT_BACKEND, close("client-lost")).run()
        else:
            book.ended(leaves, True, to_client(tagged + LOST), ABORT_BACKEND, close("backend-lost")).run()


def test_T07_the_literal_of_our_own_ID_may_be_refused_in_this_way() -> None:
    book = inside().client(b'a ID ("name" {9000+}\r\n' + b"x" * 9000 + b")\r\n", to_backend(b'a ID ("name" {9000}\r\n'))
    book.returns(DOVECOT)
    still_there(book).run(cuts=(WHOLE, 1000))


def test_T07_a_tagged_reply_that_follows_is_the_reply() -> None:
    """As Dovecot says it where LOGIN needs TLS: an untagged BAD, and then NO."""
    exposed = b"* BAD [ALERT] Plaintext authentication not allowed without SSL/TLS.\r\n"
    book = inside().asks(b"a LOGIN joe pw\r\n", exposed)
    book.returns(b"* OK still\r\n").returns(DOVECOT)
    refused = b"a NO [PRIVACYREQUIRED] no\r\n"
    book.returns(refused, REJECTED)
    book.asks(b"b LOGIN joe pw\r\n", exposed)
    book.returns(b"b OK in\r\n", PROVEN, SPLICE).run()
    assert [dict(each.fields)["result"] for each in book.notes if each.event == "auth"] == ["failed", "ok"]


@pytest.mark.parametrize("login", [b"a LOGIN joe pw\r\n", b"a AUTHENTICATE PLAIN %s\r\n" % ENCODED], ids=repr)
def test_T07_a_tagged_reply_that_comes_late_is_the_older_commands(login: bytes) -> None:
    book = inside().asks(login, DOVECOT)
    book.asks(b"b NOOP\r\n", b"a NO wrong\r\n", REJECTED, note("auth", result="failed"))
    book.returns(b"b OK\r\n")
    still_there(book).run()


def test_T07_it_may_come_when_nothing_is_asked() -> None:
    book = inside().asks(b"a LOGIN joe pw\r\n", DOVECOT)
    book.asks(b"b NOOP\r\n", b"b OK\r\n")
    book.returns(b"a OK in\r\n", PROVEN, SPLICE).run()
    book = inside().asks(b"a FOO\r\n", DOVECOT)
    book.asks(b"b NOOP\r\n", b"b OK\r\n")
    book.returns(b"a OK so what\r\n")
    still_there(book).run()


def test_T07_a_success_that_crosses_with_a_newer_command_ends_the_session() -> None:
    for late in (b"a OK in\r\n", b"a YES\r\n"):
        book = inside().asks(b"a LOGIN joe pw\r\n", DOVECOT).passes(b"b LOGIN joe pw\r\n")
        broken(book, late, b"b").run()


def test_T07_a_late_success_without_credentials_is_none() -> None:
    for command in (b"a LOGIN joe\r\n", b"a LOGIN {3}\r\n", b"a AUTHENTICATE PLAIN\r\n"):
        book = inside().asks(command, DOVECOT)
        book.asks(b"b NOOP\r\n", b"b OK\r\n")
        broken(book, b"a OK in\r\n", lost=False).run()


@pytest.mark.parametrize("older", [b"a NOOP\r\n", b"a FOO\r\n", b"a LOGIN joe wrong\r\n"], ids=repr)
def test_T07_where_a_tag_is_used_again_a_late_reply_is_not_taken_for_the_new_one(older: bytes) -> None:
    """What the backend says before it answers our NOOP is about the older command; and its client waits for another."""
    book = inside().asks(older, DOVECOT)
    book.client(b"a LOGIN joe pw\r\n", to_backend(b"sgw10 NOOP\r\n"))
    book.backend(b"* OK by the way\r\na NO late\r\n", to_client(b"* OK by the way\r\n"))
    book.backend(b"sgw10 OK done\r\n", to_backend(b"a LOGIN joe pw\r\n"))
    book.returns(b"a OK in\r\n", PROVEN, SPLICE).run()
    assert book.rejected == (b"LOGIN" in older)


def test_T07_so_it_goes_on_for_a_client_that_has_one_tag_only() -> None:
    book = inside()
    book.asks(b"A] NOOP\r\n", DOVECOT)
    for _ in range(5):
        book.client(b"A] NOOP\r\n", to_backend(b"sgw10 NOOP\r\n"))
        book.backend(b"sgw10 OK\r\n", to_backend(b"A] NOOP\r\n")).returns(DOVECOT)
    still_there(book).run()


@pytest.mark.parametrize("answer", [DOVECOT, b"+ go on\r\n", b"a OK in\r\n", b"sgw10 YES\r\n"], ids=repr)
def test_T07_who_does_not_answer_NOOP_cannot_be_followed(answer: bytes) -> None:
    book = inside().asks(b"a LOGIN joe pw\r\n", DOVECOT).client(b"a NOOP\r\n", to_backend(b"sgw10 NOOP\r\n"))
    tagged = b"a NO [UNAVAILABLE] Service temporarily unavailable\r\n"
    told = answer if answer == DOVECOT else b""
    book.backend(answer, to_client(told + tagged + UNAVAILABLE), *BROKEN).run()


def test_T07_our_own_tag_is_nobody_elses() -> None:
    book = inside().asks(b"sgw10 FOO\r\n", DOVECOT)
    book.client(b"sgw10 LOGIN joe pw\r\n", to_backend(b"sgw11 NOOP\r\n"))
    book.backend(b"sgw10 OK late\r\n").backend(b"sgw11 OK\r\n", to_backend(b"sgw10 LOGIN joe pw\r\n"))
    book.returns(b"sgw10 NO\r\n").run()


def test_T07_a_go_ahead_for_an_older_command_is_not_taken_for_one_to_a_literal() -> None:
    """The literal would be obeyed as commands."""
    for older in (b"a AUTHENTICATE PLAIN\r\n", b"a FOO {11}\r\n"):
        book = inside().asks(older, DOVECOT)
        book.client(b"b FOO {41}\r\n", to_backend(b"sgw10 NOOP\r\n"))
        broken(book, b"+ go\r\n", b"b").run()
        book = inside().asks(older, DOVECOT)
        book.client(b"b LOGIN {3}\r\n", to_backend(b"sgw10 NOOP\r\n"))
        book.backend(b"sgw10 OK\r\n", to_backend(b"b LOGIN {3}\r\n")).returns(b"+ go\r\n")
        book.asks(b"joe pw\r\n", b"b NO\r\n").run()
        book = inside().asks(older, DOVECOT)
        book.asks(b"b NOOP\r\n", b"b OK\r\n")  # so nothing older is under way any more
        book.passes(b"b LOGIN {3}\r\n").run()


def test_T07_what_is_remembered_is_bounded() -> None:
    book = inside(bad_commands=1000)
    for number in range(UNPAID):
        book.asks(b"a%d NOOP\r\n" % number, DOVECOT)
    book.client(b"b NOOP\r\n", to_backend(b"sgw10 NOOP\r\n")).backend(b"sgw10 BAD\r\n", to_backend(b"b NOOP\r\n"))
    book.returns(b"b OK\r\n")
    still_there(book).run()


def test_T07_what_was_said_in_the_clear_is_answered_in_the_clear() -> None:
    book = plain(Policy.OPTIONAL).asks(b"a LOGIN joe pw\r\n", DOVECOT)
    book.client(b"b STARTTLS\r\n", to_backend(b"sgw10 NOOP\r\n")).returns(b"a NO late\r\n")
    book.backend(b"sgw10 OK\r\n", tls(b"b OK Begin TLS negotiation now\r\n")).secured()
    broken(book, b"a OK in\r\n", lost=False).run()


def test_T07_it_counts_as_a_bad_command() -> None:
    book = inside(bad_commands=3)
    for tag in (b"a", b"b"):
        book.asks(tag + b"] FOO\r\n", DOVECOT)
    book.asks(b"c] FOO\r\n", DOVECOT)
    book.client(b"d NOOP\r\n", to_client(TOO_MANY), LOGOUT, close("too-many-bad-commands")).run()


def test_T07_guesses_that_are_answered_in_this_way_count_when_the_answer_comes() -> None:
    book = inside()
    for number in range(FAILED_LOGINS):
        tag = b"a%d" % number
        login = tag + b" LOGIN joe guess\r\n"
        last = (to_client(b"* BYE Too many failed logins\r\n"), LOGOUT, close("too-many-failed-logins"))
        book.asks(login, DOVECOT)
        book.asks(b"b NOOP\r\n", b"b OK\r\n")
        said = tag + b" NO wrong\r\n"
        if number < FAILED_LOGINS - 1:
            book.returns(said)
        else:
            book.returns(said, *last)
    book.run()
    assert book.rejected == FAILED_LOGINS


def test_T07_ends_behind_it_are_as_between_commands() -> None:
    def doubtful() -> Playbook:
        return inside().asks(b"A] NOOP\r\n", DOVECOT)

    doubtful().waits(Patience.COMMAND).ended(Side.CLIENT, True, LOGOUT, close("client-closed")).run()
    doubtful().ended(Side.BACKEND, True, to_client(LOST), ABORT_BACKEND, close("backend-closed")).run()
    doubtful().stop(to_client(b"* BYE Server shutting down\r\n"), LOGOUT, close("shutdown")).run()
    idle = to_client(b"* BYE Autologout; idle for too long\r\n")
    doubtful().expire(Expired(Side.CLIENT, Patience.COMMAND), idle, LOGOUT, close("client-timeout")).run()
    book = inside().asks(b"A] LOGOUT\r\n", DOVECOT)
    gone = to_client(b"* BYE logging out\r\nA] OK LOGOUT completed\r\n")
    book.ended(Side.BACKEND, True, gone, close("quit")).run()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"z\0\r\n", b"* BAD Invalid characters\r\n"),
        (b"z " + b"x" * 9000 + b"\r\n", b"z BAD Command too long\r\n"),
        (b"(\r\n", b"* BAD Invalid tag\r\n"),
    ],
)
def test_T07_a_client_may_go_on_with_anything(line: bytes, told: bytes) -> None:
    book = inside().asks(b"A] NOOP\r\n", DOVECOT).client(line, to_client(told))
    still_there(book).run(cuts=(WHOLE, 1000))


# --- T07: in the middle of AUTHENTICATE ---------------------------------------------------------------


def asked(mechanism: bytes = b"PLAIN") -> Playbook:
    return inside().asks(b"a AUTHENTICATE " + mechanism + b"\r\n", b"+ \r\n")


def test_T07_untagged_lines_before_a_response_do_not_make_the_gateway_deaf_to_it() -> None:
    for said in (b"* OK still here\r\n", DOVECOT):
        book = asked().returns(said).waits(Patience.COMMAND)
        book.asks(ENCODED + b"\r\n", b"a OK in\r\n", SPLICE).run()


def test_T07_an_untagged_BAD_may_answer_a_response() -> None:
    book = asked().asks(b"AAAA\r\n", DOVECOT)
    still_there(book).run()
    book = asked().asks(b"AAAA\r\n", DOVECOT)
    book.returns(b"+ again\r\n").asks(b"BBBB\r\n", b"a OK in\r\n", SPLICE).run()


@pytest.mark.parametrize("cancelled", [b"a BAD cancelled\r\n", DOVECOT], ids=repr)
def test_T07_a_client_that_takes_it_for_the_end_of_the_exchange_is_heard(cancelled: bytes) -> None:
    book = asked().returns(DOVECOT).client(b"b NOOP\r\n", to_backend(b"*\r\n"))
    book.returns(cancelled, to_backend(b"b NOOP\r\n"))
    book.returns(b"b OK\r\n")
    still_there(book).run()


# --- T07: the gateway's own commands ---------------------------------------------------------------


def test_T07_an_untagged_BAD_to_a_command_of_ours_is_a_refusal() -> None:
    """The client would wait until a deadline, and the next address would not be tried."""
    origin = Origin(("192.0.2.10", 40000), ("192.0.2.1", 143))
    for changes, heard, event in (
        ({"backend_tls": BackendTLS.STARTTLS}, b"sgw1 STARTTLS\r\n", "backend-tls-failed"),
        ({"identity": Identity.ID, "origin": origin}, b"sgw3 CAPABILITY\r\n", "backend-identity-refused"),
    ):
        book = Playbook(DIALECT, terms(**changes)).start(DIAL).dialled()
        book.backend(b"* OK hi\r\n", to_backend(heard))
        book.backend(DOVECOT, to_client(UNAVAILABLE), *aborts(event)).run()


# --- T08: braces --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"a1 LOGIN user secret}",
        b"a1 LOGIN user }",
        b"a1 LOGIN user} secret",
        b"a1 LOGIN user }{x",
        b"a1 LOGIN user x}y}",
        b'a1 LOGIN user "secret}"',
        b'a1 LOGIN "{3}" secret}',
        b'a1 LOGIN "a\\"{3" b}',
        b"a1 LOGIN user 5}",
        b"a1 LOGIN user +}",
        b"a1 FOO }",
    ],
)
def test_T08_a_brace_at_the_end_of_an_atom_announces_nothing(line: bytes) -> None:
    still_there(inside().asks(line + b"\r\n", b"a1 NO no\r\n")).run()


def test_T08_it_may_end_the_line_behind_a_literal() -> None:
    book = inside().asks(b"a LOGIN {3}\r\n", b"+ \r\n")
    book.asks(b"joe secret}\r\n", b"a OK in\r\n", SPLICE).run()


# --- T09: long lines ----------------------------------------------------------------------------------


def fields(count: int, octets: int = 1024) -> bytes:
    """An ID of the greatest legal size has thirty fields: names of 30 octets, values of 1024 (RFC 2971 3.3)."""
    return b"(%s)" % b" ".join(b'"%030d" "%s"' % (number, b"v" * octets) for number in range(count))


def test_T09_an_ID_of_the_greatest_legal_size_reaches_the_backend() -> None:
    said = b"a ID " + fields(30) + b"\r\n"
    assert len(said) > 31_800
    book = inside()
    lines = id_lines(b"a", fields(30))
    book.client(said, to_backend(lines[0] + b"\r\n"))
    for line in lines[1:]:
        book.backend(b"+ go\r\n", to_backend(line + b"\r\n"))
    book.returns(b"* ID NIL\r\na OK\r\n")
    still_there(book).run(cuts=(WHOLE, 1000))
    assert len(lines) == 4
    assert max(map(len, lines)) <= COMMAND_LINE + 1024  # with the literal that each begins with


def test_T09_it_may_be_refused_on_the_way() -> None:
    book = inside().client(b"a ID " + fields(30) + b"\r\n", to_backend(id_lines(b"a", fields(30))[0] + b"\r\n"))
    book.returns(b"a BAD what\r\n")
    still_there(book).run(cuts=(WHOLE, 1000))


def test_T09_in_the_clear_it_is_answered_by_us() -> None:
    for said in (fields(30), b'("%s" "x")' % (b'\\"' * 30_000)):
        book = plain().client(b"a ID " + said + b"\r\n", to_client(b"* ID NIL\r\na OK ID completed\r\n"))
        book.client(b"b NOOP\r\n", to_client(b"b OK NOOP completed\r\n")).run(cuts=(WHOLE, 1000))


STRING = st.binary(max_size=30) | st.integers(8000, 8300).map(lambda size: b"y" * size) | st.just(b'\\"' * 5000)


@pytest.mark.no_cover
@given(st.lists(st.tuples(STRING, STRING | st.none()), min_size=1, max_size=8), st.binary(min_size=1, max_size=300))
def test_T09_no_line_of_a_long_ID_is_longer_than_others(pairs: list[tuple[bytes, bytes | None]], tag: bytes) -> None:
    said = b"(%s)" % b" ".join(
        b'"%s" %s' % (name, b"NIL" if value is None else b'"%s"' % value) for name, value in pairs
    )
    try:
        wanted = edit_id(said)
    except Malformed:
        return
    if wanted == b"NIL":
        return
    collected = literal = b""
    waiting = 0
    for line in id_lines(tag, said):
        literal, rest = line[:waiting], line[waiting:]
        assert len(rest) <= COMMAND_LINE
        if waiting or collected:
            collected += b'"%s"' % re.sub(rb'(["\\])', rb"\\\1", literal)
        announced = re.search(rb"\{([0-9]+)\}\Z", rest)
        waiting = int(announced[1]) if announced else 0
        collected += rest[: announced.start()] if announced else rest
    # Quoted anew it is what it was.
    assert collected == tag + b" ID " + wanted


@pytest.mark.parametrize("octets", [12_288, 60_000])
def test_T09_an_initial_response_may_be_as_long_as_others(octets: int) -> None:
    for book in (inside(), plain(Policy.OPTIONAL)):
        login = b"a1 AUTHENTICATE XOAUTH2 " + b"A" * octets + b"\r\n"
        book.asks(login, b"a1 OK in\r\n", SPLICE).run(cuts=(WHOLE, 1000))


def test_T09_nothing_else_may_be_longer_than_a_line_and_no_base64_at_all() -> None:
    book = inside()
    for verb in (b"LOGIN", b"NOOP", b"IDLE", b"AUTHENTICATEX", b"LOGIN ID", b"ID\t"):
        book.client(b"a1 " + verb + b" " + b"A" * 9000 + b"\r\n", to_client(b"a1 BAD Command too long\r\n"))
        book.asks(b"z NOOP\r\n", b"z OK\r\n")
        book.asks(b"z CAPABILITY\r\n", b"z OK\r\n")
    book.client(b"a1 AUTHENTICATE PLAIN " + b"A " * 9000 + b"\r\n", to_client(b"a1 BAD Invalid arguments\r\n"))
    still_there(book).run(cuts=(WHOLE, 1000))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"a1 " + b"x" * 8190, b"a1 BAD Command too long\r\n"),
        (b"x" * 1000 + b" NOOP " + b"x" * 8190, b"x" * 1000 + b" BAD Command too long\r\n"),
        (b"a1 ID " + b"x" * 66_000, b"a1 BAD Command too long\r\n"),
        (b"a1 AUTHENTICATE PLAIN " + b"x" * 130_000, b"a1 BAD Command too long\r\n"),
        (b"a1 LOGIN " + b"\0\r" * 5000, b"a1 BAD Command too long\r\n"),
        (b"a1 LOGIN " + b"x" * 70_000, b"a1 BAD Command too long\r\n"),
        (b"x" * 8193, b"* BAD Command too long\r\n"),
        (b"a(1 " + b"x" * 8193, b"* BAD Command too long\r\n"),
        (b"* " + b"x" * 8193, b"* BAD Command too long\r\n"),
    ],
    ids=lambda each: repr(each[:20]),
)
@pytest.mark.parametrize("policy", POLICIES)
def test_T09_a_line_too_long_is_answered_and_the_session_goes_on(line: bytes, told: bytes, policy: Policy) -> None:
    for book in (plain(policy), inside(policy)):
        book.client(line + b"\r\n", note("client-line-too-long"), to_client(told))
        book.asks(b"b LOGOUT\r\n", b"b OK\r\n", close("quit")).run(cuts=(WHOLE, 1000))


def test_T09_a_literal_behind_a_line_too_long_is_no_command() -> None:
    sneaky = b'b ID ("x-originating-ip" "1.2.3.4")\r\n'
    for begin, told in ((b"a ", b"a BAD"), (b"", b"* BAD")):
        said = begin + b"x" * 9000 + b" {%d+}\r\n" % len(sneaky) + sneaky + b" {1+}\r\nx\r\n"
        inside().client(said, to_client(told + b" Command too long\r\n")).run(cuts=(WHOLE, 1000))
        inside().client(
            begin + b"x" * 9000 + b" {5}\r\nz NOOP\r\n",
            to_client(told + b" Command too long\r\n"),
            to_backend(b"z NOOP\r\n"),
        ).run(cuts=(WHOLE, 1000))


def test_T09_endless_lines_are_counted() -> None:
    long = b"a " + b"x" * 9000 + b"\r\n"
    book = plain(bad_commands=3).client(long * 2, to_client(b"a BAD Command too long\r\n" * 2))
    book.client(long, to_client(b"a BAD Command too long\r\n" + TOO_MANY), LOGOUT, close("too-many-bad-commands"))
    book.run(cuts=(WHOLE, 1000))
    book = plain().client(b"x" * 9000 + b"\r\n" + b"y" * 9000 + b"\r\n", to_client(b"* BAD Command too long\r\n" * 2))
    book.client(
        b"z" * 9000 + b"\r\n",
        to_client(b"* BAD Command too long\r\n" + TOO_MANY),
        LOGOUT,
        close("too-many-bad-commands"),
    ).run(cuts=(WHOLE, 1000))


def test_T09_a_line_behind_a_literal_that_the_backend_has_not_may_be_too_long() -> None:
    must = b"a NO [PRIVACYREQUIRED] Must issue a STARTTLS command first\r\n"
    book = plain().client(b"a LOGIN {1+}\r\nx" + b"y" * 9000 + b" {3+}\r\nfoo\r\n", to_client(must))
    book.client(b"a ID ({1+}\r\nx" + b"y" * 9000 + b" {3+}\r\nfoo bar\r\n", to_client(b"a BAD Invalid arguments\r\n"))
    book.client(b"b NOOP\r\n", to_client(b"b OK NOOP completed\r\n")).run(cuts=(WHOLE, 1000))


def test_T09_where_the_backend_waits_for_it_the_session_ends() -> None:
    book = inside().asks(b"a LOGIN {3}\r\n", b"+ \r\n")
    book.client(
        b"joe " + b"x" * 9000 + b"\r\n",
        to_backend(b"joe"),
        *aborts("client-line-too-long", b"* BYE Command too long\r\n"),
    )
    book.run(cuts=(WHOLE, 1000))


def test_T09_lines_that_are_dropped_are_paid_for() -> None:
    said = b"a LOGIN {0+}\r\n" + (b"y" * 9000 + b" {0+}\r\n") * 20
    plain().client(said, to_client(b"* BYE Command too long\r\n"), LOGOUT, close("client-line-too-long")).run(
        cuts=(WHOLE,)
    )


def test_T09_a_response_too_long_cancels_the_exchange() -> None:
    book = asked(b"GSSAPI").client(b"x" * 65_537 + b"\r\n", note("client-line-too-long"), to_backend(b"*\r\n"))
    book.returns(b"a BAD cancelled\r\n")
    still_there(book).run(cuts=(WHOLE, 1000))


# --- T04, T10: blanks, and a tagged BYE -----------------------------------------------------------------


@pytest.mark.parametrize("blanks", [b" ", b"  ", b"\t", b"\t ", b" \t"], ids=repr)
def test_T04_T10_blanks_behind_a_command_are_nothing(blanks: bytes) -> None:
    for policy in POLICIES:
        book = plain(policy).asks(b"a CAPABILITY" + blanks + b"\r\n", b"a OK\r\n")
        if policy is Policy.REQUIRED:
            book.client(b"b NOOP" + blanks + b"\r\n", to_client(b"b OK NOOP completed\r\n"))
        else:
            book.asks(b"b NOOP" + blanks + b"\r\n", b"b OK\r\n")
        book.client(b"c ID NIL" + blanks + b"\r\n", to_client(b"* ID NIL\r\nc OK ID completed\r\n"))
        book.client(b"d STARTTLS" + blanks + b"\r\n", tls(b"d OK Begin TLS negotiation now\r\n")).secured()
        book.client(b"e STARTTLS" + blanks + b"\r\n", to_client(b"e BAD TLS is already active\r\n"))
        for command in (b"CAPABILITY", b"NOOP", b"LOGIN joe pw", b"AUTHENTICATE PLAIN", b"AUTHENTICATE PLAIN AGEAYg=="):
            book.asks(b"f " + command + blanks + b"\r\n", b"f NO\r\n")
        book.asks(b"g LOGOUT" + blanks + b"\r\n", b"g OK\r\n", close("quit")).run()
        plain(policy).asks(b"g LOGOUT" + blanks + b"\r\n", b"g OK\r\n", close("quit")).run()


@pytest.mark.parametrize("said", [b"a1 BYE\r\n", b"* BYE so long\r\na1 bye see you\r\n"], ids=repr)
def test_T10_a_tagged_BYE_ends_the_session(said: bytes) -> None:
    for book in (plain(), inside()):
        book.asks(b"a1 LOGOUT\r\n", said, close("quit")).run()


def test_T10_to_another_command_it_is_the_goodbye_of_the_backend() -> None:
    for command in (b"a LOGIN joe pw\r\n", b"a NOOP\r\n"):
        book = inside().asks(command, b"a BYE enough\r\n")
        book.ended(Side.BACKEND, True, ABORT_BACKEND, close("backend-closed")).run()


# --- T11: a success before the client has proven anything -------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        *(b"AUTHENTICATE " + name for name in (b"PLAIN", b"login", b"CRAM-MD5", b"DIGEST-MD5", b"SCRAM-SHA-256")),
        *(b"AUTHENTICATE " + name for name in (b"NTLM", b"GSSAPI", b"XOAUTH2", b"ANONYMOUS", b"OTP", b"X-OWN")),
        *(b"LOGIN", b"LOGIN ", b"LOGIN joe", b"LOGIN joe ", b'LOGIN "joe doe"', b"login {3}", b"LOGIN \t joe \t"),
        *(b'LOGIN \\" "" x', b"AUTHENTICATE NTLM ="),
    ],
    ids=repr,
)
@pytest.mark.parametrize("answer", [b"a OK in\r\n", b"* OK in\r\na ok\r\n", DOVECOT + b"a OK in\r\n"], ids=repr)
def test_T11_a_success_before_the_client_has_said_anything_is_none(command: bytes, answer: bytes) -> None:
    for book in (inside(), plain(Policy.OPTIONAL)):
        book.passes(b"a " + command + b"\r\n")
        untagged = answer.rpartition(b"a ")[0]
        tagged = b"a NO [UNAVAILABLE] Service temporarily unavailable\r\n"
        book.backend(answer, to_client(untagged + tagged + UNAVAILABLE), *BROKEN).run()
        assert (book.proven, [each for each in book.notes if each.event == "auth"]) == (0, [])


def test_T11_nor_is_one_that_does_not_wait_for_the_first_response() -> None:
    broken(asked(), b"a OK in\r\n").run()
    broken(asked(b"ANONYMOUS"), b"a OK in\r\n").run()


@pytest.mark.parametrize("taken_back", [b"*", b"no base64", b"A" * 65_537], ids=lambda line: repr(line[:10]))
def test_T11_nor_is_one_behind_a_word_taken_back(taken_back: bytes) -> None:
    for book in (asked(), asked(b"LOGIN").asks(b"am9l\r\n", b"+ UGFzc3dvcmQ6\r\n")):
        broken(book.client(taken_back + b"\r\n", to_backend(b"*\r\n")), b"a OK in\r\n").run(cuts=(WHOLE, 1000))


@pytest.mark.parametrize("response", [b"", b"=", ENCODED], ids=repr)
def test_T11_any_response_is_one(response: bytes) -> None:
    """Whether an empty one is enough is the mechanism's matter (ANONYMOUS, and GSSAPI in its second turn)."""
    book = asked(b"ANONYMOUS").asks(response + b"\r\n", b"a OK in\r\n", PROVEN, SPLICE).run()
    book = asked(b"GSSAPI").asks(b"YII=\r\n", b"+ YII=\r\n")
    book.asks(b"\r\n", b"+ AQID\r\n").asks(response + b"\r\n", b"a OK in\r\n", SPLICE).run()


def test_T11_an_initial_response_is_one() -> None:
    for command in (b"a AUTHENTICATE ANONYMOUS =\r\n", b"a AUTHENTICATE PLAIN %s\r\n" % ENCODED):
        inside().asks(command, b"a OK in\r\n", PROVEN, SPLICE).run()


def test_T11_the_last_word_of_the_server_needs_no_answer() -> None:
    """SCRAM's server signature, from a server that does not wait for the empty line behind it."""
    book = asked(b"SCRAM-SHA-1").asks(b"biws\r\n", b"+ cj0=\r\n")
    book.asks(b"Yz0=\r\n", b"+ dj0=\r\n")
    book.returns(b"a OK in\r\n", SPLICE).run()


@pytest.mark.parametrize("arguments", [b"joe pw", b'"joe doe" ""', b'"" ""', b"joe pw ", b'"a\\"b c" d'], ids=repr)
def test_T11_a_login_with_both_words_may_succeed(arguments: bytes) -> None:
    command = b"a LOGIN " + arguments + b"\r\n"
    inside().asks(command, b"a OK in\r\n", SPLICE).run()


def test_T11_words_may_be_literals() -> None:
    book = inside().asks(b"a LOGIN {3}\r\n", b"+ \r\n").asks(b"joe {0}\r\n", b"+ \r\n")
    book.asks(b"\r\n", b"a OK in\r\n", SPLICE).run()
    book = inside().asks(b"a LOGIN {3}\r\n", b"+ \r\n").passes(b"joe\r\n")
    broken(book, b"a OK in\r\n").run()


def test_T11_other_commands_may_succeed_with_nothing() -> None:
    still_there(inside().asks(b"a FOO\r\n", b"a OK\r\n")).run()


# --- what a long line costs ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"a1 ID x{" + b" " * 65_000 + b"x",
        b"a1 ID x{y " + b'\\"' * 32_000 + b"x",
        b'a1 ID ("' + b"\\" * 65_000 + b'" {x',
        b"a1 ID " + b'"" ' * 21_000 + b"x{",
        b"a1 ID " + b"{" * 65_000,
    ],
    ids=["blanks", "escaped quotes", "backslashes", "strings", "braces"],
)
def test_T09_a_long_line_costs_time_that_is_linear_in_its_length(line: bytes) -> None:
    began = time.process_time()
    with suppress(Malformed):
        literal_of(line)
    # Quadratic time took 7 to 15 s; the machine may be slow.
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        (b'a "b" c', b'a "" c'),
        (b'a "b\\"c" d', b'a "" d'),
        (b'a "b\\\\" "c"', b'a "" ""'),
        (b'"\\\\\\"" x', b'"" x'),
        (b"a b", b"a b"),
    ],
)
def test_T08_quoted_strings_are_found(line: bytes, kept: bytes) -> None:
    assert outside_quotes(line) == kept


@pytest.mark.parametrize("line", [b'"', b'a "b', b'a "b\\"', b'a \\" {x'])
def test_T08_a_quoted_string_that_does_not_end_is_malformed(line: bytes) -> None:
    with pytest.raises(Malformed):
        outside_quotes(line)


@given(st.lists(st.sampled_from([b'"', b"\\", b"\\\\", b'\\"', b"{", b"}", b"x", b" "]), max_size=40))
def test_T08_a_scan_finds_what_the_grammar_says(pieces: list[bytes]) -> None:
    line = b"".join(pieces)
    meant = re.sub(rb'"(?:[^"\\]|\\.)*"', b"", line, flags=re.DOTALL)
    if b'"' in meant:
        with pytest.raises(Malformed):
            outside_quotes(line)
    else:
        assert outside_quotes(line).replace(b'""', b"") == meant


@pytest.mark.parametrize("response", [b"", b"=", b"* ", b"*"], ids=repr)
def test_T11_a_response_that_says_nothing_earns_no_success(response: bytes) -> None:
    broken(asked(b"NTLM").passes(response + b"\r\n"), b"a OK in\r\n").run()


def test_T11_an_empty_last_response_of_GSSAPI_takes_nothing_back() -> None:
    play = asked(b"GSSAPI").asks(b"YIICWQ==\r\n", b"+ YII=\r\n")
    play.asks(b"\r\n", b"a OK in\r\n", PROVEN, SPLICE).run()
