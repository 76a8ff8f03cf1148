"""Where lines go under twistd: our events as they are, Twisted's own messages as events, one line each."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress

from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, eventAsText
from zope.interface import implementer

from .events import Events

# A traceback tells most in its last line: room for a hundred frames.
_LONGEST_MESSAGE = 16384
_FILE_MODE = 0o640

_log = Logger(namespace="gateway")


def tell_twisted(line: str) -> None:
    """A sink of events for those who chose an observer of their own (`--logger`, `--syslog`, `twist`)."""
    _log.info("{line}", line=line)


def _nobody(count: int, why: str) -> None:
    pass


class Output:
    """A file descriptor that takes whole lines, each in one system call, and never raises.

    A full disk or a reader that went away costs lines, not sessions.  When lines can be written again, `missed` is
    called with the number of those that are lost, and why.
    """

    def __init__(self, descriptor: int, path: str | None = None) -> None:
        self._descriptor = descriptor
        self._path = path
        self.missed: Callable[[int, str], None] = _nobody
        self._lost = 0
        self._why = ""
        self._torn = False
        """The last line has no end."""

    @classmethod
    def to_stdout(cls) -> Output:
        sys.stdout.flush()
        # A descriptor of our own: Twisted puts something else in the place of sys.stdout.
        return cls(os.dup(sys.stdout.fileno()))

    @classmethod
    def to_file(cls, path: str) -> Output:
        """Raises OSError where the file cannot be opened."""
        return cls(_open(path), os.path.abspath(path))

    def write(self, line: str) -> None:
        octets = (line + "\n").encode("utf-8", "backslashreplace")
        if self._torn:
            octets = b"\n" + octets
        try:
            while octets:
                octets = octets[os.write(self._descriptor, octets) :]
                self._torn = bool(octets)
        except OSError as wrong:
            self._lost += 1
            self._why = wrong.strerror or str(wrong)
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            self.missed(lost, self._why)

    @property
    def descriptor(self) -> int:
        """It stays the same when the file is opened anew."""
        return self._descriptor

    @property
    def path(self) -> str | None:
        """The file's absolute path; None where it is no file."""
        return self._path

    def reopen(self) -> str:
        """After logrotate has moved the file away.  Says why a new one cannot be had; the old one is kept then."""
        if self._path is None:
            return "it is no file"
        created = not os.path.lexists(self._path)
        try:
            fresh = _open(self._path)
        except OSError as wrong:
            return f"{self._path}: {wrong.strerror}"
        if created:
            # A daemon's umask is stricter than that of the shell in which the old one was made.
            with suppress(OSError):
                os.fchmod(fresh, stat.S_IMODE(os.fstat(self._descriptor).st_mode))
        # One step, so that no write finds a closed descriptor.
        os.dup2(fresh, self._descriptor, inheritable=False)
        os.close(fresh)
        return ""

    def give_to(self, uid: int) -> None:
        """Whoever has this user's rights later on can open the file anew.  Raises OSError.

        Nobody is given a file that he could have put there in place of the log: a link to one of root's.
        """
        if self._path is None:
            return
        ours, named = os.fstat(self._descriptor), os.lstat(self._path)
        if stat.S_ISREG(ours.st_mode) and os.path.samestat(ours, named) and ours.st_nlink == 1:
            os.fchown(self._descriptor, uid, -1)


def _open(path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    if os.geteuid() == 0 and _is_open_to_others(os.path.dirname(os.path.abspath(path))):
        # Else whoever may write there could make root write to any file, by a link in the place of the log.
        flags |= os.O_NOFOLLOW
    try:
        return os.open(path, flags, _FILE_MODE)
    except OSError as wrong:
        if wrong.errno == errno.ELOOP and flags & os.O_NOFOLLOW:
            raise OSError(wrong.errno, "a symbolic link, in a directory that is not root's alone") from None
        raise


def _is_open_to_others(directory: str) -> bool:
    try:
        found = os.stat(directory)
    except OSError:
        return False  # that will be told when the file is opened
    return found.st_uid != 0 or bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


@implementer(ILogObserver)
class Observer:
    """Turns what Twisted, or anybody through it, has to say into `event=log` lines, tracebacks included."""

    def __init__(self, events: Events) -> None:
        self._events = events.limited(_LONGEST_MESSAGE)

    def __call__(self, event: LogEvent) -> None:
        message = eventAsText(event, includeTimestamp=False, includeSystem=False)
        if message:
            level = event.get("log_level", LogLevel.info).name
            self._events.emit("log", level=level, message=message.rstrip("\n"))
