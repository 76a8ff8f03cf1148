"""IRC in front of real servers (ngIRCd, InspIRCd), with real clients (irssi, weechat, openssl)."""

from __future__ import annotations

import re
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.process import ircd, programs
from tests.process.conftest import directory_for_servers
from tests.process.ircd import WEBIRC, InspIRCd, NgIRCd
from tests.process.looking import at, checked, probed
from tests.process.recording import Backend, Connection
from tests.process.running import CANARY, Gateway, Identity, Service, running
from tests.process.wire import Caller, Client, source

GO_AHEAD = b":gw.example.test 670 * :STARTTLS successful, proceed with TLS handshake\r\n"
REGISTER = b"NICK %s\r\nUSER joe 0 * :Joe\r\n"
NOT_REGISTERED = b":gw.example.test 451 * :You have not registered\r\n"
PING = b"PING :gw.example.test\r\n"


def legacy(connection: Connection) -> None:
    """Refuses PING before the registration and says nothing else."""
    while line := connection.line():
        if line.startswith(b"PING"):
            connection.say(b":old.example.test 451 * :Connection not registered\r\n")


@dataclass(frozen=True)
class Place:
    gateway: Gateway
    ngircd: NgIRCd
    inspircd: InspIRCd
    scripted: Backend
    trusting: ssl.SSLContext
    authority: Path

    def secure(self, service: str, client: Client, mode: str = "starttls") -> None:
        if mode == "starttls":
            client.say(b"STARTTLS\r\n")
            assert client.line() == GO_AHEAD
        client.shake_hands(self.trusting)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, identity: Identity, trusting: ssl.SSLContext) -> Iterator[Place]:
    scripted = Backend(legacy)
    own = tmp_path_factory.mktemp("gateway")
    (own / "webirc").write_text(WEBIRC + "\n")
    with (
        directory_for_servers() as directory,
        ircd.ngircd(directory) as ngircd,
        ircd.ngircd(directory, CANARY) as closed,
        ircd.inspircd(directory, identity.certificate) as inspircd,
    ):
        plain = f"127.0.0.1:{inspircd.plain}"
        trusted = {"ca": str(identity.authority), "name": "mail.example.test"}
        webirc = {"identity": "webirc", "webirc_password_file": str(own / "webirc")}
        backends: Mapping[str, dict[str, str]] = {
            "ngircd": {"address": ngircd.address},
            "ngircd-webirc": {"address": ngircd.address, **webirc},
            "closed": {"address": closed.address},
            "inspircd": {"address": plain},
            "inspircd-webirc": {"address": plain, **webirc},
            "inspircd-starttls-webirc": {"address": plain, "tls": "starttls", **trusted, **webirc},
            "inspircd-implicit": {"address": f"127.0.0.1:{inspircd.implicit}", "tls": "implicit", **trusted},
            "inspircd-proxy-v2": {"address": f"127.0.0.1:{inspircd.proxied}", "identity": "proxy-v2"},
            "ngircd-starttls": {"address": ngircd.address, "tls": "starttls", **trusted},
        }
        services = [Service(f"at-{name}", name, "irc") for name in backends]
        services.append(Service("required", scripted.address, "irc"))
        services.append(Service("open", plain, "irc", options={"policy": "optional"}))
        options = {f"backend:{name}": values for name, values in backends.items()}
        options["timeouts"] = {"greeting": "1 s"}
        with running(own, identity, services, options) as gateway:
            yield Place(gateway, ngircd, inspircd, scripted, trusting, identity.authority)
    scripted.close()


NICKS = iter(range(100, 1000))
"""Nobody has one twice."""


def nick() -> bytes:
    return b"n%d" % next(NICKS)


# --- servers -----------------------------------------------------------------------------------------

TOLD = {
    "inspircd": False,
    "inspircd-webirc": True,
    "inspircd-starttls-webirc": True,
    "inspircd-implicit": False,
    "inspircd-proxy-v2": True,
}
"""Backend -> whether it learns the client's address.  InspIRCd 3 knows PROXY headers of version 2 only."""


