"""The command `starttls-gateway`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..app.rights import gid_of, group_of, uid_of
from ..config import DEFAULT_FILE, Configuration, ConfigurationError, load, locate
from ..config.values import Backend, Service
from ..dialects import DIALECTS
from . import examples, run

if TYPE_CHECKING:
    from ..wire.tls.connector import TLSConnector
    from .certificates import Served
    from .report import Paint

Row = tuple[str, ...]
BROKEN_PIPE = 141
"""Exit status if standard output was closed, as in `check | head -1`: as after SIGPIPE."""


def check(
    file: str,
    live: bool = False,
    as_json: bool = False,
    uid: int | None = None,
    gid: int | None = None,
    domain: str = "",
) -> int:
    """Print the mistakes of the file, or its services; with `live` also a report on its backends, with `uid` also the
    files that this user cannot read.  `domain`: the one that XMPP servers are asked for."""
    from .certificates import served, told
    from .machine import Finding, as_user, look
    from .report import in_json, in_words

    findings: list[Finding] = []
    try:
        configuration = load(file, DIALECTS)
        certificates = served(configuration)
        findings = look(configuration, locate(file), live)
        connectors = _usable(file, configuration, certificates, [one.of(file) for one in findings if one.fatal])
    except ConfigurationError as wrong:
        if as_json:
            _say(in_json(file, None, wrong.problems, ()))
        else:
            _say(*wrong.problems, *(f"warning      {one.of(file)}" for one in findings if not one.fatal))
        return 1
    warnings = [one for one in findings if not one.fatal]
    if uid is not None:
        warnings += as_user(uid, gid, configuration)
    if as_json:
        # The JSON has no place for warnings.
        for one in warnings:
            print(one.of(file), file=sys.stderr)
    else:
        _say(f"{file}: good; the gateway's host name is {configuration.hostname}")
        titles = ("service", "protocol", "listens on", "TLS", "policy", "backend")
        _say(*_table([titles, *_rows(configuration)]))
        _say(*told(certificates))
        _say(*([""] if warnings else []), *(f"warning      {one.of(file)}" for one in warnings))
    if not live:
        return 0
    from .live import look as look_at_backends

    reports = look_at_backends(configuration, connectors, domain)
    if as_json:
        _say(in_json(file, configuration.hostname, (), reports))
    else:
        _say(*in_words(reports, _paint()))
    return 0 if all(report.good for report in reports) else 1


class _Unheard(Exception):
    """Standard output does not work.  The text is the reason, empty for a broken pipe."""


def _say(*lines: str) -> None:
    """Print lines and flush, so that errors appear here."""
    try:
        for line in lines:
            print(line)
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as wrong:
        # The interpreter flushes again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise _Unheard("" if isinstance(wrong, BrokenPipeError) else wrong.strerror) from None


def _usable(
    file: str, configuration: Configuration, certificates: Sequence[Served], problems: list[str]
) -> dict[Backend, TLSConnector]:
    """The backends with TLS.  Raises ConfigurationError with `problems` and those of certificates, keys and issuers."""
    from ..sessions.agreed import backend_alpn
    from ..wire.tls.connector import TLSConnector
    from ..wire.tls.context import CertificateError
    from .certificates import complaints

    problems += [one.of(file) for one in complaints(configuration, certificates, locate(file))]
    connectors = {}
    for backend in dict.fromkeys(service.backend for service in configuration.services):
        try:
            if backend.tls != "none":
                connectors[backend] = TLSConnector(backend, backend_alpn(configuration, backend))
        except CertificateError as wrong:
            problems.append(f"{file}: [backend:{backend.name}] {wrong}")
    if problems:
        raise ConfigurationError(problems)
    return connectors


def _paint() -> Paint:
    """What standard output can show.  A file or a pipe gets plain ASCII."""
    from .report import Paint

    if sys.stdout is None:
        return Paint()
    terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    return Paint(colours=terminal and not os.environ.get("NO_COLOR"), lines=terminal and encoding == "utf8")


def _rows(configuration: Configuration) -> Iterable[Row]:
    for service in configuration.services:
        for address, policy in zip(service.starttls, service.policies, strict=True):
            yield service.name, service.protocol, str(address), "STARTTLS", policy, _backend(service, starttls=True)
        for address in service.implicit:
            yield service.name, service.protocol, str(address), "implicit", "-", _backend(service, starttls=False)


def _backend(service: Service, *, starttls: bool) -> str:
    """As in the `listening` event: implicit TLS ports are always eager."""
    connect = "lazy" if starttls and service.backend.lazy else "eager"
    return f"{', '.join(map(str, service.backend.addresses))} ({connect})"


def _table(rows: Sequence[Row]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        return _main(arguments)
    finally:
        with suppress(_Unheard):
            _say()  # also for --help


def make_parser(serving: bool = False) -> argparse.ArgumentParser:
    """The whole command line; shell completion is made from it (`make completion`).

    `serving`: only `run`.  What the other commands import would stay in memory as long as the gateway runs: 2 MB."""
    parser = argparse.ArgumentParser(
        prog="starttls-gateway",
        description="Modern TLS in front of old servers.",
        epilog="Under twistd, as a daemon: twistd starttls-gateway --config FILE",
    )
    parser.add_argument("--version", action="version", version=f"starttls-gateway {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    if not serving:
        _add_others(commands)
    run.add(commands)
    examples.show(commands)
    for command in commands.choices.values():
        command.set_defaults(error=command.error)
    return parser


def _add_others(commands: Any) -> None:
    """All commands but `run`."""
    from . import migration
    from .importing import command as importing
    from .probe import command as probe
    from .steer import command as steer

    about = "check a configuration file: list its mistakes (exit status 1), or its listeners (exit status 0)"
    checking = commands.add_parser("check", help=about, description=f"{about[0].upper()}{about[1:]}.")
    checking.add_argument(
        "file", metavar="FILE", nargs="?", default=DEFAULT_FILE, help="the configuration file (default: %(default)s)"
    )
    checking.add_argument(
        "--live",
        action="store_true",
        help="also test for each backend whether clients can log in and send mail; show greeting, capabilities, TLS, "
        "certificate, identity, open relay; exit status 1 if anything is wrong",
    )
    checking.add_argument("--json", action="store_true", help="with --live, print the report as JSON (docs/check.md)")
    checking.add_argument(
        "--domain", metavar="NAME", default="",
        help="with --live, the domain for which XMPP servers are asked; default: hostname",
    )  # fmt: skip
    checking.add_argument(
        "--uid",
        metavar="USER",
        help="also list the keys and certificates that this user of the daemon cannot read",
    )
    checking.add_argument("--gid", metavar="GROUP", help="with --uid, the group; default: the user's group")
    for other in (probe, migration, importing, steer):
        other.add(commands)


def _main(arguments: Sequence[str] | None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    given, others = make_parser(list(words[:1]) == ["run"]).parse_known_args(words)
    if others:
        given.error(f"unrecognized arguments: {' '.join(others)}")  # with the usage of this command, not of all
    # A file name can have octets that are not text.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if given.command == "probe":
        from .probe import command as probe

        return _guarded(lambda: probe.run(given, _say, _paint))
    if given.command == "report":
        from . import migration

        return _guarded(lambda: migration.run(given, _say))
    if "run" in given:
        return _guarded(lambda: int(given.run(given, _say)))
    if given.json and not given.live:
        given.error("--json needs --live")
    if given.domain and not given.live:
        given.error("--domain needs --live")
    if given.domain:
        from ..dialects.chat.xmpp.words import domain

        if domain(given.domain) is None:
            given.error(f"--domain: {given.domain!r} is no domain")
    if given.gid is not None and given.uid is None:
        given.error("--gid needs --uid")
    try:
        uid = None if given.uid is None else uid_of(given.uid)
        gid = None if given.gid is None else gid_of(given.gid)
        if uid is not None:
            group_of(uid)
    except ValueError as wrong:
        given.error(str(wrong))
    return _guarded(lambda: check(given.file, given.live, given.json, uid, gid, given.domain))


def _guarded(work: Callable[[], int]) -> int:
    """Its exit status, or that of somebody who was broken off or is not heard."""
    try:
        return work()
    except _Unheard as wrong:
        if not str(wrong):
            return BROKEN_PIPE
        print(f"starttls-gateway: standard output: {wrong}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("starttls-gateway: interrupted; there is no result", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
