"""The assembled gateway: what a configuration says, listening, serving and stopping."""

from __future__ import annotations

import resource
import socket
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from .backend import Dialer
from .config.values import Configuration
from .config.values import Service as ServiceValues
from .dialects import DIALECTS
from .dialects.base import Policy
from .errors import StartError
from .listener import BindError, Listener, bind
from .negotiation.filters import Newlines
from .session import Entrance, Session
from .telemetry.events import Events
from .tls.context import CertificateError, accepting, server_context
from .tls.half import TLSHalf


class Gateway(Service):
    """Binds its ports and reads its keys while still privileged, serves afterwards.

    `privilegedStartService` and `startService` raise StartError with the one line that an operator
    needs.  The Deferred of `stopService` fires when the last session has ended, `drain` seconds
    after the stop at the latest.
    """

    def __init__(self, configuration: Configuration, events: Events, reactor: Any = None) -> None:
        self._configuration = configuration
        self._events = events
        self._given_reactor = reactor
        self._bound: list[tuple[socket.socket, str, Entrance]] | None = None
        self._listeners: list[Listener] = []
        self._sessions: set[Session] = set()
        self._stopped: Deferred[None] | None = None

    @property
    def _reactor(self) -> Any:
        if self._given_reactor is None:
            from twisted.internet import reactor  # not before twistd's -r has chosen it

            self._given_reactor = reactor
        return self._given_reactor

    # --- start -------------------------------------------------------------------------------

    def privilegedStartService(self) -> None:
        if self._bound is not None:
            return
        tls = self._configuration.tls
        try:
            context = server_context(tls.certificate, tls.key)
        except CertificateError as error:
            raise StartError(f"[tls] {error}") from None
        self._bound = []
        try:
            for service in self._configuration.services:
                self._bind(service, lambda: TLSHalf(accepting(context)))
        except BindError as error:
            for sock, _, _ in self._bound:
                sock.close()
            self._bound = None
            raise StartError(f"[service:{service.name}] {error}") from None

    def _bind(self, service: ServiceValues, accept_tls: Any) -> None:
        configuration = self._configuration
        assert self._bound is not None
        entrance = partial(
            Entrance,
            service=service.name,
            dialect=DIALECTS[service.protocol],
            lazy=service.backend.connect == "lazy",
            hostname=configuration.hostname.encode("ascii"),
            bad_commands=configuration.bad_commands,
            received=service.received,
            newlines=Newlines(service.newlines),
            timeouts=configuration.timeouts,
            dialer=Dialer(self._reactor, service.backend.addresses, configuration.timeouts.connect),
            accept_tls=accept_tls,
            events=self._events,
            said=set(),
        )
        for address, policy in zip(service.starttls, service.policies, strict=True):
            for sock, text in bind(address):
                self._bound.append((sock, text, entrance(implicit=False, policy=Policy(policy))))
        for address in service.implicit:
            for sock, text in bind(address):
                self._bound.append((sock, text, entrance(implicit=True, policy=Policy.REQUIRED)))

    def startService(self) -> None:
        self.privilegedStartService()  # `twist` does not call it
        _raise_descriptor_limit()
        super().startService()
        for sock, text, entrance in self._bound or ():
            complain = partial(self._events.emit, "descriptors-exhausted", service=entrance.service, address=text)
            listener = Listener(
                self._reactor, sock, partial(self._accept, entrance), lambda detail, tell=complain: tell(detail=detail)
            )
            self._listeners.append(listener)
            listener.start()
            self._events.emit(
                "listening",
                service=entrance.service,
                protocol=entrance.dialect.name,
                mode="implicit" if entrance.implicit else "starttls",
                policy=None if entrance.implicit else entrance.policy.value,
                address=text,
            )

    # --- serve -------------------------------------------------------------------------------

    def _accept(self, entrance: Entrance, sock: socket.socket, address: Any) -> None:
        session = Session(self._reactor, entrance, sock, _client(sock, address), self._over)
        self._sessions.add(session)
        session.start()

    def _over(self, session: Session) -> None:
        self._sessions.discard(session)
        if self._stopped is not None and not self._sessions:
            stopped, self._stopped = self._stopped, None
            stopped.callback(None)

    # --- stop --------------------------------------------------------------------------------

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        for listener in self._listeners:
            listener.stop()
        self._listeners.clear()
        if not self._sessions:
            return None
        stopped: Deferred[None] = Deferred()
        self._stopped = stopped
        self._reactor.callLater(self._configuration.drain, self._cut)
        for session in list(self._sessions):
            session.stop()
        return stopped

    def _cut(self) -> None:
        for session in list(self._sessions):
            session.abort()


def _client(sock: socket.socket, address: Any) -> str:
    """The client's address as text, an IPv4 one never in its IPv6 form; empty for a UNIX socket."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return ""
    host = str(address[0]).partition("%")[0]
    return host.removeprefix("::ffff:") if "." in host else host


def _raise_descriptor_limit() -> None:
    """A session takes two descriptors; the soft limit is a default for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
