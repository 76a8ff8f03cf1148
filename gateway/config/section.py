"""One section of the file while it is read, and the machine that the file belongs to."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..records import dataclass
from .grammar import Grammar, any_of, meant, quoted
from .ini import Problem, Written

_COMMENT = re.compile(r"(?:^|\s)[#;]")
_WORD = re.compile(r"(?!:)[!-~]{1,200}")
_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb"

T = TypeVar("T")
D = TypeVar("D")


@dataclass(frozen=True, slots=True)
class Machine:
    """What depends on the machine; tests replace it."""

    directory: Path = Path()
    """Start of relative paths."""
    hostname: Callable[[], str] = socket.getfqdn
    complaint: Callable[[Path], str | None] = lambda path: None
    """Why a file cannot be read, or None."""
    content: Callable[[Path], str] = lambda path: path.read_text("utf-8", "replace")
    """Of a small file that can be read."""
    cores: Callable[[], int] = lambda: len(os.sched_getaffinity(0))
    """That this process may run on."""
    is_local: Callable[[str], bool] = lambda host: False
    """Whether this address or name is the machine itself.  Loopback addresses and localhost are not asked for."""
    state: Path | None = None
    """The directory for what outlives the process; None where there is none."""


class Section:
    """One section while it is read.  `finish` reports the options that nobody has taken."""

    def __init__(self, title: str, written: Written, report: Callable[[Problem], None], machine: Machine) -> None:
        self.title = title
        self.options = written.options
        self._line = written.line
        self.known: dict[str, None] = {}
        self._report = report
        self._machine = machine

    def wrong(self, option: str, what: str) -> None:
        """Report a problem at the option's line, or at the section's line if the option is missing."""
        line = self.options[option].line if option in self.options else self._line
        self._report(Problem(line, f"[{self.title}] {option}: {what}"))

    def take(self, option: str, grammar: Grammar[T], default: D) -> T | D:
        """The option's value.  The default if the option is missing or wrong."""
        self.known[option] = None
        if option not in self.options:
            return default
        text = self.options[option].text
        if not text:
            self.wrong(option, "has no value; write one, or remove the option")
        elif slip := _slip(option, text):
            self.wrong(option, slip)
        else:
            try:
                return grammar(text)
            except ValueError as wrong:
                self.wrong(option, str(wrong))
        return default

    def file(self, option: str, name: str) -> Path:
        """The path of this file.  Reports a file that cannot be read."""
        path = self._machine.directory / name
        if complaint := self._machine.complaint(path):
            self.wrong(option, f"{path}: {complaint}")
        return path

    def secret(self, option: str, name: str) -> str:
        """What is in this file: one word.  Reports a file that cannot be read, and other content; never the content."""
        path = self._machine.directory / name
        complaint = self._machine.complaint(path)
        text = "" if complaint else self._machine.content(path).strip()
        if not complaint and not _WORD.fullmatch(text):
            complaint = "does not hold one word of at most 200 printable ASCII characters; write the password into it"
        if complaint:
            self.wrong(option, f"{path}: {complaint}")
            return ""
        return text

    def place(self, name: str) -> Path:
        """Where a file lies that need not be there."""
        return self._machine.directory / name

    @property
    def state(self) -> Path | None:
        return self._machine.state

    def finish(self) -> None:
        for option in self.options:
            if option not in self.known:
                guess = meant(option, self.known)
                right = f"did you mean {guess}?" if guess else f"[{self.title}] takes {any_of(self.known)}"
                self.wrong(option, f"unknown option; {right}")


def _slip(option: str, text: str) -> str:
    """Comments behind a value, and quotes: other configuration formats have them, this one does not."""
    for line in text.split("\n"):
        if comment := _COMMENT.search(line):
            value = line[: comment.start()].rstrip()
            right = f"like {option} = {value}" if value and line == text else "or remove it"
            return f"{quoted(line)} contains a comment; write comments on their own line, {right}"
    if any(len(word) > 1 and word[0] in _QUOTES and word[-1] in _QUOTES for word in (text, *text.split())):
        plain = " ".join("".join(letter for letter in text if letter not in _QUOTES).split())
        right = f"like {option} = {plain}" if plain else "or remove the option"
        return f"{quoted(text)} is in quotes; write the value without quotes, {right}"
    return ""
