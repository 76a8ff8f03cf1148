"""What a client may have of the gateway, against a model that remembers everything."""

from __future__ import annotations

import os
import resource
import weakref
from collections import Counter, defaultdict

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.config.values import Limits as Options
from gateway.guard.limits import (
    DESCRIPTORS,
    REMEMBERED,
    RESERVE,
    SLICES,
    Admission,
    Client,
    Limits,
    OwnLedger,
    ReachedLimit,
    affordable,
    client_key,
    matters,
)
from gateway.guard.shared import SharedLedger
from tests.hanging import nobody_hangs

NOBODY = Client("")
ALICE, BOB, CAROL = Client("192.0.2.1"), Client("192.0.2.2"), Client("2001:db8::/64")


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Gate(Limits):
    """Limits with a clock in hand."""

    shared = False

    def __init__(self, options: Options, remembered: int = REMEMBERED) -> None:
        self.clock = Clock()
        self.book: OwnLedger | SharedLedger = OwnLedger(remembered)
        if self.shared:
            self.book = SharedLedger.create(16, nobody_hangs, 64)
            self.book.claim()
            weakref.finalize(self, os.close, self.book.descriptor)
        super().__init__(options, self.clock, self.book)

    @property
    def known(self) -> int:
        if isinstance(self.book, SharedLedger):
            recent = self._slice() - SLICES
            return sum(latest > recent for latest in (*self.book.connects._latest, *self.book.failures._latest))
        return len(self.book.connects._clients) + len(self.book.failures._clients)

    @property
    def present(self) -> int:
        if isinstance(self.book, SharedLedger):
            return sum(map(bool, self.book._present))
        return self.book.clients


