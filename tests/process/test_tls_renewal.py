"""Certificates are renewed under a gateway that works, whatever is wrong with the files, and after it gave up root."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import trustme

from tests.process.conftest import directory_for_servers
from tests.process.legacy import SERVERS
from tests.process.recording import Backend
from tests.process.running import DEADLINE, LIFE, ROOT, Gateway, Identity, Service, running
from tests.process.wire import Caller, Client
from tests.process.words import WORDS

NAME = "mail.example.test"
SESSIONS = 200
RATE = 20
"""Handshakes a second."""
PROMISED = 10.0
"""Seconds after which a renewed certificate is served."""
KINDS = [(protocol, mode) for protocol in WORDS for mode in ("starttls", "implicit")]
NOBODY = pwd.getpwnam("nobody")


class Lineage:
    """A certificate and its renewals as certbot keeps them: links in `live`, which are led to the next files."""

    def __init__(self, directory: Path, authority: trustme.CA) -> None:
        self._authority = authority
        self._numbers = itertools.count(1)
        self.live, self._archive = directory / "live", directory / "archive"
        self.live.mkdir(parents=True)
        self._archive.mkdir()
        self.certificate, self.key = self.live / "fullchain.pem", self.live / "privkey.pem"
        self.shown = self.renew()
        """What clients should see, in DER."""

    def renew(self, lives: timedelta = timedelta(days=90)) -> bytes:
        number = next(self._numbers)
        now = datetime.now(timezone.utc)
        issued = self._authority.issue_cert(NAME, not_before=now - timedelta(days=99), not_after=now + lives)
        chain, key = self._archive / f"fullchain{number}.pem", self._archive / f"privkey{number}.pem"
        chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        key.touch(0o600)
        if os.geteuid() == 0:
            # So as docs/tls.md tells administrators to.
            os.chown(key, 0, NOBODY.pw_gid)
        key.chmod(0o640)
        key.write_bytes(issued.private_key_pem.bytes())
        for link, file in ((self.key, key), (self.certificate, chain)):
            following = link.with_suffix(".next")
            following.symlink_to(f"../archive/{file.name}")
            following.replace(link)
        return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode("ascii"))

    @property
    def options(self) -> dict[str, str]:
        return {"certificate": str(self.certificate), "key": str(self.key)}


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority.cert_pem.bytes().decode("ascii"))


def certificate_of(client: Client) -> bytes:
    found = client.tls.getpeercert(binary_form=True)
    assert found is not None
    return found


# --- while much is going on ----------------------------------------------------------------------


@dataclass(frozen=True)
class Visit:
    """When a handshake began and was done, and which certificate was shown."""

    came: float
    done: float
    certificate: bytes


@dataclass(frozen=True)
class Crowd:
    """Clients from many addresses, on each kind of port in turn."""

    gateway: Gateway
    context: ssl.SSLContext

    def client(self, number: int) -> tuple[str, Client]:
        """Inside TLS."""
        protocol, mode = KINDS[number % len(KINDS)]
        client = Caller(f"127.8.0.{1 + number % 100}", self.gateway.address(protocol, mode))
        try:
            if mode == "starttls":
                client.hear(WORDS[protocol].greeting_)
                client.say(WORDS[protocol].starttls)
                assert client.line() == WORDS[protocol].go_ahead
            client.shake_hands(self.context, NAME)
        except BaseException:
            client.socket.close()
            raise
        return protocol, client

    def resident(self, number: int) -> Callable[[], None]:
        """Who logs in and stays; the answer is a way to see whether the session is alive."""
        protocol, client = self.client(number)
        words = WORDS[protocol]
        if KINDS[number % len(KINDS)][1] == "implicit":
            client.hear(words.greeting_)
        client.say(words.hello)
        client.hear(words.hello_)
        client.say(words.login)
        client.hear(words.login_)

        def answers() -> None:
            client.say(words.hello)
            client.hear(words.hello_)
            client.socket.close()

        return answers

    def visitor(self, number: int) -> Visit:
        """Who comes for a look."""
        came = time.monotonic()
        _, client = self.client(number)
        with client:
            return Visit(came, time.monotonic(), certificate_of(client))


@contextmanager
def arriving(crowd: Crowd, visits: list[Future[Visit]]) -> Iterator[threading.Semaphore]:
    """RATE visitors a second, however long each of them takes; the semaphore counts those who are done."""
    enough, done = threading.Event(), threading.Semaphore(0)

    def send() -> None:
        began = time.monotonic()
        for number in itertools.count():
            if enough.wait(max(0.0, began + number / RATE - time.monotonic())):
                return
            visits.append(pool.submit(crowd.visitor, number))
            visits[-1].add_done_callback(lambda _: done.release())

    with ThreadPoolExecutor(32) as pool:
        sending = threading.Thread(target=send)
        sending.start()
        try:
            yield done
        finally:
            enough.set()
            sending.join(DEADLINE)


def await_visitors(done: threading.Semaphore, count: int) -> None:
    for _ in range(count):
        assert done.acquire(timeout=DEADLINE)


def test_a_renewal_disturbs_neither_sessions_nor_handshakes(tmp_path: Path) -> None:
    authority = trustme.CA()
    lineage = Lineage(tmp_path / "letsencrypt", authority)
    old = lineage.shown
    backends = {protocol: Backend(SERVERS[protocol](None)) for protocol in WORDS}
    services = [Service(protocol, backend.address) for protocol, backend in backends.items()]
    identity = Identity(lineage.certificate, lineage.certificate)
    visits: list[Future[Visit]] = []
    with running(tmp_path, identity, services, options={"tls": lineage.options}) as gateway:
        crowd = Crowd(gateway, trusting(authority))
        residents = [crowd.resident(number) for number in range(SESSIONS)]
        began = time.monotonic()
        with arriving(crowd, visits) as done:
            await_visitors(done, RATE)
            renewed = time.monotonic()
            new = lineage.renew()
            gateway.log.wait("certificate", state="renewed", certificate=str(lineage.certificate))
            told = time.monotonic()
            await_visitors(done, len(visits) + RATE)
        lasted = time.monotonic() - began
        seen = [visit.result(DEADLINE) for visit in visits]
        for answers in residents:
            answers()
        assert gateway.log.events("tls-failed") == []
        assert [event["state"] for event in gateway.log.events("certificate")] == ["loaded", "warning", "renewed"]
    for backend in backends.values():
        backend.close()
    assert told - renewed < PROMISED
    assert len(visits) >= 0.9 * RATE * lasted, f"{len(visits)} in {lasted:.1f} s"
    assert {visit.certificate for visit in seen if visit.done < renewed} == {old}
    assert {visit.certificate for visit in seen if visit.came > told} == {new}
    assert {visit.certificate for visit in seen} == {old, new}


# --- what goes wrong -----------------------------------------------------------------------------


def foreign_key(lineage: Lineage) -> None:
    kept = lineage.key.read_bytes()
    lineage.renew()
    lineage.key.write_bytes(kept)


def truncated(lineage: Lineage) -> None:
    lineage.renew()
    lineage.certificate.write_bytes(lineage.certificate.read_bytes()[:300])


def empty(lineage: Lineage) -> None:
    lineage.renew()
    lineage.certificate.write_bytes(b"")


def expired(lineage: Lineage) -> None:
    lineage.renew(lives=timedelta(days=-1))


def directory_gone(lineage: Lineage) -> None:
    shutil.rmtree(lineage.live)


def unreadable(lineage: Lineage) -> None:
    lineage.renew()
    lineage.key.chmod(0)


BROKEN: Mapping[str, tuple[Callable[[Lineage], None], str]] = {
    "foreign-key": (foreign_key, "does not belong to the first certificate"),
    "truncated": (truncated, "damaged"),
    "empty": (empty, "it is empty"),
    "expired": (expired, "expired on"),
    "directory-gone": (directory_gone, "no such file"),
    "unreadable": (unreadable, "cannot read this file"),
}


@contextmanager
def unprivileged(directory: Path, services: list[Service]) -> Iterator[Gateway]:
    """A gateway that gives up root as soon as it can; started by anybody else, it has none."""
    file = directory / "gateway.ini"
    text = "[gateway]\nhostname = gw.example.test\ncontrol = off\n[timeouts]\nlinger = 500 ms\n"
    file.write_text(text + "\n".join(service.section for service in services) + "\n")
    drop = [f"--uid={NOBODY.pw_uid}", f"--gid={NOBODY.pw_gid}"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            f"import signal; signal.alarm({LIFE}); from twisted.scripts.twistd import run; run()",
            *("-n", "--pidfile=", *drop, "starttls-gateway", "--config", str(file)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=directory,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(directory)},
    )
    gateway = Gateway(process, len(services))
    try:
        gateway.await_listening()
        yield gateway
        gateway.terminate()
        gateway.end()
    finally:
        gateway.kill()


@dataclass(frozen=True)
class House:
    """A gateway without privileges that serves one certificate for each way to break one, and some to renew."""

    gateway: Gateway
    lineages: Mapping[str, Lineage]
    context: ssl.SSLContext

    def shown(self, service: str) -> bytes:
        with Client(self.gateway.address(service, "implicit")) as client:
            client.shake_hands(self.context, NAME)
            return certificate_of(client)

    def told(self, state: str, service: str) -> list[str]:
        """Reasons."""
        wanted = (state, str(self.lineages[service].certificate))
        events = self.gateway.log.events("certificate")
        return [event.get("detail", "") for event in events if (event["state"], event.get("certificate")) == wanted]

    def wait(self, state: str, service: str) -> None:
        self.gateway.log.wait("certificate", state=state, certificate=str(self.lineages[service].certificate))


@pytest.fixture
def house() -> Iterator[House]:
    authority = trustme.CA()
    with ExitStack() as stack:
        directory = stack.enter_context(directory_for_servers())
        lineages = {name: Lineage(directory / name, authority) for name in (*BROKEN, "sound", "private")}
        if os.geteuid() == 0:
            lineages["private"].key.chmod(0o600)
        backend = Backend(SERVERS["imap"](None))
        stack.callback(backend.close)
        services = [
            Service(name, backend.address, "imap", modes=("implicit",), options=lineage.options)
            for name, lineage in lineages.items()
        ]
        gateway = stack.enter_context(unprivileged(directory, services))
        yield House(gateway, lineages, trusting(authority))


def test_broken_renewals_change_nothing_and_good_ones_need_no_privileges(house: House) -> None:
    """All at once, as a look takes its time."""
    if os.geteuid() == 0:
        status = Path(f"/proc/{house.gateway.process.pid}/status").read_text()
        assert f"\nUid:\t{NOBODY.pw_uid}\t{NOBODY.pw_uid}\t" in status
        # What only root can read was said at start, with the cure; nobody else has such a key.
        (said,) = [event for event in house.gateway.log.events("certificate") if event["state"] == "unreadable"]
        assert str(house.lineages["private"].key) in said["detail"]
        assert "chgrp" in said["detail"]
    for service, (spoil, _) in BROKEN.items():
        spoil(house.lineages[service])
    for service in BROKEN:
        house.wait("refused", service)
    # Those that are sound are renewed; what is broken was looked at once more by then.
    fresh = {service: house.lineages[service].renew() for service in ("sound", "private")}
    for service, certificate in fresh.items():
        house.wait("renewed", service)
        assert house.shown(service) == certificate
        assert house.told("refused", service) == []
    for service, (_, reason) in BROKEN.items():
        (told,) = house.told("refused", service)
        assert reason in told, service
        assert house.told("renewed", service) == []
        assert house.shown(service) == house.lineages[service].shown
