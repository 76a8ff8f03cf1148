"""`starttls-gateway run FILE`: the gateway in the foreground.  Underneath it is twistd (docs/operation.md)."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..config import DEFAULT_FILE


def add(commands: Any) -> None:
    """To the command line's parser."""
    about = "run the gateway in the foreground, until SIGTERM or Ctrl-C"
    parser = commands.add_parser("run", help=about, description=f"{about[0].upper()}{about[1:]}.")
    parser.add_argument(
        "file", metavar="FILE", nargs="?", default=DEFAULT_FILE, help="the configuration file (default: %(default)s)"
    )
    parser.add_argument("--uid", metavar="USER", help="become this user after the ports are open and the keys are read")
    parser.add_argument("--gid", metavar="GROUP", help="become this group; default: the user's group")
    parser.add_argument("--pidfile", metavar="FILE", help="write the process id to this file; default: no file")
    parser.add_argument("--logfile", metavar="FILE", help="write the log to this file; default: standard output")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace, say: object) -> int:
    """Returns when the gateway has stopped.  Raises SystemExit where it does not start."""
    from twisted.scripts.twistd import run as twistd

    options = {"--uid": given.uid, "--gid": given.gid}
    log = [] if given.logfile is None else [f"--logfile={given.logfile}"]
    sys.argv = [
        sys.argv[0],
        *("--nodaemon", f"--pidfile={given.pidfile or ''}", *log),
        *("starttls-gateway", f"--config={given.file}"),
        *(f"{name}={value}" for name, value in options.items() if value is not None),
    ]
    twistd()
    return 0
