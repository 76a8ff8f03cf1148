"""What a crowd of sessions needed goes back to the system when they are gone."""

from __future__ import annotations

import pytest

from gateway.guard import memory
from gateway.guard.memory import AGAIN, CROWD, Room


@pytest.fixture
def trims(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    done: list[int] = []
    monkeypatch.setattr(memory, "_trim", lambda: done.append)
    return done


def test_after_a_crowd_free_memory_is_given_back(trims: list[int]) -> None:
    sessions = [0]
    room = Room(lambda: sessions[0])
    for now, trimmed in ((10, 0), (5 * CROWD, 0), (5 * CROWD - 1, 0), (4 * CROWD, 1), (4 * CROWD, 1), (0, 2)):
        sessions[0] = now
        room.tidy()
        assert len(trims) == trimmed
    for _ in range(AGAIN - 1):
        room.tidy()
    assert trims == [0, 0]
    for _ in range(AGAIN):
        room.tidy()
    assert trims == [0, 0, 0]


def test_few_sessions_that_go_are_no_reason(trims: list[int]) -> None:
    sessions = [0]
    room = Room(lambda: sessions[0])
    for sessions[0] in (CROWD - 1, 0, CROWD - 1, 0):
        room.tidy()
    assert trims == []


def test_where_malloc_cannot_be_trimmed_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_trim", lambda: None)
    sessions = CROWD
    room = Room(lambda: sessions)
    room.tidy()
    sessions = 0
    room.tidy()


def test_here_it_can() -> None:
    room = Room(lambda: 0)
    room._most = CROWD
    room.tidy()
