"""Files of other programs become files of ours, and nothing in them is lost without a word.

Each NAME.conf in importing/ holds every case that its reader knows; NAME.ini is what must come out.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.__main__ import main
from gateway.cli.importing.carried import Unreadable
from gateway.cli.importing.command import PROGRAMS, converted, mistakes, program_of
from tests.pure.directives import PLACES, Place

HERE = Path(__file__).parent / "importing"
BACKEND = "10.0.0.9"


def example(program: str) -> str:
    return (HERE / f"{program}.conf").read_text()


@pytest.mark.parametrize("program", PROGRAMS)
def test_all_of_a_file_is_carried_over_or_listed(program: str) -> None:
    result = converted(example(program), f"{program}.conf", program, BACKEND)
    assert result == (HERE / f"{program}.ini").read_text()
    assert not mistakes(result)


def settings(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place.program} {place.name}")
def test_each_option_of_the_manual_is_carried_over_or_listed(place: Place) -> None:
    def made(option: str) -> str:
        return converted(place.file(option), "f", place.program, BACKEND)

    before = settings(made(""))
    assert [option for option in place.carried if settings(made(option)) == before] == []
    comment = f"#   line {place.line}: "

    def named(option: str) -> bool:
        words = option.rstrip(" {};").split()
        # HAProxy has many options in one line.
        texts = [" ".join(words), " ".join(words[-2:]) if place.program == "haproxy" else " ".join(words)]
        lines = [line for line in made(option).splitlines() if line.startswith(comment)]
        return any(text in line for line in lines for text in texts)

    assert [option for option in place.listed if not named(option)] == []


@pytest.mark.parametrize(
    ("place", "option"),
    [(place, option) for place in PLACES for option in place.skipped],
    ids=lambda one: one if isinstance(one, str) else one.name,
)
def test_a_section_that_stays_with_the_other_program_is_listed(place: Place, option: str) -> None:
    before = converted(place.file(""), "f", place.program, BACKEND)
    try:
        after = converted(place.file(option), "f", place.program, BACKEND)
    except Unreadable as nothing:
        after = str(nothing)
    assert after.count("\n[service:") < before.count("\n[service:")
    assert set(re.findall(r"line \d+: .*", after)) - set(re.findall(r"line \d+: .*", before))


def test_a_word_that_is_not_known_swallows_none_that_is() -> None:
    text = converted(
        'listen imap\n "" x\n bind :993 ssl unknown crt /x.pem\n server s 10.0.0.1:143 check ""\n', "f", "haproxy"
    )
    assert "certificate = /x.pem" in text
    assert re.search(r"line 3: .*unknown", text)
    assert not re.search(r"line 3: .*crt", text)


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("unix@/run/imap@home", "unix:/run/imap@home"),
        ("/run/imap@home", "unix:/run/imap@home"),
        ("ipv6@[::1]:143", "[::1]:143"),
        ("10.0.0.1:143", "10.0.0.1:143"),
    ],
)
def test_an_address_of_haproxy_may_have_its_family_before_it(told: str, address: str) -> None:
    text = converted(f"listen imap\n bind :993 ssl crt /x.pem\n server s {told}\n", "f", "haproxy")
    assert f"\nbackend = {address}\n" in text


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_file_tells_whose_it_is(program: str) -> None:
    assert program_of("x", example(program)) == program
    assert program_of(f"my-{program.upper()}.txt", "") == program
    assert not program_of("x", "nothing known\n")


@pytest.mark.parametrize(
    ("program", "text", "complaint"),
    [
        ("stunnel", "hello\n", "f, line 1: this is neither [SECTION] nor OPTION = VALUE; is this a stunnel.conf?"),
        ("stunnel", "", "f: there is no service in it that the gateway could take over"),
        (
            "stunnel",
            "[a]\nclient = yes\n",
            "f: there is no service in it that the gateway could take over\n"
            "  line 1: [a]: a TLS client; the gateway is the server's side. Its clients can use TLS themselves",
        ),
        ("nginx", "mail {\n}}", "f, line 2: this } closes nothing, or a ; is missing before it"),
        ("nginx", "mail { server { listen 1 } }", "f, line 1: this } closes nothing, or a ; is missing before it"),
        ("nginx", ";", "f, line 1: there is no directive before ;"),
        ("nginx", "mail {", "f, the file ends in the middle of a directive; is it complete?"),
        ("nginx", '\n"a', "f, line 2: cannot read '\"a'; is this an nginx.conf?"),
        ("nginx", "mail { server { listen; } }", "f, line 1: listen has no address"),
        ("haproxy", "bind x\n", "f, line 1: 'bind' stands before the first section; is this a haproxy.cfg?"),
        ("haproxy", 'a "b\n', "f, line 1: No closing quotation; is this a haproxy.cfg?"),
        ("haproxy", "listen imap\n bind\n", "f, line 2: bind has no address"),
        ("haproxy", "listen imap\n bind :1 ssl\n server a\n", "f, line 3: server has no name and address"),
        ("perdition", 'a "b\n', "f, line 1: No closing quotation; is this a perdition.conf?"),
        (
            "perdition",
            "\nprotocol SMTP\n",
            "f, line 2: protocol SMTP is none of POP3, POP3S, IMAP4, IMAP4S, MANAGESIEVE",
        ),
    ],
)
def test_what_cannot_be_carried_over(program: str, text: str, complaint: str) -> None:
    with pytest.raises(Unreadable) as caught:
        converted(text, "f", program)
    assert str(caught.value) == complaint


def test_a_backend_that_the_file_does_not_name_is_asked_for() -> None:
    nginx = converted("mail { server { listen 143; protocol imap; starttls on; } }", "nginx.conf", "nginx")
    assert "#   line 1: backend = backend.invalid:143: auth_http told nginx the backend; write its address" in nginx
    assert "backend = backend.invalid:143\n" in nginx
    perdition = converted("protocol POP3S\nssl_mode ssl_all\nssl_no_cert_verify\n", "p", "perdition")
    assert "#   line 1: backend of pop3: the map named it for each user; write its address there\n" in perdition
    assert "address = backend.invalid:110\ntls = implicit\nverify = no\n" in perdition
    assert "implicit = 995\n" in perdition
    assert "tls = implicit\n" in converted("outgoing_server a\nssl_mode ssl_outgoing\n", "p", "perdition")


@given(
    st.sampled_from(PROGRAMS),
    st.lists(
        st.sampled_from(
            [
                *(
                    "[imap]",
                    "accept = 143",
                    "connect = 1",
                    "mail {",
                    "server {",
                    "}",
                    "listen 993 ssl;",
                    "protocol imap;",
                ),
                *(
                    "listen imap",
                    "  bind :993 ssl",
                    "  server a 10.0.0.5:143",
                    "  mode http",
                    "protocol IMAP4",
                    "b ::1",
                ),
                *(
                    "ssl_mode tls_all",
                    "x = \x1b[2J",
                    "y \x07;",
                    "  z \u202e",
                    "[",
                    '"',
                    "\\",
                    "",
                    "outgoing_server a,,b",
                ),
                *("proxy_pass ;", "upstream a {", "stream {", "  default_backend", "frontend", "verify = 2", "#"),
            ]
        ),
        max_size=12,
    ),
)
def test_whatever_is_in_a_file_the_result_is_one_of_ours_and_harmless(program: str, lines: list[str]) -> None:
    try:
        result = converted("\n".join(lines), "f", program)
    except Unreadable:
        return
    assert all(sign.isprintable() or sign == "\n" for sign in result)
    mistakes(result)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "stunnel.conf"
    file.write_text("[imaps]\naccept = 993\nconnect = 143\n")
    assert main(["import", str(file)]) == 0
    out, err = capsys.readouterr()
    assert "[service:imaps]\nprotocol = imap\nimplicit = 993\nbackend = 127.0.0.1:143\n" in out
    assert err.startswith("correct this: the new file: [tls] certificate: is missing")
    assert main(["import", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err == f"starttls-gateway: {tmp_path}/none: No such file or directory\n"
    other = tmp_path / "other"
    other.write_text("hello")
    assert main(["import", str(other)]) == 1
    assert "whose file is this? write --from stunnel|nginx|haproxy|perdition\n" in capsys.readouterr().err
    assert main(["import", "--from", "stunnel", str(other)]) == 1
    assert "is this a stunnel.conf?\n" in capsys.readouterr().err
