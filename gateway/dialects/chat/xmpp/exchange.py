"""One session of XMPP (RFC 6120): STARTTLS, the way to the server, and the login.

Before TLS the gateway answers for itself, and no server is dialled.  Inside TLS each unit passes as it is, but for the
server's features, until the login succeeds.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Any, ClassVar, Final

from ....protocol.vocabulary import (
    Await,
    Close,
    Expired,
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
    Trouble,
    Violation,
)
from ... import access
from ...base import BackendTLS, Terms
from ...conversation import BACKEND, BOTH, CHANNEL_BINDING, CLIENT, Conversation, login_note
from ...reach import Hearing, RefusedByBackend, reached, ungreeted, untrusted
from ...users import shortened
from . import logins, words
from .logins import Attempt
from .words import Kind
from .xml import BLANKS, POLICY, Both, Element, Malformed, Stanza, Stream

CLEAR: Final = 4096
"""Octets that a client may say before TLS."""
INSIDE: Final = 65536
"""Octets of a unit before the login is over."""
CLEAR_LOGINS: Final = 3
"""Logins before TLS; then the session ends."""

UNREACHED: Final = b"remote-connection-failed"
_RESULT: Final = f"{words.DIALBACK} result"
_VERIFY: Final = f"{words.DIALBACK} verify"

LOGIN: Final = Patience("login")
"""The client's next words when its stream is open."""

Spliced = Generator[Request, Any, bool]
"""Whether the login is over, and the gateway only copies from here on."""


