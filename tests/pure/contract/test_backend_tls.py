"""TLS towards the backend: none, starttls and implicit.

Until the backend's TLS is there and verified, nothing that it says has another effect than that TLS begins or
that the address is given up.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.base import BackendTLS
from gateway.protocol.vocabulary import Dial, Greeted, Patience, Side
from tests.pure.contract.party import SWITCH, Anyone, Party, every_party, everyone
from tests.pure.playbook import (
    DIAL,
    SINGLE,
    WHOLE,
    Expected,
    Playbook,
    Stage,
    Switch,
    terms,
    tls,
    to_backend,
    to_client,
)

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND
GREETED = Greeted()
STARTTLS, IMPLICIT = BackendTLS.STARTTLS, BackendTLS.IMPLICIT


def implicit(party: Anyone, *, others: bool = False) -> Playbook:
    return party.dialled(backend_tls=IMPLICIT, others=others)


# --- nothing crosses ---------------------------------------------------------------------------------

ANYTHING = (b"injected\r\n", b"x", b"\r\n", b"\n", b"\0", b"\x16\x03\x03\x00\x7a\x02")
"""The last one is a ServerHello: who says that before our ClientHello is no server."""


def behind(party: Anyone) -> tuple[bytes, ...]:
    """What may lie behind the go-ahead: whole and half answers to what we ask inside TLS, and anything."""
    said = b"".join(answer for _, answer in party.answers.again)
    if isinstance(party, Party):
        said = said or party.answers.listing.answered
    return (*ANYTHING, said, said[: len(said) // 2], party.answers.refusal)


@everyone
def test_G15_B1_B2_B13_octets_behind_the_go_ahead_are_an_attack(party: Anyone) -> None:
    go = party.go
    for said in behind(party):
        play = party.asked().backend(go + said, *party.sorry("backend-starttls-injection"))
        play.run((WHOLE,))
        assert f"{len(said)} octets" in play.detail
        party.asked(others=True).backend(go + said, Dial("backend-starttls-injection")).run((WHOLE,))


@everyone
def test_B1_B2_octets_that_come_later_are_the_handshakes(party: Anyone) -> None:
    why = "wrong version number"
    for said in behind(party):
        play = party.asked().backend(party.go + said, tls(b"", BACKEND, said))
        play.unsecured(*party.sorry("backend-tls-failed", detail=why), detail=why).run((SINGLE,))


@every_party
@given(said=st.binary(min_size=1, max_size=200), cut=st.integers(0, 40))
def test_B1_B2_however_it_is_cut_the_clear_never_gets_inside(party: Party, said: bytes, cut: int) -> None:
    stage = party.stage(cut, backend_tls=STARTTLS)
    *clear, go = party.clear
    for octets in (*clear, go + said):
        stage.receive(BACKEND, octets)
    if stage.switching is None:
        assert stage.heard_by(CLIENT) == party.answers.unavailable
        assert stage.negotiation.over
    else:
        assert stage.heard_by(CLIENT) == b""
        assert stage.deeds[-1] == Switch(BACKEND, b"", said)


def stages(party: Party) -> list[tuple[bytes, Expected]]:
    """What the backend says on the way, and what follows; then the handshake."""
    return list(zip(party.clear, [*(to_backend(said) for said, _ in party.questions), SWITCH], strict=True))


@every_party
def test_G16_B23_an_early_client_is_heard_when_the_backend_is_secure(party: Party) -> None:
    login = party.answers.login
    steps = stages(party)
    for early in range(len(steps) + 1):
        for failing in (False, True):
            play = party.dialled(implicit=True, backend_tls=STARTTLS)
            for at, (said, answer) in enumerate(steps):
                if at == early:
                    play.client(login)
                play.backend(said, answer)
            if early == len(steps):
                play.client(login)
            if failing:
                play.unsecured(*party.sorry("backend-tls-failed"))
            else:
                party.finished(play, to_backend(login), implicit=True)
            play.run()


# --- STARTTLS ----------------------------------------------------------------------------------------


@every_party
def test_the_way_to_a_backend_with_starttls(party: Party) -> None:
    for inside in (False, True):
        play = party.finished(party.switched(implicit=inside), GREETED, implicit=inside)
        play.phase("secure" if inside else "plaintext").run()


@everyone
def test_G16_B5_B11_a_backend_that_refuses_starttls(party: Anyone) -> None:
    for said in party.answers.no:
        party.asked().backend(said, *party.sorry("backend-tls-failed")).run()


@everyone
@pytest.mark.parametrize("orderly", [True, False])
def test_G16_the_backend_leaves_instead_of_answering_starttls(party: Anyone, orderly: bool) -> None:
    party.asked().ended(BACKEND, orderly, *party.sorry("backend-connect-failed")).run()
    party.switched().ended(BACKEND, orderly, *party.sorry("backend-tls-failed")).run()


@every_party
def test_B8_an_answer_before_the_question_buys_no_session_without_tls(party: Party) -> None:
    """It is taken for the answer, and then there is a handshake to pass; its real answer cannot be a part of one."""
    asked = b"".join(said for said, _ in party.questions)
    play = party.dialled(backend_tls=STARTTLS).backend(b"".join(party.clear), to_backend(asked), SWITCH)
    play.unsecured(*party.sorry("backend-tls-failed")).run()


# --- implicit ----------------------------------------------------------------------------------------


@every_party
def test_implicit_tls_is_the_first_on_the_connection(party: Party) -> None:
    play = implicit(party).phase("handshake").secured().waits(Patience.GREETING)
    play.backend(party.answers.offer_inside, to_client(party.answers.welcome), GREETED).run()


@every_party
def test_B14_plaintext_on_an_implicit_port_is_for_openssl_to_refuse(party: Party) -> None:
    for cut in (WHOLE, SINGLE):
        stage = Stage(party.dialect, terms(backend_tls=IMPLICIT), cut)
        stage.take(stage.negotiation.start())
        stage.take(stage.negotiation.dialled())
        stage.receive(BACKEND, party.answers.greeting)
        assert stage.deeds == [DIAL, Switch(BACKEND, b"", party.answers.greeting)]
        stage.unsecured("wrong version number")
        assert stage.heard_by(CLIENT) == party.answers.unavailable
        assert stage.heard_by(BACKEND) == b""


# --- the handshake fails -----------------------------------------------------------------------------


@everyone
def test_G16_B16_B17_a_certificate_is_the_logs_business_and_not_the_clients(party: Anyone) -> None:
    for why in ("certificate is for mail.example.net, not mail.example.org", "connection closed during the handshake"):
        for play in (party.switched(), implicit(party)):
            play.unsecured(*party.sorry("backend-tls-failed", detail=why), detail=why).run()
            assert play.detail == why


@everyone
def test_B21_who_fails_at_tls_is_not_asked_without_it(party: Anyone) -> None:
    """The next address, and from the beginning."""
    play = party.switched(others=True).unsecured(Dial("backend-tls-failed")).dialled(*party.hello(STARTTLS))
    party.finished(party.begun(play).backend(party.go, SWITCH), GREETED).run()
    play = implicit(party, others=True)
    play.unsecured(Dial("backend-tls-failed")).dialled(SWITCH).unsecured(Dial("backend-tls-failed"))
    play.undialled(*party.sorry("backend-tls-failed")).run()
