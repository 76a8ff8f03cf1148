"""The file is read again: all of it is used, or nothing, and what did not change is not touched."""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.app.desk import Desk
from gateway.app.plan import Reload
from gateway.app.service import Gateway
from gateway.app.source import Source
from gateway.config.values import Control
from gateway.dialects.openrelay import Verdict
from gateway.telemetry.events import FORMATS, Events
from gateway.wire import listener
from tests.memory.stepping import SteppedReactor
from tests.memory.tls_peer import Authority
from tests.ports import free_port

IMAP = b"* OK [CAPABILITY IMAP4rev1"
POP3 = b"+OK "


class House:
    """A gateway with a file, and clients of it."""

    def __init__(self, reactor: SteppedReactor, authority: Authority, directory: Path) -> None:
        self.reactor = reactor
        self.file = directory / "gw.ini"
        self.certificate = directory / "own.pem"
        self.certificate.write_bytes(authority.both.read_bytes())
        self.told: list[str] = []
        self.clients: list[socket.socket] = []
        self._gateway: Gateway | None = None

    @property
    def gateway(self) -> Gateway:
        assert self._gateway is not None
        return self._gateway

    def write(self, services: str, backend: str = "address = 127.0.0.1:1", more: str = "") -> None:
        self.file.write_text(
            "[gateway]\nhostname = gw.example.org\nlog = json\ncontrol = off\n"
            f"[tls]\ncertificate = {self.certificate}\n"
            f"[backend:old]\n{backend}\nconnect = lazy\n{more}\n{services}"
        )

    def start(self, services: str, backend: str = "address = 127.0.0.1:1", more: str = "") -> None:
        """As `write` has them."""
        self.write(services, backend, more)
        source = Source(str(self.file))
        events = Events(self.told.append, FORMATS["json"])
        self._gateway = Gateway(source.first(), events, self.reactor, source)
        self.gateway.startService()

    def reload(self) -> Reload:
        self.told.clear()
        outcome = self.gateway.reload()
        self.reactor.settle()
        return outcome

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in map(json.loads, self.told) if event["event"] == name]

    def ports(self, service: str) -> list[int]:
        """Where it listens, as the events since the last reload tell."""
        found = [event["address"] for event in self.events("listening") if event["service"] == service]
        return [int(address.rpartition(":")[2]) for address in found]

    def call(self, place: int | str, host: str = "127.0.0.1") -> socket.socket:
        sock = socket.socket(socket.AF_UNIX if isinstance(place, str) else socket.AF_INET)
        self.clients.append(sock)
        sock.settimeout(5)
        sock.connect(place if isinstance(place, str) else (host, place))
        return sock

    def hear(self, sock: socket.socket) -> bytes:
        self.reactor.settle()
        return sock.recv(65536)

    def leave(self) -> None:
        for client in self.clients:
            client.close()
        if self._gateway is not None and self.gateway.running:
            self.gateway.hurry()
            self.gateway.stopService()
        self.reactor.settle()


@pytest.fixture
def house(reactor: SteppedReactor, authority: Authority, directory: Path) -> Iterator[House]:
    house = House(reactor, authority, directory)
    yield house
    house.leave()


def service(name: str, address: str = "127.0.0.1:0", protocol: str = "imap", mode: str = "starttls") -> str:
    return f"[service:{name}]\nprotocol = {protocol}\n{mode} = {address}\nbackend = old\n"


# --- what is used ----------------------------------------------------------------------------------


def test_a_file_that_says_the_same_changes_nothing(house: House) -> None:
    house.start(service("imap"))
    (port,) = house.ports("imap")
    inside = house.call(port)
    assert house.hear(inside).startswith(IMAP)
    outcome = house.reload()
    assert (outcome.good, outcome.changes, outcome.opened, outcome.closed) == (True, (), (), ())
    assert [event["result"] for event in house.events("reload")] == ["ok"]
    assert house.hear(house.call(port)).startswith(IMAP)
    inside.sendall(b"a NOOP\r\n")
    assert house.hear(inside).startswith(b"a ")


