"""NNTP in front of a real nnrpd, with real clients."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.process import programs, servers
from tests.process.conftest import directory_for_servers
from tests.process.recording import Backend, Connection
from tests.process.running import CANARY, DEADLINE, Gateway, Identity, Service, running
from tests.process.servers import ARTICLE, SECURITY
from tests.process.wire import Client

USER = "grete"
LOGIN = b"AUTHINFO USER %s\r\nAUTHINFO PASS %s\r\n" % (USER.encode(), CANARY.encode())
GO_AHEAD = b"382 Continue with TLS negotiation\r\n"
MUST_STARTTLS = b"483 Encryption required, use STARTTLS\r\n"
READY = rb"^200 [^\n]*\n"
LISTED = rb"^\.\r\n"
POLICIES = ("required", "auth-only", "optional")


@dataclass(frozen=True)
class Place:
    gateway: Gateway
    scripted: Backend
    trusting: ssl.SSLContext
    authority: Path

    def secure(self, service: str, mode: str = "starttls") -> Client:
        """A client inside TLS, behind the greeting."""
        client = Client(self.gateway.address(service, mode))
        if mode == "implicit":
            client.shake_hands(self.trusting)
        client.hear(READY)
        if mode == "starttls":
            client.say(b"STARTTLS\r\n")
            assert client.line() == GO_AHEAD
            client.shake_hands(self.trusting)
        return client


def legacy(connection: Connection) -> None:
    """Greets, and answers a command with what a feed wants to hear."""
    connection.say(b"201 old news\r\n")
    while line := connection.line():
        if line.startswith(b"TAKETHIS"):
            connection.until(b"\r\n.\r\n")
        connection.say(
            {b"IHAVE": b"335 send\r\n", b"MODE": b"203 ok\r\n", b"TAKETHIS": b"239 ok\r\n"}.get(
                line.split(b" ")[0], b"500 What?\r\n"
            )
        )
        if line.startswith(b"IHAVE"):
            connection.until(b"\r\n.\r\n")
            connection.say(b"235 ok\r\n")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, identity: Identity, trusting: ssl.SSLContext) -> Iterator[Place]:
    scripted = Backend(legacy)
    with ExitStack() as stack:
        old, new = (
            stack.enter_context(servers.inn(stack.enter_context(directory_for_servers()), certificate))
            for certificate in (None, identity.certificate)
        )
        tls = {"ca": str(identity.authority), "name": "mail.example.test"}
        options = {way: {"address": new.address(way), "tls": way, **tls} for way in SECURITY[1:]}
        # It offers STARTTLS, and has no certificate.
        options["unable"] = {**options["starttls"], "address": old.address()}
        services = [
            *(Service(f"old-{policy}", old.address(), "nntp", options={"policy": policy}) for policy in POLICIES),
            *(
                Service(f"scripted-{policy}", scripted.address, "nntp", options={"policy": policy})
                for policy in POLICIES
            ),
            *(Service(name, name, "nntp") for name in options),
        ]
        sections = {f"backend:{name}": values for name, values in options.items()}
        gateway = stack.enter_context(running(tmp_path_factory.mktemp("gateway"), identity, services, options=sections))
        yield Place(gateway, scripted, trusting, identity.authority)
    scripted.close()


# --- nnrpd -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
@pytest.mark.parametrize("service", ["old-required", "starttls", "implicit"])
def test_a_login_and_what_it_opens(place: Place, service: str, mode: str) -> None:
    since = place.gateway.log.mark()
    with place.secure(service, mode) as client:
        client.say(b"CAPABILITIES\r\n")
        listed = client.hear(LISTED)
        assert b"AUTHINFO USER SASL\r\n" in listed
        assert b"STARTTLS" not in listed
        client.say(LOGIN)
        assert client.line().startswith(b"381 ")
        assert client.line().startswith(b"281 ")
        client.say(b"GROUP local.secret\r\nQUIT\r\n")
        assert client.rest() == b"211 0 1 0 local.secret\r\n205 Bye!\r\n"
    assert place.gateway.log.wait("auth", since)["result"] == "ok"
    place.gateway.log.wait("session", since, service=service, tls="TLSv1.3")


def test_reading_without_a_login(place: Place) -> None:
    with place.secure("old-required") as client:
        client.say(b"MODE READER\r\nGROUP local.public\r\nARTICLE 1\r\nQUIT\r\n")
        heard = client.rest()
        assert heard.endswith(ARTICLE + b"205 Bye!\r\n")


def test_a_newsgroup_that_was_chosen_in_the_clear_counts_no_more(place: Place) -> None:
    with Client(place.gateway.address("old-auth-only")) as client:
        client.hear(READY)
        client.say(b"MODE READER\r\nGROUP local.public\r\n")
        client.hear(READY)
        assert client.line().startswith(b"211 1 1 1 ")
        client.say(b"STARTTLS\r\n")
        assert client.line() == GO_AHEAD
        client.shake_hands(place.trusting)
        client.say(b"STAT\r\nGROUP local.public\r\nSTAT 1\r\nQUIT\r\n")
        assert [line[:3] for line in client.rest().splitlines()] == [b"412", b"211", b"223", b"205"]


def test_before_tls_there_is_no_login_and_no_reading(place: Place) -> None:
    with Client(place.gateway.address("old-required")) as client:
        client.hear(READY)
        client.say(b"CAPABILITIES\r\n")
        listed = client.hear(LISTED)
        assert b"\r\nAUTHINFO\r\n" in listed
        assert b"SASL" not in listed
        assert b"COMPRESS" not in listed
        assert listed.endswith(b"\r\nSTARTTLS\r\n.\r\n")
        client.say(b"TAKETHIS <2@example.org>\r\n" + ARTICLE + b"COMPRESS DEFLATE\r\nLIST\r\n\r\n" + LOGIN)
        for _ in range(5):
            assert client.line() == MUST_STARTTLS
        client.say(b"DATE\r\n")
        assert client.line().startswith(b"111 ")


def test_reading_in_the_clear_where_the_policy_allows_it(place: Place) -> None:
    with Client(place.gateway.address("old-auth-only")) as client:
        client.hear(READY)
        client.say(b"GROUP local.public\r\nARTICLE 1\r\nLIST OVERVIEW.FMT\r\n" + LOGIN)
        client.line()
        assert client.hear(LISTED).endswith(ARTICLE)
        assert client.hear(LISTED).startswith(b"215 ")
        assert client.line() + client.line() == MUST_STARTTLS * 2
        client.say(b"STARTTLS\r\n")
        assert client.line() == GO_AHEAD
        client.shake_hands(place.trusting)
        client.say(LOGIN)
        assert client.line().startswith(b"381 ")
        assert client.line().startswith(b"281 ")


@pytest.mark.parametrize("service", ["old-required", "old-auth-only"])
def test_an_article_that_nnrpd_would_take_for_commands(place: Place, service: str) -> None:
    """It knows no TAKETHIS: the login in the article would be heard, in the clear and uncounted."""
    since = place.gateway.log.mark()
    with place.secure(service) if service == "old-required" else Client(place.gateway.address(service)) as client:
        if service == "old-auth-only":
            client.hear(READY)
        client.say(b"TAKETHIS <2@example.org>\r\n" + LOGIN * 3 + b".\r\nDATE\r\nQUIT\r\n")
        assert [line[:4] for line in client.rest().splitlines()] == [b"501 ", b"111 ", b"205 "]
    place.gateway.log.wait("session", since, service=service, reason="quit")


def test_compression_inside_tls(place: Place) -> None:
    with place.secure("old-required") as client:
        client.say(b"COMPRESS DEFLATE\r\n")
        assert client.line().startswith(b"206 ")
        deflate = zlib.compressobj(wbits=-15)
        client.say(deflate.compress(b"DATE\r\nQUIT\r\n") + deflate.flush(zlib.Z_SYNC_FLUSH))
        told = zlib.decompressobj(wbits=-15).decompress(client.rest())
        assert told.startswith(b"111 ")
        assert told.endswith(b"205 Bye!\r\n")


def test_a_wrong_password(place: Place) -> None:
    with place.secure("old-required") as client:
        client.say(b"AUTHINFO USER grete\r\nAUTHINFO PASS wrong\r\n" + LOGIN)
        assert [client.line()[:3] for _ in range(4)] == [b"381", b"481", b"381", b"281"]


def test_passwords_guessed_behind_reading_are_counted(place: Place) -> None:
    """nnrpd would go on for ever; five failed logins end a session here."""
    since = place.gateway.log.mark()
    with place.secure("old-required") as client:
        client.say(b"GROUP local.public\r\nARTICLE 1\r\n" + b"AUTHINFO USER grete\r\nAUTHINFO PASS wrong\r\n" * 6)
        heard = client.rest()
        assert heard.count(b"\r\n481 ") == 5
        assert heard.endswith(b"400 Too many failed logins\r\n")
    place.gateway.log.wait("session", since, reason="too-many-failed-logins")


def test_a_backend_that_offers_starttls_and_cannot_do_it_is_not_used(place: Place) -> None:
    since = place.gateway.log.mark()
    with Client(place.gateway.address("unable", "implicit")) as client:
        client.shake_hands(place.trusting)
        assert client.rest() == b"400 Service temporarily unavailable\r\n"
    assert "580" in place.gateway.log.wait("backend-tls-failed", since)["detail"]


# --- clients -----------------------------------------------------------------------------------------


NNTPLIB = """
import nntplib, ssl, sys
port, user, password, authority, mode = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
if mode == "implicit":
    client = nntplib.NNTP_SSL("localhost", int(port), ssl_context=context)
