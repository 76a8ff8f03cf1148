"""Other people's clients of PostgreSQL, through every port of the gateway, with real servers behind it."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.process import programs, servers
from tests.process.conftest import directory_for_servers
from tests.process.looking import at, checked, gnutls_verifies, openssl_verifies, probed
from tests.process.running import CANARY, DEADLINE, ROOT, Gateway, Identity, Service, running
from tests.process.servers import PostgreSQL

MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
SAFE = ("require", "verify-ca", "verify-full")
TLS_REQUIRED = "FATAL:  TLS required"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    """It knows no TLS."""
    with directory_for_servers() as directory, servers.postgresql(directory) as server:
        yield server


@pytest.fixture(scope="module")
def tls_server(identity: Identity) -> Iterator[PostgreSQL]:
    """It has TLS, and its own certificate."""
    with directory_for_servers() as directory:
        own = Identity.issue(directory)
        with servers.postgresql(directory, certificate=own.certificate) as server:
            yield server


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, identity: Identity, server: PostgreSQL, tls_server: PostgreSQL
) -> Iterator[Gateway]:
    services = [
        Service("postgresql", server.address),
        Service("open", server.address, protocol="postgresql", options={"policy": "optional"}),
        Service("secured", "tls", protocol="postgresql"),
        Service("nobody", f"127.0.0.1:{free_port()}", protocol="postgresql"),
    ]
    options = {"backend:tls": {"address": tls_server.address, "tls": "starttls", "verify": "no"}}
    with running(tmp_path_factory.mktemp("gateway"), identity, services, options) as gateway:
        yield gateway


def target(
    gateway: Gateway, identity: Identity, service: str = "postgresql", mode: str = "starttls", **more: str
) -> str:
    """A connection string."""
    host, port = gateway.address(service, mode)
    words = {"host": "localhost", "hostaddr": host, "port": str(port), "user": "shop", "dbname": "postgres"}
    words |= {"sslrootcert": str(identity.authority), "connect_timeout": "10", **more}
    return " ".join(f"{name}={value}" for name, value in words.items())


def run(program: str, *arguments: str, password: str = CANARY) -> subprocess.CompletedProcess[str]:
    """As a user runs it."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "PGPASSWORD": password, "HOME": "/nonexistent"}
    found = programs.need(program, debian="postgresql-client" if program == "psql" else "postgresql")
    return subprocess.run(
        [found, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE * 3,
        stdin=subprocess.DEVNULL,
    )


def asked(destination: str, query: str = "select 6 * 7", password: str = CANARY) -> subprocess.CompletedProcess[str]:
    return run("psql", "--no-psqlrc", "-AtX", "-c", query, destination, password=password)


def session(gateway: Gateway, since: int, **fields: str) -> None:
    gateway.log.wait("session", since, 1, **fields)


# --- psql --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_psql_with_every_sslmode(gateway: Gateway, identity: Identity, mode: str) -> None:
    since = gateway.log.mark()
    done = asked(target(gateway, identity, sslmode=mode))
    if mode == "disable":
        assert done.stderr.rstrip().endswith(TLS_REQUIRED)
        session(gateway, since, reason="tls-required", phase="plaintext")
    else:
        assert (done.stdout, done.stderr) == ("42\n", "")
        assert gateway.log.wait("auth", since)["mechanism"] == "SCRAM-SHA-256"
        session(gateway, since, tls="TLSv1.3", phase="relaying", proven="yes", policy="required")
    if mode == "allow":
        session(gateway, since, reason="tls-required")


@pytest.mark.parametrize("mode", MODES)
def test_psql_where_tls_is_optional(gateway: Gateway, identity: Identity, mode: str) -> None:
    since = gateway.log.mark()
    assert asked(target(gateway, identity, "open", sslmode=mode)).stdout == "42\n"
    secured = gateway.log.wait("session", since, service="open").get("tls")
    assert secured == (None if mode in ("disable", "allow") else "TLSv1.3")


@pytest.mark.parametrize("mode", MODES)
def test_a_wrong_password_is_told_in_the_servers_words_and_counted(
    gateway: Gateway, identity: Identity, mode: str
) -> None:
    since = gateway.log.mark()
    done = asked(target(gateway, identity, sslmode=mode), password="wrong")
    if mode == "disable":
        assert TLS_REQUIRED in done.stderr
        return
    assert 'FATAL:  password authentication failed for user "shop"' in done.stderr
    assert gateway.log.wait("auth", since)["result"] == "failed"
    session(gateway, since, reason="backend-closed")
    # What psql tries next it tries without its password.
    assert (TLS_REQUIRED in done.stderr) == (mode in ("allow", "prefer"))


def test_a_client_without_a_password_leaves_and_nothing_is_wrong(gateway: Gateway, identity: Identity) -> None:
    since = gateway.log.mark()
    assert "no password supplied" in asked(target(gateway, identity, sslmode="require"), password="").stderr
    session(gateway, since, reason="client-closed")


def test_the_server_sees_the_gateway_and_no_tls(gateway: Gateway, identity: Identity) -> None:
    query = "select host(inet_client_addr()), ssl from pg_stat_ssl where pid = pg_backend_pid()"
    assert asked(target(gateway, identity, sslmode="require"), query).stdout == "127.0.0.1|f\n"


def test_channel_binding_cannot_be_had_and_is_not_needed(gateway: Gateway, identity: Identity) -> None:
    assert asked(target(gateway, identity, sslmode="require", channel_binding="prefer")).stdout == "42\n"
    refused = asked(target(gateway, identity, sslmode="require", channel_binding="require"))
    assert "channel binding is required" in refused.stderr


def test_a_database_that_is_not_there(gateway: Gateway, identity: Identity) -> None:
    """The error comes behind the login: it passes as it is."""
    done = asked(target(gateway, identity, sslmode="require", dbname="nowhere"))
    assert 'database "nowhere" does not exist' in done.stderr


@pytest.mark.parametrize("mode", SAFE)
def test_a_backend_that_is_not_there(gateway: Gateway, identity: Identity, mode: str) -> None:
    done = asked(target(gateway, identity, "nobody", sslmode=mode))
    assert "FATAL:  the database server cannot be reached" in done.stderr


# --- a server with TLS -------------------------------------------------------------------------------


def test_the_servers_leg_may_be_under_tls(gateway: Gateway, identity: Identity) -> None:
    query = "select ssl, version from pg_stat_ssl where pid = pg_backend_pid()"
    done = asked(target(gateway, identity, "secured", sslmode="require", channel_binding="disable"), query)
    assert done.stdout == "t|TLSv1.3\n"


def test_channel_binding_fails_between_two_certificates_and_that_is_told(gateway: Gateway, identity: Identity) -> None:
    since = gateway.log.mark()
    done = asked(target(gateway, identity, "secured", sslmode="require"))
    assert "channel binding" in done.stderr
    assert "channel_binding=disable" in gateway.log.wait("backend-channel-binding", since)["cure"]


def test_with_one_certificate_channel_binding_works(tmp_path: Path, identity: Identity, gateway: Gateway) -> None:
    with (
        directory_for_servers() as directory,
        servers.postgresql(directory, certificate=identity.certificate) as server,
    ):
        options = {"backend:tls": {"address": server.address, "tls": "starttls", "verify": "no"}}
        with running(tmp_path, identity, [Service("postgresql", "tls")], options) as gateway:
            done = asked(target(gateway, identity, sslmode="verify-full", channel_binding="require"))
            assert (done.stdout, done.stderr) == ("42\n", "")
            assert gateway.log.wait("auth")["mechanism"] == "SCRAM-SHA-256-PLUS"


# --- cancelling --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "more"), [("postgresql", {}), ("open", {}), ("secured", {"channel_binding": "disable"})]
)
def test_ctrl_c_cancels_a_query(gateway: Gateway, identity: Identity, service: str, more: dict[str, str]) -> None:
    """libpq 15 sends the request in the clear on a connection of its own, also where the session has TLS."""
    since = gateway.log.mark()
    psql = subprocess.Popen(
        [
            programs.need("psql", debian="postgresql-client"),
            "-AtX",
            target(gateway, identity, service, sslmode="require", **more),
        ],
        env={"PATH": os.environ.get("PATH", os.defpath), "PGPASSWORD": CANARY},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert psql.stdin
    assert psql.stdout
    psql.stdin.write("select 'begun';\nselect pg_sleep(60);\n")
    psql.stdin.flush()
    assert psql.stdout.readline() == "begun\n"
    watch = "select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'"
    while asked(target(gateway, identity, service, sslmode="require", **more), watch).stdout != "1\n":
        pass
    psql.send_signal(signal.SIGINT)
    _, told = psql.communicate(timeout=DEADLINE)
    assert "canceling statement due to user request" in told
    session(gateway, since, reason="quit", phase="plaintext", received="16")


# --- other clients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_openssl_speaks_to_both_ports(gateway: Gateway, identity: Identity, mode: str) -> None:
    openssl_verifies(gateway, identity, "postgresql", mode, "postgres", alpn="postgresql")


def test_gnutls_speaks_it(gateway: Gateway, identity: Identity) -> None:
    gnutls_verifies(gateway, identity, "postgresql", "postgres")


_PSYCOPG = """
import asyncio, sys, psycopg
target = sys.argv[1]
with psycopg.connect(target) as one:
    print(one.execute("select 6 * 7").fetchone()[0])
    with one.cursor().copy("copy (select generate_series(1, 200000)) to stdout") as copy:
        print(sum(len(block) for block in copy))
async def ask():
    async with await psycopg.AsyncConnection.connect(target) as one:
        print((await (await one.execute("select 6 * 7")).fetchone())[0])
asyncio.run(ask())
one = psycopg.connect(target, autocommit=True)
import threading
threading.Timer(1, one.cancel_safe).start()
try:
    one.execute("select pg_sleep(60)")
except psycopg.errors.QueryCanceled:
    print("cancelled")
print(psycopg.pq.version() // 10000)
"""


@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
def test_psycopg_reads_copies_and_cancels(gateway: Gateway, identity: Identity, negotiation: str) -> None:
    """`direct`: a ClientHello comes first, on the port for SSLRequest, too (libpq 17 and later)."""
    python = ROOT / ".venv-tools" / "bin" / "python"
    programs.need(str(python), pip="psycopg[binary]")
    since = gateway.log.mark()
    for mode in ("starttls", "implicit") if negotiation == "direct" else ("starttls",):
        words = target(gateway, identity, mode=mode, sslmode="verify-full", sslnegotiation=negotiation)
        done = subprocess.run(
            [str(python), "-c", _PSYCOPG, words],
            env={"PGPASSWORD": CANARY}, capture_output=True, text=True, timeout=DEADLINE * 2,
        )  # fmt: skip
        assert done.stdout.split()[:4] == ["42", "1288895", "42", "cancelled"], done.stderr
        assert int(done.stdout.split()[4]) >= 17
    session(gateway, since, alpn="postgresql")


def test_direct_tls_without_the_name_postgresql_is_cut_off(gateway: Gateway, identity: Identity) -> None:
    context = ssl.create_default_context(cafile=str(identity.authority))
    plain = socket.create_connection(gateway.address("postgresql"), DEADLINE)
    with context.wrap_socket(plain, server_hostname="localhost") as client:
        assert client.recv(100) == b""
    gateway.log.wait("tls-on-plaintext-port")


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_a_browser_gets_no_tls(gateway: Gateway, identity: Identity, mode: str) -> None:
    context = ssl.create_default_context(cafile=str(identity.authority))
    context.set_alpn_protocols(["h2", "http/1.1"])
    plain = socket.create_connection(gateway.address("postgresql", mode), DEADLINE)
    with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
        context.wrap_socket(plain, server_hostname="localhost")
    plain.close()


def test_a_client_above_the_limit_of_failed_logins_is_answered_by_the_gateway(
    tmp_path: Path, identity: Identity, server: PostgreSQL
) -> None:
    options = {"limits": {"auth_failures_per_minute": "2"}}
    with running(tmp_path, identity, [Service("postgresql", server.address)], options) as limited:
        words = target(limited, identity, sslmode="require")
        for _ in range(2):
            assert "password authentication failed" in asked(words, password="wrong").stderr
        assert "FATAL:  too many failed logins, try again later" in asked(words).stderr
        limited.log.wait("refused", limit="auth-failures-per-minute")


def test_pgbench_runs_a_thousand_transactions(gateway: Gateway, identity: Identity, server: PostgreSQL) -> None:
    made = run("pgbench", "-i", "-q", "-s", "1", target(gateway, identity, sslmode="require"))
    assert made.returncode == 0, made.stderr
    done = run("pgbench", "-c", "4", "-t", "250", "-n", target(gateway, identity, sslmode="require"))
    assert "number of transactions actually processed: 1000/1000" in done.stdout, done.stderr
    assert "number of failed transactions: 0" in done.stdout


# --- the gateway's own tools -------------------------------------------------------------------------


def test_check_looks_at_a_server(tmp_path: Path, identity: Identity, server: PostgreSQL) -> None:
    done = checked(tmp_path, identity, "postgresql", f"address = {server.address}")
    assert done.returncode == 0, done.stdout
    assert re.search(r"greeting +Authentication: SCRAM-SHA-256\n", done.stdout)
    assert re.search(r"login +with SCRAM-SHA-256\n", done.stdout)


def test_check_looks_into_a_server_with_tls(tmp_path: Path, identity: Identity, tls_server: PostgreSQL) -> None:
    """The `S` that answers SSLRequest is no part of its answer."""
    address = f"address = {tls_server.address}"
    done = checked(tmp_path, identity, "postgresql", address + "\ntls = starttls\nverify = no")
    assert done.returncode == 0, done.stdout
    assert re.search(r"greeting +Authentication: SCRAM-SHA-256-PLUS SCRAM-SHA-256\n", done.stdout), done.stdout


def test_check_tells_what_pg_hba_conf_lacks(tmp_path: Path, identity: Identity) -> None:
    with directory_for_servers() as directory:
        hba = directory / "pg_hba.conf"
        hba.write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
        with servers.postgresql(directory, f"hba_file = '{hba}'") as server:
            done = checked(tmp_path, identity, "postgresql", f"address = {server.address}")
    assert done.returncode == 1
    assert 'no pg_hba.conf entry for host "127.0.0.1"' in re.sub(r"\s+", " ", done.stdout)


@pytest.mark.parametrize(
    ("mode", "options"), [("starttls", []), ("starttls", ["--implicit"]), ("implicit", ["--implicit"])]
)
def test_probe_finds_nothing_wrong_with_the_gateway(
    gateway: Gateway, identity: Identity, mode: str, options: list[str]
) -> None:
    """`--implicit` says the ALPN name postgresql, so that a port for SSLRequest takes it, too."""
    found = probed("postgresql", at(gateway, "postgresql", mode), identity.authority, *options)
    assert found["names"] == set(), found
    assert found["tls"]["version"] == "TLSv1.3"
    assert found["capabilities"]["tls"] == ["SCRAM-SHA-256"]
    if not options:
        assert found["starttls"]["answer"] == "S"
        assert found["starttls"]["runs_injected_commands"] is False
        assert found["greeting"] == "TLS required"


def test_probe_looks_at_servers(identity: Identity, server: PostgreSQL, tls_server: PostgreSQL) -> None:
    found = probed("postgresql", server.address, identity.authority)
    assert found["names"] == {"no-starttls"}
    assert found["starttls"]["answer"] == "N"
    assert found["login_in_the_clear"]["offered"] == ["SCRAM-SHA-256"]
    found = probed("postgresql", tls_server.address, identity.authority)
    assert found["names"] == {"certificate-untrusted"}
    assert found["starttls"]["runs_injected_commands"] is False


# --- direct TLS towards a server (PostgreSQL 17) -----------------------------------------------------


def direct_server(identity: Identity, server: PostgreSQL, seen: list[str | None]) -> socket.socket:
    """As PostgreSQL 17 with `sslnegotiation=direct`: TLS comes first, and without ALPN there is none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate)
    context.set_alpn_protocols(["postgresql"])
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while octets := source.recv(65536):
                target.sendall(octets)
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                client = context.wrap_socket(listener.accept()[0], server_side=True)
                seen.append(client.selected_alpn_protocol())
                if seen[-1] is None:
                    client.close()
                    continue
                host, port = server.address.split(":")
                behind = socket.create_connection((host, int(port)))
                for pair in ((client, behind), (behind, client)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return listener


def test_direct_tls_towards_a_server_says_the_name_postgresql(
    tmp_path: Path, identity: Identity, server: PostgreSQL
) -> None:
    seen: list[str | None] = []
    with direct_server(identity, server, seen) as listener:
        backend = {
            "address": f"localhost:{listener.getsockname()[1]}",
            "tls": "implicit",
            "ca": str(identity.authority),
        }
        services = [Service("postgresql", "direct")]
        with running(tmp_path, identity, services, {"backend:direct": backend}) as gateway:
            assert asked(target(gateway, identity, sslmode="verify-full")).stdout == "42\n"
    assert set(seen) == {"postgresql"}
