"""A look at a backend (`check --live`): what it is asked, and what is seen of it with a client's eyes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.dialects.base import BackendTLS, Terms
from gateway.dialects.survey import Survey, unreached
from gateway.protocol.vocabulary import Close, Script, Side
from tests.pure.contract.form import Look
from tests.pure.contract.party import CALLERS, HERE, PARTIES, SWITCH, Caller, Party, every_party
from tests.pure.playbook import ABORT_BACKEND, DIAL, TLS13, Playbook, Stage, close, note, terms, to_backend

BACKEND = Side.BACKEND

UNITS = ("postgresql", "ldap", "xmpp", "xmpp-server")
"""Protocols that have no lines, where what is asked has one answer."""
every_seen = pytest.mark.parametrize("party", [party for party in PARTIES if party.dialect.question], ids=str)


def look_of(party: Party) -> Look:
    assert party.answers.look is not None
    return party.answers.look


def look(party: Party, play_on: Callable[[Playbook], Playbook], **changes: object) -> Survey:
    """The last of the surveys that a playbook plays."""
    surveys: list[Survey] = []

    def script(agreed: Terms) -> Script:
        surveys.append(Survey(party.dialect, agreed, party.dialect.question, lambda: HERE))
        return surveys[-1].script()

    play_on(Playbook(replace(party.dialect, script=script), terms(**changes)).start(DIAL)).run()
    return surveys[-1]


@every_seen
def test_a_backend_is_asked_and_left(party: Party) -> None:
    seen = look_of(party)

    def whole(play: Playbook) -> Playbook:
        said = party.answers.greeting
        play.dialled()
        for question, answer in seen.exchanges:
            play.backend(said, to_backend(question))
            said = answer
        return play.backend(said, close("quit"))

    survey = look(party, whole)
    assert survey.greeted
    assert survey.greeting == party.answers.greeting
    assert survey.welcome == party.greeting_inside
    assert survey.offered == seen.offered
    assert survey.shown == seen.shown
    assert survey.access.logins == seen.logins
    assert survey.end == Close("quit")


@every_seen
def test_a_look_goes_behind_starttls(party: Party) -> None:
    seen = look_of(party)

    def secured(play: Playbook) -> Playbook:
        party.begun(play.dialled())
        play.backend(party.answers.backend_starttls.answered, SWITCH)
        return party.answered(play, to_backend(seen.exchanges[0].said))

    survey = look(party, secured, backend_tls=BackendTLS.STARTTLS)
    assert survey.greeted


@pytest.mark.parametrize("mode", [BackendTLS.NONE, BackendTLS.STARTTLS])
@pytest.mark.parametrize("party", [party for party in CALLERS if str(party) in UNITS], ids=str)
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
    stage.receive(BACKEND, seen.exchanges[0].answered)
    assert seen.exchanges[0].said in stage.heard_by(BACKEND)
    assert survey.greeted
    assert survey.greeting == seen.exchanges[0].answered
    assert (survey.offered, survey.shown, survey.access.logins) == (seen.offered, seen.shown, seen.logins)


@every_party
def test_a_look_at_a_backend_that_is_not_there(party: Party) -> None:
    key = "backend-connect-failed"
    survey = look(party, lambda play: play.undialled(note(key), ABORT_BACKEND, close(key)))
    assert not survey.greeted
    assert (survey.offered, survey.shown, survey.access.logins) == (None, None, None)
    assert survey.end == Close(key, "connection refused")


@every_seen
def test_a_look_at_a_backend_that_leaves_in_the_middle(party: Party) -> None:
    seen = look_of(party)

    def cut(play: Playbook) -> Playbook:
        play.dialled().backend(party.answers.greeting, to_backend(seen.exchanges[0].said))
        return play.ended(BACKEND, False, ABORT_BACKEND, close("backend-lost"))

    survey = look(party, cut)
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
