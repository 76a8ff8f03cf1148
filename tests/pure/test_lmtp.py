"""LMTP (RFC 2033): what differs from SMTP, which has the same code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.dialects import access
from gateway.dialects.mail.lmtp import DIALECT, LMTP, of_lmtp
from gateway.dialects.mail.smtp import exchange
from gateway.protocol.vocabulary import Expired, Side
from tests.pure.playbook import ABORT_BACKEND, DELIVERED, DIAL, Playbook, close, terms, tls, to_backend, to_client
from tests.pure.smtp_talk import AUTH_ONLY, GARBAGE, GO_AHEAD, LOST, MUST_STARTTLS, OPTIONAL, REQUIRED

GREETING = b"220 legacy.example.org Dovecot ready.\r\n"
LHLO = b"LHLO client.example.com\r\n"
OFFERED = (b"8BITMIME", b"CHUNKING", b"ENHANCEDSTATUSCODES", b"PIPELINING", b"SMTPUTF8")
NOT_LMTP = b"500 5.5.1 This is LMTP, send LHLO\r\n"
NOBODY = b"503 5.5.1 No valid recipients\r\n"
RSET_FIRST = b"503 5.5.1 Send RSET first\r\n"
MAIL = b"MAIL FROM:<a@example.com>\r\n"
OK = b"250 2.1.0 OK\r\n"
ONE, TWO, THREE = b"250 2.0.0 <1> saved\r\n", b"452 4.2.2 <2> full\r\n", b"250 2.0.0 <3> saved\r\n"


def reply(*lines: bytes) -> bytes:
    told = (b"legacy", *lines)
    return b"".join(b"250-%s\r\n" % line for line in told[:-1]) + b"250 %s\r\n" % told[-1]


def hello(play: Playbook, *more: bytes) -> Playbook:
    return play.passes(LHLO).backend(reply(*OFFERED), to_client(reply(*OFFERED, *more)))


def greeted(**changes: Any) -> Playbook:
    agreed = terms(**{"received": False, **changes})
    return Playbook(DIALECT, agreed).start(DIAL).dialled().returns(GREETING)


def upgraded(**changes: Any) -> Playbook:
    play = hello(greeted(**changes), b"STARTTLS")
    return play.client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured()


def envelope(play: Playbook, *recipients: bytes) -> Playbook:
    """Each of the recipients is `1`, `2` ... or empty for one that the backend refuses."""
    play.asks(MAIL, OK)
    for recipient in recipients:
        play.asks(b"RCPT TO:<%s>\r\n" % recipient, OK if recipient else b"550 5.1.1 who?\r\n")
    return play


def message(play: Playbook) -> Playbook:
    play.asks(b"DATA\r\n", b"354 OK\r\n")
    return play.passes(b"x\r\n.\r\n").waits(exchange.FINAL)


def goes_on(play: Playbook) -> Playbook:
    return play.asks(b"NOOP\r\n", b"250 ok\r\n")


# --- introductions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [REQUIRED, AUTH_ONLY, OPTIONAL])
def test_ehlo_and_helo_reach_no_backend(policy: object) -> None:
    # RFC 2033 4.1; a server that takes them would speak SMTP, which counts replies otherwise.
    play = greeted(policy=policy)
    for line in (b"EHLO a\r\n", b"helo a\r\n"):
        play.client(line, to_client(NOT_LMTP))
    hello(play, b"STARTTLS").client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured()
    hello(play.client(b"EHLO a\r\n", to_client(NOT_LMTP))).run()


def test_lhlo_must_come_again_inside_tls() -> None:
    # Dovecot takes MAIL without.
    play = upgraded()
    for line in (MAIL, b"RCPT TO:<b>\r\n", b"DATA\r\n", b"VRFY x\r\n", b"BDAT 2\r\nxx"):
        play.client(line, to_client(b"503 5.5.1 Send LHLO first\r\n"))
    goes_on(hello(play)).run()


def test_before_tls_there_are_no_envelopes_under_required() -> None:
    play = greeted()
    for line in (MAIL, b"RCPT TO:<b>\r\n", b"DATA\r\n", b"BDAT 2\r\nxx"):
        play.client(line, to_client(MUST_STARTTLS))
    play.run()


def test_a_backend_without_lhlo_is_not_asked_for_helo() -> None:
    greeted().asks(LHLO, b"500 5.5.1 what?\r\n").run()


def test_a_lazy_session() -> None:
    play = Playbook(DIALECT, terms(lazy=True, received=False)).start(to_client(b"220 gw.example.org LMTP\r\n"))
    told = b"250-gw.example.org\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250 STARTTLS\r\n"
    play.client(LHLO, to_client(told)).client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured()
    play.client(LHLO, DIAL).dialled().backend(GREETING, to_backend(LHLO))
    goes_on(play.returns(reply(*OFFERED))).run()


def test_a_backend_that_is_dialled_late_hears_lhlo_and_nothing_else() -> None:
    # The backend that hears RSET first has heard the client's name before, whether it likes it or not.
    play = Playbook(DIALECT, terms(lazy=True, received=False, policy=OPTIONAL))
    play.start(to_client(b"220 gw.example.org LMTP\r\n"))
    told = b"250-gw.example.org\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250 STARTTLS\r\n"
    play.client(LHLO, to_client(told)).client(MAIL, DIAL).dialled().backend(GREETING, to_backend(LHLO))
    play.backend(b"550 5.7.1 not you\r\n", to_backend(MAIL)).returns(OK).run()


# --- one verdict for each recipient ------------------------------------------------------------------


def test_S28_a_message_has_as_many_verdicts_as_recipients() -> None:
    play = message(envelope(upgraded_and_hello(), b"1", b"", b"2", b"3"))
    play.returns(ONE, DELIVERED).returns(TWO).returns(THREE)
    goes_on(play).run()
    assert play.delivered == 1


def upgraded_and_hello(**changes: Any) -> Playbook:
    return hello(upgraded(**changes))


def test_verdicts_of_one_segment_and_of_many_lines() -> None:
    verdicts = b"250-2.0.0 <1>\r\n250 saved\r\n" + TWO + THREE
    play = message(envelope(upgraded_and_hello(), b"1", b"2", b"3"))
    goes_on(play.returns(verdicts)).run()


def test_the_last_chunk_has_them_and_others_have_one() -> None:
    play = envelope(upgraded_and_hello(), b"1", b"2")
    play.client(b"BDAT 3\r\nabcBDAT 2 LAST\r\nde", to_backend(b"BDAT 3\r\nabc"))
    play.returns(b"250 2.0.0 Added 3 octets\r\n", to_backend(b"BDAT 2 LAST\r\nde"))
    goes_on(play.returns(ONE + TWO)).run()


@pytest.mark.parametrize("line", [b"DATA\r\n", b"BDAT 0 LAST\r\n", b"BDAT 5 LAST\r\nQUIT\n", b"BDAT 2\r\nxx"])
@pytest.mark.parametrize("recipients", [(), (b"",)])
def test_what_is_for_nobody_reaches_no_backend(line: bytes, recipients: tuple[bytes, ...]) -> None:
    """An RFC-true server answers BDAT LAST without a recipient by nothing at all, and Dovecot by 503."""
    play = envelope(upgraded_and_hello(), *recipients)
    goes_on(play.client(line, to_client(NOBODY))).run()


@pytest.mark.parametrize("ends", [b"RSET\r\n", MAIL, LHLO])
def test_recipients_are_counted_anew(ends: bytes) -> None:
    play = envelope(upgraded_and_hello(), b"1", b"2")
    if ends == LHLO:
        hello(play)
    else:
        play.asks(ends, OK)
    play.client(b"DATA\r\n", to_client(NOBODY))
    goes_on(message(envelope(play, b"1")).returns(ONE)).run()


@pytest.mark.parametrize("refused", ["data", "chunk"])
def test_behind_refused_data_the_backend_might_answer_for_the_recipients_before_it(refused: str) -> None:
    play = envelope(upgraded_and_hello(), b"1")
    if refused == "data":
        play.asks(b"DATA\r\n", b"451 4.3.0 later\r\n")
    else:
        play.asks(b"BDAT 1\r\nx", b"552 5.3.4 no\r\n")
    play.client(b"RCPT TO:<2>\r\nDATA\r\n", to_client(RSET_FIRST + NOBODY))
    play.asks(b"RSET\r\n", OK)
    goes_on(message(envelope(play, b"1")).returns(ONE)).run()


def test_a_backend_lost_between_verdicts() -> None:
    """Those that came are told, and one refusal for all others."""
    play = message(envelope(upgraded_and_hello(), b"1", b"2", b"3")).returns(ONE)
    play.ended(Side.BACKEND, True, to_client(LOST), ABORT_BACKEND, close("backend-lost")).run()


def test_a_backend_lost_within_a_verdict() -> None:
    play = message(envelope(upgraded_and_hello(), b"1", b"2", b"3")).returns(ONE)
    play.backend(b"452-4.2.2\r\n452 f").ended(
        Side.BACKEND, True, to_client(b"452 4.2.2\r\n" + LOST), ABORT_BACKEND, close("backend-lost")
    ).run()


def test_the_wait_begins_again_with_each_verdict() -> None:
    play = message(envelope(upgraded_and_hello(), b"1", b"2")).returns(ONE).waits(exchange.FINAL)
    late = b"421 4.4.2 gw.example.org Timeout waiting for mail server\r\n"
    play.expire(Expired(Side.BACKEND, exchange.FINAL), to_client(late), ABORT_BACKEND, close("backend-timeout")).run()


def test_421_is_about_one_recipient_while_more_are_due() -> None:
    leaves = b"421 4.3.2 going\r\n"
    play = message(envelope(upgraded_and_hello(), b"1", b"2")).returns(leaves)
    goes_on(play.returns(ONE, DELIVERED)).run()
    play = message(envelope(upgraded_and_hello(), b"1", b"2")).returns(ONE)
    play.returns(leaves, close("backend-closed"))
    play.run()


def test_verdicts_that_do_not_say_where_they_end() -> None:
    """The code of the next one tells."""
    play = message(envelope(upgraded_and_hello(), b"1", b"2", b"3"))
    play.backend(b"550-no\r\n" + ONE + THREE, to_client(b"550 no\r\n" + ONE + THREE))
    goes_on(play).run()


def test_more_verdicts_than_recipients() -> None:
    play = message(envelope(upgraded_and_hello(), b"1")).returns(ONE)
    play.backend(THREE, to_client(GARBAGE), ABORT_BACKEND, close("backend-protocol-error")).run()


# --- the trace field -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "logged_in", "keyword"),
    [(b"", False, b"LMTPS"), (b"", True, b"LMTPSA"), (b" SMTPUTF8", False, b"UTF8LMTPS")],
)
def test_the_trace_field_says_lmtp(parameters: bytes, logged_in: bool, keyword: bytes) -> None:
    play = upgraded_and_hello(received=True)
    if logged_in:
        play.asks(b"AUTH PLAIN AGEAYg==\r\n", b"235 2.7.0 in\r\n")
    play.asks(MAIL[:-2] + parameters + b"\r\n", OK)
    play.asks(b"RCPT TO:<1>\r\n", OK).asks(b"DATA\r\n", b"354 OK\r\n")
    field = field_of(parameters, logged_in)
    assert b" with %s id " % keyword in field
    play.client(b"x\r\n.\r\n", to_backend(field + b"x\r\n.\r\n")).run()


def field_of(parameters: bytes, logged_in: bool) -> bytes:
    name = "UTF8LMTPS" if parameters else "LMTPS"
    return (
        b"Received: from client.example.com ([192.0.2.10])\r\n"
        b"\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))\r\n"
        b"\tby gw.example.org (starttls-gateway) with %s id gw1-0001-1\r\n"
        b"\ttls TLS_AES_256_GCM_SHA384 group X25519MLKEM768;\r\n"
        b"\tSat, 21 Nov 2026 10:30:00 +0000\r\n" % (name + ("A" if logged_in else "")).encode()
    )


def test_a_server_without_logins_is_as_it_should_be() -> None:
    seen = access.Seen(GREETING, [b"PIPELINING", b"STARTTLS"], [b"PIPELINING"], [OK])
    found = of_lmtp(seen)
    assert (found.logins, found.refusal, found.starttls) == (None, b"", True)
    assert of_lmtp(replace(seen, shown=[b"AUTH PLAIN"])).logins == ("PLAIN",)


def test_it_is_no_smtp() -> None:
    assert not DIALECT.relays
    assert not DIALECT.submission
    assert LMTP.older == b""


def test_an_early_verdict_is_about_nobody() -> None:
    """If it were about the first recipient, the success of the first would be told as that of the second."""
    play = envelope(hello(upgraded()), b"1", b"2").asks(b"DATA\r\n", b"354 OK\r\n").passes(b"x\r\n")
    play.backend(b"451 busy\r\n").passes(
        b".\r\n", to_client(GARBAGE), ABORT_BACKEND, close("backend-protocol-error")
    ).run()
