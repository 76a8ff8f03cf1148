"""Attacks A of docs/conformance.md: the change to TLS, on the client's side."""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.process import programs
from tests.process.attacks.conftest import Attack
from tests.process.legacy import EHLO_REPLY, EVERYTHING
from tests.process.running import CANARY
from tests.process.words import WORDS

PROTOCOLS = tuple(WORDS)
each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)


@each_protocol
def test_A3_what_comes_a_little_later_belongs_to_the_handshake(attack: Attack, protocol: str) -> None:
    words = attack.words(protocol)

    def late(number: int) -> bytes:
        client = attack.connect(protocol)
        client.say(words.starttls)
        # Half of them wait for the go-ahead.
        heard = client.line() if number % 2 else b""
        client.say(words.hello)
        return heard + client.rest()

    with ThreadPoolExecutor(50) as pool:
        for said in pool.map(late, range(100)):
            # The go-ahead, and then an alert at most.
            assert said.startswith(words.go_ahead)
            rest = said.removeprefix(words.go_ahead)
            assert rest == b"" or rest.startswith(b"\x15\x03"), rest
    assert all(words.hello not in visit.heard for visit in attack.visits[attack.service(protocol)])


STRANGE = {
    # what is said, and how the refusals begin
    "smtp": [
        (b"STARTTLS foo\r\n", rb"501 "),
        (b"STARTTLS . \r\n", rb"501 "),
        (b"STARTTLSfoo\r\n", rb"5"),
        (b"\0STARTTLS\r\n", rb"500 "),
        (b"STARTTLS\0\r\n", rb"500 "),
        (b"STARTTLS\r\r\n", rb"500 "),
        (b"EHLO a\rSTARTTLS\r\n", rb"500 "),
        (b" STARTTLS\r\n", rb"500 "),
    ],
    "imap": [
        (b"a  STARTTLS\r\n", rb"a BAD"),
        (b"a\tSTARTTLS\r\n", rb"\* BAD"),
        (b"a STARTTLS now\r\n", rb"a BAD"),
        (b"a STARTTLS {3}\r\n", rb"a BAD"),
        (b"a STARTTLS {0+}\r\n\r\n", rb"a BAD"),
        (b"a STARTTLS\r\r\n", rb"\* BAD"),
        (b"STARTTLS\r\n", rb"STARTTLS BAD"),
    ],
    "pop3": [
        (b"STLS now\r\n", rb"-ERR"),
        (b"STLS\r\r\n", rb"-ERR"),
        (b"\0STLS\r\n", rb"-ERR"),
        (b"STLSx\r\n", rb"-ERR"),
    ],
}


@pytest.mark.parametrize(("protocol", "line", "refusal"), [(name, *each) for name in STRANGE for each in STRANGE[name]])
def test_A4_odd_spellings_are_errors_and_no_tls_begins(
    attack: Attack, protocol: str, line: bytes, refusal: bytes
) -> None:
    words = attack.words(protocol)
    client = attack.connect(protocol)
    client.say(line)
    client.hear(rb"\A" + refusal + rb"[^\n]*\n")
    client.say(words.starttls)
    assert client.line() == words.go_ahead
    client.shake_hands(attack.trusting)
    assert b"STARTTLS" not in attack.visit(protocol).heard


@each_protocol
def test_A4_case_segments_and_pipelining_do_not_matter(attack: Attack, protocol: str) -> None:
    words = attack.words(protocol)
    client = attack.connect(protocol)
    for octet in words.starttls.lower():
        client.say(bytes([octet]))
    assert client.line() == words.go_ahead
    client.shake_hands(attack.trusting)
    client = attack.connect(protocol)
    client.say(words.hello + words.starttls)
    client.hear(WORDS[protocol].hello_)
    assert client.line() == words.go_ahead
    client.shake_hands(attack.trusting)


AS_DATA = {
    "smtp dialogue": ("smtp", b"AUTH LOGIN\r\n", rb"334 [^\n]*\n", b"STARTTLS\r\n", rb"334|235|50\d"),
    "smtp message": (
        "smtp",
        b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n",
        rb"354 [^\n]*\n",
        b"STARTTLS\r\n.\r\n",
        rb"250 [^\n]*\n",
    ),
    "smtp chunk": (
        "smtp",
        b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\n",
        rb"250 [^\n]*\n250 [^\n]*\n",
        b"BDAT 10 LAST\r\nSTARTTLS\r\n",
        rb"250 [^\n]*\n",
    ),
    "imap literal": ("imap", b"", b"", b"a LOGIN {12+}\r\nb STARTTLS\r\n {2+}\r\nwx\r\n", rb"a (OK|BAD|NO) [^\n]*\n"),
    "pop3 dialogue": ("pop3", b"AUTH LOGIN\r\n", rb"\+ \r\n", b"STLS\r\n", rb"\+OK|-ERR"),
}


