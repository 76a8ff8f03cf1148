"""Who is measured: the gateway, what others use instead of it, and how each of them is started."""

from __future__ import annotations

import argparse
import grp
import itertools
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from string import Template

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from . import processes

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = Path(__file__).with_name("configs")
PATIENCE = 20.0
"""Seconds until a peer must listen."""
# Debian keeps servers where the path of an ordinary user does not lead.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
_NUMBERS = itertools.count(1)
REPORT = "[report]\nfile = $directory/report.db\n"
"""For the gateway's configuration."""
_TWISTD = "from twisted.scripts.twistd import run; run()"

IMAP_STARTTLS, IMAP_IMPLICIT, SMTP_STARTTLS = "imap_starttls", "imap_implicit", "smtp_starttls"


class Unavailable(Exception):
    """This peer cannot take part; the text says why, and what would help."""


@dataclass(frozen=True)
class Stage:
    """What all of them share: a directory, a certificate, a backend."""

    directory: Path
    certificate: Path
    key: Path
    both: Path
    backend: Mapping[str, int]
    backend_pid: int
    descriptors: int
    workers: int = 1
    """Of the gateway."""
    compiled: set[str] = field(default_factory=set)
    """Peers that have run once: what is Python of them is compiled."""

    @property
    def sessions(self) -> int:
        """As many as the descriptors are enough for, two for each."""
        return (self.descriptors - 500) // 2


@dataclass(frozen=True)
class Peer:
    """Something that can be started; `services` are the ports that it can offer."""

    name: str
    services: tuple[str, ...]
    config: str
    """A file in `configs`."""
    command: Callable[[Path, Mapping[str, object]], Sequence[str]]
    """What to run, given its configuration file and all settings."""
    version: Callable[[], str]
    """Raises Unavailable."""
    environment: Mapping[str, str] = field(default_factory=dict)
    yardstick: bool = False
    """Not somebody whom anybody would use instead, but something to compare with."""
    more: str = ""
    """What its configuration has besides the file in `configs`."""


@dataclass
class Running:
    """A peer that listens."""

    peer: Peer
    process: subprocess.Popen[bytes]
    directory: Path
    ports: Mapping[str, int]
    seconds: float
    """From its start until all its ports took a connection."""

    def cpu(self) -> float:
        return processes.cpu(self.process.pid)

    def memory(self) -> dict[str, int]:
        return processes.memory(self.process.pid)

    def settle(self) -> None:
        processes.settle(self.process.pid)

    def obituary(self) -> str:
        """What it said last if it has ended, nothing if it lives."""
        return "" if self.process.poll() is None else f"has ended: {_last_words(self.directory)}"


def program(text: str) -> str:
    """The path of a program, for a command line. A symbolic link stays one: a virtual environment's Python knows by its
    place what it has."""
    path = shutil.which(text)
    if path is None:
        raise argparse.ArgumentTypeError(f"there is no program {text}")
    return os.path.abspath(path)


def _program(name: str, debian: str) -> str:
    path = shutil.which(name, path=_PATH)
    if path is None:
        raise Unavailable(f"not installed: apt-get install --no-install-recommends {debian}")
    return path


def _said(*command: str) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    return done.stdout + done.stderr


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else "of an unknown version"


def _python_path(root: Path) -> str:
    """Of this checkout, and what the caller has there: packages may come from it."""
    return os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])


def _with_openssl(version: str, openssl: re.Match[str] | None) -> str:
    return f"{version}, OpenSSL {openssl[1]}" if openssl else version


# --- the gateway, and Twisted without it ----------------------------------------------------------


@cache
def about(python: str) -> Mapping[str, str]:
    """What `benchmarks.interpreter` says of this Python."""
    return _told(python, "benchmarks.interpreter")


def speeds(python: str, walk: float) -> Mapping[str, str]:
    """What `benchmarks.machine` says, run by this Python.  `walk`: seconds that it walks over memory."""
    return _told(python, "benchmarks.machine", "--walk", str(walk))


