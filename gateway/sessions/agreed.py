"""What is agreed on with a backend before anybody speaks: the same for sessions and for errands."""

from __future__ import annotations

from datetime import datetime, timezone

from ..config.values import Backend, Configuration, Service, TCPAddress
from ..dialects import DIALECTS
from ..dialects.access import is_submission
from ..dialects.base import BackendTLS, Identity, Policy, Terms


def terms_of_errands(hostname: str, backend: Backend, session: str) -> Terms:
    """The terms of somebody who is inside TLS and nobody's client.

    `session` stands in the backend's log, where the backend is told who comes.
    """
    return Terms(
        hostname=hostname.encode("ascii"),
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


def hands_in(service: Service) -> bool:
    """Whether its clients hand in mail after a login, so that a backend without one serves nobody."""
    addresses = (*service.starttls, *service.implicit, *service.backend.addresses)
    ports = [address.port for address in addresses if isinstance(address, TCPAddress)]
    return is_submission(DIALECTS[service.protocol], service.name, ports)


def _now() -> datetime:
    return datetime.now(timezone.utc)
