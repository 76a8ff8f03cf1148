"""The backend's side of an NNTP session: greeting, replies, lists, articles."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from ....protocol.framing import Lines
from ....protocol.vocabulary import (
    Close,
    Pass,
    Patience,
    Request,
    Script,
    Send,
    StartTLS,
)
from ...asking import Asking
from ...base import BackendTLS, Terms
from ...bounds import REPLIES
from ...conversation import BACKEND, CLIENT, TOO_EARLY, broken
from ...mail.message import Message, Newlines
from ...reach import Hearing, answer_to, first_line, ungreeted, untrusted
from .words import (
    BAD_COMMAND,
    LATER,
    LEAVES,
    REJECTS,
    REPLY,
    TURNS_AWAY,
    WELCOMES,
    is_list,
)

UNAVAILABLE: Final = b"400 Service temporarily unavailable\r\n"
WANTS_ARTICLE: Final = {b"POST": b"340", b"IHAVE": b"335"}

First = Generator[Request, Any, bytes]
"""Returns the first line of a reply."""
Ending = Generator[Request, Any, bool]
"""Returns whether the session is to be spliced."""


class Exchange(Asking):
    """Asks the backend and passes its replies on."""

    protocol = "nntp"
    leaves = LEAVES
    idle_words = b""  # RFC 3977 3.1: an autologout says nothing
    lost_words = b"400 Connection to news server lost\r\n"

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._endless = False  # the backend's last reply may go on, up to a dot, or may not
        self._unpaired = False  # ... and the client has said more: which reply is to what, nobody knows any more
        self._left = False  # ... and QUIT, of which the answer is the backend's
        self._early = False  # the last verdict came before the end of its article
        self._reader = False  # the backend has taken MODE READER

    @property
    def own_greeting(self) -> bytes:
        return b"200 %s ready\r\n" % self.terms.hostname

    def pass_greeting(self, greeting: bytes) -> Script:
        yield Send(CLIENT, greeting + b"\r\n")
        if greeting[:3] not in WELCOMES:
            yield from self.turned_away(greeting)

    def hear_greeting(self) -> Hearing[bytes]:
        """The greeting, behind TLS where it is agreed on.  The server does not greet again inside (RFC 4642 2.2.2)."""
        greeting = yield from first_line()
        if not REPLY.match(greeting) or greeting[:3] not in WELCOMES | TURNS_AWAY:
            raise ungreeted(greeting)
        if greeting[:3] in WELCOMES and self.terms.backend_tls is BackendTLS.STARTTLS:
            reply = yield from answer_to(b"STARTTLS")
            if REPLY.match(reply) and reply[:3] == LEAVES:
                return reply
            if not REPLY.match(reply) or reply[:3] != b"382":
                untrusted(f"the backend refuses STARTTLS: {reply[:80]!r}")
            yield StartTLS(BACKEND)
        return greeting

    def _reach(self) -> Script:
        """Dial, if that was put off; the greeting is not the client's, it has had ours."""
        if not self.reached:
            greeting = yield from self.dial()
            if self._reader and greeting[:3] in WELCOMES:
                yield Send(BACKEND, b"MODE READER\r\n")
                greeting = yield from self._reply()
            if greeting[:3] not in WELCOMES:
                yield from self.pass_greeting(greeting)

    unavailable_words = UNAVAILABLE  # RFC 3977 5.1
    busy_words = b"400 Too many connections\r\n"

    # --- replies ---

    def _ask(self, line: bytes, framing: Lines = REPLIES) -> First:
        """Send a line to the backend, and hear the first line of its reply."""
        return (yield from self.put(line, self._reply(framing), lambda reply: reply if reply[:3] == b"483" else b""))

    def _reply(self, framing: Lines = REPLIES) -> First:
        self._outstanding = True
        heard = yield from self.hear((BACKEND,), Patience.REPLY, framing)
        reply: bytes = heard.text
        if not REPLY.match(reply):
            raise broken(reply)
        self._outstanding = False
        return reply

    def _conclude(self, verb: bytes, reply: bytes, *, login: bool = False) -> Ending:
        """The reply to a command, with the lines that belong to it, and with the article that it asks for."""
        if reply[:1] == b"3":
            # A go-ahead that was not asked for would have the backend read as an article what we read as commands.
            if reply[:3] != WANTS_ARTICLE.get(verb):
                raise broken(f"unasked: {reply[:80]!r}")
            yield Send(CLIENT, reply + b"\r\n")
            reply = yield from self._hand_in()
            if reply[:1] == b"3":
                raise broken(f"unasked: {reply[:80]!r}")
        listed = is_list(verb, reply)
        self._endless = listed is None
        self.midway = listed is True
        yield Send(CLIENT, reply + b"\r\n")
        if listed:
            yield Pass(BACKEND, Message(Newlines.PASS))
            self.midway = False
        if reply[:3] == LEAVES:
            yield Close("backend-closed", "400")
        if self._early:
            raise broken(TOO_EARLY)
        if reply[:3] in BAD_COMMAND:
            self.count()
        elif reply[:1] in (b"1", b"2") and not login:
            self.bad = 0
        return False

    def _hand_in(self, *, forward: bool = True) -> First:
        """The client's article, up to the dot, and the verdict; one that is not forwarded has none."""
        self._outstanding = self._outstanding or forward
        # A poster's bare LF and dot must be no end for the backend, which would run what follows as commands.
        early = yield Pass(CLIENT, Message(Newlines.NORMALIZE), forward=forward)
        self._early = forward and bool(early)
        return (yield from self._reply()) if forward else b""

    # --- logins ---

    def _logged_in(self, reply: bytes, mechanism: bytes) -> Ending:
        yield from self.accepted(mechanism, self._claimed, reply + b"\r\n")
        return True

    def _login_failed(self, reply: bytes, mechanism: bytes, *, guessed: bool) -> Ending:
        """It counts if the client has given credentials, and the reply speaks of these."""
        answer = self._conclude(b"AUTHINFO", reply, login=True)
        counts = guessed and reply[:3] in REJECTS
        yield from self.not_accepted(mechanism, self._claimed, answer, guessed=counts)
        if not guessed and reply[:3] not in BAD_COMMAND | LATER:
            self.count()  # else a client could say it for ever
        return False

    def _refuse(self, reply: bytes) -> Ending:
        yield Send(CLIENT, reply + b"\r\n")
        self.count()
        return False
