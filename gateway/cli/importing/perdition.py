"""perdition.conf (perdition(8)): one protocol for each file, `option value`."""

from __future__ import annotations

import shlex

from .carried import NOTHING, Carried, Found, Unreadable, address

PROTOCOLS = {"POP3": "pop3", "POP3S": "pop3", "IMAP4": "imap", "IMAP4S": "imap", "MANAGESIEVE": "managesieve"}
PORTS = {"POP3": 110, "POP3S": 995, "IMAP4": 143, "IMAP4S": 993, "MANAGESIEVE": 4190}
PLAIN = {"pop3": 110, "imap": 143, "managesieve": 4190}
SHORT = {"b": "bind_address", "P": "protocol", "l": "listen_port", "p": "outgoing_port", "s": "outgoing_server",
         "t": "timeout", "u": "username", "g": "group", "L": "connection_limit", "M": "map_library",
         "m": "map_library_opt", "F": "log_facility", "d": "debug", "q": "quiet"}  # fmt: skip
LISTEN = {"tls_listen": True, "tls_all": True, "tls_listen_force": True, "tls_all_force": True,
          "ssl_listen": False, "ssl_all": False}  # fmt: skip
"""Mode -> whether it is STARTTLS."""
OUTGOING = {
    **dict.fromkeys(("tls_outgoing", "tls_all", "tls_outgoing_force", "tls_all_force"), "starttls"),
    **dict.fromkeys(("ssl_outgoing", "ssl_all"), "implicit"),
}
ELSEWHERE = {
    **dict.fromkeys(("username", "group", "pid_file", "log_facility", "debug", "quiet", "connection_logging",
        "inetd_mode", "log_passwd"), "twistd or systemd does this (docs/operation.md)"),
    **dict.fromkeys(("map_library", "map_library_opt", "client_server_specification", "server_resp_line", "query_key",
        "domain_delimiter", "add_domain", "strip_domain", "username_from_database", "lower_case", "authenticate_in"),
        "the gateway does not choose a backend for each user; all users of a service are on one backend"),
    **dict.fromkeys(("imap_capability", "pop_capability", "managesieve_capability", "login_disabled", "no_bind_banner"),
        "not needed: clients get the backend's own list"),
    **dict.fromkeys(("timeout", "authenticate_timeout"), "the gateway has the times of each protocol's RFC"),
    **dict.fromkeys(("ssl_listen_ciphers", "ssl_outgoing_ciphers", "ssl_dh_params_file", "ssl_listen_min_proto_version",
        "ssl_listen_max_proto_version"), "profile chooses ciphers and groups (docs/tls.md)"),
}  # fmt: skip
KNOWN = {"bind_address", "protocol", "listen_port", "outgoing_port", "outgoing_server", "ssl_mode", "ssl_cert_file",
         "ssl_key_file", "ssl_ca_file", "ssl_no_cert_verify", "connection_limit"}  # fmt: skip


def parse(text: str) -> dict[str, tuple[int, str]]:
    """Option -> line and value; short names as long ones.  Raises Unreadable."""
    found: dict[str, tuple[int, str]] = {}
    number = 0
    waiting = ""
    for number, line in enumerate(text.splitlines(), 1):
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
            found[SHORT.get(words[0], words[0])] = number, " ".join(words[1:])
    return found


def read(text: str) -> Carried:
    """Raises Unreadable."""
    options = parse(text)
    carried = Carried()

    def value(name: str, default: str = "") -> str:
        return options.get(name, (0, default))[1] or default

    for name, (number, given) in options.items():
        if name not in KNOWN:
            carried.remark(number, f"{name} {given}".rstrip(), ELSEWHERE.get(name, NOTHING))
    given = value("protocol", "POP3").upper()
    if given not in PROTOCOLS:
        raise Unreadable(f"line {options['protocol'][0]}: protocol {given} is none of {', '.join(PROTOCOLS)}")
    protocol = PROTOCOLS[given]
    modes = {one.strip() for one in value("ssl_mode", "none").split(",")}
    starttls = next((LISTEN[mode] for mode in LISTEN if mode in modes), not given.endswith("S"))
    port = value("listen_port", str(PORTS[given]))
    places = [_place(one.strip(), port) for one in value("bind_address", "0.0.0.0").split(",")]
    found = Found(protocol, options.get("protocol", (1, ""))[0], protocol)
    if not starttls:
        found.implicit = places
    else:
        found.starttls = places
        forced = any(mode in modes for mode in ("tls_listen_force", "tls_all_force"))
        found.options["policy"] = "required" if forced else "optional"
    for ours, theirs in (("certificate", "ssl_cert_file"), ("key", "ssl_key_file")):
        if file := value(theirs):
            found.options[ours] = file
    outgoing = value("outgoing_port", str(PLAIN[protocol]))
    servers = [one.strip() for one in value("outgoing_server").split(",") if one.strip()]
    if not servers:
        why = "the map named it for each user; write its address there"
        carried.remark(found.line, f"backend of {protocol}", why)
        servers = ["backend.invalid"]
    found.backend = [_place(one, outgoing) for one in servers]
    if tls := next((OUTGOING[mode] for mode in OUTGOING if mode in modes), ""):
        found.towards["tls"] = tls
        if "ssl_no_cert_verify" in options:
            found.towards["verify"] = "no"
        elif file := value("ssl_ca_file"):
            found.towards["ca"] = file
    if sessions := value("connection_limit"):
        carried.limits["sessions"] = sessions
    carried.services.append(found)
    return carried


def _place(text: str, port: str) -> str:
    """`host`, `host:port`."""
    host, colon, own = text.rpartition(":")
    return address(host, own) if colon and own.isdigit() else address("" if text == "0.0.0.0" else text, port)
