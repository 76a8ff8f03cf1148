"""IRC, inspected from the client's first line to the server's welcome (001), and spliced from there.

The client speaks first.  Both sides may speak at any time: servers leave some commands unanswered (ngIRCd), so that
nothing waits for an answer.  The gateway itself asks the backend once, by PING, which every server answers.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any, Final

from ....protocol.vocabulary import (
    Await,
    Close,
    Expired,
    Line,
    Lost,
    Note,
    Patience,
    Proven,
    Request,
    Script,
    Send,
    Side,
    StartTLS,
    Stopped,
    TLSFailed,
    TooLong,
    Trouble,
    Unavailable,
    Violation,
)
from ... import sasl, users
from ...base import BackendTLS, Dialect, Identity, Policy, Question, Terms
from ...bounds import REPLY_LINES, REPLY_OCTETS
from ...conversation import BACKEND, BOTH, CHANNEL_BINDING, CLIENT, Conversation, broken, converse, foreign, login_note
from ...masking import Verbs
from ...probing import Probing
from ...reach import Hearing, RefusedByBackend, reached, refused, ungreeted, untrusted
from .syntax import (
    LINES,
    Message,
    access,
    agrees,
    answered,
    capabilities,
    complete,
    edit_listing,
    listed,
    mechanisms,
    parse,
    too_long,
    webirc,
)

REGISTERS: Final = frozenset({b"NICK", b"USER", b"PASS", b"AUTHENTICATE", b"OPER"})
"""Commands that wait for TLS.  A client that says one before STARTTLS will not ask for TLS any more."""
AUTHORITY: Final = frozenset({b"WEBIRC", b"SERVER", b"SERVICE"})
"""Commands by which a trusted address speaks for others."""

BEGINNING: Final = frozenset({b"NICK", b"USER"})
"""A client that has said both is registered, unless it negotiates capabilities (RFC 2812 3.1)."""
NO_LOGIN: Final = frozenset({b"902", b"904"})
"""The server does not take the credentials (IRCv3 SASL)."""
LOGIN_BROKEN: Final = frozenset({b"905", b"906"})
"""The dialogue was too long, or was taken back."""
WRONG_PASSWORD: Final = b"464"
BAD_PASSWORD: Final = re.compile(rb"\bpassword\b", re.IGNORECASE)
"""In the words of ERROR."""

CAPABILITY: Final = re.compile(rb"-?[A-Za-z0-9./_-]{1,64}")
PART: Final = 400
"""Octets of a part of a SASL response behind which another one follows (IRCv3 SASL)."""
NO_SASL: Final = b"904 * :SASL authentication failed"
LIMITED: Final = b"Too many failed logins, try again later"
TLS_FIRST: Final = b"TLS required: use STARTTLS, or a port with TLS"


class IRC(Conversation):
    """One session."""

    _begun: frozenset[bytes] = frozenset()  # what of NICK and USER the client has said
    _password = False  # the client has said PASS
    _named = False  # the client has said AUTHENTICATE, to which the server has said nothing yet
    _asked = False  # the server waits for a SASL response
    _owed = False  # the backend has said nothing since the client's last command
    _failed = False  # the server did not take the client's credentials
    _quit = False  # the client has said QUIT

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._claim = users.Claim()  # the client's AUTHENTICATE, if it has a mechanism

    def talk(self) -> Script:
        while True:
            try:
                if self._quit:  # a client that closes at once still left in order
                    heard = yield Await((BACKEND,), Patience.REPLY, LINES)
                else:
                    heard = yield Await(BOTH if self.reached else (CLIENT,), Patience.COMMAND, LINES)
            except Lost as lost:
                if self._quit and lost.side is BACKEND:
                    yield Close("quit")
                raise
            match heard:
                case Line(side=Side.BACKEND, text=text):
                    if (yield from self._reply(text)):
                        return
                case TooLong(side=Side.BACKEND):
                    raise broken("a line without end")
                case Line(text=text) if not too_long(text):
                    yield from self._command(text)
                case Line() | TooLong():
                    yield Note("client-line-too-long")
                    yield from self._refuse(b"417 * :Input line was too long")
                case _:
                    yield from self._refuse(b"400 * * :Invalid characters")

    # --- the client ---

    def _command(self, text: bytes) -> Script:
        message = parse(text)
        if not text.strip(b" "):
            return  # RFC 2812 2.3.1: silently ignored
        if message is None or message.verb in AUTHORITY:
            yield from self._refuse(b"421 * * :Unknown command")
        elif message.verb == b"STARTTLS":
            yield from self._starttls(message)
        elif message.verb == b"QUIT" and not self.reached:
            yield Send(CLIENT, self._error(b"Client exited"))
            yield Close("quit")
        elif self.secured is None and self.terms.policy is not Policy.OPTIONAL:
            yield from self._before_tls(message)
        elif self.secured is None and message == Message(b"CAP", (b"REQ", b"tls")):
            yield from self._say(b"CAP * ACK :tls")
        elif message.verb == b"PASS":
            yield from self._log_in(text)
            self._password = True
        elif message.verb == b"AUTHENTICATE":
            yield from self._authenticate(message, text)
        else:
            self._begun |= {message.verb} & BEGINNING
            self._quit = message.verb == b"QUIT"
            yield from self._forward(text)

    def _before_tls(self, message: Message) -> Script:
        """The backend hears nothing of it."""
        if message.verb in REGISTERS:
            yield Send(CLIENT, self._error((yield from self.first(TLS_FIRST))))
            yield Close("tls-required")
        sub = message.params[0].upper() if message.verb == b"CAP" and message.params else b""
        wanted = [word for word in b" ".join(message.params[1:]).split() if CAPABILITY.fullmatch(word)]
        match sub:
            case b"LS":
                yield from self._say(b"CAP * LS :tls")
            case b"LIST":
                yield from self._say(b"CAP * LIST :")
            case b"REQ" if wanted == [b"tls"]:
                yield from self._say(b"CAP * ACK :tls")
            case b"REQ":
                yield from self._say(b"CAP * NAK :" + b" ".join(wanted))
                self.count()
            case b"END":
                pass
            case _:
                # irssi says `JOIN :` before STARTTLS, to see where the server's answers to CAP end.
                yield from self._refuse(b"451 * :You have not registered")

    def _starttls(self, message: Message) -> Script:
        """What was said before counts no more: a backend that has heard some of it is left for a fresh one."""
        if self.secured is not None:
            yield from self._refuse(b"691 * :STARTTLS failed (TLS is already active)")
        elif message.params:
            yield from self._refuse(b"691 * :STARTTLS failed (it takes no parameters)")
        else:
            words = b":%s 670 * :STARTTLS successful, proceed with TLS handshake\r\n" % self.terms.hostname
            self.secured = yield StartTLS(CLIENT, words)
            self._begun = frozenset()
            self.reached = self._password = self._named = self._asked = self._owed = False
            self._claim = users.Claim()
            self.bad = 0

    def _authenticate(self, message: Message, text: bytes) -> Script:
        """A response to the server's question; else it begins a dialogue, and names the mechanism.

        A client may not wait for the server's verdict, so that behind a whole response another dialogue may begin.
        """
        said = message.params[0] if message.params else b""
        claim = users.Claim.named(said, None if self._asked else NO_SASL, NO_SASL)
        if isinstance(claim, bytes):
            yield from self._refuse(claim)
        elif self._asked or claim is None:
            self._asked = len(said) == PART
            self._claim.hear(said)
            yield from self._forward(text)
        else:
            yield from self._log_in(text)
            if not self._named:  # else it may be a response that came too early, and a secret
                self._claim = claim
            self._named = True

    def _log_in(self, text: bytes) -> Script:
        if not (yield from self.may_log_in()):
            yield Send(CLIENT, self._error(LIMITED))
            yield Close("refused", "auth-failures-per-minute")
        yield from self._forward(text)

    def _forward(self, text: bytes) -> Script:
        if not self.reached:
            early = yield from reached(self.terms, self.secured, self._greeted)
            self.reached = True
            for line in early:
                yield from self._reply(line)
        self._owed = True
        self.bad = 0
        yield Send(BACKEND, text + b"\r\n")

    # --- the backend ---

    def _greeted(self) -> Hearing[list[bytes]]:
        """It is a server in good health when it answers our PING, which it refuses; before that it may say other
        things, which are for the client."""
        if self.terms.backend_tls is BackendTLS.STARTTLS:
            yield Send(BACKEND, b"STARTTLS\r\n")
            while (answer := (yield from self._message())[0]).verb != b"670":
                if answer.verb.isdigit():
                    untrusted(f"the backend refuses STARTTLS: {answer.verb.decode()}")
            yield StartTLS(BACKEND)
        told = self.terms.identity is Identity.WEBIRC
        line = webirc(self.terms, secured=self.secured is not None) + b"\r\n" if told else b""
        yield Send(BACKEND, line + b"PING :%s\r\n" % self.terms.hostname)
        early: list[bytes] = []
        octets = 0
        while len(early) < REPLY_LINES and octets <= REPLY_OCTETS:
            message, text = yield from self._message()
            if message.verb in (b"451", b"PONG"):
                return early
            if told and message.verb == WRONG_PASSWORD:
                refused(f"the backend answers WEBIRC: {text[:80]!r}")
            early.append(text)
            octets += len(text)
        raise ungreeted(b"a greeting without end")

    def _message(self) -> Hearing[tuple[Message, bytes]]:
        """A line of the backend's before it has answered.  Raises RefusedByBackend if it sends the client away."""
        heard = yield Await((BACKEND,), Patience.GREETING, LINES)
        text: bytes = heard.text if isinstance(heard, Line) else b"a line without end"
        message = parse(text)
        if message is None or not (text.startswith((b":", b"@")) or message.verb in UNPREFIXED):
            raise ungreeted(text)
        if message.verb == b"ERROR":
            if self.terms.identity is Identity.WEBIRC and b"WEBIRC" in text.upper():
                refused(f"the backend answers WEBIRC: {text[:80]!r}")
            raise RefusedByBackend([text])
        return message, text

    def _reply(self, text: bytes) -> Generator[Request, Any, bool]:
        """Any line of the backend's.  Returns whether the client is registered."""
        message = parse(text)
        if message is None:
            raise broken(text)
        self._owed = False
        match message.verb:
            case b"001":
                if self._begun != BEGINNING:
                    raise broken("a welcome for a client that has not registered")
                if self._password:
                    yield login_note(b"PASS", "ok")
                yield Proven()
                yield Send(CLIENT, text + b"\r\n")
                return True
            case b"AUTHENTICATE":
                self._asked, self._named = True, False
            case b"CAP":
                if any(name.endswith(sasl.PLUS) for name in mechanisms(capabilities(text) or ())):
                    yield CHANNEL_BINDING
                text = edit_listing(text, secured=self.secured is not None)
                if not text:
                    return False
            case b"903" if self._claim.mechanism:
                yield login_note(self._claim.mechanism, "ok", self._claim.user)
                self._named = self._asked = False
            case verb if self._claim.mechanism and verb in NO_LOGIN | LOGIN_BROKEN:
                yield from self._failed_login(self._claim.mechanism, text, self._claim.user, counts=verb in NO_LOGIN)
                self._named = self._asked = False
                return False
            case b"464" if self._password:
                self._password = False
                yield from self._failed_login(b"PASS", text)
                return False
            case b"ERROR":
                yield from self._expelled(text)
        yield Send(CLIENT, text + b"\r\n")
        return False

    def _failed_login(self, mechanism: bytes, text: bytes, user: bytes = b"", *, counts: bool = True) -> Script:
        self._failed = True
        yield from self.not_accepted(mechanism, user, self.tell(text + b"\r\n"), guessed=counts)

    def _expelled(self, text: bytes) -> Script:
        """ERROR: the backend closes behind it (RFC 2812 3.7.4)."""
        if self._password and BAD_PASSWORD.search(text):
            yield from self._failed_login(b"PASS", text)  # ngIRCd says it so, InspIRCd has said 464 before
        else:
            if not (self._failed or self._quit):
                yield Note("backend-refused", (("text", text),))
            yield Send(CLIENT, text + b"\r\n")
        yield Close("quit" if self._quit else "backend-closed" if self._failed else "backend-refused")

    # --- words of ours ---

    def _say(self, words: bytes) -> Script:
        yield Send(CLIENT, b":%s %s\r\n" % (self.terms.hostname, words))

    def _refuse(self, words: bytes) -> Script:
        yield from self._say(words)
        self.count()

    def _error(self, why: bytes) -> bytes:
        return closing(self.terms.hostname, why)

    def goodbye(self, trouble: Trouble) -> bytes:
        match trouble:
            case Stopped():
                why = b"Server shutting down"
            case Lost() | Expired(side=Side.BACKEND):
                why = b"Connection to server lost"
            case Expired():
                why = b"Connection timed out"
            case Unavailable() | TLSFailed() | Violation(side=Side.BACKEND):
                return self.unavailable(self.terms.hostname)
            case Violation(key="too-many-bad-commands"):
                why = b"Too many invalid commands"
            case Violation(key="too-many-failed-logins"):
                why = b"Too many failed logins"
            case _:
                why = b"This is IRC"
        return self._error(why)

    def farewell(self) -> bytes:
        return b"QUIT\r\n" if self.reached and not self._owed else b""

    @staticmethod
    def unavailable(hostname: bytes) -> bytes:
        return closing(hostname, b"Service temporarily unavailable")

    @staticmethod
    def busy(hostname: bytes) -> bytes:
        return closing(hostname, b"Too many connections")


