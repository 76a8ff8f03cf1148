"""`twistd -n starttls-gateway --demo`: the gateway with ten test servers behind it."""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred

if TYPE_CHECKING:
    from twisted.internet.address import IPv4Address
    from twisted.internet.interfaces import IListeningPort

    from ..telemetry.events import Events

PORTS: Mapping[str, int] = {
    "smtp": 2525,
    "submission": 2587,
    "submissions": 2465,
    "imap": 2143,
    "imaps": 2993,
    "pop3": 2110,
    "pop3s": 2995,
    "lmtp": 2024,
    "sieve": 4190,
    "nntp": 2119,
    "nntps": 2563,
    "irc": 6667,
    "ircs": 6697,
    "ftp": 2021,
    "ftps": 2990,
    "postgresql": 5433,
    "http": 2080,
    "https": 2443,
}


class Demo(MultiService):
    """Starts the legacy servers on free ports, then the gateway."""

    def __init__(self, events: Events, ports: Mapping[str, int] = PORTS) -> None:
        """`ports`: 0 means a free port, which the `listening` event has."""
        super().__init__()
        self._events = events
        self._ports = ports
        self._legacy: dict[str, IListeningPort] = {}
        self._directory = ""

    def privilegedStartService(self) -> None:
        self._assemble()
        super().privilegedStartService()

    def startService(self) -> None:
        from .instructions import instructions

        self._assemble()  # `twist` skips the privileged step
        super().startService()
        # sys.stdout is the log now.  Commands with a time stamp cannot be copied.
        print(instructions(Path(self._directory, "localhost.pem"), self._ports), file=sys.__stdout__, flush=True)

    def _assemble(self) -> None:
        if self._legacy:
            return
        # Here, because twisted.mail imports the reactor, which `twistd -r` chooses first.
        from twisted.internet import reactor

        from ..app.service import Gateway
        from .configuration import configuration, self_signed
        from .legacy import listen

        self._directory = tempfile.mkdtemp(prefix="starttls-gateway-demo-")
        atexit.register(shutil.rmtree, self._directory, ignore_errors=True)  # for a start that fails
        self._legacy = listen(reactor, Path(self._directory))
        backends = {protocol: cast("IPv4Address", port.getHost()).port for protocol, port in self._legacy.items()}
        tls = self_signed(Path(self._directory))
        self.addService(Gateway(configuration(tls, backends, self._ports), self._events))

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await maybeDeferred(super().stopService)  # sessions that are ending need the legacy servers
        for port in self._legacy.values():
            await maybeDeferred(port.stopListening)
        shutil.rmtree(self._directory, ignore_errors=True)  # twistd may die of SIGTERM, without atexit
