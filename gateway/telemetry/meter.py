"""From events to metrics: every event is counted, also those that are not told in a flood."""

from __future__ import annotations

from .catalogue import EVENTS, UNKNOWN
from .kinds import Event, Fields
from .metrics import OTHER, Counts, Labels


def _counted(found: Event) -> tuple[Labels, tuple[str, ...]]:
    """The labels of an event among all events, and other counters for it."""
    more = ("attacks_total",) * found.attack + ("backend_failures_total",) * found.failure
    return (found.name or OTHER, found.severity.word), more


# Computed once: members of an Enum are slow, and there are five events a session.
_COUNTED = {name: _counted(found) for name, found in EVENTS.items()}
_OUTCOMES = {name: found.ends.value for name, found in EVENTS.items() if found.ends is not None}
"""By the reason of a session."""
_NUMBERS = (int, float)
"""`int | float` would make a new object each time."""


class Meter:
    """Hears every event with its service.  `counts` may be read at any time."""

    __slots__ = ("_by_name", "counts")

    def __init__(self, counts: Counts | None = None) -> None:
        self.counts = Counts() if counts is None else counts
        self._by_name = {
            "connected": self._connected,
            "probed": self._probed,
            "session": self._session,
            "secured": self._secured,
            "auth": self._login,
            "transfer": self._transfer,
            "refused": self._refused,
            "tls-failed": self._client_tls_failed,
            "backend-tls-failed": self._backend_tls_failed,
            "backend-connected": self._backend_connected,
            "reload": self._reload,
            "suppressed": self._suppressed,
        }

    def hear(self, event: str, service: str, fields: Fields) -> None:
        labels, more = _COUNTED.get(event) or _counted(UNKNOWN)
        self.counts.add("events_total", labels)
        if (count := self._by_name.get(event)) is not None:
            count(service, fields)
        for name in more:
            self.counts.add(name, (service, event))

    def _connected(self, service: str, fields: Fields) -> None:
        self.counts.add("connections_total", (service,))

    def _probed(self, service: str, fields: Fields) -> None:
        self.counts.add("probes_total", (service,))

    def _session(self, service: str, fields: Fields) -> None:
        counts = self.counts
        outcome = _OUTCOMES.get(str(fields.get("reason")), OTHER)
        counts.add("sessions_total", (service, _mode(fields), str(fields.get("phase")), outcome))
        counts.add("octets_total", (service, "received"), _number(fields, "received"))
        counts.add("octets_total", (service, "sent"), _number(fields, "sent"))
        if messages := _number(fields, "messages"):
            counts.add("messages_total", (service,), messages)
        counts.observe("session_seconds", (service,), _number(fields, "seconds"))

    def _secured(self, service: str, fields: Fields) -> None:
        leg = str(fields.get("leg"))
        labels = (service, leg, *[str(fields.get(name) or "") for name in ("tls", "cipher", "group")])
        self.counts.add("handshakes_total", labels)
        self.counts.observe("handshake_seconds", (leg,), _number(fields, "seconds"))

    def _transfer(self, service: str, fields: Fields) -> None:
        direction = next((name for name in ("received", "sent") if fields.get(name)), "none")
        tls = "no" if fields.get("protection") == "none" else "yes"
        outcome = "complete" if fields.get("reason") in ("client-closed", "backend-closed") else "incomplete"
        self.counts.add("transfers_total", (service, direction, tls, outcome))

    def _login(self, service: str, fields: Fields) -> None:
        self.counts.add("logins_total", (service, str(fields.get("result")), "yes" if fields.get("tls") else "no"))

    def _refused(self, service: str, fields: Fields) -> None:
        self.counts.add("refusals_total", (service, str(fields.get("limit"))))

    def _client_tls_failed(self, service: str, fields: Fields) -> None:
        self.counts.add("handshake_failures_total", (service, "client", _reason(fields)))

    def _backend_tls_failed(self, service: str, fields: Fields) -> None:
        # The detail holds names out of the backend's certificate.
        self.counts.add("handshake_failures_total", (service, "backend", ""))

    def _backend_connected(self, service: str, fields: Fields) -> None:
        self.counts.add("backend_connects_total", (service,))
        self.counts.observe("backend_connect_seconds", (service,), _number(fields, "seconds"))

    def _reload(self, service: str, fields: Fields) -> None:
        self.counts.add("reloads_total", (str(fields.get("result")),))

    def _suppressed(self, service: str, fields: Fields) -> None:
        self.counts.add("suppressed_lines_total", (), _number(fields, "count"))


def _reason(fields: Fields) -> str:
    """Without what stands in brackets: the name in a client's certificate."""
    return str(fields.get("detail") or "").partition(" (")[0]


def _mode(fields: Fields) -> str:
    if not fields.get("tls"):
        return "none"
    return "implicit" if fields.get("policy") == "implicit" else "starttls"


def _number(fields: Fields, name: str) -> float:
    value = fields.get(name)
    return value if isinstance(value, _NUMBERS) else 0
