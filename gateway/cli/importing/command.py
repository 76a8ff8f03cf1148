"""`starttls-gateway import FILE`: print the configuration of another program as one of the gateway."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ...config import ConfigurationError, Machine, parse
from ...dialects import DIALECTS
from . import haproxy, nginx, perdition, stunnel
from .carried import Carried, Unreadable, written

PROGRAMS = ("stunnel", "nginx", "haproxy", "perdition")
_SIGNS = {
    "nginx": r"(?m)^\s*(mail|stream|http|events)\s*\{",
    "haproxy": r"(?m)^(global|defaults|frontend\s+\S+|listen\s+\S+|backend\s+\S+)\s*(#.*)?$",
    "stunnel": r"(?m)^\s*accept\s*=",
    "perdition": r"(?m)^\s*(outgoing_server|outgoing_port|ssl_mode|map_library|listen_port|bind_address|protocol)\s+\S",
}
"""What only a file of this program has."""


def add(commands: Any) -> None:
    """To the command line's parser."""
    about = "read the file of stunnel, nginx, HAProxy or Perdition, and print a file for the gateway"
    parser = commands.add_parser(
        "import",
        help=about,
        description=f"{about[0].upper()}{about[1:]}. Comments list the settings that the gateway does not have.",
    )
    parser.add_argument("file", metavar="FILE", help="stunnel.conf, nginx.conf, haproxy.cfg or perdition.conf")
    parser.add_argument(
        "--from",
        dest="program",
        choices=PROGRAMS,
        help="the program; default: from FILE",
    )
    parser.add_argument("--backend", metavar="HOST", default="", help="the mail server behind nginx")
    parser.set_defaults(run=run)


def program_of(name: str, text: str) -> str:
    """Whose file this is: by its name, or by what stands in it; nothing if neither says."""
    for program in PROGRAMS:
        if program in name.lower():
            return program
    return next((program for program, sign in _SIGNS.items() if re.search(sign, text)), "")


def converted(text: str, source: str, program: str, backend: str = "") -> str:
    """The file of the gateway.  Raises Unreadable."""
    readers: dict[str, Callable[[str], Carried]] = {
        "stunnel": stunnel.read,
        "nginx": partial(nginx.read, backend=backend),
        "haproxy": haproxy.read,
        "perdition": perdition.read,
    }
    try:
        carried = readers[program](text)
    except Unreadable as wrong:
        raise Unreadable(f"{source}, {wrong}") from None
    return written(carried, source)


def mistakes(text: str) -> list[str]:
    """What must be corrected by hand before the gateway takes the file."""
    try:
        parse(text, "the new file", DIALECTS, Machine())
    except ConfigurationError as wrong:
        return list(wrong.problems)
    return []


def run(given: argparse.Namespace, say: Callable[..., None]) -> int:
    """The exit status: 1 if nothing can be carried over."""
    path = Path(given.file)
    try:
        text = path.read_text("utf-8", errors="surrogateescape")
    except OSError as wrong:
        print(f"starttls-gateway: {given.file}: {wrong.strerror}", file=sys.stderr)
        return 1
    program = given.program or program_of(path.name, text)
    if not program:
        print(f"starttls-gateway: {given.file}: whose file is this? write --from {'|'.join(PROGRAMS)}", file=sys.stderr)
        return 1
    try:
        result = converted(text, path.name, program, given.backend)
    except Unreadable as wrong:
        print(f"starttls-gateway: {wrong}", file=sys.stderr)
        return 1
    say(result.rstrip("\n"))
    for mistake in mistakes(result):
        print(f"correct this: {mistake}", file=sys.stderr)
    return 0
