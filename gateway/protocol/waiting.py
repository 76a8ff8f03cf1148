"""What to say of a wait: for whoever owns the clock and the log."""

from __future__ import annotations

from .vocabulary import (
    Await,
    Dial,
    Expired,
    Forward,
    Pass,
    Patience,
    Peek,
    Side,
    StartTLS,
    Take,
    TLSFailed,
    Trouble,
    Wait,
)


def lateness(wait: Wait | None) -> Trouble:
    """What the negotiation is to be told: who kept us waiting, and for what."""
    match wait:
        case None:
            return Expired(Side.BACKEND, Patience.CONNECT)
        case StartTLS(side=side):
            return TLSFailed(side, "handshake timed out")
        case Await(sides=sides, patience=patience) if Side.CLIENT in sides and patience is not Patience.REPLY:
            return Expired(Side.CLIENT, wait.patience)
        case Forward():
            return Expired(Side.CLIENT, wait.patience)
        case Take(side=side) | Peek(side=side) | Pass(source=side):
            return Expired(side, wait.patience)
    return Expired(Side.BACKEND, wait.patience)


def phase_of(wait: Wait | None, secured: bool) -> str:
    """Where a session is that waits for this; `secured` tells whether the client is inside TLS."""
    if isinstance(wait, Await):
        if wait.patience is Patience.GREETING:
            return "greeting"
    elif wait is None or isinstance(wait, Dial):
        return "dialling"
    elif isinstance(wait, StartTLS):
        return "handshake"
    return "secure" if secured else "plaintext"
