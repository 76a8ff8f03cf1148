"""What `check` finds on the machine: no packet leaves it, and no resolver is asked."""

from __future__ import annotations

import grp
import os
import pwd
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from trustme import CA

from gateway.app.tap import Options
from gateway.cli import __main__ as cli
from gateway.cli import machine
from gateway.cli.units import SocketUnit, passed, socket_units
from gateway.config import load, locate
from gateway.dialects import DIALECTS

NAMES = {
    "here.example": [("127.0.0.1", socket.AF_INET)],
    "elsewhere.example": [("192.0.2.77", socket.AF_INET)],
    "both.example": [("192.0.2.77", socket.AF_INET), ("127.0.0.1", socket.AF_INET)],
}
"""What the resolver knows."""


@pytest.fixture(autouse=True)
def resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
        if host in NAMES:
            return [(family, socket.SOCK_STREAM, 6, "", (address, port)) for address, family in NAMES[host]]
        if host == "later.example":
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if host.endswith((".example", ".invalid")):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(machine, "socket_units", list)
    monkeypatch.delenv("LISTEN_PID", raising=False)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can reach."""
    with TemporaryDirectory(prefix="gateway-tests-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        pem = directory / "both.pem"
        CA().issue_cert("gw.example.org").private_key_and_cert_chain_pem.write_to_path(str(pem))
        yield directory


def written(
    place: Path, starttls: str = "25", backend: str = "10.0.0.5:25", hostname: str = "gw.example.org", rest: str = ""
) -> Path:
    file = place / "gw.ini"
    file.write_text(
        f"[gateway]\nhostname = {hostname}\n[tls]\ncertificate = both.pem\n"
        f"[service:smtp]\nstarttls = {starttls}\nbackend = {backend}\n{rest}"
    )
    return file


def looked(file: Path, live: bool = False) -> list[tuple[int, str, bool]]:
    found = machine.look(load(file, DIALECTS), locate(file), live)
    return [(one.line, one.text, one.fatal) for one in found]


@pytest.mark.parametrize(
    "starttls", ["25", "127.0.0.1:25", "[::]:25", "0.0.0.0:25", "here.example:25", "both.example:25"]
)
def test_T22_addresses_of_this_machine(place: Path, starttls: str) -> None:
    assert looked(written(place, starttls)) == []


def test_T22_an_address_in_use_is_no_mistake(place: Path) -> None:
    """The gateway itself may be running."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        assert looked(written(place, f"127.0.0.1:{busy.getsockname()[1]}")) == []


@pytest.mark.parametrize(
    ("starttls", "what"),
    [
        ("192.0.2.77:2525", "192.0.2.77:2525: this machine does not have this address: "),
        ("[2001:db8::77]:2525", "[2001:db8::77]:2525: this machine does not have this address: "),
        (
            "elsewhere.example:2525",
            "elsewhere.example:2525: this machine does not have an address of elsewhere.example ",
        ),
        (
            "nosuch.example:2525",
            "nosuch.example:2525: the name nosuch.example does not resolve (Name or service not known)",
        ),
    ],
)
@pytest.mark.parametrize("option", ["starttls", "implicit"])
def test_T22_an_address_that_this_machine_does_not_have(place: Path, starttls: str, what: str, option: str) -> None:
    file = (
        written(place, f"25\n    {starttls}") if option == "starttls" else written(place, rest=f"implicit = {starttls}")
    )
    ((line, text, fatal),) = looked(file)
    assert (line, fatal) == (6 if option == "starttls" else 8, True)
    assert text.startswith(f"[service:smtp] {option}: {what}")
    assert "; " in text


@pytest.mark.parametrize(
    ("host", "cure", "fatal"),
    [
        ("nosuch.example", "(Name or service not known); correct it, or write an IP address", True),
        ("later.example", "(Temporary failure in name resolution); check the resolver of this machine", False),
    ],
)
def test_T22_the_name_of_a_backend_that_does_not_resolve(place: Path, host: str, cure: str, fatal: bool) -> None:
    file = written(place, backend=f"{host}:25")
    text = f"[service:smtp] backend: {host}:25: the name does not resolve {cure}"
    assert looked(file) == [(7, text, fatal)]
    # Then they are asked for anyway, and it is told with all the rest.
    assert looked(file, live=True) == []
    file = written(place, backend="store", rest=f"[backend:store]\naddress = here.example:2526\n    {host}:25\n")
    assert looked(file) == [(9, text.replace("[service:smtp] backend", "[backend:store] address"), fatal)]


def test_T22_backends_without_names_ask_nobody(place: Path) -> None:
    assert looked(written(place, backend="unix:/run/smtp")) == []
    assert looked(written(place, backend="10.0.0.5:25")) == []


@pytest.mark.parametrize("hostname", ["localhost", "LOCALHOST.localdomain"])
def test_T22_a_gateway_that_calls_itself_localhost(place: Path, hostname: str) -> None:
    text = f"[gateway] hostname: the gateway's host name is {hostname}; write the name that clients connect to"
    assert looked(written(place, hostname=hostname)) == [(2, text, False)]


