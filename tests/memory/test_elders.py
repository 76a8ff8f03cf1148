"""Programs before this one: how long they may stay, and who is killed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.app import elders
from gateway.app.elders import GO, GRACE, Elders
from gateway.app.upgrade import Outcome, Upgrade
from gateway.app.workers.vigil import LOOK
from gateway.guard.shared import SharedLedger
from tests.hanging import nobody_hangs
from tests.memory.stepping import SteppedReactor

LEFT, DRAIN = 60.0, 30.0


class Scene:
    """Some old programs, and one process that stands for each of them."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.reactor = SteppedReactor()
        self.told: list[dict[str, Any]] = []
        self.elders = Elders(self.reactor, self)  # type: ignore[arg-type]
        self.ends: list[socket.socket] = []

    def emit(self, name: str, **fields: Any) -> None:
        self.told.append({"event": name, **fields})

    def add(self, generation: int) -> socket.socket:
        """The old program's end of the conversation."""
        ours, theirs = socket.socketpair()
        self.ends.append(theirs)
        self.elders.add(generation, ours, (LEFT, DRAIN))
        return theirs


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    with subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"]) as process:
        monkeypatch.setattr(elders, "credentials", lambda conversation: (process.pid, 0, 0))
        scene = Scene(process)
        yield scene
        scene.elders.hand_over()
        for end in scene.ends:
            end.close()
        process.kill()


def test_one_that_hangs_is_killed_soon_after_its_time(scene: Scene) -> None:
    scene.add(1)
    scene.reactor.clock.pump([LEFT, *[LOOK] * 9, 0.9])
    assert scene.process.poll() is None
    scene.reactor.clock.advance(0.1)
    assert scene.process.wait() == -signal.SIGKILL
    assert [one["state"] for one in scene.told] == ["killed"]
    assert scene.elders.rows() == []


def test_who_was_held_up_reads_first_what_came_meanwhile(scene: Scene) -> None:
    scene.add(1).close()
    scene.reactor.clock.advance(LEFT + 10 * GRACE)
    scene.reactor.step_until(lambda: not scene.elders.rows())
    assert scene.process.poll() is None
    assert scene.told == []


def test_one_that_hangs_has_no_more_than_a_second_time_after_that(scene: Scene) -> None:
    scene.add(1)
    scene.reactor.clock.advance(LEFT + 10 * GRACE)
    assert scene.process.poll() is None
    scene.reactor.clock.pump([LOOK] * int(GRACE / LOOK))
    assert scene.process.wait() == -signal.SIGKILL


def test_one_that_comes_after_the_second_signal_has_to_end_at_once(scene: Scene) -> None:
    scene.add(1)
    scene.elders.stop()
    scene.elders.hurry()
    end = scene.add(2)
    assert [json.loads(line) for line in end.recv(4096).splitlines()] == [{"stop": True}]
    assert [row["left"] for row in scene.elders.rows()] == [0.0, 0.0]


def test_one_whose_sessions_are_counted_elsewhere_changes_nothing_here(scene: Scene) -> None:
    """A version with another table of limits. Its number may be that of one that counts here."""
    scene.elders.ledger = SharedLedger.create(10, nobody_hangs)
    scene.add(1)
    scene.add(-1).close()
    assert [row["sessions"] for row in scene.elders.rows()] == [0, None]
    scene.reactor.step_until(lambda: len(scene.elders.rows()) == 1)
    assert [row["sessions"] for row in scene.elders.rows()] == [0]


class Stopping:
    """A service that nobody can take over any more."""

    is_serving = False


def test_an_upgrade_that_waits_and_is_refused_then_is_told(scene: Scene) -> None:
    """Who asked by a signal reads it in the log."""
    upgrade = Upgrade(scene.reactor, {}, scene, Stopping())  # type: ignore[arg-type]
    scene.elders = upgrade.elders
    scene.add(1)
    upgrade.elders.follow(1, (), lambda: None)
    answers: list[Outcome] = []
    upgrade.begin(lambda: None).addCallback(answers.append)
    assert not answers
    assert not scene.told
    scene.reactor.clock.advance(GO)
    why = "the gateway is about to start or to stop"
    assert answers == [Outcome(0, problem=why)]
    assert scene.told == [{"event": "upgrade", "state": "failed", "detail": why}]
