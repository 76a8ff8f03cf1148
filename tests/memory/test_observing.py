"""A look at all sessions: a few in a turn, and what changes meanwhile is counted once."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from gateway.app.observing import SLICE, VIEWS, _Walk
from gateway.telemetry.metrics import Snapshot
from gateway.telemetry.observation import SessionView


class Session:
    """As much of one as is looked at."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.service = "imap" if number % 2 else "smtp"
        self.octets = (number, 2 * number)
        self.channels = number % 2

    def phase(self) -> str:
        return "secure" if self.number % 3 else "relaying"

    def view(self, worker: int) -> SessionView:
        name = str(self.number)
        return SessionView(name, self.service, "imap", "", "", None, None, None, None, 0.0, 0, 0, 0, worker=worker)


def looked(sessions: Iterable[Session], *, views: bool) -> tuple[Any, int]:
    inside: Any = set(sessions)
    walk = _Walk(list(inside), 0, views=views)
    steps = 1
    while walk.step(inside):
        steps += 1
    return walk, steps


def test_no_turn_looks_at_more_than_a_slice() -> None:
    sessions = [Session(number) for number in range(5000)]
    for views, number in ((False, SLICE), (True, VIEWS)):
        walk, steps = looked(sessions, views=views)
        assert steps == -(-5000 // number)
        assert len(walk.views) == (steps if views else 0)
    told = [one["id"] for piece in walk.views for one in json.loads(f"[{piece}]")]
    assert sorted(told, key=int) == [str(number) for number in range(5000)]


def test_who_has_ended_meanwhile_is_counted_among_those_that_ended() -> None:
    sessions = [Session(number) for number in range(1, 11)]
    walk, _ = looked(sessions, views=False)
    metrics = Snapshot({"octets_total": {("imap", "received"): 1000}})
    walk.add_to(metrics, set(sessions[:5]), {"imap", "smtp", "pop3"})
    assert walk.channels == {"imap": 5}
    assert metrics.values["octets_total"] == {
        ("imap", "received"): 1009, ("imap", "sent"): 18, ("smtp", "received"): 6, ("smtp", "sent"): 12
    }  # fmt: skip
    assert metrics.values["sessions"] == {
        ("imap", "plaintext"): 0, ("smtp", "plaintext"): 0, ("pop3", "plaintext"): 0,
        ("imap", "secure"): 2, ("imap", "relaying"): 1, ("smtp", "secure"): 2,
    }  # fmt: skip


def test_who_leaves_before_his_turn_is_not_looked_at() -> None:
    sessions: list[Any] = [Session(number) for number in range(3)]
    walk = _Walk(sessions, 0, views=True)
    assert not walk.step(set())
    assert walk.views == []
