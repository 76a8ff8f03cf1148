"""The status page.  Every text in it is escaped; it holds no style and no script, so that the policy may be strict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from html import escape

from ..catalogue import event as row_of
from ..history import STEP, STEPS, Step
from ..metrics import Snapshot
from ..observation import Observation, Recent, Standing
from ..words import printable

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

    @property
    def metrics(self) -> Snapshot:
        return self.observation.metrics

    @property
    def services(self) -> list[str]:
        return list(dict.fromkeys(one.service for one in self.standing.listening))


def page(seen: Seen, now: datetime | None = None) -> str:
    """The whole document."""
    title = f"STARTTLS gateway on {_text(seen.standing.hostname)}"
    parts = "".join(f'<section id="{name}">{make(seen)}</section>' for name, make in _SECTIONS)
    moment = (now or datetime.now(timezone.utc)).strftime("%Y-%m-%d %H:%M:%S UTC")
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{title}</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<link rel="stylesheet" href="/style.css"><script src="/page.js" defer></script></head><body>'
        f"<header><h1>{title}</h1>"
        f'<p id="updated">{_text(_state(seen.metrics))} As of <time>{moment}</time>.</p></header>'
        f"<main>{parts}</main>"
        f"<footer><p>starttls-gateway {_text(seen.standing.version)}. The same figures: "
        '<a href="/metrics">metrics</a>, <a href="/sessions.json">open sessions</a>.</p></footer></body></html>\n'
    )


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
        ("open sessions", _whole(now), [step.sessions for step in steps]),
        ("ended in plaintext", _whole(metrics.total("sessions_total", tls="none")), [one.plaintext for one in steps]),
        ("failed logins", _whole(metrics.total("logins_total", result="failed")), [one.failed_logins for one in steps]),
        ("attacks refused", _whole(metrics.total("attacks_total")), [one.attacks for one in steps]),
    )
    room = f" of {_whole(limit)} at most" if isinstance(limit, int | float) and limit else ""
    phases = {
        phase: metrics.total("sessions", phase=phase)
        for phase in sorted({labels[1] for labels in metrics.values.get("sessions", {})})
    }
    told = ", ".join(f"{_whole(count)} {_text(phase)}" for phase, count in phases.items() if count)
    return (
        f"<h2>Sessions</h2><p>{_whole(now)} open{room}{': ' + told if told else ''}. "
        f"The charts show the last 24 hours, the figures count since the start.</p>{charts}"
    )


def _services(seen: Seen) -> str:
    metrics = seen.metrics
    rows = [
        (
            _text(one.service),
            _text(one.protocol),
            _text(one.address),
            _text(one.policy or "implicit TLS"),
            _text(one.backend),
            _state_of(metrics.get("ready", one.service) != 0, "served", "not served"),
            _whole(metrics.total("sessions", service=one.service)),
            _whole(metrics.total("connections_total", service=one.service)),
        )
        for one in seen.standing.listening
    ]
    head = ("service", "protocol", "address", "policy", "backend", "state", "open", "all")
    return "<h2>Services</h2>" + _table("Services and their ports", head, rows, numbers=2)


def _adoption(seen: Seen) -> str:
    rows = []
    for service in seen.services:
        counts = [seen.metrics.total("sessions_total", service=service, tls=mode) for mode, _ in MODES]
        whole = sum(counts)
        shares = [f"{100 * count / whole:.0f} %" if whole else "" for count in counts]
        rows.append((_text(service), _bar(service, counts), *shares))
    head = ("service", "share", *(words for _, words in MODES))
    versions: dict[str, float] = {}
    for labels, value in seen.metrics.values.get("handshakes_total", {}).items():
        if labels[1] == "client" and isinstance(value, int | float):
            versions[labels[2]] = versions.get(labels[2], 0) + value
    told = ", ".join(f"{_text(name)} {_whole(count)}" for name, count in sorted(versions.items(), reverse=True))
    failed = _whole(seen.metrics.total("handshake_failures_total", leg="client"))
    return (
        "<h2>TLS adoption</h2>"
        + _table("Ended sessions by how they were secured", head, rows, numbers=3)
        + f"<p>Handshakes with clients: {told or 'none yet'}; failed: {failed}.</p>"
    )


def _backends(seen: Seen) -> str:
    metrics = seen.metrics
    rows = [
        (_text(name), _text(address), _state_of(bool(value), "used", "failed of late, comes last"))
        for (name, address), value in sorted(metrics.values.get("backend_up", {}).items())
    ]
    latency = [
        (_text(service), _whole(sum(row[:-1])), f"{1000 * row[-1] / sum(row[:-1]):.2f} ms", _failures(metrics, service))
        for (service,), row in sorted(metrics.values.get("backend_connect_seconds", {}).items())
        if isinstance(row, Sequence)
    ]
    return (
        "<h2>Backends</h2>"
        + _table("Addresses of backends", ("backend", "address", "state"), rows)
        + _table("Connecting to backends", ("service", "connections", "mean time", "failures"), latency, numbers=3)
    )


def _failures(metrics: Snapshot, service: str) -> str:
    return _whole(metrics.total("backend_failures_total", service=service))


def _certificates(seen: Seen) -> str:
    rows = [
        (
            _text(one.file),
            _text(", ".join(one.names)),
            _text(one.key),
            _text(one.not_after[:10]),
            _state_of(one.days >= WARNING_DAYS, f"{one.days} days left", f"{one.days} days left: renew it"),
        )
        for one in seen.standing.certificates
    ]
    return "<h2>Certificates</h2>" + _table("Certificates for clients", ("file", "names", "key", "ends", "state"), rows)


def _refused(seen: Seen) -> str:
    metrics = seen.metrics
    rows = [
        *(("attack", *_counted(labels, value)) for labels, value in metrics.values.get("attacks_total", {}).items()),
        *(("limit", *_counted(labels, value)) for labels, value in metrics.values.get("refusals_total", {}).items()),
    ]
    return "<h2>Refused</h2>" + _table("Refused", ("kind", "service", "what", "count"), sorted(rows), numbers=1)


def _counted(labels: tuple[str, ...], value: object) -> tuple[str, str, str]:
    return _text(labels[0]), _text(labels[1]), _whole(value)


def _events(seen: Seen) -> str:
    rows = [_event(one) for one in seen.observation.recent[:EVENTS]]
    head = ("time", "event", "severity", "service", "client", "detail", "cure")
    return "<h2>Last events</h2>" + _table("Last events that are more than information", head, rows)


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
    return tuple(map(_text, texts))


def _workers(seen: Seen) -> str:
    metrics = seen.metrics
    start = metrics.get("start_time_seconds")
    since = datetime.fromtimestamp(start, timezone.utc) if isinstance(start, int | float) and start else None
    lag = metrics.get("event_loop_lag_seconds")
    late = f"{1000 * lag:.0f} ms" if isinstance(lag, int | float) else ""
    return (
        f"<h2>Process</h2><p>{_whole(metrics.get('workers'))} serving; "
        f"started {since.strftime('%Y-%m-%d %H:%M UTC') if since else 'just now'}; "
        f"the event loop was {late} late at most in the last 15 seconds; "
        f"{_whole(metrics.get('suppressed_lines_total'))} log lines were suppressed in floods.</p>"
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


def _text(value: str) -> str:
    """Anybody's words."""
    return escape(printable(value))


