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

from interop.places import Here, Missing

ROOT = Path(__file__).parent.parent
PYPI = "pypi:"
ATTEMPTS = 3
"""Programs start late on a machine that does much else, and tin does not start at all there."""
HEAD = "## Other protocols"
WAYS = {"starttls": "STARTTLS", "implicit": "implicit TLS", "both": "TLS to the server, too"}


@dataclass(frozen=True)
class Pair:
    """One row.  Packages are Debian's, but for `pypi:NAME`, and `python` for what comes with it."""

    protocol: str
    client: str
    package: str
    """The client's."""
    server: str
    server_package: str
    tests: Mapping[str, str]
    """By one of WAYS: file and test below tests/process, without the beginning `test_`.  The others the client or the
    server does not know."""
    does: str


def _programs(protocol: str, server: str, package: str, openssl: Mapping[str, str], gnutls: str) -> Iterable[Pair]:
    does = "shakes hands and verifies"
    yield Pair(protocol, "openssl s_client", "openssl", server, package, openssl, does)
    if gnutls:
        yield Pair(protocol, "gnutls-cli", "gnutls-bin", server, package, {"starttls": gnutls}, does)


def _each(protocol: str, server: str, package: str, test: str) -> Iterable[Pair]:
    return _programs(protocol, server, package, {"starttls": f"{test}[openssl]"}, f"{test}[gnutls-cli]")


def _ports(file: str, protocol: str, server: str, package: str, gnutls: bool = True) -> Iterable[Pair]:
    openssl = {way: f"{file}.py::test_openssl_speaks_to_both_ports[{way}]" for way in ("starttls", "implicit")}
    return _programs(protocol, server, package, openssl, f"{file}.py::test_gnutls_speaks_it" if gnutls else "")


