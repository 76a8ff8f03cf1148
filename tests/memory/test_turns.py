"""Work on thousands of things, a part of it in each turn of the reactor."""

from __future__ import annotations

import pytest
from twisted.python.failure import Failure

from gateway.app.turns import in_turns, with_each
from tests.memory.stepping import Turns


@pytest.mark.parametrize(("things", "turns"), [(0, 1), (1, 1), (10, 1), (11, 2), (35, 4)])
def test_so_many_in_a_turn(things: int, turns: int) -> None:
    clock = Turns()
    seen: list[int] = []
    over: list[None] = []
    with_each(clock, range(things), 10, seen.append).addCallback(over.append)
    for turn in range(1, turns):
        assert (len(seen), over) == (10 * turn, [])
        clock.turn()
    assert (seen, over) == (list(range(things)), [None])
    assert clock.getDelayedCalls() == []


def test_a_bug_ends_it_and_is_told() -> None:
    clock = Turns()
    failures: list[Failure] = []
    in_turns(clock, lambda: bool(1 / 0)).addErrback(failures.append)
    assert [failure.type for failure in failures] == [ZeroDivisionError]
    assert clock.getDelayedCalls() == []
