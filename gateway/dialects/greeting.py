"""The backend's first line: heard, or why not.  For dialects whose greeting is one line."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from ..negotiation.vocabulary import (
    Await,
    Dial,
    Expired,
    Line,
    Lost,
    Patience,
    Request,
    Side,
    Unavailable,
    Violation,
)
from .base import REPLY_LINE


def greeted() -> Generator[Request, Any, bytes]:
    """Dial, and return the backend's first line.  Raises Unavailable if there is none, and whatever
    befalls the client meanwhile."""
    try:
        yield Dial()
        heard = yield Await((Side.BACKEND,), Patience.GREETING, REPLY_LINE)
    except (Expired, Lost, Violation) as trouble:
        if trouble.side is Side.CLIENT:
            raise
        raise _unheard(trouble) from None
    if not isinstance(heard, Line):
        raise ungreeted(b"a line without end")
    text: bytes = heard.text
    return text


def ungreeted(text: bytes) -> Unavailable:
    """The backend's first line is no greeting in this protocol."""
    return Unavailable("backend-bad-greeting", repr(text[:80]))


def _unheard(trouble: Expired | Lost | Violation) -> Unavailable:
    match trouble:
        case Expired(patience=Patience.GREETING):
            return Unavailable("backend-greeting-timeout")
        case Expired():
            return Unavailable("backend-connect-failed", "timeout")
        case Lost():
            return Unavailable("backend-connect-failed", "closed before its greeting")
    return Unavailable("backend-bad-greeting", trouble.detail)
