"""ACAP through the gateway.  The server and the client are ours: no others are left."""

from __future__ import annotations

import ssl
from pathlib import Path

from tests.process.looking import at, checked, probed
from tests.process.recording import Backend, Connection
from tests.process.running import Identity, Service, running
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
        good = probed("acap", at(gateway, "acap"), identity.authority)
        assert good["findings"] == []
        assert good["starttls"]["runs_injected_commands"] is False
        assert "SASL PLAIN" not in good["capabilities"]["clear"]
        assert "SASL PLAIN" in good["capabilities"]["tls"]
    bad = probed("acap", backend.address, None, "--timeout", "1")
    assert bad["names"] == {"credentials-in-the-clear", "tls-failed"}
    backend.close()


def test_check_says_that_it_is_experimental(tmp_path: Path, identity: Identity) -> None:
    backend = Backend(server)
    done = checked(tmp_path, identity, "acap", f"address = {backend.address}")
    backend.close()
    assert "acap is experimental: no server and no client of ACAP is left" in done.stdout, done.stdout + done.stderr
    assert "AUTHENTICATE PLAIN" in done.stdout
