"""The part of `check` about ports for data: whether clients reach them through a NAT and a firewall."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

from ..config import Places
from ..config.values import Configuration, Service, TCPAddress
from ..sessions.agreed import channel_terms
from .finding import Finding, at

PRIVATE: Final = tuple(map(ip_network, ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16")))
"""Behind a NAT, if clients come from the Internet (RFC 1918, RFC 6598)."""
FIREWALLS: Final[tuple[tuple[str, str, str, str], ...]] = (
    ("ufw", "etc/ufw/ufw.conf", "ENABLED=yes", "ufw allow {first}:{last}/tcp"),
    ("firewalld", "run/firewalld", "", "firewall-cmd --permanent --add-port={first}-{last}/tcp"),
    ("nftables", "etc/nftables.conf", "policy drop", "nft add rule inet filter input tcp dport {first}-{last} accept"),
)
"""Name, a file that shows that it is there, a word in it (nothing: the file itself is enough), and what to do."""


def _outgoing() -> str:
    """The IPv4 address of this machine towards the Internet; empty without one.  Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        host: str = sock.getsockname()[0]
    return host


def look(
    configuration: Configuration,
    places: Places,
    *,
    root: Path = Path("/"),
    outgoing: Callable[[], str] = _outgoing,
) -> Iterator[Finding]:
    """All are warnings.  `root` is where the files of this machine are."""
    listening = [(service, address) for service in configuration.services for address in _listening(service)]
    for service in configuration.services:
        terms = channel_terms(configuration, service)
        if terms is None:
            continue
        for option, fault in _faults(service, dict(service.options), terms.ports, listening, root, outgoing):
            yield at(places, f"service:{service.name}", option, fault, fatal=False)


def _faults(
    service: Service,
    options: Mapping[str, str],
    ports: range,
    listening: list[tuple[Service, TCPAddress]],
    root: Path,
    outgoing: Callable[[], str],
) -> Iterator[tuple[str, str]]:
    if not options["passive_address"]:
        cure = "write passive_address = the IPv4 address that clients connect to"
        if service.accept_proxy:
            yield "passive_address", f"is not set, and clients come through a load balancer (accept_proxy); {cure}"
        elif private := next(filter(_is_private, _hosts(service, outgoing)), ""):
            yield "passive_address", f"is not set, and clients in passive mode are told {private}; behind a NAT {cure}"
    for other, address in listening:
        if address.port in ports:
            fault = f"{address} of [service:{other.name}] is one of them; choose a range without it"
            yield "passive_ports", fault
    for name, file, word, command in FIREWALLS:
        if _there(root / file, word):
            cure = command.format(first=ports[0], last=ports[-1])
            yield (
                "passive_ports",
                f"this machine has a firewall ({name}); if it does not let these ports in yet: {cure}",
            )


def _listening(service: Service) -> list[TCPAddress]:
    return [address for address in (*service.starttls, *service.implicit) if isinstance(address, TCPAddress)]


def _hosts(service: Service, outgoing: Callable[[], str]) -> Iterator[str]:
    for address in _listening(service):
        yield outgoing() if address.host in (None, "0.0.0.0") else str(address.host)


def _is_private(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in PRIVATE)


def _there(file: Path, word: str) -> bool:
    try:
        return file.exists() and (not word or word in file.read_text("utf-8", "replace"))
    except OSError:
        return False
