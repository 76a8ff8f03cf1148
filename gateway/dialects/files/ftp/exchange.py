"""The backend's side of an FTP session: greeting, replies, and what is outstanding."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from ....protocol.vocabulary import (
    Await,
    Close,
    Line,
    Patience,
    Request,
    Script,
    Send,
    StartTLS,
)
from ...asking import Asking
from ...base import BackendTLS, Terms
from ...bounds import REPLIES
from ...conversation import BACKEND, CLIENT, broken, within_bounds
from ...reach import ungreeted, untrusted
from ...replies import Reply, Replying
from .words import BAD_COMMAND, LEAVES, REPLY, is_last

UNAVAILABLE: Final = b"421 Service not available, closing control connection\r\n"


class Exchange(Asking):
    """Asks the backend and passes its replies on."""

    protocol = "ftp"
    leaves = LEAVES
    idle_words = b"421 Timeout\r\n"
    lost_words = b"421 Connection to FTP server lost\r\n"

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
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

    unavailable_words = UNAVAILABLE  # RFC 959 5.4
    busy_words = b"421 Too many connections\r\n"

    # --- replies ---

    def _ask(self, line: bytes) -> Replying:
        """Send a line to the backend, and hear its whole reply."""
        return (yield from self.put(line, self._reply(), lambda reply: reply.octets.rstrip() if reply.refuses else b""))

    def _say(self, line: bytes) -> Replying:
        """The same on our own behalf."""
        yield Send(BACKEND, line + b"\r\n")
        return (yield from self._reply())

    def _reply(self) -> Replying:
        self._outstanding = True
        reply = yield from self._collected(Patience.REPLY)
        self._outstanding = False
        return reply

    def _collected(self, patience: Patience, first: bytes | None = None) -> Replying:
        """One whole reply that the client has not seen.  One that begins with 1 is not the last (RFC 959 4.2.1)."""
        lines: list[bytes] = []
        octets = 0
        while True:
            if first is None:
                heard = yield Await((BACKEND,), patience, REPLIES)
                text = heard.text if isinstance(heard, Line) else None
            else:
                text, first = first, None
            if text is None or not (lines or REPLY.match(text)):
                raise broken(text or "a line without end")
            octets += len(text)
            within_bounds(len(lines), octets)
            lines.append(text)
            if is_last(lines[0], text):
                if lines[0][:1] != b"1":
                    return Reply(tuple(lines))
                lines = []

    def _relayed(self, first: bytes | None = None) -> Generator[Request, Any, bytes]:
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

    def _settle(self, code: bytes) -> Script:
        """The client has the last reply to a command, with this code."""
        if code == LEAVES:
            yield Close("backend-closed", "421")
        if code in BAD_COMMAND:
            self.count()
        elif code[:1] == b"2":
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
