"""A new program takes over from the old one: nobody is refused, no session is lost, and a bad one changes nothing."""

from __future__ import annotations

import grp
import itertools
import json
import os
import pwd
import shutil
import signal
import socket
import ssl
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.app.control.messages import Answer, Request
from gateway.cli.__main__ import main
from gateway.cli.steer.command import ask
from gateway.wire.listener import ACCEPTS
from tests.ports import free_ports, low_port
from tests.process.conftest import directory_for_servers
from tests.process.legacy import imap
from tests.process.meanwhile import Begun, at_once
from tests.process.programs import SYSTEM, need
from tests.process.recording import Backend
from tests.process.running import (
    DEADLINE,
    ROOT,
    Gateway,
    Identity,
    Service,
    launch,
    rewrite,
    wait_until,
    wait_until_gone,
)
from tests.process.wire import Client
from tests.process.words import WORDS

WORDS_ = WORDS["imap"]


class Line:
    """A gateway and those that succeed it; all of them write to one log."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.pid = gateway.process.pid
        self.killed = False
        """The first program did not end by itself."""

    def upgrade(self) -> int:
        """The process that serves now."""
        since = self.gateway.log.mark()
        os.kill(self.pid, signal.SIGUSR2)
        told = self.gateway.log.wait("upgrade", since, state="done")
        self.pid = int(told["pid"])
        return self.pid

    def stop(self) -> None:
        with suppress(ProcessLookupError):  # the test has ended it
            os.kill(self.pid, signal.SIGTERM)
        wait_until_gone(self.pid)
        if self.killed:
            assert self.gateway.process.wait(DEADLINE) == -signal.SIGKILL
            self.gateway.inspect()
        else:
            # The first one ends with its last session.
            self.gateway.end()


@dataclass(frozen=True)
class Program:
    """What is started, and started again."""

    python: str
    source: Path


@contextmanager
def line(
    directory: Path,
    identity: Identity,
    backend: Backend,
    workers: int = 1,
    user: str = "",
    group: str = "",
    pidfile: str = "",
    more: str = "",
    control: str = "",
    users_key: str = "",
    program: Program | None = None,
    limits: Mapping[str, str] | None = None,
    old_sessions: str = "20 s",
) -> Iterator[Line]:
    """`more`: another address to listen on; `users_key`: the file by which the log tells users."""
    common = {"workers": str(workers), "old_sessions": old_sessions, "drain": "2 s"}
    common["control"] = control or f"{directory}/control"
    if users_key:
        common |= {"log_users": "hashed", "users_key": users_key}
    options = {"gateway": common, "limits": limits or {}}
    services = [Service("imap", backend.address)]
    if more:
        services.append(Service("more", backend.address, "imap", (), {"implicit": more}))
    program = program or Program(sys.executable, ROOT)
    gateway = launch(
        directory,
        identity,
        services,
        options,
        user=user,
        group=group,
        pidfile=pidfile,
        python=program.python,
        source=program.source,
    )
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


Start = Callable[..., AbstractContextManager[Line]]


@pytest.fixture
def start(tmp_path: Path, identity: Identity, backend: Backend) -> Start:
    return partial(line, tmp_path, identity, backend)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def enter(gateway: Gateway, trusting: ssl.SSLContext, place: tuple[str, int] | None = None) -> Client:
    client = Client(place or gateway.address("imap", "implicit"))
    client.shake_hands(trusting)
    client.hear(WORDS_.greeting_)
    client.say(WORDS_.login)
    client.hear(WORDS_.login_)
    return client


def is_alive(client: Client) -> None:
    client.say(b"n NOOP\r\n")
    assert client.line() == b"n OK NOOP by the backend\r\n"


@pytest.mark.parametrize("workers", [1, 2])
def test_sessions_go_on_in_the_old_program_and_new_ones_begin_in_the_new(
    start: Start, tmp_path: Path, trusting: ssl.SSLContext, workers: int
) -> None:
    with start(workers) as gateways:
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
def test_commands_reach_the_sessions_of_old_programs(start: Start, trusting: ssl.SSLContext, workers: int) -> None:
    with directory_for_servers() as directory, ExitStack() as stack:
        control = str(directory / "control")
        gateways = stack.enter_context(start(workers, control=control))
        gateway = gateways.gateway
        inside = [stack.enter_context(enter(gateway, trusting))]
        for _ in range(2):
            gateways.upgrade()
            inside.append(stack.enter_context(enter(gateway, trusting)))

        def who() -> list[str]:
            answer = ask(control, Request("who"))
            assert answer.problems == ()
            return [row["id"] for row in answer.result["sessions"]]

        first, second, third = who()  # the oldest comes first
        answer = ask(control, Request("kick", first))
        assert (answer.problems, answer.result["sessions"]) == ((), 1)
        assert inside[0].rest() == b""
        assert gateway.process.wait(DEADLINE) == 0
        assert who() == [second, third]
        answer = ask(control, Request("kick", first))
        assert answer.problems == (f"there is no session {first}, and none of a client or a user {first}",)
        answer = ask(control, Request("ban", "127.0.0.1", kick=True))
        assert (answer.problems, answer.result["sessions"]) == ((), 2)
        for client in inside[1:]:
            assert client.rest() == b""
        assert who() == []


def test_an_old_program_whose_last_worker_ends_spoils_no_answer(
    start: Start, tmp_path: Path, trusting: ssl.SSLContext
) -> None:
    """It is asked, and its worker ends instead of answering; or it has ended before."""
    with start(workers=2) as gateways, enter(gateways.gateway, trusting):
        log, control = gateways.gateway.log, str(tmp_path / "control")
        old = {int(one["pid"]) for one in log.events("worker")}
        gateways.upgrade()
        with enter(gateways.gateway, trusting):
            wait_until(lambda: sum(map(is_running, old)) == 1)
            (last,) = filter(is_running, old)
            os.kill(last, signal.SIGSTOP)
            answers: list[Answer] = []
            asking = threading.Thread(target=lambda: answers.append(ask(control, Request("who"))))
            asking.start()
            # Whoever asks later is answered later: by then the question is on its way.
            assert ask(control, Request("bans")).good
            os.kill(last, signal.SIGKILL)
            asking.join(DEADLINE)
            assert [(answer.problems, len(answer.result["sessions"])) for answer in answers] == [((), 1)]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_new_program_listens_on_addresses_that_overlap_with_the_old_ones(
    start: Start, tmp_path: Path, trusting: ssl.SSLContext, workers: int
) -> None:
    port, admin = free_ports(2)
    places = [f"127.0.0.1:{port}", f"0.0.0.0:{port}", f"{port}", f"127.0.0.1:{port}"]
    with start(workers, more=places[0]) as gateways, ExitStack() as stack:
        inside: list[Client] = []
        here, there = "127.0.0.1", "localhost"
        rewrite(tmp_path, "[limits]", f"[admin]\nlisten = 127.0.0.1:{admin}\n[limits]")
        for old, new in itertools.pairwise([places[0], *places]):
            rewrite(tmp_path, f"implicit = {old}\n", f"implicit = {new}\n")
            gateways.upgrade()
            urllib.request.urlopen(f"http://127.0.0.1:{admin}/healthz").close()
            here, there = there, here
            rewrite(tmp_path, f"listen = {there}:{admin}", f"listen = {here}:{admin}")
            inside.append(stack.enter_context(enter(gateways.gateway, trusting, ("127.0.0.1", port))))
            for client in inside:
                is_alive(client)
            with socket.socket() as elsewhere:
                is_there = elsewhere.connect_ex(("127.0.0.2", port)) == 0
            assert is_there is not new.startswith("127.0.0.1:")


@pytest.mark.parametrize("workers", [1, 2])
def test_who_waits_where_only_the_old_program_listens_is_let_in(
    start: Start, tmp_path: Path, trusting: ssl.SSLContext, workers: int
) -> None:
    (port,) = free_ports(1)
    with start(workers, more=f"127.0.0.1:{port}") as gateways, ExitStack() as stack:
        log, old = gateways.gateway.log, gateways.pid
        accepting = [old] if workers == 1 else [int(one["pid"]) for one in log.events("worker")]
        rewrite(tmp_path, f"implicit = 127.0.0.1:{port}\n", f"implicit = 0.0.0.0:{port}\n")
        since = log.mark()
        os.kill(old, signal.SIGUSR2)
        log.wait("upgrade", since, state="started")
        for pid in accepting:
            os.kill(pid, signal.SIGSTOP)
        try:
            log.wait("listening", since, address=f"0.0.0.0:{port}")
            waiting = [stack.enter_context(Client(("127.0.0.1", port))) for _ in range(8 * ACCEPTS)]
            enter(gateways.gateway, trusting, ("127.0.0.2", port)).socket.close()
        finally:
            for pid in accepting:
                os.kill(pid, signal.SIGCONT)
        gateways.pid = int(log.wait("upgrade", since, state="done")["pid"])
        for client in waiting:
            client.shake_hands(trusting)
            client.hear(WORDS_.greeting_)


def old_programs(directory: Path) -> list[Any]:
    """As `status` tells them."""
    rows: list[Any] = ask(f"{directory}/control", Request("status")).result["old_programs"]
    return rows


@pytest.mark.parametrize("workers", [1, 2])
def test_status_shows_old_programs(
    start: Start, tmp_path: Path, trusting: ssl.SSLContext, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with start(workers) as gateways, ExitStack() as stack:

        def shown() -> list[tuple[int, int]]:
            rows = old_programs(tmp_path)
            assert all(10 < row["left"] <= 22 for row in rows)
            return [(row["pid"], row["sessions"]) for row in rows]

        assert shown() == []
        first = gateways.pid
        inside = [stack.enter_context(enter(gateways.gateway, trusting)) for _ in range(2)]
        second = gateways.upgrade()
        inside.append(stack.enter_context(enter(gateways.gateway, trusting)))
        gateways.upgrade()
        assert sorted(shown()) == sorted([(first, 2), (second, 1)])
        assert main(["status", "--config", str(tmp_path / "gateway.ini")]) == 0
        assert f"\nold program {first}: 2 sessions, for " in capsys.readouterr().out
        for client in inside:
            client.socket.close()
        wait_until(lambda: shown() == [])


@pytest.mark.parametrize("workers", [1, 2])
def test_upgrades_in_a_row_under_load_refuse_nobody(start: Start, workers: int) -> None:
    with start(workers) as gateways:
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
    start: Start, tmp_path: Path, trusting: ssl.SSLContext, workers: int, old: str, new: str, why: str
) -> None:
    with start(workers) as gateways:
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
def test_limits_hold_over_both_programs(start: Start, trusting: ssl.SSLContext, workers: int) -> None:
    limits = {"sessions_per_client": "3", "connects_per_minute": "6"}
    with start(workers, limits=limits) as gateways:
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


@pytest.fixture(scope="module")
def public() -> Iterator[Program]:
    """The system's Python and a copy of the code, for every user: the tests' own may be in somebody's home."""
    need(str(SYSTEM / "bin" / "python"), debian="python3-venv; make .venv-count/installed")
    (packages,) = SYSTEM.glob("lib/python*/site-packages")
    with directory_for_servers() as directory:
        source = directory / "source"
        shutil.copytree(packages, source, ignore=shutil.ignore_patterns("pip", "setuptools", "test"))
        for name in ("gateway", "twisted"):
            shutil.copytree(ROOT / name, source / name, dirs_exist_ok=True)
        directory.chmod(0o755)
        yield Program("/usr/bin/python3", source)


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_program_that_gave_up_its_rights_hands_over_too(backend: Backend, public: Program, workers: int) -> None:
    with directory_for_servers() as directory:
        identity = Identity.issue(directory)
        identity.certificate.chmod(0o644)
        context = ssl.create_default_context(cafile=str(identity.authority))
        with line(directory, identity, backend, workers, user="nobody", program=public) as gateways:
            (directory / "gateway.ini").chmod(0o644)
            directory.chmod(0o755)
            gateways.upgrade()
            enter(gateways.gateway, context).socket.close()


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("workers", [1, 2])
def test_ports_and_pidfile_of_root_are_handed_over_by_who_is_root_no_more(
    backend: Backend, public: Program, workers: int
) -> None:
    with directory_for_servers() as directory:
        identity = Identity.issue(directory)
        identity.certificate.chmod(0o644)
        context = ssl.create_default_context(cafile=str(identity.authority))
        own = directory / "run"
        own.mkdir()
        shutil.chown(own, "nobody", "games")
        port, pidfile = low_port(), own / "pid"
        more = f"127.0.0.1:{port}"
        with line(
            directory, identity, backend, workers, "nobody", "games", str(pidfile), more, program=public
        ) as gateways:
            (directory / "gateway.ini").chmod(0o644)
            directory.chmod(0o755)
            assert pidfile.read_text() == str(gateways.pid)
            for _ in range(2):
                fresh = gateways.upgrade()
                status = Path(f"/proc/{fresh}/status").read_text()
                ids = pwd.getpwnam("nobody").pw_uid, grp.getgrnam("games").gr_gid
                assert f"Uid:\t{ids[0]}\t{ids[0]}" in status
                assert f"Gid:\t{ids[1]}\t{ids[1]}" in status
                assert "CapEff:\t0000000000000000\n" in status
                with Client(("127.0.0.1", port)) as client:
                    client.shake_hands(context)
                    client.hear(WORDS_.greeting_)
                wait_until(lambda fresh=fresh: pidfile.read_text() == str(fresh))  # type: ignore[misc]
        assert not pidfile.exists()


