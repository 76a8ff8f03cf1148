"""XCLIENT: telling a server that trusts us who its client is.

SMTP as in Postfix XCLIENT_README; POP3 and ManageSieve as in Dovecot.
"""

from __future__ import annotations

from ..base import Terms
from ..reach import refused

COMMAND_LINE = 512
"""Octets of a command with its CRLF (XCLIENT_README)."""
TTL = b"4"
"""Gateways that may still follow; Dovecot counts down from it to notice loops."""


def xtext(text: str) -> bytes:
    """RFC 3461 4."""
    return b"".join(
        bytes((octet,)) if 0x21 <= octet <= 0x7E and octet not in b"+=" else b"+%02X" % octet
        for octet in text.encode("utf-8")
    )


def _smtp_address(address: str) -> str:
    return f"IPV6:{address}" if ":" in address else address


def _attributes(terms: Terms) -> list[tuple[bytes, str]]:
    """What can be told, in the order of the documentation."""
    assert terms.origin is not None, "reached() lets nobody else pass"
    (client, port), (local, local_port) = terms.origin.source, terms.origin.destination
    return [
        # Else Postfix goes on with the name of our own address, which its access maps may trust.
        (b"NAME", "[UNAVAILABLE]"),
        (b"ADDR", client),
        (b"PORT", str(port)),
        (b"DESTADDR", local),
        (b"DESTPORT", str(local_port)),
    ]


def commands(terms: Terms, offered: list[bytes]) -> list[bytes]:
    """The commands, without CRLF, that tell an SMTP server what it `offered` to hear; one, if it fits."""
    if b"ADDR" not in offered:
        refused("the backend's XCLIENT does not take ADDR")
    addresses = (b"ADDR", b"DESTADDR")
    pairs = [
        name + b"=" + xtext(_smtp_address(value) if name in addresses else value)
        for name, value in _attributes(terms)
        if name in offered
    ]
    pairs += _extras(terms, offered)
    line = b"XCLIENT " + b" ".join(pairs)
    if len(line) + 2 <= COMMAND_LINE:
        return [line]
    # ADDR last: our authority may end with it.
    address = next(pair for pair in pairs if pair.startswith(b"ADDR="))
    return [b"XCLIENT " + b" ".join(pair for pair in pairs if pair is not address), b"XCLIENT " + address]


def _extras(terms: Terms, offered: list[bytes]) -> list[bytes]:
    """What only Dovecot takes."""
    extras = {b"SESSION": xtext(terms.session), b"TTL": TTL}
    if terms.implicit:
        extras[b"CLIENT-TRANSPORT"] = b"TLS"  # on other ports it is not known yet
    return [name + b"=" + value for name, value in extras.items() if name in offered]


def dovecot_command(terms: Terms) -> bytes:
    """The command, without CRLF, for Dovecot as a POP3 or ManageSieve server: no prefixes and no xtext there."""
    told = [name + b"=" + value.encode("ascii") for name, value in _attributes(terms) if name != b"NAME"]
    told += [b"SESSION=" + terms.session.encode("ascii"), b"TTL=" + TTL]
    if terms.implicit:
        told.append(b"CLIENT-TRANSPORT=TLS")
    return b"XCLIENT " + b" ".join(told)
