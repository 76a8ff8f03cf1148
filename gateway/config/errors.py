"""What can be wrong before the gateway runs: the operator's file, and the machine that it starts on."""

from __future__ import annotations

from collections.abc import Iterable


class ConfigurationError(Exception):
    """The configuration file cannot be used; `problems` holds one line for each mistake in it."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class StartError(Exception):
    """The gateway cannot start on this machine; the text is the one line that the operator gets to see."""
