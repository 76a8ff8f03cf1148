"""Data connections of FTP, and who must not get near them.  The test plays the client and the server."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from gateway.protocol.proxyprotocol import Origin, v2
from tests.ports import free_ports
from tests.process.ftptalk import Stage, Talk, received, stage
from tests.process.running import DEADLINE, Gateway, Identity, Service, launch, running, wait_until
from tests.process.wire import Caller, Client, Ending

MUCH = os.urandom(64 * 1024) * 32
"""2 MiB: more than all buffers on the way hold."""


BALANCER = "127.0.0.4"
LAX = {"policy": "optional", "strict_close": "no", "protection": "optional"}


@pytest.fixture(scope="module")
def server() -> Iterator[Stage]:
    with stage() as found:
        yield found


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, identity: Identity, server: Stage) -> Iterator[Gateway]:
    services = [
        Service("ftp", server.backend.address, options={"active": "yes"}),
        Service("lax", server.backend.address, "ftp", options=LAX),
        Service(
            "balanced", server.backend.address, "ftp", options={"accept_proxy": BALANCER, "protection": "optional"}
        ),
        Service("everywhere", server.backend.address, "ftp", options={"active": "yes"}, addresses=["0.0.0.0:0"]),
        Service("resumed", server.backend.address, protocol="ftp", options={"data_session_reuse": "required"}),
    ]
    with running(tmp_path_factory.mktemp("ftp"), identity, services, {"timeouts": {"data_connect": "2 s"}}) as found:
        yield found


@pytest.fixture
def talk(gateway: Gateway, server: Stage, trusting: ssl.SSLContext) -> Iterator[Talk]:
    found = Talk(gateway, server, trusting)
    yield found
    found.close()


def told(talk: Talk, since: int, reason: str, **fields: str) -> None:
    talk.gateway.log.wait("transfer", since, 1, reason=reason, **fields)


# --- transfers --------------------------------------------------------------------------------------------


def test_a_download_ends_with_close_notify(talk: Talk) -> None:
    since = talk.gateway.log.mark()
    data = talk.passive()  # with an address that is nobody's
    client, server = data.connect()
    talk.begin(b"RETR a")
    server.sendall(b"content")
    server.close()
    assert client.rest() == b"content"
    assert client.ending is Ending.CLOSE_NOTIFY
    talk.reply(b"226 done")
    told(talk, since, "backend-closed", command="RETR", received="0", sent="7", protection="TLSv1.3")


def test_an_upload_is_answered_with_close_notify(talk: Talk) -> None:
    since = talk.gateway.log.mark()
    client, server = talk.passive().connect()
    talk.begin(b"STOR a")
    client.say(b"content")
    client.close_notify()
    assert received(server) == (b"content", "fin")
    server.close()
    assert client.rest() == b""
    assert client.ending is Ending.CLOSE_NOTIFY
    talk.reply(b"226 done")
    told(talk, since, "client-closed", command="STOR", received="7", sent="0")


def test_a_client_that_sends_everything_and_never_reads(talk: Talk) -> None:
    """Unread octets at the client would make its kernel send RST and drop the rest of the upload."""
    for _ in range(3):
        client, server = talk.passive().connect()
        talk.begin(b"STOR a")
        client.say(MUCH)
        client.close_notify()
        client.socket.close()
        assert received(server) == (MUCH, "fin")
        server.close()
        talk.reply(b"226 done")


def test_data_may_come_before_the_go_ahead(talk: Talk) -> None:
    client, server = talk.passive().connect()
    client.say(b"early")
    client.close_notify()
    assert received(server) == (b"early", "fin")
    talk.begin(b"STOR a")
    talk.reply(b"226 done")


def test_226_may_come_before_the_data(talk: Talk) -> None:
    data = talk.passive()
    client, server = data.connect(secure=False)
    talk.ask(b"RETR a", b"226 done")
    server.sendall(b"content")
    server.close()
    # The next port does not cut what is under way, and the handshake was not waited for.
    talk.passive()
    client.shake_hands(talk.trusting)
    assert client.rest() == b"content"
    assert client.ending is Ending.CLOSE_NOTIFY


def test_a_client_may_connect_before_it_begins_its_handshake(talk: Talk) -> None:
    """lftp and Python wait for 150 before it, and no server says that before it has a connection."""
    client, server = talk.passive().connect(secure=False)
    talk.begin(b"RETR a")
    server.sendall(MUCH)
    server.close()
    client.shake_hands(talk.trusting)
    assert client.rest() == MUCH


def test_active_mode(talk: Talk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(DEADLINE)
        port = listening.getsockname()[1]
        talk.client.say(b"PORT 127,0,0,1,%d,%d\r\n" % divmod(port, 256))
        verb, _, numbers = talk.server.line().partition(b" ")
        assert verb == b"PORT"
        *_, high, low = numbers.split(b",")
        assert numbers.startswith(b"127,0,0,1,")
        assert int(high) * 256 + int(low) != port
        talk.reply(b"200 ok")
        with socket.create_connection(("127.0.0.1", int(high) * 256 + int(low))) as server:
            ours, _ = listening.accept()
            ours.settimeout(DEADLINE)
            talk.begin(b"RETR a")
            server.sendall(b"content")
            server.shutdown(socket.SHUT_WR)
            # The client connected to nobody, and nevertheless it begins the handshake.
            client = talk.trusting.wrap_socket(ours, server_hostname="localhost", suppress_ragged_eofs=False)
            assert client.recv(100) == b"content"
            assert client.recv(100) == b""
            client.close()


def test_in_active_mode_data_comes_from_the_address_that_the_client_knows(
    gateway: Gateway, server: Stage, trusting: ssl.SSLContext
) -> None:
    place = ("127.0.0.9", gateway.address("everywhere")[1])
    with Talk(gateway, server, trusting, client=Client(place)) as talk, socket.create_server(("127.0.0.1", 0)) as own:
        own.settimeout(DEADLINE)
        talk.client.say(b"PORT 127,0,0,1,%d,%d\r\n" % divmod(own.getsockname()[1], 256))
        numbers = talk.server.line().split(b",")
        talk.reply(b"200 ok")
        with socket.create_connection(("127.0.0.1", int(numbers[-2]) * 256 + int(numbers[-1]))):
            ours, (host, _) = own.accept()
            ours.close()
        assert host == "127.0.0.9"


# --- behind a load balancer ---------------------------------------------------------------------------------

HEADER = b"PROXY TCP4 192.0.2.7 127.0.0.1 40000 21\r\n"


def balanced(address: tuple[str, int], header: bytes = HEADER) -> Client:
    """A connection that the load balancer brings."""
    client = Caller(BALANCER, address)
    client.say(header)
    return client


@pytest.fixture
def brought(gateway: Gateway, server: Stage, trusting: ssl.SSLContext) -> Iterator[Talk]:
    """A session of 192.0.2.7."""
    with Talk(gateway, server, trusting, client=balanced(gateway.address("balanced"))) as found:
        yield found


@pytest.mark.parametrize("protected", [True, False])
def test_data_may_come_through_a_load_balancer(brought: Talk, protected: bool) -> None:
    if not protected:
        brought.own(b"PROT C", b"200 Protection set to C")
    since = brought.gateway.log.mark()
    data = brought.passive()
    # Version 2 in pieces, with the first octets of what follows.
    header = v2(Origin(("192.0.2.7", 40001), ("127.0.0.1", 21)))
    client = balanced(data.address, header[:20])
    client.say(header[20:] + (b"" if protected else b"con"))
    sock = data.accepted()
    if protected:
        client.shake_hands(brought.trusting)
    brought.begin(b"STOR a")
    client.say(b"content" if protected else b"tent")
    if protected:
        client.close_notify()
    else:
        client.socket.shutdown(socket.SHUT_WR)
    assert received(sock) == (b"content", "fin")
    sock.close()
    assert client.rest() == b""
    brought.reply(b"226 done")
    told(brought, since, "client-closed", command="STOR", received="7", client="192.0.2.7")
    client.socket.close()


def test_data_of_whom_a_load_balancer_does_not_name_goes_nowhere(brought: Talk) -> None:
    since = brought.gateway.log.mark()
    data = brought.passive()
    for header, came in (
        (HEADER.replace(b"192.0.2.7", b"192.0.2.8"), "192.0.2.8"),
        (b"\x16\x03\x01 no header\r\n", BALANCER),
        (b"PROXY UNKNOWN\r\n", ""),
    ):
        with balanced(data.address, header) as client:
            assert client.rest() == b""
        if came:
            brought.gateway.log.wait("data-stranger", since, came_from=came)
    with Client(data.address) as direct:
        assert direct.rest() == b""
    brought.gateway.log.wait("data-stranger", since, came_from="127.0.0.1")
    with balanced(data.address, b"PROXY TCP4") as slow:
        for header in (b"PROXY", b""):
            balanced(data.address, header).socket.close()
        data.nobody()
        client = balanced(data.address)
        sock = data.accepted()
        assert slow.rest() == b""
        client.shake_hands(brought.trusting)
        sock.close()
        assert client.rest() == b""
        client.socket.close()


# --- what is cut stays cut ----------------------------------------------------------------------------------


def test_an_upload_that_somebody_cuts_reaches_the_server_as_a_reset(talk: Talk) -> None:
    since = talk.gateway.log.mark()
    client, server = talk.passive().connect()
    talk.begin(b"STOR a")
    client.say(b"half")
    assert server.recv(4) == b"half"
    client.finish()
    assert received(server) == (b"", "reset")
    talk.reply(b"426 cut")
    told(talk, since, "client-lost")


def test_an_upload_is_cut_even_if_the_server_has_ended_its_own_direction(talk: Talk) -> None:
    client, server = talk.passive().connect()
    talk.begin(b"STOR a")
    client.say(b"half")
    assert server.recv(4) == b"half"
    server.shutdown(socket.SHUT_WR)
    assert client.receive() == b""
    client.finish()
    assert received(server) == (b"", "reset")
    talk.reply(b"426 cut")


@pytest.mark.parametrize("protected", [True, False])
@pytest.mark.parametrize("upload", [True, False])
def test_a_gateway_that_is_killed_completes_no_file(
    tmp_path: Path, identity: Identity, server: Stage, trusting: ssl.SSLContext, upload: bool, protected: bool
) -> None:
    """The kernel would end its connections with FIN."""
    services = [Service("ftp", server.backend.address, options={"protection": "optional"})]
    gateway = launch(tmp_path, identity, services)
    try:
        talk = Talk(gateway, server, trusting)
        if not protected:
            talk.own(b"PROT C", b"200 Protection set to C")
        client, sock = talk.passive().connect(secure=protected)
        talk.begin(b"STOR a" if upload else b"RETR a")
        if upload:
            client.say(b"half")
            assert sock.recv(4) == b"half"
        else:
            sock.sendall(b"half")
            assert client.hear(b"half") == b"half"
        gateway.process.kill()
        assert received(sock) == (b"", "reset")
        assert client.rest() == b""
        assert client.ending is Ending.RESET
        talk.close()
    finally:
        gateway.kill()


def test_an_abor_whose_urgent_octet_is_lost(gateway: Gateway, server: Stage, trusting: ssl.SSLContext) -> None:
    """In the clear the kernel keeps urgent data apart: one octet of telnet's SYNCH does not arrive."""
    with Talk(gateway, server, trusting, "lax", secure=False) as talk:
        client, sock = talk.passive().connect(secure=False)
        talk.begin(b"RETR a")
        talk.client.socket.sendall(b"\xff\xf4")
        talk.client.socket.send(b"\xff", socket.MSG_OOB)
        talk.client.say(b"\xf2ABOR\r\n")
        assert talk.server.line() == b"ABOR"
        assert received(sock) == (b"", "reset")
        talk.reply(b"426 cut")
        talk.reply(b"226 aborted")
        assert client.rest() == b""