class XMPP(Conversation):
    """One session."""

    kind: ClassVar[Kind] = words.CLIENTS
    _client: Stream
    _backend: Stream

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._from = b""  # the domain of a server that comes
        self._to = b""  # the domain that the client wants to talk to
        self._tag = b""  # how the stream is called that the client sees; empty while it sees none
        self._own_tag = b""  # ... and the client's own, which the backend sees
        self._attempting = False
        self._clear_logins = 0

    def talk(self) -> Script:
        if self.secured is None:
            yield from self._in_the_clear()
        yield from self._inside()

    # --- before TLS ---

    def _in_the_clear(self) -> Script:
        self._client = Stream(CLEAR, altogether=True)
        yield from self._opened()
        self._tag = words.TAG
        yield Send(CLIENT, self._header() + words.OFFER)
        while self.secured is None:
            heard = yield Await((CLIENT,), Patience.COMMAND, self._client)
            if heard.name == words.STARTTLS:
                # RFC 6120 5.3.3 forbids blanks here; some clients send a line end, and servers take it.
                self.secured = yield StartTLS(CLIENT, words.PROCEEDING, words.in_ascii(self._to), BLANKS)
            elif heard.element is None:
                yield Send(CLIENT, b"</%s>" % self._tag)
                yield Close("quit")
            elif heard.name in logins.SASL:
                yield from self._refuse(heard.element, words.failure(logins.SASL[heard.name], b"encryption-required"))
                self._clear_logins += 1
                if self._clear_logins == CLEAR_LOGINS:
                    raise Violation(CLIENT, "too-many-bad-commands")
            elif heard.name.startswith((f"{self._client.namespace} ", f"{words.DIALBACK} ")):
                yield from self._refuse(heard.element, words.error(self._tag, POLICY))
                yield Close("tls-required")
            else:
                raise Malformed(CLIENT, b"unsupported-stanza-type", heard.name.encode("utf-8"))
        self._tag = b""

    def _refuse(self, said: Element, answer: bytes) -> Script:
        """Something has to wait for TLS."""
        if logins.shows_secret(said):
            yield Note("password-in-clear")
        yield Send(CLIENT, (yield from self.first(answer)))

    def _opened(self) -> Generator[Request, Any, Stanza]:
        """The client's header."""
        heard: Stanza = yield Await((CLIENT,), Patience.COMMAND, self._client)
        assert heard.element is not None
        attributes = heard.element.attributes
        if heard.name != words.HEADER or self._client.namespace.encode() != self.kind.namespace:
            raise Malformed(CLIENT, b"invalid-namespace", heard.octets)
        if "to" not in attributes:
            raise Malformed(CLIENT, b"improper-addressing", heard.octets)
        to = words.domain(attributes["to"])
        if to is None:
            raise Malformed(CLIENT, b"host-unknown", heard.octets)
        self._to = to
        self._from = words.domain(attributes.get("from")) or b""
        if not attributes.get("version", "0.9").startswith("1."):
            raise Malformed(CLIENT, b"unsupported-version", heard.octets)
        return heard

    def _header(self) -> bytes:
        to = self._from if self.kind is words.SERVERS else b""
        return words.header(self.kind, to=to, sender=self._to, identity=self.terms.session.encode())

    # --- the way to the server ---

    def _inside(self) -> Script:
        self._client = Stream(INSIDE)
        header = yield from self._opened()
        greeting, first = yield from reached(self.terms, self.secured, partial(self._greeted, header))
        self.reached = True
        self._own_tag = words.tag_of(header.octets)
        self._tag = words.tag_of(greeting.octets)
        yield Send(CLIENT, greeting.octets)
        if first is not None and first.name == words.ERROR:
            yield from self._pass_end(first)
            yield Close("backend-refused")
        if first is not None:
            yield from self._pass(first)
        both = Both(self._client, self._backend)
        while True:
            heard = yield Await(BOTH, Patience.REPLY if self._attempting else LOGIN, both)
            if (yield from (self._told if heard.side is BACKEND else self._said)(heard)):
                return

    def _greeted(self, header: Stanza) -> Hearing[tuple[Stanza, Stanza | None]]:
        """The server's header, and what follows it: its features, or an error."""
        if self.terms.backend_tls is BackendTLS.STARTTLS:
            yield Send(BACKEND, words.header(self.kind, to=self._to, sender=self._from))
            greeting, features = yield from self._answered()
            if features is not None and features.name == words.ERROR:
                raise RefusedByBackend((greeting, features))
            if features is None or not words.offers_tls(features):
                untrusted("the backend does not offer STARTTLS")
            yield Send(BACKEND, words.ASKING)
            heard = yield Await((BACKEND,), Patience.GREETING, self._backend)
            if heard.name != words.PROCEED:
                untrusted("the backend refuses STARTTLS")
            yield StartTLS(BACKEND)
        yield Send(BACKEND, header.octets)
        return (yield from self._answered())

    def _answered(self) -> Hearing[tuple[Stanza, Stanza | None]]:
        """A server from before RFC 3920 has no version and no features."""
        self._backend = Stream(INSIDE)
        header = yield Await((BACKEND,), Patience.GREETING, self._backend)
        if header.name != words.HEADER:
            raise ungreeted(header.octets)
        if "version" not in header.element.attributes:
            return header, None
        first = yield Await((BACKEND,), Patience.GREETING, self._backend)
        if first.name not in (words.FEATURES, words.ERROR):
            raise ungreeted(first.octets)
        return header, first

    # --- what the server says ---

    def _told(self, heard: Stanza) -> Spliced:
        yield from self._pass(heard)
        return False

    def _pass(self, heard: Stanza) -> Script:
        """Bring a unit of the server's to the client."""
        if heard.name == words.FEATURES:
            yield from self._pass_features(heard)
        elif heard.name == words.ERROR or heard.element is None:
            yield from self._pass_end(heard)
            yield Close("backend-closed")
        else:
            yield Send(CLIENT, heard.octets)

    def _pass_features(self, heard: Stanza) -> Script:
        assert heard.element is not None
        yield Send(CLIENT, words.shown(heard))
        if words.binds(heard.element):
            yield CHANNEL_BINDING
        if self.kind is words.CLIENTS and not words.logins(heard.element):
            yield self._locked(words.NO_LOGIN, words.offers_tls(heard))

    def _locked(self, text: bytes, starttls: bool | None = None) -> Note:
        """The server takes the gateway's connection for insecure."""
        return access.note(access.NO_LOGIN, self.kind.name, self.terms, text, starttls)

    def _pass_end(self, heard: Stanza) -> Script:
        """The server ends its stream."""
        if heard.element is None:
            yield Send(CLIENT, heard.octets)
        else:
            yield Send(CLIENT, heard.octets + b"</%s>" % self._tag)
            yield Note("backend-refused", (("text", words.told(heard.element)),))

    # --- what the client says ---

    def _said(self, heard: Stanza) -> Spliced:
        if heard.element is None:
            yield from self._leave(heard)
        elif heard.name == words.STARTTLS:
            yield Send(CLIENT, words.FAILING + b"</%s>" % self._tag)  # as a real server does
            yield Note("client-protocol-error", (("detail", "STARTTLS inside TLS"),))
            yield Send(BACKEND, self.farewell())
            yield Close("client-protocol-error")
        elif heard.name == f"{words.COMPRESS} compress":
            yield Send(CLIENT, words.NO_COMPRESSION)
            self.count()
        elif heard.name in logins.SASL:
            return (yield from self._authenticate(heard, heard.element))
        else:
            return (yield from self._stanza(heard, heard.element))
        return False

    def _stanza(self, heard: Stanza, element: Element) -> Spliced:
        """Anything else: it may be a login without SASL."""
        attempt = logins.by_query(element)
        if attempt is None:
            yield Send(BACKEND, heard.octets)
            return False
        yield from self._admitted()
        return (yield from self._attempt(heard, attempt))

    def _admitted(self) -> Script:
        """For logins that have no answer for "later"."""
        if not (yield from self.may_log_in()):
            yield Send(CLIENT, words.error(self._tag, POLICY))
            yield Send(BACKEND, self.farewell())
            yield Close("refused", "auth-failures-per-minute")

    def _authenticate(self, heard: Stanza, element: Element) -> Spliced:
        namespace = logins.SASL[heard.name]
        attempt = logins.by_sasl(namespace, element)
        if attempt is None or not (yield from self.may_log_in()):
            condition = b"invalid-mechanism" if attempt is None else b"temporary-auth-failure"
            yield Send(CLIENT, words.failure(namespace, condition))
            self.count()
            return False
        return (yield from self._attempt(heard, attempt))

    def _attempt(self, heard: Stanza, attempt: Attempt) -> Spliced:
        self._attempting = True
        claim = attempt.claim
        yield Send(BACKEND, heard.octets)
        while True:
            answer = yield Await((BACKEND,), Patience.REPLY, self._backend)
            verdict = attempt.verdict(answer.element) if answer.element is not None else None
            if verdict == "ok":
                claim.earned(answer.octets)
                yield from self.accepted(claim.mechanism, claim.user, answer.octets)
                return True
            if verdict in ("failed", "refused"):
                self._attempting = False
                yield login_note(claim.mechanism, "failed", claim.user)
                if logins.wants_encryption(answer):
                    yield self._locked(b"encryption-required")
                told = self.tell(answer.octets)
                yield from self.rejected(told) if verdict == "failed" else told
                return False
            yield from self._pass(answer)
            if verdict == "more":
                said = yield Await((CLIENT,), LOGIN, self._client)
                if said.element is None:
                    yield from self._leave(said)
                if said.name not in attempt.answers:
                    raise Malformed(CLIENT, POLICY, said.name.encode("utf-8"))
                attempt.hear(said.element)
                yield Send(BACKEND, said.octets)

    def _leave(self, heard: Stanza) -> Script:
        """The client ends its stream; the server may say what it has to, and ends its own."""
        yield Send(BACKEND, heard.octets)
        try:
            while (answer := (yield Await((BACKEND,), Patience.REPLY, self._backend))).element is not None:
                yield Send(CLIENT, answer.octets)
        except Lost as lost:
            if lost.side is CLIENT:
                raise
        yield Send(CLIENT, b"</%s>" % self._tag)
        yield Close("quit")

    # --- the end ---

    def goodbye(self, trouble: Trouble) -> bytes:
        condition = _condition(trouble)
        if not condition:
            return b""
        if self._tag:
            return words.error(self._tag, condition)
        return words.refusal(self.kind, self._to or self.terms.hostname, condition)

    def farewell(self) -> bytes:
        return b"</%s>" % self._own_tag if self.reached and not self._attempting else b""

    @classmethod
    def unavailable(cls, hostname: bytes) -> bytes:
        return words.refusal(cls.kind, hostname, UNREACHED)

    @classmethod
    def busy(cls, hostname: bytes) -> bytes:
        return words.refusal(cls.kind, hostname, b"resource-constraint")


