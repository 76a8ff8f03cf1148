"""An upgrade whose new program never serves."""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from gateway.app import handover
from gateway.app.handover import PATIENCE, Bequest, Successor
from gateway.app.workers.vigil import LOOK
from gateway.guard.shared import SharedLedger
from tests.hanging import nobody_hangs
from tests.memory.stepping import SteppedReactor

HANGS = "import signal; signal.pause()"
SPEAKS = f"import os, sys; os.write(int(sys.argv[1]), b'{{\"ready\": 1}}\\n'); {HANGS}"


@pytest.fixture(params=[HANGS])
def started(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """New programs that never serve."""
    started: list[subprocess.Popen[bytes]] = []

    def start(conversation: int, words: int) -> tuple[int, int]:
        command = [sys.executable, "-S", "-c", request.param, str(conversation)]
        process = subprocess.Popen(command, pass_fds=(conversation,), stderr=words)
        started.append(process)
        handle = os.pidfd_open(process.pid)
        # As with 600 sessions: select(2) takes no such number.
        high = fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, 1024)
        os.close(handle)
        return process.pid, high

    monkeypatch.setattr(handover, "_start", start)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 2048), limits[1]))
    yield started
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for process in started:
        process.kill()
        process.wait()


def successor(reactor: SteppedReactor, ledger: SharedLedger) -> list[tuple[object, ...]]:
    """What is told of one."""
    told: list[tuple[object, ...]] = []

    def note(what: str) -> Callable[..., None]:
        return lambda *words: told.append((what, *words))

    bequest = Bequest((), ledger, (), None, (0.0, 0.0))
    Successor(reactor, bequest, *map(note, ("served", "failed", "broke", "stop", "asked")))
    return told


def test_a_new_program_that_does_not_serve_in_time_is_killed_and_the_old_one_goes_on(
    started: list[subprocess.Popen[bytes]],
) -> None:
    reactor = SteppedReactor()
    ledger = SharedLedger.create(10, nobody_hangs)
    before = set(os.listdir("/proc/self/fd"))
    told = successor(reactor, ledger)
    reactor.clock.pump([LOOK] * 59 + [0.9])
    (process,) = started
    assert process.poll() is None
    reactor.clock.advance(0.1)
    reactor.step_until(lambda: told)
    assert told == [("failed", "the new program did not serve within 60 s")]
    assert process.wait() == -signal.SIGKILL
    assert set(os.listdir("/proc/self/fd")) == before
    assert reactor.readers == {}
    assert reactor.clock.getDelayedCalls() == []


@pytest.mark.parametrize("started", [SPEAKS], indirect=True)
def test_an_old_program_that_was_held_up_reads_first_what_was_said_in_time(
    started: list[subprocess.Popen[bytes]],
) -> None:
    reactor = SteppedReactor()
    told = successor(reactor, SharedLedger.create(10, nobody_hangs))
    (descriptor,) = reactor.readers
    assert select.select([descriptor], [], [], 20)[0]
    reactor.clock.advance(2 * PATIENCE)
    reactor.step_until(lambda: told)
    assert told == [("served", "", None)]
    (process,) = started
    assert process.poll() is None
    process.kill()
    reactor.step_until(lambda: len(told) == 2)
    assert told[1] == ("broke", f"the new program, process {process.pid}, broke down")
