"""POP3 (RFC 1939, RFC 2449, RFC 5034), inspected from the greeting to the login, and spliced from there.

Nothing here ever says QUIT for a client that has logged in: it would commit deletions that the client
did not (RFC 1939 6).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping
from enum import Enum
from typing import Any, Final

from ...protocol.vocabulary import (
    Await,
    Close,
    Expired,
    Line,
    Lost,
    Note,
    Patience,
    Peek,
    Proven,
    Request,
    Script,
    Secured,
    Send,
    Side,
    StartTLS,
    TLSFailed,
    TooLong,
    Trouble,
    Unavailable,
    Unclean,
    Violation,
)
from .. import access, sasl
from ..base import (
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
from ..reach import Hearing, first_line, reached, refused, ungreeted, untrusted
from . import xclient

CLIENT: Final = Side.CLIENT
BACKEND: Final = Side.BACKEND
BOTH: Final = (BACKEND, CLIENT)

COMMAND_LINE: Final = 512
"""RFC 2449 4 says 255 octets; a backend that splits longer lines would take the tail for a command."""

_COMMAND: Final = re.compile(rb"([A-Za-z][A-Za-z0-9_.-]*)(?: (.*)|\t[ \t]*)?\Z", re.DOTALL)
"""A blank divides verb and arguments; a tab is no more than a blank behind a bare verb."""
_XCLIENT: Final = re.compile(rb" +\[XCLIENT\](?= |\Z)", re.IGNORECASE)

LOGIN: Final = frozenset({b"USER", b"PASS", b"APOP", b"AUTH"})
_LATER: Final = re.compile(rb"\S* *\[(?:SYS/|IN-USE\]|LOGIN-DELAY\])", re.IGNORECASE)
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
BARE: Final = frozenset({
    b"APOP", b"AUTH", b"CAPA", b"DELE", b"HELP", b"LANG", b"LAST", b"LIST", b"NOOP", b"PASS", b"QUIT", b"RETR", b"RSET",
    b"STAT", b"STLS", b"TOP", b"UIDL", b"USER", b"UTF8", b"XTND",
})  # fmt: skip
"""Commands, which look like base64 where they have no arguments."""
AUTHORITY: Final = frozenset({b"XCLIENT", b"XOIP"})
"""Commands by which a trusted address speaks for others, as Dovecot and Zimbra know them."""

MUST_STLS: Final = b"-ERR [SYS/PERM] Must issue a STLS command first"
UNKNOWN: Final = b"-ERR Unknown command"
INVALID: Final = b"-ERR Invalid arguments"
LOST: Final = b"-ERR [SYS/TEMP] Connection to mail server lost\r\n"
UNAVAILABLE: Final = b"-ERR [SYS/TEMP] Service temporarily unavailable\r\n"


# --- capabilities: pure functions ------------------------------------------------------------------


class Stage(Enum):
    """How far a session is when the backend lists its capabilities."""

    CLOSED = "before TLS, and no login in the clear"
    OPEN = "before TLS, and a login in the clear is allowed"
    SECURE = "inside TLS, before the login"


HIDDEN: Final = {
    Stage.CLOSED: frozenset({b"STLS", b"XCLIENT", b"USER", b"SASL"}),
    Stage.OPEN: frozenset({b"STLS", b"XCLIENT"}),
    Stage.SECURE: frozenset({b"STLS", b"XCLIENT"}),
}
ADDED: Final = {Stage.CLOSED: (b"STLS",), Stage.OPEN: (b"STLS",), Stage.SECURE: ()}
"""RFC 2595 4."""


def edit_greeting(line: bytes) -> bytes:
    """Without Dovecot's offer of XCLIENT; an APOP timestamp stays as it is."""
    return _XCLIENT.sub(b"", line)


