"""Two legs: which of them is read, and how they copy to each other once the negotiation is over."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from ..protocol.driver import Negotiation
from ..protocol.vocabulary import Side
from ..wire.dialer import Dialer
from ..wire.leg.interfaces import End
from ..wire.leg.leg import Leg
from .performer import SPENT, ConnectTLS, Performer

BULK = 64 * 1024
"""Octets per read once the legs are spliced, and of a message: fewer would cost a system call each, more would stay
allocated with every idle session that was busy once."""
NEGOTIATING = 16 * 1024
"""Octets per read before that; no inbox grows by more at a time."""
HALF_CLOSED = 60.0
"""Seconds without an octet after which a splice with one end gone is over."""


class Splicing(Performer):
    """A performer with a client."""

    __slots__ = ("_idle", "_moved", "_spliced", "_stopped")

    def __init__(
        self,
        reactor: Any,
        negotiation: Negotiation,
        dialer: Dialer,
        connect_tls: ConnectTLS | None,
        linger: float,
        idle: float,
    ) -> None:
        """`idle`: seconds without an octet after which a splice is over."""
        super().__init__(reactor, negotiation, dialer, connect_tls, linger)
        self._idle = idle
        self._spliced = False
        self._moved = 0
        """Octets of both legs when they were looked at last."""
        self._stopped = False
        """Not every leg is read."""

    @abstractmethod
    def _finish(self, reason: str, detail: str = "") -> None:
        """The session is over."""

    @abstractmethod
    def _account(self) -> None:
        """Both legs are gone."""

    def _gone(self, side: Side) -> None:
        if not self._over and (self._spliced or side is Side.CLIENT):
            # It broke while it was only written to, or by a bug of ours: there is nobody left to serve.
            self._finish(f"{side.value}-lost")
            self._end_legs(reset=True)
        if not self._negotiation.over:
            self._flow()  # a leg that is gone stops nobody
        if not self._legs and not self._dialling:
            self._account()

    def _close(self, reason: str, detail: str) -> None:
        self._finish(reason, detail)
        self._end_legs()

    def _splice(self) -> None:
        self._spliced = True
        # Ten thousand idle sessions need neither.
        self._negotiation = SPENT
        self._attempt = self._awaited = None
        client, backend = self._legs[Side.CLIENT], self._legs[Side.BACKEND]
        client.deliver, backend.deliver = backend.write, client.write
        client.read_size = backend.read_size = BULK
        self._moved = -1
        self._extend(self._idle)
        for side in tuple(self._ends):
            self._half_ended(side)
        self._flow()

    def _half_ended(self, side: Side) -> None:
        """One side of a splice says no more: the other gets what is queued, and then its end.  After a
        reset nothing may look complete, so the other side is reset too."""
        reset = self._ends[side] is End.RESET
        if reset or side.other in self._ends:
            self._finish(f"{side.value}-lost" if reset else f"{next(iter(self._ends)).value}-closed")
            self._end_legs(reset)
        else:
            self._legs[side.other].half_close()
            self._moved = -1
            self._extend(HALF_CLOSED)

    def _flow(self) -> None:
        """Read only what there is room for: a leg that cannot get rid of its octets stops whoever feeds it."""
        if self._over:
            return
        client, backend = self._legs.get(Side.CLIENT), self._legs.get(Side.BACKEND)
        reads_client = backend is None or not backend.full
        reads_backend = client is None or not client.full
        if not self._spliced:
            # Before the splice the client also feeds itself, with the replies to its own commands.
            reads_client = reads_client and reads_backend and self._negotiation.wants(Side.CLIENT)
            reads_backend = reads_backend and self._negotiation.wants(Side.BACKEND)
        self._stopped = not (reads_client and reads_backend)
        if client is not None:
            (client.resume if reads_client else client.pause)()
        if backend is not None:
            (backend.resume if reads_backend else backend.pause)()

    def _relay_expired(self) -> None:
        moved = sum(leg.received + leg.sent for leg in self._legs.values())
        if moved != self._moved:
            self._moved = moved
            self._extend(HALF_CLOSED if self._ends else self._idle)
            return
        self._finish("idle")
        self._end_legs()

    def _extend(self, seconds: float) -> None:
        self._deadline.set(self._reactor.seconds() + seconds)

    def leg_ended(self, leg: Leg, end: End) -> None:
        super().leg_ended(leg, end)
        if self._spliced and not self._over:
            side = self._side(leg)
            assert side is not None, "a splice leaves no leg behind"
            self._half_ended(side)

    def leg_pressed(self, leg: Leg, full: bool) -> None:
        self._flow()

    def _performed(self) -> None:
        if self._stopped or self._negotiation.crowded():
            self._flow()

    def _leg(self, side: Side, sock: Any) -> Leg:
        leg = super()._leg(side, sock)
        leg.read_size = NEGOTIATING
        return leg

    def abort(self, reason: str = "aborted") -> None:
        """End at once, whatever is under way."""
        self._finish(reason)
        self._end_legs(reset=True)