UNPREFIXED: Final = frozenset({b"NOTICE", b"PING", b"ERROR", b"CAP"})
"""All that a server says without its name in front."""


def closing(hostname: bytes, why: bytes) -> bytes:
    """The last line that a client hears (RFC 2812 3.7.4)."""
    return b"ERROR :Closing Link: %s (%s)\r\n" % (hostname, why)


DIALECT = Dialect(
    name="irc",
    script=lambda terms: converse(IRC(terms)),
    unavailable=IRC.unavailable,
    busy=IRC.busy,
    patience={
        Patience.COMMAND: 60.0,
        Patience.REPLY: 15.0,  # for looks, and for the answer to QUIT: a session waits for nothing else
        Patience.DATA: 60.0,
        Patience.SPLICE: 660.0,  # servers ask by PING whether a client is there, at least every five minutes
    },
    policies={},
    foreign=foreign("http-client"),
    identities=frozenset({"proxy-v1", "proxy-v2", "webirc"}),
    question=Question(lambda hostname: b"CAP LS 302", b"QUIT", listed, access, answered=answered),
    alpn=(b"irc",),
    shown=Verbs(
        whole=frozenset({b"CAP", b"NICK", b"USER", b"STARTTLS", b"PING", b"PONG", b"JOIN", b"QUIT"}),
        first=frozenset({b"AUTHENTICATE"}),
        alone=frozenset({b"PASS", b"OPER", b"WEBIRC"}),
    ),
    probing=Probing(
        port=6667,
        implicit=frozenset({6697}),
        starttls=b"STARTTLS",
        injected=b"PING starttls-gateway-probe",
        complete=complete,
        agrees=agrees,
        attempts=(),
        framing=lambda command: LINES,
        greets=False,
        leaves=False,  # a server answers QUIT by ERROR
        silent=True,
    ),
    first=Side.CLIENT,
)
