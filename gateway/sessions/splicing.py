"""A session's two legs: which of them is read, the splice once the negotiation is over, and the channels beside it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from ..protocol.driver import Negotiation
from ..protocol.vocabulary import Cut, Label, Side
from ..wire.dialer import Dialer
from ..wire.leg.interfaces import End
from ..wire.leg.leg import Leg
from .channels import Channels
from .pair import Copying
from .performer import SPENT, ConnectTLS, Performer

NEGOTIATING = 16 * 1024
"""Octets per read before the splice; no inbox grows by more at a time."""


class Splicing(Copying, Performer):
    """A performer with a client."""

    __slots__ = ("_channels", "_idle", "_spliced", "_stopped")

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
        self._stopped = False
        """Not every leg is read."""
        self._channels: Channels | None = None
        """None until the first is opened."""

    @abstractmethod
    def _account(self) -> None:
        """Both legs are gone, and all channels."""

    def _gone(self, side: Side) -> None:
        if not self._over and (self._spliced or side is Side.CLIENT):
            # It broke while it was only written to, or by a bug of ours: there is nobody left to serve.
            self._finish(f"{side.value}-lost")
            self._end_legs(reset=True)
        if not self._negotiation.over:
            self._flow()  # a leg that is gone stops nobody
        self._part()

    def _part(self) -> None:
        """Something is gone: perhaps it was the last."""
        if not self._legs and not self._dialling and not self._channels:
            self._account()

    def _close(self, reason: str, detail: str) -> None:
        self._finish(reason, detail)
        self._end_legs()
        if self._channels is not None:
            self._channels.retire()

    def _steer(self, action: Label | Cut) -> None:
        if self._channels is not None:
            self._channels.steer(action)

    def _splice(self) -> None:
        self._spliced = True
        # Ten thousand idle sessions need neither.
        self._negotiation = SPENT
        self._attempt = self._awaited = None
        self._copy(self._idle)
        self._flow()

    def _flow(self) -> None:
        if self._over:
            return
        if self._spliced:
            super()._flow()
            return
        client, backend = self._legs.get(Side.CLIENT), self._legs.get(Side.BACKEND)
        # Before the splice the client also feeds itself, with the replies to its own commands.
        reads_backend = client is None or not client.full
        reads_client = reads_backend and (backend is None or not backend.full) and self._negotiation.wants(Side.CLIENT)
        reads_backend = reads_backend and self._negotiation.wants(Side.BACKEND)
        self._stopped = not (reads_client and reads_backend)
        self._let(reads_client, reads_backend)

    def _relay_expired(self) -> None:
        if self._stalled(self._idle):
            self._finish("idle")
            self._end_legs()

    def leg_ended(self, leg: Leg, end: End) -> None:
        super().leg_ended(leg, end)
        if self._spliced and not self._over:
            side = self._side(leg)
            assert side is not None, "a splice leaves no leg behind"
            self._half_ended(side)

    def leg_pressed(self, leg: Leg, full: bool) -> None:
        self._flow()

    def _performed(self) -> None:
        if self._stopped or self._negotiation.crowded:
            self._flow()

    def _leg(self, side: Side, sock: Any) -> Leg:
        leg = super()._leg(side, sock)
        leg.read_size = NEGOTIATING
        return leg

    def abort(self, reason: str = "aborted") -> None:
        """End at once, whatever is under way."""
        self._finish(reason)
        self._end_legs(reset=True)
        if self._channels is not None:
            self._channels.abort()
