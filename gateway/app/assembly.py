"""What runs, made from a configuration: all of it is ready before any of it is used, or nothing has changed."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..config.addresses import collide
from ..config.errors import StartError
from ..config.values import Address, Backend, Configuration, UnixAddress
from ..dialects import DIALECTS
from ..guard.relaywatch import RelayWatch, is_watched
from ..sessions.session import Entrance
from ..telemetry.events import Events
from ..telemetry.report.watch import Watch
from ..telemetry.summary import Teller
from ..wire.dialer import Dialer
from ..wire.listener import BindError, Listener, bind
from ..wire.tls.certificates import CertificateError
from ..wire.tls.connector import TLSConnector
from ..wire.tls.half import TLSHalf
from ..wire.tls.renewal import Renewal
from ..wire.tls.server import ServerTLS
from .plan import Opening, moves, openings, terms_at

Accept = Callable[[Entrance, socket.socket, Any], None]


class Door:
    """One listening address: its sockets, and what is offered there now."""

    def __init__(self, opening: Opening, entrance: Entrance, sockets: list[tuple[socket.socket, str]]) -> None:
        self.opening = opening
        self.entrance = entrance
        """For those who connect from now on."""
        self._sockets = sockets
        self._listeners: list[Listener] = []
        self._file = _file(opening.address)
        """Of a UNIX socket: what was made for it."""

    @property
    def addresses(self) -> list[str]:
        return [text for _, text in self._sockets]

    def open(self, reactor: Any, accept: Accept, complain: Callable[..., None]) -> None:
        for sock, text in self._sockets:
            complaint = partial(self._complain, complain, text)
            listener = Listener(reactor, sock, partial(self._accept, accept), complaint)
            self._listeners.append(listener)
            listener.start()

    def close(self) -> None:
        """At once: whoever waits in the kernel's queue is reset."""
        for listener in self._listeners:
            listener.stop()
        for sock, _ in self._sockets:
            sock.close()

    def retire(self) -> None:
        """The address is wanted no more: whoever waits there already is served, and the file of a UNIX socket goes."""
        for listener in self._listeners:
            listener.finish()
        match self.opening.address:
            case UnixAddress(path=path) if self.is_there():
                with suppress(OSError):
                    os.unlink(path)
        self.close()

    def is_there(self) -> bool:
        """Whether clients still find it: somebody may have removed or replaced the file of a UNIX socket."""
        return self._file == _file(self.opening.address)

    def share(self, shared: bool) -> None:
        """Whether another socket of this process may be bound over it, as [::1]:25 is over 25."""
        for sock, _ in self._sockets:
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)

    def _accept(self, accept: Accept, sock: socket.socket, address: Any) -> None:
        accept(self.entrance, sock, address)

    def _complain(self, complain: Callable[..., None], text: str, detail: str) -> None:
        complain("descriptors-exhausted", service=self.entrance.service, address=text, detail=detail)


def _file(address: Address) -> tuple[int, int] | None:
    match address:
        case UnixAddress(path=path):
            with suppress(OSError):
                found = os.lstat(path)
                return found.st_dev, found.st_ino
    return None


@dataclass(frozen=True, slots=True, eq=False)
class Reachable:
    """A backend as all services in front of it share it."""

    values: Backend
    dialer: Dialer
    towards: TLSConnector | None
    """TLS towards it."""
    watch: RelayWatch | None
    """Over a backend that may relay for strangers."""
    said: set[str] = field(default_factory=set)
    """Notes that are made once and have been made."""

    @property
    def connect_tls(self) -> Callable[[str], TLSHalf] | None:
        return self.towards

    def refusal(self) -> str:
        """Why nobody is served now; nothing where everybody is."""
        return "" if self.watch is None else self.watch.reason


@dataclass(frozen=True, slots=True, eq=False)
class Assembly:
    """Everything that was made from one configuration."""

    configuration: Configuration
    backends: Mapping[Backend, Reachable]
    servers: Mapping[str, ServerTLS]
    """TLS towards the clients of a service, by its name."""
    doors: tuple[tuple[Door, Opening, Entrance], ...]
    """In the order of the plan.  A door that stays open leads to its new entrance once this assembly is used."""
    closed: tuple[Door, ...] = ()
    """Doors of the assembly before that are wanted no more."""
    opened: tuple[Door, ...] = ()
    """Doors that the assembly before did not have."""

    @property
    def watches(self) -> list[RelayWatch]:
        return [backend.watch for backend in self.backends.values() if backend.watch is not None]

    @property
    def files(self) -> frozenset[Path]:
        """Of trust anchors, whose content is in use."""
        return frozenset(values.ca for values in self.backends if values.ca is not None)

    def use(self) -> None:
        """Every door leads to its new entrance from now on."""
        for door, opening, entrance in self.doors:
            door.opening, door.entrance = opening, entrance


