"""Clients are served by another program, and by the gateway with the configuration that it made of that program's."""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.process import programs
from tests.process.conftest import directory_for_servers
from tests.process.recording import Backend
from tests.process.running import ROOT, Identity, Systemd, speaking
from tests.process.wire import Client, source, visit

# The ports are fixed, the addresses are not: each is used once.
IMPLICIT, STARTTLS = 10993, 10143
STUNNEL = """
foreground = yes
pid =
cert = {certificate}
[imaps]
accept = {address}:10993
connect = {imap}
[starttls]
accept = {address}:10143
connect = {imap}
protocol = imap
"""
HAPROXY = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
listen imaps
    bind {address}:10993 ssl crt {certificate}
    server store {imap}
"""
NGINX = """
daemon off;
master_process off;
pid {directory}/pid;
load_module /usr/lib/nginx/modules/ngx_mail_module.so;
error_log stderr notice;
events {{ worker_connections 100; }}
mail {{
    server_name gw.example.test;
    auth_http {permission}/;
    ssl_certificate {certificate};
    ssl_certificate_key {certificate};
    server {{ listen {address}:10993 ssl; protocol imap; }}
    server {{ listen {address}:10143; protocol imap; starttls only; }}
}}
"""
PROGRAMS = {
    "stunnel": (STUNNEL, ("stunnel4",), "Configuration successful", "stunnel4"),
    "haproxy": (HAPROXY, ("haproxy", "-Ws", "-f"), "", "haproxy"),
    "nginx": (NGINX, ("nginx", "-e", "stderr", "-c"), "using the .* event method", "nginx-light libnginx-mod-mail"),
}
"""Program -> its file, its command line, what it says when it serves (HAProxy tells systemd), its packages."""


@contextmanager
def permission(backend: Backend) -> Iterator[str]:
    """The HTTP service that nginx asks for each login."""
    host, _, port = backend.address.rpartition(":")

    class Yes(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            for name, value in (("Auth-Status", "OK"), ("Auth-Server", host), ("Auth-Port", port)):
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Yes) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def be_served(address: str, trusting: ssl.SSLContext, starttls: bool) -> None:
    """Log in with implicit TLS, and where it is offered with STARTTLS."""
    with Client((address, IMPLICIT)) as client:
        client.shake_hands(trusting)
        visit(client, "imap")
    if starttls:
        with Client((address, STARTTLS)) as client:
            client.hear(rb"^\* OK [^\n]*\n")
            client.say(b"t STARTTLS\r\n")
            client.hear(rb"^t OK [^\n]*\n")
            client.shake_hands(trusting)
            client.say(b"u LOGOUT\r\n")
            client.hear(rb"^u OK [^\n]*\n")


@pytest.mark.parametrize("program", PROGRAMS)
def test_both_serve_the_same_clients(
    program: str, backend: Backend, identity: Identity, trusting: ssl.SSLContext
) -> None:
    text, command, ready, packages = PROGRAMS[program]
    path = programs.need(command[0], debian=packages)
    theirs, ours = source(), source()
    with directory_for_servers() as directory, permission(backend) as permitted:
        file = directory / f"{program}.conf"
        values = {"address": theirs, "imap": backend.address, "certificate": identity.certificate}
        file.write_text(text.format(**values, permission=permitted, directory=directory))
        starttls = str(STARTTLS) in text
        systemd = Systemd(directory / "notify")
        words = ["env", f"NOTIFY_SOCKET={systemd.path}", path, *command[1:], str(file)]
        with closing(systemd.socket), speaking(words, "stderr") as (_, speaker):
            speaker.hear(ready) if ready else systemd.hear("READY")
            be_served(theirs, trusting, starttls)
        words = ["import", str(file), *(("--backend", "127.0.0.1") if program == "nginx" else ())]
        made = subprocess.run(
            [sys.executable, "-m", "gateway.cli", *words], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert not made.stderr
        # nginx does not tell the port of the server, which is 143 otherwise.
        configuration = made.stdout.replace(theirs, ours).replace("127.0.0.1:143\n", f"{backend.address}\n")
        if "\n[gateway]\n" not in configuration:
            configuration += "\n[gateway]\nhostname = gw.example.test\n"
        (directory / "gw.ini").write_text(configuration.replace("\n[gateway]\n", "\n[gateway]\ncontrol = off\n"))
        run = [sys.executable, "-m", "gateway.cli", "run", str(directory / "gw.ini")]
        with speaking(run, "stdout") as (_, speaker):
            speaker.hear("event=listening .*10993")
            be_served(ours, trusting, starttls)
