"""stunnel.conf (stunnel(8)): sections, `option = value`, options before the first section are for all."""

from __future__ import annotations

import re

from . import reasons
from .carried import VERSIONS, Carried, Found, Line, Lines, Unreadable, place, protocol_of

_OPTION = re.compile(r"\s*([A-Za-z][\w.]*)\s*=\s*(.*?)\s*$")
_SECTION = re.compile(r"\s*\[(.+)\]\s*$")
_PROTOCOLS = {"smtp": "smtp", "imap": "imap", "pop3": "pop3", "pgsql": "postgresql", "nntp": "nntp", "ldap": "ldap"}
_OLD = ("SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "all")
_CLIENTS = "clients are not asked for a certificate"

# Names are in lower case: stunnel takes them in any.
ELSEWHERE = {
    **dict.fromkeys(("setuid", "setgid"), "write User= in the unit, or use --uid and --gid (docs/operation.md)"),
    "chroot": "use twistd --chroot, or the protection of the systemd unit",
    **dict.fromkeys(("pid", "foreground", "output", "debug", "log", "logid", "syslog", "service"), reasons.SYSTEM),
    **dict.fromkeys(("timeoutidle", "timeoutbusy", "timeoutclose"), reasons.TIMES),
    **dict.fromkeys(("ciphers", "ciphersuites", "curves", "curve", "options", "securitylevel", "dh", "sslversion",
        "sslversionmin", "sslversionmax", "config", "renegotiation", "compression", "fips"), reasons.PROFILES),
    "failover": reasons.IN_ORDER,
    "client": "the gateway is always the server's side of TLS",
    **dict.fromkeys(("verify", "requirecert", "verifychain", "cafile"), _CLIENTS),
    **dict.fromkeys(("capath", "crlpath"), "client_ca is one file with the issuers"),
    "verifypeer": "the gateway accepts each certificate of the issuers in client_ca",
    **dict.fromkeys(("checkhost", "checkemail", "checkip"), "the gateway accepts each name in a client's certificate"),
    "sni": "list its certificate in certificate of the other service; the gateway chooses by the names in it",
    "include": "read these files, too, and import them",
    **dict.fromkeys(("cert", "key", "timeoutconnect", "accept", "connect", "protocol"), reasons.UNUSED),
}  # fmt: skip
"""Option -> what to do instead."""


def read(text: str) -> Carried:
    """Raises Unreadable."""
    carried = Carried()
    common = Lines()
    here = common
    sections: list[tuple[str, int, Lines]] = []
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith((";", "#")):
            continue
        if match := _SECTION.fullmatch(line):
            here = Lines(outer=common)
            sections.append((match[1], number, here))
        elif match := _OPTION.fullmatch(line):
            here.own.append(Line(number, f"{match[1]} = {match[2]}", match[1].lower(), [match[2]]))
        else:
            raise Unreadable(f"line {number}: this is neither [SECTION] nor OPTION = VALUE; is this a stunnel.conf?")
    for name, number, options in sections:
        if why := _service(carried, name, number, options):
            carried.remark(number, f"[{name}]", why)
        else:
            carried.leave(options.own, ELSEWHERE)
    carried.leave(common.own, ELSEWHERE)
    return carried


def _service(carried: Carried, name: str, line: int, options: Lines) -> str:
    """One section is carried over, or why not."""
    accept, connect = options.look("accept"), options.all("connect")
    kind = options.look("protocol")
    if options.look("client") == "yes":
        return "a TLS client; the gateway is the server's side. Its clients can use TLS themselves"
    if options.all("exec") or not connect:
        return "it starts a program; the gateway forwards to servers only"
    if not accept:
        return ELSEWHERE["sni"] if options.all("sni") else "it listens nowhere"
    places = [one.word for one in connect]
    # A port alone is localhost's.
    backend = [place(one if ":" in one or one.startswith("/") else f"127.0.0.1:{one}") for one in places]
    listens = [place(accept)]
    protocol = _PROTOCOLS.get(kind) or protocol_of(name, [*listens, *backend])
    if not protocol or (kind and kind not in (*_PROTOCOLS, "proxy")):
        return "the gateway does not know its protocol" if not kind else f"protocol = {kind} is unknown"
    found = Found(name, line, protocol, backend=backend)
    if kind in _PROTOCOLS:
        found.starttls = listens
    else:
        found.implicit = listens
    if kind == "proxy":
        found.towards["identity"] = "proxy-v1"
    for one in connect:
        one.take()
    for option in ("accept", "protocol"):
        options.take(option)
    _tls(carried, found, options)
    carried.connect(options.find("timeoutconnect"), "s")
    carried.services.append(found)
    return ""


def _tls(carried: Carried, found: Found, options: Lines) -> None:
    for ours in ("certificate", "key"):
        if files := options.all("cert" if ours == "certificate" else "key"):
            found.options[ours] = " ".join(one.take() for one in files)
    asking = [one for one in map(options.find, ("requirecert", "verifychain", "verify")) if one is not None]
    wanted = [_wanted(one) for one in asking]
    if any(wanted):
        if file := options.take("cafile"):
            found.options["client_certificate"] = "require" if "require" in wanted else "request"
            found.options["client_ca"] = file
            for one, want in zip(asking, wanted, strict=True):
                one.taken = bool(want)
        else:
            for one, want in zip(asking, wanted, strict=True):
                if want:
                    carried.refuse(one, "put the issuers into one file for client_ca")
    for option in ("sslversion", "sslversionmin"):
        for one in options.all(option):
            if one.word in VERSIONS:
                found.options["profile"] = VERSIONS[one.take()]
            elif one.word in _OLD:
                carried.refuse(one, reasons.OLD_TLS)


def _wanted(line: Line) -> str:
    """Which client_certificate this line asks for; nothing if none."""
    if line.name == "verify":
        return {"1": "request", "2": "require", "3": "require", "4": "require"}.get(line.word, "")
    return {"requirecert": "require", "verifychain": "request"}[line.name] if line.word == "yes" else ""
