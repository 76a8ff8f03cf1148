"""What `probe` says to a server from outside: nothing that a client would not say.

The scripts here are the same for all protocols; `Probing` is what each of them brings.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from ..protocol.framing import Lines
from ..protocol.vocabulary import (
    Await,
    Close,
    Dial,
    Expired,
    Framing,
    Heard,
    Line,
    Lost,
    Patience,
    Request,
    Script,
    Send,
    Side,
    StartTLS,
    TLSFailed,
    Unit,
    Violation,
)
from ..telemetry.catalogue import PROTOCOL_ERROR
from .bounds import REPLY_LINES, REPLY_OCTETS
from .probing import HOST, Attempt, Probing

if TYPE_CHECKING:
    from .base import Question

ONE_MORE = Patience("one-more")
"""The wait for a reply that should not come."""

Reply = Generator[Request, Any, bytes]

_SECRET = frozenset({"PLAIN", "LOGIN", "USER", "XOAUTH2", "OAUTHBEARER", "PASSWORD", "mysql_clear_password", "dialog"})


def is_bare(login: str) -> bool:
    """Whether this way to log in (of `Access.logins`) shows the password or token to whoever listens."""
    return login.split()[-1] in _SECRET


class Talk:
    """One connection to a server, and what it said."""

    def __init__(self, probing: Probing, question: Question, hostname: bytes) -> None:
        self.greeting = b""
        """The last one: some servers greet again inside TLS."""
        self.answer = b""
        """In the clear, what lists the capabilities: the answer to the question, or the greeting."""
        self.tried: list[tuple[Attempt, bytes]] = []
        """Logins in the clear, and the replies."""
        self.go_ahead: bytes | None = None
        """The reply to STARTTLS; None if it was not said."""
        self.behind = ""
        """What came behind the go-ahead, in the clear; nothing if nothing came."""
        self.failure = ""
        """Why there was no TLS; nothing if there was, or if none was asked for."""
        self.inside = b""
        """The same inside TLS."""
        self.surplus = b""
        """A reply inside TLS to what was not said inside TLS."""
        self._probing = probing
        self._ask = question.ask(hostname)
        self._ask_first = probing.keeps(hostname) if probing.keeps else self._ask
        self._hostname = hostname
        self._leave = question.leave
        self._answered = question.listed_in > 0
        self._framing = probing.framing(b"")

    @property
    def greeted(self) -> bool:
        if not self._probing.greets:
            return bool(self.first)
        return bool(self.greeting) and self._probing.agrees(self.greeting)

    @property
    def first(self) -> bytes:
        """What the server said first; not its answer to STARTTLS, where it does not greet."""
        return self.greeting if self._probing.greets else self.answer or self.inside

    def in_the_clear(self) -> Script:
        """Ask for the capabilities, try to log in without TLS, and leave."""
        yield from self._greet()
        self.answer = yield from self._list(self._ask_first)
        for attempt in self._probing.attempts:
            reply = yield from self._asked(attempt.say)
            self.tried.append((attempt, reply))
            if attempt.taken(reply) and attempt.cancel:
                yield from self._asked(attempt.cancel)
        yield from self._say_goodbye()
        yield Close("quit")

    def secured(self, *, implicit: bool, inject: bool = False) -> Script:
        """Switch to TLS, ask for the capabilities, and leave.

        `inject`: a command follows STARTTLS in the same segment.  A server that answers it inside TLS runs what
        anybody on the way can put there (CVE-2011-0411).
        """
        end = yield from self._switched(implicit, inject)
        if end is None:
            try:
                if not self._probing.offers:
                    self.inside = yield from self._list(self._ask)
                yield from self._say_goodbye()
            except Violation as violation:
                if not (inject and self._probing.opens):
                    raise
                self.surplus = violation.detail.encode("utf-8")  # the answer to two beginnings is no stream
            if not self.surplus and (inject or self._probing.leaves):  # else a server does not hang up
                yield from self._hear_surplus()
        yield end or Close("quit")

    def _hear_surplus(self) -> Script:
        try:
            heard = yield Await((Side.BACKEND,), ONE_MORE, self._framed(self._leave))
            self.surplus = _octets(heard) or b"(a long line)"
        except (Lost, Expired):
            pass  # as it should be

    def _switched(self, implicit: bool, inject: bool) -> Generator[Request, Any, Close | None]:
        """None inside TLS, and the end of the talk where there is none."""
        try:
            if implicit:
                yield Dial()
                yield StartTLS(Side.BACKEND)
                yield from self._hear_greeting()
                return None
            yield from self._greet()
            if self._probing.greets:
                self.answer = yield from self._list(self._ask)
            said = self._whole(self._probing.starttls)
            said += self._whole(self._probing.injected or self._ask) if inject else b""
            if (yield from self._agreed(said)):
                yield StartTLS(Side.BACKEND)
                if self._probing.reissues:
                    yield from self._open()
                    self.greeting = yield from self._heard(b"")
                return None
        except TLSFailed as failed:
            self.failure = failed.detail
            return Close(failed.key, failed.detail)
        except Violation as violation:
            if violation.key != "backend-starttls-injection":
                raise
            self.behind = self.failure = violation.detail
            return Close(violation.key, violation.detail)
        self.failure = "the server refuses it"
        yield from self._say_goodbye()
        return Close("refused")

    def _agreed(self, said: bytes) -> Generator[Request, Any, bool]:
        """STARTTLS is said, and what goes with it: whether TLS begins."""
        if self._probing.offers:
            offered = self._probing.offers(self.greeting)
            if offered:
                yield Send(Side.BACKEND, said)
            return offered
        yield Send(Side.BACKEND, said)
        try:
            self.go_ahead = yield from self._heard(self._probing.starttls)
        except Expired:
            if not self._probing.silent:
                raise
            self.go_ahead = b""
        return self._probing.agrees(self.go_ahead)

    def _greet(self) -> Script:
        yield Dial()
        yield from self._hear_greeting()

    def _hear_greeting(self) -> Script:
        if not self._probing.greets:
            return
        yield from self._open()
        self.greeting = yield from self._heard(b"", Patience.GREETING)
        if not self.greeted:
            yield Send(Side.BACKEND, self._whole(self._leave))
            raise Violation(Side.BACKEND, "backend-refused", repr(self.greeting[:80]))

    def _open(self) -> Script:
        if self._probing.opens:
            yield Send(Side.BACKEND, self._ask)

    def _list(self, ask: bytes) -> Reply:
        if self._probing.opens or self._probing.offers:
            return self.greeting
        answer = yield from self._asked(ask)
        return answer if self._answered else self.greeting

    def _say_goodbye(self) -> Script:
        if self._probing.greets and self._probing.leaves:
            yield from self._asked(self._leave)
        elif self._probing.leaves:
            yield Send(Side.BACKEND, self._leave)

    def _framed(self, command: bytes) -> Framing:
        if not (self._probing.opens and command):
            self._framing = self._probing.framing(command)
        return self._framing

    def _whole(self, command: bytes) -> bytes:
        if self._probing.addressed:
            command = command.replace(HOST, self._hostname)
        return command + b"\r\n" if isinstance(self._probing.framing(command), Lines) else command

    def _asked(self, command: bytes) -> Reply:
        yield Send(Side.BACKEND, self._whole(command))
        return (yield from self._heard(command))

    def _heard(self, command: bytes, patience: Patience = Patience.REPLY) -> Reply:
        """A whole reply."""
        reply, framing = b"", self._framed(command)
        for _ in range(REPLY_LINES):
            octets = _octets((yield Await((Side.BACKEND,), patience, framing)))
            if not octets:
                raise Violation(Side.BACKEND, "backend-line-too-long")
            reply += octets
            if len(reply) > REPLY_OCTETS:
                raise Violation(Side.BACKEND, PROTOCOL_ERROR, f"a reply of more than {REPLY_OCTETS} octets")
            if self._probing.complete(command, reply):
                return reply
        raise Violation(Side.BACKEND, PROTOCOL_ERROR, f"a reply of more than {REPLY_LINES} lines")


def _octets(heard: Heard) -> bytes:
    """A line with its end, or a unit; nothing for one that is too long."""
    if isinstance(heard, Unit):
        return heard.octets
    return heard.text + b"\r\n" if isinstance(heard, Line) else b""
