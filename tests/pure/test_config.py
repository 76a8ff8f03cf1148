"""What the configuration file may say, and what is answered when it says something else."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import config
from gateway.config import Configuration, ConfigurationError, Machine, load, parse
from gateway.config.grammar import canonical
from gateway.config.values import (
    TLS,
    Backend,
    Control,
    Limits,
    Pair,
    Report,
    Service,
    SystemdAddress,
    TCPAddress,
    Timeouts,
    UnixAddress,
)
from gateway.dialects import DIALECTS
from gateway.protocol import proxyprotocol

ROOT = Path(__file__).parents[2]


class Policy(Enum):
    REQUIRED = "required"
    AUTH_ONLY = "auth-only"
    OPTIONAL = "optional"


@dataclass(frozen=True)
class Traits:
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    policies: Mapping[int, Policy] = field(default_factory=dict)
    identities: frozenset[str] = frozenset()
    backend_tls: frozenset[str] = frozenset({"none", "starttls", "implicit"})
    relays: bool = False
    channels: bool = False
    forbidden: Mapping[int, str] = field(default_factory=dict)
    offers: frozenset[Policy] = frozenset(Policy)


PROTOCOLS = {
    "smtp": Traits(
        {"received": ("yes", "no"), "newlines": ("normalize", "reject", "pass")},
        {25: Policy.AUTH_ONLY},
        frozenset({"proxy-v1", "proxy-v2", "xclient"}),
        relays=True,
    ),
    "imap": Traits(identities=frozenset({"proxy-v1", "proxy-v2", "id"})),
    "pop3": Traits(identities=frozenset({"proxy-v1", "proxy-v2", "xclient"})),
    "postgresql": Traits(identities=frozenset({"proxy-v1", "proxy-v2"}), forbidden={26: "it is not mail"}),
    "irc": Traits(identities=frozenset({"proxy-v1", "proxy-v2", "webirc"})),
}
OWN = (("received", "yes"), ("newlines", "normalize"))
"""The defaults of SMTP's own options."""
MACHINE = Machine(Path("/etc/gw"), lambda: "gw.example.org", content=lambda path: "secret")

SHORTEST = """
[tls]
certificate = /etc/letsencrypt/live/mail.example.org/fullchain.pem
key         = /etc/letsencrypt/live/mail.example.org/privkey.pem

[service:smtp]
starttls = 25
backend  = 10.0.0.5:25

[service:submission]
protocol = smtp
starttls = 587
implicit = 465
backend  = 10.0.0.5:587

[service:imap]
starttls = 143
implicit = 993
backend  = 10.0.0.5:143

[service:pop3]
starttls = 110
implicit = 995
backend  = 10.0.0.5:110
"""


def read(text: str, machine: Machine = MACHINE) -> Configuration:
    return parse(text, "gw.ini", PROTOCOLS, machine)


def located(text: str, machine: Machine = MACHINE) -> list[tuple[int, str]]:
    """Each problem with its line, which is 0 where it is about the file as a whole."""
    with pytest.raises(ConfigurationError) as caught:
        read(text, machine)
    assert str(caught.value) == "\n".join(caught.value.problems)
    found = [re.fullmatch(r"gw\.ini(?:, line ([1-9][0-9]*))?: (.+)", problem) for problem in caught.value.problems]
    return [(int(match[1] or 0), match[2]) for match in found if match]


def problems(text: str, machine: Machine = MACHINE) -> list[str]:
    """Each problem without its line, which must be that of the option, or of the section where it is missing."""
    lines = ["", *re.split(r"\r\n|\r|\n", text)]
    for number, problem in located(text, machine):
        if match := re.match(r"\[(.+?)\](?: ([a-z_]+))?:", problem):
            title, option = re.escape(match[1]), match[2]
            place = lines[number].lower()
            assert number == 0 or re.match(rf"\s*(?:\[{title.lower()}\]|{option}\b)", place), (problem, place)
    return [f"gw.ini: {problem}" for _, problem in located(text, machine)]


def file(*, gateway: str = "", tls: str = "certificate = c.pem", smtp: str = "", rest: str = "") -> str:
    """A good file, and what is to be looked at."""
    service = smtp or "starttls = 25\nbackend = 10.0.0.5:25"
    return f"[gateway]\n{gateway}\n[tls]\n{tls}\n[service:smtp]\n{service}\n{rest}\n"


def backend(options: str, address: str = "a:25", *, protocol: str = "smtp") -> str:
    """A good file whose only service, of this protocol, uses [backend:store]."""
    service = f"protocol = {protocol}\nstarttls = 25\nbackend = store"
    return file(smtp=service, rest=f"[backend:store]\naddress = {address}\n{options}")


def balancers(networks: str) -> str:
    return file(smtp=f"starttls = 25\nbackend = a:25\naccept_proxy = {networks}")


def the_backend(options: str, address: str = "a:25", *, protocol: str = "smtp") -> Backend:
    return read(backend(options, address, protocol=protocol)).services[0].backend


def the_service(smtp: str, rest: str = "") -> Service:
    return read(file(smtp=smtp, rest=rest)).services[0]


def the_problem(text: str, machine: Machine = MACHINE) -> str:
    (problem,) = problems(text, machine)
    return problem


def test_the_shortest_useful_file() -> None:
    live = Path("/etc/letsencrypt/live/mail.example.org")
    smtp, submission, imap, pop3 = (
        Backend(f"10.0.0.5:{port}", (TCPAddress("10.0.0.5", port),)) for port in (25, 587, 143, 110)
    )

    def on(port: int) -> tuple[TCPAddress]:
        return (TCPAddress(None, port),)

    tls = TLS((Pair(live / "fullchain.pem", live / "privkey.pem"),), "intermediate", (), "none", None)
    assert read(SHORTEST) == Configuration(
        hostname="gw.example.org",
        drain=30.0,
        log="text",
        tls=tls,
        services=(
            Service("smtp", "smtp", on(25), (), ("auth-only",), smtp, tls, options=OWN),
            Service("submission", "smtp", on(587), on(465), ("required",), submission, tls, options=OWN),
            Service("imap", "imap", on(143), on(993), ("required",), imap, tls),
            Service("pop3", "pop3", on(110), on(995), ("required",), pop3, tls),
        ),
        limits=Limits(),
        timeouts=Timeouts(),
    )


