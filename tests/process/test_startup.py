"""twistd starts it, or one clear line says why not: in the foreground and as a daemon."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from trustme import CA

from tests.process.running import parse as event_of

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent

# A service that does what the gateway does when it starts, and no more.
TOY_PLUGIN = """
from twisted.application.service import ServiceMaker
toy = ServiceMaker("toy", "toy", "A toy.", "toy")
"""
TOY = """
import os, signal
from twisted.application.service import Service
from twisted.internet.defer import fail
from twisted.logger import Logger
from twisted.python import usage
from gateway.config.errors import StartError
from gateway.app.startup import Startup
from gateway.telemetry.events import FORMATS

TEXT = "0.0.0.0:25: Address already in use; " + "another server listens there, stop it or take another port; " * 3

class Options(usage.Options):
    optParameters = [["fail", None, ""], ["form", None, "text"]]

class Toy(Service):
    def __init__(self, events, wish):
        self.events, self.wish = events, wish

    def privilegedStartService(self):
        if self.wish == "early":
            raise StartError(TEXT)
        if self.wish.startswith("early SIG"):
            os.kill(os.getpid(), getattr(signal, self.wish.removeprefix("early ")))

    def startService(self):
        if self.wish == "late":
            raise StartError(TEXT)
        if self.wish.startswith("late SIG"):
            os.kill(os.getpid(), getattr(signal, self.wish.removeprefix("late ")))
        if self.wish.startswith("lost SIG"):
            # Whatever is raised while an object goes away is lost.
            number = getattr(signal, self.wish.removeprefix("lost "))
            type("Gone", (), {"__del__": lambda _: os.kill(os.getpid(), number)})()
        self.events.bound(service="toy").emit("listening", address="127.0.0.1:25")
        Logger().info("two\\nlines event=forged")
        print("printed")
        fail(ZeroDivisionError("oh no"))

def makeService(options):
    startup = Startup(options.parent, FORMATS[options["form"]])
    Toy(startup.events, options["fail"]).setServiceParent(startup)
    return startup
"""
TEXT = "0.0.0.0:25: Address already in use; another server listens there, "
EVENT = r"time=\S+Z event=listening service=toy address=127\.0\.0\.1:25"


def end(pid: int) -> None:
    """Ask a process to stop, and wait until it is gone."""
    gone = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGTERM)
        assert select.select([gone], [], [], 60) == ([gone], [], [])
    finally:
        os.close(gone)


def certificate(directory: Path, name: str = "both.pem") -> Path:
    path = directory / name
    CA().issue_cert("mx.example.org").private_key_and_cert_chain_pem.write_to_path(str(path))
    return path


both_modes = pytest.mark.parametrize("mode", [["--nodaemon"], []], ids=["foreground", "daemon"])


@dataclass
class Twistd:
    """twistd in a directory of its own, in which all its traces are."""

    directory: Path
    started: list[int] = field(default_factory=list)
    stdout: str = ""
    """What the last start that was refused said there."""

    def command(self, *arguments: str) -> list[str]:
        return [str(SCRIPTS / "twistd"), *arguments]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": f"{self.directory}{os.pathsep}{ROOT}"}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if self.pid is not None:
            self.started.append(self.pid)
        return done

    @property
    def pid(self) -> int | None:
        """The daemon's, as its pidfile tells."""
        try:
            return int((self.directory / "twistd.pid").read_text())
        except FileNotFoundError:
            return None

    @property
    def pid_written(self) -> int | None:
        """The same, where the file may be empty still."""
        try:
            return int((self.directory / "twistd.pid").read_text() or 0) or None
        except FileNotFoundError:
            return None

    def log(self, name: str = "twistd.log") -> list[str]:
        return (self.directory / name).read_text().splitlines()

    def stop(self) -> None:
        """Ends the daemon and waits until it is gone."""
        assert self.pid is not None
        end(self.pid)
        assert self.pid is None

    def refused(self, *arguments: str) -> str:
        """The one line that it says where it does not start."""
        done = self.run(*arguments)
        (line,) = done.stderr.splitlines()
        assert (done.returncode, line.partition(": ")[0]) == (1, "starttls-gateway"), done.stderr
        assert "Traceback" not in done.stdout
        assert self.pid is None
        self.stdout = done.stdout
        return line.partition(": ")[2]

    def certified(self, text: str) -> None:
        """A file of the gateway, and the certificate that it names."""
        (self.directory / "gw.ini").write_text(text)
        certificate(self.directory)

    def told_in_the_foreground(self, *arguments: str) -> list[str]:
        """The lines of a run that is ended when the toy has nothing more to say."""
        command = self.command("--nodaemon", *arguments)
        lines = []
        with subprocess.Popen(
            command, cwd=self.directory, env=self.environment, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.removesuffix("\n"))
                if "oh no" in line:
                    process.terminate()
        return lines


