"""What a script can ask for, and what it is told: the words between deciding and doing.

A script (one per session, from a dialect) is a generator.  It yields requests and is resumed with
what the request stands for.  The driver turns the requests into lists of actions, which a session
performs.  Everything here is a value; nothing here does anything.

Match these by the names of their fields, not by position: for that Python 3.11 makes a string at each attempt, and its
cache of attributes keeps thousands of them, in the place of what it is for.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeVar

from ..records import dataclass

_T = TypeVar("_T")

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform

    from .framing import Units
    from .inbox import Inbox

    @dataclass_transform(frozen_default=True, field_specifiers=(field,))
    def value(cls: type[_T]) -> type[_T]: ...

else:
    value = dataclass(frozen=True, slots=True)


class Side(Enum):
    """Whom a leg talks to: the client connects to us, the backend is whom we connect to."""

    CLIENT = "client"
    BACKEND = "backend"

    # Enum's own is written in Python, and would be called a hundred times in a session.
    __hash__ = object.__hash__

    @property
    def other(self) -> Side:
        return BACKEND if self is CLIENT else CLIENT


CLIENT: Final = Side.CLIENT
BACKEND: Final = Side.BACKEND
SIDES: Final = (CLIENT, BACKEND)
"""To look up a member of an Enum takes 12 times as long as to look up a global name. To go through all members takes
13 times as long as to go through a tuple."""


class Patience:
    """Which deadline a wait is under; the dialect and the configuration give the seconds.

    These are the kinds that every protocol has.  A dialect may make more.
    """

    __slots__ = ("value",)

    CONNECT: ClassVar[Patience]
    """The backend's address answers; the dialer has a deadline of its own for that."""
    PROXY: ClassVar[Patience]
    """A load balancer's PROXY header."""
    GREETING: ClassVar[Patience]
    """The backend's first words."""
    HANDSHAKE: ClassVar[Patience]
    """TLS with the client or the backend."""
    COMMAND: ClassVar[Patience]
    """The client's next command, or the next line of a dialogue that it leads."""
    REPLY: ClassVar[Patience]
    """The backend's reply to a command.  It is the backend that is late, although the client may speak, too."""
    DATA: ClassVar[Patience]
    """The next octets of a message or literal; renewed by every octet."""
    SPLICE: ClassVar[Patience]
    """Any octet in either direction after the negotiation."""

    def __init__(self, value: str) -> None:
        self.value = value
        """Its name, for the log."""


for _name in ("connect", "proxy", "greeting", "handshake", "command", "reply", "data", "splice"):
    setattr(Patience, _name.upper(), Patience(_name))


@value
class ClientCertificate:
    """What a client's certificate amounts to."""

    verified: bool
    """It is valid, and one of `client_ca` vouches for it."""
    common_name: str | None = None
    """Of its subject; anybody's words unless `verified`."""


@value
class Secured:
    """What a finished TLS handshake agreed on, in OpenSSL's names."""

    version: str
    cipher: str
    bits: int
    group: str | None = None
    sni: str | None = None
    alpn: str | None = None
    """The protocol that was agreed on (RFC 7301), if the other end asked for one."""
    certificate: ClientCertificate | None = None
    """The client's, where one was asked for and presented."""
    resumed: bool = False
    """It goes on with the TLS session of an earlier connection (RFC 8446 2.2)."""


# --- what a wait is resumed with -----------------------------------------------------------------


@value
class Line:
    """One line without its terminator; from a client it holds neither CR, LF nor NUL."""

    side: Side
    text: bytes


@value
class Unclean:
    """A line from the client with a bare CR or a NUL in it: never to be forwarded."""

    side: Side
    begin: bytes = field(default=b"", compare=False)
    """Its first octets: enough to tell which command the answer is for, and whether octets follow that are none."""
    end: bytes = field(default=b"", compare=False)
    """Its last octets, without the terminator: the same."""


@value
class TooLong:
    """A line that exceeded the limit of the wait; it has been read to its end and dropped."""

    side: Side
    begin: bytes = field(default=b"", compare=False)
    """Its first octets: enough to tell which command the answer is for."""
    end: bytes = field(default=b"", compare=False)
    """Its last octets, without the terminator: enough to tell whether more of the command follows."""


