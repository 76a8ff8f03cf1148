"""Connects to backends without blocking."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IHostResolution,
    IReadWriteDescriptor,
    IResolutionReceiver,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..config.values import Address, TCPAddress, UnixAddress
from ..guard.limits import client_key
from ..records import dataclass
from ..telemetry.kinds import Blame
from .health import Health
from .leg import prepare, reset_on_close
from .reactor import Delayed, Dialling

_log = Logger()

OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
"""Errors of this machine, not of the backend."""

_BIND_ADDRESS_NO_PORT = 24
"""IP_BIND_ADDRESS_NO_PORT (linux/in.h), which `socket` does not have."""

Done = Callable[[socket.socket], object]
Failed = Callable[[str], object]


class Dialer:
    """Connects to the first address of a backend that answers.  Addresses that have failed are tried last."""

    def __init__(
        self,
        reactor: Dialling,
        addresses: Sequence[Address],
        connect_timeout: float,
        health: Health | None = None,
        source: str = "",
    ) -> None:
        """`connect_timeout`: seconds for name resolution and all addresses together.  `health`: of these addresses.
        `source`: the address of this machine to connect from; else the system chooses."""
        self._reactor = reactor
        self._targets = tuple(map(_target, addresses))
        self._timeout = connect_timeout
        self._source = source
        self.health = health or Health(reactor.seconds)
        self.permits: Callable[[Address], bool] = lambda address: True
        """Whether an address may be used now."""

    def is_down(self, address: Address) -> bool:
        """Whether it failed a moment ago, and comes last."""
        return self.health.is_down(str(address))

    def dial(self, done: Done, failed: Failed) -> Attempt:
        """Call `done` with a connected, non-blocking socket, or `failed` with the error; never before this returns.

        The error has a part for each address: `10.0.0.5:25: Connection refused (ECONNREFUSED)`.
        """
        permitted = [target for target in self._targets if self.permits(target.address)]
        return Attempt(self._reactor, permitted, self.health, self._timeout, done, failed, self._source)


@dataclass(frozen=True, slots=True)
class Place:
    """An address for connect(2)."""

    family: int
    where: Any
    text: str
    address: str
    """As in the configuration."""
    host: str = ""
    """Its host; empty for a UNIX socket."""


@dataclass(frozen=True, slots=True)
class Target:
    """An address of the configuration."""

    address: Address
    text: str
    place: Place | None
    """None for a name, which is resolved for each attempt, and for addresses that only listeners can use."""


def _target(address: Address) -> Target:
    text = str(address)
    match address:
        case TCPAddress(host, port):
            try:
                found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
            except (OSError, UnicodeError):
                return Target(address, text, None)
            family, *_, where = found[0]
            return Target(address, text, Place(family, where, text, text, host or ""))
        case UnixAddress(path):
            return Target(address, text, Place(socket.AF_UNIX, path, text, text))
    return Target(address, text, None)


@implementer(IReadWriteDescriptor)
class PendingConnect:
    """One connect(2) in progress.  `answered` gets the socket and errno, 0 for success."""

    def __init__(self, reactor: Dialling, sock: socket.socket, answered: Callable[[socket.socket, int], None]) -> None:
        self._reactor = reactor
        self._socket = sock
        self._answered: Callable[[socket.socket, int], None] | None = answered
        reactor.addWriter(self)

    def give_up(self) -> None:
        """Close the socket.  `answered` will not be called."""
        if self._answered is not None:
            self._answered = None
            self._reactor.removeWriter(self)
            # It may have been made meanwhile.  Nothing was said on it, and that must not look like all.
            reset_on_close(self._socket)
            self._close_later()

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "dialer"

    def doRead(self) -> None:
        raise AssertionError("never among the readers")

    def doWrite(self) -> None:
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not number and not self._connected():
            # The reactor's event was for an earlier descriptor with the same number.
            return
        self._reactor.removeWriter(self)
        self._answer(number)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor calls this after a hang-up, and has removed this object."""
        self._answer(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or errno.ECONNABORTED)

    def _answer(self, number: int) -> None:
        answered, self._answered = self._answered, None
        if answered is None:
            return
        if number:
            self._close_later()
        answered(self._socket, number)

    def _connected(self) -> bool:
        try:
            self._socket.getpeername()
        except OSError:
            return False
        return True

    def _close_later(self) -> None:
        # In the next turn: the reactor still uses the descriptor's number in this one.
        self._reactor.callLater(0, self._socket.close)


@implementer(IResolutionReceiver)
class Answers:
    """Collects the addresses of a name."""

    def __init__(self, complete: Callable[[list[IAddress]], None]) -> None:
        self._complete = complete
        self._found: list[IAddress] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        pass

    def addressResolved(self, address: IAddress) -> None:
        self._found.append(address)

    def resolutionComplete(self) -> None:
        self._complete(self._found)


