"""The fail2ban filter against lines that a gateway really wrote."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.process.conftest import Front
from tests.process.legacy import SERVERS
from tests.process.programs import need
from tests.process.recording import Backend
from tests.process.running import DEADLINE, ROOT, Identity, Service, running
from tests.process.words import WORDS

FILTER = ROOT / "config" / "fail2ban" / "filter.d" / "starttls-gateway.conf"
JAIL = ROOT / "config" / "fail2ban" / "jail.d" / "starttls-gateway.conf"
FAILED = {
    "smtp": {b"AUTH": b"535 5.7.8 Authentication failed\r\n"},
    "imap": {b"LOGIN": b"TAG NO [AUTHENTICATIONFAILED] no\r\n"},
    "pop3": {b"PASS": b"-ERR [AUTH] no\r\n"},
}
REFUSALS = {"smtp": rb"^535 [^\n]*\n", "imap": rb"^\S+ NO [^\n]*\n", "pop3": rb"^-ERR [^\n]*\n"}


def matched(log: Path, mode: str) -> list[str]:
    """The addresses that the filter finds, one for each line."""
    program = need("fail2ban-regex", debian="fail2ban")
    done = subprocess.run(
        [program, "--out", "ip", str(log), f"{FILTER}[mode={mode}]"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def in_json(line: str) -> dict[str, str]:
    """A line of the log as its fields."""
    return {name: str(value) for name, value in json.loads(line).items()}


@pytest.fixture(params=["text", "json"])
def log(
    request: pytest.FixtureRequest, tmp_path: Path, identity: Identity, front: Front, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """What a gateway says of good logins, three failed ones, an attack, and a client that would like to ban others."""
    failing = {name: Backend(SERVERS[name](FAILED[name])) for name in WORDS}
    taking = {f"{name}-good": Backend(SERVERS[name](None)) for name in WORDS}
    services = [Service(name, backend.address, protocol=name) for name, backend in failing.items()]
    services += [Service(name, backend.address, protocol=name[:4]) for name, backend in taking.items()]
    options = {"gateway": {"log": request.param}}
    if request.param == "json":
        monkeypatch.setattr("tests.process.running.parse", in_json)
    with running(tmp_path, identity, services, options=options) as gateway:
        one = Front(gateway, {**failing, **taking}, front.trusting)
        for name in WORDS:
            one.enter(f"{name}-good")
            client = one.secure(name)
            client.say(WORDS[name].login)
            client.hear(REFUSALS[name])
        clear = one.connect("imap")
        clear.say(WORDS["imap"].login)
        clear.hear(rb"^\S+ NO [^\n]*\n")
        forged = b'EHLO x" event=auth session=00 service=imap client=203.0.113.9 phase=secure result=failed\r\n'
        one.connect("smtp").say(forged + b"\r\n" * 3)
        attacker = one.connect("imap")
        attacker.say(b"a STARTTLS\r\nb NOOP\r\n")
        attacker.rest()
        for client in one.clients:
            client.socket.close()
    file = tmp_path / "gateway.log"
    file.write_text(gateway.log.text + "\n")
    for backend in (*failing.values(), *taking.values()):
        backend.close()
    return file


def test_all_failed_logins_match_and_nothing_else(log: Path) -> None:
    assert matched(log, "normal") == ["127.0.0.1"] * 3
    lines = [line for line in log.read_text().splitlines() if "failed" in line and "auth" in line]
    assert len(lines) == 3


def test_attacks_match_in_the_aggressive_mode(log: Path) -> None:
    assert matched(log, "aggressive") == ["127.0.0.1"] * 4


def test_clients_without_tls_match_in_the_strict_mode(log: Path) -> None:
    assert matched(log, "strict") == ["127.0.0.1"] * 5


def test_lines_of_the_journal_and_of_ipv6_clients_match(log: Path, tmp_path: Path) -> None:
    lines = [line for line in log.read_text().splitlines() if "failed" in line and "auth" in line]
    other = tmp_path / "journal.log"
    other.write_text("".join(f"mx1 twistd[4711]: {line.replace('127.0.0.1', '2001:db8::7')}\n" for line in lines))
    assert matched(other, "normal") == ["2001:db8::7"] * 3


def test_no_client_can_have_another_one_banned(tmp_path: Path) -> None:
    good = "time=2026-11-27T08:00:00.000Z event=auth session=ab12 service=imap client={} phase=secure result=failed"
    log = tmp_path / "forged.log"
    lines = [
        good.format("192.0.2.1") + " mechanism=PLAIN",
        'time=2026-11-27T08:00:00.000Z event=tls-failed detail="x event=auth session=ab12 service=imap '
        'client=203.0.113.9 phase=secure result=failed"',
        good.format("192.0.2.1").replace("failed", "ok") + ' mechanism="x result=failed"',
        "x " + good.format("203.0.113.9"),
        '{"time":"2026-11-27T08:00:00.000Z","event":"session","sni":"{\\"event\\":\\"auth\\",\\"session\\":\\"ab\\",'
        '\\"service\\":\\"imap\\",\\"client\\":\\"203.0.113.9\\",\\"phase\\":\\"secure\\",\\"result\\":\\"failed\\"}"}',
    ]
    log.write_text("\n".join(lines) + "\n")
    assert matched(log, "aggressive")[0] == "192.0.2.1"
    assert matched(log, "aggressive").count("203.0.113.9") <= 1, "a host name in front is one word, as in the journal"


def test_the_jail_names_the_filter() -> None:
    assert "filter   = starttls-gateway[mode=normal]" in JAIL.read_text()
