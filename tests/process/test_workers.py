"""Several worker processes: who serves whom, what is common to all of them, and what one that dies takes with it."""

from __future__ import annotations

import fcntl
import os
import pwd
import signal
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from gateway.app.control.messages import Request
from gateway.cli.steer.command import ask
from tests.process.conftest import directory_for_servers
from tests.process.legacy import imap, pop3
from tests.process.meanwhile import Begun, at_once
from tests.process.recording import Backend
from tests.process.running import DEADLINE, Event, Gateway, Identity, Service, launch, rewrite, running, wait_until_gone
from tests.process.wire import Caller, Client
from tests.process.words import WORDS

BALANCED = {"accept_proxy": "127.0.0.0/8"}
MANY = {"sessions_per_client": "10000", "connects_per_minute": "100000", "auth_failures_per_minute": "100000"}
NOBODY = pwd.getpwnam("nobody").pw_uid
REJECTING = {b"LOGIN": b"TAG NO [AUTHENTICATIONFAILED] no\r\n"}


def seat_of(source: str, workers: int = 2) -> int:
    """The number of the worker that serves this client's address."""
    (number,) = struct.unpack("!I", socket.inet_aton(source))
    return int((number * 2654435761 & 0xFFFFFFFF) >> 16) % workers


def sources(worker: int, count: int) -> list[str]:
    """Client addresses that this worker serves."""
    found = [source for source in (f"127.9.{n >> 8}.{n & 255}" for n in range(1, 2000)) if seat_of(source) == worker]
    return found[:count]


A, B = sources(0, 1)[0], sources(1, 1)[0]
"""A client of either worker."""


@contextmanager
def several(
    directory: Path,
    identity: Identity,
    backend: Backend,
    limits: dict[str, str] | None = None,
    gateway: dict[str, str] | None = None,
    summed: bool = False,
    balanced: bool = False,
    options: dict[str, str] | None = None,
    environment: dict[str, str] | None = None,
) -> Iterator[Gateway]:
    services = [Service("imap", backend.address, options=BALANCED if balanced else options or {})]
    sections = {"gateway": {"workers": "2", **(gateway or {})}, "limits": {**MANY, **(limits or {})}}
    with running(directory, identity, services, sections, summed=summed, environment=environment) as started:
        started.log.wait("worker", count=2, state="serving")
        yield started


Start = Callable[..., AbstractContextManager[Gateway]]


@pytest.fixture
def start(tmp_path: Path, identity: Identity, backend: Backend) -> Start:
    return partial(several, tmp_path, identity, backend)


def pids(gateway: Gateway) -> dict[int, int]:
    """The processes of the workers, by number.  A death may be told after the next one serves."""
    serving = [event for event in gateway.log.events("worker") if event["state"] == "serving"]
    return {int(event["worker"]): int(event["pid"]) for event in serving}


def template(gateway: Gateway) -> int:
    (worker, *_) = pids(gateway).values()
    return int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])


def test_of_pythons_variables_the_workers_have_the_allocator_only(start: Start) -> None:
    """The others can make Python load modules from elsewhere."""
    with start(environment={"PYTHONMALLOC": "malloc", "PYTHONWARNINGS": "ignore", "OTHER": "1"}) as gateway:
        given = Path(f"/proc/{template(gateway)}/environ").read_text().split("\0")
        assert [one for one in given if one.startswith("PYTHON")] == ["PYTHONMALLOC=malloc"]
        assert "OTHER=1" in given
        with greeted(A, gateway):
            pass


def moment(event: Event) -> float:
    return datetime.fromisoformat(event["time"].replace("Z", "+00:00")).timestamp()


def greeted(source: str, gateway: Gateway) -> Caller:
    client = Caller(source, gateway.address("imap"))
    client.hear(WORDS["imap"].greeting_)
    return client


def is_alive(client: Client) -> None:
    client.say(b"a CAPABILITY\r\n")
    client.hear(rb"^\* CAPABILITY [^\n]*\na OK [^\n]*\n")