def test_every_option() -> None:
    text = """
        [gateway]
        hostname = mail.example.org
        drain = 1.5 min
        log = json
        [tls]
        certificate = /c.pem rsa.pem
          /both.pem
        key = /c.key rsa.key /both.pem
        profile = modern
        client_certificate = require
        client_ca = ca/clients.pem
        [limits]
        bad_commands = 3
        sessions = 1
        sessions_per_client = 2
        connects_per_minute = 3
        auth_failures_per_minute = 1000000
        auth_failures_per_session = 4
        [timeouts]
        handshake = 500 ms
        preauth = 1 h
        plaintext = 90 s
        proxy_header = 1500 ms
        connect = 1s
        greeting = 2 s
        message = 2 min
        message_rate = 50
        linger = 3 s
        [service:mx]
        protocol = smtp
        starttls = 25 unix:/run/smtp
          systemd:mx [::1]:2525
        implicit = 0 127.0.0.1:0
        policy = optional
        backend = store
        received = no
        newlines = reject
        accept_proxy = 10.0.0.0/8 ::ffff:192.0.2.1
        certificate = own.pem
        key = own.key
        profile = legacy
        legacy_clients = 10.1.0.0/16 ::ffff:192.0.2.2
          2001:db8::/32
        client_certificate = request
        client_ca = /etc/ca.pem
        [backend:store]
        address = old.example.org:25
          [2001:DB8::0:1]:25 unix:/run/old my_store:25
        connect = lazy
        tls = starttls
        verify = yes
        name = store.example.org
        ca = ca/store.pem
        profile = legacy
        identity = none
        allow_relay = yes
    """
    assert read(re.sub("(?m)^        ", "", text)) == Configuration(
        hostname="mail.example.org",
        drain=90.0,
        log="json",
        tls=TLS(
            (
                Pair(Path("/c.pem"), Path("/c.key")),
                Pair(Path("/etc/gw/rsa.pem"), Path("/etc/gw/rsa.key")),
                Pair(Path("/both.pem"), None),
            ),
            profile="modern",
            client_certificate="require",
            client_ca=Path("/etc/gw/ca/clients.pem"),
        ),
        services=(
            Service(
                name="mx",
                protocol="smtp",
                starttls=(
                    TCPAddress(None, 25),
                    UnixAddress("/run/smtp"),
                    SystemdAddress("mx"),
                    TCPAddress("::1", 2525),
                ),
                implicit=(TCPAddress(None, 0), TCPAddress("127.0.0.1", 0)),
                policies=("optional",) * 4,
                backend=Backend(
                    "store",
                    (
                        TCPAddress("old.example.org", 25),
                        TCPAddress("2001:db8::1", 25),
                        UnixAddress("/run/old"),
                        TCPAddress("my_store", 25),
                    ),
                    "lazy",
                    tls="starttls",
                    verify="yes",
                    certificate_name="store.example.org",
                    ca=Path("/etc/gw/ca/store.pem"),
                    profile="legacy",
                    identity="none",
                    allow_relay=True,
                ),
                tls=TLS(
                    (Pair(Path("/etc/gw/own.pem"), Path("/etc/gw/own.key")),),
                    profile="legacy",
                    legacy_clients=(ip_network("10.1.0.0/16"), ip_network("192.0.2.2"), ip_network("2001:db8::/32")),
                    client_certificate="request",
                    client_ca=Path("/etc/ca.pem"),
                ),
                accept_proxy=(ip_network("10.0.0.0/8"), ip_network("192.0.2.1")),
                options=(("received", "no"), ("newlines", "reject")),
            ),
        ),
        limits=Limits(
            sessions=1,
            sessions_per_client=2,
            connects_per_minute=3,
            auth_failures_per_minute=1000000,
            auth_failures_per_session=4,
            bad_commands=3,
        ),
        timeouts=Timeouts(
            handshake=0.5,
            preauth=3600,
            plaintext=90,
            proxy_header=1.5,
            connect=1,
            greeting=2,
            message=120,
            message_rate=50,
            linger=3,
        ),
    )


def test_the_shipped_file_shows_the_defaults() -> None:
    text = (ROOT / "config" / "gateway.ini").read_text()
    shown = re.sub(r"(?m)^# (\w+ = .+)$", r"\1", text)
    state = Path("/var/lib/starttls-gateway")
    machine = Machine(Path("/etc"), lambda: "mail.example.org", state=state, content=lambda path: "secret")
    assert shown.count("\n") == text.count("\n")
    protocols: dict[str, Any] = {**PROTOCOLS, "ftp": DIALECTS["ftp"]}
    assert parse(shown, "gw.ini", protocols, machine) == parse(text, "gw.ini", protocols, machine)
    assert set(re.findall(r"(?m)^(\w+) = ", shown)) >= {
        *("hostname", "drain", "log", "workers", "old_sessions"),
        *("certificate", "key", "profile", "legacy_clients", "client_certificate", "client_ca"),
        *("protocol", "starttls", "implicit", "policy", "backend", "received", "newlines", "accept_proxy"),
        *("address", "connect", "tls", "verify", "name", "ca", "profile", "identity", "allow_relay"),
        *("sessions", "sessions_per_client", "connects_per_minute"),
        *("auth_failures_per_minute", "auth_failures_per_session", "bad_commands"),
        *("handshake", "preauth", "plaintext", "proxy_header", "connect", "greeting"),
        *("message", "message_rate", "linger"),
        *("file", "keep", "networks", "downgrade"),
        *DIALECTS["ftp"].options,
    }


def test_an_option_may_have_a_grammar_of_its_own() -> None:
    text = "[tls]\ncertificate = a.pem\n[service:ftp]\nstarttls = 21\nbackend = 10.0.0.8:21\n"
    protocols = {"ftp": DIALECTS["ftp"]}
    (service,) = parse(text, "gw.ini", protocols, MACHINE).services
    assert dict(service.options)["passive_ports"] == "50000-50999"
    (service,) = parse(text + "passive_ports = 2000-2009\n", "gw.ini", protocols, MACHINE).services
    assert dict(service.options)["passive_ports"] == "2000-2009"
    for wrong in ("2000", "2009-2000", "20-30", "60000-65536", "a-b"):
        with pytest.raises(ConfigurationError) as caught:
            parse(text + f"passive_ports = {wrong}\n", "gw.ini", protocols, MACHINE)
        assert str(caught.value) == (
            f'gw.ini, line 6: [service:ftp] passive_ports: "{wrong}" is not a range of ports from 1024 to 65535; '
            "write 50000-50999"
        )
    unix = text.replace("10.0.0.8:21", "unix:/run/ftp")
    with pytest.raises(ConfigurationError) as caught:
        parse(unix, "gw.ini", protocols, MACHINE)
    fault = "gw.ini, line 5: [service:ftp] backend: unix:/run/ftp has no ports for data connections; write host:port"
    assert str(caught.value) == fault
    with pytest.raises(ConfigurationError) as caught:
        parse(
            text + "data_session_reuse = required\nclient_certificate = require\nclient_ca = ca.pem\n",
            "gw.ini",
            protocols,
            MACHINE,
        )
    assert str(caught.value) == (
        "gw.ini, line 6: [service:ftp] data_session_reuse: required is not possible with client_certificate = require: "
        "TLS sessions with a client certificate do not resume; write no"
    )
    with pytest.raises(ConfigurationError, match="'gw' is not an IPv4 address; write the one that clients connect to"):
        parse(text + "passive_address = gw\n", "gw.ini", protocols, MACHINE)


@pytest.mark.parametrize(
    ("options", "how", "key"),
    [
        ("", "no", None),
        ("log_users = yes", "yes", None),
        ("log_users = hashed", "hashed", Path("/state/users.key")),
        ("log_users = hashed\nusers_key = k", "hashed", Path("/etc/gw/k")),
    ],
)
def test_how_users_are_told(options: str, how: str, key: Path | None) -> None:
    machine = Machine(Path("/etc/gw"), lambda: "gw.example.org", state=Path("/state"))
    found = read(f"{SHORTEST}\n[gateway]\n{options}\n", machine)
    assert (found.log_users, found.users_key) == (how, key)


