"""The control protocol: a request is a line of JSON, and so is its answer (docs/control.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ...records import dataclass

VERSION: Final = 1
"""Raised when an old client would misunderstand an answer.  New fields in answers do not raise it."""
LONGEST: Final = 4096
"""Octets of a request."""
ROWS: Final = 400
"""Sessions in one piece of an answer: two milliseconds."""
_END: Final = b"]}}\n"

Result = Mapping[str, Any]
"""What JSON can hold."""

COMMANDS: Final[Mapping[str, str | None]] = {
    "status": None,
    "reload": None,
    "upgrade": None,
    "drain": "name",
    "undrain": "name",
    "who": "filter",
    "kick": "whom",
    "ban": "client",
    "unban": "client",
    "bans": None,
    "why": "client",
    "capture": "client",
}
"""Each command, and the field of a request that says what it is about."""
OPTIONAL: Final = frozenset({"filter"})
_SECONDS: Final = {"ban": "for"}
_KICKS: Final = frozenset({"ban"})


@dataclass(frozen=True, slots=True)
class Request:
    """One of COMMANDS."""

    command: str
    about: str = ""
    """A service or an address, a filter, or a session or client; empty for none."""
    seconds: float | None = None
    """For how long, where that can be said; None is the command's default."""
    kick: bool = False
    """Of a ban: end the sessions that are open, too."""

    def line(self) -> bytes:
        field = COMMANDS[self.command]
        more: dict[str, Any] = {field: self.about} if field and self.about else {}
        if self.seconds is not None:
            more[_SECONDS[self.command]] = self.seconds
        if self.kick:
            more["kick"] = True
        return _line({"version": VERSION, "command": self.command, **more})


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request, from one process or from all."""

    result: Result
    problems: tuple[str, ...] = ()
    """Why it was not done, a line each; empty where it was."""

    @property
    def good(self) -> bool:
        return not self.problems

    def pieces(self) -> Iterator[bytes]:
        """A line, of which each piece takes little time to make: sessions may be thousands."""
        rows = self.result.get("sessions")
        whole = {"version": VERSION, "ok": self.good, "problems": list(self.problems), "result": self.result}
        if not isinstance(rows, list) or len(rows) <= ROWS:
            yield _line(whole)
            return
        # "sessions" is the last of the line.
        rest = {name: value for name, value in self.result.items() if name != "sessions"}
        yield _line({**whole, "result": {**rest, "sessions": []}}).removesuffix(_END)
        for start in range(0, len(rows), ROWS):
            separator = b"," if start else b""
            yield separator + _line(rows[start : start + ROWS])[1:-2]
        yield _END


class Misunderstood(ValueError):
    """A line that is no request, or no answer; the text says why."""


def request_of(line: bytes) -> Request:
    """Raises Misunderstood."""
    told = _object(line)
    if told.get("version") != VERSION:
        raise Misunderstood(f"version {told.get('version')!r} is not spoken here; this gateway speaks {VERSION}")
    command = told.get("command")
    if not isinstance(command, str) or command not in COMMANDS:
        raise Misunderstood(f"there is no command {command!r}; there are {', '.join(COMMANDS)}")
    field = COMMANDS[command]
    about = "" if field is None else told.get(field, "")
    # JSON can write halves of characters, and a terminal octets that are no UTF-8.
    if not isinstance(about, str) or about.encode("utf-8", "ignore").decode() != about:
        raise Misunderstood(f"{command}: {field} is no text")
    if field is not None and field not in OPTIONAL and not about:
        raise Misunderstood(f"{command}: {field} is missing")
    seconds = kick = None
    if command in _SECONDS:
        seconds = _typed(told, command, _SECONDS[command], (int, float), "number")
    if command in _KICKS:
        kick = _typed(told, command, "kick", (bool,), "yes or no (true or false)")
    known = {"version", "command", field, _SECONDS.get(command), "kick" if command in _KICKS else None}
    if unknown := sorted(told.keys() - known):
        raise Misunderstood(f"{command}: takes no {', '.join(unknown)}")
    return Request(command, about, seconds, bool(kick))


def _typed(told: Mapping[str, Any], command: str, field: str, types: tuple[type, ...], what: str) -> Any:
    value = told.get(field)
    if value is not None and type(value) not in types:
        raise Misunderstood(f"{command}: {field} is no {what}")
    return value


def answer_of(line: bytes) -> Answer:
    """Raises Misunderstood."""
    told = _object(line)
    result, problems = told.get("result"), told.get("problems")
    if told.get("version") != VERSION or not isinstance(result, dict) or not isinstance(problems, list):
        raise Misunderstood("the gateway answers in another version of the control protocol; use its own command")
    return Answer(result, tuple(map(str, problems)))


def _object(line: bytes) -> Mapping[str, Any]:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        raise Misunderstood("a line that is no JSON") from None
    if not isinstance(told, dict):
        raise Misunderstood("a line that is no JSON object")
    return told


def _line(told: Mapping[str, Any] | list[Any]) -> bytes:
    return json.dumps(told, separators=(",", ":")).encode("ascii") + b"\n"
