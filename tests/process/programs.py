"""Other people's programs: where they are, or how to get them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

# Debian keeps servers where the path of an ordinary user does not lead.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


SYSTEM = Path(__file__).resolve().parents[2] / ".venv-count"
"""The system's Python with what the gateway needs; `make test` provides it."""


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


@contextmanager
def in_terminal(directory: Path, *command: str | Path, **environment: str) -> Iterator[Callable[[str], None]]:
    """A program in a terminal of its own; what is yielded types a line.  Where a test fails, what it showed is told."""
    tmux = [need("tmux", debian="tmux"), "-S", str(directory / "tmux")]

    def type_line(line: str) -> None:
        subprocess.run([*tmux, "send-keys", line, "Enter"], check=True)

    begin = [*tmux, "new-session", "-d", "-x", "120", "-y", "40", *map(str, command)]
    subprocess.run(begin, check=True, env={**os.environ, "TERM": "xterm", **environment})
    try:
        yield type_line
    except AssertionError:
        pytest.fail(subprocess.run([*tmux, "capture-pane", "-p"], capture_output=True, text=True, check=False).stdout)
    finally:
        subprocess.run([*tmux, "kill-server"], check=False, capture_output=True)


_STARTTLS = {
    "openssl": ("s_client", "-quiet", "-verify_return_error", "-starttls", "{protocol}", "-CAfile", "{authority}",
                "-connect", "localhost:{port}"),
    "gnutls-cli": ("--starttls-proto={protocol}", "--x509cafile", "{authority}", "-p", "{port}", "localhost"),
}  # fmt: skip
STARTTLS_CLIENTS = tuple(_STARTTLS)


def says_inside_tls(
    program: str, protocol: str, port: int, authority: Path, says: bytes, until: bytes, leaves: bytes = b"QUIT\r\n"
) -> bytes:
    """Let one of STARTTLS_CLIENTS upgrade a connection, say something, wait for an answer, and leave; all it heard."""
    path = need(program, debian="openssl gnutls-bin")
    words = [word.format(protocol=protocol, port=port, authority=authority) for word in _STARTTLS[program]]
    with subprocess.Popen(
        [path, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(says)
        process.stdin.flush()
        heard = b""
        while until not in heard and (line := process.stdout.readline()):
            heard += line
        process.stdin.write(leaves)
        process.stdin.flush()
        return heard + process.stdout.read()
