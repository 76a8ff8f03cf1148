"""Mechanisms that cannot work through a gateway."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import sasl
from gateway.dialects.sasl import cancels, is_request, proves, refused, unusable


@pytest.mark.parametrize(
    ("offered", "hidden"),
    [
        (b"PLAIN LOGIN", b""),
        (b"PLAIN EXTERNAL", b"EXTERNAL"),
        (b"plain external", b"EXTERNAL"),
        (b"EXTERNAL", b"EXTERNAL"),
        (b"PLAIN SCRAM-SHA-1 SCRAM-SHA-1-PLUS", b"SCRAM-SHA-1 SCRAM-SHA-1-PLUS"),
        (b"SCRAM-SHA-1 SCRAM-SHA-1-PLUS", b"SCRAM-SHA-1-PLUS"),
        (b"SCRAM-SHA-1 SCRAM-SHA-256 SCRAM-SHA-256-PLUS", b"SCRAM-SHA-256-PLUS"),
        (b"SCRAM-SHA-1 SCRAM-SHA-256 SCRAM-SHA-256-PLUS XOAUTH2", b"SCRAM-SHA-256 SCRAM-SHA-256-PLUS"),
        (b"PLAIN GS2-KRB5-PLUS", b"GS2-KRB5-PLUS"),
        (b"SCRAM-SHA-1 PLAIN", b""),
        (b"", b""),
    ],
)
def test_what_is_hidden(offered: bytes, hidden: bytes) -> None:
    assert unusable(offered.split()) == set(hidden.split())


@given(
    st.lists(st.sampled_from([b"PLAIN", b"EXTERNAL", b"SCRAM-SHA-1", b"SCRAM-SHA-1-PLUS", b"X", b"X-PLUS", b"-PLUS"]))
)
def test_hiding_twice_is_hiding_once(offered: list[bytes]) -> None:
    left = [name for name in offered if name not in unusable(offered)]
    assert not unusable(left)


@given(st.lists(st.text("ALPNSUX-", max_size=6).map(str.encode)))
def test_whatever_is_refused_is_not_offered(offered: list[bytes]) -> None:
    assert {name for name in offered if refused(name)} <= unusable(offered)


@pytest.mark.parametrize(
    ("mechanism", "result"),
    [(b"EXTERNAL", True), (b"External", True), (b"scram-sha-1-plus", True), (b"PLAIN", False), (b"EXTERNALS", False)],
)
def test_what_is_refused(mechanism: bytes, result: bool) -> None:
    assert refused(mechanism) is result


@pytest.mark.parametrize(
    ("name", "sound"),
    [
        (b"PLAIN", True),
        (b"x" * 40, True),
        (b"x" * 41, False),
        (b"", False),
        (b"PLAIN\n", False),
        (b'"PLAIN"', False),
        (b"PL AIN", False),
    ],
)
def test_names(name: bytes, sound: bool) -> None:
    assert bool(sasl.MECHANISM.match(name)) is sound


@pytest.mark.parametrize(
    ("arguments", "sound"),
    [
        (b"PLAIN", True),
        (b"PLAIN  ", True),
        (b"PLAIN AGEAYg==", True),
        (b"PLAIN AGEAYg== \t", True),
        (b"PLAIN =", True),
        (b"PLAIN = ", True),
        (b"PLAIN *", False),
        (b"PLAIN * ", False),
        (b"PLAIN\t", False),
        (b"PLAIN a b", False),
        (b"", False),
        (b" PLAIN", False),
    ],
)
def test_T04_requests(arguments: bytes, sound: bool) -> None:
    assert is_request(arguments) is sound


@pytest.mark.parametrize(
    ("line", "sound"),
    [(b"", True), (b"=", True), (b"* ", True), (b"eA==\t ", True), (b" ", False), (b" eA==", False), (b"e A==", False)],
)
def test_T04_responses(line: bytes, sound: bool) -> None:
    assert bool(sasl.RESPONSE.match(line)) is sound


@pytest.mark.parametrize(("response", "back"), [(b"*", True), (b"* \t", True), (b"", False), (b"Kg==", False)])
def test_what_takes_an_exchange_back(response: bytes, back: bool) -> None:
    assert cancels(response) is back


@pytest.mark.parametrize(
    ("mechanism", "response", "proof"),
    [
        (b"PLAIN", b"AGEAYg==", True),
        (b"PLAIN", b"=", False),
        (b"PLAIN", b"", False),
        (b"PLAIN", b"= ", False),
        (b"PLAIN", b"*", False),
        (b"anonymous", b"=", True),
        (b"ANONYMOUS", b"", True),
        (b"ANONYMOUS", b"*", False),
    ],
)
def test_T11_what_can_prove_who_somebody_is(mechanism: bytes, response: bytes, proof: bool) -> None:
    assert proves(mechanism, response) is proof
