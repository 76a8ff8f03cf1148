"""SMTP in a session: EHLO again and again, authentication, what goes wrong; rows S01-S10, S18-S21, S29."""

from __future__ import annotations

import pytest

from gateway.dialects.mail.smtp import DIALECT
from gateway.dialects.mail.smtp.exchange import FINAL
from gateway.protocol.vocabulary import Patience, Side
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    PROVEN,
    SPLICE,
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
    EHLO,
    GARBAGE,
    GO_AHEAD,
    GREETING,
    HARMLESS,
    LOST,
    MUST_EHLO,
    MUST_STARTTLS,
    NOT_IMPLEMENTED,
    OK,
    OPTIONAL,
    REPLY,
    SECURE,
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


def test_S01_the_sample() -> None:
    play = hello(greeted(), told=CLOSED)
    play.client(b"MAIL FROM:<a@example.com>\r\n", to_client(MUST_STARTTLS)).client(b"STARTTLS\r\n", tls(GO_AHEAD))
    play.secured().client(b"MAIL FROM:<a@example.com>\r\n", to_client(MUST_EHLO))
    hello(play).client(b"STARTTLS\r\n", to_client(b"503 5.5.1 TLS already active\r\n")).run()


def test_S02_before_tls_only_four_commands_work() -> None:
    play = greeted()
    for verb in (b"HELO x", b"MAIL FROM:<a>", b"RSET", b"VRFY a", b"HELP", b"FOO"):
        play.client(verb + b"\r\n", to_client(MUST_STARTTLS))
    play.client(b"NOOP\r\n", to_client(OK))
    hello(play, told=CLOSED)
    play.passes(b"QUIT\r\n").run()


@pytest.mark.parametrize(
    "command", [b"MAIL FROM:<a>", b"RCPT TO:<a>", b"DATA", b"AUTH PLAIN x", b"VRFY a", b"FOO", b"BURL x LAST", b"HELP"]
)
def test_S03_inside_tls_the_client_must_greet_again(command: bytes) -> None:
    play = upgraded().client(command + b"\r\n", to_client(MUST_EHLO)).client(b"\r\n", to_client(SYNTAX))
    play.client(b"BDAT 3\r\nabc", to_client(MUST_EHLO))
    play.asks(b"NOOP\r\n", b"250 ok\r\n").asks(b"RSET\r\n", b"250 ok\r\n")
    play.client(command + b"\r\n", to_client(MUST_EHLO))
    play.asks(b"HELO x\r\n", b"250 legacy\r\n")
    play.asks(b"MAIL FROM:<a>\r\n", b"250 ok\r\n").run()


@pytest.mark.parametrize("code", [b"421", b"451", b"555", b"554"])
def test_S04_a_rejected_ehlo_opens_nothing(code: bytes) -> None:
    play = upgraded().asks(EHLO, code + b" no\r\n") if code != b"421" else upgraded()
    play.client(b"MAIL FROM:<a>\r\n", to_client(MUST_EHLO)).run()


def test_S04_an_ehlo_rejected_with_550_and_a_helo_as_well_open_nothing() -> None:
    play = upgraded().passes(EHLO).backend(b"550 no\r\n", to_backend(b"HELO client.example.com\r\n"))
    play.backend(b"550 never\r\n", to_client(b"550 no\r\n"))
    play.asks(b"HELO x\r\n", b"550 no\r\n")
    play.client(b"MAIL FROM:<a>\r\n", to_client(MUST_EHLO)).run()


def test_a_421_to_ehlo_is_relayed_and_ends_the_session() -> None:
    upgraded().asks(EHLO, b"421 bye\r\n", close("backend-closed")).run()


def test_S05_starttls_takes_no_argument() -> None:
    play = greeted().client(b"STARTTLS now\r\n", to_client(b"501 5.5.4 Syntax: STARTTLS takes no parameters\r\n"))
    hello(play, told=CLOSED).client(b"STARTTLS\r\n", tls(GO_AHEAD)).run()


@pytest.mark.parametrize("code", [b"500", b"501", b"502", b"504", b"550"])
def test_S06_a_backend_without_esmtp(code: bytes) -> None:
    play = greeted()
    for told in (b"250-legacy hello\r\n250 STARTTLS\r\n", b"250 legacy hello\r\n"):
        play.passes(EHLO).backend(code + b" what\r\n", to_backend(b"HELO client.example.com\r\n"))
        play.backend(b"250 legacy hello\r\n", to_client(told))
        if b"STARTTLS" in told:
            play.client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured()
    play.asks(b"MAIL FROM:<a>\r\n", b"250 ok\r\n").run()


