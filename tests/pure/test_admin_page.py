"""The admin listener's pure half: who may ask, what the page shows, and that nobody's words become markup."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from datetime import datetime, timezone
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.admin.acting import Action, action_of, answer_page, is_own, outcome
from gateway.telemetry.admin.guard import is_allowed, is_meant
from gateway.telemetry.admin.page import Seen, page
from gateway.telemetry.admin.reportpage import report_page
from gateway.telemetry.history import STEP, STEPS, History
from gateway.telemetry.meter import Meter
from gateway.telemetry.metrics import Snapshot
from gateway.telemetry.observation import (
    RECENT,
    CertificateView,
    Listening,
    Observation,
    Recent,
    SessionView,
    Standing,
    as_json,
    together,
)
from gateway.telemetry.report.facts import Fact, Setup, of_user

NAMES = frozenset({"localhost", "gw.example.org"})
TOKEN = "0123456789abcdef"
HOSTILE = "<script>alert(1)</script>\"'&\u202e\x1b[31m"


@pytest.mark.parametrize(
    ("host", "meant"),
    [
        ("127.0.0.1:9180", True), ("[::1]:9180", True), ("192.0.2.1", True), ("localhost:9180", True),
        ("LocalHost.", True), ("gw.example.org", True), ("evil.example", False), ("evil.example:9180", False),
        ("127.0.0.1.evil.example", False), ("", False), (None, False), ("localhost:x", False),
    ],
)  # fmt: skip
def test_a_request_counts_where_its_host_is_ours(host: str | None, meant: bool) -> None:
    assert is_meant(host, NAMES) is meant


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "allowed"),
    [
        (f"Bearer {TOKEN}", True), (f"bearer  {TOKEN} ", True), (basic(f"any:{TOKEN}"), True),
        (basic(f":{TOKEN}"), True),
        (f"Bearer {TOKEN}x", False), ("Bearer \udcff", False), (basic(TOKEN), False), ("Basic !", False),
        ("Basic /w==", False), (f"Digest {TOKEN}", False), ("", False), (None, False),
    ],
)  # fmt: skip
def test_a_request_counts_with_the_token(authorization: str | None, allowed: bool) -> None:
    assert is_allowed(authorization, TOKEN) is allowed


# --- the page ------------------------------------------------------------------------------------


class Markup(HTMLParser):
    """Which elements and attributes there are, and whether all are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("meta", "link", "input", "rect", "polygon", "polyline"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "polygon", "polyline"):
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def seen(text: str = "smtp", steps: int = 0) -> Seen:
    meter = Meter()
    for tls in ("TLSv1.3", None):
        meter.hear("session", text, {"policy": "required", "tls": tls, "phase": "secure", "reason": "quit"})
    meter.hear("secured", text, {"leg": "client", "tls": text, "seconds": 0.1})
    meter.hear("secured", text, {"leg": "backend", "tls": "TLSv1.2", "seconds": 0.1})
    meter.hear("starttls-injection", text, {})
    meter.hear("refused", text, {"limit": "sessions"})
    meter.hear("backend-connected", text, {"seconds": 0.002})
    metrics = meter.counts.snapshot()
    metrics.set("sessions", (text, "secure"), 3)
    metrics.set("sessions_limit", (), 10000)
    metrics.set("ready", (text,), 1)
    metrics.set("backend_up", (text, text), 0)
    metrics.set("start_time_seconds", (), 1.0)
    metrics.set("event_loop_lag_seconds", (), 0.002)
    recent = (Recent(0.0, "tls-failed", "notice", text, text, text), Recent(0.0, text, "notice", "", "", ""))
    history = History(iter(range(10**9)).__next__)
    history._ends = 0
    for _ in range(steps):
        history._ends = 0
        history.look(metrics)
    listening = (
        Listening(text, "smtp", "starttls", "required", "127.0.0.1:25", text),
        Listening(text, "smtp", "implicit", None, "127.0.0.1:465", text),
        Listening("idle", "smtp", "implicit", None, "127.0.0.1:466", text),
    )
    certificates = (
        CertificateView(text, (text,), "RSA 2048", "2026-12-01T00:00:00", 3),
        CertificateView("b", ("b",), "RSA 2048", "2027-12-01T00:00:00", 300),
    )
    standing = Standing(text, text, listening, certificates)
    return Seen(Observation(metrics, recent), standing, tuple(history.steps))


