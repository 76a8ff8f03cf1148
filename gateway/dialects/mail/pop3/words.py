"""What POP3's lines mean: pure functions on capabilities, greetings and replies."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import Final

from ... import sasl
from ...conversation import Stage

COMMAND_LINE: Final = 512
"""RFC 2449 4 says 255 octets; a backend that splits longer lines would take the tail for a command."""

COMMAND: Final = re.compile(rb"([A-Za-z][A-Za-z0-9_.-]*)(?: (.*)|\t[ \t]*)?\Z", re.DOTALL)
"""A blank divides verb and arguments; a tab is no more than a blank behind a bare verb."""
XCLIENT: Final = re.compile(rb"(?<! ) +\[XCLIENT\](?= |\Z)", re.IGNORECASE)

LATER: Final = re.compile(rb"\S* *\[(?:SYS/|IN-USE\]|LOGIN-DELAY\])", re.IGNORECASE)
"""A refusal that says nothing of the password (RFC 3206 4, RFC 2449 8.1)."""
_CODE: Final = re.compile(rb"\A\S* *(?:\[[^]]*\] *)?")
_UNKNOWN: Final = re.compile(
    rb"(?:un(?:known|supported|recogni[sz]ed|acceptable)|invalid|bad|illegal|no such)"
    rb"(?: POP3| SASL| AUTH| authentication| AUTHORIZATION state| login)? (?:command|mechanism|type|method)\b"
    rb"|(?:\S+ )?(?:command|mechanism)(?: \S+){0,2} (?:not (?:supported|available|allowed|enabled|known|recogni|valid)"
    rb"|un(?:supported|known|recogni)|disabled)"
    rb"|(?:\S+ ){0,2}(?:not |un)implemented\b",
    re.IGNORECASE,
)
"""A refusal of the command or the mechanism itself: `-ERR Unknown command`, `-ERR Authentication mechanism is not
supported`.  It begins so: what the client said may stand further behind."""
_OTHERWISE: Final = re.compile(
    rb"\b(?:S?TLS|SSL|SASL|APOP|NTLM|GSSAPI|Kerberos)\b|\b(?:plain|clear)[ -]?text\b|\bencrypt|\bunder a layer\b"
    rb"|\b(?:use|try|requires?|needs?)\b.*\bAUTH\b",
    re.IGNORECASE,
)
"""A refusal of USER that sends the client another way: `-ERR Plaintext authentication disallowed`, `-ERR use AUTH`."""

HIDDEN: Final = {
    Stage.CLOSED: frozenset({b"STLS", b"XCLIENT", b"USER", b"SASL"}),
    Stage.OPEN: frozenset({b"STLS", b"XCLIENT"}),
    Stage.SECURE: frozenset({b"STLS", b"XCLIENT"}),
}
ADDED: Final = {Stage.CLOSED: (b"STLS",), Stage.OPEN: (b"STLS",), Stage.SECURE: ()}
"""RFC 2595 4."""


def edit_greeting(line: bytes) -> bytes:
    """Without Dovecot's offer of XCLIENT; an APOP timestamp stays as it is."""
    return XCLIENT.sub(b"", line)


def edit_capabilities(lines: Iterable[bytes], stage: Stage) -> list[bytes]:
    """What the client is to see of a CAPA list's lines (RFC 2449 6); ADDED comes behind them."""
    return [line for line in (_edit_capability(line, stage) for line in lines) if line is not None]


def _edit_capability(line: bytes, stage: Stage) -> bytes | None:
    words = line.split()
    key = words[0].upper() if words else b""
    if key in HIDDEN[stage]:
        return None
    if key == b"SASL":
        kept = sasl.usable(words[1:])
        if not kept:
            return None
        if kept != words[1:]:
            return b" ".join([words[0], *kept])
    return line


def blames_command(reply: bytes) -> bool:
    """Whether a refusal is one of the command or the mechanism, which would be the same for anybody."""
    return _UNKNOWN.match(_CODE.sub(b"", reply)) is not None


def blames_name(reply: bytes, name: bytes) -> bool:
    """Whether a refusal of USER says something of the name: that nobody is called so, or may not log in."""
    if LATER.match(reply) or blames_command(reply):
        return False
    # A name may hold such words, and servers repeat names.
    return not _OTHERWISE.search(_CODE.sub(b"", reply)) or _OTHERWISE.search(name) is not None


def is_ok(reply: bytes) -> bool:
    """Strictly: this decides about TLS and trust."""
    return reply == b"+OK" or reply.startswith(b"+OK ")


class Status(Enum):
    """How a reply begins (RFC 1939 3, RFC 5034 4)."""

    OK = "+OK"
    ERR = "-ERR"
    MORE = "+"

    @staticmethod
    def of(line: bytes) -> Status | None:
        if line[:3].upper() == b"+OK":
            return Status.OK
        if line[:1] == b"-":
            return Status.ERR
        # Some servers leave the blank behind the plus out.
        return Status.MORE if line[:1] == b"+" else None


def too_long(text: bytes) -> bool:
    """Nothing but an initial response makes a command long: a backend that splits it finds no command in base64."""
    if len(text) <= COMMAND_LINE:
        return False
    match = COMMAND.match(text)
    return not (match and match[1].upper() == b"AUTH" and sasl.is_request(match[2] or b""))


def is_later(reply: bytes) -> bool:
    return LATER.match(reply) is not None


def listed(reply: bytes) -> list[bytes] | None:
    """The lines of a CAPA list (RFC 2449 5)."""
    first, *lines = reply.splitlines() or [b""]
    return [line for line in lines if line != b"."] if is_ok(first) else None


def agrees(reply: bytes) -> bool:
    """`is_ok` for a whole reply, with its line ends."""
    return is_ok(reply.split(b"\r\n")[0])
