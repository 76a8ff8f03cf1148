"""What `check` says of ports for data."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli import dataports
from gateway.config import parse
from gateway.config.reader import located
from gateway.dialects import DIALECTS

TEXT = """
[gateway]
hostname = gw.example.org
[tls]
certificate = a.pem
[service:imap]
starttls = 143
backend = 10.0.0.8:143
[service:ftp]
starttls = 21
backend = 10.0.0.8:21
"""


def warnings(more: str, root: Path, outgoing: str = "203.0.113.5", text: str = TEXT) -> list[str]:
    text += more
    configuration = parse(text, "gw.ini", DIALECTS)
    found = list(dataports.look(configuration, located(text), root=root, outgoing=lambda: outgoing))
    assert not any(one.fatal for one in found)
    return [one.text for one in found]


def test_a_public_address_needs_nothing(tmp_path: Path) -> None:
    assert warnings("", tmp_path) == []
    assert warnings("", tmp_path, "") == []
    assert warnings("implicit = 127.0.0.1:990 localhost:991 [fd00::1]:992 systemd:ftps\n", tmp_path) == []


@pytest.mark.parametrize(
    ("more", "outgoing", "host"),
    [("", "10.0.0.7", "10.0.0.7"), ("implicit = 192.168.1.7:990\n", "203.0.113.5", "192.168.1.7")],
)
def test_a_private_address_may_be_behind_a_nat(tmp_path: Path, more: str, outgoing: str, host: str) -> None:
    (told,) = warnings(more, tmp_path, outgoing)
    assert told == (
        f"[service:ftp] passive_address: is not set, and clients in passive mode are told {host}; behind a NAT write "
        "passive_address = the IPv4 address that clients connect to"
    )
    assert warnings(more + "passive_address = 203.0.113.5\n", tmp_path, outgoing) == []


def test_a_load_balancer_has_another_address(tmp_path: Path) -> None:
    (told,) = warnings("accept_proxy = 10.0.0.100\n", tmp_path)
    assert told == (
        "[service:ftp] passive_address: is not set, and clients come through a load balancer (accept_proxy); write "
        "passive_address = the IPv4 address that clients connect to"
    )


def test_a_listener_among_the_ports(tmp_path: Path) -> None:
    (told,) = warnings("passive_ports = 2000-3000\n", tmp_path, text=TEXT.replace("143\n", "2143\n", 1))
    assert told == ("[service:ftp] passive_ports: *:2143 of [service:imap] is one of them; choose a range without it")


@pytest.mark.parametrize(
    ("file", "content", "cure"),
    [
        (
            "etc/ufw/ufw.conf",
            "ENABLED=yes\n",
            "ufw); if it does not let these ports in yet: ufw allow 50000:50999/tcp",
        ),
        ("run/firewalld/x", "", "firewall-cmd --permanent --add-port=50000-50999/tcp"),
        ("etc/nftables.conf", "policy drop;", "nft add rule inet filter input tcp dport 50000-50999 accept"),
    ],
)
def test_a_firewall_must_let_the_ports_in(tmp_path: Path, file: str, content: str, cure: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(content)
    (told,) = warnings("", tmp_path)
    assert told.startswith("[service:ftp] passive_ports: this machine has a firewall (")
    assert told.endswith(cure)


def test_a_firewall_that_is_off(tmp_path: Path) -> None:
    (tmp_path / "etc" / "ufw").mkdir(parents=True)
    (tmp_path / "etc" / "ufw" / "ufw.conf").write_text("ENABLED=no\n")
    assert warnings("", tmp_path) == []


def test_the_address_of_this_machine_is_one() -> None:
    assert dataports._outgoing() == "" or dataports._outgoing().count(".") == 3
