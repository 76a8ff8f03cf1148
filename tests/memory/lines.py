"""A leg with an owner who writes down what it says, and the socket at its other end, in the clear or with TLS."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from gateway.protocol.vocabulary import Secured
from gateway.wire.leg import End, Leg
from gateway.wire.tls.context import accepting
from gateway.wire.tls.half import TLSHalf
from tests.memory.stepping import SteppedReactor
from tests.memory.tls_peer import Authority, Peer, server_context


class Owner:
    """Writes down what a leg says, and whether it may say it now."""

    def __init__(self) -> None:
        self.said: list[object] = []
        self.heard = b""
        self.busy = False
        self.on: dict[str, Callable[[], None]] = {}

    def _note(self, what: str, *more: object) -> None:
        assert not self.busy, f"{what} from inside a call of the owner"
        self.said.append((what, *more) if more else what)
        if what in self.on:
            self.on[what]()

    def hear(self, data: bytes) -> None:
        assert not self.busy
        self.heard += data
        if "heard" in self.on:
            self.on["heard"]()

    def leg_secured(self, leg: Leg, facts: Secured) -> None:
        assert leg.secured is facts
        self._note("secured")

    def leg_tls_failed(self, leg: Leg, reason: str) -> None:
        self._note("tls failed", reason)

    def leg_ended(self, leg: Leg, end: End) -> None:
        self._note("ended", end)

    def leg_pressed(self, leg: Leg, full: bool) -> None:
        self.said.append(("pressed", full))
        if "pressed" in self.on:
            self.on["pressed"]()

    def leg_closed(self, leg: Leg) -> None:
        self._note("closed")


class Line:
    """A leg, its owner, and the plain socket at the other end."""

    def __init__(self, reactor: SteppedReactor, pair: tuple[socket.socket, socket.socket]) -> None:
        self.reactor = reactor
        self.near, self.far = pair
        self.owner = Owner()
        self.leg = Leg(reactor, self.near, self.owner)
        self.leg.deliver = self.owner.hear
        self.leg.start()
        self.got = b""

    def do(self, act: Callable[..., None], *args: object) -> None:
        """What an owner does; nothing may come back from inside."""
        self.owner.busy = True
        act(*args)
        self.owner.busy = False

    def pull(self) -> bool:
        """Read what is there at the far end; true at its end."""
        try:
            while chunk := self.far.recv(1 << 20):
                self.got += chunk
        except BlockingIOError:
            return False
        return True

    def expect(self, octets: bytes) -> None:
        def arrived() -> bool:
            self.pull()
            return len(self.got) >= len(octets)

        self.reactor.step_until(arrived)
        assert self.got == octets

    def expect_end(self) -> None:
        self.reactor.step_until(self.pull)

    def reset(self) -> None:
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.far.close()

    def close(self) -> None:
        self.far.close()
        self.leg.abort()
        self.reactor.clock.advance(0)
        assert self.near.fileno() == -1
        assert self.reactor.pending() == []
        assert self.owner.said.count("closed") == 1


class TLSLine:
    """TLS over a line: the far end is the standard library's."""

    def __init__(self, line: Line, authority: Authority) -> None:
        self.line = line
        self.peer = Peer(authority.client())
        self.half = TLSHalf(accepting(server_context(authority.certificate, authority.key)))

    def pump(self) -> bool:
        """Carry what is on the wire to the peer, and its answer back; true once TLS is there at both ends."""
        self.line.pull()
        wire, self.line.got = self.line.got, b""
        if answer := self.peer.feed(wire):
            self.line.far.sendall(answer)
        return self.peer.shaken and "secured" in self.line.owner.said

    def shake(self, early: bytes = b"") -> None:
        self.line.do(self.line.leg.start_tls, self.half, early)
        if not early:
            self.line.far.sendall(self.peer.hello())

        self.line.reactor.step_until(self.pump)
        self.line.reactor.settle()
        self.pump()

    def heard(self, octets: bytes) -> None:
        def arrived() -> bool:
            self.pump()
            return len(self.peer.heard) >= len(octets)

        self.line.reactor.step_until(arrived)
        assert self.peer.heard == octets
