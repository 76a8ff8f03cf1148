"""The architecture as tests: what may import what, and that the half that decides is pure."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from gateway.dialects import DIALECTS

ROOT = Path(__file__).parents[2]
GENERATED = ("__pycache__", "_version.py", "py.typed")
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "gateway").rglob("*.py"))
    if path.name not in GENERATED
}
TREES = {module: ast.parse(path.read_bytes(), str(path)) for module, path in SOURCES.items()}

PURE = (
    "gateway.records",
    "gateway.protocol",
    "gateway.dialects",
    "gateway.config",
    "gateway.wire.health",
    "gateway.guard.bans",
    "gateway.guard.captures",
    "gateway.guard.limits",
    "gateway.guard.shared",
    "gateway.telemetry.catalogue",
    "gateway.telemetry.data",
    "gateway.telemetry.entries",
    "gateway.telemetry.kinds",
    "gateway.telemetry.operation",
    "gateway.telemetry.explaining",
    "gateway.telemetry.failures",
    "gateway.telemetry.meter",
    "gateway.telemetry.metrics",
    "gateway.telemetry.report",
    "gateway.telemetry.observation",
    "gateway.telemetry.history",
    "gateway.telemetry.summary",
    "gateway.telemetry.words",
    "gateway.telemetry.admin.guard",
    "gateway.telemetry.admin.acting",
    "gateway.telemetry.admin.page",
    "gateway.telemetry.admin.parts",
    "gateway.telemetry.admin.reportpage",
    "gateway.sessions.agreed",
    "gateway.app.plan",
    "gateway.app.control.messages",
    "gateway.app.control.answers",
    "gateway.cli.steer.nagios",
    "gateway.cli.steer.words",
)
"""What knows no reactor, no TLS and no socket of ours."""


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


@cache
def imports(module: str) -> tuple[str, ...]:
    """Every module that this one imports, wherever in its text; relative ones resolved."""
    return tuple(_imports(module))


def _imports(module: str) -> Iterator[str]:
    package = module if SOURCES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(TREES[module]):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=target, names=names, level=level):
                parts = package.split(".")
                base = ".".join(parts[: len(parts) - level + 1]) if level else ""
                source = ".".join(filter(None, [base, target]))
                inner = [f"{source}.{name.name}" for name in names]
                yield from (name if name in SOURCES else source for name in inner)


def ours(module: str) -> set[str]:
    return {name for name in imports(module) if within(name, "gateway")}


def modules(*packages: str) -> list[str]:
    return [module for module in SOURCES if within(module, *packages)]


def test_relative_imports_are_resolved() -> None:
    assert "gateway.protocol.vocabulary" in ours("gateway.protocol.driver")
    assert {"gateway.dialects.mail.ehlo", "gateway.dialects.sasl"} <= ours("gateway.dialects.mail.smtp.commands")
    assert "gateway.dialects.mail.smtp.commands" in ours("gateway.dialects.mail.smtp")
    assert "twisted.logger" in imports("gateway.wire.leg.descriptor")


_IMPORTING = """
import importlib, json, sys
loaded = {}
for module in sys.argv[1:]:
    before = set(sys.modules)
    importlib.import_module(module)
    loaded[module] = sorted(set(sys.modules) - before)
