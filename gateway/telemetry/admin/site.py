"""HTTP for the admin listener: what is asked, who may ask, and answers that cost sessions nothing.

Answers are kept for a second, so that a thousand requests a second cost one look at the gateway.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IPullProducer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

from ..exposition import exposed
from ..history import History
from ..observation import Observation, Standing
from .guard import is_allowed, is_meant
from .page import Seen, page

_log = Logger()

KEPT = 1.0
"""Seconds for which an answer stays good."""
CONNECTIONS = 64
"""At the same time; more are closed at once."""
SLOWEST = 30.0
"""Seconds that a request, or the reading of its answer, may take."""
PIECE = 250
"""Sessions that are written as JSON in one turn."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "starttls-gateway",
}

HTML, TEXT, JSON = "text/html; charset=utf-8", "text/plain; charset=utf-8", "application/json"
FILES = {"/style.css": "text/css; charset=utf-8", "/page.js": "text/javascript; charset=utf-8"}
"""Static ones, beside this module."""


class Subject(Protocol):
    """What is looked at: one process, or a master that asks its workers and puts their answers together."""

    def observe(self, sessions: bool) -> Deferred[Observation]:
        """What is there now.  `sessions`: with a view of each open session."""

    def standing(self) -> Standing:
        """What does not change from one moment to the next: services, certificates."""


@dataclass(frozen=True, slots=True)
class Answer:
    body: bytes
    content_type: str
    status: int = 200


class Admin(Resource):
    """All paths.  `token`: nothing where none is needed; `names`: of the Host header, in lower case, or None where any
    may ask (a UNIX socket)."""

    isLeaf = True

    def __init__(self, reactor: IReactorTime, subject: Subject, token: str, names: Collection[str] | None) -> None:
        super().__init__()
        self.history = History(reactor.seconds)
        self._reactor = reactor
        self._subject = subject
        self.token = token
        self._names = names
        self._observed: dict[bool, tuple[float, Observation]] = {}
        self._asked: dict[bool, list[Deferred[Observation]]] = {}
        self._made: dict[tuple[str, str], tuple[Observation, Answer]] = {}
        self._files = {path: resources.files(__package__).joinpath(path[1:]).read_bytes() for path in FILES}
        self._paths: Mapping[str, Callable[[Observation, str], Answer]] = {"/metrics": _metrics, "/": self._page}

    def look(self) -> None:
        """To be called every now and then: the history goes on while nobody asks."""
        if self.history.is_due:
            self._observe(False)

    # --- requests --------------------------------------------------------------------------------

    def render(self, request: Request) -> int:
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        path = request.path.decode("ascii", "replace")
        if self._refuses(request, path):
            return NOT_DONE_YET
        if path == "/healthz":
            _answer(request, Answer(b"ok\n", TEXT))
        elif path in FILES:
            _answer(request, Answer(self._files[path], FILES[path]))
        elif path == "/sessions.json":
            self._observe(True).addCallbacks(lambda seen: self._stream(request, seen), _broken, (), {}, (request,))
        elif path == "/readyz" or path.startswith("/readyz/"):
            self._later(request, path, lambda seen, _: _ready(seen, path.removeprefix("/readyz").removeprefix("/")))
        elif path in self._paths:
            self._later(request, path, self._paths[path])
        else:
            _answer(request, Answer(b"There is no such page; / is the status page.\n", TEXT, 404))
        return NOT_DONE_YET

    def _refuses(self, request: Request, path: str) -> bool:
        host = request.getHeader("host")
        if self._names is not None and not is_meant(host, self._names):
            text = b"This name is not one of the gateway's; use its address, or add the name to [admin] names.\n"
            _answer(request, Answer(text, TEXT, 421))
        elif request.method not in (b"GET", b"HEAD"):
            request.setHeader("Allow", "GET, HEAD")
            _answer(request, Answer(b"Read-only: use GET.\n", TEXT, 405))
        elif self.token and not _is_health(path) and not is_allowed(request.getHeader("authorization"), self.token):
            request.setHeader("WWW-Authenticate", 'Basic realm="starttls-gateway", charset="UTF-8"')
            _answer(request, Answer(b"Use the token of [admin] token_file, as the password or as Bearer.\n", TEXT, 401))
        else:
            return False
        return True

    def _later(self, request: Request, path: str, make: Callable[[Observation, str], Answer]) -> None:
        accept = request.getHeader("accept") or ""

        def made(seen: Observation) -> None:
            kind = "openmetrics" if "openmetrics" in accept else ""
            kept = self._made.get((path, kind))
            if kept is None or kept[0] is not seen:
                if len(self._made) > CONNECTIONS:
                    self._made.clear()  # paths are the client's words
                kept = self._made[path, kind] = seen, make(seen, accept)
            _answer(request, kept[1])

        self._observe(False).addCallback(made).addErrback(_broken, request)

    # --- what is seen ----------------------------------------------------------------------------

    def _observe(self, sessions: bool) -> Deferred[Observation]:
        """What was seen within the last second; those who ask at the same time get the same."""
        if sessions in self._observed:
            when, seen = self._observed[sessions]
            if self._reactor.seconds() - when < KEPT:
                return succeed(seen)
        waiting: Deferred[Observation] = Deferred()
        asked = self._asked.setdefault(sessions, [])
        asked.append(waiting)
        if len(asked) == 1:
            self._subject.observe(sessions).addBoth(self._seen, sessions)
        return waiting

    def _seen(self, seen: Observation | Failure, sessions: bool) -> None:
        if isinstance(seen, Observation):
            self._observed[sessions] = self._reactor.seconds(), seen
            self.history.look(seen.metrics)
        for waiting in self._asked.pop(sessions):
            waiting.callback(seen)

    def _page(self, seen: Observation, accept: str) -> Answer:
        shown = Seen(seen, self._subject.standing(), tuple(self.history.steps))
        return Answer(page(shown).encode(), HTML)

    def _stream(self, request: Request, seen: Observation) -> None:
        if request._disconnected:
            return
        request.setHeader("Content-Type", JSON)
        request.registerProducer(_Pieces(request, pieces_of(seen.sessions)), False)