def test_an_upgrade_at_a_time(start: Start) -> None:
    with start() as gateways:
        log = gateways.gateway.log
        gateways.gateway.process.send_signal(signal.SIGUSR2)
        log.wait("upgrade", state="started")
        gateways.gateway.process.send_signal(signal.SIGUSR2)
        assert log.wait("signal", count=2, signal="SIGUSR2")["detail"] == "an upgrade is under way"
        gateways.pid = int(log.wait("upgrade", state="done")["pid"])


# --- the command -------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_the_command_waits_until_the_new_program_serves(
    start: Start, tmp_path: Path, trusting: ssl.SSLContext, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "gateway.ini")
    with start(workers) as gateways, enter(gateways.gateway, trusting) as client:
        first = gateways.pid
        assert main(["upgrade", "--config", file]) == 0
        said = capsys.readouterr().out.splitlines()
        # The control socket is never away: this is asked at once.
        assert main(["status", "--config", file, "--json"]) == 0
        second = json.loads(capsys.readouterr().out)["result"]["gateway"]["pid"]
        gateways.pid = second
        assert second != first
        assert said[0].startswith("version ")
        assert said[0].endswith(f" serves now, as process {second}")
        assert said[1].startswith(f"  process {first} accepts nobody any more")
        assert main(["upgrade", "--config", file, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["ok"], told["problems"], told["result"]["before"]) == (True, [], second)
        gateways.pid = told["result"]["pid"]
        is_alive(client)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_drained_stays_drained(start: Start, tmp_path: Path, backend: Backend, workers: int) -> None:
    with start(workers) as gateways:
        assert ask(str(tmp_path / "control"), Request("drain", "service:imap")).good
        assert ask(str(tmp_path / "control"), Request("drain", backend.address)).good
        gateways.upgrade()
        status = ask(str(tmp_path / "control"), Request("status")).result
        assert [one["draining"] for one in status["services"]] == [True]
        assert [one["state"] for one in status["backends"][0]["addresses"]] == ["drained"]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_command_tells_why_the_old_program_goes_on(
    start: Start, tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "gateway.ini")
    with start(workers) as gateways:
        rewrite(tmp_path, "drain = 2 s", "drain = never")
        assert main(["upgrade", "--config", file]) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"the old program goes on: {file}, line 3: [gateway] drain")
        status = ask(str(tmp_path / "control"), Request("status"))
        assert status.result["gateway"]["pid"] == gateways.pid
        rewrite(tmp_path, "drain = never", "drain = 2 s")