def test_the_page_shows_what_the_metrics_say() -> None:
    text = Markup(page(seen(steps=3), datetime(2026, 1, 2, tzinfo=timezone.utc))).text
    for part in (
        "3 open of 10\u202f000 at most: 3 secure", "2026-01-02 00:00:00 UTC", "All services are served", "2.00 ms",
        "3 days left: renew it", "300 days left", "starttls-injection", "50 %", "2 ms late", "failed of late",
        "starttls-gateway check says",
    ):  # fmt: skip
        assert part in text


def test_the_page_of_a_gateway_that_has_just_started() -> None:
    text = Markup(page(Seen(Observation(), Standing("gw")))).text
    assert "All services are served" in text
    assert "Last events that are more than information: none." in text


@pytest.mark.parametrize(("stopping", "ready", "words"), [(1, 1, "The gateway stops"), (0, 0, "Not served, since no")])
def test_the_page_says_first_what_is_wrong(stopping: float, ready: float, words: str) -> None:
    metrics = Snapshot()
    metrics.set("stopping", (), stopping)
    metrics.set("ready", ("imap",), ready)
    text = Markup(page(Seen(Observation(metrics), Standing("gw")))).text
    assert words in text


def test_nobody_s_words_become_markup() -> None:
    plain, hostile = Markup(page(seen(steps=2))), Markup(page(seen(HOSTILE, steps=2)))
    assert (hostile.tags, hostile.attributes) == (plain.tags, plain.attributes)
    assert "style" not in plain.attributes
    assert not {name for name in plain.attributes if name.startswith("on")}
    assert "\u202e" not in hostile.text
    assert "\x1b" not in hostile.text


@given(st.text())
def test_whatever_a_client_says_the_page_has_the_same_elements(text: str) -> None:
    assert Markup(page(seen(text))).tags == Markup(page(seen())).tags


def test_the_page_needs_nothing_from_elsewhere() -> None:
    found = re.findall(r'(?:src|href)="([^"]*)"', page(seen()))
    assert found == ["/icon.svg", "/style.css", "/page.js", "/", "/report", "/metrics", "/sessions.json"]


# --- actions ---------------------------------------------------------------------------------------


def test_the_page_has_forms_only_for_those_who_may_act() -> None:
    assert "form" not in Markup(page(seen())).tags
    shown = Markup(page(replace(seen(HOSTILE), csrf="abc")))
    assert "form" in shown.tags
    assert not {name for name in shown.attributes if name.startswith("on")}


@pytest.mark.parametrize(
    ("path", "given", "action"),
    [
        ("/act/kick", {"whom": " grete "}, Action("kick", "grete")),
        ("/act/ban", {"client": "192.0.2.7"}, Action("ban", "192.0.2.7", 3600.0)),
        ("/act/ban", {"client": "x", "hours": "0.5", "kick": "yes"}, Action("ban", "x", 1800.0, kick=True)),
        ("/act/drain", {"name": "imap"}, Action("drain", "imap")),
        ("/act/kick", {}, "whom is missing."),
        ("/act/stop", {"name": "x"}, "There is nothing to do at /act/stop."),
        ("/act/ban", {"client": "x", "hours": "1e9"}, "hours: 1e9 is no number of hours, like 1 or 0.5."),
        ("/act/ban", {"client": "x", "hours": "0"}, "hours: 0 is no number of hours, like 1 or 0.5."),
    ],
)
def test_what_a_form_asks_for(path: str, given: dict[str, str], action: Action | str) -> None:
    assert action_of(path, given) == action


OWN = {"origin": "http://localhost:9180", "sec-fetch-site": "same-origin", "host": "localhost:9180",
       "authorization": basic(f"any:{TOKEN}")}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "secret", "own"),
    [
        ({}, "abc", True),
        ({}, "abd", False),
        ({}, "", False),
        ({"origin": None, "sec-fetch-site": None}, "abc", True),
        ({"origin": "null"}, "abc", False),
        ({"origin": "https://localhost:9180"}, "abc", False),
        ({"origin": "http://evil.example"}, "abc", False),
        ({"sec-fetch-site": "same-site"}, "abc", False),
        ({"sec-fetch-site": "cross-site"}, "abc", False),
        ({"authorization": f"Bearer {TOKEN}", "origin": None, "sec-fetch-site": None}, "", True),
        ({"authorization": f"Bearer {TOKEN}", "origin": "http://evil.example"}, "", False),
        ({"authorization": None}, "", False),
    ],
)
def test_only_the_page_itself_and_programs_with_the_token_can_ask(
    changed: dict[str, str | None], secret: str, own: bool
) -> None:
    assert is_own({**OWN, **changed}, "http", secret, "abc") is own


