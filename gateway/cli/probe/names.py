"""What DNS says of a mail server: TLSA records (RFC 7672) and the domain's MTA-STS policy (RFC 8461).

dnspython is an extra: without it, nothing is asked.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from ...records import dataclass
from ...wire.tls.stranger import TLSA
from ..report import shown
from .facts import Sts

MISSING = "dnspython is not installed (pip install 'starttls-gateway[dns]')"
LIFETIME = 5.0
"""Seconds for one question, and for the policy."""
LONGEST = 65536
"""Octets of a policy that are read (RFC 8461 3.3)."""
FEWEST_LABELS = 2
"""Of a domain that may have a policy: `example.org`, not `org`."""

Fetch = Callable[[str], bytes]
"""The domain -> its policy.  Raises OSError or http.client.HTTPException."""


@dataclass(frozen=True, slots=True)
class Records:
    """TLSA records of one port."""

    records: tuple[TLSA, ...] = ()
    secure: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """All that DNS told."""

    skipped: str = ""
    tlsa: Records | None = None
    sts: Sts | None = None


class Resolver:
    """Asks the system's name servers, or the one at this address."""

    def __init__(self, server: tuple[str, int] | None = None) -> None:
        """Raises ImportError without dnspython, and OSError without a name server."""
        import dns.flags
        import dns.resolver

        self._resolver: Any = dns.resolver.Resolver(configure=server is None)
        if server is not None:
            self._resolver.nameservers, self._resolver.port = [server[0]], server[1]
        self._resolver.lifetime = LIFETIME
        # AD is set for whoever asks with DO: then the resolver has validated the answer (RFC 6840 5.7).
        self._resolver.use_edns(0, dns.flags.DO, 1232)
        self._nothing = (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer)
        self._authentic = dns.flags.AD

    def tlsa(self, host: str, port: int) -> Records:
        import dns.exception

        try:
            answer = self._resolver.resolve(f"_{port}._tcp.{host}", "TLSA")
        except self._nothing:
            return Records()
        except dns.exception.DNSException as wrong:
            return Records(error=_why(wrong))
        records = tuple(TLSA(one.usage, one.selector, one.mtype, bytes(one.cert)) for one in answer)
        return Records(records, bool(answer.response.flags & self._authentic))

    def text(self, name: str) -> list[bytes]:
        """The TXT records of a name; none where there are none, or no answer."""
        import dns.exception

        try:
            return [b"".join(one.strings) for one in self._resolver.resolve(name, "TXT")]
        except dns.exception.DNSException:
            return []


def ask(
    host: str, port: int, domain: str | None, server: tuple[str, int] | None, mx: bool, fetch: Fetch | None = None
) -> Told:
    """Blocks, for some seconds at most.  `mx`: the host takes mail for a domain; `domain`: for this one."""
    with suppress(ValueError):
        ip_address(host)
        return Told(skipped=f"{host} is an address, and has no records; say the host by its name")
    if not host or host == "localhost":
        return Told(skipped="the host has no name in DNS")
    try:
        resolver = Resolver(server)
    except ImportError:
        return Told(skipped=MISSING)
    except Exception as wrong:
        return Told(skipped=f"no name server: {_why(wrong)}")
    sts = None
    if mx or domain:
        sts = _policy(resolver, host, [domain] if domain else _domains(host), bool(domain), fetch or fetch_policy)
    return Told(tlsa=resolver.tlsa(host, port), sts=sts)


def _domains(host: str) -> list[str]:
    """The host itself, and what stands above it."""
    labels = host.rstrip(".").split(".")
    return [".".join(labels[at:]) for at in range(max(1, len(labels) - FEWEST_LABELS + 1))]


def _policy(resolver: Resolver, host: str, domains: Sequence[str], asked: bool, fetch: Fetch) -> Sts:
    for domain in domains:
        if any(text.startswith(b"v=STSv1") for text in resolver.text(f"_mta-sts.{domain}")):
            return replace(_fetched(domain, host, fetch), asked=asked)
    return Sts(domains[-1], asked)


def _fetched(domain: str, host: str, fetch: Fetch) -> Sts:
    try:
        text = fetch(domain)
    except (OSError, http.client.HTTPException) as wrong:
        return Sts(domain, error=f"the policy cannot be fetched: {_why(wrong)}")
    return read_policy(domain, host, text)


def read_policy(domain: str, host: str, text: bytes) -> Sts:
    """RFC 8461 3.2: lines of `key: value`."""
    pairs = [line.partition(b":")[::2] for line in text.splitlines() if b":" in line]
    values = [(key.strip(), shown(value.strip())) for key, value in pairs]
    last = dict(values)
    mode = last.get(b"mode", "")
    patterns = tuple(value for key, value in values if key == b"mx")
    if last.get(b"version") != "STSv1":
        return Sts(domain, error="the policy has no version: STSv1")
    if mode not in ("enforce", "testing", "none"):
        return Sts(domain, error=f"the policy's mode is {mode!r}, and none of enforce, testing, none")
    if not last.get(b"max_age", "").isdigit():
        return Sts(domain, error="the policy has no max_age")
    if not patterns and mode != "none":
        return Sts(domain, error="the policy lists no mx")
    return Sts(domain, mode=mode, mx=patterns, lists_host=any(_covers(pattern, host) for pattern in patterns))


def _covers(pattern: str, host: str) -> bool:
    """RFC 8461 4.1: a wildcard stands for one label, the leftmost."""
    pattern, host = pattern.lower().rstrip("."), host.lower().rstrip(".")
    if pattern.startswith("*."):
        return host.partition(".")[2] == pattern[2:]
    return host == pattern


def fetch_policy(domain: str) -> bytes:
    """Verified HTTPS, and no redirection (RFC 8461 3.3)."""
    with closing(http.client.HTTPSConnection(f"mta-sts.{domain}", timeout=LIFETIME)) as connection:
        connection.request("GET", "/.well-known/mta-sts.txt", headers={"User-Agent": "starttls-gateway"})
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise http.client.HTTPException(f"HTTP status {answer.status}")
        return answer.read(LONGEST)


def _why(wrong: Exception) -> str:
    return shown((str(wrong) or type(wrong).__name__).encode("utf-8"))
