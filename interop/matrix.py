"""Every client through the gateway to every server, and each proof.

A client has proven that it works when the letter that it was given came out at the server, or the server's letter came
out at the client, and the gateway says that it was inside TLS.  An FTP client must have done all that `files` tells.

It has proven that it verifies the certificate when the same client, with the same settings, gets nothing through at two
ports whose certificates are wrong: one is from an issuer that it does not know, one is for another name.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import trustme

from interop import servers
from interop.clients import CLIENTS, Client
from interop.files import Parcel
from interop.jobs import CONTROLS, FILES, MODES, USER, WRONG_ISSUER, WRONG_NAME, Job, Letter, Mode
from interop.places import PATIENCE, Ended, Place, run
from interop.servers import Running, Server
from tests.process import running
from tests.process.running import CANARY, Gateway, Identity, Service
from tests.process.servers import Mailbox

ARRIVES = 20.0
"""Seconds from the end of a client until its mail must have come out at the server."""
PATIENCES = {"ftp": 900.0}
"""Seconds that a client may take where it is not PATIENCE."""
STALLED, AGAIN = 10.0, 5
"""Seconds after which a client that stops now and then, or does not know this way, has stopped; and how often the first
is given another chance."""
LIFE = 3 * 3600
"""Seconds after which the gateway ends, whatever became of the matrix."""


@dataclass(frozen=True)
class Outcome:
    """One cell of the table."""

    protocol: str
    client: str
    mode: Mode
    against: str
    """The server's name, or one of CONTROLS."""
    ok: bool
    """It came through; in a control: it refused."""
    detail: str
    """Why it is not ok."""
    known: bool
    """Whether that is what the client's value says of itself."""
    tls: str
    seconds: float


def slug(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower())


class World:
    """The gateway, and what stands behind it."""

    def __init__(
        self,
        gateway: Gateway,
        behind: Sequence[Running],
        mailbox: Mailbox,
        authority: Path,
        directory: Path,
        files: int = FILES,
    ) -> None:
        self.gateway = gateway
        self.behind = behind
        self.mailbox = mailbox
        self.authority = authority
        self.directory = directory
        self._files = files
        self._numbers = count(1)

    def speakers(self, protocol: str) -> list[Running]:
        return [server for server in self.behind if protocol in server.server.protocols]

    def job(self, protocol: str, mode: Mode, service: str, login: bool) -> Job:
        number = next(self._numbers)
        directory = self.directory / f"job-{number}"
        directory.mkdir(mode=0o700)
        # A client in a house of its own sees this folder and no other.
        authority = Path(shutil.copy(self.authority, directory / "authority.pem"))
        return Job(
            protocol,
            mode,
            self.gateway.address(service, mode)[1],
            authority,
            directory,
            f"{USER}@example.test" if protocol != "smtp" else f"letter-{number}@example.test",
            Letter.new(),
            USER if login else "",
            CANARY if login else "",
            files=self._files,
        )

    def do(self, client: Client, mode: Mode, against: str) -> Outcome:
        """A client that stops now and then, and did, has up to AGAIN more chances."""
        outcome, stalled = self._once(client, mode, against)
        for _ in range(AGAIN):
            if not (stalled and client.stalls):
                break
            outcome, stalled = self._once(client, mode, against)
        return outcome

    def _once(self, client: Client, mode: Mode, against: str) -> tuple[Outcome, bool]:
        """One client against one server, or in one of the controls, for which the first server stands; and whether it
        had to be broken off."""
        control = against in CONTROLS
        behind = self.speakers(client.protocol)
        server = behind[0] if control else next(each for each in behind if each.server.name == against)
        service = service_name(client.protocol, against, client.needs)
        job = self.job(client.protocol, mode, service, server.server.login)
        parcel = Parcel(job, server.home)
        if client.protocol == "ftp":
            parcel.lay_out()
        elif client.protocol != "smtp":
            server.place(job.letter)
        since = self.gateway.log.mark()
        begun = time.monotonic()
        command = client.how(job)
        ended = run(
            client.place,
            [str(word) for word in command.argv],
            shared=job.directory,
            stdin=command.stdin,
            environment={"HOME": str(job.directory), **command.environment},
            patience=STALLED if client.stalls or mode in client.lacks else PATIENCES.get(client.protocol, PATIENCE),
        )
        seconds = time.monotonic() - begun
        sessions, proven = self._seen(service, since)
        if client.protocol == "ftp":
            came, difference = parcel.came, parcel.difference()
        else:
            mail = self._came(job, ended, command.fetched(ended), proven)
            came, difference = bool(mail.strip()), job.letter.difference(mail)
        shutil.rmtree(job.directory, ignore_errors=True)
        tls = next((session for session in sessions if session), "")
        said = (
            self._refused(came, bool(sessions), proven, ended)
            if control
            else self._worked(came, difference, tls, ended)
        )
        why = client.faults.get((mode, against)) or ("" if control else client.lacks.get(mode, ""))
        known = bool(said and why)
        detail = f"{why}: {said}" if known else said
        outcome = Outcome(client.protocol, client.name, mode, against, not detail, detail, known, tls, seconds)
        return outcome, ended.broken_off

    def _seen(self, service: str, since: int) -> tuple[list[str], bool]:
        """The TLS versions of its sessions, and whether anything was proven or sent in one of them."""
        try:
            self.gateway.log.wait("session", since, service=service)
        except AssertionError:
            return [], False
        sessions = [event for event in self.gateway.log.events("session", since) if event["service"] == service]
        login = [event for event in self.gateway.log.events("auth", since) if event["service"] == service]
        sent = [session for session in sessions if session.get("messages", "0") != "0"]
        return [session.get("tls", "") for session in sessions], bool(login or sent)

    def _came(self, job: Job, ended: Ended, fetched: bytes, proven: bool) -> bytes:
        if job.protocol != "smtp":
            return fetched
        try:
            return self.mailbox.take(job.recipient, ARRIVES if proven else 0.5)
        except AssertionError:
            return b""

    def _worked(self, came: bool, difference: str, tls: str, ended: Ended) -> str:
        """Nothing if it did; else why not."""
        if not came:
            return reason(ended)
        if difference:
            return difference
        if not tls:
            return "it came through in the clear"
        if ended.status:
            return f"it came through, but the client ended with status {ended.status}: {reason(ended)}"
        return ""

    def _refused(self, came: bool, connected: bool, proven: bool, ended: Ended) -> str:
        """Nothing if it did; else why not."""
        if came:
            return "it came through"
        if proven:
            return "it went on, although nothing came through"
        if ended.broken_off:
            return "it did not come to an end"
        if not connected:
            return f"it did not connect: {reason(ended)}"
        return ""