def test_an_ehlo_without_a_name_is_not_tried_again_as_helo() -> None:
    greeted().asks(b"EHLO\r\n", b"501 syntax\r\n").run()


def test_S07_only_removable_keywords() -> None:
    reply = b"250-domain\r\n250-STARTTLS\r\n250-AUTH EXTERNAL\r\n250 XCLIENT ADDR\r\n"
    play = hello(greeted(), reply, b"250-domain\r\n250 STARTTLS\r\n").client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured()
    hello(play, reply, b"250 domain\r\n").run()


def test_S08_the_old_syntax_and_any_case() -> None:
    reply = b"250-domain\r\n250-AUTH=LOGIN PLAIN\r\n250 auth plain external\r\n"
    play = hello(greeted(), reply, b"250-domain\r\n250 STARTTLS\r\n").client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured()
    hello(play, reply, b"250-domain\r\n250-AUTH=LOGIN PLAIN\r\n250 auth plain\r\n").run()


def test_a_reply_that_needs_no_edit_is_relayed_as_it_is() -> None:
    hello(upgraded(), HARMLESS, HARMLESS).run()
    hello(upgraded(), b"250\r\n", b"250\r\n").run()


def test_S09_ehlo_after_authentication_is_edited_as_well() -> None:
    hello(authenticated(secure())).run()


@pytest.mark.parametrize("command", [b"XCLIENT ADDR=1.2.3.4 LOGIN=root", b"xforward NAME=x", b"TURN", b"X-LINK2STATE"])
def test_S10_nobody_speaks_for_others(command: bytes) -> None:
    play = authenticated(secure()).client(command + b"\r\n", to_client(NOT_IMPLEMENTED))
    play.asks(b"NOOP\r\n", b"250 ok\r\n").run()


def test_S18_a_pipelined_envelope_is_answered_in_order() -> None:
    play = secure().client(b"MAIL FROM:<a>\r\nRCPT TO:<b>\r\nRCPT TO:<c>\r\nDATA\r\n", to_backend(b"MAIL FROM:<a>\r\n"))
    play.returns(b"250 1\r\n", to_backend(b"RCPT TO:<b>\r\n"))
    play.returns(b"550 2\r\n", to_backend(b"RCPT TO:<c>\r\n"))
    play.returns(b"250 3\r\n", PROVEN, to_backend(b"DATA\r\n"))
    play.returns(b"354 4\r\n").waits(Patience.DATA).run()


@pytest.mark.parametrize("code", [b"503", b"554", b"451", b"250"])
def test_S19_a_refused_data_leaves_the_next_line_a_command(code: bytes) -> None:
    play = secure().client(b"DATA\r\nXCLIENT ADDR=1.2.3.4\r\nNOOP\r\n", to_backend(b"DATA\r\n"))
    refusal = code + b" no\r\n"
    play.backend(refusal, to_client(refusal + NOT_IMPLEMENTED), to_backend(b"NOOP\r\n")).run()


# --- authentication ----------------------------------------------------------------------------------------


def test_S20_a_dialogue_is_relayed_and_no_word_of_it_is_a_command() -> None:
    play = secure().asks(b"AUTH LOGIN\r\n", b"334 VXNlcm5hbWU6\r\n")
    for word in (b"STARTTLS", b"QUIT", b"XCLIENT", b"", b"=", b"x" * 13 * 1024, b"y" * 65536):
        play.asks(word + b"\r\n", b"334\r\n")
    play.asks(b"*\r\n", b"501 cancelled\r\n")
    play.client(b"STARTTLS\r\n", to_client(b"503 5.5.1 TLS already active\r\n")).run()


def test_S20_a_dialogue_that_was_sent_along_is_read_as_one_only_if_the_backend_asks() -> None:
    play = secure().client(b"AUTH LOGIN\r\nXCLIENT x\r\nNOOP\r\n", to_backend(b"AUTH LOGIN\r\n"))
    play.backend(b"504 no\r\n", to_client(b"504 no\r\n" + NOT_IMPLEMENTED), to_backend(b"NOOP\r\n")).run()


