"""`status` for Nagios and Icinga: one line with figures, and an exit status (Monitoring Plugins Guidelines)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ...telemetry.words import counted

OK, WARNING, CRITICAL, UNKNOWN = range(4)
"""Exit statuses."""
_NAMES: Final = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
FULL: Final = 0.9
"""Of `[limits] sessions`."""

Result = Mapping[str, Any]
Finding = tuple[int, str]


def judged(result: Result, warning: int, critical: int) -> tuple[int, str]:
    """The exit status and the line for what `status` answered.

    `warning`, `critical`: it is one if a certificate has fewer days left.
    """
    found = sorted(_findings(result, warning, critical), key=lambda finding: -finding[0])
    status = found[0][0] if found else OK
    days = min((one["days"] for one in result["certificates"]), default=None)
    down = sum(place["state"] != "up" for one in result["backends"] for place in one["addresses"])
    good = f"{counted(result['sessions'], 'session')}, {counted(len(result['services']), 'service')}"
    if days is not None:
        good += f", certificates for {counted(days, 'day')}"
    most = int(FULL * result["limit"])
    figures = [f"sessions={result['sessions']};{most};;0;{result['limit']}", f"addresses_not_up={down};0;;0"]
    figures += [] if days is None else [f"certificate_days={days};{warning}:;{critical}:"]
    figures.append(f"workers={len(result['processes'])};;;0")
    return status, line(status, "; ".join(text for _, text in found) or good, " ".join(figures))


def line(status: int, text: str, figures: str = "") -> str:
    # A bar ends the text.
    return f"GATEWAY {_NAMES[status]} - {text.replace('|', '/')}" + (f" | {figures}" if figures else "")


def _findings(result: Result, warning: int, critical: int) -> Iterator[Finding]:
    if (draining := result["draining"]) is not None:
        yield WARNING, f"the gateway stops, with {counted(draining['sessions'], 'session')} left"
    for one in result["services"]:
        if one["draining"]:
            yield WARNING, f"service {one['name']} is drained"
        elif one["refusal"]:
            yield CRITICAL, f"service {one['name']} serves nobody ({one['refusal']})"
    for one in result["backends"]:
        states = [place["state"] for place in one["addresses"]]
        bad = [f"{place['address']} {place['state']}" for place in one["addresses"] if place["state"] != "up"]
        if bad:
            yield (WARNING if "up" in states or "unknown" in states else CRITICAL), f"backend {', '.join(bad)}"
    for one in result["certificates"]:
        days = one["days"]
        if days < warning:
            left = f"ends in {counted(days, 'day')}" if days >= 0 else "has expired"
            yield (CRITICAL if days < critical else WARNING), f"{one['file']} {left}"
    if (last := result["reload"]) is not None and not last["good"]:
        yield WARNING, "the last reload was refused"
    yield from ((WARNING, warned) for warned in result["warnings"])
    if result["sessions"] >= FULL * result["limit"]:
        yield WARNING, f"{result['sessions']} of {result['limit']} sessions"
