"""`starttls-gateway report`: what a gateway has written of its sessions."""

from __future__ import annotations

import argparse
import csv
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli import migration
from gateway.telemetry.report.facts import Times
from gateway.telemetry.report.store import Store
from tests.process.conftest import Opening
from tests.process.running import DEADLINE, ROOT, Identity
from tests.process.test_workers import A, B
from tests.process.wire import Caller
from tests.process.words import WORDS

START = 1_700_000_000


def report(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", "report", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


def test_sessions_are_in_the_report_after_a_restart(tmp_path: Path, opened: Opening) -> None:
    file = tmp_path / "report.db"
    for _ in range(2):
        with opened("imap", options={"policy": "optional"}, report={"file": str(file)}) as one:
            one.enter("imap")
            one.enter("imap", "implicit")
            clear = one.connect("imap")
            clear.say(WORDS["imap"].login)
            clear.hear(WORDS["imap"].login_)
            one.leave()
    done = report(str(tmp_path / "gateway.ini"), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    (line,) = found["networks"]
    assert (line["service"], line["network"], line["sessions"], line["clear"]) == ("imap", "127.0.0.0/24", 6, 2)
    assert (line["clear_logins"], line["lowest"], line["nameless"]) == (2, "TLSv1.3", 0)
    assert found["advice"][0] == "policy required on imap would have refused 1 network in 30 days: 127.0.0.0/24"

    text = report(str(tmp_path / "gateway.ini"))
    assert "* policy required on imap would have refused 1 network in 30 days: 127.0.0.0/24" in text.stdout
    assert "imap     127.0.0.0/24" in text.stdout
    (row,) = csv.DictReader(io.StringIO(report("--file", str(file), "--csv").stdout))
    assert (row["service"], row["clear"]) == ("imap", "2")


def test_reports_of_several_files_are_added_up(tmp_path: Path) -> None:
    for name, last in (("a.db", START), ("b.db", START + 86400)):
        Store(tmp_path / name).add({("smtp", "10.0.0.0/24", "tls", "TLSv1.2"): Times(START, last, 2)}, 0)
    said: list[str] = []
    given = [str(tmp_path / "none.ini"), "--file", str(tmp_path / "a.db"), "--file", str(tmp_path / "b.db")]
    parser = argparse.ArgumentParser()
    migration.add(parser.add_subparsers())
    code = migration.run(
        parser.parse_args(["report", *given]), lambda *lines: said.extend(lines), lambda: START + 86400.0
    )
    assert code == 0
    assert said[0] == "the last 30 days; facts are kept since 2023-11-14"
    assert "smtp     10.0.0.0/24  2023-11-15  4         -             TLSv1.2     -" in said


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["/nonexistent.ini"], "No such file or directory; write the path of the configuration file"),
        (["--file", "/nonexistent.db"], "there is no such file"),
        (["--since", "soon"], "'soon' is not a number of days, like 30d"),
        (["--since", "0d"], "'0d' is not a number of days, like 30d"),
    ],
)
def test_what_cannot_be_read_is_told(arguments: list[str], complaint: str) -> None:
    done = report(*arguments)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_a_gateway_that_keeps_no_report_is_told(tmp_path: Path, identity: Identity) -> None:
    file = tmp_path / "gateway.ini"
    file.write_text(
        f"[gateway]\nhostname = gw.example.test\n[tls]\ncertificate = {identity.certificate}\n"
        "[service:imap]\nstarttls = 127.0.0.1:0\nbackend = 127.0.0.1:9\n[report]\nfile = off\n"
    )
    done = report(str(file))
    assert done.returncode == 2
    assert "[report] file: the gateway keeps no report; name a file there" in done.stderr


def test_a_report_that_cannot_be_written_harms_nobody(tmp_path: Path, opened: Opening) -> None:
    with opened("imap", report={"file": str(tmp_path / "none" / "r.db")}) as one:
        one.enter("imap")
        one.leave()
        one.gateway.terminate()
        told = one.wait("report-unwritable")
    assert "No such file or directory" in told["detail"]
    assert "[report] file = off" in told["cure"]


