"""The user that the gateway runs as after it has given up root's rights: who that is, and what he can still do."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress

from ..records import dataclass

EFFECTIVE = os.access in os.supports_effective_ids


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that the gateway can no longer do about a file of its own."""

    file: str
    detail: str
    cure: str


_LAST_ID = 2**32 - 2
"""The kernel has no users and groups with higher numbers; -1 means none."""
_LAST_PROCESS = 2**22
"""PID_MAX_LIMIT of Linux."""


def uid_of(text: str) -> int:
    """A number, or the name of a user.  Raises ValueError with the cure."""
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except (KeyError, ValueError):
        raise ValueError(_no_user(text)) from None


def gid_of(text: str) -> int:
    """A number, or the name of a group.  Raises ValueError with the cure."""
    if text.isascii() and text.isdigit() and int(text) <= _LAST_ID:
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except (KeyError, ValueError):
        raise ValueError(f"--gid {text}: there is no such group; `getent group` lists those that there are") from None


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_of(uid: int) -> int:
    """The group that a user has without --gid.  Raises ValueError with the cure."""
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        # Nor does the system know which further groups he is in, which is asked for with --gid too.
        raise ValueError(_no_user(uid)) from None


def _no_user(user: object) -> str:
    return f"--uid {user}: there is no such user; `getent passwd` lists those that there are"


def complaint(twistd: Mapping[str, object]) -> str:
    """What twistd would answer with a traceback, or with a pidfile that stays behind; nothing if all is well."""
    uid, gid = twistd.get("uid"), twistd.get("gid")
    if isinstance(uid, int) and uid != os.getuid():
        try:
            group_of(uid)
        except ValueError as wrong:
            return str(wrong)
    others = uid not in (None, os.getuid()) or gid not in (None, os.getgid())
    if others and os.geteuid() != 0:
        return "--uid and --gid need root's rights; start it as root, or leave them out"
    # After a chroot the name means another file.
    if (pidfile := twistd.get("pidfile")) and not twistd.get("chroot"):
        return _pidfile_complaint(os.path.abspath(str(pidfile)))
    return ""


def _pidfile_complaint(path: str) -> str:
    cure = "name a file in a directory that can be written with --pidfile, or none with --pidfile="
    if os.path.islink(path):
        # twistd would follow it, and write where it leads to.
        return f"the pidfile {path} is a symbolic link; remove it"
    try:
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            # twistd reads it, removes it if its process is gone, and writes its own.
            if not _holds_a_process(path):
                return f"the pidfile {path} holds no process number; remove it"
        else:
            os.unlink(path)
    except OSError as wrong:
        return f"the pidfile {path}: {wrong.strerror}; {cure}"
    if not _may(os.path.dirname(path), os.W_OK | os.X_OK):
        return f"the pidfile {path} is there already and cannot be replaced: its directory cannot be written; {cure}"
    return ""


def _holds_a_process(path: str) -> bool:
    """Whether twistd can make something of it.  Raises OSError where it could not replace the file either."""
    with open(os.open(path, os.O_RDWR | os.O_CLOEXEC), "rb") as file:
        text = file.read(32).strip()
    return text.isdigit() and 0 < int(text) <= _LAST_PROCESS


def give_pidfile(path: str, uid: int) -> None:
    """To the user who has to remove it.  For root, just after it was written.

    In a directory of his he can do so in any case, and the file stays root's, which is what other programs like to
    see; in one that everybody can write (sticky, as /tmp), a file can be removed by its owner only.
    """
    with suppress(OSError):
        directory = os.stat(os.path.dirname(path))
        if directory.st_mode & stat.S_ISVTX and directory.st_uid != uid:
            os.chown(path, uid, -1, follow_symlinks=False)


def losses(log: str | None, pidfile: str | None) -> Iterator[Loss]:
    """What the process, with the rights that it has now, cannot do about its log file and its pidfile."""
    user = user_name(os.geteuid())
    if log is not None:
        yield from _log_losses(log, user)
    if pidfile and not _may_remove(pidfile):
        directory = os.path.dirname(pidfile)
        yield Loss(
            pidfile,
            f"{user} may not remove files in {directory}, so the pidfile stays behind when the gateway ends; "
            "the next start finds that its process is gone and replaces it",
            f"give {user} a directory of its own, and name a file in it with --pidfile",
        )


def _log_losses(log: str, user: str) -> Iterator[Loss]:
    directory = os.path.dirname(log)
    if not _may(log, os.W_OK):
        yield Loss(
            log,
            f"{user} may not write it, so it cannot be opened again: after it was moved away, the log goes on in the "
            "moved file until the gateway is started again",
            f"give {user} a directory of its own for the log, or rotate it with logrotate's copytruncate",
        )
    elif not _may(directory, os.W_OK | os.X_OK):
        yield Loss(
            log,
            f"{user} may not create files in {directory}: after the log was moved away, whoever moved it has to create "
            "it anew before the signal",
            f"let logrotate do so (create 0640 {user} adm), or give {user} a directory of its own for the log",
        )


def _may(path: str, mode: int) -> bool:
    return os.access(path, mode, effective_ids=EFFECTIVE)


def _may_remove(path: str) -> bool:
    directory = os.path.dirname(path)
    if not _may(directory, os.W_OK | os.X_OK):
        return False
    user = os.geteuid()
    try:
        there = os.stat(directory)
        return not there.st_mode & stat.S_ISVTX or user in (0, there.st_uid, os.lstat(path).st_uid)
    except OSError:
        return False
