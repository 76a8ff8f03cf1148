"""The frame of every session, and what all conversations with a client have in common.

`converse` runs a whole session: PROXY header, TLS where it comes first, greeting, dialogue, farewell.  A protocol's
`Conversation` says what differs.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any, ClassVar, Final, TypeVar

from ..protocol.driver import Foreign
from ..protocol.proxyprotocol import Header, Origin, ProxyError
from ..protocol.vocabulary import BACKEND as BACKEND
from ..protocol.vocabulary import CLIENT as CLIENT
from ..protocol.vocabulary import (
    Abort,
    AlwaysSecured,
    Await,
    Close,
    Framing,
    Identified,
    Lost,
    MayLogIn,
    Note,
    Pass,
    Patience,
    Peek,
    Proven,
    Rejected,
    Request,
    Script,
    Secured,
    Send,
    Side,
    StartTLS,
    TLSFailed,
    TooLong,
    Trouble,
    Unavailable,
    Violation,
)
from ..telemetry.catalogue import PROTOCOL_ERROR, event
from . import sasl
from .base import Policy, Terms
from .bounds import REPLIES, REPLY_LINES, REPLY_OCTETS
from .reach import Hearing, reached

BOTH: Final = (BACKEND, CLIENT)

REFUSED: Final = "refused"
"""The event of a limit that was reached."""
TOO_MANY_FAILURES: Final = Note(REFUSED, (("limit", "auth-failures-per-minute"),))
"""A login that the backend is not asked about."""
TLS_REQUIRED: Final = Note("tls-required")
"""A command that has to wait for TLS."""
CHANNEL_BINDING: Final = Note(
    "backend-channel-binding", (("cure", "disable channel binding on the backend"),), once=True
)
"""The backend offers mechanisms that cannot work through a gateway."""

STRANGERS: Final = {"tls": "tls-on-plaintext-port", "http": "http-client", "proxy": "unexpected-proxy-header"}
"""How a client begins that speaks another protocol -> the event."""

T = TypeVar("T")
Asking = Generator[Request, Any, list[bytes]]


def foreign(http: str, *, web: bool = False) -> Foreign:
    """TLS, HTTP and a PROXY header (version 1) at the beginning of a client's line; version 2 ends with its QUIT.

    `http` is the event of an HTTP request.  With `web` the method alone tells one: the protocol has no such command.
    """
    target = rb"[ \t\r\n]" if web else rb" (?:/|\*|http)"
    pattern = (
        rb"(?P<tls>\x16)"
        rb"|(?P<http>(?i:(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|TRACE)%s|CONNECT [^ ]{0,64}:|Host:))"
        rb"|(?P<proxy>PROXY (?:TCP[46]|UNKNOWN))" % target
    )
    return Foreign(re.compile(pattern), {**STRANGERS, "http": http})


def foreign_units(tls: bytes, proxy: bytes = rb"\r\n\r\n") -> Foreign:
    """The same for a protocol that has no lines.  Four octets tell HTTP and a PROXY header; its frames begin otherwise.

    `tls` and `proxy` are patterns: how a ClientHello begins, if that is foreign, and a header of version 2.
    """
    hello = rb"(?P<tls>%s)|" % tls if tls else b""
    http = rb"(?P<http>(?i:GET |HEAD|POST|PUT |DELE|OPTI|PATC|TRAC|CONN|HOST))"
    return Foreign(re.compile(hello + http + rb"|(?P<proxy>PROX|%s)" % proxy), STRANGERS)


class Stage(Enum):
    """How far a session is when the backend lists its capabilities."""

    CLOSED = "before TLS, and no login in the clear"
    OPEN = "before TLS, and a login in the clear is allowed"
    SECURE = "inside TLS, before the login"
    AUTHENTICATED = "the login's success"

    # Enum's own is written in Python, and lists that were edited are remembered by it.
    __hash__ = object.__hash__


class Conversation(ABC):
    """One session's state; what is not in an attribute here is the generator's own place."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.secured: Secured | None = None
        """TLS with the client."""
        self.welcomed = False
        """The client has its greeting."""
        self.reached = False
        """The backend has greeted."""
        self.midway = False
        """Our words would land inside a reply of the backend's."""
        self.bad = 0
        """Bad commands in a row."""
        self.trusted = False
        """Bad commands are no longer counted."""
        self._failed_logins = 0
        self._told_to_secure = False
        self._downgrade: Note | None = None
        """To be told when this client goes on without TLS."""

    # --- what a protocol says ----------------------------------------------------------------

    def open(self) -> Script:
        """Up to the client's first command: the greeting, if this protocol has one."""
        yield from ()

    @abstractmethod
    def talk(self) -> Script:
        """Everything up to the splice, which is where it returns."""

    @abstractmethod
    def goodbye(self, trouble: Trouble) -> bytes:
        """Last words to the client, or nothing where the protocol has none or they would be taken for data."""

    def farewell(self) -> bytes:
        """QUIT or LOGOUT for the backend, where it is at a command boundary, unauthenticated and
        outside a transaction; else nothing: a synthesised end would complete what was not completed."""
        return b""

    unavailable_words: ClassVar[bytes]
    """What a client hears in place of a greeting when it cannot be served now."""
    busy_words: ClassVar[bytes]
    """The same where it, or everybody together, has too many connections."""

    @classmethod
    def unavailable(cls, hostname: bytes) -> bytes:
        """`unavailable_words`, unless the gateway's name stands in them."""
        return cls.unavailable_words

    @classmethod
    def busy(cls, hostname: bytes) -> bytes:
        """`busy_words`, likewise."""
        return cls.busy_words

    # --- what all have in common -------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """TLS is required and not there yet."""
        return self.secured is None and self.terms.policy is Policy.REQUIRED

    def tell(self, octets: bytes) -> Script:
        """What the backend says, for the client."""
        yield Send(CLIENT, octets)

    def hear(self, sides: tuple[Side, ...], patience: Patience, framing: Framing) -> Generator[Request, Any, Any]:
        """The next line or unit of one of these sides.  If the backend is lost within one, nothing is said any more."""
        try:
            heard = yield Await(sides, patience, framing)
        except Lost as lost:
            if lost.side is BACKEND:
                yield Peek(BACKEND)  # lost again, unless a line had begun
                self.midway = True
            raise
        if isinstance(heard, TooLong) and heard.side is BACKEND:
            raise broken("a line without end")
        return heard

    def hear_list(
        self, first: bytes, edit: Callable[[list[bytes]], Sequence[bytes]], added: Sequence[bytes] = ()
    ) -> Asking:
        """The backend's list of many lines, up to the dot, for the client: edited as a whole, with lines `added`.

        If it breaks off, the client gets what came and then nothing: words of ours would seem to be a part of it.
        Returns the lines as they came.
        """
        self.bad = 0
        lines: list[bytes] = []
        octets = 0
        self.midway = True
        yield Send(CLIENT, first + b"\r\n")
        try:
            while (text := (yield from self.hear((BACKEND,), Patience.REPLY, REPLIES)).text) != b".":
                octets += len(text)
                within_bounds(len(lines), octets)
                lines.append(text)
        except Trouble:
            yield Send(CLIENT, joined(edit(lines)))
            raise
        told = edit(lines)
        if sasl.bound(lines) - sasl.bound(told):
            yield CHANNEL_BINDING
        yield Send(CLIENT, joined([*told, *added, b"."]))
        self.midway = False
        return lines

    def insist(self) -> Script:
        """TLS is required of a client that always used it, where the service says so."""
        if self.terms.insists and self.terms.policy is not Policy.REQUIRED and (dates := (yield AlwaysSecured())):
            self.terms = replace(self.terms, policy=Policy.REQUIRED)
            self._downgrade = Note("downgrade", (("action", "refused"), *dates.items()))

    def first(self, words: bytes) -> Generator[Request, Any, bytes]:
        """The refusal of a command that has to wait for TLS.  It is told, once in a session; and so is that this client
        always used TLS."""
        if self._downgrade is not None:
            yield self._downgrade
            self._downgrade = None
        if not self._told_to_secure:
            self._told_to_secure = True
            yield TLS_REQUIRED
        return words

    def may_log_in(self) -> Generator[Request, Any, bool]:
        """Whether the backend may be asked about the client's credentials.  If not, that is told."""
        allowed: bool = yield MayLogIn()
        if not allowed:
            yield TOO_MANY_FAILURES
        return allowed

    def accepted(self, mechanism: bytes, user: bytes, answer: bytes) -> Script:
        """The backend took the client's credentials, and says so in `answer`."""
        yield login_note(mechanism, "ok", user)
        yield Proven()
        yield Send(CLIENT, answer)

    def not_accepted(
        self, mechanism: bytes, user: bytes, answer: Generator[Request, Any, T], *, guessed: bool
    ) -> Generator[Request, Any, T]:
        """A login that failed, and `answer` is what the client hears of it.

        `guessed`: that is for the credentials that the client gave."""
        yield login_note(mechanism, "failed", user)
        return (yield from self.rejected(answer) if guessed else answer)

    def rejected(self, answer: Generator[Request, Any, T]) -> Generator[Request, Any, T]:
        """The backend did not take the client's credentials, and `answer` is what the client hears of it."""
        yield Rejected()
        self._failed_logins += 1
        result = yield from answer
        if self._failed_logins >= self.terms.failed_logins:
            raise Violation(CLIENT, "too-many-failed-logins")
        return result

    def left(self, asked: Generator[Request, Any, T], otherwise: T) -> Generator[Request, Any, T]:
        """The backend's answer to the client's goodbye; `otherwise` where it is gone, as it was asked to be."""
        try:
            return (yield from asked)
        except Lost as lost:
            if lost.side is CLIENT or self.midway:
                raise
            return otherwise

    def count(self) -> None:
        """One more bad command."""
        self.bad += 1
        if self.bad >= self.terms.bad_commands and not self.trusted:
            raise Violation(CLIENT, "too-many-bad-commands")

    def last_words(self, trouble: Trouble) -> bytes:
        """What the client hears at the end."""
        # Where TLS comes first nothing is said in the clear before it.
        if self.midway or event(trouble.key).unheard or (self.terms.implicit and self.secured is None):
            return b""
        match trouble:
            case Lost(side=Side.CLIENT) | TLSFailed(side=Side.CLIENT):
                return b""
            case Unavailable(key="refused"):
                return self.busy(self.terms.hostname)
        return self.goodbye(trouble)


