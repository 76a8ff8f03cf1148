"""The writing side of a leg: every state, every call, and what a socket that takes little makes of the order."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.leg.writing import HIGH_WATER, LOW_WATER, WriteState, Writing

OPEN, LAST_WORDS, FINISHING = WriteState.OPEN, WriteState.LAST_WORDS, WriteState.FINISHING
FINISHED, BROKEN, GONE = WriteState.FINISHED, WriteState.BROKEN, WriteState.GONE


class Pipe:
    """A socket that takes as much as there is room for."""

    def __init__(self, room: float = float("inf")) -> None:
        self.room = room
        self.sends: list[bytes] = []
        self.fin = False
        self.refuses: OSError | None = None

    @property
    def got(self) -> bytes:
        return b"".join(self.sends)

    def send(self, octets: bytes) -> int:
        assert not self.fin, "octets after FIN"
        if self.refuses is not None:
            raise self.refuses
        if not self.room:
            raise BlockingIOError
        count = int(min(self.room, len(octets)))
        self.room -= count
        self.sends.append(bytes(octets[:count]))
        return count

    def shutdown(self, how: int) -> None:
        if self.refuses is not None:
            raise self.refuses
        assert how == socket.SHUT_WR
        self.fin = True


def over(pipe: Pipe) -> Writing:
    return Writing(cast(socket.socket, pipe))


CALLS: dict[str, Callable[[Writing], object]] = {
    "half_close": lambda writing: writing.half_close(shaking=False),
    "half_close in a handshake": lambda writing: writing.half_close(shaking=True),
    "fail": lambda writing: writing.fail("EPIPE"),
    "end": lambda writing: writing.end(),
    "send": lambda writing: writing.send(b"x"),
    "flush": lambda writing: writing.flush(),
}

TABLE = {
    OPEN: {"half_close in a handshake": LAST_WORDS, "fail": BROKEN, "end": GONE},
    LAST_WORDS: {"fail": BROKEN, "end": GONE},
    FINISHING: {"fail": BROKEN, "end": GONE, "flush": FINISHED},
    FINISHED: {"fail": BROKEN, "end": GONE},
    BROKEN: {"end": GONE},
    GONE: {},
}
"""Where each call leads; calls that are not listed change no state."""


def brought_to(state: WriteState) -> tuple[Writing, Pipe]:
    pipe = Pipe()
    writing = over(pipe)
    if state is LAST_WORDS:
        writing.half_close(shaking=True)
    elif state is FINISHING:
        pipe.room = 0
        writing.send(b"unsent")
        writing.finish(b"")
        pipe.room = float("inf")
    elif state is FINISHED:
        writing.finish(b"")
    elif state is BROKEN:
        writing.fail("EPIPE")
    elif state is GONE:
        writing.end()
    assert writing.state is state
    return writing, pipe


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("state", WriteState)
def test_each_call_in_each_state_leads_where_the_table_says(state: WriteState, call: str) -> None:
    writing, _pipe = brought_to(state)
    told = CALLS[call](writing)
    assert writing.state is TABLE[state].get(call, state)
    if call == "half_close":
        assert told is (state is OPEN), "then the end can be said"
    if call == "fail":
        assert told is ("fail" in TABLE[state])


@pytest.mark.parametrize("state", WriteState)
def test_octets_are_sent_in_three_states_and_dropped_in_three(state: WriteState) -> None:
    writing, pipe = brought_to(state)
    writing.send(b"x")
    writing.flush()
    assert pipe.got.endswith(b"x") is (state in (OPEN, LAST_WORDS, FINISHING))
    assert writing.octets == 0


@pytest.mark.parametrize("state", [OPEN, LAST_WORDS])
def test_close_notify_goes_before_fin(state: WriteState) -> None:
    writing, pipe = brought_to(state)
    assert writing.finish(b"close_notify")
    assert (pipe.got, pipe.fin, writing.state) == (b"close_notify", True, FINISHED)


def test_fin_waits_for_what_is_unsent() -> None:
    pipe = Pipe(room=3)
    writing = over(pipe)
    assert writing.send(b"221 bye\r\n")
    assert writing.finish(b"close_notify")
    assert (pipe.got, pipe.fin, writing.blocked) == (b"221", False, True)
    pipe.room = 4
    assert writing.flush()
    assert (pipe.fin, writing.blocked) == (False, True)
    pipe.room = 100
    assert writing.flush()
    assert (pipe.got, pipe.fin, writing.blocked) == (b"221 bye\r\nclose_notify", True, False)


def test_the_end_forgets_what_waits_for_a_handshake() -> None:
    writing, pipe = brought_to(LAST_WORDS)
    writing.wait(b"never to be said")
    writing.finish(b"")
    assert (writing.waiting, pipe.got, pipe.fin) == (b"", b"", True)


def test_what_is_sent_in_one_turn_goes_out_in_one_piece() -> None:
    pipe = Pipe()
    writing = over(pipe)
    writing.corked = True
    assert not writing.send(b"250-a\r\n")
    assert not writing.send(b"250 b\r\n")
    assert pipe.sends == []
    writing.corked = False
    assert not writing.flush(), "there is nothing to look at"
    assert pipe.sends == [b"250-a\r\n250 b\r\n"]


def test_a_full_socket_is_not_asked_again_before_it_can() -> None:
    pipe = Pipe(room=2)
    writing = over(pipe)
    assert writing.send(b"abc")
    assert writing.send(b"def")
    assert (pipe.sends, writing.blocked, writing.octets) == ([b"ab"], True, 4)
    pipe.room = 100
    assert writing.flush()
    assert (pipe.sends, writing.blocked, writing.octets) == ([b"ab", b"cdef"], False, 0)
    assert not writing.flush()


def test_what_tls_said_by_itself_is_counted_until_all_is_sent() -> None:
    pipe = Pipe(room=0)
    writing = over(pipe)
    writing.send(b"x" * 100)
    writing.answers += 100
    pipe.room = 99
    writing.flush()
    assert writing.answers == 100
    pipe.room = 1
    writing.flush()
    assert writing.answers == 0


@pytest.mark.parametrize("moment", ["send", "flush", "finish", "last flush"])
def test_a_socket_that_refuses_breaks_the_writing_side_once(moment: str) -> None:
    pipe = Pipe(room=float("inf") if moment in ("send", "finish") else 0)
    writing = over(pipe)
    if moment.endswith("flush"):
        writing.send(b"unsent")
        writing.wait(b"waits")
    if moment == "last flush":
        writing.finish(b"")
    pipe.refuses = OSError(errno.EPIPE, "Broken pipe")
    told = {
        "send": lambda: writing.send(b"x"),
        "flush": writing.flush,
        "finish": lambda: writing.finish(b""),
        "last flush": writing.flush,
    }[moment]()
    assert told
    assert (writing.state, writing.cause, writing.octets, writing.blocked) == (BROKEN, "EPIPE", 0, False)
    assert not writing.send(b"x")
    assert not writing.flush()
    assert not writing.fail("ETIMEDOUT")
    assert writing.cause == "EPIPE"


def test_a_close_notify_that_is_refused_is_not_followed_by_fin() -> None:
    pipe = Pipe()
    writing = over(pipe)
    pipe.refuses = OSError(errno.ECONNRESET, "Connection reset by peer")
    assert writing.finish(b"close_notify")
    assert (writing.state, writing.cause, pipe.fin) == (BROKEN, "ECONNRESET", False)


@pytest.mark.parametrize(
    ("unsent", "full", "then"),
    [
        (HIGH_WATER, False, False),
        (HIGH_WATER + 1, False, True),
        (LOW_WATER, True, True),
        (LOW_WATER - 1, True, False),
        (HIGH_WATER + 1, True, True),
        (0, False, False),
    ],
)
@pytest.mark.parametrize("waiting", [False, True])
def test_a_mark_is_crossed_once(unsent: int, full: bool, then: bool, waiting: bool) -> None:
    writing = over(Pipe(room=0))
    writing.full = full
    (writing.wait if waiting else writing.send)(b"x" * unsent)
    assert writing.crossed() is (full is not then)
    assert writing.full is then
    assert not writing.crossed()


@given(st.lists(st.one_of(st.binary(min_size=1, max_size=20), st.integers(0, 15), st.booleans())))
def test_whatever_the_socket_takes_the_order_holds_and_fin_is_last(steps: list[bytes | int | bool]) -> None:
    """Octets are sent, a number is new room in the socket, and a bool begins or ends a turn of the reactor."""
    pipe = Pipe(room=5)
    writing = over(pipe)
    said = b""
    for step in steps:
        if isinstance(step, bytes):
            said += step
            writing.send(step)
        elif isinstance(step, bool):
            writing.corked = step
            if not step and not writing.blocked:
                writing.flush()
        else:
            pipe.room += step
            writing.flush()
        assert said.startswith(pipe.got)
        assert writing.octets == len(said) - len(pipe.got)
        assert writing.octets or not writing.blocked
    writing.corked = False
    writing.finish(b"!")
    pipe.room = float("inf")
    writing.flush()
    assert (pipe.got, pipe.fin, writing.state) == (said + b"!", True, FINISHED)
