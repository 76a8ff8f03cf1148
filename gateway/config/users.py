"""`[gateway] log_users` and `users_key`: whether and how the log names users."""

from __future__ import annotations

from pathlib import Path

from .grammar import choice, one_file
from .section import Section

HASHED = "hashed"
NAME = "users.key"
"""The file's name in the directory for what outlives the process."""


def read_users(gateway: Section) -> tuple[str, Path | None]:
    """How users are told, and the file with the key for that; what is wrong is told."""
    how = gateway.take("log_users", choice("no", "yes", HASHED), "no")
    file = gateway.take("users_key", one_file, "")
    if how != HASHED:
        if "users_key" in gateway.options:
            gateway.wrong("users_key", f"has no effect without log_users = {HASHED}; remove it")
        return how, None
    if file:
        return how, gateway.place(file)
    if gateway.state is None:
        if "users_key" not in gateway.options:
            gateway.wrong("users_key", f"is missing; name a file for the key, which the gateway makes: /path/{NAME}")
        return how, None
    return how, gateway.state / NAME
