"""`starttls-gateway report`: how far the migration is, out of the file that the gateway keeps."""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import textwrap
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..config import DEFAULT_FILE, Configuration, ConfigurationError, load
from ..dialects import DIALECTS
from ..telemetry.report.advice import DAY, Line, Setup, advice, lines
from ..telemetry.report.facts import Fact, merged
from ..telemetry.report.store import Store, StoreError
from .report import WIDTH

COLUMNS = (
    "service", "network", "first", "last", "sessions", "clear", "last_clear", "clear_logins", "last_tls", "lowest",
    "weakest", "classical", "nameless", "refusals", "downgrades",
)  # fmt: skip
"""Of the CSV; docs/report.md tells what they mean."""
_PERIOD = re.compile(r"([0-9]{1,4})\s*d?")


def add(commands: Any) -> None:
    """The sub-command, with all that it takes."""
    about = "who still talks without TLS or needs old TLS, and which settings can be stricter"
    parser: argparse.ArgumentParser = commands.add_parser(
        "report", help=about, description=f"{about[0].upper()}{about[1:]}.  See docs/report.md."
    )
    parser.add_argument(
        "config",
        metavar="FILE",
        nargs="?",
        default=DEFAULT_FILE,
        help="the configuration file, whose [report] file is read (default: %(default)s)",
    )
    parser.add_argument("--file", type=Path, action="append", metavar="PATH", help="read this report; may be repeated")
    parser.add_argument("--since", type=_days, default=30, metavar="DAYS", help="like 30d (default: %(default)sd)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="tell it as JSON")
    form.add_argument("--csv", action="store_true", help="one line for each service and network, without advice")
    parser.set_defaults(error=parser.error)


def _days(text: str) -> int:
    match = _PERIOD.fullmatch(text)
    if match is None or not int(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days, like 30d")
    return int(match[1])


def run(given: argparse.Namespace, say: Callable[..., None], now: Callable[[], float] = time.time) -> int:
    """The exit status: 0, or 1 where there is nothing to read."""
    setup = None
    files = given.file
    try:
        configuration = load(given.config, DIALECTS)
    except ConfigurationError as wrong:
        if not files:
            given.error(wrong.problems[0])
    else:
        setup = setup_of(configuration)
        if not files and configuration.report.file is None:
            given.error(f"{given.config}: [report] file: the gateway keeps no report; name a file there")
        files = files or [configuration.report.file]
    try:
        for file in files:
            if not file.exists():
                raise StoreError(
                    f"{file}: there is no such file; a minute after its first session the gateway writes it"
                )
        facts = merged(*(Store(file).facts() for file in files))
    except StoreError as wrong:
        given.error(str(wrong))
    say(*told(facts, int(now()), given.since, setup, "json" if given.json else "csv" if given.csv else "text"))
    return 0


def setup_of(configuration: Configuration) -> Setup:
    """What the advice has to know of it."""
    services = configuration.services
    legacy = any(service.tls.legacy_clients for service in services)
    return Setup(legacy, {service.name: service.policies for service in services})


def told(facts: Sequence[Fact], now: int, days: int, setup: Setup | None, form: str) -> Iterable[str]:
    """As `text`, `json` or `csv`."""
    found = lines(facts, now - days * DAY)
    if form == "csv":
        yield _csv(found)
        return
    sentences = advice(facts, now, days, setup)
    if form == "json":
        yield _json(facts, found, sentences, now, days)
        return
    begun = min((fact.first for fact in facts), default=now)
    yield f"the last {days} days; facts are kept since {_day(begun)}"
    if found:
        yield ""
        yield from _table(found)
    yield ""
    for sentence in sentences:
        yield from _wrapped(sentence)


def _json(facts: Sequence[Fact], found: Sequence[Line], sentences: Sequence[str], now: int, days: int) -> str:
    def times(line: Line) -> dict[str, Any]:
        values = asdict(line)
        for name in ("first", "last", "last_clear", "last_tls"):
            values[name] = _moment(values[name])
        return values

    begun = min((fact.first for fact in facts), default=0)
    whole = {
        "now": _moment(now),
        "days": days,
        "since": _moment(begun),
        "networks": [times(line) for line in found],
        "advice": list(sentences),
    }
    return json.dumps(whole, indent=2)


def _csv(found: Sequence[Line]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in found:
        values = asdict(line)
        for name in ("first", "last", "last_clear", "last_tls"):
            values[name] = _moment(values[name]) or ""
        for name in ("classical", "refusals"):
            values[name] = " ".join(values[name])
        writer.writerow([values[name] for name in COLUMNS])
    return out.getvalue().rstrip("\n")


def _table(found: Sequence[Line]) -> Iterable[str]:
    rows = [("service", "network", "last seen", "sessions", "in the clear", "lowest TLS", "weakest cipher suite")]
    for line in found:
        clear = f"{line.clear}, last {_day(line.last_clear)}" if line.clear else "-"
        rows.append((
            line.service, line.network, _day(line.last), str(line.sessions), clear, line.lowest or "-",
            line.weakest or "-",
        ))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _wrapped(sentence: str) -> Iterable[str]:
    return textwrap.wrap(sentence, WIDTH, initial_indent="* ", subsequent_indent="  ", break_on_hyphens=False)


def _moment(seconds: int) -> str | None:
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _day(seconds: int) -> str:
    return (_moment(seconds) or "-")[:10]