@pytest.fixture
def twistd(tmp_path: Path) -> Iterator[Twistd]:
    (tmp_path / "twisted" / "plugins").mkdir(parents=True)
    (tmp_path / "twisted" / "plugins" / "toy_plugin.py").write_text(TOY_PLUGIN)
    (tmp_path / "toy.py").write_text(TOY)
    twistd = Twistd(tmp_path)
    yield twistd
    for pid in twistd.started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_twistd_lists_the_command(twistd: Twistd) -> None:
    assert re.search(r"(?m)^ +starttls-gateway +Modern TLS", twistd.run("--help").stdout)


def test_its_version_is_the_gateways(twistd: Twistd) -> None:
    from gateway import __version__

    assert twistd.run("starttls-gateway", "--version").stdout == f"starttls-gateway {__version__}\n"


def test_options_do_not_choose_the_reactor() -> None:
    modules = "gateway.app.tap, gateway.app.service, gateway.demo"
    code = f"import sys, {modules}; print('twisted.internet.reactor' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@both_modes
@pytest.mark.parametrize("moment", ["early", "late"])
def test_a_start_that_fails_ends_in_one_line(twistd: Twistd, mode: list[str], moment: str) -> None:
    line = twistd.refused(*mode, "toy", f"--fail={moment}")
    assert line.startswith(TEXT)
    assert line.count("another server listens there") == 3


def test_a_daemons_log_tells_why_it_did_not_start(twistd: Twistd) -> None:
    twistd.run("toy", "--fail=early")
    assert re.match(r'time=\S+Z event=log level=critical message="0\.0\.0\.0:25: Address already', twistd.log()[-1])


@both_modes
def test_mistakes_in_the_file_are_one_line_each(twistd: Twistd, mode: list[str]) -> None:
    (twistd.directory / "gw.ini").write_text(
        "[gateway]\nhostname = mx.example.org\nworkers = none\nlog = xml\n[tls]\ncertificate = none.pem\n"
        "[service:smtp]\nstarttls = 99999\nbackend = store\n"
    )
    done = twistd.run(*mode, "starttls-gateway", "--config", "gw.ini")
    assert done.returncode == 1
    assert done.stdout == ""
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == [
        "[gateway] log",
        "[gateway] workers",
        "[tls] certificate",
        "[service:smtp] starttls",
        "[service:smtp] backend",
    ]
    assert all(re.match(r"gw\.ini, line [0-9]+: ", line) for line in done.stderr.splitlines())
    assert sorted(file.name for file in twistd.directory.glob("twistd.*")) == []


def test_without_a_file(twistd: Twistd) -> None:
    done = twistd.run("--nodaemon", "starttls-gateway", "-c", "none.ini")
    assert (done.returncode, done.stderr) == (
        1,
        "none.ini: No such file or directory; write the path of the configuration file\n",
    )


@both_modes
@pytest.mark.parametrize(
    ("trouble", "line"),
    [
        ("certificate", r"gw\.ini, line 4: \[tls\] certificate: .*/both\.pem: No such file or directory; .+"),
        ("key", r"gw\.ini, line 5: \[tls\] key: .*: Is a directory; .+"),
        ("foreign key", r"starttls-gateway: \[tls\] .*other\.pem.*"),
        ("port", r"starttls-gateway: \[service:smtp\] .*127\.0\.0\.1:\d+: Address already in use.+"),
    ],
)
def test_the_gateway_that_cannot_start_says_so_in_one_line(
    twistd: Twistd, mode: list[str], trouble: str, line: str
) -> None:
    busy = socket.create_server(("127.0.0.1", 0))
    port = busy.getsockname()[1] if trouble == "port" else 0
    key = {"key": "key = .", "foreign key": "key = other.pem"}.get(trouble, "")
    (twistd.directory / "gw.ini").write_text(
        f"[gateway]\nhostname = mx.example.org\n[tls]\ncertificate = both.pem\n{key}\n"
        f"[service:smtp]\nstarttls = 127.0.0.1:{port}\nbackend = 127.0.0.1:1\n"
    )
    for name in {"both.pem", "other.pem"} - ({"both.pem"} if trouble == "certificate" else set()):
        certificate(twistd.directory, name)
    with busy:
        done = twistd.run(*mode, "starttls-gateway", "-c", "gw.ini")
    assert re.fullmatch(line + "\n", done.stderr)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert twistd.pid is None


