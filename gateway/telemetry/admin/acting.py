"""What an administrator can do on the page: the forms, what they ask for, and what became of it.

A form works without a script.  It brings along a secret of the page that no other page can know (CSRF).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ...records import dataclass
from ..observation import Standing
from ..words import counted
from .parts import document, text

LONGEST: Final = 1024
"""Octets of a form's answers."""
PATH: Final = "/act/"
_FIELDS: Final = {"kick": "whom", "ban": "client", "unban": "client", "drain": "name", "undrain": "name"}
"""What can be done, and the field that says about whom."""
_HOURS: Final = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,3})?\Z")
HOUR: Final = 3600.0

Result = Mapping[str, Any]
"""As in docs/control.md."""


@dataclass(frozen=True, slots=True)
class Action:
    command: str
    about: str
    seconds: float | None = None
    """Of a ban."""
    kick: bool = False
    """Of a ban: end the sessions that are open, too."""


def action_of(path: str, given: Mapping[str, str]) -> Action | str:
    """What is asked for at this path; or what is wrong with it, in a sentence."""
    command = path.removeprefix(PATH)
    if command not in _FIELDS:
        return f"There is nothing to do at {path}."
    field = _FIELDS[command]
    about = given.get(field, "").strip()
    if not about:
        return f"{field} is missing."
    if command != "ban":
        return Action(command, about)
    hours = given.get("hours", "1").strip()
    if not _HOURS.match(hours) or not float(hours):
        return f"hours: {hours} is no number of hours, like 1 or 0.5."
    return Action(command, about, HOUR * float(hours), given.get("kick") == "yes")


def is_own(headers: Mapping[str, str | None], scheme: str, given: str, secret: str) -> bool:
    """Whether a page of the gateway, or a program with the token, asks for this.

    A browser sends the password of Basic along with what any page makes it send.  `headers`: origin, sec-fetch-site,
    host, authorization.
    """
    origin = headers["origin"]
    if origin is not None and origin != f"{scheme}://{headers['host']}":
        return False
    if headers["sec-fetch-site"] not in (None, "same-origin"):
        return False
    if (headers["authorization"] or "").lower().startswith("bearer "):
        return True  # no page can make a browser send that
    return hmac.compare_digest(given.encode(), secret.encode())


def forms(services: Sequence[str], backends: Sequence[str], csrf: str) -> str:
    options = "".join(f'<option value="{text(name)}">{text(name)}</option>' for name in _names(services, backends))
    names = f'<label>service or backend <select name="name">{options}</select></label>'
    kick = '<label class="box"><input type="checkbox" name="kick" value="yes"> cut off its sessions</label>'
    client = _input("client", "client or network")
    return (
        "<h2>Act</h2>"
        + _form("kick", "Cut off", _input("whom", "session, client, network or user"), csrf)
        + _form("ban", "Ban", client + _input("hours", "hours", "1", "decimal") + kick, csrf)
        + _form("unban", "Lift the ban", client, csrf)
        + _form("drain", "Drain", names, csrf)
        + _form("undrain", "End the drain", names, csrf)
    )


def _names(services: Sequence[str], backends: Sequence[str]) -> list[str]:
    """Written out where a service and a backend have the same name."""
    both = set(services) & set(backends)
    return [
        *(f"service:{name}" if name in both else name for name in services),
        *(f"backend:{name}" if name in both else name for name in backends),
    ]


def _input(name: str, words: str, value: str = "", mode: str = "text") -> str:
    given = f' value="{value}"' if value else ""
    return f'<label>{words} <input name="{name}" inputmode="{mode}" autocomplete="off" required{given}></label>'


def _form(command: str, button: str, fields: str, csrf: str) -> str:
    return (
        f'<form method="post" action="{PATH}{command}"><input type="hidden" name="csrf" value="{csrf}">{fields}'
        f"<button>{button}</button></form>"
    )


def outcome(action: Action, result: Result, problems: Sequence[str]) -> list[str]:
    """Sentences: what became of it."""
    if problems:
        return list(problems)
    match action.command:
        case "kick":
            return [f"{counted(result['sessions'], 'session')} cut off."]
        case "ban":
            whose = f"{counted(result['sessions'], 'session')} " + ("cut off." if result["kicked"] else "still open.")
            return [f"{result['network']} is banned until {result['until']}.", whose]
        case "unban":
            return [f"{', '.join(result['networks'])}: not banned any more."]
    names = ", ".join(result["names"])
    if result["draining"]:
        there = counted(result["sessions"], "session")
        return [f"{names}: takes nobody new; {there} there, and idle ones are ended."]
    return [f"{names}: takes sessions again."]


def answer_page(standing: Standing, sentences: Sequence[str], good: bool) -> str:
    told = "".join(f"<p>{text(sentence)}</p>" for sentence in sentences)
    state = "Done." if good else "It was not done."
    back = '<p><a href="/">Back to the status</a></p>'
    return document("STARTTLS gateway on", standing, state, {"acted": told + back})
