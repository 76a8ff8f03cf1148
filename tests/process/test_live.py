"""`starttls-gateway check FILE --live`: what it tells of backends of all kinds, to people and to programs."""

from __future__ import annotations

import json
import os
import pty
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.proxyprotocol import SIGNATURE
from tests.process.recording import Backend, Connection, Script, imap, pop3, smtp
from tests.process.running import DEADLINE, ROOT, Identity
from tests.process.servers import Dovecot, Postfix

DENIED = b"554 5.7.1 Relay access denied\r\n"
closed_relay = smtp({b"RCPT": DENIED})
Serve = Callable[[Script], Backend]


@pytest.fixture
def serve() -> Iterator[Serve]:
    backends: list[Backend] = []

    def serve(script: Script) -> Backend:
        backends.append(Backend(script))
        return backends[-1]

    yield serve
    for backend in backends:
        backend.close()


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


@pytest.fixture
def checking(tmp_path: Path, identity: Identity) -> Checking:
    return Checking(tmp_path, identity)


def row(text: str, label: str) -> str:
    """The first line of a report that begins with this word, without it."""
    return next(line.removeprefix(label).strip() for line in text.splitlines() if line.startswith(label))


def test_where_all_is_well_it_says_so(checking: Checking, serve: Serve) -> None:
    for protocol, script in (("smtp", closed_relay), ("imap", imap()), ("pop3", pop3())):
        checking.service(protocol, serve(script).address)
    status, text = checking.text()
    assert status == 0, text
    assert "3 addresses looked at: all good" in text
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
        "greeting": {"backend": "220 legacy.example.test ESMTP", "client": "220 legacy.example.test ESMTP"},
        "tls": {"mode": "none", "version": None, "cipher": None, "group": None, "certificate": None},
        "identity": {"mode": "none", "accepted": None},
        "relay": {"verdict": "closed", "text": DENIED.decode().strip(), "allowed": False},
        "problems": [],
    }


def test_S30_an_open_relay_is_wrong_unless_it_is_meant(checking: Checking, serve: Serve) -> None:
    backend = serve(smtp())
    checking.service("smtp", backend.address)
    status, text = checking.text()
    assert status == 1
    assert row(text, "relay").startswith("OPEN")
    assert row(text, "wrong") == "open-relay: 250 2.1.5 Ok"
    assert "allow_relay" in text
    surveying, probing = backend.connection(), backend.connection()
    assert surveying.heard == b"EHLO gw.example.test\r\nQUIT\r\n"
    assert b"RCPT TO:<relay-probe@example.com>\r\n" in probing.heard
    assert b"DATA" not in probing.heard
    checking.services.clear()
    checking.service("smtp", backend.address, allow_relay="yes")
    status, found = checking.json()
    assert status == 0
    assert found["backends"][0]["relay"] == {"verdict": "open", "text": "250 2.1.5 Ok", "allowed": True}


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
    status, found = checking.json()
    assert status == 1
    (report,) = found["backends"]
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
    status, found = checking.json()
    assert status == 1
    (wrong,) = found["backends"][0]["problems"]
    assert wrong["problem"] == problem
    assert wrong["detail"]
    assert wrong["cure"]


def test_who_is_not_there_is_wrong_and_each_address_stands_for_itself(
    checking: Checking, serve: Serve, nowhere: str
) -> None:
    backend = serve(pop3())
    checking.service("pop3", f"{backend.address} {nowhere}")
    status, found = checking.json()
    assert status == 1
    there, gone = found["backends"]
    assert (there["address"], there["good"]) == (backend.address, True)
    assert (gone["address"], gone["good"], gone["reached"]) == (nowhere, False, None)
    assert gone["problems"][0]["problem"] == "backend-connect-failed"
    assert "ECONNREFUSED" in gone["problems"][0]["detail"]
    assert "1 not as it should be" in checking.text()[1]


