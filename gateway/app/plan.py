"""What a configuration asks for, as values: two plans can be compared before anything is touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime

from ..config.values import TLS, Address, Backend, Configuration, Service
from ..dialects.base import Policy, Terms
from ..records import dataclass
from ..sessions.agreed import hands_in, terms_of_errands
from ..telemetry.report.facts import Setup


@dataclass(frozen=True, slots=True)
class Opening:
    """One listening address, and the service that is offered there."""

    address: Address
    service: Service
    policy: str | None
    """Of a starttls address: `required`, `auth-only` or `optional`.  None where TLS comes first."""

    @property
    def implicit(self) -> bool:
        return self.policy is None


def openings(configuration: Configuration) -> tuple[Opening, ...]:
    """All listening addresses, in the order of the file."""
    found: list[Opening] = []
    for service in configuration.services:
        for address, policy in zip(service.starttls, service.policies, strict=True):
            found.append(Opening(address, service, policy))
        found += [Opening(address, service, None) for address in service.implicit]
    return tuple(found)


def terms_at(opening: Opening, configuration: Configuration) -> Terms:
    """The terms for clients of this address."""
    service, backend = opening.service, opening.service.backend
    return replace(
        terms_of_errands(configuration.hostname, backend, ""),
        implicit=opening.implicit,
        policy=Policy.REQUIRED if opening.policy is None else Policy(opening.policy),
        lazy=backend.lazy,
        bad_commands=configuration.limits.bad_commands,
        failed_logins=configuration.limits.auth_failures_per_session,
        options=dict(service.options),
        submission=hands_in(service) and not backend.allow_relay,
    )


def setup_of(configuration: Configuration) -> Setup:
    """What the advice has to know of it."""
    services = configuration.services
    legacy = any(service.tls.legacy_clients for service in services)
    unprotected = [service.name for service in services if dict(service.options).get("protection") == "optional"]
    return Setup(legacy, {service.name: service.policies for service in services}, unprotected)


@dataclass(frozen=True, slots=True)
class Reload:
    """What became of one reload."""

    when: datetime
    file: str = ""
    problems: tuple[str, ...] = ()
    """Why the new file is not used; empty where it is."""
    changes: tuple[str, ...] = ()
    """What differs from the file before: `[limits] changed`."""
    opened: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    """Listening addresses."""
    warnings: tuple[str, ...] = ()
    """What could not be read again, and is served as it was."""

    @property
    def good(self) -> bool:
        return not self.problems


def named(name: str, configuration: Configuration) -> tuple[str, frozenset[str]]:
    """What an administrator means: `service` and its name, or `backend` and addresses as text.

    Raises ValueError for what is neither, or both.
    """
    services = {service.name for service in configuration.services}
    backends = {one.backend.name: frozenset(map(str, one.backend.addresses)) for one in configuration.services}
    addresses = {address: frozenset([address]) for some in backends.values() for address in some}
    kind, _, own = name.partition(":")
    found: dict[str, frozenset[str]] = {}
    if kind == "service" and own in services:
        found["service"] = frozenset([own])
    elif kind == "backend" and own in backends | addresses:
        found["backend"] = (backends | addresses)[own]
    else:
        if name in services:
            found["service"] = frozenset([name])
        if name in backends | addresses:
            found["backend"] = (backends | addresses)[name]
    if len(found) > 1:
        raise ValueError(f"{name} is a service and a backend; write service:{name} or backend:{name}")
    if not found:
        there = ", ".join(sorted(services | addresses.keys() | backends.keys()))
        raise ValueError(f"there is no service and no backend {name}; there are {there}")
    ((what, names),) = found.items()
    return what, names


# --- from one plan to the next -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moves:
    """Which sockets stay; positions are those in the sequences that were compared."""

    kept: Mapping[int, int]
    """Position of a new opening -> position of the old one whose sockets it takes over."""
    closed: tuple[int, ...]
    """Positions of old openings that are wanted no more."""


def moves(old: Sequence[Opening], new: Sequence[Opening]) -> Moves:
    """How to get from the old openings to the new ones: an address that stays keeps its sockets.

    An address may stand there several times: port 0 means another free port each time.  Then the same service keeps
    its own ports where it can.
    """
    kept: dict[int, int] = {}
    left = dict(enumerate(old))
    for likeness in (_place, _address):
        for position, opening in enumerate(new):
            if position not in kept:
                found = next((one for one, was in left.items() if likeness(was) == likeness(opening)), None)
                if found is not None:
                    kept[position] = found
                    del left[found]
    return Moves(kept, tuple(left))


def _place(opening: Opening) -> object:
    return opening.address, opening.service.name, opening.implicit


def _address(opening: Opening) -> object:
    return opening.address


_SECTIONS = ("tls", "limits", "timeouts", "report", "admin")
"""Sections that are one field each."""
_GATEWAY = tuple(field.name for field in fields(Configuration) if field.name not in (*_SECTIONS, "services"))
"""What stands in `[gateway]`."""


def changes(old: Configuration, new: Configuration) -> tuple[str, ...]:
    """The sections that differ, in words: `[service:imap] added`, `[limits] changed`."""
    return tuple(f"[{title}] {what}" for title, what in _changes(old, new))


def _changes(old: Configuration, new: Configuration) -> Iterator[tuple[str, str]]:
    if any(getattr(old, name) != getattr(new, name) for name in _GATEWAY):
        yield "gateway", "changed"
    for section in _SECTIONS:
        if getattr(old, section) != getattr(new, section):
            yield section, "changed"
    yield from _named("service", _services(old), _services(new))
    yield from _named("backend", _backends(old), _backends(new))


def _named(kind: str, old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for name in dict.fromkeys((*old, *new)):
        if name not in old:
            yield f"{kind}:{name}", "added"
        elif name not in new:
            yield f"{kind}:{name}", "removed"
        elif old[name] != new[name]:
            yield f"{kind}:{name}", "changed"


def _services(configuration: Configuration) -> Mapping[str, object]:
    """Each service without what it has from other sections."""
    return {
        one.name: (
            replace(one, backend=Backend(one.backend.name, ()), tls=TLS(())),
            None if one.tls == configuration.tls else one.tls,
        )
        for one in configuration.services
    }


def _backends(configuration: Configuration) -> Mapping[str, object]:
    return {one.backend.name: one.backend for one in configuration.services}
