"""Errors before the gateway runs: in the configuration file, or on the machine."""

from __future__ import annotations

from collections.abc import Iterable


class ConfigurationError(Exception):
    """The configuration file cannot be used.  `problems` has one line for each mistake."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class StartError(Exception):
    """The gateway cannot start on this machine.  The text is one line for the administrator."""
