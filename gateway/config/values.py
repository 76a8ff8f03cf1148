"""The values of a configuration file.  All other code uses only these."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import field
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Protocol

from ..records import dataclass


@dataclass(frozen=True, slots=True)
class TCPAddress:
    """`host` is a name or an address without brackets; None means all addresses (listeners only)."""

    host: str | None
    port: int

    def __str__(self) -> str:
        host = self.host if self.host is not None else "*"
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class SystemdAddress:
    """A socket from systemd (socket activation), by its FileDescriptorName."""

    name: str

    def __str__(self) -> str:
        return f"systemd:{self.name}"


Address = TCPAddress | UnixAddress | SystemdAddress

IPAddress = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Free(Protocol):
    """An option whose value is no word of a list."""

    @property
    def default(self) -> str: ...

    @property
    def grammar(self) -> Callable[[str], object]:
        """Raises ValueError for a wrong value; the text says what to write."""


class Traits(Protocol):
    """What the reader of the file must know of a protocol.  `Dialect` has these."""

    @property
    def options(self) -> Mapping[str, tuple[str, ...] | Free]:
        """Options of `[service:NAME]` that only some protocols have -> their values, of which the first is the default;
        or a grammar."""

    @property
    def policies(self) -> Mapping[int, Enum]:
        """starttls port -> default policy.  `required` for all other ports."""

    @property
    def forbidden(self) -> Mapping[int, str]:
        """Ports at which it must not be served, and why."""

    @property
    def offers(self) -> Collection[Enum]:
        """The policies that a service may choose."""

    @property
    def identities(self) -> frozenset[str]:
        """Values of `identity` for this protocol, besides `none`."""

    @property
    def channels(self) -> bool:
        """Its data goes through connections of their own."""

    @property
    def relays(self) -> bool:
        """Takes mail for others, so that `allow_relay` makes sense."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A PEM file with a certificate and its chain, and the file with its key."""

    certificate: Path
    key: Path | None = None
    """None if the certificate's file has the key too."""


@dataclass(frozen=True, slots=True)
class TLS:
    """The TLS options of a service, or of `[tls]`.  Services with the same options have equal objects."""

    pairs: tuple[Pair, ...]
    """The first is the default for clients.  A service has at least one."""
    profile: str = "intermediate"
    """`modern`, `intermediate` or `legacy`."""
    legacy_clients: tuple[Network, ...] = ()
    """Who may use TLS below 1.2.  Not empty with the profile `legacy`, empty without.  Compare canonical addresses:
    no network is IPv4-mapped."""
    client_certificate: str = "none"
    """`none`, `request` or `require`."""
    client_ca: Path | None = None
    """PEM file with the accepted issuers of client certificates.  None only with `none`."""


@dataclass(frozen=True, slots=True)
class Backend:
    """`[backend:NAME]`, or an address in a service."""

    name: str
    addresses: tuple[Address, ...]
    connect: str = "eager"
    """`eager` or `lazy` (connect when a command needs the backend)."""
    tls: str = "none"
    """`none`, `starttls` or `implicit`."""
    verify: str = "yes"
    """`yes`, `no`, or `sha256:` and the digest of the leaf certificate in 64 lower-case hexadecimal digits."""
    certificate_name: str | None = None
    """Option `name`: the DNS name or canonical IP address in the certificate.  None means the host of the address.
    Never None for a UNIX socket with `verify = yes`."""
    ca: Path | None = None
    """PEM file with the trust anchors; None means the system's."""
    profile: str = "intermediate"
    """`intermediate` or `legacy`."""
    identity: str = "none"
    """`none`, `proxy-v1`, `proxy-v2`, `xclient`, `id` or `webirc`.  All services of this backend support it."""
    secret: str = field(default="", repr=False)
    """With `webirc`: the password by which the server believes the gateway."""
    allow_relay: bool = False
    """Use the backend even if it is an open relay for the gateway's address.  Only with identity `none`."""

    @property
    def lazy(self) -> bool:
        """On starttls ports the gateway sends its own greeting, and connects when a command needs the backend.

        Also with PROXY version 2: its header has the client's TLS version, which is not known before TLS.
        """
        return self.connect == "lazy" or self.identity == "proxy-v2"


