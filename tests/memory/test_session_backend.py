"""The backend leg of whole sessions, with real TLS at its other end: the rows B and H of docs/conformance.md
that need sockets."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway.config.values import Backend, TCPAddress, Timeouts
from gateway.dialects.base import Identity, Policy
from gateway.wire.dialer import Dialer
from tests.memory.meeting import End, Meet, Meeting, Reached
from tests.memory.stepping import SteppedReactor
from tests.memory.tls_peer import Authority, Peer
from tests.pure.contract.answers import ldap, mysql
from tests.pure.contract.party import ANSWERS

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")


@pytest.fixture
def anchors(authority: Authority, directory: Path) -> Path:
    path = directory / "ca.pem"
    authority.ca.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def secured(anchors: Path) -> Callable[..., Backend]:
    def backend(tls: str = "implicit", **changes: Any) -> Backend:
        return Backend("b", (), **{"tls": tls, "ca": anchors, **changes})

    return backend


def sorry(meeting: Meeting, client: End) -> dict[str, Any]:
    """The client hears its protocol's temporary refusal and nothing else, and it is over."""
    meeting.hears(client, ANSWERS[meeting.context.dialect.name].unavailable)
    meeting.until(lambda: client.gone)
    assert client.heard == b""
    client.sock.close()
    for backend in meeting.ends[1:]:
        backend.sock.close()
    return meeting.over()


# --- TLS towards the backend ----------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ANSWERS)
def test_a_backend_with_implicit_TLS(meet: Meet, secured: Callable[..., Backend], protocol: str) -> None:
    meeting = meet(protocol, backend=secured(), policy=Policy.OPTIONAL)
    client = meeting.enter()
    backend = meeting.backend
    backend.start_tls(meeting.authority.server(), server=True)
    meeting.until(lambda: backend.secure)
    greeting = ANSWERS[protocol].greeting
    backend.say(greeting)
    meeting.hears(client, greeting)
    command, reply = ANSWERS[protocol].command
    meeting.ask(command, reply)
    assert meeting.dialer.calls[0].verdicts == ["greeted"]
    assert backend.raw[:1] == b"\x16"
    assert command not in backend.raw


def begun(meeting: Meeting, backend: End) -> None:
    """Up to our STLS."""
    backend.say(b"+OK hi\r\n")
    meeting.hears(backend, b"STLS\r\n")


def test_a_backend_with_STARTTLS_to_the_splice(meet: Meet, secured: Callable[..., Backend]) -> None:
    meeting = meet(backend=secured("starttls"), implicit=True)
    client = meeting.enter()
    client.start_tls(meeting.authority.client())
    meeting.until(lambda: client.secure)
    backend = meeting.backend
    # B23: it is early, and hears nothing of it before the backend is who it should be.
    client.say(b"USER joe\r\nPASS secret\r\nSTAT\r\n")
    begun(meeting, backend)
    meeting.rest()
    assert backend.heard == b""
    backend.say(b"+OK go\r\n")
    backend.start_tls(meeting.authority.server(), server=True)
    meeting.until(lambda: backend.secure)
    meeting.hears(client, b"+OK hi\r\n")
    meeting.hears(backend, b"USER joe\r\n")
    backend.say(b"+OK\r\n")
    meeting.hears(backend, b"PASS secret\r\n")
    backend.say(b"+OK\r\n")
    meeting.hears(client, b"+OK\r\n+OK\r\n")
    meeting.hears(backend, b"STAT\r\n")
    bulk = bytes(range(256)) * 2000
    backend.say(bulk)
    meeting.hears(client, bulk)
    backend.finish()
    meeting.until(lambda: client.ended)
    assert client.peer is not None
    assert client.peer.ended
    client.finish()
    assert meeting.over()["reason"] == "backend-closed"
    assert backend.raw.startswith(b"STLS\r\n\x16")
    assert b"secret" not in backend.raw


