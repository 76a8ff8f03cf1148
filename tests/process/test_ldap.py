"""Other people's clients of LDAP, through every port of the gateway, with slapd behind it."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.process import programs
from tests.process.conftest import directory_for_servers
from tests.process.looking import at, checked, gnutls_verifies, openssl_verifies, probed
from tests.process.running import CANARY, DEADLINE, ROOT, Gateway, Identity, Service, running
from tests.process.slapd import Slapd, slapd
from tests.pure.contract.answers.ldap import UNBIND, notice, result, sasl, search, simple

NAME = "uid=user,dc=example,dc=test"
UNAVAILABLE = b" is not available here"
MALFORMED = result(2, 0x61, 2, b"malformed bind request")


@pytest.fixture(scope="module")
def server() -> Iterator[Slapd]:
    """It knows no TLS."""
    with directory_for_servers() as directory, slapd(directory) as server:
        yield server


@pytest.fixture(scope="module")
def tls_server() -> Iterator[Slapd]:
    """It has TLS, and its own certificate."""
    with directory_for_servers() as directory:
        own = Identity.issue(directory)
        with slapd(directory, certificate=own.certificate) as server:
            yield server


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, identity: Identity, server: Slapd, tls_server: Slapd
) -> Iterator[Gateway]:
    services = [
        Service("ldap", server.address),
        Service("auth-only", server.address, protocol="ldap", options={"policy": "auth-only"}),
        Service("open", server.address, protocol="ldap", options={"policy": "optional"}),
        Service("proxied", "told", protocol="ldap"),
        Service("starttls", "starttls", protocol="ldap"),
        Service("implicit", "implicit", protocol="ldap"),
        Service("local", f"unix:{server.socket}", protocol="ldap"),
        Service("nobody", f"127.0.0.1:{free_port()}", protocol="ldap"),
    ]
    options = {
        "backend:told": {"address": f"127.0.0.1:{server.proxied}", "identity": "proxy-v2"},
        "backend:starttls": {"address": tls_server.address, "tls": "starttls", "verify": "no"},
        "backend:implicit": {"address": f"127.0.0.1:{tls_server.secured}", "tls": "implicit", "verify": "no"},
    }
    with running(tmp_path_factory.mktemp("gateway"), identity, services, options) as gateway:
        yield gateway


def asked(
    gateway: Gateway,
    identity: Identity,
    *options: str,
    service: str = "ldap",
    mode: str = "starttls",
    password: str | None = CANARY,
    trusted: bool = True,
) -> subprocess.CompletedProcess[str]:
    """ldapsearch for the user's mail address.  libldap takes `localhost` for the machine's own name."""
    host, port = gateway.address(service, mode)
    program = programs.need("ldapsearch", debian="ldap-utils")
    login = ["-D", NAME, "-w", password] if password else []
    scheme = "ldaps" if mode == "implicit" else "ldap"
    return subprocess.run(
        [program, "-x", "-LLL", "-H", f"{scheme}://{host}:{port}", *options, *login, "-b", NAME, "mail"],
        env={**os.environ, "LDAPTLS_CACERT": str(identity.authority) if trusted else "/etc/hostname"},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


FOUND = f"dn: {NAME}\nmail: user@example.test\n\n"


# --- ldapsearch --------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["ldap", "auth-only", "open", "proxied", "starttls", "implicit", "local"])
@pytest.mark.parametrize(("mode", "option"), [("starttls", "-ZZ"), ("starttls", "-Z"), ("implicit", "-v")])
def test_ldapsearch_finds(gateway: Gateway, identity: Identity, service: str, mode: str, option: str) -> None:
    since = gateway.log.mark()
    done = asked(gateway, identity, option, service=service, mode=mode)
    assert done.stdout == FOUND, done.stderr
    assert gateway.log.wait("auth", since)["mechanism"] == "SIMPLE"
    seen = gateway.log.wait("session", since, proven="yes")
    # At an Unbind both close, and who is the first is chance where the session is spliced.
    assert seen["reason"] == "quit" or service not in INSPECTED
    assert seen["tls"] == "TLSv1.3"
    assert seen["phase"] == ("secure" if service in INSPECTED else "relaying")


INSPECTED = ("starttls", "implicit", "local")
"""The services whose backend could take the gateway's TLS or user for the client's."""


@pytest.mark.parametrize(("words", "reason"), [(UNBIND, "backend-closed"), (b"", "client-closed")])
def test_a_spliced_session_ends_with_who_closes_first(
    gateway: Gateway, identity: Identity, words: bytes, reason: str
) -> None:
    since = gateway.log.mark()
    with (
        socket.create_connection(gateway.address("ldap", "implicit"), DEADLINE) as plain,
        tls(identity).wrap_socket(plain, server_hostname="localhost") as client,
    ):
        client.sendall(simple(1, NAME.encode(), CANARY.encode()))
        assert client.recv(100) == result(1, 0x61, 0)
        if words:
            client.sendall(words)
            assert client.recv(100) == b""
    gateway.log.wait("session", since, service="ldap", phase="relaying", reason=reason)


def test_the_server_is_told_who_the_client_is(gateway: Gateway, identity: Identity, server: Slapd) -> None:
    with socket.create_connection(gateway.address("proxied", "implicit"), DEADLINE) as plain:
        port = plain.getsockname()[1]
        with tls(identity).wrap_socket(plain, server_hostname="localhost") as client:
            client.sendall(simple(1, b"", b""))
            assert client.recv(100) == result(1, 0x61, 0)
    server.log.hear(f"ACCEPT from IP=127.0.0.1:{port}")


def test_without_tls_nothing_is_told(gateway: Gateway, identity: Identity) -> None:
    since = gateway.log.mark()
    done = asked(gateway, identity)
    assert (done.returncode, done.stdout) == (13, "")
    assert "Confidentiality required (13)" in done.stderr
    assert "TLS required" in done.stderr
    assert CANARY not in str(gateway.log.wait("password-in-clear", since))
    assert asked(gateway, identity, password=None).returncode == 13


def test_auth_only_lets_strangers_read(gateway: Gateway, identity: Identity) -> None:
    assert asked(gateway, identity, service="auth-only", password=None).stdout == FOUND
    assert asked(gateway, identity, service="auth-only").returncode == 13


def test_optional_lets_everybody_in(gateway: Gateway, identity: Identity) -> None:
    assert asked(gateway, identity, service="open").stdout == FOUND


def test_a_wrong_password_is_told_in_the_servers_words_and_counted(
    tmp_path: Path, identity: Identity, server: Slapd
) -> None:
    options = {"limits": {"auth_failures_per_minute": "2"}}
    with running(tmp_path, identity, [Service("ldap", server.address)], options) as limited:
        for _ in range(2):
            assert "Invalid credentials (49)" in asked(limited, identity, "-ZZ", password="wrong").stderr
        done = asked(limited, identity, "-ZZ")
        assert "Server is busy (51)" in done.stderr
        assert "too many failed logins, try again later" in done.stderr
        limited.log.wait("refused", limit="auth-failures-per-minute")


def test_a_server_that_is_not_there(gateway: Gateway, identity: Identity) -> None:
    done = asked(gateway, identity, "-ZZ", service="nobody")
    assert "Server is unavailable (52)" in done.stderr


def test_a_client_that_does_not_trust_the_certificate_is_no_attack(gateway: Gateway, identity: Identity) -> None:
    """libldap says Unbind in the clear inside TLS."""
    since = gateway.log.mark()
    done = asked(gateway, identity, "-ZZ", trusted=False)
    assert "Connect error (-11)" in done.stderr
    gateway.log.wait("session", since, 1, reason="tls-failed")
    assert "rejected the certificate" in str(gateway.log.wait("tls-failed", since)["detail"])


def test_results_of_many_megabytes_pass(gateway: Gateway, identity: Identity, tls_server: Slapd, server: Slapd) -> None:
    """Larger than what the gateway holds, as one value and as many entries; inspected and spliced."""
    program = programs.need("ldapmodify", debian="ldap-utils")
    photo = "x" * 3_000_000
    change = f"dn: {NAME}\nchangetype: modify\nreplace: description\ndescription: {photo}\n\n"
    for service in ("ldap", "implicit"):
        host, port = gateway.address(service, "implicit")
        made = subprocess.run(
            [program, "-x", "-H", f"ldaps://{host}:{port}", "-D", "cn=admin,dc=example,dc=test", "-w", CANARY],
            env={**os.environ, "LDAPTLS_CACERT": str(identity.authority)},
            input=change, capture_output=True, text=True, timeout=DEADLINE,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        found = asked(gateway, identity, "-o", "ldif-wrap=no", "description", service=service, mode="implicit")
        assert photo in found.stdout


# --- other clients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_openssl_speaks_to_both_ports(gateway: Gateway, identity: Identity, mode: str) -> None:
    openssl_verifies(gateway, identity, "ldap", mode, "ldap")


def test_gnutls_speaks_it(gateway: Gateway, identity: Identity) -> None:
    gnutls_verifies(gateway, identity, "ldap", "ldap")


_LDAP3 = """
import ssl, sys
import ldap3
host, port, implicit, authority, password = sys.argv[1:]
name = "uid=user,dc=example,dc=test"
tls = ldap3.Tls(validate=ssl.CERT_REQUIRED, ca_certs_file=authority, valid_names=["localhost"])
server = ldap3.Server(host, int(port), use_ssl=implicit == "implicit", tls=tls, get_info=ldap3.ALL)
one = ldap3.Connection(server, name, password)
one.open()
if implicit != "implicit":
    print(one.start_tls())
