"""The units under a real systemd, from the package."""

from __future__ import annotations

import json
import re
import smtplib
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trustme

from tests.packages.conftest import Build
from tests.packages.machine import Machine, booted
from tests.packages.mail import Mail, until
from tests.packages.roots import base, copy, ready_to_build, run
from tests.packages.test_deb import deploy
from tests.process.running import DEADLINE, Event, parse

UNIT = "starttls-gateway.service"
FILE = "/etc/starttls-gateway/gateway.ini"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, old: Build) -> Iterator[Machine]:
    """One machine for all tests, with the package installed."""
    ready_to_build()
    directory = tmp_path_factory.mktemp("machine")
    directory.chmod(0o755)
    root = directory / "root"
    copy(base(), root)
    (root / "tmp" / old.deb.name).write_bytes(old.deb.read_bytes())
    run(["chroot", str(root), "dpkg", "--install", f"/tmp/{old.deb.name}"])
    with booted(root) as machine:
        yield machine


@pytest.fixture
def mail(machine: Machine, authority: trustme.CA) -> Iterator[Mail]:
    """The gateway serves; whatever a test did to it, it is as after the installation at the end."""
    mail = Mail(machine.leader, authority)
    deploy(machine, mail)
    machine.path(FILE).write_text(mail.configuration)
    yield mail
    # 5: the package was removed.
    machine.run("systemctl", "disable", "--now", "starttls-gateway@25.socket", UNIT, right=[0, 5])
    machine.run("systemctl", "reset-failed")
    mail.backend.close()


def events(machine: Machine, name: str) -> list[Event]:
    return [found for line in machine.journal(UNIT).splitlines() if (found := parse(line)).get("event") == name]


def test_it_starts_and_serves_as_a_user_with_one_capability(machine: Machine, mail: Mail) -> None:
    machine.run("systemctl", "start", UNIT)
    with mail.until_connected() as client:
        mail.send(client)
    pid = machine.show(UNIT, "MainPID")
    status = machine.run("cat", f"/proc/{pid}/status")
    uid = machine.run("id", "-u", "starttls-gateway").strip()
    assert re.search(rf"(?m)^Uid:\t{uid}\t{uid}\t{uid}\t{uid}$", status)
    # CAP_NET_BIND_SERVICE is number 10.
    for kind in "Eff", "Bnd", "Amb":
        assert re.search(rf"(?m)^Cap{kind}:\t0*400$", status), status
    assert re.search(r"(?m)^NoNewPrivs:\t1$", status)
    (listening,) = events(machine, "listening")[-1:]
    assert listening["address"].endswith(":25")


def test_systemd_rates_it_below_two(machine: Machine) -> None:
    machine.run("systemd-analyze", "security", "--no-pager", "--threshold=19", UNIT)


def test_systemd_shows_what_it_does(machine: Machine, mail: Mail) -> None:
    # Type=notify: this returns when the gateway serves.
    machine.run("systemctl", "start", UNIT)
    assert machine.show(UNIT, "StatusText").startswith("serving ")
    assert json.loads(machine.run("starttls-gateway", "status", "--json"))


def test_a_reload_keeps_the_process_and_its_sessions(machine: Machine, mail: Mail) -> None:
    machine.run("systemctl", "start", UNIT)
    with mail.connect() as client:
        pid = machine.show(UNIT, "MainPID")
        machine.path(FILE).write_text(mail.configuration.replace("starttls = 25\n", "starttls = 25 587\n"))
        machine.run("systemctl", "reload", UNIT)
        mail.send(client)
        # Below 1024, long after the start: the capability is still there.
        with mail.connect(587) as another:
            mail.send(another)
    assert machine.show(UNIT, "MainPID") == pid
    assert machine.show(UNIT, "ActiveState") == "active"


def test_a_reload_of_a_file_that_is_wrong_fails_and_the_old_one_holds(machine: Machine, mail: Mail) -> None:
    machine.run("systemctl", "start", UNIT)
    machine.path(FILE).write_text(mail.configuration + "[limits]\nsesions = 10\n")
    machine.run("systemctl", "reload", UNIT, right=[1])
    assert re.search(r"\[limits\] sesions: unknown option", machine.journal(UNIT))
    assert machine.show(UNIT, "ActiveState") == "active"
    with mail.connect() as client:
        mail.send(client)


@contextmanager
def short_watchdog(machine: Machine) -> Iterator[None]:
    """Two seconds."""
    machine.run("mkdir", "-p", f"/run/systemd/system/{UNIT}.d")
    machine.run("sh", "-c", f"printf '[Service]\\nWatchdogSec=2s\\n' > /run/systemd/system/{UNIT}.d/watchdog.conf")
    machine.run("systemctl", "daemon-reload")
    try:
        yield
    finally:
        machine.run("rm", "-r", f"/run/systemd/system/{UNIT}.d")
        machine.run("systemctl", "daemon-reload")


