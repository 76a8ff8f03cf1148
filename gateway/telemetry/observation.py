"""What can be seen of a running gateway: metrics, open sessions, the last events.  Of one process, or of several.

All of it is plain values, so that a worker can send it to the master as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, field
from typing import Any, Final

from ..records import dataclass
from .metrics import Snapshot, merged

RECENT = 50
"""Events that are kept for the status page."""


@dataclass(slots=True)
class SessionView:
    """An open session as an administrator sees it.  Texts may be anybody's words: escape them."""

    id: str
    service: str
    protocol: str
    client: str
    """Its address; empty for a UNIX socket."""
    phase: str
    tls: str | None
    cipher: str | None
    sni: str | None
    backend: str | None
    """Which address of the backend was reached last."""
    age: float
    """Seconds since it began."""
    received: int
    """Octets from the client."""
    sent: int
    messages: int
    idle: float | None = None
    """Seconds since the last octet on either connection; None where the kernel does not tell: a UNIX socket."""
    counts: dict[str, int] = field(default_factory=dict)
    """What the protocol counts, like `messages`."""
    user: str | None = None
    """Only with `[gateway] log_users`."""
    worker: int = 0


def as_json(views: Sequence[SessionView]) -> str:
    """Objects with commas between.  Non-ASCII is escaped: what a client calls itself cannot end the text or hide in it.

    A frozen view, and a call of the encoder for each, would take twice the time."""
    return _encode([{name: getattr(view, name) for name in _NAMES} for view in views])[1:-1]


_NAMES: Final = tuple(SessionView.__slots__)
_encode: Final = json.JSONEncoder(check_circular=False).encode


@dataclass(frozen=True, slots=True)
class Recent:
    """An event that was told.  Values may be anybody's words: escape them."""

    time: float
    """Seconds since 1970."""
    event: str
    severity: str
    service: str
    client: str
    detail: str


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen at one moment."""

    metrics: Snapshot = field(default_factory=Snapshot)
    recent: tuple[Recent, ...] = ()
    """The latest first."""
    sessions: tuple[str, ...] = ()
    """Views as JSON (`as_json`), some in each text, only where they were asked for.  Text: Python's garbage collector
    would look through thousands of objects, and through all sessions with them."""

    def to_json(self) -> dict[str, Any]:
        return {
            "metrics": self.metrics.to_json(),
            "recent": [asdict(one) for one in self.recent],
            "sessions": list(self.sessions),
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Observation:
        return cls(
            Snapshot.from_json(told["metrics"]),
            tuple(Recent(**one) for one in told["recent"]),
            tuple(told["sessions"]),
        )


def together(observations: Iterable[Observation]) -> Observation:
    """Of several processes, as one."""
    all_of_them = list(observations)
    recent = sorted((one for each in all_of_them for one in each.recent), key=lambda one: -one.time)
    return Observation(
        merged(each.metrics for each in all_of_them),
        tuple(recent[:RECENT]),
        tuple(one for each in all_of_them for one in each.sessions),
    )


# --- what does not change from one moment to the next ------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listening:
    """An address that is listened on."""

    service: str
    protocol: str
    mode: str
    """`starttls` or `implicit`."""
    policy: str | None
    address: str
    backend: str
    """The name of its backend, or the address where it has none."""


@dataclass(frozen=True, slots=True)
class CertificateView:
    """A certificate that is served to clients."""

    file: str
    names: tuple[str, ...]
    key: str
    not_after: str
    """ISO 8601."""
    days: int


@dataclass(frozen=True, slots=True)
class Standing:
    hostname: str = ""
    version: str = ""
    listening: tuple[Listening, ...] = ()
    certificates: tuple[CertificateView, ...] = ()