def test_new_addresses_are_bound_and_those_that_are_gone_are_closed(house: House) -> None:
    house.start(service("imap"))
    (old,) = house.ports("imap")
    new = free_port()
    house.write(service("pop3", f"127.0.0.1:{new}", "pop3"))
    outcome = house.reload()
    assert outcome.changes == ("[service:imap] removed", "[service:pop3] added")
    assert (outcome.opened, outcome.closed) == ((f"127.0.0.1:{new}",), (f"127.0.0.1:{old}",))
    assert house.hear(house.call(new)).startswith(POP3)
    with pytest.raises(ConnectionRefusedError):
        house.call(old)


def test_an_address_that_another_service_gets_keeps_its_socket(house: House) -> None:
    place = f"127.0.0.1:{free_port()}"
    house.start(service("imap", place))
    port = int(place.rpartition(":")[2])
    before = house.call(port)
    house.write(service("pop3", place, "pop3"))
    outcome = house.reload()
    assert (outcome.opened, outcome.closed) == ((), ())
    # Nobody had taken this one out of the queue yet, so it is the new service's.
    assert house.hear(before).startswith(POP3)


def test_who_waits_at_an_address_that_goes_away_is_served(house: House) -> None:
    house.start(service("imap") + service("pop3", protocol="pop3"))
    (port,) = house.ports("imap")
    waiting = [house.call(port) for _ in range(listener.ACCEPTS + 8)]
    house.write(service("pop3", protocol="pop3"))
    assert house.reload().closed == (f"127.0.0.1:{port}",)
    assert all(house.hear(client).startswith(IMAP) for client in waiting)


@pytest.mark.parametrize("first", ["", "0.0.0.0:"])
def test_an_address_may_become_part_of_another_one_and_back(house: House, first: str) -> None:
    port = free_port()
    house.start(service("imap", f"{first}{port}"))
    house.write(service("imap", f"127.0.0.1:{port}"))
    for _ in range(2):
        assert house.reload().problems == ()
        assert house.hear(house.call(port)).startswith(IMAP)
        house.write(service("imap", f"{first}{port}"))


def test_sessions_go_on_under_what_they_began_with(house: House) -> None:
    limits = "[limits]\nbad_commands = 2\n"
    house.start(service("imap"))
    (port,) = house.ports("imap")
    before = house.call(port)
    house.hear(before)
    house.write(service("imap"), more=limits)
    assert house.reload().changes == ("[limits] changed",)
    after = house.call(port)
    house.hear(after)
    for client in (before, after):
        for number in range(3):
            client.sendall(b"%d NONSENSE\r\n" % number)
            heard = house.hear(client)
            if not heard or b"BYE" in heard:
                break
    assert b"BYE" in heard, "the later session has the new limit"
    before.sendall(b"b NOOP\r\n")
    assert house.hear(before).startswith(b"b "), "the earlier one has the old limit"


def test_limits_count_on(house: House) -> None:
    house.start(service("imap"), more="[limits]\nsessions_per_client = 2\n")
    (port,) = house.ports("imap")
    house.hear(house.call(port))
    house.write(service("imap"), more="[limits]\nsessions_per_client = 1\n")
    house.reload()
    assert b"BYE" in house.hear(house.call(port))
    assert [event["limit"] for event in house.events("refused")] == ["sessions-per-client"]


def test_the_form_of_the_log_follows_also_for_sessions(house: House) -> None:
    house.start(service("imap"))
    (port,) = house.ports("imap")
    client = house.call(port)
    house.hear(client)
    house.file.write_text(house.file.read_text().replace("log = json", "log = text"))
    assert house.gateway.reload().changes == ("[gateway] changed",)
    house.told.clear()
    client.close()
    house.reactor.settle()
    (line,) = house.told
    assert " event=session " in line