def _is_health(path: str) -> bool:
    """Load balancers have no token; what they hear is no secret."""
    return path in ("/healthz", "/readyz") or path.startswith("/readyz/")


def _metrics(seen: Observation, accept: str) -> Answer:
    return Answer(*exposed(seen.metrics, accept))


def _ready(seen: Observation, service: str) -> Answer:
    ready = {labels[0]: value for labels, value in seen.metrics.values.get("ready", {}).items()}
    if service and service not in ready:
        return Answer(b"There is no such service.\n", TEXT, 404)
    if seen.metrics.get("stopping"):
        return Answer(b"The gateway stops.\n", TEXT, 503)
    if any(value for name, value in ready.items() if service in ("", name)):
        return Answer(b"ready\n", TEXT)
    return Answer(b"No backend can be used.\n", TEXT, 503)


def pieces_of(sessions: Collection[str]) -> Iterator[bytes]:
    """A JSON list of these objects, in pieces that each cost a session little time."""
    separator, piece = "[\n", []
    for session in sessions:
        piece.append(separator + session)
        separator = ",\n"
        if len(piece) == PIECE:
            yield "".join(piece).encode()
            piece.clear()
    yield ("".join(piece) + ("[" if not sessions else "") + "\n]\n").encode()


@implementer(IPullProducer)
class _Pieces:
    """Writes a piece whenever the one before has gone."""

    def __init__(self, request: Request, pieces: Iterator[bytes]) -> None:
        self._request = request
        self._pieces = pieces

    def resumeProducing(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            self._request.unregisterProducer()
            self._request.finish()
        else:
            self._request.write(piece)

    def stopProducing(self) -> None:
        self._pieces = iter(())


def _answer(request: Request, answer: Answer) -> None:
    if request._disconnected:
        return
    request.setResponseCode(answer.status)
    request.setHeader("Content-Type", answer.content_type)
    request.setHeader("Content-Length", str(len(answer.body)))
    request.write(answer.body)
    request.finish()


def _broken(failure: Failure, request: Request) -> None:
    _log.failure("the admin listener could not answer {path}", failure, path=request.path)
    _answer(request, Answer(b"A bug: see the log.\n", TEXT, 500))


# --- connections ---------------------------------------------------------------------------------


class _Request(Request):
    """Has no body, and ends in time."""

    def gotLength(self, length: int | None) -> None:
        super().gotLength(0)
        if length != 0:
            transport: Any = self.channel.transport
            transport.write(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n\r\n")
            transport.loseConnection()

    def handleContentChunk(self, data: bytes) -> None:
        pass

    def process(self) -> None:
        transport: Any = self.channel.transport
        deadline = self.channel.factory.reactor.callLater(SLOWEST, transport.abortConnection)
        self.notifyFinish().addBoth(lambda _: deadline.cancel() if deadline.active() else None)
        super().process()


class AdminSite(Site):
    """No access log: nothing that is asked here is worth a line."""

    noisy = False

    def __init__(self, admin: Admin, reactor: Any) -> None:
        super().__init__(admin, requestFactory=_Request, timeout=SLOWEST, reactor=reactor)
        self.displayTracebacks = False
        self._open = 0

    def buildProtocol(self, addr: IAddress) -> HTTPChannel | None:  # type: ignore[override]
        if self._open >= CONNECTIONS:
            return None
        channel = super().buildProtocol(addr)
        self._open += 1
        lost = channel.connectionLost

        def closed(reason: Failure) -> None:
            self._open -= 1
            lost(reason)

        channel.connectionLost = closed
        return channel  # type: ignore[no-any-return]

    def log(self, request: Any) -> None:
        pass
