"""What is shipped for the system: units, the hook of certificate clients, logrotate, the starter file."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trustme

from gateway.cli.__main__ import make_parser
from gateway.cli.units import OURS
from gateway.config import DEFAULT_FILE
from tests.process.programs import need

CONFIG = Path(__file__).parents[2] / "config"
UNITS = CONFIG / "systemd"
SERVICE = UNITS / "starttls-gateway.service"
HOOK = CONFIG / "deploy-hook"
NAME = "mail.example.org"


def values(unit: Path, key: str) -> list[str]:
    return re.findall(rf"(?m)^{key}=(.*)$", unit.read_text())


# --- systemd -----------------------------------------------------------------------------------------


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """The service, with a program that is there, and an instance of the socket."""
    for path in UNITS.iterdir():
        text = re.sub(r"(?m)^(Exec\w+=)/opt/starttls-gateway/bin/\S+", rf"\1{sys.executable}", path.read_text())
        (tmp_path / path.name.replace("@.", "@25.")).write_text(text)
    return [str(tmp_path / "starttls-gateway.service"), str(tmp_path / "starttls-gateway@25.socket")]


def test_systemd_finds_nothing_wrong_with_the_units(units: list[str]) -> None:
    command = [need("systemd-analyze", debian="systemd"), "verify", "--man=no", *units]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_rates_the_exposure_of_the_service_below_two(units: list[str]) -> None:
    analyze = need("systemd-analyze", debian="systemd")
    # The threshold is ten times the exposure: the command fails above it.
    command = [analyze, "security", "--no-pager", "--offline=true", "--threshold=19", units[0]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_callbacks_of_pyopenssl_may_have_their_memory() -> None:
    assert values(SERVICE, "MemoryDenyWriteExecute") == []


def test_the_service_runs_commands_that_the_code_understands() -> None:
    for key, command in ("ExecStart", "run"), ("ExecReload", "reload"):
        (line,) = values(SERVICE, key)
        program, *arguments = shlex.split(line)
        assert Path(program).name == OURS
        given = make_parser().parse_args(arguments)
        assert given.command == command
        assert DEFAULT_FILE in arguments


def test_user_and_directories_are_the_same_everywhere() -> None:
    (user,) = values(SERVICE, "User")
    (group,) = values(SERVICE, "Group")
    assert re.search(rf"(?m)^u {user} - ", (UNITS / "sysusers.conf").read_text())
    directory = re.search(rf"(?m)^d (\S+) 0750 root {group}$", (UNITS / "tmpfiles.conf").read_text())
    assert directory
    hook = HOOK.read_text()
    assert f"STARTTLS_GATEWAY_TLS:-{directory[1]}}}" in hook
    assert f"STARTTLS_GATEWAY_GROUP:-{group}}}" in hook
    assert f"certificate = {directory[1]}/{NAME}.pem" in (CONFIG / "starter.ini").read_text()


# --- the hook ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where the hook copies to: a directory of a group that the tests are in."""

    root: Path
    authority: trustme.CA

    @property
    def copies(self) -> Path:
        return self.root / "tls"

    @property
    def copy(self) -> Path:
        return self.copies / f"{NAME}.pem"

    @property
    def group(self) -> int:
        return grp.getgrnam("nogroup").gr_gid if os.geteuid() == 0 else os.getegid()

    def issue(self, chain: Path, key: Path) -> bytes:
        """A certificate in files of root's alone, as all ACME clients write it; returns both in one."""
        issued = self.authority.issue_cert(NAME)
        texts = b"".join(blob.bytes() for blob in issued.cert_chain_pems), issued.private_key_pem.bytes()
        for path, text in zip((chain, key), texts, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.write_bytes(text)
            path.chmod(0o600)
        return b"\n".join(texts)

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment: Mapping[str, str] = {
            "PATH": os.environ["PATH"],
            "STARTTLS_GATEWAY_TLS": str(self.copies),
            "STARTTLS_GATEWAY_GROUP": grp.getgrgid(self.group).gr_name,
            **variables,
        }
        command = [str(HOOK), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def place() -> Iterator[Place]:
    with TemporaryDirectory(prefix="gateway-tests-") as name:
        Path(name).chmod(0o755)
        yield Place(Path(name), trustme.CA())


def assert_copied(place: Place, done: subprocess.CompletedProcess[str], expected: bytes) -> None:
    assert done.returncode == 0, done.stderr
    assert place.copy.read_bytes() == expected
    found = place.copy.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, os.geteuid(), place.group)
    assert stat.S_IMODE(place.copies.stat().st_mode) == 0o750
    assert place.copies.stat().st_gid == place.group
    assert [path.name for path in place.copies.iterdir()] == [place.copy.name]


def test_certbots_lineage_is_copied_at_each_renewal(place: Place) -> None:
    live, archive = place.root / "live" / NAME, place.root / "archive" / NAME
    for number in 1, 2:
        pair = archive / f"fullchain{number}.pem", archive / f"privkey{number}.pem"
        expected = place.issue(*pair)
        live.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, target in zip(("fullchain.pem", "privkey.pem"), pair, strict=True):
            (live / name).unlink(missing_ok=True)
            (live / name).symlink_to(os.path.relpath(target, live))
        assert_copied(place, place.run(RENEWED_LINEAGE=str(live), RENEWED_DOMAINS=NAME), expected)


def test_legos_files_are_copied(place: Place) -> None:
    chain, key = place.root / ".lego" / f"{NAME}.crt", place.root / ".lego" / f"{NAME}.key"
    expected = place.issue(chain, key)
    done = place.run(LEGO_CERT_DOMAIN=NAME, LEGO_CERT_PATH=str(chain), LEGO_CERT_KEY_PATH=str(key))
    assert_copied(place, done, expected)


def test_acme_shs_files_are_copied(place: Place) -> None:
    home = place.root / ".acme.sh" / f"{NAME}_ecc"
    expected = place.issue(home / "fullchain.cer", home / f"{NAME}.key")
    done = place.run(
        Le_Domain=NAME, CERT_FULLCHAIN_PATH=str(home / "fullchain.cer"), CERT_KEY_PATH=str(home / f"{NAME}.key")
    )
    assert_copied(place, done, expected)


def test_a_file_with_both_is_copied_once(place: Place) -> None:
    """As HAProxy has it."""
    chain, key, both = place.root / "chain", place.root / "key", place.root / "both"
    place.issue(chain, key)
    both.write_bytes(chain.read_bytes() + key.read_bytes())
    assert_copied(place, place.run(NAME, str(both), str(both)), both.read_bytes() + b"\n")


def test_a_wildcard_gets_a_name_without_a_star(place: Place) -> None:
    chain, key = place.root / "chain", place.root / "key"
    place.issue(chain, key)
    assert place.run("*.example.org", str(chain), str(key)).returncode == 0
    assert [path.name for path in place.copies.iterdir()] == ["_.example.org.pem"]


@pytest.mark.parametrize("broken", ["no chain", "empty chain", "empty key", "key for chain"])
def test_a_broken_renewal_leaves_the_old_copy(place: Place, broken: str) -> None:
    chain, key = place.root / "chain", place.root / "key"
    expected = place.issue(chain, key)
    assert_copied(place, place.run(NAME, str(chain), str(key)), expected)
    if broken == "no chain":
        chain.unlink()
    elif broken == "key for chain":
        chain.write_bytes(key.read_bytes())
    else:
        (chain if "chain" in broken else key).write_bytes(b"")
    done = place.run(NAME, str(chain), str(key))
    assert done.returncode == 1
    assert re.search(r"starttls-gateway deploy-hook: .*(chain|key): no .* in it; .* is as it was", done.stderr)
    assert place.copy.read_bytes() == expected
    assert [path.name for path in place.copies.iterdir()] == [place.copy.name]


@pytest.mark.parametrize("name", ["", "../evil", ".hidden", "two words"])
def test_a_name_that_is_no_file_name_is_refused(place: Place, name: str) -> None:
    chain, key = place.root / "chain", place.root / "key"
    place.issue(chain, key)
    done = place.run(name, str(chain), str(key))
    assert (done.returncode, done.stderr) == (1, f"starttls-gateway deploy-hook: {name}: not a name for a file\n")
    assert not place.copies.exists()


def test_called_by_nobody_it_tells_how_to_call_it(place: Place) -> None:
    for arguments in [], ["one"]:
        done = place.run(*arguments)
        assert done.returncode == 1
        assert "usage: deploy-hook [NAME FULLCHAIN KEY]" in done.stderr


@pytest.mark.usefixtures("root")
def test_the_group_reads_the_copy_and_others_do_not(place: Place) -> None:
    chain, key = place.root / "chain", place.root / "key"
    expected = place.issue(chain, key)
    place.run(NAME, str(chain), str(key))
    nobody = pwd.getpwnam("nobody").pw_uid

    def read(group: int) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["cat", str(place.copy)], capture_output=True, user=nobody, group=group, extra_groups=[], timeout=60
        )

    assert read(place.group).stdout == expected
    assert read(65000).returncode == 1