def test_the_control_socket_of_a_new_file_is_where_it_says(start: Start, tmp_path: Path) -> None:
    with start() as gateways:
        rewrite(tmp_path, f"control = {tmp_path}/control", f"control = {tmp_path}/moved\ncontrol_mode = 0600")
        pid = gateways.upgrade()
        wait_until(lambda: (tmp_path / "moved").exists() and not (tmp_path / "control").exists())
        assert ask(str(tmp_path / "moved"), Request("status")).result["gateway"]["pid"] == pid


# --- a new program that breaks down --------------------------------------------------------------------


def sockets_of(pid: int) -> set[int]:
    """Inodes of its sockets."""
    found = set()
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if os.readlink(entry).startswith("socket:"):
                    found.add(os.stat(entry).st_ino)
    return found


def listening_inode(port: int) -> int:
    """Of a socket that listens on this port of 127.0.0.1."""
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = row.split()
        if fields[1] == f"0100007F:{port:04X}" and fields[3] == "0A":
            return int(fields[9])
    raise AssertionError(port)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_new_program_that_crashes_with_the_sockets_in_its_hands_changes_nothing(
    start: Start, trusting: ssl.SSLContext, workers: int
) -> None:
    with start(workers, limits={"sessions_per_client": "3"}) as gateways:
        gateway = gateways.gateway
        inode = listening_inode(gateway.address("imap")[1])
        with enter(gateway, trusting) as client:
            gateway.process.send_signal(signal.SIGUSR2)
            pid = int(gateway.log.wait("upgrade", state="started")["pid"])
            wait_until(lambda: inode in sockets_of(pid))
            os.kill(pid, signal.SIGKILL)
            told = gateway.log.wait("upgrade", state="failed")
            assert told["detail"] == f"the new program, process {pid}, ended before it served"
            is_alive(client)
            for _ in range(4):
                enter(gateway, trusting).socket.close()
            # Nothing of what it may have counted is left: one client is here, and two more may come.
            with enter(gateway, trusting), enter(gateway, trusting):
                is_alive(client)
            gateways.upgrade()
            is_alive(client)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_new_program_that_crashes_after_taking_over_is_told_and_sessions_go_on(
    start: Start, trusting: ssl.SSLContext, workers: int
) -> None:
    with start(workers) as gateways:
        gateway = gateways.gateway
        with enter(gateway, trusting) as client:
            first = gateways.pid
            fresh = gateways.upgrade()
            os.kill(fresh, signal.SIGKILL)
            told = gateway.log.wait("upgrade", state="lost")
            assert told["detail"] == (
                f"the new program, process {fresh}, broke down; nobody is served any more, start the gateway"
            )
            is_alive(client)
            gateways.pid = first


