"""What an administrator does about clients, for the whole gateway: `ban`, `unban`, `bans` and `why`.

The process that answers at the control socket has all bans, and hears the events of all processes.  Bans are kept in a
file beside the report's, for the next start.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred, succeed

from ..config.grammar import network
from ..config.values import Configuration, Network
from ..guard.bans import Bans, written
from ..telemetry.explaining import explained
from ..telemetry.failures import Failures
from ..telemetry.summary import Teller
from .control.messages import Answer, Request, Result
from .workers.messages import Message

DEFAULT: Final = 3600.0
"""Seconds of a ban."""
LONGEST: Final = 366 * 86400.0
WIDEST: Final = {4: 8, 6: 16}
"""By IP version, the length of the shortest prefix: whoever bans more has mistyped it, or wants `drain`."""
NAME: Final = "bans.json"
"""Of the file, in the directory of `[report] file`."""
SOON: Final = 1.0
"""Seconds until a change is in the file."""
SITE: Final = 64
"""Bits of the network that one IPv6 customer has at least (RFC 6177)."""
SHOWN: Final = 50
"""Failures in one answer."""


class Acting:
    """Nothing is banned in other processes but by `changed`.  Each command is one method."""

    def __init__(
        self,
        events: Teller,
        failures: Failures,
        configuration: Callable[[], Configuration],
        changed: Callable[[], Any],
        ask: Callable[[Request], Any],
        reactor: Callable[[], Any],
    ) -> None:
        """`changed` tells the other processes, and may give a Deferred, until they know.

        `ask` answers `who` and `kick`, or gives a Deferred of the answer."""
        self._reactor = reactor
        self._writing: Any = None
        """The call that will write the file."""
        self.bans = Bans()
        self._events = events
        self._failures = failures
        self._configuration = configuration
        self._changed = changed
        self._ask = ask
        self._commands: dict[str, Callable[[Request], Deferred[Answer]]] = {
            "ban": self._ban,
            "unban": self._unban,
            "bans": self._shown,
            "why": self._why,
        }

    def answers(self, request: Request) -> bool:
        return request.command in self._commands

    def ask(self, request: Request) -> Deferred[Answer]:
        return self._commands[request.command](request)

    def look(self) -> None:
        """Call it every few seconds: tells of bans whose time is over."""
        for one in self.bans.expire():
            self._events.emit("ban", state="over", network=written(one))

    # --- the next start --------------------------------------------------------------------------

    def begin(self) -> None:
        """Before anybody is served: what was banned before the start holds."""
        if (path := self._file) is None:
            return
        try:
            self.bans.learn(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError) as wrong:
            self._events.emit("ban", state="unkept", detail=f"{path}: {_reason(wrong)}")
        self.bans.expire()

    def _keep(self) -> None:
        """Soon: a script may ban thousands, one after the other."""
        if self._writing is None:
            self._writing = self._reactor().callLater(SOON, self._write)

    def end(self) -> None:
        """Nobody asks any more.  Write the file now, if it is to be written."""
        if self._writing is not None:
            self._writing.cancel()
            self._write()

    def _write(self) -> None:
        self._writing = None
        if (path := self._file) is None:
            return
        fresh = path.with_name(f"{NAME}.{os.getpid()}")
        try:
            # Whole, or as before.
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640), "w") as out:
                json.dump(self.bans.told(), out)
            fresh.replace(path)
        except OSError as wrong:
            with suppress(OSError):
                fresh.unlink()
            self._events.emit("ban", state="unkept", detail=f"{path}: {_reason(wrong)}")

    @property
    def _file(self) -> Path | None:
        """None where nothing is kept."""
        report = self._configuration().report.file
        return None if report is None else report.with_name(NAME)

    # --- other processes -------------------------------------------------------------------------

    @property
    def knowledge(self) -> Message:
        """For a new worker, or for the program that takes over."""
        return {"bans": self.bans.told()}

    def learn(self, message: Message) -> None:
        """Such knowledge of another process holds here, too."""
        self.bans.learn(message["bans"])

    # --- the commands ----------------------------------------------------------------------------

    def _ban(self, request: Request) -> Deferred[Answer]:
        seconds = DEFAULT if request.seconds is None else request.seconds
        try:
            whom = _banned(request.about, self._configuration())
            if not 1 <= seconds <= LONGEST:
                raise ValueError(f"{seconds:.0f} seconds is out of range; write 1 second to 366 days (366d)")
            until = time.time() + seconds
            self.bans.add(whom, until)
        except ValueError as wrong:
            return _refused(wrong)
        told = {"network": written(whom), "until": _moment(until), "seconds": seconds}
        self._events.emit("ban", state="began", network=written(whom), until=told["until"])
        self._keep()

        def counted(answer: Answer) -> Answer | Deferred[Answer]:
            sessions = len(answer.result.get("sessions", ()))
            if request.kick and sessions:
                return maybeDeferred(self._ask, Request("kick", written(whom))).addCallback(kicked)
            return Answer({**told, "sessions": sessions, "kicked": request.kick}, answer.problems)

        def kicked(answer: Answer) -> Answer:
            return Answer({**told, "sessions": answer.result.get("sessions", 0), "kicked": True}, answer.problems)

        known = maybeDeferred(self._changed)
        return known.addCallback(lambda _: self._ask(Request("who", f"client={written(whom)}"))).addCallback(counted)

    def _unban(self, request: Request) -> Deferred[Answer]:
        try:
            whom = meant(request.about)
        except ValueError as wrong:
            return _refused(wrong)
        lifted = [written(one) for one in self.bans.lift(whom)]
        if not lifted:
            wider = self.bans.of(str(whom.network_address))
            hint = f"it is a part of {wider}, which is" if wider is not None else "`bans` lists who is"
            return _refused(f"{written(whom)} is not banned; {hint}")
        for one in lifted:
            self._events.emit("ban", state="lifted", network=one)
        self._keep()
        return maybeDeferred(self._changed).addCallback(lambda _: Answer({"networks": lifted}))

    def _shown(self, request: Request) -> Deferred[Answer]:
        self.look()
        return succeed(Answer({"bans": self._rows()}))

    def _rows(self, whom: Network | None = None) -> list[Result]:
        """The bans that hold; with `whom` those that keep out a client of this network."""
        now = time.time()
        return [
            {"network": written(one), "until": _moment(until), "left": round(until - now, 3)}
            for one, until in self.bans.all()
            if until > now and (whom is None or (one.version == whom.version and one.overlaps(whom)))
        ]

    def _why(self, request: Request) -> Deferred[Answer]:
        try:
            whom = meant(request.about)
        except ValueError as wrong:
            return _refused(wrong)
        rows = []
        for one in self._failures.of(whom)[:SHOWN]:
            words, cure = explained(one)
            rows.append({
                "client": one.client, "service": one.service, "event": one.event, "words": words, "cause": one.cause,
                "cure": cure, "first": _moment(one.first), "last": _moment(one.last), "count": one.count,
            })  # fmt: skip
        return succeed(Answer({
            "network": written(whom),
            "bans": self._rows(whom),
            "failures": rows,
            "remembered": len(self._failures),
        }))  # fmt: skip


def meant(text: str) -> Network:
    """A network as the configuration writes it; an IPv6 address alone is its /64.  Raises ValueError."""
    found = network(text)
    if found.version == 6 and "/" not in text:
        found = found.supernet(new_prefix=SITE)
    return found


def _banned(text: str, configuration: Configuration) -> Network:
    """Who is to be banned.  Raises ValueError where that makes no sense."""
    whom = meant(text)
    if whom.prefixlen < WIDEST[whom.version]:
        raise ValueError(
            f"{whom} is too much to ban; /{WIDEST[whom.version]} at most (`drain SERVICE` takes nobody for a service)"
        )
    trusted = {f"[service:{one.name}] accept_proxy": one.accept_proxy for one in configuration.services}
    for place, networks in {**trusted, "[gateway] probes": configuration.probes}.items():
        for one in networks:
            if one.version == whom.version and whom.subnet_of(one):  # type: ignore[arg-type]
                raise ValueError(
                    f"{written(whom)} is a load balancer ({place}); ban the clients behind it by their addresses"
                )
    return whom


def _refused(why: object) -> Deferred[Answer]:
    return succeed(Answer({}, (str(why),)))


def _reason(wrong: Exception) -> str:
    return (wrong.strerror if isinstance(wrong, OSError) else None) or str(wrong)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
