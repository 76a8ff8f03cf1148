"""Guessing of passwords (E12): what counts as a failure, and what a client hears that had too many of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.pure.contract.party import PARTIES
from tests.pure.playbook import (
    FAILED_LOGINS,
    REJECTED,
    SPLICE,
    Playbook,
    close,
    note,
    to_backend,
    to_client,
)

FAILED = note("auth", result="failed")


def inside(protocol: str, **changes: Any) -> Playbook:
    """Inside TLS and greeted."""
    return next(party for party in PARTIES if str(party) == protocol).greeted(implicit=True, **changes)


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
    play = inside(protocol).passes(command)
    end = (close("backend-closed"),) if answer.startswith(b"421") else ()
    play.returns(answer, FAILED, *end, *[REJECTED] * counts).run()
    assert play.rejected == counts


def test_E12_only_the_end_of_a_dialogue_counts() -> None:
    play = inside("smtp").passes(b"AUTH LOGIN\r\n")
    for _ in range(2):
        play.returns(b"334 eA==\r\n").passes(b"eA==\r\n")
    play.returns(b"535 no\r\n", REJECTED).run()
    assert play.rejected == 1


@pytest.mark.parametrize(("protocol", "command", "answer"), [
    ("smtp", b"AUTH\r\n", b"501 what\r\n"),
    ("smtp", b"FOO\r\n", b"535 what\r\n"),
    ("imap", b"a SELECT x\r\n", b"a NO log in first\r\n"),
    ("pop3", b"AUTH\r\n", b"-ERR what\r\n"),
])  # fmt: skip
def test_E12_what_proves_nobody_is_no_failure(protocol: str, command: bytes, answer: bytes) -> None:
    play = inside(protocol).asks(command, answer).run()
    assert play.rejected == 0


def test_E12_who_takes_his_word_back_guesses_nothing() -> None:
    play = inside("smtp")
    for _ in range(FAILED_LOGINS + 1):
        play.asks(b"AUTH LOGIN\r\n", b"334 VQ==\r\n").asks(b"*\r\n", b"501 5.7.0 cancelled\r\n", FAILED)
    play.run()
    assert play.rejected == 0


def test_E12_who_is_in_guesses_nothing() -> None:
    guess = b"AUTH PLAIN AGEAYg==\r\n"
    play = inside("smtp").asks(guess, b"235 in\r\n")
    for _ in range(FAILED_LOGINS + 1):
        play.asks(guess, b"503 already\r\n", FAILED)
    play.run()
    assert play.rejected == 0


# --- names that are refused (POP3) -----------------------------------------------------------------

TOLD = note("auth", result="failed", mechanism="USER")

NOBODY = [
    b"-ERR no such user\r\n",
    b"-ERR\r\n",
    b"-Err sorry, there's no mailbox for joe here\r\n",
    b"-ERR [AUTH] Unknown user\r\n",
    b"+ERR unknown\r\n",
    b"-ERR Invalid user name\r\n",
    b"-ERR NO SUCH USER\r\n",
    b"-ERR joe is not allowed to log in\r\n",
]
ANYBODY = [
    b"-ERR [AUTH] Plaintext authentication disallowed on non-secure (SSL/TLS) connections.\r\n",
    b"-ERR Plaintext authentication disallowed on non-secure connections.\r\n",
    b"-ERR Clear text passwords have been disabled for this protocol\r\n",
    b"-ERR cleartext logins disabled\r\n",
    b"-ERR [AUTH] USER command only available under a layer\r\n",
    b"-ERR STLS is required.\r\n",
    b"-ERR only valid after entering TLS mode\r\n",
    b"-ERR You must use TLS/SSL or stronger authentication such as AUTH or APOP to connect to this server\r\n",
    b"-ERR USER/PASS not supported, use AUTH\r\n",
    b"-ERR this server requires APOP\r\n",
    b"-ERR encryption required\r\n",
    b"-ERR Command is not valid in this state.\r\n",
    b"-ERR Unknown command.\r\n",
    b"-ERR Unknown AUTHORIZATION state command\r\n",
    b"-ERR Unacceptable command\r\n",
    b"-ERR invalid command\r\n",
    b"-ERR unimplemented\r\n",
    b"-ERR command not implemented\r\n",
]
LATER = [
    b"-ERR [SYS/TEMP] x\r\n",
    b"-ERR [SYS/PERM] x\r\n",
    b"-ERR [IN-USE] x\r\n",
    b"-ERR [LOGIN-DELAY] minimum time between mail checks violation\r\n",
]


def test_T12_three_hundred_names_in_one_session_are_five() -> None:
    play = inside("pop3").client(b"USER a\r\n" * 300, to_backend(b"USER a\r\n"))
    for _ in range(FAILED_LOGINS - 1):
        play.backend(b"-ERR nobody\r\n", TOLD, REJECTED, to_client(b"-ERR nobody\r\n"), to_backend(b"USER a\r\n"))
    play.backend(
        b"-ERR nobody\r\n", TOLD, REJECTED, to_client(b"-ERR nobody\r\n-ERR [AUTH] Too many failed logins\r\n"),
        to_backend(b"QUIT\r\n"), close("too-many-failed-logins"),
    ).run()  # fmt: skip
    assert play.rejected == FAILED_LOGINS


@pytest.mark.parametrize("answer", NOBODY)
def test_T12_a_name_that_is_refused_is_a_failure(answer: bytes) -> None:
    play = inside("pop3").passes(b"USER joe\r\n")
    play.backend(answer, TOLD, REJECTED, to_client(answer)).run()
    assert (play.rejected, len(play.notes)) == (1, 1)


@pytest.mark.parametrize("answer", [*ANYBODY, *LATER])
def test_T12_a_refusal_that_anybody_would_hear_says_nothing_of_the_name(answer: bytes) -> None:
    play = inside("pop3").asks(b"USER joe\r\n", answer).run()
    assert (play.rejected, [told for told in play.notes if told.event == "auth"]) == (0, [])


@pytest.mark.parametrize("answer", ANYBODY)
def test_T12_and_is_a_bad_command(answer: bytes) -> None:
    play = inside("pop3", bad_commands=2)
    play.asks(b"USER joe\r\n", answer)
    play.passes(b"USER joe\r\n").backend(
        answer, to_client(answer + b"-ERR Too many invalid commands\r\n"), to_backend(b"QUIT\r\n"),
        close("too-many-bad-commands"),
    ).run()  # fmt: skip


@pytest.mark.parametrize("name", [b"joe+TLS", b"joe ssl", b"tls", b"plaintext"])
def test_T12_a_name_cannot_look_like_such_a_refusal(name: bytes) -> None:
    line, answer = b"USER " + name + b"\r\n", b"-ERR no mailbox for " + name + b" here\r\n"
    play = inside("pop3").asks(line, answer, REJECTED).run()
    assert play.rejected == 1


def test_T12_a_name_and_its_password_are_one_failure() -> None:
    play = inside("pop3").client(b"USER jeo\r\nPASS x\r\n", to_backend(b"USER jeo\r\n"))
    play.backend(b"-ERR nobody\r\n", TOLD, REJECTED, to_client(b"-ERR nobody\r\n"), to_backend(b"PASS x\r\n"))
    play.returns(b"-ERR USER first\r\n")
    # ... but another password is another one, and so is another name.
    play.passes(b"PASS y\r\n")
    play.backend(b"-ERR no\r\n", TOLD, REJECTED, to_client(b"-ERR no\r\n"))
    play.passes(b"USER jeo\r\n")
    play.backend(b"-ERR nobody\r\n", TOLD, REJECTED, to_client(b"-ERR nobody\r\n"))
    play.asks(b"USER joe\r\n", b"+OK\r\n")
    play.passes(b"PASS x\r\n")
    play.backend(b"-ERR no\r\n", TOLD, REJECTED, to_client(b"-ERR no\r\n")).run()
    assert (play.rejected, len(play.notes)) == (4, 4)


def test_T12_a_password_without_a_name_may_be_right() -> None:
    play = (
        inside("pop3")
        .asks(b"USER jeo\r\n", b"-ERR nobody\r\n")
        .asks(b"PASS x\r\n", b"+OK in\r\n", note("auth", result="ok"), SPLICE)
        .run()
    )
    assert play.proven == 1


@pytest.mark.parametrize(("command", "answer", "counts"), [
    (b"APOP joe 0123\r\n", b"-ERR [AUTH] no\r\n", True),
    (b"APOP joe 0123\r\n", b"-ERR APOP authentication failed\r\n", True),
    (b"APOP joe 0123\r\n", b"-ERR unknown command\r\n", False),
    (b"PASS x\r\n", b"-ERR Command is not valid in this state.\r\n", False),
    (b"PASS x\r\n", b"-ERR authentication method PLAIN: invalid credentials\r\n", True),
    (b"PASS x\r\n", b"-ERR Invalid credentials for this method\r\n", True),
    (b"AUTH FOO\r\n", b"-ERR no\r\n", False),
    (b"AUTH FOO\r\n", b"-ERR [AUTH] Unsupported authentication mechanism.\r\n", False),
    (b"AUTH FOO =\r\n", b"-ERR no\r\n", False),
    (b"AUTH FOO eHh4\r\n", b"-ERR no\r\n", True),
    (b"AUTH FOO eHh4\r\n", b"-ERR Unknown mechanism\r\n", False),
    (b"AUTH FOO eHh4\r\n", b"-ERR [AUTH] Unsupported authentication mechanism.\r\n", False),
    (b"AUTH FOO eHh4\r\n", b"-ERR Unrecognized authentication type\r\n", False),
    (b"AUTH FOO eHh4\r\n", b"-ERR Authentication mechanism is not supported\r\n", False),
    (b"AUTH FOO eHh4\r\n", b"-ERR mechanism FOO not available\r\n", False),
    (b"AUTH FOO eHh4\r\n", b"-ERR authentication failed: bad mechanism\r\n", True),
])  # fmt: skip
def test_T12_a_command_or_mechanism_that_is_not_known_is_no_failure(
    command: bytes, answer: bytes, counts: bool
) -> None:
    play = inside("pop3", bad_commands=2).asks(command, answer, FAILED, *[REJECTED] * counts).run()
    assert play.rejected == counts
    if not counts:  # it is a bad command
        play = inside("pop3", bad_commands=1).passes(command)
        play.backend(
            answer, to_client(answer + b"-ERR Too many invalid commands\r\n"), to_backend(b"QUIT\r\n"),
            close("too-many-bad-commands"),
        ).run()  # fmt: skip


def test_T12_bare_AUTH_that_is_refused_is_a_bad_command() -> None:
    play = inside("pop3", bad_commands=2)
    play.asks(b"AUTH\r\n", b"-ERR what\r\n")
    play.passes(b"AUTH \r\n").backend(
        b"-ERR what\r\n", to_client(b"-ERR what\r\n-ERR Too many invalid commands\r\n"), to_backend(b"QUIT\r\n"),
        close("too-many-bad-commands"),
    ).run()  # fmt: skip


DIALOGUES = {
    "smtp": (b"AUTH XOAUTH2%s", b" eHh4", b"334 e30=", b"*", b"*", b"535 5.7.8 no"),
    "imap": (b"a AUTHENTICATE XOAUTH2%s", b" eHh4", b"+ e30=", b"*", b"*", b"a NO no"),
    "pop3": (b"AUTH XOAUTH2%s", b" eHh4", b"+ e30=", b"*", b"*", b"-ERR no"),
    "managesieve": (b'AUTHENTICATE "XOAUTH2"%s', b' "eHh4"', b'"e30="', b'"*"', b'"*"', b"NO"),
    "acap": (b'a AUTHENTICATE "XOAUTH2"%s', b' "xxx"', b'+ "{}"', b"*", b"*", b'a NO "no"'),
    "nntp": (b"AUTHINFO SASL XOAUTH2%s", b" eHh4", b"383 e30=", b"*", b"*", b"481 no"),
}
"""A login, its credentials, a challenge, how the client takes the login back, what the server hears, its refusal."""


@pytest.mark.parametrize("protocol", DIALOGUES)
def test_T11_T12_a_token_that_the_client_takes_back_was_a_guess(protocol: str) -> None:
    """Servers tell a token that is refused by a challenge (RFC 7628 3.2.3): an asterisk would take back nothing."""
    command, token, challenge, back, told, refusal = (words + b"\r\n" for words in DIALOGUES[protocol])
    play = inside(protocol)
    for given in (b"", token[:-2]):
        login = command % given
        play.asks(login, challenge).client(back, to_backend(told))
        play.backend(refusal, FAILED, *[REJECTED] * bool(given), to_client(refusal))
    play.run()
    assert play.rejected == 1


def test_T09_a_long_challenge_of_an_SMTP_server_passes() -> None:
    challenge = b"334 " + b"A" * 20_000 + b"\r\n"
    inside("smtp").asks(b"AUTH GSSAPI\r\n", challenge).run()
