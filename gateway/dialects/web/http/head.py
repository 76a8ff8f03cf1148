"""Heads of requests and responses (RFC 9112), read so strictly that no server can read a request otherwise."""

from __future__ import annotations

import re
from typing import Final

from ....protocol.inbox import Inbox
from ....protocol.vocabulary import Side, Unit, Violation
from ....records import dataclass
from ....telemetry.catalogue import PROTOCOL_ERROR

REQUEST_HEAD: Final = 16 * 1024
RESPONSE_HEAD: Final = 64 * 1024
"""Octets of a head at most."""

_REQUEST = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}) ([^\x00-\x20\x7f]+) HTTP/1\.([01])")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):((?:[^\x00-\x1f\x7f]|\t)*)")
"""The blanks before a value belong to the second group: a group of their own would take quadratic time."""
_STATUS = re.compile(rb"HTTP/1\.[01] [1-9][0-9]{2}(?: |\r?\n)")
_END = re.compile(rb"\r?\n\r?\n")
_TLS = re.compile(rb"TLS/1\.[0-9]", re.IGNORECASE)
_BASIC = re.compile(rb"(?:\A|,[ \t]*)basic(?:[ \t]|\Z)", re.IGNORECASE)
_STATUS_BEGIN: Final = b"HTTP/1."


class Malformed(Exception):
    """A head that two servers may read in two ways; the text says why."""


@dataclass(frozen=True, slots=True)
class Field:
    name: bytes
    """In lower case."""
    value: bytes
    line: bytes
    """As it came, without CRLF."""


@dataclass(frozen=True, slots=True)
class Head:
    """Of a request."""

    line: bytes
    method: bytes
    newest: bool
    """HTTP/1.1; HTTP/1.0 knows no Upgrade (RFC 9110 7.8)."""
    fields: tuple[Field, ...]

    def elements(self, name: bytes) -> list[bytes]:
        """Of all fields with this name, in lower case (RFC 9110 5.6.1)."""
        values = b",".join(field.value for field in self.fields if field.name == name)
        return [element.lower() for each in values.split(b",") if (element := each.strip(b" \t"))]

    @property
    def host(self) -> bytes:
        return next((field.value for field in self.fields if field.name == b"host"), b"")

    @property
    def has_body(self) -> bool:
        """RFC 9112 6."""
        lengths = self.elements(b"content-length")
        return bool(self.elements(b"transfer-encoding")) or any(length.strip(b"0") for length in lengths)

    @property
    def wants_tls(self) -> bool:
        """RFC 2817 3.1."""
        asked = self.newest and b"upgrade" in self.elements(b"connection")
        return asked and any(map(_TLS.fullmatch, self.elements(b"upgrade")))

    def without_upgrade(self) -> bytes:
        """The same request without its wish for another protocol; other fields stay as they came."""
        lines = [self.line]
        for field in self.fields:
            if field.name == b"connection":
                kept = [each for each in (one.strip(b" \t") for one in field.value.split(b","))
                        if each and each.lower() not in _HOPS]  # fmt: skip
                if kept:
                    lines.append(b"Connection: " + b", ".join(kept))
            elif field.name not in _HOPS:
                lines.append(field.line)
        return b"\r\n".join([*lines, b"", b""])


_HOPS = frozenset({b"upgrade", b"http2-settings"})


def parse(octets: bytes) -> Head:
    """A whole head.  Raises Malformed."""
    line, *rest = octets.removesuffix(b"\r\n\r\n").split(b"\r\n")
    match = _REQUEST.fullmatch(line)
    if match is None:
        raise Malformed("no request line of HTTP/1.0 or 1.1")
    head = Head(line, match[1], match[3] == b"1", tuple(map(_field, rest)))
    names = [field.name for field in head.fields]
    lengths = [field.value for field in head.fields if field.name == b"content-length"]
    if len(lengths) > 1 or not all(re.fullmatch(rb"[0-9]{1,18}[ \t]*", length) for length in lengths):
        raise Malformed("no single Content-Length")
    if b"transfer-encoding" in names and (lengths or not head.newest):
        raise Malformed("Transfer-Encoding beside Content-Length, or in HTTP/1.0")
    if names.count(b"host") > 1 or (head.newest and b"host" not in names):
        raise Malformed("no single Host")
    return head


