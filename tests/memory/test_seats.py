"""Workers that hang while the template, which has to kill them, hangs or is gone."""

from __future__ import annotations

import os
from typing import Any

import pytest

from gateway.app.workers.messages import Message
from gateway.app.workers.nursery import Nursery
from gateway.app.workers.seats import Seats
from gateway.app.workers.vigil import LOOK, SILENCE
from gateway.guard.shared import SharedLedger
from tests.hanging import nobody_hangs
from tests.memory.stepping import SteppedReactor


class Owner:
    """A master whose template forks, and tells nothing."""

    def __init__(self) -> None:
        self.killed: list[int] = []
        self.sockets: list[int] = []

    def fork(self, number: int, column: int, descriptor: int) -> bool:
        self.sockets.append(os.dup(descriptor))
        return True

    def kill(self, pid: int) -> None:
        self.killed.append(pid)

    def told(self, worker: int, message: Message) -> None: ...
    def lost(self, worker: int) -> None: ...
    def empty(self) -> None: ...

    def known(self) -> list[Message]:
        return []

    def emit(self, name: str, **fields: Any) -> None: ...


def test_a_worker_that_hangs_is_killed_again_when_the_template_is_gone() -> None:
    reactor, owner = SteppedReactor(), Owner()
    seats = Seats(reactor, 1, SharedLedger.create(10, nobody_hangs), owner, owner)  # type: ignore[arg-type]
    seats.fill()
    seats.forked(0, 4711)
    reactor.clock.pump([LOOK] * (int(SILENCE / LOOK) + 5))
    assert owner.killed == [4711]
    seats.childless()
    assert owner.killed == [4711, 4711]
    for one in owner.sockets:
        os.close(one)
    reactor.step_until(lambda: not reactor.readers)


def test_a_worker_that_was_never_started_is_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """For kill(2), 0 is the whole group of the processes that this one is in."""
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(pid))
    owner = Owner()
    nursery = Nursery(owner, lambda message: None, lambda words: None)  # type: ignore[arg-type]
    nursery.kill(0)
    assert killed == []
    nursery.kill(4711)
    assert killed == [4711]
