"""docs/extensions.md holds the table of gateway/dialects/mail/extensions.py.

python -m tests.extensions         # says whether it does
python -m tests.extensions --write # writes it
"""

from __future__ import annotations

import sys
from pathlib import Path

from gateway.dialects.mail.extensions import TABLE, Extension

DOCUMENT = Path(__file__).parents[1] / "docs" / "extensions.md"
BEGIN = "<!-- The table is written by `python -m tests.extensions --write`. -->\n"
END = "<!-- End of the table. -->\n"


def row(extension: Extension) -> str:
    belongs = [*(f"`{verb}`" for verb in extension.verbs), *(f"`{name}=`" for name in extension.parameters)]
    cells = (
        f"`{extension.keyword}`", extension.source, extension.treatment.value, ", ".join(belongs), extension.reason,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |\n"


def table() -> str:
    head = (
        "| keyword | from | treatment | commands, parameters | why, or what the gateway does |\n|---|---|---|---|---|\n"
    )
    return head + "".join(map(row, TABLE))


def filled(document: str) -> str:
    """The document with the table as it should be."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> None:
    if "--write" in sys.argv[1:]:
        DOCUMENT.write_text(filled(DOCUMENT.read_text()))
    sys.exit(None if DOCUMENT.read_text() == filled(DOCUMENT.read_text()) else f"{DOCUMENT}: not the table of the code")


if __name__ == "__main__":
    main()