_TELLING = re.compile(r"error|fail|certif|verif|refus|denied|cannot|unsupported|not ", re.IGNORECASE)
_NOISE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|[\x00-\x08\x0b-\x1f]")


def reason(ended: Ended) -> str:
    """What the client said that tells most, fit for a table."""
    lines = [line for part in ended.said.splitlines() if (line := _NOISE.sub("", part).strip())]
    telling = [line for line in lines if _TELLING.search(line)]
    if not lines:
        return f"exit status {ended.status} without a word"
    return (telling or lines)[-1][:200].replace("|", "/")


def service_name(protocol: str, against: str, needs: Mapping[str, str]) -> str:
    return "-".join([protocol, slug(against), *(slug(f"{name} {value}") for name, value in needs.items())])


def certificates(directory: Path) -> tuple[Identity, Path, Path]:
    """The right one, one of an issuer that nobody knows, and one for another name."""
    identity = Identity.issue(directory)
    authority = trustme.CA()
    other, name = directory / "other-issuer.pem", directory / "other-name.pem"
    authority.cert_pem.write_to_path(str(identity.authority))
    for issuer, names, file in (
        (authority, identity.names, identity.certificate),
        (trustme.CA(), identity.names, other),
        (authority, ("elsewhere.example.test",), name),
    ):
        # fetchmail 6.4 wants a common name, as public CAs write it.
        issued = issuer.issue_cert(*names, common_name=names[0])
        issued.private_key_and_cert_chain_pem.write_to_path(str(file))
    return identity, other, name


@contextmanager
def world(which: Sequence[Server], files: int = FILES) -> Iterator[World]:
    """These servers, and the gateway in front of them; `files`: small ones that an FTP client moves."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="interop-", dir="/tmp")))
        directory.chmod(0o711)
        identity, other_issuer, other_name = certificates(directory)
        mailbox = stack.enter_context(Mailbox())
        behind = [
            stack.enter_context(servers.running(server, directory / slug(server.name), mailbox)) for server in which
        ]
        services = []
        for protocol in sorted({protocol for server in which for protocol in server.protocols}):
            speakers = [each for each in behind if protocol in each.server.protocols]
            ports = {each.server.name: each.ports[protocol] for each in speakers}
            wrong = {WRONG_ISSUER: other_issuer, WRONG_NAME: other_name}
            needs = {service_name(protocol, "", one.needs): one.needs for one in CLIENTS if one.protocol == protocol}
            for name, port in (*ports.items(), *((name, next(iter(ports.values()))) for name in wrong)):
                for needed in needs.values():
                    options = {**needed, **({"certificate": str(wrong[name])} if name in wrong else {})}
                    title = service_name(protocol, name, needed)
                    services.append(Service(title, f"127.0.0.1:{port}", protocol, options=options))
        before, running.LIFE = running.LIFE, LIFE
        stack.callback(setattr, running, "LIFE", before)
        home = directory / "gateway"
        home.mkdir()
        gateway = stack.enter_context(running.running(home, identity, services))
        yield World(gateway, behind, mailbox, identity.authority, directory, files)


def play(world: World, clients: Sequence[Client]) -> Iterator[Outcome]:
    """All of them, one after the other."""
    for client in clients:
        for mode in MODES:
            against = [server.server.name for server in world.speakers(client.protocol)]
            outcomes = [world.do(client, mode, name) for name in against]
            yield from outcomes
            # Who cannot get through with the right certificate proves nothing with a wrong one.
            if any(outcome.ok for outcome in outcomes):
                yield from (world.do(client, mode, control) for control in CONTROLS)


def install(clients: Sequence[Client], which: Sequence[Server]) -> None:
    """The places that these need, each with all its packages: a run of a few does not take the others away."""
    needed: list[tuple[Place, tuple[str, ...]]] = [(client.place, client.packages) for client in CLIENTS]
    needed += [(server.house, server.packages) for server in servers.SERVERS]
    places: list[Place] = [*(client.place for client in clients), *(server.house for server in which)]
    for place in dict.fromkeys(places):
        place.install(sorted({name for other, names in needed if other == place for name in names}))


def show(outcome: Outcome) -> None:
    verdict = "ok" if outcome.ok else f"NO   {outcome.detail}"
    what = f"{outcome.protocol:5} {outcome.client:22} {outcome.mode:9} {outcome.against:14}"
    print(f"{what} {outcome.seconds:5.1f} s  {outcome.tls or '-':8} {verdict}", file=sys.stderr, flush=True)
