"""Commands of the pages that need systemd, in a booted Debian with the package, fail2ban and a gateway that serves."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import trustme

from tests.console import ELSEWHERE, ROOT, SYSTEM, Block, blocks, commands, elsewhere, named
from tests.packages.conftest import Build
from tests.packages.machine import Machine, booted
from tests.packages.mail import NAME, Mail
from tests.packages.roots import ENVIRONMENT, base, copy, ready_to_build, run
from tests.packages.test_deb import deploy
from tests.packages.test_systemd import FILE

PACKAGES = ("fail2ban", "python3-systemd", "jq", "nftables", "apparmor")
WAITS = r"journalctl .* -f"


def system(block: Block) -> list[str]:
    return [line for line in commands(block[2]) if ELSEWHERE.get(elsewhere(block, line)) == SYSTEM]


BLOCKS = [block for block in blocks("console") if system(block)]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, new: Build, authority: trustme.CA) -> Iterator[Machine]:
    ready_to_build()
    directory = tmp_path_factory.mktemp("machine")
    directory.chmod(0o755)
    root = directory / "root"
    copy(base(), root)
    (root / "tmp" / new.deb.name).write_bytes(new.deb.read_bytes())
    for words in (("update", "-qq"), ("install", "-qq", "--no-install-recommends", *PACKAGES, f"/tmp/{new.deb.name}")):
        run(["chroot", str(root), "apt-get", *words], env=ENVIRONMENT, patience=600)
    with booted(root) as machine:
        mail = Mail(machine.leader, authority)
        deploy(machine, mail)
        # As the pages have it: one of the ports is systemd's.
        text = mail.configuration.replace("starttls = 25", "starttls = systemd:25")
        machine.path(FILE).write_text(text)
        machine.run("systemctl", "start", "starttls-gateway@25.socket")
        share = "/opt/starttls-gateway/share/starttls-gateway"
        for name in "filter.d", "jail.d":
            machine.run("cp", f"{share}/fail2ban/{name}/starttls-gateway.conf", f"/etc/fail2ban/{name}/")
        # This Debian has no log of sshd.
        machine.run("rm", "-f", "/etc/fail2ban/jail.d/defaults-debian.conf")
        machine.run("systemctl", "enable", "--now", "starttls-gateway")
        # Some commands are for the one form of the log, some for the other.
        machine.path(FILE).write_text(text.replace("[gateway]\n", "[gateway]\nlog = json\n"))
        machine.run("systemctl", "reload", "starttls-gateway")
        machine.run("systemctl", "restart", "fail2ban")
        yield machine
        mail.backend.close()


@pytest.mark.parametrize("block", BLOCKS, ids=named)
def test_a_command_for_systemd_does_what_it_should(machine: Machine, block: Block) -> None:
    for line in system(block):
        if re.fullmatch(WAITS, line):
            line = f"timeout 1 {line} || [ $? = 124 ]"
        machine.run("bash", "-ec", line)
    assert machine.run("systemctl", "is-active", "starttls-gateway") == "active\n"
    assert NAME in machine.run("starttls-gateway", "status")


def test_the_rules_for_apparmor_are_a_profile(machine: Machine) -> None:
    text = (ROOT / "docs" / "hardening.md").read_text("utf-8")
    (profile,) = re.findall(r"(?ms)^```text\n(#include <tunables.*?)^```$", text)
    machine.path("/etc/profile.apparmor").write_text(profile)
    machine.run("apparmor_parser", "--skip-kernel-load", "--skip-cache", "/etc/profile.apparmor")
