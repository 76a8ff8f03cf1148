"""The dialogues that administrators read now.  Whoever reads one asks again every second; nobody records for anyone who
does not, so nothing is left behind."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import field
from ipaddress import ip_address
from typing import Final

from ..config.values import Network
from ..records import dataclass

Row = tuple[float, str, str, str, str]
"""Seconds since 1970, session, service, `C`, `S` or `-` for an event, text."""

LEASE: Final = 10.0
"""Seconds for which a capture goes on without being asked for."""
MOST: Final = 4
"""Captures at a time."""
OCTETS: Final = 131072
"""Of text that waits to be read; what is more is lost, and counted."""
LONGEST: Final = 400
"""Characters of a line."""


@dataclass(slots=True)
class Capture:
    network: Network
    until: float
    rows: deque[Row] = field(default_factory=deque)
    octets: int = 0
    lost: int = 0
    """Lines."""

    def add(self, row: Row) -> None:
        size = len(row[4]) + 80
        if self.octets + size > OCTETS:
            self.lost += 1
            return
        self.octets += size
        self.rows.append(row)

    def take(self) -> tuple[list[Row], int]:
        """What was not read yet, and how many lines were lost."""
        rows, lost = list(self.rows), self.lost
        self.rows.clear()
        self.octets = self.lost = 0
        return rows, lost


class Captures:
    """`seconds` never goes back."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time) -> None:
        self._seconds = seconds
        self.now = now
        self._captures: dict[Network, Capture] = {}

    def __len__(self) -> int:
        return len(self._captures)

    def read(self, network: Network) -> tuple[list[Row], int]:
        """Begin, or go on: as `Capture.take`.  Raises ValueError where there are too many."""
        self._expire()
        capture = self._captures.get(network)
        if capture is None:
            if len(self._captures) >= MOST:
                raise ValueError(f"{MOST} captures are under way; end one of them")
            capture = self._captures[network] = Capture(network, 0.0)
        capture.until = self._seconds() + LEASE
        return capture.take()

    def add(self, client: str, session: str, service: str, who: str, text: str) -> None:
        """One line of a session, for everybody who reads this client's."""
        self._expire()
        if not self._captures or not client:
            return
        address = ip_address(client)
        for capture in self._captures.values():
            if address in capture.network:
                capture.add((self.now(), session, service, who, text[:LONGEST]))

    def wants(self, client: str) -> bool:
        """Whether anybody reads what this client says."""
        self._expire()
        if not self._captures or not client:
            return False
        address = ip_address(client)
        return any(address in capture.network for capture in self._captures.values())

    def _expire(self) -> None:
        now = self._seconds()
        for network in [one for one, capture in self._captures.items() if capture.until <= now]:
            del self._captures[network]
