"""What the count makes of callgrind's files, and when it says that something has grown."""

from __future__ import annotations

from benchmarks import count, files

FILE = """version: 1
events: Ir

ob=(1) /usr/bin/python3.11
fl=(1) ???
fn=(1) _PyEval_EvalFrameDefault
0 4000
cob=(2) /venv/cryptography/hazmat/bindings/_rust.abi3.so
cfn=(2) SSL_read
calls=3 0
0 900000
+3 6000

ob=(2)
fn=(2)
0 8000
cob=(3) /usr/lib/x86_64-linux-gnu/libc.so.6
cfn=(3) memcpy
calls=1 0
* 2000

ob=(3)
fn=(3)
* 2000
"""
RECORDED = {"session": {"python": 600.0, "openssl": 400.0}}


def test_each_library_has_its_own_instructions_and_not_those_of_what_it_calls() -> None:
    assert count.parsed(FILE, units=2) == {"python": 5.0, "openssl": 4.0, "cffi": 0.0, "libc": 1.0, "other": 0.0}


def test_object_files_are_known_by_their_names() -> None:
    libraries = {
        "/usr/bin/python3.11": "python",
        "/usr/lib/libpython3.11.so.1.0": "python",
        "/usr/lib/python3.11/lib-dynload/_json.cpython-311-x86_64-linux-gnu.so": "python",
        "/usr/lib/python3/dist-packages/_cffi_backend.cpython-311-x86_64-linux-gnu.so": "cffi",
        "/usr/lib/x86_64-linux-gnu/libc.so.6": "libc",
        "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2": "libc",
        "/usr/lib/x86_64-linux-gnu/libz.so.1": "other",
    }
    assert {path: count.library(path) for path in libraries} == libraries


def test_five_percent_more_are_allowed() -> None:
    assert count.grown({"session": {"python": 650.0, "openssl": 400.0}}, RECORDED) == []


def test_more_than_that_is_told() -> None:
    counted = {"session": {"python": 651.0, "openssl": 400.0}}
    assert count.grown(counted, RECORDED) == ["session: 1,051 thousand instructions instead of 1,000"]


def test_the_repository_has_a_figure_for_each_unit_and_library() -> None:
    recorded = count.recorded().units
    assert set(recorded) == {unit.name for unit in (*count.UNITS, *files.UNITS)}
    assert all(set(counts) == set(count.LIBRARIES) for counts in recorded.values())
