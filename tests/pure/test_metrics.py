"""Metrics: what is counted, that snapshots of processes add up, and that label values are bounded."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.catalogue import EVENTS
from gateway.telemetry.kinds import Fields
from gateway.telemetry.meter import Meter
from gateway.telemetry.metrics import METRICS, OTHER, Kind, Merge, Snapshot, merged
from tests import metrics as document


def heard(*events: tuple[str, Fields]) -> Snapshot:
    meter = Meter()
    for name, fields in events:
        meter.hear(name, "smtp", fields)
    return meter.counts.snapshot()


SESSION: Fields = {
    "policy": "required", "tls": "TLSv1.3", "phase": "secure", "reason": "quit", "received": 100, "sent": 200,
    "messages": 2, "seconds": 1.5,
}  # fmt: skip


def test_a_session_is_counted_by_tls_phase_and_outcome() -> None:
    seen = heard(
        ("connected", {}), ("probed", {}), ("session", SESSION), ("session", {**SESSION, "policy": "implicit"}),
        ("session", {"phase": "plaintext", "reason": "client-timeout", "policy": "required"}),
        ("session", {"phase": "plaintext", "reason": "who-knows", "policy": "optional"}),
    )  # fmt: skip
    assert seen.get("connections_total", "smtp") == 1
    assert seen.get("probes_total", "smtp") == 1
    assert seen.values["sessions_total"] == {
        ("smtp", "starttls", "secure", "done"): 1,
        ("smtp", "implicit", "secure", "done"): 1,
        ("smtp", "none", "plaintext", "client"): 1,
        ("smtp", "none", "plaintext", "other"): 1,
    }
    assert (seen.get("octets_total", "smtp", "received"), seen.get("octets_total", "smtp", "sent")) == (200, 400)
    assert seen.get("messages_total", "smtp") == 4
    assert seen.total("sessions_total", tls="none") == 2


def test_handshakes_are_counted_by_leg_and_in_time() -> None:
    facts = {"leg": "client", "tls": "TLSv1.3", "cipher": "TLS_AES_128_GCM_SHA256", "group": None, "seconds": 0.03}
    seen = heard(
        ("secured", facts), ("tls-failed", {"detail": "alert: unknown_ca"}),
        ("tls-failed", {"detail": "client certificate: expired (CN=<script>)"}),
        ("backend-tls-failed", {"detail": "x"}),
    )  # fmt: skip
    assert seen.values["handshakes_total"] == {("smtp", "client", "TLSv1.3", "TLS_AES_128_GCM_SHA256", ""): 1}
    assert seen.values["handshake_failures_total"] == {
        ("smtp", "client", "alert: unknown_ca"): 1,
        ("smtp", "client", "client certificate: expired"): 1,
        ("smtp", "backend", ""): 1,
    }
    row = seen.get("handshake_seconds", "client")
    assert isinstance(row, list)
    assert (row.index(1.0), row[-1]) == (METRICS["handshake_seconds"].buckets.index(0.05), 0.03)


def test_logins_refusals_attacks_and_backends_are_counted() -> None:
    seen = heard(
        ("auth", {"result": "ok", "tls": "TLSv1.2"}), ("auth", {"result": "failed"}),
        ("refused", {"limit": "sessions"}), ("starttls-injection", {}), ("backend-timeout", {}),
        ("backend-connected", {"seconds": 0.002}), ("reload", {"result": "ok"}), ("suppressed", {"count": 7}),
        ("no-such-event", {}),
        ("transfer", {"received": 7, "protection": "TLSv1.3", "reason": "client-closed"}),
        ("transfer", {"sent": 7, "protection": "none", "reason": "stalled"}),
        ("transfer", {"protection": "TLSv1.2", "reason": "backend-closed"}),
    )  # fmt: skip
    assert seen.values["transfers_total"] == {
        ("smtp", "received", "yes", "complete"): 1, ("smtp", "sent", "no", "incomplete"): 1,
        ("smtp", "none", "yes", "complete"): 1,
    }  # fmt: skip
    assert seen.values["logins_total"] == {("smtp", "ok", "yes"): 1, ("smtp", "failed", "no"): 1}
    assert seen.get("refusals_total", "smtp", "sessions") == 1
    assert seen.values["attacks_total"] == {("smtp", "starttls-injection"): 1}
    assert seen.values["backend_failures_total"] == {("smtp", "backend-timeout"): 1}
    assert seen.get("backend_connects_total", "smtp") == 1
    assert seen.get("reloads_total", "ok") == 1
    assert seen.get("suppressed_lines_total") == 7
    assert seen.get("events_total", "backend-timeout", "warning") == 1
    assert seen.total("events_total", event=OTHER) >= 1


def test_label_values_are_bounded_whatever_comes() -> None:
    meter = Meter()
    for number in range(2000):
        meter.hear("tls-failed", "smtp", {"detail": f"no such reason {number}"})
        meter.counts.observe("session_seconds", (f"service{number}",), 1.0)
    seen = meter.counts.snapshot().values
    assert len(seen["handshake_failures_total"]) == METRICS["handshake_failures_total"].most + 1
    assert seen["handshake_failures_total"][OTHER, OTHER, OTHER] == 1800
    assert len(seen["session_seconds"]) == METRICS["session_seconds"].most + 1


def test_a_snapshot_does_not_change_when_more_is_counted() -> None:
    meter = Meter()
    meter.hear("session", "smtp", SESSION)
    before = meter.counts.snapshot()
    text = json.dumps(before.to_json())
    meter.hear("session", "smtp", SESSION)
    assert json.dumps(before.to_json()) == text


def test_gauges_are_merged_as_the_table_says() -> None:
    one, other = Snapshot(), Snapshot()
    for snapshot, number in ((one, 1.0), (other, 3.0)):
        snapshot.set("sessions", ("smtp", "secure"), number)
        snapshot.set("event_loop_lag_seconds", (), number)
        snapshot.set("certificate_expiry_timestamp_seconds", ("a.pem",), number)
    together = merged([one, other])
    assert together.get("sessions", "smtp", "secure") == 4
    assert together.get("event_loop_lag_seconds") == 3
    assert together.get("certificate_expiry_timestamp_seconds", "a.pem") == 1


EVENT = st.tuples(
    st.sampled_from(sorted(EVENTS)),
    st.fixed_dictionaries(
        {"seconds": st.integers(0, 4), "received": st.integers(0, 9), "messages": st.none() | st.integers(0, 3)},
        optional={
            "reason": st.sampled_from(["quit", "client-lost"]), "tls": st.sampled_from(["TLSv1.2", None]),
            "result": st.sampled_from(["ok", "failed"]), "leg": st.sampled_from(["client", "backend"]),
        },
    ),
    st.integers(0, 2),
)  # fmt: skip


@given(st.lists(EVENT, max_size=30))
def test_processes_together_count_what_one_would_have_counted(events: list[tuple[str, Fields, int]]) -> None:
    whole, parts = Meter(), [Meter(), Meter(), Meter()]
    for name, fields, part in events:
        whole.hear(name, "smtp", fields)
        parts[part].hear(name, "smtp", fields)
    told = [json.loads(json.dumps(part.counts.snapshot().to_json())) for part in parts]
    assert merged(map(Snapshot.from_json, told)).values == whole.counts.snapshot().values


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_has_a_good_name(name: str) -> None:
    metric = METRICS[name]
    assert re.fullmatch("[a-z][a-z_]*", name)
    assert (metric.kind is Kind.COUNTER) == name.endswith("_total")
    assert metric.meaning.endswith(".")
    assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
    assert metric.buckets == tuple(sorted(set(metric.buckets)))
    assert metric.merge is Merge.SUM or metric.kind is Kind.GAUGE


def test_the_document_has_the_table() -> None:
    text = document.DOCUMENT.read_text()
    assert document.filled(text) == text, "python -m tests.metrics --write"
