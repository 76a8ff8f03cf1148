"""How long a wait may last, and who is to blame for one that lasted longer."""

from __future__ import annotations

import pytest

from gateway.negotiation.filters import Counted
from gateway.negotiation.vocabulary import (
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
from gateway.negotiation.waiting import lateness, patience_for

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND


@pytest.mark.parametrize(("wait", "patience", "key", "side"), [
    (None, None, "backend-timeout", BACKEND),
    (Dial(), None, "backend-timeout", BACKEND),
    (StartTLS(CLIENT), Patience.HANDSHAKE, "tls-failed", CLIENT),
    (StartTLS(BACKEND), Patience.HANDSHAKE, "backend-tls-failed", BACKEND),
    (Await((BACKEND,), Patience.GREETING, 512), Patience.GREETING, "backend-greeting-timeout", BACKEND),
    (Await((BACKEND,), Patience.REPLY, 512), Patience.REPLY, "backend-timeout", BACKEND),
    (Await((BACKEND, CLIENT), Patience.COMMAND, 512), Patience.COMMAND, "client-timeout", CLIENT),
    (Take(CLIENT, 4), Patience.DATA, "client-timeout", CLIENT),
    (Peek(BACKEND), Patience.DATA, "backend-timeout", BACKEND),
    (Pass(BACKEND, Counted(4)), Patience.DATA, "backend-timeout", BACKEND),
])  # fmt: skip
def test_a_wait_that_lasts_too_long_is_somebodys_fault(
    wait: Wait | None, patience: Patience | None, key: str, side: Side
) -> None:
    assert patience_for(wait) is patience
    trouble = lateness(wait)
    assert isinstance(trouble, Expired | TLSFailed)
    assert (trouble.key, trouble.side) == (key, side)