@pytest.mark.parametrize("name", AS_DATA)
def test_A5_the_word_as_data_is_data(attack: Attack, name: str) -> None:
    protocol, first, answer, second, last = AS_DATA[name]
    client = attack.secure(protocol, policy="optional")
    if first:
        client.say(first)
        client.hear(answer)
    client.say(second)
    heard = client.hear(last)
    assert b"TLS" not in heard


FIXED = {
    "smtp": (b"EHLO evil\r\nMAIL FROM:<evil@x>\r\nRCPT TO:<v@y>\r\n", b"DATA\r\n", rb"503 "),
    "imap": (b'a ID ("x-originating-ip" "1.2.3.4")\r\nb ENABLE UTF8=ACCEPT\r\n', b"c SELECT INBOX\r\n", rb"c "),
    "pop3": (b"USER evil\r\n", b"PASS pw\r\n", rb"\+OK|-ERR"),
}


@each_protocol
def test_A7_nothing_said_in_the_clear_is_known_inside(attack: Attack, protocol: str) -> None:
    before, after, answer = FIXED[protocol]
    words = attack.words(protocol)
    client = attack.connect(protocol)
    client.say(before + words.starttls)
    client.hear(rb"(?:\A|\n)" + words.go_ahead.replace(b"+", rb"\+"))
    client.shake_hands(attack.trusting)
    client.say(after)
    client.hear(rb"\A" + answer)
    heard = attack.visit(protocol).heard
    assert b"evil@x" not in heard
    assert b"1.2.3.4" not in heard
    assert b"ENABLE" not in heard
    assert b"USER" not in heard


@pytest.mark.parametrize(
    ("protocol", "before", "refusal"),
    [
        ("smtp", b"EHLO a\r\nMAIL FROM:<a@x>\r\n", rb"^503 "),
        ("pop3", b"USER evil\r\n", rb"^-ERR STLS"),
    ],
)
def test_A7_D14_who_began_something_in_the_clear_cannot_take_it_inside(
    attack: Attack, protocol: str, before: bytes, refusal: bytes
) -> None:
    client = attack.connect(protocol, policy="optional")
    client.say(before + attack.words(protocol).starttls)
    client.hear(refusal + rb"[^\n]*\n")


@pytest.mark.parametrize(
    ("protocol", "login", "answer"),
    [
        ("smtp", b"EHLO a\r\nAUTH PLAIN AGEAYg==\r\n", rb"^503 "),
        ("imap", b"a LOGIN evil pw\r\n", rb"^s BAD"),
        ("pop3", b"USER evil\r\nPASS pw\r\n", rb"^-ERR unknown"),
    ],
)
def test_A8_no_starttls_behind_a_login_in_the_clear(attack: Attack, protocol: str, login: bytes, answer: bytes) -> None:
    client = attack.connect(protocol, policy="optional")
    client.say(login)
    if protocol == "smtp":
        client.hear(rb"^235[^\n]*\n")
    client.say(attack.words(protocol).starttls)
    client.hear(answer)


SECRETS = {
    "smtp": [b"AUTH PLAIN AGEAYg==\r\n", b"AUTH PLAIN\r\n", b"AUTH LOGIN\r\n", b"auth cram-md5\r\n"],
    "imap": [
        b"a LOGIN u %s\r\n" % CANARY.encode(),
        b"a LOGIN {1}\r\n",
        b"a LOGIN {1+}\r\nu {%d+}\r\n%s\r\n" % (len(CANARY), CANARY.encode()),
        b"a AUTHENTICATE PLAIN AGEAYg==\r\n",
        b"a AUTHENTICATE PLAIN\r\n",
    ],
    "pop3": [
        b"USER u\r\n",
        b"PASS %s\r\n" % CANARY.encode(),
        b"APOP u 0123456789abcdef\r\n",
        b"AUTH PLAIN\r\n",
        b"AUTH PLAIN AGEAYg==\r\n",
    ],
}
REFUSALS = {"smtp": rb"\A530 ", "imap": rb"\Aa NO \[PRIVACYREQUIRED\]", "pop3": rb"\A-ERR \[SYS/PERM\]"}


