"""What a running gateway answers, in words."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.cli.steer.words import WORDS, duration, octets, seconds


@pytest.mark.parametrize(("seconds", "words"), [
    (0, "0 s"), (59.9, "59 s"), (60, "1 min 0 s"), (3600, "1 h 0 min"), (3725, "1 h 2 min"), (90061, "1 d 1 h"),
])  # fmt: skip
def test_durations_have_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(("number", "words"), [
    (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (20 * 2**20, "20 MiB"), (2**50, "1024 TiB"),
])  # fmt: skip
def test_octets_have_a_unit(number: int, words: str) -> None:
    assert octets(number) == words


STATUS: dict[str, Any] = {
    "gateway": {"version": "1.2", "hostname": "mx.example.org", "file": "/etc/gw.ini", "user": "gw", "pid": 6},
    "processes": [{"pid": 7, "uptime": 61.0, "sessions": 2}, {"pid": 8, "uptime": 5.0, "sessions": 1}],
    "sessions": 3, "limit": 100, "draining": None, "reload": None, "warnings": [],
    "services": [
        {"name": "imap", "protocol": "imap", "backend": "store", "sessions": 3, "draining": False, "refusal": None,
         "listeners": [{"address": "*:143", "mode": "starttls", "policy": "required"},
                       {"address": "*:993", "mode": "implicit", "policy": None}]},
        {"name": "mx", "protocol": "smtp", "backend": "old", "sessions": 0, "draining": True, "refusal": None,
         "listeners": [{"address": "*:25", "mode": "starttls", "policy": "auth-only"}]},
        {"name": "sub", "protocol": "smtp", "backend": "old", "sessions": 0, "draining": False, "refusal": "open-relay",
         "listeners": [{"address": "*:587", "mode": "starttls", "policy": "required"}]},
    ],
    "backends": [{"name": "store", "tls": "none", "addresses": [
        {"address": "a:143", "state": "up", "sessions": 3}, {"address": "b:143", "state": "down", "sessions": 0},
    ]}],
    "certificates": [{"file": "own.pem", "days": 21, "names": ["a.example.org", "b.example.org"]}],
}  # fmt: skip


def test_status_is_one_screen() -> None:
    assert (
        "\n".join(WORDS["status"](STATUS))
        == """\
starttls-gateway 1.2, mx.example.org: process 6, as gw
workers     7 (up 1 min 1 s), 8 (up 5 s)
file        /etc/gw.ini
sessions    3 of 100
reload      none since the start

service  protocol  listens on  TLS       policy     state                    sessions  backend
imap     imap      *:143       STARTTLS  required   open                     3         store
imap     imap      *:993       implicit  -          open                               store
mx       smtp      *:25        STARTTLS  auth-only  DRAINING                 0         old
sub      smtp      *:587       STARTTLS  required   NOT SERVED (open-relay)  0         old

backend  address  TLS   state  sessions
store    a:143    none  up     3
store    b:143    none  DOWN   0

certificate  days  names
own.pem      21    a.example.org b.example.org"""
    )


def test_status_tells_what_is_not_as_it_should_be() -> None:
    reload = {"time": "2026-01-31T12:00:00+00:00", "good": False, "problems": ["gw.ini, line 3: no"]}
    draining = {"sessions": 37, "left": 21.4}
    told = {**STATUS, "draining": draining, "reload": reload, "warnings": ["own.pem: expired"]}
    lines = list(WORDS["status"](told))
    assert lines[4:8] == [
        "draining    37 sessions, 21 s left",
        "reload      2026-01-31T12:00:00+00:00 REFUSED; the file before is in use",
        "            gw.ini, line 3: no",
        "warning     own.pem: expired",
    ]
    old = [{"pid": 4, "sessions": 1, "left": 61.2}, {"pid": 5, "sessions": None, "left": 9.0}]
    assert list(WORDS["status"]({**STATUS, "old_programs": old}))[4:6] == [
        "old program 4: 1 session, for 1 min 1 s at most",
        "old program 5: ?, for 9 s at most",
    ]
    good = {**STATUS, "reload": {**reload, "good": True, "problems": []}}
    assert "reload      2026-01-31T12:00:00+00:00 ok" in WORDS["status"](good)
    alone = {**STATUS, "gateway": {**STATUS["gateway"], "pid": 7}, "processes": STATUS["processes"][:1]}
    lines = list(WORDS["status"](alone))
    assert lines[0].endswith(": process 7 (up 1 min 1 s), as gw")
    assert not any(line.startswith("workers") for line in lines)
    without = {**STATUS, "gateway": {**STATUS["gateway"], "file": None}}
    assert "file        none" in WORDS["status"](without)


NOTHING: dict[str, Any] = {"file": "gw.ini", "good": True, "changes": [], "opened": [], "closed": [], "warnings": []}


def test_reload_tells_what_has_changed() -> None:
    assert list(WORDS["reload"](NOTHING)) == ["gw.ini: in use; nothing in it has changed"]
    told = {**NOTHING, "changes": ["[limits] changed"], "opened": ["a", "b"], "closed": ["c"], "warnings": ["old"]}
    assert list(WORDS["reload"](told)) == [
        "gw.ini: in use now", "  [limits] changed", "  opened a b", "  closed c", "  warning: old"
    ]  # fmt: skip
    refused = "gw.ini: refused; the file before stays in use"
    assert list(WORDS["reload"]({**NOTHING, "good": False})) == [refused]
    assert list(WORDS["reload"]({**NOTHING, "good": False, "file": ""})) == ["refused"]


def test_drain_and_undrain_tell_whom() -> None:
    told = {"what": "service", "names": ["imap"], "draining": True, "sessions": 2}
    assert list(WORDS["drain"](told)) == ["service imap: takes nobody new; 2 sessions there, and idle ones are ended"]
    told = {"what": "backend", "names": ["a:1", "b:1"], "draining": False, "sessions": 2}
    assert list(WORDS["undrain"](told)) == ["backend address a:1, b:1: takes sessions again"]


def test_who_is_a_table() -> None:
    row = {
        "id": "3f2a", "service": "imap", "client": "192.0.2.7", "tls": "TLSv1.3", "phase": "relaying",
        "backend": "a:143", "age": 61.0, "idle": 3.2, "received": 100, "sent": 2048, "counts": {},
    }  # fmt: skip
    bare = {**row, "counts": {"messages": 2}, "client": "", "tls": None, "backend": None, "idle": None}
    assert (
        "\n".join(WORDS["who"]({"sessions": [row, bare]}))
        == """\