class ServerFirst(Conversation):
    """... of a protocol whose server greets."""

    @property
    @abstractmethod
    def own_greeting(self) -> bytes:
        """What a lazy listener says in the backend's place."""

    @abstractmethod
    def hear_greeting(self) -> Hearing[Any]:
        """The backend's greeting, behind what the gateway itself says to it: STARTTLS, and who the client is.

        Raises Unavailable for what is no greeting, and RefusedByBackend.
        """

    @abstractmethod
    def pass_greeting(self, greeting: Any) -> Script:
        """Bring the backend's greeting to the client.  If it turns the client away, end the session."""

    def open(self) -> Script:
        """Dial, if that is due now, and bring the greeting to the client."""
        if self.terms.lazy and not self.terms.implicit:
            self.welcomed = True
            yield Send(CLIENT, self.own_greeting)
            return
        greeting = yield from self.dial()
        self.welcomed = True
        yield from self.pass_greeting(greeting)

    def dial(self) -> Hearing[Any]:
        """Connect to the backend; returns its greeting."""
        greeting = yield from reached(self.terms, self.secured, self.hear_greeting)
        self.reached = True
        return greeting

    def turned_away(self, greeting: bytes) -> Script:
        """The backend's greeting was a refusal, and the client has it."""
        yield Note("backend-refused", (("text", greeting),))
        yield Close("backend-refused")

    @property
    def stage(self) -> Stage:
        if self.secured is not None:
            return Stage.SECURE
        return Stage.OPEN if self.terms.policy is Policy.OPTIONAL else Stage.CLOSED


