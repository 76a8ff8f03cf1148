"""Work that is done every so many seconds."""

from __future__ import annotations

from twisted.internet.task import Clock

from gateway.app.every import Every


def test_it_is_done_in_each_period_until_it_is_stopped() -> None:
    clock = Clock()
    done: list[float] = []
    every = Every(clock, 10.0, lambda: done.append(clock.seconds()))
    clock.pump([5.0] * 5)
    assert done == [10.0, 20.0]
    every.stop()
    every.stop()
    clock.pump([5.0] * 100)
    assert done == [10.0, 20.0]
    assert not clock.getDelayedCalls()