id    service  client     TLS      phase     backend  age        idle  received  sent     counted
3f2a  imap     192.0.2.7  TLSv1.3  relaying  a:143    1 min 1 s  3 s   100 B     2.0 KiB
3f2a  imap     -          -        relaying  -        1 min 1 s  -     100 B     2.0 KiB  2 messages"""
    )


def test_kick_counts() -> None:
    assert list(WORDS["kick"]({"sessions": 2})) == ["2 sessions cut off"]


@pytest.mark.parametrize(
    ("text", "seconds_"), [("30s", 30), ("10m", 600), ("10 min", 600), ("1h", 3600), ("7 d", 604800)]
)
def test_a_time_is_a_number_and_a_unit(text: str, seconds_: float) -> None:
    assert seconds(text) == seconds_


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "1.5h", "1w", "1h30m"])
def test_anything_else_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="write a number and s, m, h or d, like 1h"):
        seconds(text)


def test_bans_are_told() -> None:
    told = {"network": "192.0.2.0/24", "until": "2026-01-31T12:00:00+00:00", "sessions": 0, "kicked": False}
    begun = "192.0.2.0/24: banned until 2026-01-31T12:00:00+00:00"
    assert list(WORDS["ban"](told)) == [begun]
    assert list(WORDS["ban"]({**told, "sessions": 2})) == [
        begun, "2 sessions still open; `kick 192.0.2.0/24` ends them"
    ]  # fmt: skip
    assert list(WORDS["ban"]({**told, "sessions": 2, "kicked": True})) == [begun, "2 sessions cut off"]
    assert list(WORDS["unban"]({"networks": ["192.0.2.1/32"]})) == ["192.0.2.1/32: banned no more"]
    assert list(WORDS["bans"]({"bans": [{"network": "192.0.2.1/32", "until": "U", "left": 61.2}]})) == [
        "banned        until  left", "192.0.2.1/32  U      1 min 1 s"
    ]  # fmt: skip


def test_why_tells_bans_and_failures_with_cures() -> None:
    nothing = {"network": "192.0.2.1", "bans": [], "failures": [], "remembered": 3}
    assert list(WORDS["why"](nothing)) == [
        "192.0.2.1: nothing went wrong that is known; failures of 3 clients are remembered"
    ]
    failure = {
        "client": "192.0.2.1", "service": "imap", "event": "auth", "words": "rejected", "cause": "PLAIN",
        "cure": "mend it", "first": "F", "last": "L", "count": 2,
    }  # fmt: skip
    once = {**failure, "count": 1, "cause": "", "cure": ""}
    bans = [{"network": "192.0.2.0/24", "until": "U", "left": 1.0}]
    assert list(WORDS["why"]({**nothing, "bans": bans, "failures": [failure, once]})) == [
        "192.0.2.0/24 is banned until U; `unban 192.0.2.0/24` lets it in again",
        "L  192.0.2.1  imap, 2 times since F", "    rejected (auth: PLAIN)", "    what to do: mend it",
        "L  192.0.2.1  imap", "    rejected (auth)",
    ]  # fmt: skip


def test_an_upgrade_in_words() -> None:
    assert list(WORDS["upgrade"]({"version": "1.3", "pid": 9, "before": 7})) == [
        "version 1.3 serves now, as process 9",
        "  process 7 accepts nobody any more; it ends with its last session, or after old_sessions",
    ]
