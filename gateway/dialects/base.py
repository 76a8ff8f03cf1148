"""What a dialect is: its terms, and the value that the registry holds.

A dialect is a script (protocol.vocabulary).  A new protocol is a new file with a `Dialect` in it and a line in the
registry; its script is a `Conversation` (conversation.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import field
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING

from ..protocol.driver import Foreign
from ..protocol.proxyprotocol import Origin
from ..protocol.vocabulary import (
    Patience,
    Script,
    Side,
)
from ..records import dataclass

if TYPE_CHECKING:
    from ..protocol.watching import Shown
    from .access import Access, Seen
    from .probing import Probing


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
    WEBIRC = "webirc"


class Policy(Enum):
    """What a plaintext port allows before TLS."""

    REQUIRED = "required"
    AUTH_ONLY = "auth-only"
    OPTIONAL = "optional"


@dataclass(frozen=True)
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
    origin: Origin | None = None
    """The client's address and port, and the ones it connected to; None for a UNIX socket."""
    proxied: bool = False
    """The connection begins with a load balancer's PROXY header, which tells the real origin."""
    backend_tls: BackendTLS = BackendTLS.NONE
    backend_verified: bool = False
    """The backend's certificate is verified: a promise about TLS (RFC 8689) holds beyond us."""
    backend_local: bool = False
    """The backend is reached through a UNIX socket, so that it can tell as which user the gateway runs."""
    identity: Identity = Identity.NONE
    secret: str = field(default="", repr=False)
    """The password with which the backend believes us who the client is (WEBIRC)."""
    options: Mapping[str, str] = field(default_factory=dict)
    """The service's options that only this protocol has, as `Dialect.options` names them."""
    submission: bool = False
    """Clients hand in mail here after a login, so that a backend without one serves nobody."""
    known: frozenset[str] = frozenset()
    """The names of the notes that earlier sessions with this backend have made once (`Note.once`)."""
    insists: bool = False
    """Clients that always used TLS must use it, although the policy lets others do without."""

    def of_session(
        self, client: str, session: str, origin: Origin | None, proxied: bool, known: frozenset[str]
    ) -> Terms:
        """The same for this session. `dataclasses.replace` takes 2 % of all instructions of a session."""
        terms = object.__new__(Terms)
        terms.__dict__.update(
            self.__dict__, client=client, session=session, origin=origin, proxied=proxied, known=known
        )
        return terms


def patience(idle: float) -> Mapping[Patience, float]:
    """Of a protocol whose clients may say nothing for so many seconds."""
    return {Patience.COMMAND: idle, Patience.REPLY: 330.0, Patience.DATA: 300.0, Patience.SPLICE: idle}


@dataclass(frozen=True, slots=True)
class Question:
    """What anybody may ask a server of this protocol to learn what it can do."""

    ask: Callable[[bytes], bytes]
    """hostname -> the command, without CRLF where the protocol has lines."""
    leave: bytes
    """The command that ends the session, without CRLF."""
    listed: Callable[[bytes], list[bytes] | None]
    """The reply to it -> the capabilities, each with its parameters; None where the reply is no list."""
    access: Callable[[Seen], Access]
    """What a look has seen -> whether clients can log in and send mail."""
    tries: tuple[bytes, ...] = ()
    """What a client says next, to learn whether it is served: commands that change nothing, without CRLF."""
    lists: bool = True
    """Whether a server that understands us answers with a list."""
    listed_in: int = 1
    """Where the capabilities stand: in the answer to `ask`, or (0) in the greeting."""
    answered: Callable[[bytes, bytes], bool] = lambda said, heard: True
    """Where client and server do not take turns: the client's words and what was heard since -> whether the server has
    said all that it says to them."""
    readable: Callable[[bytes], bytes] = bytes
    """What the server said -> the same as lines for people, where the protocol has no lines."""


@dataclass(frozen=True, slots=True)
class Free:
    """An option of `[service:...]` whose value is no word of a list."""

    default: str
    grammar: Callable[[str], object]
    """Raises ValueError for a wrong value; the text says what to write."""


_RANGE = re.compile(r"([0-9]{4,5})-([0-9]{4,5})")


def port_range(text: str) -> range:
    """`50000-50999`: unprivileged ports, both ends included."""
    match = _RANGE.fullmatch(text)
    if match is None or not 1024 <= int(match[1]) <= int(match[2]) <= 65535:
        raise ValueError(f"{json.dumps(text[:60])} is not a range of ports from 1024 to 65535; write 50000-50999")
    return range(int(match[1]), int(match[2]) + 1)


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
    forbidden: Mapping[int, str] = field(default_factory=dict)
    """Ports at which it must not be served, and why."""
    offers: frozenset[Policy] = frozenset(Policy)
    """The policies that a service may choose."""
    options: Mapping[str, tuple[str, ...] | Free] = field(default_factory=dict)
    """Options of `[service:...]` that only this protocol has, and their words.  The first is the default."""
    identities: frozenset[str] = frozenset()
    """The ways, apart from `none`, in which a backend can be told who the client is."""
    question: Question | None = None
    """How to look at a server."""
    alpn: tuple[bytes, ...] = ()
    """What clients call it in their ClientHello (RFC 7301)."""
    backend_alpn: tuple[bytes, ...] = ()
    """What the gateway calls it towards backends whose TLS comes first, where servers demand that."""
    submission: frozenset[int] = frozenset()
    """Ports at which clients hand in mail after a login."""
    foreign: Foreign | None = None
    """How clients begin that speak another protocol."""
    experimental: str = ""
    """Why nobody should rely on it; empty where it was tried with usual servers and clients."""
    first: Side = Side.BACKEND
    """Who speaks first.  Where it is the client, the backend is dialled when the client has said something."""
    relays: bool = False
    """Takes mail for others: a server that trusts the gateway's address would do so for anybody."""
    shown: Shown | None = None
    """A client's command -> the part that an administrator may read, and the rest; None: only numbers of octets are."""
    channels: bool = False
    """Its data goes through connections of their own (`Open`), and it has the options for these."""
    probing: Probing | None = None
    """How to probe a server from outside; needs a `question`, too."""
