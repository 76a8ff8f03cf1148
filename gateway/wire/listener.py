"""Listening sockets."""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.systemd import ListenFDs
from zope.interface import implementer

from ..config.values import Address, SystemdAddress, TCPAddress, UnixAddress
from .leg import prepare
from .reactor import Delayed, Reading

ACCEPTS: Final = 32
"""Connections accepted in one turn of the reactor, so that a flood does not stop open sessions."""

BACKLOG: Final = 1024
"""The kernel's queue of new connections; net.core.somaxconn can lower it."""

PAUSE: Final = 0.25
"""Seconds without accepting after an error of the system.  Otherwise the reactor would try again at once."""

EXHAUSTION: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""The system has no descriptors or memory left (accept(2))."""

_log = Logger()


class BindError(Exception):
    """Cannot listen on an address.  The text is one line: the address, the reason and the cure."""

    def __init__(self, text: str, number: int = 0) -> None:
        """`number`: the errno, 0 where there is none."""
        super().__init__(text)
        self.number = number


def complain(text: str) -> None:
    """The default for `complaint`."""
    _log.warn("{text}", text=text)


@implementer(IReadDescriptor)
class Listener:
    """A listening socket.

    `accepted` gets each new socket, non-blocking, and the address from accept(2).
    `complaint` gets one line when descriptors or memory run out, and one when there are some again.
    """

    def __init__(
        self,
        reactor: Reading,
        sock: socket.socket,
        accepted: Callable[[socket.socket, Any], object],
        complaint: Callable[[str], object] = complain,
        *,
        reserve: bool = True,
    ) -> None:
        """Without a `reserve`, connections that cannot be accepted stay in the kernel's queue."""
        self._reactor = reactor
        self._socket = sock
        self._accepted = accepted
        self._complaint = complaint
        self._has_reserve = reserve
        self._reserve: int | None = None
        """A spare descriptor, to accept and close connections when there is no other."""
        self._need = False
        self._shed = 0
        self._reading = False
        self._stopped = False
        self._pause: Delayed | None = None
        prepare(sock)

    def start(self) -> None:
        """Begin to accept."""
        assert not self._stopped
        self._replenish()
        self._listen()

    def stop(self) -> None:
        """Close.  Connections in the kernel's queue are reset."""
        if self._stopped:
            return
        self._stopped = True
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._reading:
            self._reading = False
            self._reactor.removeReader(self)
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
        self._socket.close()

    def finish(self) -> None:
        """Hand on whoever waits in the kernel's queue, and then stop."""
        if self._stopped:
            return
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        for _ in range(BACKLOG // ACCEPTS):
            if self._stopped or self._need or not waiting.poll(0):
                break
            self.doRead()
        self.stop()

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "listener"

    def connectionLost(self, reason: Failure) -> None:
        """A listening socket has no connection; but shutdown(2) from outside looks like this."""
        self._reading = False
        if not self._stopped:
            self._complaint("a listening socket was shut down; restart the gateway")
            self.stop()

    def doRead(self) -> None:
        for _ in range(ACCEPTS):
            if self._stopped:
                return
            try:
                sock, address = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in EXHAUSTION:
                    self._exhausted(error)
                    return
                # This connection has failed in the queue (accept(2)).  The next one may work.
                continue
            if self._need:
                self._need = False
                self._complaint(f"accepting again; {self._shed} connections were closed")
                self._shed = 0
            if self._reserve is None:
                self._replenish()
            sock.setblocking(False)
            try:
                self._accepted(sock, address)
            except Exception as error:
                _log.critical("a bug ended a connection at its beginning: {kind}", kind=type(error).__name__)
                sock.close()

    def _listen(self) -> None:
        self._pause = None
        if not self._stopped and not self._reading:
            self._reading = True
            self._reactor.addReader(self)

    def _exhausted(self, error: OSError) -> None:
        """Close waiting connections, which cannot be served, and pause."""
        if not self._need:
            self._need = True
            self._complaint(
                f"cannot accept: {error.strerror} ({errno.errorcode[error.errno or 0]}); new connections are closed "
                "until there are some; raise the limit of open files (LimitNOFILE) or lower [limits] sessions"
            )
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
            for _ in range(ACCEPTS):
                try:
                    sock, _address = self._socket.accept()
                except OSError:
                    break
                sock.close()
                self._shed += 1
            self._replenish()
        self._reading = False
        self._reactor.removeReader(self)
        self._pause = self._reactor.callLater(PAUSE, self._listen)

    def _replenish(self) -> None:
        if self._has_reserve:
            with suppress(OSError):
                self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


# --- binding -------------------------------------------------------------------------------------


def bind(address: Address, *, shared: bool = False, there: Collection[str] = ()) -> list[tuple[socket.socket, str]]:
    """Listening sockets for one address of the configuration, each with its address as text.

    `shared`: a socket of this process that has SO_REUSEPORT set may listen there too.  `there`: addresses, as text,
    that are listened on already and need no socket.

    A port alone means all IPv4 and IPv6 addresses: two sockets, or one if the machine has only one family.  With port 0
    the kernel chooses one port.  Blocks while it resolves a host name.  Raises BindError.
    """
    match address:
        case TCPAddress(host=None, port=0):
            return _bind_any_port()
        case TCPAddress():
            wanted = [place for place in _places(address) if str(TCPAddress(*place)) not in there]
            return _bind_all(address, wanted, optional=bool(there), shared=shared)
        case UnixAddress(path=path):
            return [(_bind_unix(address, path), f"unix:{path}")]
        case SystemdAddress(name=name):
            return _adopt(address, name)
    raise AssertionError(address)


def places(address: Address) -> list[str]:
    """The addresses, as text, that `bind` has a socket for each; none where they are not known before.  Blocks, and
    raises, as `bind` does."""
    if isinstance(address, TCPAddress) and address.port:
        return [str(TCPAddress(*place)) for place in _places(address)]
    return []


def _places(address: TCPAddress) -> list[tuple[str, int]]:
    hosts = ["0.0.0.0", "::"] if address.host is None else _resolve(address, address.host)
    return [(host, address.port) for host in hosts]


def _bind_any_port() -> list[tuple[socket.socket, str]]:
    address = TCPAddress(None, 0)
    for _ in range(10):
        first = _bind_all(address, [("0.0.0.0", 0)])
        port = first[0][0].getsockname()[1]
        try:
            return first + _bind_all(TCPAddress(None, port), [("::", port)], optional=True)
        except BindError:
            # The port is in use in the other family.  The kernel will choose another one.
            first[0][0].close()
    raise BindError(f"{address}: no port is free in both IPv4 and IPv6; name one")


def _bind_all(
    address: TCPAddress, places: Sequence[tuple[str, int]], optional: bool = False, shared: bool = False
) -> list[tuple[socket.socket, str]]:
    """Bind all addresses.  A missing address family is an error only if no other is left."""
    bound: list[tuple[socket.socket, str]] = []
    lacking: OSError | None = None
    try:
        for host, port in places:
            try:
                sock = _bind_tcp(host, port, shared)
            except OSError as error:
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
                lacking = error
            else:
                bound.append((sock, str(TCPAddress(host, sock.getsockname()[1]))))
        if not bound and not optional and lacking is not None:
            raise lacking
    except OSError as error:
        for sock, _text in bound:
            sock.close()
        raise _bind_error(address, error) from None
    return bound


def _bind_tcp(host: str, port: int, shared: bool = False) -> socket.socket:
    family, _kind, _protocol, _name, place = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # IPv4 has its own socket, so that IPv4 clients have IPv4 addresses.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(place)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _resolve(address: TCPAddress, host: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise BindError(
            f"{address}: the name {host} does not resolve ({why}); write an IP address, or only the port"
        ) from None
    # A scope id is part of an address: getnameinfo keeps it.
    numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    return list(dict.fromkeys(socket.getnameinfo(place, numeric)[0] for *_, place in found))


