"""However hostile the values, an event is one line, and what is read back from it is what was said."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.telemetry.events import FORMATS, LIMIT, Events

NOON = 1795287872.1234
TIME = "2026-11-21T19:04:32.123Z"

_PAIR = re.compile(r'(?:^| )([a-z_]+)=(?:([!#-<>-\[\]-~]+)|"((?:[^"\\]|\\.)*)")(?= |$)')
_ESCAPE = re.compile(r'\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(["\\]))')


def parse_logfmt(line: str) -> dict[str, str]:
    """An independent reader: raises where the line is not a sequence of well-formed pairs."""
    fields, end = {}, 0
    for pair in _PAIR.finditer(line):
        assert pair.start() == end
        end = pair.end()
        name, bare, inner = pair.groups()
        assert name not in fields
        fields[name] = bare or _ESCAPE.sub(_unescape, inner)
    assert end == len(line)
    return fields


def _unescape(match: re.Match[str]) -> str:
    *codes, literal = match.groups()
    return str(literal or chr(int("".join(filter(None, codes)), 16)))


def told(form: str, event: str, **fields: object) -> str:
    lines: list[str] = []
    Events(lines.append, FORMATS[form], lambda: NOON).emit(event, **fields)
    (line,) = lines
    return line


NAMES = st.sampled_from(["session", "service", "client", "reason", "sni", "text"])
# Short enough that even escaped nothing is cut.
HOSTILE = st.text(max_size=80) | st.text(
    alphabet='\\"= \n\r\t\0\x1b\x7f\x85\u2028\u2029\u202e\ud800\U000e0001axu{},:', max_size=80
)
VALUES = HOSTILE | st.binary(max_size=80) | st.integers() | st.booleans() | st.floats() | st.none()


def text_of(value: object) -> str:
    match value:
        case bytes():
            return value.decode("ascii", "backslashreplace")
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.3f}"
    return str(value)


@given(st.dictionaries(NAMES, VALUES))
@example({"text": '" event=auth result="ok'})
@example({"text": "a\nb event=auth"})
@example({"text": "\\", "sni": '"'})
def test_logfmt_is_one_printable_line_and_reads_back(fields: Mapping[str, object]) -> None:
    line = told("text", "session", **fields)
    assert line.isprintable()
    assert parse_logfmt(line) == {
        "time": TIME,
        "event": "session",
        **{name: text_of(value) for name, value in fields.items() if value is not None},
    }


@given(st.dictionaries(NAMES, HOSTILE | st.binary(max_size=80) | st.integers() | st.booleans() | st.none()))
def test_json_is_one_printable_line_and_reads_back(fields: Mapping[str, object]) -> None:
    line = told("json", "session", **fields)
    assert line.isprintable()
    assert line.isascii()
    assert json.loads(line) == {
        "time": TIME,
        "event": "session",
        **{
            name: text_of(value) if isinstance(value, bytes) else value
            for name, value in fields.items()
            if value is not None
        },
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("quit", "quit"),
        ("10.0.0.5:25", "10.0.0.5:25"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "x"', r'"say \"x\""'),
        ("back\\slash", r'"back\\slash"'),
        ("a\r\nb\0\x1b\x7f", r'"a\x0d\x0ab\x00\x1b\x7f"'),
        ("\u2028\u2029\u202e\u00a0", r'"\u2028\u2029\u202e\xa0"'),
        ("\U000e0001", r'"\U000e0001"'),
        ("Grüße", '"Grüße"'),
        (b"caf\xe9", r'"caf\\xe9"'),
        (bytearray(b"ok"), "ok"),
        (25, "25"),
        (1.5, "1.500"),
        (True, "yes"),
        (False, "no"),
        (Path("/run/x"), "/run/x"),
    ],
)
def test_values_in_logfmt(value: object, shown: str) -> None:
    assert told("text", "auth", text=value) == f"time={TIME} event=auth text={shown}"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("quit", '"quit"'),
        ("a\nb\x7f\u2028\u202e", r'"a\nb\u007f\u2028\u202e"'),
        (b"caf\xe9", r'"caf\\xe9"'),
        (25, "25"),
        (1.23456, "1.235"),
        (float("nan"), '"nan"'),
        (float("-inf"), '"-inf"'),
        (True, "true"),
        (False, "false"),
    ],
)
def test_values_in_json(value: object, shown: str) -> None:
    assert told("json", "auth", text=value) == f'{{"time":"{TIME}","event":"auth","text":{shown}}}'


@pytest.mark.no_cover
@pytest.mark.parametrize("form", FORMATS)
@given(text=st.text(min_size=LIMIT // 8, max_size=LIMIT + 8) | st.text(alphabet="a é\0\U0001f600", min_size=LIMIT))
def test_a_field_is_cut_at_a_kilobyte_and_between_two_characters(form: str, text: str) -> None:
    line = told(form, "x", text=text)
    field = line.split("text", 1)[1]
    assert len(field.encode()) <= LIMIT + len('":""}')
    read = parse_logfmt(line)["text"] if form == "text" else json.loads(line)["text"]
    assert read == text or (read.endswith("...") and text.startswith(read[:-3]))


def test_a_field_of_a_kilobyte_is_not_cut() -> None:
    assert told("text", "x", text="a" * LIMIT).endswith("=" + "a" * LIMIT)
    assert told("text", "x", text="a" * (LIMIT + 1)).endswith('="' + "a" * (LIMIT - 3) + '..."')


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ("text", f'time={TIME} event=session session=7 service=smtp client="a b" reason=quit'),
        (
            "json",
            f'{{"time":"{TIME}","event":"session","session":"7","service":"smtp","client":"a b","reason":"quit"}}',
        ),
    ],
)
def test_bound_fields_come_first_in_every_event(form: str, line: str) -> None:
    lines: list[str] = []
    events = Events(lines.append, FORMATS[form], lambda: NOON)
    session = events.bound(session="7", sni=None).bound(service="smtp", client="a b")
    session.emit("session", reason="quit", sni=None)
    events.emit("session")
    assert lines[0] == line
    assert "smtp" not in lines[1]


def test_another_form_holds_for_what_was_bound_before() -> None:
    lines: list[str] = []
    events = Events(lines.append, FORMATS["text"], lambda: 0.0)
    bound = events.bound(service="mx").limited(5)
    events.form = FORMATS["json"]
    assert bound.form is FORMATS["json"]
    bound.emit("quit", text="123456789")
    assert '"service":"mx"' in lines[0]
    assert '"text":"12..."' in lines[0]