def test_services_that_share_a_backend_are_one_report(checking: Checking, serve: Serve) -> None:
    address = serve(closed_relay).address
    for name in ("smtp", "submission"):
        checking.services.append(f"[service:{name}]\nprotocol = smtp\nstarttls = 127.0.0.1:0\nbackend = {address}")
    status, found = checking.json()
    assert status == 0
    assert [report["services"] for report in found["backends"]] == [["smtp", "submission"]]


# --- identity ------------------------------------------------------------------------------------------


def test_PROXY_version_2_says_that_it_is_the_gateway_itself(checking: Checking, serve: Serve) -> None:
    def behind_proxy(connection: Connection) -> None:
        assert connection.until(SIGNATURE + b"\x20\0\0\0") == SIGNATURE + b"\x20\0\0\0"
        imap()(connection)

    checking.service("imap", serve(behind_proxy).address, identity="proxy-v2")
    status, found = checking.json()
    assert status == 0, found
    assert found["backends"][0]["identity"] == {"mode": "proxy-v2", "accepted": True}


@pytest.mark.parametrize(("protocol", "script"), [("smtp", smtp()), ("pop3", pop3()), ("imap", imap())])
def test_who_does_not_expect_a_PROXY_header_is_found_out(
    checking: Checking, serve: Serve, protocol: str, script: Script
) -> None:
    checking.service(protocol, serve(script).address, identity="proxy-v1")
    status, found = checking.json()
    assert status == 1
    (report,) = found["backends"]
    assert report["identity"] == {"mode": "proxy-v1", "accepted": False}
    assert "haproxy" in report["problems"][0]["cure"]
    assert report["relay"] is None


def test_XCLIENT_tells_the_gateways_own_address_and_may_be_refused(checking: Checking, serve: Serve) -> None:
    ehlo = b"250-legacy\r\n250 XCLIENT NAME ADDR PORT\r\n"
    backend = serve(smtp({b"EHLO": ehlo, b"XCLIENT": b"550 5.7.0 insufficient authorization\r\n"}))
    checking.service("smtp", backend.address, identity="xclient")
    status, text = checking.text()
    assert status == 1
    assert row(text, "identity") == "xclient: refused"
    assert "smtpd_authorized_xclient_hosts" in text
    assert b" ADDR=127.0.0.1 " in backend.connection().heard


def test_ID_is_told_but_nobody_says_whether_it_is_believed(checking: Checking, serve: Serve) -> None:
    backend = serve(imap({b"ID": b"* ID NIL\r\nTAG OK done\r\n"}))
    checking.service("imap", backend.address, identity="id")
    status, text = checking.text()
    assert status == 0
    assert row(text, "identity").startswith("id: told; ")
    assert b'"x-originating-ip" "127.0.0.1"' in backend.connection().heard
    assert checking.json()[1]["backends"][0]["identity"] == {"mode": "id", "accepted": None}


def test_real_servers_are_looked_at_without_harm(checking: Checking, dovecot: Dovecot, postfix: Postfix) -> None:
    checking.service("smtp", postfix.smtp)
    checking.service("imap", dovecot.imap)
    checking.service("pop3", dovecot.pop3)
    status, text = checking.text()
    assert status == 0, text
    assert "closed (554 5.7.1 <relay-probe@example.com>: Relay access denied)" in text
    assert "3 addresses looked at: all good" in text


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
    assert status == 1
    assert (found["good"], found["hostname"], found["backends"]) == (False, None, [])
    assert "[backend:smtp0-server] verify" in found["problems"][0]
    assert backend.connections.empty()


def test_a_CA_file_that_is_none_is_told_without_asking_anybody(checking: Checking, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing\n")
    checking.service("imap", "127.0.0.1:9", tls="implicit", ca=str(tmp_path / "ca.pem"))
    done = checking.run()
    assert done.returncode == 1
    assert "[backend:imap0-server]" in done.stdout
    assert "no certificate in this file" in done.stdout


def test_JSON_is_for_what_is_alive(checking: Checking) -> None:
    done = checking.run("--json")
    assert done.returncode == 2
    assert "--json goes with --live" in done.stderr
