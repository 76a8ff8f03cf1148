"""The part of `check` about certificates for clients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from ..config import Places
from ..config.values import Configuration, Pair, Service
from ..records import dataclass
from ..telemetry.words import counted
from ..wire.tls.certificates import CertificateError, Report, inspect, load, load_authorities
from ..wire.tls.remarks import about_all
from ..wire.tls.server import Inventory, ServerTLS
from .finding import Finding, at
from .report import shown

_STRICTEST = ("modern", "intermediate", "legacy")


@dataclass(frozen=True, slots=True)
class Served:
    """A certificate that services use.  Unused certificates are not checked."""

    section: str
    """Its section: `tls` or `service:NAME`."""
    services: tuple[str, ...]
    report: Report


def served(configuration: Configuration, now: datetime | None = None) -> list[Served]:
    """In the order of the file, each once.  `now` has a time zone."""
    users: dict[Pair, list[Service]] = {}
    for service in configuration.services:
        for pair in service.tls.pairs:
            users.setdefault(pair, []).append(service)
    found = []
    for pair, services in users.items():
        section = "tls" if pair in configuration.tls.pairs else f"service:{services[0].name}"
        # The strictest profile counts.
        profile = min((service.tls.profile for service in services), key=_STRICTEST.index)
        (report,) = inspect([pair], now, profile)
        found.append(Served(section, tuple(service.name for service in services), report))
    return _with_remarks(found, configuration.hostname)


def _with_remarks(found: list[Served], hostname: str) -> list[Served]:
    """Add the warnings about all of them together."""
    known = {one.report.pair: one for one in found}
    for report, text in about_all([one.report for one in found if not one.report.errors], hostname):
        one = known[report.pair]
        known[report.pair] = replace(one, report=replace(one.report, warnings=(*one.report.warnings, text)))
    return list(known.values())


def complaints(
    configuration: Configuration, found: Sequence[Served], places: Places, now: datetime | None = None
) -> Iterable[Finding]:
    """The errors of these files."""
    for section, option, text in _wrong(configuration, found, now):
        yield at(places, section, option, text)


def _wrong(
    configuration: Configuration, found: Sequence[Served], now: datetime | None
) -> Iterable[tuple[str, str, str]]:
    """Section, option and error."""
    for one in found:
        for error in one.report.errors:
            option = "key" if error.startswith(f"{one.report.pair.key}: ") else "certificate"
            yield one.section, option, error
    known = {error for one in found for error in one.report.errors}
    good = {one.report.pair for one in found if not one.report.errors}
    for section, error in dict.fromkeys(_together(configuration, good, now)):
        if error not in known:
            yield section, "certificate", error
    authorities: dict[Path, str] = {}
    for service in configuration.services:
        if (path := service.tls.client_ca) is not None:
            authorities.setdefault(path, "tls" if path == configuration.tls.client_ca else f"service:{service.name}")
    for path, section in authorities.items():
        try:
            load_authorities(path)
        except CertificateError as wrong:
            yield section, "client_ca", str(wrong)


def _together(configuration: Configuration, good: set[Pair], now: datetime | None) -> Iterable[tuple[str, str]]:
    """Errors of certificates in combination, with their section."""
    for service in configuration.services:
        if not good.issuperset(service.tls.pairs):
            continue
        section = "tls" if service.tls.pairs == configuration.tls.pairs else f"service:{service.name}"
        certificates = {pair: load(pair, now) for pair in service.tls.pairs}
        authorities = {}
        if (path := service.tls.client_ca) is not None:
            with suppress(CertificateError):  # reported elsewhere
                authorities[path] = load_authorities(path)
            if not authorities:
                continue
        try:
            ServerTLS(service.tls, ()).prepare(Inventory(certificates, authorities))
        except CertificateError as error:
            yield section, str(error)


def told(found: Sequence[Served]) -> Iterable[str]:
    """A block of lines for each certificate, with its TLSA record on its own line."""
    for one in found:
        report = one.report
        yield ""
        yield f"to clients   {report.pair.certificate} of [{one.section}], for {', '.join(one.services)}"
        yield f"names        {', '.join(shown(name.encode('utf-8')) for name in report.names) or 'none'}"
        yield f"key          {report.key}"
        if report.not_after is not None and report.days is not None:
            yield f"valid        until {report.not_after:%Y-%m-%d}, {counted(report.days, 'day')} left"
        yield f"TLSA         {report.tlsa}"
        yield from (f"warning      {warning}" for warning in report.warnings)
