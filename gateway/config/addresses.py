"""Which addresses meet: two listeners that want the same one, a backend that is the gateway itself."""

from __future__ import annotations

import ipaddress
import posixpath
from collections.abc import Callable

from .grammar import canonical
from .values import Address, IPAddress, TCPAddress, UnixAddress

_LOCALHOST: frozenset[IPAddress | str] = frozenset({ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1")})


def collide(one: Address, other: Address) -> bool:
    """Whether the kernel would refuse to let us listen on both."""
    match one, other:
        case TCPAddress(host, port), TCPAddress(rival, rival_port):
            return port == rival_port != 0 and not _family(host).isdisjoint(_family(rival)) and _overlap(host, rival)
    return one == other


def leads_to(backend: Address, listener: Address, is_local: Callable[[str], bool]) -> bool:
    """Whether a connection to `backend` would be accepted by `listener`.

    No resolver is asked: a name is known where it is `localhost`, the listener's own, or where `is_local` knows it.
    What cannot be seen from here: a socket of systemd's, a port of the kernel's choice, symbolic links, two gateways
    that point at each other.
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
    """The address families that a listener's host may stand for; a name may be in either."""
    try:
        return {4, 6} if host is None else {ipaddress.ip_address(host).version}
    except ValueError:
        return {4, 6}


def _plain(path: str) -> str:
    # normpath keeps two slashes at the beginning, which mean nothing on the systems that we know.
    return posixpath.normpath("/" + path.lstrip("/"))


def _places(host: str) -> frozenset[IPAddress | str]:
    """Where connections to this host go, as far as its text tells: addresses, or just the name."""
    if host.lower() == "localhost":
        return _LOCALHOST
    try:
        address = canonical(host)
    except ValueError:
        return frozenset({host.lower()})
    if address.is_unspecified:
        # The kernel takes "any address" as a destination for the loopback address of its family.
        return frozenset(place for place in _LOCALHOST if _version(place) == address.version)
    return frozenset({address})


def _accepts(host: str | None, place: IPAddress | str, is_local: Callable[[str], bool]) -> bool:
    """Whether who listens on `host` (None: everywhere) gets what is sent to `place`."""
    if host is None:
        return _is_ours(place, is_local)
    try:
        address = canonical(host)
    except ValueError:
        return place in _places(host)
    if address.is_unspecified:
        # A listener on [::] takes no IPv4 (listener.py); a name may be in either family.
        return _version(place) in (None, address.version) and _is_ours(place, is_local)
    return place == address


def _is_ours(place: IPAddress | str, is_local: Callable[[str], bool]) -> bool:
    return (not isinstance(place, str) and place.is_loopback) or is_local(str(place))


def _version(place: IPAddress | str) -> int | None:
    return None if isinstance(place, str) else place.version
