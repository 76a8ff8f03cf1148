"""BER as LDAP uses it (RFC 4511 5.1): tags of one octet, and lengths that are definite.

A length may have more octets than it needs (Windows always writes five), but a number of 4 octets at most.
Functions raise ValueError for anything else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

INTEGER: Final = 0x02
OCTETS: Final = 0x04
ENUMERATED: Final = 0x0A
SEQUENCE: Final = 0x30
LONGEST: Final = 16 * 1024 * 1024
"""Octets of a message's content."""
HEAD: Final = 6 + 6 + 1
"""Octets of a message up to its operation's tag, at most."""
SHORTEST: Final = 6 + 2
"""Octets of a message's content in which every id and an operation have room."""
LENGTHY: Final = 6
"""Octets of a tag and its length, at most."""
ENOUGH: Final = 4
"""Octets after which it is told that something is no message: as many as tell an HTTP request from one."""


class Element(NamedTuple):
    """A tag, and where the content lies."""

    tag: int
    begin: int
    end: int


class Head(NamedTuple):
    """How a message begins."""

    ident: int
    """The message id (RFC 4511 4.1.1.1)."""
    operation: Element


# --- reading -----------------------------------------------------------------------------------------


def element(octets: bytes, at: int) -> Element | None:
    """The element that begins at `at`; None where more octets are needed to know its length."""
    if len(octets) < at + 2:
        return None
    length = octets[at + 1]
    begin = at + 2
    if length >= 0x80:
        begin += length & 0x7F
        if not 0x81 <= length <= 0x84:
            raise ValueError("a length that is not definite, or too long")
        if len(octets) < begin:
            return None
        length = int.from_bytes(octets[at + 2 : begin], "big")
    return Element(octets[at], begin, begin + length)


def measure(head: bytes) -> int | None:
    """The length of a message, as a framing wants it."""
    if head[:1] != b"\x30":
        if len(head) < ENOUGH:
            return None
        raise ValueError("no LDAP message")
    found = element(head, 0)
    if found is None:
        return None
    if found.end - found.begin > LONGEST:
        raise ValueError(f"a message of {found.end - found.begin} octets")
    return found.end


def head(octets: bytes) -> Head | None:
    """Of the message that begins so; None where more octets are needed."""
    whole = element(octets, 0)
    if whole is None:
        return None
    if whole.tag != SEQUENCE:
        raise ValueError("no LDAP message")
    # What lies behind the message is not looked at, and what would have to lie there is an error.
    cut = octets[: whole.end]
    ident = element(cut, whole.begin)
    operation = None
    if ident is not None:
        size = ident.end - ident.begin
        if ident.tag != INTEGER or not 1 <= size <= 4:
            raise ValueError("no message id")
        if len(cut) > ident.begin and cut[ident.begin] >= 0x80:
            raise ValueError("a message id below 0")
        operation = element(cut, ident.end)
    if ident is None or operation is None:
        if len(cut) == whole.end:
            raise ValueError("a message without an operation")
        return None
    if operation.end > whole.end:
        raise ValueError("an operation that is longer than its message")
    return Head(int.from_bytes(cut[ident.begin : ident.end], "big"), operation)


_WIDTHS: Final = {0x81: "B", 0x82: "H", 0x84: "I"}
"""The first octet of a long length -> the number behind it, for `struct`."""
_BEGINS: Final = {
    (form, ident): struct.Struct(f">H{width}{3 + ident}s") for form, width in _WIDTHS.items() for ident in range(1, 5)
} | {(0, ident): struct.Struct(f">BB{3 + ident}s") for ident in range(1, 5)}
"""By that octet (0: a short length) and the octets of the id: how a message begins, up to its operation's tag."""


def skim(octets: bytes | bytearray, at: int, tag: int) -> int:
    """The end of the messages with this operation that begin at `at`, one behind the other.

    The last one may end behind `octets`.  What is rare is left to a closer look: lengths of three octets, a content
    shorter than SHORTEST, a head that has not come.
    """
    enough = len(octets) - HEAD
    while at < enough and octets[at] == SEQUENCE:
        first, form = at, octets[at + 1]
        if form < 0x80:
            form, kind, begin, most = 0, SEQUENCE, at + 2, 0x7F
        elif form in _WIDTHS:
            kind, begin, most = SEQUENCE << 8 | form, at + 2 + (form & 0x7F), LONGEST
        else:
            break
        ident = octets[begin + 1]
        if octets[begin] != INTEGER or not 1 <= ident <= 4 or octets[begin + 2] >= 0x80:
            break
        same, head = bytes(octets[begin : begin + 2 + ident]) + bytes([tag]), begin - at
        # A million entries pass here.
        unpack, least = _BEGINS[form, ident].unpack_from, SHORTEST
        while at < enough:
            begun, length, named = unpack(octets, at)
            if begun != kind or named != same or not least <= length <= most:
                break
            at += head + length
        if at == first:
            break
    return at


def elements(octets: bytes, begin: int, end: int) -> Iterator[Element]:
    """The elements that fill this range exactly; `octets` has all of it."""
    while begin < end:
        # Not octets[:end]: that would be copied for each element.
        found = element(octets[begin : min(end, begin + LENGTHY)], 0)
        if found is None or begin + found.end > end:
            raise ValueError("an element that is longer than what it is part of")
        yield Element(found.tag, begin + found.begin, begin + found.end)
        begin += found.end


def content(octets: bytes, found: Element) -> bytes:
    """What is in it."""
    return octets[found.begin : found.end]


# --- writing -----------------------------------------------------------------------------------------


def write(tag: int, *parts: bytes) -> bytes:
    """An element with these parts, and a length that is as short as can be."""
    inside = b"".join(parts)
    size = len(inside)
    if size < 0x80:
        return bytes([tag, size]) + inside
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(digits)]) + digits + inside


def number(value: int, tag: int = INTEGER) -> bytes:
    """A number that is not negative."""
    return write(tag, value.to_bytes(value.bit_length() // 8 + 1, "big"))
