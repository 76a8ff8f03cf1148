"""Other people's XMPP clients and servers, through every port of the gateway, with real servers behind it."""

from __future__ import annotations

import base64
import queue
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme
from cryptography import x509

from tests.ports import free_ports
from tests.process import messengers, programs
from tests.process.conftest import directory_for_servers
from tests.process.looking import at, checked, gnutls_verifies, openssl_verifies, probed
from tests.process.messengers import Messenger
from tests.process.recording import Backend, Connection
from tests.process.running import CANARY, DEADLINE, ROOT, Gateway, Identity, Service, running
from tests.pure.contract.answers.xmpp import AUTH, FAILURE, FIRST, PROCEED, REGISTER, STARTTLS, error, header

DOMAIN = "mail.example.test"
HEADER = header(DOMAIN.encode())


@pytest.fixture(scope="module")
def server() -> Iterator[Messenger]:
    """It knows no TLS."""
    with directory_for_servers() as directory, messengers.prosody(directory, DOMAIN) as server:
        yield server


@pytest.fixture(scope="module")
def tls_server() -> Iterator[Messenger]:
    """It demands TLS, and has its own certificate."""
    with directory_for_servers() as directory:
        own = Identity.issue(directory)
        with messengers.prosody(directory, DOMAIN, certificate=own.certificate) as server:
            yield server


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, identity: Identity, server: Messenger, tls_server: Messenger
) -> Iterator[Gateway]:
    services = [
        Service("xmpp", server.address),
        Service("xmpp-server", f"127.0.0.1:{server.servers}"),
        Service("secured", "tls", protocol="xmpp"),
        Service("nobody", f"127.0.0.1:{free_ports(1)[0]}", protocol="xmpp"),
    ]
    options = {"backend:tls": {"address": tls_server.address, "tls": "starttls", "verify": "no"}}
    with running(tmp_path_factory.mktemp("gateway"), identity, services, options) as gateway:
        yield gateway


# --- slixmpp -----------------------------------------------------------------------------------------

_SLIXMPP = """
import asyncio, sys
from slixmpp import ClientXMPP
host, port, mode, authority, jid, password, peer = sys.argv[1:]

class Client(ClientXMPP):
    def __init__(self):
        super().__init__(jid, password)
        self.ca_certs, self.end = authority, self.loop.create_future()
        self.enable_direct_tls, self.enable_starttls = mode == "implicit", mode == "starttls"
        self.register_plugin("xep_0199")
        self.add_event_handler("session_start", self.began)
        for event in ("failed_auth", "failed_all_auth", "connection_failed", "stream_error", "disconnected"):
            self.add_event_handler(event, lambda told, event=event: self.over(f"{event} {told}"))

    async def began(self, event):
        try:
            seconds = await self["xep_0199"].ping(peer, timeout=15)
            self.over("pong")
        except Exception as error:
            self.over(f"no pong: {error!r}")

    def over(self, word):
        if not self.end.done():
            self.end.set_result(word)

async def main():
    client = Client()
    client.connect(host, int(port))
    print(await asyncio.wait_for(client.end, 20))
    client.abort()

asyncio.run(main())
"""


def slixmpp(
    gateway: Gateway, identity: Identity, service: str, mode: str, *, jid: str = f"user@{DOMAIN}",
    password: str = CANARY, peer: str = DOMAIN,
) -> str:  # fmt: skip
    """A login, and a ping: what came of them."""
    python = ROOT / ".venv-tools" / "bin" / "python"
    programs.need(str(python), pip="slixmpp")
    host, port = gateway.address(service, mode)
    done = subprocess.run(
        [str(python), "-c", _SLIXMPP, host, str(port), mode, str(identity.authority), jid, password, peer],
        capture_output=True, text=True, timeout=DEADLINE * 2,
    )  # fmt: skip
    return done.stdout.strip() or done.stderr


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_slixmpp_logs_in_and_the_session_is_spliced(gateway: Gateway, identity: Identity, mode: str) -> None:
    since = gateway.log.mark()
    assert slixmpp(gateway, identity, "xmpp", mode) == "pong"
    assert gateway.log.wait("auth", since)["mechanism"] == "SCRAM-SHA-256"
    ended = gateway.log.wait("session", since, tls="TLSv1.3", phase="relaying", proven="yes")
    assert ended["sni"] == DOMAIN


def test_slixmpp_logs_in_at_a_server_with_tls(gateway: Gateway, identity: Identity) -> None:
    since = gateway.log.mark()
    assert slixmpp(gateway, identity, "secured", "starttls") == "pong"
    gateway.log.wait("auth", since, result="ok")


