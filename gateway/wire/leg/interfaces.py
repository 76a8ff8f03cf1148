"""What a leg tells its owner."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

from ...protocol.vocabulary import Secured

if TYPE_CHECKING:
    from .leg import Leg


class End(Enum):
    """How the input ended."""

    ORDERLY = "orderly"
    """In the clear: FIN. Under TLS: close_notify."""
    TRUNCATED = "truncated"
    """Under TLS: FIN without close_notify. Anybody on the path can cause this, so the input may be incomplete."""
    RESET = "reset"
    """The connection failed. Octets that were sent may not have arrived. The leg closes itself."""


class Owner(Protocol):
    """The session or errand that a leg belongs to."""

    def leg_secured(self, leg: Leg, facts: Secured) -> None:
        """The TLS handshake is complete. Plaintext from inside TLS comes after this call, never before."""

    def leg_tls_failed(self, leg: Leg, reason: str) -> None:
        """The TLS handshake failed. The leg sends the alert and closes itself."""

    def leg_ended(self, leg: Leg, end: End) -> None:
        """No more input will come. After ORDERLY and TRUNCATED the leg can still write."""

    def leg_pressed(self, leg: Leg, full: bool) -> None:
        """True: more than HIGH_WATER octets are unsent. False: less than LOW_WATER octets are unsent again."""

    def leg_closed(self, leg: Leg) -> None:
        """The descriptor is closed. This is the last call."""
