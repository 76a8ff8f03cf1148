"""What is remembered of a client: facts, each with its first time, its last time, and how often.

A fact belongs to a service and a network, or to a service and a user.  Two collections of facts are merged by adding,
so several processes may each have their own.  Everything here is pure; times are seconds since 1970.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Any, Final, TypeVar

from ...records import dataclass
from ..kinds import Fields
from .alerts import ALERTS, alert_of

SECURED: Final = "tls"
"""Value: the version.  One for each session inside TLS."""
CLEAR: Final = "clear"
"""Value: the listener's policy.  A session without TLS in which something was done: a login, a recipient, a message."""
CLEAR_LOGIN: Final = "clear-login"
"""Value: the SASL mechanism.  A login without TLS that the backend took."""
CLEAR_DATA: Final = "clear-data"
"""Value: the command.  A data connection of FTP without TLS, on which something came."""
CIPHER: Final = "cipher"
GROUP: Final = "group"
NO_NAME: Final = "no-sni"
"""Sessions inside TLS whose client named no server."""
REFUSAL: Final = "alert"
"""Value: the alert by which a client refused the handshake."""
DOWNGRADE: Final = "downgrade"
"""Value: `logged` or `refused`.  A client of a network that always used TLS came without."""

TLS_REQUIRED: Final = "tls-required"
"""Sessions in which a command was refused for want of TLS."""

KINDS: Final = (SECURED, CLEAR, CLEAR_LOGIN, CLEAR_DATA, CIPHER, GROUP, NO_NAME, REFUSAL, DOWNGRADE, TLS_REQUIRED)

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


@dataclass(frozen=True, slots=True)
class Setup:
    """What the advice must know of the configuration.  The gateway has it without the advice itself."""

    legacy_clients: bool = False
    """Some service admits clients below TLS 1.2."""
    policies: Mapping[str, Collection[str]] | None = None
    """By service, those of its plaintext listeners.  None: the configuration is not known."""
    unprotected: Collection[str] = ()
    """Services with `protection = optional`."""


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

    # Most clients are new: `ipaddress` takes 2 % of a session's instructions for a network, these functions of C 0.2 %.

    def __init__(self, bits4: int = 24, bits6: int = 64) -> None:
        self._bits4 = bits4
        self._bits6 = bits6
        # Each session asks twice, one time after the other.
        self._last = ("", "")

    def __call__(self, client: str) -> str:
        if client != self._last[0]:
            self._last = client, self._of(client)
        return self._last[1]

    def _of(self, client: str) -> str:
        try:
            if ":" not in client:
                return _network(_IPV4, inet_pton(_IPV4, client), self._bits4)
            packed = inet_pton(_IPV6, client.partition("%")[0])
        except (OSError, ValueError):
            return ""
        if packed.startswith(_MAPPED):
            return _network(_IPV4, packed[len(_MAPPED) :], self._bits4)
        return _network(_IPV6, packed, self._bits6)


# Plain numbers: to hash or to compare a member of an Enum takes longer than all the rest.
_IPV4: Final = int(AF_INET)
_IPV6: Final = int(AF_INET6)


def _network(family: int, packed: bytes, bits: int) -> str:
    length = len(packed)
    rest = 8 * length - bits
    return f"{inet_ntop(family, (int.from_bytes(packed, 'big') >> rest << rest).to_bytes(length, 'big'))}/{bits}"


_MAPPED: Final = b"\0" * 10 + b"\xff\xff"
"""An IPv4 address as an IPv6 address begins so (RFC 4291 2.5.5.2)."""


K = TypeVar("K", "Heard", Key)


def _add(table: dict[K, Times], key: K, times: Times) -> None:
    """To what the table knows."""
    if key in table:
        table[key].add(times)
    else:
        table[key] = Times(times.first, times.last, times.count)


Heard = tuple[str, str, str, object, tuple[Any, ...]]
"""Event, service, network, user or None, and what else of the event makes facts."""


