"""ejabberd behind the gateway, and profanity in front of it."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.process import messengers, programs
from tests.process.conftest import directory_for_servers
from tests.process.messengers import Messenger
from tests.process.running import CANARY, Gateway, Identity, Service, running
from tests.process.test_xmpp import DOMAIN, ping, slixmpp
from tests.process.wire import Caller, source


class Place(NamedTuple):
    gateway: Gateway
    server: Messenger
    proxied: bool


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "proxied"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, identity: Identity
) -> Iterator[Place]:
    proxied = request.param
    with directory_for_servers() as there, messengers.ejabberd(there, DOMAIN, proxied=proxied) as server:
        told = {"identity": "proxy-v2"} if proxied else {}
        options = {"backend:ejabberd": {"address": server.address, **told}}
        directory = tmp_path_factory.mktemp("gateway")
        with running(directory, identity, [Service("xmpp", "ejabberd")], options) as gateway:
            yield Place(gateway, server, proxied)


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_slixmpp_logs_in_at_ejabberd(place: Place, identity: Identity, mode: str) -> None:
    gateway = place.gateway
    since = gateway.log.mark()
    assert slixmpp(gateway, identity, "xmpp", mode) == "pong"
    gateway.log.wait("auth", since, result="ok")
    gateway.log.wait("session", since, tls="TLSv1.3", phase="relaying", proven="yes")


def test_ejabberd_is_told_who_the_client_is(place: Place) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    whence, since = source(), place.server.log.mark()
    with (
        Caller(whence, place.gateway.address("xmpp", "implicit")) as client,
        context.wrap_socket(client.socket, server_hostname=DOMAIN) as secured,
    ):
        ping(secured, DOMAIN, DOMAIN)
    seen = whence if place.proxied else "127.0.0.1"
    place.server.log.hear(rf"Accepted c2s PLAIN authentication for user@{DOMAIN} .* from {seen}", since)


_ACCOUNT = """
[user]
enabled=true
jid=user@{domain}
server=127.0.0.1
port={port}
password={password}
tls.policy={tls}
"""
_PROFANITY = """
[connection]
autoconnect=true
account=user
tls.certpath={authorities}
"""


@pytest.mark.parametrize(("mode", "tls"), [("starttls", "force"), ("implicit", "legacy")])
def test_profanity_logs_in(place: Place, identity: Identity, tmp_path: Path, mode: str, tls: str) -> None:
    gateway = place.gateway
    profanity = programs.need("profanity", debian="profanity")
    authorities = tmp_path / "authorities"
    authorities.mkdir()
    (authorities / "one.pem").write_bytes(identity.authority.read_bytes())
    subprocess.run(["openssl", "rehash", authorities], check=True)
    for kind, file, text in (
        ("config", "profrc", _PROFANITY.format(authorities=authorities)),
        ("data", "accounts", _ACCOUNT.format(domain=DOMAIN, port=gateway.address("xmpp", mode)[1],
                                             password=CANARY, tls=tls)),
    ):  # fmt: skip
        (tmp_path / kind / "profanity").mkdir(parents=True)
        (tmp_path / kind / "profanity" / file).write_text(text)
    since = gateway.log.mark()
    homes = {f"XDG_{kind.upper()}_HOME": str(tmp_path / kind) for kind in ("config", "data")}
    with programs.in_terminal(tmp_path, profanity, "-a", "user", **homes) as type_line:
        gateway.log.wait("auth", since, result="ok")
        type_line("/quit")
        ended = gateway.log.wait("session", since)
    assert (ended["tls"], ended["phase"], ended["proven"]) == ("TLSv1.3", "relaying", "yes")
