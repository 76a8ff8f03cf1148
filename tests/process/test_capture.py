"""The dialogue of one client, read by an administrator: of all workers, without passwords and mails."""

from __future__ import annotations

import base64
import os
import signal
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gateway.cli.__main__ import main
from tests.process.conftest import directory_for_servers
from tests.process.legacy import SERVERS
from tests.process.recording import Backend
from tests.process.running import CANARY, DEADLINE, Gateway, Identity, Service, running, secrets
from tests.process.test_workers import sources
from tests.process.wire import Caller, visit
from tests.process.words import WORDS

FIRST, SECOND = sources(0, 2), sources(1, 2)
MAIL = b"Subject: nobody else reads this\r\n\r\nHELP me\r\nEHLO is a word of mine\r\n"

ASKING = {
    b"EHLO": b"250-legacy.example.test\r\n250 AUTH PLAIN\r\n",
    b"AUTH": b"334 cGxlYXNl\r\n",
    b"MAIL": b"250 2.1.0 Ok\r\n",
    b"RCPT": b"250 2.1.5 Ok\r\n",
}
"""Of an SMTP server that asks for the response, and does not take it."""


@contextmanager
def gateway_(directory: Path, identity: Identity, workers: int) -> Iterator[Gateway]:
    with ExitStack() as stack:
        backends = {name: Backend(make(ASKING if name == "smtp" else None)) for name, make in SERVERS.items()}
        for backend in backends.values():
            stack.callback(backend.close)
        services = [Service(name, backend.address) for name, backend in backends.items()]
        options = {"gateway": {"workers": str(workers), "control": f"{directory}/control"}}
        gateway = stack.enter_context(running(directory, identity, services, options))
        if workers > 1:
            gateway.log.wait("worker", count=workers, state="serving")
        yield gateway


