"""What clients do wrong: too long, unclean, too often, another protocol; and logins, which only credentials open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from gateway.dialects.base import Policy
from gateway.dialects.conversation import TLS_REQUIRED
from gateway.protocol.inbox import FLOOD
from gateway.protocol.proxyprotocol import SIGNATURE
from gateway.protocol.vocabulary import Close, Dial, Identified, Note, Side
from tests.pure.contract.party import (
    Anyone,
    Party,
    every_dialogue,
    every_party,
    every_sasl,
    every_stranger_to_http,
    everyone,
)
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    PROVEN,
    REJECTED,
    SINGLE,
    SPLICE,
    WHOLE,
    Playbook,
    Stage,
    aborts,
    close,
    note,
    terms,
    to_backend,
    to_client,
)

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND
LONG = (WHOLE, 1000)
"""Cuts for what is too long to be fed octet by octet."""

before_and_inside = pytest.mark.parametrize("inside", [False, True], ids=["before", "inside"])


def greeted(party: Party, inside: bool, **changes: Any) -> Playbook:
    return party.inside(**changes) if inside else party.greeted(**changes)


# --- units -------------------------------------------------------------------------------------------


@every_party
@before_and_inside
@pytest.mark.parametrize("octets", [8200, 12_289, 31_800, FLOOD])
def test_T09_a_command_too_long_is_refused_and_the_next_one_heard(party: Party, inside: bool, octets: int) -> None:
    line = party.answers.long(octets)
    play = greeted(party, inside)
    for said in (line, line.replace(b"\r\n", b"\n")):
        play.client(said, note("client-line-too-long"), to_client(party.answers.long_answer))
    party.leaves(play).run(LONG)


@every_party
@before_and_inside
def test_T09_each_command_too_long_is_a_bad_one(party: Party, inside: bool) -> None:
    line, answer = party.answers.long(13_000), party.answers.long_answer
    play = greeted(party, inside, bad_commands=3).client(line * 2, to_client(answer * 2))
    end = (to_backend(party.answers.farewell), close("too-many-bad-commands"))
    play.client(line, to_client(party.answers.last(answer)), *end).run(LONG)


@every_party
@before_and_inside
def test_G20_a_command_without_end_ends_the_session(party: Party, inside: bool) -> None:
    end = (to_backend(party.answers.farewell), note("client-line-too-long"), close("client-line-too-long"))
    for octets in party.answers.endless:
        greeted(party, inside).client(octets, to_client(party.answers.endless_words), *end).run(LONG)


@every_party
@before_and_inside
@pytest.mark.parametrize("policy", Policy)
def test_G25_octets_at_which_a_backend_might_split_are_not_forwarded(
    party: Party, policy: Policy, inside: bool
) -> None:
    begin = party.ready if inside else party.greeted
    for said, answer in party.answers.unclean:
        begin(policy=policy).client(said, to_client(answer)).run()


@every_party
def test_what_a_client_says_too_early_waits_and_is_bounded(party: Party) -> None:
    command, answer = party.answers.command
    greeting = party.answers.greeting
    play = party.dialled(implicit=True).client(command)
    play.backend(greeting, to_client(party.greeting_inside), to_backend(command))
    play.returns(answer).run()
    play = party.dialled().client(b"x" * 100).wants(CLIENT).client(b"x" * 9000).wants(CLIENT, False)
    play.returns(greeting).run(LONG)


@every_party
def test_commands_sent_ahead_reach_the_backend_one_at_a_time(party: Party) -> None:
    command, answer = party.answers.command
    play = party.inside().client(command * 3, to_backend(command))
    for _ in range(2):
        play.returns(answer, to_backend(command))
    party.leaves(play.returns(answer)).run()


# --- other protocols ---------------------------------------------------------------------------------


@every_party
def test_G21_tls_on_the_plaintext_port(party: Party) -> None:
    ending = (note("tls-on-plaintext-port"), close("tls-on-plaintext-port"))
    hello = b"\x16\x03\x01\x02"
    Playbook(party.dialect, terms()).start(DIAL).client(hello, ABORT_BACKEND, *ending).run()
    party.dialled().client(hello, ABORT_BACKEND, *ending).run()
    party.greeted().client(hello, to_backend(party.answers.farewell), *ending).run()


@every_stranger_to_http
@pytest.mark.parametrize("request_line", [
    b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.0\r\n", b"CONNECT example.org:443 HTTP/1.1\r\n", b"Host: example.org\r\n",
])  # fmt: skip
def test_G21_http_on_the_plaintext_port(party: Anyone, request_line: bytes) -> None:
    ending = (note("http-client"), close("http-client"))
    words = to_client(party.answers.http_words)
    party.dialled().client(request_line, words, ABORT_BACKEND, *ending).run((WHOLE,))
    party.opened().client(request_line, words, party.parting, *ending).run((WHOLE,))


@every_party
def test_H5_a_proxy_header_from_somebody_who_may_not_send_one(party: Party) -> None:
    """It dials nobody on a lazy listener, and nobody is identified."""
    v1 = b"PROXY TCP4 10.0.0.1 10.0.0.2 1 25\r\n"
    play = Playbook(party.dialect, terms(lazy=True)).start(to_client(party.answers.lazy_greeting))
    play.client(v1, to_client(party.answers.proxy_words), *aborts("unexpected-proxy-header")).run()
    v2 = SIGNATURE + bytes.fromhex("2111 000c 7f000001 7f000001 9c40 0019")
    for cut in (WHOLE, SINGLE):
        stage = Stage(party.dialect, terms(lazy=True), cut)
        stage.take(stage.negotiation.start())
        stage.receive(CLIENT, v2)
        assert stage.heard_by(CLIENT) == party.answers.lazy_greeting + party.answers.proxy2_words
        assert stage.deeds[-1] == Close(party.answers.proxy2_reason) or not party.answers.proxy2_reason
        assert not any(isinstance(deed, Identified | Dial) for deed in stage.deeds)


# --- bad commands ------------------------------------------------------------------------------------


@every_party
def test_too_many_bad_commands_in_a_row_end_the_session(party: Party) -> None:
    said, answer = party.answers.bad
    end = (note("too-many-bad-commands"), to_backend(party.answers.farewell), close("too-many-bad-commands"))
    play = party.inside(bad_commands=3).client(said * 2, to_client(answer * 2))
    play.client(said, to_client(party.answers.last(answer)), *end).run()


@every_party
def test_a_success_begins_the_count_anew(party: Party) -> None:
    said, answer = party.answers.bad
    asks, listed = party.answers.listing
    play = party.inside(bad_commands=2)
    for _ in range(3):
        play.client(said, to_client(answer))
        play.passes(asks).backend(listed, to_client(party.answers.listing_inside))
    play.run()


# --- logins ------------------------------------------------------------------------------------------

FAILED = note("auth", result="failed")
REFUSED = note("refused", limit="auth-failures-per-minute")


@dataclass
class Allowance:
    """Lets so many logins through."""

    left: int

    def __call__(self) -> bool:
        self.left -= 1
        return self.left >= 0


@every_party
def test_I09_P06_what_was_read_ahead_follows_a_login_that_succeeds(party: Party) -> None:
    answers = party.answers
    command, answer = answers.command
    play = party.ready().client(answers.login + command + command[:-2], to_backend(answers.login))
    if answers.splices:  # a backend that says more than that at once is read ahead, too
        told = (to_client(answers.accepted), to_backend(command + command[:-2]), to_client(b"* and"), SPLICE)
        play.backend(answers.accepted + b"* and", note("auth", result="ok"), PROVEN, *told)
        play.asks(command[-2:], b" more\0at\nall").passes(b"\x16\0")
    else:
        accepted = to_client(answers.accepted)
        play.backend(answers.accepted, note("auth", result="ok"), PROVEN, accepted, to_backend(command))
        play.returns(answer)
    play.run()
    assert play.proven == 1


@every_party
@pytest.mark.parametrize("answer", ["accepted", "rejected"])
def test_the_end_of_a_login_names_its_user(party: Party, answer: str) -> None:
    """For the log, which tells it only where `[gateway] log_users` says so (gateway/dialects/users.py)."""
    stage = party.stage(implicit=True)
    stage.receive(BACKEND, party.answers.greeting)
    for said, answered in party.answers.introduction:
        stage.receive(CLIENT, said)
        stage.receive(BACKEND, answered)
    stage.receive(CLIENT, party.answers.login)
    stage.receive(BACKEND, getattr(party.answers, answer))
    (told,) = [deed for deed in stage.deeds if isinstance(deed, Note) and deed.event == "auth"]
    assert dict(told.fields).get("user", b"") == party.answers.user


@every_party
def test_a_login_nobody_asked_for_opens_nothing(party: Party) -> None:
    """A backend that answers another command with the words of a success, or says them unasked, is not believed."""
    stage = party.stage(implicit=True)
    for octets in (party.answers.greeting, party.answers.accepted):
        stage.receive(BACKEND, octets)
    assert not stage.spliced
    assert PROVEN not in stage.deeds
    stage = party.stage(implicit=True)
    stage.receive(BACKEND, party.answers.greeting)
    stage.receive(CLIENT, party.answers.command.said)
    stage.receive(BACKEND, party.answers.accepted)
    assert not stage.spliced
    assert PROVEN not in stage.deeds


@every_party
def test_a_failed_login_leaves_the_rest_inspected(party: Party) -> None:
    login, rejected = party.answers.login, party.answers.rejected
    starttls = party.answers.starttls.said
    play = party.ready().client(login + starttls, to_backend(login))
    play.backend(rejected, FAILED, REJECTED, to_client(rejected + party.answers.starttls_again)).run()


@every_party
def test_E12_the_last_failed_login_is_answered_and_then_the_session_is_over(party: Party) -> None:
    login, rejected, postponed = party.answers.login, party.answers.rejected, party.answers.postponed
    play = party.ready(failed_logins=3)
    for _ in range(2):
        play.asks(login, rejected, FAILED, REJECTED)
        # What says nothing of the password is no guess.
        play.asks(login, postponed, FAILED)
    end = (to_backend(party.answers.farewell), close("too-many-failed-logins"))
    words = rejected + party.answers.too_many_logins
    play.passes(login).backend(rejected, FAILED, REJECTED, to_client(words), *end).run()
    assert play.rejected == 3
    assert {event.event for event in play.notes} == {"auth"}


@every_party
def test_E12_the_last_login_may_be_right(party: Party) -> None:
    login, rejected, accepted = party.answers.login, party.answers.rejected, party.answers.accepted
    play = party.ready(failed_logins=3)
    for _ in range(2):
        play.asks(login, rejected)
    play.asks(login, accepted, *[SPLICE] * party.answers.splices)
    play.run()
    assert play.proven == 1


@every_dialogue
def test_E12_a_login_that_is_taken_back_is_a_bad_command(party: Party) -> None:
    """Else a client could begin logins for ever."""
    taken_back = party.answers.taken_back
    play = party.ready(bad_commands=3)
    for said, answer in taken_back * 2:
        play.asks(said, answer)
    for number, (said, answer) in enumerate(taken_back, 1):
        end = (to_backend(party.answers.farewell), close("too-many-bad-commands"))
        told = to_client(answer) if number < len(taken_back) else to_client(answer + party.answers.too_many_bad)
        play.passes(said).backend(answer, told, *end * (number == len(taken_back)))
    play.run()
    assert play.rejected == 0


@every_party
def test_E12_logins_sent_ahead_are_tried_one_at_a_time(party: Party) -> None:
    """What lies behind the last one never reaches the backend."""
    login, rejected = party.answers.login, party.answers.rejected
    play = party.ready(failed_logins=3).client(login * 10, to_backend(login))
    for _ in range(2):
        play.returns(rejected, to_backend(login))
    end = (to_backend(party.answers.farewell), close("too-many-failed-logins"))
    play.backend(rejected, to_client(rejected + party.answers.too_many_logins), *end).run()


@every_party
def test_E12_above_the_limit_the_backend_is_not_asked(party: Party) -> None:
    limited = to_client(party.answers.limited)
    for login in party.answers.logins:
        play = party.ready(may_log_in=lambda: False)
        play.client(login, REFUSED, limited).client(login, limited).run()
        assert (play.rejected, play.proven) == (0, 0)


@every_party
def test_E12_a_login_above_the_limit_is_a_bad_command(party: Party) -> None:
    end = (to_backend(party.answers.farewell), close("too-many-bad-commands"))
    for login in party.answers.logins:
        play = party.ready(may_log_in=lambda: False, bad_commands=2)
        play.client(login, REFUSED, to_client(party.answers.limited))
        play.client(login, to_client(party.answers.last(party.answers.limited)), *end).run()


@every_party
def test_E12_the_limit_is_asked_with_every_login(party: Party) -> None:
    login, rejected = party.answers.login, party.answers.rejected
    for cut in (0, 1):
        play = party.ready(may_log_in=Allowance(1))
        play.asks(login, rejected)
        play.client(login, REFUSED, to_client(party.answers.limited)).run((cut,))


EXTERNAL = b"EXTERNAL"
"""By this mechanism the backend would let in whoever has the gateway's certificate, address or user."""