def others(directory: Path) -> Path:
    """The certificate of an issuer who has issued nothing here."""
    path = directory / "others.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    return path


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@pytest.mark.parametrize("protocol", ANSWERS)
@pytest.mark.parametrize("wrong", ["name", "issuer", "pin"])
def test_G16_B16_a_certificate_that_is_not_right(
    meet: Meet, secured: Callable[..., Backend], directory: Path, protocol: str, tls: str, wrong: str
) -> None:
    """The client's temporary refusal, the reason in the log, and not an octet of the client's to the backend."""
    wrongs: dict[str, dict[str, Any]] = {
        "name": {"certificate_name": "other.example.test"},
        "issuer": {"ca": others(directory)},
        "pin": {"verify": "sha256:" + "00" * 32, "ca": None},
    }
    meeting = meet(protocol, backend=secured(tls, **wrongs[wrong]), policy=Policy.OPTIONAL)
    client = meeting.enter()
    answers = ANSWERS[protocol]
    client.say(answers.login)
    backend = meeting.backend
    ours = b""
    if tls == "starttls":
        said = answers.offer
        for asked, answer in (*answers.asks, answers.backend_starttls):
            backend.say(said)
            meeting.hears(backend, asked)
            ours += asked
            said = answer
        backend.say(said)
    backend.start_tls(meeting.authority.server(), server=True)
    meeting.until(lambda: backend.gone)
    assert not backend.heard
    assert backend.raw.startswith(ours + b"\x16")
    assert answers.login.split()[-1] not in backend.raw
    session = sorry(meeting, client)
    assert session["reason"] == "backend-tls-failed"
    reason = {"name": "certificate is for mail.example.test, not other", "issuer": "unknown CA", "pin": "pin does not"}
    assert session["detail"].startswith(reason[wrong])
    assert meeting.told("backend-tls-failed")["detail"] == session["detail"]
    assert meeting.dialer.calls[0].verdicts == ["failed: address"]


def test_TLS_that_fails_after_the_greeting_speaks_against_the_address(
    meet: Meet, secured: Callable[..., Backend]
) -> None:
    """MySQL: the client's login answers this greeting, so that no other address is tried for this client."""
    backend = secured("starttls", certificate_name="other.example.org")
    meeting = meet("mysql", backend=backend, policy=Policy.OPTIONAL, addresses=2)
    client = meeting.enter()
    server = meeting.backend
    server.say(mysql.greeting(ssl=True))
    meeting.hears(client, mysql.greeting(ssl=True))
    client.say(mysql.login(1, ssl=False))
    meeting.hears(server, mysql.SSL_REQUEST)
    server.start_tls(meeting.authority.server(), server=True)
    meeting.until(lambda: server.gone and client.gone)
    assert meeting.dialer.calls[0].verdicts == ["greeted", "failed: address"]
    assert len(meeting.dialer.backends) == 1


@pytest.mark.parametrize("host", ["mail.example.test", "other.example.test"])
def test_B17_without_a_name_in_the_file_it_is_the_host_that_was_dialled(
    meet: Meet, secured: Callable[..., Backend], host: str
) -> None:
    meeting = meet(backend=secured())
    client = meeting.enter()
    meeting.dialer.calls[0].reached = Reached(host)
    backend = meeting.backend
    backend.start_tls(meeting.authority.server(), server=True)
    if host == "mail.example.test":
        meeting.until(lambda: backend.secure)
        backend.say(b"+OK I am other.example.test\r\n")
        meeting.hears(client, b"+OK I am other.example.test\r\n")
    else:
        assert sorry(meeting, client)["detail"].endswith("not other.example.test")


@pytest.mark.parametrize("turn", range(3))
def test_B14_a_backend_that_greets_before_its_handshake(meet: Meet, secured: Callable[..., Backend], turn: int) -> None:
    """Before we dial is over, before our ClientHello, or behind it: its words are ciphertext that is none."""
    meeting = meet("smtp", backend=secured())
    if turn == 0:
        meeting.dialer.greet = lambda end: end.say(b"220 hi\r\n250 ok\r\n")
    client = meeting.enter()
    if turn == 1:
        meeting.backend.say(b"220 hi\r\n250 ok\r\n")
    if turn == 2:
        meeting.until(lambda: meeting.backend.raw)
        meeting.backend.say(b"220 hi\r\n250 ok\r\n")
    meeting.until(lambda: client.heard)
    assert meeting.backend.raw[:1] in (b"", b"\x16", b"\x15")
    assert sorry(meeting, client)["reason"] == "backend-tls-failed"


