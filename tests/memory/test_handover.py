"""An upgrade whose new program never serves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from gateway.app import handover
from gateway.app.handover import PATIENCE, Bequest, Successor
from gateway.guard.shared import SharedLedger
from tests.memory.stepping import SteppedReactor

HANGS = "import signal; signal.pause()"


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """New programs, which take what they are given and say nothing."""
    started: list[subprocess.Popen[bytes]] = []

    def start(conversation: int, words: int) -> tuple[int, int]:
        process = subprocess.Popen([sys.executable, "-S", "-c", HANGS], pass_fds=(conversation,), stderr=words)
        started.append(process)
        return process.pid, os.pidfd_open(process.pid)

    monkeypatch.setattr(handover, "_start", start)
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_a_new_program_that_does_not_serve_in_time_is_killed_and_the_old_one_goes_on(
    hanging: list[subprocess.Popen[bytes]],
) -> None:
    reactor = SteppedReactor()
    ledger = SharedLedger.create(10)
    before = set(os.listdir("/proc/self/fd"))
    told: list[tuple[object, ...]] = []

    def note(what: str) -> Callable[..., None]:
        return lambda *words: told.append((what, *words))

    Successor(reactor, Bequest((), ledger, (), None), *map(note, ("served", "failed", "broke", "stop", "asked")))
    reactor.clock.advance(PATIENCE - 0.1)
    (process,) = hanging
    assert process.poll() is None
    reactor.clock.advance(0.1)
    reactor.step_until(lambda: told)
    assert told == [("failed", "the new program did not serve within 60 s")]
    assert process.wait() == -signal.SIGKILL
    assert set(os.listdir("/proc/self/fd")) == before
    assert reactor.readers == {}
    assert reactor.clock.getDelayedCalls() == []
