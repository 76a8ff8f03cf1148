"""What is remembered of clients, and what follows from it."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.report import store as stores
from gateway.telemetry.report.advice import DAY, advice, is_post_quantum, lines, strength
from gateway.telemetry.report.alerts import ALERTS, CERTIFICATE, alert_of
from gateway.telemetry.report.facts import (
    HEARD,
    Fact,
    Heard,
    Key,
    Networks,
    Pending,
    Setup,
    Times,
    facts,
    merged,
    of_user,
)
from gateway.telemetry.report.keeper import Keeper
from gateway.telemetry.report.store import Store, StoreError
from gateway.telemetry.report.telling import told as written
from gateway.telemetry.report.watch import ALWAYS, Watch, habits

START = 1_700_000_000
TLS13 = {"tls": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384", "group": "X25519MLKEM768", "sni": "mail.example.org"}
TLS12 = {"tls": "TLSv1.2", "cipher": "ECDHE-RSA-AES256-SHA384", "group": "x25519", "sni": "mail.example.org"}
TLS10 = {"tls": "TLSv1", "cipher": "AES128-SHA"}
CLEAR = {"policy": "optional", "proven": True}


# --- networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("mail.example.org", ""),
        ("192.0.2.7\0", ""),
        ("::", "::/64"),
    ],
)
def test_clients_are_counted_by_network(client: str, network: str) -> None:
    networks = Networks()
    assert networks(client) == network


def test_the_lengths_of_prefixes_are_free() -> None:
    networks = Networks(32, 48)
    assert networks("192.0.2.77") == "192.0.2.77/32"
    assert networks("2001:db8:1:2::4") == "2001:db8:1::/48"


# --- facts ---------------------------------------------------------------------------------------


@dataclass
class Clock:
    """The time of day, as a test sets it."""

    now: float = START

    def __call__(self) -> float:
        return self.now


def pending(now: Callable[[], float] = lambda: START) -> Pending:
    return Pending(Networks(), now)


def heard(event: str, fields: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    waiting = pending()
    waiting.hear(event, "smtp", "192.0.2.1", fields)
    taken = facts(waiting.take())
    assert all(key[:2] == ("smtp", "192.0.2.0/24") for key in taken)
    return {key[2:]: times.count for key, times in taken.items()}


@pytest.mark.parametrize(
    ("event", "fields", "meant"),
    [
        (
            "session",
            TLS13,
            {("tls", "TLSv1.3"), ("cipher", "TLS_AES_256_GCM_SHA384"), ("group", "X25519MLKEM768")},
        ),
        ("session", TLS10, {("tls", "TLSv1"), ("cipher", "AES128-SHA"), ("no-sni", "")}),
        ("session", CLEAR, {("clear", "optional")}),
        ("session", {"policy": "auth-only", "messages": 1}, {("clear", "auth-only")}),
        ("session", {"policy": "optional", "phase": "relaying"}, {("clear", "optional")}),
        ("session", {"policy": "optional", "phase": "plaintext"}, set()),
        ("auth", {"result": "ok", "mechanism": "PLAIN"}, {("clear-login", "PLAIN")}),
        ("auth", {"result": "ok", "mechanism": "PLAIN", "tls": "TLSv1.3"}, set()),
        ("auth", {"result": "failed", "mechanism": "PLAIN"}, set()),
        ("tls-failed", {"detail": "alert: unknown_ca"}, {("alert", "unknown_ca")}),
        ("tls-failed", {"detail": "alert: unknown ca (x)"}, {("alert", "unknown_ca")}),
        ("tls-failed", {"detail": "no shared cipher"}, set()),
        ("tls-failed", {"detail": "alert: =cmd()"}, set()),
        ("tls-failed", {}, set()),
        ("downgrade", {"action": "logged"}, {("downgrade", "logged")}),
        ("tls-required", {}, {("tls-required", "")}),
        ("transfer", {"command": "STOR", "protection": "none", "received": 7, "sent": 0}, {("clear-data", "STOR")}),
        ("transfer", {"command": "STOR", "protection": "none", "received": 0, "sent": 0}, set()),
        ("transfer", {"command": "RETR", "protection": "TLSv1.3", "received": 0, "sent": 7}, set()),
        (
            "session",
            {**TLS13, "cipher": '=HYPERLINK("x")', "group": "a\nb"},
            {("tls", "TLSv1.3"), ("cipher", "other"), ("group", "other")},
        ),
    ],
)
def test_what_an_event_says_of_a_client(event: str, fields: Mapping[str, Any], meant: set[tuple[str, str]]) -> None:
    assert set(heard(event, fields)) == meant


def test_every_event_that_is_heard_is_tested() -> None:
    marks = test_what_an_event_says_of_a_client.pytestmark
    assert {case[0] for mark in marks for case in mark.args[1]} == HEARD


def test_who_comes_by_a_unix_socket_is_not_remembered() -> None:
    waiting = pending()
    waiting.hear("session", "smtp", "", TLS13)
    assert facts(waiting.take()) == {}


def test_equal_sessions_of_a_network_are_one_entry_with_both_times() -> None:
    clock = Clock()
    waiting = pending(clock)
    for clock.now in (START + 0.9, START + 60.0):
        waiting.hear("session", "smtp", f"192.0.2.{clock.now:.0f}"[:10], TLS13)
    assert len(waiting) == 1
    assert set(map(str, facts(waiting.take()).values())) == {str(Times(START, START + 60, 2))}


def test_pending_events_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pending, "MOST", 2)
    clock = Clock()
    waiting = pending(clock)

    def hear(number: int, now: int) -> None:
        clock.now = now
        waiting.hear("session", "smtp", f"10.0.{number}.1", CLEAR)

    for number in range(4):
        hear(number, START + number)
    assert (len(waiting), waiting.lost) == (2, 2)
    taken = waiting.take()
    hear(0, START + 9)
    hear(9, START + 9)
    waiting.put_back(taken)
    assert (len(waiting), waiting.lost) == (2, 3)
    assert facts(waiting.take())["smtp", "10.0.0.0/24", "clear", "optional"] == Times(START, START + 9, 2)


def test_what_clients_make_up_is_one_fact() -> None:
    waiting = pending()
    for made_up in ("<script>", "\x1b[2J"):
        waiting.hear("session", "smtp", "10.0.0.1", {"policy": made_up, "proven": True})
    assert facts(waiting.take()) == {("smtp", "10.0.0.0/24", "clear", "other"): Times(START, START, 2)}


def test_a_report_without_clients_has_no_table() -> None:
    first, blank, *advised = written([], START, 30, None, "text")
    assert first.startswith("the last 30 days; facts are kept since ")
    assert (blank, len(advised)) == ("", 1)


def test_what_is_put_back_takes_a_free_place() -> None:
    waiting = pending()
    key: Heard = ("session", "smtp", "10.0.0.0/24", None, ("optional",))
    waiting.put_back({key: Times(1, 2, 3)})
    assert facts(waiting.take()) == {("smtp", "10.0.0.0/24", "clear", "optional"): Times(1, 2, 3)}


rows = st.lists(
    st.builds(
        Fact,
        st.sampled_from(["smtp", "imap"]),
        st.sampled_from(["10.0.0.0/24", "10.0.1.0/24"]),
        st.sampled_from(["tls", "clear"]),
        st.sampled_from(["", "TLSv1.3"]),
        st.integers(1, 100),
        st.integers(101, 200),
        st.integers(1, 5),
    ),
    max_size=20,
)


@given(rows, rows)
def test_facts_of_several_stores_add_up_in_any_order(some: list[Fact], others: list[Fact]) -> None:
    assert merged(some, others) == merged(others, some) == merged(merged(some), merged(others))
    assert sum(fact.count for fact in merged(some, others)) == sum(fact.count for fact in [*some, *others])


# --- the store -----------------------------------------------------------------------------------


def key(number: int = 0, kind: str = "clear", value: str = "") -> Key:
    return "smtp", f"10.{number >> 8}.{number & 255}.0/24", kind, value


def test_what_is_written_twice_is_added(tmp_path: Path) -> None:
    store = Store(tmp_path / "r.db")
    assert store.facts() == []
    store.add({key(): Times(20, 30, 2)}, 0)
    Store(tmp_path / "r.db").add({key(): Times(10, 25, 3), key(1): Times(5, 6)}, 0)
    assert store.facts() == [Fact(*key(), 10, 30, 5), Fact(*key(1), 5, 6, 1)]
    assert store.facts(kinds=("tls", "cipher")) == []
    assert store.facts(since=7) == [Fact(*key(), 10, 30, 5)]
    assert (tmp_path / "r.db").stat().st_mode & 0o007 == 0
    store.add({}, oldest=7)
    assert store.facts() == [Fact(*key(), 10, 30, 5)]
    assert [path.name for path in tmp_path.iterdir()] == ["r.db"]


def test_the_oldest_facts_go_when_there_are_too_many(tmp_path: Path) -> None:
    store = Store(tmp_path / "r.db", rows=100)
    for start in range(0, 1000, 50):
        store.add({key(number): Times(number, number) for number in range(start, start + 50)}, 0)
    numbers = [fact.last for fact in store.facts()]
    assert 90 <= len(numbers) <= 100
    assert max(numbers) == 999
    assert min(numbers) >= 900


def test_a_full_store_stays_below_its_bound(tmp_path: Path) -> None:
    store = Store(tmp_path / "r.db")
    fact = "cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"
    many = {
        ("submission-europe", f"2001:db8:{number:x}::/64", *fact): Times(number, number)
        for number in range(stores.ROWS + 1)
    }
    store.add(many, 0)
    store.add({key(): Times(1_000_000, 1_000_000)}, 0)
    assert (tmp_path / "r.db").stat().st_size < stores.OCTETS


def test_a_file_that_may_not_grow_is_told(tmp_path: Path) -> None:
    store = Store(tmp_path / "r.db", octets=8 * 4096)
    with pytest.raises(StoreError, match="full"):
        store.add({key(number): Times(1, 1) for number in range(2000)}, 0)


@pytest.mark.parametrize(
    "damage", [b"this is no database, it only looks like a file" * 100, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_a_damaged_file_is_put_aside(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "r.db"
    file.write_bytes(damage)
    with pytest.raises(StoreError):
        Store(file).facts()
    Store(file).add({key(): Times(1, 2)}, 0)
    assert len(Store(file).facts()) == 1
    assert (tmp_path / "r.db.damaged").read_bytes() == damage


def test_a_file_of_another_version_is_put_aside(tmp_path: Path) -> None:
    file = tmp_path / "r.db"
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    Store(file).add({key(): Times(1, 2)}, 0)
    assert (tmp_path / "r.db.damaged").exists()


def test_a_file_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        Store(tmp_path / "none" / "r.db").add({key(): Times(1, 2)}, 0)


def test_another_error_of_the_database_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "r.db")
    store.add({key(): Times(1, 2)}, 0)
    with sqlite3.connect(tmp_path / "r.db") as other:
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(stores, "BUSY", 0.0)
        with pytest.raises(StoreError, match="locked"):
            store.add({key(): Times(1, 2)}, 0)
        other.rollback()
    other.close()


# --- the keeper ----------------------------------------------------------------------------------


@dataclass
class Threads:
    """A reactor whose threads run when they are told to."""

    work: list[Callable[[], None]] = field(default_factory=list)

    def callInThread(self, work: Callable[..., None], *arguments: Any) -> None:
        self.work.append(lambda: work(*arguments))

    def callFromThread(self, work: Callable[..., None], *arguments: Any) -> None:
        work(*arguments)

    def run(self) -> None:
        while self.work:
            self.work.pop(0)()


def test_the_keeper_writes_in_batches_and_tells_once_that_it_cannot(tmp_path: Path) -> None:
    threads, now = Threads(), Clock()
    said: list[str] = []
    directory = tmp_path / "later"
    waiting = pending(now)
    keeper = Keeper(threads, Store(directory / "r.db"), waiting, 90.0 * DAY, now, said.append)
    keeper.tick()
    assert threads.work == []
    waiting.hear("session", "smtp", "192.0.2.1", TLS13)
    keeper.tick()
    keeper.tick()
    assert len(threads.work) == 1
    threads.run()
    assert len(said) == 1
    assert "No such file" in said[0]
    waiting.hear("session", "smtp", "192.0.2.1", TLS13)
    keeper.tick()
    threads.run()
    assert len(said) == 1
    directory.mkdir()
    keeper.finish()
    keeper.finish()
    assert {fact.count for fact in Store(directory / "r.db").facts()} == {2}
    now.now += 91 * DAY
    waiting.hear("session", "smtp", "198.51.100.1", TLS13)
    keeper.tick()
    threads.run()
    assert {fact.network for fact in Store(directory / "r.db").facts()} == {"198.51.100.0/24"}
    assert len(said) == 1


# --- the watch -----------------------------------------------------------------------------------

DATES = {"first_tls": "2023-11-14T22:13:20Z", "last_tls": "2023-11-15T22:13:20Z"}


CLOCK = Clock()
"""Of every watch."""


def watch(*secured: int) -> Watch:
    """One that has seen sessions inside TLS at these times."""
    one = Watch(CLOCK)
    one.use(Networks())
    for now in secured:
        over(one, now)
    return one


def over(
    one: Watch, now: int, client: str = "192.0.2.1", user: str | None = None, *, secured: bool = True
) -> Mapping[str, object] | None:
    CLOCK.now = now
    return one.over("imap", client, secured=secured, user=user)


def test_who_always_used_tls_is_known_by_its_network_and_dates() -> None:
    one = watch(START, START + 60, START + DAY)
    assert one.always("imap", "192.0.2.200") == DATES
    assert one.always("smtp", "192.0.2.1") is None
    assert one.always("imap", "198.51.100.1") is None
    assert over(one, START, "") is one.always("imap", "") is None
    assert watch(START, START).always("imap", "192.0.2.1") is None


def test_who_has_come_without_tls_does_not_always_use_it() -> None:
    one = watch(*range(START, START + 9))
    over(one, START + 99, secured=False)
    assert one.always("imap", "192.0.2.1") is None


def test_the_watch_goes_on_with_what_the_report_knows() -> None:
    one = watch()
    fact = Fact("imap", "192.0.2.0/24", "tls", "TLSv1.2", START, START + 60, 2)
    one.load(habits([fact, Fact("imap", "192.0.2.0/24", "tls", "TLSv1.3", START + 60, START + DAY, 1)]))
    assert one.always("imap", "192.0.2.1") == DATES
    clear = Fact("imap", "192.0.2.0/24", "clear", "optional", START, START, 1)
    one.load(habits([clear, Fact("x", "192.0.2.0/24", "alert", "", 1, 1, 1)]))
    assert one.always("imap", "192.0.2.1") is None


def test_what_is_told_again_does_not_count_again() -> None:
    one = watch()
    known = habits([Fact("imap", "192.0.2.0/24", "tls", "TLSv1.3", START, START + DAY, ALWAYS - 1)])
    for _ in range(9):
        one.load(known)
    assert one.always("imap", "192.0.2.1") is None
    over(one, START + 60)
    assert one.always("imap", "192.0.2.1") == DATES


def test_without_networks_the_watch_knows_nobody() -> None:
    one = watch(*range(START, START + 9))
    one.use(None)
    one.load(habits([Fact("imap", "192.0.2.0/24", "tls", "TLSv1.3", START, START, 9)]))
    over(one, START)
    assert one.always("imap", "192.0.2.1") is None


def test_the_memory_of_the_watch_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.telemetry.report.watch.MOST", 10)
    one = watch()
    for number in range(30):
        for _ in range(ALWAYS):
            over(one, START, f"10.0.{number}.1")
    known = [number for number in range(30) if one.always("imap", f"10.0.{number}.1")]
    assert known == list(range(20, 30))


def test_a_user_is_known_where_the_network_is_not() -> None:
    one = watch()
    for number in range(3):
        over(one, START + number * DAY, f"10.0.{number}.1", "grete")
    assert one.always("imap", "10.9.9.9", "hans") is None
    dates = {"first_tls": "2023-11-14T22:13:20Z", "last_tls": "2023-11-16T22:13:20Z", "user": "grete"}
    assert one.always("imap", "10.9.9.9", "grete") == dates
    assert over(one, START + 3 * DAY, "10.9.9.9", "grete", secured=False) == dates
    assert one.always("imap", "10.9.9.9", "grete") is None
    one.use(None)
    assert one.always("imap", "10.0.0.1", "grete") is None


def test_the_watch_goes_on_with_the_users_of_the_report() -> None:
    one = watch()
    one.load(habits([Fact("imap", of_user("grete"), "tls", "TLSv1.3", START, START + DAY, 3)]))
    assert one.always("imap", "", "grete") == {**DATES, "user": "grete"}


# --- advice --------------------------------------------------------------------------------------


def test_alerts_are_known_by_their_name() -> None:
    assert alert_of("alert: certificate unknown") == "certificate_unknown"
    assert alert_of("handshake timed out") == ""
    assert set(ALERTS) >= CERTIFICATE


@pytest.mark.parametrize(
    ("cipher", "mark"),
    [("TLS_AES_128_GCM_SHA256", 2), ("ECDHE-RSA-CHACHA20-POLY1305", 2), ("ECDHE-RSA-AES128-SHA", 1), ("AES128-SHA", 0)],
)
def test_how_strong_a_cipher_suite_is(cipher: str, mark: int) -> None:
    assert strength(cipher) == mark


def test_which_groups_are_post_quantum() -> None:
    assert is_post_quantum("X25519MLKEM768")
    assert not is_post_quantum("x25519")


def fact(
    kind: str, value: str = "", *, network: str = "10.0.0.0/24", service: str = "smtp", ago: int = 0, count: int = 1
) -> Fact:
    last = START - ago * DAY
    return Fact(service, network, kind, value, last - DAY, last, count)


BEGINNING = fact("tls", "TLSv1.3", ago=60)
"""Something that makes the facts two months old."""


def said(*facts: Fact, days: int = 30, setup: Setup | None = None) -> list[str]:
    return advice(facts, START, days, setup)


def one(start: str, sentences: list[str]) -> str:
    (found,) = [sentence for sentence in sentences if sentence.startswith(start)]
    return found


def test_nothing_follows_from_nothing() -> None:
    assert said() == ["nothing is known yet: no client did anything since the report is kept"]


def test_whom_a_stricter_policy_would_have_refused() -> None:
    clear = [fact("clear", "optional", network=f"10.0.{number}.0/24", service="submission") for number in range(7)]
    login = fact("clear-login", "PLAIN", service="submission")
    assert one("policy required on submission", said(*clear)) == (
        "policy required on submission would have refused 7 networks in 30 days: 10.0.0.0/24, 10.0.1.0/24, "
        "10.0.2.0/24, 10.0.3.0/24, 10.0.4.0/24 and 2 more"
    )
    assert (
        one("policy auth-only", said(*clear)) == "policy auth-only on submission would have refused nobody in 30 days"
    )
    assert one("passwords", said(*clear, login)) == (
        "passwords came in the clear on submission from 1 network in 30 days: 10.0.0.0/24; policy auth-only would have "
        "refused these"
    )
    relays = said(fact("clear", "auth-only"))
    assert not [sentence for sentence in relays if sentence.startswith("policy auth-only")]


def test_a_policy_that_hurts_nobody_can_be_set_after_a_month() -> None:
    setup = Setup(policies={"smtp": ("optional",), "imap": ("required",)})
    assert one("policy", said(BEGINNING, setup=setup)) == (
        "policy required on smtp would have refused nobody in 30 days: it can be set"
    )
    assert one("policy", said(fact("tls", "TLSv1.3"), setup=setup)) == (
        "policy required on smtp would have refused nobody so far; the facts are of 1 day, wait until they "
        "are of 30 days"
    )
    assert not [text for text in said(fact("tls", "TLSv1.3", service="imap"), setup=setup) if text.startswith("policy")]


def test_a_glance_at_a_few_days_advises_nothing() -> None:
    """`--since 1d`: who needs an old setting comes once a week."""
    facts = [BEGINNING, fact("clear", "optional", ago=2), fact("tls", "TLSv1", ago=2)]
    setup = Setup(True, {"smtp": ("optional",)}, ["smtp"])
    for setting in ("policy", "protection"):
        assert one(setting, advice(facts, START, 1, setup)) == (
            f"{setting} required on smtp would have refused nobody in 1 day; look at 30 days before you set it"
        )
    assert one("TLS 1.0", advice(facts, START, 1, setup)) == (
        "TLS 1.0 was last used 2 days ago; wait until that is 30 days ago"
    )


def test_whose_files_go_in_the_clear() -> None:
    setup = Setup(unprotected=["ftp"])
    clear = [fact("clear-data", verb, service="ftp") for verb in ("LIST", "STOR")]
    assert one("files", said(*clear, setup=setup)) == (
        "files went in the clear on ftp for 1 network in 30 days: 10.0.0.0/24; policy required and protection required "
        "would have refused these"
    )
    assert [line.clear_data for line in lines(clear)] == [2]
    assert one("protection", said(BEGINNING, setup=setup)) == (
        "protection required on ftp would have refused nobody in 30 days: it can be set"
    )


def test_who_was_refused_for_want_of_tls() -> None:
    refused = [fact("tls-required", network=f"10.0.{number}.0/24") for number in range(3)]
    assert one("1 network was", said(refused[0], fact("tls", "TLSv1.3"))) == (
        "1 network was refused on smtp for want of TLS in 30 days: 10.0.0.0/24; it used TLS there, too"
    )
    assert one("3 networks were", said(*refused, fact("tls", "TLSv1.3"))).endswith("; 2 of them never used TLS there")
    assert one("3 networks were", said(*refused)).endswith("; 3 of them never used TLS there")


def test_when_legacy_clients_can_go() -> None:
    old = fact("tls", "TLSv1", ago=61)
    assert one("TLS 1.0", said(old, BEGINNING)) == "TLS 1.0 was last used 61 days ago: legacy_clients can go"
    assert said(BEGINNING, setup=Setup(legacy_clients=True))[0] == (
        "nobody used anything older than TLS 1.2 in 61 days: legacy_clients can go"
    )
    assert not [text for text in said(fact("tls", "TLSv1.2"), setup=Setup(legacy_clients=True)) if "legacy" in text]
    now = said(fact("tls", "TLSv1.1"))
    assert one("TLS 1.1", now) == "TLS 1.1 was used by 1 network in 30 days: 10.0.0.0/24"
    assert one("legacy_clients", now) == "legacy_clients is still needed on smtp; it need admit no others than these"


def test_whom_only_tls_13_would_have_refused() -> None:
    assert one("profile", said(fact("tls", "TLSv1.2"))).startswith(
        "profile modern (TLS 1.3 only) would have refused 1 network in"
    )
    assert (
        one("profile", said(fact("tls", "TLSv1.3")))
        == "profile modern (TLS 1.3 only) would have refused nobody in 30 days"
    )


def test_weak_suites_groups_names_and_refusals() -> None:
    sentences = said(
        fact("cipher", "AES128-SHA"),
        fact("cipher", "ECDHE-RSA-AES128-SHA", network="2001:db8::/64"),
        fact("group", "x25519", count=1),
        fact("group", "X25519MLKEM768", count=3),
        fact("no-sni"),
        fact("alert", "unknown_ca"),
        fact("alert", "unknown_ca", network="10.0.1.0/24"),
        fact("alert", "handshake_failure"),
        fact("alert", "of_the_future"),
        fact("downgrade"),
    )
    assert sentences == [
        "cipher suites without forward secrecy (AES128-SHA) were used by 1 network in 30 days: 10.0.0.0/24",
        "cipher suites without authenticated encryption (CBC) (ECDHE-RSA-AES128-SHA) were used by 1 network "
        "in 30 days: "
        "2001:db8::/64",
        "75 % of the sessions with a known group are safe from a later quantum computer; 1 network came "
        "without that in "
        "30 days",
        "1 network sent no server name (SNI) in 30 days and got the first certificate: 10.0.0.0/24",
        "a client of 2 networks does not know the issuer of the certificate (unknown_ca) in 30 days: 10.0.0.0/24, "
        "10.0.1.0/24; send the whole chain (starttls-gateway check), or install your issuer's certificate on "
        "the client",
        "a client of 1 network finds no cipher suite or group in common (handshake_failure) in 30 days: 10.0.0.0/24; "
        "update the client, or see legacy_clients",
        "a client of 1 network refused the handshake (of_the_future) in 30 days: 10.0.0.0/24; look into the "
        "client's log",
        "1 network always used TLS and then came without in 30 days: 10.0.0.0/24; look whether somebody on "
        "the way takes "
        "STARTTLS out (starttls-gateway probe, from there)",
    ]


def test_a_version_that_nobody_knows_is_the_newest() -> None:
    assert lines([fact("tls", "TLSv1.4"), fact("tls", "TLSv1.3")])[0].lowest == "TLSv1.3"


def test_users_are_named_beside_networks() -> None:
    clear = [
        fact("clear", "optional", network="10.0.0.0/24"),
        fact("clear", "optional", network=of_user("hans")),
        fact("clear", "optional", network=of_user("gr\x1bete")),
    ]
    assert one("policy required", said(*clear)) == (
        "policy required on smtp would have refused 1 network in 30 days: 10.0.0.0/24 (users: gr\ufffdete, hans)"
    )
    assert one("policy required", said(*clear[1:])) == (
        "policy required on smtp would have refused 2 users in 30 days: gr\ufffdete, hans"
    )
    groups = [fact("group", "x25519", network=name) for name in ("10.0.0.0/24", of_user("hans"))]
    groups += [fact("group", "X25519MLKEM768")]
    assert one("50 %", said(*groups)).endswith("; 1 network came without that in 30 days")
    found = lines([*clear, *groups])
    assert [(line.network, line.user) for line in found] == [("10.0.0.0/24", ""), ("", "gr\x1bete"), ("", "hans")]


def test_facts_of_an_event_are_of_its_network_and_of_its_user() -> None:
    waiting = pending()
    waiting.hear("session", "smtp", "192.0.2.7", {**CLEAR, "user": "grete"})
    waiting.hear("downgrade", "smtp", "192.0.2.7", {"action": "logged", "user": "grete"})
    waiting.hear("downgrade", "smtp", "192.0.2.7", {"action": "logged"})
    assert {(network, kind) for _, network, kind, _ in facts(waiting.take())} == {
        ("192.0.2.0/24", "clear"), ("user:grete", "clear"), ("user:grete", "downgrade"), ("192.0.2.0/24", "downgrade")
    }  # fmt: skip


def test_the_report_as_text_json_and_csv() -> None:
    known = [
        fact("tls", "TLSv1.2"), fact("cipher", "AES128-SHA"), fact("group", "x25519"), fact("no-sni"),
        fact("clear", "optional", network=of_user("=HYPERLINK(1)\x1b[31m")),
    ]  # fmt: skip
    text = "\n".join(written(known, START, 30, None, "text"))
    assert "smtp     10.0.0.0/24" in text
    assert "=HYPERLINK(1)\ufffd[31m" in text
    assert "\x1b" not in text
    whole = json.loads("".join(written(known, START, 30, None, "json")))
    assert [one["network"] for one in whole["networks"]] == ["10.0.0.0/24"]
    assert [one["user"] for one in whole["users"]] == ["=HYPERLINK(1)\x1b[31m"]
    rows = list(csv.DictReader(io.StringIO("".join(written(known, START, 30, None, "csv")))))
    assert [(row["network"], row["user"]) for row in rows] == [("10.0.0.0/24", ""), ("", "'=HYPERLINK(1)\ufffd[31m")]
    assert next(iter(written([], START, 30, None, "text"))) == "the last 30 days; facts are kept since 2023-11-14"
    assert json.loads("".join(written([], START, 30, None, "json")))["since"] is None


# --- a month -------------------------------------------------------------------------------------

DAYS = 92
"""The simulated time: three months, for what was last seen two months ago; the report is about its last 30 days."""
SESSIONS = 3
"""A day, of each network."""


def network(number: int) -> str:
    return f"10.1.{number}.0/24"


def behaviour(number: int, day: int) -> Mapping[str, Any] | None:
    """What the clients of a network do on a day."""
    if number < 3:
        return CLEAR
    if number < 8:
        return TLS10 if day < DAYS - 61 else TLS12
    if number < 18:
        return TLS12
    if number == 18:
        return TLS13 if day < DAYS - 5 else CLEAR
    if number == 19:
        return None if day > 10 else TLS13
    return TLS13


def test_a_simulated_month(tmp_path: Path) -> None:
    """200 networks, some without TLS, some with TLS 1.0, one that was downgraded; and the gateway "
    "restarts every day."""
    counted: Counter[tuple[str, str]] = Counter()
    told: list[tuple[int, Mapping[str, object]]] = []
    began = START - DAYS * DAY
    for day in range(DAYS):
        threads, waiting = Threads(), pending(CLOCK)
        watching = watch()
        watching.load(habits(Store(tmp_path / "r.db").facts()))
        keeper = Keeper(threads, Store(tmp_path / "r.db"), waiting, 90.0 * DAY, CLOCK, pytest.fail)
        for hour in range(SESSIONS):
            CLOCK.now = began + day * DAY + hour * 3600.0
            for number in range(200):
                if (fields := behaviour(number, day)) is None:
                    continue
                client = f"10.1.{number}.{hour + 1}"
                secured = bool(fields.get("tls"))
                if not secured and (dates := watching.always("submission", client)):
                    told.append((number, dates))
                    waiting.hear("downgrade", "submission", client, {"action": "logged", **dates})
                watching.over("submission", client, secured=secured)
                waiting.hear("session", "submission", client, fields)
                if number == 2:
                    waiting.hear("auth", "submission", f"10.1.{number}.7", {"result": "ok", "mechanism": "PLAIN"})
                if number in (2, 51):
                    waiting.hear("tls-required", "submission", client, {})
                if number == 50:
                    waiting.hear("tls-failed", "submission", "10.1.50.9", {"detail": "alert: certificate_expired"})
                counted[network(number), str(fields.get("tls") or "clear")] += 1
            keeper.tick()
            threads.run()
        keeper.finish()
    known = Store(tmp_path / "r.db").facts()
    setup = Setup(legacy_clients=True, policies={"submission": ("optional",)})
    assert advice(known, START, 30, setup) == [
        "policy required on submission would have refused 4 networks in 30 days: 10.1.0.0/24, 10.1.1.0/24, "
        "10.1.2.0/24, "
        "10.1.18.0/24",
        "passwords came in the clear on submission from 1 network in 30 days: 10.1.2.0/24; policy auth-only would have "
        "refused these",
        "2 networks were refused on submission for want of TLS in 30 days: 10.1.2.0/24, 10.1.51.0/24; 1 of them never "
        "used TLS there",
        "TLS 1.0 was last used 61 days ago: legacy_clients can go",
        "profile modern (TLS 1.3 only) would have refused 15 networks in 30 days: 10.1.3.0/24, 10.1.4.0/24, "
        "10.1.5.0/24, "
        "10.1.6.0/24, 10.1.7.0/24 and 10 more",
        "cipher suites without authenticated encryption (CBC) (ECDHE-RSA-AES256-SHA384) were used by 15 networks in "
        "30 days: 10.1.3.0/24, 10.1.4.0/24, 10.1.5.0/24, 10.1.6.0/24, 10.1.7.0/24 and 10 more",
        "93 % of the sessions with a known group are safe from a later quantum computer; 15 networks came without that "
        "in 30 days",
        "a client of 1 network finds that the certificate has expired (certificate_expired) in 30 days: 10.1.50.0/24; "
        "renew it, or set the client's clock",
        "1 network always used TLS and then came without in 30 days: 10.1.18.0/24; look whether somebody on the way "
        "takes STARTTLS out (starttls-gateway probe, from there)",
    ]
    first, last = _date(began), _date(began + (DAYS - 6) * DAY + 2 * 3600)
    assert told == [(18, {"first_tls": first, "last_tls": last})]
    found = {line.network: line for line in lines(known, START - 30 * DAY)}
    assert set(found) == {network(number) for number in range(200) if number != 19}
    for number in range(200):
        if number == 19:
            continue
        line = found[network(number)]
        seen = {value for (name, value) in counted if name == network(number)}
        now_seen = {str((behaviour(number, day) or {}).get("tls") or "clear") for day in range(DAYS - 30, DAYS)}
        assert (line.first, line.last) == (_first(number, began), began + (DAYS - 1) * DAY + (SESSIONS - 1) * 3600)
        assert line.sessions == sum(counted[network(number), value] for value in seen & now_seen)
        assert line.clear == (counted[network(number), "clear"] if "clear" in now_seen else 0)
        assert line.tls_required == (line.sessions if number in (2, 51) else 0)
        assert line.lowest == min(now_seen - {"clear"}, default="")
    assert (tmp_path / "r.db").stat().st_size < 1_000_000
    # 90 days are kept, and nothing older.
    assert min(fact.last for fact in known) >= START - 91 * DAY
    assert advice(merged(known, []), START, 30, setup) == advice(Store(tmp_path / "r.db").facts(), START, 30, setup)


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _first(number: int, began: int) -> int:
    """When what a network still does in the last month began."""
    now = behaviour(number, DAYS - 1) or {}
    day = next(day for day in range(DAYS) if (behaviour(number, day) or {}) == now)
    if number == 18:
        day = 0  # TLS, until five days before the end
    return began + day * DAY


def test_no_secret_and_no_address_is_kept(tmp_path: Path) -> None:
    waiting = pending()
    keeper = Keeper(Threads(), Store(tmp_path / "r.db"), waiting, 90.0 * DAY, Clock(), pytest.fail)
    waiting.hear("session", "smtp", "192.0.2.77", {**TLS13, "sni": "secret.example.org", "detail": "secret"})
    keeper.finish()
    octets = (tmp_path / "r.db").read_bytes()
    assert b"192.0.2.0/24" in octets
    assert not re.search(rb"192\.0\.2\.77|secret", octets)
