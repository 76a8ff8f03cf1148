"""What can be seen of all workers together: the master asks each, and adds up what they answer.

Events are counted in the master, which hears those of all workers; so no count is lost with a worker.  A worker tells
what is there now: its open sessions and their octets, its gauges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple

from twisted.internet.defer import Deferred

from ... import __version__
from ...telemetry.meter import Meter
from ...telemetry.observation import CertificateView, Observation, Recent, Standing, together
from ..observing import Observer, listened
from ..plan import Opening
from .asking import Asking, Replies
from .messages import Message

# --- in a worker ---------------------------------------------------------------------------------


def parts(observer: Observer, sessions: bool) -> Deferred[list[Message]]:
    """What this worker sees.  Views go in pieces, so that no message is too long; the rest comes last."""

    def seen(observation: Observation) -> list[Message]:
        pieces: list[Message] = [{"views": [some]} for some in observation.sessions]
        rest = Observation(observation.metrics, observation.recent).to_json()
        return [*pieces, {"seen": rest, "certificates": [astuple(one) for one in observer.certificates()]}]

    return observer.observe(sessions).addCallback(seen)


# --- in the master -------------------------------------------------------------------------------


class Fleet:
    """The subject of the master's admin listener."""

    def __init__(
        self,
        asking: Asking,
        meter: Meter,
        hostname: Callable[[], str],
        openings: Callable[[], list[tuple[str, Opening]]],
        stopping: Callable[[], bool],
        recent: Callable[[], tuple[Recent, ...]],
    ) -> None:
        """`openings`: the addresses that are listened on, as text, and what is offered there."""
        self._asking = asking
        self._meter = meter
        self._hostname = hostname
        self._openings = openings
        self._stopping = stopping
        self._recent = recent
        self._certificates: tuple[CertificateView, ...] = ()

    def observe(self, sessions: bool) -> Deferred[Observation]:
        """A worker that does not answer is not counted."""
        return self._asking.ask({"observe": sessions}).addCallback(self._together)

    def _together(self, replies: Replies) -> Observation:
        said = [parts for worker, parts in replies.parts.items() if worker not in replies.missing]
        return together([self._own(), *map(self._of_worker, said)])

    def _own(self) -> Observation:
        metrics = self._meter.counts.snapshot()
        metrics.set("stopping", (), float(self._stopping()))
        return Observation(metrics, self._recent())

    def _of_worker(self, parts: Sequence[Message]) -> Observation:
        *pieces, last = parts
        self._certificates = tuple(
            CertificateView(file, tuple(names), key, not_after, days)
            for file, names, key, not_after, days in last["certificates"]
        )
        views = tuple(view for piece in pieces for view in piece["views"])
        return Observation(Observation.from_json(last["seen"]).metrics, (), views)

    def standing(self) -> Standing:
        listening = [listened(opening, address) for address, opening in self._openings()]
        return Standing(self._hostname(), __version__, tuple(listening), self._certificates)