# --- a worker that dies ------------------------------------------------------------------------------


def test_kill_9_of_a_worker_under_load_refuses_nobody_and_leaves_the_others_alone(start: Start) -> None:
    with start() as gateway, ExitStack() as stack:
        inside = [stack.enter_context(greeted(source, gateway)) for source in sources(1, 20)]
        address = gateway.address("imap")
        counts: Counter[str] = Counter()
        over = threading.Event()

        def come_and_go(mine: Sequence[str]) -> None:
            while not over.is_set():
                for source in mine:
                    try:
                        sock = socket.create_connection(address, DEADLINE, (source, 0))
                    except OSError as wrong:
                        counts[type(wrong).__name__] += 1
                        continue
                    with sock, suppress(ConnectionResetError):
                        counts["greeted" if sock.recv(4096) else "lost"] += 1

        threads = [threading.Thread(target=come_and_go, args=(sources(n % 2, 40),)) for n in range(4)]
        for thread in threads:
            thread.start()
        stack.callback(over.set)
        for number in range(3):
            killed = pids(gateway)[0]
            since = gateway.log.mark()
            os.kill(killed, signal.SIGKILL)
            died = gateway.log.wait("worker", since, state="died", worker="0", pid=str(killed), how="SIGKILL")
            back = gateway.log.wait("worker", since, state="serving", worker="0")
            if not number:
                assert moment(back) - moment(died) < 2
            for client in inside:
                is_alive(client)
        over.set()
        for thread in threads:
            thread.join()
        assert set(counts) <= {"greeted", "lost"}, counts
        assert counts["greeted"] > 100
        print(dict(counts))


def test_what_waits_in_the_queue_of_a_dead_worker_is_served_by_the_next(start: Start) -> None:
    with start() as gateway, ExitStack() as stack:
        pid = pids(gateway)[0]
        os.kill(pid, signal.SIGSTOP)
        waiting = [stack.enter_context(Caller(source, gateway.address("imap"))) for source in sources(0, 30)]
        os.kill(pid, signal.SIGKILL)
        for client in waiting:
            client.hear(WORDS["imap"].greeting_)


def test_the_sessions_of_a_dead_worker_count_no_more(start: Start) -> None:
    source = A
    with start({"sessions_per_client": "3"}) as gateway, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(greeted(source, gateway))
        with Caller(source, gateway.address("imap")) as client:
            assert client.rest().startswith(b"* BYE")
        os.kill(pids(gateway)[0], signal.SIGKILL)
        assert gateway.log.wait("worker", state="died")["sessions"] == "3"
        for _ in range(3):
            stack.enter_context(greeted(source, gateway))


def a_worker_that_hangs_is_killed_after_ten_seconds_and_replaced(directory: Path, identity: Identity) -> None:
    with (
        closing(Backend(imap())) as backend,
        several(directory, identity, backend) as gateway,
        greeted(A, gateway),
        ExitStack() as stack,
    ):
        other = stack.enter_context(greeted(B, gateway))
        began = time.monotonic()
        os.kill(pids(gateway)[0], signal.SIGSTOP)
        waiting = stack.enter_context(Caller(A, gateway.address("imap")))
        died = gateway.log.wait("worker", state="died")
        assert 8 < time.monotonic() - began < 13
        assert (died["worker"], died["how"], died["sessions"]) == ("0", "SIGKILL", "1")
        assert "no sign of life for 10 s" in died["detail"]
        waiting.hear(WORDS["imap"].greeting_)
        is_alive(other)


def ledger(gateway: Gateway) -> int:
    """A descriptor of the memory in which all processes count."""
    for one in Path(f"/proc/{gateway.process.pid}/fd").iterdir():
        with suppress(OSError):
            if "memfd:starttls-gateway" in os.readlink(one):
                return os.open(one, os.O_RDWR)
    raise AssertionError("there is none")


