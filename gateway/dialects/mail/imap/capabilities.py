"""Capability lists in a backend's lines, edited as TLS and safety demand (RFC 9051 6.1.1, 7.1, 7.2.2)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from ... import sasl
from ...conversation import Stage

STATUS: Final = re.compile(rb"(?:\*|[^ *+]+) (?:OK|NO|BAD|BYE|PREAUTH)(?: |\Z)", re.IGNORECASE)
LIST: Final = re.compile(rb"\A(\* CAPABILITY)([ \t].*)?\Z", re.IGNORECASE | re.DOTALL)
CODE: Final = re.compile(rb"(\[CAPABILITY)([ \t][^\]]*)?(?=\]|\Z)", re.IGNORECASE)

REMEMBERED: Final = 16
"""Lists that were edited.  A backend has two: before the login, and behind it."""


def capabilities(line: bytes) -> list[bytes]:
    """The tokens of all capability lists in a backend's line, in upper case."""
    return [token for groups in _lists(line).findall(line) for token in groups[1].upper().split()]


def edit_capabilities(tokens: list[bytes], stage: Stage) -> list[bytes]:
    """What the client is to see of a list (RFC 9051 6.1.1, 6.2.1; sasl.py for the mechanisms)."""
    mechanisms = {token.upper().removeprefix(b"AUTH=") for token in tokens if offers_login(token)}
    hidden = {b"STARTTLS"}
    added: list[bytes] = []
    match stage:
        case Stage.CLOSED:
            hidden |= {b"LOGINDISABLED"} | {b"AUTH=" + name for name in mechanisms}
            added = [b"STARTTLS", b"LOGINDISABLED"]
        case Stage.OPEN:
            hidden |= {b"AUTH=" + name for name in sasl.unusable(mechanisms)}
            added = [b"STARTTLS"]
        case Stage.SECURE:
            # LOGINDISABLED stays: without it a clear message would become a failing login.
            hidden |= {b"AUTH=" + name for name in sasl.unusable(mechanisms)}
        case _:
            hidden |= {b"LOGINDISABLED"}
    return [token for token in tokens if token.upper() not in hidden] + added


def edit_line(line: bytes, stage: Stage) -> bytes:
    """A backend's line with its capability lists edited, wherever they stand; else as it was."""

    def edited(match: re.Match[bytes]) -> bytes:
        told = _edited(match[2] or b"", stage)
        return match[0] if told is None else b" ".join([match[1], *told])

    return _lists(line).sub(edited, line)


@lru_cache(maxsize=REMEMBERED)
def _edited(listed: bytes, stage: Stage) -> list[bytes] | None:
    """The tokens that the client is to see of this list; None for all of them."""
    tokens = listed.split()
    told = edit_capabilities(tokens, stage)
    return None if told == tokens else told


def _lists(line: bytes) -> re.Pattern[bytes]:
    """How capability lists look in this line (RFC 9051 7.1, 7.2.2)."""
    return CODE if STATUS.match(line) else LIST


def offers_login(token: bytes) -> bool:
    return token.upper().startswith(b"AUTH=")


def listed(reply: bytes) -> list[bytes] | None:
    """The tokens in a reply to CAPABILITY (RFC 9051 7.2.2)."""
    lists = [line.split()[2:] for line in reply.splitlines() if LIST.match(line)]
    return [token for tokens in lists for token in tokens] if lists else None