INTERRUPTED = """
import os, signal
from gateway.app.desk import Desk
opened = Desk.open
def open(desk, values):
    opened(desk, values)
    os.kill(os.getpid(), signal.SIGTERM)
Desk.open = open
"""
"""As a module that Python loads first: SIGTERM comes when the control socket is there."""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_start_that_is_stopped_leaves_no_control_socket(twistd: Twistd, workers: int) -> None:
    directory = twistd.directory
    (directory / "sitecustomize.py").write_text(INTERRUPTED)
    twistd.certified(LISTENING.replace("control = off\n", f"control = {directory}/control\nworkers = {workers}\n"))
    line = twistd.refused("--nodaemon", "starttls-gateway", "-c", "gw.ini")
    assert line == "stopped by SIGTERM before it had started"
    assert not (directory / "control").exists()


def test_all_lines_in_the_foreground_are_events(twistd: Twistd) -> None:
    lines = twistd.told_in_the_foreground("toy")
    assert all(
        re.match(r"time=\S+Z event=(log level=\w+ message=.+|listening service=toy .+)$", line) for line in lines
    )
    assert sum(re.fullmatch(EVENT, line) is not None for line in lines) == 1
    assert any(line.endswith(r'event=log level=info message="two\x0alines event=forged"') for line in lines)
    assert any(line.endswith("event=log level=info message=printed") for line in lines)
    assert any("level=critical" in line and r"Traceback (most recent call last):" in line for line in lines)


def test_json_in_the_foreground(twistd: Twistd) -> None:
    events = [json.loads(line)["event"] for line in twistd.told_in_the_foreground("toy", "--form=json")]
    assert events.count("listening") == 1
    assert set(events) == {"log", "listening"}


def test_a_daemon_logs_to_twistds_file_and_tidies_up(twistd: Twistd) -> None:
    done = twistd.run("toy")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sum(re.fullmatch(EVENT, line) is not None for line in twistd.log()) == 1
    assert (twistd.directory / "twistd.log").stat().st_mode & 0o777 == 0o640
    twistd.stop()
    assert twistd.log()[-1].endswith('message="Server Shut Down."')


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_T19_a_log_file_is_opened_anew_and_the_answer_stands_in_it(twistd: Twistd, number: signal.Signals) -> None:
    log = twistd.directory / "gw.log"
    log.write_text("event=old\n")
    log.chmod(0o640)
    twistd.run("--logfile=gw.log", "toy")
    assert twistd.pid is not None
    log.rename(twistd.directory / "gw.log.1")
    os.kill(twistd.pid, number)
    twistd.stop()
    said = [event_of(line) for line in twistd.log("gw.log")]
    assert said[0]["event"] == "signal"
    assert (said[0]["signal"], said[0]["log"], said[0].get("certificates")) == (
        number.name,
        "reopened",
        "read" if number is signal.SIGHUP else None,
    )
    assert said[-1]["message"] == "Server Shut Down."
    before = [event_of(line) for line in twistd.log("gw.log.1")]
    assert before[0]["event"] == "old", "it was appended to"
    assert "signal" not in [one["event"] for one in before]
    assert "Server Shut Down." not in [one.get("message") for one in before]
    # The same people can read it, although a daemon's umask would let nobody.
    assert log.stat().st_mode & 0o777 == 0o640


def test_T19_a_log_file_that_logrotate_has_made_stays_as_it_was_made(twistd: Twistd) -> None:
    log = twistd.directory / "gw.log"
    twistd.run("--logfile=gw.log", "toy")
    assert twistd.pid is not None
    log.rename(twistd.directory / "gw.log.1")
    log.touch()
    log.chmod(0o604)
    os.kill(twistd.pid, signal.SIGUSR1)
    twistd.stop()
    assert event_of(twistd.log("gw.log")[0])["event"] == "signal"
    assert log.stat().st_mode & 0o777 == 0o604


