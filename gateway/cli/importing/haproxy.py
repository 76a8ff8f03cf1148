"""haproxy.cfg: `bind` lines with TLS in `frontend` and `listen`, in TCP mode."""

from __future__ import annotations

import re
import shlex
from dataclasses import field

from ...records import dataclass
from . import reasons
from .carried import VERSIONS, Carried, Found, Line, Lines, Unreadable, place, protocol_of

SECTIONS = ("global", "defaults", "frontend", "backend", "listen", "peers", "resolvers", "userlist", "mailers",
            "program", "cache", "ring", "http-errors", "fcgi-app", "log-forward")  # fmt: skip
_WATCHED = "the gateway watches its backends itself (docs/backends.md)"
_ACCEPT_PROXY = "name the load balancer's addresses in accept_proxy"
ELSEWHERE = {
    **dict.fromkeys(("user", "group", "uid", "gid", "chroot", "daemon", "pidfile", "log", "stats", "cpu-map",
        "ulimit-n", "log-format", "log-tag"), reasons.SYSTEM),
    **dict.fromkeys(("nbthread", "nbproc"), reasons.PROCESSES),
    **dict.fromkeys(("ssl-default-bind-ciphers", "ssl-default-bind-ciphersuites", "ssl-default-bind-curves",
        "ssl-default-bind-options", "ssl-default-server-ciphers", "ssl-default-server-ciphersuites",
        "ssl-default-server-options", "ssl-dh-param-file", "tune.ssl.default-dh-param"), reasons.PROFILES),
    "balance": reasons.IN_ORDER,
    "maxconn": "[limits] sessions holds for all services together, and 0 is no value for it",
    **dict.fromkeys(("acl", "use_backend", "tcp-request", "tcp-response", "stick-table", "stick", "rate-limit"),
        reasons.RULES),
    "timeout": reasons.TIMES,
    **dict.fromkeys(("retries", "tcp-check", "http-check", "external-check"), _WATCHED),
    **dict.fromkeys(("bind", "server", "default-server", "default_backend", "mode", "crt-base", "ca-base"),
        reasons.UNUSED),
}  # fmt: skip
"""Keyword -> what to do instead."""
PARAMETERS = {
    **dict.fromkeys(("ciphers", "ciphersuites", "curves", "ecdhe", "ssl-min-ver", "ssl-max-ver", "tls-ticket-keys",
        "prefer-client-ciphers", "no-sslv3", "no-tlsv10", "no-tlsv11", "no-tlsv12", "no-tlsv13", "force-sslv3",
        "force-tlsv10", "force-tlsv11", "force-tlsv12", "force-tlsv13", "no-tls-tickets", "tls-tickets"),
        reasons.PROFILES),
    **dict.fromkeys(("check", "inter", "fastinter", "downinter", "fall", "rise", "observe", "on-error", "port", "addr",
        "check-ssl", "check-sni", "check-alpn", "check-send-proxy", "agent-check"), _WATCHED),
    "weight": reasons.IN_ORDER,
    "alpn": "the gateway offers no ALPN; clients of these protocols do not need it",
    "sni": reasons.BACKEND_NAME,
    **dict.fromkeys(("verify", "ca-file"), reasons.UNCHECKED),
    **dict.fromkeys(("crt-list", "strict-sni"), "the gateway chooses by the names in the certificates"),
    **dict.fromkeys(("user", "group", "uid", "gid", "mode"), "the unix: socket belongs to the gateway's user"),
    "maxconn": ELSEWHERE["maxconn"],
    "verifyhost": reasons.UNUSED,
}  # fmt: skip
"""The same for what follows the address in a bind or server line."""
FLAGS = frozenset(re.split(" ",
    "accept-proxy allow-0rtt defer-accept force-sslv3 force-tlsv10 force-tlsv11 force-tlsv12 force-tlsv13"
    " generate-certificates no-ca-names no-sslv3 no-tls-tickets no-tlsv10 no-tlsv11 no-tlsv12 no-tlsv13"
    " prefer-client-ciphers quic-force-retry ssl strict-sni tfo transparent v4v6 v6only"
    " agent-check backup check check-send-proxy check-ssl check-via-socks4 disabled enabled no-agent-check no-backup"
    " no-check no-check-ssl no-send-proxy no-send-proxy-v2 no-send-proxy-v2-ssl no-send-proxy-v2-ssl-cn no-ssl"
    " no-ssl-reuse no-verifyhost no-tfo non-stick send-proxy send-proxy-v2 send-proxy-v2-ssl send-proxy-v2-ssl-cn"
    " ssl-reuse stick tls-tickets"
))  # fmt: skip
"""What stands alone in a bind or server line; others have a value."""
_VALUED = PARAMETERS.keys() | {"crt"}


