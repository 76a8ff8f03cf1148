"""Which addresses come last, for how long, and when nobody is asked at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.catalogue import blame
from gateway.telemetry.kinds import Blame
from gateway.wire.health import LONGEST, REST, SHORTEST, SUSPECTS, Health

ONE, OTHER = "10.0.0.5:25", "10.0.0.6:25"


class Watched:
    """A Health with a clock that stands still."""

    def __init__(self, jitter: float = 1.0) -> None:
        self.now = 1000.0
        self.health = Health(lambda: self.now, lambda: jitter)

    def outage(self, key: str = ONE) -> float:
        """Fail now; the seconds that it then comes last, and the clock behind them."""
        began = self.now
        self.health.failed(key)
        assert self.health.is_down(key)
        while self.health.is_down(key):
            self.now += 0.25
        return self.now - began

    def suspect(self, number: int) -> None:
        """It fails for a client of this number."""
        self.health.failed(ONE, Blame.CLIENT, f"192.0.2.{number}")


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_whoever_is_not_known_is_in_health(watched: Watched) -> None:
    assert not watched.health.is_down(ONE)
    assert not watched.health.rests([ONE])


def test_it_grows_with_every_failure_up_to_a_bound(watched: Watched) -> None:
    assert [watched.outage() for _ in range(8)] == [2, 4, 8, 16, 32, LONGEST, LONGEST, LONGEST]
    assert watched.outage(OTHER) == SHORTEST


def test_an_outage_of_a_day_does_not_end_in_a_number_too_large(watched: Watched) -> None:
    assert {watched.outage() for _ in range(2000)} <= {2, 4, 8, 16, 32, LONGEST}


def test_a_greeting_makes_up_for_everything(watched: Watched) -> None:
    watched.outage()
    watched.outage()
    watched.health.failed(ONE)
    watched.health.greeted(ONE)
    assert not watched.health.is_down(ONE)
    assert not watched.health.rests([ONE])
    assert watched.outage() == SHORTEST
    watched.health.greeted(OTHER)


def test_one_outage_is_one_failure_however_many_run_into_it(watched: Watched) -> None:
    for _ in range(100):
        watched.health.failed(ONE)
        watched.now += SHORTEST / 128
    watched.now += SHORTEST
    assert not watched.health.is_down(ONE)
    assert watched.outage() == 2 * SHORTEST


@pytest.mark.parametrize("jitter", [0.75, 1.25])
def test_jitter_keeps_gateways_out_of_step(jitter: float) -> None:
    assert Watched(jitter).outage() == pytest.approx(SHORTEST * jitter, abs=0.25)


def test_by_default_it_is_a_quarter_either_way() -> None:
    for _ in range(50):
        now = [0.0]
        health = Health(lambda now=now: now[0])  # type: ignore[misc]
        health.failed(ONE)
        now[0] = 0.75 * SHORTEST - 0.01
        assert health.is_down(ONE)
        now[0] = 1.25 * SHORTEST + 0.01
        assert not health.is_down(ONE)


# --- H10: a client that the backend has banned ----------------------------------------------------


def test_H10_connections_closed_before_the_greeting_may_be_one_clients(watched: Watched) -> None:
    for number in range(SUSPECTS - 1):
        watched.suspect(number)
    assert not watched.health.is_down(ONE)
    watched.suspect(SUSPECTS)
    assert watched.health.is_down(ONE)


@pytest.mark.parametrize("count", [1, SUSPECTS - 1])
def test_T03_however_often_too_few_clients_fail_the_address_is_in_health(watched: Watched, count: int) -> None:
    for number in range(100):
        watched.suspect(number % count)
    assert not watched.health.is_down(ONE)


def test_H10_somebody_elses_greeting_in_between_acquits(watched: Watched) -> None:
    for number in range(10 * SUSPECTS):
        watched.suspect(number)
        watched.health.greeted(ONE)
        watched.now += 60.0
    assert not watched.health.is_down(ONE)


def test_H10_however_often_it_is_only_the_order_that_suffers(watched: Watched) -> None:
    """The only address of a backend is tried for everybody else, whoever was sent away a moment ago."""
    for number in range(100):
        watched.suspect(number)
        assert not watched.health.rests([ONE])
        watched.now += 0.01


def test_suspicion_and_failure_add_up(watched: Watched) -> None:
    for number in range(SUSPECTS):
        watched.suspect(number)
    watched.now += SHORTEST
    assert watched.outage() == 2 * SHORTEST


# --- the rest -------------------------------------------------------------------------------------


def test_a_crowd_does_not_hammer_what_has_just_failed(watched: Watched) -> None:
    watched.health.failed(ONE)
    assert watched.health.rests([ONE])
    watched.now += REST - 0.01
    assert watched.health.rests([ONE])
    watched.now += 0.01
    assert not watched.health.rests([ONE])
    assert watched.health.is_down(ONE)  # it still comes last


def test_while_any_may_answer_nobody_rests(watched: Watched) -> None:
    watched.health.failed(ONE)
    assert not watched.health.rests([ONE, OTHER])
    watched.now += REST / 2
    watched.health.failed(OTHER)
    assert watched.health.rests([ONE, OTHER])
    watched.now += REST / 2
    assert not watched.health.rests([ONE, OTHER])


def test_every_failure_begins_a_rest(watched: Watched) -> None:
    watched.health.failed(ONE)
    watched.now += 1.5 * REST
    watched.health.failed(ONE)
    assert watched.health.rests([ONE])


@given(st.lists(st.tuples(st.sampled_from("fswg."), st.floats(0, 30)), max_size=60))
def test_whatever_happens_it_ends(events: list[tuple[str, float]]) -> None:
    """Nothing comes last for longer than the longest time, and nothing rests for longer than a rest."""
    watched = Watched(1.25)
    for event, seconds in events:
        match event:
            case "f":
                watched.health.failed(ONE)
            case "s":
                watched.suspect(int(seconds))
            case "w":
                watched.health.failed(ONE, Blame.SLOW)
            case "g":
                watched.health.greeted(ONE)
        watched.now += seconds
    watched.now += REST
    assert not watched.health.rests([ONE])
    watched.now += LONGEST * 1.25
    assert not watched.health.is_down(ONE)


# --- T03: whom a failure speaks against -----------------------------------------------------------


def test_T03_an_address_that_keeps_a_client_waiting_comes_last_and_does_not_rest(watched: Watched) -> None:
    watched.health.failed(ONE, Blame.SLOW, "192.0.2.9")
    assert watched.health.is_down(ONE)
    assert not watched.health.rests([ONE])


@pytest.mark.parametrize(
    ("failed", "told", "whom"),
    [
        ("backend-connect-failed", False, Blame.CLIENT),
        ("backend-connect-failed", True, Blame.CLIENT),
        ("backend-bad-greeting", False, Blame.ADDRESS),
        ("backend-bad-greeting", True, Blame.CLIENT),
        ("backend-preauth", False, Blame.ADDRESS),
        ("backend-preauth", True, Blame.CLIENT),
        ("backend-greeting-timeout", False, Blame.ADDRESS),
        ("backend-greeting-timeout", True, Blame.SLOW),
        ("backend-timeout", True, Blame.SLOW),
        ("backend-tls-failed", True, Blame.ADDRESS),
        ("backend-identity-refused", True, Blame.ADDRESS),
        ("backend-starttls-injection", True, Blame.ADDRESS),
    ],
)
def test_T03_only_what_one_client_can_cause_is_blamed_on_it(failed: str, told: bool, whom: Blame) -> None:
    assert blame(failed, told) is whom


# --- several processes -----------------------------------------------------------------------------


def sharing(count: int = 2) -> list[Watched]:
    """Each learns at once what the others find out."""
    all_of_them = [Watched() for _ in range(count)]

    def spread(one: Watched) -> None:
        def changed(key: str) -> None:
            for other in all_of_them:
                if other is not one:
                    other.health.learn(key, one.health.record(key))

        one.health.changed = changed

    for one in all_of_them:
        spread(one)
    return all_of_them


def test_what_one_process_finds_out_all_know() -> None:
    one, other = sharing()
    one.health.failed(ONE)
    assert other.health.is_down(ONE)
    assert other.health.rests([ONE])
    assert other.health.addresses() == (ONE,)
    assert other.health.record(ONE) == one.health.record(ONE)
    other.health.greeted(ONE)
    assert not one.health.is_down(ONE)
    assert one.health.record(ONE) is None


def test_clients_of_several_processes_speak_against_an_address_together() -> None:
    one, other, third = sharing(3)
    one.suspect(1)
    other.suspect(2)
    assert not third.health.is_down(ONE)
    other.suspect(2)
    assert not third.health.is_down(ONE)
    third.suspect(3)
    assert one.health.is_down(ONE)


def test_what_is_known_already_is_not_forgotten_for_what_is_older() -> None:
    watched, late = Watched(), Watched()
    late.health.failed(ONE)
    old = late.health.record(ONE)
    watched.now += 1
    watched.health.failed(ONE)
    known = watched.health.record(ONE)
    watched.health.learn(ONE, old)
    assert watched.health.record(ONE) == known


def test_an_address_that_serves_changes_nothing(watched: Watched) -> None:
    told: list[str] = []
    watched.health.changed = told.append
    watched.health.greeted(ONE)
    assert told == []
    watched.health.failed(ONE)
    watched.health.greeted(ONE)
    assert told == [ONE, ONE]
