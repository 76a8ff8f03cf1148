"""`starttls-gateway check FILE`: the mistakes of a configuration file, or what it serves; with --live also how its
backends are."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..app.rights import gid_of, group_of, uid_of
from ..config import DEFAULT_FILE, Configuration, ConfigurationError, load, locate
from ..config.values import Backend, Service
from ..dialects import DIALECTS
from ..telemetry.words import columns

if TYPE_CHECKING:
    from ..wire.tls.connector import TLSConnector
    from .certificates import Served
    from .finding import Finding

Row = tuple[str, ...]
Say = Callable[..., None]


def add(commands: Any) -> None:
    """To the command line's parser."""
    about = "check a configuration file: list its mistakes (exit status 1), or its listeners (exit status 0)"
    parser = commands.add_parser("check", help=about, description=f"{about[0].upper()}{about[1:]}.")
    parser.add_argument(
        "file", metavar="FILE", nargs="?", default=DEFAULT_FILE, help="the configuration file (default: %(default)s)"
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="also test for each backend whether clients can log in and send mail; show greeting, capabilities, TLS, "
        "certificate, identity, open relay; exit status 1 if anything is wrong",
    )
    parser.add_argument("--json", action="store_true", help="with --live, print the report as JSON (docs/check.md)")
    parser.add_argument(
        "--domain", metavar="NAME", default="",
        help="with --live, the domain for which XMPP servers are asked; default: hostname",
    )  # fmt: skip
    parser.add_argument(
        "--uid",
        metavar="USER",
        help="also list the keys and certificates that this user of the daemon cannot read",
    )
    parser.add_argument("--gid", metavar="GROUP", help="with --uid, the group; default: the user's group")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace, say: Say) -> int:
    """The exit status."""
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
    return check(given.file, say, given.live, given.json, uid, gid, given.domain)


def check(
    file: str,
    say: Say,
    live: bool = False,
    as_json: bool = False,
    uid: int | None = None,
    gid: int | None = None,
    domain: str = "",
) -> int:
    """Print the mistakes of the file, or its services; with `live` also a report on its backends, with `uid` also the
    files that this user cannot read.  `domain`: the one that XMPP servers are asked for."""
    # Here, so that other commands need not wait for them.
    from .certificates import served, told
    from .machine import as_user, look
    from .report import Paint, in_json, in_words

    findings: list[Finding] = []
    try:
        configuration = load(file, DIALECTS)
        certificates = served(configuration)
        findings = look(configuration, locate(file), live)
        connectors = _usable(file, configuration, certificates, [one.of(file) for one in findings if one.fatal])
    except ConfigurationError as wrong:
        if as_json:
            say(in_json(file, None, wrong.problems, ()))
        else:
            say(*wrong.problems, *(f"warning      {one.of(file)}" for one in findings if not one.fatal))
        return 1
    warnings = [one for one in findings if not one.fatal]
    if uid is not None:
        warnings += as_user(uid, gid, configuration)
    if as_json:
        # The JSON has no place for warnings.
        for one in warnings:
            print(one.of(file), file=sys.stderr)
    else:
        say(f"{file}: good; the gateway's host name is {configuration.hostname}")
        titles = ("service", "protocol", "listens on", "TLS", "policy", "backend")
        say(*columns([titles, *_rows(configuration)]))
        say(*told(certificates))
        say(*([""] if warnings else []), *(f"warning      {one.of(file)}" for one in warnings))
    if not live:
        return 0
    from .live import look as look_at_backends

    reports = look_at_backends(configuration, connectors, domain)
    if as_json:
        say(in_json(file, configuration.hostname, (), reports))
    else:
        say(*in_words(reports, Paint.of_the_terminal()))
    return 0 if all(report.good for report in reports) else 1


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
