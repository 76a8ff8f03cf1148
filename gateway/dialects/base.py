"""What every dialect has: its terms, its frame from the first octet to the farewell, its value.

A dialect is a script (negotiation.vocabulary): `converse` runs the parts that are the same for all,
a `Dialogue` says the rest.  A new protocol is a new file with a `Dialect` in it and a line in the
registry.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..protocol.filters import Newlines
from ..protocol.proxyprotocol import Header, Origin, ProxyError
from ..protocol.vocabulary import (
    Abort,
    Close,
    Identified,
    Lost,
    Note,
    Pass,
    Patience,
    Rejected,
    Request,
    Script,
    Secured,
    Send,
    Side,
    StartTLS,
    Stopped,
    TLSFailed,
    Trouble,
    Unavailable,
    Violation,
)

if TYPE_CHECKING:
    from .access import Access, Seen
    from .probing import Probing

SASL_LINE = 65536
"""Octets of a SASL response line: RFC 4954 4 names 12288 as sufficient, Kerberos PACs are larger."""
REPLY_LINE = 8192
"""Octets of a backend's line; the RFCs say 512 and long capability lists do not care."""
REPLY_LINES = 1000
REPLY_OCTETS = 256 * 1024
"""A backend's reply beyond these is an attack on our memory."""
LITERAL_OCTETS = 65536
"""Literals of one command before authentication, and a refused chunk is read on to 1 MiB."""


class BackendTLS(Enum):
    """How the backend's leg is secured; never opportunistically."""

    NONE = "none"
    STARTTLS = "starttls"
    IMPLICIT = "implicit"


class Identity(Enum):
    """How the backend learns the client's address."""

    NONE = "none"
    PROXY_V1 = "proxy-v1"
    PROXY_V2 = "proxy-v2"
    XCLIENT = "xclient"
    ID = "id"


class Policy(Enum):
    """What a plaintext port allows before TLS."""

    REQUIRED = "required"
    AUTH_ONLY = "auth-only"
    OPTIONAL = "optional"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a script must know of its session beforehand; `now` is the only way to a clock."""

    hostname: bytes
    implicit: bool
    policy: Policy
    lazy: bool
    bad_commands: int
    failed_logins: int
    """Logins that the backend rejects, after which the session is over."""
    client: str
    """The client's address, IPv4 or IPv6 text; empty for a UNIX socket."""
    session: str
    now: Callable[[], datetime]
    received: bool = True
    newlines: Newlines = Newlines.NORMALIZE
    origin: Origin | None = None
    """The client's address and port, and the ones it connected to; None for a UNIX socket."""
    proxied: bool = False
    """The connection begins with a load balancer's PROXY header, which tells the real origin."""
    backend_tls: BackendTLS = BackendTLS.NONE
    backend_verified: bool = False
    """The backend's certificate is verified: a promise about TLS (RFC 8689) holds beyond us."""
    identity: Identity = Identity.NONE
    moved: Callable[[str], str] = lambda client: ""
    """Tells whose session it turned out to be, by the address.  The limit that keeps this client out, as the log
    has it, or nothing."""
    may_log_in: Callable[[], bool] = lambda: True
    """Whether the backend may be asked about the client's credentials, now."""
    submission: bool = False
    """Clients hand in mail here after a login, so that a backend without one serves nobody."""
    known: frozenset[str] = frozenset()
    """The names of the notes that earlier sessions with this backend have made once (`Note.once`)."""


@dataclass(frozen=True, slots=True)
class Question:
    """What anybody may ask a server of this protocol to learn what it can do."""

    ask: Callable[[bytes], bytes]
    """hostname -> the command, without CRLF."""
    leave: bytes
    """The command that ends the session, without CRLF."""
    listed: Callable[[bytes], list[bytes] | None]
    """The reply to it -> the capabilities, each with its parameters; None where the reply is no list."""
    access: Callable[[Seen], Access]
    """What a look has seen -> whether clients can log in and send mail."""
    tries: tuple[bytes, ...] = ()
    """What a client says next, to learn whether it is served: commands that change nothing, without CRLF."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """A protocol, chosen once per service."""

    name: str
    script: Callable[[Terms], Script]
    unavailable: Callable[[bytes], bytes]
    """hostname -> what a client hears in place of a greeting when it cannot be served now."""
    busy: Callable[[bytes], bytes]
    """The same where the reason is that it, or everybody together, has too many connections."""
    patience: Mapping[Patience, float]
    """Seconds for the waits that the configuration does not name."""
    policies: Mapping[int, Policy]
    """Default policy by port; REQUIRED for the others."""
    options: frozenset[str] = frozenset()
    """Options of `[service:...]` that make sense for this protocol only."""
    identities: frozenset[str] = frozenset()
    """The ways, apart from `none`, in which a backend can be told who the client is."""
    question: Question | None = None
    """How to look at a server."""
    alpn: tuple[bytes, ...] = ()
    """What clients call it in their ClientHello (RFC 7301)."""
    submission: frozenset[int] = frozenset()
    """Ports at which clients hand in mail after a login."""
    relays: bool = False
    """Takes mail for others: a server that trusts the gateway's address would do so for anybody."""
    probing: Probing | None = None
    """How to probe a server from outside; needs a `question`, too."""


