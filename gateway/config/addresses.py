"""Conflicts between addresses: two listeners at one address, a backend that is the gateway itself."""

from __future__ import annotations

import ipaddress
import posixpath
from collections.abc import Callable

from .grammar import canonical
from .values import Address, IPAddress, TCPAddress, UnixAddress

_LOCALHOST: frozenset[IPAddress | str] = frozenset({ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1")})


def collide(one: Address, other: Address) -> bool:
    """Whether the kernel would refuse to listen on both."""
    match one, other:
        case TCPAddress(host, port), TCPAddress(rival, rival_port):
            return port == rival_port != 0 and not _family(host).isdisjoint(_family(rival)) and _overlap(host, rival)
    return one == other


def leads_to(backend: Address, listener: Address, is_local: Callable[[str], bool]) -> bool:
    """Whether a connection to `backend` would be accepted by `listener`.

    Does not use DNS: it knows the names `localhost`, the listener's own, and those of `is_local`.  It cannot find
    sockets of systemd, ports that the kernel chooses, symbolic links, and two gateways that point at each other.
    """
    match backend, listener:
        case UnixAddress(path), UnixAddress(own):
            return _plain(path) == _plain(own)
        case TCPAddress(str(host), port), TCPAddress(own_host, own_port) if port == own_port:
            return any(_accepts(own_host, place, is_local) for place in _places(host))
    return False


def _overlap(host: str | None, rival: str | None) -> bool:
    wildcards = (None, "0.0.0.0", "::")
    return host == rival or host in wildcards or rival in wildcards


def _family(host: str | None) -> set[int]:
    """The address families of a listener's host.  A name may have both."""
    try:
        return {4, 6} if host is None else {ipaddress.ip_address(host).version}
    except ValueError:
        return {4, 6}


def _plain(path: str) -> str:
    # normpath keeps two slashes at the beginning; on Linux they mean one.
    return posixpath.normpath("/" + path.lstrip("/"))


def _places(host: str) -> frozenset[IPAddress | str]:
    """The destinations of connections to this host: addresses, or only the name."""
    if host.lower() == "localhost":
        return _LOCALHOST
    try:
        address = canonical(host)
    except ValueError:
        return frozenset({host.lower()})
    if address.is_unspecified:
        # A connection to 0.0.0.0 or :: goes to the loopback address.
        return frozenset(place for place in _LOCALHOST if _version(place) == address.version)
    return frozenset({address})


def _accepts(host: str | None, place: IPAddress | str, is_local: Callable[[str], bool]) -> bool:
    """Whether a listener on `host` (None: all addresses) accepts connections to `place`."""
    if host is None:
        return _is_ours(place, is_local)
    try:
        address = canonical(host)
    except ValueError:
        return place in _places(host)
    if address.is_unspecified:
        # A listener on [::] accepts no IPv4 (listener.py).  A name may have both families.
        return _version(place) in (None, address.version) and _is_ours(place, is_local)
    return place == address


def _is_ours(place: IPAddress | str, is_local: Callable[[str], bool]) -> bool:
    return (not isinstance(place, str) and place.is_loopback) or is_local(str(place))


def _version(place: IPAddress | str) -> int | None:
    return None if isinstance(place, str) else place.version
