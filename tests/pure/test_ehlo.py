"""The EHLO reply's table: each keyword in each stage."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.dialects.conversation import Stage
from gateway.dialects.mail import ehlo, extensions
from gateway.dialects.mail.ehlo import edit

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""

HOST = b"legacy.example.org greets you"
CLEAR = (Stage.CLOSED, Stage.OPEN)
SECURE = (Stage.SECURE,)
EVER = (*CLEAR, *SECURE)

AUTHORITY = (
    b"XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT", b"XFORWARD NAME ADDR", b"XRCPTFORWARD",
    b"XPROXY", b"XPROXYFROM", b"XPROXYTO", b"XOORG", b"XSESSIONPARAMS", b"X-ANONYMOUSTLS", b"XEXCH50",
    b"XSHADOW", b"XSHADOWREQUEST", b"XSHADOWFOO", b"X-LINK2STATE",
)  # fmt: skip
UNSAFE = (
    b"PIPECONNECT", b"X_PIPE_CONNECT", b"PIPE_CONNECT", b"ATRN", b"TURN", b"XTRN", b"REQUIRETLS", b"PRDR",
    b"CHECKPOINT", b"XRDST", b"XEXDATA", b"XSECURITY=NONE,STARTTLS", b"X-EXCHANGEAUTH SHA256", b"X-MESSAGECONTEXT A",
)  # fmt: skip
HARMLESS = (
    b"PIPELINING", b"SIZE 10240000", b"SIZE=35882577", b"8BITMIME", b"SMTPUTF8", b"DSN", b"ENHANCEDSTATUSCODES",
    b"ETRN", b"VRFY", b"EXPN", b"HELP", b"DELIVERBY", b"MT-PRIORITY", b"FUTURERELEASE", b"NO-SOLICITING",
    b"LIMITS RCPTMAX=1000", b"CHUNKING", b"BINARYMIME", b"VERB", b"ONEX", b"XXXA", b"X-UNKNOWN \xff", b"", b"=",
    b"AUTHENTICATION", b"STARTTLSX", b"XCLIENTELE",
)  # fmt: skip


def told(line: bytes, stage: Stage, withheld: frozenset[bytes] = ehlo.UNPROMISED) -> list[bytes]:
    """What becomes of a line among others: without our own STARTTLS, which must be last in the clear."""
    lines = edit([HOST, b"8BITMIME", line, b"DSN"], stage, withheld)
    assert lines[:2] == [HOST, b"8BITMIME"]
    if stage is not Stage.SECURE:
        assert lines.pop() == b"STARTTLS"
    assert lines.pop() == b"DSN"
    return lines[2:]


def cased(line: bytes) -> list[bytes]:
    return [line, line.lower(), line.swapcase()]


@pytest.mark.parametrize("stage", EVER)
@pytest.mark.parametrize("line", HARMLESS, ids=repr)
def test_a_harmless_line_is_kept_as_it_is(line: bytes, stage: Stage) -> None:
    for form in cased(line):
        assert told(form, stage) == [form]


@pytest.mark.parametrize("stage", EVER)
@pytest.mark.parametrize("line", [*AUTHORITY, *UNSAFE, b"STARTTLS", b"STARTTLS required"], ids=repr)
def test_what_carries_authority_or_is_unsafe_is_removed(line: bytes, stage: Stage) -> None:
    for form in cased(line):
        assert told(form, stage) == []


@pytest.mark.parametrize("form", [b" %s", b"\t%s", b"%s ", b"%s\r", b"\v%s\f", b"%s=", b"%s=x"], ids=repr)
@pytest.mark.parametrize("word", [b"STARTTLS", b"XCLIENT", b"AUTH"])
def test_white_space_does_not_hide_a_keyword_from_us_that_a_client_would_see(word: bytes, form: bytes) -> None:
    assert told(form % word, Stage.CLOSED) == []


AUTH: tuple[tuple[bytes, list[bytes]], ...] = (
    # offered, left where authentication is allowed
    (b"AUTH PLAIN LOGIN", [b"AUTH PLAIN LOGIN"]),
    (b"AUTH  PLAIN  LOGIN ", [b"AUTH  PLAIN  LOGIN "]),
    (b"AUTH=LOGIN PLAIN", [b"AUTH=LOGIN PLAIN"]),
    (b"AUTH PLAIN LOGIN EXTERNAL", [b"AUTH PLAIN LOGIN"]),
    (b"auth plain external", [b"auth plain"]),
    (b"AUTH=PLAIN External", [b"AUTH=PLAIN"]),
    (b"AUTH= EXTERNAL PLAIN", [b"AUTH= PLAIN"]),
    (b"AUTH EXTERNAL", []),
    (b"AUTH=EXTERNAL", []),
    (b"AUTH EXTERNAL\r", []),
    (b"AUTH", []),
    (b"AUTH=", []),
    (b"X-EXPS GSSAPI NTLM EXTERNAL", [b"X-EXPS GSSAPI NTLM"]),
    (b"X-EXPS=LOGIN", [b"X-EXPS=LOGIN"]),
    (b"x-exps=external", []),
    (b"AUTH SCRAM-SHA-1 SCRAM-SHA-1-PLUS PLAIN", [b"AUTH PLAIN"]),
    (b"AUTH scram-sha-256-plus SCRAM-SHA-256 LOGIN", [b"AUTH LOGIN"]),
    (b"AUTH SCRAM-SHA-1 SCRAM-SHA-1-PLUS", [b"AUTH SCRAM-SHA-1"]),
    (b"AUTH SCRAM-SHA-1-PLUS", []),
    (b"AUTH SCRAM-SHA-1 PLAIN", [b"AUTH SCRAM-SHA-1 PLAIN"]),
)


@pytest.mark.parametrize(("line", "left"), AUTH, ids=repr)
def test_S08_authentication_is_filtered_where_it_is_allowed_and_hidden_where_not(
    line: bytes, left: list[bytes]
) -> None:
    assert told(line, Stage.SECURE) == left
    assert told(line, Stage.OPEN) == left
    assert told(line, Stage.CLOSED) == []


def test_channel_binding_counts_over_all_lines_of_the_reply() -> None:
    lines = [HOST, b"AUTH PLAIN SCRAM-SHA-1 SCRAM-SHA-1-PLUS", b"AUTH=SCRAM-SHA-1 PLAIN"]
    assert edit(lines, Stage.SECURE) == [HOST, b"AUTH PLAIN", b"AUTH=PLAIN"]


@pytest.mark.parametrize("stage", EVER)
def test_burl_is_kept_unless_our_header_could_not_come_before_it(stage: Stage) -> None:
    for form in cased(b"BURL imap"):
        assert told(form, stage) == [form]
        assert told(form, stage, frozenset({b"BURL"})) == []


@pytest.mark.parametrize("line", [b"STARTTLS", b"XCLIENT", b"AUTH PLAIN", b""])
def test_the_first_line_is_never_touched(line: bytes) -> None:
    assert edit([line], Stage.SECURE) == [line]
    assert edit([line], Stage.CLOSED) == [line, b"STARTTLS"]


def test_S07_only_removable_keywords_leave_the_domain() -> None:
    lines = [b"domain", b"STARTTLS", b"AUTH EXTERNAL", b"XCLIENT ADDR", b"PIPECONNECT", b"TURN"]
    assert edit(lines, Stage.SECURE) == [b"domain"]
    assert edit(lines, Stage.OPEN) == edit(lines, Stage.CLOSED) == [b"domain", b"STARTTLS"]


WORDS = st.sampled_from(
    [*AUTHORITY, *UNSAFE, *HARMLESS, b"STARTTLS", b"BURL", b" AUTH EXTERNAL", *(line for line, _ in AUTH)]
)
REPLIES = st.lists(st.one_of(WORDS, WORDS.map(bytes.lower), st.binary(max_size=12)), min_size=1, max_size=12)


@UNHURRIED
@given(REPLIES, st.sampled_from(EVER), st.frozensets(st.sampled_from([b"BURL", b"REQUIRETLS"])))
def test_editing_twice_is_editing_once(lines: list[bytes], stage: Stage, withheld: frozenset[bytes]) -> None:
    once = edit(lines, stage, withheld)
    assert edit(once, stage, withheld) == once


@UNHURRIED
@given(REPLIES, st.sampled_from(EVER))
def test_nothing_is_left_that_must_not_be_told(lines: list[bytes], stage: Stage) -> None:
    heard = edit(lines, stage)
    words = [ehlo.keyword(line) for line in heard[1:]]
    assert words.count(b"STARTTLS") == (stage in CLEAR)
    assert not {word for word in words if extensions.is_hidden(word, ehlo.UNPROMISED)}
    assert b"EXTERNAL" not in ehlo.mechanisms(heard[1:])
    assert not [name for name in ehlo.mechanisms(heard[1:]) if name.endswith(b"-PLUS")]
    if stage is Stage.CLOSED:
        assert not ehlo.AUTH & set(words)


@UNHURRIED
@given(REPLIES, st.sampled_from(EVER))
def test_order_is_kept(lines: list[bytes], stage: Stage) -> None:
    heard = [ehlo.keyword(line) for line in edit(lines, stage)[1:] if line != b"STARTTLS"]
    offered = iter(ehlo.keyword(line) for line in lines[1:])
    assert all(word in offered for word in heard)
