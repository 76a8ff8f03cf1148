"""NNTP: each command before TLS and inside, and its pure functions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import sasl
from gateway.dialects.base import BackendTLS, Policy
from gateway.dialects.conversation import Stage
from gateway.dialects.news.nntp import DIALECT, words
from gateway.protocol.vocabulary import Side
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    PROVEN,
    REJECTED,
    SPLICE,
    Playbook,
    close,
    note,
    terms,
    tls,
    to_backend,
    to_client,
)

REQUIRED, AUTH_ONLY, OPTIONAL = Policy.REQUIRED, Policy.AUTH_ONLY, Policy.OPTIONAL
GREETING = b"200 news.example.org InterNetNews NNRP server INN 2.7.1 ready (no posting)\r\n"
GO_AHEAD = b"382 Continue with TLS negotiation\r\n"
MUST = b"483 Encryption required, use STARTTLS\r\n"
SYNTAX = b"501 Syntax error\r\n"
LONG = b"501 Line too long\r\n"
UNAVAILABLE = b"400 Service temporarily unavailable\r\n"
ARTICLE = b"Subject: x\r\n\r\nQUIT\r\n..\r\nAUTHINFO USER joe\r\n.\r\n"
OWN_LIST = b"101 Capability list:\r\nVERSION 2\r\nSTARTTLS\r\n.\r\n"


def greeted(policy: Policy = REQUIRED, **changes: Any) -> Playbook:
    play = Playbook(DIALECT, terms(policy=policy, **changes)).start(DIAL).dialled()
    return play.returns(GREETING)


def inside(policy: Policy = REQUIRED, **changes: Any) -> Playbook:
    return greeted(policy, **changes).client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured()


# --- before TLS -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", [b"GROUP local.test\r\n", b"post\r\n", b"IHAVE <a@b>\r\n", b"MODE STREAM\r\n", b"LIST\r\n", b"XFOO\r\n"]
)
def test_reading_and_feeding_wait_for_tls_under_required_only(line: bytes) -> None:
    greeted().client(line, to_client(MUST)).run()
    greeted(AUTH_ONLY).asks(line, b"500 What?\r\n").run()
    greeted(OPTIONAL).asks(line, b"500 What?\r\n").run()


def test_what_is_open_before_tls() -> None:
    play = greeted().asks(b"MODE READER\r\n", GREETING)
    play.asks(b"mode reader\r\n", GREETING)
    play.asks(b"DATE\r\n", b"111 20261127120000\r\n")
    play.asks(b"HELP\r\n", b"100 Legal commands\r\n  ARTICLE\r\n").returns(b"  DATE\r\n.\r\n")
    play.asks(b"DATE\r\n", b"111 20261127120000\r\n").run()


def test_a_lazy_session_dials_nobody_before_tls() -> None:
    play = Playbook(DIALECT, terms(lazy=True)).start(to_client(b"200 gw.example.org ready\r\n"))
    play.client(b"CAPABILITIES\r\n", to_client(OWN_LIST))
    for line in (b"MODE READER\r\n", b"DATE\r\n", b"HELP\r\n"):
        play.client(line, to_client(MUST))
    play.client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured().client(b"GROUP a\r\n", DIAL).dialled()
    play.backend(GREETING, to_backend(b"GROUP a\r\n")).run()


def test_a_lazy_session_whose_backend_turns_it_away() -> None:
    play = Playbook(DIALECT, terms(lazy=True)).start(to_client(b"200 gw.example.org ready\r\n"))
    play.client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured().client(b"DATE\r\n", DIAL).dialled()
    play.returns(b"502 not you\r\n", close("backend-refused")).run()


def test_a_lazy_session_that_leaves() -> None:
    play = Playbook(DIALECT, terms(lazy=True)).start(to_client(b"200 gw.example.org ready\r\n"))
    play.client(b"QUIT\r\n", to_client(b"205 Connection closing\r\n"), close("quit")).run()


@pytest.mark.parametrize("policy", [REQUIRED, AUTH_ONLY])
@pytest.mark.parametrize(
    "line",
    [b"AUTHINFO USER joe\r\n", b"authinfo pass x\r\n", b"AUTHINFO SASL PLAIN AGEAYg==\r\n", b"AUTHINFO GENERIC x\r\n",
     b"AUTHINFO SIMPLE\r\n", b"AUTHINFO\r\n", b"COMPRESS DEFLATE\r\n"],
)  # fmt: skip
def test_logins_and_compression_wait_for_tls(policy: Policy, line: bytes) -> None:
    greeted(policy).client(line, to_client(MUST)).run()


def test_compression_is_never_possible_before_tls() -> None:
    """It needs no login, and there is no STARTTLS behind it (RFC 8054 2.2.2)."""
    greeted(OPTIONAL).client(b"COMPRESS DEFLATE\r\n", to_client(b"502 Command unavailable\r\n")).run()


def test_starttls_is_never_answered_480_or_483() -> None:
    play = greeted(OPTIONAL).client(b"STARTTLS now\r\n", to_client(SYNTAX))
    play.asks(b"AUTHINFO USER joe\r\n", b"381 go on\r\n")
    play.client(b"STARTTLS\r\n", to_client(b"502 STARTTLS not allowed between AUTHINFO USER and PASS\r\n"))
    play.asks(b"AUTHINFO PASS x\r\n", b"481 no\r\n").client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured()
    play.client(b"STARTTLS\r\n", to_client(b"502 Already using a security layer\r\n")).run()


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"TAKETHIS <a@b>\r\n", MUST),
        (b"takethis\r\n", MUST),
        (b"TAKETHIS " + b"x" * 510 + b"\r\n", LONG),
        (b"TAKETHIS " + b"x" * 20000 + b"\r\n", LONG),
        (b"TAKETHIS <a\0@b>\r\n", b"501 Invalid characters\r\n"),
        (b"TAKETHIS <a\r@b>\r\n", b"501 Invalid characters\r\n"),
        (b"\0TAKETHIS <a@b>\r\n", b"501 Invalid characters\r\n"),
        (b" TAKETHIS <a@b>\r\n", b"500 Unknown command\r\n"),
        (b"TAKETHIS\x0b<a@b>\r\n", b"500 Unknown command\r\n"),
    ],
)
def test_G30_a_refused_article_is_read_and_none_of_it_is_a_command(line: bytes, answer: bytes) -> None:
    play = greeted().client(line + ARTICLE + b"DATE\r\n", to_client(answer), to_backend(b"DATE\r\n"))
    play.returns(b"111 1\r\n").run()


@pytest.mark.parametrize("empty", [b"\r\n", b"\n", b"  \r\n", b"\t\r\n"])
@pytest.mark.parametrize("start", [greeted, inside])
def test_empty_lines_are_not_answered(start: Any, empty: bytes) -> None:
    start().client(empty).asks(b"DATE\r\n", b"111 1\r\n").run()


def test_what_looks_like_no_command_does_not_reach_the_backend() -> None:
    for line in (b" DATE\r\n", b"<a@b>\r\n", b"\xc3\xa9\r\n", b"222\r\n"):
        greeted(OPTIONAL).client(line, to_client(b"500 Unknown command\r\n")).run()


# --- articles and lists in the clear ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "wanted", "verdict"),
    [(b"POST\r\n", b"340 ok\r\n", b"240 ok\r\n"), (b"IHAVE <a@b>\r\n", b"335 ok\r\n", b"437 no\r\n")],
)
def test_an_article_is_asked_for(said: bytes, wanted: bytes, verdict: bytes) -> None:
    play = greeted(AUTH_ONLY).asks(said, wanted).asks(ARTICLE, verdict)
    play.asks(b"DATE\r\n", b"111 1\r\n").run()


def test_an_article_is_not_wanted() -> None:
    play = greeted(AUTH_ONLY).asks(b"IHAVE <a@b>\r\n", b"435 have it\r\n")
    play.asks(b"POST\r\n", b"440 no\r\n").client(b"AUTHINFO USER joe\r\n", to_client(MUST)).run()


def test_an_article_that_comes_at_once() -> None:
    play = greeted(AUTH_ONLY).asks(b"MODE STREAM\r\n", b"203 ok\r\n")
    play.asks(b"CHECK <a@b>\r\n", b"238 <a@b>\r\n")
    play.client(b"TAKETHIS <a@b>\r\n" + ARTICLE + b"CHECK <c@d>\r\n", to_backend(b"TAKETHIS <a@b>\r\n" + ARTICLE))
    play.returns(b"239 <a@b>\r\n", to_backend(b"CHECK <c@d>\r\n")).run()


@pytest.mark.parametrize("start", [lambda: greeted(AUTH_ONLY), inside])
@pytest.mark.parametrize("refusal", [b"500 What?\r\n", b"501 Bad subcommand\r\n", b"480 Who are you?\r\n"])
def test_an_article_is_kept_from_a_server_that_would_take_it_for_commands(start: Any, refusal: bytes) -> None:
    """nnrpd does: the logins in it would be heard in the clear, and nobody would count them."""
    article = b"AUTHINFO USER joe\r\nAUTHINFO PASS guess\r\n.\r\n"
    play = start().client(b"TAKETHIS <a@b>\r\n" + article + b"DATE\r\n", to_backend(b"MODE STREAM\r\n"))
    play.returns(refusal, to_backend(b"DATE\r\n"))
    play.returns(b"111 1\r\n").run()


def test_a_server_that_does_not_say_whether_it_takes_articles() -> None:
    play = greeted(AUTH_ONLY).client(b"TAKETHIS <a@b>\r\n.\r\n", to_backend(b"MODE STREAM\r\n"))
    play.backend(b"200 hm\r\n", to_client(UNAVAILABLE), ABORT_BACKEND, close("backend-protocol-error")).run()


@pytest.mark.parametrize("start", [lambda: greeted(AUTH_ONLY), inside])
def test_lists_stay_lines(start: Any) -> None:
    """Compressed ones have no end that could be found, so that the client would never be heard again."""
    start().client(b"XFEATURE COMPRESS GZIP\r\n", to_client(b"500 Unknown command\r\n")).run()
    for stage in (Stage.CLOSED, Stage.OPEN, Stage.SECURE):
        assert words.edit_capabilities([b"OVER", b"XFEATURE-COMPRESS GZIP TERMINATOR"], stage) == [b"OVER"]


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r"])
def test_a_dot_between_other_line_ends_is_no_end_for_the_backend(end: bytes) -> None:
    """INN ends an article there, and what follows would be commands."""
    play = greeted(AUTH_ONLY).asks(b"POST\r\n", b"340 ok\r\n")
    cleaned = b"x" + {
        b"\n.\n": b"\r\n..\r\n", b"\n.\r\n": b"\r\n..\r\n", b"\r\n.\n": b"\r\n..\r\n", b"\r.\r": b" . ",
        b"\r\n.\r": b"\r\n. ",
    }[end] + b"AUTHINFO USER joe\r\n.\r\n"  # fmt: skip
    play.client(b"x" + end + b"AUTHINFO USER joe\r\n.\r\n", to_backend(cleaned)).run()


@pytest.mark.parametrize("said", [b"GROUP a\r\n", b"CHECK <a@b>\r\n", b"TAKETHIS <a@b>\r\n.\r\n"])
def test_a_go_ahead_that_was_not_asked_for_ends_the_session(said: bytes) -> None:
    """The backend would read as an article what the gateway reads as commands."""
    play = greeted(AUTH_ONLY).asks(b"MODE STREAM\r\n", b"203 ok\r\n").passes(said)
    play.backend(b"340 send it\r\n", to_client(UNAVAILABLE), ABORT_BACKEND, close("backend-protocol-error")).run()


def test_a_second_go_ahead_ends_the_session() -> None:
    play = greeted(AUTH_ONLY).asks(b"POST\r\n", b"340 ok\r\n").passes(b".\r\n")
    play.backend(b"340 again\r\n", to_client(UNAVAILABLE), ABORT_BACKEND, close("backend-protocol-error")).run()


@pytest.mark.parametrize(
    ("said", "first"),
    [(b"ARTICLE 1\r\n", b"220 1 <a@b>\r\n"), (b"LIST\r\n", b"215 list\r\n"), (b"LISTGROUP a\r\n", b"211 1 1 1 a\r\n"),
     (b"XOVER 1-\r\n", b"224 list\r\n")],
)  # fmt: skip
def test_a_list_passes_whatever_it_holds(said: bytes, first: bytes) -> None:
    lines = b"481 no\r\n..\r\n\n.\nx\r\n340 send\r\n" + b"y" * 9000 + b"\r\n.\r\n"
    play = greeted(AUTH_ONLY).client(said + b"DATE\r\n", to_backend(said))
    play.returns(first + lines, to_backend(b"DATE\r\n")).run()


def test_211_to_group_is_one_line() -> None:
    play = greeted(AUTH_ONLY).asks(b"GROUP a\r\n", b"211 1 1 1 a\r\n")
    play.asks(b"DATE\r\n", b"111 1\r\n").run()


def test_a_backend_lost_within_a_list() -> None:
    """Nothing is said behind what came: it would seem to be a part of it."""
    play = greeted(AUTH_ONLY).asks(b"LIST\r\n", b"215 list\r\na 1 1 y\r\n")
    play.ended(Side.BACKEND, True, ABORT_BACKEND, close("backend-lost")).run()


def test_a_client_lost_within_an_article() -> None:
    play = greeted(AUTH_ONLY).asks(b"POST\r\n", b"340 ok\r\n").passes(b"half\r\n")
    play.ended(Side.CLIENT, True, ABORT_BACKEND, close("client-lost")).run()


def test_lists_that_nobody_knows_pass_line_by_line_and_never_into_tls() -> None:
    play = greeted(AUTH_ONLY).asks(b"XFOO\r\n", b"299 list\r\n400 a\r\n").returns(b".\r\n")
    play.client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured()
    play.backend(b"a\r\n", to_client(UNAVAILABLE), ABORT_BACKEND, close("backend-protocol-error")).run()


@pytest.mark.parametrize("reader", [False, True])
@pytest.mark.parametrize("group", [b"GROUP a\r\n", b"LISTGROUP a\r\n"])
def test_a_group_that_was_chosen_in_the_clear_counts_no_more(group: bytes, reader: bool) -> None:
    """RFC 4642 2.2.2: else somebody on the path could choose it.  A fresh backend is told again that we read."""

    def dialled() -> Playbook:
        play = greeted(AUTH_ONLY)
        if reader:
            play.asks(b"MODE READER\r\n", GREETING)
        play.asks(group, b"211 0 0 0 a\r\n" + b".\r\n" * group.startswith(b"L"))
        return play.client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured(DIAL).dialled()

    play = dialled().backend(GREETING, *[to_backend(b"MODE READER\r\n")] * reader)
    if reader:
        play.backend(GREETING)
    play.asks(b"STAT\r\n", b"412 no group\r\n").run()
    dialled().returns(b"502 not you\r\n", close("backend-refused")).run()
    if reader:
        play = dialled().backend(GREETING, to_backend(b"MODE READER\r\n"))
        play.returns(b"502 not you\r\n", close("backend-refused")).run()


@pytest.mark.parametrize("said", [b"XTHREAD\r\n", b"XFOO\r\n"])
@pytest.mark.parametrize("answer", [b"288 a list?\r\n", b"211 1 1 1 a\r\n", b"199 what\r\n"])
def test_behind_a_reply_whose_end_nobody_knows_a_client_can_read_and_no_more(said: bytes, answer: bytes) -> None:
    """`281 in` in that list would be taken for the reply to a login."""
    ending = (ABORT_BACKEND, close("backend-protocol-error"))
    for then in (b"AUTHINFO USER joe\r\n", b"authinfo sasl PLAIN\r\n", b"MODE READER\r\n", b"STARTTLS\r\n"):
        play = inside().client(said + then, to_backend(said))
        play.backend(answer, to_client(answer + UNAVAILABLE), *ending).run()
        play = inside().asks(said, answer).passes(b"DATE\r\nGROUP a\r\n")
        told = b"a\r\n281 in\r\n.\r\n111 20261127120000\r\n211 1 1 1 a\r\n"
        play.returns(told).asks(b"XTHREAD\r\n", b".\r\n").client(then, *ending).run()
        play = inside().asks(said, answer + b"281 in\r\n.\r\n")
        play.passes(b"DATE\r\n").run()
    play = inside().asks(said, answer).returns(b"281 in\r\n")
    play.passes(b"QUIT\r\n", to_client(b"205 Connection closing\r\n"), close("quit")).run()


@pytest.mark.parametrize("line", [b"DATE " + b"x" * 600, b"DATE\0", b"TAKETHIS <a@b>\0", b"@"])
def test_where_replies_have_lost_their_order_no_word_of_ours_comes_between(line: bytes) -> None:
    play = inside().asks(b"XFOO\r\n", b"288 a list?\r\n").passes(b"DATE\r\n")
    play.client(line + b"\r\n", ABORT_BACKEND, close("client-protocol-error")).run()


def test_where_replies_have_lost_their_order_the_server_answers_QUIT() -> None:
    said = b"ARTICLE 1\r\nQUIT\r\n"
    play = inside().asks(b"XFOO\r\n", b"288 done\r\n").passes(said)
    told = b"220 1 <a>\r\nx\r\n.\r\n205 bye\r\n"
    play.returns(told).ended(Side.BACKEND, True, close("quit")).run()


@pytest.mark.parametrize("side", Side)
def test_where_replies_have_lost_their_order_nothing_is_said_of_an_end(side: Side) -> None:
    play = inside().asks(b"XFOO\r\n", b"288 done\r\n").passes(b"ARTICLE 1\r\n")
    play.ended(side, True, ABORT_BACKEND, close(f"{side.value}-lost")).run()


def test_required_holds_behind_a_reply_whose_end_nobody_knows() -> None:
    play = greeted().asks(b"HELP\r\n", b"199 help\r\n")
    play.client(b"GROUP a\r\n", to_client(UNAVAILABLE), ABORT_BACKEND, close("backend-protocol-error")).run()


@pytest.mark.parametrize("early", [b"441 too long\r\n", b"240 taken\r\n"])
def test_a_verdict_before_the_end_of_an_article_is_the_last_thing_that_is_asked(early: bytes) -> None:
    """Its real verdict would be taken for the reply to the next command, and open a login that failed."""
    play = greeted(OPTIONAL).asks(b"POST\r\n", b"340 go\r\n").passes(b"x\r\n")
    ending = (to_client(early + UNAVAILABLE), ABORT_BACKEND, close("backend-protocol-error"))
    play.backend(early).client(b".\r\nAUTHINFO USER joe\r\n", to_backend(b".\r\n"), *ending).run()


def test_the_first_success_proves_that_a_client_is_one() -> None:
    greeted(AUTH_ONLY).asks(b"GROUP a\r\n", b"211 1 1 1 a\r\n", PROVEN).run()


# --- capabilities ----------------------------------------------------------------------------------------


def test_a_server_from_before_capabilities() -> None:
    play = greeted().passes(b"CAPABILITIES\r\n")
    play.backend(b"500 What?\r\n", to_client(OWN_LIST)).client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured()
    play.asks(b"CAPABILITIES\r\n", b"500 What?\r\n").run()


def test_a_list_in_two_segments_as_INN_sends_it() -> None:
    """tin and nntplib ask inside TLS; a server without a certificate would go on offering STARTTLS."""
    play = inside().asks(b"CAPABILITIES\r\n", b"101 Capability list:\r\n")
    play.backend(b"VERSION 2\r\nSTARTTLS\r\nREADER\r\n.\r\n", to_client(b"VERSION 2\r\nREADER\r\n.\r\n")).run()


def test_a_list_that_breaks_off() -> None:
    play = greeted().passes(b"CAPABILITIES\r\n")
    play.backend(b"101 list\r\nVERSION 2\r\nSASL PLAIN\r\n", to_client(b"101 list\r\n"))
    play.ended(Side.BACKEND, True, to_client(b"VERSION 2\r\n"), ABORT_BACKEND, close("backend-lost")).run()


@pytest.mark.parametrize("line", [b"x\r\n" * 1001, b"x" * 8000 + b"\r\n"])
def test_a_list_without_end(line: bytes) -> None:
    lines = line * 40 if len(line) > 8000 else line
    play = inside().asks(b"CAPABILITIES\r\n", b"101 list\r\n")
    play.backend(lines, to_client(lines[: 33 * 8002 - 8002 if len(line) > 8000 else 3000]), ABORT_BACKEND,
                 close("backend-protocol-error")).run((0,))  # fmt: skip


def test_a_server_that_wants_tls_for_logins_is_told_of() -> None:
    play = inside().passes(b"CAPABILITIES\r\n")
    told = b"101 list\r\nVERSION 2\r\nAUTHINFO\r\n.\r\n"
    play.returns(told, note("backend-refuses-plaintext-auth")).run()
    play = inside().passes(b"AUTHINFO USER joe\r\n")
    told = b"483 Encryption or stronger authentication required\r\n"
    play.returns(told, note("backend-refuses-plaintext-auth")).run()


def test_mechanisms_with_channel_binding_are_told_of() -> None:
    play = inside().passes(b"CAPABILITIES\r\n")
    play.backend(b"101 list\r\nAUTHINFO SASL\r\nSASL SCRAM-SHA-1-PLUS SCRAM-SHA-1 PLAIN\r\n.\r\n",
                 to_client(b"101 list\r\nAUTHINFO SASL\r\nSASL PLAIN\r\n.\r\n"),
                 note("backend-channel-binding")).run()  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "lines", "told"),
    [
        (Stage.SECURE, [b"AUTHINFO USER SASL", b"SASL EXTERNAL"], [b"AUTHINFO USER"]),
        (Stage.SECURE, [b"AUTHINFO SASL", b"SASL EXTERNAL"], [b"AUTHINFO"]),
        (Stage.SECURE, [b"authinfo user", b"compress DEFLATE", b""], [b"authinfo user", b"compress DEFLATE", b""]),
        (
            Stage.OPEN,
            [b"AUTHINFO USER SASL", b"SASL PLAIN", b"COMPRESS DEFLATE"],
            [b"AUTHINFO USER SASL", b"SASL PLAIN"],
        ),
        (Stage.CLOSED, [b"AUTHINFO USER SASL", b"SASL PLAIN", b"MODE-READER"], [b"AUTHINFO", b"MODE-READER"]),
    ],
)
def test_capabilities_are_edited(stage: Stage, lines: list[bytes], told: list[bytes]) -> None:
    assert words.edit_capabilities(lines, stage) == told


_LINES = st.lists(
    st.lists(
        st.sampled_from(
            [b"AUTHINFO", b"SASL", b"USER", b"STARTTLS", b"COMPRESS", b"PLAIN", b"EXTERNAL", b"X-PLUS", b"X", b""]
        ),
        max_size=5,
    ).map(b" ".join)
)


@given(_LINES, st.sampled_from([Stage.CLOSED, Stage.OPEN, Stage.SECURE]))
def test_editing_twice_is_editing_once(lines: list[bytes], stage: Stage) -> None:
    told = words.edit_capabilities(lines, stage)
    assert words.edit_capabilities(told, stage) == told
    labels = [line.split()[0] for line in told if line.split()]
    assert not words.HIDDEN[stage] & set(labels)
    assert stage is not Stage.CLOSED or words.logins(told) in (None, ())
    offered = [word for line in told if line.split()[:1] == [b"SASL"] for word in line.split()[1:]]
    assert not sasl.unusable(offered) & set(offered)


def test_logins_in_a_list() -> None:
    assert words.logins([b"VERSION 2", b"READER"]) is None
    assert words.logins([b"AUTHINFO"]) == ()
    assert words.logins([b"AUTHINFO USER", b"SASL ANONYMOUS PLAIN", b""]) == ("AUTHINFO USER", "AUTHINFO SASL PLAIN")


# --- inside TLS -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"IHAVE <a@b>\r\n", b"335 send\r\n"),
        (b"MODE STREAM\r\n", b"203 ok\r\n"),
        (b"check <a@b>\r\n", b"238 <a@b>\r\n"),
    ],
)
def test_a_feed_is_spliced_when_the_server_takes_it(line: bytes, reply: bytes) -> None:
    inside().asks(line, reply, PROVEN, SPLICE).run()


def test_an_article_that_comes_at_once_inside_tls() -> None:
    """What comes behind it is a command again when the server has refused it."""
    said = b"TAKETHIS <a@b>\r\n" + ARTICLE
    play = inside().client(said, to_backend(b"MODE STREAM\r\n")).backend(b"203 ok\r\n", to_backend(said))
    play.returns(b"439 <a@b>\r\n")
    play.asks(said, b"239 <a@b>\r\n", PROVEN, SPLICE).run()


@pytest.mark.parametrize(
    "line", [b"IHAVE <a@b>\r\n", b"MODE STREAM\r\n", b"CHECK <a@b>\r\n", b"GROUP a\r\n", b"POST\r\n"]
)
def test_a_login_behind_a_refusal_is_counted(line: bytes) -> None:
    play = inside().asks(line, b"480 Authentication required\r\n")
    play.asks(b"AUTHINFO USER joe\r\n", b"381 go on\r\n")
    play.asks(b"AUTHINFO PASS x\r\n", b"481 no\r\n", note("auth", result="failed"), REJECTED).run()


@pytest.mark.parametrize(
    ("line", "reply"),
    [(b"GROUP a\r\n", b"211 1 1 1 a\r\n"), (b"xover 1-\r\n", b"224 list\r\n1\ta\r\n.\r\n"),
     (b"ARTICLE 1\r\n", b"220 1 <a@b>\r\n" + ARTICLE)],
)  # fmt: skip
def test_a_login_behind_reading_is_counted(line: bytes, reply: bytes) -> None:
    """Where anybody may read, a reader could else guess passwords for ever."""
    play = inside().asks(line, reply, PROVEN)
    play.asks(b"AUTHINFO USER joe\r\n", b"381 go on\r\n")
    play.asks(b"AUTHINFO PASS x\r\n", b"481 no\r\n", note("auth", result="failed"), REJECTED).run()


def test_a_post_inside_tls() -> None:
    play = inside().asks(b"POST\r\n", b"340 go\r\n", PROVEN)
    play.client(ARTICLE + b"DATE\r\n", to_backend(ARTICLE))
    play.returns(b"240 ok\r\n", to_backend(b"DATE\r\n")).run()


def test_other_commands_do_not() -> None:
    play = inside().asks(b"MODE READER\r\n", GREETING)
    play.asks(b"HELP\r\n", b"100 help\r\nDATE\r\n.\r\n")
    play.asks(b"FOO\r\n", b"500 What?\r\n")
    play.asks(b"DATE\r\n", b"111 1\r\n").run()


def test_compression_is_spliced_from_the_next_octet() -> None:
    play = inside().asks(b"COMPRESS FOO\r\n", b"503 no\r\n")
    play.asks(b"COMPRESS DEFLATE\r\n", b"206 now\r\n", PROVEN, SPLICE).run()
    inside().asks(b"COMPRESS DEFLATE\r\n", b"206 now\r\n\0\xff", SPLICE).run((0,))


def test_a_login_by_name_and_password() -> None:
    play = inside().asks(b"authinfo user joe\r\n", b"381 go on\r\n")
    play.passes(b"authinfo pass secret\r\n")
    known = note("auth", result="ok", mechanism="USER", user=b"joe")
    play.returns(b"281 in\r\n", known, PROVEN, SPLICE)
    play.run()


def test_a_name_may_be_enough() -> None:
    inside().asks(b"AUTHINFO USER joe\r\n", b"281 in\r\n", PROVEN, SPLICE).run()


@pytest.mark.parametrize(
    ("answer", "counted"),
    [(b"481 no\r\n", 1), (b"482 no\r\n", 1), (b"502 no\r\n", 1), (b"403 later\r\n", 0), (b"500 What?\r\n", 0),
     (b"281x\r\n", None)],
)  # fmt: skip
def test_which_refusals_are_failed_logins(answer: bytes, counted: int | None) -> None:
    play = inside().asks(b"AUTHINFO USER joe\r\n", b"381 go on\r\n")
    play.passes(b"AUTHINFO PASS x\r\n")
    if counted is None:
        play.backend(answer, to_client(UNAVAILABLE), ABORT_BACKEND, close("backend-protocol-error")).run()
    else:
        play.returns(answer, *([REJECTED] * counted)).run()
        assert play.rejected == counted


def test_a_password_without_a_name_is_out_of_sequence() -> None:
    play = inside().asks(b"AUTHINFO PASS x\r\n", b"482 out of sequence\r\n").run()
    assert play.rejected == 0
    play = inside().asks(b"AUTHINFO PASS x\r\n", b"481 no\r\n").run()
    assert play.rejected == 1
    play = inside().asks(b"AUTHINFO USER nobody\r\n", b"481 no\r\n").run()
    assert play.rejected == 1


@pytest.mark.parametrize(
    ("said", "answer"),
    [(b"AUTHINFO PASS x\r\n", b"482 out of sequence\r\n"), (b"AUTHINFO SASL FOO\r\n", b"503 what?\r\n")],
)
def test_a_login_without_credentials_is_a_bad_command(said: bytes, answer: bytes) -> None:
    play = inside(bad_commands=3).asks(said, answer).asks(said, answer).passes(said)
    ending = (to_backend(b"QUIT\r\n"), close("too-many-bad-commands"))
    play.backend(answer, to_client(answer + b"400 Too many invalid commands\r\n"), *ending).run()
    assert play.rejected == 0


@pytest.mark.parametrize(
    "line", [b"AUTHINFO\r\n", b"AUTHINFO USER\r\n", b"AUTHINFO GENERIC x\r\n", b"AUTHINFO SIMPLE\r\n",
             b"AUTHINFO SASL a b c\r\n", b"AUTHINFO SASL PLAIN *\r\n"]
)  # fmt: skip
def test_other_forms_are_refused(line: bytes) -> None:
    inside().client(line, to_client(SYNTAX)).run()


@pytest.mark.parametrize("name", [b"EXTERNAL", b"external", b"SCRAM-SHA-1-PLUS"])
def test_mechanisms_that_cannot_work_are_refused(name: bytes) -> None:
    inside().client(b"AUTHINFO SASL %s =\r\n" % name, to_client(b"503 Mechanism not recognized\r\n")).run()


@pytest.mark.parametrize("success", [b"281 in\r\n", b"283 cnNwYXV0aD0x\r\n"])
def test_a_dialogue(success: bytes) -> None:
    play = inside().asks(b"AUTHINFO SASL CRAM-MD5\r\n", b"383 PDE=\r\n")
    play.asks(b"am9lIDE=\r\n", success, note("auth", result="ok", mechanism="CRAM-MD5"), PROVEN, SPLICE).run()


def test_a_long_initial_response() -> None:
    line = b"AUTHINFO SASL OAUTHBEARER " + b"A" * sasl.INITIAL_RESPONSE + b"\r\n"
    inside().asks(line, b"281 in\r\n", SPLICE).run((0,))
    line = b"AUTHINFO USER " + b"A" * 600 + b"\r\n"
    inside().client(line, to_client(LONG)).run()


@pytest.mark.parametrize(
    ("said", "heard"), [(b"*\r\n", b"*\r\n"), (b"AUTHINFO USER joe\r\n", b"*\r\n"), (b"\0\r\n", b"*\r\n")]
)
def test_a_dialogue_that_is_taken_back(said: bytes, heard: bytes) -> None:
    play = inside().asks(b"AUTHINFO SASL PLAIN\r\n", b"383 =\r\n").client(said, to_backend(heard))
    play.returns(b"481 cancelled\r\n")
    play.asks(b"DATE\r\n", b"111 1\r\n").run()
    assert play.rejected == 0


def test_a_success_that_nothing_was_said_for_proves_nothing() -> None:
    for line, response in ((b"AUTHINFO SASL PLAIN\r\n", b""), (b"AUTHINFO SASL PLAIN\r\n", b"*\r\n")):
        play = inside().passes(line)
        if response:
            play.returns(b"383 =\r\n").passes(response)
        play.returns(b"281 in\r\n", note("auth", result="unproven"))
        play.asks(b"DATE\r\n", b"111 1\r\n").run()
        assert play.proven == 0


def test_a_wrong_response_is_a_failed_login() -> None:
    play = inside().asks(b"AUTHINFO SASL PLAIN\r\n", b"383 =\r\n")
    play.asks(b"AGEAYg==\r\n", b"481 no\r\n").run()
    assert play.rejected == 1


def test_a_backend_that_speaks_within_a_dialogue() -> None:
    play = inside().asks(b"AUTHINFO SASL PLAIN\r\n", b"383 =\r\n")
    play.backend(b"281 in\r\n", to_client(UNAVAILABLE), ABORT_BACKEND, close("backend-protocol-error")).run()
    play = inside().asks(b"AUTHINFO SASL PLAIN\r\n", b"383 =\r\n")
    play.returns(b"400 stopping\r\n", close("backend-closed")).run()


# --- the end -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [greeted, inside])
def test_400_may_come_at_any_time(start: Any) -> None:
    leaves = b"400 stopping\r\n"
    start().returns(leaves, close("backend-closed")).run()
    start().asks(b"DATE\r\n", leaves, close("backend-closed")).run()
    start().asks(b"CAPABILITIES\r\n", leaves, close("backend-closed")).run()


def test_quit() -> None:
    play = inside().asks(b"QUIT now\r\n", b"501 no\r\n").asks(b"quit\r\n", b"205 Bye!\r\n", close("quit")).run()
    play = inside().passes(b"QUIT\r\n")
    play.ended(Side.BACKEND, True, to_client(b"205 Connection closing\r\n"), close("quit")).run()
    play = inside().passes(b"QUIT\r\n")
    play.backend(b"20").ended(Side.BACKEND, True, ABORT_BACKEND, close("backend-lost")).run()


def test_a_backend_that_answers_starttls_by_400() -> None:
    play = Playbook(DIALECT, terms(backend_tls=BackendTLS.STARTTLS)).start(DIAL).dialled()
    play.backend(GREETING, to_backend(b"STARTTLS\r\n"))
    play.returns(b"400 too busy\r\n", close("backend-refused")).run()