def test_the_starter_file_is_good_once_its_certificate_is_there(place: Place) -> None:
    chain, key = place.root / "chain", place.root / "key"
    place.issue(chain, key)
    place.run(NAME, str(chain), str(key))
    file = place.root / "gateway.ini"
    file.write_text((CONFIG / "starter.ini").read_text().replace("/etc/starttls-gateway/tls", str(place.copies)))
    command = [sys.executable, "-m", "gateway.cli", "check", str(file)]
    done = subprocess.run(command, cwd=CONFIG.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    assert f"{file}: good" in done.stdout


# --- logrotate ---------------------------------------------------------------------------------------


def test_logrotate_rotates_and_tells_the_gateway(tmp_path: Path) -> None:
    logrotate = need("logrotate", debian="logrotate")
    log, run, signalled = tmp_path / "log", tmp_path / "run", tmp_path / "signalled"
    for directory in log, run:
        directory.mkdir(mode=0o755)
    (log / "gateway.log").write_text("time=2026-01-31T12:00:00.000Z event=listening\n")
    rules = (CONFIG / "logrotate").read_text()
    rules = rules.replace("/var/log/starttls-gateway", str(log)).replace("/run/starttls-gateway", str(run))
    user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
    rules = rules.replace("su starttls-gateway adm", f"su {user} {group}")
    (tmp_path / "rules").write_text(rules)
    (tmp_path / "rules").chmod(0o644)
    waiting = (
        f"trap 'touch {signalled}; exit 0' USR1; echo $$ > {run}/gateway.pid; echo ready; while :; do read x; done"
    )
    sh = shutil.which("sh") or "sh"
    with subprocess.Popen([sh, "-c", waiting], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        command = [logrotate, "--force", "--state", str(tmp_path / "state"), str(tmp_path / "rules")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert process.wait(60) == 0
    assert signalled.exists()
    assert [path.name for path in log.iterdir()] == ["gateway.log.1"]
