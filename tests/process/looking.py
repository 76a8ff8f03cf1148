"""What others see of a port: the gateway's own `check` and `probe`, openssl and gnutls-cli."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.process import programs
from tests.process.running import DEADLINE, ROOT, Gateway, Identity


def _cli(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE * 3)


def checked(
    directory: Path,
    identity: Identity,
    protocol: str,
    backend: str,
    *options: str,
    mode: str = "starttls",
    hostname: str = "localhost",
) -> subprocess.CompletedProcess[str]:
    """`check --live` of one service; `backend`: the options of its server."""
    file = directory / "gateway.ini"
    file.write_text(
        f"[gateway]\nhostname = {hostname}\n[tls]\ncertificate = {identity.certificate}\n"
        f"[service:{protocol}]\n{mode} = 127.0.0.1:0\nbackend = server\n[backend:server]\n{backend}\n"
    )
    return _cli("check", str(file), "--live", *options)


def probed(protocol: str, address: str, authority: Path | None, *options: str) -> dict[str, Any]:
    """What `probe` found; `names`, too: those of all findings.  It knows a loopback address as localhost."""
    address = address.replace("127.0.0.1", "localhost")
    trusts = [] if authority is None else ["--ca", str(authority)]
    done = _cli("probe", protocol, address, "--json", "--timeout", "5", *trusts, *options)
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    found["names"] = {one["finding"] for one in found["findings"]}
    return found


def at(gateway: Gateway, service: str, mode: str = "starttls") -> str:
    return "{}:{}".format(*gateway.address(service, mode))


def openssl_verifies(
    gateway: Gateway, identity: Identity, service: str, mode: str, starttls: str, *options: str, alpn: str = ""
) -> None:
    words = ["s_client", "-connect", at(gateway, service, mode), "-CAfile", str(identity.authority)]
    words += ["-verify_return_error", *options, *(["-alpn", alpn] if alpn else [])]
    words += ["-starttls", starttls] if mode == "starttls" else []
    done = subprocess.run(
        [programs.need("openssl", debian="openssl"), *words],
        input="", capture_output=True, text=True, errors="replace", timeout=DEADLINE,
    )  # fmt: skip
    assert "Verify return code: 0 (ok)" in done.stdout, done.stderr
    assert f"ALPN protocol: {alpn}" in done.stdout or not alpn, done.stdout


def gnutls_verifies(gateway: Gateway, identity: Identity, service: str, starttls: str) -> None:
    _, port = gateway.address(service)
    program = programs.need("gnutls-cli", debian="gnutls-bin")
    done = subprocess.run(
        [program, f"--starttls-proto={starttls}", f"--x509cafile={identity.authority}", f"--port={port}", "localhost"],
        input="", capture_output=True, text=True, timeout=DEADLINE,
    )  # fmt: skip
    assert "Handshake was completed" in done.stdout, done.stdout + done.stderr
