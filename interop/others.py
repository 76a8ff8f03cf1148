"""Clients and servers of the other protocols, as they are on this machine.

No letter comes out at their other end.  Each cell of the table is a test of tests/process, which runs the real client
through the gateway to the real server.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from interop.jobs import MODES, Mode
from interop.places import Here, Missing

ROOT = Path(__file__).parent.parent
PYPI = "pypi:"
ATTEMPTS = 3
"""Programs start late on a machine that does much else, and tin does not start at all there."""
HEAD = "## Other protocols"
WAYS: Mapping[Mode, str] = {"starttls": "STARTTLS", "implicit": "implicit TLS"}


@dataclass(frozen=True)
class Pair:
    """One row.  Packages are Debian's, but for `pypi:NAME`, and `python` for what comes with it."""

    protocol: str
    client: str
    package: str
    """The client's."""
    server: str
    server_package: str
    tests: Mapping[Mode, str]
    """By way to start TLS: file and test below tests/process.  Others the client does not know."""
    does: str


PAIRS = (
    Pair("LMTP", "swaks", "swaks", "Dovecot", "dovecot-lmtpd", {
        "starttls": "test_lmtp.py::test_swaks[none-starttls-starttls]",
        "implicit": "test_lmtp.py::test_swaks[none-starttls-implicit]",
    }, "hands in a mail for two"),
    Pair("LMTP", "smtplib", "python", "Dovecot", "dovecot-lmtpd", {"starttls": "test_lmtp.py::test_smtplib"},
         "hands in a mail for two"),
    Pair("ManageSieve", "sieve-connect", "sieve-connect", "Pigeonhole", "dovecot-managesieved",
         {"starttls": "test_managesieve.py::test_sieve_connect"}, "stores and reads a script"),
    Pair("ManageSieve", "sievelib", "pypi:sievelib", "Pigeonhole", "dovecot-managesieved", {
        "starttls": "test_managesieve.py::test_sievelib[starttls-starttls]",
        "implicit": "test_managesieve.py::test_sievelib[implicit-ssl]",
    }, "stores and reads a script"),
    Pair("NNTP", "nntplib", "python", "INN", "inn2", {
        "starttls": "test_nntp.py::test_nntplib[starttls]",
        "implicit": "test_nntp.py::test_nntplib[implicit]",
    }, "logs in and reads an article"),
    Pair("NNTP", "tin", "tin", "INN", "inn2", {"implicit": "test_nntp.py::test_tin"}, "logs in and reads an article"),
    Pair("IRC", "irssi", "irssi", "InspIRCd", "inspircd", {
        "starttls": 'test_irc.py::test_irssi[at-inspircd-webirc-starttls-starttls = "yes";]',
        "implicit": 'test_irc.py::test_irssi[at-inspircd-implicit-use_tls = "yes";]',
    }, "enters a channel"),
    Pair("IRC", "irssi", "irssi", "ngIRCd", "ngircd", {"starttls": "test_irc.py::test_irssi[at-ngircd-starttls-]"},
         "enters a channel"),
    Pair("IRC", "WeeChat", "weechat-headless", "InspIRCd", "inspircd", {"implicit": "test_irc.py::test_weechat"},
         "enters a channel"),
    Pair("IPP", "lpstat", "cups-client", "CUPS", "cups-daemon", {
        "starttls": "test_http.py::test_lpstat[told to encrypt-ipp]",
    }, "lists the printers"),
    Pair("IPP", "ipptool", "cups-ipp-utils", "CUPS", "cups-daemon", {
        "starttls": "test_http.py::test_ipptool[ipp-starttls-flags0]",
        "implicit": "test_http.py::test_ipptool[ipps-implicit-flags1]",
    }, "asks a printer for its attributes"),
)  # fmt: skip


def play(pairs: Sequence[Pair] = PAIRS) -> dict[tuple[int, Mode], str]:
    """By number of the pair, and way: what went wrong, or nothing.  Raises Missing where a program is."""
    found: dict[tuple[int, Mode], str] = {}
    for number, pair in enumerate(pairs):
        for mode, test in pair.tests.items():
            command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", f"tests/process/{test}"]
            for _ in range(ATTEMPTS):
                done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
                if done.returncode == 0:
                    break
            if skipped := re.search(r"^SKIPPED .*", done.stdout, re.MULTILINE):
                raise Missing(skipped[0])
            wrong = re.findall(r"^E +(\w.*)", done.stdout, re.MULTILINE)
            found[number, mode] = "" if done.returncode == 0 else (wrong or [done.stdout[-200:]])[0]
            print(f"{pair.protocol} {pair.client} {pair.server} {mode}: {found[number, mode] or 'ok'}", file=sys.stderr)
    return found


def version(package: str) -> str:
    """Of one that is installed on this machine."""
    if package == "python":
        return f"Python {platform.python_version()}"
    if package.startswith(PYPI):
        return f"{metadata.version(package.removeprefix(PYPI))} (PyPI)"
    return f"{Here().version(package)} (Debian)"


def section(found: Mapping[tuple[int, Mode], str], pairs: Sequence[Pair] = PAIRS) -> Iterable[str]:
    """Of the page."""
    if not found:
        return
    yield f"\n{HEAD}\n\n"
    yield "Each cell is a test in `tests/process`, which runs the client through the gateway to the server.\n\n"
    yield f"| protocol | client | server | what it does | {' | '.join(WAYS[mode] for mode in MODES)} |\n"
    yield "|---" * (4 + len(MODES)) + "|\n"
    notes: list[str] = []
    for number, pair in enumerate(pairs):
        cells = []
        for mode in MODES:
            wrong = found.get((number, mode))
            cells.append("-" if wrong is None else "no" if wrong else "ok")
            if wrong:
                notes.append(f"* {pair.client}, {WAYS[mode]}, {pair.server}: {wrong}")
        client, server = f"{pair.client} {version(pair.package)}", f"{pair.server} {version(pair.server_package)}"
        yield f"| {pair.protocol} | {client} | {server} | {pair.does} | {' | '.join(cells)} |\n"
    if notes:
        yield "\n" + "\n".join(notes) + "\n"


def renewed(page: str, told: str) -> str:
    """The page with this section in place of its own, or at its end."""
    begin = page.find(f"\n{HEAD}\n")
    if begin < 0:
        return page + told
    end = page.find("\n## ", begin + len(HEAD))
    return page[:begin] + told + ("" if end < 0 else page[end:])
