"""All workers are asked, and what they answer is one answer, also where one of them does not."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from twisted.internet.task import Clock

from gateway.app.control.messages import Answer, Request
from gateway.app.workers.asking import AGAIN, PATIENCE, Asking, Replies, reply
from gateway.app.workers.steered import ROWS, answered, parts, question


class Fleet:
    """Workers that answer when a test lets them."""

    def __init__(self, *serving: int) -> None:
        self.clock = Clock()
        self.serving = list(serving)
        self.asked: list[tuple[int, Any]] = []
        self.asking = Asking(
            self.clock, lambda: self.serving, lambda worker, message: self.asked.append((worker, message))
        )
        self.heard: list[Answer] = []

    def ask(self, command: str, about: str = "", ends: bool = False) -> None:
        request = Request(command, about)
        replies = self.asking.ask(question(request), wait=not ends)
        replies.addCallback(partial(answered, request, ends=ends)).addCallback(self.heard.append)

    def answer(self, worker: int, result: dict[str, Any], *problems: str) -> None:
        number = next(message["ask"] for asked, message in reversed(self.asked) if asked == worker)
        for message in reply(number, parts(Answer(result, problems))):
            self.asking.heard(worker, message)


def test_the_answer_is_there_when_all_have_answered() -> None:
    fleet = Fleet(0, 1)
    fleet.ask("kick", "192.0.2.1")
    assert [(worker, message["command"], message["about"]) for worker, message in fleet.asked] == [
        (0, "kick", "192.0.2.1"), (1, "kick", "192.0.2.1"),
    ]  # fmt: skip
    fleet.answer(0, {"sessions": 0})
    assert fleet.heard == []
    fleet.answer(1, {"sessions": 2})
    assert fleet.heard == [Answer({"sessions": 2})]
    assert fleet.clock.getDelayedCalls() == []


def test_thousands_of_sessions_come_in_parts() -> None:
    fleet = Fleet(0)
    rows = [{"id": number, "age": -number} for number in range(2 * ROWS + 1)]
    fleet.ask("who")
    fleet.answer(0, {"sessions": rows})
    assert [row["id"] for row in fleet.heard[0].result["sessions"]] == list(range(2 * ROWS + 1))
    fleet.ask("who")
    fleet.answer(0, {"sessions": []})
    assert fleet.heard[1] == Answer({"sessions": []})


def test_a_worker_that_does_not_answer_is_told_and_too_late_then() -> None:
    fleet = Fleet(0, 1)
    fleet.ask("drain", "imap")
    fleet.answer(1, {"what": "service", "sessions": 1})
    fleet.clock.advance(PATIENCE)
    assert fleet.heard == [Answer({"what": "service", "sessions": 1}, ("worker 0 does not answer",))]
    fleet.answer(0, {"what": "service", "sessions": 1})
    assert len(fleet.heard) == 1


def test_a_status_without_one_of_them_is_a_status_with_a_warning() -> None:
    fleet = Fleet(0, 1)
    fleet.ask("status")
    fleet.answer(0, {
        "sessions": 1, "draining": None, "services": [], "backends": [], "processes": [], "warnings": ["old"],
    })  # fmt: skip
    fleet.clock.advance(PATIENCE)
    (answer,) = fleet.heard
    assert answer.good
    assert answer.result["warnings"] == ["old", "worker 1 does not answer"]


def test_the_first_worker_is_waited_for() -> None:
    fleet = Fleet()
    fleet.ask("kick", "3f2a")
    assert fleet.asked == []
    fleet.serving = [1]
    fleet.clock.advance(AGAIN)
    fleet.answer(1, {"sessions": 1})
    assert fleet.heard == [Answer({"sessions": 1})]


def test_without_any_worker_somebody_says_so() -> None:
    fleet = Fleet()
    fleet.ask("who")
    fleet.clock.pump([AGAIN] * round(PATIENCE / AGAIN + 2))
    assert fleet.heard == [Answer({}, ("no worker serves now; try again",))]
    fleet.ask("who")
    fleet.asking.stop()
    assert len(fleet.heard) == 2
    fleet.clock.advance(AGAIN)
    assert fleet.clock.getDelayedCalls() == []


def test_who_does_not_want_to_wait_is_answered_at_once() -> None:
    fleet = Fleet()
    heard: list[Replies] = []
    fleet.asking.ask({"observe": False}).addCallback(heard.append)
    assert heard == [Replies({}, [])]
    assert fleet.clock.getDelayedCalls() == []


def test_nobody_waits_for_the_answer_of_one_that_has_ended() -> None:
    fleet = Fleet(0, 1)
    fleet.ask("kick", "192.0.2.1")
    fleet.answer(1, {"sessions": 2})
    assert fleet.heard == []
    fleet.asking.gone(0)
    assert fleet.heard == [Answer({"sessions": 2})]
    assert fleet.clock.getDelayedCalls() == []


@pytest.mark.parametrize("serving", [(), (0, 1)])
@pytest.mark.parametrize(("command", "answer"), [
    ("who", Answer({"sessions": []})),
    ("kick", Answer({"sessions": 0}, ("there is no session 3f2a, and none of a client or a user 3f2a",))),
    ("status", Answer({}, ("the gateway stops, and its last worker has ended",))),
])  # fmt: skip
def test_a_program_that_ends_and_has_no_worker_left_has_no_sessions(
    serving: tuple[int, ...], command: str, answer: Answer
) -> None:
    fleet = Fleet(*serving)
    fleet.ask(command, "3f2a", ends=True)
    for worker in serving:
        fleet.asking.gone(worker)
    assert fleet.heard == [answer]
    assert fleet.clock.getDelayedCalls() == []


def test_half_an_answer_of_one_that_has_ended_is_none() -> None:
    fleet = Fleet(0, 1)
    heard: list[Replies] = []
    fleet.asking.ask({"observe": True}).addCallback(heard.append)
    fleet.asking.heard(0, {"answer": 1, "part": {"views": ["a"]}, "more": True})
    fleet.asking.heard(1, {"answer": 1, "part": {"seen": {}}, "more": False})
    fleet.asking.gone(1)  # it had said everything
    fleet.asking.gone(0)
    assert heard == [Replies({1: [{"seen": {}}]}, [])]