@contextmanager
def reading(directory: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command, when it has begun."""
    command = [sys.executable, "-m", "gateway.cli", "capture", *arguments, "--socket", f"{directory}/control"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = process.stderr.readline()
            assert "new sessions, for " in said, said
            yield process
        finally:
            process.kill()


def enter(gateway: Gateway, source: str, protocol: str, trusting: ssl.SSLContext) -> Caller:
    client = Caller(source, gateway.address(protocol, "implicit"))
    client.shake_hands(trusting)
    return client


def log_in_in_all_ways(gateway: Gateway, source: str, trusting: ssl.SSLContext) -> None:
    coded = base64.b64encode(b"\0grete\0" + CANARY.encode())
    with enter(gateway, source, "smtp", trusting) as smtp:
        smtp.hear(WORDS["smtp"].greeting_)
        smtp.say(WORDS["smtp"].hello)
        smtp.hear(rb"^250 [^\n]*\n")
        smtp.say(CANARY.encode() + b" typed in the wrong moment\r\nPASS " + CANARY.encode() + b"\r\n")
        smtp.say(b"AUTH PLAIN\r\n")
        smtp.hear(rb"^334[^\n]*\n")
        smtp.say(coded + b"\r\n")
        smtp.hear(rb"^[25]\d\d [^\n]*\n")
        for command in (b"MAIL FROM:<hans@example.org>", b"RCPT TO:<grete@example.test>"):
            smtp.say(command + b"\r\n")
            smtp.hear(rb"^250 [^\n]*\n")
        smtp.say(b"DATA\r\n")
        smtp.hear(rb"^354 [^\n]*\n")
        smtp.say(MAIL + b".\r\n")
        smtp.hear(rb"^250 [^\n]*\n")
        smtp.say(b"QUIT\r\n")
        smtp.rest()
    with enter(gateway, source, "imap", trusting) as imap:
        imap.hear(rb"^\* OK [^\n]*\n")
        imap.say(b"a LOGIN grete {%d}\r\n" % len(CANARY))
        imap.hear(rb"^\+ [^\n]*\n")
        imap.say(CANARY.encode() + b"\r\n")
        imap.hear(rb"^a OK [^\n]*\n")
        imap.say(b"b NOOP\r\nc LOGOUT\r\n")
        imap.rest()
    with enter(gateway, source, "pop3", trusting) as pop3:
        visit(pop3, "pop3")


@pytest.mark.parametrize("workers", [1, 2])
def test_the_dialogue_of_a_client_is_read_without_its_secrets(
    tmp_path: Path, identity: Identity, trusting: ssl.SSLContext, workers: int
) -> None:
    file = tmp_path / "dialogue.txt"
    with directory_for_servers() as directory, gateway_(directory, identity, workers) as gateway:
        with reading(directory, "127.9.0.0/16", "--to", str(file)) as process:
            for source in (FIRST[0], SECOND[0]):
                log_in_in_all_ways(gateway, source, trusting)
            with enter(gateway, "127.8.0.1", "smtp", trusting) as stranger:
                stranger.hear(WORDS["smtp"].greeting_)
                stranger.say(b"EHLO stranger\r\n")
                stranger.hear(rb"^250 [^\n]*\n")
            gateway.log.wait("session", count=7)
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 0
        (told,) = [one for one in gateway.log.events("control") if one["command"] == "capture"]
        assert told["about"] == "127.9.0.0/16"
    said = file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for secret in (*secrets(), "grete ", "nobody else", "HELP me", "a word of mine", "stranger"):
        assert secret not in said, secret
    lines = [line.split(" ", 3)[2:] for line in said.splitlines()]
    texts = [text for _, text in lines]
    for text in (
        "C: EHLO client.example.test", "C: AUTH PLAIN", "S: 334 <8 octets>", "C: MAIL FROM:<hans@example.org>",
        "C: DATA", f"C: <{len(MAIL) + 3} octets>", "C: QUIT", "C: a LOGIN <10 octets>", "C: USER <5 octets>",
        f"C: PASS <{len(CANARY)} octets>",
    ):  # fmt: skip
        assert texts.count(text) == 2, (text, said)
    assert sum(text.startswith("-- secured phase=handshake leg=client tls=TLSv1.3") for text in texts) == 6
    assert sum(text.startswith("-- session protocol=") for text in texts) == 6


def test_a_capture_ends_by_itself_and_takes_no_file_that_is_there(
    tmp_path: Path, identity: Identity, trusting: ssl.SSLContext, capsys: pytest.CaptureFixture[str]
) -> None:
    with directory_for_servers() as directory, gateway_(directory, identity, 1) as gateway:
        with reading(directory, FIRST[0], "--for", "1s") as process:
            with Caller(FIRST[0], gateway.address("imap")) as client:
                client.hear(WORDS["imap"].greeting_)
                client.say(b"a \x1b[31mX\r\n")
                client.hear(rb"^a BAD [^\n]*\n")
                client.say(b'b ID ("name" "\x1b]0;x")\r\n')
                client.say(b"c LOGOUT\r\n")
                client.rest()
            out, _ = process.communicate(timeout=DEADLINE)
            assert process.returncode == 0
        assert "S: c OK" in out
        assert all(sign.isprintable() or sign == "\n" for sign in out), ascii(out)
        there = tmp_path / "there"
        there.write_text("precious")
        link = tmp_path / "link"
        os.symlink(there, link)
        socket = ("--socket", f"{directory}/control")
        for path in (there, link):
            assert main(["capture", FIRST[0], "--to", str(path), *socket]) == 1
            assert "name a new file, in a directory that exists" in capsys.readouterr().err
        assert there.read_text() == "precious"
        assert main(["capture", "printer", *socket]) == 1
        assert '"printer" is not a network' in capsys.readouterr().err
        assert main(["capture", FIRST[0], "--for", "9d", *socket]) == 1
        assert "9 d 0 h is out of range" in capsys.readouterr().err
    assert main(["capture", FIRST[0], "--socket", str(tmp_path / "nowhere")]) == 3
