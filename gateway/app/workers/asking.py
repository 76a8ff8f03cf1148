"""What is asked of the gateway and known to its workers: all of them are asked, and their answers become one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet.defer import Deferred

from ..control.answers import merged
from ..control.messages import Answer, Request
from .messages import Message

PATIENCE: Final = 3.0
"""Seconds for all answers; a worker that hangs is replaced after some more."""
AGAIN: Final = 0.1
"""Seconds until it is looked again whether a worker serves."""
ROWS: Final = 1000
"""Sessions in one message, some 300 octets each."""


@dataclass(slots=True)
class _Question:
    request: Request
    waiting: set[int] = field(default_factory=set)
    """Workers that have not answered."""
    done: Deferred[Answer] = field(default_factory=Deferred)
    answers: list[Answer] = field(default_factory=list)
    late: Any = None


class Asking:
    """`say` reaches one worker; `serving` are those that can answer."""

    def __init__(self, reactor: Any, serving: Callable[[], Sequence[int]], say: Callable[[int, Message], None]) -> None:
        self._reactor = reactor
        self._serving = serving
        self._say = say
        self._questions: dict[int, _Question] = {}
        self._last = 0

    def ask(self, request: Request) -> Deferred[Answer]:
        self._last += 1
        number, question = self._last, _Question(request)
        self._questions[number] = question
        question.late = self._reactor.callLater(PATIENCE, self._answer, number)
        self._put(number, question)
        return question.done

    def _put(self, number: int, question: _Question) -> None:
        """To all workers, as soon as there is one."""
        if number not in self._questions:
            return
        question.waiting = set(self._serving())
        for worker in question.waiting:
            self._say(worker, {"ask": number, "command": question.request.command, "about": question.request.about})
        if not question.waiting:
            self._reactor.callLater(AGAIN, self._put, number, question)

    def heard(self, worker: int, message: Message) -> None:
        """A worker has answered, or a part of it."""
        question = self._questions.get(message["answer"])
        if question is None:
            return  # too late
        question.answers.append(Answer(message["result"], tuple(message["problems"])))
        if not message.get("more"):
            question.waiting.discard(worker)
            if not question.waiting:
                self._answer(message["answer"])

    def stop(self) -> None:
        for number in list(self._questions):
            self._answer(number)

    def _answer(self, number: int) -> None:
        question = self._questions.pop(number)
        if question.late.active():
            question.late.cancel()
        missing = tuple(f"worker {worker} does not answer" for worker in sorted(question.waiting))
        if not question.answers:
            question.done.callback(Answer({}, missing or ("no worker serves now; try again",)))
            return
        answer = merged(question.request, question.answers)
        if missing and question.request.command == "status":
            answer = Answer({**answer.result, "warnings": [*answer.result["warnings"], *missing]}, answer.problems)
        elif missing:
            answer = Answer(answer.result, (*answer.problems, *missing))
        question.done.callback(answer)


def parts(number: int, answer: Answer) -> list[Message]:
    """The messages that bring an answer to the master: thousands of sessions are too many for one."""
    rows = answer.result.get("sessions")
    if not isinstance(rows, list):
        return [{"answer": number, "result": answer.result, "problems": answer.problems}]
    chunks = [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)] or [[]]
    return [
        {
            "answer": number,
            "result": {"sessions": chunk},
            "problems": answer.problems,
            "more": position < len(chunks) - 1,
        }
        for position, chunk in enumerate(chunks)
    ]
