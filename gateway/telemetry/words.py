"""Anybody's words, made harmless."""

from __future__ import annotations


def printable(text: str) -> str:
    """Anybody's words, for a terminal or a page: what cannot be printed is shown as a question mark, so that it cannot
    turn text around."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in text)
