"""docs/commands.md is the command reference.  It is made of the command line's own parser.

python -m tests.commands         # says whether it is current
python -m tests.commands --write # writes it
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from gateway.cli.__main__ import make_parser
from gateway.cli.examples import EXAMPLES
from tests.generated import DOCS, main

DOCUMENT = DOCS / "commands.md"

HEAD = """# Commands

<!-- Written by `python -m tests.commands --write` from the program's own parser. -->

`starttls-gateway COMMAND --help` prints the same.
"""

STATUSES = """## Exit status

| status | meaning |
|---|---|
| 0 | done; nothing is wrong |
| 1 | a mistake in the file, a finding of `check --live` or `probe`, or a request that the gateway refused |
| 2 | a wrong command line; for `probe` also: the server cannot be reached |
| 3 | no running gateway answers at the control socket |
| 130 | interrupted with Ctrl-C |
| 141 | standard output was closed, as in `starttls-gateway check \\| head -1` |
"""


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (found,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    return dict(found.choices)


def _words(text: str) -> str:
    """Links to other pages, and a character that Markdown would take for markup."""
    text = text.replace("<", "&lt;")
    return re.sub(r"\bdocs/([a-z-]+)\.md", r"[\1](\1.md)", text)


def _arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if action.help == argparse.SUPPRESS or isinstance(action, argparse._HelpAction):
            continue
        shown = str(action.metavar or (action.dest.upper() if action.nargs != 0 else ""))
        name = ", ".join(f"`{one} {shown}`" if shown else f"`{one}`" for one in action.option_strings) or f"`{shown}`"
        help_ = parser._get_formatter()._expand_help(action) if action.help else ""
        yield f"* {name}: {_words(help_)}"


def _usage(parser: argparse.ArgumentParser) -> str:
    text = " ".join(parser.format_usage().split()).removeprefix("usage: ")
    return text.replace("[-h] ", "")


def document() -> str:
    lines = [HEAD]
    for name, parser in commands(make_parser()).items():
        description = " ".join((parser.description or "").split())
        lines += [f"## `{name}`", "", _words(description), "", "```text", _usage(parser), "```", ""]
        if rows := list(_arguments(parser)):
            lines += [*rows, ""]
        lines += ["```console", *(f"$ {line}  # {what}" for line, what in EXAMPLES[name]), "```", ""]
    return "\n".join([*lines, STATUSES])


if __name__ == "__main__":
    main(DOCUMENT, lambda _: document())
