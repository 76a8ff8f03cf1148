"""What went wrong with each client of late, so that an administrator who is asked "why?" has an answer.

The memory is bounded whatever clients do: MOST clients, of each the last EACH kinds of failure.  Beyond it, whoever had
no failure for the longest time is forgotten.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from ..guard.limits import client_key
from ..records import dataclass
from .catalogue import EVENTS
from .kinds import Fields, Outcome, Scope, Severity, saying

MOST: Final = 2048
"""Clients: IPv4 addresses and IPv6 /64."""
EACH: Final = 6
"""Kinds of failure of a client."""
TEXTS: Final = 256
"""Texts that failures share, and that are looked for: an attacker can make each one different."""
LONGEST: Final = 160
"""Characters of a cause."""

_CAUSES: Final = ("limit", "detail", "text", "mechanism")
"""Fields of which the first that is there says most."""
_TOLD: Final = frozenset(
    name
    for name, row in EVENTS.items()
    if row.told and row.scope in (Scope.SESSION, Scope.BACKEND)
    and row.severity is not Severity.INFO and row.ends is not Outcome.DONE
)  # fmt: skip
"""Events that are failures, whatever they say."""
_ENDS: Final = frozenset(name for name, row in EVENTS.items() if not row.told and row.ends not in (None, Outcome.DONE))
"""Reasons of a session that have no event of their own."""


@dataclass(slots=True)
class Failure:
    """One kind, as often as it happened."""

    event: str
    """Its name in the catalogue; of a session's end, the reason."""
    service: str
    cause: str
    """The limit, the detail, the other side's words, or the mechanism of a login."""
    tls: str
    """The version of TLS with the client, where the event says so."""
    cure: str
    """What to change, where the event says more than the catalogue."""
    client: str
    first: float
    """Seconds since 1970."""
    last: float
    count: int = 1


class Failures:
    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        # In the order of the last failure.
        self._clients: OrderedDict[str, list[Failure]] = OrderedDict()
        self._texts: dict[str, str] = {}

    def __len__(self) -> int:
        """Clients of whom something is known."""
        return len(self._clients)

    @property
    def lasting(self) -> tuple[dict[str, list[Failure]], dict[str, str]]:
        """What outlives sessions. The texts in both are the same objects."""
        return self._clients, self._texts

    def hear(self, event: str, service: str, client: str, fields: Fields) -> None:
        """Any event, told or not."""
        if not client:
            return
        if event == "session":
            event = str(fields.get("reason"))
            if event not in _ENDS:
                return
        elif event == "auth":
            if fields.get("result") == "ok":
                return
        elif event not in _TOLD:
            return
        self._add(event, service, client, fields)

    def _add(self, event: str, service: str, client: str, fields: Fields) -> None:
        key, now = client_key(client), self._now()
        known = self._clients.get(key)
        if known is None:
            if len(self._clients) >= MOST:
                self._clients.popitem(last=False)
            known = self._clients[key] = []
        else:
            self._clients.move_to_end(key)
        cause = saying(fields, _CAUSES, LONGEST)
        for position, one in enumerate(known):
            if (one.event, one.service, one.cause) == (event, service, cause):
                one.count += 1
                one.last, one.client = now, client
                known.append(known.pop(position))
                return
        if len(known) >= EACH:
            del known[0]
        tls, cure = saying(fields, ("tls",), LONGEST), saying(fields, ("cure",), 3 * LONGEST)
        event, service, cause, tls, cure = map(self._shared, (event, service, cause, tls, cure))
        known.append(Failure(event, service, cause, tls, cure, client, now, now))

    def _shared(self, text: str) -> str:
        """An equal text. The failures of a crowd are alike: with the same objects they take half the memory."""
        if len(self._texts) >= TEXTS:
            self._texts.clear()
        return self._texts.setdefault(text, text)

    def of(self, network: IPv4Network | IPv6Network) -> list[Failure]:
        """Of its clients, the latest first."""
        found: list[Failure] = []
        for key, failures in self._clients.items():
            place = ip_network(key)
            if place.version == network.version and place.overlaps(network):
                found += failures
        return sorted(found, key=lambda one: -one.last)
