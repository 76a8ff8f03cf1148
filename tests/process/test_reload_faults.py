"""A reload that is refused, or in the middle of which a process ends: everything is as it was, or as it should be."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.app.control.messages import Answer, Request
from gateway.cli.steer.command import Unreachable, ask
from tests.ports import free_port, free_ports
from tests.process.recording import Backend
from tests.process.running import DEADLINE, Gateway, Identity, Service, rewrite, running
from tests.process.test_workers import A, B, greeted, is_alive, is_open, pids, template


@contextmanager
def steered(directory: Path, identity: Identity, backend: Backend, workers: int) -> Iterator[Gateway]:
    """With a control socket and an admin listener."""
    sections = {
        "gateway": {"workers": str(workers), "control": str(directory / "control")},
        "admin": {"listen": "127.0.0.1:0"},
    }
    with running(directory, identity, [Service("imap", backend.address)], sections) as gateway:
        if workers > 1:
            gateway.log.wait("worker", count=workers, state="serving")
        yield gateway


def reload(directory: Path) -> Answer:
    return ask(str(directory / "control"), Request("reload"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_refused_reload_has_moved_nothing(tmp_path: Path, identity: Identity, backend: Backend, workers: int) -> None:
    with steered(tmp_path, identity, backend, workers) as gateway, greeted(A, gateway) as client:
        text = (tmp_path / "gateway.ini").read_text()
        fresh, moved = free_port(), free_port()
        # All of this could be used, but for the certificate, which is looked at last.
        rewrite(tmp_path, f"control = {tmp_path}/control", f"control = {tmp_path}/moved")
        rewrite(tmp_path, "listen = 127.0.0.1:0", f"listen = 127.0.0.1:{moved}")
        rewrite(tmp_path, "starttls = 127.0.0.1:0", f"starttls = 127.0.0.1:0 127.0.0.1:{fresh}")
        rewrite(tmp_path, "backend = ", f"certificate = {tmp_path}/gateway.ini\nbackend = ")
        answer = reload(tmp_path)
        assert not answer.good
        (problem,) = answer.problems
        assert problem.startswith(f"{tmp_path}/gateway.ini: [service:imap] ")
        assert not (tmp_path / "moved").exists()
        assert not is_open(("127.0.0.1", fresh))
        assert not is_open(("127.0.0.1", moved))
        (admin,) = gateway.log.events("admin-listening")
        host, _, port = admin["address"].rpartition(":")
        assert is_open((host, int(port)))
        is_alive(client)
        (tmp_path / "gateway.ini").write_text(text)
        assert reload(tmp_path).good


@pytest.mark.parametrize("workers", [1, 2])
def test_new_addresses_may_overlap_with_those_before(
    tmp_path: Path, identity: Identity, backend: Backend, workers: int
) -> None:
    """`localhost` is 127.0.0.1, and ::1 where the machine has it."""
    with steered(tmp_path, identity, backend, workers) as gateway, greeted(A, gateway) as client:
        mail, admin = free_ports(2)
        before = "starttls = 127.0.0.1:0", "listen = 127.0.0.1:0"
        for host in ("127.0.0.1:", "localhost:", "0.0.0.0:", "", "localhost:"):
            # The admin listener is for this machine only.
            after = f"starttls = {host}{mail}", f"listen = {host if host[:1] in ('1', 'l') else '127.0.0.1:'}{admin}"
            for old, new in zip(before, after, strict=True):
                rewrite(tmp_path, f"{old}\n", f"{new}\n")
            before = after
            assert reload(tmp_path).problems == ()
            assert is_open(("127.0.0.1", mail))
            assert is_open(("127.0.0.1", admin))
            is_alive(client)


@pytest.mark.parametrize("workers", [1, 2])
def test_another_number_of_workers_is_refused_in_one_line(
    tmp_path: Path, identity: Identity, backend: Backend, workers: int
) -> None:
    with steered(tmp_path, identity, backend, workers):
        rewrite(tmp_path, f"workers = {workers}", "workers = 3")
        (problem,) = reload(tmp_path).problems
        assert problem == (
            f"{tmp_path}/gateway.ini: [gateway] workers = 3: a reload cannot change it, and {workers} is in use; run "
            "`starttls-gateway upgrade`, which loses no session, or restart the gateway"
        )
        status = ask(str(tmp_path / "control"), Request("status"))
        assert status.result["reload"]["problems"] == [problem]


@contextmanager
def in_the_middle(directory: Path, gateway: Gateway, act: Callable[[int], None]) -> Iterator[list[Answer]]:
    """A reload, of which `act` gets the template when the master waits for it; the answer is there after the block."""
    answers: list[Answer] = []
    stopped = template(gateway)
    os.kill(stopped, signal.SIGSTOP)
    since = gateway.log.mark()
    asking = threading.Thread(target=lambda: answers.append(reload(directory)))
    asking.start()
    try:
        gateway.log.wait("control", since, command="reload")
        act(stopped)
        yield answers
    finally:
        asking.join(DEADLINE)


def test_a_worker_that_is_killed_during_a_reload_is_replaced_under_the_new_file(
    tmp_path: Path, identity: Identity, backend: Backend
) -> None:
    with steered(tmp_path, identity, backend, 2) as gateway, greeted(B, gateway) as client:
        rewrite(tmp_path, "hostname = gw.example.test", "hostname = new.example.test")
        rewrite(tmp_path, "sessions_per_client = 10000", "sessions_per_client = 1")

        def kill(stopped: int) -> None:
            os.kill(pids(gateway)[0], signal.SIGKILL)
            os.kill(stopped, signal.SIGCONT)

        with in_the_middle(tmp_path, gateway, kill) as answers:
            pass
        assert [answer.problems for answer in answers] == [()]
        assert gateway.log.wait("worker", state="died")["worker"] == "0"
        gateway.log.wait("worker", count=3, state="serving")
        is_alive(client)
        with greeted(A, gateway) as one:
            one.say(b"a LOGOUT\r\n")
            one.rest()
        status = ask(str(tmp_path / "control"), Request("status")).result
        assert (status["gateway"]["hostname"], len(status["processes"])) == ("new.example.test", 2)


@pytest.mark.parametrize(("number", "said"), [(signal.SIGKILL, "is gone; the next"), (0, "gave no answer for 8 s")])
def test_a_template_that_ends_or_hangs_in_the_middle_of_a_reload_refuses_it(
    tmp_path: Path, identity: Identity, backend: Backend, number: int, said: str
) -> None:
    with steered(tmp_path, identity, backend, 2) as gateway, greeted(A, gateway) as client:
        rewrite(tmp_path, "sessions_per_client = 10000", "sessions_per_client = 1")
        with in_the_middle(tmp_path, gateway, lambda stopped: os.kill(stopped, number)) as answers:
            pass
        (answer,) = answers
        (problem,) = answer.problems
        assert problem.endswith(": the process that workers are forked from is gone; try again when it is back")
        assert said in gateway.log.wait("worker", state="no-template")["detail"]
        is_alive(client)
        # The next template begins with the old file: a second session of this client is welcome.
        os.kill(pids(gateway)[0], signal.SIGKILL)
        gateway.log.wait("worker", count=3, state="serving")
        with greeted(A, gateway), greeted(A, gateway):
            pass
        assert reload(tmp_path).good


@pytest.mark.usefixtures("root")
def test_a_control_socket_of_another_owner_refuses_the_reload(
    tmp_path: Path, identity: Identity, backend: Backend
) -> None:
    with steered(tmp_path, identity, backend, 2):
        strange = tmp_path / "strange"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(strange))
        os.chown(strange, 65534, 65534)
        rewrite(tmp_path, f"control = {tmp_path}/control", f"control = {strange}")
        (problem,) = reload(tmp_path).problems
        assert problem == (
            f"{tmp_path}/gateway.ini: [gateway] control: {strange}: the socket there belongs to nobody; remove it, or "
            "name another place in [gateway] control, or write control = off"
        )
        with pytest.raises(Unreachable, match="nobody listens there"):
            ask(str(strange), Request("status"))
        assert ask(str(tmp_path / "control"), Request("status")).good
