"""What FTP's lines mean: pure functions on commands and replies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, ip_address
from typing import Final

from ....protocol.framing import Lines
from ....protocol.vocabulary import Place
from ... import access
from ...bounds import REPLY_LINE

COMMAND_LINE: Final = 4096
"""Octets: a path of Linux has no more."""
LINES: Final = Lines(COMMAND_LINE, commands=True, replies=REPLY_LINE)
COMMAND: Final = re.compile(rb"([A-Za-z]{3,8})(?: +(.*))?\Z", re.DOTALL)
"""A backend may strip what is not for a verb.  A verb that does not look like one is never forwarded."""
_TELNET: Final = re.compile(rb"(?:\xff(?:[\xfb-\xfe].|[\xf0-\xfa])?|\xf2)+", re.DOTALL)
"""Telnet commands and options (RFC 854): many clients send IP and SYNCH before ABOR.  One octet of SYNCH is urgent,
and TCP may have left it out: IAC or DM (242) is then alone."""
REPLY: Final = re.compile(rb"[1-6][0-9][0-9](?:[ -].*)?\Z", re.DOTALL)
PRELIMINARY: Final = re.compile(rb"1[0-9][0-9](?: |\Z)")
"""A reply of one line that is not the last to its command (RFC 959 4.2.1)."""
LEAVES: Final = b"421"
"""The server closes the connection.  It may come at any time."""
BAD_COMMAND: Final = frozenset({b"500", b"501", b"502", b"503", b"504"})
REJECTS: Final = frozenset({b"430", b"530"})
"""Refusals of name and password."""
NO_SUCH_WAY: Final = frozenset({b"425", b"500", b"501", b"502", b"504", b"522"})
"""The answers to PASV or EPSV after which the other one is tried."""

TRANSFERS: Final = frozenset({b"APPE", b"LIST", b"MLSD", b"NLST", b"RETR", b"STOR", b"STOU"})
"""Commands whose data goes through a data connection (RFC 959 4.1.3, RFC 3659 7)."""
NAMED: Final = frozenset({b"APPE", b"RETR", b"STOR", b"STOU"})
"""Those whose argument is a file."""
MEANWHILE: Final = frozenset({b"ABOR", b"NOOP", b"QUIT", b"STAT"})
"""Commands that go to the backend during a transfer; others wait for its end (RFC 959 4.1.3)."""
UNMISTAKABLE: Final = {b"200": b"NOOP", b"211": b"STAT", b"212": b"STAT", b"213": b"STAT"}
"""Replies that end no transfer (RFC 959 5.4), and what they are to: some servers answer that before its end."""
PROBE: Final = b"noop"
"""A NOOP of our own, behind an ABOR: a verb of the client's is in upper case."""
REFUSED: Final = frozenset({
    b"ADAT", b"CONF", b"CPSV", b"ENC", b"ESTA", b"ESTP", b"LPRT", b"LPSV", b"MIC", b"REIN", b"SPSV", b"SSCN", b"XAUT",
    b"XPRT", b"XRSQ",
})  # fmt: skip
"""Other security mechanisms (RFC 2228), other data connections (RFC 1639), transfers between servers, and REIN: a
session begins once."""
MECHANISMS: Final = frozenset({b"TLS", b"TLS-C", b"SSL", b"TLS-P"})
"""RFC 4217 17, and names that were used before it."""

_SIX: Final = re.compile(rb" *, *".join([rb"([0-9]{1,3})"] * 6))
_EXTENDED: Final = re.compile(rb"\(([!-~])[12]?\1[0-9A-Fa-f:.]*\1([0-9]{1,5})\1\)")
"""RFC 2428 3 keeps the places of protocol and address for the future, and says that they are empty.  Some fill them."""
_EPRT: Final = re.compile(rb"([!-~])([12])\1([0-9A-Fa-f:.]{2,45})\1([0-9]{1,5})\1\Z")
UNPRIVILEGED: Final = 1024
"""Below are ports of servers, which nobody uses for data."""


def split(line: bytes) -> tuple[bytes, bytes]:
    """The verb in upper case, and its argument; the verb is empty where there is none."""
    match = COMMAND.match(line)
    return (match[1].upper(), match[2] or b"") if match else (b"", b"")


