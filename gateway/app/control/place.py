"""The control socket's file: made for those who may steer the gateway, and never taken from somebody else."""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
import struct
from contextlib import suppress

from ...config.values import Control
from ..rights import user_name

BACKLOG = 16
_PATIENCE = 1.0
"""Seconds that somebody who listens there may take to accept."""


class ControlError(Exception):
    """The control socket cannot be had; the text is one line: why, and the cure."""


class ControlSocket:
    """A UNIX socket that listens, and its file."""

    def __init__(self, values: Control, owner: int | None = None) -> None:
        """`owner`: the user who will have to remove it, if it is another one.  Raises ControlError."""
        assert values.path is not None
        self.values = values
        self.path = values.path
        try:
            self._make_directory(owner)
            self._make_way(owner)
            self.socket = self._bind(owner)
        except OSError as wrong:
            raise ControlError(
                f"{self.path}: {wrong.strerror or wrong}; {_CURES.get(wrong.errno or 0, _CURE)}"
            ) from None
        self._file = _file(self.path)

    @classmethod
    def inherited(cls, path: str, sock: socket.socket) -> ControlSocket:
        """One that another program made at this path, and that listens since then."""
        control = cls.__new__(cls)
        control.values, control.path, control.socket, control._file = Control(path), path, sock, _file(path)
        return control

    def close(self, remove: bool = True) -> None:
        """This process accepts nobody any more.  The file goes too, unless somebody has put another one there.

        `remove`: whether the file goes; another program may accept there.
        """
        self.socket.close()
        if remove and self._file == _file(self.path):
            with suppress(OSError):
                os.unlink(self.path)

    def adjust(self, values: Control) -> None:
        """For another group or other rights, at the same path.  Raises ControlError."""
        try:
            self._give(values, None)
        except OSError as wrong:
            raise _error(self.path, wrong) from None
        self.values = values

    def _give(self, values: Control, owner: int | None) -> None:
        group = -1 if values.group is None else _group(values.group)
        found = os.stat(self.path)
        # Root may have given it to a group that the gateway's user is not in.
        if owner not in (None, found.st_uid) or group not in (-1, found.st_gid):
            os.chown(self.path, -1 if owner is None else owner, group)
        if stat.S_IMODE(found.st_mode) != values.mode:
            os.chmod(self.path, values.mode)

    def _make_directory(self, owner: int | None) -> None:
        directory = os.path.dirname(self.path)
        with suppress(FileExistsError):
            os.mkdir(directory, 0o755)
            if owner is not None:
                os.chown(directory, owner, -1)

    def _make_way(self, owner: int | None) -> None:
        """Remove what a gateway that is gone has left behind.  Raises ControlError for anything else."""
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise ControlError(f"{self.path}: there is a file that is no socket; remove it, or {_CURE}")
        if found.st_uid not in (0, os.geteuid(), owner):
            whose = user_name(found.st_uid)
            raise ControlError(f"{self.path}: the socket there belongs to {whose}; remove it, or {_CURE}")
        if (number := _listening(self.path)) is not None:
            who = f"process {number}" if number else "a living process"
            raise ControlError(f"{self.path}: {who} listens there; stop that gateway, or {_CURE}")
        os.unlink(self.path)

    def _bind(self, owner: int | None) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Nobody else may connect before the file has its mode.
            before = os.umask(0o177)
            try:
                sock.bind(self.path)
            finally:
                os.umask(before)
            try:
                self._give(self.values, owner)
                sock.listen(BACKLOG)
                sock.setblocking(False)
            except BaseException:
                os.unlink(self.path)
                raise
        except BaseException:
            sock.close()
            raise
        return sock


_CURE = "name another place in [gateway] control, or write control = off"
_CURES = {
    errno.EACCES: f"let the gateway's user write to its directory, or {_CURE}",
    errno.EPERM: "root can give it to that group, and so can a user who is in it; change [gateway] control_group",
    errno.ENOENT: f"create the directory, or {_CURE}",
}


def _error(path: str, wrong: OSError) -> ControlError:
    return ControlError(f"{path}: {wrong.strerror or wrong}; {_CURES.get(wrong.errno or 0, _CURE)}")


def _group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ControlError(
            f"control_group: there is no group {name}; `getent group` lists those that there are"
        ) from None


def _listening(path: str) -> int | None:
    """The number of the process that listens there; 0 where it is not known, None where nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(_PATIENCE)
        try:
            caller.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        except OSError:
            return 0
        return credentials(caller)[0]


def credentials(sock: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end of a UNIX socket, as they were when it connected or listened."""
    pid, uid, _gid = struct.unpack(
        "iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    )
    return pid, uid


def _file(path: str) -> tuple[int, int] | None:
    with suppress(OSError):
        found = os.lstat(path)
        return found.st_dev, found.st_ino
    return None
