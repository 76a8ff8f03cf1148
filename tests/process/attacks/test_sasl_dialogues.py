"""Attacks E of docs/conformance.md: authentication."""

from __future__ import annotations

import base64

import pytest

from gateway.config.values import Limits
from tests.process.attacks.conftest import Attack
from tests.process.legacy import WRONG, smtp
from tests.process.words import WORDS

TOO_MANY = {
    "smtp": b"421 4.7.0 gw.example.test Too many failed logins\r\n",
    "imap": b"* BYE Too many failed logins\r\n",
    "pop3": b"-ERR [AUTH] Too many failed logins\r\n",
}
FAILED_LOGINS = Limits().auth_failures_per_session
EMPTY = base64.b64encode(b"\0\0")


def test_E1_a_line_is_what_the_backends_reply_makes_it(attack: Attack) -> None:
    client = attack.secure("smtp")
    client.say(b"AUTH LOGIN\r\nTUFJTA==\r\nYQ==\r\nNOOP\r\n")
    client.hear(rb"\A334 [^\n]*\n334 [^\n]*\n235 [^\n]*\n250 [^\n]*\n")
    assert attack.visit("smtp").heard.endswith(b"AUTH LOGIN\r\nTUFJTA==\r\nYQ==\r\nNOOP\r\n")


def test_E1_commands_behind_auth_are_no_commands_while_it_lasts(attack: Attack) -> None:
    client = attack.secure("smtp")
    client.say(b"AUTH LOGIN\r\nMAIL FROM:<a@x>\r\n")
    client.hear(rb"\A334 [^\n]*\n50[01] [^\n]*\n")
    assert b"MAIL" not in attack.visit("smtp").heard
    attack.answered(client, "smtp")


def test_E1_what_was_sent_along_is_commands_when_the_backend_refuses_at_once(attack: Attack) -> None:
    attack.play("smtp", smtp({b"AUTH": b"535 no\r\n"}))
    client = attack.secure("smtp")
    client.say(b"AUTH LOGIN\r\nYQ==\r\nYg==\r\nNOOP\r\n")
    client.hear(rb"\A535 [^\n]*\n5[^\n]*\n5[^\n]*\n250 [^\n]*\n")


@pytest.mark.parametrize("protocol", WORDS)
def test_E2_a_dialogue_can_be_cancelled(attack: Attack, protocol: str) -> None:
    client = attack.secure(protocol)
    client.say(attack.words(protocol).dialogue)
    client.hear(rb"\A(334 |\+ )[^\n]*\n")
    client.say(b"*\r\n")
    client.hear(rb"\A(501|a BAD|-ERR)[^\n]*\n")
    attack.answered(client, protocol)


@pytest.mark.parametrize("protocol", WORDS)
@pytest.mark.parametrize("response", [b"", b"="], ids=["nothing", "equals"])
def test_E3_a_response_may_be_empty(attack: Attack, protocol: str, response: bytes) -> None:
    client = attack.secure(protocol)
    # In ANONYMOUS an empty response is a whole login (RFC 4505 2); in PLAIN no OK to it would be believed.
    client.say(b"a AUTHENTICATE ANONYMOUS\r\n" if protocol == "imap" else attack.words(protocol).dialogue)
    client.hear(rb"\A(334 |\+ )[^\n]*\n")
    client.say(response + b"\r\n")
    client.hear(rb"\A(334|a OK|\+OK)[^\n]*\n")
    assert attack.visit(protocol).heard.endswith(b"\n" + response + b"\r\n")


def test_E4_an_initial_response_and_another_if_it_is_asked_for(attack: Attack) -> None:
    attack.play("smtp", smtp({b"AUTH": b"334 \r\n", EMPTY.upper(): b"235 in\r\n"}))
    client = attack.secure("smtp")
    client.say(b"AUTH PLAIN " + EMPTY + b"\r\n")
    client.hear(rb"\A334 [^\n]*\n")
    client.say(EMPTY + b"\r\n")
    client.hear(rb"\A235 [^\n]*\n")


@pytest.mark.parametrize(("octets", "taken"), [(12_000, True), (65_536, True), (66_000, False)])
def test_E5_long_responses(attack: Attack, octets: int, taken: bool) -> None:
    client = attack.secure("smtp")
    client.say(b"AUTH LOGIN\r\n")
    client.hear(rb"\A334 [^\n]*\n")
    client.say(b"A" * octets + b"\r\n")
    client.hear(rb"\A334 [^\n]*\n" if taken else rb"\A500 5\.5\.6 [^\n]*\n")
    assert (b"A" * octets in attack.visit("smtp").heard) is taken


@pytest.mark.parametrize("response", [b"!!!!", b"A\xffA=", b"=AAA", b"a b", b"AAA=AAA"], ids=repr)
@pytest.mark.parametrize("protocol", WORDS)
def test_E6_what_is_no_base64_concerns_this_session_only(attack: Attack, protocol: str, response: bytes) -> None:
    other = attack.secure(protocol)
    other.say(attack.words(protocol).dialogue)
    other.hear(rb"\A(334 |\+ )[^\n]*\n")
    client = attack.secure(protocol)
    client.say(attack.words(protocol).dialogue)
    client.hear(rb"\A(334 |\+ )[^\n]*\n")
    client.say(response + b"\r\n")
    client.hear(rb"\A(50[01]|a BAD|-ERR)[^\n]*\n")
    assert response + b"\r\n" not in attack.visit(protocol).heard
    attack.answered(client, protocol)
    other.say(EMPTY + b"\r\n")
    other.hear(rb"\A(334|a OK|\+OK)[^\n]*\n")


