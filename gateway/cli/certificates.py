"""What `check` tells of the certificates that clients will get."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ..config.values import Configuration, Pair, Service
from ..tls.certificates import CertificateError, Report, inspect, load_authorities
from .report import shown


@dataclass(frozen=True, slots=True)
class Served:
    """A certificate that services are served with; nobody looks at one that none is."""

    section: str
    """Where the file names it: `tls` or `service:NAME`."""
    services: tuple[str, ...]
    report: Report


def served(configuration: Configuration, now: datetime | None = None) -> list[Served]:
    """In the order of the file, each once.  `now` is aware of its zone."""
    users: dict[Pair, list[Service]] = {}
    for service in configuration.services:
        for pair in service.tls.pairs:
            users.setdefault(pair, []).append(service)
    found = []
    for pair, services in users.items():
        section = "tls" if pair in configuration.tls.pairs else f"service:{services[0].name}"
        # What is too weak for one of them is too weak.
        weak = all(service.tls.profile == "legacy" for service in services)
        (report,) = inspect([pair], now, weak)
        found.append(Served(section, tuple(service.name for service in services), report))
    return found


def complaints(configuration: Configuration, found: Iterable[Served]) -> Iterable[str]:
    """Why these files cannot be used, each as it goes behind `FILE: `."""
    for one in found:
        for error in one.report.errors:
            option = "key" if error.startswith(f"{one.report.pair.key}: ") else "certificate"
            yield f"[{one.section}] {option}: {error}"
    authorities: dict[Path, str] = {}
    for service in configuration.services:
        if (path := service.tls.client_ca) is not None:
            authorities.setdefault(path, "tls" if path == configuration.tls.client_ca else f"service:{service.name}")
    for path, section in authorities.items():
        try:
            load_authorities(path)
        except CertificateError as wrong:
            yield f"[{section}] client_ca: {wrong}"


def told(found: Sequence[Served]) -> Iterable[str]:
    """For people: a block for each, with its TLSA record on a line of its own, as DNS wants it."""
    for one in found:
        report = one.report
        yield ""
        yield f"to clients   {report.pair.certificate} of [{one.section}], for {', '.join(one.services)}"
        yield f"names        {', '.join(shown(name.encode('utf-8')) for name in report.names) or 'none'}"
        yield f"key          {report.key}"
        if report.not_after is not None and report.days is not None:
            yield f"valid        until {report.not_after:%Y-%m-%d}, {_counted(report.days)} left"
        yield f"TLSA         {report.tlsa}"
        yield from (f"warning      {warning}" for warning in report.warnings)


def _counted(days: int) -> str:
    return f"{days} day{'s' if days != 1 else ''}"
