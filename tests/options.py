"""docs/configuration.md is the option reference.  Its source is config/gateway.ini, which other tests check.

python -m tests.options         # says whether it is current
python -m tests.options --write # writes it
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.generated import DOCS, main

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "config" / "gateway.ini"
DOCUMENT = DOCS / "configuration.md"

_SECTION = re.compile(r"\[(\w+)(?::\w+)?\]")
_OPTION = re.compile(r"(# )?([a-z_]+) = (.+)")
_ITEM = re.compile(r"#   (\S+(?:, \S+)*)   ?\s*(.+)")
_LINK = re.compile(r"\bdocs/([a-z-]+)\.md")
_NAMED = ("service", "backend")


@dataclass
class Option:
    """One option; `set` tells an example from a default."""

    name: str
    value: str
    set: bool
    comment: list[str]


@dataclass
class Section:
    """All sections of one kind: what `[service:smtp]` and `[service:imap]` show is said once."""

    kind: str
    comment: list[str] = field(default_factory=list)
    options: dict[str, Option] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"[{self.kind}:NAME]" if self.kind in _NAMED else f"[{self.kind}]"


def read(text: str) -> tuple[list[str], list[Section]]:
    """The comment at the top, and the sections in their order."""
    sections: dict[str, Section] = {}
    here: Section | None = None
    top: list[str] = []
    block: list[str] = []
    said: list[str] = []
    for line in text.splitlines():
        if match := _SECTION.fullmatch(line):
            here = sections.setdefault(match[1], Section(match[1]))
            here.comment += [one.removeprefix(f"# [{match[1]}]: ") for one in block]
            block = said = []
        elif match := _OPTION.fullmatch(line):
            assert here is not None
            # Options right behind one another share the comment above them.
            said = block or said
            if match[2] not in here.options:
                here.options[match[2]] = Option(match[2], match[3], not match[1], said)
            block = []
        elif line.startswith("#"):
            block.append(line)
        elif not line:
            said = []
            if here is None:
                top += block
            elif not here.options or here.kind in ("limits", "timeouts", "report"):
                here.comment += block
            block = []
    return top, list(sections.values())


def _prose(comment: Iterable[str]) -> Iterator[str]:
    """A comment as Markdown: indented lines with two columns are a list."""
    listing = False
    for line in comment:
        text = line.removeprefix("#").removeprefix(" ")
        if match := _ITEM.fullmatch(line):
            if not listing:
                yield ""
            listing = True
            names = ", ".join(f"`{name}`" for name in match[1].split(", "))
            yield f"* {names}: {match[2]}"
            continue
        if listing and text:
            yield ""
        listing = False
        yield _LINK.sub(r"[\1](\1.md)", text)


def _option(option: Option) -> Iterator[str]:
    yield f"### `{option.name}`"
    yield ""
    yield from _prose(option.comment)
    yield ""
    example = option.set or any("Default" in line for line in option.comment)
    yield f"{'Example' if example else 'Default'}:"
    yield ""
    yield "```ini"
    yield f"{option.name} = {option.value}"
    yield "```"
    yield ""


def document() -> str:
    top, sections = read(SOURCE.read_text("utf-8"))
    lines = [
        "# Options of the configuration file",
        "",
        "<!-- Written by `python -m tests.options --write` from config/gateway.ini. -->",
        "",
        "The file is by default `/etc/starttls-gateway/gateway.ini`. [config/gateway.ini](../config/gateway.ini) is an",
        "example with every option; this page is made of it. `starttls-gateway check` lists the mistakes in a file.",
        "",
        *_plain(top),
        "",
    ]
    for section in sections:
        lines += [f"## `{section.title}`", ""]
        if section.comment:
            lines += [*_prose(section.comment), ""]
        for option in section.options.values():
            lines += _option(option)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _plain(comment: Iterable[str]) -> Iterator[str]:
    """The rules at the top of the file: a table of two columns stays one."""
    yield "```text"
    for line in list(comment)[2:]:
        yield line.removeprefix("#").removeprefix(" ")
    yield "```"


if __name__ == "__main__":
    main(DOCUMENT, lambda _: document())