@pytest.mark.parametrize(
    ("action", "result", "told"),
    [
        (Action("kick", "x"), {"sessions": 2}, ["2 sessions cut off."]),
        (
            Action("ban", "192.0.2.7"),
            {"network": "192.0.2.7/32", "until": "2026-01-01T00:00:00+00:00", "sessions": 1, "kicked": False},
            ["192.0.2.7/32 is banned until 2026-01-01T00:00:00+00:00.", "1 session still open."],
        ),
        (Action("unban", "192.0.2.7"), {"networks": ["192.0.2.7/32"]}, ["192.0.2.7/32: not banned any more."]),
        (
            Action("drain", "imap"),
            {"names": ["imap"], "draining": True, "sessions": 3},
            ["imap: takes nobody new; 3 sessions there, and idle ones are ended."],
        ),
        (
            Action("undrain", "imap"),
            {"names": ["imap"], "draining": False, "sessions": 3},
            ["imap: takes sessions again."],
        ),
    ],
)
def test_what_became_of_it(action: Action, result: dict[str, Any], told: list[str]) -> None:
    assert outcome(action, result, ()) == told
    assert outcome(action, {}, ("no",)) == ["no"]
    assert "no &lt;b&gt;" in answer_page(Standing("gw"), ["no <b>"], good=False)


# --- the report ------------------------------------------------------------------------------------


def facts(text: str) -> list[Fact]:
    found = [Fact(text, f"10.0.{number}.0/24", "clear", "optional", 1, 86400, 2) for number in range(3)]
    found += [Fact("smtp", "10.0.0.0/24", kind, text, 1, 86400, 2) for kind in ("tls", "alert")]
    return [*found, Fact("smtp", of_user(text), "tls", "TLSv1.3", 1, 86400, 2)]


def test_the_report_as_a_page() -> None:
    text = report_page(Standing("gw"), facts("imap"), 86400, 30, Setup())
    shown = Markup(text)
    assert "policy required on imap would have refused 3 networks in 30 days" in shown.text
    assert 'href="/report.csv?since=30d"' in text
    assert 'href="/report?since=7d"' in text
    assert "Users" in shown.text
    plain, hostile = Markup(text), Markup(report_page(Standing(HOSTILE), facts(HOSTILE), 86400, 30, Setup()))
    assert (hostile.tags, hostile.attributes) == (plain.tags, plain.attributes)
    assert "\u202e" not in hostile.text
    assert "nothing is known yet" in report_page(Standing("gw"), [], 86400, 30, Setup())


def test_a_long_report_is_shown_by_its_worst_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.telemetry.admin.reportpage.ROWS", 2)
    text = Markup(report_page(Standing("gw"), facts("imap"), 86400, 30, Setup())).text
    assert "2 more are in the files" in text


# --- a day ---------------------------------------------------------------------------------------


def test_a_step_tells_by_how_much_the_counters_grew() -> None:
    now = 0.0
    history = History(lambda: now)
    meter = Meter()
    for minute in range(16):
        now = 60.0 * minute
        meter.hear("session", "smtp", {"policy": "required", "phase": "plaintext", "reason": "quit"})
        meter.hear("auth", "smtp", {"result": "failed"})
        history.look(meter.counts.snapshot())
    assert [(step.ended, step.plaintext, step.failed_logins, step.attacks) for step in history.steps] == [
        (6, 6, 6, 0), (5, 5, 5, 0), (5, 5, 5, 0),
    ]  # fmt: skip
    assert not history.is_due
    now += 10 * STEP
    assert history.is_due
    history.look(Snapshot())
    assert history.steps[-1].ended == 0, "counts of a lost worker are no negative growth"
    assert not history.is_due
    for _ in range(400):
        now += STEP
        history.look(Snapshot())
    assert len(history.steps) == STEPS


# --- several processes ---------------------------------------------------------------------------


def test_observations_of_processes_are_put_together() -> None:
    view = SessionView("S", "smtp", "smtp", "::1", "secure", None, None, "\ud800", None, 1.0, 2, 3, 4)
    one = Observation(Meter().counts.snapshot(), (Recent(1.0, "x", "notice", "", "", ""),), (as_json([view]),))
    other = Observation(Snapshot(), tuple(Recent(2.0, "y", "notice", "", "", "") for _ in range(RECENT)))
    told = [Observation.from_json(json.loads(json.dumps(each.to_json()))) for each in (one, other)]
    assert told == [one, other]
    both = together(told)
    assert [recent.event for recent in both.recent] == ["y"] * RECENT
    assert [SessionView(**one) for text in both.sessions for one in json.loads(f"[{text}]")] == [view]
