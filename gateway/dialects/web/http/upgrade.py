"""HTTP/1.1 with Upgrade to TLS (RFC 2817), which libcups uses to print.

The first request of a connection decides.  One that asks for TLS is answered inside TLS: the backend gets it then,
without its wish.  Behind the first request the session is spliced.  The gateway never looks for the end of a body, so
that it cannot find another one than the server does.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import Final

from ....protocol.driver import Foreign
from ....protocol.vocabulary import (
    Await,
    Close,
    Expired,
    Lost,
    Patience,
    Proven,
    Script,
    Send,
    Side,
    StartTLS,
    Take,
    Trouble,
    Violation,
)
from ...access import Access, Seen
from ...base import BackendTLS, Dialect, Policy, Question
from ...conversation import BACKEND, CLIENT, Conversation, converse
from ...probing import HOST, Attempt, Probing
from ...reach import Hearing, reached, ungreeted, untrusted
from .head import HEADS, WHOLE, Head, Malformed, asks_for_password, body_length, parse, response_fields, starts_tls

GO_AHEAD: Final = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: TLS/1.0, HTTP/1.1\r\nConnection: Upgrade\r\n\r\n"


def closing(line: bytes, *fields: bytes) -> bytes:
    """A response without a body, behind which the connection closes."""
    lines = [b"HTTP/1.1 " + line, *(fields or (b"Connection: close",)), b"Content-Length: 0"]
    return b"\r\n".join([*lines, b"", b""])


TLS_REQUIRED: Final = closing(
    b"426 Upgrade Required", b"Upgrade: TLS/1.0, HTTP/1.1", b"Connection: Upgrade, close"
)  # RFC 2817 4.2
UNAVAILABLE: Final = closing(b"503 Service Unavailable")
BUSY: Final = closing(b"503 Service Unavailable", b"Retry-After: 30", b"Connection: close")
BAD: Final = closing(b"400 Bad Request")
TOO_LONG: Final = closing(b"431 Request Header Fields Too Large")


def options(hostname: bytes, *fields: bytes) -> bytes:
    """A request of our own that changes nothing."""
    return b"\r\n".join([b"OPTIONS * HTTP/1.1", b"Host: " + hostname, *fields, b"", b""])


class Upgrade(Conversation):
    """One session."""

    def talk(self) -> Script:
        try:
            heard = yield Await((CLIENT,), Patience.COMMAND, HEADS)
        except Lost as lost:
            if lost.side is CLIENT and lost.orderly:
                yield Close("client-closed")  # libcups looks whether somebody is there
            raise
        try:
            head = parse(heard.octets)
        except Malformed as error:
            raise Violation(CLIENT, "client-protocol-error", f"{error}: {heard.octets[:32]!r}") from None
        request: bytes = heard.octets
        if self.secured is None and head.wants_tls:
            request = head.without_upgrade()
            if not head.has_body:
                # A request with a body is never upgraded: its body lies in the clear, and TLS would begin behind it.
                self.secured = yield StartTLS(CLIENT, GO_AHEAD)
        if self.secured is None and self.terms.policy is not Policy.OPTIONAL:
            yield Send(CLIENT, (yield from self.first(TLS_REQUIRED)))
            yield Close("tls-required")
        response = yield from reached(self.terms, self.secured, partial(self._greeted, head, request))
        self.reached = True
        yield Proven()
        yield Send(CLIENT, response)

    def _greeted(self, head: Head, request: bytes) -> Hearing[bytes]:
        """The answer to OPTIONS, which comes at once and may be asked for again.  Others are not waited for: they may
        need their body, or long, and must not be said twice."""
        if self.terms.backend_tls is BackendTLS.STARTTLS:
            # cupsd answers no Host but its own, which is the one that the client asks for.
            yield from self._secure_backend(head.host or self.terms.hostname)
        yield Send(BACKEND, request)
        if head.method != b"OPTIONS" or head.has_body:
            return b""
        return (yield from _response())

    def _secure_backend(self, host: bytes) -> Hearing[None]:
        yield Send(BACKEND, options(host, b"Connection: Upgrade", b"Upgrade: TLS/1.0"))
        response = yield from _response()
        if not starts_tls(response):
            untrusted(f"the backend answers Upgrade: {response[:80]!r}")
        yield StartTLS(BACKEND)
        response = yield from _response()  # RFC 2817 3.3: the answer to the request
        octets = body_length(response)
        if octets is None:
            raise ungreeted(response)
        yield Take(BACKEND, octets, Patience.GREETING)

    # --- the end ---

    def goodbye(self, trouble: Trouble) -> bytes:
        match trouble:
            case Expired(side=Side.CLIENT):
                return b""
            case Violation(side=Side.CLIENT, key="client-line-too-long"):
                return TOO_LONG
            case Violation(side=Side.CLIENT):
                return BAD
        return UNAVAILABLE

    unavailable_words = UNAVAILABLE
    busy_words = BUSY


def _response() -> Hearing[bytes]:
    heard = yield Await((BACKEND,), Patience.GREETING, HEADS)
    octets: bytes = heard.octets
    return octets


# --- looking at a server -------------------------------------------------------------------------


def listed(answer: bytes) -> list[bytes] | None:
    """What the answer to OPTIONS tells of the server: its status, and its name."""
    if not answer:
        return None
    names = [value for name, value in response_fields(answer) if name == b"server"]
    return [answer.split(b"\r\n")[0], *names]


def access(seen: Seen) -> Access:
    """Whether clients must log in is told for each resource, not for a server."""
    return Access()


def _probing(port: int, implicit: frozenset[int], path: bytes) -> Probing:
    """`path`: of a page that is likely to be for users with a password only."""
    page = b"\r\n".join([b"HEAD %s HTTP/1.1" % path, b"Host: " + HOST, b"Connection: close", b"", b""])
    upgrade = options(HOST, b"Connection: Upgrade", b"Upgrade: TLS/1.0")
    return Probing(
        port=port,
        implicit=implicit,
        starttls=upgrade,
        injected=options(HOST),
        complete=lambda command, heard: True,
        agrees=starts_tls,
        attempts=(Attempt(page, asks_for_password, name=b"HEAD " + path),),
        reissues=True,  # RFC 2817 3.3: the answer to the request
        framing=lambda command: HEADS if command in (page, upgrade) else WHOLE,
        greets=False,
        leaves=False,
        lists=False,
        addressed=True,
        keeps=options,
        heads=True,
    )


HTTP = Dialect(
    name="http",
    script=lambda terms: converse(Upgrade(terms)),
    unavailable=Upgrade.unavailable,
    busy=Upgrade.busy,
    patience={
        Patience.COMMAND: 30.0,
        Patience.REPLY: 60.0,
        Patience.DATA: 60.0,
        Patience.SPLICE: 960.0,  # cupsd gives a client 900 seconds, and a printer that is out of paper makes it wait
    },
    policies={},
    foreign=Foreign(
        re.compile(rb"(?P<tls>\x16)|(?P<proxy>PROXY (?:TCP[46]|UNKNOWN)|\r\n\r\n\0)"),
        {"tls": "tls-on-plaintext-port", "proxy": "unexpected-proxy-header"},
    ),
    identities=frozenset({"proxy-v1", "proxy-v2"}),
    # The server closes behind its answer, so that there is nothing to say at the end.
    question=Question(lambda hostname: options(hostname, b"Connection: close"), b"", listed, access),
    alpn=(b"http/1.1",),
    first=Side.CLIENT,
    probing=_probing(80, frozenset({443}), b"/"),
)
IPP = replace(HTTP, name="ipp", probing=_probing(631, frozenset(), b"/admin/"))
"""RFC 8010: printers and print servers, on port 631."""
