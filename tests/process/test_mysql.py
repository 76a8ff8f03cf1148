"""Other people's clients of MySQL, through every port of the gateway, with MariaDB behind it."""

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
from tests.process.looking import at, checked, openssl_verifies, probed
from tests.process.mariadbd import MariaDB, mariadb
from tests.process.running import CANARY, DEADLINE, ROOT, Gateway, Identity, Service, running
from tests.pure.contract.answers.mysql import login

REQUIRED = "ERROR 3159 (HY000): TLS required"


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDB]:
    """It knows no TLS."""
    with directory_for_servers() as directory, mariadb(directory, "--proxy-protocol-networks=127.0.0.1") as server:
        yield server


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, identity: Identity, server: MariaDB) -> Iterator[Gateway]:
    services = [
        Service("mysql", server.address),
        Service("open", server.address, protocol="mysql", options={"policy": "optional"}),
        Service("told", "told", protocol="mysql"),
        Service("nobody", f"127.0.0.1:{free_port()}", protocol="mysql"),
    ]
    options = {"backend:told": {"address": server.address, "identity": "proxy-v1"}}
    with running(tmp_path_factory.mktemp("gateway"), identity, services, options) as gateway:
        yield gateway


def asked(
    gateway: Gateway,
    identity: Identity,
    *options: str,
    service: str = "mysql",
    user: str = "shop",
    password: str = CANARY,
    query: str = "select 6 * 7",
) -> subprocess.CompletedProcess[str]:
    _, port = gateway.address(service)
    program = programs.need("mariadb", debian="mariadb-client")
    return subprocess.run(
        [
            *(program, "--no-defaults", "--protocol=tcp", "--host=localhost", f"--port={port}", f"--user={user}"),
            *(f"--password={password}", f"--ssl-ca={identity.authority}", *options, "-N", "-B", "-e", query),
        ],
        env={"PATH": os.environ.get("PATH", os.defpath), "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        stdin=subprocess.DEVNULL,
    )


# --- mariadb -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("user", "plugin"), [("shop", "MYSQL_NATIVE_PASSWORD"), ("modern", "CLIENT_ED25519")])
@pytest.mark.parametrize("option", ["--ssl", "--ssl-verify-server-cert"])
def test_mariadb_asks(gateway: Gateway, identity: Identity, user: str, plugin: str, option: str) -> None:
    since = gateway.log.mark()
    done = asked(gateway, identity, option, user=user)
    assert (done.stdout, done.stderr) == ("42\n", "")
    assert gateway.log.wait("auth", since)["mechanism"] == plugin
    seen = gateway.log.wait("session", since, proven="yes", phase="relaying")
    assert seen["tls"] == "TLSv1.3"


def test_compressed_results_pass(gateway: Gateway, identity: Identity) -> None:
    done = asked(
        gateway, identity, "--ssl", "--compress", query="select length(repeat('x', 5000000)), repeat('y', 3000000)"
    )
    assert done.stdout == "5000000\t" + "y" * 3_000_000 + "\n"


def test_without_tls_a_client_is_refused(gateway: Gateway, identity: Identity) -> None:
    since = gateway.log.mark()
    assert asked(gateway, identity, "--skip-ssl").stderr.strip() == REQUIRED
    gateway.log.wait("session", since, 1, reason="tls-required", phase="plaintext")


@pytest.mark.parametrize("option", ["--ssl", "--skip-ssl"])
def test_where_tls_is_optional_both_work(gateway: Gateway, identity: Identity, option: str) -> None:
    assert asked(gateway, identity, option, service="open").stdout == "42\n"


def test_the_server_is_told_who_the_client_is(gateway: Gateway, identity: Identity) -> None:
    context = ssl.create_default_context(cafile=str(identity.authority))
    address = gateway.address("told", "implicit")
    plain = socket.create_connection(address, DEADLINE, source_address=("127.0.0.5", 0))
    with context.wrap_socket(plain, server_hostname="localhost") as client:
        assert client.recv(4096)[4] == 10
        client.sendall(login(1, b"nobody", ssl=False))
        assert b"Access denied for user 'nobody'@'127.0.0.5'" in client.recv(4096)


def test_a_wrong_password_is_told_in_the_servers_words_and_counted(
    tmp_path: Path, identity: Identity, server: MariaDB
) -> None:
    options = {"limits": {"auth_failures_per_minute": "2"}}
    with running(tmp_path, identity, [Service("mysql", server.address)], options) as limited:
        for _ in range(2):
            assert "ERROR 1045 (28000): Access denied" in asked(limited, identity, "--ssl", password="wrong").stderr
        assert "ERROR 1226 (42000): too many failed logins" in asked(limited, identity, "--ssl").stderr
        limited.log.wait("refused", limit="auth-failures-per-minute")


def test_a_server_that_is_not_there(gateway: Gateway, identity: Identity) -> None:
    assert "the database server cannot be reached" in asked(gateway, identity, "--ssl", service="nobody").stderr


# --- other clients -----------------------------------------------------------------------------------

_PYMYSQL = """
import ssl, sys
import pymysql
port, authority, password = sys.argv[1:]
for user in ("shop",):
    one = pymysql.connect(host="localhost", port=int(port), user=user, password=password, ssl_ca=authority,
                          ssl_verify_cert=True, ssl_verify_identity=True)
    with one.cursor() as cursor:
        for _ in range(200):
            cursor.execute("select %s * 7", (6,))
        print(cursor.fetchone()[0])
    one.close()
try:
    pymysql.connect(host="localhost", port=int(port), user="shop", password=password, ssl_disabled=True)
except pymysql.err.MySQLError as refused:
    print(refused.args[0])
"""


def test_pymysql_asks(gateway: Gateway, identity: Identity) -> None:
    python = ROOT / ".venv-tools" / "bin" / "python"
    programs.need(str(python), pip="PyMySQL")
    _, port = gateway.address("mysql")
    done = subprocess.run(
        [str(python), "-c", _PYMYSQL, str(port), str(identity.authority), CANARY],
        capture_output=True, text=True, timeout=DEADLINE,
    )  # fmt: skip
    assert done.stdout.split() == ["42", "3159"], done.stderr


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_openssl_speaks_to_both_ports(gateway: Gateway, identity: Identity, mode: str) -> None:
    """It sends its ClientHello in one segment with SSLRequest."""
    openssl_verifies(gateway, identity, "mysql", mode, "mysql")


# --- octets ------------------------------------------------------------------------------------------


# --- the gateway's own tools -------------------------------------------------------------------------


def test_check_looks_at_a_server(tmp_path: Path, identity: Identity, server: MariaDB) -> None:
    done = checked(tmp_path, identity, "mysql", f"address = {server.address}")
    assert done.returncode == 0, done.stdout
    assert re.search(r"greeting +5\.5\.5-\S+MariaDB", done.stdout), done.stdout
    assert re.search(r"login +with mysql_native_password", done.stdout)


def test_check_wants_tls_of_a_server_that_has_none(tmp_path: Path, identity: Identity, server: MariaDB) -> None:
    done = checked(
        tmp_path, identity, "mysql", f"address = {server.address}\ntls = starttls\nca = {identity.authority}"
    )
    assert done.returncode == 1, done.stdout
    assert "the server does not offer TLS" in done.stdout


def test_probe_tells_the_gateway_from_a_server(gateway: Gateway, identity: Identity, server: MariaDB) -> None:
    found = probed("mysql", at(gateway, "mysql"), identity.authority)
    assert found["names"] == set(), found
    assert found["starttls"]["offered"] is True
    assert found["starttls"]["runs_injected_commands"] is False
    assert found["login_in_the_clear"]["offered"] == ["mysql_native_password"]
    found = probed("mysql", server.address, identity.authority)
    assert found["names"] == {"no-starttls"}, found
    assert "MariaDB" in found["greeting"]


# --- a server with TLS -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secure(identity: Identity) -> Iterator[MariaDB]:
    """It lets nobody in without TLS."""
    with directory_for_servers() as directory:
        own = directory / "server.pem"
        own.write_bytes(identity.certificate.read_bytes())
        own.chmod(0o644)
        with mariadb(directory, f"--ssl-cert={own}", f"--ssl-key={own}", "--require-secure-transport") as server:
            yield server


def tls_to(server: MariaDB, identity: Identity, name: str = "localhost") -> dict[str, dict[str, str]]:
    named = {"name": name, "ca": str(identity.authority)}
    return {"backend:server": {"address": server.address, "tls": "starttls", **named}}


def test_clients_come_to_a_server_that_demands_tls(tmp_path: Path, identity: Identity, secure: MariaDB) -> None:
    services = [Service("mysql", "server"), Service("open", "server", protocol="mysql", options={"policy": "optional"})]
    with running(tmp_path, identity, services, tls_to(secure, identity)) as gateway:
        for user in ("shop", "modern"):
            done = asked(gateway, identity, "--ssl", user=user, query="show status like 'Ssl_version'")
            assert (done.stdout, done.stderr) == ("Ssl_version\tTLSv1.3\n", "")
        assert asked(gateway, identity, "--ssl", "--compress", "--default-auth=mysql_clear_password").stdout == "42\n"
        assert asked(gateway, identity, "--skip-ssl", service="open").stdout == "42\n"
        assert "ERROR 1045 (28000): Access denied" in asked(gateway, identity, "--ssl", password="wrong").stderr


def test_a_server_with_a_wrong_certificate_gets_no_login(tmp_path: Path, identity: Identity, secure: MariaDB) -> None:
    with running(
        tmp_path, identity, [Service("mysql", "server")], tls_to(secure, identity, "other.example.org")
    ) as gateway:
        done = asked(gateway, identity, "--ssl")
        assert "ERROR 1158 (08S01): the connection to the server was lost" in done.stderr
        assert "certificate" in gateway.log.wait("backend-tls-failed")["detail"]


def test_check_looks_into_a_server_that_demands_tls(tmp_path: Path, identity: Identity, secure: MariaDB) -> None:
    backend = f"address = {secure.address}\ntls = starttls\nca = {identity.authority}\nname = "
    done = checked(tmp_path, identity, "mysql", f"{backend}localhost")
    assert done.returncode == 0, done.stdout
    assert re.search(r"login +with mysql_native_password", done.stdout), done.stdout
    done = checked(tmp_path, identity, "mysql", f"{backend}other.example.org")
    assert done.returncode == 1, done.stdout
    assert "backend-tls-failed" in done.stdout


def test_probe_looks_at_a_server_with_tls(identity: Identity, secure: MariaDB) -> None:
    found = probed("mysql", secure.address, identity.authority)
    assert found["names"] == set(), found
    assert found["tls"]["version"] == "TLSv1.3"
    assert found["starttls"]["runs_injected_commands"] is False
