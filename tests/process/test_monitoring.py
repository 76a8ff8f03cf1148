"""Alert rules and dashboard: promtool takes them, and they use metrics and labels that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.telemetry.metrics import METRICS, PREFIX, Kind
from tests.process.programs import need
from tests.process.running import DEADLINE, ROOT

RULES = ROOT / "config" / "prometheus" / "starttls-gateway.rules.yml"
TRIALS = sorted((Path(__file__).parent / "prometheus").glob("*.test.yml"))
DASHBOARD = ROOT / "config" / "grafana" / "starttls-gateway.json"

_SERIES = re.compile(rf"{PREFIX}(\w+)(?:\{{([^}}]*)\}})?")
_LABEL = re.compile(r"(\w+)(?:=~|!~|!=|=)")
_GROUPED = re.compile(r"by \(([^)]*)\)")


def promtool(*arguments: str, directory: Path) -> None:
    program = need("promtool", debian="prometheus")
    done = subprocess.run([program, *arguments], cwd=directory, capture_output=True, text=True, timeout=3 * DEADLINE)
    assert done.returncode == 0, done.stdout + done.stderr


def expressions() -> Iterator[str]:
    """Of all panels, with Grafana's variables filled in."""
    board = json.loads(DASHBOARD.read_text())
    texts = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    texts += [one["expr"] for one in board["annotations"]["list"]]
    for text in texts:
        yield text.replace("$__rate_interval", "5m").replace("$service", ".*")


def strangers(text: str) -> list[str]:
    """Metrics and labels of an expression that the gateway does not have."""
    wrong = []
    labels: set[str] = {"job", "instance"}
    for name, selector in _SERIES.findall(text):
        metric = METRICS.get(name) or METRICS.get(re.sub("_(bucket|sum|count)$", "", name))
        if metric is None:
            wrong.append(name)
            continue
        known = {*metric.labels, *(("le",) if metric.kind is Kind.HISTOGRAM else ())}
        labels |= known
        wrong += [f"{name}{{{label}}}" for label in _LABEL.findall(selector) if label not in known]
    grouped = [label.strip() for group in _GROUPED.findall(text) for label in group.split(",")]
    return wrong + [label for label in grouped if label not in labels]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('sum by (service) (rate(starttls_gateway_sessions_total{tls!="none"}[1d]))', []),
        ("starttls_gateway_nothing", ["nothing"]),
        ('starttls_gateway_ready{x="1"}', ["ready{x}"]),
        ("sum by (kind) (starttls_gateway_ready)", ["kind"]),
        ("sum by (le) (starttls_gateway_session_seconds_bucket)", []),
    ],
)
def test_what_the_gateway_does_not_have_is_noticed(text: str, wrong: list[str]) -> None:
    assert strangers(text) == wrong


def test_promtool_takes_the_rules_and_each_alert_fires_when_it_should(tmp_path: Path) -> None:
    promtool("check", "rules", str(RULES), directory=tmp_path)
    shutil.copy(RULES, tmp_path)
    for trial in TRIALS:
        shutil.copy(trial, tmp_path)
    promtool("test", "rules", *(trial.name for trial in TRIALS), directory=tmp_path)
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    assert len(set(alerts)) == len(alerts)
    tried = re.findall(r"alertname: (\w+)", "".join(trial.read_text() for trial in TRIALS))
    assert set(tried) == set(alerts), "each one is tried"


def test_the_rules_use_metrics_that_there_are() -> None:
    assert strangers(RULES.read_text()) == []


def test_promtool_takes_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(expressions())]
    assert len(rules) > 20
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(file), directory=tmp_path)


def test_the_dashboard_uses_metrics_that_there_are() -> None:
    assert [wrong for text in expressions() for wrong in strangers(text)] == []


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    board = json.loads(DASHBOARD.read_text())
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (column, line)
            for column in range(place["x"], place["x"] + place["w"])
            for line in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