def test_T19_a_log_file_that_cannot_be_opened_anew_goes_on_and_says_why(twistd: Twistd) -> None:
    (twistd.directory / "log").mkdir()
    twistd.run("--logfile=log/gw.log", "toy")
    assert twistd.pid is not None
    (twistd.directory / "log").rename(twistd.directory / "moved")
    os.kill(twistd.pid, signal.SIGHUP)
    twistd.stop()
    said = [event_of(line) for line in twistd.log("moved/gw.log")]
    (answer,) = [event for event in said if event["event"] == "signal"]
    assert answer["log"] == "kept"
    assert said[said.index(answer) - 1]["message"].startswith(
        f"the log file cannot be opened again, and goes on where it was: {twistd.directory}/log/gw.log: No such file"
    )


@both_modes
def test_T19_a_storm_of_signals_ends_nothing(twistd: Twistd, mode: list[str]) -> None:
    """From the moment at which the pidfile tells whom to send them to, until the process is gone."""
    with subprocess.Popen(
        twistd.command("--logfile=gw.log", *mode, "toy"), cwd=twistd.directory, env=twistd.environment
    ) as process:
        while (pid := twistd.pid_written) is None:
            assert process.poll() in (None, 0)
        twistd.started.append(pid)
        end = os.pidfd_open(pid)
        try:
            served = False
            while not select.select([end], [], [], 0.001)[0]:
                for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
                    with suppress(ProcessLookupError):
                        os.kill(pid, number)
                if not served and (served := "oh no" in "".join(twistd.log("gw.log"))):
                    os.kill(pid, signal.SIGTERM)
        finally:
            os.close(end)
        assert process.wait(60) == 0
    said = twistd.log("gw.log")
    assert said[-1].endswith('message="Server Shut Down."')
    # The toy has one traceback of its own.
    assert sum("Traceback" in line for line in said) == 1
    assert twistd.pid is None


@both_modes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_T20_a_signal_to_stop_ends_a_start_that_is_under_way(
    twistd: Twistd, mode: list[str], number: signal.Signals
) -> None:
    line = twistd.refused(*mode, "toy", f"--fail=early {number.name}")
    assert line == f"stopped by {number.name} before it had started"


@pytest.mark.parametrize("moment", ["late", "lost"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_T20_a_signal_to_stop_at_the_end_of_the_start_is_not_lost(
    twistd: Twistd, number: signal.Signals, moment: str
) -> None:
    done = twistd.run("--nodaemon", "toy", f"--fail={moment} {number.name}")
    assert done.returncode in (0, -number)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1].endswith('message="Server Shut Down."')
    assert f"Received {number.name}, shutting down." in done.stdout
    # The toy has one of its own.
    assert done.stdout.count("Traceback") == 1
    assert twistd.pid is None


@pytest.mark.parametrize("kind", ["none", "of a file", "is a directory", "of the kernel"])
@both_modes
def test_T21_a_pidfile_that_cannot_be_written(twistd: Twistd, mode: list[str], kind: str) -> None:
    (twistd.directory / "file").touch()
    pidfile, why = {
        "none": ("none/gw.pid", "No such file or directory"),
        "of a file": ("file/gw.pid", "Not a directory"),
        "is a directory": (".", "Is a directory"),
        "of the kernel": ("/proc/gw.pid", "No such file or directory"),
    }[kind]
    (twistd.directory / "gw.ini").write_text(FILE)
    assert twistd.refused(*mode, f"--pidfile={pidfile}", "starttls-gateway", "--config=gw.ini") == (
        f"the pidfile {os.path.abspath(twistd.directory / pidfile)}: {why}; "
        "name a file in a directory that can be written with --pidfile, or none with --pidfile="
    )
    assert twistd.stdout == ""


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--uid=nosuch"], "--uid nosuch: there is no such user; `getent passwd` lists those that there are"),
        (["--gid=nosuch"], "--gid nosuch: there is no such group; `getent group` lists those that there are"),
        (["--uid=77777"], "--uid 77777: there is no such user; `getent passwd` lists those that there are"),
    ],
)
@both_modes
def test_T21_a_user_that_does_not_exist(twistd: Twistd, mode: list[str], options: list[str], line: str) -> None:
    (twistd.directory / "gw.ini").write_text(FILE)
    assert twistd.refused(*mode, "starttls-gateway", "--config=gw.ini", *options) == line
    assert twistd.stdout == ""
    assert sorted(file.name for file in twistd.directory.glob("twistd.*")) == []


