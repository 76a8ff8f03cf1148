"""A look at a backend (`check --live`): what it is asked, and what is seen of it with a client's eyes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from gateway.dialects.base import BackendTLS
from gateway.dialects.survey import Survey, unreached
from gateway.protocol.vocabulary import Close, Side
from tests.pure.contract.form import Look
from tests.pure.contract.party import CALLERS, HERE, PARTIES, SWITCH, Caller, Party, every_party
from tests.pure.looking import Looking
from tests.pure.playbook import ABORT_BACKEND, TLS13, Stage, aborts, close, terms, to_backend

BACKEND = Side.BACKEND

every_seen = pytest.mark.parametrize("party", [party for party in PARTIES if party.dialect.question], ids=str)


def look_of(party: Party) -> Look:
    assert party.answers.look is not None
    return party.answers.look


@every_seen
def test_a_backend_is_asked_and_left(party: Party) -> None:
    seen = look_of(party)

    looking = Looking(party.dialect)
    looking.play.dialled()
    said = party.answers.greeting
    for question, answer in seen.exchanges:
        looking.play.backend(said, to_backend(question))
        said = answer
    looking.play.backend(said, close("quit"))
    survey = looking.found()
    assert survey.greeted
    assert survey.greeting == party.answers.greeting
    assert survey.welcome == party.greeting_inside
    assert survey.offered == seen.offered
    assert survey.shown == seen.shown
    assert survey.access.logins == seen.logins
    assert [each.said for each in survey.exchanges] == [b"", *(each.said.rstrip() for each in seen.exchanges)]
    assert survey.exchanges[-1].told == seen.exchanges[-1].answered
    assert survey.end == Close("quit")


@every_seen
def test_a_look_goes_behind_starttls(party: Party) -> None:
    seen = look_of(party)

    looking = Looking(party.dialect, backend_tls=BackendTLS.STARTTLS)
    party.begun(looking.play.dialled()).backend(party.answers.backend_starttls.answered, SWITCH)
    party.answered(looking.play, to_backend(seen.exchanges[0].said))
    for (_, answer), (asked, _) in pairwise(seen.exchanges):
        looking.play.backend(answer, to_backend(asked))
    looking.play.backend(seen.exchanges[-1].answered, close("quit"))
    survey = looking.found()
    assert survey.greeted
    assert survey.greeting == party.offer
    assert survey.welcome == party.answers.welcome_inside
    question = party.dialect.question
    if question is not None and question.listed_in == 0:
        assert survey.offered == survey.shown == question.listed(party.answers.offer_inside)
    else:
        assert (survey.offered, survey.shown, survey.access.logins) == (seen.offered, seen.shown, seen.logins)


@pytest.mark.parametrize("mode", [BackendTLS.NONE, BackendTLS.STARTTLS])
@pytest.mark.parametrize("party", [party for party in CALLERS if party.answers.look], ids=str)
def test_an_answer_to_starttls_is_no_answer_to_a_look(party: Caller, mode: BackendTLS) -> None:
    seen = party.answers.look
    assert seen is not None
    survey = Survey(party.dialect, terms(backend_tls=mode), party.dialect.question, lambda: HERE)
    stage = Stage(replace(party.dialect, script=lambda agreed: survey.script()), terms())
    stage.take(stage.negotiation.start())
    stage.take(stage.negotiation.dialled())
    if mode is BackendTLS.STARTTLS:
        for _, answer in party.questions:
            stage.receive(BACKEND, answer)
        assert stage.switching is BACKEND
        stage.secured(TLS13)
        for answer in (answer for question, answer in party.answers.again if not question):
            stage.receive(BACKEND, answer)
    for question, answer in seen.exchanges:
        assert question in stage.heard_by(BACKEND) or not answer
        stage.receive(BACKEND, answer)
    assert survey.greeted
    assert survey.greeting == seen.exchanges[0].answered
    assert (survey.offered, survey.shown) == (seen.offered, seen.shown)
    assert (survey.access.logins or ()) == seen.logins


@every_party
def test_a_look_at_a_backend_that_is_not_there(party: Party) -> None:
    key = "backend-connect-failed"
    looking = Looking(party.dialect)
    looking.play.undialled(*aborts(key))
    survey = looking.found()
    assert not survey.greeted
    assert (survey.offered, survey.shown, survey.access.logins) == (None, None, None)
    assert survey.end == Close(key, "connection refused")


@every_seen
def test_a_look_at_a_backend_that_leaves_in_the_middle(party: Party) -> None:
    seen = look_of(party)

    looking = Looking(party.dialect)
    looking.play.dialled().backend(party.answers.greeting, to_backend(seen.exchanges[0].said))
    looking.play.ended(BACKEND, False, ABORT_BACKEND, close("backend-lost"))
    survey = looking.found()
    assert survey.greeted
    question = party.dialect.question
    assert survey.offered == (None if question and question.listed_in else seen.offered)


@every_party
def test_on_a_lazy_listener_the_gateway_speaks_for_itself(party: Party) -> None:
    question = party.dialect.question
    words = [question.ask(b"gw.example.org")] if question else []
    heard = unreached(party.dialect, terms(lazy=True), words)
    assert heard[0].told == party.answers.lazy_greeting
    at = question.listed_in if question else 1
    assert all(question and question.listed(each.told) for each in heard[at : at + 1])
    assert [each.told for each in unreached(party.dialect, terms(lazy=False), words)] == [b""]