def test_a_control_socket_that_cannot_be_made(place: Path) -> None:
    more = f"control = {place}/none/run/control\ncontrol_group = no-such-group"
    directory = f"{place}/none is no directory; create it, or write another path"
    group = "there is no group no-such-group; `getent group` lists those that there are"
    assert looked(written(place, hostname=f"gw.example.org\n{more}")) == [
        (3, f"[gateway] control: {place}/none/run/control: {directory}", True),
        (4, f"[gateway] control_group: {group}", True),
    ]
    more = f"control = {place}/run/control\ncontrol_group = {grp.getgrgid(0).gr_name}"
    assert looked(written(place, hostname=f"gw.example.org\n{more}")) == []


def test_T22_a_machine_that_is_called_localhost(place: Path) -> None:
    file = written(place)
    file.write_text(file.read_text().replace("hostname = gw.example.org\n", "log = text\n"))
    (found,) = machine.look(replace(load(file, DIALECTS), hostname="localhost"), locate(file))
    assert (found.line, found.fatal) == (1, False)
    assert found.text == (
        "[gateway] hostname: the gateway's host name is localhost, the name of this machine; "
        "write the name that clients connect to"
    )


def test_T22_a_socket_in_a_directory_that_is_not_there(place: Path) -> None:
    assert looked(written(place, f"unix:{place}/smtp")) == []
    ((line, text, fatal),) = looked(written(place, f"unix:{place}/none/smtp"))
    assert (line, fatal) == (6, False)
    assert text.startswith(f"[service:smtp] starttls: unix:{place}/none/smtp: {place}/none is not a directory; ")


# --- sockets of systemd --------------------------------------------------------------------------------


def units(monkeypatch: pytest.MonkeyPatch, *found: SocketUnit) -> None:
    monkeypatch.setattr(machine, "socket_units", lambda: list(found))


SMTP = SocketUnit("gw-smtp.socket", "smtp", ours=True)


def test_T22_a_socket_of_systemd_that_is_there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    units(monkeypatch, SMTP, SocketUnit("other.socket", "other.socket", ours=False))
    assert looked(written(place, "systemd:smtp")) == []


def test_T22_a_socket_of_systemd_that_is_not_there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "[service:smtp] starttls: systemd:smtp: no .socket unit has this name; "
        "set FileDescriptorName=smtp in the .socket unit of the gateway"
    )
    assert looked(written(place, "systemd:smtp")) == [(6, text, False)]
    monkeypatch.setattr(machine, "socket_units", lambda: None)
    text = "[service:smtp] starttls: systemd:smtp: there is no systemd on this machine; write an address with its port"
    assert looked(written(place, "systemd:smtp")) == [(6, text, False)]
    assert looked(written(place, "25")) == []


