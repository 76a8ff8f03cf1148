"""Certificates and reactors for the memory ring."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.memory.stepping import SteppedReactor
from tests.memory.tls_peer import Authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate for mail.example.test on disk, and who vouches for it."""
    return Authority(trustme.CA(), tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def reactor() -> Iterator[SteppedReactor]:
    reactor = SteppedReactor()
    yield reactor
    # What a test leaves open must not warn in the next one.
    for selectable in [*reactor.readers.values(), *reactor.writers.values()]:
        if hasattr(selectable, "abort"):
            selectable.abort()
    reactor.clock.advance(0)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path
