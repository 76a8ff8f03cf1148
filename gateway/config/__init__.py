"""The configuration: one INI file in, frozen values out, every mistake in it told at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import ConfigurationError
from .reader import Machine, parse
from .values import Configuration, Traits

__all__ = ["Configuration", "ConfigurationError", "Machine", "load", "parse"]


def load(path: str | Path, protocols: Mapping[str, Traits]) -> Configuration:
    """Read the file and look whether the files that it names can be read.

    Relative names in it begin at its own directory, for a daemon has no other that it stays in.
    Raises ConfigurationError with every problem that was found.
    """
    try:
        text = Path(path).read_text("utf-8-sig")
    except OSError as wrong:
        raise ConfigurationError([f"{path}: {wrong.strerror}; name the configuration file"]) from None
    except UnicodeDecodeError as wrong:
        raise ConfigurationError([f"{path}: octet {wrong.start + 1} is not UTF-8; save the file as UTF-8"]) from None
    return parse(text, str(path), protocols, Machine(Path(path).absolute().parent, complaint=_complaint))


def _complaint(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as wrong:
        return f"{wrong.strerror}; name a file that the gateway may read when it starts"
    return None
