"""Which worker gets a connection: the kernel spreads what comes to one address over several listening sockets.

Each worker has a socket of its own in a reuseport group (socket(7), SO_REUSEPORT), bound by the master and kept by it:
what waits in the queue of a worker that died is still there for the next one.  A socket of a group is never closed
because its worker died: that would reset what waits in it, and move other sockets to other places in the group.

UNIX sockets have no groups, and a socket that systemd passed belongs to systemd: all workers accept from that one.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from ..records import dataclass
from .listener import BACKLOG

SO_ATTACH_REUSEPORT_CBPF: Final = 51
"""asm-generic/socket.h, since Linux 4.5; Python does not name it."""
SO_DETACH_REUSEPORT_BPF: Final = 68
"""Since Linux 5.3."""

_NET: Final = -0x100000
"""SKF_NET_OFF (filter(7), linux/filter.h): offsets behind it count from the IP header."""

_MULTIPLIER: Final = 2654435761
"""Knuth's multiplicative hash, 2**32 divided by the golden ratio: neighbours in one network meet different workers."""


@dataclass(frozen=True, slots=True)
class Spread:
    """One address that is listened on: its text, and one socket that all workers share, or a group of sockets."""

    text: str
    sockets: tuple[socket.socket, ...]

    def of(self, worker: int, workers: int) -> tuple[socket.socket, ...]:
        """The sockets that worker number `worker` of `workers` accepts from; each socket has somebody who does."""
        if len(self.sockets) <= workers:
            return (self.sockets[worker % len(self.sockets)],)
        return self.sockets[worker::workers]

    def steer(self, *, by_client: bool) -> None:
        """From now on, `by_client` as `spread` has it.  Where the kernel cannot do it, all stays as it is."""
        if len(self.sockets) == 1:
            return
        with suppress(OSError):
            if by_client:
                attach(self.sockets[0], len(self.sockets))
            else:
                self.sockets[0].setsockopt(socket.SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0)

    def dup(self) -> Spread:
        """The same sockets, to be closed by somebody else."""
        return Spread(self.text, tuple(sock.dup() for sock in self.sockets))

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


def spread(sock: socket.socket, text: str, workers: int, *, by_client: bool) -> Spread:
    """A group around a socket that listens already.  Raises OSError; then nothing but `sock` is open.

    `by_client`: all connections of one client's address (of its /64 with IPv6) go to the same worker.  Otherwise each
    goes anywhere, as is right for a load balancer, whose connections all come from one address.

    The flag is set after `listen`, so that an address that somebody else has was refused as always.
    """
    if workers == 1 or sock.family not in (socket.AF_INET, socket.AF_INET6) or sys.platform != "linux":
        return Spread(text, (sock,))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    group = [sock]
    try:
        # The kernel counts them in the order of listen().
        while len(group) < workers:
            group.append(_another(sock))
        if by_client:
            attach(sock, workers)
    except OSError:
        for one in group[1:]:
            one.close()
        raise
    return Spread(text, tuple(group))


def _another(first: socket.socket) -> socket.socket:
    sock = socket.socket(first.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if first.family == socket.AF_INET6:
            only = first.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        sock.bind(first.getsockname())
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


# --- the program of a group ----------------------------------------------------------------------


def _instruction(code: int, k: int = 0, jump_true: int = 0, jump_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, jump_true, jump_false, k & 0xFFFFFFFF)


def program(workers: int) -> Sequence[bytes]:
    """Classic BPF that returns the number of a client's socket, from the source address of the packet."""
    mix = [
        _instruction(0x24, _MULTIPLIER),  # A *= k
        _instruction(0x74, 16),  # A >>= 16
        _instruction(0x94, workers),  # A %= k
        _instruction(0x16),  # return A
    ]
    ipv4 = [_instruction(0x20, _NET + 12)]  # A = the source address
    ipv6 = [
        _instruction(0x20, _NET + 8),  # A = the first half of the source's /64
        _instruction(0x07),  # X = A
        _instruction(0x20, _NET + 12),  # A = its second half
        _instruction(0xAC),  # A ^= X
    ]
    choose = [
        _instruction(0x30, _NET),  # A = the octet with the version of IP
        _instruction(0x54, 0xF0),  # A &= k
        _instruction(0x15, 0x60, 0, len(ipv6 + mix)),  # not 6: over what is for IPv6
    ]
    return choose + ipv6 + mix + ipv4 + mix


def attach(sock: socket.socket, workers: int) -> None:
    """Give a group its program, or another one in its place, by any socket of it.  Raises OSError."""
    instructions = program(workers)
    code = ctypes.create_string_buffer(b"".join(instructions))
    # struct sock_fprog
    told = struct.pack("HxxxxxxP", len(instructions), ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, told)
