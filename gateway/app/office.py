"""What the admin listener asks of the gateway as a whole: the report, and what an administrator wants done.

Another process makes the report: no session waits for months of facts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.threads import deferToThreadPool

from ..config.values import Configuration
from ..records import dataclass
from ..telemetry.admin.acting import Action, Result
from ..telemetry.admin.making import NoReport
from ..telemetry.observation import Standing
from ..telemetry.summary import Teller
from .control.messages import Request
from .control.server import Ask
from .plan import setup_of

LONGEST: Final = 25.0
"""Seconds that it may take."""
_PROGRAM: Final = """
import sys
sys.path[:] = sys.argv[1:]
from gateway.telemetry.admin.making import main
main()
"""
"""The modules come from where this program's came from, and not from the current directory, which may be anybody's."""


@dataclass(frozen=True, slots=True)
class Clerk:
    """An Office of the admin listener."""

    reactor: Any
    configuration: Callable[[], Configuration]
    standing: Callable[[], Standing]
    ask: Ask
    events: Teller

    def act(self, action: Action, who: str) -> Deferred[tuple[Result, Sequence[str]]]:
        """As at the control socket, and told in the log like that."""
        self.events.emit("control", command=action.command, about=action.about, user=who)
        request = Request(action.command, action.about, action.seconds, action.kick)
        return maybeDeferred(self.ask, request).addCallback(lambda answer: (answer.result, answer.problems))

    def report(self, days: int, form: str) -> Deferred[bytes]:
        """The report of the last days as `html`, `json` or `csv`.  Fails with NoReport."""
        configuration, standing = self.configuration(), self.standing()
        file = configuration.report.file
        if file is None:
            return fail(NoReport("The gateway keeps no report: name a file in [report]."))
        setup = setup_of(configuration)
        order = {
            "file": str(file), "days": days, "form": form, "now": int(time.time()),
            "hostname": standing.hostname, "version": standing.version,
            "legacy_clients": setup.legacy_clients,
            "policies": {name: list(policies) for name, policies in (setup.policies or {}).items()},
            "unprotected": list(setup.unprotected),
        }  # fmt: skip
        return deferToThreadPool(self.reactor, self.reactor.getThreadPool(), _made, json.dumps(order).encode())


def _made(order: bytes) -> bytes:
    """In a thread, which waits."""
    made = subprocess.run(
        [sys.executable, "-I", "-c", _PROGRAM, *sys.path], input=order, capture_output=True, timeout=LONGEST
    )
    if made.returncode == 1:
        raise NoReport(made.stderr.decode("utf-8", "replace").strip())
    made.check_returncode()
    return made.stdout
