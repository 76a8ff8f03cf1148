"""`[report]`: what the gateway remembers of its clients, and for how long."""

from __future__ import annotations

from .grammar import days, one_file, prefixes
from .section import Section
from .values import Report

OFF = "off"
NAME = "report.db"
"""The file's name in the directory for what outlives the process."""
_IDLE = "has no effect with file = off; remove it"


def read_report(section: Section) -> Report:
    """The section's values; what is wrong with it is told."""
    file = section.take("file", one_file, "")
    keep = section.take("keep", days(1, 3650), Report().keep)
    networks = section.take("networks", prefixes, Report().networks)
    if file == OFF:
        for option in ("keep", "networks"):
            if option in section.options:
                section.wrong(option, _IDLE)
    section.finish()
    if file == OFF:
        return Report()
    if not file:
        return Report(None if section.state is None else section.state / NAME, keep, networks)
    return Report(section.place(file), keep, networks)
