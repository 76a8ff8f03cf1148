"""The configuration file, for the start and for each time that it is read again."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from ..config import Configuration, ConfigurationError, load
from ..dialects import DIALECTS
from .rights import user_name


class Source:
    """One file, by its absolute path: a daemon changes its directory.  Methods raise ConfigurationError."""

    def __init__(self, path: str, chroot: str | None = None) -> None:
        """`chroot`: the directory of twistd's --chroot, where there is one."""
        self.path = os.path.abspath(path)
        self._given = path
        self._chroot = chroot

    def first(self) -> Configuration:
        return load(self._given, DIALECTS)

    def again(self, loaded: Collection[Path]) -> Configuration:
        """What it says now.  `loaded`: files whose content is in use, which need not be readable any more."""
        if self._chroot and not os.path.exists(self.path):
            raise ConfigurationError([
                f"{self.path}: not to be found below the directory of --chroot, {self._chroot}; restart the gateway "
                "to have the file read"
            ])  # fmt: skip
        user = user_name(os.geteuid())
        try:
            Path(self.path).open("rb").close()
        except PermissionError:
            raise ConfigurationError([
                f"{self.path}: {user}, whom the gateway runs as, may not read it; chgrp it to a group of {user} and "
                "chmod g+r, its directory g+x; or restart the gateway"
            ]) from None  # fmt: skip
        except OSError:
            pass  # told below
        cure = f"{user}, whom the gateway runs as, must be able to read it; else restart the gateway"
        return load(self.path, DIALECTS, loaded, cure)