PAIRS = (
    Pair("LMTP", "swaks", "swaks", "Dovecot", "dovecot-lmtpd", {
        "starttls": "lmtp.py::test_swaks[socket-starttls]",
        "implicit": "lmtp.py::test_swaks[socket-implicit]",
        "both": "lmtp.py::test_swaks[none-starttls-starttls]",
    }, "hands in a mail for two"),
    Pair("LMTP", "smtplib", "python", "Dovecot", "dovecot-lmtpd", {"starttls": "lmtp.py::test_smtplib"},
         "hands in a mail for one"),
    *_each("LMTP", "Dovecot", "dovecot-lmtpd", "lmtp.py::test_programs_that_know_starttls_for_lmtp"),
    Pair("ManageSieve", "sieve-connect", "sieve-connect", "Pigeonhole", "dovecot-managesieved", {
        "starttls": "managesieve.py::test_sieve_connect[none]",
        "both": "managesieve.py::test_sieve_connect[starttls]",
    }, "stores and lists a script"),
    Pair("ManageSieve", "sievelib", "pypi:sievelib", "Pigeonhole", "dovecot-managesieved", {
        "starttls": "managesieve.py::test_sievelib[none-starttls-starttls]",
        "implicit": "managesieve.py::test_sievelib[none-implicit-ssl]",
        "both": "managesieve.py::test_sievelib[starttls-starttls-starttls]",
    }, "stores and lists a script"),
    *_each("ManageSieve", "Pigeonhole", "dovecot-managesieved",
           "managesieve.py::test_programs_that_know_starttls_for_sieve"),
    Pair("NNTP", "nntplib", "python", "INN", "inn2", {
        "starttls": "nntp.py::test_nntplib[old-required-starttls]",
        "implicit": "nntp.py::test_nntplib[old-required-implicit]",
        "both": "nntp.py::test_nntplib[starttls-starttls]",
    }, "logs in and reads an article"),
    Pair("NNTP", "tin", "tin", "INN", "inn2", {"implicit": "nntp.py::test_tin"}, "looks for news"),
    *_each("NNTP", "INN", "inn2", "nntp.py::test_programs_that_know_starttls_for_nntp"),
    Pair("IRC", "irssi", "irssi", "InspIRCd", "inspircd", {
        "starttls": 'irc.py::test_irssi[at-inspircd-webirc-starttls-starttls = "yes";]',
        "implicit": 'irc.py::test_irssi[at-inspircd-implicit-use_tls = "yes";]',
        "both": 'irc.py::test_irssi[at-inspircd-implicit-implicit-use_tls = "yes";]',
    }, "registers"),
    Pair("IRC", "irssi", "irssi", "ngIRCd", "ngircd", {"starttls": "irc.py::test_irssi[at-ngircd-starttls-]"},
         "registers"),
    Pair("IRC", "WeeChat", "weechat-headless", "InspIRCd", "inspircd", {"implicit": "irc.py::test_weechat"},
         "registers"),
    *_programs("IRC", "InspIRCd", "inspircd", {"starttls": "irc.py::test_openssl"}, ""),
    Pair("IPP", "lpstat", "cups-client", "CUPS", "cups-daemon", {
        "starttls": "http.py::test_lpstat[told to encrypt-ipp]",
        "both": "http.py::test_lpstat[told to encrypt-ipp-starttls]",
    }, "lists the printers"),
    Pair("IPP", "ipptool", "cups-ipp-utils", "CUPS", "cups-daemon", {
        "starttls": "http.py::test_ipptool[ipp-starttls-flags0]",
        "implicit": "http.py::test_ipptool[ipps-implicit-flags1]",
    }, "asks for the printers"),
    Pair("HTTP", "curl", "curl", "Apache", "apache2-bin", {"implicit": "http.py::test_curl_over_tls"},
         "fetches a page"),
    Pair("LDAP", "ldapsearch", "ldap-utils", "slapd", "slapd", {
        "starttls": "ldap.py::test_ldapsearch_finds[starttls--ZZ-ldap]",
        "implicit": "ldap.py::test_ldapsearch_finds[implicit--v-ldap]",
        "both": "ldap.py::test_ldapsearch_finds[starttls--ZZ-starttls]",
    }, "binds and searches"),
    Pair("LDAP", "ldap3", "pypi:ldap3", "slapd", "slapd", {
        "starttls": "ldap.py::test_ldap3_binds_and_searches[starttls-ldap]",
        "implicit": "ldap.py::test_ldap3_binds_and_searches[implicit-ldap]",
        "both": "ldap.py::test_ldap3_binds_and_searches[starttls-starttls]",
    }, "binds and searches"),
    *_ports("ldap", "LDAP", "slapd", "slapd"),
    Pair("PostgreSQL", "psql", "postgresql-client-15", "PostgreSQL", "postgresql-15", {
        "starttls": "postgresql.py::test_psql_with_every_sslmode",
        "both": "postgresql.py::test_the_servers_leg_may_be_under_tls",
    }, "logs in with each `sslmode`, and asks"),
    Pair("PostgreSQL", "psql", "postgresql-client-15", "PostgreSQL", "postgresql-15", {
        "starttls": "postgresql.py::test_ctrl_c_cancels_a_query[postgresql-more0]",
        "both": "postgresql.py::test_ctrl_c_cancels_a_query[secured-more2]",
    }, "cancels a query by Ctrl-C"),
    Pair("PostgreSQL", "psycopg", "pypi:psycopg-binary", "PostgreSQL", "postgresql-15", {
        "starttls": "postgresql.py::test_psycopg_reads_copies_and_cancels[postgres]",
        "implicit": "postgresql.py::test_psycopg_reads_copies_and_cancels[direct]",
    }, "asks, copies, cancels"),
    Pair("PostgreSQL", "pgbench", "postgresql-15", "PostgreSQL", "postgresql-15", {
        "starttls": "postgresql.py::test_pgbench_runs_a_thousand_transactions",
    }, "1,000 transactions"),
    *_ports("postgresql", "PostgreSQL", "PostgreSQL", "postgresql-15"),
    Pair("XMPP", "slixmpp", "pypi:slixmpp", "Prosody", "prosody", {
        "starttls": "xmpp.py::test_slixmpp_logs_in_and_the_session_is_spliced[starttls]",
        "implicit": "xmpp.py::test_slixmpp_logs_in_and_the_session_is_spliced[implicit]",
        "both": "xmpp.py::test_slixmpp_logs_in_at_a_server_with_tls",
    }, "logs in and pings"),
    Pair("XMPP", "slixmpp", "pypi:slixmpp", "ejabberd", "ejabberd", {
        "starttls": "xmpp_programs.py::test_slixmpp_logs_in_at_ejabberd[plain-starttls]",
        "implicit": "xmpp_programs.py::test_slixmpp_logs_in_at_ejabberd[plain-implicit]",
    }, "logs in and pings"),
    Pair("XMPP", "profanity", "profanity", "ejabberd", "ejabberd", {
        "starttls": "xmpp_programs.py::test_profanity_logs_in[plain-starttls-force]",
        "implicit": "xmpp_programs.py::test_profanity_logs_in[plain-implicit-legacy]",
    }, "logs in"),
    Pair("XMPP, servers", "Prosody", "prosody", "Prosody", "prosody", {
        "starttls": "xmpp.py::test_two_servers_find_each_other_through_two_gateways",
    }, "dialback, a ping both ways"),
    *_programs("XMPP", "Prosody", "prosody", {
        way: f"xmpp.py::test_openssl_speaks_to_each_port[xmpp-{way}]" for way in ("starttls", "implicit")
    }, "xmpp.py::test_gnutls_speaks_it"),
    Pair("MySQL", "mariadb", "mariadb-client", "MariaDB", "mariadb-server", {
        "starttls": "mysql.py::test_mariadb_asks",
        "both": "mysql.py::test_clients_come_to_a_server_that_demands_tls",
    }, "logs in and asks"),
    Pair("MySQL", "PyMySQL", "pypi:PyMySQL", "MariaDB", "mariadb-server", {"starttls": "mysql.py::test_pymysql_asks"},
         "logs in and asks"),
    *_ports("mysql", "MySQL", "MariaDB", "mariadb-server", gnutls=False),
)  # fmt: skip