def test_a_process_that_hangs_while_it_counts_holds_up_the_others_for_five_seconds(start: Start) -> None:
    with start() as gateway:
        file = ledger(gateway)
        pid = os.fork()
        if not pid:
            fcntl.lockf(file, fcntl.LOCK_EX)
            os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(1)
        assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
        with ExitStack() as stack:
            for source in sources(0, 1) + sources(1, 1):
                is_alive(stack.enter_context(greeted(source, gateway)))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        os.close(file)
        assert gateway.log.wait("process-killed")["pid"] == str(pid)
        assert {one["state"] for one in gateway.log.events("worker")} == {"serving"}


def test_workers_survive_the_template_and_it_comes_back(start: Start) -> None:
    with start() as gateway, greeted(A, gateway) as client:
        os.kill(template(gateway), signal.SIGKILL)
        gateway.log.wait("worker", state="no-template")
        is_alive(client)
        with greeted(B, gateway):
            pass
        killed = pids(gateway)[1]
        since = gateway.log.mark()
        os.kill(killed, signal.SIGKILL)
        assert gateway.log.wait("worker", since, state="died", worker="1")["pid"] == str(killed)
        gateway.log.wait("worker", since, state="serving", worker="1")
        with greeted(B, gateway):
            is_alive(client)


def a_worker_that_hangs_and_has_outlived_its_template_is_replaced_too(directory: Path, identity: Identity) -> None:
    with closing(Backend(imap())) as backend, several(directory, identity, backend) as gateway:
        os.kill(template(gateway), signal.SIGKILL)
        gateway.log.wait("worker", state="no-template")
        since = gateway.log.mark()
        os.kill(pids(gateway)[1], signal.SIGKILL)
        gateway.log.wait("worker", since, state="serving", worker="1")
        # The next template forks.  This worker is not its child.
        os.kill(pids(gateway)[0], signal.SIGSTOP)
        gateway.log.wait("worker", since, state="serving", worker="0")
        with greeted(A, gateway):
            pass


def a_template_that_hangs_is_replaced_after_ten_seconds_and_workers_go_on(directory: Path, identity: Identity) -> None:
    with (
        closing(Backend(imap())) as backend,
        several(directory, identity, backend) as gateway,
        greeted(A, gateway) as client,
    ):
        stopped, killed, since = template(gateway), pids(gateway)[1], gateway.log.mark()
        began = time.monotonic()
        os.kill(stopped, signal.SIGSTOP)
        os.kill(killed, signal.SIGKILL)
        told = gateway.log.wait("worker", since, state="no-template")
        assert time.monotonic() - began > 7
        assert "gave no sign of life for 10 s, and was killed; the next one is started in 1 s" in told["detail"]
        wait_until_gone(stopped)
        gateway.log.wait("worker", since, state="serving", worker="1")
        assert time.monotonic() - began < 30
        is_alive(client)
        with greeted(B, gateway) as other:
            rewrite(directory, "drain = 2 s", "drain = 3 s")
            assert reload(gateway)["result"] == "ok"
            is_alive(other)
        # The worker that the template was asked for, and never started, is no death.
        told_of = [(one["state"], one.get("pid")) for one in gateway.log.events("worker", since)]
        assert [state for state, _ in told_of] == ["died", "no-template", "serving"], told_of
        assert told_of[0][1] == str(killed)


def a_template_that_hangs_keeps_nothing_from_ending(directory: Path, identity: Identity, signals: int) -> None:
    """As it does in a read of a certificate from a disk that is gone."""
    with (
        closing(Backend(imap())) as backend,
        several(directory, identity, backend, gateway={"drain": "1 s"}) as gateway,
        greeted(A, gateway),
    ):
        workers = pids(gateway).values()
        os.kill(template(gateway), signal.SIGSTOP)
        for _ in range(signals):
            since = gateway.log.mark()
            gateway.terminate()
            gateway.log.wait("stopping", since)
        gateway.end(deadline=30)
        for pid in workers:
            wait_until_gone(pid)


