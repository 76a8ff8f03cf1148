"""`starttls-gateway check FILE --live`: what it tells of backends of all kinds, to people and to programs."""

from __future__ import annotations

import json
import os
import pty
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.protocol.proxyprotocol import SIGNATURE
from tests.process import servers
from tests.process.conftest import Serve, directory_for_servers
from tests.process.legacy import SERVERS, imap, pop3, smtp
from tests.process.recording import Connection, Script
from tests.process.running import DEADLINE, ROOT, Identity, Service, running
from tests.process.servers import Dovecot, Postfix
from tests.process.wire import Client

DENIED = b"554 5.7.1 Relay access denied\r\n"
closed_relay = smtp({b"RCPT": DENIED})


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address that nobody listens on; its port is taken, so that nobody will by chance."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def server_side(identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate)
    return context


def over_tls(identity: Identity, script: Script) -> Script:
    """The same, inside TLS from the first octet."""

    def play(connection: Connection) -> None:
        connection.socket = server_side(identity).wrap_socket(connection.socket, server_side=True)
        script(connection)

    return play


@dataclass
class Checking:
    """A file, and what is found of it."""

    directory: Path
    identity: Identity
    services: list[str] = field(default_factory=list)

    def service(self, protocol: str, address: str, **options: str) -> None:
        """A service and its backend, called after the protocol and a number."""
        name = f"{protocol}{len(self.services)}"
        lines = [f"[service:{name}]", f"protocol = {protocol}", "starttls = 127.0.0.1:0", f"backend = {name}-server"]
        lines += [f"[backend:{name}-server]", f"address = {address}"]
        self.services.append("\n".join([*lines, *(f"{option} = {value}" for option, value in options.items())]))

    def write(self) -> Path:
        file = self.directory / "gateway.ini"
        head = f"[gateway]\nhostname = gw.example.test\n[tls]\ncertificate = {self.identity.certificate}\n"
        file.write_text(head + "\n".join(self.services) + "\n")
        return file

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gateway.cli", "check", str(self.write()), *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=6 * DEADLINE,
        )

    def text(self) -> tuple[int, str]:
        done = self.run("--live")
        assert done.stderr == ""
        assert done.stdout.isascii()
        assert "\x1b" not in done.stdout
        return done.returncode, done.stdout

    def json(self) -> tuple[int, Mapping[str, Any]]:
        done = self.run("--live", "--json")
        assert done.stderr == ""
        return done.returncode, json.loads(done.stdout)

    def reports(self, status: int = 0) -> list[Mapping[str, Any]]:
        """Of all addresses."""
        ended, found = self.json()
        assert ended == status, found
        reports: list[Mapping[str, Any]] = found["backends"]
        return reports


@pytest.fixture
def checking(tmp_path: Path, identity: Identity) -> Checking:
    return Checking(tmp_path, identity)


def row(text: str, label: str) -> str:
    """The first line of a report that begins with this word, without it."""
    return next(line.removeprefix(label).strip() for line in text.splitlines() if line.startswith(label))


def test_where_all_is_well_it_says_so(checking: Checking, serve: Serve) -> None:
    for protocol, usual in SERVERS.items():
        checking.service(protocol, serve(closed_relay if protocol == "smtp" else usual(None)).address)
    status, text = checking.text()
    assert status == 0, text
    assert f"{len(SERVERS)} addresses tested: all good" in text
    assert "220 legacy.example.test ESMTP" in text
    assert "* OK [CAPABILITY IMAP4rev1 SASL-IR LITERAL+ ID IDLE AUTH=PLAIN] legacy ready" in text
    assert "closed (554 5.7.1 Relay access denied)" in text
    for line in (
        "- STARTTLS",
        "- XCLIENT NAME ADDR",
        "+ AUTH PLAIN LOGIN",
        "- AUTH=EXTERNAL",
        "- STLS",
        "+ SASL PLAIN",
    ):
        assert f"{line}\n" in text