@pytest.mark.parametrize("late", [False, True], ids=["together", "later"])
def test_G15_B1_octets_behind_the_go_ahead(meet: Meet, secured: Callable[..., Backend], late: bool) -> None:
    meeting = meet(backend=secured("starttls"))
    client = meeting.enter()
    backend = meeting.backend
    begun(meeting, backend)
    injected = b"+OK\r\nUSER\r\nSASL PLAIN\r\n.\r\n"
    backend.say(b"+OK go\r\n" + (b"" if late else injected))
    if late:
        meeting.until(lambda: not backend.raw.endswith(b"STLS\r\n"))
        backend.say(injected)
    session = sorry(meeting, client)
    assert session["reason"] == ("backend-tls-failed" if late else "backend-starttls-injection")
    assert (b"\x16" in backend.raw) is late


def test_B1_an_answer_that_was_injected_is_awaited_inside_in_vain(meet: Meet, secured: Callable[..., Backend]) -> None:
    """The backend never answers our first command inside TLS; nothing else may stand for it."""
    meeting = meet("imap", backend=secured("starttls"))
    client = meeting.enter()
    backend = meeting.backend
    backend.say(b"* OK [CAPABILITY IMAP4rev1 STARTTLS] hi\r\n")
    meeting.hears(backend, b"sgw1 STARTTLS\r\n")
    backend.say(b"sgw1 OK go\r\n")
    backend.start_tls(meeting.authority.server(), server=True)
    meeting.until(lambda: backend.secure)
    meeting.hears(backend, b"sgw2 CAPABILITY\r\n")
    meeting.advance(70.0)
    meeting.until(lambda: client.gone)
    assert b"CAPABILITY" not in client.heard


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@pytest.mark.parametrize("hello", [False, True], ids=["silent", "half a ServerHello"])
def test_B18_a_handshake_with_the_backend_that_stalls(
    meet: Meet, secured: Callable[..., Backend], tls: str, hello: bool
) -> None:
    meeting = meet(backend=secured(tls))
    client = meeting.enter()
    backend = meeting.backend
    if tls == "starttls":
        begun(meeting, backend)
        backend.say(b"+OK go\r\n")
    meeting.until(lambda: b"\x16" in backend.raw)
    if hello:
        backend.say(b"\x16\x03\x03\x00\x7a\x02\x00\x00")
    meeting.advance(14.5)
    assert not client.gone
    meeting.advance(1.5)
    session = sorry(meeting, client)
    assert (session["reason"], session["detail"]) == ("backend-tls-failed", "handshake timed out")


@pytest.mark.parametrize("trickle", [b"", b"2", b"220-x\r\n"])
def test_B12_B18_a_greeting_that_never_comes_or_never_ends(meet: Meet, trickle: bytes) -> None:
    meeting = meet("smtp", timeouts=Timeouts(greeting=30.0))
    client = meeting.enter()
    backend = meeting.backend
    for _ in range(80):
        backend.say(trickle)
        meeting.advance(1.0)
        if client.gone:
            break
    session = sorry(meeting, client)
    if trickle.endswith(b"\n"):  # each line is one wait; the session's own minute is the bound
        assert session["reason"] == "client-timeout"
        assert session["seconds"] == pytest.approx(60.0, abs=4)
    else:
        assert session["reason"] == "backend-greeting-timeout"
        assert session["seconds"] == pytest.approx(30.0, abs=4)


# --- the next address -----------------------------------------------------------------------------


def test_a_bad_greeting_is_followed_by_the_next_address(meet: Meet) -> None:
    meeting = meet("smtp", addresses=2, tcp=True)
    client = meeting.enter()
    first = meeting.backend
    first.say(b"SSH-2.0-OpenSSH_9\r\n220 not me\r\n")
    meeting.until(lambda: len(meeting.dialer.backends) == 2)
    meeting.until(lambda: first.gone)
    assert first.reset
    second = meeting.backend
    second.say(b"220 hi\r\n")
    meeting.hears(client, b"220 hi\r\n")
    assert meeting.dialer.calls[0].verdicts == ["failed: address", "greeted"]
    assert ["backend-bad-greeting" in str(line) for line in meeting.lines] == [True]
    client.say(b"QUIT\r\n")
    meeting.hears(second, b"QUIT\r\n")
    assert first.heard == b""


