"""A new program takes over from the old one: nobody is refused, no session is lost, and a bad one changes nothing."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.process.conftest import directory_for_servers
from tests.process.legacy import imap
from tests.process.recording import Backend
from tests.process.running import DEADLINE, Gateway, Identity, Service, launch
from tests.process.wire import Client
from tests.process.words import WORDS

WORDS_ = WORDS["imap"]


@pytest.fixture
def backend() -> Iterator[Backend]:
    made = Backend(imap())
    yield made
    made.close()


class Line:
    """A gateway and those that succeed it; all of them write to one log."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.pid = gateway.process.pid

    def upgrade(self) -> int:
        """The process that serves now."""
        since = self.gateway.log.mark()
        os.kill(self.pid, signal.SIGUSR2)
        told = self.gateway.log.wait("upgrade", since, state="done")
        self.pid = int(told["pid"])
        return self.pid

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGTERM)
        wait_until_gone(self.pid)
        # The first one ends with its last session.
        self.gateway.end()


@contextmanager
def line(
    directory: Path,
    identity: Identity,
    backend: Backend,
    workers: int = 1,
    user: str = "",
    control: str = "off",
    users_key: str = "",
    **limits: str,
) -> Iterator[Line]:
    """`users_key`: the file by which the log tells users."""
    named = {"log_users": "hashed", "users_key": users_key} if users_key else {}
    gateway_ = {"workers": str(workers), "old_sessions": "20 s", "drain": "2 s", "control": control, **named}
    options = {"gateway": gateway_, "limits": limits}
    gateway = launch(directory, identity, [Service("imap", backend.address)], options, user=user)
    if workers > 1:
        gateway.log.wait("worker", count=workers, state="serving")
    made = Line(gateway)
    try:
        yield made
        made.stop()
    finally:
        for pid in {made.pid, *(int(one["pid"]) for one in gateway.log.events("upgrade") if "pid" in one)}:
            if pid != gateway.process.pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        gateway.kill()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pid: int) -> None:
    until = time.monotonic() + DEADLINE
    while is_running(pid):
        assert time.monotonic() < until
        time.sleep(0.02)


def enter(gateway: Gateway, trusting: ssl.SSLContext) -> Client:
    client = Client(gateway.address("imap", "implicit"))
    client.shake_hands(trusting)
    client.hear(WORDS_.greeting_)
    client.say(WORDS_.login)
    client.hear(WORDS_.login_)
    return client


def is_alive(client: Client) -> None:
    client.say(b"n NOOP\r\n")
    assert client.line() == b"n OK NOOP by the backend\r\n"


def rewrite(directory: Path, old: str, new: str) -> None:
    file = directory / "gateway.ini"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize("workers", [1, 2])
def test_sessions_go_on_in_the_old_program_and_new_ones_begin_in_the_new(
    tmp_path: Path, identity: Identity, backend: Backend, trusting: ssl.SSLContext, workers: int
) -> None:
    with line(tmp_path, identity, backend, workers) as gateways:
        gateway = gateways.gateway
        rewrite(tmp_path, "hostname = gw.example.test", "hostname = new.example.test")
        with enter(gateway, trusting) as old:
            fresh = gateways.upgrade()
            assert fresh != gateway.process.pid
            gateway.log.wait("stopping", sessions="1")
            with enter(gateway, trusting) as new:
                for client in (old, new):
                    is_alive(client)
                assert gateway.process.poll() is None
                old.socket.close()
                assert gateway.process.wait(DEADLINE) == 0
                is_alive(new)
        # What it signs with is the new file's hostname: the new program has read it.
        assert gateway.log.events("listening")[-1]["address"].endswith(str(gateway.address("imap", "implicit")[1]))


