"""nginx.conf: the `mail` module (ngx_mail_core_module and others), and TLS servers of the `stream` module."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import field

from ...dialects import DIALECTS
from ...records import dataclass
from . import reasons
from .carried import Carried, Found, Line, Lines, Unreadable, address, place, protocol_of

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|([{};])|"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|((?:[^\s;{}"'#\\]|\\.)[^\s;{}]*)"""
)
_CAPABILITIES = "not needed: clients get the backend's own list"
WEB = "http"
"""The section of nginx for web servers."""
PLACEHOLDER = "backend.invalid"
ELSEWHERE = {
    "auth_http": "not needed: the backend checks the passwords; write its address in backend",
    **dict.fromkeys(("auth_http_header", "auth_http_timeout", "auth_http_pass_client_cert"),
        "not needed without auth_http"),
    **dict.fromkeys(("imap_capabilities", "pop3_capabilities", "smtp_capabilities"), _CAPABILITIES),
    **dict.fromkeys(("imap_auth", "pop3_auth", "smtp_auth"), _CAPABILITIES),
    **dict.fromkeys(("timeout", "proxy_timeout", "preread_timeout", "proxy_protocol_timeout", "ssl_handshake_timeout",
        "proxy_next_upstream_timeout"), reasons.TIMES),
    **dict.fromkeys(("ssl_ciphers", "ssl_prefer_server_ciphers", "ssl_ecdh_curve", "ssl_dhparam", "ssl_conf_command",
        "ssl_session_cache", "ssl_session_timeout", "ssl_session_tickets", "ssl_session_ticket_key", "ssl_protocols",
        "proxy_ssl_protocols", "proxy_ssl_ciphers", "proxy_ssl_conf_command"), reasons.PROFILES),
    **dict.fromkeys(("ssl_password_file", "proxy_ssl_password_file"), "a key must have no passphrase"),
    **dict.fromkeys(("allow", "deny", "limit_conn", "limit_conn_zone"), reasons.RULES),
    **dict.fromkeys(("hash", "least_conn", "least_time", "random", "proxy_next_upstream", "proxy_next_upstream_tries"),
        reasons.IN_ORDER),
    **dict.fromkeys(("error_log", "access_log", "log_format", "user", "pid", "daemon", "master_process", "env",
        "worker_rlimit_nofile", "worker_rlimit_core", "worker_priority", "working_directory", "lock_file"),
        reasons.SYSTEM),
    **dict.fromkeys(("worker_processes", "worker_cpu_affinity", "events"), reasons.PROCESSES),
    "load_module": "the gateway has no modules",
    "ssl_trusted_certificate": "put these issuers into the file of client_ca, too",
    **dict.fromkeys(("ssl_verify_client", "ssl_client_certificate", "ssl_verify_depth"), reasons.UNCHECKED),
    **dict.fromkeys(("proxy_ssl_verify", "proxy_ssl_trusted_certificate", "proxy_ssl_name", "proxy_ssl_verify_depth"),
        reasons.UNCHECKED),
    "proxy_ssl_server_name": reasons.BACKEND_NAME,
    "set_real_ip_from": "only with proxy_protocol in listen, where it becomes accept_proxy",
    "xclient": "nginx uses it with SMTP only",
    **dict.fromkeys(("proxy_protocol", "proxy_ssl", "ssl", "starttls"), "it is off in the gateway, too"),
    **dict.fromkeys(("listen", "protocol", "ssl_certificate", "ssl_certificate_key", "server_name", "proxy_pass",
        "proxy_connect_timeout", "upstream"), reasons.UNUSED),
    "include": "read this file, too, and import it",
    WEB: "stays with nginx",
}  # fmt: skip
"""Directive -> what to do instead."""
PARAMETERS = {"weight": reasons.IN_ORDER, "proxy_protocol": "name the load balancer in accept_proxy"}
"""The same for what follows an address in `listen`, and in `server` of an upstream."""
_VERSIONS = {"TLSv1.2", "TLSv1.3"}


@dataclass(eq=False, slots=True)
class Directive(Line):
    """`name words;` or `name words { ... }`."""

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
            text = " ".join((*words, *(["{ ... }"] if token == "{" else [])))
            directive = Directive(begin, text, words[0], words[1:], block=token == "{")
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
        if top.name not in ("mail", "stream"):
            carried.leave([top], ELSEWHERE)
            continue
        upstreams = {one.word: one for one in top.inside if one.name == "upstream"}
        outer = Lines([one for one in top.inside if not one.block])
        for server in (one for one in top.inside if one.name == "server"):
            service = _Server(carried, top.name, server, Lines([*server.inside], outer), upstreams, backend)
            if why := service.read():
                carried.refuse(server, why)
            else:
                server.taken = True
                carried.leave(server.inside, ELSEWHERE)
        carried.leave(top.inside, ELSEWHERE)
    return carried