def test_T21_a_number_before_the_command_is_looked_at_too(twistd: Twistd) -> None:
    (twistd.directory / "gw.ini").write_text(FILE)
    line = twistd.refused("--nodaemon", "--uid=77777", "starttls-gateway", "--config=gw.ini")
    assert line == "--uid 77777: there is no such user; `getent passwd` lists those that there are"


def test_T21_another_runner_gives_up_no_rights(twistd: Twistd) -> None:
    (twistd.directory / "gw.ini").write_text(FILE)
    command = [str(SCRIPTS / "twist"), "starttls-gateway", "--config=gw.ini", "--uid=0"]
    done = subprocess.run(
        command, cwd=twistd.directory, env=twistd.environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr == "starttls-gateway: --uid and --gid need twistd as the runner\n"


NOBODY = pwd.getpwnam("nobody")


@dataclass
class Dropped:
    """A daemon that root has started and that runs as nobody."""

    twistd: Twistd
    directory: Path
    log: Path
    pidfile: Path

    def start(self) -> list[dict[str, str]]:
        """What it said when it started."""
        (self.twistd.directory / "gw.ini").write_text(LISTENING)
        certificate(self.twistd.directory).chmod(0o644)
        names = [f"--logfile={self.log}", f"--pidfile={self.pidfile}"]
        self.run = self.twistd.run(*names, "starttls-gateway", "--config=gw.ini", "--uid=nobody")
        self.pid = int(self.pidfile.read_text())
        self.twistd.started.append(self.pid)
        return self.said()

    def said(self) -> list[dict[str, str]]:
        return [event_of(line) for line in self.log.read_text().splitlines()]

    def rotate(self) -> Path:
        return self.log.rename(self.log.with_suffix(".1"))

    def stop(self) -> None:
        end(self.pid)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that nobody can reach: pytest's own are for their owner alone."""
    with TemporaryDirectory(prefix="gateway-tests-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        yield directory


def dropped(twistd: Twistd, place: Path) -> Dropped:
    return Dropped(twistd, place, place / "gw.log", place / "gw.pid")


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
@pytest.mark.parametrize("mode", [0o755, 0o1777], ids=["a directory of its own", "a directory like /tmp"])
def test_T21_log_and_pidfile_work_as_another_user(
    twistd: Twistd, place: Path, number: signal.Signals, mode: int
) -> None:
    if mode == 0o755:
        os.chown(place, NOBODY.pw_uid, NOBODY.pw_gid)
    place.chmod(mode)
    daemon = dropped(twistd, place)
    assert [event for event in daemon.start() if event["event"] == "rights-missing"] == []
    assert daemon.log.stat().st_uid == NOBODY.pw_uid
    old = daemon.rotate()
    os.kill(daemon.pid, number)
    daemon.stop()
    assert daemon.said()[0]["event"] in ("signal", "certificate", "reload")
    assert daemon.said()[-1]["message"] == "Server Shut Down."
    assert "Server Shut Down." not in old.read_text()
    assert not daemon.pidfile.exists()


@pytest.mark.usefixtures("root")
def test_T21_where_the_user_may_do_nothing_it_is_said_at_the_start(twistd: Twistd, place: Path) -> None:
    place.chmod(0o755)
    daemon = dropped(twistd, place)
    missing = [event for event in daemon.start() if event["event"] == "rights-missing"]
    assert [event["file"] for event in missing] == [str(daemon.log), str(daemon.pidfile)]
    assert missing[0]["detail"].startswith(f"nobody may not create files in {place}: ")
    assert missing[1]["detail"].startswith(f"nobody may not remove files in {place}, ")
    assert all(event["cure"] for event in missing)
    # As logrotate does it with `create`.
    old = daemon.rotate()
    daemon.log.touch(0o640)
    os.chown(daemon.log, NOBODY.pw_uid, -1)
    os.kill(daemon.pid, signal.SIGUSR1)
    daemon.stop()
    assert daemon.said()[-1]["message"] == "Server Shut Down."
    assert "Server Shut Down." not in old.read_text()
    assert daemon.pidfile.exists()
    # What is left behind is in nobody's way.
    daemon.start()
    daemon.stop()


@pytest.mark.usefixtures("root")
def test_T21_root_gives_away_no_file_that_a_user_put_in_the_place_of_the_log(twistd: Twistd, place: Path) -> None:
    treasure = twistd.directory / "treasure"
    treasure.touch(0o600)
    daemon = dropped(twistd, place)
    daemon.log.symlink_to(treasure)
    missing = [event for event in daemon.start() if event["event"] == "rights-missing"]
    assert missing[0]["detail"].startswith("nobody may not write it, ")
    daemon.stop()
    assert treasure.stat().st_uid == 0


@pytest.mark.usefixtures("root")
def test_T21_root_follows_no_link_that_a_user_put_in_the_place_of_the_log(twistd: Twistd, place: Path) -> None:
    os.chown(place, NOBODY.pw_uid, NOBODY.pw_gid)
    treasure = twistd.directory / "treasure"
    (place / "gw.log").symlink_to(treasure)
    assert twistd.refused(f"--logfile={place}/gw.log", "toy") == (
        f"{place}/gw.log: a symbolic link, in a directory that is not root's alone; "
        "name a log file that can be written with --logfile"
    )
    assert not treasure.exists()


def test_T22_a_socket_of_systemd_that_no_service_uses_is_told(twistd: Twistd) -> None:
    twistd.certified(LISTENING.replace("127.0.0.1:0", "systemd:used"))
    with socket.create_server(("127.0.0.1", 0)) as used, socket.create_server(("127.0.0.1", 0)) as unused:
        environment = "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=used:spare"
        # systemd's begin at 3; what they are here must not be in their way.
        one, other = copies = [fcntl.fcntl(each.fileno(), fcntl.F_DUPFD, 60) for each in (used, unused)]
        script = f"exec 3<&{one} 4<&{other} {one}<&- {other}<&-; {environment} exec {shlex.join(twistd.command())} "
        script += "--nodaemon --pidfile= starttls-gateway --config=gw.ini"
        with subprocess.Popen(
            ["bash", "-c", script],
            cwd=twistd.directory,
            env=twistd.environment,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=copies,
        ) as process:
            for copy in copies:
                os.close(copy)
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(event_of(line))
                if said[-1]["event"] == "listening":
                    process.terminate()
        place = "{}:{}".format(*unused.getsockname())
    (told,) = [event for event in said if event["event"] == "unused-socket"]
    assert (told["name"], told["address"]) == ("spare", place)
    assert told["cure"].startswith("write systemd:spare in ")


def test_a_log_file_that_cannot_be_written(twistd: Twistd) -> None:
    assert twistd.refused("--logfile=none/gw.log", "toy") == (
        "none/gw.log: No such file or directory; name a log file that can be written with --logfile"
    )


def test_a_daemon_cannot_log_to_standard_output(twistd: Twistd) -> None:
    assert twistd.refused("--logfile=-", "toy") == (
        "a daemon has no standard output to log to; name a file with --logfile"
    )


def test_another_observer_gets_events_as_messages(twistd: Twistd) -> None:
    (twistd.directory / "observing.py").write_text(
        "from twisted.logger import formatEvent, FileLogObserver\n"
        "def observer():\n"
        "    return FileLogObserver(open('seen.log', 'a'), lambda event: formatEvent(event) + '\\n')\n"
    )
    twistd.run("--logger=observing.observer", "toy")
    twistd.stop()
    assert sum(re.fullmatch(EVENT, line) is not None for line in twistd.log("seen.log")) == 1
    assert not (twistd.directory / "twistd.log").exists()


def test_twist_has_a_log_of_its_own(twistd: Twistd) -> None:
    command = [str(SCRIPTS / "twist"), "--log-format=text", "toy"]
    lines = []
    with subprocess.Popen(
        command, cwd=twistd.directory, env=twistd.environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if "Starting reactor" in line:
                process.terminate()
    assert any("event=listening service=toy" in line for line in lines)
    assert not (twistd.directory / "twistd.log").exists()


def check(directory: Path, text: str) -> subprocess.CompletedProcess[str]:
    (directory / "gw.ini").write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", "check", str(directory / "gw.ini")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


LISTENING = """[gateway]
control = off
hostname = mx.example.org
[tls]
certificate = both.pem
[service:imap]
starttls = 127.0.0.1:0
backend = 127.0.0.1:1
"""
FILE = """[gateway]
control = off
hostname = mx.example.org
[tls]
certificate = both.pem
[service:smtp]
starttls = 25
implicit = [::1]:465
backend = store
[service:imap]
starttls = 143
backend = 10.0.0.5:143
[backend:store]
address = 10.0.0.5:25 unix:/run/old
connect = lazy
"""


def test_check_shows_what_would_be_served(tmp_path: Path) -> None:
    certificate(tmp_path)
    done = check(tmp_path, FILE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n\n")[0].splitlines() == [
        f"{tmp_path}/gw.ini: good; the gateway's host name is mx.example.org",
        "service  protocol  listens on  TLS       policy     backend",
        "smtp     smtp      *:25        STARTTLS  auth-only  10.0.0.5:25, unix:/run/old (lazy)",
        "smtp     smtp      [::1]:465   implicit  -          10.0.0.5:25, unix:/run/old (eager)",
        "imap     imap      *:143       STARTTLS  required   10.0.0.5:143 (eager)",
    ]


def test_check_lists_every_problem(tmp_path: Path) -> None:
    done = check(tmp_path, FILE.replace("143", "99999").replace("lazy", "late"))
    assert (done.returncode, done.stderr) == (1, "")
    assert [line.split(": ")[1] for line in done.stdout.splitlines()] == [
        "[tls] certificate",
        "[backend:store] connect",
        "[service:imap] starttls",
        "[service:imap] backend",
    ]


BROKEN_PIPE = 141
CHECK: list[str | bytes] = [sys.executable, "-m", "gateway.cli", "check"]
PATHS = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["gw.ini"], BROKEN_PIPE),
        (["none.ini"], BROKEN_PIPE),
        (["gw.ini", "--live"], BROKEN_PIPE),
        (["none.ini", "--live", "--json"], BROKEN_PIPE),
        (["--help"], 0),
    ],
)
def test_T21_nobody_reads_what_check_says(tmp_path: Path, arguments: list[str], status: int) -> None:
    certificate(tmp_path)
    (tmp_path / "gw.ini").write_text(LISTENING)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*CHECK, *arguments], cwd=tmp_path, env=PATHS, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (status, "")


