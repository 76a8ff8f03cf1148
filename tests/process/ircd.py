"""Real IRC servers from the distribution on loopback: ngIRCd, which knows no STARTTLS, and InspIRCd."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import free_ports
from tests.process import programs
from tests.process.running import Speaker, speaking
from tests.process.servers import ATTEMPTS

WEBIRC = "Hecht-im-Karpfenteich"
"""The password with which servers believe the gateway."""
USER = "irc"
"""Whom both become.  Debian has this user from the beginning."""

_NGIRCD = """
[Global]
 Name = ngircd.example.test
 Info = legacy
 AdminEMail = root@example.test
 Listen = 127.0.0.1
 Ports = {port}
 ServerUID = {user}
 ServerGID = {user}
 {password}
[Options]
 Ident = no
 DNS = no
 PAM = no
 WebircPassword = {webirc}
[Limits]
 MaxConnectionsIP = 0
"""
_INSPIRCD = """
<server name="inspircd.example.test" description="legacy" network="Test" id="00A">
<admin name="x" nick="x" email="x@example.test">
<bind address="127.0.0.1" port="{plain}" type="clients">
<bind address="127.0.0.1" port="{implicit}" type="clients" sslprofile="Clients">
<bind address="127.0.0.1" port="{proxied}" type="clients" hook="haproxy">
<connect allow="*" timeout="60" pingfreq="2m" resolvehostnames="no" useident="no" globalmax="1000" localmax="1000"
 commandrate="100000" fakelag="no">
<module name="cap"><module name="starttls"><module name="ircv3"><module name="haproxy"><module name="cgiirc">
<module name="ssl_gnutls"><module name="sslinfo">
<sslprofile name="Clients" provider="gnutls" certfile="{root}/server.pem" keyfile="{root}/server.pem">
<cgihost type="webirc" mask="127.0.0.1" password="{webirc}">
<pid file="{root}/inspircd.pid">
<log method="file" type="* -USERINPUT -USEROUTPUT" level="default" target="{root}/inspircd.log">
<class name="X" commands="DIE"><type name="X" classes="X">
<security maxtargets="5">
<path configdir="{root}" datadir="{root}" logdir="{root}" runtimedir="{root}" moduledir="/usr/lib/inspircd/modules">
"""


@dataclass(frozen=True)
class NgIRCd:
    port: int
    log: Speaker

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@dataclass(frozen=True)
class InspIRCd:
    """It has STARTTLS on the port `plain`."""

    plain: int
    implicit: int
    proxied: int
    """Expects a PROXY header."""


def _owned(directory: Path, name: str, files: dict[str, str]) -> tuple[Path, Sequence[str]]:
    """A directory of the server's user, and what to put before the command to become that user."""
    root = directory / name
    root.mkdir()
    for file, text in files.items():
        (root / file).write_text(text)
    if os.geteuid():
        return root, ()
    owner = pwd.getpwnam(USER)
    for path in (root, *root.iterdir()):
        os.chown(path, owner.pw_uid, owner.pw_gid)
        path.chmod(0o700)
    return root, ("setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups")


@contextmanager
def ngircd(directory: Path, password: str = "") -> Iterator[NgIRCd]:
    """`password`: what clients must say in PASS."""
    program = programs.need("ngircd", debian="ngircd")
    for attempt in range(ATTEMPTS):
        (port,) = free_ports(1)
        line = f"Password = {password}" if password else ""
        text = _NGIRCD.format(port=port, password=line, webirc=WEBIRC, user=USER)
        root, become = _owned(directory, f"ngircd-{port}-{attempt}", {"ngircd.conf": text})
        with speaking([*become, program, "-n", "-f", str(root / "ngircd.conf")]) as (_, log):
            if log.hear(r"Server \"ngircd\S*\" .*ready|Can't bind|No listening ports")[0].endswith("ready"):
                yield NgIRCd(port, log)
                return
    pytest.fail("no free port for ngIRCd")


@contextmanager
def inspircd(directory: Path, certificate: Path) -> Iterator[InspIRCd]:
    program = programs.need("inspircd", debian="inspircd")
    for attempt in range(ATTEMPTS):
        plain, implicit, proxied = free_ports(3)
        root = directory / f"inspircd-{attempt}"
        text = _INSPIRCD.format(plain=plain, implicit=implicit, proxied=proxied, root=root, webirc=WEBIRC)
        files = {"inspircd.conf": text, "server.pem": certificate.read_text()}
        root, become = _owned(directory, root.name, files)
        with speaking([*become, program, "--nofork", f"--config={root}/inspircd.conf"]) as (_, log):
            if log.hear("is now running as|Address already in use|error").group().endswith("running as"):
                yield InspIRCd(plain, implicit, proxied)
                return
    pytest.fail("no free ports for InspIRCd")