def test_strict_close_may_be_off(gateway: Gateway, server: Stage, trusting: ssl.SSLContext) -> None:
    with Talk(gateway, server, trusting, "lax") as talk:
        client, sock = talk.passive().connect()
        talk.begin(b"STOR a")
        client.say(b"all")
        client.finish()
        assert received(sock) == (b"all", "fin")


def test_prot_c_is_for_who_wants_it(gateway: Gateway, server: Stage, trusting: ssl.SSLContext) -> None:
    with Talk(gateway, server, trusting, "lax") as talk:
        talk.own(b"PROT C", b"200 Protection set to C")
        since = gateway.log.mark()
        client, sock = talk.passive().connect(secure=False)
        talk.begin(b"RETR a")
        sock.sendall(b"content")
        sock.close()
        assert client.rest() == b"content"
        told(talk, since, "backend-closed", protection="none")


def test_a_download_that_breaks_off_ends_without_close_notify(talk: Talk) -> None:
    client, server = talk.passive().connect()
    talk.begin(b"RETR a")
    server.sendall(b"half")
    assert client.hear(b"half") == b"half"
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    server.close()
    assert client.rest() == b""
    assert client.ending is Ending.RESET


def test_abor_resets_the_servers_data_connection_first(talk: Talk) -> None:
    client, server = talk.passive().connect()
    talk.begin(b"RETR a")
    talk.client.say(b"\xff\xf4\xff\xf2ABOR\r\n")
    assert talk.server.line() == b"ABOR"
    assert received(server) == (b"", "reset")
    talk.reply(b"426 cut")
    talk.reply(b"226 aborted")
    talk.ask(b"NOOP", b"200 ok")
    client.socket.close()


