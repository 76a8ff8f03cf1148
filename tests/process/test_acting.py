"""An administrator acts on clients: bans that hold in every process, with the commands that administrators use."""

from __future__ import annotations

import json
import os
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.__main__ import main
from tests.process.conftest import directory_for_servers
from tests.process.legacy import IMAP, imap, playing
from tests.process.recording import Backend
from tests.process.running import DEADLINE, Gateway, Identity, Service, running
from tests.process.test_upgrade import line
from tests.process.test_workers import REJECTING, greeted, several, sources, through
from tests.process.wire import Caller
from tests.process.words import WORDS

WORDS_ = WORDS["imap"]
BALANCED = {"accept_proxy": "127.0.0.1"}
FIRST, SECOND = sources(0, 8), sources(1, 8)
"""Clients of either worker."""


@dataclass
class Office:
    """Where the administrator sits."""

    socket: Path
    capsys: pytest.CaptureFixture[str]

    def run(self, *arguments: str, status: int = 0) -> str:
        self.capsys.readouterr()
        assert main([*arguments, "--socket", str(self.socket)]) == status, self.capsys.readouterr()
        said = self.capsys.readouterr()
        return said.out + said.err

    def ask(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json"))["result"]


@contextmanager
def office(capsys: pytest.CaptureFixture[str]) -> Iterator[Office]:
    with directory_for_servers() as directory:
        yield Office(directory / "control", capsys)


def is_served(source: str, gateway: Gateway) -> bool:
    with Caller(source, gateway.address("imap")) as client:
        first = client.line()
    assert first.startswith((b"* OK", b"* BYE")), first
    return first.startswith(b"* OK")


# --- bans ------------------------------------------------------------------------------------------


def test_a_ban_holds_in_all_workers_under_load_and_in_those_that_come_later(
    tmp_path: Path, identity: Identity, backend: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    with office(capsys) as admin, ExitStack() as stack:
        gateway = stack.enter_context(
            several(tmp_path, identity, backend, gateway={"control": str(admin.socket)}, options=BALANCED)
        )
        busy, trouble = threading.Event(), list[BaseException]()

        def come_and_go(source: str) -> None:
            try:
                while not busy.is_set():
                    assert is_served(source, gateway)
            except BaseException as wrong:
                trouble.append(wrong)

        threads = [threading.Thread(target=come_and_go, args=(one,)) for one in (FIRST[7], SECOND[7])]
        for thread in threads:
            thread.start()
        stack.callback(busy.set)
        inside = [stack.enter_context(Caller(one, gateway.address("imap"))) for one in (FIRST[0], SECOND[0])]
        for client in inside:
            client.hear(WORDS_.greeting_)
        said = admin.run("ban", FIRST[0], "--for", "10m")
        assert said.splitlines()[1] == f"1 session still open; `kick {FIRST[0]}` ends them"
        assert admin.run("ban", SECOND[0], "--kick").splitlines()[1] == "1 session cut off"
        assert inside[1].rest() == b""
        assert [is_served(one, gateway) for one in (FIRST[0], SECOND[0], FIRST[1], SECOND[1])] == [
            False, False, True, True
        ]  # fmt: skip
        # Who is inside stays there, can be seen and can be kicked.
        assert [row["client"] for row in admin.ask("who", FIRST[0])["sessions"]] == [FIRST[0]]
        assert admin.ask("kick", FIRST[0]) == {"sessions": 1}
        # Behind a load balancer a client has the address that the header says.
        admin.run("ban", "203.0.113.0/24")
        with through(gateway, "203.0.113.9") as banned, through(gateway, "203.0.114.9") as other:
            assert banned.line().startswith(b"* BYE")
            assert other.line().startswith(b"* OK")
        networks = {FIRST[0], SECOND[0], "203.0.113.0/24"}
        assert {one["network"] for one in admin.ask("bans")["bans"]} == networks
        busy.set()
        for thread in threads:
            thread.join()
        assert trouble == []
        # A worker that comes later knows.
        told = gateway.log.events("worker")[0]
        since = gateway.log.mark()
        os.kill(int(told["pid"]), signal.SIGKILL)
        gateway.log.wait("worker", since, state="serving")
        assert not is_served(FIRST[0] if told["worker"] == "0" else SECOND[0], gateway)
        assert admin.run("unban", "0.0.0.0/0").count("banned no more") == 3
        assert [is_served(one, gateway) for one in (FIRST[0], SECOND[0])] == [True, True]
        assert {one["state"] for one in gateway.log.events("ban")} == {"began", "lifted"}
        assert {one["client"] for one in gateway.log.events("refused")} >= {FIRST[0], SECOND[0], "203.0.113.9"}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_ban_lives_over_reload_and_upgrade(
    tmp_path: Path, identity: Identity, backend: Backend, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    with office(capsys) as admin, line(tmp_path, identity, backend, workers, control=str(admin.socket)) as gateways:
        admin.run("ban", FIRST[0])
        admin.run("reload")
        assert not is_served(FIRST[0], gateways.gateway)
        gateways.upgrade()
        assert not is_served(FIRST[0], gateways.gateway)
        assert is_served(FIRST[1], gateways.gateway)
        assert [one["network"] for one in admin.ask("bans")["bans"]] == [FIRST[0]]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_ban_lives_over_a_restart(
    tmp_path: Path, identity: Identity, backend: Backend, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    kept = tmp_path / "bans.json"
    sections = {"gateway": {"workers": str(workers)}, "report": {"file": str(tmp_path / "report.db")}}
    with office(capsys) as admin:
        sections["gateway"]["control"] = str(admin.socket)

        def start() -> AbstractContextManager[Gateway]:
            return running(tmp_path, identity, [Service("imap", backend.address)], options=sections)

        with start() as gateway:
            for whom in (FIRST[0], FIRST[1]):
                admin.run("ban", whom)
            admin.run("unban", FIRST[1])
        assert kept.stat().st_mode & 0o007 == 0
        with start() as gateway:
            assert [is_served(one, gateway) for one in FIRST[:2]] == [False, True]
            assert [one["network"] for one in admin.ask("bans")["bans"]] == [FIRST[0]]
        # A ban whose time is over, and a file that is none.
        kept.write_text(json.dumps([[FIRST[0], time.time() - 1]]))
        with start() as gateway:
            assert is_served(FIRST[0], gateway)
            assert admin.ask("bans") == {"bans": []}
        kept.write_text("{")
        with start() as gateway:
            assert is_served(FIRST[0], gateway)
            assert gateway.log.wait("ban", state="unkept")["detail"].startswith(f"{kept}: Expecting")
            kept.unlink()
            kept.mkdir()
            admin.run("ban", FIRST[0])
            assert not is_served(FIRST[0], gateway)
            assert gateway.log.wait("ban", count=2, state="unkept")["detail"] == f"{kept}: Is a directory"
        assert [path.name for path in tmp_path.glob("bans.json.*")] == []


def test_a_ban_ends_by_itself_and_costs_next_to_nothing(
    tmp_path: Path, identity: Identity, backend: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    with office(capsys) as admin, line(tmp_path, identity, backend, control=str(admin.socket)) as gateways:
        gateway = gateways.gateway
        admin.run("ban", FIRST[0])
        assert not is_served(FIRST[0], gateway)
        before = gateway.cpu
        for _ in range(500):
            assert not is_served(FIRST[0], gateway)
        # Each of these is told, too, which in a flood is not so.
        assert (gateway.cpu - before) / 500 < 0.001
        admin.run("ban", FIRST[0], "--for", "1s")
        until = time.monotonic() + DEADLINE
        while not is_served(FIRST[0], gateway):
            assert time.monotonic() < until
        assert admin.ask("bans") == {"bans": []}
        gateway.log.wait("ban", state="over")


# --- why -------------------------------------------------------------------------------------------


def test_why_tells_what_went_wrong_with_clients_of_either_worker(
    tmp_path: Path, identity: Identity, trusting: ssl.SSLContext, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = Backend(imap(REJECTING))
    with office(capsys) as admin, several(
        tmp_path, identity, backend, gateway={"control": str(admin.socket)}
    ) as gateway:  # fmt: skip
        for source in (FIRST[0], SECOND[0]):
            with greeted(source, gateway) as clear:
                for _ in range(2):
                    clear.say(WORDS_.login)
                    clear.hear(rb"^l NO \[PRIVACYREQUIRED\][^\n]*\n")
            with greeted(source, gateway) as strict:
                strict.say(WORDS_.starttls)
                strict.hear(WORDS_.go_ahead)
                with pytest.raises(ssl.SSLCertVerificationError):
                    strict.shake_hands(ssl.create_default_context())
            with greeted(source, gateway) as guesser:
                guesser.say(WORDS_.starttls)
                guesser.hear(WORDS_.go_ahead)
                guesser.shake_hands(trusting)
                guesser.say(WORDS_.login)
                guesser.hear(rb"^l NO [^\n]*\n")
            with greeted(source, gateway) as attacker:
                attacker.say(WORDS_.starttls + b"\x1b[31mred\x07\xff\xe2\x80\xae\r\n")
                attacker.rest()
        gateway.log.wait("starttls-injection", count=2)
        gateway.log.wait("auth", count=2)
        gateway.log.wait("tls-failed", count=2)
        admin.run("ban", SECOND[0])
        assert not is_served(SECOND[0], gateway)
        for source in (FIRST[0], SECOND[0]):
            said = admin.run("why", source)
            assert "(tls-required)" in said
            assert "TLS handshake: the client does not know the issuer of the certificate" in said
            assert "send the whole chain" in said
            assert "the backend rejected the login (LOGIN, inside TLSv1.3)" in said
            # Twice the same is one kind, and told once in a session.
            assert not any("2 times" in line for line in said.splitlines())
            assert "starttls-injection" in said
            assert all(sign.isprintable() or sign == "\n" for sign in said), ascii(said)
        assert f"{SECOND[0]} is banned until" in said
        assert f"`unban {SECOND[0]}` lets it in again" in said
        told = admin.ask("why", "127.0.0.0/8")
        assert {one["client"] for one in told["failures"]} == {FIRST[0], SECOND[0]}
        assert admin.run("why", FIRST[1]).startswith(
            f"{FIRST[1]}: nothing went wrong that is known; failures of 2 clients"
        )
    backend.close()


def test_what_others_have_made_up_is_harmless_in_a_terminal(
    tmp_path: Path, identity: Identity, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = Backend(playing(lambda: IMAP(b"* BYE \x1b]0;title\x07 go away \xc2\x9b2J\r\n", {})))
    with office(capsys) as admin, line(tmp_path, identity, backend, control=str(admin.socket)) as gateways:
        with Caller(FIRST[0], gateways.gateway.address("imap")) as client:
            client.rest()
        gateways.gateway.log.wait("backend-refused")
        for arguments, status in ((("why", FIRST[0]), 0), (("ban", "\x1b[2J"), 1), (("kick", "\x1b[2J"), 1),
                                  (("who", "\x1b[2J"), 0), (("unban", "\x9b"), 1)):  # fmt: skip
            said = admin.run(*arguments, status=status)
            assert said
            assert all(sign.isprintable() or sign == "\n" for sign in said), ascii(said)
        assert "go away" in admin.run("why", FIRST[0])
    backend.close()


# --- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "why"), [
    (["ban", "printer"], '"printer" is not a network; write one like'),
    (["ban", "192.0.2.7/24"], '"192.0.2.7/24" has host bits set; write 192.0.2.0/24, or 192.0.2.7 for'),
    (["ban", "0.0.0.0/0"], "0.0.0.0/0 is too much to ban; /8 at most"),
    (["ban", "127.0.0.1"], "127.0.0.1 is a load balancer ([service:imap] accept_proxy)"),
    (["ban", "192.0.2.1", "--for", "400d"], "34560000 seconds is out of range"),
    (["unban", "192.0.2.1"], "192.0.2.1 is not banned; `bans` lists who is"),
    (["unban", "198.51.100.7"], "198.51.100.7 is not banned; it is a part of 198.51.100.0/24, which is"),
])  # fmt: skip
def test_a_ban_that_makes_no_sense_is_refused(admin: Office, arguments: list[str], why: str) -> None:
    assert admin.run(*arguments, status=1).startswith(why)
    assert [one["network"] for one in admin.ask("bans")["bans"]] == ["198.51.100.0/24"]


def test_an_ipv6_address_stands_for_its_network(admin: Office) -> None:
    assert admin.ask("ban", "2001:db8::7")["network"] == "2001:db8::/64"
    assert admin.ask("unban", "2001:db8::8") == {"networks": ["2001:db8::/64"]}
    assert admin.ask("ban", "2001:db8::7/128")["network"] == "2001:db8::7/128"
    assert admin.ask("ban", "::ffff:192.0.2.9")["network"] == "192.0.2.9"
    admin.run("unban", "::/0")
    admin.run("unban", "192.0.2.9")


@pytest.fixture(scope="module")
def one_gateway(identity: Identity) -> Iterator[Path]:
    with directory_for_servers() as directory:
        services = [Service("imap", "127.0.0.1:1", options=BALANCED)]
        with running(directory, identity, services, {"gateway": {"control": f"{directory}/control"}}):
            assert main(["ban", "198.51.100.0/24", "--socket", f"{directory}/control"]) == 0
            yield directory / "control"


@pytest.fixture
def admin(one_gateway: Path, capsys: pytest.CaptureFixture[str]) -> Office:
    return Office(one_gateway, capsys)