def reached_by(party: Anyone, name: bytes) -> bytes:
    """What the backend hears of a client that names this mechanism."""
    assert party.answers.named is not None
    stage = party.may_log_in().stage()
    stage.receive(CLIENT, party.answers.named(name))
    told = stage.heard_by(BACKEND)
    assert told == b"" or not stage.negotiation.over or name not in told
    return b"" if stage.negotiation.over else told


@every_sasl
@pytest.mark.parametrize("name", [
    EXTERNAL, EXTERNAL.lower(), b"External", b"EXTERNAL-PLUS", b"SCRAM-SHA-1-PLUS", b"scram-sha-256-plus", b"-PLUS",
    b"HT-SHA-256-ENDP", b"ht-sha-256-uniq", b"HT-SHA3-512-EXPR",
    *(EXTERNAL + octets for octets in (b"\0", b"\0x", b" ", b"  ", b"\t", b"\x0b", b"\r", b"\x7f", b"=", b",PLAIN")),
    *(octets + EXTERNAL for octets in (b"\0", b" ", b"  ", b"\t", b"\x0b", b"PLAIN,", b"\xc2\xa0", b"*")),
    b"PLAIN\0", b"GSSAPI\0x", b"*", b"PLAIN;", b"\xef\xbc\xa5XTERNAL", b"\xff", b"X" * 41, EXTERNAL + b"X" * 9999,
], ids=lambda name: ascii(name[:20])[2:-1])  # fmt: skip
def test_G12_no_mechanism_name_reaches_a_server_that_reads_it_otherwise(party: Anyone, name: bytes) -> None:
    """slapd reads a name up to a NUL, Cyrus SASL strips `-PLUS`, all fold case, and many skip blanks."""
    assert reached_by(party, name) == b""


@every_sasl
@pytest.mark.parametrize("name", [b"PLAIN", b"plain", b"SCRAM-SHA-256", b"X-OTHER_1", b"EXTERNALS", b"X" * 40], ids=str)
def test_all_other_names_reach_it(party: Anyone, name: bytes) -> None:
    assert name.upper() in reached_by(party, name).upper()


@everyone
def test_E12_before_tls_the_answer_is_about_tls(party: Anyone) -> None:
    play = party.refuses_login(party.opened(may_log_in=lambda: False)).run()
    assert play.notes == [TLS_REQUIRED]
