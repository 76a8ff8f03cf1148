"""Attacks G of docs/conformance.md: POP3.  The numbers are those of attacks, not of rows."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest

from tests.process.attacks.conftest import Attack
from tests.process.legacy import pop3
from tests.process.recording import Connection
from tests.process.running import DEADLINE


def test_G1_a_whole_session_in_one_segment(attack: Attack) -> None:
    client = attack.secure("pop3")
    client.say(b"USER u\r\nPASS p\r\nSTAT\r\nNOOP\r\nQUIT\r\n")
    said = b"".join(rb"\+OK %s by the backend\r\n" % verb for verb in (b"USER", b"PASS", b"STAT", b"NOOP"))
    client.hear(rb"\A" + said + rb"\+OK bye\r\n")
    assert client.rest() == b""


@pytest.mark.parametrize("octets", [600, 5000, 60_000])
def test_G2_long_commands_are_refused_and_the_next_is_heard(attack: Attack, octets: int) -> None:
    client = attack.secure("pop3")
    client.say(b"USER " + b"x" * octets + b"\r\n")
    assert client.line() == b"-ERR Command too long\r\n"
    attack.answered(client, "pop3")
    assert b"xxx" not in attack.visit("pop3").heard


def test_G2_case_and_blanks_are_as_the_backend_likes(attack: Attack) -> None:
    client = attack.secure("pop3")
    client.say(b"uSeR  u \r\n")
    client.hear(rb"\A\+OK USER by the backend\r\n")
    assert attack.visit("pop3").heard.endswith(b"uSeR  u \r\n")


@pytest.mark.parametrize("line", [b"NOOP\rXCLIENT ADDR=1.2.3.4\r\n", b"NOOP\0\r\n", b"USER a\rPASS b\r\n"], ids=repr)
def test_G3_a_line_that_somebody_splits_is_refused_whole(attack: Attack, line: bytes) -> None:
    client = attack.secure("pop3")
    before = attack.visit("pop3").heard
    client.say(line)
    client.hear(rb"\A-ERR Invalid characters\r\n")
    assert attack.visit("pop3").heard == before


@pytest.mark.parametrize("password", [b"a b  c", b" x", b"\xc3\xa4\xff", b"", b"x "], ids=repr)
def test_G4_passwords_are_passed_on_as_they_are(attack: Attack, password: bytes) -> None:
    client = attack.secure("pop3")
    client.say(b"USER u\r\nUSER v\r\nPASS " + password + b"\r\n")
    client.hear(rb"\A\+OK USER by the backend\r\n\+OK USER by the backend\r\n\+OK PASS by the backend\r\n")
    assert attack.visit("pop3").heard.endswith(b"USER u\r\nUSER v\r\nPASS " + password + b"\r\n")


def test_G5_the_timestamp_is_the_backends(attack: Attack) -> None:
    client = attack.connect("pop3", greeted=False)
    assert b"<1896.697170952@legacy.example.test>" in client.line()


@pytest.mark.parametrize(
    "command", [b"XCLIENT ADDR=1.2.3.4 PORT=1\r\n", b"XOIP 1.2.3.4\r\n", b"xclient addr=1.2.3.4\r\n"]
)
@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_G6_nobody_speaks_for_others(attack: Attack, mode: str, command: bytes) -> None:
    client = attack.connect("pop3", greeted=False)
    assert b"XCLIENT" not in client.line()
    client = attack.secure("pop3", mode)
    client.say(command)
    client.hear(rb"\A-ERR[^\n]*\n")
    assert b"1.2.3.4" not in attack.visit("pop3").heard


def test_G7_lists_of_mechanisms_are_edited(attack: Attack) -> None:
    client = attack.secure("pop3")
    client.say(b"AUTH\r\n")
    assert client.hear(rb"^\.\r\n") == b"+OK\r\nPLAIN\r\n.\r\n"


def test_G8_stls_again_with_an_argument_and_behind_the_login(attack: Attack) -> None:
    client = attack.secure("pop3")
    client.say(b"STLS\r\nSTLS now\r\n")
    client.hear(rb"\A-ERR[^\n]*\n-ERR[^\n]*\n")
    assert b"STLS" not in attack.visit("pop3").heard
    client = attack.enter("pop3")
    client.say(b"STLS\r\n")
    client.hear(rb"\A-ERR unknown\r\n")


@pytest.mark.parametrize("how", ["fin", "reset", "close_notify"])
def test_G9_a_client_that_goes_did_not_say_quit(attack: Attack, how: str) -> None:
    client = attack.enter("pop3")
    client.say(b"DELE 1\r\n")
    client.hear(rb"\A\+OK DELE by the backend\r\n")
    match how:
        case "fin":
            client.finish()
        case "reset":
            client.reset()
        case _:
            client.close_notify()
    visit = attack.visit("pop3")
    visit.ended()
    assert b"QUIT" not in visit.heard


def test_G10_what_looks_like_the_end_of_a_list_in_a_mail_is_mail(attack: Attack) -> None:
    client = attack.enter("pop3")
    client.say(b"RETR 1\r\nNOOP\r\n")
    client.hear(rb"\A\+OK\r\nSubject: x\r\n\r\n\+OK\r\nSTLS\r\n\.\.\r\n\.\r\n\+OK NOOP by the backend\r\n")


def test_G11_a_mail_that_nobody_reads_stops_its_backend(attack: Attack) -> None:
    sent: list[int] = []
    stopped = threading.Event()

    def send(connection: Connection) -> None:
        connection.socket.settimeout(1)
        with suppress(TimeoutError):
            while sum(sent) < 200_000_000:
                sent.append(connection.socket.send(b"x" * 65_536))
        stopped.set()
        connection.read_on()

    attack.play(
        "pop3", pop3({b"PASS": b"+OK PASS by the backend\r\n", b"USER": b"+OK USER by the backend\r\n", b"RETR": send})
    )
    client = attack.enter("pop3")
    before = attack.gateway.resident
    client.say(b"RETR 1\r\n")
    assert stopped.wait(DEADLINE)
    assert 0 < sum(sent) < 50_000_000
    assert attack.gateway.resident - before < 8_000_000