def test_the_same_in_JSON(checking: Checking, serve: Serve) -> None:
    backend = serve(closed_relay)
    checking.service("smtp", backend.address)
    status, found = checking.json()
    assert status == 0
    assert (found["good"], found["hostname"], found["problems"]) == (True, "gw.example.test", [])
    (report,) = found["backends"]
    capabilities = report.pop("capabilities")
    assert capabilities["removed"] == ["STARTTLS", "AUTH PLAIN LOGIN EXTERNAL", "XCLIENT NAME ADDR"]
    assert capabilities["added"] == ["AUTH PLAIN LOGIN"]
    assert "XCLIENT NAME ADDR" in capabilities["backend"]
    assert capabilities["client"] == ["PIPELINING", "SIZE 0", "AUTH PLAIN LOGIN", "8BITMIME", "CHUNKING"]
    assert report == {
        "backend": "smtp0-server",
        "services": ["smtp0"],
        "protocol": "smtp",
        "address": backend.address,
        "reached": backend.address,
        "good": True,
        "lazy": [],
        "greeting": {"backend": "220 legacy.example.test ESMTP", "client": "220 legacy.example.test ESMTP"},
        "tls": {"mode": "none", "version": None, "cipher": None, "group": None, "certificate": None},
        "identity": {"mode": "none", "accepted": None},
        "login": {"possible": True, "needed": False, "ways": ["LOGIN", "PLAIN"], "text": ""},
        "sending": {"possible": True, "after_login": False, "text": "250 2.1.0 Ok"},
        "relay": {"verdict": "closed", "text": DENIED.decode().strip(), "allowed": False},
        "problems": [],
        "warnings": [],
    }


def test_S30_an_open_relay_is_wrong_unless_it_is_meant(checking: Checking, serve: Serve) -> None:
    backend = serve(smtp())
    checking.service("smtp", backend.address)
    status, text = checking.text()
    assert status == 1, text
    assert row(text, "relay").startswith("OPEN")
    assert row(text, "wrong") == "open-relay: 250 2.1.5 Ok"
    assert "allow_relay" in text
    surveying, probing = backend.connection(), backend.connection()
    assert surveying.heard == b"EHLO gw.example.test\r\nMAIL FROM:<>\r\nRSET\r\nQUIT\r\n"
    assert b"RCPT TO:<relay-probe@example.com>\r\n" in probing.heard
    assert b"DATA" not in probing.heard
    checking.services.clear()
    checking.service("smtp", backend.address, allow_relay="yes")
    (report,) = checking.reports()
    assert report["relay"] == {"verdict": "open", "text": "250 2.1.5 Ok", "allowed": True}


def test_TLS_and_the_certificate_are_told(checking: Checking, serve: Serve, identity: Identity) -> None:
    backend = serve(over_tls(identity, closed_relay))
    checking.service("smtp", backend.address, tls="implicit", ca=str(identity.authority))
    status, text = checking.text()
    assert status == 0, text
    assert row(text, "tls").startswith("implicit, TLSv1.3, TLS_")
    assert row(text, "certificate").startswith("localhost, 127.0.0.1, mail.example.test; ")
    assert row(text, "certificate").endswith(" days left; verified")
    status, found = checking.json()
    tls = found["backends"][0]["tls"]
    assert tls["version"] == "TLSv1.3"
    assert tls["certificate"]["names"] == ["localhost", "127.0.0.1", "mail.example.test"]
    assert tls["certificate"]["days_left"] > 0
    assert len(tls["certificate"]["sha256"]) == 64
    assert tls["certificate"]["trust"] == "verified"


@pytest.mark.parametrize(("options", "detail"), [
    ({}, "unknown CA"), ({"ca": "AUTHORITY", "name": "other.example.test"}, "not other.example.test"),
    ({"verify": f"sha256:{'0' * 64}"}, "pin does not match"),
])  # fmt: skip
def test_a_certificate_that_is_refused_is_wrong(
    checking: Checking, serve: Serve, identity: Identity, options: dict[str, str], detail: str
) -> None:
    options = {name: str(identity.authority) if value == "AUTHORITY" else value for name, value in options.items()}
    backend = serve(over_tls(identity, imap()))
    checking.service("imap", backend.address, tls="implicit", **options)
    (report,) = checking.reports(1)
    (problem,) = report["problems"]
    assert problem["problem"] == "backend-tls-failed"
    assert detail in problem["detail"]
    assert "verify" in problem["cure"]
    assert report["tls"]["version"] is report["greeting"] is report["capabilities"]["client"] is None


