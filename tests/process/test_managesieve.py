"""ManageSieve in front of a real Pigeonhole, with real clients."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.process import programs, servers
from tests.process.conftest import directory_for_servers
from tests.process.recording import Backend, Connection
from tests.process.running import CANARY, DEADLINE, Gateway, Identity, Service, running
from tests.process.servers import Dovecot
from tests.process.wire import Caller, Client, source

USER = "grete"
LOGIN = b'AUTHENTICATE "PLAIN" "AGdyZXRlAFphdW5rb2VuaWctNzctaW0tU2NoYWNodA=="\r\n'
GO_AHEAD = b'OK "Begin TLS negotiation now."\r\n'
READY = rb'^OK "[^"]*"\r\n'
LISTED = READY
SCRIPT = 'require "fileinto";\r\nkeep;\r\n'
WAYS = ("none", "starttls")
"""How the gateway reaches Pigeonhole.  On its port for implicit TLS version 2.3.19.1 does not answer 6 of 120 logins,
without a gateway, too; the contract plays implicit TLS."""


@dataclass(frozen=True)
class Place:
    gateway: Gateway
    dovecot: Dovecot
    scripted: Backend
    trusting: ssl.SSLContext
    authority: Path

    def secure(self, service: str, client: Client, mode: str = "starttls") -> bytes:
        """Inside TLS; returns the capabilities that the client hears there."""
        if mode == "implicit":
            client.shake_hands(self.trusting)
            return client.hear(READY)
        client.hear(READY)
        client.say(b"STARTTLS\r\n")
        assert client.line() == GO_AHEAD
        client.shake_hands(self.trusting)
        return client.hear(LISTED)


def legacy(connection: Connection) -> None:
    """Greets, and answers whatever it hears."""
    listed = b'"IMPLEMENTATION" "old"\r\n"SASL" "PLAIN"\r\n"SIEVE" "fileinto"\r\n"VERSION" "1.0"\r\nOK\r\n'
    connection.say(listed)
    while line := connection.line():
        connection.say(listed if line == b"CAPABILITY" else b'NO "what?"\r\n')


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, identity: Identity, trusting: ssl.SSLContext) -> Iterator[Place]:
    scripted = Backend(legacy)
    with directory_for_servers() as directory, servers.dovecot(directory, certificate=identity.certificate) as dovecot:
        doors = dovecot.doors["managesieve"]
        options: dict[str, dict[str, str]] = {}
        services = [
            Service(f"scripted-{policy}", scripted.address, "managesieve", options={"policy": policy})
            for policy in ("required", "auth-only", "optional")
        ]
        for told in ("none", "xclient", "proxy-v1", "proxy-v2"):
            for way in WAYS:
                name = f"{told}-{way}"
                options[f"backend:{name}"] = {"address": doors.address(told, way), "identity": told, "tls": way}
                if way != "none":
                    options[f"backend:{name}"] |= {"ca": str(identity.authority), "name": "mail.example.test"}
                services.append(Service(name, name, "managesieve"))
        with running(tmp_path_factory.mktemp("gateway"), identity, services, options=options) as gateway:
            yield Place(gateway, dovecot, scripted, trusting, identity.authority)
    scripted.close()


# --- Pigeonhole --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("told", ["none", "xclient", "proxy-v1", "proxy-v2"])
def test_a_session_and_whose_address_pigeonhole_sees(place: Place, told: str, way: str, mode: str) -> None:
    client = source()
    with Caller(client, place.gateway.address(f"{told}-{way}", mode)) as caller:
        listed = place.secure(f"{told}-{way}", caller, mode)
        assert b'"SASL" "PLAIN LOGIN CRAM-MD5"' in listed
        assert b"STARTTLS" not in listed
        assert b"XCLIENT" not in listed
        caller.say(LOGIN + b'PUTSCRIPT "a" {%d+}\r\n%s\r\nLISTSCRIPTS\r\nLOGOUT\r\n' % (len(SCRIPT), SCRIPT.encode()))
        heard = caller.rest()
    assert heard.startswith(b'OK "Logged in."\r\nOK "PUTSCRIPT completed."\r\n"a"')
    assert heard.endswith(b'OK "Logout completed."\r\n')
    seen = "127.0.0.1" if told == "none" else client
    place.dovecot.log.hear(rf"managesieve-login: Info: Login: user=<grete>, .*rip={seen}, lip=127\.0\.0\.1, ")
    ended = place.gateway.log.wait("session", client=client)
    assert ended["tls"] == "TLSv1.3"


def test_before_tls_there_is_no_login(place: Place) -> None:
    with Client(place.gateway.address("none-none")) as client:
        greeting = client.hear(READY)
        assert b'"SASL" ""\r\n' in greeting
        assert b'"STARTTLS"\r\nOK ' in greeting
        client.say(LOGIN)
        assert client.line() == b'NO (ENCRYPT-NEEDED) "Must issue a STARTTLS command first"\r\n'


def test_commands_that_pigeonhole_would_punish_do_not_reach_it(place: Place) -> None:
    """It hangs up at the third."""
    with Client(place.gateway.address("none-none")) as client:
        place.secure("none-none", client)
        for _ in range(6):
            client.say(b"FOO {27+}\r\nXCLIENT ADDR=203.0.113.96\r\n\r\n")
            assert client.line() == b'NO "Unknown command"\r\n'
        client.say(b'NOOP "still here"\r\n')
        assert client.line() == b'OK (TAG "still here") "Done"\r\n'


def test_a_cancelled_dialogue_and_wrong_passwords(place: Place) -> None:
    with Client(place.gateway.address("none-none")) as client:
        place.secure("none-none", client)
        client.say(b'AUTHENTICATE "PLAIN"\r\n')
        assert client.line() == b'""\r\n'
        client.say(b'"*"\r\n')
        assert client.line() == b'NO "Authentication aborted by client."\r\n'
        client.say(b'AUTHENTICATE "PLAIN" "AGdyZXRlAHdyb25n"\r\n')
        assert client.line() == b'NO "Authentication failed."\r\n'
        client.say(b'AUTHENTICATE "PLAIN" "%s"\r\n' % (b"A" * 8000))
        assert client.line().startswith(b"NO ")
        client.say(LOGIN)
        assert client.line() == b'OK "Logged in."\r\n'


# --- clients -----------------------------------------------------------------------------------------


def sieve_connect(place: Place, service: str, *action: str) -> subprocess.CompletedProcess[str]:
    program = programs.need("sieve-connect", debian="sieve-connect")
    _, port = place.gateway.address(service)
    reading, writing = os.pipe()
    os.write(writing, CANARY.encode() + b"\n")
    os.close(writing)
    try:
        return subprocess.run(
            [program, "--server", "localhost", "--4", "--port", str(port), "--user", USER, "--passwordfd", str(reading),
             "--tlscafile", str(place.authority), "--authmech", "PLAIN", *action],
            capture_output=True, text=True, timeout=DEADLINE, pass_fds=(reading,), check=False,
        )  # fmt: skip
    finally:
        os.close(reading)


@pytest.mark.parametrize("way", ["none", "starttls"])
def test_sieve_connect(place: Place, tmp_path: Path, way: str) -> None:
    script = tmp_path / "mine.sieve"
    script.write_text(SCRIPT)
    done = sieve_connect(place, f"none-{way}", "--upload", "--localsieve", str(script), "--remotesieve", "mine")
    assert done.returncode == 0, done.stdout + done.stderr
    done = sieve_connect(place, f"none-{way}", "--list")
    assert '"mine"' in done.stdout, done.stdout + done.stderr


SIEVELIB = """
import sys
from sievelib.managesieve import Client
host, port, user, password, tls = sys.argv[1:]
client = Client(host, int(port))
assert client.connect(user, password, **{tls: True}), client.errmsg
assert client.putscript("theirs", "keep;\\r\\n"), client.errmsg
print(client.listscripts())
client.logout()
"""


@pytest.mark.parametrize(("mode", "argument"), [("starttls", "starttls"), ("implicit", "ssl")])
@pytest.mark.parametrize("way", ["none", "starttls"])
def test_sievelib(place: Place, way: str, mode: str, argument: str) -> None:
    _, port = place.gateway.address(f"xclient-{way}", mode)
    done = subprocess.run(
        [sys.executable, "-c", SIEVELIB, "localhost", str(port), USER, CANARY, argument],
        capture_output=True, text=True, timeout=DEADLINE, check=False,
        env={**os.environ, "SSL_CERT_FILE": str(place.authority)},
    )  # fmt: skip
    assert "theirs" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("program", programs.STARTTLS_CLIENTS)
def test_programs_that_know_starttls_for_sieve(place: Place, program: str) -> None:
    _, port = place.gateway.address("none-none")
    heard = programs.says_inside_tls(
        program, "sieve", port, place.authority, b"", b'OK "Capability completed."', b"LOGOUT\r\n"
    )
    assert b'OK "Logout completed."' in heard, heard


# --- exact octets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["required", "auth-only", "optional"])
def test_what_a_backend_hears_before_tls(place: Place, policy: str) -> None:
    place.scripted.play(legacy)
    with Client(place.gateway.address(f"scripted-{policy}")) as client:
        client.hear(rb"^OK\r\n")
        client.say(
            b'XCLIENT ADDR=192.0.2.1\r\nFOO {8+}\r\nXCLIENT \r\nPUTSCRIPT "a" {5}\r\nkeep;\r\n\r\nLISTSCRIPTS\r\n'
        )
        assert client.hear(rb"(?:[^\n]*\n){5}") == b'NO "Unknown command"\r\n' * 5
        client.say(LOGIN)
        answer = client.line()
    connection = place.scripted.connection()
    connection.wait_until_ended()
    if policy == "optional":
        assert (answer, connection.heard) == (b'NO "what?"\r\n', LOGIN + b"LOGOUT\r\n")
    else:
        assert connection.heard == b"LOGOUT\r\n"
        assert answer.startswith(b"NO (ENCRYPT-NEEDED) ")
