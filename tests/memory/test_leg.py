"""Legs on real sockets, a reactor stepped by hand, and every way in which a connection goes wrong."""

from __future__ import annotations

import errno
import gc
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress

import pytest
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from gateway.protocol.vocabulary import Secured
from gateway.wire.leg import FLUSH_PATIENCE, HIGH_WATER, LOW_WATER, End, Leg
from gateway.wire.leg.ending import Ending
from gateway.wire.leg.reading import Reading
from gateway.wire.leg.writing import Writing
from gateway.wire.tls.half import MOST, TLSError, TLSHalf
from tests.memory.lines import Line, Owner, TLSLine
from tests.memory.stepping import SteppedReactor, tcp_pair, unix_pair
from tests.memory.test_tls_half import HANDSHAKE, KEY_UPDATE_REQUESTED, by_hand
from tests.memory.tls_peer import Authority, Peer


@pytest.fixture(params=["tcp", "unix"])
def line(request: pytest.FixtureRequest, reactor: SteppedReactor) -> Iterator[Line]:
    line = Line(reactor, tcp_pair() if request.param == "tcp" else unix_pair())
    yield line
    line.close()


@pytest.fixture
def tcp(reactor: SteppedReactor) -> Iterator[Line]:
    line = Line(reactor, tcp_pair())
    yield line
    line.close()


@pytest.fixture
def bugs() -> Iterator[list[LogEvent]]:
    events: list[LogEvent] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        events.append(event)

    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def fresh(line: Line, authority: Authority) -> TLSLine:
    """Before its handshake."""
    return TLSLine(line, authority)


@pytest.fixture
def tls(fresh: TLSLine) -> TLSLine:
    fresh.shake()
    return fresh


# --- in the clear ----------------------------------------------------------------------------------


def test_a_leg_is_what_a_reactor_reads_and_writes(line: Line) -> None:
    assert verifyObject(IReadWriteDescriptor, line.leg)


def test_octets_go_both_ways_and_are_counted(line: Line, reactor: SteppedReactor) -> None:
    line.far.sendall(b"EHLO a\r\n")
    line.do(line.leg.write, b"220 hello\r\n")
    line.expect(b"220 hello\r\n")
    reactor.step_until(lambda: line.owner.heard == b"EHLO a\r\n")
    assert (line.leg.received, line.leg.sent) == (8, 11)


def test_nothing_is_read_before_the_start(reactor: SteppedReactor) -> None:
    near, far = unix_pair()
    owner = Owner()
    leg = Leg(reactor, near, owner)
    far.sendall(b"early")
    reactor.settle()
    assert owner.heard == b""
    leg.abort()
    far.close()
    reactor.settle()


def test_one_turn_reads_no_more_than_read_size(line: Line, reactor: SteppedReactor) -> None:
    line.leg.read_size = 10
    line.far.sendall(b"x" * 25)
    reactor.step()
    assert line.leg.received == 10
    reactor.step_until(lambda: line.leg.received == 25)


def test_a_paused_leg_reads_nothing_until_it_is_resumed(line: Line, reactor: SteppedReactor) -> None:
    line.leg.pause()
    line.leg.pause()
    line.far.sendall(b"later")
    reactor.settle()
    assert line.owner.heard == b""
    assert reactor.readers == {}
    line.do(line.leg.resume)
    line.do(line.leg.resume)
    reactor.step_until(lambda: line.owner.heard == b"later")


def test_a_leg_paused_in_the_middle_of_a_turn_reads_nothing_in_it(line: Line) -> None:
    line.far.sendall(b"later")
    line.leg.pause()
    line.leg.doRead()
    assert line.owner.heard == b""