@pytest.mark.parametrize(("backend", "told"), TOLD.items())
def test_a_session_and_whose_address_inspircd_sees(place: Place, backend: str, told: bool) -> None:
    client, name, mode = source(), nick(), "implicit" if "webirc" in backend else "starttls"
    with Caller(client, place.gateway.address(f"at-{backend}", mode)) as caller:
        place.secure(f"at-{backend}", caller, mode)
        caller.say(REGISTER % name)
        caller.hear(rb"(?s)^.* 001 [^\n]*\n")
        caller.say(b"WHOIS %s\r\n" % name)
        heard = caller.hear(rb"(?s)^.* 318 [^\n]*\n")
        seen = client if told else "127.0.0.1"
        assert re.search(rb":is connecting from \S+ %s\r\n" % re.escape(seen.encode()), heard), heard
        # What WEBIRC says counts where InspIRCd's own connection is inside TLS; a PROXY header always counts.
        secure = ("inspircd-starttls-webirc", "inspircd-implicit", "inspircd-proxy-v2")
        assert (b"is using a secure connection" in heard) is (backend in secure)
        caller.say(b"QUIT\r\n")
        assert b"ERROR :" in caller.rest()
    ended = place.gateway.log.wait("session", client=client)
    assert (ended["tls"], ended["phase"], ended["proven"]) == ("TLSv1.3", "relaying", "yes")


def test_whose_address_ngircd_sees(place: Place) -> None:
    """It is silent for two seconds after each command that it refuses, the gateway's PING among them."""
    client, name = source(), nick()
    with Caller(client, place.gateway.address("at-ngircd-webirc", "implicit")) as caller:
        caller.shake_hands(place.trusting)
        caller.say(REGISTER % name)
        assert place.ngircd.log.hear(rf'User "{name.decode()}!\S+@(\S+)" registered')[1] == client


def test_a_wrong_password_of_the_server(place: Place) -> None:
    since = place.gateway.log.mark()
    with Client(place.gateway.address("at-closed", "implicit")) as client:
        client.shake_hands(place.trusting)
        client.say(b"PASS wrong\r\n" + REGISTER % nick())
        assert b"Bad password" in client.rest()
    assert place.gateway.log.wait("auth", since, result="failed")["mechanism"] == "PASS"


def test_a_server_without_starttls_is_not_used(place: Place) -> None:
    """ngIRCd does not answer STARTTLS at all."""
    with Client(place.gateway.address("at-ngircd-starttls", "implicit")) as client:
        client.shake_hands(place.trusting)
        client.say(b"NICK joe\r\n")
        assert client.rest() == b"ERROR :Closing Link: gw.example.test (Service temporarily unavailable)\r\n"
    place.gateway.log.wait("backend-greeting-timeout")


def test_in_the_clear_where_that_is_allowed(place: Place) -> None:
    with Client(place.gateway.address("open")) as client:
        client.say(b"CAP LS 302\r\n")
        assert client.line().endswith(b" tls\r\n")
        client.say(b"CAP END\r\n" + REGISTER % nick())
        client.hear(rb"(?s)^.* 001 [^\n]*\n")
    with Client(place.gateway.address("open")) as client:
        client.say(b"CAP LS 302\r\nNICK evil\r\n")
        client.line()
        place.secure("open", client)
        client.say(REGISTER % nick())
        assert b"evil" not in client.hear(rb"(?s)^.* 001 [^\n]*\n")


def test_check_looks_at_the_servers(place: Place, tmp_path: Path, identity: Identity) -> None:
    for password, told in ((WEBIRC, "webirc: accepted"), ("Irrtum", "backend-identity-refused")):
        (tmp_path / "password").write_text(password)
        backend = f"address = 127.0.0.1:{place.inspircd.plain}\nidentity = webirc\nwebirc_password_file = password"
        done = checked(tmp_path, identity, "irc", backend, mode="implicit")
        assert told in done.stdout, done.stdout + done.stderr
        assert ("account-notify" in done.stdout) == (password == WEBIRC)
        assert "Irrtum" not in done.stdout + done.stderr


def test_probe_tells_the_gateway_from_servers(place: Place) -> None:
    """InspIRCd runs a command that stands behind STARTTLS in the clear."""
    found = probed("irc", at(place.gateway, "at-inspircd"), place.authority, "--timeout", "2")
    assert found["names"] == set(), found
    assert found["starttls"]["runs_injected_commands"] is False
    found = probed("irc", f"localhost:{place.inspircd.plain}", place.authority, "--timeout", "2")
    assert found["names"] >= {"command-injection"}, found


# --- clients -----------------------------------------------------------------------------------------


