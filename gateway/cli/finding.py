"""What `check` finds on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.ini import Problem


@dataclass(frozen=True, slots=True)
class Finding(Problem):
    """A problem on this machine."""

    fatal: bool = True
    """The gateway cannot start or cannot serve all clients.  Otherwise it is a warning."""
