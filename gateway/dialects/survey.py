"""A look at a backend through the eyes of a client, for `check --live`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from ..protocol.vocabulary import Await, Note, Send, Side
from .access import Access, Seen
from .base import Dialect, Question, Terms
from .scripted import Exchange, FindOrigin, ScriptedClient, heard


class Survey(ScriptedClient):
    """A visit that asks for the capabilities, tries whether it is served, and leaves.

    Without a question it hears the greeting and leaves.
    """

    def __init__(
        self, dialect: Dialect, terms: Terms, question: Question | None, find_origin: FindOrigin = lambda: None
    ) -> None:
        words = (question.ask(terms.hostname), *question.tries, question.leave) if question else ()
        super().__init__(dialect, terms, words, find_origin)
        self._question = question

    @property
    def welcome(self) -> bytes:
        """The greeting as a client of the gateway gets it."""
        return self.exchanges[0].told

    @property
    def offered(self) -> list[bytes] | None:
        """The backend's capabilities; None without an answer that lists any."""
        return self._listed(lambda exchange: exchange.heard)

    @property
    def shown(self) -> list[bytes] | None:
        """What of them a client of the gateway sees inside TLS."""
        return self._listed(lambda exchange: exchange.told)

    @property
    def access(self) -> Access:
        """Whether a client of the gateway could log in and send mail."""
        question = self._question
        if question is None or not self.greeted:
            return Access()
        tried = self.exchanges[2 : 2 + len(question.tries)]
        answers = [exchange.heard.rstrip() for exchange in tried if exchange.heard]
        return question.access(Seen(self.greeting, self.offered, self.shown, answers))

    def _listed(self, side: Callable[[Exchange], bytes]) -> list[bytes] | None:
        if self._question is None:
            return None
        at = self._question.listed_in
        return next(map(self._question.listed, map(side, self.exchanges[at : at + 1])), None)


def unreached(dialect: Dialect, terms: Terms, words: Sequence[bytes]) -> list[Exchange]:
    """What a client hears of the gateway itself on a lazy listener: up to the first word for which the backend has to
    be dialled."""
    exchanges = [Exchange()]
    left = list(words)
    answer: Any = None
    with closing(dialect.script(terms)) as script:
        while True:
            try:
                request = script.send(answer)
            except StopIteration:
                return exchanges
            answer = None
            match request:
                case Send(side=Side.CLIENT, data=octets):
                    exchanges[-1].told += octets
                case Await(framing=framing) if left:
                    exchanges.append(Exchange(left.pop(0)))
                    answer = heard(exchanges[-1].said, framing)
                case Note():
                    pass
                case _:
                    return exchanges
