"""What ManageSieve (RFC 5804) and ACAP (RFC 2244) have in common: strings, BYE, and the end of a login."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Generator, Mapping
from typing import Any, ClassVar, Final, TypeVar

from ...protocol.framing import Lines
from ...protocol.vocabulary import (
    Await,
    Expired,
    Line,
    Lost,
    Note,
    Patience,
    Request,
    Script,
    Send,
    Side,
    Stopped,
    Take,
    TLSFailed,
    TooLong,
    Trouble,
    Unavailable,
    Violation,
)
from .. import access, sasl
from ..base import Terms
from ..bounds import REPLIES, REPLY_OCTETS
from ..conversation import BACKEND, BOTH, CLIENT, ServerFirst, Stage, broken, login_note
from ..reach import Hearing
from ..users import Claim

LITERALS: Final = 65536
"""Octets of a whole command or response, its literals included, before the login."""
INVALID: Final = b'"Invalid arguments"'
TLS_FIRST: Final = b'NO (ENCRYPT-NEEDED) "Must issue a STARTTLS command first"'
LAST_WORDS: Final = {
    "client-line-too-long": b'BYE "Command too long"\r\n',
    "http-client": b'BYE "Invalid protocol"\r\n',
    "too-many-bad-commands": b'BYE "Too many invalid commands"\r\n',
    "too-many-failed-logins": b'BYE "Too many failed logins"\r\n',
}
UNAVAILABLE: Final = b'BYE (TRYLATER) "Service temporarily unavailable"\r\n'
BUSY: Final = b'BYE (TRYLATER) "Too many connections"\r\n'

QUOTABLE: Final = 1024
"""Octets of the longest quoted string (RFC 5804 4)."""

_ANNOUNCED: Final = re.compile(rb"\{([0-9]+)\+?\}\Z")
_QUOTED: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_LITERAL: Final = re.compile(rb"\{([0-9]+)\+?\}\r\n")

T = TypeVar("T")
Handled = Generator[Request, Any, bool]
"""One command; returns whether it was a login that succeeded."""
Listen = Callable[[Patience], Hearing[Any]]
"""How to hear the backend's next line."""


class Malformed(Exception):
    """Something that is no list of strings."""


# --- strings -----------------------------------------------------------------------------------------


def announced(line: bytes) -> int | None:
    """Octets of the literal that follows this line; None if none does.

    Clients need not wait before they send one (RFC 5804 4), with or without the plus.
    """
    match = _ANNOUNCED.search(line)
    return None if match is None else _number(match[1])


def _number(digits: bytes) -> int:
    """So many digits that the number need not be known: int() has a limit of its own."""
    return int((digits.lstrip(b"0") or b"0")[:12])


def strings(text: bytes) -> list[bytes]:
    """The values of strings, divided by blanks: quoted, or literals with their octets.  Raises Malformed."""
    found: list[bytes] = []
    at = 0
    while True:
        if match := _QUOTED.match(text, at):
            found.append(re.sub(rb"\\(.)", rb"\1", match[1], flags=re.DOTALL))
            at = match.end()
        elif match := _LITERAL.match(text, at):
            at = match.end() + _number(match[1])
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


# --- a session ---------------------------------------------------------------------------------------


