"""ManageSieve's strings, replies and capabilities: values and pure functions (RFC 5804 1.2, 1.7, 4)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from ....records import dataclass
from ... import access, sasl
from ...conversation import Stage
from ..strings import Malformed, strings, units

COMMAND: Final = re.compile(rb"(?P<tag>)(?P<verb>[A-Za-z][A-Za-z0-9_-]*)(?: (?P<told>.*))?\Z", re.DOTALL)
STATUS: Final = re.compile(rb"(OK|NO|BYE)(?= |\Z)", re.IGNORECASE)
LATER: Final = re.compile(
    rb"NO +\((?:TRYLATER|ENCRYPT-NEEDED|TRANSITION-NEEDED|REFERRAL|AUTH-TOO-WEAK)\b", re.IGNORECASE
)
"""A refusal that says nothing of the password (RFC 5804 1.3)."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A backend's reply: capabilities, if it lists any, and the line that ends it; all without the last CRLF."""

    status: bytes
    """OK, NO or BYE."""
    text: bytes
    lines: tuple[bytes, ...] = ()


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
    kept = [] if stage is Stage.CLOSED else sasl.usable(names)
    return line if kept == names else b'"SASL" "%s"' % b" ".join(kept)


def mechanisms(lines: Iterable[bytes]) -> list[bytes]:
    """The names behind SASL, in upper case."""
    return [each for name, value in map(capability, lines) if name == b"SASL" for each in value.upper().split()]


# --- whole replies, for a look from outside ----------------------------------------------------------


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
