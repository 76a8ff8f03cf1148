"""A test that writes a Playbook and does not run it has shown nothing: it fails."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.pure.playbook import Playbook


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    try:
        yield
        forgotten = [str(play) for play in Playbook.unplayed]
        assert not forgotten, f"{item.name}: add .run() to\n" + "\n".join(forgotten)
    finally:
        Playbook.unplayed.clear()
