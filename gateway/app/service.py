"""The assembled gateway: what a configuration says, listening, serving and stopping."""

from __future__ import annotations

import gc
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..config.errors import StartError
from ..config.values import Address, Backend, Configuration, SystemdAddress
from ..config.values import Service as ServiceValues
from ..dialects import DIALECTS
from ..dialects.base import REFUSED, Identity, Policy, Terms
from ..dialects.base import BackendTLS as BackendMode
from ..guard.limits import Limits, Refusal, Stay, affordable, client_key, matters
from ..guard.memory import Room
from ..guard.relaywatch import RelayWatch, is_watched
from ..protocol.filters import Newlines
from ..protocol.proxyprotocol import canonical
from ..sessions.errand import hands_in
from ..sessions.session import Entrance, Session
from ..telemetry.events import Events
from ..telemetry.summary import Summary, SummedEvents
from ..wire.dialer import Dialer
from ..wire.listener import BindError, Listener, bind, inherited
from ..wire.tls.certificates import CertificateError
from ..wire.tls.half import TLSHalf
from ..wire.tls.renewal import Renewal
from ..wire.tls.towards import Towards

_log = Logger()

TICK = 10.0
"""Seconds between two looks whether a minute is over whose floods are to be told."""
FORGET = 60.0
"""Seconds after which what is known of clients that did nothing is given up."""
CUT = 1.0
"""Seconds that sessions which are cut off may take to be gone."""
HURRIED = "asked a second time: they are cut off"
UNHEARD = 65536
"""Octets that are read of who is turned away: closing with unread octets would send a RST, and destroy our words."""


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
        self._renewal = Renewal(events.emit, hostname=configuration.hostname)
        self._backends: dict[Backend, _Reachable] = {}
        self._bound: list[tuple[socket.socket, str, Entrance]] | None = None
        self._watches: dict[Backend, RelayWatch] = {}
        # No clock before twistd's -r has chosen one.
        self._summary = Summary(events, lambda: float(self._reactor.seconds()))
        self._summed = SummedEvents(events, self._summary)
        self._limits: Limits | None = None
        self._duties: list[_Duty] = []
        self._listeners: list[Listener] = []
        self._sessions: set[Session] = set()
        self._stopped: Deferred[None] | None = None
        self._hurried = False
        self._deadline: Any = None
        """Of the drain, then of the end."""

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
        bound: list[tuple[socket.socket, str, Entrance]] = []
        try:
            for service in self._configuration.services:
                with _told(f"[backend:{service.backend.name}]"):
                    backend = self._backend(service.backend)
                inherited = service.tls.pairs == self._configuration.tls.pairs
                with _told("[tls]" if inherited else f"[service:{service.name}]"):
                    tls = self._renewal.serve(service.tls, DIALECTS[service.protocol].alpn)
                with _told(f"[service:{service.name}]"):
                    for address, terms in _agreed(self._configuration, service):
                        entrance = Entrance(
                            service=service.name,
                            dialect=DIALECTS[service.protocol],
                            terms=terms,
                            accept_proxy=service.accept_proxy,
                            timeouts=self._configuration.timeouts,
                            dialer=backend.dialer,
                            accept_tls=tls.accept,
                            events=self._summed,
                            connect_tls=backend.connect_tls,
                            said=backend.said,
                            refusal=self._refusal(service, backend),
                        )
                        bound.extend((sock, text, entrance) for sock, text in bind(address))
        except StartError:
            for sock, _, _ in bound:
                sock.close()
            raise
        self._bound = bound

    def _backend(self, values: Backend) -> _Reachable:
        """One dialer, one memory of failures and one TLS context for all services in front of it."""
        if values not in self._backends:
            dialer = Dialer(self._reactor, values.addresses, self._configuration.timeouts.connect)
            self._backends[values] = _Reachable(dialer, Towards(values) if values.tls != "none" else None)
        return self._backends[values]

    def _refusal(self, service: ServiceValues, backend: _Reachable) -> Callable[[], str]:
        """One watch for all services in front of a backend that may relay for strangers."""
        dialect, values = DIALECTS[service.protocol], service.backend
        if not is_watched(dialect, values):
            return _nothing
        if values not in self._watches:
            configuration = self._configuration
            self._watches[values] = RelayWatch(
                self._reactor,
                values,
                dialect,
                configuration.hostname,
                configuration.timeouts,
                backend.connect_tls,
                self._events,
            )
            backend.dialer.permits = self._watches[values].permits
        watch = self._watches[values]
        return lambda: watch.reason

    def startService(self) -> None:
        self.privilegedStartService()  # `twist` does not call it
        self._limits = self._affordable_limits(_raise_descriptor_limit())
        super().startService()
        self._duties = [
            _Duty(self._reactor, TICK, self._summary.tick),
            _Duty(self._reactor, FORGET, self._limits.forget),
            _Duty(self._reactor, TICK, Room(lambda: len(self._sessions)).tidy),
        ]
        self._tell_unreadable()
        self._tell_unused()
        self._renewal.start(self._reactor)
        for watch in self._watches.values():
            watch.start()
        for sock, text, entrance in self._bound or ():
            complain = partial(self._complain, service=entrance.service, address=text)
            listener = Listener(self._reactor, sock, partial(self._accept, entrance), complain)
            self._listeners.append(listener)
            listener.start()
            terms = entrance.terms
            self._events.emit(
                "listening",
                service=entrance.service,
                protocol=entrance.dialect.name,
                mode="implicit" if terms.implicit else "starttls",
                policy=None if terms.implicit else terms.policy.value,
                connect="lazy" if terms.lazy and not terms.implicit else "eager",
                address=text,
            )

        # What is there now stays; no collection need look through it again.
        gc.collect()
        gc.freeze()

    def _tell_unused(self) -> None:
        """Connections to a socket that systemd passed and nobody accepts from would wait for ever."""
        addresses = [address for one in self._configuration.services for address in (*one.starttls, *one.implicit)]
        used = {address.name for address in addresses if isinstance(address, SystemdAddress)}
        for name, place in inherited():
            if name not in used:
                self._events.emit(
                    "unused-socket",
                    name=name,
                    address=place,
                    cure=f"write systemd:{name} in the starttls or implicit of a service, or disable its .socket unit",
                )

    def _affordable_limits(self, descriptors: int) -> Limits:
        values = self._configuration.limits
        sessions = affordable(values.sessions, descriptors)
        if matters(values.sessions, sessions):
            self._events.emit(
                "limit-lowered",
                limit=Refusal.SESSIONS.value,
                wanted=values.sessions,
                value=sessions,
                detail=f"the limit of open files is {descriptors}",
                cure="raise it (LimitNOFILE), or write [limits] sessions as it is",
            )
        return Limits(replace(values, sessions=sessions), self._reactor.seconds)

    def _complain(self, detail: str, service: str, address: str) -> None:
        self._summed.emit("descriptors-exhausted", service=service, address=address, detail=detail)

    # --- serve -------------------------------------------------------------------------------

    def _accept(self, entrance: Entrance, sock: socket.socket, address: Any) -> None:
        assert self._limits is not None, "nobody listens before the start"
        client = _client(address)
        # Whoever comes through a load balancer is nobody until its PROXY header tells.
        key = client_key("" if entrance.expects_header(client) else client)
        refusal = self._limits.admit(key)
        if refusal is not None:
            self._summed.emit(REFUSED, service=entrance.service, client=client, limit=refusal.value)
            _turn_away(sock, b"" if entrance.terms.implicit else entrance.dialect.busy(entrance.terms.hostname))
            return
        stay = Stay(self._limits, key)
        try:
            session = Session(self._reactor, entrance, sock, client, partial(self._over, stay), stay)
        except BaseException:
            stay.left()
            raise
        self._sessions.add(session)
        try:
            session.start()
        except BaseException:
            session.abort()
            raise

    def _over(self, stay: Stay, session: Session) -> None:
        stay.left()
        self._sessions.discard(session)
        if not self._sessions:
            self._leave()

    def reread(self) -> None:
        """SIGHUP: look at all certificates now, and tell what is refused."""
        self._tell_unreadable()
        # What is refused is told when it is found a second time, for a pair is two files.  Now both are there.
        self._renewal.look()
        self._renewal.look()

    def _tell_unreadable(self) -> None:
        for line in self._renewal.still_readable():
            self._events.emit("certificate", state="unreadable", detail=line)

    # --- stop --------------------------------------------------------------------------------

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        for listener in self._listeners:
            listener.stop()
        self._listeners.clear()
        self._renewal.stop()
        for watch in self._watches.values():
            watch.stop()
        if not self._sessions:
            self._events.emit("stopping", sessions=0)
            self._finish()
            return None
        stopped: Deferred[None] = Deferred()
        self._stopped = stopped
        if self._hurried:
            self._cut(HURRIED)
            return stopped
        drain = self._configuration.drain
        until = datetime.now(timezone.utc) + timedelta(seconds=drain)
        detail = "a second SIGTERM or SIGINT ends them now"
        self._tell_stop(until.isoformat(timespec="seconds"), detail)
        self._deadline = self._reactor.callLater(
            drain, self._cut, "the time of [gateway] drain is over: they are cut off"
        )
        self._tell_all(Session.stop)
        return stopped

    def hurry(self) -> None:
        """Cut off whoever is still there, now if it stops already, and else when it does."""
        self._hurried = True
        if self._stopped is not None:
            self._cut(HURRIED)

    def _cut(self, why: str) -> None:
        if self._stopped is None:
            return
        self._tell_stop(None, why)
        self._tell_all(lambda session: session.abort("shutdown"))
        # They are gone in the next turn.  After a bug in one of them this is the end nevertheless.
        self._forget_deadline()
        self._deadline = self._reactor.callLater(CUT, self._leave)

    def _forget_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

    def _tell_stop(self, until: str | None, detail: str) -> None:
        self._events.emit("stopping", sessions=len(self._sessions), until=until, detail=detail)

    def _leave(self) -> None:
        if self._stopped is not None:
            self._forget_deadline()
            self._finish()
            stopped, self._stopped = self._stopped, None
            stopped.callback(None)

    def _finish(self) -> None:
        """Nobody is there any more."""
        for duty in self._duties:
            duty.stop()
        self._duties.clear()
        self._summary.flush()

    def _tell_all(self, act: Callable[[Session], None]) -> None:
        for session in list(self._sessions):
            try:
                act(session)
            except Exception as error:
                _log.critical("a bug at the end of one session: {kind}", kind=type(error).__name__)


