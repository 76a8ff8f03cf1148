"""The gateway's own loop: events, timers, and that the reactor around it gets its turn."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway.guard.memory import shrink
from gateway.wire import loop as module
from gateway.wire.loop import LINGER, MOST, MOST_CANCELLED, MOST_MISSES, ROUNDS, Loop, in_one
from tests.memory.stepping import SteppedReactor, tcp_pair, unix_pair


class Member:
    """A socket that tells what the loop does with it."""

    def __init__(self, sock: socket.socket, told: list[str], act: Callable[[], object] = lambda: None) -> None:
        self.sock = sock
        self._told = told
        self._act = act

    def fileno(self) -> int:
        return self.sock.fileno()

    def doRead(self) -> None:
        self._told.append("read")
        self.sock.recv(1)
        self._act()

    def doWrite(self) -> None:
        self._told.append("write")
        self._act()

    def connectionLost(self, reason: Failure) -> None:
        self._told.append("lost")


class Table:
    """A loop in a stepped reactor, and sockets."""

    def __init__(self) -> None:
        self.reactor = SteppedReactor()
        self.loop = Loop(self.reactor)
        self.told: list[str] = []
        self.sockets: list[socket.socket] = []

    def pair(self, tcp: bool = False) -> tuple[socket.socket, socket.socket]:
        near, far = tcp_pair() if tcp else unix_pair()
        self.sockets += [near, far]
        return near, far

    def reader(self, act: Callable[[], object] = lambda: None) -> tuple[Member, socket.socket]:
        near, far = self.pair()
        member = Member(near, self.told, act)
        self.loop.addReader(member)
        return member, far

    def say(self, word: str) -> Callable[[], None]:
        return lambda: self.told.append(word)

    def turn(self) -> list[str]:
        """What happens in one turn of the reactor."""
        self.told.clear()
        self.reactor.step()
        return list(self.told)


@pytest.fixture
def table() -> Iterator[Table]:
    table = Table()
    yield table
    for sock in table.sockets:
        sock.close()
    if table.loop._epoll is not None:
        table.loop._epoll.close()


@pytest.fixture
def bugs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of errors that the loop has logged."""
    found: list[str] = []
    monkeypatch.setattr(Logger, "critical", lambda self, text, **values: found.append(values["kind"]))
    return found


# --- sockets ---------------------------------------------------------------------------------------


def test_the_reactor_watches_one_descriptor_however_many_there_are(table: Table) -> None:
    for _ in range(5):
        table.reader()
    assert list(table.reactor.readers.values()) == [table.loop]


def test_nothing_is_opened_before_there_is_a_socket(table: Table) -> None:
    table.loop.callLater(1, table.say("call"))
    assert table.reactor.readers == {}


def test_a_socket_is_read_and_written_as_it_was_asked_for(table: Table) -> None:
    member, far = table.reader()
    assert table.turn() == []
    far.send(b"xx")
    assert table.turn() == ["read", "read"]
    table.loop.addWriter(member)
    far.send(b"x")
    table.loop._without = 1
    assert table.turn() == ["read", "write"]
    table.loop.removeReader(member)
    far.send(b"x")
    table.loop._without = 1
    assert table.turn() == ["write"]
    table.loop.removeWriter(member)
    assert table.turn() == []
    assert table.loop._members == table.loop._masks == {}


def test_tables_that_were_made_small_again_are_the_same_tables(table: Table) -> None:
    _, far = table.reader()
    shrink(table.loop.tables)
    far.send(b"x")
    assert table.turn() == ["read"]
    assert [len(one) for one in table.loop.tables] == [1, 1]


def test_to_remove_what_is_not_there_does_nothing(table: Table) -> None:
    member, far = table.reader()
    table.loop.removeWriter(member)
    table.loop.removeReader(Member(far, table.told))
    far.send(b"x")
    assert table.turn() == ["read"]


def test_another_member_with_the_same_descriptor_removes_nothing(table: Table) -> None:
    member, far = table.reader()
    table.loop.removeReader(Member(member.sock, table.told))
    far.send(b"x")
    assert table.turn() == ["read"]


