"""Real FTP clients through the gateway to vsftpd, ProFTPD and Pure-FTPd: a small slice of what `make interop` does."""

from __future__ import annotations

import ftplib
import io
import os
import shutil
import ssl
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import cast

import pytest

from interop.clients import CLIENTS, Client
from interop.files import Parcel
from interop.jobs import MODES, USER, Job, Letter, Mode
from interop.places import Here, run
from tests.process import ftpd, programs
from tests.process.conftest import directory_for_servers
from tests.process.running import CANARY, DEADLINE, Gateway, Identity, Service, running

OCTETS, FILES = 1_000_000, 5
MUCH, RANDOM = bytes(100_000), os.urandom(1_000_000)
FTP = [client for client in CLIENTS if client.protocol == "ftp" and client.name != "curl, active"]
"""curl 7.88 waits for ever in active mode with TLS, in front of every server."""
KINDS = {kind.name: kind for kind in ftpd.KINDS}
VISITS = [
    (client, kind, MODES[(row + column) % 2] if not client.lacks else "starttls")
    for row, client in enumerate(FTP)
    for column, kind in enumerate(KINDS)
]
"""Each client to each server, every second time with implicit TLS."""
LFTP, FTPLIB = (next(client for client in FTP if client.name == name) for name in ("lftp", "Python ftplib"))
TLS = ("vsftpd", "ProFTPD")
"""Both want that a data connection resumes the TLS session of its control connection."""


def name(kind: str, client: Client) -> str:
    return f"{kind}-{'-'.join(client.needs)}"


@pytest.fixture(scope="module")
def servers(identity: Identity) -> Iterator[dict[str, ftpd.Server]]:
    with ExitStack() as stack:
        directory = stack.enter_context(directory_for_servers())
        yield {name: stack.enter_context(ftpd.running(kind, directory)) for name, kind in KINDS.items()}


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, identity: Identity, servers: dict[str, ftpd.Server]
) -> Iterator[Gateway]:
    """For each server a service for each set of options that a client needs."""
    needs = {name(kind, client): (server, client.needs) for kind, server in servers.items() for client in FTP}
    services = [
        Service(service, server.address, "ftp", options=options) for service, (server, options) in needs.items()
    ]
    with running(tmp_path_factory.mktemp("gateway"), identity, services) as gateway:
        yield gateway


@pytest.mark.parametrize(("client", "kind", "mode"), VISITS, ids=lambda value: getattr(value, "name", value))
def test_a_client_carries_files(
    gateway: Gateway,
    servers: dict[str, ftpd.Server],
    identity: Identity,
    tmp_path: Path,
    client: Client,
    kind: str,
    mode: Mode,
) -> None:
    since = gateway.log.mark()
    service = name(kind, client)
    said, difference = visit(client, mode, gateway.address(service, mode)[1], identity, tmp_path, servers[kind].home)
    assert not difference, said
    # Two lists, two files and two halves of them, one that is aborted, and the small ones.
    gateway.log.wait("transfer", since, count=7 + 2 * FILES)
    transfers = gateway.log.events("transfer", since)
    assert {transfer["protection"] for transfer in transfers} == {"TLSv1.3"}


def visit(client: Client, mode: Mode, port: int, identity: Identity, directory: Path, home: Path) -> tuple[str, str]:
    """What the client said, and what it did not do."""
    programs.need({"Python ftplib": "python3"}.get(client.name.partition(",")[0], client.packages[0]), debian="lftp")
    authority = Path(shutil.copy(identity.authority, directory / "authority.pem"))
    job = Job("ftp", mode, port, authority, directory, "", Letter.new(), USER, CANARY, OCTETS, FILES)
    parcel = Parcel(job, home)
    parcel.lay_out()
    command = client.how(job)
    argv = [str(word) for word in command.argv]
    ended = run(Here(), argv, shared=directory, environment={"HOME": str(directory), **command.environment})
    return ended.said, parcel.difference()


