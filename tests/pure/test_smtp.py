"""SMTP before TLS, the switch, and the session inside: every command under every policy, the rows G and S."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.dialects.base import Policy
from gateway.dialects.mail.smtp import DIALECT
from gateway.protocol.vocabulary import Expired, Patience, Side
from tests.pure.contract.party import SMTP
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    Expected,
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
    EHLO,
    GO_AHEAD,
    GREETING,
    LOST,
    MUST_STARTTLS,
    NOT_IMPLEMENTED,
    OK,
    OPTIONAL,
    REQUIRED,
    SYNTAX,
    authenticated,
    envelope,
    greeted,
    hello,
    secure,
    upgraded,
)

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND

# --- the table of 2.2 ----------------------------------------------------------------------------------

FORWARDED = "forwarded"
HTTP = "http"
NO_PARAMETERS = b"501 5.5.4 Syntax: STARTTLS takes no parameters\r\n"
NO_REQUEST = b"501 5.5.2 Syntax error in AUTH\r\n"

TABLE: tuple[tuple[bytes, bytes | str, bytes | str, bytes | str], ...] = (
    # command, and what comes of it under required, auth-only, optional
    (b"HELO x", MUST_STARTTLS, FORWARDED, FORWARDED),
    (b"NOOP", OK, FORWARDED, FORWARDED),
    (b"noop x", OK, FORWARDED, FORWARDED),
    (b"STARTTLS x", NO_PARAMETERS, NO_PARAMETERS, NO_PARAMETERS),
    (b"STARTTLS \tx ", NO_PARAMETERS, NO_PARAMETERS, NO_PARAMETERS),
    (b"AUTH PLAIN AGEAYg==", MUST_STARTTLS, MUST_STARTTLS, FORWARDED),
    (b"AUTH LOGIN", MUST_STARTTLS, MUST_STARTTLS, FORWARDED),
    (b"auth\tplain", MUST_STARTTLS, MUST_STARTTLS, FORWARDED),
    (b"AUTH", MUST_STARTTLS, MUST_STARTTLS, FORWARDED),
    (b"X-EXPS GSSAPI", MUST_STARTTLS, MUST_STARTTLS, FORWARDED),
    *(
        (command, MUST_STARTTLS, FORWARDED, FORWARDED)
        for command in (
            b"MAIL FROM:<a@example.com>", b"RCPT TO:<b@example.org>", b"DATA", b"BURL imap://x/ LAST", b"RSET",
            b"VRFY a", b"EXPN a", b"HELP", b"ETRN x", b"FOO", b"X-FOO bar", b"SOML FROM:<a>", b"mail from:<\xc3\xa9>",
        )
    ),
    *(
        (command, NOT_IMPLEMENTED, NOT_IMPLEMENTED, NOT_IMPLEMENTED)
        for command in (
            b"XCLIENT ADDR=1.2.3.4", b"xclient addr=1.2.3.4", b"XCLIENT\tADDR=1.2.3.4", b"XFORWARD ADDR=1.2.3.4",
            b"XRCPTFORWARD x", b"XPROXY x", b"XPROXYFROM x", b"XPROXYTO x", b"XOORG x", b"XSESSIONPARAMS x",
            b"X-ANONYMOUSTLS", b"XEXCH50 1 2", b"XSHADOW x", b"XSHADOWREQUEST", b"XSHADOWX", b"X-LINK2STATE LAST",
            b"ATRN", b"TURN",
        )
    ),
    *(
        (command, HTTP, HTTP, HTTP)
        for command in (
            b"GET / HTTP/1.1", b"POST / HTTP/1.0", b"CONNECT a:25 HTTP/1.0", b"PUT / HTTP/1.1", b"HEAD / HTTP/1.1",
            b"OPTIONS * HTTP/1.1", b"Host: x", b"get x", b"PUT",
        )
    ),
    *(
        (command, SYNTAX, SYNTAX, SYNTAX)
        for command in (
            b" NOOP", b"\tXCLIENT ADDR=1.2.3.4", b"1", b"XCLIENT:", b"XCLIENT=x", b"XCLIENT\x0bADDR=1.2.3.4",
            b"XCLIENT\xa0x", b"\xff", b"YWxpY2U=", b"*", b".", b"NOOP\rQUIT", b"NOOP\0", b"NOOP\r",
        )
    ),
    (b"", SYNTAX, FORWARDED, FORWARDED),
)  # fmt: skip


@pytest.mark.parametrize(
    ("command", "policy", "outcome"),
    [
        pytest.param(command, policy, outcome, id=f"{command.decode('latin-1')!r}-{policy.value}")
        for command, *outcomes in TABLE
        for policy, outcome in zip((REQUIRED, AUTH_ONLY, OPTIONAL), outcomes, strict=True)
    ],
)
def test_a_command_before_tls(command: bytes, policy: Policy, outcome: bytes | str) -> None:
    play = greeted(policy)
    if outcome == FORWARDED:
        play.asks(command + b"\r\n", b"550 5.7.1 whatever\r\n")
    elif outcome == HTTP:
        last_words = to_client(b"421 4.7.0 Protocol error\r\n")
        # Cut, the driver may know a request before its line is whole.
        play.client(command + b"\r\n", note("http-client"), last_words, to_backend(b"QUIT\r\n"),
                    close("http-client")).run()  # fmt: skip
        return
    else:
        assert isinstance(outcome, bytes)
        play.client(command + b"\r\n", to_client(outcome))
    # ... and the session goes on.
    play.client(b"STARTTLS\r\n", tls(GO_AHEAD)).run()


@pytest.mark.parametrize("policy", Policy)
def test_starttls_in_any_case_and_ended_by_lf_alone(policy: Policy) -> None:
    greeted(policy).client(b"StartTLS\n", tls(GO_AHEAD)).run()


# --- greetings -------------------------------------------------------------------------------------------


def test_G02_G17_one_line_of_a_greeting_is_none() -> None:
    begun = b"220-legacy.example.org\r\n"
    late = Expired(BACKEND, Patience.GREETING)
    SMTP.dialled().backend(begun).expire(late, *SMTP.sorry("backend-greeting-timeout")).run()
    for orderly in (True, False):
        SMTP.dialled().backend(begun).ended(BACKEND, orderly, *SMTP.sorry("backend-connect-failed")).run()


def test_G04_a_refusal_is_relayed_and_only_quit_works() -> None:
    refusal = b"554-no\r\n554 service\r\n"
    only_quit = to_client(b"503 5.5.1 Only QUIT is allowed now\r\n")
    play = Playbook(DIALECT, terms()).start(DIAL).dialled()
    play.returns(refusal, note("backend-refused", text=refusal))
    play.client(EHLO, only_quit).client(b"STARTTLS\r\n", only_quit).client(b"A\0\r\n", only_quit)
    play.client(b"x" * 600 + b"\r\n", only_quit)
    play.asks(b"quit\r\n", b"221 bye\r\n", close("quit")).run()


@pytest.mark.parametrize(
    ("words", "ending"),
    [
        (b"421 too slow\r\n", (to_client(b"421 too slow\r\n"), close("backend-closed"))),
        (b"x" * 9000 + b"\r\n", (ABORT_BACKEND, close("backend-protocol-error"))),
        (b"250 what\r\n", (ABORT_BACKEND, close("backend-protocol-error"))),
    ],
    ids=["421", "no-end", "unasked"],
)
def test_a_backend_that_refused_may_say_421_and_no_more(words: bytes, ending: tuple[Expected, ...]) -> None:
    play = Playbook(DIALECT, terms()).start(DIAL).dialled().returns(b"554 no\r\n")
    play.backend(words, *ending).run()


def test_a_backend_that_refused_and_closes_ends_the_session_without_another_word() -> None:
    play = Playbook(DIALECT, terms()).start(DIAL).dialled().returns(b"554 no\r\n")
    play.ended(BACKEND, True, ABORT_BACKEND, close("backend-closed")).run()


def implicit() -> Playbook:
    play = Playbook(DIALECT, terms(implicit=True, received=False)).start(tls(b"")).secured(DIAL).dialled()
    return play.returns(GREETING)


@pytest.mark.parametrize("inside", [upgraded, secure, implicit], ids=["upgraded", "greeted", "implicit"])
def test_G10_there_is_no_tls_inside_tls(inside: Callable[[], Playbook]) -> None:
    play = inside().client(b"STARTTLS now\r\n", to_client(NO_PARAMETERS))
    play.asks(b"NOOP\r\n", b"250 ok\r\n").run()


UNUSABLE = b"504 5.5.4 Unrecognized authentication type\r\n"


@pytest.mark.parametrize(("word", "answer"), [
    *((word, UNUSABLE) for word in (b"EXTERNAL", b"external", b"External =", b"SCRAM-SHA-1-PLUS",
                                    b"scram-sha-256-plus x")),
    *((word, NO_REQUEST) for word in (b"=", b"PLA!N x", b"\x0bEXTERNAL", b"EXTERNAL\x0b=", b"EXTERNAL\x1f", b"\xe9",
                                      b'"PLAIN"', b"a" * 41)),
])  # fmt: skip
@pytest.mark.parametrize("verb", [b"AUTH", b"auth", b"X-EXPS"])
def test_G12_a_mechanism_that_would_speak_for_us_is_refused(verb: bytes, word: bytes, answer: bytes) -> None:
    play = secure().client(verb + b" " + word + b"\r\n", to_client(answer))
    play.asks(b"NOOP\r\n", b"250 ok\r\n").run()


def test_the_backend_is_lost_inside_an_ehlo_reply_of_which_the_client_has_nothing() -> None:
    play = greeted().passes(EHLO).backend(b"250-x\r\n")
    play.ended(BACKEND, True, to_client(LOST), ABORT_BACKEND, close("backend-lost")).run()


def test_G18_a_client_that_is_reset_completes_nothing() -> None:
    authenticated(secure()).ended(CLIENT, True, ABORT_BACKEND, close("client-lost")).run()
    envelope(secure()).ended(CLIENT, True, ABORT_BACKEND, close("client-lost")).run()


def test_two_lines_ended_by_lf_are_two_commands() -> None:
    play = secure().client(b"NOOP\nXCLIENT ADDR=1.2.3.4\n", to_backend(b"NOOP\r\n"))
    play.backend(b"250 ok\n", to_client(b"250 ok\r\n" + NOT_IMPLEMENTED)).run()


def test_the_backend_closes_instead_of_answering_quit() -> None:
    play = secure().passes(b"QUIT\r\n")
    bye = to_client(b"221 2.0.0 gw.example.org closing connection\r\n")
    play.ended(BACKEND, True, bye, ABORT_BACKEND, close("backend-lost")).run()


DIRTY = to_client(b"503 5.5.1 STARTTLS not permitted after AUTH or during a mail transaction\r\n")


@pytest.mark.parametrize("verb", [b"MAIL", b"SEND", b"SOML", b"SAML"])
@pytest.mark.parametrize("policy", [AUTH_ONLY, OPTIONAL])
def test_G28_starttls_inside_a_transaction_is_refused_until_rset(policy: Policy, verb: bytes) -> None:
    play = greeted(policy).asks(verb + b" FROM:<a>\r\n", b"250 ok\r\n").client(b"STARTTLS\r\n", DIRTY)
    play.asks(b"RSET\r\n", b"451 not now\r\n").client(b"STARTTLS\r\n", DIRTY)
    play.asks(b"RSET\r\n", b"250 ok\r\n").client(b"STARTTLS\r\n", tls(GO_AHEAD)).run()


def test_G28_ehlo_and_helo_and_the_end_of_a_message_clear_as_well() -> None:
    def begun() -> Playbook:
        return envelope(greeted(AUTH_ONLY)).client(b"STARTTLS\r\n", DIRTY)

    hello(begun(), told=CLOSED).client(b"STARTTLS\r\n", tls(GO_AHEAD)).run()
    begun().asks(b"HELO x\r\n", b"250 ok\r\n").client(b"STARTTLS\r\n", tls(GO_AHEAD)).run()
    begun().asks(b"HELO x\r\n", b"501 no\r\n").client(b"STARTTLS\r\n", DIRTY).run()
    begun().asks(b"DATA\r\n", b"354 go\r\n").asks(b".\r\n", b"451 later\r\n").client(
        b"STARTTLS\r\n", tls(GO_AHEAD)
    ).run()


def test_G28_starttls_after_authentication_is_refused_for_ever() -> None:
    play = authenticated(greeted(OPTIONAL)).client(b"STARTTLS\r\n", DIRTY)
    play.asks(b"RSET\r\n", b"250 ok\r\n").client(b"STARTTLS\r\n", DIRTY).run()


def test_G29_no_note_tells_a_secret() -> None:
    play = secure()
    play.asks(b"AUTH PLAIN AGEAc2VjcmV0\r\n", b"535 5.7.8 no\r\n")
    play.asks(b"AUTH LOGIN\r\n", b"334 VXNlcm5hbWU6\r\n")
    play.asks(b"YWxpY2U=\r\n", b"334 UGFzc3dvcmQ6\r\n")
    play.asks(b"c2VjcmV0\r\n", b"235 2.7.0 ok\r\n").run()
    assert [told.fields for told in play.notes] == [
        (("result", "failed"), ("mechanism", "PLAIN"), ("user", b"a")),
        (("result", "ok"), ("mechanism", "LOGIN"), ("user", b"alice")),
    ]
    assert play.proven == 1
