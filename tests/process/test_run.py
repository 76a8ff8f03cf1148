"""`starttls-gateway run FILE`: the foreground without twistd's command line, and what systemd hears of it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.process.conftest import directory_for_servers
from tests.process.running import DEADLINE, LIFE, ROOT, Gateway, Identity, Systemd

_RUN = """
import signal
signal.alarm({life})
from gateway.cli.__main__ import main
raise SystemExit(main())
"""


# systemd passes descriptors from 3 on, and names the process that they are for.
_PASS = 'exec 3<&"$1"; [ "$1" = 3 ] || eval "exec $1<&-"; shift; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'


@contextmanager
def ran(
    directory: Path, *options: str, environment: dict[str, str] | None = None, passed: socket.socket | None = None
) -> Iterator[Gateway]:
    """`passed`: a socket of systemd's."""
    number = 0 if passed is None else passed.fileno()
    process = subprocess.Popen(
        [
            *(() if passed is None else ("bash", "-c", _PASS, "bash", str(number))),
            *(sys.executable, "-c", _RUN.format(life=LIFE), "run", str(directory / "gw.ini"), *options),
        ],
        pass_fds=() if passed is None else (number,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=directory,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(directory), **(environment or {})},
    )
    gateway = Gateway(process, 1)
    try:
        yield gateway
    finally:
        gateway.kill()


@pytest.fixture
def directory(identity: Identity) -> Iterator[Path]:
    with directory_for_servers() as directory:
        (directory / "gw.ini").write_text(
            f"[gateway]\nhostname = gw.example.test\ncontrol = off\n[tls]\ncertificate = {identity.certificate}\n"
            "[service:imap]\nstarttls = 127.0.0.1:0\nbackend = 127.0.0.1:1\n"
        )
        yield directory


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_runs_in_the_foreground_until_a_signal(directory: Path, number: signal.Signals) -> None:
    with ran(directory, "--pidfile", "gw.pid") as gateway:
        gateway.await_listening()
        assert int((directory / "gw.pid").read_text()) == gateway.process.pid
        gateway.process.send_signal(number)
        gateway.end()
    assert not (directory / "gw.pid").exists()


def test_its_log_may_be_a_file(directory: Path) -> None:
    systemd = Systemd(directory / "notify")
    environment = {"NOTIFY_SOCKET": str(systemd.path)}
    with systemd.socket, ran(directory, "--logfile", "gw.log", environment=environment) as gateway:
        systemd.hear("READY")
        assert " event=listening " in (directory / "gw.log").read_text()
        gateway.terminate()
        gateway.end()


def test_mistakes_are_one_line_each(directory: Path) -> None:
    file = directory / "gw.ini"
    file.write_text(file.read_text().replace("[tls]", "drain = soon\nworkers = many\n[tls]"))
    with ran(directory) as gateway:
        assert gateway.process.wait(DEADLINE) == 1
    lines = gateway.errors.text.splitlines()
    assert [line.partition(": [gateway] ")[2].partition(":")[0] for line in lines] == ["drain", "workers"]
    with ran(directory, "--uid", "no-such-user") as gateway:
        assert gateway.process.wait(DEADLINE) == 1
    assert gateway.errors.text.startswith("starttls-gateway: --uid no-such-user: there is no such user")


def test_systemd_hears_of_start_reload_watchdog_and_stop(directory: Path) -> None:
    systemd = Systemd(directory / "notify")
    environment = {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "200000"}
    with systemd.socket, ran(directory, environment=environment) as gateway:
        told = systemd.hear("READY")
        assert told["STATUS"] == "serving 0 sessions"
        assert int(told["MAINPID"]) == gateway.process.pid
        systemd.hear("WATCHDOG")
        gateway.process.send_signal(signal.SIGHUP)
        assert int(systemd.hear("RELOADING")["MONOTONIC_USEC"]) > 0
        assert systemd.hear("READY")["STATUS"] == "serving 0 sessions"
        (directory / "gw.ini").write_text("nonsense")
        gateway.process.send_signal(signal.SIGHUP)
        systemd.hear("RELOADING")
        assert systemd.hear("READY")["STATUS"] == "serving 0 sessions; the last reload was refused"
        gateway.terminate()
        assert systemd.hear("STOPPING")["STATUS"].startswith("draining: 0 sessions, ")
        gateway.end()


def hear_of_store(systemd: Systemd) -> tuple[bytes, list[int]]:
    """The next message about the store of descriptors, with what came with it."""
    systemd.socket.settimeout(DEADLINE)
    while True:
        said, descriptors, _, _ = socket.recv_fds(systemd.socket, 4096, 8)
        if said.startswith(b"FDSTORE"):
            return said, descriptors


def test_systemd_keeps_listening_sockets_over_a_restart(directory: Path) -> None:
    port, other = free_port(), free_port()
    file = directory / "gw.ini"
    text = file.read_text()
    file.write_text(text.replace("127.0.0.1:0", f"127.0.0.1:{port}"))
    systemd = Systemd(directory / "notify")
    environment = {"NOTIFY_SOCKET": str(systemd.path), "FDSTORE": "8"}
    name = f"listen=127.0.0.1,{port}=127.0.0.1,{port}"
    with systemd.socket:
        with ran(directory, environment=environment) as gateway:
            said, descriptors = hear_of_store(systemd)
            assert said == f"FDSTORE=1\nFDNAME={name}".encode()
            gateway.terminate()
            gateway.end()
        (descriptor,) = descriptors
        with socket.socket(fileno=descriptor) as kept:
            # Between two programs: nobody accepts, and nobody refuses.
            with socket.create_connection(("127.0.0.1", port), DEADLINE) as waiting:
                environment["LISTEN_FDNAMES"] = name
                with ran(directory, environment=environment, passed=kept) as gateway:
                    gateway.await_listening()
                    assert waiting.recv(4096)
                    # It is in the store already, until the file does not want it any more.
                    file.write_text(text.replace("127.0.0.1:0", f"127.0.0.1:{other}"))
                    gateway.process.send_signal(signal.SIGHUP)
                    assert hear_of_store(systemd)[0] == f"FDSTOREREMOVE=1\nFDNAME={name}".encode()
                    said, descriptors = hear_of_store(systemd)
                    assert said.startswith(b"FDSTORE=1\n")
                    gateway.terminate()
                    gateway.end()
            for number in descriptors:
                socket.socket(fileno=number).close()
            # A program whose file does not name the address does not keep it.
            with ran(directory, environment=environment, passed=kept) as gateway:
                assert hear_of_store(systemd)[0] == f"FDSTOREREMOVE=1\nFDNAME={name}".encode()
                kept.close()
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port), DEADLINE)
                gateway.terminate()
                gateway.end()
