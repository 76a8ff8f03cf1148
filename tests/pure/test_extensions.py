"""The table of SMTP extensions: what stands in it, what it decides, and that the document has it; row T01."""

from __future__ import annotations

import pytest

from gateway.dialects.mail import extensions
from gateway.dialects.mail.extensions import TABLE, Treatment
from tests import extensions as document

IANA = (
    b"SEND SOML SAML VRFY EXPN HELP TURN 8BITMIME SIZE VERB ONEX CHUNKING BINARYMIME CHECKPOINT DELIVERBY PIPELINING"
    b" DSN ETRN ENHANCEDSTATUSCODES STARTTLS NO-SOLICITING MTRK SUBMITTER ATRN AUTH FUTURERELEASE UTF8SMTP BURL"
    b" SMTPUTF8 CONPERM CONNEG MT-PRIORITY RRVS REQUIRETLS LIMITS".split()
)
"""The registry "SMTP Service Extensions" of September 2025."""


def test_T01_the_document_holds_the_table_of_the_code() -> None:
    assert document.DOCUMENT.read_text() == document.filled(document.DOCUMENT.read_text())
    for extension in TABLE:
        assert document.row(extension) in document.DOCUMENT.read_text()


@pytest.mark.parametrize("keyword", IANA, ids=repr)
def test_T01_every_registered_extension_is_decided(keyword: bytes) -> None:
    row = extensions.known(keyword)
    assert row is not None
    assert row.keyword.encode() == keyword
    assert row.reason


def test_T01_no_extension_command_or_parameter_stands_there_twice() -> None:
    assert len({row.keyword for row in TABLE}) == len(TABLE)
    verbs = [verb for row in TABLE for verb in row.verbs]
    assert len(set(verbs)) == len(verbs)
    treatments: dict[str, set[Treatment]] = {}
    for row in TABLE:
        for name in row.parameters:
            treatments.setdefault(name, set()).add(row.treatment)
    assert [name for name, different in treatments.items() if len(different) > 1] == []


def test_T01_the_table_is_in_upper_case_and_what_speaks_for_others_is_hidden() -> None:
    for row in TABLE:
        assert [word for word in (row.keyword, *row.verbs, *row.parameters) if word != word.upper()] == []
        assert not row.authority or row.treatment is Treatment.HIDDEN


@pytest.mark.parametrize(
    ("keyword", "hidden"),
    [
        (b"PRDR", True), (b"CHECKPOINT", True), (b"TURN", True), (b"XSHADOW", True), (b"XSHADOWFOO", True),
        (b"SIZE", False), (b"X-UNKNOWN", False), (b"", False), (b"XCLIENTELE", False), (b"XXXA", False),
        (b"REQUIRETLS", False),
    ],
)  # fmt: skip
def test_T01_a_keyword_is_hidden_or_not(keyword: bytes, hidden: bool) -> None:
    assert extensions.is_hidden(keyword) is hidden
    assert extensions.is_hidden(keyword, frozenset({b"REQUIRETLS"})) is (hidden or keyword == b"REQUIRETLS")


@pytest.mark.parametrize(
    ("verb", "refused"),
    [
        (b"XCLIENT", True), (b"XQDISCARD", True), (b"XBDATBLOB", True), (b"EXDATA", True), (b"XSHADOWBAR", True),
        (b"ATRN", True), (b"MAIL", False), (b"BDAT", False), (b"ETRN", False), (b"FOO", False), (b"HELP", False),
    ],
)  # fmt: skip
def test_T01_a_command_is_refused_or_not(verb: bytes, refused: bool) -> None:
    assert extensions.refuses_command(verb) is refused
    assert extensions.refuses_command(b"BURL", frozenset({b"BURL"}))


@pytest.mark.parametrize(
    ("argument", "refused"),
    [
        (b"FROM:<a@b> PRDR", b"PRDR"), (b"FROM:<a@b> SIZE=5 prdr", b"PRDR"), (b"FROM:<a@b>PRDR", b"PRDR"),
        (b"FROM:<a@b>\tPrdr", b"PRDR"), (b"FROM:<a@b> PRDR=x", b"PRDR"), (b"FROM: a@b PRDR", b"PRDR"),
        (b'FROM:<"x y"@b> XOORG=evil', b"XOORG"), (b"TO:<a@b> XRCPTFORWARD=eA==", b"XRCPTFORWARD"),
        (b"FROM:<a@b> TRANSID=<1@c>", b"TRANSID"), (b"FROM:<prdr@b>", None), (b"FROM:<a@prdr> BODY=8BITMIME", None),
        (b"FROM:<a@b> PRDRX X-PRDR", None), (b"", None), (b"TO:<turn>", None), (b"FROM:<a@b> REQUIRETLS", None),
    ],
)  # fmt: skip
def test_T01_a_parameter_is_refused_or_not(argument: bytes, refused: bytes | None) -> None:
    assert extensions.refused_parameter(argument) == refused


def test_T01_what_is_withheld_is_refused_as_well() -> None:
    argument = b"FROM:<a@b> REQUIRETLS"
    assert extensions.refused_parameter(argument, frozenset({b"REQUIRETLS"})) == b"REQUIRETLS"
    assert extensions.refused_parameter(argument, frozenset({b"BURL"})) is None


@pytest.mark.parametrize(
    ("keyword", "longer"), [(b"SIZE", True), (b"SUBMITTER", True), (b"PIPELINING", False), (b"FOO", False)]
)
def test_some_extensions_make_commands_longer(keyword: bytes, longer: bool) -> None:
    assert extensions.lengthens(keyword) is longer


@pytest.mark.parametrize(
    ("keyword", "speaks"), [(b"XCLIENT", True), (b"XSHADOWREQUEST", True), (b"TURN", False), (b"FOO", False)]
)
def test_some_extensions_speak_for_others(keyword: bytes, speaks: bool) -> None:
    assert extensions.is_authority(keyword) is speaks
