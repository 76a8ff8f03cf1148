"""Other people's clients send mail to a Postfix that speaks no TLS; what arrives is what was sent, octet by octet."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import smtplib
import ssl
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.process import programs
from tests.process.running import CANARY, DEADLINE, Gateway, Identity, Service, running
from tests.process.servers import Postfix
from tests.process.wire import Client

PORTS = (("mx", "starttls"), ("submission", "starttls"), ("submission", "implicit"), ("plain", "starttls"))
"""Port 25, 587, 465, and one that adds no Received: field."""
USER = "hansel"
SENDER = "hansel@example.test"

_recipients = (f"r{number}@example.test" for number in count())


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, identity: Identity, postfix: Postfix) -> Iterator[Gateway]:
    starttls, both = ("starttls",), ("starttls", "implicit")
    services = [
        Service("mx", postfix.smtp, "smtp", starttls, {"policy": "auth-only"}),
        Service("submission", postfix.submission, "smtp", both),
        Service("plain", postfix.smtp, "smtp", starttls, {"received": "no"}),
    ]
    with running(tmp_path_factory.mktemp("gateway"), identity, services) as gateway:
        yield gateway


@pytest.fixture
def recipient() -> str:
    """Whom nobody else writes to."""
    return next(_recipients)


def eight_bit() -> bytes:
    """Dots at every place that matters, octets of every value but CR, LF and NUL, a long line, a big tail."""
    signs = bytes(octet for octet in range(1, 256) if octet not in b"\r\n")
    lines = [
        b".",
        b"..",
        b".x",
        b"",
        b"...",
        signs,
        b"." + signs,
        b"x" * 990,
        b"QUIT",
        b"MAIL FROM:<evil@example.test>",
    ]
    return b"Subject: eight bits\r\n\r\n" + b"".join(line + b"\r\n" for line in lines * 3)


def large() -> bytes:
    """20 MB; every fourth line begins with a dot."""
    lines = base64.encodebytes(os.urandom(15_000_000)).split(b"\n")[:-1]
    dotted = [b"." + line if number % 4 == 0 else line for number, line in enumerate(lines)]
    return b"Subject: large\r\n\r\n" + b"\r\n".join(dotted) + b"\r\n"


MESSAGES = {"eight_bit": eight_bit, "large": large}


def session(gateway: Gateway, service: str, mode: str, trusting: ssl.SSLContext) -> smtplib.SMTP:
    """Under TLS, and logged in where that is the custom."""
    _, port = gateway.address(service, mode)
    if mode == "implicit":
        client: smtplib.SMTP = smtplib.SMTP_SSL("localhost", port, context=trusting, timeout=DEADLINE)
    else:
        client = smtplib.SMTP("localhost", port, timeout=DEADLINE)
        client.ehlo()
        assert client.has_extn("starttls")
        assert not client.has_extn("auth")
        client.starttls(context=trusting)
    client.ehlo()
    assert not client.has_extn("starttls")
    assert client.has_extn("auth")
    if service == "submission":
        client.login(USER, CANARY)
    return client


def digest(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()


def check(arrived: bytes, sent: bytes, service: str, keyword: str) -> None:
    """Postfix's own field comes first, then ours, then the message as it was sent."""
    ahead = arrived[: len(arrived) - len(sent)]
    assert digest(arrived[len(ahead) :]) == digest(sent), f"of {len(sent)} octets: {arrived[:500]!r}"
    fields = re.sub(rb"\r\n[ \t]+", b" ", ahead).split(b"\r\n")[:-1]
    assert b" by legacy.example.test (Postfix) " in fields[0]
    if service == "plain":
        assert len(fields) == 1
    else:
        assert len(fields) == 2
        version = rb"\(using TLSv1\.3 with cipher TLS_\w+ \(\d+/\d+ bits\)\)"
        if keyword in ("ESMTP", "SMTP"):
            version = rb""
        form = rb"Received: from \S+ \(\[127\.0\.0\.1\]\) %s ?by gw\.example\.test \(starttls-gateway\) with %s id "
        assert re.match(form % (version, keyword.encode()), fields[1]), fields[1]


