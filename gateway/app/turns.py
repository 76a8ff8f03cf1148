"""Work on thousands of sessions, a part of it in each turn of the reactor: no session waits for all of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


def in_turns(reactor: Any, step: Callable[[], bool]) -> Deferred[None]:
    """Calls `step` now, and once in each turn while it gives True.  Fires when it gives False; fails as it does."""
    done: Deferred[None] = Deferred()

    def go_on() -> None:
        try:
            more = step()
        except Exception:
            done.errback()
            return
        if more:
            reactor.callLater(0, go_on)
        else:
            done.callback(None)

    go_on()
    return done


def with_each(reactor: Any, things: Iterable[T], number: int, act: Callable[[T], object]) -> Deferred[None]:
    """Calls `act` with each of these in their order, so many in a turn."""
    left = deque(things)

    def step() -> bool:
        for _ in range(min(number, len(left))):
            act(left.popleft())
        return bool(left)

    return in_turns(reactor, step)