@pytest.mark.parametrize(("protocol", "greeting", "problem"), [
    ("smtp", b"554 5.3.2 go away\r\n", "backend-refused"),
    ("smtp", b"421 4.3.2 busy\r\n", "backend-refused"),
    ("imap", b"* BYE go away\r\n", "backend-refused"),
    ("pop3", b"-ERR go away\r\n", "backend-refused"),
    ("smtp", b"SSH-2.0-x\r\n", "backend-bad-greeting"),
    ("imap", b"* PREAUTH welcome\r\n", "backend-preauth"),
])  # fmt: skip
def test_a_backend_that_does_not_serve_is_wrong(
    checking: Checking, serve: Serve, protocol: str, greeting: bytes, problem: str
) -> None:
    checking.service(protocol, serve(greet_and_go(greeting)).address)
    ((wrong,),) = [one["problems"] for one in checking.reports(1)]
    assert wrong["problem"] == problem
    assert wrong["detail"]
    assert wrong["cure"]


def test_who_is_not_there_is_wrong_and_each_address_stands_for_itself(
    checking: Checking, serve: Serve, nowhere: str
) -> None:
    backend = serve(pop3())
    checking.service("pop3", f"{backend.address} {nowhere}")
    there, gone = checking.reports(1)
    assert (there["address"], there["good"]) == (backend.address, True)
    assert (gone["address"], gone["good"], gone["reached"]) == (nowhere, False, None)
    assert gone["problems"][0]["problem"] == "backend-connect-failed"
    assert "ECONNREFUSED" in gone["problems"][0]["detail"]
    assert "1 with problems" in checking.text()[1]


def test_services_that_share_a_backend_are_one_report(checking: Checking, serve: Serve) -> None:
    address = serve(closed_relay).address
    for name in ("smtp", "submission"):
        checking.services.append(f"[service:{name}]\nprotocol = smtp\nstarttls = 127.0.0.1:0\nbackend = {address}")
    assert [report["services"] for report in checking.reports()] == [["smtp", "submission"]]


# --- identity ------------------------------------------------------------------------------------------


def test_T17_PROXY_version_2_tells_the_gateways_own_address_and_TLS(checking: Checking, serve: Serve) -> None:
    def behind_proxy(connection: Connection) -> None:
        assert connection.until(SIGNATURE + b"\x21\x11") == SIGNATURE + b"\x21\x11"
        (length,) = struct.unpack(">H", connection.take(2))
        header = connection.take(length)
        assert header.startswith(socket.inet_aton("127.0.0.1"))
        assert b"TLSv1.3" in header, "a client of the gateway is inside TLS"
        imap()(connection)

    checking.service("imap", serve(behind_proxy).address, identity="proxy-v2")
    (report,) = checking.reports()
    assert report["identity"] == {"mode": "proxy-v2", "accepted": True}


@pytest.mark.parametrize(("protocol", "script"), [("smtp", smtp()), ("pop3", pop3()), ("imap", imap())])
def test_who_does_not_expect_a_PROXY_header_is_found_out(
    checking: Checking, serve: Serve, protocol: str, script: Script
) -> None:
    checking.service(protocol, serve(script).address, identity="proxy-v1")
    (report,) = checking.reports(1)
    assert report["identity"] == {"mode": "proxy-v1", "accepted": False}
    assert "haproxy" in report["problems"][0]["cure"]
    assert report["relay"] is None


def test_XCLIENT_tells_the_gateways_own_address_and_may_be_refused(checking: Checking, serve: Serve) -> None:
    ehlo = b"250-legacy\r\n250 XCLIENT NAME ADDR PORT\r\n"
    backend = serve(smtp({b"EHLO": ehlo, b"XCLIENT": b"550 5.7.0 insufficient authorization\r\n"}))
    checking.service("smtp", backend.address, identity="xclient")
    status, text = checking.text()
    assert status == 1, text
    assert row(text, "identity") == "xclient: refused"
    assert "smtpd_authorized_xclient_hosts" in text
    assert b" ADDR=127.0.0.1 " in backend.connection().heard