def edit_capabilities(lines: Iterable[bytes], stage: Stage) -> list[bytes]:
    """What the client is to see of a CAPA list's lines (RFC 2449 6); ADDED comes behind them."""
    return [line for line in (_edit_capability(line, stage) for line in lines) if line is not None]


def _edit_capability(line: bytes, stage: Stage) -> bytes | None:
    words = line.split()
    key = words[0].upper() if words else b""
    if key in HIDDEN[stage]:
        return None
    if key == b"SASL":
        kept = edit_mechanisms(words[1:])
        if not kept:
            return None
        if kept != words[1:]:
            return b" ".join([words[0], *kept])
    return line


def edit_mechanisms(names: Iterable[bytes]) -> list[bytes]:
    """Without those that cannot work through a gateway, or authenticate it instead of the client."""
    names = list(names)
    hidden = sasl.unusable(name.strip() for name in names)
    return [name for name in names if name.strip().upper() not in hidden]


def bindings(lines: Iterable[bytes]) -> set[bytes]:
    """What looks like a mechanism with channel binding in a list."""
    return {word for line in lines for word in line.upper().split() if word.endswith(sasl.PLUS)}


def blames_command(reply: bytes) -> bool:
    """Whether a refusal is one of the command or the mechanism, which would be the same for anybody."""
    return _UNKNOWN.match(_CODE.sub(b"", reply)) is not None


def blames_name(reply: bytes, name: bytes) -> bool:
    """Whether a refusal of USER says something of the name: that nobody is called so, or may not log in."""
    if _LATER.match(reply) or blames_command(reply):
        return False
    # A name may hold such words, and servers repeat names.
    return not _OTHERWISE.search(_CODE.sub(b"", reply)) or _OTHERWISE.search(name) is not None


def _is_ok(reply: bytes) -> bool:
    """Strictly: this decides about TLS and trust."""
    return reply == b"+OK" or reply.startswith(b"+OK ")


# --- the dialogue ----------------------------------------------------------------------------------


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