print(json.dumps(loaded))
"""


def test_the_half_that_decides_loads_no_twisted_no_openssl_and_no_socket_of_ours() -> None:
    command = [sys.executable, "-c", _IMPORTING, *modules(*PURE)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    foreign = ("twisted", "zope", "OpenSSL", "cryptography", "ssl", "asyncio")
    for module, loaded in json.loads(told).items():
        assert not [name for name in loaded if within(name, *foreign)], module
        around = {name for name in loaded if any(within(pure, name) for pure in PURE)}
        strangers = {name for name in loaded if within(name, "gateway") and not within(name, *PURE)}
        assert strangers - around <= {"gateway._version"}, module


EVENTS = ("telemetry.catalogue", "telemetry.entries", "telemetry.kinds")
"""The table of events: it imports nothing of the gateway."""

ROOMS = {
    "protocol": (),
    "dialects": ("protocol", *EVENTS),
    "config": (),
    "wire": ("protocol", "config", "guard.limits", *EVENTS),
    "sessions": ("protocol", "dialects", "config", "wire", "guard.limits", "telemetry"),
    "guard": ("protocol", "dialects", "config", "wire", "sessions", "telemetry"),
    "telemetry": ("guard.limits",),
    "app": ("protocol", "dialects", "config", "wire", "sessions", "guard", "telemetry", "demo"),
    "demo": ("dialects", "config", "telemetry", "app", "wire.tls"),
    "cli": ("protocol", "dialects", "config", "wire", "sessions", "guard", "telemetry", "app"),
}
"""Each room of the house, and what its modules may import of the others."""


def test_the_house_has_these_rooms() -> None:
    entries = [path for path in (ROOT / "gateway").iterdir() if path.name not in GENERATED]
    assert {path.stem for path in entries} == {"__init__", "records", *ROOMS}


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room: str) -> None:
    allowed = ("gateway", *(f"gateway.{name}" for name in ("records", room, *ROOMS[room])))
    for module in modules(f"gateway.{room}"):
        strangers = {name for name in ours(module) if name != "gateway" and not within(name, *allowed[1:])}
        assert not strangers, module


def test_limits_and_tls_know_no_connection() -> None:
    below = ("gateway.protocol", "gateway.records", "gateway.config")
    assert all(within(name, *below) for name in ours("gateway.guard.limits"))
    for module in modules("gateway.wire.tls"):
        assert all(within(name, "gateway.wire.tls", *below) for name in ours(module))


def test_each_dataclass_is_a_cheap_one() -> None:
    """See gateway.records."""
    for module in modules("gateway"):
        names = {
            name.name
            for node in ast.walk(TREES[module])
            if isinstance(node, ast.ImportFrom) and node.module == "dataclasses"
            for name in node.names
        }
        assert "dataclass" not in names or module == "gateway.records", module


def test_nothing_but_the_entrances_knows_the_service() -> None:
    knowing = [module for module in SOURCES if any(within(name, "gateway.app.service") for name in ours(module))]
    entrances = ("gateway.app", "gateway.demo", "gateway.cli")
    assert not [module for module in knowing if not within(module, *entrances)]


def test_only_one_package_sees_openssl() -> None:
    seeing = [module for module in SOURCES if any(within(name, "OpenSSL", "ssl") for name in imports(module))]
    assert seeing
    assert not [module for module in seeing if not within(module, "gateway.wire.tls")]


PRIVATE = "gateway.wire.tls.private"


def private_names(node: ast.AST) -> list[str]:
    """Names that begin with one underscore, of a module or of somebody else's object, and what is taken of those."""
    match node:
        case ast.Attribute(value=ast.Name(id="self" | "cls")):
            return []
        case ast.Attribute(value=ast.Name(id="_lib" | "_ffi"), attr=name):
            return [name]
        case ast.Attribute(attr=name):
            return [name] if name.startswith("_") and not name.startswith("__") else []
        case ast.ImportFrom(module=str(module), level=0) if "._" in module:
            return [module]
        case ast.Call(func=ast.Name(id="getattr"), args=[ast.Name(id=owner), ast.Constant(value=str(name)), *_]):
            return [name] if name.startswith("_") or owner in ("_lib", "_ffi") else []
    return []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("connection._ssl", ["_ssl"]),
        ("self._connection._ssl", ["_ssl"]),
        ("from OpenSSL._util import lib", ["OpenSSL._util"]),
        ("getattr(SSL, '_lib', None)", ["_lib"]),
        ("getattr(_lib, 'SSL_read', None)", ["SSL_read"]),
        ("_lib.SSL_read", ["SSL_read"]),
        ("self._connection.shutdown()", []),
        ("object.__setattr__(self, 'x', 1)", []),
        ("from ._x import y", []),
    ],
)
def test_a_private_name_is_recognised(text: str, found: list[str]) -> None:
    assert [name for node in ast.walk(ast.parse(text)) for name in private_names(node)] == found


