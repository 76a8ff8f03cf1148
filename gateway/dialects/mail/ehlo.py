"""The SMTP backend's EHLO reply, edited as TLS and safety demand and not otherwise (RFC 5321 4.1.1.1)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from ...records import dataclass
from .. import sasl
from ..conversation import Stage
from . import extensions

AUTH = frozenset({b"AUTH", b"X-EXPS"})

# Clients strip lines before they read them (smtplib does), so what surrounds a keyword does not hide it.
_KEYWORD = re.compile(rb"\s*([A-Za-z0-9_-]*)")
_AUTH_LINE = re.compile(rb"(\s*[A-Za-z0-9_-]+[^A-Za-z0-9_-]\s*)(.*)\Z", re.DOTALL)


REMEMBERED: Final = 8
"""Lists of extensions that were read.  A backend has one, or two: it may have another one inside TLS."""


def keyword(line: bytes) -> bytes:
    """The EHLO keyword of a line (without its code), in upper case; `AUTH=LOGIN` is old for `AUTH LOGIN`."""
    return _KEYWORD.match(line)[1].upper()  # type: ignore[index]  # matches always


def mechanisms(lines: list[bytes]) -> frozenset[bytes]:
    """Every SASL mechanism that the reply offers, in upper case."""
    return frozenset(name.upper() for line in lines if keyword(line) in AUTH for name in _offer(line)[1])


def _offer(line: bytes) -> tuple[bytes, list[bytes]]:
    match = _AUTH_LINE.match(line)
    return (match[1], match[2].split()) if match else (line, [])


@dataclass(frozen=True, slots=True)
class Offer:
    """What a list of extensions means to the gateway."""

    keywords: frozenset[bytes]
    lengthens: bool
    """MAIL and RCPT may be longer than other commands."""
    authority: bool
    """By one of them a trusted address speaks for others."""
    binds: bool
    """There are mechanisms with channel binding, which cannot work through a gateway."""


@lru_cache(maxsize=REMEMBERED)
def offer(lines: tuple[bytes, ...]) -> Offer:
    """`lines` are the reply's without code, behind the first."""
    keywords = frozenset(map(keyword, lines))
    return Offer(
        keywords=keywords,
        lengthens=any(map(extensions.lengthens, keywords)),
        authority=any(map(extensions.is_authority, keywords)),
        binds=any(name.endswith(sasl.PLUS) for name in mechanisms(list(lines))),
    )


UNPROMISED = frozenset({b"REQUIRETLS"})
"""What must not be offered where nobody knows that it works."""


def edit(lines: list[bytes], stage: Stage, withheld: frozenset[bytes] = UNPROMISED) -> list[bytes]:
    """What the client is told; `lines` are the reply's without code.  The first is never touched."""
    return [*lines[:1], *edited(tuple(lines[1:]), stage, withheld)]


@lru_cache(maxsize=2 * REMEMBERED)
def edited(lines: tuple[bytes, ...], stage: Stage, withheld: frozenset[bytes] = UNPROMISED) -> tuple[bytes, ...]:
    """What the client is told of these extensions.  Order is kept, STARTTLS comes last.  Editing twice is editing once.

    `withheld`: extensions that do not work in this session, beside those that are always hidden."""
    hidden = sasl.unusable(mechanisms(list(lines)))
    kept: list[bytes] = []
    for line in lines:
        word = keyword(line)
        if word == b"STARTTLS" or extensions.is_hidden(word, withheld):
            continue
        if word in AUTH:
            if stage is Stage.CLOSED:
                continue
            prefix, offered = _offer(line)
            left = [name for name in offered if name.upper() not in hidden]
            if len(left) < len(offered):
                if not left:
                    continue
                line = prefix + b" ".join(left)
            elif not offered:
                continue
        kept.append(line)
    if stage is not Stage.SECURE:
        kept.append(b"STARTTLS")
    return tuple(kept)
