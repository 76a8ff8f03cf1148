"""What the gateway counts: the table of metrics, the counters of one process, and snapshots that can be added.

A snapshot is made of plain values, so that it can cross a process boundary as JSON.  docs/metrics.md is written from
the table: `python -m tests.metrics --write`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from enum import Enum
from types import MappingProxyType
from typing import Any

from ..records import dataclass

PREFIX = "starttls_gateway_"
OTHER = "other"
"""The value of every label of whatever comes beyond the greatest number of label values."""

Labels = tuple[str, ...]
"""The values of a metric's labels, in the order of the table."""
Value = float | Sequence[float]
"""Of a histogram: how many were in each bucket, those beyond the last, and their sum."""


class Kind(Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merge(Enum):
    """How the values of several processes become one."""

    SUM = "sum"
    GREATEST = "greatest"
    LEAST = "least"


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    """Without the prefix.  Counters end in `_total` (Prometheus' naming rules)."""
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    merge: Merge = Merge.SUM
    buckets: tuple[float, ...] = ()
    """Upper bounds, in seconds."""
    most: int = 500
    """Different label values that are told apart."""


_HANDSHAKE = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_CONNECT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SESSION = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 14400.0)

_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
_TABLE = (
    # --- sessions --------------------------------------------------------------------------------
    Metric("connections_total", _C, "Sessions that began.", ("service",)),
    Metric(
        "sessions_total", _C,
        "Sessions that ended. tls: none, starttls or implicit. phase: where it was at its end. outcome: done, client, "
        "backend, refused, attack or gateway (docs/events.md lists the reasons of each).",
        ("service", "tls", "phase", "outcome"),
    ),
    Metric("sessions", _G, "Sessions that are open, by phase.", ("service", "phase")),
    Metric("sessions_limit", _G, "[limits] sessions, as it holds.", merge=Merge.GREATEST),
    Metric("session_seconds", _H, "How long sessions lasted.", ("service",), buckets=_SESSION),
    Metric("octets_total", _C, "Octets from clients (received) and to them (sent), without TLS. Open sessions count.",
           ("service", "direction")),
    Metric("messages_total", _C, "Messages that backends accepted.", ("service",)),
    Metric(
        "transfers_total", _C,
        "Data connections that ended. direction: received, sent or none. tls: yes or no. outcome: complete or "
        "incomplete.",
        ("service", "direction", "tls", "outcome"),
    ),
    Metric("data_connections", _G, "Data connections that are open, or waited for.", ("service",)),
    Metric("logins_total", _C, "Logins that backends answered. result: ok, failed or unproven. tls: yes or no.",
           ("service", "result", "tls")),
    Metric("probes_total", _C, "Connections of [gateway] probes that said nothing and were closed.", ("service",)),
    # --- TLS -------------------------------------------------------------------------------------
    Metric("handshakes_total", _C, "TLS handshakes that were finished. leg: client or backend.",
           ("service", "leg", "version", "cipher", "group")),
    Metric("handshake_failures_total", _C, "TLS handshakes that failed. reason: of clients only.",
           ("service", "leg", "reason"), most=200),
    Metric("handshake_seconds", _H, "How long finished handshakes took.", ("leg",), buckets=_HANDSHAKE),
    Metric("certificate_expiry_timestamp_seconds", _G,
           "When a certificate ends that is served to clients, in seconds since 1970.", ("certificate",), Merge.LEAST),
    # --- backends --------------------------------------------------------------------------------
    Metric("backend_connects_total", _C, "Connections to backends that were made.", ("service",)),
    Metric("backend_connect_seconds", _H, "How long it took to connect to a backend.", ("service",), buckets=_CONNECT),
    Metric("backend_failures_total", _C, "Events backend-*: the backend could not serve a client.",
           ("service", "event")),
    Metric("backend_up", _G, "1: the address of the backend is used; 0: it failed in the last seconds and comes last.",
           ("backend", "address"), Merge.LEAST),
    Metric("ready", _G, "1: the service has a backend that can be used, and the gateway does not stop.", ("service",),
           Merge.GREATEST),
    # --- what was refused ------------------------------------------------------------------------
    Metric("refusals_total", _C, "Connections and logins that a limit of [limits], a drain or a ban refused.",
           ("service", "limit")),
    Metric("attacks_total", _C, "Attacks that were refused, by event.", ("service", "kind")),
    # --- the gateway -----------------------------------------------------------------------------
    Metric("events_total", _C, "Every event, also those that are not told in a flood.", ("event", "severity")),
    Metric("suppressed_lines_total", _C, "Events that were not told one by one in a flood."),
    Metric("reloads_total", _C, "Times that the configuration was read again. result: ok or refused.", ("result",)),
    Metric("stopping", _G, "1: the gateway stops.", merge=Merge.GREATEST),
    Metric("workers", _G, "Processes that serve clients."),
    Metric("event_loop_lag_seconds", _G, "The longest time in the last 15 seconds that the event loop was late.",
           merge=Merge.GREATEST),
    Metric("start_time_seconds", _G, "When the oldest process started, in seconds since 1970.", merge=Merge.LEAST),
    Metric("build_info", _G, "Always 1.", ("version", "python", "openssl"), Merge.GREATEST),
)  # fmt: skip

METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _TABLE})
"""By name, without the prefix; in the order of docs/metrics.md."""

Series = dict[Labels, Value]


class Counts:
    """The counters and histograms of one process."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[str, dict[Labels, Any]] = {
            metric.name: {} for metric in _TABLE if metric.kind is not Kind.GAUGE
        }

    def add(self, name: str, labels: Labels = (), amount: float = 1) -> None:
        series = self._values[name]
        try:
            series[labels] += amount
        except KeyError:
            labels = self._bounded(name, labels)
            series[labels] = series.get(labels, 0) + amount

    def observe(self, name: str, labels: Labels, value: float) -> None:
        """One value of a histogram."""
        series, buckets = self._values[name], METRICS[name].buckets
        if labels not in series:
            labels = self._bounded(name, labels)
        row = series.setdefault(labels, [0.0] * (len(buckets) + 2))
        row[bisect_left(buckets, value)] += 1
        row[-1] += value

    def _bounded(self, name: str, labels: Labels) -> Labels:
        return labels if len(self._values[name]) < METRICS[name].most else (OTHER,) * len(labels)

    @property
    def lasting(self) -> Iterable[dict[Labels, Any]]:
        """What outlives sessions."""
        return self._values.values()

    def snapshot(self) -> Snapshot:
        """As it is now; later counts do not change it."""
        return Snapshot(
            {
                name: {
                    labels: list(value) if METRICS[name].kind is Kind.HISTOGRAM else value
                    for labels, value in series.items()
                }
                for name, series in self._values.items()
                if series
            }
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Metrics by name and label values: of one process, or of several together."""

    values: dict[str, Series] = field(default_factory=dict)

    def set(self, name: str, labels: Labels, value: float) -> None:
        """A gauge, which is measured when the snapshot is made."""
        self.values.setdefault(name, {})[labels] = value

    def get(self, name: str, *labels: str) -> Value:
        return self.values.get(name, {}).get(labels, 0)

    def total(self, name: str, **wanted: str) -> float:
        """Of all series of a counter or gauge that have these label values."""
        names = METRICS[name].labels
        return sum(
            value
            for labels, value in self.values.get(name, {}).items()
            if not isinstance(value, Sequence) and wanted.items() <= dict(zip(names, labels, strict=True)).items()
        )

    def to_json(self) -> dict[str, list[list[Any]]]:
        return {
            name: [[list(labels), value] for labels, value in series.items()] for name, series in self.values.items()
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Iterable[Sequence[Any]]]) -> Snapshot:
        return cls({name: {tuple(labels): value for labels, value in series} for name, series in told.items()})


def merged(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Of several processes, as one."""
    values: dict[str, Series] = {}
    for snapshot in snapshots:
        for name, series in snapshot.values.items():
            together = values.setdefault(name, {})
            for labels, value in series.items():
                together[labels] = _merged(METRICS[name], together[labels], value) if labels in together else value
    return Snapshot(values)


def _merged(metric: Metric, one: Value, other: Value) -> Value:
    if isinstance(one, Sequence) and isinstance(other, Sequence):
        return [a + b for a, b in zip(one, other, strict=True)]
    assert isinstance(one, int | float) and isinstance(other, int | float)
    if metric.merge is Merge.SUM:
        return one + other
    return max(one, other) if metric.merge is Merge.GREATEST else min(one, other)
