"""The Containerfile, built by buildah on a debootstrap base and run as it says: not root, and with a read-only root."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trustme

from tests.packages.conftest import Build
from tests.packages.mail import NAME, Mail
from tests.packages.roots import CACHE, ENVIRONMENT, ROOT, base, child_of, ready_to_build, run
from tests.process.programs import need
from tests.process.running import DEADLINE

OPTIONS = ("--isolation", "chroot")


@dataclass(frozen=True)
class Buildah:
    """With a storage of its own: the machine's images are left alone."""

    directory: Path

    @property
    def command(self) -> list[str]:
        buildah = need("buildah", debian="buildah")
        storage = [f"--root={self.directory / 'root'}", f"--runroot={self.directory / 'run'}", "--storage-driver=vfs"]
        return [buildah, *storage]

    def __call__(self, *arguments: str, right: Sequence[int] = (0,)) -> str:
        return run([*self.command, *arguments], patience=1200, right=right)


@dataclass(frozen=True)
class Image:
    buildah: Buildah
    docker: Mapping[str, Any]
    """Its configuration, as `docker inspect` shows it."""

    @property
    def command(self) -> list[str]:
        return [*self.docker["Entrypoint"], *self.docker["Cmd"]]


@pytest.fixture(scope="module")
def image(old: Build) -> Iterator[Image]:
    ready_to_build()
    CACHE.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="image-", dir=CACHE) as name:
        buildah, context = Buildah(Path(name)), Path(name) / "context"
        empty = buildah("from", "scratch").strip()
        run(["cp", "-a", f"{base()}/.", buildah("mount", empty).strip()])
        buildah("umount", empty)
        buildah("commit", "--quiet", "--rm", empty, "localhost/base")
        shutil.copytree(ROOT / "config", context / "config")
        for file in "Containerfile", ".containerignore", "requirements.txt":
            shutil.copy(ROOT / file, context / file)
        shutil.copytree(old.wheels, context / "dist" / "wheels")
        arguments = ["BASE=localhost/base", "PIP_NO_INDEX=1"]
        buildah(
            *("bud", *OPTIONS, "--pull-never", "--format=docker", "--tag=localhost/gateway"),
            *(f"--build-arg={argument}" for argument in arguments),
            str(context),
        )
        inspected = json.loads(buildah("inspect", "--type=image", "localhost/gateway"))
        yield Image(buildah, inspected["Docker"]["config"])
        buildah("rm", "--all")
        buildah("rmi", "--all", "--force")


@contextmanager
def network() -> Iterator[int]:
    """A network with loopback where any port is free to any user, as container engines set it up; its process."""
    script = (
        "ip link set lo up && echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start && echo ready && exec sleep inf"
    )
    command = ["unshare", "--net", "--pid", "--mount-proc", "--fork", "--kill-child", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield child_of(process.pid)
        finally:
            process.send_signal(signal.SIGKILL)


def configure(directory: Path, mail: Mail, group: int) -> None:
    """What an administrator mounts over /etc/starttls-gateway."""
    (directory / "tls").mkdir(parents=True, mode=0o755)
    pem = directory / "tls" / f"{NAME}.pem"
    pem.write_bytes(b"".join(mail.pair()))
    (directory / "gateway.ini").write_text(mail.configuration)
    for path in directory, directory / "tls", directory / "gateway.ini", pem:
        path.chmod(0o755 if path.is_dir() else 0o640)
        shutil.chown(path, 0, group)


def test_it_is_not_root_and_says_what_it_needs(image: Image) -> None:
    assert image.docker["User"] == "10025:10025"
    assert {"25/tcp", "465/tcp", "587/tcp", "143/tcp", "993/tcp", "110/tcp", "995/tcp"} <= set(
        image.docker["ExposedPorts"]
    )
    assert image.docker["Healthcheck"]["Test"] == ["CMD", "gateway-health"]


def test_it_serves_under_buildah_and_tells_its_health(image: Image, tmp_path: Path, authority: trustme.CA) -> None:
    with network() as leader:
        mail = Mail(leader, authority)
        configure(tmp_path / "etc", mail, 10025)
        container = image.buildah("from", "--pull-never", "localhost/gateway").strip()
        inside = ["nsenter", f"--target={leader}", "--net", *image.buildah.command, "run", *OPTIONS]
        volume = f"--volume={tmp_path / 'etc'}:/etc/starttls-gateway:ro"
        health = [*inside, volume, container, "--", *image.docker["Healthcheck"]["Test"][1:]]
        run(health, right=[1])
        command = [*inside, volume, container, "--", *image.command]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                with mail.until_connected() as client:
                    mail.send(client)
                run(health)
                gateway = run(
                    ["pgrep", "--newest", "--uid", "10025", "--full", "starttls-gateway.*gateway.ini"]
                ).strip()
                run(["kill", gateway])
                said = process.communicate(timeout=DEADLINE)[0]
            finally:
                process.kill()
        assert "Traceback" not in said
        assert "event=stopping" in said
        run(health, right=[1])


def test_its_root_may_be_read_only(image: Image, tmp_path: Path, authority: trustme.CA) -> None:
    with network() as leader:
        mail = Mail(leader, authority)
        configure(tmp_path / "etc", mail, 10025)
        container = image.buildah("from", "--pull-never", "localhost/gateway").strip()
        root = shlex.quote(image.buildah("mount", container).strip())
        environment = " ".join(shlex.quote(pair) for pair in image.docker["Env"])
        script = f"""
            set -e
            mount --bind {root} {root}
            mount -o remount,ro,bind {root}
            mount --bind {shlex.quote(str(tmp_path / "etc"))} {root}/etc/starttls-gateway
            mount -t tmpfs -o uid=10025,gid=10025,mode=755 none {root}/run/starttls-gateway
            mount -t proc none {root}/proc
            exec chroot --userspec={image.docker["User"]} --groups= {root} env {environment} {shlex.join(image.command)}
        """
        command = ["nsenter", f"--target={leader}", "--net", "unshare", "--mount", "sh", "-c", script]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
        ) as process:
            try:
                with mail.until_connected() as client:
                    mail.send(client)
                process.terminate()
                said = process.communicate(timeout=DEADLINE)[0]
            finally:
                process.kill()
        for bad in "Traceback", "Read-only", "level=error", "Unable to write":
            assert bad not in said
        assert "event=listening" in said
