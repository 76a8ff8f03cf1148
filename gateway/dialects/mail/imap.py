"""IMAP (RFC 3501, RFC 9051), inspected from the greeting to the login, and spliced from there.

A literal is never on its way to the backend before the backend has asked for it: one that rejects a
command early would take the literal's octets for commands, and obey them with our address's rights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from itertools import count
from typing import Any, Final

from ...protocol.filters import Counted
from ...protocol.vocabulary import (
    Await,
    Close,
    Expired,
    Line,
    Longer,
    Lost,
    Note,
    Pass,
    Patience,
    Peek,
    Proven,
    Request,
    Script,
    Secured,
    Send,
    Side,
    StartTLS,
    Stopped,
    Take,
    TLSFailed,
    TooLong,
    Trouble,
    Unavailable,
    Unclean,
    Violation,
)
from .. import access, sasl
from ..base import (
    LITERAL_OCTETS,
    REPLY_LINE,
    REPLY_LINES,
    REPLY_OCTETS,
    SASL_LINE,
    TOO_MANY_FAILURES,
    BackendTLS,
    Dialect,
    Identity,
    Logins,
    Policy,
    Question,
    Terms,
    converse,
)
from ..probing import Attempt, Probing
from ..reach import Hearing, Refusal, first_line, reached, refused, ungreeted, untrusted

CLIENT: Final = Side.CLIENT
BACKEND: Final = Side.BACKEND
BOTH: Final = (BACKEND, CLIENT)

COMMAND_LINE: Final = 8192
"""RFC 7162 4."""
UNTAGGED: Final = 3
"""Lines in a row without a tag, or with nothing else, before we hang up: whoever sends them speaks another protocol."""

TAG: Final = 1000
"""Octets of a tag; RFC 9051 has no limit, and no client needs more than a few."""
UNPAID: Final = 16
"""Commands with an untagged BAD for an answer that we remember, because a tagged reply may follow.  When there are
more, we ask the backend something and forget them."""

_TAG: Final = rb"[!#$&',-\[\]-z|}~]{1,%d}" % TAG
"""RFC 9051 9: ASTRING-CHARs without `+`."""
_COMMAND: Final = re.compile(rb"(%s)(?: (.*))?\Z" % _TAG, re.DOTALL)
_BEGUN: Final = re.compile(rb"(%s) " % _TAG)
_VERB: Final = re.compile(rb"([A-Za-z][A-Za-z0-9.-]*)(?: (.*)|\t[ \t]*)?\Z", re.DOTALL)
LONGER: Final = Longer(re.compile(rb"%s (?:ID|AUTHENTICATE) " % _TAG, re.IGNORECASE), 65536)
"""RFC 2971 3.3 allows an ID of 31.8 kB, and twice that if each octet is quoted.  RFC 4954 4 names 12288 octets for an
initial response.  A session holds no more for such a line than for a response (SASL_LINE) or for literals."""
_LITERAL: Final = re.compile(rb"\{([0-9]+)(\+?)\}\Z")
_BRACE: Final = re.compile(rb'(?:\A|[ \t()"~])\{')
"""An opening brace where a word begins."""
_GREETING: Final = re.compile(rb"\* (OK|BYE|PREAUTH)(?: |\Z)", re.IGNORECASE)
_STATUS: Final = re.compile(rb"(?:\*|[^ *+]+) (?:OK|NO|BAD|BYE|PREAUTH)(?: |\Z)", re.IGNORECASE)
_LIST: Final = re.compile(rb"\A(\* CAPABILITY)([ \t].*)?\Z", re.IGNORECASE | re.DOTALL)
_CODE: Final = re.compile(rb"(\[CAPABILITY)([ \t][^\]]*)?(?=\]|\Z)", re.IGNORECASE)
_VERDICT: Final = re.compile(rb"(OK|NO|BAD|BYE)(?: |\Z)", re.IGNORECASE)
"""BYE has no tag (RFC 9051 7.1.5), but servers exist that give it one."""
_UNTAGGED_BAD: Final = re.compile(rb"\* BAD(?: |\Z)", re.IGNORECASE)
_LATER: Final = re.compile(rb" *\[(?:UNAVAILABLE|INUSE|LIMIT)[\] ]", re.IGNORECASE)
"""Behind NO: whatever the password, it would have been refused (RFC 5530 3)."""
_STRING: Final = rb'"((?:[^"\\\r\n\0]|\\["\\])*)"'
_PAIR: Final = re.compile(rb" *%s +(?:%s|NIL)(?= |\Z) *" % (_STRING, _STRING), re.IGNORECASE)

MUST_STARTTLS: Final = b"NO [PRIVACYREQUIRED] Must issue a STARTTLS command first"
LOST: Final = b"Connection to mail server lost"
UNAVAILABLE: Final = b"Service temporarily unavailable"
LAST_WORDS: Final = {
    "client-line-too-long": b"* BYE Command too long\r\n",
    "http-on-mail-port": b"* BYE Invalid protocol\r\n",
    "too-many-bad-commands": b"* BYE Too many invalid commands\r\n",
    "too-many-failed-logins": b"* BYE Too many failed logins\r\n",
    "tls-on-plaintext-port": b"",
}


# --- capabilities: pure functions ------------------------------------------------------------------


class Stage(Enum):
    """How far a session is when the backend lists its capabilities."""

    CLOSED = "before TLS, and no login in the clear"
    OPEN = "before TLS, and a login in the clear is allowed"
    SECURE = "inside TLS, before the login"
    AUTHENTICATED = "the login's success"


def capabilities(line: bytes) -> list[bytes]:
    """The tokens of all capability lists in a backend's line, in upper case."""
    return [token for groups in _lists(line).findall(line) for token in groups[1].upper().split()]


