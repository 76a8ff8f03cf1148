"""User names in logins: where each protocol has them, and what of them is told."""

from __future__ import annotations

import base64

import pytest

from gateway.dialects.database.postgresql import user_of
from gateway.dialects.mail.imap.syntax import first_string
from gateway.dialects.users import LONGEST, Claim
from gateway.protocol.filters import Kept
from gateway.protocol.vocabulary import Note
from gateway.telemetry.users import DIGITS, Users
from gateway.telemetry.words import printable
from tests.pure.contract.party import BACKEND, CLIENT, PARTIES

NTLM = (
    b"NTLMSSP\0\x03\0\0\0" + bytes(24) + (10).to_bytes(2, "little") + bytes(2) + (64).to_bytes(4, "little") + bytes(16)
)


def coded(said: bytes) -> bytes:
    return base64.b64encode(said)


def named(mechanism: bytes, *initial: bytes) -> Claim:
    claim = Claim.named(mechanism, None, None, initial)
    assert claim is not None
    return claim


@pytest.mark.parametrize(
    ("mechanism", "said", "user"),
    [
        (b"PLAIN", b"\0grete\0secret", b"grete"),
        (b"plain", b"boss\0grete\0secret", b"grete"),
        (b"PLAIN", b"grete", b""),
        (b"LOGIN", b"grete", b"grete"),
        (b"CRAM-MD5", b"grete of example.org 0123456789abcdef", b"grete of example.org"),
        (b"DIGEST-MD5", b'charset=utf-8,username="gr\\"ete",realm="x"', b'gr"ete'),
        (b"DIGEST-MD5", b'realm="username=\\"x\\""', b""),
        (b"SCRAM-SHA-256", b"n,,n=gr=2Ce=3Dte,r=abc", b"gr,e=te"),
        (b"SCRAM-SHA-1", b"n,a=boss,n=grete,r=abc", b"grete"),
        (b"SCRAM-SHA-1", b"r=abc", b""),
        (b"OAUTHBEARER", b"n,a=grete@example.org,\x01host=h\x01auth=Bearer token\x01\x01", b"grete@example.org"),
        (b"XOAUTH2", b"user=grete\x01auth=Bearer token\x01\x01", b"grete"),
        (b"XOAUTH2", b"auth=Bearer user=x", b""),
        (b"GSSAPI", b"ticket", b""),
        (b"LOGIN", b"x" * 9999, b"x" * LONGEST),
    ],
)
def test_the_name_stands_where_the_mechanism_has_it(mechanism: bytes, said: bytes, user: bytes) -> None:
    claim = named(mechanism)
    claim.hear(coded(said) + b" ")
    assert claim.user == user


def test_a_password_is_never_taken_for_a_name() -> None:
    for first in (b"grete", b""):
        claim = Claim("LOGIN")
        claim.hear(coded(first) or b"=")
        claim.hear(coded(b"secret"))
        assert claim.user == first
    claim = Claim("LOGIN")
    claim.hear(b"no base64!")
    claim.hear(coded(b"secret"))
    assert claim.user == b""


@pytest.mark.parametrize(
    ("flags", "name", "user"), [(1, "Größe".encode("utf-16-le"), "Größe".encode()), (0, b"grete12345", b"grete12345")]
)
def test_ntlm_has_the_name_in_its_last_message(flags: int, name: bytes, user: bytes) -> None:
    claim = named(b"NTLM")
    claim.hear(coded(b"NTLMSSP\0\x01\0\0\0"))
    claim.hear(coded(NTLM[:40]))
    assert claim.user == b""
    claim.hear(coded(NTLM + bytes([flags, 0, 0, 0]) + name))
    assert claim.user == user


@pytest.mark.parametrize(
    ("arguments", "first"),
    [(b"grete secret", b"grete"), (b'"gr\\"e te" "x y"', b'gr"e te'), (b"{5}", b""), (b'"" x', b""), (b"", b"")],
)
def test_the_first_argument_of_an_imap_command(arguments: bytes, first: bytes) -> None:
    assert first_string(arguments) == first


def test_the_user_of_a_startup_message() -> None:
    assert user_of(b"\0\0\0\x20\0\3\0\0database\0x\0user\0grete\0\0") == b"grete"
    assert user_of(b"\0\0\0\x20\0\3\0\0user\0") == b""


def test_a_filter_remembers_the_first_octets() -> None:
    kept = Kept(6, 4)
    assert kept.feed(b"abc") == (b"abc", None)
    assert kept.feed(b"defgh") == (b"def", b"gh")
    assert kept.begin == b"abcd"