def test_ID_is_told_but_nobody_says_whether_it_is_believed(checking: Checking, serve: Serve) -> None:
    backend = serve(imap({b"ID": b"* ID NIL\r\nTAG OK done\r\n"}))
    checking.service("imap", backend.address, identity="id")
    status, text = checking.text()
    assert status == 0
    assert row(text, "identity").startswith("id: sent; ")
    assert b'"x-originating-ip" "127.0.0.1"' in backend.connection().heard
    assert checking.json()[1]["backends"][0]["identity"] == {"mode": "id", "accepted": None}


def test_real_servers_are_looked_at_without_harm(checking: Checking, dovecot: Dovecot, postfix: Postfix) -> None:
    checking.service("smtp", postfix.smtp)
    checking.service("imap", dovecot.imap)
    checking.service("pop3", dovecot.pop3)
    status, text = checking.text()
    assert status == 0, text
    assert "closed (554 5.7.1 <relay-probe@example.com>: Relay access denied)" in text
    assert "3 addresses tested: all good" in text


# --- the terminal ----------------------------------------------------------------------------------------


def test_a_backend_cannot_paint_on_the_terminal(checking: Checking, serve: Serve) -> None:
    evil = b"220 \x1b[31mlegacy\x1b]0;x\x07 \xc3\xa9\r\n"
    checking.service("smtp", serve(greet_and_go(evil)).address)
    _, text = checking.text()
    assert row(text, "greeting") == r"220 \x1b[31mlegacy\x1b]0;x\x07 \xc3\xa9"


def greet_and_go(greeting: bytes) -> Script:
    def play(connection: Connection) -> None:
        connection.say(greeting)
        while line := connection.line():
            verb = line[:4]
            connection.say({b"RCPT": DENIED, b"QUIT": b"221 bye\r\n"}.get(verb, b"250 ok\r\n"))
            if verb == b"QUIT":
                return

    return play


@pytest.mark.parametrize(("environment", "coloured", "drawn"), [
    ({"TERM": "xterm", "PYTHONIOENCODING": "utf-8"}, True, True),
    ({"TERM": "xterm", "PYTHONIOENCODING": "ascii"}, True, False),
    ({"TERM": "xterm", "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1"}, False, True),
    ({"TERM": "dumb", "PYTHONIOENCODING": "utf-8"}, False, False),
])  # fmt: skip
def test_a_terminal_gets_what_it_can_show(
    checking: Checking, serve: Serve, environment: dict[str, str], coloured: bool, drawn: bool
) -> None:
    checking.service("smtp", serve(closed_relay).address)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", "check", str(checking.write()), "--live"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        env={"PATH": os.environ.get("PATH", os.defpath), **environment},
    )
    os.close(theirs)
    shown = b""
    try:
        while octets := os.read(ours, 65536):
            shown += octets
    except OSError:
        pass  # how Linux says that the other end is gone
    finally:
        os.close(ours)
        status = process.wait(DEADLINE)
    assert status == 0, shown
    assert (b"\x1b[32m" in shown) is coloured
    assert ("──".encode() in shown) is drawn


# --- the command line ------------------------------------------------------------------------------------


def test_a_bad_file_is_told_in_JSON_too_and_nobody_is_asked(checking: Checking, serve: Serve) -> None:
    backend = serve(closed_relay)
    checking.service("smtp", backend.address, verify="maybe")
    status, found = checking.json()
    assert (status, found["good"], found["hostname"], found["backends"]) == (1, False, None, [])
    assert "[backend:smtp0-server] verify" in found["problems"][0]
    assert backend.connections.empty()


