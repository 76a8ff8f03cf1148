"""What follows from the facts, in words: whom a stricter setting would have hurt, and which setting can go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_network
from typing import Final

from ...records import dataclass
from ..words import counted, printable
from .alerts import ALERTS, CERTIFICATE
from .facts import (
    CIPHER,
    CLEAR,
    CLEAR_DATA,
    CLEAR_LOGIN,
    DOWNGRADE,
    GROUP,
    NO_NAME,
    REFUSAL,
    SECURED,
    TLS_REQUIRED,
    Fact,
    Setup,
    user_in,
)

DAY: Final = 86400
OLD: Final = ("TLSv1", "TLSv1.1")
"""The versions that `legacy_clients` is for, the oldest first."""
VERSIONS: Final = (*OLD, "TLSv1.2", "TLSv1.3")
LISTED: Final = 5
"""Networks, and users, that a sentence names."""
SETTLED: Final = 30
"""Days of facts before silence says that a setting can go."""


@dataclass(frozen=True, slots=True)
class Line:
    """All that is known of one network, or of one user, at one service.  Times are seconds since 1970, 0 for never."""

    service: str
    network: str
    """Empty for a user."""
    user: str
    """Empty for a network."""
    first: int
    last: int
    sessions: int
    clear: int
    last_clear: int
    clear_logins: int
    clear_data: int
    """Data connections in the clear."""
    last_tls: int
    lowest: str
    """TLS version."""
    weakest: str
    """Cipher suite."""
    classical: tuple[str, ...]
    """Groups without post-quantum."""
    nameless: int
    """Sessions without SNI."""
    refusals: tuple[str, ...]
    """Alerts."""
    downgrades: int
    tls_required: int
    """Sessions in which a command was refused for want of TLS."""


def lines(facts: Iterable[Fact], since: int = 0) -> list[Line]:
    """One for each service and network, and then for each service and user, of facts that were true at `since` or
    later."""
    grouped: dict[tuple[str, str], list[Fact]] = {}
    for fact in facts:
        if fact.last >= since:
            grouped.setdefault((fact.service, fact.network), []).append(fact)
    return [_line(service, network, about) for (service, network), about in sorted(grouped.items(), key=_order)]


def _order(item: tuple[tuple[str, str], list[Fact]]) -> tuple[bool, str, tuple[int, int, str]]:
    service, network = item[0]
    return user_in(network) is not None, service, _place(network)


def _line(service: str, network: str, facts: Sequence[Fact]) -> Line:
    secured, clear = _of(facts, SECURED), _of(facts, CLEAR)
    user = user_in(network)
    return Line(
        service,
        network if user is None else "",
        user or "",
        min(fact.first for fact in facts),
        max(fact.last for fact in facts),
        _count(secured) + _count(clear),
        _count(clear),
        _last(clear),
        _count(_of(facts, CLEAR_LOGIN)),
        _count(_of(facts, CLEAR_DATA)),
        _last(secured),
        min((fact.value for fact in secured), key=_rank, default=""),
        min((fact.value for fact in _of(facts, CIPHER)), key=lambda name: (strength(name), name), default=""),
        tuple(sorted(fact.value for fact in _of(facts, GROUP) if not is_post_quantum(fact.value))),
        _count(_of(facts, NO_NAME)),
        tuple(sorted(fact.value for fact in _of(facts, REFUSAL))),
        _count(_of(facts, DOWNGRADE)),
        _count(_of(facts, TLS_REQUIRED)),
    )


def _of(facts: Iterable[Fact], kind: str) -> list[Fact]:
    return [fact for fact in facts if fact.kind == kind]


def _at(facts: Iterable[Fact], service: str) -> list[Fact]:
    return [fact for fact in facts if fact.service == service]


def _services(facts: Iterable[Fact]) -> list[str]:
    return sorted({fact.service for fact in facts})


def _count(facts: Iterable[Fact]) -> int:
    return sum(fact.count for fact in facts)


def _last(facts: Iterable[Fact]) -> int:
    return max((fact.last for fact in facts), default=0)


def _rank(version: str) -> int:
    return VERSIONS.index(version) if version in VERSIONS else len(VERSIONS)


def strength(cipher: str) -> int:
    """0: no forward secrecy; 1: no AEAD; 2: both."""
    if cipher.startswith("TLS_"):
        return 2
    if not cipher.startswith(("ECDHE-", "DHE-")):
        return 0
    return 2 if any(word in cipher for word in ("GCM", "CHACHA20", "CCM")) else 1


def is_post_quantum(group: str) -> bool:
    return "MLKEM" in group.upper()


# --- advice --------------------------------------------------------------------------------------


def advice(facts: Sequence[Fact], now: int, days: int, setup: Setup | None = None) -> list[str]:
    """Sentences, about networks.  Users are named beside them where they are known.  `days`: how far back somebody who
    needs a setting counts."""
    setup = setup or Setup()
    if not facts:
        return ["nothing is known yet: no client did anything since the report is kept"]
    since = now - days * DAY
    recent = [fact for fact in facts if fact.last >= since]
    known = (now - min(fact.first for fact in facts)) // DAY
    return [
        *_policy(facts, recent, days, known, setup),
        *_data(recent, days, known, setup),
        *_required(recent, days),
        *_old(facts, recent, now, days, known, setup),
        *_modern(recent, days),
        *_ciphers(recent, days),
        *_groups(recent, days),
        *_names(recent, days),
        *_refusals(recent, days),
        *_downgrades(recent, days),
    ]


def _policy(facts: Sequence[Fact], recent: Sequence[Fact], days: int, known: int, setup: Setup) -> Iterator[str]:
    for service in _services(facts):
        mine = _at(recent, service)
        if clear := _of(mine, CLEAR):
            yield f"policy required on {service} would have refused {_whom(clear, days)}"
            if logins := _of(mine, CLEAR_LOGIN):
                yield (
                    f"passwords came in the clear on {service} from {_whom(logins, days)}; "
                    "policy auth-only would have refused these"
                )
            elif any(fact.value == "optional" for fact in clear):
                yield f"policy auth-only on {service} would have refused nobody in {_days(days)}"
            continue
        if any(policy != "required" for policy in (setup.policies or {}).get(service, ())):
            yield _nobody(f"policy required on {service}", days, known)


def _nobody(setting: str, days: int, known: int) -> str:
    if min(days, known) >= SETTLED:
        return f"{setting} would have refused nobody in {_days(min(days, known))}: it can be set"
    if known >= SETTLED:
        return f"{setting} would have refused nobody in {_days(days)}; look at {_days(SETTLED)} before you set it"
    return (
        f"{setting} would have refused nobody so far; the facts are of {_days(known)}, "
        f"wait until they are of {_days(SETTLED)}"
    )


def _data(recent: Sequence[Fact], days: int, known: int, setup: Setup) -> Iterator[str]:
    clear = _of(recent, CLEAR_DATA)
    for service in sorted({*_services(clear), *setup.unprotected}):
        if those := _at(clear, service):
            yield (
                f"files went in the clear on {service} for {_whom(those, days)}; "
                "policy required and protection required would have refused these"
            )
        else:
            yield _nobody(f"protection required on {service}", days, known)


def _required(recent: Sequence[Fact], days: int) -> Iterator[str]:
    secured = {(fact.service, fact.network) for fact in _of(recent, SECURED)}
    refused = _of(recent, TLS_REQUIRED)
    for service in _services(refused):
        those = _at(refused, service)
        never = len({fact.network for fact in those if (service, fact.network) not in secured})
        who, did = ("it", "was") if len(those) == 1 else (f"{never or 'all'} of them", "were")
        yield (
            f"{_networks(those)} {did} refused on {service} for want of TLS in {_days(days)}: {_list(those)}; "
            f"{who} {'never used TLS there' if never else 'used TLS there, too'}"
        )


def _old(facts: Sequence[Fact], recent: Sequence[Fact], now: int, days: int, known: int, setup: Setup) -> Iterator[str]:
    needed = [fact for fact in _of(recent, SECURED) if fact.value in OLD]
    for version in OLD:
        if those := [fact for fact in needed if fact.value == version]:
            yield f"{_name(version)} was used by {_whom(those, days)}"
    past = [fact for fact in _of(facts, SECURED) if fact.value in OLD]
    if needed:
        yield f"legacy_clients is still needed on {', '.join(_services(needed))}; it need admit no others than these"
    elif past:
        last = max(past, key=lambda fact: fact.last)
        ago = (now - last.last) // DAY
        advised = ": legacy_clients can go" if ago >= SETTLED else f"; wait until that is {_days(SETTLED)} ago"
        yield f"{_name(last.value)} was last used {_days(ago)} ago{advised}"
    elif setup.legacy_clients and known >= SETTLED:
        yield f"nobody used anything older than TLS 1.2 in {_days(known)}: legacy_clients can go"


def _modern(recent: Sequence[Fact], days: int) -> Iterator[str]:
    secured = _of(recent, SECURED)
    if older := [fact for fact in secured if fact.value != "TLSv1.3"]:
        yield f"profile modern (TLS 1.3 only) would have refused {_whom(older, days)}"
    elif secured:
        yield f"profile modern (TLS 1.3 only) would have refused nobody in {_days(days)}"


def _ciphers(recent: Sequence[Fact], days: int) -> Iterator[str]:
    ciphers = _of(recent, CIPHER)
    for weak, what in ((0, "without forward secrecy"), (1, "without authenticated encryption (CBC)")):
        if those := [fact for fact in ciphers if strength(fact.value) == weak]:
            names = ", ".join(sorted({fact.value for fact in those}))
            yield f"cipher suites {what} ({names}) were used by {_whom(those, days)}"


def _groups(recent: Sequence[Fact], days: int) -> Iterator[str]:
    groups = [fact for fact in _of(recent, GROUP) if user_in(fact.network) is None]
    classical = [fact for fact in groups if not is_post_quantum(fact.value)]
    if groups:
        part = round(100 * (1 - _count(classical) / _count(groups)))
        yield (
            f"{part} % of the sessions with a known group are safe from a later quantum computer; "
            f"{_networks(classical)} came without that in {_days(days)}"
        )


def _names(recent: Sequence[Fact], days: int) -> Iterator[str]:
    if nameless := _of(recent, NO_NAME):
        yield (
            f"{_networks(nameless)} sent no server name (SNI) in {_days(days)} and got the first certificate: "
            f"{_list(nameless)}"
        )


def _refusals(recent: Sequence[Fact], days: int) -> Iterator[str]:
    refusals = _of(recent, REFUSAL)
    for alert in sorted({fact.value for fact in refusals}, key=lambda name: (name not in CERTIFICATE, name)):
        those = [fact for fact in refusals if fact.value == alert]
        meaning, cure = ALERTS.get(alert, ("refused the handshake", "look into the client's log"))
        yield f"a client of {_networks(those)} {meaning} ({alert}) in {_days(days)}: {_list(those)}; {cure}"


def _downgrades(recent: Sequence[Fact], days: int) -> Iterator[str]:
    if those := _of(recent, DOWNGRADE):
        yield (
            f"{_networks(those)} always used TLS and then came without in {_days(days)}: {_list(those)}; look whether "
            "somebody on the way takes STARTTLS out (starttls-gateway probe, from there)"
        )


# --- words -----------------------------------------------------------------------------------------


def _unique(facts: Iterable[Fact]) -> list[str]:
    return sorted({fact.network for fact in facts}, key=_place)


def _place(network: str) -> tuple[int, int, str]:
    """By address; users come behind networks, by name."""
    if (user := user_in(network)) is not None:
        return 9, 0, user
    parsed = ip_network(network)
    return parsed.version, int(parsed.network_address), ""


def _networks(facts: Iterable[Fact]) -> str:
    """How many; where nothing but users is known, these."""
    named = _unique(facts)
    networks = [name for name in named if user_in(name) is None]
    return counted(len(networks), "network") if networks or not named else counted(len(named), "user")


def _whom(facts: Sequence[Fact], days: int) -> str:
    return f"{_networks(facts)} in {_days(days)}: {_list(facts)}"


def _days(days: int) -> str:
    return counted(days, "day")


def _list(facts: Iterable[Fact]) -> str:
    named = _unique(facts)
    networks = [name for name in named if user_in(name) is None]
    users = [printable(user) for name in named if (user := user_in(name)) is not None]
    if not (networks and users):
        return _some(networks or users)
    return f"{_some(networks)} (users: {_some(users)})"


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + rest


def _name(version: str) -> str:
    return {"TLSv1": "TLS 1.0", "TLSv1.1": "TLS 1.1"}[version]
