"""The control socket of a running gateway, asked by the commands that administrators use."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import socket
import ssl
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.app.control.server import MOST
from gateway.cli.__main__ import main
from gateway.config.values import Control
from tests.process.conftest import Front, Opening, directory_for_servers
from tests.process.running import Gateway, Identity, Service, launch, running, wait_until
from tests.process.wire import Client
from tests.process.words import WORDS


@dataclass(kw_only=True)
class House(Front):
    """A gateway, and an administrator beside it."""

    directory: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def file(self) -> Path:
        return self.directory / "gateway.ini"

    @property
    def socket(self) -> Path:
        return self.directory / "control"

    def run(self, *arguments: str, status: int = 0) -> str:
        """What a command says on standard output and standard error."""
        command, *about = arguments
        self.capsys.readouterr()
        assert main([command, "--config", str(self.file), *about]) == status, self.capsys.readouterr()
        said = self.capsys.readouterr()
        return said.out + said.err

    def ask(self, *arguments: str, status: int = 0) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.run(*arguments, "--json", status=status))
        assert answer["ok"] is (status == 0)
        result: dict[str, Any] = answer["result"] if status == 0 else answer
        return result


@pytest.fixture
def house(identity: Identity, trusting: ssl.SSLContext, capsys: pytest.CaptureFixture[str]) -> Iterator[House]:
    with (
        directory_for_servers() as directory,
        Opening(directory, identity, trusting)("imap", "smtp", gateway={"control": f"{directory}/control"}) as one,
    ):
        yield House(one.gateway, one.backends, trusting, directory=directory, capsys=capsys)


# --- what can be seen ------------------------------------------------------------------------------


def test_status_is_one_screen_and_the_same_as_json(house: House) -> None:
    with house.enter("imap", "implicit"):
        said = house.run("status").splitlines()
        told = house.ask("status")
    assert f"process {house.gateway.process.pid}" in said[0]
    assert f"file        {house.file}" in said
    assert f"sessions    1 of {told['limit']}" in said
    assert "reload      none since the start" in said
    host, port = house.gateway.address("imap", "implicit")
    address = f"{host}:{port}"
    assert any(line.split()[:4] == ["imap", "imap", address, "implicit"] for line in said)
    assert told["gateway"]["pid"] == house.gateway.process.pid
    services = {one["name"]: one for one in told["services"]}
    assert (services["imap"]["sessions"], services["smtp"]["sessions"]) == (1, 0)
    assert {"address": address, "mode": "implicit", "policy": None} in services["imap"]["listeners"]
    backends = {one["name"]: one["addresses"] for one in told["backends"]}
    assert backends[house.backends["imap"].address] == [
        {"address": house.backends["imap"].address, "state": "up", "sessions": 1}
    ]
    (certificate,) = told["certificates"]
    assert certificate["names"] == list(Identity.names)
    assert certificate["days"] > 0
    assert told["draining"] is told["reload"] is None


def test_who_lists_sessions_and_chooses_among_them(house: House) -> None:
    with house.enter("imap", "implicit"), house.secure("smtp", "implicit"):
        assert len(house.run("who").splitlines()) == 3
        (row,) = house.ask("who", "service=imap")["sessions"]
        assert (row["client"], row["phase"], row["tls"]) == ("127.0.0.1", "relaying", "TLSv1.3")
        assert row["backend"] == house.backends["imap"].address
        assert 0 <= row["idle"] <= row["age"] + 0.1
        assert row["received"] > 0
        assert row["sent"] > 0
        assert house.ask("who", row["id"][:6])["sessions"][0]["id"] == row["id"]
        assert house.ask("who", "127.0.0.0/8", "phase=secure")["sessions"][0]["service"] == "smtp"
        assert house.ask("who", "client=192.0.2.1") == {"sessions": []}
        assert house.run("who", "name=x", status=1).startswith("name=x: sessions are chosen by id, client")


# --- what can be done ------------------------------------------------------------------------------


def test_kick_cuts_sessions_off(house: House) -> None:
    with house.enter("imap", "implicit") as one, house.secure("smtp", "implicit") as other:
        (row,) = house.ask("who", "imap")["sessions"]
        assert house.run("kick", row["id"]) == "1 session cut off\n"
        assert one.rest() == b""
        assert house.run("kick", "192.0.2.1", status=1) == (
            "0 sessions cut off\nthere is no session 192.0.2.1, and none of a client or a user 192.0.2.1\n"
        )
        assert house.ask("kick", "127.0.0.1") == {"sessions": 1}
        assert other.rest() == b""
    house.gateway.log.wait("session", count=2, reason="kicked")
    told = house.gateway.log.events("control")
    assert [event["command"] for event in told] == ["kick"] * 3
    assert told[0]["user"] == pwd.getpwuid(os.geteuid()).pw_name


def test_a_drained_service_ends_idle_sessions_and_takes_no_new_ones(house: House) -> None:
    with house.enter("imap", "implicit") as inside, house.secure("imap", "implicit") as idle:
        said = house.run("drain", "imap")
        assert said == "service imap: takes nobody new; 2 sessions there, and idle ones are ended\n"
        assert idle.rest() == WORDS["imap"].shutdown
        for mode in ("starttls", "implicit"):
            with Client(house.gateway.address("imap", mode)) as refused:
                assert refused.rest() == (WORDS["imap"].unavailable if mode == "starttls" else b"")
        assert house.gateway.log.wait("refused", service="imap")["limit"] == "drained"
        inside.say(b"n NOOP\r\n")
        assert inside.line() == b"n OK NOOP by the backend\r\n"
        assert [one["draining"] for one in house.ask("status")["services"]] == [True, False]
        # It outlives a reload.
        house.run("reload")
        assert "DRAINING" in house.run("status")
        with house.secure("smtp", "implicit"):
            pass
        assert house.run("undrain", "service:imap") == "service imap: takes sessions again\n"
        with house.enter("imap", "implicit"):
            pass


def test_nobody_is_connected_to_a_drained_backend(house: House) -> None:
    address = house.backends["imap"].address
    with house.enter("imap", "implicit") as inside:
        house.run("drain", address)
        with Client(house.gateway.address("imap")) as refused:
            assert refused.rest() == WORDS["imap"].unavailable
        (backend,) = [one for one in house.ask("status")["backends"] if one["name"] == address]
        assert backend["addresses"] == [{"address": address, "state": "drained", "sessions": 1}]
        assert "NOT SERVED (drained)" in house.run("status")
        inside.say(b"n NOOP\r\n")
        assert inside.line() == b"n OK NOOP by the backend\r\n"
        house.run("undrain", f"backend:{address}")
        with house.enter("imap", "implicit"):
            pass
    assert house.gateway.log.wait("session", reason="drained")["service"] == "imap"


def test_what_is_neither_a_service_nor_a_backend_is_not_drained(house: House) -> None:
    said = house.run("drain", "pop3", status=1)
    assert said.startswith("there is no service and no backend pop3; there are 127.0.0.1:")
    assert house.ask("undrain", "pop3", status=1)["problems"][0].startswith("there is no service")


def test_reload_says_what_has_changed_and_what_is_wrong(house: House) -> None:
    assert house.run("reload") == f"{house.file}: in use; nothing in it has changed\n"
    good = house.file.read_text()
    house.file.write_text(good.replace("[limits]", "[limits]\nbad_commands = 7"))
    assert house.run("reload") == f"{house.file}: in use now\n  [limits] changed\n"
    house.file.write_text(good.replace("[limits]", "[limits]\nbad_commands = many\nsessions = none"))
    said = house.run("reload", status=1).splitlines()
    assert said[0] == f"{house.file}: refused; the file before stays in use"
    assert sorted("bad_commands" in line for line in said[1:]) == [False, True]
    assert house.ask("status")["reload"]["problems"] == said[1:]
    assert any("REFUSED; the file before is in use" in line for line in house.run("status").splitlines())
    # The file is broken, and tells nevertheless where to ask.
    house.file.write_text(good)
    assert house.ask("reload")["good"]


def test_the_control_socket_moves_with_the_file(house: House) -> None:
    good = house.file.read_text()
    elsewhere = house.directory / "elsewhere"
    house.file.write_text(good.replace(str(house.socket), str(elsewhere)))
    assert house.run("reload", "--socket", str(house.socket)).endswith("[gateway] changed\n")
    assert house.ask("status")["sessions"] == 0
    assert not house.socket.exists()
    house.file.write_text(good.replace(str(house.socket), "/nonexistent/directory/control"))
    (problem,) = house.ask("reload", "--socket", str(elsewhere), status=1)["problems"]
    assert "[gateway] control: /nonexistent/directory/control: No such file or directory; create the" in problem
    house.file.write_text(good.replace(str(house.socket), "off"))
    house.run("reload", "--socket", str(elsewhere))
    assert house.run("status", status=3).startswith("starttls-gateway: ")
    wait_until(lambda: not elsewhere.exists())


@pytest.mark.usefixtures("root")
def test_the_group_of_the_file_may_ask(house: House) -> None:
    assert stat.S_IMODE(house.socket.stat().st_mode) == 0o600
    group = grp.getgrgid(pwd.getpwnam("nobody").pw_gid)
    good = house.file.read_text()
    house.file.write_text(good.replace("[gateway]", f"[gateway]\ncontrol_group = {group.gr_name}"))
    house.run("reload")
    found = house.socket.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o660, group.gr_gid)
    house.file.write_text(good.replace("[gateway]", "[gateway]\ncontrol_group = no-such-group"))
    assert "there is no group no-such-group" in house.run("reload", status=1)


# --- who asks badly --------------------------------------------------------------------------------


def call(house: House) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(str(house.socket))
    return sock


def test_nonsense_is_answered_and_harms_nobody(house: House) -> None:
    with call(house) as sock, sock.makefile("rb") as stream:
        sock.sendall(b"nonsense\n" + b'{"version":1,"command":"status"}\n' * 2)
        assert json.loads(stream.readline()) == {
            "version": 1, "ok": False, "problems": ["a line that is no JSON"], "result": {}
        }  # fmt: skip
        assert [json.loads(stream.readline())["ok"] for _ in range(2)] == [True, True]
        sock.sendall(b"x" * 5000)
        assert json.loads(stream.readline())["problems"] == ["a line of more than 4096 octets"]
        assert stream.readline() == b""
    with ExitStack() as stack:
        crowd = [stack.enter_context(call(house)) for _ in range(MOST)]
        with call(house) as late:
            assert late.recv(1) == b""
        crowd[0].sendall(b'{"version":1,"command":"who"}\n')
        assert b'"ok":true' in crowd[0].recv(4096)


# --- the socket's place ----------------------------------------------------------------------------


def start(directory: Path, identity: Identity, control: str) -> Gateway:
    return launch(directory, identity, [Service("imap", "127.0.0.1:1")], {"gateway": {"control": control}})


def refused(directory: Path, identity: Identity, control: str) -> str:
    with pytest.raises(AssertionError) as caught:
        start(directory, identity, control).kill()
    return str(caught.value).rpartition("starttls-gateway: ")[2].strip()


def test_a_second_gateway_does_not_take_the_socket_of_the_first(house: House, identity: Identity) -> None:
    said = refused(house.directory, identity, str(house.socket))
    who = f"process {house.gateway.process.pid}"
    assert said.startswith(f"[gateway] control: {house.socket}: {who} listens there; stop that gateway, or name")
    assert house.ask("status")["sessions"] == 0


def test_what_a_dead_gateway_left_behind_is_replaced(identity: Identity) -> None:
    with directory_for_servers() as directory:
        path = directory / "control"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        gateway = start(directory, identity, str(path))
        try:
            assert main(["status", "--socket", str(path)]) == 0
            gateway.terminate()
            gateway.end()
        finally:
            gateway.kill()
        assert not path.exists()
        assert main(["status", "--socket", str(path)]) == 3


def test_a_file_or_a_socket_of_somebody_else_is_left_alone(identity: Identity) -> None:
    with directory_for_servers() as directory:
        path = directory / "control"
        path.write_text("precious")
        assert "there is a file that is no socket; remove it" in refused(directory, identity, str(path))
        assert path.read_text() == "precious"
        if os.geteuid() == 0:
            path.unlink()
            with socket.socket(socket.AF_UNIX) as foreign:
                foreign.bind(str(path))
            os.chown(path, pwd.getpwnam("nobody").pw_uid, -1)
            assert "the socket there belongs to nobody; remove it" in refused(directory, identity, str(path))


@pytest.mark.usefixtures("root")
def test_a_gateway_of_another_user_removes_its_socket(identity: Identity, capsys: pytest.CaptureFixture[str]) -> None:
    with directory_for_servers() as directory:
        path = directory / "run" / "control"
        options = {"gateway": {"control": str(path)}}
        own = Identity.issue(directory)
        with running(directory, own, [Service("imap", "127.0.0.1:1")], options, user="nobody"):
            assert main(["status", "--socket", str(path)]) == 0
            assert ", as nobody\n" in capsys.readouterr().out
            assert path.stat().st_uid == pwd.getpwnam("nobody").pw_uid
        assert not path.exists()


# --- Nagios ----------------------------------------------------------------------------------------


def test_nagios_hears_one_line_and_an_exit_status(house: House) -> None:
    said = house.run("status", "--nagios")
    assert re.fullmatch(r"GATEWAY OK - 0 sessions, 2 services, certificates for \d+ days \| [^|\n]*\n", said)
    days = house.ask("status")["certificates"][0]["days"]
    assert house.run("status", "--nagios", "--warning", str(days + 1), status=1).startswith("GATEWAY WARNING - ")
    assert house.run("status", "--nagios", "--critical", str(days + 1), "--warning", str(days + 1), status=2)
    house.run("drain", "imap")
    assert "service imap is drained" in house.run("status", "--nagios", status=1)
    nobody = house.run("status", "--nagios", "--socket", str(house.directory / "nowhere"), status=2)
    assert nobody.startswith("GATEWAY CRITICAL - ")
    house.file.write_text(house.file.read_text().replace(str(house.socket), "off"))
    assert house.run("status", "--nagios", status=3).startswith("GATEWAY UNKNOWN - ")


def test_a_file_that_cannot_be_read_is_told_and_the_default_socket_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = str(tmp_path / "control")
    monkeypatch.setattr("gateway.cli.steer.command.Control", lambda: Control(usual))
    file = tmp_path / "gateway.ini"
    file.write_bytes(b"\xff")
    assert main(["status", "--config", str(file)]) == 3
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"starttls-gateway: {file}: octet 1 is not UTF-8; save the file as UTF-8; asking at {usual}"
    assert second.startswith(f"starttls-gateway: {usual}: No such file or directory; is the gateway running?")
