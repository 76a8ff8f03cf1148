"""Certificates and reactors for the memory ring."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway.telemetry.events import Events
from tests import events
from tests.memory.meeting import Meet, Meeting
from tests.memory.stepping import LoopedReactor, SteppedReactor
from tests.memory.tls_peer import Authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate for mail.example.test on disk, and who vouches for it."""
    return Authority(trustme.CA(), tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def reactor() -> Iterator[SteppedReactor]:
    reactor = LoopedReactor()
    yield reactor
    # What a test leaves open must not warn in the next one.
    for selectable in [*reactor.readers.values(), *reactor.writers.values()]:
        if hasattr(selectable, "abort"):
            selectable.abort()
    reactor.clock.advance(0)


@pytest.fixture(autouse=True)
def every_event_is_in_the_table(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With the fields that are told of it, and what they hold."""
    tell = Events.emit
    problems = {""}

    def emit(self: Events, event: str, **fields: object) -> None:
        problems.add(events.wrong({"event": event, **fields}))
        tell(self, event, **fields)

    monkeypatch.setattr(Events, "emit", emit)
    yield
    assert problems == {""}, "see gateway/telemetry/catalogue.py"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def meet(reactor: SteppedReactor, authority: Authority) -> Iterator[Meet]:
    meetings: list[Meeting] = []

    def meet(protocol: str = "pop3", **options: Any) -> Meeting:
        meetings.append(Meeting(reactor, authority, protocol, **options))
        return meetings[-1]

    yield meet
    for meeting in meetings:
        meeting.leave()
