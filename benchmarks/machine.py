"""How fast this machine does the things that a session is made of, as JSON.

A ratio to a program in C depends on them. Where system calls are dear, both programs need more, and the ratio falls.
Where a processor is fast at cryptography, the program in C gains more, and the ratio rises. Where memory is slow after
a pause, the program that uses more memory needs more.

Run by the Python that is asked: `python -m benchmarks.machine`. `--walk SECONDS` (3) is how long it walks over memory;
with 0 it walks once without a pause, and once with one. With `--pages SECONDS` it waits for a line, and then prints
only what a page costs: `benchmarks.workers` holds the process to a quota first.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

TURNS, TRIPS, HANDSHAKES, PAGES = 20_000, 500, 10, 10_000
PAGE = 4096
PAUSE = 0.075
WALK = 3.0
ATTEMPTS = 25
"""The fastest attempt counts: other work can only slow one down."""


def fastest(act: Callable[[], object], times: int) -> float:
    """Microseconds for one of so many `times` that `act` does the thing."""
    took = []
    for _ in range(ATTEMPTS):
        begun = time.perf_counter()
        act()
        took.append(time.perf_counter() - begun)
    return min(took) / times * 1e6


def _turn() -> None:
    found = {"a": 1}
    for number in range(TURNS):
        found["a"] = abs(number) + len(found)


def _trips() -> float:
    """One octet sent and received over loopback: two system calls, and the way between."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as one:
        other, _ = server.accept()
        with other:

            def trip() -> None:
                for _ in range(TRIPS):
                    one.send(b"x")
                    other.recv(1)

            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return fastest(trip, TRIPS)


def _handshakes() -> float:
    """A full TLS 1.3 handshake in memory, both ends: P-256 certificate, AES-128-GCM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from OpenSSL import SSL

    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=True)
        .sign(key, hashes.SHA256())
    )
    contexts = SSL.Context(SSL.TLS_SERVER_METHOD), SSL.Context(SSL.TLS_CLIENT_METHOD)
    for context in contexts:
        context.set_tls13_ciphersuites(b"TLS_AES_128_GCM_SHA256")
    contexts[0].use_certificate(certificate)
    contexts[0].use_privatekey(key)

    def shake() -> None:
        for _ in range(HANDSHAKES):
            server, client = (SSL.Connection(context) for context in contexts)
            server.set_accept_state()
            client.set_connect_state()
            waits = {client, server}
            while waits:
                for one, other in ((client, server), (server, client)):
                    with suppress(SSL.WantReadError):
                        one.do_handshake()
                        waits.discard(one)
                    with suppress(SSL.WantReadError):
                        other.bio_write(one.bio_read(65536))

    return fastest(shake, HANDSHAKES)


def page(duration: float, pause: float = 0.0) -> float:
    """Microseconds of CPU for one of 40 MB of pages that a process has touched before; before each walk it sleeps.

    A processor that is always awake needs below 0.1 us. A virtual machine may need over 20 us after a pause.
    """
    memory = bytearray(PAGES * PAGE)
    took: list[float] = []
    end = time.perf_counter() + duration
    while not took or time.perf_counter() < end:
        time.sleep(pause)
        begun = time.process_time()
        for place in range(0, len(memory), PAGE):
            memory[place] = 1
        took.append(time.process_time() - begun)
    return statistics.median(took) / PAGES * 1e6


def speeds(walk: float) -> dict[str, str]:
    """`walk`: seconds for the two walks over memory together."""
    return {
        "100 turns of a Python loop": f"{100 * fastest(_turn, TURNS):.1f} us",
        "an octet over loopback": f"{_trips():.1f} us",
        "a TLS handshake, both ends": f"{_handshakes():.0f} us",
        "a page of memory again": f"{page(walk / 3):.2f} us",
        "a page of memory again, after a pause of 75 ms": f"{page(walk * 2 / 3, PAUSE):.2f} us",
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.machine")
    parser.add_argument("--walk", type=float, default=WALK, metavar="SECONDS")
    parser.add_argument("--pages", type=float, metavar="SECONDS")
    options = parser.parse_args()
    if options.pages is not None:
        sys.stdin.readline()
        print(page(options.pages))
    else:
        print(json.dumps(speeds(options.walk)))
