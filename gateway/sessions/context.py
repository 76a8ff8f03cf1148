"""What all sessions that come in at one listening address have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from ipaddress import ip_address

from ..config.values import Network, Timeouts
from ..dialects.base import Dialect, Terms
from ..protocol.driver import Foreign, Negotiation
from ..protocol.vocabulary import Patience, Script, Secured
from ..records import dataclass
from ..telemetry.report.watch import Watch
from ..telemetry.summary import Teller
from ..telemetry.users import Users
from ..wire.dialer import Dialer
from ..wire.tls.half import TLSHalf
from .agreed import ChannelTerms
from .deadline import allowances
from .performer import ConnectTLS


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What all sessions that come in at one listening address have in common."""

    service: str
    dialect: Dialect
    terms: Terms
    """What is agreed on before anybody has come in."""
    accept_proxy: tuple[Network, ...]
    timeouts: Timeouts
    dialer: Dialer
    accept_tls: Callable[..., TLSHalf]
    """TLS with the client of this address; see `ServerTLS.accept`."""
    events: Teller
    connect_tls: ConnectTLS | None = None
    """TLS towards the backend's host of this name."""
    said: set[str] = field(default_factory=set)
    """Notes that are made once per backend and have been made."""
    watch: Watch | None = None
    """Knows which clients always used TLS; None where nobody wants to know."""
    users: Users = field(default_factory=Users)
    """How a user's name is told."""
    negotiate: Callable[[Script, Foreign | None], Negotiation] = Negotiation
    """What runs the script; another one for a session that is recorded."""
    refusal: Callable[[], str] = lambda: ""
    """Why nobody is served here now, as the `session` event tells it; nothing if everybody is."""
    channels: ChannelTerms | None = None
    """None for a protocol that has none."""
    allowances: Mapping[Patience, float] = field(init=False)
    """Seconds for each kind of wait."""
    policy: str = field(init=False)
    """As the `session` event tells it."""
    soonest: float = field(init=False)
    """Seconds from the beginning of a session to the first moment at which a wait of most can end."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "allowances", allowances(self.timeouts, self.dialect.patience))
        object.__setattr__(self, "policy", "implicit" if self.terms.implicit else self.terms.policy.value)
        object.__setattr__(self, "soonest", min(self.timeouts.handshake, self.timeouts.greeting))

    def complete(self, login: dict[str, object], secured: Secured | None) -> str | None:
        """Of an `auth` event: how the login came, and whose it was, as users are told.  Who has logged in, if that is
        told."""
        if secured is not None:
            login["tls"] = secured.version
        name = login.pop("user", b"")
        assert isinstance(name, bytes)
        user = self.users(name)
        if user is not None:
            login["user"] = user
        return user if login["result"] == "ok" else None

    def expects_header(self, client: str) -> bool:
        """Whether this is the address of a load balancer, whose connections begin with a PROXY header."""
        if not client or not self.accept_proxy:
            return False
        address = ip_address(client)
        return any(address in network for network in self.accept_proxy)
