"""A few of the clients of `make interop`, as they are on this machine, in front of the servers of these tests."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.clients import CLIENTS, Client
from interop.jobs import CONTROLS, MODES, USER, Job, Letter, Mode
from interop.matrix import certificates
from interop.places import Ended, Here, run
from tests.process import programs
from tests.process.running import CANARY, DEADLINE, Gateway, Service, running
from tests.process.servers import Dovecot, Postfix

PROGRAMS = {"msmtp": "msmtp", "isync": "mbsync", "mpop": "mpop"}
PAIRS = [client for client in CLIENTS if client.name in PROGRAMS]
RIGHT = "right"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, authority: Path, postfix: Postfix, dovecot: Dovecot
) -> Iterator[Gateway]:
    """For each protocol a service with the right certificate, and one with each of two wrong ones."""
    identity, *wrong = certificates(authority)
    backends = {"smtp": postfix.submission, "imap": dovecot.imap, "pop3": dovecot.pop3}
    services = [
        Service(f"{protocol}-{name.replace(' ', '-')}", address, protocol, options={"certificate": str(certificate)})
        for protocol, address in backends.items()
        for name, certificate in zip((RIGHT, *CONTROLS), (identity.certificate, *wrong), strict=True)
    ]
    with running(tmp_path_factory.mktemp("gateway"), identity, services) as gateway:
        yield gateway


def visit(
    client: Client, gateway: Gateway, mode: Mode, service: str, authority: Path, directory: Path
) -> tuple[Job, Ended, bytes]:
    """The client does its job there; what it fetched."""
    program = PROGRAMS[client.name]
    programs.need(program, debian=client.packages[0])
    recipient = f"{client.name}-{mode}-{service}@example.test"
    port = gateway.address(f"{client.protocol}-{service}", mode)[1]
    user = USER if client.protocol == "smtp" else f"interop-{client.name}-{mode}"
    job = Job(
        client.protocol, mode, port, authority / "authority.pem", directory, recipient, Letter.new(), user, CANARY
    )
    command = client.how(job)
    argv = [str(word) for word in command.argv]
    environment = {"HOME": str(directory), **command.environment}
    ended = run(Here(), argv, shared=directory, stdin=command.stdin, environment=environment)
    return job, ended, command.fetched(ended)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("client", PAIRS, ids=lambda client: client.name)
def test_T25_a_client_of_the_matrix_gets_through_and_refuses_wrong_certificates(
    gateway: Gateway, authority: Path, postfix: Postfix, dovecot: Dovecot, tmp_path: Path, client: Client, mode: Mode
) -> None:
    stored = Letter.new()
    if client.protocol != "smtp":
        dovecot.store(f"interop-{client.name}-{mode}", stored.octets("grete@example.test", "\r\n"))
    for control in CONTROLS:
        since = gateway.log.mark()
        service = control.replace(" ", "-")
        directory = tmp_path / service
        directory.mkdir()
        _, ended, fetched = visit(client, gateway, mode, service, authority, directory)
        assert ended.status
        assert stored.subject.encode() not in fetched
        session = gateway.log.wait("session", since, service=f"{client.protocol}-{service}")
        assert session.get("messages", "0") == "0"
        assert not gateway.log.events("auth", since)
    since = gateway.log.mark()
    directory = tmp_path / RIGHT
    directory.mkdir()
    job, ended, fetched = visit(client, gateway, mode, RIGHT, authority, directory)
    assert ended.status == 0, ended.said
    if client.protocol == "smtp":
        assert job.letter.difference(postfix.mailbox.take(job.recipient)) == ""
    else:
        assert stored.difference(fetched) == ""
    assert gateway.log.wait("session", since, service=f"{client.protocol}-{RIGHT}")["tls"] == "TLSv1.3"
    assert gateway.log.wait("auth", since, service=f"{client.protocol}-{RIGHT}")["result"] == "ok"


def test_T25_a_client_that_does_not_end_is_ended_with_all_that_it_started() -> None:
    begun = "sleep 100 & echo $!; exec sleep 100"
    ended = run(Here(), ["sh", "-c", begun], patience=0.3)
    assert ended.broken_off
    assert "did not end" in ended.said
    with contextlib.suppress(ProcessLookupError):
        child = os.pidfd_open(int(ended.output))
        try:
            assert select.select([child], [], [], DEADLINE)[0], "it goes on"
        finally:
            os.close(child)
