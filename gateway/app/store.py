"""Listening sockets that systemd keeps while the gateway restarts: its store of descriptors (sd_notify(3), FDSTORE).

A client that connects during a restart or after a crash waits, and is served by the next program.  Each address that
is listened on has names in the store, by which the next program finds its sockets.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from ..config.values import TCPAddress
from ..wire.listener import INHERITED
from ..wire.spread import Spread
from .handover import Inheritance
from .ports import Port, adopted

_PREFIX = "listen"
_SEPARATOR = "="
"""It is in no address.  A colon may not be in a name of the store."""


def kept(ports: Iterable[Port]) -> Mapping[str, Sequence[int]]:
    """Names for the store, each with its descriptors.  Only of TCP ports with a number: a UNIX socket has a file that
    belongs to it, and a socket of systemd is kept by its own unit."""
    return {
        _name(str(port.address), spread.text): [sock.fileno() for sock in spread.sockets]
        for port in ports
        if isinstance(port.address, TCPAddress) and port.address.port
        for spread in port.spreads
    }


def names(sockets: Mapping[str, Sequence[Sequence[Spread]]]) -> set[str]:
    """The names of what a predecessor hands over, as far as systemd may have it."""
    return {
        _name(address, spread.text) for address, ports in sockets.items() for spreads in ports for spread in spreads
    }


def stored() -> set[str]:
    """The names that systemd has passed at the start."""
    return {name for name, _ in INHERITED if name.startswith(_PREFIX + _SEPARATOR)}


def found(wanted: Collection[str]) -> Inheritance | None:
    """The sockets of the gateway that ran before, if systemd has kept them.  Once.

    `wanted`: the addresses that are to be listened on.  All others are closed: they might be in the way.
    """
    sockets: dict[str, dict[str, list[socket.socket]]] = {}
    for address, text, descriptor in _taken():
        if address not in wanted:
            os.close(descriptor)
            continue
        sockets.setdefault(address, {}).setdefault(text, []).append(adopted(descriptor))
    if not sockets:
        return None
    return Inheritance({
        address: [[Spread(text, tuple(group)) for text, group in spreads.items()]]
        for address, spreads in sockets.items()
    })  # fmt: skip


def _taken() -> Iterator[tuple[str, str, int]]:
    for entry in [entry for entry in INHERITED if entry[0].startswith(_PREFIX + _SEPARATOR)]:
        # Nobody else may find it there, or keep it open.
        INHERITED.remove(entry)
        name, descriptor = entry
        _, address, text = name.split(_SEPARATOR)
        yield address.replace(",", ":"), text.replace(",", ":"), descriptor


def _name(address: str, text: str) -> str:
    return _SEPARATOR.join((_PREFIX, address, text)).replace(":", ",")
