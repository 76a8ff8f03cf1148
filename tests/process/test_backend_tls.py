"""TLS towards backends that cheat at it, stall in it, or have learnt it twenty years ago."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.memory.test_backend_tls import NAME, Backends, Issued, hosts, issue, with_sha1
from tests.process import programs
from tests.process.real_backends import speaking
from tests.process.recording import CAPABILITY, SERVERS, Backend, Connection, Script, greet, imap, pop3, smtp
from tests.process.running import DEADLINE, Gateway, Identity, Service, running
from tests.process.secured import ASKED, GO_AHEAD, VERBS, over_tls, presenting, secured
from tests.process.wire import Client
from tests.process.words import WORDS

PROTOCOLS = tuple(WORDS)
WAYS = ("starttls", "implicit")

# --- attacks.md B: no octet from before TLS counts, and without TLS there is nothing --------------------


class Cheat(NamedTuple):
    row: str
    protocol: str
    way: str
    script: Script
    event: str
    heard: bytes | None = None
    """All that the backend hears; `None` for what `ASKED` says."""


def answered(protocol: str, octets: bytes) -> Script:
    """In place of a go-ahead; what comes then is heard and not answered."""

    def answer(connection: Connection) -> None:
        connection.say(octets)
        connection.read_on()

    return SERVERS[protocol]({VERBS[protocol]: answer})


def injected(protocol: str, octets: bytes, context: ssl.SSLContext) -> Script:
    """Behind the go-ahead, in one segment with it; the handshake would succeed."""

    def answer(connection: Connection) -> None:
        connection.say(GO_AHEAD[protocol] + octets)
        connection.socket = context.wrap_socket(connection.socket, server_side=True)
        connection.read_on()

    return SERVERS[protocol]({VERBS[protocol]: answer})


INJECTIONS = {
    "smtp": [b"250-x\r\n250 AUTH LOGIN PLAIN\r\n", b"250-AUTH PLAIN\r\n250-X", b"421 go away\r\n", b"\r\n", b"\0"],
    "imap": [b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nsgw2 OK done\r\n", b"* CAPAB", b"* BYE\r\n", b"\r\n", b"\0"],
    "pop3": [b"+OK\r\nUSER\r\nSASL PLAIN\r\n.\r\n", b"+O", b"-ERR go away\r\n", b"\r\n", b"\0"],
}
REFUSALS = {
    "smtp": [b"454 4.7.0 TLS not available", b"502 no", b"250 ok", b"354 go on", b"221 bye", b"220-a\r\n220 b"],
    "imap": [b"sgw1 NO not now", b"sgw1 BAD what", b"sgw1 OKAY go"],
    "pop3": [b"-ERR not now", b"+OKgo", b"+ OK"],
}
NO_REPLIES = {
    "smtp": [b"2200 go", b"go"],
    "imap": [b"X OK go", b"+ go"],
    "pop3": [],
}
TLS_FAILED, BROKEN = "backend-tls-failed", "backend-bad-greeting"


def cheats(context: ssl.SSLContext) -> Iterator[Cheat]:
    for protocol in PROTOCOLS:
        for octets in INJECTIONS[protocol]:
            script = injected(protocol, octets, context)
            yield Cheat("G15-B1-B2-B13", protocol, "starttls", script, "backend-starttls-injection")
        for reply in REFUSALS[protocol]:
            yield Cheat("G16-B5", protocol, "starttls", answered(protocol, reply + b"\r\n"), TLS_FAILED)
        for reply in NO_REPLIES[protocol]:
            yield Cheat("G16-B5", protocol, "starttls", answered(protocol, reply + b"\r\n"), BROKEN)
        # A handshake that never comes is another matter; this one is none.
        yield Cheat("G16-B21", protocol, "starttls", answered(protocol, GO_AHEAD[protocol].upper()), "")
        yield Cheat("B14", protocol, "implicit", SERVERS[protocol](None), TLS_FAILED, b"")
    ehlo = b"EHLO gw.example.test\r\n"
    without = smtp({b"EHLO": b"250-legacy.example.test\r\n250 AUTH PLAIN\r\n"})
    yield Cheat("G16-B4", "smtp", "starttls", without, TLS_FAILED, ehlo)
    yield Cheat("B6", "smtp", "starttls", smtp({b"EHLO": b"502 5.5.1 What?\r\n"}), TLS_FAILED, ehlo)
    greeting = b"* OK [CAPABILITY %s] hi\r\n" % CAPABILITY.replace(b"STARTTLS ", b"")
    yield Cheat("G16-B4", "imap", "starttls", greet(greeting), TLS_FAILED, b"")
    for way, wrap in (("starttls", lambda script: script), ("implicit", lambda script: over_tls(context, script))):
        preauth = wrap(greet(b"* PREAUTH [CAPABILITY IMAP4rev1 STARTTLS] hi\r\n"))
        yield Cheat("B7", "imap", way, preauth, "backend-preauth", b"")
    yield Cheat("B8", "imap", "starttls", greet(b"* OK hi\r\nsgw1 OK done\r\n"), "backend-starttls-injection", b"")
