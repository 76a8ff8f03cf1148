"""What master, template and workers tell each other: one JSON object per line, with descriptors where they are needed.

A message that hands over descriptors says how many, as `descriptors`: they are the next ones that came with the socket
(unix(7), SCM_RIGHTS).  Both ends have the same version of the gateway: a new version starts with a new master.
"""

from __future__ import annotations

import json
import os
import select
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

MOST_DESCRIPTORS: Final = 200
"""In one message; the kernel takes 253 (SCM_MAX_FD)."""
CHUNK: Final = 65536
LONGEST: Final = 1 << 20
"""Octets of a message.  An event has some dozens of fields of 1 KiB each at most."""

Message = Mapping[str, Any]


def readable(seconds: float, *ends: Any) -> set[int]:
    """Which of these sockets or descriptors have something to read, or have ended, within so many seconds.

    Not by select(2), which takes no number above 1023: a gateway with 600 sessions has such descriptors.
    """
    waiting = select.poll()
    for end in ends:
        waiting.register(end, select.POLLIN)
    return {number for number, _ in waiting.poll(1000 * max(0.0, seconds))}


class Unintelligible(Exception):
    """What came is no message."""


def line(message: Message) -> bytes:
    """Octets of the wire and values of other kinds become text, as they would in a line of the log."""
    return _encode(message).encode() + b"\n"


def _text(value: object) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("ascii", "backslashreplace")
    return str(value)


# Made once, and without a look for cycles: less than half the time of `json.dumps`.
_encode = json.JSONEncoder(separators=(",", ":"), default=_text, check_circular=False).encode


class Incoming:
    """Octets and descriptors as they come, and the messages that they make."""

    def __init__(self) -> None:
        self._octets = b""
        self._descriptors: deque[int] = deque()

    def take(self, octets: bytes, descriptors: Sequence[int] = ()) -> list[tuple[Message, list[int]]]:
        """Messages that are complete now, each with its descriptors.  Raises Unintelligible."""
        self._descriptors += descriptors
        *lines, self._octets = (self._octets + octets).split(b"\n")
        if len(self._octets) > LONGEST:
            raise Unintelligible("a message without an end")
        return [self._message(one) for one in lines]

    def _message(self, octets: bytes) -> tuple[Message, list[int]]:
        try:
            message = json.loads(octets)
            if not isinstance(message, dict):
                raise ValueError("no object")
            return message, [self._descriptors.popleft() for _ in range(message.get("descriptors", 0))]
        except (ValueError, TypeError, IndexError) as wrong:
            raise Unintelligible(f"{octets[:100]!r}: {wrong}") from None

    def close(self) -> None:
        """Descriptors that nobody asked for."""
        while self._descriptors:
            os.close(self._descriptors.popleft())


class Wire:
    """Messages over a socket, for a process without a reactor.  Raises OSError where the other end is gone."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._incoming = Incoming()

    def say(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        send_all(self.socket, message, descriptors)

    def hear(self) -> list[tuple[Message, list[int]]] | None:
        """Waits for something; None where the other end is closed.  Raises Unintelligible."""
        octets, descriptors, _flags, _address = socket.recv_fds(self.socket, CHUNK, MOST_DESCRIPTORS)
        if not octets:
            self._incoming.close()
            return None
        return self._incoming.take(octets, descriptors)

    def close(self) -> None:
        self._incoming.close()
        self.socket.close()


def send_all(sock: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Over a blocking socket.  More descriptors than go with one message go ahead of it with empty ones."""
    given = list(descriptors)
    octets = line({**message, "descriptors": len(given)} if given else message)
    while len(given) > MOST_DESCRIPTORS:
        # `{}` takes no descriptors: they wait for the message that does.
        socket.send_fds(sock, [b"{}\n"], given[:MOST_DESCRIPTORS])
        del given[:MOST_DESCRIPTORS]
    sent = socket.send_fds(sock, [octets], given) if given else sock.send(octets)
    if sent < len(octets):
        sock.sendall(octets[sent:])
