"""What real SMTP servers and clients do, and the first design did not expect; rows T01, T04, T05, T06, T11."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.dialects.mail.received import declared
from gateway.dialects.mail.smtp import DIALECT, exchange
from gateway.protocol.vocabulary import Expired, Side
from tests.pure.playbook import (
    ABORT_BACKEND,
    DELIVERED,
    DIAL,
    PROVEN,
    REJECTED,
    SINGLE,
    TLS13,
    WHOLE,
    Playbook,
    Stage,
    close,
    note,
    terms,
    tls,
    to_backend,
    to_client,
)
from tests.pure.smtp_talk import (
    AUTH_ONLY,
    CLOSED,
    EHLO,
    GARBAGE,
    GO_AHEAD,
    GREETING,
    HARMLESS,
    LOST,
    MUST_STARTTLS,
    NOT_IMPLEMENTED,
    OK,
    OPTIONAL,
    SYNTAX,
    TOO_MANY,
    authenticated,
    envelope,
    greeted,
    hello,
    secure,
    upgraded,
)

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""
QUEUED = b"250 2.0.0 Ok: queued\r\n"
NO_PARAMETERS = b"501 5.5.4 Syntax: STARTTLS takes no parameters\r\n"


def goes_on(play: Playbook) -> Playbook:
    return play.asks(b"NOOP\r\n", b"250 ok\r\n")


# --- T01: hidden extensions ------------------------------------------------------------------------------

EXIM_TOLD = b"250-exim.example\r\n250-SIZE 52428800\r\n250-8BITMIME\r\n250-PIPELINING\r\n250 HELP\r\n"
EXIM = EXIM_TOLD.replace(b"250 HELP", b"250-PIPECONNECT\r\n250-PRDR\r\n250 HELP")


def test_T01_PRDR_is_not_offered_and_a_client_that_asks_for_it_is_refused() -> None:
    play = hello(upgraded(), EXIM, EXIM_TOLD)
    play.client(b"MAIL FROM:<s@c.example> PRDR\r\n", to_client(b"555 5.5.4 Parameter PRDR is not supported\r\n"))
    goes_on(envelope(play)).run()


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (b"MAIL FROM:<a@b> SIZE=5 prdr", b"PRDR"),
        (b"MAIL FROM:<a@b>PRDR", b"PRDR"),
        (b"SEND FROM:<a@b> PRDR", b"PRDR"),
        (b"MAIL FROM:<a@b> TRANSID=<1@c>", b"TRANSID"),
        (b"MAIL FROM:<a@b> XOORG=other.example", b"XOORG"),
        (b"MAIL FROM:<a@b> XMESSAGECONTEXT=ADRC-2.1.0.0", b"XMESSAGECONTEXT"),
        (b"MAIL FROM:<a@b> SECURITY=STARTTLS", b"SECURITY"),
        (b"MAIL FROM:<a@b> REQUIRETLS", b"REQUIRETLS"),
        (b"RCPT TO:<a@b> XRCPTFORWARD=eA==", b"XRCPTFORWARD"),
        (b"RCPT TO:<a@b> NOTIFY=NEVER XRDST=x", b"XRDST"),
    ],
    ids=repr,
)
def test_T01_a_parameter_of_a_hidden_extension_never_reaches_the_backend(command: bytes, name: bytes) -> None:
    play = secure().client(command + b"\r\n", to_client(b"555 5.5.4 Parameter %s is not supported\r\n" % name))
    goes_on(play).run()


def test_T01_REQUIRETLS_passes_where_the_promise_holds() -> None:
    reply = HARMLESS.replace(b"250 AUTH", b"250-REQUIRETLS\r\n250 AUTH")
    told = HARMLESS.replace(b"250 AUTH", b"250-AUTH") + b"250 STARTTLS\r\n"
    told = re.sub(rb"250-AUTH[^\r]*\r\n", b"", told)
    play = hello(greeted(backend_verified=True), reply, told)
    play.client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured()
    envelope(hello(play, reply, reply), b" REQUIRETLS").run()


@pytest.mark.parametrize(
    "command", [b"EXDATA", b"XBDATBLOB 24 LAST", b"xqdiscard 1", b"XTRN a.example", b"prdr", b"XSHADOWX"]
)
def test_T01_a_command_of_a_hidden_extension_never_reaches_the_backend(command: bytes) -> None:
    goes_on(authenticated(secure()).client(command + b"\r\n", to_client(NOT_IMPLEMENTED))).run()


def test_T01_parameters_of_other_extensions_pass() -> None:
    parameters = b" BODY=8BITMIME RET=HDRS ENVID=QQ314159 BY=120;R HOLDFOR=99 MT-PRIORITY=3 SUBMITTER=a@b AUTH=<> X=y"
    envelope(secure(), parameters).run()


# --- T01: the verdict on a message ------------------------------------------------------------------------


def in_data(play: Playbook) -> Playbook:
    play.asks(b"DATA\r\n", b"354 go\r\n")
    return play.passes(b"x\r\n.\r\n").waits(exchange.FINAL)


def in_last_chunk(play: Playbook) -> Playbook:
    return play.passes(b"BDAT 1 LAST\r\nx").waits(exchange.FINAL)


def in_last_url(play: Playbook) -> Playbook:
    return play.passes(b"BURL imap://x/1 LAST\r\n").waits(exchange.FINAL)


ENDS = (in_data, in_last_chunk, in_last_url)
each_end = pytest.mark.parametrize("end", ENDS)
End = Callable[[Playbook], Playbook]


@each_end
@pytest.mark.parametrize(
    "before",
    [
        b"353 PRDR content analysis beginning\r\n", b"354 go on\r\n", b"050 <b>... Connecting\r\n", b"150 wait\r\n",
        b"\r\n",
        b"milter: out of memory\r\n", b"050-a\r\n050 b\r\n" * 2000, b"x" * 300_000 + b"\r\n",
        b"2500 octets\r\n", b"\0\xff\r\n",
    ],
    ids=lambda octets: repr(octets[:12]),
)  # fmt: skip
def test_T01_T06_what_comes_before_a_verdict_is_not_the_verdict(end: End, before: bytes) -> None:
    play = end(envelope(secure())).backend(before).returns(QUEUED, DELIVERED)
    goes_on(play).run((WHOLE, 1000))
    assert play.delivered == 1


@each_end
@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"250-one\r\n", b"250 one\r\n"),
        (b"250-one\r\n250-two\r\n250", b"250-one\r\n250 two\r\n"),
        (b"250-one\r\n050 aside\r\nnoise\r\n250-two\r\n", b"250-one\r\n250 two\r\n"),
        (b"250-\r\n", b"250 \r\n"),
        (b"353 x\r\n250-one\r\n", b"250 one\r\n"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("orderly", [True, False])
def test_T01_a_verdict_that_breaks_off_counts(end: End, said: bytes, told: bytes, orderly: bool) -> None:
    play = end(envelope(secure())).backend(said)
    play.ended(BACKEND, orderly, to_client(told + LOST), DELIVERED, ABORT_BACKEND, close("backend-closed")).run()


@each_end
def test_T01_a_verdict_that_falls_silent_counts(end: End) -> None:
    late = b"421 4.4.2 gw.example.org Timeout waiting for mail server\r\n"
    play = end(envelope(secure())).backend(b"250-one\r\n")
    play.expire(Expired(BACKEND, exchange.FINAL), to_client(b"250 one\r\n" + late), DELIVERED, to_backend(b"QUIT\r\n"),
                close("backend-timeout")).run()  # fmt: skip


@each_end
def test_T01_a_verdict_without_end_counts(end: End) -> None:
    play = end(envelope(secure())).backend(b"250-x\r\n" * 999)
    play.backend(b"250-y\r\n", to_client(b"250-x\r\n" * 999 + b"250 y\r\n" + GARBAGE), DELIVERED, ABORT_BACKEND,
                 close("backend-protocol-error")).run((WHOLE,))  # fmt: skip


@each_end
@pytest.mark.parametrize(
    ("said", "told", "ending"),
    [
        (b"250-ok\r\n421 closing\r\n", b"250 ok\r\n421 closing\r\n", "backend-closed"),
        (b"250 ok\r\n421 closing\r\n", b"250 ok\r\n421 closing\r\n", "backend-closed"),
        (b"250-ok\r\n550 no\r\n", b"250 ok\r\n550 no\r\n", "backend-refused"),
        (b"550-no\r\n421 closing\r\n", b"421 closing\r\n", "backend-closed"),
        (b"421-a\r\n421 b\r\n", b"421-a\r\n421 b\r\n", "backend-closed"),
    ],
    ids=repr,
)
def test_T01_the_first_positive_line_stands(end: End, said: bytes, told: bytes, ending: str) -> None:
    end(envelope(secure())).backend(said, to_client(told), close(ending)).run()


@each_end
@pytest.mark.parametrize("behind", [b"250 again\r\n", b"noise\r\n", b"354 go\r\n"], ids=repr)
def test_T01_what_comes_behind_a_verdict_ends_the_session_and_not_the_verdict(end: End, behind: bytes) -> None:
    play = end(envelope(secure())).backend(QUEUED + behind, to_client(QUEUED + GARBAGE), DELIVERED, ABORT_BACKEND,
                                           close("backend-protocol-error"))  # fmt: skip
    play.run()


@each_end
@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b" 250 ok\r\n", b"250 ok\r\n"), (b"250ok\r\n", b"250 ok\r\n"), (b"250\r\n", b"250\r\n"),
        (b"250-a\r\n250\tb\r\n", b"250-a\r\n250 \tb\r\n"), (b"550-a\r\n250 b\r\n", b"250 b\r\n"),
        (b"250 " + b"x" * 200_000 + b"\r\n", b"250 " + b"x" * 506 + b"\r\n"),
        (b"550-a\r\n450 b\r\n", b"450 b\r\n"), (b"550 no\r\n", b"550 no\r\n"),
    ],
    ids=lambda octets: repr(octets[:20]),
)  # fmt: skip
def test_T01_a_sloppy_verdict_is_one(end: End, said: bytes, told: bytes) -> None:
    goes_on(end(envelope(secure())).backend(said, to_client(told))).run((WHOLE, 1 if len(said) < 999 else 999))


@each_end
def test_T01_a_verdict_that_never_came_is_nobodys(end: End) -> None:
    end(envelope(secure())).backend(b"353 x\r\nnoise\r\n").ended(BACKEND, True, to_client(LOST), ABORT_BACKEND,
                                                                       close("backend-lost")).run()  # fmt: skip


def test_T01_a_url_may_be_the_first_that_a_backend_dialled_late_hears() -> None:
    play = Playbook(DIALECT, terms(lazy=True, policy=OPTIONAL, received=False))
    play.start(to_client(b"220 gw.example.org ESMTP\r\n")).client(b"BURL imap://x/1 LAST\r\n", DIAL).dialled()
    play.backend(GREETING, to_backend(b"BURL imap://x/1 LAST\r\n")).waits(exchange.FINAL)
    goes_on(play.returns(b"503 no\r\n")).run()


def test_T01_noise_before_a_verdict_is_told_once() -> None:
    play = in_data(envelope(secure())).backend(b"noise\r\n", note("backend-protocol-error"))
    play.backend(b"more\r\n353 x\r\n050 y\r\n250 ok\r\n", to_client(b"250 ok\r\n")).run()
    assert [each.event for each in play.notes].count("backend-protocol-error") == 1


CODES = st.sampled_from([b"250", b"250", b"251", b"220", b"550", b"451", b"421", b"500"])
NOISE = st.one_of(
    st.sampled_from(
        [b"353 PRDR", b"354 go", b"334 ", b"050 x", b"050-x", b"150 x", b"", b"noise", b"25", b"2500 x", b"-"]
    ),
    st.binary(max_size=12).filter(lambda octets: not re.match(rb"[\s\0]*[0-9]{3}", octets) and b"\n" not in octets),
)
WORDS = st.sampled_from([b"", b" ok", b" 2.0.0 queued as 550", b" \xff"])


@dataclass(frozen=True)
class Utterance:
    """What a backend says to a whole message, and whether it took it."""

    octets: bytes
    accepts: bool | None
    """None where its reply never begins."""


@st.composite
def utterances(draw: st.DrawFn) -> Utterance:
    before = draw(st.lists(NOISE, max_size=4))
    said = b"".join(line + b"\r\n" for line in before)
    if not draw(st.integers(min_value=0, max_value=9)):
        return Utterance(said, None)
    code = draw(CODES)
    lines = []
    for _ in range(draw(st.integers(min_value=0, max_value=3))):
        lines.append(code + b"-" + draw(WORDS))
        lines += draw(st.lists(NOISE, max_size=1))
    lines.append(code + draw(WORDS))
    # The connection may be lost behind any line of it.
    whole = draw(st.integers(min_value=1, max_value=len(lines)))
    said += b"".join(line + b"\r\n" for line in lines[:whole])
    if whole == len(lines):
        said += b"".join(
            line + b"\r\n"
            for line in draw(st.lists(st.one_of(NOISE, CODES.map(lambda code: code + b" extra")), max_size=3))
        )
    elif draw(st.booleans()):
        said += draw(st.sampled_from([b"2", b"550", b"25", b"x"]))
    return Utterance(said, code.startswith(b"2"))


def heard_by_a_client(octets: bytes) -> bytes | None:
    """The code of the first whole reply, as a client reads it (RFC 5321 4.2.1)."""
    for line in octets.split(b"\r\n")[:-1]:
        assert re.match(rb"[2-5][0-9][0-9]([ -]|\Z)", line), octets
        if line[3:4] != b"-":
            return line[:3]
    return None


@pytest.mark.no_cover
@settings(UNHURRIED, max_examples=400)
@given(
    utterances(),
    st.sampled_from([b"DATA", b"BDAT", b"BURL"]),
    st.sampled_from([WHOLE, SINGLE, 3]),
    st.sampled_from(["orderly", "reset", "late"]),
)
def test_T01_the_clients_verdict_is_never_worse_than_the_backends_and_never_better(
    said: Utterance, way: bytes, cut: int, end: str
) -> None:
    stage = Stage(DIALECT, terms(implicit=True, received=False), cut)
    negotiation = stage.negotiation
    stage.take(negotiation.start())
    stage.secured(TLS13)
    stage.take(negotiation.dialled())
    stage.receive(BACKEND, GREETING)
    for command, reply in (
        (EHLO, HARMLESS), (b"MAIL FROM:<a>\r\n", b"250 ok\r\n"), (b"RCPT TO:<b>\r\n", b"250 ok\r\n"),
        *([(b"DATA\r\n", b"354 go\r\n")] if way == b"DATA" else []),
    ):  # fmt: skip
        stage.receive(CLIENT, command)
        stage.receive(BACKEND, reply)
    stage.receive(CLIENT, {b"DATA": b".\r\n", b"BDAT": b"BDAT 1 LAST\r\nx", b"BURL": b"BURL u LAST\r\n"}[way])
    before = len(stage.heard_by(CLIENT))
    stage.receive(BACKEND, said.octets)
    if not negotiation.over:
        late = Expired(BACKEND, exchange.FINAL)
        stage.take(negotiation.expire(late) if end == "late" else negotiation.ended(BACKEND, end == "orderly"))
    code = heard_by_a_client(stage.heard_by(CLIENT)[before:])
    accepted = code is not None and code.startswith(b"2")
    assert accepted is bool(said.accepts)
    assert stage.deeds.count(DELIVERED) == bool(said.accepts)


# --- T04: blanks behind a command --------------------------------------------------------------------------


@pytest.mark.parametrize("blanks", [b" ", b"\t", b"  \t "])
def test_T04_blanks_behind_STARTTLS_are_nothing(blanks: bytes) -> None:
    greeted().client(b"STARTTLS" + blanks + b"\r\n", tls(GO_AHEAD)).run()
    greeted().client(b"starttls" + blanks + b"\n", tls(GO_AHEAD)).run()
    secure().client(b"STARTTLS" + blanks + b"\r\n", to_client(b"503 5.5.1 TLS already active\r\n")).run()
    greeted().client(b"STARTTLS" + blanks + b"x" + blanks + b"\r\n", to_client(NO_PARAMETERS)).run()


@pytest.mark.parametrize("blanks", [b" ", b"\t", b" \t  "])
def test_T04_blanks_behind_any_command_are_not_sent_on(blanks: bytes) -> None:
    """A backend that compares whole lines, as old ones do, would not know `DATA `."""
    play = greeted().client(b"NOOP" + blanks + b"\r\n", to_client(OK))
    play.client(b"EHLO client.example.com" + blanks + b"\r\n", to_backend(EHLO))
    play.backend(HARMLESS, to_client(b"250-legacy.example.org\r\n250-CHUNKING\r\n250 STARTTLS\r\n"))
    play.client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured()
    hello(play, HARMLESS, HARMLESS)
    commands = (
        b"NOOP", b"RSET", b"MAIL FROM:<a@b>", b"RCPT TO:<b@c>", b"VRFY a", b"HELP", b"HELO x", b"AUTH PLAIN AGEAYg==",
    )  # fmt: skip
    for command in commands:
        play.client(command + blanks + b"\r\n", to_backend(command + b"\r\n")).returns(b"250 ok\r\n")
    hello(play, HARMLESS, HARMLESS)
    envelope(play).client(b"BDAT 1" + blanks + b"\r\nx", to_backend(b"BDAT 1\r\nx")).returns(OK)
    play.client(b"BDAT 1 LAST" + blanks + b"\r\ny", to_backend(b"BDAT 1 LAST\r\ny")).returns(QUEUED)
    envelope(play).client(b"BURL u LAST" + blanks + b"\r\n", to_backend(b"BURL u LAST\r\n")).returns(QUEUED)
    envelope(play).client(b"DATA" + blanks + b"\r\n", to_backend(b"DATA\r\n")).returns(b"354 go\r\n")
    play.asks(b".\r\n", QUEUED, DELIVERED)
    play.client(b"QUIT" + blanks + b"\r\n", to_backend(b"QUIT\r\n"))
    play.returns(b"221 bye\r\n", close("quit")).run()
    assert play.delivered == 3


def test_T04_a_chunk_refused_before_tls_may_have_blanks_too() -> None:
    play = greeted().client(b"BDAT 3 LAST \r\nabcNOOP \r\n", to_client(MUST_STARTTLS + OK))
    hello(play, told=CLOSED).run()


def test_T04_who_is_turned_away_may_leave_with_blanks() -> None:
    play = Playbook(DIALECT, terms()).start(DIAL).dialled().returns(b"554 no\r\n")
    play.client(b"quit \t\r\n", to_backend(b"quit\r\n")).returns(b"221 bye\r\n", close("quit"))
    play.run()


def test_T04_a_line_of_blanks_is_an_empty_line() -> None:
    greeted().client(b" \t\r\n", to_client(SYNTAX)).run()
    secure().client(b"  \r\n", to_backend(b"\r\n")).returns(b"500 what\r\n").run()


def test_T04_blanks_do_not_make_a_short_command_long() -> None:
    secure().client(b"NOOP" + b" " * 600 + b"\r\n", to_backend(b"NOOP\r\n")).run((WHOLE, 1000))


def test_T04_blanks_before_a_command_are_none_of_it() -> None:
    greeted().client(b" STARTTLS\r\n", to_client(SYNTAX)).run()


# --- T05: the declared size --------------------------------------------------------------------------------

FIELD = (
    b"Received: from client.example.com ([192.0.2.10])\r\n"
    b"\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))\r\n"
    b"\tby gw.example.org (starttls-gateway) with %s id gw1-0001-1\r\n"
    b"\ttls TLS_AES_256_GCM_SHA384 group X25519MLKEM768;\r\n"
    b"\tSat, 21 Nov 2026 10:30:00 +0000\r\n"
)
MORE = len(FIELD % b"ESMTPSA") + 2
"""At most so many octets are added."""


@pytest.mark.parametrize("keyword", [b"ESMTPS", b"ESMTPSA", b"UTF8SMTPSA"])
@pytest.mark.parametrize("first", [b"x\r\n", b" folded\r\n"])
def test_T05_the_declared_size_is_that_of_the_message_with_our_field(keyword: bytes, first: bytes) -> None:
    utf8 = b" SMTPUTF8" if keyword.startswith(b"UTF8") else b""
    more = MORE + 3 * bool(utf8)
    play = secure(received=True)
    if keyword.endswith(b"A"):
        authenticated(play)
    play.client(b"MAIL FROM:<a@b> SIZE=%d%s\r\n" % (len(first), utf8),
                to_backend(b"MAIL FROM:<a@b> SIZE=%d%s\r\n" % (len(first) + more, utf8)))  # fmt: skip
    play.returns(OK)
    play.asks(b"RCPT TO:<b@c>\r\n", b"250 ok\r\n")
    play.asks(b"DATA\r\n", b"354 go\r\n")
    header = FIELD % keyword + (b"\r\n" if first.startswith(b" ") else b"")
    sent = header + first
    assert len(sent) <= len(first) + more <= len(sent) + 3
    play.client(first + b".\r\n", to_backend(sent + b".\r\n")).run()


def test_T05_without_a_field_the_size_is_the_clients() -> None:
    secure().asks(b"MAIL FROM:<a@b> SIZE=1000\r\n", b"250 ok\r\n").run()


def test_T05_a_backend_dialled_late_hears_the_greater_size() -> None:
    play = Playbook(DIALECT, terms(lazy=True, policy=AUTH_ONLY)).start(to_client(b"220 gw.example.org ESMTP\r\n"))
    play.client(b"EHLO client.example.com\r\n", to_client(
        b"250-gw.example.org\r\n250-ENHANCEDSTATUSCODES\r\n250 STARTTLS\r\n"))  # fmt: skip
    play.client(b"MAIL FROM:<a@b> SIZE=1000\r\n", DIAL).dialled().backend(GREETING, to_backend(EHLO))
    field = (
        b"Received: from client.example.com ([192.0.2.10])\r\n"
        b"\tby gw.example.org (starttls-gateway) with ESMTPA id gw1-0001-1;\r\n"
        b"\tSat, 21 Nov 2026 10:30:00 +0000\r\n"
    )
    # The name is told in EHLO, so the extent of the field is known before the backend is there.
    play.backend(HARMLESS, to_backend(b"MAIL FROM:<a@b> SIZE=%d\r\n" % (1000 + len(field) + 2))).run()


def test_T05_the_backends_limit_is_the_limit_with_our_field() -> None:
    """The backend counts the field, too: it would refuse the message at its end, after all of it was sent."""
    play = secure(received=True)
    play.client(b"MAIL FROM:<a@b> SIZE=10240000\r\n", to_backend(b"MAIL FROM:<a@b> SIZE=%d\r\n" % (10240000 + MORE)))
    play.returns(b"552 5.3.4 too big\r\n")
    goes_on(play).run()


def test_T05_a_line_that_would_become_too_long_stays_as_it_is() -> None:
    line = b"MAIL FROM:<%s@b> SIZE=999"
    line %= b"a" * (510 - len(line) + 2)
    told = b"250 x\r\n"
    play = hello(upgraded(received=True), told, told)
    play.asks(line + b"\r\n", b"250 ok\r\n").run()


@pytest.mark.parametrize(
    ("command", "greater"),
    [
        (b"MAIL FROM:<a@b> SIZE=0", b"MAIL FROM:<a@b> SIZE=300"),
        (b"mail from:<a@b> size=1", b"mail from:<a@b> size=301"),
        (b"MAIL FROM:<> BODY=7BIT Size=700  AUTH=<> X", b"MAIL FROM:<> BODY=7BIT Size=1000  AUTH=<> X"),
        (b"MAIL FROM: <a@b>\tSIZE=0007", b"MAIL FROM: <a@b>\tSIZE=307"),
        (b"MAIL FROM: a@b SIZE=7", b"MAIL FROM: a@b SIZE=307"),
        (b"SAML FROM:<a@b> SIZE=7", b"SAML FROM:<a@b> SIZE=307"),
        (b"MAIL FROM:<a@b> SIZE=7 SIZE=8", b"MAIL FROM:<a@b> SIZE=307 SIZE=308"),
        (b'MAIL FROM:<"a SIZE=5 b"@c> SIZE=7', b'MAIL FROM:<"a SIZE=5 b"@c> SIZE=307'),
        (b'MAIL FROM:<"a SIZE=5 SIZE=6"@c> SIZE=7', b'MAIL FROM:<"a SIZE=5 SIZE=6"@c> SIZE=307'),
        (b"MAIL FROM:<a@b> SIZE=5000000000", b"MAIL FROM:<a@b> SIZE=5000000300"),
        (b"MAIL FROM:<a@b> SIZE=2147483347", b"MAIL FROM:<a@b> SIZE=2147483647"),
        (b"MAIL FROM:<a@b> SIZE=2147483648", b"MAIL FROM:<a@b> SIZE=2147483948"),
    ],
    ids=repr,
)  # fmt: skip
def test_T05_the_size_grows_and_nothing_else(command: bytes, greater: bytes) -> None:
    assert declared(command, 300) == greater


@pytest.mark.parametrize(
    "command",
    [
        b"MAIL FROM:<a@b>", b"MAIL FROM:<a@b> SIZE", b"MAIL FROM:<a@b> SIZE=", b"MAIL FROM:<a@b> SIZE=-1", b"MAIL",
        b"MAIL FROM:<a@b> SIZE=1x", b"MAIL FROM:<a@b> SIZE=+1", b"MAIL FROM:<a@b> SIZE= 1", b"MAIL FROM:<a@b> XSIZE=1",
        b"MAIL FROM:<a@b> SIZE=100000000000000000000", b"MAIL FROM:<a@b> SIZE=99999999999999999999",
        b"MAIL FROM:<a@b> SIZE=2147483647", b"MAIL FROM:<a@b> SIZE=2147483348", b"MAIL FROM:<a@b> SIZE=4294967295",
        b"MAIL FROM:<a@b> SIZE=9223372036854775807", b"MAIL FROM:<a@b> SIZE=18446744073709551615", b"MAIL FROM:",
        b'MAIL FROM:<"a SIZE=5"@c>', b'MAIL FROM:<"a SIZE=5 "@c>', b"MAIL FROM: SIZE=5",
        b"MAIL FROM:<a@b> SIZE=1\x0b", b"",
    ],
    ids=repr,
)  # fmt: skip
def test_T05_what_is_no_size_or_too_great_is_left_alone(command: bytes) -> None:
    assert declared(command, 300) == command


@UNHURRIED
@given(st.integers(min_value=0, max_value=10**20 - 1), st.integers(min_value=1, max_value=2000))
def test_T05_the_size_never_shrinks_and_keeps_to_20_digits(octets: int, more: int) -> None:
    line = declared(b"MAIL FROM:<a@b> SIZE=%d" % octets, more)
    size = int(line.rpartition(b"=")[2])
    assert size in (octets, octets + more)
    assert len(str(size)) <= 20
    for bits in (31, 32, 63, 64):
        assert (octets < 2**bits) == (size < 2**bits)


# --- T06: lines that are no reply ---------------------------------------------------------------------------


def test_T06_who_said_VERB_gets_what_comes_before_the_final_reply() -> None:
    play = secure().asks(b"VERB\r\n", b"250 2.0.0 Verbose mode\r\n")
    in_data(envelope(play))
    play.returns(b"050 <b@example.org>... Connecting to local...\r\n")
    play.returns(b"050 <b@example.org>... Sent\r\n" + QUEUED, DELIVERED)
    play.returns(b"050 idle\r\n")
    play.passes(b"VRFY a\r\n")
    play.backend(b"050 a\r\n150 b\r\n252-c\r\n", to_client(b"050 a\r\n150 b\r\n"))
    play.backend(b"050 in the middle\r\n252 d\r\n", to_client(b"252-c\r\n252 d\r\n"))
    goes_on(play).run()


@pytest.mark.parametrize("before", [b"050 x\r\n", b"150 x\r\n", b"050-x\r\n050 y\r\n", b"000\r\n"], ids=repr)
def test_T06_others_would_take_such_a_line_for_a_failure_and_do_not_get_it(before: bytes) -> None:
    play = secure().asks(b"VERB\r\n", b"502 no\r\n").passes(b"FOO\r\n").backend(before)
    play.backend(before + b"250 ok\r\n", to_client(b"250 ok\r\n")).backend(before)
    in_data(envelope(play)).backend(before).returns(QUEUED, DELIVERED)
    goes_on(play).run()


def test_T06_such_lines_answer_clients_and_never_the_gateways_own_questions() -> None:
    play = hello(greeted(OPTIONAL), HARMLESS, HARMLESS.replace(b"250 AUTH", b"250-AUTH") + b"250 STARTTLS\r\n").asks(
        b"VERB\r\n", b"250 ok\r\n"
    )
    play.passes(EHLO).backend(b"050 x\r\n").backend(
        HARMLESS, to_client(HARMLESS.replace(b"250 AUTH", b"250-AUTH") + b"250 STARTTLS\r\n"))  # fmt: skip
    play.asks(b"AUTH LOGIN\r\n", b"050 y\r\n334 VXNlcm5hbWU6\r\n")
    play.returns(b"050 z\r\n").asks(b"eA==\r\n", b"535 no\r\n", REJECTED)
    # What was asked for in the clear is forgotten (RFC 3207 4.2).
    play.client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured().passes(b"NOOP\r\n")
    play.backend(b"050 w\r\n250 ok\r\n", to_client(b"250 ok\r\n")).run()


def test_T06_who_was_turned_away_is_not_disturbed() -> None:
    play = Playbook(DIALECT, terms()).start(DIAL).dialled().returns(b"554 no\r\n")
    play.backend(b"050 x\r\n").passes(b"QUIT\r\n")
    play.backend(b"050 y\r\n221 bye\r\n", to_client(b"221 bye\r\n"), close("quit")).run()


def test_T06_they_have_an_end_where_no_message_is_at_stake() -> None:
    play = secure().passes(b"FOO\r\n").backend((b"050 " + b"x" * 1018 + b"\r\n") * 256)
    play.backend(b"050 " + b"x" * 1018 + b"\r\n", to_client(GARBAGE), ABORT_BACKEND, close("backend-protocol-error"))
    play.run((WHOLE,))


# --- T11: a success before the client has proven anything ----------------------------------------------------

MECHANISMS = (
    b"PLAIN", b"LOGIN", b"NTLM", b"CRAM-MD5", b"DIGEST-MD5", b"GSSAPI", b"GSS-SPNEGO", b"SCRAM-SHA-1", b"SCRAM-SHA-256",
    b"XOAUTH2", b"OAUTHBEARER", b"KERBEROS_V4", b"OTP", b"SRP", b"ANONYMOUS", b"X-WHATEVER",
)  # fmt: skip
SUCCESS = b"235 2.7.0 Authentication successful\r\n"


@pytest.mark.parametrize("verb", [b"AUTH", b"X-EXPS"])
@pytest.mark.parametrize("mechanism", MECHANISMS, ids=repr)
def test_T11_235_to_a_client_that_has_given_nothing_is_no_login(mechanism: bytes, verb: bytes) -> None:
    play = hello(upgraded(bad_commands=2), HARMLESS, HARMLESS)
    play.asks(verb + b" " + mechanism + b"\r\n", SUCCESS)
    # Neither trusted ...
    play.client(b"\0\r\n", to_client(SYNTAX))  # ... nor under a security layer, nor beyond the limits.
    play.client(b"TURN\r\n", to_client(TOO_MANY), to_backend(b"QUIT\r\n"), close("too-many-bad-commands"))
    play.run()
    assert play.proven == 0
    assert [dict(each.fields)["result"] for each in play.notes if each.event == "auth"] == ["unproven"]


@pytest.mark.parametrize("mechanism", [name for name in MECHANISMS if name != b"ANONYMOUS"], ids=repr)
@pytest.mark.parametrize("nothing", [b"", b"="], ids=repr)
def test_T11_empty_responses_prove_nothing(mechanism: bytes, nothing: bytes) -> None:
    play = secure().asks(b"AUTH %s\r\n" % mechanism, b"334 \r\n")
    play.asks(nothing + b"\r\n", SUCCESS)
    play.asks(b"AUTH %s =\r\n" % mechanism, SUCCESS).run()
    assert play.proven == 0
    assert {dict(each.fields)["result"] for each in play.notes if each.event == "auth"} == {"unproven"}


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=repr)
def test_T11_data_prove_as_much_as_the_backend_says(mechanism: bytes) -> None:
    play = secure().asks(b"AUTH %s\r\n" % mechanism, b"334 \r\n")
    play.asks(b"eA==\r\n", SUCCESS, PROVEN)
    play.run()
    assert [dict(each.fields)["result"] for each in play.notes if each.event == "auth"] == ["ok"]
    secure().asks(b"AUTH %s eA==\r\n" % mechanism, SUCCESS, PROVEN).run()


def test_T11_who_has_only_a_success_to_show_may_start_TLS_and_its_mail_says_so() -> None:
    play = greeted(OPTIONAL, received=True)
    hello(play, HARMLESS, HARMLESS.replace(b"250 AUTH", b"250-AUTH") + b"250 STARTTLS\r\n")
    play.asks(b"AUTH NTLM\r\n", SUCCESS).client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured()
    hello(play, HARMLESS, HARMLESS)
    envelope(play.asks(b"AUTH NTLM\r\n", SUCCESS)).asks(b"DATA\r\n", b"354 go\r\n")
    play.client(b".\r\n", to_backend(FIELD % b"ESMTPS" + b".\r\n")).run()


def test_T11_a_success_without_a_mechanism_is_none() -> None:
    play = secure().asks(b"AUTH\r\n", SUCCESS).run()
    assert not play.notes
    assert play.proven == 0


def test_T11_a_word_taken_back_proves_nothing() -> None:
    play = secure().asks(b"AUTH NTLM\r\n", b"334 \r\n")
    play.asks(b"*\r\n", SUCCESS).run()
    assert play.proven == 0