def _field(line: bytes) -> Field:
    match = _FIELD.fullmatch(line)
    if match is None:
        raise Malformed("a line that is no field")
    return Field(match[1].lower(), match[2].strip(b" \t"), line)


# --- responses -----------------------------------------------------------------------------------


def status(response: bytes) -> int:
    """Of a head that `Heads` has let pass."""
    return int(response[9:12])


def response_fields(response: bytes) -> list[tuple[bytes, bytes]]:
    """Names in lower case, and values."""
    pairs = [line.partition(b":") for line in re.split(rb"\r?\n", response)[1:]]
    return [(name.strip().lower(), value.strip()) for name, _, value in pairs if name]


def asks_for_password(response: bytes) -> bool:
    """Whether it wants a password that whoever listens can read (RFC 7617)."""
    wanted = [value for name, value in response_fields(response) if name == b"www-authenticate"]
    return status(response) == 401 and any(_BASIC.search(value) for value in wanted)


def starts_tls(response: bytes) -> bool:
    """Whether this is the go-ahead; cupsd says `Connection: Keep-Alive` in it."""
    upgrades = b",".join(value for name, value in response_fields(response) if name == b"upgrade")
    return status(response) == 101 and any(_TLS.fullmatch(each.strip()) for each in upgrades.split(b","))


def body_length(response: bytes) -> int | None:
    """Octets of the body, where it has a length and the connection stays open behind it; else None."""
    fields = dict(response_fields(response))
    if b"transfer-encoding" in fields or b"close" in fields.get(b"connection", b"").lower():
        return None
    length = fields.get(b"content-length", b"0" if status(response) in (204, 304) else b"")
    return int(length) if re.fullmatch(rb"[0-9]{1,6}", length) else None


# --- framing -------------------------------------------------------------------------------------


class Heads:
    """A head, up to and with its empty line."""

    def unit(self, inbox: Inbox) -> Unit | None:
        """What cannot become a head is a Violation as soon as that is known."""
        octets = inbox.octets
        if inbox.side is Side.BACKEND:
            end = _END.search(octets)
            _check_status(octets)
            if end is None and len(octets) > RESPONSE_HEAD:
                raise Violation(inbox.side, "backend-line-too-long", "a head without end")
            length = None if end is None else end.end()
        else:
            length = _request_length(octets)
        taken = None if length is None else inbox.take(length)
        return None if taken is None else Unit(inbox.side, taken)


class Whole:
    """A response with its body, where that has a length and the connection stays open; else its head."""

    def unit(self, inbox: Inbox) -> Unit | None:
        end = _END.search(inbox.octets)
        if end is None:
            return HEADS.unit(inbox)  # which tells what cannot become one
        _check_status(inbox.octets)
        octets = body_length(bytes(inbox.octets[: end.end()])) or 0
        taken = inbox.take(end.end() + octets)
        return None if taken is None else Unit(inbox.side, taken)


def _request_length(octets: bytearray) -> int | None:
    line = octets.partition(b"\n")
    if line[1] and not _REQUEST.fullmatch(line[0].removesuffix(b"\r")):
        raise Violation(Side.CLIENT, "client-protocol-error", f"no request of HTTP/1.0 or 1.1: {bytes(octets[:32])!r}")
    end = octets.find(b"\r\n\r\n")
    if end > REQUEST_HEAD - 4 or (end < 0 and len(octets) > REQUEST_HEAD):
        raise Violation(Side.CLIENT, "client-line-too-long", f"a head of more than {REQUEST_HEAD} octets")
    return None if end < 0 else end + 4


def _check_status(octets: bytearray) -> None:
    begin = bytes(octets[: len(_STATUS_BEGIN)])
    whole = b"\n" in octets or len(octets) >= len(b"HTTP/1.1 200\r\n")
    if not _STATUS_BEGIN.startswith(begin) or (whole and not _STATUS.match(octets)):
        raise Violation(Side.BACKEND, PROTOCOL_ERROR, repr(bytes(octets[:80])))


HEADS: Final = Heads()
WHOLE: Final = Whole()
