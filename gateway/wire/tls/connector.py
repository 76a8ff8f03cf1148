"""TLS to one backend, with the options of its section."""

from __future__ import annotations

from dataclasses import replace

from OpenSSL import SSL

from ...config.grammar import canonical
from ...config.values import Backend
from .context import client_context, connecting
from .files import looks
from .half import TLSHalf
from .verify import TLSClientOptions


class TLSConnector:
    """host -> TLSHalf for a connection to it.  For backends whose `tls` is not `none`.

    Raises CertificateError for a `ca` file that cannot be used.
    """

    def __init__(self, backend: Backend, alpn: tuple[bytes, ...] = ()) -> None:
        """`alpn`: what the gateway calls the protocol (RFC 7301)."""
        self._wanted = TLSClientOptions(
            backend.certificate_name or "", backend.verify, backend.ca, backend.profile, alpn=alpn
        )
        self._ca = () if backend.ca is None else looks(backend.ca)
        self._context = client_context(self._named("localhost"))

    def __call__(self, host: str) -> TLSHalf:
        return TLSHalf(self.connection(host))

    def is_current(self, alpn: tuple[bytes, ...] = ()) -> bool:
        """Whether the file of its trust anchors looks as it did when it was read, and ALPN is the same."""
        if alpn != self._wanted.alpn:
            return False
        return self._wanted.ca is None or looks(self._wanted.ca) == self._ca

    def connection(self, host: str) -> SSL.Connection:
        """OpenSSL's connection, for access to the backend's certificate."""
        return connecting(self._context, self._named(host))

    def _named(self, host: str) -> TLSClientOptions:
        return self._wanted if self._wanted.name else replace(self._wanted, name=_canonical(host))


def _canonical(host: str) -> str:
    """IP addresses in the form that certificates have; names unchanged."""
    try:
        return str(canonical(host.partition("%")[0]))
    except ValueError:
        return host
