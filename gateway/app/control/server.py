"""Answers at the control socket: one line for each line, in the order in which they come."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IHalfCloseableProtocol, IPullProducer, IWriteDescriptor
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ...guard.captures import LEASE
from ...sessions.deadline import Deadline
from ...telemetry.summary import Teller
from ...wire.listener import Listener
from ..rights import user_name
from .messages import LONGEST, Answer, Misunderstood, Request, request_of
from .place import ControlSocket, credentials

_log = Logger()

MOST = 16
"""Connections at a time; one more is closed at once."""
PATIENCE = 60.0
"""Seconds without a request after which a connection is closed."""
CHANGING = frozenset({"reload", "upgrade", "drain", "undrain", "kick", "ban", "unban"})
"""Commands that are told in the log."""

Ask = Callable[[Request], Any]
"""The Answer, or a Deferred of it."""


@implementer(IPullProducer)
class _Saying:
    """Writes a piece of an answer whenever the one before has gone: so one answer waits for a reader, and never two."""

    def __init__(self, transport: Any, pieces: Iterator[bytes], goes_on: Callable[[], None], said: Callable[[], None]):
        """`goes_on` is called before each piece, and `said` when all of them have gone; not where nobody reads them."""
        self._transport = transport
        self._pieces = pieces
        self._goes_on = goes_on
        self._said = said

    def resumeProducing(self) -> None:
        self._goes_on()
        piece = next(self._pieces, None)
        if piece is None:
            self._transport.unregisterProducer()
            self._said()
        else:
            self._transport.write(piece)

    def stopProducing(self) -> None:
        self._pieces = iter(())


@implementer(IHalfCloseableProtocol)
class Conversation(Protocol):
    """One connection.  Who says no more, as in `echo ... | socat`, still hears the answers."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._heard = b""
        self._busy = False
        """A request is being answered."""
        self._going_on = False
        self._paused = False
        """Enough requests wait already."""
        self._ended = False
        """It has heard all that is said."""
        self._deadline: Deadline | None = None

    def connectionMade(self) -> None:
        if not self._server.let_in(self):
            self.leave()
            return
        self._deadline = Deadline(self._server.reactor, self.leave)
        self._wait()

    def leave(self) -> None:
        """What was said is sent first, to whoever reads it in time."""
        transport: Any = self.transport
        transport.loseConnection()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = Deadline(self._server.reactor, transport.abortConnection)
            self._wait()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.connected = False
        if self._deadline is not None:
            self._deadline.cancel()
        self._server.gone(self)

    def readConnectionLost(self) -> None:
        self._ended = True
        self._go_on()

    def writeConnectionLost(self) -> None:
        """Only this side ends it, and then all of it."""

    def dataReceived(self, data: bytes) -> None:
        self._heard += data
        self._go_on()

    def _wait(self) -> None:
        if self._deadline is not None:
            self._deadline.set(self._server.reactor.seconds() + PATIENCE)

    def _go_on(self) -> None:
        if self._going_on:
            return  # the answer came at once: this loop takes the next request
        self._going_on = True
        while self.connected and not self._busy and b"\n" in self._heard:
            line, _, self._heard = self._heard.partition(b"\n")
            self._busy = True
            if self._deadline is not None:
                self._deadline.cancel()
            self._server.answer(line, self._user()).addBoth(self._answered)
        self._going_on = False
        transport: Any = self.transport
        if self._busy:
            if len(self._heard) > LONGEST and not self._paused:
                self._paused = True
                transport.pauseProducing()
        elif len(self._heard) > LONGEST:
            self._heard, self._busy = b"", True
            self._say(Answer({}, (f"a line of more than {LONGEST} octets",)), self.leave)
        elif self._ended and self.connected:
            self.leave()

    def _answered(self, answer: Answer | Failure) -> None:
        if isinstance(answer, Failure):
            _log.critical("a bug in an answer at the control socket: {kind}", kind=type(answer.value).__name__)
            answer = Answer({}, ("the gateway failed to answer; its log says why",))
        self._say(answer, self._answered_all)

    def _answered_all(self) -> None:
        self._busy = False
        if self._paused and self.connected:
            self._paused = False
            transport: Any = self.transport
            transport.resumeProducing()
        self._go_on()

    def _say(self, answer: Answer, then: Callable[[], None]) -> None:
        """A piece in each turn.  `then` is called when all of it has gone, or nobody is there who hears it."""
        transport: Any = self.transport
        if not self.connected:
            then()
            return
        transport.registerProducer(_Saying(transport, answer.pieces(), self._wait, then), False)
        if IWriteDescriptor.providedBy(transport):
            # Now: an upgrade may end this process before the reactor would do it.
            transport.doWrite()

    def _user(self) -> int:
        transport: Any = self.transport
        return credentials(transport.getHandle())[1]


class Server(Factory):
    """What listens at a control socket.  `ask` answers requests."""

    noisy = False

    def __init__(self, reactor: Any, control: ControlSocket, ask: Ask, events: Teller) -> None:
        self.reactor = reactor
        self._control = control
        self._ask = ask
        self._events = events
        self._inside: set[Conversation] = set()
        self._read: dict[str, float] = {}
        """Whose dialogue was asked for of late, and when."""
        # A port of Twisted's own would let all users in: it sets the file's mode to 0666.
        self._listener = Listener(reactor, control.socket, self._accept)
        self._listener.start()

    @property
    def control(self) -> ControlSocket:
        return self._control

    def _accept(self, sock: socket.socket, address: object) -> None:
        with sock:
            # It makes a copy of the descriptor.
            self.reactor.adoptStreamConnection(sock.fileno(), socket.AF_UNIX, self)

    def buildProtocol(self, addr: Any) -> Conversation:
        return Conversation(self)

    def stop(self, remove: bool = True) -> None:
        """Nobody is heard any more; what was said is sent.  `remove`: whether the file goes."""
        self._listener.stop()
        self._control.close(remove)
        for conversation in list(self._inside):
            conversation.leave()

    def let_in(self, conversation: Conversation) -> bool:
        if len(self._inside) >= MOST:
            return False
        self._inside.add(conversation)
        return True

    def gone(self, conversation: Conversation) -> None:
        self._inside.discard(conversation)

    def _begins_to_read(self, request: Request) -> bool:
        """Whoever captures asks every second; it is told once."""
        if request.command != "capture":
            return False
        now = self.reactor.seconds()
        begins = now - self._read.get(request.about, float("-inf")) > LEASE
        self._read = {whom: when for whom, when in self._read.items() if now - when <= LEASE} | {request.about: now}
        return bool(begins)

    def answer(self, line: bytes, user: int) -> Deferred[Answer]:
        try:
            request = request_of(line)
        except Misunderstood as wrong:
            return succeed(Answer({}, (str(wrong),)))
        if request.command in CHANGING or self._begins_to_read(request):
            self._events.emit("control", command=request.command, about=request.about or None, user=user_name(user))
        return maybeDeferred(self._ask, request)
