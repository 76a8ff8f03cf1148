"""Listening for one connection that belongs to another: at the address of that one, and at a port of a range."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterator
from typing import Final

BACKLOG: Final = 8
"""Connections that wait in the kernel's queue.  One is expected; the others are closed."""

FEW: Final = 16
"""Ports that are tried before all of them are."""

_TAKEN: Final = frozenset({errno.EADDRINUSE, errno.EACCES})

_chance: Final = random.SystemRandom()


def listen_beside(host: str, ports: range | None) -> socket.socket | None:
    """A socket that listens at this address and at one of these ports, chosen at random; None where all are in use.

    Whoever could guess the port could be there before the one that is expected.  Without `ports` the kernel chooses.
    Raises OSError.
    """
    family, kind, _, _, (numeric, _, *scope) = socket.getaddrinfo(
        host, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
    )[0]
    sock = None
    try:
        for port in [0] if ports is None else _shuffled(ports):
            # A socket that was not bound can be bound elsewhere: a range that is used up costs one call for each port.
            sock = sock or _fresh(family, kind)
            try:
                sock.bind((numeric, port, *scope))
                bound, sock = sock, None
                return _listening(bound)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
        return None
    finally:
        if sock is not None:
            sock.close()


def _fresh(family: int, kind: int) -> socket.socket:
    sock = socket.socket(family, kind)
    sock.setblocking(False)
    # A port whose last connection is in TIME_WAIT is free; one that is listened at is not.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock


def _listening(sock: socket.socket) -> socket.socket:
    """Another process may have bound the same port, and be the first to listen there."""
    try:
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _shuffled(ports: range) -> Iterator[int]:
    """In most cases the first is free: all of them are put in order only if a few are not."""
    yield from _chance.sample(ports, min(len(ports), FEW))
    yield from _chance.sample(ports, len(ports))
