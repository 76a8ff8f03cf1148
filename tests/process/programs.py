"""Other people's programs: where they are, or how to get them."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

# Debian keeps servers where the path of an ordinary user does not lead.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def need(program: str, *, debian: str = "", pip: str = "") -> str:
    """The program's path; without it the test fails in CI and is skipped elsewhere, telling how to install it."""
    path = shutil.which(program, path=_PATH)
    if path is None:
        cure = f"apt-get install {debian}" if debian else f"pip install {pip or program} (in an environment of its own)"
        missing(f"this test needs {program}: {cure}")
    return path


def missing(message: str) -> NoReturn:
    """The test cannot run here: it fails in CI and is skipped elsewhere."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
