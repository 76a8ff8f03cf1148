"""The limits of one client and of all clients together.

The caller asks before it accepts a session, and tells when the session is over.  Each call takes constant time, except
`forget`: up to 25 ms after a flood.
"""

from __future__ import annotations

import re
import resource
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from ipaddress import IPv6Network
from typing import Any, NewType, Protocol

from ..config.values import Limits as Values
from ..protocol.proxyprotocol import canonical

DESCRIPTORS = 2
"""File descriptors of a session: its client's socket and its backend's."""
RESERVE = 64
"""Descriptors for everything else: listeners, log, reactor, refused connections, tests of backends."""
NEGLIGIBLE = 100
"""A limit is reported as lowered if it lost more than one session in so many."""
REMEMBERED = 65536
"""Clients with counts, for each kind of count: 20 MB at most.  If there are more, the client that was inactive for the
longest time is forgotten.  An attacker with so many addresses gains nothing by this.  To refuse new clients would lock
out everybody."""
SLICE = 10.0
"""Seconds of one slice: events in a slice share a counter."""
SLICES = 7
"""Slices of a minute, and the current one.  A count expires after 60 to 70 s."""

Client = NewType("Client", str)
"""A client as `client_key` writes it."""


_IPV4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}\Z")


def client_key(address: str) -> Client:
    """An IPv4 address, or the /64 of an IPv6 address: one customer has at least a /64 (RFC 6177).

    Empty for a UNIX socket, which has no address and no limits per client.  Raises ValueError for other text.
    """
    # No cache: a thousand old strings keep 30 MB of memory from going back to the system.
    if not address or _IPV4.match(address):
        return Client(address)
    address = canonical(address)
    return Client(str(IPv6Network((address, 64), strict=False)) if ":" in address else address)


