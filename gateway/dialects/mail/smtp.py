"""SMTP, submission and submissions (RFC 5321, 6409, 8314), inspected from the greeting to the end.

SMTP is never spliced, save for a SASL security layer: STARTTLS must stay refused, the commands by
which our address could speak for others must stay out, EHLO may come again at any time, and the end
of each message must be the same for us and for the backend.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from ...protocol.filters import Counted, Message
from ...protocol.vocabulary import (
    Abort,
    Await,
    Close,
    Delivered,
    Line,
    Lost,
    Note,
    Opaque,
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
    TooLong,
    Trouble,
    Unavailable,
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
from ..reach import GREETS_ONCE, Refusal, reached, refused, ungreeted, untrusted
from . import ehlo, extensions, xclient
from .received import declared, protocol_keyword, received

CLIENT: Final = Side.CLIENT
BACKEND: Final = Side.BACKEND

COMMAND_LINE: Final = 510
"""RFC 5321 4.5.3.1.4: 512 with CRLF.  A backend that splits longer lines would take the tail for a command."""
EXTENDED_LINE: Final = 2048
"""MAIL and RCPT, where the backend offers an extension that lengthens them (RFC 1870, 3461, 4954 ...)."""
SWALLOWED_CHUNK: Final = 1024 * 1024
"""Octets of a refused BDAT chunk that we read on; with more the session ends."""
LARGEST_CHUNK: Final = 2**31 - 65536
"""A backend that counts in 32 bits would take the rest of a larger chunk, and our header, for commands."""

_COMMAND: Final = re.compile(rb"([A-Za-z][A-Za-z0-9_-]*)(?:[ \t]+(.*))?\Z", re.DOTALL)
_REPLY: Final = re.compile(rb"[2-5][0-9][0-9](?:[ -].*)?\Z", re.DOTALL)
_ASIDE: Final = re.compile(rb"[01][0-9][0-9](?:[ -].*)?\Z", re.DOTALL)
"""Not a reply: a line that comes before one.  1yz is preliminary in RFC 821 E, 0yz what sendmail says after VERB."""
_VERDICT: Final = re.compile(rb"[\s\0]*([245][0-9][0-9])(?![0-9.,:])([ -]?)(.*)\Z", re.DOTALL)
"""A line of a verdict, however sloppily written."""
_BDAT: Final = re.compile(rb"([0-9]{1,19})(?: +(LAST))?\Z", re.IGNORECASE)

WEB: Final = frozenset({b"GET", b"POST", b"CONNECT", b"PUT", b"HEAD", b"OPTIONS"})
OPEN_BEFORE_TLS: Final = frozenset({b"EHLO", b"NOOP", b"QUIT", b"STARTTLS"})
"""RFC 3207 4: exactly these are not answered 530 where TLS is required."""
OPEN_BEFORE_EHLO: Final = frozenset({b"EHLO", b"HELO", b"NOOP", b"RSET", b"QUIT", b"STARTTLS"})
NO_EHLO: Final = frozenset({b"500", b"501", b"502", b"504", b"550"})
"""What servers older than ESMTP answer to EHLO (RFC 5321 3.2)."""
NO_TLS: Final = frozenset({b"454", b"500", b"501", b"502", b"503", b"504", b"530"})
"""Refusals of STARTTLS itself (RFC 3207 4); others are of the client."""
GREETING: Final = b"greeting"
"""The greeting is outstanding, no command."""
BAD_COMMAND: Final = frozenset({b"500", b"501", b"502", b"503", b"504"})

MUST_STARTTLS: Final = b"530 5.7.0 Must issue a STARTTLS command first"


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply of the backend, its lines without terminators."""

    lines: tuple[bytes, ...]

    @property
    def code(self) -> bytes:
        return self.lines[0][:3]

    @property
    def positive(self) -> bool:
        return self.lines[0][:1] == b"2"

    @property
    def refuses(self) -> bool:
        """4yz or 5yz (RFC 5321 4.2.1)."""
        return self.lines[0][:1] in (b"4", b"5")

    @property
    def octets(self) -> bytes:
        return b"\r\n".join(self.lines) + b"\r\n"


Replying = Generator[Request, Any, Reply]


