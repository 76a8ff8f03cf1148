"""However many events there are, the log has their beginning and their number."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry import summary
from gateway.telemetry.catalogue import event as row
from gateway.telemetry.entries import COSTS_A_DIALOGUE, COSTS_NOTHING, FAILED_LOGIN
from gateway.telemetry.events import Events
from gateway.telemetry.kinds import Budget
from gateway.telemetry.summary import (
    MINUTE,
    OFFENDERS,
    TOTAL,
    Summary,
    SummedEvents,
    Teller,
)

Told = dict[str, object]


@dataclass
class Heard:
    """Events that keep what they are told."""

    told: list[Told] = field(default_factory=list)
    constant: Told = field(default_factory=dict)

    def emit(self, event: str, /, **fields: object) -> None:
        self.told.append({"event": event, **self.constant, **fields})

    def bound(self, /, **fields: object) -> Heard:
        return Heard(self.told, {**self.constant, **fields})


class Log:
    """Summed events, their clock, and what came out."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.heard = Heard()
        self.summary = Summary(self.heard, lambda: self.now)
        self.events = SummedEvents(self.heard, self.summary)

    def session(self, client: str = "192.0.2.1", service: str = "smtp") -> SummedEvents:
        return self.events.bound(session="S", service=service, client=client)

    def take(self) -> list[Told]:
        """What was told since it was last asked."""
        told = list(self.heard.told)
        self.heard.told.clear()
        return told

    def suppressed(self) -> Told:
        """What of the minute was not told; nothing if all was."""
        self.take()
        self.now += MINUTE
        self.summary.tick()
        told = self.take()
        assert len(told) <= 1
        return told[0] if told else {}

    def emit(self, times: int, event: str, client: str = "192.0.2.1", service: str = "smtp", **fields: object) -> None:
        """As often, in sessions of a client."""
        for _ in range(times):
            self.session(client, service).emit(event, **fields)


@pytest.fixture
def log() -> Log:
    return Log()


def addresses(count: int) -> Iterator[str]:
    return (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(count))


# --- what has a budget ---------------------------------------------------------------------------


@pytest.mark.parametrize(("event", "fields", "budget"), [
    ("refused", {"limit": "sessions"}, COSTS_NOTHING),
    ("tls-failed", {}, COSTS_NOTHING),
    ("starttls-injection", {}, COSTS_NOTHING),
    ("tls-on-plaintext-port", {}, COSTS_NOTHING),
    ("http-client", {}, COSTS_NOTHING),
    ("unexpected-proxy-header", {}, COSTS_NOTHING),
    ("client-timeout", {}, COSTS_NOTHING),
    ("client-line-too-long", {}, COSTS_NOTHING),
    ("backend-connect-failed", {}, COSTS_NOTHING),
    ("session", {"phase": "plaintext", "reason": "client-lost"}, COSTS_NOTHING),
    ("session", {"phase": "handshake", "reason": "tls-failed"}, COSTS_NOTHING),
    ("session", {"phase": "greeting", "reason": "quit"}, COSTS_A_DIALOGUE),
    ("session", {"phase": "secure", "reason": "client-closed"}, COSTS_A_DIALOGUE),
    ("session", {"phase": "secure", "reason": "client-lost", "proven": True}, None),
    ("session", {"phase": "plaintext", "reason": "quit", "messages": 1}, None),
    ("session", {"phase": "relaying", "reason": "client-closed"}, None),
    ("auth", {"result": "failed"}, FAILED_LOGIN),
    ("auth", {"result": "ok"}, None),
    ("transfer", {"received": 0, "sent": 7}, None),
    ("transfer", {"received": 7, "sent": 0}, None),
    ("transfer", {"received": 0, "sent": 0}, COSTS_A_DIALOGUE),
    ("listening", {}, None),
    ("certificate", {}, None),
    ("not-in-the-table", {}, COSTS_NOTHING),
    ("open-relay", {}, None),
    ("log", {}, None),
])  # fmt: skip
def test_what_anybody_can_cause_has_a_budget(event: str, fields: Told, budget: Budget | None) -> None:
    assert row(event).allows(fields) is budget