def test_a_member_that_was_removed_in_the_same_turn_hears_nothing(table: Table) -> None:
    def remove_both() -> None:
        table.loop.removeReader(first)
        table.loop.removeReader(second)

    first, far = table.reader(remove_both)
    second, other = table.reader(remove_both)
    far.send(b"x")
    other.send(b"x")
    assert table.turn() == ["read"]


def test_a_member_that_stops_writing_while_it_reads_is_not_told_to_write(table: Table) -> None:
    member, far = table.reader(lambda: table.loop.removeWriter(member))
    table.loop.addWriter(member)
    far.send(b"x")
    table.loop._without = 1
    assert table.turn() == ["read"]


def test_a_hang_up_is_told_once_and_the_member_is_forgotten(table: Table) -> None:
    near, far = table.pair(tcp=True)
    member = Member(near, table.told)
    near.shutdown(socket.SHUT_WR)
    far.recv(1)
    far.close()
    near.recv(1)
    table.loop.addWriter(member)
    assert table.turn() == ["lost"]
    assert table.turn() == []
    assert table.loop._members == {}


def test_what_is_there_to_read_is_read_before_a_hang_up_is_told(table: Table) -> None:
    _, far = table.reader()
    far.send(b"x")
    far.close()
    assert table.turn()[0] == "read"


def test_a_bug_in_one_member_ends_that_one_and_no_other(table: Table, bugs: list[str]) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    _, far = table.reader(fail)
    _, other = table.reader()
    far.send(b"xx")
    other.send(b"x")
    assert sorted(table.turn()) == ["lost", "read", "read"]
    assert bugs == ["ZeroDivisionError"]
    assert len(table.loop._members) == 1


def test_a_member_that_leaves_and_fails_is_told_that_it_is_lost(table: Table, bugs: list[str]) -> None:
    def fail() -> None:
        table.loop.removeReader(member)
        raise ZeroDivisionError

    member, far = table.reader(fail)
    far.send(b"x")
    assert table.turn() == ["read", "lost"]
    assert bugs == ["ZeroDivisionError"]


# --- fairness --------------------------------------------------------------------------------------


def test_the_reactor_gets_its_turn_although_there_is_always_more(table: Table) -> None:
    _, far = table.reader(lambda: far.send(b"x"))
    far.send(b"x")
    assert table.turn() == ["read"] * ROUNDS


def test_the_reactor_gets_its_turn_when_time_is_up(table: Table) -> None:
    def linger() -> None:
        table.reactor.clock.advance(module.STAY / 3)
        far.send(b"x")

    _, far = table.reader(linger)
    far.send(b"x")
    assert table.turn() == ["read"] * 3


def test_no_socket_is_left_out_when_there_are_more_than_one_look_brings(table: Table) -> None:
    members = [table.reader() for _ in range(MOST + 10)]
    for _, far in members:
        far.send(b"x")
    assert table.turn() == ["read"] * (MOST + 10)


