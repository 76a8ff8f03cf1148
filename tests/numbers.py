"""Which tests hold which numbered row of docs/conformance.md.

    python -m tests.numbers         # says what is wrong with the document
    python -m tests.numbers --write # fills in its last column

The numbers stand at the beginning of a test's name: `test_G05_G06_whatever_comes_behind_...`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

TESTS = Path(__file__).parent
DOCUMENT = TESTS.parent / "docs" / "conformance.md"

NUMBER = re.compile(r"[A-Za-z][0-9]{1,2}\Z")
ROW = re.compile(r"^(\| *)([A-Z][0-9]{1,2})( *\|[^|]*\|[^|]*\|)([^|]*)\|$", re.MULTILINE)
ATTACKS = "# Attacks"
"""The heading in the document behind which numbers are those of attacks."""
LATER = "not built"
"""In place of tests: the row is about something that the gateway does not have yet."""

ALSO: Mapping[str, tuple[str, ...]] = {
    "I12": ("process/test_reading_mail.py::test_imaplib_appends_what_looks_like_commands_and_reads_it_back",),
    "P09": ("process/test_failures.py::test_G18_deletions_are_not_committed_for_a_client_that_did_not_say_so",),
    "A12": ("memory/test_renewal.py::test_a_broken_renewal_keeps_the_old_one_and_is_told_once",),
    "C1": ("memory/test_tls_server.py::test_the_protocol_is_agreed_on",),
    "C5": ("memory/test_tls_server.py::test_a_hundred_thousand_names_leave_nothing_behind",),
    "C6": ("memory/test_tls_server.py::test_a_session_is_resumed_at_its_own_service_and_at_no_other",),
    "E12": ("pure/test_limits.py::test_a_client_fails_so_often_in_a_minute_over_all_its_sessions",),
    "K2": ("pure/test_limits.py::test_limits_hold_and_nobody_is_refused_without_a_reason",),
    "K4": ("process/test_memory.py::test_a_client_that_never_reads_stops_its_backend",),
    "K5": ("process/test_memory.py::test_a_backend_that_never_reads_stops_its_client",),
    "K6": ("pure/test_inbox.py::test_an_overlong_line_is_dropped_while_it_comes",),
    "K7": ("pure/test_inbox.py::test_single_octets_are_looked_at_once",),
    "K8": ("process/test_stopping.py::test_without_descriptors_clients_are_turned_away_and_later_ones_served",),
    "K9": ("memory/test_listener.py::test_need_does_not_make_the_reactor_run_hot",),
    "K11": ("memory/test_leg.py::test_one_turn_reads_no_more_than_read_size",),
    "K12": ("memory/test_leg.py::test_whatever_call_goes_wrong_the_leg_ends_and_nobody_else",),
    "K14": ("memory/test_session.py::test_a_splice_in_which_nothing_moves_is_over",),
    "K15": (
        "process/test_stopping.py::test_a_message_under_way_is_taken_before_the_goodbye",
        "process/test_stopping.py::test_T20_a_session_in_the_splice_goes_on_until_the_drain_time_is_over",
    ),
    "M7": (
        "process/test_backend_failover.py::test_a_first_backend_that_hangs_costs_its_greeting_time_once_and_then_nothing",
    ),
    "M9": ("memory/test_tls_server.py::test_a_handshake_that_is_half_done_survives_a_swap",),
    "L1": ("process/test_injection.py::test_G11_G29_a_password_in_the_clear_reaches_neither_backend_nor_log",),
    "L2": (
        "pure/test_events.py::test_logfmt_is_one_printable_line_and_reads_back",
        "pure/test_events.py::test_json_is_one_printable_line_and_reads_back",
    ),
    "L4": ("pure/test_summary.py::test_a_flood_of_many_kinds_stays_below_a_hundred_lines_a_minute",),
}
"""Row -> tests that hold it without having its number in their names."""


def is_attack(number: str, path: Path) -> bool:
    """G10 is a row of the conformance list but for tests of attacks, for which it is one on POP3."""
    return "attacks" in path.parts or number[0] not in "GSIPT"


@lru_cache(maxsize=1)
def held() -> Mapping[tuple[bool, str], frozenset[str]]:
    """(is an attack, number) -> the modules that have tests of it, relative to tests/."""
    found: dict[tuple[bool, str], set[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        module = path.relative_to(TESTS)
        for name in names(path):
            for number in numbers(name):
                found.setdefault((is_attack(number, module), number), set()).add(str(module))
    return {key: frozenset(modules) for key, modules in found.items()}


def names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.name


def numbers(name: str) -> Iterator[str]:
    for word in name.split("_")[1:]:
        if not NUMBER.match(word):
            return
        yield word.upper()


def rows(document: str) -> Iterator[tuple[bool, str, str]]:
    """Is it an attack, number, what the last column says."""
    start = document.index(ATTACKS)
    for match in ROW.finditer(document):
        yield match.start() > start, match[2], match[4].strip()


def column(attack: bool, number: str) -> str:
    return ", ".join(f"`{test}`" for test in [*sorted(held().get((attack, number), ())), *ALSO.get(number, ())])


def filled(document: str) -> str:
    """The document with its last column as it should be."""
    start = document.index(ATTACKS)

    def fill(match: re.Match[str]) -> str:
        tests = column(match.start() > start, match[2])
        return f"{match[1]}{match[2]}{match[3]} {tests} |" if tests else match[0]

    return ROW.sub(fill, document)


def mistakes(document: str) -> Iterator[str]:
    """What is not true in it.  A row may name fewer modules than there are: a new test needs no new document."""
    seen = set()
    for attack, number, tests in rows(document):
        if (attack, number) in seen:
            yield f"{number} stands there twice"
        seen.add((attack, number))
        named = re.findall(r"`([^`]+)`", tests)
        if not named and not tests.startswith((LATER, "see ")):
            yield f"{number} is held by no test"
        for test in named:
            module, _, name = test.partition("::")
            if name and name not in names(TESTS / module):
                yield f"{number}: there is no {test}"
            if not name and module not in held().get((attack, number), ()):
                yield f"{number}: {module} has no such test"
    for attack, number in sorted(held().keys() - seen):
        yield f"{number} ({', '.join(sorted(held()[attack, number]))}) is not explained"


def main() -> None:
    if "--write" in sys.argv[1:]:
        DOCUMENT.write_text(filled(DOCUMENT.read_text()))
    sys.exit("\n".join(mistakes(DOCUMENT.read_text())) or 0)


if __name__ == "__main__":
    main()