@pytest.mark.parametrize(
    ("section", "report"),
    [
        ("", Report(Path("/state/report.db"))),
        ("file = off", Report()),
        ("file = r.db\nkeep = 30 d\nnetworks = /16 /48", Report(Path("/etc/gw/r.db"), 30 * 86400.0, (16, 48))),
    ],
)
def test_what_is_remembered(section: str, report: Report) -> None:
    machine = Machine(Path("/etc/gw"), lambda: "gw.example.org", state=Path("/state"))
    assert read(f"{SHORTEST}\n[report]\n{section}\n", machine).report == report


OPTIONAL = "[tls]\ncertificate = c.pem\n[service:imap]\nstarttls = 143\nbackend = a:143\npolicy = optional\n"


def test_what_is_done_about_a_downgrade() -> None:
    assert read(OPTIONAL).services[0].downgrade == "log"
    assert read(OPTIONAL + "downgrade = refuse\n[report]\nfile = r.db").services[0].downgrade == "refuse"


def test_without_a_directory_for_it_nothing_is_remembered() -> None:
    assert read(SHORTEST).report == Report()


def test_the_default_policy_depends_on_the_port() -> None:
    assert the_service("starttls = 587 unix:/s systemd:x 10.0.0.1:25\nbackend = a:25").policies == (
        "required",
        "required",
        "required",
        "auth-only",
    )


WITHOUT_TLS = "is only for tls = starttls and tls = implicit; remove it, or set tls"


def in_gateway(options: str, problem: str) -> tuple[str, str]:
    return file(gateway=options), f"[gateway] {problem}"


def in_section(title: str, options: str, problem: str) -> tuple[str, str]:
    """The problem is one of the first of these options."""
    return file(rest=f"[{title}]\n{options}"), f"[{title}] {options.split(' ')[0]}: {problem}"


def in_service(options: str, problem: str) -> tuple[str, str]:
    return file(smtp=options), f"[service:smtp] {problem}"


def in_backend(options: str, problem: str, address: str = "a:25", *, protocol: str = "smtp") -> tuple[str, str]:
    return backend(options, address, protocol=protocol), f"[backend:store] {problem}"


def in_networks(networks: str, problem: str) -> tuple[str, str]:
    return balancers(networks), f'[service:smtp] accept_proxy: "{networks}"{problem}'