HANGING: Mapping[str, Callable[[Path, Identity], None]] = {
    "worker": a_worker_that_hangs_is_killed_after_ten_seconds_and_replaced,
    "orphan": a_worker_that_hangs_and_has_outlived_its_template_is_replaced_too,
    "template": a_template_that_hangs_is_replaced_after_ten_seconds_and_workers_go_on,
    "template, one signal": partial(a_template_that_hangs_keeps_nothing_from_ending, signals=1),
    "template, two signals": partial(a_template_that_hangs_keeps_nothing_from_ending, signals=2),
}


@pytest.fixture(scope="module")
def hanging(tmp_path_factory: pytest.TempPathFactory, identity: Identity) -> Iterator[Mapping[str, Begun]]:
    make = tmp_path_factory.mktemp
    works = {name: partial(work, make("hanging"), identity) for name, work in HANGING.items()}
    with at_once(works) as begun:
        yield begun


@pytest.mark.slow
@pytest.mark.parametrize("what", HANGING)
def test_who_hangs_is_replaced_and_keeps_nothing_from_ending(hanging: Mapping[str, Begun], what: str) -> None:
    hanging[what]()


# --- the master ------------------------------------------------------------------------------------


def test_kill_9_of_the_master_lets_workers_finish_and_frees_the_sockets(
    tmp_path: Path, identity: Identity, backend: Backend, trusting: ssl.SSLContext
) -> None:
    services = [Service("imap", backend.address)]
    gateway = launch(tmp_path, identity, services, {"gateway": {"workers": "2", "drain": "3 s"}})
    try:
        gateway.log.wait("worker", count=2, state="serving")
        workers, parent = pids(gateway), template(gateway)
        with Client(gateway.address("imap", "implicit")) as relaying, greeted(A, gateway) as idle:
            relaying.shake_hands(trusting)
            relaying.hear(WORDS["imap"].greeting_)
            relaying.say(WORDS["imap"].login)
            relaying.hear(WORDS["imap"].login_)
            began = time.monotonic()
            gateway.process.kill()
            assert idle.rest() == WORDS["imap"].shutdown
            wait_until_gone(parent)
            with socket.socket() as free:
                free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                free.bind(gateway.address("imap"))
                free.listen()
            relaying.say(b"n NOOP\r\n")
            assert relaying.line() == b"n OK NOOP by the backend\r\n"
            assert relaying.rest() == b""
            assert 2.5 < time.monotonic() - began < 6
        for pid in workers.values():
            wait_until_gone(pid)
    finally:
        gateway.kill()
    gateway.log.wait("worker", state="orphaned", count=2)
    assert gateway.log.wait("session", phase="relaying")["reason"] == "shutdown"


def test_a_stop_ends_all_processes(start: Start) -> None:
    with start() as gateway:
        processes = [*pids(gateway).values(), template(gateway)]
        with greeted(A, gateway) as one, greeted(B, gateway) as other:
            gateway.terminate()
            for client in (one, other):
                assert client.rest() == WORDS["imap"].shutdown
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(gateway.address("imap"), DEADLINE)
        gateway.end()
        for pid in processes:
            wait_until_gone(pid)
        assert gateway.log.events("stopping")[0]["sessions"] == "2"
        assert not [event for event in gateway.log.events("worker") if event["state"] != "serving"]


def test_a_stop_is_told_at_once_even_while_the_workers_do_not_know_of_it(start: Start) -> None:
    """The template closes its sockets first.  Here it is held up."""
    with directory_for_servers() as directory:
        control = f"{directory}/control"
        options = {"control": control, "drain": "1 h"}
        with start(gateway=options) as gateway, greeted(A, gateway) as client:
            parent = template(gateway)
            os.kill(parent, signal.SIGSTOP)
            try:
                gateway.terminate()
                gateway.log.wait("stopping", sessions="1")
                draining = ask(control, Request("status")).result["draining"]
                assert draining["sessions"] == 1
                assert 3500 < draining["left"] <= 3600
            finally:
                os.kill(parent, signal.SIGCONT)
            assert client.rest() == WORDS["imap"].shutdown


