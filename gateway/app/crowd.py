"""Everybody who is inside: who is let in, and that each is counted out again."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Iterable, Set
from contextlib import suppress
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from typing import Any

from twisted.logger import Logger

from ..config.values import Limits as Values
from ..config.values import Network
from ..dialects.conversation import REFUSED
from ..guard.captures import Captures
from ..guard.limits import Admission, Ledger, Limits, OwnLedger, ReachedLimit, affordable, client_key, matters
from ..guard.shared import HUNG, Killed, SharedLedger
from ..protocol.proxyprotocol import canonical, nameless
from ..sessions.context import SessionContext
from ..sessions.recording import recorded
from ..sessions.session import Session
from ..telemetry.summary import Teller
from ..wire.held import Held

_log = Logger()

UNHEARD = 65536
"""Octets that are read of a client that is turned away: closing with unread octets would send a RST, and destroy our
words."""

HOLD = 1.0
"""Seconds that a connection from `[gateway] probes` is waited for to say something or to close."""
HELD = 1000
"""Connections that are held at the same time; more are sessions at once."""


class Crowd:
    """The sessions of the gateway.  `gone` is called each time that the last of them has ended."""

    def __init__(
        self,
        reactor: Any,
        events: Teller,
        notices: Teller,
        values: Values,
        gone: Callable[[], None],
        ledger: Ledger | None = None,
        workers: int = 1,
        closed: Set[str] = frozenset(),
        channels: int = 0,
    ) -> None:
        """`events`: what clients cause.  `notices`: what is the gateway's own.  `ledger`: that of several workers.
        `closed`: services that take nobody any more.  `channels`: see `limit`."""
        self.sessions: set[Session] = set()
        self._closed = closed
        self.probes: tuple[Network, ...] = ()
        """From here load balancers look whether somebody listens."""
        self.captures = Captures(reactor.seconds)
        self._held: dict[socket.socket, Held] = {}
        self._reactor = reactor
        self._events = events
        self._gone = gone
        self._descriptors = raise_descriptor_limit()
        self._notices = notices
        self._workers = workers
        self.limits = Limits(values, reactor.seconds, ledger)
        self.limit(values, channels)

    def share(self) -> SharedLedger:
        """Count where other processes can, too."""
        ledger = self.limits.ledger
        if isinstance(ledger, OwnLedger):
            shared = SharedLedger.create(self.limits.values.sessions, killed_by(self._events))
            shared = shared.of(shared.claim())
            shared.take(ledger)
            self.limits.ledger = ledger = shared
        assert isinstance(ledger, SharedLedger)
        return ledger

    @property
    def tables(self) -> Iterable[dict[Any, Any] | set[Any]]:
        """Those that have grown with the number of sessions."""
        return self.sessions, *self.limits.ledger.tables

    def limit(self, values: Values, channels: int = 0) -> None:
        """Other limits from now on.  What was counted stays counted, and nobody who is inside has to leave.

        `channels`: how many a session may have open."""
        self.limits.own = affordable(values.sessions, self._descriptors, channels)
        self.limits.values = lowered(values, self._descriptors, self._workers, self._notices, channels)

    def accept(self, context: SessionContext, sock: socket.socket, address: Any) -> None:
        """Begin a session, or say why not and close.  `address` is what accept(2) gave."""
        client = _client(address)
        if context.service in self._closed:
            self._events.emit(REFUSED, service=context.service, client=client, limit="drained")
            _turn_away(sock, b"" if context.terms.implicit else context.dialect.unavailable(context.terms.hostname))
            return
        if self.probes and client and len(self._held) < HELD:
            place = ip_address(client)
            if any(place in network for network in self.probes):
                self._hold(context, sock, client)
                return
        self._admit(context, sock, client)

    def _hold(self, context: SessionContext, sock: socket.socket, client: str) -> None:
        """A client says something, or waits for a greeting; a bare connect closes before that."""

        introduced = False

        def introduces(octets: bytes) -> int:
            """A load balancer says by a header that it is there on its own behalf."""
            nonlocal introduced
            length = 0 if introduced or not context.expects_header(client) else nameless(octets)
            introduced = introduced or bool(length)
            return length

        def begin(_: socket.socket) -> None:
            del self._held[sock]
            try:
                # There is one header at most.
                self._admit(replace(context, accept_proxy=()) if introduced else context, sock, client, introduced)
            except BaseException:
                sock.close()  # as the listener does
                raise

        def gone() -> None:
            del self._held[sock]
            self._events.emit("probed", service=context.service, client=client)

        self._held[sock] = Held(self._reactor, sock, HOLD, begin, gone, introduces)

    def drop_held(self) -> None:
        """Nobody is let in any more."""
        self.probes = ()
        for held in self._held.values():
            held.drop()
        self._held.clear()

    def _admit(self, context: SessionContext, sock: socket.socket, client: str, balancer: bool = False) -> None:
        # Whoever comes through a load balancer is nobody until its PROXY header tells; it has no limits itself.
        known = "" if balancer or context.expects_header(client) else client
        key = client_key(known)
        refusal = ReachedLimit.BANNED if self.limits.banned(known) else self.limits.admit(key)
        if refusal is not None:
            self._events.emit(REFUSED, service=context.service, client=client, limit=refusal.value)
            _turn_away(sock, b"" if context.terms.implicit else context.dialect.busy(context.terms.hostname))
            return
        if self.captures and (not known or self.captures.wants(known)):
            context = recorded(context, self.captures.add)
        stay = Admission(self.limits, key)
        try:
            session = Session(self._reactor, context, sock, client, partial(self._over, stay), stay)
        except BaseException:
            stay.left()
            raise
        self.sessions.add(session)
        try:
            session.start()
        except BaseException:
            session.abort()
            raise

    def _over(self, stay: Admission, session: Session) -> None:
        stay.left()
        self.sessions.discard(session)
        if not self.sessions:
            self._gone()

    def tell_all(self, act: Callable[[Session], None]) -> None:
        self.tell(list(self.sessions), act)

    def tell(self, sessions: Iterable[Session], act: Callable[[Session], None]) -> None:
        """A bug in one session keeps no other from being told."""
        for session in sessions:
            try:
                act(session)
            except Exception as error:
                _log.critical("a bug at the end of one session: {kind}", kind=type(error).__name__)


def lowered(values: Values, descriptors: int, workers: int, notices: Teller, channels: int = 0) -> Values:
    """What so many workers can keep, each of which may open so many files."""
    sessions = min(values.sessions, workers * affordable(values.sessions, descriptors, channels))
    if matters(values.sessions, sessions):
        notices.emit(
            "limit-lowered",
            limit=ReachedLimit.SESSIONS.value,
            wanted=values.sessions,
            value=sessions,
            detail=f"the limit of open files is {descriptors}" + (f", for each of {workers} workers" * (workers > 1)),
            cure="raise it (LimitNOFILE), or write [limits] sessions as it is",
        )
    return replace(values, sessions=sessions)


def killed_by(events: Teller) -> Killed:
    """For a ledger: have the log say which process kept all the others from counting."""

    def tell(pid: int) -> None:
        detail = f"it hung while all processes of the gateway waited for it to count a session, about {HUNG:.0f} s long"
        events.emit("process-killed", pid=pid, detail=detail)

    return tell


def _client(address: Any) -> str:
    """The client's canonical address, of the one that accept(2) gave; empty for a UNIX socket."""
    if not address or isinstance(address, (str, bytes)):
        return ""
    host: str = address[0]
    return canonical(host) if ":" in host else host


def _turn_away(sock: socket.socket, words: bytes) -> None:
    """Say so, if anything, and close: a client that is refused costs no descriptor that others could have.

    Octets that the other end has yet to send can still cross our words; nobody sends any before he was greeted.
    """
    with suppress(OSError):
        sock.send(words)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(UNHEARD)
    sock.close()


def raise_descriptor_limit() -> int:
    """How many files may be open now: the hard limit, where the kernel allows it.

    A session takes two descriptors; the soft limit is a default for programs that use select().
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return soft  # a kernel that allows less than the hard limit says
    return hard
