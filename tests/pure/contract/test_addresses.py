"""The way to the backend over several addresses: what counts as reached, what as failed, and what the client hears."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.dialects.base import BackendTLS, Identity
from gateway.dialects.reach import CLOSED
from gateway.protocol.vocabulary import Dial, Expired, Greeted, Note, Patience, Side
from gateway.protocol.waiting import lateness
from tests.pure.contract.party import HERE, SWITCH, Anyone, Party, every_party, everyone, short
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    SINGLE,
    TLS13,
    Expected,
    Playbook,
    Stage,
    aborts,
    close,
    note,
    terms,
    to_client,
)

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND
GREETED = Greeted()

Failing = Callable[[Anyone, Playbook, Expected], Playbook]

FAILURES: dict[str, tuple[str, Failing]] = {
    "closes": (CLOSED, lambda party, play, then: play.ended(BACKEND, True, then)),
    "resets": (CLOSED, lambda party, play, then: play.ended(BACKEND, False, then)),
    "closes midway": (
        CLOSED,
        lambda party, play, then: play.backend(party.answers.greeting[:2]).ended(BACKEND, True, then),
    ),
    "is silent": (
        "backend-greeting-timeout",
        lambda party, play, then: play.expire(Expired(BACKEND, Patience.GREETING), then),
    ),
    "speaks SSH": ("backend-bad-greeting", lambda party, play, then: play.backend(b"SSH-2.0-x\r\n", then)),
    "speaks without end": ("backend-bad-greeting", lambda party, play, then: play.backend(b"x" * 8193 + b"\n", then)),
}
every_failure = pytest.mark.parametrize("failure", FAILURES)


def dialled(party: Anyone) -> Playbook:
    return party.dialled(others=True)


# --- greetings ---------------------------------------------------------------------------------------


@everyone
@pytest.mark.parametrize("mode", [BackendTLS.NONE, BackendTLS.STARTTLS], ids=short)
def test_G03_B12_B20_first_words_that_are_no_greeting(party: Anyone, mode: BackendTLS) -> None:
    lines = [b"x" * 8193 + b"\r\n"]
    if isinstance(party, Party):
        lines.append(party.answers.greeting.rstrip() + b" " + lines[0])
    for said in (*party.answers.no_greetings, *lines):
        play = party.dialled(backend_tls=mode).backend(said, *party.sorry("backend-bad-greeting")).run()
        shown = [repr(line)[2:-1] for line in said.splitlines()] if isinstance(party, Party) else ["b'"]
        assert len(said) > 8192 or any(line in play.detail for line in shown), play.detail
        assert [dict(each.fields)["detail"] for each in play.notes] == [play.detail]
    party.dialled(backend_tls=mode).backend(b"x" * 100_000, *party.sorry("backend-bad-greeting")).run((0, 977))


@every_party
@pytest.mark.parametrize("mode", [BackendTLS.NONE, BackendTLS.STARTTLS], ids=short)
def test_G04_B12_a_backend_that_refuses_has_spoken_for_all_addresses(party: Party, mode: BackendTLS) -> None:
    """It is in health, and a refusal is its word to this client: there is no TLS left to ask for (RFC 5321 5.1)."""
    refusal = party.answers.refusal
    ending = (GREETED, note("backend-refused"), to_client(refusal), close("backend-refused"))
    play = party.dialled(others=True, backend_tls=mode).backend(refusal, *ending).run()
    (told,) = [dict(each.fields)["text"] for each in play.notes]
    assert told in (refusal, refusal.rstrip())


@everyone
def test_B12_one_octet_per_second_is_one_wait(party: Anyone) -> None:
    play = party.dialled().waits(Patience.GREETING).phase("greeting")
    for octet in party.answers.greeting[:5]:
        play.backend(bytes([octet])).waits(Patience.GREETING)
    play.expire(Expired(BACKEND, Patience.GREETING), *party.sorry("backend-greeting-timeout")).run()


@every_party
def test_a_backend_is_in_health_once(party: Party) -> None:
    stage = party.stage(SINGLE)
    stage.receive(BACKEND, party.answers.greeting)
    stage.receive(CLIENT, b"".join(party.answers.logins))
    assert [deed for deed in stage.deeds if not isinstance(deed, Note)].count(GREETED) == 1


# --- one address after the other ---------------------------------------------------------------------


@everyone
@every_failure
def test_a_failed_address_is_followed_by_the_next(party: Anyone, failure: str) -> None:
    key, fail = FAILURES[failure]
    party.greets(fail(party, dialled(party), Dial(key)).dialled(note(key), *party.hello()), GREETED).run()


@everyone
@every_failure
def test_where_none_is_left_the_client_hears_so_and_the_log_knows_why(party: Anyone, failure: str) -> None:
    key, fail = FAILURES[failure]
    play = fail(party, dialled(party), Dial(key))
    play.undialled(*party.sorry(key)).run()
    assert [note.event for note in play.notes] == [key]
    play = fail(party, dialled(party), Dial(key)).dialled(*party.hello())
    play.backend(b"nonsense\r\n", Dial("backend-bad-greeting"))
    play.undialled(*party.sorry("backend-bad-greeting"), detail="none is left").run()
    assert ("nonsense" if isinstance(party, Party) else "b'n") in play.detail


@every_party
def test_G01_where_nothing_answers_at_all_the_log_knows_why(party: Party) -> None:
    key = "backend-connect-failed"
    play = Playbook(party.dialect, terms(), others=True).start(DIAL).phase("dialling")
    why = "10.0.0.5:25: Connection refused"
    play.undialled(*party.sorry(key, detail=why), detail=why).run()
    assert play.detail == why
    late = Expired(BACKEND, Patience.CONNECT)
    play = Playbook(party.dialect, terms(), others=True).start(DIAL)
    play.expire(late, *party.sorry(key, detail="timeout")).run()
    play = dialled(party).backend(b"nonsense\r\n", Dial("backend-bad-greeting"))
    play.expire(late, *party.sorry("backend-bad-greeting")).run()


@everyone
def test_an_address_that_failed_is_told_although_another_one_serves(party: Anyone) -> None:
    """An expired certificate on the first of two servers would go unnoticed for ever."""
    play = dialled(party).backend(b"nonsense\r\n", Dial("backend-bad-greeting"))
    play.dialled(note("backend-bad-greeting"), *party.hello()).run()
    (detail,) = [str(dict(each.fields)["detail"]) for each in play.notes]
    assert "b'n" in detail
    assert detail.endswith("; another address is tried")


@every_party
def test_what_the_failed_one_said_is_not_the_next_ones(party: Party) -> None:
    """Half a line, or a whole one more: it is gone with its connection."""
    stage = party.stage(others=True)
    stage.receive(BACKEND, b"nonsense\r\n" + party.answers.greeting + party.answers.greeting[:4])
    assert stage.deeds == [DIAL, Dial("backend-bad-greeting")]
    stage.take(stage.negotiation.dialled())
    stage.receive(BACKEND, party.answers.greeting)
    assert stage.heard_by(CLIENT) == party.answers.greeting


@every_party
def test_every_failure_on_the_way_has_an_event_of_the_backends(party: Party) -> None:
    """So that it is never taken for an attack of the client's."""
    troubles: list[Callable[[Stage], None]] = [
        lambda stage: stage.take(stage.negotiation.ended(BACKEND, False)),
        lambda stage: stage.receive(BACKEND, b"\0\r\n"),
        lambda stage: stage.take(stage.negotiation.expire(lateness(stage.negotiation.waiting))),
    ]
    for identity in party.answers.tells:
        for trouble in troubles:
            for said in range(len(party.clear) + 1):
                stage = party.stage(backend_tls=BackendTLS.STARTTLS, identity=identity, origin=HERE)
                for octets in party.clear[:said]:
                    stage.receive(BACKEND, octets)
                if stage.switching is BACKEND:
                    stage.unsecured("x")
                else:
                    trouble(stage)
                assert stage.negotiation.over
                assert stage.heard_by(CLIENT) == party.answers.unavailable
                (told,) = [deed for deed in stage.deeds if isinstance(deed, Note)]
                assert told.event.startswith("backend-")


