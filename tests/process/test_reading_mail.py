"""Other people's clients read mail from a Dovecot that speaks no TLS, through every port of the gateway."""

from __future__ import annotations

import base64
import hashlib
import imaplib
import os
import poplib
import re
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process import programs
from tests.process.running import CANARY, DEADLINE, Gateway, Identity, Service, running
from tests.process.servers import Dovecot

MODES = ("starttls", "implicit")
BIG = 50_000_000
"""Octets of the message that everybody fetches."""
USER = "grete"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, identity: Identity, dovecot: Dovecot) -> Iterator[Gateway]:
    services = [Service("imap", dovecot.imap), Service("pop3", dovecot.pop3)]
    with running(tmp_path_factory.mktemp("gateway"), identity, services) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def big(dovecot: Dovecot) -> bytes:
    """The only message of USER; no line of it begins with a dot, so that POP3's stuffing changes nothing."""
    lines = base64.encodebytes(os.urandom(BIG * 3 // 4)).replace(b"\n", b"\r\n")
    message = b"Subject: big\r\n\r\n" + lines[:BIG].rpartition(b"\r\n")[0] + b"\r\n"
    dovecot.store(USER, message)
    return message


def digest(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()


def imap(gateway: Gateway, mode: str, trusting: ssl.SSLContext) -> imaplib.IMAP4:
    _, port = gateway.address("imap", mode)
    if mode == "implicit":
        return imaplib.IMAP4_SSL("localhost", port, ssl_context=trusting, timeout=DEADLINE)
    session = imaplib.IMAP4("localhost", port, timeout=DEADLINE)
    assert "LOGINDISABLED" in session.capabilities
    session.starttls(trusting)
    return session


def pop3(gateway: Gateway, mode: str, trusting: ssl.SSLContext) -> poplib.POP3:
    _, port = gateway.address("pop3", mode)
    if mode == "implicit":
        return poplib.POP3_SSL("localhost", port, context=trusting, timeout=DEADLINE)
    session = poplib.POP3("localhost", port, timeout=DEADLINE)
    assert "STLS" in session.capa()
    assert "USER" not in session.capa()
    session.stls(trusting)
    return session


@pytest.mark.parametrize("mode", MODES)
def test_imaplib_logs_in_and_fetches_50_megabytes(
    gateway: Gateway, trusting: ssl.SSLContext, big: bytes, mode: str
) -> None:
    since = gateway.log.mark()
    session = imap(gateway, mode, trusting)
    assert not {"STARTTLS", "LOGINDISABLED"} & set(session.capabilities)
    session.login(USER, CANARY)
    session.select(readonly=True)
    _, fetched = session.fetch("1", "(BODY.PEEK[])")
    session.logout()
    assert isinstance(fetched[0], tuple)
    assert digest(fetched[0][1]) == digest(big)
    assert gateway.log.wait("auth", since, service="imap")["result"] == "ok"
    ended = gateway.log.wait("session", since, service="imap")
    assert (ended["tls"], ended["phase"]) == ("TLSv1.3", "relaying")
    assert int(ended["sent"]) > BIG - 200


@pytest.mark.parametrize("mode", MODES)
def test_poplib_logs_in_and_fetches_50_megabytes(
    gateway: Gateway, trusting: ssl.SSLContext, big: bytes, mode: str
) -> None:
    session = pop3(gateway, mode, trusting)
    assert "STLS" not in session.capa()
    session.user(USER)
    session.pass_(CANARY)
    _, lines, _ = session.retr(1)
    session.quit()
    assert digest(b"\r\n".join(lines) + b"\r\n") == digest(big)


@pytest.mark.parametrize("mode", MODES)
def test_imaplib_is_told_of_new_mail_while_it_idles(
    gateway: Gateway, dovecot: Dovecot, trusting: ssl.SSLContext, mode: str
) -> None:
    user = f"idle-{mode}"
    session = imap(gateway, mode, trusting)
    session.login(user, CANARY)
    session.select()
    session.send(b"i IDLE\r\n")
    assert session.readline().startswith(b"+ ")
    dovecot.store(user, b"Subject: new\r\n\r\nmail\r\n")
    assert re.match(rb"\* 1 EXISTS", session.readline())
    session.send(b"DONE\r\n")
    while not (line := session.readline()).startswith(b"i "):
        assert line.startswith(b"* ")
    assert line.startswith(b"i OK")
    session.logout()


@pytest.mark.parametrize("mode", MODES)
def test_imaplib_appends_what_looks_like_commands_and_reads_it_back(
    gateway: Gateway, trusting: ssl.SSLContext, mode: str
) -> None:
    message = b"Subject: tricky\r\n\r\nx STARTTLS\r\n" + bytes(range(128, 256)) * 1000 + b"\r\n.\r\n* BYE {7}\r\n"
    session = imap(gateway, mode, trusting)
    session.login(f"append-{mode}", CANARY)
    session.append("INBOX", "", "", message)
    session.select()
    assert session.fetch("1", "(RFC822)")[1][0][1] == message  # type: ignore[index]
    session.logout()


@pytest.mark.parametrize("mode", MODES)
def test_imaplib_and_poplib_log_in_with_a_challenge(gateway: Gateway, trusting: ssl.SSLContext, mode: str) -> None:
    session = imap(gateway, mode, trusting)
    session.login_cram_md5(f"challenge-{mode}", CANARY)
    assert session.state == "AUTH"
    session.logout()


@pytest.mark.parametrize("mode", MODES)
def test_a_wrong_password_is_refused_by_dovecot_and_told_as_such(
    gateway: Gateway, trusting: ssl.SSLContext, mode: str
) -> None:
    since = gateway.log.mark()
    session = imap(gateway, mode, trusting)
    with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
        session.login(USER, CANARY.upper())
    session.login(f"wrong-{mode}", CANARY)  # the connection is as good as before
    session.logout()
    gateway.log.wait("auth", since, count=2)
    results = [event["result"] for event in gateway.log.events("auth", since)]
    assert results == ["failed", "ok"]
    mailbox = pop3(gateway, mode, trusting)
    mailbox.user(USER)
    with pytest.raises(poplib.error_proto, match="AUTH"):
        mailbox.pass_(CANARY.upper())
    mailbox.quit()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_T25_curl_logs_in_and_fetches_50_megabytes(
    gateway: Gateway, identity: Identity, big: bytes, tmp_path: Path, protocol: str, mode: str
) -> None:
    curl = programs.need("curl", debian="curl")
    _, port = gateway.address(protocol, mode)
    scheme = protocol + "s" * (mode == "implicit")
    item = "INBOX;MAILINDEX=1" if protocol == "imap" else "1"
    fetched = tmp_path / "message"
    subprocess.run(
        [
            *(curl, "--silent", "--show-error", "--ssl-reqd", "--cacert", identity.authority),
            *("--user", f"{USER}:{CANARY}", "--output", fetched, f"{scheme}://localhost:{port}/{item}"),
        ],
        check=True,
        timeout=60,
    )
    assert digest(fetched.read_bytes()) == digest(big)


SAID_TO_OPENSSL = {
    "imap": f"a LOGIN {USER} {CANARY}\nb EXAMINE INBOX\nc FETCH 1 BODY.PEEK[]\nd LOGOUT\n",
    "pop3": f"USER {USER}\nPASS {CANARY}\nRETR 1\nQUIT\n",
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_openssl_logs_in_and_fetches_50_megabytes(
    gateway: Gateway, identity: Identity, big: bytes, protocol: str, mode: str
) -> None:
    openssl = programs.need("openssl", debian="openssl")
    _, port = gateway.address(protocol, mode)
    starttls = ["-starttls", protocol] if mode == "starttls" else []
    done = subprocess.run(
        [
            *(openssl, "s_client", "-connect", f"localhost:{port}", *starttls, "-quiet", "-crlf"),
            *("-CAfile", identity.authority, "-verify_return_error", "-verify_hostname", "localhost"),
        ],
        input=SAID_TO_OPENSSL[protocol].encode(),
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    begin = done.stdout.index(b"Subject: big")
    assert digest(done.stdout[begin : begin + len(big)]) == digest(big)


@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_a_pipelined_login_and_what_follows_it_are_answered_in_order(
    gateway: Gateway, trusting: ssl.SSLContext, big: bytes, protocol: str
) -> None:
    if protocol == "imap":
        session = imap(gateway, "implicit", trusting)
        session.send(f"a LOGIN {USER} {CANARY}\r\nb EXAMINE INBOX\r\nc NOOP\r\nd LOGOUT\r\n".encode())
        said = b"".join(iter(session.readline, b""))
        assert re.findall(rb"^([a-d]) OK", said, re.MULTILINE) == [b"a", b"b", b"c", b"d"]
        session.shutdown()
    else:
        mailbox = pop3(gateway, "implicit", trusting)
        mailbox.sock.sendall(f"USER {USER}\r\nPASS {CANARY}\r\nSTAT\r\nQUIT\r\n".encode())
        said = mailbox.file.read()
        assert re.fullmatch(rb"\+OK[^\n]*\n\+OK[^\n]*\n\+OK 1 %d\r\n\+OK[^\n]*\n" % len(big), said), said
        mailbox.close()
