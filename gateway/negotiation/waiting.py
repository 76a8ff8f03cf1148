"""How long a wait may last, and what to say of one that lasted longer: for whoever owns the clock."""

from __future__ import annotations

from .vocabulary import Await, Dial, Expired, Pass, Patience, Peek, Side, StartTLS, Take, TLSFailed, Trouble, Wait


def patience_for(wait: Wait | None) -> Patience | None:
    """Which deadline the wait is under; None for one that has a deadline of its own (the dialer's)."""
    match wait:
        case None | Dial():
            return None
        case StartTLS():
            return Patience.HANDSHAKE
    return wait.patience


def lateness(wait: Wait | None) -> Trouble:
    """What the negotiation is to be told: who kept us waiting, and for what."""
    patience = patience_for(wait) or Patience.CONNECT
    match wait:
        case StartTLS(side):
            return TLSFailed(side, "handshake timed out")
        case Await(sides) if Side.CLIENT in sides:
            return Expired(Side.CLIENT, patience)
        case Take(side) | Peek(side) | Pass(side):
            return Expired(side, patience)
    return Expired(Side.BACKEND, patience)
