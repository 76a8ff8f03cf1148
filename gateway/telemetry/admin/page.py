"""The status page.  Every text in it is escaped; it holds no style and no script, so that the policy may be strict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone

from ...records import dataclass
from ..catalogue import event as row_of
from ..history import STEP, STEPS, Step
from ..metrics import Snapshot
from ..observation import Observation, Recent, Standing
from ..words import counted
from .acting import forms
from .parts import document, state_of, table, text, whole

WARNING_DAYS = 21
EVENTS = 15
"""The last ones that are shown."""
WIDTH, HEIGHT = 288, 56
"""Of a chart, in units of its own."""
MODES = (("implicit", "implicit TLS"), ("starttls", "STARTTLS"), ("none", "plaintext"))


@dataclass(frozen=True, slots=True)
class Seen:
    """What the page shows."""

    observation: Observation
    standing: Standing
    steps: Sequence[Step] = ()
    csrf: str = ""
    """What a form of the page must bring along; empty where the page has none."""

    @property
    def metrics(self) -> Snapshot:
        return self.observation.metrics

    @property
    def services(self) -> list[str]:
        return list(dict.fromkeys(one.service for one in self.standing.listening))


def page(seen: Seen, now: datetime | None = None) -> str:
    """The whole document."""
    sections = {name: make(seen) for name, make in _SECTIONS}
    if seen.csrf:
        sections["acting"] = forms(seen.services, [labels[0] for labels in _backends_of(seen)], seen.csrf)
    moment = (now or datetime.now(timezone.utc)).strftime("%Y-%m-%d %H:%M:%S UTC")
    state = f"{text(_state(seen.metrics))} As of <time>{moment}</time>."
    return document("STARTTLS gateway on", seen.standing, state, sections, script=True)


def _backends_of(seen: Seen) -> list[tuple[str, ...]]:
    return sorted({labels[:1] for labels in seen.metrics.values.get("backend_up", {})})


def _state(metrics: Snapshot) -> str:
    if metrics.get("stopping"):
        return "The gateway stops: open sessions may finish, new ones are refused."
    ready = metrics.values.get("ready", {})
    down = [labels[0] for labels, value in ready.items() if not value]
    return f"Not served, since no backend can be used: {', '.join(down)}." if down else "All services are served."


# --- sections ------------------------------------------------------------------------------------


def _sessions(seen: Seen) -> str:
    metrics, steps = seen.metrics, seen.steps
    limit = metrics.get("sessions_limit")
    now = metrics.total("sessions")
    charts = _figures(
        ("open sessions", whole(now), [step.sessions for step in steps]),
        ("ended in plaintext", whole(metrics.total("sessions_total", tls="none")), [one.plaintext for one in steps]),
        ("failed logins", whole(metrics.total("logins_total", result="failed")), [one.failed_logins for one in steps]),
        ("attacks refused", whole(metrics.total("attacks_total")), [one.attacks for one in steps]),
    )
    room = f" of {whole(limit)} at most" if isinstance(limit, int | float) and limit else ""
    phases = {
        phase: metrics.total("sessions", phase=phase)
        for phase in sorted({labels[1] for labels in metrics.values.get("sessions", {})})
    }
    told = ", ".join(f"{whole(count)} {text(phase)}" for phase, count in phases.items() if count)
    return (
        f"<h2>Sessions</h2><p>{whole(now)} open{room}{': ' + told if told else ''}. "
        f"The charts show the last 24 hours, the figures count since the start.</p>{charts}"
    )


def _services(seen: Seen) -> str:
    metrics = seen.metrics
    rows = [
        (
            text(one.service),
            text(one.protocol),
            text(one.address),
            text(one.policy or "implicit TLS"),
            text(one.backend),
            state_of(metrics.get("ready", one.service) != 0, "served", "not served"),
            whole(metrics.total("sessions", service=one.service)),
            whole(metrics.total("connections_total", service=one.service)),
        )
        for one in seen.standing.listening
    ]
    head = ("service", "protocol", "address", "policy", "backend", "state", "open", "all")
    return "<h2>Services</h2>" + table("Services and their ports", head, rows, numbers=2)


def _adoption(seen: Seen) -> str:
    rows = []
    for service in seen.services:
        counts = [seen.metrics.total("sessions_total", service=service, tls=mode) for mode, _ in MODES]
        every = sum(counts)
        shares = [f"{100 * count / every:.0f} %" if every else "" for count in counts]
        rows.append((text(service), _bar(service, counts), *shares))
    head = ("service", "share", *(words for _, words in MODES))
    versions: dict[str, float] = {}
    for labels, value in seen.metrics.values.get("handshakes_total", {}).items():
        if labels[1] == "client" and isinstance(value, int | float):
            versions[labels[2]] = versions.get(labels[2], 0) + value
    told = ", ".join(f"{text(name)} {whole(count)}" for name, count in sorted(versions.items(), reverse=True))
    failed = whole(seen.metrics.total("handshake_failures_total", leg="client"))
    return (
        "<h2>TLS adoption</h2>"
        + table("Ended sessions by how they were secured", head, rows, numbers=3)
        + f"<p>Handshakes with clients: {told or 'none yet'}; failed: {failed}.</p>"
    )


def _backends(seen: Seen) -> str:
    metrics = seen.metrics
    rows = [
        (text(name), text(address), state_of(bool(value), "used", "failed of late, comes last"))
        for (name, address), value in sorted(metrics.values.get("backend_up", {}).items())
    ]
    latency = [
        (text(service), whole(sum(row[:-1])), f"{1000 * row[-1] / sum(row[:-1]):.2f} ms", _failures(metrics, service))
        for (service,), row in sorted(metrics.values.get("backend_connect_seconds", {}).items())
        if isinstance(row, Sequence)
    ]
    return (
        "<h2>Backends</h2>"
        + table("Addresses of backends", ("backend", "address", "state"), rows)
        + table("Connecting to backends", ("service", "connections", "mean time", "failures"), latency, numbers=3)
    )


def _failures(metrics: Snapshot, service: str) -> str:
    return whole(metrics.total("backend_failures_total", service=service))


def _certificates(seen: Seen) -> str:
    rows = [
        (
            text(one.file),
            text(", ".join(one.names)),
            text(one.key),
            text(one.not_after[:10]),
            state_of(one.days >= WARNING_DAYS, left := f"{counted(one.days, 'day')} left", f"{left}: renew it"),
        )
        for one in seen.standing.certificates
    ]
    return "<h2>Certificates</h2>" + table("Certificates for clients", ("file", "names", "key", "ends", "state"), rows)


def _refused(seen: Seen) -> str:
    metrics = seen.metrics
    rows = [
        *(("attack", *_counted(labels, value)) for labels, value in metrics.values.get("attacks_total", {}).items()),
        *(("limit", *_counted(labels, value)) for labels, value in metrics.values.get("refusals_total", {}).items()),
    ]
    return "<h2>Refused</h2>" + table(
        "Attacks, and what limits refused", ("kind", "service", "what", "count"), sorted(rows), numbers=1
    )


def _counted(labels: tuple[str, ...], value: object) -> tuple[str, str, str]:
    return text(labels[0]), text(labels[1]), whole(value)


def _events(seen: Seen) -> str:
    rows = [_event(one) for one in seen.observation.recent[:EVENTS]]
    head = ("time", "event", "severity", "service", "client", "detail", "cure")
    return "<h2>Last events</h2>" + table("Last events that are more than information", head, rows)


def _event(one: Recent) -> tuple[str, ...]:
    moment = datetime.fromtimestamp(one.time, timezone.utc).strftime("%m-%d %H:%M:%S")
    texts = (
        moment,
        one.event,
        one.severity,
        one.service,
        one.client,
        one.detail,
        row_of(one.event).cure.replace("`", ""),
    )
    return tuple(map(text, texts))


def _workers(seen: Seen) -> str:
    metrics = seen.metrics
    start = metrics.get("start_time_seconds")
    since = datetime.fromtimestamp(start, timezone.utc) if isinstance(start, int | float) and start else None
    lag = metrics.get("event_loop_lag_seconds")
    late = f"{1000 * lag:.0f} ms" if isinstance(lag, int | float) else ""
    return (
        f"<h2>Process</h2><p>{whole(metrics.get('workers'))} serving; "
        f"started {since.strftime('%Y-%m-%d %H:%M UTC') if since else 'just now'}; "
        f"the event loop was {late} late at most in the last 15 seconds; "
        f"{whole(metrics.get('suppressed_lines_total'))} log lines were suppressed in floods.</p>"
    )


_SECTIONS: tuple[tuple[str, Callable[[Seen], str]], ...] = (
    ("sessions", _sessions),
    ("services", _services),
    ("adoption", _adoption),
    ("backends", _backends),
    ("certificates", _certificates),
    ("refused", _refused),
    ("events", _events),
    ("process", _workers),
)


# --- pieces --------------------------------------------------------------------------------------


def _bar(service: str, counts: Sequence[float]) -> str:
    """A bar with a part for each mode."""
    every = sum(counts)
    if not every:
        return ""
    told = ", ".join(f"{words} {100 * count / every:.0f} %" for count, (_, words) in zip(counts, MODES, strict=True))
    parts, left = "", 0.0
    for count, (mode, _) in zip(counts, MODES, strict=True):
        width = 100 * count / every
        parts += f'<rect class="{mode}" x="{left:.2f}" y="0" width="{width:.2f}" height="10"/>'
        left += width
    return (
        f'<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" '
        f'aria-label="{text(service)}: {told}">{parts}</svg>'
    )


def _figures(*figures: tuple[str, str, Sequence[float]]) -> str:
    return '<div class="figures">' + "".join(_figure(*figure) for figure in figures) + "</div>"


def _figure(words: str, number: str, values: Sequence[float]) -> str:
    return f"<figure><figcaption><b>{number}</b> {words}</figcaption>{_chart(words, values)}</figure>"


def _chart(words: str, values: Sequence[float]) -> str:
    """The last 24 hours, the latest at the right."""
    if len(values) < 2:
        return f'<p class="none">The chart begins {2 * STEP / 60:.0f} minutes after the start.</p>'
    most = max(*values, 1)
    begin = STEPS - len(values)
    points = " ".join(
        f"{begin + place},{HEIGHT - 4 - (HEIGHT - 8) * value / most:.1f}" for place, value in enumerate(values)
    )
    told = f"{words}, last 24 hours: from {whole(min(values))} to {whole(max(values))}, now {whole(values[-1])}"
    area = f"{begin},{HEIGHT} {points} {STEPS - 1},{HEIGHT}"
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{told}">'
        f'<polygon points="{area}"/><polyline points="{points}"/></svg>'
    )