# What is written in a file that is good but for that, and the one problem that it makes.
SLIPS = {
    "hostname with an underscore": in_gateway(
        "hostname = my_host",
        'hostname: "my_host" is not a host name; write a fully qualified one, like mail.example.org',
    ),
    "hostname that is an address": in_gateway(
        "hostname = 10.0.0.1",
        'hostname: "10.0.0.1" is not a host name; write a fully qualified one, like mail.example.org',
    ),
    "duration without unit": in_gateway(
        "drain = 30", 'drain: "30" is not a duration; write a number and ms, s, min or h, like 30 s'
    ),
    "duration in foreign digits": in_gateway(
        "drain = \u0663 s", 'drain: "\\u0663 s" is not a duration; write a number and ms, s, min or h, like 30 s'
    ),
    "duration that is too long": in_gateway("drain = 25 h", 'drain: "25 h" is out of range; write 0 s to 24 h'),
    "duration that is too short": in_section("timeouts", "linger = 0 s", '"0 s" is out of range; write 0.1 s to 24 h'),
    "number that is none": in_section("limits", "bad_commands = many", '"many" is not a number from 1 to 1000000'),
    **{
        f"{option.name} out of range": in_section(
            "limits", f"{option.name} = 0", '"0" is not a number from 1 to 1000000'
        )
        for option in fields(Limits)
    },
    **{
        f"{number} workers": in_gateway(
            f"workers = {number}", f'workers: "{number}" is neither auto nor a number from 1 to 64'
        )
        for number in ("0", "65", "-1", "two", "2.5", "Auto")
    },
    **{
        f"days that are {what}": in_section(
            "report", f"keep = {days}", f'"{days}" is not a number of days from 1 to 3650; write one like 90 d'
        )
        for what, days in (("too few", "0 d"), ("no number", "long"))
    },
    **{
        f"prefixes that are {what}": in_section(
            "report",
            f"networks = {prefixes}",
            f'"{prefixes}" is not two prefix lengths; write one for IPv4 and one for IPv6, like /24 /64',
        )
        for what, prefixes in (("one", "/24"), ("too short", "/4 /64"))
    },
    "days of what is not remembered": in_section(
        "report", "keep = 9 d\nfile = off", "has no effect with file = off; remove it"
    ),
    "two files of the report": in_section(
        "report", "file = a b", '"a b" is more than one word; write one file; its name must not contain spaces'
    ),
    "key for users that nobody needs": in_gateway(
        "users_key = k", "users_key: has no effect without log_users = hashed; remove it"
    ),
    "key for users that has no place": in_gateway(
        "log_users = hashed",
        "users_key: is missing; name a file for the key, which the gateway makes: /path/users.key",
    ),
    "key for users without a name": in_gateway(
        "log_users = hashed\nusers_key =", "users_key: has no value; write one, or remove the option"
    ),
    "downgrade of nobody": in_service(
        "starttls = 25\nbackend = a:25\npolicy = required\ndowngrade = log",
        "downgrade: is for plaintext ports where clients may do without TLS, and this service has none; remove it",
    ),
    "downgrade of those who are not remembered": in_service(
        "starttls = 25\nbackend = a:25\ndowngrade = refuse",
        "downgrade: refuse needs to know who always used TLS; add file = PATH in [report]",
    ),
    "control socket that is no path": in_gateway(
        "control = on", 'control: "on" is neither off nor an absolute path of at most 107 octets'
    ),
    "control socket with a long name": in_gateway(
        f"control = /{'x' * 107}",
        f'control: "/{"x" * 56}..." is neither off nor an absolute path of at most 107 octets',
    ),
    "group of no control socket": in_gateway(
        "control = off\ncontrol_group = mail", "control_group: means nothing with control = off; remove it"
    ),
    "mode of no control socket": in_gateway(
        "control = off\ncontrol_mode = 0600", "control_mode: means nothing with control = off; remove it"
    ),
    "mode that lets everybody in": in_gateway(
        "control_mode = 0666", 'control_mode: "0666" is not a valid value; write 0600 or 0660'
    ),
    "mode that keeps the group out": in_gateway(
        "control_group = mail\ncontrol_mode = 0600",
        "control_mode: 0600 keeps the group mail out; write 0660, or remove control_group",
    ),
    "two groups": in_gateway(
        "control_group = two words", 'control_group: "two words" is more than one word; name one group'
    ),
    "word that is not possible": in_gateway("log = xml", 'log: "xml" is not a valid value; write text or json'),
    "neither yes nor no": in_service(
        "starttls = 25\nbackend = a:25\nreceived = true", 'received: "true" is not a valid value; write yes or no'
    ),
    "option without value": in_gateway("log =", "log: has no value; write one, or remove the option"),
    "option with a slip of the pen": in_gateway(
        "hostnam = a.example.org\nhostname = b.example.org", "hostnam: unknown option; did you mean hostname?"
    ),
    "option of a later version": in_gateway(
        "threads = 2",
        "threads: unknown option; "
        "[gateway] takes hostname, drain, log, log_connects, log_users, users_key, old_sessions, probes, workers, "
        "control, control_group or control_mode",
    ),
    "option of configparser's DEFAULT": (
        file(rest="[DEFAULT]\nlog = json"),
        "[DEFAULT]: unknown section; there are [gateway], [tls], [limits], [timeouts], [report], [admin], "
        "[service:NAME], [backend:NAME]",
    ),
    "section with a slip of the pen": (
        file(rest="[servcie:imap]"),
        "[servcie:imap]: unknown section; did you mean [service:imap]?",
    ),
    "section with the name of a protocol": (
        file(rest="[imap]\nstarttls = 143"),
        "[imap]: unknown section; did you mean [service:imap]?",
    ),
    "section in capitals": (file(rest="[Limits]"), "[Limits]: unknown section; did you mean [limits]?"),
    "section that lacks a name": (file(rest="[backend]"), "[backend]: has no name; write [backend:NAME]"),
    "section almost named, but without a name": (
        file(rest="[backends]"),
        "[backends]: unknown section; did you mean [backend:NAME]?",
    ),
    "section with an impossible name": (
        file(rest="[service:my mail]\nprotocol = smtp\nstarttls = 26\nbackend = a:26"),
        '[service:my mail]: "my mail" is not a name; use up to 63 letters, digits, dots, hyphens and underscores',
    ),
    "no certificate": (
        file(tls=""),
        "[tls] certificate: is missing; name the PEM file with the certificate and its chain",
    ),
    "unknown protocol": in_service(
        "protocol = smpt\nstarttls = 25\nbackend = a:25\nreceived = no",
        'protocol: "smpt" is not a protocol; did you mean smtp?',
    ),
    "forbidden port": (
        file(rest="[service:postgresql]\nstarttls = [::1]:26 5432\nbackend = a:5432"),
        "[service:postgresql] starttls: [::1]:26 is no place for postgresql (it is not mail); use another port",
    ),
    "protocol forgotten": (
        file(rest="[service:news]\nstarttls = 119\nbackend = a:119"),
        "[service:news] protocol: is missing, and the section's name "
        '"news" is not a protocol; write protocol = smtp, imap, pop3, postgresql or irc',
    ),
    "no address": in_service(
        "backend = a:25", "starttls: is missing, and so is implicit; name an address to listen on, like starttls = 25"
    ),
    "no backend": in_service(
        "starttls = 25", "backend: is missing; write host:port, unix:/path or the NAME of a [backend:NAME]"
    ),
    "backend without port": in_service(
        "starttls = 25\nbackend = 10.0.0.5",
        "backend: there is no [backend:10.0.0.5]; add it, or write an address with its port, like 10.0.0.5:25",
    ),
    "several addresses": in_service(
        "starttls = 25\nbackend = a:25 b:25",
        'backend: "a:25 b:25" is more than one word; write one address, or the NAME of a '
        "[backend:NAME] section with several",
    ),
    "backend with a slip of the pen": (
        file(smtp="starttls = 25\nbackend = stor", rest="[backend:store]\naddress = a:25"),
        "[service:smtp] backend: there is no [backend:stor]; did you mean store?",
    ),
    "backend that nobody uses": (
        file(rest="[backend:store]\naddress = a:25"),
        "[backend:store]: no service uses this backend; name it in a service, or remove it",
    ),
    "backend without address": (
        file(smtp="starttls = 25\nbackend = store", rest="[backend:store]"),
        "[backend:store] address: is missing; write host:port or unix:/path",
    ),
    "opportunistic TLS to the backend": in_backend(
        "tls = maybe\nname = b.example.org", 'tls: "maybe" is not a valid value; write none, starttls or implicit'
    ),
    "verify without TLS": in_backend("verify = no", f"verify: {WITHOUT_TLS}"),
    "name where TLS is switched off": in_backend("tls = none\nname = b.example.org", f"name: {WITHOUT_TLS}"),
    "ca without TLS": in_backend("ca = ca.pem", f"ca: {WITHOUT_TLS}"),
    "profile without TLS": in_backend("profile = legacy", f"profile: {WITHOUT_TLS}"),
    "verify that is neither": in_backend(
        "tls = starttls\nverify = maybe\nname = b.example.org\nca = ca.pem",
        'verify: "maybe" is not a valid value; write yes, no or sha256:HEX',
    ),
    "verify that is neither, and nothing follows from it": in_backend(
        "tls = starttls\nverify = maybe",
        'verify: "maybe" is not a valid value; write yes, no or sha256:HEX',
        "unix:/old",
    ),
    "pin that is too short": in_backend(
        "tls = starttls\nverify = sha256:abcd",
        'verify: "sha256:abcd" is not sha256: and 64 hexadecimal digits; '
        "see: openssl x509 -in FILE -noout -fingerprint -sha256",
    ),
    "pin that is too long": in_backend(
        f"tls = starttls\nverify = SHA256:{'a' * 66}",
        f'verify: "SHA256:{"a" * 50}..." is not sha256: and 64 hexadecimal digits; '
        "see: openssl x509 -in FILE -noout -fingerprint -sha256",
    ),
    "pin in foreign letters": in_backend(
        f"tls = starttls\nverify = \u017fha256:{'a' * 64}",
        f'verify: "\\u017fha256:{"a" * 50}..." is not a valid value; write yes, no or sha256:HEX',
    ),
    "name of a certificate that is not looked at": in_backend(
        "tls = starttls\nverify = no\nname = b.example.org",
        "name: has no effect with verify = no, because any certificate is accepted; remove it, or write verify = yes",
    ),
    "issuer of a certificate that is pinned": in_backend(
        f"tls = starttls\nverify = sha256:{'a' * 64}\nca = ca.pem",
        "ca: has no effect with verify = sha256:HEX, because only that certificate is accepted; "
        "remove it, or write verify = yes",
    ),
    "two names": in_backend(
        "tls = starttls\nname = a.example.org b.example.org",
        'name: "a.example.org b.example.org" is neither a host name nor an IP address; '
        "write the name that the certificate must have",
    ),
    "name with a wildcard": in_backend(
        "tls = starttls\nname = *.example.org",
        'name: "*.example.org" is neither a host name nor an IP address; write the name that the certificate must have',
    ),
    "name in brackets": in_backend(
        "tls = starttls\nname = [::1]",
        'name: "[::1]" is neither a host name nor an IP address; write the name that the certificate must have',
    ),
    "name that cannot be read, on a path that has none": in_backend(
        "tls = starttls\nname = *",
        'name: "*" is neither a host name nor an IP address; write the name that the certificate must have',
        "unix:/old",
    ),
    "paths that have no name": in_backend(
        "tls = implicit",
        "name: is missing, and unix:/old has no host name; "
        "write the name that the certificate must have, or verify = sha256:HEX",
        "b.example.org:25 unix:/old unix:/older",
    ),
    "two files of issuers": in_backend(
        "tls = starttls\nca = a.pem b.pem",
        'ca: "a.pem b.pem" is more than one word; write one file; its name must not contain spaces',
    ),
    "profile of the other side": in_backend(
        "tls = starttls\nprofile = modern", 'profile: "modern" is not a valid value; write intermediate or legacy'
    ),
    "identity that there is not": in_backend(
        "identity = xforward\nallow_relay = no",
        'identity: "xforward" is not a valid value; write none, proxy-v1, proxy-v2, xclient, id or webirc',
    ),
    "identity of IMAP for SMTP": in_backend(
        "identity = id",
        "identity: [service:smtp] uses this backend, and smtp does not support id; "
        "write none, proxy-v1, proxy-v2 or xclient",
    ),
    "identity of IMAP for POP3": in_backend(
        "identity = id",
        "identity: [service:smtp] uses this backend, and pop3 does not support id; "
        "write none, proxy-v1, proxy-v2 or xclient",
        protocol="pop3",
    ),
    "identity of SMTP for IMAP": in_backend(
        "identity = xclient",
        "identity: [service:smtp] uses this backend, and imap does not support xclient; "
        "write none, id, proxy-v1 or proxy-v2",
        protocol="imap",
    ),
    "relay of what relays nothing": in_backend(
        "allow_relay = no",
        "allow_relay: [service:smtp] uses this backend, and imap does not relay mail; remove it",
        protocol="imap",
    ),
    "relay of one who knows the client": in_backend(
        "identity = xclient\nallow_relay = yes",
        "allow_relay: has no effect with identity = xclient, because the backend then gets the "
        "client's address; remove it",
    ),
    "relay that is neither yes nor no": in_backend(
        "allow_relay = true", 'allow_relay: "true" is not a valid value; write yes or no'
    ),
    "eager dialling that must wait for TLS": in_backend(
        "identity = proxy-v2\nconnect = eager",
        "connect: eager is not possible for the starttls ports of [service:smtp]: identity = proxy-v2 "
        "tells the client's TLS version, which is not known before TLS; write connect = lazy",
    ),
    "message rate of nothing": in_section("timeouts", "message_rate = 0", '"0" is not a number from 1 to 1000000'),
    "option of a backend in a service": in_service(
        "starttls = 25\nbackend = a:25\nverify = no",
        "verify: unknown option; [service:smtp] takes protocol, starttls, implicit, policy, received, "
        "newlines, accept_proxy, backend, certificate, key, profile, legacy_clients, client_certificate, client_ca or "
        "downgrade",
    ),
    "unknown option of a protocol without its own": in_service(
        "protocol = imap\nstarttls = 143\nbackend = a:143\nverify = no",
        "verify: unknown option; [service:smtp] takes protocol, starttls, implicit, policy, "
        "accept_proxy, backend, certificate, key, profile, legacy_clients, client_certificate, client_ca or downgrade",
    ),
    "network with host bits": in_networks(
        "10.1.2.3/8", " has host bits set; write 10.0.0.0/8, or 10.1.2.3 for that address alone"
    ),
    "IPv6 network with host bits": in_networks(
        "2001:db8::1/64", " has host bits set; write 2001:db8::/64, or 2001:db8::1 for that address alone"
    ),
    "IPv4-mapped network with host bits": in_networks(
        "::ffff:10.1.2.3/104", " has host bits set; write 10.0.0.0/8, or 10.1.2.3 for that address alone"
    ),
    "network by name": in_networks(
        "lb.example.org", " is not a network; write one like 10.0.0.0/8 or 2001:db8::/32, or one address"
    ),
    "network with a netmask": in_networks("10.0.0.0/255.0.0.0", ': "255.0.0.0" is not a number of bits from 0 to 32'),
    "network with too many bits": in_networks("::1/129", ': "129" is not a number of bits from 0 to 128'),
    "network that ends too early": in_networks("10.0.0.0/", ': "" is not a number of bits from 0 to 32'),
    "network with a zone": in_networks("fe80::%eth0/64", ": a zone is not a valid value; write fe80::/64"),
    "policy without a plaintext port": in_service(
        "implicit = 465\npolicy = required\nbackend = a:25",
        "policy: is for plaintext ports, and this service has none; remove it, or add starttls",
    ),
    "option of another protocol": (
        file(rest="[service:imap]\nstarttls = 143\nbackend = a:143\nreceived = no"),
        "[service:imap] received: imap does not have this option, only smtp; remove it",
    ),
    "port out of range": in_service(
        "starttls = 65536\nbackend = a:25", 'starttls: "65536": port "65536" is not a number from 0 to 65535'
    ),
    "port that is none": in_service(
        "starttls = 127.0.0.1:smtp\nbackend = a:25",
        'starttls: "127.0.0.1:smtp": port "smtp" is not a number from 0 to 65535',
    ),
    "backend on port 0": in_service(
        "starttls = 25\nbackend = a:0", 'backend: "a:0": port "0" is not a number from 1 to 65535'
    ),
    "host without port": in_service(
        "starttls = localhost\nbackend = a:25",
        'starttls: "localhost" has no port; write 25, 0.0.0.0:25, [::]:25, unix:/path or systemd:NAME',
    ),
    "IPv6 without brackets": in_service(
        "starttls = ::1:25\nbackend = a:25",
        'starttls: "::1:25" is ambiguous; write an IPv6 address in brackets, like [2001:db8::1]:25',
    ),
    "IPv6 that is none": in_service(
        "starttls = 25\nbackend = [::g]:25",
        'backend: "[::g]:25": "[::g]" is not an IPv6 address; write host:port, [IPv6]:port or unix:/path',
    ),
    "IPv4 that is none": in_service(
        "starttls = 25\nbackend = 10.0.0.256:25",
        'backend: "10.0.0.256:25": "10.0.0.256" is neither an address nor a host name; write host:port, '
        "[IPv6]:port or unix:/path",
    ),
    "relative socket": in_service(
        "starttls = unix:smtp\nbackend = a:25", 'starttls: "unix:smtp": write an absolute path with at most 107 octets'
    ),
    "socket name that the kernel cannot take": in_service(
        f"starttls = unix:/{'x' * 107}\nbackend = a:25",
        f'starttls: "unix:/{"x" * 51}...": write an absolute path with at most 107 octets',
    ),
    "systemd without a name": in_service(
        "starttls = systemd:\nbackend = a:25",
        'starttls: "" is not a name; use up to 63 letters, digits, dots, hyphens and underscores',
    ),
    "backend that systemd listens for": (
        file(smtp="starttls = 25\nbackend = store", rest="[backend:store]\naddress = systemd:store"),
        '[backend:store] address: "systemd:store": port "store" is not a number from 1 to 65535',
    ),
    "no section at all but tls": (
        "[tls]\ncertificate = c.pem",
        "[service:NAME]: there is no such section; add one, like [service:smtp]",
    ),
    "line that is nothing": (
        file(gateway="drain"),
        '"drain" is neither a [section] nor an option = value; write option = value',
    ),
    "option that stands twice": (
        file(tls="certificate = c.pem\ncertificate = d.pem\n  e.pem"),
        "[tls] certificate: is already in line 4; remove one of them",
    ),
    "option before the first section": (
        "log = json\ndrain = 3\n" + file(),
        '"log = json" is before the first section; begin with a section like [tls]',
    ),
    "control character": (file(gateway="log = text\0"), "holds a NUL character; a configuration file is plain text"),
}