class Attempt:
    """Tries the addresses one after the other.  `again` continues with the next one."""

    def __init__(
        self,
        reactor: Dialling,
        targets: Sequence[Target],
        health: Health,
        timeout: float,
        done: Done,
        failed: Failed,
        source: str = "",
    ) -> None:
        self._source = source
        self._reactor = reactor
        self._health = health
        self._targets = targets
        self._left: list[Target | Place] = sorted(targets, key=lambda target: health.is_down(target.text))
        self._timeout = timeout
        self._ends = reactor.seconds() + timeout
        self._place: Place | None = None
        self._done = done
        self._failed = failed
        self._complaints: list[str] = []
        self._pending: PendingConnect | None = None
        self._timer: Delayed | None = None
        self._step = 0
        """Number of the current step.  Answers of earlier steps are too late."""
        self._blameless = False
        self._over = False
        addresses = [target.text for target in targets]
        if health.rests(addresses):
            # No address was tried, so none has failed.  Otherwise a stream of clients would make the pause endless.
            self._blameless = True
            self._complaints.append(f"{', '.join(addresses)}: failed a moment ago")
            self._left.clear()
        self._next()

    @property
    def reached(self) -> Place:
        """The address of the last connection."""
        assert self._place is not None, "nothing has answered yet"
        return self._place

    def cancel(self) -> None:
        """Stop.  Neither `done` nor `failed` will be called."""
        self._over = True
        self._stop()

    def greeted(self) -> None:
        """The address has sent a greeting: it is healthy."""
        for key in (self.reached.text, self.reached.address):
            self._health.greeted(key)

    def unserved(self, blame: Blame, client: str) -> None:
        """The address did not serve this client.

        `client`: the client's address; empty for a UNIX socket.
        """
        self._health.failed(self.reached.text, blame, client_key(client))

    def again(self, blame: Blame, client: str) -> None:
        """The same, and: continue with the next one."""
        self.unserved(blame, client)
        self._blameless = self._blameless or blame is not Blame.ADDRESS
        self._complaints.append(f"{self.reached.text}: no good")
        self._over = False
        self._ends = self._reactor.seconds() + self._timeout
        self._next()

    def _stop(self) -> None:
        self._step += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pending is not None:
            self._pending.give_up()
            self._pending = None

    def _next(self) -> None:
        """Start attempts until one is in progress."""
        while self._left:
            match self._left.pop(0):
                case Place() as place:
                    pass
                case Target(place=Place() as place):
                    pass
                case Target(address=TCPAddress() as address):
                    self._resolve(address)
                    return
                case Target(text=text):
                    self._complaints.append(f"{text}: only a listener can use this")
                    continue
            if self._connect(place):
                return
        self._reactor.callLater(0, self._give_up)

    def _resolve(self, address: TCPAddress) -> None:
        assert address.host is not None, "a backend has a host"
        self._wait(f"{address}: the name was not resolved in time")
        step = self._step

        def resolved(found: list[IAddress]) -> None:
            if step == self._step:
                self._resolved(address, found)

        def complete(found: list[IAddress]) -> None:
            # Some resolvers answer at once, but `done` must not be called inside `dial`.
            self._reactor.callLater(0, resolved, found)

        self._reactor.nameResolver.resolveHostName(Answers(complete), address.host, address.port)

    def _resolved(self, address: TCPAddress, found: list[IAddress]) -> None:
        self._stop()
        host = address.host or ""
        places: list[Place] = []
        for one in found:
            text = f"{address.host} ({TCPAddress(getattr(one, 'host', '?'), address.port)})"
            if isinstance(one, IPv4Address):
                places.append(Place(socket.AF_INET, (one.host, one.port), text, str(address), host))
            elif isinstance(one, IPv6Address):
                where = (one.host, one.port, one.flowInfo, int(one.scopeID or 0))
                places.append(Place(socket.AF_INET6, where, text, str(address), host))
        if not places:
            self._complaints.append(f"{address}: the name does not resolve")
        places.sort(key=lambda place: self._health.is_down(place.text))
        self._left[:0] = places
        self._next()

    def _connect(self, place: Place) -> bool:
        """Start to connect.  False if it has failed already."""
        sock: socket.socket | None = None
        try:
            sock = socket.socket(place.family, socket.SOCK_STREAM)
            prepare(sock)
            if self._source:
                # The port is chosen by connect(2): else none could be used twice, whoever is at the other end.
                sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
                sock.bind(socket.getaddrinfo(self._source, 0, flags=socket.AI_NUMERICHOST)[0][4])
            number = sock.connect_ex(place.where)
            if number not in (0, errno.EINPROGRESS):
                # UNIX sockets answer at once.  EAGAIN: the queue is full.
                raise OSError(number, os.strerror(number))
        except (OSError, ValueError) as error:
            if sock is not None:
                sock.close()
            self._complain(place, error)
            return False
        self._wait(f"{place.text}: no answer in time (ETIMEDOUT)", place)

        def answered(sock: socket.socket, number: int) -> None:
            self._pending = None
            self._stop()
            if number:
                self._complain(place, OSError(number, os.strerror(number)))
                self._next()
            else:
                self._place = place
                self._succeed(sock)

        self._pending = PendingConnect(self._reactor, sock, answered)
        return True

    def _complain(self, place: Place, error: Exception) -> None:
        number = getattr(error, "errno", None)
        why = f"{os.strerror(number)} ({errno.errorcode.get(number, number)})" if number else str(error)
        self._complaints.append(f"{place.text}: {why}")
        if number in OURS:
            self._blameless = True
        else:
            self._health.failed(place.text)

    def _wait(self, otherwise: str, place: Place | None = None) -> None:
        """Divide the remaining time equally among the remaining addresses."""
        share = max(0.0, self._ends - self._reactor.seconds()) / (len(self._left) + 1)
        self._timer = self._reactor.callLater(share, self._expired, otherwise, place)

    def _expired(self, complaint: str, place: Place | None) -> None:
        self._timer = None
        if place is not None:
            self._health.failed(place.text)
        self._stop()
        self._complaints.append(complaint)
        self._next()

    def _succeed(self, sock: socket.socket) -> None:
        if self._over:
            sock.close()
            return
        self._over = True
        try:
            self._done(sock)
        except Exception as error:
            _log.critical("a bug ended a connection at its beginning: {kind}", kind=type(error).__name__)
            self._reactor.callLater(0, sock.close)

    def _give_up(self) -> None:
        if not self._over:
            self._over = True
            if not self._blameless:
                for target in self._targets:
                    self._health.failed(target.text)
            self._failed("; ".join(self._complaints))
