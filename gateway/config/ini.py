"""INI text -> sections with options and their line numbers, and all errors of the syntax."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import field

from ..records import dataclass
from .grammar import meant, quoted

_LINE_END = re.compile(r"\r\n|\r|\n")
_TITLE = re.compile(r"\[([^\]]+)\]\s*(.*)")
_OPTION = re.compile(r"([^\W\d][^\s=:]*)\s*[=:](.*)")
_WORDS = re.compile(r"([A-Za-z_]+)\s+(\S.*)")
# `key =` and `key = value`, but not host:port, unix:/path or a file name with an equals sign.
_SPACED = re.compile(r"[^\W\d][^\s=:]*(?:\s+=|[=:]\s)")
_ADDRESS = re.compile(r"\[[0-9A-Fa-f:.%]+\]:\S*")
_COMMENT = ("#", ";")


@dataclass(frozen=True, slots=True)
class Option:
    """One option.  `text` has all lines of the value, without indentation."""

    text: str
    line: int


Options = dict[str, Option]


@dataclass(frozen=True, slots=True)
class Written:
    """One section."""

    line: int
    options: Options = field(default_factory=dict)


Sections = dict[str, Written]


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake and its line: the first one of an option or of a section.  0 means the whole file."""

    line: int
    text: str

    def of(self, filename: str) -> str:
        """The message for the administrator."""
        return f"{filename}, line {self.line}: {self.text}" if self.line else f"{filename}: {self.text}"


def parse(text: str, kinds: Collection[str], known: Collection[str]) -> tuple[Sections, list[Problem]]:
    """The sections, and the errors of the syntax.

    `kinds`: first words of section titles.  `known`: options of all sections.  Both are for better messages.
    """
    reading = _Reading(kinds, known)
    for number, line in enumerate(_LINE_END.split(text.removeprefix("\ufeff")), 1):
        reading.line(number, line)
    return reading.sections(), reading.problems


class _Reading:
    def __init__(self, kinds: Collection[str], known: Collection[str]) -> None:
        self.problems: list[Problem] = []
        self._kinds = kinds
        self._known = known
        self._titles: dict[str, tuple[int, dict[str, tuple[int, list[str]]]]] = {}
        self._title = ""
        self._value: list[str] | None = None
        """The lines of the value that is being read.  A list without a use after an error."""
        self._option = ""
        self._indent = 0
        """Of the last line that did not continue a value."""
        self._stray = False
        """There is no section yet, or its title is wrong: ignore options."""

    def sections(self) -> Sections:
        return {
            title: Written(
                line,
                {option: Option("\n".join(lines).strip(), number) for option, (number, lines) in options.items()},
            )
            for title, (line, options) in self._titles.items()
        }

    def line(self, number: int, line: str) -> None:
        text = line.strip()
        if "\0" in line:
            self._wrong(number, "holds a NUL character; a configuration file is plain text")
        elif text and not text.startswith(_COMMENT):
            indent = len(line) - len(line.lstrip())
            if self._value is not None and indent > self._indent:
                self._go_on(number, text, self._value)
            elif text.startswith("[") and not _ADDRESS.fullmatch(text):
                self._begin_section(number, text)
            else:
                self._begin_option(number, text, indent)

    def _wrong(self, number: int, text: str) -> None:
        self.problems.append(Problem(number, text))

    def _go_on(self, number: int, text: str, value: list[str]) -> None:
        """A line that continues a value, or a line that is indented by mistake."""
        fault = f"is indented, so it continues the value of {self._option}"
        if (title := _TITLE.fullmatch(text)) and title[1].partition(":")[0] in self._kinds:
            self._wrong(number, f"{quoted(title[0])} {fault}; remove the spaces and tabs before the [")
            self._begin_section(number, text)
        elif (match := _OPTION.fullmatch(text)) and _SPACED.match(text + " "):
            self._wrong(number, f"{quoted(text)} {fault}; remove the spaces and tabs before {match[1]}")
            # Read the option anyway.  Otherwise a second message would say that it is missing.
            self._add(number, match[1].lower(), match[2])
        else:
            value.append(text)

    def _begin_section(self, number: int, text: str) -> None:
        self._value, self._option, self._stray = None, "", False
        match = _TITLE.fullmatch(text)
        if match is None:
            self._wrong(number, f"{quoted(text)} is not a section; write its name between [ and ]")
            self._stray = True
            return
        self._title = title = match[1]
        if match[2] and not match[2].startswith(_COMMENT):
            self._wrong(number, f"{quoted(match[2])} follows [{title}] on the same line; write it on a new line")
        if title in self._titles:
            self._wrong(number, f"[{title}]: is already in line {self._titles[title][0]}; merge the two sections")
        else:
            self._titles[title] = (number, {})

    def _begin_option(self, number: int, text: str, indent: int) -> None:
        self._indent = indent
        if self._stray:
            return
        if not self._titles:
            self._wrong(number, f"{quoted(text)} is before the first section; begin with a section like [tls]")
            self._stray = True
        elif match := _OPTION.fullmatch(text):
            self._add(number, match[1].lower(), match[2])
        else:
            self._nothing(number, text)

    def _nothing(self, number: int, text: str) -> None:
        if (words := _WORDS.fullmatch(text)) and (option := meant(words[1].lower(), self._known)):
            right = f'the "=" is missing; write {option} = VALUE'
        elif self._option:
            right = f"if it continues the value of {self._option}, indent it"
        else:
            right = "write option = value"
        self._wrong(number, f"{quoted(text)} is neither a [section] nor an option = value; {right}")
        self._value = []

    def _add(self, number: int, option: str, value: str) -> None:
        self._option, self._value = option, [value.strip()]
        options = self._titles[self._title][1]
        if option in options:
            first = options[option][0]
            self._wrong(number, f"[{self._title}] {option}: is already in line {first}; remove one of them")
        else:
            options[option] = (number, self._value)
