"""The `starttls-gateway` command: what an administrator asks of a configuration file before it is used."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence

from .. import __version__
from ..config import Configuration, ConfigurationError, load
from ..config.values import Service
from ..dialects import DIALECTS

Row = tuple[str, ...]


def check(file: str) -> int:
    """Tell what is wrong with the file, or what it will do."""
    try:
        configuration = load(file, DIALECTS)
        _check_certificate(file, configuration)
    except ConfigurationError as wrong:
        print(*wrong.problems, sep="\n")
        return 1
    print(f"{file}: good; the gateway will call itself {configuration.hostname}")
    print(*_table([("service", "protocol", "listens on", "TLS", "policy", "backend"), *_rows(configuration)]), sep="\n")
    return 0


def _check_certificate(file: str, configuration: Configuration) -> None:
    from ..tls.context import CertificateError, server_context

    try:
        server_context(configuration.tls.certificate, configuration.tls.key)
    except CertificateError as wrong:
        raise ConfigurationError([f"{file}: [tls] certificate: {wrong}"]) from None


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
    given = parser.parse_args(arguments)
    return check(given.file)


if __name__ == "__main__":
    sys.exit(main())
