"""HTTP for the admin listener: what is asked, who may ask, and answers that cost sessions nothing.

It is read-only, but for what an administrator with the token asks for by a form (acting.py).

Answers are kept for a second, so that a thousand requests a second cost one look at the gateway.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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

from ...records import dataclass
from ..exposition import exposed
from ..history import History
from ..observation import Observation, Standing
from .acting import LONGEST, PATH, Action, Result, action_of, answer_page, is_own, outcome
from .guard import is_allowed, is_meant
from .making import NoReport
from .page import Seen, page
from .reports import Reports

_log = Logger()

KEPT = 1.0
"""Seconds for which an answer stays good."""
CONNECTIONS = 64
"""At the same time; more are closed at once."""
READERS = 8
"""Of lists of sessions, at the same time: each may hold a list of its own, however slowly it reads."""
SLOWEST = 30.0
"""Seconds that a request may take to come, and as many for its answer to be read."""
PART = 65536
"""Octets of a longer answer that are written in one turn."""
_SINCE = re.compile(r"[1-9][0-9]{0,3}(?=d?\Z)")
DAYS = 30
"""That the report is about, unless the request says other."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # `no-referrer` would hide from the gateway that a form is its own: the browser would say `Origin: null`.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "starttls-gateway",
}

HTML, TEXT, JSON = "text/html; charset=utf-8", "text/plain; charset=utf-8", "application/json"
CSV = "text/csv; charset=utf-8"
REPORTS = {"/report": ("html", HTML), "/report.json": ("json", JSON), "/report.csv": ("csv", CSV)}
"""Form and content type by path."""
FILES = {
    "/style.css": "text/css; charset=utf-8",
    "/page.js": "text/javascript; charset=utf-8",
    "/icon.svg": "image/svg+xml",
}
"""Static ones, beside this module."""


class Subject(Protocol):
    """What is looked at: one process, or a master that asks its workers and puts their answers together."""

    def observe(self, sessions: bool) -> Deferred[Observation]:
        """What is there now.  `sessions`: with a view of each open session."""

    def standing(self) -> Standing:
        """What does not change from one moment to the next: services, certificates."""


class Office(Protocol):
    """The gateway as a whole."""

    def report(self, days: int, form: str) -> Deferred[bytes]:
        """As `html`, `json` or `csv`.  Fails with NoReport."""

    def act(self, action: Action, who: str) -> Deferred[tuple[Result, Sequence[str]]]:
        """What became of it: a result, and why it was not done.  `who`: whom the log names."""


@dataclass(frozen=True, slots=True)
class Answer:
    body: bytes
    content_type: str
    status: int = 200


class Admin(Resource):
    """All paths.  `token`: nothing where none is needed; `names`: of the Host header, in lower case, or None where any
    may ask (a UNIX socket)."""

    isLeaf = True

    def __init__(
        self, reactor: IReactorTime, subject: Subject, office: Office, token: str, names: Collection[str] | None
    ) -> None:
        super().__init__()
        self._readers = 0
        self._csrf = secrets.token_urlsafe(24)
        self._office = office
        self._reports = Reports(reactor, office.report)
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

    def render(self, request: _Request) -> int:
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
        elif path in REPORTS:
            self._report(request, *REPORTS[path])
        elif path.startswith(PATH):
            self._act(request, path)
        else:
            _answer(request, Answer(b"There is no such page; / is the status page.\n", TEXT, 404))
        return NOT_DONE_YET

    def _refuses(self, request: _Request, path: str) -> bool:
        host = request.getHeader("host")
        if self._names is not None and not is_meant(host, self._names):
            text = b"This name is not one of the gateway's; use its address, or add the name to [admin] names.\n"
            _answer(request, Answer(text, TEXT, 421))
        elif path.startswith(PATH) and not self.token:
            text = b"Read-only: without [admin] token_file nobody can act here.\n"
            _answer(request, Answer(text, TEXT, 403))
        elif request.method not in ((b"POST",) if path.startswith(PATH) else (b"GET", b"HEAD")):
            allowed = "POST" if path.startswith(PATH) else "GET, HEAD"
            request.setHeader("Allow", allowed)
            _answer(request, Answer(f"Use {allowed}.\n".encode(), TEXT, 405))
        elif self.token and not _is_health(path) and not is_allowed(request.getHeader("authorization"), self.token):
            request.setHeader("WWW-Authenticate", 'Basic realm="starttls-gateway", charset="UTF-8"')
            _answer(request, Answer(b"Use the token of [admin] token_file, as the password or as Bearer.\n", TEXT, 401))
        else:
            return False
        return True

    def _later(self, request: _Request, path: str, make: Callable[[Observation, str], Answer]) -> None:
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
        csrf = self._csrf if self.token else ""
        shown = Seen(seen, self._subject.standing(), tuple(self.history.steps), csrf)
        return Answer(page(shown).encode(), HTML)

    # --- the report ------------------------------------------------------------------------------

    def _report(self, request: _Request, form: str, content_type: str) -> None:
        since = _SINCE.match(_given(request, "since") or str(DAYS))
        if since is None:
            _answer(request, Answer(b"since: write a number of days, like 30d.\n", TEXT, 400))
            return

        def made(report: bytes) -> None:
            _answer(request, Answer(report, content_type))

        def failed(failure: Failure) -> None:
            if failure.check(NoReport):
                _answer(request, Answer(f"{failure.getErrorMessage()}\n".encode(), TEXT, 404))
            else:
                _broken(failure, request)

        self._reports.get(int(since[0]), form).addCallback(made).addErrback(failed)

    # --- actions ---------------------------------------------------------------------------------

    def _act(self, request: _Request, path: str) -> None:
        names = ("origin", "sec-fetch-site", "host", "authorization")
        scheme = "https" if request.isSecure() else "http"
        headers = {name: request.getHeader(name) for name in names}
        if not is_own(headers, scheme, _given(request, "csrf"), self._csrf):
            self._told(request, ["This did not come from a form of this page: load the page again."], {}, 403)
            return
        given = {name.decode("utf-8", "replace"): _given(request, name) for name in request.args or {}}
        action = action_of(path, given)
        if isinstance(action, str):
            self._told(request, [action], {}, 400)
            return

        def done(answer: tuple[Result, Sequence[str]]) -> None:
            result, problems = answer
            self._told(request, outcome(action, result, problems), result, 409 if problems else 200)

        who = f"admin listener, {getattr(request.getClientAddress(), 'host', 'unix')}"
        self._office.act(action, who).addCallback(done).addErrback(_broken, request)

    def _told(self, request: _Request, sentences: Sequence[str], result: Result, status: int) -> None:
        good = status == 200
        if "application/json" in (request.getHeader("accept") or ""):
            told = {"ok": good, "problems": [] if good else list(sentences), "result": result}
            _answer(request, Answer(json.dumps(told).encode() + b"\n", JSON, status))
        else:
            _answer(request, Answer(answer_page(self._subject.standing(), sentences, good).encode(), HTML, status))

    def _stream(self, request: _Request, seen: Observation) -> None:
        if request.is_over:
            return
        if self._readers >= READERS:
            request.setHeader("Retry-After", "1")
            _answer(request, Answer(b"Others are reading the list; ask again.\n", TEXT, 503))
            return
        self._readers += 1
        request.notifyFinish().addBoth(self._read)
        request.setHeader("Content-Type", JSON)
        request.registerProducer(_Pieces(request, pieces_of(seen.sessions)), False)

    def _read(self, _: object) -> None:
        self._readers -= 1


