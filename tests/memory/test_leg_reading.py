"""The reading side of a leg: every state, every call, and what becomes of plaintext that nobody may have yet."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.wire.leg import End
from gateway.wire.leg.reading import Reading, ReadState

PAUSED, OPEN, HOLDING, RELEASING = ReadState.PAUSED, ReadState.OPEN, ReadState.HOLDING, ReadState.RELEASING
ENDED, DROPPING, FINISHED = ReadState.ENDED, ReadState.DROPPING, ReadState.FINISHED

CALLS: dict[str, Callable[[Reading], object]] = {
    "pause": lambda reading: reading.pause(),
    "resume": lambda reading: reading.resume(),
    "hold": lambda reading: reading.hold(b"x"),
    "end": lambda reading: reading.end(End.ORDERLY),
    "drop": lambda reading: reading.drop(),
    "finish": lambda reading: reading.finish(),
}

WAYS = {
    PAUSED: (),
    OPEN: ("resume",),
    HOLDING: ("hold",),
    RELEASING: ("hold", "resume"),
    ENDED: ("resume", "end"),
    DROPPING: ("resume", "drop"),
    FINISHED: ("resume", "finish"),
}
"""The calls that lead to each state."""

TABLE = {
    PAUSED: {"resume": OPEN, "hold": HOLDING, "end": ENDED, "drop": DROPPING, "finish": FINISHED},
    OPEN: {"pause": PAUSED, "end": ENDED, "drop": DROPPING, "finish": FINISHED},
    HOLDING: {"resume": RELEASING, "drop": DROPPING, "finish": FINISHED},
    RELEASING: {"pause": HOLDING, "drop": DROPPING, "finish": FINISHED},
    ENDED: {"drop": DROPPING, "finish": FINISHED},
    DROPPING: {"finish": FINISHED},
    FINISHED: {},
}
"""Where each call leads; calls that are not listed change nothing."""


def brought_to(state: ReadState) -> Reading:
    reading = Reading()
    for call in WAYS[state]:
        CALLS[call](reading)
    assert reading.state is state
    return reading


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("state", ReadState)
def test_each_call_in_each_state_leads_where_the_table_says(state: ReadState, call: str) -> None:
    reading = brought_to(state)
    told = CALLS[call](reading)
    assert reading.state is TABLE[state].get(call, state)
    if call in ("pause", "resume", "end"):
        assert told is (call in TABLE[state]), "true if something changed"


@pytest.mark.parametrize("state", ReadState)
def test_the_socket_is_read_in_two_states_and_during_a_handshake_in_three(state: ReadState) -> None:
    reading = brought_to(state)
    assert reading.wanted(shaking=False) is (state in (OPEN, DROPPING))
    assert reading.wanted(shaking=True) is (state in (OPEN, DROPPING, PAUSED))


@pytest.mark.parametrize("state", ReadState)
def test_the_input_is_over_in_three_states(state: ReadState) -> None:
    assert brought_to(state).over is (state in (ENDED, DROPPING, FINISHED))


def test_held_plaintext_is_released_in_order_and_once() -> None:
    reading = Reading()
    reading.hold(b"EHLO a\r\n")
    reading.hold(b"NOOP\r\n")
    reading.resume()
    reading.hold(b"QUIT\r\n")
    assert reading.release() == (b"EHLO a\r\nNOOP\r\nQUIT\r\n", None)
    assert reading.state is OPEN
    reading.pause()
    reading.hold(b"x")
    reading.resume()
    assert reading.release() == (b"x", None)


def test_an_end_behind_held_plaintext_waits_for_it() -> None:
    reading = Reading()
    reading.hold(b"QUIT\r\n")
    assert not reading.end(End.ORDERLY)
    reading.resume()
    assert reading.release() == (b"QUIT\r\n", End.ORDERLY)
    assert not reading.over
    assert reading.end(End.ORDERLY)
    assert reading.over


def test_a_leg_that_is_paused_again_before_the_release_keeps_what_it_holds() -> None:
    reading = brought_to(RELEASING)
    reading.pause()
    assert reading.state is HOLDING
    reading.resume()
    assert reading.release() == (b"x", None)


@pytest.mark.parametrize("over", ["end", "drop", "finish"])
def test_plaintext_that_comes_after_the_input_is_over_is_dropped(over: str) -> None:
    reading = brought_to(OPEN)
    CALLS[over](reading)
    state = reading.state
    reading.hold(b"MAIL FROM:<evil@x>\r\n")
    assert reading.state is state
    assert reading._held == b""


@pytest.mark.parametrize("call", ["drop", "finish"])
def test_a_closing_leg_forgets_what_it_holds(call: str) -> None:
    reading = brought_to(HOLDING)
    reading.early = b"\x16\x03\x01"
    CALLS[call](reading)
    assert (reading.early, reading._held) == (b"", b"")