class Session(ftplib.FTP_TLS):
    """What ftplib has no name for."""

    def takes(self, command: str) -> bool:
        try:
            return self.voidcmd(command).startswith("2")
        except ftplib.error_perm:
            return False

    def fetched(self, name: str, rest: int | None = None) -> bytes:
        came: list[bytes] = []
        self.retrbinary(f"RETR {name}", came.append, rest=rest)
        return b"".join(came)


@pytest.mark.parametrize("kind", KINDS)
def test_commands_that_change_a_transfer(
    gateway: Gateway, servers: dict[str, ftpd.Server], trusting: ssl.SSLContext, kind: str
) -> None:
    """REST, APPE, ALLO, MODE Z and names in UTF-8: the server's matter, and its answers."""
    home = servers[kind].home
    with Session(context=trusting) as client:
        client.connect(*gateway.address(name(kind, FTPLIB)), timeout=DEADLINE)
        client.login(USER, CANARY)
        client.prot_p()
        assert "UTF8" in client.sendcmd("FEAT")
        assert client.takes("OPTS UTF8 ON") is (kind != "Pure-FTPd")  # which always uses it
        assert client.takes("ALLO 10")
        client.storbinary("STOR größe", io.BytesIO(b"0123456789"))
        assert (home / "größe").read_bytes() == b"0123456789"
        client.storbinary("APPE größe", io.BytesIO(b"abc"))
        assert client.fetched("größe") == b"0123456789abc"
        assert client.fetched("größe", rest=8) == b"89abc"
        client.storbinary("STOR größe", io.BytesIO(b"XY"), rest=11)
        assert client.fetched("größe") == b"0123456789aXY"
        assert "größe" in client.nlst()
        client.delete("größe")
        # Debian's others know no MODE Z.
        assert client.takes("MODE Z") is (kind == "ProFTPD")
        if kind == "ProFTPD":
            with client.transfercmd("STOR deflated") as data:
                data.sendall(zlib.compress(MUCH))
                # ProFTPD writes the end of a stream of its own.
                with suppress(ssl.SSLError):
                    cast(ssl.SSLSocket, data).unwrap()
            client.voidresp()
            assert (home / "deflated").read_bytes() == MUCH
            # Of a store it loses octets, also without a gateway, unless the stream comes in one piece.
            (home / "deflated").write_bytes(RANDOM)
            assert zlib.decompress(client.fetched("deflated")) == RANDOM


@pytest.mark.parametrize("kind", TLS)
def test_a_server_with_TLS_gets_its_session_resumed(identity: Identity, tmp_path: Path, kind: str) -> None:
    with directory_for_servers() as directory:
        certificate = Path(shutil.copy(identity.certificate, directory / "certificate.pem"))
        with ftpd.running(KINDS[kind], directory, certificate=certificate) as server:
            backend = {"address": f"localhost:{server.port}", "tls": "starttls", "ca": str(identity.authority)}
            with running(tmp_path, identity, [Service("ftp", "old")], {"backend:old": backend}) as gateway:
                said, difference = visit(LFTP, "starttls", gateway.address("ftp")[1], identity, directory, server.home)
                assert not difference, said


def test_data_session_reuse_serves_clients_that_resume(
    identity: Identity, tmp_path: Path, servers: dict[str, ftpd.Server]
) -> None:
    """lftp does, ftplib does not."""
    server = servers["vsftpd"]
    options = {"data_session_reuse": "required"}
    with running(tmp_path, identity, [Service("ftp", server.address, options=options)]) as gateway:
        for client, serves in ((LFTP, True), (FTPLIB, False)):
            for mode in MODES:
                since = gateway.log.mark()
                directory = tmp_path / f"{client.name}-{mode}"
                directory.mkdir()
                port = gateway.address("ftp", mode)[1]
                said, difference = visit(client, mode, port, identity, directory, server.home)
                assert (difference == "") is serves, said
                assert bool(gateway.log.events("data-session-not-resumed", since)) is not serves