class Strings(ServerFirst):
    """A session in which a command is made of strings."""

    protocol: ClassVar[str]
    lines: ClassVar[Lines]
    """The client's commands."""
    command: ClassVar[re.Pattern[bytes]]
    """A whole one: `tag`, with the blank behind it, where there are tags; `verb`; `told`, its arguments."""
    commands: ClassVar[Mapping[bytes, Callable[[Any, list[bytes]], Handled]]]
    """All that there is before a login.  Plain functions: bound methods would create a reference cycle."""
    wrong: ClassVar[bytes]
    """What a refusal of no command begins with."""
    unsupported: ClassVar[bytes]
    """The refusal of a mechanism."""
    later: ClassVar[re.Pattern[bytes]]
    """A refusal that says nothing of the password."""
    untagged: ClassVar[bytes]
    """What stands before BYE."""
    logout: ClassVar[bytes]

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._owed = False  # the backend owes a reply, or waits for a line of a dialogue
        self._bye = False  # it said its goodbye itself
        self._tag = self.untagged  # of the command that is answered

    # --- the client ---

    def talk(self) -> Script:
        while True:
            heard = yield from self.hear(BOTH, Patience.COMMAND, self.lines)
            self._tag = self.untagged
            match heard:
                case Line(side=Side.BACKEND, text=text):
                    yield from self._unasked(text)
                case Line(text=text):
                    if (yield from self._command(text)):
                        return
                case TooLong(end=end):
                    yield Note("client-line-too-long")
                    yield from self._collect(b"", end)
                    yield from self._refuse(self.wrong + b'"Command too long"')
                case _:
                    yield from self._collect(b"", heard.end)
                    yield from self._refuse(self.wrong + b'"Invalid characters"')

    def _command(self, line: bytes) -> Handled:
        match = self.command.match((yield from self._collect(line, line)))
        handler = None
        if match is not None:
            self._tag = match["tag"]
            handler = self.commands.get(match["verb"].upper())
        if match is None or handler is None:
            return (yield from self._refuse(self.wrong + b'"Unknown command"'))
        try:
            told = arguments(match["told"])
        except Malformed:
            return (yield from self._refuse(self.wrong + INVALID))
        return (yield from handler(self, told))

    def _authenticate(self, told: list[bytes]) -> Handled:
        if self.stage is Stage.CLOSED:
            return (yield from self._refuse((yield from self.first(TLS_FIRST))))
        mechanism, *initial = told or [b""]
        if len(initial) > 1 or not all(map(self._begins, initial)):
            return (yield from self._refuse(self.wrong + INVALID))
        claim = Claim.named(mechanism, self.wrong + INVALID, self.unsupported)
        if isinstance(claim, bytes):
            return (yield from self._refuse(claim))
        if not (yield from self.may_log_in()):
            return (yield from self._refuse(b'NO (TRYLATER) "Temporary authentication failure"'))
        return (yield from self._dialogue(claim, told))

    @abstractmethod
    def _begins(self, initial: bytes) -> bool:
        """Whether a login may begin with this response."""

    @abstractmethod
    def _dialogue(self, claim: Claim, told: list[bytes]) -> Handled:
        """`told`: the mechanism as the client writes it, and an initial response at most."""

    def _refuse(self, words: bytes) -> Handled:
        yield from self._answer(self._tag + words, counts=True)
        return False

    def _collect(self, text: bytes, end: bytes, framing: Lines | None = None) -> Generator[Request, Any, bytes]:
        """The whole command or response that begins so, with its literals, if the line's `end` announces any."""
        while (octets := announced(end)) is not None:
            if len(text) + octets > LITERALS:
                raise Violation(CLIENT, "client-line-too-long", "literals")
            yield from self._invite(end)
            text += b"\r\n" + (yield Take(CLIENT, octets))
            heard = yield from self.hear((CLIENT,), Patience.DATA, framing or self.lines)
            if not isinstance(heard, Line):
                raise Violation(CLIENT, "client-line-too-long" if isinstance(heard, TooLong) else "client-bad-command")
            end = heard.text
            text += end
        return text

    @abstractmethod
    def _invite(self, end: bytes) -> Script:
        """Ask for the literal that this line's end announces, where a client waits for that."""

    # --- the backend ---

    @abstractmethod
    def _is_bye(self, text: bytes) -> bool: ...

    def _unasked(self, text: bytes) -> Script:
        """The backend speaks, and nobody asked: it may say goodbye (RFC 5804 1.2), and nothing else."""
        if not self._is_bye(text):
            raise broken(text)
        text = yield from whole_line(self._listen, text)
        self._bye = True
        yield Send(CLIENT, text + b"\r\n")

    def _listen(self, patience: Patience) -> Hearing[Any]:
        return (yield from self.hear((BACKEND,), patience, REPLIES))

    def _verdict(self, status: bytes, text: bytes, claim: Claim) -> Handled:
        """The end of a login, which succeeds with OK and nothing else."""
        self._owed = False
        if status == b"OK":
            claim.earned(text)
            yield from self.accepted(claim.mechanism, claim.user, text + b"\r\n")
            return True
        yield login_note(claim.mechanism, "failed", claim.user)
        if access.demands_tls(text):
            yield access.note(access.NO_LOGIN, self.protocol, self.terms, text)
        later = self.later.match(text) is not None
        answer = self._answer(text, counts=status == b"BAD" or (status == b"NO" and not (claim.tried or later)))
        yield from self.rejected(answer) if claim.tried and not later and status == b"NO" else answer
        return False

    def _answer(self, text: bytes, *, counts: bool) -> Script:
        """A reply for the client; whether it is to a bad command."""
        yield Send(CLIENT, text + b"\r\n")
        if counts:
            self.count()

    # --- the end ---

    def goodbye(self, trouble: Trouble) -> bytes:
        """BYE may come at any time (RFC 5804 1.2, RFC 2244 6.2.8)."""
        return b"" if self._bye else self.untagged + self._last_words(trouble)

    def _last_words(self, trouble: Trouble) -> bytes:
        match trouble:
            case Lost(side=Side.BACKEND) | Expired(side=Side.BACKEND) if self.welcomed:
                return b'BYE (TRYLATER) "Connection to server lost"\r\n'
            case Lost() | Unavailable() | TLSFailed() | Violation(side=Side.BACKEND) | Expired(side=Side.BACKEND):
                return UNAVAILABLE
            case Expired():
                return b'BYE "Disconnected for inactivity"\r\n'
            case Stopped():
                return b'BYE (TRYLATER) "Server shutting down"\r\n'
        return LAST_WORDS.get(trouble.key, b'BYE "Invalid command"\r\n')

    def farewell(self) -> bytes:
        return self.logout if self.reached and not (self._owed or self._bye or self.midway) else b""

    @classmethod
    def unavailable(cls, hostname: bytes) -> bytes:
        """RFC 5804 1.3, RFC 2244 6.2.8."""
        return cls.untagged + UNAVAILABLE

    @classmethod
    def busy(cls, hostname: bytes) -> bytes:
        """RFC 5804 1.3, RFC 2244 6.2.8."""
        return cls.untagged + BUSY


def next_line(patience: Patience) -> Hearing[Any]:
    """The backend's next line before the client is served."""
    return (yield Await((BACKEND,), patience, REPLIES))


def greeted(whole: Hearing[T]) -> Hearing[T]:
    """The backend's first words."""
    try:
        return (yield from whole)
    except Violation as violation:
        if violation.side is BACKEND:
            raise Unavailable("backend-bad-greeting", violation.detail) from None
        raise


def whole_line(listen: Listen, text: bytes = b"") -> Hearing[bytes]:
    """The backend's next line, or the rest of the one that begins so, with its literals (RFC 5804 4)."""
    line = text or (yield from _text(listen))
    text = line
    while (octets := announced(line)) is not None:
        if len(text) + octets > REPLY_OCTETS:
            raise broken("a literal without end")
        text += b"\r\n" + (yield Take(BACKEND, octets))
        line = yield from _text(listen)
        text += line
    return text


def _text(listen: Listen) -> Hearing[bytes]:
    heard = yield from listen(Patience.REPLY)
    if not isinstance(heard, Line):
        raise broken("a line without end")
    return heard.text
