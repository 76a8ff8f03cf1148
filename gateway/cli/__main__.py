"""The `starttls-gateway` command: what an administrator asks of a configuration file before it is used."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .. import __version__
from ..config import Configuration, ConfigurationError, load
from ..config.values import Backend, Service
from ..dialects import DIALECTS
from .report import Paint, in_json, in_words

if TYPE_CHECKING:
    from ..tls.towards import Towards
    from .certificates import Served

Row = tuple[str, ...]


def check(file: str, live: bool = False, as_json: bool = False) -> int:
    """Tell what is wrong with the file, or what it will do; with `live` also what its backends are like."""
    from .certificates import served, told

    try:
        configuration = load(file, DIALECTS)
        certificates = served(configuration)
        towards = _usable(file, configuration, certificates)
    except ConfigurationError as wrong:
        print(in_json(file, None, wrong.problems, ()) if as_json else "\n".join(wrong.problems))
        return 1
    if not as_json:
        print(f"{file}: good; the gateway will call itself {configuration.hostname}")
        titles = ("service", "protocol", "listens on", "TLS", "policy", "backend")
        print(*_table([titles, *_rows(configuration)]), sep="\n")
        print(*told(certificates), sep="\n", flush=True)
    if not live:
        return 0
    from .live import look

    reports = look(configuration, towards)
    if as_json:
        print(in_json(file, configuration.hostname, (), reports))
    else:
        print(*in_words(reports, _paint()), sep="\n")
    return 0 if all(report.good for report in reports) else 1


def _usable(file: str, configuration: Configuration, certificates: Sequence[Served]) -> dict[Backend, Towards]:
    """TLS towards the backends that have it.  Raises ConfigurationError for what TLS can make nothing of."""
    from ..tls.context import CertificateError
    from ..tls.towards import Towards
    from .certificates import complaints

    problems = [f"{file}: {complaint}" for complaint in complaints(configuration, certificates)]
    towards = {}
    for backend in dict.fromkeys(service.backend for service in configuration.services):
        try:
            if backend.tls != "none":
                towards[backend] = Towards(backend)
        except CertificateError as wrong:
            problems.append(f"{file}: [backend:{backend.name}] {wrong}")
    if problems:
        raise ConfigurationError(problems)
    return towards


def _paint() -> Paint:
    """What standard output can show; a file or a pipe gets plain ASCII."""
    terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    return Paint(colours=terminal and not os.environ.get("NO_COLOR"), lines=terminal and encoding == "utf8")


def _rows(configuration: Configuration) -> Iterable[Row]:
    for service in configuration.services:
        for address, policy in zip(service.starttls, service.policies, strict=True):
            yield service.name, service.protocol, str(address), "STARTTLS", policy, _backend(service)
        for address in service.implicit:
            yield service.name, service.protocol, str(address), "implicit", "-", _backend(service)


def _backend(service: Service) -> str:
    return f"{', '.join(map(str, service.backend.addresses))} ({service.backend.connect})"


def _table(rows: Sequence[Row]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="starttls-gateway",
        description="Modern TLS in front of mail servers that have none.",
        epilog="The gateway itself is run by twistd: twistd -n starttls-gateway --config FILE",
    )
    parser.add_argument("--version", action="version", version=f"starttls-gateway {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    about = "list every problem in a configuration file, or what will listen where; exit status 1 or 0"
    checking = commands.add_parser("check", help=about, description=f"{about[0].upper()}{about[1:]}.")
    checking.add_argument("file", metavar="FILE", help="the configuration file")
    checking.add_argument(
        "--live",
        action="store_true",
        help="also ask each backend: greeting, capabilities, TLS, certificate, identity, open relay; exit status 1 if "
        "anything is wrong",
    )
    checking.add_argument("--json", action="store_true", help="with --live, tell it as JSON (see docs/check.md)")
    given = parser.parse_args(arguments)
    if given.json and not given.live:
        checking.error("--json goes with --live")
    try:
        return check(given.file, given.live, given.json)
    except KeyboardInterrupt:
        print("starttls-gateway: broken off; nothing is known", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
