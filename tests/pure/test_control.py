"""The control protocol, and answers of several processes as one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.app.control.answers import joined, merged, names, selects
from gateway.app.control.messages import COMMANDS, ROWS, Answer, Misunderstood, Request, answer_of, request_of
from gateway.telemetry.users import Users

# --- requests and answers --------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [
    Request("status"), Request("reload"), Request("drain", "imap"), Request("undrain", "10.0.0.5:25"), Request("who"),
    Request("who", "client=192.0.2.0/24 phase=relaying"), Request("kick", "192.0.2.1"),
    Request("ban", "192.0.2.1"), Request("ban", "192.0.2.0/24", 600.0, kick=True), Request("unban", "192.0.2.1"),
    Request("bans"),
])  # fmt: skip
def test_a_request_is_one_line_of_json(request_: Request) -> None:
    line = request_.line()
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert request_of(line) == request_


def test_an_answer_is_one_line_of_json() -> None:
    few, many = ([{"id": str(number)} for number in range(rows)] for rows in (ROWS, 2 * ROWS + 1))
    for answer, pieces in (
        (Answer({"sessions": 3}), 1),
        (Answer({}, ("no such thing\nforged",)), 1),
        (Answer({"sessions": few}), 1),
        (Answer({"sessions": many, "what": "service"}, ("worker 1 does not answer",)), 5),
    ):
        said = list(answer.pieces())
        assert len(said) == pieces
        line = b"".join(said)
        assert line.count(b"\n") == 1
        assert answer_of(line) == answer


@pytest.mark.parametrize(("line", "why"), [
    (b"status\n", "a line that is no JSON"),
    (b"\xff\n", "a line that is no JSON"),
    (b"[" * 4000 + b"\n", "a line that is no JSON"),
    (b"[1]\n", "a line that is no JSON object"),
    (b"{}\n", "version None is not spoken here; this gateway speaks 1"),
    (b'{"version":2,"command":"status"}\n', "version 2 is not spoken here; this gateway speaks 1"),
    (b'{"version":1}\n', "there is no command None; there are status, reload, upgrade, drain, undrain, who, kick"),
    (b'{"version":1,"command":["status"]}\n', "there is no command ['status']; there are status"),
    (b'{"version":1,"command":"stop"}\n', "there is no command 'stop'; there are status"),
    (b'{"version":1,"command":"drain"}\n', "drain: name is missing"),
    (b'{"version":1,"command":"kick","whom":"\\udcff"}\n', "kick: whom is no text"),
    (b'{"version":1,"command":"drain","name":""}\n', "drain: name is missing"),
    (b'{"version":1,"command":"kick","whom":7}\n', "kick: whom is no text"),
    (b'{"version":1,"command":"status","name":"x"}\n', "status: takes no name"),
    (b'{"version":1,"command":"kick","whom":"x","why":"y","b":1}\n', "kick: takes no b, why"),
    (b'{"version":1,"command":"kick","whom":"x","for":1}\n', "kick: takes no for"),
    (b'{"version":1,"command":"ban"}\n', "ban: client is missing"),
    (b'{"version":1,"command":"ban","client":"x","for":"1h"}\n', "ban: for is no number"),
    (b'{"version":1,"command":"ban","client":"x","for":true}\n', "ban: for is no number"),
    (b'{"version":1,"command":"ban","client":"x","kick":1}\n', "ban: kick is no yes or no (true or false)"),
])  # fmt: skip
def test_what_is_no_request_is_told(line: bytes, why: str) -> None:
    with pytest.raises(Misunderstood) as caught:
        request_of(line)
    assert str(caught.value).startswith(why)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_whatever_comes_is_a_request_or_misunderstood(line: bytes) -> None:
    try:
        command = request_of(line).command
    except Misunderstood as wrong:
        command = ""
        told = str(wrong)
    assert command in COMMANDS or told.isprintable()


@pytest.mark.parametrize("told", [
    {}, {"version": 2, "ok": True, "problems": [], "result": {}}, {"version": 1, "problems": [], "result": []},
    {"version": 1, "problems": "", "result": {}},
])  # fmt: skip
def test_an_answer_of_another_version_is_told(told: Any) -> None:
    with pytest.raises(Misunderstood, match="another version"):
        answer_of(json.dumps(told).encode())


# --- filters ---------------------------------------------------------------------------------------

ROW = {
    "id": "3f2a99c0ffee", "service": "imap", "protocol": "imap", "client": "192.0.2.7", "user": "grete",
    "tls": "TLSv1.3", "phase": "relaying", "backend": "10.0.0.5:143", "age": 10.0,
}  # fmt: skip


@pytest.mark.parametrize("filter_", [
    "", "3f2a", "3f2a99c0ffee", "grete", "user=Grete", "user=grete imap",
    "192.0.2.7", "192.0.2.0/24", "imap", "IMAP", "relaying", "10.0.0.5:143", "tls=tlsv1.3",
    "service=imap client=192.0.2.7", "relaying 192.0.0.0/16", "client=::ffff:192.0.2.7/128 id=3f2a",
])  # fmt: skip
def test_a_filter_that_holds(filter_: str) -> None:
    row = {**ROW, "client": "::ffff:192.0.2.7"} if "ffff:" in filter_ else ROW
    expected = "ffff:" not in filter_
    assert selects(filter_)(ROW) is expected
    assert selects(filter_.replace("::ffff:192.0.2.7/128", "192.0.2.7"))(row)


@pytest.mark.parametrize("filter_", [
    "3f2", "id=3f2", "id=99c0", "192.0.2.8", "198.51.100.0/24", "pop3", "service=relaying", "imap phase=secure",
    "client=imap", "user=hans", "client=grete", "::/0", "192.0.2.7/99",
])  # fmt: skip
def test_a_filter_that_does_not_hold(filter_: str) -> None:
    assert not selects(filter_)(ROW)


def test_what_a_session_does_not_have_is_not_found() -> None:
    row = {**ROW, "client": "", "tls": None, "backend": None}
    assert not selects("tls=TLSv1.3")(row)
    assert not selects("192.0.2.0/24")(row)
    assert selects("client=")(row), "UNIX sockets"


def test_a_user_is_found_by_the_name_also_where_rows_have_what_stands_for_it() -> None:
    users = Users("hashed", b"key")
    row = {**ROW, "user": users(b"grete")}
    for filter_ in ("grete", "user=grete", f"user={row['user']}"):
        assert selects(filter_, users)(row), filter_
    assert not selects("user=hans", users)(row)
    assert not selects("service=grete", users)(row)
    assert not selects("user=grete", users)({**row, "user": None})


@pytest.mark.parametrize(("whom", "expected"), [
    ("grete", True), ("3f2a", True), ("192.0.2.0/24", True), ("imap", False), ("relaying", False), ("a b", False),
])  # fmt: skip
def test_whom_to_cut_off(whom: str, expected: bool) -> None:
    assert names(whom)(ROW) is expected


def test_a_filter_by_a_field_that_sessions_do_not_have_is_told() -> None:
    with pytest.raises(ValueError, match="name=x: sessions are chosen by id, client, user, service, protocol, phase"):
        selects("name=x")


# --- one answer of many ----------------------------------------------------------------------------


def part(pid: int, sessions: int, **more: Any) -> Answer:
    return Answer({
        "gateway": {"version": "1"}, "processes": [{"pid": pid}], "sessions": sessions, "limit": 100,
        "services": [{"name": "imap", "sessions": sessions, "listeners": ["a"]}],
        "backends": [{"name": "b", "addresses": [
            {"address": "x", "state": "up", "sessions": sessions}, {"address": "y", "state": "up", "sessions": 0},
        ]}],
        **more,
    })  # fmt: skip


def test_the_status_of_two_processes_is_one() -> None:
    down = [{"name": "b", "addresses": [{"address": "x", "state": "down", "sessions": 1}]}]
    answer = merged(
        Request("status"),
        [part(1, 2), part(2, 5, backends=down), part(3, 1)],
    )
    assert answer.good
    assert answer.result == {
        "gateway": {"version": "1"}, "processes": [{"pid": 1}, {"pid": 2}, {"pid": 3}], "sessions": 8, "limit": 100,
        "services": [{"name": "imap", "sessions": 8, "listeners": ["a"]}],
        "backends": [{"name": "b", "addresses": [
            {"address": "x", "state": "down", "sessions": 4}, {"address": "y", "state": "up", "sessions": 0},
        ]}],
    }  # fmt: skip


def test_an_answer_of_one_process_is_the_answer() -> None:
    assert merged(Request("status"), [part(1, 2)]) == part(1, 2)


def test_sessions_of_all_are_listed_the_oldest_first() -> None:
    answers = [Answer({"sessions": [{"age": 1.0}, {"age": 3.0}]}), Answer({"sessions": [{"age": 2.0}]})]
    assert merged(Request("who"), answers).result == {"sessions": [{"age": 3.0}, {"age": 2.0}, {"age": 1.0}]}


def test_what_one_process_has_drained_adds_up() -> None:
    answers = [Answer({"what": "service", "sessions": number}) for number in (2, 3)]
    for command in ("drain", "undrain"):
        assert merged(Request(command, "imap"), answers) == Answer({"what": "service", "sessions": 5})


def test_a_session_need_be_in_one_process_only() -> None:
    answers = [Answer({"sessions": number}) for number in (0, 1)]
    assert merged(Request("kick", "3f2a"), answers) == Answer({"sessions": 1})
    nobody = merged(Request("kick", "3f2a"), answers[:1])
    assert nobody.problems == ("there is no session 3f2a, and none of a client or a user 3f2a",)


def test_a_problem_of_all_is_told_once() -> None:
    same = Answer({}, ("there is no service pop",))
    assert merged(Request("kick", "x"), [same, same]) == same
    assert merged(Request("drain", "x"), [same, Answer({"sessions": 1})]) == Answer({"sessions": 1}, same.problems)


def test_captured_lines_of_all_are_in_their_order() -> None:
    one = Answer({"lines": [[1.0, "a", "imap", "C", "x"], [3.0, "a", "imap", "S", "y"]], "lost": 1})
    other = Answer({"lines": [[2.0, "b", "imap", "C", "z"]], "lost": 2})
    found = merged(Request("capture", "192.0.2.1"), [one, other])
    assert ([row[0] for row in found.result["lines"]], found.result["lost"]) == ([1.0, 2.0, 3.0], 3)


def test_programs_before_this_one_answer_for_their_sessions() -> None:
    request = Request("kick", "192.0.2.1")
    nobody = merged(request, [Answer({"sessions": 0})])
    assert not nobody.good
    assert joined(request, nobody, [Answer({"sessions": 2}), nobody]) == Answer({"sessions": 2})
    assert joined(request, nobody, [nobody]) == nobody
    silent = Answer({}, ("it does not answer",))
    assert joined(request, Answer({"sessions": 1}), [silent]) == Answer({"sessions": 1}, silent.problems)