def edit_capabilities(tokens: list[bytes], stage: Stage) -> list[bytes]:
    """What the client is to see of a list (RFC 9051 6.1.1, 6.2.1; sasl.py for the mechanisms)."""
    mechanisms = {token.upper().removeprefix(b"AUTH=") for token in tokens if _offers_login(token)}
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
        tokens = (match[2] or b"").split()
        told = edit_capabilities(tokens, stage)
        return match[0] if told == tokens else b" ".join([match[1], *told])

    return _lists(line).sub(edited, line)


def _lists(line: bytes) -> re.Pattern[bytes]:
    """How capability lists look in this line (RFC 9051 7.1, 7.2.2)."""
    return _CODE if _STATUS.match(line) else _LIST


def _offers_login(token: bytes) -> bool:
    return token.upper().startswith(b"AUTH=")


# --- commands: values and pure functions -----------------------------------------------------------


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
    if b"{" not in line:
        return None
    literal = _announced(line)
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


def _announced(line: bytes) -> Literal | None:
    match = _LITERAL.search(line)
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


# --- the dialogue ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Continuation:
    """The backend's `+`: it will take what comes next for data."""

    line: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """The backend's tagged reply: the end of a command."""

    status: bytes
    line: bytes

    @property
    def rejects(self) -> bool:
        """NO, and a login cannot hope for another answer later."""
        # The tag holds no blank.
        return self.status == b"NO" and not _LATER.match(self.line, self.line.index(b" ") + 3)


TAGLESS: Final = Verdict(b"BAD", b"")
"""The backend has said BAD without a tag, and the client has heard it (RFC 9051 7.1.3).  Either the backend could not
read the command, or it is about something else and the tagged reply will follow."""


@dataclass(frozen=True, slots=True)
class Login:
    """What a command that has got nothing but an untagged BAD was about."""

    mechanism: bytes
    """Empty if it was no login."""
    given: bool
    """The backend has all that the login takes."""


