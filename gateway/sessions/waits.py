"""The deadlines of a session: of what it waits for, and of a client that has proven nothing."""

from __future__ import annotations

from typing import Any, Final

from ..dialects.base import Policy
from ..protocol.driver import Negotiation
from ..protocol.vocabulary import CLIENT, Expired, Forward, Patience, Secured, Side, Trouble
from ..protocol.waiting import lateness
from ..wire.leg import MOST, Leg
from .context import SessionContext
from .splicing import NEGOTIATING, Splicing

DATA: Final = Patience.DATA


class Waits(Splicing):
    """A performer with a client that may not wait for ever."""

    __slots__ = (
        "_arrived",
        "_awaited_since",
        "_began",
        "_bulk",
        "_client",
        "_context",
        "_limit",
        "_patience",
        "_proven",
    )

    def __init__(self, reactor: Any, context: SessionContext, negotiation: Negotiation, sock: Any) -> None:
        idle = context.allowances[Patience.SPLICE]
        super().__init__(reactor, negotiation, context.dialer, context.connect_tls, context.timeouts.linger, idle)
        self._context = context
        self._client: Leg = self._leg(CLIENT, sock)
        self._proven = False
        self._began = float(reactor.seconds())
        preauth, required = context.timeouts.preauth, context.terms.policy is Policy.REQUIRED
        self._limit = self._began + (min(preauth, context.timeouts.plaintext) if required else preauth)
        """When a session that has proven nothing ends, whatever trickles in.  It may be sooner before TLS."""
        self._awaited_since = self._began
        self._patience = Patience.CONNECT
        self._bulk = False
        """Much may come at once, and all that comes shows that this goes on."""
        self._arrived = 0
        """Octets of a message since then."""

    def _waited(self) -> float:
        """Seconds since the wait that is under way began."""
        return round(float(self._reactor.seconds()) - self._awaited_since, 3)

    def _wait(self) -> None:
        waiting = self._awaited
        assert waiting is not None
        self._awaited_since = now = self._reactor.seconds()
        self._patience = patience = waiting.patience
        self._arrived = 0
        bulk = patience is DATA or isinstance(waiting, Forward)
        if bulk is not self._bulk:
            self._bulk = bulk
            for leg in self._legs.values():
                leg.read_size = MOST if bulk else NEGOTIATING
        self._renew(now)

    def _renew(self, now: float) -> None:
        """What is awaited may take its time from now on; before the session is proven, never beyond `preauth`."""
        patience = self._patience
        due = now + self._context.allowances[patience]
        if patience is DATA:
            # Otherwise an octet a minute would keep a session, and the backend's, for ever.
            timeouts = self._context.timeouts
            due = min(due, self._awaited_since + timeouts.message + self._arrived / timeouts.message_rate)
        self._deadline.set(due if self._proven or due < self._limit else self._limit)

    def leg_secured(self, leg: Leg, facts: Secured) -> None:
        if leg is self._client:
            self._limit = self._began + self._context.timeouts.preauth
        super().leg_secured(leg, facts)

    def _received(self, side: Side, octets: bytes) -> None:
        negotiation, waiting = self._negotiation, self._awaited
        if self._over or negotiation.over:
            return
        try:
            self._perform(negotiation.receive(side, octets))
        except Exception as error:
            self._failed(error)
        if self._bulk and waiting is self._awaited and not self._negotiation.over:
            self._arrived += len(octets)
            self._renew(self._reactor.seconds())

    def _expired(self) -> None:
        try:
            if self._spliced:
                self._relay_expired()
            elif self._proven and self._channels is not None and self._channels.busy:
                # Data flows, or has to under a deadline of its own.  The session waits anew when it is over.
                self._renew(self._reactor.seconds())
            else:
                self._report(self._negotiation.expire, self._lateness())
        except Exception:
            # After a bug of ours this is the last that would ever happen here.
            self.abort()
            raise

    def _channel_gone(self) -> None:
        if self._over:
            self._part()
        elif self._awaited is not None:
            self._renew(self._reactor.seconds())

    def _lateness(self) -> Trouble:
        """What the negotiation is told: who kept us waiting, and for what.

        A client that has proven nothing in time is late, but for one whose login the backend has had for most of it.
        """
        asked = self._patience is Patience.REPLY and 2 * self._waited() > self._limit - self._began
        if not self._proven and self._limit <= self._reactor.seconds() and not asked:
            return Expired(CLIENT, Patience.COMMAND)
        return lateness(self._negotiation.waiting)