class POP3:
    """One session's state; what is not in an attribute here is the generator's own place."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.secured: Secured | None = None
        self._welcomed = False  # the client has its greeting
        self._reached = False  # the backend has greeted
        self._asked = False  # ... and has had a command of the client's
        self._outstanding = False  # the backend owes a reply
        self._midway = False  # words of ours would land inside a line or a list of the backend's
        self._greeting = b""  # what the backend has greeted with
        self._user = False  # the backend remembers a user name
        self._unnamed = False  # ... or has refused one, which was counted
        self._dirty = False  # ... or something else that the client said
        self._bad = 0
        self._logins = Logins(terms.failed_logins)

    @property
    def _stage(self) -> Stage:
        if self.secured is not None:
            return Stage.SECURE
        return Stage.OPEN if self.terms.policy is Policy.OPTIONAL else Stage.CLOSED

    # --- greeting and farewell ---------------------------------------------------------------

    def open(self) -> Script:
        if self.terms.lazy and not self.terms.implicit:
            self._welcomed = True
            yield Send(CLIENT, b"+OK %s ready\r\n" % self.terms.hostname)
            return
        greeting = yield from self._dial()
        self._welcomed = True
        yield Send(CLIENT, edit_greeting(greeting) + b"\r\n")
        if Status.of(greeting) is Status.ERR:
            yield Note("backend-refused", (("text", greeting),))
            yield Close("backend-refused")

    def _dial(self) -> Hearing[bytes]:
        """Connect and hear the greeting: +OK or -ERR.  Raises Unavailable for anything else."""
        greeting = yield from reached(self.terms, self.secured, self._hear_greeting)
        self._reached = True
        self._greeting = greeting
        return greeting

    def _hear_greeting(self) -> Hearing[bytes]:
        """The greeting, behind TLS and XCLIENT where they are agreed on."""
        greeting = yield from first_line()
        if Status.of(greeting) not in (Status.OK, Status.ERR):
            raise ungreeted(greeting)
        if Status.of(greeting) is Status.ERR:
            return greeting
        if self.terms.backend_tls is BackendTLS.STARTTLS:
            reply = yield from self._ask_ourselves(b"STLS")
            if Status.of(reply) is Status.ERR and _LATER.match(reply):
                return reply  # a refusal that says nothing of TLS
            if not _is_ok(reply):
                untrusted(f"the backend refuses STLS: {reply[:80]!r}")
            yield StartTLS(BACKEND)
        if self.terms.identity is Identity.XCLIENT:
            if not _XCLIENT.search(greeting):
                refused("the backend does not offer XCLIENT to the gateway's address")
            reply = yield from self._ask_ourselves(xclient.pop3_command(self.terms))
            if Status.of(reply) is Status.ERR and _LATER.match(reply):
                return reply  # a refusal of this client
            # Dovecot's answer to somebody whom it does not trust begins with +OK, too.
            if not _is_ok(reply) or b"not from trusted" in reply:
                refused(f"the backend answers XCLIENT: {reply[:80]!r}")
        return greeting

    def _ask_ourselves(self, command: bytes) -> Hearing[bytes]:
        """A command of ours and the line that answers it."""
        yield Send(BACKEND, command + b"\r\n")
        heard = yield Await((BACKEND,), Patience.REPLY, REPLY_LINE)
        return heard.text if isinstance(heard, Line) else b""

    def _reach(self) -> Script:
        """Dial, if that was put off; the greeting is not the client's, it has had ours."""
        if not self._reached:
            greeting = yield from self._dial()
            if Status.of(greeting) is Status.ERR:
                yield Note("backend-refused", (("text", greeting),))
                yield Send(CLIENT, greeting + b"\r\n")
                yield Close("backend-refused")

    def goodbye(self, trouble: Trouble) -> bytes:
        match trouble:
            case _ if self._midway:
                return b""
            case Lost(side=Side.CLIENT) | TLSFailed(side=Side.CLIENT) | Violation(key="tls-on-plaintext-port"):
                return b""
            case Violation(key="too-many-bad-commands"):
                return b"-ERR Too many invalid commands\r\n"
            case Violation(key="too-many-failed-logins"):
                return b"-ERR [AUTH] Too many failed logins\r\n"
            case Violation(side=Side.CLIENT, key="client-line-too-long"):
                return b"-ERR Command too long\r\n"
            case Violation(side=Side.CLIENT):
                return b"-ERR Invalid protocol\r\n"
            case Expired(side=Side.CLIENT):
                return b""  # RFC 1939 3: an autologout says nothing
            case Unavailable(key="refused"):
                return busy(self.terms.hostname)
            case _ if not self._welcomed:
                return UNAVAILABLE
            case _ if not self._outstanding:
                return b""
            case Lost() | Expired():
                return LOST
        return UNAVAILABLE

    def farewell(self) -> bytes:
        return b"QUIT\r\n" if self._reached and not self._outstanding and not self._midway else b""

    # --- commands ----------------------------------------------------------------------------

    def talk(self) -> Script:
        while True:
            heard = yield from self._hear(BOTH, Patience.COMMAND, sasl.REQUEST_LINE)
            match heard:
                case Line(side=Side.BACKEND, text=text):
                    if not self._asked and (
                        Status.of(text) is not Status.ERR or self.terms.identity is not Identity.NONE
                    ):
                        # A second greeting, the answer to what somebody slipped in before TLS (RFC 2595 2.1), or to
                        # a PROXY header that was not expected.
                        raise _broken(text)
                    yield Send(CLIENT, text + b"\r\n")
                case Line(text=text) if not too_long(text):
                    if (yield from self._command(text)):
                        return
                case Unclean():
                    yield from self._refuse(b"-ERR Invalid characters")
                case _:
                    yield Note("client-line-too-long")
                    yield from self._refuse(b"-ERR Command too long")

    def _command(self, line: bytes) -> Generator[Request, Any, bool]:
        """One command of the client.  Returns whether it was a login that succeeded."""
        match = _COMMAND.match(line)
        verb = match[1].upper() if match else b""
        if not match or verb in AUTHORITY:
            return (yield from self._refuse(UNKNOWN))
        if self._waits_for_tls(verb):
            return (yield from self._refuse(MUST_STLS))
        if verb in LOGIN and not self.terms.may_log_in():
            yield TOO_MANY_FAILURES
            return (yield from self._refuse(b"-ERR [SYS/TEMP] Temporary authentication failure"))
        return (yield from COMMANDS.get(verb, POP3._other)(self, line, match[2] or b""))

    def _waits_for_tls(self, verb: bytes) -> bool:
        if self._stage is not Stage.CLOSED:
            return False
        return verb in LOGIN or (self.terms.policy is Policy.REQUIRED and verb not in (b"CAPA", b"STLS", b"QUIT"))

    def _capa(self, line: bytes, arguments: bytes) -> Generator[Request, Any, bool]:
        if self.secured is None:
            if arguments.strip():
                return (yield from self._refuse(INVALID))
            if not self._reached:
                return (yield from self._own_capabilities())
        status, reply = yield from self._ask(line)
        if status is Status.OK:
            stage = self._stage
            lines = yield from self._list(reply, lambda lines: edit_capabilities(lines, stage), ADDED[stage])
            if stage is Stage.SECURE and not access.pop3_logins(edit_capabilities(lines, stage), self._greeting):
                yield access.note(access.NO_LOGIN, DIALECT.name, self.terms, access.NEITHER, b"STLS" in lines)
        elif self.secured is None:
            return (yield from self._own_capabilities())
        else:
            yield from self._conclude(status, reply)
        return False

    def _own_capabilities(self) -> Generator[Request, Any, bool]:
        """RFC 2595 4: a server with STLS has CAPA."""
        self._outstanding = False
        self._bad = 0
        yield Send(CLIENT, b"+OK Capability list follows\r\nSTLS\r\n.\r\n")
        return False

    def _stls(self, line: bytes, arguments: bytes) -> Generator[Request, Any, bool]:
        if self.secured is not None:
            return (yield from self._refuse(b"-ERR Command not permitted when TLS active"))
        if arguments.strip(sasl.BLANKS):
            return (yield from self._refuse(b"-ERR STLS takes no arguments"))
        if self._user or self._dirty:
            return (yield from self._refuse(b"-ERR STLS not permitted in this state"))
        self.secured = yield StartTLS(CLIENT, b"+OK Begin TLS negotiation now\r\n")
        self._asked = False  # what still comes is no answer to anything that was said inside
        self._bad = 0
        return False

    def _quit(self, line: bytes, arguments: bytes) -> Generator[Request, Any, bool]:
        if self.secured is None and arguments.strip():
            return (yield from self._refuse(INVALID))
        status, reply = Status.OK, b"+OK"
        if self._reached:
            try:
                status, reply = yield from self._ask(line)
            except Lost as lost:
                if lost.side is CLIENT or self._midway:
                    raise  # else it is gone, as it was asked to be
        yield from self._conclude(status, reply)
        if status is Status.OK:
            yield Close("quit")
        return False

    def _user_name(self, line: bytes, arguments: bytes) -> Generator[Request, Any, bool]:
        """A name that is refused is a login that failed: else a session could try any number of names."""
        status, reply = yield from self._ask(line)
        self._user = self._user or status is Status.OK
        self._unnamed = status is not Status.OK and blames_name(reply, arguments)
        if self._unnamed:
            return (yield from self._rejected(status, reply, b"USER"))
        # A server that knows no USER is asked in vain for ever: that is a bad command.
        return (yield from self._conclude(status, reply, login=status is Status.OK or _is_later(reply)))

    def _password(self, line: bytes, arguments: bytes) -> Generator[Request, Any, bool]:
        status, reply = yield from self._ask(line)
        counted, self._unnamed = self._unnamed, False
        self._user = False
        if counted and status is not Status.OK:
            return (yield from self._conclude(status, reply, login=True))  # name and password are one login
        return (yield from self._verdict(status, reply, b"USER"))

    def _apop(self, line: bytes, arguments: bytes) -> Generator[Request, Any, bool]:
        status, reply = yield from self._ask(line)
        return (yield from self._verdict(status, reply, b"APOP"))

    def _auth(self, line: bytes, arguments: bytes) -> Generator[Request, Any, bool]:
        arguments = arguments.rstrip(sasl.BLANKS)
        if not arguments:
            status, reply = yield from self._ask(line)
            if status is Status.OK:
                yield from self._list(reply, edit_mechanisms)
            else:
                yield from self._conclude(status, reply)
            return False
        mechanism, _, initial = arguments.partition(b" ")
        if not sasl.is_request(arguments):
            return (yield from self._refuse(INVALID))
        if sasl.refused(mechanism):
            return (yield from self._refuse(b"-ERR Unsupported authentication mechanism"))
        return (yield from self._exchange(line, mechanism.upper(), initial))

    def _exchange(self, line: bytes, mechanism: bytes, initial: bytes) -> Generator[Request, Any, bool]:
        """A dialogue (RFC 5034 4).  Before the client has given any data, +OK is the go-ahead, as Exchange 2003 says
        it to `AUTH NTLM`; the next line is a response then, too, and what comes last decides."""
        given = bool(initial) and sasl.proves(mechanism, initial)
        cancelled = False
        status, reply = yield from self._ask(line, SASL_LINE)
        while status is Status.MORE or (status is Status.OK and not given and not cancelled):
            self._outstanding = True  # whatever is said now is taken for a response
            yield Send(CLIENT, reply + b"\r\n")
            ahead = status is Status.OK
            status, reply, said = yield from self._response()
            if said is not None:
                cancelled = sasl.cancels(said)
                # If +OK was no go-ahead, this is a command, and its +OK is no success either.
                command = ahead and said.strip(sasl.BLANKS).upper() in BARE
                given = given or (sasl.proves(mechanism, said) and not command)
        if status is Status.OK and not cancelled:
            return (yield from self._verdict(status, reply, mechanism))
        if given:
            return (yield from self._rejected(status, reply, mechanism))
        # The mechanism was refused, or the client took its word back: nothing was said of anybody's password.
        yield _told(mechanism, succeeded=False)
        return (yield from self._conclude(status, reply, login=_is_later(reply)))

    def _response(self) -> Generator[Request, Any, tuple[Status, bytes, bytes | None]]:
        """One line of the client's as data, the reply to it, and what the backend was told: None where its reply
        came unasked."""
        heard = yield from self._hear(BOTH, Patience.COMMAND, SASL_LINE)
        match heard:
            case Line(side=Side.BACKEND, text=text):
                return self._status(text), text, None
            case Line(text=text) if sasl.RESPONSE.match(text):
                said: bytes = text
            case _:
                said = sasl.CANCEL  # the verdict is the backend's
        return (*(yield from self._ask(said, SASL_LINE)), said)

    def _lang(self, line: bytes, arguments: bytes) -> Generator[Request, Any, bool]:
        status, reply = yield from self._ask(line)
        if status is Status.OK and not arguments.strip():  # RFC 6856 3.2
            yield from self._list(reply, list)
            return False
        return (yield from self._conclude(status, reply))

    def _utf8(self, line: bytes, arguments: bytes) -> Generator[Request, Any, bool]:
        status, reply = yield from self._ask(line)
        self._dirty = self._dirty or status is Status.OK
        return (yield from self._conclude(status, reply))

    def _other(self, line: bytes, arguments: bytes) -> Generator[Request, Any, bool]:
        status, reply = yield from self._ask(line)
        return (yield from self._conclude(status, reply, idle=line.upper().split()[0] == b"NOOP"))

    # --- replies -----------------------------------------------------------------------------

    def _ask(self, line: bytes, limit: int = REPLY_LINE) -> Generator[Request, Any, tuple[Status, bytes]]:
        """Send a line to the backend and hear the first line of its reply, which has so many octets at most."""
        self._outstanding = True
        yield from self._reach()
        self._asked = True
        yield Send(BACKEND, line + b"\r\n")
        heard = yield from self._hear((BACKEND,), Patience.REPLY, limit)
        status = self._status(heard.text)
        if status is Status.ERR and access.demands_tls(heard.text, line):
            yield access.note(access.NO_LOGIN, DIALECT.name, self.terms, heard.text)
        return status, heard.text

    def _status(self, line: bytes) -> Status:
        status = Status.of(line)
        if status is None:
            raise _broken(line)
        self._outstanding = status is Status.MORE
        return status

    def _conclude(
        self, status: Status, reply: bytes, *, login: bool = False, idle: bool = False
    ) -> Generator[Request, Any, bool]:
        """A reply of one line for the client."""
        self._outstanding = False
        yield Send(CLIENT, reply + b"\r\n")
        if status is Status.OK:
            self._bad = self._bad if idle else 0
        elif not login:
            self._count()
        return False

    def _verdict(self, status: Status, reply: bytes, mechanism: bytes) -> Generator[Request, Any, bool]:
        """The reply that ends a login, which succeeds with +OK and nothing else."""
        if status is not Status.OK:
            return (yield from self._rejected(status, reply, mechanism))
        yield _told(mechanism, succeeded=True)
        yield Proven()
        yield Send(CLIENT, reply + b"\r\n")
        return True

    def _rejected(self, status: Status, reply: bytes, mechanism: bytes) -> Generator[Request, Any, bool]:
        """A login that failed.  It counts, unless the reply says nothing of name and password."""
        yield _told(mechanism, succeeded=False)
        if blames_command(reply):
            return (yield from self._conclude(status, reply))
        answer = self._conclude(status, reply, login=True)
        return (yield from answer if _is_later(reply) else self._logins.rejected(answer))

    def _list(
        self, first: bytes, edit: Callable[[list[bytes]], list[bytes]], added: tuple[bytes, ...] = ()
    ) -> Generator[Request, Any, list[bytes]]:
        """A reply of many lines, up to the dot, edited as a whole.  If it breaks off, the client gets
        what came and then nothing: words of ours would seem to be a part of it.  Returns the lines as they came."""
        self._bad = 0
        lines: list[bytes] = []
        octets = 0
        self._midway = True
        yield Send(CLIENT, first + b"\r\n")
        try:
            while True:
                heard = yield from self._hear((BACKEND,), Patience.REPLY, REPLY_LINE)
                if heard.text == b".":
                    break
                octets += len(heard.text)
                if len(lines) >= REPLY_LINES or octets > REPLY_OCTETS:
                    raise _broken(b"a reply without end")
                lines.append(heard.text)
        except Trouble:
            yield Send(CLIENT, _joined(edit(lines)))
            raise
        told = edit(lines)
        if bindings(lines) - bindings(told):
            yield Note("backend-channel-binding", (("cure", "disable channel binding on the backend"),), once=True)
        yield Send(CLIENT, _joined([*told, *added, b"."]))
        self._midway = False
        return lines

    def _hear(self, sides: tuple[Side, ...], patience: Patience, limit: int) -> Generator[Request, Any, Any]:
        try:
            heard = yield Await(sides, patience, limit)
        except Lost as lost:
            if lost.side is BACKEND:
                yield Peek(BACKEND)  # lost again, unless a line had begun
                self._midway = True
            raise
        if isinstance(heard, TooLong) and heard.side is BACKEND:
            raise _broken(b"a line without end")
        return heard

    # --- refusals ----------------------------------------------------------------------------

    def _refuse(self, reply: bytes) -> Generator[Request, Any, bool]:
        yield Send(CLIENT, reply + b"\r\n")
        self._count()
        return False

    def _count(self) -> None:
        self._bad += 1
        if self._bad >= self.terms.bad_commands:
            raise Violation(CLIENT, "too-many-bad-commands")