class IMAP:
    """One session's state; what is not in an attribute here is the generator's own place."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.secured: Secured | None = None
        self._reached = False  # the backend has greeted
        self._tag = b""  # of the command that the backend owes a reply to
        self._begun = False  # ... and has begun to answer
        self._wire = b""  # the tag of the command that is under way, ours or the client's
        self._given = False  # the backend has all that the login under way takes
        self._mechanism = b""  # ... and by which mechanism
        self._unpaid: dict[bytes, Login] = {}  # by tag: commands that got an untagged BAD, and may still get a reply
        self._may_ask = False  # the backend may still ask for more of one of them
        self._ahead: Line | Unclean | TooLong | None = None  # the client's next line, heard already
        self._midway = False  # words of ours would land inside a line or a literal of the backend's
        self._bye = False  # the backend said its goodbye itself
        self._bad = 0
        self._logins = Logins(terms.failed_logins)
        self._untagged = 0
        self._lines = self._octets = 0  # of the reply that is coming

    @property
    def _stage(self) -> Stage:
        if self.secured is not None:
            return Stage.SECURE
        return Stage.OPEN if self.terms.policy is Policy.OPTIONAL else Stage.CLOSED

    # --- greeting and farewell ---------------------------------------------------------------

    def open(self) -> Script:
        if self.terms.lazy and not self.terms.implicit:
            yield Send(CLIENT, b"* OK [CAPABILITY %s] %s ready\r\n" % (self._own_list(), self.terms.hostname))
            return
        greeting = yield from self._dial()
        yield from self._pass_on(greeting)
        if self._bye:
            yield Note("backend-refused", (("text", greeting),))
            yield Close("backend-refused")

    def _dial(self) -> Hearing[bytes]:
        """Connect and hear the greeting: OK, or BYE.  Raises Unavailable for anything else."""
        greeting = yield from reached(self.terms, self.secured, self._hear_greeting)
        self._reached = True
        return greeting

    def _hear_greeting(self) -> Hearing[bytes]:
        """The greeting, behind TLS and ID where they are agreed on."""
        greeting = yield from first_line()
        match = _GREETING.match(greeting)
        if match is None:
            raise ungreeted(greeting)
        if match[1].upper() == b"PREAUTH":
            # It trusts our address: every client would be logged in.
            raise Unavailable("backend-preauth", "the backend logs in whoever comes from the gateway")
        if match[1].upper() == b"BYE":
            return greeting
        if self.terms.backend_tls is BackendTLS.STARTTLS:
            greeting = yield from self._secure_backend(greeting)
        if self.terms.identity is Identity.ID:
            yield from self._tell_client(greeting)
        return greeting

    def _secure_backend(self, greeting: bytes) -> Hearing[bytes]:
        """STARTTLS (RFC 9051 6.2.1); what was said before it is asked again."""
        known = capabilities(greeting)
        if known and b"STARTTLS" not in known:
            untrusted("the backend does not offer STARTTLS")
        verdict, _ = yield from self._ask_ourselves(b"sgw1", b"STARTTLS")
        if not _is_ok(verdict):
            untrusted(f"the backend refuses STARTTLS: {verdict[:80]!r}")
        yield StartTLS(BACKEND)
        if not known:
            return greeting
        verdict, lines = yield from self._ask_ourselves(b"sgw2", b"CAPABILITY")
        told = b" ".join(token for line in lines if _LIST.match(line) for token in line.split()[2:])
        if not _is_ok(verdict) or not told:
            raise _broken(verdict)
        return _CODE.sub(lambda code: code[1] + b" " + told, greeting)

    def _tell_client(self, greeting: bytes) -> Script:
        """ID, as Dovecot takes it from those whom it trusts, and only as the first of a connection."""
        known = capabilities(greeting)
        if not known:
            _, lines = yield from self._ask_ourselves(b"sgw3", b"CAPABILITY")
            known = [token for line in lines for token in capabilities(line)]
        if b"ID" not in known:
            refused("the backend does not offer ID")
        verdict, lines = yield from self._ask_ourselves(b"sgw4", b"ID (%s)" % self._origin_fields())
        if not _is_ok(verdict):
            if bye := next(filter(_is_bye, lines), None):
                raise Refusal(bye)
            if verdict[:2].upper() == b"NO" and _LATER.match(verdict, 2):
                raise Refusal(b"* BYE" + verdict[2:])
            refused(f"the backend answers ID: {verdict[:80]!r}")

    def _origin_fields(self) -> bytes:
        origin = self.terms.origin
        assert origin is not None, "reached() lets nobody else pass"
        told = {
            "x-originating-ip": origin.source[0],
            "x-originating-port": origin.source[1],
            "x-connected-ip": origin.destination[0],
            "x-connected-port": origin.destination[1],
            "x-session-id": self.terms.session,
            "x-proxy-ttl": 4,
        }
        if self.secured is not None:
            told["x-client-transport"] = "TLS"
        return " ".join(f'"{name}" "{value}"' for name, value in told.items()).encode("ascii")

    def _ask_ourselves(self, tag: bytes, command: bytes) -> Hearing[tuple[bytes, list[bytes]]]:
        """A command of ours: the verdict behind its tag, and the untagged lines before it, which are
        nobody's but ours.  Raises Refusal."""
        yield Send(BACKEND, tag + b" " + command + b"\r\n")
        untagged: list[bytes] = []
        octets = 0
        while len(untagged) < REPLY_LINES and octets <= REPLY_OCTETS:
            try:
                heard = yield Await((BACKEND,), Patience.REPLY, REPLY_LINE)
            except Lost as lost:
                if lost.side is BACKEND and untagged and _is_bye(untagged[-1]):
                    raise Refusal(untagged[-1]) from None
                raise
            text = heard.text if isinstance(heard, Line) else b""
            octets += len(text)
            if text.startswith(tag + b" "):
                return text[len(tag) + 1 :], untagged
            if not text.startswith(b"* "):
                raise _broken(text)
            if _UNTAGGED_BAD.match(text):
                return text[2:], untagged
            untagged.append(text)
        raise _broken(b"a reply without end")

    def _reach(self) -> Script:
        """Dial, if that was put off; the greeting is not the client's, it has had ours."""
        if not self._reached:
            greeting = yield from self._dial()
            if _is_bye(greeting):
                yield Note("backend-refused", (("text", greeting),))
                yield Send(CLIENT, b"%s\r\n%s NO%s\r\n" % (greeting, self._tag, greeting[5:]))
                yield Close("backend-refused")

    def _own_list(self) -> bytes:
        return b" ".join(edit_capabilities([b"IMAP4rev1"], self._stage))

    def goodbye(self, trouble: Trouble) -> bytes:
        if self._midway or self._bye:
            return b""
        match trouble:
            case Lost(side=Side.BACKEND) if self._begun:
                return b""
            case Lost(side=Side.BACKEND) | Expired(side=Side.BACKEND):
                return self._sorry(LOST)
            case Unavailable(key="refused"):
                return busy(self.terms.hostname)
            case Unavailable() | Violation(side=Side.BACKEND) | TLSFailed(side=Side.BACKEND):
                return self._sorry(UNAVAILABLE)
            case Expired():
                return b"* BYE Autologout; idle for too long\r\n"
            case Stopped():
                return b"* BYE Server shutting down\r\n"
            case Violation():
                return LAST_WORDS.get(trouble.key, b"* BYE Invalid command\r\n")
        return b""

    def _sorry(self, text: bytes) -> bytes:
        tagged = b"%s NO [UNAVAILABLE] %s\r\n" % (self._tag, text) if self._tag else b""
        return tagged + b"* BYE [UNAVAILABLE] %s\r\n" % text

    def farewell(self) -> bytes:
        return b"sgw9 LOGOUT\r\n" if self._reached and not self._tag and not self._midway else b""

    # --- commands ----------------------------------------------------------------------------

    def talk(self) -> Script:
        while True:
            heard, self._ahead = self._ahead, None
            if heard is None:
                heard = yield from self._next()
            match heard:
                case Line(side=Side.BACKEND, text=text):
                    if (yield from self._unasked(text)):
                        return
                case Line(text=text):
                    if (yield from self._command(text)):
                        return
                case TooLong():
                    yield from self._too_long(heard)
                case _:
                    yield from self._refuse_stranger(b"*", b"Invalid characters")

    def _next(self) -> Generator[Request, Any, Line | Unclean | TooLong]:
        """The client's next command, or what the backend says without being asked."""
        return (yield from self._hear(BOTH, Patience.COMMAND, COMMAND_LINE, LONGER))

    def _unasked(self, text: bytes) -> Generator[Request, Any, bool]:
        """A line of the backend's while no command is under way.  Returns whether it is a login's success."""
        if text.partition(b" ")[0] in self._unpaid:
            return (yield from self._late(text))
        yield from self._relay(text)
        return False

    def _late(self, text: bytes) -> Generator[Request, Any, bool]:
        """The tagged reply to a command that was answered without its tag.  Returns whether it is a login's success."""
        tag = text.partition(b" ")[0]
        login = self._unpaid.pop(tag)
        verdict = _verdict(tag, text)
        if login.mechanism:
            # A success that crosses with a newer command comes too late: the client is no longer where it was.
            _must_be_earned(verdict, login.given and not self._wire)
            return (yield from self._judge(login.mechanism, verdict))
        yield from self._tell(verdict)
        return False

    def _too_long(self, heard: TooLong) -> Script:
        yield Note("client-line-too-long")
        tagged = _BEGUN.match(heard.begin)
        if tagged is None:
            yield from self._refuse_stranger(b"*", b"Command too long", _announced(heard.end))
        else:
            self._untagged = 0
            yield from self._refuse(tagged[1], b"BAD Command too long", _announced(heard.end))

    def _command(self, line: bytes) -> Generator[Request, Any, bool]:
        """One command of the client.  Returns whether it was a login that succeeded."""
        try:
            literal, sound = literal_of(line), True
        except Malformed:
            literal, sound = None, False
        tagged = _COMMAND.match(line)
        if tagged is None:
            yield from self._refuse_stranger(b"*", b"Invalid tag", literal)
            return False
        if tagged[2] is None:
            yield from self._refuse_stranger(tagged[1], b"Missing command")
            return False
        self._untagged = 0
        verb = _VERB.match(tagged[2])
        if verb is None:
            yield from self._refuse(tagged[1], b"BAD Invalid command", literal)
            return False
        if not sound:
            yield from self._refuse(tagged[1], b"BAD Invalid arguments")
            return False
        arguments = verb[2] if (verb[2] or b"").strip(sasl.BLANKS) else None
        command = Command(tagged[1], verb[1].upper(), arguments, line, literal)
        return (yield from COMMANDS.get(command.verb, IMAP._other)(self, command))

    def _capability(self, command: Command) -> Generator[Request, Any, bool]:
        if self.secured is None and command.arguments is not None:
            return (yield from self._refuse(command.tag, b"BAD Invalid arguments", command.literal))
        if self.secured is None and not self._reached:
            return (
                yield from self._answer(
                    b"* CAPABILITY %s\r\n%s OK CAPABILITY completed" % (self._own_list(), command.tag)
                )
            )
        return (yield from self._forward(command))

    def _noop(self, command: Command) -> Generator[Request, Any, bool]:
        if self.secured is None:
            if command.arguments is not None:
                return (yield from self._refuse(command.tag, b"BAD Invalid arguments", command.literal))
            if self.terms.policy is Policy.REQUIRED or not self._reached:
                # No success that counts: it would let a client go on for ever.
                yield Send(CLIENT, command.tag + b" OK NOOP completed\r\n")
                return False
        return (yield from self._forward(command))

    def _logout(self, command: Command) -> Generator[Request, Any, bool]:
        if self.secured is None and command.arguments is not None:
            return (yield from self._refuse(command.tag, b"BAD Invalid arguments", command.literal))
        granted = True
        if self._reached:
            try:
                verdict = yield from self._ask(command)
                yield from self._conclude(command.verb, verdict)
                granted = verdict.status in (b"OK", b"BYE")
            except Lost as lost:
                if lost.side is CLIENT or self._midway:
                    raise
                yield from self._own_goodbye(command.tag)  # nothing else is to come
        else:
            yield from self._own_goodbye(command.tag)
        if granted:
            yield Close("quit")
        return False

    def _own_goodbye(self, tag: bytes) -> Script:
        bye = b"" if self._bye else b"* BYE logging out\r\n"
        yield Send(CLIENT, bye + tag + b" OK LOGOUT completed\r\n")

    def _starttls(self, command: Command) -> Generator[Request, Any, bool]:
        if self.secured is not None:
            return (yield from self._refuse(command.tag, b"BAD TLS is already active", command.literal))
        if command.arguments is not None:
            return (yield from self._refuse(command.tag, b"BAD STARTTLS takes no arguments", command.literal))
        if self._unpaid:
            yield from self._settle(command.tag)  # what was said in the clear is answered in the clear
        self.secured = yield StartTLS(CLIENT, command.tag + b" OK Begin TLS negotiation now\r\n")
        return False

    def _id(self, command: Command) -> Generator[Request, Any, bool]:
        """RFC 2971: ours before TLS (what the backend remembered of it would survive), edited inside."""
        try:
            said = yield from self._collect(command)
            arguments = edit_id(said)
        except Malformed:
            return (yield from self._refuse(command.tag, b"BAD Invalid arguments"))
        if self.secured is None:
            return (yield from self._answer(b"* ID NIL\r\n" + command.tag + b" OK ID completed"))
        line = command.tag + b" ID " + arguments
        *before, line = [line] if len(line) <= COMMAND_LINE else id_lines(command.tag, said)
        return (yield from self._forward(Command(command.tag, b"ID", arguments, line, None, tuple(before))))

    def _login(self, command: Command) -> Generator[Request, Any, bool]:
        if self._stage is Stage.CLOSED:
            return (yield from self._refuse(command.tag, MUST_STARTTLS, command.literal))
        return (yield from self._prove(command, b"LOGIN"))

    def _authenticate(self, command: Command) -> Generator[Request, Any, bool]:
        if self._stage is Stage.CLOSED:
            return (yield from self._refuse(command.tag, MUST_STARTTLS, command.literal))
        arguments = (command.arguments or b"").rstrip(sasl.BLANKS)
        mechanism, _, initial = arguments.partition(b" ")
        if command.literal is not None or not sasl.is_request(arguments):
            return (yield from self._refuse(command.tag, b"BAD Invalid arguments", command.literal))
        if sasl.refused(mechanism):
            return (yield from self._refuse(command.tag, b"NO Unsupported authentication mechanism"))
        return (
            yield from self._prove(command, mechanism.upper(), given=bool(initial) and sasl.proves(mechanism, initial))
        )

    def _prove(self, command: Command, mechanism: bytes, *, given: bool = False) -> Generator[Request, Any, bool]:
        """A login, however long it takes.  Its success is the backend's tagged OK and nothing else; `given` tells
        whether the command alone is all that it takes."""
        if not self.terms.may_log_in():
            yield TOO_MANY_FAILURES
            reply = b"NO [UNAVAILABLE] Temporary authentication failure"
            return (yield from self._refuse(command.tag, reply, command.literal))
        verdict = yield from self._ask(command, mechanism, given=given)
        yield from self._notice(command, verdict)
        return (yield from self._judge(mechanism, verdict))

    def _judge(self, mechanism: bytes, verdict: Verdict) -> Generator[Request, Any, bool]:
        """The end of a login.  Returns whether it succeeded."""
        succeeded = verdict.status == b"OK"
        result = "ok" if succeeded else "failed"
        yield Note("auth", (("result", result), ("mechanism", mechanism.decode("ascii"))))
        if succeeded:
            yield Proven()
            yield Send(CLIENT, edit_line(verdict.line, Stage.AUTHENTICATED) + b"\r\n")
        else:
            answer = self._conclude(b"", verdict)
            yield from self._logins.rejected(answer) if verdict.rejects else answer
        return succeeded

    def _other(self, command: Command) -> Generator[Request, Any, bool]:
        if self.secured is None and self.terms.policy is Policy.REQUIRED:
            return (yield from self._refuse(command.tag, MUST_STARTTLS, command.literal))
        return (yield from self._forward(command))

    # --- commands on their way to the backend ------------------------------------------------

    def _forward(self, command: Command) -> Generator[Request, Any, bool]:
        verdict = yield from self._ask(command)
        yield from self._notice(command, verdict)
        yield from self._conclude(command.verb, verdict)
        return False

    def _notice(self, command: Command, verdict: Verdict) -> Script:
        """A refusal that tells something about the backend's settings."""
        if verdict.status != b"OK" and access.demands_tls(verdict.line, command.line):
            yield access.note(access.NO_LOGIN, DIALECT.name, self.terms, verdict.line)

    def _tell(self, verdict: Verdict) -> Script:
        # An untagged BAD was relayed already.  A reply to an older command with the same tag would be taken for the
        # newer one's.
        if verdict is not TAGLESS and not (self._tag and verdict.line.startswith(self._tag + b" ")):
            yield from self._pass_on(verdict.line)

    def _conclude(self, verb: bytes, verdict: Verdict) -> Script:
        """The backend's verdict for the client."""
        yield from self._tell(verdict)
        match verdict.status:
            case b"BAD":
                self._count()
            case b"BYE":
                self._bye = True
            case b"OK" if verb != b"NOOP":
                self._bad = 0

    def _ask(
        self, command: Command, mechanism: bytes = b"", *, given: bool = False
    ) -> Generator[Request, Any, Verdict]:
        """Send a whole command and relay what the backend says to it, except its verdict.  Afterwards `_given` tells
        whether all was said that a login takes."""
        self._tag = command.tag
        yield from self._reach()
        self._lines = self._octets = 0
        asking = command.literal is not None and self._may_ask
        if asking or command.tag in self._unpaid or len(self._unpaid) == UNPAID:
            yield from self._settle(command.tag)
        self._wire = command.tag
        self._given, self._mechanism = False, mechanism
        verdict = yield from self._dialogue(command, given)
        if mechanism:
            _must_be_earned(verdict, self._given)
        self._tag = self._wire = b""
        self._begun = False
        if verdict is TAGLESS:
            self._unpaid[command.tag] = Login(mechanism, self._given)
            waits = command.literal is not None or bool(command.before)
            self._may_ask = self._may_ask or waits or command.verb == b"AUTHENTICATE"
        else:
            self._may_ask = False  # commands are answered in order
        return verdict

    def _settle(self, tag: bytes) -> Script:
        """Ask a question of our own.  What the backend says before the answer is about older commands; nothing about
        them comes later.  Without that, a late reply or a late `+` could be taken for one to the command with this
        tag."""
        taken = {tag, *self._unpaid}
        self._wire = next(ours for number in count(10) if (ours := b"sgw%d" % number) not in taken)
        yield Send(BACKEND, self._wire + b" NOOP\r\n")
        reply = yield from self._reply()
        if not isinstance(reply, Verdict) or reply is TAGLESS:
            raise _broken(b"no answer to NOOP")
        self._unpaid.clear()
        self._may_ask = False

    def _dialogue(self, command: Command, given: bool) -> Generator[Request, Any, Verdict]:
        """From the command's first line to the verdict."""
        for line in command.before:
            yield Send(BACKEND, line + b"\r\n")
            reply = yield from self._decided((yield from self._reply()))
            if isinstance(reply, Verdict):
                return reply
        line, literal = command.line, command.literal
        spent = 0
        said = b""
        while literal is not None:
            said += line
            after = self._afford(spent, literal)
            yield Send(BACKEND, spelled(line, literal) + b"\r\n")
            reply = yield from self._reply()
            rejected = isinstance(reply, Verdict)
            if rejected:
                # What the client sends without waiting must not be taken for commands.
                yield from self._swallow(literal, spent)
            reply = yield from self._decided(reply)
            if isinstance(reply, Verdict):
                return reply
            if rejected and not literal.waits:
                raise _broken(reply.line)  # what it asks for is gone
            if literal.waits:
                yield Send(CLIENT, reply.line + b"\r\n")
            yield Pass(CLIENT, Counted(literal.octets))
            line, literal = yield from self._rest()
            spent = after + len(line)
        yield Send(BACKEND, line + b"\r\n")
        self._given = given or (command.verb == b"LOGIN" and _has_password(said + line))
        reply = yield from self._decided((yield from self._reply()))
        while isinstance(reply, Continuation):
            if command.verb != b"AUTHENTICATE":
                raise _broken(reply.line)  # nothing else may ask for more
            yield Send(CLIENT, reply.line + b"\r\n")
            reply = yield from self._response()
        return reply

    def _decided(self, reply: Verdict | Continuation) -> Generator[Request, Any, Verdict | Continuation]:
        """The same reply.  Behind an untagged BAD it is the next one, or none if the client goes on before that."""
        while reply is TAGLESS:
            self._tag = b""
            self._begun = False
            self._ahead = self._ahead or (yield from self._next())
            if self._ahead.side is CLIENT:
                break
            heard, self._ahead = self._ahead, None
            assert isinstance(heard, Line)
            reply = (yield from self._heed(heard.text)) or reply
            if reply is not TAGLESS:
                self._tag = self._wire  # a reply is owed again, or here it is
        return reply

    def _response(self) -> Generator[Request, Any, Verdict | Continuation]:
        """One line of the client's as data (RFC 9051 6.2.2), and the reply to it."""
        doubtful = False
        while True:
            heard = yield from self._hear(BOTH, Patience.COMMAND, SASL_LINE)
            match heard:
                case Line(side=Side.BACKEND, text=text):
                    reply = yield from self._heed(text)
                    if reply is None or reply is TAGLESS:
                        doubtful = doubtful or reply is TAGLESS
                        continue
                    return reply
                case Line(text=text) if sasl.RESPONSE.match(text):
                    cancelled = sasl.cancels(text)
                    self._given = not cancelled and (self._given or sasl.proves(self._mechanism, text))
                    yield Send(BACKEND, text + b"\r\n")
                case _:
                    if isinstance(heard, TooLong):
                        yield Note("client-line-too-long")
                    elif doubtful:
                        self._ahead = heard  # for the client the exchange is over, and this is a command
                    self._given = False
                    yield Send(BACKEND, b"*\r\n")  # the exchange is cancelled; the verdict is the backend's
            return (yield from self._decided((yield from self._reply())))

    def _rest(self) -> Generator[Request, Any, tuple[bytes, Literal | None]]:
        """The line that goes on behind a literal.  What cannot be refused any more ends the session."""
        line, literal = yield from self._more()
        if line is None:
            raise Violation(CLIENT, "client-line-too-long")
        return line, literal

    def _more(self) -> Generator[Request, Any, tuple[bytes | None, Literal | None]]:
        """The same of a command that the backend does not wait for the rest of: None for a line that is too long."""
        heard = yield from self._hear((CLIENT,), Patience.DATA, COMMAND_LINE)
        match heard:
            case Line(text=text):
                with suppress(Malformed):
                    return text, literal_of(text)
            case TooLong(end=end):
                return None, _announced(end)
        raise Violation(CLIENT, "client-bad-command")

    def _swallow(self, literal: Literal | None, spent: int = 0) -> Script:
        """Read on to the end of a refused command, as far as the client sends it unasked (RFC 7888 4)."""
        while literal is not None:
            spent = self._afford(spent, literal)
            if literal.waits:
                break
            yield Pass(CLIENT, Counted(literal.octets), forward=False)
            line, literal = yield from self._more()
            spent += COMMAND_LINE if line is None else len(line)

    def _collect(self, command: Command) -> Generator[Request, Any, bytes]:
        """A whole command's arguments, its literals as quoted strings."""
        collected, literal = command.arguments or b"", command.literal
        spent = len(collected)
        sound = True
        while literal is not None:
            spent = self._afford(spent, literal)
            if literal.waits:
                yield Send(CLIENT, b"+ OK\r\n")
            octets = yield Take(CLIENT, literal.octets)
            try:
                written = quoted(octets)
            except Malformed:
                written, sound = b"", False
            collected = collected[: collected.rindex(b"{")] + written
            line, literal = yield from self._more()
            if line is None:
                sound = False
                break
            collected += line
            spent += len(line)
        yield from self._swallow(literal, spent)
        if not sound:
            raise Malformed
        return collected

    def _afford(self, spent: int, literal: Literal) -> int:
        if spent + literal.octets > LITERAL_OCTETS:
            raise Violation(CLIENT, "client-line-too-long", "literals")
        return spent + literal.octets

    # --- the backend -------------------------------------------------------------------------

    def _hear(
        self, sides: tuple[Side, ...], patience: Patience, limit: int, longer: Longer | None = None
    ) -> Generator[Request, Any, Line | Unclean | TooLong]:
        try:
            heard: Line | Unclean | TooLong = yield Await(sides, patience, limit, longer=longer)
        except Lost as lost:
            if lost.side is BACKEND:
                yield Peek(BACKEND)  # lost again, unless a line had begun
                self._midway = True
            raise
        if isinstance(heard, TooLong) and heard.side is BACKEND:
            raise _broken(b"a line without end")
        return heard

    def _reply(self) -> Generator[Request, Any, Verdict | Continuation]:
        """Relay the backend's lines up to one that the client's command waits for."""
        while True:
            heard = yield from self._hear((BACKEND,), Patience.REPLY, REPLY_LINE)
            assert isinstance(heard, Line)
            reply = yield from self._heed(heard.text)
            if reply is not None:
                return reply

    def _heed(self, text: bytes) -> Generator[Request, Any, Verdict | Continuation | None]:
        """One line of the backend's while a command is under way; None if there is nothing to do but to relay it."""
        self._lines += 1
        self._octets += len(text)
        if self._lines > REPLY_LINES or self._octets > REPLY_OCTETS:
            raise _broken(b"a reply without end")
        if text.startswith(b"+"):
            return Continuation(text)
        if text.startswith(self._wire + b" "):
            return _verdict(self._wire, text)
        if text.partition(b" ")[0] in self._unpaid:
            yield from self._late(text)
            return None
        yield from self._relay(text)
        self._begun = True
        return TAGLESS if _UNTAGGED_BAD.match(text) else None

    def _relay(self, text: bytes) -> Script:
        """An untagged response, with the literals in it."""
        if not text.startswith(b"* "):
            raise _broken(text)
        yield from self._pass_on(text)
        if _STATUS.match(text):
            return  # human text, whatever it ends with
        while match := _LITERAL.search(text):
            if len(match[1]) > 9:
                raise _broken(text)
            self._midway = True
            yield Pass(BACKEND, Counted(int(match[1])))
            heard = yield from self._hear((BACKEND,), Patience.DATA, REPLY_LINE)
            assert isinstance(heard, Line)
            text = heard.text
            yield Send(CLIENT, text + b"\r\n")
            self._midway = False

    def _pass_on(self, line: bytes) -> Script:
        """A line of the backend's for the client, edited."""
        offered = capabilities(line)
        if self.secured is not None and b"LOGINDISABLED" in offered:
            yield access.note(access.NO_LOGIN, DIALECT.name, self.terms, line, b"STARTTLS" in offered)
        if any(_offers_login(token) and token.endswith(sasl.PLUS) for token in offered):
            yield Note("backend-channel-binding", (("cure", "disable channel binding on the backend"),), once=True)
        if _is_bye(line):
            self._bye = True
        yield Send(CLIENT, edit_line(line, self._stage) + b"\r\n")

    # --- answers of our own ------------------------------------------------------------------

    def _answer(self, reply: bytes) -> Generator[Request, Any, bool]:
        self._bad = 0
        yield Send(CLIENT, reply + b"\r\n")
        return False

    def _refuse(self, tag: bytes, reply: bytes, literal: Literal | None = None) -> Generator[Request, Any, bool]:
        """Refuse a command.  To a literal that waits, no `+` is said, so that it never comes."""
        yield from self._swallow(literal)
        yield Send(CLIENT, tag + b" " + reply + b"\r\n")
        self._count()
        return False

    def _refuse_stranger(self, tag: bytes, reply: bytes, literal: Literal | None = None) -> Script:
        """Refuse what is no command of this protocol."""
        self._untagged += 1
        yield from self._refuse(tag, b"BAD " + reply, literal)
        if self._untagged >= UNTAGGED:
            raise _too_many()

    def _count(self) -> None:
        self._bad += 1
        if self._bad >= self.terms.bad_commands:
            raise _too_many()


