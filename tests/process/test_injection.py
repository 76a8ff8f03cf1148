"""Nothing that was said in the clear is obeyed inside TLS: with the public tool, and octet by octet."""

from __future__ import annotations

import re
import ssl
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process import programs
from tests.process.conftest import Front
from tests.process.running import ROOT, Gateway, Identity, Service, running
from tests.process.servers import Dovecot, Postfix
from tests.process.wire import Client, Ending
from tests.process.words import GREETING, WORDS

PROTOCOLS = tuple(GREETING)
POLICIES = ("required", "optional")
ALERT = b"\x15\x03"
"""How a TLS alert record begins (RFC 8446 5.1)."""

each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
each_policy = pytest.mark.parametrize("policy", POLICIES)


# --- the tool of the NO STARTTLS authors ----------------------------------------------------------


@pytest.fixture(scope="session")
def tester(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In an environment of its own, kept in .venv-tools where there is one."""
    kept = ROOT / ".venv-tools" / "bin" / "command-injection-tester"
    if kept.exists():
        return kept
    home = tmp_path_factory.mktemp("tools")
    subprocess.run([sys.executable, "-m", "venv", home], check=True, timeout=60)
    done = subprocess.run(
        [home / "bin" / "pip", "install", "--quiet", "command-injection-tester==0.0.2"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode:
        programs.need("command-injection-tester", pip="command-injection-tester==0.0.2")
    return home / "bin" / "command-injection-tester"


@pytest.fixture(scope="module")
def real(
    tmp_path_factory: pytest.TempPathFactory, identity: Identity, dovecot: Dovecot, postfix: Postfix
) -> Iterator[Gateway]:
    services = [
        Service(f"{name}-{policy}", backend, name, ("starttls",), {"policy": policy})
        for policy in (*POLICIES, "auth-only")
        for name, backend in (("smtp", postfix.smtp), ("imap", dovecot.imap), ("pop3", dovecot.pop3))
    ]
    with running(tmp_path_factory.mktemp("gateway"), identity, services) as gateway:
        yield gateway


def test_command_injection_tester_finds_nothing(tester: Path, real: Gateway, tmp_path: Path) -> None:
    # It mostly waits, so that all policies take no longer than one.
    runs: list[subprocess.Popen[str]] = []
    for policy in (*POLICIES, "auth-only"):
        ports = {name: str(real.address(f"{name}-{policy}")[1]) for name in WORDS}
        command = [
            *(str(tester), "--smtp", "--imap", "--pop3", "-t", "1", "--nocolor", "-l", str(tmp_path / policy)),
            *("-s", ports["smtp"], "-i", ports["imap"], "-p", ports["pop3"], "127.0.0.1"),
        ]
        runs.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path)
        )
    for run in runs:
        try:
            said, _ = run.communicate(timeout=60)
        finally:
            run.kill()
        # Its exit status is always 0.
        bad = r"Command injection here|ossible command injection|Sanity test failed|Traceback"
        assert not re.search(bad, said), said
        assert said.count("TLS handshake failed - Server probably closed the connection!") >= len(WORDS), said


# --- rows G of docs/conformance.md ----------------------------------------------------------------------------


@pytest.mark.parametrize("behind", [b"NOOP\r\n", b"NOO", b"\r\n", b" ", b"\0", ALERT + b"\x01\0\2\2\x28"])
@each_policy
@each_protocol
def test_G05_G06_A1_A2_whatever_comes_behind_starttls_ends_the_session(
    front: Front, protocol: str, policy: str, behind: bytes
) -> None:
    words = GREETING[protocol]
    client = front.connect(f"{protocol}-{policy}")
    client.say(words.starttls + behind)
    assert client.rest() == words.go_ahead
    detail = front.wait("starttls-injection", service=f"{protocol}-{policy}")["detail"]
    assert f"{len(behind)} octets" in detail
    assert front.wait("session")["reason"] == "starttls-injection"
    backend = front.backends[f"{protocol}-{policy}"].connection()
    backend.wait_until_ended()
    assert backend.heard.endswith(words.polite)
    assert b"NOO" not in backend.heard
    assert backend.heard.count(b"\n") == 1


@each_policy
@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name != "managesieve"])  # NOOP is answered here
def test_G05_commands_ahead_of_starttls_are_answered_and_those_behind_it_are_not(
    front: Front, protocol: str, policy: str
) -> None:
    words = GREETING[protocol]
    client = front.connect(f"{protocol}-{policy}")
    client.say(words.hello + words.starttls + words.hello)
    client.hear(words.hello_)
    assert client.rest() == words.go_ahead
    front.wait("starttls-injection")
    backend = front.backends[f"{protocol}-{policy}"].connection()
    backend.wait_until_ended()
    assert backend.heard.count(words.hello) == 1


@each_policy
@each_protocol
def test_G07_a_client_hello_in_the_segment_of_starttls_is_welcome(front: Front, protocol: str, policy: str) -> None:
    words = GREETING[protocol]
    client = front.connect(f"{protocol}-{policy}")
    client.shake_hands(front.trusting, after=words.starttls)
    assert client.line() == words.go_ahead
    client.say(words.hello)
    client.hear(words.hello_)


@each_protocol
def test_G07_so_is_a_part_of_one(front: Front, protocol: str) -> None:
    words = GREETING[protocol]
    client = front.connect(f"{protocol}-required")
    hello = client_hello(front.trusting)
    client.say(words.starttls + hello[:3])
    assert client.line() == words.go_ahead
    client.say(hello[3:])
    server_hello = client.hear(rb"\A\x16\x03\x03.{40}")
    assert server_hello[5] == 2  # ServerHello


def client_hello(context: ssl.SSLContext) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="mail.example.test").do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(
    "words_in_the_clear",
    [b"NOOP\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100, b"\x16\x03NOOP\r\n", ALERT + b"\x01\0\2\2\x28"],
)
@each_policy
@each_protocol
def test_G08_A11_plaintext_in_place_of_a_handshake_gets_an_alert_and_no_reply(
    front: Front, protocol: str, policy: str, words_in_the_clear: bytes
) -> None:
    client = begun(front, f"{protocol}-{policy}")
    client.say(words_in_the_clear)
    check_refused_handshake(client, front, f"{protocol}-{policy}")


def begun(front: Front, service: str) -> Client:
    """A client that has its go-ahead."""
    words = GREETING[service.partition("-")[0]]
    client = front.connect(service)
    client.say(words.starttls)
    assert client.line() == words.go_ahead
    return client


def check_refused_handshake(client: Client, front: Front, service: str) -> str:
    """No word in the clear after the go-ahead; the backend is left politely.  Returns what the log says of it."""
    rest = client.rest()
    assert rest == b"" or rest.startswith(ALERT), rest
    failed = front.wait("tls-failed", service=service)
    assert failed["key"] == "client-tls-failed"
    assert front.wait("session")["reason"] == "tls-failed"
    backend = front.backends[service].connection()
    backend.wait_until_ended()
    assert backend.heard.endswith(GREETING[service.partition("-")[0]].polite)
    assert backend.heard.count(b"\n") == 1
    return failed["detail"]


@each_protocol
def test_G09_a_client_that_knows_only_tls_1_0_is_told_so_by_an_alert(front: Front, protocol: str) -> None:
    client = begun(front, f"{protocol}-required")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        client.shake_hands(context)
    detail = front.wait("tls-failed", service=f"{protocol}-required")["detail"]
    assert "protocol" in detail
    assert client.socket.recv(1) == b""


@each_protocol
def test_G09_A11_an_sslv2_hello_ends_the_session(front: Front, protocol: str) -> None:
    client = begun(front, f"{protocol}-required")
    client.say(b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80" + bytes(34))
    check_refused_handshake(client, front, f"{protocol}-required")


@each_protocol
def test_G09_A11_a_client_that_closes_in_place_of_a_handshake_is_not_answered(front: Front, protocol: str) -> None:
    client = begun(front, f"{protocol}-required")
    client.finish()
    assert "closed" in check_refused_handshake(client, front, f"{protocol}-required")


@each_protocol
def test_A11_a_client_that_resets_in_place_of_a_handshake_is_left_for(front: Front, protocol: str) -> None:
    service = f"{protocol}-required"
    begun(front, service).reset()
    assert front.wait("session", service=service)["reason"] == "tls-failed"
    backend = front.backends[service].connection()
    backend.wait_until_ended()
    assert backend.heard.endswith(GREETING[protocol].polite)
    assert backend.heard.count(b"\n") == 1


def test_G09_clients_that_stall_in_their_handshakes_are_cut_off(front: Front) -> None:
    stalled = []
    for protocol in PROTOCOLS:
        for said in (b"", b"\x16\x03\x01", client_hello(front.trusting)[:-1]):
            early = begun(front, f"{protocol}-required")
            late = front.connect(f"{protocol}-required", "implicit", greeted=False)
            for client in (early, late):
                client.say(said)
                stalled.append(client)
    for client in stalled:
        rest = client.rest()
        assert rest == b"" or rest.startswith(ALERT)
    front.gateway.log.wait("tls-failed", front.since, count=len(stalled))
    failures = front.gateway.log.events("tls-failed", front.since)
    assert {failure["detail"] for failure in failures} == {"handshake timed out"}
    for protocol in PROTOCOLS:
        backend = front.backends[f"{protocol}-required"].connection()
        backend.wait_until_ended()
        # An implicit port dials after the handshake: these three are all that there are.
        assert backend.heard.endswith(GREETING[protocol].polite)


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
@each_protocol
def test_G10_A6_a_second_starttls_is_refused_and_the_session_goes_on(front: Front, protocol: str, mode: str) -> None:
    words = GREETING[protocol]
    client = front.secure(f"{protocol}-required", mode)
    client.say(words.starttls + words.hello)
    assert client.line() == words.active
    client.hear(words.hello_)
    client.say(words.quit)
    client.hear(words.quit_)
    assert client.rest() == b""
    assert client.ending is Ending.CLOSE_NOTIFY
    backend = front.backends[f"{protocol}-required"].connection()
    backend.wait_until_ended()
    assert words.starttls not in backend.heard


@each_protocol
def test_G11_G29_a_password_in_the_clear_reaches_neither_backend_nor_log(front: Front, protocol: str) -> None:
    words = GREETING[protocol]
    client = front.connect(f"{protocol}-required")
    client.say(words.login)
    assert client.line() == words.refused
    client.say(words.starttls)
    assert client.line() == words.go_ahead
    client.shake_hands(front.trusting)
    client.say(words.hello)
    client.hear(words.hello_)
    client.say(words.login)
    client.hear(words.login_)
    assert front.wait("auth")["result"] == "ok"
    backend = front.backends[f"{protocol}-required"].connection()
    assert backend.heard.count(words.login) == 1
    front.gateway.inspect()


@pytest.mark.parametrize("protocol", [name for name, words in GREETING.items() if words.authority])
def test_the_authority_of_the_gateway_is_lent_to_nobody(front: Front, protocol: str) -> None:
    words = GREETING[protocol]
    for service in (f"{protocol}-required", f"{protocol}-optional"):
        client = front.secure(service)
        client.say(words.authority + words.hello)
        client.hear(words.hello_)
        assert b"192.0.2.1" not in front.backends[service].connection().heard


@each_protocol
def test_A13_plaintext_behind_close_notify_is_never_input(front: Front, protocol: str) -> None:
    words = GREETING[protocol]
    client = front.secure(f"{protocol}-required")
    backend = front.backends[f"{protocol}-required"].connection()
    before = backend.heard
    client.close_notify()
    client.say_in_the_clear(words.hello * 10)
    front.wait("session")
    backend.wait_until_ended()
    assert backend.heard.removeprefix(before).strip() in (words.polite.strip(), b"sgw9 LOGOUT", b"")
