"""What a client and a server do to each other beyond a mail that arrives: each trial is a value, too."""

from __future__ import annotations

import contextlib
import random
import shutil
import smtplib
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from interop import servers
from interop.clients import CLIENTS, DEBIAN
from interop.jobs import HOST, MODES, SENDER, Job, Letter, Mode
from interop.matrix import install
from interop.places import Ended, run
from interop.servers import EXIM_PRDR, OPENSMTPD, POSTSCREEN, Running, Server
from tests.process import running
from tests.process.running import DEADLINE, Gateway, Identity, Service
from tests.process.servers import Mailbox

LISTED, HONEST = "127.9.9.9", "127.9.9.10"
"""Two clients, one of which a blocklist knows."""


@dataclass(frozen=True)
class Trial:
    """One more of these is one more row of the last table."""

    name: str
    server: Server
    expected: str
    """A sentence for the page."""
    play: Callable[[Stage], str]
    """Returns nothing if it went as expected, else what went wrong."""
    backend: Mapping[str, str]
    """Further options of the gateway's backend section."""


@dataclass(frozen=True)
class Stage:
    """The server of a trial, and the gateway in front of it."""

    server: Running
    gateway: Gateway
    mailbox: Mailbox
    authority: Path
    directory: Path

    def send(self, letter: Letter, recipients: Sequence[str], mode: Mode, *options: str, source: str = "") -> Ended:
        """By swaks, which tells all that is said; its lines begin with `<` or, inside TLS, with `<~`."""
        file = self.directory / "letter"
        file.write_bytes(letter.octets(recipients[0]).removesuffix(b"\n"))
        return run(
            DEBIAN,
            [
                *("swaks", "--server", HOST, "--port", str(self.gateway.address("smtp", mode)[1]), "--from", SENDER),
                *("--to", ",".join(recipients), "--tls" if mode == "starttls" else "--tls-on-connect"),
                *("--tls-verify", "--tls-ca-path", str(self.authority), "--data", f"@{file}", *options),
                *(("--local-interface", source) if source else ()),
            ],
            shared=self.directory,
        )

    def arrived(self, recipient: str, letter: Letter) -> str:
        """Nothing if this letter has; else what is wrong."""
        try:
            return letter.difference(self.mailbox.take(recipient))
        except AssertionError as nothing:
            return str(nothing)

    def again(self, recipient: str) -> bool:
        """Whether a second copy comes within a second."""
        with contextlib.suppress(AssertionError):
            self.mailbox.take(recipient, 1.0)
            return True
        return False


@contextmanager
def stage(trial: Trial) -> Iterator[Stage]:
    install([client for client in CLIENTS if client.name in ("Exim", "swaks")], [trial.server])
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="interop-", dir="/tmp")))
        directory.chmod(0o711)
        identity = Identity.issue(directory)
        mailbox = stack.enter_context(Mailbox())
        resolver = stack.enter_context(blocklist())
        server = stack.enter_context(
            servers.running(trial.server, directory / "server", mailbox, {"RESOLVER": resolver})
        )
        # The gateway finds out by itself that the server relays for nobody.
        section = {"address": f"127.0.0.1:{server.ports['smtp']}", **trial.backend}
        home = directory / "gateway"
        home.mkdir()
        service = Service("smtp", "old", options={"policy": "auth-only"})
        gateway = stack.enter_context(running.running(home, identity, [service], {"backend:old": section}))
        if "identity" not in trial.backend:
            gateway.log.wait("relay-closed")  # until then it serves nobody
        job = directory / "client"
        job.mkdir()
        authority = job / "authority.pem"
        authority.write_bytes(identity.authority.read_bytes())
        yield Stage(server, gateway, mailbox, authority, job)


