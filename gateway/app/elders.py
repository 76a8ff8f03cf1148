"""Programs that this one has taken over from, and that still have sessions.

They accept nobody any more, and end with their last session.  When this program stops, they have to end, too: each of
their sessions has `[gateway] drain` then, as the sessions here have.  Until then they answer `who` and `kick`.  The
next program takes over the conversations.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred

from .control.messages import Answer, Request
from .workers.asking import Asking, Replies
from .workers.channel import Channel
from .workers.messages import Message
from .workers.steered import answers, question

LAST: Final = 5.0
"""Seconds that they may take to end when nobody is to be waited for."""


class Elders:
    def __init__(self, reactor: Any, gone: Callable[[int], None]) -> None:
        """`gone` gets the generation of one that has ended: what it counted counts no more."""
        self._reactor = reactor
        self._gone = gone
        self._there: dict[int, tuple[socket.socket, Channel]] = {}
        self._stopped: Deferred[None] | None = None
        self._asking = Asking(reactor, lambda: list(self._there), lambda which, told: self._there[which][1].say(told))

    def add(self, generation: int, conversation: socket.socket) -> None:
        channel = Channel(
            self._reactor, conversation, partial(self._heard, generation), partial(self._lost, generation)
        )
        self._there[generation] = conversation, channel

    @property
    def conversations(self) -> list[tuple[int, socket.socket]]:
        """For the next program."""
        return [(generation, conversation) for generation, (conversation, _) in self._there.items()]

    def ask(self, request: Request) -> Deferred[list[Answer]] | None:
        """What each of them answers; None where none is there."""
        if not self._there:
            return None

        def told(replies: Replies) -> list[Answer]:
            missing = tuple(f"the old program of generation {one} does not answer" for one in replies.missing)
            return [*answers(replies), Answer({}, missing)]

        return self._asking.ask(question(request)).addCallback(told)

    def _heard(self, generation: int, message: Message, descriptors: list[int]) -> None:
        if "answer" in message:
            self._asking.heard(generation, message)

    def hand_over(self) -> None:
        """The next program has them."""
        for _, channel in self._there.values():
            channel.close()
        self._there.clear()

    def stop(self) -> Deferred[None] | None:
        """This program stops.  Fires when all of them have ended; None where none is there."""
        if not self._there:
            return None
        for _, channel in self._there.values():
            channel.say({"stop": False})
        self._stopped = Deferred()
        return self._stopped

    def hurry(self) -> None:
        """Their sessions are cut off.  One that hangs is not waited for."""
        for _, channel in self._there.values():
            channel.say({"stop": True})
        if self._stopped is not None:
            self._reactor.callLater(LAST, self._ended)

    def _lost(self, generation: int) -> None:
        del self._there[generation]
        self._asking.gone(generation)
        self._gone(generation)
        if not self._there:
            self._ended()

    def _ended(self) -> None:
        """Nobody is waited for any more."""
        if self._stopped is not None:
            stopped, self._stopped = self._stopped, None
            stopped.callback(None)
