"""The report of `check --live`, as text and as JSON (docs/check.md)."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from difflib import SequenceMatcher
from typing import Any

from ..records import dataclass
from ..telemetry.words import counted

WIDTH = 100
"""Columns of a report."""
LABEL = 14
"""Columns of the labels."""
LONGEST = 240
"""Characters of one text of a backend."""


def _word(capability: str) -> str:
    return capability.split(" ")[0].upper()


def shown(octets: bytes) -> str:
    """Octets from a server as text that is safe for a terminal."""
    text = "".join(chr(octet) if 0x20 <= octet <= 0x7E else f"\\x{octet:02x}" for octet in octets[: LONGEST + 1])
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of a backend."""

    problem: str
    """The event's name in the gateway's log."""
    detail: str
    cure: str


@dataclass(frozen=True, slots=True)
class Certificate:
    names: tuple[str, ...]
    not_after: datetime
    days_left: int
    sha256: str
    trust: str
    """`verified`, `pinned`, `unverified` or `refused`."""


@dataclass(frozen=True, slots=True)
class Relay:
    verdict: str | None
    text: str
    allowed: bool


@dataclass(frozen=True, slots=True)
class Login:
    """How a client can log in."""

    possible: bool | None
    """None if the backend does not say."""
    needed: bool
    """Clients can do nothing without login."""
    ways: tuple[str, ...]
    text: str
    """Why there is no way, or no way with a plain password."""


@dataclass(frozen=True, slots=True)
class Sending:
    """The reply to MAIL FROM."""

    possible: bool | None
    """None if the reply does not tell: login first, or a temporary error."""
    after_login: bool
    text: str


@dataclass(frozen=True, slots=True)
class Lazy:
    """What clients of lazy listeners see before the gateway connects to the backend."""

    listeners: tuple[str, ...]
    greeting: tuple[str, ...]
    capabilities: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Report:
    """One address of one backend, in one protocol.  Texts are safe for a terminal."""

    backend: str
    services: tuple[str, ...]
    protocol: str
    address: str
    mode: str
    identity: str
    reached: str = ""
    lazy: tuple[Lazy, ...] = ()
    greeting: tuple[str, ...] = ()
    """The lines of the backend."""
    welcome: tuple[str, ...] = ()
    """The lines that clients get."""
    offered: tuple[str, ...] | None = None
    shown: tuple[str, ...] | None = None
    version: str | None = None
    cipher: str | None = None
    group: str | None = None
    certificate: Certificate | None = None
    accepted: bool | None = None
    login: Login | None = None
    """None without a connection."""
    sending: Sending | None = None
    """None if not tested."""
    relay: Relay | None = None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    """Problems of some clients only."""

    @property
    def good(self) -> bool:
        return not self.problems

    @property
    def changes(self) -> list[tuple[str, str]]:
        """The capabilities, each with ` ` (unchanged), `-` (removed) or `+` (added by the gateway)."""
        before, after = self.offered or (), self.shown or ()
        told: list[tuple[str, str]] = []
        for what, start, end, other, until in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
            if what == "equal":
                told += [(" ", name) for name in before[start:end]]
                continue
            added = list(after[other:until])
            for name in before[start:end]:
                told.append(("-", name))
                # A changed capability follows its original.
                told += [("+", new) for new in added if _word(new) == _word(name)]
                added = [new for new in added if _word(new) != _word(name)]
            told += [("+", new) for new in added]
        return told

    def as_json(self) -> dict[str, Any]:
        certificate = None
        if self.certificate is not None:
            certificate = asdict(self.certificate) | {"not_after": self.certificate.not_after.isoformat()}
        greeting = {"backend": "\n".join(self.greeting), "client": "\n".join(self.welcome)}
        return {
            "backend": self.backend,
            "services": list(self.services),
            "protocol": self.protocol,
            "address": self.address,
            "reached": self.reached or None,
            "good": self.good,
            "lazy": [asdict(one) | {"greeting": "\n".join(one.greeting)} for one in self.lazy],
            "greeting": greeting if self.greeting else None,
            "capabilities": {
                "backend": self.offered,
                "client": self.shown,
                "removed": [name for sign, name in self.changes if sign == "-"],
                "added": [name for sign, name in self.changes if sign == "+"],
            },
            "tls": {
                "mode": self.mode,
                "version": self.version,
                "cipher": self.cipher,
                "group": self.group,
                "certificate": certificate,
            },
            "identity": {"mode": self.identity, "accepted": self.accepted},
            "login": None if self.login is None else asdict(self.login),
            "sending": None if self.sending is None else asdict(self.sending),
            "relay": None if self.relay is None else asdict(self.relay),
            "problems": [asdict(problem) for problem in self.problems],
            "warnings": [asdict(warning) for warning in self.warnings],
        }


def in_json(file: str, hostname: str | None, problems: Sequence[str], reports: Sequence[Report]) -> str:
    good = not problems and all(report.good for report in reports)
    backends = [report.as_json() for report in reports]
    whole = {"file": file, "hostname": hostname, "good": good, "problems": list(problems), "backends": backends}
    return json.dumps(whole, indent=2)


