"""The command `starttls-gateway`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from .. import __version__
from . import examples, run

BROKEN_PIPE = 141
"""Exit status if standard output was closed, as in `check | head -1`: as after SIGPIPE."""


class _Unheard(Exception):
    """Standard output does not work.  The text is the reason, empty for a broken pipe."""


def _say(*lines: str) -> None:
    """Print lines and flush, so that errors appear here."""
    try:
        for line in lines:
            print(line)
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as wrong:
        # The interpreter flushes again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise _Unheard("" if isinstance(wrong, BrokenPipeError) else wrong.strerror) from None


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        return _main(arguments)
    finally:
        with suppress(_Unheard):
            _say()  # also for --help


def make_parser(serving: bool = False) -> argparse.ArgumentParser:
    """The whole command line; shell completion is made from it (`make completion`).

    `serving`: only `run`.  What the other commands import would stay in memory as long as the gateway runs: 2 MB."""
    parser = argparse.ArgumentParser(
        prog="starttls-gateway",
        description="Modern TLS in front of old servers.",
        epilog="Under twistd, as a daemon: twistd starttls-gateway --config FILE",
    )
    parser.add_argument("--version", action="version", version=f"starttls-gateway {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    if not serving:
        _add_others(commands)
    run.add(commands)
    examples.show(commands)
    for command in commands.choices.values():
        command.set_defaults(error=command.error)
    return parser


def _add_others(commands: Any) -> None:
    """All commands but `run`."""
    from . import check, migration
    from .importing import command as importing
    from .probe import command as probe
    from .steer import command as steer

    for other in (check, probe, migration, importing, steer):
        other.add(commands)


def _main(arguments: Sequence[str] | None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    given, others = make_parser(list(words[:1]) == ["run"]).parse_known_args(words)
    if others:
        given.error(f"unrecognized arguments: {' '.join(others)}")  # with the usage of this command, not of all
    # A file name can have octets that are not text.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return int(given.run(given, _say))
    except _Unheard as wrong:
        if not str(wrong):
            return BROKEN_PIPE
        print(f"starttls-gateway: standard output: {wrong}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("starttls-gateway: interrupted; there is no result", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