TOO_EARLY: Final = "a verdict before the end of the message"
"""If there is another one behind the end, it would be taken for the answer to the next command."""


def login_note(mechanism: bytes, result: str, user: bytes = b"") -> Note:
    """The end of a login: `ok`, `failed`, or `unproven` where the client had not given any credentials.

    `user`: whom the client said that it is; empty where that is not known."""
    whose = (("user", user),) if user else ()
    name = mechanism if sasl.is_known(mechanism) else sasl.OTHER
    return Note("auth", (("result", result), ("mechanism", name.decode("ascii")), *whose))


def within_bounds(lines: int, octets: int) -> None:
    """Raises Violation where a backend's reply of which so much is there goes on: it would fill our memory."""
    if lines >= REPLY_LINES or octets > REPLY_OCTETS:
        raise broken("a reply without end")


def joined(lines: Iterable[bytes]) -> bytes:
    return b"".join(line + b"\r\n" for line in lines)


def broken(said: bytes | str) -> Violation:
    """The backend does not speak its protocol: what it said, or in words what is wrong with it."""
    return Violation(BACKEND, PROTOCOL_ERROR, said if isinstance(said, str) else repr(said[:80]))


# --- a whole session -------------------------------------------------------------------------------


def converse(conversation: Conversation) -> Script:
    """PROXY header and TLS where they come first, greeting, dialogue, farewell."""
    try:
        if conversation.terms.proxied:
            yield from _identify(conversation)
        if conversation.terms.implicit:
            conversation.secured = yield StartTLS(CLIENT)
        else:
            yield from conversation.insist()
        yield from conversation.open()
        yield from conversation.talk()
    except Trouble as trouble:
        yield from _part(conversation, trouble)