class Federation(XMPP):
    """One session with another server, which proves by dialback who it is (XEP-0220).

    Nothing waits for the answer to a key: to give it, the backend may need the answer to a key of its own, which comes
    on this stream.
    """

    kind = words.SERVERS
    _keys = 0  # that were sent, and not answered yet

    def _stanza(self, heard: Stanza, element: Element) -> Spliced:
        if heard.name == _RESULT:  # with a type, too: Prosody takes it for a key
            yield from self._admitted()
            self._keys += 1
            self._attempting = True
        yield Send(BACKEND, heard.octets)
        return False

    def _told(self, heard: Stanza) -> Spliced:
        verdict = "" if heard.element is None else heard.element.attributes.get("type", "")
        if heard.name == _VERIFY and verdict == "valid":
            yield Proven()  # nobody else knows this key
        if heard.name != _RESULT or not verdict or not self._keys:
            yield from self._pass(heard)
            return False
        self._keys -= 1
        self._attempting = self._keys > 0
        peer = heard.element.attributes.get("to", "").encode("utf-8") if heard.element is not None else b""
        yield login_note(b"DIALBACK", "ok" if verdict == "valid" else "failed", shortened(peer))
        if verdict == "valid":
            yield Proven()
        told = self.tell(heard.octets)
        yield from self.rejected(told) if verdict == "invalid" else told
        return verdict == "valid"


def _condition(trouble: Trouble) -> bytes:
    """Of the stream error; nothing for who does not speak XMPP."""
    match trouble:
        case Stopped():
            return b"system-shutdown"
        case Violation(side=Side.BACKEND):
            return b"internal-server-error"
        case Malformed(condition=condition):
            return condition
        case Expired(side=Side.CLIENT):
            return b"connection-timeout"
        case Violation(key="too-many-bad-commands" | "too-many-failed-logins"):
            return POLICY
        case Violation():
            return b""
    return UNREACHED
