"""XML streams: units, what is refused before it is parsed, and that cuts change nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.chat.xmpp.xml import DEPTH, ELEMENTS, NAMESPACE, Both, Malformed, Stanza, Stream
from gateway.protocol.inbox import Inbox
from gateway.protocol.vocabulary import Side
from tests.pure.contract.answers.xmpp import HEADER

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND
LIMIT = 65536
STREAM = "http://etherx.jabber.org/streams stream"
DECLARATION = b"<?xml version='1.0'?>"
BOMB = b"<?xml version='1.0'?><!DOCTYPE lolz [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;&a;&a;'>]><lolz>&b;</lolz>"


def units(octets: bytes, cut: int = 0, *, side: Side = BACKEND, limit: int = LIMIT) -> tuple[list[Stanza], bytes]:
    """The units, and the condition of the error behind them; empty for none."""
    stream, inbox = Stream(limit), Inbox(side)
    found: list[Stanza] = []
    size = cut or max(1, len(octets))
    try:
        for at in range(0, len(octets), size):
            inbox.feed(octets[at : at + size])
            while (unit := stream.unit(inbox)) is not None:
                found.append(unit)
    except Malformed as error:
        return found, error.condition
    return found, b""


def fault(octets: bytes, limit: int = LIMIT) -> bytes:
    """The same error, however they are cut."""
    conditions = {units(octets, cut, limit=limit)[1] for cut in (0, 1, 2, 3, 7, 977)}
    assert len(conditions) == 1, conditions
    return conditions.pop()


def names(octets: bytes) -> list[str]:
    found, condition = units(octets)
    assert not condition
    return [unit.name for unit in found]


# --- units -------------------------------------------------------------------------------------------


def test_a_stream_is_a_header_elements_and_an_end() -> None:
    body = b"<a x='1>2'>t<b/></a> \n<c xmlns=\"urn:x\"></c></stream:stream>"
    found, condition = units(DECLARATION + HEADER + body)
    assert not condition
    assert [unit.name for unit in found] == [STREAM, "jabber:client a", "urn:x c", ""]
    assert b"".join(unit.octets for unit in found) == DECLARATION + HEADER + body
    assert found[2].octets == b' \n<c xmlns="urn:x"></c>'
    element = found[1].element
    assert element is not None
    assert (element.attributes, element.text, element.begin, element.end) == ({"x": "1>2"}, "t", 0, 20)
    (child,) = element.children
    assert found[1].octets[child.begin : child.end] == b"<b/>"
    assert [each.name for each in element.all()] == ["jabber:client a", "jabber:client b"]
    assert found[-1].element is None


@pytest.mark.parametrize("side", Side)
def test_blanks_belong_to_what_follows_them(side: Side) -> None:
    found, _ = units(HEADER + b"<a/>\r\n<b/>\n", side=side)
    assert [each.octets for each in found[1:]] == [b"<a/>", b"\r\n<b/>"]


@pytest.mark.parametrize("header", [
    b"<stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:client'>",
    b'<?xml version="1.0"?><stream:stream xmlns="jabber:client"\n\txmlns:stream="http://etherx.jabber.org/streams" >',
    b"<?xml version='1.0' encoding='utf-8' standalone='yes' ?>\r\n<s:stream xmlns='jabber:client' "
    b"xmlns:s='http&#x3A;//etherx.jabber.org/streams'>",
    b"<?xml\tversion='1.0'?><stream xmlns='http://etherx.jabber.org/streams' xmlns:c='jabber:client' a='>\"<'>".replace(
        b"<'>", b"&lt;'>"),
])  # fmt: skip
def test_headers_in_any_order_quotes_and_prefix(header: bytes) -> None:
    for cut in range(len(header)):
        (found,), condition = units(header, cut)
        assert (found.name, found.octets, condition) == (STREAM, header, b"")


def test_the_default_namespace_of_the_header_is_kept() -> None:
    stream, inbox = Stream(LIMIT), Inbox(CLIENT)
    inbox.feed(HEADER + b"<a xmlns='urn:other'/>")
    assert stream.unit(inbox)
    assert stream.unit(inbox)
    assert stream.namespace == "jabber:client"


def test_characters_and_cdata_are_read() -> None:
    found, _ = units(HEADER + b"<a>&lt;&amp;&gt;&quot;&apos;&#65;&#x42;<![CDATA[<&no;]]></a>")
    assert found[1].element is not None
    assert found[1].element.text == "<&>\"'AB<&no;"


def test_an_element_in_the_content_namespace_of_another_prefix() -> None:
    assert names(HEADER + b"<x:a xmlns:x='urn:x' x:b='1'/>")[1:] == ["urn:x a"]


# --- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("octets", "condition"), [
    (BOMB, b"restricted-xml"),
    (b"<!DOCTYPE html>", b"restricted-xml"),
    (HEADER + b"<!DOCTYPE a>", b"restricted-xml"),
    (HEADER + b"<!-- x -->", b"restricted-xml"),
    (HEADER + b"<a><!-- x --></a>", b"restricted-xml"),
    (HEADER + b"<?php x?>", b"restricted-xml"),
    (b"<?xml-stylesheet href='x'?>" + HEADER, b"restricted-xml"),
    (DECLARATION * 2, b"restricted-xml"),
    (b"\n" + DECLARATION, b"restricted-xml"),
    (HEADER + b"<a>&foo;</a>", b"restricted-xml"),
    (HEADER + b"<a b='&foo;'/>", b"restricted-xml"),
    (HEADER + b"<![CDATA[x]]>", b"restricted-xml"),
    (HEADER + b"<a><![CDAT[x]]></a>", b"restricted-xml"),
    (HEADER + b"<a>&lt</a>", b"not-well-formed"),
    (HEADER + b"<a b='&'/>", b"not-well-formed"),
    (HEADER + b"<a>&#0;</a>", b"not-well-formed"),
    (HEADER + b"<a>&#xD800;</a>", b"not-well-formed"),
    (HEADER + b"<a></b>", b"not-well-formed"),
    (HEADER + b"<a b='1' b='2'/>", b"not-well-formed"),
    (HEADER + b"<a <b/>", b"not-well-formed"),
    (HEADER + b"<a b='<'/>", b"not-well-formed"),
    (HEADER + b"<u:a/>", b"not-well-formed"),
    (HEADER + b"<a>\0</a>", b"not-well-formed"),
    (HEADER + b"<a>\xff</a>", b"not-well-formed"),
    (HEADER + b"<a>\xc0\xaf</a>", b"not-well-formed"),
    (HEADER + b"</stream:stream><a/>", b"not-well-formed"),
    (HEADER + b"</stream:stream>more", b"not-well-formed"),
    (HEADER + b"text", b"bad-format"),
    (HEADER + b" x", b"bad-format"),
    (b"<stream/>", b"bad-format"),
    (b"GET / HTTP/1.1\r\n", b"not-well-formed"),
    (b"\xff\xfe<\0?\0", b"not-well-formed"),
    (b"\0<\0?\0x", b"not-well-formed"),
    (b"\xef\xbb\xbf<stream>", b"not-well-formed"),
    (b"<?xml version='1.0' encoding='UTF-16'?>", b"unsupported-encoding"),
    (b"<?xml version='1.0' encoding='ISO-8859-1'?>", b"unsupported-encoding"),
    (b"<?xml version='1.1'?>", b"not-well-formed"),
    (b"<?xml encoding='UTF-8'?><a>", b"not-well-formed"),
    (HEADER + b"<a>" * (DEPTH - 1), b""),
    (HEADER + b"<a>" * DEPTH, b"policy-violation"),
    (HEADER + b"<a>" + b"<b/>" * (ELEMENTS - 1) + b"</a>", b""),
    (HEADER + b"<a>" + b"<b/>" * ELEMENTS + b"</a>", b"policy-violation"),
])  # fmt: skip
def test_what_is_no_stream_is_refused_wherever_it_is_cut(octets: bytes, condition: bytes) -> None:
    assert fault(octets) == condition


def test_few_octets_may_be_another_protocols() -> None:
    """`Dialect.foreign` decides first."""
    assert units(b"GET")[1] == b""
    assert units(b"\n\n\n")[1] == b""


@pytest.mark.parametrize("inside", [b"<a>%s</a>", b"<a b='%s'/>", b"<a><![CDATA[%s]]></a>", b"%s<a/>"])
def test_a_unit_has_its_limit(inside: bytes) -> None:
    limit = 500
    filling = limit - len(inside) + 2
    blank = b" " if inside.startswith(b"%s") else b"x"
    assert fault(HEADER + inside % (blank * filling), limit) == b""
    assert fault(HEADER + inside % (blank * (filling + 1)), limit) == b"policy-violation"
    # Without an end it is the same.
    assert fault(HEADER + (inside % (blank * (filling * 2)))[: limit + 1], limit) == b"policy-violation"


def test_all_units_together_have_a_limit() -> None:
    octets = HEADER + b"<a/>" * 10
    for cut in (1, len(octets)):
        for missing in (0, 1):
            stream, inbox, count, condition = Stream(len(octets) - missing, altogether=True), Inbox(CLIENT), 0, b""
            try:
                for at in range(0, len(octets), cut):
                    inbox.feed(octets[at : at + cut])
                    while stream.unit(inbox):
                        count += 1
            except Malformed as error:
                condition = error.condition
            assert (count, condition) == (11 - missing, b"policy-violation" * missing)


def test_each_side_has_its_stream() -> None:
    both = Both(Stream(LIMIT), Stream(LIMIT))
    for side in Side:
        inbox = Inbox(side)
        inbox.feed(HEADER)
        unit = both.unit(inbox)
        assert unit is not None
        assert unit.side is side


def test_the_error_says_who_and_what() -> None:
    inbox = Inbox(BACKEND)
    inbox.feed(b"220 mail.example.org ESMTP\r\n")
    with pytest.raises(Malformed) as raised:
        Stream(LIMIT).unit(inbox)
    assert raised.value.key == "backend-protocol-error"
    assert "not-well-formed: b'220 mail" in raised.value.detail


# --- whatever comes ----------------------------------------------------------------------------------

PIECES = [b"<a>", b"</a>", b"<b/>", b"<c d='", b"'", b'"', b">", b"<", b"&lt;", b"&x;", b"&", b"<![CDATA[", b"]]>",
          b"]", b"<!", b"<?", b"?>", b"text", b" ", b"\n", b"</stream:stream>", b"<a xmlns='urn:x'>",
          b"\xc3\xa4", b"\0", DECLARATION, HEADER, b"xmlns:y='urn:y'", b"<y:z/>", b"\r", b"GET "]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=5), max_size=15), st.booleans(), st.integers(1, 9))
def test_how_it_is_cut_changes_nothing(pieces: list[bytes], begun: bool, cut: int) -> None:
    octets = HEADER * begun + b"".join(pieces)
    found, condition = units(octets, limit=200)
    others, other = units(octets, cut, limit=200)
    assert condition == other
    assert [(unit.octets, unit.element) for unit in found] == [(unit.octets, unit.element) for unit in others]


# --- memory ------------------------------------------------------------------------------------------


def test_a_long_namespace_is_not_repeated_in_every_name() -> None:
    """64 KiB became 300 MB: expat gives each attribute its namespace's whole name."""
    attributes = b"".join(b" a:a%d=''" % number for number in range(2000))
    for namespace in (b"u" * 30_000, b"u" * NAMESPACE):
        assert fault(HEADER + b"<q xmlns:a='" + namespace + b"'" + attributes + b"/>") == b"policy-violation"
    elements = b"<a:b/>" * (ELEMENTS - 2)
    inside = HEADER + b"<q xmlns:a='%s'>" + elements + b"</q>"
    assert fault(inside % (b"u" * NAMESPACE)) == b""
    assert fault(inside % (b"u" * (NAMESPACE + 1))) == b"policy-violation"


def test_a_long_text_with_equal_signs_passes() -> None:
    text = b"=" * 30_000
    for said in (b"<a>" + text + b"</a>", b"<a><![CDATA[" + text + b"]]></a>", b"<a b='" + b"=" * 900 + b"'/>"):
        assert names(HEADER + said)[1:] == ["jabber:client a"]
