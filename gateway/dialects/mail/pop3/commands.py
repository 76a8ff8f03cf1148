"""POP3 (RFC 1939, RFC 2449, RFC 5034), inspected from the greeting to the login, and spliced from there.

Nothing here ever says QUIT for a client that has logged in: it would commit deletions that the client
did not (RFC 1939 6).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, Final

from ....protocol.framing import Lines
from ....protocol.vocabulary import Close, Line, Note, Patience, Request, Script, Send, Side, StartTLS, Unclean
from ... import access, sasl, users
from ...base import Dialect, Identity, Policy, Question, Terms, patience
from ...bounds import RESPONSES
from ...conversation import BOTH, CLIENT, Stage, broken, converse, login_note
from ...masking import Verbs
from ...probing import Attempt, Probing
from .. import FOREIGN
from .exchange import Exchange
from .words import (
    ADDED,
    COMMAND,
    Status,
    agrees,
    blames_name,
    edit_capabilities,
    is_later,
    listed,
    too_long,
)

LOGIN: Final = frozenset({b"USER", b"PASS", b"APOP", b"AUTH"})
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

LINES: Final = Lines(sasl.REQUEST_LINE, commands=True)


class POP3(Exchange):
    """One session's state; what is not in an attribute here is the generator's own place."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._user = False  # the backend remembers a user name
        self._unnamed = False  # ... or has refused one, which was counted
        self._dirty = False  # ... or something else that the client said

    def talk(self) -> Script:
        while True:
            heard = yield from self.hear(BOTH, Patience.COMMAND, LINES)
            match heard:
                case Line(side=Side.BACKEND, text=text):
                    if not self._asked and (
                        Status.of(text) is not Status.ERR or self.terms.identity is not Identity.NONE
                    ):
                        # A second greeting, the answer to what somebody slipped in before TLS (RFC 2595 2.1), or to
                        # a PROXY header that was not expected.
                        raise broken(text)
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
        match = COMMAND.match(line)
        verb = match[1].upper() if match else b""
        if not match or verb in AUTHORITY:
            return (yield from self._refuse(UNKNOWN))
        if self._waits_for_tls(verb):
            return (yield from self._refuse((yield from self.first(MUST_STLS))))
        if verb in LOGIN and not (yield from self.may_log_in()):
            return (yield from self._refuse(b"-ERR [SYS/TEMP] Temporary authentication failure"))
        return (yield from COMMANDS.get(verb, POP3._other)(self, line, match[2] or b""))

    def _waits_for_tls(self, verb: bytes) -> bool:
        if self.stage is not Stage.CLOSED:
            return False
        return verb in LOGIN or (self.terms.policy is Policy.REQUIRED and verb not in (b"CAPA", b"STLS", b"QUIT"))

    def _capa(self, line: bytes, arguments: bytes) -> Generator[Request, Any, bool]:
        if self.secured is None:
            if arguments.strip():
                return (yield from self._refuse(INVALID))
            if not self.reached:
                return (yield from self._own_capabilities())
        status, reply = yield from self._ask(line)
        if status is Status.OK:
            stage = self.stage
            lines = yield from self.hear_list(reply, lambda lines: edit_capabilities(lines, stage), ADDED[stage])
            if stage is Stage.SECURE and not access.pop3_logins(edit_capabilities(lines, stage), self._greeting):
                yield access.note(access.NO_LOGIN, "pop3", self.terms, access.NEITHER, b"STLS" in lines)
        elif self.secured is None:
            return (yield from self._own_capabilities())
        else:
            yield from self._conclude(status, reply)
        return False

    def _own_capabilities(self) -> Generator[Request, Any, bool]:
        """RFC 2595 4: a server with STLS has CAPA."""
        self._outstanding = False
        self.bad = 0
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
        self.bad = 0
        return False

    def _quit(self, line: bytes, arguments: bytes) -> Generator[Request, Any, bool]:
        if self.secured is None and arguments.strip():
            return (yield from self._refuse(INVALID))
        status, reply = Status.OK, b"+OK"
        if self.reached:
            status, reply = yield from self.left(self._ask(line), (status, reply))
        yield from self._conclude(status, reply)
        if status is Status.OK:
            yield Close("quit")
        return False

    def _user_name(self, line: bytes, arguments: bytes) -> Generator[Request, Any, bool]:
        """A name that is refused is a login that failed: else a session could try any number of names."""
        status, reply = yield from self._ask(line)
        self._claimed = users.shortened(arguments)
        self._user = self._user or status is Status.OK
        self._unnamed = status is not Status.OK and blames_name(reply, arguments)
        if self._unnamed:
            return (yield from self._rejected(status, reply, b"USER"))
        # A server that knows no USER is asked in vain for ever: that is a bad command.
        return (yield from self._conclude(status, reply, login=status is Status.OK or is_later(reply)))

    def _password(self, line: bytes, arguments: bytes) -> Generator[Request, Any, bool]:
        status, reply = yield from self._ask(line)
        counted, self._unnamed = self._unnamed, False
        self._user = False
        if counted and status is not Status.OK:
            return (yield from self._conclude(status, reply, login=True))  # name and password are one login
        return (yield from self._verdict(status, reply, b"USER"))

    def _apop(self, line: bytes, arguments: bytes) -> Generator[Request, Any, bool]:
        self._claimed = users.shortened(arguments.rpartition(b" ")[0])
        status, reply = yield from self._ask(line)
        return (yield from self._verdict(status, reply, b"APOP"))

    def _auth(self, line: bytes, arguments: bytes) -> Generator[Request, Any, bool]:
        arguments = arguments.rstrip(sasl.BLANKS)
        if not arguments:
            status, reply = yield from self._ask(line)
            if status is Status.OK:
                yield from self.hear_list(reply, sasl.usable)
            else:
                yield from self._conclude(status, reply)
            return False
        claim = users.Claim.asked(arguments, INVALID, b"-ERR Unsupported authentication mechanism")
        if isinstance(claim, bytes):
            return (yield from self._refuse(claim))
        return (yield from self._exchange(line, claim))

    def _exchange(self, line: bytes, claim: users.Claim) -> Generator[Request, Any, bool]:
        """A dialogue (RFC 5034 4).  Before the client has given any data, +OK is the go-ahead, as Exchange 2003 says
        it to `AUTH NTLM`; the next line is a response then, too, and what comes last decides."""
        self._claimed = claim.user
        status, reply = yield from self._ask(line, RESPONSES)
        while status is Status.MORE or (status is Status.OK and not claim.tried and not claim.cancelled):
            self._outstanding = True  # whatever is said now is taken for a response
            yield Send(CLIENT, reply + b"\r\n")
            ahead = status is Status.OK
            status, reply, said = yield from self._response()
            # If +OK was no go-ahead, this may be a command, and its +OK is no success either.
            if said is not None and not (ahead and said.strip(sasl.BLANKS).upper() in BARE):
                claim.hear(said)
                self._claimed = claim.user
        if status is Status.OK and not claim.cancelled:
            return (yield from self._verdict(status, reply, claim.mechanism))
        if claim.tried:
            return (yield from self._rejected(status, reply, claim.mechanism))
        # The mechanism was refused, or the client took its word back: nothing was said of anybody's password.
        yield login_note(claim.mechanism, "failed", self._claimed)
        return (yield from self._conclude(status, reply, login=is_later(reply)))

    def _response(self) -> Generator[Request, Any, tuple[Status, bytes, bytes | None]]:
        """One line of the client's as data, the reply to it, and what the backend was told: None where its reply
        came unasked."""
        heard = yield from self.hear(BOTH, Patience.COMMAND, RESPONSES)
        match heard:
            case Line(side=Side.BACKEND, text=text):
                return self._status(text), text, None
            case Line(text=text) if sasl.RESPONSE.match(text):
                said: bytes = text
            case _:
                said = sasl.CANCEL  # the verdict is the backend's
        return (*(yield from self._ask(said, RESPONSES)), said)

    def _lang(self, line: bytes, arguments: bytes) -> Generator[Request, Any, bool]:
        status, reply = yield from self._ask(line)
        if status is Status.OK and not arguments.strip():  # RFC 6856 3.2
            yield from self.hear_list(reply, list)
            return False
        return (yield from self._conclude(status, reply))

    def _utf8(self, line: bytes, arguments: bytes) -> Generator[Request, Any, bool]:
        status, reply = yield from self._ask(line)
        self._dirty = self._dirty or status is Status.OK
        return (yield from self._conclude(status, reply))

    def _other(self, line: bytes, arguments: bytes) -> Generator[Request, Any, bool]:
        status, reply = yield from self._ask(line)
        return (yield from self._conclude(status, reply, idle=line.upper().split()[0] == b"NOOP"))


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
"""All other commands are the backend's.  Plain functions: bound methods would create a reference cycle."""

