"""Ports that nobody listens on, for programs and files that must know the number before it is bound."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from pathlib import Path

_LOWEST = 10000
_dice = random.SystemRandom()


def free_ports(count: int) -> list[int]:
    """None that the kernel uses for outgoing connections: such a port may be in use a moment later."""
    limit = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports: list[int] = []
    with ExitStack() as stack:
        while len(ports) < count:
            # All addresses: a test may bind that, too.
            sock = stack.enter_context(socket.socket())
            try:
                sock.bind(("", _dice.randrange(_LOWEST, limit)))
            except OSError:
                continue
            ports.append(sock.getsockname()[1])
    return ports


def free_port() -> int:
    return free_ports(1)[0]
