"""A wheel and an sdist as a package index takes them, and the version from the git tag."""

from __future__ import annotations

import configparser
import email
import email.message
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.process.programs import need

ROOT = Path(__file__).parents[2]
IDENTITY = ("-c", "user.name=tests", "-c", "user.email=tests@example.test")


def run(directory: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def version_of(directory: Path) -> str:
    return run(directory, sys.executable, "-m", "setuptools_scm").strip()


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This tree, as one commit with the tag v1.2.3."""
    need("git", debian="git")
    directory = tmp_path_factory.mktemp("tagged")
    for name in run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        if name and (ROOT / name).exists():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, directory / name, follow_symlinks=False)
    run(directory, "git", "init", "-q")
    run(directory, "git", "add", "--all")
    run(directory, "git", *IDENTITY, "commit", "-qm", "release")
    run(directory, "git", *IDENTITY, "tag", "v1.2.3")
    return directory


@dataclass(frozen=True)
class Distributions:
    sdist: Path
    wheel: Path

    @property
    def wheel_names(self) -> set[str]:
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())

    @property
    def sdist_names(self) -> set[str]:
        """Without the directory that all of them are in."""
        with tarfile.open(self.sdist) as archive:
            return {name.partition("/")[2] for name in archive.getnames()}

    @property
    def metadata(self) -> email.message.Message:
        with zipfile.ZipFile(self.wheel) as archive:
            return email.message_from_bytes(archive.read("starttls_gateway-1.2.3.dist-info/METADATA"))


@pytest.fixture(scope="module")
def distributions(tagged: Path) -> Distributions:
    run(tagged, sys.executable, "-m", "build", "--no-isolation", "--outdir", "out")
    sdist, wheel = sorted((tagged / "out").iterdir(), key=lambda path: path.suffix)
    return Distributions(sdist, wheel)


def test_the_version_is_the_git_tag(distributions: Distributions) -> None:
    assert distributions.sdist.name == "starttls_gateway-1.2.3.tar.gz"
    assert distributions.wheel.name == "starttls_gateway-1.2.3-py3-none-any.whl"
    with zipfile.ZipFile(distributions.wheel) as archive:
        assert "'1.2.3'" in archive.read("gateway/_version.py").decode()


def test_a_commit_after_the_tag_is_a_version_before_the_next(tagged: Path, tmp_path: Path) -> None:
    run(tmp_path, "git", "clone", "-q", str(tagged), "clone")
    clone = tmp_path / "clone"
    run(clone, "git", *IDENTITY, "commit", "-qm", "later", "--allow-empty")
    assert re.fullmatch(r"1\.2\.4\.dev1\+g[0-9a-f]+", version_of(clone))


def test_a_tarball_of_git_archive_knows_its_version(tagged: Path, tmp_path: Path) -> None:
    run(tagged, "git", "archive", "--output", str(tmp_path / "all.tar"), "HEAD")
    run(tmp_path, "tar", "xf", "all.tar")
    assert version_of(tmp_path) == "1.2.3"


def test_an_sdist_knows_its_version(distributions: Distributions, tmp_path: Path) -> None:
    run(tmp_path, "tar", "xf", str(distributions.sdist), "--strip-components=1")
    assert version_of(tmp_path) == "1.2.3"


def test_files_without_git_and_metadata_have_the_fallback_version(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert version_of(tmp_path) == "0.1.0.dev0"


def test_twine_accepts_both(distributions: Distributions) -> None:
    said = run(
        distributions.wheel.parent,
        *(sys.executable, "-m", "twine", "--no-color", "check", "--strict"),
        *(str(distributions.wheel), str(distributions.sdist)),
    )
    assert said.count("PASSED") == 2


def test_the_wheel_holds_what_an_administrator_needs(distributions: Distributions) -> None:
    share = "starttls_gateway-1.2.3.data/data/share"
    assert distributions.wheel_names >= {
        "gateway/py.typed",
        "twisted/plugins/starttls_gateway.py",
        f"{share}/starttls-gateway/gateway.ini",
        f"{share}/starttls-gateway/starter.ini",
        f"{share}/starttls-gateway/deploy-hook",
        f"{share}/starttls-gateway/logrotate",
        f"{share}/starttls-gateway/systemd/starttls-gateway.service",
        f"{share}/starttls-gateway/systemd/starttls-gateway@.socket",
        f"{share}/starttls-gateway/systemd/sysusers.conf",
        f"{share}/starttls-gateway/systemd/tmpfiles.conf",
        f"{share}/starttls-gateway/fail2ban/filter.d/starttls-gateway.conf",
        f"{share}/starttls-gateway/fail2ban/jail.d/starttls-gateway.conf",
        f"{share}/starttls-gateway/prometheus/starttls-gateway.rules.yml",
        f"{share}/starttls-gateway/grafana/starttls-gateway.json",
        f"{share}/starttls-gateway/crowdsec/starttls-gateway-logs.yaml",
        f"{share}/starttls-gateway/crowdsec/starttls-gateway-bf.yaml",
        f"{share}/man/man8/starttls-gateway.8",
        f"{share}/man/man5/starttls-gateway.ini.5",
        f"{share}/bash-completion/completions/starttls-gateway",
        f"{share}/zsh/site-functions/_starttls-gateway",
    }


def test_the_wheel_holds_nothing_else(distributions: Distributions) -> None:
    tops = {name.partition("/")[0] for name in distributions.wheel_names}
    assert tops == {
        "gateway",
        "twisted",
        "starttls_gateway-1.2.3.data",
        "starttls_gateway-1.2.3.dist-info",
    }
    # Twisted's own: a copy of ours would hide it.
    assert "twisted/__init__.py" not in distributions.wheel_names
    assert "twisted/plugins/__init__.py" not in distributions.wheel_names


def test_the_sdist_holds_the_documentation_and_the_tests(distributions: Distributions) -> None:
    expected = {"Makefile", "README.md", "CHANGELOG.md", "LICENSE", "config/gateway.ini", "docs/operation.md"}
    assert distributions.sdist_names >= expected | {"tests/conftest.py", "gateway/_version.py"}


def test_links_of_the_long_description_lead_somewhere_on_an_index(distributions: Distributions) -> None:
    assert distributions.metadata["Description-Content-Type"] == "text/markdown"
    text = str(distributions.metadata.get_payload())
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert "https://github.com/starttls-gateway/starttls-gateway/blob/main/docs/tls.md" in links
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


def test_packages_hold_everything_that_the_gateway_needs() -> None:
    configuration = configparser.ConfigParser()
    configuration.read(ROOT / "setup.cfg")
    needed = {
        re.split(r"[\[ <>=]", line)[0].lower()
        for line in configuration["options"]["install_requires"].split("\n")
        if line
    }
    locked = set(re.findall(r"(?m)^([a-z0-9-]+)==", (ROOT / "requirements.txt").read_text()))
    assert needed <= locked, "a dependency is new: run `make lock`"
