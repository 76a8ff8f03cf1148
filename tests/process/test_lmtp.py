"""LMTP in front of a real Dovecot, with real clients."""

from __future__ import annotations

import smtplib
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from tests.process import programs, servers
from tests.process.conftest import directory_for_servers
from tests.process.recording import Backend, Connection
from tests.process.running import DEADLINE, Gateway, Identity, Service, running
from tests.process.servers import SECURITY, Dovecot
from tests.process.wire import Caller, Client, source

GO_AHEAD = b"220 2.0.0 Ready to start TLS\r\n"
MUST_STARTTLS = b"530 5.7.0 Must issue a STARTTLS command first\r\n"
LHLO = b"LHLO client.example.test\r\n"
LISTED = rb"^250 [^\n]*\n"
TEXT = b"Subject: for two\r\n\r\n.. is what a dot looks like\r\n"
STORED = b"Subject: for two\r\n\r\n. is what a dot looks like\r\n"
TOLD = ("none", "xclient", "proxy-v1", "proxy-v2")

_users = (f"u{number}" for number in count())


@dataclass(frozen=True)
class Place:
    gateway: Gateway
    dovecot: Dovecot
    scripted: Backend
    trusting: ssl.SSLContext
    authority: Path

    def secure(self, client: Client, mode: str = "starttls") -> bytes:
        """Inside TLS and behind LHLO; returns the extensions that the client hears there."""
        if mode == "implicit":
            client.shake_hands(self.trusting)
        client.hear(rb"^220 [^\n]*\n")
        if mode == "starttls":
            client.say(LHLO)
            assert client.hear(LISTED).endswith(b"250 STARTTLS\r\n")
            client.say(b"STARTTLS\r\n")
            assert client.line() == GO_AHEAD
            client.shake_hands(self.trusting)
        client.say(LHLO)
        return client.hear(LISTED)


def legacy(connection: Connection) -> None:
    """Greets, and takes whatever it hears."""
    connection.say(b"220 old LMTP\r\n")
    while line := connection.line():
        connection.say(b"250-old\r\n250 PIPELINING\r\n" if line.startswith(b"LHLO") else b"250 2.0.0 fine\r\n")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, identity: Identity, trusting: ssl.SSLContext) -> Iterator[Place]:
    scripted = Backend(legacy)
    with directory_for_servers() as directory, servers.dovecot(directory, certificate=identity.certificate) as dovecot:
        doors = dovecot.doors["lmtp"]
        options: dict[str, dict[str, str]] = {}
        services = [
            Service("scripted", scripted.address, "lmtp"),
            Service("socket", f"unix:{dovecot.lmtp}", "lmtp"),
        ]
        for told in TOLD:
            for way in SECURITY:
                name = f"{told}-{way}"
                options[f"backend:{name}"] = {"address": doors.address(told, way), "identity": told, "tls": way}
                if way != "none":
                    options[f"backend:{name}"] |= {"ca": str(identity.authority), "name": "mail.example.test"}
                services.append(Service(name, name, "lmtp"))
        with running(tmp_path_factory.mktemp("gateway"), identity, services, options=options) as gateway:
            yield Place(gateway, dovecot, scripted, trusting, identity.authority)
    scripted.close()


@pytest.fixture
def users() -> tuple[str, str]:
    """Two to whom nobody else writes."""
    return next(_users), next(_users)


def check(place: Place, user: str, keyword: str = "LMTPS") -> None:
    """Dovecot's fields come first, then the gateway's, then the message."""
    (arrived,) = place.dovecot.mail(user)
    ahead, _, rest = arrived.replace(b"\n", b"\r\n").replace(b"\r\r", b"\r").partition(b"Subject: ")
    assert b"Subject: " + rest == STORED
    assert b" (starttls-gateway) with %s id " % keyword.encode() in ahead.replace(b"\r\n\t", b" ")


# --- Dovecot -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
@pytest.mark.parametrize("way", SECURITY)
@pytest.mark.parametrize("told", TOLD)
def test_a_message_for_two_and_whose_address_dovecot_sees(
    place: Place, users: tuple[str, str], told: str, way: str, mode: str
) -> None:
    client = source()
    with Caller(client, place.gateway.address(f"{told}-{way}", mode)) as caller:
        listed = place.secure(caller, mode)
        for hidden in (b"STARTTLS", b"XCLIENT", b"XRCPTFORWARD"):
            assert hidden not in listed
        envelope = b"MAIL FROM:<hans@example.org>\r\n" + b"".join(b"RCPT TO:<%s>\r\n" % u.encode() for u in users)
        caller.say(envelope + b"RCPT TO:<bad bad>\r\nDATA\r\n")
        heard = caller.hear(rb"^354 [^\n]*\n").split(b"\r\n")
        assert [line[:3] for line in heard] == [b"250", b"250", b"250", b"501", b"354", b""]
        caller.say(TEXT + b".\r\n")
        for user in users:
            assert caller.line().startswith(b"250 2.0.0 <%s> " % user.encode())
        caller.say(envelope + b"BDAT 19\r\nSubject: chunks\r\n\r\nBDAT 6 LAST\r\nbody\r\nQUIT\r\n")
        heard = caller.rest().split(b"\r\n")
        assert [line[:3] for line in heard] == [b"250", b"250", b"250", b"250", b"250", b"250", b"221", b""]
    first = next(text for text in place.dovecot.mail(users[0]) if b"for two" in text)
    seen = b"127.0.0.1" if told == "none" else client.encode()
    assert b"([%s])" % seen in first.split(b"by ")[0]
    assert b" with LMTPS id " in first.replace(b"\r\n\t", b" ").replace(b"\n\t", b" ")
    assert place.gateway.log.wait("session", client=client)["tls"] == "TLSv1.3"