SHOWN: Final = Verbs(
    whole=frozenset({b"CAPA", b"STLS", b"QUIT", b"NOOP", b"UTF8", b"LANG"}),
    first=frozenset({b"AUTH"}),
    alone=frozenset({b"USER", b"PASS", b"APOP"}),
)

DIALECT = Dialect(
    name="pop3",
    script=lambda terms: converse(POP3(terms)),
    unavailable=POP3.unavailable,
    busy=POP3.busy,
    # RFC 1939 3: at least 10 minutes, and a little more, so that the backend closes first.
    patience=patience(660.0),
    policies={},
    foreign=FOREIGN,
    identities=frozenset({"proxy-v1", "proxy-v2", "xclient"}),
    alpn=(b"pop3",),
    # Nobody's name: a server that takes USER and PASS without TLS asks for the password of whomever.
    question=Question(lambda hostname: b"CAPA", b"QUIT", listed, access.of_pop3, (b"USER starttls-gateway-check",)),
    shown=SHOWN,
    probing=Probing(
        port=110,
        implicit=frozenset({995}),
        starttls=b"STLS",
        injected=b"CAPA",
        complete=lambda command, heard: command != b"CAPA" or not agrees(heard) or heard.endswith(b"\r\n.\r\n"),
        agrees=agrees,
        # USER comes last: behind it some servers hear nothing but PASS.
        attempts=(
            Attempt(b"AUTH PLAIN", lambda reply: reply.startswith(b"+"), b"*"),
            Attempt(b"USER starttls-gateway-probe", agrees),
        ),
    ),
)
