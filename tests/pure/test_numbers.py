"""docs/conformance.md tells the truth about the tests."""

from __future__ import annotations

import re

from tests import numbers

SECURITY = numbers.DOCUMENT.with_name("security.md")


def test_every_row_has_a_test_and_every_number_a_row() -> None:
    assert list(numbers.mistakes(numbers.DOCUMENT.read_text())) == []


def test_the_last_column_is_written_by_a_program() -> None:
    document = numbers.DOCUMENT.read_text()
    assert list(numbers.mistakes(numbers.filled(document))) == []


def test_names_of_tests_have_at_most_80_characters() -> None:
    long = {name for path in numbers.TESTS.rglob("*.py") for name in numbers.names(path) if len(name) > 80}
    assert not long


def test_mistakes_are_found() -> None:
    document = f"| G01 | do | expect | |\n| G02 | a | b | `pure/test_numbers.py` |\n{numbers.ATTACKS}\n"
    found = list(numbers.mistakes(document))
    assert "G01 is held by no test" in found
    assert "G02: pure/test_numbers.py has no such test" in found
    assert any(line.startswith("G03 (") for line in found)


def test_the_tests_that_prove_a_promise_exist() -> None:
    named = re.findall(r"`((?:pure|memory|process)/[^`]+\.py)(?:::(\w+))?`", SECURITY.read_text())
    assert len(named) > 20
    for module, name in named:
        path = numbers.TESTS / module
        assert path.exists(), module
        assert not name or name in numbers.names(path), name
