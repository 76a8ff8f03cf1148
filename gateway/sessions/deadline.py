"""One deadline for one session, moved with every step and paid for only when it fires."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ..config.values import Timeouts
from ..protocol.vocabulary import Patience


def allowances(timeouts: Timeouts, dialect: Mapping[Patience, float]) -> Mapping[Patience, float]:
    """Seconds for each kind of wait: the dialect's, and what the configuration says.  The dialer watches itself."""
    return {
        **dialect,
        Patience.CONNECT: float("inf"),
        Patience.PROXY: timeouts.proxy_header,
        Patience.GREETING: timeouts.greeting,
        Patience.HANDSHAKE: timeouts.handshake,
    }


NEVER: Final = float("inf")


class Deadline:
    """Calls `expired` when the time that was set last has come.

    Setting a later time costs no timer: the old one fires, sees that it is early, and waits again.
    """

    __slots__ = ("_call", "_due", "_expired", "_fires", "_reactor")

    def __init__(self, reactor: Any, expired: Callable[[], None]) -> None:
        self._reactor = reactor
        self._expired = expired
        self._due = 0.0
        self._call: Any = None
        self._fires = NEVER

    def set(self, due: float) -> None:
        """To a time of the reactor's clock."""
        self._due = due
        if due < self._fires:
            # A new one: to move the old one forward the reactor would search it among all others.
            self.cancel()
            self._fires = due
            self._call = self._reactor.callLater(max(0.0, due - self._reactor.seconds()), self._fire)

    def cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call, self._fires = None, NEVER

    def _fire(self) -> None:
        self._call, self._fires = None, NEVER
        if self._due > self._reactor.seconds():
            self.set(self._due)
        else:
            self._expired()
