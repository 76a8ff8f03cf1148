"""Answers of a running gateway, in words: one screen for a person."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...telemetry.words import columns, counted, printable

Result = Mapping[str, Any]
Row = Sequence[str]

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))
_SPAN = re.compile(r"([0-9]{1,6})\s*(s|m|min|h|d)")
_SPANS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str) -> float:
    """Of `30s`, `10m`, `10 min`, `1h` or `7d`.  Raises ValueError."""
    match = _SPAN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time; write a number and s, m, h or d, like 1h")
    return int(match[1]) * _SPANS[match[2]]


def duration(seconds: float) -> str:
    """`3 d 4 h`, `5 min`, `12 s`: the two largest units that there are."""
    left = int(seconds)
    words: list[str] = []
    for size, unit in _UNITS:
        if left >= size or words:
            words.append(f"{left // size} {unit}")
            left %= size
        if len(words) == 2:
            return " ".join(words)
    return " ".join([*words, f"{left} s"])


def octets(number: int) -> str:
    """`512 B`, `1.5 KiB`, `20 MiB`."""
    size, unit = float(number), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"


# --- status ----------------------------------------------------------------------------------------


def status(result: Result) -> Iterator[str]:
    gateway, processes = result["gateway"], result["processes"]
    pids = ", ".join(f"{one['pid']} (up {duration(one['uptime'])})" for one in processes)
    alone = [one["pid"] for one in processes] == [gateway["pid"]]
    main = pids if alone else str(gateway["pid"])
    yield f"starttls-gateway {gateway['version']}, {gateway['hostname']}: process {main}, as {gateway['user']}"
    if not alone:
        yield f"{'workers':<12}{pids}"
    yield f"{'file':<12}{gateway['file'] or 'none'}"
    yield f"{'sessions':<12}{result['sessions']} of {result['limit']}"
    if (draining := result["draining"]) is not None:
        yield f"{'draining':<12}{counted(draining['sessions'], 'session')}, {draining['left']:.0f} s left"
    # A gateway of an older version does not tell them.
    for old in result.get("old_programs", ()):
        there = "?" if old["sessions"] is None else counted(old["sessions"], "session")
        yield f"{'old program':<12}{old['pid']}: {there}, for {duration(old['left'])} at most"
    yield f"{'reload':<12}{_last(result['reload'])}"
    for problem in (result["reload"] or {}).get("problems", ()):
        yield f"{'':<12}{problem}"
    for warning in result["warnings"]:
        yield f"{'warning':<12}{warning}"
    yield ""
    yield from columns(
        [("service", "protocol", "listens on", "TLS", "policy", "state", "sessions", "backend"), *_services(result)]
    )
    yield ""
    yield from columns([("backend", "address", "TLS", "state", "sessions"), *_backends(result)])
    yield ""
    yield from columns([("certificate", "days", "names"), *_certificates(result)])


def _last(reload: Result | None) -> str:
    if reload is None:
        return "none since the start"
    return f"{reload['time']} {'ok' if reload['good'] else 'REFUSED; the file before is in use'}"


def _services(result: Result) -> Iterator[Row]:
    for one in result["services"]:
        state = "DRAINING" if one["draining"] else f"NOT SERVED ({one['refusal']})" if one["refusal"] else "open"
        for number, place in enumerate(one["listeners"]):
            mode = "STARTTLS" if place["mode"] == "starttls" else place["mode"]
            # They are those of the service, not of one of its listeners.
            sessions, policy = "" if number else str(one["sessions"]), place["policy"] or "-"
            yield one["name"], one["protocol"], place["address"], mode, policy, state, sessions, one["backend"]


def _backends(result: Result) -> Iterator[Row]:
    for one in result["backends"]:
        for place in one["addresses"]:
            state = place["state"] if place["state"] == "up" else place["state"].upper()
            yield one["name"], place["address"], one["tls"], state, str(place["sessions"])


def _certificates(result: Result) -> Iterator[Row]:
    for one in result["certificates"]:
        yield one["file"], str(one["days"]), " ".join(one["names"])


# --- the others ------------------------------------------------------------------------------------


def reload(result: Result) -> Iterator[str]:
    file = result["file"]
    if result["good"]:
        yield f"{file}: in use now" if result["changes"] else f"{file}: in use; nothing in it has changed"
        yield from (f"  {change}" for change in result["changes"])
        for word in ("opened", "closed"):
            if result[word]:
                yield f"  {word} {' '.join(result[word])}"
        yield from (f"  warning: {warning}" for warning in result["warnings"])
    else:
        yield f"{file}: refused; the file before stays in use" if file else "refused"


def upgrade(result: Result) -> Iterator[str]:
    yield f"version {result['version']} serves now, as process {result['pid']}"
    yield f"  process {result['before']} accepts nobody any more; it ends with its last session, or after old_sessions"


def drain(result: Result) -> Iterator[str]:
    what = "service" if result["what"] == "service" else "backend address"
    names = f"{what} {', '.join(result['names'])}"
    if result["draining"]:
        there = counted(result["sessions"], "session")
        yield f"{names}: takes nobody new; {there} there, and idle ones are ended"
    else:
        yield f"{names}: takes sessions again"


def who(result: Result) -> Iterator[str]:
    sessions = result["sessions"]
    users = any(row.get("user") for row in sessions)
    head = ("id", "service", "client", *["user"] * users, "TLS", "phase", "backend", "age", "idle", "received", "sent",
            "counted")  # fmt: skip
    yield from columns([head, *(_session(row, users) for row in sessions)])


def _session(row: Result, users: bool) -> Row:
    user = [printable(row["user"] or "-")] if users else []
    return (
        row["id"], row["service"], row["client"] or "-", *user, row["tls"] or "-", row["phase"], row["backend"] or "-",
        duration(row["age"]), "-" if row["idle"] is None else duration(row["idle"]),
        octets(row["received"]), octets(row["sent"]),
        " ".join(f"{number} {name}" for name, number in row["counts"].items()),
    )  # fmt: skip


def kick(result: Result) -> Iterator[str]:
    yield f"{counted(result['sessions'], 'session')} cut off"


def ban(result: Result) -> Iterator[str]:
    yield f"{result['network']}: banned until {result['until']}"
    if result["sessions"]:
        yield f"{counted(result['sessions'], 'session')} " + (
            "cut off" if result["kicked"] else f"still open; `kick {result['network']}` ends them"
        )


def unban(result: Result) -> Iterator[str]:
    yield from (f"{network}: banned no more" for network in result["networks"])


def bans(result: Result) -> Iterator[str]:
    rows = [(one["network"], one["until"], duration(one["left"])) for one in result["bans"]]
    yield from columns([("banned", "until", "left"), *rows])


def why(result: Result) -> Iterator[str]:
    whom = result["network"]
    for one in result["bans"]:
        yield f"{one['network']} is banned until {one['until']}; `unban {one['network']}` lets it in again"
    if not result["failures"]:
        known = counted(result["remembered"], "client")
        yield f"{whom}: nothing went wrong that is known; failures of {known} are remembered"
    for one in result["failures"]:
        times = f", {one['count']} times since {one['first']}" if one["count"] > 1 else ""
        yield f"{one['last']}  {one['client']}  {one['service']}{times}"
        cause = f": {one['cause']}" if one["cause"] else ""
        yield f"    {one['words']} ({one['event']}{cause})"
        if one["cure"]:
            yield f"    what to do: {one['cure']}"


WORDS: Mapping[str, Callable[[Result], Iterable[str]]] = {
    "status": status,
    "reload": reload,
    "upgrade": upgrade,
    "drain": drain,
    "undrain": drain,
    "who": who,
    "kick": kick,
    "ban": ban,
    "unban": unban,
    "bans": bans,
    "why": why,
}
"""By command."""