class SMTP:
    """One session's state; what is not in an attribute here is the generator's own place."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.secured: Secured | None = None
        self._dialled = False
        self._introduced = b""  # EHLO or HELO, as the backend has taken it on this connection
        self._stale = False  # ... and is known to take none after it
        self._welcomed = False  # the client has its greeting
        self._silent = False  # words of ours would land inside a reply, or in a foreign stream
        self._outstanding = b""  # the verb that the backend owes a reply to
        self._bad = 0
        self._logins = Logins(terms.failed_logins)
        self._trusted = False  # authenticated or a mail accepted: bad commands are no longer counted
        self._authenticated = False
        self._verbose = False  # the client has asked for what comes before final replies
        self._layered = False
        self._must_greet = False
        self._name = b""  # what the client called itself since TLS
        self._extended = False  # ... in EHLO
        self._chunking = False  # the backend's latest EHLO reply offers it
        self._lengthened = False  # ... an extension that makes commands longer
        self._authority = True  # ... or, as far as we know, a way to speak for others
        self._messages = 0
        self._end_transaction()

    def _end_transaction(self) -> None:
        self._mail = False
        self._recipients = 0
        self._utf8 = False
        self._traced = False

    # --- greeting and farewell ---------------------------------------------------------------

    def open(self) -> Script:
        if self.terms.lazy and not self.terms.implicit:
            self._welcomed = True
            yield Send(CLIENT, b"220 %s ESMTP\r\n" % self.terms.hostname)
            return
        greeting = yield from self._dial()
        self._welcomed = True
        yield Send(CLIENT, greeting.octets)
        if greeting.code != b"220":
            yield from self._turned_away(greeting)

    def _dial(self) -> Replying:
        greeting = yield from reached(self.terms, self.secured, self._hear_greeting)
        self._dialled = True
        if greeting.code != b"220":
            yield Note("backend-refused", (("text", greeting.octets),))
        return greeting

    def _hear_greeting(self) -> Replying:
        """The greeting, behind TLS and XCLIENT where they are agreed on.  A refusal is one, too, wherever it comes."""
        self._outstanding = GREETING
        self._introduced = b""
        greeting = yield from self._reply(Patience.GREETING, relayed=False)
        if greeting.code == b"220" and self.terms.backend_tls is BackendTLS.STARTTLS:
            yield from self._secure_backend()
        if greeting.code == b"220" and self.terms.identity is Identity.XCLIENT:
            greeting = yield from self._tell_client(greeting)
        if not greeting.refuses and greeting.code != b"220":
            raise ungreeted(greeting.octets)
        return greeting

    def _secure_backend(self) -> Script:
        """STARTTLS (RFC 3207)."""
        offered = yield from self._offered()
        if b"STARTTLS" not in offered:
            untrusted("the backend does not offer STARTTLS")
        reply = yield from self._say(b"STARTTLS", b"STARTTLS", relayed=False)
        if reply.refuses and reply.code not in NO_TLS:
            raise Refusal(reply)
        if reply.code != b"220" or len(reply.lines) > 1:
            untrusted(f"the backend refuses STARTTLS: {reply.octets[:80]!r}")
        yield StartTLS(BACKEND)
        self._introduced = b""

    def _offered(self) -> Generator[Request, Any, dict[bytes, bytes]]:
        """The backend's EHLO list, asked for by ourselves: keyword -> parameters.  Raises Refusal."""
        reply = yield from self._say(b"EHLO", b"EHLO " + self.terms.hostname, relayed=False)
        # 550 may mean both; 5.7.X is about who asks (RFC 3463 3.8).
        if reply.refuses and (reply.code not in NO_EHLO or b" 5.7." in reply.lines[0]):
            raise Refusal(reply)
        if reply.code != b"250":
            return {}
        self._introduced = b"EHLO"
        return {ehlo.keyword(line[4:]): line[4:].partition(b" ")[2] for line in reply.lines[1:]}

    def _tell_client(self, greeting: Reply) -> Replying:
        """XCLIENT; the reply to it is the greeting that counts (Postfix XCLIENT_README)."""
        offered = yield from self._offered()
        if b"XCLIENT" not in offered:
            refused("the backend does not offer XCLIENT to the gateway's address")
        for command in xclient.commands(self.terms, offered[b"XCLIENT"].upper().split()):
            greeting = yield from self._say(b"XCLIENT", command, relayed=False)
            if greeting.code == b"550":
                refused(f"the backend answers XCLIENT: {greeting.octets[:80]!r}")
            if greeting.code != b"220":
                break
            self._introduced = b""
        return greeting

    def _turned_away(self, greeting: Reply) -> Script:
        """The backend will not serve: the client may only QUIT (RFC 5321 3.1)."""
        if greeting.code == b"421":
            yield Close("backend-refused")
        self._silent = True
        while True:
            match (yield Await((BACKEND, CLIENT), Patience.COMMAND, COMMAND_LINE)):
                case Line(side=Side.BACKEND, text=text):
                    yield from self._unasked(text)
                case TooLong(side=Side.BACKEND):
                    _broken("a line without end")
                case Line(text=text) if text.upper().rstrip(sasl.BLANKS) == b"QUIT":
                    yield from self._quit(text.rstrip(sasl.BLANKS))
                case _:
                    yield from self._refuse(b"503 5.5.1 Only QUIT is allowed now")

    def goodbye(self, trouble: Trouble) -> bytes:
        host = self.terms.hostname
        match trouble:
            case _ if self._silent:
                return b""
            case Lost(side=Side.CLIENT) | Violation(key="tls-on-plaintext-port"):
                return b""
            case Unavailable(key="refused"):
                return busy(host)
            case Violation(key="http-on-mail-port"):
                return b"421 4.7.0 Protocol error\r\n"
            case _ if not self._welcomed:
                return unavailable(host)
            case Lost() if self._outstanding == b"QUIT":
                return b"221 2.0.0 %s closing connection\r\n" % host
            case Lost():
                return b"421 4.4.2 %s Connection to mail server lost\r\n" % host
            case Violation(side=Side.BACKEND):
                return b"421 4.3.0 %s Internal error\r\n" % host
            case Violation(key="too-many-failed-logins"):
                return b"421 4.7.0 %s Too many failed logins\r\n" % host
            case Violation(key="client-line-too-long"):
                return b"421 4.7.0 %s Line too long\r\n" % host
            case Violation():
                return b"421 4.7.0 %s Too many errors\r\n" % host
            case _ if trouble.key == "backend-timeout":
                return b"421 4.4.2 %s Timeout waiting for mail server\r\n" % host
            case _ if trouble.key == "client-timeout":
                return b"421 4.4.2 %s Timeout exceeded\r\n" % host
        return b"421 4.3.2 %s Service not available, closing transmission channel\r\n" % host

    def farewell(self) -> bytes:
        idle = self._dialled and not self._outstanding and not self._mail and not self._authenticated
        return b"QUIT\r\n" if idle else b""

    # --- commands ----------------------------------------------------------------------------

    def talk(self) -> Script:
        while True:
            sides = (BACKEND, CLIENT) if self._dialled else (CLIENT,)
            heard = yield Await(sides, Patience.COMMAND, sasl.REQUEST_LINE, self._layered)
            self._layered = False
            match heard:
                case Line(side=Side.CLIENT, text=text):
                    yield from self._command(text)
                case Line(text=text):
                    yield from self._unasked(text)
                case TooLong(side=Side.CLIENT):
                    yield from self._too_long()
                case TooLong():
                    _broken("a line without end")
                case Opaque():
                    if self._authority:
                        # Inside the layer the client could use what the backend grants to our address.
                        self._silent = True
                        raise Violation(CLIENT, "sasl-layer-unsupported")
                    return
                case _:
                    yield from self._refuse(b"500 5.5.2 Syntax error")

    def _command(self, text: bytes) -> Script:
        text = text.rstrip(sasl.BLANKS)  # tolerated (RFC 5321 4.1.1), and not sent on
        match = _COMMAND.match(text)
        if match is None:
            if text or self._closed or self._must_greet:
                yield from self._refuse(b"500 5.5.2 Syntax error")
            else:
                yield from self._relay(b"", text)
            return
        verb, argument = match[1].upper(), match[2] or b""
        if len(text) > self._longest(verb):
            yield from self._too_long()
        elif verb in WEB:
            raise Violation(CLIENT, "http-on-mail-port")
        elif extensions.refuses_command(verb):
            yield from self._refuse(b"502 5.5.1 Command not implemented")
        elif verb == b"BDAT":
            yield from self._bdat(argument)
        elif self._waits_for_tls(verb):
            yield from self._refuse(MUST_STARTTLS)
        elif self._must_greet and verb not in OPEN_BEFORE_EHLO:
            yield from self._refuse(b"503 5.5.1 Send EHLO/HELO first")
        else:
            yield from self._perform(verb, text, argument)

    @property
    def _withheld(self) -> frozenset[bytes]:
        """Extensions that do not work in this session, as things are."""
        withheld = set()
        if self.terms.received and not self._chunking:
            withheld.add(b"BURL")  # our trace field could not come before what the backend fetches
        if not (self.terms.backend_verified and self.secured is not None):
            withheld.add(b"REQUIRETLS")  # the promise would not hold on both legs (RFC 8689)
        return frozenset(withheld)

    def _refused(self, argument: bytes) -> bytes | None:
        return extensions.refused_parameter(argument, self._withheld)

    @property
    def _closed(self) -> bool:
        """TLS is required and not there yet."""
        return self.secured is None and self.terms.policy is Policy.REQUIRED

    def _longest(self, verb: bytes) -> int:
        if verb in ehlo.AUTH:
            return sasl.REQUEST_LINE
        return EXTENDED_LINE if self._lengthened and verb in (b"MAIL", b"RCPT") else COMMAND_LINE

    def _waits_for_tls(self, verb: bytes) -> bool:
        if self._closed:
            return verb not in OPEN_BEFORE_TLS
        return self.secured is None and self.terms.policy is Policy.AUTH_ONLY and verb in ehlo.AUTH

    def _perform(self, verb: bytes, text: bytes, argument: bytes) -> Script:
        match verb:
            case b"STARTTLS":
                yield from self._starttls(argument)
            case b"NOOP" if self._closed or not self._dialled:
                yield Send(CLIENT, b"250 2.0.0 OK\r\n")
            case b"RSET" if not self._dialled:
                yield Send(CLIENT, b"250 2.0.0 OK\r\n")
            case b"QUIT":
                yield from self._quit(text)
            case b"EHLO" if not self._dialled and self.secured is None:
                self._greet(argument, extended=True)
                lines = (b"250-%s" % self.terms.hostname, b"250-ENHANCEDSTATUSCODES", b"250 STARTTLS")
                yield Send(CLIENT, Reply(lines).octets)
            case b"EHLO":
                yield from self._ehlo(text, argument)
            case b"HELO":
                reply = yield from self._introduce(verb, text)
                yield from self._pass_on(reply)
                if reply.code == b"250":
                    self._greet(argument, extended=False)
            case b"AUTH" | b"X-EXPS":
                yield from self._auth(verb, text, argument)
            case b"MAIL" | b"RCPT" | b"SEND" | b"SOML" | b"SAML" if name := self._refused(argument):
                yield from self._refuse(b"555 5.5.4 Parameter %s is not supported" % name)
            case b"MAIL" | b"SEND" | b"SOML" | b"SAML":
                yield from self._mail_from(verb, text, argument)
            case b"RCPT":
                reply = yield from self._relay(verb, text)
                if reply.positive:
                    self._recipients += 1
                    if self._recipients == 1:
                        yield Proven()
            case b"DATA":
                yield from self._data(text)
            case b"BURL":
                yield from self._burl(text, argument)
            case b"RSET":
                reply = yield from self._relay(verb, text)
                if reply.code == b"250":
                    self._end_transaction()
            case b"VERB":
                reply = yield from self._relay(verb, text)
                self._verbose = self._verbose or reply.positive
            case _:
                yield from self._relay(verb, text)

    def _quit(self, text: bytes) -> Script:
        if not self._dialled:
            yield Send(CLIENT, b"221 2.0.0 %s closing connection\r\n" % self.terms.hostname)
        else:
            self._silent = False
            reply = yield from self._ask(b"QUIT", text)
            if reply.code in BAD_COMMAND:
                yield from self._pass_on(reply)  # `QUIT now`: the session goes on
                return
            yield Send(CLIENT, reply.octets)
        yield Close("quit")

    def _introduce(self, verb: bytes, text: bytes) -> Replying:
        """The client's EHLO or HELO, and the backend's reply.

        RFC 3207 4.2 makes the client say it again inside TLS.  A backend that takes it once gets a fresh connection.
        """
        if self._stale:
            yield from self._start_afresh()
        before = self._introduced
        reply = yield from self._ask(verb, text, relayed=False)
        again = before and (reply.code == b"503" or (reply.code in (b"500", b"502") and verb == before))
        if again and self._must_greet:  # for the greeting that STARTTLS makes necessary, and for no other
            yield Note(GREETS_ONCE, (("text", reply.lines[0]),), once=True)
            yield from self._start_afresh()
            reply = yield from self._ask(verb, text, relayed=False)
        if reply.code == b"250":
            self._introduced = verb
        return reply

    def _start_afresh(self) -> Script:
        """Leave the connection to the backend; the next command dials."""
        yield Send(BACKEND, b"QUIT\r\n")
        self._dialled = self._stale = False
        self._introduced = b""

    def _ehlo(self, text: bytes, name: bytes) -> Script:
        reply = yield from self._introduce(b"EHLO", text)
        complete = reply.code == b"250"
        if reply.code in NO_EHLO and name:
            # A backend from before ESMTP; without our help its clients would never learn of STARTTLS.
            older = yield from self._introduce(b"HELO", b"HELO " + name)
            if older.code == b"250":
                reply = Reply((b"250 " + older.lines[0][4:],))
        if reply.code != b"250":
            yield from self._pass_on(reply)
            return
        self._bad = 0
        self._greet(name, extended=True)
        lines = [line[4:] for line in reply.lines]
        offered = {ehlo.keyword(line) for line in lines[1:]}
        self._chunking = b"CHUNKING" in offered
        self._lengthened = any(map(extensions.lengthens, offered))
        self._authority = not complete or any(map(extensions.is_authority, offered))
        if any(name.endswith(sasl.PLUS) for name in ehlo.mechanisms(lines[1:])):
            yield Note("backend-channel-binding", (("cure", "disable channel binding on the backend"),), once=True)
        stage = ehlo.Stage.SECURE
        if self.secured is None:
            stage = ehlo.Stage.OPEN if self.terms.policy is Policy.OPTIONAL else ehlo.Stage.CLOSED
        told = ehlo.edit(lines, stage, self._withheld)
        if self._lacks_login(told):
            starttls = b"STARTTLS" in offered
            yield access.note(access.NO_LOGIN, DIALECT.name, self.terms, access.no_auth(starttls), starttls)
        if told != lines:
            reply = Reply((*(b"250-" + line for line in told[:-1]), b"250 " + told[-1]))
        yield Send(CLIENT, reply.octets)

    def _lacks_login(self, told: list[bytes]) -> bool:
        """Whether a client that has to log in is offered nothing to do so."""
        waits = self.terms.submission and self.secured is not None and not self._authenticated
        return waits and not access.smtp_logins(told[1:])

    def _greet(self, name: bytes, *, extended: bool) -> None:
        self._name = name.split(b" ")[0]
        self._extended = extended
        self._must_greet = False
        self._chunking = self._lengthened = False
        self._end_transaction()

    def _starttls(self, argument: bytes) -> Script:
        if argument:
            yield from self._refuse(b"501 5.5.4 Syntax: STARTTLS takes no parameters")
        elif self.secured is not None:
            yield from self._refuse(b"503 5.5.1 TLS already active")
        elif self._authenticated or self._mail:
            yield from self._refuse(b"503 5.5.1 STARTTLS not permitted after AUTH or during a mail transaction")
        else:
            self.secured = yield StartTLS(CLIENT, b"220 2.0.0 Ready to start TLS\r\n")
            # RFC 3207 4.2: what was said in the clear is forgotten.  The backend's own memory of it
            # ends with the EHLO that the client now owes.
            self._greet(b"", extended=False)
            self._must_greet = True
            self._verbose = False
            self._stale = bool(self._introduced) and GREETS_ONCE in self.terms.known

    def _auth(self, verb: bytes, text: bytes, argument: bytes) -> Script:
        mechanism, _, initial = argument.partition(b" ")
        if mechanism and (not sasl.MECHANISM.match(mechanism) or sasl.refused(mechanism)):
            yield from self._refuse(b"504 5.5.4 Unrecognized authentication type")
            return
        if not sasl.RESPONSE.match(initial) or sasl.cancels(initial):
            yield from self._refuse(b"501 5.5.2 Syntax error in authentication response")
            return
        if mechanism and not self.terms.may_log_in():
            yield TOO_MANY_FAILURES
            yield from self._refuse(b"454 4.7.0 Temporary authentication failure")
            return
        already, response = self._authenticated, b""
        given = bool(initial) and sasl.proves(mechanism, initial)
        reply = yield from self._ask(verb, text)
        while reply.code == b"334":
            yield Send(CLIENT, reply.octets)
            self._outstanding = verb
            answered = yield from self._response(verb)
            if answered is None:
                return
            response = answered
            given = given or sasl.proves(mechanism, response)
            reply = yield from self._ask(verb, response)
        accepted = reply.code == b"235"
        if mechanism:
            # 235 to a client that has said nothing of itself proves nothing, whatever made the backend say it.
            result = "failed" if not accepted else "ok" if given else "unproven"
            yield Note("auth", (("result", result), ("mechanism", mechanism.upper())))
        if accepted and given:
            self._authenticated = self._trusted = True
            self._layered = mechanism.upper() in sasl.LAYERED
            yield Proven()
        answer = self._pass_on(reply)
        # XOAUTH2 tells a bad token by a challenge, which clients cancel: that is a guess.
        guessed = mechanism and not already and (given or not sasl.cancels(response)) and reply.code.startswith(b"5")
        yield from self._logins.rejected(answer) if guessed else answer

    def _response(self, verb: bytes) -> Generator[Request, Any, bytes | None]:
        """The client's next line in a dialogue; None where the dialogue is over instead, and the client knows."""
        while True:
            match (yield Await((BACKEND, CLIENT), Patience.COMMAND, SASL_LINE)):
                case Line(side=Side.CLIENT, text=response) if sasl.RESPONSE.match(response):
                    return response
                case Line(side=Side.CLIENT):
                    yield from self._cancel(verb, b"501 5.5.2 Cannot decode response")
                    return None
                case Line(text=words):
                    yield from self._unasked(words)
                case TooLong(side=Side.BACKEND):
                    _broken("a line without end")
                case _:
                    yield from self._cancel(verb, b"500 5.5.6 Authentication exchange line is too long")
                    return None

    def _cancel(self, verb: bytes, refusal: bytes) -> Script:
        """Take the client's word back (RFC 4954 4): the backend must no longer wait for a response, or it
        would take the next command for one."""
        reply = yield from self._ask(verb, b"*", relayed=False)
        if reply.code[:1] not in b"45":
            _broken(f"a cancelled dialogue goes on: {reply.lines[0][:80]!r}")
        if reply.code == b"421":
            yield from self._pass_on(reply)
        yield from self._refuse(refusal)

    # --- messages ----------------------------------------------------------------------------

    def _mail_from(self, verb: bytes, text: bytes, argument: bytes) -> Script:
        utf8 = b"SMTPUTF8" in argument.upper().split()
        if self.terms.received and b"SIZE=" in argument.upper():
            # Its date is always as long.  What may still be added: `A` for an AUTH, and an empty line behind it.
            more = len(self._field(utf8=utf8, authenticated=True)) + 2
            greater = declared(text, more)
            text = greater if len(greater) <= self._longest(verb) else text
        reply = yield from self._relay(verb, text)
        if reply.positive:
            self._end_transaction()
            self._mail = True
            self._utf8 = utf8

    def _trace(self) -> bytes:
        """The Received: field of this transaction; empty if it has one, or is to have none."""
        if self._traced or not self.terms.received:
            return b""
        self._traced = True
        return self._field(utf8=self._utf8, authenticated=self._authenticated)

    def _field(self, *, utf8: bool, authenticated: bool) -> bytes:
        return received(
            name=self._name,
            client=self.terms.client,
            secured=self.secured,
            hostname=self.terms.hostname,
            keyword=protocol_keyword(
                extended=self._extended,
                utf8=utf8,
                tls=self.secured is not None,
                authenticated=authenticated,
            ),
            identity=f"{self.terms.session}-{self._messages + 1}",
            date=self.terms.now(),
        )

    def _data(self, text: bytes) -> Script:
        reply = yield from self._ask(b"DATA", text, Patience.GO_AHEAD)
        if reply.code != b"354":
            self._recipients = 0  # as far as we know: a chunk might now be taken for commands
            yield from self._pass_on(reply)
            return
        self._mail = True  # whatever the backend thinks: a message is under way
        yield Send(CLIENT, reply.octets)
        message = Message(self.terms.newlines, self._trace())
        yield Pass(CLIENT, message)
        if message.offended:
            yield Abort(BACKEND)
            yield Note("client-bare-newline")
            yield Send(CLIENT, b"521 5.5.2 Bare newline in message data\r\n")
            yield Close("client-bare-newline")
        yield from self._verdict(b"DATA")

    def _verdict(self, verb: bytes) -> Script:
        """What the backend says to a whole message.

        One rule stands above all others here: who has sent a message that the backend took is never told a failure, or
        would deliver it again.  So, other than everywhere else, nothing that surrounds a verdict ends the wait for it,
        and a verdict of which a line is there counts, although the rest is lost.
        """
        self._outstanding = verb
        lines: list[bytes] = []
        rest: bytes | None = None
        trouble: Trouble | None = None
        try:
            rest = yield from self._judged(lines)
        except Trouble as befallen:
            if not lines:
                raise
            trouble = befallen
        self._outstanding = b""
        reply = Reply((*lines[:-1], lines[-1][:3] + b" " + lines[-1][4:] if lines[-1][3:] else lines[-1]))
        self._end_transaction()
        if reply.positive:
            yield from self._delivered()
        yield from self._pass_on(reply)
        if trouble is not None:
            raise trouble
        if rest is not None:
            yield from self._unasked(rest)

    def _judged(self, lines: list[bytes]) -> Generator[Request, Any, bytes | None]:
        """Collect the lines of a verdict.  Returns the line behind it that ended it, if one did.

        A line with another code begins another reply: a positive one that had begun stands, a refusal gives way (421
        may come at any time, RFC 5321 3.8).  3yz is no verdict, and neither is what is no reply at all.
        """
        told = False
        octets = 0
        while True:
            heard = yield Await((BACKEND,), Patience.FINAL, REPLY_OCTETS)
            text = heard.text if isinstance(heard, Line) else b""
            if len(text) > REPLY_LINE:
                text = text[:COMMAND_LINE]  # its code is what counts, and clients take no such line
            match = _VERDICT.match(text)
            if match is None:
                if _ASIDE.match(text):
                    yield from self._aside(text, shown=not lines)
                elif not told:
                    told = True
                    yield Note("backend-protocol-error", (("detail", f"before its verdict: {text[:80]!r}"),))
                continue
            code, mark, words = match.groups()
            if lines and code != lines[0][:3]:
                if lines[0].startswith(b"2"):
                    return text
                lines.clear()
            lines.append(text if _REPLY.match(text) else code + (mark or b" ") + words)
            octets += len(text)
            if mark != b"-":
                return None
            if len(lines) >= REPLY_LINES or octets > REPLY_OCTETS:
                _broken("a reply without end")

    def _delivered(self) -> Script:
        self._messages += 1
        self._trusted = True
        yield Delivered()

    def _bdat(self, argument: bytes) -> Script:
        match _BDAT.match(argument):
            case None:  # the octets that follow cannot be told from commands
                yield Send(CLIENT, b"501 5.5.4 Syntax: BDAT count [LAST]\r\n")
                yield Close("client-bad-bdat")
            case found:
                yield from self._take_chunk(int(found[1]), last=found[2] is not None)

    def _take_chunk(self, octets: int, *, last: bool) -> Script:
        refusal = self._bdat_refusal()
        if refusal:
            if octets > SWALLOWED_CHUNK:
                yield Send(CLIENT, b"421 4.7.0 %s Too many errors\r\n" % self.terms.hostname)
                yield Close("client-refused-chunk")
            # RFC 3030 2: a refused chunk is still read, or it would be taken for commands.
            yield Pass(CLIENT, Counted(octets), forward=False)
            yield from self._refuse(refusal)
            return
        if octets > LARGEST_CHUNK:
            yield Send(CLIENT, b"552 5.3.4 Chunk exceeds the limit\r\n")
            yield Close("client-refused-chunk")
        header = b""
        if octets or last:
            header = self._trace()
        if header and octets:
            first = yield Peek(CLIENT)
            if first[:1] in (b" ", b"\t"):
                header += b"\r\n"
        self._outstanding = b"BDAT"
        yield Send(BACKEND, b"BDAT %d%s\r\n%s" % (octets + len(header), b" LAST" if last else b"", header))
        yield Pass(CLIENT, Counted(octets))
        if last:
            yield from self._verdict(b"BDAT")
        else:
            reply = yield from self._reply()
            if not reply.positive:
                # RFC 3030 2: only RSET is certain now, and a chunk might be taken for commands.
                self._recipients = 0
            yield from self._pass_on(reply)

    def _bdat_refusal(self) -> bytes:
        if self._closed:
            return MUST_STARTTLS
        if self._must_greet:
            return b"503 5.5.1 Send EHLO/HELO first"
        if not self._chunking:
            return b"502 5.5.1 Command not implemented"
        if not self._recipients:
            return b"503 5.5.1 Need RCPT command"
        return b""

    def _burl(self, text: bytes, argument: bytes) -> Script:
        """RFC 4468.  What the backend fetches comes behind our trace field, sent as a chunk."""
        if extensions.refuses_command(b"BURL", self._withheld):
            yield from self._refuse(b"502 5.5.1 Command not implemented")
            return
        header = self._trace() if self._recipients else b""
        if header:
            self._outstanding = b"BDAT"
            yield Send(BACKEND, b"BDAT %d\r\n%s" % (len(header), header))
            reply = yield from self._reply(relayed=False)
            if not reply.positive:
                self._recipients = 0
                yield from self._pass_on(reply)
                return
        if argument.upper().split()[-1:] == [b"LAST"]:
            if not self._dialled:
                yield from self._reach(b"BURL")
            yield Send(BACKEND, text + b"\r\n")
            yield from self._verdict(b"BURL")
            return
        reply = yield from self._ask(b"BURL", text, Patience.FINAL)
        if not reply.positive:
            self._recipients = 0  # the backend may have dropped the transaction: further chunks are swallowed
        yield from self._pass_on(reply)

    # --- the backend -------------------------------------------------------------------------

    def _reach(self, verb: bytes) -> Script:
        """Dial, which was put off; the backend then learns the client's name before anything else."""
        greeting = yield from self._dial()
        if greeting.code != b"220":
            code = b"421" if greeting.code == b"421" else b"554"
            yield Send(CLIENT, Reply(tuple(code + line[3:] for line in greeting.lines)).octets)
            yield from self._turned_away(greeting)
        if self._name and verb not in (b"EHLO", b"HELO"):
            reply = yield from self._introduce(b"EHLO", b"EHLO " + self._name)
            if reply.code != b"250":
                yield from self._introduce(b"HELO", b"HELO " + self._name)

    def _ask(self, verb: bytes, text: bytes, patience: Patience = Patience.REPLY, *, relayed: bool = True) -> Replying:
        """Send a line to the backend, which may have to be dialled, and read its whole reply."""
        if not self._dialled:
            yield from self._reach(verb)
        reply = yield from self._say(verb, text, patience, relayed=relayed)
        if reply.refuses and access.demands_tls(reply.octets, text):
            event = access.NO_LOGIN if verb in ehlo.AUTH else access.TLS_FIRST
            yield access.note(event, DIALECT.name, self.terms, reply.octets.rstrip())
        return reply

    def _say(self, verb: bytes, text: bytes, patience: Patience = Patience.REPLY, *, relayed: bool = True) -> Replying:
        self._outstanding = verb or b"?"
        yield Send(BACKEND, text + b"\r\n")
        return (yield from self._reply(patience, relayed=relayed))

    def _relay(self, verb: bytes, text: bytes) -> Replying:
        reply = yield from self._ask(verb, text)
        yield from self._pass_on(reply)
        return reply

    def _reply(
        self, patience: Patience = Patience.REPLY, *, relayed: bool = True, first: bytes | None = None
    ) -> Replying:
        """One whole reply (RFC 5321 4.2).  If it breaks off, a client that was to have it gets what
        came, and then nothing: words of ours would seem to be a part of it."""
        lines: list[bytes] = []
        octets = 0
        limit = SASL_LINE if self._outstanding in ehlo.AUTH else REPLY_LINE
        try:
            while True:
                if first is None:
                    heard = yield Await((BACKEND,), patience, limit)
                    text = heard.text if isinstance(heard, Line) else b""
                else:
                    text, first = first, None
                octets += len(text)
                if self._dialled and _ASIDE.match(text) and octets <= REPLY_OCTETS:
                    yield from self._aside(text, shown=relayed and not lines)
                    continue
                if self._replaces(text, lines):
                    lines, octets = [], len(text)
                if not _REPLY.match(text) or (lines and text[:3] != lines[0][:3]):
                    _broken(repr(text[:80]))
                if len(lines) >= REPLY_LINES or octets > REPLY_OCTETS:
                    _broken("a reply without end")
                lines.append(text)
                if text[3:4] != b"-":
                    break
        except Trouble:
            if lines and relayed:
                self._silent = True
                yield Send(CLIENT, Reply(tuple(lines)).octets)
            raise
        self._outstanding = b""
        return Reply(tuple(lines))

    def _aside(self, text: bytes, *, shown: bool) -> Script:
        """A line that is no reply.  Who has not asked for such lines would take it for one, and for a failure."""
        if shown and self._verbose:
            yield Send(CLIENT, text + b"\r\n")

    def _replaces(self, text: bytes, lines: list[bytes]) -> bool:
        """Whether this line begins a refusal that stands for the whole reply.

        postscreen says `220-` at once, and 5yz to whom it turns away then.  421 may come at any time (RFC 5321 3.8).
        """
        if not lines or text[:3] == lines[0][:3]:
            return False
        return text.startswith(b"421") or (self._outstanding == GREETING and text[:1] in (b"4", b"5"))

    def _pass_on(self, reply: Reply) -> Script:
        """The last reply to a command.  A go-ahead that was not asked for would have the backend read
        as data what we read as commands."""
        if reply.code[:1] == b"3":
            _broken(f"unasked: {reply.lines[0][:80]!r}")
        yield Send(CLIENT, reply.octets)
        if reply.code == b"421":
            yield Close("backend-closed", "421")
        if reply.code in BAD_COMMAND:
            self._count()
        elif reply.positive:
            self._bad = 0

    def _unasked(self, text: bytes) -> Script:
        """Only 421 may come unasked (RFC 5321 3.8).

        Another refusal is told and ends the session, too: the client would take it for the next reply.
        """
        if _ASIDE.match(text):
            yield from self._aside(text, shown=True)
            return
        reply = yield from self._reply(first=text, relayed=text[:1] in (b"4", b"5"))
        if not reply.refuses or reply.code in BAD_COMMAND:
            _broken(f"unasked: {text[:80]!r}")
        if reply.code != b"421":
            yield Note("backend-refused", (("text", reply.octets),))
            yield Send(CLIENT, reply.octets)
            yield Close("backend-refused")
        yield from self._pass_on(reply)

    # --- bad commands ------------------------------------------------------------------------

    def _refuse(self, reply: bytes) -> Script:
        self._count()
        yield Send(CLIENT, reply + b"\r\n")

    def _too_long(self) -> Script:
        yield Note("client-line-too-long")
        yield from self._refuse(b"500 5.5.2 Line too long")

    def _count(self) -> None:
        self._bad += 1
        if self._bad >= self.terms.bad_commands and not self._trusted:
            raise Violation(CLIENT, "too-many-bad-commands")


