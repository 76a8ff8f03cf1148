"""The playbook itself: a test that does not play what it wrote fails."""

from __future__ import annotations

import pytest

from gateway.dialects import DIALECTS
from tests.pure.conftest import pytest_runtest_call
from tests.pure.playbook import DIAL, Playbook


def test_a_playbook_that_is_never_run_fails_its_test(request: pytest.FixtureRequest) -> None:
    hook = pytest_runtest_call(request.node)
    next(hook)
    Playbook(DIALECTS["pop3"]).start(DIAL)
    with pytest.raises(AssertionError, match=r"add \.run\(\) to\n *start"):
        next(hook)
    assert not Playbook.unplayed