@pytest.mark.parametrize(
    ("script", "statuses", "complaint"),
    [
        # Whether head is gone before the end is chance.
        ("{check} gw.ini | head -1; exit ${{PIPESTATUS[0]}}", (0, BROKEN_PIPE), ""),
        ("{check} gw.ini >&-", (0,), ""),
        ("{check} gw.ini > /dev/full", (1,), "starttls-gateway: standard output: No space left on device\n"),
    ],
)
def test_T21_check_in_a_shell(tmp_path: Path, script: str, statuses: tuple[int, ...], complaint: str) -> None:
    certificate(tmp_path)
    (tmp_path / "gw.ini").write_text(LISTENING)
    check = shlex.join(map(os.fsdecode, CHECK))
    done = subprocess.run(
        ["bash", "-c", script.format(check=check)], cwd=tmp_path, env=PATHS, capture_output=True, text=True, timeout=60
    )
    assert done.returncode in statuses
    assert done.stderr == complaint


def test_T21_a_name_that_no_terminal_can_show(tmp_path: Path) -> None:
    environment = {**PATHS, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*CHECK, b"\xff.ini"], cwd=tmp_path, env=environment, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, b"")
    assert done.stdout.startswith(b"\\udcff.ini: No such file or directory; ")


CLOCK = """
import sys, time
from gateway.app.startup import Startup
from gateway.telemetry.events import FORMATS
if sys.argv[1] != "epoll":
    from twisted.internet import asyncioreactor
    asyncioreactor.install()
from twisted.internet import reactor
if "busy" in sys.argv:
    reactor.callLater(1, print)
Startup({}, FORMATS["text"]).privilegedStartService()
reactor.callLater(0.1, reactor.stop)
reactor.run()
print(reactor.seconds is time.monotonic, abs(reactor.seconds() - time.time()) > 3600 * 24 * 365)
"""


@pytest.mark.parametrize(("arguments", "said"), [
    (["epoll"], "True True"),
    (["epoll", "busy"], "False False"),
    (["asyncio"], "True True"),
])  # fmt: skip
def test_M8_deadlines_do_not_follow_the_time_of_day(arguments: list[str], said: str) -> None:
    """Who sets the clock moves no deadline.  What was scheduled before is left on the clock it was scheduled by."""
    done = subprocess.run([sys.executable, "-c", CLOCK, *arguments], capture_output=True, text=True, timeout=30)
    assert (done.stdout.strip(), done.stderr) == (said, "")
