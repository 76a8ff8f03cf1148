"""stunnel.conf (stunnel(8)): sections, `option = value`, options before the first section are for all."""

from __future__ import annotations

import re

from .carried import NOTHING, Carried, Found, Unreadable, address, protocol_of

_OPTION = re.compile(r"\s*([A-Za-z][\w.]*)\s*=\s*(.*?)\s*$")
_SECTION = re.compile(r"\s*\[(.+)\]\s*$")
_PROTOCOLS = {"smtp": "smtp", "imap": "imap", "pop3": "pop3", "pgsql": "postgresql", "nntp": "nntp", "ldap": "ldap"}
_OLD = ("SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "all")

ELSEWHERE = {
    **dict.fromkeys(("setuid", "setgid"), "write User= in the unit, or use --uid and --gid (docs/operation.md)"),
    "chroot": "use twistd --chroot, or the protection of the systemd unit",
    **dict.fromkeys(("pid", "foreground", "output", "debug", "log", "syslog", "service"),
        "the log and the pidfile belong to twistd or systemd (docs/operation.md)"),
    **dict.fromkeys(("TIMEOUTidle", "TIMEOUTbusy", "TIMEOUTclose"), "the gateway has the times of each protocol's RFC"),
    **dict.fromkeys(("ciphers", "ciphersuites", "curves", "curve", "options", "securityLevel", "dh"),
        "profile chooses ciphers and groups (docs/tls.md)"),
    **dict.fromkeys(("sessionCacheSize", "sessionCacheTimeout", "ticketKeySecret", "ticketMacSecret", "renegotiation",
        "reset", "compression", "fips", "RNDbytes", "RNDfile", "RNDoverwrite", "EGD", "socket", "libwrap", "delay",
        "retry", "logId", "engine", "engineId", "engineCtrl", "include", "local", "transparent", "OCSP", "OCSPaia",
        "CRLfile", "CRLpath", "config"), NOTHING),
    "failover": "the gateway tries the addresses in their order",
}  # fmt: skip
"""Option -> what to do instead."""


def read(text: str) -> Carried:
    """Raises Unreadable."""
    carried = Carried()
    common: dict[str, list[tuple[int, str]]] = {}
    here = common
    sections: list[tuple[str, int, dict[str, list[tuple[int, str]]]]] = []
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith((";", "#")):
            continue
        if match := _SECTION.fullmatch(line):
            here = {}
            sections.append((match[1], number, here))
        elif match := _OPTION.fullmatch(line):
            here.setdefault(match[1], []).append((number, match[2]))
        else:
            raise Unreadable(f"line {number}: this is neither [SECTION] nor OPTION = VALUE; is this a stunnel.conf?")
    _global(carried, common)
    for name, number, own in sections:
        _Service(carried, name, number, {**common, **own}, own).read()
    return carried


def _global(carried: Carried, common: dict[str, list[tuple[int, str]]]) -> None:
    for option, values in common.items():
        if option in ELSEWHERE:
            for number, value in values:
                carried.remark(number, f"{option} = {value}", ELSEWHERE[option])
        elif option == "TIMEOUTconnect":
            carried.timeouts["connect"] = f"{values[-1][1]} s"


def place(text: str) -> str:
    """An address as stunnel writes it: a port alone is localhost's for `connect`."""
    if text.startswith("/"):
        return f"unix:{text}"
    host, _, port = text.rpartition(":")
    return address(host, port)


class _Service:
    """One section.  `options`: with those for all."""

    def __init__(
        self,
        carried: Carried,
        name: str,
        line: int,
        options: dict[str, list[tuple[int, str]]],
        own: dict[str, list[tuple[int, str]]],
    ) -> None:
        self._carried = carried
        self._name = name
        self._line = line
        self._options = options
        self._own = own

    def _last(self, option: str) -> str:
        return self._options[option][-1][1] if option in self._options else ""

    def _skip(self, why: str) -> None:
        self._carried.remark(self._line, f"[{self._name}]", why)

    def read(self) -> None:
        accept, connect = self._last("accept"), [value for _, value in self._options.get("connect", [])]
        kind = self._last("protocol")
        if self._last("client") == "yes":
            return self._skip("a TLS client; the gateway is the server's side. Its clients can use TLS themselves")
        if "exec" in self._options or not connect:
            return self._skip("it starts a program; the gateway forwards to servers only")
        if not accept:
            return self._skip("it listens nowhere")
        backend = [place(one if ":" in one or one.startswith("/") else f"127.0.0.1:{one}") for one in connect]
        listens = [place(accept)]
        protocol = _PROTOCOLS.get(kind) or protocol_of(self._name, [*listens, *backend])
        if not protocol or (kind and kind not in (*_PROTOCOLS, "proxy")):
            return self._skip("the gateway does not know its protocol" if not kind else f"protocol = {kind} is unknown")
        found = Found(self._name, self._line, protocol, backend=backend)
        if kind in _PROTOCOLS:
            found.starttls = listens
        else:
            found.implicit = listens
        if kind == "proxy":
            found.towards["identity"] = "proxy-v1"
        self._tls(found)
        self._others()
        self._carried.services.append(found)
        return None

    def _tls(self, found: Found) -> None:
        for ours, theirs in (("certificate", "cert"), ("key", "key")):
            if values := self._options.get(theirs):
                found.options[ours] = " ".join(value for _, value in values)
        verify = self._last("verify")
        if self._last("requireCert") == "yes" or verify in ("2", "3", "4"):
            found.options["client_certificate"] = "require"
        elif self._last("verifyChain") == "yes" or verify == "1":
            found.options["client_certificate"] = "request"
        if "client_certificate" in found.options:
            if file := self._last("CAfile"):
                found.options["client_ca"] = file
            else:
                del found.options["client_certificate"]
                self._carried.remark(self._line, "client certificates", "put the issuers into one file for client_ca")
        for option in ("sslVersion", "sslVersionMin"):
            for number, value in self._options.get(option, []):
                if value == "TLSv1.3":
                    found.options["profile"] = "modern"
                elif value in _OLD:
                    cure = "write profile = legacy, and in legacy_clients the addresses that need it"
                    self._carried.remark(number, f"{option} = {value}", cure)

    def _others(self) -> None:
        known = {"accept", "connect", "protocol", "client", "cert", "key", "verify", "requireCert", "verifyChain"}
        known |= {"CAfile", "sslVersion", "sslVersionMin"}
        for option, values in self._own.items():
            if option not in known:
                for number, value in values:
                    why = ELSEWHERE.get(option, NOTHING)
                    self._carried.remark(number, f"{option} = {value}", why)
