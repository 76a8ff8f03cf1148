"""Two legs, and how they copy to each other: of a session whose negotiation is over, or of a channel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final

from ..protocol.vocabulary import Side
from ..wire.leg import End, Leg
from .deadline import Deadline

HALF_CLOSED: Final = 60.0
"""Seconds without an octet after which a pair with one end gone is over."""


class Pair(ABC):
    """Owns the legs and the deadline."""

    __slots__ = ("_deadline", "_ends", "_legs", "_linger", "_moved", "_over", "_reactor")

    def __init__(self, reactor: Any, linger: float) -> None:
        """`linger`: seconds that a leg waits for the other end to close."""
        self._reactor = reactor
        self._linger = linger
        self._legs: dict[Side, Leg] = {}
        self._ends: dict[Side, End] = {}
        """How the legs ended that say no more."""
        self._over = False
        """The end was decided; nothing is reported any more."""
        self._moved = 0
        """Octets of both legs when they were looked at last."""
        self._deadline = Deadline(reactor, self._expired)

    @abstractmethod
    def _expired(self) -> None:
        """The deadline has come."""

    def _side(self, leg: Leg) -> Side | None:
        """None for a backend's leg that was left behind."""
        for side, current in self._legs.items():
            if current is leg:
                return side
        return None

    def _end_legs(self, reset: bool = False) -> None:
        for leg in list(self._legs.values()):
            (leg.abort if reset else leg.close)()

    def _extend(self, seconds: float) -> None:
        self._deadline.set(self._reactor.seconds() + seconds)


class Copying(Pair):
    """A pair that copies, sooner or later."""

    __slots__ = ()

    @abstractmethod
    def _finish(self, reason: str, detail: str = "") -> None:
        """It is over, for this reason: no deadline any more.  The legs are still to be ended."""

    def _copy(self, idle: float) -> None:
        """From here on each leg writes to the other; `idle`: seconds without an octet after which that is over."""
        client, backend = self._legs[Side.CLIENT], self._legs[Side.BACKEND]
        client.copy_to(backend)
        backend.copy_to(client)
        self._moved = -1
        self._extend(idle)
        for side in tuple(self._ends):
            self._half_ended(side)

    def _cuts_short(self, side: Side) -> bool:
        """Whether what that side has said may be incomplete, so that nothing may look complete."""
        return self._ends[side] is End.RESET

    def _half_ended(self, side: Side) -> None:
        """One side says no more: the other gets what is queued, and then its end.  After a reset nothing may look
        complete, so the other side is reset too."""
        reset = self._cuts_short(side)
        if reset or side.other in self._ends:
            self._finish(f"{side.value}-lost" if reset else f"{next(iter(self._ends)).value}-closed")
            self._end_legs(reset)
        else:
            self._legs[side.other].half_close()
            self._moved = -1
            self._extend(HALF_CLOSED)

    def _flow(self) -> None:
        """Read only what there is room for: a leg that cannot get rid of its octets stops whoever feeds it."""
        client, backend = self._legs.get(Side.CLIENT), self._legs.get(Side.BACKEND)
        self._let(backend is None or not backend.full, client is None or not client.full)

    def _let(self, reads_client: bool, reads_backend: bool) -> None:
        client, backend = self._legs.get(Side.CLIENT), self._legs.get(Side.BACKEND)
        if client is not None:
            (client.resume if reads_client else client.pause)()
        if backend is not None:
            (backend.resume if reads_backend else backend.pause)()

    def _stalled(self, idle: float) -> bool:
        """The deadline of the copying has come: whether nothing has moved.  Otherwise it is a new one."""
        moved = sum(leg.received + leg.sent for leg in self._legs.values())
        if moved == self._moved:
            return True
        self._moved = moved
        self._extend(HALF_CLOSED if self._ends else idle)
        return False