def without_telnet(line: bytes) -> bytes:
    """Without the telnet commands at its beginning."""
    match = _TELNET.match(line)
    return line[match.end() :] if match else line


def is_last(first: bytes, line: bytes) -> bool:
    """Whether the reply that begins with `first` ends with this line of it (RFC 959 4.2)."""
    return first[3:4] != b"-" or (line[:3] == first[:3] and line[3:4] != b"-")


# --- addresses -----------------------------------------------------------------------------------------


def passive_port(reply: bytes) -> int | None:
    """The port in a reply to PASV (227) or EPSV (229).  The address in it is not for us."""
    port = None
    if reply[:3] == b"227" and (six := _SIX.search(reply, 3)) is not None:
        port = int(six[5]) * 256 + int(six[6]) if int(six[5]) < 256 and int(six[6]) < 256 else None
    elif reply[:3] == b"229" and (extended := _EXTENDED.search(reply, 3)) is not None:
        port = int(extended[2])
    return port if port is not None and UNPRIVILEGED <= port <= 65535 else None


def active_place(verb: bytes, argument: bytes) -> Place | None:
    """Where a client wants to be connected to, by its PORT or EPRT; None where that cannot be told."""
    if verb == b"PORT":
        six = _SIX.fullmatch(argument.strip())
        if six is None or any(int(part) > 255 for part in six.groups()):
            return None
        return Place(".".join(str(int(part)) for part in six.groups()[:4]), int(six[5]) * 256 + int(six[6]))
    match = _EPRT.match(argument.strip())
    if match is None or int(match[4]) > 65535:
        return None
    try:
        address = ip_address(match[3].decode("ascii"))
    except ValueError:
        return None
    return Place(str(address), int(match[4])) if address.version == (4 if match[2] == b"1" else 6) else None


def six_numbers(host: str, port: int) -> bytes:
    """For PORT and 227."""
    return b"%s,%d,%d" % (host.replace(".", ",").encode("ascii"), port >> 8, port & 255)


def port_command(place: Place) -> bytes:
    """PORT, or EPRT where the address is of IPv6."""
    if is_ipv6(place.host):
        return b"EPRT |2|%s|%d|" % (place.host.partition("%")[0].encode("ascii"), place.port)
    return b"PORT " + six_numbers(place.host, place.port)


def is_ipv6(host: str) -> bool:
    return ":" in host


def ipv4_or_nothing(text: str) -> str:
    """A value of `passive_address`."""
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise ValueError(f"{text[:60]!a} is not an IPv4 address; write the one that clients connect to") from None


# --- features ------------------------------------------------------------------------------------------

_OURS: Final = frozenset({b"AUTH", b"PBSZ", b"PROT", b"CCC"})
_NOT_WORKING: Final = frozenset({b"CPSV", b"ESTA", b"ESTP", b"SPSV", b"SSCN"})
_ACTIVE: Final = frozenset({b"EPRT", b"PORT"})


def edit_features(lines: Iterable[bytes], *, secured: bool, active: bool) -> list[bytes]:
    """What the client is to see of the features in a reply to FEAT: lines that begin with a space (RFC 2389 3.2)."""
    hidden = _OURS | _NOT_WORKING | (frozenset() if active else _ACTIVE)
    kept = [line for line in lines if _name(line) not in hidden]
    return [*kept, *([] if secured else [b" AUTH TLS"]), b" PBSZ", b" PROT"]


def _name(line: bytes) -> bytes:
    words = line.upper().partition(b";")[0].split()
    return words[0] if words else b""


def listed(reply: bytes) -> list[bytes] | None:
    """The features in a reply to FEAT."""
    if reply[:3] != b"211":
        return None
    lines: Sequence[bytes] = reply.splitlines()
    return [line.strip() for line in lines[1:] if line[:1] == b" "]


def of_ftp(seen: access.Seen) -> access.Access:
    """The answer that counts is the one to USER; the name in it is nobody's."""
    answer = seen.answers[0] if seen.answers else b""
    starttls = None if seen.offered is None else any(_name(line) == b"AUTH" for line in seen.offered)
    if answer[:1] in (b"4", b"5") and access.demands_tls(answer):
        return access.Access((), answer, starttls)
    return access.Access(("USER",) if answer[:1] in (b"2", b"3") else None, starttls=starttls)
