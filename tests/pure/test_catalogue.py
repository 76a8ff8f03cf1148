"""The table of events: everything that `gateway/` tells stands in it, and nothing else; docs/events.md holds it."""

from __future__ import annotations

import ast
import importlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.dialects import DIALECTS
from gateway.telemetry.catalogue import EVENTS, UNKNOWN, event
from gateway.telemetry.entries import COMMON
from gateway.telemetry.kinds import Outcome, Scope, Severity, Type
from tests import events as document
from tests.pure.test_architecture import TREES, within

SIDES = ("client", "backend")
BORNE = "(a name that some other place gives)"
"""Stands for the key of a trouble or a note that was made elsewhere."""

# fmt: off
GIVEN: dict[tuple[str, str], set[str]] = {
    ("gateway.dialects.conversation", "self._reason"): {"open-relay", "relay-unknown", "drained"},
    ("gateway.protocol.driver", "self._foreign.event(octets, self._secured[CLIENT] is not None)"): {
        event for dialect in DIALECTS.values() if dialect.foreign for event in dialect.foreign.events.values()
    },
    ("gateway.dialects.access", "event"): {"backend-refuses-plaintext-auth", "backend-requires-tls"},
    ("gateway.sessions.errand", "reason"): {BORNE},
    ("gateway.wire.tls.renewal", "event"): {BORNE},
    ("gateway.sessions.pair", "next(iter(self._ends)).value"): set(SIDES),
    ("gateway.sessions.channels", "event"): {
        "data-connect-failed", "data-tls-failed", "backend-data-tls-failed", "data-session-not-resumed", "data-timeout",
    },
    ("gateway.sessions.session", "event"): {BORNE},
    # No client greets.
    ("gateway.protocol.vocabulary", "f'{side.value}{greeting}-timeout'"): {
        "client-timeout", "backend-timeout", "backend-greeting-timeout",
    },
}
# fmt: on
"""What the source does not show at the place where it is used, by module and expression."""


@dataclass
class Told:
    """One place in the source that tells an event, ends a session, or does so by what it raises."""

    module: str
    how: str
    names: set[str]
    fields: set[str] = field(default_factory=set)

    @property
    def place(self) -> str:
        return f"{self.module}: {self.how}({sorted(self.names)})"


class Reader:
    """The strings that an expression can stand for."""

    def __init__(self, module: str, function: ast.AST) -> None:
        self._module = module
        self._function = function
        self._globals = vars(importlib.import_module(module))

    def strings(self, node: ast.expr) -> set[str]:
        given = GIVEN.get((self._module, ast.unparse(node)))
        if given is not None:
            return given
        match node:
            case ast.Constant(value=str(text)):
                return {text}
            case ast.IfExp(body=one, orelse=other):
                return self.strings(one) | self.strings(other)
            case ast.JoinedStr(values=parts):
                texts = [self.strings(part) for part in parts]
                return {"".join(combined) for combined in itertools.product(*texts)}
            case ast.FormattedValue(value=value):
                return self.strings(value)
            case ast.Attribute(attr="value", value=ast.Name(id="side") | ast.Attribute(attr="side")):
                return set(SIDES)
            case ast.Attribute(attr="key" | "event"):
                return {BORNE}
            case ast.Subscript(value=ast.Name(id=name)) if isinstance(self._globals.get(name), dict):
                return set(self._globals[name].values())
            case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=name)):
                return self._returned(name)
            case ast.Name(id=name):
                return self._named(name)
        raise AssertionError(f"{self._module}: cannot tell what {ast.unparse(node)} is; add it to GIVEN")

    def _named(self, name: str) -> set[str]:
        assigned = [
            node.value
            for node in ast.walk(self._function)
            if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets)
        ]
        if assigned:
            return set().union(*map(self.strings, assigned))
        found = self._globals.get(name)
        assert isinstance(found, str), f"{self._module}: cannot tell what {name} is; add it to GIVEN"
        return {found}

    def _returned(self, name: str) -> set[str]:
        """What a method of the same module returns."""
        for function in functions(TREES[self._module]):
            if getattr(function, "name", "") == name:
                reader = Reader(self._module, function)
                returns = [node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value]
                return set().union(*(reader.strings(one) for one in returns if not is_none(one)))
        raise AssertionError(f"{self._module} has no {name}")


def is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def functions(tree: ast.AST) -> Iterator[ast.AST]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


TROUBLES = {"Trouble": 0, "Unavailable": 0, "Violation": 1}
"""Where each has its key."""


def tellings(module: str) -> Iterator[Told]:
    inside: set[int] = set()
    for function in [*functions(TREES[module]), TREES[module]]:
        reader = Reader(module, function)
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and id(node) not in inside:
                inside.add(id(node))
                yield from telling(module, reader, node)


def telling(module: str, reader: Reader, call: ast.Call) -> Iterator[Told]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    keywords = {str(one.arg) for one in call.keywords}
    match name, call.args:
        case "emit" | "_emit" | "complain", [first, *_] if module not in EMITTERS:
            yield Told(module, name, reader.strings(first), keywords - {"None"})
        case "Note", [first, *rest]:
            yield Told(module, name, reader.strings(first), noted(rest))
        case "Close", [first, *_]:
            yield Told(module, name, reader.strings(first) - {"", BORNE})
        case (("Trouble" | "Unavailable" | "Violation"), arguments) if len(arguments) > TROUBLES[name]:
            names = reader.strings(arguments[TROUBLES[name]]) - {"", BORNE}
            yield Told(module, name, names, {"limit"} if names == {"refused"} else {"detail"})
        case "__init__", [first, *_] if module == "gateway.protocol.vocabulary" and not isinstance(first, ast.Name):
            yield Told(module, name, reader.strings(first), {"detail"})
        case "_finish", [first, *_] if within(
            module, "gateway.sessions.session", "gateway.sessions.splicing", "gateway.sessions.pair"
        ) and not isinstance(first, ast.Name):
            yield Told(module, name, reader.strings(first))
        case "abort", [first, *_]:
            yield Told(module, name, reader.strings(first))