@pytest.mark.parametrize("workers", [1, 2])
def test_upgrades_in_a_row_under_load_refuse_nobody(
    tmp_path: Path, identity: Identity, backend: Backend, workers: int
) -> None:
    with line(tmp_path, identity, backend, workers) as gateways:
        counts: Counter[str] = Counter()
        over = threading.Event()

        def come_and_go() -> None:
            while not over.is_set():
                try:
                    with socket.create_connection(gateways.gateway.address("imap"), DEADLINE) as sock:
                        counts["greeted" if sock.recv(4096).startswith(b"* OK") else "sent away"] += 1
                except OSError as wrong:
                    counts[type(wrong).__name__] += 1

        threads = [threading.Thread(target=come_and_go) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            former = [gateways.pid]
            for _ in range(3):
                former.append(gateways.upgrade())
        finally:
            over.set()
            for thread in threads:
                thread.join()
        for pid in former[:-1]:
            if pid != gateways.gateway.process.pid:
                wait_until_gone(pid)
        print(dict(counts))
        assert counts["greeted"] > 50
        assert set(counts) == {"greeted"}, counts


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("old", "new", "why"), [
    ("drain = 2 s", "drain = never", "[gateway] drain"),
    ("backend = ", "certificate = none.pem\nbackend = ", "none.pem"),
])  # fmt: skip
def test_a_new_program_that_does_not_come_up_changes_nothing(
    tmp_path: Path,
    identity: Identity,
    backend: Backend,
    trusting: ssl.SSLContext,
    workers: int,
    old: str,
    new: str,
    why: str,
) -> None:
    with line(tmp_path, identity, backend, workers) as gateways:
        gateway = gateways.gateway
        with enter(gateway, trusting) as client:
            rewrite(tmp_path, old, new)
            gateway.process.send_signal(signal.SIGUSR2)
            assert why in gateway.log.wait("upgrade", state="failed")["detail"]
            is_alive(client)
            enter(gateway, trusting).socket.close()
            rewrite(tmp_path, new, old)
            gateways.upgrade()
            is_alive(client)


@pytest.mark.parametrize("workers", [1, 2])
def test_limits_hold_over_both_programs(
    tmp_path: Path, identity: Identity, backend: Backend, trusting: ssl.SSLContext, workers: int
) -> None:
    limits = {"sessions_per_client": "3", "connects_per_minute": "6"}
    with line(tmp_path, identity, backend, workers, **limits) as gateways:
        gateway = gateways.gateway
        inside = [enter(gateway, trusting), enter(gateway, trusting)]
        gateways.upgrade()
        inside.append(enter(gateway, trusting))
        with Client(gateway.address("imap")) as refused:
            assert refused.rest().startswith(b"* BYE")
        assert gateway.log.wait("refused")["limit"] == "sessions-per-client"
        for client in inside:
            client.socket.close()
        gateway.log.wait("session", count=3)
        assert gateway.process.wait(DEADLINE) == 0
        # Six in this minute, whoever counted them.
        inside = [enter(gateway, trusting) for _ in range(3)]
        with Client(gateway.address("imap")) as refused:
            assert refused.rest().startswith(b"* BYE")
        assert gateway.log.wait("refused", count=2)["limit"] == "connects-per-minute"
        for client in inside:
            client.socket.close()


def nobody_can_start_us() -> bool:
    if os.geteuid() != 0:
        return False
    try:
        return subprocess.run([sys.executable, "-c", ""], user="nobody", cwd="/", check=False).returncode == 0
    except PermissionError:
        return False


@pytest.mark.skipif(not nobody_can_start_us(), reason="root is needed, and a Python that others may run")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_program_that_gave_up_its_rights_hands_over_too(backend: Backend, workers: int) -> None:
    with directory_for_servers() as directory:
        identity = Identity.issue(directory)
        identity.certificate.chmod(0o644)
        context = ssl.create_default_context(cafile=str(identity.authority))
        with line(directory, identity, backend, workers, user="nobody") as gateways:
            (directory / "gateway.ini").chmod(0o644)
            directory.chmod(0o755)
            gateways.upgrade()
            enter(gateways.gateway, context).socket.close()


def test_an_upgrade_at_a_time(tmp_path: Path, identity: Identity, backend: Backend) -> None:
    with line(tmp_path, identity, backend) as gateways:
        log = gateways.gateway.log
        gateways.gateway.process.send_signal(signal.SIGUSR2)
        log.wait("upgrade", state="started")
        gateways.gateway.process.send_signal(signal.SIGUSR2)
        assert log.wait("signal", count=2, signal="SIGUSR2")["detail"] == "an upgrade is under way"
        gateways.pid = int(log.wait("upgrade", state="done")["pid"])