def _broken(detail: str) -> NoReturn:
    raise Violation(BACKEND, "backend-protocol-error", detail)


def unavailable(hostname: bytes) -> bytes:
    """In place of a greeting: no enhanced status code there (RFC 2034 4)."""
    return b"421 %s Service not available, closing transmission channel\r\n" % hostname


def busy(hostname: bytes) -> bytes:
    """In place of a greeting."""
    return b"421 4.7.0 %s Too many connections\r\n" % hostname


def listed(reply: bytes) -> list[bytes] | None:
    """The extensions in a reply to EHLO; None if it is none, or one to HELO after all."""
    lines = reply.splitlines()
    return [line[4:] for line in lines[1:]] if reply.startswith(b"250") else None


_LAST_LINE = re.compile(rb"^[0-9]{3}(?: .*)?\r\n\Z", re.MULTILINE)
_MASKED = re.compile(rb"X{4,}[A-Z]?\Z")
"""What a Cisco firewall ("fixup", ESMTP inspection) writes over an extension that it does not let through."""

DIALECT = Dialect(
    name="smtp",
    script=lambda terms: converse(SMTP(terms)),
    unavailable=unavailable,
    busy=busy,
    patience={
        # RFC 5321 4.5.3.2, each a little longer, so that the backend's own farewell wins.
        Patience.COMMAND: 330.0,
        Patience.REPLY: 330.0,
        Patience.GO_AHEAD: 150.0,
        Patience.DATA: 300.0,
        Patience.FINAL: 660.0,
        Patience.RELAY: 330.0,
    },
    policies={25: Policy.AUTH_ONLY},
    options=frozenset({"received", "newlines"}),
    identities=frozenset({"proxy-v1", "proxy-v2", "xclient"}),
    # Neither is registered; both are in use.
    alpn=(b"smtp", b"esmtp"),
    question=Question(
        lambda hostname: b"EHLO " + hostname, b"QUIT", listed, access.of_smtp, (b"MAIL FROM:<>", b"RSET")
    ),
    submission=frozenset({465, 587}),
    relays=True,
    probing=Probing(
        port=25,
        implicit=frozenset({465}),
        starttls=b"STARTTLS",
        injected=b"NOOP",
        complete=lambda command, heard: _LAST_LINE.search(heard) is not None,
        agrees=lambda reply: reply.startswith(b"220"),
        attempts=tuple(
            Attempt(b"AUTH " + name, lambda reply: reply.startswith((b"334", b"235")), b"*")
            for name in (b"PLAIN", b"LOGIN")
        ),
        masked=lambda capabilities: any(map(_MASKED.match, capabilities)),
    ),
)
