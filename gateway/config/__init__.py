"""The configuration file: read once, into frozen values, or all its mistakes at once."""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping
from pathlib import Path

from . import reader
from .errors import ConfigurationError
from .reader import Places, located, parse
from .section import Machine
from .values import Configuration, Control, Traits

__all__ = [
    "DEFAULT_FILE",
    "Configuration",
    "ConfigurationError",
    "Machine",
    "Places",
    "control_of",
    "load",
    "locate",
    "parse",
]

DEFAULT_FILE = "/etc/starttls-gateway/gateway.ini"
"""The file that is read where none is named."""
STATE_DIRECTORY = Path("/var/lib/starttls-gateway")
"""Where the report lies, if this directory is there.  Packages make it."""


def load(
    path: str | Path,
    protocols: Mapping[str, Traits],
    loaded: Collection[Path] = (),
    cure: str = "write the path of a file that the gateway can read",
) -> Configuration:
    """Read the file and check that the files in it are readable.  Relative paths start at the file's directory.

    `loaded`: files whose content is in use already; they need not be readable.  `cure`: for other unreadable files.
    Raises ConfigurationError with all problems.
    """

    def complaint(file: Path) -> str | None:
        return None if file in loaded else _complaint(file, cure)

    machine = Machine(Path(path).absolute().parent, complaint=complaint, is_local=_is_local, state=state_directory())
    return parse(_text(path), str(path), protocols, machine)


def state_directory() -> Path | None:
    """The directory for what outlives the process; None where there is none."""
    return STATE_DIRECTORY if STATE_DIRECTORY.is_dir() else None


def control_of(path: str | Path) -> Control:
    """Where the gateway of this file is steered from; the default where the file does not say.  Raises
    ConfigurationError for a file that cannot be read."""
    return reader.control_of(_text(path))


def locate(path: str | Path) -> Places:
    """The line numbers in the file.  Raises ConfigurationError for a file that cannot be read."""
    return located(_text(path))


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text("utf-8-sig")
    except OSError as wrong:
        raise ConfigurationError([f"{path}: {wrong.strerror}; write the path of the configuration file"]) from None
    except UnicodeDecodeError as wrong:
        raise ConfigurationError([f"{path}: octet {wrong.start + 1} is not UTF-8; save the file as UTF-8"]) from None


def _complaint(path: Path, cure: str) -> str | None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as wrong:
        return f"{wrong.strerror}; {cure}"
    return None


def _is_local(host: str) -> bool:
    """Whether this machine has the address or the name.  Does not use DNS."""
    if _can_be(host):
        # With ip_nonlocal_bind (failover clusters) the kernel lets us bind every address: then we cannot know.
        # No machine has these two: the discard prefix (RFC 6666) and class E (RFC 1112 4).
        return not _can_be("100::1" if ":" in host else "240.0.0.1")
    return host.lower() == socket.gethostname().lower()


def _can_be(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
        family, kind, protocol, _, place = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(place)
    except OSError:  # includes gaierror: not an address
        return False
    return True