@pytest.mark.parametrize(("text", "problem"), SLIPS.values(), ids=SLIPS)
def test_one_slip_is_one_line_that_tells_the_cure(text: str, problem: str) -> None:
    assert the_problem(text) == f"gw.ini: {problem}"


@pytest.mark.parametrize(("text", "workers"), [("1", 1), ("3", 3), ("64", 64), ("auto", 5)])
def test_workers_are_a_number_or_one_for_each_core(text: str, workers: int) -> None:
    machine = Machine(MACHINE.directory, MACHINE.hostname, cores=lambda: 5)
    assert read(file(gateway=f"workers = {text}"), machine).workers == workers


def test_the_admin_listener_may_show_several_workers() -> None:
    found = read(file(gateway="workers = 2", rest="[admin]\nlisten = 127.0.0.1:9180"))
    assert (found.workers, found.admin is not None) == (2, True)


def test_no_machine_has_so_many_cores_that_the_bound_does_not_hold() -> None:
    machine = Machine(MACHINE.directory, MACHINE.hostname, cores=lambda: 500)
    assert read(file(gateway="workers = auto"), machine).workers == 64
    assert Machine().cores() >= 1


def test_all_problems_come_at_once() -> None:
    text = file(gateway="log = xml\nthreads = 3", tls="", smtp="starttls = 99999\nbackend = store\npolicy = never")
    assert [problem.split(":", 2)[1] for problem in problems(text)] == [
        " [gateway] log",
        " [gateway] threads",
        " [tls] certificate",
        " [service",
        " [service",
        " [service",
    ]


