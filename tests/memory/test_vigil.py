"""Time that another process has: what counts as silence, and what does not."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from gateway.app.workers.vigil import LOOK, Vigil


class Watched:
    def __init__(self, seconds: float) -> None:
        self.clock = Clock()
        self.late: list[float] = []
        self.vigil = Vigil(self.clock, lambda: self.late.append(self.clock.seconds()))
        self.vigil.give(seconds)


@pytest.mark.parametrize("seconds", [0.5, 1.0, 10.0, 10.5])
def test_silence_is_told_once_when_the_time_is_over(seconds: float) -> None:
    watched = Watched(seconds)
    watched.clock.pump([0.5] * int(4 * seconds))
    assert watched.late == [seconds]
    assert watched.clock.getDelayedCalls() == []


def test_a_sign_of_life_gives_all_of_the_time_again() -> None:
    watched = Watched(10.0)
    for _ in range(5):
        watched.clock.pump([LOOK] * 9)
        watched.vigil.heard()
    watched.clock.pump([LOOK] * 9)
    assert watched.late == []
    watched.clock.advance(LOOK)
    assert watched.late == [55.0]


def test_time_for_which_this_process_was_held_up_does_not_count() -> None:
    watched = Watched(10.0)
    watched.clock.pump([LOOK] * 9)
    watched.clock.advance(1000.0)
    assert watched.late == []
    watched.clock.advance(LOOK)
    assert watched.late == [1010.0]


def test_more_time_may_be_given_and_it_may_be_stopped() -> None:
    watched = Watched(2.0)
    watched.clock.advance(LOOK)
    watched.vigil.give(1.5)
    watched.clock.advance(LOOK)
    assert watched.late == []
    watched.clock.advance(0.5)
    assert watched.late == [2.5]
    watched.vigil.give(1.0)
    watched.vigil.stop()
    watched.clock.pump([LOOK] * 3)
    assert watched.late == [2.5]
