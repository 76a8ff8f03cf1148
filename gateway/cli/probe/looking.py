"""One server is talked to, one connection after another, each as a client would make it."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from ...config.values import Address, TCPAddress, Timeouts
from ...dialects.access import Access, Seen
from ...dialects.base import Dialect
from ...dialects.talk import ONE_MORE, Talk, is_bare
from ...protocol.vocabulary import Patience, Script
from ...records import dataclass
from ...sessions.errand import Errand
from ...wire.dialer import Dialer
from ...wire.tls.stranger import GROUPS, VERSIONS, Presented, Stranger, Unsupported
from ..names import awaited
from ..report import shown
from .facts import Chain, Dane, Facts, Login, Tried, last, line
from .names import Told, ask

LIMIT = 300.0
"""Seconds for everything."""
SURPLUS = 2.0
"""Seconds in which a reply that should not come would come, where the server does not hang up."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is probed, and how."""

    dialect: Dialect
    address: Address
    implicit: bool
    name: str
    """What the certificate should be for."""
    ehlo: bytes
    ca: Path | None = None
    timeout: float = 15.0
    """Seconds for each wait."""
    domain: str | None = None
    resolver: tuple[str, int] | None = None


class Looking:
    """Makes the connections.  `facts` grows with each."""

    def __init__(self, reactor: Any, target: Target) -> None:
        assert target.dialect.probing is not None
        assert target.dialect.question is not None
        self.facts = Facts(target.dialect.name, str(target.address), target.name, target.implicit)
        self._reactor = reactor
        self._target = target
        self._probing = target.dialect.probing
        self._question = target.dialect.question
        self._dialer = Dialer(reactor, (target.address,), target.timeout)
        self._timeouts = Timeouts(
            handshake=target.timeout, connect=target.timeout, greeting=2 * target.timeout, linger=1.0
        )
        self._patience = {Patience.REPLY: target.timeout, ONE_MORE: SURPLUS}
        self._until = 0.0

    async def run(self) -> Facts:
        self._until = self._reactor.seconds() + LIMIT
        asking = self._ask_names()
        if not self._target.implicit:
            await self._look_in_the_clear()
        presented = None if self.facts.unreachable else await self._look_inside()
        if self.facts.secured:
            await self._try_versions()
            await self._try_groups()
            if not self._target.implicit:
                await self._inject()
        self._note_names(await asking, presented)
        return self.facts

    # --- one connection ------------------------------------------------------------------------

    def _talk(self) -> Talk:
        name = self._target.name
        there = f"[{name}]" if ":" in name else name  # an IPv6 address (RFC 7622 3.2, RFC 9110 7.2)
        who = there.encode("utf-8") if self._probing.addressed else self._target.ehlo
        return Talk(self._probing, self._question, who)

    def _stranger(self, version: str = "", group: str = "") -> Stranger:
        alpn = self._target.dialect.backend_alpn if self._target.implicit else ()
        return Stranger(self._target.name, self._target.ca, version, group, alpn)

    async def _visit(self, script: Script, tls: Stranger | None) -> Errand:
        done: Deferred[Errand] = Deferred()
        left = max(0.0, self._until - self._reactor.seconds())
        Errand(self._reactor, script, self._dialer, tls, self._timeouts, self._patience, left, done.callback).start()
        return await done

    async def _look_in_the_clear(self) -> None:
        talk, facts = self._talk(), self.facts
        errand = await self._visit(talk.in_the_clear(), None)
        if self._is_deaf(talk, errand):
            return
        listed = self._question.listed(talk.answer)
        access = self._access(talk, listed)
        facts.capabilities = None if listed is None else tuple(map(shown, listed))
        facts.masked = listed is not None and self._probing.masked(listed)
        if self._probing.lists:
            facts.offered, facts.logins = access.starttls, access.logins
            facts.bare = tuple(filter(is_bare, access.logins or ()))
        facts.tried = tuple(
            Login(shown(attempt.name or attempt.say), attempt.taken(reply), line(self._words(reply)))
            for attempt, reply in talk.tried
        )

    def _access(self, talk: Talk, listed: list[bytes] | None) -> Access:
        return self._question.access(Seen(talk.greeting, listed, listed, ()))

    def _words(self, reply: bytes) -> bytes:
        return self._question.readable(reply)

    def _is_deaf(self, talk: Talk, errand: Errand) -> bool:
        facts = self.facts
        facts.reached = facts.reached or errand.place
        facts.greeting = facts.greeting or line(self._words(talk.first))
        if talk.greeted:
            return False
        trouble = errand.trouble
        words = trouble.detail or f"no answer came ({trouble.key})"
        if talk.greeting:
            words = f"the server turns us away: {facts.greeting}"
        elif facts.reached and not self._target.implicit:
            words += "; if TLS comes first on this port, say --implicit"
        facts.unreachable = shown(words.encode("utf-8"))
        return True

    async def _look_inside(self) -> Presented | None:
        """TLS as a client of today offers it."""
        talk, tls, facts = self._talk(), self._stranger(), self.facts
        errand = await self._visit(talk.secured(implicit=self._target.implicit), tls)
        told = line if self._probing.heads else last
        facts.go_ahead, facts.behind = told(self._words(talk.go_ahead or b"")), shown(talk.behind.encode("utf-8"))
        facts.failure = shown((talk.failure or errand.trouble.detail).encode("utf-8"))
        facts.reached = facts.reached or errand.place
        facts.greeting = facts.greeting or line(self._words(talk.first))
        if errand.secured is None:
            if not facts.reached and not talk.failure:
                facts.unreachable = facts.failure or errand.trouble.key
            facts.failure = facts.failure or errand.trouble.key
            return None
        if self._target.implicit and self._is_deaf(talk, errand):
            return None
        facts.version, facts.cipher = errand.secured.version, errand.secured.cipher
        facts.group, facts.failure = errand.secured.group, ""
        listed = self._question.listed(talk.inside)
        facts.inside = None if listed is None else tuple(map(shown, listed))
        facts.starttls_inside = bool(self._probing.lists and talk.inside and self._access(talk, listed).starttls)
        facts.chain = _chain(tls)
        return tls.presented

    async def _try_versions(self) -> None:
        self.facts.versions = tuple([await self._try(version, self._stranger(version=version)) for version in VERSIONS])

    async def _try_groups(self) -> None:
        tried = []
        for group in GROUPS:
            try:
                tried.append(await self._try(group, self._stranger(group=group)))
            except Unsupported:
                tried.append(Tried(group, None, "this machine's OpenSSL does not know it"))
        self.facts.groups = tuple(tried)

    async def _try(self, name: str, tls: Stranger) -> Tried:
        talk = self._talk()
        errand = await self._visit(talk.secured(implicit=self._target.implicit), tls)
        if errand.secured is not None:
            return Tried(name, True, errand.secured.cipher)
        why = shown((talk.failure or errand.trouble.detail or errand.trouble.key).encode("utf-8"))
        # Whoever was not let in again, or whose own OpenSSL refuses, has learnt nothing.
        handshake = bool(talk.failure) and not any(word in why for word in ("no protocols", "no ciphers", "refuses it"))
        return Tried(name, False if handshake else None, why)

    async def _inject(self) -> None:
        talk, facts = self._talk(), self.facts
        errand = await self._visit(talk.secured(implicit=False, inject=True), self._stranger())
        if talk.behind:
            facts.injection, facts.executed = True, f"answered in the clear, {shown(talk.behind.encode('utf-8'))}"
        elif talk.surplus:
            facts.injection, facts.executed = True, f"one reply too many, {line(self._words(talk.surplus))}"
        elif errand.secured is not None or talk.failure:
            facts.injection = False

    # --- names -----------------------------------------------------------------------------------

    def _ask_names(self) -> Deferred[Told]:
        """In a thread that nobody waits for when the program ends."""
        done: Deferred[Told] = Deferred()
        target = self._target
        if not isinstance(target.address, TCPAddress):
            done.callback(Told(skipped="a UNIX socket has no name in DNS"))
            return done
        # Who says with --name what is behind an address means that name.
        host, port = target.name, target.address.port
        takes_mail = target.dialect.relays and port not in target.dialect.submission

        def work() -> None:
            try:
                told = ask(host, port, target.domain, target.resolver, takes_mail)
            except Exception as wrong:
                told = Told(skipped=f"{type(wrong).__name__}: {wrong}")
            with suppress(Exception):  # the reactor may be gone by now
                self._reactor.callFromThread(done.callback, told)

        threading.Thread(target=work, name="asking DNS", daemon=True).start()
        return done

    def _note_names(self, told: Told, presented: Presented | None) -> None:
        facts = self.facts
        facts.dns, facts.sts = told.skipped, told.sts
        if (found := told.tlsa) is not None:
            fits = None
            if presented is not None and found.records:
                fits = any(record.matches(presented.chain) for record in found.records)
            facts.dane = Dane(len(found.records), found.secure, fits, found.error)


def _chain(tls: Stranger) -> Chain | None:
    if (found := tls.presented) is None:
        return None
    left = (found.not_after - datetime.now(timezone.utc)).days
    return Chain(
        tuple(shown(name.encode("utf-8")) for name in found.names),
        found.not_after,
        left,
        found.sha256,
        found.subjects,
        found.weakness,
        tuple(objection.replace("the backend", "the server") for objection in tls.objections),
    )


def look(target: Target) -> Facts:
    """Everything about one server; raises KeyboardInterrupt if it is broken off."""
    return awaited(lambda reactor: Deferred.fromCoroutine(Looking(reactor, target).run()))