@pytest.mark.parametrize("word", [b"A" * 512 + b"XCLIENT ADDR=1.2.3.4", b" ", b"ab=c", b"***", b"caf\xe9"])
def test_E6_a_response_that_is_no_base64_cancels_the_dialogue(word: bytes) -> None:
    """A server that splits long lines would find a command in it."""
    play = secure().asks(b"AUTH LOGIN\r\n", b"334 VXNlcm5hbWU6\r\n").client(word + b"\r\n", to_backend(b"*\r\n"))
    play.backend(b"501 cancelled\r\n", to_client(b"501 5.5.2 Cannot decode response\r\n"))
    play.asks(b"NOOP\r\n", b"250 ok\r\n").run((WHOLE, 1000))


@pytest.mark.parametrize("initial", [b"a b", b"*", b"A" * 501 + b" XCLIENT ADDR=1.2.3.4", b"!", b"=="])
def test_E6_an_initial_response_that_is_no_base64_is_refused(initial: bytes) -> None:
    refusal = b"501 5.5.2 Syntax error in AUTH\r\n"
    secure().client(b"AUTH PLAIN " + initial + b"\r\n", to_client(refusal)).run((WHOLE, 1000))


TOO_LONG = b"500 5.5.6 Authentication exchange line is too long\r\n"


@pytest.mark.parametrize("word", [b"x" * 65537, b"x" * 70000, b"a\0b", b"a\rb"], ids=["65537", "70000", "NUL", "CR"])
def test_S20_a_response_that_cannot_be_relayed_cancels_the_dialogue(word: bytes) -> None:
    play = secure().asks(b"AUTH LOGIN\r\n", b"334 VXNlcm5hbWU6\r\n").client(word + b"\r\n", to_backend(b"*\r\n"))
    play.backend(b"501 cancelled\r\n", to_client(TOO_LONG))
    play.asks(b"NOOP\r\n", b"250 ok\r\n").run((WHOLE, 1000))


@pytest.mark.parametrize("reply", [b"334 go on\r\n", b"235 what\r\n", b"354 x\r\n"])
def test_a_dialogue_that_survives_its_cancelling_ends_the_session(reply: bytes) -> None:
    # The next command would be taken for a response, or the client would be logged in and not know it.
    play = secure().asks(b"AUTH LOGIN\r\n", b"334\r\n").client(b"a\0b\r\n", to_backend(b"*\r\n"))
    play.backend(reply, to_client(GARBAGE), ABORT_BACKEND, close("backend-protocol-error")).run()


def test_a_421_to_the_cancelling_is_relayed() -> None:
    play = secure().asks(b"AUTH LOGIN\r\n", b"334\r\n").client(b"a\0b\r\n", to_backend(b"*\r\n"))
    play.returns(b"421 bye\r\n", close("backend-closed")).run()


@pytest.mark.parametrize(
    ("words", "ending"),
    [
        (b"421 too slow\r\n", [to_client(b"421 too slow\r\n"), close("backend-closed")]),
        (b"235 what\r\n", [to_client(GARBAGE), ABORT_BACKEND, close("backend-protocol-error")]),
        (b"x" * 66000 + b"\r\n", [to_client(GARBAGE), ABORT_BACKEND, close("backend-protocol-error")]),
    ],
    ids=["421", "unasked", "no-end"],
)
def test_a_backend_may_say_421_and_no_more_while_a_response_is_awaited(words: bytes, ending: list[object]) -> None:
    play = secure().asks(b"AUTH LOGIN\r\n", b"334\r\n")
    play.backend(words, *ending).run((WHOLE, 1000))  # type: ignore[arg-type]


def test_a_client_that_goes_in_a_dialogue_completes_nothing() -> None:
    play = secure().asks(b"AUTH LOGIN\r\n", b"334\r\n")
    play.ended(CLIENT, True, ABORT_BACKEND, close("client-lost")).run()


def test_an_empty_auth_is_the_backends_to_refuse() -> None:
    assert not secure().asks(b"AUTH\r\n", b"501 syntax\r\n").run().notes
    play = secure().passes(b"AUTH\r\n")
    play.backend(b"334 \r\n", to_client(GARBAGE), ABORT_BACKEND, close("backend-protocol-error")).run()


def test_an_initial_response_may_be_long() -> None:
    secure().asks(b"AUTH GSSAPI " + b"x" * 12000 + b"\r\n", b"235 ok\r\n").run((WHOLE, 1000))