def _given(request: _Request, name: str | bytes) -> str:
    """The first value of this name in the query or in the form; empty where there is none."""
    octets = name.encode() if isinstance(name, str) else name
    values: Sequence[bytes] = (request.args or {}).get(octets) or [b""]
    return values[0].decode("utf-8", "replace")


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
    separator = "[\n"
    for some in sessions:
        yield f"{separator}{some}".encode()
        separator = ",\n"
    yield b"\n]\n" if sessions else b"[\n]\n"


@implementer(IPullProducer)
class _Pieces:
    """Writes a piece whenever the one before has gone."""

    def __init__(self, request: _Request, pieces: Iterator[bytes]) -> None:
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


def _answer(request: _Request, answer: Answer) -> None:
    if request.is_over:
        return
    request.setResponseCode(answer.status)
    request.setHeader("Content-Type", answer.content_type)
    request.setHeader("Content-Length", str(len(answer.body)))
    if len(answer.body) > PART:
        parts = (answer.body[begin : begin + PART] for begin in range(0, len(answer.body), PART))
        request.registerProducer(_Pieces(request, parts), False)
    else:
        request.write(answer.body)
        request.finish()


def _broken(failure: Failure, request: _Request) -> None:
    _log.failure("the admin listener could not answer {path}", failure, path=request.path)
    _answer(request, Answer(b"A bug: see the log.\n", TEXT, 500))


# --- connections ---------------------------------------------------------------------------------


class _Request(Request):
    """Has no body but a short form, and ends in time."""

    is_over = False
    """All of the answer has gone, or nobody is there any more who reads it."""

    def gotLength(self, length: int | None) -> None:
        self._short = length is not None and length <= LONGEST
        super().gotLength(length if self._short else 0)
        if not self._short:
            transport: Any = self.channel.transport
            transport.write(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n\r\n")
            transport.loseConnection()

    def handleContentChunk(self, data: bytes) -> None:
        if self._short:
            super().handleContentChunk(data)

    def process(self) -> None:
        transport: Any = self.channel.transport
        deadline = self.channel.factory.reactor.callLater(SLOWEST, transport.abortConnection)

        def over(_: object) -> None:
            self.is_over = True
            if deadline.active():
                deadline.cancel()

        self.notifyFinish().addBoth(over)
        super().process()


class _Channel(HTTPChannel):
    """One connection."""

    factory: Any
    """The AdminSite."""

    def resetTimeout(self) -> None:
        """All of a request has to come within the time: an octet now and then gives no more of it."""

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.factory.connections -= 1
        super().connectionLost(reason)


class AdminSite(Site):
    """No access log: nothing that is asked here is worth a line."""

    noisy = False
    protocol = _Channel  # type: ignore[assignment]

    def __init__(self, admin: Admin, reactor: Any) -> None:
        super().__init__(admin, requestFactory=_Request, timeout=SLOWEST, reactor=reactor)
        self.displayTracebacks = False
        self.connections = 0
        """That are open."""

    def buildProtocol(self, addr: IAddress) -> HTTPChannel | None:  # type: ignore[override]
        if self.connections >= CONNECTIONS:
            return None
        self.connections += 1
        return super().buildProtocol(addr)  # type: ignore[no-any-return]

    def log(self, request: Any) -> None:
        pass
