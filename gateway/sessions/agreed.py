"""What is agreed on with a backend before anybody speaks: the same for sessions and for errands."""

from __future__ import annotations

from datetime import datetime, timezone
from ipaddress import ip_address

from ..config.values import Backend, Configuration, Network, Service, TCPAddress
from ..dialects import DIALECTS
from ..dialects.access import is_submission
from ..dialects.base import BackendTLS, Identity, Policy, Terms, port_range
from ..records import dataclass


def terms_of_errands(hostname: str, backend: Backend, session: str) -> Terms:
    """The terms of somebody who is inside TLS and nobody's client.

    `session` stands in the backend's log, where the backend is told who comes.
    """
    return Terms(
        hostname=hostname.encode("utf-8"),
        implicit=True,
        policy=Policy.REQUIRED,
        lazy=False,
        bad_commands=1000,
        failed_logins=1000,
        client="",
        session=session,
        now=_now,
        backend_tls=BackendTLS(backend.tls),
        backend_verified=backend.tls != "none" and backend.verify != "no",
        backend_local=not all(isinstance(address, TCPAddress) for address in backend.addresses),
        identity=Identity(backend.identity),
        secret=backend.secret,
    )


def backend_alpn(configuration: Configuration, backend: Backend) -> tuple[bytes, ...]:
    """What the protocol is called towards a backend whose TLS comes first, where servers demand that."""
    if backend.tls != "implicit":
        return ()
    protocols = dict.fromkeys(service.protocol for service in configuration.services if service.backend == backend)
    return tuple(name for protocol in protocols for name in DIALECTS[protocol].backend_alpn)


@dataclass(frozen=True, slots=True)
class ChannelTerms:
    """What holds for all channels of a service."""

    ports: range
    """Where clients are listened for."""
    connect: float
    """Seconds until both sides have connected, and TLS is there."""
    stall: float
    """Seconds without an octet after which a channel is over."""
    most: int
    """Channels of one session at the same time."""
    strict: bool = True
    """Inside TLS, an end without close_notify counts as incomplete."""
    resumed: bool = False
    """The client must resume the TLS session of its session."""
    balancers: tuple[Network, ...] = ()
    """Whose connections begin with a PROXY header (`accept_proxy`)."""

    def introduces(self, address: str) -> bool:
        """Whether this is a load balancer, which tells who its client is."""
        return any(ip_address(address) in network for network in self.balancers)


def channel_terms(configuration: Configuration, service: Service) -> ChannelTerms | None:
    """None for a protocol without channels."""
    if not DIALECTS[service.protocol].channels:
        return None
    options = dict(service.options)
    return ChannelTerms(
        ports=port_range(options["passive_ports"]),
        connect=configuration.timeouts.data_connect,
        stall=configuration.timeouts.data_stall,
        most=configuration.limits.data_connections,
        strict=options["strict_close"] == "yes",
        resumed=options["data_session_reuse"] == "required",
        balancers=service.accept_proxy,
    )


def channels_each(configuration: Configuration) -> int:
    """How many channels a session may have open, where any may have one."""
    has_any = any(channel_terms(configuration, service) is not None for service in configuration.services)
    return configuration.limits.data_connections if has_any else 0


def hands_in(service: Service) -> bool:
    """Whether its clients hand in mail after a login, so that a backend without one serves nobody."""
    addresses = (*service.starttls, *service.implicit, *service.backend.addresses)
    ports = [address.port for address in addresses if isinstance(address, TCPAddress)]
    return is_submission(DIALECTS[service.protocol], service.name, ports)


def _now() -> datetime:
    return datetime.now(timezone.utc)