class _Server:
    def __init__(
        self,
        carried: Carried,
        module: str,
        server: Directive,
        lines: Lines,
        upstreams: dict[str, Directive],
        backend: str,
    ) -> None:
        self._carried = carried
        self._module = module
        self._server = server
        self._lines = lines
        self._upstreams = upstreams
        self._backend = backend

    def read(self) -> str:
        """Carries it over, or tells why not."""
        lines = self._lines
        found = Found("", self._server.number)
        secure = lines.look("ssl") == "on"
        starttls = lines.look("starttls", "off")
        listens = lines.all("listen")
        for listen in listens:
            if not listen.words:
                raise Unreadable(f"line {listen.number}: listen has no address")
            implicit = secure or "ssl" in listen.words
            (found.implicit if implicit else found.starttls).append(place(listen.word))
        found.protocol = lines.look("protocol") or protocol_of("", [*found.starttls, *found.implicit])
        if self._module == "stream" and not found.implicit:
            return "it has no ssl and only forwards; leave it to nginx"
        if found.protocol not in DIALECTS:
            return "its protocol is not known; add protocol"
        found.name = found.protocol
        lines.take("protocol")
        if secure:
            lines.take("ssl")
        if found.starttls:
            found.options["policy"] = "required" if starttls == "only" else "optional"
            lines.take("starttls")
            if starttls == "off":
                why = "the gateway offers STARTTLS there, nginx does not; required is safer"
                self._carried.remark((lines.find("starttls") or self._server).number, "starttls off", why)
        for listen in listens:
            self._listen(found, listen)
        self._tls(found)
        if self._module == "mail":
            self._asked(found)
        else:
            self._passed(found)
        if lines.look("proxy_protocol") == "on":
            lines.take("proxy_protocol")
            found.towards["identity"] = "proxy-v1"
        if self._module == "mail" and (name := lines.find("server_name")) is not None:
            self._carried.once(self._carried.gateway, "hostname", name.word, name)
        self._carried.connect(lines.find("proxy_connect_timeout"), "s")
        self._carried.services.append(found)
        return ""

    def _listen(self, found: Found, listen: Line) -> None:
        listen.taken = True
        for flag in listen.words[1:]:
            balancers = self._lines.all("set_real_ip_from") if flag == "proxy_protocol" else []
            if balancers:
                found.options["accept_proxy"] = " ".join(one.take() for one in balancers)
            elif flag != "ssl":
                self._carried.remark(listen.number, f"{listen.text}: {flag}", _reason(flag))

    def _tls(self, found: Found) -> None:
        lines = self._lines
        for ours, theirs in (("certificate", "ssl_certificate"), ("key", "ssl_certificate_key")):
            if files := [one.take() for one in lines.all(theirs) if one.words]:
                found.options[ours] = " ".join(files)
        verify = lines.look("ssl_verify_client")
        if verify in ("on", "optional") and (issuers := lines.take("ssl_client_certificate")):
            lines.take("ssl_verify_client")
            found.options["client_certificate"] = "require" if verify == "on" else "request"
            found.options["client_ca"] = issuers
        for one in lines.all("ssl_protocols"):
            if set(one.words) - _VERSIONS:
                self._carried.refuse(one, reasons.OLD_TLS)
            elif one.words:
                found.options["profile"] = "intermediate" if "TLSv1.2" in one.words else "modern"
                one.taken = True

    def _asked(self, found: Found) -> None:
        """The backend of a mail server: nginx learns its address from auth_http."""
        dialect = DIALECTS[found.protocol]
        port = 0 if dialect.probing is None else dialect.probing.port
        found.backend = [address(self._backend or PLACEHOLDER, str(port))]
        why = (
            f"auth_http told nginx the port; {port} is the usual one. Correct it if the backend has another"
            if self._backend
            else "auth_http told nginx the backend; write its address and port there, or use --backend HOST"
        )
        self._carried.remark(self._server.number, f"backend = {found.backend[0]}", why)
        if dialect.relays and self._lines.take("xclient", "on") == "on":
            found.towards["identity"] = "xclient"

    def _passed(self, found: Found) -> None:
        """The backend of a stream."""
        lines = self._lines
        there = lines.take("proxy_pass")
        upstream = self._upstreams.get(there)
        if upstream is None:
            found.backend = [place(there)]
        else:
            upstream.taken = True
            spare = [one for one in upstream.inside if "backup" in one.words]
            for one in (*(one for one in upstream.inside if one not in spare), *spare):
                self._balanced(found, one)
            self._carried.leave(upstream.inside, ELSEWHERE)
        if lines.look("proxy_ssl") == "on":
            lines.take("proxy_ssl")
            found.towards["tls"] = "implicit"
            if lines.look("proxy_ssl_verify") != "on":
                found.towards["verify"] = "no"
            else:
                lines.take("proxy_ssl_verify")
                for ours, theirs in (("ca", "proxy_ssl_trusted_certificate"), ("name", "proxy_ssl_name")):
                    if value := lines.take(theirs):
                        found.towards[ours] = value

    def _balanced(self, found: Found, one: Line) -> None:
        """A line of an upstream."""
        if "down" in one.words:
            self._carried.refuse(one, "it is down")
        elif one.name == "server" and one.words:
            found.backend.append(place(one.take()))
            for flag in one.words[1:]:
                if flag != "backup":
                    self._carried.remark(one.number, f"{one.text}: {flag}", _reason(flag))


def _reason(flag: str) -> str:
    return PARAMETERS.get(flag.partition("=")[0], reasons.NOTHING)
