"""`capture`: asks again and again, and prints what one client and the gateway say to each other."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, Final

from ...app.control.messages import Answer, Request
from ...telemetry.words import counted
from .words import duration

EVERY: Final = 0.5
"""Seconds between two questions."""
LONGEST: Final = 86400.0
LARGEST: Final = 16 * 1024 * 1024
"""Octets that are written; then it is enough."""
_ARROWS: Final = {"C": "C:", "S": "S:", "-": "--"}


def run(given: argparse.Namespace, ask: Callable[[Request], Answer], plain: Callable[[object], str]) -> tuple[str, ...]:
    """To its end; the problems.  `ask` raises what it raises; Ctrl-C ends it like the end of its time."""
    if not 1 <= given.seconds <= LONGEST:
        return (f"{duration(given.seconds)} is out of range; write 1s to 24h",)
    request = Request("capture", given.about)
    answer = ask(request)  # before the file is made
    if not answer.good:
        return answer.problems
    try:
        out = sys.stdout if given.to is None else _opened(given.to)
    except OSError as wrong:
        return (f"{given.to}: {wrong.strerror}; name a new file, in a directory that exists",)
    print(f"{given.about}: new sessions, for {duration(given.seconds)}; Ctrl-C ends it", file=sys.stderr)
    try:
        problems, written = _follow(given.seconds, answer, lambda: ask(request), out, plain)
        if not written and not problems:
            print(f"{given.about}: no new session had anything to show", file=sys.stderr)
        return problems
    except KeyboardInterrupt:
        return ()
    finally:
        if given.to is not None:
            out.close()


def _opened(path: str) -> Any:
    """For its owner alone.  Raises OSError, also where there is a file."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w", encoding="utf-8")


def _follow(
    seconds: float, answer: Answer, again: Callable[[], Answer], out: Any, plain: Callable[[object], str]
) -> tuple[tuple[str, ...], int]:
    """The problems, and how many characters were written."""
    until, written = time.monotonic() + seconds, 0
    while True:
        if not answer.result:
            return answer.problems, written
        lines = [plain(told) for told in map(_line, answer.result["lines"])]
        if answer.result["lost"]:
            lines.append(f"... lost: {counted(answer.result['lost'], 'line')}")
        for line in lines:
            print(line, file=out)
            written += len(line) + 1
        out.flush()
        if written >= LARGEST:
            return (f"{LARGEST // 2**20} MiB are written, which is the most",), written
        left = until - time.monotonic()
        if left <= 0:
            return (), written
        try:
            time.sleep(min(EVERY, left))
        except KeyboardInterrupt:
            until = 0.0  # what was said until now is read
        answer = again()


def _line(row: Any) -> str:
    moment, session, service, who, text = row
    when = datetime.fromtimestamp(moment, timezone.utc).astimezone().strftime("%H:%M:%S.%f")[:-3]
    return f"{when} {session[:6]} {service} {_ARROWS[who]} {text}"