@pytest.mark.parametrize("number", [1, 100_000])
def test_a_success_is_always_told(log: Log, number: int) -> None:
    session = log.session()
    for _ in range(number // 2):
        session.emit("auth", result="ok")
        session.emit("session", phase="relaying", reason="quit")
    assert len(log.take()) == number // 2 * 2
    assert log.suppressed() == {}


# --- budgets -------------------------------------------------------------------------------------


def test_a_client_that_floods_is_told_some_times_and_then_counted(log: Log) -> None:
    log.emit(1000, "refused", limit="connects-per-minute")
    kind = {"event": "refused", "limit": "connects-per-minute"}
    line = {**kind, "session": "S", "service": "smtp", "client": "192.0.2.1"}
    assert log.take() == [line] * COSTS_NOTHING.per_client
    assert log.suppressed() == {
        "event": "suppressed",
        "count": 995,
        "seconds": 60.0,
        "clients": 1,
        "worst": "192.0.2.1",
        "worst_count": 995,
        "detail": "refused smtp connects-per-minute: 995",
    }
    log.session().emit("refused", limit="connects-per-minute")
    assert len(log.take()) == 1, "a new minute"


def test_an_ipv6_network_is_one_client(log: Log) -> None:
    for number in range(10):
        log.session(f"2001:db8::{number}").emit("tls-failed")
    assert len(log.take()) == COSTS_NOTHING.per_client
    told = log.suppressed()
    assert told["worst"] == "2001:db8::/64"


def test_other_clients_are_told_beside_one_that_floods(log: Log) -> None:
    log.emit(1000, "tls-failed", "192.0.2.1", detail="no shared cipher")
    log.take()
    log.session("192.0.2.2").emit("tls-failed", detail="alert: unknown ca")
    (told,) = log.take()
    assert told["detail"] == "alert: unknown ca"


def test_many_clients_together_have_a_budget_of_each_kind(log: Log) -> None:
    for client in addresses(5000):
        log.session(client).emit("client-timeout")
        log.session(client, "imap").emit("client-timeout")
    told = Counter(str(line["service"]) for line in log.take())
    assert told == {"smtp": COSTS_NOTHING.per_kind, "imap": COSTS_NOTHING.per_kind}
    suppressed = log.suppressed()
    assert suppressed["count"] == 10000 - 2 * COSTS_NOTHING.per_kind
    assert suppressed["clients"] == OFFENDERS


def test_a_flood_of_many_kinds_stays_below_a_hundred_lines_a_minute(log: Log) -> None:
    kinds = 0
    for service in ("smtp", "submission", "imap", "pop3"):
        for limit in ("sessions-per-client", "connects-per-minute"):
            for client in addresses(500):
                log.session(client, service).emit("refused", limit=limit)
            kinds += 1
        for reason in ("client-closed", "client-lost"):
            for client in addresses(500):
                log.session(client, service).emit("session", phase="plaintext", reason=reason)
            kinds += 1
    log.summary.flush()
    told = log.take()
    assert len(told) <= TOTAL + kinds + 1 < 100
    assert told[-1]["event"] == "suppressed"
    assert len({(line["event"], line["service"], line.get("reason"), line.get("limit")) for line in told[:-1]}) == kinds


def test_one_attack_does_not_hide_another(log: Log) -> None:
    for number, client in enumerate(addresses(100)):
        log.session(client, f"service{number % 3}").emit("refused", limit="sessions")
    log.take()
    log.emit(2, "starttls-injection")
    assert [line["event"] for line in log.take()] == ["starttls-injection"]


def test_a_busy_server_s_polite_sessions_are_told_although_nothing_came_of_them(log: Log) -> None:
    for client in addresses(250):
        log.session(client).emit("session", phase="plaintext", reason="quit")
    assert len(log.take()) == 250
    for client in addresses(250):
        log.session(client).emit("session", phase="plaintext", reason="quit")
    assert len(log.take()) == 50
    for client in addresses(10):
        log.session(client).emit("tls-failed")
    assert len(log.take()) == 10, "they do not count against the noise"


def test_the_first_failed_login_of_a_client_is_told_whatever_the_others_did(log: Log) -> None:
    for client in addresses(2000):
        log.session(client).emit("auth", result="failed")
        log.session(client).emit("auth", result="failed")
    told = Counter(str(line["client"]) for line in log.take())
    assert len(told) == 2000
    assert told.total() == 2000 + 150  # as long as there was room for 300, the second as well
    told_later = log.suppressed()
    assert told_later["count"] == 4000 - 2150
    log.session("10.0.0.1").emit("auth", result="failed")
    assert len(log.take()) == 1


def test_failed_logins_of_one_client_are_told_up_to_the_limit_of_logins(log: Log) -> None:
    log.emit(50, "auth", result="failed", mechanism="PLAIN")
    assert len(log.take()) == 20


def test_when_there_is_no_room_for_more_clients_failed_logins_are_all_told(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "FAILING", 3)
    for client in addresses(5):
        log.emit(30, "auth", client, result="failed")
    assert Counter(str(line["client"]) for line in log.take()) == {
        "10.0.0.0": 20, "10.0.0.1": 20, "10.0.0.2": 20, "10.0.0.3": 30, "10.0.0.4": 30
    }  # fmt: skip


def test_who_has_no_address_may_be_anybody(log: Log) -> None:
    for _ in range(1000):
        log.session("").emit("auth", result="failed")
        log.events.emit("descriptors-exhausted", service="smtp")
    told = Counter(str(line["event"]) for line in log.take())
    assert told == {"auth": FAILED_LOGIN.per_kind, "descriptors-exhausted": COSTS_NOTHING.per_kind}
    suppressed = log.suppressed()
    assert (suppressed["clients"], suppressed["worst"], suppressed["worst_count"]) == (0, None, None)


def test_what_is_said_with_the_event_counts_before_what_is_bound(log: Log) -> None:
    session = log.session("192.0.2.1")
    for _ in range(10):
        session.emit("refused", client="192.0.2.9", service="pop3", limit="sessions")
    assert len(log.take()) == 5
    session.emit("refused", limit="sessions")
    assert len(log.take()) == 1
    told = log.suppressed()
    assert (told["worst"], told["detail"]) == ("192.0.2.9", "refused pop3 sessions: 5")


def test_a_binding_keeps_what_was_bound_before(log: Log) -> None:
    inner = log.events.bound(service="smtp").bound(client="192.0.2.1").bound(session="S")
    inner.emit("x")
    assert log.take() == [{"event": "x", "service": "smtp", "client": "192.0.2.1", "session": "S"}]


def test_every_minute_has_all_its_budgets_again(log: Log) -> None:
    minutes = []
    for _ in range(3):
        for number, client in enumerate(addresses(300)):
            log.session(client, f"service{number % 3}").emit("refused", limit="sessions")
        log.emit(10, "client-timeout")
        log.emit(30, "auth", "192.0.2.9", result="failed")
        told = Counter(str(line["event"]) for line in log.take())
        minutes.append((told, log.suppressed()))
    assert minutes[0][0] == {"refused": 40, "client-timeout": 1, "auth": 20}
    assert minutes[0][1]["clients"] == 260 + 2
    assert minutes[1:] == minutes[:1] * 2


def test_offenders_are_counted_on_when_there_is_no_room_for_more(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "OFFENDERS", 2)
    for _ in range(10):
        for client in addresses(3):
            log.session(client).emit("tls-failed")
    told = log.suppressed()
    assert (told["count"], told["clients"], told["worst_count"]) == (15, 2, 5)


@pytest.mark.parametrize("wanted", [False, True])
def test_an_optional_event_is_told_only_where_that_is_wanted(log: Log, wanted: bool) -> None:
    log.summary.optional = wanted
    log.emit(3, "connected")
    assert len(log.take()) == (3 if wanted else 0)
    assert log.suppressed() == {}


def test_the_last_events_that_are_more_than_information_are_remembered(log: Log) -> None:
    session = log.session()
    session.emit("auth", result="ok")
    session.emit("backend-refused", text=b"421 \xff" + 300 * b"x")
    session.emit("refused", limit="sessions")
    session.emit("client-bare-newline")
    told = log.summary.recent
    assert [(one.event, one.severity, one.service, one.client) for one in told] == [
        ("client-bare-newline", "warning", "smtp", "192.0.2.1"),
        ("refused", "warning", "smtp", "192.0.2.1"),
        ("backend-refused", "warning", "smtp", "192.0.2.1"),
    ]
    assert [one.detail for one in told[:2]] == ["", "sessions"]
    assert told[2].detail.startswith("421 \\xffxxx")
    assert len(told[2].detail) == summary.LONGEST


def test_every_event_is_heard_whether_it_is_told_or_not() -> None:
    heard: Counter[tuple[str, str]] = Counter()
    log = Heard()
    told = Summary(log, lambda: 0.0, lambda event, service, fields: heard.update([(event, service)]))
    session = SummedEvents(log, told).bound(service="smtp", client="192.0.2.1")
    for _ in range(1000):
        session.emit("connected")
        session.emit("tls-failed")
    told.flush()
    assert heard == {("connected", "smtp"): 1000, ("tls-failed", "smtp"): 1000, ("suppressed", ""): 1}
    assert len(log.told) == COSTS_NOTHING.per_client + 1


# --- the summary ---------------------------------------------------------------------------------


def test_the_worst_come_first(log: Log) -> None:
    for count, client, service in ((7, "192.0.2.1", "imap"), (12, "192.0.2.2", "smtp"), (7, "192.0.2.3", "pop3")):
        log.emit(count, "tls-failed", client, service)
    told = log.suppressed()
    assert (told["count"], told["clients"], told["worst"], told["worst_count"]) == (11, 3, "192.0.2.2", 7)
    assert told["detail"] == "tls-failed smtp: 7, tls-failed imap: 2, tls-failed pop3: 2"


def test_without_a_tick_the_next_event_tells(log: Log) -> None:
    log.emit(6, "tls-failed")
    log.take()
    log.now += 300
    log.session().emit("auth", result="ok")
    suppressed, auth = log.take()
    assert (suppressed["event"], suppressed["seconds"], auth["event"]) == ("suppressed", 300.0, "auth")


def test_a_tick_before_the_minute_is_over_tells_nothing(log: Log) -> None:
    log.emit(6, "tls-failed")
    log.take()
    log.now += MINUTE - 0.001
    log.summary.tick()
    log.session().emit("tls-failed")
    assert log.take() == []


def test_at_the_end_the_rest_is_told_once(log: Log) -> None:
    log.emit(6, "tls-failed")
    log.take()
    log.now += 1.5
    log.summary.flush()
    log.summary.flush()
    (told,) = log.take()
    assert (told["count"], told["seconds"]) == (1, 1.5)


def test_a_summary_is_a_line_like_others() -> None:
    lines: list[str] = []
    events: Teller = Events(lines.append, clock=lambda: 0.0)
    told = Summary(events, lambda: 0.0)
    session: Teller = SummedEvents(events, told).bound(session="S", service="smtp", client="::1")
    for _ in range(7):
        session.emit("refused", limit="sessions")
    told.flush()
    assert lines[0] == ("time=1970-01-01T00:00:00.000Z event=refused session=S service=smtp client=::1 limit=sessions")
    assert lines[5:] == [
        "time=1970-01-01T00:00:00.000Z event=suppressed count=2 seconds=0.000 clients=1 worst=::/64 worst_count=2 "
        'detail="refused smtp sessions: 2"'
    ]


# --- everything at once --------------------------------------------------------------------------

EVENTS: list[tuple[str, Told]] = [
    ("refused", {"limit": "sessions"}),
    ("refused", {"limit": "connects-per-minute"}),
    ("tls-failed", {}),
    ("client-timeout", {}),
    ("session", {"phase": "plaintext", "reason": "client-lost"}),
    ("session", {"phase": "secure", "reason": "quit"}),
    ("session", {"phase": "relaying", "reason": "quit"}),
    ("auth", {"result": "failed"}),
    ("auth", {"result": "ok"}),
    ("listening", {}),
]
BURSTS = st.lists(
    st.tuples(
        st.sampled_from(EVENTS),
        st.integers(1, 60),
        st.sampled_from(["", "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"]),
        st.sampled_from(["smtp", "imap"]),
        st.sampled_from([0.0, 0.0, 1.0, 30.0, 61.0]),
        st.booleans(),
    ),
    max_size=25,
)


@given(BURSTS)
def test_every_event_is_told_or_counted(
    bursts: list[tuple[tuple[str, Told], int, str, str, float, bool]],
) -> None:
    log = Log()
    happened: Counter[str] = Counter()
    for number, ((event, fields), count, client, service, wait, tick) in enumerate(bursts):
        log.now += wait
        if tick:
            log.summary.tick()
        log.emit(count, event, client, service, **fields, mark=number)
        happened[event] += count
    log.summary.flush()

    told: Counter[str] = Counter()
    for line in log.take():
        if line["event"] == "suppressed":
            counted = re.findall(r"([a-z-]+)(?: [a-z-]+)*: (\d+)", str(line["detail"]))
            for event, count_of_kind in counted:
                told[event] += int(count_of_kind)
            assert line["count"] == sum(int(count_of_kind) for _, count_of_kind in counted)
        else:
            told[str(line["event"])] += 1
    assert told == happened


@given(
    st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 40), st.sampled_from(["smtp", "imap"])), max_size=400)
)
def test_within_one_minute_every_budget_holds(
    happened: list[tuple[tuple[str, Told], int, str]],
) -> None:
    log = Log()
    failing = set()
    for (event, fields), host, service in happened:
        log.session(f"192.0.2.{host}", service).emit(event, **fields)
        if fields.get("result") == "failed":
            failing.add((service, f"192.0.2.{host}"))
    by_kind: Counter[tuple[object, ...]] = Counter()
    by_client: Counter[tuple[tuple[object, ...], object]] = Counter()
    budgets: dict[tuple[object, ...], Budget] = {}
    for line in log.take():
        budget = row(str(line["event"])).allows(line)
        if budget is not None:
            kind: tuple[object, ...] = (line["event"], line["service"], line.get("reason"), line.get("limit"))
            budgets[kind] = budget
            by_kind[kind] += 1
            by_client[kind, line["client"]] += 1
            if budget.first:
                failing.discard((str(line["service"]), str(line["client"])))
    assert not failing
    for kind, count in by_kind.items():
        assert count <= budgets[kind].per_kind or budgets[kind].first
    for (kind, _client), count in by_client.items():
        assert count <= budgets[kind].per_client
    shared = [kind for kind in by_kind if budgets[kind].shared]
    assert sum(by_kind[kind] for kind in shared) <= TOTAL + len(shared)


def test_what_is_remembered_is_heard_also_where_it_is_not_told() -> None:
    log = Log()
    heard: list[tuple[str, str, str]] = []
    log.summary.remember = {"auth": lambda event, service, client, fields: heard.append((event, service, client))}
    log.emit(30, "auth", "192.0.2.1", result="failed")
    log.session("192.0.2.1").emit("tls-failed")
    assert len(heard) == 30
    assert {event for event, _, _ in heard} == {"auth"}
