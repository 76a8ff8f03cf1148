"""Attacks K of docs/conformance.md: floods, as far as a minute of tests can show them."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from pathlib import Path

import pytest

from gateway.config.values import Timeouts
from soak.front import serving
from soak.octets import KINDS, RATIO, costs
from tests.process.attacks.conftest import Attack
from tests.process.running import Identity, Service, running, wait_until
from tests.process.wire import Client
from tests.process.words import WORDS

PROTOCOLS = tuple(WORDS)
each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)


def test_K1_a_handshake_that_trickles_is_cut_off_at_its_deadline(attack: Attack) -> None:
    client = attack.connect("imap", "implicit", greeted=False)
    start = time.monotonic()
    client.socket.settimeout(0.2)
    record = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300)
    over = False
    for octet in record:
        try:
            client.say(bytes([octet]))
            over = client.socket.recv(100) == b""
        except TimeoutError:
            continue
        except OSError:
            over = True
        if over:
            break
    assert over
    assert 1.5 < time.monotonic() - start < 10
    assert attack.wait("tls-failed")["detail"] == "handshake timed out"


@each_protocol
def test_K3_who_says_nothing_on_an_implicit_port_costs_the_backend_nothing(attack: Attack, protocol: str) -> None:
    for _ in range(10):
        attack.connect(protocol, "implicit", greeted=False)
    # Who comes after them is the first one that the backend sees.
    attack.secure(protocol, "implicit")
    assert len(attack.visits[attack.service(protocol)]) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_K7_single_octets_cost_linear_time(tmp_path: Path, kind: str) -> None:
    """A write for each, and under TLS a record: nothing is looked through again with each.  `make octets` has more."""
    with serving(tmp_path, Timeouts()) as (gateway, trusting):
        half, whole = costs(gateway, trusting, kind, 120_000, rounds=3)
    print(f"{kind}: {half:.2f} s, {whole:.2f} s")
    # Hundredths of a second are the steps of this clock.
    assert whole <= RATIO * half + 0.05


def test_K7_a_command_in_single_octets_costs_linear_time(attack: Attack) -> None:
    """8192 octets are the longest command: within it everything is kept."""

    def feed(octets: int) -> float:
        client = attack.secure("imap", "implicit")
        before = attack.gateway.cpu
        for _ in range(octets):
            client.say(b"x")
        client.say(b"\r\nc CAPABILITY\r\n")
        client.hear(WORDS["imap"].hello_)
        return attack.gateway.cpu - before

    half, whole = min(feed(4000) for _ in range(2)), feed(8000)
    assert whole <= RATIO * half + 0.1


def test_K10_a_storm_of_resets_leaves_nothing(attack: Attack) -> None:
    before = attack.gateway.descriptors
    for number in range(150):
        for protocol in PROTOCOLS:
            address = attack.gateway.address(attack.service(protocol), "starttls" if number % 2 else "implicit")
            sock = socket.create_connection(address)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if number % 3:
                sock.sendall(b"\x16\x03\x01")
            sock.close()
    client = attack.secure("imap")
    client.say(b"c CAPABILITY\r\n")
    client.hear(WORDS["imap"].hello_)
    client.socket.close()
    wait_until(lambda: attack.gateway.descriptors <= before)


def test_K13_when_the_backend_is_down_everybody_hears_so(
    tmp_path: Path, identity: Identity, trusting: ssl.SSLContext
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dead = f"127.0.0.1:{taken.getsockname()[1]}"
    services = [Service(name, dead, name) for name in PROTOCOLS]
    with running(tmp_path, identity, services) as gateway:
        for protocol in PROTOCOLS:
            clients = [Client(gateway.address(protocol)) for _ in range(40)]
            for client in clients:
                with client:
                    assert client.rest() == WORDS[protocol].unavailable
        gateway.log.wait("session", count=120)