def test_one_module_uses_private_names_of_pyopenssl_and_says_which() -> None:
    using = {
        module: {name for node in ast.walk(TREES[module]) for name in private_names(node)}
        for module in modules("gateway.wire.tls")
    }
    assert [module for module, names in using.items() if names] == [PRIVATE]
    told = ast.get_docstring(TREES[PRIVATE]) or ""
    assert not [name for name in using[PRIVATE] if f"`{name}`" not in told]


def test_what_must_not_carry_data_is_not_imported() -> None:
    shunned = (
        "twisted.mail", "twisted.protocols.haproxy", "twisted.protocols.basic", "twisted.protocols.portforward",
        "twisted.internet.ssl", "twisted.protocols.tls",
    )  # fmt: skip
    for module in SOURCES:
        # The demo's legacy servers may be Twisted's, and so may HTTP for administrators.
        if not within(module, "gateway.demo", "gateway.app.admin"):
            assert not [name for name in imports(module) if within(name, *shunned)], module


def names_a_dialect(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=str(value)):
            return value in DIALECTS
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
            return any(names_a_dialect(part) for part in parts)
    return False


def asks_for_a_dialect(node: ast.AST) -> bool:
    """`protocol == "smtp"`, `in ("smtp", ...)`, `case "smtp"`, `.name == other.name` of a dialect."""
    match node:
        case ast.Compare(left=left, comparators=comparators):
            return any(names_a_dialect(part) for part in (left, *comparators))
        case ast.MatchValue(value=value):
            return names_a_dialect(value)
    return False


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("protocol == 'smtp'", True),
        ("'imap' != x", True),
        ("x in ('pop3', 'smtp')", True),
        ("match x:\n case 'smtp' | 'imap': pass", True),
        ("x == 'starttls'", False),
        ("f('smtp')", False),
    ],
)
def test_a_question_for_a_dialect_is_recognised(text: str, asks: bool) -> None:
    assert any(map(asks_for_a_dialect, ast.walk(ast.parse(text)))) is asks


def test_a_protocol_is_a_value_and_nobody_asks_which() -> None:
    # The demo's servers are protocols themselves.
    asking = [
        f"{module}:{getattr(node, 'lineno', '?')}"
        for module, tree in TREES.items()
        if not within(module, "gateway.dialects", "gateway.demo")
        for node in ast.walk(tree)
        if asks_for_a_dialect(node)
    ]
    assert not asking


def test_no_module_shares_its_path_with_a_package_of_twisted() -> None:
    assert not (ROOT / "twisted" / "__init__.py").exists()
    assert not (ROOT / "twisted" / "plugins" / "__init__.py").exists()


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_opens_with_a_sentence(module: str) -> None:
    if SOURCES[module].read_bytes().strip():
        assert ast.get_docstring(TREES[module]), module


def test_whatever_is_matched_in_every_session_is_matched_by_name() -> None:
    """By position it costs a string each time, and the cache of attributes: see gateway.protocol.vocabulary."""
    for module in modules("gateway.sessions.session", "gateway.protocol", "gateway.dialects"):
        for node in ast.walk(TREES[module]):
            assert not (isinstance(node, ast.MatchClass) and node.patterns), f"{module}:{node.lineno}"


@pytest.mark.parametrize("module", SOURCES)
def test_a_file_has_500_lines_and_a_class_300_at_most(module: str) -> None:
    assert len(SOURCES[module].read_text("utf-8").splitlines()) <= 500, module
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ClassDef):
            assert (node.end_lineno or 0) - node.lineno < 300, f"{module}.{node.name}"
