"""Real FTP servers on loopback: vsftpd, ProFTPD and Pure-FTPd, as Debian builds them.

Debian's FTP servers exclude each other.  So they are not installed, but unpacked in build/unpacked, where each of them
runs as it is.  They have one user, and their passive ports are those that the kernel gives.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.ports import free_ports
from tests.process import programs
from tests.process.running import CANARY, ROOT, Speaker, speaking
from tests.process.servers import ATTEMPTS, listens

UNPACKED = ROOT / "build" / "unpacked"
USER = "grete"
_OWNER = 65534
"""Debian's `nobody`: whom the servers become, and to whom the files belong."""
LIBRARIES = f"usr/lib/{sysconfig.get_config_var('MULTIARCH') or 'x86_64-linux-gnu'}"


@dataclass(frozen=True)
class Kind:
    """How one of them is started.

    In `script`, `files` and `tls` these words are replaced: @DIR@ a folder of its own, with the user's files in
    @DIR@/home; @FTP@ its port, @ADDRESS@ (@LISTEN@ for vsftpd) where it listens, @USER@ and @PASSWORD@ the login,
    @CERTIFICATE@ a file, @MODULES@ where ProFTPD finds its own.
    """

    name: str
    packages: tuple[str, ...]
    """Debian's."""
    script: str
    """Run by sh, as root, with mounts of its own; becomes the server."""
    files: Mapping[str, str] = field(default_factory=dict)
    tls: Mapping[str, str] = field(default_factory=dict)
    """What is added to these files if there is a certificate: TLS is then demanded."""


_HOME = """
cd @DIR@
mkdir -p home
chown nobody home
"""

# PAM and the list of users are looked for in /etc alone.
VSFTPD = Kind(
    "vsftpd",
    ("vsftpd",),
    _HOME
    + """
mkdir -p empty etc/pam.d
cp pam etc/pam.d/vsftpd
cp /etc/passwd /etc/shadow /etc/group /etc/nsswitch.conf etc
echo "@USER@:x:65534:65534::@DIR@/home:/bin/sh" >>etc/passwd
echo "@USER@:$(openssl passwd -6 @PASSWORD@):19000::::::" >>etc/shadow
mount --bind etc /etc
exec vsftpd @DIR@/vsftpd.conf
""",
    {
        "pam": "auth required pam_unix.so\naccount required pam_permit.so\n",
        "vsftpd.conf": """
background=NO
@LISTEN@
listen_port=@FTP@
anonymous_enable=NO
local_enable=YES
write_enable=YES
local_umask=022
pam_service_name=vsftpd
secure_chroot_dir=@DIR@/empty
seccomp_sandbox=NO
xferlog_enable=NO
utf8_filesystem=YES
""",
    },
    {
        "vsftpd.conf": """
ssl_enable=YES
rsa_cert_file=@CERTIFICATE@
force_local_logins_ssl=YES
force_local_data_ssl=YES
require_ssl_reuse=YES
"""
    },
)

PROFTPD = Kind(
    "ProFTPD",
    ("proftpd-core",),
    _HOME
    + """
echo "@USER@:$(openssl passwd -6 @PASSWORD@):65534:65534::@DIR@/home:/bin/sh" >passwd
chmod 600 passwd
exec proftpd --nodaemon --config @DIR@/proftpd.conf
""",
    {
        "proftpd.conf": """
ServerType standalone
ServerName "old.example.test"
DefaultAddress @ADDRESS@
Port @FTP@
SocketBindTight on
User nobody
Group nogroup
PidFile @DIR@/proftpd.pid
ScoreboardFile @DIR@/scoreboard
DelayTable none
AuthOrder mod_auth_file.c
AuthUserFile @DIR@/passwd
RequireValidShell off
DefaultRoot ~
MaxInstances none
WtmpLog off
TransferLog none
AllowOverwrite on
AllowStoreRestart on
AllowRetrieveRestart on
UseReverseDNS off
@MODULES@
LoadModule mod_deflate.c
DeflateEngine on
"""
    },
    {
        "proftpd.conf": """
LoadModule mod_tls.c
TLSEngine on
TLSRequired on
TLSRSACertificateFile @CERTIFICATE@
TLSRSACertificateKeyFile @CERTIFICATE@
"""
    },
)

PURE_FTPD = Kind(
    "Pure-FTPd",
    ("pure-ftpd", "pure-ftpd-common"),
    _HOME
    + """
# The hashes that pure-pw makes by itself take seconds.
echo "@USER@:$(openssl passwd -6 @PASSWORD@):65534:65534::@DIR@/home/./::::::::::::" >passwd
pure-pw mkdb users.pdb -f passwd
exec pure-ftpd -S @ADDRESS@,@FTP@ -l puredb:@DIR@/users.pdb -E -H -u 1 -c 1000 -C 1000 -g @DIR@/pid $(cat options)
""",
    {"options": "-Y 0"},
    {"options": " -Y 2 -2 @CERTIFICATE@"},
)

KINDS = (VSFTPD, PROFTPD, PURE_FTPD)


@dataclass(frozen=True)
class Server:
    kind: Kind
    host: str
    port: int
    home: Path
    """What its user sees."""
    log: Speaker

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def need(kind: Kind) -> Path:
    """Where it is unpacked; without it the test fails in CI and is skipped elsewhere."""
    missing = [package for package in kind.packages if not (UNPACKED / "usr/share/doc" / package).exists()]
    if missing or os.geteuid():
        programs.missing(f"this test needs {kind.name}: run .ci/unpack, and the tests, as root")
    return UNPACKED


@contextmanager
def running(
    kind: Kind,
    directory: Path,
    host: str = "127.0.0.1",
    certificate: Path | None = None,
    within: Sequence[str] = (),
) -> Iterator[Server]:
    """With a certificate it demands TLS.  `within` is put before its command."""
    where = need(kind)
    root = directory / kind.name
    root.mkdir()
    root.chmod(0o711)
    for _ in range(ATTEMPTS):
        (port,) = free_ports(1)
        words = {
            "DIR": str(root),
            "FTP": str(port),
            **listening_at(host),
            "USER": USER,
            "PASSWORD": CANARY,
            "CERTIFICATE": str(certificate),
            "MODULES": f"ModulePath {where}/usr/lib/proftpd",
        }
        for name, text in kind.files.items():
            more = kind.tls.get(name, "") if certificate else ""
            (root / name).write_text(filled(text + more, words))
            (root / name).chmod(0o600)
        path = os.pathsep.join([f"{where}/usr/sbin", f"{where}/usr/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"])
        environment = ["env", f"PATH={path}", f"LD_LIBRARY_PATH={where / LIBRARIES}"]
        command = [*within, "unshare", "--mount", *environment, "sh", "-ec", filled(kind.script, words)]
        with speaking(command, "stderr") as (process, log):
            if within or listens(process, port, host):
                yield Server(kind, host, port, root / "home", log)
                return
            if "in use" not in log.text and "could not bind" not in log.text:
                break
    pytest.fail(f"{kind.name} does not start:\n{log.text}")


def listening_at(host: str) -> dict[str, str]:
    family = ("listen_ipv6", "listen_address6") if ":" in host else ("listen", "listen_address")
    return {"ADDRESS": host, "LISTEN": f"{family[0]}=YES\n{family[1]}={host}"}


def filled(text: str, words: Mapping[str, str]) -> str:
    for name, value in words.items():
        text = text.replace(f"@{name}@", value)
    return text