LAYER = b"\x00\x00\x00\x10" + bytes(range(16))


@pytest.mark.parametrize("mechanism", [b"GSSAPI", b"gssapi", b"DIGEST-MD5"])
def test_S21_a_security_layer_is_spliced_if_the_backend_grants_our_address_nothing(mechanism: bytes) -> None:
    play = hello(upgraded(), HARMLESS, HARMLESS)
    play.asks(b"AUTH " + mechanism + b" x\r\n", b"235 ok\r\n")
    play.passes(LAYER, SPLICE)
    play.returns(b"\0\0\0\1x").run((WHOLE,))


@pytest.mark.parametrize("mechanism", [b"GSSAPI", b"DIGEST-MD5"])
def test_S21_where_it_grants_something_the_session_ends(mechanism: bytes) -> None:
    play = secure().asks(b"AUTH " + mechanism + b" x\r\n", b"235 ok\r\n")
    play.client(LAYER, ABORT_BACKEND, note("sasl-layer-unsupported"), close("sasl-layer-unsupported")).run()


def test_S21_a_client_that_never_asked_in_ehlo_what_it_grants_gets_no_splice() -> None:
    # HELO, a mechanism with layers, NUL: XCLIENT would be next.
    play = upgraded().asks(b"HELO x\r\n", b"250 legacy\r\n")
    play.asks(b"AUTH DIGEST-MD5 x\r\n", b"235 ok\r\n")
    play.client(b"\0\r\nXCLIENT ADDR=1.2.3.4\r\n", ABORT_BACKEND, close("sasl-layer-unsupported")).run()


def test_S21_nor_does_one_whose_ehlo_the_backend_refused() -> None:
    # EHLO with a name that only HELO takes, and we would have learnt nothing of XCLIENT.
    play = upgraded().passes(b"EHLO a_b\r\n")
    play.backend(b"501 no\r\n", to_backend(b"HELO a_b\r\n")).returns(b"250 hi\r\n")
    play.asks(b"AUTH DIGEST-MD5 x\r\n", b"235 ok\r\n")
    play.client(b"\0\r\nXCLIENT ADDR=1.2.3.4\r\n", ABORT_BACKEND, close("sasl-layer-unsupported")).run()


def test_S21_only_the_next_octet_counts_and_only_behind_such_a_mechanism() -> None:
    play = hello(upgraded(), HARMLESS, HARMLESS)
    play.asks(b"AUTH GSSAPI x\r\n", b"235 ok\r\n")
    play.asks(b"NOOP\r\n", b"250 ok\r\n").client(b"\0\r\n", to_client(SYNTAX)).run()
    play = hello(upgraded(), HARMLESS, HARMLESS)
    play.asks(b"AUTH PLAIN x\r\n", b"235 ok\r\n").client(b"\0\r\n", to_client(SYNTAX)).run()


# --- lazy -----------------------------------------------------------------------------------------------


def lazy(**changes: object) -> Playbook:
    agreed = terms(lazy=True, received=False, **changes)
    return Playbook(DIALECT, agreed).start(to_client(b"220 gw.example.org ESMTP\r\n"))


LOCAL = b"250-gw.example.org\r\n250-ENHANCEDSTATUSCODES\r\n250 STARTTLS\r\n"


def lazily_upgraded() -> Playbook:
    play = lazy().client(EHLO, to_client(LOCAL)).client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured()
    play.client(b"MAIL FROM:<a>\r\n", to_client(MUST_EHLO)).client(b"RSET\r\nNOOP\r\n", to_client(OK + OK))
    return play.client(EHLO, DIAL)


def test_a_lazy_session_dials_at_the_first_ehlo_inside_tls() -> None:
    play = lazily_upgraded().dialled().backend(GREETING, to_backend(EHLO)).backend(REPLY, to_client(SECURE))
    envelope(play).run()


@pytest.mark.parametrize(("code", "told"), [(b"554", b"554"), (b"450", b"554"), (b"500", b"554")])
def test_a_lazy_session_relays_a_refusal_as_the_reply_to_ehlo(code: bytes, told: bytes) -> None:
    play = lazily_upgraded().dialled()
    play.backend(code + b"-no\r\n" + code + b" way\r\n", to_client(told + b"-no\r\n" + told + b" way\r\n"))
    play.client(b"NOOP\r\n", to_client(b"503 5.5.1 Only QUIT is allowed now\r\n"))
    play.passes(b"QUIT\r\n").run()


