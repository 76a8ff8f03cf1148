"""Signals that come before the reactor runs; the rest is held by whole processes (test_stopping, test_startup)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from signal import Signals as Number
from typing import Any

import pytest

from gateway.app.signals import ASKING, STOPPING, Signals
from gateway.config.errors import StartError


class Reactor:
    """Notes what stops it."""

    def __init__(self) -> None:
        self.stops = 0

    def sigTerm(self, number: int, frame: object) -> None:
        raise AssertionError("the process would die of the signal")

    sigInt = sigTerm

    def stop(self) -> None:
        self.stops += 1

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
    signals = Signals()
    signals.starting()
    signals.check()
    os.kill(os.getpid(), Number.SIGTERM)
    with pytest.raises(StartError, match="stopped by SIGTERM before it had started"):
        signals.check()


def test_T20_a_stop_is_not_lost_where_somebody_swallows_what_is_raised() -> None:
    """Twisted's log does, with what an observer raises, and Python, with what a destructor raises."""
    signals, reactor = Signals(), Reactor()
    signals.starting()

    class Gone:
        def __del__(self) -> None:
            os.kill(os.getpid(), Number.SIGTERM)

    Gone()
    signals.serve(reactor, lambda number: None, lambda: None)
    assert reactor.stops == 1


def test_T20_a_process_that_only_waits_lets_go() -> None:
    signals = Signals()
    signals.starting()
    assert signal.getsignal(Number.SIGTERM) != signal.SIG_DFL
    signals.let_go()
    assert signal.getsignal(Number.SIGTERM) == signal.SIG_DFL


def test_T20_what_somebody_else_handles_is_left_alone() -> None:
    signal.signal(Number.SIGINT, signal.SIG_IGN)
    signals = Signals()
    signals.starting()
    signals.serve(Reactor(), lambda number: None, lambda: None)
    assert signal.getsignal(Number.SIGINT) == signal.SIG_IGN