def test_a_second_signal_ends_sessions_of_all_workers_now(start: Start, trusting: ssl.SSLContext) -> None:
    with start(gateway={"drain": "60 s"}) as gateway, ExitStack() as stack:
        for source in (A, B):
            client = stack.enter_context(Caller(source, gateway.address("imap", "implicit")))
            client.shake_hands(trusting)
            client.hear(WORDS["imap"].greeting_)
            client.say(WORDS["imap"].login)
            client.hear(WORDS["imap"].login_)
        gateway.terminate()
        gateway.log.wait("stopping")
        gateway.terminate()
        gateway.end(deadline=10)
        assert [event["reason"] for event in gateway.log.events("session")] == ["shutdown"] * 2


# --- what holds for all of them ----------------------------------------------------------------------


def admitted(clients: Sequence[Client]) -> int:
    """How many of these are greeted; all others are told that there is no room."""
    lines = [client.line() for client in clients]
    assert all(line.startswith((b"* OK", b"* BYE [UNAVAILABLE] Too many")) for line in lines), lines
    return sum(line.startswith(b"* OK") for line in lines)


def through(gateway: Gateway, client: str) -> Client:
    """A connection of this client's by way of a load balancer."""
    made = Client(gateway.address("imap"))
    made.say(b"PROXY TCP4 %s 198.51.100.1 51000 143\r\n" % client.encode())
    return made


def test_the_limit_of_all_sessions_is_exact_over_workers(start: Start) -> None:
    with start({"sessions": "31"}) as gateway, ExitStack() as stack:
        both = [source for pair in zip(sources(0, 40), sources(1, 40), strict=True) for source in pair]
        clients = [stack.enter_context(Caller(source, gateway.address("imap"))) for source in both]
        assert admitted(clients) == 31


def test_limits_of_many_clients_are_exact_over_workers(start: Start) -> None:
    with start({"sessions_per_client": "3"}) as gateway, ExitStack() as stack:
        for source in (*sources(0, 10), *sources(1, 10)):
            clients = [stack.enter_context(Caller(source, gateway.address("imap"))) for _ in range(5)]
            assert admitted(clients) == 3


def test_sessions_of_a_client_behind_a_balancer_are_counted_exactly(start: Start) -> None:
    with (
        start({"sessions_per_client": "7"}, balanced=True) as gateway,
        ExitStack() as stack,
    ):
        for client in ("203.0.113.7", "203.0.113.8"):
            assert admitted([stack.enter_context(through(gateway, client)) for _ in range(40)]) == 7


def test_connects_of_a_client_behind_a_balancer_are_counted_exactly(start: Start) -> None:
    with start({"connects_per_minute": "11"}, balanced=True) as gateway:
        counted = 0
        for _ in range(40):
            with through(gateway, "203.0.113.7") as client:
                counted += admitted([client])
        assert counted == 11
        with through(gateway, "203.0.113.8") as client:
            assert admitted([client]) == 1


def test_failed_logins_of_a_client_behind_a_balancer_are_counted_exactly(
    tmp_path: Path, identity: Identity, trusting: ssl.SSLContext
) -> None:
    backend = Backend(imap(REJECTING))
    with several(tmp_path, identity, backend, {"auth_failures_per_minute": "6"}, balanced=True) as gateway:
        asked = 0
        for _ in range(20):
            with through(gateway, "203.0.113.7") as client:
                client.hear(WORDS["imap"].greeting_)
                client.say(WORDS["imap"].starttls)
                client.hear(b"^[^\n]*OK[^\n]*\n")
                client.shake_hands(trusting)
                client.say(b"a LOGIN grete wrong\r\n")
                line = client.line()
                assert line.startswith(b"a NO"), line
                asked += b"AUTHENTICATIONFAILED" in line and line.endswith(b" no\r\n")
        assert asked == 6
    backend.close()


