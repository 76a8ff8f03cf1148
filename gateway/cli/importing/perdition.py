"""perdition.conf (perdition(8)): one protocol for each file, `option value`."""

from __future__ import annotations

import shlex

from . import reasons
from .carried import Carried, Found, Line, Lines, Unreadable, address

PROTOCOLS = {"POP3": "pop3", "POP3S": "pop3", "IMAP4": "imap", "IMAP4S": "imap", "MANAGESIEVE": "managesieve"}
PORTS = {"POP3": 110, "POP3S": 995, "IMAP4": 143, "IMAP4S": 993, "MANAGESIEVE": 4190}
PLAIN = {"pop3": 110, "imap": 143, "managesieve": 4190}
SHORT = {"A": "add_domain", "a": "authenticate_in", "B": "no_bind_banner", "b": "bind_address",
         "C": "connection_logging", "c": "client_server_specification", "D": "domain_delimiter",
         "d": "debug", "e": "explicit_domain", "F": "log_facility", "f": "config_file", "g": "group",
         "h": "help", "I": "capability", "i": "inetd_mode", "L": "connection_limit", "l": "listen_port",
         "M": "map_library", "m": "map_library_opt", "n": "no_lookup", "O": "ok_line",
         "o": "server_resp_line", "P": "protocol", "p": "outgoing_port", "q": "quiet", "S": "strip_domain",
         "s": "outgoing_server", "t": "timeout", "U": "username_from_database", "u": "username"}  # fmt: skip
LISTEN = {"tls_listen": True, "tls_all": True, "tls_listen_force": True, "tls_all_force": True,
          "ssl_listen": False, "ssl_all": False}  # fmt: skip
"""Mode -> whether it is STARTTLS."""
OUTGOING = {
    **dict.fromkeys(("tls_outgoing", "tls_all", "tls_outgoing_force", "tls_all_force"), "starttls"),
    **dict.fromkeys(("ssl_outgoing", "ssl_all"), "implicit"),
}
_MAP = "the gateway does not choose a backend for each user; all users of a service are on one backend"
_ISSUER = "with verify = yes a certificate must be valid; put the issuer of a self-signed one into ca"
ELSEWHERE = {
    **dict.fromkeys(("username", "group", "pid_file", "log_facility", "debug", "quiet", "connection_logging",
        "inetd_mode", "no_daemon", "log_passwd", "connect_relog", "config_file", "help"), reasons.SYSTEM),
    **dict.fromkeys(("map_library", "map_library_opt", "client_server_specification", "query_key", "domain_delimiter",
        "add_domain", "strip_domain", "explicit_domain", "lookup_domain", "username_from_database", "lower_case",
        "no_lookup", "authenticate_in"), _MAP),
    **dict.fromkeys(("capability", "imap_capability", "pop_capability", "managesieve_capability", "login_disabled"),
        "not needed: clients get the backend's own list"),
    **dict.fromkeys(("no_bind_banner", "ok_line", "server_ok_line", "server_resp_line"),
        "not needed: clients get the backend's own replies"),
    **dict.fromkeys(("timeout", "authenticate_timeout"), reasons.TIMES),
    **dict.fromkeys(("ssl_listen_ciphers", "ssl_outgoing_ciphers", "ssl_dh_params_file", "ssl_listen_min_proto_version",
        "ssl_listen_max_proto_version", "ssl_outgoing_min_proto_version", "ssl_outgoing_max_proto_version",
        "ssl_listen_compression", "ssl_outgoing_compression", "ssl_no_cipher_server_preference"), reasons.PROFILES),
    "ssl_ca_chain_file": "put the chain behind the certificate, into the file of certificate",
    "ssl_ca_path": "ca is one file with the issuers",
    **dict.fromkeys(("ssl_passphrase_fd", "ssl_passphrase_file"), "a key must have no passphrase"),
    **dict.fromkeys(("ssl_ca_accept_self_signed", "ssl_cert_accept_self_signed", "ssl_cert_accept_expired",
        "ssl_cert_accept_not_yet_valid", "ssl_no_cn_verify"), _ISSUER),
    "ssl_no_client_cert_verify": "clients are not asked for a certificate",
    **dict.fromkeys(("ssl_ca_file", "ssl_no_cert_verify"), "only with TLS to the backend whose certificate is checked"),
    "connection_limit": "0 is no limit in Perdition and no value for [limits] sessions",
}  # fmt: skip


def parse(text: str) -> Lines:
    """Short names as long ones.  Raises Unreadable."""
    found = Lines()
    waiting, begin = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        begin = begin if waiting else number
        waiting += line
        if waiting.endswith("\\"):
            waiting = waiting[:-1]
            continue
        try:
            words = shlex.split(waiting, comments=True)
        except ValueError as wrong:
            raise Unreadable(f"line {number}: {wrong}; is this a perdition.conf?") from None
        waiting = ""
        if words:
            found.own.append(Line(begin, " ".join(words), SHORT.get(words[0], words[0]), [" ".join(words[1:])]))
    return found


def read(text: str) -> Carried:
    """Raises Unreadable."""
    options = parse(text)
    carried = Carried()
    named = options.find("protocol")
    given = options.take("protocol", "POP3").upper()
    if given not in PROTOCOLS:
        raise Unreadable(f"line {named.number if named else 1}: protocol {given} is none of {', '.join(PROTOCOLS)}")
    protocol = PROTOCOLS[given]
    mode = options.find("ssl_mode")
    modes = {one.strip() for one in options.take("ssl_mode").split(",")}
    listening = [LISTEN[mode] for mode in LISTEN if mode in modes]
    starttls = listening[0] if listening else not given.endswith("S")
    port = options.take("listen_port", str(PORTS[given]))
    places = [_place(one.strip(), port) for one in options.take("bind_address", "0.0.0.0").split(",")]
    found = Found(protocol, named.number if named else 1, protocol)
    if not starttls:
        found.implicit = places
    else:
        found.starttls = places
        forced = any(mode in modes for mode in ("tls_listen_force", "tls_all_force"))
        found.options["policy"] = "required" if forced else "optional"
    if starttls and not listening:
        why = "the gateway offers STARTTLS there, Perdition does not; required is safer"
        where, what = (found.line, "no ssl_mode") if mode is None else (mode.number, mode.text)
        carried.remark(where, what, why)
    for ours, theirs in (("certificate", "ssl_cert_file"), ("key", "ssl_key_file")):
        if file := options.take(theirs):
            found.options[ours] = file
    outgoing = options.take("outgoing_port", str(PLAIN[protocol]))
    servers = [one.strip() for one in options.take("outgoing_server").split(",") if one.strip()]
    if not servers:
        why = "the map named it for each user; write its address there"
        carried.remark(found.line, f"backend of {protocol}", why)
        servers = ["backend.invalid"]
    found.backend = [_place(one, outgoing) for one in servers]
    if tls := next((OUTGOING[mode] for mode in OUTGOING if mode in modes), ""):
        found.towards["tls"] = tls
        if options.find("ssl_no_cert_verify") is not None:
            options.take("ssl_no_cert_verify")
            found.towards["verify"] = "no"
        elif file := options.take("ssl_ca_file"):
            found.towards["ca"] = file
    carried.sessions(options.find("connection_limit"))
    carried.services.append(found)
    carried.leave(options.own, ELSEWHERE)
    return carried


def _place(text: str, port: str) -> str:
    """`host`, `host:port`."""
    host, colon, own = text.rpartition(":")
    return address(host, own) if colon and own.isdigit() else address("" if text == "0.0.0.0" else text, port)