def test_whoever_leaves_during_an_upload_takes_it_along(talk: Talk) -> None:
    client, server = talk.passive().connect()
    talk.begin(b"STOR a")
    client.say(b"half")
    assert server.recv(4) == b"half"
    talk.client.reset()
    assert received(server) == (b"", "reset")
    client.socket.close()


def test_plaintext_at_a_data_port_goes_nowhere(talk: Talk) -> None:
    since = talk.gateway.log.mark()
    client, server = talk.passive().connect(secure=False)
    client.say(b"in the clear, but the level is P\r\n")
    assert received(server) == (b"", "reset")
    talk.gateway.log.wait("data-tls-failed", since)
    client.socket.close()


# --- who may connect ----------------------------------------------------------------------------------------


def test_somebody_else_at_the_port_gets_nothing_and_the_client_still_comes(talk: Talk) -> None:
    since = talk.gateway.log.mark()
    data = talk.passive()
    for _ in range(3):
        with Caller("127.0.0.2", data.address) as stranger:
            assert stranger.rest() == b""
    talk.gateway.log.wait("data-stranger", since, 3, came_from="127.0.0.2")
    data.nobody()
    client, server = data.connect()
    server.close()
    assert client.rest() == b""


def test_a_second_connection_is_refused(talk: Talk) -> None:
    data = talk.passive()
    client, server = data.connect()
    data.refused()
    server.close()
    assert client.rest() == b""


