"""A worker whose master is gone tells by itself what nobody else can tell."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.task import Clock

from gateway.app.workers.forwarding import EventsToMaster, Way
from gateway.app.workers.worker import Worker


class Reactor(Clock):
    def addReader(self, reader: object) -> None:
        pass

    removeReader = addWriter = removeWriter = addReader

    def stop(self) -> None:
        pass


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    yield near, far
    near.close()
    far.close()


def orphan(pair: tuple[socket.socket, socket.socket], log: Path, killed: int | None) -> str:
    """What is in the log when the master is gone, and this process was killed last."""
    with log.open("wb") as file:
        template: Any = SimpleNamespace(
            gateway=SimpleNamespace(reachable=(), running=False),
            orders=SimpleNamespace(log=file.fileno(), form="text"),
            sessions=EventsToMaster(Way(lambda message: None), budgeted=True),
            own=EventsToMaster(Way(lambda message: None)),
            given=None,
            killed=killed,
        )
        worker = Worker(Reactor(), template, 1, pair[0])
        worker._orphaned()
    return log.read_text()


@pytest.mark.parametrize("itself", [True, False])
def test_that_the_master_was_killed_by_it_is_told_when_the_master_is_gone(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path, itself: bool
) -> None:
    """Who made the pair of sockets is the master: this process."""
    told = orphan(pair, tmp_path / "log", os.getpid() if itself else None)
    assert told.count("process-killed") == itself
    assert told.count("state=orphaned") == 1
