"""haproxy.cfg: `bind` lines with TLS in `frontend` and `listen`, in TCP mode."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from itertools import pairwise

from .carried import NOTHING, Carried, Found, Unreadable, address, protocol_of

SECTIONS = ("global", "defaults", "frontend", "backend", "listen", "peers", "resolvers", "userlist", "mailers",
            "program", "cache", "ring", "http-errors", "fcgi-app", "log-forward")  # fmt: skip
ELSEWHERE = {
    **dict.fromkeys(("user", "group", "uid", "gid", "chroot", "daemon", "pidfile", "log", "stats", "nbthread", "nbproc",
        "cpu-map", "ulimit-n"), "twistd or systemd does this (docs/operation.md)"),
    **dict.fromkeys(("ssl-default-bind-ciphers", "ssl-default-bind-ciphersuites", "ssl-default-bind-options",
        "tune.ssl.default-dh-param", "ssl-default-server-options"), "profile chooses ciphers and groups (docs/tls.md)"),
    "balance": "the gateway tries the addresses in their order",
    "maxconn": "[limits] sessions holds for all services together",
    **dict.fromkeys(("acl", "use_backend", "tcp-request", "tcp-response", "stick-table", "stick"),
        "there are no rules; [limits] and ban restrict clients"),
}  # fmt: skip
QUIET = {"mode", "bind", "server", "default_backend", "timeout", "crt-base", "ca-base"}


@dataclass
class Part:
    """One section: its kind, its name, its lines."""

    kind: str
    name: str
    line: int
    lines: list[tuple[int, list[str]]] = field(default_factory=list)

    def all(self, keyword: str) -> list[tuple[int, list[str]]]:
        return [(number, words[1:]) for number, words in self.lines if words[0] == keyword]

    def last(self, keyword: str, default: str = "") -> str:
        found = [words for _, words in self.all(keyword) if words]
        return found[-1][0] if found else default


def parse(text: str) -> list[Part]:
    """Raises Unreadable."""
    parts: list[Part] = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as wrong:
            raise Unreadable(f"line {number}: {wrong}; is this a haproxy.cfg?") from None
        if not words:
            continue
        if words[0] in SECTIONS and not line[:1].isspace():
            parts.append(Part(words[0], words[1] if len(words) > 1 else "", number))
        elif parts:
            parts[-1].lines.append((number, words))
        else:
            raise Unreadable(f"line {number}: {words[0]!r} stands before the first section; is this a haproxy.cfg?")
    return parts


def read(text: str) -> Carried:
    """Raises Unreadable."""
    carried = Carried()
    parts = parse(text)
    defaults = Part("defaults", "", 0)
    files = Part("global", "", 0)
    backends = {part.name: part for part in parts if part.kind in ("backend", "listen")}
    for part in parts:
        if part.kind == "defaults":
            defaults = part
        elif part.kind == "global":
            files = part
            if sessions := part.last("maxconn"):
                carried.limits["sessions"] = sessions
        if part.kind in ("global", "defaults"):
            _others(carried, part, {"maxconn"})
            for _, words in part.all("timeout"):
                if words[:1] == ["connect"] and len(words) > 1:
                    carried.timeouts["connect"] = _duration(words[1])
        elif part.kind in ("frontend", "listen"):
            _Frontend(carried, part, defaults, files, backends).read()
    return carried


def _duration(text: str) -> str:
    """HAProxy's times are milliseconds if no unit is written."""
    return text if text[-1:].isalpha() else f"{text} ms"


def _others(carried: Carried, part: Part, known: set[str]) -> None:
    for number, words in part.lines:
        if words[0] not in QUIET | known:
            carried.remark(number, " ".join(words), ELSEWHERE.get(words[0], NOTHING))