def too_long(text: bytes) -> bool:
    """Nothing but an initial response makes a command long: a backend that splits it finds no command in base64."""
    if len(text) <= COMMAND_LINE:
        return False
    match = _COMMAND.match(text)
    return not (match and match[1].upper() == b"AUTH" and sasl.is_request(match[2] or b""))


def _is_later(reply: bytes) -> bool:
    return _LATER.match(reply) is not None


def _told(mechanism: bytes, *, succeeded: bool) -> Note:
    return Note("auth", (("result", "ok" if succeeded else "failed"), ("mechanism", mechanism.decode("ascii"))))


def _joined(lines: Iterable[bytes]) -> bytes:
    return b"".join(line + b"\r\n" for line in lines)


def _broken(text: bytes) -> Violation:
    return Violation(BACKEND, "backend-protocol-error", repr(text[:80]))


def unavailable(hostname: bytes) -> bytes:
    """In place of a greeting (RFC 3206 4)."""
    return UNAVAILABLE


def busy(hostname: bytes) -> bytes:
    """In place of a greeting (RFC 3206 4)."""
    return b"-ERR [SYS/TEMP] Too many connections\r\n"


def listed(reply: bytes) -> list[bytes] | None:
    """The lines of a CAPA list (RFC 2449 5)."""
    first, *lines = reply.splitlines() or [b""]
    return [line for line in lines if line != b"."] if _is_ok(first) else None


