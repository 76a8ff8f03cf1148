"""MariaDB on loopback, in a directory of its own."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import free_ports
from tests.process import programs
from tests.process.running import CANARY, Speaker, speaking
from tests.process.servers import ATTEMPTS, is_up


@dataclass(frozen=True)
class MariaDB:
    """A server with the users `shop` and `modern` (ed25519), whose password is the canary."""

    port: int
    log: Speaker

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def mariadb(directory: Path, *options: str) -> Iterator[MariaDB]:
    """`options` are for the server's command line.  As root it becomes `mysql`."""
    program = programs.need("mariadbd", debian="mariadb-server")
    root = directory / "mariadb"
    root.mkdir()
    user = [] if os.geteuid() else ["--user=mysql"]
    if user:
        os.chown(root, pwd.getpwnam("mysql").pw_uid, -1)
    made = [
        programs.need("mariadb-install-db", debian="mariadb-server"),
        "--no-defaults",
        *user,
        f"--datadir={root}/data",
    ]
    subprocess.run([*made, "--skip-test-db", "--skip-name-resolve"], check=True, capture_output=True)
    start = root / "start.sql"
    start.write_text(
        f"CREATE USER IF NOT EXISTS 'shop'@'%' IDENTIFIED BY '{CANARY}';\n"
        "GRANT ALL ON *.* TO 'shop'@'%';\n"
        "INSTALL SONAME 'auth_ed25519';\n"
        f"CREATE USER IF NOT EXISTS 'modern'@'%' IDENTIFIED VIA ed25519 USING PASSWORD('{CANARY}');\n"
        "GRANT ALL ON *.* TO 'modern'@'%';\n"
    )
    start.chmod(0o644)
    for _ in range(ATTEMPTS):
        (port,) = free_ports(1)
        command = [program, "--no-defaults", *user, f"--datadir={root}/data", f"--socket={root}/data/socket"]
        command += [f"--pid-file={root}/data/pid", "--bind-address=127.0.0.1", f"--port={port}", f"--init-file={start}"]
        command += [
            "--skip-ssl",
            "--skip-name-resolve",
            "--innodb-buffer-pool-size=16M",
            "--innodb-flush-log-at-trx-commit=0",
        ]
        with speaking([*command, *options], "stderr") as (_, log):
            if is_up(log, "ready for connections", "MariaDB"):
                yield MariaDB(port, log)
                return
    pytest.fail("no free port for MariaDB")