class _Frontend:
    def __init__(self, carried: Carried, part: Part, defaults: Part, files: Part, backends: dict[str, Part]) -> None:
        self._carried = carried
        self._part = part
        self._defaults = defaults
        self._files = files
        self._backends = backends

    def read(self) -> None:
        part = self._part
        if part.last("mode", self._defaults.last("mode", "tcp")) != "tcp":
            return self._carried.remark(part.line, f"{part.kind} {part.name}", "mode http stays with HAProxy")
        found = Found(part.name, part.line)
        for number, words in part.all("bind"):
            self._bind(found, number, words)
        name = part.last("default_backend", part.name if part.kind == "listen" else "")
        there = self._backends.get(name)
        for number, words in there.all("server") if there is not None else ():
            self._server(found, number, words)
        found.protocol = protocol_of(part.name, [*found.implicit, *found.starttls, *found.backend])
        if not found.implicit and not found.starttls:
            return self._carried.remark(part.line, f"{part.kind} {part.name}", "it listens nowhere")
        if not found.backend:
            return self._carried.remark(part.line, f"{part.kind} {part.name}", "it has no server, or chooses by rules")
        if not found.protocol:
            return self._carried.remark(part.line, f"{part.kind} {part.name}", "the gateway does not know its protocol")
        if found.starttls:
            found.options["policy"] = "optional"
            why = "HAProxy passes plaintext; the gateway also offers STARTTLS there. required is safer"
            self._carried.remark(part.line, f"{part.kind} {part.name}", why)
        _others(self._carried, part, set())
        if there is not None and there is not part:
            _others(self._carried, there, set())
        self._carried.services.append(found)
        return None

    def _file(self, base: str, name: str) -> str:
        directory = self._files.last(base)
        return name if name.startswith("/") or not directory else f"{directory.rstrip('/')}/{name}"

    def _bind(self, found: Found, number: int, words: list[str]) -> None:
        if not words:
            raise Unreadable(f"line {number}: bind has no address")
        places = [_place(one) for one in words[0].split(",")]
        (found.implicit if "ssl" in words else found.starttls).extend(places)
        certificates = [self._file("crt-base", value) for key, value in _pairs(words) if key == "crt"]
        if certificates:
            found.options["certificate"] = " ".join(certificates)
        settings = dict(_pairs(words))
        if "ssl-min-ver" in settings:
            if settings["ssl-min-ver"] in ("SSLv3", "TLSv1.0", "TLSv1.1"):
                cure = "write profile = legacy, and in legacy_clients the addresses that need it"
                self._carried.remark(number, f"ssl-min-ver {settings['ssl-min-ver']}", cure)
            elif settings["ssl-min-ver"] == "TLSv1.3":
                found.options["profile"] = "modern"
        if settings.get("verify") in ("required", "optional") and "ca-file" in settings:
            found.options["client_certificate"] = "require" if settings["verify"] == "required" else "request"
            found.options["client_ca"] = self._file("ca-base", settings["ca-file"])
        if "accept-proxy" in words:
            self._carried.remark(number, "accept-proxy", "name the load balancer's addresses in accept_proxy")
        if "ciphers" in settings:
            self._carried.remark(number, "ciphers", "profile chooses ciphers and groups (docs/tls.md)")

    def _server(self, found: Found, number: int, words: list[str]) -> None:
        if len(words) < 2:
            raise Unreadable(f"line {number}: server has no name and address")
        found.backend.append(_place(words[1]))
        settings = dict(_pairs(words[2:]))
        if "ssl" in words:
            found.towards["tls"] = "implicit"
            if settings.get("verify") == "none":
                found.towards["verify"] = "no"
            else:
                if "ca-file" in settings:
                    found.towards["ca"] = self._file("ca-base", settings["ca-file"])
                if "verifyhost" in settings:
                    found.towards["name"] = settings["verifyhost"]
        if "send-proxy" in words:
            found.towards["identity"] = "proxy-v1"
        elif any(one.startswith("send-proxy-v2") for one in words):
            found.towards["identity"] = "proxy-v2"


def _pairs(words: list[str]) -> list[tuple[str, str]]:
    """Each word with the one behind it: a keyword and its value."""
    return list(pairwise(words))


def _place(text: str) -> str:
    """`*:993`, `:993`, `:::993`, `ipv4@10.0.0.1:993`, `unix@/path`, `/path`."""
    kind, at, rest = text.partition("@")
    plain = rest if at else text
    if kind == "unix" or plain.startswith("/"):
        return f"unix:{plain}"
    host, _, port = plain.rpartition(":")
    return address(host.strip("[]"), port)