@dataclass
class Part:
    """One section: its kind, its name, the defaults that hold for it, its lines."""

    kind: str
    name: str
    line: int
    lines: Lines = field(default_factory=Lines)
    used: bool = False

    @property
    def title(self) -> str:
        return f"{self.kind} {self.name}".rstrip()


def parse(text: str) -> list[Part]:
    """Raises Unreadable."""
    parts: list[Part] = []
    defaults: dict[str, Lines] = {}
    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as wrong:
            raise Unreadable(f"line {number}: {wrong}; is this a haproxy.cfg?") from None
        if not words:
            continue
        if words[0] in SECTIONS and not line[:1].isspace():
            part = Part(words[0], words[1] if len(words) > 1 else "", number)
            # The last defaults hold, or those that are named: frontend NAME from DEFAULTS.
            named = words[words.index("from") + 1] if "from" in words[1:-1] else ""
            part.lines.outer = defaults.get(named) if named or part.kind != "defaults" else None
            parts.append(part)
            if part.kind == "defaults":
                defaults[""] = defaults[part.name] = part.lines
        elif parts:
            # Each timeout is an option of its own.
            many = 2 if words[0] == "timeout" else 1
            parts[-1].lines.own.append(Line(number, " ".join(words), " ".join(words[:many]), words[many:]))
        else:
            raise Unreadable(f"line {number}: {words[0]!r} stands before the first section; is this a haproxy.cfg?")
    return parts


def read(text: str) -> Carried:
    """Raises Unreadable."""
    carried = Carried()
    parts = parse(text)
    files = Lines([line for part in parts if part.kind == "global" for line in part.lines.own])
    carried.sessions(files.find("maxconn"))
    backends = {part.name: part for part in parts if part.kind in ("backend", "listen")}
    for part in parts:
        if part.kind in ("frontend", "listen"):
            if why := _Frontend(carried, part, files, backends).read():
                carried.remark(part.line, part.title, why)
            else:
                part.used = True
    for part in parts:
        if part.used or part.kind in ("global", "defaults"):
            for line in (one for one in part.lines.own if one.name == "timeout connect"):
                carried.connect(line, "ms")
            carried.leave(part.lines.own, ELSEWHERE)
        elif part.kind == "backend":
            carried.remark(part.line, part.title, reasons.UNUSED)
        elif part.kind not in ("frontend", "listen"):
            carried.remark(part.line, part.title, reasons.NOTHING)
    return carried


