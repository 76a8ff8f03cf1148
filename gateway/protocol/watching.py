"""A negotiation whose dialogue with the client can be read: commands and replies as text, all else as counts.

What a client says is shown only where the script waits for a command (`Lines.commands`), and of it only what the
dialect shows.  So responses of a login and the content of messages are masked in every protocol, also in one that says
nothing about it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from .driver import Foreign, Negotiation
from .vocabulary import CLIENT, Await, Forward, Heard, Line, Pass, Patience, Script, Send, Side, TooLong, Unit

Tell = Callable[[str, bytes], None]
"""`C` for the client's words, `S` for those that it hears; one line of them."""
Shown = Callable[[bytes], tuple[bytes, bytes]]
"""A command -> the part of it that may be shown, and the rest."""

REPEATED: Final = 4
"""Octets of a masked word that is masked in replies, too."""
_CHALLENGE: Final = re.compile(rb"(?:334|383|\+|(?::\S+ )?AUTHENTICATE) (?=\S)|\"(?=[A-Za-z0-9+/]{24,}={0,2}\"\Z)")
"""The beginning of a server's line in a login (RFC 4954 4, RFC 4643 2.4.2, RFC 9051 6.2.2, RFC 5034 4, IRCv3 SASL, and
RFC 5804 2.1, where a short word may be a capability)."""


class Watched(Negotiation):
    """`shown` is of the dialect; without it nothing is text."""

    __slots__ = ("_content", "_masked", "_octets", "_shown", "_tell")

    def __init__(self, script: Script, foreign: Foreign | None, tell: Tell, shown: Shown | None) -> None:
        super().__init__(script, foreign)
        self._tell = tell
        self._shown = shown
        self._octets = {"C": 0, "S": 0}
        """Of content that has not been told."""
        self._content = False
        """What is said now is content."""
        self._masked: list[bytes] = []
        """Words of the client's last masked line."""

    # --- what the client hears -------------------------------------------------------------------

    def _say(self, said: Send) -> None:
        super()._say(said)
        octets = said.data
        if said.side is not CLIENT or CLIENT in self._mute or not octets:
            return
        if self._content or self._shown is None:
            self._octets["S"] += len(octets)
            return
        for line in octets.splitlines():
            self._text("S", self._reply(line))

    def _reply(self, line: bytes) -> bytes:
        if (challenge := _CHALLENGE.match(line)) is not None:
            return challenge[0] + hidden(line[challenge.end() :])
        # Some servers repeat what they do not understand.
        for word in self._masked:
            line = line.replace(word, hidden(word))
        return line

    # --- what the client says --------------------------------------------------------------------

    def _hear(self, wait: Await) -> Any:
        heard = super()._hear(wait)
        if isinstance(heard, Heard) and heard.side is CLIENT:
            # With another patience it is the rest of one, behind a literal.
            begins = wait.patience is Patience.COMMAND and getattr(wait.framing, "commands", False)
            self._heard(heard, bool(begins))
        return heard

    def _heard(self, heard: Heard, is_command: bool) -> None:
        match heard:
            case Line(text=line):
                shown, rest = b"", line
                if is_command and self._shown is not None:
                    shown, rest = self._shown(line)
                self._masked = [word for word in rest.split() if len(word) >= REPEATED]
                self._text("C", shown + hidden(rest) if rest else shown)
            case Unit(octets=octets):
                self._octets["C"] += len(octets)
            case TooLong():
                self._text("C", b"<a line that is too long>")
            case _:
                self._text("C", b"<a bad line>")

    # --- content ---------------------------------------------------------------------------------

    def _let_pass(self, wait: Pass) -> Any:
        return self._passed(wait.source, lambda: super(Watched, self)._let_pass(wait))

    def _passes(self, side: Side, octets: bytes | bytearray, wait: Forward) -> tuple[int, bool | None]:
        self._content = True
        try:
            end, wanted = super()._passes(side, octets, wait)
        finally:
            self._content = False
        if side is CLIENT:
            self._octets["C"] += end
        return end, wanted

    def _forward_from(self, side: Side, wait: Forward) -> Any:
        unit = super()._forward_from(side, wait)
        if side is CLIENT and isinstance(unit, Unit):
            self._octets["C"] += len(unit.octets)
        return unit

    def _splice(self) -> None:
        self._octets["C"] += len(self._inboxes[CLIENT].octets)
        self._content = True
        super()._splice()

    def _passed(self, source: Side, act: Callable[[], Any]) -> Any:
        before, self._content = len(self._inboxes[source].octets), True
        try:
            return act()
        finally:
            self._content = False
            if source is CLIENT:
                self._octets["C"] += max(0, before - len(self._inboxes[source].octets))

    # --- telling ---------------------------------------------------------------------------------

    def _text(self, who: str, line: bytes) -> None:
        self._flush()
        self._tell(who, line)

    def _flush(self) -> None:
        for who, octets in self._octets.items():
            if octets:
                self._octets[who] = 0
                self._tell(who, b"<%d octets>" % octets)

    def _finish(self) -> None:
        super()._finish()
        self._flush()


def hidden(octets: bytes) -> bytes:
    """What stands for octets that are not shown."""
    return b"<%d octets>" % len(octets)
