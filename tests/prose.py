"""The language of the pages: short sentences, and none of the words that make a reader stop.

python -m tests.prose   # lists what is wrong: page, line, rule
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
GENERATED = {ROOT / "docs" / "compatibility.md"}
"""Has the words of clients and servers in it."""
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted({*(ROOT / "docs").rglob("*.md")} - GENERATED),
    ROOT / "benchmarks" / "README.md",
]
LONGEST = 34
"""Words in a sentence."""
WORDS = {
    r"\bwhoever\b": "say who",
    r"\bwhomever\b": "say who",
    r"\bwhatsoever\b": "leave it out",
    r"\bas ever\b": "leave it out",
    r"\bof late\b": "say when",
    r"\b(?:utili[sz]e|leverage)\b": "use",
    r"\b(?:simply|obviously|of course|basically|actually)\b": "leave it out",
    r"\b(?:etc|e\.g|i\.e)\.": "write the words",
    r"\bnot un(?!der|til|less|ti)\w+": "say it without two negations",
    r"\bwhich who\b|\bthat which\b": "make two sentences",
    r"!(?:\s|$)": "a full stop is enough",
    r"\b(?:blazing|seamless|powerful|robust|cutting-edge|world-class)\w*\b": "a number instead",
}
"""What not to write -> what instead."""


def prose(text: str) -> str:
    """The page without code, comments, link targets and markup; every line keeps its place."""

    def blank(match: re.Match[str]) -> str:
        return "\n" * match[0].count("\n")

    text = re.sub(r"(?ms)^ *```.*?^ *```[^\n]*$|<!--.*?-->", blank, text)
    text = re.sub(r"``.+?``|`[^`]+`", lambda match: "CODE" + "\n" * match[0].count("\n"), text, flags=re.S)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"(?m)^\([a-z-]+\)=$|^:[a-z]+:.*$|^\|[-| :]+\|$", "", text)
    text = re.sub(r"(?m)^( *)\* ", r"\1- ", text.replace("**", ""))
    return text.replace("*", "")


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """First line, words: a paragraph, an item of a list, a cell of a table."""
    first = 0
    lines: list[str] = []
    for number, line in enumerate([*text.split("\n"), ""], 1):
        begins = re.match(r" *(?:-|\d+\.|#+|:) ", line) is not None
        if line.startswith("|"):
            yield from ((number, cell.strip()) for cell in line.strip("|").split("|"))
            line = ""
        if (not line.strip() or begins) and lines:
            yield first, " ".join(lines)
            lines = []
        if line.strip():
            first = first if lines else number
            lines.append(line.strip(" #"))


def sentences(paragraph: str) -> Iterator[str]:
    yield from re.split(r"(?<=[.?!:;])\s+(?=[A-Z\"(])|;\s", paragraph)


def complaints(text: str) -> Iterator[tuple[int, str]]:
    """Line, what is wrong there."""
    plain = prose(text)
    for line, paragraph in paragraphs(plain):
        for sentence in sentences(paragraph):
            if (count := len(re.findall(r"\w[\w'-]*", sentence))) > LONGEST:
                yield line, f"{count} words in a sentence; make two: {sentence[:40].strip()} ..."
    for number, line_ in enumerate(plain.split("\n"), 1):
        for pattern, cure in WORDS.items():
            for match in re.finditer(pattern, line_, re.I):
                yield number, f"{match[0].strip()!r}: {cure}"


def main() -> int:
    found = [(page, *one) for page in PAGES for one in sorted(complaints(page.read_text("utf-8")))]
    for page, line, what in found:
        print(f"{page.relative_to(ROOT)}:{line}: {what}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