def test_one_that_hangs_is_killed_by_the_watchdog_and_started_again(machine: Machine, mail: Mail) -> None:
    with short_watchdog(machine):
        machine.run("systemctl", "start", UNIT)
        pid = machine.show(UNIT, "MainPID")
        machine.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", UNIT)
        machine.wait(UNIT, "NRestarts", "1")
        machine.wait(UNIT, "ActiveState", "active")
        assert "Watchdog timeout" in machine.journal(UNIT)
        with mail.connect() as client:
            mail.send(client)
        assert machine.show(UNIT, "MainPID") != pid


def begin_data(client: smtplib.SMTP) -> None:
    """A mail whose end is still to come."""
    client.mail("a@example.test")
    client.rcpt("b@example.test")
    assert client.docmd("DATA")[0] == 354


def end_data(client: smtplib.SMTP) -> None:
    client.send(b"Subject: slow\r\n\r\nHello.\r\n.\r\n")
    assert client.getreply()[0] == 250


@pytest.mark.parametrize("workers", [1, 2])
def test_an_upgrade_hands_the_main_process_over_and_the_watchdog_follows(
    machine: Machine, mail: Mail, workers: int
) -> None:
    machine.path(FILE).write_text(mail.configuration.replace("[gateway]\n", f"[gateway]\nworkers = {workers}\n"))
    with short_watchdog(machine):
        machine.run("systemctl", "start", UNIT)
        restarts = machine.show(UNIT, "NRestarts")
        with mail.until_connected() as old:
            begin_data(old)
            pids = [machine.show(UNIT, "MainPID")]
            for _ in range(2):
                assert "serves now" in machine.run("starttls-gateway", "upgrade")
                # The command returns when the new program serves; systemd hears of it in the next moment.
                end = time.monotonic() + DEADLINE
                while (fresh := machine.show(UNIT, "MainPID")) == pids[-1]:
                    assert time.monotonic() < end
                pids.append(fresh)
                assert machine.show(UNIT, "ActiveState") == "active"
                with mail.connect() as client:
                    mail.send(client)
            end_data(old)
        # Heartbeats of the new one: more of them than the watchdog would wait for.
        for _ in range(4):
            beat = machine.show(UNIT, "WatchdogTimestampMonotonic")
            while machine.show(UNIT, "WatchdogTimestampMonotonic") == beat:
                assert time.monotonic() < end + DEADLINE
        assert (machine.show(UNIT, "NRestarts"), machine.show(UNIT, "MainPID")) == (restarts, pids[-1])
        machine.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", UNIT)
        machine.wait(UNIT, "NRestarts", str(int(restarts) + 1))
        machine.wait(UNIT, "ActiveState", "active")


def test_a_stop_after_an_upgrade_waits_for_the_mail_in_the_old_program(machine: Machine, mail: Mail) -> None:
    machine.run("systemctl", "start", UNIT)
    with mail.until_connected() as old:
        begin_data(old)
        machine.run("starttls-gateway", "upgrade")
        machine.run("systemctl", "stop", "--no-block", UNIT)
        machine.wait(UNIT, "ActiveState", "deactivating")
        end_data(old)
        old.close()
    machine.wait(UNIT, "ActiveState", "inactive")
    assert machine.show(UNIT, "Result") == "success"


def test_a_stop_waits_for_the_mail_in_flight(machine: Machine, mail: Mail) -> None:
    machine.run("systemctl", "start", UNIT)
    with mail.until_connected() as client:
        begin_data(client)
        machine.run("systemctl", "stop", "--no-block", UNIT)
        machine.wait(UNIT, "ActiveState", "deactivating")
        end_data(client)
        client.close()  # no QUIT: the gateway has said goodbye
    machine.wait(UNIT, "ActiveState", "inactive")
    assert machine.show(UNIT, "Result") == "success"


def test_it_comes_back_after_a_crash(machine: Machine, mail: Mail) -> None:
    machine.run("systemctl", "start", UNIT)
    mail.until_connected().close()
    pid = machine.show(UNIT, "MainPID")
    machine.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", UNIT)
    machine.wait(UNIT, "NRestarts", "1")
    with mail.until_connected() as client:
        mail.send(client)
    assert machine.show(UNIT, "MainPID") != pid


def test_a_file_that_is_wrong_ends_the_start_and_the_journal_says_why(machine: Machine, mail: Mail) -> None:
    with machine.path(FILE).open("a") as file:
        file.write("[limits]\nsesions = 10\n")
    machine.run("systemctl", "start", UNIT, right=[0, 1])
    machine.wait(UNIT, "Result", "exit-code")
    assert re.search(r"gateway\.ini, line \d+: \[limits\] sesions: unknown option", machine.journal(UNIT))


def test_clients_of_a_port_that_systemd_holds_wait_while_it_restarts(machine: Machine, mail: Mail) -> None:
    configuration = mail.configuration.replace("starttls = 25\n", "starttls = systemd:25\n")
    machine.path(FILE).write_text(configuration)
    machine.run("systemctl", "enable", "--now", "starttls-gateway@25.socket")
    assert not re.search(r"warning .*(socket unit|systemd passes)", machine.run("starttls-gateway", "check"))
    with mail.connect() as client:  # the first connection starts the service
        mail.send(client)
    restart_under_load(machine, mail)