def test_two_ports_in_a_row(talk: Talk) -> None:
    first, second = talk.passive(), talk.passive()
    first.refused()
    first.nobody()
    client, server = second.connect()
    talk.passive()  # and a connection whose transfer did not begin
    assert received(server) == (b"", "reset")
    assert client.rest() == b""


def test_a_port_that_the_client_gives_up_does_not_count(talk: Talk) -> None:
    client, server = talk.passive().connect()
    talk.ask(b"RETR a", b"226 done")  # its data is under way, and is one of the two that a session may have
    for _ in range(3):
        talk.client.say(b"PORT 127,0,0,1,100,0\r\n")
        assert talk.server.line().startswith(b"PORT ")
        talk.reply(b"200 ok")
    server.close()
    assert client.rest() == b""


def test_a_port_that_nobody_uses_is_closed(talk: Talk) -> None:
    since = talk.gateway.log.mark()
    data = talk.passive()
    talk.gateway.log.wait("data-timeout", since)
    data.refused()
    talk.ask(b"NOOP", b"200 ok")


def test_a_client_that_begins_no_handshake_is_cut(talk: Talk) -> None:
    since = talk.gateway.log.mark()
    client, server = talk.passive().connect(secure=False)
    talk.begin(b"RETR a")
    talk.gateway.log.wait("data-timeout", since)
    assert received(server) == (b"", "reset")
    client.socket.close()
    talk.reply(b"426 cut")


def test_a_server_that_does_not_listen_where_it_says(talk: Talk) -> None:
    since = talk.gateway.log.mark()
    data = talk.passive()
    data.listening.close()
    with Client(data.address) as client:
        assert client.rest() == b""
    talk.gateway.log.wait("data-connect-failed", since)
    talk.ask(b"RETR a", b"425 no connection")
    talk.ask(b"NOOP", b"200 ok")