EMITTERS = (
    "gateway.app.workers.forwarding",
    "gateway.sessions.recording",
    "gateway.telemetry.summary",
    "gateway.dialects.mail.message",
)
"""Modules whose `emit` hands on what others told, or is something else; their own events are listed in OWN."""
OWN = {"gateway.telemetry.summary": {"suppressed"}}


def noted(arguments: list[ast.expr]) -> set[str]:
    match arguments:
        case [ast.Tuple(elts=pairs)]:
            return {str(ast.literal_eval(pair.elts[0])) for pair in pairs if isinstance(pair, ast.Tuple)}
    return set()


MODULES = [module for module in TREES if not within(module, "gateway.demo")]
TOLD = [told for module in MODULES for told in tellings(module)]
# The reasons that a session has where nobody closed it with one.
ELSEWHERE = {"shutdown", "idle", "aborted", "suppressed", "session"}


def allowed(name: str) -> set[str]:
    found = EVENTS[name]
    return {one.name for one in found.fields} | set(found.scope.fields) | {"service", "client"}


def test_the_source_is_read() -> None:
    ways = {told.how for told in TOLD}
    assert {"emit", "_emit", "Note", "Close", "Violation", "Unavailable", "Trouble", "__init__", "_finish"} <= ways
    assert len(TOLD) > 60


@pytest.mark.parametrize("told", TOLD, ids=lambda told: told.place)
def test_every_event_that_is_told_is_in_the_table_with_its_fields(told: Told) -> None:
    for name in told.names - {BORNE}:
        assert name in EVENTS, told.place
        # A note that has its name from elsewhere has fields for several.
        assert told.fields <= allowed(name) or BORNE in told.names or not EVENTS[name].told, told.place


def test_every_event_of_the_table_is_told() -> None:
    told = set().union(*(one.names for one in TOLD), *OWN.values(), ELSEWHERE)
    assert set(EVENTS) <= told, sorted(set(EVENTS) - told)


def test_what_a_note_or_a_call_tells_has_a_line() -> None:
    for one in TOLD:
        if one.how in ("emit", "_emit", "Note") and BORNE not in one.names:
            assert all(EVENTS[name].told for name in one.names), one.place


def test_what_is_said_to_be_given_is_used() -> None:
    for module, text in GIVEN:
        assert text in {ast.unparse(node) for node in ast.walk(TREES[module]) if isinstance(node, ast.expr)}


def test_a_session_ends_with_what_the_table_says_can_end_it() -> None:
    for one in TOLD:
        if one.how in ("Close", "Violation", "_finish", "abort"):
            assert all(EVENTS[name].ends for name in one.names - {BORNE}), one.place


@pytest.mark.parametrize("name", EVENTS)
def test_a_row_is_complete(name: str) -> None:
    row = EVENTS[name]
    assert row.name == name
    assert row.meaning
    assert len({one.name for one in row.fields}) == len(row.fields)
    assert all(one.meaning and isinstance(one.type, Type) for one in row.fields)
    assert not set(row.scope.fields) - {one.name for one in COMMON}
    assert row.told or (row.ends and not row.fields and not row.cure)
    if any(one.name == "cure" for one in row.fields) and row.severity is not Severity.INFO:
        assert row.cure or name.startswith("relay-")
    # Whatever a client can cause has a budget.
    if row.told and row.scope in (Scope.SESSION, Scope.BACKEND):
        assert row.budget is not None or name == "internal-error"


def test_an_event_of_a_mistaken_name_costs_no_session_and_has_a_budget() -> None:
    assert event("client-no-such-thing") is UNKNOWN
    assert event("client-no-such-thing").allows({}) is UNKNOWN.budget is not None


def test_attacks_are_told_apart() -> None:
    assert {row.name for row in EVENTS.values() if row.attack} == {
        "starttls-injection", "backend-starttls-injection", "http-client", "unexpected-proxy-header",
        "client-bare-newline",
    }  # fmt: skip
    assert EVENTS["quit"].ends is Outcome.DONE


def test_the_document_has_the_table() -> None:
    text = document.DOCUMENT.read_text()
    assert document.filled(text) == text, "python -m tests.events --write"


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"event": "quit"}, "quit has no line of its own"),
        ({"event": "plaintext"}, "plaintext is not in the table"),
        ({"event": "auth", "name": "joe"}, "auth has no field name"),
        ({"event": "auth", "result": 1}, "auth: result is 1"),
        ({"event": "refused", "limit": "sessions", "client": "192.0.2.1", "time": "now"}, ""),
        ({"event": "session", "seconds": 0.5, "received": 1, "proven": True, "sni": b"x"}, ""),
    ],
)
def test_a_line_is_held_against_the_table(told: dict[str, Any], problem: str) -> None:
    assert document.wrong(told) == problem