class Pending:
    """Events that are not in the store yet; so many different ones at most, for clients decide how many there are.

    A session waits for `hear`.  So that only counts equal events, and `facts` makes facts of them later.
    """

    MOST: Final = 50_000

    def __init__(self, networks: Networks, now: Callable[[], float] = time.time) -> None:
        """`now` is the time of day, for the report outlives the process."""
        self.lost = 0
        """Events for which there was no room."""
        self._networks = networks
        self._now = now
        self._heard: dict[Heard, Times] = {}

    def __len__(self) -> int:
        return len(self._heard)

    def hear(self, event: str, service: str, client: str, fields: Fields) -> None:
        """One of HEARD, whether it is told or not."""
        said = _SAID[event](fields)
        if said is None:
            return
        # A user is whom the backend let in: nobody can make up others.
        key = event, service, self._networks(client), fields.get("user"), said
        known, now = self._heard.get(key), int(self._now())
        if known is not None:
            known.last = now
            known.count += 1
        elif len(self._heard) < self.MOST:
            self._heard[key] = Times(now, now)
        else:
            self.lost += 1

    def take(self) -> dict[Heard, Times]:
        """All of them; nothing is pending afterwards."""
        taken, self._heard = self._heard, {}
        return taken

    def put_back(self, heard: Mapping[Heard, Times]) -> None:
        """What could not be written."""
        for key, times in heard.items():
            if key in self._heard or len(self._heard) < self.MOST:
                _add(self._heard, key, times)
            else:
                self.lost += 1


def _session(fields: Fields) -> tuple[Any, ...] | None:
    if version := fields.get("tls"):
        return version, fields.get("cipher"), fields.get("group"), not fields.get("sni")
    return (fields.get("policy"),) if has_done_something(fields) else None


def _auth(fields: Fields) -> tuple[Any, ...] | None:
    if fields.get("tls") or fields.get("result") != "ok":
        return None
    return (fields.get("mechanism"),)


def _transfer(fields: Fields) -> tuple[Any, ...] | None:
    moved = fields.get("received") or fields.get("sent")
    return (fields.get("command"),) if moved and fields.get("protection") == "none" else None


def _tls_failed(fields: Fields) -> tuple[Any, ...] | None:
    alert = alert_of(str(fields.get("detail") or ""))
    return (alert,) if alert in ALERTS else None


_SAID: Final[Mapping[str, Callable[[Fields], tuple[Any, ...] | None]]] = {
    "session": _session,
    "auth": _auth,
    "transfer": _transfer,
    "tls-failed": _tls_failed,
    "tls-required": lambda fields: (),
    "downgrade": lambda fields: (fields.get("action"),),
}
"""By event: what makes facts of it.  None where it makes none."""
HEARD: Final = frozenset(_SAID)
_KIND: Final = {
    "auth": CLEAR_LOGIN,
    "transfer": CLEAR_DATA,
    "tls-failed": REFUSAL,
    "tls-required": TLS_REQUIRED,
    "downgrade": DOWNGRADE,
}
_VALUE: Final = re.compile(r"[A-Za-z0-9_.+-]{0,48}")


def facts(heard: Mapping[Heard, Times]) -> dict[Key, Times]:
    """What was heard means this."""
    found: dict[Key, Times] = {}
    for (event, service, network, user, said), times in heard.items():
        whom = [of_user(str(user))] if user else []
        if not (user and event == "downgrade"):
            whom.append(network)
        for who in filter(None, whom):
            for kind, value in _meant(event, said):
                _add(found, (service, who, kind, value), times)
    return found


def _meant(event: str, said: tuple[Any, ...]) -> Iterator[tuple[str, str]]:
    """Kinds and values of the facts in an event."""
    pairs: Iterable[tuple[str, object]]
    match said:
        case (version, cipher, group, nameless):
            pairs = [(SECURED, version), (CIPHER, cipher)]
            pairs += [(GROUP, group)] if group else []
            pairs += [(NO_NAME, "")] if nameless else []
        case _:
            pairs = [(_KIND.get(event, CLEAR), "".join(map(_text, said)))]
    for kind, value in pairs:
        word = _text(value)
        yield kind, word if _VALUE.fullmatch(word) else "other"


def _text(value: object) -> str:
    return str(value or "")


def has_done_something(fields: Mapping[str, object]) -> bool:
    """Whether this session was more than a look: port scanners and monitoring do nothing."""
    return bool(fields.get("proven") or fields.get("messages") or fields.get("phase") == "relaying")


def merged(*collections: Iterator[Fact] | list[Fact]) -> list[Fact]:
    """The facts of several stores as if there had been one."""
    times: dict[Key, Times] = {}
    for facts in collections:
        for fact in facts:
            one = Times(fact.first, fact.last, fact.count)
            _add(times, (fact.service, fact.network, fact.kind, fact.value), one)
    return [Fact(*key, one.first, one.last, one.count) for key, one in sorted(times.items())]
