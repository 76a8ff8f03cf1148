"""The PROXY protocol, versions 1 and 2: who the client is, told to a backend or by a load balancer.

Octets to values and back.  The protocol is HAProxy's proxy-protocol.txt.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Generator
from ipaddress import IPv4Address, IPv6Address, ip_address

from ..records import dataclass
from .vocabulary import ClientCertificate, Secured

LONGEST_V1 = 107
"""Octets of a version 1 line with its CRLF (proxy-protocol.txt 2.1); the parser's words cannot add up to more."""

LONGEST_V2 = 536
"""Octets of a version 2 header that we send or accept: the smallest TCP segment that every path carries in one
piece, and what Postfix peeks at."""

LONGEST_ID = 128
"""Octets of a UNIQUE_ID (proxy-protocol.txt 2.2.5)."""

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

Endpoint = tuple[str, int]
"""An IP address as text, and a port."""


class ProxyError(Exception):
    """What came is not a PROXY header; `reason` says why and holds nothing that the sender chose."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def canonical(address: str) -> str:
    """The one way to write an IP address: what allow-lists and limits compare.

    Zone identifiers go, and an IPv4-mapped IPv6 address is the IPv4 address.  Raises ValueError for text that is
    no IP address.
    """
    read = ip_address(address.partition("%")[0])
    return str((read.ipv4_mapped if isinstance(read, IPv6Address) else None) or read)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a connection came from and which address it was made to, both canonical whatever they are made from.

    The two may be of different families; they are mapped to one only on the wire.
    """

    source: Endpoint
    destination: Endpoint

    def __post_init__(self) -> None:
        for name, (address, port) in (("source", self.source), ("destination", self.destination)):
            assert 0 <= port <= 65535, port
            object.__setattr__(self, name, (canonical(address), port))


# --- said to a backend ---------------------------------------------------------------------------

_LOCAL, _PROXY = b"\x20", b"\x21"
_UNSPEC, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_ADDRESSES = {_TCP4: struct.Struct(">4s4sHH"), _TCP6: struct.Struct(">16s16sHH"), _UNIX: struct.Struct(">108s108s")}

_ALPN, _AUTHORITY, _CRC32C, _UNIQUE_ID, _SSL = 0x01, 0x02, 0x03, 0x05, 0x20
_VERSION, _COMMON_NAME, _CIPHER = 0x21, 0x22, 0x23  # inside _SSL
_OVER_TLS, _CERTIFICATE_NOW, _CERTIFICATE_EVER = 0x01, 0x02, 0x04

_EXPENDABLE = (_COMMON_NAME, _ALPN, _CIPHER, _UNIQUE_ID, _AUTHORITY)
"""What a header that would be too long does without, in this order."""

# Letters, digits and inner hyphens, and no last label of digits alone, which would be an address (RFC 6066 3,
# RFC 1123 2.1).  Dovecot drops the connection over anything that it does not take for a name.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DNS_NAME = re.compile(rf"(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}")
_LONGEST_NAME = 253


def v1(origin: Origin) -> bytes:
    """The line of version 1: at most 107 octets, the first on the connection, in one write."""
    source, destination = _in_one_family(origin)
    family = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {family} {source} {destination} {origin.source[1]} {origin.destination[1]}\r\n".encode("ascii")


def v2(
    origin: Origin,
    *,
    secured: Secured | None = None,
    sni: str | None = None,
    alpn: str | None = None,
    session: str | None = None,
    certificate: ClientCertificate | None = None,
) -> bytes:
    """The header of version 2: at most 536 octets, the first on the connection, in one write.

    `secured` is the client leg's TLS, None on a plaintext leg (then `certificate` means nothing); `sni`, `alpn` and
    `certificate` are by default what it holds, and a name is left out unless it is a DNS name; `session` becomes
    the UNIQUE_ID and is ASCII of at most 128 octets.
    """
    source, destination = _in_one_family(origin)
    family = _TCP6 if ":" in source else _TCP4
    addresses = _ADDRESSES[family].pack(
        ip_address(source).packed, ip_address(destination).packed, origin.source[1], origin.destination[1]
    )
    said: dict[int, bytes] = {}
    name = sni or (secured.sni if secured else None) or ""
    if len(name) <= _LONGEST_NAME and _DNS_NAME.fullmatch(name):
        said[_AUTHORITY] = name.encode("ascii")
    if protocol := alpn or (secured.alpn if secured else None):
        said[_ALPN] = protocol.encode("ascii")
    if session:
        assert len(session) <= LONGEST_ID, session
        said[_UNIQUE_ID] = session.encode("ascii")
    if secured:
        said |= _tls_facts(secured, certificate or secured.certificate)
    expendable = iter(_EXPENDABLE)
    while len(SIGNATURE) + 4 + len(addresses) + len(block := _tlvs(said)) > LONGEST_V2:
        said.pop(next(expendable), None)
    return SIGNATURE + _PROXY + struct.pack(">BH", family, len(addresses) + len(block)) + addresses + block


