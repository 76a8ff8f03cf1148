"""One section of the file while it is read, and the machine that its file names belong to."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .grammar import Grammar, any_of, meant

T = TypeVar("T")
D = TypeVar("D")


@dataclass(frozen=True, slots=True)
class Machine:
    """What a file leaves to the machine that it lies on."""

    directory: Path = Path()
    """Where relative file names begin."""
    hostname: Callable[[], str] = socket.getfqdn
    complaint: Callable[[Path], str | None] = lambda path: None
    """Why a file cannot be read, or None."""
    is_local: Callable[[str], bool] = lambda host: False
    """Whether this address or name is the machine itself.  Loopback addresses and localhost are not asked for."""


class Section:
    """One section while it is read: hands out values, collects complaints, knows what was never asked for."""

    def __init__(self, title: str, options: Mapping[str, str], report: Callable[[str], None], machine: Machine) -> None:
        self.title = title
        self.options = options
        self.known: dict[str, None] = {}
        self._report = report
        self._machine = machine

    def wrong(self, option: str, what: str) -> None:
        self._report(f"[{self.title}] {option}: {what}")

    def take(self, option: str, grammar: Grammar[T], default: D) -> T | D:
        """The option's value; the default also stands for a value that is wrong."""
        self.known[option] = None
        text = self.options.get(option)
        if text is None:
            return default
        if not text.strip():
            self.wrong(option, "has no value; give it one, or leave the option out")
            return default
        try:
            return grammar(text.strip())
        except ValueError as wrong:
            hint = "; a comment needs a line of its own" if " #" in text or " ;" in text else ""
            self.wrong(option, f"{wrong}{hint}")
            return default

    def file(self, option: str, name: str) -> Path:
        """Where the file that the option names lies; it is told if it cannot be read."""
        path = self._machine.directory / name
        if complaint := self._machine.complaint(path):
            self.wrong(option, f"{path}: {complaint}")
        return path

    def finish(self) -> None:
        for option in self.options:
            if option not in self.known:
                guess = meant(option, self.known)
                right = f"did you mean {guess}?" if guess else f"[{self.title}] takes {any_of(self.known)}"
                self.wrong(option, f"unknown option; {right}")