def play(pairs: Sequence[Pair] = PAIRS) -> dict[tuple[int, str], str]:
    """By number of the pair, and way: what went wrong, or nothing.  Raises Missing where a program is."""
    found: dict[tuple[int, str], str] = {}
    for number, pair in enumerate(pairs):
        for mode, test in pair.tests.items():
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-rs",
                "-p",
                "no:cacheprovider",
                f"tests/process/test_{test}",
            ]
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
        return f"{_from_pypi(package.removeprefix(PYPI))} (PyPI)"
    return f"{Here().version(package)} (Debian)"


def _from_pypi(package: str) -> str:
    """Of one in this environment, or in the one for programs with libraries of their own."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        asked = [str(ROOT / ".venv-tools" / "bin" / "python"), "-c", f"from importlib import metadata as m; "
                 f"print(m.version({package!r}))"]  # fmt: skip
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def section(found: Mapping[tuple[int, str], str], pairs: Sequence[Pair] = PAIRS) -> Iterable[str]:
    """Of the page."""
    if not found:
        return
    yield f"\n{HEAD}\n\n"
    yield "Each cell is a test in `tests/process`, which runs the client through the gateway to the server.\n\n"
    yield f"| protocol | client | server | what it does | {' | '.join(WAYS[mode] for mode in WAYS)} |\n"
    yield "|---" * (4 + len(WAYS)) + "|\n"
    notes: list[str] = []
    for number, pair in enumerate(pairs):
        cells = []
        for mode in WAYS:
            wrong = found.get((number, mode))
            cells.append("-" if wrong is None else "no" if wrong else "ok")
            if wrong:
                notes.append(f"* {pair.client}, {WAYS[mode]}, {pair.server}: {wrong}")
        client, server = f"{pair.client} {version(pair.package)}", f"{pair.server} {version(pair.server_package)}"
        yield f"| {pair.protocol} | {client} | {server} | {pair.does} | {' | '.join(cells)} |\n"
    if notes:
        yield "\n" + "\n".join(notes) + "\n"


def renewed(page: str, told: str) -> str:
    """The page with this section in place of the one with the same head, or at its end."""
    head = told.lstrip("\n").partition("\n")[0]
    begin = page.find(f"\n{head}\n") if told else -1
    if begin < 0:
        return page + told
    end = page.find("\n## ", begin + len(head))
    return page[:begin] + told + ("" if end < 0 else page[end:])