def test_an_empty_file() -> None:
    assert problems("") == [
        "gw.ini: [tls] certificate: is missing; name the PEM file with the certificate and its chain",
        "gw.ini: [service:NAME]: there is no such section; add one, like [service:smtp]",
    ]


def test_a_machine_without_a_usable_name() -> None:
    assert the_problem(file(), Machine(hostname=lambda: "my_host")) == (
        'gw.ini: [gateway] hostname: is missing, and the name of this machine, "my_host", is not a host '
        "name; add the option"
    )


def test_the_machine_is_not_asked_for_a_name_that_is_given() -> None:
    def hostname() -> str:
        raise AssertionError

    assert read(file(gateway="hostname = mx.example.org"), Machine(hostname=hostname)).hostname == "mx.example.org"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("25", "25"),
        ("25", "0.0.0.0:25"),
        ("25", "[::]:25"),
        ("25", "[::1]:25"),
        ("25", "localhost:25"),
        ("0.0.0.0:25", "127.0.0.1:25"),
        ("[::]:25", "[::1]:25"),
        ("[::1]:25", "[0:0::1]:25"),
        ("0.0.0.0:25", "localhost:25"),
        ("unix:/run/smtp", "unix:/run/smtp"),
        ("systemd:smtp", "systemd:smtp"),
    ],
)
def test_nothing_is_listened_on_twice(one: str, other: str) -> None:
    for first, second in ((one, other), (other, one)):
        problem = the_problem(file(smtp=f"starttls = {first}\nimplicit = {second}\nbackend = a:25"))
        assert problem.startswith("gw.ini: [service:smtp] implicit: ")
        assert "is already used by " in problem
        assert problem.endswith("[service:smtp] starttls; use each address once")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("25", "26"),
        ("0", "0"),
        ("0.0.0.0:25", "[::]:25"),
        ("127.0.0.1:25", "127.0.0.2:25"),
        ("unix:/a", "unix:/b"),
        ("systemd:a", "25"),
    ],
)
def test_neighbours_may_be_listened_on(one: str, other: str) -> None:
    assert the_service(f"starttls = {one}\nimplicit = {other}\nbackend = a:25").implicit


def test_services_may_share_a_backend() -> None:
    rest = "[service:two]\nprotocol = smtp\nimplicit = 465\nbackend = store\n[backend:store]\naddress = a:25"
    one, two = read(file(smtp="starttls = 25\nbackend = store", rest=rest)).services
    assert one.backend is two.backend


PIN = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "written",
    [
        f"sha256:{PIN}",
        f"SHA256:{PIN.upper()}",
        "sha256:" + ":".join(re.findall("..", PIN.upper())),
    ],
)
def test_a_pin_is_read_as_openssl_prints_it(written: str) -> None:
    assert the_backend(f"tls = implicit\nverify = {written}").verify == f"sha256:{PIN}"
    assert the_backend(f"tls = implicit\nverify = {written}", "unix:/old").certificate_name is None


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("store.example.org", "store.example.org"),
        ("old_store", "old_store"),
        ("10.0.0.5", "10.0.0.5"),
        ("2001:DB8::0:5", "2001:db8::5"),
        ("::ffff:10.0.0.5", "10.0.0.5"),
        ("fe80::5%eth0", "fe80::5"),
    ],
)
def test_a_certificate_is_for_a_host_name_or_an_address(written: str, name: str) -> None:
    assert the_backend(f"tls = starttls\nname = {written}", "unix:/old a:25").certificate_name == name


def test_a_backend_that_is_named_by_its_address_is_reached_without_tls() -> None:
    one = the_service("starttls = 25\nbackend = a:25").backend
    assert replace(one, name="store") == the_backend("")
    assert (one.tls, one.verify, one.certificate_name, one.ca) == ("none", "yes", None, None)
    assert (one.profile, one.identity, one.allow_relay) == ("intermediate", "none", False)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_protocol_says_how_its_backends_learn_the_client(protocol: str) -> None:
    for identity in ("none", *PROTOCOLS[protocol].identities):
        more = "\nwebirc_password_file = w" if identity == "webirc" else ""
        assert the_backend(f"identity = {identity}{more}", protocol=protocol).identity == identity


def test_the_dialects_know_their_identities() -> None:
    assert {name: set(DIALECTS[name].identities) for name in PROTOCOLS} == {
        name: set(traits.identities) for name, traits in PROTOCOLS.items()
    }


def test_every_service_is_told_what_its_backend_cannot_do_for_it() -> None:
    rest = """
[service:imap]
starttls = 143
backend = store
[service:pop3]
starttls = 110
backend = store
[backend:store]
address = a:25
identity = id
allow_relay = no"""
    assert [problem.split("; ")[0] for problem in problems(file(smtp="starttls = 25\nbackend = store", rest=rest))] == [
        "gw.ini: [backend:store] allow_relay: has no effect with identity = id, because the backend then gets the "
        "client's address",
        "gw.ini: [backend:store] identity: [service:smtp] uses this backend, and smtp does not support id",
        "gw.ini: [backend:store] allow_relay: [service:imap] uses this backend, and imap does not relay mail",
        "gw.ini: [backend:store] identity: [service:pop3] uses this backend, and pop3 does not support id",
        "gw.ini: [backend:store] allow_relay: [service:pop3] uses this backend, and pop3 does not relay mail",
    ]