def test_a_reload_can_begin_and_end_the_report(tmp_path: Path, opened: Opening) -> None:
    configuration, file = tmp_path / "gateway.ini", tmp_path / "report.db"
    with opened("imap") as one:
        gateway = one.gateway
        text = configuration.read_text()
        for count, report in enumerate(("", f"[report]\nfile = {file}\n", "[report]\nfile = off\n"), 1):
            configuration.write_text(text.replace("[limits]", f"{report}[limits]"))
            gateway.process.send_signal(signal.SIGHUP)
            gateway.log.wait("reload", count=count, result="ok")
            assert file.exists() is (count == 3)
            one.enter("imap")
            one.leave()
            one.since, one.clients = gateway.log.mark(), []
    assert [fact.count for fact in Store(file).facts() if fact.kind == "tls"] == [1]


@pytest.mark.parametrize("protocol", WORDS)
@pytest.mark.parametrize("action", ["log", "refuse"])
def test_a_client_that_always_used_tls_comes_without(
    tmp_path: Path, opened: Opening, protocol: str, action: str
) -> None:
    words, report = WORDS[protocol], {"file": str(tmp_path / "report.db")}
    options = {"policy": "optional", "downgrade": action}
    with opened(protocol, options=options, report=report) as one:
        for _ in range(3):
            one.enter(protocol)
        one.leave()
    with opened(protocol, options=options, report=report) as one:
        one.enter(protocol, "implicit")  # by now the gateway has read what it knows
        client = one.connect(protocol)
        client.say(words.hello + words.login)
        client.hear(words.hello_)
        if action == "refuse":
            assert client.line() == words.refused
            client.say(words.starttls)
            assert client.line() == words.go_ahead
            client.shake_hands(one.trusting)
            client.say(words.hello + words.login)
            client.hear(words.hello_)
        client.hear(words.login_)
        one.leave()
        told = one.gateway.log.events("downgrade")
    assert [event["action"] for event in told] == ["logged" if action == "log" else "refused"]
    assert "2020" < told[0]["first_tls"] <= told[0]["last_tls"]
    assert told[0]["client"] == "127.0.0.1"
    assert [fact.value for fact in Store(tmp_path / "report.db").facts() if fact.kind == "downgrade"] == [
        told[0]["action"]
    ]


def test_a_client_behind_a_load_balancer_is_meant_itself(tmp_path: Path, opened: Opening) -> None:
    file = tmp_path / "report.db"
    Store(file).add({("imap", "198.51.100.0/24", "tls", "TLSv1.3"): Times(START, START + 9, 3)}, 0)
    options = {"policy": "optional", "downgrade": "refuse", "accept_proxy": "127.0.0.1"}
    with opened("imap", options=options, report={"file": str(file), "keep": "3650 d"}) as one:
        for source, answer in (("203.0.113.7", rb"^g LOGIN|^g OK [^\n]*\n"), ("198.51.100.7", rb"^g NO [^\n]*\n")):
            client = one.connect("imap", greeted=False)
            client.say(f"PROXY TCP4 {source} 127.0.0.1 4711 143\r\n".encode())
            client.hear(WORDS["imap"].greeting_)
            client.say(b"g LOGIN grete secret\r\n")
            client.hear(answer)
        assert one.wait("downgrade")["client"] == "198.51.100.7"
        one.leave()


def test_the_sessions_of_all_workers_are_in_one_report_and_all_know_it(tmp_path: Path, opened: Opening) -> None:
    """Clients A and B are served by different workers and belong to one network."""
    file, words = tmp_path / "report.db", WORDS["imap"]
    options = {"policy": "optional", "downgrade": "refuse"}
    sections = {"report": {"file": str(file)}, "gateway": {"workers": "2"}}
    assert A.rpartition(".")[0] == B.rpartition(".")[0]
    with opened("imap", options=options, **sections) as one:
        gateway = one.gateway
        gateway.log.wait("worker", count=2, state="serving")
        for source in (A, A, B, B):
            client = Caller(source, gateway.address("imap", "implicit"))
            client.shake_hands(one.trusting)
            client.say(words.login)
            client.hear(words.login_)
            client.socket.close()
        gateway.log.wait("session", count=4)
    (secured,) = [fact for fact in Store(file).facts() if fact.kind == "tls"]
    assert (secured.network, secured.count) == (f"{A.rpartition('.')[0]}.0/24", 4)
    with opened("imap", options=options, **sections) as one:
        gateway = one.gateway
        gateway.log.wait("worker", count=2, state="serving")
        for source in (A, B):
            client = Caller(source, gateway.address("imap"))
            client.hear(words.greeting_)
            client.say(words.login)
            assert client.line() == words.refused
            client.socket.close()
        assert gateway.log.wait("downgrade", count=2)["action"] == "refused"
