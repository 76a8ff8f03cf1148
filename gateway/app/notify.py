"""What systemd is told of the service's state, in datagrams (sd_notify(3)); nothing where nobody wants to know."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress


class Notifier:
    """Speaks to the socket that `NOTIFY_SOCKET` names.  A message that cannot be sent is lost, and harms nothing."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._socket: socket.socket | None = None
        self._status = ""
        self.kept: set[str] = set()
        """Names of what is in systemd's store of descriptors."""

    def open(self) -> None:
        """While the path can be reached: before a chroot, and with all rights."""
        path = self._environment.get("NOTIFY_SOCKET", "")
        if self._socket is not None or not path.startswith(("/", "@")):
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            sock.setblocking(False)
            # The name of an abstract socket begins with NUL.
            sock.connect(f"\0{path[1:]}" if path.startswith("@") else path)
        except OSError:
            sock.close()
        else:
            self._socket = sock

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @property
    def watchdog(self) -> float | None:
        """Seconds between two heartbeats: half of what the unit's WatchdogSec allows; None where it has none."""
        allowed = self._environment.get("WATCHDOG_USEC", "")
        meant = self._environment.get("WATCHDOG_PID", str(os.getpid()))
        if self._socket is None or not allowed.isdecimal() or not int(allowed) or meant != str(os.getpid()):
            return None
        return int(allowed) / 2e6

    def ready(self, status: str) -> None:
        """The service serves; or the reload is over, whatever became of it.

        It is a heartbeat, too: after an upgrade nobody else has told of one for a while."""
        self._status = status
        beat = () if self.watchdog is None else ("WATCHDOG=1",)
        self._send("READY=1", f"MAINPID={os.getpid()}", f"STATUS={status}", *beat)

    def reloading(self) -> None:
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        self._status = status
        self._send("STOPPING=1", f"STATUS={status}")

    def status(self, text: str) -> None:
        """What `systemctl status` shows; sent where it has changed."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def keep(self, wanted: Mapping[str, Sequence[int]]) -> None:
        """Let systemd's store have these descriptors, by their names, and no others of ours.

        Nothing happens without the variable FDSTORE: the unit has no store (FileDescriptorStoreMax=) then.
        """
        room = self._environment.get("FDSTORE", "")
        if self._socket is None or not room.isdecimal() or not int(room):
            return
        for name in self.kept - wanted.keys():
            self._send("FDSTOREREMOVE=1", f"FDNAME={name}")
        for name in wanted.keys() - self.kept:
            with suppress(OSError):
                socket.send_fds(self._socket, [f"FDSTORE=1\nFDNAME={name}".encode()], list(wanted[name]))
        self.kept = set(wanted)

    def beat(self) -> None:
        """The reactor turns."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.send("\n".join(lines).encode())