def _is_bye(line: bytes) -> bool:
    return line[:5].upper() == b"* BYE"


def _verdict(tag: bytes, text: bytes) -> Verdict:
    match = _VERDICT.match(text, len(tag) + 1)
    if match is None:
        raise _broken(text)
    return Verdict(match[1].upper(), text)


def _must_be_earned(verdict: Verdict, given: bool) -> None:
    """A login succeeds only behind the client's own credentials.  Before it has given any, it is us whom the backend
    lets in, as with PREAUTH."""
    if verdict.status == b"OK" and not given:
        raise Violation(BACKEND, "backend-protocol-error", f"a success without credentials: {verdict.line[:80]!r}")


def _has_password(login: bytes) -> bool:
    """Whether there is anything behind tag, LOGIN and user in the lines of this command, its literals left out."""
    try:
        return len(outside_quotes(login).split()) > len((b"tag", b"LOGIN", b"user"))
    except Malformed:
        return False


def _is_ok(verdict: bytes) -> bool:
    match = _VERDICT.match(verdict)
    return match is not None and match[1].upper() == b"OK"


def _too_many() -> Violation:
    return Violation(CLIENT, "too-many-bad-commands")


def _broken(text: bytes) -> Violation:
    return Violation(BACKEND, "backend-protocol-error", repr(text[:80]))


