"""What went wrong with clients: what is remembered, and how it is explained."""

from __future__ import annotations

import tracemalloc
from ipaddress import ip_network
from typing import Any

import pytest

from gateway.telemetry.catalogue import EVENTS
from gateway.telemetry.explaining import HANDSHAKES, LIMITS, explained
from gateway.telemetry.failures import EACH, LONGEST, MOST, TEXTS, Failure, Failures
from gateway.telemetry.report.alerts import ALERTS
from tests.pure.test_bans import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def failures(clock: Clock) -> Failures:
    return Failures(clock)


def of(failures: Failures, network: str = "192.0.2.1") -> list[Failure]:
    return failures.of(ip_network(network))


def failure(event: str, cause: str = "", **more: Any) -> Failure:
    return Failure(
        event, "imap", cause, **{"tls": "", "cure": "", "client": "192.0.2.1", "first": 1, "last": 1, **more}
    )


@pytest.mark.parametrize(("event", "fields", "kept"), [
    ("tls-failed", {"detail": "no shared cipher"}, ("tls-failed", "no shared cipher")),
    ("auth", {"result": "failed", "mechanism": "PLAIN"}, ("auth", "PLAIN")),
    ("auth", {"result": "ok", "mechanism": "PLAIN"}, None),
    ("refused", {"limit": "banned"}, ("refused", "banned")),
    ("tls-required", {}, ("tls-required", "")),
    ("backend-refused", {"text": b"550 no\xff"}, ("backend-refused", "550 no\\xff")),
    ("session", {"reason": "tls-failed"}, None),  # it has been told
    ("session", {"reason": "quit"}, None),
    ("session", {"reason": "kicked"}, ("kicked", "")),
    ("backend-closed", {}, None),
    ("secured", {"leg": "client"}, None),
    ("no-such-event", {}, None),
])  # fmt: skip
def test_failures_are_remembered_and_nothing_else(
    failures: Failures, event: str, fields: dict[str, Any], kept: tuple[str, str] | None
) -> None:
    failures.hear(event, "imap", "192.0.2.1", fields)
    assert [(one.event, one.cause) for one in of(failures)] == ([] if kept is None else [kept])
    failures.hear(event, "imap", "", fields)
    assert len(failures) == (kept is not None)


def test_equal_failures_are_one_and_the_latest_comes_first(failures: Failures, clock: Clock) -> None:
    for detail in ("a", "b", "a"):
        failures.hear("tls-failed", "imap", "192.0.2.1", {"detail": detail})
        clock.now += 10
    failures.hear("auth", "imap", "192.0.2.9", {"result": "failed", "tls": "TLSv1.3"})
    first, *others = of(failures, "192.0.2.0/28")
    assert (first.event, first.tls, first.client) == ("auth", "TLSv1.3", "192.0.2.9")
    assert [(one.cause, one.count, one.first, one.last) for one in others] == [
        ("a", 2, 1000.0, 1020.0), ("b", 1, 1010.0, 1010.0)
    ]  # fmt: skip
    assert of(failures, "192.0.2.128/25") == of(failures, "::/0") == []


def test_an_ipv6_client_is_its_network(failures: Failures) -> None:
    failures.hear("tls-required", "imap", "2001:db8::7", {})
    failures.hear("tls-required", "imap", "2001:db8::8", {})
    (one,) = of(failures, "2001:db8::/64")
    assert (one.client, one.count) == ("2001:db8::8", 2)


@pytest.mark.no_cover
def test_the_memory_is_bounded_whatever_clients_do() -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        failures = Failures()
        for number in range(3 * MOST):
            for kind in range(EACH + 2):
                words = f"{kind:04}" + "x" * 5000
                client = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
                failures.hear("backend-refused", "imap", client, {"text": words, "cure": words})
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(failures) == MOST
    assert after - before < 16_000_000
    assert of(failures, "10.0.0.0") == []
    kept = of(failures, f"10.0.{(3 * MOST - 1) >> 8}.{(3 * MOST - 1) & 255}")
    assert sorted(one.cause[:4] for one in kept) == ["0002", "0003", "0004", "0005", "0006", "0007"]
    assert all(len(one.cause) == LONGEST for one in kept)


# --- in words --------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", LIMITS)
def test_each_refusal_is_explained(limit: str) -> None:
    words, cure = explained(failure("refused", limit))
    assert words
    assert "CLIENT" not in cure
    assert "SERVICE" not in cure


def test_a_limit_that_is_not_in_the_table_is_explained_by_the_catalogue() -> None:
    assert explained(failure("refused", "weather"))[0].startswith("a limit of `[limits]` was reached")


@pytest.mark.parametrize(("detail", "words"), [
    ("alert: unknown ca", "TLS handshake: the client does not know the issuer of the certificate"),
    *((part, words) for parts, words, _ in HANDSHAKES for part in parts),
    ("a riddle", EVENTS["tls-failed"].meaning),
])  # fmt: skip
def test_each_handshake_is_explained(detail: str, words: str) -> None:
    told, cure = explained(failure("tls-failed", detail))
    assert told == words
    assert cure
    assert "unknown_ca" in ALERTS


@pytest.mark.parametrize(("tls", "inside"), [("TLSv1.3", "inside TLSv1.3"), ("", "in the clear")])
def test_a_login_is_explained(tls: str, inside: str) -> None:
    words, cure = explained(failure("auth", "PLAIN", tls=tls))
    assert words == f"the backend rejected the login (PLAIN, {inside})"
    assert "password" in cure


def test_where_a_line_knows_the_cure_it_is_told() -> None:
    assert explained(failure("backend-requires-tls", "530", cure="do this"))[1] == "do this"
    assert explained(failure("tls-required"))[1].startswith("set the client to STARTTLS")


def test_links_to_pages_are_left_out() -> None:
    assert explained(failure("downgrade"))[0].endswith("takes STARTTLS out")


@pytest.mark.parametrize("name", sorted(name for name, row in EVENTS.items() if row.attack))
def test_what_looks_like_an_attack_has_a_cure(name: str) -> None:
    """It may be an honest program."""
    assert explained(failure(name))[1]


def test_equal_texts_are_one_object_however_many_others_there_were(failures: Failures) -> None:
    def hear(number: int, cause: str) -> str:
        failures.hear("tls-failed", "imap", f"192.0.2.{number}", {"detail": cause})
        return of(failures, f"192.0.2.{number}")[-1].cause  # all at the same time

    one, other = "handshake timed out", b"handshake timed out".decode()
    assert one is not other
    assert hear(1, one) is hear(2, other) is one
    causes = [hear(3, f"cause {number}") for number in range(2 * TEXTS)]
    assert causes == [f"cause {number}" for number in range(2 * TEXTS)]
    assert len(failures._texts) <= TEXTS
    assert hear(4, other) is other
