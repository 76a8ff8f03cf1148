"""What can be said about an event: how grave it is, what it is about, how often it is told, whom it speaks against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum

from ..records import dataclass

Fields = Mapping[str, object]


def saying(fields: Fields, names: Sequence[str], longest: int) -> str:
    """The text of the first of these fields that has a value."""
    value = next((fields[name] for name in names if fields.get(name)), "")
    text = value.decode("ascii", "backslashreplace") if isinstance(value, bytes) else str(value)
    return text[:longest]


class Severity(Enum):
    """The words of RFC 5424 6.2.1, and its numbers."""

    INFO = "info", 6
    NOTICE = "notice", 5
    WARNING = "warning", 4
    ERROR = "error", 3

    def __init__(self, word: str, number: int) -> None:
        self.word = word
        self.number = number


class Scope(Enum):
    """What an event is about; it says which fields come first."""

    # Not the fields themselves: Python 3.11.2 takes an empty tuple for a value that is still to be made.
    GATEWAY = "gateway"
    SERVICE = "service"
    SESSION = "session"
    BACKEND = "backend"
    """Told by a session, or by the relay watch, which has no session: `backend`, `address` and `phase=probe`."""

    @property
    def fields(self) -> tuple[str, ...]:
        return _FIELDS[self]


_FIELDS = {
    Scope.GATEWAY: (),
    Scope.SERVICE: ("service", "client"),
    Scope.SESSION: ("session", "service", "client", "phase"),
    Scope.BACKEND: ("session", "service", "client", "phase", "backend", "address"),
}


class Outcome(Enum):
    """How a session ended, in one word; the label of a metric."""

    DONE = "done"
    CLIENT = "client"
    """The client broke the protocol, was too slow, or vanished."""
    BACKEND = "backend"
    REFUSED = "refused"
    """A limit was reached, or the backend may not be used."""
    ATTACK = "attack"
    GATEWAY = "gateway"
    """The gateway stopped, or has a bug."""


class Type(Enum):
    """What a field holds."""

    WORD = "a word of the gateway or of its configuration"
    TEXT = "anybody's words, escaped"
    INTEGER = "a whole number"
    OCTETS = "a number of octets"
    SECONDS = "seconds, with three decimals"
    YES = "`yes` (JSON: `true`), or absent"
    ADDRESS = "an address"
    TIME = "a date and time (ISO 8601)"


@dataclass(frozen=True, slots=True)
class Budget:
    """Lines a minute for one kind of event."""

    per_client: int
    per_kind: int
    """Of all clients."""
    shared: bool = False
    """What is spent here also counts against the total of all kinds."""
    first: bool = False
    """The first of a client is told, whatever others have spent."""


Budgeted = Budget | Callable[[Fields], Budget | None] | None


class Blame(Enum):
    """Whom a failure to use a backend's address speaks against."""

    ADDRESS = "address"
    """No single client can cause it: nobody answers, TLS fails."""
    SLOW = "slow"
    """The backend knows the client and keeps it waiting.  The address comes last, but is still tried."""
    CLIENT = "client"
    """The backend may refuse this one client."""


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    type: Type
    meaning: str


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the table."""

    name: str
    severity: Severity
    meaning: str
    fields: tuple[Field, ...] = ()
    """Those of its scope come before these."""
    scope: Scope = Scope.GATEWAY
    budget: Budgeted = None
    """None: always told."""
    cure: str = ""
    """What an administrator can do.  Where a line knows more, its field `cure` says it."""
    ends: Outcome | None = None
    """It can be the `reason` of a session."""
    told: bool = True
    """False: it is a `reason` only, and has no line of its own."""
    optional: bool = False
    """Told only with `[gateway] log_connects = yes`; always counted."""
    once: bool = False
    """Told once for each backend."""
    blame: Blame = Blame.ADDRESS
    """Whom it speaks against where the backend was told the client's address."""
    closes_at_once: bool = False
    """The backend may have closed because of this client even where it was not told who that is."""
    unheard: bool = False
    """The client would not understand words of this protocol, so it gets none."""
    garbled: bool = False
    """The backend's words make no sense: in place of a greeting, it speaks another protocol."""

    def allows(self, fields: Fields) -> Budget | None:
        """How often it is told; None: always."""
        budget = self.budget
        return budget(fields) if callable(budget) else budget

    @property
    def attack(self) -> bool:
        return self.ends is Outcome.ATTACK

    @property
    def failure(self) -> bool:
        """The backend could not serve a client."""
        return self.scope is Scope.BACKEND and self.ends is Outcome.BACKEND
