"""What runs, made from a configuration: all of it is ready before any of it is used, or nothing has changed."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..config.errors import StartError
from ..config.values import Address, Backend, Configuration
from ..dialects import DIALECTS
from ..guard.relaywatch import RelayWatch, is_watched
from ..records import dataclass
from ..sessions.agreed import backend_alpn, channel_terms
from ..sessions.context import SessionContext
from ..telemetry.report.watch import Watch
from ..telemetry.summary import Teller
from ..telemetry.users import Users
from ..wire.dialer import Dialer
from ..wire.listener import Listener
from ..wire.tls.certificates import CertificateError
from ..wire.tls.connector import TLSConnector
from ..wire.tls.half import TLSHalf
from ..wire.tls.renewal import Renewal
from ..wire.tls.server import ServerTLS
from .naming import users_of
from .plan import Opening, openings, terms_at
from .ports import Binder, Port, Ports

Accept = Callable[[SessionContext, socket.socket, Any], None]


class Door:
    """A port, and what is offered there now."""

    def __init__(self, port: Port, opening: Opening, context: SessionContext) -> None:
        self.port = port
        self.opening = opening
        self.context = context
        """For those who connect from now on."""
        self._listeners: list[tuple[str, Listener]] = []

    @property
    def addresses(self) -> list[str]:
        return self.port.addresses

    def open(self, reactor: Any, accept: Accept, complain: Callable[..., None], seat: tuple[int, int] = (0, 1)) -> None:
        """`seat`: which worker this is, and of how many."""
        for one in self.port.spreads:
            complaint = partial(self._complain, complain, one.text)
            for sock in one.of(*seat):
                listener = Listener(reactor, sock, partial(self._accept, accept), complaint)
                self._listeners.append((one.text, listener))
                listener.start()

    def close(self) -> None:
        """At once.  Connections in the kernel's queue are reset."""
        for _, listener in self._listeners:
            listener.stop()
        self.port.close()

    def retire(self, elsewhere: Collection[str] = ()) -> None:
        """The address is not wanted any more.  Connections that wait are served.  The file of a UNIX socket goes.

        `elsewhere`: addresses, as text, whose sockets another program has: they keep what waits there, and the file."""
        for text, listener in self._listeners:
            if text not in elsewhere:
                listener.finish()
        if not any(text in elsewhere for text in self.addresses):
            self.port.remove()
        self.close()

    def _accept(self, accept: Accept, sock: socket.socket, address: Any) -> None:
        accept(self.context, sock, address)

    def _complain(self, complain: Callable[..., None], text: str, detail: str) -> None:
        complain("descriptors-exhausted", service=self.context.service, address=text, detail=detail)


@dataclass(frozen=True, slots=True)
class Drained:
    """What an administrator drains."""

    services: set[str] = field(default_factory=set)
    """Names of services that take nobody any more."""
    addresses: set[str] = field(default_factory=set)
    """Addresses of backends, as text, that nobody is to be connected to any more."""

    def mark(self, what: str, names: Set[str], drained: bool) -> None:
        """`what`: `service` or `backend`."""
        marks = self.services if what == "service" else self.addresses
        if drained:
            marks.update(names)
        else:
            marks.difference_update(names)

    def keep(self, configuration: Configuration) -> None:
        """Forget what is not in the file any more."""
        self.services.intersection_update(service.name for service in configuration.services)
        self.addresses.intersection_update(
            str(one) for service in configuration.services for one in service.backend.addresses
        )


@dataclass(frozen=True, slots=True, eq=False)
class Reachable:
    """A backend as all services in front of it share it."""

    values: Backend
    dialer: Dialer
    towards: TLSConnector | None
    """TLS towards it."""
    watch: RelayWatch | None
    """Over a backend that may relay for strangers."""
    drained: Set[str]
    """Addresses, as text, that nobody is to be connected to any more."""
    said: set[str] = field(default_factory=set)
    """Notes that are made once and have been made."""

    @property
    def connect_tls(self) -> Callable[[str], TLSHalf] | None:
        return self.towards

    def up(self) -> list[tuple[str, bool]]:
        """Its addresses, and whether each is used: it did not fail of late."""
        return [(str(address), not self.dialer.health.is_down(str(address))) for address in self.values.addresses]

    def refusal(self) -> str:
        """Why nobody is served now; nothing where everybody is."""
        if self.drained and all(str(address) in self.drained for address in self.values.addresses):
            return "drained"
        return "" if self.watch is None else self.watch.reason

    def permits(self, address: Address) -> bool:
        """Whether clients may be connected to that one of its addresses."""
        if self.drained and str(address) in self.drained:
            return False
        return self.watch is None or self.watch.permits(address)


