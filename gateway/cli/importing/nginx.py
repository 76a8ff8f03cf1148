"""nginx.conf: the `mail` module (ngx_mail_core_module and others), and TLS servers of the `stream` module."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ...dialects import DIALECTS
from .carried import NOTHING, Carried, Found, Unreadable, address, protocol_of

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|([{};])|"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|((?:[^\s;{}"'#\\]|\\.)[^\s;{}]*)"""
)
_CAPABILITIES = "not needed: clients get the backend's own list"
ELSEWHERE = {
    "auth_http": "not needed: the backend checks the passwords; write its address in backend",
    **dict.fromkeys(("auth_http_header", "auth_http_timeout", "auth_http_pass_client_cert"), "not needed"),
    **dict.fromkeys(("imap_capabilities", "pop3_capabilities", "smtp_capabilities"), _CAPABILITIES),
    **dict.fromkeys(("imap_auth", "pop3_auth", "smtp_auth"), _CAPABILITIES),
    **dict.fromkeys(("smtp_greeting_delay", "smtp_client_buffer", "imap_client_buffer", "proxy_buffer", "resolver",
        "resolver_timeout", "max_errors", "proxy_pass_error_message", "proxy_smtp_auth", "error_log", "access_log",
        "log_format", "preread_timeout", "proxy_buffer_size", "tcp_nodelay", "ssl_preread"), NOTHING),
    **dict.fromkeys(("timeout", "proxy_timeout"), "the gateway has the times of each protocol's RFC"),
    **dict.fromkeys(("ssl_ciphers", "ssl_prefer_server_ciphers", "ssl_ecdh_curve", "ssl_dhparam", "ssl_conf_command",
        "ssl_session_cache", "ssl_session_timeout", "ssl_session_tickets", "ssl_session_ticket_key",
        "ssl_password_file"), "profile chooses ciphers and groups (docs/tls.md)"),
    "include": "read this file, too, and import it",
}  # fmt: skip
"""Directive -> what to do instead."""
WEB = "http"
"""The section of nginx for web servers."""
KNOWN = {
    *("listen", "protocol", "starttls", "ssl", "ssl_certificate", "ssl_certificate_key", "ssl_protocols"),
    *("ssl_verify_client", "ssl_client_certificate", "xclient", "proxy_protocol", "set_real_ip_from", "server_name"),
    *("proxy_pass", "proxy_ssl", "proxy_ssl_verify", "proxy_ssl_trusted_certificate", "proxy_ssl_name"),
    *("proxy_connect_timeout", "proxy"),
}


@dataclass
class Directive:
    """`name words;` or `name words { ... }`."""

    name: str
    words: list[str]
    line: int
    inside: list[Directive] = field(default_factory=list)
    block: bool = False


def _tokens(text: str) -> Iterator[tuple[int, str, bool]]:
    """Line, token, whether it is one of { } ;"""
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        line = text.count("\n", 0, place) + 1
        if match is None:
            raise Unreadable(f"line {line}: cannot read {text[place : place + 20]!r}; is this an nginx.conf?")
        place = match.end()
        if match[1]:
            yield line, match[1], True
        elif (word := next((one for one in match.groups()[1:] if one is not None), None)) is not None:
            yield line, word, False


def parse(text: str) -> list[Directive]:
    """The directives of the file.  Raises Unreadable."""
    stack: list[list[Directive]] = [[]]
    words: list[str] = []
    begin = 0
    for line, token, sign in _tokens(text):
        if not sign:
            begin = begin if words else line
            words.append(token)
        elif token == "}":
            if words or len(stack) == 1:
                raise Unreadable(f"line {line}: this }} closes nothing, or a ; is missing before it")
            stack.pop()
        elif not words:
            raise Unreadable(f"line {line}: there is no directive before {token}")
        else:
            directive = Directive(words[0], words[1:], begin, block=token == "{")
            stack[-1].append(directive)
            if token == "{":
                stack.append(directive.inside)
            words = []
    if words or len(stack) > 1:
        raise Unreadable("the file ends in the middle of a directive; is it complete?")
    return stack[0]


def read(text: str, backend: str = "") -> Carried:
    """`backend`: the host of the servers, which this file does not name.  Raises Unreadable."""
    carried = Carried()
    for top in parse(text):
        if top.name in ("mail", "stream"):
            upstreams = {one.words[0]: one for one in top.inside if one.name == "upstream" and one.words}
            outer = [one for one in top.inside if not one.block]
            for server in (one for one in top.inside if one.name == "server"):
                _Server(carried, top.name, [*outer, *server.inside], server, upstreams, backend).read()
            for one in outer:
                _other(carried, one)
        elif top.name == WEB:
            carried.remark(top.line, f"{WEB} {{ ... }}", "stays with nginx")
        elif top.name == "include":
            _other(carried, top)
    return carried


def _other(carried: Carried, one: Directive) -> None:
    if one.name not in KNOWN and not one.block:
        why = ELSEWHERE.get(one.name, NOTHING)
        carried.remark(one.line, " ".join((one.name, *one.words)), why)


