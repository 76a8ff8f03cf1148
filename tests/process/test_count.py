"""The instructions of a session, of a mail and of a round trip: not more than five percent above the recorded ones.
Those of a long answer: what they are in IMAP."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import count, peers, streams
from tests.process.programs import SYSTEM, missing, need


def test_no_unit_needs_more_instructions_than_before() -> None:
    need("valgrind", debian="valgrind")
    python = need(str(SYSTEM / "bin" / "python"), debian="python3-venv; make .venv-count/installed")
    before = count.recorded()
    if not before.is_comparable(python):
        missing(f"this test needs {before.python} as /usr/bin/python3: run it on Debian 12")
    counted = count.count(peers.gateway(python=python))
    sys.stdout.write(count.table(counted, before.units))
    assert count.grown(counted, before.units) == []


SHARE = 0.02
"""Of a full session's instructions, what the report may add."""
REPORT = """
import sys
from pathlib import Path
from gateway.telemetry.report.facts import Networks, Pending, facts
from gateway.telemetry.report.store import Store
from gateway.telemetry.report.watch import Watch

networks = Networks()
pending, watch, store = Pending(networks), Watch(), Store(Path(sys.argv[1]))
watch.use(networks)
auth = {"result": "ok", "mechanism": "PLAIN", "tls": "TLSv1.3"}
session = {
    "policy": "required", "tls": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384", "group": "X25519MLKEM768",
    "sni": "mail.example.org", "user": None, "phase": "relaying", "proven": True,
}
for number in range(int(sys.argv[2])):
    client = f"192.0.{number % 50}.{number // 50}"
    pending.hear("auth", "imap", client, auth)
    watch.over("imap", client, secured=True)
    pending.hear("session", "imap", client, session)
    if number % 300 == 299:
        store.add(facts(pending.take()), 0)
"""
"""What the report does for sessions of 50 networks, each of another client, 300 a minute, with the batch of each
minute."""


def test_the_report_adds_two_percent_to_a_session_at_most(tmp_path: Path) -> None:
    """Counted by itself: two equal runs of the whole gateway differ by one percent."""
    need("valgrind", debian="valgrind")
    python = need(str(SYSTEM / "bin" / "python"), debian="python3-venv; make .venv-count/installed")
    few, many = (_instructions(python, tmp_path / "report.db", sessions) for sessions in (300, 1500))
    added = (many - few) / 1200 / 1000
    sys.stdout.write(f"the report: {added:.1f} thousand instructions a session")
    assert added <= SHARE * sum(count.recorded().units["imap-full"].values())


def _instructions(python: str, report: Path, sessions: int) -> int:
    callgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    done = subprocess.run(
        [*callgrind, python, "-c", REPORT, str(report), str(sessions)],
        cwd=peers.ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "0", "PYTHONPATH": str(peers.ROOT)},
        capture_output=True,
        text=True,
        timeout=count.PATIENCE,
        check=True,
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1])


MOST = {"imap": 1.0, "ldap": 1.05, "copy": 1.05, "ldap-anonymous": 1.4}
"""Without a bind the gateway looks at the head of each entry."""


@pytest.mark.transfers
def test_after_the_login_a_chunk_costs_what_it_costs_in_imap() -> None:
    need("valgrind", debian="valgrind")
    python = need(str(SYSTEM / "bin" / "python"), debian="python3-venv; make .venv-count/installed")
    wanted = [stream for stream in streams.STREAMS if stream.name in MOST]
    counted = streams.counted(peers.ROOT, python, wanted)
    ratios = {name: number / counted["imap"] for name, number in counted.items()}
    assert ratios.keys() == MOST.keys()
    assert not {name: ratio for name, ratio in ratios.items() if ratio > MOST[name]}
