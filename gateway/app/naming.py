"""The key of an installation, by which the same user is known again in the log without a name."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from ..config.errors import StartError
from ..config.values import Configuration
from ..telemetry.users import Users

OCTETS = 32
"""Of a key: as many as SHA-256 gives."""


def users_of(configuration: Configuration) -> Users:
    """How this configuration wants users told.  Makes the key where there is none.  Raises StartError."""
    file = configuration.users_key
    return Users(configuration.log_users, b"" if file is None else _key(file))


def _key(file: Path) -> bytes:
    try:
        with suppress(FileExistsError):
            _make(file)
        return _read(file)
    except OSError as wrong:
        raise StartError(
            f"[gateway] users_key: {file}: {wrong.strerror}; let the gateway's user write to its directory, or make "
            f"the file: (umask 077; openssl rand -hex {OCTETS} > {file}), and give it to that user"
        ) from None


def _make(file: Path) -> None:
    """For the owner of the directory: root makes it for the user that the gateway will run as."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if os.geteuid() == 0:
            owner = file.parent.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        os.write(descriptor, f"{os.urandom(OCTETS).hex()}\n".encode())
    except BaseException:
        os.unlink(file)
        raise
    finally:
        os.close(descriptor)


def _read(file: Path) -> bytes:
    with open(file, "rb") as opened:
        if stat.S_IMODE(os.fstat(opened.fileno()).st_mode) & 0o077:
            raise StartError(f"[gateway] users_key: {file}: others may read it; chmod 0600 {file}")
        key = opened.read().strip()
    if len(key) < OCTETS:
        raise StartError(
            f"[gateway] users_key: {file} holds {len(key)} octets; {OCTETS} at least are needed; remove the file, and "
            "the gateway makes a new key"
        )
    return key