class Waits:
    """An epoll object that finds nothing, and remembers how long it was to wait."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.finds: list[tuple[int, int]] = []

    def poll(self, wait: float, most: int) -> list[tuple[int, int]]:
        self.waits.append(wait)
        return [] if wait else [(1 << 30, select.EPOLLIN)]

    def close(self) -> None:
        pass


def test_the_loop_waits_less_often_for_a_next_event_when_none_comes(table: Table) -> None:
    waits = Waits()
    table.loop._epoll = waits
    turns: list[int] = []
    for number in range(6 * MOST_MISSES):
        waits.waits.clear()
        table.loop.doRead()
        if LINGER in waits.waits:
            turns.append(number)
    gaps = [after - before - 1 for before, after in pairwise(turns)]
    assert gaps == [1, 2, 4, 8, 16, *[MOST_MISSES] * 4]


def test_the_loop_waits_again_after_an_event_came_while_it_waited(table: Table) -> None:
    _, far = table.reader()
    table.loop._misses = MOST_MISSES
    far.send(b"xx")
    assert table.turn() == ["read", "read"]
    # The second read came with the wait; then one wait brought nothing.
    assert (table.loop._without, table.loop._misses) == (1, 2)


# --- timers ----------------------------------------------------------------------------------------


def test_calls_come_when_they_are_due_and_in_order(table: Table) -> None:
    for seconds in (3, 1, 2, 1):
        table.loop.callLater(seconds, table.told.append, str(seconds))
    heard = []
    for _ in range(4):
        table.reactor.clock.advance(1)
        heard.append("".join(table.told))
    assert heard == ["11", "112", "1123", "1123"]


def test_the_reactor_has_one_call_for_all_of_ours(table: Table) -> None:
    for seconds in (5, 7, 2, 9):
        table.loop.callLater(seconds, table.say("call"))
    assert table.reactor.pending() == [2]
    table.reactor.clock.advance(2)
    assert table.reactor.pending() == [3]


def test_a_call_that_was_cancelled_does_not_come(table: Table) -> None:
    first, second = (table.loop.callLater(seconds, table.say("call")) for seconds in (1, 2))
    assert first.active()
    assert first.getTime() == 1
    first.cancel()
    assert not first.active()
    first.cancel()
    table.reactor.clock.advance(1)
    assert table.reactor.pending() == [1], "the next one"
    second.cancel()
    assert table.reactor.pending() == []
    table.reactor.clock.advance(3)
    assert table.told == []


def test_a_call_can_cancel_another_that_is_due_too(table: Table) -> None:
    table.loop.callLater(1, lambda: second.cancel())
    second = table.loop.callLater(1, table.say("second"))
    table.loop.callLater(1, table.say("third"))
    table.reactor.clock.advance(1)
    assert table.told == ["third"]
    assert (table.loop._calls, table.loop._cancelled) == ([], 0)


def test_a_call_for_now_comes_after_what_is_under_way_and_before_the_next_turn(table: Table) -> None:
    def act() -> None:
        table.loop.callLater(0, table.say("later"))
        table.told.append("now")

    _, far = table.reader(act)
    _, other = table.reader(act)
    far.send(b"x")
    other.send(b"x")
    assert table.turn() == ["read", "now", "read", "now", "later", "later"]


def test_calls_that_ask_for_calls_do_not_hold_up_the_sockets(table: Table) -> None:
    def again() -> None:
        table.told.append("call")
        if len(table.told) < 4:
            table.loop.callLater(0, again)

    _, far = table.reader(again)
    far.send(b"xx")
    assert table.turn() == ["read", "call", "call", "read", "call", "call"]


def test_a_call_for_now_wakes_a_reactor_that_has_nothing_to_do(table: Table) -> None:
    table.loop.callLater(0, table.say("call"))
    assert table.turn() == ["call"]


def test_a_call_that_is_due_during_a_turn_comes_in_it(table: Table) -> None:
    table.loop.callLater(0.001, table.say("call"))
    _, far = table.reader(lambda: setattr(table.reactor.clock, "rightNow", 0.002))
    far.send(b"x")
    assert table.turn() == ["read", "call"]


def test_cancelled_calls_do_not_pile_up(table: Table) -> None:
    kept = [table.loop.callLater(1000 + number, table.say("call")) for number in range(10)]
    for _ in range(10 * MOST_CANCELLED):
        table.loop.callLater(2000, table.say("cancelled")).cancel()
    assert len(table.loop._calls) <= len(kept) + MOST_CANCELLED + 1
    table.reactor.clock.advance(3000)
    assert table.told == ["call"] * 10


def test_a_bug_in_a_call_ends_no_other(table: Table, bugs: list[str]) -> None:
    table.loop.callLater(1, lambda: 1 // 0)
    table.loop.callLater(1, table.say("call"))
    table.reactor.clock.advance(1)
    assert (table.told, bugs) == (["call"], ["ZeroDivisionError"])


# --- where there is no epoll -----------------------------------------------------------------------


def test_without_epoll_the_reactor_does_it_all(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    reactor: Any = table.reactor
    assert isinstance(in_one(reactor), Loop)
    monkeypatch.delattr(select, "epoll")
    assert in_one(reactor) is reactor
