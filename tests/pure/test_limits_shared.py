"""Limits that hold over several processes, and what is left of a process that dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from gateway.config import values
from gateway.guard import shared
from gateway.guard.limits import Client, Limits, OwnLedger, ReachedLimit, client_key
from gateway.guard.shared import COLUMNS, WAYS, SharedLedger
from tests.hanging import nobody_hangs

ALICE, BOB = Client("192.0.2.1"), Client("192.0.2.2")
WORKERS = 4
TRIES = 200
# Other limits than the one that a test is about are far away.
Options = partial(values.Limits, sessions_per_client=10000, connects_per_minute=10000, auth_failures_per_minute=10000)


@pytest.fixture
def ledger() -> Iterator[SharedLedger]:
    made = SharedLedger.create(1000, nobody_hangs, 256)
    yield made
    os.close(made.descriptor)


def in_processes(
    work: Callable[[int], int], count: int = WORKERS, meanwhile: Callable[[int], object] = bool
) -> list[int]:
    """What `work` says, 0 to 255, in so many processes at once; minus the signal for one that was killed.

    `meanwhile` is called with the last one."""
    pids = []
    for number in range(count):
        pid = os.fork()
        if not pid:
            code = 255
            try:
                signal.alarm(20)
                code = work(number)
            finally:
                os._exit(code)
        pids.append(pid)
    meanwhile(pids[-1])
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


@pytest.mark.parametrize(("options", "refusal"), [
    (Options(sessions=97), ReachedLimit.SESSIONS),
    (Options(sessions_per_client=97), ReachedLimit.SESSIONS_PER_CLIENT),
    (Options(connects_per_minute=97), ReachedLimit.CONNECTS_PER_MINUTE),
])  # fmt: skip
def test_a_limit_is_exact_over_processes_that_count_at_once(
    ledger: SharedLedger, options: values.Limits, refusal: ReachedLimit
) -> None:
    def work(number: int) -> int:
        limits = Limits(options, lambda: 1000.0, ledger.of(ledger.claim()))
        answers = [limits.admit(ALICE) for _ in range(TRIES)]
        assert set(answers) <= {None, refusal}
        return answers.count(None)

    admitted = in_processes(work)
    assert sum(admitted) == 97
    assert ledger.total == 97
    assert ledger.present(ALICE) == 97


def test_no_failed_login_is_lost_between_processes(ledger: SharedLedger) -> None:
    def work(number: int) -> int:
        limits = Limits(Options(), lambda: 1000.0, ledger.of(ledger.claim()))
        for _ in range(TRIES):
            limits.auth_failed(ALICE)
        return 0

    assert in_processes(work) == [0] * WORKERS
    limits = Limits(Options(auth_failures_per_minute=WORKERS * TRIES), lambda: 1000.0, ledger)
    assert not limits.may_authenticate(ALICE)
    limits.values = Options(auth_failures_per_minute=WORKERS * TRIES + 1)
    assert limits.may_authenticate(ALICE)


def test_sessions_that_move_and_end_in_processes_leave_nothing(ledger: SharedLedger) -> None:
    def work(number: int) -> int:
        limits = Limits(Options(), time.monotonic, ledger.of(ledger.claim()))
        for _ in range(TRIES):
            limits.admit(Client(""))
            limits.moved(Client(""), ALICE)
            limits.moved(ALICE, BOB)
            limits.left(BOB)
        return 0

    assert in_processes(work) == [0] * WORKERS
    assert (ledger.total, ledger.present(ALICE), ledger.present(BOB)) == (0, 0, 0)


def test_a_process_that_dies_holds_no_lock_and_its_sessions_end(ledger: SharedLedger) -> None:
    dying, living = ledger.claim(), ledger.claim()
    others = Limits(Options(sessions_per_client=3), time.monotonic, ledger.of(living))
    assert others.admit(ALICE) is others.admit(BOB) is None

    def work(number: int) -> int:
        own = ledger.of(dying)
        limits = Limits(Options(), time.monotonic, own)
        limits.admit(ALICE)
        limits.admit(ALICE)
        with own:
            own.enter(BOB, 1)  # and is not counted in the total
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    assert in_processes(work, 1) == [-signal.SIGKILL]
    assert others.admit(ALICE) is ReachedLimit.SESSIONS_PER_CLIENT
    assert ledger.release(dying) == 2
    assert (ledger.total, ledger.present(ALICE), ledger.present(BOB)) == (2, 1, 1)
    assert others.admit(ALICE) is others.admit(ALICE) is None
    others.left(BOB)
    assert ledger.present(BOB) == 0


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "HUNG", 0.05)


@pytest.mark.usefixtures("impatient")
def test_a_process_that_hangs_with_the_lock_is_killed_and_told() -> None:
    killed: list[int] = []
    ledger = SharedLedger.create(1000, killed.append, 256)

    def work(number: int) -> int:
        with ledger:
            os.kill(os.getpid(), signal.SIGSTOP)
        return 0

    def wait_for_it(pid: int) -> None:
        assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
        with ledger.of(1):
            assert killed == [pid]

    assert in_processes(work, 1, wait_for_it) == [-signal.SIGKILL]
    os.close(ledger.descriptor)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("second", ["another", "nobody"])
def test_nobody_is_killed_who_does_not_hold_the_lock_any_more(
    ledger: SharedLedger, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    """It gave it free just after the last look, and may have ended."""
    tries = iter([False] * 51 + [True])
    monkeypatch.setattr(ledger, "_lock", lambda: next(tries))
    holders = iter([os.getpid(), os.getppid()] if second == "another" else [0])
    monkeypatch.setattr(ledger, "_holder", lambda: next(holders))
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *_: pytest.fail("it was killed"))
    with ledger:
        assert list(holders) == []


def test_the_holder_of_the_lock_is_known(ledger: SharedLedger) -> None:
    def work(number: int) -> int:
        held = ledger._holder()
        return 1 if held == os.getppid() else 2 if held else 0

    with ledger:
        assert in_processes(work, 1) == [1]
    assert in_processes(work, 1) == [0]


def test_the_ledger_is_found_again_by_its_descriptor(ledger: SharedLedger) -> None:
    assert Limits(Options(), time.monotonic, ledger.of(ledger.claim())).admit(ALICE) is None
    again = SharedLedger(ledger.descriptor, nobody_hangs)
    assert again.present(ALICE) == again.total == 1


def test_the_memory_of_another_version_is_refused(ledger: SharedLedger) -> None:
    os.pwrite(ledger.descriptor, b"\0", 0)
    with pytest.raises(ValueError, match="another layout"):
        SharedLedger(ledger.descriptor, nobody_hangs)


def test_a_ledger_has_room_for_its_sessions_and_those_it_remembers() -> None:
    for sessions, remembered, capacity in ((1, 1, WAYS), (1000, 1, 4096), (1024, 1, 4096), (1, 65536, 65536)):
        made = SharedLedger.create(sessions, nobody_hangs, remembered)
        assert made.capacity == capacity
        assert made.sessions >= sessions
        os.close(made.descriptor)


def test_a_client_for_whom_there_is_no_room_is_refused() -> None:
    made = SharedLedger.create(1, nobody_hangs, 1)
    made = made.of(made.claim())
    limits = Limits(Options(), time.monotonic, made)
    clients = [client_key(f"192.0.2.{number}") for number in range(WAYS + 1)]
    assert [limits.admit(client) for client in clients] == [None] * WAYS + [ReachedLimit.SESSIONS]
    assert limits.open == WAYS
    assert limits.admit(Client("")) is None
    assert limits.moved(Client(""), clients[-1]) is ReachedLimit.SESSIONS
    limits.left(clients[0])
    assert limits.moved(Client(""), clients[-1]) is None, "the one without a session was forgotten"
    os.close(made.descriptor)


def test_who_did_nothing_for_the_longest_time_is_forgotten_first() -> None:
    made = SharedLedger.create(1, nobody_hangs, 1)
    made = made.of(made.claim())
    now = [1000.0]
    limits = Limits(Options(auth_failures_per_minute=1), lambda: now[0], made)
    clients = [client_key(f"192.0.2.{number}") for number in range(WAYS + 1)]
    for client in clients:
        limits.auth_failed(client)
        now[0] += 1
    now[0] = 1009.0
    known = [client for client in clients if not limits.may_authenticate(client)]
    assert len(known) == WAYS
    assert clients[-1] in known
    assert set(clients[:10]) - set(known), "one of the ten of the first slice"
    os.close(made.descriptor)


def test_clients_of_another_gateway_lie_elsewhere(ledger: SharedLedger) -> None:
    """Nobody can choose addresses that meet in one bucket."""
    other = SharedLedger.create(1000, nobody_hangs, 256)
    assert ledger.tag(ALICE) != other.tag(ALICE)
    assert ledger.tag(ALICE) == ledger.of(5).tag(ALICE)
    os.close(other.descriptor)


def test_both_ledgers_say_the_same_of_one_client() -> None:
    shared = SharedLedger.create(16, nobody_hangs, 64)
    shared = shared.of(shared.claim())
    now = [0.0]
    gates = [Limits(Options(connects_per_minute=5), lambda: now[0], one) for one in (OwnLedger(), shared)]
    for step in range(200):
        now[0] += step % 13
        first, second = (gate.admit(ALICE) for gate in gates)
        assert first is second
        if first is None:
            for gate in gates:
                gate.left(ALICE)
    os.close(shared.descriptor)


def test_a_column_is_of_one_process_until_that_is_gone(ledger: SharedLedger) -> None:
    assert [ledger.claim() for _ in range(3)] == [0, 1, 2]
    ledger.release(1)
    assert [ledger.claim() for _ in range(2)] == [1, 3]
    for _ in range(COLUMNS - 4):
        ledger.claim()
    with pytest.raises(StopIteration):
        ledger.claim()


def test_what_a_gateway_counted_counts_no_more_when_it_is_gone(ledger: SharedLedger) -> None:
    second = SharedLedger(ledger.descriptor, nobody_hangs, generation=2)
    old = Limits(Options(), time.monotonic, ledger.of(ledger.claim()))
    new = Limits(Options(sessions_per_client=3), time.monotonic, second.of(second.claim()))
    assert old.admit(ALICE) is old.admit(ALICE) is new.admit(ALICE) is None
    assert new.admit(ALICE) is ReachedLimit.SESSIONS_PER_CLIENT
    assert (second.total_of(1), second.total_of(2), second.total_of(3)) == (2, 1, 0)
    second.end(1)
    assert (ledger.total, ledger.present(ALICE)) == (1, 1)
    assert new.admit(ALICE) is new.admit(ALICE) is None
    # A worker may outlive its gateway.  What it had counted is taken out already.
    old.left(ALICE)
    assert old.admit(ALICE) is None
    assert (ledger.total, ledger.present(ALICE)) == (3, 3)
    assert second.claim() == 0


def test_what_one_process_counted_goes_on_in_a_shared_ledger() -> None:
    now = [1000.0]
    own = OwnLedger()
    limits = Limits(Options(connects_per_minute=4, auth_failures_per_minute=2), lambda: now[0], own)
    assert limits.ledger is own
    for client in (ALICE, ALICE, BOB, Client("")):
        assert limits.admit(client) is None
        now[0] += 10
    limits.auth_failed(BOB)
    limits.auth_failed(BOB)
    shared = SharedLedger.create(16, nobody_hangs, 64)
    shared = shared.of(shared.claim())
    shared.take(own)
    limits.ledger = shared
    assert (limits.open, shared.mine, shared.present(ALICE), shared.present(BOB)) == (4, 4, 2, 1)
    assert not limits.may_authenticate(BOB)
    assert limits.may_authenticate(ALICE)
    assert limits.admit(ALICE) is limits.admit(ALICE) is None
    assert limits.admit(ALICE) is ReachedLimit.CONNECTS_PER_MINUTE
    now[0] += 30  # 70 s after the first two
    assert limits.admit(ALICE) is None
    for client in (ALICE, ALICE, ALICE, ALICE, ALICE, BOB, Client("")):
        limits.left(client)
    assert (limits.open, shared.present(ALICE)) == (0, 0)
    os.close(shared.descriptor)


@pytest.mark.parametrize(("generation", "after"), [(1, 2), (254, 255), (255, 1)])
def test_generations_fit_into_an_octet(generation: int, after: int) -> None:
    assert shared.following(generation) == after
