"""Protocols whose server greets, answers each command in turn, and knows QUIT: POP3, NNTP, FTP."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Mapping
from typing import Any, ClassVar, Final, TypeVar

from ..protocol.vocabulary import Expired, Lost, Request, Script, Send, Side, Trouble, Violation
from . import access
from .base import Terms
from .conversation import BACKEND, ServerFirst

T = TypeVar("T")
PARTING: Final = {
    "too-many-bad-commands": b"Too many invalid commands",
    "too-many-failed-logins": b"Too many failed logins",
    "client-line-too-long": b"Line too long",
}


class Asking(ServerFirst):
    """Asks the backend one thing at a time."""

    protocol: ClassVar[str]
    leaves: ClassVar[bytes]
    """What last words to a client begin with ..."""
    parting: ClassVar[Mapping[str, bytes]] = PARTING
    """... if it is to blame: by the key of the trouble."""
    idle_words: ClassVar[bytes]
    """For a client that says nothing."""
    lost_words: ClassVar[bytes]
    """For one whose backend is gone."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._outstanding = False  # the backend owes a reply, or is owed data
        self._claimed = b""  # whom the client says that it is

    @abstractmethod
    def _reach(self) -> Script:
        """Dial, if that was put off; the greeting is not the client's, it has had ours."""

    def put(
        self, line: bytes, answer: Generator[Request, Any, T], refusal: Callable[[T], bytes]
    ) -> Generator[Request, Any, T]:
        """Send a line to the backend, which may have to be dialled, and hear its `answer`.

        `refusal`: the words of an answer that refuses, else nothing.
        """
        self._outstanding = True
        yield from self._reach()
        yield Send(BACKEND, line + b"\r\n")
        answered = yield from answer
        if (refused := refusal(answered)) and access.demands_tls(refused, line):
            yield access.note(access.NO_LOGIN, self.protocol, self.terms, refused)
        return answered

    def goodbye(self, trouble: Trouble) -> bytes:
        match trouble:
            case Violation(side=Side.CLIENT):
                return b"%s %s\r\n" % (self.leaves, self.parting.get(trouble.key, b"Invalid protocol"))
            case Expired(side=Side.CLIENT):
                return self.idle_words
            case Lost() | Expired() if self.welcomed:
                return self.lost_words
        return self.unavailable(self.terms.hostname)

    def farewell(self) -> bytes:
        return b"QUIT\r\n" if self.reached and not self._outstanding and not self.midway else b""
