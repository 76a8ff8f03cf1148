"""Write the shell completion for bash and zsh from the command line's own parser: `make completion`.

What an argument takes is told by its metavar: FILE is a file name, USER a user of the system, GROUP a group.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import shtab

from gateway.cli.__main__ import make_parser

OUTPUT = {"bash": "starttls-gateway", "zsh": "_starttls-gateway"}
"""Shell -> the file name that it looks for."""
USERS = {"bash": "_shtab_starttls_gateway_users", "zsh": "_users"}
GROUPS = {"bash": "_shtab_starttls_gateway_groups", "zsh": "_groups"}
COMPLETERS: dict[str, Mapping[str, Any]] = {
    "FILE": shtab.FILE,
    "PATH": shtab.FILE,
    "DIRECTORY": shtab.DIRECTORY,
    "USER": USERS,
    "GROUP": GROUPS,
}
PREAMBLE: Any = {
    "bash": f'{USERS["bash"]}() {{ compgen -u -- "$1"; }}\n{GROUPS["bash"]}() {{ compgen -g -- "$1"; }}\n',
}


def completion(shell: str) -> str:
    """The script for this shell.  Raises KeyError for another than bash and zsh."""
    parser = make_parser()
    for action in _actions(parser):
        if isinstance(action.metavar, str) and action.metavar in COMPLETERS and not action.choices:
            action.complete = COMPLETERS[action.metavar]  # type: ignore[attr-defined]
    OUTPUT[shell]
    return str(shtab.complete(parser, shell=shell, root_prefix="starttls_gateway", preamble=PREAMBLE))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)


if __name__ == "__main__":
    for shell, name in OUTPUT.items():
        Path(__file__).with_name(name).write_text(completion(shell), "utf-8")
