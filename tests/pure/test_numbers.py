"""docs/conformance.md tells the truth about the tests."""

from __future__ import annotations

from tests import numbers


def test_every_row_has_a_test_and_every_number_a_row() -> None:
    assert list(numbers.mistakes(numbers.DOCUMENT.read_text())) == []


def test_the_last_column_is_written_by_a_program() -> None:
    document = numbers.DOCUMENT.read_text()
    assert list(numbers.mistakes(numbers.filled(document))) == []


def test_mistakes_are_found() -> None:
    document = f"| G01 | do | expect | |\n| G02 | a | b | `pure/test_numbers.py` |\n{numbers.ATTACKS}\n"
    found = list(numbers.mistakes(document))
    assert "G01 is held by no test" in found
    assert "G02: pure/test_numbers.py has no such test" in found
    assert any(line.startswith("G03 (") for line in found)
