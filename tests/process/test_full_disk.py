"""The log cannot be written for a while: no session is harmed, and the log says afterwards what is missing."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.app.control.messages import Request
from gateway.cli.steer.command import Unreachable, ask
from tests.process.legacy import imap
from tests.process.recording import Backend
from tests.process.running import DEADLINE, ROOT, Identity, parse
from tests.process.wire import Client
from tests.process.words import WORDS


def status(directory: Path, workers: int) -> Any:
    """As soon as all workers serve."""
    until = time.monotonic() + DEADLINE
    while True:
        with suppress(Unreachable):
            answer = ask(f"{directory}/control", Request("status"))
            if answer.good and len(answer.result["processes"]) == workers:
                return answer.result
        assert time.monotonic() < until


def visit(address: str) -> None:
    host, _, port = address.rpartition(":")
    with Client((host, int(port))) as client:
        client.hear(WORDS["imap"].greeting_)
        client.say(b"a LOGOUT\r\n")
        assert client.rest().startswith(b"* BYE")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_costs_lines_and_no_session(tmp_path: Path, identity: Identity, workers: int) -> None:
    backend = Backend(imap())
    log = tmp_path / "gateway.log"
    file = tmp_path / "gateway.ini"
    file.write_text(
        f"[gateway]\nhostname = gw.example.test\nworkers = {workers}\ncontrol = {tmp_path}/control\n"
        f"[tls]\ncertificate = {identity.certificate}\n"
        f"[service:imap]\nstarttls = 127.0.0.1:0\nbackend = {backend.address}\n"
    )
    command = [sys.executable, "-m", "gateway.cli", "run", f"--logfile={log}", str(file)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            address = status(tmp_path, workers)["services"][0]["listeners"][0]["address"]
            visit(address)
            until = time.monotonic() + DEADLINE
            while "event=session" not in log.read_text():
                assert time.monotonic() < until
            # As a full disk, but for this process alone: the next line fits only in part.
            room = log.stat().st_size + 20
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
            for _ in range(3):
                visit(address)
            until = time.monotonic() + DEADLINE
            while log.stat().st_size < room:
                assert time.monotonic() < until
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            visit(address)
            while "event=log-lines-lost" not in log.read_text():
                assert time.monotonic() < until
                visit(address)
            told = [parse(line) for line in log.read_text().splitlines()]
            (lost,) = [one for one in told if one.get("event") == "log-lines-lost"]
            assert int(lost["count"]) >= 1
            assert lost["detail"] == "File too large"
            # The line that fitted in part stands alone.
            assert [one for one in told if "event" not in one] == [one for one in told if len(one) < 2]
        finally:
            process.terminate()
            assert process.wait(DEADLINE) == 0
            backend.close()