# --- the client meanwhile ----------------------------------------------------------------------------


def between(party: Anyone) -> Playbook:
    """The first address has failed after it had answered a question of ours, the next one is being dialled."""
    return party.switched(others=True).unsecured(Dial("backend-tls-failed"))


@every_party
@pytest.mark.parametrize("orderly", [True, False])
def test_a_client_that_leaves_while_addresses_are_tried(party: Party, orderly: bool) -> None:
    """Nobody is said goodbye to, since nobody is there."""
    lost = (ABORT_BACKEND, close("client-lost"))
    for play in (between(party), dialled(party), between(party).dialled()):
        play.ended(CLIENT, orderly, *lost).run()


@everyone
def test_a_client_that_is_cut_off_while_addresses_are_tried(party: Anyone) -> None:
    words: list[Expected] = [to_client(party.answers.idle_early_words)] * bool(party.answers.idle_early_words)
    ending = (note("client-timeout"), *words, ABORT_BACKEND, close("client-timeout"))
    between(party).expire(Expired(CLIENT, Patience.COMMAND), *ending).run()


@everyone
def test_a_gateway_that_stops_while_addresses_are_tried(party: Anyone) -> None:
    between(party).stop(to_client(party.answers.stop_early_words), ABORT_BACKEND, close("shutdown")).run()