else:
    client = nntplib.NNTP("localhost", int(port))
    try:
        client.login(user, password)
    except nntplib.NNTPTemporaryError as refusal:
        print(refusal)
    client.starttls(context)
client.login(user, password)
print(client.group("local.secret"))
client.group("local.public")
print(client.article("1")[1].lines[-1])
print(client.quit())
"""


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
@pytest.mark.parametrize("service", ["old-required", "starttls"])
def test_nntplib(place: Place, service: str, mode: str) -> None:
    _, port = place.gateway.address(service, mode)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", NNTPLIB, str(port), USER, CANARY, str(place.authority), mode],
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert "205 Bye!" in done.stdout, done.stdout + done.stderr
    assert "b'. is what a dot looks like'" in done.stdout
    assert ("483 Encryption required" in done.stdout) == (mode == "starttls")


@pytest.mark.parametrize("program", programs.STARTTLS_CLIENTS)
def test_programs_that_know_starttls_for_nntp(place: Place, program: str) -> None:
    _, port = place.gateway.address("old-required")
    heard = programs.says_inside_tls(program, "nntp", port, place.authority, b"LIST\r\n", b"local.public")
    assert b"205 Bye!" in heard, heard


def test_tin(place: Place, tmp_path: Path) -> None:
    """It speaks implicit TLS only."""
    tin = programs.need("tin", debian="tin")
    _, port = place.gateway.address("old-required", "implicit")
    since = place.gateway.log.mark()
    (tmp_path / ".newsrc").write_text("local.public:\n")
    done = subprocess.run(
        [tin, "-r", "-T", "-g", "localhost", "-p", str(port), "-n", "-q", "-Z"],
        capture_output=True, text=True, timeout=DEADLINE, check=False,
        env={**os.environ, "HOME": str(tmp_path), "SSL_CERT_FILE": str(place.authority), "DOMAIN": "example.test"},
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr  # there is unread news
    place.gateway.log.wait("session", since, tls="TLSv1.3")


# --- exact octets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_a_feed(place: Place, policy: str) -> None:
    """In the clear where the policy allows it, and inside TLS, where the session is spliced."""
    place.scripted.play(legacy)
    feed = b"IHAVE <2@example.org>\r\n" + ARTICLE + b"TAKETHIS <3@example.org>\r\n" + ARTICLE
    with Client(place.gateway.address(f"scripted-{policy}")) as client:
        client.hear(rb"^201 [^\n]*\n")
        if policy == "required":
            client.say(b"IHAVE <2@example.org>\r\nTAKETHIS <3@example.org>\r\n" + ARTICLE)
            assert client.line() + client.line() == MUST_STARTTLS * 2
        else:
            client.say(feed)
            assert client.hear(rb"^239 [^\n]*\n") == b"335 send\r\n235 ok\r\n239 ok\r\n"
        client.say(b"STARTTLS\r\n")
        assert client.line() == GO_AHEAD
        client.shake_hands(place.trusting)
        client.say(feed)
        assert client.hear(rb"^239 [^\n]*\n") == b"335 send\r\n235 ok\r\n239 ok\r\n"
    connection = place.scripted.connection()
    connection.wait_until_ended()
    # In the clear the gateway asks before the first TAKETHIS; inside TLS it has spliced at IHAVE.
    asked = feed.replace(b"TAKETHIS", b"MODE STREAM\r\nTAKETHIS")
    assert connection.heard == (feed if policy == "required" else asked + feed)
