"""Guessing of passwords (E12): what counts as a failure, and what a client hears that had too many of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from gateway.dialects import DIALECTS
from gateway.dialects.base import FAILED_LOGINS, Policy
from tests.pure.playbook import DIAL, REJECTED, SPLICE, Playbook, close, note, terms, tls, to_backend, to_client

REFUSED = note("refused", limit="auth-failures-per-minute")
FAILED = note("auth", result="failed")

GREETINGS = {"smtp": b"220 hi\r\n", "imap": b"* OK hi\r\n", "pop3": b"+OK hi\r\n"}


def inside(protocol: str, **changes: Any) -> Playbook:
    """Inside TLS and greeted."""
    greeting = GREETINGS[protocol]
    play = Playbook(DIALECTS[protocol], terms(implicit=True, received=False, **changes))
    return play.start(tls(b"")).secured(DIAL).dialled().backend(greeting, to_client(greeting))


# --- what counts ---------------------------------------------------------------------------------

ANSWERS = {
    "smtp": (b"AUTH PLAIN AGEAYg==\r\n", {
        b"535 5.7.8 Authentication credentials invalid\r\n": True,
        b"535-5.7.8 no\r\n535 5.7.8 no\r\n": True,
        b"504 5.5.4 Unrecognized authentication type\r\n": True,
        b"454 4.7.0 Temporary authentication failure\r\n": False,
        b"421 4.3.0 bye\r\n": False,
        b"432 4.7.12 A password transition is needed\r\n": False,
    }),
    "imap": (b"a LOGIN joe secret\r\n", {
        b"a NO [AUTHENTICATIONFAILED] Authentication failed.\r\n": True,
        b"a NO nope\r\n": True,
        b"a NO\r\n": True,
        b"a no [EXPIRED] x\r\n": True,
        b"a NO sorry [UNAVAILABLE]\r\n": True,
        b"a NO [LIMITED]\r\n": True,
        b"a NO [UNAVAILABLE] Temporary authentication failure.\r\n": False,
        b"a No [unavailable]\r\n": False,
        b"a NO [INUSE] x\r\n": False,
        b"a NO [LIMIT] x\r\n": False,
        b"a NO [LIMIT 3] x\r\n": False,
        b"a BAD what\r\n": False,
    }),
    "pop3": (b"PASS secret\r\n", {
        b"-ERR [AUTH] Authentication failed.\r\n": True,
        b"-ERR\r\n": True,
        b"-ERR no [SYS/TEMP]\r\n": True,
        b"-ERR [SYS/TEMP] x\r\n": False,
        b"-ERR [sys/perm] x\r\n": False,
        b"-ERR [IN-USE] x\r\n": False,
        b"-ERR [LOGIN-DELAY] x\r\n": False,
    }),
}  # fmt: skip


@pytest.mark.parametrize(("protocol", "command", "answer", "counts"), [
    (protocol, command, answer, counts)
    for protocol, (command, answers) in ANSWERS.items()
    for answer, counts in answers.items()
])  # fmt: skip
def test_E12_a_failure_is_what_says_something_of_the_password(
    protocol: str, command: bytes, answer: bytes, counts: bool
) -> None:
    play = inside(protocol).client(command, to_backend(command))
    end = (close("backend-closed"),) if answer.startswith(b"421") else ()
    play.backend(answer, FAILED, to_client(answer), *end, *[REJECTED] * counts).run()
    assert play.rejected == counts


def test_E12_only_the_end_of_a_dialogue_counts() -> None:
    play = inside("smtp").client(b"AUTH LOGIN\r\n", to_backend(b"AUTH LOGIN\r\n"))
    for _ in range(2):
        play.backend(b"334 eA==\r\n", to_client(b"334 eA==\r\n")).client(b"eA==\r\n", to_backend(b"eA==\r\n"))
    play.backend(b"535 no\r\n", to_client(b"535 no\r\n"), REJECTED).run()
    assert play.rejected == 1


@pytest.mark.parametrize(("protocol", "command", "answer"), [
    ("smtp", b"AUTH\r\n", b"501 what\r\n"),
    ("smtp", b"FOO\r\n", b"535 what\r\n"),
    ("imap", b"a SELECT x\r\n", b"a NO log in first\r\n"),
    ("pop3", b"USER x\r\n", b"-ERR no such user\r\n"),
    ("pop3", b"AUTH\r\n", b"-ERR what\r\n"),
])  # fmt: skip
def test_E12_what_proves_nobody_is_no_failure(protocol: str, command: bytes, answer: bytes) -> None:
    play = inside(protocol).client(command, to_backend(command)).backend(answer, to_client(answer)).run()
    assert play.rejected == 0


# --- too many in one session -----------------------------------------------------------------------

GUESSES = {
    "smtp": (b"AUTH PLAIN AGEAYg==\r\n", b"535 5.7.8 no\r\n", b"454 4.7.0 later\r\n"),
    "imap": (b"a LOGIN joe secret\r\n", b"a NO [AUTHENTICATIONFAILED] no\r\n", b"a NO [UNAVAILABLE] later\r\n"),
    "pop3": (b"PASS secret\r\n", b"-ERR [AUTH] no\r\n", b"-ERR [SYS/TEMP] later\r\n"),
}
GOODBYES = {
    "smtp": b"421 4.7.0 gw.example.org Too many failed logins\r\n",
    "imap": b"* BYE Too many failed logins\r\n",
    "pop3": b"-ERR [AUTH] Too many failed logins\r\n",
}


@pytest.mark.parametrize("protocol", GUESSES)
def test_E12_the_last_guess_is_answered_and_then_the_session_is_over(protocol: str) -> None:
    guess, refusal, later = GUESSES[protocol]
    play = inside(protocol)
    for _ in range(FAILED_LOGINS - 1):
        play.client(guess, to_backend(guess)).backend(refusal, FAILED, REJECTED, to_client(refusal))
        # What says nothing of the password is no guess.
        play.client(guess, to_backend(guess)).backend(later, FAILED, to_client(later))
    farewell = b"sgw9 LOGOUT\r\n" if protocol == "imap" else b"QUIT\r\n"
    play.client(guess, to_backend(guess)).backend(
        refusal, FAILED, REJECTED, to_client(refusal + GOODBYES[protocol]), to_backend(farewell),
        close("too-many-failed-logins"),
    ).run()  # fmt: skip
    assert play.rejected == FAILED_LOGINS
    assert {event.event for event in play.notes} == {"auth"}


@pytest.mark.parametrize("protocol", GUESSES)
def test_E12_the_last_one_may_be_right(protocol: str) -> None:
    guess, refusal, _ = GUESSES[protocol]
    welcome = {"smtp": b"235 in\r\n", "imap": b"a OK in\r\n", "pop3": b"+OK in\r\n"}[protocol]
    play = inside(protocol)
    for _ in range(FAILED_LOGINS - 1):
        play.client(guess, to_backend(guess)).backend(refusal, to_client(refusal))
    spliced = () if protocol == "smtp" else (SPLICE,)
    play.client(guess, to_backend(guess)).backend(welcome, to_client(welcome), *spliced).run()
    assert play.proven == 1


@pytest.mark.parametrize("protocol", GUESSES)
def test_E12_guesses_sent_ahead_are_not_heard(protocol: str) -> None:
    """One at a time: what lies behind the last one never reaches the backend."""
    guess, refusal, _ = GUESSES[protocol]
    play = inside(protocol).client(guess * 10, to_backend(guess))
    for _ in range(FAILED_LOGINS - 1):
        play.backend(refusal, to_client(refusal), to_backend(guess))
    farewell = b"sgw9 LOGOUT\r\n" if protocol == "imap" else b"QUIT\r\n"
    play.backend(
        refusal, to_client(refusal + GOODBYES[protocol]), to_backend(farewell), close("too-many-failed-logins")
    ).run()  # fmt: skip


# --- above the limit -----------------------------------------------------------------------------

TEMPORARY = {
    "smtp": b"454 4.7.0 Temporary authentication failure\r\n",
    "imap": b"a NO [UNAVAILABLE] Temporary authentication failure\r\n",
    "pop3": b"-ERR [SYS/TEMP] Temporary authentication failure\r\n",
}
LOGINS = {
    "smtp": (b"AUTH PLAIN AGEAYg==\r\n", b"AUTH LOGIN\r\n", b"auth cram-md5\r\n", b"X-EXPS LOGIN\r\n"),
    "imap": (
        b"a LOGIN joe secret\r\n", b"a login {3}\r\n", b"a LOGIN {3+}\r\njoe {6+}\r\nsecret\r\n",
        b"a AUTHENTICATE PLAIN\r\n", b"a AUTHENTICATE PLAIN AGEAYg==\r\n",
    ),
    "pop3": (
        b"USER joe\r\n", b"PASS secret\r\n", b"apop joe 0123\r\n", b"AUTH PLAIN\r\n", b"AUTH PLAIN AGEAYg==\r\n",
    ),
}  # fmt: skip
EVERY_LOGIN = [(protocol, login) for protocol, logins in LOGINS.items() for login in logins]


@dataclass
class Patience:
    """Lets so many logins through."""

    left: int

    def __call__(self) -> bool:
        self.left -= 1
        return self.left >= 0


@pytest.mark.parametrize(("protocol", "login"), EVERY_LOGIN)
def test_E12_above_the_limit_the_backend_is_not_asked_and_nothing_goes_on(protocol: str, login: bytes) -> None:
    play = inside(protocol, may_log_in=lambda: False)
    play.client(login, REFUSED, to_client(TEMPORARY[protocol])).client(login, to_client(TEMPORARY[protocol])).run()
    assert (play.rejected, play.proven) == (0, 0)


@pytest.mark.parametrize(("protocol", "login"), EVERY_LOGIN)
def test_E12_who_goes_on_is_sent_away_as_for_other_bad_commands(protocol: str, login: bytes) -> None:
    play = inside(protocol, may_log_in=lambda: False, bad_commands=2)
    play.client(login, REFUSED, to_client(TEMPORARY[protocol]))
    last_words = {
        "smtp": b"421 4.7.0 gw.example.org Too many errors\r\n",
        "imap": TEMPORARY["imap"] + b"* BYE Too many invalid commands\r\n",
        "pop3": TEMPORARY["pop3"] + b"-ERR Too many invalid commands\r\n",
    }
    farewell = b"sgw9 LOGOUT\r\n" if protocol == "imap" else b"QUIT\r\n"
    play.client(
        login, to_client(last_words[protocol]), to_backend(farewell), close("too-many-bad-commands")
    ).run()  # fmt: skip


@pytest.mark.parametrize("protocol", LOGINS)
def test_E12_the_limit_is_looked_at_with_every_login(protocol: str) -> None:
    login = LOGINS[protocol][0]
    answer = {"smtp": b"535 no\r\n", "imap": b"a NO no\r\n", "pop3": b"+OK\r\n"}[protocol]
    for cut in (0, 1):
        play = inside(protocol, may_log_in=Patience(1))
        play.client(login, to_backend(login)).backend(answer, to_client(answer))
        play.client(login, REFUSED, to_client(TEMPORARY[protocol])).run((cut,))


@pytest.mark.parametrize(("protocol", "login", "refusal"), [
    ("smtp", b"AUTH PLAIN AGEAYg==\r\n", b"530 5.7.0 Must issue a STARTTLS command first\r\n"),
    ("imap", b"a LOGIN joe secret\r\n", b"a NO [PRIVACYREQUIRED] Must issue a STARTTLS command first\r\n"),
    ("pop3", b"USER joe\r\n", b"-ERR [SYS/PERM] Must issue a STLS command first\r\n"),
])  # fmt: skip
def test_E12_in_the_clear_the_word_is_TLS(protocol: str, login: bytes, refusal: bytes) -> None:
    greeting = GREETINGS[protocol]
    play = Playbook(DIALECTS[protocol], terms(policy=Policy.REQUIRED, may_log_in=lambda: False))
    play.start(DIAL).dialled().backend(greeting, to_client(greeting)).client(login, to_client(refusal)).run()
    assert play.notes == []


def test_E12_who_takes_his_word_back_guesses_nothing() -> None:
    play = inside("smtp")
    for _ in range(FAILED_LOGINS + 1):
        play.client(b"AUTH LOGIN\r\n", to_backend(b"AUTH LOGIN\r\n"))
        play.backend(b"334 VQ==\r\n", to_client(b"334 VQ==\r\n")).client(b"*\r\n", to_backend(b"*\r\n"))
        play.backend(b"501 5.7.0 cancelled\r\n", FAILED, to_client(b"501 5.7.0 cancelled\r\n"))
    play.run()
    assert play.rejected == 0


def test_E12_who_is_in_guesses_nothing() -> None:
    guess, _refusal, _ = GUESSES["smtp"]
    play = inside("smtp").client(guess, to_backend(guess)).backend(b"235 in\r\n", to_client(b"235 in\r\n"))
    for _ in range(FAILED_LOGINS + 1):
        play.client(guess, to_backend(guess)).backend(b"503 already\r\n", FAILED, to_client(b"503 already\r\n"))
    play.run()
    assert play.rejected == 0
