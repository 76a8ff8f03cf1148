"""What the guides tell administrators to write is what the servers understand."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.process import programs

GUIDES = Path(__file__).parents[2] / "docs" / "guides"


def blocks(guide: str) -> list[str]:
    """The settings of the server that a guide shows."""
    text = (GUIDES / f"{guide}.md").read_text("utf-8")
    found = re.findall(r"(?ms)^```text\n(.*?)^```$", text)
    assert found
    return found


def test_dovecot_understands_its_guide(tmp_path: Path) -> None:
    doveconf = programs.need("doveconf", debian="dovecot-core")
    file = tmp_path / "dovecot.conf"
    file.write_text("protocols = imap pop3\n" + "".join(blocks("dovecot")))
    done = subprocess.run([doveconf, "-n", "-c", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("disable_plaintext_auth = no", "login_trusted_networks = 10.0.0.2", "haproxy = yes"):
        assert name in done.stdout


@pytest.mark.parametrize("block", [0, 1])
def test_postfix_understands_its_guide(tmp_path: Path, block: int) -> None:
    postconf = programs.need("postconf", debian="postfix")
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\n" + blocks("postfix")[block])
    (tmp_path / "master.cf").write_text("smtp inet n - n - - smtpd\n")
    done = subprocess.run([postconf, "-c", str(tmp_path), "-n"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr, done.stderr