class _Server:
    def __init__(
        self,
        carried: Carried,
        module: str,
        directives: list[Directive],
        server: Directive,
        upstreams: dict[str, Directive],
        backend: str,
    ) -> None:
        self._carried = carried
        self._module = module
        self._directives = directives
        self._server = server
        self._upstreams = upstreams
        self._backend = backend

    def _all(self, name: str) -> list[Directive]:
        """Those of the server, or else those around it."""
        own = [one for one in self._server.inside if one.name == name]
        return own or [one for one in self._directives if one.name == name]

    def _word(self, name: str, default: str = "") -> str:
        found = self._all(name)
        return found[-1].words[0] if found and found[-1].words else default

    def read(self) -> None:
        found = Found("", self._server.line)
        secure = self._word("ssl") == "on"
        starttls = self._word("starttls", "off")
        plain = False
        for listen in self._all("listen"):
            if not listen.words:
                raise Unreadable(f"line {listen.line}: listen has no address")
            place, *flags = listen.words
            where = _place(place)
            if "proxy_protocol" in flags:
                found.options["accept_proxy"] = " ".join(one.words[0] for one in self._all("set_real_ip_from"))
                if not found.options["accept_proxy"]:
                    del found.options["accept_proxy"]
                    self._carried.remark(listen.line, "proxy_protocol", "name the load balancer in accept_proxy")
            if secure or "ssl" in flags:
                found.implicit.append(where)
            else:
                found.starttls.append(where)
                plain = plain or starttls == "off"
        found.protocol = self._word("protocol") or protocol_of("", [*found.starttls, *found.implicit])
        if self._module == "stream" and found.starttls and not found.implicit:
            return self._carried.remark(self._server.line, "server without ssl", "it only forwards; leave it to nginx")
        if found.protocol not in DIALECTS:
            return self._carried.remark(self._server.line, "server", "its protocol is not known; add protocol")
        found.name = found.protocol
        if found.starttls:
            found.options["policy"] = "required" if starttls == "only" else "optional"
        if plain:
            self._carried.remark(
                self._server.line, "server without starttls", "the gateway offers STARTTLS there; required is safer"
            )
        self._tls(found)
        self._towards(found)
        for one in self._server.inside:
            _other(self._carried, one)
        if name := self._word("server_name"):
            self._carried.gateway.setdefault("hostname", name)
        if seconds := self._word("proxy_connect_timeout"):
            self._carried.timeouts["connect"] = seconds if re.search(r"[a-z]$", seconds) else f"{seconds} s"
        self._carried.services.append(found)
        return None

    def _tls(self, found: Found) -> None:
        for ours, theirs in (("certificate", "ssl_certificate"), ("key", "ssl_certificate_key")):
            if files := [one.words[0] for one in self._all(theirs) if one.words]:
                found.options[ours] = " ".join(files)
        verify = self._word("ssl_verify_client", "off")
        if verify in ("on", "optional") and (issuers := self._word("ssl_client_certificate")):
            found.options["client_certificate"] = "require" if verify == "on" else "request"
            found.options["client_ca"] = issuers
        for one in self._all("ssl_protocols"):
            if {"TLSv1", "TLSv1.1", "SSLv3", "SSLv2"} & set(one.words):
                cure = "write profile = legacy, and in legacy_clients the addresses that need it"
                self._carried.remark(one.line, " ".join((one.name, *one.words)), cure)
            elif one.words == ["TLSv1.3"]:
                found.options["profile"] = "modern"

    def _towards(self, found: Found) -> None:
        if self._module == "mail":
            # nginx learns the address from auth_http.
            dialect = DIALECTS[found.protocol]
            port = 0 if dialect.probing is None else dialect.probing.port
            if not self._backend:
                why = "auth_http told nginx the backend; write its address there, or use --backend HOST"
                self._carried.remark(self._server.line, f"backend of {found.protocol}", why)
            found.backend = [address(self._backend or "backend.invalid", str(port))]
            if dialect.relays and self._word("xclient", "on") == "on":
                found.towards["identity"] = "xclient"
        else:
            there = self._word("proxy_pass")
            upstream = self._upstreams.get(there)
            found.backend = (
                [_place(there)]
                if upstream is None
                else [_place(one.words[0]) for one in upstream.inside if one.name == "server" and one.words]
            )
            if self._word("proxy_ssl") == "on":
                found.towards["tls"] = "implicit"
                if self._word("proxy_ssl_verify") != "on":
                    found.towards["verify"] = "no"
                elif issuers := self._word("proxy_ssl_trusted_certificate"):
                    found.towards["ca"] = issuers
        if self._word("proxy_protocol") == "on":
            found.towards["identity"] = "proxy-v1"


def _place(text: str) -> str:
    if text.startswith("unix:"):
        return text
    host, _, port = text.rpartition(":")
    return address(host.strip("[]"), port)