class Assembler:
    """Makes assemblies.  `reactor` is asked for when the first is made: `twistd -r` chooses one before that."""

    def __init__(
        self,
        reactor: Callable[[], Any],
        events: Events,
        sessions: Teller,
        renewal: Renewal,
        watch: Watch | None = None,
    ) -> None:
        """`sessions`: where sessions tell their events; `watch`: who knows which clients always used TLS."""
        self._reactor = reactor
        self._events = events
        self._sessions = sessions
        self._renewal = renewal
        self._habits = watch
        self._rights = os.geteuid()

    def assemble(self, configuration: Configuration, before: Assembly | None = None) -> Assembly:
        """Raises StartError with one line; then nothing has changed."""
        if before is None:
            self._rights = os.geteuid()
        with self._renewal.trial():
            backends = {
                values: self._backend(values, configuration, before)
                for values in dict.fromkeys(service.backend for service in configuration.services)
            }
            servers = self._servers(configuration, before)
            entrances = [
                self._entrance(opening, configuration, backends[opening.service.backend], servers)
                for opening in openings(configuration)
            ]
            return self._doors(configuration, backends, servers, entrances, before)

    def _backend(self, values: Backend, configuration: Configuration, before: Assembly | None) -> Reachable:
        """One dialer, one memory of failures and one TLS context for all services in front of it."""
        was = None if before is None else before.backends.get(values)
        if was is not None and _alike(before, configuration) and (was.towards is None or was.towards.is_current()):
            return was
        with _told(f"[backend:{values.name}]"):
            towards = TLSConnector(values) if values.tls != "none" else None
        earlier = next((one for one in _all(before) if one.values.name == values.name), None)
        health = None if earlier is None else earlier.dialer.health
        dialer = Dialer(self._reactor(), values.addresses, configuration.timeouts.connect, health)
        watch = self._watch(values, configuration, towards, before)
        if watch is not None:
            dialer.permits = watch.permits
        return Reachable(values, dialer, towards, watch, set() if was is None else was.said)

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

    def _entrance(
        self, opening: Opening, configuration: Configuration, backend: Reachable, servers: Mapping[str, ServerTLS]
    ) -> tuple[Opening, Entrance]:
        service, watch = opening.service, self._habits
        terms = terms_at(opening, configuration)
        if service.downgrade == "refuse" and watch is not None:
            terms = replace(terms, insists=partial(watch.always, service.name))
        return opening, Entrance(
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
        )

    def _doors(
        self,
        configuration: Configuration,
        backends: Mapping[Backend, Reachable],
        servers: Mapping[str, ServerTLS],
        entrances: list[tuple[Opening, Entrance]],
        before: Assembly | None,
    ) -> Assembly:
        old = () if before is None else before.doors
        change = moves([opening for _, opening, _ in old], [opening for opening, _ in entrances])
        closed = [old[position][0] for position in change.closed]
        kept = {new: old[position][0] for new, position in change.kept.items()}
        # Nobody can connect to a UNIX socket whose file is gone.
        lost = [position for position, door in kept.items() if not door.is_there()]
        closed += [kept.pop(position) for position in lost]
        doors: list[tuple[Door, Opening, Entrance]] = []
        opened: list[Door] = []
        try:
            for position, (opening, entrance) in enumerate(entrances):
                door = kept.get(position)
                if door is None:
                    with _told(f"[service:{opening.service.name}]"):
                        door = Door(opening, entrance, self._bind(opening.address, closed))
                    opened.append(door)
                doors.append((door, opening, entrance))
        except BaseException:
            for door in opened:
                door.close()
            raise
        return Assembly(configuration, backends, servers, tuple(doors), tuple(closed), tuple(opened))

    def _bind(self, address: Address, closing: list[Door]) -> list[tuple[socket.socket, str]]:
        """Sockets for an address, also where it overlaps with one that is about to be closed.  Raises BindError."""
        rivals = [door for door in closing if collide(door.opening.address, address)]
        for rival in rivals:
            rival.share(True)
        try:
            return bind(address, shared=bool(rivals))
        except BindError as error:
            if error.number in (errno.EACCES, errno.EADDRINUSE) and self._rights != os.geteuid():
                # The sockets of the start are root's, who may share them with nobody else.
                raise BindError(
                    f"{address}: the gateway has given up the rights to open it ({errno.errorcode[error.number]}); "
                    "restart the gateway for this address"
                ) from None
            raise
        finally:
            for rival in rivals:
                rival.share(False)


def addresses(assembly: Assembly) -> list[Address]:
    """All listening addresses, as the file has them."""
    return [opening.address for _, opening, _ in assembly.doors]


def _all(before: Assembly | None) -> list[Reachable]:
    return [] if before is None else list(before.backends.values())


def _alike(before: Assembly | None, new: Configuration) -> bool:
    """Whether both say the same of how backends are dialled and asked."""
    old = None if before is None else before.configuration
    return old is not None and (old.hostname, old.timeouts) == (new.hostname, new.timeouts)


@contextmanager
def _told(section: str) -> Iterator[None]:
    """What goes wrong is the operator's to mend, who must know where."""
    try:
        yield
    except (CertificateError, BindError) as error:
        raise StartError(f"{section} {error}") from None