# --- a stop while an old program has sessions -----------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_ends_the_programs_before_too_and_waits_for_them(
    start: Start, trusting: ssl.SSLContext, workers: int
) -> None:
    with start(workers) as gateways:
        first, log = gateways.pid, gateways.gateway.log
        with enter(gateways.gateway, trusting) as old:
            second = gateways.upgrade()
            with enter(gateways.gateway, trusting) as older:
                third = gateways.upgrade()
                since = log.mark()
                began = time.monotonic()
                os.kill(third, signal.SIGTERM)
                # Both programs before it have a session each, and 2 s from now on instead of 20.
                log.wait("stopping", since, count=3)
                assert is_running(third)
                is_alive(old)
                is_alive(older)
                assert old.rest() == older.rest() == b""
                assert 1.5 < time.monotonic() - began < 10
            for pid in (first, second, third):
                wait_until_gone(pid)


HANGING = [(workers, signals) for signals in (0, 1, 2) for workers in (1, 2)]


@pytest.fixture(scope="module")
def hanging(
    tmp_path_factory: pytest.TempPathFactory, identity: Identity, trusting: ssl.SSLContext
) -> Iterator[Mapping[tuple[int, int], Begun]]:
    """All of them at once: each waits for ten seconds and more."""
    make = tmp_path_factory.mktemp
    works = {case: partial(outlive, make("hanging"), identity, trusting, *case) for case in HANGING}
    with at_once(works) as begun:
        yield begun


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "signals"), HANGING)
def test_an_old_program_that_hangs_is_killed_soon_after_its_time(
    hanging: Mapping[tuple[int, int], Begun], workers: int, signals: int
) -> None:
    """Its time is over after `old_sessions`, after `drain` where the new program stops, or now."""
    hanging[workers, signals]()


