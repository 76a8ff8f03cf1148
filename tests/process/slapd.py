"""slapd on loopback, in a directory of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.ports import free_ports
from tests.process import programs
from tests.process.running import CANARY, Speaker, speaking
from tests.process.servers import ATTEMPTS, is_up

_SLAPD = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {directory}/pid
argsfile {directory}/args
{settings}
database mdb
maxsize 1073741824
dbnosync
suffix "dc=example,dc=test"
rootdn "cn=admin,dc=example,dc=test"
rootpw {canary}
directory {directory}/db
access to * by * read
"""
_BASE = """
dn: dc=example,dc=test
objectClass: dcObject
objectClass: organization
o: Example
dc: example

dn: uid=user,dc=example,dc=test
objectClass: inetOrgPerson
uid: user
cn: Test User
sn: User
mail: user@example.test
userPassword: {canary}
"""


@dataclass(frozen=True)
class Slapd:
    """A directory with the user `uid=user,dc=example,dc=test`, whose password is the canary."""

    port: int
    proxied: int
    """A port that expects a PROXY header."""
    secured: int
    """A port for ldaps, with a certificate."""
    socket: Path
    log: Speaker

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def slapd(directory: Path, *settings: str, certificate: Path | None = None) -> Iterator[Slapd]:
    """`settings` are lines of slapd.conf before the database."""
    root = directory / "slapd"
    (root / "db").mkdir(parents=True)
    if certificate:
        settings = (f"TLSCertificateFile {certificate}", f"TLSCertificateKeyFile {certificate}", *settings)
    file = root / "slapd.conf"
    file.write_text(_SLAPD.format(directory=root, settings="\n".join(settings), canary=CANARY))
    (root / "base.ldif").write_text(_BASE.format(canary=CANARY).lstrip())
    program = programs.need("slapd", debian="slapd")
    filled = [programs.need("slapadd", debian="slapd"), "-q", "-f", str(file), "-l", str(root / "base.ldif")]
    subprocess.run(filled, check=True, capture_output=True)
    local = root / "ldapi"
    for _ in range(ATTEMPTS):
        port, proxied, secured = free_ports(3)
        addresses = [f"ldap://127.0.0.1:{port}", f"pldap://127.0.0.1:{proxied}", f"ldapi://{quote(str(local), '')}"]
        addresses += [f"ldaps://127.0.0.1:{secured}"] * bool(certificate)
        with speaking([program, "-f", str(file), "-h", " ".join(addresses), "-d", "stats"], "stderr") as (_, log):
            if is_up(log, "slapd starting", "slapd"):
                yield Slapd(port, proxied, secured, local, log)
                return
    pytest.fail("no free port for slapd")
