"""Channels: connections for data beside those of a session, two legs each and a copy between them.

One side is listened for, and has to come from the address that it has in the session, or to be named by a load balancer
that is trusted.  At that moment the other side is dialled, and TLS with the client begins: some clients begin their
handshake only when the server has said that it has a connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from ..config.values import TCPAddress
from ..protocol.proxyprotocol import Header, ProxyError, canonical
from ..protocol.vocabulary import BACKEND, CLIENT, Cut, Label, Open, Place, Secured, Side
from ..records import dataclass
from ..wire.beside import BACKLOG, listen_beside
from ..wire.dialer import Dialer
from ..wire.leg import End, Leg, nobody
from ..wire.listener import Listener
from ..wire.tls.half import TLSHalf
from .agreed import ChannelTerms
from .pair import Copying

_mapped: Final = re.compile(r"\A::ffff:(?=[0-9.]+\Z)")
"""What stands before an IPv4 address in one of IPv6."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the channels of a session have of it."""

    reactor: Any
    terms: ChannelTerms
    linger: float
    accept: Callable[[], TLSHalf]
    """TLS with the client."""
    connect: Callable[[], TLSHalf]
    """TLS with the backend, which resumes that of the session."""
    leg: Callable[[Side], Leg | None]
    """Of the session."""
    client: Callable[[], str]
    """The client's canonical address, which a load balancer may have told."""
    emit: Callable[..., object]
    """Tells an event and its fields."""
    gone: Callable[[], None]
    """A channel is gone."""


class Channels:
    """All channels of one session."""

    __slots__ = ("_around", "_last", "_newest", "_open", "received", "sent")

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._open: list[Channel] = []
        self._newest: Channel | None = None
        self._last = ""
        """Why the newest ended."""
        self.received = 0
        """Octets from the client, of channels that are gone."""
        self.sent = 0

    def __len__(self) -> int:
        return len(self._open)

    @property
    def octets(self) -> tuple[int, int]:
        """From the client and to it."""
        received = self.received + sum(channel.received for channel in self._open)
        return received, self.sent + sum(channel.sent for channel in self._open)

    @property
    def idle(self) -> list[float]:
        """Of each connection, the seconds since its last octet."""
        return [seconds for channel in self._open for seconds in channel.idle]

    @property
    def busy(self) -> bool:
        """Whether data flows, or is about to."""
        return any(channel.busy for channel in self._open)

    @property
    def broken(self) -> bool:
        """Whether the newest has ended before all was said."""
        reason = self._last if self._newest is None else self._newest.reason
        return reason not in ("", "client-closed", "backend-closed")

    def open(self, order: Open) -> Place | None:
        around = self._around
        near, far = self._ends(order.first), self._ends(order.first.other)
        if near is None or far is None:
            return None
        # One that was cut is gone in the next turn, and this may be the same one: PORT again.
        if sum(channel.reason != "aborted" for channel in self._open) >= around.terms.most:
            around.emit("data-refused", limit="data-connections")
            return None
        try:
            sock = listen_beside(near[0], around.terms.ports if order.first is CLIENT else None)
        except OSError as error:
            around.emit("data-refused", limit="system", detail=error.strerror)
            return None
        if sock is None:
            around.emit("data-refused", limit="passive-ports")
            return None
        place = Place(*sock.getsockname()[:2])
        target = TCPAddress(far[1], order.port)
        # A client expects data from the address that it has connected to.  That may be a load balancer's.
        source = far[0] if order.first is BACKEND and not self._introduced else ""
        dialer = Dialer(around.reactor, (target,), around.terms.connect, source=source)
        self._last = ""
        self._newest = Channel(around, order, sock, canonical(near[1]), dialer, self._gone)
        self._open.append(self._newest)
        return place

    def steer(self, action: Label | Cut) -> None:
        """Does nothing if the newest is gone already."""
        match self._newest, action:
            case None, _:
                pass
            case channel, Label(fields=fields):
                channel.label.update(fields)
            case channel, Cut():
                channel.cut("aborted")

    def retire(self) -> None:
        """The session is over: what flows may flow to its end."""
        for channel in list(self._open):
            if not channel.busy:
                channel.cut("unused")

    def abort(self) -> None:
        """Nothing may go on."""
        for channel in list(self._open):
            channel.cut("aborted")

    @property
    def _introduced(self) -> bool:
        """Whether the client came through a load balancer."""
        leg = self._around.leg(CLIENT)
        ends = None if leg is None else leg.ends
        return ends is not None and canonical(ends[1][0]) != self._around.client()

    def _ends(self, side: Side) -> tuple[str, str] | None:
        """Our host and that side's; None for a UNIX socket, and for whoever is gone."""
        leg = self._around.leg(side)
        ends = None if leg is None else leg.ends
        if ends is None:
            return None
        # A socket of systemd may be one for both families.
        own, theirs = (_mapped.sub("", end[0]) for end in ends)
        client = self._around.client()
        return own, client if side is CLIENT and canonical(theirs) != client else theirs

    def _gone(self, channel: Channel) -> None:
        self._open.remove(channel)
        if self._newest is channel:
            self._newest = None
            self._last = channel.reason
        self.received += channel.received
        self.sent += channel.sent
        self._around.gone()


