"""The admin listener as the gateway runs it: its sockets, its TLS, its token.  It serves HTTP and no mail."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from ..config.errors import StartError
from ..config.values import TLS, Admin, UnixAddress
from ..telemetry.admin.site import Admin as Pages
from ..telemetry.admin.site import AdminSite, Office, Subject
from ..telemetry.summary import Teller
from ..wire.listener import BindError
from ..wire.spread import Spread
from ..wire.tls.certificates import CertificateError
from ..wire.tls.renewal import INTERVAL, Renewal
from ..wire.tls.server import ServerTLS
from .every import Every
from .ports import Handed, Port, bind_beside

LOOK = 30.0
"""Seconds between two looks whether a step of the history is over."""
SHORTEST_TOKEN = 16
_MODE = 0o660
"""Of a UNIX socket: its owner and group may connect."""


@implementer(IOpenSSLServerConnectionCreator)
class _Creator:
    def __init__(self, tls: ServerTLS) -> None:
        self._tls = tls

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> Any:
        return self._tls.connection("")


class _Plain(Factory):
    """Hides that a Site negotiates protocols: Twisted would change a TLS context for that, which is in use by then."""

    noisy = False

    def __init__(self, site: AdminSite) -> None:
        self._site = site

    def buildProtocol(self, addr: Any) -> Protocol | None:
        return self._site.buildProtocol(addr)


class AdminListener:
    """Bound when it is made, while that is allowed; serves from `start` on.  Raises StartError with one line."""

    def __init__(
        self,
        values: Admin,
        hostname: str,
        events: Teller,
        before: AdminListener | None,
        handed: Handed,
    ) -> None:
        """`before`: whose sockets it takes over where the address is the same.  `handed`: those of another program."""
        self.values = values
        self.hostname = hostname
        self._events = events
        self._token = _token(values)
        self._renewal = Renewal(events.emit)
        self._tls = self._server() if values.pairs else None
        if before is not None and before.values.listen == values.listen:
            self._sockets: list[tuple[socket.socket, str]] = [(sock.dup(), text) for sock, text in before._sockets]
        elif (spreads := handed.take(values.listen)) is not None:
            self._sockets = [(sock, spread.text) for spread in spreads for sock in spread.sockets]
        else:
            rivals = handed.rivals(values.listen)
            if before is not None and before.port.is_rival(values.listen):
                rivals.append(before.port)
            self._sockets = self._bind(rivals)
        self._pages: Pages | None = None
        self._ports: list[Any] = []
        self._duties: list[Every] = []

    def _server(self) -> ServerTLS:
        try:
            return self._renewal.serve(TLS(self.values.pairs), (b"http/1.1",))
        except CertificateError as error:
            raise StartError(f"[admin] {error}") from None

    def _bind(self, rivals: Sequence[Port]) -> list[tuple[socket.socket, str]]:
        try:
            there, bound = bind_beside(self.values.listen, rivals)
        except BindError as error:
            raise StartError(f"[admin] {error}") from None
        if isinstance(self.values.listen, UnixAddress):
            os.chmod(self.values.listen.path, _MODE)
        return [(sock, one.text) for one in there for sock in one.sockets] + bound

    def read_token(self) -> str:
        """The file with the token may hold another one now.  Raises StartError."""
        return _token(self.values)

    def change_token(self, token: str) -> None:
        self._token = token
        if self._pages is not None:
            self._pages.token = token

    @property
    def port(self) -> Port:
        """For another program to take over."""
        return Port(self.values.listen, [Spread(text, (sock,)) for sock, text in self._sockets])

    @property
    def addresses(self) -> list[str]:
        return [text for _, text in self._sockets]

    def start(self, reactor: Any, subject: Subject, office: Office) -> None:
        names = None
        if not isinstance(self.values.listen, UnixAddress):
            names = frozenset({"localhost", self.hostname.lower(), *self.values.names})
        self._pages = pages = Pages(reactor, subject, office, self._token, names)
        site = AdminSite(pages, reactor)
        factory: Any = site
        if self._tls is not None:
            factory = TLSMemoryBIOFactory(_Creator(self._tls), False, _Plain(site))
            factory.noisy = False
        for sock, _ in self._sockets:
            self._ports.append(reactor.adoptStreamPort(sock.fileno(), sock.family, factory))
            if isinstance(self.values.listen, UnixAddress):
                # Twisted has just let everybody connect.
                os.chmod(self.values.listen.path, _MODE)
        self._duties = [Every(reactor, LOOK, pages.look), Every(reactor, INTERVAL, self._renewal.look)]
        scheme = "http" if self._tls is None else "https"
        for address in self.addresses:
            self._events.emit("admin-listening", address=address, scheme=scheme)

    def stop(self) -> None:
        for duty in self._duties:
            duty.stop()
        for port in self._ports:
            port.stopListening()
        for sock, _ in self._sockets:
            sock.close()
        self._sockets = []


def _token(values: Admin) -> str:
    if values.token is None:
        return ""
    try:
        token = values.token.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as wrong:
        why = wrong.strerror if isinstance(wrong, OSError) else "it is not UTF-8"
        raise StartError(f"[admin] token_file: {values.token}: {why}; write a secret into it") from None
    if len(token) < SHORTEST_TOKEN:
        raise StartError(
            f"[admin] token_file: {values.token} holds {len(token)} characters; write {SHORTEST_TOKEN} at least: "
            "openssl rand -hex 16"
        )
    return token
