"""Words for people: anybody's, made harmless, and numbers of things."""

from __future__ import annotations


def printable(text: str) -> str:
    """Anybody's words, for a terminal or a page: what cannot be printed is shown as a question mark, so that it cannot
    turn text around."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in text)


def counted(number: int, noun: str) -> str:
    """`1 session`, `2 sessions`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
