"""The way to an SMTP server and its greeting, and the end of a session."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from ....protocol.framing import Lines
from ....protocol.vocabulary import (
    Await,
    Close,
    Line,
    Lost,
    Note,
    Patience,
    Request,
    Script,
    Send,
    Side,
    StartTLS,
    TooLong,
    Trouble,
    Violation,
)
from ... import sasl
from ...base import BackendTLS, Identity, Terms
from ...conversation import BACKEND, CLIENT, broken
from ...reach import GREETS_ONCE, RefusedByBackend, refused, ungreeted, untrusted
from .. import ehlo, xclient
from .exchange import COMMAND_LINE, GREETING, Exchange
from .replies import BAD_COMMAND, NO_EHLO, NO_TLS, Reply, Replying

SHORT_LINES = Lines(COMMAND_LINE)


class Greeting(Exchange):
    """Dials the backend, on a lazy listener when the first command needs it, and introduces the client."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._introduced = b""  # the verb of the introduction, as the backend has taken it on this connection
        self._stale = False  # ... and is known to take none after it
        self._must_greet = False
        self._name = b""  # what the client called itself since TLS

    @property
    def own_greeting(self) -> bytes:
        return b"220 %s ESMTP\r\n" % self.terms.hostname

    def pass_greeting(self, greeting: Reply) -> Script:
        yield Send(CLIENT, greeting.octets)
        if greeting.code != b"220":
            yield from self._turned_away(greeting)

    def dial(self) -> Replying:
        greeting: Reply = yield from super().dial()
        if greeting.code != b"220":
            yield Note("backend-refused", (("text", greeting.octets),))
        return greeting

    def hear_greeting(self) -> Replying:
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
        reply = yield from self._say(b"STARTTLS", b"STARTTLS")
        if reply.refuses and reply.code not in NO_TLS:
            raise RefusedByBackend(reply)
        if reply.code != b"220" or len(reply.lines) > 1:
            untrusted(f"the backend refuses STARTTLS: {reply.octets[:80]!r}")
        yield StartTLS(BACKEND)
        self._introduced = b""

    def _offered(self) -> Generator[Request, Any, dict[bytes, bytes]]:
        """The backend's list of extensions, asked for by ourselves: keyword -> parameters.  Raises RefusedByBackend."""
        reply = yield from self._say(self.hello, self.hello + b" " + self.terms.hostname)
        # 550 may mean both; 5.7.X is about who asks (RFC 3463 3.8).
        if reply.refuses and (reply.code not in NO_EHLO or b" 5.7." in reply.lines[0]):
            raise RefusedByBackend(reply)
        if reply.code != b"250":
            return {}
        self._introduced = self.hello
        return {ehlo.keyword(line[4:]): line[4:].partition(b" ")[2] for line in reply.lines[1:]}

    def _tell_client(self, greeting: Reply) -> Replying:
        """XCLIENT; the reply to it is the greeting that counts (Postfix XCLIENT_README)."""
        offered = yield from self._offered()
        if b"XCLIENT" not in offered:
            refused("the backend does not offer XCLIENT to the gateway's address")
        for command in xclient.commands(self.terms, offered[b"XCLIENT"].upper().split()):
            greeting = yield from self._say(b"XCLIENT", command)
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
        self.midway = True
        while True:
            match (yield Await((BACKEND, CLIENT), Patience.COMMAND, SHORT_LINES)):
                case Line(side=Side.BACKEND, text=text):
                    yield from self._unasked(text)
                case TooLong(side=Side.BACKEND):
                    raise broken("a line without end")
                case Line(text=text) if text.upper().rstrip(sasl.BLANKS) == b"QUIT":
                    yield from self._quit(text.rstrip(sasl.BLANKS))
                case _:
                    yield from self._refuse(b"503 5.5.1 Only QUIT is allowed now")

    def _quit(self, text: bytes) -> Script:
        if not self.reached:
            yield Send(CLIENT, b"221 2.0.0 %s closing connection\r\n" % self.terms.hostname)
        else:
            self.midway = False
            reply = yield from self._ask(b"QUIT", text)
            if reply.code in BAD_COMMAND:
                yield from self._pass_on(reply)  # `QUIT now`: the session goes on
                return
            yield Send(CLIENT, reply.octets)
        yield Close("quit")

    def _introduce(self, verb: bytes, text: bytes) -> Replying:
        """The client's introduction, and the backend's reply.

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
        self.reached = self._stale = False
        self._introduced = b""

    def _reach(self, verb: bytes) -> Script:
        """Dial, which was put off; the backend then learns the client's name before anything else."""
        greeting = yield from self.dial()
        if greeting.code != b"220":
            code = b"421" if greeting.code == b"421" else b"554"
            yield Send(CLIENT, Reply(tuple(code + line[3:] for line in greeting.lines)).octets)
            yield from self._turned_away(greeting)
        if self._name and verb not in (self.hello, self.older):
            reply = yield from self._introduce(self.hello, self.hello + b" " + self._name)
            if reply.code != b"250" and self.older:
                yield from self._introduce(self.older, self.older + b" " + self._name)

    def goodbye(self, trouble: Trouble) -> bytes:
        host = self.terms.hostname
        match trouble:
            case Violation(key="http-client"):
                return b"421 4.7.0 Protocol error\r\n"
            case _ if not self.welcomed:
                return self.unavailable(host)
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

    @staticmethod
    def unavailable(hostname: bytes) -> bytes:
        """No enhanced status code here (RFC 2034 4)."""
        return b"421 %s Service not available, closing transmission channel\r\n" % hostname

    @staticmethod
    def busy(hostname: bytes) -> bytes:
        return b"421 4.7.0 %s Too many connections\r\n" % hostname