def unavailable(hostname: bytes) -> bytes:
    """In place of a greeting (RFC 5530 3)."""
    return b"* BYE [UNAVAILABLE] %s\r\n" % UNAVAILABLE


def busy(hostname: bytes) -> bytes:
    """In place of a greeting (RFC 5530 3)."""
    return b"* BYE [UNAVAILABLE] Too many connections\r\n"


def listed(reply: bytes) -> list[bytes] | None:
    """The tokens in a reply to CAPABILITY (RFC 9051 7.2.2)."""
    lists = [line.split()[2:] for line in reply.splitlines() if _LIST.match(line)]
    return [token for tokens in lists for token in tokens] if lists else None


COMMANDS: Final[Mapping[bytes, Callable[[IMAP, Command], Generator[Request, Any, bool]]]] = {
    b"CAPABILITY": IMAP._capability,
    b"NOOP": IMAP._noop,
    b"LOGOUT": IMAP._logout,
    b"STARTTLS": IMAP._starttls,
    b"ID": IMAP._id,
    b"LOGIN": IMAP._login,
    b"AUTHENTICATE": IMAP._authenticate,
}
"""What is not simply the backend's.  Of a session's own methods it would be a circle for the garbage collector."""

DIALECT = Dialect(
    name="imap",
    script=lambda terms: converse(IMAP(terms)),
    unavailable=unavailable,
    busy=busy,
    patience={
        # RFC 9051 5.4: at least 30 minutes, and a little more, so that the backend's own goodbye wins.
        Patience.COMMAND: 1860.0,
        Patience.REPLY: 330.0,
        Patience.DATA: 300.0,
        Patience.RELAY: 1860.0,
    },
    policies={},
    identities=frozenset({"proxy-v1", "proxy-v2", "id"}),
    alpn=(b"imap",),
    question=Question(lambda hostname: b"sgw7 CAPABILITY", b"sgw8 LOGOUT", listed, access.of_imap),
    probing=Probing(
        port=143,
        implicit=frozenset({993}),
        starttls=b"sgw2 STARTTLS",
        injected=b"sgw3 NOOP",
        complete=lambda command, heard: not command or not heard.split(b"\r\n")[-2].startswith(b"* "),
        agrees=lambda reply: reply.split(b"\r\n")[-2].upper().startswith((b"* OK", b"SGW2 OK")),
        attempts=(Attempt(b"sgw4 AUTHENTICATE PLAIN", lambda reply: reply.startswith((b"+", b"sgw4 OK")), b"*"),),
    ),
)
