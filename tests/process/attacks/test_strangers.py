"""Attacks C of docs/conformance.md: other protocols, and names in the handshake."""

from __future__ import annotations

import random
import ssl
from pathlib import Path

import pytest

from tests.process.attacks.conftest import Attack
from tests.process.legacy import imap
from tests.process.recording import Backend, Connection
from tests.process.running import Identity, Service, running
from tests.process.secured import presenting, shake_hands
from tests.process.wire import Client
from tests.process.words import WORDS

each_protocol = pytest.mark.parametrize("protocol", WORDS)
each_mode = pytest.mark.parametrize("mode", ["starttls", "implicit"])


@each_protocol
def test_C4_markup_is_not_sent_back_before_tls(attack: Attack, protocol: str) -> None:
    for words in (b"<script>alert(1)</script> NOOP\r\n", b"NOOP <script>\r\n", b"USER <script>\r\n", b"a <script>\r\n"):
        client = attack.connect(protocol)
        client.say(words)
        client.finish()
        assert b"<script>" not in client.rest()


def test_C6_a_session_of_one_service_is_not_resumed_at_another(attack: Attack) -> None:
    first = attack.enter("imap", "implicit")
    session = first.tls.session
    second = attack.connect("pop3", "implicit", greeted=False)
    second._tls = attack.trusting.wrap_bio(
        second._incoming, second._outgoing, server_hostname="mail.example.test", session=session
    )
    tls = second._tls
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            second._flush()
            assert second._feed()
    second._flush()
    assert not tls.session_reused


def test_C7_towards_the_backend_none_is_offered(tmp_path: Path, identity: Identity, trusting: ssl.SSLContext) -> None:
    context = presenting(identity.certificate)
    context.set_alpn_protocols(["imap", "h2"])
    agreed: list[str | None] = []

    def script(connection: Connection) -> None:
        shake_hands(connection, context)
        assert isinstance(connection.socket, ssl.SSLSocket)
        agreed.append(connection.socket.selected_alpn_protocol())
        imap()(connection)

    backend = Backend(script)
    host, _, port = backend.address.rpartition(":")
    section = {"address": f"localhost:{port}", "tls": "implicit", "ca": str(identity.authority)}
    assert host == "127.0.0.1"
    with running(
        tmp_path, identity, [Service("imap", "old", modes=("implicit",))], {"backend:old": section}
    ) as gateway:
        with Client(gateway.address("imap", "implicit")) as client:
            client.shake_hands(trusting)
            client.hear(WORDS["imap"].greeting_)
        gateway.log.wait("session")
    backend.close()
    assert agreed == [None]


NOISE = {
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "rdp": b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00",
    "redis": b"*1\r\n$4\r\nPING\r\n",
    "smb": b"\x00\x00\x00\x85\xffSMBr\x00\x00\x00\x00",
    "proxy 1": b"PROXY TCP4 10.0.0.1 10.0.0.2 1 25\r\n",
    "proxy 2": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12),
    "random": random.Random(7).randbytes(4096).replace(b"\x16", b"y"),
    "lines": b"\n" * 4096,
}


@pytest.mark.parametrize("noise", NOISE)
@each_mode
@each_protocol
def test_C8_noise_is_answered_with_few_words_and_fewer_lines(
    attack: Attack, protocol: str, mode: str, noise: str
) -> None:
    client = attack.connect(protocol, mode)
    client.say(NOISE[noise])
    client.finish()
    assert len(client.rest()) < 8192
    attack.wait("session")
    lines = attack.gateway.log.text.count("\n") - attack.since
    assert lines < 30
    assert b"10.0.0.1" not in attack.visit(protocol).heard
