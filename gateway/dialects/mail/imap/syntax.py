"""A client's command and its literals, and a backend's reply: values and pure functions (RFC 9051 9)."""

from __future__ import annotations

import re
from typing import Final

from ....protocol.inbox import Longer
from ....records import dataclass
from ... import sasl
from ...conversation import broken

COMMAND_LINE: Final = 8192
"""RFC 7162 4."""
TAG: Final = 1000
"""Octets of a tag; RFC 9051 has no limit, and no client needs more than a few."""
TAG_PATTERN: Final = rb"[!#$&',-\[\]-z|}~]{1,%d}" % TAG
"""RFC 9051 9: ASTRING-CHARs without `+`."""
COMMAND: Final = re.compile(rb"(%s)(?: (.*))?\Z" % TAG_PATTERN, re.DOTALL)
BEGUN: Final = re.compile(rb"(%s) " % TAG_PATTERN)
VERB: Final = re.compile(rb"([A-Za-z][A-Za-z0-9.-]*)(?: (.*)|\t[ \t]*)?\Z", re.DOTALL)
LONGER: Final = Longer(re.compile(rb"%s (?:ID|AUTHENTICATE) " % TAG_PATTERN, re.IGNORECASE), 65536)
"""RFC 2971 3.3 allows an ID of 31.8 kB, and twice that if each octet is quoted.  RFC 4954 4 names 12288 octets for an
initial response.  A session holds no more for such a line than for a response (SASL_LINE) or for literals."""
LITERAL: Final = re.compile(rb"\{([0-9]+)(\+?)\}\Z")
BRACE: Final = ord("{")
_BRACE: Final = re.compile(rb'(?:\A|[ \t()"~])\{')
"""An opening brace where a word begins."""
VERDICT: Final = re.compile(rb"(OK|NO|BAD|BYE)(?: |\Z)", re.IGNORECASE)
"""BYE has no tag (RFC 9051 7.1.5), but servers exist that give it one."""
LATER: Final = re.compile(rb" *\[(?:UNAVAILABLE|INUSE|LIMIT)[\] ]", re.IGNORECASE)
"""Behind NO: whatever the password, it would have been refused (RFC 5530 3)."""
_STRING: Final = rb'"((?:[^"\\\r\n\0]|\\["\\])*)"'
_FIRST: Final = re.compile(rb" *(?:%s|([^ \"{][^ ]*))(?: |\Z)" % _STRING)
_PAIR: Final = re.compile(rb" *%s +(?:%s|NIL)(?= |\Z) *" % (_STRING, _STRING), re.IGNORECASE)


class Malformed(Exception):
    """A line that backends may read differently from us."""


@dataclass(frozen=True, slots=True)
class Literal:
    """The announcement of octets behind a line (RFC 9051 4.3, RFC 7888)."""

    octets: int
    waits: bool
    """The client sends them only after a `+` (synchronising)."""


@dataclass(frozen=True, slots=True)
class Command:
    """The first line of a client's command."""

    tag: bytes
    verb: bytes
    """In upper case."""
    arguments: bytes | None
    """Behind the blank; None if there is nothing but blanks."""
    line: bytes
    literal: Literal | None
    before: tuple[bytes, ...] = ()
    """Lines before `line`, written by us: each ends with a literal that waits, whose octets begin the next one."""


def literal_of(line: bytes) -> Literal | None:
    """The literal announced at a line's end.  Raises Malformed for a quoted string that does not end
    in the line, and for what is no literal but looks like one to some server."""
    if line.replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"') % 2:
        raise Malformed
    if BRACE not in line:
        return None
    literal = announced(line)
    if literal is None and _seems_to_announce(outside_quotes(line)):
        raise Malformed
    return literal


def outside_quotes(line: bytes) -> bytes:
    """The line with `""` in place of each quoted string (RFC 9051 4.3), in time that is linear in its length.

    Raises Malformed for a quoted string that does not end in the line.
    """
    kept = []
    at = 0
    while (begin := line.find(b'"', at)) >= 0:
        kept.append(line[at:begin])
        end = line.find(b'"', begin + 1)
        # A quote behind an odd number of backslashes is escaped.
        while end >= 0 and (end - len(line[begin + 1 : end].rstrip(b"\\")) - begin - 1) % 2:
            begin, end = end, line.find(b'"', end + 1)
        if end < 0:
            raise Malformed
        at = end + 1
    return b'""'.join([*kept, line[at:]])


def _seems_to_announce(line: bytes) -> bool:
    """Whether some server may take a brace in it for the beginning of a literal: one where a word begins, or with
    nothing but a number behind it.  (Dovecot says `+` to `{5}x` before it refuses it; for Courier a brace ends an
    atom.)"""
    tail = line.rstrip(b"-+ \t").removesuffix(b"}").rstrip(b"-+ \t0123456789")
    return tail.endswith(b"{") or _BRACE.search(line) is not None


