"""Addresses that are listened on, and how to get from those of one configuration to those of the next."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import field
from itertools import chain

from ..config.errors import StartError
from ..config.values import Address, SystemdAddress, TCPAddress, UnixAddress
from ..records import dataclass
from ..wire.listener import BindError, bind, places
from ..wire.spread import Spread, spread
from .plan import Opening, moves


class Port:
    """An address with its sockets.  A bare port has IPv4 and IPv6; several workers have a socket each."""

    def __init__(self, address: Address, spreads: Sequence[Spread]) -> None:
        self.address = address
        self.spreads = tuple(spreads)
        self._file = _file(address)
        """Of a UNIX socket: what was made for it."""

    @property
    def addresses(self) -> list[str]:
        return [one.text for one in self.spreads]

    def close(self) -> None:
        for one in self.spreads:
            one.close()

    def steer(self, opening: Opening) -> None:
        """Spread connections over the workers as this opening wants it."""
        for one in self.spreads:
            one.steer(by_client=_by_client(opening))

    def is_there(self) -> bool:
        """Whether clients still find it: somebody may have removed or replaced the file of a UNIX socket."""
        return self._file == _file(self.address)

    def remove(self) -> None:
        """The file of a UNIX socket."""
        match self.address:
            case UnixAddress(path=path) if self.is_there():
                with suppress(OSError):
                    os.unlink(path)

    def is_rival(self, address: Address) -> bool:
        """Whether it may be in the way of that address: it has the same port.  `localhost` is also 127.0.0.1.

        A socket of systemd stays where it is, whatever the file says."""
        if isinstance(self.address, SystemdAddress) or not isinstance(address, TCPAddress) or not address.port:
            return False
        return any(_port_of(one.sockets[0]) == address.port for one in self.spreads)

    def share(self, shared: bool) -> None:
        """Whether another socket of this process may be bound over it, as [::1]:25 is over 25."""
        for one in self.spreads:
            # A group is shared anyway.
            if len(one.sockets) == 1 and one.sockets[0].family != socket.AF_UNIX:
                one.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)


def _by_client(opening: Opening) -> bool:
    """Behind a load balancer all connections come from one address."""
    return not opening.service.accept_proxy


def _file(address: Address) -> tuple[int, int] | None:
    match address:
        case UnixAddress(path=path):
            with suppress(OSError):
                found = os.lstat(path)
                return found.st_dev, found.st_ino
    return None


# --- from one process to another -------------------------------------------------------------------


def described(port: Port) -> list[tuple[str, int]]:
    """In a message: its addresses as text, each with the number of its sockets."""
    return [(spread.text, len(spread.sockets)) for spread in port.spreads]


def descriptors_of(ports: Iterable[Port]) -> list[int]:
    """What goes with such a message."""
    return [sock.fileno() for port in ports for spread in port.spreads for sock in spread.sockets]


def received(counts: Iterable[tuple[str, int]], passed: Iterator[int]) -> list[Spread]:
    """What has come with such a message, in the order of the counts."""
    return [Spread(text, tuple(adopted(next(passed)) for _ in range(count))) for text, count in counts]


def adopted(descriptor: int) -> socket.socket:
    """A socket that another process has made, for this one alone."""
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(False)
    sock.set_inheritable(False)
    return sock


# --- from one configuration to the next ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """From some ports to others."""

    ports: tuple[Port, ...]
    """One for each new opening."""
    kept: Mapping[int, int]
    """Position of a new opening -> position of the old port that it keeps."""
    closed: tuple[Port, ...]
    """Old ports that are wanted no more; they are still open."""

    @property
    def opened(self) -> dict[int, Port]:
        """By position: ports that are new."""
        return {position: port for position, port in enumerate(self.ports) if position not in self.kept}


Ports = Callable[[Sequence[tuple[Port, Opening]], Sequence[Opening]], Change]
"""Raises StartError with one line; then nothing has changed."""


@dataclass(slots=True)
class Handed:
    """Sockets that another program has handed over."""

    sockets: dict[str, list[list[Spread]]] = field(default_factory=dict)
    """By the address as the configuration has it; port 0 may stand there several times."""

    def take(self, address: Address) -> list[Spread] | None:
        """The sockets of this address, for whoever listens there now."""
        waiting = self.sockets.get(str(address))
        return waiting.pop(0) if waiting else None

    def rivals(self, address: Address) -> list[Port]:
        """What is in the way of an address that nobody has handed over: other addresses of its port."""
        found: list[Port] = []
        for text, waiting in self.sockets.items():
            if not text.startswith(str(SystemdAddress(""))):
                found += [Port(address, spreads) for spreads in waiting]
        return [port for port in found if port.is_rival(address)]

    def close(self) -> None:
        """What nobody took."""
        for spreads in chain.from_iterable(self.sockets.values()):
            for one in spreads:
                one.close()
        self.sockets.clear()


def _port_of(sock: socket.socket) -> int:
    """-1 for a UNIX socket."""
    name = sock.getsockname()
    return int(name[1]) if isinstance(name, tuple) else -1


def bind_beside(address: Address, rivals: Collection[Port]) -> tuple[list[Spread], list[tuple[socket.socket, str]]]:
    """What of an address is in these ports, which are about to be closed; and sockets for the rest, also where they
    overlap.  No socket is closed that clients may wait in.  Raises BindError."""
    listening = {one.text: one for rival in rivals for one in rival.spreads}
    there = listening.keys() & set(places(address)) if rivals else set()
    bound: list[tuple[socket.socket, str]] | None = None
    try:
        bound = bind(address, there=there)
    except BindError as error:
        if error.number != errno.EADDRINUSE or not rivals:
            raise
    if bound is None:
        for rival in rivals:
            rival.share(True)
        try:
            bound = bind(address, shared=True, there=there)
        finally:
            for rival in rivals:
                rival.share(False)
    return [listening[text].dup() for text in sorted(there)], bound


class Binder:
    """Binds what is new, for so many workers."""

    def __init__(self, workers: int = 1, handed: Handed | None = None) -> None:
        """`handed`: what a predecessor has left."""
        self._workers = workers
        self._handed = handed or Handed()
        self._rights = os.geteuid()

    def __call__(self, old: Sequence[tuple[Port, Opening]], new: Sequence[Opening]) -> Change:
        if not old:
            self._rights = os.geteuid()
        change = moves([opening for _, opening in old], new)
        closed = [old[position][0] for position in change.closed]
        # Nobody can connect to a UNIX socket whose file is gone.
        kept = {position: was for position, was in change.kept.items() if old[was][0].is_there()}
        closed += [old[was][0] for position, was in change.kept.items() if position not in kept]
        opened: dict[int, Port] = {}
        try:
            for position, opening in enumerate(new):
                if position not in kept:
                    opened[position] = self._port(opening, closed)
        except BaseException:
            for port in opened.values():
                port.close()
            raise
        ports = [opened[position] if position in opened else old[kept[position]][0] for position in range(len(new))]
        return Change(tuple(ports), kept, tuple(closed))

    def _port(self, opening: Opening, closing: Sequence[Port]) -> Port:
        if (handed := self._handed.take(opening.address)) is not None:
            return Port(opening.address, handed)
        try:
            spreads, bound = self._bind(opening.address, closing)
        except BindError as error:
            raise StartError(f"[service:{opening.service.name}] {error}") from None
        try:
            for sock, text in bound:
                spreads.append(spread(sock, text, self._workers, by_client=_by_client(opening)))
        except OSError as error:
            for one in spreads:
                one.close()
            for sock, _ in bound:
                sock.close()
            cure = "raise the limit of open files (LimitNOFILE), or lower [gateway] workers"
            raise StartError(f"[service:{opening.service.name}] {opening.address}: {error.strerror}; {cure}") from None
        return Port(opening.address, spreads)

    def _bind(self, address: Address, closing: Sequence[Port]) -> tuple[list[Spread], list[tuple[socket.socket, str]]]:
        """As `bind_beside`, with the ports that this change closes, or that nobody has taken over."""
        handed = self._handed.rivals(address)
        rivals = [port for port in closing if port.is_rival(address)]
        try:
            return bind_beside(address, [*rivals, *handed])
        except BindError as error:
            if error.number in (errno.EACCES, errno.EADDRINUSE) and (handed or self._rights != os.geteuid()):
                # The sockets of the start are root's, who may share them with nobody else.
                raise BindError(
                    f"{address}: the gateway has given up the rights to open it ({errno.errorcode[error.number]}); "
                    "restart the gateway for this address"
                ) from None
            raise
