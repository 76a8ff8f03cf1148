"""Signals that come before the reactor runs; the rest is held by whole processes (test_stopping, test_startup)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from signal import Signals as Number
from typing import Any

import pytest

from gateway.errors import StartError
from gateway.signals import ASKING, STOPPING, Signals


class Reactor:
    """Notes what stops it."""

    def __init__(self) -> None:
        self.stopped_by: list[int] = []

    def sigTerm(self, number: int, frame: object) -> None:
        self.stopped_by.append(number)

    sigInt = sigTerm

    def callFromThread(self, call: Any) -> None:
        call()


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (*ASKING, *STOPPING)}
    signal.signal(Number.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_T20_a_stop_ends_a_start_that_is_under_way() -> None:
    Signals().starting()
    with pytest.raises(StartError, match="stopped by SIGTERM before it had started"):
        os.kill(os.getpid(), Number.SIGTERM)


def test_T20_a_stop_is_not_lost_where_somebody_swallows_what_is_raised() -> None:
    """Twisted's log does, with what an observer raises."""
    signals, reactor = Signals(), Reactor()
    signals.starting()
    with suppress(StartError):
        os.kill(os.getpid(), Number.SIGTERM)
    signals.started()
    signals.serve(reactor, lambda number: None, lambda: None)
    assert reactor.stopped_by == [Number.SIGTERM]
