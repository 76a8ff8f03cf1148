"""A whole session between two ends that the test holds: a real Session, real legs and sockets, a stepped reactor."""

from __future__ import annotations

import json
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any, cast

from OpenSSL import SSL

from gateway.config.values import Backend, Timeouts
from gateway.dialects import DIALECTS
from gateway.dialects.base import BackendTLS, Identity, Policy, Terms
from gateway.sessions.context import SessionContext
from gateway.sessions.session import Session
from gateway.telemetry.catalogue import event as row
from gateway.telemetry.events import FORMATS, Events
from gateway.telemetry.kinds import Blame
from gateway.wire.dialer import Dialer
from gateway.wire.tls.connector import TLSConnector
from gateway.wire.tls.context import ENABLE_PARTIAL_WRITE
from gateway.wire.tls.half import TLSHalf
from tests.memory.stepping import SteppedReactor, tcp_pair, unix_pair
from tests.memory.tls_peer import Authority, Peer
from tests.pure.playbook import terms

Pair = Callable[[], tuple[socket.socket, socket.socket]]

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER by which closing sends RST."""


class End:
    """The other end of a leg: what it hears gathers in `heard`, in the clear or of TLS, unless it is `deaf`."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.heard = b""
        self.raw = b""
        """The same as it was on the wire."""
        self.peer: Peer | None = None
        self.deaf = False
        self.ended = False
        """FIN."""
        self.reset = False
        self._unsent: deque[bytes] = deque()

    @property
    def gone(self) -> bool:
        return self.ended or self.reset

    def say(self, octets: bytes) -> None:
        self.throw(octets if self.peer is None else self.peer.say(octets))

    def throw(self, octets: bytes) -> None:
        """As it is, TLS or not; what the socket does not take waits for `pump`."""
        self._unsent.append(octets)
        self.pump()

    def start_tls(self, context: ssl.SSLContext, *, server: bool = False) -> None:
        """From here on it is TLS: the ClientHello is what was heard last, or is said now."""
        self.peer = Peer(context, server=server)
        heard, self.heard = self.heard, b""
        self.throw(self.peer.feed(heard))

    @property
    def secure(self) -> bool:
        return self.peer is not None and self.peer.shaken

    def finish(self) -> None:
        """close_notify where there is TLS, and FIN behind all that was said."""
        if self.peer is not None:
            self.throw(self.peer.goodbye())
        assert not self._unsent
        self.sock.shutdown(socket.SHUT_WR)

    def break_off(self) -> None:
        """RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.sock.close()

    def pump(self) -> None:
        if self.sock.fileno() < 0:
            return
        try:
            while self._unsent:
                octets = self._unsent.popleft()
                sent = self.sock.send(octets) if octets else 0
                if sent < len(octets):
                    self._unsent.appendleft(octets[sent:])
        except BlockingIOError:
            self._unsent.appendleft(octets)
        except OSError:
            self.reset = True
            self._unsent.clear()
        while not self.deaf and not self.gone:
            try:
                octets = self.sock.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                self.reset = True
                return
            if not octets:
                self.ended = True
            self._take(octets)

    @property
    def unsent(self) -> int:
        return sum(map(len, self._unsent))

    def _take(self, octets: bytes) -> None:
        self.raw += octets
        if self.peer is None:
            self.heard += octets
            return
        before = len(self.peer.heard)
        with suppress(ssl.SSLError):
            self._unsent.append(self.peer.feed(octets))
        self.heard += self.peer.heard[before:]
        if self._unsent and octets:
            self.pump()


@dataclass(frozen=True)
class Reached:
    host: str
    address: str = "mail.example.test:25"


class Call:
    """What the session holds of a dialling."""

    def __init__(self, dialer: Switchboard, done: Callable[[Any], object], failed: Callable[[str], object]) -> None:
        self.reached = Reached("mail.example.test")
        self.verdicts: list[str] = []
        """What the session said of the addresses."""
        self.cancelled = False
        self._dialer = dialer
        self._delayed: Any = None
        self._done = done
        self._failed = failed
        self._answer()

    def greeted(self) -> None:
        self.verdicts.append("greeted")

    def unserved(self, blame: Blame, client: str) -> None:
        self.verdicts.append(f"failed for {client}" if blame is Blame.CLIENT else f"failed: {blame.value}")

    def again(self, blame: Blame, client: str) -> None:
        self.unserved(blame, client)
        self.cancelled = False
        self._answer()

    def cancel(self) -> None:
        self.cancelled = True
        if self._delayed is not None:
            self._delayed.cancel()
            self._delayed = None

    def _answer(self) -> None:
        self._delayed = self._dialer.reactor.callLater(self._dialer.delay, self._dial)

    def _dial(self) -> None:
        self._delayed = None
        if len(self._dialer.backends) >= self._dialer.addresses:
            self._failed("10.0.0.5:25: Connection refused (ECONNREFUSED)")
            return
        near, far = self._dialer.pair()
        self._dialer.backends.append(End(far))
        self._dialer.greet(self._dialer.backends[-1])
        self._done(near)


class Switchboard:
    """A Dialer whose addresses are the ends that the test holds."""

    def __init__(self, reactor: SteppedReactor, addresses: int, pair: Pair) -> None:
        self.reactor = reactor
        self.pair = pair
        self.addresses = addresses
        self.delay = 0.0
        self.backends: list[End] = []
        self.calls: list[Call] = []
        self.greet: Callable[[End], object] = lambda end: None
        """Called with each end before the session has its own."""

    def dial(self, done: Callable[[Any], object], failed: Callable[[str], object]) -> Call:
        self.calls.append(Call(self, done, failed))
        return self.calls[-1]


class Meeting:
    """One context, and the sessions that come in there.

    Connections are UNIX sockets, on which what is said is there at once, unless `tcp` is asked for: only TCP has
    resets and addresses, but its loopback may take longer than a clock that is moved by hand likes.
    """

    def __init__(
        self,
        reactor: SteppedReactor,
        authority: Authority,
        protocol: str = "pop3",
        *,
        backend: Backend | None = None,
        addresses: int = 1,
        accept_proxy: Iterable[str] = (),
        timeouts: Timeouts | None = None,
        dialer: Any = None,
        tcp: bool = False,
        **changes: Any,
    ) -> None:
        self.reactor = reactor
        self.authority = authority
        self.lines: list[str] = []
        self.closed: list[Session] = []
        self.sessions: list[Session] = []
        self.clients: list[End] = []
        self.others: list[Any] = []
        """Whoever else has a `pump`."""
        self._pair = tcp_pair if tcp else unix_pair
        self.dialer: Any = Switchboard(reactor, addresses, self._pair) if dialer is None else dialer
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.clear_mode(ENABLE_PARTIAL_WRITE)
        context.use_certificate_chain_file(str(authority.certificate))
        context.use_privatekey_file(str(authority.key))
        self._context = context
        agreed: Terms = terms(
            **{
                "client": "",
                "session": "",
                "received": False,
                "backend_tls": BackendTLS(backend.tls) if backend else BackendTLS.NONE,
                "policy": Policy.REQUIRED,
                "identity": Identity.NONE,
                **changes,
            }
        )
        self.context = SessionContext(
            service="test",
            dialect=DIALECTS[protocol],
            terms=agreed,
            accept_proxy=tuple(ip_network(network) for network in accept_proxy),
            timeouts=timeouts or Timeouts(),
            dialer=cast(Dialer, self.dialer),
            accept_tls=self._accept_tls,
            events=Events(self._take, FORMATS["json"]),
            connect_tls=TLSConnector(backend) if backend and backend.tls != "none" else None,
        )

    def _take(self, line: str) -> None:
        """As without `log_connects`."""
        if not row(json.loads(line)["event"]).optional:
            self.lines.append(line)

    def _accept_tls(self, address: str, name: bytes = b"") -> TLSHalf:
        connection = SSL.Connection(self._context, None)
        connection.set_accept_state()
        return TLSHalf(connection)

    # --- who comes in ----------------------------------------------------------------------------

    def enter(
        self, near: socket.socket | None = None, far: socket.socket | None = None, client: str = "127.0.0.1"
    ) -> End:
        """A client comes in, by these two ends of a connection if they are given."""
        if near is None or far is None:
            far, near = self._pair()
        session = Session(self.reactor, self.context, near, client, self.closed.append)
        self.sessions.append(session)
        self.clients.append(End(far))
        session.start()
        return self.clients[-1]

    @property
    def backend(self) -> End:
        """The one that was dialled last, once there is one."""
        self.until(lambda: self.dialer.backends)
        end: End = self.dialer.backends[-1]
        return end

    @property
    def ends(self) -> list[End]:
        return [*self.clients, *getattr(self.dialer, "backends", [])]

    # --- how it goes on --------------------------------------------------------------------------

    def pump(self) -> None:
        for one in [*self.ends, *self.others]:
            one.pump()

    def until(self, predicate: Callable[[], object]) -> None:
        def holds() -> object:
            self.pump()
            return predicate()

        self.reactor.step_until(holds, turns=20_000)

    def rest(self) -> None:
        """Until nothing happens any more."""
        for _ in range(1000):
            before = self._state()
            self.pump()
            self.reactor.settle()
            self.pump()
            if self._state() == before:
                return
        raise AssertionError("does not come to rest")

    def _state(self) -> list[object]:
        return [(len(end.raw), end.unsent, end.gone) for end in self.ends]

    def advance(self, seconds: float) -> None:
        """Let the clock run, second by second, and everything that follows."""
        while seconds > 0:
            self.reactor.clock.advance(min(seconds, 1.0))
            seconds -= 1.0
            self.reactor.step()
            self.pump()
        self.rest()

    def hears(self, end: End, octets: bytes) -> None:
        """Exactly this comes next."""
        try:
            self.until(lambda: len(end.heard) >= len(octets))
        except AssertionError:
            raise AssertionError(f"heard {end.heard!r}, not {octets!r}; told {self.lines}") from None
        assert end.heard.startswith(octets), f"heard {end.heard[: len(octets)]!r}, not {octets!r}"
        end.heard = end.heard[len(octets) :]

    def ask(self, octets: bytes, reply: bytes) -> None:
        """The client says something, the backend hears it and answers, and the client hears that."""
        client, backend = self.clients[-1], self.backend
        client.say(octets)
        self.hears(backend, octets)
        backend.say(reply)
        self.hears(client, reply)

    # --- what was told ---------------------------------------------------------------------------

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    def told(self, event: str) -> dict[str, Any]:
        """The only event of this name."""
        (found,) = [line for line in self.events if line["event"] == event]
        return found

    def over(self) -> dict[str, Any]:
        """Wait for the only session's end; its event."""
        self.until(lambda: self.closed)
        return self.told("session")

    def leave(self) -> None:
        """The end of a test: nothing is left behind, nothing is counted twice."""
        for end in self.ends:
            with suppress(OSError):
                end.sock.close()
        for _ in range(200):
            self.reactor.settle()
            if len(self.closed) == len(self.sessions):
                break
            self.reactor.clock.advance(30.0)
        assert self.closed.count(self.sessions[0]) == 1 if self.sessions else True
        assert sorted(map(id, self.closed)) == sorted(map(id, self.sessions))
        assert not self.reactor.readers
        assert not self.reactor.writers
        assert self.reactor.pending() == []


Meet = Callable[..., Meeting]
"""Makes one; `protocol` and the other arguments are Meeting's."""