def test_what_dovecot_would_take_is_not_sent_before_lhlo_inside_tls(place: Place) -> None:
    with Client(place.gateway.address("none-none")) as client:
        client.hear(rb"^220 [^\n]*\n")
        client.say(b"EHLO a\r\nMAIL FROM:<a@example.org>\r\nXCLIENT ADDR=192.0.2.1\r\nSTARTTLS\r\n")
        assert client.line() == b"500 5.5.1 This is LMTP, send LHLO\r\n"
        assert client.line() == MUST_STARTTLS
        assert client.line() == b"502 5.5.1 Command not implemented\r\n"
        assert client.line() == GO_AHEAD
        client.shake_hands(place.trusting)
        client.say(b"MAIL FROM:<a@example.org>\r\n")
        assert client.line() == b"503 5.5.1 Send LHLO first\r\n"


def test_chunks_for_nobody_do_not_confuse_anybody(place: Place) -> None:
    """RFC 2033 wants no reply to BDAT LAST without a recipient, and Dovecot gives one."""
    with Client(place.gateway.address("none-none")) as client:
        place.secure(client)
        client.say(b"MAIL FROM:<a@example.org>\r\nBDAT 0 LAST\r\nBDAT 6 LAST\r\nQUIT\r\nDATA\r\nNOOP\r\nQUIT\r\n")
        client.line()
        assert client.rest() == (b"503 5.5.1 No valid recipients\r\n" * 3 + b"250 2.0.0 OK\r\n" + b"221 2.0.0 Bye\r\n")


# --- clients -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
@pytest.mark.parametrize("service", ["socket", "none-starttls"])
def test_swaks(place: Place, tmp_path: Path, users: tuple[str, str], service: str, mode: str) -> None:
    swaks = programs.need("swaks", debian="swaks libnet-ssleay-perl")
    _, port = place.gateway.address(service, mode)
    file = tmp_path / "message"
    file.write_bytes(STORED.replace(b"\r\n", b"\n").removesuffix(b"\n"))
    done = subprocess.run(
        [
            *(swaks, "--protocol", "LMTP", "--server", "localhost", "--port", str(port), "--from", "hans@example.org"),
            *("--to", ",".join(users), "--tls" if mode == "starttls" else "--tls-on-connect", "--tls-verify"),
            *("--tls-ca-path", str(place.authority), "--data", f"@{file}", "--timeout", "20"),
        ],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for user in users:
        check(place, user)


def test_smtplib(place: Place, users: tuple[str, str]) -> None:
    host, port = place.gateway.address("xclient-none")
    with smtplib.LMTP(host, port, timeout=DEADLINE) as client:
        with pytest.raises(smtplib.SMTPSenderRefused, match="Must issue a STARTTLS"):
            client.sendmail("hans@example.org", [users[0]], STORED)
        client.starttls(context=place.trusting)
        client.sendmail("hans@example.org", [users[0]], STORED)
    check(place, users[0])


@pytest.mark.parametrize("program", programs.STARTTLS_CLIENTS)
def test_programs_that_know_starttls_for_lmtp(place: Place, program: str) -> None:
    _, port = place.gateway.address("none-none")
    heard = programs.says_inside_tls(program, "lmtp", port, place.authority, LHLO, b"PIPELINING")
    assert b"221 2.0.0 Bye" in heard, heard


# --- exact octets ------------------------------------------------------------------------------------


def test_what_a_backend_hears_before_tls(place: Place) -> None:
    with Client(place.gateway.address("scripted")) as client:
        client.hear(rb"^220 [^\n]*\n")
        client.say(LHLO + b"HELO a\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b>\r\nBDAT 9 LAST\r\nXCLIENT\r\nDATA\r\n")
        heard = client.hear(rb"(?:^5[^\n]*\n){5}")
        assert heard.endswith(b"500 5.5.1 This is LMTP, send LHLO\r\n" + MUST_STARTTLS * 4)
    connection = place.scripted.connection()
    connection.wait_until_ended()
    assert connection.heard == LHLO + b"QUIT\r\n"
