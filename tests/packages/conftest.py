"""Packages are built once for all tests, each in two versions: what a user has, and what he upgrades to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.packages.roots import ROOT, Root, ready_to_build, run, running_root
from tests.process.programs import need

OLD, NEW = "7.1.0", "7.2.0"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.packages)


@dataclass(frozen=True)
class Build:
    version: str
    wheels: Path
    deb: Path


def build(directory: Path, version: str) -> Build:
    need("dh", debian="debhelper")
    wheels, out = directory / "wheels", directory / "deb"
    environment = {**os.environ, "SETUPTOOLS_SCM_PRETEND_VERSION": version}
    run(["config/packages/wheels", str(wheels)], cwd=ROOT, env=environment)
    run(["config/packages/deb"], cwd=ROOT, env={**environment, "WHEELS": str(wheels), "OUT": str(out)})
    (deb,) = out.iterdir()
    return Build(version, wheels, deb)


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory) -> Build:
    ready_to_build()
    return build(tmp_path_factory.mktemp("old"), OLD)


@pytest.fixture(scope="session")
def new(tmp_path_factory: pytest.TempPathFactory) -> Build:
    ready_to_build()
    return build(tmp_path_factory.mktemp("new"), NEW)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    ready_to_build()
    tmp_path.chmod(0o755)
    with running_root(tmp_path / "root") as root:
        yield root


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()
