"""docs/adding-a-protocol.md, followed step by step in a copy of the repository."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.process.running import ROOT, Identity, Service, running
from tests.process.wire import Client

PAGE = (ROOT / "docs" / "adding-a-protocol.md").read_text("utf-8")


def block(before: str, language: str) -> str:
    """The first code block of this language behind these words."""
    found = re.search(rf"```{language}\n(.*?)```", PAGE[PAGE.index(before) :], re.DOTALL)
    assert found, before
    return found[1]


def changed(text: str, diff: str) -> str:
    """`-` lines become the `+` lines behind them."""
    lines = diff.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("-"):
            assert line[1:] in text, line
            text = text.replace(line[1:], following[1:])
    return text


@dataclass(frozen=True)
class Copy:
    """The repository with the new protocol."""

    root: Path

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.root, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}

    def edit(self, path: str, diff: str) -> None:
        file = self.root / path
        file.write_text(changed(file.read_text("utf-8"), diff), "utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    root = tmp_path_factory.mktemp("copy")
    for part in ("gateway", "tests", "twisted", "config", "docs", "setup.cfg", "pyproject.toml"):
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, root / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, root / part)
    (root / "gateway/dialects/ticket.py").write_text(block("## Step 1", "python"))
    (root / "tests/pure/contract/answers/ticket.py").write_text(block("Write `tests/pure/contract/answers", "python"))
    made = Copy(root)
    made.edit("gateway/dialects/__init__.py", block("## Step 2", "diff"))
    made.edit("config/gateway.ini", block("It fails until the example", "diff"))
    return made


def test_the_toy_obeys_the_contract(copy: Copy) -> None:
    told = copy.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/pure/contract", "-k", "ticket")
    assert int(re.search(r"(\d+) passed", told)[1]) > 150  # type: ignore[index]


def test_the_toy_is_typed(copy: Copy) -> None:
    copy.run("-m", "mypy", "--cache-dir", os.devnull, "gateway/dialects/ticket.py")


@pytest.fixture(scope="module")
def backend(copy: Copy) -> Iterator[int]:
    file = copy.root / "server.py"
    file.write_text(block("A server for it", "python"))
    spec = importlib.util.spec_from_file_location("ticket_server", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.Server(("127.0.0.1", 0), module.Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture(scope="module")
def identity(copy: Copy) -> Identity:
    return Identity.issue(copy.root)


@pytest.fixture(scope="module")
def configuration(copy: Copy, backend: int, identity: Identity) -> Path:
    text = block("A configuration,", "ini")
    text = text.replace(":7770", ":0").replace(":7771", ":0").replace(":7777", f":{backend}")
    text = text.replace("chain.pem", str(identity.certificate)).replace("key = key.pem\n", "")
    file = copy.root / "gateway.ini"
    file.write_text(text)
    return file


def test_the_toy_is_checked_and_looked_at(copy: Copy, configuration: Path) -> None:
    assert "ticket" in copy.run("-m", "gateway.cli", "check", str(configuration))
    told = copy.run("-m", "gateway.cli", "check", str(configuration), "--live")
    assert "LOGIN" in told


def test_the_toy_serves(copy: Copy, backend: int, identity: Identity, tmp_path: Path) -> None:
    context = ssl.create_default_context(cafile=str(identity.authority))
    services = [Service("ticket", f"127.0.0.1:{backend}")]
    with running(tmp_path, identity, services, source=copy.root) as gateway:
        with Client(gateway.address("ticket")) as client:
            assert client.line() == b"READY old.example.org\r\n"
            client.say(b"LOGIN joe secret\r\n")
            assert client.line() == b"NO say STARTTLS first\r\n"
            client.say(b"STARTTLS\r\n")
            assert client.line() == b"YES begin TLS\r\n"
            client.shake_hands(context, "localhost")
            client.say(b"LOGIN joe secret\r\nCOUNT\r\n")
            assert client.line() == b"YES welcome\r\n"
            assert client.line() == b"YES 3\r\n"
        assert gateway.log.wait("session", service="ticket")["phase"] == "relaying"
