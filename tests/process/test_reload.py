"""SIGHUP: the file of a running process is read again, and a process without rights says what it cannot do."""

from __future__ import annotations

import signal
import ssl
from pathlib import Path

import pytest

from soak.reloads import reload_often, serving
from tests.ports import low_port
from tests.process.conftest import directory_for_servers
from tests.process.recording import Backend
from tests.process.running import Event, Gateway, Identity, Service, rewrite, running
from tests.process.wire import Client
from tests.process.words import WORDS


def hup(gateway: Gateway) -> Event:
    """The answer to SIGHUP, as the log tells it."""
    since = gateway.log.mark()
    gateway.process.send_signal(signal.SIGHUP)
    gateway.log.wait("signal", since, signal="SIGHUP")
    return gateway.log.wait("reload", since)


def test_a_changed_file_is_used_and_a_bad_one_is_not(
    tmp_path: Path, identity: Identity, trusting: ssl.SSLContext, backend: Backend
) -> None:
    words = WORDS["imap"]
    with (
        running(tmp_path, identity, [Service("imap", backend.address)]) as gateway,
        Client(gateway.address("imap", "implicit")) as client,
    ):
        client.shake_hands(trusting)
        client.hear(words.greeting_)
        client.say(words.hello)
        client.hear(words.hello_)
        client.say(words.login)
        client.hear(words.login_)
        rewrite(tmp_path, "[service:imap]", "[service:mailbox]")
        rewrite(tmp_path, "hostname = gw", "hostname = mx")
        said = hup(gateway)
        assert said["detail"] == "[gateway] changed | [service:imap] removed | [service:mailbox] added"
        # Both sockets are the new service's: no address has changed.
        assert "opened" not in said
        client.say(b"n NOOP\r\n")
        assert client.line() == b"n OK NOOP by the backend\r\n"
        rewrite(tmp_path, "starttls = 127.0.0.1:0", "starttls = nonsense")
        said = hup(gateway)
        assert (said["result"], said["problems"]) == ("refused", "1")
        assert "[service:mailbox] starttls" in said["detail"]
        with Client(gateway.address("imap")) as other:
            other.hear(words.greeting_)
            other.socket.close()
        ended = gateway.log.wait("session", service="mailbox")
        assert ended["phase"] == "plaintext"
        client.say(b"n NOOP\r\n")
        assert client.line() == b"n OK NOOP by the backend\r\n"


def test_reloads_under_load_refuse_and_lose_nobody() -> None:
    """`make reloads` is the long form: a hundred of them, and memory."""
    with directory_for_servers() as directory, serving(directory) as house:
        report, soak = reload_often(house, rounds=12, at_once=4)
        assert (report.wrong, report.good, report.refused) == ([], 6, 6)
        assert not soak.failed
        assert soak.done


@pytest.mark.usefixtures("root")
def test_a_process_without_rights_says_what_needs_a_restart(trusting: ssl.SSLContext, backend: Backend) -> None:
    with directory_for_servers() as directory:
        identity = Identity.issue(directory)
        identity.certificate.chmod(0o600)
        service = Service("imap", backend.address, modes=("implicit",))
        with running(directory, identity, [service], user="nobody") as gateway:
            file = directory / "gateway.ini"
            file.chmod(0o644)
            said = hup(gateway)
            # What is in use need not be readable any more.
            assert said["result"] == "ok"
            assert gateway.log.wait("certificate", state="unreadable")["detail"].startswith(str(identity.certificate))
            Client(gateway.address("imap", "implicit")).socket.close()
            port = low_port()
            rewrite(directory, "implicit = 127.0.0.1:0", f"implicit = 127.0.0.1:0 127.0.0.1:{port}")
            said = hup(gateway)
            assert said["result"] == "refused"
            assert (
                f"[service:imap] 127.0.0.1:{port}: the gateway has given up the rights to open it (EACCES); restart"
                in said["detail"]
            )
            key = directory / "other.pem"
            key.write_bytes(identity.certificate.read_bytes())
            key.chmod(0o600)
            rewrite(directory, f" 127.0.0.1:{port}", f"\ncertificate = {key}")
            assert "nobody, whom the gateway runs as, must be able to read it" in hup(gateway)["detail"]
            file.chmod(0o600)
            assert "nobody, whom the gateway runs as, may not read it; chgrp it" in hup(gateway)["detail"]
