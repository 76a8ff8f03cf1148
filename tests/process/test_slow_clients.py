"""Clients that want very little, or all there is: what they cost everybody else.

The slow ones are a small crowd: `make slow` has five thousand and the gateway's own deadlines.
"""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path
from statistics import median

from gateway.config.values import Timeouts
from soak.__main__ import backends
from soak.crowd import PROTOCOLS, Stage
from soak.front import end, serving
from soak.slow import crowd_out, visits
from tests.process.running import Identity, Service, running

CLIENTS = 200
TIMEOUTS = Timeouts(handshake=3.0, preauth=5.0)
PATIENT = Timeouts(preauth=8.0)
DOWNLOAD = """
import socket, ssl, sys
port, authority = int(sys.argv[1]), sys.argv[2]
trusting = ssl.create_default_context(cafile=authority)
sock = trusting.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")
sock.recv(4096)
sock.sendall(b"l LOGIN grete secret\\r\\n" + b"f FETCH 5000000 BODY[]\\r\\n" * 1000)
count = 0
while octets := sock.recv(1 << 20):
    if count < 20_000_000 <= count + len(octets):
        print("under way", flush=True)
    count += len(octets)
"""
"""More than anybody reads in a test, as fast as it comes."""


def test_K1_K2_K11_slow_clients_at_every_stage_keep_nobody_out_and_leave_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, TIMEOUTS) as (gateway, trusting):
        crowds = [crowd_out(gateway, trusting, CLIENTS, 0.5, 30, TIMEOUTS, settling=0) for _ in range(2)]
        # Each has a line of its own: none is cut off without a reason.
        gateway.log.wait("session", reason="client-timeout")
    for found in crowds:
        print(f"{found}\n")
        assert found.left == 0
        assert set(found.lasted) == {stage.value for stage in Stage}
        # The machine is not ours alone.
        assert max(found.late.values()) < 5.0
        assert found.latency < 2.0 or max(found.among) < 0.25
    assert crowds[1].after < 1.1 * crowds[0].after


def test_K1_slow_clients_in_the_clear_hear_why_they_have_to_go_and_fill_no_log(tmp_path: Path) -> None:
    with serving(tmp_path, PATIENT) as (gateway, trusting):
        crowds = [
            crowd_out(gateway, trusting, 500, PATIENT.preauth / 7, 15, PATIENT, settling=0, clear=True)
            for _ in range(2)
        ]
    for found in crowds:
        print(f"{found}\n")
        assert found.left == 0
        # The machine is not ours alone.
        assert median(found.among) < max(10 * median(found.alone), 1.0)
        assert max(found.late.values()) < PATIENT.preauth / 2
        assert found.goodbyes == {
            "smtp": ["421 4.4.2 gw.example.test Timeout exceeded\r\n"],
            "imap": ["* BYE Autologout; idle for too long\r\n"],
            "pop3": [""],  # RFC 1939 3
        }
        assert found.lines < 200
    assert crowds[1].after < 1.1 * crowds[0].after


def test_K11_one_fast_transfer_leaves_others_their_turn(
    tmp_path: Path, identity: Identity, trusting: ssl.SSLContext
) -> None:
    with backends(identity.certificate) as ports:
        services = [Service(name, f"127.0.0.1:{port}") for name, port in zip(PROTOCOLS, ports, strict=False)]
        with running(tmp_path, identity, services) as gateway:
            alone = visits(gateway, trusting, 60)
            port = str(gateway.address("imap", "implicit")[1])
            download = subprocess.Popen(
                [sys.executable, "-c", DOWNLOAD, port, str(identity.authority)], stdout=subprocess.PIPE
            )
            try:
                assert download.stdout is not None
                assert download.stdout.readline() == b"under way\n"
                among = visits(gateway, trusting, 60)
                assert download.poll() is None, "it was over too soon"
            finally:
                end(download)
    print(f"median {median(alone) * 1000:.1f} ms alone, {median(among) * 1000:.1f} ms beside it")
    # Three processes that would like to have two processors for themselves.
    assert median(among) < max(10 * median(alone), 0.25)
