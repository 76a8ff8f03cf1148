"""What is asked of an SMTP server, and its replies on their way to the client."""

from __future__ import annotations

from abc import abstractmethod
from typing import Final

from ....protocol.vocabulary import Await, Close, Line, Note, Patience, Script, Send, Trouble
from ... import access
from ...base import Terms
from ...bounds import REPLIES, RESPONSES
from ...conversation import BACKEND, CLIENT, ServerFirst, broken, within_bounds
from .. import ehlo
from .replies import ASIDE, BAD_COMMAND, REPLY, Reply, Replying

COMMAND_LINE: Final = 510
"""RFC 5321 4.5.3.1.4: 512 with CRLF.  A backend that splits longer lines would take the tail for a command."""
GREETING: Final = b"greeting"
"""The greeting is outstanding, no command."""
GO_AHEAD: Final = Patience("go-ahead")
"""The backend's permission to send a message (354)."""
FINAL: Final = Patience("final")
"""The backend's verdict on a message (RFC 5321 4.5.3.2.6: never shorter than 10 minutes)."""


class Exchange(ServerFirst):
    """Asks the backend and passes its replies on."""

    protocol = "smtp"
    hello = b"EHLO"
    """By what a client introduces itself to hear of extensions, ..."""
    older = b"HELO"
    """... and to a server that knows no extensions; empty where the protocol always had them."""
    own_extensions: tuple[bytes, ...] = (b"ENHANCEDSTATUSCODES",)
    """What a lazy listener offers before TLS."""
    greet_first = b"503 5.5.1 Send EHLO/HELO first"
    """The answer to a client that has not introduced itself since TLS began."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._outstanding = b""  # the verb that the backend owes a reply to
        self._verbose = False  # the client has asked for what comes before final replies

    @abstractmethod
    def _reach(self, verb: bytes) -> Script:
        """Dial, which was put off; the next command is `verb`."""

    def _ask(self, verb: bytes, text: bytes, patience: Patience = Patience.REPLY, *, relayed: bool = True) -> Replying:
        """Send a line to the backend, which may have to be dialled, and read its whole reply."""
        if not self.reached:
            yield from self._reach(verb)
        self._outstanding = verb or b"?"
        yield Send(BACKEND, text + b"\r\n")
        reply = yield from self._reply(patience, relayed=relayed)
        if reply.refuses and access.demands_tls(reply.octets, text):
            event = access.NO_LOGIN if verb in ehlo.AUTH else access.TLS_FIRST
            yield access.note(event, self.protocol, self.terms, reply.octets.rstrip())
        return reply

    def _say(self, verb: bytes, text: bytes) -> Replying:
        """The same on our own behalf, while the backend is being reached."""
        self._outstanding = verb
        yield Send(BACKEND, text + b"\r\n")
        return (yield from self._reply(relayed=False))

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
        framing = RESPONSES if self._outstanding in ehlo.AUTH else REPLIES
        try:
            while True:
                if first is None:
                    heard = yield Await((BACKEND,), patience, framing)
                    text = heard.text if isinstance(heard, Line) else b""
                else:
                    text, first = first, None
                octets += len(text)
                if not REPLY.match(text):
                    if not self.reached or not ASIDE.match(text):
                        raise broken(text)
                    within_bounds(0, octets)
                    yield from self._aside(text, shown=relayed and not lines)
                    continue
                if lines:
                    if text[:3] != lines[0][:3]:
                        if not self._replaces(text):
                            raise broken(text)
                        lines, octets = [], len(text)
                    within_bounds(len(lines), octets)
                lines.append(text)
                if text[3:4] != b"-":
                    break
        except Trouble:
            if lines and relayed:
                self.midway = True
                yield Send(CLIENT, Reply(tuple(lines)).octets)
            raise
        self._outstanding = b""
        return Reply(tuple(lines))

    def _aside(self, text: bytes, *, shown: bool) -> Script:
        """A line that is no reply.  Who has not asked for such lines would take it for one, and for a failure."""
        if shown and self._verbose:
            yield Send(CLIENT, text + b"\r\n")

    def _replaces(self, text: bytes) -> bool:
        """Whether this line, with another code than those before it, begins a refusal that stands for the whole reply.

        postscreen says `220-` at once, and 5yz to whom it turns away then.  421 may come at any time (RFC 5321 3.8).
        """
        return text.startswith(b"421") or (self._outstanding == GREETING and text[:1] in (b"4", b"5"))

    def _pass_on(self, reply: Reply) -> Script:
        """The last reply to a command.  A go-ahead that was not asked for would have the backend read
        as data what we read as commands."""
        code = reply.code
        if code[:1] == b"3":
            raise broken(f"unasked: {reply.lines[0][:80]!r}")
        yield Send(CLIENT, reply.octets)
        if code == b"421":
            yield Close("backend-closed", "421")
        if code in BAD_COMMAND:
            self.count()
        elif code[:1] == b"2":
            self.bad = 0

    def _unasked(self, text: bytes) -> Script:
        """Only 421 may come unasked (RFC 5321 3.8).

        Another refusal is told and ends the session, too: the client would take it for the next reply.
        """
        if ASIDE.match(text):
            yield from self._aside(text, shown=True)
            return
        reply = yield from self._reply(first=text, relayed=text[:1] in (b"4", b"5"))
        if not reply.refuses or reply.code in BAD_COMMAND:
            raise broken(f"unasked: {text[:80]!r}")
        if reply.code != b"421":
            yield Note("backend-refused", (("text", reply.octets),))
            yield Send(CLIENT, reply.octets)
            yield Close("backend-refused")
        yield from self._pass_on(reply)

    def _refuse(self, reply: bytes) -> Script:
        self.count()
        yield Send(CLIENT, reply + b"\r\n")

    def _too_long(self) -> Script:
        yield Note("client-line-too-long")
        yield from self._refuse(b"500 5.5.2 Line too long")
