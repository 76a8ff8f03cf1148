"""Real XMPP servers from the distribution on loopback, each in a directory of its own, as `servers` has the others."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import free_ports
from tests.process import programs
from tests.process.running import CANARY, Speaker, speaking
from tests.process.servers import ATTEMPTS

_PROSODY = """
pidfile = "{root}/prosody.pid"
data_path = "{root}/data"
plugin_paths = {{ "{root}/modules" }}
interfaces = {{ "127.0.0.1" }}
local_interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {clients} }}
s2s_ports = {{ {servers} }}
http_ports = {{ }}
https_ports = {{ }}
modules_enabled = {{ "roster", "saslauth", "disco", "ping", "dialback", "legacyauth", {modules} }}
modules_disabled = {{ "http", "s2s_auth_certs" }}
c2s_require_encryption = {required}
s2s_require_encryption = {required}
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
log = {{ {{ levels = {{ min = "debug" }}, to = "console" }} }}
routes = "{root}/routes"
{ssl}
VirtualHost "{domain}"
"""
_ROUTES = """
module:set_global();
-- Domains of tests have no DNS.
local service, manual = require "net.resolvers.service", require "net.resolvers.manual";
local usual = service.new;
function service.new(host, ...)
    for line in io.lines(module:get_option("routes")) do
        local name, port = line:match("^(%S+) (%d+)$");
        if name == host then return manual.new({ { "tcp4", "127.0.0.1", tonumber(port), {} } }); end
    end
    return usual(host, ...);
end
"""


@dataclass(frozen=True)
class Messenger:
    """A server with the user `user`, whose password is the canary."""

    domain: str
    clients: int
    """Port for clients, ..."""
    servers: int
    """... and for other servers."""
    log: Speaker
    _routes: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.clients}"

    def route(self, ports: Mapping[str, int]) -> None:
        """Where other domains have their servers."""
        self._routes.write_text("".join(f"{domain} {port}\n" for domain, port in ports.items()))


@contextmanager
def prosody(
    directory: Path,
    domain: str = "localhost",
    *,
    certificate: Path | None = None,
    tls: bool = False,
) -> Iterator[Messenger]:
    """Without `tls` it has no TLS at all; with a certificate it demands it of everybody.

    It refuses to run as root, who becomes `prosody`.
    """
    program = programs.need("prosody", debian="prosody")
    root = directory / f"prosody-{domain}"
    accounts = root / "data" / domain.replace(".", "%2e") / "accounts"
    accounts.mkdir(parents=True)
    (accounts / "user.dat").write_text(f'return {{ ["password"] = "{CANARY}" }};\n')
    (root / "modules").mkdir()
    (root / "modules" / "mod_routes.lua").write_text(_ROUTES)
    (root / "routes").touch()
    ssl = ""
    if certificate:
        (root / "server.pem").write_bytes(certificate.read_bytes())
        ssl = f'ssl = {{ certificate = "{root}/server.pem"; key = "{root}/server.pem" }}'
    words = {
        "modules": ", ".join(['"routes"', *['"tls"'] * (tls or bool(certificate))]),
        "required": "true" if certificate else "false",
    }
    become: list[str] = []
    if not os.geteuid():
        owner = pwd.getpwnam("prosody")
        become = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
        for path in (root, *root.rglob("*")):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    for _ in range(ATTEMPTS):
        clients, servers = free_ports(2)
        (root / "prosody.cfg.lua").write_text(
            _PROSODY.format(root=root, domain=domain, clients=clients, servers=servers, ssl=ssl, **words)
        )
        (root / "prosody.cfg.lua").chmod(0o644)
        command = [*become, program, "--config", str(root / "prosody.cfg.lua"), "-F"]
        with speaking(command, "stdout") as (_, log):
            log.hear("Activated service 'c2s' on")
            log.hear("Activated service 's2s' on")
            if "2s' on no ports" in log.text:
                continue
            yield Messenger(domain, clients, servers, log, root / "routes")
            return
    pytest.fail("no free port for Prosody")


_EJABBERD = """
hosts:
  - {domain}
loglevel: debug
auth_method: internal
s2s_use_starttls: optional
listen:
  - port: {clients}
    ip: "127.0.0.1"
    module: ejabberd_c2s
    starttls: false
    use_proxy_protocol: {proxied}
  - port: {servers}
    ip: "127.0.0.1"
    module: ejabberd_s2s_in
modules:
  mod_ping: {{}}
"""
START = 90.0
"""Seconds until ejabberd listens: on a busy machine Erlang needs more than twenty."""
_REGISTER = 'io:format("~p~n", [ejabberd_auth:try_register(<<"user">>, <<"{domain}">>, <<"{password}">>)]).'


@contextmanager
def ejabberd(directory: Path, domain: str, *, proxied: bool = False) -> Iterator[Messenger]:
    """Without TLS; `proxied`: each connection of a client begins with a PROXY header."""
    programs.need("ejabberdctl", debian="ejabberd")
    erlang = programs.need("erl", debian="ejabberd")
    root = directory / "ejabberd"
    root.mkdir()
    environment = {
        "ERL_LIBS": next(Path("/usr/lib").glob("*/ejabberd-*")).parent,
        "EJABBERD_CONFIG_PATH": root / "ejabberd.yml",
        "EJABBERD_LOG_PATH": root / "log",
        "SPOOL_DIR": root / "spool",
        "HOME": root,
    }
    register = _REGISTER.format(domain=domain, password=CANARY)
    command = [
        *("env", *(f"{name}={value}" for name, value in environment.items())),
        *(erlang, "-noinput", "-mnesia", "dir", f'"{root}/spool"', "-s", "ejabberd", "-eval", register),
    ]
    for _ in range(ATTEMPTS):
        clients, servers = free_ports(2)
        (root / "ejabberd.yml").write_text(
            _EJABBERD.format(domain=domain, clients=clients, servers=servers, proxied=str(proxied).lower())
        )
        with speaking(command, "stdout") as (_, log):
            log.hear("Start accepting TCP connections at 127.0.0.1:.* for ejabberd_c2s|eaddrinuse", patience=START)
            log.hear("Start accepting TCP connections at 127.0.0.1:.* for ejabberd_s2s_in|eaddrinuse")
            if "eaddrinuse" in log.text:
                continue
            log.hear(r"^(ok|\{error,exists\})$")
            yield Messenger(domain, clients, servers, log, root / "routes")
            return
    pytest.fail("no free port for ejabberd")
