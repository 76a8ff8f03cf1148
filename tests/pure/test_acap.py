"""ACAP: the greeting, literals, and logins whose octets are not base64; each octet case cut at every position."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.access import Access, Seen
from gateway.dialects.base import BackendTLS, Policy
from gateway.dialects.conversation import Stage
from gateway.dialects.mail.acap import DIALECT
from gateway.dialects.mail.acap.syntax import agrees, capabilities, complete, edited, greeting_of, listed, of_acap
from gateway.protocol.vocabulary import Side
from tests.pure.contract.answers.acap import INSIDE, LOST, OFFER, UNAVAILABLE
from tests.pure.contract.party import PARTIES
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    PROVEN,
    REJECTED,
    SPLICE,
    WHOLE,
    Playbook,
    aborts,
    close,
    note,
    terms,
    to_backend,
    to_client,
)

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND
(PARTY,) = [party for party in PARTIES if party.dialect is DIALECT]
PLAIN = b"\0joe\0secret"
READY = b'+ "Ready"\r\n'
INVALID = b' BAD "Invalid arguments"\r\n'
BROKEN = aborts("backend-protocol-error", UNAVAILABLE)


def inside(**changes: Any) -> Playbook:
    return PARTY.inside(**changes)


# --- the greeting ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("greeting", "groups"), [
    (b"* ACAP", []),
    (b"* acap (Starttls)", [(b"STARTTLS", [])]),
    (b'* ACAP (IMPLEMENTATION "a \\"(b)\\" \\\\") (SASL "X" "Y") ',
     [(b"IMPLEMENTATION", [b'a "(b)" \\']), (b"SASL", [b"X", b"Y"])]),
    (b"* ACAP (A {5}\r\na\r\nb)) (SASL {1+}\r\nX)", [(b"A", [b"a\r\nb)"]), (b"SASL", [b"X"])]),
    (b"* ACAP (A", None), (b'* ACAP (A "x)', None), (b"* ACAP A", None), (b"* ACAP (A) x", None), (b"* ACAPS", None),
    (b"* OK", None), (b"* ACAP (A {9}\r\nx)", None), (b"* ACAP ()", None),
])  # fmt: skip
def test_a_greeting_has_groups(greeting: bytes, groups: list[tuple[bytes, list[bytes]]] | None) -> None:
    assert capabilities(greeting) == groups
    if groups is not None:
        assert capabilities(greeting_of(groups)[:-2]) == groups


def test_what_a_client_is_shown() -> None:
    groups = capabilities(b'* ACAP (A) (SASL "PLAIN" "EXTERNAL") (STARTTLS)')
    assert groups is not None
    assert edited(groups, Stage.CLOSED) == [(b"A", []), (b"STARTTLS", [])]
    assert edited(groups, Stage.OPEN) == [(b"A", []), (b"SASL", [b"PLAIN"]), (b"STARTTLS", [])]
    assert edited(groups, Stage.SECURE) == [(b"A", []), (b"SASL", [b"PLAIN"])]
    for stage in (Stage.CLOSED, Stage.OPEN, Stage.SECURE):
        assert edited(edited(groups, stage), stage) == edited(groups, stage)
    assert edited([(b"SASL", [b"EXTERNAL"])], Stage.SECURE) == []


@given(st.binary(max_size=40))
def test_any_value_stays_in_its_place(value: bytes) -> None:
    assert capabilities(greeting_of([(b"A", [value])])[:-2]) == [(b"A", [value])]


def test_what_a_look_reads() -> None:
    assert listed(b"n OK\r\n") is None
    assert listed(OFFER) == [b"IMPLEMENTATION x", b"SASL PLAIN EXTERNAL", b"STARTTLS"]
    assert looked_at(OFFER) == Access(("AUTHENTICATE PLAIN",), starttls=True)
    assert looked_at(INSIDE).refusal
    assert looked_at(b"* BYE\r\n").logins is None


def looked_at(greeting: bytes) -> Access:
    return of_acap(Seen(greeting, listed(greeting), listed(greeting), ()))


def test_a_greeting_with_literals_is_read_to_its_end() -> None:
    said = b"* ACAP (IMPLEMENTATION {3}\r\na\r\n) (STARTTLS)\r\n"
    PARTY.dialled().returns(said).run()
    ending = PARTY.sorry("backend-bad-greeting")
    PARTY.dialled().backend(b"* ACAP (IMPLEMENTATION {999999}\r\n", *ending).run()
    PARTY.dialled().client(b"x" * 70_000).run((WHOLE,))


def test_channel_binding_that_cannot_work_is_told() -> None:
    said = b'* ACAP (SASL "SCRAM-SHA-1-PLUS" "PLAIN")\r\n'
    told = (note("backend-channel-binding"), to_client(b'* ACAP (SASL "PLAIN")\r\n'))
    PARTY.dialled(implicit=True).backend(said, *told).run()


def test_a_backend_that_greets_with_bye_is_not_asked_for_tls() -> None:
    bye = b'* BYE "busy"\r\n'
    play = PARTY.dialled(backend_tls=BackendTLS.STARTTLS)
    play.returns(bye, note("backend-refused"), close("backend-refused")).run()
    PARTY.dialled(backend_tls=BackendTLS.STARTTLS).backend(INSIDE, *PARTY.sorry("backend-tls-failed")).run()


# --- commands ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "told"), [
    (b"n NOOP x\r\n", b"n" + INVALID), (b'n NOOP "x"\r\n', b"n" + INVALID), (b'q LOGOUT "x"\r\n', b"q" + INVALID),
    (b's STARTTLS "x"\r\n', b"s" + INVALID), (b"x\r\n", b'* BAD "Unknown command"\r\n'),
    (b"\r\n", b'* BAD "Unknown command"\r\n'),
    (b"+ NOOP\r\n", b'* BAD "Unknown command"\r\n'), (b'x SEARCH "/" {3+}\r\nabc\r\n', b'x BAD "Unknown command"\r\n'),
    (b"l LANG {2000+}\r\n" + b"x" * 2000 + b"\r\n", b"l" + INVALID),
    (b"n NOOP {1}\r\nx\r\n", READY + b"n" + INVALID),
    (b'a AUTHENTICATE "EXTERNAL"\r\n', b'a NO "Unsupported authentication mechanism"\r\n'),
    (b"a AUTHENTICATE\r\n", b"a" + INVALID), (b'a AUTHENTICATE "PLAIN" "a" "b"\r\n', b"a" + INVALID),
    (b'a AUTHENTICATE "P N"\r\n', b"a" + INVALID),
])  # fmt: skip
def test_what_the_gateway_answers_itself(said: bytes, told: bytes) -> None:
    policy = Policy.OPTIONAL
    PARTY.greeted(policy=policy).client(said, to_client(told)).run()


def test_literals_are_bounded_and_end_in_a_line() -> None:
    words = to_client(b'* BYE "Command too long"\r\n')
    ending = (to_backend(b"sgw0 LOGOUT\r\n"), note("client-line-too-long"), close("client-line-too-long"))
    inside().client(b"a X {70000+}\r\n", words, *ending).run()
    inside().client(b"a X {1+}\r\nx" + b"y" * 5000 + b"\r\n", words, *ending).run((WHOLE,))
    bad = (note("client-bad-command"), to_client(b'* BYE "Invalid command"\r\n'), to_backend(b"sgw0 LOGOUT\r\n"))
    inside().client(b"a X {1+}\r\nx\0\r\n", *bad, close("client-bad-command")).run()


def test_G30_a_long_command_is_read_with_its_literal() -> None:
    said = b"a X " + b"x" * 5000 + b" {3+}\r\nabc\r\n"
    inside().client(said, to_client(b'* BAD "Command too long"\r\n')).run((WHOLE,))


def test_G30_a_bad_line_is_read_with_its_literal() -> None:
    said = b"a X\0 {11+}\r\nb LOGOUT\r\n\r\n"
    inside().client(said, to_client(b'* BAD "Invalid characters"\r\n')).run()


def lazy() -> Playbook:
    return Playbook(DIALECT, terms(lazy=True)).start(to_client(PARTY.answers.lazy_greeting))


def test_a_lazy_session_speaks_for_itself() -> None:
    lazy().client(b"n NOOP\r\n", to_client(b'n OK "Done"\r\n')).run()
    lazy().client(b"q LOGOUT\r\n", to_client(b'* BYE "Bye"\r\nq OK "Done"\r\n'), close("quit")).run()
    play = PARTY._lazy().secured(DIAL)
    play.dialled().backend(OFFER, to_client(b'* ACAP (IMPLEMENTATION "x") (SASL "PLAIN")\r\n')).run()


def test_a_lazy_session_in_the_clear_dials_when_the_backend_is_needed() -> None:
    for said in (b'l LANG "en"\r\n', b'a AUTHENTICATE "PLAIN"\r\n'):
        play = Playbook(DIALECT, terms(lazy=True, policy=Policy.OPTIONAL)).start(to_client(PARTY.answers.lazy_greeting))
        play.client(said, DIAL).dialled().backend(OFFER, to_backend(said)).run()
    bye = b'* BYE "busy"\r\n'
    play = PARTY._lazy().secured(DIAL).dialled()
    play.returns(bye, note("backend-refused"), close("backend-refused")).run()


def test_goodbyes() -> None:
    bye = b'* BYE "gone"\r\n'
    inside().returns(bye).ended(BACKEND, True, ABORT_BACKEND, close("backend-lost")).run()
    play = inside().asks(b"q LOGOUT\r\n", bye)
    play.ended(BACKEND, True, to_client(b'q OK "Done"\r\n'), close("quit")).run()
    play = inside().asks(b"q LOGOUT\r\n", b'q BAD "no"\r\n').run()
    play = inside().passes(b"q LOGOUT\r\n")
    play.ended(CLIENT, False, ABORT_BACKEND, close("client-lost")).run()


def test_untagged_lines_of_a_reply_pass_and_it_has_an_end() -> None:
    more = b'* LANG "en" {3}\r\na\r\n\r\n'
    play = inside().asks(b'l LANG "en"\r\n', more)
    play.returns(b'l NO "no"\r\n').run()
    play = inside().passes(b"n NOOP\r\n")
    play.backend(b"* X\r\n" * 1001, to_client(b"* X\r\n" * 1000 + UNAVAILABLE), *BROKEN[:1], *BROKEN[2:]).run((WHOLE,))


@pytest.mark.parametrize("answer", [b"m OK\r\n", b"n FOO\r\n", b"n\r\n", b"n OKAY\r\n"])
def test_a_reply_to_something_else(answer: bytes) -> None:
    inside().passes(b"n NOOP\r\n").backend(answer, *BROKEN).run()


def test_a_line_without_end_behind_a_literal() -> None:
    play = inside().passes(b"n NOOP\r\n")
    play.backend(b"* X {1}\r\nx" + b"y" * 9000 + b"\r\n", *BROKEN).run((WHOLE,))


# --- logins ------------------------------------------------------------------------------------------


def begun(initial: bytes = b"", **changes: Any) -> Playbook:
    line = b'a AUTHENTICATE "PLAIN"%s\r\n' % initial
    return inside(**changes).passes(line)


@pytest.mark.parametrize("password", [b"*", b"=", b" "])
def test_a_password_is_none_of_the_words_of_base64(password: bytes) -> None:
    said = b'"%s"\r\n' % password
    play = begun().returns(b'+ ""\r\n').passes(said)
    accepted = b'a OK "in"\r\n'
    play.returns(accepted, note("auth", mechanism="PLAIN"), PROVEN, SPLICE).run()


def test_a_dialogue_whose_octets_are_no_text() -> None:
    """RFC 2244 6.3.1 knows no base64."""
    play = begun().returns(b'+ ""\r\n')
    said = b"{%d+}\r\n%s\r\n" % (len(PLAIN), PLAIN)
    play.passes(said)
    ok = note("auth", result="ok", mechanism="PLAIN", user=PLAIN.split(b"\0")[1])
    play.backend(b'a OK "in"\r\n', ok, PROVEN, to_client(b'a OK "in"\r\n'), SPLICE)
    play.passes(b"\0\r").run()


def test_a_client_waits_for_the_gateway_before_its_literal() -> None:
    play = begun().returns(b'+ "x"\r\n')
    play.client(b"{%d}\r\n" % len(PLAIN), to_client(READY))
    play.client(PLAIN + b"\r\n", to_backend(b"{%d+}\r\n%s\r\n" % (len(PLAIN), PLAIN))).run()


def test_an_initial_response_goes_to_a_backend_that_waits_for_it() -> None:
    said = b'a AUTHENTICATE "PLAIN" {%d+}\r\n%s\r\n' % (len(PLAIN), PLAIN)
    announced = to_backend(b'a AUTHENTICATE "PLAIN" {%d}\r\n' % len(PLAIN))
    play = inside().client(said, announced).backend(b'+ "go"\r\n', to_backend(PLAIN + b"\r\n"))
    play.returns(b'a NO "wrong"\r\n', REJECTED).run()
    refused = b'a BAD "no such mechanism"\r\n'
    inside().client(said, announced).returns(refused).run()


@pytest.mark.parametrize("said", [b"*\r\n", b"x\r\n", b'"a" "b"\r\n', b"\r\n", b"\0\r\n", b"x" * 5000 + b"\r\n"])
def test_a_login_that_is_taken_back(said: bytes) -> None:
    play = begun().returns(b'+ ""\r\n').client(said, to_backend(b"*\r\n"))
    answer = b'a NO "cancelled"\r\n'
    assert play.returns(answer).run((WHOLE, 999)).rejected == 0


@pytest.mark.parametrize("said", [b'"\0" ', b"x" * 5000])
def test_G30_a_literal_behind_a_bad_response_is_swallowed(said: bytes) -> None:
    play = begun().returns(b'+ ""\r\n')
    play.client(said + b"{11+}\r\nb NOOP\r\nb N\r\n", to_backend(b"*\r\n"))
    answer = b'a NO "cancelled"\r\n'
    play.returns(answer).passes(b"c NOOP\r\n").run((WHOLE, 999))


def test_a_verdict_may_come_while_a_response_is_awaited() -> None:
    """What the client says then is a command, and not for a backend that does not wait for it."""
    late = b"a NO {4}\r\nslow\r\n"
    play = begun().returns(b'+ ""\r\n').returns(late, note("auth"))
    play.passes(b"c NOOP\r\n")
    assert play.run().rejected == 0
    ok = begun().returns(b'+ ""\r\n')
    ok.backend(b'a OK "in"\r\n', *BROKEN).run()
    again = begun().returns(b'+ ""\r\n')
    again.backend(b'+ ""\r\n', *BROKEN).run()


def test_a_goodbye_in_a_dialogue() -> None:
    bye = b'* BYE "down"\r\n'
    play = begun().returns(bye).ended(BACKEND, True, ABORT_BACKEND, close("backend-lost"))
    play.run()
    play = begun().returns(b'+ ""\r\n').returns(bye)
    play.ended(BACKEND, True, ABORT_BACKEND, close("backend-lost")).run()


def test_a_goodbye_with_a_literal_is_read_to_its_end() -> None:
    bye = b"* BYE {4}\r\ndown\r\n"
    inside().returns(bye).ended(BACKEND, True, ABORT_BACKEND, close("backend-lost")).run()


def test_a_success_without_credentials_is_none() -> None:
    begun().backend(b'a OK "in"\r\n', *BROKEN).run()


def test_the_backend_is_lost_in_a_dialogue() -> None:
    begun().ended(BACKEND, True, *aborts("backend-lost", LOST)).run()


def test_a_whole_reply_is_told_from_a_part_of_one() -> None:
    greeting = b"* ACAP (IMPLEMENTATION {3}\r\nold)\r\n"
    assert [complete(b"", greeting[:end]) for end in (0, 28, 33, len(greeting))] == [False, False, False, True]
    assert not complete(b"c2 LOGOUT", b"* BYE\r\n")
    assert complete(b"c2 LOGOUT", b"* BYE\r\nc2 OK\r\n")
    replies = (greeting, b"c3 OK\r\n", b"c3 NO\r\n", b"+ \r\n", b"* BYE\r\n", b"")
    assert [agrees(reply) for reply in replies] == [True, True, False, False, False, False]
