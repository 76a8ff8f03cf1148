"""Nothing that a stranger can send takes time that grows with the square of its octets.

One read is worked on before anybody else is served.  A field of HTTP with 16,000 blanks once took 5 seconds.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import pytest

from gateway.dialects import DIALECTS
from gateway.dialects.base import Policy
from gateway.protocol.vocabulary import Side
from tests.pure.contract.party import Anyone, Caller, Party, everyone
from tests.pure.playbook import Playbook
from tests.pure.test_architecture import PURE, TREES, modules

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND
BOUND = 0.08
"""Seconds of CPU.  A pattern reads 16,000 octets in less than 0.001; their square takes 0.1 at least."""


def slow(prepared: Callable[[], Callable[[], object]]) -> bool:
    """Whether the work that this prepares takes too long, three times in a row."""
    for _ in range(3):
        work = prepared()
        before = time.process_time()
        work()
        if time.process_time() - before < BOUND:
            return False
    return True


# --- patterns ----------------------------------------------------------------------------------------

LENGTHS = (24, 1000, 16_000)
"""Some patterns double their time with each octet: they are found at the first of these."""
OCTETS = " \t\"',;:<([{=\\*0aA-.\0"
ENDS = ("", "\0", "\n", "!", "x x")
SEARCHING = frozenset({"search", "sub", "subn", "split", "findall", "finditer"})
_PARSER: Any = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")
_COMPILER: Any = importlib.import_module("re._compiler" if sys.version_info >= (3, 11) else "sre_compile")
_ONE = {"LITERAL", "NOT_LITERAL", "ANY", "IN"}


def written(nodes: Iterable[Any], state: Any) -> Iterator[tuple[str, Any, Any]]:
    """Each part of a pattern: its kind, its arguments, and the part as a pattern of its own."""
    for node in nodes:
        yield str(node[0]), node[1], _PARSER.SubPattern(state, [node])


def letters(part: Any, liked: str) -> str:
    """What of these matches a part."""
    alone = _COMPILER.compile(part)
    binary = isinstance(part.state.str, bytes)
    return "".join(each for each in liked if alone.fullmatch(each.encode("latin-1") if binary else each))


def example(nodes: Any, liked: str) -> str:
    """Something short that matches, as far as that is simple."""
    text = ""
    for kind, argument, part in written(nodes, nodes.state):
        if kind in _ONE:
            text += chr(argument) if kind == "LITERAL" else letters(part, liked)[:1]
        elif kind == "BRANCH":
            text += example(argument[1][0], liked)
        elif kind == "SUBPATTERN":
            text += example(argument[3], liked)
        elif kind.endswith("_REPEAT"):
            text += example(argument[2], liked) * argument[0]
    return text


def pumped(nodes: Any, liked: str, before: str = "") -> Iterator[tuple[str, str]]:
    """For each repeated part: what comes before it, and what can be repeated."""
    for kind, argument, part in written(nodes, nodes.state):
        if kind == "BRANCH":
            for branch in argument[1]:
                yield from pumped(branch, liked, before)
        elif kind in ("SUBPATTERN", "ATOMIC_GROUP"):
            yield from pumped(argument[3] if kind == "SUBPATTERN" else argument, liked, before)
        elif kind.endswith("_REPEAT") and argument[1] > 1000:
            yield from pumped(argument[2], liked, before)
            alone = letters(argument[2], liked)
            yield from ((before, each) for each in alone[:6] or [example(argument[2], liked)])
        before += example(_PARSER.SubPattern(nodes.state, part.data), liked)


def attacks(pattern: re.Pattern[Any]) -> Iterator[Callable[[int], Any]]:
    """Texts of a length, made to match almost."""
    tree = _PARSER.parse(pattern.pattern, pattern.flags)
    binary = isinstance(pattern.pattern, bytes)
    own = pattern.pattern.decode("latin-1") if binary else pattern.pattern
    liked = "".join(dict.fromkeys(OCTETS + own))

    def text(before: str, each: str, end: str, length: int) -> Any:
        whole = before + each * (length // len(each)) + end
        return whole.encode("latin-1", "replace") if binary else whole

    for before, each in set(pumped(tree, liked)):
        for end in ENDS if each else ():
            yield partial(text, before, each, end)


def uses() -> dict[str, set[str]]:
    """Name of a pattern -> the methods that are called."""
    found = defaultdict(set)
    for tree in TREES.values():
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(value=ast.Name(id=name) | ast.Attribute(attr=name), attr=method):
                    found[name].add(method)
    return found


USES = uses()


def compiled() -> dict[re.Pattern[Any], set[str]]:
    """Every pattern of the pure half, and how it is used.  One that a function makes stands in a dialect."""
    found: dict[re.Pattern[Any], set[str]] = defaultdict(set)
    for dialect in DIALECTS.values():
        found[dialect.foreign.pattern if dialect.foreign else re.compile("")].add("match")
    for module in modules(*PURE):
        names = vars(importlib.import_module(module))
        for node in ast.walk(TREES[module]):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="re"), attr=method), args=[first, *others]):
                    flags = [each.value for each in node.keywords if each.arg == "flags"]
                    told = ast.Tuple([first, *(others[:1] if method == "compile" else flags)], ast.Load())
                    try:
                        expression = ast.fix_missing_locations(ast.Expression(told))
                        parts = eval(compile(expression, f"<{module}>", "eval"), names)
                    except NameError:
                        assert method == "compile" or method == "escape", f"{module}, line {node.lineno}"
                        continue
                    if method != "escape":
                        found[re.compile(*parts)].add(method)
        for name, value in names.items():
            if isinstance(value, re.Pattern):
                found[value] |= USES[name]
    return found


COMPILED = compiled()


def test_the_patterns_are_found() -> None:
    from gateway.dialects.directory import ldap
    from gateway.dialects.web.http import head

    assert {head._FIELD, ldap.FOREIGN.pattern} <= set(COMPILED)
    assert "fullmatch" in COMPILED[head._FIELD]
    assert len(COMPILED) > 130


@pytest.mark.parametrize("pattern", COMPILED, ids=lambda pattern: ascii(pattern.pattern)[:60])
def test_a_pattern_takes_time_in_proportion(pattern: re.Pattern[Any]) -> None:
    ways = [pattern.match, pattern.fullmatch, *([pattern.search] * bool(COMPILED[pattern] & SEARCHING))]
    for attack in attacks(pattern):
        for length in LENGTHS:
            text = attack(length)
            for way in ways:
                assert not slow(lambda: partial(way, text)), (way.__name__, text[:60], text[-3:], length)  # noqa: B023


@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("pattern", "length"),
    [
        (rb"X:[ \t]*((?:[^\x00-\x1f\x7f]|\t)*)", 4000),  # HTTP's old field
        (rb"CAP +[^ ]+ +LS +(?:\* +)?(?::.*|[^ :][^ ]*)? *", 16_000),  # IRC's old listing
        (rb"\A *(?:a|b)* *\Z| +x", 16_000),
        (rb"(?:a+)+b", 24),
        (r"(\w+\s?)*:", 20),
    ],
)
def test_one_that_does_not_is_found(pattern: Any, length: int) -> None:
    compiled = re.compile(pattern)
    texts = [attack(length) for attack in attacks(compiled)]
    ways = (compiled.fullmatch, compiled.search)
    assert any(slow(lambda: partial(way, text)) for text in texts for way in ways)  # noqa: B023


# --- sessions ----------------------------------------------------------------------------------------

SIZES = (7_900, 12_000, 60_000)
"""Octets that are repeated: as many as a line, a head or a unit may have."""
REPEATED = (b" ", b"\t", b'"', b",", b"\0", b"<", b"(", b"{1}", b"0", b"a ")


def swollen(unit: bytes) -> Iterator[bytes]:
    """A unit with something repeated at one of its joints, and an octet behind it that belongs nowhere."""
    joints = [0, *(each.end() for each in islice(re.finditer(rb"[^A-Za-z0-9]+", unit), 7))]
    for at in joints:
        for each in REPEATED:
            for size in SIZES:
                yield unit[:at] + each * (size // len(each)) + b"\x01" + unit[at:]


def scenes(party: Anyone) -> Iterator[tuple[Playbook, Side, list[bytes]]]:
    """Where a session can be, who speaks there, and what it would say."""
    answers = party.answers
    said, told = [answers.login, answers.starttls.said], [answers.accepted, answers.rejected]
    if isinstance(party, Party):
        said.append(party.answers.listing.said)
        told.append(party.answers.listing.answered)
    if isinstance(party, Caller):
        said.append(party.answers.credentials)
    yield party.opened(policy=Policy.OPTIONAL if Policy.OPTIONAL in answers.offers else Policy.REQUIRED), CLIENT, said
    yield party.inside(), CLIENT, said
    yield party.dialled(), BACKEND, [answers.greeting, answers.refusal]
    if not isinstance(party, Caller) or party.answers.judges:
        yield party.may_log_in(), CLIENT, said
        yield party.logs_in(party.ready()), BACKEND, told


@pytest.mark.no_cover
@everyone
def test_whatever_is_said_takes_time_in_proportion(party: Anyone) -> None:
    for play, side, units in scenes(party):
        for octets in (each for unit in units for each in swollen(unit)):
            assert not slow(lambda: partial(play.stage().receive, side, octets)), octets[:60]  # noqa: B023
