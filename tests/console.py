"""The console blocks of the pages: which commands they have, and who runs them.

tests/process/test_examples.py runs every command that no table here gives to somebody else.  So a new command on a page
is run, or the test fails until it stands here with the reason."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmarks" / "README.md"]

Block = tuple[Path, int, str]

NETWORK = "fetches from the network"
GUIDES = "needs a server of its own: tests/process/test_guides.py starts it and logs in"
CLIENTS = "a client that asks a person: tests/process/test_guides.py or interop/ logs in with it"
BUILDS = "a target of the Makefile, which takes minutes"
SYSTEM = "needs systemd: tests/packages/test_pages.py runs it in a booted Debian"
PERSON = "a person does it"
SELINUX = "needs a kernel with SELinux, which no machine of the tests has: from documentation"
ELSEWHERE = {
    # Whole pages.
    r"docs/adding-a-protocol\.md: .*": "tests/process/test_adding_a_protocol.py follows that page",
    r"benchmarks/README\.md: .*": BUILDS,
    # Commands.
    r".*: apt install .*": NETWORK,
    r".*: (?:systemctl|journalctl|systemd-sysusers) .*": SYSTEM,
    r".*: (?:semanage|restorecon) .*": SELINUX,
    r".*: editor .*": PERSON,
    r".*: fail2ban-(?:regex|client) .*": SYSTEM,
    r".*: git clone .*": NETWORK,
    r".*: make (?:deb|demo)": BUILDS,
    r".*: (?:python3 -m venv /opt/|/opt/starttls-gateway/bin/(?:pip|twistd) ).*": NETWORK,
    r"README\.md: (?:ln -s /opt/|twistd --help).*": "what the network would have brought is not there",
    r".*: (?:irssi|weechat|tin|sieve-connect|lp|mariadb) .*": CLIENTS,
    r".*: (?:psql|lpstat|ldapsearch|ldapwhoami) .*": GUIDES,
    r".*: starttls-gateway probe (?:ldap|xmpp|mysql) .*": GUIDES,
    r".*: openssl s_client -starttls xmpp .*": GUIDES,
}
"""`page: command` -> why test_examples.py does not run it."""


def blocks(language: str) -> Iterator[Block]:
    """Each fenced block: the page, the line, the text."""
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in re.finditer(rf"(?ms)^( *)```{language}\n(.*?)^ *```$", text):
            block = re.sub(rf"(?m)^{match[1]}", "", match[2])
            yield page, text.count("\n", 0, match.start()) + 1, block


def named(block: Block) -> str:
    return f"{block[0].relative_to(ROOT)}:{block[1]}"


def commands(block: str) -> list[str]:
    """The commands of a block, without what they print."""
    lines = iter(block.split("\n"))
    said = []
    for line in lines:
        if line.startswith(("$ ", "# ")):
            said.append(line[2:])
            while said[-1].endswith("\\"):
                said[-1] = said[-1][:-1] + next(lines)
    return said


def elsewhere(block: Block, command: str) -> str:
    """The key of ELSEWHERE, or nothing."""
    line = f"{block[0].relative_to(ROOT)}: {command}"
    return next((key for key in ELSEWHERE if re.fullmatch(key, line)), "")
