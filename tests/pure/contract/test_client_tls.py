"""TLS with the client: what is allowed before it, and that nothing crosses into it."""

from __future__ import annotations

import pytest

from gateway.dialects.base import Policy
from gateway.protocol.vocabulary import Side, TLSFailed
from tests.pure.contract.party import Anyone, Caller, Party, every_party, everyone
from tests.pure.playbook import (
    DIAL,
    SPLICE,
    WHOLE,
    Playbook,
    Stage,
    aborts,
    close,
    note,
    terms,
    tls,
    to_backend,
    to_client,
)

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND
POLICIES = tuple(Policy)
HELLO = b"\x16\x03\x01\x02\x00\x01" + bytes(200)

every_policy = pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.value)


# --- nothing crosses ---------------------------------------------------------------------------------


@everyone
@every_policy
@pytest.mark.parametrize("inside", ["login", "half a login", "an empty line", "an alert", "data"])
def test_G05_G06_octets_behind_starttls_end_the_session(party: Anyone, inside: str, policy: Policy) -> None:
    login = party.answers.login
    behind = {
        "login": login,
        "half a login": login[: len(login) // 2],
        "an empty line": b"\r\n",
        "an alert": b"\x15\x03",
        "data": b"\x17",
    }[inside]
    if inside == "an empty line" and isinstance(party, Caller) and party.answers.blanks:
        return
    said, told = party.answers.starttls
    ending = (note("starttls-injection"), party.parting, close("starttls-injection"))
    play = party.opened(policy=policy).client(said + behind, to_client(told), *ending)
    play.run((WHOLE,))
    assert f"{len(behind)} octets" in play.detail


@everyone
def test_G05_G06_wherever_the_network_cuts_no_plaintext_gets_inside(party: Anyone) -> None:
    """Either the octets behind STARTTLS are the handshake's, or the session ends; the backend hears none of them."""
    answers = party.answers
    octets = answers.starttls.said + answers.login
    for at in range(1, len(octets)):
        stage = party.opening()
        greeting = stage.heard_by(CLIENT)
        stage.receive(CLIENT, octets[:at])
        stage.receive(CLIENT, octets[at:])
        if stage.switching:
            assert at >= len(answers.starttls.said)
            stage.unsecured("wrong version number")
        assert stage.negotiation.over
        assert stage.heard_by(CLIENT) == greeting + answers.starttls.answered
        assert stage.heard_by(BACKEND) == answers.farewell


@everyone
def test_G07_a_client_hello_behind_starttls_belongs_to_the_handshake(party: Anyone) -> None:
    said, told = party.answers.starttls
    play = party.opened().client(said + HELLO, tls(told, early=HELLO)).phase("handshake")
    party.alive(party.entered(play).phase(party.phase_inside)).run()


@everyone
def test_G08_G09_after_a_failed_handshake_the_client_is_told_nothing(party: Anyone) -> None:
    said, told = party.answers.starttls
    farewell = party.parting

    def shaking() -> Playbook:
        return party.opened().client(said, tls(told))

    failed = note("tls-failed", key="client-tls-failed", detail="no shared cipher")
    shaking().unsecured(failed, farewell, close("tls-failed")).run()
    for orderly in (True, False):
        shaking().ended(CLIENT, orderly, note("tls-failed"), farewell, close("tls-failed")).run()
    late = TLSFailed(CLIENT, "handshake timed out")
    shaking().expire(late, note("tls-failed", detail=late.detail), farewell, close("tls-failed")).run()
    shaking().stop(farewell, close("shutdown")).run()


@everyone
def test_G09_on_an_implicit_port_a_failed_handshake_dials_nobody(party: Anyone) -> None:
    for lazy in (False, True):
        play = Playbook(party.dialect, terms(implicit=True, lazy=lazy)).start(tls(b""))
        play.unsecured(*aborts("tls-failed")).run()


@every_party
def test_G10_there_is_no_tls_inside_tls(party: Party) -> None:
    answer = to_client(party.answers.starttls_again)
    for play in (party.inside(), party.greeted(implicit=True), party.greeted(implicit=True, lazy=True)):
        party.leaves(play.client(party.answers.starttls.said, answer)).run()
    party.lazy().client(party.answers.starttls.said, answer).run()


@every_party
def test_G14_an_answer_that_is_due_comes_before_the_go_ahead(party: Party) -> None:
    said, told = party.answers.starttls
    command, answer = party.answers.command
    play = party.greeted(policy=Policy.OPTIONAL).client(command + said, to_backend(command))
    play.returns(answer, tls(told)).run()


@every_party
def test_what_was_learnt_in_the_clear_does_not_count_inside(party: Party) -> None:
    """The client asks again inside TLS, and sees what the backend lists then."""
    asks, listed = party.answers.listing
    play = party.greeted().passes(asks).backend(listed, to_client(party.answers.listing_closed))
    party.entered(play.client(party.answers.starttls.said, tls(party.answers.starttls.answered)))
    play.passes(asks).backend(listed, to_client(party.answers.listing_inside)).run()


# --- policies ----------------------------------------------------------------------------------------


@every_party
@every_policy
def test_capabilities_before_tls_show_no_login_unless_it_is_allowed(party: Party, policy: Policy) -> None:
    asks, listed = party.answers.listing
    shown = party.answers.listing_open if policy is Policy.OPTIONAL else party.answers.listing_closed
    party.greeted(policy=policy).passes(asks).backend(listed, to_client(shown)).run()


@every_party
@every_policy
def test_G13_capabilities_inside_tls_show_only_what_works_there(party: Party, policy: Policy) -> None:
    asks, listed = party.answers.listing
    play = party.inside(policy=policy).passes(asks)
    binds = b"-PLUS" in listed
    told = [note("backend-channel-binding")] if binds else []
    play.backend(listed, to_client(party.answers.listing_inside), *told).run()
    assert [each.once for each in play.notes if each.event == "backend-channel-binding"] == [True] * binds


@everyone
@every_policy
def test_G11_a_login_before_tls_works_under_optional_only(party: Anyone, policy: Policy) -> None:
    if policy not in party.dialect.offers:
        return
    party.logs_in(party.ready(policy=policy)).run()
    if policy is Policy.OPTIONAL:
        party.logs_in(party.opened(policy=policy)).run()
        return
    # Without asking for more: a password that is sent when it is wanted would be in the clear.
    for each in party.answers.logins:
        party.but(login=each).refuses_login(party.opened(policy=policy)).run()


@every_party
@every_policy
def test_other_commands_before_tls_are_refused_under_required_only(party: Party, policy: Policy) -> None:
    command, refusal = party.answers.closed
    expected = to_client(refusal) if policy is Policy.REQUIRED else to_backend(command)
    party.greeted(policy=policy).client(command, expected).run()
    party.ready(policy=policy).passes(command).run()


@every_party
@every_policy
def test_the_client_may_leave_before_tls(party: Party, policy: Policy) -> None:
    party.leaves(party.greeted(policy=policy)).run()
    party.leaves(party.inside(policy=policy)).run()


# --- lazy --------------------------------------------------------------------------------------------


@every_party
def test_a_lazy_session_dials_when_the_backend_is_needed(party: Party) -> None:
    asks, listed = party.answers.listing
    play = party.lazy_dials().dialled().backend(party.answers.greeting, party.lazy_goes_on())
    if party.answers.reissue is not None:
        play.passes(asks)
    play.backend(listed, to_client(party.answers.listing_inside)).run()


@every_party
def test_a_lazy_session_whose_backend_is_not_there_says_so_then(party: Party) -> None:
    party.lazy_dials().undialled(*aborts("backend-connect-failed", party.answers.down_words)).run()


@every_party
def test_lazy_means_nothing_on_an_implicit_port(party: Party) -> None:
    party.leaves(party.greeted(implicit=True, lazy=True)).run()


@every_party
def test_a_login_on_a_lazy_session_waits_for_tls(party: Party) -> None:
    play = Playbook(party.dialect, terms(lazy=True)).start(to_client(party.answers.lazy_greeting))
    play.client(party.answers.login, to_client(party.answers.closed_login)).run()


@every_party
def test_a_login_in_the_clear_dials_on_a_lazy_session_that_allows_it(party: Party) -> None:
    """`identity = proxy-v2` makes every session lazy."""
    stage = Stage(party.dialect, terms(lazy=True, policy=Policy.OPTIONAL))
    stage.take(stage.negotiation.start())
    for said in (*(each.said for each in party.answers.introduction), party.answers.login):
        stage.receive(CLIENT, said)
    assert DIAL in stage.deeds
    assert stage.heard_by(BACKEND) == b""


# --- every position ----------------------------------------------------------------------------------


@every_party
def test_the_same_session_follows_wherever_the_network_cuts(party: Party) -> None:
    """Greeting, TLS, a command and a login, in pieces of every size up to the longest message."""
    answers = party.answers
    dialogue = [*answers.introduction, answers.command, (answers.login, answers.accepted)]
    said, answered = zip(*dialogue, strict=True)
    for size in range(1, max(map(len, [answers.greeting, answers.starttls.said, *said, *answered])) + 1):
        stage = party.stage(size)
        stage.receive(BACKEND, answers.greeting)
        stage.receive(CLIENT, answers.starttls.said)
        assert stage.switching is CLIENT
        party.enter(stage)
        for command, answer in dialogue:
            stage.receive(CLIENT, command)
            stage.receive(BACKEND, answer)
        asked, listed = answers.reissue or (b"", b"")
        assert stage.heard_by(CLIENT) == answers.greeting + answers.starttls.answered + listed + b"".join(answered)
        assert stage.heard_by(BACKEND) == asked + b"".join(said)
        assert (SPLICE in stage.deeds) is answers.splices
