"""What systemd hears (sd_notify(3)), and that nobody else hears anything."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from gateway.app.notify import Notifier


class Listening:
    """The socket that systemd gives a service."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(path)

    def hear(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.socket.recv(4096).decode().split("\n"))

    def silent(self) -> bool:
        try:
            self.socket.recv(4096)
        except BlockingIOError:
            return True
        return False


@pytest.fixture(params=["a path", "an abstract name"])
def place(request: pytest.FixtureRequest, directory: Path) -> str:
    return str(directory / "notify") if request.param == "a path" else f"@notify-{os.getpid()}"


@pytest.fixture
def systemd(place: str) -> Iterator[Listening]:
    listening = Listening(place.replace("@", "\0"))
    with listening.socket:
        yield listening


def opened(environment: Mapping[str, str]) -> Notifier:
    notifier = Notifier(environment)
    notifier.open()
    notifier.open()
    return notifier


def test_systemd_hears_of_start_reload_and_stop(systemd: Listening, place: str) -> None:
    notifier = opened({"NOTIFY_SOCKET": place})
    notifier.ready("serving 0 sessions")
    assert systemd.hear() == {"READY": "1", "MAINPID": str(os.getpid()), "STATUS": "serving 0 sessions"}
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    told = systemd.hear()
    assert told["RELOADING"] == "1"
    assert before <= int(told["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    notifier.stopping("draining")
    assert systemd.hear() == {"STOPPING": "1", "STATUS": "draining"}
    notifier.close()
    notifier.close()
    notifier.ready("nobody hears this")
    assert systemd.silent()


def test_a_status_is_told_where_it_has_changed(systemd: Listening, place: str) -> None:
    notifier = opened({"NOTIFY_SOCKET": place})
    notifier.ready("serving 0 sessions")
    systemd.hear()
    notifier.status("serving 0 sessions")
    assert systemd.silent()
    notifier.status("serving 1 session")
    assert systemd.hear() == {"STATUS": "serving 1 session"}
    notifier.close()


@pytest.mark.parametrize(("environment", "seconds"), [
    ({}, None),
    ({"WATCHDOG_USEC": "30000000"}, 15.0),
    ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
    ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
    ({"WATCHDOG_USEC": "0"}, None),
    ({"WATCHDOG_USEC": "soon"}, None),
])  # fmt: skip
def test_the_heart_beats_twice_in_the_time_of_the_watchdog(
    systemd: Listening, place: str, environment: Mapping[str, str], seconds: float | None
) -> None:
    notifier = opened({"NOTIFY_SOCKET": place, **environment})
    assert notifier.watchdog == seconds
    notifier.beat()
    assert systemd.hear() == {"WATCHDOG": "1"}
    notifier.close()
    assert notifier.watchdog is None


@pytest.mark.parametrize("path", ["", "vsock:2:1234", "/nonexistent/notify"])
def test_without_systemd_nobody_is_told(path: str) -> None:
    notifier = opened({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000000"})
    notifier.ready("serving")
    notifier.beat()
    assert notifier.watchdog is None


def test_who_does_not_listen_any_more_harms_nothing(systemd: Listening, place: str) -> None:
    notifier = opened({"NOTIFY_SOCKET": place})
    systemd.socket.close()
    notifier.ready("serving")
    notifier.close()