def test_a_wrong_password_is_told_in_the_servers_words_and_counted(gateway: Gateway, identity: Identity) -> None:
    since = gateway.log.mark()
    assert "not-authorized" in slixmpp(gateway, identity, "xmpp", "starttls", password="wrong")
    gateway.log.wait("auth", since, result="failed")


# --- octets ------------------------------------------------------------------------------------------


def connect(gateway: Gateway, service: str = "xmpp", mode: str = "starttls") -> socket.socket:
    return socket.create_connection(gateway.address(service, mode), DEADLINE)


def inside(gateway: Gateway, service: str = "xmpp") -> ssl.SSLSocket:
    """A client on the implicit port that trusts anybody."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(connect(gateway, service, "implicit"), server_hostname=DOMAIN)


def talk(client: socket.socket, said: bytes, until: bytes) -> bytes:
    client.sendall(said)
    heard = b""
    while until not in heard:
        octets = client.recv(4096)
        if not octets:
            break
        heard += octets
    return heard


def everything(client: socket.socket) -> bytes:
    """Up to its end."""
    return talk(client, b"", b"\0")


def ping(client: socket.socket, domain: str, peer: str) -> None:
    """Log in, and ask another server whether it is there."""
    begin = header(domain.encode())
    secret = base64.b64encode(f"\0user\0{CANARY}".encode()).decode()
    steps = {
        begin: "</stream:features>",
        f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>".encode(): "<success ",
        begin + b" ": "</stream:features>",
        b"<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>": "</iq>",
        f"<iq type='get' id='2' to='{peer}'><ping xmlns='urn:xmpp:ping'/></iq>".encode(): "id='2'",
    }
    for said, until in steps.items():
        told = talk(client, said, until.encode())
        assert until.encode() in told, told
    assert b"type='result'" in told, told


def first(session: str) -> bytes:
    return FIRST.replace(b"gw.example.org", DOMAIN.encode()).replace(b"gw1-0001", session.encode())


def test_what_is_said_before_tls_never_reaches_the_server(gateway: Gateway, server: Messenger) -> None:
    since, there = gateway.log.mark(), server.log.mark()
    with connect(gateway) as client:
        denied = talk(client, HEADER + AUTH, b"</failure>")
        told = talk(client, REGISTER, b"</stream:stream>") + everything(client)
    ended = gateway.log.wait("session", since, reason="tls-required")
    expected = first(ended["session"]) + b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><encryption-required/>"
    assert denied + told == expected + b"</failure>" + error(b"policy-violation")
    with connect(gateway) as client:
        client.sendall(HEADER + STARTTLS + HEADER + AUTH)
        told = everything(client)
    ended = gateway.log.wait("session", since, reason="starttls-injection")
    assert told == first(ended["session"]) + PROCEED
    assert "backend_address" not in ended
    assert "stream" not in "".join(server.log.text.splitlines()[there:])


def test_starttls_inside_tls_is_answered_as_prosody_does(gateway: Gateway) -> None:
    with inside(gateway) as client:
        talk(client, HEADER, b"</stream:features>")
        assert talk(client, STARTTLS, b"\0") == FAILURE


def test_external_and_a_bomb_get_no_further(gateway: Gateway) -> None:
    with inside(gateway) as client:
        talk(client, HEADER, b"</stream:features>")
        external = b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>"
        assert b"<invalid-mechanism/>" in talk(client, external, b"</failure>")
        told = talk(client, b"<!DOCTYPE x [<!ENTITY a 'b'>]>", b"\0")
        assert told == error(b"restricted-xml")


def test_a_login_by_the_old_query(gateway: Gateway) -> None:
    since = gateway.log.mark()
    query = (
        "<query xmlns='jabber:iq:auth'><username>user</username><password>%s</password><resource>r</resource></query>"
    )
    with inside(gateway) as client:
        talk(client, HEADER, b"</stream:features>")
        for password, kind in (("wrong", "error"), (CANARY, "result")):
            said = f"<iq type='set' id='{kind}'>{query % password}</iq>".encode()
            assert f"type='{kind}'".encode() in talk(client, said, b">")
    assert gateway.log.wait("auth", since, result="failed")["mechanism"] == "IQ-AUTH"
    gateway.log.wait("session", since, proven="yes")


def test_an_unknown_domain_and_a_server_that_is_not_there(gateway: Gateway) -> None:
    with inside(gateway) as client:
        told = talk(client, header(b"nope.example"), b"\0")
        assert b"<host-unknown " in told
        assert told.endswith(b"This server does not serve nope.example</text></stream:error></stream:stream>")
    with inside(gateway, "nobody") as client:
        assert talk(client, HEADER, b"\0").endswith(error(b"remote-connection-failed"))


def test_a_line_end_behind_starttls_changes_nothing_however_late_it_comes(gateway: Gateway) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for first, then in ((STARTTLS + b"\n", b""), (STARTTLS, b"\r\n"), (STARTTLS + b" ", b"\n")):
        with connect(gateway) as plain:
            talk(plain, HEADER, b"</stream:features>")
            assert talk(plain, first, b"/>") == PROCEED
            plain.sendall(then)
            with context.wrap_socket(plain) as client:
                assert b"<mechanism>PLAIN</mechanism>" in talk(client, HEADER, b"</stream:features>")


def test_a_login_by_sasl2(tmp_path: Path, identity: Identity) -> None:
    """XEP-0388.  A scripted server: no released one has it."""
    sasl2 = b"<authentication xmlns='urn:xmpp:sasl:2'><mechanism>PLAIN</mechanism>%s</authentication>"
    shown = sasl2 % b"<inline><bind xmlns='urn:xmpp:bind:0'/></inline>"
    hidden = b"<mechanism>SCRAM-SHA-1-PLUS</mechanism><mechanism>EXTERNAL</mechanism>"
    offered = shown.replace(b"<inline>", hidden + b"<inline>")
    failure = b"<failure xmlns='urn:xmpp:sasl:2'><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></failure>"
    success = b"<success xmlns='urn:xmpp:sasl:2'><authorization-identifier>user@x</authorization-identifier></success>"

    def serve(connection: Connection) -> None:
        connection.until(b"version='1.0'>")
        connection.say(header(DOMAIN.encode()).replace(b" to=", b" from=") + b"<stream:features>")
        connection.say(offered + b"</stream:features>")
        for answer in (failure, success):
            connection.until(b"</authenticate>")
            connection.say(answer)
        connection.say(b"<message/>")
        connection.until(b"<presence/>")

    backend = Backend(serve)
    login = b"<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>%s</initial-response>"
    login = login % base64.b64encode(b"\0user\0secret") + b"</authenticate>"
    options = {"gateway": {"log_users": "yes"}}
    with running(tmp_path, identity, [Service("xmpp", backend.address)], options) as gateway:
        with inside(gateway) as client:
            told = talk(client, HEADER, b"</stream:features>")
            assert told.endswith(b"<stream:features>" + shown + b"</stream:features>")
            assert talk(client, login, b"</failure>") == failure
            assert talk(client, login, b"<message/>") == success + b"<message/>"
            client.sendall(b"<presence/>")
            assert everything(client) == b""
        ended = gateway.log.wait("session")
        results = [each["result"] for each in gateway.log.events("auth")]
    backend.close()
    assert (results, ended["phase"], ended["user"]) == (["failed", "ok"], "relaying", "user")


# --- certificates ------------------------------------------------------------------------------------


def test_the_certificate_is_chosen_by_sni_and_else_by_the_streams_domain(
    tmp_path: Path, identity: Identity, server: Messenger
) -> None:
    other = trustme.CA().issue_cert("chat.example.org", "xn--bcher-kva.example")
    other.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "other.pem"))
    options = {"tls": {"certificate": f"{identity.certificate} {tmp_path / 'other.pem'}"}}
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def shown(gateway: Gateway, domain: str, sni: str | None) -> list[str]:
        with connect(gateway) as plain:
            talk(plain, header(domain.encode()), b"</stream:features>")
            talk(plain, STARTTLS, b"/>")
            with context.wrap_socket(plain, server_hostname=sni) as client:
                found = x509.load_der_x509_certificate(client.getpeercert(binary_form=True) or b"")
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.DNSName)

    with running(tmp_path, identity, [Service("xmpp", server.address)], options) as gateway:
        for domain, sni, name in (
            ("chat.example.org", None, "chat.example.org"),
            ("CHAT.example.org", None, "chat.example.org"),
            ("B\u00fccher.example", None, "chat.example.org"),
            ("xn--bcher-kva.example", None, "chat.example.org"),
            (DOMAIN, None, DOMAIN),
            ("elsewhere.example.org", None, DOMAIN),
            (DOMAIN, "chat.example.org", "chat.example.org"),
            ("chat.example.org", DOMAIN, DOMAIN),
        ):
            assert name in shown(gateway, domain, sni), (domain, sni)


# --- other clients -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("service", "mode"), [("xmpp", "starttls"), ("xmpp", "implicit"), ("xmpp-server", "starttls")])
def test_openssl_speaks_to_each_port(gateway: Gateway, identity: Identity, service: str, mode: str) -> None:
    options = ["-noservername", *(["-xmpphost", DOMAIN] if mode == "starttls" else [])]
    name = "xmpp-client" if service == "xmpp" else service
    openssl_verifies(gateway, identity, service, mode, service, *options, alpn=name)


def test_gnutls_speaks_it(gateway: Gateway, identity: Identity) -> None:
    gnutls_verifies(gateway, identity, "xmpp", "xmpp")


# --- servers -----------------------------------------------------------------------------------------


def test_two_servers_find_each_other_through_two_gateways(tmp_path: Path) -> None:
    """Each asks the other's gateway whether the other has sent the key (dialback)."""
    domains = ("alpha.example.test", "beta.example.test")
    with ExitStack() as stack:
        directory = stack.enter_context(directory_for_servers())
        others, gateways = [], []
        for domain in domains:
            (own := tmp_path / domain).mkdir()
            server = stack.enter_context(messengers.prosody(directory, domain, tls=True))
            services = [Service("xmpp", server.address), Service("xmpp-server", f"127.0.0.1:{server.servers}")]
            options = {"gateway": {"drain": "0 s"}}
            gateways.append(stack.enter_context(running(own, Identity.issue(own), services, options)))
            others.append(server)
        ports = {domain: gateway.address("xmpp-server")[1] for domain, gateway in zip(domains, gateways, strict=True)}
        for server in others:
            server.route(ports)
        with inside(gateways[0]) as client:
            ping(client, domains[0], domains[1])
        for gateway in gateways:
            told = gateway.log.wait("auth", service="xmpp-server")
            assert (told["result"], told["mechanism"]) == ("ok", "DIALBACK")
            assert gateway.log.wait("secured", service="xmpp-server")["tls"] == "TLSv1.3"


