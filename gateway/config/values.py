"""What a configuration file says, as frozen values: the only thing that the rest of the house sees of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TCPAddress:
    """`host` is a name or an address without brackets; None stands for all addresses (listeners only)."""

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
    """A socket that systemd opened for us, by its FileDescriptorName (socket activation)."""

    name: str

    def __str__(self) -> str:
        return f"systemd:{self.name}"


Address = TCPAddress | UnixAddress | SystemdAddress

IPAddress = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Traits(Protocol):
    """What the file needs to know of a protocol; the registry of the dialects holds more than that."""

    @property
    def options(self) -> Mapping[str, tuple[str, ...]]:
        """Options of `[service:NAME]` that not every protocol has, and their words; the first is the default."""

    @property
    def policies(self) -> Mapping[int, Enum]:
        """The default policy by starttls port, as the word for it; `required` for the others."""

    @property
    def identities(self) -> frozenset[str]:
        """The ways, apart from `none`, in which a backend of this protocol can be told who the client is."""

    @property
    def relays(self) -> bool:
        """Takes mail for others, so that `allow_relay` makes sense."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A PEM file with a certificate and its chain, and the one with its key."""

    certificate: Path
    key: Path | None = None
    """None where the certificate's file holds the key too."""


@dataclass(frozen=True, slots=True)
class TLS:
    """`[tls]`, or what a service makes of it.  Services that are served alike have equal ones."""

    pairs: tuple[Pair, ...]
    """The first is for clients that name no other.  Of a service there is one at least."""
    profile: str = "intermediate"
    """`modern`, `intermediate` or `legacy`."""
    legacy_clients: tuple[Network, ...] = ()
    """Whom the profile `legacy` admits below TLS 1.2; not empty with it, and empty without.  Compare canonical
    addresses: no network is IPv4-mapped."""
    client_certificate: str = "none"
    """`none`, `request` or `require`."""
    client_ca: Path | None = None
    """PEM file of the issuers that clients' certificates may have; None with `none`, and only then."""


@dataclass(frozen=True, slots=True)
class Backend:
    """`[backend:NAME]`, or the address that a service names directly."""

    name: str
    addresses: tuple[Address, ...]
    connect: str = "eager"
    """`eager` or `lazy` (dial when the first command needs it)."""
    tls: str = "none"
    """`none`, `starttls` or `implicit`."""
    verify: str = "yes"
    """`yes`, `no`, or `sha256:` and 64 lower-case hexadecimal digits: the leaf certificate's digest."""
    certificate_name: str | None = None
    """Option `name`: the DNS name or canonical IP address that the certificate must be for.  None stands for the host
    of the address that is reached; a UNIX socket has none, so with it and `verify = yes` this is never None."""
    ca: Path | None = None
    """PEM file of the trust anchors; None stands for the system's."""
    profile: str = "intermediate"
    """`intermediate` or `legacy`."""
    identity: str = "none"
    """`none`, `proxy-v1`, `proxy-v2`, `xclient` or `id`; only what the protocols of its services can say."""
    allow_relay: bool = False
    """Serve it although it relays for anybody who comes from the gateway's address; only with identity `none`."""

    @property
    def lazy(self) -> bool:
        """On a starttls address the gateway greets by itself, and dials when a command needs the backend.

        PROXY version 2 tells the client's TLS, which is not known before it is there.
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
    """Per starttls address, in order: `required`, `auth-only` or `optional`."""
    backend: Backend
    tls: TLS
    """Towards clients: its own options, and those of `[tls]` where it has none."""
    accept_proxy: tuple[Network, ...] = ()
    """Whose connections begin with a PROXY header.  Compare canonical addresses: no network is IPv4-mapped."""
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
    """From connect to TLS, where TLS is required; `preauth` holds as well."""
    proxy_header: float = 5.0
    """From connect to the end of a load balancer's PROXY header."""
    connect: float = 10.0
    greeting: float = 30.0
    message: float = 60.0
    """For the data of one message, and one more for every `message_rate` octets of it."""
    message_rate: int = 100
    """Octets a second.  A slower message is given up."""
    linger: float = 3.0


@dataclass(frozen=True, slots=True)
class Limits:
    """`[limits]`."""

    sessions: int = 10000
    """Open ones of the whole gateway; it serves fewer where it may not open so many files."""
    sessions_per_client: int = 50
    """A client is an IPv4 address or an IPv6 /64."""
    connects_per_minute: int = 300
    """Per client."""
    auth_failures_per_minute: int = 20
    """Per client, over all its sessions."""
    auth_failures_per_session: int = 5
    """Logins that the backend rejects, after which the session ends."""
    bad_commands: int = 10
    """Refused commands in a row, after which the session ends."""


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
class Configuration:
    hostname: str
    drain: float
    """Seconds that sessions may take to finish after a stop."""
    log: str
    """`text` (logfmt) or `json`."""
    tls: TLS
    """What services inherit; without pairs where each of them has its own certificate."""
    services: tuple[Service, ...]
    limits: Limits
    timeouts: Timeouts
    log_connects: bool = False
    """Tell each connection when it begins, with the client and with the backend."""
    report: Report = Report()