def test_the_health_of_a_backend_survives_also_a_change_of_it(house: House) -> None:
    house.start(service("imap"), "address = 127.0.0.1:1 127.0.0.1:2")
    assembly = house.gateway.assembly
    (backend,) = assembly.backends.values()
    backend.dialer.health.failed("127.0.0.1:1")
    house.reload()
    (same,) = house.gateway.assembly.backends.values()
    assert same is backend
    house.write(service("imap"), "address = 127.0.0.1:1 127.0.0.1:3")
    assert house.reload().changes == ("[backend:old] changed",)
    (changed,) = house.gateway.assembly.backends.values()
    assert changed is not backend
    assert changed.dialer.health.is_down("127.0.0.1:1")


def test_what_the_relay_watch_knows_of_an_address_holds_on(house: House) -> None:
    mail = service("smtp", protocol="smtp")
    house.start(mail, "address = 127.0.0.1:1")
    (backend,) = house.gateway.assembly.backends.values()
    assert backend.watch is not None
    assert backend.refusal() == "relay-unknown"
    backend.watch._addresses[backend.values.addresses[0]].verdict = Verdict.CLOSED
    house.write(mail, "address = 127.0.0.1:1 127.0.0.1:2")
    house.reload()
    (changed,) = house.gateway.assembly.backends.values()
    assert changed.watch is not None
    assert changed.watch is not backend.watch
    assert changed.refusal() == ""
    assert [changed.watch.permits(address) for address in changed.values.addresses] == [True, False]


# --- TLS -------------------------------------------------------------------------------------------


