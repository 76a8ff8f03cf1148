"""What a crowd of sessions needed goes back to the system when they are gone."""

from __future__ import annotations

import itertools
import re
import sys
from ipaddress import ip_network

import pytest

from gateway.config.values import Limits as Options
from gateway.guard import memory
from gateway.guard.limits import Limits, OwnLedger, client_key
from gateway.guard.memory import AGAIN, CROWD, MemoryTrimmer
from gateway.guard.shared import SharedLedger
from gateway.telemetry.meter import Meter
from gateway.telemetry.observation import RECENT
from gateway.telemetry.summary import MINUTE, Summary
from soak.front import environment
from tests.hanging import nobody_hangs
from tests.process.running import ROOT
from tests.pure.test_summary import Heard


@pytest.fixture
def trims(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    done: list[int] = []
    monkeypatch.setattr(memory, "_trim", lambda: done.append)
    return done


def test_after_a_crowd_free_memory_is_given_back(trims: list[int]) -> None:
    sessions = [0]
    trimmer = MemoryTrimmer(lambda: sessions[0])
    for now, trimmed in ((10, 0), (5 * CROWD, 0), (3 * CROWD, 0), (2 * CROWD, 1), (2 * CROWD, 1), (0, 2)):
        sessions[0] = now
        trimmer.trim()
        assert len(trims) == trimmed
    for _ in range(AGAIN - 1):
        trimmer.trim()
    assert trims == [0, 0]
    for _ in range(AGAIN):
        trimmer.trim()
    assert trims == [0, 0, 0]


def test_tables_of_a_crowd_are_small_again_and_keep_what_is_in_them(trims: list[int]) -> None:
    limits, sessions = Limits(Options(), lambda: 0.0, ledger := OwnLedger()), set(range(2 * CROWD))
    trimmer = MemoryTrimmer(sessions.__len__, tables=lambda: (sessions, *ledger.tables))
    crowd = [client_key(f"192.0.2.{number}") for number in range(2 * CROWD)]
    for client in crowd:
        limits.admit(client)
        limits.auth_failed(client)
    trimmer.trim()
    present, connects, failures = ledger.tables
    great = sys.getsizeof(sessions), sys.getsizeof(present)
    for number, client in enumerate(crowd[1:], 1):
        limits.left(client)
        sessions.remove(number)
    kept = dict(present), list(connects), list(failures)
    trimmer.trim()
    assert (sessions, kept) == ({0}, (dict(present), list(connects), list(failures)))
    assert present == {crowd[0]: 1}
    assert (sys.getsizeof(sessions) < great[0], sys.getsizeof(present) < great[1]) == (True, True)
    assert list(SharedLedger.create(CROWD, nobody_hangs).tables) == []


def test_few_sessions_that_go_are_no_reason(trims: list[int]) -> None:
    sessions = [0]
    trimmer = MemoryTrimmer(lambda: sessions[0])
    for sessions[0] in (CROWD - 1, 0, CROWD - 1, 0):
        trimmer.trim()
    assert trims == []


def test_where_malloc_cannot_be_trimmed_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_trim", lambda: None)
    sessions = CROWD
    trimmer = MemoryTrimmer(lambda: sessions)
    trimmer.trim()
    sessions = 0
    trimmer.trim()


def test_the_unit_and_the_image_have_python_use_malloc() -> None:
    assert environment() == {"PYTHONMALLOC": "malloc"}
    assert re.search(r"^ENV .*\bPYTHONMALLOC=malloc$", (ROOT / "Containerfile").read_text(), re.MULTILINE)


def test_here_it_can() -> None:
    trimmer = MemoryTrimmer(lambda: 0)
    trimmer._most = CROWD
    trimmer.trim()


def test_what_outlives_a_crowd_is_made_anew_and_stays_what_it_was(trims: list[int]) -> None:
    meter, sessions = Meter(), CROWD
    minutes = itertools.count(0.0, MINUTE)  # each event has one, so that all are told
    summary = Summary(Heard(), minutes.__next__, meter.hear, lambda: 1.5)
    trimmer = MemoryTrimmer(lambda: sessions, lambda: (*summary.lasting, *meter.counts.lasting))

    def fail(number: int) -> None:
        fields = {"detail": f"handshake timed out {number}", "leg": "client", "seconds": 0.5}
        summary.lets("tls-failed", "imap", f"192.0.2.{number}", fields)
        summary.lets("secured", "imap", f"192.0.2.{number}", fields)

    def seen() -> list[object]:
        known = [repr(summary.failures.of(ip_network(f"192.0.2.{number}"))) for number in range(RECENT + 9)]
        return [list(summary.failures.lasting[0]), known, summary.recent, meter.counts.snapshot()]

    for number in range(RECENT + 5):
        fail(number)
    before, old = seen(), summary.failures.of(ip_network("192.0.2.0/24"))
    trimmer.trim()
    sessions = 0
    trimmer.trim()
    assert seen() == before
    new = summary.failures.of(ip_network("192.0.2.0/24"))
    assert new == old
    assert not {id(one) for one in new} & {id(one) for one in old}
    fail(3)  # an old one again
    fail(RECENT + 7)
    assert list(summary.failures.lasting[0])[-2:] == ["192.0.2.3", f"192.0.2.{RECENT + 7}"]
    assert summary.failures.of(ip_network("192.0.2.3"))[0].count == 2
    assert len(summary.recent) == RECENT
    assert summary.recent[0].client == f"192.0.2.{RECENT + 7}"
    assert meter.counts.snapshot().total("events_total", event="tls-failed") == RECENT + 7
    assert trims == [0]
