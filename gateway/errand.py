"""An errand to a backend: a negotiation that has no client, done for the gateway's own sake."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from twisted.logger import Logger

from .backend import Attempt, Dialer
from .config.values import Backend, Timeouts
from .deadline import Deadline, allowances
from .dialects.base import BackendTLS, Identity, Policy, Terms
from .health import Blame
from .leg import End, Leg
from .negotiation.driver import Negotiation
from .negotiation.vocabulary import (
    Abort,
    Action,
    Close,
    Dial,
    Greeted,
    Note,
    Patience,
    Script,
    Secured,
    Send,
    Side,
    Splice,
    StartTLS,
    Trouble,
)
from .negotiation.waiting import lateness
from .proxyprotocol import Origin
from .tls.half import TLSHalf

_log = Logger()

ConnectTLS = Callable[[str], TLSHalf]
"""host -> the connecting half of TLS towards it."""


class Errand:
    """Performs a script that addresses nobody but the backend; never raises.

    `done` is called once, when the connection is gone; what the script found out is the script's to keep.
    `limit`: seconds for all of it, after which the wait that is under way has lasted too long.
    """

    def __init__(
        self,
        reactor: Any,
        script: Script,
        dialer: Dialer,
        connect_tls: ConnectTLS | None,
        timeouts: Timeouts,
        patience: Mapping[Patience, float],
        limit: float,
        done: Callable[[Errand], object],
    ) -> None:
        self.trouble = Trouble("")
        """How it ended, and why: the key and the detail of the script's Close, or what the script did not catch."""
        self.notes: list[Note] = []
        self.secured: Secured | None = None
        """TLS with the backend."""
        self.place = ""
        """What was reached, in words."""
        self.ends: Origin | None = None
        """Of the connection: ours is the source; None for a UNIX socket."""
        self._reactor = reactor
        self._negotiation = Negotiation(script)
        self._dialer = dialer
        self._connect_tls = connect_tls
        self._timeouts = timeouts
        self._allowances = allowances(timeouts, patience)
        self._limit = limit
        self._done = done
        self._attempt: Attempt | None = None
        self._leg: Leg | None = None
        self._awaited: object = None
        self._ends_at = 0.0
        self._over = False
        self._told = False
        self._deadline = Deadline(reactor, self._expired)

    def start(self) -> None:
        self._ends_at = self._reactor.seconds() + self._limit
        self._go(self._negotiation.start)

    def cancel(self) -> None:
        """Leave at once; `done` will not be called."""
        self._told = True
        self._finish(Trouble("aborted"))
        if self._leg is not None:
            self._leg.abort()

    # --- what happens ------------------------------------------------------------------------

    def _dialled(self, sock: socket.socket) -> None:
        assert self._attempt is not None
        self.place = self._attempt.reached.text
        self.ends = _ends(sock)
        self.secured = None
        self._leg = Leg(self._reactor, sock, self, self._timeouts.linger)
        self._leg.deliver = self._received
        self._leg.start()
        self._go(self._negotiation.dialled)

    def _undialled(self, detail: str) -> None:
        self._go(self._negotiation.undialled, detail)

    def _received(self, octets: bytes) -> None:
        self._go(self._negotiation.receive, Side.BACKEND, octets)

    def leg_secured(self, leg: Leg, facts: Secured) -> None:
        self.secured = facts
        self._go(self._negotiation.secured, Side.BACKEND, facts)

    def leg_tls_failed(self, leg: Leg, reason: str) -> None:
        if leg is self._leg:
            self._go(self._negotiation.unsecured, Side.BACKEND, reason)

    def leg_ended(self, leg: Leg, end: End) -> None:
        if leg is self._leg:
            self._go(self._negotiation.ended, Side.BACKEND, end is not End.RESET)

    def leg_pressed(self, leg: Leg, full: bool) -> None:
        pass  # an errand says a few lines

    def leg_closed(self, leg: Leg) -> None:
        if leg is self._leg:
            self._leg = None
            if self._over:
                self._tell()

    def _expired(self) -> None:
        self._go(lambda: self._negotiation.expire(lateness(self._negotiation.waiting)))

    # --- what is done ------------------------------------------------------------------------

    def _go(self, happen: Callable[..., list[Action]], *what: object) -> None:
        """The one way into the negotiation; whatever comes out of it besides actions is the end."""
        if self._over:
            return
        try:
            self._perform(happen(*what))
        except Trouble as trouble:
            self._finish(trouble)
        except Exception as error:
            _log.critical("a bug ended an errand: {kind}", kind=type(error).__name__)
            self._finish(Trouble("internal-error", type(error).__name__))

    def _perform(self, actions: Sequence[Action]) -> None:
        leg = self._leg
        for action in actions:
            match action:
                case Send(Side.BACKEND, octets) if leg is not None:
                    leg.write(octets)
                case StartTLS(Side.BACKEND, last_words) if leg is not None:
                    leg.write(last_words)
                    leg.start_tls(self._connecting(), self._negotiation.early(Side.BACKEND))
                case Dial():
                    self._dial(action)
                case Greeted():
                    assert self._attempt is not None
                    self._attempt.greeted()
                case Note():
                    self.notes.append(action)
                case Abort(Side.BACKEND) if leg is not None:
                    leg.abort()
                case Close(reason=reason, detail=detail):
                    self._finish(Trouble(reason, detail))
                case Splice():
                    self._finish(Trouble("spliced"))
        self._watch()

    def _connecting(self) -> TLSHalf:
        assert self._attempt is not None and self._connect_tls is not None
        return self._connect_tls(self._attempt.reached.host)

    def _dial(self, action: Dial) -> None:
        leg, self._leg = self._leg, None
        if leg is not None:
            (leg.abort if action.failed else leg.close)()
        if self._attempt is not None and action.failed:
            self._attempt.again(Blame.ADDRESS, "")  # the backend knows no client here
        else:
            self._attempt = self._dialer.dial(self._dialled, self._undialled)

    def _watch(self) -> None:
        waiting = self._negotiation.waiting
        if self._over or waiting is self._awaited:
            return
        self._awaited = waiting
        assert waiting is not None
        self._deadline.set(min(self._reactor.seconds() + self._allowances[waiting.patience], self._ends_at))

    # --- the end -----------------------------------------------------------------------------

    def _finish(self, trouble: Trouble) -> None:
        self._over = True
        self.trouble = trouble
        self._deadline.cancel()
        if self._attempt is not None:
            self._attempt.cancel()
        if self._leg is not None:
            self._leg.close()
        else:
            self._reactor.callLater(0, self._tell)  # never from inside `start`

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._done(self)


def _ends(sock: socket.socket) -> Origin | None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        return Origin(sock.getsockname()[:2], sock.getpeername()[:2])
    except OSError:
        return None  # reset meanwhile; the leg will learn of it


def terms_of_errands(hostname: str, backend: Backend, session: str) -> Terms:
    """What is agreed on with a backend, for somebody who is inside TLS and nobody's client.

    `session` stands in the backend's log, where it is told who comes.
    """
    return Terms(
        hostname=hostname.encode("ascii"),
        implicit=True,
        policy=Policy.REQUIRED,
        lazy=False,
        bad_commands=1000,
        client="",
        session=session,
        now=lambda: datetime.now(timezone.utc),
        backend_tls=BackendTLS(backend.tls),
        backend_verified=backend.tls != "none" and backend.verify != "no",
        identity=Identity(backend.identity),
    )
