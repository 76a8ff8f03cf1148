"""Bulk octets: where a message ends, and that no server behind us sees another end than we do."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.dialects.mail.message import Message, Newlines
from gateway.protocol.filters import Counted
from gateway.protocol.vocabulary import Filter

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""

# What the sequences are made of; everything else is like `x`.
TELLING = st.lists(st.sampled_from([b"\r", b"\n", b".", b"\0", b" ", b"x", b"\r\n", b"\r\n.\r\n"]), max_size=24)
OCTETS = st.one_of(TELLING.map(b"".join), st.binary(max_size=64))
CUTS = st.lists(st.integers(min_value=0, max_value=80), max_size=12)


def pieces(octets: bytes, cuts: list[int]) -> list[bytes]:
    ends = [*sorted(cut for cut in cuts if cut <= len(octets)), len(octets)]
    return [octets[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def passed(through: Filter, chunks: list[bytes]) -> tuple[bytes, bytes | None]:
    """All that a filter forwards, and what lies behind the end if it was there."""
    forwarded = b""
    for number, chunk in enumerate(chunks):
        part, rest = through.feed(chunk)
        forwarded += part
        if rest is not None:
            return forwarded, rest + b"".join(chunks[number + 1 :])
    return forwarded, None


# --- the slow reference, octet by octet --------------------------------------------------------------


def lines_of(octets: bytes) -> list[tuple[bytes, bytes]]:
    """Lines and what ended them: CRLF, LF, or nothing for an open last one."""
    lines: list[tuple[bytes, bytes]] = []
    text = bytearray()
    at = 0
    while at < len(octets):
        if octets[at : at + 2] == b"\r\n":
            lines.append((bytes(text), b"\r\n"))
            text.clear()
            at += 2
        elif octets[at : at + 1] == b"\n":
            lines.append((bytes(text), b"\n"))
            text.clear()
            at += 1
        else:
            text += octets[at : at + 1]
            at += 1
    lines.append((bytes(text), b""))
    return lines


def reference(octets: bytes, newlines: Newlines) -> tuple[bytes, bytes | None, bool]:
    """(forwarded, rest, offended) of a whole message; `octets` may lack its end."""
    written = b""
    before = b"\r\n"
    clean = True
    consumed = 0
    for text, end in lines_of(octets):
        if text == b"." and before == end == b"\r\n":
            consumed += len(text + end)
            if newlines is Newlines.REJECT and not clean:
                return b"", octets[consumed:], True
            return written + b".\r\n", octets[consumed:], False
        consumed += len(text + end)
        clean = clean and end != b"\n" and b"\r" not in text and b"\0" not in text
        if newlines is Newlines.PASS:
            written += text + end
        else:
            for octet in text:
                written += b" " if octet in b"\r\0" else bytes([octet])
            if text == b"." and end:
                written += b"."
            written += b"\r\n" if end else b""
        before = end
    return written, None, not clean


@pytest.mark.parametrize("newlines", Newlines)
@UNHURRIED
@given(OCTETS, CUTS)
@example(b".\r\n", [])
@example(b"\n.\r\n\r\n.\r\n", [1, 2, 3])
@example(b".\r.\r\n", [1, 2])
@example(b"a\r", [1])
@example(b"", [0])
def test_a_whole_message_is_what_the_slow_reference_makes_of_it(
    newlines: Newlines, octets: bytes, cuts: list[int]
) -> None:
    octets += b"\r\n.\r\nQUIT\r\n"
    message = Message(newlines)
    forwarded, rest = passed(message, pieces(octets, cuts))
    expected, behind, offended = reference(octets, newlines)
    assert (rest, message.offended) == (behind, offended)
    if not offended:
        assert forwarded == expected
    else:
        # What came before the offence may be gone already, but never an end of data.
        assert reference(octets, Newlines.NORMALIZE)[0].startswith(forwarded)
        assert not (b"\r\n" + forwarded).endswith(b"\r\n.\r\n")


@pytest.mark.parametrize("newlines", Newlines)
@UNHURRIED
@given(OCTETS, CUTS)
def test_an_unfinished_message_is_forwarded_up_to_what_may_still_become_its_end(
    newlines: Newlines, octets: bytes, cuts: list[int]
) -> None:
    message = Message(newlines)
    forwarded, rest = passed(message, pieces(octets, cuts))
    expected, behind, _ = reference(octets, newlines)
    assert rest == behind
    if rest is None and not message.offended:
        held = len(expected) - len(forwarded)
        assert expected.startswith(forwarded)
        assert 0 <= held <= len(b".\r")


@UNHURRIED
@given(st.binary(max_size=200), CUTS)
def test_passing_changes_not_one_octet(octets: bytes, cuts: list[int]) -> None:
    octets += b"\r\n.\r\n"
    forwarded, rest = passed(Message(Newlines.PASS), pieces(octets, cuts))
    assert rest is not None
    assert forwarded + rest == octets


@UNHURRIED
@given(OCTETS, CUTS)
def test_normalising_twice_is_normalising_once(octets: bytes, cuts: list[int]) -> None:
    once, _ = passed(Message(Newlines.NORMALIZE), pieces(octets + b"\r\n.\r\n", cuts))
    assert passed(Message(Newlines.NORMALIZE), [once]) == (once, b"")


# --- ends of data that somebody somewhere takes for one ------------------------------------------------

VARIANTS = (
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r.\n", b"\n.\r", b"\r\n.\r", b"\r\n\0.\r\n",
    b"\r\n.\0\r\n", b"\r\n.\r\r\n", b"\r\r\n.\r\r\n", b"\n\0.\n", b"\n\n.\n\n", b"\r\n.\n\r\n", b"\n\r.\r\n",
)  # fmt: skip

STRICT = rb"\r\n\.\r\n"
BACKENDS = {
    "strict": STRICT,
    "LF.LF": rb"\n\.\n",
    "LF.CRLF": rb"\n\.\r\n",
    "CRLF.LF": rb"\r\n\.\n",
    "CR.CR": rb"\r\.\r",
    "CR.CRLF": rb"\r\.\r\n",
    "CR.LF": rb"\r\.\n",
    "LF.CR": rb"\n\.\r",
    "CRLF.CR": rb"\r\n\.\r",
    "any": rb"(?:\r|\n|\r\n)\.(?:\r|\n)",
    "NUL dropped": rb"(?:\r|\n)\0*\.\0*(?:\r|\n)",
    "CRs before LF dropped": rb"\r*\n\.\r*\n",
}
"""What ends a message, beside CRLF.CRLF, for backends of some leniency: a pattern, its line end before it."""


def ends_of_data(backend: str, data: bytes) -> int:
    """How many messages this backend takes from `data`, which follows its 354."""
    return len(re.findall(STRICT + rb"|" + BACKENDS[backend], b"\r\n" + data))


@pytest.mark.parametrize("variant", VARIANTS, ids=repr)
@pytest.mark.parametrize("before", [b"", b"Subject: x\r\n\r\nbody"], ids=["first", "later"])
def test_S14_every_backend_sees_one_end_of_data(before: bytes, variant: bytes) -> None:
    octets = before + variant + b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<v@y>\r\nDATA\r\nsmuggled\r\n.\r\n"
    for size in (len(octets), 1, 2, 3):
        chunks = [octets[at : at + size] for at in range(0, len(octets), size)]
        normalized, rest = passed(Message(Newlines.NORMALIZE), chunks)
        assert rest == b""
        assert normalized.endswith(b"\r\n.\r\n")
        rejecting = Message(Newlines.REJECT)
        rejected, rest = passed(rejecting, chunks)
        assert rest == b""
        assert rejecting.offended
        for backend in BACKENDS:
            assert ends_of_data(backend, normalized) == 1, backend
            assert ends_of_data(backend, rejected) == 0, backend


@UNHURRIED
@given(OCTETS, CUTS)
def test_no_octets_at_all_end_a_message_early_for_a_lenient_backend(octets: bytes, cuts: list[int]) -> None:
    forwarded, rest = passed(Message(Newlines.NORMALIZE), pieces(octets + b"\r\n.\r\n", cuts))
    assert rest is not None
    assert b"\0" not in forwarded
    for backend in BACKENDS:
        assert ends_of_data(backend, forwarded) == 1, backend


@pytest.mark.parametrize(
    "line", [b"..", b".x", b"...", b". ", b"x" * 4000, bytes(range(1, 10)) + bytes(range(14, 256))], ids=len
)
@pytest.mark.parametrize("newlines", Newlines)
def test_S16_what_is_no_line_end_is_left_alone(newlines: Newlines, line: bytes) -> None:
    octets = b"a\r\n" + line + b"\r\nb\r\n.\r\n"
    for at in range(len(octets)):
        message = Message(newlines)
        assert passed(message, [octets[:at], octets[at:]]) == (octets, b"")
        assert not message.offended


# --- the trace field -----------------------------------------------------------------------------------

HEADER = b"Received: from x\r\n\tby gw\r\n"


@pytest.mark.parametrize(
    ("body", "forwarded"),
    [
        (b"Subject: x\r\n\r\ny\r\n", HEADER + b"Subject: x\r\n\r\ny\r\n"),
        (b"", HEADER),
        (b" folded\r\n", HEADER + b"\r\n folded\r\n"),
        (b"\tfolded\r\n", HEADER + b"\r\n\tfolded\r\n"),
        (b". folded\r\n", HEADER + b"\r\n. folded\r\n"),
        (b".\tfolded\r\n", HEADER + b"\r\n.\tfolded\r\n"),
        (b"..\r\n", HEADER + b"..\r\n"),
        (b"\0folded\r\n", HEADER + b"\r\n folded\r\n"),
        (b"\rfolded\r\n", HEADER + b"\r\n folded\r\n"),
        (b".\rfolded\r\n", HEADER + b"\r\n. folded\r\n"),
        (b"\nbody\r\n", HEADER + b"\r\nbody\r\n"),
        (b".\nbody\r\n", HEADER + b"..\r\nbody\r\n"),
    ],
)
def test_S22_the_header_comes_first_and_nothing_continues_it(body: bytes, forwarded: bytes) -> None:
    octets = body + b".\r\n"
    for size in (len(octets), 1, 2, 3):
        chunks = [octets[at : at + size] for at in range(0, len(octets), size)]
        assert passed(Message(Newlines.NORMALIZE, HEADER), chunks) == (forwarded + b".\r\n", b"")


@pytest.mark.parametrize("newlines", Newlines)
@UNHURRIED
@given(OCTETS, CUTS)
def test_the_header_is_written_once_however_the_octets_are_cut(
    newlines: Newlines, octets: bytes, cuts: list[int]
) -> None:
    octets += b"\r\n.\r\n"
    whole, _ = passed(Message(newlines, HEADER), [octets])
    cut, _ = passed(Message(newlines, HEADER), pieces(octets, cuts))
    if not reference(octets, newlines)[2]:
        assert cut == whole
        assert whole.startswith(HEADER)
        assert whole[len(HEADER) :][:1] not in (b" ", b"\t")
        assert whole.count(HEADER) == 1 + octets.count(HEADER)


def test_a_rejected_message_is_cut_off_at_its_first_offence() -> None:
    message = Message(Newlines.REJECT)
    assert message.feed(b"good\r\n") == (b"good\r\n", None)
    assert message.feed(b"bad\nworse\r\n") == (b"", None)
    assert message.feed(b"good again\r\n") == (b"", None)
    assert message.feed(b".\r\nQUIT\r\n") == (b"", b"QUIT\r\n")
    assert message.offended


# --- counted octets --------------------------------------------------------------------------------------


@UNHURRIED
@given(st.integers(min_value=0, max_value=60), st.binary(max_size=64), CUTS)
def test_counted_octets_are_counted_and_nothing_else(count: int, octets: bytes, cuts: list[int]) -> None:
    forwarded, rest = passed(Counted(count), pieces(octets, cuts))
    if len(octets) < count:
        assert (forwarded, rest) == (octets, None)
    else:
        assert (forwarded, rest) == (octets[:count], octets[count:])


def test_no_octets_end_at_once() -> None:
    assert Counted(0).feed(b"") == (b"", b"")
    assert Counted(0).feed(b"QUIT\r\n") == (b"", b"QUIT\r\n")
