"""The command line of `probe`."""

from __future__ import annotations

import argparse
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...config.grammar import canonical, certificate_name, destination
from ...config.values import Address, TCPAddress
from ...dialects import DIALECTS
from ...dialects.probing import Probing

PROTOCOLS = {name: dialect.probing for name, dialect in DIALECTS.items() if dialect.probing and dialect.question}
"""Those whose servers can be probed."""
_WITH_PORT = re.compile(r"unix:|.*\]:|[^:\[]*:[^:]*\Z")


def add(commands: Any) -> None:
    """The sub-command, with all that it takes."""
    about = "look at any server from outside, as a client sees it; exit status 0 good, 1 findings, 2 unreachable"
    parser: argparse.ArgumentParser = commands.add_parser(
        "probe",
        help=about,
        description=f"{about[0].upper()}{about[1:]}.  No user's password is ever sent.  See docs/probe.md.",
    )
    parser.add_argument("protocol", metavar="PROTOCOL", choices=sorted(PROTOCOLS), help=", ".join(sorted(PROTOCOLS)))
    parser.add_argument("address", metavar="HOST[:PORT]", help="[HOST]:PORT for an IPv6 address; unix:/PATH")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--starttls", action="store_true", help="the port begins without TLS")
    mode.add_argument(
        "--implicit", action="store_true", help="the port begins with TLS; default: the number of the port decides"
    )
    parser.add_argument("--name", help="the name that the certificate must have; default: HOST")
    parser.add_argument(
        "--ca", type=Path, metavar="FILE", help="a PEM file with the trusted issuers; default: the system's"
    )
    parser.add_argument("--ehlo", metavar="NAME", help="the name in EHLO; default: the host name of this machine")
    parser.add_argument(
        "--domain", help="the domain whose MTA-STS policy is read; default: HOST, then the domains above"
    )
    parser.add_argument("--resolver", metavar="ADDRESS[:PORT]", help="the name server to ask; default: the system's")
    parser.add_argument(
        "--timeout", type=float, default=15.0, metavar="SECONDS", help="seconds for each answer (default: %(default)g)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace, say: Callable[..., None]) -> int:
    """The exit status."""
    from ...wire.tls.files import CertificateError
    from ..report import Paint
    from .looking import Target, look
    from .verdict import findings, remarks, status
    from .words import in_json, in_words

    probing = PROTOCOLS[given.protocol]
    assert probing is not None
    try:
        address = _address(given.address, probing)
        if given.timeout <= 0:
            raise ValueError("--timeout must be more than 0")
        target = Target(
            dialect=DIALECTS[given.protocol],
            address=address,
            implicit=given.implicit or (not given.starttls and _is_implicit(address, probing)),
            name=certificate_name(given.name or _host(address)),
            ehlo=(given.ehlo or socket.getfqdn()).encode("ascii"),
            ca=given.ca,
            timeout=given.timeout,
            domain=given.domain,
            resolver=_resolver(given.resolver),
        )
        if given.ca is not None:
            _must_be_readable(target)
    except (ValueError, CertificateError) as wrong:
        given.error(str(wrong))
    facts = look(target)
    found, worth_knowing = findings(facts), list(remarks(facts))
    code = status(facts, found)
    if given.json:
        say(in_json(facts, found, worth_knowing, code))
    else:
        say(*in_words(facts, found, worth_knowing, Paint.of_the_terminal()))
    return code


def _address(text: str, probing: Probing) -> Address:
    if _WITH_PORT.match(text):
        return destination(text)
    with suppress(ValueError):
        text = f"[{canonical(text)}]" if ":" in text and not text.startswith("[") else text
    return destination(f"{text}:{probing.port}")


def _is_implicit(address: Address, probing: Probing) -> bool:
    return isinstance(address, TCPAddress) and address.port in probing.implicit


def _host(address: Address) -> str:
    if isinstance(address, TCPAddress) and address.host:
        return address.host
    raise ValueError("a UNIX socket has no name: say with --name what the certificate must be for")


def _resolver(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    address = destination(text if _WITH_PORT.match(text) else f"{text}:53")
    if not isinstance(address, TCPAddress):
        raise ValueError("--resolver wants an address")
    return str(canonical(address.host or "")), address.port


def _must_be_readable(target: Any) -> None:
    """Raises CertificateError for a file of issuers that cannot be used."""
    from ...wire.tls.stranger import Stranger

    Stranger(target.name, target.ca)