def _told(python: str, module: str, *arguments: str) -> Mapping[str, str]:
    """The JSON that this module prints."""
    environment = {"PATH": _PATH, "PYTHONPATH": _python_path(ROOT)}
    done = subprocess.run(
        [python, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    if done.returncode:
        last = [*done.stderr.splitlines(), f"exit status {done.returncode}"][-2:][0]
        raise Unavailable(f"{python} cannot run the gateway: {last}")
    found: Mapping[str, str] = json.loads(done.stdout)
    return found


def _gateway_version(root: Path, python: str) -> str:
    if not (root / "gateway" / "__init__.py").exists():
        raise Unavailable(f"{root}: no checkout of the gateway")
    commit = _said("git", "-C", str(root), "describe", "--always", "--dirty").strip()
    described = commit if re.fullmatch(r"[\w.-]+", commit) else "no repository"
    found = about(python)
    return f"{described}, {found['python']}, OpenSSL {found['openssl']}"


def gateway(root: Path = ROOT, name: str = "gateway", python: str = sys.executable) -> Peer:
    """The gateway of this checkout, under this Python."""

    def run(config: Path, settings: Mapping[str, object]) -> list[str]:
        return [python, "-c", _TWISTD, "-n", "--pidfile=", "starttls-gateway", "--config", str(config)]

    return Peer(
        name,
        (IMAP_STARTTLS, IMAP_IMPLICIT, SMTP_STARTTLS),
        "gateway.ini",
        run,
        lambda: _gateway_version(root, python),
        {"PYTHONPATH": _python_path(root)},
    )


def twisted(python: str = sys.executable) -> Peer:
    """A bare port forward, under this Python."""

    def run(config: Path, settings: Mapping[str, object]) -> list[str]:
        arguments = ("certificate", "key", IMAP_IMPLICIT, "imap")
        return [python, "-m", "benchmarks.forward", *(str(settings[name]) for name in arguments)]

    def version() -> str:
        found = about(python)
        return f"{found['twisted']}, {found['python']}, OpenSSL {found['openssl']}"

    return Peer("twisted", (IMAP_IMPLICIT,), "", run, version, {"PYTHONPATH": _python_path(ROOT)}, yardstick=True)


# --- the others ---------------------------------------------------------------------------------------

_NGINX_MAIL = Path("/usr/lib/nginx/modules/ngx_mail_module.so")


def _run_nginx(config: Path, settings: Mapping[str, object]) -> list[str]:
    # Its own log until it has read where its log is.
    return [_program("nginx", ""), "-e", f"{settings['directory']}/nginx.log", "-c", str(config)]


def _nginx_version() -> str:
    text = _said(_program("nginx", "nginx-core libnginx-mod-mail"), "-V")
    if not _NGINX_MAIL.exists() and not re.search(r"--with-mail(?!=dynamic)(\s|$)", text):
        raise Unavailable("without its mail module: apt-get install --no-install-recommends libnginx-mod-mail")
    openssl = re.search(r"running with OpenSSL (\S+?)[ )]", text) or re.search(r"built with OpenSSL (\S+)", text)
    return _with_openssl(_first(r"nginx/(\S+)", text), openssl)


def _run_stunnel(config: Path, settings: Mapping[str, object]) -> list[str]:
    return [_program("stunnel4", ""), str(config)]


def _stunnel_version() -> str:
    text = _said(_program("stunnel4", "stunnel4"), "-version")
    openssl = re.search(r"(?:Running  ?|Compiled/running )with OpenSSL (\S+)", text)
    return _with_openssl(_first(r"stunnel (\S+)", text), openssl)


def _run_haproxy(config: Path, settings: Mapping[str, object]) -> list[str]:
    return [_program("haproxy", ""), "-db", "-f", str(config)]


def _haproxy_version() -> str:
    text = _said(_program("haproxy", "haproxy"), "-vv")
    openssl = re.search(r"Running on OpenSSL version : OpenSSL (\S+)", text)
    return _with_openssl(_first(r"version (\d+\.\d+\.\d+)", text), openssl)


def _run_dovecot(config: Path, settings: Mapping[str, object]) -> list[str]:
    return [_program("dovecot", ""), "-F", "-c", str(config)]


def _dovecot_version() -> str:
    path = _program("dovecot", "dovecot-imapd")
    if not Path("/usr/lib/dovecot/imap-login").exists():
        raise Unavailable("without IMAP: apt-get install --no-install-recommends dovecot-imapd")
    version = _said(path, "--version").split()[0]
    if not version.startswith("2.3."):
        raise Unavailable(f"version {version}, and configs/dovecot.conf is written in the language of 2.3")
    return version


OTHERS = (
    Peer("nginx", (IMAP_STARTTLS, IMAP_IMPLICIT, SMTP_STARTTLS), "nginx.conf", _run_nginx, _nginx_version),
    Peer("stunnel", (IMAP_STARTTLS, IMAP_IMPLICIT, SMTP_STARTTLS), "stunnel.conf", _run_stunnel, _stunnel_version),
    Peer("haproxy", (IMAP_IMPLICIT,), "haproxy.cfg", _run_haproxy, _haproxy_version),
    Peer("dovecot", (IMAP_STARTTLS, IMAP_IMPLICIT), "dovecot.conf", _run_dovecot, _dovecot_version),
)


def everybody(python: str = sys.executable) -> list[Peer]:
    """In the order of the report; this Python runs those that are Python."""
    return [gateway(python=python), *OTHERS, twisted(python)]


# --- start and stop -------------------------------------------------------------------------------------


def _settings(stage: Stage, directory: Path) -> dict[str, object]:
    me = pwd.getpwuid(os.geteuid())
    root = me.pw_uid == 0
    return {
        "directory": directory,
        "certificate": stage.certificate,
        "key": stage.key,
        "both": stage.both,
        "descriptors": stage.descriptors,
        "sessions": stage.sessions,
        # An earlier gateway does not know the option.
        "workers": f"workers = {stage.workers}" if stage.workers > 1 else "",
        "load_module": f"load_module {_NGINX_MAIL};" if _NGINX_MAIL.exists() else "",
        "internal_user": "dovecot" if root else me.pw_name,
        "internal_group": "dovecot" if root else grp.getgrgid(me.pw_gid).gr_name,
        "login_user": "dovenull" if root else me.pw_name,
        **stage.backend,
    }


@contextmanager
def _reserved(count: int) -> Iterator[list[int]]:
    """Ports that the system gives to nobody else, while whoever says SO_REUSEADDR, as servers do, may listen there."""
    with ExitStack() as stack:
        ports = []
        for _ in range(count):
            holding = stack.enter_context(socket.socket())
            holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holding.bind(("127.0.0.1", 0))
            ports.append(holding.getsockname()[1])
        yield ports


def _takes_connections(port: int) -> bool:
    with socket.socket() as knocking:
        knocking.settimeout(1.0)
        return knocking.connect_ex(("127.0.0.1", port)) == 0


def _launch(peer: Peer, stage: Stage, directory: Path, ports: Mapping[str, int], patience: float) -> Running:
    settings = {**_settings(stage, directory), **ports}
    config = directory / (peer.config or "none")
    if peer.config:
        config.write_text(Template((CONFIGS / peer.config).read_text() + peer.more).substitute(settings))
    command = peer.command(config, settings)
    log = directory / "output.log"
    environment = {
        "PATH": _PATH,
        "HOME": str(directory),
        # As after an installation: compiled before, but not in somebody's checkout.
        "PYTHONPYCACHEPREFIX": str(stage.directory / "pycache"),
        **peer.environment,
    }
    began = time.perf_counter()
    process = processes.start(command, directory, log, environment)
    try:
        missing = list(ports.values())
        while missing:
            missing = [port for port in missing if not _takes_connections(port)]
            if missing:
                if process.poll() is not None or time.perf_counter() - began > patience:
                    raise Unavailable(f"does not start: {_last_words(directory)}")
                time.sleep(0.002)
        return Running(peer, process, directory, ports, time.perf_counter() - began)
    except BaseException:
        processes.end(process)
        raise


def _last_words(directory: Path) -> str:
    said = [line for path in sorted(directory.glob("*.log")) for line in path.read_text(errors="replace").splitlines()]
    return " | ".join(said[-3:])[-500:] or "it says nothing"


@contextmanager
def running(peer: Peer, stage: Stage, patience: float = PATIENCE) -> Iterator[Running]:
    """A process of its own for as long as the block takes.  `patience`: seconds until it must listen.

    Raises Unavailable.
    """
    if "PYTHONPATH" in peer.environment and peer.name not in stage.compiled:
        stage.compiled.add(peer.name)
        # Who compiles modules, also Twisted's, keeps 5 MB of memory that others do not have.
        with running(peer, stage, patience):
            pass
    # Short, for Dovecot makes sockets below it, whose paths may have 107 octets.
    directory = stage.directory / f"{peer.name}-{next(_NUMBERS)}"
    directory.mkdir(mode=0o755)
    with _reserved(len(peer.services)) as ports:
        started = _launch(peer, stage, directory, dict(zip(peer.services, ports, strict=True)), patience)
        try:
            yield started
        finally:
            processes.end(started.process)


def issue(directory: Path) -> tuple[Path, Path, Path]:
    """A P-256 certificate that vouches for itself, its key, and both in one file."""
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(secret, SHA256())
        .public_bytes(Encoding.PEM)
    )
    key = secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    files = directory / "certificate.pem", directory / "key.pem", directory / "both.pem"
    for path, octets in zip(files, (certificate, key, certificate + key), strict=True):
        path.touch(mode=0o600)
        path.write_bytes(octets)
    return files


@contextmanager
def stage(directory: Path, descriptors: int, workers: int = 1) -> Iterator[Stage]:
    """The backend runs for as long as the block takes."""
    directory.chmod(0o755)
    certificate, key, both = issue(directory)
    home = directory / "backend"
    home.mkdir()
    log = home / "output.log"
    environment = {"PATH": _PATH, "PYTHONPATH": _python_path(ROOT), "PYTHONPYCACHEPREFIX": str(directory / "pycache")}
    backend = processes.start([sys.executable, "-m", "benchmarks.backend"], home, log, environment)
    try:
        deadline = time.monotonic() + PATIENCE
        while not log.read_text().endswith("}\n"):
            if backend.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the backend does not start: {log.read_text()}")
            time.sleep(0.01)
        ports: dict[str, int] = json.loads(log.read_text())
        yield Stage(directory, certificate, key, both, ports, backend.pid, descriptors, workers)
    finally:
        processes.end(backend)
