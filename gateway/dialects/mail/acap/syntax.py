"""The words of ACAP (RFC 2244): replies, and the greeting with its capabilities."""

from __future__ import annotations

import re
from typing import Final

from ... import access, sasl
from ...conversation import Stage
from ..strings import QUOTABLE, is_text, string, units

TAG: Final = rb"[A-Za-z0-9.:_-]{1,32}"
COMMAND: Final = re.compile(rb"(?P<tag>%s )(?P<verb>[A-Za-z]+)(?: (?P<told>.*))?\Z" % TAG, re.DOTALL)
REPLY: Final = re.compile(rb"(\*|%s) (OK|NO|BAD|BYE|[A-Z]+)(?= |\Z)" % TAG, re.IGNORECASE)
LATER: Final = re.compile(rb"[^ ]+ NO \((?:TRYLATER|ENCRYPT-NEEDED|TRANSITION-NEEDED|AUTH-TOO-WEAK)\b", re.IGNORECASE)
"""A refusal that says nothing of the password (RFC 2244 4.3)."""
_GROUP: Final = re.compile(rb" ?\(([A-Za-z][A-Za-z0-9./_-]*)")
_VALUE: Final = re.compile(rb' (?:"((?:[^"\\]|\\.)*)"|\{([0-9]{1,6})\+?\}\r\n)', re.DOTALL)

Group = tuple[bytes, list[bytes]]
"""A capability: its name in upper case, and its values (RFC 2244 6.2.1)."""


def is_bye(text: bytes) -> bool:
    match = REPLY.match(text)
    return match is not None and (match[1], match[2].upper()) == (b"*", b"BYE")


# --- the greeting ------------------------------------------------------------------------------------


def capabilities(greeting: bytes) -> list[Group] | None:
    """Of a whole greeting, its literals included; None for what is none."""
    if not re.match(rb"\* ACAP(?= |\Z)", greeting, re.IGNORECASE):
        return None
    found: list[Group] = []
    at = len(b"* ACAP")
    while match := _GROUP.match(greeting, at):
        name, at = match[1].upper(), match.end()
        values: list[bytes] = []
        while value := _VALUE.match(greeting, at):
            at = value.end() + int(value[2] or 0)
            quoted = value[1]
            values.append(
                greeting[value.end() : at] if quoted is None else re.sub(rb"\\(.)", rb"\1", quoted, flags=re.DOTALL)
            )
        if greeting[at : at + 1] != b")":
            return None
        at += 1
        found.append((name, values))
    return None if greeting[at:].strip() else found


def edited(groups: list[Group], stage: Stage) -> list[Group]:
    """What the client is to see of the backend's capabilities."""
    shown: list[Group] = []
    for name, values in groups:
        kept = sasl.usable(values)
        if name == b"SASL" and kept and stage is not Stage.CLOSED:
            shown.append((name, kept))
        elif name not in (b"SASL", b"STARTTLS"):
            shown.append((name, values))
    return shown if stage is Stage.SECURE else [*shown, (b"STARTTLS", [])]


def greeting_of(groups: list[Group]) -> bytes:
    """With its CRLF."""
    words = [b" ".join([name, *map(_told, values)]) for name, values in groups]
    return b"".join([b"* ACAP", *(b" (%s)" % word for word in words), b"\r\n"])


def is_plain(value: bytes) -> bool:
    """Whether it can be a quoted string."""
    return is_text(value) and len(value) <= QUOTABLE


def _told(value: bytes) -> bytes:
    """A string for the client.  A server's literals have no plus (RFC 2244 2.6.3)."""
    return string(value) if is_plain(value) else b"{%d}\r\n%s" % (len(value), value)


def response(value: bytes) -> bytes:
    """A string for a server that waits for one, and not for a literal's announcement."""
    return string(value) if is_plain(value) else b"{%d+}\r\n%s" % (len(value), value)


# --- looking at a server -----------------------------------------------------------------------------


def complete(command: bytes, heard: bytes) -> bool:
    """Whether the reply to this command is there: untagged lines come before its end, and the greeting is one."""
    told = units(heard)
    return bool(told) and not (command and told[-1].startswith(b"* "))


def agrees(reply: bytes) -> bool:
    """Whether it is a greeting that welcomes, or a success."""
    (last,) = units(reply)[-1:] or (b"",)
    match = REPLY.match(last)
    return capabilities(last) is not None or (match is not None and match[2].upper() == b"OK")


def listed(greeting: bytes) -> list[bytes] | None:
    """The capabilities in it: `SASL PLAIN LOGIN`."""
    groups = capabilities(greeting.removesuffix(b"\r\n"))
    return None if groups is None else [b" ".join([name, *values]) for name, values in groups]


def of_acap(seen: access.Seen) -> access.Access:
    """A login needs a mechanism behind SASL."""
    if seen.offered is None or seen.shown is None:
        return access.Access()
    names = sasl.usable([name for shown in seen.shown if shown.startswith(b"SASL ") for name in shown.split()[1:]])
    logins = tuple(f"AUTHENTICATE {name.decode('ascii', 'replace')}" for name in names)
    return access.Access(logins, b"" if logins else b"SASL without a mechanism", starttls=b"STARTTLS" in seen.offered)