def v2_local() -> bytes:
    """The header of a connection that the gateway makes for itself, like a health check."""
    return SIGNATURE + _LOCAL + struct.pack(">BH", _UNSPEC, 0)


def _in_one_family(origin: Origin) -> tuple[str, str]:
    """Both addresses; if only one of them is IPv6, the other one mapped into it."""
    source, destination = origin.source[0], origin.destination[0]
    if (":" in source) == (":" in destination):
        return source, destination
    return _in_ipv6(source), _in_ipv6(destination)


def _in_ipv6(address: str) -> str:
    if ":" in address:
        return address
    # Version 1 knows hexadecimal groups only; how Python writes such an address depends on its version.
    return "::ffff:{:x}:{:x}".format(*struct.unpack(">HH", IPv4Address(address).packed))


def _tls_facts(secured: Secured, certificate: ClientCertificate | None) -> dict[int, bytes]:
    client, verified = _OVER_TLS, False
    facts = {_VERSION: secured.version.encode("ascii"), _CIPHER: secured.cipher.encode("ascii")}
    if certificate:
        client |= _CERTIFICATE_EVER | _CERTIFICATE_NOW  # no session with a certificate is resumed
        verified = certificate.verified
        # A backend may take the name for a user's, or log it: one with control characters is not passed on.
        if verified and certificate.common_name and certificate.common_name.isprintable():
            facts[_COMMON_NAME] = certificate.common_name.encode()
    facts[_SSL] = struct.pack(">BL", client, not verified)
    return facts


def _tlvs(said: dict[int, bytes]) -> bytes:
    """Types in ascending order; those above SSL are parts of it."""
    outer, inner = b"", b""
    for kind, value in sorted(said.items(), reverse=True):
        if kind > _SSL:
            inner = _tlv(kind, value) + inner
        else:
            outer = _tlv(kind, value + inner if kind == _SSL else value) + outer
    return outer


def _tlv(kind: int, value: bytes) -> bytes:
    return struct.pack(">BH", kind, len(value)) + value