def test_T22_a_socket_of_systemd_that_no_service_uses(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    units(monkeypatch, SMTP)
    text = (
        "systemd passes a socket smtp, and no service uses it; "
        "write systemd:smtp in the starttls or implicit of a service, or disable gw-smtp.socket"
    )
    assert looked(written(place)) == [(0, text, False)]


def test_T22_sockets_that_were_passed_count_for_more_than_units(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    units(monkeypatch, SMTP)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDNAMES", "spare:spare")
    assert passed() == ["spare", "spare"]
    missing, spare = sorted(text for _, text, _ in looked(written(place, "systemd:smtp")))
    assert missing.startswith("[service:smtp] starttls: systemd:smtp: systemd passes no socket of this name; ")
    assert spare.startswith("systemd passes a socket spare, and no service uses it; ")
    monkeypatch.setenv("LISTEN_PID", "1")
    assert passed() is None


def unit(directory: Path, name: str, text: str) -> None:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_T22_units_are_read_as_systemd_reads_them(tmp_path: Path) -> None:
    etc, lib = tmp_path / "etc", tmp_path / "lib"
    unit(lib, "gw.service", "[Service]\nExecStart=twistd -n \\\n  starttls-gateway\n")
    unit(lib, "gw.socket", "[Socket]\nListenStream=25\nFileDescriptorName = smtp\n")
    unit(lib, "imap.socket", "[Socket]\nListenStream=143\nService=gw.service\n")
    unit(lib, "ssh.service", "[Service]\nExecStart=/usr/sbin/sshd\n")
    unit(lib, "ssh.socket", "[Socket]\n# FileDescriptorName=smtp\nListenStream=22\n")
    unit(lib, "pop3.socket", "[Socket]\nFileDescriptorName=pop3\nService=gw.service\n")
    unit(etc, "pop3.socket", "[Socket]\nFileDescriptorName=mine\n")
    unit(etc, "pop3.socket.d/b.conf", "[Socket]\nService=gw.service\n")
    unit(etc, "pop3.socket.d/a.conf", "[Socket]\nService=ssh.service\nFileDescriptorName=\n")
    unit(lib, "pop3.socket.d/b.conf", "[Socket]\nService=ssh.service\n")
    (etc / "masked.socket").symlink_to("/dev/null")
    assert socket_units([str(etc), str(lib), str(tmp_path / "none")]) == [
        SocketUnit("gw.socket", "smtp", ours=True),
        SocketUnit("imap.socket", "imap.socket", ours=True),
        SocketUnit("masked.socket", "masked.socket", ours=False),
        SocketUnit("pop3.socket", "pop3.socket", ours=True),
        SocketUnit("ssh.socket", "ssh.socket", ours=False),
    ]
    assert socket_units([str(tmp_path / "none")]) is None


# --- another user ------------------------------------------------------------------------------------

NOBODY = pwd.getpwnam("nobody")


def unreadable(file: Path, uid: int, gid: int | None = None) -> list[str]:
    return [one.text for one in machine.as_user(uid, gid, load(file, DIALECTS))]


@pytest.mark.usefixtures("root")
def test_T22_a_key_that_the_user_cannot_read(place: Path) -> None:
    file, pem = written(place), place / "both.pem"
    pem.chmod(0o600)
    (told,) = unreadable(file, NOBODY.pw_uid)
    assert told.startswith(f"{pem}: nobody may not read it. ")
    assert "chgrp" in told
    # As the cure says.
    os.chown(pem, 0, NOBODY.pw_gid)
    pem.chmod(0o640)
    assert unreadable(file, NOBODY.pw_uid) == []
    place.chmod(0o700)
    (told,) = unreadable(file, NOBODY.pw_uid)
    assert f"The directory {place} is in the way" in told
    assert os.geteuid() == 0


@pytest.mark.usefixtures("root")
def test_T22_a_group_makes_a_difference(place: Path) -> None:
    file, pem = written(place), place / "both.pem"
    os.chown(pem, 0, 4242)
    pem.chmod(0o640)
    assert len(unreadable(file, NOBODY.pw_uid)) == 1
    assert unreadable(file, NOBODY.pw_uid, 4242) == []


def test_T22_the_user_himself(place: Path) -> None:
    assert unreadable(written(place), os.geteuid()) == []


def test_T22_who_is_not_root_cannot_tell_for_others(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(place)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert unreadable(file, NOBODY.pw_uid) == ["only root can check which keys nobody can read; run this as root"]


@pytest.mark.usefixtures("root")
def test_T22_a_user_that_the_system_knows_no_more(place: Path) -> None:
    assert unreadable(written(place), 77777) == [
        "cannot check what 77777 can read: this process cannot become that user"
    ]


# --- the command -------------------------------------------------------------------------------------


def test_T22_check_tells_it_with_the_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(place, "192.0.2.77:2525", "nosuch.example:25", hostname="localhost")
    assert cli.main(["check", str(file)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in said] == [
        f"{file}, line 6",
        f"{file}, line 7",
        f"warning      {file}, line 2",
    ]


def test_T22_a_warning_is_no_failure(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(place, hostname="localhost")
    assert cli.main(["check", str(file)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{file}: good; the gateway's host name is localhost"
    assert said[-1].startswith(f"warning      {file}, line 2: [gateway] hostname: ")


def test_T22_check_has_the_daemons_default_file(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def check(file: str, *_: object) -> int:
        asked.append(file)
        return 0

    monkeypatch.setattr("gateway.cli.check.check", check)
    assert cli.main(["check"]) == 0
    assert asked == ["/etc/starttls-gateway/gateway.ini"]
    options: Any = Options.optParameters
    assert ["config", "c", *asked] == options[0][:3]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--uid=nosuch"], "--uid nosuch: there is no such user; `getent passwd` lists those that there are"),
        (["--uid=77777"], "--uid 77777: there is no such user; `getent passwd` lists those that there are"),
        (
            ["--uid=root", "--gid=nosuch"],
            "--gid nosuch: there is no such group; `getent group` lists those that there are",
        ),
        (["--gid=root"], "--gid needs --uid"),
        (["--json"], "--json needs --live"),
        (["--domain=example.org"], "--domain needs --live"),
    ],
)
def test_T21_check_for_a_user_that_does_not_exist(
    capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["check", *arguments])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"starttls-gateway check: error: {line}"


def test_units_made_from_a_template_are_those_that_are_enabled(tmp_path: Path) -> None:
    etc, lib = tmp_path / "etc", tmp_path / "lib"
    unit(lib, "gw.service", "[Service]\nExecStart=starttls-gateway run\n")
    unit(lib, "gw@.socket", "[Socket]\nListenStream=%i\nFileDescriptorName=%i\nService=gw.service\n")
    unit(etc, "gw@25.socket.d/own.conf", "[Socket]\nFileDescriptorName=smtp\n")
    unit(lib, "gw@.socket.d/all.conf", "[Socket]\nFileDescriptorName=port-%i\n")
    wants = etc / "sockets.target.wants"
    wants.mkdir()
    for port in 25, 465:
        (wants / f"gw@{port}.socket").symlink_to(lib / "gw@.socket")
    assert socket_units([str(etc), str(lib)]) == [
        SocketUnit("gw@25.socket", "smtp", ours=True),
        SocketUnit("gw@465.socket", "port-465", ours=True),
    ]
