"""The rest of a client's command: its literals, taken, relayed or refused (RFC 9051 4.3, RFC 7888)."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from typing import Any, Final

from ....protocol.filters import Counted
from ....protocol.framing import Lines
from ....protocol.vocabulary import Line, Pass, Patience, Request, Script, Send, Take, TooLong, Violation
from ...base import Terms
from ...conversation import CLIENT
from .greeting import Greeting
from .syntax import COMMAND_LINE, Command, Literal, Malformed, announced, literal_of, quoted

UNTAGGED: Final = 3
"""Lines in a row without a tag, or with nothing else, before we hang up: whoever sends them speaks another protocol."""
LITERAL_OCTETS: Final = 65536
"""Literals of one command before authentication."""
SHORT_LINES: Final = Lines(COMMAND_LINE)


class Literals(Greeting):
    """Reads what belongs to a command, and answers commands that the backend does not get."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._untagged = 0

    def _rest(self) -> Generator[Request, Any, tuple[bytes, Literal | None]]:
        """The line that goes on behind a literal.  What cannot be refused any more ends the session."""
        line, literal = yield from self._more()
        if line is None:
            raise Violation(CLIENT, "client-line-too-long")
        return line, literal

    def _more(self) -> Generator[Request, Any, tuple[bytes | None, Literal | None]]:
        """The same of a command that the backend does not wait for the rest of: None for a line that is too long."""
        heard = yield from self.hear((CLIENT,), Patience.DATA, SHORT_LINES)
        match heard:
            case Line(text=text):
                with suppress(Malformed):
                    return text, literal_of(text)
            case TooLong(end=end):
                return None, announced(end)
        raise Violation(CLIENT, "client-bad-command")

    def _swallow(self, literal: Literal | None, spent: int = 0) -> Script:
        """Read on to the end of a refused command, as far as the client sends it unasked (RFC 7888 4)."""
        while literal is not None:
            spent = self._afford(spent, literal)
            if literal.waits:
                break
            yield Pass(CLIENT, Counted(literal.octets), forward=False)
            line, literal = yield from self._more()
            spent += COMMAND_LINE if line is None else len(line)

    def _collect(self, command: Command) -> Generator[Request, Any, bytes]:
        """A whole command's arguments, its literals as quoted strings."""
        collected, literal = command.arguments or b"", command.literal
        spent = len(collected)
        sound = True
        while literal is not None:
            spent = self._afford(spent, literal)
            if literal.waits:
                yield Send(CLIENT, b"+ OK\r\n")
            octets = yield Take(CLIENT, literal.octets)
            try:
                written = quoted(octets)
            except Malformed:
                written, sound = b"", False
            collected = collected[: collected.rindex(b"{")] + written
            line, literal = yield from self._more()
            if line is None:
                sound = False
                break
            collected += line
            spent += len(line)
        yield from self._swallow(literal, spent)
        if not sound:
            raise Malformed
        return collected

    def _afford(self, spent: int, literal: Literal) -> int:
        if spent + literal.octets > LITERAL_OCTETS:
            raise Violation(CLIENT, "client-line-too-long", "literals")
        return spent + literal.octets

    def _answer(self, reply: bytes) -> Generator[Request, Any, bool]:
        self.bad = 0
        yield Send(CLIENT, reply + b"\r\n")
        return False

    def _refuse(self, tag: bytes, reply: bytes, literal: Literal | None = None) -> Generator[Request, Any, bool]:
        """Refuse a command.  To a literal that waits, no `+` is said, so that it never comes."""
        yield from self._swallow(literal)
        yield Send(CLIENT, tag + b" " + reply + b"\r\n")
        self.count()
        return False

    def _refuse_stranger(self, tag: bytes, reply: bytes, literal: Literal | None = None) -> Script:
        """Refuse what is no command of this protocol."""
        self._untagged += 1
        yield from self._refuse(tag, b"BAD " + reply, literal)
        if self._untagged >= UNTAGGED:
            raise Violation(CLIENT, "too-many-bad-commands")
