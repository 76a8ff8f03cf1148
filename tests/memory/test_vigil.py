"""Who is taken for a process that hangs."""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.task import Clock

from gateway.app.workers.vigil import LOOK, SILENCE, Vigil


@dataclass
class Watched:
    heard: float = 0.0


def test_who_is_silent_for_too_long_hangs_and_nobody_else() -> None:
    clock, silent, lively = Clock(), Watched(), Watched()
    hang: list[Watched] = []
    vigil = Vigil(clock, lambda: [silent, lively], hang.append)
    while clock.seconds() < SILENCE:
        assert hang == []
        lively.heard = clock.seconds()
        clock.advance(LOOK)
    assert hang == [silent]
    vigil.stop()
    assert clock.getDelayedCalls() == []


def test_who_heard_nothing_because_it_was_held_up_itself_blames_nobody() -> None:
    clock, watched = Clock(), Watched()
    hang: list[Watched] = []
    vigil = Vigil(clock, lambda: [watched], hang.append)
    clock.advance(LOOK)
    clock.advance(3 * SILENCE)
    assert hang == []
    clock.pump([LOOK] * int(SILENCE / LOOK - 2))
    assert hang == [watched]
    vigil.stop()
