"""Metrics as Prometheus reads them, written by its own library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family

from .metrics import METRICS, PREFIX, Kind, Metric, Series, Snapshot


class _Registry:
    """What the library asks for metrics."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Family]:
        for name, metric in METRICS.items():
            series = self._snapshot.values.get(name)
            if series:
                yield _family(metric, series)


def _family(metric: Metric, series: Series) -> Family:
    name, labels = PREFIX + metric.name, metric.labels
    if metric.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(name, metric.meaning, labels=labels)
        for values, row in series.items():
            assert isinstance(row, Sequence)
            histogram.add_metric(values, _buckets(metric, row), row[-1])
        return histogram
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family = kind(name, metric.meaning, labels=labels)
    for values, value in series.items():
        assert isinstance(value, int | float)
        family.add_metric(values, value)
    return family


def _buckets(metric: Metric, row: Sequence[float]) -> list[tuple[str, float]]:
    """Prometheus' buckets are cumulative."""
    bounds = [*(str(bound) for bound in metric.buckets), "+Inf"]
    total, buckets = 0.0, []
    for bound, count in zip(bounds, row[:-1], strict=True):
        total += count
        buckets.append((bound, total))
    return buckets


def exposed(snapshot: Snapshot, accept: str = "") -> tuple[bytes, str]:
    """The text and its content type; `accept` is the request's header of that name."""
    encode, content_type = choose_encoder(accept)
    return encode(cast(CollectorRegistry, _Registry(snapshot))), content_type
