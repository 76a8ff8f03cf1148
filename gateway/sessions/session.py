"""One session: a client leg, a backend leg, and the negotiation that decides what they do.

The session performs what the negotiation decides and reports what happens back to it.  When the
negotiation is over the legs write to each other, and the session only watches that something moves.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ..dialects.base import Identity, Terms
from ..dialects.conversation import turned_away
from ..guard.limits import Admission
from ..protocol.proxyprotocol import Origin
from ..protocol.vocabulary import (
    BACKEND,
    CLIENT,
    Identified,
    IsBroken,
    MayLogIn,
    Note,
    Open,
    Place,
    Proven,
    Question,
    Rejected,
    Script,
    Secured,
    Tally,
)
from ..protocol.waiting import phase_of
from ..telemetry.catalogue import blame
from ..telemetry.kinds import Blame
from ..telemetry.observation import SessionView
from ..wire.leg import Leg, ends
from ..wire.tls.half import TLSHalf
from .channels import Channels, Surroundings
from .context import SessionContext
from .waits import Waits


def _identity() -> str:
    """A session's name in the log and in the `id` of its trace fields: an RFC 5322 atom."""
    return os.urandom(6).hex()


def _subject(facts: Secured | None) -> str | None:
    """Whom a verified client certificate names."""
    if facts is None or facts.certificate is None or not facts.certificate.verified:
        return None
    return facts.certificate.common_name or ""


def _script(context: SessionContext, terms: Terms) -> Script:
    if reason := context.refusal():
        return turned_away(terms, context.dialect.unavailable(terms.hostname), reason)
    return context.dialect.script(terms)


