"""What a crowd of sessions needed goes back to the system when they are gone."""

from __future__ import annotations

import pytest

from gateway.guard import memory
from gateway.guard.memory import AGAIN, CROWD, MemoryTrimmer


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


def test_here_it_can() -> None:
    trimmer = MemoryTrimmer(lambda: 0)
    trimmer._most = CROWD
    trimmer.trim()