def test_the_budget_of_lines_holds_for_all_workers(start: Start) -> None:
    with start(summed=True) as gateway:
        for source in (*sources(0, 60), *sources(1, 60)):
            with greeted(source, gateway):
                pass
        gateway.terminate()
        gateway.end()
        told = gateway.log.events("session")
        suppressed = gateway.log.events("suppressed")
        assert len(told) + sum(int(event["count"]) for event in suppressed) == 120
        assert len(told) == 20


def test_what_one_worker_finds_out_of_a_backend_all_know(tmp_path: Path, identity: Identity) -> None:
    dead, alive = Backend(pop3()), Backend(pop3())
    gone = dead.address
    dead.close()
    options = {
        "gateway": {"workers": "2"},
        "backend:both": {"address": f"{gone} {alive.address}"},
    }
    with running(tmp_path, identity, [Service("pop3", "both")], options) as gateway:
        gateway.log.wait("worker", count=2, state="serving")
        for source in (A, B, B, A):
            with Caller(source, gateway.address("pop3")) as client:
                client.hear(WORDS["pop3"].greeting_)
        failed = [event for event in gateway.log.events("backend-connect-failed") if gone in event["detail"]]
        assert len(failed) <= 1, failed
    alive.close()


def resume(context: ssl.SSLContext, gateway: Gateway, before: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession]:
    with socket.create_connection(gateway.address("imap", "implicit"), DEADLINE) as sock:
        sock.sendall(b"PROXY TCP4 203.0.113.7 198.51.100.1 51000 993\r\n")
        with context.wrap_socket(sock, server_hostname="localhost", session=before) as tls:
            assert tls.recv(4096).startswith(b"* OK")
            assert tls.session is not None
            return bool(tls.session_reused), tls.session


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_of_tls_is_resumed_at_every_worker(start: Start, identity: Identity, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=str(identity.authority))
    context.minimum_version = context.maximum_version = version
    with start(balanced=True) as gateway:
        _, session = resume(context, gateway, None)
        # All at the worker that issued it: once in 2**23.
        for _ in range(24):
            reused, _ = resume(context, gateway, session)
            assert reused
        os.kill(pids(gateway)[0], signal.SIGKILL)
        gateway.log.wait("worker", count=3, state="serving")
        for _ in range(24):
            reused, _ = resume(context, gateway, session)
            assert reused


def test_after_a_renewal_every_worker_has_it_and_old_sessions_are_no_failure(tmp_path: Path, backend: Backend) -> None:
    identity = Identity.issue(tmp_path)
    context = ssl.create_default_context(cafile=str(identity.authority))
    with several(tmp_path, identity, backend, balanced=True) as gateway:
        _, session = resume(context, gateway, None)
        Identity.issue(tmp_path)
        context.load_verify_locations(cafile=str(identity.authority))
        gateway.process.send_signal(signal.SIGHUP)
        gateway.log.wait("certificate", state="renewed")
        until, renewed = time.monotonic() + DEADLINE, 0
        while renewed < 24 and time.monotonic() < until:
            reused, _ = resume(context, gateway, session)
            renewed = 0 if reused else renewed + 1
        assert renewed == 24
        # And so has one that comes later.
        os.kill(pids(gateway)[1], signal.SIGKILL)
        gateway.log.wait("worker", count=3, state="serving")
        fresh = ssl.create_default_context(cafile=str(identity.authority))
        for _ in range(24):
            resume(fresh, gateway, None)


# --- the configuration, and rights -----------------------------------------------------------------


def reload(gateway: Gateway) -> Event:
    since = gateway.log.mark()
    gateway.process.send_signal(signal.SIGHUP)
    return gateway.log.wait("reload", since)


