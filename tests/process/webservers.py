"""Real web servers from the distribution on loopback: cupsd, which knows Upgrade to TLS, and Apache without TLS."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import free_ports
from tests.process import programs
from tests.process.running import DEADLINE, speaking
from tests.process.servers import ATTEMPTS

_CUPSD = """
LogLevel warn
Listen 127.0.0.1:{port}
Browsing Off
DefaultAuthType None
WebInterface No
DefaultEncryption Never
<Location />
 Order allow,deny
 Allow all
</Location>
"""
_CUPS_FILES = """
ServerRoot {root}
CacheDir {root}/cache
StateDir {root}/state
RequestRoot {root}/spool
AccessLog {root}/access
ErrorLog {root}/error
PageLog {root}/page
ServerKeychain {root}/ssl
"""
_APACHE = """
ServerRoot {root}
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {root}/pid
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
{owner}
LogFormat "%r" line
CustomLog {root}/access line
ErrorLog {root}/error
DocumentRoot {root}/htdocs
"""
PAGE = b"hello from an old server\n"


@contextmanager
def cupsd(directory: Path) -> Iterator[str]:
    """Its address.  A certificate it makes by itself; a ClientHello on its port begins TLS as well."""
    program = programs.need("cupsd", debian="cups-daemon")
    for attempt in range(ATTEMPTS):
        (port,) = free_ports(1)
        root = directory / f"cups-{attempt}"
        for name in ("cache", "state", "spool", "ssl"):
            (root / name).mkdir(parents=True)
        (root / "cupsd.conf").write_text(_CUPSD.format(port=port))
        (root / "cups-files.conf").write_text(_CUPS_FILES.format(root=root))
        command = [program, "-f", "-c", str(root / "cupsd.conf"), "-s", str(root / "cups-files.conf")]
        with speaking(command) as (process, _):
            if _listens(port, process.poll):
                yield f"127.0.0.1:{port}"
                return
    pytest.fail("no free port for cupsd")


@contextmanager
def apache(directory: Path) -> Iterator[tuple[str, Path]]:
    """Its address, and the file with the first lines of all requests."""
    program = programs.need("apache2", debian="apache2-bin")
    for attempt in range(ATTEMPTS):
        (port,) = free_ports(1)
        root = directory / f"apache-{attempt}"
        (root / "htdocs").mkdir(parents=True)
        (root / "htdocs" / "index.html").write_bytes(PAGE)
        owner = "" if os.geteuid() else f"User www-data\nGroup #{pwd.getpwnam('www-data').pw_gid}"
        (root / "httpd.conf").write_text(_APACHE.format(root=root, port=port, owner=owner))
        with speaking([program, "-f", str(root / "httpd.conf"), "-DFOREGROUND"]) as (process, _):
            if _listens(port, process.poll):
                yield f"127.0.0.1:{port}", root / "access"
                return
    pytest.fail("no free port for Apache")


def _listens(port: int, status: object) -> bool:
    """Whether the server got its port; it is asked until it has, or has ended."""
    assert callable(status)
    with socket.socket() as probe:
        probe.settimeout(DEADLINE)
    while status() is None:
        try:
            socket.create_connection(("127.0.0.1", port), DEADLINE).close()
        except ConnectionRefusedError:
            continue
        return True
    return False