def test_a_lazy_session_whose_backend_is_busy_closes() -> None:
    play = lazily_upgraded().dialled()
    play.returns(b"421 busy\r\n", close("backend-refused")).run()


def test_a_lazy_session_answers_by_itself_what_needs_no_backend() -> None:
    play = lazy(policy=AUTH_ONLY).client(b"NOOP\r\n", to_client(OK)).client(b"RSET\r\n", to_client(OK))
    play.client(b"BDAT 3\r\nabc", to_client(NOT_IMPLEMENTED)).client(b"AUTH PLAIN x\r\n", to_client(MUST_STARTTLS))
    play.client(b"QUIT\r\n", to_client(b"221 2.0.0 gw.example.org closing connection\r\n"), close("quit")).run()


def test_a_lazy_session_in_the_clear_tells_the_backend_the_clients_name_first() -> None:
    play = lazy(policy=AUTH_ONLY).client(EHLO, to_client(LOCAL)).client(b"MAIL FROM:<a>\r\n", DIAL).dialled()
    play.backend(GREETING, to_backend(EHLO)).backend(REPLY, to_backend(b"MAIL FROM:<a>\r\n"))
    play.returns(b"250 ok\r\n")
    hello(play, told=CLOSED).run()
    play = lazy(policy=AUTH_ONLY).client(EHLO, to_client(LOCAL)).client(b"VRFY a\r\n", DIAL).dialled()
    play.backend(GREETING, to_backend(EHLO)).backend(b"502 what\r\n", to_backend(b"HELO client.example.com\r\n"))
    play.backend(b"250 hi\r\n", to_backend(b"VRFY a\r\n")).run()
    play = lazy(policy=AUTH_ONLY).client(b"HELO x\r\n", DIAL).dialled().backend(GREETING, to_backend(b"HELO x\r\n"))
    play.returns(b"250 hi\r\n").run()
    lazy(policy=AUTH_ONLY).client(b"HELP\r\n", DIAL).dialled().backend(GREETING, to_backend(b"HELP\r\n")).run()


def test_a_lazy_session_with_optional_tls_dials_for_authentication() -> None:
    play = lazy(policy=OPTIONAL).client(b"AUTH DIGEST-MD5 x\r\n", DIAL).dialled()
    play.backend(GREETING, to_backend(b"AUTH DIGEST-MD5 x\r\n")).returns(b"235 ok\r\n")
    play.client(b"\0", ABORT_BACKEND, close("sasl-layer-unsupported")).run()


# --- what the backend does wrong ----------------------------------------------------------------------------


def test_S29_an_unasked_421_is_relayed() -> None:
    play = secure().returns(b"421-bye\r\n421 bye\r\n", close("backend-closed"))
    play.run()


@pytest.mark.parametrize(
    "words", [b"250 ok\r\n", b"250-ok\r\n250 ok\r\n", b"\r\n", b"hello\r\n", b"x" * 13000 + b"\r\n"], ids=len
)
def test_anything_else_unasked_would_be_the_next_reply_and_ends_the_session(words: bytes) -> None:
    play = secure().backend(words, to_client(GARBAGE), ABORT_BACKEND, note("backend-protocol-error"),
                            close("backend-protocol-error"))  # fmt: skip
    play.run((WHOLE, 1000))


def test_an_unasked_reply_that_breaks_off_is_not_relayed() -> None:
    secure().backend(b"250-one\r\n").ended(BACKEND, True, to_client(LOST), ABORT_BACKEND, close("backend-closed")).run()
    play = secure().backend(b"421-one\r\n")
    play.ended(BACKEND, True, to_client(b"421-one\r\n"), ABORT_BACKEND, close("backend-closed")).run()


@pytest.mark.parametrize(
    "words",
    [b"hello", b"", b"25", b"2500", b"650 x", b"250x", b"354 go on", b"334 go on", b"x" * 9000],
    ids=lambda words: repr(words[:12]),
)
def test_a_reply_that_is_none_ends_the_session(words: bytes) -> None:
    play = secure().passes(b"FOO\r\n")
    play.backend(words + b"\r\n", to_client(GARBAGE), ABORT_BACKEND, close("backend-protocol-error"))
    play.run((WHOLE, 1000))