class _Duty:
    """Done every so many seconds.  (Twisted's LoopingCall installs the default reactor, whichever it is given.)"""

    def __init__(self, reactor: Any, seconds: float, act: Callable[[], None]) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._act = act
        self._call = reactor.callLater(seconds, self._do)

    def stop(self) -> None:
        self._call.cancel()

    def _do(self) -> None:
        self._call = self._reactor.callLater(self._seconds, self._do)
        self._act()


@contextmanager
def _told(section: str) -> Iterator[None]:
    """What goes wrong is the operator's to mend, who must know where."""
    try:
        yield
    except (CertificateError, BindError) as error:
        raise StartError(f"{section} {error}") from None


def _agreed(configuration: Configuration, service: ServiceValues) -> Iterator[tuple[Address, Terms]]:
    """The addresses of a service, and the terms for whoever comes in there."""
    backend = service.backend
    common = Terms(
        hostname=configuration.hostname.encode("ascii"),
        implicit=True,
        policy=Policy.REQUIRED,
        lazy=backend.lazy,
        bad_commands=configuration.limits.bad_commands,
        failed_logins=configuration.limits.auth_failures_per_session,
        client="",
        session="",
        now=lambda: datetime.now(timezone.utc),
        received=service.received,
        newlines=Newlines(service.newlines),
        backend_tls=BackendMode(backend.tls),
        backend_verified=backend.tls != "none" and backend.verify != "no",
        identity=Identity(backend.identity),
        submission=hands_in(service) and not backend.allow_relay,
    )
    for address, policy in zip(service.starttls, service.policies, strict=True):
        yield address, replace(common, implicit=False, policy=Policy(policy))
    for address in service.implicit:
        yield address, common


def _nothing() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class _Reachable:
    """A backend that services share."""

    dialer: Dialer
    connect_tls: Callable[[str], TLSHalf] | None
    said: set[str] = field(default_factory=set)


def _client(address: Any) -> str:
    """The client's canonical address, of the one that accept(2) gave; empty for a UNIX socket."""
    if not address or isinstance(address, (str, bytes)):
        return ""
    host: str = address[0]
    return canonical(host) if ":" in host else host


def _turn_away(sock: socket.socket, words: bytes) -> None:
    """Say so, if anything, and be gone: whoever is refused costs no descriptor that others could have.

    Octets that the other end has yet to send can still cross our words; nobody sends any before he was greeted.
    """
    with suppress(OSError):
        sock.send(words)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(UNHEARD)
    sock.close()


def _raise_descriptor_limit() -> int:
    """A session takes two descriptors; the soft limit is a default for programs that use select().  How many files
    may be open now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return soft  # a kernel that allows less than the hard limit says
    return hard
