"""INI text as sections of options, with everything that is wrong with its form found in one go."""

from __future__ import annotations

import configparser

from .grammar import quoted

Sections = dict[str, dict[str, str]]

# No text of the file can hold it (parse sees to that): it marks what was found wrong and is to be left out.
_WRONG = "\0"


def parse(text: str) -> tuple[Sections, list[str]]:
    """The sections, and the problems, each as it goes behind `FILE: `.

    configparser stops at the first mistake; so the line that it stumbled over is neutralised and the text
    is read again, until nothing is wrong any more.
    """
    problems = []
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if _WRONG in line:
            problems.append(f"line {number}: holds a NUL character; a configuration file is plain text")
            lines[number - 1] = ""
    while True:
        parser = configparser.RawConfigParser(default_section=_WRONG)
        try:
            parser.read_string("\n".join(lines))
        except configparser.MissingSectionHeaderError as wrong:
            problems.append(
                f"line {wrong.lineno}: {quoted(wrong.line.strip())} stands before the first section; "
                "begin with a section like [tls]"
            )
            lines[wrong.lineno - 1] = f"[{_WRONG}{wrong.lineno}]"
        except configparser.DuplicateSectionError as wrong:
            assert wrong.lineno is not None
            problems.append(
                f"[{wrong.section}]: stands a second time in line {wrong.lineno}; put it all in one section"
            )
            lines[wrong.lineno - 1] = f"[{_WRONG}{wrong.lineno}]"
        except configparser.DuplicateOptionError as wrong:
            assert wrong.lineno is not None
            if not wrong.section.startswith(_WRONG):
                problems.append(
                    f"[{wrong.section}] {wrong.option}: stands a second time in line {wrong.lineno}; keep one of them"
                )
            lines[wrong.lineno - 1] = f"{_WRONG}{wrong.lineno} ="
        except configparser.ParsingError as wrong:
            for number, _ in wrong.errors:
                line = lines[number - 1].strip()
                problems.append(f"line {number}: {quoted(line)} is neither a [section] nor an option = value")
                lines[number - 1] = ""
        else:
            return {
                section: {option: value for option, value in parser.items(section) if not option.startswith(_WRONG)}
                for section in parser.sections()
                if not section.startswith(_WRONG)
            }, problems