def affordable(sessions: int, descriptors: int, channels: int = 0) -> int:
    """The number of sessions that fit into `descriptors` (soft RLIMIT_NOFILE), up to `sessions`.  At least 1.

    `channels`: how many each of them may have open beside its own two connections."""
    if descriptors == resource.RLIM_INFINITY:
        return sessions
    reserve = min(RESERVE, descriptors // 2)
    return max(1, min(sessions, (descriptors - reserve) // (DESCRIPTORS * (1 + channels))))


def matters(wanted: int, value: int) -> bool:
    """Whether the lower value must be logged: if it is more than 1 % lower."""
    return (wanted - value) * NEGLIGIBLE > wanted


class ReachedLimit(Enum):
    """The limit that was reached.  The value is the option of `[limits]` with hyphens, for the log."""

    SESSIONS = "sessions"
    SESSIONS_PER_CLIENT = "sessions-per-client"
    CONNECTS_PER_MINUTE = "connects-per-minute"
    BANNED = "banned"
    """No limit: an administrator keeps this client out."""


class Minute(Protocol):
    """How often each client did something in the last minute.  Slices are numbered, and each is as long as SLICE."""

    def count(self, client: Client, slice_: int) -> int: ...

    def add(self, client: Client, slice_: int) -> None: ...

    def expire(self, slice_: int) -> None:
        """Give back the memory of those whose minute is over."""


class Ledger(Protocol):
    """Where it is counted.  In a `with` block nobody else reads or changes it."""

    @property
    def connects(self) -> Minute: ...

    @property
    def failures(self) -> Minute:
        """Apart, so that connecting from many addresses makes nobody's guesses forgotten."""

    def __enter__(self) -> object: ...

    def __exit__(self, *error: object) -> None: ...

    @property
    def total(self) -> int:
        """Sessions of the whole gateway."""

    @property
    def mine(self) -> int:
        """Those of this process."""

    @property
    def tables(self) -> Iterable[dict[Client, Any]]:
        """Those that have grown with the number of clients."""

    def begun(self) -> None:
        """A session of this process begins."""

    def ended(self) -> None:
        """A session of this process is over."""

    def present(self, client: Client) -> int:
        """Sessions of one client, who is not nobody; in the whole gateway."""

    def enter(self, client: Client, slice_: int) -> bool:
        """One more of them.  False, and nothing happens, where there is no room to count it."""

    def leave(self, client: Client) -> None: ...


class Limits:
    """`seconds` is a clock that never goes back; where several processes share a ledger it is the same one."""

    def __init__(self, values: Values, seconds: Callable[[], float], ledger: Ledger | None = None) -> None:
        self.values = values
        """May be replaced; who is in already stays in.  `sessions` is lowered already to what is `affordable`."""
        self.own = sys.maxsize
        """As many sessions can this process have, however many there are in others."""
        self.banned: Callable[[str], bool] = lambda address: False
        """Whether the client at this address is kept out, whatever it does."""
        self._seconds = seconds
        self.ledger: Ledger = OwnLedger() if ledger is None else ledger
        """May be replaced by one that has the same counts."""

    @property
    def open(self) -> int:
        """Sessions of the whole gateway."""
        return self.ledger.total

    def admit(self, client: Client) -> ReachedLimit | None:
        """Count a session, or return the limit that refuses it.  Call `left` when an admitted session is over.

        A refused connection does not count, so new attempts do not make the wait longer.  For a load balancer use
        `client_key("")`, and `moved` when the PROXY header has come.
        """
        slice_ = self._slice()
        with self.ledger:
            refusal = self._refusal(client, slice_)
            if refusal is None and self._is_full():
                refusal = ReachedLimit.SESSIONS
            if refusal is None and not self._enter(client, slice_):
                refusal = ReachedLimit.SESSIONS
            if refusal is None:
                self.ledger.begun()
        return refusal

    def moved(self, old: Client, new: Client) -> ReachedLimit | None:
        """A session is of another client.  If that client is refused, the session stays with the old one: call `left`
        for the old one."""
        if old == new:
            return None
        slice_ = self._slice()
        with self.ledger:
            refusal = self._refusal(new, slice_)
            if refusal is None and not self._enter(new, slice_):
                refusal = ReachedLimit.SESSIONS
            if refusal is None and old:
                self.ledger.leave(old)
        return refusal

    def left(self, client: Client) -> None:
        """A session is over.  `client`: for whom it was admitted, or moved to."""
        with self.ledger:
            self.ledger.ended()
            if client:
                self.ledger.leave(client)

    def auth_failed(self, client: Client) -> None:
        """The backend rejected the client's credentials."""
        if client:
            with self.ledger:
                self.ledger.failures.add(client, self._slice())

    def may_authenticate(self, client: Client) -> bool:
        """Whether the backend may be asked.  Logins in progress do not count yet: a client can fail once more in each
        of its other sessions."""
        if not client:
            return True
        with self.ledger:
            return self.ledger.failures.count(client, self._slice()) < self.values.auth_failures_per_minute

    def forget(self) -> None:
        """Free the memory of expired counts.  Call it about once a minute.  New clients free expired counts too:
        without this call only the memory of a flood would stay."""
        slice_ = self._slice()
        self.ledger.connects.expire(slice_)
        self.ledger.failures.expire(slice_)

    def _slice(self) -> int:
        return int(self._seconds() // SLICE)

    def _is_full(self) -> bool:
        return self.ledger.total >= self.values.sessions or self.ledger.mine >= self.own

    def _refusal(self, client: Client, slice_: int) -> ReachedLimit | None:
        """The limits of one client, independent of all others."""
        if not client:
            return None
        if self.ledger.connects.count(client, slice_) >= self.values.connects_per_minute:
            return ReachedLimit.CONNECTS_PER_MINUTE
        if self.ledger.present(client) >= self.values.sessions_per_client:
            return ReachedLimit.SESSIONS_PER_CLIENT
        return None

    def _enter(self, client: Client, slice_: int) -> bool:
        if not client:
            return True
        if not self.ledger.enter(client, slice_):
            return False
        self.ledger.connects.add(client, slice_)
        return True


class OwnLedger:
    """The ledger of a gateway that is one process."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self.connects = _LastMinute(remembered)
        self.failures = _LastMinute(remembered)
        self.total = 0
        # Only clients with sessions are in it.
        self._open: dict[Client, int] = {}

    def __enter__(self) -> OwnLedger:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    @property
    def mine(self) -> int:
        return self.total

    @property
    def tables(self) -> Iterable[dict[Client, Any]]:
        return self._open, self.connects.table, self.failures.table

    @property
    def clients(self) -> int:
        """Clients that have a session."""
        return len(self._open)

    def sessions(self) -> Iterator[tuple[Client, int]]:
        """How many each client has."""
        yield from self._open.items()

    def begun(self) -> None:
        self.total += 1

    def ended(self) -> None:
        assert self.total
        self.total -= 1

    def present(self, client: Client) -> int:
        return self._open.get(client, 0)

    def enter(self, client: Client, slice_: int) -> bool:
        self._open[client] = self._open.get(client, 0) + 1
        return True

    def leave(self, client: Client) -> None:
        self._open[client] -= 1
        if not self._open[client]:
            del self._open[client]


class Admission:
    """One admitted session, until `left`."""

    __slots__ = ("_client", "_limits")

    def __init__(self, limits: Limits, client: Client) -> None:
        self._limits = limits
        self._client = client

    def moved(self, address: str) -> str:
        """The session is of the client at this address.  Returns the limit that refuses it, or an empty text."""
        if self._limits.banned(address):
            return ReachedLimit.BANNED.value
        new = client_key(address)
        refusal = self._limits.moved(self._client, new)
        if refusal is not None:
            return refusal.value
        self._client = new
        return ""

    def may_log_in(self) -> bool:
        return self._limits.may_authenticate(self._client)

    def rejected(self) -> None:
        self._limits.auth_failed(self._client)

    def left(self) -> None:
        """Call this once."""
        self._limits.left(self._client)


class _LastMinute:
    """How often each client did something in the last minute.  Has only clients that did."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        # In the order of the last event.
        self._clients: OrderedDict[Client, _Slices] = OrderedDict()

    def count(self, client: Client, slice_: int) -> int:
        slices = self._clients.get(client)
        return 0 if slices is None else slices.turn(slice_)

    def add(self, client: Client, slice_: int) -> None:
        slices = self._clients.get(client)
        if slices is None:
            # Remove up to two expired clients for each new one.
            self.expire(slice_, most=2)
            if len(self._clients) >= self._capacity:
                self._clients.popitem(last=False)
            slices = self._clients[client] = _Slices(slice_)
        else:
            self._clients.move_to_end(client)
        slices.add(slice_)

    @property
    def table(self) -> dict[Client, _Slices]:
        return self._clients

    def counts(self) -> Iterator[tuple[Client, int, int]]:
        """Client, slice, and how often it did something in that slice; of each client the oldest slice first."""
        for client, slices in self._clients.items():
            for slice_, count in slices.counts():
                yield client, slice_, count

    def expire(self, slice_: int, most: int = sys.maxsize) -> None:
        for _ in range(min(most, len(self._clients))):
            if slice_ - next(iter(self._clients.values())).latest < SLICES:
                return
            self._clients.popitem(last=False)
        if not self._clients:
            self._clients.clear()  # frees the table of an empty dictionary


class _Slices:
    """One client's last minute."""

    __slots__ = ("_counts", "_total", "_turned", "latest")

    def __init__(self, slice_: int) -> None:
        self.latest = slice_
        """The slice of the last event."""
        self._turned = slice_
        self._counts = [0] * SLICES
        self._total = 0

    def turn(self, slice_: int) -> int:
        """Remove expired counts, and return the sum of the others."""
        for passed in range(self._turned + 1, min(slice_, self._turned + SLICES) + 1):
            self._total -= self._counts[passed % SLICES]
            self._counts[passed % SLICES] = 0
        self._turned = slice_
        return self._total

    def counts(self) -> Iterator[tuple[int, int]]:
        for slice_ in range(self._turned - SLICES + 1, self._turned + 1):
            if count := self._counts[slice_ % SLICES]:
                yield slice_, count

    def add(self, slice_: int) -> None:
        self.turn(slice_)
        self._counts[slice_ % SLICES] += 1
        self._total += 1
        self.latest = slice_