@pytest.mark.parametrize("protocol", WORDS)
@pytest.mark.parametrize("how", ["fin", "reset"])
def test_E7_who_goes_in_a_dialogue_completes_nothing(attack: Attack, protocol: str, how: str) -> None:
    client = attack.secure(protocol)
    client.say(attack.words(protocol).dialogue)
    client.hear(rb"\A(334 |\+ )[^\n]*\n")
    client.say(b"AGEA")
    if how == "fin":
        client.finish()
    else:
        client.reset()
    visit = attack.visit(protocol)
    visit.ended()
    assert b"AGEA" not in visit.heard


def test_E8_a_second_auth_is_the_backends_to_refuse(attack: Attack) -> None:
    attack.play("smtp", smtp({b"AUTH": b"503 5.5.1 already\r\n"}))
    client = attack.secure("smtp")
    client.say(b"AUTH PLAIN AGEAYg==\r\n")
    client.hear(rb"\A503 5\.5\.1 already\r\n")


def test_E9_a_second_try_has_nothing_of_the_first(attack: Attack) -> None:
    for protocol, first, second, answers in (
        ("smtp", b"AUTH PLAIN %s\r\n" % WRONG, b"AUTH PLAIN AGEAYg==\r\n", rb"\A535 [^\n]*\n235 [^\n]*\n"),
        ("imap", b"a LOGIN u wrong\r\n", b"b LOGIN u b\r\n", rb"\Aa NO [^\n]*\nb OK [^\n]*\n"),
        (
            "pop3",
            b"USER u\r\nPASS wrong\r\n",
            b"USER u\r\nPASS b\r\n",
            rb"\A\+OK [^\n]*\n-ERR [^\n]*\n\+OK [^\n]*\n\+OK",
        ),
    ):
        client = attack.secure(protocol)
        client.say(first + second)
        client.hear(answers)
        assert attack.visit(protocol).heard.endswith(first + second)


@pytest.mark.parametrize("mechanism", [b"SCRAM-SHA-256-PLUS", b"scram-sha-1-plus", b"EXTERNAL", b"External"])
@pytest.mark.parametrize("protocol", WORDS)
def test_E10_hidden_mechanisms_are_refused(attack: Attack, protocol: str, mechanism: bytes) -> None:
    client = attack.secure(protocol)
    before = attack.visit(protocol).heard
    client.say((b"a AUTHENTICATE " if protocol == "imap" else b"AUTH ") + mechanism + b"\r\n")
    client.hear(rb"\A(504|a NO|-ERR)[^\n]*\n")
    assert attack.visit(protocol).heard == before
    attack.answered(client, protocol)


def test_E11_the_error_step_of_a_token_mechanism_is_relayed(attack: Attack) -> None:
    attack.play("smtp", smtp({b"AUTH": b"334 eyJzdGF0dXMiOiI0MDEifQ==\r\n", b"AQ==": b"535 5.7.8 no\r\n"}))
    client = attack.secure("smtp")
    client.say(b"AUTH XOAUTH2 dXNlcj1h\r\n")
    client.hear(rb"\A334 eyJzdGF0dXMiOiI0MDEifQ==\r\n")
    client.say(b"AQ==\r\n")
    client.hear(rb"\A535 [^\n]*\n")


@pytest.mark.parametrize("protocol", WORDS)
def test_E12_guesses_are_told_one_by_one_and_the_fifth_is_the_last(attack: Attack, protocol: str) -> None:
    """Above the limit of a minute the gateway refuses by itself: see the tests of limits."""
    client = attack.secure(protocol)
    guess = {
        "smtp": (b"AUTH PLAIN %s\r\n" % WRONG, rb"\A535 [^\n]*\n"),
        "imap": (b"a LOGIN u wrong\r\n", rb"\Aa NO [^\n]*\n"),
        "pop3": (b"USER u\r\nPASS wrong\r\n", rb"\A\+OK [^\n]*\n-ERR [^\n]*\n"),
    }[protocol]
    for _ in range(FAILED_LOGINS):
        client.say(guess[0])
        client.hear(guess[1])
    attack.gateway.log.wait("auth", attack.since, FAILED_LOGINS, result="failed")
    assert client.rest() == TOO_MANY[protocol]
    attack.wait("session", reason="too-many-failed-logins")
    visit = attack.visit(protocol)
    visit.ended()
    assert visit.heard.endswith(attack.words(protocol).polite)


@pytest.mark.parametrize("protocol", WORDS)
def test_E12_a_thousand_guesses_in_one_write_are_five(attack: Attack, protocol: str) -> None:
    client = attack.secure(protocol)
    guess = {
        "smtp": b"AUTH PLAIN %s\r\n" % WRONG,
        "imap": b"a LOGIN u wrong\r\n",
        "pop3": b"USER u\r\nPASS wrong\r\n",
    }[protocol]
    client.say(guess * 1000)
    assert client.rest().endswith(TOO_MANY[protocol])
    visit = attack.visit(protocol)
    visit.ended()
    assert visit.heard.count(guess) == FAILED_LOGINS
