"""What is remembered of a client: facts, each with its first time, its last time, and how often.

A fact belongs to a service and a network, or to a service and a user.  Two collections of facts are merged by adding,
so several processes may each have their own.  Everything here is pure; times are seconds since 1970.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from .alerts import ALERTS, alert_of

SECURED: Final = "tls"
"""Value: the version.  One for each session inside TLS."""
CLEAR: Final = "clear"
"""Value: the listener's policy.  A session without TLS in which something was done: a login, a recipient, a message."""
CLEAR_LOGIN: Final = "clear-login"
"""Value: the SASL mechanism.  A login without TLS that the backend took."""
CIPHER: Final = "cipher"
GROUP: Final = "group"
NO_NAME: Final = "no-sni"
"""Sessions inside TLS whose client named no server."""
REFUSAL: Final = "alert"
"""Value: the alert by which a client refused the handshake."""
DOWNGRADE: Final = "downgrade"
"""Value: `logged` or `refused`.  A client of a network that always used TLS came without."""

KINDS: Final = (SECURED, CLEAR, CLEAR_LOGIN, CIPHER, GROUP, NO_NAME, REFUSAL, DOWNGRADE)

USER: Final = "user:"
"""What stands in a network's place for a user begins so."""

Key = tuple[str, str, str, str]
"""Service, network (or user), kind, value."""


def of_user(name: str) -> str:
    """What stands for a user in the place of a network."""
    return USER + name


def user_in(network: str) -> str | None:
    """The user that stands in a network's place; None for a network."""
    return network.removeprefix(USER) if network.startswith(USER) else None


@dataclass(slots=True)
class Times:
    """When, and how often."""

    first: int
    last: int
    count: int = 1

    def add(self, other: Times) -> None:
        self.first = min(self.first, other.first)
        self.last = max(self.last, other.last)
        self.count += other.count


@dataclass(frozen=True, slots=True)
class Fact:
    """A row of the store."""

    service: str
    network: str
    """A network, or a user (`of_user`)."""
    kind: str
    value: str
    first: int
    last: int
    count: int


class Networks:
    """address -> the network that it is counted with, as text: `192.0.2.0/24`.

    `bits4`, `bits6`: lengths of the prefix.  Nothing for nothing (a UNIX socket) and for what is no address.
    """

    MOST: Final = 4096
    """Addresses whose network is remembered."""

    def __init__(self, bits4: int = 24, bits6: int = 64) -> None:
        self._bits4 = bits4
        self._bits6 = bits6
        self._known: dict[str, str] = {}

    def __call__(self, client: str) -> str:
        found = self._known.get(client)
        if found is None:
            if len(self._known) >= self.MOST:
                self._known.clear()
            found = self._known[client] = self._of(client)
        return found

    def _of(self, client: str) -> str:
        try:
            address = ip_address(client.partition("%")[0])
        except ValueError:
            return ""
        if isinstance(address, IPv6Address):
            if address.ipv4_mapped is None:
                return str(IPv6Network((address, self._bits6), strict=False))
            address = address.ipv4_mapped
        return str(IPv4Network((address, self._bits4), strict=False))


class Pending:
    """Facts that are not in the store yet; so many at most, for clients decide how many there are."""

    MOST: Final = 50_000
    _VALUE: Final = re.compile(r"[A-Za-z0-9_.+-]{1,48}")

    def __init__(self, networks: Networks) -> None:
        self.lost = 0
        """Facts for which there was no room."""
        self._networks = networks
        self._facts: dict[Key, Times] = {}

    def __len__(self) -> int:
        return len(self._facts)

    def hear(self, event: str, service: str, client: str, fields: Mapping[str, object], now: int) -> None:
        """An event of the gateway, whether it is told or not."""
        found = _meant(event, fields)
        if not found:
            return
        # A user is whom the backend let in: nobody can make up others.
        user = of_user(str(fields["user"])) if fields.get("user") else ""
        network = "" if user and event == "downgrade" else self._networks(client)
        for who in (network, user):
            if who:
                for kind, value in found:
                    self.note(service, who, kind, value, now)

    def note(self, service: str, network: str, kind: str, value: str, now: int) -> None:
        """One more."""
        known = self._facts.get((service, network, kind, value))
        if known is None:
            # Looked at once: what is there already is sound.
            if value and not self._VALUE.fullmatch(value):
                value = "other"
            key = service, network, kind, value
            known = self._facts.get(key)
            if known is None:
                if len(self._facts) < self.MOST:
                    self._facts[key] = Times(now, now)
                else:
                    self.lost += 1
                return
        known.last = now
        known.count += 1

    def take(self) -> dict[Key, Times]:
        """All of them; nothing is pending afterwards."""
        taken, self._facts = self._facts, {}
        return taken

    def put_back(self, facts: Mapping[Key, Times]) -> None:
        """What could not be written."""
        for key, times in facts.items():
            if key in self._facts:
                self._facts[key].add(times)
            elif len(self._facts) < self.MOST:
                self._facts[key] = times
            else:
                self.lost += 1


def _meant(event: str, fields: Mapping[str, object]) -> list[tuple[str, str]]:
    """Kinds and values of the facts in an event."""
    found: list[tuple[str, str]] = []
    if event == "session":
        if version := fields.get("tls"):
            found = [(SECURED, str(version)), (CIPHER, str(fields.get("cipher") or ""))]
            if group := fields.get("group"):
                found.append((GROUP, str(group)))
            if not fields.get("sni"):
                found.append((NO_NAME, ""))
        elif has_done_something(fields):
            found = [(CLEAR, str(fields.get("policy") or ""))]
    elif event == "auth":
        if fields.get("result") == "ok" and not fields.get("tls"):
            found = [(CLEAR_LOGIN, str(fields.get("mechanism") or ""))]
    elif event == "downgrade":
        found = [(DOWNGRADE, str(fields.get("action") or ""))]
    elif event == "tls-failed" and (alert := alert_of(str(fields.get("detail") or ""))) in ALERTS:
        found = [(REFUSAL, alert)]
    return found


def has_done_something(fields: Mapping[str, object]) -> bool:
    """Whether this session was more than a look: port scanners and monitoring do nothing."""
    return bool(fields.get("proven") or fields.get("messages") or fields.get("phase") == "relaying")


def merged(*collections: Iterator[Fact] | list[Fact]) -> list[Fact]:
    """The facts of several stores as if there had been one."""
    times: dict[Key, Times] = {}
    for facts in collections:
        for fact in facts:
            key = fact.service, fact.network, fact.kind, fact.value
            one = Times(fact.first, fact.last, fact.count)
            if key in times:
                times[key].add(one)
            else:
                times[key] = one
    return [Fact(*key, one.first, one.last, one.count) for key, one in sorted(times.items())]
