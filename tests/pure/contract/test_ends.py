"""How a session ends: either side lost, silent or late, and a gateway that stops, at each stage."""

from __future__ import annotations

from itertools import pairwise

import pytest

from gateway.dialects.base import BackendTLS
from gateway.protocol.vocabulary import Expired, Patience, Side, TLSFailed
from gateway.protocol.waiting import lateness
from tests.pure.contract.party import Anyone, Party, every_judged, every_party, every_waiting, everyone
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    PROVEN,
    WHOLE,
    Expected,
    Playbook,
    close,
    note,
    terms,
    to_backend,
    to_client,
)

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND

in_order_or_not = pytest.mark.parametrize("orderly", [True, False], ids=["closed", "reset"])


def told(octets: bytes) -> list[Expected]:
    return [to_client(octets)] * bool(octets)


# --- the backend -------------------------------------------------------------------------------------


@every_party
@in_order_or_not
def test_G17_the_backend_is_lost_while_it_owes_nothing(party: Party, orderly: bool) -> None:
    ending = (*told(party.answers.lost_idle_words), ABORT_BACKEND, close("backend-closed"))
    for play in (party.greeted(), party.inside()):
        play.ended(BACKEND, orderly, note("backend-closed"), *ending).run()


@every_judged
@in_order_or_not
def test_G17_the_backend_is_lost_before_its_answer(party: Anyone, orderly: bool) -> None:
    ending = (note("backend-lost"), *told(party.answers.lost_words), ABORT_BACKEND, close("backend-lost"))
    for play in (party.owed(), party.logs_in(party.ready())):
        play.ended(BACKEND, orderly, *ending).run()


@every_party
@in_order_or_not
def test_G17_a_cut_answer_stays_cut(party: Party, orderly: bool) -> None:
    """Words of ours behind half an answer would be read as a part of it."""
    part = party.answers.part
    for size in range(1, len(part) + 1):
        stage = party.stage(implicit=True)
        stage.receive(BACKEND, party.answers.greeting)
        stage.receive(CLIENT, party.answers.command.said)
        stage.receive(BACKEND, part[:size])
        stage.take(stage.negotiation.ended(BACKEND, orderly))
        assert stage.negotiation.over
        words = stage.heard_by(CLIENT).removeprefix(party.greeting_inside)
        assert words == (party.answers.part_told if size == len(part) else words)
        assert b"\r\n" not in part[:size] or words.startswith(part[: part[:size].rindex(b"\r\n") + 2])
    play = party.owed().backend(part)
    play.ended(BACKEND, orderly, *told(party.answers.part_told), ABORT_BACKEND, close("backend-lost")).run()


@everyone
@in_order_or_not
def test_G17_a_cut_greeting_is_none(party: Anyone, orderly: bool) -> None:
    greeting = party.answers.greeting
    for size in range(1, len(greeting)):
        play = party.dialled().backend(greeting[:size])
        play.ended(BACKEND, orderly, *party.sorry("backend-connect-failed")).run((WHOLE,))


@every_judged
@in_order_or_not
def test_G17_a_cut_verdict_stays_cut_and_lets_nobody_in(party: Anyone, orderly: bool) -> None:
    """The client hears what came of it, or our own words, and never both."""
    accepted = party.answers.accepted
    for size in range(1, len(accepted)):
        stage = party.logs_in(party.ready()).stage()
        stage.receive(BACKEND, accepted[:size])
        stage.take(stage.negotiation.ended(BACKEND, orderly))
        assert stage.negotiation.over
        assert not stage.spliced
        assert PROVEN not in stage.deeds
        assert stage.heard_by(CLIENT) in (b"", accepted[:size], party.answers.lost_words)


@every_party
def test_the_backend_answers_with_garbage(party: Party) -> None:
    key = "backend-protocol-error"
    ending = (*told(party.answers.garbage_words), ABORT_BACKEND, close(key))
    party.owed().backend(party.answers.garbage, note(key), *ending).run()


@every_party
def test_B15_B25_the_backend_speaks_when_nobody_asked(party: Party) -> None:
    """Somebody on the path may have logged in as himself before TLS, and the backend lets it count inside."""
    key = "backend-protocol-error"
    ending = (note(key), *told(party.answers.unasked_words), ABORT_BACKEND, close(key))
    for implicit in (False, True):
        play = party.switched(implicit=implicit)
        party.finished(play, implicit=implicit).backend(party.answers.unasked, *ending).run()
        party.greeted(implicit=implicit).backend(party.answers.unasked, *ending).run()


