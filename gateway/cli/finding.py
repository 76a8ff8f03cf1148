"""What `check` finds on this machine."""

from __future__ import annotations

from ..config.ini import Problem
from ..records import dataclass


@dataclass(frozen=True, slots=True)
class Finding(Problem):
    """A problem on this machine."""

    fatal: bool = True
    """The gateway cannot start or cannot serve all clients.  Otherwise it is a warning."""
