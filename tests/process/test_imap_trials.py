"""What real IMAP clients say, and what a real Dovecot answers to odd words, through the gateway: rows T."""

from __future__ import annotations

import re
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process import programs
from tests.process.legacy import imap
from tests.process.recording import Backend
from tests.process.running import CANARY, Gateway, Identity, Service, running
from tests.process.servers import Dovecot
from tests.process.wire import Client

UNREADABLE = rb"\* BAD Error in IMAP command received by server\.\r\n"
POLICIES = ("required", "optional")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, identity: Identity, dovecot: Dovecot) -> Iterator[Gateway]:
    services = [Service(f"imap-{policy}", dovecot.imap, "imap", options={"policy": policy}) for policy in POLICIES]
    with running(tmp_path_factory.mktemp("gateway"), identity, services) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: Gateway, trusting: ssl.SSLContext) -> Iterator[Client]:
    with Client(gateway.address("imap-required", "implicit")) as client:
        client.shake_hands(trusting)
        client.hear(rb"\A\* OK [^\n]*\n")
        yield client
        client.say(b"z LOGOUT \r\n")
        client.hear(rb"\A\* BYE [^\n]*\nz OK [^\n]*\n")


def ask(client: Client, command: bytes, answer: bytes) -> bytes:
    client.say(command)
    return client.hear(rb"\A" + answer)


@pytest.mark.parametrize(
    "command",
    [
        *(b"A] NOOP\r\n", b"A] CAPABILITY\r\n", b"A] LOGOUT\r\n", b"A] LOGIN nobody wrong\r\n", b"A] LOGIN {6}\r\n"),
        *(b"A] LOGIN {6+}\r\nnobody wrong\r\n", b"A] AUTHENTICATE PLAIN\r\n", b'A] ID ("name" "x")\r\n'),
        b"x" * 1000 + b" NOOP\r\n",
    ],
    ids=lambda command: repr(command[:30]),
)
def test_T07_dovecot_cannot_read_a_tag_and_the_session_goes_on(client: Client, command: bytes) -> None:
    """Dovecot hangs up at the third command that it cannot read."""
    ask(client, command, UNREADABLE)
    ask(client, b"b NOOP\r\n", rb"b OK [^\n]*\n")
    ask(client, command, UNREADABLE)
    ask(client, b"c LOGIN {6}\r\n", rb"\+ [^\n]*\n")
    ask(client, b"nobody " + CANARY.encode() + b"\r\n", rb"c OK [^\n]*\n")


def test_T07_the_same_in_the_clear_and_then_inside(gateway: Gateway, trusting: ssl.SSLContext) -> None:
    with Client(gateway.address("imap-optional", "starttls")) as client:
        client.hear(rb"\A\* OK [^\n]*\n")
        ask(client, b"A] NOOP\r\n", UNREADABLE)
        ask(client, b"s STARTTLS \r\n", rb"s OK [^\n]*\n")
        client.shake_hands(trusting)
        ask(client, b"A] NOOP\r\n", UNREADABLE)
        ask(client, b"b LOGIN nobody " + CANARY.encode() + b"\r\n", rb"b OK [^\n]*\n")


@pytest.mark.parametrize("tag", [b"a'b", b"a&b", b"<b>", b"x" * 100, b"}"], ids=repr)
def test_T07_tags_that_dovecot_can_read(client: Client, tag: bytes) -> None:
    ask(client, tag + b" NOOP\r\n", tag + rb" OK [^\n]*\n")


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_T08_curl_logs_in_with_a_password_that_ends_with_a_brace(tmp_path: Path, identity: Identity, mode: str) -> None:
    curl = programs.need("curl", debian="curl")
    # It says LOGIN only to a server without mechanisms, and not if it has seen LOGINDISABLED, be it before TLS.
    backend = Backend(imap({b"CAPABILITY": b"* CAPABILITY IMAP4rev1\r\nTAG OK done\r\n"}))
    with running(tmp_path, identity, [Service("imap", backend.address, options={"policy": "optional"})]) as gateway:
        _, port = gateway.address("imap", mode)
        done = subprocess.run(
            [
                *(curl, "--silent", "--show-error", "--ssl-reqd", "--cacert", identity.authority),
                *("--user", "grete:secret}", "--request", "NOOP"),
                f"{'imap' if mode == 'starttls' else 'imaps'}://localhost:{port}/",
            ],
            capture_output=True,
            timeout=60,
        )
        heard = backend.connection().heard
    backend.close()
    assert done.returncode == 0, done.stderr
    assert re.search(rb" LOGIN grete secret\}\r\n.* NOOP\r\n", heard, re.DOTALL), heard


def test_T09_dovecot_takes_an_ID_of_the_greatest_legal_size(client: Client) -> None:
    fields = b" ".join(b'"%030d" "%s"' % (number, b"v" * 1024) for number in range(30))
    ask(client, b"a ID (" + fields + b")\r\n", rb"\* ID [^\n]*\na OK [^\n]*\n")
    ask(client, b"b NOOP\r\n", rb"b OK [^\n]*\n")


@pytest.mark.parametrize("octets", [9000, 60_000])
def test_T09_a_line_too_long_for_us_costs_no_session(client: Client, octets: int) -> None:
    ask(client, b"a NOOP " + b"x" * octets + b"\r\n", rb"a BAD Command too long\r\n")
    ask(client, b"b NOOP\r\n", rb"b OK [^\n]*\n")


def test_T04_T10_blanks_behind_commands(client: Client) -> None:
    ask(client, b"a NOOP \r\n", rb"a OK [^\n]*\n")
    ask(client, b"b CAPABILITY  \r\n", rb"\* CAPABILITY [^\n]*\nb OK [^\n]*\n")
    ask(client, b"c AUTHENTICATE PLAIN \r\n", rb"\+ [^\n]*\n")
    ask(client, b"*\r\n", rb"c BAD [^\n]*\n")