@pytest.mark.parametrize("workers", [1, 2])
def test_clients_wait_while_it_restarts_for_systemd_keeps_the_sockets(
    machine: Machine, mail: Mail, workers: int
) -> None:
    text = mail.configuration.replace("[gateway]\n", f"[gateway]\nworkers = {workers}\n")
    machine.path(FILE).write_text(text.replace("starttls = 25\n", "starttls = 25 587\n"))
    machine.run("systemctl", "start", UNIT)
    machine.wait(UNIT, "NFileDescriptorStore", str(4 * workers))
    restart_under_load(machine, mail)
    # A crash is a restart, too.
    pid = machine.show(UNIT, "MainPID")
    machine.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", UNIT)
    # One that a worker had accepted is lost with it, or gets the worker's goodbye (421); none is refused.
    lost = smtplib.SMTPServerDisconnected, smtplib.SMTPConnectError, ConnectionResetError
    with until(mail.connect, *lost) as client:
        mail.send(client)
    machine.wait(UNIT, "ActiveState", "active")
    assert machine.show(UNIT, "MainPID") != pid
    # An address that is not listened on any more is not kept either, and a stop closes all of them.
    machine.path(FILE).write_text(text)
    machine.run("systemctl", "reload", UNIT)
    machine.wait(UNIT, "NFileDescriptorStore", str(2 * workers))
    with pytest.raises(ConnectionRefusedError):
        mail.connect(587)
    machine.run("systemctl", "stop", UNIT)
    with pytest.raises(ConnectionRefusedError):
        mail.connect()


def restart_under_load(machine: Machine, mail: Mail) -> None:
    """Three times; nobody may be refused."""
    stop = threading.Event()
    served: list[int] = []
    failed: list[BaseException] = []

    def go_on() -> None:
        while not stop.is_set():
            try:
                with mail.connect() as client:
                    mail.send(client)
                served.append(1)
            except (
                smtplib.SMTPServerDisconnected,
                smtplib.SMTPResponseException,
                smtplib.SMTPRecipientsRefused,
                ssl.SSLError,
                ConnectionResetError,
            ):
                # It was being served when the gateway stopped.
                served.append(0)
            except BaseException as error:
                failed.append(error)
                return

    clients = threading.Thread(target=go_on)
    clients.start()
    try:
        for _ in range(3):
            machine.run("systemctl", "restart", UNIT)
    finally:
        stop.set()
        clients.join(DEADLINE)
    assert failed == []
    assert sum(served) > 0


def test_logs_are_events_of_the_journal(machine: Machine, mail: Mail) -> None:
    machine.run("systemctl", "start", UNIT)
    with mail.until_connected() as client:
        mail.send(client)
    machine.run("systemctl", "stop", UNIT)
    assert events(machine, "session")[-1]["reason"]
    assert events(machine, "stopping")


def install(machine: Machine, package: Build) -> str:
    target = machine.path(f"/var/tmp/{package.deb.name}")
    target.write_bytes(package.deb.read_bytes())
    return machine.run("apt-get", "install", "--yes", "--allow-downgrades", f"/var/tmp/{package.deb.name}")


def test_an_upgrade_that_refuses_the_file_leaves_the_old_program_serving(
    machine: Machine, mail: Mail, old: Build, new: Build
) -> None:
    machine.run("systemctl", "start", UNIT)
    mail.until_connected().close()
    pid = machine.show(UNIT, "MainPID")
    machine.path(FILE).write_text(mail.configuration + "[limits]\nsesions = 10\n")
    said = install(machine, new)
    assert f"version {old.version}-1 goes on serving" in said
    assert "sesions: unknown option" in said
    with mail.connect() as client:
        mail.send(client)
    assert machine.show(UNIT, "MainPID") == pid
    machine.path(FILE).write_text(mail.configuration)
    # The way back.
    install(machine, old)
    mail.until_connected().close()
    assert machine.run("starttls-gateway", "--version") == f"starttls-gateway {old.version}\n"


def test_upgrade_and_removal_of_the_package(machine: Machine, mail: Mail, new: Build) -> None:
    machine.run("systemctl", "enable", "--now", UNIT)
    with mail.until_connected() as client:
        begin_data(client)
        pid = machine.show(UNIT, "MainPID")
        install(machine, new)
        status = json.loads(machine.run("starttls-gateway", "status", "--json"))["result"]
        assert status["gateway"]["version"] == new.version
        with mail.connect() as another:
            mail.send(another)
        # A session of the version before.
        end_data(client)
    assert machine.show(UNIT, "MainPID") == str(status["gateway"]["pid"]) != pid
    machine.run("apt-get", "remove", "--yes", "starttls-gateway")
    assert machine.show(UNIT, "ActiveState") == "inactive"
    with pytest.raises(ConnectionRefusedError):
        mail.connect()
