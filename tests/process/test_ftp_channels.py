"""FTP sessions that open data ports leave nothing behind; `make channels` has ten thousand of them."""

from __future__ import annotations

from pathlib import Path

from soak.channels import Course, serving

SESSIONS = 200


def test_sessions_that_open_data_ports_leave_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as (gateway, trusting):
        course = Course.run(gateway, trusting, SESSIONS)
    assert course.sessions == SESSIONS
    assert course.wrong == []