# --- told by a load balancer ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """A whole header: the origin that it names, and the octets behind it, which belong to the session.

    None is a header without an origin (LOCAL, UNKNOWN, a Unix socket): the connection's own addresses count.
    """

    origin: Origin | None
    rest: bytes


class Header:
    """A PROXY header of either version on its way in, however the network cuts it.

    It is read unit by unit, so that cuts cannot matter, and refused at the first octet that no header has there;
    only an IPv6 address in text, a number in binary and a TLV are judged when they are complete.
    """

    def __init__(self) -> None:
        self._octets = bytearray()
        self._read = 0
        self._script = _header()
        self._wanted = next(self._script)
        self._over = False

    def feed(self, octets: bytes) -> Told | None:
        """None until the header is complete.  Raises ProxyError, also when it is fed again after that or after Told."""
        if self._over:
            raise ProxyError("fed behind its end")
        self._octets += octets
        try:
            while len(self._octets) >= self._read + self._wanted:
                unit = bytes(self._octets[self._read : self._read + self._wanted])
                self._read += self._wanted
                self._wanted = self._script.send(unit)
        except StopIteration as end:
            self._over = True
            return Told(end.value, bytes(self._octets[self._read :]))
        except ProxyError:
            self._over = True
            raise
        return None


def nameless(octets: bytes) -> int:
    """How many octets at the beginning are a whole header that names nobody: a balancer's own (`LOCAL`, `UNKNOWN`).

    0 where there is none.
    """
    try:
        told = Header().feed(octets)
    except ProxyError:
        return 0
    return len(octets) - len(told.rest) if told is not None and told.origin is None else 0


_V1 = b"PROXY "
_UNKNOWN = b"UNKNOWN"

# Each matches a complete word and all of its beginnings.
_OCTET = rb"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(rb"(?:%b\.){0,3}%b?" % (_OCTET, _OCTET))
_IPV6 = re.compile(rb"[0-9A-Fa-f:.]{1,39}")
_PORT = re.compile(rb"6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3}|0")
# Whatever a sender puts behind UNKNOWN is to be ignored (proxy-protocol.txt 2.1), as far as it is text.
_IGNORED = re.compile(rb"[ -~]{1,%d}" % (LONGEST_V1 - len(_V1) - len(_UNKNOWN) - len(b" \r\n")))

_TEXT = {b"TCP4 ": (_IPV4, IPv4Address), b"TCP6 ": (_IPV6, IPv6Address)}

# What is read: yields how many octets it wants next, and is resumed with them.
_Reading = Generator[int, bytes, Origin | None]


def _header() -> _Reading:
    if (yield from _one_of((_V1, SIGNATURE), "not a PROXY header")) == _V1:
        return (yield from _line())
    return (yield from _binary())


def _line() -> _Reading:
    """Version 1, behind its first word."""
    protocol = yield from _one_of((*_TEXT, _UNKNOWN + b" ", _UNKNOWN + b"\r"), "v1: unknown protocol")
    origin = None
    if protocol in _TEXT:
        looks, address = _TEXT[protocol]
        texts = []
        for what in ("source address", "destination address"):
            text = (yield from _word(looks, b" ", what)).decode("ascii")
            try:
                texts.append(str(address(text)))
            except ValueError:
                raise ProxyError(f"v1: bad {what}") from None
        source_port = yield from _word(_PORT, b" ", "source port")
        destination_port = yield from _word(_PORT, b"\r", "destination port")
        origin = Origin((texts[0], int(source_port)), (texts[1], int(destination_port)))
    elif protocol.endswith(b" "):
        yield from _word(_IGNORED, b"\r", "text behind UNKNOWN", least=0)
    yield from _one_of((b"\n",), "v1: CR without LF")
    return origin


def _binary() -> _Reading:
    """Version 2, behind its signature."""
    command = yield from _one_of((_LOCAL, _PROXY), "v2: unknown version or command")
    (family,) = yield 1
    if command == _PROXY and family != _UNSPEC and family not in _ADDRESSES:
        raise ProxyError("v2: unknown family, or not a stream")
    start = SIGNATURE + command + bytes([family])
    size = yield 2
    left = int.from_bytes(size, "big")
    if len(start + size) + left > LONGEST_V2:
        raise ProxyError(f"v2: longer than {LONGEST_V2} octets")
    if command == _LOCAL or family == _UNSPEC:
        # "Discard the protocol block" (proxy-protocol.txt 2.2), whatever it is.
        yield left
        return None
    form = _ADDRESSES[family]
    left -= form.size
    if left < 0:
        raise ProxyError("v2: too short for its addresses")
    addresses = yield form.size
    yield from _check(start + size + addresses, left)
    if family == _UNIX:
        return None
    source, destination, source_port, destination_port = form.unpack(addresses)
    return Origin((str(ip_address(source)), source_port), (str(ip_address(destination)), destination_port))


def _check(header: bytes, left: int) -> Generator[int, bytes, None]:
    """Read the TLVs behind the addresses.  They must fill the header, and a checksum must be right; the rest is of
    no interest to whoever is the TLS server himself."""
    checksum: bytes | None = None
    while left:
        if left < 3:
            raise ProxyError("v2: a TLV overruns the header")
        start = yield 3
        kind, length = struct.unpack(">BH", start)
        left -= 3 + length
        if left < 0:
            raise ProxyError("v2: a TLV overruns the header")
        if kind == _CRC32C and (checksum is not None or length != 4):
            raise ProxyError("v2: bad checksum")
        value = yield length
        if kind == _CRC32C:
            checksum, value = value, bytes(4)
        header += start + value
    if checksum is not None and int.from_bytes(checksum, "big") != _crc32c(header):
        raise ProxyError("v2: bad checksum")


def _one_of(words: tuple[bytes, ...], otherwise: str) -> Generator[int, bytes, bytes]:
    read = b""
    while read not in words:
        read += yield 1
        if not any(word.startswith(read) for word in words):
            raise ProxyError(otherwise)
    return read


def _word(looks: re.Pattern[bytes], end: bytes, what: str, least: int = 1) -> Generator[int, bytes, bytes]:
    word = b""
    while (octet := (yield 1)) != end:
        word += octet
        if not looks.fullmatch(word):
            raise ProxyError(f"v1: bad {what}")
    if len(word) < least:
        raise ProxyError(f"v1: no {what}")
    return word


def _crc32c_row(octet: int) -> int:
    for _ in range(8):
        octet = octet >> 1 ^ (0x82F63B78 if octet & 1 else 0)
    return octet


_CRC32C_TABLE = tuple(map(_crc32c_row, range(256)))


def _crc32c(octets: bytes) -> int:
    """Castagnoli's checksum (RFC 9260 appendix A)."""
    register = 0xFFFFFFFF
    for octet in octets:
        register = register >> 8 ^ _CRC32C_TABLE[(register ^ octet) & 0xFF]
    return register ^ 0xFFFFFFFF
