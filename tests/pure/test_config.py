"""What the configuration file may say, and what is answered when it says something else."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Configuration, ConfigurationError, Machine, load, parse
from gateway.config.values import TLS, Backend, Service, SystemdAddress, TCPAddress, Timeouts, UnixAddress

ROOT = Path(__file__).parents[2]


class Policy(Enum):
    AUTH_ONLY = "auth-only"


@dataclass(frozen=True)
class Traits:
    options: frozenset[str] = frozenset()
    policies: Mapping[int, Policy] = field(default_factory=dict)


PROTOCOLS = {
    "smtp": Traits(frozenset({"received", "newlines"}), {25: Policy.AUTH_ONLY}),
    "imap": Traits(),
    "pop3": Traits(),
}
MACHINE = Machine(Path("/etc/gw"), lambda: "gw.example.org")

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


def problems(text: str, machine: Machine = MACHINE) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(text, machine)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def file(*, gateway: str = "", tls: str = "certificate = c.pem", smtp: str = "", rest: str = "") -> str:
    """A good file, and what is to be looked at."""
    service = smtp or "starttls = 25\nbackend = 10.0.0.5:25"
    return f"[gateway]\n{gateway}\n[tls]\n{tls}\n[service:smtp]\n{service}\n{rest}\n"


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

    assert read(SHORTEST) == Configuration(
        hostname="gw.example.org",
        drain=30.0,
        log="text",
        log_users=False,
        tls=TLS(live / "fullchain.pem", live / "privkey.pem"),
        services=(
            Service("smtp", "smtp", on(25), (), ("auth-only",), smtp),
            Service("submission", "smtp", on(587), on(465), ("required",), submission),
            Service("imap", "imap", on(143), on(993), ("required",), imap),
            Service("pop3", "pop3", on(110), on(995), ("required",), pop3),
        ),
        bad_commands=10,
        timeouts=Timeouts(handshake=15, preauth=180, plaintext=60, connect=10, greeting=30, linger=3),
    )


def test_every_option() -> None:
    text = """
        [gateway]
        hostname = mail.example.org
        drain = 1.5 min
        log = json
        log_users = yes
        [tls]
        certificate = /c.pem
        [limits]
        bad_commands = 3
        [timeouts]
        handshake = 500 ms
        preauth = 1 h
        connect = 1s
        greeting = 2 s
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
        [backend:store]
        address = old.example.org:25
          [2001:DB8::0:1]:25 unix:/run/old my_store:25
        connect = lazy
        tls = none
        identity = none
    """
    assert read(re.sub("(?m)^        ", "", text)) == Configuration(
        hostname="mail.example.org",
        drain=90.0,
        log="json",
        log_users=True,
        tls=TLS(Path("/c.pem"), None),
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
                ),
                received=False,
                newlines="reject",
            ),
        ),
        bad_commands=3,
        timeouts=Timeouts(handshake=0.5, preauth=3600, connect=1, greeting=2, linger=3),
    )


def test_the_shipped_file_shows_the_defaults() -> None:
    text = (ROOT / "config" / "gateway.ini").read_text()
    shown = re.sub(r"(?m)^# (\w+ = .+)$", r"\1", text)
    machine = Machine(Path("/etc"), lambda: "mail.example.org")
    assert shown.count("\n") == text.count("\n")
    assert read(shown, machine) == read(text, machine)
    assert set(re.findall(r"(?m)^(\w+) = ", shown)) >= {
        *("hostname", "drain", "log", "log_users", "certificate", "key"),
        *("protocol", "starttls", "implicit", "policy", "backend", "received", "newlines"),
        *("address", "connect", "tls", "identity"),
        *("bad_commands", "handshake", "preauth", "connect", "greeting", "linger"),
    }


def test_the_default_policy_depends_on_the_port() -> None:
    assert the_service("starttls = 587 unix:/s systemd:x 10.0.0.1:25\nbackend = a:25").policies == (
        "required",
        "required",
        "required",
        "auth-only",
    )


# What is written in a file that is good but for that, and the one problem that it makes.
SLIPS = {
    "hostname with an underscore": (
        file(gateway="hostname = my_host"),
        '[gateway] hostname: "my_host" is not a host name; write a fully qualified one, like mail.example.org',
    ),
    "hostname that is an address": (
        file(gateway="hostname = 10.0.0.1"),
        '[gateway] hostname: "10.0.0.1" is not a host name; write a fully qualified one, like mail.example.org',
    ),
    "duration without unit": (
        file(gateway="drain = 30"),
        '[gateway] drain: "30" is not a duration; write a number and ms, s, min or h, like 30 s',
    ),
    "duration in foreign digits": (
        file(gateway="drain = \u0663 s"),
        '[gateway] drain: "\\u0663 s" is not a duration; write a number and ms, s, min or h, like 30 s',
    ),
    "duration that is too long": (
        file(gateway="drain = 25 h"),
        '[gateway] drain: "25 h" is out of range; write 0 s to 24 h',
    ),
    "duration that is too short": (
        file(rest="[timeouts]\nlinger = 0 s"),
        '[timeouts] linger: "0 s" is out of range; write 0.1 s to 24 h',
    ),
    "number that is none": (
        file(rest="[limits]\nbad_commands = many"),
        '[limits] bad_commands: "many" is not a number from 1 to 1000',
    ),
    "number out of range": (
        file(rest="[limits]\nbad_commands = 0"),
        '[limits] bad_commands: "0" is not a number from 1 to 1000',
    ),
    "word that is not possible": (
        file(gateway="log = xml"),
        '[gateway] log: "xml" is not possible here; write text or json',
    ),
    "neither yes nor no": (
        file(gateway="log_users = true"),
        '[gateway] log_users: "true" is not possible here; write yes or no',
    ),
    "option without value": (
        file(gateway="log ="),
        "[gateway] log: has no value; give it one, or leave the option out",
    ),
    "comment behind a value": (
        file(gateway="log = json ; not text"),
        '[gateway] log: "json ; not text" is not possible here; write text or json; a comment needs a line of its own',
    ),
    "option with a slip of the pen": (
        file(gateway="hostnam = a.example.org\nhostname = b.example.org"),
        "[gateway] hostnam: unknown option; did you mean hostname?",
    ),
    "option of a later version": (
        file(gateway="workers = 2"),
        "[gateway] workers: unknown option; [gateway] takes hostname, drain, log or log_users",
    ),
    "option of configparser's DEFAULT": (
        file(rest="[DEFAULT]\nlog = json"),
        "[DEFAULT]: unknown section; there are [gateway], [tls], [limits], [timeouts], [service:NAME], [backend:NAME]",
    ),
    "section with a slip of the pen": (
        file(rest="[servcie:imap]"),
        "[servcie:imap]: unknown section; did you mean [service:imap]?",
    ),
    "section in capitals": (
        file(rest="[Limits]"),
        "[Limits]: unknown section; did you mean [limits]?",
    ),
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
        "[tls] certificate: is missing; name the PEM file that holds the certificate and its chain",
    ),
    "several certificates": (
        file(tls="certificate = a.pem\n  b.pem"),
        '[tls] certificate: "a.pem\\nb.pem" is more than one word; this version takes one file, and its name must not '
        "hold blanks",
    ),
    "unknown protocol": (
        file(smtp="protocol = smpt\nstarttls = 25\nbackend = a:25"),
        '[service:smtp] protocol: "smpt" is not a protocol; did you mean smtp?',
    ),
    "protocol forgotten": (
        file(rest="[service:news]\nstarttls = 119\nbackend = a:119"),
        "[service:news] protocol: is missing, and the section's name does not tell it: "
        '"news" is not a protocol; write protocol = smtp, imap or pop3',
    ),
    "no address": (
        file(smtp="backend = a:25"),
        "[service:smtp] starttls: is missing, and so is implicit; name an address to listen on, like starttls = 25",
    ),
    "no backend": (
        file(smtp="starttls = 25"),
        "[service:smtp] backend: is missing; write host:port, unix:/path or the NAME of a [backend:NAME]",
    ),
    "backend without port": (
        file(smtp="starttls = 25\nbackend = 10.0.0.5"),
        "[service:smtp] backend: there is no [backend:10.0.0.5]; add it, or write an address with its port, like "
        "10.0.0.5:25",
    ),
    "several addresses": (
        file(smtp="starttls = 25\nbackend = a:25 b:25"),
        '[service:smtp] backend: "a:25 b:25" is more than one word; give one address, or name a [backend:NAME] that '
        "lists several",
    ),
    "backend with a slip of the pen": (
        file(smtp="starttls = 25\nbackend = stor", rest="[backend:store]\naddress = a:25"),
        "[service:smtp] backend: there is no [backend:stor]; did you mean store?",
    ),
    "backend that nobody uses": (
        file(rest="[backend:store]\naddress = a:25"),
        "[backend:store]: no service uses it; name it in a service's backend, or remove it",
    ),
    "backend without address": (
        file(smtp="starttls = 25\nbackend = store", rest="[backend:store]"),
        "[backend:store] address: is missing; write host:port or unix:/path",
    ),
    "TLS to the backend": (
        file(smtp="starttls = 25\nbackend = store", rest="[backend:store]\naddress = a:25\ntls = starttls"),
        "[backend:store] tls: this version cannot speak TLS to a backend; only none is possible so far",
    ),
    "opportunistic TLS to the backend": (
        file(smtp="starttls = 25\nbackend = store", rest="[backend:store]\naddress = a:25\ntls = maybe"),
        '[backend:store] tls: "maybe" is not possible here; write none',
    ),
    "identity": (
        file(smtp="starttls = 25\nbackend = store", rest="[backend:store]\naddress = a:25\nidentity = xclient"),
        "[backend:store] identity: this version cannot tell a backend who the client is; only none is possible so far",
    ),
    "policy without a plaintext port": (
        file(smtp="implicit = 465\npolicy = required\nbackend = a:25"),
        "[service:smtp] policy: is for plaintext ports, and this service has none; remove it, or add starttls",
    ),
    "option of another protocol": (
        file(rest="[service:imap]\nstarttls = 143\nbackend = a:143\nreceived = no"),
        "[service:imap] received: imap has no such option, only smtp has; remove it",
    ),
    "port out of range": (
        file(smtp="starttls = 65536\nbackend = a:25"),
        '[service:smtp] starttls: "65536": port "65536" is not a number from 0 to 65535',
    ),
    "port that is none": (
        file(smtp="starttls = 127.0.0.1:smtp\nbackend = a:25"),
        '[service:smtp] starttls: "127.0.0.1:smtp": port "smtp" is not a number from 0 to 65535',
    ),
    "backend on port 0": (
        file(smtp="starttls = 25\nbackend = a:0"),
        '[service:smtp] backend: "a:0": port "0" is not a number from 1 to 65535',
    ),
    "host without port": (
        file(smtp="starttls = localhost\nbackend = a:25"),
        '[service:smtp] starttls: "localhost" has no port; write 25, 0.0.0.0:25, [::]:25, unix:/path or systemd:NAME',
    ),
    "IPv6 without brackets": (
        file(smtp="starttls = ::1:25\nbackend = a:25"),
        '[service:smtp] starttls: "::1:25" is ambiguous; write an IPv6 address in brackets, like [2001:db8::1]:25',
    ),
    "IPv6 that is none": (
        file(smtp="starttls = 25\nbackend = [::g]:25"),
        '[service:smtp] backend: "[::g]:25": "[::g]" is not an IPv6 address; write host:port, '
        "[IPv6]:port or unix:/path",
    ),
    "IPv4 that is none": (
        file(smtp="starttls = 25\nbackend = 10.0.0.256:25"),
        '[service:smtp] backend: "10.0.0.256:25": "10.0.0.256" is neither an address nor a host name; write host:port, '
        "[IPv6]:port or unix:/path",
    ),
    "relative socket": (
        file(smtp="starttls = unix:smtp\nbackend = a:25"),
        '[service:smtp] starttls: "unix:smtp": the path must be absolute and hold at most 107 octets',
    ),
    "socket name that the kernel cannot take": (
        file(smtp=f"starttls = unix:/{'x' * 107}\nbackend = a:25"),
        f'[service:smtp] starttls: "unix:/{"x" * 51}...": the path must be absolute and hold at most 107 octets',
    ),
    "systemd without a name": (
        file(smtp="starttls = systemd:\nbackend = a:25"),
        '[service:smtp] starttls: "" is not a name; use up to 63 letters, digits, dots, hyphens and underscores',
    ),
    "backend that systemd listens for": (
        file(smtp="starttls = 25\nbackend = store", rest="[backend:store]\naddress = systemd:store"),
        '[backend:store] address: "systemd:store": port "store" is not a number from 1 to 65535',
    ),
    "no section at all but tls": (
        "[tls]\ncertificate = c.pem",
        "[service:NAME]: there is none, so nothing would be served; add one, like [service:smtp]",
    ),
    "line that is nothing": (
        file(gateway="drain"),
        'line 2: "drain" is neither a [section] nor an option = value',
    ),
    "section that stands twice": (
        file(rest="[tls]\nkey = k.pem\nkey = k.pem"),
        "[tls]: stands a second time in line 8; put it all in one section",
    ),
    "option that stands twice": (
        file(tls="certificate = c.pem\ncertificate = d.pem\n  e.pem"),
        "[tls] certificate: stands a second time in line 5; keep one of them",
    ),
    "option before the first section": (
        "log = json\ndrain = 3\n" + file(),
        'line 1: "log = json" stands before the first section; begin with a section like [tls]',
    ),
    "control character": (
        file(gateway="log = text\0"),
        "line 2: holds a NUL character; a configuration file is plain text",
    ),
}


@pytest.mark.parametrize(("text", "problem"), SLIPS.values(), ids=SLIPS)
def test_one_slip_is_one_line_that_tells_the_cure(text: str, problem: str) -> None:
    assert the_problem(text) == f"gw.ini: {problem}"


def test_all_problems_come_at_once() -> None:
    text = file(gateway="log = xml\nworkers = 3", tls="", smtp="starttls = 99999\nbackend = store\npolicy = never")
    assert [problem.split(":", 2)[1] for problem in problems(text)] == [
        " [gateway] log",
        " [gateway] workers",
        " [tls] certificate",
        " [service",
        " [service",
        " [service",
    ]


def test_an_empty_file() -> None:
    assert problems("") == [
        "gw.ini: [tls] certificate: is missing; name the PEM file that holds the certificate and its chain",
        "gw.ini: [service:NAME]: there is none, so nothing would be served; add one, like [service:smtp]",
    ]


def test_a_machine_without_a_usable_name() -> None:
    assert the_problem(file(), Machine(hostname=lambda: "my_host")) == (
        'gw.ini: [gateway] hostname: is missing, and the machine\'s own name "my_host" is no host name; add it'
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
        assert "is taken by " in problem
        assert problem.endswith("[service:smtp] starttls; an address can serve one purpose only")


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


@given(st.text())
def test_garbage_makes_problems_and_nothing_else(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(text)
    assert caught.value.problems


LINES = st.sampled_from(
    [
        *file(smtp="starttls = 25\nimplicit = 465\npolicy = required\nbackend = store").split("\n"),
        *("[backend:store]", "address = a:25 unix:/b", "  c:25", "[service:imap]", "received = no"),
        *("[x", "= y", "key = k ; c", ":", "\0"),
    ]
)


@given(st.lists(LINES))
def test_any_order_of_lines_is_read_or_told_of(lines: list[str]) -> None:
    try:
        read("\n".join(lines))
    except ConfigurationError as wrong:
        for problem in wrong.problems:
            assert re.fullmatch(r"gw\.ini: (line \d+|\[.+\][^:]*): [^\n\0]+", problem)


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
    cure = "No such file or directory; name a file that the gateway may read when it starts"
    assert caught.value.problems == [f"{path}: [tls] key: {tmp_path / 'k' / 'k.pem'}: {cure}"]
    (tmp_path / "k" / "k.pem").touch()
    assert load(path, PROTOCOLS).tls == TLS(tmp_path / "c.pem", tmp_path / "k" / "k.pem")


def test_relative_names_begin_at_the_file_wherever_the_process_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gw.ini").write_text(file(gateway="hostname = mx.example.org"))
    Path("c.pem").touch()
    assert load("gw.ini", PROTOCOLS).tls.certificate == tmp_path / "c.pem"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path / "none.ini", PROTOCOLS)
    assert caught.value.problems == [f"{tmp_path / 'none.ini'}: No such file or directory; name the configuration file"]


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
