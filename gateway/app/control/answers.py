"""Answers of several processes are one answer; and which sessions somebody means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final

from .messages import Answer, Request, Result

Network = IPv4Network | IPv6Network

Row = Mapping[str, Any]
"""A session, as `who` answers it: the fields WHO."""
WHO: Final = (
    "id", "service", "protocol", "client", "user", "tls", "phase", "backend", "age", "idle", "received", "sent",
    "counts",
)  # fmt: skip
"""Of `gateway.telemetry.observation.SessionView`."""


Hashed = Callable[[bytes], str | None]
"""What stands for a user's name in a row, where that is not the name."""


# --- which sessions --------------------------------------------------------------------------------


def selects(filter_: str, hashed: Hashed = lambda name: None) -> Callable[[Row], bool]:
    """Whether a session is meant.

    Each word must hold: `service=imap`, `phase=relaying`, `backend=10.0.0.5:143`, `client=192.0.2.0/24`, `id=3f2a`.
    A word without `=` is a session's id or the beginning of one, a client or a network, a user, a service, a phase or
    a backend.  Raises ValueError for a field that sessions do not have.
    """
    words = [_word(word, hashed) for word in filter_.split()]
    return lambda row: all(holds(row) for holds in words)


def _word(word: str, hashed: Hashed) -> Callable[[Row], bool]:
    field, equals, value = word.partition("=")
    if not equals:
        return _any_of(_FIELDS, word, hashed)
    if field not in _FIELDS:
        raise ValueError(f"{word}: sessions are chosen by {', '.join(_FIELDS)}")
    return _any_of((field,), value, hashed)


def names(whom: str, hashed: Hashed = lambda name: None) -> Callable[[Row], bool]:
    """Whether a session is whom an administrator means: by its id, its client or its user."""
    return _any_of(("id", "client", "user"), whom, hashed)


def _any_of(fields: Sequence[str], value: str, hashed: Hashed) -> Callable[[Row], bool]:
    user = hashed(value.encode()) if "user" in fields else None
    # Once, and not for each of thousands of sessions.
    network = _network(value) if "client" in fields else None
    return lambda row: (
        any(_holds(row, one, value, network) for one in fields) or (user is not None and row["user"] == user)
    )


_FIELDS = ("id", "client", "user", "service", "protocol", "phase", "backend", "tls")


def _holds(row: Row, field: str, value: str, network: Network | None) -> bool:
    found = row[field]
    if found is None:
        return False
    match field:
        case "id":
            return len(value) >= 4 and str(found).startswith(value)
        case "client" if network is not None:
            return _is_in(str(found), network)
    return str(found).lower() == value.lower()


def _network(text: str) -> Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _is_in(client: str, network: Network) -> bool:
    if network.prefixlen == 32 and ":" not in client:
        return client == str(network.network_address)  # ten times as fast
    try:
        address = ip_address(client)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address) in network


# --- one answer of many ----------------------------------------------------------------------------


def merged(request: Request, answers: Sequence[Answer]) -> Answer:
    """What the gateway answers, of what each of its processes does; at least one of them has answered.

    A problem that several have is told once.
    """
    problems = tuple(dict.fromkeys(problem for answer in answers for problem in answer.problems))
    results = [answer.result for answer in answers if answer.result]
    result = _MERGES[request.command](results) if results else {}
    if request.command == "kick" and not problems and not result["sessions"]:
        problems = (_nobody(request),)
    return Answer(result, problems)


def _nobody(request: Request) -> str:
    return f"there is no session {request.about}, and none of a client or a user {request.about}"


OF_SESSIONS: Final[Mapping[str, Result]] = {"who": {"sessions": []}, "kick": {"sessions": 0}}
"""Commands that are about all sessions, also those of programs before this one; and the result where there is none."""


def joined(request: Request, own: Answer, others: Sequence[Answer]) -> Answer:
    """The answer of this program and of those before it, to one of OF_SESSIONS."""
    nobody = _nobody(request)
    return merged(
        request,
        [Answer(one.result, tuple(text for text in one.problems if text != nobody)) for one in (own, *others)],
    )


def _merged_status(results: Sequence[Result]) -> Result:
    first = results[0]
    return {
        **first,
        "sessions": _sum(results, "sessions"),
        "services": _by_name([one["services"] for one in results], "name", _merged_service),
        "backends": _by_name([one["backends"] for one in results], "name", _merged_backend),
        "processes": [process for one in results for process in one["processes"]],
    }


def _merged_service(parts: Sequence[Row]) -> Row:
    return {**parts[0], "sessions": _sum(parts, "sessions")}


def _merged_backend(parts: Sequence[Row]) -> Row:
    addresses = _by_name([part["addresses"] for part in parts], "address", _merged_address)
    return {**parts[0], "addresses": addresses}


_WORST = ("down", "relays", "unknown", "drained", "up")


def _merged_address(parts: Sequence[Row]) -> Row:
    state = min((part["state"] for part in parts), key=_WORST.index)
    return {**parts[0], "sessions": _sum(parts, "sessions"), "state": state}


def _merged_count(results: Sequence[Result]) -> Result:
    return {**results[0], "sessions": _sum(results, "sessions")}


def _merged_who(results: Sequence[Result]) -> Result:
    rows = [row for one in results for row in one["sessions"]]
    return {"sessions": sorted(rows, key=lambda row: -row["age"])}


def _merged_capture(results: Sequence[Result]) -> Result:
    return {"lines": sorted(row for one in results for row in one["lines"]), "lost": _sum(results, "lost")}


_MERGES: Mapping[str, Callable[[Sequence[Result]], Result]] = {
    "status": _merged_status,
    "drain": _merged_count,
    "undrain": _merged_count,
    "who": _merged_who,
    "kick": _merged_count,
    "capture": _merged_capture,
}


def _sum(parts: Iterable[Row], field: str) -> int:
    return sum(part[field] for part in parts)


def _by_name(lists: Sequence[Sequence[Row]], name: str, merge: Callable[[Sequence[Row]], Row]) -> list[Row]:
    """Rows of the same name become one, in the order in which they come first."""
    groups: dict[str, list[Row]] = {}
    for rows in lists:
        for row in rows:
            groups.setdefault(row[name], []).append(row)
    return [merge(rows) for rows in groups.values()]
