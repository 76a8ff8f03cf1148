"""`pytest --corpus FILE` replays recorded servers, clients or sessions; without it those tests do not exist."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from gateway.dialects import DIALECTS
from tests.process.programs import missing

# A busy machine is no failure of what is tested.
settings.register_profile("gateway", deadline=None)
settings.load_profile("gateway")

PROCESS = Path(__file__).parent / "process"

Entry = Mapping[str, Any]
CORPUS = pytest.StashKey[dict[str, list[Entry]]]()

KINDS = {
    "server": "test_corpus_servers.py",
    "client": "test_corpus_clients.py",
    "session": "test_corpus_sessions.py",
}
"""Argument of a corpus test -> the module that has such tests."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--corpus",
        action="append",
        default=[],
        metavar="FILE",
        help="replay this JSON file of recorded servers, clients or sessions; which it has is told by its content",
    )


def pytest_configure(config: pytest.Config) -> None:
    # A shell that puts us into the background has it ignored, and so would every program that a test ends with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    corpus: dict[str, list[Entry]] = {}
    for name in config.getoption("--corpus"):
        try:
            entries = json.loads(Path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise pytest.UsageError(f"--corpus {name}: {error}") from None
        kind = _kind(name, entries)
        # Sessions may be of protocols that the gateway does not speak.
        known = [entry for entry in entries if kind != "session" or entry["protocol"] in DIALECTS]
        corpus.setdefault(kind, []).extend(known)
    config.stash[CORPUS] = corpus


def pytest_itemcollected(item: pytest.Item) -> None:
    # Coverage doubles the CPU of a test.  It sees nothing of what other processes do, and what a corpus plays must be
    # covered without one.  Long tests that cover nothing alone have the mark themselves.
    if PROCESS in item.path.parents or item.path.name.startswith("test_corpus_"):
        item.add_marker("no_cover")


def pytest_collection_finish() -> None:
    # What is there before the first test stays: collections need not walk over it again and again.
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def leaks_fail_where_they_are_made() -> Iterator[None]:
    """What a module leaves open in a cycle warns in its own last test, and not in an innocent one of another module."""
    yield
    gc.collect()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    kinds = {module: kind for kind, module in KINDS.items()}
    kind = kinds.get(collection_path.name)
    return True if kind and kind not in config.stash[CORPUS] else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for kind, entries in metafunc.config.stash[CORPUS].items():
        if metafunc.definition.path.name == KINDS[kind]:
            metafunc.parametrize(kind, entries, ids=[_name(kind, *numbered) for numbered in enumerate(entries)])


def _kind(name: str, entries: Any) -> str:
    first = entries[0] if isinstance(entries, list) and entries and isinstance(entries[0], dict) else {}
    if "greeting" in first:
        return "server"
    if "steps" in first:
        return "client" if "version" in first else "session"
    raise pytest.UsageError(f"--corpus {name}: no recorded servers, clients or sessions")


def _name(kind: str, index: int, entry: Entry) -> str:
    if kind == "session":
        told = f"{entry['protocol']} {entry.get('client', entry['server'])} {entry['scenario']}"
    else:
        told = f"{entry[kind]} {entry['version']} {entry['protocol']}"
        told += f" {entry['scenario']}" if kind == "client" else ""
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{index} {told}").strip("-")


@pytest.fixture
def root() -> None:
    """For tests that become another user or give files away."""
    if os.geteuid() != 0:
        missing("this test needs root")


@pytest.fixture(scope="session")
def recordings(pytestconfig: pytest.Config) -> list[Entry]:
    """All recorded clients: what one of them did elsewhere tells how it goes on."""
    return pytestconfig.stash[CORPUS].get("client", [])
