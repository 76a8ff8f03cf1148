"""Looks at a backend (`check --live`) as playbooks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gateway.dialects.base import Dialect, Terms
from gateway.dialects.survey import Survey
from gateway.protocol.proxyprotocol import Origin
from gateway.protocol.vocabulary import Script
from tests.pure.contract.party import HERE
from tests.pure.playbook import DIAL, Playbook, terms


class Looking:
    """A survey as a playbook plays it: every play is a survey of its own, and the last one is looked at."""

    def __init__(self, dialect: Dialect, origin: Origin | None = HERE, others: bool = False, **changes: Any) -> None:
        self.surveys: list[Survey] = []

        def script(agreed: Terms) -> Script:
            self.surveys.append(Survey(dialect, agreed, dialect.question, lambda: origin))
            return self.surveys[-1].script()

        self.play = Playbook(replace(dialect, script=script), terms(**changes), others=others).start(DIAL)

    def found(self) -> Survey:
        """What was seen, which does not depend on how the octets were cut."""
        self.play.run()
        one, other = self.surveys
        assert (one.greeting, one.exchanges, one.end) == (other.greeting, other.exchanges, other.end)
        return other