# --- for people ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Paint:
    """What the terminal can show."""

    colours: bool = False
    lines: bool = False
    """Box drawing."""

    @classmethod
    def of_the_terminal(cls) -> Paint:
        """What standard output can show.  A file or a pipe gets plain ASCII."""
        if sys.stdout is None:
            return cls()
        terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        encoding = (sys.stdout.encoding or "").lower().replace("-", "")
        return cls(colours=terminal and not os.environ.get("NO_COLOR"), lines=terminal and encoding == "utf8")

    def red(self, text: str) -> str:
        return self._painted("31", text)

    def green(self, text: str) -> str:
        return self._painted("32", text)

    def bold(self, text: str) -> str:
        return self._painted("1", text)

    def _painted(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colours else text


def in_words(reports: Sequence[Report], paint: Paint) -> Iterable[str]:
    for report in reports:
        yield ""
        yield from _block(report, paint)
    bad = sum(not report.good for report in reports)
    warned = sum(bool(report.warnings) for report in reports)
    yield ""
    looked = f"{len(reports)} address{'es' if len(reports) != 1 else ''} tested"
    yield f"{looked}: {paint.red(f'{bad} with problems') if bad else paint.green('all good')}" + (
        f", {warned} with a warning" if warned else ""
    )


def _block(report: Report, paint: Paint) -> Iterable[str]:
    yield _heading(report, paint)
    for one in report.lazy:
        yield from _lazily(one)
    for line in report.welcome or report.greeting:
        yield from row("greeting", line)
    yield from row("tls", _tls(report))
    if report.certificate is not None:
        yield from row("certificate", _certificate(report.certificate))
    yield from row("identity", _identity(report))
    if report.login is not None:
        yield from row("login", _login(report.login))
    if report.sending is not None:
        yield from row("sending", _sending(report.sending))
    if report.relay is not None:
        yield from row("relay", _relay(report.relay, report.sending))
    yield from _capabilities(report, paint)
    yield from problems(report.problems, paint)
    for warning in report.warnings:
        yield from row("warning", f"{warning.problem}: {warning.detail}")
        yield from row("cure", warning.cure)


def _heading(report: Report, paint: Paint) -> str:
    place = report.address if report.backend == report.address else f"{report.backend} at {report.address}"
    title = f"{place}: {report.protocol} for {', '.join(report.services)}"
    return heading(title, "good" if report.good else "WRONG", report.good, paint)


def heading(title: str, word: str, good: bool, paint: Paint) -> str:
    """A line across the report, with what is looked at and the verdict."""
    rule = "─" if paint.lines else "-"
    filling = rule * max(2, WIDTH - len(title) - len(word) - 5)
    return f"{rule * 2} {paint.bold(title)} {filling} {(paint.green if good else paint.red)(word)}"


def problems(found: Iterable[Problem], paint: Paint) -> Iterable[str]:
    """Each with its cure."""
    for one in found:
        detail = f"{one.problem}: {one.detail}" if one.detail else one.problem
        yield from (paint.red(line) for line in row("wrong", detail))
        yield from row("cure", one.cure)


def row(label: str, text: str) -> Iterable[str]:
    lines = textwrap.wrap(text, WIDTH - LABEL, break_on_hyphens=False) or [""]
    yield f"{label:<{LABEL}}{lines[0]}".rstrip()
    for line in lines[1:]:
        yield " " * LABEL + line


def _tls(report: Report) -> str:
    if report.mode == "none":
        return "none: plaintext"
    if report.version is None:
        return f"{report.mode}: not reached"
    return ", ".join(filter(None, (report.mode, report.version, report.cipher, report.group)))


def _certificate(certificate: Certificate) -> str:
    names = ", ".join(certificate.names) or "no names"
    days = certificate.days_left
    left = f"expired {counted(-days, 'day')} ago" if days < 0 else f"{counted(days, 'day')} left"
    return f"{names}; {left}; {certificate.trust}"


def _identity(report: Report) -> str:
    if report.identity == "none":
        return "none: the backend sees the gateway's address"
    if report.accepted is None and report.welcome:
        return f"{report.identity}: sent; the server may ignore it without an error, so check the server's log"
    return f"{report.identity}: {({True: 'accepted', False: 'refused', None: 'not known'})[report.accepted]}"


def _lazily(lazy: Lazy) -> Iterable[str]:
    """What clients see before TLS."""
    how = "the gateway sends its own greeting, and connects when a command needs the backend"
    yield from row("lazy", f"on {', '.join(lazy.listeners)}: {how}")
    for line in lazy.greeting:
        yield from row("  greeting", line)
    yield from row("  before TLS", ", ".join(lazy.capabilities or ()) or "no capabilities")


def _login(login: Login) -> str:
    if login.possible:
        return f"with {', '.join(login.ways)}"
    if login.possible is None:
        return "not known: the backend does not say how"
    return f"{'NOBODY can log in' if login.needed else 'not offered, not needed'}: {login.text}"


def _sending(sending: Sending) -> str:
    if sending.possible:
        return "MAIL FROM is accepted"
    if sending.possible is None:
        return f"{'after a login' if sending.after_login else 'not known'} ({sending.text})"
    return f"NOBODY can send mail: {sending.text}"


def _relay(relay: Relay, sending: Sending | None) -> str:
    undecided = "nobody can send" if sending and sending.possible is False else "the backend did not say"
    words = {
        "open": "OPEN, as the file allows"
        if relay.allowed
        else "OPEN: every client of the gateway can send mail to anybody",
        "closed": "closed",
        "undecided": f"undecided: {undecided}",
    }
    word = words.get(relay.verdict or "", "not known")
    return f"{word} ({relay.text})" if relay.text else word


def _capabilities(report: Report, paint: Paint) -> Iterable[str]:
    if report.offered is None and report.shown is None:
        if report.greeting:
            yield from row("capabilities", "none: the backend lists none")
        return
    label = "capabilities"
    colours: dict[str, Callable[[str], str]] = {"-": paint.red, "+": paint.green, " ": str}
    for sign, name in report.changes:
        yield f"{label:<{LABEL}}" + colours[sign](f"{sign} {name}".rstrip())
        label = ""
    if label:
        yield from row(label, "none")
