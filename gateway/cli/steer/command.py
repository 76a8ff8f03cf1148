"""`status`, `who`, `ban` and the others: one request, one answer, an exit status."""

from __future__ import annotations

import argparse
import errno
import json
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ...app.control.messages import Answer, Misunderstood, Request, answer_of
from ...config import DEFAULT_FILE, ConfigurationError, control_of
from ...config.values import Control
from ...records import dataclass
from . import capturing, nagios
from .words import WORDS, seconds

REFUSED = 1
"""Exit status: the gateway has answered, and did not do it."""
UNREACHABLE = 3
"""Exit status: no gateway has answered; the same as for a service that does not run (LSB)."""
PATIENCE = 60.0
"""Seconds for an answer."""
UPGRADE = 90.0
"""Seconds for the answer to `upgrade`; the new program has 60 to serve."""

Say = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Command:
    name: str
    about: str
    argument: str = ""
    explained: str = ""
    optional: bool = False
    lasts: str = ""
    """What --for says; empty where there is no such option."""
    kicks: bool = False
    writes: bool = False
    """It goes on until its time is over, and can write to a file."""
    judges: bool = False
    """It can answer as a plugin of Nagios."""


COMMANDS = (
    Command(
        "status",
        "show what a running gateway does: sessions, services, backends, certificates, the last reload",
        judges=True,
    ),
    Command("reload", "let a running gateway read its configuration file again; exit status 1 if the file is refused"),
    Command(
        "upgrade",
        "let the installed program take over from a running gateway; no client is refused, no session is lost; exit "
        "status 1 if the new program does not serve, and then the old program goes on",
    ),
    Command(
        "drain",
        "take no new sessions for a service, or make no new connections to a backend's address; idle sessions end",
        "NAME",
        "a service, a backend or an address of a backend; service:NAME or backend:NAME if both have this name",
    ),
    Command("undrain", "end a drain: take new sessions again", "NAME", "the NAME that you gave to drain"),
    Command(
        "who",
        "list open sessions",
        "FILTER",
        "only sessions that match all words, like client=192.0.2.0/24 service=imap phase=relaying; a word without = is "
        "an id, a client, a network, a user, a service, a protocol, a phase, a backend or a TLS version",
        optional=True,
    ),
    Command(
        "ban",
        "take no connections of a client for some time",
        "CLIENT",
        "an address or a network; an IPv6 address means its /64 network",
        lasts="how long, like 30m, 1h or 7d (default: 1h)",
        kicks=True,
    ),
    Command(
        "unban",
        "take connections of a banned client again",
        "CLIENT",
        "an address or a network; the bans of all parts of the network end too",
    ),
    Command("bans", "list banned clients, and when each ban ends"),
    Command(
        "why",
        "tell in plain words what went wrong with a client in the last hours, and what to do",
        "CLIENT",
        "an address or a network; an IPv6 address means its /64 network",
    ),
    Command(
        "capture",
        "print what a client and the gateway say to each other from now on; passwords and mails are masked",
        "CLIENT",
        "an address or a network; an IPv6 address means its /64 network",
        lasts="how long, like 30s or 10m (default: 10m)",
        writes=True,
    ),
    Command("kick", "cut off sessions at once", "WHOM", "a session's id, a client's address, a network or a user"),
)


def add(commands: Any) -> None:
    """To the command line's parser."""
    for command in COMMANDS:
        about = f"{command.about[0].upper()}{command.about[1:]}."
        parser = commands.add_parser(command.name, help=command.about, description=about)
        if command.argument:
            several = "*" if command.optional else None
            parser.add_argument("about", metavar=command.argument, nargs=several, help=command.explained)
        if command.lasts:
            parser.add_argument("--for", dest="seconds", metavar="TIME", type=span, help=command.lasts)
        if command.writes:
            parser.add_argument("--to", metavar="FILE", help="write to a new file that only its owner can read")
            parser.set_defaults(seconds=600.0)
        if command.kicks:
            parser.add_argument("--kick", action="store_true", help="also cut off the client's open sessions")
        if command.judges:
            parser.add_argument(
                "--nagios",
                action="store_true",
                help="one line for Nagios or Icinga; exit status 0 ok, 1 warning, 2 critical, 3 unknown",
            )
            for word, days in (("warning", 14), ("critical", 3)):
                parser.add_argument(
                    f"--{word}", metavar="DAYS", type=int, default=days,
                    help=f"with --nagios: {word} if a certificate has fewer days left (default: %(default)s)",
                )  # fmt: skip
        parser.add_argument(
            "--config", "-c", metavar="FILE", default=DEFAULT_FILE,
            help="the gateway's configuration file, which names its control socket (default: %(default)s)",
        )  # fmt: skip
        parser.add_argument("--socket", metavar="PATH", help="the path of the control socket, in place of --config")
        if command.writes:
            parser.set_defaults(run=capture)
            continue
        parser.add_argument("--json", action="store_true", help="show the answer as JSON (see docs/control.md)")
        parser.set_defaults(run=run)


