"""Carries out what a negotiation decides, and tells it what happened.

A session and an errand are performers: what differs is who listens on the client's side, and what is told to whom.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from ..protocol.driver import Negotiation
from ..protocol.vocabulary import (
    BACKEND,
    CLIENT,
    Abort,
    Action,
    AlwaysSecured,
    Close,
    Cut,
    Dial,
    Greeted,
    Identified,
    IsBroken,
    Label,
    MayLogIn,
    Note,
    Open,
    Proven,
    Question,
    Rejected,
    Script,
    Secured,
    Send,
    Side,
    Splice,
    StartTLS,
    Tally,
    Unserved,
    Wait,
)
from ..telemetry.kinds import Blame
from ..wire.dialer import Attempt, Dialer
from ..wire.leg import End, Leg
from ..wire.tls.half import TLSHalf
from .pair import Pair

ConnectTLS = Callable[[str], TLSHalf]
"""host -> the connecting half of TLS towards it."""


def _nothing() -> Script:
    yield from ()


SPENT = Negotiation(_nothing())
"""A negotiation that is over, for everybody who has none any more."""
SPENT.start()


PLAINTEXT_INSIDE: Final = ("TLS: wrong version number", "TLS: bad record type")
"""What OpenSSL says of octets that are no TLS record."""
REJECTED: Final = "plaintext inside TLS: the client probably rejected the certificate"
"""Some clients look at the certificate after the handshake and say goodbye in the clear (libldap)."""


class Performer(Pair):
    """Owns the negotiation, too, and the attempt to reach the backend."""

    __slots__ = (
        "_attempt",
        "_awaited",
        "_connect_tls",
        "_dialer",
        "_dialling",
        "_negotiation",
    )

    def __init__(
        self, reactor: Any, negotiation: Negotiation, dialer: Dialer, connect_tls: ConnectTLS | None, linger: float
    ) -> None:
        super().__init__(reactor, linger)
        self._negotiation = negotiation
        self._dialer = dialer
        self._connect_tls = connect_tls
        self._attempt: Attempt | None = None
        self._dialling = False
        self._awaited: Wait | None = None

    # --- what a session or an errand adds ----------------------------------------------------

    @abstractmethod
    def _note(self, note: Note) -> None:
        """The negotiation has something for the log."""

    @abstractmethod
    def _tell(self, fact: Proven | Rejected | Tally) -> None:
        """It found out something about the client."""

    @abstractmethod
    def _answer(self, question: Question) -> object:
        """What the negotiation wants to know of the limits."""

    @abstractmethod
    def _blame(self, failed: str) -> tuple[Blame, str]:
        """Whom this failure of an address speaks against, and the client's address."""

    @abstractmethod
    def _wait(self) -> None:
        """`_awaited` is a new wait: set its deadline."""

    @abstractmethod
    def _gone(self, side: Side) -> None:
        """That leg is closed."""

    @abstractmethod
    def _splice(self) -> None:
        """The negotiation is over; the legs copy to each other."""

    @abstractmethod
    def _close(self, reason: str, detail: str) -> None:
        """The negotiation is over, and so is the session."""

    @abstractmethod
    def _failed(self, error: Exception) -> None:
        """What was decided and not done will not be done any more."""

    def _accept(self, name: bytes) -> TLSHalf:
        """The accepting half of TLS, for the client, which has asked for this name (perhaps empty) before."""
        raise AssertionError("there is no client")

    def _steer(self, action: Label | Cut) -> None:
        """The newest channel is meant."""
        raise AssertionError("an errand has no channels")

    @abstractmethod
    def _performed(self) -> None:
        """A list of actions is done, and the negotiation goes on."""

    @abstractmethod
    def leg_pressed(self, leg: Leg, full: bool) -> None:
        """It has more unsent octets than it should have, or has got rid of them."""

    # --- what happens ------------------------------------------------------------------------

    def _leg(self, side: Side, sock: Any) -> Leg:
        leg = Leg(self._reactor, sock, self, self._linger)
        leg.deliver = partial(self._received, side)
        self._legs[side] = leg
        return leg

    def _received(self, side: Side, octets: bytes) -> None:
        self._report(self._negotiation.receive, side, octets)

    def leg_secured(self, leg: Leg, facts: Secured) -> None:
        if (side := self._side(leg)) is not None:
            self._report(self._negotiation.secured, side, facts)

    def leg_tls_failed(self, leg: Leg, reason: str) -> None:
        if (side := self._side(leg)) is not None:
            self._report(self._negotiation.unsecured, side, reason)

    def leg_ended(self, leg: Leg, end: End) -> None:
        if (side := self._side(leg)) is not None:
            self._ends[side] = end
            if side is CLIENT and leg.cause in PLAINTEXT_INSIDE:
                self._report(self._negotiation.unsecured, side, REJECTED)
                return
            # A FIN without close_notify is no reset: what came before it counts, and that is all.
            self._report(self._negotiation.ended, side, end is not End.RESET)

    def leg_closed(self, leg: Leg) -> None:
        if (side := self._side(leg)) is not None:
            del self._legs[side]
            self._gone(side)

    def _dialled(self, sock: Any) -> None:
        self._dialling = False
        self._leg(BACKEND, sock).start()
        self._report(self._negotiation.dialled)

    def _undialled(self, detail: str) -> None:
        self._dialling = False
        self._report(self._negotiation.undialled, detail)

    # --- what is done ------------------------------------------------------------------------

    def _report(self, event: Callable[..., list[Action]], *args: Any) -> None:
        """Tell the negotiation, and do what it says."""
        if self._over or self._negotiation.over:
            return
        try:
            self._perform(event(*args))
        except Exception as error:
            self._failed(error)

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:  # an answer adds to them
            if isinstance(action, Send):  # most are
                leg = self._legs.get(action.side)
                if leg is not None:
                    leg.write(action.data)
            elif more := _DONE[type(action)](self, action):
                actions += more
        if not (self._over or self._negotiation.over):
            waiting = self._negotiation.waiting
            if waiting is not self._awaited:
                self._awaited = waiting
                self._wait()
            self._performed()

    def _ask(self, question: Question) -> list[Action]:
        """What the negotiation decides by the answer.  No call of `_report`: one read may bring as many questions as
        lines."""
        answer = self._answer(question)
        return self._negotiation.answered(answer) if self._negotiation.waiting is question and not self._over else []

    def _start_tls(self, order: StartTLS) -> None:
        leg = self._legs[order.side]
        if order.last_words:
            leg.write(order.last_words)
        half = self._accept(order.name) if order.side is CLIENT else self._connect()
        leg.start_tls(half, self._negotiation.early(order.side), order.blanks)

    def _judge(self, verdict: Greeted | Unserved) -> None:
        """Of the address that was reached."""
        assert self._attempt is not None
        if isinstance(verdict, Greeted):
            self._attempt.greeted()
        else:
            self._attempt.unserved(*self._blame(verdict.failed))

    def _drop(self, order: Abort) -> None:
        if order.side in self._legs:
            self._legs[order.side].abort()

    def _connect(self) -> TLSHalf:
        assert self._attempt is not None and self._connect_tls is not None
        return self._connect_tls(self._attempt.reached.host)

    def _dial(self, failed: str) -> None:
        self._dialling = True
        leg = self._legs.pop(BACKEND, None)
        self._ends.pop(BACKEND, None)
        if leg is not None:
            # What failed is dropped; a backend that is only left behind still gets what was said to it.
            (leg.abort if failed else leg.close)()
        if self._attempt is not None and failed:
            self._attempt.again(*self._blame(failed))
        else:
            self._attempt = self._dialer.dial(self._dialled, self._undialled)

    # --- the end -----------------------------------------------------------------------------

    def _stop(self) -> None:
        """No deadline, no dialling any more."""
        self._deadline.cancel()
        if self._attempt is not None:
            self._attempt.cancel()
        self._dialling = False


_DONE: Final[Mapping[type, Callable[[Performer, Any], list[Action] | None]]] = {
    Note: lambda performer, note: performer._note(note),
    **dict.fromkeys((Proven, Rejected, Tally), lambda performer, fact: performer._tell(fact)),
    **dict.fromkeys((MayLogIn, AlwaysSecured, Identified, Open, IsBroken), Performer._ask),
    **dict.fromkeys((Greeted, Unserved), Performer._judge),
    **dict.fromkeys((Label, Cut), lambda performer, action: performer._steer(action)),
    Dial: lambda performer, order: performer._dial(order.failed),
    StartTLS: Performer._start_tls,
    Abort: Performer._drop,
    Splice: lambda performer, _: performer._splice(),
    Close: lambda performer, end: performer._close(end.reason, end.detail),
}
"""What is done for an action beside Send.  To find it by `match` took 2 % of all Python instructions of a session."""