@pytest.fixture(params=[False, True], ids=["own", "shared"])
def _either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once with the ledger of one process, and once with the one that several share."""
    monkeypatch.setattr(Gate, "shared", request.param)


either = pytest.mark.usefixtures("_either")


# --- who is who ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("address", "key"), [
    ("", ""),
    ("192.0.2.1", "192.0.2.1"),
    ("::ffff:192.0.2.1", "192.0.2.1"),
    ("::FFFF:c000:201", "192.0.2.1"),
    ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
    ("2001:DB8:0001:0002::", "2001:db8:1:2::/64"),
    ("2001:db8:1:3::", "2001:db8:1:3::/64"),
    ("fe80::1%eth0", "fe80::/64"),
    ("::1", "::/64"),
])  # fmt: skip
def test_a_client_is_an_ipv4_address_or_an_ipv6_network(address: str, key: str) -> None:
    assert client_key(address) == key


def test_what_is_no_address_is_no_client() -> None:
    with pytest.raises(ValueError, match="IPv4 or IPv6"):
        client_key("localhost")


@given(st.ip_addresses(v=6), st.integers(min_value=0, max_value=(1 << 64) - 1))
def test_nobody_gets_more_by_another_address_of_his_network(address: object, host: int) -> None:
    first = int(address) >> 64 << 64  # type: ignore[call-overload]
    if first:  # ::/64 holds the IPv4-mapped addresses, which are IPv4 clients
        one, other = (str(type(address)(number)) for number in (first, first | host))  # type: ignore[call-arg]
        assert client_key(one) == client_key(other)


@pytest.mark.parametrize(("wanted", "descriptors", "sessions"), [
    (10000, 1048576, 10000),
    (10000, 20064, 10000),
    (10000, 20062, 9999),
    (10000, 1024, 480),
    (10000, 200, 68),
    (10000, 40, 10),
    (10000, 2, 1),
    (10000, 0, 1),
    (3, 1024, 3),
    (10000, resource.RLIM_INFINITY, 10000),
])  # fmt: skip
def test_sessions_are_what_descriptors_are_enough_for(wanted: int, descriptors: int, sessions: int) -> None:
    assert affordable(wanted, descriptors) == sessions


@given(st.integers(min_value=1, max_value=10**6), st.integers(min_value=4, max_value=10**7))
def test_the_descriptors_are_enough(wanted: int, descriptors: int) -> None:
    sessions = affordable(wanted, descriptors)
    assert 1 <= sessions <= wanted
    with_channels = affordable(wanted, descriptors, 2)
    assert with_channels == 1 or with_channels * 3 * DESCRIPTORS + min(RESERVE, descriptors // 2) <= descriptors
    assert sessions * DESCRIPTORS + min(RESERVE, descriptors // 2) <= descriptors


@pytest.mark.parametrize(("wanted", "value", "told"), [
    (10000, 10000, False),
    (10000, 9990, False),
    (10000, 9900, False),
    (10000, 9899, True),
    (10000, 68, True),
    (100, 99, False),
    (100, 98, True),
    (68, 67, True),
    (1, 1, False),
])  # fmt: skip
def test_T23_a_limit_that_is_hardly_lowered_is_not_told(wanted: int, value: int, told: bool) -> None:
    assert matters(wanted, value) is told


# --- one limit at a time -------------------------------------------------------------------------


@either
def test_the_gateway_is_full_and_has_room_again() -> None:
    gate = Gate(Options(sessions=3))
    assert [gate.admit(client) for client in (ALICE, BOB, NOBODY)] == [None, None, None]
    assert gate.open == 3
    assert gate.admit(CAROL) is ReachedLimit.SESSIONS
    assert gate.admit(NOBODY) is ReachedLimit.SESSIONS
    assert gate.open == 3
    gate.left(BOB)
    assert gate.admit(CAROL) is None
    assert gate.open == 3


@either
def test_a_client_has_so_many_sessions_and_others_are_served() -> None:
    gate = Gate(Options(sessions_per_client=2))
    assert [gate.admit(ALICE) for _ in range(3)] == [None, None, ReachedLimit.SESSIONS_PER_CLIENT]
    assert gate.admit(BOB) is None
    gate.left(ALICE)
    assert [gate.admit(ALICE) for _ in range(2)] == [None, ReachedLimit.SESSIONS_PER_CLIENT]
    assert gate.present == 2


@either
def test_a_client_connects_so_often_in_a_minute() -> None:
    gate = Gate(Options(connects_per_minute=2))
    for _ in range(2):
        assert gate.admit(ALICE) is None
        gate.left(ALICE)
    assert gate.admit(ALICE) is ReachedLimit.CONNECTS_PER_MINUTE
    assert gate.admit(BOB) is None
    gate.clock.now += 59.9
    assert gate.admit(ALICE) is ReachedLimit.CONNECTS_PER_MINUTE
    gate.clock.now += 10.1
    assert gate.admit(ALICE) is None


@either
def test_knocking_does_not_prolong_the_wait() -> None:
    gate = Gate(Options(connects_per_minute=1))
    assert gate.admit(ALICE) is None
    for _ in range(69):
        gate.clock.now += 1
        assert gate.admit(ALICE) is ReachedLimit.CONNECTS_PER_MINUTE
    gate.clock.now += 1
    assert gate.admit(ALICE) is None


@either
def test_the_refusal_of_a_client_is_his_own_even_when_the_gateway_is_full() -> None:
    gate = Gate(Options(sessions=1, sessions_per_client=1))
    assert gate.admit(ALICE) is None
    assert gate.admit(ALICE) is ReachedLimit.SESSIONS_PER_CLIENT
    assert gate.admit(BOB) is ReachedLimit.SESSIONS


@either
def test_a_client_fails_so_often_in_a_minute_over_all_its_sessions() -> None:
    gate = Gate(Options(auth_failures_per_minute=3))
    for _ in range(3):
        assert gate.may_authenticate(ALICE)
        gate.auth_failed(ALICE)
    assert not gate.may_authenticate(ALICE)
    assert gate.may_authenticate(BOB)
    gate.clock.now += 59.9
    assert not gate.may_authenticate(ALICE)
    gate.clock.now += 10.1
    assert gate.may_authenticate(ALICE)


@either
def test_who_has_no_address_has_no_limit_but_the_gateway_s() -> None:
    gate = Gate(Options(sessions=3, sessions_per_client=1, connects_per_minute=1, auth_failures_per_minute=1))
    assert [gate.admit(NOBODY) for _ in range(4)] == [None, None, None, ReachedLimit.SESSIONS]
    gate.auth_failed(NOBODY)
    gate.auth_failed(NOBODY)
    assert gate.may_authenticate(NOBODY)
    gate.left(NOBODY)
    assert gate.admit(NOBODY) is None
    assert (gate.known, gate.present) == (0, 0)


@either
def test_a_load_balancer_is_nobody_and_those_behind_it_have_limits() -> None:
    gate = Gate(Options(sessions_per_client=2, connects_per_minute=3))
    for _ in range(2):
        assert gate.admit(NOBODY) is None
        assert gate.moved(NOBODY, ALICE) is None
    assert gate.admit(NOBODY) is None
    assert gate.moved(NOBODY, ALICE) is ReachedLimit.SESSIONS_PER_CLIENT
    assert gate.open == 3
    gate.left(NOBODY)  # who was refused stayed where it was
    gate.left(ALICE)
    assert gate.admit(NOBODY) is None
    assert gate.moved(NOBODY, ALICE) is None
    gate.left(ALICE)
    assert gate.admit(NOBODY) is None
    assert gate.moved(NOBODY, ALICE) is ReachedLimit.CONNECTS_PER_MINUTE
    assert gate.moved(NOBODY, BOB) is None
    assert (gate.open, gate.present) == (2, 2)


@either
def test_a_move_to_where_one_is_is_none() -> None:
    gate = Gate(Options(sessions_per_client=1, connects_per_minute=1))
    assert gate.admit(ALICE) is None
    assert gate.moved(ALICE, ALICE) is None
    assert gate.moved(ALICE, BOB) is None
    assert gate.moved(BOB, NOBODY) is None
    assert (gate.open, gate.present) == (1, 0)


@either
def test_a_stay_is_of_whom_it_turned_out_to_be() -> None:
    gate = Gate(Options(sessions_per_client=1, auth_failures_per_minute=1))
    assert gate.admit(NOBODY) is gate.admit(NOBODY) is None
    first, second = Admission(gate, NOBODY), Admission(gate, NOBODY)
    first.rejected()
    assert first.may_log_in()  # nobody is nobody
    assert first.moved("::ffff:192.0.2.1") == ""
    assert second.moved("192.0.2.1") == "sessions-per-client"
    assert second.moved("192.0.2.2") == ""
    first.rejected()
    assert not first.may_log_in()
    assert second.may_log_in()
    first.left()
    assert gate.admit(ALICE) is None
    second.left()
    assert gate.open == 1


@either
def test_a_process_has_a_limit_of_its_own_when_there_are_several() -> None:
    gate = Gate(Options(sessions=3))
    gate.own = 1
    assert [gate.admit(client) for client in (ALICE, BOB)] == [None, ReachedLimit.SESSIONS]
    gate.left(ALICE)
    assert gate.admit(BOB) is None


@either
def test_a_change_of_the_limits_is_for_those_who_come() -> None:
    gate = Gate(Options(sessions=2))
    assert gate.admit(ALICE) is gate.admit(BOB) is None
    gate.values = Options(sessions=1)
    assert gate.open == 2
    gate.left(ALICE)
    assert gate.admit(ALICE) is ReachedLimit.SESSIONS


@either
def test_who_was_never_there_cannot_leave() -> None:
    with pytest.raises(AssertionError):
        Gate(Options()).left(ALICE)


# --- memory --------------------------------------------------------------------------------------


def strangers(count: int, first: int = 0) -> list[Client]:
    return [client_key(f"3fff:1:{number >> 16:x}:{number & 0xFFFF:x}::1") for number in range(first, first + count)]


def test_who_did_nothing_for_a_minute_is_forgotten() -> None:
    gate = Gate(Options())
    assert isinstance(gate.book, OwnLedger)
    for client in strangers(100):
        assert gate.admit(client) is None
        gate.left(client)
        gate.auth_failed(client)
    assert gate.known == 200
    gate.clock.now += 60
    gate.auth_failed(ALICE)
    gate.clock.now += 10
    gate.forget()
    assert gate.known == 1
    assert not gate.book.connects._clients
    gate.clock.now += 60
    gate.forget()
    assert gate.known == 0


@either
def test_who_did_something_since_is_not_forgotten() -> None:
    gate = Gate(Options(connects_per_minute=2, auth_failures_per_minute=2))
    for _ in range(2):
        gate.auth_failed(ALICE)
        assert gate.admit(ALICE) is None
        gate.clock.now += 40
    gate.forget()
    assert gate.known == 2
    assert gate.admit(ALICE) is None, "the first is 80 s ago"
    assert gate.admit(ALICE) is ReachedLimit.CONNECTS_PER_MINUTE
    gate.auth_failed(ALICE)
    assert not gate.may_authenticate(ALICE)


@either
def test_the_minutes_of_a_client_that_stays_are_kept_apart() -> None:
    gate = Gate(Options(connects_per_minute=2, auth_failures_per_minute=2))
    for _ in range(5):
        for _ in range(2):
            assert gate.admit(ALICE) is None
            gate.auth_failed(ALICE)
        assert gate.admit(ALICE) is ReachedLimit.CONNECTS_PER_MINUTE
        assert not gate.may_authenticate(ALICE)
        gate.clock.now += 1000


def test_who_comes_new_makes_the_old_forgotten_two_at_a_time() -> None:
    gate = Gate(Options())
    for client in strangers(10):
        assert gate.admit(client) is None
    gate.clock.now += 70
    for known, client in zip([9, 8, 7, 6, 5, 6, 7], strangers(7, first=100), strict=True):
        assert gate.admit(client) is None
        assert gate.known == known
    assert gate.present == 17, "who has a session counts however long it takes"


def test_so_many_clients_are_known_and_the_idlest_starts_anew() -> None:
    gate = Gate(Options(connects_per_minute=1, auth_failures_per_minute=1), remembered=3)
    for client in (ALICE, BOB, CAROL):
        gate.auth_failed(client)
        assert gate.admit(client) is None
        gate.left(client)
    gate.auth_failed(ALICE)
    (stranger,) = strangers(1)
    gate.auth_failed(stranger)
    assert [gate.may_authenticate(client) for client in (ALICE, BOB, CAROL, stranger)] == [False, True, False, False]
    for client in strangers(1000):
        assert gate.admit(client) is None
        gate.left(client)
        assert gate.known <= 6
    assert not gate.may_authenticate(ALICE), "who only connects makes nobody's guesses forgotten"


# --- everything at once --------------------------------------------------------------------------

CLIENTS = st.sampled_from([ALICE, BOB, NOBODY])
STEPS = st.lists(
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.5, 5.0, 9.99, 10.0, 31.0, 60.0, 70.0, 1000.0]))
    | st.tuples(st.sampled_from(["admit", "leave", "fail"]), CLIENTS)
    | st.tuples(st.just("move"), st.tuples(CLIENTS, CLIENTS))
    | st.tuples(st.just("forget"), st.none()),
    max_size=80,
)


class Model:
    """Remembers every moment; says what must be, and what may be either way."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.open: Counter[Client] = Counter()
        self.connects: defaultdict[Client, list[float]] = defaultdict(list)
        self.failures: defaultdict[Client, list[float]] = defaultdict(list)

    @staticmethod
    def reached(moments: list[float], limit: int, now: float) -> tuple[bool, bool]:
        """Whether a limit must, and whether it may be taken for reached."""
        surely = sum(now - moment < 60 for moment in moments) >= limit
        perhaps = sum(now - moment < 70 for moment in moments) >= limit
        return surely, perhaps

    def refusals(self, client: Client, now: float, *, arriving: bool) -> set[ReachedLimit | None]:
        """Any of these is right."""
        otherwise: ReachedLimit | None = None
        if arriving and self.open.total() >= self.options.sessions:
            otherwise = ReachedLimit.SESSIONS
        if not client:
            return {otherwise}
        if self.open[client] >= self.options.sessions_per_client:
            otherwise = ReachedLimit.SESSIONS_PER_CLIENT
        surely, perhaps = self.reached(self.connects[client], self.options.connects_per_minute, now)
        return ({ReachedLimit.CONNECTS_PER_MINUTE} if perhaps else set()) | (set() if surely else {otherwise})


