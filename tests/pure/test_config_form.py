"""Files that are nearly right: the line of the mistake, what it is, and how it is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Configuration, ConfigurationError, Machine, load, locate, parse
from gateway.config.reader import OPTIONS
from gateway.config.values import TCPAddress, UnixAddress
from gateway.dialects import DIALECTS

ROOT = Path(__file__).parents[2]
MACHINE = Machine(Path("/etc/gw"), lambda: "gw.example.org")
GOOD = """[gateway]
log = json
[tls]
certificate = c.pem
[service:smtp]
starttls = 25
backend = 10.0.0.5:25
[service:imap]
starttls = 143
implicit =
    127.0.0.1:993
    [::1]:993
backend = store
[backend:store]
address = unix:/run/imap
    10.0.0.5:143
"""


def read(text: str) -> Configuration:
    return parse(text, "gw.ini", DIALECTS, MACHINE)


def complaints(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(text)
    return caught.value.problems


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


SLIPS = {
    "a value in quotes": (
        changed("10.0.0.5:25\n", '"10.0.0.5:25"\n'),
        r'gw.ini, line 7: [service:smtp] backend: "\"10.0.0.5:25\"" is in quotes; '
        "write the value without quotes, like backend = 10.0.0.5:25",
    ),
    "a word in quotes": (
        changed("json", "'json'"),
        "gw.ini, line 2: [gateway] log: \"'json'\" is in quotes; write the value without quotes, like log = json",
    ),
    "a file name in the quotes of a word processor": (
        changed("c.pem", "\u201cc.pem\u201d"),
        r'gw.ini, line 4: [tls] certificate: "\u201cc.pem\u201d" is in quotes; '
        "write the value without quotes, like certificate = c.pem",
    ),
    "one of several in quotes": (
        changed("c.pem", "a.pem 'b.pem'"),
        "gw.ini, line 4: [tls] certificate: \"a.pem 'b.pem'\" is in quotes; "
        "write the value without quotes, like certificate = a.pem b.pem",
    ),
    "nothing in quotes": (
        changed("json", '""'),
        r'gw.ini, line 2: [gateway] log: "\"\"" is in quotes; '
        "write the value without quotes, or remove the option",
    ),
    "a comment behind a value": (
        changed("starttls = 25", "starttls = 25  # smtp"),
        'gw.ini, line 6: [service:smtp] starttls: "25  # smtp" contains a comment; '
        "write comments on their own line, like starttls = 25",
    ),
    "a comment behind a file name": (
        changed("c.pem", "c.pem ; the old one"),
        'gw.ini, line 4: [tls] certificate: "c.pem ; the old one" contains a comment; '
        "write comments on their own line, like certificate = c.pem",
    ),
    "a comment in place of a value": (
        changed("json", "# text or json"),
        'gw.ini, line 2: [gateway] log: "# text or json" contains a comment; '
        "write comments on their own line, or remove it",
    ),
    "a comment behind one of several": (
        changed("    10.0.0.5:143", "    10.0.0.5:143 # the second"),
        'gw.ini, line 15: [backend:store] address: "10.0.0.5:143 # the second" contains a comment; '
        "write comments on their own line, or remove it",
    ),
    "a tab before an option": (
        changed("backend = 10", "\tbackend = 10"),
        'gw.ini, line 7: "backend = 10.0.0.5:25" is indented, so it continues the value of starttls; '
        "remove the spaces and tabs before backend",
    ),
    "blanks before an option that does not exist": (
        changed("backend = 10.0.0.5:25", "backend = 10.0.0.5:25\n  workers = 2"),
        'gw.ini, line 8: "workers = 2" is indented, so it continues the value of backend; '
        "remove the spaces and tabs before workers",
    ),
    "a tab before key: value": (
        changed("backend = 10", "\tbackend: 10"),
        'gw.ini, line 7: "backend: 10.0.0.5:25" is indented, so it continues the value of starttls; '
        "remove the spaces and tabs before backend",
    ),
    "blanks before a section": (
        changed("[service:imap]", "  [service:imap]"),
        'gw.ini, line 8: "[service:imap]" is indented, so it continues the value of backend; '
        "remove the spaces and tabs before the [",
    ),
    "a URL": (
        changed("10.0.0.5:25\n", "imap://host\n"),
        'gw.ini, line 7: [service:smtp] backend: "imap://host" is a URL; write only host:port',
    ),
    "a URL with everything": (
        changed("unix:/run/imap", "imaps://user@old.example:993/INBOX"),
        'gw.ini, line 15: [backend:store] address: "imaps://user@old.example:993/INBOX" is a URL; '
        "write only old.example:993",
    ),
    "a URL to listen on": (
        changed("starttls = 25", "starttls = smtp://[::1]:25/"),
        'gw.ini, line 6: [service:smtp] starttls: "smtp://[::1]:25/" is a URL; write only [::1]:25',
    ),
    "no sign of equality": (
        changed("backend = 10", "backend 10"),
        'gw.ini, line 7: "backend 10.0.0.5:25" is neither a [section] nor an option = value; '
        'the "=" is missing; write backend = VALUE',
    ),
    "no sign of equality, and a slip of the pen": (
        changed("backend = 10", "backnd 10"),
        'gw.ini, line 7: "backnd 10.0.0.5:25" is neither a [section] nor an option = value; '
        'the "=" is missing; write backend = VALUE',
    ),
    "a further line that is not indented": (
        changed("    10.0.0.5:143", "10.0.0.5:143"),
        'gw.ini, line 16: "10.0.0.5:143" is neither a [section] nor an option = value; '
        "if it continues the value of address, indent it",
    ),
    "a further line that is an IPv6 address": (
        changed("    [::1]:993", "[::1]:993"),
        'gw.ini, line 12: "[::1]:993" is neither a [section] nor an option = value; '
        "if it continues the value of implicit, indent it",
    ),
    "a section without its end": (
        changed("[tls]", "[tls"),
        'gw.ini, line 3: "[tls" is not a section; write its name between [ and ]',
    ),
    "an option behind a section": (
        changed("[tls]\n", "[tls] "),
        'gw.ini, line 3: "certificate = c.pem" follows [tls] on the same line; write it on a new line',
    ),
    "a section that stands twice": (
        GOOD + "[tls]\nprofile = modern\n",
        "gw.ini, line 17: [tls]: is already in line 3; merge the two sections",
    ),
    "an option that stands twice": (
        changed("log = json", "log = json\nLog = text"),
        "gw.ini, line 3: [gateway] log: is already in line 2; remove one of them",
    ),
    "an option that is missing": (
        changed("[service:smtp]\nstarttls = 25\n", "[service:smtp]\n"),
        "gw.ini, line 5: [service:smtp] starttls: is missing, and so is implicit; "
        "name an address to listen on, like starttls = 25",
    ),
    "a section that is of no use": (
        GOOD + "[backend:other]\naddress = a:25\n",
        "gw.ini, line 17: [backend:other]: no service uses this backend; name it in a service, or remove it",
    ),
    "a name with a dot": (
        changed("log = json", "log.format = json"),
        "gw.ini, line 2: [gateway] log.format: unknown option; "
        "[gateway] takes hostname, drain, log, log_connects, log_users, users_key, old_sessions, probes, workers, "
        "control, control_group or control_mode",
    ),
}


@pytest.mark.parametrize(("text", "problem"), SLIPS.values(), ids=SLIPS)
def test_T22_a_slip_is_told_with_its_line(text: str, problem: str) -> None:
    assert complaints(text)[0] == problem


@pytest.mark.parametrize("text", [text for text, _ in SLIPS.values()], ids=SLIPS)
def test_T22_one_slip_does_not_bring_a_list_of_others(text: str) -> None:
    # Where a section or its certificate is lost, that is told too.
    assert len(complaints(text)) <= 2


SAME = {
    "CRLF": GOOD.replace("\n", "\r\n"),
    "the line ends of old Macintoshes": GOOD.replace("\n", "\r"),
    "a byte order mark": "\ufeff" + GOOD,
    "key: value": GOOD.replace(" = ", ": "),
    "no blanks": GOOD.replace(" = ", "="),
    "tabs": GOOD.replace(" = ", "\t=\t"),
    "capitals": GOOD.replace("starttls", "StartTLS").replace("backend =", "BACKEND ="),
    "everything in a section indented alike": re.sub(r"(?m)^(?=[a-z])", "\t", GOOD).replace("    ", "\t\t"),
    "comments": re.sub(r"(?m)^", "# a\n  ; b\n\n", GOOD),
    "comments behind sections": GOOD.replace("]\n", "]  # here\n", 2),
    "blanks at the ends": GOOD.replace("\n", "  \t\n"),
}


@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
def test_T22_what_means_the_same_is_read_alike(text: str) -> None:
    assert read(text) == read(GOOD)


def test_the_further_lines_of_a_value_belong_to_it() -> None:
    smtp, imap = read(GOOD).services
    assert imap.implicit == (TCPAddress("127.0.0.1", 993), TCPAddress("::1", 993))
    assert imap.backend.addresses == (UnixAddress("/run/imap"), TCPAddress("10.0.0.5", 143))
    assert smtp.backend.addresses == (TCPAddress("10.0.0.5", 25),)


@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_T22_a_file_of_another_system(tmp_path: Path, ends: bytes, mark: bytes) -> None:
    (tmp_path / "c.pem").touch()
    text = changed("[gateway]", "[gateway]\nhostname = gw.example.org\ndrain = soon")
    (tmp_path / "gw.ini").write_bytes(mark + text.encode().replace(b"\n", ends))
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path / "gw.ini", DIALECTS)
    (problem,) = caught.value.problems
    assert problem.startswith(f'{tmp_path}/gw.ini, line 3: [gateway] drain: "soon" is not a duration; ')


def test_T22_everything_in_a_file_can_be_found(tmp_path: Path) -> None:
    (tmp_path / "gw.ini").write_text(GOOD)
    places = locate(tmp_path / "gw.ini")
    assert (places("tls"), places("tls", "certificate"), places("service:imap", "implicit")) == (3, 4, 10)
    assert (places("limits"), places("limits", "sessions"), places("tls", "key")) == (0, 0, 0)


def test_every_option_can_be_guessed() -> None:
    file = (ROOT / "config" / "gateway.ini").read_text()
    assert frozenset(re.findall(r"(?m)^(?:# )?([a-z_]+) = ", file)) == OPTIONS


@given(
    st.lists(st.tuples(st.sampled_from(["", " ", "\t", "    "]), st.sampled_from([*GOOD.split("\n"), "x = y", "["])))
)
def test_every_problem_has_a_line_of_the_file(lines: list[tuple[str, str]]) -> None:
    text = "\n".join(indent + line for indent, line in lines)
    for problem in complaints(text) if "[service:smtp]" not in text else ():
        match = re.match(r"gw\.ini(?:, line ([0-9]+))?: ", problem)
        assert match
        assert int(match[1] or 0) <= len(lines)
