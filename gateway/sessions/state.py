"""What an administrator sees of a session that is open."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class State:
    """Seconds count until now; octets are plaintext, of the client's connection."""

    id: str
    service: str
    protocol: str
    client: str
    """Its address; empty for a UNIX socket."""
    tls: str | None
    """The version of TLS with the client."""
    phase: str
    backend: str | None
    """The address that was reached, as text."""
    age: float
    idle: float | None
    """Since the last octet on either connection; None where the kernel does not tell: a UNIX socket."""
    received: int
    sent: int
    counts: dict[str, int]
    """What the protocol counts, like `messages`."""