@value
class Opaque:
    """The client's next octet is NUL where a line was awaited: a SASL security layer (RFC 4422 3.7)."""

    side: Side


@value
class Unit:
    """One unit of a protocol that is not made of lines, whole."""

    side: Side
    octets: bytes


@value
class TooLarge:
    """The next unit exceeds the limit of the wait.  It has not been taken: `Pass` can relay it."""

    side: Side
    begin: bytes
    """Its first octets, 64 at most."""
    octets: int
    """Its length."""


Heard = Line | Unclean | TooLong | Opaque | Unit | TooLarge


# --- requests that are performed and resume at once ----------------------------------------------


@value
class Send:
    """Write these octets to that side; forwarding and replying are the same thing."""

    side: Side
    data: bytes


@value
class Note:
    """Log an event; `once` means once per backend, however many sessions notice it."""

    event: str
    fields: tuple[tuple[str, object], ...] = ()
    once: bool = False


@value
class Proven:
    """The session is authenticated or has a mail under way: the pre-authentication deadline ends."""


@value
class Rejected:
    """The backend did not take what the client gave for its credentials: somebody may be guessing."""


@value
class Tally:
    """One more of something that the `session` event counts, such as `messages`."""

    what: str


@value
class Greeted:
    """The backend proved by its greeting that it is in health."""


@value
class Unserved:
    """The backend greeted and then failed at what comes before any login: its address is tried last for a while."""

    failed: str
    """The event."""


@value
class Abort:
    """Drop the leg to that side at once, so that it cannot take what it got for complete."""

    side: Side


@value
class Label:
    """What the newest channel is for, as fields of its event."""

    fields: tuple[tuple[str, object], ...]


@value
class Cut:
    """Drop the newest channel, so that neither side can take what it got for complete."""


@value
class Close:
    """End the session: what was sent is flushed, both legs are closed in an orderly way."""

    reason: str
    detail: str = ""


# --- requests that wait --------------------------------------------------------------------------


@value
class Dial:
    """Connect to the backend; resumed with None, or Unavailable is thrown.

    `failed` is the event by which the address reached before has just failed: drop it and try the next.  Without it a
    connection that is already there is left in good order, for a fresh one.
    """

    failed: str = ""
    patience: ClassVar = Patience.CONNECT


@value
class StartTLS:
    """Say the last plaintext words and switch that side to TLS, as one act; resumed with Secured."""

    side: Side
    last_words: bytes = b""
    name: bytes = b""
    """Whom the client has said it wants to talk to: it gets that certificate, if its ClientHello names nobody."""
    blanks: bytes = b""
    """Octets that may come before the client's TLS and mean nothing."""
    patience: ClassVar = Patience.HANDSHAKE


@value
class Identified:
    """A load balancer told the client's real address.

    Resumed with the name of the limit that keeps this client out, or with "".
    """

    client: str
    port: int
    patience: ClassVar = Patience.COMMAND


@value
class MayLogIn:
    """Resumed with whether the backend may be asked about the client's credentials now."""

    patience: ClassVar = Patience.COMMAND


@value
class AlwaysSecured:
    """Resumed with dates for the log if this client always used TLS; else with None."""

    patience: ClassVar = Patience.COMMAND


@value
class Open:
    """Open a channel: a second pair of connections, which copy to each other.

    `first` is listened for.  When it has connected, the other side is dialled at `port` of the address that it has in
    the session.  Resumed with the Place that is listened at, or with None where no port is free.
    """

    first: Side
    port: int
    protected: bool
    """TLS with the client.  The backend gets what it has in the session."""
    patience: ClassVar = Patience.COMMAND


@value
class IsBroken:
    """Resumed with whether the newest channel has ended before all was said."""

    patience: ClassVar = Patience.COMMAND


@value
class Place:
    """Where a channel is listened for."""

    host: str
    """IPv4 or IPv6 text."""
    port: int


class Framing(Protocol):
    """How the octets of a side become units (see `framing`)."""

    def unit(self, inbox: Inbox) -> Heard | None:
        """Take the next unit out of the inbox; None while it is incomplete.  Raises Violation."""