def test_openssl(place: Place) -> None:
    path = programs.need("openssl", debian="openssl")
    _, port = place.gateway.address("at-inspircd")
    name = nick()
    with subprocess.Popen(
        [path, "s_client", "-quiet", "-starttls", "irc", "-verify_return_error", "-CAfile", str(place.authority),
         "-connect", f"localhost:{port}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(REGISTER % name)
        process.stdin.flush()
        heard = b""
        while b" 376 " not in heard and b" 422 " not in heard and (line := process.stdout.readline()):
            heard += line
        process.stdin.write(b"QUIT\r\n")
        process.stdin.flush()
        heard += process.stdout.read()
    assert b" 001 " + name in heard, heard


_IRSSI = """
servers = ( {{ address = "localhost"; chatnet = "test"; port = "{port}"; autoconnect = "yes"; tls_cafile = "{ca}";
  tls_verify = "yes"; {tls} }} );
chatnets = {{ test = {{ type = "IRC"; autosendcmd = "/quit bye"; }}; }};
settings = {{ core = {{ user_name = "{nick}"; nick = "{nick}"; resolve_prefer_ipv6 = "no"; }}; }};
"""


@pytest.mark.parametrize(
    ("service", "mode", "tls"),
    [
        ("at-ngircd", "starttls", ""),
        ("at-inspircd", "implicit", 'use_tls = "yes";'),
        ("at-inspircd-webirc", "starttls", 'starttls = "yes";'),
        ("at-inspircd-implicit", "implicit", 'use_tls = "yes";'),
    ],
)
def test_irssi(place: Place, tmp_path: Path, service: str, mode: str, tls: str) -> None:
    """It upgrades by itself, without being told, since the gateway's CAP LS lists `tls`."""
    irssi = programs.need("irssi", debian="irssi")
    _, port = place.gateway.address(service, mode)
    name = nick().decode()
    (tmp_path / "config").write_text(_IRSSI.format(port=port, ca=place.authority, tls=tls, nick=name))
    since = place.gateway.log.mark()
    with programs.in_terminal(tmp_path, irssi, f"--home={tmp_path}"):
        ended = place.gateway.log.wait("session", since, service=service)
    assert (ended["tls"], ended["phase"], ended["proven"]) == ("TLSv1.3", "relaying", "yes")


def test_weechat(place: Place, tmp_path: Path) -> None:
    """Implicit TLS only."""
    weechat = programs.need("weechat-headless", debian="weechat-headless")
    _, port = place.gateway.address("at-inspircd", "implicit")
    name = nick().decode()
    since = place.gateway.log.mark()
    commands = [
        f"/set weechat.network.gnutls_ca_user {place.authority}",
        f"/server add test localhost/{port} -ssl -nicks={name} -command=/quit",
        "/connect test",
    ]
    with subprocess.Popen(
        [weechat, "--dir", str(tmp_path), *(word for command in commands for word in ("-r", command))],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            ended = place.gateway.log.wait("session", since, service="at-inspircd")
        finally:
            process.terminate()
    assert (ended["tls"], ended["phase"], ended["proven"]) == ("TLSv1.3", "relaying", "yes")


def test_weechat_without_tls_is_told(place: Place) -> None:
    """Its first words, in one segment."""
    with Client(place.gateway.address("at-ngircd")) as client:
        client.say(b"CAP LS 302\r\nNICK joe\r\nUSER joe 0 * :joe\r\n")
        told = b"ERROR :Closing Link: gw.example.test (TLS required: use STARTTLS, or a port with TLS)\r\n"
        assert client.rest() == b":gw.example.test CAP * LS :tls\r\n" + told


# --- exact octets ------------------------------------------------------------------------------------


def test_irssis_opening_in_one_segment(place: Place) -> None:
    with Client(place.gateway.address("at-inspircd")) as client:
        client.say(b"CAP LS 302\r\nJOIN :\r\nSTARTTLS\r\n")
        assert client.line() + client.line() == b":gw.example.test CAP * LS :tls\r\n" + NOT_REGISTERED
        assert client.line() == GO_AHEAD
        client.shake_hands(place.trusting)
        client.say(b"CAP LS 302\r\n")
        assert b" CAP * LS :" in client.line()


def test_what_a_backend_hears(place: Place) -> None:
    """Nothing before TLS, whatever is said, and no WEBIRC of a client's behind it."""
    place.scripted.play(legacy)
    forged = b"WEBIRC x y z 192.0.2.1\r\n:a  webirc x y z 192.0.2.1\r\n@t WebIRC x\r\nSERVER a 1 :b\r\n"
    with Client(place.gateway.address("required")) as client:
        client.say(b"CAP LS\r\nPING x\r\n" + forged)
        place_told = client.hear(rb"(?s)^.*(?: 421 [^\n]*\n){1}(?:[^\n]* 421 [^\n]*\n){3}")
        assert place_told.count(b" 421 ") == 4
        place.secure("required", client)
        client.say(forged + b"NICK a\rWEBIRC x\r\nNICK joe\r\nSTARTTLS\r\n")
        client.hear(rb"(?s)^.* 691 [^\n]*\n")
    connection = place.scripted.connection()
    connection.wait_until_ended()
    assert connection.heard == PING + b"NICK joe\r\n"
