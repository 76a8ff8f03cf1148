"""The gateway as an operator runs it: a twistd process with a file, told apart from others only by its log."""

from __future__ import annotations

import base64
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

from tests import events

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 20.0
"""Seconds after which what should have happened will not happen: long for a busy machine, short for a person."""
LIFE = 3600
"""Seconds after which a gateway ends by itself, whatever became of the tests that started it."""
WORKERS = "GATEWAY_TEST_WORKERS"
"""The variable that says how many workers gateways have whose tests do not say so."""
CANARY = "Zaunkoenig-77-im-Schacht"
"""The password of all tests: it may stand nowhere in a log, in no form."""
ENDED_WELL = 0
"""After a stop, whichever signal asked for it."""

# The alarm outlives everything that the process does, and needs nobody to watch it.
_TWISTD = """
import resource, signal
signal.alarm({life})
{first}
from twisted.scripts.twistd import run
run()
"""
_EVERYTHING = """
from gateway.telemetry import kinds
kinds.Event.allows = lambda event, fields: None
"""
_FIELD = re.compile(r'([^\s=]+)=(?:"((?:[^"\\]|\\.)*)"|(\S*))')

Event = Mapping[str, str]


def secrets(password: str = CANARY) -> list[str]:
    """A password, and what base64 makes of it wherever it begins."""
    octets = password.encode()
    forms = [password]
    for shift in range(3):
        # The outermost signs also depend on the neighbours; what lies between them does not.
        coded = base64.b64encode(bytes(shift) + octets).decode()
        forms.append(coded[-(-shift * 8 // 6) : (shift + len(octets)) * 8 // 6])
    return forms


def parse(line: str) -> dict[str, str]:
    """A logfmt line as its fields; what is escaped but for quotes stays so."""
    return {
        name: bare if quoted is None else re.sub(r'\\(["\\])', r"\1", quoted)
        for name, quoted, bare in ((m[1], m[2], m[3]) for m in _FIELD.finditer(line))
    }


class Log:
    """What the process says, as it says it."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._events: list[dict[str, str]] = []
        self._grown = threading.Condition()
        self._ended = False

    def take(self, lines: Iterator[str]) -> None:
        """Reads to the end; for a thread."""
        for line in lines:
            with self._grown:
                self._lines.append(line.rstrip("\n"))
                self._events.append(parse(line))
                self._grown.notify_all()
        with self._grown:
            self._ended = True
            self._grown.notify_all()

    @property
    def text(self) -> str:
        with self._grown:
            return "\n".join(self._lines)

    @property
    def told(self) -> list[Event]:
        """Every line, as its fields."""
        with self._grown:
            return list(self._events)

    def mark(self) -> int:
        """Now: later calls look only at what was said after it."""
        with self._grown:
            return len(self._lines)

    def events(self, name: str, since: int = 0) -> list[Event]:
        with self._grown:
            return [event for event in self._events[since:] if event.get("event") == name]

    def wait(self, name: str, since: int = 0, count: int = 1, **fields: str) -> Event:
        """The event of that name, the `count`-th one, that has these fields."""
        found: list[Event] = []

        def enough() -> bool:
            found[:] = [
                event
                for event in self._events[since:]
                if event.get("event") == name and fields.items() <= event.items()
            ]
            return len(found) >= count or self._ended

        with self._grown:
            self._grown.wait_for(enough, DEADLINE)
            said = "\n".join(self._lines[since:])
        assert len(found) >= count, f"no {name} {fields} ({len(found)} of {count}) in:\n{said}"
        return found[count - 1]


class Speaker(Log):
    """What a program says, line by line."""

    def hear(self, pattern: str, since: int = 0, patience: float = DEADLINE) -> re.Match[str]:
        """The first line with it."""
        expression = re.compile(pattern)
        found: list[re.Match[str]] = []

        def heard() -> bool:
            found.extend(match for line in self._lines[since:] if (match := expression.search(line)))
            return bool(found) or self._ended

        with self._grown:
            self._grown.wait_for(heard, patience)
            said = "\n".join(self._lines[since:])
        assert found, f"no {pattern} in:\n{said}"
        return found[0]


def wait_until(holds: Callable[[], bool]) -> None:
    """For what another process does without saying so."""
    until = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < until, "it did not happen"
        threading.Event().wait(0.01)


def wait_until_gone(pid: int) -> None:
    """Until the process has ended; somebody else's, so that it cannot be waited for."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(DEADLINE * 1000), f"process {pid} did not end"
    finally:
        os.close(descriptor)


@contextmanager
def speaking(
    command: Sequence[str], stream: str = "stdout", stdin: int = subprocess.DEVNULL
) -> Iterator[tuple[subprocess.Popen[str], Speaker]]:
    """A program until the end of the block, and what it says there."""
    process = subprocess.Popen(
        ["timeout", str(LIFE), *command],
        stdin=stdin,
        stdout=subprocess.PIPE if stream == "stdout" else None,
        stderr=subprocess.PIPE if stream == "stderr" else None,
        text=True,
        errors="replace",
    )
    source = process.stdout or process.stderr
    assert source is not None
    speaker = Speaker()
    draining = threading.Thread(target=speaker.take, args=(source,), daemon=True)
    draining.start()
    try:
        yield process, speaker
    finally:
        process.terminate()
        process.wait(DEADLINE)
        draining.join(DEADLINE)
        source.close()
        if process.stdin is not None:
            process.stdin.close()


class Systemd:
    """The socket of NOTIFY_SOCKET, as the service manager has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(DEADLINE)
        self.socket.bind(str(path))

    def hear(self, key: str) -> dict[str, str]:
        """The next message that has this key."""
        while True:
            told = dict(line.split("=", 1) for line in self.socket.recv(4096).decode().split("\n"))
            if key in told:
                return told


@dataclass(frozen=True)
class Service:
    """`[service:NAME]` on ports that the system chooses."""

    name: str
    backend: str
    protocol: str = ""
    modes: Sequence[str] = ("starttls", "implicit")
    options: Mapping[str, str] = field(default_factory=dict)
    watched: bool = False
    """An SMTP backend at an address is first asked whether it relays; those that tests script would."""
    addresses: Sequence[str] = ("127.0.0.1:0",)
    """Where each mode listens."""

    @property
    def section(self) -> str:
        protocol, backend = self.protocol or self.name, self.backend
        meant = []
        if protocol == "smtp" and ":" in backend and not self.watched:
            backend = f"{self.name}-server"
            meant = [f"[backend:{backend}]", f"address = {self.backend}", "allow_relay = yes"]
        lines = [f"[service:{self.name}]", f"protocol = {protocol}", f"backend = {backend}"]
        lines += [f"{mode} = {' '.join(self.addresses)}" for mode in self.modes]
        lines += [f"{name} = {value}" for name, value in self.options.items()]
        return "\n".join([*lines, *meant])


@dataclass(frozen=True)
class Identity:
    """The gateway's certificate, on disk, and who vouches for it."""

    certificate: Path
    authority: Path
    names: Sequence[str] = ("localhost", "127.0.0.1", "mail.example.test")

    @classmethod
    def issue(cls, directory: Path) -> Identity:
        authority = trustme.CA()
        certificate, trusted = directory / "certificate.pem", directory / "authority.pem"
        authority.issue_cert(*cls.names).private_key_and_cert_chain_pem.write_to_path(str(certificate))
        authority.cert_pem.write_to_path(str(trusted))
        return cls(certificate, trusted)


class Gateway:
    """A running one."""

    def __init__(self, process: subprocess.Popen[str], listening: int) -> None:
        self.process = process
        self.log = Log()
        self.errors = Log()
        self._threads = [
            threading.Thread(target=log.take, args=(stream,), daemon=True)
            for log, stream in ((self.log, process.stdout), (self.errors, process.stderr))
        ]
        for thread in self._threads:
            thread.start()
        self._addresses: dict[tuple[str, str], tuple[str, int]] = {}
        self._expected = listening

    def await_listening(self) -> None:
        try:
            self.log.wait("listening", count=self._expected)
        except AssertionError as missing:
            raise AssertionError(f"{missing}\nstandard error:\n{self.errors.text}") from None
        for event in self.log.events("listening"):
            host, _, port = event["address"].rpartition(":")
            self._addresses[event["service"], event["mode"]] = host, int(port)

    def address(self, service: str, mode: str = "starttls") -> tuple[str, int]:
        return self._addresses[service, mode]

    @property
    def file(self) -> Path:
        """Its configuration."""
        words = self.process.args
        assert isinstance(words, list)
        return Path(words[words.index("--config") + 1])

    @property
    def ports(self) -> set[int]:
        """Those of TCP and IPv4 that its first process listens at now."""
        directory = Path(f"/proc/{self.process.pid}")
        held = set()
        for descriptor in (directory / "fd").iterdir():
            with suppress(FileNotFoundError):
                held.add(os.readlink(descriptor))
        rows = [line.split() for line in (directory / "net/tcp").read_text().splitlines()[1:]]
        return {int(row[1].partition(":")[2], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in held}

    @property
    def resident(self) -> int:
        """Resident octets."""
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        found = re.search(r"^Rss:\s+(\d+) kB", rollup, re.MULTILINE)
        assert found, rollup
        return int(found[1]) * 1024

    @property
    def descriptors(self) -> int:
        """How many the process has open.  A session is told in the log before all of its sockets are closed."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def cpu(self) -> float:
        """Seconds of CPU, user and system, that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def end(self, deadline: float = DEADLINE) -> None:
        """Wait for an end that was asked for, and look over what was said."""
        try:
            status = self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the gateway did not end:\n{self.log.text}") from None
        finally:
            for thread in self._threads:
                thread.join(DEADLINE)
        assert status == ENDED_WELL, f"exit status {status}\n{self.log.text}\n{self.errors.text}"
        self.inspect()

    def inspect(self) -> None:
        """No bug showed, no secret was told."""
        said = f"{self.log.text}\n{self.errors.text}"
        problems = {events.wrong(told, typed=False) for told in self.log.told if "event" in told}
        assert problems <= {""}, f"gateway/telemetry/catalogue.py: {problems}"
        for bad in ("Traceback", "level=critical", "level=error", "Unhandled", *secrets()):
            found = [line for line in said.splitlines() if bad in line]
            assert not found, f"the log says {bad}:\n" + "\n".join(found)

    def kill(self) -> None:
        """For a gateway that may be in any state."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for thread in self._threads:
            thread.join(DEADLINE)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


def launch(
    directory: Path,
    identity: Identity,
    services: Sequence[Service],
    options: Mapping[str, Mapping[str, str]] | None = None,
    descriptors: int | None = None,
    summed: bool = False,
    user: str = "",
    source: Path = ROOT,
    group: str = "",
    pidfile: str = "",
    python: str = sys.executable,
    code: str = "",
    environment: Mapping[str, str] | None = None,
) -> Gateway:
    """A gateway that listens.  `options` are further sections; `descriptors` is how many it may open; unless it is
    `summed`, every event is told, for to the gateway the tests are a flood.  `user` and `group`: whom it becomes;
    `source`: where the code is, and what `python` needs besides; `code` is run in it first, with these
    further variables in its `environment`."""
    sections: dict[str, dict[str, str]] = {
        "gateway": {
            "hostname": "gw.example.test",
            "drain": "2 s",
            "workers": os.environ.get(WORKERS, "1"),
            "control": "off",
        },
        "tls": {"certificate": str(identity.certificate)},
        # All tests are one client.
        "limits": {
            "sessions_per_client": "10000",
            "connects_per_minute": "100000",
            "auth_failures_per_minute": "100000",
        },
    }
    for title, more in (options or {}).items():
        sections.setdefault(title, {}).update(more)
    text = "".join(
        f"[{title}]\n" + "".join(f"{name} = {value}\n" for name, value in values.items()) + "\n"
        for title, values in sections.items()
    ) + "\n\n".join(service.section for service in services)
    file = directory / "gateway.ini"
    file.write_text(text + "\n")
    limit = f"resource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors}, {descriptors}))" if descriptors else ""
    first = "\n".join((limit, "" if summed else _EVERYTHING, code))
    process = subprocess.Popen(
        [
            *(python, "-c", _TWISTD.format(life=LIFE, first=first)),
            *("-n", f"--pidfile={pidfile}", "starttls-gateway", "--config", str(file)),
            *((f"--uid={user}",) if user else ()),
            *((f"--gid={group}",) if group else ()),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=directory,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(source), "HOME": str(directory), **(environment or {})},
    )
    gateway = Gateway(process, sum(len(service.modes) * len(service.addresses) for service in services))
    try:
        gateway.await_listening()
    except BaseException:
        gateway.kill()
        raise
    return gateway


def rewrite(directory: Path, old: str, new: str) -> None:
    """In the file of the gateway that was launched there."""
    file = directory / "gateway.ini"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@contextmanager
def running(
    directory: Path,
    identity: Identity,
    services: Sequence[Service],
    options: Mapping[str, Mapping[str, str]] | None = None,
    **more: Any,
) -> Iterator[Gateway]:
    """A gateway for as long as the block takes; it must end well and have said nothing bad.  `more`: as of `launch`."""
    gateway = launch(directory, identity, services, options, **more)
    try:
        yield gateway
        if gateway.process.poll() is None:
            gateway.terminate()
        gateway.end()
    finally:
        gateway.kill()
