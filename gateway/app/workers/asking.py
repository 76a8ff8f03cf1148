"""The one way in which the master asks all workers something: each answers, or is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any, Final

from twisted.internet.defer import Deferred

from ...records import dataclass
from .messages import Message

PATIENCE: Final = 3.0
"""Seconds for all answers; a worker that hangs is replaced after some more."""
AGAIN: Final = 0.1
"""Seconds until it is looked again whether a worker serves."""


@dataclass(frozen=True, slots=True)
class Replies:
    """What came back."""

    parts: Mapping[int, Sequence[Message]]
    """By worker: what it said, in its order, even if not to the end.  Half an answer of a worker that has ended is
    none."""
    missing: Sequence[int]
    """Workers that did not answer to the end."""


@dataclass(slots=True)
class _Question:
    message: Message
    waiting: set[int] = field(default_factory=set)
    """Workers that have not answered to the end."""
    done: Deferred[Replies] = field(default_factory=Deferred)
    parts: dict[int, list[Message]] = field(default_factory=dict)
    late: Any = None


class Asking:
    """`say` reaches one worker; `serving` are those that can answer."""

    def __init__(self, reactor: Any, serving: Callable[[], Sequence[int]], say: Callable[[int, Message], None]) -> None:
        self._reactor = reactor
        self._serving = serving
        self._say = say
        self._questions: dict[int, _Question] = {}
        self._last = 0

    def ask(self, message: Message, *, wait: bool = False) -> Deferred[Replies]:
        """`wait`: for a worker that serves, where there is none now; PATIENCE at most."""
        self._last += 1
        number, question = self._last, _Question(message)
        self._questions[number] = question
        question.late = self._reactor.callLater(PATIENCE, self._answer, number)
        self._put(number, question, wait)
        return question.done

    def _put(self, number: int, question: _Question, wait: bool) -> None:
        if number not in self._questions:
            return
        question.waiting = set(self._serving())
        for worker in question.waiting:
            self._say(worker, {**question.message, "ask": number})
        if question.waiting:
            return
        if wait:
            self._reactor.callLater(AGAIN, self._put, number, question, wait)
        else:
            self._answer(number)

    def heard(self, worker: int, message: Message) -> None:
        """A worker has answered, or a part of it."""
        question = self._questions.get(message["answer"])
        if question is None:
            return  # too late
        question.parts.setdefault(worker, []).append(message["part"])
        if not message["more"]:
            question.waiting.discard(worker)
            if not question.waiting:
                self._answer(message["answer"])

    def gone(self, worker: int) -> None:
        """It has ended, and has nothing to say any more."""
        for number, question in list(self._questions.items()):
            if worker in question.waiting:
                question.waiting.discard(worker)
                question.parts.pop(worker, None)
                if not question.waiting:
                    self._answer(number)

    def stop(self) -> None:
        for number in list(self._questions):
            self._answer(number)

    def _answer(self, number: int) -> None:
        question = self._questions.pop(number)
        if question.late.active():
            question.late.cancel()
        question.done.callback(Replies(question.parts, sorted(question.waiting)))


def reply(number: int, parts: Sequence[Message]) -> list[Message]:
    """The messages by which a worker answers: an answer may be too long for one."""
    last = len(parts) - 1
    return [{"answer": number, "part": part, "more": position < last} for position, part in enumerate(parts)]
