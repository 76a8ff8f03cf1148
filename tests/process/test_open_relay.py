"""S30 between real sockets: an SMTP backend that would relay for the gateway's address is served to nobody."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from tests.process.legacy import smtp
from tests.process.recording import Backend
from tests.process.running import Identity, Service, running
from tests.process.wire import Client
from tests.process.words import WORDS

DENIED = b"554 5.7.1 Relay access denied\r\n"


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_S30_who_comes_to_an_open_relay_is_turned_away(
    tmp_path: Path, identity: Identity, trusting: ssl.SSLContext, mode: str
) -> None:
    backend = Backend(smtp())
    with running(tmp_path, identity, [Service("smtp", backend.address, watched=True)]) as gateway:
        told = gateway.log.wait("open-relay")
        assert told["address"] == backend.address
        assert "allow_relay" in told["cure"]
        backend.connection().wait_until_ended()
        with Client(gateway.address("smtp", mode)) as client:
            if mode == "implicit":
                client.shake_hands(trusting)
            assert client.rest() == WORDS["smtp"].unavailable
        assert gateway.log.wait("session")["reason"] == "open-relay"
        assert backend.connections.empty(), "nobody got to the backend"
    backend.close()


def test_S30_services_in_front_of_one_backend_have_one_watch(tmp_path: Path, identity: Identity) -> None:
    backend = Backend(smtp({b"RCPT": DENIED}))
    services = [
        Service("smtp", backend.address, watched=True),
        Service("submission", backend.address, "smtp", watched=True),
    ]
    with running(tmp_path, identity, services) as gateway:
        gateway.log.wait("relay-closed")
        assert b"RCPT" in backend.connection().heard
        for service in ("smtp", "submission"):
            with Client(gateway.address(service)) as client:
                assert client.line() == b"220 legacy.example.test ESMTP\r\n"
    backend.close()


def test_a_relay_that_is_meant_is_not_asked(tmp_path: Path, identity: Identity) -> None:
    backend = Backend(smtp())
    options = {"backend:meant": {"address": backend.address, "allow_relay": "yes"}}
    with (
        running(tmp_path, identity, [Service("smtp", "meant")], options=options) as gateway,
        Client(gateway.address("smtp")) as client,
    ):
        assert client.line().startswith(b"220 ")
        assert backend.connection().heard == b""
        assert backend.connections.empty()
    backend.close()
