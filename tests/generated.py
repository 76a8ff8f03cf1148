"""Pages of docs/ that the code writes: `python -m tests.NAME` says whether a page is current, with `--write` it is
written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def between(begin: str, end: str, told: Callable[[], str]) -> Callable[[str], str]:
    """Puts what is told between two lines of a page."""

    def filled(page: str) -> str:
        before, _, rest = page.partition(begin)
        return f"{before}{begin}\n{told()}\n{end}{rest.partition(end)[2]}"

    return filled


def main(document: Path, filled: Callable[[str], str]) -> None:
    """`filled`: the page as it should be, of the page as it is."""
    page = document.read_text("utf-8")
    if "--write" in sys.argv[1:]:
        document.write_text(filled(page), "utf-8")
    elif page != filled(page):
        sys.exit(f"docs/{document.name} is not current; run python -m tests.{Path(sys.argv[0]).stem} --write")
