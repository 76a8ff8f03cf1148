"""A reload and an upgrade in the middle of an upload: it goes on to its end, and so does its session."""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.process.ftptalk import Passive, Stage, Talk, received, stage
from tests.process.running import Gateway, Identity, Service, launch, wait_until_gone

HALF = os.urandom(1024 * 1024)


@pytest.fixture
def server() -> Iterator[Stage]:
    with stage() as found:
        yield found


@contextmanager
def started(directory: Path, identity: Identity, server: Stage, workers: int) -> Iterator[Gateway]:
    """A gateway, which is ended with whoever has taken over from it."""
    common = {"workers": str(workers), "old_sessions": "20 s", "control": f"{directory}/control"}
    options = {"protection": "optional"}
    gateway = launch(
        directory, identity, [Service("ftp", server.backend.address, options=options)], {"gateway": common}
    )
    try:
        if workers > 1:
            gateway.log.wait("worker", count=workers, state="serving")
        yield gateway
    finally:
        for told in gateway.log.events("upgrade"):
            with suppress(ProcessLookupError):
                os.kill(int(told["pid"]), signal.SIGTERM)
                wait_until_gone(int(told["pid"]))
        gateway.kill()


def act(gateway: Gateway, how: str) -> None:
    """The new file says that data has to be protected."""
    file = gateway.file
    text = file.read_text()
    assert "protection = optional" in text
    file.write_text(text.replace("protection = optional", "protection = required"))
    since = gateway.log.mark()
    gateway.process.send_signal(signal.SIGHUP if how == "reload" else signal.SIGUSR2)
    if how == "reload":
        assert gateway.log.wait("reload", since)["result"] == "ok"
    else:
        gateway.log.wait("upgrade", since, state="done")


def uploads(talk: Talk, port: Passive | None = None) -> None:
    """A whole one in the same session."""
    client, sock = (port or talk.passive()).connect()
    talk.begin(b"STOR b")
    client.say(HALF)
    client.close_notify()
    assert received(sock) == (HALF, "fin")
    sock.close()
    assert client.rest() == b""
    talk.reply(b"226 done")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("how", ["reload", "upgrade"])
def test_a_transfer_goes_on(
    tmp_path: Path, identity: Identity, server: Stage, trusting: ssl.SSLContext, how: str, workers: int
) -> None:
    with (
        started(tmp_path, identity, server, workers) as gateway,
        Talk(gateway, server, trusting) as talk,
        Talk(gateway, server, trusting) as waiting,
    ):
        port = waiting.passive()  # nobody is connected yet
        client, sock = talk.passive().connect()
        talk.begin(b"STOR a")
        client.say(HALF)
        act(gateway, how)
        client.say(HALF)
        client.close_notify()
        assert received(sock) == (HALF + HALF, "fin")
        sock.close()
        assert client.rest() == b""
        talk.reply(b"226 done")
        uploads(waiting, port)
        # These sessions keep what they began with, and new ones have what the new file says.
        uploads(talk)
        talk.own(b"PROT C", b"200 Protection set to C")
        with Talk(gateway, server, trusting) as new:
            new.own(b"PROT C", b"534 Data connection must be protected")
            uploads(new)
