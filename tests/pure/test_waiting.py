"""How long a wait may last, and who is to blame for one that lasted longer."""

from __future__ import annotations

import pytest

from gateway.protocol.filters import Counted
from gateway.protocol.framing import Lines
from gateway.protocol.vocabulary import (
    Await,
    Dial,
    Expired,
    Pass,
    Patience,
    Peek,
    Side,
    StartTLS,
    Take,
    TLSFailed,
    Wait,
)
from gateway.protocol.waiting import lateness, phase_of

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND


@pytest.mark.parametrize(("wait", "patience", "key", "side"), [
    (Dial(), Patience.CONNECT, "backend-timeout", BACKEND),
    (StartTLS(CLIENT), Patience.HANDSHAKE, "tls-failed", CLIENT),
    (StartTLS(BACKEND), Patience.HANDSHAKE, "backend-tls-failed", BACKEND),
    (Await((BACKEND,), Patience.GREETING, Lines(512)), Patience.GREETING, "backend-greeting-timeout", BACKEND),
    (Await((BACKEND,), Patience.REPLY, Lines(512)), Patience.REPLY, "backend-timeout", BACKEND),
    (Await((BACKEND, CLIENT), Patience.COMMAND, Lines(512)), Patience.COMMAND, "client-timeout", CLIENT),
    (Take(CLIENT, 4), Patience.DATA, "client-timeout", CLIENT),
    (Peek(BACKEND), Patience.DATA, "backend-timeout", BACKEND),
    (Pass(BACKEND, Counted(4)), Patience.DATA, "backend-timeout", BACKEND),
])  # fmt: skip
def test_a_wait_that_lasts_too_long_is_somebodys_fault(wait: Wait, patience: Patience, key: str, side: Side) -> None:
    assert wait.patience is patience
    trouble = lateness(wait)
    assert isinstance(trouble, Expired | TLSFailed)
    assert (trouble.key, trouble.side) == (key, side)


def test_what_has_not_begun_is_the_backends_fault() -> None:
    assert lateness(None).key == "backend-timeout"


@pytest.mark.parametrize(("wait", "secured", "phase"), [
    (None, False, "dialling"),
    (Dial(), True, "dialling"),
    (StartTLS(CLIENT), False, "handshake"),
    (Await((BACKEND,), Patience.GREETING, Lines(512)), True, "greeting"),
    (Await((BACKEND, CLIENT), Patience.COMMAND, Lines(512)), False, "plaintext"),
    (Await((BACKEND, CLIENT), Patience.COMMAND, Lines(512)), True, "secure"),
])  # fmt: skip
def test_the_phase_of_a_session_is_what_it_waits_for(wait: Wait | None, secured: bool, phase: str) -> None:
    assert phase_of(wait, secured) == phase
