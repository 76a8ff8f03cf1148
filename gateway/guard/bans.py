"""Clients that an administrator keeps out for some time: single addresses, and networks.

A look takes the same time for one ban as for MOST of them.  Times are seconds since 1970, so that a ban means the same
in every process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network
from typing import Final

from ..config.values import Network

MOST: Final = 4096
"""Bans at a time."""


class Bans:
    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._until: dict[Network, float] = {}
        self._texts: dict[Network, str] = {}
        self._tables: dict[tuple[int, int], set[int]] = {}
        """By IP version and by the number of bits that do not matter: what the others are."""

    def __len__(self) -> int:
        return len(self._until)

    def until(self, network: Network) -> float | None:
        """When the ban of exactly this network ends; None where there is none."""
        return self._until.get(network)

    def all(self) -> list[tuple[Network, float]]:
        """The first to end comes first."""
        return sorted(self._until.items(), key=lambda ban: (ban[1], self._texts[ban[0]]))

    def add(self, network: Network, until: float) -> None:
        """Until then.  Raises ValueError where there are too many."""
        if network not in self._until and len(self._until) >= MOST:
            raise ValueError(f"there are {MOST} bans already; lift some, or ban a whole network")
        self._until[network] = until
        # A script may ban thousands, one after the other; each time all of them are told.
        self._texts[network] = written(network)
        version, bits, prefix = _place(network)
        self._tables.setdefault((version, bits), set()).add(prefix)

    def lift(self, network: Network) -> list[Network]:
        """Those of this network and of every part of it."""
        lifted = [one for one in self._until if one.version == network.version and one.subnet_of(network)]  # type: ignore[arg-type]
        self._drop(lifted)
        return lifted

    def expire(self) -> list[Network]:
        """Forget those whose time is over."""
        now = self._now()
        over = [network for network, until in self._until.items() if until <= now]
        self._drop(over)
        return over

    def _drop(self, networks: Iterable[Network]) -> None:
        for network in networks:
            del self._until[network], self._texts[network]
            version, bits, prefix = _place(network)
            table = self._tables[version, bits]
            table.remove(prefix)
            if not table:
                del self._tables[version, bits]

    # --- clients ---------------------------------------------------------------------------------

    def of(self, client: str) -> Network | None:
        """The ban that keeps this client out; it has an IP address, or none."""
        if not self._tables or not client:
            return None
        address = ip_address(client)
        number = int(address)
        for (version, bits), prefixes in self._tables.items():
            if version == address.version and number >> bits in prefixes:
                network = ip_network((number >> bits << bits, address.max_prefixlen - bits))
                if self._until[network] > self._now():
                    return network
        return None

    def keeps_out(self, client: str) -> bool:
        return self.of(client) is not None

    # --- from one process to another -------------------------------------------------------------

    def told(self) -> list[tuple[str, float]]:
        """All of them, as JSON can hold them."""
        return [(self._texts[network], until) for network, until in self.all()]

    def learn(self, told: Iterable[tuple[str, float]]) -> None:
        """These are all that there are."""
        self._drop(list(self._until))
        for network, until in told:
            self.add(ip_network(network), until)


def written(network: Network) -> str:
    """As it would be typed: an IPv4 address alone stands for itself, an IPv6 address for its /64."""
    return str(network.network_address if network.version == 4 and network.prefixlen == 32 else network)


def _place(network: Network) -> tuple[int, int, int]:
    bits = network.max_prefixlen - network.prefixlen
    return network.version, bits, int(network.network_address) >> bits
