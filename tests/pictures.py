"""The pictures of the README: what `check --live` says, and the status page, of a gateway in front of a real Dovecot.

python -m tests.pictures   # writes docs/pictures; needs root, Chromium, Dovecot and curl
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from xml.sax.saxutils import escape

from tests.process.browsing import Page, browser
from tests.process.programs import need
from tests.process.running import ROOT, speaking
from tests.process.test_guides import TRIALS, at_work

PICTURES = ROOT / "docs" / "pictures"
ADMIN = "127.0.0.1:9180"
OPEN = 2
"""Sessions that are there when the page is shot."""
_SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">
<title>{title}</title>
<rect width="100%" height="100%" rx="6" fill="#1e1e2a"/>
<g font-family="ui-monospace, Consolas, DejaVu Sans Mono, monospace" font-size="13" fill="#e8e8f0">
{lines}
</g>
</svg>
"""


def drawn(command: str, said: str) -> str:
    """A terminal with a command and what it said, as SVG."""
    lines = [f"# {command}", *said.rstrip().split("\n")]
    texts = [
        f'<text x="16" y="{26 + 18 * number}" xml:space="preserve">{escape(line)}</text>'
        for number, line in enumerate(lines)
    ]
    width = 32 + 8 * max(map(len, lines))
    return _SVG.format(width=width, height=24 + 18 * len(lines), title=escape(command), lines="\n".join(texts))


def make(directory: Path) -> None:
    more = f"\n[admin]\nlisten = {ADMIN}\n"
    (trial,) = (trial for trial in TRIALS if trial.guide == "dovecot")
    with at_work(directory, trial, more) as work, ExitStack() as stack:
        live = work.live.stdout
        (PICTURES / "check-live.svg").write_text(drawn("starttls-gateway check --live", live[live.index("-- ") :]))
        for _ in range(OPEN):
            work.login()
            words = "openssl s_client -quiet -CAfile /authority.pem -connect mail.example.org:993"
            _, heard = stack.enter_context(
                speaking(work.place.client.command(*shlex.split(words)), stdin=subprocess.PIPE)
            )
            heard.hear("OK")
        chromium = directory / "chromium"
        inside = f"--target={work.place.gateway.leader} --net"
        chromium.write_text(f'#!/bin/sh\nexec nsenter {inside} {need("chromium", debian="chromium")} "$@"\n')
        chromium.chmod(0o755)
        with browser(str(chromium)) as made:
            Page(made, f"http://{ADMIN}/", 1000).shoot(PICTURES / "status.png")


def main() -> int:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gateway-pictures-") as directory:
        make(Path(directory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