@contextmanager
def blocklist() -> Iterator[str]:
    """A name server that knows one client of dnsbl.example.test, and nothing else; its address.

    It needs port 53, which is free at one of the sixteen million addresses of this machine's loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        while True:
            address = f"127.{random.randrange(64, 128)}.{random.randrange(256)}.{random.randrange(1, 255)}"
            with contextlib.suppress(OSError):
                sock.bind((address, 53))
                break
        over = threading.Event()
        sock.settimeout(0.2)
        answering = threading.Thread(target=_answer, args=(sock, over), daemon=True)
        answering.start()
        try:
            yield address
        finally:
            over.set()
            answering.join(DEADLINE)


def _answer(sock: socket.socket, over: threading.Event) -> None:
    listed = b"".join(
        bytes([len(label)]) + label
        for label in (*(part.encode() for part in reversed(LISTED.split("."))), b"dnsbl", b"example", b"test")
    )
    while not over.is_set():
        try:
            asked, client = sock.recvfrom(512)
        except TimeoutError:
            continue
        end = asked.index(b"\0", 12)
        kind = struct.unpack("!H", asked[end + 1 : end + 3])[0]
        known = asked[12:end].lower() == listed
        data = {1: bytes([127, 0, 0, 2]), 16: b"\x06listed"}.get(kind, b"") if known else b""
        head = asked[:2] + struct.pack("!HHHHH", 0x8180 if known else 0x8183, 1, bool(data), 0, 0)
        answer = b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 1, len(data)) + data if data else b""
        sock.sendto(head + asked[12 : end + 5] + answer, client)


def _said(ended: Ended) -> str:
    return " / ".join(line for line in ended.said.splitlines() if line.startswith("<") and line[3:4].isdigit())


# --- the trials ---------------------------------------------------------------------------------


def _prdr(stage: Stage) -> str:
    with smtplib.SMTP("127.0.0.1", stage.server.ports["smtp"], timeout=DEADLINE) as direct:
        direct.ehlo()
        if not direct.has_extn("prdr"):
            return "this Exim does not offer PRDR"
    for mode in MODES:
        letter = Letter.new()
        wanted = [f"{name}-{mode}@example.test" for name in ("one", "two")]
        port = stage.gateway.address("smtp", mode)[1]
        folder = stage.directory / mode
        folder.mkdir()
        authority = Path(shutil.copy(stage.authority, folder))
        sender = next(client for client in CLIENTS if client.name == "Exim")  # it uses PRDR wherever it is offered
        command = sender.how(Job("smtp", mode, port, authority, folder, ",".join(wanted), letter))
        ended = run(sender.place, [str(word) for word in command.argv], shared=folder, stdin=command.stdin)
        if "PRDR" in ended.said:
            return f"the client was offered PRDR: {ended.said}"
        for recipient in wanted:
            if wrong := stage.arrived(recipient, letter):
                return f"{wrong}: {ended.said}"
            if stage.again(recipient):
                return f"{recipient} has the mail twice"
        if ended.said.count(" => ") + ended.said.count(" -> ") != len(wanted) or " == " in ended.said:
            return f"the client does not take the mail for delivered: {ended.said}"
    return ""


def _second_ehlo(stage: Stage) -> str:
    with smtplib.SMTP("127.0.0.1", stage.server.ports["smtp"], timeout=DEADLINE) as direct:
        direct.ehlo()
        if direct.ehlo()[0] != 503:
            return "this OpenSMTPD takes a second EHLO"
    for number in range(3):
        letter = Letter.new()
        recipient = f"greeted-{number}@example.test"
        ended = stage.send(letter, [recipient], "starttls")
        if ended.status:
            return f"client {number + 1}: swaks ended with status {ended.status}: {_said(ended)}"
        if wrong := stage.arrived(recipient, letter):
            return wrong
    return ""


_BLOCKED = f" 521 5.7.1 Service unavailable; client [{LISTED}] blocked using dnsbl.example.test"


def _postscreen(stage: Stage) -> str:
    for mode in MODES:
        refused = stage.send(Letter.new(), [f"listed-{mode}@example.test"], mode, source=LISTED)
        if not refused.status or _BLOCKED not in refused.said:
            return f"the listed client hears, with status {refused.status}: {_said(refused)}"
        letter = Letter.new()
        recipient = f"honest-{mode}@example.test"
        ended = stage.send(letter, [recipient], mode, source=HONEST)
        if ended.status:
            return f"the honest client after it: swaks ended with status {ended.status}: {_said(ended)}"
        if wrong := stage.arrived(recipient, letter):
            return wrong
    return ""


TRIALS: tuple[Trial, ...] = (
    Trial(
        "PRDR",
        EXIM_PRDR,
        "The server has `prdr_enable = true`. Exim, which uses PRDR wherever it is offered, sends a mail to two"
        " recipients. It is not offered PRDR. It takes the mail for delivered, and each recipient has it once.",
        _prdr,
        {},
    ),
    Trial(
        "a second EHLO",
        OPENSMTPD,
        "The server answers 503 to a second EHLO. Three clients in a row use STARTTLS and get their mail through.",
        _second_ehlo,
        {},
    ),
    Trial(
        "a blocklist",
        POSTSCREEN,
        "postscreen refuses a client that a DNS blocklist knows. That client hears the server's own 521. The next"
        " client gets its mail through at once.",
        _postscreen,
        {"identity": "proxy-v1"},
    ),
)


def attempt(trial: Trial) -> str:
    """Nothing if it went as expected, else what went wrong."""
    try:
        with stage(trial) as there:
            wrong = trial.play(there)
    except AssertionError as broken:
        # The gateway did not start, did not end well, or logged what it must not.
        wrong = " ".join(str(broken).split())[:300]
    print(f"{trial.name}: {wrong or 'as expected'}", file=sys.stderr, flush=True)
    return wrong
