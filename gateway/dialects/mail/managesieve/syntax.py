"""ManageSieve's strings, replies and capabilities: values and pure functions (RFC 5804 1.2, 1.7, 4)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ... import access, sasl
from ...conversation import Stage

COMMAND: Final = re.compile(rb"([A-Za-z][A-Za-z0-9_-]*)(?: (.*))?\Z", re.DOTALL)
STATUS: Final = re.compile(rb"(OK|NO|BYE)(?= |\Z)", re.IGNORECASE)
LATER: Final = re.compile(
    rb"NO +\((?:TRYLATER|ENCRYPT-NEEDED|TRANSITION-NEEDED|REFERRAL|AUTH-TOO-WEAK)\b", re.IGNORECASE
)
"""A refusal that says nothing of the password (RFC 5804 1.3)."""
QUOTABLE: Final = 1024
"""Octets of the longest quoted string (RFC 5804 4)."""

_ANNOUNCED: Final = re.compile(rb"\{([0-9]{1,9})\+?\}\Z")
_QUOTED: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_LITERAL: Final = re.compile(rb"\{([0-9]{1,9})\+?\}\r\n")


class Malformed(Exception):
    """Something that is no list of strings."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A backend's reply: capabilities, if it lists any, and the line that ends it; all without the last CRLF."""

    status: bytes
    """OK, NO or BYE."""
    text: bytes
    lines: tuple[bytes, ...] = ()


def announced(line: bytes) -> int | None:
    """Octets of the literal that follows this line; None if none does.

    Clients need not wait before they send one (RFC 5804 4), with or without the plus.
    """
    match = _ANNOUNCED.search(line)
    return None if match is None else int(match[1])


def strings(text: bytes) -> list[bytes]:
    """The values of strings, divided by blanks: quoted, or literals with their octets.  Raises Malformed."""
    found: list[bytes] = []
    at = 0
    while True:
        if match := _QUOTED.match(text, at):
            found.append(re.sub(rb"\\(.)", rb"\1", match[1], flags=re.DOTALL))
            at = match.end()
        elif match := _LITERAL.match(text, at):
            at = match.end() + int(match[1])
            found.append(text[match.end() : at])
        else:
            raise Malformed
        if at >= len(text):
            break
        if text[at] not in sasl.BLANKS:
            raise Malformed
        at += 1
    if at > len(text):
        raise Malformed
    return found


def arguments(text: bytes | None) -> list[bytes]:
    """A command's arguments, all of which must be strings.  Raises Malformed."""
    rest = (text or b"").rstrip(sasl.BLANKS)
    return strings(rest) if rest else []


def string(value: bytes) -> bytes:
    """The value as a string for the wire.  Clients' values come here only where they hold no CR, LF or NUL."""
    if len(value) > QUOTABLE:
        return b"{%d+}\r\n%s" % (len(value), value)
    return b'"%s"' % re.sub(rb'(["\\])', rb"\\\1", value)


def is_text(value: bytes) -> bool:
    """Whether no server can find the end of a line in it."""
    return not {*value} & {*b"\r\n\0"}


def status_of(text: bytes) -> bytes | None:
    """OK, NO or BYE where a reply ends; None for a string."""
    match = STATUS.match(text)
    return None if match is None else match[1].upper()


def is_challenge(text: bytes) -> bool:
    """Whether a backend's line in a dialogue is one string (RFC 5804 2.1)."""
    try:
        return len(strings(text)) == 1
    except Malformed:
        return False


# --- capabilities (RFC 5804 1.7) ---------------------------------------------------------------------


def is_capability(text: bytes) -> bool:
    """Whether it is a name, with at most one value."""
    try:
        return len(strings(text)) in (1, 2)
    except Malformed:
        return False


def capability(text: bytes) -> tuple[bytes, bytes]:
    """Its name in upper case, and its value."""
    name, value, *_ = [*strings(text), b""]
    return name.upper(), value


def edit_capabilities(lines: Iterable[bytes], stage: Stage) -> list[bytes]:
    """What the client is to see of a backend's list.

    `"SASL" ""` is for a server that offers no login before STARTTLS.
    """
    told = [line for line in (_edit_capability(line, stage) for line in lines) if line is not None]
    return told if stage is Stage.SECURE else [*told, b'"STARTTLS"']


def _edit_capability(line: bytes, stage: Stage) -> bytes | None:
    name, value = capability(line)
    if name in (b"STARTTLS", b"XCLIENT"):
        return None
    if name != b"SASL":
        return line
    names = value.split()
    hidden = sasl.unusable(names)
    kept = [] if stage is Stage.CLOSED else [each for each in names if each.upper() not in hidden]
    return line if kept == names else b'"SASL" "%s"' % b" ".join(kept)


def mechanisms(lines: Iterable[bytes]) -> list[bytes]:
    """The names behind SASL, in upper case."""
    return [each for name, value in map(capability, lines) if name == b"SASL" for each in value.upper().split()]


# --- whole replies, for a look from outside ----------------------------------------------------------


def units(reply: bytes) -> list[bytes]:
    """The lines of what a server has said, each with its literals and without its CRLF.

    A last one whose end has not come is left out.
    """
    found: list[bytes] = []
    begin = at = 0
    while (end := reply.find(b"\r\n", at)) >= 0:
        octets = announced(reply[at:end])
        at = end + 2 + (octets or 0)
        if octets is None:
            found.append(reply[begin:end])
            begin = at
    return found


def complete(command: bytes, heard: bytes) -> bool:
    """Whether the reply to this command is there: it ends with a status, or a login goes on with a challenge."""
    told = units(heard)
    return bool(told) and (command.startswith(b"AUTHENTICATE") or status_of(told[-1]) is not None)


def agrees(reply: bytes) -> bool:
    """Whether a whole reply is a success."""
    return any(status_of(each) == b"OK" for each in units(reply)[-1:])


def listed(reply: bytes) -> list[bytes] | None:
    """The capabilities in a reply to CAPABILITY: `SASL PLAIN LOGIN`."""
    if not agrees(reply):
        return None
    return [b" ".join(filter(None, strings(each))) for each in units(reply)[:-1] if is_capability(each)]


def of_managesieve(seen: access.Seen) -> access.Access:
    """A login needs a mechanism behind SASL."""
    if seen.shown is None:
        return access.Access()
    offered = [line.upper().split() for line in seen.offered or ()]
    names = [name for word, *names in map(bytes.split, seen.shown) if word.upper() == b"SASL" for name in names]
    logins = tuple(f"AUTHENTICATE {name.decode('ascii', 'replace')}" for name in names if name.upper() != b"ANONYMOUS")
    refusal = b"" if logins else NO_MECHANISM
    return access.Access(logins, refusal, starttls=[b"STARTTLS"] in offered)


NO_MECHANISM: Final = b"SASL without a mechanism"
