"""ACAP through the gateway.  The server and the client are ours: no others are left."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.process.recording import Backend, Connection
from tests.process.running import DEADLINE, ROOT, Identity, Service, running
from tests.process.wire import Client

GREETING = b'* ACAP (IMPLEMENTATION "old") (SASL "PLAIN" "EXTERNAL") (STARTTLS)\r\n'
CLEAR = b'* ACAP (IMPLEMENTATION "old") (STARTTLS)\r\n'
INSIDE = b'* ACAP (IMPLEMENTATION "old") (SASL "PLAIN")\r\n'
GO_AHEAD = b's OK "Begin TLS negotiation now"\r\n'
PLAIN = b"\0grete\0Zaunkoenig-77-im-Schacht"


def server(connection: Connection) -> None:
    """Lets the one user in, and then says back what it hears."""
    connection.say(GREETING)
    while line := connection.line():
        tag, verb, *_ = [*line.split(), b""]
        if verb == b"AUTHENTICATE":
            connection.say(b'+ ""\r\n')
            connection.line()
            heard = connection.take(len(PLAIN) + 2)
            if heard == PLAIN + b"\r\n":
                connection.say(tag + b' OK "in"\r\n')
                while octets := connection.take(1):
                    connection.say(octets)
        connection.say((b'* BYE "bye"\r\n' if verb == b"LOGOUT" else b"") + tag + b' OK "Done"\r\n')


def test_sessions_of_both_kinds(tmp_path: Path, identity: Identity, trusting: ssl.SSLContext) -> None:
    backend = Backend(server)
    services = [Service("acap", backend.address)]
    with running(tmp_path, identity, services) as gateway:
        assert gateway.log.wait("listening")["experimental"] == "yes"
        for mode in ("starttls", "implicit"):
            with Client(gateway.address("acap", mode)) as client:
                if mode == "starttls":
                    assert client.line() == CLEAR
                    client.say(b'a AUTHENTICATE "PLAIN"\r\n')
                    assert client.line() == b'a NO (ENCRYPT-NEEDED) "Must issue a STARTTLS command first"\r\n'
                    client.say(b"s STARTTLS\r\n")
                    assert client.line() == GO_AHEAD
                client.shake_hands(trusting)
                assert client.line() == INSIDE
                client.say(b"n NOOP\r\n")
                assert client.line() == b'n OK "Done"\r\n'
                client.say(b'a AUTHENTICATE "PLAIN"\r\n')
                assert client.line() == b'+ ""\r\n'
                client.say(b"{%d+}\r\n%s\r\n" % (len(PLAIN), PLAIN))
                assert client.line() == b'a OK "in"\r\n'
                client.say(b"\0any\roctets\n")
                assert client.hear(rb"\n") == b"\0any\roctets\n"
        for behind in (b"n NOOP\r\n", b"n", b"\r\n"):
            with Client(gateway.address("acap")) as client:
                assert client.line() == CLEAR
                client.say(b"s STARTTLS\r\n" + behind)
                assert client.rest() == GO_AHEAD
            gateway.log.wait("starttls-injection")
        host, port = gateway.address("acap")
        good = probed(f"localhost:{port}", "--ca", str(identity.authority))
        assert good["findings"] == [], host
        assert good["starttls"]["runs_injected_commands"] is False
        assert "SASL PLAIN" not in good["capabilities"]["clear"]
        assert "SASL PLAIN" in good["capabilities"]["tls"]
    bad = probed(backend.address, "--timeout", "1")
    assert {each["finding"] for each in bad["findings"]} == {"credentials-in-the-clear", "tls-failed"}
    backend.close()


def probed(address: str, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "probe", "acap", address, "--json", "--timeout", "5", *options],
        cwd=ROOT, capture_output=True, text=True, timeout=3 * DEADLINE, check=False,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_check_says_that_it_is_experimental(tmp_path: Path, identity: Identity) -> None:
    backend = Backend(server)
    file = tmp_path / "gateway.ini"
    file.write_text(
        f"[gateway]\nhostname = localhost\n[tls]\ncertificate = {identity.certificate}\n"
        f"[service:acap]\nstarttls = 127.0.0.1:0\nbackend = {backend.address}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "check", str(file), "--live"],
        cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    backend.close()
    assert "acap is experimental: no server and no client of ACAP is left" in done.stdout, done.stdout + done.stderr
    assert "AUTHENTICATE PLAIN" in done.stdout
