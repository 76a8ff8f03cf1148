"""`starttls-gateway run FILE`: the foreground without twistd's command line, and what systemd hears of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.process.conftest import directory_for_servers
from tests.process.running import DEADLINE, LIFE, ROOT, Gateway, Identity, Systemd

_RUN = """
import signal
signal.alarm({life})
from gateway.cli.__main__ import main
raise SystemExit(main())
"""


@contextmanager
def ran(directory: Path, *options: str, environment: dict[str, str] | None = None) -> Iterator[Gateway]:
    process = subprocess.Popen(
        [sys.executable, "-c", _RUN.format(life=LIFE), "run", str(directory / "gw.ini"), *options],
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