def test_a_reply_that_changes_its_code_breaks_off() -> None:
    play = secure().passes(b"FOO\r\n")
    play.backend(b"250-a\r\n251 b\r\n", to_client(b"250-a\r\n"), ABORT_BACKEND, close("backend-protocol-error")).run()


@pytest.mark.parametrize("reply", [b"250-x\r\n" * 1001, (b"250-" + b"x" * 8000 + b"\r\n") * 40], ids=len)
def test_a_reply_without_end_ends_the_session(reply: bytes) -> None:
    play = secure().passes(EHLO)
    play.backend(reply, to_client(GARBAGE), ABORT_BACKEND, close("backend-protocol-error")).run((WHOLE, 1000))


@pytest.mark.parametrize("reply", [b"250\r\n", b"250-\r\n250\r\n", b"250 \xff\x01\r\n"], ids=repr)
def test_odd_replies_are_relayed_as_they_are(reply: bytes) -> None:
    secure().asks(b"FOO\r\n", reply).run()


# --- what the client does wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(("verb", "limit"), [(b"VRFY", 510), (b"EHLO", 510), (b"FOO", 510), (b"MAIL", 2048),
                                             (b"rcpt", 2048), (b"AUTH", 12352), (b"X-EXPS", 12352)])  # fmt: skip
def test_a_line_that_a_backend_might_split_is_refused_whole(verb: bytes, limit: int) -> None:
    line = verb + b" PLAIN x"
    line += b"x" * (limit - len(line))
    play = secure().asks(line + b"\r\n", b"550 no\r\n") if verb != b"EHLO" else secure()
    too_long = to_client(b"500 5.5.2 Line too long\r\n")
    play.client(line + b"x\r\n", too_long, note("client-line-too-long"))
    play.client(verb + b" " + b"x" * 13000 + b"\r\n", too_long)
    play.asks(b"NOOP\r\n", b"250 ok\r\n").run((WHOLE, 1000))


def test_too_many_bad_commands_in_a_row() -> None:
    play = greeted(bad_commands=3).client(b"FOO\r\nNOOP\r\nBAR\r\n", to_client(MUST_STARTTLS + OK + MUST_STARTTLS))
    play.client(b"A\0\r\n", to_client(TOO_MANY), to_backend(b"QUIT\r\n"), note("too-many-bad-commands"),
                close("too-many-bad-commands")).run()  # fmt: skip
    play = secure(bad_commands=3)
    for _ in range(5):
        play.asks(b"FOO\r\n", b"502 no\r\n")
        play.asks(b"FOO\r\n", b"500 no\r\n")
        play.asks(b"NOOP\r\n", b"250 yes\r\n")
        play.asks(b"RCPT TO:<x>\r\n", b"550 no\r\n")
    play.client(b"TURN\r\nTURN\r\n", to_client(NOT_IMPLEMENTED * 2)).passes(b"FOO\r\n")
    play.backend(b"502 no\r\n", to_client(b"502 no\r\n" + TOO_MANY), to_backend(b"QUIT\r\n"),
                 close("too-many-bad-commands")).run()  # fmt: skip


def test_who_is_authenticated_may_err() -> None:
    play = authenticated(secure(bad_commands=2))
    for _ in range(5):
        play.client(b"TURN\r\n", to_client(NOT_IMPLEMENTED)).asks(b"FOO\r\n", b"502 no\r\n")
    play.run()


def test_the_registered_dialect() -> None:
    assert DIALECT.patience[FINAL] >= 600


def test_a_QUIT_that_the_backend_does_not_understand_ends_nothing() -> None:
    play = secure().asks(b"QUIT now\r\n", b"501 5.5.4 Syntax: QUIT\r\n")
    play.asks(b"QUIT\r\n", b"221 bye\r\n", close("quit")).run()


def test_MAIL_may_be_long_only_where_the_backend_offers_what_makes_it_long() -> None:
    """One that was written for 512 octets may split longer lines, and take the tail for a command."""
    long = b"MAIL FROM:<%s@example.com>\r\n" % (b"a" * 600)
    hello(upgraded(), b"250-x\r\n250 PIPELINING\r\n", b"250-x\r\n250 PIPELINING\r\n").client(
        long, to_client(b"500 5.5.2 Line too long\r\n")
    ).run()
    hello(upgraded(), b"250-x\r\n250 SIZE\r\n", b"250-x\r\n250 SIZE\r\n").asks(long, b"250 ok\r\n").run()
