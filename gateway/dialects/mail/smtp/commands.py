"""SMTP, submission and submissions (RFC 5321, 6409, 8314), inspected from the greeting to the end.

SMTP is never spliced, save for a SASL security layer: STARTTLS must stay refused, the commands by
which our address could speak for others must stay out, EHLO may come again at any time, and the end
of each message must be the same for us and for the backend.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from typing import Any, Final

from ....protocol.framing import Lines
from ....protocol.vocabulary import (
    Await,
    Line,
    Opaque,
    Patience,
    Proven,
    Request,
    Script,
    Send,
    Side,
    StartTLS,
    TooLong,
    Unclean,
    Violation,
)
from ... import access, sasl, users
from ...base import Dialect, Policy, Question, Terms
from ...bounds import RESPONSES
from ...conversation import BACKEND, CHANNEL_BINDING, CLIENT, broken, converse, foreign, login_note
from ...masking import Verbs
from ...probing import Attempt, Probing
from ...reach import GREETS_ONCE
from .. import ehlo, extensions
from .exchange import COMMAND_LINE, FINAL, GO_AHEAD
from .messages import MUST_STARTTLS, Messages, begins_chunk
from .replies import LAST_LINE, MASKED, NO_EHLO, Reply, listed

_COMMAND: Final = re.compile(rb"([A-Za-z][A-Za-z0-9_-]*)(?:[ \t]+(.*))?\Z", re.DOTALL)
OPEN_BEFORE_TLS: Final = frozenset({b"NOOP", b"QUIT", b"STARTTLS"})
"""RFC 3207 4: exactly these, and EHLO, are not answered 530 where TLS is required."""
OPEN_BEFORE_HELLO: Final = frozenset({b"NOOP", b"RSET", b"QUIT", b"STARTTLS"})
Acting = Generator[Request, Any, object]
LINES: Final = Lines(sasl.REQUEST_LINE, commands=True)
LAYERED: Final = Lines(sasl.REQUEST_LINE, layered=True, commands=True)


class SMTP(Messages):
    """The client's commands."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._layered = False
        self._authority = True  # the backend offers, as far as we know, a way to speak for others

    def talk(self) -> Script:
        while True:
            sides = (BACKEND, CLIENT) if self.reached else (CLIENT,)
            heard = yield Await(sides, Patience.COMMAND, LAYERED if self._layered else LINES)
            self._layered = False
            if isinstance(heard, Line):
                yield from (self._command if heard.side is CLIENT else self._unasked)(heard.text)
                continue
            match heard:
                case TooLong(side=Side.BACKEND):
                    raise broken("a line without end")
                case TooLong(begin=begin) | Unclean(begin=begin) if begins_chunk(begin):
                    yield from self._bad_chunk()
                case TooLong():
                    yield from self._too_long()
                case Opaque():
                    if self._authority:
                        # Inside the layer the client could use what the backend grants to our address.
                        self.midway = True
                        raise Violation(CLIENT, "sasl-layer-unsupported")
                    return
                case _:
                    yield from self._refuse(b"500 5.5.2 Syntax error")

    def _command(self, text: bytes) -> Acting:
        text = text.rstrip(sasl.BLANKS)  # tolerated (RFC 5321 4.1.1), and not sent on
        match = _COMMAND.match(text)
        if match is None:
            if begins_chunk(text):
                return self._bad_chunk()
            if text or self.closed or self._must_greet:
                return self._refuse(b"500 5.5.2 Syntax error")
            return self._relay(b"", text)
        verb, argument = match[1].upper(), match[2] or b""
        if len(text) > COMMAND_LINE and len(text) > self._longest(verb):
            return self._bad_chunk() if verb == b"BDAT" else self._too_long()
        if verb not in _ACTS and (unknown := self._unknown(verb)):
            return self._refuse(unknown)
        if verb == b"BDAT":
            return self._bdat(argument)
        if self.secured is None and self._waits_for_tls(verb):
            return self._refuse_until_tls()
        if self._must_greet and verb not in (self.hello, self.older) and verb not in OPEN_BEFORE_HELLO:
            return self._refuse(self.greet_first)
        return self._perform(verb, text, argument)

    def _unknown(self, verb: bytes) -> bytes:
        """The refusal of a command that there is not; empty for others."""
        return b"502 5.5.1 Command not implemented" if extensions.refuses_command(verb) else b""

    def _waits_for_tls(self, verb: bytes) -> bool:
        """Of a session that is not inside TLS."""
        if self.closed:
            return verb != self.hello and verb not in OPEN_BEFORE_TLS
        return self.terms.policy is Policy.AUTH_ONLY and verb in ehlo.AUTH

    def _refuse_until_tls(self) -> Script:
        yield from self._refuse((yield from self.first(MUST_STARTTLS)))

    def _perform(self, verb: bytes, text: bytes, argument: bytes) -> Acting:
        if verb == self.hello:
            return self._hello(text, argument)
        if verb == self.older:
            return self._helo(verb, text, argument)
        act = _ACTS.get(verb)
        return self._relay(verb, text) if act is None else act(self, verb, text, argument)

    def _hello(self, text: bytes, argument: bytes) -> Script:
        if self.reached or self.secured is not None:
            yield from self._ehlo(text, argument)
            return
        self._greet(argument, extended=True)
        lines = (self.terms.hostname, *self.own_extensions)
        yield Send(CLIENT, Reply((*(b"250-" + line for line in lines), b"250 STARTTLS")).octets)

    def _helo(self, verb: bytes, text: bytes, argument: bytes) -> Script:
        reply = yield from self._introduce(verb, text)
        yield from self._pass_on(reply)
        if reply.code == b"250":
            self._greet(argument, extended=False)

    def _noop(self, verb: bytes, text: bytes, argument: bytes) -> Script:
        if self.closed or not self.reached:
            yield Send(CLIENT, b"250 2.0.0 OK\r\n")
        else:
            yield from self._relay(verb, text)

    def _rset(self, verb: bytes, text: bytes, argument: bytes) -> Script:
        if not self.reached:
            yield Send(CLIENT, b"250 2.0.0 OK\r\n")
            return
        reply = yield from self._relay(verb, text)
        if reply.code == b"250":
            self._end_transaction()

    def _begin_mail(self, verb: bytes, text: bytes, argument: bytes) -> Acting:
        name = extensions.refused_parameter(argument, self._withheld)
        return self._refuse_parameter(name) if name else self._mail_from(verb, text, argument)

    def _rcpt(self, verb: bytes, text: bytes, argument: bytes) -> Script:
        if name := extensions.refused_parameter(argument, self._withheld):
            yield from self._refuse_parameter(name)
            return
        reply = yield from self._relay(verb, text)
        if reply.positive:
            self._recipients += 1
            if self._recipients == 1:
                yield Proven()

    def _refuse_parameter(self, name: bytes) -> Script:
        return self._refuse(b"555 5.5.4 Parameter %s is not supported" % name)

    def _verb(self, verb: bytes, text: bytes, argument: bytes) -> Script:
        reply = yield from self._relay(verb, text)
        self._verbose = self._verbose or reply.positive

    def _ehlo(self, text: bytes, name: bytes) -> Script:
        reply = yield from self._introduce(self.hello, text)
        complete = reply.code == b"250"
        if reply.code in NO_EHLO and name and self.older:
            # A backend from before ESMTP; without our help its clients would never learn of STARTTLS.
            older = yield from self._introduce(self.older, self.older + b" " + name)
            if older.code == b"250":
                reply = Reply((b"250 " + older.lines[0][4:],))
        if reply.code != b"250":
            yield from self._pass_on(reply)
            return
        self.bad = 0
        self._greet(name, extended=True)
        lines = tuple([line[4:] for line in reply.lines[1:]])
        offer = ehlo.offer(lines)
        self._chunking = b"CHUNKING" in offer.keywords
        self._lengthened = offer.lengthens
        self._authority = not complete or offer.authority
        if offer.binds:
            yield CHANNEL_BINDING
        told = ehlo.edited(lines, self.stage, self._withheld)
        if self._lacks_login(told):
            starttls = b"STARTTLS" in offer.keywords
            yield access.note(access.NO_LOGIN, self.protocol, self.terms, access.no_auth(starttls), starttls)
        if told != lines:
            told = (reply.lines[0][4:], *told)
            reply = Reply((*[b"250-" + line for line in told[:-1]], b"250 " + told[-1]))
        yield Send(CLIENT, reply.octets)

    def _lacks_login(self, told: tuple[bytes, ...]) -> bool:
        """Whether a client that has to log in is offered nothing to do so."""
        waits = self.terms.submission and self.secured is not None and not self._authenticated
        return waits and not access.smtp_logins(told)

    def _greet(self, name: bytes, *, extended: bool) -> None:
        self._name = name.split(b" ")[0]
        self._extended = extended
        self._must_greet = False
        self._chunking = self._lengthened = False
        self._end_transaction()

    def _starttls(self, verb: bytes, text: bytes, argument: bytes) -> Script:
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
        if not argument:
            yield from self._relay(verb, text)  # the backend's to refuse
            return
        claim = users.Claim.asked(
            argument, b"501 5.5.2 Syntax error in AUTH", b"504 5.5.4 Unrecognized authentication type"
        )
        if isinstance(claim, bytes):
            yield from self._refuse(claim)
            return
        if not (yield from self.may_log_in()):
            yield from self._refuse(b"454 4.7.0 Temporary authentication failure")
            return
        already = self._authenticated
        reply = yield from self._ask(verb, text)
        while reply.code == b"334":
            yield Send(CLIENT, reply.octets)
            self._outstanding = verb
            response = yield from self._response(verb)
            if response is None:
                return
            claim.hear(response)
            reply = yield from self._ask(verb, response)
        accepted = reply.code == b"235"
        # 235 to a client that has said nothing of itself proves nothing, whatever made the backend say it.
        result = "failed" if not accepted else "ok" if claim.given else "unproven"
        yield login_note(claim.mechanism, result, claim.user)
        if accepted and claim.given:
            self._authenticated = self.trusted = True
            self._layered = claim.mechanism in sasl.LAYERED
            yield Proven()
        answer = self._pass_on(reply)
        # XOAUTH2 tells a bad token by a challenge, which clients cancel: that is a guess.
        guessed = not already and claim.tried and reply.code.startswith(b"5")
        yield from self.rejected(answer) if guessed else answer

    def _response(self, verb: bytes) -> Generator[Request, Any, bytes | None]:
        """The client's next line in a dialogue; None where the dialogue is over instead, and the client knows."""
        while True:
            match (yield Await((BACKEND, CLIENT), Patience.COMMAND, RESPONSES)):
                case Line(side=Side.CLIENT, text=response) if sasl.RESPONSE.match(response):
                    return response
                case Line(side=Side.CLIENT):
                    yield from self._cancel(verb, b"501 5.5.2 Cannot decode response")
                    return None
                case Line(text=words):
                    yield from self._unasked(words)
                case TooLong(side=Side.BACKEND):
                    raise broken("a line without end")
                case _:
                    yield from self._cancel(verb, b"500 5.5.6 Authentication exchange line is too long")
                    return None

    def _cancel(self, verb: bytes, refusal: bytes) -> Script:
        """Take the client's word back (RFC 4954 4): the backend must no longer wait for a response, or it
        would take the next command for one."""
        reply = yield from self._ask(verb, b"*", relayed=False)
        if reply.code[:1] not in b"45":
            raise broken(f"a cancelled dialogue goes on: {reply.lines[0][:80]!r}")
        if reply.code == b"421":
            yield from self._pass_on(reply)
        yield from self._refuse(refusal)


