"""Deadlines of channels, and of a session that has one: with a clock that is moved by hand."""

from __future__ import annotations

import errno
import gc
import re
import socket
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.config.values import Backend
from gateway.dialects.base import Policy
from gateway.sessions import channels
from gateway.sessions.agreed import ChannelTerms
from gateway.sessions.session import Session
from gateway.wire import beside
from tests.memory.meeting import End, Meeting
from tests.memory.stepping import SteppedReactor, tcp_pair
from tests.memory.tls_peer import Authority

TERMS = ChannelTerms(range(20000, 30000), connect=60.0, stall=300.0, most=2)


@pytest.fixture
def meeting(reactor: SteppedReactor, authority: Authority) -> Iterator[Meeting]:
    """A session in the clear that is logged in."""
    found = Meeting(reactor, authority, "ftp", policy=Policy.OPTIONAL, client="127.0.0.1", tcp=True)
    found.context = replace(found.context, channels=TERMS)
    client = found.enter()
    found.backend.say(b"220 ready\r\n")
    found.hears(client, b"220 ready\r\n")
    found.ask(b"USER joe\r\n", b"230 in\r\n")
    yield found
    found.leave()


def passive(meeting: Meeting) -> tuple[End, End]:
    """A data connection: the client's end and the server's."""
    (client,), backend = meeting.clients, meeting.backend
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        client.say(b"PASV\r\n")
        meeting.hears(backend, b"PASV\r\n")
        backend.say(b"227 (1,2,3,4,%d,%d)\r\n" % divmod(listening.getsockname()[1], 256))
        meeting.until(lambda: b"\r\n" in client.heard)
        told = re.fullmatch(rb"227 [^(]*\(127,0,0,1,(\d+),(\d+)\)\r\n", client.heard)
        assert told
        client.heard = b""
        sock = socket.create_connection(("127.0.0.1", int(told[1]) * 256 + int(told[2])))
        sock.setblocking(False)
        accepted: list[socket.socket] = []

        def comes() -> bool:
            try:
                accepted.append(listening.accept()[0])
            except BlockingIOError:
                return False
            return True

        meeting.until(comes)
    accepted[0].setblocking(False)
    ends = End(sock), End(accepted[0])
    meeting.others += ends
    return ends


def test_a_session_does_not_time_out_while_data_flows(meeting: Meeting) -> None:
    ours, theirs = passive(meeting)
    meeting.ask(b"RETR a\r\n", b"150 go\r\n")
    for _ in range(10):
        meeting.advance(200)
        theirs.say(b"x")
        meeting.hears(ours, b"x")
    assert not meeting.closed
    theirs.sock.close()
    meeting.until(lambda: ours.gone)
    ours.sock.close()
    meeting.until(lambda: "transfer" in [event["event"] for event in meeting.events])
    # From here on its own deadlines count again.
    meeting.advance(320)
    assert meeting.clients[0].heard == b""
    meeting.advance(20)
    meeting.hears(meeting.clients[0], b"421 Timeout\r\n")
    assert meeting.told("transfer")["reason"] == "backend-closed"


def test_a_server_may_say_many_preliminary_replies_at_once(meeting: Meeting) -> None:
    """At each of them it is asked whether the channel is broken."""
    ours, theirs = passive(meeting)
    meeting.ask(b"RETR a\r\n", b"150 go\r\n" * 1000)
    theirs.say(b"x")
    meeting.hears(ours, b"x")
    for end in (ours, theirs):
        end.sock.close()


def test_a_channel_that_stalls_is_reset(meeting: Meeting) -> None:
    ours, theirs = passive(meeting)
    meeting.ask(b"RETR a\r\n", b"150 go\r\n")
    theirs.say(b"x")
    meeting.hears(ours, b"x")
    meeting.advance(610)
    assert meeting.told("transfer")["reason"] == "stalled"
    assert ours.gone
    assert theirs.gone
    meeting.backend.say(b"426 cut\r\n")
    meeting.hears(meeting.clients[0], b"426 cut\r\n")
    for end in (ours, theirs):
        end.sock.close()


