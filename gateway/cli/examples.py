"""Examples for `--help`, the command reference and the manual page: at least one for each command."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping
from typing import Any

EXAMPLES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "check": (
        ("starttls-gateway check", "test /etc/starttls-gateway/gateway.ini"),
        ("starttls-gateway check gateway.ini --live", "also connect to each backend, as a client would"),
        ("starttls-gateway check --uid starttls-gateway", "also list the files that this user cannot read"),
    ),
    "probe": (
        ("starttls-gateway probe smtp mail.example.org", "test a mail server on port 25 with STARTTLS"),
        ("starttls-gateway probe imap mail.example.org:993 --json", "test a port with implicit TLS; print JSON"),
    ),
    "report": (
        ("starttls-gateway report", "list clients without TLS or with old TLS in the last 30 days"),
        ("starttls-gateway report --since 90d --csv", "the last 90 days, as CSV"),
    ),
    "import": (
        (
            "starttls-gateway import /etc/stunnel/stunnel.conf > gateway.ini",
            "write a file with the services of stunnel",
        ),
        (
            "starttls-gateway import nginx.conf --backend 10.0.0.5",
            "name the mail server, which nginx.conf does not name",
        ),
    ),
    "status": (
        ("starttls-gateway status", "show services, backends, certificates and the last reload"),
        ("starttls-gateway status --nagios --warning 21", "one line for Nagios, with an exit status"),
    ),
    "reload": (("starttls-gateway reload", "read the configuration file again, after a change"),),
    "upgrade": (("starttls-gateway upgrade", "let the installed version take over, and wait until it serves"),),
    "drain": (
        ("starttls-gateway drain imap", "take no new sessions for the service imap"),
        ("starttls-gateway drain 10.0.0.5:143", "make no new connections to this address of a backend"),
    ),
    "undrain": (("starttls-gateway undrain imap", "take sessions for the service imap again"),),
    "who": (
        ("starttls-gateway who", "list all open sessions"),
        ("starttls-gateway who client=192.0.2.0/24 service=imap", "only those of a network and a service"),
    ),
    "kick": (
        ("starttls-gateway kick 192.0.2.7", "cut off all sessions of this client"),
        ("starttls-gateway kick a1b2c3d4", "cut off one session; who shows the id"),
    ),
    "ban": (
        ("starttls-gateway ban 192.0.2.7", "take no connections of this client for an hour"),
        ("starttls-gateway ban 198.51.100.0/24 --for 7d --kick", "a network, for a week; also end its sessions"),
    ),
    "unban": (("starttls-gateway unban 192.0.2.7", "take connections of this client again"),),
    "bans": (("starttls-gateway bans", "list who is banned, and until when"),),
    "why": (("starttls-gateway why 192.0.2.7", "tell what went wrong with this client, and what to do"),),
    "capture": (
        ("starttls-gateway capture 192.0.2.7 --for 10m", "print the dialogue with this client for ten minutes"),
        ("starttls-gateway capture 192.0.2.7 --to printer.txt", "write it to a file that only you can read"),
    ),
    "run": (("starttls-gateway run gateway.ini", "run in the foreground with this file"),),
}
"""Command -> its examples: the command line, and what it does."""


def show(commands: Any) -> None:
    """Add the examples below the help of each command.  `commands`: what add_subparsers returned."""
    for name, parser in commands.choices.items():
        examples = EXAMPLES.get(name, ())
        width = max((len(line) for line, _ in examples), default=0)
        shown = (f"  {line.ljust(width)}  {meaning}" for line, meaning in examples)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.description = textwrap.fill(parser.description, 79)
        parser.epilog = "\n".join(("examples:", *shown)) if examples else None
