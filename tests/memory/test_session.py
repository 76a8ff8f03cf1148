"""Whole sessions over real sockets, stepped by hand: what the pure half decided is done, and nothing else.

See test_session_backend.py for the way to the backend.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from dataclasses import replace
from typing import Any, get_args

import pytest

from gateway.config.values import Timeouts
from gateway.dialects import DIALECTS
from gateway.dialects.base import Policy
from gateway.dialects.mail.smtp import exchange
from gateway.protocol.vocabulary import Action, Patience, Send
from gateway.sessions import performer
from gateway.sessions.pair import HALF_CLOSED
from gateway.wire.leg import Leg
from tests.memory.meeting import Meet, Meeting
from tests.memory.stepping import unix_pair
from tests.pure.contract.party import ANSWERS


def welcomed(meeting: Meeting, greeting: bytes = b"+OK hi\r\n") -> Meeting:
    """A client with its greeting; on an implicit port inside TLS."""
    client = meeting.enter()
    if meeting.context.terms.implicit:
        client.start_tls(meeting.authority.client())
        meeting.until(lambda: client.secure)
    meeting.backend.say(greeting)
    meeting.hears(client, greeting)
    return meeting


def spliced(meeting: Meeting) -> Meeting:
    """Logged in by POP3."""
    welcomed(meeting).ask(b"USER joe\r\n", b"+OK\r\n")
    meeting.ask(b"PASS secret\r\n", b"+OK logged in\r\n")
    assert meeting.told("auth")["result"] == "ok"
    return meeting


every_leg = pytest.mark.parametrize("implicit", [False, True], ids=["clear", "TLS"])
OPEN = {"policy": Policy.OPTIONAL}


def laid(implicit: bool) -> dict[str, Any]:
    return {"implicit": True} if implicit else OPEN


# --- a session from beginning to end --------------------------------------------------------------


def test_a_session_with_STARTTLS(meet: Meet) -> None:
    meeting = welcomed(meet("smtp"), b"220 legacy\r\n")
    client, backend = meeting.clients[0], meeting.backend
    client.say(b"EHLO me\r\n")
    meeting.hears(backend, b"EHLO me\r\n")
    backend.say(b"250-legacy\r\n250-AUTH PLAIN\r\n250 SIZE\r\n")
    meeting.hears(client, b"250-legacy\r\n250-SIZE\r\n250 STARTTLS\r\n")
    client.say(b"STARTTLS\r\n")
    meeting.hears(client, b"220 2.0.0 Ready to start TLS\r\n")
    client.start_tls(meeting.authority.client())
    meeting.until(lambda: client.secure)
    client.say(b"EHLO me\r\n")
    meeting.hears(backend, b"EHLO me\r\n")
    backend.say(b"250-legacy\r\n250-AUTH PLAIN\r\n250 SIZE\r\n")
    meeting.hears(client, b"250-legacy\r\n250-AUTH PLAIN\r\n250 SIZE\r\n")
    meeting.ask(b"MAIL FROM:<a@example.org>\r\n", b"250 ok\r\n")
    meeting.ask(b"RCPT TO:<b@example.org>\r\n", b"250 ok\r\n")
    meeting.ask(b"DATA\r\n", b"354 go\r\n")
    meeting.ask(b"Subject: x\r\n\r\nhi\r\n.\r\n", b"250 queued\r\n")
    meeting.ask(b"QUIT\r\n", b"221 bye\r\n")
    meeting.until(lambda: client.ended and backend.ended)
    client.finish()
    backend.finish()
    session = meeting.over()
    assert client.peer is not None
    assert client.peer.ended  # with close_notify
    assert (session["reason"], session["phase"], session["messages"]) == ("quit", "secure", 1)
    assert session["tls"] == "TLSv1.3"
    assert session["protocol"] == "smtp"
    # Plaintext octets, without those of TLS.
    assert session["received"] == 113


@every_leg
def test_a_splice_is_octets_both_ways(meet: Meet, implicit: bool) -> None:
    meeting = spliced(meet(**laid(implicit)))
    everything = bytes(range(256)) * 17
    client, backend = meeting.clients[0], meeting.backend
    client.say(everything + b"QUIT\r\nSTLS\r\n")
    meeting.hears(backend, everything + b"QUIT\r\nSTLS\r\n")
    backend.say(everything[::-1] + b"* BYE\r\n")
    meeting.hears(client, everything[::-1] + b"* BYE\r\n")
    assert meeting.sessions[0].phase() == "relaying"


@pytest.mark.parametrize("octets", [100, 10_000, 40_000, 60_000, 300_000])
@every_leg
def test_what_was_pipelined_behind_the_login_follows_it_however_much_it_is(
    meet: Meet, implicit: bool, octets: int
) -> None:
    """A client that was not read any more, as its inbox was half full, is read again."""
    meeting = welcomed(meet(**laid(implicit)))
    client, backend = meeting.clients[0], meeting.backend
    meeting.ask(b"USER joe\r\n", b"+OK\r\n")
    more = random.Random(octets).randbytes(octets)
    client.say(b"PASS secret\r\n" + more)
    meeting.hears(backend, b"PASS secret\r\n")
    meeting.rest()
    backend.say(b"+OK\r\n")
    meeting.hears(client, b"+OK\r\n")
    meeting.hears(backend, more)
    client.say(b"and more")
    meeting.hears(backend, b"and more")


@every_leg
def test_a_splice_takes_the_short_way_in_both_directions(
    meet: Meet, implicit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    meeting = spliced(meet(**laid(implicit)))

    def refuse(*args: object) -> None:
        raise AssertionError("the general way")

    for name in ("_read", "write"):
        monkeypatch.setattr(Leg, name, refuse)
    meeting.clients[0].say(b"a")
    meeting.hears(meeting.backend, b"a")
    meeting.backend.say(b"b")
    meeting.hears(meeting.clients[0], b"b")


def test_a_client_on_a_UNIX_socket(meet: Meet) -> None:
    meeting = meet(policy=Policy.OPTIONAL)
    far, near = unix_pair()
    client = meeting.enter(near, far, client="")
    meeting.backend.say(b"+OK hi\r\n")
    meeting.hears(client, b"+OK hi\r\n")
    client.sock.close()
    meeting.backend.sock.close()
    assert meeting.over()["client"] == ""


def test_a_service_that_is_closed_dials_nobody(meet: Meet) -> None:
    meeting = meet()
    meeting.context = replace(meeting.context, refusal=lambda: "open-relay")
    client = meeting.enter()
    meeting.hears(client, b"-ERR [SYS/TEMP] Service temporarily unavailable\r\n")
    meeting.until(lambda: client.ended)
    client.finish()
    assert meeting.over()["reason"] == "open-relay"
    assert meeting.dialer.calls == []


# --- back-pressure --------------------------------------------------------------------------------

BULK = 3 * 1024 * 1024
BOUND = 1024 * 1024
"""Of the kernel's buffers, the TLS records and our own 64 KiB a leg; what counts is that it is not BULK."""


