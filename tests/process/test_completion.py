"""Shell completion: it is what the command line's parser says, and real shells complete with it."""

from __future__ import annotations

import os
import pty
import runpy
import select
import shlex
import subprocess
import time
from pathlib import Path

import pytest

from tests.process.programs import need
from tests.process.running import DEADLINE

ROOT = Path(__file__).parents[2]
DIRECTORY = ROOT / "config" / "completion"
FILES = {"bash": DIRECTORY / "starttls-gateway", "zsh": DIRECTORY / "_starttls-gateway"}


@pytest.mark.parametrize("shell", FILES)
def test_it_is_made_from_the_parser(shell: str) -> None:
    made = runpy.run_path(str(DIRECTORY / "generate.py"))["completion"](shell)
    assert FILES[shell].read_text() == made, "the command line has changed: run `make completion`"


def bash(*words: str) -> list[str]:
    """What bash offers for the last of these words."""
    script = f"""
        source {shlex.quote(str(FILES["bash"]))}
        COMP_WORDS=({shlex.join(words)})
        COMP_CWORD={len(words) - 1}
        COMPREPLY=()
        function=$(complete -p starttls-gateway | sed -n 's/.*-F \\([^ ]*\\).*/\\1/p')
        "$function" starttls-gateway {shlex.quote(words[-1])} {shlex.quote(words[-2])}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        [need("bash", debian="bash"), "--norc", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_options_files_and_users(tmp_path: Path) -> None:
    (tmp_path / "gateway.ini").touch()
    assert "check" in bash("starttls-gateway", "ch")
    assert "--live" in bash("starttls-gateway", "check", "--li")
    assert bash("starttls-gateway", "check", f"{tmp_path}/gate") == [f"{tmp_path}/gateway.ini"]
    assert "nobody" in bash("starttls-gateway", "check", "--uid", "nobo")


def test_zsh_completes_commands_and_options() -> None:
    zsh = need("zsh", debian="zsh")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(zsh, ["zsh", "-f", "-i"], {**os.environ, "TERM": "dumb", "PS1": "% "})
    try:
        os.write(terminal, f"fpath=({shlex.quote(str(DIRECTORY))} $fpath)\n".encode())
        os.write(terminal, b"autoload -Uz compinit; compinit -u -D; print rea''dy\n")
        _until(terminal, b"ready")
        os.write(terminal, b": x; starttls-gateway che\t --li\t")
        heard = _until(terminal, b"--live")
        assert b"starttls-gateway check" in heard
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(terminal)


def _until(terminal: int, words: bytes) -> bytes:
    heard, end = b"", time.monotonic() + DEADLINE
    while words not in heard:
        assert select.select([terminal], [], [], max(0, end - time.monotonic()))[0], heard
        heard += os.read(terminal, 4096)
    return heard
