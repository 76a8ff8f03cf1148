"""A session whose client is made up: the dialogue is the real one.

What the client would be shown is thus not computed a second time but what the dialect itself says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from ..protocol.framing import Lines
from ..protocol.inbox import Inbox
from ..protocol.proxyprotocol import Origin
from ..protocol.vocabulary import (
    Await,
    Close,
    Dial,
    Forward,
    Framing,
    Greeted,
    Heard,
    Line,
    Lost,
    MayLogIn,
    Pass,
    Patience,
    Request,
    Script,
    Secured,
    Send,
    Side,
    StartTLS,
    Take,
    Trouble,
    Unit,
)
from ..records import dataclass
from .base import Dialect, Identity, Terms

INSIDE = Secured("TLSv1.3", "TLS_AES_128_GCM_SHA256", 128)
"""The TLS that the client that is not there pretends to have."""

FindOrigin = Callable[[], Origin | None]
"""Asked once the backend was dialled: the two ends of the connection; None without one, or for a UNIX socket."""


@dataclass(slots=True)
class Exchange:
    """What the client said, and all that followed from it."""

    said: bytes = b""
    """A line without CRLF, or a whole unit; nothing for the greeting, which comes by itself."""
    heard: bytes = b""
    """What the backend answered, line by line or unit by unit."""
    told: bytes = b""
    """What of it the client was told."""


class ScriptedClient:
    """One session of a client that is inside TLS from its first octet and says some words, one after another.

    No client's leg is ever addressed: `script` is for a negotiation that has a backend only.
    """

    def __init__(
        self, dialect: Dialect, terms: Terms, words: Sequence[bytes], find_origin: FindOrigin = lambda: None
    ) -> None:
        self.greeting = b""
        """The backend's first words, as they came."""
        self.greeted = False
        """The backend was reached, is what it should be, and let itself be told who is there."""
        self.exchanges = [Exchange()]
        self.end: Close | None = None
        self._dialect = dialect
        self._terms = terms
        self._words = list(words)
        self._find_origin = find_origin

    def script(self) -> Script:
        # Who we are is known only when we are there, so the dialogue begins behind its own first Dial.
        refusal = None
        try:
            yield Dial()
        except Trouble as trouble:
            refusal = trouble
        origin = _origin(self._terms.identity, self._find_origin)
        terms = replace(self._terms, implicit=True, proxied=False, client="", origin=origin)
        with closing(self._dialect.script(terms)) as script:
            yield from self._play(script, refusal)

    def _play(self, script: Script, refusal: Trouble | None) -> Script:
        dialled = True
        answer: Any = None
        trouble: Trouble | None = None
        while True:
            try:
                request = script.send(answer) if trouble is None else script.throw(trouble)
            except StopIteration:
                # The backend lets anybody in, so that the dialogue is over before the visit is.
                self.end = Close("quit")
                yield self.end
                return
            answer = trouble = None
            if isinstance(request, Await) and not self._all_said(request):
                request = replace(request, sides=(Side.BACKEND,), patience=Patience.REPLY)
            match request:
                case Dial() if dialled:
                    dialled, trouble = False, refusal
                case StartTLS(side=Side.CLIENT):
                    answer = INSIDE
                case Send(side=Side.CLIENT, data=octets):
                    self.exchanges[-1].told += octets
                case Await(sides=sides) | Forward(sides=sides) if Side.CLIENT in sides:
                    if self._words:
                        self.exchanges.append(Exchange(self._words.pop(0)))
                        answer = heard(self.exchanges[-1].said, request.framing)
                    else:
                        trouble = Lost(Side.CLIENT, orderly=True)
                case MayLogIn():
                    answer = True
                case _:
                    try:
                        answer = yield self._noticed(request)
                    except Trouble as befallen:
                        trouble = befallen
                    else:
                        self._write_down(request, answer)

    def _all_said(self, wait: Await) -> bool:
        """Whether it is the client's turn, where the script hears both sides."""
        question, last = self._dialect.question, self.exchanges[-1]
        return len(wait.sides) == 1 or question is None or question.answered(last.said, last.heard)

    def _noticed(self, request: Request) -> Request:
        match request:
            case Dial():
                self.greeting = b""
                self._forget()
            case Send() | StartTLS() if not self.greeted:
                if self._dialect.first is Side.CLIENT:
                    self.greeting = b""
                self._forget()  # it has only answered what the gateway itself had asked
            case Greeted():
                self.greeted = True
            case Close():
                self.end = request
            case Pass():
                return replace(request, forward=False)
        return request

    def _forget(self) -> None:
        """What the backend has said is no answer to the client."""
        for exchange in self.exchanges:
            exchange.heard = b""

    def _write_down(self, request: Request, answer: Any) -> None:
        if isinstance(request, Await) and isinstance(answer, Line | Unit):
            octets = answer.octets if isinstance(answer, Unit) else answer.text + b"\r\n"
            self.exchanges[-1].heard += octets
            if request.patience is Patience.GREETING:
                self.greeting += octets
        elif isinstance(request, Take):
            # A literal: the line goes on behind it.
            self.exchanges[-1].heard += answer


def heard(said: bytes, framing: Framing) -> Heard | None:
    """What a script hears that waits for a unit of the client's."""
    inbox = Inbox(Side.CLIENT)
    inbox.feed(said + b"\r\n" if isinstance(framing, Lines) else said)
    return framing.unit(inbox)


def _origin(identity: Identity, find_origin: FindOrigin) -> Origin | None:
    """Whom the backend is told of: the gateway's own address, as that of a client inside TLS.

    PROXY version 2 has LOCAL for those who speak for themselves, but it tells nothing of the client's TLS, and a
    backend may want that before it offers a login (Dovecot).  So LOCAL is for a connection without addresses.
    """
    if identity is Identity.NONE:
        return None
    return find_origin() or (None if identity is Identity.PROXY_V2 else LOCAL)


LOCAL = Origin(("127.0.0.1", 1), ("127.0.0.1", 1))
"""Who comes through a UNIX socket, or does not come at all, to whom wants to hear an address."""