@every_leg
@pytest.mark.parametrize("deaf", ["client", "backend"])
def test_in_a_splice_who_does_not_read_stops_the_other(meet: Meet, deaf: str, implicit: bool) -> None:
    meeting = spliced(meet(**laid(implicit)))
    ends = {"client": meeting.clients[0], "backend": meeting.backend}
    reader, talker = ends.pop(deaf), next(iter(ends.values()))
    reader.deaf = True
    bulk = random.Random(1).randbytes(BULK)
    talker.say(bulk)
    meeting.rest()
    assert talker.unsent > BULK - BOUND
    legs = meeting.sessions[0]._legs.values()
    assert all(leg._writing.octets < 256 * 1024 for leg in legs)
    # The other direction is none the worse.
    reader.say(b"are you there?")
    meeting.hears(talker, b"are you there?")
    reader.deaf = False
    meeting.until(lambda: len(reader.heard) >= BULK)
    assert hashlib.sha256(reader.heard).digest() == hashlib.sha256(bulk).digest()


def mailing(meeting: Meeting) -> Meeting:
    """Inside DATA."""
    welcomed(meeting, b"220 legacy\r\n")
    if meeting.context.terms.implicit:
        meeting.ask(b"EHLO me\r\n", b"250 legacy\r\n")
    else:
        meeting.ask(b"HELO me\r\n", b"250 legacy\r\n")
    meeting.ask(b"MAIL FROM:<a@example.org>\r\n", b"250 ok\r\n")
    meeting.ask(b"RCPT TO:<b@example.org>\r\n", b"250 ok\r\n")
    meeting.ask(b"DATA\r\n", b"354 go\r\n")
    return meeting


