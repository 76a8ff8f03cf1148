"""Ports that nobody listens on, for programs and files that must know the number before it is bound."""

from __future__ import annotations

import errno
import random
import socket
from pathlib import Path

_LOWEST = 10000
_dice = random.SystemRandom()


def free_ports(count: int) -> list[int]:
    """None that the kernel uses for outgoing connections: such a port may be in use a moment later."""
    limit = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return _free(count, range(_LOWEST, limit))


def free_port() -> int:
    return free_ports(1)[0]


def low_port() -> int:
    """One that only root can bind."""
    return _free(1, range(600, 1024))[0]


def _free(count: int, among: range) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        port = _dice.choice(among)
        if _is_free(port) and _claim(port):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        try:
            # All addresses: a test may bind that, too.
            sock.bind(("", port))
        except OSError as wrong:
            if wrong.errno != errno.EADDRINUSE:
                raise
            return False
    return True


def _claim(port: int) -> bool:
    """For as long as this process runs: no other test, in this process or another, is given the port."""
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0starttls-gateway-tests-{port}")
    except OSError:
        claim.close()
        return False
    claim.detach()
    return True
