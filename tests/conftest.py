"""`pytest --corpus FILE` replays recorded servers or clients; without it those tests do not exist."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# A busy machine is no failure of what is tested.
settings.register_profile("gateway", deadline=None)
settings.load_profile("gateway")

Entry = Mapping[str, Any]
CORPUS = pytest.StashKey[dict[str, list[Entry]]]()

KINDS = {"server": "test_corpus_servers.py", "client": "test_corpus_clients.py"}
"""Argument of a corpus test -> the module that has such tests."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--corpus",
        action="append",
        default=[],
        metavar="FILE",
        help="replay this JSON file of recorded servers or clients; which of them it has is told by its content",
    )


def pytest_configure(config: pytest.Config) -> None:
    corpus: dict[str, list[Entry]] = {}
    for name in config.getoption("--corpus"):
        try:
            entries = json.loads(Path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise pytest.UsageError(f"--corpus {name}: {error}") from None
        corpus.setdefault(_kind(name, entries), []).extend(entries)
    config.stash[CORPUS] = corpus


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
        return "client"
    raise pytest.UsageError(f"--corpus {name}: neither recorded servers nor recorded clients")


def _name(kind: str, index: int, entry: Entry) -> str:
    scenario = f" {entry['protocol']} {entry['scenario']}" if kind == "client" else f" {entry['protocol']}"
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{index} {entry[kind]} {entry['version']}{scenario}").strip("-")


@pytest.fixture(scope="session")
def recordings(pytestconfig: pytest.Config) -> list[Entry]:
    """All recorded clients: what one of them did elsewhere tells how it goes on."""
    return pytestconfig.stash[CORPUS].get("client", [])