def _whole(value: object) -> str:
    return f"{int(value):,}".replace(",", "\u202f") if isinstance(value, int | float) else ""


def _state_of(good: bool, words: str, otherwise: str) -> str:
    """Told in words and by a sign, not by a colour alone."""
    return f'<span class="good">\u2713 {words}</span>' if good else f'<span class="bad">\u2717 {otherwise}</span>'


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """Cells are HTML.  The last `numbers` columns hold numbers."""
    first = len(head) - numbers
    body = "".join(
        "<tr>" + "".join(_cell(cell, place >= first) for place, cell in enumerate(row)) + "</tr>" for row in rows
    )
    if not body:
        return f'<p class="none">{caption}: none.</p>'
    heads = "".join(f'<th scope="col"{_numeric(place >= first)}>{one}</th>' for place, one in enumerate(head))
    wide = ' class="columns"' if len(head) > 4 else ""
    return (
        f'<div class="wide" role="region" aria-label="{caption}" tabindex="0"><table{wide}><caption>{caption}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(cell: str, numeric: bool) -> str:
    return f"<td{_numeric(numeric)}>{cell}</td>"


def _numeric(numeric: bool) -> str:
    return ' class="number"' if numeric else ""


def _bar(service: str, counts: Sequence[float]) -> str:
    """A bar with a part for each mode."""
    whole = sum(counts)
    if not whole:
        return ""
    told = ", ".join(f"{words} {100 * count / whole:.0f} %" for count, (_, words) in zip(counts, MODES, strict=True))
    parts, left = "", 0.0
    for count, (mode, _) in zip(counts, MODES, strict=True):
        width = 100 * count / whole
        parts += f'<rect class="{mode}" x="{left:.2f}" y="0" width="{width:.2f}" height="10"/>'
        left += width
    return (
        f'<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" '
        f'aria-label="{_text(service)}: {told}">{parts}</svg>'
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
    told = f"{words}, last 24 hours: from {_whole(min(values))} to {_whole(max(values))}, now {_whole(values[-1])}"
    area = f"{begin},{HEIGHT} {points} {STEPS - 1},{HEIGHT}"
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{told}">'
        f'<polygon points="{area}"/><polyline points="{points}"/></svg>'
    )