def test_what_is_written_in_one_turn_goes_out_in_one_send(
    line: Line, reactor: SteppedReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer() -> None:
        line.leg.write(b"250-a\r\n")
        line.leg.write(b"250 b\r\n")

    line.owner.on["heard"] = answer
    counted = counting(line)
    line.far.sendall(b"EHLO a\r\n")
    line.expect(b"250-a\r\n250 b\r\n")
    assert counted.sends == [14]


class Counted:
    """A socket that counts its sends, and can refuse them."""

    def __init__(self, sock: socket.socket, refuse: OSError | None) -> None:
        self._sock = sock
        self.sends: list[int] = []
        self.refuse = refuse

    def send(self, data: bytes) -> int:
        if self.refuse is not None:
            raise self.refuse
        self.sends.append(len(data))
        return self._sock.send(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._sock, name)


def counting(line: Line, refuse: OSError | None = None) -> Counted:
    """The leg sends through it from now on."""
    counted = Counted(line.near, refuse)
    line.leg._writing._socket = counted  # type: ignore[assignment]
    return counted


# --- a full socket -----------------------------------------------------------------------------------


def test_a_reader_that_is_slow_gets_everything_in_order(line: Line, reactor: SteppedReactor) -> None:
    data = b"".join(b"%07d\n" % n for n in range(100_000))
    for at in range(0, len(data), 50_000):
        line.do(line.leg.write, data[at : at + 50_000])
    assert ("pressed", True) in line.owner.said
    line.expect(data)
    assert line.owner.said == [("pressed", True), ("pressed", False)]


def test_the_marks_are_told_once_each(line: Line, reactor: SteppedReactor) -> None:
    sent = fill(line)
    line.leg.write(b"x" * (HIGH_WATER // 2))
    before = list(line.owner.said)
    line.leg.write(b"x" * HIGH_WATER)
    line.leg.write(b"x" * HIGH_WATER)
    assert before == []
    assert line.owner.said == [("pressed", True)]
    line.expect(b"y" * sent + b"x" * (HIGH_WATER // 2 + 2 * HIGH_WATER))
    assert line.owner.said == [("pressed", True), ("pressed", False)]
    assert LOW_WATER < HIGH_WATER


def fill(line: Line) -> int:
    """Write until the socket takes no more; how much that was."""
    sent = 0
    while not line.reactor.writers:
        line.leg.write(b"y" * 1000)
        sent += 1000
    return sent


def test_a_full_socket_is_not_asked_again_until_it_can(line: Line, reactor: SteppedReactor) -> None:
    fill(line)
    counted = counting(line)
    line.leg.write(b"z")
    reactor.settle()
    assert counted.sends == []


# --- ends --------------------------------------------------------------------------------------------


def test_fin_in_the_clear_is_an_orderly_end_and_writing_goes_on(line: Line, reactor: SteppedReactor) -> None:
    line.far.sendall(b"QUIT\r\n")
    line.far.shutdown(socket.SHUT_WR)
    reactor.step_until(lambda: line.owner.said)
    assert line.owner.heard == b"QUIT\r\n"
    assert line.owner.said == [("ended", End.ORDERLY)]
    assert reactor.readers == {}, "a socket at its end is always readable"
    line.do(line.leg.write, b"221 bye\r\n")
    line.expect(b"221 bye\r\n")
    line.do(line.leg.close)
    line.expect_end()
    reactor.settle()
    assert line.owner.said == [("ended", End.ORDERLY), "closed"]


def test_a_reset_is_not_an_orderly_end(tcp: Line, reactor: SteppedReactor) -> None:
    tcp.reset()
    reactor.step_until(lambda: "closed" in tcp.owner.said)
    assert tcp.owner.said == [("ended", End.RESET), "closed"]
    assert tcp.leg.cause == "ECONNRESET"
    tcp.leg.write(b"into the void")
    assert tcp.leg.sent == 0


def test_last_words_are_read_from_a_socket_that_refuses_to_send(tcp: Line, reactor: SteppedReactor) -> None:
    tcp.far.sendall(b"421 too many errors\r\n")
    tcp.leg.write(b"x")
    tcp.reset()
    tcp.do(tcp.leg.write, b"NOOP\r\n")
    tcp.do(tcp.leg.write, b"NOOP\r\n")
    reactor.step_until(lambda: "closed" in tcp.owner.said)
    assert tcp.owner.said == [("ended", End.RESET), "closed"]
    assert tcp.owner.heard == b"421 too many errors\r\n"


def test_a_write_that_fails_is_told_in_the_next_turn_and_once(line: Line, reactor: SteppedReactor) -> None:
    counting(line, OSError(errno.EPIPE, "Broken pipe"))
    line.do(line.leg.write, b"a")
    line.do(line.leg.write, b"b")
    reactor.settle()
    assert line.owner.said == [("ended", End.RESET), "closed"]
    assert line.leg.cause == "EPIPE"


def test_a_paused_leg_that_cannot_write_keeps_what_it_can_still_read(line: Line, reactor: SteppedReactor) -> None:
    line.leg.pause()
    line.far.sendall(b"the rest of a mail")
    counting(line, OSError(errno.EPIPE, "Broken pipe"))
    line.do(line.leg.write, b"a")
    reactor.settle()
    assert line.owner.said == []
    line.do(line.leg.resume)
    reactor.settle()
    assert line.owner.heard == b"the rest of a mail"
    assert line.owner.said == [("ended", End.RESET), "closed"]


def test_a_write_that_fails_after_the_end_of_input_closes_the_leg(line: Line, reactor: SteppedReactor) -> None:
    line.far.close()
    reactor.step_until(lambda: line.owner.said)
    line.leg.write(b"a")
    reactor.settle()
    line.leg.write(b"b")
    reactor.settle()
    assert line.owner.said == [("ended", End.ORDERLY), "closed"]


def test_a_reset_while_paused_and_full_is_seen(tcp: Line, reactor: SteppedReactor) -> None:
    fill(tcp)
    tcp.leg.pause()
    tcp.reset()
    reactor.settle()
    tcp.do(tcp.leg.resume)
    reactor.settle()
    assert tcp.owner.said[-2:] == [("ended", End.RESET), "closed"]


def test_half_close_says_that_nothing_more_comes_and_reads_on(line: Line, reactor: SteppedReactor) -> None:
    data = b"x" * fill(line)
    line.do(line.leg.half_close)
    line.do(line.leg.half_close)
    line.leg.write(b"not sent any more")
    line.expect_end()
    assert line.got == b"y" * len(data)
    line.far.sendall(b"still here")
    reactor.step_until(lambda: line.owner.heard == b"still here")
    line.far.close()
    reactor.step_until(lambda: line.owner.said)
    assert line.owner.said == [("ended", End.ORDERLY)]
    line.do(line.leg.close)
    reactor.settle()
    assert line.owner.said == [("ended", End.ORDERLY), "closed"]


def test_closing_flushes_says_fin_and_waits_for_the_others(line: Line, reactor: SteppedReactor) -> None:
    data = b"y" * fill(line)
    line.far.sendall(b"not wanted any more")
    line.do(line.leg.close)
    line.do(line.leg.close)
    line.leg.write(b"too late")
    line.expect_end()
    assert line.got == data
    assert line.owner.said == []
    line.far.close()
    reactor.settle()
    assert line.owner.said == ["closed"]
    assert line.owner.heard == b""


def test_who_never_closes_is_cut_off_after_the_linger(line: Line, reactor: SteppedReactor) -> None:
    line.leg.write(b"221 bye\r\n")
    line.do(line.leg.close)
    line.expect_end()
    reactor.advance(2.9)
    assert line.owner.said == []
    line.far.sendall(b"but I want to talk")
    reactor.advance(0.2)
    assert line.owner.said == ["closed"]
    assert line.owner.heard == b""


def test_who_takes_nothing_is_given_up_after_the_patience(line: Line, reactor: SteppedReactor) -> None:
    fill(line)
    line.do(line.leg.close)
    waited = left = 0
    while not line.owner.said and waited <= FLUSH_PATIENCE + 3:
        # On a busy machine the kernel takes some octets of TCP a little later; they begin the wait anew.
        waited, left = (waited + 3, left) if line.leg._ending._left == left else (3, line.leg._ending._left)
        reactor.advance(3)
    assert line.owner.said == ["closed"]
    # Octets that were taken are seen a step later at most.
    assert FLUSH_PATIENCE - 3 <= waited <= FLUSH_PATIENCE + 3


def test_who_takes_little_is_waited_for(line: Line, reactor: SteppedReactor) -> None:
    total = fill(line)
    line.do(line.leg.close)
    while not line.owner.said:
        with suppress(BlockingIOError):
            line.got += line.far.recv(total // 20)
        reactor.advance(3)
    line.expect_end()
    assert line.got == b"y" * total


def test_who_sends_without_end_while_we_close_is_not_heard(line: Line, reactor: SteppedReactor) -> None:
    line.do(line.leg.close)
    for _ in range(20):
        line.far.sendall(b"x" * 10_000)
        reactor.settle()
    assert line.owner.heard == b""
    reactor.advance(3.1)
    assert line.owner.said == ["closed"]


def test_abort_is_a_reset_and_drops_what_is_queued(tcp: Line, reactor: SteppedReactor) -> None:
    fill(tcp)
    tcp.do(tcp.leg.abort)
    tcp.do(tcp.leg.abort)
    reactor.settle()
    assert tcp.owner.said == ["closed"]
    with pytest.raises(ConnectionResetError):
        tcp.expect_end()


def test_a_closed_leg_does_nothing(line: Line, reactor: SteppedReactor) -> None:
    line.leg.abort()
    for act in (
        line.leg.close,
        line.leg.half_close,
        line.leg.pause,
        line.leg.resume,
        line.leg.doRead,
        line.leg.doWrite,
    ):
        line.do(act)
    line.do(line.leg.write, b"x")
    line.leg.connectionLost(Failure(ConnectionLost()))  # type: ignore[no-untyped-call]
    reactor.settle()
    assert line.owner.said == ["closed"]


def test_closing_from_inside_a_call_of_the_leg_is_fine(line: Line, reactor: SteppedReactor) -> None:
    for act in (line.leg.close, line.leg.abort):
        line.owner.on["heard"] = act
        line.far.sendall(b"x")
        reactor.settle()
    line.far.close()
    reactor.settle()
    assert line.owner.said == ["closed"]


@pytest.mark.parametrize("way", ["close", "abort", "reset", "give up"])
def test_a_leg_that_is_gone_does_not_wait_for_the_garbage_collector(
    authority: Authority, reactor: SteppedReactor, way: str
) -> None:
    parts = (Leg, Reading, Writing, Ending, TLSHalf)

    def alive() -> int:
        return sum(isinstance(one, parts) for one in gc.get_objects())

    def live() -> None:
        line = Line(reactor, tcp_pair())
        tls = TLSLine(line, authority)
        tls.shake()
        line.owner.on["an owner refers to its leg"] = line.leg.abort
        if way == "abort":
            line.leg.abort()
        elif way == "reset":
            line.reset()
        else:
            line.leg.close()
            if way == "give up":
                reactor.advance(3.1)
        line.far.close()
        reactor.settle()
        assert line.owner.said.count("closed") == 1

    gc.collect()
    before = alive()
    gc.disable()
    try:
        live()
        assert alive() == before
    finally:
        gc.enable()


# --- bugs --------------------------------------------------------------------------------------------


def test_a_bug_ends_one_leg_and_tells_no_secrets(line: Line, reactor: SteppedReactor, bugs: list[LogEvent]) -> None:
    def stumble(data: bytes) -> None:
        raise ValueError(data)

    line.leg.deliver = stumble
    line.far.sendall(b"PASS hunter2\r\n")
    reactor.settle()
    assert line.owner.said == [("ended", End.RESET), "closed"]
    (event,) = bugs
    assert "hunter2" not in repr(event)
    assert event["kind"] == "ValueError"
    assert "stumble" in event["where"]


@pytest.mark.parametrize("moment", ["ended", "closed"])
def test_a_bug_of_the_owner_goes_no_further(
    line: Line, reactor: SteppedReactor, bugs: list[LogEvent], moment: str
) -> None:
    def stumble() -> None:
        raise RuntimeError

    line.owner.on[moment] = stumble
    line.far.close()
    reactor.settle()
    line.leg.abort()
    reactor.settle()
    assert line.owner.said.count("closed") == 1
    assert len(bugs) == 1


# --- TLS ---------------------------------------------------------------------------------------------


def test_plaintext_written_before_goes_out_in_the_clear_before_it(line: Line, fresh: TLSLine) -> None:
    line.leg.write(b"220 go ahead\r\n")
    line.do(line.leg.start_tls, fresh.half)
    line.expect(b"220 go ahead\r\n")
    line.got = b""
    line.far.sendall(fresh.peer.hello())
    line.reactor.step_until(fresh.pump)
    assert line.leg.secured is fresh.half.secured is not None


def test_octets_go_both_ways_under_tls_and_are_counted_in_plaintext(tls: TLSLine, reactor: SteppedReactor) -> None:
    tls.line.far.sendall(tls.peer.say(b"EHLO a\r\n"))
    reactor.step_until(lambda: tls.line.owner.heard == b"EHLO a\r\n")
    tls.line.do(tls.line.leg.write, b"250 ok\r\n")
    tls.heard(b"250 ok\r\n")
    assert (tls.line.leg.received, tls.line.leg.sent) == (8, 8)


def test_a_client_hello_that_was_read_already_is_used(line: Line, fresh: TLSLine) -> None:
    fresh.shake(early=fresh.peer.hello())


def test_a_client_hello_may_be_cut_between_early_and_the_socket(line: Line, fresh: TLSLine) -> None:
    hello = fresh.peer.hello()
    line.far.sendall(hello[3:])
    # The rest lies in the socket before the early octets had their turn.
    line.do(line.leg.start_tls, fresh.half, hello[:3])
    line.leg.doRead()
    line.reactor.step_until(fresh.pump)


@pytest.mark.parametrize("blanks", [(b"", b"\n"), (b"\r", b"\n \t"), (b" ", b"")])
def test_blanks_may_come_before_the_handshake(line: Line, fresh: TLSLine, blanks: tuple[bytes, bytes]) -> None:
    """XMPP: some clients send a line end behind <starttls/>, and the network cuts where it likes."""
    first, then = blanks
    line.do(line.leg.start_tls, fresh.half, first, b" \t\r\n")
    line.far.sendall(then)
    line.reactor.settle()
    line.far.sendall(b"\n" + fresh.peer.hello())
    line.reactor.step_until(fresh.pump)


def test_blanks_are_dropped_before_the_handshake_only(line: Line, fresh: TLSLine) -> None:
    line.do(line.leg.start_tls, fresh.half, b"", b"\n")
    line.far.sendall(b"\n\x16\n")
    line.far.sendall(b"\n" * 8)
    line.reactor.step_until(lambda: line.owner.said)
    assert line.owner.said == [("tls failed", "wrong version number")]


@pytest.mark.parametrize("blanks", [b"", b"\n"])
def test_a_closed_leg_does_no_handshake(
    line: Line, fresh: TLSLine, blanks: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(half: TLSHalf, ciphertext: object, size: int) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(TLSHalf, "open", fail)
    line.leg.write(b"last words")
    line.leg.start_tls(fresh.half, b"", blanks)
    line.leg.close()
    line.far.sendall(fresh.peer.hello())
    line.expect_end()
    line.reactor.settle()
    assert line.got == b"last words"
    assert line.leg.cause == ""


def test_a_handshake_in_single_octets_works(line: Line, fresh: TLSLine, reactor: SteppedReactor) -> None:
    line.leg.read_size = 1
    fresh.shake()
    assert line.owner.said == ["secured"]
    line.far.sendall(fresh.peer.say(b"EHLO a\r\n"))
    reactor.step_until(lambda: line.owner.heard == b"EHLO a\r\n")


def test_what_is_written_during_the_handshake_waits_for_its_end(line: Line, fresh: TLSLine) -> None:
    line.leg.start_tls(fresh.half)
    line.leg.write(b"220 hello\r\n")
    line.reactor.settle()
    line.pull()
    assert line.got == b""
    line.far.sendall(fresh.peer.hello())
    fresh.heard(b"220 hello\r\n")


def test_what_waits_for_the_handshake_counts_as_unsent(line: Line, fresh: TLSLine) -> None:
    line.leg.start_tls(fresh.half)
    line.leg.write(b"x" * (HIGH_WATER + 1))
    assert line.owner.said == [("pressed", True)]
    line.far.sendall(fresh.peer.hello())
    fresh.heard(b"x" * (HIGH_WATER + 1))
    assert line.owner.said == [("pressed", True), "secured", ("pressed", False)]


def test_the_first_words_go_out_with_the_end_of_the_handshake(
    line: Line, fresh: TLSLine, reactor: SteppedReactor
) -> None:
    line.owner.on["secured"] = lambda: line.leg.write(b"220 hello\r\n")
    line.leg.start_tls(fresh.half)
    line.far.sendall(fresh.peer.hello())
    reactor.settle()
    line.pull()
    finished, line.got = fresh.peer.feed(line.got), b""
    counted = counting(line)
    line.far.sendall(finished)
    fresh.heard(b"220 hello\r\n")
    assert len(counted.sends) == 1, "tickets and greeting"


def test_plaintext_with_the_last_flight_comes_after_secured(
    line: Line, fresh: TLSLine, reactor: SteppedReactor
) -> None:
    line.leg.start_tls(fresh.half)
    line.far.sendall(fresh.peer.hello())
    reactor.settle()
    line.pull()
    line.owner.on["heard"] = lambda: line.owner.said.append("heard")
    line.far.sendall(fresh.peer.feed(line.got) + fresh.peer.say(b"EHLO a\r\n"))
    reactor.settle()
    assert line.owner.said == ["secured", "heard"]


def test_a_paused_leg_shakes_hands_but_holds_what_it_reads(line: Line, fresh: TLSLine, reactor: SteppedReactor) -> None:
    line.leg.pause()
    line.leg.start_tls(fresh.half)
    line.far.sendall(fresh.peer.hello())
    reactor.settle()
    line.pull()
    line.far.sendall(fresh.peer.feed(line.got) + fresh.peer.say(b"EHLO a\r\n") + fresh.peer.goodbye())
    reactor.settle()
    assert line.owner.said == ["secured"]
    assert line.owner.heard == b""
    assert line.leg.received == 0
    assert reactor.readers == {}
    line.do(line.leg.resume)
    reactor.settle()
    assert line.owner.heard == b"EHLO a\r\n"
    assert line.owner.said == ["secured", ("ended", End.ORDERLY)]


def test_bulk_under_tls_goes_both_ways_whole(tls: TLSLine, reactor: SteppedReactor) -> None:
    data = b"".join(b"%07d\n" % n for n in range(200_000))
    tls.line.leg.write(data)
    tls.heard(data)
    tls.line.leg.read_size = MOST
    wire = tls.peer.say(data)
    while wire:
        with suppress(BlockingIOError):
            wire = wire[tls.line.far.send(wire) :]
        reactor.step()
    reactor.step_until(lambda: len(tls.line.owner.heard) == len(data))
    assert tls.line.owner.heard == data


def test_close_notify_is_an_orderly_end_and_writing_goes_on(tls: TLSLine, reactor: SteppedReactor) -> None:
    tls.line.far.sendall(tls.peer.say(b"QUIT\r\n") + tls.peer.goodbye())
    reactor.settle()
    assert tls.line.owner.heard == b"QUIT\r\n"
    assert tls.line.owner.said == ["secured", ("ended", End.ORDERLY)]
    sent = len(tls.line.got)
    tls.line.leg.write(b"221 bye\r\n")
    tls.line.leg.close()
    tls.line.expect_end()
    assert len(tls.line.got) > sent
    tls.line.far.close()
    reactor.settle()
    assert tls.line.owner.said == ["secured", ("ended", End.ORDERLY), "closed"]


def test_nothing_behind_close_notify_is_input(tls: TLSLine, reactor: SteppedReactor) -> None:
    tls.line.far.sendall(tls.peer.say(b"BDAT 100\r\nabc") + tls.peer.goodbye() + b"x")
    reactor.settle()
    tls.line.far.sendall(b"NOOP\r\n")
    reactor.settle()
    assert tls.line.owner.heard == b"BDAT 100\r\nabc"
    assert tls.line.owner.said == ["secured", ("ended", End.ORDERLY)]


def test_fin_without_close_notify_is_a_truncation(tls: TLSLine, reactor: SteppedReactor) -> None:
    tls.line.far.sendall(tls.peer.say(b"DATA, but"))
    tls.line.far.shutdown(socket.SHUT_WR)
    reactor.settle()
    assert tls.line.owner.heard == b"DATA, but"
    assert tls.line.owner.said == ["secured", ("ended", End.TRUNCATED)]
    tls.line.leg.write(b"421 what?\r\n")
    tls.heard(b"421 what?\r\n")


def test_closing_says_close_notify_before_fin(tls: TLSLine) -> None:
    tls.line.leg.write(b"221 bye\r\n")
    tls.line.do(tls.line.leg.close)
    tls.line.expect_end()
    tls.peer.feed(tls.line.got)
    assert tls.peer.heard == b"221 bye\r\n"
    assert tls.peer.ended


def test_half_close_under_tls_says_close_notify_and_hears_on(tls: TLSLine, reactor: SteppedReactor) -> None:
    more = tls.peer.say(b"more")
    tls.line.do(tls.line.leg.half_close)
    tls.line.expect_end()
    tls.peer.feed(tls.line.got)
    assert tls.peer.ended
    tls.line.far.sendall(more)
    reactor.step_until(lambda: tls.line.owner.heard == b"more")
    tls.line.do(tls.line.leg.close)
    reactor.advance(3.1)
    assert tls.line.owner.said == ["secured", "closed"]


def test_half_close_during_the_handshake_waits_for_what_waits(line: Line, fresh: TLSLine) -> None:
    line.leg.start_tls(fresh.half)
    line.leg.write(b"only this")
    line.leg.half_close()
    line.far.sendall(fresh.peer.hello())
    fresh.heard(b"only this")
    line.reactor.step_until(lambda: fresh.pump() and fresh.peer.ended)


def test_a_peer_that_never_answers_close_notify_is_cut_off(tls: TLSLine, reactor: SteppedReactor) -> None:
    tls.line.do(tls.line.leg.close)
    reactor.advance(2.9)
    assert tls.line.owner.said == ["secured"]
    reactor.advance(0.2)
    assert tls.line.owner.said == ["secured", "closed"]


def test_a_failed_handshake_sends_its_alert_says_why_and_closes(
    line: Line, authority: Authority, reactor: SteppedReactor
) -> None:
    context = authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA")
    line.leg.start_tls(TLSLine(line, authority).half)
    line.leg.write(b"220 never to be said\r\n")
    line.far.sendall(Peer(context).hello())
    reactor.settle()
    assert line.owner.said == [("tls failed", "no shared cipher")]
    line.expect_end()
    assert line.got == b"\x15\x03\x03\x00\x02\x02\x28", "the alert handshake_failure, and nothing else"
    line.far.close()
    reactor.settle()
    assert line.owner.said == [("tls failed", "no shared cipher"), "closed"]


def test_early_octets_that_are_no_tls_fail_in_the_next_turn(
    line: Line, fresh: TLSLine, reactor: SteppedReactor
) -> None:
    line.do(line.leg.start_tls, fresh.half, b"MAIL FROM:<evil@x>\r\n")
    assert line.owner.said == []
    reactor.settle()
    assert line.owner.said == [("tls failed", "wrong version number")]


def test_a_fin_during_the_handshake_is_a_failed_handshake(line: Line, fresh: TLSLine, reactor: SteppedReactor) -> None:
    line.leg.start_tls(fresh.half)
    line.far.close()
    reactor.settle()
    assert line.owner.said == [("tls failed", "connection closed during the handshake"), "closed"]


def test_a_reset_during_the_handshake_is_a_failed_handshake(
    tcp: Line, authority: Authority, reactor: SteppedReactor
) -> None:
    tcp.leg.start_tls(TLSLine(tcp, authority).half)
    tcp.reset()
    reactor.settle()
    reason = "connection lost during the handshake (ECONNRESET)"
    assert tcp.owner.said == [("tls failed", reason), "closed"]


def test_tls_after_the_end_of_input_fails(line: Line, fresh: TLSLine, reactor: SteppedReactor) -> None:
    line.far.shutdown(socket.SHUT_WR)
    reactor.settle()
    line.do(line.leg.start_tls, fresh.half)
    reactor.settle()
    assert line.owner.said[1:] == [("tls failed", "connection closed during the handshake"), "closed"]


def test_a_forged_record_is_a_reset_behind_what_came_before(tls: TLSLine, reactor: SteppedReactor) -> None:
    good, bad = tls.peer.say(b"good"), bytearray(tls.peer.say(b"bad"))
    bad[-1] ^= 1
    tls.line.far.sendall(good + bytes(bad))
    reactor.settle()
    assert tls.line.owner.heard == b"good"
    assert tls.line.owner.said == ["secured", ("ended", End.RESET)]
    assert "bad record mac" in tls.line.leg.cause


def test_aborting_during_the_handshake_is_quiet(line: Line, fresh: TLSLine, reactor: SteppedReactor) -> None:
    line.leg.start_tls(fresh.half, fresh.peer.hello())
    line.do(line.leg.abort)
    reactor.settle()
    assert line.owner.said == ["closed"]


def test_closing_during_the_handshake_is_quiet(line: Line, fresh: TLSLine, reactor: SteppedReactor) -> None:
    line.leg.start_tls(fresh.half)
    line.leg.write(b"220 never to be said\r\n")
    line.do(line.leg.close)
    line.expect_end()
    assert line.got == b""
    line.far.close()
    reactor.settle()
    assert line.owner.said == ["closed"]


def test_the_client_side_speaks_first(line: Line, authority: Authority, reactor: SteppedReactor) -> None:
    from OpenSSL import SSL

    connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    connection.set_connect_state()
    peer = Peer(authority.server(), server=True)
    line.leg.start_tls(TLSHalf(connection))

    def carried() -> bool:
        line.pull()
        wire, line.got = line.got, b""
        if answer := peer.feed(wire):
            line.far.sendall(answer)
        return peer.shaken and "secured" in line.owner.said

    reactor.step_until(carried)
    line.far.sendall(peer.say(b"220 hello\r\n"))
    reactor.step_until(lambda: line.owner.heard == b"220 hello\r\n")


def test_a_flood_of_key_updates_that_nobody_fetches_ends_the_leg(
    line: Line, authority: Authority, reactor: SteppedReactor
) -> None:
    half, client, _server = by_hand(authority)
    line.leg.start_tls(half)
    fill_clear(line)
    for _ in range(2000):
        line.far.sendall(client.seal(HANDSHAKE, KEY_UPDATE_REQUESTED))
        client.update()
        reactor.step()
        if line.owner.said:
            break
    reactor.settle()
    assert line.leg.cause == "TLS: flood of messages"
    assert line.owner.said[-2:] == [("ended", End.RESET), "closed"]


def fill_clear(line: Line) -> None:
    """A socket that takes no more, whoever filled it."""
    line.leg.secured = Secured("TLSv1.3", "by hand", 128)
    while True:
        try:
            line.near.send(b"x" * 65536)
        except BlockingIOError:
            return


class Sick(TLSHalf):
    """A half that fails where a healthy one practically cannot."""

    def __init__(self, healthy: TLSHalf) -> None:
        super().__init__(healthy._connection)
        self.secured = healthy.secured

    def start(self) -> None:
        raise TLSError("no ciphers available")

    def encrypt(self, plaintext: bytes | memoryview) -> bytes:
        raise TLSError("internal error")


def test_a_client_side_that_cannot_even_begin_fails_in_the_next_turn(
    line: Line, fresh: TLSLine, reactor: SteppedReactor
) -> None:
    line.do(line.leg.start_tls, Sick(fresh.half))
    reactor.settle()
    assert line.owner.said == [("tls failed", "no ciphers available")]


def test_an_encryption_that_fails_is_a_reset(tls: TLSLine, reactor: SteppedReactor) -> None:
    tls.line.leg.half = Sick(tls.half)
    tls.line.do(tls.line.leg.write, b"250 ok\r\n")
    reactor.settle()
    assert tls.line.owner.said == ["secured", ("ended", End.RESET), "closed"]
    assert tls.line.leg.cause == "TLS: internal error"


def test_a_closed_leg_does_not_begin_tls(line: Line, fresh: TLSLine, reactor: SteppedReactor) -> None:
    line.leg.close()
    line.do(line.leg.start_tls, fresh.half)
    line.far.close()
    reactor.settle()
    assert line.owner.said == ["closed"]


def test_closing_a_leg_that_refuses_to_send_is_short(line: Line, reactor: SteppedReactor) -> None:
    counting(line, OSError(errno.EPIPE, "Broken pipe"))
    line.leg.write(b"a")
    line.do(line.leg.close)
    reactor.settle()
    assert line.owner.said == ["closed"]


def test_a_socket_that_breaks_while_it_is_flushed_is_a_reset(line: Line, reactor: SteppedReactor) -> None:
    fill(line)
    counting(line, OSError(errno.ETIMEDOUT, "Connection timed out"))
    line.pull()
    reactor.settle()
    assert line.owner.said == [("ended", End.RESET), "closed"]
    assert line.leg.cause == "ETIMEDOUT"


def test_fin_while_we_still_flush_does_not_stop_the_flush(line: Line, reactor: SteppedReactor) -> None:
    data = b"y" * fill(line)
    line.do(line.leg.close)
    line.far.shutdown(socket.SHUT_WR)
    reactor.step()
    line.expect_end()
    reactor.settle()
    assert line.got == data
    assert line.owner.said == ["closed"]
    assert reactor.pending() == []


@pytest.mark.parametrize("nth", range(12))
def test_whatever_call_goes_wrong_the_leg_ends_and_nobody_else(
    line: Line, fresh: TLSLine, reactor: SteppedReactor, bugs: list[LogEvent], nth: int
) -> None:
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise RuntimeError

    for moment in ("secured", "heard", "pressed", "ended", "closed"):
        line.owner.on[moment] = count
    line.leg.start_tls(fresh.half)
    for wire in (fresh.peer.hello(), b"", b""):
        with suppress(OSError):
            line.far.sendall(wire)
            reactor.settle()
            line.pull()
            answer, line.got = fresh.peer.feed(line.got), b""
            line.far.sendall(answer)
            reactor.settle()
    with suppress(OSError):
        for _ in range(6):
            line.far.sendall(fresh.peer.say(b"NOOP\r\n"))
            reactor.settle()
        line.far.sendall(fresh.peer.goodbye())
        reactor.settle()
    line.leg.close()
    line.far.close()
    reactor.settle()
    assert line.owner.said.count("closed") == 1
    assert len(bugs) == (1 if 0 < nth <= calls else 0)
    assert (reactor.readers, reactor.writers, reactor.pending()) == ({}, {}, [])