@every_waiting
def test_the_backend_does_not_answer(party: Anyone) -> None:
    late = lateness(party.owed().stage().negotiation.waiting)
    assert isinstance(late, Expired)
    assert late.side is BACKEND
    ending = (note("backend-timeout"), *told(party.answers.late_words), ABORT_BACKEND, close("backend-timeout"))
    for play in (party.owed(), party.logs_in(party.ready())):
        play.waits(Patience.REPLY).expire(late, *ending).run()


# --- the client --------------------------------------------------------------------------------------


@every_party
def test_G18_a_client_that_leaves_completes_nothing(party: Party) -> None:
    """Its backend hears a goodbye only where nothing is half done."""
    farewell = to_backend(party.answers.farewell)
    part = party.answers.command.said[:-2]
    lost = (ABORT_BACKEND, close("client-lost"))
    for begin in (party.greeted, party.inside):
        begin().ended(CLIENT, False, *lost).run()
        begin().ended(CLIENT, True, farewell, close("client-closed")).run()
        begin().client(part).ended(CLIENT, True, farewell, close("client-closed")).run()
    party.owed().ended(CLIENT, False, *lost).run()
    party.logs_in(party.ready()).ended(CLIENT, False, *lost).run()
    for said in (b"", part, party.answers.command.said):
        party.dialled().client(said).ended(CLIENT, False, *lost).run()
    Playbook(party.dialect, terms()).start(DIAL).ended(CLIENT, True, *lost).run()


@every_party
def test_G27_a_client_that_closes_after_its_goodbye(party: Party) -> None:
    said, answered = party.answers.leave
    for play in (party.greeted(), party.inside()):
        play.passes(said).ended(CLIENT, True)
        play.returns(answered, close("quit")).run()
    party.inside().passes(said).ended(CLIENT, False, ABORT_BACKEND, close("client-lost")).run()


@everyone
def test_a_client_that_says_nothing_for_too_long(party: Anyone) -> None:
    idle = Expired(CLIENT, Patience.COMMAND)
    ending = (*told(party.answers.idle_words), party.parting, close("client-timeout"))
    for play in (party.opened(), party.inside(), party.opened(implicit=True)):
        play.waits(Patience.COMMAND).expire(idle, note("client-timeout"), *ending).run()


@everyone
def test_a_client_that_is_late_before_its_greeting(party: Anyone) -> None:
    idle = Expired(CLIENT, Patience.COMMAND)
    ending = (note("client-timeout"), *told(party.answers.idle_early_words), ABORT_BACKEND, close("client-timeout"))
    for play in (party.dialled(), party.switched(), party.dialled(others=True)):
        play.expire(idle, *ending).run()


# --- the gateway -------------------------------------------------------------------------------------


@every_party
def test_a_shutdown_before_the_greeting(party: Party) -> None:
    ending = (*told(party.answers.stop_early_words), ABORT_BACKEND, close("shutdown"))
    Playbook(party.dialect, terms()).start(DIAL).stop(*ending).run()
    party.dialled().stop(*ending).run()
    party.switched().stop(*ending).run()


@everyone
def test_a_shutdown_at_a_boundary_says_goodbye_to_both(party: Anyone) -> None:
    ending = (*told(party.answers.stop_words), party.parting, close("shutdown"))
    for play in (party.opened(), party.inside(), party.opened(implicit=True)):
        play.stop(*ending).run()


@every_party
def test_a_shutdown_waits_for_the_answer_that_is_due(party: Party) -> None:
    answered = party.answers.command.answered
    ending = (to_backend(party.answers.farewell), close("shutdown"))
    play = party.owed().stop()
    play.backend(answered, to_client(answered + party.answers.stop_words), *ending).run()


@every_party
def test_B18_each_step_to_the_backend_has_its_deadline(party: Party) -> None:
    steps = [*((to_backend(said),) for said, _ in party.questions)]
    for reached in range(len(party.questions) + 1):
        play = party.dialled(backend_tls=BackendTLS.STARTTLS)
        for said, step in zip(party.clear[:reached], steps, strict=False):
            play.backend(said, *step)
        patience = Patience.REPLY if reached else Patience.GREETING
        key = "backend-timeout" if reached else "backend-greeting-timeout"
        play.waits(patience).expire(Expired(BACKEND, patience), *party.sorry(key)).run()
    late = TLSFailed(BACKEND, "handshake timed out")
    party.switched().expire(late, *party.sorry("backend-tls-failed")).run()
    inside = party.answers.again
    for reached in range(len(inside)):
        play = party.switched().secured(*[to_backend(inside[0].said)] * bool(inside[0].said))
        for (_, answer), (question, _) in pairwise(inside[: reached + 1]):
            play.backend(answer, to_backend(question))
        play.waits(Patience.REPLY).expire(Expired(BACKEND, Patience.REPLY), *party.sorry("backend-timeout")).run()
