"""What NNTP's lines mean: pure functions on replies and capabilities."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from ... import access, sasl
from ...conversation import Stage

COMMAND_LINE: Final = 510
"""RFC 3977 3.1: 512 with CRLF.  A backend that splits longer lines would take the tail for a command."""
COMMAND: Final = re.compile(rb"([A-Za-z][A-Za-z0-9_.-]*)(?:[ \t]+(.*))?\Z", re.DOTALL)
_TAKETHIS: Final = re.compile(rb"[\0\s]*TAKETHIS(?![A-Za-z0-9_.-])", re.IGNORECASE)
REPLY: Final = re.compile(rb"[1-5][0-9][0-9](?: .*)?\Z", re.DOTALL)

WELCOMES: Final = frozenset({b"200", b"201"})
"""Greetings: posting is allowed, or not (RFC 3977 5.1)."""
LEAVES: Final = b"400"
"""The server closes the connection (RFC 3977 3.2.1)."""
TURNS_AWAY: Final = frozenset({LEAVES, b"502"})
STREAMS: Final = b"203"
"""To MODE STREAM: CHECK and TAKETHIS are known (RFC 4644 2.3)."""
BAD_COMMAND: Final = frozenset({b"500", b"501"})
REJECTS: Final = frozenset({b"481", b"482", b"502"})
"""Refusals of name and password.  RFC 4643 has 481; RFC 2980 has the others."""
LATER: Final = frozenset({LEAVES, b"403"})
"""Refusals that say nothing of the client."""
_LISTS: Final = frozenset({
    b"100", b"101", b"215", b"220", b"221", b"222", b"224", b"225", b"230", b"231",  # RFC 3977
    b"218", b"282",  # RFC 2980: XINDEX, XGTITLE
})  # fmt: skip
_LINES: Final = frozenset({
    b"111", b"200", b"201", b"205", b"206", b"223", b"235", b"240",  # RFC 3977, RFC 8054
    b"203", b"238", b"239",  # RFC 4644
    b"202", b"281", b"283",  # RFC 977: SLAVE; RFC 4643
})  # fmt: skip


def is_list(verb: bytes, reply: bytes) -> bool | None:
    """Whether lines follow this one, up to a dot (RFC 3977 3.2.1): the code tells, but for 211.

    None where nobody can tell: a code of a command that we do not know (`XTHREAD`: 288).
    """
    code = reply[:3]
    if code == b"211" and verb in (b"GROUP", b"LISTGROUP"):
        return verb == b"LISTGROUP"
    if code in _LISTS:
        return True
    return False if code in _LINES or code[:1] not in (b"1", b"2") else None


def brings_article(line: bytes) -> bool:
    """Whether the client sends an article behind this line, however bad it is (RFC 4644 2.5)."""
    return _TAKETHIS.match(line) is not None


def too_long(line: bytes) -> bool:
    """Nothing but an initial response makes a command long: a backend that splits it finds no command in base64."""
    if len(line) <= COMMAND_LINE:
        return False
    verb, _, rest = line.partition(b" ")
    kind, _, arguments = rest.partition(b" ")
    return (verb.upper(), kind.upper()) != (b"AUTHINFO", b"SASL") or not sasl.is_request(arguments)


# --- capabilities ------------------------------------------------------------------------------------

HIDDEN: Final = {
    Stage.CLOSED: frozenset({b"STARTTLS", b"COMPRESS", b"SASL", b"XFEATURE-COMPRESS"}),
    # RFC 8054 2.2.2: there is no STARTTLS behind COMPRESS.
    Stage.OPEN: frozenset({b"STARTTLS", b"COMPRESS", b"XFEATURE-COMPRESS"}),
    Stage.SECURE: frozenset({b"STARTTLS", b"XFEATURE-COMPRESS"}),
}
"""XFEATURE-COMPRESS is no standard: lists that are compressed, each by itself."""
ADDED: Final = {Stage.CLOSED: (b"STARTTLS",), Stage.OPEN: (b"STARTTLS",), Stage.SECURE: ()}
"""RFC 4642 2.1."""


def edit_capabilities(lines: Iterable[bytes], stage: Stage) -> list[bytes]:
    """What the client is to see of a CAPABILITIES list's lines; ADDED comes behind them.

    `AUTHINFO` alone says that a login becomes possible later (RFC 4643 2.1).
    """
    lines = list(lines)
    offered = [name for line in lines if _label(line) == b"SASL" for name in line.split()[1:]]
    hidden = sasl.unusable(offered)
    possible = stage is not Stage.CLOSED and any(name.upper() not in hidden for name in offered)
    kept = []
    for line in lines:
        label, words = _label(line), line.split()
        if label in HIDDEN[stage]:
            continue
        if label == b"SASL":
            left = [name for name in words[1:] if name.upper() not in hidden]
            if not left:
                continue
            line = line if left == words[1:] else b" ".join([words[0], *left])
        elif label == b"AUTHINFO":
            left = [] if stage is Stage.CLOSED else [way for way in words[1:] if possible or way.upper() != b"SASL"]
            line = line if left == words[1:] else b" ".join([words[0], *left])
        kept.append(line)
    return kept


def _label(line: bytes) -> bytes:
    return (line.split() or [b""])[0].upper()


def logins(lines: Iterable[bytes]) -> tuple[str, ...] | None:
    """The ways to log in; None where the list does not speak of logins, for many servers want none."""
    found: list[str] = []
    spoken = False
    for word, *arguments in (line.upper().split() or [b""] for line in lines):
        if word == b"AUTHINFO":
            spoken = True
            found += ["AUTHINFO USER"] * (b"USER" in arguments)
        elif word == b"SASL":
            found += [f"AUTHINFO SASL {name.decode('ascii', 'replace')}" for name in arguments if name != b"ANONYMOUS"]
    return tuple(found) if found or spoken else None


NO_WAY: Final = b"AUTHINFO without USER and SASL"


def listed(reply: bytes) -> list[bytes] | None:
    """The lines of a CAPABILITIES list (RFC 3977 5.2)."""
    first, *lines = reply.splitlines() or [b""]
    return [line for line in lines if line != b"."] if first[:3] == b"101" else None


def of_nntp(seen: access.Seen) -> access.Access:
    ways = None if seen.shown is None else logins(seen.shown)
    starttls = None if seen.offered is None else any(_label(line) == b"STARTTLS" for line in seen.offered)
    return access.Access(ways, NO_WAY if ways == () else b"", starttls)