@pytest.mark.parametrize(
    ("version", "options"),
    [
        (ssl.TLSVersion.TLSv1_3, ssl.Options(0)),
        (ssl.TLSVersion.TLSv1_2, ssl.Options(0)),
        (ssl.TLSVersion.TLSv1_2, ssl.OP_NO_TICKET),  # as curl does it
    ],
)
def test_a_data_connection_must_resume_the_session_of_its_own_control_connection(
    gateway: Gateway, server: Stage, identity: Identity, version: ssl.TLSVersion, options: ssl.Options
) -> None:
    context = ssl.create_default_context(cafile=str(identity.authority))
    context.maximum_version = version
    context.options |= options
    with Talk(gateway, server, context, "resumed") as talk, Talk(gateway, server, context, "resumed") as other:

        def transfer(session: ssl.SSLSession | None) -> bytes:
            data = talk.passive()
            with socket.create_connection(data.address, DEADLINE) as sock:
                ours, _ = data.listening.accept()
                with ours:
                    ours.sendall(b"content")
                with context.wrap_socket(sock, server_hostname="mail.example.test", session=session) as client:
                    return client.recv(100)

        for one in (talk, other):
            one.ask(b"NOOP", b"200 ok")  # behind the tickets
        assert transfer(talk.client.tls.session) == b"content"
        for session in (other.client.tls.session, None):
            since = gateway.log.mark()
            with suppress(ssl.SSLError, ConnectionError):
                assert transfer(session) == b""
            gateway.log.wait("data-session-not-resumed", since)


# --- nothing is left ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("used", ["never", "connected", "by strangers"])
def test_sessions_that_open_ports_leave_nothing(
    gateway: Gateway, server: Stage, trusting: ssl.SSLContext, used: str
) -> None:
    for _ in range(2):  # the gateway opens some files once
        since = gateway.log.mark()
        with Talk(gateway, server, trusting) as first:
            first.passive().connect()
        gateway.log.wait("session", since)
    before = gateway.descriptors
    since = gateway.log.mark()
    with ExitStack() as stack:
        for _ in range(40):
            talk = stack.enter_context(Talk(gateway, server, trusting))
            data = talk.passive()
            if used == "connected":
                data.connect(secure=False)
            elif used == "by strangers":
                stack.callback(Caller("127.0.0.3", data.address).socket.close)
        assert gateway.descriptors > before + 80
    gateway.log.wait("session", since, 40)
    wait_until(lambda: gateway.descriptors <= before)


def test_a_range_that_is_used_up_recovers(
    tmp_path: Path, identity: Identity, server: Stage, trusting: ssl.SSLContext
) -> None:
    port = next(port for port in free_ports(50) if port % 2 == 0 and _free(port + 1))
    options = {"passive_ports": f"{port}-{port + 1}"}
    services = [Service("ftp", server.backend.address, options=options)]
    with running(tmp_path, identity, services) as gateway, ExitStack() as stack:
        one, two, three = (stack.enter_context(Talk(gateway, server, trusting)) for _ in range(3))
        assert {one.passive().address[1], two.passive().address[1]} == {port, port + 1}
        three.client.say(b"PASV\r\n")
        assert three.server.line() == b"PASV"
        three.server.say(b"227 ok (1,2,3,4,100,0)\r\n")
        assert three.client.line() == b"425 Can't open data connection\r\n"
        gateway.log.wait("data-refused", limit="passive-ports")
        two.close()
        gateway.log.wait("session")
        client, sock = three.passive().connect()
        sock.close()
        assert client.rest() == b""


def _free(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stop_waits_for_a_transfer(
    tmp_path: Path, identity: Identity, server: Stage, trusting: ssl.SSLContext, workers: str
) -> None:
    options = {"gateway": {"drain": "20 s", "workers": workers}}
    services = [Service("ftp", server.backend.address)]
    with (
        running(tmp_path, identity, services, options) as gateway,
        Talk(gateway, server, trusting) as talk,
        Talk(gateway, server, trusting) as idle,
    ):
        client, sock = talk.passive().connect()
        talk.begin(b"RETR a")
        gateway.terminate()
        assert idle.client.rest() == b"421 Service not available, closing control connection\r\n"
        sock.sendall(MUCH)
        sock.close()
        assert client.rest() == MUCH
        talk.server.say(b"226 done\r\n")
        assert talk.client.rest() == b"226 done\r\n421 Service not available, closing control connection\r\n"
        gateway.end()


def test_a_transfer_goes_on_behind_a_goodbye(talk: Talk) -> None:
    """Servers say 226 when their kernel has the data; a client may leave upon that and read on."""
    client, server = talk.passive().connect()
    talk.ask(b"RETR a", b"226 done")
    talk.ask(b"QUIT", b"221 bye")
    assert talk.client.rest() == b""
    server.sendall(MUCH)
    server.close()
    assert client.rest() == MUCH
    assert client.ending is Ending.CLOSE_NOTIFY
