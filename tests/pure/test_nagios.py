"""What Nagios hears."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.cli.steer.nagios import CRITICAL, OK, UNKNOWN, WARNING, judged, line


def address(state: str) -> dict[str, Any]:
    return {"address": f"10.0.0.5:{len(state)}", "state": state, "sessions": 0}


def backend(*states: str) -> dict[str, Any]:
    return {"backends": [{"name": "store", "tls": "none", "addresses": [address(state) for state in states]}]}


def service(**more: object) -> dict[str, Any]:
    return {"services": [{"name": "imap", "draining": False, "refusal": None, **more}]}


def certificate(days: int) -> dict[str, Any]:
    return {"certificates": [{"file": "a.pem", "days": 90}, {"file": "b|.pem", "days": days}]}


GOOD: dict[str, Any] = {
    "sessions": 128, "limit": 10000, "draining": None, "reload": None, "warnings": [], "processes": [{}, {}],
    **service(), **backend("up", "up"), **certificate(61),
}  # fmt: skip


def test_all_is_well() -> None:
    assert judged(GOOD, 14, 3) == (
        OK,
        "GATEWAY OK - 128 sessions, 1 service, certificates for 61 days | sessions=128;9000;;0;10000 "
        "addresses_not_up=0;0;;0 certificate_days=61;14:;3: workers=2;;;0",
    )
    status, told = judged({**GOOD, "certificates": [], "reload": {"good": True}}, 14, 3)
    assert (status, "certificate" in told) == (OK, False)


@pytest.mark.parametrize(("more", "status", "words"), [
    (certificate(13), WARNING, "b/.pem ends in 13 days"),
    (certificate(2), CRITICAL, "b/.pem ends in 2 days"),
    (certificate(-1), CRITICAL, "b/.pem has expired"),
    (service(draining=True, refusal="drained"), WARNING, "service imap is drained"),
    (service(refusal="open-relay"), CRITICAL, "service imap serves nobody (open-relay)"),
    (backend("up", "down"), WARNING, "backend 10.0.0.5:4 down"),
    (backend("unknown"), WARNING, "backend 10.0.0.5:7 unknown"),
    (backend("down", "relays"), CRITICAL, "backend 10.0.0.5:4 down, 10.0.0.5:6 relays"),
    ({"draining": {"sessions": 3, "left": 1.0}}, WARNING, "the gateway stops, with 3 sessions left"),
    ({"reload": {"good": False}}, WARNING, "the last reload was refused"),
    ({"warnings": ["worker 1 does not answer"]}, WARNING, "worker 1 does not answer"),
    ({"sessions": 9000}, WARNING, "9000 of 10000 sessions"),
])  # fmt: skip
def test_what_is_wrong_is_told(more: dict[str, Any], status: int, words: str) -> None:
    found, told = judged({**GOOD, **more}, 14, 3)
    assert found == status
    assert told.startswith(f"GATEWAY {['', 'WARNING', 'CRITICAL'][status]} - {words} | ")


def test_the_worst_comes_first() -> None:
    _, told = judged({**GOOD, **certificate(13), **backend("down")}, 14, 3)
    assert told.startswith("GATEWAY CRITICAL - backend 10.0.0.5:4 down; b/.pem ends in 13 days | ")


def test_without_an_answer_there_are_no_figures() -> None:
    assert line(UNKNOWN, "who knows") == "GATEWAY UNKNOWN - who knows"
