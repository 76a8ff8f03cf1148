"""What can be seen of all workers together: the master asks each, and adds up what they answer.

Events are counted in the master, which hears those of all workers; so no count is lost with a worker.  A worker tells
what is there now: its open sessions and their octets, its gauges.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred

from ... import __version__
from ...telemetry.meter import Meter
from ...telemetry.observation import CertificateView, Observation, Recent, Standing, together
from ..observing import SLICE, Observer, listened
from ..plan import Opening
from .messages import Message

PATIENCE: Final = 2.0
"""Seconds that a worker has to answer.  One that hangs is not counted."""


# --- in a worker ---------------------------------------------------------------------------------


def answer(message: Message, observer: Observer, say: Callable[[Message], None]) -> None:
    """Views go in pieces, so that no message is too long; the rest comes last."""
    number, sessions = message["observe"], message["sessions"]

    def answered(seen: Observation) -> None:
        for begin in range(0, len(seen.sessions), SLICE):
            say({"observed": number, "views": seen.sessions[begin : begin + SLICE]})
        rest = Observation(seen.metrics, seen.recent).to_json()
        certificates = [astuple(one) for one in observer.certificates()]
        say({"observed": number, "seen": rest, "certificates": certificates})

    observer.observe(sessions).addCallback(answered)


# --- in the master -------------------------------------------------------------------------------


class Crew(Protocol):
    """What is needed of the seats."""

    def serving(self) -> list[int]:
        """Numbers of the workers that serve."""

    def say_all(self, message: Message) -> None: ...


@dataclass(slots=True)
class _Question:
    done: Deferred[Observation]
    missing: set[int]
    """Workers that have not answered."""
    answers: list[Observation]
    views: dict[int, list[str]] = field(default_factory=dict)
    timer: Any = None


class Fleet:
    """The subject of the master's admin listener."""

    def __init__(
        self,
        reactor: Any,
        meter: Meter,
        crew: Crew,
        hostname: Callable[[], str],
        openings: Callable[[], list[tuple[str, Opening]]],
        stopping: Callable[[], bool],
        recent: Callable[[], tuple[Recent, ...]],
    ) -> None:
        """`openings`: the addresses that are listened on, as text, and what is offered there."""
        self._reactor = reactor
        self._meter = meter
        self._crew = crew
        self._hostname = hostname
        self._openings = openings
        self._stopping = stopping
        self._recent = recent
        self._numbers = itertools.count()
        self._questions: dict[int, _Question] = {}
        self._certificates: tuple[CertificateView, ...] = ()

    def observe(self, sessions: bool) -> Deferred[Observation]:
        number = next(self._numbers)
        question = self._questions[number] = _Question(Deferred(), set(self._crew.serving()), [self._own()])
        question.timer = self._reactor.callLater(PATIENCE, self._finish, number)
        self._crew.say_all({"observe": number, "sessions": sessions})
        if not question.missing:
            self._finish(number)
        return question.done

    def _own(self) -> Observation:
        metrics = self._meter.counts.snapshot()
        metrics.set("stopping", (), float(self._stopping()))
        return Observation(metrics, self._recent())

    def told(self, worker: int, message: Message) -> None:
        """An answer, or a part of one."""
        question = self._questions.get(message["observed"])
        if question is None:
            return  # too late
        if "views" in message:
            question.views.setdefault(worker, []).extend(message["views"])
            return
        seen = Observation.from_json(message["seen"])
        question.answers.append(Observation(seen.metrics, (), tuple(question.views.pop(worker, ()))))
        self._certificates = tuple(
            CertificateView(file, tuple(names), key, not_after, days)
            for file, names, key, not_after, days in message["certificates"]
        )
        question.missing.discard(worker)
        if not question.missing:
            self._finish(message["observed"])

    def _finish(self, number: int) -> None:
        question = self._questions.pop(number, None)
        if question is not None:
            if question.timer.active():
                question.timer.cancel()
            question.done.callback(together(question.answers))

    def standing(self) -> Standing:
        listening = [listened(opening, address) for address, opening in self._openings()]
        return Standing(self._hostname(), __version__, tuple(listening), self._certificates)