def keyword(service: str) -> str:
    return "ESMTPSA" if service == "submission" else "ESMTPS"


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize(("service", "mode"), PORTS)
def test_smtplib_delivers(
    gateway: Gateway, postfix: Postfix, trusting: ssl.SSLContext, recipient: str, service: str, mode: str, kind: str
) -> None:
    message = MESSAGES[kind]()
    with session(gateway, service, mode, trusting) as client:
        client.sendmail(SENDER, [recipient], message, mail_options=["BODY=8BITMIME"])
    check(postfix.mailbox.take(recipient), message, service, keyword(service))


@pytest.mark.parametrize(("service", "mode"), PORTS)
def test_several_messages_of_a_session_arrive_each_with_its_own_trace(
    gateway: Gateway, postfix: Postfix, trusting: ssl.SSLContext, service: str, mode: str
) -> None:
    since = gateway.log.mark()
    recipients = [next(_recipients) for _ in range(5)]
    traces = set()
    with session(gateway, service, mode, trusting) as client:
        for number, recipient in enumerate(recipients):
            message = b"Subject: %d\r\n\r\n.%d\r\n" % (number, number)
            client.sendmail(SENDER, [recipient], message)
            client.rset()
            arrived = postfix.mailbox.take(recipient)
            check(arrived, message, service, keyword(service))
            traces.update(re.findall(rb"\(starttls-gateway\)\s+with\s+\S+\s+id\s+([^;\s]+)", arrived))
    assert len(traces) == (0 if service == "plain" else 5)
    assert gateway.log.wait("session", since, service=service)["messages"] == "5"


@pytest.mark.parametrize(("service", "mode"), PORTS)
def test_an_empty_message_and_one_without_a_header_arrive(
    gateway: Gateway, postfix: Postfix, trusting: ssl.SSLContext, service: str, mode: str
) -> None:
    with session(gateway, service, mode, trusting) as client:
        for message in (b"", b"\r\nno header\r\n"):
            recipient = next(_recipients)
            client.mail(SENDER)
            client.rcpt(recipient)
            client.docmd("DATA")
            client.send(message + b".\r\n")
            assert client.getreply()[0] == 250
            check(postfix.mailbox.take(recipient), message, service, keyword(service))


@pytest.mark.parametrize("name", ["login", "plain", "cram_md5"])
def test_smtplib_logs_in_with_each_mechanism_that_postfix_offers(
    gateway: Gateway, trusting: ssl.SSLContext, name: str
) -> None:
    since = gateway.log.mark()
    _, port = gateway.address("submission", "implicit")
    with smtplib.SMTP_SSL("localhost", port, context=trusting, timeout=DEADLINE) as client:
        client.ehlo()
        offered = client.esmtp_features["auth"].split()
        mechanism = name.upper().replace("_", "-")
        assert mechanism in offered
        client.user, client.password = USER, CANARY
        assert client.auth(mechanism, getattr(client, f"auth_{name}"))[0] == 235
    auth = gateway.log.wait("auth", since)
    assert (auth["result"], auth["mechanism"]) == ("ok", mechanism)


def test_a_wrong_password_is_refused_by_postfix_and_the_right_one_then_taken(
    gateway: Gateway, trusting: ssl.SSLContext
) -> None:
    """In one session: smtplib tries each mechanism with the wrong one, and that is not yet guessing (E12)."""
    since = gateway.log.mark()
    _, port = gateway.address("submission", "implicit")
    with smtplib.SMTP_SSL("localhost", port, context=trusting, timeout=DEADLINE) as client:
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login(USER, CANARY.lower())
        client.login(USER, CANARY)
    gateway.log.wait("auth", since, result="ok")
    results = [event["result"] for event in gateway.log.events("auth", since)]
    assert results[-1] == "ok"
    assert "failed" in results


def test_a_server_without_tls_of_its_own_may_deliver_to_the_mx_port_but_not_log_in(
    gateway: Gateway, postfix: Postfix, recipient: str
) -> None:
    message = b"Subject: in the clear\r\n\r\nRFC 3207 4\r\n"
    with smtplib.SMTP(*gateway.address("mx"), timeout=DEADLINE) as client:
        client.ehlo()
        assert client.docmd("AUTH", "PLAIN") == (530, b"5.7.0 Must issue a STARTTLS command first")
        client.sendmail(SENDER, [recipient], message)
    check(postfix.mailbox.take(recipient), message, "mx", "ESMTP")