def test_a_reload_reaches_every_worker_and_those_that_come_later(start: Start, tmp_path: Path) -> None:
    with start() as gateway, greeted(A, gateway) as one, greeted(B, gateway) as other:
        rewrite(tmp_path, "sessions_per_client = 10000", "sessions_per_client = 1")
        rewrite(tmp_path, "starttls = 127.0.0.1:0", "starttls = 127.0.0.1:0 127.0.0.2:0")
        told = reload(gateway)
        assert told["result"] == "ok", told
        host, _, port = told["opened"].rpartition(":")
        for killed in (None, 0, 1):
            if killed is not None:
                since = gateway.log.mark()
                os.kill(pids(gateway)[killed], signal.SIGKILL)
                gateway.log.wait("worker", since, state="serving", worker=str(killed))
            for worker in (0, 1):
                with ExitStack() as stack:
                    source = sources(worker, 40)[20 + (killed or 0)]
                    clients = [stack.enter_context(Caller(source, (host, int(port)))) for _ in range(3)]
                    assert admitted(clients) == 1
            if killed is None:
                for client in (one, other):
                    is_alive(client)
        rewrite(tmp_path, " 127.0.0.2:0", "")
        assert reload(gateway)["closed"] == told["opened"]
        until = time.monotonic() + DEADLINE
        while is_open((host, int(port))):
            assert time.monotonic() < until


def is_open(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, DEADLINE).close()
    except ConnectionRefusedError:
        return False
    except ConnectionResetError:
        pass  # the last socket is closed at this very moment
    return True


def test_a_reload_keeps_tls_sessions_at_every_worker(start: Start, tmp_path: Path, identity: Identity) -> None:
    context = ssl.create_default_context(cafile=str(identity.authority))
    with start(balanced=True) as gateway:
        _, session = resume(context, gateway, None)
        rewrite(tmp_path, "drain = 2 s", "drain = 3 s")
        assert reload(gateway)["result"] == "ok"
        for _ in range(24):
            reused, _ = resume(context, gateway, session)
            assert reused


def test_a_bad_file_changes_nothing_in_any_worker(start: Start, tmp_path: Path, backend: Backend) -> None:
    with start() as gateway, ExitStack() as stack:
        for old, new in (
            ("drain = 2 s", "drain = never"),
            ("drain = never", "drain = 2 s"),
            ("backend = 127.0.0.1", "certificate = none.pem\nbackend = 127.0.0.1"),
        ):
            rewrite(tmp_path, old, new)
            assert reload(gateway)["result"] == ("ok" if new == "drain = 2 s" else "refused")
        for source in (A, B):
            is_alive(stack.enter_context(greeted(source, gateway)))


@pytest.mark.usefixtures("root")
def test_keys_that_only_root_may_read_serve_also_at_workers_that_come_later(backend: Backend) -> None:
    with directory_for_servers() as directory:
        identity = Identity.issue(directory)
        identity.certificate.chmod(0o600)
        service = Service("imap", backend.address, modes=("implicit",))
        with running(directory, identity, [service], {"gateway": {"workers": "2"}}, user="nobody") as gateway:
            gateway.log.wait("worker", count=2, state="serving")
            os.kill(pids(gateway)[0], signal.SIGKILL)
            gateway.log.wait("worker", count=3, state="serving")
            context = ssl.create_default_context(cafile=str(identity.authority))
            for source in (A, B):
                with Caller(source, gateway.address("imap", "implicit")) as client:
                    client.shake_hands(context)
                    client.hear(WORDS["imap"].greeting_)
            for pid in (*pids(gateway).values(), template(gateway)):
                status = Path(f"/proc/{pid}/status").read_text()
                assert f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}\n" in status
                assert "CapEff:\t0000000000000000\n" in status


def test_more_workers_than_files_can_be_opened_for_are_refused_with_one_line(
    tmp_path: Path, identity: Identity, backend: Backend
) -> None:
    with pytest.raises(AssertionError) as wrong:
        launch(tmp_path, identity, [Service("imap", backend.address)], {"gateway": {"workers": "64"}}, descriptors=100)
    (line,) = [line for line in str(wrong.value).splitlines() if line.startswith("starttls-gateway: ")]
    assert "raise the limit of open files (LimitNOFILE), or lower [gateway] workers" in line