PLAIN = coded(b"\0grete\0secret") + b"\r\n"
NAME, PASSWORD = coded(b"grete") + b"\r\n", coded(b"secret") + b"\r\n"
WAYS: dict[str, list[tuple[tuple[bytes, bytes], ...]]] = {
    "imap": [
        ((b'a LOGIN "gr\\"ete" "secret"\r\n', b"a OK in\r\n"),),
        ((b"a LOGIN {5+}\r\ngrete {6+}\r\nsecret\r\n", b"+ go\r\n"), (b"", b"+ go\r\n"), (b"", b"a NO no\r\n")),
        ((b'a LOGIN "grete" {6+}\r\nsecret\r\n', b"+ go\r\n"), (b"", b"a OK in\r\n")),
        ((b"a AUTHENTICATE PLAIN " + PLAIN, b"a OK in\r\n"),),
        ((b"a AUTHENTICATE LOGIN\r\n", b"+ \r\n"), (NAME, b"+ \r\n"), (PASSWORD, b"a OK in\r\n")),
        ((b"a LOGIN grete secret\r\n", b"* BAD what\r\n"), (b"", b"a OK in\r\n")),
    ],
    "pop3": [
        ((b"USER grete\r\n", b"+OK\r\n"), (b"PASS secret\r\n", b"+OK in\r\n")),
        ((b"USER grete\r\n", b"-ERR [AUTH] no such user grete\r\n"),),
        ((b"APOP grete c4c9334bac560ecc979e58001b3e22fb\r\n", b"-ERR no\r\n"),),
        ((b"AUTH PLAIN " + PLAIN, b"+OK in\r\n"),),
        ((b"AUTH LOGIN\r\n", b"+ \r\n"), (NAME, b"+ \r\n"), (PASSWORD, b"-ERR no\r\n")),
    ],
    "managesieve": [
        ((b'AUTHENTICATE "PLAIN" "' + PLAIN[:-2] + b'"\r\n', b'OK "in"\r\n'),),
        ((b'AUTHENTICATE "LOGIN"\r\n', b'""\r\n'), (b'"' + NAME[:-2] + b'"\r\n', b'NO "no"\r\n')),
    ],
    "smtp": [
        ((b"AUTH PLAIN " + PLAIN, b"235 in\r\n"),),
        ((b"AUTH LOGIN\r\n", b"334 \r\n"), (NAME, b"334 \r\n"), (PASSWORD, b"535 no\r\n")),
        ((b"AUTH LOGIN " + NAME, b"334 \r\n"), (PASSWORD, b"535 no\r\n")),
    ],
}
"""By protocol: ways to log in as grete; each is what client and backend say in turn."""


@pytest.mark.parametrize(("protocol", "talk"), [(name, way) for name, ways in WAYS.items() for way in ways])
def test_each_way_to_log_in_tells_the_name(protocol: str, talk: tuple[tuple[bytes, bytes], ...]) -> None:
    (party,) = [one for one in PARTIES if one.dialect.name == protocol]
    stage = party.stage(implicit=True)
    stage.receive(BACKEND, party.answers.greeting)
    for said, answered in getattr(party.answers, "introduction", ()):
        stage.receive(CLIENT, said)
        stage.receive(BACKEND, answered)
    for said, answered in talk:
        stage.receive(CLIENT, said)
        stage.receive(BACKEND, answered)
    (told,) = [deed for deed in stage.deeds if isinstance(deed, Note) and deed.event == "auth"]
    assert dict(told.fields)["user"] in (b"grete", b'gr"ete')
    assert b"secret" not in str(told).encode()


def test_a_password_in_a_literal_is_no_name() -> None:
    (party,) = [one for one in PARTIES if one.dialect.name == "imap"]
    stage = party.stage(implicit=True)
    stage.receive(BACKEND, party.answers.greeting)
    stage.receive(CLIENT, b'a LOGIN "" {6+}\r\nsecret\r\n')
    stage.receive(BACKEND, b"+ go\r\n")
    stage.receive(BACKEND, b"a NO no\r\n")
    (told,) = [deed for deed in stage.deeds if isinstance(deed, Note)]
    assert "user" not in dict(told.fields)


# --- what is told ------------------------------------------------------------------------------------


def test_a_name_is_told_as_the_configuration_says() -> None:
    assert Users()(b"grete") is None
    assert Users("yes")(b"") is None
    assert Users("yes")("gr\N{LATIN SMALL LETTER O WITH DIAERESIS}\xff".encode() + b"\xff\r\n") == "gr\xf6\xff\\xff\r\n"
    assert len(Users("yes")(b"\xff" * 999) or "") == 128
    told = Users("hashed", b"a key")(b"grete")
    assert told == Users("hashed", b"a key")(b"grete")
    assert told != Users("hashed", b"another")(b"grete")
    assert told is not None
    assert len(told) == DIGITS
    assert "grete" not in told


def test_what_cannot_be_printed_is_shown_as_a_question_mark() -> None:
    assert printable("a\u202eb\x1b[31m\r\n") == "a\ufffdb\ufffd[31m\ufffd\ufffd"


@pytest.mark.parametrize(
    ("responses", "tried", "given"),
    [
        ([], False, False),
        ([b"="], False, False),
        ([b"AGEAYg=="], True, True),
        ([b"", b"AGEAYg=="], True, True),
        ([b"*"], False, False),
        ([b"AGEAYg==", b"*"], True, False),
        ([b"*", b"AGEAYg=="], True, False),
    ],
)
def test_a_login_that_was_taken_back_does_not_succeed_but_may_fail(
    responses: list[bytes], tried: bool, given: bool
) -> None:
    claim = named(b"plain", *responses)
    assert (claim.mechanism, claim.tried, claim.given) == (b"PLAIN", tried, given)