def test_whoever_is_told_that_nobody_came_finds_the_port_closed(
    meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    (client,), backend = meeting.clients, meeting.backend
    knocked: list[tuple[str, int]] = []

    def told(session: Session, event: str, **fields: object) -> None:
        with socket.socket() as knocking:
            knocked.append((event, knocking.connect_ex(("127.0.0.1", int(client.heard.split(b"|")[3])))))

    monkeypatch.setattr(Session, "_emit_of_channel", told)
    client.say(b"EPSV\r\n")
    meeting.hears(backend, b"EPSV\r\n")
    backend.say(b"229 (|||40000|)\r\n")
    meeting.until(lambda: client.heard.endswith(b"|)\r\n"))
    meeting.advance(70)
    assert knocked == [("data-timeout", errno.ECONNREFUSED)]


def test_more_than_so_many_at_a_time_are_refused(meeting: Meeting) -> None:
    held: list[End] = []
    for _ in range(TERMS.most):
        held += passive(meeting)
        meeting.ask(b"RETR a\r\n", b"226 done\r\n")
    client, backend = meeting.clients[0], meeting.backend
    client.say(b"PASV\r\n")
    meeting.hears(backend, b"PASV\r\n")
    backend.say(b"227 (1,2,3,4,100,0)\r\n")
    meeting.hears(client, b"425 Can't open data connection\r\n")
    assert meeting.told("data-refused")["limit"] == "data-connections"
    for end in held:
        end.sock.close()


def test_what_the_system_refuses_is_told(meeting: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(host: str, ports: range | None) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(channels, "listen_beside", lacking)
    client, backend = meeting.clients[0], meeting.backend
    client.say(b"PASV\r\n")
    meeting.hears(backend, b"PASV\r\n")
    backend.say(b"227 (1,2,3,4,100,0)\r\n")
    meeting.hears(client, b"425 Can't open data connection\r\n")
    assert meeting.told("data-refused")["detail"] == "Too many open files"


def test_a_session_that_had_one_leaves_nothing_to_the_garbage_collector(
    reactor: SteppedReactor, authority: Authority
) -> None:
    found = Meeting(reactor, authority, "ftp", policy=Policy.OPTIONAL, client="127.0.0.1", tcp=True)
    found.context = replace(found.context, channels=TERMS)
    client = found.enter()
    found.backend.say(b"220 ready\r\n")
    found.hears(client, b"220 ready\r\n")
    found.ask(b"USER joe\r\n", b"230 in\r\n")
    session = weakref.ref(found.sessions[0])
    gc.disable()
    try:
        for end in passive(found):
            end.sock.close()
        found.leave()
        for held in (found.sessions, found.closed, found.dialer.calls):
            held.clear()
        assert session() is None
    finally:
        gc.enable()


def test_tls_with_the_backend_outlives_the_session(
    reactor: SteppedReactor, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that accepts the data connection only when the control connection is gone gets nothing in the clear."""
    calls: list[Callable[[Any], object]] = []

    class Slow:
        def __init__(self, *_: object, source: str) -> None: ...

        def dial(self, done: Callable[[Any], object], failed: object) -> SimpleNamespace:
            calls.append(done)
            return SimpleNamespace(cancel=lambda: None)

    authority.ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    trusted = Backend("b", (), tls="implicit", ca=tmp_path / "ca.pem")
    found = Meeting(reactor, authority, "ftp", backend=trusted, policy=Policy.OPTIONAL, client="127.0.0.1", tcp=True)
    found.context = replace(found.context, channels=TERMS)
    monkeypatch.setattr(channels, "Dialer", Slow)
    client, backend = found.enter(), found.backend
    backend.start_tls(authority.server(), server=True)
    found.until(lambda: backend.secure)
    backend.say(b"220 ready\r\n")
    found.hears(client, b"220 ready\r\n")
    found.ask(b"USER joe\r\n", b"230 in\r\n")
    client.say(b"EPSV\r\n")
    for said, answer in ((b"PBSZ 0", b"200 ok"), (b"PROT P", b"200 ok"), (b"EPSV", b"229 (|||40000|)")):
        found.hears(backend, said + b"\r\n")
        backend.say(answer + b"\r\n")
    found.until(lambda: client.heard.endswith(b"|)\r\n"))
    port = int(client.heard.split(b"|")[3])
    client.heard = b""
    with socket.create_connection(("127.0.0.1", port)) as ours:
        ours.sendall(b"secret")
        found.until(lambda: calls)
        found.ask(b"QUIT\r\n", b"221 bye\r\n")
        for end in (client, backend):
            end.sock.close()
        found.advance(1)
        near, far = tcp_pair()
        server = End(far)
        found.others.append(server)
        calls[0](near)
        found.until(lambda: server.raw)
        found.rest()
        assert server.raw.startswith(b"\x16")
        assert b"secret" not in server.raw
        far.close()
    found.leave()


def test_a_client_of_ipv4_at_a_socket_for_both_families(reactor: SteppedReactor, authority: Authority) -> None:
    found = Meeting(reactor, authority, "ftp", policy=Policy.OPTIONAL, client="127.0.0.1", tcp=True)
    found.context = replace(found.context, channels=TERMS)
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening:
        far = socket.create_connection(("127.0.0.1", listening.getsockname()[1]))
        near, _ = listening.accept()
    for sock in (near, far):
        sock.setblocking(False)
    client = found.enter(near, far)
    found.backend.say(b"220 ready\r\n")
    found.hears(client, b"220 ready\r\n")
    found.ask(b"USER joe\r\n", b"230 in\r\n")
    for end in passive(found):
        end.sock.close()
    found.leave()


def test_a_service_without_channels_opens_none(reactor: SteppedReactor, authority: Authority) -> None:
    found = Meeting(reactor, authority, "ftp", policy=Policy.OPTIONAL, client="127.0.0.1", tcp=True)
    client = found.enter()
    found.backend.say(b"220 ready\r\n")
    found.hears(client, b"220 ready\r\n")
    client.say(b"EPSV\r\n")
    found.hears(found.backend, b"EPSV\r\n")
    found.backend.say(b"229 (|||40000|)\r\n")
    found.hears(client, b"425 Can't open data connection\r\n")
    found.leave()


def test_ports_are_taken_at_random_until_none_is_free() -> None:
    host, ports = "127.0.0.1", range(20000, 20040)
    with socket.socket() as other:
        taken = []
        try:
            while (sock := beside.listen_beside(host, ports)) is not None:
                taken.append(sock)
            numbers = [sock.getsockname()[1] for sock in taken]
            assert len(set(numbers)) == len(numbers) > beside.FEW
            assert numbers != sorted(numbers)
        finally:
            for sock in taken:
                sock.close()
        free = beside.listen_beside("::1", None)
        assert free is not None
        free.close()
        with pytest.raises(OSError, match="assign requested address"):
            beside.listen_beside("192.0.2.1", ports)
        other.bind((host, 0))
