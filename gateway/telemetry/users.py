"""How user names are told: not at all, as they are, or so that the same name can be known again without being told."""

from __future__ import annotations

import hmac
from typing import Final

LONGEST: Final = 128
"""Characters of a name that are told."""
DIGITS: Final = 16
"""Of a name's HMAC, in hexadecimal: enough to keep the users of one installation apart."""


class Users:
    """`how`: `no`, `yes` or `hashed`.  `key`: of the installation, for `hashed`."""

    def __init__(self, how: str = "no", key: bytes = b"") -> None:
        self._how = how
        self._key = key

    def __call__(self, name: bytes) -> str | None:
        """What stands for this name in the log; None where nothing does."""
        if not name or self._how == "no":
            return None
        if self._how == "hashed":
            return hmac.new(self._key, name, "sha256").hexdigest()[:DIGITS]
        # Anybody's words: whoever writes them somewhere escapes them.
        return name.decode("utf-8", "backslashreplace")[:LONGEST]
