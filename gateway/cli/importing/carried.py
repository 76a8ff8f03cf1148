"""What is carried over from the file of another program, and how it is written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field

from ...dialects import DIALECTS
from ...records import dataclass
from .reasons import NOTHING

_WORDS = {"ssmtp": "smtp", "smtps": "smtp", "submission": "smtp", "imap4": "imap", "pgsql": "postgresql", "pop": "pop3"}
_NAME = re.compile(r"[^a-z0-9-]+")

VERSIONS = {"TLSv1.3": "modern", "TLSv1.2": "intermediate"}
"""The oldest version that is allowed -> profile."""


class Unreadable(Exception):
    """The file cannot be understood, or has nothing for us.  The text: where, what, and the cure."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that is not carried over: the line, what stands there, and what to do instead."""

    line: int
    what: str
    why: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.what}: {self.why}"


@dataclass(eq=False, slots=True)
class Line:
    """An option of the other file: where, as it stands there, its name, its values.  `taken`: it is carried over."""

    number: int
    text: str
    name: str
    words: list[str] = field(default_factory=list)
    taken: bool = False

    @property
    def word(self) -> str:
        return self.words[0] if self.words else ""

    def take(self) -> str:
        """The first value, which is carried over now."""
        self.taken = True
        return self.word


@dataclass
class Lines:
    """The options of a section.  Those around it hold where it has none of its own."""

    own: list[Line] = field(default_factory=list)
    outer: Lines | None = None

    def all(self, name: str) -> list[Line]:
        own = [line for line in self.own if line.name == name]
        return own or ([] if self.outer is None else self.outer.all(name))

    def find(self, name: str) -> Line | None:
        """The last one holds."""
        return next(reversed(self.all(name)), None)

    def look(self, name: str, default: str = "") -> str:
        """Its value, which is not carried over yet."""
        line = self.find(name)
        return line.word if line is not None and line.words else default

    def take(self, name: str, default: str = "") -> str:
        line = self.find(name)
        return line.take() or default if line is not None else default


@dataclass
class Found:
    """One service."""

    name: str
    line: int
    protocol: str = ""
    starttls: list[str] = field(default_factory=list)
    implicit: list[str] = field(default_factory=list)
    backend: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    """Of `[service:...]`."""
    towards: dict[str, str] = field(default_factory=dict)
    """Of `[backend:...]`."""


@dataclass
class Carried:
    """All of it.  `remarks` become comments."""

    services: list[Found] = field(default_factory=list)
    gateway: dict[str, str] = field(default_factory=dict)
    limits: dict[str, str] = field(default_factory=dict)
    timeouts: dict[str, str] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)

    def remark(self, line: int, what: str, why: str) -> None:
        """What several services share is listed once."""
        if (remark := Remark(line, what, why)) not in self.remarks:
            self.remarks.append(remark)

    def connect(self, wait: Line | None, unit: str) -> None:
        """How long to wait for a backend; `unit` is of a number alone."""
        if wait is not None and wait.words:
            time = wait.word if wait.word[-1:].isalpha() else f"{wait.word} {unit}"
            self.once(self.timeouts, "connect", time, wait)

    def sessions(self, most: Line | None) -> None:
        """How many there may be; 0 is no value for it."""
        if most is not None and most.word not in ("", "0"):
            self.once(self.limits, "sessions", most.word, most)

    def refuse(self, line: Line, why: str) -> None:
        line.taken = True
        self.remark(line.number, line.text, why)

    def leave(self, lines: Sequence[Line], reasons: Mapping[str, str]) -> None:
        """List what nobody took.  `reasons`: by the first word of a line's name."""
        holding = {line.name: line.number for line in lines if line.taken}
        for line in lines:
            if not line.taken:
                why = reasons.get(line.name.partition(" ")[0], NOTHING)
                self.remark(line.number, line.text, f"line {holding[line.name]} holds" if line.name in holding else why)

    def once(self, options: dict[str, str], name: str, value: str, line: Line) -> None:
        """An option that holds for all services, or for all ports or servers of one: the first value that is found."""
        if options.setdefault(name, value) == value:
            line.taken = True
        else:
            self.refuse(line, f"{name} = {options[name]} holds here, too; there is one {name} for all")