def test_in_the_clear_the_submission_port_takes_nothing(gateway: Gateway) -> None:
    with smtplib.SMTP(*gateway.address("submission"), timeout=DEADLINE) as client:
        client.ehlo()
        for command in ("MAIL FROM:<a@example.test>", "RCPT TO:<b@example.test>", "DATA", "AUTH LOGIN", "VRFY a"):
            assert client.docmd(command) == (530, b"5.7.0 Must issue a STARTTLS command first")


@pytest.mark.parametrize(("service", "mode"), PORTS)
def test_T25_swaks_delivers(
    gateway: Gateway, postfix: Postfix, identity: Identity, recipient: str, tmp_path: Path, service: str, mode: str
) -> None:
    swaks = programs.need("swaks", debian="swaks libnet-ssleay-perl")
    _, port = gateway.address(service, mode)
    message = b"Subject: swaks\r\n\r\n" + b".\r\n..dots\r\nf\xfc\xdfe\r\n" * 1000
    file = tmp_path / "message"
    # swaks ends the last line itself.
    file.write_bytes(message.removesuffix(b"\r\n").replace(b"\r\n", b"\n"))
    auth = ["--auth", "PLAIN", "--auth-user", USER, "--auth-password", CANARY] if service == "submission" else []
    done = subprocess.run(
        [
            *(swaks, "--server", "localhost", "--port", str(port), "--from", SENDER, "--to", recipient, *auth),
            *("--tls" if mode == "starttls" else "--tls-on-connect", "--tls-ca-path", str(identity.authority)),
            *("--tls-verify", "--data", f"@{file}", "--timeout", "20", "--pipeline"),
        ],
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    check(postfix.mailbox.take(recipient), message, service, keyword(service))


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize(("service", "mode"), PORTS)
def test_T25_curl_delivers(
    gateway: Gateway,
    postfix: Postfix,
    identity: Identity,
    recipient: str,
    tmp_path: Path,
    service: str,
    mode: str,
    kind: str,
) -> None:
    curl = programs.need("curl", debian="curl")
    _, port = gateway.address(service, mode)
    file = tmp_path / "message"
    message = MESSAGES[kind]()
    file.write_bytes(message)
    scheme = "smtps" if mode == "implicit" else "smtp"
    auth = ["--user", f"{USER}:{CANARY}"] if service == "submission" else []
    subprocess.run(
        [
            *(curl, "--silent", "--show-error", "--ssl-reqd", "--cacert", str(identity.authority), *auth),
            *("--mail-from", SENDER, "--mail-rcpt", recipient, "--upload-file", str(file)),
            f"{scheme}://localhost:{port}/client.example.test",
        ],
        check=True,
        timeout=60,
    )
    check(postfix.mailbox.take(recipient), message, service, keyword(service))


@pytest.mark.parametrize("service", ["mx", "plain"])
def test_chunks_arrive_as_they_were_sent(
    gateway: Gateway, postfix: Postfix, trusting: ssl.SSLContext, recipient: str, service: str
) -> None:
    first = b"Subject: chunks\r\n\r\n.\r\nQUIT\r\n..\r\n"
    second = b"MAIL FROM:<evil@example.test>\r\n" * 50_000
    with Client(gateway.address(service)) as client:
        client.hear(rb"^220 .*\n")
        client.say(b"EHLO client.example.test\r\n")
        client.hear(rb"^250 STARTTLS\r\n")
        client.say(b"STARTTLS\r\n")
        client.hear(rb"^220 .*\n")
        client.shake_hands(trusting)
        client.say(b"EHLO client.example.test\r\n")
        client.hear(rb"^250 CHUNKING\r\n")
        # RFC 3030 4.2: chunks may be pipelined, the last one may be empty.
        client.say(
            b"MAIL FROM:<%s>\r\nRCPT TO:<%s>\r\nBDAT %d\r\n%sBDAT %d\r\n%sBDAT 0 LAST\r\n"
            % (SENDER.encode(), recipient.encode(), len(first), first, len(second), second)
        )
        for _ in range(5):
            assert client.line().startswith(b"250 ")
        client.say(b"QUIT\r\n")
        assert client.line().startswith(b"221 ")
        assert client.rest() == b""
    check(postfix.mailbox.take(recipient), first + second, service, "ESMTPS")
