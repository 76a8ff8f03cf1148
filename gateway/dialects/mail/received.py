"""The trace field that tells how a message came in (RFC 5321 4.4, RFC 8314 4.3).

The legacy server behind us writes `with ESMTP` whatever happened; only here can the reader of a
message learn that it came over TLS.
"""

from __future__ import annotations

import re
from datetime import datetime
from email.utils import format_datetime

from ...protocol.vocabulary import Secured

_DOMAIN = re.compile(rb"(?=.{1,255}\Z)[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?\Z")
_LITERAL = re.compile(rb"\[(?:IPv6:)?[0-9A-Fa-f:.]{2,45}\]\Z")
_ATOM = re.compile(r"[A-Za-z0-9_-]+\Z")

_PARAMETER = re.compile(rb"[A-Za-z0-9][A-Za-z0-9-]*(?:=[^ \t\"]*)?\Z")
_SIZE = re.compile(rb"(SIZE=)([0-9]{1,20})\Z", re.IGNORECASE)
_BLANKS = re.compile(rb"([ \t]+)")
_COUNTERS = (2**31, 2**32, 2**63, 2**64, 10**20)
"""Where a server's counter, or the 20 digits of RFC 1870, may come to an end."""

_KEY_EXCHANGE = {"ECDHE-ECDSA-": "ECDHE_ECDSA", "ECDHE-RSA-": "ECDHE_RSA", "DHE-RSA-": "DHE_RSA", "DHE-DSS-": "DHE_DSS"}
_BULK = {
    "AES128-GCM-SHA256": "AES_128_GCM_SHA256",
    "AES256-GCM-SHA384": "AES_256_GCM_SHA384",
    "CHACHA20-POLY1305": "CHACHA20_POLY1305_SHA256",
    "AES128-SHA": "AES_128_CBC_SHA",
    "AES256-SHA": "AES_256_CBC_SHA",
    "AES128-SHA256": "AES_128_CBC_SHA256",
    "AES256-SHA256": "AES_256_CBC_SHA256",
    "AES256-SHA384": "AES_256_CBC_SHA384",
    "AES128-CCM": "AES_128_CCM",
    "AES256-CCM": "AES_256_CCM",
    "AES128-CCM8": "AES_128_CCM_8",
    "AES256-CCM8": "AES_256_CCM_8",
}


def iana_name(cipher: str) -> str | None:
    """The registered name of a cipher suite that OpenSSL calls `cipher`; None where we know none.

    TLS 1.3 names are the same in both worlds; before that OpenSSL has names of its own.
    """
    if cipher.startswith("TLS_"):
        return cipher
    for prefix, exchange in _KEY_EXCHANGE.items():
        if cipher.startswith(prefix):
            bulk = _BULK.get(cipher.removeprefix(prefix))
            return f"TLS_{exchange}_WITH_{bulk}" if bulk else None
    bulk = _BULK.get(cipher)
    return f"TLS_RSA_WITH_{bulk}" if bulk else None


def protocol_keyword(*, extended: bool, utf8: bool, tls: bool, authenticated: bool, lmtp: bool = False) -> str:
    """The `with` keyword (RFC 3848, RFC 6531 4.3): `SMTP` after HELO, else ESMTP or LMTP with S and A."""
    if not extended and not lmtp:
        return "SMTP"
    name = ("UTF8" if utf8 else "" if lmtp else "E") + ("LMTP" if lmtp else "SMTP")
    return name + ("S" if tls else "") + ("A" if authenticated else "")


def received(
    *, name: bytes, client: str, secured: Secured | None, hostname: bytes, keyword: str, identity: str, date: datetime
) -> bytes:
    """The whole field with its CRLF.  `name` is what the client called itself, shown only where it
    is a domain or an address literal; `identity` is the atom that also stands in the log."""
    shown = name if _DOMAIN.match(name) or _LITERAL.match(name) else b"unknown"
    address = f" ([IPv6:{client}])" if ":" in client else f" ([{client}])" if client else ""
    lines = [b"Received: from %s%s" % (shown, address.encode("ascii"))]
    by = f"by {hostname.decode('ascii')} (starttls-gateway) with {keyword} id {identity}"
    when = format_datetime(date)
    if secured is None:
        lines.append(f"{by};".encode("ascii"))
    else:
        lines.append(
            f"(using {secured.version} with cipher {secured.cipher} ({secured.bits}/{secured.bits} bits))".encode(
                "ascii"
            )
        )
        suite = iana_name(secured.cipher)
        if suite is None:
            lines.append(f"{by};".encode("ascii"))
        else:
            group = f" group {secured.group}" if secured.group and _ATOM.match(secured.group) else ""
            lines.append(by.encode("ascii"))
            lines.append(f"tls {suite}{group};".encode("ascii"))
    lines.append(when.encode("ascii"))
    return b"\r\n\t".join(lines) + b"\r\n"


def declared(command: bytes, more: int) -> bytes:
    """A MAIL command whose declared size (RFC 1870) is greater by so many octets: those that we add to the message.

    The rest is not touched, nor is a size that is none, nor one that would pass the end of a counter: there a backend
    might take a great message for a small one, and a few octets do not matter.
    """
    pieces = _BLANKS.split(command)
    path = 4 if command.partition(b":")[2][:1] in (b" ", b"\t") else 2
    for index in range(len(pieces) - 1, path, -2):  # from the end: a local part in quotes may hold anything
        if not _PARAMETER.match(pieces[index]):
            break
        size = _SIZE.match(pieces[index])
        if size:
            octets = int(size[2])
            if not any(octets < end <= octets + more for end in _COUNTERS):
                pieces[index] = size[1] + b"%d" % (octets + more)
    return b"".join(pieces)