print(one.bind(), server.info is not None)
print(one.search(name, "(objectClass=*)", attributes=["mail"]), one.entries[0].mail)
print(one.rebind(name, "wrong"), one.result["description"])
for _ in range(200):
    assert one.search(name, "(objectClass=*)") is not None
print(one.start_tls())
one.unbind()
"""


@pytest.mark.parametrize("service", ["ldap", "starttls"])
@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_ldap3_binds_and_searches(gateway: Gateway, identity: Identity, service: str, mode: str) -> None:
    """It reads the root DSE before StartTLS, gets a refusal, and goes on."""
    python = ROOT / ".venv-tools" / "bin" / "python"
    programs.need(str(python), pip="ldap3")
    host, port = gateway.address(service, mode)
    done = subprocess.run(
        [str(python), "-c", _LDAP3, host, str(port), mode, str(identity.authority), CANARY],
        capture_output=True, text=True, timeout=DEADLINE * 2,
    )  # fmt: skip
    told = ["True True", "True user@example.test", "False invalidCredentials", "False"]
    assert done.stdout.splitlines() == ["True"] * (mode == "starttls") + told, done.stderr


# --- a server that takes passwords only under TLS ----------------------------------------------------


def test_a_server_that_demands_tls_of_the_gateway_is_told_of(tmp_path: Path, identity: Identity) -> None:
    with (
        directory_for_servers() as directory,
        slapd(directory, "security simple_bind=64") as server,
        running(tmp_path, identity, [Service("ldap", server.address)]) as gateway,
    ):
        assert "Confidentiality required (13)" in asked(gateway, identity, "-ZZ").stderr
        assert "OpenLDAP" in str(gateway.log.wait("backend-refuses-plaintext-auth")["cure"])


# --- octets ------------------------------------------------------------------------------------------


def tls(identity: Identity) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(identity.authority))


@pytest.mark.parametrize(
    ("mechanism", "refused"),
    [
        (b"EXTERNAL", result(2, 0x61, 7, b"EXTERNAL" + UNAVAILABLE)),
        (b"EXTERNAL-PLUS", result(2, 0x61, 7, b"EXTERNAL-PLUS" + UNAVAILABLE)),
        (b"EXTERNAL\0", MALFORMED),
    ],
    ids=["plain", "bound", "with a NUL"],
)
@pytest.mark.parametrize("service", INSPECTED)
def test_nobody_is_the_gateway(
    gateway: Gateway, identity: Identity, service: str, mechanism: bytes, refused: bytes, server: Slapd
) -> None:
    """Through a UNIX socket slapd knows the gateway's user, and EXTERNAL would make every client that user.

    It reads the name of a mechanism up to a NUL or `-PLUS`."""
    with tls(identity).wrap_socket(
        socket.create_connection(gateway.address(service, "implicit"), DEADLINE), server_hostname="localhost"
    ) as client:
        client.sendall(simple(1, NAME.encode(), CANARY.encode()))
        assert client.recv(100) == result(1, 0x61, 0)
        client.sendall(sasl(2, mechanism, b""))
        assert client.recv(100) == refused
        client.sendall(UNBIND)
        assert client.recv(1) == b""
    assert "peercred" not in server.log.text


def test_what_is_no_ldap_is_told_so(gateway: Gateway) -> None:
    with socket.create_connection(gateway.address("ldap"), DEADLINE) as client:
        client.sendall(b"\x30\x80\2\1\1")
        assert client.recv(100) == notice(2, b"not understood")
        assert client.recv(1) == b""


def test_many_searches_at_once_are_all_answered(gateway: Gateway, identity: Identity) -> None:
    with tls(identity).wrap_socket(
        socket.create_connection(gateway.address("starttls", "implicit"), DEADLINE), server_hostname="localhost"
    ) as client:
        client.sendall(simple(1, NAME.encode(), CANARY.encode()))
        assert client.recv(100) == result(1, 0x61, 0)
        client.sendall(b"".join(search(ident, NAME.encode(), b"mail") for ident in range(2, 52)))
        heard = b""
        while heard.count(b"\x65\x07\x0a\1\0\4\0\4\0") < 50:
            said = client.recv(65536)
            assert said, heard
            heard += said


# --- the gateway's own tools -------------------------------------------------------------------------


@pytest.mark.parametrize("tls", ["none", "starttls"])
def test_check_looks_at_a_server(
    tmp_path: Path, identity: Identity, server: Slapd, tls_server: Slapd, tls: str
) -> None:
    address = (server if tls == "none" else tls_server).address
    more = "\nverify = no" * (tls != "none")
    done = checked(tmp_path, identity, "ldap", f"address = {address}\ntls = {tls}{more}")
    assert done.returncode == 0, done.stdout
    assert re.search(r"login +with SIMPLE", done.stdout), done.stdout
    assert ("1.3.6.1.4.1.1466.20037" in done.stdout) == (tls == "starttls")


@pytest.mark.parametrize("service", ["ldap", "auth-only"])
def test_the_gateway_is_good(gateway: Gateway, identity: Identity, service: str) -> None:
    found = probed("ldap", at(gateway, service), identity.authority)
    assert found["names"] == set(), found
    assert found["starttls"]["runs_injected_commands"] is False
    assert found["tls"]["version"] == "TLSv1.3"


def test_an_implicit_port_of_the_gateway_is_good(gateway: Gateway, identity: Identity) -> None:
    found = probed("ldap", at(gateway, "ldap", "implicit"), identity.authority, "--implicit")
    assert found["names"] == set(), found


def test_old_servers_are_not(gateway: Gateway, identity: Identity, server: Slapd, tls_server: Slapd) -> None:
    found = probed("ldap", server.address, identity.authority)
    assert found["names"] == {"no-starttls", "credentials-in-the-clear"}
    assert found["starttls"]["answer"] == "result 2: unsupported extended operation"
    found = probed("ldap", tls_server.address, identity.authority)
    assert found["names"] == {"certificate-untrusted", "credentials-in-the-clear", "old-tls"}
    found = probed("ldap", at(gateway, "open"), identity.authority)
    assert found["names"] == {"credentials-in-the-clear"}
    (tried,) = found["login_in_the_clear"]["tried"]
    assert tried == {"command": "a bind with a password", "taken": True, "answer": "result 49: "}