@value
class Await:
    """The next unit of one of these sides, of the first that has said one; resumed with Heard.  The backend stands
    first."""

    sides: tuple[Side, ...]
    patience: Patience
    framing: Framing


@value
class Take:
    """Exactly this many octets of that side, resumed with them; only for small, bounded amounts."""

    side: Side
    octets: int
    patience: Patience = Patience.DATA


@value
class Peek:
    """The next octets of that side, at least one, left where they are; resumed with them."""

    side: Side
    patience: Patience = Patience.DATA


class Filter(Protocol):
    """Bulk octets on their way: decides where they end and what of them goes on."""

    def feed(self, chunk: bytes) -> tuple[bytes, bytes | None]:
        """What to forward, and None, or at the end the octets that lie behind it."""


@value
class Pass:
    """Let a side's octets go in chunks through a filter to the other side, until the filter says
    that they end; with `forward` false they are swallowed.  Resumed with what the other side had said before that."""

    source: Side
    filter: Filter
    forward: bool = True
    patience: Patience = Patience.DATA


@value
class Forward:
    """Let the units of both sides go to the other side in pieces, however large, until one is wanted.

    Resumed with that one, a Unit or TooLarge, when no unit of the other side is half through.
    """

    units: Units
    wanted: Callable[[Side, bytes], bool | None]
    """Side and first octets of a unit, 64 at most; None where more octets are needed to tell."""
    patience: Patience = Patience.COMMAND
    skim: Callable[[Side, bytes | bytearray, int], int] = lambda side, octets, begin: begin
    """A quick look at what begins there -> the end of the units that nobody wants, which for the last of them may lie
    behind these octets.  It need not find them all."""
    sides: ClassVar = (Side.BACKEND, Side.CLIENT)

    @property
    def framing(self) -> Units:
        return self.units


@value
class Splice:
    """The negotiation is over: from here on the legs copy to each other.  Made by the driver."""


Act = Send | Note | Proven | Rejected | Tally | Greeted | Unserved | Abort | Label | Cut | Close
Question = Identified | MayLogIn | AlwaysSecured | Open | IsBroken
"""Requests that the session answers at once."""
Wait = Dial | StartTLS | Await | Take | Peek | Pass | Forward | Question
Request = Act | Wait
Action = Act | Dial | StartTLS | Splice | Question

Script = Generator[Request, Any, None]


# --- what is thrown into a script ----------------------------------------------------------------


class Trouble(Exception):
    """The session cannot go on.  `key` is the event's name in the log, `detail` says why."""

    def __init__(self, key: str, detail: str = "") -> None:
        super().__init__(key, detail)
        self.key = key
        self.detail = detail


class Lost(Trouble):
    """A side is gone: `orderly` after FIN or close_notify, else after a reset."""

    def __init__(self, side: Side, orderly: bool) -> None:
        super().__init__(f"{side.value}-lost", "" if orderly else "connection reset")
        self.side = side
        self.orderly = orderly


class Unavailable(Trouble):
    """The backend cannot be used: not reached, silent, refusing or untrustworthy."""


class Expired(Trouble):
    """A wait took too long; `side` is who kept us waiting."""

    def __init__(self, side: Side, patience: Patience) -> None:
        greeting = "-greeting" if patience is Patience.GREETING else ""
        super().__init__(f"{side.value}{greeting}-timeout", f"waiting for: {patience.value}")
        self.side = side
        self.patience = patience


class Violation(Trouble):
    """A side broke the protocol beyond what can be answered; `side` is who did."""

    def __init__(self, side: Side, key: str, detail: str = "") -> None:
        super().__init__(key, detail)
        self.side = side


class TLSFailed(Trouble):
    """A handshake failed; nothing may be said in the clear on that leg any more."""

    def __init__(self, side: Side, detail: str) -> None:
        super().__init__("tls-failed" if side is Side.CLIENT else "backend-tls-failed", detail)
        self.side = side


class Stopped(Trouble):
    """The gateway is shutting down."""

    def __init__(self) -> None:
        super().__init__("shutdown")