def handshake(house: House, port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    sock = house.call(port)
    sock.setblocking(False)
    secured = context.wrap_socket(
        sock, server_hostname="mail.example.test", do_handshake_on_connect=False, session=session
    )
    for _ in range(100):
        try:
            secured.do_handshake()
            secured.setblocking(True)
            return secured
        except ssl.SSLWantReadError:
            house.reactor.settle()
    raise AssertionError("no handshake")


def test_tickets_stay_good_where_the_certificate_stays(house: House, authority: Authority) -> None:
    house.start(service("imap", mode="implicit"))
    (port,) = house.ports("imap")
    context = authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    first = handshake(house, port, context)
    house.write(service("imap", mode="implicit"), more="[limits]\nbad_commands = 3\n")
    assert house.reload().good
    again = handshake(house, port, context, first.session)
    assert again.session_reused
    first.close()
    again.close()


def test_another_certificate_in_the_file_is_served(house: House, authority: Authority, directory: Path) -> None:
    house.start(service("imap", mode="implicit"))
    (port,) = house.ports("imap")
    other = directory / "other.pem"
    issued = authority.ca.issue_cert("mail.example.test")
    issued.private_key_and_cert_chain_pem.write_to_path(str(other))
    context = authority.client()
    first = handshake(house, port, context)
    house.file.write_text(house.file.read_text().replace("own.pem", "other.pem"))
    assert house.reload().changes == ("[tls] changed",)
    assert house.gateway.renewal.files == {other}
    second = handshake(house, port, context)
    assert first.getpeercert(True) != second.getpeercert(True)
    first.close()
    second.close()


def test_a_certificate_that_has_become_bad_is_a_warning(house: House) -> None:
    house.start(service("imap"))
    house.certificate.write_text("nothing of the kind\n")
    outcome = house.reload()
    assert outcome.good
    assert [warning.partition(": ")[2][:14] for warning in outcome.warnings] == ["no certificate"]
    assert [event["state"] for event in house.events("certificate")] == ["refused"]


# --- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [
    "[limits]\nsessions = none\n",
    "[nonsense]\n",
    service("pop3", "127.0.0.1:{busy}", "pop3"),
    service("pop3", protocol="pop3") + "certificate = missing.pem\n",
    service("pop3", protocol="pop3") + "certificate = gw.ini\n",
    service("pop3", "systemd:nobody", "pop3"),
    service("pop3", "unix:/nonexistent/s", "pop3"),
])  # fmt: skip
def test_of_a_bad_file_nothing_is_used(house: House, bad: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        house.start(service("imap"))
        (port,) = house.ports("imap")
        good = house.gateway.assembly
        # What stands before the mistake would be good.
        fresh = free_port()
        text = bad.replace("{busy}", str(busy.getsockname()[1]))
        house.write(service("imap", f"127.0.0.1:{fresh}") + text)
        outcome = house.reload()
        assert not outcome.good
        assert all(problem.startswith(str(house.file)) for problem in outcome.problems)
        (told,) = house.events("reload")
        assert (told["result"], told["problems"]) == ("refused", len(outcome.problems))
        assert house.gateway.assembly is good
        assert house.gateway.reloader.last is outcome
        assert house.events("listening") == house.events("certificate") == []
        assert house.hear(house.call(port)).startswith(IMAP)
        with pytest.raises(ConnectionRefusedError):
            house.call(fresh)
        house.write(service("imap"))
        assert house.reload().good


def test_a_file_that_is_gone_is_told(house: House) -> None:
    house.start(service("imap"))
    house.file.unlink()
    assert house.reload().problems == (
        f"{house.file}: No such file or directory; write the path of the configuration file",
    )


def test_after_a_chroot_the_file_may_be_out_of_reach(house: House) -> None:
    house.start(service("imap"))
    house.gateway.reloader.source = Source("/nonexistent/gw.ini", chroot="/var/empty")
    (problem,) = house.reload().problems
    assert problem.startswith("/nonexistent/gw.ini: not to be found below the directory of --chroot, /var/empty; ")


def test_without_a_file_there_is_nothing_to_read(house: House) -> None:
    house.start(service("imap"))
    house.gateway.reloader.source = None
    assert house.reload().problems == ("there is no configuration file to be read",)


def test_a_gateway_that_stops_reads_nothing(house: House) -> None:
    house.start(service("imap"))
    house.gateway.stopService()
    assert house.reload().problems == ("the gateway is about to stop",)


# --- UNIX sockets, and those of systemd ------------------------------------------------------------


def test_a_unix_socket_stays_while_it_is_wanted_and_its_file_goes_with_it(house: House, directory: Path) -> None:
    path = str(directory / "imap")
    house.start(service("imap", f"unix:{path}"))
    number = os.stat(path).st_ino
    house.reload()
    assert os.stat(path).st_ino == number
    assert house.hear(house.call(path)).startswith(IMAP)
    house.write(service("imap"))
    assert house.reload().closed == (f"unix:{path}",)
    assert not os.path.lexists(path)


def test_a_unix_socket_whose_file_was_removed_is_made_anew(house: House, directory: Path) -> None:
    path = str(directory / "imap")
    house.start(service("imap", f"unix:{path}"))
    os.unlink(path)
    assert house.reload().opened == (f"unix:{path}",)
    assert house.hear(house.call(path)).startswith(IMAP)
    os.unlink(path)
    Path(path).touch()
    (problem,) = house.reload().problems
    assert "the file is not a socket" in problem


def test_a_socket_of_systemd_is_given_back_and_taken_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as passed:
        port = passed.getsockname()[1]
        monkeypatch.setattr(listener, "INHERITED", [("imap", passed.fileno())])
        house.start(service("imap", "systemd:imap"))
        assert house.hear(house.call(port)).startswith(IMAP)
        house.reload()
        assert house.events("unused-socket") == []
        house.write(service("imap"))
        assert house.reload().closed == (f"127.0.0.1:{port}",)
        (unused,) = house.events("unused-socket")
        assert unused["name"] == "imap"
        waiting = house.call(port)  # in the queue, which is systemd's
        house.write(service("imap", "systemd:imap"))
        house.reload()
        assert house.hear(waiting).startswith(IMAP)


# --- the control socket ----------------------------------------------------------------------------


def test_without_its_default_control_socket_a_gateway_serves_and_says_so(house: House) -> None:
    house.start(service("imap"))
    desk = Desk(house.gateway._events)
    desk.open(Control("/nonexistent/directory/control"))
    desk.close()
    (told,) = house.events("control-unavailable")
    assert told["detail"].startswith("/nonexistent/directory/control: No such file or directory; create the directory")