@pytest.mark.parametrize(("protocol", "command"), [(name, each) for name in SECRETS for each in SECRETS[name]])
def test_A9_A14_credentials_in_the_clear_are_refused_at_once(attack: Attack, protocol: str, command: bytes) -> None:
    client = attack.connect(protocol)
    client.say(command)
    client.hear(REFUSALS[protocol] + rb"[^\n]*\n")
    assert client.unheard == b""
    assert attack.visit(protocol).heard == b""
    attack.gateway.inspect()


HIDDEN = [b"EXTERNAL", b"-PLUS", b"XCLIENT", b"XFORWARD", b"SCRAM"]


@each_protocol
def test_A10_lists_are_edited(attack: Attack, protocol: str) -> None:
    assert b"XCLIENT" in EHLO_REPLY
    assert b"-PLUS" in EVERYTHING
    client, words = attack.connect(protocol), attack.words(protocol)
    client.say(words.hello)
    before = client.hear(WORDS[protocol].hello_)
    assert b"TLS" in before.replace(b"STLS", b"TLS")
    assert not [word for word in (b"AUTH=", b"AUTH ", b"SASL ", b"USER\r\n") if word in before]
    client.say(words.starttls)
    client.hear(rb"[^\n]*\n")
    client.shake_hands(attack.trusting)
    client.say(words.hello)
    inside = client.hear(WORDS[protocol].hello_)
    assert b"PLAIN" in inside
    for word in HIDDEN:
        assert word not in before
        assert word not in inside
    assert b"STARTTLS" not in inside
    assert b"STLS" not in inside


def test_A13_close_notify_inside_a_chunk_completes_nothing(attack: Attack) -> None:
    client = attack.secure("smtp")
    client.say(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nBDAT 100\r\nabc")
    attack.visit("smtp").connection.wait_for(b"abc")
    client.close_notify()
    client.say_in_the_clear(b"x" * 97 + b"BDAT 0 LAST\r\n")
    visit = attack.visit("smtp")
    visit.ended()
    assert visit.messages == []
    assert b"LAST" not in visit.heard
    assert b"QUIT" not in visit.heard


@pytest.mark.parametrize(
    "early", [b"EHLO a\r\n", b"GET / HTTP/1.0\r\n\r\n", b"x" * 100_000], ids=["word", "web", "bulk"]
)
def test_A15_nothing_is_ahead_of_the_greeting(attack: Attack, early: bytes) -> None:
    for protocol in PROTOCOLS:
        client = attack.connect(protocol, greeted=False)
        client.say(early)
        client.finish()
        heard = client.rest()
        assert heard.startswith((b"220", b"421", b"* ", b"+OK", b"-ERR")) or heard == b"", heard
        assert early.split()[0] not in attack.visit(protocol).heard or early.startswith(b"EHLO")


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
@each_protocol
def test_A17_a_first_command_with_the_end_of_the_handshake_is_heard(attack: Attack, protocol: str, mode: str) -> None:
    words = attack.words(protocol)
    client = attack.connect(protocol, mode, greeted=mode == "starttls")
    client.shake_hands(attack.trusting, after=words.starttls if mode == "starttls" else b"")
    # No answer is awaited: all of these go out together.
    client.say_in_the_clear(client.encrypted(words.hello + words.hello + words.quit))
    client.hear((WORDS[protocol].greeting_ if mode == "implicit" else rb"\n") + rb".*" + WORDS[protocol].hello_)
    client.hear(WORDS[protocol].hello_)
    assert client.rest() != b""


@each_protocol
def test_A18_there_is_no_early_data(attack: Attack, protocol: str) -> None:
    host, port = attack.gateway.address(attack.service(protocol), "implicit")
    said = subprocess.run(
        [programs.need("openssl"), "s_client", "-connect", f"{host}:{port}", "-tls1_3", "-ign_eof"],
        input=attack.words(protocol).quit,
        capture_output=True,
        timeout=20,
    ).stdout
    assert b"TLSv1.3" in said
    assert set(re.findall(rb"Max Early Data: (\d+)", said)) <= {b"0"}
    # Nor is application data ahead of any handshake an input.
    client = attack.connect(protocol, "implicit", greeted=False)
    client.say(b"\x17\x03\x03\x00\x20" + bytes(32))
    rest = client.rest()
    assert rest == b"" or rest.startswith(b"\x15\x03")
    attack.wait("tls-failed")