@either
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    STEPS,
    st.builds(
        Options,
        sessions=st.sampled_from([100, 100, 3, 0]),
        sessions_per_client=st.sampled_from([100, 100, 2, 0]),
        connects_per_minute=st.sampled_from([100, 3, 2, 1, 0]),
        auth_failures_per_minute=st.integers(0, 3),
    ),
    st.floats(0, 10),
)
@example([("admit", ALICE), ("wait", 9.99), ("admit", ALICE)], Options(connects_per_minute=1), 0.0)
def test_limits_hold_and_nobody_is_refused_without_a_reason(
    steps: list[tuple[str, object]], options: Options, phase: float
) -> None:
    gate, model = Gate(options), Model(options)
    gate.clock.now += phase
    for step in steps:
        now = gate.clock.now
        match step:
            case "wait", float(seconds):
                gate.clock.now += seconds
            case "admit", str(name):
                client = Client(name)
                refusal = gate.admit(client)
                assert refusal in model.refusals(client, now, arriving=True)
                if refusal is None:
                    model.open[client] += 1
                    model.connects[client].append(now)
            case "leave", str(name) if model.open[Client(name)]:
                gate.left(Client(name))
                model.open[Client(name)] -= 1
            case "move", (str(old), str(new)) if model.open[Client(old)] and old != new:
                refusal = gate.moved(Client(old), Client(new))
                assert refusal in model.refusals(Client(new), now, arriving=False)
                if refusal is None:
                    model.open[Client(old)] -= 1
                    model.open[Client(new)] += 1
                    model.connects[Client(new)].append(now)
            case "fail", str(name):
                gate.auth_failed(Client(name))
                model.failures[Client(name)].append(now)
            case "forget", _:
                gate.forget()
        assert gate.open == model.open.total()
        assert gate.present == len([client for client, count in model.open.items() if client and count])
        for client in (NOBODY, ALICE, BOB):
            limit = options.auth_failures_per_minute
            surely, perhaps = model.reached(model.failures[client], limit, gate.clock.now)
            if client:
                assert gate.may_authenticate(client) in {not surely, not perhaps}
            else:
                assert gate.may_authenticate(client)
    gate.clock.now += 70
    gate.forget()
    assert gate.known == 0
