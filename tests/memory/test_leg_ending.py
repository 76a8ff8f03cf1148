"""The end of a leg: every state, and how long it waits for an other end that takes nothing, little, or all."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import cast

import pytest

from gateway.wire.leg import FLUSH_PATIENCE, LOW_WATER
from gateway.wire.leg.ending import Ending, EndState, unacknowledged
from tests.memory.stepping import tcp_pair

OPEN, CLOSING, FLUSHING = EndState.OPEN, EndState.CLOSING, EndState.FLUSHING
LINGERING, GONE = EndState.LINGERING, EndState.GONE

LINGER = 3.0


class Timer:
    def __init__(self) -> None:
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


def waiting(left: int) -> Ending:
    ending = Ending(LINGER)
    assert ending.state is OPEN
    ending.begin()
    assert ending.state is CLOSING
    ending.wait(left)
    return ending


def test_with_everything_taken_it_lingers_once() -> None:
    ending = waiting(0)
    assert ending.state is LINGERING
    assert ending.tick(0)


def test_it_lingers_after_the_last_octet_was_taken() -> None:
    ending = waiting(1000)
    assert ending.state is FLUSHING
    assert not ending.tick(0)
    assert ending.state is LINGERING
    assert ending.tick(0)


def test_somebody_who_takes_nothing_is_given_up_after_the_patience() -> None:
    ending = waiting(1000)
    ticks = 1
    while not ending.tick(1000):
        ticks += 1
    assert ticks * LINGER == FLUSH_PATIENCE


def test_somebody_who_takes_an_octet_now_and_then_is_not_given_up() -> None:
    ending = waiting(100)
    for left in range(99, 0, -1):
        assert not any(ending.tick(left) for _ in range(int(FLUSH_PATIENCE / LINGER)))
    assert not ending.tick(0)
    assert ending.tick(0)


def test_octets_that_turn_up_while_it_lingers_are_waited_for() -> None:
    ending = waiting(0)
    assert not ending.tick(5)
    assert ending.state is FLUSHING
    assert not ending.tick(0)
    assert ending.tick(0)


@pytest.mark.parametrize("left", [0, 1])
def test_a_leg_that_is_gone_has_no_timer(left: int) -> None:
    ending = waiting(left)
    ending.timer = timer = Timer()
    ending.finish()
    ending.finish()
    assert ending.state is GONE
    assert ending.timer is None
    assert timer.cancelled == 1


def test_a_timer_that_has_fired_is_not_cancelled() -> None:
    ending = waiting(0)
    ending.timer = timer = Timer()
    ending.tick(0)
    ending.finish()
    assert timer.cancelled == 0


def test_no_linger_at_all_would_be_a_busy_loop() -> None:
    assert Ending(0.0).linger == 0.1


def test_what_the_kernel_holds_counts_above_one_round_trip() -> None:
    near, far = tcp_pair()
    assert unacknowledged(near) == 0
    near.send(b"x" * 100)
    assert unacknowledged(near) == 0
    sent = 0
    while True:
        try:
            sent += near.send(b"x" * 10_000)
        except BlockingIOError:
            break
    assert LOW_WATER < unacknowledged(near) <= sent + 100
    far.close()
    near.close()


def test_a_kernel_that_cannot_say_what_it_holds_holds_nothing(tmp_path: Path) -> None:
    with (tmp_path / "no socket").open("wb") as file:
        assert unacknowledged(cast(socket.socket, file)) == 0
