"""Idle slow clients, a small crowd of them: `make slow` has five thousand and the gateway's own deadlines."""

from __future__ import annotations

from pathlib import Path

from gateway.config.values import Timeouts
from soak.crowd import Stage
from soak.front import serving
from soak.slow import crowd_out

CLIENTS = 200
TIMEOUTS = Timeouts(handshake=3.0, preauth=5.0)


def test_K1_K2_K11_slow_clients_at_every_stage_keep_nobody_out_and_leave_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, TIMEOUTS) as (gateway, trusting):
        crowds = [crowd_out(gateway, trusting, CLIENTS, 0.5, 30, TIMEOUTS) for _ in range(2)]
        # Each has a line of its own: none is cut off without a reason.
        gateway.log.wait("session", reason="client-timeout")
    for found in crowds:
        print(f"{found}\n")
        assert found.left == 0
        assert set(found.lasted) == {stage.value for stage in Stage}
        # The machine is not ours alone.
        assert max(found.late.values()) < 5.0
        assert found.latency < 2.0 or max(found.among) < 0.25
    assert crowds[1].after < 1.1 * crowds[0].after
