"""FTP through a NAT and a firewall: clients know the gateway by an address that it does not have itself."""

from __future__ import annotations

import ftplib
import io
import random
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.process import ftpd, programs
from tests.process.conftest import directory_for_servers
from tests.process.networks import Network, network
from tests.process.running import CANARY, DEADLINE, ROOT, Gateway, Identity, Service, launch

CLIENT, OUTSIDE = ("203.0.113.2", "2001:db8:1::2"), ("203.0.113.1", "2001:db8:1::1")
"""The client, and the address of the NAT that it knows for the gateway's.  IPv4, IPv6."""
GATEWAY, INSIDE = ("10.77.0.2", "fd00:77::2"), ("10.77.0.1", "fd00:77::1")
PORT, PASSIVE = 21, "50000-50099"
"""In networks of our own all of them are free."""

_NAT = f"""
table inet nat {{
    chain in {{
        type nat hook prerouting priority dstnat;
        iifname outside ip daddr {OUTSIDE[0]} tcp dport {{ {PORT}, {PASSIVE} }} dnat ip to {GATEWAY[0]}
        iifname outside ip6 daddr {OUTSIDE[1]} tcp dport {{ {PORT}, {PASSIVE} }} dnat ip6 to {GATEWAY[1]}
    }}
    chain out {{
        type nat hook postrouting priority srcnat;
        oifname outside masquerade
    }}
}}
"""


def firewall() -> str:
    """The gateway's, as docs/ftp.md has it."""
    blocks: list[str] = re.findall(r"(?ms)^```text\n(table .*?)^```$", (ROOT / "docs" / "ftp.md").read_text())
    return next(block for block in blocks if "50000-50999" in block)


class Trusting(ftplib.FTP_TLS):
    trust_server_pasv_ipv4_address = True
    """As clients did before 2021: it connects to the address in the answer to PASV."""


@dataclass(frozen=True)
class Place:
    client: Network
    gateway: Gateway
    context: ssl.SSLContext

    def login(self, host: str, passive: bool = True) -> ftplib.FTP_TLS:
        ftp = Trusting(context=self.context)
        ftp.connect(host, PORT, DEADLINE)
        ftp.login(ftpd.USER, CANARY)
        ftp.prot_p()
        ftp.set_pasv(passive)
        return ftp


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Client, NAT and gateway, each in a network of its own; the server is in the gateway's."""
    nft = programs.need("nft", debian="nftables")
    with ExitStack() as stack:
        directory = stack.enter_context(directory_for_servers())
        client, nat, behind = (stack.enter_context(network()) for _ in range(3))
        client.connect("outside", [f"{CLIENT[0]}/24", f"{CLIENT[1]}/64"],
                       nat, "outside", [f"{OUTSIDE[0]}/24", f"{OUTSIDE[1]}/64"])  # fmt: skip
        behind.connect("inside", [f"{GATEWAY[0]}/24", f"{GATEWAY[1]}/64"],
                       nat, "inside", [f"{INSIDE[0]}/24", f"{INSIDE[1]}/64"])  # fmt: skip
        for address in INSIDE:
            family = "-6" if ":" in address else "-4"
            behind.run("ip", family, "route", "add", "default", "via", address)
        nat.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        nat.run(nft, "-f", "-", said=_NAT)
        behind.run(nft, "-f", "-", said=firewall())
        identity = Identity.issue(directory)
        with behind.inside():
            server = stack.enter_context(ftpd.running(ftpd.VSFTPD, directory))
            options = {"passive_address": OUTSIDE[0], "passive_ports": PASSIVE, "active": "yes"}
            addresses = [f"{GATEWAY[0]}:{PORT}", f"[{GATEWAY[1]}]:{PORT}"]
            service = Service("ftp", server.address, modes=("starttls",), options=options, addresses=addresses)
            home = directory / "gateway"
            home.mkdir()
            gateway = launch(home, identity, [service])
        stack.callback(gateway.kill)
        context = ssl.create_default_context(cafile=str(identity.authority))
        context.check_hostname = False
        yield Place(client, gateway, context)
        gateway.terminate()
        gateway.end()


def carry(ftp: ftplib.FTP_TLS) -> None:
    octets = random.randbytes(1_000_000)
    ftp.storbinary("STOR file", io.BytesIO(octets))
    came = io.BytesIO()
    ftp.retrbinary("RETR file", came.write)
    assert came.getvalue() == octets
    ftp.quit()


def test_PASV_tells_the_address_outside(place: Place) -> None:
    with place.client.inside(), place.login(OUTSIDE[0]) as ftp:
        assert ftplib.parse227(ftp.sendcmd("PASV"))[0] == OUTSIDE[0]
        carry(ftp)


def test_EPSV_has_no_address(place: Place) -> None:
    with place.client.inside(), place.login(OUTSIDE[0]) as ftp:
        ftp.af = socket.AF_INET6  # ftplib says EPSV for IPv6 alone
        carry(ftp)


def test_IPv6_clients_use_EPSV(place: Place) -> None:
    with place.client.inside(), place.login(OUTSIDE[1]) as ftp:
        with pytest.raises(ftplib.error_perm, match="522"):
            ftp.sendcmd("PASV")
        carry(ftp)


@pytest.mark.parametrize("host", OUTSIDE, ids=["IPv4", "IPv6"])
def test_active_mode_comes_from_the_address_outside(place: Place, host: str) -> None:
    with place.client.inside(), place.login(host, passive=False) as ftp:
        carry(ftp)