class _Frontend:
    def __init__(self, carried: Carried, part: Part, files: Lines, backends: dict[str, Part]) -> None:
        self._carried = carried
        self._part = part
        self._files = files
        self._backends = backends
        self._common = Lines()
        """What default-server says for all servers."""

    def read(self) -> str:
        """Carries it over, or tells why not."""
        part = self._part
        if part.lines.take("mode", "tcp") != "tcp":
            return "mode http stays with HAProxy"
        if part.lines.all("disabled"):
            return "it is disabled"
        binds = [(line, _parameters(line, 1)) for line in part.lines.all("bind")]
        found = Found(part.name, part.line)
        for line, settings in binds:
            if not line.words:
                raise Unreadable(f"line {line.number}: bind has no address")
            places = [_place(one) for one in line.words[0].split(",")]
            (found.implicit if settings.all("ssl") else found.starttls).extend(places)
        there = self._backends.get(part.lines.look("default_backend", part.name if part.kind == "listen" else ""))
        servers = [] if there is None else self._servers(there)
        found.backend = [_place(line.words[1]) for line, _ in servers]
        found.protocol = protocol_of(part.name, [*found.implicit, *found.starttls, *found.backend])
        if not binds:
            return "it listens nowhere"
        if there is not None and there.lines.all("disabled"):
            return f"{there.title} is disabled"
        if there is None or not servers:
            return "it has no server, or chooses by rules"
        if not found.protocol:
            return "the gateway does not know its protocol"
        if found.starttls:
            found.options["policy"] = "optional"
            why = "HAProxy passes plaintext; the gateway also offers STARTTLS there. required is safer"
            self._carried.remark(part.line, part.title, why)
        there.used = True
        if there.lines.look("mode") == "tcp":
            there.lines.take("mode")
        part.lines.take("default_backend")
        for line, settings in binds:
            line.take()
            self._bind(found, settings)
        self._towards(found, servers)
        for settings in (self._common, *(one for _, one in (*binds, *servers))):
            self._carried.leave(settings.own, PARAMETERS)
        self._carried.services.append(found)
        return ""

    def _servers(self, there: Part) -> list[tuple[Line, Lines]]:
        """Those that are in use, and those for an emergency last."""
        for lines in (there.lines.outer or Lines(), there.lines):
            for line in (one for one in lines.own if one.name == "default-server"):
                line.taken = True
                self._common.own += _parameters(line, 0).own
        usual: list[tuple[Line, Lines]] = []
        spare: list[tuple[Line, Lines]] = []
        for line in there.lines.all("server"):
            if len(line.words) < 2:
                raise Unreadable(f"line {line.number}: server has no name and address")
            settings = _parameters(line, 2)
            settings.outer = self._common
            if _on(settings, "disabled"):
                self._carried.refuse(line, "it is disabled")
            else:
                (spare if _on(settings, "backup") else usual).append((line, settings))
        return [*usual, *spare]

    def _file(self, base: str, name: str) -> str:
        directory = "" if name.startswith("/") else self._files.take(base)
        return f"{directory.rstrip('/')}/{name}" if directory else name

    def _bind(self, found: Found, settings: Lines) -> None:
        settings.take("ssl")
        files = [self._file("crt-base", line.take()) for line in settings.all("crt")]
        if known := found.options.get("certificate"):
            files = [known, *files]
        if files:
            found.options["certificate"] = " ".join(dict.fromkeys(" ".join(files).split()))
        if (least := settings.find("ssl-min-ver")) is not None:
            if least.word in VERSIONS:
                self._carried.once(found.options, "profile", VERSIONS[least.word], least)
            else:
                self._carried.refuse(least, reasons.OLD_TLS)
        verify, issuers = settings.find("verify"), settings.find("ca-file")
        if verify is not None and issuers is not None and verify.word in ("required", "optional"):
            wanted = "require" if verify.word == "required" else "request"
            self._carried.once(found.options, "client_certificate", wanted, verify)
            self._carried.once(found.options, "client_ca", self._file("ca-base", issuers.word), issuers)
        for line in settings.all("accept-proxy"):
            self._carried.refuse(line, _ACCEPT_PROXY)

    def _towards(self, found: Found, servers: list[tuple[Line, Lines]]) -> None:
        """The way to the first server is the way to all."""
        for line, settings in servers:
            towards: dict[str, str] = {}
            if _on(settings, "ssl"):
                towards["tls"] = "implicit"
                if settings.look("verify") == "none":
                    settings.take("verify")
                    towards["verify"] = "no"
                else:
                    if issuers := settings.take("ca-file"):
                        settings.take("verify")
                        towards["ca"] = self._file("ca-base", issuers)
                    if name := settings.take("verifyhost"):
                        towards["name"] = name
            second = [_on(settings, f"send-proxy-v2{kind}") for kind in ("", "-ssl", "-ssl-cn")]
            if _on(settings, "send-proxy"):
                towards["identity"] = "proxy-v1"
            elif any(second):
                towards["identity"] = "proxy-v2"
            line.taken = True
            if line is servers[0][0]:
                found.towards = towards
            elif towards != found.towards:
                why = "the gateway reaches all servers of a backend like the first; write a service for this one"
                self._carried.refuse(line, why)


def _parameters(line: Line, begin: int) -> Lines:
    """What stands in a line behind so many words."""
    words = line.words[begin:]
    found: list[Line] = []
    while words:
        name = words.pop(0)
        # A word that is not known here stands alone if a known one follows.
        alone = name in FLAGS or not words or (name not in _VALUED and words[0] in FLAGS | _VALUED)
        values = [] if alone else [words.pop(0)]
        found.append(Line(line.number, " ".join((name, *values)), name, values))
    return Lines(found)


def _on(settings: Lines, name: str) -> bool:
    """Whether this word is there, and its own line does not take it back."""
    found = settings.all(name)
    against = [line for line in settings.own if found and line.name == f"no-{name}"]
    for line in (*against, *found):
        line.taken = True
    return bool(found) and not against


def _place(text: str) -> str:
    """The same, or with a family before it: `ipv4@10.0.0.1:993`, `unix@/path`.  A path may have a `@`, too."""
    kind, at, rest = text.partition("@")
    if not at or "/" in kind:
        return place(text)
    return f"unix:{rest}" if kind == "unix" else place(rest)