_ACTS: Final[Mapping[bytes, Callable[[SMTP, bytes, bytes, bytes], Acting]]] = {
    b"STARTTLS": SMTP._starttls,
    b"NOOP": SMTP._noop,
    b"RSET": SMTP._rset,
    b"QUIT": lambda smtp, verb, text, argument: smtp._quit(text),
    b"AUTH": SMTP._auth,
    b"X-EXPS": SMTP._auth,
    b"MAIL": SMTP._begin_mail,
    b"SEND": SMTP._begin_mail,
    b"SOML": SMTP._begin_mail,
    b"SAML": SMTP._begin_mail,
    b"RCPT": SMTP._rcpt,
    b"DATA": lambda smtp, verb, text, argument: smtp._data(text),
    b"BURL": lambda smtp, verb, text, argument: smtp._burl(text, argument),
    b"VERB": SMTP._verb,
}
"""What is done for a command beside EHLO, HELO and BDAT.  Others are passed on, and so is the reply."""

PROBING: Final = Probing(
    port=25,
    implicit=frozenset({465}),
    starttls=b"STARTTLS",
    injected=b"NOOP",
    complete=lambda command, heard: LAST_LINE.search(heard) is not None,
    agrees=lambda reply: reply.startswith(b"220"),
    attempts=tuple(
        Attempt(b"AUTH " + name, lambda reply: reply.startswith((b"334", b"235")), b"*")
        for name in (b"PLAIN", b"LOGIN")
    ),
    masked=lambda capabilities: any(map(MASKED.match, capabilities)),
)
SHOWN: Final = Verbs(
    whole=frozenset(b"EHLO HELO LHLO MAIL RCPT DATA BDAT RSET NOOP QUIT STARTTLS VRFY EXPN HELP ETRN".split()),
    first=ehlo.AUTH,
)
TRIES: Final = (b"MAIL FROM:<>", b"RSET")

DIALECT = Dialect(
    name="smtp",
    script=lambda terms: converse(SMTP(terms)),
    unavailable=SMTP.unavailable,
    busy=SMTP.busy,
    patience={
        # RFC 5321 4.5.3.2, each a little longer, so that the backend's own farewell wins.
        Patience.COMMAND: 330.0,
        Patience.REPLY: 330.0,
        GO_AHEAD: 150.0,
        Patience.DATA: 300.0,
        FINAL: 660.0,
        Patience.SPLICE: 330.0,
    },
    policies={25: Policy.AUTH_ONLY},
    options={"received": ("yes", "no"), "newlines": ("normalize", "reject", "pass")},
    foreign=foreign("http-client", web=True),
    identities=frozenset({"proxy-v1", "proxy-v2", "xclient"}),
    # Neither is registered; both are in use.
    alpn=(b"smtp", b"esmtp"),
    question=Question(lambda hostname: b"EHLO " + hostname, b"QUIT", listed, access.of_smtp, TRIES),
    submission=frozenset({465, 587}),
    relays=True,
    shown=SHOWN,
    probing=PROBING,
)