def test_what_a_backend_can_be_told_is_not_asked_of_an_unknown_protocol() -> None:
    assert "is not a protocol" in the_problem(backend("identity = id", protocol="smpt"))


WEBIRC = "gw.ini: [backend:store] webirc_password_file: "


@pytest.mark.parametrize(
    ("options", "content", "problem"),
    [
        ("identity = webirc\nwebirc_password_file = w", "Zaun\n", ""),
        ("identity = webirc", "", "is missing; name a file with the password that the IRC server expects in WEBIRC"),
        ("webirc_password_file = w", "x", "is for identity = webirc only; remove it"),
        ("identity = webirc\nwebirc_password_file = bad", "x", "/etc/gw/bad: no"),
        *(
            (
                "identity = webirc\nwebirc_password_file = w",
                content,
                "/etc/gw/w: does not hold one word of at most 200 printable ASCII characters; write the password into "
                "it",
            )
            for content in ("", "two words", ":colon", "x" * 201, "h\u00e4", "a\nb")
        ),
    ],
)
def test_the_password_of_webirc_is_one_word_in_a_file(options: str, content: str, problem: str) -> None:
    complaint = lambda path: "no" if path.name == "bad" else None  # noqa: E731
    machine = Machine(Path("/etc/gw"), lambda: "gw.example.org", complaint, lambda path: content)
    text = backend(options, protocol="irc")
    if problem:
        assert the_problem(text, machine) == WEBIRC + problem
    else:
        (service,) = read(text, machine).services
        assert service.backend.secret == "Zaun"
        assert "Zaun" not in repr(service)


def test_the_password_is_read_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "w").write_text("Zaun\n")
    assert Machine().content(tmp_path / "w") == "Zaun\n"


def test_the_issuers_must_be_readable() -> None:
    machine = Machine(Path("/etc/gw"), lambda: "gw.example.org", lambda path: "no" if path.name == "ca.pem" else None)
    assert the_problem(backend("tls = starttls\nca = ca.pem"), machine) == (
        "gw.ini: [backend:store] ca: /etc/gw/ca.pem: no"
    )


@pytest.mark.parametrize(
    ("written", "networks"),
    [
        ("10.0.0.0/8", ["10.0.0.0/8"]),
        ("10.0.0.1 2001:DB8::1", ["10.0.0.1/32", "2001:db8::1/128"]),
        ("0.0.0.0/0\n  ::/0", ["0.0.0.0/0", "::/0"]),
        ("::ffff:10.0.0.1", ["10.0.0.1/32"]),
        ("::ffff:10.0.0.0/104 ::ffff:0:0/96", ["10.0.0.0/8", "0.0.0.0/0"]),
        ("::fffe:0:0/95", ["::fffe:0:0/95"]),
    ],
)
def test_load_balancers_are_networks_or_addresses(written: str, networks: list[str]) -> None:
    assert list(map(str, read(balancers(written)).services[0].accept_proxy)) == networks


@given(st.ip_addresses())
def test_addresses_are_canonical_as_in_the_proxy_protocol(address: IPv4Address | IPv6Address) -> None:
    assert str(canonical(str(address))) == proxyprotocol.canonical(str(address))


HOME = Machine(
    Path("/etc/gw"),
    lambda: "gw.example.org",
    is_local=lambda host: host in ("192.0.2.1", "2001:db8::1", "fe80::1%eth0", "gw"),
)
"""A machine with these addresses, besides the loopback ones, and this name."""


@pytest.mark.parametrize(
    ("address", "listener"),
    [
        ("127.0.0.1:25", "127.0.0.1:25"),
        ("127.0.0.1:25", "25"),
        ("127.0.0.1:25", "0.0.0.0:25"),
        ("127.0.0.1:25", "localhost:25"),
        ("127.9.9.9:25", "25"),
        ("localhost:25", "25"),
        ("localhost:25", "127.0.0.1:25"),
        ("localhost:25", "[::1]:25"),
        ("LocalHost:25", "[::]:25"),
        ("[::1]:25", "25"),
        ("[::1]:25", "[::]:25"),
        ("[::1]:25", "localhost:25"),
        ("[::1%lo]:25", "[::1]:25"),
        ("0.0.0.0:25", "25"),
        ("0.0.0.0:25", "0.0.0.0:25"),
        ("0.0.0.0:25", "127.0.0.1:25"),
        ("[::]:25", "25"),
        ("[::]:25", "[::1]:25"),
        ("192.0.2.1:25", "25"),
        ("192.0.2.1:25", "0.0.0.0:25"),
        ("192.0.2.1:25", "192.0.2.1:25"),
        # An address that only the other half of a cluster has now is still one that we would listen on.
        ("192.0.2.9:25", "192.0.2.9:25"),
        ("[2001:db8::1]:25", "25"),
        ("[2001:db8::1]:25", "[::]:25"),
        ("[fe80::1%eth0]:25", "[::]:25"),
        ("[fe80::1%eth0]:25", "[fe80::1%eth0]:25"),
        ("[::ffff:127.0.0.1]:25", "127.0.0.1:25"),
        ("[::ffff:127.0.0.1]:25", "0.0.0.0:25"),
        ("[::ffff:0.0.0.0]:25", "25"),
        ("[::ffff:192.0.2.1]:25", "25"),
        ("127.0.0.1:25", "[::ffff:127.0.0.1]:25"),
        ("127.0.0.1:25", "[::ffff:0.0.0.0]:25"),
        ("gw.example.org:25", "25"),
        ("GW.example.ORG:25", "0.0.0.0:25"),
        ("gw:25", "[::]:25"),
        ("mx.example.org:25", "MX.example.org:25"),
        ("unix:/run/smtp", "unix:/run/smtp"),
        ("unix:/run/smtp", "unix://run/./mail/../smtp"),
    ],
)
def test_a_backend_is_not_the_gateway_itself(address: str, listener: str) -> None:
    text = file(smtp=f"starttls = {listener}\nbackend = {address}")
    problem = the_problem(text, HOME)
    assert problem.startswith("gw.ini: [service:smtp] backend: ")
    assert " is the gateway itself: " in problem
    assert problem.endswith(" of [service:smtp] starttls; write the address of the server behind the gateway")


