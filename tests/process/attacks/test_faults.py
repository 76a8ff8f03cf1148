"""Attacks M of docs/conformance.md: faults and half-failures."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from soak.cuts import Crew, serving
from tests.process.attacks.conftest import Attack
from tests.process.legacy import SERVERS
from tests.process.recording import Backend, Connection, Script, greet
from tests.process.running import CANARY, Identity, Service, running
from tests.process.wire import Client
from tests.process.words import WORDS

PROTOCOLS = tuple(WORDS)
SESSIONS = 1000
"""`make cuts` has ten thousand."""
each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)


@pytest.mark.parametrize("greeting", [b"SSH-2.0-x\r\n", b"", b"250 hi\r\n", b"* PREAUTH hi\r\n", b"\xff" * 100])
def test_M1_a_backend_that_cannot_serve_is_a_temporary_refusal(
    tmp_path: Path, identity: Identity, greeting: bytes
) -> None:
    """With a gateway of its own: one that has just seen its backend fail spares it for a moment."""
    backend = Backend(greet(greeting))
    services = [Service(name, backend.address, name, ("starttls",)) for name in PROTOCOLS]
    with running(tmp_path, identity, services, {"timeouts": {"greeting": "300 ms"}}) as gateway:
        for protocol in PROTOCOLS:
            with Client(gateway.address(protocol)) as client:
                assert client.rest() == WORDS[protocol].unavailable
    backend.close()


def half(connection: Connection) -> None:
    """Less than a reply, and gone."""
    connection.say(b"2")


def gone(connection: Connection) -> None:
    """Nothing, and gone."""


@pytest.mark.parametrize("how", [gone, half], ids=["without a word", "within a line"])
@each_protocol
def test_M2_a_backend_that_goes_owing_a_reply_is_no_success(attack: Attack, protocol: str, how: Script) -> None:
    step = attack.words(protocol).step
    attack.play(protocol, SERVERS[protocol]({step.split()[-1]: how}))
    client = attack.secure(protocol)
    client.say(step)
    rest = client.rest()
    assert not rest.startswith((b"250", b"z OK", b"+OK")), rest


@pytest.mark.parametrize(
    ("protocol", "goodbye"), [("smtp", b"421 4.3.2 backend is tired\r\n"), ("imap", b"* BYE backend is tired\r\n")]
)
def test_M3_a_backend_that_says_goodbye_is_passed_on(attack: Attack, protocol: str, goodbye: bytes) -> None:
    verb = {"smtp": b"NOOP", "imap": b"NOOP"}[protocol]

    def tire(connection: Connection) -> None:
        connection.say(goodbye)

    attack.play(protocol, SERVERS[protocol]({verb: tire}))
    client = attack.secure(protocol)
    client.say({"smtp": b"NOOP\r\n", "imap": b"a NOOP\r\n"}[protocol])
    assert client.rest().startswith(goodbye)


@pytest.mark.parametrize("how", ["fin", "reset"])
@each_protocol
def test_M4_a_client_that_goes_leaves_no_end_behind(attack: Attack, protocol: str, how: str) -> None:
    client = attack.enter(protocol)
    visit = attack.visit(protocol)
    if how == "fin":
        client.finish()
    else:
        client.reset()
    visit.ended()
    assert b"QUIT" not in visit.heard
    assert b"LOGOUT" not in visit.heard


@each_protocol
def test_M5_everything_and_fin_is_answered(attack: Attack, protocol: str) -> None:
    words = attack.words(protocol)
    client = attack.connect(protocol, policy="optional")
    talk = {
        "smtp": (b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\nx\r\n.\r\n", 4),
        "imap": (b"a LOGIN u %s\r\nb NOOP\r\n" % CANARY.encode(), 2),
        "pop3": (b"USER u\r\nPASS %s\r\nSTAT\r\n" % CANARY.encode(), 3),
    }[protocol]
    client.say((words.hello if protocol == "smtp" else b"") + talk[0] + words.quit)
    client.finish()
    rest = client.rest()
    assert rest.count(b"OK") + rest.count(b"250 ") + rest.count(b"354 ") >= talk[1]
    assert rest.rstrip().lower().endswith(b"bye")


@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_M6_octets_are_the_same_on_both_sides_however_they_are_cut(attack: Attack, protocol: str) -> None:
    dice = random.Random(protocol)
    sent, back = dice.randbytes(600_000), dice.randbytes(600_000)

    def play(connection: Connection) -> None:
        connection.say(b"l OK LOGIN by the backend\r\n" if protocol == "imap" else b"+OK PASS by the backend\r\n")
        at = 0
        while at < len(back):
            size = dice.choice([1, 2, 7, 500, 4096, 65_536])
            connection.say(back[at : at + size])
            at += size
        connection.read_on()

    answers: dict[bytes, bytes | Script] = {b"LOGIN": play, b"USER": b"+OK USER by the backend\r\n", b"PASS": play}
    attack.play(protocol, SERVERS[protocol](answers))
    client = attack.enter(protocol)
    own = random.Random(1)
    at = 0
    while at < len(sent):
        size = own.choice([1, 3, 100, 5000, 40_000])
        client.say(sent[at : at + size])
        at += size
    client.finish()
    assert hashlib.sha256(client.rest()).digest() == hashlib.sha256(back).digest()
    connection = attack.backends[attack.service(protocol)].connection()
    connection.wait_until_ended()
    assert connection.heard.endswith(sent)


def test_M6_so_many_sessions_cut_at_random_lose_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as (gateway, trusting):
        crew = Crew(gateway, trusting, SESSIONS, seed=6)
        crew.work(at_once=8)
        gateway.log.wait("session", count=SESSIONS)
    assert not crew.failures, "\n".join(crew.failures)