@every_leg
def test_a_backend_that_does_not_take_a_message_stops_the_client(meet: Meet, implicit: bool) -> None:
    meeting = mailing(meet("smtp", **laid(implicit)))
    client, backend = meeting.clients[0], meeting.backend
    backend.deaf = True
    message = b"x" * 70 + b"\r\n"
    message = message * (BULK // len(message)) + b".\r\n"
    client.say(message)
    meeting.rest()
    assert len(message) - BOUND < client.unsent
    backend.deaf = False
    meeting.until(lambda: len(backend.heard) >= len(message))
    assert backend.heard == message
    backend.say(b"250 queued\r\n")
    meeting.hears(client, b"250 queued\r\n")


def test_a_client_that_never_reads_its_replies_is_not_read_either(meet: Meet) -> None:
    """Before TLS it could have us say a thousand times what its command costs."""
    meeting = welcomed(meet("imap"), b"* OK hi\r\n")
    client = meeting.clients[0]
    client.deaf = True
    client.say(b"a ID NIL\r\n" * 300_000)
    meeting.rest()
    assert client.unsent > BULK - BOUND
    assert all(leg._writing.octets < 256 * 1024 for leg in meeting.sessions[0]._legs.values())


# --- half-closes ----------------------------------------------------------------------------------


@every_leg
@pytest.mark.parametrize("first", ["client", "backend"])
def test_in_a_splice_one_side_may_have_said_everything(meet: Meet, first: str, implicit: bool) -> None:
    meeting = spliced(meet(**laid(implicit)))
    ends = {"client": meeting.clients[0], "backend": meeting.backend}
    one = ends.pop(first)
    other = next(iter(ends.values()))
    one.say(b"the last of it")
    one.finish()
    meeting.hears(other, b"the last of it")
    meeting.until(lambda: other.ended)
    if other.peer is not None:
        assert other.peer.ended
    assert not one.gone
    assert not meeting.closed
    if one.peer is None or first == "backend":
        other.say(b"still here")
        meeting.hears(one, b"still here")
    other.finish()
    session = meeting.over()
    assert not one.reset
    assert session["reason"] == f"{first}-closed"


def test_what_is_queued_comes_before_the_end(meet: Meet) -> None:
    meeting = spliced(meet(policy=Policy.OPTIONAL))
    client, backend = meeting.clients[0], meeting.backend
    client.deaf = True
    bulk = random.Random(2).randbytes(200_000)
    backend.say(bulk)
    meeting.rest()
    client.deaf = False
    meeting.until(lambda: backend.unsent == 0)
    backend.finish()
    meeting.until(lambda: client.ended)
    assert client.heard == bulk
    client.finish()
    assert meeting.over()["reason"] == "backend-closed"


def test_half_a_splice_is_over_when_nothing_moves_any_more(meet: Meet) -> None:
    meeting = spliced(meet(policy=Policy.OPTIONAL))
    client, backend = meeting.clients[0], meeting.backend
    client.finish()
    meeting.until(lambda: backend.ended)
    for _ in range(4):
        meeting.advance(HALF_CLOSED * 0.9)
        backend.say(b"x")
        meeting.rest()
        assert not meeting.closed
    meeting.advance(2 * HALF_CLOSED + 5)
    assert meeting.over()["reason"] == "idle"


def test_a_client_that_closed_with_its_last_words_is_still_answered(meet: Meet) -> None:
    meeting = welcomed(meet("smtp", **OPEN), b"220 legacy\r\n")
    client, backend = meeting.clients[0], meeting.backend
    client.say(b"HELO me\r\n")
    client.finish()
    meeting.hears(backend, b"HELO me\r\n")
    backend.say(b"250 legacy\r\n")
    meeting.hears(client, b"250 legacy\r\n")
    meeting.hears(backend, b"QUIT\r\n")
    backend.finish()
    assert meeting.over()["reason"] == "client-closed"


# --- resets ---------------------------------------------------------------------------------------


@every_leg
@pytest.mark.parametrize("first", ["client", "backend"])
def test_in_a_splice_a_reset_is_passed_on_as_one(meet: Meet, first: str, implicit: bool) -> None:
    """An orderly end would make what came complete: a message, a deletion."""
    meeting = spliced(meet(tcp=True, **laid(implicit)))
    ends = {"client": meeting.clients[0], "backend": meeting.backend}
    ends.pop(first).break_off()
    other = next(iter(ends.values()))
    meeting.until(lambda: other.gone)
    assert other.reset
    assert meeting.over()["reason"] == f"{first}-lost"


def test_a_leg_that_breaks_when_it_is_written_to_resets_the_other(meet: Meet) -> None:
    meeting = spliced(meet(tcp=True, policy=Policy.OPTIONAL))
    client, backend = meeting.clients[0], meeting.backend
    client.deaf = True
    backend.say(b"x" * BULK)
    meeting.rest()
    client.break_off()
    meeting.until(lambda: backend.gone)
    assert backend.reset
    assert meeting.over()["reason"] == "client-lost"


def test_a_truncated_TLS_leg_is_an_end_and_no_reset(meet: Meet) -> None:
    """FIN without close_notify, as many a client does it; a mail in DATA would be dropped all the same."""
    meeting = spliced(meet(implicit=True))
    client, backend = meeting.clients[0], meeting.backend
    client.peer = None
    client.finish()
    meeting.until(lambda: backend.ended)
    backend.finish()
    assert meeting.over()["reason"] == "client-closed"


@pytest.mark.parametrize("how", ["finish", "break_off"])
def test_G18_a_message_that_breaks_off_never_seems_complete(meet: Meet, how: str) -> None:
    meeting = mailing(meet("smtp", tcp=True, **OPEN))
    client, backend = meeting.clients[0], meeting.backend
    client.say(b"Subject: x\r\n\r\nhi\r\n")
    meeting.hears(backend, b"Subject: x\r\n\r\nhi\r\n")
    getattr(client, how)()
    meeting.until(lambda: backend.gone)
    assert backend.reset
    assert backend.heard == b""
    assert meeting.over()["reason"] == "client-lost"


@pytest.mark.parametrize("how", ["finish", "break_off"])
def test_G17_a_backend_that_goes_is_told_in_the_clients_protocol(meet: Meet, how: str) -> None:
    meeting = welcomed(meet("smtp", tcp=True, **OPEN), b"220 legacy\r\n")
    client, backend = meeting.clients[0], meeting.backend
    client.say(b"HELO me\r\n")
    meeting.hears(backend, b"HELO me\r\n")
    getattr(backend, how)()
    meeting.hears(client, b"421 4.4.2 gw.example.org Connection to mail server lost\r\n")
    meeting.until(lambda: client.ended)
    client.finish()
    assert meeting.over()["reason"] == "backend-lost"


# --- deadlines ------------------------------------------------------------------------------------


def test_G09_a_handshake_that_stalls(meet: Meet) -> None:
    meeting = welcomed(meet())
    client, backend = meeting.clients[0], meeting.backend
    client.say(b"STLS\r\n")
    meeting.hears(client, b"+OK Begin TLS negotiation now\r\n")
    client.throw(b"\x16\x03\x01\x02\x00\x01")
    meeting.advance(14.5)
    assert not client.gone
    assert not meeting.lines
    meeting.advance(1.0)
    meeting.until(lambda: client.gone)
    assert client.heard == b""  # not a word in the clear
    meeting.hears(backend, b"QUIT\r\n")
    failed = meeting.told("tls-failed")
    assert (failed["detail"], failed["phase"], failed["key"]) == (
        "handshake timed out",
        "handshake",
        "client-tls-failed",
    )
    meeting.advance(10.0)
    assert meeting.over()["reason"] == "tls-failed"


def test_G09_a_handshake_that_trickles(meet: Meet) -> None:
    meeting = meet(implicit=True)
    client = meeting.enter()
    hello = b"\x16\x03\x01\x02\x00" + b"\x01\x00\x01\xfc\x03\x03" + bytes(100)
    for octet in hello:
        if client.gone:
            break
        client.throw(bytes([octet]))
        meeting.advance(1.0)
    assert client.gone
    client.sock.close()
    assert meeting.over()["seconds"] == pytest.approx(15.0, abs=1.5)
    assert meeting.dialer.calls == []


def test_G08_plaintext_on_an_implicit_port(meet: Meet) -> None:
    meeting = meet(implicit=True)
    client = meeting.enter()
    client.say(b"USER joe\r\n")
    meeting.until(lambda: client.gone)
    assert b"ERR" not in client.heard
    client.sock.close()
    assert meeting.over()["reason"] == "tls-failed"


@pytest.mark.parametrize("protocol", ANSWERS)
@pytest.mark.parametrize("whole", [False, True], ids=["octets", "commands"])
def test_before_TLS_a_client_has_a_minute_whatever_trickles_in(meet: Meet, protocol: str, whole: bool) -> None:
    greeting, (command, answer) = ANSWERS[protocol].greeting, ANSWERS[protocol].listing
    meeting = meet(protocol)
    meeting.dialer.greet = lambda end: end.say(greeting)
    client = meeting.enter()
    meeting.rest()
    trickle = itertools.cycle([command] if whole else [bytes([octet]) for octet in command])
    for _ in range(70):
        client.say(next(trickle))
        meeting.advance(1.0)
        backend = meeting.dialer.backends[0]
        if backend.heard.endswith(command):
            backend.heard = b""
            backend.say(answer)
        if client.gone:
            break
    assert client.gone
    client.sock.close()
    meeting.advance(10.0)
    session = meeting.over()
    assert session["reason"] == "client-timeout"
    assert 59 <= session["seconds"] <= 66


@pytest.mark.parametrize(("options", "seconds", "reason"), [
    ({"timeouts": Timeouts(plaintext=7.0)}, 7.0, "client-timeout"),
    ({"timeouts": Timeouts(plaintext=7.0, preauth=4.0)}, 4.0, "client-timeout"),
    ({"timeouts": Timeouts(proxy_header=2.0), "accept_proxy": ["127.0.0.1"]}, 2.0, "client-timeout"),
])  # fmt: skip
def test_the_first_deadlines_are_configured(meet: Meet, options: dict[str, Any], seconds: float, reason: str) -> None:
    meeting = meet(**options)
    meeting.dialer.greet = lambda end: end.say(b"+OK hi\r\n")
    client = meeting.enter()
    while not client.gone and meeting.reactor.seconds() < 20.0:
        meeting.advance(0.5)
    client.sock.close()
    meeting.advance(10.0)
    session = meeting.over()
    assert session["reason"] == reason
    assert seconds <= session["seconds"] <= seconds + 4.0


@pytest.mark.parametrize("protocol", ANSWERS)
def test_inside_TLS_it_has_three(meet: Meet, protocol: str) -> None:
    greeting = ANSWERS[protocol].greeting_inside or ANSWERS[protocol].greeting
    meeting = welcomed(meet(protocol, implicit=True), greeting)
    client = meeting.clients[0]
    for _ in range(36):
        client.say(b"x")
        meeting.advance(5.0)
    meeting.advance(10.0)
    assert client.gone
    session = meeting.over()
    assert session["reason"] == "client-timeout"
    assert 179 <= session["seconds"] <= 192


@pytest.mark.parametrize(("idle", "reason"), [(0.0, "backend-timeout"), (100.0, "client-timeout")])
def test_who_is_late_if_the_backend_does_not_answer_a_login(meet: Meet, idle: float, reason: str) -> None:
    """Its 330 seconds do not pass before the client's 180."""
    meeting = welcomed(meet(**OPEN))
    client = meeting.clients[0]
    meeting.advance(idle)
    client.say(b"APOP joe 0123\r\n")
    for _ in range(40):
        meeting.advance(5.0)
    assert client.gone
    session = meeting.over()
    assert session["reason"] == reason
    assert 179 <= session["seconds"] <= 192


@pytest.mark.parametrize(("protocol", "greeting", "begins", "octets", "seconds"), [
    # Of a refused login 64 KiB are read on: octet by octet that would be months.
    ("imap", b"* OK hi\r\n", b"a LOGIN {60000+}\r\n", 1, 60.0),
    ("smtp", b"220 hi\r\n", b"BDAT 1000000\r\n", 1000, 180.0),
], ids=["literal", "chunk"])  # fmt: skip
def test_what_trickles_does_not_renew_what_is_left(
    meet: Meet, protocol: str, greeting: bytes, begins: bytes, octets: int, seconds: float
) -> None:
    meeting = welcomed(meet(protocol, policy=Policy.REQUIRED if protocol == "imap" else Policy.AUTH_ONLY), greeting)
    client = meeting.clients[0]
    client.say(begins)
    for _ in range(40):
        client.say(b"x" * octets)
        meeting.advance(5.0)
        if client.gone:
            break
    assert client.gone
    client.sock.close()
    meeting.advance(10.0)
    assert meeting.over()["seconds"] == pytest.approx(seconds, abs=9.0)


def test_a_client_with_a_mail_under_way_has_proven_something(meet: Meet) -> None:
    meeting = mailing(meet("smtp", **OPEN))
    for _ in range(8):
        meeting.advance(50.0)
        meeting.clients[0].say(b"x" * 10_000)
        meeting.rest()
    assert not meeting.closed


def test_in_DATA_every_octet_renews_the_patience(meet: Meet) -> None:
    meeting = mailing(meet("smtp", **OPEN))
    client, backend = meeting.clients[0], meeting.backend
    # Long since as fast as it must be, on average.
    client.say(b"y" * 200_000)
    meeting.rest()
    backend.heard = b""
    for _ in range(5):
        meeting.advance(290.0)
        client.say(b"x")
        meeting.rest()
        assert not client.gone
    meeting.advance(310.0)
    meeting.hears(client, b"421 4.4.2 gw.example.org Timeout exceeded\r\n")
    assert backend.gone
    assert backend.heard in (b"xxxx", b"xxxxx")
    assert meeting.told("client-timeout")["detail"] == "waiting for: data"


def test_S27_the_verdict_on_a_message_may_take_long(meet: Meet) -> None:
    meeting = mailing(meet("smtp", **OPEN))
    client, backend = meeting.clients[0], meeting.backend
    client.say(b"hi\r\n.\r\n")
    meeting.hears(backend, b"hi\r\n.\r\n")
    meeting.advance(655.0)
    assert client.heard == b""
    backend.say(b"250 queued\r\n")
    meeting.hears(client, b"250 queued\r\n")


def test_S27_but_not_for_ever(meet: Meet) -> None:
    meeting = mailing(meet("smtp", **OPEN))
    client, backend = meeting.clients[0], meeting.backend
    client.say(b"hi\r\n.\r\n")
    meeting.hears(backend, b"hi\r\n.\r\n")
    meeting.advance(665.0)
    meeting.hears(client, b"421 4.4.2 gw.example.org Timeout waiting for mail server\r\n")
    meeting.until(lambda: backend.gone)
    assert meeting.told("backend-timeout")["detail"] == "waiting for: final"


def test_a_splice_in_which_nothing_moves_is_over(meet: Meet) -> None:
    meeting = spliced(meet(policy=Policy.OPTIONAL))
    client, backend = meeting.clients[0], meeting.backend
    for end in (client, backend, client):
        meeting.advance(650.0)
        end.say(b"x")
        meeting.rest()
        assert not meeting.closed
    meeting.advance(2 * 660.0 + 10)
    assert meeting.over()["reason"] == "idle"
    assert not client.reset
    assert backend.heard == b"xx"  # no QUIT: it would delete mail


# --- stopping -------------------------------------------------------------------------------------


def test_a_stop_ends_what_is_idle_with_a_word(meet: Meet) -> None:
    meeting = welcomed(meet("smtp", **OPEN), b"220 hi\r\n")
    client, backend = meeting.clients[0], meeting.backend
    meeting.sessions[0].stop()
    meeting.hears(client, b"421 4.3.2 gw.example.org Service not available, closing transmission channel\r\n")
    meeting.hears(backend, b"QUIT\r\n")
    meeting.until(lambda: client.ended and backend.ended)
    client.finish()
    backend.finish()
    assert meeting.over()["reason"] == "shutdown"
    meeting.sessions[0].stop()


def test_a_stop_waits_for_the_end_of_a_message(meet: Meet) -> None:
    meeting = mailing(meet("smtp", **OPEN))
    client, backend = meeting.clients[0], meeting.backend
    client.say(b"hi\r\n")
    meeting.hears(backend, b"hi\r\n")
    meeting.sessions[0].stop()
    meeting.rest()
    assert not client.heard
    client.say(b"there\r\n.\r\n")
    meeting.hears(backend, b"there\r\n.\r\n")
    backend.say(b"250 queued\r\n")
    meeting.hears(
        client,
        b"250 queued\r\n421 4.3.2 gw.example.org Service not available, closing transmission channel\r\n",
    )
    meeting.hears(backend, b"QUIT\r\n")


def test_a_stop_lets_a_splice_go_on_until_it_is_cut(meet: Meet) -> None:
    meeting = spliced(meet(tcp=True, policy=Policy.OPTIONAL))
    client, backend = meeting.clients[0], meeting.backend
    meeting.sessions[0].stop()
    client.say(b"STAT\r\n")
    meeting.hears(backend, b"STAT\r\n")
    meeting.sessions[0].abort()
    meeting.until(lambda: client.reset and backend.reset)
    assert meeting.over()["reason"] == "aborted"
    assert backend.heard == b""


def test_a_stop_while_dialling(meet: Meet) -> None:
    meeting = meet()
    meeting.dialer.delay = 5.0
    client = meeting.enter()
    meeting.sessions[0].stop()
    meeting.hears(client, b"-ERR [SYS/TEMP] Service temporarily unavailable\r\n")
    assert meeting.dialer.calls[0].cancelled
    client.finish()
    assert meeting.over()["reason"] == "shutdown"


def test_a_cut_while_dialling(meet: Meet) -> None:
    meeting = meet(tcp=True)
    meeting.dialer.delay = 5.0
    client = meeting.enter()
    meeting.sessions[0].abort()
    meeting.until(lambda: client.reset)
    assert meeting.dialer.calls[0].cancelled
    assert meeting.over()["reason"] == "aborted"


def test_no_patience_is_missing() -> None:
    """Every wait of every dialect has its seconds: the configuration's or the dialect's own."""
    configured = {Patience.CONNECT, Patience.PROXY, Patience.GREETING, Patience.HANDSHAKE}
    wanted = {value for value in vars(Patience).values() if isinstance(value, Patience)} - configured
    for dialect in DIALECTS.values():
        assert wanted <= set(dialect.patience)
    assert {exchange.GO_AHEAD, exchange.FINAL} <= set(DIALECTS["smtp"].patience)
    assert Timeouts().preauth == 180.0


@every_leg
def test_a_client_that_waited_for_a_backend_is_heard_again_when_that_one_is_lost(meet: Meet, implicit: bool) -> None:
    meeting = mailing(meet("smtp", **laid(implicit)))
    client, backend = meeting.clients[0], meeting.backend
    backend.deaf = True
    client.say((b"x" * 70 + b"\r\n") * 20_000)
    meeting.rest()
    assert client.unsent
    backend.sock.close()
    meeting.until(lambda: b"421 4.4.2 " in client.heard)
    assert b"Connection to mail server lost" in client.heard


def test_somebody_performs_every_action() -> None:
    assert {*performer._DONE, Send} == set(get_args(Action))
