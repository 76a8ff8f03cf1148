"""Which parts of a client's command may be shown to an administrator.

The tables name what is shown, and not what is hidden: a verb that no table has may be a password that was typed at the
wrong moment.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from ..records import dataclass
from . import sasl

_WORD: Final = re.compile(rb"[ \t]*([A-Za-z]+)(?=[ \t:]|\Z)")
_TAG: Final = re.compile(rb"[^ \t]{1,64} +")
_ARGUMENT: Final = re.compile(rb"[ \t]+\"?([A-Za-z0-9_-]+)\"?(?=[ \t]|\Z)")


@dataclass(frozen=True, slots=True)
class Verbs:
    """A dialect's `shown`.  Verbs are in upper case."""

    whole: Collection[bytes]
    """Shown with all their arguments."""
    first: Collection[bytes]
    """Shown with the first argument, a SASL mechanism."""
    alone: Collection[bytes] = ()
    """Shown without arguments."""
    tagged: bool = False
    """Each command begins with a tag."""

    def __call__(self, command: bytes) -> tuple[bytes, bytes]:
        """The part that is shown, and the rest, which is not."""
        begin = 0
        if self.tagged and (tag := _TAG.match(command)) is not None:
            begin = tag.end()
        word = _WORD.match(command, begin)
        verb = b"" if word is None else word[1].upper()
        if verb in self.whole:
            return command, b""
        end = 0 if word is None else word.end()
        if verb in self.first:
            argument = _ARGUMENT.match(command, end)
            return _split(command, argument.end() if argument and sasl.is_known(argument[1]) else end)
        return _split(command, end) if verb in self.alone else (b"", command)


def _split(command: bytes, end: int) -> tuple[bytes, bytes]:
    rest = command[end:].lstrip(b" \t")
    return command[: len(command) - len(rest)], rest