@pytest.mark.parametrize(
    ("address", "listener"),
    [
        ("127.0.0.1:26", "25"),
        ("127.0.0.1:25", "127.0.0.2:25"),
        ("127.0.0.1:25", "[::]:25"),
        ("[::1]:25", "0.0.0.0:25"),
        ("[::ffff:127.0.0.1]:25", "[::]:25"),
        ("0.0.0.0:25", "[::]:25"),
        ("[::]:25", "127.0.0.1:25"),
        ("127.0.0.1:25", "192.0.2.1:25"),
        ("192.0.2.9:25", "25"),
        ("192.0.2.9:25", "192.0.2.1:25"),
        ("[2001:db8::9]:25", "[::]:25"),
        ("[fe80::1%eth1]:25", "[fe80::1%eth0]:25"),
        ("mx.example.org:25", "25"),
        ("mx.example.org:25", "127.0.0.1:25"),
        ("127.0.0.1:25", "mx.example.org:25"),
        ("127.0.0.1:25", "0"),
        ("127.0.0.1:25", "systemd:smtp"),
        ("unix:/run/old", "unix:/run/smtp"),
        ("unix:/run/old", "25"),
        ("127.0.0.1:25", "unix:/run/smtp"),
    ],
)
def test_a_backend_may_be_a_neighbour(address: str, listener: str) -> None:
    assert read(file(smtp=f"starttls = {listener}\nbackend = {address}"), HOME).services


def test_every_address_of_a_backend_is_looked_at_and_every_listener() -> None:
    rest = (
        "[service:imap]\nimplicit = 993\nbackend = a:143\n[backend:store]\naddress = a:25 localhost:993 b:25 [::1]:25"
    )
    assert problems(file(smtp="starttls = 25\nbackend = store", rest=rest)) == [
        "gw.ini: [backend:store] address: localhost:993 is the gateway itself: *:993 of [service:imap] "
        "implicit; write the address of the server behind the gateway",
        "gw.ini: [backend:store] address: [::1]:25 is the gateway itself: *:25 of [service:smtp] starttls; "
        "write the address of the server behind the gateway",
    ]


def test_the_name_that_the_gateway_is_given_is_not_the_machines() -> None:
    # It may well be the name by which the old server is known behind the gateway.
    text = file(gateway="hostname = mx.example.org", smtp="starttls = 25\nbackend = mx.example.org:25")
    assert read(text).hostname == "mx.example.org"


def test_a_loop_is_found_on_the_machine_that_reads_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.pem").touch()
    path = tmp_path / "gw.ini"
    addresses = f"127.0.0.1:25 0x7f000001:25 {socket.gethostname().upper()}:25 240.0.0.2:25 no.invalid:25"
    store = f"[backend:store]\naddress = {addresses}"
    text = file(gateway="hostname = mx.example.org", smtp="starttls = 25\nbackend = store", rest=store)
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load(path, PROTOCOLS)
    assert [problem.split()[5] for problem in caught.value.problems] == addresses.split()[:3]


@pytest.mark.parametrize("host", ["192.0.2.199", "2001:db8::1"])
def test_a_machine_that_may_be_anybody_tells_nothing(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def can_be(host: str) -> bool:
        asked.append(host)
        return True

    monkeypatch.setattr(config, "_can_be", can_be)
    assert not config._is_local(host)
    assert [":" in one for one in asked] == [":" in host] * 2


@given(st.text())
def test_garbage_makes_problems_and_nothing_else(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(text)
    assert caught.value.problems


LINES = st.sampled_from(
    [
        *file(smtp="starttls = 25\nimplicit = 465\npolicy = required\nbackend = store").split("\n"),
        *("[backend:store]", "address = a:25 unix:/b", "  c:25", "[service:imap]", "received = no"),
        *("[service:pop3]", "certificate = d.pem e.pem", "profile = legacy", "legacy_clients = ::/0 x"),
        *("client_certificate = require", "client_ca = ca.pem"),
        *("[x", "= y", "key = k ; c", ":", "\0"),
    ]
)


@given(st.lists(LINES))
def test_any_order_of_lines_is_read_or_told_of(lines: list[str]) -> None:
    try:
        read("\n".join(lines))
    except ConfigurationError as wrong:
        for problem in wrong.problems:
            assert re.fullmatch(r"gw\.ini(, line \d+)?: [^\n\0]+", problem)


def test_the_addresses_are_shown_as_they_are_written() -> None:
    shown = [TCPAddress(None, 25), TCPAddress("::1", 25), TCPAddress("a", 25), UnixAddress("/s"), SystemdAddress("x")]
    assert list(map(str, shown)) == ["*:25", "[::1]:25", "a:25", "unix:/s", "systemd:x"]


def test_a_file_is_read_with_the_files_that_it_names(tmp_path: Path) -> None:
    path = tmp_path / "gw.ini"
    path.write_text("\ufeff" + file(gateway="hostname = mx.example.org", tls="certificate = c.pem\nkey = k/k.pem"))
    (tmp_path / "c.pem").touch()
    (tmp_path / "k").mkdir()
    with pytest.raises(ConfigurationError) as caught:
        load(path, PROTOCOLS)
    cure = "No such file or directory; write the path of a file that the gateway can read"
    assert caught.value.problems == [f"{path}, line 5: [tls] key: {tmp_path / 'k' / 'k.pem'}: {cure}"]
    (tmp_path / "k" / "k.pem").touch()
    assert load(path, PROTOCOLS).tls == TLS((Pair(tmp_path / "c.pem", tmp_path / "k" / "k.pem"),))


def test_relative_names_begin_at_the_file_wherever_the_process_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gw.ini").write_text(file(gateway="hostname = mx.example.org"))
    Path("c.pem").touch()
    assert load("gw.ini", PROTOCOLS).tls == TLS((Pair(tmp_path / "c.pem"),))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path / "none.ini", PROTOCOLS)
    assert caught.value.problems == [
        f"{tmp_path / 'none.ini'}: No such file or directory; write the path of the configuration file"
    ]


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "gw.ini"
    path.write_bytes(b"[gateway]\n\xff")
    with pytest.raises(ConfigurationError) as caught:
        load(path, PROTOCOLS)
    assert caught.value.problems == [f"{path}: octet 11 is not UTF-8; save the file as UTF-8"]


def test_it_is_pure() -> None:
    code = "import sys, gateway.config, gateway.telemetry.events; print('twisted' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(("options", "lazy"), [
    ("", False), ("connect = lazy", True), ("identity = proxy-v2", True), ("identity = proxy-v1", False),
])  # fmt: skip
def test_T18_a_backend_is_lazy_where_it_is_said_and_where_PROXY_waits_for_TLS(options: str, lazy: bool) -> None:
    backend = Backend("b", (), **dict([options.split(" = ")] if options else []))  # type: ignore[arg-type]
    assert backend.lazy is lazy


# --- the control socket ------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "control"), [
    ("", Control()),
    ("control = /run/gw", Control("/run/gw", named=True)),
    ("control = off", Control(None, named=True)),
    ("control_group = mail", Control(group="mail", mode=0o660)),
    ("control_mode = 0660", Control(mode=0o660)),
])  # fmt: skip
def test_where_a_gateway_is_steered_from(options: str, control: Control, tmp_path: Path) -> None:
    assert read(file(gateway=options)).control == control
    # Also where the rest of the file is wrong.
    broken = tmp_path / "gw.ini"
    broken.write_text(f"[nonsense\n[gateway]\nhostname = -\n{options}\n")
    assert config.control_of(broken) == control
    with pytest.raises(ConfigurationError):
        config.control_of(tmp_path / "missing.ini")