def test_a_CA_file_that_is_none_is_told_without_asking_anybody(checking: Checking, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing\n")
    checking.service("imap", "127.0.0.1:9", tls="implicit", ca=str(tmp_path / "ca.pem"))
    done = checking.run()
    assert done.returncode == 1
    assert "[backend:imap0-server]" in done.stdout
    assert "no certificate in this file" in done.stdout


# --- T17: backends at which nobody can log in or send ----------------------------------------------------

STRICT = ("disable_plaintext_auth = yes", "login_trusted_networks =", "auth_mechanisms = plain login")
MUST_STARTTLS = "530 5.7.0 Must issue a STARTTLS command first"


@pytest.fixture(scope="module")
def strict(identity: Identity) -> Iterator[Dovecot]:
    """A Dovecot as it is installed: it takes passwords under TLS only, and our address is not its own."""
    with (
        directory_for_servers() as directory,
        servers.dovecot(directory, *STRICT, host="127.0.0.2", certificate=identity.certificate) as dovecot,
    ):
        yield dovecot


@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_T17_a_real_Dovecot_that_takes_passwords_under_TLS_only_is_wrong(
    checking: Checking, strict: Dovecot, protocol: str
) -> None:
    checking.service(protocol, strict.doors[protocol].address())
    (report,) = checking.reports(1)
    assert (report["login"]["possible"], report["login"]["needed"]) == (False, True)
    (problem,) = report["problems"]
    assert problem["problem"] == "backend-refuses-plaintext-auth"
    for setting in ("disable_plaintext_auth = no", "login_trusted_networks = 127.0.0.1", "tls = starttls", "proxy-v2"):
        assert setting in problem["cure"]
    status, text = checking.text()
    assert status == 1, text
    assert row(text, "login").startswith("NOBODY can log in: ")
    assert "1 with problems" in text


@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_T17_what_is_proposed_on_the_gateways_side_helps(checking: Checking, strict: Dovecot, protocol: str) -> None:
    checking.service(
        protocol,
        strict.doors[protocol].address(),
        tls="starttls",
        ca=str(checking.identity.authority),
        name="localhost",
    )
    checking.service(protocol, strict.doors[protocol].address("proxy-v2"), identity="proxy-v2")
    assert all(report["login"]["possible"] for report in checking.reports())
    # It tells nothing of the client's TLS.
    checking.service(protocol, strict.doors[protocol].address("proxy-v2"), identity="proxy-v1")
    assert [report["good"] for report in checking.json()[1]["backends"]] == [True, True, False]


@pytest.mark.parametrize("setting", ["disable_plaintext_auth = no", "login_trusted_networks = 127.0.0.1"])
def test_T17_what_is_proposed_on_Dovecots_side_helps(checking: Checking, setting: str) -> None:
    with (
        directory_for_servers() as directory,
        servers.dovecot(directory, "disable_plaintext_auth = yes", setting, host="127.0.0.2") as dovecot,
    ):
        checking.service("imap", dovecot.imap)
        checking.service("pop3", dovecot.pop3)
        assert all(report["login"]["possible"] for report in checking.reports())


def test_T17_where_some_clients_can_log_in_it_is_a_warning(checking: Checking) -> None:
    with (
        directory_for_servers() as directory,
        servers.dovecot(
            directory, "disable_plaintext_auth = yes", "auth_mechanisms = plain cram-md5", host="127.0.0.2"
        ) as dovecot,
    ):
        checking.service("imap", dovecot.imap)
        checking.service("pop3", dovecot.pop3)
        status, text = checking.text()
        found = checking.json()[1]["backends"]
    assert status == 0
    assert "2 addresses tested: all good, 2 with a warning" in text
    assert "warning       backend-refuses-plaintext-auth: only clients with AUTHENTICATE CRAM-MD5 can log" in text
    for report in found:
        assert (report["good"], report["problems"]) == (True, [])
        assert "disable_plaintext_auth = no" in report["warnings"][0]["cure"]


@pytest.fixture(scope="module")
def encrypting(dovecot: Dovecot, identity: Identity) -> Iterator[Postfix]:
    settings = "smtpd_tls_security_level = encrypt", f"smtpd_tls_cert_file = {identity.certificate}"
    with directory_for_servers() as directory, servers.postfix(directory, *settings, sasl=dovecot.sasl) as postfix:
        yield postfix


@pytest.fixture(scope="module")
def careful(dovecot: Dovecot, identity: Identity) -> Iterator[Postfix]:
    settings = "smtpd_tls_security_level = may", "smtpd_tls_auth_only = yes"
    certificate = f"smtpd_tls_cert_file = {identity.certificate}"
    with (
        directory_for_servers() as directory,
        servers.postfix(directory, *settings, certificate, sasl=dovecot.sasl) as postfix,
    ):
        yield postfix


def test_T17_a_real_Postfix_that_wants_TLS_is_wrong_and_not_closed(checking: Checking, encrypting: Postfix) -> None:
    checking.service("smtp", encrypting.smtp)
    (report,) = checking.reports(1)
    assert report["sending"] == {"possible": False, "after_login": False, "text": MUST_STARTTLS}
    assert report["relay"] == {"verdict": "undecided", "text": MUST_STARTTLS, "allowed": False}
    (problem,) = report["problems"]
    assert (problem["problem"], problem["detail"]) == ("backend-requires-tls", MUST_STARTTLS)
    assert "smtpd_tls_security_level = may" in problem["cure"]
    assert problem["cure"].endswith("tls = starttls")
    text = checking.text()[1]
    assert row(text, "relay").startswith("undecided: nobody can send (530 5.7.0")
    assert row(text, "sending") == f"NOBODY can send mail: {MUST_STARTTLS}"


def test_T17_a_real_Postfix_with_passwords_under_TLS_only_is_wrong_for_submission(
    checking: Checking, careful: Postfix
) -> None:
    checking.service("smtp", careful.smtp)
    status, found = checking.json()
    assert status == 0, found  # mail arrives
    checking.services[:] = [
        f"[service:submission]\nprotocol = smtp\nstarttls = 127.0.0.1:0\nbackend = {careful.submission}"
    ]
    ((problem,),) = [one["problems"] for one in checking.reports(1)]
    assert (problem["problem"], problem["detail"]) == (
        "backend-refuses-plaintext-auth",
        "EHLO offers STARTTLS, but no AUTH",
    )
    assert "smtpd_tls_auth_only = no" in problem["cure"]


def test_T17_tls_starttls_is_what_helps_with_Postfix(checking: Checking, encrypting: Postfix, careful: Postfix) -> None:
    for postfix in (encrypting, careful):
        for address in (postfix.smtp, postfix.submission):
            checking.service("smtp", address, tls="starttls", ca=str(checking.identity.authority))
    reports = checking.reports()
    for report in reports:
        assert "PLAIN" in report["login"]["ways"]
        assert report["sending"]["possible"]
        assert report["relay"]["verdict"] == "closed"


def test_T17_what_is_said_of_MAIL_counts_for_a_backend_that_is_told_the_client(
    checking: Checking, serve: Serve
) -> None:
    must = f"{MUST_STARTTLS}\r\n".encode()
    ehlo = b"250-legacy\r\n250 XCLIENT ADDR PORT\r\n"
    answers = {b"EHLO": ehlo, b"XCLIENT": b"220 legacy\r\n", b"MAIL": must}
    checking.service("smtp", serve(smtp(answers)).address, identity="xclient")
    (report,) = checking.reports(1)
    assert [problem["problem"] for problem in report["problems"]] == ["backend-requires-tls"]
    assert report["relay"] is None


def test_T17_a_login_that_is_demanded_and_not_offered_is_wrong_on_every_port(checking: Checking, serve: Serve) -> None:
    answers = {b"EHLO": b"250 legacy\r\n", b"MAIL": b"530 5.7.0 Authentication required\r\n", b"RCPT": DENIED}
    checking.service("smtp", serve(smtp(answers)).address)
    status, text = checking.text()
    assert status == 1, text
    assert row(text, "sending") == "after a login (530 5.7.0 Authentication required)"
    assert row(text, "login") == "NOBODY can log in: EHLO offers no AUTH"
    assert row(text, "wrong").startswith(
        "backend-refuses-plaintext-auth: EHLO offers no AUTH; the reply to MAIL FROM is: 530"
    )


def test_T17_a_service_that_may_relay_needs_no_login(checking: Checking, serve: Serve) -> None:
    address = serve(smtp({b"EHLO": b"250 legacy\r\n"})).address
    service = "[service:submission]\nprotocol = smtp\nstarttls = 127.0.0.1:0\nbackend = server\n"
    checking.services.append(f"{service}[backend:server]\naddress = {address}\nallow_relay = yes")
    status, text = checking.text()
    assert status == 0
    assert row(text, "login") == "not offered, not needed: EHLO offers no AUTH"


def test_T17_who_does_not_say_is_not_accused(checking: Checking, serve: Serve) -> None:
    def old(connection: Connection) -> None:
        connection.say(b"+OK hi\r\n")
        while (line := connection.line()) != b"QUIT":
            assert line in (b"CAPA", b"USER starttls-gateway-check")
            connection.say(b"-ERR what\r\n")
        connection.say(b"+OK bye\r\n")

    checking.service("pop3", serve(old).address)
    answers = {b"MAIL": b"550 5.7.1 not the null sender\r\n", b"RCPT": DENIED}
    checking.service("smtp", serve(smtp(answers)).address)
    status, text = checking.text()
    assert status == 0, text
    assert "login         not known: the backend does not say how" in text
    assert row(text, "sending") == "not known (550 5.7.1 not the null sender)"


def test_T17_in_a_session_the_same_finding_is_an_event(
    tmp_path: Path, identity: Identity, trusting: ssl.SSLContext, strict: Dovecot, encrypting: Postfix, careful: Postfix
) -> None:
    services = [
        Service("imap", strict.imap),
        Service("pop3", strict.pop3),
        Service("mx", encrypting.smtp, "smtp", watched=True),
        Service("submission", careful.submission, "smtp", watched=True),
    ]
    dialogues = {
        "imap": ((b"a LOGIN grete geheim\r\n", rb"^a NO \[PRIVACYREQUIRED\][^\n]*\n"),),
        "pop3": ((b"USER grete\r\n", rb"^-ERR \[AUTH\] Plaintext[^\n]*\n"),),
        "mx": (
            (b"EHLO client.example.test\r\n", rb"^250 [^\n]*\n"),
            (b"MAIL FROM:<a@b.example>\r\n", rb"^530 5\.7\.0 Must issue[^\n]*\n"),
        ),
        "submission": ((b"EHLO client.example.test\r\n", rb"^250 [^\n]*\n"),),
    }
    with running(tmp_path, identity, services) as gateway:
        # The watch has the same answer, and does not take it for a refusal to relay.
        undecided = gateway.log.wait("relay-undecided")
        assert undecided["text"] == MUST_STARTTLS
        assert "smtpd_tls_security_level = may" in undecided["cure"]
        gateway.log.wait("relay-closed")
        for service, dialogue in dialogues.items():
            for _ in range(2):
                with Client(gateway.address(service, "implicit")) as client:
                    client.shake_hands(trusting)
                    client.hear(rb"^(\* OK|\+OK|220 )[^\n]*\n")
                    for said, heard in dialogue:
                        client.say(said)
                        client.hear(heard)
                    client.say({"imap": b"b LOGOUT\r\n"}.get(service, b"QUIT\r\n"))
                    client.rest()
            gateway.log.wait("session", service=service, count=2)
        for service in dialogues:
            event = "backend-requires-tls" if service == "mx" else "backend-refuses-plaintext-auth"
            told = [found for found in gateway.log.events(event) if found["service"] == service]
            assert len(told) == 1, "once per backend"
            assert "tls = starttls" in told[0]["cure"]
            assert told[0]["detail"]


# --- T18: it ends, and tells what a lazy listener says -----------------------------------------------------


def test_T18_a_lazy_listener_is_shown_as_its_clients_see_it(checking: Checking, serve: Serve) -> None:
    for protocol, script in (("smtp", closed_relay), ("imap", imap()), ("pop3", pop3())):
        checking.service(protocol, serve(script).address, connect="lazy")
    assert [report["lazy"] for report in checking.reports()] == [
        [
            {
                "listeners": ["127.0.0.1:0"],
                "greeting": "220 gw.example.test ESMTP",
                "capabilities": ["ENHANCEDSTATUSCODES", "STARTTLS"],
            }
        ],
        [
            {
                "listeners": ["127.0.0.1:0"],
                "greeting": "* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] gw.example.test ready",
                "capabilities": ["IMAP4rev1", "STARTTLS", "LOGINDISABLED"],
            }
        ],
        [{"listeners": ["127.0.0.1:0"], "greeting": "+OK gw.example.test ready", "capabilities": ["STLS"]}],
    ]
    text = checking.text()[1]
    assert row(text, "lazy").startswith("on 127.0.0.1:0: the gateway sends its own greeting")
    assert row(text, "  greeting") == "220 gw.example.test ESMTP"
    assert row(text, "  before TLS") == "ENHANCEDSTATUSCODES, STARTTLS"
    assert row(text, "greeting") == "220 legacy.example.test ESMTP"


def test_T18_check_says_lazy_where_the_listener_does(
    tmp_path: Path, checking: Checking, identity: Identity, serve: Serve
) -> None:
    """PROXY version 2 makes it lazy, and implicit TLS makes it eager, whatever the file says."""
    address = serve(imap()).address
    options = {"eager": "", "lazy": "connect = lazy", "told": "identity = proxy-v2"}
    for name, option in options.items():
        checking.services.append(
            f"[service:{name}]\nprotocol = imap\nstarttls = 127.0.0.1:0\nimplicit = 127.0.0.1:0\n"
            f"backend = {name}-server\n[backend:{name}-server]\naddress = {address}\n{option}"
        )
    said = [
        line.split() for line in checking.run().stdout.splitlines() if line.split()[:1] in [[name] for name in options]
    ]
    table = {(words[0], words[3].lower()): words[-1].strip("()") for words in said}
    services = [Service(name, f"{name}-server", "imap") for name in options]
    backends = {
        f"backend:{name}-server": {"address": address, **dict([option.split(" = ")] if option else [])}
        for name, option in options.items()
    }
    with running(tmp_path, identity, services, options=backends) as gateway:
        told = {(event["service"], event["mode"]): event["connect"] for event in gateway.log.events("listening")}
        with Client(gateway.address("lazy")) as client:
            client.hear(rb"^\* OK [^\n]*\n")
    assert table == told
    assert {name: told[name, "starttls"] for name in options} == {"eager": "eager", "lazy": "lazy", "told": "lazy"}


_BROKEN = """
import sys
from gateway.cli import live
def broken(*_): raise ZeroDivisionError("on purpose")
live.terms_of_errands = broken
from gateway.cli.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_T18_a_bug_before_anybody_is_asked_ends_it(checking: Checking, nowhere: str) -> None:
    checking.service("imap", nowhere)
    done = subprocess.run(
        [sys.executable, "-c", _BROKEN, "check", str(checking.write()), "--live"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 1
    assert "ZeroDivisionError: on purpose" in done.stderr


# A name server that takes the question and never answers holds getaddrinfo for minutes.
_SILENT_RESOLVER = """
import socket, sys, threading
real = socket.getaddrinfo
def getaddrinfo(host, *rest, **more):
    if host == "silent.example.test" and not more.get("flags"):
        threading.Event().wait()
    return real(host, *rest, **more)
socket.getaddrinfo = getaddrinfo
from gateway.cli.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_T18_a_name_server_that_never_answers_does_not_keep_it(checking: Checking, serve: Serve) -> None:
    checking.service("imap", "silent.example.test:143")
    checking.service("imap", "nosuch.invalid:143")
    checking.service("imap", serve(imap()).address)
    checking.services.append("[timeouts]\nconnect = 500 ms")
    done = subprocess.run(
        [sys.executable, "-c", _SILENT_RESOLVER, "check", str(checking.write()), "--live", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.stderr == ""
    assert done.returncode == 1
    silent, nosuch, there = json.loads(done.stdout)["backends"]
    assert there["good"]
    assert "the name was not resolved in time" in silent["problems"][0]["detail"]
    assert "the name does not resolve" in nosuch["problems"][0]["detail"]
    for report in (silent, nosuch):
        assert report["problems"][0]["problem"] == "backend-connect-failed"
        assert "getent hosts" in report["problems"][0]["cure"]
