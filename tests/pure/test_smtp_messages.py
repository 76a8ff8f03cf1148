"""SMTP messages: DATA, BDAT, BURL and the trace field; rows S11-S17, S22-S24, S27, S31."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.dialects.mail.message import Message, Newlines
from gateway.dialects.mail.smtp import DIALECT, exchange
from gateway.dialects.mail.smtp.messages import LARGEST_CHUNK
from gateway.protocol.vocabulary import Expired, Identified, Patience, Secured, Side
from tests.pure.playbook import (
    ABORT_BACKEND,
    DELIVERED,
    DIAL,
    SINGLE,
    WHOLE,
    Playbook,
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
    GARBAGE,
    GO_AHEAD,
    GREETING,
    LOST,
    MUST_STARTTLS,
    NOT_IMPLEMENTED,
    OPTIONAL,
    TOO_MANY,
    authenticated,
    envelope,
    greeted,
    hello,
    secure,
    upgraded,
)
from tests.pure.test_filters import BACKENDS, VARIANTS, ends_of_data

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND
EVERY_CUT = (WHOLE, SINGLE, 2, 3, 5, 7)
NO_CHUNKING = b"250-legacy.example.org\r\n250 PIPELINING\r\n"
NEED_RCPT = b"503 5.5.1 Need RCPT command\r\n"
QUEUED = b"250 2.0.0 Ok: queued\r\n"


def data(play: Playbook) -> Playbook:
    return play.asks(b"DATA\r\n", b"354 End data with <CR><LF>.<CR><LF>\r\n").waits(Patience.DATA)


def queued(play: Playbook) -> Playbook:
    return play.returns(QUEUED, DELIVERED)


def goes_on(play: Playbook) -> Playbook:
    return play.asks(b"NOOP\r\n", b"250 ok\r\n")


# --- DATA ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"Subject: x\r\n\r\nbody\r\n", b"..\r\n.x\r\n", b"\xff" * 4000 + b"\r\n"],
                         ids=["empty", "usual", "dots", "long"])  # fmt: skip
def test_S15_S16_a_message_passes_unchanged_and_its_end_is_found_once(body: bytes) -> None:
    play = data(envelope(secure())).passes(body + b".\r\n").waits(exchange.FINAL)
    goes_on(queued(play)).run(EVERY_CUT)
    assert play.delivered == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", VARIANTS, ids=repr)
def test_S14_a_smuggled_message_is_none(variant: bytes, backend: str) -> None:
    octets = b"body" + variant + b"MAIL FROM:<evil@x>\r\nRCPT TO:<v@y>\r\nDATA\r\nspam\r\n.\r\n"
    forwarded, rest = Message(Newlines.NORMALIZE).feed(octets)
    assert rest == b""
    assert ends_of_data(backend, forwarded) == 1
    play = data(envelope(secure())).client(octets, to_backend(forwarded))
    goes_on(queued(play)).run(EVERY_CUT)


def test_S17_pass_is_byte_identical() -> None:
    body = b"a\nb\rc\0d\n.\n\r.\r\n\r\n.\r\n"
    play = data(envelope(secure(newlines=Newlines.PASS))).passes(body)
    goes_on(queued(play)).run(EVERY_CUT)


def test_S17_reject_aborts_the_backend_without_an_end_of_data() -> None:
    play = data(envelope(secure(newlines=Newlines.REJECT)))
    play.passes(b"good\r\n").client(b"\nbad\r\nmore\r\n")
    play.client(b".\r\n", ABORT_BACKEND, to_client(b"521 5.5.2 Bare newline in message data\r\n"),
                note("client-bare-newline"), close("client-bare-newline")).run(EVERY_CUT)  # fmt: skip


def test_S27_the_verdict_may_take_long() -> None:
    play = data(envelope(secure())).passes(b".\r\n").waits(exchange.FINAL)
    assert DIALECT.patience[exchange.FINAL] > 9 * 60
    queued(play).run()


def test_a_message_and_the_next_envelope_in_one_segment() -> None:
    play = data(envelope(secure())).client(b"x\r\n.\r\nMAIL FROM:<a>\r\nQUIT\r\n", to_backend(b"x\r\n.\r\n"))
    play.returns(QUEUED, to_backend(b"MAIL FROM:<a>\r\n"))
    play.returns(b"250 ok\r\n", to_backend(b"QUIT\r\n")).run()


def test_the_first_recipient_proves_a_session_and_the_second_proves_no_more() -> None:
    play = envelope(secure()).asks(b"RCPT TO:<c@example.org>\r\n", b"250 2.1.5 Ok\r\n")
    assert play.run().proven == 1


def test_nothing_behind_data_is_forwarded_before_the_go_ahead() -> None:
    play = envelope(secure()).client(b"DATA\r\nx\r\n.\r\n", to_backend(b"DATA\r\n")).waits(exchange.GO_AHEAD)
    play.returns(b"354 go\r\n", to_backend(b"x\r\n.\r\n")).run()


@pytest.mark.parametrize("orderly", [True, False])
@pytest.mark.parametrize("said", [b"", b"x", b"x\r\n", b"x\r\n.", b"x\r\n.\r"])
def test_a_client_that_goes_in_a_message_completes_nothing(said: bytes, orderly: bool) -> None:
    play = data(envelope(secure())).client(said, to_backend(said.removesuffix(b"\r").removesuffix(b".")))
    play.ended(CLIENT, orderly, ABORT_BACKEND, close("client-lost")).run((WHOLE,))


def test_a_client_that_is_silent_in_a_message_completes_nothing() -> None:
    play = data(envelope(secure())).passes(b"x\r\n")
    play.expire(Expired(CLIENT, Patience.DATA), to_client(b"421 4.4.2 gw.example.org Timeout exceeded\r\n"),
                ABORT_BACKEND, close("client-timeout")).run()  # fmt: skip


@pytest.mark.parametrize("early", [b"552 5.3.4 too big\r\n", QUEUED])
def test_a_verdict_before_the_end_of_a_message_is_the_last_thing_that_is_asked(early: bytes) -> None:
    """Its real verdict would be taken for the reply to the next command, and each reply for the one before it."""
    play = data(envelope(secure())).passes(b"x\r\n").backend(early)
    ending = (to_client(early + GARBAGE), ABORT_BACKEND, close("backend-protocol-error"))
    play.client(b".\r\nRSET\r\n", to_backend(b".\r\n"), *ending).run()


@pytest.mark.parametrize("early", [b"354 end with a dot\r\n", b"050 hello\r\n"])
def test_what_is_no_verdict_may_come_before_the_end_of_a_message(early: bytes) -> None:
    play = data(envelope(secure())).passes(b"x\r\n").backend(early)
    queued(play.passes(b".\r\n")).asks(b"RSET\r\n", b"250 ok\r\n").run()


def test_why_a_backend_goes_in_a_great_message_is_told() -> None:
    """The client would try again for days what was refused for good."""
    refused = b"552 5.3.4 too big\r\n"
    play = data(envelope(secure())).backend(refused).ended(BACKEND, True)
    play.client(b"x" * 2**20).client(b"y", to_client(refused), close("backend-refused")).run((WHOLE,))


def test_a_backend_that_goes_in_a_message_is_told_at_its_end() -> None:
    play = data(envelope(secure())).passes(b"x\r\n").ended(BACKEND, True).client(b"y\r\n")
    play.client(b".\r\n", to_client(LOST), ABORT_BACKEND, close("backend-lost")).run()


def test_a_backend_that_goes_in_a_great_message_is_told_sooner() -> None:
    play = data(envelope(secure())).ended(BACKEND, True)
    play.client(b"x" * 2**20).client(b"y", to_client(LOST), ABORT_BACKEND, close("backend-lost")).run((WHOLE, 8192))


def test_the_verdict_is_lost() -> None:
    play = data(envelope(secure())).passes(b".\r\n")
    play.ended(BACKEND, False, to_client(LOST), ABORT_BACKEND, close("backend-lost")).run()


@pytest.mark.parametrize("go_ahead", [b"334 \r\n", b"300 x\r\n"])
def test_data_is_entered_on_354_only(go_ahead: bytes) -> None:
    play = envelope(secure()).passes(b"DATA\r\n")
    play.backend(go_ahead, to_client(b"421 4.3.0 gw.example.org Internal error\r\n"), ABORT_BACKEND,
                 close("backend-protocol-error")).run()  # fmt: skip


# --- BDAT ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [b"BDAT 5\r\n", b"bdat 5 last\r\n", b"BDAT\t005  LAST\r\n"])
def test_S11_a_chunk_refused_before_tls_is_swallowed(form: bytes) -> None:
    play = greeted().client(form + b"AB\r\nCNOOP\r\n", to_client(MUST_STARTTLS + b"250 2.0.0 OK\r\n"))
    hello(play, told=CLOSED).run()


@pytest.mark.parametrize("where", [greeted, secure])
def test_a_refused_chunk_that_is_too_large_to_swallow_ends_the_session(where: Callable[[], Playbook]) -> None:
    play = where().client(b"BDAT 1048577\r\n", to_client(TOO_MANY), close("client-refused-chunk")).run()
    play = where().client(b"BDAT 1048576\r\n")
    play.client(b"x" * 2**20, to_client(MUST_STARTTLS if where is greeted else NEED_RCPT)).run((WHOLE, 8192))


def test_S12_a_chunk_is_forwarded_verbatim() -> None:
    chunk = b"\r\n.\r\nQUIT\r\nXCLIENT ADDR=1.2.3.4\r\n\n.\n\r\0\xff"
    head = b"BDAT %d LAST\r\n" % len(chunk)
    goes_on(queued(envelope(secure()).passes(head + chunk))).run(EVERY_CUT)


def test_chunks_are_answered_one_by_one() -> None:
    play = envelope(secure()).client(b"bdat 3\r\nabcBDAT 0\r\nBDAT 2 LAST\r\nde", to_backend(b"BDAT 3\r\nabc"))
    play.returns(b"250 3 octets\r\n", to_backend(b"BDAT 0\r\n"))
    play.returns(b"250 0 octets\r\n", to_backend(b"BDAT 2 LAST\r\nde"))
    goes_on(queued(play)).run()


@pytest.mark.parametrize(
    "argument",
    [b" 0x10", b" -1", b" 5 FOO", b" 99999999999999999999", b"", b" ", b" LAST", b" 5 LAST x", b" +5", b" 5LAST",
     b" 5 LAST .", b" 1e3", b" \xb2", b" 5\x0b", b" 5,6"],
)  # fmt: skip
@pytest.mark.parametrize("where", ["clear", "secure", "envelope"])
def test_S13_a_chunk_that_cannot_be_delimited_ends_the_session(where: str, argument: bytes) -> None:
    play = greeted() if where == "clear" else secure() if where == "secure" else envelope(secure())
    play.client(b"BDAT" + argument + b"\r\nNOOP\r\n", to_client(b"501 5.5.4 Syntax: BDAT count [LAST]\r\n"),
                close("client-bad-bdat")).run()  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        b"BDAT 30\0",
        b"BDAT 3\r0",
        b"\0bdat 30",
        b" BDAT 30",
        b"\tBDAT 30",
        b"BDAT " + b"3" * 600,
        b"BDAT " + b"3" * 20000,
    ],
)
@pytest.mark.parametrize("where", ["clear", "secure", "envelope"])
def test_G30_a_chunk_behind_a_bad_line_ends_the_session(where: str, line: bytes) -> None:
    """Its octets are no commands, and nobody knows how many there are."""
    play = greeted() if where == "clear" else secure() if where == "secure" else envelope(secure())
    play.client(line + b"\r\nXCLIENT ADDR=192.0.2.1\r\n", to_client(b"501 5.5.4 Syntax: BDAT count [LAST]\r\n"),
                close("client-bad-bdat")).run()  # fmt: skip


@pytest.mark.parametrize("octets", [LARGEST_CHUNK + 1, 2**31, 2**32 + 5, 2**63, 9999999999999999999])
def test_a_chunk_that_a_backend_might_count_otherwise_is_refused(octets: int) -> None:
    # A counter of 32 bits makes 5 of 4294967301; what lies behind the 5 would be commands.
    play = envelope(secure()).client(b"BDAT %d\r\nhelloXCLIENT ADDR=1.2.3.4\r\n" % octets,
                                     to_client(b"552 5.3.4 Chunk exceeds the limit\r\n"),
                                     close("client-refused-chunk"))  # fmt: skip
    play.run()


def test_a_large_chunk_is_passed_on() -> None:
    head = b"BDAT %d\r\n" % LARGEST_CHUNK
    envelope(secure()).passes(head + b"abc").run()


EVIL = b"XCLIENT ADDR=1.2.3.4 LOGIN=root\r\n"


def test_S31_a_chunk_to_a_backend_that_does_not_offer_chunks_is_swallowed() -> None:
    play = envelope(hello(upgraded(), NO_CHUNKING, NO_CHUNKING))
    play.client(b"BDAT %d\r\n" % len(EVIL) + EVIL, to_client(NOT_IMPLEMENTED))
    goes_on(play).run()


def test_S31_it_is_the_latest_ehlo_that_counts() -> None:
    play = envelope(hello(secure(), NO_CHUNKING, NO_CHUNKING))
    play.client(b"BDAT %d\r\n" % len(EVIL) + EVIL, to_client(NOT_IMPLEMENTED)).run()
    play = envelope(secure().asks(b"HELO x\r\n", b"250 x\r\n"))
    play.client(b"BDAT %d\r\n" % len(EVIL) + EVIL, to_client(NOT_IMPLEMENTED)).run()


def test_S31_a_chunk_without_a_recipient_is_swallowed() -> None:
    refused = b"BDAT %d\r\n" % len(EVIL) + EVIL
    play = secure().client(refused, to_client(NEED_RCPT))
    play.asks(b"MAIL FROM:<a>\r\n", b"250 ok\r\n").client(refused, to_client(NEED_RCPT))
    play.asks(b"RCPT TO:<b>\r\n", b"550 no\r\n").client(refused, to_client(NEED_RCPT))
    play.asks(b"RCPT TO:<b>\r\n", b"250 ok\r\n")
    play.asks(b"RSET\r\n", b"250 ok\r\n").client(refused, to_client(NEED_RCPT)).run()


def test_a_chunk_behind_a_failed_one_is_swallowed() -> None:
    # RFC 3030 2: the state is indeterminate.  A backend that dropped the transaction might not take it for data.
    play = envelope(secure()).asks(b"BDAT 1\r\nx", b"552 too much\r\n")
    play.client(b"BDAT %d LAST\r\n" % len(EVIL) + EVIL, to_client(NEED_RCPT))
    play.asks(b"RSET\r\n", b"250 ok\r\n")
    queued(envelope(play).passes(b"BDAT 1 LAST\r\ny")).run()


def test_a_chunk_behind_a_refused_data_is_swallowed() -> None:
    play = envelope(secure()).asks(b"DATA\r\n", b"554 no\r\n")
    play.client(b"BDAT %d LAST\r\n" % len(EVIL) + EVIL, to_client(NEED_RCPT)).run()


def test_a_chunk_cut_off_completes_nothing() -> None:
    play = envelope(secure()).passes(b"BDAT 9 LAST\r\nabc")
    play.ended(CLIENT, True, ABORT_BACKEND, close("client-lost")).run()


def test_a_client_that_goes_in_a_refused_chunk_lets_us_say_quit() -> None:
    play = secure().client(b"BDAT 9 LAST\r\nabc")
    play.ended(CLIENT, True, to_backend(b"QUIT\r\n"), close("client-closed")).run()


# --- the trace field --------------------------------------------------------------------------------------


def trace(keyword: str = "ESMTPS", number: int = 1, name: str = "client.example.com") -> bytes:
    return (
        f"Received: from {name} ([192.0.2.10])\r\n"
        "\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))\r\n"
        f"\tby gw.example.org (starttls-gateway) with {keyword} id gw1-0001-{number}\r\n"
        "\ttls TLS_AES_256_GCM_SHA384 group X25519MLKEM768;\r\n"
        "\tSat, 21 Nov 2026 10:30:00 +0000\r\n"
    ).encode()


def traced() -> Playbook:
    return envelope(secure(received=True))


@pytest.mark.parametrize(
    ("body", "extra"),
    [
        (b"Subject: x\r\n\r\ny\r\n.\r\n", b""),
        (b" folded\r\n.\r\n", b"\r\n"),
        (b"\tfolded\r\n.\r\n", b"\r\n"),
        (b". x\r\n.\r\n", b"\r\n"),
        (b".\r\n", b""),
        (b"\r\nbody\r\n.\r\n", b""),
    ],
)
def test_S22_the_header_comes_before_the_message(body: bytes, extra: bytes) -> None:
    play = data(traced()).client(body, to_backend(trace() + extra + body))
    goes_on(queued(play)).run(EVERY_CUT)


def test_S22_each_message_has_one() -> None:
    play = queued(data(traced()).client(b".\r\n", to_backend(trace() + b".\r\n")))
    play = queued(data(envelope(play)).client(b"a\r\n.\r\n", to_backend(trace(number=2) + b"a\r\n.\r\n")))
    head = b"BDAT %d LAST\r\n" % (1 + len(trace()))
    play = envelope(play).client(b"BDAT 1 LAST\r\nb", to_backend(head + trace(number=3) + b"b"))
    queued(play).run()
    assert play.delivered == 3


def test_S22_the_first_chunk_that_is_not_empty_carries_it() -> None:
    header = trace()
    play = traced().asks(b"BDAT 0\r\n", b"250 ok\r\n")
    play.client(b"BDAT 5\r\nhello", to_backend(b"BDAT %d\r\n" % (5 + len(header)) + header + b"hello"))
    play.returns(b"250 ok\r\n").passes(b"BDAT 0 LAST\r\n")
    queued(play).run()


def test_S22_an_empty_message_in_a_chunk_carries_it() -> None:
    header = trace()
    play = traced().client(b"BDAT 0 LAST\r\n", to_backend(b"BDAT %d LAST\r\n" % len(header) + header))
    queued(play).run()


@pytest.mark.parametrize("first", [b" folded", b"\tfolded"])
def test_S22_a_chunk_does_not_continue_it(first: bytes) -> None:
    header = trace() + b"\r\n"
    head = b"BDAT %d LAST\r\n" % (len(first) + len(header))
    play = traced().client(b"BDAT 7 LAST\r\n" + first, to_backend(head + header + first))
    queued(play).run()


def test_S22_rset_arms_it_again() -> None:
    header = trace()
    play = traced().client(b"BDAT 1\r\na", to_backend(b"BDAT %d\r\n" % (1 + len(header)) + header + b"a"))
    play.returns(b"250 ok\r\n")
    envelope(play.asks(b"RSET\r\n", b"250 ok\r\n"))
    data(play).client(b".\r\n", to_backend(header + b".\r\n")).run()


def test_S22_what_burl_fetches_lies_behind_it() -> None:
    header = trace()
    play = traced().client(b"BURL imap://x/1\r\n", to_backend(b"BDAT %d\r\n" % len(header) + header))
    play.backend(b"250 swallowed\r\n", to_backend(b"BURL imap://x/1\r\n")).waits(exchange.FINAL)
    play.returns(b"250 ok\r\n").passes(b"BURL imap://x/2 last\r\n")
    queued(play).client(b"STARTTLS\r\n", to_client(b"503 5.5.1 TLS already active\r\n")).run()


def test_S22_a_refused_header_is_burls_refusal() -> None:
    header = trace()
    play = traced().client(b"BURL imap://x/1 LAST\r\n", to_backend(b"BDAT %d\r\n" % len(header) + header))
    play.returns(b"552 full\r\n")
    play.client(b"BDAT %d\r\n" % len(EVIL) + EVIL, to_client(NEED_RCPT)).run()


def test_burl_without_a_recipient_is_the_backends_to_refuse() -> None:
    secure(received=True).asks(b"BURL imap://x/1 LAST\r\n", b"503 no\r\n").run()


def test_burl_needs_chunks_where_there_is_a_header() -> None:
    play = hello(upgraded(received=True), b"250-x\r\n250 BURL imap\r\n", b"250 x\r\n")
    envelope(play).client(b"BURL imap://x/1 LAST\r\n", to_client(NOT_IMPLEMENTED)).run()
    play = hello(upgraded(), b"250-x\r\n250 BURL imap\r\n", b"250-x\r\n250 BURL imap\r\n")
    envelope(play).asks(b"BURL imap://x/1 LAST\r\n", QUEUED).run()
    assert play.delivered == 1


@pytest.mark.parametrize("parameters", [b" SMTPUTF8", b" BODY=8BITMIME smtputf8"])
def test_S23_the_keyword_is_that_of_the_message(parameters: bytes) -> None:
    play = envelope(authenticated(secure(received=True)), parameters)
    queued(data(play).client(b".\r\n", to_backend(trace("UTF8SMTPSA") + b".\r\n")))
    data(envelope(play)).client(b".\r\n", to_backend(trace("ESMTPSA", 2) + b".\r\n")).run()
    play = envelope(upgraded(received=True).asks(b"HELO client.example.com\r\n", b"250 x\r\n"))
    data(play).client(b".\r\n", to_backend(trace("SMTP") + b".\r\n")).run()


def test_S23_in_the_clear_and_with_an_old_cipher() -> None:
    play = envelope(hello(greeted(AUTH_ONLY, received=True), told=CLOSED))
    data(play).client(b".\r\n", to_backend(
        b"Received: from client.example.com ([192.0.2.10])\r\n"
        b"\tby gw.example.org (starttls-gateway) with ESMTP id gw1-0001-1;\r\n"
        b"\tSat, 21 Nov 2026 10:30:00 +0000\r\n.\r\n")).run()  # fmt: skip
    old = Secured("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384", 256)
    play = envelope(secure(received=True, facts=old))
    data(play).client(b".\r\n", to_backend(
        b"Received: from client.example.com ([192.0.2.10])\r\n"
        b"\t(using TLSv1.2 with cipher ECDHE-ECDSA-AES256-GCM-SHA384 (256/256 bits))\r\n"
        b"\tby gw.example.org (starttls-gateway) with ESMTPS id gw1-0001-1\r\n"
        b"\ttls TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384;\r\n"
        b"\tSat, 21 Nov 2026 10:30:00 +0000\r\n.\r\n")).run()  # fmt: skip


@pytest.mark.parametrize("name", [b"evil)\nNOOP", b"x" * 300, "münchen".encode(), b"a\tb", b""], ids=len)
def test_S24_the_name_that_the_client_gives_itself_forges_nothing(name: bytes) -> None:
    play = upgraded(received=True)
    line, *behind = (b"EHLO " + name).split(b"\n")
    play.client(line + b"\r\n", to_backend(line.rstrip() + b"\r\n")).returns(b"250 x\r\n")
    for command in behind:
        play.asks(command + b"\r\n", b"250 ok\r\n")
    data(envelope(play)).client(b".\r\n", to_backend(trace(name="unknown") + b".\r\n")).run()


def test_the_name_of_the_clear_is_forgotten_and_words_behind_a_name_are_not_shown() -> None:
    play = hello(greeted(received=True), told=CLOSED).client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured()
    play.asks(b"EHLO other.example and more\r\n", b"250 x\r\n")
    data(envelope(play)).client(b".\r\n", to_backend(trace(name="other.example") + b".\r\n")).run()


def test_behind_a_load_balancer_the_client_is_the_one_that_it_names() -> None:
    play = Playbook(DIALECT, terms(policy=AUTH_ONLY, proxied=True)).start()
    play.client(b"PROXY TCP4 203.0.113.7 198.51.100.1 40000 25\r\n", Identified("203.0.113.7", 40000), DIAL)
    play.dialled().returns(GREETING)
    play = envelope(hello(play, told=CLOSED))
    data(play).client(
        b".\r\n",
        to_backend(
            b"Received: from client.example.com ([203.0.113.7])\r\n"
            b"\tby gw.example.org (starttls-gateway) with ESMTP id gw1-0001-1;\r\n"
            b"\tSat, 21 Nov 2026 10:30:00 +0000\r\n.\r\n"
        ),
    ).run()
    play = Playbook(DIALECT, terms(policy=AUTH_ONLY, proxied=True)).start()
    play.client(b"PROXY UNKNOWN\r\n", DIAL).run()


def test_a_load_balancer_that_names_nobody_properly_is_told_nothing() -> None:
    play = Playbook(DIALECT, terms(proxied=True)).start()
    play.client(b"EHLO x\r\n", ABORT_BACKEND, note("client-bad-proxy-header"), close("client-bad-proxy-header")).run()


def test_without_the_option_there_is_none() -> None:
    data(envelope(greeted(OPTIONAL))).passes(b".\r\n").run()
    assert GREETING.startswith(b"220")
    assert Playbook(DIALECT, terms()).start(DIAL).run().delivered == 0


def test_behind_a_failed_BURL_chunks_are_swallowed() -> None:
    """The backend may have dropped the transaction (RFC 3030 2), and would take a chunk for commands."""
    play = envelope(secure()).asks(b"BURL imap://x/1\r\n", b"554 5.7.0 no\r\n")
    play.client(b"BDAT 6\r\nQUIT\r\n", to_client(b"503 5.5.1 Need RCPT command\r\n")).run()
