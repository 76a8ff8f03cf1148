"""Commands of the control socket that only workers can answer: all of them are asked, and their answers become one."""

from __future__ import annotations

from typing import Final

from ..control.answers import OF_SESSIONS, merged
from ..control.messages import Answer, Request
from .asking import Replies
from .messages import Message

ROWS: Final = 1000
"""Sessions in one message, some 300 octets each."""


def question(request: Request) -> Message:
    """In the master."""
    return {"command": request.command, "about": request.about}


def parts(answer: Answer) -> list[Message]:
    """In a worker: thousands of sessions are too many for one message."""
    rows = answer.result.get("sessions")
    if not isinstance(rows, list):
        return [{"result": answer.result, "problems": answer.problems}]
    chunks = [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)] or [[]]
    return [{"result": {"sessions": chunk}, "problems": answer.problems} for chunk in chunks]


def answers(replies: Replies) -> list[Answer]:
    """What came back."""
    return [Answer(part["result"], tuple(part["problems"])) for said in replies.parts.values() for part in said]


def answered(request: Request, replies: Replies, ends: bool = False) -> Answer:
    """In the master: one answer of all.  `ends`: no other worker comes; who has ended has no sessions."""
    found = answers(replies)
    missing = tuple(f"worker {worker} does not answer" for worker in replies.missing)
    if not found and not missing and ends:
        if request.command not in OF_SESSIONS:
            return Answer({}, ("the gateway stops, and its last worker has ended",))
        found = [Answer(OF_SESSIONS[request.command])]
    if not found:
        return Answer({}, missing or ("no worker serves now; try again",))
    answer = merged(request, found)
    if missing and request.command == "status":
        return Answer({**answer.result, "warnings": [*answer.result["warnings"], *missing]}, answer.problems)
    return Answer(answer.result, (*answer.problems, *missing))
