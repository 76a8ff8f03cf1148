"""What the pages show is true: INI blocks are read, commands are parsed, links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from gateway.cli.__main__ import make_parser
from gateway.cli.examples import EXAMPLES
from gateway.config import parse
from gateway.config.section import Machine
from gateway.dialects import DIALECTS
from tests import commands, links, options, prose
from tests.console import ELSEWHERE, PAGES, ROOT, Block, blocks, elsewhere, named
from tests.console import commands as console

REFERENCE = {ROOT / "docs" / "configuration.md"}  # single options, one a block
TUTORIAL = ROOT / "docs" / "adding-a-protocol.md"  # its protocol does not exist here; it has a test of its own
MACHINE = Machine(
    hostname=lambda: "gw.example.org", content=lambda path: "secret", state=Path("/var/lib/starttls-gateway")
)


def completed(text: str) -> str:
    """A fragment of a file as a whole one: what it leaves out is added, what it says stays."""
    sections = re.findall(r"(?m)^\[(.+)\]$", text)
    for title in sections:
        body = re.search(rf"(?ms)^\[{re.escape(title)}\]\n(.*?)(?=^\[|\Z)", text)
        assert body is not None
        more = ""
        if title.startswith("service:"):
            if not re.search(r"(?m)^(starttls|implicit)\b", body[1]):
                more += "starttls = 9000\n"
            if not re.search(r"(?m)^backend\b", body[1]):
                more += "backend = 127.0.0.1:9001\n"
        text = text.replace(f"[{title}]\n", f"[{title}]\n{more}")
    for title in sections:
        kind, _, own = title.partition(":")
        if kind == "backend" and not re.search(rf"(?m)^backend\s*=\s*{re.escape(own)}$", text):
            text += f"\n[service:for-{own}]\nprotocol = {_protocol(text)}\nstarttls = 9002\nbackend = {own}\n"
        if kind == "backend" and not re.search(rf"(?ms)^\[{re.escape(title)}\]\n[^[]*?^address\b", text):
            text = text.replace(f"[{title}]\n", f"[{title}]\naddress = 127.0.0.1:9001\n")
    if not any(title.startswith("service:") for title in re.findall(r"(?m)^\[(.+)\]$", text)):
        text += "\n[service:imap]\nstarttls = 9003\nbackend = 127.0.0.1:9004\n"
    if "tls" not in sections:
        text += "\n[tls]\ncertificate = chain.pem\n"
    return text


def _protocol(text: str) -> str:
    """One that has the identity of the backend."""
    identity = re.search(r"(?m)^identity\s*=\s*(\S+)$", text)
    for name, dialect in DIALECTS.items():
        if identity is None or identity[1] in ("none", *dialect.identities):
            return name
    raise AssertionError(f"no protocol has {identity}")


INI = [block for block in blocks("ini") if block[0] not in REFERENCE | {TUTORIAL}]
COMMANDS = list(blocks("console"))


@pytest.mark.parametrize("block", INI, ids=named)
def test_an_ini_block_is_a_configuration(block: Block) -> None:
    parse(completed(block[2]), named(block), DIALECTS, MACHINE)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "config" / "gateway.ini"], ids=lambda page: page.name)
def test_no_example_has_a_key_that_the_user_of_the_gateway_cannot_read(page: Path) -> None:
    assert not re.findall(r"(?m)^ *(?:# )?(?:certificate|key) *= .*/etc/letsencrypt.*$", page.read_text("utf-8"))


@pytest.mark.parametrize("block", COMMANDS, ids=named)
def test_a_command_is_one_that_exists(block: Block) -> None:
    lines = console(block[2])
    assert lines, "a console block without a command; use text"
    subprocess.run(["bash", "-n"], input="\n".join(lines), text=True, check=True)
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[:1] == ["starttls-gateway"]:
            end = next((place for place, word in enumerate(words) if word in ("|", ">")), None)
            make_parser().parse_args(words[1:end])


def test_each_reason_not_to_run_a_command_is_needed() -> None:
    assert {elsewhere(block, line) for block in COMMANDS for line in console(block[2])} == {"", *ELSEWHERE}


def _anchors(page: Path) -> set[str]:
    text = re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text("utf-8"))
    found = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"(?ms)^ *```.*?^ *```$|`[^`\n]+`", "", page.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), target
        assert not anchor or there.suffix != ".md" or anchor in _anchors(there), target


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "guides").glob("*.md")), ids=lambda page: page.name)
def test_a_guide_says_how_the_server_gets_its_settings(page: Path) -> None:
    before, found, _ = page.read_text("utf-8").partition("\n## On the gateway\n")
    assert "`systemctl restart " in before or not found


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/faq.md", "setup.cfg", "debian/control"])
def test_each_protocol_stands_in_each_list_of_them(page: str) -> None:
    text = (ROOT / page).read_text("utf-8").lower()
    assert not [name for name in DIALECTS if not re.search(rf"\b{name.removesuffix('-server')}\b", text)]


def test_the_readme_marks_experimental_protocols() -> None:
    rows = re.findall(r"(?m)^\| (.+?) \|.*\]\(docs/(?:\w+)\.md\) \|$", (ROOT / "README.md").read_text("utf-8"))
    marked = [row for row in rows if "(experimental)" in row]
    assert len(marked) == sum(bool(dialect.experimental) for dialect in DIALECTS.values())
    assert all(dialect.experimental for name, dialect in DIALECTS.items() if name in " ".join(marked).lower())


def test_the_option_reference_is_current() -> None:
    assert options.DOCUMENT.read_text("utf-8") == options.document()


def test_the_command_reference_is_current() -> None:
    assert commands.DOCUMENT.read_text("utf-8") == commands.document()


def test_each_command_has_an_example_that_it_understands() -> None:
    parsers = commands.commands(make_parser())
    assert EXAMPLES.keys() == parsers.keys()
    for name, examples in EXAMPLES.items():
        assert examples
        for line, _ in examples:
            assert make_parser().parse_args(shlex.split(line.partition(" > ")[0])[1:]).command == name


def test_links_to_other_sites_are_right_as_far_as_can_be_seen_here() -> None:
    assert links.main() == 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("see https://www.debian.org/a, and <https://www.debian.org/a>.", ""),
        ("see http://www.debian.org/a.", "http://www.debian.org/a: write https://"),
        ("https://nowhere/", "https://nowhere/: 'nowhere' is no host"),
        ("https://mta-sts.example.org http://127.0.0.1:9180/ http://localhost:9180", ""),
        (
            "https://debian.org/a https://www.debian.org/a/",
            "https://www.debian.org/a/: elsewhere it is https://debian.org/a",
        ),
        ("https://debian.org/a#b https://debian.org/a#c", ""),
        ("RFC 3207 and `RFC 1` and RFC 3207, section 4", ""),
        ("RFC3207", "RFC 3207: write RFC 3207, or RFC 3207, section 1.2"),
        ("RFC 3207 4.2", "RFC 3207: write RFC 3207, or RFC 3207, section 1.2"),
        ("RFC 9999", "RFC 9999: look up whether it is the right one, and add it to tests/links.py"),
    ],
)
def test_a_wrong_link_to_another_site_is_found(text: str, complaint: str) -> None:
    assert [what for *_, what in links.complaints({"page": text})] == ([complaint] if complaint else [])


@pytest.mark.parametrize("page", prose.PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_language_is_plain(page: Path) -> None:
    assert not list(prose.complaints(page.read_text("utf-8")))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "word " * 35 + ".",
            "35 words in a sentence; make two: word word word word word word word word ...",
        ),
        ("* one\n* " + "word " * 34 + "\n", ""),
        ("It is simply so.", "'simply': leave it out"),
        ("`simply` [x](simply)\n```text\nsimply\n```\n", ""),
        ("| " + "a " * 30 + "| " + "b " * 30 + "|", ""),
    ],
)
def test_what_is_not_plain_is_found(text: str, complaint: str) -> None:
    assert [what for _, what in prose.complaints(text)] == ([complaint] if complaint else [])