def _agrees(reply: bytes) -> bool:
    """The same for a whole reply, with its line ends."""
    return _is_ok(reply.split(b"\r\n")[0])


COMMANDS: Final[Mapping[bytes, Callable[[POP3, bytes, bytes], Generator[Request, Any, bool]]]] = {
    b"CAPA": POP3._capa,
    b"STLS": POP3._stls,
    b"QUIT": POP3._quit,
    b"USER": POP3._user_name,
    b"PASS": POP3._password,
    b"APOP": POP3._apop,
    b"AUTH": POP3._auth,
    b"LANG": POP3._lang,
    b"UTF8": POP3._utf8,
}
"""What is not simply the backend's.  Of a session's own methods it would be a circle for the garbage collector."""

DIALECT = Dialect(
    name="pop3",
    script=lambda terms: converse(POP3(terms)),
    unavailable=unavailable,
    busy=busy,
    patience={
        # RFC 1939 3: at least 10 minutes, and a little more, so that the backend closes first.
        Patience.COMMAND: 660.0,
        Patience.REPLY: 330.0,
        Patience.DATA: 300.0,
        Patience.RELAY: 660.0,
    },
    policies={},
    identities=frozenset({"proxy-v1", "proxy-v2", "xclient"}),
    alpn=(b"pop3",),
    # Nobody's name: a server that takes USER and PASS without TLS asks for the password of whomever.
    question=Question(lambda hostname: b"CAPA", b"QUIT", listed, access.of_pop3, (b"USER starttls-gateway-check",)),
    probing=Probing(
        port=110,
        implicit=frozenset({995}),
        starttls=b"STLS",
        injected=b"CAPA",
        complete=lambda command, heard: command != b"CAPA" or not _agrees(heard) or heard.endswith(b"\r\n.\r\n"),
        agrees=_agrees,
        # USER comes last: behind it some servers hear nothing but PASS.
        attempts=(
            Attempt(b"AUTH PLAIN", lambda reply: reply.startswith(b"+"), b"*"),
            Attempt(b"USER starttls-gateway-probe", _agrees),
        ),
    ),
)