class _Introduction:
    """A PROXY header, however the network cuts it, as a Filter that forwards nothing."""

    def __init__(self) -> None:
        self._header = Header()
        self.origin: Origin | None = None

    def feed(self, chunk: bytes) -> tuple[bytes, bytes | None]:
        try:
            told = self._header.feed(chunk)
        except ProxyError as error:
            raise Violation(CLIENT, "client-bad-proxy-header", error.reason) from None
        if told is None:
            return b"", None
        self.origin = told.origin
        return b"", told.rest


def _identify(conversation: Conversation) -> Script:
    """From here on the session's client is the one whom the load balancer names, if it names one."""
    introduction = _Introduction()
    yield Pass(CLIENT, introduction, forward=False, patience=Patience.PROXY)
    if introduction.origin is not None:
        client, port = introduction.origin.source
        conversation.terms = replace(conversation.terms, origin=introduction.origin, client=client)
        if limit := (yield Identified(client, port)):
            raise Unavailable(REFUSED, limit)


def _part(conversation: Conversation, trouble: Trouble) -> Script:
    key = trouble.key
    match trouble:
        case Lost(side=Side.CLIENT):
            key = "client-closed" if trouble.orderly and conversation.farewell() else "client-lost"
        case Lost():
            key = "backend-closed" if conversation.farewell() else "backend-lost"
            yield Note(key, (("detail", trouble.detail),))
        case _ if not event(key).told:
            pass  # a reason without a line of its own
        case Unavailable(key="refused"):
            yield Note(key, (("limit", trouble.detail),))
        case TLSFailed(side=Side.CLIENT):
            yield Note(key, (("key", "client-tls-failed"), ("detail", trouble.detail)))
        case _:
            yield Note(key, (("detail", trouble.detail),))
    if last_words := conversation.last_words(trouble):
        yield Send(CLIENT, last_words)
    match trouble:
        case Lost(side=Side.CLIENT, orderly=False):
            polite = b""  # a reset may stand for anything
        case Unavailable() | Lost(side=Side.BACKEND) | Violation(side=Side.BACKEND) | TLSFailed(side=Side.BACKEND):
            polite = b""
        case _:
            polite = conversation.farewell()
    yield Send(BACKEND, polite) if polite else Abort(BACKEND)
    yield Close(key, trouble.detail)


def turned_away(terms: Terms, words: bytes, reason: str) -> Script:
    """A whole session with a client that cannot be served now: it hears so in place of a greeting."""
    return converse(_Closed(terms, words, reason))


class _Closed(Conversation):
    """A service that is not to be had; no backend is dialled."""

    def __init__(self, terms: Terms, words: bytes, reason: str) -> None:
        super().__init__(terms)
        self._words = words
        self._reason = reason

    def open(self) -> Script:
        yield Send(CLIENT, self._words)

    def talk(self) -> Script:
        yield Close(self._reason)

    def goodbye(self, trouble: Trouble) -> bytes:
        return b""

    unavailable_words = busy_words = b""