class Session(Waits):
    """`closed` is called once, when both legs are gone."""

    __slots__ = (
        "__weakref__",
        "_address",
        "_backend_address",
        "_closed",
        "_detail",
        "_events",
        "_reason",
        "_stay",
        "_tallies",
        "_user",
        "identity",
    )

    def __init__(
        self,
        reactor: Any,
        context: SessionContext,
        sock: Any,
        client: str,
        closed: Callable[[Session], None],
        stay: Admission | None = None,
    ) -> None:
        """Without a `stay` there are no limits; it is the caller's to end."""
        self._closed = closed
        self.identity = _identity()
        self._address = client
        self._events = context.events.bound(session=self.identity, service=context.service, client=client)
        told = ends(sock) if context.terms.identity is not Identity.NONE else None
        terms = context.terms.of_session(
            client,
            self.identity,
            None if told is None else Origin(source=told[1], destination=told[0]),
            context.expects_header(client),
            frozenset(context.said),
        )
        negotiation = context.negotiate(_script(context, terms), context.dialect.foreign)
        super().__init__(reactor, context, negotiation, sock)
        self._stay = stay
        self._reason = self._detail = ""
        self._tallies: dict[str, int] = {}
        self._user: str | None = None
        """Who logged in, in the form in which users are told."""
        self._backend_address: str | None = None
        """What was reached last."""

    def start(self) -> None:
        self._events.emit("connected")
        self._client.start()
        # One timer is enough then for greeting, handshake and login.
        self._deadline.set(self._began + self._context.soonest)
        self._report(self._negotiation.start)

    def stop(self) -> None:
        """The gateway shuts down: say goodbye at the next boundary; a splice may go on to its end."""
        self._report(self._negotiation.stop)

    # --- what can be seen ----------------------------------------------------------------------

    @property
    def service(self) -> str:
        return self._context.service

    @property
    def client(self) -> str:
        """Its address; empty for a UNIX socket."""
        return self._address

    @property
    def backend(self) -> str | None:
        """The address that was reached last, as the configuration has it."""
        return self._backend_address

    @property
    def octets(self) -> tuple[int, int]:
        """From the client and to it, channels included."""
        received, sent = self._client.received, self._client.sent
        if self._channels is None:
            return received, sent
        more = self._channels.octets
        return received + more[0], sent + more[1]

    @property
    def channels(self) -> int:
        """Open ones."""
        return 0 if self._channels is None else len(self._channels)

    def view(self, worker: int = 0) -> SessionView:
        """What an administrator may know of it."""
        facts = self._client.secured
        idle = [leg.idle for leg in self._legs.values()] + (self._channels.idle if self._channels is not None else [])
        received, sent = self.octets
        return SessionView(
            id=self.identity,
            service=self._context.service,
            protocol=self._context.dialect.name,
            client=self._address,
            phase=self.phase(),
            tls=facts.version if facts else None,
            cipher=facts.cipher if facts else None,
            sni=facts.sni if facts else None,
            backend=self._backend_address,
            age=round(float(self._reactor.seconds()) - self._began, 3),
            received=received,
            sent=sent,
            messages=self._tallies.get("messages", 0),
            idle=min((seconds for seconds in idle if seconds is not None), default=None),
            counts=dict(self._tallies),
            user=self._user,
            worker=worker,
        )

    # --- what happens ------------------------------------------------------------------------

    def _dialled(self, sock: Any) -> None:
        assert self._attempt is not None
        self._backend_address = self._attempt.reached.address
        self._events.emit(
            "backend-connected", phase="dialling", backend_address=self._backend_address, seconds=self._waited()
        )
        super()._dialled(sock)

    def leg_secured(self, leg: Leg, facts: Secured) -> None:
        if (side := self._side(leg)) is not None:
            self._events.emit(
                "secured",
                phase="handshake",
                leg="client" if side is CLIENT else "backend",
                tls=facts.version,
                cipher=facts.cipher,
                group=facts.group,
                sni=facts.sni if side is CLIENT else None,
                seconds=self._waited(),
            )
        super().leg_secured(leg, facts)

    # --- what is done ------------------------------------------------------------------------

    def _accept(self, name: bytes) -> TLSHalf:
        channels = self._context.channels
        scope = (self.identity.encode("ascii"),) if channels is not None and channels.resumed else ()
        return self._context.accept_tls(self._address, name, *scope)

    def _blame(self, failed: str) -> tuple[Blame, str]:
        return blame(failed, self._context.terms.identity is not Identity.NONE), self._address

    def _tell(self, fact: Proven | Rejected | Tally) -> None:
        match fact:
            case Proven():
                self._proven = True
            case Rejected():
                if self._stay is not None:
                    self._stay.rejected()
            case Tally(what=what):
                self._tallies[what] = self._tallies.get(what, 0) + 1

    def _answer(self, question: Question) -> object:
        match question:
            case Identified(client=client):
                self._identify(client)
                return "" if self._stay is None else self._stay.moved(client)
            case MayLogIn():
                return self._stay is None or self._stay.may_log_in()
            case Open():
                return self._open(question)
            case IsBroken():
                return self._channels is not None and self._channels.broken
        watch = self._context.watch
        return None if watch is None else watch.always(self._context.service, self._address)

    def _failed(self, error: Exception) -> None:
        self.abort()
        raise error

    def _open(self, order: Open) -> Place | None:
        if self._context.channels is None:
            return None
        if self._channels is None:
            self._channels = Channels(
                Surroundings(
                    self._reactor,
                    self._context.channels,
                    self._linger,
                    accept=lambda: self._accept(b""),
                    connect=self._connect_again,
                    leg=self._legs.get,
                    client=lambda: self._address,
                    emit=self._emit_of_channel,
                    gone=self._channel_gone,
                )
            )
        return self._channels.open(order)

    def _connect_again(self) -> TLSHalf:
        """TLS for another connection to the backend, which resumes that of the session."""
        half, leg = self._connect(), self._legs.get(BACKEND)
        # A transfer may go on behind the session, inside TLS nevertheless.
        if leg is not None and leg.half is not None and leg.half.session is not None:
            half.resume(leg.half.session)
        return half

    def _emit_of_channel(self, event: str, **fields: object) -> None:
        if event == "transfer":
            self._tell(Tally("transfers"))
        self._events.emit(event, phase=self.phase(), **fields)

    def _identify(self, client: str) -> None:
        """A load balancer told who this is: the log goes by that."""
        self._address = client
        self._events = self._context.events.bound(session=self.identity, service=self._context.service, client=client)

    def _note(self, note: Note) -> None:
        if note.once:
            if note.event in self._context.said:
                return
            self._context.said.add(note.event)
        fields = dict(note.fields)
        if note.event == "auth":
            self._user = self._context.complete(fields, self._client.secured) or self._user
        self._events.emit(note.event, phase=self.phase(), **fields)

    def phase(self) -> str:
        """Where it is, in one of the words of docs/events.md."""
        return "relaying" if self._spliced else phase_of(self._awaited, self._client.secured is not None)

    # --- the end -----------------------------------------------------------------------------

    def _finish(self, reason: str, detail: str = "") -> None:
        if not self._over:
            self._over = True
            self._reason, self._detail = reason, detail
        self._stop()

    def _note_habit(self, *, secured: bool) -> None:
        """Whoever always used TLS, and did something without it now, is told of."""
        watch = self._context.watch
        if watch is None or not (secured or self._proven or self._spliced or self._tallies):
            return
        if dates := watch.over(self._context.service, self._address, secured=secured, user=self._user):
            self._events.emit("downgrade", phase=self.phase(), action="logged", **dates)

    def _account(self) -> None:
        client = self._client
        facts = client.secured
        received, sent = self.octets
        try:
            self._note_habit(secured=facts is not None)
            self._events.emit(
                "session",
                protocol=self._context.dialect.name,
                policy=self._context.policy,
                tls=facts.version if facts else None,
                cipher=facts.cipher if facts else None,
                group=facts.group if facts else None,
                sni=facts.sni if facts else None,
                alpn=facts.alpn if facts else None,
                certificate=_subject(facts),
                user=self._user,
                backend_address=self._backend_address,
                phase=self.phase(),
                reason=self._reason,
                detail=self._detail or None,
                received=received,
                sent=sent,
                **self._tallies,
                proven=self._proven or None,
                seconds=round(self._reactor.seconds() - self._began, 3),
            )
        finally:
            self._closed(self)
            # As in a leg: no circle is left for the garbage collector.
            self._channels = None
            del self._deadline, self._attempt
