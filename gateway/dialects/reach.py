"""The way to the backend, the same for all dialects: connect, say who the client is, TLS, greeting.

What fails on the way is no good for any client, so the next address is tried; a backend that greets
and refuses has spoken for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NoReturn, TypeVar

from ..protocol import proxyprotocol
from ..protocol.vocabulary import (
    Await,
    Dial,
    Expired,
    Greeted,
    Line,
    Lost,
    Note,
    Patience,
    Request,
    Script,
    Secured,
    Send,
    Side,
    StartTLS,
    TLSFailed,
    Unavailable,
    Violation,
)
from ..telemetry.catalogue import event
from .base import BackendTLS, Identity, Terms
from .bounds import REPLIES

CLOSED = "backend-connect-failed"
"""The address took the connection and closed it before it had greeted."""
CUT_SHORT = frozenset({"connection closed during the handshake", "connection lost during the handshake"})
"""How a handshake ends that the backend did not want to finish, and for which it gave no reason."""
GREETS_ONCE = "backend-greets-once"
"""The backend refuses a second EHLO (it breaks RFC 5321 4.1.4)."""

Heard = TypeVar("Heard")
Hearing = Generator[Request, Any, Heard]


def reached(terms: Terms, client: Secured | None, hear: Callable[[], Hearing[Heard]]) -> Hearing[Heard]:
    """Dial until an address is found whose greeting `hear` returns; what it does besides (STARTTLS,
    XCLIENT, ID) is part of it, and so is a
    RefusedByBackend.  Raises Unavailable, and the troubles of the client meanwhile."""
    _must_be_known(terms)
    failed = ""
    failure: Unavailable | None = None
    while True:
        try:
            yield Dial(failed)
        except Unavailable as nobody:
            raise failure or nobody from None
        except Expired as late:
            if late.side is Side.CLIENT:
                raise
            raise failure or Unavailable("backend-connect-failed", "timeout") from None
        if failure is not None:
            # Nobody else would tell: this client is served.
            yield Note(failure.key, (("detail", f"{failure.detail}; another address is tried".lstrip("; ")),))
        try:
            yield from _introduce(terms, client)
            heard = yield from _or_refused(hear)
        except (Expired, Lost, Violation, TLSFailed) as trouble:
            if trouble.side is Side.CLIENT:
                raise
            failure = _understood(trouble, terms.identity is not Identity.NONE)
        except Unavailable as unusable:
            failure = unusable
        else:
            yield Greeted()
            return heard
        failed = failure.key


class RefusedByBackend(Exception):
    """The backend does not want this client, and says so while the gateway itself asks: `words` are its greeting."""

    def __init__(self, words: Any) -> None:
        super().__init__(words)
        self.words = words


def _or_refused(hear: Callable[[], Hearing[Heard]]) -> Hearing[Heard]:
    try:
        return (yield from hear())
    except RefusedByBackend as refusal:
        words: Heard = refusal.words
        return words


def _must_be_known(terms: Terms) -> None:
    """A client whose address is gone, since it was reset before anybody looked, must not pass for us; and what
    is amiss with it is no failure of an address, so that nobody is dialled."""
    if terms.identity is Identity.NONE or terms.origin is not None:
        return
    if terms.client or terms.identity is not Identity.PROXY_V2:
        refused(f"this client has no address that {terms.identity.value} could tell")


def _introduce(terms: Terms, client: Secured | None) -> Script:
    """The PROXY header is the first on the connection, before TLS (proxy-protocol.txt 2)."""
    if terms.identity in (Identity.PROXY_V1, Identity.PROXY_V2):
        yield Send(Side.BACKEND, _header(terms, client))
    if terms.backend_tls is BackendTLS.IMPLICIT:
        yield StartTLS(Side.BACKEND)


def _header(terms: Terms, client: Secured | None) -> bytes:
    if terms.origin is None:
        return proxyprotocol.v2_local()
    if terms.identity is Identity.PROXY_V1:
        return proxyprotocol.v1(terms.origin)
    return proxyprotocol.v2(terms.origin, secured=client, session=terms.session)


def first_line() -> Hearing[bytes]:
    """The backend's greeting where it is one line."""
    heard = yield Await((Side.BACKEND,), Patience.GREETING, REPLIES)
    if not isinstance(heard, Line):
        raise ungreeted(b"a line without end")
    return heard.text


def answer_to(command: bytes) -> Hearing[bytes]:
    """The line that answers a command of ours; nothing for one without end."""
    yield Send(Side.BACKEND, command + b"\r\n")
    heard = yield Await((Side.BACKEND,), Patience.REPLY, REPLIES)
    return heard.text if isinstance(heard, Line) else b""


def ungreeted(text: bytes) -> Unavailable:
    """The backend's first words are no greeting in this protocol."""
    return Unavailable("backend-bad-greeting", repr(text[:80]))


def untrusted(detail: str) -> NoReturn:
    """TLS towards the backend was demanded and cannot be had."""
    raise Unavailable("backend-tls-failed", detail)


def refused(detail: str) -> NoReturn:
    """The backend does not let us tell it who the client is."""
    raise Unavailable("backend-identity-refused", detail)


def _understood(trouble: Expired | Lost | Violation | TLSFailed, told: bool) -> Unavailable:
    """`told`: the backend has been told who the client is, so that it may have closed because of that."""
    match trouble:
        case TLSFailed(detail=detail) if told and detail in CUT_SHORT:
            return Unavailable(CLOSED, trouble.detail)
        case Lost():
            return Unavailable(CLOSED, "closed before its greeting")
        case Violation() if event(trouble.key).garbled:
            return Unavailable("backend-bad-greeting", trouble.detail)
    return Unavailable(trouble.key, trouble.detail)