def port_of(address: str) -> int | None:
    """The port at the end of an address, if there is one."""
    match = re.search(r"(?:^|:)([0-9]+)$", address)
    return int(match[1]) if match else None


_ANYBODYS = frozenset({80, 443})
"""Ports that say nothing of a service: behind many firewalls only these are open."""


def protocol_of(name: str, addresses: list[str]) -> str:
    """What a service speaks, by its name or its ports; nothing if neither says."""
    word = name.lower()
    for known in (*DIALECTS, *_WORDS):
        if re.fullmatch(rf"{known}s?(?:[^a-z].*)?", word):
            return _WORDS.get(known, known)
    for address in addresses:
        port = port_of(address)
        for dialect in DIALECTS.values():
            ports = () if dialect.probing is None else (dialect.probing.port, *dialect.probing.implicit)
            if port in (*ports, *dialect.submission) and port not in _ANYBODYS:
                return dialect.name
    return ""


def address(host: str, port: str) -> str:
    """An address in our form; no host means all addresses of the machine."""
    if host in ("", "*"):
        return port
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def place(text: str) -> str:
    """The same for one text: `*:993`, `:993`, `:::993`, `[::1]:993`, `host:993`, `unix:/path`, `/path`."""
    if text.startswith(("unix:", "/")):
        return f"unix:{text.removeprefix('unix:')}"
    host, _, port = text.rpartition(":")
    return address(host.strip("[]"), port)


def written(carried: Carried, source: str) -> str:
    """The file.  Raises Unreadable if there is no service in it."""
    if not carried.services:
        reasons = "".join(f"\n  {_harmless(str(remark))}" for remark in carried.remarks)
        raise Unreadable(f"{source}: there is no service in it that the gateway could take over{reasons}")
    lines = [f"# From {source}.", "# Test it:  starttls-gateway check FILE --live", ""]
    if carried.remarks:
        lines.append("# Not carried over:")
        lines += [f"#   {_harmless(str(remark))}" for remark in sorted(carried.remarks, key=lambda remark: remark.line)]
        lines.append("")
    for title in ("gateway", "limits", "timeouts"):
        values: dict[str, str] = getattr(carried, title)
        if values:
            lines += [f"[{title}]", *_options(values), ""]
    taken: set[str] = set()
    for service in carried.services:
        lines += _service(service, taken, source)
    return "\n".join(lines).rstrip() + "\n"


def _service(service: Found, taken: set[str], source: str) -> Iterator[str]:
    name = _own_name(service.name, taken)
    # A port alone is ours for all addresses of IPv4 and IPv6, for which others need two.
    alone = {one for one in (*service.starttls, *service.implicit) if one.isdigit()}
    both = {f"{host}:{port}" for port in alone for host in ("0.0.0.0", "[::]")}
    yield f"# {source}, line {service.line}"
    yield f"[service:{name}]"
    if service.protocol != name:
        yield f"protocol = {service.protocol}"
    if places := [one for one in service.starttls if one not in both]:
        yield f"starttls = {' '.join(dict.fromkeys(places))}"
    if places := [one for one in service.implicit if one not in both]:
        yield f"implicit = {' '.join(dict.fromkeys(places))}"
    separate = len(service.backend) > 1 or bool(service.towards)
    yield f"backend = {name if separate else service.backend[0]}"
    yield from _options(service.options)
    yield ""
    if separate:
        yield f"[backend:{name}]"
        yield f"address = {' '.join(service.backend)}"
        yield from _options(service.towards)
        yield ""


def _options(values: dict[str, str]) -> Iterator[str]:
    return (f"{name} = {value}" for name, value in values.items())


def _own_name(name: str, taken: set[str]) -> str:
    """A name that our file may have, once."""
    plain = _NAME.sub("-", name.lower()).strip("-") or "service"
    wanted, number = plain, 1
    while wanted in taken:
        number += 1
        wanted = f"{plain}-{number}"
    taken.add(wanted)
    return wanted


def _harmless(text: str) -> str:
    """One line, whatever the other file holds."""
    return "".join(sign if sign.isprintable() else " " for sign in text)