class Dialogue(Protocol):
    """The part of a session that differs from protocol to protocol."""

    terms: Terms
    secured: Secured | None
    """TLS with the client."""

    def open(self) -> Script:
        """Dial, if that is due now, and bring the greeting to the client."""

    def talk(self) -> Script:
        """Everything up to the splice, which is where it returns."""

    def goodbye(self, trouble: Trouble) -> bytes:
        """Last words to the client, or nothing where the protocol has none or they would be taken for data."""

    def farewell(self) -> bytes:
        """QUIT or LOGOUT for the backend, where it is at a command boundary, unauthenticated and
        outside a transaction; else nothing: a synthesised end would complete what was not completed."""


def converse(dialogue: Dialogue) -> Script:
    """A whole session: PROXY header and TLS where they come first, greeting, dialogue, farewell."""
    try:
        if dialogue.terms.proxied:
            yield from _identify(dialogue)
        if dialogue.terms.implicit:
            dialogue.secured = yield StartTLS(Side.CLIENT)
        yield from dialogue.open()
        yield from dialogue.talk()
    except Trouble as trouble:
        yield from _part(dialogue, trouble)


class _Introduction:
    """A PROXY header, however the network cuts it, as a Filter that forwards nothing."""

    def __init__(self) -> None:
        self._header = Header()
        self.origin: Origin | None = None

    def feed(self, chunk: bytes) -> tuple[bytes, bytes | None]:
        try:
            told = self._header.feed(chunk)
        except ProxyError as error:
            raise Violation(Side.CLIENT, "client-bad-proxy-header", error.reason) from None
        if told is None:
            return b"", None
        self.origin = told.origin
        return b"", told.rest


def _identify(dialogue: Dialogue) -> Script:
    """From here on the session's client is the one whom the load balancer names, if it names one."""
    introduction = _Introduction()
    yield Pass(Side.CLIENT, introduction, forward=False, patience=Patience.PROXY)
    if introduction.origin is not None:
        client, port = introduction.origin.source
        dialogue.terms = replace(dialogue.terms, origin=introduction.origin, client=client)
        yield Identified(client, port)
        if limit := dialogue.terms.moved(client):
            raise Unavailable(REFUSED, limit)


REFUSED = "refused"
"""The event of a limit that was reached."""

TOO_MANY_FAILURES = Note(REFUSED, (("limit", "auth-failures-per-minute"),))
"""A login that the backend is not asked about."""

T = TypeVar("T")


class Logins:
    """Those of one session that failed."""

    __slots__ = ("_failed", "_most")

    def __init__(self, most: int) -> None:
        self._failed = 0
        self._most = most

    def rejected(self, answer: Generator[Request, Any, T]) -> Generator[Request, Any, T]:
        """The backend did not take the client's credentials, and this is what the client hears of it."""
        yield Rejected()
        self._failed += 1
        result = yield from answer
        if self._failed >= self._most:
            raise Violation(Side.CLIENT, "too-many-failed-logins")
        return result


SILENT = frozenset({"tls-on-plaintext-port", "client-bad-proxy-header"})
"""Ends of a client that would not understand our words."""


def _part(dialogue: Dialogue, trouble: Trouble) -> Script:
    match trouble:
        case Lost(side=Side.CLIENT):
            key = "client-closed" if trouble.orderly and dialogue.farewell() else "client-lost"
        case Lost():
            key = "backend-closed" if dialogue.farewell() else "backend-lost"
            yield Note(key, (("detail", trouble.detail),))
        case Stopped() | Violation(key="too-many-failed-logins"):
            key = trouble.key  # each failure was told
        case Unavailable(key="refused"):
            key = trouble.key
            yield Note(key, (("limit", trouble.detail),))
        case TLSFailed(side=Side.CLIENT):
            key = trouble.key
            yield Note(key, (("key", "client-tls-failed"), ("detail", trouble.detail)))
        case _:
            key = trouble.key
            yield Note(key, (("detail", trouble.detail),))
    # Where TLS comes first nothing is said in the clear before it.
    unheard = key in SILENT or (dialogue.terms.implicit and dialogue.secured is None)
    last_words = b"" if unheard else dialogue.goodbye(trouble)
    if last_words:
        yield Send(Side.CLIENT, last_words)
    match trouble:
        case Lost(side=Side.CLIENT, orderly=False):
            polite = b""  # a reset may stand for anything
        case Unavailable() | Lost(side=Side.BACKEND) | Violation(side=Side.BACKEND) | TLSFailed(side=Side.BACKEND):
            polite = b""
        case _:
            polite = dialogue.farewell()
    yield Send(Side.BACKEND, polite) if polite else Abort(Side.BACKEND)
    yield Close(key, trouble.detail)


def turned_away(terms: Terms, words: bytes, reason: str) -> Script:
    """A whole session with a client that cannot be served now: it hears so in place of a greeting."""
    return converse(_Closed(terms, words, reason))


class _Closed:
    """The dialogue of a service that is not to be had; no backend is dialled."""

    def __init__(self, terms: Terms, words: bytes, reason: str) -> None:
        self.terms = terms
        self.secured: Secured | None = None
        self._words = words
        self._reason = reason

    def open(self) -> Script:
        yield Send(Side.CLIENT, self._words)

    def talk(self) -> Script:
        yield Close(self._reason)

    def goodbye(self, trouble: Trouble) -> bytes:
        return b""

    def farewell(self) -> bytes:
        return b""
