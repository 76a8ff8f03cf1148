"""Instructions per megabyte of a file that comes or goes by FTP, and by IMAP: `python -m benchmarks.files`.

The octets of an FTP data connection and those of a spliced IMAP session take the same way through the gateway, and must
cost the same.  Exit status 1: FTP needs more than MOST times as many.  `count.py` tells how they are counted.
`--write` records the figures in the repository, for docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import socket
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from . import client, count, peers
from .client import Broken
from .count import Unit, Work
from .peers import IMAP_IMPLICIT, Running, Unavailable

MOST = 1.05
FTP_IMPLICIT = "ftp_implicit"
MEGABYTE = 1_000_000
AT_ONCE = 20
"""Megabytes of one file."""

Move = Callable[[ssl.SSLSocket, int], None]


def _spliced(move: Move) -> Callable[[Running, ssl.SSLContext, ExitStack], Work]:
    def prepare(running: Running, tls: ssl.SSLContext, stack: ExitStack) -> Work:
        sock = stack.enter_context(client.logged_in(running.ports[IMAP_IMPLICIT], tls))
        return lambda units: move(sock, units * MEGABYTE)

    return prepare


class Files:
    """An FTP session that is logged in."""

    def __init__(self, port: int, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._sock = tls.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")
        self._sock.settimeout(client.DEADLINE)
        self._lines = self._sock.makefile("rb")
        self._hear(b"220 ")
        for command, wanted in ((b"USER user", b"331 "), (b"PASS password", b"230 "), (b"PROT P", b"200 ")):
            self._ask(command, wanted)

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._sock.close()

    def download(self, octets: int) -> None:
        with self._opened(b"RETR %d" % octets) as data:
            buffer = bytearray(65536)
            count = 0
            while got := data.recv_into(buffer):
                count += got
            self._end(data)
        if count != octets:
            raise Broken(f"{count} of {octets} octets")

    def upload(self, octets: int) -> None:
        with self._opened(b"STOR %d" % octets) as data:
            piece = memoryview(bytes(65536))
            left = octets
            while left:
                left -= data.send(piece[:left])
            self._end(data)

    def _opened(self, command: bytes) -> ssl.SSLSocket:
        self._sock.sendall(b"EPSV\r\n")
        port = int(self._hear(b"229 ").split(b"|")[3])
        raw = socket.create_connection(("127.0.0.1", port), client.DEADLINE)
        self._ask(command, b"150 ")
        return self._tls.wrap_socket(raw, server_hostname="localhost", session=self._sock.session)

    def _end(self, data: ssl.SSLSocket) -> None:
        data.unwrap().close()
        self._hear(b"226 ")

    def _ask(self, command: bytes, wanted: bytes) -> None:
        self._sock.sendall(command + b"\r\n")
        self._hear(wanted)

    def _hear(self, wanted: bytes) -> bytes:
        heard = self._lines.readline()
        if not heard.startswith(wanted):
            raise Broken(f"{heard[:80]!r} instead of {wanted!r}")
        return heard


def _by_ftp(move: Callable[[Files, int], None]) -> Callable[[Running, ssl.SSLContext, ExitStack], Work]:
    def prepare(running: Running, tls: ssl.SSLContext, stack: ExitStack) -> Work:
        files = stack.enter_context(Files(running.ports[FTP_IMPLICIT], tls))
        return lambda units: move(files, units * MEGABYTE)

    return prepare


UNITS = (
    Unit("imap-download", "megabyte from the backend, IMAP", _spliced(client.download), 2, AT_ONCE),
    Unit("ftp-download", "megabyte from the backend, FTP", _by_ftp(Files.download), 2, AT_ONCE),
    Unit("imap-upload", "megabyte to the backend, IMAP", _spliced(client.upload), 2, AT_ONCE),
    Unit("ftp-upload", "megabyte to the backend, FTP", _by_ftp(Files.upload), 2, AT_ONCE),
)
WAYS = ("download", "upload")


def ratios(counted: Mapping[str, count.Counts]) -> dict[str, float]:
    """Direction -> how many times as many instructions FTP needs."""
    return {way: sum(counted[f"ftp-{way}"].values()) / sum(counted[f"imap-{way}"].values()) for way in WAYS}


def measured(python: str) -> dict[str, count.Counts]:
    """The gateway of this checkout under this Python. Raises Unavailable."""
    gateway = replace(peers.gateway(python=python), services=(IMAP_IMPLICIT, FTP_IMPLICIT), config="files.ini")
    return count.count(gateway, UNITS)


def main(given: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.files", description=__doc__)
    parser.add_argument("--python", type=peers.program, default=sys.executable, metavar="PATH", help="runs the gateway")
    parser.add_argument("--write", action="store_true", help="record the figures in the repository")
    options = parser.parse_args(given)
    try:
        counted = measured(options.python)
    except Unavailable as why:
        print(f"files: {why}", file=sys.stderr)
        return 2
    print(count.table(counted, units=UNITS))
    if options.write:
        count.record(counted, options.python)
    found = ratios(counted)
    for way, ratio in found.items():
        print(f"{way}: FTP needs {ratio:.3f} times the instructions of IMAP")
    return 1 if max(found.values()) > MOST else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
