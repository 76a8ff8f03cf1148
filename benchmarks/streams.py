"""What it costs to bring a long answer to a client, by protocol: `python -m benchmarks.streams`.

All pass TLS to the client and have a plaintext backend.  IMAP is the measure: after its login the gateway only copies.
Each round asks once for each answer, and the rounds follow one another, so that all meet the same machine.  With
`--count`, callgrind counts instructions instead (see `count`).
"""

from __future__ import annotations

import argparse
import socket
import ssl
import statistics
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from . import client, count, peers, processes
from .peers import Running, Stage, Unavailable

DEADLINE = 60.0
"""Seconds that each wait of client and backend may last."""
LARGE = 1024 * 1024
"""Octets that are sent at once, about."""


@dataclass(frozen=True)
class Stream:
    """A session, and a long answer in it."""

    name: str
    title: str
    protocol: str
    exchanges: Sequence[tuple[bytes, bytes]]
    """What the client says, and the backend's answer, up to the question with the long answer."""
    ask: bytes
    unit: bytes
    """The answer is this, many times ..."""
    end: bytes
    """... and this."""
    greeting: bytes = b""
    greeting_told: bytes = b""
    """What the client gets of it."""

    def units(self, octets: int) -> int:
        """So many make up about these octets."""
        return max(1, octets // len(self.unit))


# --- what is said ---------------------------------------------------------------------------------------


def _ber(tag: int, *parts: bytes) -> bytes:
    inside = b"".join(parts)
    size = bytes([len(inside)]) if len(inside) < 0x80 else b"\x84" + len(inside).to_bytes(4, "big")
    return bytes([tag]) + size + inside


def _ldap(ident: int, tag: int, *parts: bytes) -> bytes:
    return _ber(0x30, _ber(2, bytes([ident])), _ber(tag, *parts))


def _entry(octets: int) -> bytes:
    values = _ber(0x31, _ber(4, b"x" * octets))
    return _ldap(2, 0x64, _ber(4, b"uid=joe,dc=example,dc=org"), _ber(0x30, _ber(0x30, _ber(4, b"photo"), values)))


_RESULT = _ber(0x0A, b"\0"), _ber(4), _ber(4)
_BIND = _ldap(1, 0x60, _ber(2, b"\3"), _ber(4, b"cn=joe"), _ber(0x80, b"secret")), _ldap(1, 0x61, *_RESULT)
_SEARCH = _ldap(
    2, 0x63, _ber(4), _ber(0x0A, b"\2"), _ber(0x0A, b"\0"), _ber(2, b"\0"), _ber(2, b"\0"), _ber(1, b"\0"),
    _ber(0x87, b"objectClass"), _ber(0x30),
)  # fmt: skip
_DONE = _ldap(2, 0x65, *_RESULT)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + (4 + len(body)).to_bytes(4, "big") + body


def _packet(number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload


_MYSQL = _packet(
    0,
    b"\n5.5.5-10.11.19-MariaDB\0" + bytes(4) + b"12345678\0\xfe\xf7" + b"\x08\x02\x00\xff\x81\x15" + bytes(10)
    + b"123456789012\0mysql_native_password\0",
)  # fmt: skip
_MYSQL_LOGIN = _packet(
    1, b"\x84\xa2\xbf\0\0\0\0\x10\x21" + bytes(23) + b"joe\0" + b"\x14" + b"x" * 20 + b"mysql_native_password\0"
)
_HEADER = (
    b"<stream:stream %s='example.org' version='1.0' xmlns='jabber:client' "
    b"xmlns:stream='http://etherx.jabber.org/streams'>"
)
_SASL = b"xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"
_FEATURES = b"<stream:features><mechanisms %s><mechanism>PLAIN</mechanism></mechanisms></stream:features>" % _SASL

STREAMS = (
    Stream(
        "imap", "IMAP, FETCH", "imap", [(b"a LOGIN user password\r\n", b"a OK in\r\n")],
        b"b FETCH 1 BODY[]\r\n", b"x" * 70 + b"\r\n", b"b OK done\r\n", b"* OK old\r\n", b"* OK old\r\n",
    ),
    Stream("ldap", "LDAP after a bind, entries of 1 KB", "ldap", [_BIND], _SEARCH, _entry(950), _DONE),
    Stream("ldap-anonymous", "LDAP without a bind, entries of 1 KB", "ldap", [], _SEARCH, _entry(950), _DONE),
    Stream("ldap-small", "LDAP without a bind, entries of 200 octets", "ldap", [], _SEARCH, _entry(128), _DONE),
    Stream("ldap-large", "LDAP without a bind, entries of 1 MB", "ldap", [], _SEARCH, _entry(1_000_000), _DONE),
    Stream(
        "copy", "PostgreSQL, COPY, rows of 100 octets", "postgresql",
        [(_message(b"", b"\0\3\0\0user\0joe\0\0"), _message(b"R", bytes(4)) + _message(b"Z", b"I"))],
        _message(b"Q", b"copy shop to stdout\0"), _message(b"d", b"x" * 99 + b"\n"), _message(b"c", b""),
    ),
    Stream(
        "mysql", "MySQL, rows of 100 octets", "mysql", [(_MYSQL_LOGIN, _packet(2, b"\0\0\0\2\0\0\0"))],
        _packet(0, b"\3select * from shop"), _packet(3, b"x" * 100), _packet(4, b"\xfe\0\0\2\0"), _MYSQL, _MYSQL,
    ),
    Stream(
        "xmpp", "XMPP, messages of 200 octets", "xmpp",
        [
            (_HEADER % b"to", _HEADER % b"from" + _FEATURES),
            (b"<auth %s mechanism='PLAIN'>AGpvZQBzZWNyZXQ=</auth>" % _SASL, b"<success %s/>" % _SASL),
        ],
        b"<presence/>", b"<message from='ann@example.org'><body>" + b"x" * 145 + b"</body></message>", b"<presence/>",
    ),
)  # fmt: skip

# --- the backend ----------------------------------------------------------------------------------------


class Backend:
    """Says a stream's part, one connection at a time."""

    def __init__(self, stack: ExitStack) -> None:
        self.stream = STREAMS[0]
        """What the next connections are about, ..."""
        self.units = 1
        """... and how long the answer is."""
        self.ports: dict[str, int] = {}
        for protocol in sorted({stream.protocol for stream in STREAMS}):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            self.ports[f"{protocol}_backend"] = listener.getsockname()[1]
            threading.Thread(target=self._serve, args=(listener,), daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return  # closed
            with sock:
                sock.settimeout(DEADLINE)
                with suppress(OSError):  # who only knocks goes
                    self._say(sock, self.stream)

    def _say(self, sock: socket.socket, stream: Stream) -> None:
        sock.sendall(stream.greeting)
        for said, answer in stream.exchanges:
            _read(sock, len(said))
            sock.sendall(answer)
        large = LARGE // len(stream.unit) or 1
        block = stream.unit * large
        while True:
            _read(sock, len(stream.ask))
            whole, rest = divmod(self.units, large)
            for _ in range(whole):
                sock.sendall(block)
            sock.sendall(stream.unit * rest + stream.end)


def _read(sock: socket.socket, octets: int) -> None:
    """Exactly so many."""
    while octets:
        got = len(sock.recv(min(octets, 65536)))
        if not got:
            raise ConnectionError("closed")
        octets -= got


# --- the client -----------------------------------------------------------------------------------------


class Session:
    """One session, up to the question."""

    def __init__(self, running: Running, tls: ssl.SSLContext, backend: Backend, stream: Stream) -> None:
        self._backend = backend
        self._stream = backend.stream = stream
        plain = socket.create_connection(("127.0.0.1", running.ports[f"{stream.protocol}_port"]), DEADLINE)
        self._sock = tls.wrap_socket(plain, server_hostname="localhost")
        _read(self._sock, len(stream.greeting_told))
        for said, answer in stream.exchanges:
            self._sock.sendall(said)
            _read(self._sock, len(answer))

    def ask(self, units: int) -> None:
        self._backend.units = units
        self._sock.sendall(self._stream.ask)
        _read(self._sock, units * len(self._stream.unit) + len(self._stream.end))

    def close(self) -> None:
        self._sock.close()


# --- what is measured -----------------------------------------------------------------------------------


@contextmanager
def ground(peer: peers.Peer, directory: Path) -> Iterator[tuple[Running, ssl.SSLContext, Backend]]:
    """The gateway with all protocols."""
    services = sorted({f"{stream.protocol}_port" for stream in STREAMS})
    peer = replace(peer, services=tuple(services), config="streams.ini")
    with ExitStack() as stack:
        stage: Stage = stack.enter_context(peers.stage(directory, processes.raise_descriptor_limit(1024)))
        backend = Backend(stack)
        stage.compiled.add(peer.name)
        stage = replace(stage, backend=backend.ports)
        running = stack.enter_context(peers.running(peer, stage, count.PATIENCE))
        yield running, client.context(stage.certificate), backend


def timed(root: Path, python: str, streams: Sequence[Stream], rounds: int, octets: int) -> dict[str, list[float]]:
    """The gateway's CPU seconds for each answer, by stream.  One round before the first warms up."""
    found: dict[str, list[float]] = {stream.name: [] for stream in streams}
    with (
        TemporaryDirectory(prefix="gateway-streams-") as name,
        ground(peers.gateway(root, python=python), Path(name)) as (running, tls, backend),
    ):
        for number in range(rounds + 1):
            for stream in streams:
                session = Session(running, tls, backend, stream)
                running.settle()
                before = running.cpu()
                session.ask(stream.units(octets if number else octets // 10))
                running.settle()
                if number:
                    found[stream.name].append(running.cpu() - before)
                session.close()
    return found


def _unit(stream: Stream, backend: Backend) -> count.Unit:
    """A mebibyte of an answer, for callgrind."""

    def prepare(running: Running, tls: ssl.SSLContext, stack: ExitStack) -> count.Work:
        session = Session(running, tls, backend, stream)
        stack.callback(session.close)
        return lambda units: session.ask(units * stream.units(1024 * 1024))

    return count.Unit(stream.name, stream.title, prepare, warm=1, units=4)


def counted(root: Path, python: str, streams: Sequence[Stream]) -> dict[str, float]:
    """Thousands of instructions per mebibyte, which is 16 chunks of the gateway's."""
    with TemporaryDirectory(prefix="gateway-streams-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        peer = count.under_callgrind(peers.gateway(root, python=python), directory)
        with ground(peer, directory) as (running, tls, backend):
            counter = count.Counter(running, directory)
            counter.begin()
            return {each.name: sum(counter.count(_unit(each, backend), tls).values()) for each in streams}


def table(streams: Sequence[Stream], found: Mapping[str, Sequence[float]], unit: str) -> str:
    """The median, the smallest and the largest, and the median beside IMAP's of the same round."""
    lines = [f"{unit:<46}{'median':>9}{'from':>9}{'to':>9}{'to IMAP':>9}"]
    for stream in streams:
        samples = found[stream.name]
        ratio = ""
        if "imap" in found:
            ratio = f"{statistics.median(one / imap for one, imap in zip(samples, found['imap'], strict=True)):.2f}"
        numbers = (statistics.median(samples), min(samples), max(samples))
        lines.append(f"{stream.title:<46}" + "".join(f"{number:>9.3g}" for number in numbers) + f"{ratio:>9}")
    return "\n".join(lines)


def main(given: Sequence[str]) -> int:
    names = [stream.name for stream in STREAMS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="STREAM", choices=names, default=names, help=f"of {names}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=100, help="of an answer")
    parser.add_argument("--count", action="store_true", help="instructions instead of time; needs valgrind")
    parser.add_argument("--python", type=peers.program, default=sys.executable, metavar="PATH", help="runs the gateway")
    parser.add_argument("--root", type=Path, default=peers.ROOT, metavar="DIR", help="another checkout of the gateway")
    options = parser.parse_args(given)
    streams = [stream for stream in STREAMS if stream.name in options.only]
    root = options.root.resolve()
    try:
        if options.count:
            found = {name: [number] for name, number in counted(root, options.python, streams).items()}
            print(table(streams, found, "thousands of instructions per MiB"))
        else:
            found = timed(root, options.python, streams, options.rounds, options.megabytes * 1_000_000)
            print(table(streams, found, f"seconds of CPU for {options.megabytes} MB"))
    except Unavailable as why:
        print(f"streams: {why}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