def _bind_unix(address: UnixAddress, path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _stale(path):
                raise
            os.unlink(path)
            sock.bind(path)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _bind_error(address, error) from None
    return sock


def _stale(path: str) -> bool:
    """Whether the file is a socket without a listener."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocking:
        knocking.setblocking(False)
        try:
            knocking.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _inherited() -> list[tuple[str, int]]:
    """The sockets of systemd's socket activation, with their names (sd_listen_fds(3))."""
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    descriptors = ListenFDs.fromEnvironment().inheritedDescriptors()
    if not descriptors and (endpoints := sys.modules.get("twisted.internet.endpoints")) is not None:
        # The module removes the variables from the environment when it is imported.
        parser = getattr(endpoints, "_SystemdParser", None)
        descriptors = parser._sddaemon.inheritedDescriptors() if parser is not None else []
    return list(zip(names, descriptors, strict=False))


INHERITED: list[tuple[str, int]] = _inherited()
"""Read at import, before a daemon forks: LISTEN_PID is the parent's."""


def inherited() -> list[tuple[str, str]]:
    """The names of the sockets that systemd passed, each with its address as text."""
    found = []
    for name, descriptor in INHERITED:
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as copy:
            found.append((name, _place(copy)))
    return found


def _adopt(address: SystemdAddress, name: str) -> list[tuple[socket.socket, str]]:
    adopted: list[tuple[socket.socket, str]] = []
    for known, descriptor in INHERITED:
        if known != name:
            continue
        # A copy: closing it keeps the original for the next start.
        sock = socket.socket(fileno=os.dup(descriptor))
        sock.setblocking(False)
        sock.set_inheritable(False)
        adopted.append((sock, _place(sock)))
        if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            for one, _text in adopted:
                one.close()
            raise BindError(
                f"{address}: not a listening stream socket; in its .socket unit use ListenStream, Accept=no"
            )
    if not adopted:
        known_names = ", ".join(dict.fromkeys(known for known, _ in INHERITED)) or "none"
        raise BindError(
            f"{address}: systemd passed no socket of this name (it passed: {known_names}); "
            f"set FileDescriptorName={name} in the .socket unit and start that unit"
        )
    return adopted


def _place(sock: socket.socket) -> str:
    name = sock.getsockname()
    return str(UnixAddress(name)) if sock.family == socket.AF_UNIX else str(TCPAddress(name[0], name[1]))


_CURES: Final = {
    errno.EADDRINUSE: "another server listens there; stop it (`ss -ltnp` shows which one) or choose another address",
    errno.EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE; start as root with --uid and --gid, or "
    "use systemd:NAME",
    errno.EADDRNOTAVAIL: "no interface of this machine has the address; `ip address` lists its addresses",
    errno.EAFNOSUPPORT: "this machine does not support this address family; use an address of the other one",
    errno.ENOENT: "its directory does not exist; create it",
    errno.ENOTDIR: "a part of the path is not a directory; correct the path",
}

_UNIX_CURES: Final = {
    errno.EADDRINUSE: "another server listens there, or the file is not a socket; stop the server or remove the file",
    errno.EACCES: "the gateway cannot write to its directory; give its user the permission",
}


def _bind_error(address: Address, error: OSError) -> BindError:
    number = error.errno or 0
    cures = {**_CURES, **_UNIX_CURES} if isinstance(address, UnixAddress) else _CURES
    # Python's own "AF_UNIX path too long" has no number.
    why = f"{error.strerror} ({errno.errorcode.get(number, number)})" if error.strerror else str(error)
    return BindError(f"{address}: {why}: {cures.get(number, 'choose another address')}", number)
