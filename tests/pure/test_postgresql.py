"""PostgreSQL: first packets, TLS, the login, cancelling; each octet case cut at every position."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.base import BackendTLS, Policy
from gateway.dialects.database.postgresql import AUTHENTICATION, DIALECT
from gateway.dialects.survey import Survey, unreached
from gateway.protocol.vocabulary import Close, Dial, Expired, Patience, Side
from tests.pure.contract.answers.postgresql import (
    CANCEL,
    GSS,
    LOGIN,
    PASSWORD,
    SASL,
    SSL,
    asks,
    fatal,
    message,
    startup,
)
from tests.pure.contract.party import CALLERS, SWITCH
from tests.pure.looking import Looking
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    PROVEN,
    REJECTED,
    SPLICE,
    TLS13,
    WHOLE,
    Expected,
    Playbook,
    Stage,
    aborts,
    close,
    cut_anywhere,
    note,
    terms,
    tls,
    to_backend,
    to_client,
)

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND
(PARTY,) = [party for party in CALLERS if party.dialect is DIALECT]
HELLO = b"\x16\x03\x01\x02\x00\x01" + bytes(60)
DIRECT = replace(TLS13, alpn="postgresql")
REQUIRED = (to_client(fatal(b"28000", b"TLS required")), close("tls-required"))
GARBLED = aborts("client-protocol-error")
FIRST = message(b"p", b"SCRAM-SHA-256\0\0\0\0\x20n,,n=,r=rOprNGfwEbeRWgbNEkqO")
"""SASLInitialResponse."""
FINAL = message(b"p", b"c=biws,r=x,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")


def fresh(**changes: object) -> Playbook:
    return Playbook(DIALECT, terms(**changes)).start()


def unsupported(version: bytes) -> bytes:
    return fatal(b"0A000", b"unsupported frontend protocol " + version + b": only 3.x is supported")


# --- the first packet --------------------------------------------------------------------------------


@pytest.mark.parametrize("garbage", PARTY.answers.garbage)
def test_first_words_that_are_no_packet_end_the_session_in_silence(garbage: bytes) -> None:
    fresh().client(garbage, *GARBLED).run()
    PARTY.inside().client(garbage, *GARBLED).run()


@pytest.mark.parametrize("policy", [Policy.REQUIRED, Policy.AUTH_ONLY])
@pytest.mark.parametrize("code", [0x30000, 0x20000, 0x30002, 0x40000, 80877105, 0])
def test_every_startup_in_the_clear_is_refused(policy: Policy, code: int) -> None:
    packet = message(b"", code.to_bytes(4, "big") + b"user\0joe\0\0")
    fresh(policy=policy).client(packet, *REQUIRED).run()


def test_the_longest_startup_is_a_startup() -> None:
    longest = startup(b"x" * (10_000 - len(startup(b""))))
    assert len(longest) == 10_000
    PARTY.inside().dials(longest).run((WHOLE, 999))


@pytest.mark.parametrize(
    ("code", "version"), [(0x20000, b"2.0"), (0x40000, b"4.0"), (80877105, b"1234.5681"), (80877103, b"1234.5679")]
)
def test_another_protocol_is_refused_inside_tls(code: int, version: bytes) -> None:
    """Nothing could be told of such a login, and who guesses passwords would not be noticed."""
    packet = message(b"", code.to_bytes(4, "big"))
    others = (PARTY.opened(implicit=True), fresh(policy=Policy.OPTIONAL)) if packet != SSL else ()
    for play in (PARTY.inside(), *others):
        play.client(packet, to_client(unsupported(version)), *aborts("client-protocol-error")).run()


def test_gssapi_encryption_is_not_to_be_had_and_is_asked_for_once() -> None:
    fresh().client(GSS, to_client(b"N")).client(SSL, tls(b"S")).secured().client(LOGIN, DIAL).run()
    fresh().client(GSS, to_client(b"N")).client(LOGIN, *REQUIRED).run()
    fresh().client(GSS, to_client(b"N")).client(GSS, *REQUIRED).run()
    ending = (to_client(unsupported(b"1234.5680")), *GARBLED)
    PARTY.inside().client(GSS, *ending).run()


def test_who_does_not_know_of_its_tls_may_ask_for_encryption() -> None:
    """Behind stunnel libpq does: as a real server after direct TLS, the gateway says N, once to each request."""
    for play in (PARTY.opened(implicit=True), fresh().client(HELLO, tls(b"", early=HELLO)).secured(facts=DIRECT)):
        play.client(GSS, to_client(b"N")).client(SSL, to_client(b"N")).client(LOGIN, DIAL).run()
    for request, version in ((SSL, b"1234.5679"), (GSS, b"1234.5680")):
        play = PARTY.opened(implicit=True).client(request, to_client(b"N"))
        play.client(request, to_client(unsupported(version)), *GARBLED).run()
    PARTY.opened(implicit=True).client(SSL, to_client(b"N")).client(HELLO, *GARBLED).run()


def test_a_request_with_something_in_it_is_none() -> None:
    for request in (SSL, GSS):
        fresh().client(message(b"", request[4:] + b"x"), *REQUIRED).run()


def test_a_proxy_header_from_anybody_is_told_as_such() -> None:
    for header in (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"):
        fresh().client(header, *aborts("unexpected-proxy-header")).run()


# --- direct TLS --------------------------------------------------------------------------------------


def test_a_client_hello_comes_first_with_the_name_postgresql() -> None:
    play = fresh().client(HELLO, tls(b"", early=HELLO)).secured(facts=DIRECT)
    play.dials(LOGIN).run()


@pytest.mark.parametrize("alpn", [None, "imap", "http/1.1"])
def test_a_client_hello_without_the_name_ends_the_session_in_silence(alpn: str | None) -> None:
    ending = aborts("tls-on-plaintext-port")
    fresh().client(HELLO, tls(b"", early=HELLO)).secured(*ending, facts=replace(TLS13, alpn=alpn)).run()


def test_an_implicit_port_demands_no_name() -> None:
    PARTY.opened(implicit=True).client(LOGIN, DIAL).run()


def test_a_client_hello_anywhere_else_is_garbage() -> None:
    fresh().client(GSS, to_client(b"N")).client(HELLO, *GARBLED).run()
    PARTY.inside().client(HELLO, *GARBLED).run()


# --- the login ---------------------------------------------------------------------------------------


def test_scram_passes_and_then_the_session_is_spliced() -> None:
    play = PARTY.inside().dials(LOGIN).returns(SASL)
    play.passes(FIRST).waits(Patience.REPLY)
    play.returns(asks(11, b"r=x,s=y,i=4096"))
    final = asks(12, b"v=z")
    play.asks(FINAL, final).waits(Patience.REPLY)
    ready = message(b"Z", b"I")
    ok = note("auth", result="ok", mechanism="SCRAM-SHA-256", user=b"joe")
    play.backend(asks(0) + ready, ok, PROVEN, to_client(asks(0) + ready), SPLICE)
    play.passes(b"Q\0\0").run()


@pytest.mark.parametrize(("code", "mechanism"), [(3, "PASSWORD"), (5, "MD5"), (7, "GSSAPI"), (9, "SSPI"), (77, "77")])
def test_the_mechanism_is_told(code: int, mechanism: str) -> None:
    question = asks(code, b"salt")
    answer = message(b"p", b"x\0")
    play = PARTY.inside().dials(LOGIN).returns(question)
    play.asks(answer, asks(0), note("auth", result="ok", mechanism=mechanism), SPLICE).run()


@pytest.mark.parametrize(("code", "mechanism"), [(7, "GSSAPI"), (9, "SSPI")])
def test_the_last_token_of_the_server_has_no_answer(code: int, mechanism: str) -> None:
    """libpq says nothing to it, and AuthenticationOk comes by itself."""
    token, more = message(b"p", b"token"), asks(8, b"token")
    play = PARTY.dialled().returns(asks(code)).asks(token, more).passes(token).waits(Patience.REPLY)
    play.returns(more).waits(AUTHENTICATION)
    play.returns(asks(0), note("auth", result="ok", mechanism=mechanism), PROVEN, SPLICE).run()


def test_a_token_that_is_not_taken() -> None:
    token, more, error = message(b"p", b"token"), asks(8, b"token"), fatal(b"28000", b"no")
    PARTY.dialled().returns(asks(7)).asks(token, more).returns(
        error, note("auth", result="failed", mechanism="GSSAPI"), REJECTED, close("backend-closed")
    ).run()


def test_a_mechanism_with_strange_octets_is_told() -> None:
    answer = message(b"p", b"\xff" * 21 + b"\0")
    PARTY.dialled().returns(SASL).asks(answer, asks(0), note("auth", result="ok", mechanism="other"), SPLICE).run()


def test_a_server_that_asks_for_nothing_is_told_of() -> None:
    play = PARTY.dialled().returns(asks(0), note("backend-trusts"), note("auth", mechanism="TRUST"), PROVEN, SPLICE)
    play.run()


def test_notices_before_the_question_pass() -> None:
    more = message(b"N", b"SNOTICE\0\0") + message(b"v", b"\0\3\0\0\0\0\0\0")
    PARTY.dialled().returns(more + PASSWORD).run()


def rejected(*then: Expected, code: bytes = b"28P01", question: bytes = PASSWORD, **changes: object) -> Playbook:
    error = fatal(code, b"no")
    answer = FIRST if question[8] == 10 else PARTY.answers.credentials
    play = PARTY.inside(**changes).dials(LOGIN).returns(question)
    play.passes(answer)
    play.backend(error, note("auth", result="failed"), *then, to_client(error), close("backend-closed")).run()
    return play


def test_wrong_credentials_are_counted_and_other_errors_are_not() -> None:
    assert rejected(REJECTED).rejected == 1
    assert rejected(REJECTED, code=b"28000").rejected == 1
    assert rejected(code=b"53300").rejected == 0
    assert rejected(code=b"57P03").rejected == 0


def test_the_last_failed_login_is_told_in_the_servers_words() -> None:
    error = PARTY.answers.rejected
    play = PARTY.logs_in(PARTY.ready(failed_logins=1))
    play.returns(error, REJECTED, ABORT_BACKEND, close("too-many-failed-logins")).run()


def test_channel_binding_that_cannot_work_is_told_and_is_no_wrong_password() -> None:
    plus = asks(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")
    play = rejected(note("backend-channel-binding"), code=b"28000", question=plus)
    assert play.rejected == 0
    assert rejected(REJECTED, question=plus).rejected == 1


def test_an_error_before_any_question_is_the_servers_refusal() -> None:
    for text in (b'no pg_hba.conf entry for host "10.0.0.5", user "joe", database "shop", no encryption', b""):
        error = fatal(b"28000", text)
        told = (note("backend-refused", text=text), to_client(error), close("backend-refused"))
        assert PARTY.dialled(others=True).backend(error, *told).run().rejected == 0


def test_an_error_without_fields_is_passed_on() -> None:
    error = message(b"E", b"")
    PARTY.dialled().returns(error, close("backend-refused")).run()


def test_a_server_that_says_no_to_the_gateway_before_tls_is_not_used() -> None:
    error = b"Ecould not fork new process for connection\n\0"
    PARTY.dialled().backend(error, *PARTY.sorry("backend-bad-greeting")).run((WHOLE,))
    PARTY.asked().backend(error, *PARTY.sorry("backend-tls-failed")).run((WHOLE,))
    PARTY.asked().backend(b"2", *PARTY.sorry("backend-bad-greeting")).run()


def test_above_the_limit_the_backend_is_not_dialled() -> None:
    play = PARTY.inside(may_log_in=lambda: False)
    limited = to_client(PARTY.answers.limited)
    play.client(LOGIN, note("refused", limit="auth-failures-per-minute"), limited, close("refused")).run()


def test_what_a_client_says_ahead_waits_for_the_question() -> None:
    answer = PARTY.answers.credentials
    query = message(b"Q", b"select 1\0")
    play = PARTY.inside().client(LOGIN + answer + query, DIAL).dialled(to_backend(LOGIN))
    play.returns(PASSWORD, to_backend(answer))
    play.returns(asks(0), to_backend(query), SPLICE).run()


@pytest.mark.parametrize(
    "said", [message(b"Q", b"select 1\0"), b"p\0\0\0\3", b"p\xff\xff\xff\xff", b"p\0\1\0\4", LOGIN]
)
def test_before_the_login_nothing_but_credentials_reaches_the_backend(said: bytes) -> None:
    play = PARTY.dialled().returns(PASSWORD)
    play.client(said, *GARBLED).run()


def test_the_longest_token_passes() -> None:
    token = message(b"p", b"x" * 65_535)
    play = PARTY.dialled().returns(asks(7))
    play.passes(token).run((WHOLE, 1000))


def test_a_client_that_has_no_password_yet_leaves_in_order() -> None:
    """So does psql, each time: it connects, learns that it needs a password, asks for it, and connects again."""
    play = PARTY.dialled().returns(PASSWORD).waits(AUTHENTICATION)
    play.ended(CLIENT, True, close("client-closed")).run()
    PARTY.dialled().returns(PASSWORD).ended(CLIENT, False, ABORT_BACKEND, close("client-lost")).run()
    play = PARTY.dialled().returns(PASSWORD)
    play.client(b"X\0\0\0\4", close("quit")).run()


def test_the_backend_is_lost_while_the_client_thinks() -> None:
    """That shows when the client has answered: until then nothing is awaited of the backend."""
    answer = PARTY.answers.credentials
    play = PARTY.dialled().returns(PASSWORD).ended(BACKEND, True)
    play.passes(answer, *aborts("backend-lost", PARTY.answers.lost_words)).run()


def test_a_client_that_does_not_answer() -> None:
    late = Expired(CLIENT, AUTHENTICATION)
    PARTY.dialled().returns(PASSWORD).expire(late, *aborts("client-timeout")).run()


# --- cancelling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("inside", [False, True])
def test_a_cancel_request_is_forwarded_under_every_policy(policy: Policy, inside: bool) -> None:
    play = PARTY.inside(policy=policy) if inside else fresh(policy=policy)
    play.dials(CANCEL).waits(Patience.REPLY)
    play.ended(BACKEND, True, close("quit")).run()


def test_a_cancel_request_behind_gssapi() -> None:
    fresh().client(GSS, to_client(b"N")).client(CANCEL, DIAL).run()


def test_a_cancel_request_reaches_a_backend_with_tls_inside_tls() -> None:
    play = fresh(backend_tls=BackendTLS.STARTTLS).client(CANCEL, DIAL).dialled(to_backend(SSL))
    play.backend(b"S", SWITCH).secured(to_backend(CANCEL)).ended(BACKEND, False, close("quit")).run()


def test_a_client_need_not_wait_for_its_cancel_request() -> None:
    """It may close at once, even before the backend is reached: what it said counts."""
    play = fresh().client(CANCEL, DIAL).ended(CLIENT, True).dialled(to_backend(CANCEL))
    play.ended(BACKEND, True, close("quit")).run()
    fresh().client(CANCEL, DIAL).ended(CLIENT, False, ABORT_BACKEND, close("client-lost")).run()
    play = fresh().dials(CANCEL)
    play.ended(CLIENT, False, ABORT_BACKEND, close("client-lost")).run()


def test_nothing_follows_a_cancel_request_in_either_direction() -> None:
    fresh().client(CANCEL + LOGIN, DIAL).dialled(to_backend(CANCEL)).backend(b"E rr").ended(
        BACKEND, True, close("quit")
    ).run()


def test_keys_of_protocol_3_2_are_longer() -> None:
    for octets, cancels in ((4, True), (256, True), (257, False), (3, False)):
        packet = message(b"", CANCEL[4:12] + bytes(octets))
        fresh().client(packet, *([DIAL] if cancels else REQUIRED)).run()


# --- the gateway -------------------------------------------------------------------------------------


def looked(*steps: tuple[bytes, tuple[Expected, ...]]) -> Survey:
    looking = Looking(DIALECT, others=True)
    looking.play.dialled(to_backend(ASKED))
    for said, then in steps:
        looking.play.backend(said, *then)
    return looking.found()


ASKED = startup(b"starttls-gateway-check", b"postgres")


def test_a_look_learns_how_clients_log_in() -> None:
    survey = looked((SASL, (close("quit"),)))
    assert (survey.offered, survey.shown, survey.access.logins) == ([b"SCRAM-SHA-256"],) * 2 + (("SCRAM-SHA-256",),)
    assert DIALECT.question is not None
    assert DIALECT.question.readable(survey.greeting) == b"Authentication: SCRAM-SHA-256"


def test_a_look_at_a_server_that_trusts_everybody() -> None:
    survey = looked((asks(0), (close("quit"),)))
    assert survey.access.logins == ("TRUST",)
    assert survey.end == Close("quit")


def test_a_look_at_a_server_that_refuses() -> None:
    error = fatal(b"28000", b"no pg_hba.conf entry")
    survey = looked((error, (close("backend-refused"),)))
    assert (survey.offered, survey.access.logins) == (None, None)
    assert DIALECT.question is not None
    assert DIALECT.question.readable(survey.greeting) == b"no pg_hba.conf entry"


def test_a_look_tries_the_next_address() -> None:
    survey = looked((b"220 x", (Dial("backend-bad-greeting"),)))
    assert [each.said for each in survey.exchanges] == [b"", ASKED]


def test_without_a_backend_the_gateway_says_that_it_wants_tls() -> None:
    _, asked = unreached(DIALECT, terms(), [ASKED])
    assert asked.told == PARTY.answers.closed_login


# --- every position ----------------------------------------------------------------------------------


def dialogues() -> Iterator[tuple[Policy, list[tuple[Side, bytes]]]]:
    """What both sides say; None of it depends on how it is cut."""
    for policy in Policy:
        for said in (SSL, GSS + SSL, LOGIN, GSS + LOGIN, CANCEL, GSS + CANCEL, HELLO, *PARTY.answers.garbage):
            yield policy, [(CLIENT, said)]
        yield policy, [(CLIENT, LOGIN), (BACKEND, SASL), (CLIENT, FIRST), (BACKEND, asks(11)), (CLIENT, FINAL),
                       (BACKEND, asks(12) + asks(0))]  # fmt: skip
        yield (
            policy,
            [(CLIENT, LOGIN), (BACKEND, PASSWORD), (CLIENT, b"p\0\0\0\6x\0"), (BACKEND, fatal(b"28P01", b"x"))],
        )


def played(policy: Policy, dialogue: list[tuple[Side, bytes]], at: int, inside: bool) -> tuple[bytes, bytes, object]:
    stage = PARTY.opening(policy=policy, implicit=inside)
    for side, octets in dialogue:
        for piece in (octets[:at], octets[at:]):
            if piece and not stage.negotiation.over and stage.switching is None:
                stage.receive(side, piece)
            if stage.deeds and stage.deeds[-1] == DIAL and not stage.negotiation.over:
                stage.take(stage.negotiation.dialled())
    reason = getattr(stage.deeds[-1], "reason", stage.switching)
    return stage.heard_by(CLIENT), stage.heard_by(BACKEND), reason


def test_every_case_has_the_same_answer_wherever_it_is_cut() -> None:
    for policy, dialogue in dialogues():
        for inside in (False, True):
            whole = played(policy, dialogue, 0, inside)
            for at in range(1, max(len(octets) for _, octets in dialogue)):
                assert played(policy, dialogue, at, inside) == whole, (policy, dialogue, at)


PIECES = st.sampled_from(
    [SSL, GSS, CANCEL, LOGIN, HELLO, PASSWORD, SASL, asks(0), FIRST, fatal(b"28P01", b"x"), b"S", b"N"]
)
SAID = st.lists(st.tuples(st.sampled_from(Side), PIECES | st.binary(max_size=20)), max_size=8)


def talked(said: list[tuple[Side, bytes]], policy: Policy, cut: int, implicit: bool) -> Stage:
    """Without what depends on the network: nobody speaks behind a go-ahead."""
    stage = PARTY.opening(cut, policy=policy, implicit=implicit)
    for side, octets in said:
        if stage.negotiation.over or stage.switching:
            break
        stage.receive(side, octets)
        if stage.deeds and stage.deeds[-1] == DIAL and not stage.negotiation.over:
            stage.take(stage.negotiation.dialled())
    return stage


@given(said=SAID, policy=st.sampled_from(Policy), implicit=st.booleans())
def test_whatever_is_said_ends_or_waits(said: list[tuple[Side, bytes]], policy: Policy, implicit: bool) -> None:
    stage = talked(said, policy, WHOLE, implicit)
    if not implicit and policy is not Policy.OPTIONAL:
        # In the clear the backend hears cancel requests and nothing else.
        heard = stage.heard_by(BACKEND)
        assert re.fullmatch(rb"(?:%s)*" % PARTY.answers.before_tls, heard, re.DOTALL)
        assert not stage.spliced


# --- every position ----------------------------------------------------------------------------------

CASES = {
    **{f"garbage {name!r}": name for name in PARTY.answers.garbage},
    "SSLRequest": SSL,
    "GSSENCRequest": GSS,
    "two SSLRequests behind GSSENCRequest": GSS + SSL,
    "CancelRequest": CANCEL,
    "a startup": LOGIN,
    "protocol 2": message(b"", b"\0\2\0\0"),
    "a length of 7": b"\0\0\0\7\x04\xd2\x16",
    "a length of 10,001": b"\0\0\x27\x11\0\3\0\0",
    "HTTP": b"GET / HTTP/1.1\r\n",
    "a PROXY header": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("inside", [False, True])
def test_a_case_that_is_cut_anywhere_has_the_same_answer(name: str, inside: bool) -> None:
    assert len(cut_anywhere(lambda: PARTY.opening(implicit=inside), CASES[name])) == 1


def test_no_password_is_told_with_a_fault() -> None:
    play = PARTY.dialled().returns(PASSWORD).client(message(b"P", b"secret\0"), *GARBLED)
    assert not [each for each in play.run((WHOLE,)).notes if "secret" in repr(each)]
