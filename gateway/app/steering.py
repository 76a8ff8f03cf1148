"""What the control socket asks of one process: each command is answered from what runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Set
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed

from ..sessions.session import Session
from .acting import meant
from .assembly import Reachable
from .control.answers import WHO, Row, names, selects
from .control.messages import Answer, Request
from .observing import VIEWS
from .plan import named
from .turns import with_each

if TYPE_CHECKING:
    from .serving import Serving


ENDED = 20
"""Sessions that are ended in one turn of the event loop: a few milliseconds."""


class Steering:
    """`ask` answers a request.  A turn of the reactor may take as long as a reload does, and no longer."""

    def __init__(self, gateway: Serving) -> None:
        self._gateway = gateway
        self._began = datetime.now(timezone.utc)
        self._commands: Mapping[str, Callable[[str], Answer | Deferred[Answer]]] = {
            "status": self._status,
            "drain": self._drain,
            "undrain": self._undrain,
            "who": self._who,
            "kick": self._kick,
            "capture": self._capture,
        }

    def ask(self, request: Request) -> Deferred[Answer]:
        answer = self._commands[request.command](request.about)
        return answer if isinstance(answer, Deferred) else succeed(answer)

    # --- status ------------------------------------------------------------------------------

    def _status(self, _: str) -> Answer:
        gateway = self._gateway
        now = datetime.now(timezone.utc)
        sessions = len(gateway.crowd.sessions)
        return Answer({
            "processes": [{
                "pid": os.getpid(), "started": self._began.isoformat(timespec="seconds"),
                "uptime": round((now - self._began).total_seconds(), 3), "sessions": sessions,
            }],
            "sessions": sessions,
            "limit": gateway.crowd.limits.values.sessions,
            "services": self._services(),
            "backends": self._backends(),
            "certificates": self._certificates(now),
            "warnings": list(gateway.renewal.refused),
        })  # fmt: skip

    def _services(self) -> list[dict[str, Any]]:
        gateway = self._gateway
        inside = _counted(session.service for session in gateway.crowd.sessions)
        rows: dict[str, dict[str, Any]] = {}
        for door, opening, context in gateway.assembly.doors:
            row = rows.setdefault(context.service, {
                "name": context.service,
                "protocol": context.dialect.name,
                "backend": opening.service.backend.name,
                "sessions": inside.get(context.service, 0),
                "draining": context.service in gateway.drained.services,
                "refusal": context.refusal() or None,
                "listeners": [],
            })  # fmt: skip
            mode = "implicit" if opening.implicit else "starttls"
            row["listeners"] += [{"address": text, "mode": mode, "policy": opening.policy} for text in door.addresses]
        return list(rows.values())

    def _backends(self) -> list[dict[str, Any]]:
        inside = _counted(session.backend for session in self._gateway.crowd.sessions)
        return [
            {
                "name": values.name,
                "tls": values.tls,
                "addresses": [
                    {
                        "address": str(address),
                        "state": self._state(backend, address),
                        "sessions": inside.get(str(address), 0),
                    }
                    for address in values.addresses
                ],
            }
            for values, backend in self._gateway.assembly.backends.items()
        ]

    def _state(self, backend: Reachable, address: Any) -> str:
        if str(address) in self._gateway.drained.addresses:
            return "drained"
        if backend.watch is not None and not backend.watch.permits(address):
            return "unknown" if backend.watch.verdicts[address] is None else "relays"
        return "down" if backend.dialer.is_down(address) else "up"

    def _certificates(self, now: datetime) -> list[dict[str, Any]]:
        return [
            {
                "file": str(one.pair.certificate),
                "names": list(one.names),
                "key": one.key,
                "not_after": one.not_after.isoformat(),
                "days": one.days(now),
            }
            for one in self._gateway.renewal.served
        ]

    # --- drain -------------------------------------------------------------------------------

    def _drain(self, name: str) -> Answer | Deferred[Answer]:
        return self._mark(name, drained=True)

    def _undrain(self, name: str) -> Answer | Deferred[Answer]:
        return self._mark(name, drained=False)

    def _mark(self, name: str, drained: bool) -> Answer | Deferred[Answer]:
        try:
            what, names = named(name, self._gateway.assembly.configuration)
        except ValueError as wrong:
            return Answer({}, (str(wrong),))
        sessions = self._sessions_of(what, names)
        self._gateway.drained.mark(what, names, drained)
        answer = Answer({"what": what, "names": sorted(names), "draining": drained, "sessions": len(sessions)})
        if not drained:
            return answer
        return self._with_each(sessions, ENDED, lambda session: self._tell(session, Session.stop), lambda: answer)

    def _sessions_of(self, what: str, names: Set[str]) -> list[Session]:
        inside = self._gateway.crowd.sessions
        if what == "service":
            return [session for session in inside if session.service in names]
        return [session for session in inside if session.backend in names]

    # --- sessions ----------------------------------------------------------------------------

    def _with_each(
        self, sessions: Iterable[Session], number: int, act: Callable[[Session], None], answer: Callable[[], Answer]
    ) -> Deferred[Answer]:
        """`act` on those that are still inside when it is their turn."""

        def look(session: Session) -> None:
            if session in self._gateway.crowd.sessions:
                act(session)

        return with_each(self._gateway.reactor, sessions, number, look).addCallback(lambda _: answer())

    def _tell(self, session: Session, act: Callable[[Session], None]) -> None:
        self._gateway.crowd.tell((session,), act)

    def _who(self, filter_: str) -> Answer | Deferred[Answer]:
        try:
            is_meant = selects(filter_, self._gateway.assembly.users)
        except ValueError as wrong:
            return Answer({}, (str(wrong),))
        rows: list[Row] = []

        def look(session: Session) -> None:
            if is_meant(_Glance(session)):
                rows.append(row_of(session))

        def answer() -> Answer:
            return Answer({"sessions": sorted(rows, key=lambda row: -row["age"])})

        return self._with_each(self._gateway.crowd.sessions, VIEWS, look, answer)

    def _kick(self, whom: str) -> Deferred[Answer]:
        is_meant = names(whom, self._gateway.assembly.users)
        kicked: list[str] = []

        def look(session: Session) -> None:
            if is_meant(_Glance(session)):
                kicked.append(session.identity)
                self._tell(session, lambda session: session.abort("kicked"))

        return self._with_each(self._gateway.crowd.sessions, ENDED, look, lambda: Answer({"sessions": len(kicked)}))

    def _capture(self, client: str) -> Answer:
        try:
            rows, lost = self._gateway.crowd.captures.read(meant(client))
        except ValueError as wrong:
            return Answer({}, (str(wrong),))
        return Answer({"lines": rows, "lost": lost})


def _counted(names: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def row_of(session: Session) -> Row:
    """As `who` shows it."""
    view = session.view()
    return {name: getattr(view, name) for name in WHO}


class _Glance(dict[str, Any]):
    """Such a row, of which the costly part is made only for a filter that asks for it."""

    def __init__(self, session: Session) -> None:
        super().__init__(id=session.identity, client=session.client, service=session.service)
        self._session = session

    def __missing__(self, name: str) -> Any:
        self.update(row_of(self._session))
        return self[name]
