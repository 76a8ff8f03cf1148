"""`starttls-gateway report`: how far the migration is, out of the file that the gateway keeps."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..app.plan import setup_of
from ..config import DEFAULT_FILE, ConfigurationError, load
from ..dialects import DIALECTS
from ..telemetry.report.facts import merged
from ..telemetry.report.store import Store, StoreError
from ..telemetry.report.telling import told

_PERIOD = re.compile(r"([0-9]{1,4})\s*d?")


def add(commands: Any) -> None:
    """The sub-command, with all that it takes."""
    about = "list clients that use no TLS or old TLS, and say which settings can be stricter"
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
    parser.add_argument(
        "--file", type=Path, action="append", metavar="PATH", help="read this SQLite file; you can repeat the option"
    )
    parser.add_argument(
        "--since", type=_days, default=30, metavar="DAYS", help="only the last days, like 30d (default: %(default)sd)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="one line for each service and network, without advice")
    parser.set_defaults(run=run)


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
