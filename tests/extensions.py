"""docs/extensions.md holds the table of gateway/dialects/mail/extensions.py.

python -m tests.extensions         # says whether it does
python -m tests.extensions --write # writes it
"""

from __future__ import annotations

from gateway.dialects.mail.extensions import TABLE, Extension
from tests.generated import DOCS, between, main

DOCUMENT = DOCS / "extensions.md"
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


filled = between(BEGIN, END, table)


if __name__ == "__main__":
    main(DOCUMENT, filled)