def outlive(directory: Path, identity: Identity, trusting: ssl.SSLContext, workers: int, signals: int) -> None:
    # It must not end by itself before it is stopped here, however long that takes.
    old_sessions = "20 s" if signals else "5 s"
    with (
        closing(Backend(imap())) as backend,
        line(directory, identity, backend, workers, old_sessions=old_sessions) as gateways,
        enter(gateways.gateway, trusting),
    ):
        log, first = gateways.gateway.log, gateways.pid
        workers_of_first = [int(one["pid"]) for one in log.events("worker")]
        second = gateways.upgrade()
        log.wait("stopping")  # the old one
        os.kill(first, signal.SIGSTOP)
        gateways.killed = True
        for number in range(signals):
            since = log.mark()
            os.kill(second, signal.SIGTERM)
            if not number:
                log.wait("stopping", since)
        if not signals:
            wait_until(lambda: old_programs(directory)[0]["left"] == 0)
        # It may have been counting just then, and all the others wait for that: so they kill it sooner.
        killed = {("upgrade", "killed"), ("process-killed", None)}
        wait_until(lambda: any(
            (one["event"], one.get("state")) in killed and one["pid"] == str(first) for one in log.told
        ))  # fmt: skip
        for pid in (first, *workers_of_first, *[second] * bool(signals)):
            wait_until_gone(pid)
        if not signals:
            assert old_programs(directory) == []