class Channel(Copying):
    """One of them.  `gone` is called once, in a turn of the reactor of its own."""

    __slots__ = (
        "_around",
        "_attempt",
        "_began",
        "_dialer",
        "_done",
        "_due",
        "_early",
        "_expected",
        "_hidden",
        "_joined",
        "_listener",
        "_order",
        "_secured",
        "_unnamed",
        "label",
        "reason",
        "received",
        "sent",
    )

    def __init__(
        self,
        around: Surroundings,
        order: Open,
        sock: Any,
        expected: str,
        dialer: Dialer,
        gone: Callable[[Channel], None],
    ) -> None:
        super().__init__(around.reactor, around.linger)
        self._around = around
        self._order = order
        self._expected = expected
        self._dialer = dialer
        self._unnamed: set[Leg] = set()
        """Of load balancers, whose header is not there yet."""
        self._early = b""
        """Data in the clear that came with such a header."""
        control = around.leg(BACKEND)
        self._hidden = control is not None and control.secured is not None
        self._done: Callable[[Channel], None] = gone
        self._attempt: Any = None
        self._joined = False
        self._secured: Secured | None = None
        self._began: float | None = None
        """When both sides were there."""
        self.reason = ""
        """Why it ended."""
        self.label: dict[str, object] = {}
        """More fields of its event."""
        self.received = 0
        """Octets from the client."""
        self.sent = 0
        self._due = float(around.reactor.seconds()) + around.terms.connect
        """When it must be complete."""
        self._listener = Listener(around.reactor, sock, self._accepted, reserve=False)
        self._listener.start()
        self._extend(around.terms.connect)

    @property
    def idle(self) -> list[float]:
        return [seconds for leg in self._legs.values() if (seconds := leg.idle) is not None]

    @property
    def _shaking(self) -> bool:
        """TLS is not there yet."""
        backend = self._legs.get(BACKEND)
        return (self._order.protected and self._secured is None) or (
            self._hidden and (backend is None or backend.secured is None)
        )

    @property
    def busy(self) -> bool:
        """Somebody has connected."""
        return self._began is not None and not self._over

    # --- it comes into being -----------------------------------------------------------------

    def _accepted(self, sock: Any, address: Any) -> None:
        came = canonical(address[0])
        if came == self._expected:
            self._begin(self._leg(sock))
        elif self._order.first is CLIENT and self._around.terms.introduces(came) and len(self._unnamed) < BACKLOG:
            leg = self._leg(sock)
            self._unnamed.add(leg)
            leg.deliver = partial(self._hear_header, leg, came, Header())
            leg.start()
        else:
            sock.close()
            self._around.emit("data-stranger", came_from=came)

    def _hear_header(self, leg: Leg, came: str, header: Header, octets: bytes) -> None:
        try:
            told = header.feed(octets)
        except ProxyError:
            self._dismiss(leg, came)
            return
        if told is None:
            return
        named = "" if told.origin is None else told.origin.source[0]
        if named != self._expected:
            self._dismiss(leg, named)
            return
        leg.pause()
        leg.deliver = nobody
        self._unnamed.discard(leg)
        leg.received = 0 if self._order.protected else len(told.rest)
        self._begin(leg, told.rest)

    def _dismiss(self, leg: Leg, whom: str) -> None:
        leg.abort()
        if whom:  # a load balancer may look whether somebody is there
            self._around.emit("data-stranger", came_from=whom)

    def _begin(self, leg: Leg, early: bytes = b"") -> None:
        self._listener.stop()
        self._dismiss_all()
        self._began = float(self._reactor.seconds())
        self._add(self._order.first, leg, early)
        self._attempt = self._dialer.dial(self._dialled, self._undialled)

    def _dismiss_all(self) -> None:
        for leg in tuple(self._unnamed):
            leg.abort()

    def _dialled(self, sock: Any) -> None:
        self._add(self._order.first.other, self._leg(sock))
        self._join()

    def _undialled(self, detail: str) -> None:
        self._fail("data-connect-failed", detail)

    def _leg(self, sock: Any) -> Leg:
        leg = Leg(self._reactor, sock, self, self._linger)
        leg.reset_unless_ended()
        return leg

    def _add(self, side: Side, leg: Leg, early: bytes = b"") -> None:
        self._legs[side] = leg
        if side is CLIENT and self._order.protected:
            half = self._around.accept()
            half.holds_tickets = True
            leg.start_tls(half, early)
        elif side is CLIENT:
            self._early = early
        elif side is BACKEND and self._hidden:
            leg.start_tls(self._around.connect())

    def _join(self) -> None:
        """What waits for TLS waits in the leg.  Only a client that must resume its session has to have done so."""
        waits = self._around.terms.resumed and self._order.protected and self._secured is None
        if not self._joined and not self._over and len(self._legs) == 2 and not waits:
            self._joined = True
            self._legs[BACKEND].write(self._early)
            self._copy(self._around.terms.stall)
            if not self._over:
                self._flow()

    # --- what its legs tell ------------------------------------------------------------------

    def leg_secured(self, leg: Leg, facts: Secured) -> None:
        if self._side(leg) is CLIENT:
            self._secured = facts
            if self._around.terms.resumed and not facts.resumed:
                self._fail("data-session-not-resumed", "")
                return
            self._join()
        if self._joined and not (self._over or self._shaking):
            self._stalled(self._around.terms.stall)

    def leg_tls_failed(self, leg: Leg, reason: str) -> None:
        side = self._side(leg)
        assert side is not None
        self._fail("data-tls-failed" if side is CLIENT else "backend-data-tls-failed", reason)

    def leg_ended(self, leg: Leg, end: End) -> None:
        side = self._side(leg)
        if side is None:
            leg.abort()
            return
        if self._over:
            return
        self._ends[side] = end
        if self._joined:
            self._half_ended(side)
        elif end is End.RESET:
            self._finish(f"{side.value}-lost")
            self._end_legs(reset=True)

    def leg_pressed(self, leg: Leg, full: bool) -> None:
        if self._joined and not self._over:
            self._flow()

    def leg_closed(self, leg: Leg) -> None:
        side = self._side(leg)
        if side is None:
            self._unnamed.discard(leg)
            return
        del self._legs[side]
        if side is CLIENT:
            self.received, self.sent = leg.received, leg.sent
        if not self._over:
            self._finish(f"{side.value}-lost")
            self._end_legs(reset=True)
        if not self._legs:
            self._account()

    def _cuts_short(self, side: Side) -> bool:
        """Whoever cuts the connection makes an end without close_notify.  It is the end of nothing if this side has
        said nothing, and the other side all before: then it is the answer to that."""
        end = self._ends[side]
        lax = not self._around.terms.strict or (side.other in self._ends and not self._legs[side].received)
        return end is End.RESET or (end is End.TRUNCATED and not lax)

    # --- the end -----------------------------------------------------------------------------

    def _extend(self, seconds: float) -> None:
        due = float(self._reactor.seconds()) + seconds
        self._deadline.set(min(due, self._due) if self._shaking else due)

    def _expired(self) -> None:
        if self._shaking or not self._joined:
            self._fail("data-timeout", "")
        elif self._stalled(self._around.terms.stall):
            self._finish("stalled")
            # After the end of one side all of it has been said; else nothing may look complete.
            self._end_legs(reset=not self._ends)

    def _fail(self, event: str, detail: str) -> None:
        if not self._over:
            # First: whoever is told of it may count on a port that is closed.
            self.cut(event)
            self._around.emit(event, detail=detail or None)

    def cut(self, reason: str) -> None:
        """At once."""
        if not self._over and not self._legs:
            self._reactor.callLater(0, self._account)
        self._finish(reason)
        self._end_legs(reset=True)

    def _finish(self, reason: str, detail: str = "") -> None:
        if not self._over:
            self._over = True
            self.reason = reason
        self._deadline.cancel()
        self._listener.stop()
        self._dismiss_all()
        if self._attempt is not None:
            self._attempt.cancel()

    def _account(self) -> None:
        if self._began is not None:
            self._around.emit(
                "transfer",
                **self.label,
                received=self.received,
                sent=self.sent,
                protection=self._secured.version if self._secured is not None else "none",
                reason=self.reason,
                seconds=round(float(self._reactor.seconds()) - self._began, 3),
            )
        self._done(self)
        # As in a session: no circle is left for the garbage collector.
        del self._deadline, self._listener, self._attempt
