"""The Debian package in a clean root without a network: install, serve, upgrade under a session, remove, purge."""

from __future__ import annotations

import hashlib
import os
import pwd
import shlex
import signal
import stat
import subprocess
from pathlib import Path

import trustme

from tests.packages.conftest import Build, build
from tests.packages.mail import NAME, Mail
from tests.packages.roots import ROOT, Debian, Root, run
from tests.process.programs import need
from tests.process.running import DEADLINE, parse

PACKAGE = "starttls-gateway"
HOOK = "/opt/starttls-gateway/share/starttls-gateway/deploy-hook"
# As the service's User=, Group=, AmbientCapabilities= and CapabilityBoundingSet= have it.
AS_THE_UNIT = shlex.split(
    "setpriv --reuid=starttls-gateway --regid=starttls-gateway --init-groups --no-new-privs"
    " --inh-caps=-all,+net_bind_service --ambient-caps=-all,+net_bind_service --bounding-set=-all,+net_bind_service"
)


def install(root: Root, package: Build) -> str:
    target = root.path(f"/tmp/{package.deb.name}")
    target.write_bytes(package.deb.read_bytes())
    said = root.run("apt-get", "install", "--yes", f"/tmp/{package.deb.name}")
    target.unlink()
    return said


def deploy(root: Debian, mail: Mail) -> None:
    """As certbot does it: root's own files, and the hook that the package brings."""
    live = root.path(f"/etc/letsencrypt/live/{NAME}")
    live.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, octets in zip(("fullchain.pem", "privkey.pem"), mail.pair(), strict=True):
        (live / name).write_bytes(octets)
        (live / name).chmod(0o600)
    root.run("env", f"RENEWED_LINEAGE=/etc/letsencrypt/live/{NAME}", HOOK)


def command_of_the_unit(root: Root) -> list[str]:
    unit = root.path("/lib/systemd/system/starttls-gateway.service").read_text()
    (line,) = (line for line in unit.splitlines() if line.startswith("ExecStart="))
    return shlex.split(line.removeprefix("ExecStart="))


def start(root: Root) -> subprocess.Popen[str]:
    root.run("install", "-d", "-o", PACKAGE, "-g", PACKAGE, "/run/starttls-gateway", "/var/lib/starttls-gateway")
    process = root.spawn(*AS_THE_UNIT, *command_of_the_unit(root))
    assert process.stdout is not None
    for line in process.stdout:
        if parse(line).get("event") == "listening":
            return process
    assert process.stderr is not None
    raise AssertionError(f"it did not start:\n{process.stderr.read()}")


def stop(process: subprocess.Popen[str]) -> None:
    # nsenter's child is the gateway itself, after chroot and setpriv.
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGTERM)
    said = process.communicate(timeout=DEADLINE)
    assert "Traceback" not in "".join(said), said


def entries(root: Root) -> dict[str, str]:
    """Every file, but for what dpkg, apt and systemd note down about themselves."""
    found = {}
    skipped = ("proc", "sys", "dev", "tmp", "run", "var/lib/dpkg", "var/lib/apt", "var/cache", "var/log")
    for directory, names, files in os.walk(root.directory):
        place = os.path.relpath(directory, root.directory)
        if place in skipped:
            names.clear()
            continue
        for name in files:
            path = Path(directory) / name
            text = os.readlink(path) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()
            found[f"{place}/{name}"] = text
        found[place] = "directory"
    return found


def test_install_serve_upgrade_and_purge(root: Root, old: Build, new: Build, authority: trustme.CA) -> None:
    before = entries(root)
    install(root, old)
    assert root.run("starttls-gateway", "--version") == f"starttls-gateway {old.version}\n"
    assert root.run("stat", "--format=%U:%G %a", "/etc/starttls-gateway/tls") == "root:starttls-gateway 750\n"
    assert root.run("dpkg-query", "--showformat=${Conffiles}", "--show", PACKAGE).count("/etc/") == 2
    # Nothing is started before the file has been written: its certificate is not there.
    assert "mail.example.org.pem" in root.run("starttls-gateway", "check", right=[1])

    mail = Mail(root.leader, authority)
    deploy(root, mail)
    root.path("/etc/starttls-gateway/gateway.ini").write_text(mail.configuration)
    assert "good" in root.run("starttls-gateway", "check", "--uid", PACKAGE)
    process = start(root)
    with mail.connect() as client:
        mail.send(client)
        assert b"Received: from client.test" in mail.heard().heard

        assert "Configuration file '" not in install(root, new)
        assert root.path("/etc/starttls-gateway/gateway.ini").read_text() == mail.configuration
        assert root.run("starttls-gateway", "--version") == f"starttls-gateway {new.version}\n"
        # The program that was started goes on: for whoever is there, and for new clients.
        mail.send(client)
        with mail.connect() as another:
            mail.send(another)
    stop(process)
    process = start(root)
    with mail.connect() as client:
        mail.send(client)
    stop(process)

    root.run("apt-get", "remove", "--yes", PACKAGE)
    assert not root.path("/opt/starttls-gateway").exists()
    assert root.path("/etc/starttls-gateway/gateway.ini").read_text() == mail.configuration
    assert root.path(f"/etc/starttls-gateway/tls/{NAME}.pem").exists()
    install(root, old)
    assert root.path("/etc/starttls-gateway/gateway.ini").read_text() == mail.configuration

    root.run("apt-get", "purge", "--yes", PACKAGE)
    root.run("rm", "-r", "/etc/letsencrypt")
    after = entries(root)
    left = {name for name in after.keys() | before.keys() if after.get(name) != before.get(name)}
    # Backups and locks of the tools that keep users, and what enables units.
    kept = {"etc/.pwd.lock", "etc/passwd-", "etc/shadow-", "etc/group-", "etc/gshadow-"}
    assert left - kept == set()
    assert PACKAGE not in root.path("/etc/passwd").read_text() + root.path("/etc/group").read_text()


def test_keys_are_for_root_and_the_gateway_alone(root: Root, old: Build, authority: trustme.CA) -> None:
    install(root, old)
    deploy(root, Mail(root.leader, authority))
    copy = f"/etc/starttls-gateway/tls/{NAME}.pem"
    assert stat.S_IMODE(root.path(copy).stat().st_mode) == 0o640
    root.run(*AS_THE_UNIT, "cat", copy)
    nobody = pwd.getpwnam("nobody")
    strangers = [f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    assert "Permission denied" in root.run("setpriv", *strangers, "cat", copy, right=[1])


def test_lintian_finds_nothing(old: Build) -> None:
    lintian = need("lintian", debian="lintian")
    assert run([lintian, "--allow-root", "--fail-on=error,warning", str(old.deb)], right=[0, 2]) == ""


def test_the_same_source_makes_the_same_package(old: Build, tmp_path: Path) -> None:
    again = build(tmp_path, old.version)
    assert again.deb.read_bytes() == old.deb.read_bytes()
    assert {path.name: path.read_bytes() for path in again.wheels.iterdir()} == {
        path.name: path.read_bytes() for path in old.wheels.iterdir()
    }


def test_no_file_names_the_directory_of_the_build(root: Root, old: Build) -> None:
    install(root, old)
    assert run(["grep", "-rl", str(ROOT), str(root.path("/opt/starttls-gateway"))], right=[1]) == ""
