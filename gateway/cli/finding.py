"""What `check` finds on this machine."""

from __future__ import annotations

from ..config import Places
from ..config.ini import Problem
from ..records import dataclass


@dataclass(frozen=True, slots=True)
class Finding(Problem):
    """A problem on this machine."""

    fatal: bool = True
    """The gateway cannot start or cannot serve all clients.  Otherwise it is a warning."""


def at(places: Places, section: str, option: str, fault: str, *, fatal: bool = True) -> Finding:
    """What is wrong with an option; the line is that of its section where the option is missing."""
    return Finding(places(section, option) or places(section), f"[{section}] {option}: {fault}", fatal)
