"""What the configuration file may say of the admin listener: never open to strangers by mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.admin import is_local
from gateway.config.values import Address, Admin, Pair, SystemdAddress, TCPAddress, UnixAddress
from tests.pure.test_config import file, problems, read

LOCAL = TCPAddress("127.0.0.1", 9180)
TLS = (Pair(Path("/etc/gw/c.pem")),)


def admin(options: str, tls: str = "certificate = c.pem") -> Admin | None:
    return read(file(tls=tls, rest=f"[admin]\n{options}")).admin


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("listen = 127.0.0.1:9180", Admin(LOCAL, None, (), ())),
        ("listen = unix:/run/gw.sock", Admin(UnixAddress("/run/gw.sock"), None, (), ())),
        (
            "listen = 192.0.2.1:9180\ntoken_file = token\ntls = yes\nnames = GW.example.org b.example.org",
            Admin(
                TCPAddress("192.0.2.1", 9180), Path("/etc/gw/token"), ("gw.example.org", "b.example.org"), TLS
            ),
        ),
        (
            "listen = localhost:9180\ntls = yes\ncertificate = own.pem\nkey = own.key",
            Admin(TCPAddress("localhost", 9180), None, (), (Pair(Path("/etc/gw/own.pem"), Path("/etc/gw/own.key")),)),
        ),
    ],
)  # fmt: skip
def test_an_admin_listener(options: str, found: Admin) -> None:
    assert admin(options) == found


def test_without_the_section_there_is_none() -> None:
    assert read(file()).admin is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("", ["[admin]: is empty; write listen = 127.0.0.1:9180, or remove the section"]),
        ("tls = no", ["[admin] listen: is missing; write one like 127.0.0.1:9180 or unix:/path"]),
        ("listen = 127.0.0.1:1 127.0.0.1:2", ['[admin] listen: "127.0.0.1:1 127.0.0.1:2" is more than one word']),
        ("listen = systemd:admin", ["[admin] listen: a socket of systemd is not possible here"]),
        (
            "listen = 9180",
            ["[admin] token_file: is missing, and other machines can reach *:9180", "[admin] tls: is missing"],
        ),
        ("listen = 192.0.2.1:9180\ntoken_file = t", ["[admin] tls: is missing, and other machines can"]),
        (
            "listen = gw.example.org:9180\ntls = yes",
            ["[admin] token_file: is missing, and other machines can reach gw.example.org:9180"],
        ),
        ("listen = 127.0.0.1:9180\ncertificate = c.pem", ["[admin] certificate: means nothing without tls = yes"]),
        ("listen = 127.0.0.1:9180\ntls = yes\nkey = c.key", ["[admin] certificate: is missing, and key needs it"]),
        ("listen = 127.0.0.1:25", ["[admin] listen: 127.0.0.1:25 is already used by *:25 of [service:smtp] starttls"]),
        ("listen = 127.0.0.1:9180\nprofile = modern", ["[admin] profile: unknown option"]),
    ],
)  # fmt: skip
def test_a_mistake_is_told(options: str, told: list[str]) -> None:
    found = problems(file(rest=f"[admin]\n{options}"))
    assert len(found) == len(told), found
    assert all(text in line for text, line in zip(told, found, strict=True)), found


def test_tls_needs_a_certificate() -> None:
    service = "[service:imap]\nimplicit = 993\nbackend = a:143\ncertificate = c.pem\n"
    found = problems(service + "[admin]\nlisten = 127.0.0.1:9180\ntls = yes\n[gateway]\nhostname = gw.example.org\n")
    assert len(found) == 1
    assert "[admin] certificate: is missing, and [tls] has none" in found[0]


@pytest.mark.parametrize(
    ("address", "local"),
    [
        (TCPAddress("::1", 1), True), (TCPAddress("127.9.9.9", 1), True), (TCPAddress("LOCALHOST", 1), True),
        (TCPAddress("0.0.0.0", 1), False), (TCPAddress("::", 1), False), (TCPAddress(None, 1), False),
        (TCPAddress("localhost.example.org", 1), False), (UnixAddress("/x"), True), (SystemdAddress("x"), True),
    ],
)  # fmt: skip
def test_who_can_reach_an_address(address: Address, local: bool) -> None:
    assert is_local(address) is local
