"""An errand to a backend: a negotiation that has no client, done for the gateway's own sake."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from twisted.logger import Logger

from ..config.values import Timeouts
from ..protocol.driver import Negotiation
from ..protocol.proxyprotocol import Origin
from ..protocol.vocabulary import (
    Note,
    Patience,
    Proven,
    Question,
    Rejected,
    Script,
    Secured,
    Side,
    Tally,
    Trouble,
)
from ..protocol.waiting import lateness
from ..telemetry.kinds import Blame
from ..wire.dialer import Dialer
from ..wire.leg import Leg, ends
from .deadline import allowances
from .performer import ConnectTLS, Performer

_log = Logger()


class Errand(Performer):
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
        super().__init__(reactor, Negotiation(script), dialer, connect_tls, timeouts.linger)
        self.trouble = Trouble("")
        """How it ended, and why: the key and the detail of the script's Close, or what the script did not catch."""
        self.notes: list[Note] = []
        self.secured: Secured | None = None
        """TLS with the backend."""
        self.place = ""
        """What was reached, in words."""
        self.ends: Origin | None = None
        """Of the connection: ours is the source; None for a UNIX socket."""
        self._allowances = allowances(timeouts, patience)
        self._limit = limit
        self._done = done
        self._ends_at = 0.0
        self._told = False

    def start(self) -> None:
        self._ends_at = self._reactor.seconds() + self._limit
        self._report(self._negotiation.start)

    def cancel(self) -> None:
        """Leave at once; `done` will not be called."""
        self._told = True
        self._finish(Trouble("aborted"))
        self._end_legs(reset=True)

    # --- what happens ------------------------------------------------------------------------

    def _dialled(self, sock: socket.socket) -> None:
        assert self._attempt is not None
        self.place = self._attempt.reached.text
        found = ends(sock)
        self.ends = None if found is None else Origin(source=found[0], destination=found[1])
        self.secured = None
        super()._dialled(sock)

    def leg_secured(self, leg: Leg, facts: Secured) -> None:
        self.secured = facts
        super().leg_secured(leg, facts)

    def _gone(self, side: Side) -> None:
        if self._over:
            self._tell_done()

    def _expired(self) -> None:
        self._report(lambda: self._negotiation.expire(lateness(self._negotiation.waiting)))

    # --- what is done ------------------------------------------------------------------------

    def _wait(self) -> None:
        waiting = self._awaited
        assert waiting is not None
        self._deadline.set(min(self._reactor.seconds() + self._allowances[waiting.patience], self._ends_at))

    def _blame(self, failed: str) -> tuple[Blame, str]:
        return Blame.ADDRESS, ""  # there is no client

    def _note(self, note: Note) -> None:
        self.notes.append(note)

    def _performed(self) -> None:
        pass

    def leg_pressed(self, leg: Leg, full: bool) -> None:
        pass  # an errand says a few lines

    def _tell(self, fact: Proven | Rejected | Tally) -> None:
        pass  # about a client

    def _answer(self, question: Question) -> object:
        raise AssertionError("there is no client")

    # --- the end -----------------------------------------------------------------------------

    def _splice(self) -> None:
        self._finish(Trouble("internal-error", "a look at a backend became a splice"))

    def _close(self, reason: str, detail: str) -> None:
        self._finish(Trouble(reason, detail))

    def _failed(self, error: Exception) -> None:
        if isinstance(error, Trouble):
            self._finish(error)  # the script did not catch it
            return
        _log.critical("a bug ended an errand: {kind}", kind=type(error).__name__)
        self._finish(Trouble("internal-error", type(error).__name__))

    def _finish(self, trouble: Trouble) -> None:
        self._over = True
        self.trouble = trouble
        self._stop()
        if self._legs:
            self._end_legs()
        else:
            self._reactor.callLater(0, self._tell_done)  # never from inside `start`

    def _tell_done(self) -> None:
        if not self._told:
            self._told = True
            self._done(self)
