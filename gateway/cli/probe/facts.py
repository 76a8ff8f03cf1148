"""What a probe has found out.  Whether that is good is said in verdict.py."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from ...records import dataclass
from ..report import shown


@dataclass(frozen=True, slots=True)
class Tried:
    """Something that was offered to the server: a TLS version, a group."""

    name: str
    accepted: bool | None
    """None where nobody can tell."""
    detail: str = ""
    """The cipher suite, or why not."""


@dataclass(frozen=True, slots=True)
class Login:
    """A login that was tried in the clear, up to where a client would say its secret."""

    command: str
    taken: bool
    answer: str


@dataclass(frozen=True, slots=True)
class Chain:
    names: tuple[str, ...]
    not_after: datetime
    days_left: int
    sha256: str
    subjects: tuple[str, ...]
    weakness: str
    objections: tuple[str, ...]
    """Why a client that expects this name refuses it."""


@dataclass(frozen=True, slots=True)
class Dane:
    """TLSA records (RFC 6698)."""

    records: int = 0
    secure: bool = False
    """The resolver vouches for them with DNSSEC."""
    matches: bool | None = None
    """None where there is no certificate or no record to compare."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Sts:
    """The MTA-STS policy of a domain (RFC 8461)."""

    domain: str
    asked: bool = False
    """The domain was named by who asks; else it was derived from the host."""
    mode: str = ""
    mx: tuple[str, ...] = ()
    lists_host: bool = False
    error: str = ""


@dataclass(slots=True)
class Facts:
    """About one server.  Texts are fit for a terminal."""

    protocol: str
    address: str
    name: str
    """What a client expects the certificate to be for."""
    implicit: bool
    reached: str = ""
    greeting: str = ""
    unreachable: str = ""
    """Why nothing is known; nothing if something is."""
    offered: bool | None = None
    """STARTTLS; None where the server lists nothing, or where TLS comes first."""
    masked: bool = False
    go_ahead: str = ""
    """The answer to STARTTLS; nothing if it was not said."""
    capabilities: tuple[str, ...] | None = None
    """In the clear."""
    inside: tuple[str, ...] | None = None
    """Inside TLS."""
    starttls_inside: bool = False
    behind: str = ""
    """What came behind the go-ahead, in the clear."""
    executed: str = ""
    """How the server answered a command that stood behind STARTTLS; nothing if it did not."""
    injection: bool | None = None
    """Whether it runs such commands; None where that could not be tried."""
    failure: str = ""
    """Why there was no TLS."""
    version: str | None = None
    cipher: str | None = None
    group: str | None = None
    versions: tuple[Tried, ...] = ()
    groups: tuple[Tried, ...] = ()
    chain: Chain | None = None
    logins: tuple[str, ...] | None = None
    """What the server offers in the clear; None where it does not say."""
    bare: tuple[str, ...] = ()
    """Those of them that show the password to whoever listens."""
    tried: tuple[Login, ...] = ()
    dns: str = ""
    """Why DNS was not asked; nothing if it was."""
    dane: Dane | None = None
    sts: Sts | None = None

    @property
    def secured(self) -> bool:
        return self.version is not None

    def as_json(self) -> dict[str, Any]:
        chain, dane, sts = self.chain, self.dane, self.sts
        return {
            "protocol": self.protocol,
            "address": self.address,
            "reached": self.reached or None,
            "greeting": self.greeting or None,
            "unreachable": self.unreachable or None,
            "starttls": None
            if self.implicit
            else {
                "offered": self.offered,
                "masked": self.masked,
                "answer": self.go_ahead or None,
                "behind_go_ahead": self.behind or None,
                "runs_injected_commands": self.injection,
                "injected_answer": self.executed or None,
            },
            "capabilities": {"clear": self.capabilities, "tls": self.inside},
            "tls": {
                "version": self.version,
                "cipher": self.cipher,
                "group": self.group,
                "failure": self.failure or None,
                "versions": [asdict(one) for one in self.versions],
                "groups": [asdict(one) for one in self.groups],
            },
            "certificate": None
            if chain is None
            else {
                "expected": self.name,
                "names": chain.names,
                "not_after": chain.not_after.isoformat(),
                "days_left": chain.days_left,
                "sha256": chain.sha256,
                "chain": chain.subjects,
                "objections": chain.objections,
            },
            "login_in_the_clear": {
                "offered": self.logins,
                "show_the_password": self.bare,
                "tried": [asdict(one) for one in self.tried],
            },
            "dns": {
                "skipped": self.dns or None,
                "dane": None if dane is None else asdict(dane) | {"error": dane.error or None},
                "mta_sts": None
                if sts is None
                else {
                    "domain": sts.domain,
                    "mode": sts.mode or None,
                    "mx": sts.mx,
                    "lists_host": sts.lists_host,
                    "error": sts.error or None,
                },
            },
        }


def line(octets: bytes) -> str:
    """The first line of what a server said, fit for a terminal."""
    return shown(octets.splitlines()[0]) if octets.strip() else ""


def last(octets: bytes) -> str:
    """The last line of it."""
    return shown(octets.splitlines()[-1]) if octets.strip() else ""