def announced(line: bytes) -> Literal | None:
    match = LITERAL.search(line)
    if match is None:
        return None
    digits = match[1].lstrip(b"0") or b"0"
    # So many digits that the number need not be known: int() has a limit of its own.
    return Literal(int(digits[:12]), not match[2])


def spelled(line: bytes, literal: Literal | None) -> bytes:
    """The line for the backend: literals always synchronising, whatever the client used."""
    return line if literal is None else line[: line.rindex(b"{")] + b"{%d}" % literal.octets


def edit_id(arguments: bytes) -> bytes:
    """ID's arguments (RFC 2971 3.3) without the fields that trusted proxies use to speak for clients.
    Raises Malformed for what is no list of strings."""
    strings = _edited_fields(arguments)
    return b"(%s)" % b" ".join(_written(string) for string in strings) if strings else b"NIL"


def id_lines(tag: bytes, arguments: bytes) -> list[bytes]:
    """The same as a command whose lines are no longer than others: a server that splits long lines would take the tail
    for a command.  What does not fit is a literal that waits; its octets begin the next line."""
    lines = []
    line, room = tag + b" ID (", COMMAND_LINE - len(tag)
    for number, string in enumerate(_edited_fields(arguments)):
        written = b" " * (number > 0) + _written(string)
        room -= len(written)
        if room < MARGIN and string is not None:
            octets = _unquoted(string)
            lines.append(line + b" " * (number > 0) + b"{%d}" % len(octets))
            line, room = octets, COMMAND_LINE
        else:
            line += written
    return [*lines, line + b")"]


MARGIN: Final = 32
"""What may still come in a line when nothing more fits: a literal's announcement, NIL, parentheses."""


def _edited_fields(arguments: bytes) -> list[bytes | None]:
    """Names and values in turn, without their quotes; None for NIL."""
    if arguments.strip(sasl.BLANKS).upper() == b"NIL":
        return []
    inner = arguments.strip(sasl.BLANKS)
    if len(inner) < 2 or not inner.startswith(b"(") or not inner.endswith(b")"):
        raise Malformed
    inner = inner[1:-1].strip(b" ")
    kept: list[bytes | None] = []
    at = 0
    while at < len(inner):
        pair = _PAIR.match(inner, at)
        if pair is None:
            raise Malformed
        at = pair.end()
        if not _unquoted(pair[1]).strip().lower().startswith(b"x-"):
            kept += [pair[1], pair[2]]
    return kept


def _written(string: bytes | None) -> bytes:
    return b"NIL" if string is None else b'"%s"' % string


def quoted(octets: bytes) -> bytes:
    """A literal's octets as a quoted string.  Raises Malformed where there is none."""
    if re.search(rb"[\r\n\0]", octets):
        raise Malformed
    return b'"%s"' % re.sub(rb'(["\\])', rb"\\\1", octets)


def _unquoted(text: bytes) -> bytes:
    return re.sub(rb"\\(.)", rb"\1", text)


@dataclass(frozen=True, slots=True)
class Continuation:
    """The backend's `+`: it will take what comes next for data."""

    line: bytes


@dataclass(frozen=True, slots=True)
class TaggedResponse:
    """The backend's tagged reply: the end of a command."""

    status: bytes
    line: bytes

    @property
    def rejects(self) -> bool:
        """NO, and a login cannot hope for another answer later."""
        # The tag holds no blank.
        return self.status == b"NO" and not LATER.match(self.line, self.line.index(b" ") + 3)


TAGLESS: Final = TaggedResponse(b"BAD", b"")
"""The backend has said BAD without a tag, and the client has heard it (RFC 9051 7.1.3).  Either the backend could not
read the command, or it is about something else and the tagged reply will follow."""


def is_bye(line: bytes) -> bool:
    return line[:5].upper() == b"* BYE"


def verdict_of(tag: bytes, text: bytes) -> TaggedResponse:
    match = VERDICT.match(text, len(tag) + 1)
    if match is None:
        raise broken(text)
    return TaggedResponse(match[1].upper(), text)


def has_password(login: bytes) -> bool:
    """Whether there is anything behind tag, LOGIN and user in the lines of this command, its literals left out."""
    try:
        return len(outside_quotes(login).split()) > len((b"tag", b"LOGIN", b"user"))
    except Malformed:
        return False


def first_string(arguments: bytes) -> bytes:
    """The first of a command's arguments, without quotes; nothing for a literal, whose octets come later."""
    found = _FIRST.match(arguments)
    return b"" if found is None else found[2] if found[1] is None else _unquoted(found[1])


def names_by_literal(command: Command) -> bool:
    """Whether the first literal of this command is the user name of a login."""
    return command.verb == b"LOGIN" and (command.arguments or b"").lstrip(b" ").startswith(b"{")


def is_ok(verdict: bytes) -> bool:
    match = VERDICT.match(verdict)
    return match is not None and match[1].upper() == b"OK"
