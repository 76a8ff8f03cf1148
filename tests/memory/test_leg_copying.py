"""Two legs that copy to each other take a short way through the leg. It does what the general way does."""

from __future__ import annotations

import gc
import random
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress

import pytest

from gateway.wire.leg import HIGH_WATER, End, Leg
from gateway.wire.tls.half import MOST, ROOM, TLSError, TLSHalf, arrived, opened, sealed
from gateway.wire.tls.private import handles
from tests.memory.lines import Line, TLSLine
from tests.memory.stepping import SteppedReactor, tcp_pair
from tests.memory.test_tls_half import HANDSHAKE, KEY_UPDATE_REQUESTED, by_hand
from tests.memory.tls_peer import Authority

HELD = pytest.mark.parametrize("held", [False, True])
"""Whether tickets wait for the first octets of ours."""
FORGED = b"\x17\x03\x03\0\x20" + b"j" * 32
"""A record that nobody has sealed."""
SIZES = (1, 40, 2000, 16384, 16385, 70_000, 200_000)
ACTS = ("say", "say", "say", "say in pieces", "say goodbye", "goodbye", "junk", "fin")
ORDERS = ("pause", "resume", "half_close")
LAST = ("close", "abort", "reset", "say")


class Way:
    """A leg, and whoever is at its other end."""

    def __init__(self, reactor: SteppedReactor, authority: Authority, secure: bool) -> None:
        self.line = Line(reactor, tcp_pair())
        self.leg = self.line.leg
        self.line.far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.peer = None
        if secure:
            tls = TLSLine(self.line, authority)
            tls.shake()
            self.peer = tls.peer
        self.gone = False
        self.silent = False
        """It says nothing more."""
        self.ended = False
        self.alert: str | None = None

    def say(self, plaintext: bytes) -> bytes:
        return plaintext if self.peer is None else self.peer.say(plaintext)

    def goodbye(self) -> bytes:
        return b"" if self.peer is None else self.peer.goodbye()

    def send(self, wire: bytes) -> None:
        while wire and not self.gone:
            try:
                wire = wire[self.line.far.send(wire) :]
            except BlockingIOError:
                self.line.reactor.step()
            except OSError:
                return

    def hear(self) -> bytes:
        """All the plaintext until now."""
        with suppress(OSError):
            self.ended = not self.gone and self.line.pull()
        if self.peer is None:
            return self.line.got
        wire, self.line.got = self.line.got, b""
        try:
            self.peer.feed(wire)
        except ssl.SSLError as alert:
            self.alert = alert.reason
        return self.peer.heard

    def said(self) -> list[object]:
        """What the owner knows. How often a leg was full depends on the kernel."""
        return [what for what in self.line.owner.said if not isinstance(what, tuple) or what[0] != "pressed"]

    def seen(self) -> object:
        """What the other end and the owner know."""
        return self.hear(), self.ended, self.alert, self.said(), self.leg.received, self.leg.sent, self.leg.cause

    def do(self, act: str, octets: bytes) -> None:
        """What the other end does."""
        if self.gone or (self.silent and act != "reset"):
            return
        self.silent = not act.startswith("say") or act == "say goodbye"
        if act == "say":
            self.send(self.say(octets))
        elif act == "say in pieces":
            wire = self.say(octets)
            for at in range(0, len(wire), len(wire) // 3 + 1):
                self.send(wire[at : at + len(wire) // 3 + 1])
                self.line.reactor.settle()
        elif act == "say goodbye":
            self.send(self.say(octets) + self.goodbye())
        elif act == "goodbye":
            self.send(self.goodbye())
        elif act == "junk":
            self.send(FORGED)
        elif act == "fin":
            with suppress(OSError):
                self.line.far.shutdown(socket.SHUT_WR)
        else:
            self.line.reset()
            self.gone = True


class Pair:
    """Two legs that copy to each other."""

    def __init__(self, reactor: SteppedReactor, authority: Authority, secure: tuple[bool, bool]) -> None:
        self.reactor = reactor
        self.client, self.backend = (Way(reactor, authority, each) for each in secure)
        self.ways = (self.client, self.backend)

    def copy(self, short: bool = True) -> None:
        for way, other in (self.ways, self.ways[::-1]):
            if short:
                way.leg.copy_to(other.leg)
            else:
                way.leg.deliver, way.leg.read_size = other.leg.write, MOST

    def act(self, chance: random.Random, acts: tuple[str, ...]) -> None:
        """One thing happens on one side."""
        way, act = chance.choice(self.ways), chance.choice(acts)
        octets = chance.randbytes(8) * (chance.choice(SIZES) // 8 + 1)
        if hasattr(way.leg, act):
            getattr(way.leg, act)()
        else:
            way.do(act, octets)
        self.settle()

    def settle(self) -> None:
        """Until nothing comes any more. A kernel is at times late."""
        unchanged = 0
        before: list[object] = []
        while unchanged < 2:
            self.reactor.settle()
            now: list[object] = [way.seen() for way in self.ways]
            unchanged = unchanged + 1 if now == before else 0
            before = now

    def close(self) -> None:
        for way in self.ways:
            way.leg.abort()
        for way in self.ways:
            way.line.close()


@pytest.fixture(params=[(True, False), (True, True), (False, False)], ids=["tls-clear", "tls-tls", "clear-clear"])
def pair(request: pytest.FixtureRequest, reactor: SteppedReactor, authority: Authority) -> Iterator[Pair]:
    pair = Pair(reactor, authority, request.param)
    pair.copy()
    yield pair
    pair.close()


@pytest.fixture
def mixed(reactor: SteppedReactor, authority: Authority) -> Iterator[Pair]:
    """The client in TLS, the backend in the clear."""
    pair = Pair(reactor, authority, (True, False))
    pair.copy()
    yield pair
    pair.close()


def outcome(reactor: SteppedReactor, authority: Authority, secure: tuple[bool, bool], seed: int, short: bool) -> object:
    """What all see if this happens."""
    chance = random.Random(seed)
    pair = Pair(reactor, authority, secure)
    pair.copy(short)
    for _ in range(chance.randrange(2, 9)):
        pair.act(chance, ACTS if chance.random() < 0.8 else ORDERS)
    seen = [way.seen() for way in pair.ways]
    # It destroys what is under way. So how much arrived is chance.
    pair.act(chance, LAST)
    said = [way.said() for way in pair.ways]
    pair.close()
    return seen, said


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("secure", [(True, False), (True, True), (False, False), (False, True)])
def test_the_short_way_does_what_the_general_way_does(
    reactor: SteppedReactor, authority: Authority, secure: tuple[bool, bool], seed: int
) -> None:
    general, short = (outcome(reactor, authority, secure, seed, way) for way in (False, True))
    assert general == short


def test_what_is_usual_goes_the_short_way(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("the general way")

    for name in ("_read", "_opened", "write"):
        monkeypatch.setattr(Leg, name, refuse)
    pair.client.send(pair.client.say(b"a NOOP\r\n"))
    pair.reactor.step_until(lambda: pair.backend.hear() == b"a NOOP\r\n")
    pair.backend.send(pair.backend.say(b"x" * 300_000))
    pair.reactor.step_until(lambda: pair.client.hear() == b"x" * 300_000)
    pair.client.send(pair.client.say(b"y" * 300_000))
    pair.reactor.step_until(lambda: pair.backend.hear() == b"a NOOP\r\n" + b"y" * 300_000)
    assert (pair.client.leg.received, pair.client.leg.sent) == (300_008, 300_000)
    assert (pair.backend.leg.received, pair.backend.leg.sent) == (300_000, 300_008)


def test_octets_that_the_socket_does_not_take_are_kept(pair: Pair) -> None:
    """And not the memory that they were in: the next leg that reads writes there."""
    data = b"".join(b"%07d\n" % number for number in range(1_000_000))
    wire = pair.backend.say(data)
    while ("pressed", True) not in pair.client.line.owner.said:
        with suppress(BlockingIOError):
            wire = wire[pair.backend.line.far.send(wire) :]
        pair.reactor.step()
    for space, size in ((arrived, MOST), (opened, ROOM), (sealed, ROOM)):
        space.view[:] = b"?" * size
    rest = bytearray(wire)
    while rest or len(pair.client.hear()) < len(data):
        with suppress(BlockingIOError):
            del rest[: pair.backend.line.far.send(rest)]
        pair.reactor.step()
    assert pair.client.hear() == data


def test_a_lone_close_notify_is_the_end(mixed: Pair) -> None:
    mixed.client.send(mixed.client.goodbye())
    mixed.reactor.settle()
    assert mixed.client.line.owner.said == ["secured", ("ended", End.ORDERLY)]
    assert mixed.backend.line.owner.said == []


@HELD
def test_what_is_copied_waits_for_the_handshake(reactor: SteppedReactor, authority: Authority, held: bool) -> None:
    """A data connection of FTP copies before its TLS has begun."""
    pair = Pair(reactor, authority, (False, False))
    pair.copy()
    tls = TLSLine(pair.client.line, authority)
    tls.half.holds_tickets = held
    pair.client.leg.start_tls(tls.half)
    pair.backend.send(b"early")
    pair.settle()
    assert pair.client.line.got == b""
    pair.client.send(tls.peer.hello())
    pair.settle()
    finished = tls.peer.feed(pair.client.line.got)
    pair.client.line.got = b""
    pair.client.send(finished + tls.peer.say(b"with the last flight"))
    pair.settle()
    assert pair.backend.hear() == b"with the last flight"
    assert pair.client.line.owner.said == ["secured"]
    tls.peer.feed(pair.client.line.got)
    assert tls.peer.heard == b"early"
    pair.client.line.got = b""
    pair.close()


def test_a_closed_leg_gets_nothing_more_and_passes_nothing_on(pair: Pair) -> None:
    pair.backend.leg.close()
    pair.client.send(pair.client.say(b"late"))
    pair.backend.send(pair.backend.say(b"late"))
    pair.settle()
    assert pair.backend.hear() == pair.client.hear() == b""
    assert pair.backend.leg.sent == pair.client.leg.sent == pair.backend.leg.received == 0
    assert pair.client.leg.received == 4


def test_a_paused_leg_is_not_read_though_it_is_told_so(pair: Pair) -> None:
    pair.client.leg.pause()
    pair.client.send(pair.client.say(b"a"))
    pair.client.leg.doRead()
    assert pair.client.leg.received == pair.backend.leg.sent == 0
    pair.client.leg.resume()
    pair.settle()
    assert pair.backend.hear() == b"a"


def test_what_comes_before_a_forged_record_is_passed_on(mixed: Pair) -> None:
    mixed.client.send(mixed.client.say(b"before") + FORGED)
    mixed.reactor.settle()
    assert mixed.backend.hear() == b"before"
    assert mixed.client.line.owner.said == ["secured", ("ended", End.RESET)]


def test_legs_that_are_gone_refer_to_nobody(pair: Pair) -> None:
    """Two of them would wait for the garbage collector."""
    legs = [way.leg for way in pair.ways]
    for leg in legs:
        leg.abort()
    pair.reactor.settle()
    assert not [leg for leg in legs if gc.get_referents(leg) and any(one in gc.get_referents(leg) for one in legs)]


def test_a_leg_that_is_full_is_still_written_to_in_order(pair: Pair) -> None:
    pair.client.leg.write(b"x" * (HIGH_WATER * 100))
    pair.backend.send(pair.backend.say(b"end"))
    pair.reactor.step_until(lambda: len(pair.client.hear()) == HIGH_WATER * 100 + 3)
    assert pair.client.hear().endswith(b"xend")


@HELD
def test_a_flood_of_key_updates_ends_the_leg(reactor: SteppedReactor, authority: Authority, held: bool) -> None:
    half, client, _server = by_hand(authority)
    half.holds_tickets = held
    line, other = Line(reactor, tcp_pair()), Line(reactor, tcp_pair())
    line.leg.half, line.leg.secured = half, half.secured
    line.leg.copy_to(other.leg)
    line.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    for _ in range(20_000):
        with suppress(OSError):
            line.far.sendall(client.seal(HANDSHAKE, KEY_UPDATE_REQUESTED))
        client.update()
        reactor.step()
        if line.owner.said:
            break
    assert line.owner.said == [("ended", End.RESET), "closed"]
    assert line.leg.cause == "TLS: flood of messages"
    line.close()
    other.close()


def test_tls_that_cannot_encrypt_breaks_the_leg_that_is_written_to(
    mixed: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(half: TLSHalf, plaintext: object, size: int) -> int:
        raise TLSError("no memory")

    monkeypatch.setattr(TLSHalf, "seal", fail)
    mixed.backend.send(b"* OK\r\n")
    mixed.reactor.settle()
    assert mixed.client.leg.cause == "TLS: no memory"
    assert mixed.client.line.owner.said == ["secured", ("ended", End.RESET), "closed"]


def test_memory_that_openssl_has_not_written_to_is_never_sent(mixed: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has octets of other sessions."""
    sealed.view[:8] = b"of other"
    for count in (0, -1, ROOM):
        monkeypatch.setattr("gateway.wire.tls.half.bio_read", lambda *args, count=count: count)
        half = mixed.client.leg.half
        assert half is not None
        with pytest.raises(AssertionError, match="nothing"):
            half.encrypt(b"x")
    mixed.backend.send(b"* OK\r\n")
    mixed.reactor.settle()
    assert mixed.client.hear() == b""
    assert mixed.backend.leg.cause == "internal error"


def test_a_bug_ends_the_leg_that_was_read(mixed: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(half: TLSHalf, ciphertext: object, size: int) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(TLSHalf, "open", fail)
    mixed.client.send(mixed.client.say(b"a"))
    mixed.reactor.settle()
    assert mixed.client.leg.cause == "internal error"
    assert mixed.backend.line.owner.said == []


def test_no_bio_keeps_the_memory_of_a_transfer(authority: Authority, reactor: SteppedReactor) -> None:
    """They are replaced with the next short piece that comes."""
    way = Way(reactor, authority, True)
    half = way.leg.half
    assert half is not None

    def renews(octets: bytes) -> bool:
        before = half._into_ssl
        assert half.feed(way.say(octets)) == octets
        assert handles(half._connection)[1:] == (half._into_ssl, half._from_ssl)
        return half._into_ssl is not before

    assert renews(b"after the handshake")
    assert not renews(b"as before")
    assert not renews(b"x" * 100_000)
    assert renews(b"after a large piece")
    half.encrypt(b"x" * 100_000)
    assert renews(b"after a large answer")
    half.encrypt(b"x" * 10_000)
    assert renews(b"after an answer")
    assert not renews(b"as before")
    way.line.close()
