"""The backend's side of an FTP session: greeting, replies, and what is outstanding."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from ....protocol.vocabulary import (
    Await,
    Close,
    Expired,
    Line,
    Lost,
    Patience,
    Request,
    Script,
    Send,
    Side,
    StartTLS,
    Trouble,
    Violation,
)
from ... import access
from ...base import BackendTLS, Terms
from ...bounds import REPLIES, REPLY_LINES, REPLY_OCTETS
from ...conversation import BACKEND, CLIENT, ServerFirst, broken
from ...reach import ungreeted, untrusted
from ...replies import Reply, Replying
from .words import BAD_COMMAND, LEAVES, REPLY, is_last

UNAVAILABLE: Final = b"421 Service not available, closing control connection\r\n"

Asking = Generator[Request, Any, bytes]


class Exchange(ServerFirst):
    """Asks the backend and passes its replies on."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._outstanding = False  # the backend owes a reply
        self._fresh = True  # the backend remembers nothing of this session
        self._data_secured = False  # it has been told how

    @property
    def own_greeting(self) -> bytes:
        return b"220 %s ready\r\n" % self.terms.hostname

    def pass_greeting(self, greeting: Reply) -> Script:
        yield Send(CLIENT, greeting.octets)
        if greeting.code != b"220":
            yield from self.turned_away(greeting.octets)

    def hear_greeting(self) -> Replying:
        """The greeting, behind TLS where it is agreed on.  The server does not greet again inside (RFC 4217 4)."""
        greeting = yield from self._collected(Patience.GREETING)
        while greeting.code == b"120":  # RFC 959 5.4: not yet
            greeting = yield from self._collected(Patience.GREETING)
        if greeting.code != b"220" and not greeting.refuses:
            raise ungreeted(greeting.octets)
        self._data_secured = self.terms.backend_tls is BackendTLS.NONE
        if greeting.code == b"220" and self.terms.backend_tls is BackendTLS.STARTTLS:
            reply = yield from self._say(b"AUTH TLS")
            if reply.code == LEAVES:
                return reply
            if reply.code != b"234" or len(reply.lines) > 1:
                untrusted(f"the backend refuses AUTH TLS: {reply.octets[:80]!r}")
            yield StartTLS(BACKEND)
        return greeting

    def _secure_data(self) -> Script:
        """TLS on the data connections with the backend, where its control connection has it (RFC 4217 9)."""
        if self._data_secured:
            return
        self._data_secured = True
        for command in (b"PBSZ 0", b"PROT P"):
            reply = yield from self._say(command)
            if not reply.positive:
                untrusted(f"the backend refuses {command.decode('ascii')}: {reply.octets[:80]!r}")

    def _reach(self) -> Script:
        """Dial, if that was put off; the greeting is not the client's, it has had ours."""
        if not self.reached:
            greeting = yield from self.dial()
            if greeting.code != b"220":
                yield from self.pass_greeting(greeting)

    def goodbye(self, trouble: Trouble) -> bytes:
        match trouble:
            case Violation(key="too-many-bad-commands"):
                return b"421 Too many invalid commands\r\n"
            case Violation(key="too-many-failed-logins"):
                return b"421 Too many failed logins\r\n"
            case Violation(side=Side.CLIENT, key="client-line-too-long"):
                return b"421 Line too long\r\n"
            case Violation(side=Side.CLIENT):
                return b"421 Invalid protocol\r\n"
            case Expired(side=Side.CLIENT):
                return b"421 Timeout\r\n"
            case Lost() | Expired() if self.welcomed:
                return b"421 Connection to FTP server lost\r\n"
        return UNAVAILABLE

    @staticmethod
    def unavailable(hostname: bytes) -> bytes:
        """RFC 959 5.4."""
        return UNAVAILABLE

    @staticmethod
    def busy(hostname: bytes) -> bytes:
        """RFC 959 5.4."""
        return b"421 Too many connections\r\n"

    def farewell(self) -> bytes:
        return b"QUIT\r\n" if self.reached and not self._outstanding and not self.midway else b""

    # --- replies ---

    def _ask(self, line: bytes) -> Replying:
        """Send a line to the backend, which may have to be dialled, and hear its whole reply."""
        self._outstanding = True
        yield from self._reach()
        reply = yield from self._say(line)
        if reply.refuses and access.demands_tls(reply.octets, line):
            yield access.note(access.NO_LOGIN, "ftp", self.terms, reply.octets.rstrip())
        return reply

    def _say(self, line: bytes) -> Replying:
        self._outstanding = True
        yield Send(BACKEND, line + b"\r\n")
        reply = yield from self._collected(Patience.REPLY)
        self._outstanding = False
        return reply

    def _collected(self, patience: Patience) -> Replying:
        """One whole reply that the client has not seen."""
        lines: list[bytes] = []
        octets = 0
        while True:
            heard = yield Await((BACKEND,), patience, REPLIES)
            text = heard.text if isinstance(heard, Line) else b""
            octets += len(text)
            if (not lines and not REPLY.match(text)) or not isinstance(heard, Line):
                raise broken(text)
            if len(lines) >= REPLY_LINES or octets > REPLY_OCTETS:
                raise broken(b"a reply without end")
            lines.append(text)
            if is_last(lines[0], text):
                return Reply(tuple(lines))

    def _relayed(self, first: bytes | None = None) -> Asking:
        """One whole reply, of which the client gets each line as it comes: that to STAT lists a directory.  Returns the
        first line."""
        if first is None:
            first = (yield from self.hear((BACKEND,), Patience.REPLY, REPLIES)).text
        assert first is not None
        if not REPLY.match(first):
            raise broken(first)
        text = first
        while True:
            self.midway = not is_last(first, text)
            yield Send(CLIENT, text + b"\r\n")
            if not self.midway:
                return first
            text = (yield from self.hear((BACKEND,), Patience.REPLY, REPLIES)).text

    def _pass_on(self, reply: Reply) -> Script:
        """A reply that is the client's after all."""
        yield Send(CLIENT, reply.octets)
        yield from self._settle(reply.code)

    def _settle(self, code: bytes, *, login: bool = False) -> Script:
        """The client has the last reply to a command, with this code."""
        if code == LEAVES:
            yield Close("backend-closed", "421")
        if code in BAD_COMMAND:
            self.count()
        elif code[:1] == b"2" and not login:
            self.bad = 0

    def _unasked(self, text: bytes) -> Script:
        """Only 421 may come at any time (RFC 959 5.4)."""
        if text[:3] != LEAVES:
            raise broken(text)
        yield from self._relayed(text)
        yield from self._settle(LEAVES)

    def _refuse(self, reply: bytes) -> Script:
        yield Send(CLIENT, reply + b"\r\n")
        self.count()
