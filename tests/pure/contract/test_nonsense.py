"""Whatever both sides say, and however the network cuts it."""

from __future__ import annotations

import re
from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.base import Policy
from gateway.protocol.vocabulary import Side
from tests.pure.contract.party import Party, every_party
from tests.pure.playbook import SINGLE, WHOLE, Stage

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND


@cache
def talk(party: Party) -> st.SearchStrategy[list[tuple[Side, bytes]]]:
    answers = party.answers
    word = st.sampled_from(answers.words.split())
    chunk = st.one_of(
        st.binary(max_size=20),
        st.lists(word, max_size=5).map(lambda words: b" ".join(words) + b"\r\n"),
        st.sampled_from([answers.command.said, answers.login, answers.closed.said, answers.listing.said]),
        st.sampled_from([answers.command.answered, answers.accepted, answers.rejected, answers.unasked]),
    )
    # The backend says one line at a time: whether its second line or the client's waiting command comes
    # first is no matter of cutting.
    one = chunk.map(lambda octets: octets.partition(b"\n")[0] + octets[-1:])
    return st.lists(st.tuples(st.just(CLIENT), chunk) | st.tuples(st.just(BACKEND), one), max_size=12)


def played(party: Party, said: list[tuple[Side, bytes]], cut: int, policy: Policy, inside: bool = False) -> Stage:
    stage = party.stage(cut, policy=policy, bad_commands=5)
    stage.receive(BACKEND, party.answers.greeting)
    if inside:
        stage.receive(CLIENT, party.answers.starttls.said)
        party.enter(stage)
    for side, octets in said:
        if stage.negotiation.over or stage.switching:
            break
        stage.receive(side, octets)
    return stage


def heard(party: Party, stage: Stage) -> tuple[bytes, bytes, object]:
    """Without what depends on how much plaintext lay behind a STARTTLS."""
    reason = getattr(stage.deeds[-1], "reason", None)
    told = stage.heard_by(BACKEND)
    if stage.switching or reason == "starttls-injection":
        reason, told = "switched", told.removesuffix(party.answers.farewell)
    return stage.heard_by(CLIENT), told, reason


@every_party
@given(data=st.data(), policy=st.sampled_from(Policy), inside=st.booleans())
def test_how_the_network_cuts_changes_nothing(party: Party, data: st.DataObject, policy: Policy, inside: bool) -> None:
    said = data.draw(talk(party))
    whole, single = (played(party, said, cut, policy, inside) for cut in (WHOLE, SINGLE))
    assert heard(party, whole) == heard(party, single)


@every_party
@given(data=st.data())
def test_required_in_the_clear_lets_nothing_through(party: Party, data: st.DataObject) -> None:
    """Not even when it is mixed with answers of a backend that says what it likes."""
    octets = played(party, data.draw(talk(party)), WHOLE, Policy.REQUIRED).heard_by(BACKEND)
    assert re.fullmatch(rb"(?:%s)*" % party.answers.before_tls, octets)