@pytest.mark.parametrize("how", ["finish", "break_off"])
def test_H10_one_that_only_closes_is_under_suspicion(meet: Meet, how: str) -> None:
    meeting = meet("smtp", addresses=2, tcp=True)
    client = meeting.enter()
    getattr(meeting.backend, how)()
    meeting.until(lambda: len(meeting.dialer.backends) == 2)
    meeting.backend.say(b"554 banned\r\n")
    meeting.hears(client, b"554 banned\r\n")
    assert meeting.dialer.calls[0].verdicts == ["failed for 127.0.0.1", "greeted"]


def test_where_none_is_left_the_last_failure_is_told(meet: Meet) -> None:
    meeting = meet("imap", addresses=2)
    client = meeting.enter()
    meeting.backend.say(b"* PREAUTH hi\r\n")
    meeting.until(lambda: len(meeting.dialer.backends) == 2)
    meeting.backend.say(b"220 hi\r\n")
    session = sorry(meeting, client)
    assert session["reason"] == "backend-bad-greeting"
    assert meeting.dialer.calls[0].verdicts == ["failed: address", "failed: address"]


def test_a_backend_that_is_not_there(meet: Meet) -> None:
    meeting = meet("imap", addresses=0)
    session = sorry(meeting, meeting.enter())
    assert session["reason"] == "backend-connect-failed"
    assert session["detail"] == "10.0.0.5:25: Connection refused (ECONNREFUSED)"


def test_the_next_address_has_TLS_of_its_own(meet: Meet, secured: Callable[..., Backend]) -> None:
    """Nothing of the first one's handshake, header or words is the second one's."""
    meeting = meet(backend=secured("starttls"), addresses=2, tcp=True, identity=Identity.PROXY_V1)
    client = meeting.enter()
    first = meeting.backend
    meeting.until(lambda: first.heard.endswith(b"\r\n"))
    header, first.heard = first.heard, b""
    begun(meeting, first)
    first.say(b"+OK go\r\n")
    meeting.until(lambda: b"\x16" in first.raw)
    first.throw(b"\x15\x03\x03\x00\x02\x02\x28")
    meeting.until(lambda: len(meeting.dialer.backends) == 2)
    second = meeting.backend
    meeting.hears(second, header)
    begun(meeting, second)
    second.say(b"+OK go\r\n")
    second.start_tls(meeting.authority.server(), server=True)
    meeting.until(lambda: second.secure)
    meeting.hears(client, b"+OK hi\r\n")


def test_B22_every_client_has_a_connection_of_its_own(meet: Meet) -> None:
    meeting = meet("smtp", addresses=3)
    for _ in range(3):
        client = meeting.enter()
        meeting.until(lambda: len(meeting.dialer.backends) == len(meeting.clients))
        meeting.backend.say(b"220 hi\r\n")
        meeting.hears(client, b"220 hi\r\n")
        client.say(b"QUIT\r\n")
        meeting.hears(meeting.backend, b"QUIT\r\n")
        meeting.backend.say(b"221 bye\r\n")
        meeting.until(lambda: meeting.backend.ended)


def test_a_client_that_leaves_while_the_next_is_dialled(meet: Meet) -> None:
    meeting = meet("smtp", addresses=2, tcp=True)
    client = meeting.enter()
    meeting.dialer.delay = 5.0
    meeting.backend.say(b"what\r\n")
    meeting.until(lambda: meeting.dialer.calls[0].verdicts)
    client.break_off()
    assert meeting.over()["reason"] == "client-lost"
    assert meeting.dialer.calls[0].cancelled
    assert len(meeting.dialer.backends) == 1


# --- several sessions in front of one address, with the real dialer -------------------------------