def span(text: str) -> float:
    try:
        return seconds(text)
    except ValueError as wrong:
        raise argparse.ArgumentTypeError(str(wrong)) from None


class Unreachable(Exception):
    """No gateway answers; the text is one line: why, and the cure."""

    def __init__(self, text: str, gone: bool = False) -> None:
        """`gone`: no process listens there, so the gateway does not run; else it may."""
        super().__init__(text)
        self.gone = gone


def run(given: argparse.Namespace, say: Say) -> int:
    about = getattr(given, "about", "")
    lasts, kicks = getattr(given, "seconds", None), getattr(given, "kick", False)
    request = Request(given.command, about if isinstance(about, str) else " ".join(about), lasts, kicks)
    judges = getattr(given, "nagios", False)
    try:
        answer = ask(place(given.config, given.socket), request)
    except Unreachable as wrong:
        if judges:
            status = nagios.CRITICAL if wrong.gone else nagios.UNKNOWN
            say(_plain(nagios.line(status, str(wrong))))
            return status
        if given.json:
            say(json.dumps({"ok": False, "problems": [str(wrong)], "result": {}}, indent=2))
        print(f"starttls-gateway: {_plain(wrong)}", file=sys.stderr)
        return UNREACHABLE
    if judges:
        if not answer.good:
            say(_plain(nagios.line(nagios.UNKNOWN, "; ".join(answer.problems))))
            return nagios.UNKNOWN
        status, told = nagios.judged(answer.result, given.warning, given.critical)
        say(_plain(told))
        return status
    if given.json:
        say(json.dumps({"ok": answer.good, "problems": answer.problems, "result": answer.result}, indent=2))
    else:
        if answer.result:
            say(*map(_plain, WORDS[given.command](answer.result)))
        for problem in answer.problems:
            print(_plain(problem), file=sys.stderr)
    return 0 if answer.good else REFUSED


def capture(given: argparse.Namespace, say: Say) -> int:
    try:
        path = place(given.config, given.socket)
        problems = capturing.run(given, lambda request: ask(path, request), _plain)
    except Unreachable as wrong:
        print(f"starttls-gateway: {_plain(wrong)}", file=sys.stderr)
        return UNREACHABLE
    for problem in problems:
        print(_plain(problem), file=sys.stderr)
    return REFUSED if problems else 0


def place(config: str, path: str | None) -> str:
    """Where to ask.  Raises Unreachable where the file is missing, or says that nobody answers."""
    if path is not None:
        return path
    if config != DEFAULT_FILE and not os.path.exists(config):
        raise Unreachable(f"{config}: there is no such file; name the gateway's file, or its socket with --socket")
    try:
        found = control_of(config).path
    except ConfigurationError as wrong:
        found = Control().path
        # Nobody needs a file to ask a gateway at the usual place.
        if os.path.exists(config):
            print(f"starttls-gateway: {_plain(wrong.problems[0])}; asking at {found}", file=sys.stderr)
    if found is None:
        raise Unreachable(f"{config}: [gateway] control is off, so nobody can ask; name a path there, and restart")
    return found


def ask(path: str, request: Request) -> Answer:
    """Raises Unreachable."""
    answer = _ask(path, request)
    if request.command == "upgrade" and answer.good:
        # The new program answers as soon as it has taken over: the service's main process is that one then.
        with suppress(Unreachable):
            _ask(path, Request("status"))
    return answer


def _ask(path: str, request: Request) -> Answer:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(UPGRADE if request.command == "upgrade" else PATIENCE)
            sock.connect(path)
            sock.sendall(request.line())
            with sock.makefile("rb") as stream:
                line = stream.readline()
    except OSError as wrong:
        cure = _CURES.get(wrong.errno or 0, "is this the control socket of a gateway?")
        gone = wrong.errno in (errno.ENOENT, errno.ECONNREFUSED)
        raise Unreachable(f"{path}: {wrong.strerror or wrong}; {cure}", gone) from None
    if not line.endswith(b"\n"):
        raise Unreachable(f"{path}: the connection was closed without an answer; try again, and see the gateway's log")
    try:
        return answer_of(line)
    except Misunderstood as wrong:
        raise Unreachable(f"{path}: {wrong}") from None


_ELSEWHERE = "is the gateway running? name its file with --config, or its socket with --socket"
_CURES = {
    errno.ENOENT: _ELSEWHERE,
    errno.ECONNREFUSED: f"nobody listens there; {_ELSEWHERE}",
    errno.EACCES: "only root, the gateway's user and [gateway] control_group may ask",
}


def _plain(what: object) -> str:
    """Harmless in a terminal, whoever made it up."""
    return "".join(sign if sign.isprintable() else f"\\x{ord(sign):02x}" for sign in str(what))