@dataclass(frozen=True, slots=True, eq=False)
class Assembly:
    """Everything that was made from one configuration."""

    configuration: Configuration
    backends: Mapping[Backend, Reachable]
    servers: Mapping[str, ServerTLS]
    """TLS towards the clients of a service, by its name."""
    doors: tuple[tuple[Door, Opening, SessionContext], ...]
    """In the order of the plan.  A door that stays open leads to its new context once this assembly is used."""
    closed: tuple[Door, ...] = ()
    """Doors of the assembly before that are wanted no more."""
    opened: tuple[Door, ...] = ()
    """Doors that the assembly before did not have."""
    users: Users = field(default_factory=Users)
    """How users are told."""

    @property
    def watches(self) -> list[RelayWatch]:
        return [backend.watch for backend in self.backends.values() if backend.watch is not None]

    @property
    def files(self) -> frozenset[Path]:
        """Of trust anchors, whose content is in use."""
        return frozenset(values.ca for values in self.backends if values.ca is not None)

    def give_up(self) -> None:
        """It will not be used."""
        for door in self.opened:
            door.close()

    def use(self) -> None:
        """Every door leads to its new context from now on."""
        for door, opening, context in self.doors:
            door.opening, door.context = opening, context


class Assembler:
    """Makes assemblies.  `reactor` is asked for when the first is made: `twistd -r` chooses one before that."""

    def __init__(
        self,
        reactor: Callable[[], Any],
        events: Teller,
        sessions: Teller,
        renewal: Renewal,
        watch: Watch | None = None,
        ports: Ports | None = None,
    ) -> None:
        """`sessions`: where sessions tell their events; `watch`: who knows which clients always used TLS; `ports`:
        where sockets come from that are not bound here."""
        self._ports = ports or Binder()
        self._reactor = reactor
        self._events = events
        self._sessions = sessions
        self._renewal = renewal
        self._habits = watch
        self.drained = Drained()

    def assemble(self, configuration: Configuration, before: Assembly | None = None) -> Assembly:
        """Raises StartError with one line; then nothing has changed."""
        with self._renewal.trial():
            backends = self.backends(configuration, before)
            servers = self._servers(configuration, before)
            users = _users(configuration, before)
            contexts = [
                self._context(opening, configuration, backends[opening.service.backend], servers, users)
                for opening in openings(configuration)
            ]
            return replace(self._doors(configuration, backends, servers, contexts, before), users=users)

    def backends(self, configuration: Configuration, before: Assembly | None = None) -> dict[Backend, Reachable]:
        """All that services lead to.  Raises StartError with one line."""
        return {
            values: self._backend(values, configuration, before)
            for values in dict.fromkeys(service.backend for service in configuration.services)
        }

    def _backend(self, values: Backend, configuration: Configuration, before: Assembly | None) -> Reachable:
        """One dialer, one memory of failures and one TLS context for all services in front of it."""
        was = None if before is None else before.backends.get(values)
        alpn = backend_alpn(configuration, values)
        if was is not None and _alike(before, configuration) and (was.towards is None or was.towards.is_current(alpn)):
            return was
        with _told(f"[backend:{values.name}]"):
            towards = TLSConnector(values, alpn) if values.tls != "none" else None
        earlier = next((one for one in _all(before) if one.values.name == values.name), None)
        health = None if earlier is None else earlier.dialer.health
        dialer = Dialer(self._reactor(), values.addresses, configuration.timeouts.connect, health)
        watch = self._watch(values, configuration, towards, before)
        backend = Reachable(values, dialer, towards, watch, self.drained.addresses, set() if was is None else was.said)
        dialer.permits = backend.permits
        return backend

    def _watch(
        self, values: Backend, configuration: Configuration, towards: TLSConnector | None, before: Assembly | None
    ) -> RelayWatch | None:
        protocols = [service.protocol for service in configuration.services if service.backend == values]
        dialects = [DIALECTS[protocol] for protocol in protocols if is_watched(DIALECTS[protocol], values)]
        if not dialects:
            return None
        earlier = [one.watch.verdicts for one in _all(before) if one.watch is not None]
        return RelayWatch(
            self._reactor(),
            values,
            dialects[0],
            configuration.hostname,
            configuration.timeouts,
            towards,
            self._events,
            known={address: verdict for verdicts in earlier for address, verdict in verdicts.items()},
        )

    def _servers(self, configuration: Configuration, before: Assembly | None) -> dict[str, ServerTLS]:
        servers: dict[str, ServerTLS] = {}
        for service in configuration.services:
            alpn = DIALECTS[service.protocol].alpn
            was = None if before is None else before.servers.get(service.name)
            if was is not None and (was.values, was.alpn) == (service.tls, alpn):
                # The same contexts: their session tickets stay good.
                servers[service.name] = was
                continue
            inherited = service.tls.pairs == configuration.tls.pairs
            with _told("[tls]" if inherited else f"[service:{service.name}]"):
                servers[service.name] = self._renewal.serve(service.tls, alpn)
        return servers

    def _context(
        self,
        opening: Opening,
        configuration: Configuration,
        backend: Reachable,
        servers: Mapping[str, ServerTLS],
        users: Users,
    ) -> tuple[Opening, SessionContext]:
        service, watch = opening.service, self._habits
        terms = terms_at(opening, configuration)
        terms = replace(terms, insists=service.downgrade == "refuse" and watch is not None)
        return opening, SessionContext(
            service=service.name,
            dialect=DIALECTS[service.protocol],
            terms=terms,
            watch=watch,
            accept_proxy=service.accept_proxy,
            timeouts=configuration.timeouts,
            dialer=backend.dialer,
            accept_tls=servers[service.name].accept,
            events=self._sessions,
            connect_tls=backend.connect_tls,
            said=backend.said,
            refusal=backend.refusal,
            users=users,
            channels=channel_terms(configuration, service),
        )

    def _doors(
        self,
        configuration: Configuration,
        backends: Mapping[Backend, Reachable],
        servers: Mapping[str, ServerTLS],
        contexts: list[tuple[Opening, SessionContext]],
        before: Assembly | None,
    ) -> Assembly:
        old = () if before is None else before.doors
        change = self._ports([(door.port, opening) for door, opening, _ in old], [one for one, _ in contexts])
        doors: list[tuple[Door, Opening, SessionContext]] = []
        opened: list[Door] = []
        for position, (opening, context) in enumerate(contexts):
            if position in change.kept:
                door = old[change.kept[position]][0]
            else:
                door = Door(change.ports[position], opening, context)
                opened.append(door)
            doors.append((door, opening, context))
        closed = tuple(door for door, _, _ in old if door.port in change.closed)
        return Assembly(configuration, backends, servers, tuple(doors), closed, tuple(opened))


def _all(before: Assembly | None) -> list[Reachable]:
    return [] if before is None else list(before.backends.values())


def _users(configuration: Configuration, before: Assembly | None) -> Users:
    """The key is read once: after the start the gateway may have lost the right to do so."""
    if before is not None:
        old = before.configuration
        if (old.log_users, old.users_key) == (configuration.log_users, configuration.users_key):
            return before.users
    return users_of(configuration)


def _alike(before: Assembly | None, new: Configuration) -> bool:
    """Whether both say the same of how backends are dialled and asked."""
    old = None if before is None else before.configuration
    return old is not None and (old.hostname, old.timeouts) == (new.hostname, new.timeouts)


@contextmanager
def _told(section: str) -> Iterator[None]:
    """What goes wrong is the operator's to mend, who must know where."""
    try:
        yield
    except CertificateError as error:
        raise StartError(f"{section} {error}") from None