class Door:
    """A listening backend that the test opens connection by connection."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.address = TCPAddress("127.0.0.1", self.sock.getsockname()[1])
        self.open: list[End] = []

    def pump(self) -> None:
        with suppress(BlockingIOError):
            sock, _ = self.sock.accept()
            sock.setblocking(False)
            self.open.append(End(sock))
        for end in self.open:
            end.pump()


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    yield door
    door.sock.close()
    for end in door.open:
        end.sock.close()


def test_H10_a_client_whom_the_backend_bans_does_not_keep_the_others_out(
    meet: Meet, reactor: SteppedReactor, door: Door
) -> None:
    meeting = meet("smtp", dialer=Dialer(reactor, [door.address], 10.0), tcp=True)
    meeting.others.append(door)
    for _ in range(5):
        banned = meeting.enter()
        meeting.until(lambda: len(door.open) == len(meeting.clients))
        door.open[-1].sock.close()
        meeting.until(lambda: meeting.clients[-1].gone)
        assert banned.heard == ANSWERS["smtp"].unavailable
    client = meeting.enter()
    meeting.until(lambda: len(door.open) == 6)
    door.open[-1].say(b"220 hi\r\n")
    meeting.until(lambda: client.heard)
    assert client.heard == b"220 hi\r\n"


def test_what_is_no_mail_server_rests_for_a_second(meet: Meet, reactor: SteppedReactor, door: Door) -> None:
    meeting = meet("smtp", dialer=Dialer(reactor, [door.address], 10.0), tcp=True)
    meeting.others.append(door)
    client = meeting.enter()
    meeting.until(lambda: door.open)
    door.open[-1].say(b"SSH-2.0-x\r\n")
    meeting.until(lambda: client.gone)
    other = meeting.enter()
    meeting.until(lambda: other.gone)
    assert len(door.open) == 1
    assert any(str(event.get("detail")).endswith("failed a moment ago") for event in meeting.events)
    reactor.clock.advance(1.1)
    meeting.enter()
    meeting.until(lambda: len(door.open) == 2)


# --- who the client is ----------------------------------------------------------------------------

BALANCED = ("127.0.0.0/8",)
HEADER = b"PROXY TCP4 203.0.113.7 198.51.100.1 51000 110\r\n"
HEADER2 = SIGNATURE + bytes.fromhex("2111 000c cb007107 c6336401 c738 006e")


@pytest.mark.parametrize("header", [HEADER, HEADER2], ids=["v1", "v2"])
@pytest.mark.parametrize("cut", [0, 1, 20])
def test_H6_a_header_and_a_ClientHello_in_one_segment(meet: Meet, header: bytes, cut: int) -> None:
    meeting = meet(implicit=True, accept_proxy=BALANCED, identity=Identity.PROXY_V1, tcp=True)
    client = meeting.enter()
    assert meeting.dialer.calls == []
    client.peer = Peer(meeting.authority.client())
    said = header + client.peer.hello()
    for at in range(0, len(said), cut or len(said)):
        client.throw(said[at : at + (cut or len(said))])
        meeting.reactor.step()
    meeting.until(lambda: client.secure)
    backend = meeting.backend
    meeting.hears(backend, HEADER)
    backend.say(b"+OK hi\r\n")
    meeting.hears(client, b"+OK hi\r\n")
    client.finish()
    meeting.until(lambda: backend.ended)
    backend.finish()
    assert meeting.over()["client"] == "203.0.113.7"


@pytest.mark.parametrize("header", [HEADER, HEADER2], ids=["v1", "v2"])
def test_H6_a_header_on_a_plaintext_port(meet: Meet, header: bytes) -> None:
    meeting = meet(accept_proxy=BALANCED, policy=Policy.OPTIONAL)
    client = meeting.enter()
    client.say(header + b"USER joe\r\n")
    backend = meeting.backend
    backend.say(b"+OK hi\r\n")
    meeting.hears(client, b"+OK hi\r\n")
    meeting.hears(backend, b"USER joe\r\n")
    client.break_off()
    backend.break_off()
    assert meeting.over()["client"] == "203.0.113.7"


def test_H5_whoever_is_no_balancer_may_not_send_a_header(meet: Meet) -> None:
    meeting = meet(accept_proxy=("10.0.0.0/8", "2001:db8::/32"), lazy=True)
    client = meeting.enter()
    meeting.hears(client, b"+OK gw.example.org ready\r\n")
    client.say(HEADER)
    meeting.hears(client, b"-ERR Invalid protocol\r\n")
    assert meeting.dialer.calls == []
    client.sock.close()
    session = meeting.over()
    assert (session["client"], session["reason"]) == ("127.0.0.1", "unexpected-proxy-header")


@pytest.mark.parametrize("implicit", [False, True])
def test_H6_a_header_that_does_not_come_in_five_seconds(meet: Meet, implicit: bool) -> None:
    meeting = meet(accept_proxy=BALANCED, implicit=implicit)
    client = meeting.enter()
    for octet in HEADER[:20]:
        client.throw(bytes([octet]))
        meeting.advance(0.5)
        if client.gone:
            break
    assert client.gone
    assert client.heard == b""
    client.sock.close()
    session = meeting.over()
    assert session["reason"] == "client-timeout"
    assert session["seconds"] == pytest.approx(5.0, abs=1.1)
    assert meeting.dialer.calls == []


def test_H6_a_header_that_is_wrong(meet: Meet) -> None:
    meeting = meet("smtp", accept_proxy=BALANCED)
    client = meeting.enter()
    client.say(b"EHLO me\r\n")
    meeting.until(lambda: client.gone)
    assert client.heard == b""
    client.sock.close()
    assert meeting.over()["reason"] == "client-bad-proxy-header"


@pytest.mark.parametrize("identity", [Identity.PROXY_V1, Identity.PROXY_V2])
@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_H7_the_header_is_before_the_ClientHello(
    meet: Meet, secured: Callable[..., Backend], tls: str, identity: Identity
) -> None:
    meeting = meet(backend=secured(tls), identity=identity, tcp=True)
    client = meeting.enter()
    (host, port), (here, at) = client.sock.getsockname(), client.sock.getpeername()
    backend = meeting.backend
    if identity is Identity.PROXY_V1:
        header = f"PROXY TCP4 {host} {here} {port} {at}\r\n".encode()
    else:
        session = meeting.sessions[0].identity.encode()
        addresses = socket.inet_aton(host) + socket.inet_aton(here) + port.to_bytes(2, "big") + at.to_bytes(2, "big")
        length = (12 + 3 + len(session)).to_bytes(2, "big")
        header = SIGNATURE + b"\x21\x11" + length + addresses + b"\x05" + len(session).to_bytes(2, "big") + session
    meeting.hears(backend, header)
    if tls == "starttls":
        begun(meeting, backend)
        backend.say(b"+OK go\r\n")
    backend.start_tls(meeting.authority.server(), server=True)
    meeting.until(lambda: backend.secure)
    if tls == "implicit":
        backend.say(b"+OK hi\r\n")
    meeting.hears(client, b"+OK hi\r\n")


def test_G23_lazy_tells_the_TLS_of_the_client(meet: Meet) -> None:
    meeting = meet(identity=Identity.PROXY_V2, lazy=True, tcp=True)
    client = meeting.enter()
    meeting.hears(client, b"+OK gw.example.org ready\r\n")
    client.say(b"STLS\r\n")
    meeting.hears(client, b"+OK Begin TLS negotiation now\r\n")
    client.start_tls(meeting.authority.client())
    meeting.until(lambda: client.secure)
    client.say(b"CAPA\r\n")
    backend = meeting.backend
    meeting.until(
        lambda: len(backend.heard) >= 16 and len(backend.heard) >= 16 + int.from_bytes(backend.heard[14:16], "big")
    )
    assert client.peer is not None
    cipher = client.peer.tls.cipher()
    assert cipher is not None
    name = cipher[0].encode()
    assert b"\x20" + (5 + 3 + 7 + 3 + len(name)).to_bytes(2, "big") + b"\x01\0\0\0\0"[:4] in backend.heard
    assert b"\x21\x00\x07TLSv1.3" in backend.heard
    assert b"\x23" + len(name).to_bytes(2, "big") + name in backend.heard
    assert b"\x02\x00\x11mail.example.test" in backend.heard
    header = 16 + int.from_bytes(backend.heard[14:16], "big")
    backend.heard = backend.heard[header:]
    backend.say(b"+OK hi\r\n")
    meeting.hears(backend, b"CAPA\r\n")


@pytest.mark.parametrize("identity", [Identity.PROXY_V2, Identity.PROXY_V1, Identity.XCLIENT])
def test_a_client_that_is_gone_before_it_is_looked_at_does_not_pass_for_the_gateway(
    meet: Meet, identity: Identity
) -> None:
    """It connects, says a whole mail and more than is read at once, and resets, all before it is accepted: its
    words are still there, its address is not."""
    words = b"EHLO me\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\nhi\r\n.\r\n" + b"NOOP\r\n" * 3000
    meeting = meet("smtp", identity=identity, lazy=True, policy=Policy.AUTH_ONLY, tcp=True, bad_commands=10**6)
    with socket.create_server(("127.0.0.1", 0)) as server:
        attacker = End(socket.create_connection(server.getsockname()))
        attacker.sock.sendall(words)
        attacker.break_off()
        near, address = server.accept()
    with pytest.raises(OSError, match="not connected"):
        _wait_for_reset(near)
    near.setblocking(False)
    meeting.enter(near, attacker.sock, client=address[0])
    for _ in range(50):
        meeting.reactor.step(0.002)
        for backend in meeting.dialer.backends:
            backend.say(b"220 hi\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 ok\r\n")
            backend.pump()
            assert b"DATA" not in backend.heard
            assert SIGNATURE not in backend.heard
    assert meeting.dialer.backends == []


def _wait_for_reset(sock: socket.socket) -> None:
    """Raises the OSError of a socket that has no other end any more."""
    for _ in range(100_000):
        sock.getpeername()


# --- T02: a backend that takes one EHLO -----------------------------------------------------------

ALREADY = b"503 5.5.1 Invalid command: Already identified\r\n"


def inside_smtp(meeting: Meeting) -> tuple[End, End]:
    """A client that has said EHLO in the clear and is inside TLS now; and its backend."""
    before = len(meeting.dialer.backends)
    client = meeting.enter()
    meeting.until(lambda: len(meeting.dialer.backends) > before)
    backend = meeting.backend
    backend.say(b"220 old\r\n")
    meeting.hears(client, b"220 old\r\n")
    client.say(b"EHLO me\r\n")
    meeting.hears(backend, b"EHLO me\r\n")
    backend.say(b"250 old\r\n")
    meeting.hears(client, b"250-old\r\n250 STARTTLS\r\n")
    client.say(b"STARTTLS\r\n")
    meeting.hears(client, b"220 2.0.0 Ready to start TLS\r\n")
    client.start_tls(meeting.authority.client())
    meeting.until(lambda: client.secure)
    client.say(b"EHLO me\r\n")
    return client, backend


def go_on(meeting: Meeting, client: End, first: End) -> None:
    """With the fresh connection, while the old one comes to its end."""
    meeting.until(lambda: meeting.backend is not first)
    second = meeting.backend
    second.say(b"220 old\r\n")
    meeting.hears(second, b"EHLO me\r\n")
    first.say(b"221 bye\r\n")
    first.finish()
    meeting.until(lambda: first.gone)
    assert not first.reset, "it was left in good order"
    second.say(b"250 old\r\n")
    meeting.hears(client, b"250 old\r\n")
    client.say(b"QUIT\r\n")
    meeting.hears(second, b"QUIT\r\n")
    second.say(b"221 bye\r\n")
    meeting.hears(client, b"221 bye\r\n")


def test_T02_a_second_connection_is_made_once_it_is_needed_and_at_once_from_then_on(meet: Meet) -> None:
    meeting = meet("smtp", addresses=4, tcp=True)
    client, first = inside_smtp(meeting)
    meeting.hears(first, b"EHLO me\r\n")
    first.say(ALREADY)
    meeting.hears(first, b"QUIT\r\n")
    go_on(meeting, client, first)
    client, third = inside_smtp(meeting)
    meeting.hears(third, b"QUIT\r\n")
    go_on(meeting, client, third)
    assert [line["event"] for line in meeting.events if line["event"].startswith("backend")] == ["backend-greets-once"]
    assert [call.verdicts for call in meeting.dialer.calls] == [["greeted"]] * 4


def test_what_both_say_lets_a_session_go_on(meet: Meet) -> None:
    """LDAP without a login is looked at all the time; an hour counts from the last octet, as in a splice."""
    meeting = meet("ldap", policy=Policy.OPTIONAL)
    client = meeting.enter()
    anonymous = ldap.simple(1, b"", b"")
    client.say(anonymous)
    server = meeting.backend
    meeting.hears(server, anonymous)
    server.say(ldap.result(1, 0x61, 0))
    meeting.hears(client, ldap.result(1, 0x61, 0))
    for number in range(2, 5):
        meeting.advance(3000)
        client.say(ldap.search(number))
        meeting.hears(server, ldap.search(number))
        server.say(ldap.result(number, 0x65, 0))
        meeting.hears(client, ldap.result(number, 0x65, 0))
    meeting.advance(3700)
    meeting.until(lambda: client.gone)
    assert meeting.over()["reason"] == "client-timeout"