@dataclass(frozen=True, slots=True)
class Service:
    """`[service:NAME]`."""

    name: str
    protocol: str
    starttls: tuple[Address, ...]
    implicit: tuple[Address, ...]
    policies: tuple[str, ...]
    """One for each starttls address: `required`, `auth-only` or `optional`."""
    backend: Backend
    tls: TLS
    """TLS with clients: the options of the service, and of `[tls]` for the others."""
    accept_proxy: tuple[Network, ...] = ()
    """Load balancers that send a PROXY header.  Compare canonical addresses: no network is IPv4-mapped."""
    options: tuple[tuple[str, str], ...] = ()
    """Names and words of the options that only this protocol has."""
    downgrade: str = "log"
    """What is done when a client that always used TLS comes without: `log` or `refuse`."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """`[timeouts]`, in seconds."""

    handshake: float = 15.0
    preauth: float = 180.0
    plaintext: float = 60.0
    """From connect to TLS, with policy `required`.  `preauth` applies too."""
    proxy_header: float = 5.0
    """From connect to the end of the PROXY header."""
    connect: float = 10.0
    greeting: float = 30.0
    message: float = 60.0
    """For the data of one message.  Each `message_rate` octets add one second."""
    message_rate: int = 100
    """Octets per second."""
    linger: float = 3.0
    data_connect: float = 60.0
    """From the port that is opened for a data connection to the connection, its TLS included."""
    data_stall: float = 300.0
    """Without an octet on a data connection."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`[limits]`."""

    sessions: int = 10000
    """Open sessions of the whole gateway.  Fewer if the limit of open files is too low."""
    sessions_per_client: int = 50
    """A client is an IPv4 address or an IPv6 /64."""
    connects_per_minute: int = 300
    """Per client."""
    auth_failures_per_minute: int = 20
    """Per client, over all its sessions."""
    auth_failures_per_session: int = 5
    """Logins that the backend rejects; then the session ends."""
    bad_commands: int = 10
    """Refused commands in a row; then the session ends."""
    data_connections: int = 2
    """Data connections of one session at the same time."""


@dataclass(frozen=True, slots=True)
class Report:
    """`[report]`: what is remembered of clients."""

    file: Path | None = None
    """SQLite.  None: nothing is remembered."""
    keep: float = 90 * 86400.0
    """Seconds after which what was not true again is forgotten."""
    networks: tuple[int, int] = (24, 64)
    """Clients are counted by IPv4 and IPv6 networks with prefixes of these lengths."""


@dataclass(frozen=True, slots=True)
class Admin:
    """`[admin]`: HTTP for metrics, health and the status page."""

    listen: Address
    token: Path | None
    """The file with the secret that a request must have; never None where other machines can connect."""
    names: tuple[str, ...]
    """Of the Host header, in lower case; addresses, `localhost` and the gateway's own name are always good."""
    pairs: tuple[Pair, ...]
    """Certificates; without any it is plain HTTP, and that only where no other machine can connect."""


@dataclass(frozen=True, slots=True)
class Control:
    """The control socket: `control`, `control_group` and `control_mode` of `[gateway]`."""

    path: str | None = "/run/starttls-gateway/control"
    """None: there is none."""
    group: str | None = None
    """Whose members may use it; None stands for the group of the gateway's user."""
    mode: int = 0o600
    """The file's rights: 0600, or 0660 for the group too."""
    named: bool = field(default=False, compare=False)
    """The file names it: without it the gateway does not start.  Otherwise it does, and says so."""


@dataclass(frozen=True, slots=True)
class Configuration:
    hostname: str
    drain: float
    """Seconds for sessions to end after a stop."""
    log: str
    """`text` (logfmt) or `json`."""
    tls: TLS
    """Defaults for services.  Without pairs if each service has its own certificate."""
    services: tuple[Service, ...]
    limits: Limits
    timeouts: Timeouts
    log_connects: bool = False
    """Tell each connection when it begins, with the client and with the backend."""
    report: Report = Report()
    old_sessions: float = 3600.0
    """Seconds that sessions may take to finish after another program has taken over (an upgrade)."""
    workers: int = 1
    """Processes that serve.  With one there is no other process; with more there is a master and a template, too."""
    admin: Admin | None = None
    control: Control = Control()
    log_users: str = "no"
    """How user names are told: `no`, `yes` or `hashed`."""
    users_key: Path | None = None
    """The file with this installation's key for `hashed`; never None with that."""
    probes: tuple[Network, ...] = ()
    """From here load balancers look whether somebody listens: a connection that closes without a word is no session."""
