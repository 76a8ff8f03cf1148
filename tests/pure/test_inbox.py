"""The inbox: lines, counted octets, chunks; bounded whatever comes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.inbox import BEGIN, END, FLOOD, Inbox, Longer
from gateway.protocol.vocabulary import Line, Side, TooLong, Unclean, Violation

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND


def read(side: Side, *segments: bytes, limit: int = 8, longer: Longer | None = None) -> list[object]:
    """All that can be read as lines when the octets come in these segments."""
    inbox = Inbox(side)
    heard: list[object] = []
    for segment in segments:
        inbox.feed(segment)
        while (line := inbox.line(limit, longer)) is not None:
            heard.append(line)
    heard.append(inbox.drain())
    return heard


@pytest.mark.parametrize(
    ("octets", "heard"),
    [
        (b"NOOP\r\n", [Line(CLIENT, b"NOOP"), b""]),
        (b"NOOP\n", [Line(CLIENT, b"NOOP"), b""]),
        (b"\n\r\n", [Line(CLIENT, b""), Line(CLIENT, b""), b""]),
        (b"a\r\nb", [Line(CLIENT, b"a"), b"b"]),
        (b"a\r\r\n", [Unclean(CLIENT), b""]),
        (b"a\rb\r\n", [Unclean(CLIENT), b""]),
        (b"a\0\r\n", [Unclean(CLIENT), b""]),
        (b"12345678\r\n", [Line(CLIENT, b"12345678"), b""]),
        (b"123456789\r\nx\n", [TooLong(CLIENT), Line(CLIENT, b"x"), b""]),
        (b"123456789\nx\n", [TooLong(CLIENT), Line(CLIENT, b"x"), b""]),
        (b"12345678\r", [b"12345678\r"]),
    ],
)
def test_lines(octets: bytes, heard: list[object]) -> None:
    assert read(CLIENT, octets) == heard
    assert read(CLIENT, *(octets[at : at + 1] for at in range(len(octets)))) == heard


def test_a_backend_may_say_anything_in_a_line() -> None:
    assert read(BACKEND, b"a\rb\0\r\n") == [Line(BACKEND, b"a\rb\0"), b""]


def test_an_overlong_line_is_dropped_while_it_comes() -> None:
    inbox = Inbox(CLIENT)
    for _ in range(100):
        inbox.feed(b"x" * 100)
        assert inbox.line(8) is None
        assert len(inbox.octets) <= 9
    inbox.feed(b"y\r\nNOOP\r\n")
    assert [inbox.line(8), inbox.line(8)] == [TooLong(CLIENT), Line(CLIENT, b"NOOP")]


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r\r\n"], ids=repr)
@pytest.mark.parametrize(
    ("line", "limit"),
    [
        (bytes(range(65, 75)), 8),
        (b"tag NOOP " + b"x" * 600 + b" {5+}", 512),
        (b"b" * BEGIN + b"x" * 9000 + b"e" * END, 8192),
        (b"b" * 8193, 8192),
    ],
    ids=["short", "literal", "both", "all"],
)
def test_T09_of_an_overlong_line_beginning_and_end_are_kept_however_it_is_cut(
    line: bytes, limit: int, end: bytes
) -> None:
    wanted = (line[: min(BEGIN, limit)], (line + end[:-2])[-END:])
    for size in (1, 7, 64, 1000, 20_000):
        said = line + end
        inbox = Inbox(CLIENT)
        heard = None
        for at in range(0, len(said), size):
            assert heard is None
            inbox.feed(said[at : at + size])
            heard = inbox.line(limit)
            assert len(inbox.octets) <= max(limit + 1, size)
        assert isinstance(heard, TooLong)
        assert (heard.begin, heard.end) == wanted
        inbox.feed(b"NOOP\r\n")
        assert inbox.line(limit) == Line(CLIENT, b"NOOP")


LONG = Longer(re.compile(rb"[a-z]+ ID ", re.IGNORECASE), 30)


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (b"a id 34567890\r\n", [Line(CLIENT, b"a id 34567890")]),
        (b"a ID " + b"x" * 25 + b"\r\n", [Line(CLIENT, b"a ID " + b"x" * 25)]),
        (b"a ID " + b"x" * 26 + b"\r\n", [TooLong(CLIENT)]),
        (b"a IDX4567890\r\n", [TooLong(CLIENT)]),
        (b" a ID 34567890\r\n", [TooLong(CLIENT)]),
        (b"NOOP\r\na ID 34567890\r\n123456789\r\n", [
            Line(CLIENT, b"NOOP"), Line(CLIENT, b"a ID 34567890"), TooLong(CLIENT)]),
        (b"123456789\r\na ID 34567890\r\n", [TooLong(CLIENT), Line(CLIENT, b"a ID 34567890")]),
        (b"a ID " + b"x" * FLOOD + b"\r\nNOOP\r\n", [TooLong(CLIENT), Line(CLIENT, b"NOOP")]),
        (b"123456789a ID 34567890\r\n", [TooLong(CLIENT)]),
    ],
)  # fmt: skip
def test_T09_lines_with_a_certain_beginning_may_be_longer(said: bytes, heard: list[object]) -> None:
    for size in (1, 9, len(said)):
        segments = [said[at : at + size] for at in range(0, len(said), size)]
        assert read(CLIENT, *segments, longer=LONG) == [*heard, b""]


@pytest.mark.parametrize("size", [1, 1000, FLOOD])
def test_T09_but_not_endless(size: int) -> None:
    said = b"a ID " + b"x" * (FLOOD + 26)
    inbox = Inbox(CLIENT)
    for at in range(0, FLOOD + 30, size):
        inbox.feed(said[at : min(at + size, FLOOD + 30)])
        assert inbox.line(8, LONG) is None
    inbox.feed(b"x")
    with pytest.raises(Violation):
        inbox.line(8, LONG)


@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize(("side", "key"), [(CLIENT, "client-line-too-long"), (BACKEND, "backend-line-too-long")])
def test_an_endless_line_is_a_violation(end: bytes, side: Side, key: str) -> None:
    inbox = Inbox(side)
    inbox.feed(b"x" * (FLOOD + 8))
    assert inbox.line(8) is None
    inbox.feed(b"x" + end)
    with pytest.raises(Violation) as caught:
        inbox.line(8)
    assert (caught.value.side, caught.value.key) == (side, key)


def test_counted_octets() -> None:
    inbox = Inbox(CLIENT)
    inbox.feed(b"ab")
    assert inbox.line(8) is None
    assert (inbox.take(3), inbox.take(0)) == (None, b"")
    inbox.feed(b"c\nd\n")
    assert inbox.take(3) == b"abc"
    assert (inbox.line(8), inbox.line(8)) == (Line(CLIENT, b""), Line(CLIENT, b"d"))


def test_peeking_leaves_everything_and_shows_little() -> None:
    inbox = Inbox(CLIENT)
    assert inbox.peek() == b""
    inbox.feed(b"x" * 100)
    assert (len(inbox.peek()), len(inbox.octets)) == (64, 100)


def test_draining_begins_anew() -> None:
    inbox = Inbox(CLIENT)
    inbox.feed(b"x" * 20)
    assert inbox.line(8) is None
    assert inbox.drain() == b""  # dropped already
    inbox.feed(b"ok\n")
    assert inbox.line(8) == Line(CLIENT, b"ok")


PIECES = st.lists(st.binary(max_size=12) | st.sampled_from([b"\r", b"\n", b"\r\n", b"12345678", b"\0"]), max_size=12)


@given(PIECES, st.sampled_from(Side))
def test_how_the_network_cuts_changes_nothing(pieces: list[bytes], side: Side) -> None:
    octets = b"".join(pieces)
    lines = read(side, octets)[:-1]
    assert read(side, *pieces)[:-1] == lines
    assert read(side, *(octets[at : at + 1] for at in range(len(octets))))[:-1] == lines


@given(PIECES)
def test_a_line_of_the_client_never_holds_what_a_backend_might_split_at(pieces: list[bytes]) -> None:
    for heard in read(CLIENT, *pieces)[:-1]:
        if isinstance(heard, Line):
            assert not {b"\r", b"\n", b"\0"} & {bytes([octet]) for octet in heard.text}
            assert len(heard.text) <= 8


class Counting(bytearray):
    """Knows how many octets were looked at in search of a line end."""

    looked = 0

    def find(self, sub: Any, start: Any = 0, end: Any = None) -> int:
        self.looked += len(self) - (start or 0)
        return super().find(sub, start, end)


def test_single_octets_are_looked_at_once() -> None:
    """Quadratic scanning would look at 1.8 thousand million for 60000."""
    inbox = Inbox(CLIENT)
    inbox.octets = octets = Counting()
    for _ in range(60000):
        inbox.feed(b"x")
        inbox.line(65536)
    assert inbox.octets is octets
    assert octets.looked == 60000
