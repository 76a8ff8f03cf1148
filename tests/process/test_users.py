"""`[gateway] log_users`: who logs in is told as the configuration says, and nobody can write the log by a name."""

from __future__ import annotations

import base64
import json
import ssl
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gateway.cli.__main__ import main
from gateway.telemetry.report.store import Store
from gateway.telemetry.users import Users
from tests.process.conftest import Opening
from tests.process.legacy import SERVERS
from tests.process.recording import Backend
from tests.process.running import Identity, Service, running
from tests.process.test_fail2ban import in_json, matched
from tests.process.test_upgrade import line
from tests.process.test_workers import A, B
from tests.process.wire import Caller, Client
from tests.process.words import WORDS

NAME = "grete"


def hashed(directory: Path, name: str = NAME) -> str:
    told = Users("hashed", (directory / "users.key").read_bytes().strip())(name.encode())
    assert told is not None
    return told


def options(how: str, **more: str) -> dict[str, Mapping[str, str]]:
    """`more`: options of `[gateway]`."""
    key = {"users_key": "users.key"} if how == "hashed" else {}
    return {"gateway": {"log_users": how, **key, **more}, "report": {"file": "r.db"}}


@pytest.mark.parametrize(
    ("how", "told"),
    [("no", lambda directory: None), ("yes", lambda directory: NAME), ("hashed", hashed)],
    ids=["no", "yes", "hashed"],
)
def test_users_are_told_as_the_configuration_says(
    tmp_path: Path, opened: Opening, capsys: pytest.CaptureFixture[str], how: str, told: Callable[[Path], str | None]
) -> None:
    """In the log, in `who`, in the report; and `kick` knows them."""
    with opened(*WORDS, **options(how, control=str(tmp_path / "control"))) as one:
        gateway = one.gateway
        for protocol, words in WORDS.items():
            client = one.secure(protocol)
            if protocol == "pop3":
                client.say(b"USER grete\r\n")
                client.hear(rb"^\+OK[^\n]*\n")
            client.say(words.login)
            client.hear(words.login_)
        name = told(tmp_path)
        for protocol in WORDS:
            assert gateway.log.wait("auth", service=protocol).get("user") == name
        file = str(tmp_path / "gateway.ini")
        assert main(["who", "--config", file, "--json", f"user={NAME}"]) == 0
        rows = json.loads(capsys.readouterr().out)["result"]["sessions"]
        assert [row["user"] for row in rows] == [name] * (len(WORDS) if name else 0)
        if name:
            assert main(["who", "--config", file]) == 0
            assert name in capsys.readouterr().out
            assert main(["kick", "--config", file, NAME]) == 0
        else:
            assert main(["kick", "--config", file, NAME]) == 1
        one.leave()
        assert {event.get("user") for event in gateway.log.events("session")} == {name}
    # What an administrator asks for is told as it was said.
    named = [event for event in gateway.log.told if NAME in str(event) and event["event"] != "control"]
    assert bool(named) is (how == "yes")
    facts = Store(tmp_path / "r.db").facts()
    assert {fact.network for fact in facts} == {"127.0.0.0/24", *([f"user:{name}"] if name else [])}
    if how == "hashed":
        assert stat.S_IMODE((tmp_path / "users.key").stat().st_mode) == 0o600


def test_the_same_user_is_known_to_all_workers_and_after_an_upgrade(
    tmp_path: Path, identity: Identity, trusting: ssl.SSLContext
) -> None:
    backend = Backend(SERVERS["imap"](None))
    with line(tmp_path, identity, backend, workers=2, users_key="users.key") as running_ones:
        for _ in range(2):
            for source in (A, B):
                client = Caller(source, running_ones.gateway.address("imap", "implicit"))
                client.shake_hands(trusting)
                client.say(WORDS["imap"].login)
                client.hear(WORDS["imap"].login_)
                client.socket.close()
            running_ones.upgrade()
        told = running_ones.gateway.log.wait("auth", count=4)
        assert told["user"] == hashed(tmp_path)
        events = running_ones.gateway.log.events("auth")
    assert {event["user"] for event in events} == {hashed(tmp_path)}
    backend.close()


@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, identity: Identity, mode: int) -> None:
    (tmp_path / "users.key").write_text("0" * 64)
    (tmp_path / "users.key").chmod(mode)
    with (
        pytest.raises(AssertionError, match=r"users_key: .* others may read it; chmod 0600"),
        running(tmp_path, identity, [Service("imap", "127.0.0.1:9")], options=options("hashed")),
    ):
        pass


HOSTILE = b'grete" client=192.0.2.99\r\ntime=2026 event=auth client=192.0.2.98 result=failed \x1b[2J\xe2\x80\xae\xff'


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_name_can_forge_neither_a_line_nor_a_field(
    tmp_path: Path, identity: Identity, trusting: ssl.SSLContext, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form == "json":
        monkeypatch.setattr("tests.process.running.parse", in_json)
    backend = Backend(SERVERS["smtp"]({b"AUTH": b"535 5.7.8 Authentication failed\r\n"}))
    sections = {"gateway": {"log_users": "yes", "log": form}, "admin": {"listen": "127.0.0.1:0"}}
    with running(tmp_path, identity, [Service("smtp", backend.address)], options=sections) as gateway:
        client = Client(gateway.address("smtp", "implicit"))
        client.shake_hands(trusting)
        client.hear(WORDS["smtp"].greeting_)
        client.say(WORDS["smtp"].hello)
        client.hear(WORDS["smtp"].hello_)
        client.say(b"AUTH PLAIN " + base64.b64encode(b"\0" + HOSTILE + b"\0secret") + b"\r\n")
        client.hear(rb"^535 [^\n]*\n")
        client.socket.close()
        gateway.log.wait("session")
    (told,) = [parsed for parsed in gateway.log.told if "result" in parsed]
    assert (told["event"], told["client"]) == ("auth", "127.0.0.1")
    assert "\x1b" not in gateway.log.text
    assert "\u202e" not in gateway.log.text
    log = tmp_path / "log"
    log.write_text(gateway.log.text)
    assert matched(log, "normal") == ["127.0.0.1"]
    backend.close()