@every_party
def test_a_client_that_speaks_tls_while_addresses_are_tried(party: Party) -> None:
    between(party).client(b"\x16\x03\x01", *aborts("tls-on-plaintext-port")).run()


# --- lazy --------------------------------------------------------------------------------------------


@every_party
@every_failure
def test_a_lazy_session_goes_the_same_way(party: Party, failure: str) -> None:
    key, fail = FAILURES[failure]
    play = fail(party, party.lazy_dials().dialled(), Dial(key)).dialled()
    play.backend(party.answers.greeting, GREETED, party.lazy_goes_on()).run()
    fail(party, party.lazy_dials().dialled(), Dial(key)).undialled(*aborts(key, party.answers.down_words)).run()


@every_party
def test_a_lazy_session_hears_no_detail_of_tls_or_identity(party: Party) -> None:
    ending: tuple[Expected, ...] = (to_client(party.answers.down_words), ABORT_BACKEND)
    play = party.lazy_dials(backend_tls=BackendTLS.IMPLICIT).dialled(SWITCH)
    play.unsecured(Dial("backend-tls-failed"), detail="expired")
    play.undialled(note("backend-tls-failed", detail="expired"), *ending, close("backend-tls-failed")).run()
    refused = "backend-identity-refused"
    party.lazy_dials(note(refused), *ending, close(refused), identity=Identity.PROXY_V1).run()


@every_party
def test_B22_one_client_has_one_connection(party: Party) -> None:
    """What else is dialled is another address for the same client, and the one before is dropped."""
    answers = party.answers
    stage = party.stage(backend_tls=BackendTLS.STARTTLS, implicit=True)
    for said in party.clear:
        stage.receive(BACKEND, said)
    stage.secured(TLS13)
    for _, answer in answers.again:
        stage.receive(BACKEND, answer)
    before = stage.heard_by(BACKEND)
    for _ in range(3):
        stage.receive(CLIENT, answers.login)
        stage.receive(BACKEND, answers.rejected)
    assert stage.deeds.count(DIAL) == 1
    assert stage.heard_by(BACKEND) == before + answers.login * 3