# --- the gateway's own tools -------------------------------------------------------------------------


def xmpp_checked(directory: Path, identity: Identity, backend: str, *options: str) -> subprocess.CompletedProcess[str]:
    return checked(directory, identity, "xmpp", backend, *options, hostname="gw.example.test")


@pytest.mark.parametrize("tls", ["none", "starttls"])
def test_check_asks_for_a_domain(
    tmp_path: Path, identity: Identity, server: Messenger, tls_server: Messenger, tls: str
) -> None:
    address = (server if tls == "none" else tls_server).address
    backend = f"address = {address}\ntls = {tls}\n" + "verify = no\n" * (tls != "none")
    done = xmpp_checked(tmp_path, identity, backend, "--domain", DOMAIN)
    assert done.returncode == 0, done.stdout
    assert "SCRAM-SHA-1" in done.stdout
    done = xmpp_checked(tmp_path, identity, backend)
    assert done.returncode == 1
    assert "gw.example.test" in done.stdout


def test_check_knows_what_a_domain_is(tmp_path: Path, identity: Identity) -> None:
    done = xmpp_checked(tmp_path, identity, "address = 127.0.0.1:1", "--domain", "a'b")
    assert done.returncode == 2
    assert "is no domain" in done.stderr


# --- a look from outside -----------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["xmpp", "xmpp-server"])
def test_probe_finds_nothing_wrong_with_the_gateway(gateway: Gateway, identity: Identity, service: str) -> None:
    found = probed(service, at(gateway, service), identity.authority, "--name", DOMAIN)
    assert found["names"] == set(), found
    assert found["starttls"]["offered"] is True
    assert found["starttls"]["runs_injected_commands"] is False
    assert found["capabilities"]["clear"] == ["starttls required"]
    assert "starttls" not in " ".join(found["capabilities"]["tls"])


def test_probe_looks_at_prosody(server: Messenger, tls_server: Messenger) -> None:
    """0.12 answers a header that stands behind STARTTLS in the clear."""
    found = probed("xmpp", server.address, None, "--name", DOMAIN)
    assert found["names"] == {"credentials-in-the-clear", "no-starttls"}, found
    found = probed("xmpp", tls_server.address, None, "--name", DOMAIN)
    assert found["names"] == {"certificate-untrusted", "command-injection"}, found
    assert found["capabilities"]["clear"] == ["starttls required"]
    found = probed("xmpp", server.address, None, "--name", "elsewhere.example.test")
    assert "host-unknown" in found["unreachable"]


def test_probe_names_an_ipv6_address_in_brackets() -> None:
    heard = queue.Queue[bytes]()
    backend = Backend(lambda connection: heard.put(connection.until(b"streams'>")))
    found = probed("xmpp", backend.address, None, "--name", "::1")
    backend.close()
    assert found["unreachable"]
    assert b" to='[::1]'" in heard.get(timeout=DEADLINE)
