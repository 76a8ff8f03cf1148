"""HTTP Upgrade to TLS in front of real servers (cupsd, Apache), with real clients (libcups, curl)."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.process import programs, webservers
from tests.process.conftest import directory_for_servers
from tests.process.looking import checked, probed
from tests.process.recording import Backend, silent
from tests.process.running import DEADLINE, Gateway, Identity, Service, running
from tests.process.webservers import PAGE
from tests.process.wire import Client

WISH = b"OPTIONS * HTTP/1.1\r\nConnection: Upgrade\r\nHost: localhost\r\nUpgrade: TLS/1.2,TLS/1.0\r\n\r\n"
GO_AHEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: TLS/1.0, HTTP/1.1\r\nConnection: Upgrade\r\n\r\n"
REQUIRED = (
    b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.0, HTTP/1.1\r\nConnection: Upgrade, close\r\n"
    b"Content-Length: 0\r\n\r\n"
)
BAD = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
GET = b"GET /index.html HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass(frozen=True)
class Place:
    gateway: Gateway
    scripted: Backend
    trusting: ssl.SSLContext
    authority: Path
    seen: Path
    """First lines of requests that Apache got."""
    cupsd: str
    apache: str
    home: Path
    """Of users that print."""

    def port(self, service: str, mode: str = "starttls") -> int:
        return self.gateway.address(service, mode)[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, identity: Identity, trusting: ssl.SSLContext) -> Iterator[Place]:
    scripted = Backend(silent)
    with (
        directory_for_servers() as directory,
        webservers.cupsd(directory) as cupsd,
        webservers.apache(directory) as (apache, seen),
    ):
        services = [
            Service("ipp", cupsd),
            Service("ipp-starttls", "cupsd-starttls", "ipp"),
            Service("ipp-implicit", "cupsd-implicit", "ipp"),
            Service("http", apache),
            Service("open", apache, "http", options={"policy": "optional"}),
            Service("wants-tls", "apache-starttls", "http"),
        ]
        services += [
            Service(f"scripted-{policy}", scripted.address, "http", options={"policy": policy})
            for policy in ("required", "auth-only", "optional")
        ]
        options = {
            "backend:cupsd-starttls": {"address": cupsd, "tls": "starttls", "verify": "no"},
            "backend:cupsd-implicit": {"address": cupsd, "tls": "implicit", "verify": "no"},
            "backend:apache-starttls": {"address": apache, "tls": "starttls", "verify": "no"},
        }
        home = tmp_path_factory.mktemp("home")
        (home / "client.conf").write_text("AllowAnyRoot Yes\nValidateCerts No\n")
        with running(tmp_path_factory.mktemp("gateway"), identity, services, options) as gateway:
            yield Place(gateway, scripted, trusting, identity.authority, seen, cupsd, apache, home)
    scripted.close()


# --- libcups -----------------------------------------------------------------------------------------


def prints(place: Place, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = programs.need(program, debian="cups-client cups-ipp-utils")
    environment = {"PATH": os.environ["PATH"], "HOME": str(place.home), "CUPS_SERVERROOT": str(place.home)}
    return subprocess.run(
        [path, *arguments], env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False
    )


@pytest.mark.parametrize("service", ["ipp", "ipp-starttls", "ipp-implicit"])
@pytest.mark.parametrize("flags", [("-E",), ()], ids=["told to encrypt", "told nothing"])
def test_lpstat(place: Place, service: str, flags: tuple[str, ...]) -> None:
    """Without -E libcups asks in the clear, is told to ask for TLS, and comes again."""
    since = place.gateway.log.mark()
    done = prints(place, "lpstat", *flags, "-h", f"localhost:{place.port(service)}", "-r", "-v")
    assert "scheduler is running" in done.stdout, done.stdout + done.stderr
    place.gateway.log.wait("session", since, service=service, tls="TLSv1.3", phase="relaying", proven="yes")
    told = [one for one in place.gateway.log.events("session", since) if one["reason"] == "tls-required"]
    assert bool(told) is not bool(flags)


_TEST = """
{
    NAME "The printers"
    OPERATION CUPS-Get-Printers
    GROUP operation-attributes-tag
    ATTR charset attributes-charset utf-8
    ATTR naturalLanguage attributes-natural-language en
    STATUS successful-ok
    STATUS client-error-not-found
}
"""


@pytest.mark.parametrize(("scheme", "mode", "flags"), [("ipp", "starttls", ["-E"]), ("ipps", "implicit", []),
                                                      ("ipp", "starttls", [])])  # fmt: skip
def test_ipptool(place: Place, tmp_path: Path, scheme: str, mode: str, flags: list[str]) -> None:
    (tmp_path / "printers.test").write_text(_TEST)
    uri = f"{scheme}://localhost:{place.port('ipp', mode)}/"
    since = place.gateway.log.mark()
    done = prints(place, "ipptool", "-tv", *flags, uri, str(tmp_path / "printers.test"))
    assert "[PASS]" in done.stdout, done.stdout + done.stderr
    place.gateway.log.wait("session", since, service="ipp", tls="TLSv1.3", proven="yes")


# --- curl, and a server that knows no Upgrade --------------------------------------------------------


def curl(place: Place, *arguments: str) -> str:
    path = programs.need("curl", debian="curl")
    done = subprocess.run(
        [path, "-sS", "--cacert", str(place.authority), *arguments],
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_curl_over_tls(place: Place) -> None:
    assert curl(place, f"https://localhost:{place.port('http', 'implicit')}/index.html") == PAGE.decode()


@pytest.mark.parametrize("more", [(), ("--http2",), ("-d", "x=1"), ("-I",)])
def test_curl_in_the_clear_is_told_to_ask_for_tls(place: Place, more: tuple[str, ...]) -> None:
    told = curl(place, "-i", *more, f"http://localhost:{place.port('http')}/index.html")
    assert told.replace("\r\n", "\n") == REQUIRED.decode().replace("\r\n", "\n")


def test_curl_in_the_clear_where_that_is_allowed(place: Place) -> None:
    assert curl(place, f"http://localhost:{place.port('open')}/index.html") == PAGE.decode()


def test_a_server_that_knows_no_upgrade_is_not_used(place: Place) -> None:
    since = place.gateway.log.mark()
    told = curl(place, "-i", f"https://localhost:{place.port('wants-tls', 'implicit')}/index.html")
    assert told.startswith("HTTP/1.1 503 ")
    place.gateway.log.wait("backend-tls-failed", since)


def test_check_looks_at_the_servers(place: Place, tmp_path: Path, identity: Identity) -> None:
    done = checked(tmp_path, identity, "ipp", f"address = {place.cupsd}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"capabilities +HTTP/1\.1 200 OK\n +CUPS/2", done.stdout), done.stdout


# --- exact octets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("behind", [GET, b"GE", b"\r\n", b"\x17\x03"])
@pytest.mark.parametrize("policy", ["required", "auth-only", "optional"])
def test_octets_behind_the_request_for_tls_end_the_session(place: Place, behind: bytes, policy: str) -> None:
    """Apache would answer them as a second request.  Nobody is dialled."""
    since = place.gateway.log.mark()
    with Client(place.gateway.address(f"scripted-{policy}")) as client:
        client.say(WISH + behind)
        assert client.rest() == GO_AHEAD
    ended = place.gateway.log.wait("session", since, service=f"scripted-{policy}")
    assert (ended["reason"], "backend_address" in ended) == ("starttls-injection", False)


@pytest.mark.parametrize("body", [b"", b"abc", b"\x16\x03\x01", GET])
def test_a_request_with_a_body_is_not_upgraded(place: Place, body: bytes) -> None:
    asks = b"POST / HTTP/1.1\r\nHost: a\r\nUpgrade: TLS/1.0\r\nConnection: Upgrade\r\nContent-Length: 3\r\n\r\n"
    with Client(place.gateway.address("scripted-required")) as client:
        client.say(asks + body)
        assert client.rest() == REQUIRED


@pytest.mark.parametrize("more", [
    b"Content-Length: 30\r\nTransfer-Encoding: chunked", b"Content-Length: 5\r\nContent-Length: 30",
    b"Transfer-Encoding : chunked", b"X: a\r\n Transfer-Encoding: chunked", b"X: a\nTransfer-Encoding: chunked",
])  # fmt: skip
@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_smuggled_requests_reach_nobody(place: Place, more: bytes, mode: str) -> None:
    with Client(place.gateway.address("open", mode)) as client:
        if mode == "implicit":
            client.shake_hands(place.trusting)
        client.say(
            b"POST /front HTTP/1.1\r\nHost: localhost\r\n" + more + b"\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"
        )
        assert client.rest() == BAD
    # What came later is there: nothing of the others can still be on its way.
    assert curl(place, f"https://localhost:{place.port('http', 'implicit')}/index.html") == PAGE.decode()
    lines = place.seen.read_text()
    assert "GET /index.html" in lines
    assert "smuggled" not in lines
    assert "/front" not in lines


def test_the_answer_to_the_request_comes_inside_tls(place: Place) -> None:
    """Exactly once, and what the backend hears asks for no TLS."""
    with Client(place.gateway.address("http")) as client:
        client.say(WISH)
        assert client.hear(rb"^HTTP/1\.1 101 .*\r\n\r\n") == GO_AHEAD
        client.shake_hands(place.trusting)
        assert client.hear(rb"^HTTP/1\.1 200 OK\r\n.*Content-Length: 0\r\n\r\n").count(b"HTTP/1.1") == 1
        client.say(GET)
        assert client.hear(rb"\n" + PAGE[:-1]).startswith(b"HTTP/1.1 200 OK\r\n")
    with Client(place.gateway.address("scripted-required")) as client:
        client.say(WISH)
        client.hear(rb"^HTTP/1\.1 101 .*\r\n\r\n")
        client.shake_hands(place.trusting)
        connection = place.scripted.connection()
        connection.wait_for(b"\r\n\r\n")
        assert connection.heard == b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n"


# --- a look from outside -----------------------------------------------------------------------------


def test_probe_tells_the_gateway_from_servers(place: Place) -> None:
    """cupsd 2.4 answers a request that stands behind the wish for TLS in the clear."""
    for service, protocol in (("ipp", "ipp"), ("http", "http"), ("open", "http")):
        found = probed(protocol, f"localhost:{place.port(service)}", place.authority)
        assert found["names"] == set(), (service, found)
        assert found["starttls"]["runs_injected_commands"] is False
        assert found["starttls"]["answer"] == "HTTP/1.1 101 Switching Protocols"
    found = probed("http", place.apache, place.authority)
    assert found["names"] == {"no-starttls"}, found
    found = probed("ipp", place.cupsd, place.authority)
    assert found["names"] >= {"certificate-untrusted", "command-injection"}, found
