"""Messages of IRC (RFC 2812 2.3.1, IRCv3 message-tags) and lists of capabilities (IRCv3 capability-negotiation)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from ....protocol.framing import Lines
from ...access import Access, Seen
from ...base import Terms
from ...sasl import usable

TAGS: Final = 4096
"""Octets of a client's tags, with `@` and the blank behind them."""
TEXT: Final = 510
"""Octets of the rest of a message, without CRLF."""
LINES: Final = Lines(8191 + TEXT, commands=True)
"""A server's tags have 8191 octets at most.  What a client may say is shorter, see `too_long`."""

_TAGS = re.compile(rb"@[^ ]* +")
_MESSAGE = re.compile(rb" *(?:@[^ ]+ +)?(?::[^ ]+ +)?([A-Za-z]+|[0-9]{3})(?: +(.*))?", re.DOTALL)
_LISTING = re.compile(
    rb"( *(?:@[^ ]+ +)?(?::[^ ]+ +)?CAP +[^ ]+ +(?P<kind>LS|NEW|DEL) +(?! ))(?P<more>\* +(?! ))?"
    rb"(?::(?P<list>.*)|(?P<one>[^ :][^ ]*))? *",
    re.DOTALL | re.IGNORECASE,
)
_HIDDEN = frozenset({b"tls", b"sts"})
"""Capabilities that speak of the backend's own TLS."""


class Message(NamedTuple):
    """What matters of a message: neither its tags nor its prefix."""

    verb: bytes
    """In upper case, or three digits."""
    params: tuple[bytes, ...]


def parse(line: bytes) -> Message | None:
    """The message in this line; None where a server may read something else than we do."""
    match = _MESSAGE.fullmatch(line)
    if match is None:
        return None
    words, colon, trailing = (b" " + (match[2] or b"")).partition(b" :")
    return Message(match[1].upper(), (*words.split(), *([trailing] if colon else ())))


def too_long(line: bytes) -> bool:
    """Whether a client's line is longer than a server must take."""
    tags = _TAGS.match(line)
    return len(line) - (tags.end() if tags else 0) > TEXT or (tags is not None and tags.end() > TAGS)


def address(client: str) -> bytes:
    """As a word of a message, which must not begin with a colon."""
    return (f"0{client}" if client.startswith(":") else client).encode("ascii")


def webirc(terms: Terms, *, secured: bool) -> bytes:
    """IRCv3 WebIRC: the client's address, and whether it is inside TLS."""
    assert terms.origin is not None, "reached() lets nobody else pass"
    client = address(terms.origin.source[0])
    words = [b"WEBIRC", terms.secret.encode("ascii"), b"starttls-gateway", client, client]
    return b" ".join([*words, b":secure"] if secured else words)


# --- lists of capabilities -----------------------------------------------------------------------


def capabilities(line: bytes) -> list[bytes] | None:
    """Those of one line of the answer to CAP LS, or of CAP NEW or DEL; None for another line."""
    match = _LISTING.fullmatch(line)
    return None if match is None else (match["list"] or match["one"] or b"").split()


def is_last(line: bytes) -> bool:
    """Whether this is the last line of the answer to CAP LS."""
    match = _LISTING.fullmatch(line)
    return match is not None and match["more"] is None and _lists(match)


def mechanisms(listed: Iterable[bytes]) -> list[bytes]:
    """Of SASL, as far as they are listed."""
    return [
        name
        for each in listed
        if each.startswith(b"sasl=")
        for name in each.removeprefix(b"sasl=").upper().split(b",")
        if name
    ]


def _lists(match: re.Match[bytes]) -> bool:
    """It is the answer to CAP LS."""
    return match["kind"].upper() == b"LS"


def edit_listing(line: bytes, *, secured: bool) -> bytes:
    """One line of the answer to CAP LS, CAP NEW or CAP DEL for a client; other lines as they are.

    Empty where nothing is left to be told.
    """
    match = _LISTING.fullmatch(line)
    listed = capabilities(line)
    if match is None or listed is None:
        return line
    shown = [edited for each in listed if (edited := _edited(each))]
    if not _lists(match):
        return match[1] + b":" + b" ".join(shown) if shown else b""
    if not secured and match["more"] is None:
        shown.append(b"tls")
    return match[1] + (match["more"] or b"") + b":" + b" ".join(shown)


def _edited(capability: bytes) -> bytes:
    """Nothing where it must not be offered."""
    name, equals, value = capability.partition(b"=")
    if name.lower() in _HIDDEN:
        return b""
    if name.lower() != b"sasl" or not equals:
        return capability
    names = usable(value.split(b","))
    return b"sasl=" + b",".join(names) if names else b""


# --- looking at a server -------------------------------------------------------------------------


def listed(reply: bytes) -> list[bytes] | None:
    """The capabilities in the answer to CAP LS."""
    found = [each for line in reply.splitlines() if (each := capabilities(line)) is not None]
    return [capability for each in found for capability in each] if found else None


def answered(said: bytes, heard: bytes) -> bool:
    """Whether a server has said all that it says to CAP LS; `heard` begins with its answer to our PING."""
    if said.startswith(b"QUIT"):
        return False  # it closes
    lines = heard.splitlines()
    return not said or any(map(is_last, lines)) or sum(map(_refuses, lines)) > 1


def _refuses(line: bytes) -> bool:
    message = parse(line)
    return message is not None and message.verb in (b"421", b"451", b"PONG")


def complete(command: bytes, heard: bytes) -> bool:
    """Whether the answer to STARTTLS or CAP LS is there, for a look from outside; notices may come before it."""
    lines = heard.splitlines()
    if command.startswith(b"CAP"):
        return any(is_last(line) or _refuses(line) for line in lines)
    return any((message := parse(line)) and message.verb.isdigit() for line in lines)


def agrees(reply: bytes) -> bool:
    """Whether it is the go-ahead for TLS."""
    return any((message := parse(line)) and message.verb == b"670" for line in reply.splitlines())


def access(seen: Seen) -> Access:
    """Servers let clients in without a login, or with a password of which they say nothing before."""
    names = tuple(f"SASL {name.decode('ascii', 'replace')}" for name in mechanisms(seen.shown or ()))
    starttls = None if seen.offered is None else b"tls" in seen.offered
    return Access(names or None, starttls=starttls)
